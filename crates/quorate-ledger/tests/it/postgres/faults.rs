//! Servers that end, stand still, and are replaced: the ledger goes on by itself, loses nothing that was answered, and
//! tells no lie.

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::{AppendError, Ledger, ReadError};
use quorate_servers::postgres::{Following, Postgres};
use rustix::process::Signal;
use tokio::task::block_in_place;

use super::address;
use crate::support::race::{self, Race};
use crate::support::{entries, eventually, fill, hinted, next, open_at, text, within};

fn start() -> Option<Postgres> {
    Some(Postgres::start()?.expect("it comes up"))
}

/// The address of two servers, of which one is the primary.
fn either(one: &Postgres, other: &Postgres) -> String {
    let (one, other) = (one.port(), other.port());
    format!("postgres://postgres@127.0.0.1:{one},127.0.0.1:{other}/quorate")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_server_is_killed_and_when_it_is_restarted() {
    let Some(mut server) = start() else { return };
    let address = address(server.port(), "quorate");
    let race = Race::start(|_| open_at(&address));
    race.reaches(10).await;
    block_in_place(|| {
        server.kill().expect("it runs");
        server.start_again().expect("it starts again");
    });
    race.reaches(40).await;
    block_in_place(|| {
        server.server().end();
        server.start_again().expect("it starts again");
    });
    race.assert_nothing_is_lost(&open_at(&address)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_leaves_what_was_asked_open_and_goes_on() {
    let Some(server) = start() else { return };
    let address = address(server.port(), "quorate");
    let ledger = open_at(&address);
    fill(&ledger, 1..=3).await;
    server.signal_all(Signal::STOP).expect("it runs");
    let asked = ledger.append(Position(4), Epoch(1), text(4));
    let answer = within("an append", asked).await;
    assert!(
        matches!(answer, Err(AppendError::OutcomeUnknown { .. })),
        "{answer:?}"
    );
    server.signal_all(Signal::CONT).expect("it runs");
    // It may have landed meanwhile: it is this one all the same.
    fill(&ledger, 4..=6).await;
    assert_eq!(entries(&ledger, 4, 1).await, [text(4)]);
    assert_eq!(next(&ledger).await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_synchronous_standby_takes_over() {
    let Some(mut primary) = start() else { return };
    let standby = primary.standby(Following::Synchronous).expect("it follows");
    let address = either(&primary, &standby);
    let follower = open_at(&address);
    let race = Race::start(|_| open_at(&address));
    race.reaches(30).await;
    block_in_place(|| {
        primary.kill().expect("it runs");
        standby.promote().expect("it can take over");
    });
    race.assert_nothing_is_lost(&open_at(&address)).await;
    hinted(&follower, race::ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_replaced_tells_no_old_end_and_takes_nothing() {
    let Some(primary) = start() else { return };
    let standby = primary.standby(Following::Synchronous).expect("it follows");
    let old = open_at(&address(primary.port(), "quorate"));
    fill(&old, 1..=5).await;
    // The standby is made the primary while the one before lives on and knows nothing of it.
    block_in_place(|| standby.promote()).expect("it can take over");
    let new = open_at(&address(standby.port(), "quorate"));
    fill(&new, 6..=9).await;
    let told = within("a tail", old.tail()).await;
    assert!(matches!(told, Err(ReadError::Unavailable(_))), "{told:?}");
    let put = within("an append", old.append(Position(6), Epoch(1), text(6))).await;
    assert!(put.is_err(), "{put:?}");
    assert_eq!(next(&new).await, 10);
    assert_eq!(entries(&new, 6, 1).await, [text(6)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_asynchronous_standby_has_not_got_is_another_history_and_told_as_it_is() {
    let Some(mut primary) = start() else { return };
    let mut standby = primary
        .standby(Following::Asynchronous)
        .expect("it follows");
    let address = either(&primary, &standby);
    let ledger = open_at(&address);
    fill(&ledger, 1..=5).await;
    let replayed = "select 1 from quorate.head where next = 6";
    eventually("the standby has the first entries", || {
        block_in_place(|| standby.sql("quorate", replayed)).is_ok_and(|told| told == "1")
    })
    .await;
    // What comes now never reaches it.
    block_in_place(|| standby.server().end());
    fill(&ledger, 6..=9).await;
    block_in_place(|| {
        primary.kill().expect("it runs");
        standby.start_again().expect("it starts again");
        standby.promote().expect("it can take over");
    });
    // The end is told as it is: that it is below what was seen is for the directors to find.
    assert_eq!(next(&ledger).await, 6);
    fill(&ledger, 6..=7).await;
}
