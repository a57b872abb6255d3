//! Missing versions and symbols, as the loader complains about them.

mod loader_support;

use loader_support::{Scratch, system};
use use_this_glibc::loader::versions::{self, Kind, Lack};
use use_this_glibc::loader::{Closure, Object};
use use_this_glibc::trace;

const USER: &str = "int v1(void); int v2(void); int main(void) { return v1() + v2(); }";

/// A program that was linked against a library with V1 and V2.
fn program(scratch: &Scratch) -> std::path::PathBuf {
    scratch.versioned("l/libv.so", &["v1", "v2"], &["V1", "V2"]);
    let arguments = ["-Wl,--disable-new-dtags,-rpath,@/l", "@/l/libv.so"];
    scratch.compile("program", USER, &arguments)
}

fn check(program: &std::path::Path) -> (Vec<Lack>, Vec<String>) {
    let closure = Closure::of(Object::read(program).expect("a program"), &system());
    let closure = closure.expect("a closure");
    let lacks = versions::check(&closure, |_| true).expect("versions");
    let lines = lacks.iter().map(|lack| lack.line(&closure)).collect();
    (lacks, lines)
}

fn complaints(program: &std::path::Path) -> Vec<String> {
    let trace = trace::list(&system().path, program).expect("a trace");
    trace.errors().map(String::from).collect()
}

#[test]
fn nothing_is_lacking_where_the_library_is_the_one_that_was_linked() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let program = program(&scratch);
    assert_eq!(check(&program).0, []);
    assert_eq!(complaints(&program), [""; 0]);
}

#[test]
fn a_missing_version_is_named_with_its_symbols() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let program = program(&scratch);
    scratch.versioned("l/libv.so", &["v1", "v2"], &["V1"]);
    let (lacks, lines) = check(&program);
    let [lack] = &lacks[..] else {
        panic!("{lacks:#?}");
    };
    assert_eq!(lack.kind, Kind::Version);
    assert_eq!((&*lack.library, &*lack.version), ("libv.so", "V2"));
    assert_eq!(lack.symbols, ["v2"]);
    for part in ["program", "V2", "libv.so", "v2"] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
    let said = complaints(&program);
    assert!(said[0].contains("version `V2' not found"), "{said:?}");
}

#[test]
fn a_weak_need_is_no_error() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let program = program(&scratch);
    scratch.versioned("l/libv.so", &["v1", "v2"], &["V1"]);
    // Linkers set the flag in rare cases only. It follows the hash of the version's name (`vna_hash`, `vna_flags`).
    let mut bytes = std::fs::read(&program).expect("read");
    let hash = (u32::from(b'V') * 16 + u32::from(b'2')).to_le_bytes();
    let places: Vec<usize> = (0..bytes.len())
        .filter(|&at| bytes[at..].starts_with(&hash))
        .collect();
    assert_eq!(places.len(), 1);
    bytes[places[0] + 4] |= 2;
    std::fs::write(&program, bytes).expect("write");
    let kinds: Vec<_> = check(&program).0.iter().map(|lack| lack.kind).collect();
    assert_eq!(kinds, [Kind::WeakVersion]);
    assert_eq!(complaints(&program), [""; 0]);
}

#[test]
fn a_library_without_versions_is_no_error() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let program = program(&scratch);
    scratch.versioned("l/libv.so", &["v1", "v2"], &[]);
    let kinds: Vec<_> = check(&program).0.iter().map(|lack| lack.kind).collect();
    assert_eq!(kinds, [Kind::Unversioned; 2]);
    assert_eq!(complaints(&program), [""; 0]);
    let status = std::process::Command::new(&program).status().expect("run");
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_symbol_that_its_version_lacks_is_named() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let program = program(&scratch);
    scratch.versioned("l/libv.so", &["v1"], &["V1", "V2"]);
    let (lacks, lines) = check(&program);
    let found: Vec<_> = lacks
        .iter()
        .map(|lack| (lack.kind, &*lack.symbols))
        .collect();
    assert_eq!(
        found,
        [(Kind::Symbol, &["v2".to_string()][..])],
        "{lines:?}"
    );
    // The loader does not look for it before it is called.
    assert_eq!(complaints(&program), [""; 0]);
    let status = std::process::Command::new(&program).status().expect("run");
    assert_eq!(status.code(), Some(127));
    // Another library may have it.
    let source = "int v2(void) { return 1; }";
    scratch.compile(
        "l/libw.so",
        source,
        &["-shared", "-fPIC", "-Wl,-soname,libw.so"],
    );
    let arguments = [
        "-Wl,--disable-new-dtags,-rpath,@/l",
        "@/l/libv.so",
        "@/l/libw.so",
    ];
    scratch.versioned("l/libv.so", &["v1", "v2"], &["V1", "V2"]);
    let program = scratch.compile("other", USER, &arguments);
    scratch.versioned("l/libv.so", &["v1"], &["V1", "V2"]);
    assert_eq!(check(&program).0, []);
    let status = std::process::Command::new(&program).status().expect("run");
    assert_eq!(status.code(), Some(2));
}
