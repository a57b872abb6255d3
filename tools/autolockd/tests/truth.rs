//! The table against independent records of who was on a CPU.
//!
//! - Three threads pinned to one CPU (one spins, one sleeps on a futex, one does both by turns), and who reads from another CPU, against the
//!   kernel's trace of `sched_switch` (perf_event_open(2)). A read is judged where trace and threads leave no doubt, so from switch to switch, without the
//!   hand-over itself; no clock's resolution and no threshold is in that.
//! - Many threads that talk over sockets for a second: each finds itself running at every message; once they wait, no entry is wrong for a thread that
//!   the kernel says is off its CPU (`/proc/PID/task/TID/syscall`), ours or any other process's.
//!
//! A kernel may keep switches from its trace (a sandbox's that hides its own threads): who is switched to then has a wrong byte until the next switch.
//! Such gaps are seen in the trace, by a switch from another thread than the last one to, and told; nothing else is excused.
//!
//! Needs root and BPF; says `SKIPPED` where it cannot run.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::hint::spin_loop;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use autolock_oncpu::table::{self, Table};
use autolockd::client;
use autolockd::mapping::Mapping;
use support::{Place, eventually};

fn table_of(place: &Place) -> Mapping {
    client::ask(place.socket(), Duration::from_secs(10))
        .and_then(|reply| reply.table())
        .unwrap_or_else(|error| panic!("{error:#}\n{}", place.log()))
}

fn thread_id() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// The clock of the records too: no adjustment bends it.
fn now() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: room for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The CPUs that this process may use.
fn cpus() -> Vec<usize> {
    // SAFETY: a plain set of bits.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: room for the answer, of this size.
    let got = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    assert_eq!(got, 0, "{}", io::Error::last_os_error());
    let last = usize::try_from(libc::CPU_SETSIZE).expect("a number of bits");
    (0..last)
        // SAFETY: below the number of bits.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// The calling thread runs there alone.
fn pin(cpu: usize) {
    // SAFETY: a plain set of bits.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: below the number of bits: `cpus` has found it.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a set of this size.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
    let no_timeout = ptr::null::<libc::timespec>();
    // SAFETY: the word is alive through the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation | libc::FUTEX_PRIVATE_FLAG,
            value,
            no_timeout,
        )
    };
}

/// Returns once the word is not `value`.
fn wait_while(word: &AtomicU32, value: u32) {
    while word.load(Acquire) == value {
        futex(word, libc::FUTEX_WAIT, value);
    }
}

/// Lets threads go that a failed test would wait for.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The kernel's trace of one CPU's context switches.
struct Trace {
    event: OwnedFd,
    memory: NonNull<u8>,
}

/// One of them: when, from whom, to whom.
#[derive(Clone, Copy)]
struct Switch {
    time: u64,
    previous: i32,
    next: i32,
}

impl Trace {
    const PAGE: usize = 4096;
    const DATA: usize = 16 << 20;
    /// `struct perf_event_mmap_page`: `data_head`.
    const HEAD: usize = 1024;
    /// `TP_STRUCT__entry` of `sched_switch` (include/trace/events/sched.h), which `format` confirms.
    const PREVIOUS: usize = 24;
    const NEXT: usize = 56;

