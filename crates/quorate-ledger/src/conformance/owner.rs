//! Whose ledger it is: the further rules of ledgers in stores of others.

use std::sync::Arc;

use quorate_core::ids::{ClusterId, Epoch, Position};
use tokio::task::JoinSet;

use super::client::{Log, begin, claim_for, fill, mark_moved, owner, read_all, tail, within_long};
use super::{InStore, Stand};
use crate::shared::{BeginError, MOVED_TO_BYTES_MAX, Owner};
use crate::{AppendError, Appended, Ledger};

const PLACE: &str = "etcd://etcd-1:2379/elsewhere";

async fn two<S: Stand>(stand: &S) -> [Arc<S::Ledger>; 2] {
    match stand.fresh(2).await.try_into() {
        Ok(two) => two,
        Err(_) => panic!("the stand gave other than two ledgers"),
    }
}

/// However many claim it, all hear of the same one.
pub async fn of_two_clusters_that_claim_a_ledger_one_has_it<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    for _ in 0..5 {
        let ledgers = two(stand).await;
        for ledger in &ledgers {
            assert_eq!(owner(&**ledger).await, None);
        }
        let mut claims = JoinSet::new();
        for (cluster, ledger) in (71..).zip(&ledgers) {
            let ledger = Arc::clone(ledger);
            claims.spawn(async move { claim_for(&*ledger, cluster).await });
        }
        let told = within_long("the claims", claims.join_all()).await;
        let Some(first) = told.first().cloned() else {
            panic!("two have claimed it")
        };
        assert!(told.iter().all(|owner| *owner == first), "{told:?}");
        assert!([71, 72].contains(&first.cluster.0), "{first:?}");
        assert_eq!(first.moved_to, None);
        for ledger in &ledgers {
            assert_eq!(owner(&**ledger).await, Some(first.clone()));
            assert_eq!(claim_for(&**ledger, 99).await, first);
        }
        // It is as empty as before.
        assert_eq!(tail(&*ledgers[0]).await.next, Position(1));
        fill(&*ledgers[0], 1, 2, 1).await;
        assert_eq!(owner(&*ledgers[1]).await, Some(first));
    }
}

/// An error and all its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Appends what it can until it hears that the cluster has moved; what it was told of.
async fn write<L: Ledger>(ledger: &L, epoch: u64) -> Vec<Position> {
    within_long("the writer", async {
        let mut told = Vec::new();
        loop {
            let at = tail(ledger).await.next;
            let entry = format!("{epoch}:{at}").into_bytes();
            match ledger.append(at, Epoch(epoch), entry).await {
                Ok(Appended::Appended) => told.push(at),
                Err(error @ AppendError::Refused { .. })
                    if whole(&error).contains("has moved to") =>
                {
                    assert!(whole(&error).contains(PLACE), "{}", whole(&error));
                    return told;
                }
                Ok(Appended::PositionTaken) | Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

/// A director that still runs adds nothing to a log that was copied, and everybody hears where the cluster is.
pub async fn a_ledger_whose_cluster_has_moved_takes_nothing_any_more<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    let ledgers = stand.fresh(4).await;
    let [ledger, other, writers @ ..] = ledgers.as_slice() else {
        panic!("the stand gave fewer ledgers")
    };
    claim_for(&**ledger, 7).await;
    let mut writing = JoinSet::new();
    for (epoch, writer) in (1..).zip(writers) {
        let writer = Arc::clone(writer);
        writing.spawn(async move { write(&*writer, epoch).await });
    }
    within_long("some entries", async {
        while tail(&**ledger).await.next < Position(20) {}
    })
    .await;
    mark_moved(&**ledger, 7, PLACE).await;
    let end = tail(&**ledger).await;
    assert!(
        end.epoch > Epoch(1 << 60),
        "no leader finds its own epoch there: {end:?}"
    );
    let told = within_long("the writers", writing.join_all()).await;
    for at in told.concat() {
        assert!(at < end.next, "{at} was appended to a closed log");
    }
    for ledger in &ledgers {
        for at in [end.next.0, end.next.0 + 1, end.next.0 - 1, 1] {
            let late = ledger
                .append(Position(at), Epoch(9), b"late".to_vec())
                .await;
            assert!(!matches!(late, Ok(Appended::Appended)), "{at}: {late:?}");
        }
        assert_eq!(tail(&**ledger).await, end);
        let moved = Owner {
            cluster: ClusterId(7),
            moved_to: Some(PLACE.to_owned()),
        };
        assert_eq!(owner(&**ledger).await, Some(moved.clone()));
        assert_eq!(claim_for(&**ledger, 8).await, moved);
    }
    assert_eq!(
        read_all(&**other, Position(1), end.next).await.len() as u64,
        end.next.0 - 1
    );
    // Said again, it is so; and nobody begins anything there.
    mark_moved(&**other, 7, PLACE).await;
    mark_moved(&**other, 7, "elsewhere after all").await;
    let moved = owner(&**ledger).await.and_then(|owner| owner.moved_to);
    assert_eq!(moved.as_deref(), Some("elsewhere after all"));
    let log = Log::at(end.next.0 + 1000, 3);
    let begun = begin(&**ledger, &log, Some(end.next.0)).await;
    assert!(matches!(begun, Err(BeginError::Left { .. })), "{begun:?}");
    assert_eq!(tail(&**ledger).await, end);
}

/// The first entry has no other before it, and does not land either.
pub async fn a_ledger_that_is_empty_takes_nothing_after_its_cluster_has_moved<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    let ledgers = two(stand).await;
    claim_for(&*ledgers[0], 7).await;
    mark_moved(&*ledgers[0], 7, PLACE).await;
    for ledger in &ledgers {
        let late = ledger.append(Position(1), Epoch(1), b"late".to_vec()).await;
        assert!(!matches!(late, Ok(Appended::Appended)), "{late:?}");
        assert_eq!(tail(&**ledger).await.next, Position(1));
        let begun = begin(&**ledger, &Log::at(100, 3), None).await;
        assert!(matches!(begun, Err(BeginError::Left { .. })), "{begun:?}");
    }
}

/// Of what anybody may see, and only by whose it is.
pub async fn only_its_cluster_says_where_a_ledger_has_moved<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    let ledgers = two(stand).await;
    let [ledger, other] = &ledgers;
    let nobodys = ledger.mark_moved(ClusterId(7), PLACE).await;
    assert!(nobodys.is_err(), "it is nobody's");
    claim_for(&**ledger, 7).await;
    let others = other.mark_moved(ClusterId(8), PLACE).await;
    assert!(others.is_err(), "it is of cluster 7");
    let long = "x".repeat(MOVED_TO_BYTES_MAX + 1);
    for text in [long.as_str(), "etcd://root:s3cret@etcd-1:2379/elsewhere"] {
        let marked = ledger.mark_moved(ClusterId(7), text).await;
        assert!(marked.is_err(), "{text}");
    }
    let owned = owner(&**other).await;
    assert_eq!(owned.and_then(|owner| owner.moved_to), None);
    fill(&**other, 1, 3, 1).await;
    mark_moved(&**ledger, 7, &"x".repeat(MOVED_TO_BYTES_MAX)).await;
}
