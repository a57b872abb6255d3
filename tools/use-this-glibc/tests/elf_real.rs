//! The change, on programs that run: three linkers, their layouts, stripped, without section headers, changed by patchelf before.
//!
//! Each program is changed to a copy of the system's loader, to a run path whose library has another answer, and to one more
//! library; what it prints says which loader, which libraries, in which order.

mod elf_support;

use std::fs;
use std::process::Command;

use elf_support::checks;
use elf_support::workshop::{Workshop, missing};
use use_this_glibc::elf::{Change, Image, Kind, RunPath, apply, undo};

fn with_linker(name: &str, package: &str, layouts: &[&[&str]]) {
    if missing(&format!("ld.{name}"), package) {
        return;
    }
    let workshop = Workshop::new();
    let linker = format!("-fuse-ld={name}");
    for position in ["-pie", "-no-pie"] {
        for layout in layouts {
            let code = if position == "-pie" {
                "-fPIE"
            } else {
                "-fno-pie"
            };
            let flags = [&[linker.as_str(), position, code], *layout].concat();
            let program = workshop.program(&flags);
            workshop.prove(&format!("{flags:?}"), &program);
        }
    }
}

const COMMON: &[&[&str]] = &[
    &[],
    &["-s"],
    &["-Wl,-z,relro,-z,now"],
    &["-Wl,-z,norelro"],
    &["-Wl,-z,max-page-size=0x200000"],
    &["-Wl,--enable-new-dtags"],
    &["-Wl,--disable-new-dtags"],
    &["-Wl,--hash-style=sysv"],
    &["-DBSS=(40<<20)"],
    &["-DBSS=(1<<30)"],
];

#[test]
fn linked_by_bfd() {
    let own: &[&[&str]] = &[
        &["-Wl,-z,noseparate-code"],
        &["-Wl,-z,separate-code"],
        &["-Wl,-z,noseparate-code,-z,max-page-size=0x200000"],
        &["-Wl,--spare-dynamic-tags=0"],
    ];
    with_linker("bfd", "binutils", &[COMMON, own].concat());
}

#[test]
fn linked_by_gold() {
    let own: &[&[&str]] = &[&["-Wl,--rosegment"], &["-Wl,--spare-dynamic-tags=0"]];
    with_linker("gold", "binutils", &[COMMON, own].concat());
}

#[test]
fn linked_by_lld() {
    let own: &[&[&str]] = &[
        &["-Wl,--no-rosegment"],
        &["-Wl,-z,separate-code"],
        &["-Wl,-z,separate-loadable-segments"],
        &["-Wl,-z,rodynamic"],
    ];
    with_linker("lld", "lld", &[COMMON, own].concat());
}

#[test]
fn without_section_headers() {
    let workshop = Workshop::new();
    for position in ["-pie", "-no-pie"] {
        let mut program = workshop.program(&[position, "-s"]);
        let end = segments_end(&program);
        program.truncate(end);
        for at in [40..48, 58..64] {
            program[at].fill(0);
        }
        workshop.prove("section headers cut off", &program);
    }
    if missing("llvm-strip", "llvm") {
        return;
    }
    workshop.program(&[]);
    let path = workshop.path("program");
    let status = Command::new("llvm-strip")
        .arg("--strip-sections")
        .arg(&path)
        .status();
    assert!(status.expect("runs").success());
    workshop.prove(
        "llvm-strip --strip-sections",
        &fs::read(&path).expect("there"),
    );
}

fn segments_end(file: &[u8]) -> usize {
    let number =
        |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes")) as usize;
    let table = number(32);
    let ends = (0..usize::from(file[56]))
        .map(|index| table + index * 56)
        .map(|at| number(at + 8) + number(at + 32));
    ends.max().expect("segments")
}

#[test]
fn changed_by_patchelf_before() {
    if missing("patchelf", "patchelf") {
        return;
    }
    let workshop = Workshop::new();
    for position in ["-pie", "-no-pie"] {
        for arguments in [
            &[
                "--set-rpath",
                &format!("{}:/{}", workshop.path("old").display(), "x".repeat(5000)),
            ][..],
            &[
                "--add-needed",
                "libm.so.6",
                "--set-interpreter",
                "/lib/../lib/../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            ],
            &[
                "--force-rpath",
                "--set-rpath",
                &workshop.path("old").display().to_string(),
            ],
        ] {
            workshop.program(&[position]);
            let path = workshop.path("program");
            let status = Command::new("patchelf").args(arguments).arg(&path).status();
            assert!(status.expect("runs").success());
            workshop.prove("patchelf", &fs::read(&path).expect("there"));
        }
    }
}

#[test]
fn a_second_change_after_taking_back_the_first_is_as_if_it_were_the_only_one() {
    let workshop = Workshop::new();
    let program = workshop.program(&[]);
    let other = Change {
        run_path: Some((RunPath::Runpath, b"/somewhere/else".to_vec())),
        ..workshop.change()
    };
    let first = apply(&program, &other).expect("changed");
    let back = undo::original(&first)
        .expect("our record")
        .expect("our record");
    assert_eq!(
        apply(&back, &workshop.change()),
        apply(&program, &workshop.change())
    );
}

#[test]
fn static_programs_are_told_and_refused() {
    let workshop = Workshop::new();
    fs::write(workshop.path("static.c"), "int main(void) { return 0; }").expect("written");
    for how in ["-static", "-static-pie"] {
        let output = workshop.path("static");
        workshop.compile(&output, "static.c", &[how]);
        let file = fs::read(output).expect("compiled");
        assert_eq!(
            Image::parse(&file).expect("whole").kind(),
            Kind::Static,
            "{how}"
        );
        assert!(!checks::edit(&file, &workshop.change()), "{how}");
    }
}

#[test]
fn a_truncated_program_is_refused_at_every_length() {
    let workshop = Workshop::new();
    let program = workshop.program(&["-s"]);
    let end = segments_end(&program);
    for length in (0..end).step_by(61) {
        assert!(
            apply(&program[..length], &workshop.change()).is_err(),
            "{length}"
        );
    }
}
