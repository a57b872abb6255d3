//! A scratch folder with a glibc prefix and a program, and the tool run over them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Prints the file of each libc that is in it, and its arguments.
const PROGRAM: &str = r#"
    #include <stdio.h>
    #include <string.h>
    int main(int argc, char **argv) {
        char line[4096];
        FILE *maps = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, maps))
            if (strstr(line, " 00000000 ") && strstr(line, "libc.so.6"))
                printf("%s", strchr(line, '/'));
        for (int i = 1; i < argc; i++)
            printf("[%s]", argv[i]);
        return 7;
    }
"#;

pub const TOOL: &str = env!("CARGO_BIN_EXE_use-this-glibc");

/// What is missing on this machine; in CI it must not be.
pub fn skip(reason: &str) {
    println!("SKIPPED: {reason}");
    assert!(std::env::var_os("CI").is_none(), "in CI: {reason}");
}

pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A folder that goes away with it: `prefix` (a copy of the system's glibc) and `exe` (a program).
pub struct Scene {
    pub folder: TempDir,
}

impl Scene {
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a scratch folder");
        // For the tests that run as somebody else.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let scene = Self { folder };
        scene.copy_glibc("prefix");
        scene.compile("exe", &[]);
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        // Without links, as the tool shows it.
        self.folder
            .path()
            .canonicalize()
            .expect("the folder")
            .join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect(name);
    }

    /// The tool, in the folder.
    pub fn tool(&self, arguments: &[&str]) -> Done {
        Done::of(self.command(TOOL).args(arguments))
    }

    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path(""));
        command
    }

    /// Compiles [`PROGRAM`].
    pub fn compile(&self, name: &str, options: &[&str]) -> bool {
        self.compile_text(name, PROGRAM, options)
    }

    pub fn compile_text(&self, name: &str, text: &str, options: &[&str]) -> bool {
        let source = format!("{name}.c");
        self.write(&source, text);
        let mut cc = self.command("cc");
        cc.args(["-O1", "-o", name, &source]).args(options);
        let done = cc.output().expect("cc runs");
        fs::remove_file(self.path(&source)).expect("the source");
        done.status.success()
    }

    /// The glibc that this test runs on, as a prefix of its own.
    pub fn copy_glibc(&self, name: &str) {
        let maps = fs::read_to_string("/proc/self/maps").expect("maps");
        let mapped = |name: &str| {
            let line = maps
                .lines()
                .find(|line| line.ends_with(&format!("/{name}")));
            let line = line.unwrap_or_else(|| panic!("{name} is not loaded"));
            PathBuf::from(&line[line.find('/').expect("a path")..])
        };
        let lib = self.path(name).join("lib");
        fs::create_dir_all(&lib).expect("lib");
        let loader = "ld-linux-x86-64.so.2";
        fs::copy(mapped(loader), lib.join(loader)).expect("the loader");
        let libc = mapped("libc.so.6");
        fs::copy(&libc, lib.join("libc.so.6")).expect("libc");
        for name in [
            "libm.so.6",
            "libpthread.so.0",
            "libdl.so.2",
            "librt.so.1",
            "libresolv.so.2",
        ] {
            let _ = fs::copy(libc.with_file_name(name), lib.join(name));
        }
    }

    /// Names in the folder, without what [`Scene::new`] put there but the program.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).expect("the folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
        let mut names: Vec<_> = names.map(|name| name.expect("UTF-8")).collect();
        names.retain(|name| !name.starts_with("prefix"));
        names.sort();
        names
    }

    /// The libc that a program is running on, by its own account.
    pub fn libc_of(&self, name: &str) -> PathBuf {
        let done = Done::of(&mut self.command(self.path(name)));
        assert_eq!(done.code, Some(7), "{done:?}");
        done.out.trim_end().into()
    }

    pub fn libc_of_prefix(&self, name: &str) -> PathBuf {
        self.path(name).join("lib/libc.so.6")
    }
}

/// How a command ended and what it printed.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(command: &mut Command) -> Self {
        Self::from(
            command
                .output()
                .unwrap_or_else(|error| panic!("{command:?}: {error}")),
        )
    }

    /// Exit status 0 and nothing on stderr.
    #[track_caller]
    pub fn fine(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.err, "", "{self:?}");
        self
    }

    /// Exit status `code` and one line on stderr, which says `what`.
    #[track_caller]
    pub fn fails(self, code: i32, what: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "one line: {self:?}");
        assert!(self.err.starts_with("use-this-glibc: "), "{self:?}");
        assert!(self.err.contains(what), "{what:?} is not said: {self:?}");
        self
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// Everything about a file that a change must keep, or, with `identity`, that shows whether it was written at all.
#[derive(Debug, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u32,
    pub owner: (u32, u32),
    pub extended: BTreeMap<String, Vec<u8>>,
}

pub fn attributes(path: &Path) -> Attributes {
    let metadata = fs::symlink_metadata(path).expect("the file");
    let names = xattr::list(path).expect("extended attributes");
    let extended = names.map(|name| {
        let value = xattr::get(path, &name)
            .expect("readable")
            .unwrap_or_default();
        (name.into_string().expect("UTF-8"), value)
    });
    Attributes {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        extended: extended.collect(),
    }
}

/// Inode, times and bytes: equal if nobody wrote.
pub fn identity(path: &Path) -> (u64, i64, i64, Vec<u8>) {
    let metadata = fs::symlink_metadata(path).expect("the file");
    let bytes = fs::read(path).unwrap_or_default();
    let time = (metadata.mtime(), metadata.mtime_nsec());
    (metadata.ino(), time.0, time.1, bytes)
}
