//! `autolock doctor` on machines that are made up, with a daemon that says what it is told: no root, no eBPF.

#[path = "support/fake.rs"]
mod fake;
#[path = "support/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::process::Command;

use autolock_oncpu::greeting::Answer;
use autolock_oncpu::table;
use fake::{Fake, KEEPS, Says};
use serde_json::Value;
use world::{
    ALL_CAPABILITIES, NO_CAPABILITIES, OTHER, PID, Said, World, said, somebody_else, status,
};

/// The checks that stand in the way of eBPF, in their order.
fn in_the_way(world: &World) -> Vec<String> {
    checks(&source(&world.doctor(&["--json"]).json(), "ebpf")["obstacles"])
}

fn source(json: &Value, name: &str) -> Value {
    let sources = json["sources"].as_array().expect("a list");
    let found = sources.iter().find(|source| source["name"] == name);
    found.expect("every source is there").clone()
}

fn checks(obstacles: &Value) -> Vec<String> {
    let obstacles = obstacles.as_array().expect("a list").iter();
    let checks = obstacles.map(|obstacle| obstacle["check"].as_str().expect("text").to_owned());
    checks.collect()
}

/// What is said of eBPF, in a line.
fn line(said: &Said) -> &str {
    let mut lines = said.out.lines();
    let found = lines.find(|line| line.starts_with("ebpf: "));
    found.unwrap_or_else(|| panic!("no line: {}{}", said.out, said.err))
}

