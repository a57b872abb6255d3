//! What the daemon answers, and who may ask.

use autolock_oncpu::greeting::Answer;
use autolock_oncpu::table;

use crate::fake::{self, Fake, KEEPS, Says};
use crate::world::{ALL_CAPABILITIES, NO_CAPABILITIES, OTHER, World, somebody_else, status};
use crate::{in_the_way, line};

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
