//! A cluster of directors on this machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use quorate_core::ids::{DirectorName, Epoch, Position};
use quorate_ledger::{AppendError, Appended, Hints, Ledger};
use tempfile::TempDir;

use super::papers::Authority;
use super::proxy::{Net, Proxy, source};
use crate::{ChangeError, Embedded, Options, Peers, Start, Timing, ids};

/// How long anything may take on a busy machine before it is called stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);

/// Slower than on a LAN: tests share a busy machine and are not built to be fast.
pub(super) const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(80),
    election_min: Duration::from_millis(300),
    election_max: Duration::from_millis(600),
    priority: Timing::FIRST,
};

/// One director.
pub(super) struct Node {
    pub(super) name: DirectorName,
    pub(super) id: u64,
    pub(super) folder: TempDir,
    pub(super) priority: u8,
    pub(super) proxy: Proxy,
    start: Start,
    ledger: Option<Arc<Embedded>>,
}

pub(super) struct Cluster {
    pub(super) authority: Authority,
    pub(super) id: u64,
    pub(super) net: Net,
    pub(super) nodes: Vec<Node>,
    timing: Timing,
}

/// Waits for a condition with a limit.
pub(super) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    match waited.await {
        Ok(found) => found,
        Err(_) => panic!("{what} took more than {PATIENCE:?}"),
    }
}

pub(super) fn entry(position: u64) -> Vec<u8> {
    let length = usize::try_from(position * 7 % 90).unwrap();
    let mut entry = format!("{position}:").into_bytes();
    entry.resize(entry.len() + length, b'x');
    entry
}

impl Node {
    /// What it is told to become when its folder is new again.
    pub(super) fn restart_as(&mut self, start: Start) {
        self.start = start;
    }
}

impl Cluster {
    /// A cluster of one.
    pub(super) async fn found() -> Self {
        Self::found_with(TIMING).await
    }

    async fn found_with(timing: Timing) -> Self {
        let mut cluster = Self {
            timing,
            authority: Authority::new(),
            id: 0,
            net: Net::new(),
            nodes: Vec::new(),
        };
        let first = cluster.open_new(Start::Found).await;
        cluster.leader_among(&[first]).await;
        cluster
    }

    /// A cluster of so many voters.
    pub(super) async fn of(voters: usize) -> Self {
        Self::of_with(voters, TIMING).await
    }

    /// The same at another pace.
    pub(super) async fn of_with(voters: usize, timing: Timing) -> Self {
        let mut cluster = Self::found_with(timing).await;
        for _ in 1..voters {
            cluster.join().await;
        }
        let all: Vec<usize> = (0..voters).collect();
        cluster.vote(&all).await;
        cluster
    }