#[test]
fn a_daemon_that_keeps_its_table_is_the_best_there_is() {
    let world = World::new();
    let _fake = Fake::start(&world.socket(), KEEPS);
    let said = world.doctor(&[]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(
        said.out,
        "Linux 6.12.1-made-up, user id 0\n\
         kernel: no: this version of autolock has no kernel patches\n\
         ebpf: yes: autolockd keeps the table\n\
         user: yes: needs nothing\n\
         a program would get ebpf, the best that this kernel can have\n"
    );
    let json = world.doctor(&["--json"]).json();
    assert_eq!(json["program"]["gets"], "ebpf");
    assert_eq!(json["best"], true);
}

#[test]
fn a_missing_daemon_is_said_with_the_command_that_starts_it() {
    let world = World::new();
    let said = world.doctor(&[]);
    assert_eq!(said.code, Some(1));
    let text = line(&said);
    assert!(
        text.starts_with("ebpf: no: autolockd is not running: "),
        "{text}"
    );
    assert!(
        text.ends_with("autolockd --foreground") && !text.contains("sudo"),
        "{text}"
    );
    assert!(
        said.out.ends_with("a program would get user: see above\n"),
        "{}",
        said.out
    );

    world.write(
        "/proc/self/status",
        status(somebody_else(), "", NO_CAPABILITIES, ""),
    );
    let said = world.doctor(&[]);
    assert!(line(&said).contains("running: sudo "), "{}", line(&said));

    world.write("/usr/lib/systemd/system/autolockd.service", "");
    assert!(
        line(&world.doctor(&[])).ends_with("--foreground"),
        "systemd does not run"
    );
    world.write("/run/systemd/system/x", "");
    let said = world.doctor(&[]);
    assert!(
        line(&said).ends_with("running: sudo systemctl start autolockd"),
        "{}",
        line(&said)
    );
}

#[test]
fn on_a_kernel_that_cannot_have_ebpf_user_space_is_the_best() {
    let cases: [(&str, fn(&World)); 2] = [
        ("kernel", |world| {
            world.write("/proc/sys/kernel/osrelease", "5.9.16\n");
        }),
        ("btf", |world| world.remove("/sys/kernel/btf/vmlinux")),
    ];
    for (check, spoil) in cases {
        let world = World::new();
        spoil(&world);
        let said = world.doctor(&[]);
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        assert!(line(&said).starts_with("ebpf: no: "), "{}", said.out);
        assert!(
            said.out.contains("would get user, the best"),
            "{}",
            said.out
        );
        assert_eq!(in_the_way(&world), [check], "a start would not help");
        // A daemon that runs knows better.
        let _fake = Fake::start(&world.socket(), KEEPS);
        let said = world.doctor(&[]);
        assert_eq!(
            (said.code, line(&said)),
            (Some(0), "ebpf: yes: autolockd keeps the table")
        );
    }
    let world = World::new();
    world.write("/proc/sys/kernel/osrelease", "5.10.0\n");
    assert_eq!(in_the_way(&world), ["daemon"]);
}

#[test]
fn what_the_daemon_needs_comes_before_its_start() {
    type Spoil = fn(&World);
    let cases: [(&str, Spoil); 9] = [
        ("bpffs", |world| {
            world.write("/proc/self/mounts", "proc /proc proc rw 0 0\n")
        }),
        ("bpffs", |world| {
            let mounts = "bpf /sys/fs/bpf bpf rw 0 0\nnone /sys/fs/bpf tmpfs rw 0 0\n";
            world.write("/proc/self/mounts", mounts);
        }),
        ("unprivileged bpf", |world| {
            world.write("/proc/sys/kernel/unprivileged_bpf_disabled", "0\n");
        }),
        ("lockdown", |world| {
            let modes = "none integrity [confidentiality]\n";
            world.write("/sys/kernel/security/lockdown", modes);
        }),
        ("user namespace", |world| world.namespace("user", OTHER)),
        ("pid namespace", |world| world.namespace("pid", OTHER)),
        ("capabilities", |world| {
            world.write("/proc/self/status", status(0, "", NO_CAPABILITIES, ""));
        }),
        ("capabilities", |world| {
            // CAP_BPF alone.
            world.write("/proc/self/status", status(0, "", "0000008000000000", ""));
        }),
        ("socket", |world| {
            world.write("/run/autolock/autolockd.sock", "")
        }),
    ];
    assert_eq!(in_the_way(&World::new()), ["daemon"]);
    for (check, spoil) in cases {
        let world = World::new();
        spoil(&world);
        let found = in_the_way(&world);
        let wanted = if check == "socket" {
            vec![check]
        } else {
            vec![check, "daemon"]
        };
        assert_eq!(found, wanted);
        assert_eq!(world.doctor(&[]).code, Some(1), "{check}");
    }
    let world = World::new();
    world.write(
        "/sys/kernel/security/lockdown",
        "none [integrity] confidentiality\n",
    );
    assert_eq!(in_the_way(&world), ["daemon"]);
}

#[test]
fn every_answer_of_a_daemon_has_its_words() {
    let stale = i64::try_from(table::STALE_NS).expect("small");
    let table = |byte, age_ns| Says::Table { byte, age_ns };
    for (says, check, words) in [
        (
            table(table::RUNNING, None),
            "table",
            "does not keep the table",
        ),
        (
            table(table::RUNNING, Some(stale)),
            "table",
            "does not keep the table",
        ),
        (
            table(table::NOT_RUNNING, Some(-500_000_000)),
            "table",
            "this very thread",
        ),
        (
            Says::Version(table::VERSION + 1),
            "version",
            "another version",
        ),
        (
            Says::Answer(Answer::ForeignPidNamespace),
            "pid namespace",
            "docker run --pid=host",
        ),
        (Says::Answer(Answer::Unsure), "answer", "refused"),
        (Says::Bytes(b"220 smtp ready"), "answer", "not autolockd"),
        (Says::Bytes(&[b'x'; 40]), "answer", "not autolockd"),
        (Says::Nothing, "answer", "does not answer"),
    ] {
        let world = World::new();
        let _fake = Fake::start(&world.socket(), says);
        let said = world.doctor(&[]);
        assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
        assert!(
            line(&said).starts_with("ebpf: no: ") && line(&said).contains(words),
            "{}",
            said.out
        );
        assert_eq!(in_the_way(&world), [check], "{words}");
    }
    // A thread id past the table says nothing against it.
    let world = World::new();
    let _fake = Fake::start(&world.socket(), table(table::UNKNOWN, Some(-500_000_000)));
    assert_eq!(world.doctor(&[]).code, Some(0));
}

#[test]
fn the_clock_of_another_time_namespace_is_named() {
    let world = World::new();
    let says = Says::Table {
        byte: table::RUNNING,
        age_ns: Some(3_600_000_000_000),
    };
    let _fake = Fake::start(&world.socket(), says);
    world.namespace("time", OTHER);
    assert_eq!(in_the_way(&world), ["time namespace"]);
}

#[test]
fn a_socket_that_nobody_listens_at_is_no_daemon() {
    let world = World::new();
    let _bound = fake::bound(&world.socket());
    assert_eq!(in_the_way(&world), ["daemon"]);
}

#[test]
fn who_may_not_connect_is_told_how_to() {
    let world = World::new();
    let _fake = Fake::start(&world.socket(), KEEPS);
    let user = somebody_else();
    let as_user = |groups: &str, capabilities: &str| {
        world.write("/proc/self/status", status(user, groups, capabilities, ""));
        let said = world.doctor(&[]);
        (said.code, line(&said).to_owned())
    };
    world.mode(&world.socket(), 0o666);
    assert_eq!(as_user("", NO_CAPABILITIES).0, Some(0));

    world.mode(&world.socket(), 0o600);
    let (code, text) = as_user("", NO_CAPABILITIES);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("(mode 0600, ") && text.contains("--mode 0666"),
        "{text}"
    );
    assert_eq!(as_user("", ALL_CAPABILITIES).0, Some(0));

    // The group is this test's own; a group 0 is not to be joined.
    let group = std::os::unix::fs::MetadataExt::gid(&world.socket().metadata().expect("there"));
    let group = if group == 0 {
        world.mode(&world.socket(), 0o660);
        let (_, text) = as_user("", NO_CAPABILITIES);
        assert!(text.contains("--mode 0660 --group NAME"), "{text}");
        give_to_a_group(&world)
    } else {
        group
    };
    world.mode(&world.socket(), 0o660);
    world.write("/etc/passwd", format!("jane:x:{user}:{user}::/:/bin/sh\n"));
    world.write(
        "/etc/group",
        format!("other:x:4000000:\nlocks:x:{group}:\n"),
    );
    let (_, text) = as_user("", NO_CAPABILITIES);
    assert!(
        text.contains("sudo usermod --append --groups locks jane"),
        "{text}"
    );
    assert_eq!(as_user(&group.to_string(), NO_CAPABILITIES).0, Some(0));
    world.write("/etc/group", format!("locks:x:{group}:joe,jane\n"));
    let (_, text) = as_user("", NO_CAPABILITIES);
    assert!(text.contains("log in again: jane"), "{text}");

    world.mode(&world.socket(), 0o666);
    world.mode(&world.path("/run/autolock"), 0o700);
    let (code, text) = as_user("", NO_CAPABILITIES);
    assert_eq!(code, Some(1));
    assert!(text.contains("may not look into /run/autolock"), "{text}");
    world.mode(&world.path("/run/autolock"), 0o755);
}

