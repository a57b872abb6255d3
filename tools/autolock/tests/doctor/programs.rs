//! What a program would get.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fake::{Fake, KEEPS};
use crate::processes::map;
use crate::world::{ALL_CAPABILITIES, PID, World, status};

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
pub fn compile(world: &World, name: &str, source: &str, flags: &[&str]) -> PathBuf {
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

pub const LOCKS: &str = "#include <pthread.h>
    int main(void) { static pthread_mutex_t m; return pthread_mutex_lock(&m); }";

pub fn text(path: &Path) -> &str {
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
