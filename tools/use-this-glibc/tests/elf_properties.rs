//! The change and its undoing, over ELF files made by code: whatever the file's shape and whatever is asked.

mod elf_support;

use elf_support::checks;
use elf_support::{DEFINED_VERSIONS, NEEDED_VERSIONS, SYMBOLS, Spec, build};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use use_this_glibc::elf::{Change, Image, Kind, RunPath, apply, undo};

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(1..=255u8, 1..40)
}

fn specs() -> impl Strategy<Value = Spec> {
    let kind = prop_oneof![
        Just((true, 0)),
        Just((false, 0x40_0000)),
        Just((true, 0x1_0000)),
        Just((false, 0x20_0000))
    ];
    let align = prop_oneof![Just(0x1000), Just(0x1_0000), Just(0x20_0000)];
    let bss = prop_oneof![6 => 0..0x3000u64, 1 => Just(0x20_0000), 1 => Just(0x4000_0000)];
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    let names = (
        vec(name(), 0..6),
        option::of(name()),
        option::of(name()),
        option::of(name()),
        option::of(name()),
    );
    let numbers = (0..9usize, 0..100usize, 0..10usize);
    (kind, align, bss, flags, names, numbers).prop_map(
        |((dynamic_type, base), align, bss, flags, names, numbers)| Spec {
            dynamic_type,
            base,
            align,
            bss,
            program_headers_segment: flags.0,
            separate: flags.1,
            dynamic_read_only: flags.2,
            needed_last: flags.3,
            versions: flags.4,
            sections: flags.5,
            needed: names.0,
            soname: names.1,
            rpath: names.2,
            runpath: names.3,
            // Fixed addresses without an interpreter are static.
            interpreter: if dynamic_type {
                names.4
            } else {
                names.4.or(Some(b"/ld.so".to_vec()))
            },
            spare: numbers.0,
            unmapped: numbers.1,
            extra_headers: numbers.2,
            flags_1: None,
        },
    )
}

fn changes() -> impl Strategy<Value = Change> {
    let kind = prop_oneof![Just(RunPath::Rpath), Just(RunPath::Runpath)];
    let path = prop_oneof![4 => vec(1..=255u8, 0..200), 1 => vec(1..=255u8, 70_000..70_001)];
    (
        option::of(name()),
        option::of((kind, path)),
        vec(name(), 0..12),
    )
        .prop_map(|(interpreter, run_path, add_needed)| Change {
            interpreter,
            run_path,
            add_needed,
        })
}

