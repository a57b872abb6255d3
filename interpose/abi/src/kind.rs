//! Mutex kinds as glibc encodes them in `__kind`, and which of them run on our algorithm.
//!
//! Source: glibc 2.36, `sysdeps/nptl/pthread.h`, `nptl/pthreadP.h`, `sysdeps/nptl/bits/struct_mutex.h`.

/// `PTHREAD_MUTEX_NORMAL`, glibc's `TIMED`.
pub const NORMAL: u32 = 0;
/// `PTHREAD_MUTEX_RECURSIVE`.
pub const RECURSIVE: u32 = 1;
/// `PTHREAD_MUTEX_ERRORCHECK`.
pub const ERRORCHECK: u32 = 2;
/// `PTHREAD_MUTEX_ADAPTIVE_NP`.
pub const ADAPTIVE: u32 = 3;
/// The bit of `PTHREAD_MUTEX_ROBUST`: delegated.
pub const ROBUST: u32 = 0x10;
/// The bit of `PTHREAD_PRIO_INHERIT`: delegated.
pub const PRIO_INHERIT: u32 = 0x20;
/// The bit of `PTHREAD_PRIO_PROTECT`: delegated.
pub const PRIO_PROTECT: u32 = 0x40;
/// The bit of `PTHREAD_PROCESS_SHARED`.
pub const SHARED: u32 = 0x80;
/// glibc's type mask: everything but the process-shared bit and the elision flags.
pub const TYPE_MASK: u32 = 0x7f;

/// Set by `pthread_mutexattr_settype(NORMAL)`: no lock elision.
pub const NO_ELISION: u32 = 0x200;

/// The integer in a `pthread_mutexattr_t` (glibc 2.36, `nptl/pthreadP.h`): the kind, and these.
pub mod attributes {
    /// `PTHREAD_PROCESS_SHARED`.
    pub const SHARED: u32 = 0x8000_0000;
    /// `PTHREAD_MUTEX_ROBUST`.
    pub const ROBUST: u32 = 0x4000_0000;
    /// The protocol: none is 0.
    pub const PROTOCOL: u32 = 0x3000_0000;
    /// The priority ceiling.
    pub const CEILING: u32 = 0x00ff_f000;
}

/// The `__kind` of a mutex with these attributes, or `None` if such a mutex is glibc's to make.
#[must_use]
pub const fn from_attributes(raw: u32) -> Option<u32> {
    use attributes::{CEILING, PROTOCOL, ROBUST, SHARED as SHARED_ATTRIBUTE};
    if raw & (ROBUST | PROTOCOL) != 0 {
        return None;
    }
    let kind = raw & !(SHARED_ATTRIBUTE | CEILING);
    if matches!(dispatch(kind), Dispatch::Delegate) {
        return None;
    }
    Some(if raw & SHARED_ATTRIBUTE != 0 {
        kind | SHARED
    } else {
        kind
    })
}

/// What a lock or unlock call has to do with a mutex of some kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// NORMAL and ADAPTIVE: the owner is recorded and never checked.
    Plain,
    /// RECURSIVE: counts the owner's acquisitions.
    Recursive,
    /// ERRORCHECK: checks the owner.
    ErrorCheck,
    /// Everything else (robust, priority protocols, destroyed, garbage): glibc's own function decides.
    Delegate,
}

/// Sorts a `__kind` value; the elision flags (0x100, 0x200) and the process-shared bit do not matter here.
#[inline]
#[must_use]
pub const fn dispatch(kind: u32) -> Dispatch {
    match kind & TYPE_MASK {
        NORMAL | ADAPTIVE => Dispatch::Plain,
        RECURSIVE => Dispatch::Recursive,
        ERRORCHECK => Dispatch::ErrorCheck,
        _ => Dispatch::Delegate,
    }
}

/// Whether the kind is RECURSIVE or ERRORCHECK: handled by us, and its calls look at the owner.
#[inline]
#[must_use]
pub const fn checks_owner(kind: u32) -> bool {
    let basic = kind & TYPE_MASK;
    basic == RECURSIVE || basic == ERRORCHECK
}

/// `__count` after the first acquisition of a kind that checks its owner: 1 for RECURSIVE, 0 for ERRORCHECK.
#[inline]
#[must_use]
pub const fn first_count(kind: u32) -> u32 {
    kind & 1 // RECURSIVE is 1, ERRORCHECK 2.
}

/// Whether threads of other processes may use the mutex.
#[inline]
#[must_use]
pub const fn is_shared(kind: u32) -> bool {
    kind & SHARED != 0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_basic_kinds_are_handled() {
        assert_eq!(dispatch(NORMAL), Dispatch::Plain);
        assert_eq!(dispatch(ADAPTIVE | SHARED), Dispatch::Plain);
        assert_eq!(dispatch(RECURSIVE), Dispatch::Recursive);
        assert_eq!(dispatch(ERRORCHECK | 0x200), Dispatch::ErrorCheck);
        for special in [ROBUST, PRIO_INHERIT, PRIO_PROTECT] {
            for basic in [NORMAL, RECURSIVE, ERRORCHECK, ADAPTIVE] {
                assert_eq!(dispatch(special | basic), Dispatch::Delegate);
            }
        }
    }

    #[test]
    fn attributes_decide_who_makes_a_mutex() {
        assert_eq!(from_attributes(NORMAL), Some(NORMAL));
        assert_eq!(
            from_attributes(NO_ELISION | attributes::SHARED),
            Some(NO_ELISION | SHARED)
        );
        assert_eq!(
            from_attributes(RECURSIVE | attributes::CEILING),
            Some(RECURSIVE)
        );
        assert_eq!(from_attributes(attributes::ROBUST | RECURSIVE), None);
        assert_eq!(from_attributes(0x1000_0000), None);
    }

    #[test]
    fn only_recursive_mutexes_count() {
        assert_eq!(first_count(RECURSIVE | SHARED), 1);
        assert_eq!(first_count(ERRORCHECK | SHARED), 0);
        assert!(checks_owner(RECURSIVE) && checks_owner(ERRORCHECK | SHARED));
        assert!(
            !checks_owner(NORMAL) && !checks_owner(ADAPTIVE) && !checks_owner(ROBUST | RECURSIVE)
        );
    }

    #[test]
    fn a_destroyed_mutex_goes_to_glibc() {
        // glibc's pthread_mutex_destroy leaves -1 in __kind.
        assert_eq!(dispatch(u32::MAX), Dispatch::Delegate);
    }
}
