//! Networks that are cut.

use std::time::Duration;

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::{Appended, Ledger};

use super::cluster::{Cluster, hinted, timed, until};

/// The others.
fn others(cluster: &Cluster, than: usize) -> Vec<usize> {
    let mut all = cluster.up();
    all.retain(|number| *number != than);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_neither_appends_nor_answers_from_the_past() {
    let cluster = Cluster::of(3).await;
    let last = cluster.fill(5).await;
    let old = cluster.leader().await;
    let rest = others(&cluster, old);
    cluster.net.split(&[old], &rest);
    let alone = cluster.ledger(old);
    let at = Position(last + 1);
    // Asked at once, while it does not know yet that it is alone.
    let (appended, tail) = tokio::join!(
        alone.append(at, Epoch(9), b"never seen".to_vec()),
        alone.tail()
    );
    assert!(appended.is_err(), "{appended:?}");
    assert!(tail.is_err(), "{tail:?}");
    let (next, took) = timed(cluster.append_among(&rest)).await;
    assert_eq!(next, last + 1);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(alone.tail().await.is_err(), "it would be from the past");
    // It knows.
    hinted(&alone, |hints| hints.should_lead == Some(false)).await;
    cluster.net.mend();
    let last = cluster.fill(3).await;
    cluster.check(&[0, 1, 2], last).await;
    let taken = cluster.ledger(cluster.leader().await);
    let again = taken.append(at, Epoch(9), b"never seen".to_vec()).await;
    assert_eq!(again.unwrap(), Appended::PositionTaken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_five_commit_nothing_whoever_of_them_leads() {
    let cluster = Cluster::of(5).await;
    let last = cluster.fill(5).await;
    let old = cluster.leader().await;
    let rest = others(&cluster, old);
    let (mate, majority) = (rest[0], &rest[1..]);
    cluster.net.split(&[old, mate], majority);
    let alone = cluster.ledger(old);
    let lost = alone.append(Position(last + 1), Epoch(9), b"lost".to_vec());
    let (lost, next) = tokio::join!(lost, cluster.append_among(majority));
    assert!(lost.is_err(), "two of five are no majority: {lost:?}");
    assert_eq!(next, last + 1);
    for number in [old, mate] {
        assert!(cluster.ledger(number).tail().await.is_err());
        let seen = cluster.ledger(number).hints().borrow().occupied;
        assert_eq!(seen, Position(last), "nothing of it was applied there");
    }
    cluster.net.mend();
    let last = cluster.fill(3).await;
    cluster.check(&[0, 1, 2, 3, 4], last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_from_the_leader_does_not_answer_from_the_past() {
    let cluster = Cluster::of(3).await;
    let last = cluster.fill(5).await;
    cluster.check(&[0, 1, 2], last).await;
    let leader = cluster.leader().await;
    let lonely = others(&cluster, leader)[0];
    cluster.net.split(&[lonely], &others(&cluster, lonely));
    let next = cluster.append_among(&others(&cluster, lonely)).await;
    assert_eq!(next, last + 1);
    assert!(cluster.ledger(lonely).tail().await.is_err());
    cluster.net.mend();
    cluster.check(&[lonely], next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_that_comes_back_from_isolation_does_not_end_a_healthy_reign() {
    let cluster = Cluster::of(3).await;
    cluster.fill(3).await;
    let leader = cluster.leader().await;
    let lonely = others(&cluster, leader)[0];
    let before = cluster.term(leader);
    cluster.net.split(&[lonely], &others(&cluster, lonely));
    // As long as several elections would take, and with something that it lacks.
    let isolation = async {
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            cluster.append_among(&others(&cluster, lonely)).await;
        }
    };
    isolation.await;
    cluster.net.mend();
    let last = cluster.fill(3).await;
    cluster.check(&[lonely], last).await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(
        cluster.term(leader),
        before,
        "nobody asked for votes in vain"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_is_replaced_although_it_is_heard() {
    let cluster = Cluster::of(3).await;
    let last = cluster.fill(3).await;
    let old = cluster.leader().await;
    for other in others(&cluster, old) {
        cluster.net.cut_one_way(other, old);
    }
    let (next, took) = timed(cluster.append_among(&others(&cluster, old))).await;
    assert_eq!(next, last + 1);
    assert!(took < Duration::from_secs(15), "{took:?}");
    cluster.net.mend();
    cluster.check(&[0, 1, 2], next).await;
}

/// One of five is down. The leader reaches one other, which keeps hearing it; only with that one can the
/// rest elect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_does_not_keep_its_last_follower_from_another() {
    let mut cluster = Cluster::of(5).await;
    let last = cluster.fill(3).await;
    let old = cluster.leader().await;
    let rest = others(&cluster, old);
    cluster.crash(rest[0]);
    cluster.net.split(&[old], &rest[2..]);
    let (next, took) = timed(cluster.append_among(&rest[1..])).await;
    assert_eq!(next, last + 1);
    eprintln!("the connected majority wrote again after {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    cluster.net.mend();
    cluster.start(rest[0]).await;
    cluster.check(&[0, 1, 2, 3, 4], next).await;
}

/// Two halves that meet in one director only, which is in every majority.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_bridge_one_leader_stays() {
    let cluster = Cluster::of(5).await;
    cluster.fill(3).await;
    let leader = cluster.leader().await;
    let rest = others(&cluster, leader);
    // The leader and one more, the bridge, the other two.
    let (near, far) = ([leader, rest[0]], [rest[2], rest[3]]);
    cluster.net.split(&near, &far);
    let last = cluster.append_among(&cluster.up()).await;
    let first = cluster.leader().await;
    let before = cluster.term(first);
    let began = std::time::Instant::now();
    let mut next = last;
    while began.elapsed() < Duration::from_secs(5) {
        next = cluster.append_among(&cluster.up()).await;
    }
    let after = cluster.term(cluster.leader().await);
    assert!(after <= before + 1, "term {after} follows {before}");
    cluster.net.mend();
    cluster.check(&[0, 1, 2, 3, 4], next).await;
    until("one leader", async || cluster.leads_now()).await;
}
