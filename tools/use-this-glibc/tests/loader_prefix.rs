//! Prefixes: complete, incomplete, old, odd; and the data that they lack.

mod loader_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use loader_support::{Scratch, overwrite, system};
use use_this_glibc::environment::{self, Environment};
use use_this_glibc::error::Error;
use use_this_glibc::prefix::Prefix;

/// The line of a usage error.
fn refusal(folder: &Path) -> String {
    match Prefix::open(folder) {
        Err(Error::Usage(line)) => {
            assert!(!line.contains('\n'), "{line}");
            line
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_complete_prefix_is_described() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let folder = scratch.prefix("p");
    let prefix = Prefix::open(&folder).expect("a prefix");
    assert_eq!(prefix.folder, folder);
    assert_eq!(prefix.lib, folder.join("lib"));
    assert_eq!(prefix.loader, folder.join("lib/ld-linux-x86-64.so.2"));
    assert!(prefix.version.starts_with("2."), "{}", prefix.version);
    assert!(prefix.holds(&folder.join("lib/../lib/libm.so.6")));
    assert!(!prefix.holds(&system().path));
    assert!(prefix.provides(Path::new("/x/libm.so.6")));
    // The same by a link and from elsewhere.
    std::os::unix::fs::symlink(&folder, scratch.path("link")).expect("link");
    let linked = Prefix::open(&scratch.path("link")).expect("a prefix");
    assert_eq!(linked.loader, prefix.loader);
}

#[test]
fn the_systems_own_glibc_is_a_prefix() {
    let prefix = Prefix::open(Path::new("/")).expect("the system's");
    assert_eq!(prefix.search.default_folders, system().default_folders);
    assert!(prefix.lib.join("libc.so.6").is_file());
}

#[test]
fn what_is_missing_is_said() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let line = refusal(&scratch.folder().join("nowhere"));
    assert!(line.contains("nowhere"), "{line}");
    for missing in ["ld-linux-x86-64.so.2", "libc.so.6"] {
        let folder = scratch.prefix(missing);
        fs::remove_file(folder.join("lib").join(missing)).expect("remove");
        let line = refusal(&folder);
        assert!(line.contains(&format!("no {missing}")), "{line}");
    }
}

#[test]
fn a_loader_that_does_not_run_is_said() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let folder = scratch.prefix("p");
    let loader = folder.join("lib/ld-linux-x86-64.so.2");
    let executable = |bytes: &[u8]| {
        fs::write(&loader, bytes).expect("write");
        fs::set_permissions(&loader, fs::Permissions::from_mode(0o755)).expect("chmod");
    };
    let whole = fs::read(&loader).expect("read");
    executable(&whole[..whole.len() / 2]);
    assert!(refusal(&folder).contains("does not run"));
    executable(&whole);
    fs::set_permissions(&loader, fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(refusal(&folder).contains("does not run"));
    // A loader that says nothing of what it would load.
    executable(b"#!/bin/sh\nexit 0\n");
    assert!(Prefix::open(&folder).is_err());
}

#[test]
fn loader_and_libc_belong_together() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let folder = scratch.prefix("p");
    let version = Prefix::open(&folder).expect("a prefix").version;
    let of = |version: &str| format!(" release version {version}.\n");
    let other: String = version.replace('2', "3");
    overwrite(&folder.join("lib/libc.so.6"), &[(of(&version), of(&other))]);
    assert!(refusal(&folder).contains("do not belong together"));
}

#[test]
fn a_path_that_a_run_path_cannot_have_is_refused() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    for name in ["a:b", "a$b"] {
        let line = refusal(&scratch.prefix(name));
        assert!(line.contains("run path"), "{line}");
    }
}