    /// From now on.
    fn start(cpu: usize) -> io::Result<Self> {
        const TRACEPOINT: u64 = 2;
        const SAMPLE_TIME_AND_RAW: u64 = 1 << 2 | 1 << 10;
        const USE_CLOCKID: u64 = 1 << 25;
        const FD_CLOEXEC: libc::c_ulong = 1 << 3;
        let folder = "/sys/kernel/tracing/events/sched/sched_switch";
        if !fs::exists(folder)? {
            mount_tracefs();
        }
        let id: u64 = fs::read_to_string(format!("{folder}/id"))?
            .trim()
            .parse()
            .map_err(io::Error::other)?;
        let format = fs::read_to_string(format!("{folder}/format"))?;
        for (field, offset) in [("prev_pid", Self::PREVIOUS), ("next_pid", Self::NEXT)] {
            if !format.contains(&format!("pid_t {field};\toffset:{offset};\tsize:4;")) {
                return Err(io::Error::other(format!("{field} is elsewhere: {format}")));
            }
        }
        // `struct perf_event_attr`, version 5, as little-endian words.
        let mut attributes = [0_u64; 14];
        attributes[0] = TRACEPOINT | (size_of_val(&attributes) as u64) << 32;
        attributes[1] = id;
        attributes[2] = 1;
        attributes[3] = SAMPLE_TIME_AND_RAW;
        attributes[5] = USE_CLOCKID;
        attributes[11] = u64::from(libc::CLOCK_MONOTONIC_RAW.unsigned_abs()) << 32;
        // SAFETY: the kernel reads the attributes. Any process, this CPU, no group.
        let event = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                attributes.as_ptr(),
                -1,
                cpu,
                -1,
                FD_CLOEXEC,
            )
        };
        let event = match libc::c_int::try_from(event) {
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(event) if event >= 0 => unsafe { OwnedFd::from_raw_fd(event) },
            _ => return Err(io::Error::last_os_error()),
        };
        // SAFETY: a new mapping, at an address that the kernel chooses. Writable: so the kernel overwrites nothing that was not read.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::PAGE + Self::DATA,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).expect("not at 0");
        Ok(Self { event, memory })
    }

    /// Of every CPU that we may use; `None`, said to be skipped, where that is not permitted.
    fn start_all(cpus: &[usize]) -> Option<Vec<Self>> {
        match cpus.iter().map(|&cpu| Self::start(cpu)).collect() {
            Ok(traces) => Some(traces),
            Err(error) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "missing in CI: the trace of sched_switch: {error}"
                );
                support::skipped(&format!("sched_switch cannot be traced: {error}"));
                None
            }
        }
    }

    fn word(&self, at: usize) -> u64 {
        // SAFETY: in the mapping, by the callers.
        let word = unsafe { self.memory.add(at) };
        // SAFETY: aligned: records are of words.
        unsafe { AtomicU64::from_ptr(word.as_ptr().cast()) }.load(Acquire)
    }

    /// What was traced; less than all where there was no more room.
    fn end(self) -> Vec<Switch> {
        const SAMPLE: u64 = 9;
        const DISABLE: libc::c_ulong = 0x2401;
        // SAFETY: takes integers.
        unsafe { libc::ioctl(self.event.as_raw_fd(), DISABLE, 0) };
        let head = usize::try_from(self.word(Self::HEAD)).expect("it fits");
        let mut switches = Vec::new();
        let mut at = 0;
        while at < head {
            let header = self.word(Self::PAGE + at);
            let (kind, size) = (header & 0xFFFF_FFFF, header >> 48);
            if kind != SAMPLE {
                break;
            }
            // Header, time, the entry's size in four bytes, the entry.
            let number = |offset: usize| {
                let offset = 16 + 4 + offset;
                let word = self.word(Self::PAGE + at + offset / 8 * 8);
                let number = word >> (offset % 8 * 8) & 0xFFFF_FFFF;
                i32::try_from(number).expect("a thread id")
            };
            switches.push(Switch {
                time: self.word(Self::PAGE + at + 8),
                previous: number(Self::PREVIOUS),
                next: number(Self::NEXT),
            });
            at += usize::try_from(size).expect("it fits");
        }
        switches
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // SAFETY: our mapping; nothing refers to it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), Self::PAGE + Self::DATA) };
    }
}

/// In the mount namespace that [`Place`] has made: gone with the test.
fn mount_tracefs() {
    let kind = c"tracefs".as_ptr();
    let target = c"/sys/kernel/tracing".as_ptr();
    // SAFETY: strings that end; no data. Where it fails, there is no file to read.
    unsafe { libc::mount(kind, target, kind, 0, ptr::null()) };
}

