//! Scratch folders: a prefix that is a copy of the system's glibc, and programs to damage.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Damage;

const LIBRARIES: &str = "/lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";
const SOURCE: &str = "#include <unistd.h>\nint pointed = 9, *const there = &pointed;\nint main(void) { return write(1, \"bare\\n\", 5) == 5 ? *there : 1; }\n";
const LIMIT: Duration = Duration::from_secs(20);

/// A program that ends with 9 and prints `bare`.
pub struct Base {
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

pub struct World {
    folder: tempfile::TempDir,
    pub bases: Vec<Base>,
}

pub enum Outcome {
    Same,
    Refused,
    OriginalDoesNotRun,
    Wrong(String),
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: Option<i32>,
    signal: Option<i32>,
    out: Vec<u8>,
    complaints: Vec<u8>,
}

impl World {
    /// None, and said so, without a compiler; that fails under CI.
    pub fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let lib = folder.path().join("prefix/lib");
        fs::create_dir_all(&lib).expect("a folder");
        for name in [LOADER, "libc.so.6", "libm.so.6"] {
            fs::copy(Path::new(LIBRARIES).join(name), lib.join(name))
                .expect("the system has a glibc");
        }
        fs::write(folder.path().join("bare.c"), SOURCE).expect("a source");
        let mut bases = Vec::new();
        for (name, flags) in [
            ("bfd, PIE", &["-fuse-ld=bfd", "-pie"][..]),
            (
                "bfd, fixed address, old hash",
                &["-fuse-ld=bfd", "-no-pie", "-Wl,--hash-style=sysv"],
            ),
            (
                "lld, PIE, run path",
                &["-fuse-ld=lld", "-pie", "-Wl,-rpath,/nonexistent"],
            ),
        ] {
            let out = folder.path().join("made");
            let mut gcc = Command::new("gcc");
            gcc.current_dir(folder.path())
                .args(["-O1", "bare.c", "-o"])
                .arg(&out)
                .args(flags)
                .stderr(Stdio::null());
            if !gcc.status().is_ok_and(|status| status.success()) {
                println!(
                    "SKIPPED: gcc does not link with {flags:?}: apt-get install gcc libc6-dev lld"
                );
                assert!(
                    std::env::var_os("CI").is_none(),
                    "CI has a compiler and its linkers"
                );
                continue;
            }
            bases.push(Base {
                name,
                bytes: fs::read(&out).expect("what gcc made"),
            });
        }
        (!bases.is_empty()).then_some(Self { folder, bases })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tool(&self, words: &[&str]) -> Option<Seen> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_use-this-glibc"));
        command.current_dir(self.folder.path()).args(words);
        self.run(command)
    }

    /// None: it did not end, or did not start.
    fn run(&self, mut command: Command) -> Option<Seen> {
        let (out, complaints) = (self.path("stdout"), self.path("stderr"));
        let create = |path: &Path| fs::File::create(path).expect("a file");
        command
            .stdin(Stdio::null())
            .stdout(create(&out))
            .stderr(create(&complaints))
            .process_group(0);
        let mut child = command.spawn().ok()?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                break status;
            }
            if started.elapsed() > LIMIT {
                child.kill().expect("a child of ours");
                child.wait().expect("a child of ours");
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        Some(Seen {
            status: status.code(),
            signal: status.signal(),
            out: fs::read(&out).expect("a file"),
            complaints: fs::read(&complaints).expect("a file"),
        })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        path
    }

    /// Edits a damaged program with the tool and runs both.
    pub fn edit_and_run(&self, base: &Base, damage: &Damage) -> Outcome {
        let file = self.write("damaged", &damage.bytes);
        let edited = self.path("edited");
        let _ = fs::remove_file(&edited);
        let Some(said) = self.tool(&["--output", "edited", "prefix", "damaged"]) else {
            return Outcome::Wrong("the tool does not end".into());
        };
        let line = String::from_utf8_lossy(&said.complaints).trim().to_owned();
        match said.status {
            Some(0) => {}
            Some(3) if line.lines().count() == 1 && !edited.exists() => return Outcome::Refused,
            // A line for each thing that is lacking.
            Some(1) if !line.is_empty() && !edited.exists() => return Outcome::Refused,
            _ => {
                return Outcome::Wrong(format!(
                    "the tool ends with {:?}, signal {:?}: {line}",
                    said.status, said.signal
                ));
            }
        }
        let restored = self.path("restored");
        let _ = fs::remove_file(&restored);
        let back = self.tool(&["--restore", "--output", "restored", "edited"]);
        if back.and_then(|seen| seen.status) != Some(0)
            || fs::read(&restored).ok().as_ref() != Some(&damage.bytes)
        {
            return Outcome::Wrong("--restore gives other bytes".into());
        }
        let was = self.run(Command::new(&file));
        if was
            .as_ref()
            .is_none_or(|was| was.status != Some(9) || was.out != b"bare\n")
        {
            return Outcome::OriginalDoesNotRun;
        }
        let is = self.run(Command::new(&edited));
        if is != was {
            return Outcome::Wrong(format!(
                "after the edit ({} bytes from {}): {is:?}",
                edited.metadata().map_or(0, |it| it.len()),
                base.bytes.len()
            ));
        }
        Outcome::Same
    }

    /// What is no regular file: refused at once, in one line, with the exit status of a refusal.
    pub fn odd_paths(&self) {
        fs::create_dir(self.path("folder")).expect("a folder");
        assert!(
            Command::new("mkfifo")
                .arg(self.path("fifo"))
                .status()
                .is_ok_and(|status| status.success())
        );
        std::os::unix::fs::symlink("dangling-to", self.path("dangling")).expect("a link");
        std::os::unix::fs::symlink("loop", self.path("loop")).expect("a link");
        self.write("empty", b"");
        self.write("script", b"#!/bin/sh\nexit 3\n");
        self.write("one-byte", b"\x7f");
        self.write("magic-alone", b"\x7fELF");
        for (name, statuses) in [
            ("folder", &[3, 4][..]),
            ("fifo", &[3, 4]),
            ("dangling", &[4]),
            ("loop", &[4]),
            ("missing", &[4]),
            ("empty", &[3]),
            ("script", &[3]),
            ("one-byte", &[3]),
            ("magic-alone", &[3]),
            ("/dev/null", &[3, 4]),
            ("/dev/zero", &[3, 4]),
            ("/proc/self/mem", &[3, 4]),
        ] {
            let seen = self.tool(&["--output", "edited", "prefix", name]);
            let seen = seen.unwrap_or_else(|| panic!("{name}: the tool does not end"));
            let text = String::from_utf8_lossy(&seen.complaints);
            assert!(
                seen.status.is_some_and(|status| statuses.contains(&status)),
                "{name}: {:?}: {text}",
                seen.status
            );
            assert_eq!(text.trim().lines().count(), 1, "{name}: {text}");
            assert!(!self.path("edited").exists(), "{name}");
        }
    }
}
