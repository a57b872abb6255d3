//! `autolock run` and `autolock profile` as a user meets them: with programs of every sort, and a preload that shows itself.
//!
//! The preload is a small one of our own: what is launched, how it ends and what is said about it does not depend on what is preloaded.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use tempfile::TempDir;

/// Shows that it is there, and complains as the preloads do.
const PRELOAD: &str = r#"
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    __attribute__((constructor)) static void start(void) {
        const char *signal = getenv("AUTOLOCK_PROFILE_SIGNAL");
        if (signal && !strcmp(signal, "NONE"))
            fprintf(stderr, "autolock: AUTOLOCK_PROFILE_SIGNAL=NONE: no signal of this name\n");
        setenv("PRELOADED", "yes", 1);
    }
"#;

/// Says what it got, then does what it is told.
const PROGRAM: &str = r#"
    #define _GNU_SOURCE
    #include <pthread.h>
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>
    static void say(int signal) {
        dprintf(1, "got %d\n", signal);
    }
    static int ignored(int signal) {
        struct sigaction action;
        sigaction(signal, NULL, &action);
        return action.sa_handler == SIG_IGN;
    }
    int main(int argc, char **argv) {
        static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
        for (int i = 1; i < argc; i++)
            printf("[%s]", argv[i]);
        printf(" preloaded=%s pid=%d\n", getenv("PRELOADED"), (int)getpid());
        fflush(stdout);
        const char *what = argc > 1 ? argv[1] : "";
        if (!strcmp(what, "exit"))
            return atoi(argv[2]);
        if (!strcmp(what, "die"))
            raise(atoi(argv[2]));
        if (!strcmp(what, "environment"))
            return system("env | grep -E '^(LD_PRELOAD|AUTOLOCK)' | sort");
        if (!strcmp(what, "signals")) {
            sigset_t blocked;
            sigprocmask(SIG_BLOCK, NULL, &blocked);
            printf("pipe %d, int %d, usr2 blocked %d\n", ignored(SIGPIPE), ignored(SIGINT),
                   sigismember(&blocked, SIGUSR2));
            return 0;
        }
        if (!strcmp(what, "capture")) {
            char name[64];
            snprintf(name, sizeof name, "program.%d.lockprof", (int)getpid());
            fclose(fopen(name, "w"));
            return argc > 2 ? atoi(argv[2]) : 4;
        }
        if (!strcmp(what, "wait")) {
            struct sigaction action = {.sa_handler = say};
            int all[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1};
            sigset_t wanted;
            sigemptyset(&wanted);
            for (int i = 0; i < 5; i++) {
                sigaction(all[i], &action, NULL);
                sigaddset(&wanted, all[i]);
            }
            sigprocmask(SIG_BLOCK, &wanted, NULL);
            printf("ready\n");
            fflush(stdout);
            int signal;
            do {
                sigwait(&wanted, &signal);
                say(signal);
            } while (signal != SIGTERM);
            return 7;
        }
        return 0;
    }
"#;

/// A folder with the preload and the program in it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        bench.compile("preload.so", PRELOAD, &["-shared", "-fPIC"]);
        bench.compile("program", PROGRAM, &[]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn compile(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let text = self.path("source.c");
        std::fs::write(&text, source).expect("written");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-w", "-pthread", "-o"])
            .arg(self.path(name))
            .arg(&text)
            .args(flags);
        let output = gcc
            .output()
            .expect("gcc is there: apt-get install gcc libc6-dev");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.path(name)
    }

    /// `autolock VERB --lib PRELOAD ARGS`, in the folder, without what the test's own environment says of preloads.
    fn autolock(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autolock"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AUTOLOCK_") || text.starts_with("LD_") {
                command.env_remove(&name);
            }
        }
        command
            .arg(verb)
            .arg("--lib")
            .arg(self.path("preload.so"))
            .args(args);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn output(&self, verb: &str, args: &[&str]) -> Output {
        self.autolock(verb, args).output().expect("autolock starts")
    }

    /// What is said about a program on stderr when it is started.
    fn said(&self, verb: &str, program: &Path) -> String {
        let output = self.output(verb, &["--", program.to_str().expect("UTF-8")]);
        text(&output.stderr)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn executable(file: &Path, mode: u32) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).expect("mode set");
}