/// Threads of one CPU that it switched to and never from, as far as the trace goes.
fn untraced(switches: &[Switch]) -> Vec<i32> {
    switches
        .windows(2)
        .filter(|pair| pair[0].next != pair[1].previous)
        .map(|pair| pair[0].next)
        .collect()
}

/// When a thread was on the CPU that the trace is of.
fn runs(switches: &[Switch], tid: i32) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut since = None;
    for switch in switches {
        if switch.previous == tid
            && let Some(since) = since.take()
        {
            runs.push(Run {
                since,
                until: switch.time,
            });
        }
        if switch.next == tid {
            since = Some(switch.time);
        }
    }
    runs.extend(since.map(|since| Run {
        since,
        until: u64::MAX,
    }));
    runs
}

/// From the switch to a thread to the switch away.
#[derive(Clone, Copy)]
struct Run {
    since: u64,
    until: u64,
}

/// One read of a thread's byte: not before, what, not after.
#[derive(Clone, Copy)]
struct Sample {
    before: u64,
    byte: u8,
    after: u64,
}

/// When a thread has seen itself on the CPU.
#[derive(Default)]
struct Marks(Vec<u64>);

impl Marks {
    const MOST: usize = 1 << 21;

    fn new() -> Self {
        Self(Vec::with_capacity(Self::MOST))
    }

    fn mark(&mut self) {
        if self.0.len() < Self::MOST {
            self.0.push(now());
        }
    }

    /// The closest ones around a sample.
    fn around(&self, sample: &Sample) -> Option<(u64, u64)> {
        let before = self.0.partition_point(|&mark| mark <= sample.before);
        let after = self.0.partition_point(|&mark| mark < sample.after);
        Some((*self.0.get(before.checked_sub(1)?)?, *self.0.get(after)?))
    }
}

/// What became of a thread's samples.
#[derive(Debug, Default, Clone, Copy)]
struct Verdict {
    /// On the CPU, and the table said so.
    running: usize,
    /// Off it, and the table said so.
    not_running: usize,
    /// The table said otherwise.
    wrong: usize,
    /// During a hand-over, as far as one can know.
    unsure: usize,
}

/// `own`: marks of the thread itself; `others`: of those that share its CPU, each for itself.
///
/// On the CPU all the time of a sample: the thread has seen itself there before and after, and the trace has no switch between. Off it: another thread of
/// that CPU has, before and after, and the trace has no run of ours between. Both programs of the tracepoint, the table's and the trace's, run
/// between such marks, so neither rule asks anything of the hand-over.
fn judge(samples: &[Sample], runs: &[Run], own: &Marks, others: &[&Marks]) -> Verdict {
    let mut verdict = Verdict::default();
    for sample in samples {
        let on = own.around(sample).is_some_and(|(first, last)| {
            let ended = runs.partition_point(|run| run.until < first);
            runs.get(ended)
                .is_some_and(|run| run.since <= first && last <= run.until)
        });
        let off = others.iter().any(|other| {
            other.around(sample).is_some_and(|(first, last)| {
                let ended = runs.partition_point(|run| run.until < first);
                // Some run before: the trace had begun.
                ended > 0 && runs.get(ended).is_none_or(|run| last < run.since)
            })
        });
        assert!(!(on && off), "two threads at once on a CPU");
        match sample.byte {
            table::RUNNING if on => verdict.running += 1,
            table::NOT_RUNNING if off => verdict.not_running += 1,
            _ if on || off => verdict.wrong += 1,
            _ => verdict.unsure += 1,
        }
    }
    verdict
}

/// What a pinned thread has at its end.
struct Witness {
    tid: i32,
    marks: Marks,
}

/// Marks and works for a little, `turns` times.
fn work(marks: &mut Marks, turns: usize) {
    for _ in 0..turns {
        marks.mark();
        for _ in 0..50 {
            spin_loop();
        }
    }
}

