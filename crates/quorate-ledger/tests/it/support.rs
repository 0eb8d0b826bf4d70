//! Servers that tests share, clients of a ledger in a store, and how to wait for them.

pub(crate) mod long;
pub(crate) mod race;

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::shared::SharedLedger;
use quorate_ledger::{AppendError, Appended, Ledger, ReadError};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Servers that several tests use at the same time. They end with the last of those.
pub(crate) struct Kept<T> {
    /// What is to be known of them.
    pub(crate) told: T,
    /// Dropped first, which ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do but to end the servers.
            drop(thread.join());
        }
    }
}

impl<T: Send + 'static> Kept<T> {
    /// A server ends with the thread that started it, and tests have threads of their own: these get one that lives as
    /// long as they do.
    fn start<S>(start: impl FnOnce() -> (S, T) + Send + 'static) -> Self {
        let (end, ended) = channel::<()>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let (servers, about) = start();
            tell.send(about).expect("somebody waits");
            // Nothing is ever sent: it ends when the sender is dropped.
            let _ = ended.recv();
            drop(servers);
        });
        Self {
            told: told.recv().expect("the servers come up"),
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// Those that are used now, or new ones.
    pub(crate) fn shared<S>(
        now: &Mutex<Weak<Self>>,
        start: impl FnOnce() -> (S, T) + Send + 'static,
    ) -> Arc<Self> {
        let mut now = now.lock().expect("nobody failed to start them");
        now.upgrade().unwrap_or_else(|| {
            let kept = Arc::new(Self::start(start));
            *now = Arc::downgrade(&kept);
            kept
        })
    }
}

/// A number that nobody has used.
pub(crate) fn fresh() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// The ledger at an address.
pub(crate) fn open_at(address: &str) -> SharedLedger {
    SharedLedger::open(&address.parse().expect("an address")).expect("it is fit")
}

/// Waits, with the limit of all these tests.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("{what} took more than {PATIENCE:?}"))
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    within(what, async {
        while !is_so() {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
}

/// The entry that these tests append at a position.
pub(crate) fn text(position: u64) -> Vec<u8> {
    format!("entry {position}").into_bytes()
}

/// An error and all its causes.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Appends an entry that nobody else has at a position until it is known who has it; whether it is this one.
pub(crate) async fn claim(ledger: &SharedLedger, position: u64, entry: &[u8]) -> bool {
    let at = Position(position);
    within("an append", async {
        loop {
            match ledger.append(at, Epoch(1), entry.to_vec()).await {
                Ok(Appended::Appended) => return true,
                Ok(Appended::PositionTaken) => {
                    return entries(ledger, position, 1).await == [entry];
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    })
    .await
}

/// Appends [`text`] at a position.
pub(crate) async fn append(ledger: &SharedLedger, position: u64) {
    let mine = claim(ledger, position, &text(position)).await;
    assert!(mine, "position {position} was taken");
}

/// Appends [`text`] at these positions, one after the other.
pub(crate) async fn fill(ledger: &SharedLedger, positions: impl Iterator<Item = u64>) {
    for position in positions {
        append(ledger, position).await;
    }
}

/// The first free position.
pub(crate) async fn next(ledger: &SharedLedger) -> u64 {
    within("a tail", async {
        loop {
            match ledger.tail().await {
                Ok(tail) => return tail.next.0,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    })
    .await
}

/// So many entries from a position on.
pub(crate) async fn entries(ledger: &SharedLedger, from: u64, count: usize) -> Vec<Vec<u8>> {
    within("a read", async {
        let mut all = Vec::new();
        while all.len() < count {
            let at = Position(from + all.len() as u64);
            match ledger.read(at, count - all.len()).await {
                Ok(found) => all.extend(found.into_iter().map(|committed| committed.entry)),
                Err(error @ ReadError::Trimmed { .. }) => panic!("{error}"),
                Err(ReadError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
            }
        }
        all
    })
    .await
}

/// Why an append is certainly not done.
pub(crate) async fn refusal(ledger: &SharedLedger, position: u64) -> String {
    let append = ledger.append(Position(position), Epoch(1), text(position));
    match within("an append", append).await {
        Err(error @ AppendError::Refused { .. }) => whole(&error),
        other => panic!("an append that cannot be was answered by {other:?}"),
    }
}

/// Waits for a hint that a position is occupied.
pub(crate) async fn hinted(ledger: &SharedLedger, position: u64) {
    let mut hints = ledger.hints();
    let told = hints.wait_for(|hints| hints.occupied >= Position(position));
    within("a hint", told).await.expect("it follows");
}