/// Of root, who may.
fn give_to_a_group(world: &World) -> u32 {
    const GROUP: u32 = 54_321;
    std::os::unix::fs::chown(world.socket(), None, Some(GROUP)).expect("root may");
    GROUP
}

#[test]
fn the_environment_and_a_filter_can_forbid_the_table() {
    let world = World::new();
    let _fake = Fake::start(&world.socket(), KEEPS);
    let backend = |value: &str| world.doctor_with(&[], &[("AUTOLOCK_BACKEND", value)]);
    let said = backend("user");
    assert_eq!(said.code, Some(1));
    let asked = "would get user: AUTOLOCK_BACKEND=user asks for it: unset AUTOLOCK_BACKEND\n";
    assert!(said.out.contains(asked), "{}", said.out);
    assert_eq!(backend("ebpf").code, Some(0));
    let said = backend("quick");
    assert_eq!(said.code, Some(0));
    assert!(
        said.out.contains("note: AUTOLOCK_BACKEND=quick is none of"),
        "{}",
        said.out
    );

    world.write(
        "/proc/self/status",
        status(0, "", ALL_CAPABILITIES, "Seccomp:\t2\n"),
    );
    let said = world.doctor(&[]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.out
            .contains("would get user: programs that are started here are under seccomp")
    );
    assert_eq!(backend("ebpf").code, Some(0));
}

#[test]
fn without_the_library_a_program_gets_nothing() {
    let world = World::new();
    let _fake = Fake::start(&world.socket(), KEEPS);
    let said = world.doctor(&["--lib", "/nowhere/libautolock.so"]);
    assert_eq!(said.code, Some(1));
    let wanted = "a program would get none of them: no library at /nowhere/libautolock.so";
    assert!(said.out.contains(wanted), "{}", said.out);
}

