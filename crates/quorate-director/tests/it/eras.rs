//! Backups over HTTP, and which director is believed after a restore.

use quorate_api::client::{Client, Eras, Error, Options};
use quorate_core::ids::ClusterId;
use quorate_director::backup;
use serde_json::json;

use crate::desk::{CLUSTER, Desk};

fn believing(desk: &Desk, highest: u16) -> Client {
    let options = Options {
        eras: Some(Eras::seen(highest)),
        ..Options::default()
    };
    Client::with(vec![desk.address.to_string()], options).unwrap()
}

#[tokio::test]
async fn a_backup_is_what_the_director_has_folded() {
    let desk = Desk::start().await;
    let list: Vec<String> = (0..500).map(|n| format!("p{n}")).collect();
    let spec = json!({ "command": ["x"], "partitions": { "list": list } });
    desk.apply(json!({ "s": spec })).await;
    let mut stream = desk.client.backup().await.unwrap();
    let mut file = Vec::new();
    while let Some(mut piece) = stream.next().await.unwrap() {
        file.append(&mut piece);
    }
    let backup = backup::read(&file).unwrap();
    assert_eq!(backup.cluster, ClusterId(CLUSTER.0));
    assert_eq!((backup.head.services, backup.head.partitions), (1, 500));
    assert_eq!(backup.state.partition_count(), 500);
    assert_eq!(backup.head.director, "d1");
    desk.stop().await;
}

#[tokio::test]
async fn a_director_of_an_earlier_era_is_not_believed() {
    let desk = Desk::start().await;
    let new = believing(&desk, 0);
    assert_eq!(new.cluster().await.unwrap().era, 0);
    let seen = believing(&desk, 2);
    let refused = seen.cluster().await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::EarlierEra {
                era: 0,
                seen: 2,
                ..
            }
        ),
        "{refused:?}"
    );
    let drained = seen.drain("a1").await.unwrap_err();
    assert!(
        matches!(drained, Error::EarlierEra { .. }),
        "what it says of a write counts as little: {drained:?}"
    );
    desk.stop().await;
}
