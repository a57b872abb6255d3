//! Starts `autolockd` for a test, on a socket and a BPF file system of its own, and stops it.
//!
//! For other crates: `#[path = "../../../tools/autolockd/tests/support/mod.rs"] mod autolockd;` It needs `libc` and std alone.
//!
//! [`Place::new`] moves the *calling thread* into a mount namespace of its own and mounts a BPF file system in a scratch folder there. So make a
//! `Place` in the thread that starts processes: what it starts is in that namespace, other threads are not. Nothing is left behind.
//!
//! By hand, as root: `unshare -m sh -c 'mkdir -p /tmp/a && mount -t bpf bpf /tmp/a && autolockd --foreground --bpffs /tmp/a --socket /tmp/a.sock'`.
#![allow(dead_code, reason = "no test needs all of it")]

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::linux::fs::MetadataExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Nothing that works takes as long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A scratch folder with a BPF file system; gone when it is dropped.
pub struct Place {
    folder: PathBuf,
    socket: PathBuf,
}

impl Place {
    /// `None`, with `SKIPPED: reason` printed, where this machine does not permit what autolockd needs.
    pub fn new() -> Option<Self> {
        let place = obstacle().map_or_else(Self::mount, Err);
        match place {
            Ok(place) if built_with_program() => Some(place),
            Ok(_) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "missing in CI: clang (apt-get install clang)"
                );
                skipped("autolockd was built without clang (apt-get install clang)");
                None
            }
            Err(reason) => {
                skipped(&reason);
                None
            }
        }
    }

    /// As [`Place::new`], with the socket where programs look for it: `/run` is an empty file system in this thread and what it starts.
    pub fn with_default_socket() -> Option<Self> {
        let mut place = Self::new()?;
        mount(c"tmpfs", Path::new("/run"), 0).expect("a tmpfs can be mounted on /run");
        place.socket = PathBuf::from("/run/autolock/autolockd.sock");
        Some(place)
    }

    fn mount() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = std::env::temp_dir().join(format!(
            "autolockd-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Relaxed)
        ));
        fs::create_dir(&folder).expect("the temporary folder is writable");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let place = Self {
            socket: folder.join("socket"),
            folder,
        };
        fs::create_dir(place.bpffs()).expect("it is ours");
        // SAFETY: changes the calling thread's mount namespace only.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(format!(
                "no mount namespace of its own: {}",
                io::Error::last_os_error()
            ));
        }
        mount(c"none", Path::new("/"), libc::MS_REC | libc::MS_PRIVATE)
            .and_then(|()| mount(c"bpf", &place.bpffs(), 0))
            .map_err(|error| format!("a BPF file system cannot be mounted: {error}"))?;
        Ok(place)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn bpffs(&self) -> PathBuf {
        self.folder.join("bpf")
    }

    /// What the daemons in this place have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// `autolockd` with this place's socket and BPF file system.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("--socket")
            .arg(self.socket())
            .arg("--bpffs")
            .arg(self.bpffs())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// Starts a daemon and waits until it has said that it is ready.
    pub fn start(&self) -> Daemon {
        self.start_with(|_| {})
    }

    /// As [`Place::start`], with more options.
    pub fn start_with(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.command();
        change(&mut command);
        self.start_as(&mut command)
    }

    /// As [`Place::start`], by a command that becomes the daemon.
    pub fn start_as(&self, command: &mut Command) -> Daemon {
        let path = self.folder.join("notify");
        let _ = fs::remove_file(&path);
        let notices = UnixDatagram::bind(&path).expect("the folder is ours");
        notices
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time-out");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("the folder is ours");
        command.env("NOTIFY_SOCKET", &path).stderr(log);
        let mut daemon = Daemon {
            child: command.spawn().expect("autolockd starts"),
        };
        let mut notice = [0; 256];
        let deadline = Instant::now() + DEADLINE;
        loop {
            match notices.recv(&mut notice) {
                Ok(length) if notice[..length].starts_with(b"READY=1") => return daemon,
                Ok(_) => {}
                Err(_) => {
                    let ended = daemon.child.try_wait().expect("it is our child");
                    assert!(
                        ended.is_none(),
                        "autolockd ended ({ended:?}):\n{}",
                        self.log()
                    );
                    assert!(
                        Instant::now() < deadline,
                        "not ready in {DEADLINE:?}:\n{}",
                        self.log()
                    );
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.bpffs().as_os_str().as_bytes()) {
            // SAFETY: a path.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A running daemon; killed when it is dropped.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a process that we have not waited for.
        let sent = unsafe { libc::kill(self.id(), signal) };
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
    }

    /// SIGTERM, and what comes of it.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.child.wait().expect("it is our child")
    }

    /// SIGKILL: it cleans up nothing.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that must come about, [`DEADLINE`] at most.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Past the test runner's capture.
pub fn skipped(reason: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {reason}");
}

/// The daemon's executable: this crate's, or built now.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = option_env!("CARGO_BIN_EXE_autolockd") {
            return PathBuf::from(path);
        }
        // TARGET/PROFILE/deps/test
        let test = std::env::current_exe().expect("/proc is mounted");
        let profile = test
            .parent()
            .and_then(Path::parent)
            .expect("tests are in target/PROFILE/deps");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "autolockd", "--target-dir"]);
        cargo.arg(profile.parent().expect("a target folder"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(built.success(), "autolockd does not build");
        profile.join("autolockd")
    })
}