    /// Opens a director with a new folder.
    pub(super) async fn open_new(&mut self, start: Start) -> usize {
        let number = self.nodes.len();
        let name = DirectorName::new(&format!("d{}", number + 1)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let minted = ids(folder.path(), &name, start).unwrap();
        self.id = minted.cluster;
        let node = Node {
            name,
            id: minted.node,
            folder,
            priority: Timing::FIRST,
            proxy: Proxy::new(number, &self.net).await,
            start,
            ledger: None,
        };
        self.nodes.push(node);
        self.start(number).await;
        number
    }

    /// Opens another director and adds it as a learner.
    pub(super) async fn join(&mut self) -> usize {
        let cluster = self.id;
        let number = self.open_new(Start::Await { cluster }).await;
        self.add(number).await;
        number
    }

    /// Adds a director that waits for it.
    pub(super) async fn add(&self, number: usize) {
        let node = &self.nodes[number];
        let address = node.proxy.address.to_string();
        self.change("a learner is added", async |leader| {
            leader.add_learner(node.id, &node.name, &address).await
        })
        .await;
    }

    /// Makes these the voters.
    pub(super) async fn vote(&self, voters: &[usize]) {
        let voters: BTreeSet<u64> = voters.iter().map(|number| self.nodes[*number].id).collect();
        self.change("the voters are changed", async |leader| {
            leader.change_voters(voters.clone()).await
        })
        .await;
    }

    /// Changes the members at whoever leads, until it is done.
    pub(super) async fn change(
        &self,
        what: &str,
        mut change: impl AsyncFnMut(&Embedded) -> Result<(), ChangeError>,
    ) {
        until(what, async || {
            let leader = self.leads_now()?;
            match change(&self.ledger(leader)).await {
                Ok(()) => Some(()),
                Err(
                    ChangeError::NotLeading { .. }
                    | ChangeError::InProgress
                    | ChangeError::Behind { .. }
                    | ChangeError::Unknown(_),
                ) => None,
                Err(error) => panic!("{what}: {error}"),
            }
        })
        .await;
    }

    pub(super) fn options(&self, number: usize) -> Options {
        let node = &self.nodes[number];
        let peers = Peers {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            from: Some(source(number)),
            tls: self.authority.director(self.id, node.name.as_str()),
        };
        Options {
            address: node.proxy.address.to_string(),
            start: node.start,
            peers: Some(peers),
            timing: Timing {
                priority: node.priority,
                ..self.timing
            },
            segment_bytes: 64 * 1024,
            ..Options::new(node.folder.path().to_owned(), node.name.clone())
        }
    }

    /// Opens a director that is down.
    pub(super) async fn start(&mut self, number: usize) {
        let options = self.options(number);
        let ledger = Arc::new(Embedded::open(options).await.unwrap());
        assert_eq!(ledger.node_id(), self.nodes[number].id);
        let node = &mut self.nodes[number];
        node.proxy.lead_to(ledger.peer_address());
        node.ledger = Some(ledger);
    }

    /// Ends a director in good order.
    pub(super) async fn stop(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.proxy.lead_to(None);
        node.ledger.take().unwrap().shutdown().await;
    }

    /// Ends a director without a word.
    pub(super) fn crash(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.proxy.lead_to(None);
        let ledger = node.ledger.take().unwrap();
        assert_eq!(Arc::strong_count(&ledger), 1, "nobody else keeps it alive");
    }

    pub(super) fn ledger(&self, number: usize) -> Arc<Embedded> {
        let ledger = self.nodes[number].ledger.as_ref();
        Arc::clone(ledger.unwrap_or_else(|| panic!("director {number} is up")))
    }

    /// The term that a director is in.
    pub(super) fn term(&self, number: usize) -> u64 {
        let metrics = self.ledger(number).raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.current_term
    }

    pub(super) fn up(&self) -> Vec<usize> {
        let up = |number: &usize| self.nodes[*number].ledger.is_some();
        (0..self.nodes.len()).filter(up).collect()
    }

    /// Who says that it should lead.
    pub(super) fn leads_now(&self) -> Option<usize> {
        let leads = |number: &usize| {
            let hints = self.ledger(*number).hints();
            let hints = hints.borrow();
            hints.should_lead == Some(true)
        };
        self.up().into_iter().find(leads)
    }

    /// Waits until one of all that are up leads.
    pub(super) async fn leader(&self) -> usize {
        self.leader_among(&self.up()).await
    }

    /// Waits until one of these leads.
    pub(super) async fn leader_among(&self, among: &[usize]) -> usize {
        until("a leader", async || {
            let leads =
                |number: &&usize| self.ledger(**number).hints().borrow().should_lead == Some(true);
            among.iter().find(leads).copied()
        })
        .await
    }

    /// Appends one entry through whoever of these leads, whatever it takes, and gives its position.
    pub(super) async fn append_among(&self, among: &[usize]) -> u64 {
        until("an append", async || {
            let leader = self.leader_among(among).await;
            append_at_tail(&self.ledger(leader)).await
        })
        .await
    }

    /// Appends so many entries through whoever leads.
    pub(super) async fn fill(&self, count: u64) -> u64 {
        let mut last = 0;
        for _ in 0..count {
            last = self.append_among(&self.up()).await;
        }
        last
    }

    /// Waits until these have everything up to a position, and checks each entry that they still have.
    pub(super) async fn check(&self, among: &[usize], last: u64) {
        for number in among {
            let ledger = self.ledger(*number);
            let next = until("a director catches up", async || {
                let next = ledger.tail().await.ok()?.next.0;
                (next > last).then_some(next)
            })
            .await;
            check_entries(&ledger, next).await;
        }
    }

    /// Waits until these are voters for everybody that is up, and nobody else is.
    pub(super) async fn agree_on_voters(&self, voters: &[usize]) {
        let voters: BTreeSet<u64> = voters.iter().map(|number| self.nodes[*number].id).collect();
        for number in self.up() {
            let ledger = self.ledger(number);
            until("everybody knows the voters", async || {
                (voters_of(&ledger) == voters).then_some(())
            })
            .await;
        }
    }
}

/// Waits until the hints of a director are such, and lets go of them.
pub(super) async fn hinted(ledger: &Embedded, such: impl FnMut(&Hints) -> bool) {
    let mut hints = ledger.hints();
    let waited = tokio::time::timeout(PATIENCE, hints.wait_for(such)).await;
    assert!(matches!(waited, Ok(Ok(_))), "the hint came");
}

pub(super) fn voters_of(ledger: &Embedded) -> BTreeSet<u64> {
    let members = ledger.members().into_iter();
    members
        .filter(|member| member.voter)
        .map(|member| member.id)
        .collect()
}

/// Appends one entry behind the last one; `None` when it has to be tried again.
pub(super) async fn append_at_tail(ledger: &Embedded) -> Option<u64> {
    let at = ledger.tail().await.ok()?.next;
    match ledger.append(at, Epoch(1), entry(at.0)).await {
        Ok(Appended::Appended) => Some(at.0),
        Ok(Appended::PositionTaken)
        | Err(AppendError::Refused { .. } | AppendError::OutcomeUnknown { .. }) => None,
    }
}

/// Checks that the entries that are left are one after the other, up to `next`.
pub(super) async fn check_entries(ledger: &Embedded, next: u64) {
    let mut position = match ledger.read(Position(1), 1).await {
        Ok(_) => 1,
        Err(quorate_ledger::ReadError::Trimmed { first }) => first.0,
        Err(error) => panic!("{error}"),
    };
    while position < next {
        let found = ledger.read(Position(position), 1000).await.unwrap();
        assert!(!found.is_empty(), "position {position} is there");
        for committed in found {
            assert_eq!(committed.position, Position(position));
            assert_eq!(committed.entry, entry(position), "position {position}");
            position += 1;
        }
    }
}

/// Does it and tells how long it took.
pub(super) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let done = work.await;
    (done, began.elapsed())
}
