//! Small programs and libraries, each a line of ld.so(8): the model and the loader agree, and they would not if the line were left out.

mod loader_support;

use loader_support::{Scratch, system};
use use_this_glibc::loader::search;
use use_this_glibc::loader::{Closure, Object};
use use_this_glibc::trace;

const RPATH: &str = "-Wl,--disable-new-dtags,-rpath";
const RUNPATH: &str = "-Wl,--enable-new-dtags,-rpath";

/// `-Wl,...,-rpath,PATH`.
fn path(kind: &str, path: &str) -> String {
    format!("{kind},{path}")
}

#[test]
fn needed_libraries_are_loaded_breadth_first() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    for name in ["c", "d", "e"] {
        scratch.library(&format!("l/lib{name}.so"), &format!("lib{name}.so"), &[]);
    }
    scratch.library("l/liba.so", "liba.so", &["@/l/libc.so", "@/l/libd.so"]);
    scratch.library("l/libb.so", "libb.so", &["@/l/libe.so"]);
    let arguments = [&path(RPATH, "@/l"), "@/l/liba.so", "@/l/libb.so"];
    let program = scratch.program("program", &arguments);
    let outcome = scratch.same(&program, &system());
    let names: Vec<_> = outcome
        .loaded
        .iter()
        .filter_map(|p| p.file_name())
        .collect();
    let depth = |name: &str| names.iter().position(|found| *found == name);
    assert!(depth("liba.so") < depth("libb.so"));
    assert!(depth("libb.so") < depth("libc.so"));
    assert!(depth("libd.so") < depth("libe.so"));
    scratch.differs(&program, &system(), |object, _| object.needed.reverse());
}

#[test]
fn rpath_counts_for_the_libraries_of_libraries_and_runpath_does_not() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    scratch.library("l/libb.so", "libb.so", &[]);
    scratch.library("l/liba.so", "liba.so", &["@/l/libb.so"]);
    let rpath = scratch.program("rpath", &[&path(RPATH, "@/l"), "@/l/liba.so"]);
    assert!(scratch.same(&rpath, &system()).file("libb.so").is_some());
    let runpath = scratch.program("runpath", &[&path(RUNPATH, "@/l"), "@/l/liba.so"]);
    assert_eq!(scratch.same(&runpath, &system()).missing, ["libb.so"]);
    scratch.differs(&runpath, &system(), |program, _| {
        program.rpath = program.runpath.take();
    });
    scratch.differs(&rpath, &system(), |program, _| {
        program.runpath = program.rpath.take();
    });
}

#[test]
fn a_library_with_a_runpath_does_not_search_the_programs_rpath() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    scratch.library("b/libb.so", "libb.so", &[]);
    scratch.library(
        "a/liba.so",
        "liba.so",
        &[&path(RUNPATH, "@/none"), "@/b/libb.so"],
    );
    let program = scratch.program("program", &[&path(RPATH, "@/a:@/b"), "@/a/liba.so"]);
    assert_eq!(scratch.same(&program, &system()).missing, ["libb.so"]);
}

#[test]
fn the_rpath_search_goes_up_past_an_ancestor_that_has_a_runpath() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    scratch.library("b/libb.so", "libb.so", &[]);
    scratch.library("c/libc1.so", "libc1.so", &["@/b/libb.so"]);
    scratch.library(
        "a/liba.so",
        "liba.so",
        &[&path(RUNPATH, "@/c"), "@/c/libc1.so"],
    );
    let program = scratch.program("program", &[&path(RPATH, "@/a:@/b"), "@/a/liba.so"]);
    let outcome = scratch.same(&program, &system());
    assert!(outcome.file("libb.so").is_some(), "{outcome:#?}");
}

#[test]
fn an_rpath_beside_a_runpath_counts_for_nobody() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    scratch.library("b/libb.so", "libb.so", &[]);
    scratch.library("b/libc1.so", "libc1.so", &["@/b/libb.so"]);
    let own = path(RUNPATH, "@/b");
    let both = scratch.library("a/liba.so", "liba.so", &[&own, "@/b/libc1.so"]);
    let program = scratch.program("program", &[&path(RPATH, "@/a"), "@/a/liba.so"]);
    // Linkers write one of them: the entry that counts relocations (a hint) becomes the other.
    const RPATH_TAG: u64 = 15;
    const RUNPATH_TAG: u64 = 29;
    const RELACOUNT: u64 = 0x6fff_fff9;
    let mut bytes = std::fs::read(&both).expect("read");
    let entry = |tag: u64| {
        let mut places = (0..bytes.len()).step_by(8);
        places.find(|&at| bytes[at..].starts_with(&tag.to_le_bytes()))
    };
    // Entries are 16 bytes, and the run path comes before; the rare tag is the sure one to find.
    let to = entry(RELACOUNT).expect("DT_RELACOUNT");
    let from = (0..to).rev().find(|&at| {
        (to - at).is_multiple_of(16) && bytes[at..].starts_with(&RUNPATH_TAG.to_le_bytes())
    });
    let from = from.expect("DT_RUNPATH");
    bytes.copy_within(from..from + 16, to);
    bytes[to..to + 8].copy_from_slice(&RPATH_TAG.to_le_bytes());
    std::fs::write(&both, bytes).expect("write");
    assert_eq!(scratch.same(&program, &system()).missing, ["libb.so"]);
}

