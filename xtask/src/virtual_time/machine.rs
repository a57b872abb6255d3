//! QEMU: its command line, booting it twice at a time, and taking its output.
//!
//! The only module that starts virtual machines; each ends with its handle.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use wait_timeout::ChildExt;

use crate::shell;

pub const QEMU: &str = "qemu-system-x86_64";
/// An instruction takes 2^0 ns. At larger values the timer ticks of 16 virtual CPUs eat up the
/// instructions that there are.
pub const SHIFT: u32 = 0;
/// Nothing random, no time source but the virtual clock; no self-tests of the kernel's
/// cryptography in the background, they hold a virtual CPU without a pause.
const KERNEL_ARGS: &str = "console=ttyS0 quiet panic=-1 nokaslr random.trust_cpu=off tsc=reliable \
                           lpj=4000000 idle=halt cryptomgr.notests";

/// Whether an instruction is a fixed span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Virtual,
    /// The host's, as ever: for showing that the comparison notices.
    Host,
}

pub struct Machine {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub time: Time,
    /// What `AUTOLOCK_BACKEND` is in the guest: the kernel makes settings that it does not know its first process's environment.
    pub backend: Option<String>,
}

/// All that a boot sent out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// First serial port: the kernel, driver's table.
    pub console: Vec<u8>,
    /// Second serial port: driver's JSON and exit code.
    pub answer: Vec<u8>,
}

impl Output {
    /// What driver complained about, or else the last line.
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.console);
        let mut lines = text.lines().map(str::trim_end);
        let of_driver = lines.find(|line| line.starts_with("driver: "));
        of_driver.map_or_else(|| last_line(&self.console), str::to_owned)
    }
}

impl Machine {
    /// Boots twice, in two processes side by side; both get `limit` of the host's time.
    pub fn boot_twice(&self, cpus: usize, args: &[String], limit: Duration) -> Result<[Output; 2]> {
        let deadline = Instant::now() + limit;
        let mut first = Running::start(self, cpus, args)?;
        let mut second = Running::start(self, cpus, args)?;
        Ok([first.output(deadline)?, second.output(deadline)?])
    }

    /// Without its last words: the folder for the serial ports' files.
    fn command(&self, cpus: usize, args: &[String]) -> Command {
        let mut command = Command::new(QEMU);
        command.args(["-accel", "tcg"]);
        if self.time == Time::Virtual {
            command.args(["-icount", &format!("shift={SHIFT},sleep=off")]);
        }
        command.args(["-rtc", "base=2026-01-01T00:00:00,clock=vm", "-seed", "1"]);
        // One package with one last-level cache, as the scheduler sees it: woken threads look for an idle CPU there. QEMU's default, a package for each, leaves
        // them behind running ones while other CPUs are idle.
        let topology = format!("{cpus},sockets=1,cores={cpus},threads=1");
        command.args(["-smp", &topology, "-m", "512"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-no-reboot", "-monitor", "none"]);
        command.arg("-kernel").arg(&self.kernel);
        command.arg("-initrd").arg(&self.initramfs);
        // The kernel hands what stands after "--" to the first process.
        let backend = self.backend.as_ref();
        let backend = backend.map_or(String::new(), |it| format!(" AUTOLOCK_BACKEND={it}"));
        let append = format!("{KERNEL_ARGS}{backend} -- driver {}", args.join(" "));
        command.arg("-append").arg(append);
        command
    }

    /// The command as it is written down.
    pub fn line(&self, cpus: usize, args: &[String]) -> String {
        let mut command = self.command(cpus, args);
        command.args(serial(Path::new("")));
        shell::line(&command)
    }
}

/// Files, because writing to them never makes the guest wait.
fn serial(folder: &Path) -> [String; 4] {
    let file = |name| format!("file:{}", folder.join(name).display());
    [
        "-serial".into(),
        file("console"),
        "-serial".into(),
        file("answer"),
    ]
}

/// A machine that ends with this handle.
struct Running {
    child: Child,
    folder: TempDir,
}

impl Running {
    fn start(machine: &Machine, cpus: usize, args: &[String]) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a scratch folder")?;
        let complaints = File::create(folder.path().join("complaints"))
            .context("cannot write to a scratch folder")?;
        let qemu = machine.command(cpus, args);
        // The machine goes when we go, however we go.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(qemu.get_program()).args(qemu.get_args());
        command
            .args(serial(folder.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints);
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {QEMU}"))?;
        Ok(Self { child, folder })
    }

    fn output(&mut self, deadline: Instant) -> Result<Output> {
        let left = deadline.saturating_duration_since(Instant::now());
        let ended = self
            .child
            .wait_timeout(left)
            .context("cannot wait for QEMU")?;
        let Some(status) = ended else {
            bail!(
                "no end within the time limit; the console says: {}",
                self.last_line("console")
            );
        };
        if !status.success() {
            bail!("QEMU ended with {status}: {}", self.last_line("complaints"));
        }
        Ok(Output {
            console: self.read("console")?,
            answer: self.read("answer")?,
        })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.folder.path().join(name);
        std::fs::read(&file).with_context(|| format!("cannot read QEMU's {name}"))
    }

    fn last_line(&self, name: &str) -> String {
        last_line(&self.read(name).unwrap_or_default())
    }
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().rev().map(str::trim);
    let line = lines.find(|line| !line.is_empty()).unwrap_or("(none)");
    line.escape_debug().to_string()
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(time: Time) -> Machine {
        Machine {
            kernel: "vmlinuz".into(),
            initramfs: "initramfs".into(),
            time,
            backend: None,
        }
    }

    #[test]
    fn only_the_virtual_machine_counts_instructions() {
        let args = ["--bench".to_owned(), "a".to_owned()];
        let line = machine(Time::Virtual).line(4, &args);
        assert!(
            line.contains(" -icount shift=0,sleep=off ") && line.contains(" -smp 4,sockets=1,"),
            "{line}"
        );
        assert!(line.contains("-- driver --bench a'"), "{line}");
        assert!(!machine(Time::Host).line(4, &args).contains("icount"));
    }

    #[test]
    fn the_backend_is_a_setting_of_the_kernels_and_not_a_word_of_drivers() {
        let args = ["--bench".to_owned(), "a".to_owned()];
        let machine = Machine {
            backend: Some("user".into()),
            ..machine(Time::Virtual)
        };
        let line = machine.line(4, &args);
        assert!(
            line.contains(" AUTOLOCK_BACKEND=user -- driver --bench"),
            "{line}"
        );
    }
}
