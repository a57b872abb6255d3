//! What must hold on this machine before anything is loaded. Every refusal is a [`NotHere`]: one line that says what to do, exit code 3.

use std::fmt;
use std::fs;
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Not permitted, or not possible, on this machine or in this place.
#[derive(Debug)]
pub struct NotHere(pub String);

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotHere {}

fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(NotHere(why.into()).into())
}

/// The kernel's type information: the loader needs it to find a field, and to attach.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Who may load programs: 0 is everybody.
pub const UNPRIVILEGED_BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// What a kernel that is locked down forbids.
pub const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// `BPF_PROG_TEST_RUN` runs raw tracepoint programs since then (Linux 5.10; `CAP_BPF` is of 5.8).
pub const OLDEST: (u32, u32) = (5, 10);

/// The initial namespaces' fixed inodes (`PROC_PID_INIT_INO` and so on, include/linux/proc_ns.h).
pub const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
pub const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Checks all that can be known before the first `bpf` system call.
///
/// # Errors
/// [`NotHere`].
pub fn check(bpffs: &Path) -> Result<()> {
    if crate::kernel::OBJECT.is_empty() {
        return refuse(
            "this autolockd was built without its eBPF program: install clang and build it again",
        );
    }
    initial_namespace("pid", INITIAL_PID_NAMESPACE)?;
    initial_namespace("user", INITIAL_USER_NAMESPACE)?;
    for needed in [Capability::CAP_BPF, Capability::CAP_PERFMON] {
        if !caps::has_cap(None, CapSet::Effective, needed).unwrap_or(false) {
            return refuse(format!(
                "{needed} is missing: start autolockd as root or by its systemd unit, on Linux {}.{} or later",
                OLDEST.0, OLDEST.1
            ));
        }
    }
    if !Path::new(BTF).exists() {
        return refuse(format!(
            "{BTF} is missing: this needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF)"
        ));
    }
    unprivileged_bpf_is_off()?;
    is_bpffs(bpffs)
}

/// Thread ids in the table are the initial namespace's, and capabilities of another user namespace are not the kernel's.
fn initial_namespace(kind: &str, inode: u64) -> Result<()> {
    let path = format!("/proc/self/ns/{kind}");
    let found = fs::metadata(&path)
        .with_context(|| format!("{path} cannot be read: is /proc mounted?"))?
        .st_ino();
    if found == inode {
        Ok(())
    } else {
        refuse(format!(
            "this is not the initial {kind} namespace: start autolockd on the host, not in a container"
        ))
    }
}

/// The verifier takes a read-only map descriptor for a program that writes to the map. Where anybody may load programs, a client could
/// write the table.
fn unprivileged_bpf_is_off() -> Result<()> {
    match fs::read_to_string(UNPRIVILEGED_BPF) {
        Ok(value) if value.trim() == "0" => refuse(
            "any user may load eBPF programs here, and could write the table by one: sysctl kernel.unprivileged_bpf_disabled=1",
        ),
        // Without the setting there is no bpf(2) either, or /proc/sys is hidden.
        _ => Ok(()),
    }
}

/// Whether maps can be pinned below this folder.
///
/// # Errors
/// [`NotHere`].
pub fn is_bpffs(bpffs: &Path) -> Result<()> {
    match statfs(bpffs) {
        Ok(fs) if fs.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) => refuse(format!(
            "{0} is not a BPF file system: mount -t bpf bpf {0}",
            bpffs.display()
        )),
        Err(error) => refuse(format!(
            "{0}: {1}: create it and mount -t bpf bpf {0}",
            bpffs.display(),
            error.desc()
        )),
    }
}

/// What a `bpf` system call's error means, where it is one of the machine's and not ours.
#[must_use]
pub fn explain(error: anyhow::Error) -> anyhow::Error {
    let Some(code) = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error())
    else {
        return error;
    };
    match code {
        libc::ENOSYS => NotHere("this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)".to_owned()).into(),
        // EACCES is the verifier's, and a fault of ours.
        libc::EPERM => NotHere(format!(
            "the kernel does not permit it{}: {error:#}",
            lockdown()
        ))
        .into(),
        _ => error,
    }
}

/// `none [integrity] confidentiality`: the one in brackets holds.
fn lockdown() -> String {
    fs::read_to_string(LOCKDOWN)
        .ok()
        .and_then(|modes| {
            let mode = modes.split('[').nth(1)?.split(']').next()?.to_owned();
            (mode != "none").then(|| format!(" (kernel lockdown: {mode})"))
        })
        .unwrap_or_default()
}
