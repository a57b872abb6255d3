//! The unwinder on stacks of all kinds (`interpose/tests/programs/unwind_stacks.c`), against glibc's `backtrace()` at the same place, or against what is known where that is no help.

use std::arch::naked_asm;
use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use autolock_profiler::modules;
use autolock_profiler::unwind::{self, Step};
use autolock_tests::Compile;

const FRAMES: usize = 64;
/// PTHREAD_STACK_MIN, or what code without optimisation needs.
const SMALL_STACK: usize = if cfg!(debug_assertions) {
    64 << 10
} else {
    16 << 10
};

/// `struct look` of the C library, and behind it what is ours.
#[repr(C)]
struct Look {
    walk: unsafe extern "C" fn(*mut Look),
    reference: [usize; FRAMES],
    references: usize,
    steps: [[usize; 2]; FRAMES],
    count: usize,
    compare: unsafe extern "C" fn(*mut Look),
    note: usize,
    looks: usize,
    /// Functions that a signal has interrupted on the stack.
    interrupted: usize,
    failures: Vec<String>,
}

/// Stands for the interposed function: gets its caller's stack pointer, and jumps.
#[unsafe(naked)]
unsafe extern "C" fn lock(look: *mut Look) {
    naked_asm!("lea rsi, [rsp + 8]", "jmp {}", sym walk)
}

unsafe extern "C" fn walk(look: *mut Look, caller_stack_pointer: usize) {
    let mut steps = [Step::default(); FRAMES];
    let count = unwind::walk(caller_stack_pointer, &mut steps);
    // SAFETY: the case's own, used by one thread at a time.
    let look = unsafe { &mut *look };
    look.count = count;
    for (place, step) in look.steps.iter_mut().zip(&steps[..count]) {
        *place = [step.address, step.slot];
        let slot = std::ptr::with_exposed_provenance::<usize>(step.slot);
        // SAFETY: a word of this thread's stack, if the walk is right.
        let holds = unsafe { slot.read_volatile() };
        if step.address.wrapping_sub(holds) > 1 {
            look.failures
                .push(format!("{step:x?} has {holds:x} in its slot"));
        }
    }
}

/// Where the look was taken both have an address of the same function; from there on they must be equal.
unsafe extern "C" fn compare(look: *mut Look) {
    // SAFETY: as above.
    let look = unsafe { &mut *look };
    look.looks += 1;
    let found: Vec<_> = look.steps[..look.count]
        .iter()
        .map(|step| step[0])
        .collect();
    let expected = &look.reference[..look.references];
    let interrupted = found
        .iter()
        .zip(expected)
        .skip(1)
        .filter(|&(&ours, &theirs)| ours == theirs + 1)
        .count();
    let same = found
        .iter()
        .zip(expected)
        .skip(1)
        .filter(|&(&ours, &theirs)| ours == theirs)
        .count();
    let right = found.len() == expected.len()
        && found.len() > 1
        && interrupted == look.interrupted
        && same + interrupted + 1 == found.len();
    if !right && look.failures.len() < 3 {
        look.failures
            .push(format!("found {found:x?}, backtrace() says {expected:x?}"));
    }
}

fn compare_nothing() -> Box<Look> {
    unsafe extern "C" fn nothing(look: *mut Look) {
        // SAFETY: as above.
        unsafe { (*look).looks += 1 };
    }
    let mut look = look();
    look.compare = nothing;
    look
}

fn look() -> Box<Look> {
    start();
    Box::new(Look {
        walk: lock,
        reference: [0; FRAMES],
        references: 0,
        steps: [[0; 2]; FRAMES],
        count: 0,
        compare,
        note: 0,
        looks: 0,
        interrupted: 0,
        failures: Vec::new(),
    })
}

fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        modules::start();
        unwind::start();
    });
}

/// Signal handlers and the C library's variables are the process's: one case at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> *mut c_void {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path without NUL");
    // SAFETY: a library of ours.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY) };
    assert!(!library.is_null(), "{} cannot be opened", path.display());
    library
}

