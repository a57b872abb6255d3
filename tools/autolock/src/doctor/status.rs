//! What /proc/PID/status tells of a process (proc_pid_status(5)).

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Bits of a capability set (include/uapi/linux/capability.h).
pub const CAP_DAC_OVERRIDE: u32 = 1;
pub const CAP_PERFMON: u32 = 38;
pub const CAP_BPF: u32 = 39;

/// Permissions of a file, as its mode has them for others.
pub const WRITE: u32 = 0o2;
pub const SEARCH: u32 = 0o1;

/// A process's rights and confinements.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// As file permissions see it.
    pub user: u32,
    pub groups: Vec<u32>,
    pub capabilities: u64,
    /// 0: none, 1: strict, 2: a filter.
    pub seccomp: u32,
    /// In a PID namespace below ours.
    pub nested: bool,
}

impl Status {
    /// What is not there counts as nothing.
    pub fn parse(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .unwrap_or_default()
        };
        let numbers = |name: &str| -> Vec<u32> {
            let words = field(name).split_ascii_whitespace();
            words.filter_map(|word| word.parse().ok()).collect()
        };
        // Real, effective, saved, file system.
        let of_files = |name: &str| numbers(name).get(3).copied();
        let mut groups = numbers("Groups");
        groups.extend(of_files("Gid"));
        Self {
            user: of_files("Uid").unwrap_or(u32::MAX),
            groups,
            capabilities: u64::from_str_radix(field("CapEff").trim(), 16).unwrap_or(0),
            seccomp: numbers("Seccomp").first().copied().unwrap_or(0),
            nested: numbers("NSpid").len() > 1,
        }
    }

    pub fn can(&self, capability: u32) -> bool {
        self.capabilities & (1 << capability) != 0
    }

    /// Whether the file's mode grants this; access control lists are not looked at.
    pub fn may(&self, permission: u32, file: &Metadata) -> bool {
        let shift = if file.uid() == self.user {
            6
        } else if self.groups.contains(&file.gid()) {
            3
        } else {
            0
        };
        self.can(CAP_DAC_OVERRIDE) || file.mode() & (permission << shift) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_that_files_see() {
        let status = Status::parse(
            "Name:\tx\nNSpid:\t40\t1\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapEff:\t0000008000000002\nSeccomp:\t2\nSeccomp_filters:\t1\n",
        );
        assert_eq!((status.user, status.seccomp, status.nested), (4, 2, true));
        assert_eq!(status.groups, [9, 10, 8]);
        assert!(status.can(CAP_BPF) && status.can(CAP_DAC_OVERRIDE) && !status.can(CAP_PERFMON));
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().metadata().expect("there");
        // 0700: its owner alone.
        let mut status = Status {
            user: file.uid(),
            ..Status::default()
        };
        assert!(status.may(WRITE, &file) && status.may(SEARCH, &file));
        status.user += 1;
        assert!(!status.may(WRITE, &file));
        status.groups = vec![file.gid()];
        assert!(!status.may(WRITE, &file));
        status.capabilities = 1 << CAP_DAC_OVERRIDE;
        assert!(status.may(WRITE, &file));
    }
}
