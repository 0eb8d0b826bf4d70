//! Leaders that die.

use std::time::Duration;

use super::cluster::{Cluster, timed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_another_leads_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::of(3).await;
    let last = cluster.fill(20).await;
    let leader = cluster.leader().await;
    cluster.crash(leader);
    let (next, took) = timed(cluster.append_among(&cluster.up())).await;
    assert_eq!(next, last + 1, "positions go on without a gap");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let last = cluster.fill(20).await;
    cluster.start(leader).await;
    cluster.check(&[0, 1, 2], last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_survivors_of_three_always_elect_one_of_them_soon() {
    let mut cluster = Cluster::of(3).await;
    let mut last = cluster.fill(3).await;
    let mut worst = Duration::ZERO;
    for _ in 0..12 {
        let leader = cluster.leader().await;
        cluster.crash(leader);
        let (next, took) = timed(cluster.append_among(&cluster.up())).await;
        assert!(next > last, "{next} follows {last}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        worst = worst.max(took);
        cluster.start(leader).await;
        last = cluster.append_among(&cluster.up()).await;
        cluster.check(&[leader], last).await;
    }
    eprintln!("the longest of 12 leader changes took {worst:?}");
    cluster.check(&[0, 1, 2], last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_die_at_once_come_back_with_everything_that_was_acknowledged() {
    let mut cluster = Cluster::of(3).await;
    let mut last = 0;
    for _ in 0..3 {
        last = cluster.fill(10).await.max(last);
        for number in cluster.up() {
            cluster.crash(number);
        }
        for number in 0..3 {
            cluster.start(number).await;
        }
        let next = cluster.append_among(&cluster.up()).await;
        assert!(next > last, "{next} follows {last}");
        last = next;
    }
    cluster.check(&[0, 1, 2], last).await;
}