/// Compiles a C program or library in the world.
fn compile(world: &World, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    world.write("/source.c", source);
    let path = world.path(name);
    std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
    let mut gcc = Command::new("gcc");
    gcc.arg("-o")
        .arg(&path)
        .arg(world.path("/source.c"))
        .args(flags);
    let output = gcc
        .output()
        .expect("gcc is there: apt-get install gcc libc6-dev");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    path
}

const LOCKS: &str = "#include <pthread.h>
    int main(void) { static pthread_mutex_t m; return pthread_mutex_lock(&m); }";

fn text(path: &Path) -> &str {
    path.to_str().expect("of text")
}

#[test]
fn a_program_is_looked_at_as_run_does() {
    let world = World::new();
    let _fake = Fake::start(&world.socket(), KEEPS);
    let dynamic = compile(&world, "/dynamic", LOCKS, &[]);
    let said = world.doctor(&[text(&dynamic)]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let gets = format!("{} would get ebpf, the best", text(&dynamic));
    assert!(said.out.contains(&gets), "{}", said.out);

    let fixed = compile(&world, "/fixed", LOCKS, &["-static"]);
    let said = world.doctor(&[text(&fixed)]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.out.contains("would get none of them: ") && said.out.contains("is statically linked")
    );

    let lockless = compile(&world, "/lockless", "int main(void) { return 0; }", &[]);
    let said = world.doctor(&[text(&lockless)]);
    assert_eq!(said.code, Some(0), "nothing is missing");
    assert!(said.out.contains("note: neither ") && said.out.contains("call lock functions"));

    for arguments in [
        &["no-such-program-here"][..],
        &["--pid", "1", "true"],
        &["--pid", "x"],
    ] {
        let said = world.doctor(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}");
        assert_eq!(
            (said.out.as_str(), said.err.lines().count()),
            ("", 1),
            "{}",
            said.err
        );
    }
}

#[test]
fn a_libc_that_uses_interposed_mutexes_is_told_from_one_that_does_not() {
    let source = "extern void other(void);
        int pthread_mutex_lock(void *m) { other(); return m != 0; }
        int pthread_cond_wait(void *c, void *m) {
            int (*volatile lock)(void *) = pthread_mutex_lock;
            return lock(m); }";
    let flags = ["-shared", "-fPIC", "-nostdlib"];
    let note = |extra: &[&str]| {
        let world = World::new();
        compile(
            &world,
            "/x/libc.so.6",
            source,
            &[&flags[..], extra].concat(),
        );
        let program = compile(&world, "/a program", LOCKS, &[]);
        world.process(&program, &map(0, "r-xp", "/x/libc.so.6"));
        let json = world.doctor(&["--json", "--pid", &PID.to_string()]).json();
        json["program"]["notes"].to_string()
    };
    let stock = note(&["-Wl,-Bsymbolic"]);
    assert!(
        stock.contains("use-this-glibc --output './a program' "),
        "{stock}"
    );
    assert_eq!(note(&[]), "[]");
}

/// A line of /proc/PID/maps; a size of 0 is a page.
fn map(size: usize, permissions: &str, name: &str) -> String {
    let start = 0x7f00_0000_0000_usize;
    format!(
        "{start:x}-{:x} {permissions} 00000000 00:0e 1035 {name}\n",
        start + size.max(4096)
    )
}

fn with_library() -> String {
    map(0, "r-xp", "/lib/libautolock.so")
}

fn with_table() -> String {
    with_library() + &map(table::SIZE, "r--s", "anon_inode:bpf-map")
}

/// What is said of the made-up process: exit status, source, checks in the way.
fn of_process(world: &World) -> (Option<i32>, Value, Vec<String>) {
    let said = world.doctor(&["--json", "--pid", &PID.to_string()]);
    let program = said.json()["program"].clone();
    (
        said.code,
        program["gets"].clone(),
        checks(&program["obstacles"]),
    )
}

#[test]
fn a_process_has_what_is_mapped() {
    let world = World::new();
    let program = compile(&world, "/program", LOCKS, &[]);
    let none: [&str; 0] = [];
    {
        let _fake = Fake::start(&world.socket(), KEEPS);
        world.process(&program, &with_table());
        assert_eq!(
            of_process(&world),
            (Some(0), "ebpf".into(), none.map(str::to_owned).to_vec())
        );
        let said = world.doctor(&["--pid", &PID.to_string()]);
        let gets = format!("process {PID} ({}) gets ebpf, the best", text(&program));
        assert!(said.out.contains(&gets), "{}", said.out);

        world.process(&program, &with_library());
        assert_eq!(
            of_process(&world),
            (Some(1), "user".into(), vec!["table".into()])
        );
        world.process(&program, &map(0, "r-xp", "/usr/lib/libother.so"));
        assert_eq!(
            of_process(&world),
            (Some(1), Value::Null, vec!["library".into()])
        );
        // The daemon is not for us: that says nothing against what the process has.
        world.mode(&world.socket(), 0o600);
        world.process(&program, &with_table());
        world.write(
            "/proc/self/status",
            status(somebody_else(), "", NO_CAPABILITIES, ""),
        );
        let (code, gets, _) = of_process(&world);
        assert_eq!((code, gets), (Some(0), "ebpf".into()));
    }
    // The daemon has gone: nothing is wrong with the process.
    std::fs::remove_file(world.socket()).expect("removed");
    assert_eq!(of_process(&world), (Some(1), "user".into(), Vec::new()));
}

#[test]
fn why_a_process_has_no_table_is_found() {
    type Spoil = fn(&World);
    let file = |name: &str| format!("/proc/{PID}/{name}");
    let cases: [(&str, Spoil); 6] = [
        ("environment", |world| {
            world.write(
                &format!("/proc/{PID}/environ"),
                "A=1\0AUTOLOCK_BACKEND=user\0",
            );
        }),
        ("seccomp", |world| {
            let text = status(0, "", ALL_CAPABILITIES, "NSpid:\t77\nSeccomp:\t2\n");
            world.write(&format!("/proc/{PID}/status"), text);
        }),
        ("pid namespace", |world| {
            let text = status(0, "", ALL_CAPABILITIES, "NSpid:\t77\t1\n");
            world.write(&format!("/proc/{PID}/status"), text);
        }),
        ("permission", |world| {
            world.mode(&world.socket(), 0o600);
            let text = status(somebody_else(), "", NO_CAPABILITIES, "NSpid:\t77\n");
            world.write(&format!("/proc/{PID}/status"), text);
        }),
        ("root", |world| {
            world.write("/elsewhere/x", "");
            let elsewhere = world.path("/elsewhere");
            world.link(
                elsewhere.to_str().expect("text"),
                &format!("/proc/{PID}/root"),
            );
        }),
        ("program", |world| {
            let secure = [23_u64, 1, 0, 0].map(u64::to_ne_bytes).concat();
            world.write(&format!("/proc/{PID}/auxv"), secure);
        }),
    ];
    for (check, spoil) in cases {
        let world = World::new();
        let _fake = Fake::start(&world.socket(), KEEPS);
        world.process(Path::new("/program"), &with_library());
        spoil(&world);
        assert_eq!(
            of_process(&world),
            (Some(1), "user".into(), vec![check.into()])
        );
    }
    // Why the library is not in it.
    let world = World::new();
    let _fake = Fake::start(&world.socket(), KEEPS);
    let fixed = compile(&world, "/fixed", LOCKS, &["-static"]);
    world.process(&fixed, "");
    assert_eq!(
        of_process(&world),
        (Some(1), Value::Null, vec!["program".into()])
    );
    world.process(Path::new("/program"), "");
    world.write(
        &file("auxv"),
        [23_u64, 1, 0, 0].map(u64::to_ne_bytes).concat(),
    );
    assert_eq!(
        of_process(&world),
        (Some(1), Value::Null, vec!["program".into()])
    );
}

#[test]
fn a_real_process_is_looked_into() {
    let mut child = Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("`cat` starts");
    let pid = child.id().to_string();
    let doctor = |pid: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autolock"));
        said(command.args(["doctor", "--pid", pid]))
    };
    let alive = doctor(&pid);
    drop(child.stdin.take());
    child.wait().expect("`cat` ends");
    assert_eq!(alive.code, Some(1), "{}{}", alive.out, alive.err);
    let wanted = "gets none of them: libautolock.so is not in it: start it again by autolock run";
    assert!(alive.out.contains(wanted), "{}", alive.out);
    let ended = doctor(&pid);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended
            .err
            .starts_with(&format!("autolock: no process {pid}")),
        "{}",
        ended.err
    );
}
