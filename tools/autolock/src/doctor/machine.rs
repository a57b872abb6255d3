//! What this kernel and this user have for `autolockd` to start. The daemon itself refuses by the same rules.

use std::path::Path;

use autolockd::requirements::{
    BTF, INITIAL_PID_NAMESPACE, INITIAL_USER_NAMESPACE, LOCKDOWN, OLDEST, UNPRIVILEGED_BPF,
};

use super::finding::Obstacle;
use super::places::Places;
use super::status::{CAP_BPF, CAP_PERFMON, Status};

const BPFFS: &str = "/sys/fs/bpf";
/// As the daemon's, which has no use for this one (`PROC_TIME_INIT_INO`).
const INITIAL_TIME: u64 = 0xEFFF_FFFA;

/// Where a unit may be.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/autolockd.service",
    "/usr/lib/systemd/system/autolockd.service",
    "/lib/systemd/system/autolockd.service",
];
/// Is there when systemd is the service manager (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// As `uname -r` has it.
pub fn kernel(places: &Places) -> String {
    let release = places.text("/proc/sys/kernel/osrelease");
    release.unwrap_or_else(|| "of unknown release".into())
}

/// Why this kernel cannot have the table, whatever is done.
pub fn impossible(places: &Places) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let release = kernel(places);
    if version(&release).is_some_and(|version| version < OLDEST) {
        let (major, minor) = OLDEST;
        found.push(Obstacle::new(
            "kernel",
            format!("Linux {release} is too old: {major}.{minor} or later can have it"),
        ));
    }
    if !places.at(BTF).exists() {
        found.push(Obstacle::new(
            "btf",
            format!("{BTF} is missing: a kernel with BTF (CONFIG_DEBUG_INFO_BTF) can have it"),
        ));
    }
    found
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Why this process's thread ids are not the table's.
pub fn own_pid_namespace(places: &Places) -> Option<Obstacle> {
    let own = places.namespace("pid")?;
    (own != INITIAL_PID_NAMESPACE).then(|| pid_namespace("this is"))
}

pub fn pid_namespace(what: &str) -> Obstacle {
    Obstacle::new(
        "pid namespace",
        format!("{what} in a PID namespace of its own, where thread ids are not the kernel's"),
    )
    .fix("use the host's (docker run --pid=host -v /run/autolock:/run/autolock)")
}

pub fn own_time_namespace(places: &Places) -> bool {
    let own = places.namespace("time");
    own.is_some_and(|inode| inode != INITIAL_TIME)
}

/// Why `autolockd` would not start.
pub fn before_start(places: &Places, me: &Status) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if places
        .namespace("user")
        .is_some_and(|inode| inode != INITIAL_USER_NAMESPACE)
    {
        found.push(
            Obstacle::new("user namespace", "this is in a user namespace of its own")
                .fix("start autolockd on the host, and give the container /run/autolock"),
        );
    } else if me.user == 0 && !may_load(me) {
        found.push(
            Obstacle::new(
                "capabilities",
                "root has not CAP_BPF and CAP_PERFMON here, which autolockd needs to start",
            )
            .fix("start autolockd outside of the container"),
        );
    }
    if places.text(UNPRIVILEGED_BPF).as_deref() == Some("0") {
        found.push(
            Obstacle::new(
                "unprivileged bpf",
                "any user may load eBPF programs here, which autolockd refuses",
            )
            .fix(format!(
                "{}sysctl kernel.unprivileged_bpf_disabled=1",
                as_root(me)
            )),
        );
    }
    if places
        .text(LOCKDOWN)
        .is_some_and(|modes| modes.contains("[confidentiality]"))
    {
        found.push(
            Obstacle::new(
                "lockdown",
                "kernel lockdown is at confidentiality, which may forbid it",
            )
            .fix("boot with lockdown=integrity if autolockd says so"),
        );
    }
    if !is_bpffs(places) {
        found.push(
            Obstacle::new("bpffs", format!("{BPFFS} is not a BPF file system"))
                .fix(format!("{}mount -t bpf bpf {BPFFS}", as_root(me))),
        );
    }
    found
}

/// By the mounts, where the last one at a place counts.
fn is_bpffs(places: &Places) -> bool {
    let mounts = places.text("/proc/self/mounts").unwrap_or_default();
    let mut kinds = mounts.lines().rev().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next()? == BPFFS).then(|| words.next())?
    });
    kinds.next() == Some("bpf")
}

fn may_load(me: &Status) -> bool {
    me.can(CAP_BPF) && me.can(CAP_PERFMON)
}

fn as_root(me: &Status) -> &'static str {
    if me.user == 0 { "" } else { "sudo " }
}

/// `verb` is systemctl's: `start` or `restart`. Without a unit it is the daemon itself, beside this program if it is there.
pub fn service(places: &Places, me: &Status, verb: &str) -> String {
    let unit = UNITS.iter().any(|unit| places.at(unit).exists());
    if unit && places.at(BOOTED).exists() {
        return format!("{}systemctl {verb} autolockd", as_root(me));
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join("autolockd")))
        .filter(|path| path.is_file());
    let daemon = beside.as_deref().unwrap_or(Path::new("autolockd"));
    let sudo = if may_load(me) { "" } else { "sudo " };
    match verb {
        "restart" => format!("stop it, then {sudo}{} --foreground", daemon.display()),
        _ => format!("{sudo}{} --foreground", daemon.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.9-rc1"), Some((5, 9)));
        assert!(version("5.9.0") < Some(OLDEST) && version("5.10.0") >= Some(OLDEST));
        assert_eq!(version("of unknown release"), None);
    }
}
