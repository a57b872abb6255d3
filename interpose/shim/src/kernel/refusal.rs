//! Why a process has no slots: for the statistics and `autolock doctor`.

use core::ffi::c_int;

/// Why there are no slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refusal {
    NotAsked,
    NoKernel,
    SwitchedOff,
    Filtered,
    Full,
    NoMemory,
    Mute,
    Stranger,
}

impl Refusal {
    pub(super) const ALL: [Self; 8] = [
        Self::NotAsked,
        Self::NoKernel,
        Self::SwitchedOff,
        Self::Filtered,
        Self::Full,
        Self::NoMemory,
        Self::Mute,
        Self::Stranger,
    ];

    /// Counted from 1.
    pub(crate) fn by_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NotAsked => "the kernel is not asked",
            Self::NoKernel => "this kernel has no autolocks",
            Self::SwitchedOff => "the sysctl kernel.auto_lock is 0",
            Self::Filtered => {
                "there is, or may be, a seccomp filter that ends the program for a system call that it does not know"
            }
            Self::Full => "the kernel has no slot left for this process",
            Self::NoMemory => "there is no memory for the kernel's slots",
            Self::Mute => "this kernel's autolocks do not say when the program enters a sandbox",
            Self::Stranger => "this kernel's autolocks are of another version",
        }
    }

    /// What an error of `auto_lock_create` means.
    pub(super) const fn of(error: c_int) -> Self {
        match error {
            libc::ENOSYS => Self::NoKernel,
            // A filter answers so, too.
            libc::EPERM => Self::SwitchedOff,
            libc::ENOSPC => Self::Full,
            libc::ENOMEM => Self::NoMemory,
            _ => Self::Stranger,
        }
    }
}
