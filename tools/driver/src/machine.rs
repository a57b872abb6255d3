//! What machine and what build produced a run. Only reads; whatever cannot be read is
//! said to be unknown.

use crate::clock::Clock;
use crate::cpus;
use crate::run::Machine;
use autolock_shim::source;
use std::ffi::CStr;
use std::fs;
use std::path::Path;

const UNKNOWN: &str = "unknown";
/// `cpus`: those that the run is kept on.
pub fn describe(clock: Clock, cpus: &[usize]) -> Machine {
    let relevant = |name: &str| {
        name.starts_with("AUTOLOCK_") || name == "LD_PRELOAD" || name == "GLIBC_TUNABLES"
    };
    Machine {
        cpu: cpu(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        cores: cpus.len(),
        tsc_ghz: clock.ghz(),
        kernel: line("/proc/sys/kernel/osrelease"),
        glibc: glibc_version(),
        rustc: option_env!("DRIVER_RUSTC").map(str::to_owned),
        commit: option_env!("DRIVER_COMMIT").map(str::to_owned),
        load_average: line("/proc/loadavg")
            .split(' ')
            .take(3)
            .collect::<Vec<_>>()
            .join(" "),
        environment: std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.to_string_lossy().into_owned())))
            .filter(|(k, _)| relevant(k))
            .collect(),
        cpus: Some(cpus::render(cpus)),
        on_cpu: Some(on_cpu()),
    }
}

/// Where the locks of the collection know from whether a holder runs. libautolock.so has asked for itself, by the same environment and moments before.
fn on_cpu() -> String {
    match source::name() {
        source::Name::Kernel => "kernel".into(),
        source::Name::Ebpf => "ebpf".into(),
        source::Name::User(why) => format!("user ({why})"),
    }
}

fn cpu(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or(UNKNOWN, |(_, name)| name.trim())
        .to_owned()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| UNKNOWN.into(), |text| text.trim().into())
}

fn glibc_version() -> String {
    // SAFETY: returns a static C string.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: as above; it is never null.
    unsafe { CStr::from_ptr(version) }
        .to_string_lossy()
        .into_owned()
}

/// FNV-1a of a file, in hexadecimal.
pub fn fingerprint(path: &Path) -> Option<String> {
    let hash = fs::read(path)
        .ok()?
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    Some(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_or_unknown() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: x\n";
        assert_eq!(cpu(text), "Some CPU @ 2 GHz");
        assert_eq!(cpu(""), UNKNOWN);
    }

    #[test]
    fn this_machine_has_cores_and_a_glibc() {
        let machine = describe(Clock::calibrate(), &[0, 1, 3]);
        assert_eq!((machine.cores, machine.cpus.as_deref()), (3, Some("0-1,3")));
        assert!(machine.glibc.starts_with("2."), "{}", machine.glibc);
    }

    #[test]
    fn a_fingerprint_is_fnv_1a() {
        let folder = tempfile::tempdir().expect("scratch folder");
        let path = folder.path().join("a");
        fs::write(&path, "a").expect("write");
        // The published test vector for "a".
        assert_eq!(fingerprint(&path).as_deref(), Some("af63dc4c8601ec8c"));
        assert_eq!(fingerprint(&folder.path().join("none")), None);
    }
}
