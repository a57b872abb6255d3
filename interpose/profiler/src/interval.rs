//! `AUTOLOCK_PROFILE_INTERVAL`: a thread of our own that prints the table every so often, if something has happened since.
//!
//! Only when asked for: it makes a program multi-threaded that may not have been. It takes no signals and no locks but the table's. A process that ends
//! does not wait for it; where the main thread has left by `pthread_exit` and no other is there, it leaves too, within a second, so that the
//! process ends. Children of `fork` have no such thread.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::{
    ending::{self, Why},
    system::{self, Blocked, File},
    table,
};

/// Enough for a table, and for what libc puts there.
const STACK: usize = 128 * 1024;
/// How often it looks whether it is alone.
const LOOK_NS: u64 = 1_000_000_000;

static INTERVAL_NS: AtomicU64 = AtomicU64::new(0);

/// Starts the thread. Called once, from the preload's constructor. False if there can be none.
pub fn start(interval_ns: u64) -> bool {
    extern "C" fn run(_: *mut c_void) -> *mut c_void {
        print_until_over();
        core::ptr::null_mut()
    }
    INTERVAL_NS.store(interval_ns, Relaxed);
    // Inherited by the thread, before it runs.
    let _blocked = Blocked::all();
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: room for attributes.
    unsafe { libc::pthread_attr_init(attributes) };
    // SAFETY: initialised. If it is refused the thread has a stack of the usual size.
    unsafe { libc::pthread_attr_setstacksize(attributes, STACK) };
    // SAFETY: as above.
    unsafe { libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED) };
    // SAFETY: as above, and a function that stays.
    let failed = unsafe {
        libc::pthread_create(thread.as_mut_ptr(), attributes, run, core::ptr::null_mut())
    };
    // SAFETY: initialised, not used again.
    unsafe { libc::pthread_attr_destroy(attributes) };
    failed == 0
}

fn print_until_over() {
    static NEVER: AtomicU32 = AtomicU32::new(0);
    let interval = INTERVAL_NS.load(Relaxed);
    let mut due = system::monotonic_ns().saturating_add(interval);
    let mut before = 0;
    while !ending::has_ended() && !is_alone() {
        let now = system::monotonic_ns();
        if now < due {
            system::futex_wait(&NEVER, 0, (due - now).min(LOOK_NS));
            continue;
        }
        // Not a fixed raster: a machine that was asleep prints once.
        due = now.saturating_add(interval);
        if let Some(capture) = ending::capture() {
            let activity = table::activity(capture);
            if activity != before {
                before = activity;
                ending::show(Why::Interval);
            }
        }
    }
}

/// Whether the main thread has left and there is no other (proc(5): the third field of `stat` is the main thread's state, the 20th the number of threads).
fn is_alone() -> bool {
    let mut buffer = [0; 512];
    let length = File::open(c"/proc/self/stat").map_or(0, |file| file.read_at(0, &mut buffer));
    alone(buffer.get(..length).unwrap_or_default())
}

fn alone(stat: &[u8]) -> bool {
    // The second field is a name in parentheses, with anything in it.
    let Some(end) = stat.iter().rposition(|byte| *byte == b')') else {
        return false;
    };
    let mut fields = stat
        .get(end + 1..)
        .unwrap_or_default()
        .split(|byte| *byte == b' ')
        .skip(1);
    fields.next() == Some(b"Z") && matches!(fields.nth(16), Some(b"1" | b"2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_is_who_is_left_behind_by_the_main_thread() {
        let stat = |name: &str, state: &str, threads: u32| {
            let rest = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
            alone(format!("77 ({name}) {state} {rest} {threads} 0 5").as_bytes())
        };
        assert!(stat("x", "Z", 2));
        assert!(stat(") R 1 (", "Z", 2));
        assert!(!stat("x", "Z", 3));
        assert!(!stat("x", "S", 2));
        assert!(!alone(b""));
        assert!(!is_alone());
    }
}
