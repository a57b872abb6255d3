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

    /// A library `libv.so` with a symbol `v1` in version V1 and one `v2` in V2, or with fewer of them.
    pub fn versioned(&self, output: &str, symbols: &[&str], versions: &[&str]) -> PathBuf {
        let script: String = versions
            .iter()
            .map(|version| format!("{version} {{ global: {}; }};\n", version.to_lowercase()))
            .collect();
        let script = self.write("script", &script);
        let script = format!("-Wl,--version-script={}", script.display());
        let source: String = symbols
            .iter()
            .map(|name| format!("int {name}(void) {{ return 1; }}\n"))
            .collect();
        let mut arguments = vec!["-shared", "-fPIC", "-Wl,-soname,libv.so"];
        if !versions.is_empty() {
            arguments.push(&script);
        }
        self.compile(output, &source, &arguments)
    }

    /// A prefix: the system's glibc copied. Its loader knows neither the system's directories nor its cache, as that of a
    /// glibc that was built for its prefix.
    pub fn prefix(&self, name: &str) -> PathBuf {
        let system = system();
        let from = system.default_folders.iter();
        let from = from
            .clone()
            .find(|folder| folder.join("libc.so.6").is_file());
        let from = from.expect("the system's libc");
        for library in LIBRARIES {
            let to = self.path(&format!("{name}/lib/{library}"));
            std::fs::copy(from.join(library), to).expect("copy a library");
        }
        let loader = self.path(&format!("{name}/lib/ld-linux-x86-64.so.2"));
        std::fs::copy(SYSTEM, &loader).expect("copy the loader");
        let mut changes: Vec<(String, String)> = system
            .default_folders
            .iter()
            .map(|folder| format!("{}/\0", folder.display()))
            .map(|folder| (folder.clone(), folder.replace("lib", "nil")))
            .collect();
        // Some are the ends of others.
        changes.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.len()));
        changes.push(("ld.so.cache\0".into(), "ld.no.cache\0".into()));
        overwrite(&loader, &changes);
        self.folder().join(name)
    }

    /// Both say the same about the program; what they say.
    pub fn same(&self, program: &Path, loader: &Loader) -> Outcome {
        let object = Object::read(program).expect("a program");
        let outcome = model(&Closure::of(object, loader).expect("a closure"));
        agrees(&outcome, program, loader).expect("the model and the loader agree");
        outcome
    }

    /// The model says something else than the loader, if it is changed like this: the comparison can fail.
    pub fn differs(
        &self,
        program: &Path,
        loader: &Loader,
        change: impl FnOnce(&mut Object, &mut Loader),
    ) {
        let mut object = Object::read(program).expect("a program");
        let mut changed = loader.clone();
        change(&mut object, &mut changed);
        let outcome = model(&Closure::of(object, &changed).expect("a closure"));
        assert!(agrees(&outcome, program, loader).is_err(), "{outcome:#?}");
    }
}

/// What programs of the tests need of a glibc.
const LIBRARIES: [&str; 3] = ["libc.so.6", "libm.so.6", "libresolv.so.2"];

/// Strings of a file replaced by others of the same length.
pub fn overwrite(file: &Path, changes: &[(String, String)]) {
    let mut bytes = std::fs::read(file).expect("read");
    for (old, new) in changes {
        assert_eq!(old.len(), new.len());
        let old = old.as_bytes();
        let places: Vec<usize> = (0..bytes.len())
            .filter(|&at| bytes[at..].starts_with(old))
            .collect();
        assert!(!places.is_empty(), "{} lacks {old:?}", file.display());
        for at in places {
            bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
        }
    }
    std::fs::write(file, bytes).expect("write");
}

/// The loader's list, or its complaint about the first library that it misses.
fn agrees(outcome: &Outcome, program: &Path, loader: &Loader) -> Result<(), String> {
    let trace = trace::list(&loader.path, program).expect("a trace");
    let agree = if outcome.missing.is_empty() {
        *outcome == real(&trace) && trace.complaints.is_empty()
    } else {
        let of = |name: &String| format!("{name}: cannot open shared object file");
        let complaint = trace.complaints.first();
        complaint.is_some_and(|line| outcome.missing.iter().any(|name| line.contains(&of(name))))
    };
    if agree {
        return Ok(());
    }
    Err(format!("{outcome:#?}\n{trace:#?}"))
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
