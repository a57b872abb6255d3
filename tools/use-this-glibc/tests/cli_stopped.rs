//! Stopped at every system call that writes: the program is whole, the old or the new one.
//!
//! The tool runs under ptrace(2) and is ended at the n-th such call, for each n, before the call and after it.

mod cli;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use cli::{Scene, TOOL};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Calls that change files.
const WRITING: [i64; 22] = [
    libc::SYS_creat,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_copy_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fchown,
    libc::SYS_fchmod,
    libc::SYS_fsetxattr,
    libc::SYS_fremovexattr,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_flock,
    libc::SYS_exit_group,
];

/// Flags of openat(2).
const OPENED_TO_WRITE: u64 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT) as u64;

/// The call of a stop, and whether it is done.
type Stop = (i64, bool);

/// Runs `command` and stops its main thread at each writing call; `at_stop` says with which signal to let it go for good there.
#[allow(clippy::zombie_processes, reason = "waited for by waitpid")]
fn run_stopped(
    command: &mut Command,
    mut at_stop: impl FnMut(Stop) -> Option<Signal>,
) -> WaitStatus {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let trace = || ptrace::traceme().map_err(std::io::Error::from);
    // SAFETY: ptrace is one system call, allocates nothing and is allowed after fork.
    unsafe { command.pre_exec(trace) };
    let child = command.spawn().expect("runs");
    let pid = Pid::from_raw(child.id().try_into().expect("a process id"));
    let wait = || waitpid(pid, Some(WaitPidFlag::__WALL)).expect("waits");
    assert_eq!(wait(), WaitStatus::Stopped(pid, Signal::SIGTRAP));
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options).expect("options");
    let mut call = 0;
    // Stops come before a call and after it by turns.
    let mut inside = false;
    let mut writes = false;
    let mut pass = None;
    loop {
        ptrace::syscall(pid, pass.take()).expect("goes on");
        match wait() {
            WaitStatus::PtraceSyscall(_) => {
                let done = inside;
                inside = !inside;
                if !done {
                    let registers = ptrace::getregs(pid).expect("registers");
                    call = registers.orig_rax.cast_signed();
                    writes = match call {
                        libc::SYS_openat => registers.rdx & OPENED_TO_WRITE != 0,
                        _ => WRITING.contains(&call),
                    };
                }
                if !writes {
                    continue;
                }
                match at_stop((call, done)) {
                    None => {}
                    Some(Signal::SIGKILL) => {
                        ptrace::kill(pid).expect("killed");
                        return wait();
                    }
                    Some(signal) => {
                        ptrace::detach(pid, signal).expect("let go");
                        return wait();
                    }
                }
            }
            // It became another program.
            WaitStatus::PtraceEvent(..) => {}
            WaitStatus::Stopped(_, signal) => pass = Some(signal),
            ended => return ended,
        }
    }
}

/// Ends the tool at its n-th stop for each n, by one signal after the other, until it comes to its end; `after` looks at what is left.
fn at_each_stop(
    scene: &Scene,
    arguments: &[&str],
    signals: &[Signal],
    mut after: impl FnMut(WaitStatus, Option<Stop>),
) -> usize {
    let original = scene.read("exe");
    for number in 0.. {
        for name in scene.names() {
            fs::remove_file(scene.path(&name)).expect("a file");
        }
        scene.write("exe", &original);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(scene.path("exe"), mode).expect("chmod");
        let mut seen = 0;
        let mut stopped = None;
        let status = run_stopped(scene.command(TOOL).args(arguments), |stop| {
            seen += 1;
            (seen > number).then(|| {
                stopped = Some(stop);
                signals[number % signals.len()]
            })
        });
        after(status, stopped);
        if stopped.is_none() {
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
            return number;
        }
    }
    unreachable!()
}

#[test]
fn killed_anywhere_the_program_is_whole() {
    let scene = Scene::new();
    let original = scene.read("exe");
    scene.tool(&["-o", "new", "prefix", "exe"]).fine();
    let changed = scene.read("new");
    let (mut old, mut new, mut left) = (0, 0, 0);
    let stops = at_each_stop(
        &scene,
        &["-i", "prefix", "exe"],
        &[Signal::SIGKILL],
        |_, stop| {
            let bytes = scene.read("exe");
            if bytes == original {
                old += 1;
            } else {
                assert!(
                    bytes == changed,
                    "neither the old nor the new program at {stop:?}"
                );
                assert!(scene.read("exe.orig") == original, "no backup at {stop:?}");
                new += 1;
            }
            left += usize::from(scene.names().iter().any(|name| name.starts_with('.')));
            // The next run takes no harm from what is left, and clears it away.
            scene.tool(&["-i", "prefix", "exe"]).fine();
            assert!(scene.read("exe") == changed);
            assert!(scene.read("exe.orig") == original);
            assert_eq!(scene.names(), ["exe", "exe.orig"]);
        },
    );
    println!("{stops} stops, {old} old, {new} new, {left} with a file left");
    // Every sort of end was met, or the test would show nothing.
    assert!(
        old > 10 && new > 1 && left > 5,
        "{stops} {old} {new} {left}"
    );
}

