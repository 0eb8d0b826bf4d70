//! The ledger in etcd keeps the rules of every ledger: on one member, on three, and behind a bad network.

mod access;
mod detour;
mod faults;
mod limits;
mod support;

use std::sync::{Arc, Mutex, MutexGuard};

use quorate_ledger::conformance::{DurableStand, Stand};
use quorate_ledger::ledger_conformance;
use quorate_ledger::shared::SharedLedger;
use quorate_servers::etcd::EtcdCluster;

use support::{Members, open, prefix, quorum, single};

use crate::support::long;

/// Servers that all tests share, a prefix for each ledger, and another member first for each client.
struct Servers(Arc<Members>);

impl Stand for Servers {
    type Ledger = SharedLedger;

    async fn fresh(&self, clients: usize) -> Vec<Arc<SharedLedger>> {
        let prefix = prefix();
        let mut hosts = self.0.told.clone();
        let clients = (0..clients).map(|_| {
            hosts.rotate_left(1);
            Arc::new(open(&hosts, &prefix))
        });
        clients.collect()
    }
}

ledger_conformance!(in_store match single() {
    Some(kept) => Servers(kept),
    None => return,
});

mod on_three_members {
    use super::{Servers, quorum};

    quorate_ledger::ledger_conformance!(in_store match quorum() {
        Some(kept) => Servers(kept),
        None => return,
    });
}

mod behind_a_bad_network {
    use quorate_ledger::conformance::BadNetwork;

    use super::{Servers, single};

    quorate_ledger::ledger_conformance!(in_store match single() {
        Some(kept) => BadNetwork(Servers(kept)),
        None => return,
    });
}

/// A server of its own, which is killed and started again.
struct OnDisk {
    server: Mutex<EtcdCluster>,
    prefix: String,
}

impl OnDisk {
    fn start() -> Option<Self> {
        Some(Self {
            server: Mutex::new(EtcdCluster::start(1)?.expect("it comes up")),
            prefix: prefix(),
        })
    }

    fn open(&self) -> Arc<SharedLedger> {
        let hosts = self.server().hosts();
        Arc::new(open(&hosts, &self.prefix))
    }

    fn server(&self) -> MutexGuard<'_, EtcdCluster> {
        self.server.lock().expect("nobody failed with it")
    }
}

impl Stand for OnDisk {
    type Ledger = SharedLedger;

    async fn fresh(&self, clients: usize) -> Vec<Arc<SharedLedger>> {
        (0..clients).map(|_| self.open()).collect()
    }
}

impl DurableStand for OnDisk {
    async fn reopen(&self, ledger: Arc<SharedLedger>) -> Arc<SharedLedger> {
        drop(ledger);
        tokio::task::block_in_place(|| {
            let mut server = self.server();
            server.kill(0).expect("it runs");
            server.restart(0).expect("it starts again");
        });
        self.open()
    }
}

ledger_conformance!(durable match OnDisk::start() {
    Some(stand) => stand,
    None => return,
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_long_log_is_left_after_another_one_has_begun() {
    let Some(started) = EtcdCluster::start(1) else {
        return;
    };
    let (cluster, prefix) = (started.expect("it comes up"), prefix());
    let ledger = open(&cluster.hosts(), &prefix);
    long::is_given_up(&ledger, long::ENTRIES, async || {
        let asked = ["get", "--prefix", &prefix, "--keys-only"];
        let keys = tokio::task::block_in_place(|| cluster.etcdctl(&asked));
        long::numbered(&prefix, keys.expect("it answers").lines())
    })
    .await;
}