/// `CAP_PERFMON` and `CAP_BPF` (include/uapi/linux/capability.h).
const NEEDED_CAPABILITIES: u64 = 1 << 38 | 1 << 39;

fn effective_capabilities() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let set = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(set.trim(), 16).ok()
        })
        .unwrap_or(0)
}

/// Why autolockd cannot run here, found without it: where it can, its refusal is a failure.
fn obstacle() -> Option<String> {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Some("autolockd's tests need root".to_owned());
    }
    // CAP_SYS_ADMIN would load the programs as well, but autolockd keeps to these two.
    if effective_capabilities() & NEEDED_CAPABILITIES != NEEDED_CAPABILITIES {
        return Some("CAP_BPF and CAP_PERFMON are missing".to_owned());
    }
    if fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.st_ino()) != 0xEFFF_FFFC {
        return Some("this is a container: not the initial PID namespace".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("the kernel has no BTF".to_owned());
    }
    if fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")
        .is_ok_and(|value| value.trim() == "0")
    {
        return Some("kernel.unprivileged_bpf_disabled is 0".to_owned());
    }
    load_nothing()
        .err()
        .map(|error| format!("BPF is not permitted here: {error}"))
}

/// Loads a program that returns 0, of a type that needs both capabilities.
fn load_nothing() -> io::Result<()> {
    /// The first members of `union bpf_attr` for `BPF_PROG_LOAD`.
    #[repr(C)]
    #[derive(Default)]
    struct ProgLoad {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log: [u32; 4],
        version_and_flags: [u32; 2],
    }
    const PROG_LOAD: libc::c_long = 5;
    const RAW_TRACEPOINT: u32 = 17;
    /// r0 = 0; exit
    const INSTRUCTIONS: [u64; 2] = [0xb7, 0x95];
    let attributes = ProgLoad {
        kind: RAW_TRACEPOINT,
        instruction_count: 2,
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        ..ProgLoad::default()
    };
    // SAFETY: the kernel reads `attributes` and what they point to.
    let program = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attributes,
            size_of::<ProgLoad>(),
        )
    };
    match i32::try_from(program) {
        Ok(program) if program >= 0 => {
            // SAFETY: the descriptor that we have just got.
            unsafe { libc::close(program) };
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asked of the daemon, which refuses this folder in any case.
fn built_with_program() -> bool {
    let refused = Command::new(binary())
        .args(["--bpffs", "/proc"])
        .output()
        .expect("autolockd starts");
    !String::from_utf8_lossy(&refused.stderr).contains("without its eBPF program")
}

/// Mounts the file system of this type; with `MS_PRIVATE` changes what is mounted.
fn mount(kind: &CStr, target: &Path, flags: libc::c_ulong) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: strings that end, alive through the call; no data.
    let done = unsafe {
        libc::mount(
            kind.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