/// Both ways to start a program.
const WAYS: [(&str, &[&str]); 3] = [("run", &[]), ("profile", &[]), ("profile", &["--report"])];

fn both(bench: &Bench, command: &[&str]) -> Vec<(String, Output)> {
    let run = |(verb, options): &(&str, &[&str])| {
        let args = [options, &["--"][..], command].concat();
        (format!("{verb} {args:?}"), bench.output(verb, &args))
    };
    WAYS.iter().map(run).collect()
}

#[test]
fn arguments_reach_the_program_as_they_are() {
    let bench = Bench::new();
    for (how, output) in both(&bench, &["./program", "a b", "", "--full", "*", "é'\"$"]) {
        let stdout = text(&output.stdout);
        assert!(
            stdout.starts_with("[a b][][--full][*][é'\"$] preloaded=yes pid="),
            "{how}: {stdout}"
        );
    }
    // The dashes may be left out.
    let output = bench.output("run", &["./program", "-x", "--lib"]);
    assert!(text(&output.stdout).starts_with("[-x][--lib] preloaded=yes"));
    // A name's bytes need not be text.
    let name = OsStr::new("./program");
    let odd = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    let output = bench
        .autolock("run", &[])
        .arg("--")
        .arg(name)
        .arg(odd)
        .output()
        .expect("starts");
    assert!(output.stdout.starts_with(b"[\xff] "), "{output:?}");
}

#[test]
fn the_exit_status_is_the_programs() {
    let bench = Bench::new();
    for (how, output) in both(&bench, &["./program", "exit", "3"]) {
        assert_eq!(output.status.code(), Some(3), "{how}: {output:?}");
    }
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGABRT] {
        for (how, output) in both(&bench, &["./program", "die", &signal.to_string()]) {
            assert_eq!(output.status.signal(), Some(signal), "{how}: {output:?}");
        }
    }
}

#[test]
fn a_program_that_is_not_there_or_cannot_be_executed_has_a_status_of_its_own() {
    let bench = Bench::new();
    executable(&bench.path("program"), 0o644);
    for (program, code, reason) in [
        ("./nonesuch", 127, "No such file or directory"),
        ("no-such-program-here", 127, "No such file or directory"),
        ("./program", 126, "Permission denied"),
        ("/", 126, "Permission denied"),
    ] {
        for (how, output) in both(&bench, &[program]) {
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{how}: {stderr}");
            let wanted = format!("autolock: cannot run {program}: {reason}\n");
            assert_eq!(stderr, wanted, "{how}");
        }
    }
}