#[test]
fn the_table_agrees_with_the_record_of_each_switch() {
    /// How often the third thread sleeps and is woken.
    const ROUNDS: u32 = 1000;
    const MOST_SAMPLES: usize = 1 << 20;
    /// With much else to do a machine does fewer rounds.
    const LONGEST: Duration = Duration::from_secs(10);
    let Some(place) = Place::new() else { return };
    let (first, second) = match cpus()[..] {
        [first, second, ..] => (first, second),
        _ => return support::skipped("one CPU: nobody can look at a thread that runs"),
    };
    let daemon = place.start();
    let mapping = table_of(&place);
    let table: &Table = &mapping;
    let Some(traces) = Trace::start_all(&[first, second]) else {
        return;
    };
    let (never, round, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let stop = AtomicBool::new(false);
    let ready = Barrier::new(4);
    let (say, hear) = mpsc::channel();
    let witness = |body: &dyn Fn(&mut Marks)| {
        pin(first);
        let mut marks = Marks::new();
        say.send(thread_id()).expect("somebody listens");
        ready.wait();
        body(&mut marks);
        Witness {
            tid: thread_id(),
            marks,
        }
    };

    let (witnesses, tids, samples, asker) = thread::scope(|scope| {
        let spinner = scope.spawn(|| {
            witness(&|marks| {
                while !stop.load(Acquire) {
                    work(marks, 1);
                }
            })
        });
        let sleeper = scope.spawn(|| witness(&|_| wait_while(&never, 0)));
        let both = scope.spawn(|| {
            witness(&|marks| {
                for number in 0..ROUNDS {
                    wait_while(&round, number);
                    work(marks, 100);
                    done.store(number + 1, Release);
                }
            })
        });
        let finish = Finally(|| {
            round.store(ROUNDS, Release);
            futex(&round, libc::FUTEX_WAKE, 1);
            stop.store(true, Release);
            never.store(1, Release);
            futex(&never, libc::FUTEX_WAKE, 1);
        });
        pin(second);
        let tids: Vec<i32> = (0..3).map(|_| hear.recv().expect("they live")).collect();
        let mut samples = vec![Vec::with_capacity(MOST_SAMPLES); tids.len()];
        ready.wait();
        let asker = thread_id();
        let mut asked = Vec::with_capacity(MOST_SAMPLES);
        let mut asking = Marks::new();
        let end = Instant::now() + LONGEST;
        while done.load(Acquire) < ROUNDS && samples[0].len() < MOST_SAMPLES && Instant::now() < end
        {
            if done.load(Acquire) == round.load(Relaxed) {
                round.fetch_add(1, Release);
                futex(&round, libc::FUTEX_WAKE, 1);
            }
            for (tid, samples) in tids.iter().zip(&mut samples) {
                let before = now();
                let byte = table.thread(*tid);
                let after = now();
                samples.push(Sample {
                    before,
                    byte,
                    after,
                });
            }
            asking.mark();
            let before = now();
            let byte = table.thread(asker);
            let after = now();
            asked.push(Sample {
                before,
                byte,
                after,
            });
            asking.mark();
            for _ in 0..20 {
                spin_loop();
            }
        }
        // Rounds that are left go unseen.
        drop(finish);
        let witnesses = [spinner, sleeper, both].map(|thread| thread.join().expect("it ends"));
        let asker = (asker, asking, asked);
        (witnesses, tids, samples, asker)
    });

    let [spinner, sleeper, both] = witnesses;
    let samples_of = |tid: i32| {
        let at = tids.iter().position(|other| *other == tid);
        &samples[at.expect("it has said so")][..]
    };
    let switches: Vec<Vec<Switch>> = traces.into_iter().map(Trace::end).collect();
    let runs_of = |tid: i32| runs(&switches[0], tid);
    let (spinner_samples, spinner_runs) = (samples_of(spinner.tid), runs_of(spinner.tid));
    let (sleeper_samples, sleeper_runs) = (samples_of(sleeper.tid), runs_of(sleeper.tid));
    let (both_samples, both_runs) = (samples_of(both.tid), runs_of(both.tid));
    let (asker, asking, asked) = asker;
    let asker = judge(&asked, &runs(&switches[1], asker), &asking, &[]);
    let of_spinner = |samples| judge(samples, &spinner_runs, &spinner.marks, &[&both.marks]);
    let of_both = |samples| judge(samples, &both_runs, &both.marks, &[&spinner.marks]);
    let spinning = of_spinner(spinner_samples);
    let sleeping = judge(
        sleeper_samples,
        &sleeper_runs,
        &sleeper.marks,
        &[&spinner.marks, &both.marks],
    );
    let alternating = of_both(both_samples);
    println!(
        "{} runs: spins {spinning:?}, sleeps {sleeping:?}, both {alternating:?}, asks {asker:?}; not traced {:?}",
        both_runs.len(),
        switches
            .iter()
            .map(|switches| untraced(switches).len())
            .collect::<Vec<_>>()
    );
    for verdict in [spinning, sleeping, alternating, asker] {
        assert_eq!(verdict.wrong, 0, "{verdict:?}");
    }
    assert!(spinning.running > 0 && spinning.not_running > 0);
    assert!(sleeping.not_running > 0 && sleeping.running == 0);
    assert!(alternating.running > 0 && alternating.not_running > 0);
    assert!(asker.running > 0 && asker.not_running == 0);

    // Tables that lie are found out: one that has another thread's bytes, and one that lags by a change.
    assert!(of_spinner(both_samples).wrong > 0);
    assert!(of_both(spinner_samples).wrong > 0);
    assert!(of_both(&lagging(both_samples)).wrong > 0);
    assert_eq!(daemon.stop().code(), Some(0));
}

/// Each byte as it was before its last change.
fn lagging(samples: &[Sample]) -> Vec<Sample> {
    let mut last = table::UNKNOWN;
    let mut shown = table::UNKNOWN;
    samples
        .iter()
        .map(|sample| {
            if sample.byte != last {
                shown = last;
                last = sample.byte;
            }
            Sample {
                byte: shown,
                ..*sample
            }
        })
        .collect()
}

/// A thread, by its folder below /proc.
struct Settled<'a> {
    folder: &'a str,
    tid: i32,
}

