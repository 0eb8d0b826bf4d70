//! The guards of `docs/fencing.md` against real servers: every block of the document is run as it stands
//! there, by owners of which only one may be believed (S2, R12).

mod blocks;
mod lease;
mod python;
mod redis;
mod servers;
mod session;
mod sql;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use crate::support::eventually;
use python::Stand;
use redis::InRedis;
use servers::{Maria, Postgres};
use sql::{InMaria, InPostgres, Way};

const FEED: &str = "mb";
const CLUSTER: &str = "00000000000000c1";
const OTHER_CLUSTER: &str = "00000000000000c2";

/// How many rows each owner has written before the next one comes.
const ROWS: usize = 10;

/// How long an owner may write before the next one has come and it is refused.
const LIMIT: Duration = Duration::from_secs(60);

/// Somebody who was given a token. Each has a connection, or a process, of its own.
trait Owner: Send {
    /// `false` when refused.
    fn take_over(&mut self) -> bool;
    /// Writes one row; `false` when refused.
    fn write(&mut self, line: &str) -> bool;
}

/// What owners write to.
trait Resource: Sync {
    fn owner(&self, token: u64, cluster: &str) -> Box<dyn Owner>;
    /// The token of every row that is there, in the order of arrival.
    fn tokens(&self) -> Vec<u64>;
    /// Whether what was accepted is there for certain. Files cannot promise that.
    fn keeps_what_it_accepts(&self) -> bool {
        true
    }
}

/// Everything that the document says of a guard.
fn fences(resource: &dyn Resource) {
    a_late_write_is_refused_and_changes_nothing(resource);
    owners_in_a_row(resource);
    owners_all_at_once(resource);
}

fn a_late_write_is_refused_and_changes_nothing(resource: &dyn Resource) {
    let (mut five, mut seven) = (resource.owner(5, CLUSTER), resource.owner(7, CLUSTER));
    assert!(five.take_over());
    assert!(five.write("first"));
    assert!(seven.take_over());
    assert!(!five.write("late"));
    assert!(!five.take_over());
    assert!(!five.write("later"));
    assert_eq!(resource.tokens(), [5]);
    assert!(seven.write("second"));
    // A restart in place has the same token.
    assert!(seven.take_over());
    let mut again = resource.owner(7, CLUSTER);
    assert!(again.take_over());
    assert!(again.write("third"));
    let mut other = resource.owner(9, OTHER_CLUSTER);
    assert!(!other.take_over());
    assert!(!other.write("of another cluster"));
    assert_eq!(resource.tokens(), [5, 7, 7]);
    // Its higher number was not even remembered.
    assert!(again.write("fourth"));
}

/// Each new owner comes while the one before is writing as fast as it can, and goes on until it is refused.
fn owners_in_a_row(resource: &dyn Resource) {
    let begun = resource.tokens().len();
    let tokens = [11, 12, 13, 14];
    let written = tokens.map(|_| AtomicUsize::new(0));
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (token, written) in tokens.into_iter().zip(&written) {
            let enough = &enough;
            let last = token == 14;
            scope.spawn(move || {
                let mut owner = resource.owner(token, CLUSTER);
                assert!(owner.take_over(), "{token} is the newest");
                let begun = Instant::now();
                loop {
                    let over = enough.load(Ordering::SeqCst);
                    if !owner.write("row") {
                        break;
                    }
                    assert!(!over, "{token} wrote after newer owners");
                    assert!(begun.elapsed() < LIMIT, "{token} is never refused");
                    let rows = written.fetch_add(1, Ordering::SeqCst) + 1;
                    if last && rows >= ROWS {
                        enough.store(true, Ordering::SeqCst);
                        return;
                    }
                }
                assert!(!last, "nobody is newer than {token}");
                assert!(!owner.write("late"), "{token} was refused for ever");
            });
            eventually(&format!("{token} writes"), || {
                let rows = written.load(Ordering::SeqCst);
                (rows >= ROWS || enough.load(Ordering::SeqCst)).then_some(())
            });
        }
    });
    let arrived = resource.tokens().split_off(begun);
    assert!(arrived.is_sorted(), "{arrived:?}");
    for (token, written) in tokens.into_iter().zip(written) {
        compare(resource, &arrived, token, written.into_inner());
    }
}

/// Owners that begin at one moment, in no order, and write until they are refused.
fn owners_all_at_once(resource: &dyn Resource) {
    let begun = resource.tokens().len();
    let tokens = [24, 21, 26, 22, 25, 23];
    let together = Barrier::new(tokens.len());
    let written = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for token in tokens {
            let (together, written) = (&together, &written);
            scope.spawn(move || {
                let mut owner = resource.owner(token, CLUSTER);
                together.wait();
                let mut rows = 0;
                if owner.take_over() {
                    while rows < ROWS && owner.write("row") {
                        rows += 1;
                    }
                }
                written.lock().expect("nobody failed").push((token, rows));
            });
        }
    });
    let arrived = resource.tokens().split_off(begun);
    assert!(arrived.is_sorted(), "{arrived:?}");
    for (token, rows) in written.into_inner().expect("nobody failed") {
        assert!(token != 26 || rows == ROWS, "26 is the newest");
        compare(resource, &arrived, token, rows);
    }
}

/// What an owner was told is what is there.
fn compare(resource: &dyn Resource, arrived: &[u64], token: u64, told: usize) {
    let there = arrived.iter().filter(|there| **there == token).count();
    if resource.keeps_what_it_accepts() {
        assert_eq!(there, told, "rows of {token}");
    } else {
        assert!(there <= told, "rows of {token}: {there} of {told}");
    }
}

#[test]
fn every_block_of_the_document_is_one_that_these_tests_run() {
    let words: Vec<String> = blocks::all().into_iter().map(|(words, _)| words).collect();
    assert_eq!(words, blocks::BLOCKS);
}

#[test]
fn postgresql_fences() {
    let Some(server) = Postgres::start() else {
        return;
    };
    for way in [Way::Statement, Way::Transaction, Way::Trigger] {
        let resource = InPostgres::new(&server, way);
        fences(&resource);
        if way == Way::Trigger {
            sql::nothing_gets_past_the_trigger(&resource);
        }
    }
}

#[test]
fn mariadb_fences() {
    if let Some(server) = Maria::start() {
        fences(&InMaria::new(server));
    }
}

#[test]
fn redis_fences() {
    if let Some(resource) = InRedis::start() {
        fences(&resource);
        redis::no_token_is_refused(&resource);
    }
}

#[test]
fn sqlite_fences() {
    fences(&Stand::sqlite());
}

#[test]
fn an_object_store_fences() {
    let stand = Stand::s3();
    fences(&stand);
    python::a_take_over_without_a_change_is_seen(&stand);
}

#[test]
fn a_server_fences() {
    let stand = Stand::http();
    fences(&stand);
    python::no_token_is_answered_as_the_document_says(&stand);
    python::nobody_takes_over_while_a_request_is_being_served(&stand);
}

#[test]
fn files_of_many_owners_show_that_of_the_newest() {
    let stand = Stand::files();
    fences(&stand);
    python::a_write_that_nothing_could_refuse_is_never_seen(&stand);
}
