//! A stack of indices that any thread may push to and pop from, without a lock.
//!
//! Treiber, "Systems programming: coping with parallelism", IBM RJ 5118, 1986; with a number beside the head that changes with every exchange, so
//! that a compare-exchange does not take a stack for the same that went away and came back (ABA). What is in the stack must stay mapped.

use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// 1 + the top's index (0: empty) in the low half, the number in the high half.
#[derive(Debug)]
pub struct Stack(AtomicU64);

impl Stack {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Puts an index on top; `link` is its own until it is popped.
    pub fn push(&self, index: u32, link: &AtomicU32) {
        let mut head = self.0.load(Relaxed);
        loop {
            link.store(head as u32, Relaxed);
            match self.exchange(head, index.wrapping_add(1)) {
                Ok(()) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes the top index; `link_of` gives the link of any index that was ever pushed.
    pub fn pop(&self, link_of: impl Fn(u32) -> &'static AtomicU32) -> Option<u32> {
        let mut head = self.0.load(Acquire);
        loop {
            let top = (head as u32).checked_sub(1)?;
            // May be stale, if another thread pops at the same time: then the exchange fails.
            let rest = link_of(top).load(Relaxed);
            match self.exchange(head, rest) {
                Ok(()) => return Some(top),
                Err(now) => head = now,
            }
        }
    }

    /// Forgets everything; no other thread exists.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// AcqRel: a popper reads what the pusher wrote to the link and to what the index stands for.
    fn exchange(&self, old: u64, top: u32) -> Result<(), u64> {
        let number = (old >> 32).wrapping_add(1) << 32;
        self.0
            .compare_exchange_weak(old, number | u64::from(top), AcqRel, Acquire)
            .map(drop)
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: usize = 64;
    static LINK: [AtomicU32; LINKS] = [const { AtomicU32::new(0) }; LINKS];

    fn link(index: u32) -> &'static AtomicU32 {
        &LINK[index as usize]
    }

    #[test]
    fn every_index_is_with_one_thread_at_a_time() {
        static STACK: Stack = Stack::new();
        static TAKEN: [AtomicU32; LINKS] = [const { AtomicU32::new(0) }; LINKS];
        assert_eq!(STACK.pop(link), None);
        (0..LINKS as u32).for_each(|index| STACK.push(index, link(index)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    for _ in 0..20_000 {
                        let two = [STACK.pop(link), STACK.pop(link)];
                        for index in two.into_iter().flatten() {
                            assert_eq!(TAKEN[index as usize].swap(1, Relaxed), 0);
                            TAKEN[index as usize].store(0, Relaxed);
                            STACK.push(index, link(index));
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().expect("thread"));
        let mut left: Vec<_> = std::iter::from_fn(|| STACK.pop(link)).collect();
        left.sort_unstable();
        assert!(left.into_iter().eq(0..LINKS as u32));
    }
}