impl Settled<'_> {
    /// Which number of run the thread is in, or was last: what `schedstat` ends with.
    fn runs(&self) -> Option<u64> {
        let schedstat = fs::read_to_string(format!("{}/schedstat", self.folder)).ok()?;
        let runs = schedstat.split_ascii_whitespace().last()?.parse().ok()?;
        // 0: the kernel does not count, or it has never run.
        (runs > 0).then_some(runs)
    }

    /// The kernel waits until the thread is off its CPU, before it looks into it; "running" where that does not come about.
    fn is_off(&self) -> bool {
        fs::read_to_string(format!("{}/syscall", self.folder))
            .is_ok_and(|call| !call.starts_with("running"))
    }

    /// The thread's byte, if the thread was off all CPUs when it was read.
    ///
    /// The second look makes sure that a run that had begun by the read of the byte has ended, and so been counted.
    fn byte_off(&self, table: &Table) -> Option<u8> {
        let runs = self.runs()?;
        if !self.is_off() {
            return None;
        }
        let byte = table.thread(self.tid);
        (self.is_off() && self.runs()? == runs).then_some(byte)
    }
}

/// Whether the kernel has what [`Settled`] asks; says `SKIPPED` if not.
fn can_settle() -> bool {
    let own = Settled {
        folder: "/proc/self",
        tid: 0,
    };
    let can = own.runs().is_some() && fs::exists("/proc/self/syscall").is_ok_and(|there| there);
    if !can {
        support::skipped(
            "the kernel has no /proc/PID/syscall, or does not count in /proc/PID/schedstat",
        );
    }
    can
}

/// Every thread that there is.
fn threads() -> Vec<(String, i32)> {
    let numbered = |folder: &str| -> Vec<(String, i32)> {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let name = name.to_str()?;
                Some((format!("{folder}/{name}"), name.parse().ok()?))
            })
            .collect()
    };
    numbered("/proc")
        .into_iter()
        .flat_map(|(process, _)| numbered(&format!("{process}/task")))
        .collect()
}

