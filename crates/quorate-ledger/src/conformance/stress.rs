//! Many clients at once, and a checker of what they saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_core::ids::Position;
use tokio::task::JoinSet;

use super::Stand;
use super::client::{Claim, claim, read_all, tail};
use crate::{Ledger, Tail};

const WRITERS: u64 = 4;
const WATCHERS: usize = 2;
const ENTRIES: u64 = 25;

/// What one client saw, between two ticks of a clock that all share.
#[derive(Debug)]
struct Saw {
    began: u64,
    ended: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Appended { at: Position, entry: Vec<u8> },
    Tail(Tail),
}

/// Writers race for positions while others watch the tail; all of it fits one order of events.
pub async fn concurrent_writers_and_readers_see_one_history<S: Stand>(stand: &S) {
    let clients = usize::try_from(WRITERS).unwrap_or(0) + WATCHERS;
    let clock = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let ledgers = stand.fresh(clients).await;
    for (number, ledger) in (0..).zip(&ledgers) {
        let (ledger, clock, done) = (Arc::clone(ledger), Arc::clone(&clock), Arc::clone(&done));
        if number < WRITERS {
            tasks.spawn(async move {
                let saw = write(&*ledger, number, &clock).await;
                done.fetch_add(1, Ordering::SeqCst);
                saw
            });
        } else {
            tasks.spawn(async move { watch(&*ledger, &clock, &done).await });
        }
    }
    let mut history = Vec::new();
    while let Some(saw) = tasks.join_next().await {
        match saw {
            Ok(saw) => history.extend(saw),
            Err(error) => panic!("a client failed: {error}"),
        }
    }
    let Some(ledger) = ledgers.first() else {
        panic!("the stand gave no ledger")
    };
    check(&**ledger, &history).await;
}

fn tick(clock: &AtomicU64) -> u64 {
    clock.fetch_add(1, Ordering::SeqCst)
}

/// The epoch of a test entry is told by its first bytes, so that the checker knows it.
async fn write<L: Ledger>(ledger: &L, writer: u64, clock: &AtomicU64) -> Vec<Saw> {
    let mut saw = Vec::new();
    for count in 0..ENTRIES {
        let epoch = 1 + writer * ENTRIES + count;
        let entry = epoch.to_be_bytes().to_vec();
        let mut at = tail(ledger).await.next;
        let began = tick(clock);
        while claim(ledger, at, epoch, &entry).await == Claim::Others {
            at = tail(ledger).await.next.max(at.next());
        }
        saw.push(Saw {
            began,
            ended: tick(clock),
            what: What::Appended { at, entry },
        });
    }
    saw
}

async fn watch<L: Ledger>(ledger: &L, clock: &AtomicU64, done: &AtomicU64) -> Vec<Saw> {
    let mut saw = Vec::new();
    while done.load(Ordering::SeqCst) < WRITERS {
        let began = tick(clock);
        let tail = tail(ledger).await;
        saw.push(Saw {
            began,
            ended: tick(clock),
            what: What::Tail(tail),
        });
    }
    saw
}

async fn check<L: Ledger>(ledger: &L, history: &[Saw]) {
    let end = tail(ledger).await.next;
    let log: BTreeMap<Position, Vec<u8>> = read_all(ledger, Position(1), end)
        .await
        .into_iter()
        .map(|committed| (committed.position, committed.entry))
        .collect();

    // Every entry once, where its writer was told.
    assert_eq!(
        log.len() as u64,
        WRITERS * ENTRIES,
        "each entry is there once"
    );
    for saw in history {
        if let What::Appended { at, entry } = &saw.what {
            assert_eq!(log.get(at), Some(entry), "position {at} is its winner's");
        }
    }

    // A tail is true at some moment between its ticks.
    for saw in history {
        let What::Tail(tail) = &saw.what else {
            continue;
        };
        if tail.next > Position(1) {
            let last = log.get(&Position(tail.next.0 - 1));
            let epoch = tail.epoch.0.to_be_bytes().to_vec();
            assert_eq!(
                last,
                Some(&epoch),
                "{tail:?} tells the epoch of its last entry"
            );
        }
        for other in history {
            match &other.what {
                What::Appended { at, .. } if other.ended < saw.began => {
                    assert!(
                        *at < tail.next,
                        "{tail:?} misses {at}, answered before it began"
                    );
                }
                What::Appended { at, .. } if saw.ended < other.began => {
                    assert!(
                        *at >= tail.next,
                        "{tail:?} shows {at}, which began after it ended"
                    );
                }
                What::Tail(earlier) if other.ended < saw.began => {
                    assert!(earlier.next <= tail.next, "the tail went back to {tail:?}");
                }
                What::Appended { .. } | What::Tail(_) => {}
            }
        }
    }
}
