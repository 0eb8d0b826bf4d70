//! Disks that do not answer.

use std::time::Duration;

use quorate_core::ids::Epoch;
use quorate_ledger::Ledger;

use super::cluster::{Cluster, append_at_tail, entry, hinted, timed, until};
use crate::disk::hung::Hung;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_is_replaced_and_follows_when_it_answers_again() {
    let cluster = Cluster::of(3).await;
    let last = cluster.fill(5).await;
    let old = cluster.leader().await;
    let rest: Vec<usize> = (0..3).filter(|number| *number != old).collect();
    let hung = Hung::new(cluster.nodes[old].folder.path());
    // Something to write is what the disk fails at; whether it was appended is not known.
    let stuck = cluster.ledger(old);
    let at = stuck.hints().borrow().occupied.next();
    let appending = tokio::spawn(async move {
        drop(stuck.append(at, Epoch(1), entry(at.0)).await);
    });
    let replaced = async {
        let leader = cluster.leader_among(&rest).await;
        until("an append", async || {
            append_at_tail(&cluster.ledger(leader)).await
        })
        .await
    };
    let (_, took) = timed(replaced).await;
    eprintln!("a leader with a hung disk was replaced after {took:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    let own = cluster.ledger(old);
    hinted(&own, |hints| hints.should_lead == Some(false)).await;
    drop(hung);
    appending.await.unwrap();
    let next = cluster.fill(3).await;
    assert!(next > last);
    cluster.check(&[0, 1, 2], next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_hangs_holds_nobody_up_and_is_no_candidate() {
    let mut cluster = Cluster::of(3).await;
    cluster.fill(3).await;
    let leader = cluster.leader().await;
    let stuck = (leader + 1) % 3;
    let hung = Hung::new(cluster.nodes[stuck].folder.path());
    let last = cluster.append_among(&[leader]).await;
    let (next, took) = timed(cluster.fill(20)).await;
    assert!(next > last);
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Without the leader only the third is left, which is no majority: nothing is acknowledged.
    cluster.crash(leader);
    let third = cluster.ledger((leader + 2) % 3);
    assert!(third.tail().await.is_err());
    let appended = third.append(quorate_core::ids::Position(next + 1), Epoch(1), vec![1]);
    assert!(appended.await.is_err(), "nothing is on two disks");
    drop((third, hung));
    let after = cluster.append_among(&cluster.up()).await;
    assert!(after > next);
    cluster.start(leader).await;
    cluster.check(&[0, 1, 2], after).await;
}