/// Who ran all the time of a sample that says otherwise, as the trace has it: not one that was switched to without a trace.
fn refuted(lies: &[(i32, Sample)], switches: &[Vec<Switch>]) -> Vec<i32> {
    // A trace without room for more says nothing of later times.
    let ends = switches.iter().map(|switches| switches.last());
    let end = ends
        .map(|last| last.map_or(0, |last| last.time))
        .min()
        .unwrap_or(0);
    let liars: BTreeSet<i32> = lies.iter().map(|(tid, _)| *tid).collect();
    liars
        .into_iter()
        .filter(|liar| {
            let runs: Vec<Run> = switches
                .iter()
                .flat_map(|switches| runs(switches, *liar))
                .collect();
            lies.iter().any(|(tid, sample)| {
                tid == liar
                    && sample.byte != table::RUNNING
                    && sample.after < end
                    && runs
                        .iter()
                        .any(|run| run.since <= sample.before && sample.after <= run.until)
            })
        })
        .collect()
}

/// As hackbench: groups in which everybody who sends, sends to everybody who receives.
#[test]
fn after_a_second_of_messages_no_entry_of_a_settled_thread_is_wrong() {
    const GROUPS: usize = 4;
    const PAIRS: usize = 10;
    let Some(place) = Place::new() else { return };
    if !can_settle() {
        return;
    }
    let daemon = place.start();
    let mapping = table_of(&place);
    let table: &Table = &mapping;
    let Some(traces) = Trace::start_all(&cpus()) else {
        return;
    };
    let (lies, asked) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    // Each thread: what it found about itself, at every message.
    let ask = |tid: i32| {
        if table.thread(tid) != table::RUNNING {
            let before = now();
            let byte = table.thread(tid);
            let after = now();
            let sample = Sample {
                before,
                byte,
                after,
            };
            lies.lock().expect("nobody panics").push((tid, sample));
        }
        asked.fetch_add(1, Relaxed);
    };
    let over = AtomicBool::new(false);
    let last = AtomicU32::new(0);
    let (say, hear) = mpsc::channel();

    let groups: Vec<Vec<(UnixStream, UnixStream)>> = (0..GROUPS)
        .map(|_| {
            (0..PAIRS)
                .map(|_| UnixStream::pair().expect("a pair of sockets"))
                .collect()
        })
        .collect();

    thread::scope(|scope| {
        let _finish = Finally(|| {
            over.store(true, Release);
            last.store(1, Release);
            futex(&last, libc::FUTEX_WAKE, libc::c_int::MAX.unsigned_abs());
            for (_, receive) in groups.iter().flatten() {
                let _ = receive.shutdown(std::net::Shutdown::Both);
            }
        });
        for group in &groups {
            for (_, receive) in group {
                let mut receive = receive;
                let (say, ask) = (say.clone(), &ask);
                scope.spawn(move || {
                    let tid = thread_id();
                    say.send(tid).expect("somebody listens");
                    let mut message = [0; 100];
                    while receive.read_exact(&mut message).is_ok() {
                        ask(tid);
                    }
                });
            }
            for _ in 0..PAIRS {
                let (say, ask, over, last) = (say.clone(), &ask, &over, &last);
                scope.spawn(move || {
                    let tid = thread_id();
                    say.send(tid).expect("somebody listens");
                    while !over.load(Acquire) {
                        for (send, _) in group {
                            let mut send = send;
                            // It fails once the test has.
                            let _ = send.write_all(&[0; 100]);
                            ask(tid);
                        }
                    }
                    wait_while(last, 0);
                });
            }
        }
        let own: Vec<i32> = (0..GROUPS * PAIRS * 2)
            .map(|_| hear.recv().expect("they live"))
            .collect();
        // The load's length, not a wait for anything.
        thread::sleep(Duration::from_secs(1));
        over.store(true, Release);

        for &tid in &own {
            let folder = format!("/proc/self/task/{tid}");
            let thread = Settled {
                folder: &folder,
                tid,
            };
            let mut byte = None;
            eventually("everybody waits", || {
                byte = thread.byte_off(table);
                byte.is_some()
            });
            assert_eq!(byte, Some(table::NOT_RUNNING), "thread {tid}");
        }
        ask(thread_id());
        let switches: Vec<Vec<Switch>> = traces.into_iter().map(Trace::end).collect();
        let untraced: Vec<i32> = switches
            .iter()
            .flat_map(|switches| untraced(switches))
            .collect();

        let (mut judged, mut wrong) = (0, Vec::new());
        // Nobody can look at oneself from outside.
        for (folder, tid) in threads().into_iter().filter(|(_, tid)| *tid != thread_id()) {
            let thread = Settled {
                folder: &folder,
                tid,
            };
            // Unknown: it has slept since before the daemon started.
            match thread.byte_off(table) {
                Some(table::NOT_RUNNING | table::UNKNOWN) => judged += 1,
                Some(byte) if !untraced.contains(&tid) => wrong.push((tid, byte)),
                _ => {}
            }
        }
        println!(
            "{} messages sent or received, {} found themselves not running; {judged} settled threads of all processes; {} switches not traced",
            asked.load(Relaxed),
            lies.lock().expect("nobody panics").len(),
            untraced.len()
        );
        assert!(judged > 0);
        let lies = lies.lock().expect("nobody panics");
        assert!(lies.is_empty() || !untraced.is_empty());
        assert_eq!(refuted(&lies, &switches), [] as [i32; 0]);
        // A lie of anybody's whole first run would not be.
        let run = switches[0].windows(2).find_map(|pair| {
            let sample = Sample {
                before: pair[0].time,
                byte: table::NOT_RUNNING,
                after: pair[1].time,
            };
            (pair[0].next == pair[1].previous).then_some((pair[0].next, sample))
        });
        let run = run.expect("somebody ran");
        assert_eq!(refuted(&[run], &switches), [run.0]);
        assert_eq!(wrong, []);
        assert!(judged >= own.len(), "{judged}");
    });
    assert!(asked.load(Relaxed) > 0);
    assert_eq!(daemon.stop().code(), Some(0));
}

