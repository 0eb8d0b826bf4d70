//! Who may write a checkpoint, which one counts, and when it is gone.

use super::*;
use crate::checkpoint::{Checkpoint, Content};
use crate::record::{Desired, MoveReason, ReleaseOutcome};

fn put(partition: PartitionId, token: Token, number: u64, text: &str) -> Record {
    Record::CheckpointPut {
        partition,
        token,
        number,
        content: Content::new(text.as_bytes()).unwrap(),
        tell: false,
    }
}

fn kept<'a>(log: &'a Log, name: &str) -> Option<(Token, u64, &'a str)> {
    let partition = log.cluster.partition(log.id(name)).unwrap();
    let checkpoint = partition.checkpoint();
    checkpoint.map(
        |Checkpoint {
             token,
             number,
             at: _,
             content,
         }| {
            let text = std::str::from_utf8(content.as_bytes()).unwrap();
            (*token, *number, text)
        },
    )
}

fn released(partition: PartitionId, token: Token) -> Record {
    Record::Released {
        partition,
        token,
        outcome: ReleaseOutcome::Stopped,
        exit: None,
        failures: 0,
    }
}

/// The states of a partition, and whether its token may write in each.
#[test]
fn only_the_token_under_which_something_may_execute_writes() {
    let mut log = Log::with(&["p"]);
    let p = log.id("p");
    log.refuse(put(p, Token(1), 1, "free"), Refused::NotHolder);
    let token = log.assign("p", 1);
    log.refuse(put(p, token, 1, "assigned"), Refused::NotHolder);
    log.accept(vec![assumed(p, 1, token)]);
    log.refuse(put(p, Token(token.0 + 1), 1, "above"), Refused::NotHolder);
    log.refuse(put(p, Token(0), 1, "below"), Refused::NotHolder);
    log.accept(vec![put(p, token, 1, "assumed")]);
    log.accept(vec![Record::Revoked {
        partition: p,
        token,
        reason: MoveReason::Balance,
    }]);
    log.accept(vec![put(p, token, 2, "stopping")]);
    log.accept(vec![released(p, token)]);
    log.refuse(put(p, token, 3, "released"), Refused::NotHolder);
    log.refuse(put(PartitionId(9), token, 3, "none"), Refused::NoPartition);
    assert_eq!(kept(&log, "p"), Some((token, 2, "stopping")));
}

/// What waits for a fence hook is still held, by a session that nobody hears any more.
#[test]
fn a_session_that_has_expired_and_waits_for_a_fence_hook_writes_nothing() {
    let mut log = Log::with(&["p"]);
    let p = log.id("p");
    let mut fenced = spec("x");
    fenced.fence = Some(HookName::new("power-off").unwrap());
    log.accept(vec![Record::ServicePut {
        name: service("s"),
        spec: fenced,
    }]);
    let token = log.assume("p", 1);
    log.accept(vec![put(p, token, 1, "before")]);
    log.accept(vec![Record::SessionExpired {
        session: SessionId(1),
    }]);
    let holder = log.cluster.partition(p).unwrap().running_under();
    assert_eq!(holder.map(|holder| holder.token), Some(token));
    log.refuse(put(p, token, 2, "after"), Refused::NotHolder);
    assert_eq!(kept(&log, "p"), Some((token, 1, "before")));
}

#[test]
fn under_one_token_the_highest_number_counts_and_under_the_next_any() {
    let mut log = Log::with(&["p"]);
    let p = log.id("p");
    let first = log.assume("p", 1);
    log.accept(vec![put(p, first, 5, "five")]);
    log.refuse(put(p, first, 5, "again"), Refused::Superseded);
    log.refuse(put(p, first, 4, "late"), Refused::Superseded);
    log.accept(vec![put(p, first, 6, "six")]);
    log.accept(vec![Record::SessionExpired {
        session: SessionId(1),
    }]);
    let second = log.assume("p", 2);
    assert_eq!(kept(&log, "p"), Some((first, 6, "six")), "it moves along");
    log.refuse(put(p, first, 7, "stale owner"), Refused::NotHolder);
    log.accept(vec![put(p, second, 1, "one")]);
    assert_eq!(kept(&log, "p"), Some((second, 1, "one")));
}

