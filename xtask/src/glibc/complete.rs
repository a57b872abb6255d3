//! Is an installed glibc complete? `make install` may stop half-way and leave a prefix without a loader.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::recipe;
use crate::shell;

/// What must be there; a few of each kind that a stopped installation would lack.
const FILES: &[&str] = &[
    "lib/ld-linux-x86-64.so.2",
    "lib/libc.so.6",
    "lib/libm.so.6",
    "lib/libmvec.so.1",
    "lib/libpthread.so.0",
    "lib/libdl.so.2",
    "lib/librt.so.1",
    "lib/libutil.so.1",
    "lib/libresolv.so.2",
    "lib/libanl.so.1",
    "lib/libnss_files.so.2",
    "lib/libnss_dns.so.2",
    "lib/libthread_db.so.1",
    "lib/libc.a",
    "lib/libc.so",
    "lib/crt1.o",
    "lib/gconv/gconv-modules",
    "lib/gconv/UTF-16.so",
    "bin/getconf",
    "bin/iconv",
    "bin/ldd",
    "bin/locale",
    "sbin/ldconfig",
    "include/pthread.h",
    "include/gnu/stubs.h",
    "share/i18n/charmaps/UTF-8.gz",
];

pub fn check(prefix: &Path) -> Result<()> {
    let missing: Vec<&str> = FILES
        .iter()
        .filter(|file| !prefix.join(file).is_file())
        .copied()
        .collect();
    if !missing.is_empty() {
        bail!("{} lacks {}", prefix.display(), missing.join(", "));
    }
    let version = format!("version {}.", recipe::VERSION);
    let lib = prefix.join("lib");
    let banner = shell::output(Command::new(lib.join("ld-linux-x86-64.so.2")).arg("--version"))?;
    if !banner
        .lines()
        .next()
        .unwrap_or_default()
        .ends_with(&version)
    {
        bail!("its loader is not glibc {}: {banner}", recipe::VERSION);
    }
    // Through the loader: the prefix may not be in its final place yet.
    let program = |name: &str, argument: &str| {
        let mut command = Command::new(lib.join("ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(&lib)
            .arg(prefix.join("bin").join(name))
            .arg(argument)
            .env_remove("LD_PRELOAD");
        shell::output(&mut command)
    };
    let answer = program("getconf", "GNU_LIBC_VERSION")?;
    if answer.trim() != format!("glibc {}", recipe::VERSION) {
        bail!("its getconf says {}", answer.trim());
    }
    program("iconv", "--version").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_without_a_loader_is_not_complete_and_says_so() {
        let prefix = tempfile::tempdir().expect("a folder");
        for file in FILES.iter().skip(1) {
            let path = prefix.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, "").expect("a file");
        }
        let error = check(prefix.path()).expect_err("lacks its loader");
        assert!(format!("{error:#}").ends_with("lacks lib/ld-linux-x86-64.so.2"));
    }
}
