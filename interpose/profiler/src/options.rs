//! `AUTOLOCK_PROFILE*`: the one place where they are read.
//!
//! | variable | values | default | meaning |
//! |---|---|---|---|
//! | `AUTOLOCK_PROFILE` | `sampled`, `full` | `sampled` | time a sample of the holds, or all; contended waits are all timed |
//! | `AUTOLOCK_PROFILE_FILE` | a pattern: `%p` process id, `%e` the executable's name, `%%`; or `none` | `%e.%p.lockprof` | the capture; `none`: memory only |
//! | `AUTOLOCK_PROFILE_SIGNAL` | `USR2`, `SIGUSR2`, `12`, `RTMIN+3` | none | prints the table on demand |
//! | `AUTOLOCK_PROFILE_INTERVAL` | `10s`, `500ms`, `2m`, `10` (seconds) | none | prints the table every so often |
//! | `AUTOLOCK_PROFILE_MEMORY` | `64M`; suffix `K`, `M`, `G`; at least `1M` | `64M` | what the capture may grow to |
//! | `AUTOLOCK_PROFILE_TABLE` | `0` to `100` | `20` | rows of the table on stderr; `0`: no table |
//!
//! A bad value or an unknown `AUTOLOCK_PROFILE_` name gives one line on stderr and the default; other `AUTOLOCK_` names are libautolock's. In
//! secure-execution mode (set-user-ID programs, getauxval(3) `AT_SECURE`) the environment is not ours to believe: nothing is read.
//!
//! What is kept is a copy: programs write over their environment (`setproctitle`).

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::fmt::Write as _;
use core::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use crate::{system, text::Text};

/// What the environment asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time every hold.
    pub full: bool,
    /// Where the capture goes.
    pub file: Pattern,
    /// The signal that prints the table.
    pub signal: Option<i32>,
    /// Nanoseconds between tables.
    pub interval_ns: Option<u64>,
    /// Bytes that the capture may grow to.
    pub memory: usize,
    /// Rows of the table; 0: none is printed.
    pub rows: usize,
}

impl Options {
    /// What holds where nothing is said.
    pub const DEFAULT: Self = Self {
        full: false,
        file: Pattern::DEFAULT,
        signal: None,
        interval_ns: None,
        memory: 64 << 20,
        rows: 20,
    };
}

/// Bytes of the longest pattern, and of the longest path with its NUL.
const LONGEST: usize = 1024;
/// Rows of the largest table.
pub const MOST_ROWS: usize = 100;
const LEAST_MEMORY: u64 = 1 << 20;

/// The name of captures, with places to fill in.
#[derive(Clone, Copy)]
pub struct Pattern {
    bytes: [u8; LONGEST],
    /// 0: no file.
    len: usize,
    /// The executable's base name.
    executable: [u8; 256],
    executable_len: usize,
}

impl core::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Pattern({:?})", core::str::from_utf8(self.pattern()))
    }
}

/// A path, NUL-terminated.
#[derive(Clone, Copy)]
pub struct Path {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Path {
    /// As libc takes it.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    /// Without the NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl core::fmt::Debug for Path {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Path({:?})", self.as_c_str())
    }
}

impl Pattern {
    const DEFAULT: Self = {
        const NAME: &[u8] = b"%e.%p.lockprof";
        let mut bytes = [0; LONGEST];
        let mut at = 0;
        while at < NAME.len() {
            bytes[at] = NAME[at];
            at += 1;
        }
        Self {
            bytes,
            len: NAME.len(),
            executable: [0; 256],
            executable_len: 0,
        }
    };

    fn pattern(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Whether no file is wanted.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.len == 0
    }

    /// The path for a process, with a suffix (`.2` where the name is taken); none if no file is wanted or the path is too long.
    #[must_use]
    pub fn expand(&self, pid: u32, suffix: &[u8]) -> Option<Path> {
        self.expand_from(b"", self.pattern(), pid, suffix)
    }

    /// The same, of the pattern's last part, in another folder (which ends with a slash).
    #[must_use]
    pub fn expand_in(&self, folder: &[u8], pid: u32, suffix: &[u8]) -> Option<Path> {
        let name = self.pattern().rsplit(|byte| *byte == b'/').next()?;
        self.expand_from(folder, name, pid, suffix)
    }

