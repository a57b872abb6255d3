//! The lock word: its values, who may make each transition, and what each promises.
//!
//! glibc reads and writes the same word (`pthread_cond_wait`, C11, `RTLD_DEEPBIND`, processes without the
//! preload), so the first three values are glibc's (`nptl/lowlevellock.h`, glibc 2.36), and the fourth must be
//! harmless to code that knows only "greater than 1 means contended".
//!
//! | value | held | meaning for unlock |
//! |---|---|---|
//! | [`UNLOCKED`] 0 | no | |
//! | [`LOCKED`] 1 | yes | nobody is owed a wake |
//! | [`CONTENDED`] 2 | yes | a waiter may sleep on the word: unlock owes one wake |
//! | [`ATTENDED`] 3 | yes | as 2, but an awake waiter (the attendant) has taken the duty over: unlock owes no wake |
//! | [`HUNGRY`] 4 | yes | as 3, and the attendant has been passed over: after its release the unlocker steps back for a moment |
//! | [`STARVING`] 5 | yes | as 2, and the sleeper has been passed over: after its wake the unlocker steps back until the sleeper can have come |
//!
//! | transition | by | promise |
//! |---|---|---|
//! | 0 → 1 | any locker | Acquire: sees what the unlocker published |
//! | 0 → 2 | a waiter with the duty to wake; every glibc waiter | Acquire; its own unlock will wake |
//! | 1, 3, 4, 5 → 2 | a waiter about to sleep on the word, or one that gives its duty back | legal at any time while held |
//! | 2, 5 → 3 | the attendant | it has the duty to wake now, and keeps it until it writes 2 |
//! | 1, 2, 3, 5 → 4 | the attendant | as 2 → 3 |
//! | 1, 2, 3, 4 → 5 | the attendant, about to sleep | as → 2 |
//! | any → 2 | a glibc waiter's exchange (old value 0: it holds the lock now) | erases an attendant's mark: one more wake, none less |
//! | 1 to 5 → 0 | the holder's one exchange | Release; the old value alone says what unlock owes |

/// Free.
pub const UNLOCKED: u32 = 0;
/// Held; nobody sleeps on the word.
pub const LOCKED: u32 = 1;
/// Held; a waiter may be asleep on the word and unlock owes a wake.
pub const CONTENDED: u32 = 2;
/// Held; a waiter may be asleep on the word, and an awake waiter owes the wake.
pub const ATTENDED: u32 = 3;
/// As [`ATTENDED`]; the attendant asks the holder to step back once after its release.
pub const HUNGRY: u32 = 4;
/// As [`CONTENDED`]; the sleeper asks the holder to step back once after its release.
pub const STARVING: u32 = 5;

/// Whether some thread holds a mutex with this word.
#[inline]
#[must_use]
pub const fn is_held(word: u32) -> bool {
    word != UNLOCKED
}

/// Whether our unlock owes a wake, given the value that its exchange returned.
///
/// Values that only a stray write could have put there count as contended, as they do in glibc.
#[inline]
#[must_use]
pub const fn unlock_owes_wake(old: u32) -> bool {
    old > LOCKED && old != ATTENDED && old != HUNGRY
}

/// Whether glibc's unlock wakes a waiter, given the value that its exchange returned.
#[inline]
#[must_use]
pub const fn glibc_unlock_wakes(old: u32) -> bool {
    old > LOCKED
}

/// The value with which a waiter acquires a free word.
///
/// With the duty to wake, the acquisition passes it on to the holder's own unlock.
#[inline]
#[must_use]
pub const fn acquired(duty: bool) -> u32 {
    if duty { CONTENDED } else { LOCKED }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_contended_and_unknown_values_owe_a_wake() {
        assert!(!unlock_owes_wake(UNLOCKED));
        assert!(!unlock_owes_wake(LOCKED));
        assert!(unlock_owes_wake(CONTENDED));
        assert!(!unlock_owes_wake(ATTENDED));
        assert!(!unlock_owes_wake(HUNGRY));
        assert!(unlock_owes_wake(STARVING));
        assert!(unlock_owes_wake(6));
        assert!(unlock_owes_wake(u32::MAX));
    }

    #[test]
    fn glibc_wakes_at_least_whenever_we_do() {
        for old in [
            UNLOCKED,
            LOCKED,
            CONTENDED,
            ATTENDED,
            HUNGRY,
            STARVING,
            6,
            u32::MAX,
        ] {
            assert!(!unlock_owes_wake(old) || glibc_unlock_wakes(old), "{old}");
        }
    }

    #[test]
    fn every_acquired_value_is_held() {
        assert!(is_held(acquired(false)));
        assert!(is_held(acquired(true)));
        assert!(!unlock_owes_wake(acquired(false)));
        assert!(unlock_owes_wake(acquired(true)));
    }
}
