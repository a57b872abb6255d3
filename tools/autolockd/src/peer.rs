//! Which PID namespace a client is in: thread ids of another one are not the table's.

use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use autolock_oncpu::greeting::Answer;

/// The answer to the process with this id (`SO_PEERCRED`, so it is in our namespace or one below).
///
/// By a descriptor of the process, whose `NSpid:` line is there to read whatever `hidepid` hides of /proc/PID.
#[must_use]
pub fn answer(pid: libc::pid_t) -> Answer {
    open(pid)
        .and_then(|process| {
            fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()
        })
        .map_or(Answer::Unsure, |fdinfo| read(&fdinfo))
}

/// `pidfd_open(2)`, Linux 5.3.
fn open(pid: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: takes two integers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = i32::try_from(descriptor).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `NSpid:` has the process's id in our namespace, then in each one below; -1 once it has ended.
fn read(fdinfo: &str) -> Answer {
    let Some(ids) = fdinfo.lines().find_map(|line| line.strip_prefix("NSpid:")) else {
        return Answer::Unsure;
    };
    let mut ids = ids.split_ascii_whitespace().map(str::parse::<i32>);
    match (ids.next(), ids.next()) {
        (Some(Ok(1..)), None) => Answer::Granted,
        (Some(Ok(1..)), Some(_)) => Answer::ForeignPidNamespace,
        _ => Answer::Unsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_namespaces_of_a_process() {
        let line = |ids: &str| format!("pos:\t0\nflags:\t02000002\nPid:\t7\nNSpid:\t{ids}\n");
        assert_eq!(read(&line("7")), Answer::Granted);
        assert_eq!(read(&line("7\t1")), Answer::ForeignPidNamespace);
        assert_eq!(read(&line("7\t3\t1")), Answer::ForeignPidNamespace);
        assert_eq!(read(&line("-1")), Answer::Unsure);
        assert_eq!(read(&line("0")), Answer::Unsure);
        assert_eq!(read(&line("")), Answer::Unsure);
        assert_eq!(read("pos:\t0\n"), Answer::Unsure);
    }

    #[test]
    fn a_process_beside_us_is_granted_and_one_that_has_ended_is_not() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        assert_eq!(answer(own), Answer::Granted);
        let mut child = std::process::Command::new("true")
            .spawn()
            .expect("`true` starts");
        let pid = i32::try_from(child.id()).expect("a process id");
        child.wait().expect("`true` ends");
        assert_eq!(answer(pid), Answer::Unsure);
    }
}