#[test]
fn a_librarys_own_rpath_comes_before_the_programs() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    scratch.library("near/libb.so", "libb.so", &[]);
    scratch.library("far/libb.so", "libb.so", &[]);
    scratch.library(
        "a/liba.so",
        "liba.so",
        &[&path(RPATH, "@/near"), "@/near/libb.so"],
    );
    let program = scratch.program("program", &[&path(RPATH, "@/far:@/a"), "@/a/liba.so"]);
    let outcome = scratch.same(&program, &system());
    assert_eq!(
        outcome.file("libb.so"),
        Some(&*scratch.path("near/libb.so"))
    );
}

#[test]
fn a_name_that_is_loaded_already_is_not_searched_again() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    // `libreal.so.1` is nowhere by that name.
    scratch.library("l/libx.so", "libreal.so.1", &[]);
    scratch.library("l/liby.so", "liby.so", &["@/l/libx.so"]);
    // A library without SONAME is needed by the name that it was linked by.
    scratch.compile(
        "l/libz.so",
        "int z(void) { return 1; }",
        &["-shared", "-fPIC"],
    );
    let folder = scratch.folder();
    std::fs::hard_link(folder.join("l/libz.so"), folder.join("l/libother.so")).expect("link");
    std::os::unix::fs::symlink("libz.so", folder.join("l/libthird.so")).expect("link");
    let first = scratch.program(
        "first",
        &[
            &path(RPATH, "@/l"),
            "-L@/l",
            "-lz",
            "-lother",
            "-lthird",
            "@/l/liby.so",
        ],
    );
    assert_eq!(scratch.same(&first, &system()).missing, ["libreal.so.1"]);
    std::fs::copy(folder.join("l/libx.so"), folder.join("l/libreal.so.1")).expect("copy");
    let outcome = scratch.same(&first, &system());
    assert!(outcome.file("libz.so").is_some(), "{outcome:#?}");
    assert!(outcome.file("libother.so").is_none(), "the same file");
    assert!(outcome.file("libthird.so").is_none(), "the same file");
}

#[test]
fn a_needed_soname_of_a_loaded_file_is_that_file() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    // Linked while the SONAME was another one: the program needs `libx.so`, the library `libreal.so.1`.
    scratch.library("l/libx.so", "libx.so", &[]);
    let program_arguments = [&*path(RPATH, "@/l"), "@/l/libx.so", "@/l/liby.so"];
    scratch.library("l/libreal.so.1", "libreal.so.1", &[]);
    scratch.library("l/liby.so", "liby.so", &["@/l/libreal.so.1"]);
    let program = scratch.program("program", &program_arguments);
    std::fs::rename(scratch.path("l/libreal.so.1"), scratch.path("l/libx.so")).expect("rename");
    let outcome = scratch.same(&program, &system());
    assert_eq!(outcome.missing, [""; 0]);
    assert!(outcome.file("libx.so").is_some());
}

#[test]
fn origin_is_the_folder_of_whoever_has_the_run_path() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    scratch.library("x/y/libb.so", "libb.so", &[]);
    scratch.library(
        "x/liba.so",
        "liba.so",
        &[&path(RUNPATH, "${ORIGIN}/y"), "@/x/y/libb.so"],
    );
    let program = scratch.program(
        "bin/program",
        &[&path(RPATH, "$ORIGIN/../x"), "@/x/liba.so"],
    );
    let outcome = scratch.same(&program, &system());
    assert!(outcome.file("libb.so").is_some(), "{outcome:#?}");
    scratch.differs(&program, &system(), |program, _| {
        program.path = "/elsewhere/program".into();
    });
}