    fn expand_from(&self, start: &[u8], pattern: &[u8], pid: u32, suffix: &[u8]) -> Option<Path> {
        if self.is_none() {
            return None;
        }
        let mut path = Path {
            bytes: [0; LONGEST],
            len: 0,
        };
        // Full to the last byte is too long: the NUL must fit.
        let mut text = Text::new(&mut path.bytes);
        text.push(start);
        let mut pattern = pattern.iter();
        while let Some(byte) = pattern.next() {
            match byte {
                b'%' => match pattern.next() {
                    Some(b'p') => _ = write!(text, "{pid}"),
                    Some(b'e') => text.push(
                        self.executable
                            .get(..self.executable_len)
                            .unwrap_or_default(),
                    ),
                    _ => text.push(b"%"), // `parse` lets only `%%` come here.
                },
                _ => text.push(&[*byte]),
            }
        }
        text.push(suffix);
        path.len = text.len();
        (text.room() > 0).then_some(path)
    }

    fn parse(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if value == b"none" {
            self.len = 0;
            return Ok(());
        }
        let mut bytes = value.iter();
        while let Some(byte) = bytes.next() {
            if *byte == b'%' && !matches!(bytes.next(), Some(b'p' | b'e' | b'%')) {
                return Err("knows %p, %e and %% only; using %e.%p.lockprof");
            }
        }
        // Room for a process id, an executable's name and a suffix.
        if value.len() > LONGEST - 300 {
            return Err("is too long; using %e.%p.lockprof");
        }
        self.len = value.len();
        for (to, from) in self.bytes.iter_mut().zip(value) {
            *to = *from;
        }
        Ok(())
    }

    /// Remembers the executable's name: the last part of its path.
    fn name(&mut self, path: &[u8]) {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        self.executable_len = 0;
        for (to, from) in self.executable.iter_mut().zip(name) {
            *to = *from;
            self.executable_len += 1;
        }
    }
}

struct Once {
    options: UnsafeCell<Options>,
    ready: AtomicBool,
}

// SAFETY: written once, by the constructor, before `ready`; read only after.
unsafe impl Sync for Once {}

static ONCE: Once = Once {
    options: UnsafeCell::new(Options::DEFAULT),
    ready: AtomicBool::new(false),
};
static DEFAULT: Options = Options::DEFAULT;

/// What the environment asked for; the defaults before [`start`].
#[must_use]
pub fn get() -> &'static Options {
    // Acquire: pairs with `start`'s release.
    if ONCE.ready.load(Acquire) {
        // SAFETY: not written again.
        unsafe { &*ONCE.options.get() }
    } else {
        &DEFAULT
    }
}

/// Reads the environment. Called once, from the preload's constructor.
pub fn start() {
    // SAFETY: one constructor runs, and nobody reads before `ready`.
    read(unsafe { &mut *ONCE.options.get() });
    // Release: pairs with `get`.
    ONCE.ready.store(true, Release);
}

const PREFIX: &[u8] = b"AUTOLOCK_PROFILE";

fn read(options: &mut Options) {
    let mut buffer = [0; 1024];
    let executable = system::read_link(c"/proc/self/exe", &mut buffer);
    options.file.name(executable.unwrap_or(b"unknown"));
    // SAFETY: getauxval takes a number and cannot fail.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return;
    }
    unsafe extern "C" {
        static environ: *const *const core::ffi::c_char;
    }
    // SAFETY: libc's own variable; no thread changes it before `main`.
    let mut next = unsafe { environ };
    if next.is_null() {
        return;
    }
    loop {
        // SAFETY: `environ` is an array that ends with a null pointer.
        let entry = unsafe { next.read() };
        if entry.is_null() {
            return;
        }
        // SAFETY: each entry is a NUL-terminated string.
        let entry = unsafe { CStr::from_ptr(entry) }.to_bytes();
        if let Some(rest) = entry.strip_prefix(PREFIX)
            && let Err(problem) = apply(options, rest)
        {
            complain(entry, problem);
        }
        // SAFETY: not yet at the null pointer.
        next = unsafe { next.add(1) };
    }
}

