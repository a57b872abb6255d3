//! What a process has.

use std::path::Path;
use std::process::Command;

use autolock_oncpu::table;
use serde_json::Value;

use crate::fake::{Fake, KEEPS};
use crate::programs::{LOCKS, compile, text};
use crate::world::{ALL_CAPABILITIES, NO_CAPABILITIES, PID, World, said, somebody_else, status};
use crate::{Spoil, checks};

/// A line of /proc/PID/maps; a size of 0 is a page.
pub fn map(size: usize, permissions: &str, name: &str) -> String {
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
