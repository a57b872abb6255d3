//! Asks the new loader what it would load, without running the program: `LOADER --list FILE` reads the text, since the exit status lies.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::prefix::Prefix;

/// How long a loader may take to say something. It reads some headers; a network file system may need seconds for them.
const LIMIT: Duration = Duration::from_secs(60);

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// As it was asked for.
    pub name: Vec<u8>,
    /// None: not found.
    pub path: Option<PathBuf>,
}

/// What a loader says that it would load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// In the loader's order, without the kernel's own library (vDSO).
    pub loaded: Vec<Loaded>,
    /// Whatever else it said: missing versions, files that are no libraries.
    pub complaints: Vec<String>,
}

impl Trace {
    /// Complaints without those after which the loader goes on.
    pub fn errors(&self) -> impl Iterator<Item = &str> {
        const WARNINGS: [&str; 2] = [": weak version `", ": no version information available"];
        let all = self.complaints.iter().map(String::as_str);
        all.filter(|line| !WARNINGS.iter().any(|text| line.contains(text)))
    }
}

/// Fails ([`crate::error::Error::Check`]) unless the loader finds every library, and finds `libc.so.6` and every other library that the prefix has in the prefix.
/// `file` is the changed file under a temporary name in `origin`'s folder, so that `$ORIGIN` is the same.
pub fn check(file: &Path, prefix: &Prefix) -> Result<()> {
    let trace = list(&prefix.loader, file)?;
    let shown = prefix.loader.display();
    if let Some(line) = trace.errors().next() {
        return Err(Error::Check(format!("{shown} refuses the result: {line}")));
    }
    let mut libc = false;
    for Loaded { name, path } in &trace.loaded {
        let name = String::from_utf8_lossy(name);
        let Some(path) = path else {
            return Err(Error::Check(format!("{shown} does not find {name}")));
        };
        if !prefix.holds(path) && prefix.provides(path) {
            return Err(Error::Check(format!(
                "{shown} loads {}, although {} has this library",
                path.display(),
                prefix.lib.display()
            )));
        }
        libc |= path.file_name() == Some(OsStr::new("libc.so.6"));
    }
    if !libc {
        return Err(Error::Check(format!(
            "{shown} would not load libc.so.6 with it: it said {} lines",
            trace.loaded.len()
        )));
    }
    Ok(())
}

/// Runs `LOADER --list FILE`.
pub fn list(loader: &Path, file: &Path) -> Result<Trace> {
    let file = std::path::absolute(file)
        .map_err(|error| Error::Io(format!("{}: {error}", file.display())))?;
    let said = run(loader, &[OsStr::new("--list"), file.as_os_str()], &[])
        .map_err(|error| Error::Check(format!("{} --list: {error}", loader.display())))?;
    Ok(parse(&said.out, &said.err))
}

fn parse(out: &[u8], err: &[u8]) -> Trace {
    let mut trace = Trace::default();
    for line in out.split(|&byte| byte == b'\n') {
        let text = line.trim_ascii();
        if text.is_empty() || text == b"statically linked" {
            continue;
        }
        // Lines of the list are indented; the rest is what print_missing_version and the like say.
        if !line.starts_with(b"\t") {
            trace
                .complaints
                .push(String::from_utf8_lossy(text).into_owned());
            continue;
        }
        let (name, found) = match position(text, b" => ") {
            Some(at) => (&text[..at], &text[at + 4..]),
            None => (text, text),
        };
        if found == b"not found" {
            trace.loaded.push(Loaded {
                name: name.to_vec(),
                path: None,
            });
            continue;
        }
        let path = without_address(found);
        if !path.contains(&b'/') {
            continue;
        }
        trace.loaded.push(Loaded {
            name: without_address(name).to_vec(),
            path: Some(PathBuf::from(OsString::from_vec(path.to_vec()))),
        });
    }
    let complaints = String::from_utf8_lossy(err);
    let complaints = complaints.lines().map(str::trim);
    trace
        .complaints
        .extend(complaints.filter(|line| !line.is_empty()).map(String::from));
    trace
}

/// The text before ` (0x...)`.
fn without_address(text: &[u8]) -> &[u8] {
    let end = text.windows(4).rposition(|window| window == b" (0x");
    &text[..end.unwrap_or(text.len())]
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// What a command left.
pub(crate) struct Said {
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

/// Runs a loader with nothing in its environment but what is given, for at most [`LIMIT`].
pub(crate) fn run(
    loader: &Path,
    arguments: &[&OsStr],
    environment: &[(&str, &str)],
) -> io::Result<Said> {
    run_within(LIMIT, loader, arguments, environment)
}

fn run_within(
    limit: Duration,
    loader: &Path,
    arguments: &[&OsStr],
    environment: &[(&str, &str)],
) -> io::Result<Said> {
    let mut child = Command::new(loader)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (finished, both) = mpsc::channel();
    let out = reader(child.stdout.take(), finished.clone());
    let err = reader(child.stderr.take(), finished);
    for _ in 0..2 {
        if both.recv_timeout(limit).is_err() {
            return Err(give_up(child, limit));
        }
    }
    let status = child.wait()?;
    Ok(Said {
        status,
        out: out.join().unwrap_or_default(),
        err: err.join().unwrap_or_default(),
    })
}

/// Reads a pipe to its end, then says so.
fn reader(
    pipe: Option<impl Read + Send + 'static>,
    finished: mpsc::Sender<()>,
) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is all that there is to judge by.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = finished.send(());
        bytes
    })
}

fn give_up(mut child: Child, limit: Duration) -> io::Error {
    // It may have ended just now; either way nothing of it stays.
    let _ = child.kill();
    let _ = child.wait();
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer in {} s", limit.as_secs()),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_loader_that_says_nothing_is_given_up() {
        let said = run_within(
            Duration::from_millis(1),
            Path::new("/bin/sleep"),
            &[OsStr::new("1000000")],
            &[],
        );
        let error = said.err().map(|error| error.kind());
        assert_eq!(error, Some(io::ErrorKind::TimedOut));
    }

    #[test]
    fn a_trace_is_read_line_by_line() {
        let out = b"\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /a b/libm.so.6 (0x01)\n\tlibx.so => not found\n\t/lib64/ld.so (0x2)\n\t./libz => ./libz (0x3)\n/p/prog: /lib/libc.so.6: version `X' not found (required by /p/prog)\n";
        let trace = parse(out, b"prog: error while loading\n");
        let loaded: Vec<_> = trace
            .loaded
            .iter()
            .map(|one| {
                let path = one.path.as_ref().map(|path| path.as_os_str().as_bytes());
                (one.name.as_slice(), path)
            })
            .collect();
        assert_eq!(
            loaded,
            [
                (b"libm.so.6".as_slice(), Some(b"/a b/libm.so.6".as_slice())),
                (b"libx.so", None),
                (b"/lib64/ld.so", Some(b"/lib64/ld.so")),
                (b"./libz", Some(b"./libz")),
            ]
        );
        assert_eq!(trace.complaints.len(), 2);
        assert_eq!(trace.errors().count(), 2);
    }
}
