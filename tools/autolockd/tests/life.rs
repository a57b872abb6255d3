//! The daemon's life: it starts, stops, is killed, and another takes over; what is left behind, and what clients see of it.
//!
//! Needs root and BPF; says `SKIPPED` where it cannot run.

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use autolock_oncpu::table::{self, Table};
use autolockd::client;
use autolockd::mapping::Mapping;
use support::{Place, eventually};

fn table_of(place: &Place) -> Mapping {
    client::ask(place.socket(), Duration::from_secs(10))
        .and_then(|reply| reply.table())
        .unwrap_or_else(|error| panic!("{error:#}\n{}", place.log()))
}

fn is_loaded(program: u32) -> bool {
    aya::programs::loaded_programs().any(|info| info.is_ok_and(|info| info.id() == program))
}

/// Exit code, and what was printed.
fn outcome(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("autolockd starts");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn thread_id() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// The kernel's.
fn release() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (
        numbers.next().expect("a major number"),
        numbers.next().expect("a minor number"),
    )
}

/// A thread that runs finds itself running; one that sleeps is not. (Always running but where the kernel keeps a switch to itself, which `truth.rs` tells apart; the
/// next switch puts that right.)
#[track_caller]
fn assert_the_table_lives(table: &Table) {
    assert_eq!(table.magic.load(Relaxed), table::MAGIC);
    assert!(table.is_fresh(autolockd::now_ns()));
    thread::scope(|scope| {
        let (say, hear) = std::sync::mpsc::channel();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let own = thread_id();
            eventually("a running thread is running", || {
                (0..10_000).all(|_| table.thread(own) == table::RUNNING)
            });
            say.send(own).expect("somebody listens");
            let _ = wait.recv();
        });
        let other = hear.recv().expect("it lives");
        eventually("a sleeping thread is not running", || {
            table.thread(other) == table::NOT_RUNNING
        });
        drop(go_on);
    });
}

#[test]
fn starts_serves_and_stops_without_a_trace_but_the_pin() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    assert_the_table_lives(&table);
    let program = table.program.load(Relaxed);
    assert!(is_loaded(program));

    assert_eq!(daemon.stop().code(), Some(0), "{}", place.log());
    assert_eq!(table.heartbeat.load(Relaxed), 0);
    assert!(!place.socket().exists());
    assert!(place.bpffs().join(table::PIN).exists());
    eventually("the program is unloaded", || !is_loaded(program));
}

#[test]
fn after_kill_nine_the_next_daemon_revives_the_mappings() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    assert_the_table_lives(&table);
    let program = table.program.load(Relaxed);
    daemon.kill();

    let left = fs::symlink_metadata(place.socket()).expect("a killed daemon leaves its socket");
    assert!(left.file_type().is_socket());
    eventually("the table is stale", || {
        !table.is_fresh(autolockd::now_ns())
    });
    assert_ne!(table.heartbeat.load(Relaxed), 0, "nobody has stopped it");
    eventually("the program is unloaded", || !is_loaded(program));

    // An entry that only the dead daemon can have left.
    let ended = thread::spawn(thread_id).join().expect("it ends");
    assert_eq!(table.thread(ended), table::UNKNOWN);
    let daemon = place.start();
    assert_ne!(table.program.load(Relaxed), program);
    assert_the_table_lives(&table);
    assert_the_table_lives(&table_of(&place));
    daemon.stop();
}

#[test]
fn a_new_daemon_forgets_what_the_last_one_saw() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    let ended = thread::spawn(thread_id).join().expect("it ends");
    eventually("it has ended", || table.thread(ended) == table::NOT_RUNNING);
    daemon.kill();
    let daemon = place.start();
    assert_eq!(table.thread(ended), table::UNKNOWN);
    daemon.stop();
}

