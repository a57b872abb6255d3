//! From here to the program: exec, fork, signals, exit status.
//!
//! The program gets the signal dispositions and the mask that we were started with. Rust's runtime ignores SIGPIPE before `main`: what
//! it found is noted before that. While we wait beside the program, a signal that somebody sends to us goes on to it. Those of the
//! terminal do not: it sends them to both.
//!
//! May touch: signal handlers and the mask of this process, which has one thread.

use std::ffi::{CStr, CString, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use anyhow::{Result, bail};

/// execvp(3) found no such file.
const NOT_FOUND: u8 = 127;
/// It found one that cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// What a shell adds to a signal's number.
const KILLED: u8 = 128;

/// What goes on to the program; SIGKILL and SIGSTOP cannot, SIGTSTP and SIGCONT stop and continue both of us.
const FORWARDED: [c_int; 6] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Whether SIGPIPE was ignored when we were started.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);
/// The program's process id; 0 while it has none.
static PROGRAM: AtomicI32 = AtomicI32::new(0);

/// Runs before Rust's runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note_dispositions;

extern "C" fn note_dispositions() {
    PIPE_IGNORED.store(disposition(libc::SIGPIPE) == libc::SIG_IGN, Relaxed);
}

/// A program, its arguments and its environment, ready for the kernel.
pub struct Start {
    arguments: Result<Vec<CString>, String>,
    environment: Vec<CString>,
}

/// How the program ended, as wait(2) says it.
#[derive(Clone, Copy, Debug)]
pub struct End(c_int);

impl Start {
    /// The first word of `command` is the program, and its own first argument.
    pub fn new(command: &[OsString], environment: &[(OsString, OsString)]) -> Self {
        let c_string =
            |text: &[u8]| CString::new(text).map_err(|_| "a NUL byte in the command".to_string());
        let variables = environment.iter().filter_map(|(name, value)| {
            // None of them can have a NUL: they come from the environment or from arguments.
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        });
        Self {
            arguments: command
                .iter()
                .map(|word| c_string(word.as_bytes()))
                .collect(),
            environment: variables.collect(),
        }
    }

    /// Becomes the program; returns only if that cannot be.
    pub fn replace(self) -> Result<ExitCode> {
        let (arguments, environment) = self.vectors()?;
        restore_pipe();
        Ok(ExitCode::from(exec(&arguments, &environment)))
    }

    /// Starts the program, waits for its end and hands signals on meanwhile.
    pub fn beside(self) -> Result<End> {
        let (arguments, environment) = self.vectors()?;
        let mask = block(&FORWARDED);
        let caught: Vec<c_int> = FORWARDED
            .into_iter()
            // What was ignored at our start stays so, in both of us.
            .filter(|&signal| disposition(signal) != libc::SIG_IGN)
            .collect();
        for &signal in &caught {
            hand_on(signal);
        }
        // SAFETY: this process has one thread.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            for &signal in &caught {
                by_default(signal);
            }
            restore_pipe();
            unblock(&mask);
            let code = exec(&arguments, &environment);
            // SAFETY: ends the child without what belongs to the parent.
            unsafe { libc::_exit(c_int::from(code)) };
        }
        if pid < 0 {
            bail!("cannot fork: {}", std::io::Error::last_os_error());
        }
        PROGRAM.store(pid, Relaxed);
        unblock(&mask);
        let status = wait(pid);
        // The id may be another's from now on. A signal that comes now is for us, and does what it does.
        PROGRAM.store(0, Relaxed);
        for &signal in &caught {
            by_default(signal);
        }
        status.map(End)
    }

    /// The vectors of execve(2); the strings live as long as `self`.
    fn vectors(&self) -> Result<(Vec<*const c_char>, Vec<*const c_char>)> {
        let vector = |strings: &[CString]| {
            let pointers = strings.iter().map(|text| text.as_ptr());
            pointers.chain([std::ptr::null()]).collect()
        };
        match &self.arguments {
            Ok(arguments) => Ok((vector(arguments), vector(&self.environment))),
            Err(error) => bail!("{error}"),
        }
    }
}

impl End {
    /// Whether it ended with status 0.
    pub fn good(self) -> bool {
        libc::WIFEXITED(self.0) && libc::WEXITSTATUS(self.0) == 0
    }

    /// Whether its status may mean that there was no program.
    pub fn not_started(self) -> bool {
        let code = libc::WEXITSTATUS(self.0);
        libc::WIFEXITED(self.0) && [NOT_FOUND, NOT_EXECUTABLE].map(c_int::from).contains(&code)
    }

    /// Ends as the program did: the same status, or killed by the same signal.
    pub fn pass_on(self) -> ExitCode {
        if !libc::WIFSIGNALED(self.0) {
            return ExitCode::from(libc::WEXITSTATUS(self.0) as u8);
        }
        let signal = libc::WTERMSIG(self.0);
        // One core is enough.
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: a valid limit.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
        by_default(signal);
        // SAFETY: the signal that has just killed another.
        unsafe { libc::raise(signal) };
        // It does not kill, or is blocked.
        ExitCode::from(KILLED.wrapping_add(signal as u8))
    }
}

/// Executes the program; gives the exit status for why not.
fn exec(arguments: &[*const c_char], environment: &[*const c_char]) -> u8 {
    // SAFETY: arrays of C strings that end with null pointers; there is at least the program.
    unsafe { libc::execvpe(arguments[0], arguments.as_ptr(), environment.as_ptr()) };
    let error = std::io::Error::last_os_error();
    // SAFETY: as above.
    let name = unsafe { CStr::from_ptr(arguments[0]) };
    let reason = error.to_string();
    let reason = reason.split(" (os error").next().unwrap_or_default();
    eprintln!("autolock: cannot run {}: {reason}", name.to_string_lossy());
    match error.raw_os_error() {
        Some(libc::ENOENT) => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }
}

fn wait(pid: libc::pid_t) -> Result<c_int> {
    let mut status = 0;
    loop {
        // SAFETY: our child, and a place for its status.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            return Ok(status);
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            bail!("cannot wait for the program: {error}");
        }
    }
}

/// The handler: sends the signal to the program, unless the terminal has done so.
extern "C" fn forward(signal: c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO its information.
    let from_kernel = unsafe { (*info).si_code } > 0;
    let pid = PROGRAM.load(Relaxed);
    if pid > 0 && !from_kernel {
        // SAFETY: async-signal-safe, and sets errno only if the program has ended, when nobody looks at it but `wait`, which asks again.
        unsafe { libc::kill(pid, signal) };
    }
}

fn hand_on(signal: c_int) {
    // SAFETY: zeros are a valid action, to be filled in.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = forward as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: a handler that is async-signal-safe.
    unsafe { libc::sigaction(signal, &action, null_mut()) };
}

fn by_default(signal: c_int) {
    // SAFETY: takes no handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Gives SIGPIPE back what Rust's runtime has taken.
fn restore_pipe() {
    if !PIPE_IGNORED.load(Relaxed) {
        by_default(libc::SIGPIPE);
    }
}

fn disposition(signal: c_int) -> libc::sighandler_t {
    // SAFETY: zeros are a valid action, to be overwritten.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks.
    unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    action.sa_sigaction
}

/// Blocks these, and gives the mask that was.
fn block(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: zeros are a valid set on Linux.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    for &signal in signals {
        // SAFETY: a set, a signal's number.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    // SAFETY: two sets.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, &mut before) };
    before
}

fn unblock(before: &libc::sigset_t) {
    // SAFETY: a set that the kernel gave.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, before, null_mut()) };
}
