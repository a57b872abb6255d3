//! What the kernel and the user have, and what is said of it.

use crate::fake::{Fake, KEEPS};
use crate::world::{NO_CAPABILITIES, OTHER, World, somebody_else, status};
use crate::{Spoil, in_the_way, line};

#[test]
fn a_daemon_that_keeps_its_table_is_the_best_there_is() {
    let world = World::new();
    let _fake = Fake::start(&world.socket(), KEEPS);
    let said = world.doctor(&[]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(
        said.out,
        "Linux 6.12.1-made-up, user id 0\n\
         kernel: no: this kernel has no autolocks (linux-patches)\n\
         ebpf: yes: autolockd keeps the table\n\
         user: yes: needs nothing\n\
         a program would get ebpf, the best that this kernel can have\n"
    );
    let json = world.doctor(&["--json"]).json();
    assert_eq!(json["program"]["gets"], "ebpf");
    assert_eq!(json["best"], true);
}

#[test]
fn a_patched_kernel_is_the_best_there_is_unless_it_is_switched_off() {
    let world = World::new();
    world.write("/proc/sys/kernel/auto_lock", "1\n");
    let said = world.doctor(&[]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(
        said.out
            .contains("kernel: yes: a slot per thread, mapped by the kernel\n")
            && said.out.contains("would get kernel, the best"),
        "{}",
        said.out
    );
    world.write("/proc/sys/kernel/auto_lock", "0\n");
    let said = world.doctor(&[]);
    assert_eq!(said.code, Some(1));
    let fix = "kernel: no: the sysctl kernel.auto_lock is 0: sysctl -w kernel.auto_lock=1\n";
    assert!(said.out.contains(fix), "{}", said.out);
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
    let cases: [(&str, Spoil); 2] = [
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
