//! A quorum of three keeps the rules of every ledger.
//!
//! A client is a director and, for what only the leader does, whoever leads. Each director keeps its own
//! snapshots, as each folds the log by itself; here all keep the same one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::conformance::Stand;
use quorate_ledger::{
    AppendError, Appended, Committed, Hints, Ledger, ReadError, Snapshot, Tail, ledger_conformance,
};
use tokio::sync::watch;

use super::cluster::Cluster;
use crate::Embedded;

struct Client {
    cluster: Arc<Cluster>,
    own: Arc<Embedded>,
}

impl Ledger for Client {
    async fn append(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> Result<Appended, AppendError> {
        let leader = self
            .cluster
            .leads_now()
            .ok_or_else(|| AppendError::Refused {
                at,
                cause: "nobody leads".into(),
            })?;
        let appended = self.cluster.ledger(leader).append(at, epoch, entry).await?;
        // Who asked here reads here.
        drop(self.own.tail().await);
        Ok(appended)
    }

    async fn tail(&self) -> Result<Tail, ReadError> {
        self.own.tail().await
    }

    async fn read(&self, from: Position, limit: usize) -> Result<Vec<Committed>, ReadError> {
        self.own.read(from, limit).await
    }

    async fn save_snapshot(&self, next: Position, snapshot: Vec<u8>) -> Result<(), ReadError> {
        for number in self.cluster.up() {
            let ledger = self.cluster.ledger(number);
            ledger.tail().await?;
            ledger.save_snapshot(next, snapshot.clone()).await?;
        }
        Ok(())
    }

    async fn load_snapshot(&self) -> Result<Option<Snapshot>, ReadError> {
        self.own.load_snapshot().await
    }

    fn hints(&self) -> watch::Receiver<Hints> {
        self.own.hints()
    }
}

/// Each client is another director.
#[derive(Default)]
struct Quorum(AtomicUsize);

impl Stand for Quorum {
    type Ledger = Client;

    async fn fresh(&self, clients: usize) -> Vec<Arc<Client>> {
        // On this thread: the conditions that a cluster waits for are not made to move between threads.
        let runtime = tokio::runtime::Handle::current();
        let cluster = tokio::task::block_in_place(|| runtime.block_on(Cluster::of(3)));
        let cluster = Arc::new(cluster);
        let client = |_| {
            let number = self.0.fetch_add(1, Ordering::Relaxed) % 3;
            let own = cluster.ledger(number);
            let cluster = Arc::clone(&cluster);
            Arc::new(Client { cluster, own })
        };
        (0..clients).map(client).collect()
    }
}

ledger_conformance!(Quorum::default());
