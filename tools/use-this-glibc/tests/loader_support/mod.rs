//! What the loader's tests share: a scratch folder in which gcc builds libraries, and both closures in one form.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use use_this_glibc::loader::{Closure, Loader, Object};
use use_this_glibc::trace::{self, Trace};

/// The system's loader.
pub const SYSTEM: &str = "/lib64/ld-linux-x86-64.so.2";

/// A path for a library that was found, a name for one that was not.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub loaded: Vec<PathBuf>,
    pub missing: Vec<String>,
}

pub fn model(closure: &Closure) -> Outcome {
    let loaded = closure.order[1..].iter();
    let mut missing: Vec<String> = closure
        .missing
        .iter()
        .map(|missing| String::from_utf8_lossy(&missing.name).into_owned())
        .collect();
    missing.sort();
    missing.dedup();
    Outcome {
        loaded: loaded.map(|&at| closure.objects[at].path.clone()).collect(),
        missing,
    }
}

pub fn real(trace: &Trace) -> Outcome {
    let mut outcome = Outcome {
        loaded: Vec::new(),
        missing: Vec::new(),
    };
    for loaded in &trace.loaded {
        match &loaded.path {
            Some(path) => outcome.loaded.push(path.clone()),
            None => outcome
                .missing
                .push(String::from_utf8_lossy(&loaded.name).into_owned()),
        }
    }
    outcome.missing.sort();
    outcome.missing.dedup();
    outcome
}

/// A folder that goes away, and a compiler.
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// None where there is no gcc, which is said.
    pub fn new() -> Option<Self> {
        if Command::new("gcc").arg("--version").output().is_err() {
            println!("SKIPPED: gcc is not installed");
            assert!(std::env::var_os("CI").is_none(), "CI has no gcc");
            return None;
        }
        Some(Self {
            folder: tempfile::tempdir().expect("a scratch folder"),
        })
    }

    /// Without links: as the loader prints it.
    pub fn folder(&self) -> PathBuf {
        std::fs::canonicalize(self.folder.path()).expect("the scratch folder")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        path
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("write a file");
        path
    }

    /// A library with SONAME `soname` and one function, `f_` and the output's name with `_` for what C does not take.
    /// `arguments` go to gcc; `@` in them stands for the scratch folder.
    pub fn library(&self, output: &str, soname: &str, arguments: &[&str]) -> PathBuf {
        let function: String = output
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let soname = format!("-Wl,-soname,{soname}");
        let mut all = vec!["-shared", "-fPIC", &soname];
        all.extend(arguments);
        self.compile(
            output,
            &format!("int f_{function}(void) {{ return 1; }}"),
            &all,
        )
    }

    /// A program; needs every library that is named, used or not.
    pub fn program(&self, output: &str, arguments: &[&str]) -> PathBuf {
        self.compile(output, "int main(void) { return 0; }", arguments)
    }

    pub fn compile(&self, output: &str, source: &str, arguments: &[&str]) -> PathBuf {
        let output = self.path(output);
        let file = output.with_extension("c");
        std::fs::write(&file, source).expect("write a source");
        let folder = self.folder();
        let folder = folder.to_str().expect("a plain name");
        let status = Command::new("gcc")
            .arg("-Wl,--no-as-needed,--allow-shlib-undefined")
            .arg("-o")
            .args([&output, &file])
            .args(
                arguments
                    .iter()
                    .map(|argument| argument.replace('@', folder)),
            )
            .status()
            .expect("run gcc");
        assert!(status.success(), "gcc {output:?} {arguments:?}");
        std::fs::remove_file(file).expect("remove the source");
        output
    }

    /// Both say the same about the program; what they say.
    pub fn same(&self, program: &Path, loader: &Loader) -> Outcome {
        let closure = Closure::of(Object::read(program).expect("a program"), loader);
        let model = model(&closure.expect("a closure"));
        let trace = trace::list(&loader.path, program).expect("a trace");
        assert_eq!(model, real(&trace), "the model and the loader differ");
        model
    }
}

/// The system's loader, as a model.
pub fn system() -> Loader {
    Loader::open(Path::new(SYSTEM)).expect("the system's loader")
}

impl Outcome {
    /// The file that was loaded under a file name.
    pub fn file(&self, name: &str) -> Option<&Path> {
        let mut loaded = self.loaded.iter();
        loaded
            .find(|path| path.file_name().is_some_and(|found| found == name))
            .map(PathBuf::as_path)
    }
}