#[test]
fn a_second_instance_is_refused_and_disturbs_nothing() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    let heartbeat = table.heartbeat.load(Relaxed);
    let program = table.program.load(Relaxed);

    let (code, said) = outcome(place.command().arg("--foreground"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another autolockd"), "{said}");
    // The same table by another socket.
    let (code, said) = outcome(
        Command::new(support::binary())
            .arg("--socket")
            .arg(place.folder().join("other"))
            .arg("--bpffs")
            .arg(place.bpffs()),
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another autolockd has the table"), "{said}");
    let (code, said) = outcome(place.command().arg("--remove"));
    assert_eq!(code, Some(1), "{said}");

    assert_eq!(table.program.load(Relaxed), program);
    eventually("the first one beats on", || {
        table.heartbeat.load(Relaxed) > heartbeat
    });
    assert_the_table_lives(&table_of(&place));
    daemon.stop();
}

#[test]
fn two_tables_cannot_share_a_socket() {
    let Some(place) = Place::new() else { return };
    let Some(other) = Place::new() else { return };
    let daemon = place.start();
    let (code, said) = outcome(
        Command::new(support::binary())
            .arg("--socket")
            .arg(place.socket())
            .arg("--bpffs")
            .arg(other.bpffs()),
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another autolockd has the socket"), "{said}");
    assert_the_table_lives(&table_of(&place));
    daemon.stop();
}

#[test]
fn status_tells_fresh_from_stale_from_absent() {
    let Some(place) = Place::new() else { return };
    let status = || outcome(place.command().arg("--status"));
    let (code, said) = status();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is missing"), "{said}");

    let daemon = place.start();
    let (code, said) = status();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("process {}", daemon.id())), "{said}");
    let program = table_of(&place).program.load(Relaxed);
    assert!(
        said.contains(&format!("eBPF program: id {program}")),
        "{said}"
    );

    // Stopped by a signal, it neither beats nor answers.
    let table = table_of(&place);
    daemon.signal(libc::SIGSTOP);
    eventually("the table is stale", || {
        !table.is_fresh(autolockd::now_ns())
    });
    let (code, said) = status();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("does not answer"), "{said}");
    daemon.signal(libc::SIGCONT);
    eventually("the table is fresh", || table.is_fresh(autolockd::now_ns()));
    assert_eq!(status().0, Some(0));

    daemon.kill();
    let (code, said) = status();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody listens"), "{said}");
}

#[test]
fn remove_removes_the_pin_of_a_stopped_daemon() {
    let Some(place) = Place::new() else { return };
    let remove = || outcome(place.command().arg("--remove"));
    assert_eq!(remove().0, Some(0));
    let daemon = place.start();
    let table = table_of(&place);
    daemon.stop();
    let (code, said) = remove();
    assert_eq!(code, Some(0), "{said}");
    assert!(!place.bpffs().join(table::PIN).exists());
    assert!(!place.bpffs().join("autolock").exists());
    // A table of its own now; the removed one stays stale for those who have it mapped.
    let daemon = place.start();
    assert!(!table.is_fresh(autolockd::now_ns()));
    assert_the_table_lives(&table_of(&place));
    daemon.stop();
}

#[test]
fn a_pinned_object_of_another_shape_is_left_alone() {
    let Some(place) = Place::new() else { return };
    let pin = place.bpffs().join(table::PIN);
    let other = aya::maps::HashMap::<_, u32, u32>::create(1, 0).expect("a map");
    autolockd::kernel::own_folder(&place.bpffs()).expect("a folder for the pin");
    other.pin(&pin).expect("it can be pinned");

    let (code, said) = outcome(place.command().arg("--foreground"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("autolockd --remove"), "{said}");
    assert!(pin.exists());
    let (code, said) = outcome(place.command().arg("--remove"));
    assert_eq!(code, Some(0), "{said}");
    let daemon = place.start();
    assert_the_table_lives(&table_of(&place));
    daemon.stop();
}

#[test]
fn a_folder_of_somebody_else_is_not_used() {
    let Some(place) = Place::new() else { return };
    let folder = place.bpffs().join("autolock");
    fs::create_dir(&folder).expect("the file system is ours");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let (code, said) = outcome(&mut place.command());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("others may write"), "{said}");
}

#[test]
fn a_file_in_the_sockets_place_is_left_alone() {
    let Some(place) = Place::new() else { return };
    fs::write(place.socket(), "precious").expect("the folder is ours");
    let (code, said) = outcome(&mut place.command());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no socket"), "{said}");
    assert_eq!(
        fs::read_to_string(place.socket()).expect("it is there"),
        "precious"
    );
}

