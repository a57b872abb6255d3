//! The reader of `ld.so.cache` against ldconfig's.

use std::path::Path;
use std::process::Command;

use use_this_glibc::loader::cache::Cache;

#[test]
fn the_cache_is_read_as_ldconfig_prints_it() {
    let ldconfig = ["/sbin/ldconfig", "/usr/sbin/ldconfig"];
    let cache = Path::new("/etc/ld.so.cache");
    let Some(ldconfig) = ldconfig.iter().find(|path| Path::new(path).exists()) else {
        println!("SKIPPED: ldconfig is not installed");
        assert!(std::env::var_os("CI").is_none(), "CI has no ldconfig");
        return;
    };
    let said = Command::new(ldconfig)
        .args(["-p", "-C"])
        .arg(cache)
        .env("LC_ALL", "C")
        .output()
        .expect("run ldconfig");
    let said = String::from_utf8_lossy(&said.stdout);
    // `\tNAME (libc6,x86-64[, hwcap: "FOLDER"]) => PATH`
    let mut expected: Vec<(String, Option<String>, String)> = said
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().split_once(" (libc6,x86-64")?;
            let (remarks, path) = rest.split_once(") => ")?;
            let hwcaps = remarks.split('"').nth(1);
            Some((name.into(), hwcaps.map(String::from), path.into()))
        })
        .collect();
    let read = Cache::open(cache);
    let mut found: Vec<_> = read
        .iter()
        .flat_map(|(name, entries)| {
            let name = String::from_utf8_lossy(name).into_owned();
            entries.iter().map(move |entry| {
                let path = entry.path.to_string_lossy().into_owned();
                (name.clone(), entry.hwcaps.clone(), path)
            })
        })
        .collect();
    expected.sort();
    found.sort();
    assert!(!expected.is_empty(), "ldconfig prints nothing");
    assert_eq!(found, expected);
}

#[test]
fn a_damaged_cache_is_no_cache_and_never_a_panic() {
    let whole = std::fs::read("/etc/ld.so.cache").unwrap_or_default();
    assert!(Cache::parse(b"").is_none());
    for end in (0..whole.len().min(4096)).chain((4096..whole.len()).step_by(997)) {
        let _ = Cache::parse(&whole[..end]);
    }
    for at in 0..whole.len().min(256) {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        let _ = Cache::parse(&changed);
    }
}
