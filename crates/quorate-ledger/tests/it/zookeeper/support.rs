//! Servers, clients, and how to wait for them.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::shared::SharedLedger;
use quorate_ledger::{Appended, Ledger, ReadError, Tail};
use quorate_servers::zookeeper::ZookeeperCluster;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Servers that several tests use at the same time. They end with the last of those.
pub(crate) struct Kept {
    /// One for each member.
    pub(crate) hosts: Vec<String>,
    /// Dropped first, which ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the servers end");
        }
    }
}

impl Kept {
    /// The first member.
    pub(crate) fn host(&self) -> &str {
        self.hosts.first().expect("there is one")
    }

    /// A server ends with the thread that started it, and tests have threads of their own: these get one that lives as
    /// long as they do.
    fn start(members: usize) -> Option<Self> {
        let (end, ended) = channel::<()>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let cluster = ZookeeperCluster::start(members).expect("they come up");
            let hosts = cluster.as_ref().map(|cluster| {
                let members = 0..cluster.members();
                members.map(|member| cluster.host(member)).collect()
            });
            tell.send(hosts).expect("somebody waits");
            // Nothing is ever sent: it ends when the sender is dropped.
            let _ = ended.recv();
            drop(cluster);
        });
        let hosts: Option<Vec<String>> = told.recv().expect("the servers come up");
        Some(Self {
            hosts: hosts?,
            end: Some(end),
            thread: Some(thread),
        })
    }
}

/// What a test that failed had locked is of use to the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kept(now: &Mutex<Weak<Kept>>, members: usize) -> Option<Arc<Kept>> {
    let mut now = lock(now);
    if let Some(kept) = now.upgrade() {
        return Some(kept);
    }
    let kept = Arc::new(Kept::start(members)?);
    *now = Arc::downgrade(&kept);
    Some(kept)
}

/// One server; `None`, which was said, where there is no `ZooKeeper`.
pub(crate) fn single() -> Option<Arc<Kept>> {
    static NOW: Mutex<Weak<Kept>> = Mutex::new(Weak::new());
    kept(&NOW, 1)
}

/// Three servers.
pub(crate) fn ensemble() -> Option<Arc<Kept>> {
    static NOW: Mutex<Weak<Kept>> = Mutex::new(Weak::new());
    kept(&NOW, 3)
}

/// One that nobody has used.
pub(crate) fn prefix() -> String {
    format!("test/{:016x}", rand::random::<u64>())
}

/// The ledger at `user:password@host:port`.
pub(crate) fn open(hosts: &str, prefix: &str) -> SharedLedger {
    let address = format!("zookeeper://{hosts}/{prefix}");
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

/// Appends [`text`] at a position until it is known to be there.
pub(crate) async fn append(ledger: &SharedLedger, position: u64) {
    let (at, entry) = (Position(position), text(position));
    within("an append", async {
        loop {
            match ledger.append(at, Epoch(1), entry.clone()).await {
                Ok(Appended::Appended) => return,
                // By an earlier try, whose answer was lost.
                Ok(Appended::PositionTaken) => {
                    return assert_eq!(entries(ledger, position, 1).await, [entry]);
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    })
    .await;
}

/// Appends at these positions.
pub(crate) async fn fill(ledger: &SharedLedger, positions: impl IntoIterator<Item = u64>) {
    for position in positions {
        append(ledger, position).await;
    }
}

/// So many entries from a position on, asked for until they are told.
pub(crate) async fn entries(ledger: &SharedLedger, from: u64, count: usize) -> Vec<Vec<u8>> {
    within("a read", async {
        let mut found = Vec::new();
        while found.len() < count {
            let next = Position(from + found.len() as u64);
            match ledger.read(next, count - found.len()).await {
                Ok(more) => found.extend(more.into_iter().map(|committed| committed.entry)),
                Err(ReadError::Unavailable(_)) => {}
                Err(error @ ReadError::Trimmed { .. }) => panic!("{error}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        found
    })
    .await
}

/// Asked for until it is told.
pub(crate) async fn tail(ledger: &SharedLedger) -> Tail {
    within("a tail", async {
        loop {
            match ledger.tail().await {
                Ok(tail) => return tail,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    })
    .await
}

/// Everything of an error, with its causes.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