/// Applies `=value` or `_NAME=value`: an entry without the prefix. An empty value is the default.
fn apply(options: &mut Options, entry: &[u8]) -> Result<(), &'static str> {
    let mut parts = entry.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    let value = parts.next().unwrap_or_default();
    if !matches!(
        name,
        b"" | b"_FILE" | b"_SIGNAL" | b"_INTERVAL" | b"_MEMORY" | b"_TABLE"
    ) {
        return match name.first() {
            Some(b'_') => Err(
                "is not an option of the profiler (they are AUTOLOCK_PROFILE and AUTOLOCK_PROFILE_FILE, _SIGNAL, _INTERVAL, _MEMORY, _TABLE); ignored",
            ),
            _ => Ok(()), // AUTOLOCK_PROFILES: another name.
        };
    }
    if value.is_empty() {
        return Ok(());
    }
    match name {
        b"_FILE" => options.file.parse(value)?,
        b"_SIGNAL" => {
            options.signal = Some(signal(value).ok_or(
                "takes a signal such as USR2, 12 or RTMIN+3, but none that means a fault, that cannot be caught, or INT or TERM, which print anyway; using none",
            )?);
        }
        b"_INTERVAL" => {
            options.interval_ns =
                Some(interval(value).ok_or("takes a time such as 10s or 500ms; using none")?);
        }
        b"_MEMORY" => {
            options.memory =
                memory(value).ok_or("takes a size of 1M or more, such as 64M; using 64M")?;
        }
        b"_TABLE" => {
            options.rows = number(value)
                .filter(|rows| *rows <= MOST_ROWS as u64)
                .ok_or("takes a number of rows from 0 to 100; using 20")?
                as usize;
        }
        _ => {
            options.full = match value {
                b"sampled" => false,
                b"full" => true,
                _ => return Err("takes sampled or full; using sampled"),
            }
        }
    }
    Ok(())
}

/// Digits, and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn memory(value: &[u8]) -> Option<usize> {
    let (digits, unit) = match value.split_last()? {
        (b'K' | b'k', digits) => (digits, 1 << 10),
        (b'M' | b'm', digits) => (digits, 1 << 20),
        (b'G' | b'g', digits) => (digits, 1 << 30),
        _ => (value, 1),
    };
    let bytes = number(digits)?.checked_mul(unit)?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes as u64 >= LEAST_MEMORY && *bytes <= isize::MAX as usize)
}

fn interval(value: &[u8]) -> Option<u64> {
    let (digits, unit) = if let Some(digits) = value.strip_suffix(b"ms") {
        (digits, 1_000_000)
    } else if let Some(digits) = value.strip_suffix(b"s") {
        (digits, 1_000_000_000)
    } else if let Some(digits) = value.strip_suffix(b"m") {
        (digits, 60_000_000_000)
    } else {
        (value, 1_000_000_000)
    };
    number(digits)?.checked_mul(unit).filter(|ns| *ns > 0)
}

const NAMES: [(&[u8], i32); 19] = [
    (b"HUP", libc::SIGHUP),
    (b"QUIT", libc::SIGQUIT),
    (b"USR1", libc::SIGUSR1),
    (b"USR2", libc::SIGUSR2),
    (b"PIPE", libc::SIGPIPE),
    (b"ALRM", libc::SIGALRM),
    (b"CHLD", libc::SIGCHLD),
    (b"CONT", libc::SIGCONT),
    (b"TSTP", libc::SIGTSTP),
    (b"TTIN", libc::SIGTTIN),
    (b"TTOU", libc::SIGTTOU),
    (b"URG", libc::SIGURG),
    (b"XCPU", libc::SIGXCPU),
    (b"XFSZ", libc::SIGXFSZ),
    (b"VTALRM", libc::SIGVTALRM),
    (b"PROF", libc::SIGPROF),
    (b"WINCH", libc::SIGWINCH),
    (b"IO", libc::SIGIO),
    (b"PWR", libc::SIGPWR),
];

/// A signal that may be taken over: one of [`NAMES`], or a real-time signal.
fn signal(value: &[u8]) -> Option<i32> {
    let name = value.strip_prefix(b"SIG").unwrap_or(value);
    let (least, most) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let found = if let Some(rest) = name.strip_prefix(b"RTMIN") {
        least + offset(rest, b'+')?
    } else if let Some(rest) = name.strip_prefix(b"RTMAX") {
        most - offset(rest, b'-')?
    } else if let Some((_, signal)) = NAMES.iter().find(|(known, _)| *known == name) {
        *signal
    } else {
        i32::try_from(number(value)?).ok()?
    };
    let known = NAMES.iter().any(|(_, signal)| *signal == found);
    (known || (least..=most).contains(&found)).then_some(found)
}

