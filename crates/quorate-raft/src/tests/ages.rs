//! Whatever happens to leaders and networks, nobody reads the past and nothing acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_ledger::Ledger;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::cluster::{Cluster, append_at_tail};
use crate::Embedded;

/// What the appending and the reading tasks share.
#[derive(Default)]
struct Truth {
    /// The last position that an append was acknowledged at.
    acknowledged: AtomicU64,
    appended: AtomicU64,
    read: AtomicU64,
    over: AtomicBool,
}

/// Appends through one director whenever it can, and checks each tail against what was acknowledged
/// before it was asked for.
async fn use_it(ledger: &Embedded, truth: &Truth) {
    let before = truth.acknowledged.load(Ordering::SeqCst);
    if let Ok(tail) = ledger.tail().await {
        assert!(
            tail.next.0 > before,
            "{} was told after {before}",
            tail.next
        );
        truth.read.fetch_add(1, Ordering::Relaxed);
    }
    if ledger.hints().borrow().should_lead == Some(true)
        && let Some(at) = append_at_tail(ledger).await
    {
        let earlier = truth.acknowledged.fetch_max(at, Ordering::SeqCst);
        assert!(at > earlier, "{at} was acknowledged after {earlier}");
        truth.appended.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tail_is_older_than_an_append_that_was_acknowledged_before_it() {
    let mut chance = StdRng::seed_from_u64(7);
    let mut cluster = Cluster::of(3).await;
    let truth = Arc::new(Truth::default());
    truth
        .acknowledged
        .store(cluster.fill(3).await, Ordering::SeqCst);
    for round in 0..12 {
        truth.over.store(false, Ordering::SeqCst);
        let users = cluster.up().into_iter().map(|number| {
            let (ledger, truth) = (cluster.ledger(number), Arc::clone(&truth));
            tokio::spawn(async move {
                while !truth.over.load(Ordering::SeqCst) {
                    use_it(&ledger, &truth).await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        });
        let users: Vec<_> = users.collect();
        // Something goes on before, and while, the network is cut.
        let progress = truth.acknowledged.load(Ordering::SeqCst);
        let two_more = async || {
            let now = truth.acknowledged.load(Ordering::SeqCst);
            (now >= progress + 2).then_some(())
        };
        super::cluster::until("the use of it", two_more).await;
        let victim = match cluster.leads_now() {
            Some(leader) if chance.random_range(0..3) > 0 => leader,
            Some(_) | None => chance.random_range(0..3),
        };
        let rest: Vec<usize> = (0..3).filter(|number| *number != victim).collect();
        match round % 3 {
            0 => cluster.net.split(&[victim], &rest),
            1 => cluster
                .net
                .cut_one_way(victim, rest[chance.random_range(0..2)]),
            _ => {}
        }
        let pause = Duration::from_millis(chance.random_range(0..1500));
        tokio::time::sleep(pause).await;
        truth.over.store(true, Ordering::SeqCst);
        for user in users {
            user.await.expect("nobody read the past");
        }
        cluster.crash(victim);
        cluster.net.mend();
        cluster.start(victim).await;
    }
    let last = cluster.append_among(&cluster.up()).await;
    assert!(last > truth.acknowledged.load(Ordering::SeqCst));
    cluster.check(&[0, 1, 2], last).await;
    let (appended, read) = (
        truth.appended.load(Ordering::Relaxed),
        truth.read.load(Ordering::Relaxed),
    );
    eprintln!("{appended} appends and {read} tails in 12 rounds");
    assert!(appended >= 24 && read >= 24);
}
