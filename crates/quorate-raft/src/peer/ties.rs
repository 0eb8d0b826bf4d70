//! Which directors have a connection to this one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

/// Counts the connections that others have made, and tells whose last one has ended.
#[derive(Debug)]
pub(crate) struct Ties {
    open: Mutex<BTreeMap<u64, u32>>,
    lost: mpsc::Sender<u64>,
}

/// One connection, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Tie<'a> {
    ties: &'a Ties,
    node: u64,
}

impl Ties {
    /// Nobody is connected; whose last connection ends is told to the receiver, unless it has too much to do.
    pub(crate) fn new() -> (Self, mpsc::Receiver<u64>) {
        // As many as a quorum has members.
        let (lost, told) = mpsc::channel(8);
        let open = Mutex::new(BTreeMap::new());
        (Self { open, lost }, told)
    }

    /// Whether this director is connected.
    pub(crate) fn has(&self, node: u64) -> bool {
        self.open().contains_key(&node)
    }

    pub(super) fn tie(&self, node: u64) -> Tie<'_> {
        *self.open().entry(node).or_default() += 1;
        Tie { ties: self, node }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, u32>> {
        // Each change under this lock is whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tie<'_> {
    fn drop(&mut self) {
        let mut open = self.ties.open();
        let Some(count) = open.get_mut(&self.node) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            open.remove(&self.node);
            // When it is not taken the usual time is waited.
            let _told = self.ties.lost.try_send(self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_last_connection_is_told() {
        let (ties, mut lost) = Ties::new();
        let first = ties.tie(7);
        let second = ties.tie(7);
        let other = ties.tie(8);
        drop(first);
        assert!(ties.has(7));
        assert!(lost.try_recv().is_err());
        drop(second);
        assert!(!ties.has(7) && ties.has(8));
        assert_eq!(lost.try_recv(), Ok(7));
        drop(other);
        assert_eq!(lost.try_recv(), Ok(8));
    }
}
