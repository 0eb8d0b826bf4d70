//! Servers of etcd that tests share, and clients of the ledger in them.

use std::sync::{Arc, Mutex, Weak};

use quorate_ledger::shared::SharedLedger;
use quorate_servers::etcd::{EtcdCluster, is_installed};

use crate::support::{Kept, fresh};

pub(crate) use crate::support::{
    entries, eventually, fill, hinted, next, open_at, refusal, text, whole, within,
};

/// Servers; what is told of them is where each member listens.
pub(crate) type Members = Kept<Vec<String>>;

fn kept(now: &Mutex<Weak<Members>>, members: usize) -> Option<Arc<Members>> {
    is_installed().then(|| {
        Kept::shared(now, move || {
            let cluster = EtcdCluster::start(members).expect("it is installed");
            let cluster = cluster.expect("they come up");
            let hosts = cluster.hosts();
            (cluster, hosts)
        })
    })
}

/// One member; `None`, which was said, where there is no etcd.
pub(crate) fn single() -> Option<Arc<Members>> {
    static NOW: Mutex<Weak<Members>> = Mutex::new(Weak::new());
    kept(&NOW, 1)
}

/// Three members.
pub(crate) fn quorum() -> Option<Arc<Members>> {
    static NOW: Mutex<Weak<Members>> = Mutex::new(Weak::new());
    kept(&NOW, 3)
}

/// One that nobody has used.
pub(crate) fn prefix() -> String {
    format!("test/{}", fresh())
}

/// The ledger at these hosts.
pub(crate) fn open(hosts: &[String], prefix: &str) -> SharedLedger {
    open_at(&format!("etcd://{}/{prefix}", hosts.join(",")))
}
