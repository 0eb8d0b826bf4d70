//! What the fold remembers of requests with an idempotency key: so many, for so long, the same everywhere.

use super::*;
use crate::director::call::Applied;
use crate::ids::CredentialId;
use crate::record::Desired;
use crate::repeats::{Answered, Before, Digest, KEPT_FOR, KEPT_MAX, Key, Told};

fn wanted(desired: Desired) -> Record {
    Record::DesiredSet {
        service: service("s"),
        key: None,
        desired,
    }
}

fn told(note: &str) -> Told {
    Told::of(&[note.to_owned()], std::iter::empty())
}

fn answered(key: u128, request: u128) -> Record {
    Record::Answered(Box::new(Answered {
        key: Key {
            of: Digest(key),
            request: Digest(request),
        },
        records: 1,
        told: told("done"),
    }))
}

impl Log {
    /// The request that was done under a key, as is known at this wall time.
    fn before(&self, key: u128, wall: i64) -> Option<&Before> {
        self.cluster.repeats().before(Digest(key), WallTime(wall))
    }

    /// A change under each of these keys, all in one entry at this wall time.
    fn change_at(&mut self, wall: i64, keys: std::ops::Range<u128>) {
        let position = self.cluster.position().next();
        let records = keys.flat_map(|key| [wanted(Desired::Stopped), answered(key, key)]);
        let header = Header {
            format: crate::format::Format::FIRST,
            epoch: self.cluster.epoch(),
            batch: BatchId::default(),
            predecessor: self.cluster.last_hash(),
            wall: WallTime(wall),
        };
        let records = records.collect();
        self.cluster.apply(position, Entry { header, records });
        assert_eq!(self.cluster.check(), Vec::<String>::new());
    }
}

#[test]
fn an_answer_is_remembered_with_the_position_of_its_change() {
    let mut log = Log::with(&["p"]);
    let hash = log.cluster.state_hash();
    log.accept(vec![wanted(Desired::Stopped), answered(7, 8)]);
    let at = log.cluster.position();
    log.accept(vec![Record::Beat]);
    let before = log.before(7, 0).unwrap();
    assert_eq!((before.at, before.key.request), (at, Digest(8)));
    assert_eq!(before.told.notes(), ["done"]);
    assert_eq!(log.before(8, 0), None);
    assert_ne!(log.cluster.state_hash(), hash);
}

#[test]
fn what_was_refused_in_any_part_is_not_remembered() {
    let mut log = Log::with(&["p"]);
    let nowhere = Record::DesiredSet {
        service: service("nowhere"),
        key: None,
        desired: Desired::Stopped,
    };
    let applied = log.apply(vec![nowhere.clone(), answered(7, 8)]);
    // Nobody is refused for what stands behind his change.
    assert_eq!(
        applied.outcomes,
        [Outcome::Refused(Refused::NoService), Outcome::Accepted]
    );
    assert_eq!(log.before(7, 0), None);
    // Of its own records alone: another's refusal, in the same entry, is not its own.
    log.apply(vec![nowhere, wanted(Desired::Stopped), answered(7, 8)]);
    assert!(log.before(7, 0).is_some());
    // What a deposed leader wrote was not done.
    log.elect();
    let old = Epoch(log.cluster.epoch().0 - 1);
    log.fold(old, vec![wanted(Desired::Running), answered(9, 9)]);
    assert_eq!(log.before(9, 0), None);
    // A part of a change has none of its own.
    let change = BatchId::default();
    let part = Record::Staged {
        change,
        records: vec![answered(9, 9)],
        last: true,
    };
    log.refuse(part, Refused::Staged);
}

#[test]
fn the_newest_are_remembered_and_each_for_a_while_by_the_wall_times_of_the_entries() {
    let long = i64::try_from(KEPT_FOR.as_millis()).unwrap();
    let mut log = Log::with(&["p"]);
    log.change_at(1_000, 0..2);
    assert!(log.before(0, 1_000 + long - 1).is_some());
    assert_eq!(log.before(0, 1_000 + long), None, "over, and still there");
    // A leader whose clock is behind takes it for new.
    assert!(log.before(0, -long).is_some());
    log.change_at(1_000 + long, 2..3);
    assert_eq!(log.cluster.repeats().len(), 1);

    // Under a key that is over something new is done; it is the newest then.
    log.change_at(1_001 + long, 3..4);
    log.change_at(1_001 + 2 * long, 2..3);
    assert_eq!(
        log.before(2, 1_001 + 2 * long).unwrap().wall.0,
        1_001 + 2 * long
    );

    let most = KEPT_MAX as u128;
    let mut log = Log::with(&["p"]);
    log.change_at(5, 0..most / 2);
    log.change_at(4, most / 2..most);
    assert_eq!(log.cluster.repeats().len(), KEPT_MAX);
    log.change_at(5, most..most + 3);
    assert_eq!(log.cluster.repeats().len(), KEPT_MAX);
    let known = |key| log.before(key, 5).is_some();
    assert!(!known(0) && !known(2), "the oldest had to go");
    assert!(known(3) && known(most + 2));
}

