//! A thread's own memory of the stacks it has been at: a lock call from the same place, with the same stack pointer and the same return addresses in the same places, has the same
//! stack, and needs no unwinding.
//!
//! [`lookup`] looks at the calling thread's stack above the stack pointer, innermost return address first, up to the first one that differs. So what it reads next is in the
//! caller of a function that it has just found where it was, in a frame of the size that its return address stands for. (Of two frames of one function that
//! differ in size, by `alloca`, the smaller may end at the end of a coroutine's stack where the larger did not; one would also have to be at the very address that the other was.)
//! At most [`CACHED_FRAMES`] return addresses are looked at: of stacks that differ only further out the last one unwound is taken.
//!
//! Only the thread itself writes. All accesses are Relaxed: others read for a hint only ([`lookup_unverified`]), and a torn item is at worst a wrong one. A signal handler of the
//! same thread finds an item that is being written free.
//!
//! May touch: a thread's [`CachedStack`]s, the calling thread's stack. Called on lock paths.

use core::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst, compiler_fence};

use autolock_capture::layout::{CACHED, CACHED_FRAMES, CachedStack, Thread};

use crate::unwind::Step;

/// Places that a stack may be at.
const WAYS: usize = 4;
const SETS: usize = CACHED / WAYS;
const _: () = assert!(SETS.is_power_of_two() && WAYS.is_power_of_two() && SETS * WAYS == CACHED);

/// The places of a stack, the one to try first first.
#[inline]
fn places(
    thread: &Thread,
    caller: usize,
    stack_pointer: usize,
) -> impl Iterator<Item = &CachedStack> {
    // Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, 6.4): the upper bits are the mixed ones.
    let key = (caller ^ stack_pointer.rotate_left(20)) as u64;
    let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
    let set = hash % SETS * WAYS;
    let first = hash / SETS % WAYS;
    (0..WAYS).filter_map(move |way| thread.stacks.get(set + (first ^ way)))
}

#[inline]
fn is_of(item: &CachedStack, caller: usize, stack_pointer: usize) -> bool {
    item.caller.load(Relaxed) == caller as u64
        && item.stack_pointer.load(Relaxed) == stack_pointer as u64
}

/// The stack of a lock call, if the calling thread's stack still is the one that was remembered: `caller` is the call's return address, `stack_pointer` the address behind it.
///
/// `thread` is the calling thread's, `stack_pointer` one of its own stack pointers.
#[inline]
#[must_use]
pub fn lookup(thread: &Thread, caller: usize, stack_pointer: usize) -> Option<u32> {
    let item =
        places(thread, caller, stack_pointer).find(|item| is_of(item, caller, stack_pointer))?;
    let frames = item.offsets.iter().zip(&item.addresses);
    for (offset, address) in frames.take(item.len.load(Relaxed) as usize) {
        let slot = stack_pointer.wrapping_add(offset.load(Relaxed) as usize);
        let slot = core::ptr::with_exposed_provenance::<u64>(slot);
        // SAFETY: on the calling thread's stack, in a frame that is still there (see the module's header). Volatile: the compiler does not see that memory.
        let found = unsafe { slot.read_volatile() };
        // An interrupted function's slot holds 1 less.
        if address.load(Relaxed).wrapping_sub(found) > 1 {
            return None;
        }
    }
    Some(item.stack.load(Relaxed))
}

/// What [`lookup`] may have found, without looking at the stack; of any thread.
#[must_use]
pub fn lookup_unverified(thread: &Thread, caller: usize, stack_pointer: usize) -> Option<u32> {
    places(thread, caller, stack_pointer)
        .find(|item| is_of(item, caller, stack_pointer))
        .map(|item| item.stack.load(Relaxed))
}

/// Remembers what [`crate::unwind::walk`] has found, as `stack`; in the place of an older one if need be. Called by the thread itself.
///
/// A stack part of which is elsewhere (a signal handler's on a stack of its own) is not remembered: it could not be looked at safely.
pub fn remember(thread: &Thread, caller: usize, stack_pointer: usize, steps: &[Step], stack: u32) {
    if caller == 0 || !is_one_stack(stack_pointer, steps) {
        return;
    }
    let mut same = places(thread, caller, stack_pointer);
    let mut free = places(thread, caller, stack_pointer);
    let item = same
        .find(|item| is_of(item, caller, stack_pointer))
        .or_else(|| free.find(|item| item.caller.load(Relaxed) == 0))
        // Any: with one stack more than there are places, a loop over them would always find the oldest gone.
        .or_else(|| places(thread, caller, stack_pointer).nth(any() % WAYS));
    let Some(item) = item else { return };
    item.caller.store(0, Relaxed);
    // For signal handlers of this thread, which are all that must not see it half written.
    compiler_fence(SeqCst);
    let mut len = 0;
    let frames = item.offsets.iter().zip(&item.addresses);
    // The first step is the caller, which is compared already.
    for ((offset, address), step) in frames.zip(steps.iter().skip(1)) {
        offset.store(step.slot.wrapping_sub(stack_pointer) as u32, Relaxed);
        address.store(step.address as u64, Relaxed);
        len += 1;
    }
    item.len.store(len, Relaxed);
    item.stack.store(stack, Relaxed);
    item.stack_pointer.store(stack_pointer as u64, Relaxed);
    compiler_fence(SeqCst);
    item.caller.store(caller as u64, Relaxed);
}

