//! What the database refuses, in words that tell the next step; and what it must not be told to lose.

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::{AppendError, Ledger, ReadError};
use quorate_servers::postgres::{Following, Postgres};
use tokio::task::block_in_place;

use super::{address, schema, single};
use crate::support::{entries, fill, long, next, open_at, refusal, text, whole, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_hears_what_to_do() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let server = server.expect("it comes up");
    let port = server.port();
    block_in_place(|| server.sql("quorate", "create role guarded login password 'right'"))
        .expect("it can be made");
    let guarded = |password: &str, database: &str| {
        open_at(&format!(
            "postgres://guarded:{password}@127.0.0.1:{port}/{database}"
        ))
    };
    let told = refusal(&guarded("wrong", "quorate"), 1).await;
    assert!(told.contains("password_file="), "{told}");
    let told = refusal(&guarded("right", "nowhere"), 1).await;
    assert!(told.contains("createdb"), "{told}");
    let told = refusal(&guarded("right", "quorate"), 1).await;
    assert!(
        told.contains("create schema quorate authorization"),
        "{told}"
    );
    // As it says.
    block_in_place(|| server.sql("quorate", "create schema quorate authorization guarded"))
        .expect("it can be made");
    let ledger = guarded("right", "quorate");
    fill(&ledger, 1..=2).await;
    long::begins_and_moves(&ledger, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_refuses_for_certain() {
    let [port] = *quorate_servers::process::free_ports(1).expect("a port") else {
        panic!("one was asked for");
    };
    let told = refusal(&open_at(&address(port, "quorate")), 1).await;
    assert!(told.contains("refused"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_alone_is_told_to_be_one() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let primary = server.expect("it comes up");
    let standby = block_in_place(|| primary.standby(Following::Asynchronous)).expect("it follows");
    let told = refusal(&open_at(&address(standby.port(), "quorate")), 1).await;
    assert!(told.contains("takes writes: name all servers"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_text_is_spoken_to_a_server_that_has_no_tls_only_when_that_is_asked_for() {
    let Some(kept) = single() else { return };
    let address = format!("{}&tls=true", address(kept.told, &schema()));
    let told = refusal(&open_at(&address), 1).await;
    assert!(told.contains("TLS"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_told_to_lose_what_it_committed_does_not_lose_the_ledger() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let mut server = server.expect("it comes up");
    // Nothing is flushed for a long time but what has to be.
    for set in [
        "alter database quorate set synchronous_commit = off",
        "alter system set wal_writer_delay = '10s'",
        "alter system set wal_writer_flush_after = '1GB'",
    ] {
        block_in_place(|| server.sql("quorate", set)).expect("it can be set");
    }
    block_in_place(|| server.sql("quorate", "select pg_reload_conf()")).expect("it reloads");
    let ledger = open_at(&address(server.port(), "quorate"));
    fill(&ledger, 1..=20).await;
    let reads = block_in_place(|| server.sql("quorate", "show synchronous_commit"));
    assert_eq!(reads.expect("it answers"), "off", "for everybody else");
    block_in_place(|| {
        server.kill().expect("it runs");
        server.start_again().expect("it starts again");
    });
    assert_eq!(next(&ledger).await, 21);
    assert_eq!(entries(&ledger, 20, 1).await, [text(20)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serialization_failures_are_refusals_and_whoever_tries_again_gets_through() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let server = server.expect("it comes up");
    let set = "alter database quorate set default_transaction_isolation = 'serializable'";
    block_in_place(|| server.sql("quorate", set)).expect("it can be set");
    let address = address(server.port(), "quorate");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4_u64 {
        let ledger = open_at(&address);
        writers.spawn(async move {
            for number in 0..15_u64 {
                let entry = format!("{writer}:{number}").into_bytes();
                let mut at = next(&ledger).await;
                while !crate::support::claim(&ledger, at, &entry).await {
                    at = next(&ledger).await.max(at + 1);
                }
            }
        });
    }
    while let Some(writer) = within("a writer", writers.join_next()).await {
        writer.expect("a writer does not fail");
    }
    assert_eq!(next(&open_at(&address)).await, 61);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_somebody_else_are_told_and_left_alone() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let server = server.expect("it comes up");
    let make = "create schema quorate; create table quorate.head (whose text); \
                insert into quorate.head values ('mine')";
    block_in_place(|| server.sql("quorate", make)).expect("it can be made");
    let ledger = open_at(&address(server.port(), "quorate"));
    let told = within("a tail", ledger.tail()).await;
    let Err(error @ ReadError::Unavailable(_)) = told else {
        panic!("a table of somebody else was read as {told:?}");
    };
    assert!(
        whole(&error).contains("does not exist"),
        "{}",
        whole(&error)
    );
    let put = within("an append", ledger.append(Position(1), Epoch(1), text(1))).await;
    assert!(matches!(put, Err(AppendError::Refused { .. })), "{put:?}");
    let kept = block_in_place(|| server.sql("quorate", "select whose from quorate.head"));
    assert_eq!(kept.expect("it answers"), "mine");
}
