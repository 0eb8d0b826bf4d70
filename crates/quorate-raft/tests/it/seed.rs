//! A ledger that begins with a state, and one whose director does not run.

use quorate_core::ids::{DirectorName, Epoch, Position};
use quorate_ledger::Ledger;
use quorate_raft::{Beginning, OpenError, Stopped, found_with};

use crate::support::{check, entry, fill, folder, open};

const NEXT: u64 = (1 << 40) + 1;

fn beginning() -> Beginning {
    Beginning {
        cluster: 0xabc,
        address: String::new(),
        next: Position(NEXT),
        epoch: Epoch(1 << 40),
        fold: b"the state".to_vec(),
    }
}

fn name() -> DirectorName {
    DirectorName::new("d1").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_behind_the_state_and_is_there_after_a_restart() {
    let folder = folder();
    let dir = folder.path().join("ledger");
    let ids = found_with(&dir, &name(), &beginning()).unwrap();
    let ledger = open(&dir).await.unwrap();
    assert_eq!((ledger.node_id(), ledger.cluster_id()), (ids.node, 0xabc));
    let tail = ledger.tail().await.unwrap();
    assert_eq!((tail.next, tail.epoch), (Position(NEXT), Epoch(1 << 40)));
    let state = ledger.load_snapshot().await.unwrap().unwrap();
    assert_eq!(state.bytes, b"the state");
    assert!(ledger.read(Position(7), 1).await.is_err(), "of before");
    fill(&ledger, NEXT, NEXT + 40).await;
    ledger.shutdown().await;
    let again = open(&dir).await.unwrap();
    assert_eq!(check(&again, NEXT).await, NEXT + 40);
    again
        .save_snapshot(Position(NEXT + 30), b"a later state".to_vec())
        .await
        .unwrap();
    again.shutdown().await;
    let again = open(&dir).await.unwrap();
    assert_eq!(check(&again, NEXT).await, NEXT + 40);
    let state = again.load_snapshot().await.unwrap().unwrap();
    assert_eq!(state.bytes, b"a later state");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_there_is_never_replaced() {
    let folder = folder();
    let dir = folder.path().join("ledger");
    let ledger = open(&dir).await.unwrap();
    fill(&ledger, 1, 3).await;
    ledger.shutdown().await;
    let refused = found_with(&dir, &name(), &beginning()).unwrap_err();
    assert!(matches!(refused, OpenError::Disk { .. }), "{refused}");
    let again = open(&dir).await.unwrap();
    assert_eq!(check(&again, 1).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_directors_folder_tells_its_snapshot_and_what_follows() {
    let folder = folder();
    assert!(
        Stopped::open(&folder.path().join("none"))
            .unwrap()
            .is_none()
    );
    assert!(
        Stopped::open(folder.path()).unwrap().is_none(),
        "it is empty"
    );
    let dir = folder.path().join("ledger");
    let ledger = open(&dir).await.unwrap();
    let cluster = ledger.cluster_id();
    fill(&ledger, 1, 30).await;
    let running = Stopped::open(&dir).unwrap_err();
    assert!(matches!(running, OpenError::Locked { .. }), "{running}");
    ledger
        .save_snapshot(Position(21), b"up to 20".to_vec())
        .await
        .unwrap();
    ledger.shutdown().await;
    let stopped = Stopped::open(&dir).unwrap().unwrap();
    assert_eq!((stopped.cluster, stopped.name.as_str()), (cluster, "d1"));
    assert_eq!(stopped.fold(), Some(b"up to 20".as_slice()));
    let mut found = Vec::new();
    stopped
        .entries(|position, bytes| {
            assert_eq!(bytes, entry(position.0));
            found.push(position.0);
            true
        })
        .unwrap();
    assert_eq!(found, (21..30).collect::<Vec<_>>());
}