/// A table that nobody writes any more is wrong about a settled thread; the way that threads are judged by finds that out.
#[test]
fn a_table_that_nobody_writes_is_found_out() {
    let Some(place) = Place::new() else { return };
    if !can_settle() {
        return;
    }
    let daemon = place.start();
    let mapping = table_of(&place);
    let table: &Table = &mapping;
    drop(daemon);
    let (word, spin) = (AtomicU32::new(0), AtomicBool::new(true));
    let (say, hear) = mpsc::channel();
    thread::scope(|scope| {
        let _finish = Finally(|| {
            spin.store(false, Release);
            word.store(1, Release);
            futex(&word, libc::FUTEX_WAKE, 1);
        });
        scope.spawn(|| {
            say.send(thread_id()).expect("somebody listens");
            while spin.load(Acquire) {
                spin_loop();
            }
            wait_while(&word, 0);
        });
        let tid = hear.recv().expect("it lives");
        // The last that the table hears of it is that it runs; not so where it was switched from at just that time.
        eventually("the daemon dies while the thread runs", || {
            let daemon = place.start();
            let program = table.program.load(Relaxed);
            eventually("it runs", || table.thread(tid) == table::RUNNING);
            daemon.kill();
            eventually("the program is unloaded", || {
                aya::programs::loaded_programs()
                    .all(|info| info.is_ok_and(|info| info.id() != program))
            });
            table.thread(tid) == table::RUNNING
        });
        spin.store(false, Release);
        let folder = format!("/proc/self/task/{tid}");
        let thread = Settled {
            folder: &folder,
            tid,
        };
        eventually("it waits, and the table is wrong", || {
            thread.byte_off(table) == Some(table::RUNNING)
        });
    });
}
