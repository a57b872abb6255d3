//! Compiles `programs/*` into the target directory, each combination of source and flags once.

use crate::glibc;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One thing to compile: a program, or a shared object for a program to open or preload.
#[derive(Hash, PartialEq, Eq, Clone)]
pub struct Compile {
    folder: Option<PathBuf>,
    source: String,
    variant: String,
    flags: Vec<String>,
    shared: bool,
    cxx: bool,
}

/// Every warning is an error: a test program that the compiler doubts proves little.
const FLAGS: &[&str] = &[
    "-O2",
    "-g1",
    "-pthread",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Werror",
];

impl Compile {
    /// `programs/NAME.c` as an executable.
    pub fn program(name: &str) -> Self {
        Compile {
            folder: None,
            source: format!("{name}.c"),
            variant: String::new(),
            flags: Vec::new(),
            shared: false,
            cxx: false,
        }
    }

    /// `programs/NAME.cpp` as an executable; ask [`cxx_compiler`] first.
    pub fn cxx_program(name: &str) -> Self {
        Compile {
            source: format!("{name}.cpp"),
            cxx: true,
            ..Self::program(name)
        }
    }

    /// `programs/NAME.c` as a shared object.
    pub fn library(name: &str) -> Self {
        Compile {
            shared: true,
            ..Self::program(name)
        }
    }

    /// From another crate's folder of programs, which may include the headers of this one's.
    pub fn in_folder(mut self, programs: impl Into<PathBuf>) -> Self {
        self.folder = Some(programs.into());
        self
    }

    /// A macro definition; it becomes part of the file's name.
    pub fn define(mut self, name: &str, value: &str) -> Self {
        self.flags.push(format!("-D{name}={value}"));
        self.variant = format!("{}-{}", self.variant, value.to_lowercase());
        self
    }

    /// A further argument for the compiler, after the source.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// The compiled file. Panics with the compiler's words when it cannot be made.
    pub fn build(self) -> PathBuf {
        static BUILT: Mutex<Option<HashMap<Compile, PathBuf>>> = Mutex::new(None);
        // A test that panicked while it held this left a complete map behind.
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        let built = built.get_or_insert_default();
        if let Some(path) = built.get(&self) {
            return path.clone();
        }
        let path = self.compile();
        built.insert(self, path.clone());
        path
    }

    fn compile(&self) -> PathBuf {
        let common = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        let programs = self.folder.as_deref().unwrap_or(&common);
        let out = target_dir().join("autolock-tests");
        fs_must("create", &out, std::fs::create_dir_all(&out));
        let stem = self.source.split('.').next().unwrap_or_default();
        let suffix = if self.shared { ".so" } else { "" };
        let key = self.fingerprint(programs, &common);
        let path = out.join(format!("{stem}{}-{key:016x}{suffix}", self.variant));
        if path.exists() {
            return path;
        }
        // Compiled under a private name and renamed: test binaries may do this side by side.
        let unfinished = out.join(format!(
            "{stem}{}-{key:016x}.{}{suffix}",
            self.variant,
            std::process::id()
        ));
        let compiler = if self.cxx { "c++" } else { "cc" };
        let mut command = Command::new(compiler);
        command.args(FLAGS).arg("-o").arg(&unfinished);
        if self.shared {
            command.args(["-shared", "-fPIC"]);
        }
        command.arg("-I").arg(&common);
        command.arg(programs.join(&self.source)).args(&self.flags);
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => panic!("cannot run `{compiler}` ({error}): install a C compiler"),
        };
        assert!(
            output.status.success(),
            "{} does not compile:\n{}",
            self.source,
            String::from_utf8_lossy(&output.stderr)
        );
        if let (Some(prefix), false) = (glibc::prefix(), self.shared) {
            glibc::rewrite(&unfinished, prefix);
        }
        fs_must("rename", &path, std::fs::rename(&unfinished, &path));
        path
    }

    /// Of everything that the result depends on, the headers included.
    fn fingerprint(&self, programs: &Path, common: &Path) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        FLAGS.hash(&mut hasher);
        glibc::prefix().hash(&mut hasher);
        let mut inputs = vec![programs.join(&self.source)];
        for folder in [programs, common] {
            let entries = std::fs::read_dir(folder);
            for entry in fs_must("list", folder, entries).flatten() {
                if entry.path().extension().is_some_and(|e| e == "h") {
                    inputs.push(entry.path());
                }
            }
        }
        inputs.sort();
        for input in inputs {
            fs_must("read", &input, std::fs::read(&input)).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Whether C++ programs can be compiled here.
pub fn cxx_compiler() -> bool {
    Command::new("c++").arg("--version").output().is_ok()
}

/// Cargo's target directory: this test binary lies in `TARGET/PROFILE/deps`.
pub fn target_dir() -> PathBuf {
    let exe = match std::env::current_exe() {
        Ok(exe) => exe,
        Err(error) => panic!("cannot tell where the test binary is: {error}"),
    };
    match exe.ancestors().nth(3) {
        Some(target) => target.to_path_buf(),
        None => panic!("{} does not lie in a target directory", exe.display()),
    }
}

fn fs_must<T>(verb: &str, path: &Path, result: std::io::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("cannot {verb} {}: {error}", path.display()),
    }
}
