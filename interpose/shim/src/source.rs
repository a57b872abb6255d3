//! Where knowledge about holders comes from, chosen once at start: the kernel's slots, autolockd's table, or user space alone.
//!
//! May touch: what [`crate::kernel`] and [`crate::ebpf`] touch; stderr at start.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use autolock_lock::oncpu::{Holder, HolderState, OnCpu};

use crate::{
    ebpf::{self, Ebpf},
    kernel,
    options::Backend,
    stats::Line,
    tcb,
};

/// The best source there was.
#[derive(Debug)]
pub struct Source;

impl OnCpu for Source {
    #[inline]
    fn thread(holder: Holder) -> HolderState {
        if kernel::is_on() {
            kernel::state_of(holder)
        } else {
            Ebpf::thread(holder)
        }
    }

    #[inline]
    fn places_are_cpus() -> bool {
        tcb::places_are_cpus()
    }
}

/// What the statistics call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The kernel's slots.
    Kernel,
    /// autolockd's table.
    Ebpf,
    /// User space alone, and why.
    User(&'static str),
}

/// How the kernel refused: 1 more than the [`kernel::Refusal`]'s number, where that is what a user who asked by name wants to know.
static REFUSAL: AtomicU8 = AtomicU8::new(0);

/// Tries the sources that are to be tried. Called once, from the preload's constructor. Says something only where one was asked for by name and is not to be had.
pub fn start(backend: Backend, socket: Option<&[u8]>) {
    let Err(refusal) = kernel::start(backend) else {
        return;
    };
    if backend == Backend::Kernel {
        REFUSAL.store(refusal as u8 + 1, Relaxed);
        let mut line = Line::default();
        let _ = writeln!(
            line,
            "autolock: AUTOLOCK_BACKEND=kernel: {}; using user space",
            refusal.text()
        );
        line.print();
        return;
    }
    ebpf::start(backend, socket);
}

/// Which one it is.
#[must_use]
pub fn name() -> Name {
    if kernel::is_on() {
        return Name::Kernel;
    }
    if let Some(why) = kernel::Refusal::by_number(REFUSAL.load(Relaxed)) {
        return Name::User(why.text());
    }
    match ebpf::source() {
        (true, _) => Name::Ebpf,
        (false, why) => Name::User(why),
    }
}