#[test]
fn a_snapshot_remembers_the_same_in_the_same_order() {
    let mut log = Log::with(&["p"]);
    // Not in the order of the keys.
    for from in [900, 20, 700] {
        log.change_at(5, from..from + 2);
    }
    let mut after = Log {
        cluster: Cluster::decode(&log.cluster.encode()).unwrap(),
        ..Log::default()
    };
    assert_eq!(after.cluster, log.cluster);
    assert_eq!(after.cluster.state_hash(), log.cluster.state_hash());
    let order = after.cluster.repeats().in_order();
    let order: Vec<u128> = order.map(|before| before.key.of.0).collect();
    assert_eq!(order, [900, 901, 20, 21, 700, 701]);

    // Both forget the same ones next.
    for log in [&mut log, &mut after] {
        log.change_at(5, 10_000..10_000 + KEPT_MAX as u128 - 4);
        assert!(log.before(901, 5).is_none() && log.before(20, 5).is_some());
    }
    assert_eq!(after.cluster, log.cluster);
    assert_eq!(after.cluster.state_hash(), log.cluster.state_hash());
}

#[test]
fn the_hash_tells_every_part_of_what_is_remembered() {
    let hash_after = |records: Vec<Record>| {
        let mut log = Log::with(&["p"]);
        log.cluster.last_hash = 0;
        for record in records {
            log.cluster.apply(
                log.cluster.position().next(),
                Entry {
                    header: Header {
                        format: crate::format::Format::FIRST,
                        epoch: log.cluster.epoch(),
                        batch: BatchId::default(),
                        predecessor: 0,
                        wall: WallTime(1),
                    },
                    records: vec![wanted(Desired::Stopped), record],
                },
            );
        }
        log.cluster.state_hash()
    };
    let plain = hash_after(vec![answered(7, 8), answered(9, 8)]);
    assert_eq!(plain, hash_after(vec![answered(7, 8), answered(9, 8)]));
    let noted = |told| {
        let Record::Answered(mut answered) = answered(9, 8) else {
            unreachable!()
        };
        answered.told = told;
        Record::Answered(answered)
    };
    let id = CredentialId::new("t1").unwrap();
    for other in [
        vec![answered(9, 8), answered(7, 8)],
        vec![answered(7, 8), answered(10, 8)],
        vec![answered(7, 8), answered(9, 9)],
        vec![answered(7, 8), noted(told("other"))],
        vec![answered(7, 8), noted(told("done").with_secret_of(Some(id)))],
    ] {
        assert_ne!(plain, hash_after(other));
    }
}

#[test]
fn what_is_told_again_is_short_and_says_when_something_is_missing() {
    let notes = |count: usize| vec!["n".repeat(47); count];
    let short = Told::of(&notes(10), std::iter::empty());
    assert_eq!(short.notes(), notes(10));
    let long = Told::of(&notes(11), [Applied::Created].into_iter());
    assert!(long.applied().is_empty());
    assert!(matches!(long.notes(), [only] if only.contains("is not kept")));
    let many = Told::of(&[], vec![Applied::Changed; 52].into_iter());
    assert!(many.applied().is_empty(), "many services");
    let all = Told::of(&[], vec![Applied::Unchanged; 51].into_iter());
    assert_eq!(all.applied().len(), 51);
}

/// Who plans the size of a ledger counts on it.
#[test]
fn a_record_of_an_answer_is_small() {
    let largest = Key {
        of: Digest(u128::MAX),
        request: Digest(u128::MAX),
    };
    let record = |told| {
        let records = 2;
        let key = largest;
        Record::Answered(Box::new(Answered { key, records, told }))
    };
    let bytes = |told| rmp_serde::to_vec_named(&record(told)).unwrap().len();
    assert!(bytes(Told::default()) <= 90, "{}", bytes(Told::default()));
    for told in [
        Told::of(&[], vec![Applied::Unchanged; 51].into_iter()),
        Told::of(&["n".repeat(509)], std::iter::empty()),
        Told::of(&vec![String::new(); 170], std::iter::empty()),
    ] {
        assert!(bytes(told.clone()) <= 90 + 512 + 32, "{}", bytes(told));
    }
}
