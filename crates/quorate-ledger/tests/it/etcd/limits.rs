//! What etcd forgets, has no room for, or has lost: the ledger goes on, or says what to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::{AppendError, Ledger};
use quorate_servers::etcd::{EtcdCluster, Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;

use super::support::{
    entries, eventually, fill, hinted, next, open, prefix, refusal, text, whole, within,
};

fn start(options: Options) -> Option<EtcdCluster> {
    Some(EtcdCluster::start_with(options)?.expect("it comes up"))
}

/// A way to etcd on which the first watch is made to begin with what etcd had first.
struct Detour {
    host: String,
    /// Etcd has said that it no longer has that.
    compacted: Arc<AtomicBool>,
}

impl Detour {
    async fn to(etcd: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("a port").to_string();
        let (changed, compacted) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let seen = Arc::clone(&compacted);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&etcd).await.expect("it listens");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forth(from_client, to_server, Arc::clone(&changed)));
                tokio::spawn(back(from_server, to_client, Arc::clone(&seen)));
            }
        });
        Self { host, compacted }
    }
}

async fn forth(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, changed: Arc<AtomicBool>) {
    let mut bytes = Vec::with_capacity(64 * 1024);
    while let Ok(1..) = from.read_buf(&mut bytes).await {
        // A request begins with what is read: nothing is asked before the answer to what was asked before.
        if bytes.starts_with(b"POST /v3/watch") && !changed.load(Ordering::SeqCst) {
            let Some(older) = from_the_first_on(&bytes) else {
                // There is more of it to come.
                continue;
            };
            changed.store(true, Ordering::SeqCst);
            bytes = older;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
    }
}

/// A request for a watch that begins with revision 1, as long as it was.
fn from_the_first_on(request: &[u8]) -> Option<Vec<u8>> {
    let request = std::str::from_utf8(request).ok()?;
    let (before, after) = request.split_once("\"start_revision\":\"")?;
    let (number, after) = after.split_once('"')?;
    let spaces = " ".repeat(number.len() - 1);
    Some(format!("{before}\"start_revision\":{spaces}\"1\"{after}").into_bytes())
}

async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, compacted: Arc<AtomicBool>) {
    let mut bytes = Vec::with_capacity(64 * 1024);
    let mut said = String::new();
    while let Ok(1..) = from.read_buf(&mut bytes).await {
        said.push_str(&String::from_utf8_lossy(&bytes));
        if said.contains("compact_revision") {
            compacted.store(true, Ordering::SeqCst);
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_come_when_what_the_watch_was_to_begin_with_is_compacted() {
    let Some(cluster) = start(Options::members(1)) else {
        return;
    };
    let prefix = prefix();
    let writer = open(&cluster.hosts(), &prefix);
    fill(&writer, 1..=20).await;
    block_in_place(|| {
        let revision = cluster.revision()?.to_string();
        cluster.etcdctl(&["compaction", &revision])
    })
    .expect("it is compacted");
    let detour = Detour::to(cluster.hosts().swap_remove(0)).await;
    let watcher = open(std::slice::from_ref(&detour.host), &prefix);
    hinted(&watcher, 20).await;
    eventually("a word of the compaction", || {
        detour.compacted.load(Ordering::SeqCst)
    })
    .await;
    fill(&writer, 21..=22).await;
    hinted(&watcher, 22).await;
}

/// Appends large entries and keeps snapshots, so that old ones are trimmed, until etcd has no room for another one.
/// Returns the position that was refused.
async fn fill_up(ledger: &impl Ledger) -> u64 {
    let mut at = 1;
    loop {
        let append = ledger.append(Position(at), Epoch(1), vec![7; 256 * 1024]);
        match within("an append", append).await {
            Ok(_) => at += 1,
            Err(AppendError::Refused { .. }) => return at,
            // The one that makes it full may be there.
            Err(AppendError::OutcomeUnknown { .. }) => {}
        }
        if at % 8 == 0 {
            // When it is full this fails, as it should.
            drop(ledger.save_snapshot(Position(at), b"state".to_vec()).await);
        }
        assert!(at < 1000, "it never gets full");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_refuses_appends_and_says_how_to_go_on() {
    let quota = Options::members(1).argument("--quota-backend-bytes=8388608");
    let Some(cluster) = start(quota) else { return };
    let ledger = open(&cluster.hosts(), &prefix());
    let at = fill_up(&ledger).await;
    let said = refusal(&ledger, at).await;
    for step in [
        "compact",
        "defragment",
        "--quota-backend-bytes",
        "alarm disarm",
    ] {
        assert!(said.contains(step), "{said}");
    }
    // It was not done, and what is there can be read.
    assert_eq!(next(&ledger).await, at);
    assert_eq!(entries(&ledger, at - 1, 1).await, [vec![7; 256 * 1024]]);
    let kept = ledger.save_snapshot(Position(at), b"state".to_vec()).await;
    let said = whole(&kept.expect_err("there is no room"));
    assert!(said.contains("defragment"), "{said}");
    block_in_place(|| {
        let revision = cluster.revision()?.to_string();
        cluster.etcdctl(&["compaction", "--physical", &revision])?;
        cluster.etcdctl(&["defrag"])?;
        cluster.etcdctl(&["alarm", "disarm"])
    })
    .expect("room is made");
    fill(&ledger, at..=at + 5).await;
    hinted(&ledger, at + 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_the_ledger_tells_what_is_there_now() {
    let Some(mut cluster) = start(Options::members(1)) else {
        return;
    };
    let ledger = open(&cluster.hosts(), &prefix());
    fill(&ledger, 1..=5).await;
    let snapshot = block_in_place(|| cluster.snapshot()).expect("it is kept");
    fill(&ledger, 6..=10).await;
    hinted(&ledger, 10).await;
    block_in_place(|| cluster.restore(&snapshot)).expect("it is restored");
    // That the end is before one that was seen is for the directors to judge.
    assert_eq!(next(&ledger).await, 6);
    assert_eq!(entries(&ledger, 1, 5).await.last(), Some(&text(5)));
    let read = within("a read", ledger.read(Position(6), 5)).await;
    assert!(read.expect("it answers").is_empty());
    fill(&ledger, 6..=11).await;
    hinted(&ledger, 11).await;
}
