//! Other tools see what we see: readelf the same symbols, gdb the libraries of a changed program.

mod elf_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use elf_support::workshop::{Workshop, missing};
use use_this_glibc::elf::{Image, apply};

#[test]
fn libraries_of_the_system_are_read_as_readelf_reads_them() {
    if missing("readelf", "binutils") {
        return;
    }
    let workshop = Workshop::new();
    let mut files = vec![
        PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
        PathBuf::from("/lib/x86_64-linux-gnu/libm.so.6"),
    ];
    for linker in ["bfd", "gold", "lld"] {
        for hash in ["gnu", "sysv", "both"] {
            if !missing(&format!("ld.{linker}"), "binutils lld") {
                let program = workshop.program(&[
                    &format!("-fuse-ld={linker}"),
                    &format!("-Wl,--hash-style={hash}"),
                ]);
                files.push(workshop.install(&format!("{linker}-{hash}"), &program));
            }
        }
    }
    for path in files {
        let file = fs::read(&path).expect("there");
        let image = Image::parse(&file).expect("whole");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut ours: Vec<String> = Vec::new();
        for symbol in image.symbols().expect("whole") {
            // readelf shows a version's own symbol without it.
            let version = symbol
                .version
                .filter(|&version| version != symbol.name)
                .map(|version| format!("@{}", text(version)))
                .unwrap_or_default();
            let bind = if symbol.weak { "WEAK" } else { "GLOBAL" };
            ours.push(format!(
                "{bind} {} {}{version}",
                if symbol.defined { "defined" } else { "UND" },
                text(symbol.name)
            ));
        }
        let mut theirs = readelf_symbols(&path);
        ours.sort();
        theirs.sort();
        assert!(!ours.is_empty());
        let unlike: Vec<_> = ours.iter().filter(|one| !theirs.contains(one)).collect();
        assert!(unlike.is_empty(), "{}: {unlike:?}", path.display());
        assert_eq!(ours.len(), theirs.len(), "{}", path.display());
        let needed: Vec<String> = image.needed().iter().map(|name| text(name)).collect();
        assert_eq!(needed, readelf_needed(&path), "{}", path.display());
    }
}

#[test]
fn section_headers_follow_what_moved() {
    if missing("readelf", "binutils") {
        return;
    }
    let workshop = Workshop::new();
    for spare in ["-Wl,--spare-dynamic-tags=5", "-Wl,--spare-dynamic-tags=0"] {
        let program = workshop.program(&[spare]);
        let changed = apply(&program, &workshop.change()).expect("changed");
        let path = workshop.install("changed", &changed);
        let section = |name: &str| {
            let output = Command::new("readelf")
                .args(["-p", name])
                .arg(&path)
                .output();
            String::from_utf8_lossy(&output.expect("runs").stdout).into_owned()
        };
        let loader = workshop.loader();
        assert!(
            section(".interp").contains(&*loader.to_string_lossy()),
            "{spare}"
        );
        assert!(section(".dynstr").contains("libmore.so"), "{spare}");
        let text = readelf(&path, "-lS");
        // Offsets and sizes of .dynamic and PT_DYNAMIC, the same in both tables.
        let fields = |begin: &str| -> Vec<u64> {
            let line = text
                .split_once(begin)
                .expect(begin)
                .1
                .lines()
                .next()
                .expect(begin);
            let fields = line
                .split_whitespace()
                .map(|field| field.trim_start_matches("0x"));
            fields
                .filter_map(|field| u64::from_str_radix(field, 16).ok())
                .collect()
        };
        let (section, header) = (fields(".dynamic  "), fields("\n  DYNAMIC"));
        assert_eq!(
            [header[0], header[1], header[3]],
            [section[1], section[0], section[2]],
            "{text}"
        );
    }
}

fn readelf(path: &Path, what: &str) -> String {
    let output = Command::new("readelf")
        .args(["-W", what])
        .arg(path)
        .output()
        .expect("runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Bind, whether defined, name and version, of symbols that are not local.
fn readelf_symbols(path: &Path) -> Vec<String> {
    let text = readelf(path, "--dyn-syms");
    let symbol = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, _, _, _, bind, _, section, name, ..] = fields.as_slice() else {
            return None;
        };
        if !["GLOBAL", "WEAK", "UNIQUE"].contains(&bind) {
            return None;
        }
        let bind = if bind == "WEAK" { bind } else { "GLOBAL" };
        let section = if section == "UND" { section } else { "defined" };
        Some(format!("{bind} {section} {}", name.replace("@@", "@")))
    };
    text.lines().filter_map(symbol).collect()
}

fn readelf_needed(path: &Path) -> Vec<String> {
    let text = readelf(path, "-d");
    let name = |line: &str| {
        let (_, name) = line.split_once("(NEEDED)")?;
        Some(
            name.split_once('[')?
                .1
                .trim_end()
                .trim_end_matches(']')
                .to_owned(),
        )
    };
    text.lines().filter_map(name).collect()
}

#[test]
fn a_debugger_sees_the_libraries_of_a_changed_program() {
    if missing("gdb", "gdb") {
        return;
    }
    let workshop = Workshop::new();
    // With room for the new entries, and without: the dynamic section moves then.
    for flags in [
        &["-pie"][..],
        &["-no-pie"],
        &["-pie", "-Wl,--spare-dynamic-tags=0"],
        &["-no-pie", "-Wl,--spare-dynamic-tags=0"],
    ] {
        let program = workshop.program(flags);
        let changed = apply(&program, &workshop.change()).expect("changed");
        let path = workshop.install("debugged", &changed);
        let output = Command::new("gdb")
            .args([
                "-nx",
                "-batch",
                "-ex",
                "set debuginfod enabled off",
                "-ex",
                "break marker",
                "-ex",
                "run",
            ])
            .args(["-ex", "backtrace", "-ex", "info sharedlibrary"])
            .arg(&path)
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        for seen in [
            "Breakpoint 1, marker",
            "in main (",
            "new/libanswer.so",
            "new/libmore.so",
            "libc.so.6",
            "ld/ld-linux-x86-64.so.2",
        ] {
            assert!(
                text.contains(seen),
                "{flags:?}: {seen} is missing in\n{text}{errors}"
            );
        }
    }
}