/// A library has no interpreter to change.
fn fitting(spec: &Spec, mut change: Change) -> Change {
    change.interpreter = change.interpreter.filter(|_| spec.interpreter.is_some());
    change
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_well_formed_file_is_changed_as_asked(spec in specs(), change in changes()) {
        let change = fitting(&spec, change);
        let file = build(&spec);
        prop_assert!(checks::edit(&file, &change), "{:?}", apply(&file, &change).err());
        let changed = apply(&file, &change).expect("as above");
        let (old, new) = (Image::parse(&file).expect("well formed"), Image::parse(&changed).expect("well formed"));
        prop_assert_eq!(old.symbols(), new.symbols());
        prop_assert_eq!(old.needed_versions(), new.needed_versions());
        prop_assert_eq!(old.defined_versions(), new.defined_versions());
        // The hole for a large .bss may cost 64 MiB; above that newer kernels are needed.
        if spec.bss < 0x200_0000 && spec.interpreter.is_some() {
            prop_assert!(!new.needs_linux_5_18());
        }
    }

    #[test]
    fn spare_entries_are_used_before_the_dynamic_section_moves(spare in 0..6usize, added in 0..6usize, run_path in any::<bool>()) {
        let spec = Spec { spare, ..Spec::default() };
        let change = Change {
            interpreter: Some(b"/x".to_vec()),
            run_path: run_path.then(|| (RunPath::Rpath, b"/y".to_vec())),
            add_needed: vec![b"libz.so.1".to_vec(); added],
        };
        let file = build(&spec);
        let changed = apply(&file, &change).expect("well formed");
        prop_assert!(checks::edit(&file, &change));
        let moved = dynamic_offset(&changed) != dynamic_offset(&file);
        prop_assert_eq!(moved, added + usize::from(run_path) > spare);
    }

    #[test]
    fn damaged_files_are_read_changed_or_refused_without_panic(
        spec in specs(),
        change in changes(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        headers_only in any::<bool>(),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = build(&spec);
        let within = if headers_only { file.len().min(600) } else { file.len() };
        for (at, value) in damage {
            file[at.index(within)] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        checks::parse(&file);
        checks::edit(&file, &change);
        checks::restore(&file);
    }

    #[test]
    fn a_damaged_changed_file_is_restored_exactly_or_not_at_all(
        spec in specs(),
        change in changes(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        record_only in any::<bool>(),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        // Without the hole of a large .bss, which is most of the file then.
        let spec = Spec { bss: spec.bss.min(0x3000), ..spec };
        let file = build(&spec);
        let mut changed = apply(&file, &fitting(&spec, change)).expect("well formed");
        let from = if record_only { changed.len().saturating_sub(400) } else { 0 };
        for (at, value) in damage {
            let at = from + at.index(changed.len() - from);
            changed[at] = value;
        }
        if let Some(cut) = cut {
            changed.truncate(cut.index(changed.len()));
        }
        if let Ok(Some(restored)) = undo::original(&changed) {
            prop_assert_eq!(restored, file);
        }
    }
}

fn dynamic_offset(file: &[u8]) -> u64 {
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"));
    let table = number(32) as usize;
    (0..usize::from(file[56]))
        .map(|index| table + index * 56)
        .find(|&at| file[at..at + 4] == [2, 0, 0, 0])
        .map(|at| number(at + 8))
        .expect("PT_DYNAMIC")
}

fn run_path() -> Change {
    Change {
        run_path: Some((RunPath::Rpath, b"/opt/glibc/lib".to_vec())),
        ..Change::default()
    }
}

/// The one line that refuses it.
fn refusal(file: &[u8], change: &Change) -> String {
    assert!(!checks::edit(file, change));
    apply(file, change).expect_err("refused").to_string()
}

#[test]
fn symbols_and_versions_are_those_that_were_put_in() {
    let file = build(&Spec {
        soname: Some(b"synth.so".to_vec()),
        ..Spec::default()
    });
    let image = Image::parse(&file).expect("well formed");
    assert_eq!(image.soname(), Some(&b"synth.so"[..]));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let needed: Vec<_> = image.needed_versions().expect("well formed");
    let needed: Vec<_> = needed
        .iter()
        .map(|need| (text(need.library), text(need.version), need.weak))
        .collect();
    assert_eq!(
        needed,
        NEEDED_VERSIONS.map(|(library, version, weak)| (library.into(), version.into(), weak))
    );
    let defined: Vec<_> = image
        .defined_versions()
        .expect("well formed")
        .into_iter()
        .map(text)
        .collect();
    assert_eq!(defined, DEFINED_VERSIONS);
    let symbols = image.symbols().expect("well formed");
    let symbols: Vec<_> = symbols
        .iter()
        .map(|symbol| {
            (
                text(symbol.name),
                symbol.version.map(text),
                symbol.library.map(text),
                symbol.defined,
                symbol.weak,
            )
        })
        .collect();
    let expected = SYMBOLS.map(|(name, version, library, defined, weak)| {
        (
            name.to_string(),
            version.map(String::from),
            library.map(String::from),
            defined,
            weak,
        )
    });
    assert_eq!(symbols, expected);
}

#[test]
fn kinds_are_told_apart() {
    let kind = |spec: &Spec| Image::parse(&build(spec)).expect("well formed").kind();
    let library = Spec {
        interpreter: None,
        ..Spec::default()
    };
    assert_eq!(kind(&Spec::default()), Kind::PositionIndependent);
    assert_eq!(
        kind(&Spec {
            dynamic_type: false,
            base: 0x40_0000,
            ..Spec::default()
        }),
        Kind::Program
    );
    assert_eq!(kind(&library), Kind::Library);
    assert_eq!(
        kind(&Spec {
            flags_1: Some(0x0800_0000),
            ..library.clone()
        }),
        Kind::Static
    );
    assert_eq!(
        kind(&Spec {
            dynamic_type: false,
            ..library
        }),
        Kind::Static
    );
    let no_default = Spec {
        flags_1: Some(0x800),
        ..Spec::default()
    };
    assert!(
        Image::parse(&build(&no_default))
            .expect("well formed")
            .no_default_libraries()
    );
}

#[test]
fn a_bss_within_the_bound_makes_a_hole_and_beyond_it_needs_a_newer_kernel() {
    for (bss, needs) in [(0x3f0_0000, false), (0x500_0000, true)] {
        let file = build(&Spec {
            bss,
            ..Spec::default()
        });
        let changed = apply(&file, &run_path()).expect("well formed");
        assert_eq!(
            Image::parse(&changed).expect("parses").needs_linux_5_18(),
            needs,
            "{bss:#x}"
        );
        assert_eq!(changed.len() > 60 << 20, !needs);
    }
    // Nobody reads the program headers of a library through AT_PHDR: no hole.
    let library = build(&Spec {
        bss: 0x3f0_0000,
        interpreter: None,
        ..Spec::default()
    });
    assert!(apply(&library, &run_path()).expect("well formed").len() < 1 << 20);
}

#[test]
fn no_change_is_no_change() {
    let file = build(&Spec::default());
    assert_eq!(apply(&file, &Change::default()), Ok(file));
}

#[test]
fn a_changed_file_is_not_changed_again() {
    let file = build(&Spec::default());
    let changed = apply(&file, &run_path()).expect("well formed");
    assert!(refusal(&changed, &run_path()).contains("restore it first"));
}

#[test]
fn payloads_are_found_and_refused() {
    for sections in [true, false] {
        let mut file = build(&Spec {
            sections,
            ..Spec::default()
        });
        let end = file.len();
        assert_eq!(Image::parse(&file).expect("well formed").payload(), None);
        file.extend([0; 100]);
        assert_eq!(
            Image::parse(&file).expect("well formed").payload(),
            None,
            "padding"
        );
        assert!(checks::edit(&file, &run_path()));
        file.extend(b"PK payload");
        assert_eq!(
            Image::parse(&file).expect("well formed").payload(),
            Some(end..file.len())
        );
        assert!(refusal(&file, &run_path()).contains("appended"));
    }
}

#[test]
fn other_files_are_refused_each_with_its_line() {
    let file = build(&Spec::default());
    let with = |at: usize, value: u8| {
        let mut other = file.clone();
        other[at] = value;
        refusal(&other, &run_path())
    };
    assert!(refusal(b"#!/bin/sh\n", &run_path()).contains("not an ELF file"));
    assert!(refusal(&file[..40], &run_path()).contains("cut off"));
    assert!(refusal(&file[..file.len() / 3], &run_path()).contains("past its end"));
    assert!(with(4, 1).contains("64-bit"));
    assert!(with(5, 2).contains("big-endian"));
    assert!(with(18, 183).contains("machine 183"));
    assert!(with(16, 1).contains("object file"));
    assert!(with(16, 4).contains("core dump"));
    let fixed = Spec {
        dynamic_type: false,
        base: 0x40_0000,
        interpreter: None,
        ..Spec::default()
    };
    assert!(refusal(&build(&fixed), &run_path()).contains("statically linked"));
    let library = build(&Spec {
        interpreter: None,
        ..Spec::default()
    });
    let interpreter = Change {
        interpreter: Some(b"/ld.so".to_vec()),
        ..Change::default()
    };
    assert!(refusal(&library, &interpreter).contains("a library"));
}

#[test]
fn there_are_no_more_program_headers_than_linux_takes() {
    // 1170 of 56 bytes fit into 64 KiB; seven are there without extra ones.
    let program = |extra_headers| {
        build(&Spec {
            extra_headers,
            ..Spec::default()
        })
    };
    assert!(checks::edit(&program(1170 - 1 - 7), &run_path()));
    assert!(refusal(&program(1170 - 7), &run_path()).contains("program header"));
}

#[test]
fn names_that_no_file_can_have_are_wrong_usage() {
    let file = build(&Spec::default());
    let wrong = [
        Change {
            interpreter: Some(Vec::new()),
            ..Change::default()
        },
        Change {
            interpreter: Some(vec![b'x'; 4096]),
            ..Change::default()
        },
        Change {
            add_needed: vec![b"a\0b".to_vec()],
            ..Change::default()
        },
        Change {
            run_path: Some((RunPath::Rpath, b"/a\0/b".to_vec())),
            ..Change::default()
        },
    ];
    for change in wrong {
        assert_eq!(apply(&file, &change).expect_err("refused").status(), 2);
    }
}
