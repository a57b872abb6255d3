//! Ordinary programs print what they always print, with the same status.

use autolock_tests::{Installable, Run, autolock, skipped};
use std::fmt::Write as _;
use std::path::PathBuf;

/// The library complains about it at its start: so it was there. (Statistics at exit would not do:
/// `sort` has closed its stderr by then.)
const UNKNOWN_OPTION: &str = "AUTOLOCK_ARE_YOU_THERE";

fn same(package: &'static str, command: &str, args: &[&str]) {
    let Some(path) = find(command) else {
        return skipped(&format!("no {command}"), Installable::Apt(package));
    };
    let stock = Run::new(&path).args(args).end().must_succeed();
    let ours = Run::new(&path)
        .args(args)
        .preload(autolock())
        .env(UNKNOWN_OPTION, "1")
        .end();
    assert_eq!(ours.outcome, stock.outcome, "{}", ours.story());
    assert!(!stock.stdout.is_empty(), "{} prints nothing", stock.what);
    assert!(
        ours.stdout == stock.stdout,
        "{} prints something else",
        ours.what
    );
    assert!(ours.stderr.contains(UNKNOWN_OPTION), "{}", ours.story());
}

fn find(command: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(command))
        .find(|path| path.is_file())
}

#[test]
fn sort_with_two_threads() {
    let mut lines = String::new();
    let mut x: u32 = 1;
    for _ in 0..300_000 {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let _ = writeln!(lines, "{x}");
    }
    let file = match tempfile::NamedTempFile::new() {
        Ok(file) => file,
        Err(error) => panic!("tempfile: {error}"),
    };
    if let Err(error) = std::fs::write(file.path(), lines) {
        panic!("{}: {error}", file.path().display());
    }
    let path = file.path().to_string_lossy();
    same(
        "coreutils",
        "sort",
        &["--parallel=2", "-S", "32M", "-n", &path],
    );
}

#[test]
fn xz_with_two_threads() {
    // The compressed file is as long as ever, and says so.
    let script = "seq 400000 | xz -T2 -1 --block-size=300KiB | tee /dev/null | cksum; \
                  seq 400000 | xz -T2 -1 --block-size=300KiB | xz -dc -T2 | cksum";
    if find("xz").is_none() {
        return skipped("no xz", Installable::Apt("xz-utils"));
    }
    same("dash", "sh", &["-c", script]);
}

#[test]
fn python_threads() {
    let script = "
import threading, queue
q, out, lock = queue.Queue(10), [], threading.Lock()
def work():
    while (item := q.get()) is not None:
        with lock: out.append(item * item)
threads = [threading.Thread(target=work) for _ in range(6)]
for t in threads: t.start()
for i in range(4000): q.put(i)
for t in threads: q.put(None)
for t in threads: t.join()
print(len(out), sum(out))
";
    same("python3", "python3", &["-c", script]);
}

#[test]
fn perl() {
    let script = "use Config; if ($Config{useithreads}) { require threads; require threads::shared; \
                  my $n :shared = 0; my @t = map { threads->create(sub { for (1..200) { lock($n); $n++ } }) } 1..4; \
                  $_->join for @t; print \"$n\\n\" } else { print \"800\\n\" }";
    same("perl", "perl", &["-e", script]);
}

#[test]
fn git() {
    same("git", "git", &["--version"]);
    let repository = env!("CARGO_MANIFEST_DIR");
    let args = [
        "-c",
        "safe.directory=*",
        "-C",
        repository,
        "-c",
        "pack.threads=2",
        "grep",
        "--threads=2",
        "-c",
        "pthread_mutex",
    ];
    same("git", "git", &args);
}

#[test]
fn a_shell_and_its_children() {
    same(
        "dash",
        "sh",
        &[
            "-c",
            "for i in 1 2 3; do (echo $i; exit $i); echo $?; done | sort",
        ],
    );
}
