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

/// A cache as ldconfig writes it: flags, hwcap, name, path of each entry; the folder that hwcap 0 of the extension stands for.
fn cache(entries: &[(u32, u64, &str, &str)], folder: &str) -> Vec<u8> {
    let strings_at = 48 + 24 * entries.len();
    let mut strings = Vec::new();
    let mut string = |text: &str| {
        let at = u32::try_from(strings_at + strings.len()).expect("a small cache");
        strings.extend(text.bytes().chain([0]));
        at.to_le_bytes()
    };
    let mut table = Vec::new();
    for (flags, hwcap, name, path) in entries {
        table.extend(flags.to_le_bytes());
        table.extend(string(name));
        table.extend(string(path));
        table.extend([0; 4]);
        table.extend(hwcap.to_le_bytes());
    }
    let folder = string(folder);
    strings.resize(strings.len().next_multiple_of(4), 0);
    let extension = u32::try_from(strings_at + strings.len()).expect("a small cache");
    let mut bytes = b"glibc-ld.so.cache1.1".to_vec();
    bytes.extend(u32::try_from(entries.len()).expect("few").to_le_bytes());
    bytes.extend(u32::try_from(strings.len()).expect("short").to_le_bytes());
    bytes.extend([2, 0, 0, 0]);
    bytes.extend(extension.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(table);
    bytes.extend(strings);
    bytes.extend((-358_342_284_i32).to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    // One section: the list of folders, behind it.
    for number in [1, 0, extension + 24, 4] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(folder);
    bytes
}

#[test]
fn entries_of_other_machines_do_not_count_and_hwcaps_come_first() {
    const X86_64: u32 = 0x303;
    const I386: u32 = 0x3;
    let bytes = cache(
        &[
            (I386, 0, "liba.so", "/32/liba.so"),
            (X86_64, 1 << 62, "liba.so", "/v3/liba.so"),
            (X86_64, 0, "liba.so", "/64/liba.so"),
            (X86_64, 2, "liba.so", "/legacy/liba.so"),
            (I386, 0, "libb.so", "/32/libb.so"),
        ],
        "x86-64-v3",
    );
    let cache = Cache::parse(&bytes).expect("a cache");
    let v3 = ["x86-64-v4".to_string(), "x86-64-v3".to_string()];
    let found = |name: &str, hwcaps: &[String]| cache.find(name.as_bytes(), hwcaps);
    assert_eq!(found("liba.so", &v3), Some(Path::new("/v3/liba.so")));
    assert_eq!(found("liba.so", &v3[..1]), Some(Path::new("/64/liba.so")));
    assert_eq!(found("libb.so", &v3), None);
}
