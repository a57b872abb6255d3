//! What the machine begins with: a small initramfs with a shell, the job, and the modules that Debian's kernel wants for the
//! host's files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages::fetch;
use crate::project::Project;
use crate::virtual_time::guest;

/// Where the host's programs are looked for, as a login of root has it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/vm/bin";

/// What a kernel may have as modules and the root file system needs.
const MODULES: &[&str] = &["9pnet_virtio", "9p", "overlay"];

pub type Files = BTreeMap<String, Vec<u8>>;

/// What the guest does.
pub struct Job<'a> {
    pub folder: &'a Path,
    /// A shell if there is none.
    pub words: &'a [std::ffi::OsString],
    pub terminal: &'a OsStr,
}

/// What every guest has.
pub fn files(project: &Project, job: &Job) -> Result<Files> {
    let busybox = fetch::unpacked(project, &fetch::find("busybox-static")?, "bin")?;
    Ok(Files::from([
        ("init".to_owned(), include_bytes!("init.sh").to_vec()),
        ("run.sh".to_owned(), include_bytes!("run.sh").to_vec()),
        ("job".to_owned(), job.script()),
        ("busybox".to_owned(), read(&busybox.join("busybox"))?),
    ]))
}

impl Job<'_> {
    /// Read by the guest's shell.
    fn script(&self) -> Vec<u8> {
        let mut script = Vec::new();
        let mut set = |name: &str, value: &OsStr| {
            script.extend([name.as_bytes(), b"=", &quoted(value), b"\n"].concat());
        };
        set("job_folder", self.folder.as_os_str());
        set("job_path", OsStr::new(PATH));
        set("job_term", self.terminal);
        script.extend(b"set --");
        for word in self.words {
            script.push(b' ');
            script.extend(quoted(word));
        }
        script.push(b'\n');
        script
    }
}

/// One word to a shell, whatever is in it.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// The modules in `folder` (lib/modules of a kernel's package), numbered as they are to be loaded.
pub fn modules(folder: &Path) -> Result<Files> {
    let mut found = BTreeMap::new();
    find_modules(folder, &mut found)?;
    let mut loaded: Vec<(String, Vec<u8>)> = Vec::new();
    for name in MODULES {
        load(name, &found, &mut loaded)?;
    }
    let numbered = loaded.into_iter().enumerate();
    Ok(numbered
        .map(|(number, (name, bytes))| (format!("modules/{number:02}-{name}.ko"), bytes))
        .collect())
}

/// What it depends on first. One that is not there is built in, or the root file system will be missed.
fn load(
    name: &str,
    found: &BTreeMap<String, PathBuf>,
    loaded: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let Some(path) = found.get(name) else {
        return Ok(());
    };
    if loaded.iter().any(|it| it.0 == name) {
        return Ok(());
    }
    let bytes = if path.extension().is_some_and(|it| it == "xz") {
        unxz(path)?
    } else {
        read(path)?
    };
    for needed in depends(&bytes) {
        load(&needed, found, loaded)?;
    }
    loaded.push((name.to_owned(), bytes));
    Ok(())
}

fn unxz(path: &Path) -> Result<Vec<u8>> {
    let output = Command::new("xz").arg("-dc").arg(path).output();
    let output = output.context("cannot run xz")?;
    if !output.status.success() {
        bail!("cannot unpack {}", path.display());
    }
    Ok(output.stdout)
}

/// Names with underscores, as the modules have them among themselves.
fn find_modules(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find_modules(&path, found)?;
        } else if let Some((name, "ko" | "ko.xz")) =
            entry.file_name().to_string_lossy().split_once('.')
        {
            found.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// From the module's own description: strings that end in NUL, `depends=a,b` among them.
fn depends(module: &[u8]) -> Vec<String> {
    let strings = module.split(|byte| *byte == 0);
    let mut lists = strings.filter_map(|it| it.strip_prefix(b"depends="));
    let list = lists.next().unwrap_or_default();
    String::from_utf8_lossy(list)
        .split(',')
        .filter(|it| !it.is_empty())
        .map(|it| it.replace('-', "_"))
        .collect()
}

/// A guest without the host's files: the command, what is named besides, and what they are loaded with.
pub fn sealed(job: &Job, with: &[PathBuf]) -> Result<Files> {
    let mut files = Files::from([("sealed".to_owned(), Vec::new())]);
    let mut take: Vec<PathBuf> = Vec::new();
    if let Some(word) = job.words.first() {
        take.push(program(word, job.folder)?);
    }
    for path in with {
        let path = job.folder.join(path);
        if path.is_dir() {
            below(&path, &mut take)?;
        } else {
            take.push(path);
        }
    }
    for path in &take {
        let path = std::path::absolute(path)?;
        let bytes = read(&path)?;
        if bytes.starts_with(b"\x7fELF") {
            // Static programs have none, and ldd says so by failing.
            for library in guest::libraries(&path).unwrap_or_default() {
                files.insert(name(Path::new(&library))?, read(Path::new(&library))?);
            }
        }
        files.insert(name(&path)?, bytes);
    }
    // The folder that the command starts in.
    let mark = job.folder.join(".vm");
    files.insert(name(&mark)?, Vec::new());
    Ok(files)
}

/// As execvp would find it.
fn program(word: &OsStr, folder: &Path) -> Result<PathBuf> {
    let path = Path::new(word);
    if path.components().count() > 1 {
        return Ok(folder.join(path));
    }
    let mut places = PATH.split(':').map(|it| Path::new(it).join(path));
    places
        .find(|it| it.is_file())
        .with_context(|| format!("no program {} in {PATH}", path.display()))
}

fn below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot list {}", folder.display()))?
            .path();
        if path.is_dir() {
            below(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// In the archive.
fn name(path: &Path) -> Result<String> {
    let text = path.to_str().context("a file's name is not UTF-8")?;
    Ok(text.trim_start_matches('/').to_owned())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_through_a_shell_as_they_are() {
        let words: Vec<std::ffi::OsString> =
            ["", "a b", "it's", "$HOME `x` \\ \"", "new\nline", "*"]
                .map(Into::into)
                .to_vec();
        let job = Job {
            folder: Path::new("/a 'folder'"),
            words: &words,
            terminal: OsStr::new("x"),
        };
        let mut script = job.script();
        script.extend(b"printf '%s\\0' \"$job_folder\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(OsStr::from_bytes(&script));
        let output = shell.output().expect("a shell");
        let mut told = output.stdout.split(|byte| *byte == 0);
        assert_eq!(told.next(), Some(&b"/a 'folder'"[..]));
        for word in &words {
            assert_eq!(told.next(), Some(word.as_bytes()));
        }
        assert_eq!(told.next(), Some(&b""[..]));
    }

    #[test]
    fn modules_come_after_what_they_depend_on_and_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let module = |name: &str, depends: &str| {
            let text = format!("\x7fELF\0license=GPL\0depends={depends}\0name={name}\0");
            std::fs::write(folder.path().join(format!("{name}.ko")), text).expect("a module");
        };
        module("9pnet", "");
        module("9pnet_virtio", "9pnet,virtio");
        module("9p", "9pnet,netfs");
        module("netfs", "");
        module("unneeded", "");
        let modules = modules(folder.path()).expect("modules");
        let names: Vec<&str> = modules.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "modules/00-9pnet.ko",
                "modules/01-9pnet_virtio.ko",
                "modules/02-netfs.ko",
                "modules/03-9p.ko"
            ]
        );
    }
}
