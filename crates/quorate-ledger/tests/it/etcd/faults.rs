//! Members are lost and stand still: the ledger goes on by itself, loses nothing and tells no lie.

use std::time::Instant;

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::Ledger;
use quorate_servers::etcd::EtcdCluster;
use tokio::task::block_in_place;

use crate::support::race::{self, Race};

use super::support::{entries, eventually, fill, hinted, next, open, prefix, text, within};

fn start(members: usize) -> Option<EtcdCluster> {
    Some(EtcdCluster::start(members)?.expect("they come up"))
}

fn leader(cluster: &EtcdCluster) -> usize {
    block_in_place(|| cluster.leader()).expect("one leads")
}

/// The hosts of a cluster with this member first.
fn hosts_from(cluster: &EtcdCluster, first: usize) -> Vec<String> {
    let mut hosts = cluster.hosts();
    hosts.rotate_left(first);
    hosts
}

async fn another_leader(cluster: &EtcdCluster, before: usize) {
    eventually("another leader", || {
        block_in_place(|| cluster.leader()).is_ok_and(|now| now != before)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_leaders_are_killed() {
    let Some(mut cluster) = start(3) else { return };
    let prefix = prefix();
    let race = Race::start(|writer| open(&hosts_from(&cluster, writer % cluster.count()), &prefix));
    for kill_at in [10, 40] {
        race.reaches(kill_at).await;
        let killed = leader(&cluster);
        cluster.kill(killed).expect("it runs");
        another_leader(&cluster, killed).await;
        block_in_place(|| cluster.restart(killed)).expect("it starts again");
    }
    let last = open(&hosts_from(&cluster, 2), &prefix);
    race.assert_nothing_is_lost(&last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_leader_stands_still_and_it_tells_no_old_tail() {
    let Some(mut cluster) = start(3) else { return };
    let prefix = prefix();
    let race = Race::start(|writer| open(&hosts_from(&cluster, writer % cluster.count()), &prefix));
    race.reaches(20).await;
    let stopped = leader(&cluster);
    // It speaks to nobody else, and has seen the ledger.
    let host = cluster.hosts().swap_remove(stopped);
    let stubborn = open(&[host], &prefix);
    assert!(next(&stubborn).await > 20);
    cluster.pause(stopped).expect("it runs");
    let others = hosts_from(&cluster, (stopped + 1) % cluster.count());
    let others = open(&others[..2], &prefix);
    race.assert_nothing_is_lost(&others).await;
    cluster.resume(stopped).expect("it stood still");
    // What it answers, at once or later, is what the others have decided.
    assert_eq!(next(&stubborn).await, race::ALL + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_every_call_ends_with_an_error_and_then_goes_on() {
    let Some(mut cluster) = start(3) else { return };
    let ledger = open(&cluster.hosts(), &prefix());
    fill(&ledger, 1..=5).await;
    for member in [0, 1] {
        cluster.kill(member).expect("it runs");
    }
    let began = Instant::now();
    let append = ledger.append(Position(6), Epoch(1), text(6));
    assert!(within("an append", append).await.is_err());
    assert!(within("a tail", ledger.tail()).await.is_err());
    assert!(within("a read", ledger.read(Position(1), 5)).await.is_err());
    // Each within its own time, not that of this test.
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    for member in [0, 1] {
        cluster.begin(member).expect("it starts again");
    }
    for member in [0, 1] {
        block_in_place(|| cluster.wait_for(member)).expect("it comes up");
    }
    // The append whose outcome is not known is there or not; it is this very entry.
    fill(&ledger, 6..=8).await;
    assert_eq!(entries(&ledger, 6, 3).await, [text(6), text(7), text(8)]);
    hinted(&ledger, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_come_when_the_member_that_was_watched_stands_still_or_is_lost() {
    let Some(mut cluster) = start(3) else { return };
    let prefix = prefix();
    let watcher = open(&cluster.hosts(), &prefix);
    let others = open(&hosts_from(&cluster, 1)[..2], &prefix);
    fill(&others, 1..=1).await;
    hinted(&watcher, 1).await;
    cluster.pause(0).expect("it runs");
    fill(&others, 2..=2).await;
    hinted(&watcher, 2).await;
    cluster.resume(0).expect("it stood still");
    block_in_place(|| cluster.wait_for(0)).expect("it goes on");
    cluster.kill(1).expect("it runs");
    let others = open(&cluster.hosts(), &prefix);
    fill(&others, 3..=3).await;
    hinted(&watcher, 3).await;
}