#[test]
fn lib_and_platform_are_what_the_loader_says() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let loader = system();
    let folder = format!("l/{}", loader.lib);
    scratch.library(&format!("{folder}/libb.so"), "libb.so", &[]);
    let link = format!("@/{folder}/libb.so");
    let program = scratch.program("lib", &[&path(RPATH, "@/l/$LIB"), &link]);
    assert!(scratch.same(&program, &loader).file("libb.so").is_some());
    scratch.differs(&program, &loader, |_, loader| loader.lib = "nowhere".into());
    let program = scratch.program("platform", &[&path(RPATH, "@/l/$PLATFORM"), &link]);
    assert_eq!(scratch.same(&program, &loader).missing, ["libb.so"]);
    if let Some(platform) = &loader.platform {
        scratch.library(&format!("l/{platform}/libb.so"), "libb.so", &[]);
        assert!(scratch.same(&program, &loader).file("libb.so").is_some());
        scratch.differs(&program, &loader, |_, loader| loader.platform = None);
    }
}

#[test]
fn the_best_hwcaps_folder_comes_first() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let loader = system();
    scratch.library("l/libh.so", "libh.so", &[]);
    let program = scratch.program("program", &[&path(RPATH, "@/l"), "@/l/libh.so"]);
    scratch.same(&program, &loader);
    // From the worst to the best: each one that is added is the one that is found.
    for subfolder in loader.subfolders.iter().rev() {
        let file = format!("l/{}/libh.so", subfolder.display());
        scratch.library(&file, "libh.so", &[]);
        let outcome = scratch.same(&program, &loader);
        assert_eq!(outcome.file("libh.so"), Some(&*scratch.path(&file)));
        scratch.differs(&program, &loader, |_, loader| loader.subfolders.clear());
    }
    println!("{} folders", loader.subfolders.len());
}

#[test]
fn nodefaultlib_leaves_out_the_systems_folders() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let program = scratch.program("program", &["-Wl,-z,nodefaultlib"]);
    assert_eq!(scratch.same(&program, &system()).missing, ["libc.so.6"]);
    scratch.differs(&program, &system(), |program, _| {
        program.no_default_libraries = false;
    });
}

#[test]
fn a_name_with_a_slash_is_a_path() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    scratch.library("deep/libs.so", "$ORIGIN/deep/libs.so", &[]);
    let program = scratch.program("program", &["@/deep/libs.so"]);
    let outcome = scratch.same(&program, &system());
    assert!(outcome.file("libs.so").is_some(), "{outcome:#?}");
}

#[test]
fn files_for_other_machines_are_passed_over() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    scratch.library("b/libb.so", "libb.so", &[]);
    let program = scratch.program("program", &[&path(RPATH, "@/a:@/b"), "@/b/libb.so"]);
    let other = scratch.path("a/libb.so");
    // Class (32-bit), then machine (AArch64).
    for (at, byte) in [(4, 1), (18, 183)] {
        let mut bytes = std::fs::read(scratch.path("b/libb.so")).expect("read");
        bytes[at] = byte;
        std::fs::write(&other, bytes).expect("write");
        let outcome = scratch.same(&program, &system());
        assert_eq!(outcome.file("libb.so"), Some(&*scratch.path("b/libb.so")));
    }
}

#[test]
fn a_file_that_is_no_library_ends_the_search() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    scratch.library("b/libb.so", "libb.so", &[]);
    let program = scratch.program("program", &[&path(RPATH, "@/a:@/b"), "@/b/libb.so"]);
    let long = format!("INPUT(libc.so.6) {}", "x".repeat(100));
    for text in ["", "short", long.as_str()] {
        let file = scratch.write("a/libb.so", text);
        let closure = Closure::of(Object::read(&program).expect("a program"), &system());
        let closure = closure.expect("a closure");
        let broken = closure.missing[0].broken.clone();
        assert_eq!(broken.map(|(path, _)| path), Some(file));
        let trace = trace::list(&system().path, &program).expect("a trace");
        assert_eq!(trace.complaints.len(), 1, "{trace:#?}");
        assert!(trace.complaints[0].contains("libb.so"), "{trace:#?}");
    }
    let missing = Object::read(&scratch.folder());
    assert!(missing.is_err(), "a folder is no program");
}

#[test]
fn the_folders_of_a_run_path_are_taken_apart_as_the_loader_does() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let program = scratch.program("program", &[]);
    let object = Object::read(&program).expect("a program");
    let folders = search::folders(&system(), &object, b"/a/:$ORIGIN:$NONE/x:/b$");
    let folder = scratch.folder();
    let expected = [
        "/a/".as_ref(),
        folder.as_path(),
        "$NONE/x".as_ref(),
        "/b$".as_ref(),
    ];
    assert_eq!(folders, expected);
    assert!(search::folders(&system(), &object, b"").is_empty());
}