#[test]
fn a_folder_that_is_no_bpf_file_system_is_refused() {
    let Some(place) = Place::new() else { return };
    let (code, said) = outcome(
        Command::new(support::binary())
            .arg("--socket")
            .arg(place.socket())
            .arg("--bpffs")
            .arg(place.folder()),
    );
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("mount -t bpf bpf"), "{said}");
}

#[test]
fn without_its_capabilities_it_says_so() {
    let Some(place) = Place::new() else { return };
    for capability in ["bpf", "perfmon"] {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--bounding-set=-{capability}"))
            .arg(support::binary())
            .arg("--bpffs")
            .arg(place.bpffs());
        let (code, said) = outcome(&mut command);
        assert_eq!(code, Some(3), "{said}");
        let name = format!("CAP_{} is missing", capability.to_uppercase());
        assert!(said.contains(&name), "{said}");
    }
}

#[test]
fn in_a_pid_namespace_neither_daemon_nor_client_is_served() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let inside = |last: &[&str]| {
        let daemon = place.command();
        outcome(
            Command::new("unshare")
                .args(["--pid", "--fork", "--mount-proc"])
                .arg(daemon.get_program())
                .args(daemon.get_args())
                .args(last),
        )
    };
    let (code, said) = inside(&["--status"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("PID namespace of its own"), "{said}");
    let (code, said) = inside(&[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("not the initial pid namespace"), "{said}");
    daemon.stop();
}

#[test]
fn it_keeps_no_capability_that_it_does_not_need() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("it runs");
    let value = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))
            .unwrap_or_else(|| panic!("no {name} in {status}"))
            .to_owned()
    };
    // CAP_BPF runs the heartbeat's program before Linux 5.19.
    let bpf = "0000008000000000";
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let needed = release() < (5, 19) && ["CapPrm", "CapEff"].contains(&set);
        let none = "0".repeat(16);
        assert_eq!(value(set), if needed { bpf } else { &none }, "{set}");
    }
    assert_eq!(value("NoNewPrivs"), "1");
    assert_eq!(value("Threads"), "1");
    daemon.stop();
}

#[test]
fn mode_and_group_say_who_may_connect() {
    const NOBODY: u32 = 65534;
    let Some(place) = Place::new() else { return };
    // Where everybody may run it.
    let program = place.folder().join("autolockd");
    fs::copy(support::binary(), &program).expect("the folder is ours");
    let ask = |group: u32| {
        outcome(
            Command::new(&program)
                .arg("--status")
                .arg("--socket")
                .arg(place.socket())
                .uid(NOBODY)
                .gid(group),
        )
    };
    let daemon = place.start();
    assert_eq!(ask(NOBODY).0, Some(0));
    daemon.stop();

    // Every system has a group `daemon`.
    let group = nix::unistd::Group::from_name("daemon")
        .expect("the groups can be read")
        .expect("group daemon");
    let daemon = place.start_with(|command| {
        command.args(["--mode", "0660", "--group", "daemon"]);
    });
    let (code, said) = ask(NOBODY);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("may not connect"), "{said}");
    assert_eq!(ask(group.gid.as_raw()).0, Some(0));
    daemon.stop();

    // As the unit runs it: not by CAP_CHOWN, but as a member of the group.
    let daemon = place.start_as(
        Command::new("setpriv")
            .args(["--bounding-set=-all,+bpf,+perfmon", "--groups"])
            .arg(group.gid.to_string())
            .arg(support::binary())
            .args(place.command().get_args())
            .args(["--mode", "0660", "--group", "daemon"]),
    );
    assert_eq!(ask(NOBODY).0, Some(1));
    assert_eq!(ask(group.gid.as_raw()).0, Some(0));
    daemon.stop();

    let (code, said) = outcome(place.command().args(["--group", "no such group"]));
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(outcome(place.command().args(["--mode", "0999"])).0, Some(2));
}

#[test]
fn the_default_socket_can_be_had_in_a_test() {
    let Some(place) = Place::with_default_socket() else {
        return;
    };
    let daemon = place.start();
    let (code, said) = outcome(Command::new(support::binary()).arg("--status"));
    assert_eq!(code, Some(0), "{said}");
    daemon.stop();
}