#[test]
fn stopping_and_starting_keep_it_and_removing_drops_it() {
    let mut log = Log::with(&["p", "q"]);
    let (p, q) = (log.id("p"), log.id("q"));
    let (of_p, of_q) = (log.assume("p", 1), log.assume("q", 1));
    log.accept(vec![put(p, of_p, 1, "p"), put(q, of_q, 1, "q")]);
    for desired in [Desired::Stopped, Desired::Running] {
        log.accept(vec![Record::DesiredSet {
            service: service("s"),
            key: Some(key("p")),
            desired,
        }]);
    }
    log.accept(vec![released(p, of_p)]);
    assert_eq!(kept(&log, "p"), Some((of_p, 1, "p")));

    // Removed while it runs and listed again before it has stopped: as good as new.
    log.accept(vec![Record::PartitionsRemoved {
        service: service("s"),
        keys: vec![key("p"), key("q")],
    }]);
    log.refuse(put(q, of_q, 2, "going"), Refused::NotHolder);
    log.accept(vec![Record::PartitionsPut {
        service: service("s"),
        partitions: vec![partition("p", None), partition("q", None)],
    }]);
    assert_eq!(log.id("q"), q, "its run is still being stopped");
    log.refuse(put(q, of_q, 2, "of its former life"), Refused::NotHolder);
    assert_eq!((kept(&log, "p"), kept(&log, "q")), (None, None));
}

#[test]
fn what_was_stopping_when_it_was_removed_says_nothing_in_its_next_life() {
    let mut log = Log::with(&["p"]);
    let p = log.id("p");
    let token = log.assume("p", 1);
    log.accept(vec![put(p, token, 1, "p")]);
    log.accept(vec![Record::Revoked {
        partition: p,
        token,
        reason: MoveReason::LeaseChanged,
    }]);
    log.accept(vec![put(p, token, 2, "on its way out")]);
    log.accept(vec![Record::PartitionsRemoved {
        service: service("s"),
        keys: vec![key("p")],
    }]);
    log.accept(vec![Record::PartitionsPut {
        service: service("s"),
        partitions: vec![partition("p", None)],
    }]);
    assert_eq!(log.id("p"), p, "its run is still being stopped");
    log.refuse(put(p, token, 3, "of its former life"), Refused::NotHolder);
    assert_eq!(kept(&log, "p"), None);
}

#[test]
fn new_data_weight_and_specification_keep_it() {
    let mut log = Log::with(&["p"]);
    let p = log.id("p");
    let token = log.assume("p", 1);
    log.accept(vec![put(p, token, 1, "kept")]);
    let mut heavier = partition("p", Some("{\"url\":\"x\"}"));
    heavier.weight = 9;
    log.accept(vec![
        Record::PartitionsPut {
            service: service("s"),
            partitions: vec![heavier],
        },
        Record::ServicePut {
            name: service("s"),
            spec: spec("y"),
        },
    ]);
    assert_eq!(kept(&log, "p"), Some((token, 1, "kept")));
}

#[test]
fn its_agent_is_told_only_of_what_did_not_come_through_it() {
    let mut log = Log::with(&["p"]);
    let p = log.id("p");
    let token = log.assume("p", 1);
    let changed = |log: &Log| {
        let session = log.cluster.session(SessionId(1)).unwrap().changed();
        (log.cluster.partition(p).unwrap().changed(), session)
    };
    let before = changed(&log);
    log.accept(vec![put(p, token, 1, "through it")]);
    assert_eq!(changed(&log), before);
    let mut direct = put(p, token, 2, "directly");
    if let Record::CheckpointPut { tell, .. } = &mut direct {
        *tell = true;
    }
    log.accept(vec![direct]);
    let now = log.cluster.position();
    assert_eq!(changed(&log), (now, now));
}

#[test]
fn it_is_part_of_the_state_and_of_snapshots_and_no_event() {
    let mut log = Log::with(&["p"]);
    let p = log.id("p");
    let token = log.assume("p", 1);
    let mut other = log.cluster.clone();
    let applied = log.apply(vec![put(p, token, 1, "a")]);
    assert!(applied.changes.is_empty());
    let entry = |text: &str| Entry {
        header: Entry::decode(log.entries.last().unwrap()).unwrap().header,
        records: vec![put(p, token, 1, text)],
    };
    other.apply(other.position().next(), entry("b"));
    let mut same = Cluster::decode(&log.cluster.encode()).unwrap();
    assert_eq!(same, log.cluster);
    assert_ne!(other.state_hash(), log.cluster.state_hash());
    same.apply(same.position().next(), entry("a"));
    assert_eq!(
        same.partition(p).unwrap().checkpoint().unwrap().token,
        token
    );
}
