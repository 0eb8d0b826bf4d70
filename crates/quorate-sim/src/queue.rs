//! The queue of what is to happen: by time, and in the order of being queued at one moment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Instant;

/// A queue by time. What is queued lies still in `slots`; only small keys are moved around.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    keys: BinaryHeap<Reverse<Key>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    ordinal: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            keys: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            ordinal: 0,
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn push(&mut self, at: Instant, what: T) {
        self.ordinal += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(what);
        }
        self.keys.push(Reverse(Key::new(at, self.ordinal, slot)));
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, T)> {
        let Reverse(key) = self.keys.pop()?;
        self.free.push(key.slot());
        let what = self.slots.get_mut(key.slot()).and_then(Option::take)?;
        Some((key.at(), what))
    }
}

/// When something is to happen, the ordinal of its being queued, and its slot: one number, because nothing
/// is done more often than to compare two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u128);

impl Key {
    const ORDINAL_BITS: u32 = 40;
    const SLOT_BITS: u32 = 24;

    /// # Panics
    /// When more is queued, at once or in all, than any run can have.
    fn new(at: Instant, ordinal: u64, slot: usize) -> Self {
        let slot = slot as u64;
        assert!(ordinal >> Self::ORDINAL_BITS == 0 && slot >> Self::SLOT_BITS == 0);
        let order = (ordinal << Self::SLOT_BITS) | slot;
        Self((u128::from(at.0) << 64) | u128::from(order))
    }

    fn at(self) -> Instant {
        Instant((self.0 >> 64) as u64)
    }

    fn slot(self) -> usize {
        self.0 as usize & ((1 << Self::SLOT_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_for_one_moment_keeps_its_order() {
        let mut queue = Queue::default();
        for (at, what) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b')] {
            queue.push(Instant(at), what);
        }
        let popped: Vec<char> = std::iter::from_fn(|| queue.pop())
            .map(|(_, what)| what)
            .collect();
        assert_eq!(popped, ['a', 'b', 'c', 'd']);
    }
}
