//! Plans for small programs: what is added, warned about and refused; and what the loader makes of the result.

mod loader_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use loader_support::{Scratch, model, real, system};
use use_this_glibc::elf::{self, Change, RunPath};
use use_this_glibc::error::{Error, Result};
use use_this_glibc::loader::{Closure, Object};
use use_this_glibc::plan::{Plan, Wishes, plan};
use use_this_glibc::prefix::Prefix;
use use_this_glibc::trace;

const RPATH: &str = "-Wl,--disable-new-dtags,-rpath";
const RUNPATH: &str = "-Wl,--enable-new-dtags,-rpath";

fn plan_for(program: &Path, prefix: &Prefix, run_path: RunPath) -> Result<Plan> {
    let bytes = fs::read(program).expect("read the program");
    let wishes = Wishes {
        run_path,
        add_needed: Vec::new(),
    };
    plan(&bytes, program, prefix, &wishes)
}

/// The program changed, beside it.
fn changed(program: &Path, change: &Change) -> PathBuf {
    let bytes = fs::read(program).expect("read the program");
    let bytes = elf::apply(&bytes, change).expect("apply the change");
    let path = program.with_extension("changed");
    fs::write(&path, bytes).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    path
}

/// The plan holds: the loader finds what the model finds, and the program runs.
fn holds(program: &Path, plan: &Plan, prefix: &Prefix) {
    let path = changed(program, &plan.change);
    trace::check(&path, prefix).expect("the loader agrees");
    let closure = Closure::of(Object::read(&path).expect("a program"), &prefix.search);
    let trace = trace::list(&prefix.loader, &path).expect("a trace");
    assert_eq!(model(&closure.expect("a closure")), real(&trace));
    assert!(Command::new(&path).status().expect("run").success());
}

fn added(plan: &Plan) -> Vec<String> {
    let names = plan.change.add_needed.iter();
    names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

fn refused(result: Result<Plan>) -> String {
    match result {
        Err(Error::Check(lines)) => lines,
        other => panic!("{other:?}"),
    }
}

fn scratch() -> Option<(Scratch, Prefix)> {
    let scratch = Scratch::new()?;
    let prefix = Prefix::open(&scratch.prefix("p")).expect("a prefix");
    Some((scratch, prefix))
}

#[test]
fn the_run_path_is_the_prefix_the_old_path_and_the_system() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    for kind in [RPATH, RUNPATH] {
        let program = scratch.program("program", &[&format!("{kind},/old:$ORIGIN/x:/usr/lib")]);
        let plan = plan_for(&program, &prefix, RunPath::Rpath).expect("a plan");
        let (RunPath::Rpath, path) = plan.change.run_path.clone().expect("a run path") else {
            panic!("{plan:?}");
        };
        let path = String::from_utf8(path).expect("text");
        let folders: Vec<&str> = path.split(':').collect();
        assert_eq!(
            folders[..4],
            [
                prefix.lib.to_str().expect("text"),
                "/old",
                "$ORIGIN/x",
                "/usr/lib"
            ]
        );
        let mut once = folders.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), folders.len(), "{path}");
        // Wherever the system's loader found libc, by whatever links.
        let real: Vec<_> = folders[4..]
            .iter()
            .map(|f| fs::canonicalize(f).expect("a folder"))
            .collect();
        assert!(
            real.iter().any(|folder| folder.join("libc.so.6").exists()),
            "{path}"
        );
        holds(&program, &plan, &prefix);
        assert_eq!(plan.added_for, []);
        assert_eq!(plan.warnings, [""; 0]);
    }
}

#[test]
fn what_a_library_with_a_runpath_cannot_find_is_added_to_the_program() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    // Three deep, each known only once the one before is found.
    let own = format!("{RUNPATH},@/none");
    scratch.library("l/libc3.so", "libc3.so", &[&own]);
    scratch.library("l/libb2.so", "libb2.so", &[&own, "@/l/libc3.so"]);
    scratch.library("l/liba1.so", "liba1.so", &[&own, "@/l/libb2.so", "-lgcc_s"]);
    let old = format!("{RPATH},@/l");
    // Today the library finds them by LD_LIBRARY_PATH, say.
    let program = scratch.program("program", &[&old, "@/l/liba1.so"]);
    for kind in [RunPath::Rpath, RunPath::Runpath] {
        let plan = plan_for(&program, &prefix, kind).expect("a plan");
        assert_eq!(plan.warnings, [""; 0]);
        assert_eq!(added(&plan), ["libb2.so", "libgcc_s.so.1", "libc3.so"]);
        let library = scratch.path("l/liba1.so").display().to_string();
        assert_eq!(plan.added_for[0], ("libb2.so".to_string(), library));
        holds(&program, &plan, &prefix);
        // Without any one of them the loader says no.
        for left_out in 0..3 {
            let mut change = plan.change.clone();
            change.add_needed.remove(left_out);
            let result = trace::check(&changed(&program, &change), &prefix);
            assert!(matches!(result, Err(Error::Check(_))), "{result:?}");
        }
    }
}

