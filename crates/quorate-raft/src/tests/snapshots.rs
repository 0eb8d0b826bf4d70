//! Directors that lack more than the log still has.

use openraft::async_runtime::watch::WatchReceiver;
use quorate_core::ids::{Epoch, Position};
use quorate_ledger::{Appended, Ledger, Snapshot};

use super::cluster::{Cluster, until};

/// What the state is after everything before `next`: large enough for several chunks.
fn fold(next: u64) -> Vec<u8> {
    let mut fold = next.to_be_bytes().to_vec();
    fold.resize(700_000, b's');
    fold
}

/// Two snapshots at the leader and every other that is up, so that what came before the first is trimmed.
async fn trim(cluster: &Cluster) -> u64 {
    let mut last = 0;
    for _ in 0..2 {
        last = cluster.fill(20).await;
        for number in cluster.up() {
            let ledger = cluster.ledger(number);
            until("a snapshot is kept", async || {
                let next = ledger.tail().await.ok()?.next;
                ledger.save_snapshot(next, fold(next.0)).await.ok()
            })
            .await;
        }
    }
    // What somebody who does not answer might still get is trimmed when that is given up.
    for number in cluster.up() {
        let ledger = cluster.ledger(number);
        until("the log is trimmed", async || {
            let metrics = ledger.raft.metrics();
            let purged = metrics.borrow_watched().purged;
            purged.filter(|purged| purged.index >= last - 20).map(drop)
        })
        .await;
    }
    last
}

/// Waits until a director has a snapshot that it never made.
async fn sent(cluster: &Cluster, number: usize, least: u64) -> Snapshot {
    let ledger = cluster.ledger(number);
    let snapshot = until("a snapshot arrives", async || {
        let snapshot = ledger.load_snapshot().await.unwrap()?;
        (snapshot.next > Position(least)).then_some(snapshot)
    })
    .await;
    assert_eq!(snapshot.bytes, fold(snapshot.next.0), "it is whole");
    snapshot
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_catches_up_by_a_snapshot_when_the_log_was_trimmed_and_may_lead_then() {
    let mut cluster = Cluster::found().await;
    let last = trim(&cluster).await;
    let learner = cluster.join().await;
    sent(&cluster, learner, 1).await;
    cluster.check(&[learner], last).await;
    let third = cluster.join().await;
    cluster.check(&[third], last).await;
    cluster.vote(&[0, learner, third]).await;
    let last = cluster.fill(3).await;
    cluster.crash(0);
    let next = cluster.append_among(&[learner, third]).await;
    assert!(next > last);
    cluster.check(&[learner, third], next).await;
    // What it was sent is on its disk.
    cluster.stop(learner).await;
    cluster.start(learner).await;
    sent(&cluster, learner, 1).await;
    cluster.check(&[learner], next).await;
}

/// It knows only the voters of before. Were it to keep them, it could elect with them beside the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_snapshot_comes_who_votes_now() {
    let mut cluster = Cluster::of(3).await;
    cluster.fill(3).await;
    let leader = cluster.leader().await;
    let late = (leader + 1) % 3;
    cluster.crash(late);
    for _ in 0..2 {
        cluster.join().await;
    }
    cluster.vote(&[0, 1, 2, 3, 4]).await;
    let last = trim(&cluster).await;
    cluster.start(late).await;
    sent(&cluster, late, 1).await;
    cluster.check(&[late], last).await;
    cluster.agree_on_voters(&[0, 1, 2, 3, 4]).await;
    // And after a restart without any of the others, from its own disk.
    for number in cluster.up() {
        cluster.crash(number);
    }
    cluster.start(late).await;
    cluster.agree_on_voters(&[0, 1, 2, 3, 4]).await;
    for number in 0..5 {
        if number != late {
            cluster.start(number).await;
        }
    }
    let next = cluster.append_among(&cluster.up()).await;
    assert!(next > last);
    cluster.check(&[0, 1, 2, 3, 4], next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_off_on_the_way_changes_nothing_and_is_sent_again() {
    let mut cluster = Cluster::of(3).await;
    let early = cluster.fill(3).await;
    let leader = cluster.leader().await;
    let late = (leader + 1) % 3;
    cluster.check(&[late], early).await;
    cluster.crash(late);
    let last = trim(&cluster).await;
    // Killed at some moments while it comes in.
    for _ in 0..6 {
        cluster.start(late).await;
        let leaders: Vec<usize> = cluster.up().into_iter().filter(|n| *n != late).collect();
        cluster.append_among(&leaders).await;
        cluster.crash(late);
        let names = std::fs::read_dir(cluster.nodes[late].folder.path()).unwrap();
        for name in names {
            let name = name.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with("received"), "{name} was left");
        }
    }
    cluster.start(late).await;
    sent(&cluster, late, early).await;
    cluster.check(&[0, 1, 2], last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_trimmed_however_many_of_a_minority_are_down_and_they_come_back() {
    let mut cluster = Cluster::of(5).await;
    let early = cluster.fill(3).await;
    let leader = cluster.leader().await;
    let down = [(leader + 1) % 5, (leader + 2) % 5];
    for number in down {
        cluster.crash(number);
    }
    let last = trim(&cluster).await;
    for number in down {
        cluster.start(number).await;
        sent(&cluster, number, early).await;
    }
    cluster.check(&[0, 1, 2, 3, 4], last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lacks_much_of_the_log_gets_it_in_messages_of_bounded_size() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let late = (leader + 1) % 3;
    cluster.crash(late);
    let ledger = cluster.ledger(leader);
    let first = ledger.tail().await.unwrap().next;
    let mut at = first;
    // Eight times the most that is in one message, which does not fit into memory here either.
    let entry = vec![b'l'; quorate_core::record::ENTRY_BYTES_MAX];
    for _ in 0..32 {
        let appended = ledger.append(at, Epoch(1), entry.clone()).await;
        assert_eq!(appended.unwrap(), Appended::Appended);
        at = at.next();
    }
    drop(ledger);
    cluster.start(late).await;
    let ledger = cluster.ledger(late);
    until("it catches up", async || {
        let tail = ledger.tail().await.ok()?;
        (tail.next == at).then_some(())
    })
    .await;
    let mut position = first;
    while position < at {
        for committed in ledger.read(position, 100).await.unwrap() {
            assert_eq!((committed.position, &committed.entry), (position, &entry));
            position = position.next();
        }
    }
}
