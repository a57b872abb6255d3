//! What the shared object exports, and what it asks of the system that loads it.

use autolock_tests::{Run, autolock, program};
use object::elf;
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSymbol as _};
use std::collections::BTreeSet;

/// Everything that the library gives to a process: nothing may be missing, nothing may be more. A
/// stray symbol would hijack somebody's calls.
const EXPORTED: [&str; 21] = [
    "cnd_timedwait",
    "cnd_wait",
    "mtx_destroy",
    "mtx_init",
    "mtx_lock",
    "mtx_timedlock",
    "mtx_trylock",
    "mtx_unlock",
    "pthread_cond_clockwait",
    "pthread_cond_timedwait",
    "pthread_cond_wait",
    "pthread_mutex_clocklock",
    "pthread_mutex_consistent",
    "pthread_mutex_destroy",
    "pthread_mutex_getprioceiling",
    "pthread_mutex_init",
    "pthread_mutex_lock",
    "pthread_mutex_setprioceiling",
    "pthread_mutex_timedlock",
    "pthread_mutex_trylock",
    "pthread_mutex_unlock",
];

/// The libraries that every glibc system has anyway.
const NEEDED: [&str; 1] = ["libc.so.6"];

/// Debian 12 has glibc 2.36; nothing newer may be asked for.
const NEWEST_GLIBC: (u32, u32) = (2, 36);

fn with_library<T>(look: impl Fn(&ElfFile64<'_, Endianness>) -> T) -> T {
    let path = autolock();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    match ElfFile64::parse(&*bytes) {
        Ok(file) => look(&file),
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

#[test]
fn exactly_the_mutex_functions_are_exported() {
    let exported: BTreeSet<String> = with_library(|file| {
        file.dynamic_symbols()
            .filter(|symbol| symbol.is_definition())
            .filter_map(|symbol| Some(symbol.name().ok()?.to_owned()))
            .collect()
    });
    let wanted: BTreeSet<String> = EXPORTED.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(exported, wanted);
}

#[test]
fn no_text_relocations_and_no_executable_stack() {
    with_library(|file| {
        let (endian, data) = (file.endian(), file.data());
        let header = file.elf_header();
        let Ok(segments) = header.program_headers(endian, data) else {
            panic!("no program headers");
        };
        let mut dynamic_entries = 0;
        for segment in segments {
            if segment.p_type(endian) == elf::PT_GNU_STACK {
                assert_eq!(segment.p_flags(endian) & elf::PF_X, 0, "executable stack");
            }
            let writable_code = elf::PF_W | elf::PF_X;
            assert_ne!(segment.p_flags(endian) & writable_code, writable_code);
            let Ok(Some(entries)) = segment.dynamic(endian, data) else {
                continue;
            };
            for entry in entries {
                let tag = entry.tag32(endian).unwrap_or_default();
                assert_ne!(tag, elf::DT_TEXTREL);
                if tag == elf::DT_FLAGS {
                    assert_eq!(entry.val32(endian).unwrap_or_default() & elf::DF_TEXTREL, 0);
                }
                dynamic_entries += 1;
            }
        }
        assert!(dynamic_entries > 5);
    });
}

#[test]
fn nothing_newer_than_debian_12_is_needed() {
    with_library(|file| {
        let (endian, data) = (file.endian(), file.data());
        let sections = match file.elf_header().sections(endian, data) {
            Ok(sections) => sections,
            Err(error) => panic!("sections: {error}"),
        };
        let Ok(Some((mut needs, strings))) = sections.gnu_verneed(endian, data) else {
            panic!("no version requirements");
        };
        let strings = match sections.strings(endian, data, strings) {
            Ok(strings) => strings,
            Err(error) => panic!("strings: {error}"),
        };
        let mut highest = (0, 0);
        while let Ok(Some((need, mut versions))) = needs.next() {
            let library = text(need.file(endian, strings));
            assert!(NEEDED.contains(&&*library), "needs {library}");
            while let Ok(Some(version)) = versions.next() {
                let name = text(version.name(endian, strings));
                if let Some(number) = name.strip_prefix("GLIBC_") {
                    let mut parts = number
                        .split('.')
                        .map(|part| part.parse().unwrap_or(u32::MAX));
                    highest =
                        highest.max((parts.next().unwrap_or(u32::MAX), parts.next().unwrap_or(0)));
                }
            }
        }
        println!("highest version needed: GLIBC_{}.{}", highest.0, highest.1);
        assert!(
            highest > (2, 0) && highest <= NEWEST_GLIBC,
            "GLIBC_{}.{}",
            highest.0,
            highest.1
        );
    });
}

fn text(bytes: Result<&[u8], object::Error>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

#[test]
fn in_a_process_the_exported_functions_are_ours_and_the_rest_are_libcs() {
    let answers = Run::new(program("whose_symbols"))
        .preload(autolock())
        .end()
        .must_succeed()
        .stdout;
    let mut ours = BTreeSet::new();
    for line in answers.lines() {
        match line.split_once(' ') {
            Some((name, "libautolock.so")) => {
                ours.insert(name);
            }
            Some((_, "libc.so.6")) => {}
            _ => panic!("{line}"),
        }
    }
    assert_eq!(ours, BTreeSet::from(EXPORTED), "{answers}");
    let stock = Run::new(program("whose_symbols")).end().must_succeed();
    assert!(!stock.stdout.contains("libautolock"));
}