#[test]
fn another_glibcs_library_is_not_loaded_beside_the_prefixs() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    let libm = prefix.lib.join("libm.so.6");
    fs::copy(&libm, scratch.path("other/libm.so.6")).expect("copy");
    let own = format!("{RUNPATH},@/other");
    scratch.library("l/liba.so", "liba.so", &[&own, "@/other/libm.so.6"]);
    let program = scratch.program("program", &[&format!("{RPATH},@/l"), "@/l/liba.so"]);
    let plan = plan_for(&program, &prefix, RunPath::Rpath).expect("a plan");
    assert_eq!(added(&plan), ["libm.so.6"]);
    holds(&program, &plan, &prefix);
    // The trace notices it too.
    let mut change = plan.change;
    change.add_needed.clear();
    let result = trace::check(&changed(&program, &change), &prefix);
    assert!(matches!(result, Err(Error::Check(_))), "{result:?}");
    // Nothing to be done about a library that is needed by its path.
    scratch.library("path/libm.so.6", "@/path/libm.so.6", &[]);
    let program = scratch.program("path/program", &["@/path/libm.so.6"]);
    fs::copy(&libm, scratch.path("path/libm.so.6")).expect("copy");
    let lines = refused(plan_for(&program, &prefix, RunPath::Rpath));
    assert!(lines.contains("another glibc's libm.so.6"), "{lines}");
    // Or if the prefix has none.
    let program = scratch.program("needs-libm", &["-lm"]);
    fs::remove_file(&libm).expect("remove");
    let lines = refused(plan_for(&program, &prefix, RunPath::Rpath));
    assert!(lines.contains("another glibc's libm.so.6"), "{lines}");
}

#[test]
fn libraries_that_nothing_finds_are_all_named() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    scratch.library("l/liba.so", "liba.so", &[]);
    scratch.library("l/libb.so", "libb.so", &[]);
    let program = scratch.program("program", &["@/l/liba.so", "@/l/libb.so"]);
    let lines = refused(plan_for(&program, &prefix, RunPath::Rpath));
    assert!(
        lines.contains("liba.so") && lines.contains("libb.so"),
        "{lines}"
    );
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[test]
fn a_program_whose_loader_is_not_here_is_planned_with_a_warning() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    let program = scratch.program("program", &["-Wl,--dynamic-linker=/nowhere/ld.so"]);
    let plan = plan_for(&program, &prefix, RunPath::Rpath).expect("a plan");
    assert_eq!(plan.warnings.len(), 1, "{plan:?}");
    assert!(plan.warnings[0].contains("/nowhere/ld.so"), "{plan:?}");
    holds(&program, &plan, &prefix);
}

#[test]
fn a_libc_that_does_not_find_the_unwinder_is_a_warning() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    let source = "#include <pthread.h>\n
        static void *end(void *p) { pthread_exit(p); }
        int main(void) { pthread_t t; return pthread_create(&t, 0, end, 0) || pthread_join(t, 0); }";
    let program = scratch.compile("program", source, &[]);
    let status = |plan: &Plan| {
        let path = changed(&program, &plan.change);
        Command::new(path).status().expect("run").success()
    };
    let good = plan_for(&program, &prefix, RunPath::Rpath).expect("a plan");
    assert_eq!(good.warnings, [""; 0]);
    assert!(status(&good));
    let mut bad = plan_for(&program, &prefix, RunPath::Runpath).expect("a plan");
    assert_eq!(bad.warnings.len(), 1, "{bad:?}");
    assert!(bad.warnings[0].contains("libgcc_s.so.1"), "{bad:?}");
    assert!(!status(&bad));
    bad.change.add_needed.push(b"libgcc_s.so.1".to_vec());
    assert!(status(&bad));
}