#[test]
fn our_own_failures_are_one_line_and_125() {
    let bench = Bench::new();
    let cases: [(&str, &[&str], &str); 3] = [
        (
            "run",
            &["--lib", "/nowhere.so", "--", "true"],
            "no library at /nowhere.so",
        ),
        (
            "profile",
            &["--signal", "NONE", "--", "true"],
            "AUTOLOCK_PROFILE_SIGNAL=NONE: no signal of this name",
        ),
        (
            "profile",
            &["--report", "--output", "none", "--", "true"],
            "--report needs a capture",
        ),
    ];
    for (verb, args, says) in cases {
        let mut command = bench.autolock(verb, &[]);
        if args[0] == "--lib" {
            command = Command::new(env!("CARGO_BIN_EXE_autolock"));
            command.arg(verb);
        }
        let output = command.args(args).output().expect("starts");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(
            stderr.contains(says) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    // A library for nobody.
    std::fs::write(bench.path("preload.so"), "no library").expect("written");
    let output = bench.output("run", &["--", "true"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(
        stderr.contains("LD_PRELOAD") && stderr.lines().count() == 1,
        "{stderr}"
    );
    // Wrong usage.
    assert_eq!(bench.output("run", &[]).status.code(), Some(2));
    assert_eq!(
        bench
            .output("profile", &["--table", "x", "--", "true"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn the_libraries_are_found_in_the_folder_that_is_named() {
    let bench = Bench::new();
    let folder = bench.path("lib");
    std::fs::create_dir(&folder).expect("made");
    for name in ["libautolock.so", "libpthread-mutex-profile.so"] {
        std::fs::copy(bench.path("preload.so"), folder.join(name)).expect("copied");
    }
    let start = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autolock"));
        command
            .env_remove("LD_PRELOAD")
            .env("AUTOLOCK_LIB_DIR", &folder);
        let output = command.args(args).output().expect("starts");
        text(&output.stdout)
    };
    let program = bench.path("program");
    let program = program.to_str().expect("UTF-8");
    let list = |names: &[&str]| {
        let paths: Vec<_> = names
            .iter()
            .map(|name| folder.join(name).display().to_string())
            .collect();
        format!("LD_PRELOAD={}\n", paths.join(":"))
    };
    let (ours, profiler) = ("libautolock.so", "libpthread-mutex-profile.so");
    let said = start(&["run", "--", program, "environment"]);
    assert!(said.ends_with(&list(&[ours])), "{said}");
    let said = start(&["profile", "--", program, "environment"]);
    assert!(said.ends_with(&list(&[profiler])), "{said}");
    let said = start(&["profile", "--autolock", "--", program, "environment"]);
    assert!(said.ends_with(&list(&[profiler, ours])), "{said}");
}

#[test]
fn options_become_variables_and_the_rest_of_the_environment_stays() {
    let bench = Bench::new();
    let mut command = bench.autolock(
        "profile",
        &[
            "--full",
            "--output",
            "x.%p",
            "--signal",
            "USR2",
            "--interval",
            "1s",
            "--memory",
            "2M",
            "--table",
            "3",
        ],
    );
    let other = bench.path("other.so");
    std::fs::copy(bench.path("preload.so"), &other).expect("copied");
    command
        .env("LD_PRELOAD", &other)
        .env("AUTOLOCK_PROFILE_TABLE", "9")
        .env("AUTOLOCK_STATS", "1");
    let output = command
        .args(["--", "./program", "environment"])
        .output()
        .expect("starts");
    let stdout = text(&output.stdout);
    let (_, variables) = stdout.split_once('\n').expect("the program's line first");
    let wanted = format!(
        "AUTOLOCK_PROFILE=full\nAUTOLOCK_PROFILE_FILE=x.%p\nAUTOLOCK_PROFILE_INTERVAL=1s\nAUTOLOCK_PROFILE_MEMORY=2M\n\
         AUTOLOCK_PROFILE_SIGNAL=USR2\nAUTOLOCK_PROFILE_TABLE=3\nAUTOLOCK_STATS=1\nLD_PRELOAD={}:{}\n",
        bench.path("preload.so").display(),
        other.display()
    );
    assert_eq!(variables, wanted);
    let output = bench.output(
        "run",
        &[
            "--algorithm",
            "mcs",
            "--stats",
            "--",
            "./program",
            "environment",
        ],
    );
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("AUTOLOCK_ALGORITHM=mcs\nAUTOLOCK_STATS=1\n"),
        "{stdout}"
    );
}

#[test]
fn the_program_is_looked_up_as_a_shell_would() {
    let bench = Bench::new();
    let (first, second) = (bench.path("first"), bench.path("second"));
    for folder in [&first, &second] {
        std::fs::create_dir(folder).expect("made");
        std::fs::copy(bench.path("program"), folder.join("looked-up")).expect("copied");
    }
    // Not executable: passed over.
    executable(&first.join("looked-up"), 0o644);
    let usual = std::env::var("PATH").expect("a path");
    let path = format!("/nowhere:{}:{}:{usual}", first.display(), second.display());
    for (verb, options) in WAYS {
        let mut command = bench.autolock(verb, options);
        let output = command
            .env("PATH", &path)
            .args(["--", "looked-up"])
            .output()
            .expect("starts");
        assert!(text(&output.stdout).contains("preloaded=yes"), "{output:?}");
    }
    let output = bench.output("run", &["--", "looked-up"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
}

#[test]
fn run_becomes_the_program() {
    let bench = Bench::new();
    for verb in ["run", "profile"] {
        let child = bench
            .autolock(verb, &["--", "./program"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let pid = child.id();
        let output = child.wait_with_output().expect("ends");
        assert!(
            text(&output.stdout).contains(&format!("pid={pid}\n")),
            "{output:?}"
        );
    }
}

#[test]
fn dispositions_and_mask_are_handed_on_as_they_were() {
    let bench = Bench::new();
    for (verb, options) in WAYS {
        for ignore in [false, true] {
            let mut command = bench.autolock(verb, options);
            let set = move || {
                let how = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
                for signal in [libc::SIGPIPE, libc::SIGINT] {
                    // SAFETY: async-signal-safe, takes no handler.
                    unsafe { libc::signal(signal, how) };
                }
                // SAFETY: zeros are a valid set.
                let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
                // SAFETY: a set and a signal's number.
                unsafe { libc::sigaddset(&mut set, libc::SIGUSR2) };
                let how = if ignore {
                    libc::SIG_BLOCK
                } else {
                    libc::SIG_UNBLOCK
                };
                // SAFETY: async-signal-safe, a valid set.
                unsafe { libc::sigprocmask(how, &set, std::ptr::null_mut()) };
                Ok(())
            };
            // SAFETY: the closure makes async-signal-safe calls only.
            unsafe { command.pre_exec(set) };
            let output = command
                .args(["--", "./program", "signals"])
                .output()
                .expect("starts");
            let n = u8::from(ignore);
            let wanted = format!("pipe {n}, int {n}, usr2 blocked {n}\n");
            assert!(
                text(&output.stdout).ends_with(&wanted),
                "{verb} {options:?}: {output:?}"
            );
        }
    }
}

/// A program that waits for signals, under us.
struct Waiting {
    child: Guarded,
    lines: BufReader<std::process::ChildStdout>,
}

impl Waiting {
    fn start(bench: &Bench, verb: &str, options: &[&str]) -> Self {
        let mut command = bench.autolock(verb, options);
        command
            .args(["--", "./program", "wait"])
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = Guarded(command.spawn().expect("starts"));
        let lines = BufReader::new(child.0.stdout.take().expect("piped"));
        let mut waiting = Self { child, lines };
        assert!(waiting.line().starts_with("[wait]"));
        assert_eq!(waiting.line(), "ready\n");
        waiting
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("read");
        line
    }

    /// To the process that was started, as kill(1) does.
    fn kill(&self, signal: i32) {
        // SAFETY: our child, which nobody has waited for.
        assert_eq!(unsafe { libc::kill(self.child.0.id() as i32, signal) }, 0);
    }

    fn end(mut self) -> (String, ExitStatus) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("read");
        (rest, self.child.0.wait().expect("ends"))
    }
}

#[test]
fn signals_reach_the_program_once_and_it_ends_as_it_likes() {
    let bench = Bench::new();
    for (verb, options) in WAYS {
        let mut waiting = Waiting::start(&bench, verb, options);
        for signal in [
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGUSR1,
            libc::SIGINT,
        ] {
            waiting.kill(signal);
            assert_eq!(
                waiting.line(),
                format!("got {signal}\n"),
                "{verb} {options:?}"
            );
        }
        waiting.kill(libc::SIGTERM);
        let (rest, status) = waiting.end();
        // Nothing came twice, and the launcher outlived what it handed on.
        assert_eq!(
            rest.lines().next(),
            Some("got 15"),
            "{verb} {options:?}: {rest}"
        );
        assert!(!rest[7..].contains("got"), "{rest}");
        assert_eq!(status.code(), Some(7), "{verb} {options:?}");
    }
}

#[test]
fn the_terminals_signals_are_left_to_the_terminal() {
    // script(1) gives the program a terminal, and `\x03` in its input makes that send SIGINT to its whole foreground group. A terminal
    // throws away its pending output after it has sent the signal, the answer to it as well if that was quick: noflsh(termios).
    let bench = Bench::new();
    let autolock = env!("CARGO_BIN_EXE_autolock");
    let lib = bench.path("preload.so");
    let mut command = Command::new("script");
    command
        .args([
            "-qec",
            &format!(
                "stty noflsh -echo && exec {autolock} profile --report --lib {} -- ./program wait",
                lib.display()
            ),
            "/dev/null",
        ])
        .current_dir(bench.folder.path())
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let Ok(child) = command.spawn() else {
        let reason = "script(1) is missing: apt-get install bsdutils";
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("SKIPPED: {reason}");
        return;
    };
    let mut child = Guarded(child);
    let mut input = child.0.stdin.take().expect("piped");
    let mut lines = BufReader::new(child.0.stdout.take().expect("piped"))
        .lines()
        .map(|line| line.expect("read"));
    assert!(lines.any(|line| line.trim() == "ready"));
    use std::io::Write;
    input.write_all(b"\x03").expect("written");
    assert_eq!(lines.next().as_deref().map(str::trim), Some("got 2"));
    // SIGQUIT next: were the first one handed on as well, it would come before.
    input.write_all(b"\x1c").expect("written");
    assert_eq!(lines.next().as_deref().map(str::trim), Some("got 3"));
}

/// A child that is ended with all that it has started, also when the test fails.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            end_descendants(self.0.id());
        }
        // Nothing can be done about an error here.
        let _ = self.0.wait();
    }
}

/// Ends the processes that a process has started, by their ids, and the process.
fn end_descendants(pid: u32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    for child in children.split_whitespace().filter_map(|id| id.parse().ok()) {
        end_descendants(child);
    }
    // SAFETY: kill takes no pointers; the process is a descendant of ours that its parent has not waited for.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
}

#[test]
fn a_report_is_made_of_the_captures_of_this_run() {
    let bench = Bench::new();
    std::fs::write(bench.path("program.1.lockprof"), "").expect("written");
    let output = bench.output("profile", &["--report", "--", "./program", "capture"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(!stderr.contains("program.1.lockprof"), "{stderr}");
    // Not a capture: that is our failure, but the program's status comes first. The next program's was good.
    assert!(stderr.contains("not readable as a capture"), "{stderr}");
    let good = bench.output("profile", &["--report", "--", "./program", "capture", "0"]);
    assert_eq!(good.status.code(), Some(125), "{good:?}");
    // None made: said, and no failure.
    for code in [0, 9] {
        let args = ["--report", "--", "./program", "exit", &code.to_string()];
        let output = bench.output("profile", &args);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains("no capture"), "{output:?}");
    }
}

#[test]
fn the_real_preloads_judge_their_options_and_are_reported() {
    let Some(autolock) = std::env::var_os("AUTOLOCK_LIB").map(PathBuf::from) else {
        let reason = "AUTOLOCK_LIB does not name libautolock.so";
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("SKIPPED: {reason}");
        return;
    };
    let bench = Bench::new();
    let folder = autolock.parent().expect("in a folder");
    let start = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autolock"));
        command
            .env_remove("LD_PRELOAD")
            .env("AUTOLOCK_LIB_DIR", folder);
        command.current_dir(bench.folder.path()).args(args);
        command.output().expect("starts")
    };
    for args in [
        ["run", "--algorithm", "nonesuch"],
        ["profile", "--signal", "SEGV"],
        ["profile", "--interval", "soon"],
        ["profile", "--memory", "1"],
        ["profile", "--table", "1000"],
    ] {
        let output = start(&[&args[..], &["--", "./program"]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        let one_line = stderr.lines().count() == 1 && stderr.contains(args[2]);
        assert!(one_line && !stderr.contains("using"), "{stderr}");
    }
    for options in [&["--full"][..], &["--autolock", "--signal", "USR2"]] {
        let args = [
            &["profile", "--report"],
            options,
            &["--", "./program", "exit", "3"],
        ]
        .concat();
        let output = start(&args);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        // The program's own line and nothing else.
        assert!(
            stdout.starts_with("[exit][3]") && stdout.lines().count() == 1,
            "{stdout}"
        );
        assert!(stderr.contains("\nmutex"), "its lock is reported: {stderr}");
        let next = if options[0] == "--autolock" {
            "libautolock.so"
        } else {
            "libc.so.6"
        };
        assert!(stderr.contains(next), "{stderr}");
    }
}

#[test]
fn an_ordinary_program_gives_no_warning() {
    let bench = Bench::new();
    for verb in ["run", "profile"] {
        assert_eq!(bench.said(verb, &bench.path("program")), "");
    }
}

#[test]
fn a_static_program_is_told_and_runs() {
    let bench = Bench::new();
    for flag in ["-static", "-static-pie"] {
        let program = bench.compile("static", PROGRAM, &[flag]);
        let output = bench.output(
            "run",
            &["--", program.to_str().expect("UTF-8"), "exit", "5"],
        );
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains("is statically linked") && stderr.lines().count() == 1,
            "{flag}: {stderr}"
        );
        assert_eq!(output.status.code(), Some(5));
        assert!(
            text(&output.stdout).contains("preloaded=(null)"),
            "the warning is true"
        );
    }
}

#[test]
fn a_go_program_is_told_by_its_build_id() {
    let bench = Bench::new();
    let go = format!(
        "__attribute__((section(\".note.go.buildid\"))) const char id[] = \"go\";{PROGRAM}"
    );
    let program = bench.compile("go", &go, &[]);
    assert!(bench.said("run", &program).contains("is a Go program"));
    let program = bench.compile("go", &go, &["-static"]);
    assert!(
        bench
            .said("run", &program)
            .contains("is a static Go program")
    );
}

#[test]
fn another_loader_and_another_processor_are_told() {
    let bench = Bench::new();
    let program = bench.compile(
        "musl",
        PROGRAM,
        &["-Wl,--dynamic-linker=/nowhere/ld-musl-x86_64.so.1"],
    );
    let output = bench.output("profile", &["--", program.to_str().expect("UTF-8")]);
    assert!(
        text(&output.stderr).contains("is linked with musl"),
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(127), "its loader is not there");

    let mut bytes = std::fs::read(bench.path("program")).expect("read");
    let foreign = bench.path("foreign");
    for (offset, byte, says) in [
        (18, 183, "is for another processor"),
        (4, 1, "is a 32-bit program"),
    ] {
        let kept = std::mem::replace(&mut bytes[offset], byte);
        std::fs::write(&foreign, &bytes).expect("written");
        executable(&foreign, 0o755);
        let said = bench.said("run", &foreign);
        assert!(said.contains(says), "{said}");
        bytes[offset] = kept;
    }
}

#[test]
fn a_program_that_gets_rights_is_told_and_drops_the_preload() {
    let bench = Bench::new();
    // SAFETY: only asks.
    if unsafe { libc::getuid() } != 0 {
        eprintln!("SKIPPED: only root can give a file away");
        return;
    }
    let file = bench.path("program");
    for (user, group, mode, says) in [
        (Some(65534), None, 0o4755, Some("is set-user-ID")),
        (None, Some(65534), 0o2755, Some("is set-group-ID")),
        (None, Some(65534), 0o2745, None),
        // Root's own: nothing is gained.
        (Some(0), Some(0), 0o6755, None),
    ] {
        std::os::unix::fs::chown(&file, user, group).expect("given away");
        executable(&file, mode);
        let output = bench.output("run", &["--", "./program"]);
        let stderr = text(&output.stderr);
        let dropped = text(&output.stdout).contains("preloaded=(null)");
        match says {
            Some(says) => assert!(stderr.contains(says), "{mode:o}: {stderr}"),
            None => assert_eq!(stderr, "", "{mode:o}"),
        }
        let nosuid = output.status.code() == Some(0) && !dropped && says.is_some();
        if nosuid {
            eprintln!(
                "SKIPPED: the scratch folder is mounted nosuid: {mode:o} has no effect there"
            );
        } else {
            assert_eq!(dropped, says.is_some(), "{mode:o}: {output:?}");
        }
        std::os::unix::fs::chown(&file, Some(0), Some(0)).expect("taken back");
    }
}

#[test]
fn rusts_own_locks_are_told_with_a_probably() {
    let bench = Bench::new();
    let said = bench.said("run", Path::new(env!("CARGO_BIN_EXE_autolock")));
    assert!(said.contains("probably has Rust code"), "{said}");
}

#[test]
fn a_program_without_locks_is_told_and_one_with_them_in_a_library_is_not() {
    let bench = Bench::new();
    let idle = bench.compile("idle", "int main(void) { return 0; }", &[]);
    assert!(bench.said("run", &idle).contains("lock functions"));

    // Spin locks alone: the profiler sees them, libautolock.so does not.
    let spins = "#include <pthread.h>\nint main(void) { pthread_spinlock_t s; pthread_spin_init(&s, 0); return pthread_spin_lock(&s); }";
    let spins = bench.compile("spins", spins, &[]);
    assert!(bench.said("run", &spins).contains("lock functions"));
    assert_eq!(bench.said("profile", &spins), "");

    let library =
        "#include <pthread.h>\nint takes(pthread_mutex_t *m) { return pthread_mutex_lock(m); }";
    bench.compile("libtakes.so", library, &["-shared", "-fPIC"]);
    let folder = bench.folder.path().display();
    let linked = [
        "-L.".replace('.', &folder.to_string()),
        "-ltakes".into(),
        format!("-Wl,-rpath,{folder}"),
    ];
    let linked = linked.each_ref().map(String::as_str);
    let user = bench.compile(
        "user",
        "int takes(void *); char m[64]; int main(void) { return takes(m); }",
        &linked,
    );
    assert_eq!(bench.said("run", &user), "");
}

#[test]
fn a_script_runs_and_its_interpreter_is_what_counts() {
    let bench = Bench::new();
    let script = bench.path("a script");
    let write = |first: &str| {
        std::fs::write(
            &script,
            format!("#!{first}\necho preloaded=$PRELOADED\nexit 6\n"),
        )
        .expect("written");
        executable(&script, 0o755);
    };
    write("/bin/sh");
    for (how, output) in both(&bench, &["./a script"]) {
        assert_eq!(output.status.code(), Some(6), "{how}: {output:?}");
        assert_eq!(text(&output.stdout), "preloaded=yes\n", "{how}");
        let warnings = text(&output.stderr);
        assert!(!warnings.contains("warning"), "{how}: {warnings}");
    }
    let interpreter = bench.compile("static", PROGRAM, &["-static"]);
    write(interpreter.to_str().expect("UTF-8"));
    let output = bench.output("run", &["--", "./a script"]);
    assert!(
        text(&output.stderr).contains("is statically linked"),
        "{output:?}"
    );
}
