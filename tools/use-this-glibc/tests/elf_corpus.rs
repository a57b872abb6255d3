//! The fuzzing corpus (`fuzz/corpus`) through the same checks as the fuzz targets, so that an ordinary test run covers it.
//!
//! `cargo test -p use-this-glibc --test elf_corpus -- --ignored` writes seeds for a new corpus; `cargo fuzz cmin TARGET` minimises it.

mod elf_support;

use std::fs;
use std::path::{Path, PathBuf};

use elf_support::{Spec, build, checks};
use use_this_glibc::elf::{Change, RunPath, apply};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

fn each(target: &str, check: impl Fn(&[u8])) {
    let mut count = 0;
    for entry in fs::read_dir(corpus(target)).expect("the corpus is committed") {
        let path = entry.expect("readable").path();
        println!("{}", path.display());
        check(&fs::read(path).expect("readable"));
        count += 1;
    }
    assert!(count > 0, "no corpus for {target}");
}

#[test]
fn parse() {
    each("parse", checks::parse);
}

#[test]
fn edit() {
    let changed = std::cell::Cell::new(0);
    each("edit", |data| {
        let (change, file) = checks::split(data);
        changed.set(changed.get() + usize::from(checks::edit(file, &change)));
    });
    assert!(
        changed.get() > 0,
        "the corpus gets no further than refusals"
    );
}

#[test]
fn restore() {
    each("restore", checks::restore);
}

#[test]
fn a_change_that_is_joined_to_a_file_is_split_off_again() {
    for change in changes() {
        assert_eq!(
            checks::split(&checks::join(&change, b"rest")),
            (change, &b"rest"[..])
        );
    }
}

fn changes() -> Vec<Change> {
    let run_path = |kind| Some((kind, b"/opt/glibc/lib:/usr/lib".to_vec()));
    let interpreter = Some(b"/opt/glibc/lib/ld.so".to_vec());
    let more = vec![b"libmore.so".to_vec(), b"liblast.so".to_vec()];
    vec![
        Change {
            interpreter: interpreter.clone(),
            run_path: run_path(RunPath::Rpath),
            add_needed: more.clone(),
        },
        Change {
            interpreter,
            ..Change::default()
        },
        Change {
            run_path: run_path(RunPath::Runpath),
            ..Change::default()
        },
        Change {
            add_needed: more,
            ..Change::default()
        },
    ]
}

fn specs() -> Vec<Spec> {
    let name = |name: &str| Some(name.as_bytes().to_vec());
    let small = || Spec {
        needed: vec![b"libc.so.6".to_vec()],
        ..Spec::default()
    };
    vec![
        small(),
        Spec {
            spare: 0,
            ..small()
        },
        Spec {
            sections: false,
            versions: false,
            ..small()
        },
        Spec {
            dynamic_type: false,
            base: 0x40_0000,
            rpath: name("/a"),
            ..small()
        },
        Spec {
            interpreter: None,
            soname: name("lib.so"),
            runpath: name("/b"),
            ..small()
        },
        Spec {
            rpath: name("/a"),
            runpath: name("/b"),
            needed_last: true,
            ..small()
        },
        Spec {
            dynamic_read_only: true,
            program_headers_segment: false,
            ..small()
        },
        Spec {
            align: 0x20_0000,
            separate: true,
            extra_headers: 3,
            ..small()
        },
    ]
}

#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    let write = |target: &str, name: String, data: &[u8]| {
        let folder = corpus(target);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join(name), data).expect("written");
    };
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (index, spec) in specs().iter().enumerate() {
        files.push((format!("made-{index}"), build(spec)));
    }
    for (linker, layout) in [
        ("bfd", "-Wl,-z,noseparate-code"),
        ("gold", "-Wl,--no-rosegment"),
        ("lld", "-Wl,-z,noseparate-code"),
    ] {
        for position in ["-pie", "-no-pie", "-shared"] {
            let folder = tempfile::tempdir().expect("a scratch folder");
            let (source, output) = (folder.path().join("s.c"), folder.path().join("s"));
            fs::write(
                &source,
                "int puts(const char *); int _start(void) { return puts(\"\"); }",
            )
            .expect("written");
            let status = std::process::Command::new("gcc")
                .args([
                    "-fPIC",
                    "-nostartfiles",
                    "-s",
                    layout,
                    position,
                    &format!("-fuse-ld={linker}"),
                    "-o",
                ])
                .args([&output, &source])
                .status();
            assert!(status.expect("gcc runs").success());
            files.push((
                format!("{linker}{position}"),
                fs::read(&output).expect("compiled"),
            ));
        }
    }
    for (name, file) in &files {
        write("parse", name.clone(), file);
        for (index, change) in changes().iter().enumerate() {
            write(
                "edit",
                format!("{name}-{index}"),
                &checks::join(change, file),
            );
            if let (0, Ok(changed)) = (index, apply(file, change)) {
                // Without those that are mostly a hole.
                if changed.len() < 32_768 {
                    write("restore", format!("{name}-{index}"), &changed);
                }
            }
        }
    }
}