fn function(name: &str) -> *mut c_void {
    let library = open(
        &Compile::library("unwind_stacks")
            .flag("-fomit-frame-pointer")
            .flag("-Wl,-z,lazy")
            .build(),
    );
    let symbol = CString::new(name).expect("a name without NUL");
    // SAFETY: an open library.
    let function = unsafe { libc::dlsym(library, symbol.as_ptr()) };
    assert!(!function.is_null(), "{name} is not in the library");
    function
}

fn run(name: &str, look: &mut Look) {
    // SAFETY: the cases have this signature.
    let case =
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(&mut Look)>(function(name)) };
    case(look);
}

/// Runs a case in which the walk and backtrace() must agree.
#[track_caller]
fn agrees(name: &str, interrupted: usize) -> Box<Look> {
    let mut look = look();
    look.interrupted = interrupted;
    // The second time by what the first has left behind.
    run(name, &mut look);
    run(name, &mut look);
    assert!(look.looks > 0, "{name}: nobody looked");
    assert!(
        look.failures.is_empty(),
        "{name}, {} looks: {:#?}",
        look.looks,
        look.failures
    );
    look
}

const ORDINARY: &[&str] = &[
    "plain",
    "recursion",
    "frames_of_variable_size",
    "large_frame",
    "preserved_registers",
    "through_libc",
    "noreturn_tail",
];

#[test]
fn frames_without_frame_pointers_are_those_of_backtrace() {
    let _one = one_at_a_time();
    for name in ORDINARY {
        agrees(name, 0);
    }
}

#[test]
fn signal_handlers_are_passed_on_the_same_and_on_another_stack() {
    let _one = one_at_a_time();
    agrees("signal_handler", 1);
    agrees("signal_stack", 1);
    agrees("fault_at_the_start", 1);
}

#[test]
fn every_instruction_of_prologues_epilogues_linkage_tables_and_the_lazy_linker() {
    let _one = one_at_a_time();
    let look = agrees("every_instruction", 1);
    assert!(look.looks > 1000, "only {} instructions", look.looks);
}

#[test]
fn stacks_of_coroutines_and_threads_are_read_to_their_end_and_not_beyond() {
    let _one = one_at_a_time();
    agrees("coroutine", 0);
    let mut look = look();
    look.note = SMALL_STACK;
    run("small_thread", &mut look);
    assert!(
        look.looks == 1 && look.failures.is_empty(),
        "{:#?}",
        look.failures
    );
    agrees("thread_on_given_stack", 0);
}

/// What this program runs before `main`, when it is told to: in its main thread, where no test runs.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn in_main_thread() {
        if std::env::var_os(IN_MAIN_THREAD).is_some() {
            for name in ORDINARY {
                agrees(name, 0);
            }
            agrees("signal_stack", 1);
            agrees("coroutine", 0);
            println!("{IN_MAIN_THREAD}");
            std::process::exit(0);
        }
    }
    in_main_thread
};
const IN_MAIN_THREAD: &str = "UNWIND_IN_MAIN_THREAD";

