//! QEMU for one command: its command line, and passing on what comes out while it runs.
//!
//! The guest has four serial ports, each a file here: writing to a file never makes the guest wait, and on virtual time what a
//! program writes costs the same each time. The machine ends with this process, however that ends.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use wait_timeout::ChildExt;

use crate::shell;
use crate::virtual_time::machine::{QEMU, SHIFT};

/// Everything from warnings up is on the console. A panic ends the machine, and so does an oops: what goes on after it proves
/// nothing. A virtual CPU may wait long for one of the host's.
const KERNEL_ARGS: &str = "console=ttyS0 loglevel=5 printk.devkmsg=on oops=panic panic=-1 \
                           rcupdate.rcu_cpu_stall_timeout=120";
/// As bench-virtual boots: nothing random, no clock but QEMU's.
const VIRTUAL_ARGS: &str =
    "nokaslr random.trust_cpu=off tsc=reliable lpj=4000000 idle=halt cryptomgr.notests";
/// How often output is passed on.
const PASS_ON: Duration = Duration::from_millis(20);
/// The ports, in the guest's order, and their interrupts: none is shared, since ISA's cannot be.
const PORTS: [(&str, u8); 4] = [("console", 4), ("out", 3), ("err", 6), ("status", 7)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// Emulated, each virtual CPU by a thread.
    Tcg,
    /// Emulated one after the other, on virtual time.
    Counted,
}

pub struct Machine {
    pub kernel: PathBuf,
    pub accelerator: Accelerator,
    pub cpus: u16,
    /// As QEMU reads it.
    pub memory: String,
    /// The host's files are there.
    pub shares: bool,
    /// The console is the terminal.
    pub interactive: bool,
    /// Further words to the kernel.
    pub append: Vec<String>,
}

impl Accelerator {
    /// The best that works here. /dev/kvm alone says little: on some hosts it is there, and no kernel gets far in it.
    pub fn best() -> Self {
        let device = File::options().read(true).write(true).open("/dev/kvm");
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if device.is_ok() && virtualizes(&flags) {
            Self::Kvm
        } else {
            Self::Tcg
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
            Self::Counted => "TCG on virtual time",
        }
    }

    fn args(self) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            // Page tables of five levels are but slower.
            Self::Tcg => &["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"],
            Self::Counted => &["-accel", "tcg", "-seed", "1"],
        };
        let mut args: Vec<String> = words.iter().map(|&it| it.to_owned()).collect();
        if self == Self::Counted {
            args.extend(["-icount".into(), format!("shift={SHIFT},sleep=off")]);
            args.extend(["-rtc".into(), "base=2026-01-01T00:00:00,clock=vm".into()]);
        }
        args
    }
}

/// Does /proc/cpuinfo name Intel's or AMD's virtualization?
fn virtualizes(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
}

/// What became of the guest.
pub struct Outcome {
    /// QEMU's; None where the time was over first.
    pub ended: Option<ExitStatus>,
    pub console: Vec<u8>,
    /// The command has written something.
    pub wrote: bool,
    /// The guest's last word.
    pub status: String,
    pub complaints: String,
}

