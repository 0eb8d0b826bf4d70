//! What etcd forgets, has no room for, or has lost: the ledger goes on, or says what to do.

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::{AppendError, Ledger};
use quorate_servers::etcd::{EtcdCluster, Options};
use tokio::task::block_in_place;

use super::detour::{Detour, Trick};
use super::support::{
    entries, eventually, fill, hinted, next, open, prefix, refusal, text, whole, within,
};

fn start(options: Options) -> Option<EtcdCluster> {
    Some(EtcdCluster::start_with(options)?.expect("it comes up"))
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
    let detour = Detour::to(cluster.hosts().swap_remove(0), Trick::OldWatch).await;
    let watcher = open(std::slice::from_ref(&detour.host), &prefix);
    hinted(&watcher, 20).await;
    eventually("a word of the compaction", || detour.was_played()).await;
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
async fn an_etcd_that_says_it_is_full_may_have_done_what_made_it_so() {
    let Some(cluster) = start(Options::members(1)) else {
        return;
    };
    let detour = Detour::to(cluster.hosts().swap_remove(0), Trick::FullAfterAll).await;
    let ledger = open(std::slice::from_ref(&detour.host), &prefix());
    let append = async |at| ledger.append(Position(at), Epoch(1), text(at)).await;
    for at in [1, 2] {
        let told = within("an append", append(at)).await;
        assert!(
            matches!(&told, Err(AppendError::OutcomeUnknown { cause, .. }) if cause.to_string().contains("no space")),
            "{told:?}"
        );
        assert!(detour.was_played());
        assert_eq!(next(&ledger).await, at + 1);
    }
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
