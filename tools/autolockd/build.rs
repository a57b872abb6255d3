//! Compiles `bpf/oncpu.bpf.c` with clang, for the layout that `autolock-oncpu` has.
//!
//! Without a clang that knows the BPF target the object is empty: everything still builds, and the daemon says at run time what it lacks.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use autolock_oncpu::table;

const SOURCE: &str = "bpf/oncpu.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    if compiles_for_bpf(&clang) {
        compile(&clang, &out.join("oncpu.bpf.o"));
    } else {
        println!(
            "cargo::warning=autolockd is built without its eBPF program: `{clang}` is missing or does not know the BPF target \
             (apt-get install clang, or CLANG=PATH)"
        );
        // A path that does not exist makes cargo look again at the next build.
        println!("cargo::rerun-if-changed={}", out.join("missing").display());
        std::fs::write(out.join("oncpu.bpf.o"), []).expect("OUT_DIR is writable");
    }
}

fn compiles_for_bpf(clang: &str) -> bool {
    Command::new(clang)
        .arg("--print-targets")
        .output()
        .is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .any(|line| line.trim_start().starts_with("bpfel"))
        })
}

/// `-g` makes the BTF that the loader relocates by.
fn compile(clang: &str, object: &Path) {
    let status = Command::new(clang)
        .args(["-target", "bpfel", "-mcpu=v3", "-O2", "-g", "-c", SOURCE])
        .args(["-Wall", "-Wextra", "-Werror", "-fdebug-compilation-dir=."])
        .arg(format!("-DHEADER_SIZE={}", table::HEADER_SIZE))
        .arg(format!("-DTHREADS={}", table::THREADS))
        .arg(format!("-DNEIGHBOUR={}", table::NEIGHBOUR))
        .arg(format!("-DUNKNOWN={}", table::UNKNOWN))
        .arg(format!("-DRUNNING={}", table::RUNNING))
        .arg(format!("-DNOT_RUNNING={}", table::NOT_RUNNING))
        .arg("-o")
        .arg(object)
        .status()
        .expect("clang has just run");
    assert!(status.success(), "{clang} did not compile {SOURCE}");
}