impl Machine {
    fn command(&self, initramfs: &Path, folder: &Path) -> Command {
        // The machine goes when we go.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", QEMU]);
        command.args(self.accelerator.args());
        // One package: see `virtual_time::machine`.
        let topology = format!("{0},sockets=1,cores={0},threads=1", self.cpus);
        command.args(["-smp", &topology, "-m", &self.memory]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.arg("-no-reboot");
        for (number, (name, irq)) in PORTS.iter().enumerate() {
            let file = folder.join(name);
            let file = file.display();
            let back = if self.interactive && number == 0 {
                format!("stdio,id={name},mux=on,signal=off,logfile={file}")
            } else {
                format!("file,id={name},path={file}")
            };
            command.arg("-chardev").arg(back);
            let device = format!("isa-serial,chardev={name},index={number},irq={irq}");
            command.arg("-device").arg(device);
        }
        if self.shares {
            let share = "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap";
            command.args(["-fsdev", share]);
            command.args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]);
        }
        command.arg("-kernel").arg(&self.kernel);
        command.arg("-initrd").arg(initramfs);
        let mut append = vec![KERNEL_ARGS.to_owned()];
        if self.accelerator == Accelerator::Counted {
            append.push(VIRTUAL_ARGS.to_owned());
        }
        append.extend(self.append.iter().cloned());
        command.arg("-append").arg(append.join(" "));
        command
    }

    /// Boots and waits; `out` and `err` get what the guest writes, as it comes.
    pub fn run(
        &self,
        initramfs: &Path,
        limit: Option<Duration>,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> Result<Outcome> {
        let folder = tempfile::tempdir().context("cannot make a scratch folder")?;
        let place = folder.path().to_owned();
        let file = |name: &str| place.join(name);
        for (name, _) in PORTS {
            File::create(file(name)).context("cannot write to a scratch folder")?;
        }
        let complaints =
            File::create(file("complaints")).context("cannot write to a scratch folder")?;
        let mut command = self.command(initramfs, &place);
        command.stderr(complaints);
        if !self.interactive {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot run `{}`", shell::line(&command)))?;
        let mut guest = Running { child, folder };
        let mut pumps = [Pump::new(&file("out"))?, Pump::new(&file("err"))?];
        let deadline = limit.map(|limit| Instant::now() + limit);
        let ended = loop {
            let ended = guest.child.wait_timeout(PASS_ON);
            let ended = ended.context("cannot wait for QEMU")?;
            let over = deadline.is_some_and(|it| Instant::now() >= it);
            if ended.is_none() && over {
                guest.end();
            }
            pumps[0].pass_on(out)?;
            pumps[1].pass_on(err)?;
            if ended.is_some() || over {
                break ended;
            }
        };
        Ok(Outcome {
            ended,
            console: guest.read("console"),
            wrote: pumps.iter().any(|it| it.passed),
            status: String::from_utf8_lossy(&guest.read("status")).into_owned(),
            complaints: String::from_utf8_lossy(&guest.read("complaints")).into_owned(),
        })
    }
}

/// A file that grows, read as far as it was passed on.
struct Pump {
    file: File,
    passed: bool,
}

impl Pump {
    fn new(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            file,
            passed: false,
        })
    }

    fn pass_on(&mut self, to: &mut impl Write) -> Result<()> {
        let mut buffer = [0; 1 << 16];
        loop {
            let read = self
                .file
                .read(&mut buffer)
                .context("cannot read the output")?;
            if read == 0 {
                return to.flush().context("cannot write the output");
            }
            self.passed = true;
            to.write_all(&buffer[..read])
                .context("cannot write the output")?;
        }
    }
}

/// A machine that ends with this handle.
struct Running {
    child: Child,
    folder: TempDir,
}

impl Running {
    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Politely at first: the terminal gets its settings back.
    fn end(&mut self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            kill(Pid::from_raw(id), Signal::SIGTERM).ok();
        }
        let ended = self.child.wait_timeout(Duration::from_secs(2));
        if !matches!(ended, Ok(Some(_))) {
            // Both fail where it has ended.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(accelerator: Accelerator) -> String {
        let machine = Machine {
            kernel: "bzImage".into(),
            accelerator,
            cpus: 3,
            memory: "1G".into(),
            shares: accelerator != Accelerator::Counted,
            interactive: false,
            append: vec!["more=1".into()],
        };
        shell::line(&machine.command(Path::new("initramfs"), Path::new("/f")))
    }

    #[test]
    fn the_hosts_files_are_shared_read_only_and_not_on_virtual_time() {
        let line_of = line(Accelerator::Tcg);
        assert!(line_of.contains(",readonly=on,"), "{line_of}");
        assert!(line_of.contains("-smp 3,sockets=1,") && line_of.contains(" more=1'"));
        let counted = line(Accelerator::Counted);
        assert!(!counted.contains("9p") && counted.contains("-icount"));
    }

    #[test]
    fn no_two_ports_share_an_interrupt() {
        let mut irqs = PORTS.map(|it| it.1);
        irqs.sort_unstable();
        assert!(irqs.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_cpu_that_does_not_name_virtualization_has_none() {
        assert!(virtualizes("model\t: x\nflags\t\t: fpu vmx sse\n"));
        assert!(virtualizes("flags\t\t: svm\n"));
        assert!(!virtualizes("flags\t\t: fpu sse\nbugs\t\t: vmx\n"));
    }
}
