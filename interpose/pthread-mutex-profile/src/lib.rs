//! `libpthread-mutex-profile.so`: the exported symbols, in one table, and the start and end of the library's life.
#![no_std]

// Without std nothing else asks for libc when the libc crate has its `std` feature, which another crate of the same build may turn on.
#[link(name = "c")]
unsafe extern "C" {}

/// Nothing in this library panics on purpose; if something does, the program is beyond saving.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes nothing and does not return.
    unsafe { libc::abort() }
}
