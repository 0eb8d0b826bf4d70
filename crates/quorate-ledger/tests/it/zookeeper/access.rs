//! Who may use the ledger, what else is below its prefix, and what is left after trimming.

use std::sync::Arc;

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::shared::{OpenError, SharedLedger};
use quorate_ledger::{AppendError, Ledger};
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, CreateOptions, Permission};

use crate::support::long;

use super::support::{
    Members, append, entries, eventually, fill, first, next, open, prefix, single, text, whole,
    within,
};

const ANYBODY: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());

async fn client(kept: &Members) -> Client {
    let connected = Client::connect(first(kept));
    within("a connection", connected).await.expect("it serves")
}

/// The error of an append that a store certainly does not do.
async fn refusal(ledger: &SharedLedger, position: u64) -> String {
    let append = ledger.append(Position(position), Epoch(1), text(position));
    match within("an append", append).await {
        Err(error @ AppendError::Refused { .. }) => whole(&error),
        other => panic!("an append that cannot be was answered by {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_user_of_the_ledger_may_use_it() {
    let Some(kept) = single() else { return };
    let (prefix, host) = (prefix(), first(&kept));
    // What is above the prefix of a user belongs to whoever made it first.
    let above = client(&kept).await;
    above.mkdir("/test", &ANYBODY).await.expect("it is made");
    let ledger = open(&format!("ann:secret@{host}"), &prefix);
    fill(&ledger, 1..=3).await;
    for stranger in [
        host.to_owned(),
        format!("ann:wrong@{host}"),
        format!("ben:secret@{host}"),
    ] {
        let stranger = open(&stranger, &prefix);
        let said = refusal(&stranger, 4).await;
        assert!(said.contains("user and password"), "{said}");
        assert!(
            !said.contains("secret") && !said.contains("wrong"),
            "{said}"
        );
        assert!(within("a tail", stranger.tail()).await.is_err());
        assert!(
            within("a read", stranger.read(Position(1), 1))
                .await
                .is_err()
        );
    }
    let again = open(&format!("ann:secret@{host}"), &prefix);
    append(&again, 4).await;
    assert_eq!(next(&ledger).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_no_right_but_to_create_below_its_prefix() {
    let Some(kept) = single() else { return };
    let prefix = prefix();
    let admin = client(&kept).await;
    let above = format!("/{prefix}");
    admin.mkdir(&above, &ANYBODY).await.expect("it is made");
    let ann = Client::connector().with_auth("digest", b"ann:secret");
    let ann = within("a connection", ann.connect(first(&kept))).await;
    let ann = ann.expect("it serves");
    let create = [Acl::new(Permission::CREATE, AuthId::authed())];
    let hers = CreateMode::Persistent.with_acls(Acls::new(&create));
    let made = ann.create(&format!("{above}/cluster"), b"", &hers).await;
    made.expect("it is made");
    let read = [Acl::new(Permission::READ, AuthId::anyone())];
    let barred = admin.set_acl(&above, &read, None).await;
    barred.expect("it is set");

    let user = format!("ann:secret@{}", first(&kept));
    let ledger = open(&user, &format!("{prefix}/cluster"));
    fill(&ledger, 1..=9).await;
    for next in [4, 8] {
        let saved = ledger.save_snapshot(Position(next), b"state".to_vec());
        within("a snapshot", saved).await.expect("it is kept");
    }
    assert_eq!(next(&ledger).await, 10);
    let loaded = within("a snapshot", ledger.load_snapshot()).await;
    assert_eq!(
        loaded.expect("it serves").map(|loaded| loaded.next),
        Some(Position(8))
    );

    long::begins_and_moves(&ledger, 10).await;

    let elsewhere = open(&user, &format!("{prefix}/other"));
    let said = refusal(&elsewhere, 1).await;
    assert!(
        said.contains("/other/entries") && said.contains("cdrwa"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_put_below_the_prefix_is_told_or_left_alone() {
    let Some(kept) = single() else { return };
    let prefix = prefix();
    let others = client(&kept).await;
    let ledger = open(first(&kept), &prefix);
    fill(&ledger, 1..=6).await;
    let alien = [
        format!("/{prefix}/entries/alien"),
        format!("/{prefix}/parts/alien"),
        format!("/{prefix}/parts/alien/1"),
        format!("/{prefix}/alien"),
    ];
    for path in &alien {
        others
            .create(path, b"alien", &ANYBODY)
            .await
            .expect("it is made");
    }
    for next in [3, 5, 7] {
        let saved = ledger.save_snapshot(Position(next), b"state".to_vec());
        within("a snapshot", saved).await.expect("it is kept");
    }
    fill(&ledger, 7..=8).await;
    assert_eq!(entries(&ledger, 6, 3).await, [text(6), text(7), text(8)]);
    for path in &alien {
        assert!(others.check_stat(path).await.expect("it serves").is_some());
    }
    let end = format!("/{prefix}/tail");
    others.set_data(&end, b"{}", None).await.expect("it is set");
    let told = within("a tail", ledger.tail())
        .await
        .expect_err("it is no tail");
    assert!(
        whole(&told).contains("prefix used by something else"),
        "{}",
        whole(&told)
    );
    others.delete(&end, None).await.expect("it is deleted");
    let said = refusal(&ledger, 9).await;
    assert!(
        said.contains(&end) || said.contains("was deleted"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_directors_trim_at_once_is_trimmed_once_and_whole() {
    let Some(kept) = single() else { return };
    let prefix = prefix();
    let others = client(&kept).await;
    let ledgers = [open(first(&kept), &prefix), open(first(&kept), &prefix)].map(Arc::new);
    fill(&ledgers[0], 1..=260).await;
    // By hand: it is passed over as well.
    let hole = format!("/{prefix}/entries/{:020}", 130);
    others.delete(&hole, None).await.expect("it is deleted");
    for next in [250, 255, 261] {
        let saves = ledgers.each_ref().map(|ledger| {
            let ledger = Arc::clone(ledger);
            tokio::spawn(
                async move { ledger.save_snapshot(Position(next), vec![7; 600_000]).await },
            )
        });
        for save in saves {
            let saved = within("a snapshot", save).await.expect("it is asked");
            saved.expect("it is kept");
        }
    }
    let folder = format!("/{prefix}/entries");
    let mut left = others.list_children(&folder).await.expect("it serves");
    left.sort();
    // One that came too late for its snapshot leaves the rest to the next one.
    assert!(left.len() <= 11, "{} entries are left", left.len());
    let first = 261 - left.len() as u64;
    assert_eq!(left.first(), Some(&format!("{first:020}")));
    assert_eq!(
        entries(&ledgers[1], 255, 6).await,
        (255..=260).map(text).collect::<Vec<_>>()
    );
    let loaded = within("a snapshot", ledgers[1].load_snapshot()).await;
    let loaded = loaded.expect("it serves").expect("there is one");
    assert_eq!(
        (loaded.next, loaded.bytes),
        (Position(261), vec![7; 600_000])
    );
    // What was in the way of each other is gone with the next one.
    append(&ledgers[0], 261).await;
    let saved = ledgers[0].save_snapshot(Position(262), b"state".to_vec());
    within("a snapshot", saved).await.expect("it is kept");
    let parts = format!("/{prefix}/parts");
    let parts = others.list_children(&parts).await.expect("it serves");
    assert_eq!(parts.len(), 1, "{parts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_are_deleted_are_made_again_by_the_next_session() {
    let Some(kept) = single() else { return };
    let prefix = prefix();
    let ledger = open(first(&kept), &prefix);
    assert_eq!(next(&ledger).await, 1);
    let others = client(&kept).await;
    let probe = format!("/{prefix}/probe");
    others.delete(&probe, None).await.expect("it is deleted");
    let told = within("a tail", ledger.tail())
        .await
        .expect_err("it cannot be proved");
    assert!(whole(&told).contains(&probe), "{}", whole(&told));
    let again = open(first(&kept), &prefix);
    append(&again, 1).await;
    eventually("the hint", || {
        again.hints().borrow().occupied == Position(1)
    })
    .await;
    assert_eq!(next(&ledger).await, 2);
}

#[tokio::test]
async fn what_cannot_be_is_said_when_the_ledger_is_opened() {
    for (address, next_step) in [
        ("zookeeper://host/zookeeper/quota", "another prefix"),
        ("zookeeper://a%3Ab:secret@host", "no colon"),
        ("zookeeper://host/prefix?tls=true", "leave out tls"),
    ] {
        let opened = SharedLedger::open(&address.parse().expect("an address"));
        match opened {
            Err(OpenError::Unfit(said)) => assert!(said.contains(next_step), "{said}"),
            other => panic!("{address} was opened as {other:?}"),
        }
    }
}
