//! Servers of `ZooKeeper` that tests share, and clients of the ledger in them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use quorate_ledger::shared::SharedLedger;
use quorate_servers::zookeeper::{ZookeeperCluster, is_installed};

use crate::support::{Kept, fresh, open_at};

pub(crate) use crate::support::{append, entries, eventually, fill, next, text, whole, within};

/// Servers; what is told of them is where each member listens.
pub(crate) type Members = Kept<Vec<String>>;

/// What a test that failed had locked is of use to the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kept(now: &Mutex<Weak<Members>>, members: usize) -> Option<Arc<Members>> {
    is_installed().then(|| {
        Kept::shared(now, move || {
            let cluster = ZookeeperCluster::start(members).expect("they come up");
            let cluster = cluster.expect("it is installed");
            let hosts = (0..cluster.members()).map(|member| cluster.host(member));
            let hosts = hosts.collect();
            (cluster, hosts)
        })
    })
}

/// One server; `None`, which was said, where there is no `ZooKeeper`.
pub(crate) fn single() -> Option<Arc<Members>> {
    static NOW: Mutex<Weak<Members>> = Mutex::new(Weak::new());
    kept(&NOW, 1)
}

/// Three servers.
pub(crate) fn ensemble() -> Option<Arc<Members>> {
    static NOW: Mutex<Weak<Members>> = Mutex::new(Weak::new());
    kept(&NOW, 3)
}

/// Where the first member listens.
pub(crate) fn first(kept: &Members) -> &str {
    kept.told.first().expect("there is one")
}

/// One that nobody has used.
pub(crate) fn prefix() -> String {
    format!("test/{}", fresh())
}

/// The ledger at `user:password@host:port`.
pub(crate) fn open(hosts: &str, prefix: &str) -> SharedLedger {
    open_at(&format!("zookeeper://{hosts}/{prefix}"))
}
