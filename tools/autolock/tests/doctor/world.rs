//! A root directory that is made up for the doctor: a machine where all is well, until a test spoils something.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use autolock_oncpu::greeting::SOCKET;
use serde_json::Value;
use tempfile::TempDir;

/// The kernel's numbers for the initial namespaces.
const INITIAL: [(&str, u64); 3] = [
    ("pid", 0xEFFF_FFFC),
    ("user", 0xEFFF_FFFD),
    ("time", 0xEFFF_FFFA),
];
/// Of another namespace.
pub const OTHER: u64 = 4_026_532_999;
/// A process in the made-up /proc.
pub const PID: u32 = 77;

pub const ALL_CAPABILITIES: &str = "000001ffffffffff";
pub const NO_CAPABILITIES: &str = "0000000000000000";

pub struct World {
    folder: TempDir,
}

/// What the doctor said.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// /proc/PID/status.
pub fn status(user: u32, groups: &str, capabilities: &str, rest: &str) -> String {
    format!(
        "Name:\tx\nUid:\t{user}\t{user}\t{user}\t{user}\nGid:\t{user}\t{user}\t{user}\t{user}\nGroups:\t{groups}\nCapEff:\t{capabilities}\n{rest}"
    )
}

/// Nobody that any file here belongs to.
pub fn somebody_else() -> u32 {
    // SAFETY: only tells.
    unsafe { libc::getuid() + 1 }
}

impl World {
    /// All is well, the user is root; only the daemon is missing.
    pub fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        world.write("/proc/sys/kernel/osrelease", "6.12.1-made-up\n");
        world.write("/proc/sys/kernel/unprivileged_bpf_disabled", "2\n");
        world.write(
            "/proc/self/mounts",
            "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n",
        );
        world.write(
            "/proc/self/status",
            status(0, "", ALL_CAPABILITIES, "Seccomp:\t0\n"),
        );
        world.write("/sys/kernel/btf/vmlinux", "");
        world.write("/lib/libautolock.so", "");
        for (kind, inode) in INITIAL {
            world.namespace(kind, inode);
        }
        fs::create_dir_all(world.socket().parent().expect("has one")).expect("made");
        world
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    pub fn socket(&self) -> PathBuf {
        self.path(SOCKET)
    }

    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).expect("removed");
    }

    pub fn mode(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }

    /// Puts this process into a namespace.
    pub fn namespace(&self, kind: &str, inode: u64) {
        self.link(
            &format!("{kind}:[{inode}]"),
            &format!("/proc/self/ns/{kind}"),
        );
    }

    pub fn link(&self, to: &str, path: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        let _ = fs::remove_file(&path);
        symlink(to, path).expect("linked");
    }

    /// Makes up a process of `program`, with these lines in its maps.
    pub fn process(&self, program: &Path, maps: &str) {
        let file = |name: &str| format!("/proc/{PID}/{name}");
        self.write(
            &file("status"),
            status(0, "", ALL_CAPABILITIES, "NSpid:\t77\nSeccomp:\t0\n"),
        );
        self.write(&file("maps"), maps);
        self.write(&file("auxv"), [0; 16]);
        self.write(&file("environ"), "");
        self.link(program.to_str().expect("of text"), &file("exe"));
        self.link(self.folder.path().to_str().expect("of text"), &file("root"));
    }

    /// `autolock doctor` on this machine, with nothing of the test's own environment that matters.
    pub fn doctor(&self, arguments: &[&str]) -> Said {
        self.doctor_with(arguments, &[])
    }

    pub fn doctor_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autolock"));
        command.arg("doctor").arg("--root").arg(self.folder.path());
        if !arguments.contains(&"--pid") && !arguments.contains(&"--lib") {
            command.arg("--lib").arg(self.path("/lib/libautolock.so"));
        }
        command.args(arguments).env_remove("AUTOLOCK_BACKEND");
        command.envs(environment.iter().copied());
        said(&mut command)
    }
}

pub fn said(command: &mut Command) -> Said {
    let output = command.output().expect("started");
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}