/// Nothing, or a number behind a sign.
fn offset(rest: &[u8], sign: u8) -> Option<i32> {
    match rest.split_first() {
        None => Some(0),
        Some((first, digits)) if *first == sign => number(digits)
            .filter(|number| *number < 64)
            .map(|number| number as i32),
        Some(_) => None,
    }
}

fn complain(entry: &[u8], problem: &str) {
    let mut bytes = [0; 400];
    let mut line = Text::new(&mut bytes);
    line.push(b"pthread-mutex-profile: ");
    line.push_shown(entry.get(..100).unwrap_or(entry));
    let _ = writeln!(line, ": {problem}");
    system::write_all(libc::STDERR_FILENO, line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(entry: &[u8]) -> Result<Options, &'static str> {
        let mut options = Options::DEFAULT;
        options.file.name(b"/usr/bin/memcached");
        apply(&mut options, entry).map(|()| options)
    }

    fn good(entry: &[u8]) -> Options {
        parsed(entry).expect("a good value")
    }

    fn path(entry: &[u8], pid: u32, suffix: &[u8]) -> Option<String> {
        let path = good(entry).file.expand(pid, suffix)?;
        assert_eq!(path.as_bytes(), path.as_c_str().to_bytes());
        Some(String::from_utf8(path.as_bytes().to_vec()).expect("text"))
    }

    #[test]
    fn good_values_are_taken() {
        assert!(good(b"=full").full);
        assert!(!good(b"=sampled").full);
        assert!(!good(b"=").full);
        assert_eq!(good(b"_SIGNAL=USR2").signal, Some(libc::SIGUSR2));
        assert_eq!(good(b"_SIGNAL=SIGUSR2").signal, Some(libc::SIGUSR2));
        assert_eq!(good(b"_SIGNAL=12").signal, Some(libc::SIGUSR2));
        assert_eq!(good(b"_SIGNAL=RTMIN+3").signal, Some(libc::SIGRTMIN() + 3));
        assert_eq!(good(b"_SIGNAL=SIGRTMAX").signal, Some(libc::SIGRTMAX()));
        assert_eq!(good(b"_INTERVAL=10").interval_ns, Some(10_000_000_000));
        assert_eq!(good(b"_INTERVAL=500ms").interval_ns, Some(500_000_000));
        assert_eq!(good(b"_INTERVAL=2m").interval_ns, Some(120_000_000_000));
        assert_eq!(good(b"_MEMORY=1M").memory, 1 << 20);
        assert_eq!(good(b"_MEMORY=2097152").memory, 2 << 20);
        assert_eq!(good(b"_TABLE=0").rows, 0);
        assert_eq!(good(b"S=1").rows, 20);
    }

    #[test]
    fn bad_values_and_unknown_names_are_refused() {
        for entry in [
            &b"=all"[..],
            b"_SIGNAL=KILL",
            b"_SIGNAL=9",
            b"_SIGNAL=SEGV",
            b"_SIGNAL=INT",
            b"_SIGNAL=15",
            b"_SIGNAL=RTMIN+31",
            b"_SIGNAL=RTMIN-1",
            b"_SIGNAL=32",
            b"_SIGNAL=65",
            b"_INTERVAL=0",
            b"_INTERVAL=s",
            b"_INTERVAL=-1",
            b"_INTERVAL=99999999999999999999",
            b"_MEMORY=1023K",
            b"_MEMORY=lots",
            b"_MEMORY=99999999999G",
            b"_TABLE=101",
            b"_FILE=%d",
            b"_FILE=x%",
            b"_NONSENSE=1",
            b"_",
        ] {
            assert!(parsed(entry).is_err(), "{}", String::from_utf8_lossy(entry));
        }
    }

    #[test]
    fn the_pattern_is_filled_in() {
        assert_eq!(path(b"=", 7, b"").as_deref(), Some("memcached.7.lockprof"));
        assert_eq!(
            path(b"_FILE=/tmp/%%%e-%p%p", 12, b".2").as_deref(),
            Some("/tmp/%memcached-1212.2")
        );
        assert_eq!(path(b"_FILE=none", 7, b""), None);
        let mut long = b"_FILE=".to_vec();
        long.extend([b'x'; LONGEST - 300]);
        assert!(path(&long, u32::MAX, b".2").is_some());
        long.push(b'x');
        assert!(parsed(&long).is_err());
        // The pattern is short, what it stands for is not.
        assert_eq!(path(b"_FILE=%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e%e", 7, b""), None);
    }
}