#[test]
fn killed_anywhere_while_restoring_the_program_is_whole() {
    let scene = Scene::new();
    let original = scene.read("exe");
    scene.tool(&["-i", "--no-backup", "prefix", "exe"]).fine();
    let changed = scene.read("exe");
    let stops = at_each_stop(
        &scene,
        &["--restore", "exe"],
        &[Signal::SIGKILL],
        |_, stop| {
            let bytes = scene.read("exe");
            assert!(bytes == original || bytes == changed, "{stop:?}");
        },
    );
    assert!(stops > 10, "{stops}");
}

/// What a tool that writes over the file would do: the same test must find it damaged.
#[test]
fn killed_while_writing_over_it_the_program_is_damaged() {
    let scene = Scene::new();
    let original = scene.read("exe");
    scene.tool(&["-o", "new", "prefix", "exe"]).fine();
    let changed = scene.read("new");
    let mut damaged = 0;
    for number in 0.. {
        scene.write("exe", &original);
        let mut seen = 0;
        let mut copy = scene.command("cp");
        let status = run_stopped(copy.args(["new", "exe"]), |_| {
            seen += 1;
            (seen > number).then_some(Signal::SIGKILL)
        });
        let bytes = scene.read("exe");
        damaged += usize::from(bytes != original && bytes != changed);
        if matches!(status, WaitStatus::Exited(..)) {
            break;
        }
    }
    assert!(damaged > 0, "the test would not see a damaged program");
}

#[test]
fn a_signal_leaves_no_temporary_file() {
    const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let scene = Scene::new();
    let original = scene.read("exe");
    scene.tool(&["-o", "new", "prefix", "exe"]).fine();
    let changed = scene.read("new");
    let mut ended = Vec::new();
    at_each_stop(
        &scene,
        &["-i", "prefix", "exe"],
        &SIGNALS,
        |status, stop| {
            match status {
                WaitStatus::Signaled(_, by, _) => ended.push(by),
                // It was quicker.
                WaitStatus::Exited(_, 0) => {}
                other => panic!("{other:?} at {stop:?}"),
            }
            let bytes = scene.read("exe");
            assert!(bytes == original || bytes == changed, "{stop:?}");
            let names = scene.names();
            assert!(
                !names.iter().any(|name| name.starts_with('.')),
                "{names:?} at {stop:?}"
            );
        },
    );
    for signal in SIGNALS {
        let times = ended.iter().filter(|&&by| by == signal).count();
        assert!(times > 3, "{times} runs were ended by {signal}");
    }
}

/// As nohup(1) does it.
#[test]
fn an_ignored_signal_stays_ignored() {
    let scene = Scene::new();
    let mut shell = scene.command("sh");
    let script = "trap '' HUP; exec \"$0\" -i prefix exe";
    let mut sent = false;
    let status = run_stopped(shell.args(["-c", script, TOOL]), |(call, done)| {
        if call == libc::SYS_fsync && !done && !sent {
            sent = true;
            return Some(Signal::SIGHUP);
        }
        None
    });
    assert!(sent);
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    assert_eq!(scene.libc_of("exe"), scene.libc_of_prefix("prefix"));
}

#[test]
fn a_program_that_changes_meanwhile_is_left_alone() {
    let scene = Scene::new();
    scene.tool(&["-o", "new", "prefix", "exe"]).fine();
    fs::remove_file(scene.path("new")).expect("new");
    for by_rename in [true, false] {
        let other = b"what the compiler wrote meanwhile";
        let mut synced = false;
        let status = run_stopped(
            scene.command(TOOL).args(["-i", "prefix", "exe"]),
            |(call, _)| {
                if call == libc::SYS_fsync && !synced {
                    synced = true;
                    if by_rename {
                        scene.write("other", other);
                        fs::rename(scene.path("other"), scene.path("exe")).expect("renamed");
                    } else {
                        scene.write("exe", other);
                    }
                }
                None
            },
        );
        assert!(synced);
        assert!(matches!(status, WaitStatus::Exited(_, 1)), "{status:?}");
        assert_eq!(scene.read("exe"), other);
        assert_eq!(scene.names(), ["exe"]);
        scene.compile("exe", &[]);
    }
}
