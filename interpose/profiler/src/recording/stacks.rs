//! The stack at a call of a lock function: known again, or walked.

use core::sync::atomic::Ordering::Relaxed;

use autolock_capture::{
    Recorder,
    layout::{DEPTH, Thread},
};

use super::{Caller, inside};
use crate::{
    cache,
    record::{self, Linux, Module},
    unwind::{self, Step},
};

#[cold]
#[inline(never)]
pub(super) fn stack_here(thread: &'static Thread, caller: Caller) -> u32 {
    let Some(recorder) = record::recorder() else {
        return 0;
    };
    inside(thread, || Some(stack_at(&recorder, thread, caller))).unwrap_or(0)
}

/// The stack at a call of a lock function; 0 if it is not known.
pub(super) fn stack_at(recorder: &Recorder<Linux>, thread: &Thread, caller: Caller) -> u32 {
    if let Some(stack) = cache::lookup(thread, caller.address, caller.stack_pointer) {
        return stack;
    }
    walk(recorder, thread, caller)
}

#[cold]
#[inline(never)]
fn walk(recorder: &Recorder<Linux>, thread: &Thread, caller: Caller) -> u32 {
    let mut steps = [Step::default(); DEPTH];
    let count = unwind::walk(caller.stack_pointer, &mut steps);
    let steps = match steps.get(..count) {
        Some(steps) if count != 0 => steps,
        // Not even our own frames could be walked: the caller is known all the same.
        _ => &[Step {
            address: caller.address,
            slot: caller.stack_pointer.wrapping_sub(size_of::<usize>()),
        }],
    };
    let mut frames = [0; DEPTH];
    let mut module = Module::NONE;
    for (frame, step) in frames.iter_mut().zip(steps) {
        // Callers are often in the same module.
        if !(module.start..module.end).contains(&step.address) {
            module = record::module(recorder, step.address);
        }
        *frame = module.frame(step.address);
    }
    let frames = frames.get(..steps.len()).unwrap_or(&[]);
    let stack = recorder.stack(thread.tid.load(Relaxed), frames);
    cache::remember(thread, caller.address, caller.stack_pointer, steps, stack);
    stack
}
