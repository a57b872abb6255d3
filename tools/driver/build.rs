//! Records what built this binary: the compiler and, where known, the git commit.
//! A missing git or a tarball build is not an error: the commit is then left out.

use std::path::Path;
use std::process::Command;

fn line_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    if let Some(version) = line_of(&rustc, &["--version"]) {
        println!("cargo::rustc-env=DRIVER_RUSTC={version}");
    }
    if let Some(commit) = line_of("git", &["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=DRIVER_COMMIT={commit}");
    }
    // The log of HEAD grows with every commit and checkout.
    if let Some(log) = line_of("git", &["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
}
