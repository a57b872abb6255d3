//! Modules and stacks: one item for all that are the same.

use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::{LONGEST_CHAIN, NewModule, Recorder, Room, System, mix, store_bytes};
use crate::layout::{self, DEPTH, Module, STACK_BUCKETS, Stack};

impl<S: System> Recorder<S> {
    /// The index of a module, added if it is new; 0 if there is no room.
    pub fn module(&self, tid: u32, new: &NewModule<'_>) -> u32 {
        let find = || {
            self.capture
                .all::<Module>()
                .find(|(_, module)| is_module(module, new))
                .map(|(index, _)| index)
        };
        find()
            .or_else(|| {
                self.adding(tid, || {
                    if let Some(index) = find() {
                        return Some(index);
                    }
                    let index = self.reserve::<Module>(1, Room::Rest)?;
                    let module = self.capture.place::<Module>(index)?;
                    module.base.store(new.base, Relaxed);
                    module.start.store(new.start, Relaxed);
                    module.end.store(new.end, Relaxed);
                    let length = store_bytes(&module.path, new.path);
                    module.path_length.store(length, Relaxed);
                    let length = store_bytes(&module.build_id, new.build_id);
                    module.build_id_length.store(length, Relaxed);
                    self.publish_item::<Module>(index);
                    Some(index)
                })
            })
            .unwrap_or(0)
    }

    /// The index of a stack, added if it is new; 0 if it is empty or there is no room (which is counted).
    pub fn stack(&self, tid: u32, frames: &[u64]) -> u32 {
        let frames = frames.get(..DEPTH).unwrap_or(frames);
        if frames.is_empty() {
            return 0;
        }
        let hash = frames
            .iter()
            .fold(frames.len() as u64, |hash, frame| mix(hash ^ frame));
        let Some(bucket) = self.bucket(&self.header().stack_buckets, STACK_BUCKETS, hash) else {
            return 0;
        };
        self.find_stack(bucket, hash, frames)
            .or_else(|| {
                self.adding(tid, || {
                    if let Some(found) = self.find_stack(bucket, hash, frames) {
                        return Some(found);
                    }
                    let index = self.reserve::<Stack>(1, Room::Rest)?;
                    let first = self.reserve::<AtomicU64>(frames.len() as u32, Room::Rest)?;
                    for (at, frame) in (first..).zip(frames) {
                        self.capture.place::<AtomicU64>(at)?.store(*frame, Relaxed);
                    }
                    self.publish_item::<AtomicU64>(first + frames.len() as u32 - 1);
                    let stack = self.capture.place::<Stack>(index)?;
                    stack.hash.store(hash, Relaxed);
                    stack.first.store(first, Relaxed);
                    stack.len.store(frames.len() as u32, Relaxed);
                    stack.next.store(bucket.load(Relaxed), Relaxed);
                    self.publish_item::<Stack>(index);
                    bucket.store(index, Release);
                    Some(index)
                })
            })
            .unwrap_or_else(|| {
                self.header().dropped.stacks.fetch_add(1, Relaxed);
                0
            })
    }

    fn find_stack(&self, bucket: &AtomicU32, hash: u64, frames: &[u64]) -> Option<u32> {
        let mut index = bucket.load(Acquire);
        for _ in 0..LONGEST_CHAIN {
            let stack = self.capture.get::<Stack>(index)?;
            let first = stack.first.load(Relaxed);
            if stack.hash.load(Relaxed) == hash
                && stack.len.load(Relaxed) as usize == frames.len()
                && (first..).zip(frames).all(|(at, frame)| {
                    self.capture
                        .get::<AtomicU64>(at)
                        .is_some_and(|kept| kept.load(Relaxed) == *frame)
                })
            {
                return Some(index);
            }
            index = stack.next.load(Relaxed);
        }
        None
    }

    // Locks.
}

fn is_module(module: &Module, new: &NewModule<'_>) -> bool {
    let path = new.path.get(..layout::PATH).unwrap_or(new.path);
    module.base.load(Relaxed) == new.base
        && module.start.load(Relaxed) == new.start
        && module.end.load(Relaxed) == new.end
        && module.path_length.load(Relaxed) as usize == path.len()
        && module
            .path
            .iter()
            .zip(path)
            .all(|(kept, new)| kept.load(Relaxed) == *new)
}
