//! Servers are lost and stand still, and sessions expire: the ledger goes on by itself and tells no lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::shared::SharedLedger;
use quorate_ledger::{AppendError, Ledger};
use quorate_servers::zookeeper::ZookeeperCluster;
use tokio::task::JoinHandle;

use super::support::{append, entries, eventually, fill, next, open, prefix, text, whole, within};

fn start(members: usize) -> Option<ZookeeperCluster> {
    ZookeeperCluster::start(members).expect("they come up")
}

/// Appends positions up to `last` and tells how far it is.
fn writer(ledger: &Arc<SharedLedger>, last: u64) -> (JoinHandle<()>, Arc<AtomicU64>) {
    let (ledger, done) = (Arc::clone(ledger), Arc::new(AtomicU64::new(0)));
    let told = Arc::clone(&done);
    let task = tokio::spawn(async move {
        for position in 1..=last {
            append(&ledger, position).await;
            told.store(position, Ordering::SeqCst);
        }
    });
    (task, done)
}

async fn assert_all_are_there(ledger: &SharedLedger, last: u64) {
    assert_eq!(next(ledger).await, last + 1);
    let found = entries(ledger, 1, usize::try_from(last).expect("few")).await;
    assert_eq!(found, (1..=last).map(text).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_on_after_a_leader_was_killed() {
    let Some(mut cluster) = start(3) else { return };
    let prefix = prefix();
    let ledger = Arc::new(open(&cluster.hosts(), &prefix));
    let (writer, done) = writer(&ledger, 60);
    for kill_at in [10, 35] {
        eventually("appends", || done.load(Ordering::SeqCst) >= kill_at).await;
        let leader = cluster.leader().expect("one leads");
        cluster.kill(leader).expect("it runs");
        eventually("another leader", || {
            cluster.leader().is_some_and(|now| now != leader)
        })
        .await;
        cluster.restart(leader).expect("it starts again");
        eventually("the killed one", || cluster.serves(leader)).await;
    }
    within("the writer", writer).await.expect("all is appended");
    for member in 0..cluster.members() {
        assert_all_are_there(&open(&cluster.host(member), &prefix), 60).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stood_still_and_was_replaced_tells_no_old_tail() {
    let Some(mut cluster) = start(3) else { return };
    let prefix = prefix();
    let ledger = Arc::new(open(&cluster.hosts(), &prefix));
    let (writer, done) = writer(&ledger, 40);
    eventually("appends", || done.load(Ordering::SeqCst) >= 10).await;
    let leader = cluster.leader().expect("one leads");
    // It speaks to nobody else, and has seen the ledger.
    let stubborn = open(&cluster.host(leader), &prefix);
    assert!(next(&stubborn).await > 10);
    cluster.pause(leader).expect("it runs");
    let others = (0..cluster.members()).filter(|member| *member != leader);
    let others: Vec<String> = others.map(|member| cluster.host(member)).collect();
    within("the writer", writer).await.expect("all is appended");
    let other = open(&others.join(","), &prefix);
    assert_all_are_there(&other, 40).await;
    cluster.resume(leader).expect("it stood still");
    // What it answers, if anything, at once or later, is what the others have decided.
    assert_eq!(next(&stubborn).await, 41);
    append(&stubborn, 41).await;
    assert_all_are_there(&other, 41).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_tells_no_tail() {
    let Some(mut cluster) = start(3) else { return };
    let prefix = prefix();
    let leader = cluster.leader().expect("one leads");
    let ledger = open(&cluster.host(leader), &prefix);
    fill(&ledger, 1..=3).await;
    assert_eq!(next(&ledger).await, 4);
    let others = (0..cluster.members()).filter(|member| *member != leader);
    let others: Vec<usize> = others.collect();
    for other in &others {
        cluster.pause(*other).expect("it runs");
    }
    // It knows the ledger, and does not know yet that the others may have another leader.
    let alone = within("a tail", ledger.tail()).await;
    assert!(alone.is_err(), "{alone:?} was told by a leader alone");
    for other in &others {
        cluster.resume(*other).expect("it stood still");
    }
    assert_eq!(next(&ledger).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lags_tells_no_old_tail() {
    let Some(mut cluster) = start(3) else { return };
    let prefix = prefix();
    let leader = cluster.leader().expect("one leads");
    let follower = (leader + 1) % cluster.members();
    let ahead = open(&cluster.host(leader), &prefix);
    let behind = Arc::new(open(&cluster.host(follower), &prefix));
    append(&ahead, 1).await;
    assert_eq!(next(&behind).await, 2);
    let mut told = 0;
    for round in 0..20 {
        cluster.pause(follower).expect("it runs");
        let last = 2 + round * 5 + 4;
        fill(&ahead, last - 4..=last).await;
        // Asked while its server stands still, so that the question is there before what it missed.
        let asked = {
            let behind = Arc::clone(&behind);
            tokio::spawn(async move { behind.tail().await })
        };
        tokio::task::yield_now().await;
        cluster.resume(follower).expect("it stood still");
        match within("a tail", asked).await.expect("it is asked") {
            Ok(tail) => {
                assert_eq!(tail.next, Position(last + 1));
                told += 1;
            }
            // The server seemed lost.
            Err(_) => assert_eq!(next(&behind).await, last + 1),
        }
    }
    assert!(told > 0, "no tail was told at the first try");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_every_call_ends_with_an_error_and_then_goes_on() {
    let Some(mut cluster) = start(3) else { return };
    let prefix = prefix();
    let ledger = open(&cluster.hosts(), &prefix);
    fill(&ledger, 1..=5).await;
    let leader = cluster.leader().expect("one leads");
    let follower = (leader + 1) % cluster.members();
    // One may be lost.
    cluster.kill(follower).expect("it runs");
    fill(&ledger, 6..=10).await;
    cluster.kill(leader).expect("it runs");
    // Answers that were on their way may still come.
    within("the loss of the quorum", async {
        while ledger.tail().await.is_ok() {}
    })
    .await;
    let refused = within("an append", ledger.append(Position(11), Epoch(1), text(11))).await;
    let error = refused.expect_err("nobody can write");
    assert!(whole(&error).contains("ZooKeeper"), "{}", whole(&error));
    assert!(within("a read", ledger.read(Position(1), 1)).await.is_err());
    let saved = within(
        "a snapshot",
        ledger.save_snapshot(Position(3), b"x".to_vec()),
    )
    .await;
    assert!(saved.is_err());
    cluster.restart(leader).expect("it starts again");
    append(&ledger, 11).await;
    assert_all_are_there(&ledger, 11).await;
}

/// The sessions of clients that a server knows.
fn sessions(cluster: &ZookeeperCluster) -> Vec<String> {
    let said = cluster.ask(0, "cons");
    let sessions = said.split("sid=").skip(1);
    sessions
        .filter_map(|rest| rest.split(',').next().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_is_followed_by_another_one() {
    let Some(mut cluster) = start(1) else { return };
    let prefix = prefix();
    let ledger = open(&cluster.hosts(), &prefix);
    fill(&ledger, 1..=3).await;
    let before = sessions(&cluster);
    assert_eq!(before.len(), 1);
    cluster.pause(0).expect("it runs");
    // Longer than a session lasts without its client, for both sides.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        let tail = within("a tail", ledger.tail()).await;
        assert!(tail.is_err(), "a server that stands still told {tail:?}");
    }
    cluster.resume(0).expect("it stood still");
    let mut hints = ledger.hints();
    assert_eq!(next(&ledger).await, 4);
    let now = sessions(&cluster);
    assert!(
        now.iter().all(|session| !before.contains(session)),
        "{before:?} {now:?}"
    );
    // The new session follows what others append.
    let other = open(&cluster.hosts(), &prefix);
    append(&other, 4).await;
    within(
        "a hint",
        hints.wait_for(|hints| hints.occupied == Position(4)),
    )
    .await
    .expect("the ledger is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_go_on_when_the_server_of_the_session_is_lost() {
    let Some(mut cluster) = start(3) else { return };
    let prefix = prefix();
    let follower = open(&cluster.hosts(), &prefix);
    let mut hints = follower.hints();
    for (lost, position) in (0..cluster.members()).zip(1..) {
        let ledger = open(&cluster.hosts(), &prefix);
        append(&ledger, position).await;
        let told = hints.wait_for(|hints| hints.occupied >= Position(position));
        within("a hint", told).await.expect("the ledger is open");
        cluster.kill(lost).expect("it runs");
        cluster.restart(lost).expect("it starts again");
        eventually("the lost one", || cluster.serves(lost)).await;
    }
}

#[tokio::test]
async fn an_address_where_nobody_is_is_said_so() {
    let port = quorate_servers::process::free_ports(1).expect("a port")[0];
    let ledger = open(&format!("127.0.0.1:{port}"), "nobody");
    let answer = within("an append", ledger.append(Position(1), Epoch(1), text(1))).await;
    let error = answer.expect_err("nobody is there");
    assert!(
        matches!(error, AppendError::Refused { .. }),
        "nothing was sent: {error:?}"
    );
    let said = whole(&error);
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert!(said.contains("see that they run"), "{said}");
}