#[test]
fn a_shadowed_library_is_a_warning_if_it_suffices_and_an_error_if_not() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    let source = "int v1(void); int v2(void); int main(void) { return v1() + v2() - 2; }";
    scratch.versioned("l/libv.so", &["v1", "v2"], &["V1", "V2"]);
    let arguments = [&*format!("{RPATH},@/l"), "@/l/libv.so"];
    let program = scratch.compile("program", source, &arguments);
    let own = scratch.path("l/libv.so");
    // As good.
    scratch.versioned("p/lib/libv.so", &["v1", "v2"], &["V1", "V2"]);
    let good = plan_for(&program, &prefix, RunPath::Rpath).expect("a plan");
    assert_eq!(good.warnings.len(), 1, "{good:?}");
    assert!(good.warnings[0].contains("takes the place of"), "{good:?}");
    holds(&program, &good, &prefix);
    // Without a version, then without a symbol of it.
    for (symbols, versions) in [(&["v1", "v2"][..], &["V1"][..]), (&["v1"], &["V1", "V2"])] {
        scratch.versioned("p/lib/libv.so", symbols, versions);
        let lines = refused(plan_for(&program, &prefix, RunPath::Rpath));
        let place = own.display().to_string();
        for part in ["V2", "v2", "takes the place of", &place] {
            assert!(lines.contains(part), "{part}: {lines}");
        }
    }
}

#[test]
fn a_library_that_is_found_elsewhere_than_today_is_a_warning() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    scratch.library("l/liba.so", "liba.so", &["-lgcc_s"]);
    let program = scratch.program("program", &[&format!("{RUNPATH},@/l"), "@/l/liba.so"]);
    let kinds = [RunPath::Rpath, RunPath::Runpath];
    for kind in kinds {
        let plan = plan_for(&program, &prefix, kind).expect("a plan");
        assert_eq!(plan.warnings.len(), 0, "{plan:?}");
    }
    // The library does not look there today; afterwards it does, or the program does for it.
    let system = system();
    let mut folders = system
        .default_folders
        .iter()
        .map(|f| f.join("libgcc_s.so.1"));
    let gcc = folders.find(|path| path.is_file()).expect("libgcc_s.so.1");
    fs::copy(gcc, scratch.path("l/libgcc_s.so.1")).expect("copy");
    for kind in kinds {
        let plan = plan_for(&program, &prefix, kind).expect("a plan");
        assert_eq!(plan.warnings.len(), 1, "{plan:?}");
        assert!(
            plan.warnings[0].contains("is loaded instead of"),
            "{plan:?}"
        );
    }
}

#[test]
fn what_has_no_glibc_to_replace_is_refused() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    let unsupported = |path: &Path| match plan_for(path, &prefix, RunPath::Rpath) {
        Err(Error::Unsupported(line)) => line,
        other => panic!("{other:?}"),
    };
    let library = scratch.library("l/liba.so", "liba.so", &[]);
    assert!(unsupported(&library).contains("library"));
    let text = scratch.write("text", "#!/bin/sh\n");
    unsupported(&text);
    let source = "void _start(void) { for (;;) ; }";
    let bare = ["-nostdlib", "-static"];
    let fixed = scratch.compile("static", source, &bare);
    assert!(unsupported(&fixed).contains("static"));
    let bare = [
        "-nostdlib",
        "-Wl,--no-as-needed",
        "@/l/liba.so",
        "-Wl,-rpath,@/l",
    ];
    let library = scratch.compile(
        "l/liba.so",
        "int a(void) { return 1; }",
        &["-shared", "-nostdlib"],
    );
    assert!(library.exists());
    let alone = scratch.compile("alone", source, &bare);
    let lines = refused(plan_for(&alone, &prefix, RunPath::Rpath));
    assert!(lines.contains("does not use libc.so.6"), "{lines}");
}

#[test]
fn origin_is_where_the_result_will_stand() {
    let Some((scratch, prefix)) = scratch() else {
        return;
    };
    scratch.library("l/liba.so", "liba.so", &[]);
    let program = scratch.program("program", &[&format!("{RPATH},$ORIGIN/l"), "@/l/liba.so"]);
    let bytes = fs::read(&program).expect("read");
    let wishes = Wishes {
        run_path: RunPath::Rpath,
        add_needed: vec![b"libm.so.6".to_vec()],
    };
    let beside = scratch.folder().join("result");
    let good = plan(&bytes, &beside, &prefix, &wishes).expect("a plan");
    assert_eq!(added(&good), ["libm.so.6"]);
    assert_eq!(good.added_for, []);
    let elsewhere = scratch.path("elsewhere/result");
    let lines = refused(plan(&bytes, &elsewhere, &prefix, &wishes));
    assert!(lines.contains("liba.so"), "{lines}");
}