/// Before glibc 2.33 a loader knew only `--list`, `--verify` and the like, and took anything else for a program.
const OLD: &str = r#"
#include <stdio.h>
#include <string.h>
const char *const folders = "/old/lib/x86_64-gnu/\0/usr/old/lib/\0/old/share/";
const char *const cache = "/old/etc/ld.so.cache";
int main(int count, char **arguments) {
    if (count > 2 && !strcmp(arguments[1], "--list")) {
        printf("\tlinux-vdso.so.1 (0x0001)\n\t%s (0x0002)\n", arguments[0]);
        return 0;
    }
    fprintf(stderr, "%s: error while loading shared libraries\n", arguments[1]);
    return 127 + !folders[0] + !cache[0];
}
"#;

#[test]
fn an_old_loader_is_read_instead_of_asked() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let folder = scratch.prefix("p");
    scratch.compile("old", OLD, &["-O0"]);
    let loader = folder.join("lib/ld-linux-x86-64.so.2");
    fs::remove_file(&loader).expect("remove");
    fs::rename(scratch.path("old"), &loader).expect("rename");
    let search = Prefix::open(&folder).expect("a prefix").search;
    let expected = ["/old/lib/x86_64-gnu", "/usr/old/lib"].map(Path::new);
    assert!(
        search
            .default_folders
            .starts_with(&expected.map(Path::to_path_buf))
    );
    assert!(!search.default_folders.contains(&"/old/share".into()));
    assert_eq!(search.configuration.as_deref(), Some(Path::new("/old/etc")));
}

#[test]
fn reading_a_loader_gives_what_asking_it_gives() {
    let asked = system();
    let bytes = fs::read(&asked.path).expect("read the loader");
    let read = use_this_glibc::loader::Loader::from_bytes(&asked.path, &bytes);
    assert_eq!(read.default_folders, asked.default_folders);
    assert_eq!(read.configuration, asked.configuration);
}

#[test]
fn data_that_the_prefix_does_not_find_is_the_systems() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let system = Prefix::open(Path::new("/")).expect("the system's");
    let folder = scratch.prefix("p");
    let prefix = Prefix::open(&folder).expect("a prefix");
    let of = |prefix| environment::of(prefix, &system).expect("an environment");
    // A copy looks where the original does.
    assert_eq!(of(&prefix), Environment::default());
    let libc = folder.join("lib/libc.so.6");
    let mut bytes = fs::read(&libc).expect("read");
    for end in ["/locale-archive", "/gconv", "/zoneinfo", "/localtime"] {
        for text in bytes.split_mut(|&byte| byte == 0) {
            if text.starts_with(b"/") && text.ends_with(end.as_bytes()) {
                text[1] = b'0';
            }
        }
    }
    fs::write(&libc, bytes).expect("write");
    let found = of(&prefix);
    let setting = |name: &str| found.settings.iter().find(|setting| setting.name == name);
    let mut compared = 0;
    // What this system has, by the places that every distribution uses.
    for (name, place, value) in [
        ("TZDIR", "/usr/share/zoneinfo", "/usr/share/zoneinfo"),
        ("TZ", "/etc/localtime", ":/etc/localtime"),
    ] {
        let expected = Path::new(place).exists().then_some(Path::new(value));
        assert_eq!(setting(name).map(|it| it.value.as_path()), expected);
        compared += usize::from(expected.is_some());
    }
    // Locales are reached by the variable or not at all.
    let locales = fs::read_dir("/usr/lib/locale").is_ok_and(|mut all| all.next().is_some());
    let told = setting("LOCPATH").is_some() || found.warnings.len() == 1;
    assert_eq!(told, locales, "{found:?}");
    assert!(compared > 0 || locales, "a system without any data");
    // The prefix's own modules come first.
    fs::create_dir(folder.join("lib/gconv")).expect("make a folder");
    fs::write(folder.join("lib/gconv/gconv-modules"), "").expect("write");
    let found = of(&prefix);
    let gconv = found
        .settings
        .iter()
        .find(|setting| setting.name == "GCONV_PATH");
    assert_eq!(
        gconv.map(|it| it.value.clone()),
        Some(folder.join("lib/gconv"))
    );
}