#[test]
fn the_main_threads_stack() {
    let output = Command::new(std::env::current_exe().expect("this test's path"))
        .env(IN_MAIN_THREAD, "1")
        .output()
        .expect("this test can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains(IN_MAIN_THREAD),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a walk found behind its first `skip` steps is what backtrace() said in the outer function, whose own place differs.
#[track_caller]
fn continues(look: &Look, skip: usize) {
    let found: Vec<_> = look.steps[..look.count]
        .iter()
        .map(|step| step[0])
        .collect();
    let expected = &look.reference[..look.references];
    assert_eq!(
        found.len(),
        expected.len() + skip,
        "{found:x?} {expected:x?}"
    );
    assert_eq!(found[skip + 1..], expected[1..]);
}

#[test]
fn code_without_tables_is_passed_by_its_frame_pointer() {
    let _one = one_at_a_time();
    let mut look = compare_nothing();
    run("no_tables_but_frame_pointer", &mut look);
    // In look_only, and in the function without tables.
    continues(&look, 2);
    run("generated_code", &mut look);
    continues(&look, 2);
}

#[test]
fn code_without_tables_and_frame_pointer_ends_the_stack() {
    let _one = one_at_a_time();
    let on_stack = [0usize; 4];
    let pair = [0, function("plain").addr() + 1];
    for garbage in [
        0,
        1,
        8,
        on_stack.as_ptr().addr(),
        pair.as_ptr().addr(),
        usize::MAX - 7,
        1 << 47,
        function("plain").addr(),
    ] {
        let mut look = compare_nothing();
        look.note = garbage;
        run("no_tables_at_all", &mut look);
        assert_eq!(
            look.count,
            2,
            "{garbage:#x}: {:x?}",
            &look.steps[..look.count]
        );
    }
}

/// The next one may come to the same place, with frames of another size.
#[test]
fn libraries_that_are_closed_again() {
    let _one = one_at_a_time();
    let library = |room: &str| {
        Compile::library("unwind_library")
            .define("ROOM", room)
            .flag("-fomit-frame-pointer")
            .flag("-Wl,--build-id=sha1")
            .build()
    };
    // SAFETY: the case has this signature.
    let case = unsafe {
        std::mem::transmute::<*mut c_void, extern "C" fn(&mut Look, *const c_char)>(function(
            "in_a_library",
        ))
    };
    for path in ["500", "900", "500", "700"].map(library) {
        let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
        let mut look = look();
        case(&mut look, name.as_ptr());
        assert!(look.failures.is_empty(), "{:#?}", look.failures);
        let inside = look.note..look.note + 128;
        let found = &look.steps[..look.count];
        assert!(found.iter().any(|step| inside.contains(&step[0])));
        assert!(modules::find(look.note).is_none(), "closed, still found");
    }
}

#[test]
fn few_steps_are_as_good_as_many() {
    start();
    let mut all = [Step::default(); FRAMES];
    let mut one = [Step::default(); 1];
    #[inline(never)]
    fn both(all: &mut [Step], some: &mut [Step]) -> (usize, usize) {
        let here: usize;
        // SAFETY: a return address of this thread's; the canonical frame address of this function is not known to Rust, a wrong one must do no harm.
        unsafe { std::arch::asm!("mov {}, rsp", out(reg) here, options(nostack)) };
        (unwind::walk(here + 8, all), unwind::walk(here + 8, some))
    }
    // No frame of ours ends there: the word below is taken for the caller, and nothing else.
    assert_eq!(both(&mut all, &mut one), (1, 1));
    assert_eq!(both(&mut all, &mut []), (1, 0));
    assert_eq!(unwind::walk(0, &mut all), 0);
}

#[test]
fn a_walk_needs_little_stack() {
    let _one = one_at_a_time();
    let mut look = compare_nothing();
    run("measure", &mut look);
    // The walk's own 64 steps are this test's, 1 KiB.
    let bytes = look.note - FRAMES * size_of::<Step>();
    println!("{bytes} bytes of stack");
    let limit = if cfg!(debug_assertions) {
        32 << 10
    } else {
        3 << 10
    };
    assert!(look.count > 1 && bytes < limit, "{bytes} bytes of stack");
}

#[test]
fn modules_are_described() {
    start();
    let exe = std::env::current_exe().expect("this test's path");
    let here = modules::find(lock as *const () as usize).expect("this program");
    let description = modules::describe(&here);
    assert_eq!(description.path, exe.as_os_str().as_encoded_bytes());
    let address = libc::dlopen as *const () as usize;
    let libc = modules::find(address).expect("libc");
    assert!((libc.start..libc.end).contains(&address));
    let description = modules::describe(&libc);
    assert!(description.path.ends_with(b"/libc.so.6"));
    assert_eq!(
        description.build_id.len(),
        20,
        "Debian's libc has a build id"
    );
    assert!(modules::find(0).is_none());
    assert!(modules::find(std::ptr::from_ref(&*Box::new(0u64)).addr()).is_none());
}