/// Forgets everything: another thread takes over.
pub fn forget(thread: &Thread) {
    for item in &thread.stacks {
        item.caller.store(0, Relaxed);
    }
}

/// Whether the return addresses stand above each other from the stack pointer on, near enough for an offset.
fn is_one_stack(stack_pointer: usize, steps: &[Step]) -> bool {
    let mut last = stack_pointer.wrapping_sub(8);
    steps.iter().take(CACHED_FRAMES + 1).skip(1).all(|step| {
        let above = step.slot > last;
        last = step.slot;
        above
            && step
                .slot
                .checked_sub(stack_pointer)
                .is_some_and(|offset| u32::try_from(offset).is_ok())
    })
}

/// A number that nobody chose: bits of the time-stamp counter.
fn any() -> usize {
    // SAFETY: reads a counter.
    let now = unsafe { core::arch::x86_64::_rdtsc() };
    (now.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack pointer, with `frames` return addresses above it, 4 words apart.
    struct Stack(Vec<usize>);

    impl Stack {
        fn new(frames: usize) -> Self {
            let mut words = vec![0; 4 * frames + 4];
            for frame in 0..frames {
                words[4 * frame] = 1000 + frame;
            }
            Self(words)
        }

        /// Behind the first return address.
        fn pointer(&self) -> usize {
            self.0.as_ptr().expose_provenance() + 8
        }

        fn steps(&self) -> Vec<Step> {
            let frames = self.0.chunks(4).map(|frame| Step {
                address: frame[0],
                slot: frame.as_ptr().addr(),
            });
            frames.take_while(|step| step.address != 0).collect()
        }
    }

    fn thread() -> Box<Thread> {
        // SAFETY: all zero is what a thread's place in a capture starts as.
        Box::new(unsafe { core::mem::zeroed() })
    }

    #[test]
    fn a_stack_is_known_again_until_a_return_address_changes() {
        for frames in [1, 2, 10, CACHED_FRAMES + 1, 64] {
            let thread = thread();
            let mut stack = Stack::new(frames);
            let (pointer, steps) = (stack.pointer(), stack.steps());
            assert_eq!(steps.len(), frames);
            assert_eq!(lookup(&thread, 1000, pointer), None);
            remember(&thread, 1000, pointer, &steps, 7);
            assert_eq!(lookup(&thread, 1000, pointer), Some(7));
            assert_eq!(lookup(&thread, 1001, pointer), None, "another caller");
            assert_eq!(lookup(&thread, 1000, pointer + 8), None, "another frame");
            for frame in 1..frames.min(CACHED_FRAMES + 1) {
                stack.0[4 * frame] += 1;
                assert_eq!(lookup(&thread, 1000, pointer), None, "frame {frame}");
                assert_eq!(lookup_unverified(&thread, 1000, pointer), Some(7));
                stack.0[4 * frame] -= 1;
            }
            assert_eq!(lookup(&thread, 1000, pointer), Some(7));
            forget(&thread);
            assert_eq!(lookup_unverified(&thread, 1000, pointer), None);
        }
    }

    #[test]
    fn the_same_place_is_taken_again() {
        let thread = thread();
        let mut stack = Stack::new(3);
        remember(&thread, 1000, stack.pointer(), &stack.steps(), 1);
        stack.0[4] = 5;
        remember(&thread, 1000, stack.pointer(), &stack.steps(), 2);
        assert_eq!(lookup(&thread, 1000, stack.pointer()), Some(2));
        let used = |item: &&CachedStack| item.caller.load(Relaxed) != 0;
        assert_eq!(thread.stacks.iter().filter(used).count(), 1);
    }

    #[test]
    fn an_interrupted_function_is_known_by_its_own_address() {
        let thread = thread();
        let stack = Stack::new(3);
        let mut steps = stack.steps();
        steps[2].address += 1;
        remember(&thread, 1000, stack.pointer(), &steps, 1);
        assert_eq!(lookup(&thread, 1000, stack.pointer()), Some(1));
    }

    #[test]
    fn what_is_not_one_stack_is_not_remembered() {
        let thread = thread();
        let stack = Stack::new(4);
        let forged = |slot: usize| {
            let mut steps = stack.steps();
            steps[2].slot = slot;
            steps
        };
        for slot in [
            0,
            stack.pointer() - 8,
            stack.steps()[1].slot,
            stack.steps()[3].slot,
            stack.pointer() + (1 << 32),
            usize::MAX,
        ] {
            remember(&thread, 1000, stack.pointer(), &forged(slot), 1);
            assert_eq!(lookup(&thread, 1000, stack.pointer()), None, "{slot:#x}");
        }
    }

    #[test]
    fn the_last_stack_is_always_known_and_most_places_are_used() {
        let thread = thread();
        let stack = Stack::new(3);
        for caller in 1..=1000 {
            remember(
                &thread,
                caller,
                stack.pointer(),
                &stack.steps(),
                caller as u32,
            );
            assert_eq!(
                lookup(&thread, caller, stack.pointer()),
                Some(caller as u32)
            );
        }
        let known = (1..=1000).filter(|&caller| {
            let found = lookup(&thread, caller, stack.pointer());
            assert!(found.is_none_or(|stack| stack == caller as u32));
            found.is_some()
        });
        assert_eq!(known.count(), CACHED);
    }
}
