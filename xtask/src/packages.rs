//! Debian packages: what each step needs, what is missing, and how it gets installed.
//!
//! The only module (with [`fetch`]) that calls dpkg, apt or sudo. Runs `apt-get update` at most once.

pub mod fetch;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

use crate::shell;

/// Step, and the packages that it needs.
const NEEDS: &[(&str, &[&str])] = &[
    // clang compiles autolockd's eBPF program; gcc has no BPF target.
    ("build", &["clang", "gcc", "libc6-dev"]),
    (
        "bench-oncpu",
        &["libmemcached-tools", "linux-perf", "memcached"],
    ),
    // The preloads also run under other allocators and under a real server; public readers of profiles read ours.
    (
        "tests",
        &[
            "gcc",
            "g++",
            "golang-go",
            "libc6-dev",
            "libgoogle-perftools4",
            "libjemalloc2",
            "libmemcached-tools",
            "libtcmalloc-minimal4",
            "memcached",
            "python3-venv",
            "squashfs-tools",
        ],
    ),
    (
        "glibc-suite",
        &[
            "binutils",
            "gcc",
            "g++",
            "glibc-source",
            "libc6-dev",
            "xz-utils",
        ],
    ),
    (
        "glibc",
        &[
            "binutils",
            "bison",
            "gawk",
            "gcc",
            "g++",
            "glibc-source",
            "libc6-dev",
            "make",
            "patch",
            "perl",
            "python3",
            "xz-utils",
        ],
    ),
    // The tests' programs and memcached, on a glibc that is built.
    (
        "pair",
        &[
            "binutils",
            "bison",
            "g++",
            "gawk",
            "gcc",
            "glibc-source",
            "libc6-dev",
            "libmemcached-tools",
            "make",
            "memcached",
            "patch",
            "perl",
            "python3",
            "xz-utils",
        ],
    ),
    // Linkers and editors whose outputs are rewritten, and judges of the result. lld and mold are needed too: their programs are as common.
    (
        "use-this-glibc",
        &[
            "binutils",
            "elfutils",
            "g++",
            "gcc",
            "gdb",
            "libc6-dev",
            "libcap2-bin",
            "lld",
            "llvm",
            "mold",
            "patchelf",
            "zlib1g",
        ],
    ),
    ("callgrind", &["gcc", "libc6-dev", "valgrind"]),
    // The kernel and the guest's shell are fetched and not installed.
    ("virtual-time", &["qemu-system-x86"]),
    // The source of the kernel is fetched and not installed.
    (
        "kernel",
        &[
            "bc",
            "binutils",
            "bison",
            "flex",
            "gcc",
            "libc6-dev",
            "libelf-dev",
            "make",
            "patch",
            "perl",
            "python3",
            "xz-utils",
        ],
    ),
    // Debian's kernel has its modules compressed.
    ("vm", &["qemu-system-x86", "util-linux", "xz-utils"]),
    // memaslap, the load generator, is built from source.
    (
        "memcached",
        &[
            "bison",
            "cmake",
            "flex",
            "g++",
            "gcc",
            "libc6-dev",
            "libevent-dev",
            "libmemcached-tools",
            "make",
            "memcached",
        ],
    ),
    ("mksquashfs", &["squashfs-tools"]),
];

/// Is everything there?
pub enum Ready {
    Yes,
    /// One line that says what is missing and what to do.
    No(String),
}

/// Installs what `step` needs and lacks.
pub fn prepare(step: &str) -> Ready {
    prepare_all(&[step])
}

/// The same for several steps in one go.
pub fn prepare_all(steps: &[&str]) -> Ready {
    let mut wanted: Vec<&str> = steps.iter().flat_map(|step| needs(step)).copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let missing = match missing(&wanted) {
        Ok(missing) if missing.is_empty() => return Ready::Yes,
        Ok(missing) => missing,
        Err(_) => {
            let names = wanted.join(" ");
            return Ready::No(format!(
                "this is no Debian system (no dpkg-query): provide what these packages hold: {names}"
            ));
        }
    };
    match install(&missing) {
        Ok(()) => Ready::Yes,
        Err(error) => Ready::No(format!("{error:#}")),
    }
}

/// For the verbs that cannot do without.
pub fn require(step: &str) -> Result<()> {
    match prepare(step) {
        Ready::Yes => Ok(()),
        Ready::No(what_to_do) => bail!("{what_to_do}"),
    }
}

fn needs(step: &str) -> &'static [&'static str] {
    NEEDS
        .iter()
        .find(|(name, _)| *name == step)
        .map_or(&[], |(_, packages)| packages)
}

fn missing(wanted: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(wanted)
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    Ok(wanted
        .iter()
        .filter(|name| !installed.contains(name))
        .map(|name| (*name).to_owned())
        .collect())
}

fn install(names: &[String]) -> Result<()> {
    let names_line = names.join(" ");
    let by_hand = format!("install them by hand: apt-get install {names_line}");
    let Some(prefix) = privilege() else {
        bail!(
            "packages are missing and there is neither root nor sudo without a password; {by_hand}"
        );
    };
    eprintln!("installing {names_line}");
    update_once(prefix);
    let mut command = apt(prefix);
    command
        .args(["install", "-y", "--no-install-recommends"])
        .args(names);
    match shell::output(&mut command) {
        Ok(_) => Ok(()),
        Err(error) => bail!("{by_hand} ({error:#})"),
    }
}

fn update_once(prefix: &[&str]) {
    static UPDATED: AtomicBool = AtomicBool::new(false);
    if !UPDATED.swap(true, Ordering::Relaxed)
        && let Err(error) = shell::output(apt(prefix).arg("update"))
    {
        // Old lists may still do; what follows says so if they do not.
        eprintln!("apt-get update failed, going on with the lists that are there: {error:#}");
    }
}

/// What to put before apt-get: nothing for root, sudo where it asks for no password.
fn privilege() -> Option<&'static [&'static str]> {
    if nix::unistd::geteuid().is_root() {
        return Some(&[]);
    }
    let sudo = Command::new("sudo")
        .args(["-n", "true"])
        .stderr(Stdio::null())
        .status();
    sudo.is_ok_and(|status| status.success())
        .then_some(&["sudo", "-n"])
}

fn apt(prefix: &[&str]) -> Command {
    let words: Vec<&str> = prefix
        .iter()
        .copied()
        .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
        // Someone else's apt may be at work: wait for it.
        .chain(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}
