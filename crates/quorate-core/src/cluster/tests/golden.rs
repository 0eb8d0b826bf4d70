//! The bytes of the ledger as they were when the format was fixed: one entry with each kind of record,
//! and the snapshot of what they made. A difference here needs a new format number and an ADR, because
//! directors of two versions read the same ledger during an upgrade.

use super::{Log, assumed, key, opened, partition, service, spec};
use crate::access::{self, Admission, JoinGrant, Node, Role, TokenGrant};
use crate::audit::{Audit, By, Who};
use crate::checkpoint::Content;
use crate::cluster::{Cluster, NewEra, SnapshotError};
use crate::director::call::Applied;
use crate::format::Format;
use crate::ids::{
    AgentName, BatchId, CredentialId, DirectorName, Incarnation, NodeName, ServicePrefix, Token,
    TokenName,
};
use crate::record::{
    Cause, CloseReason, Desired, DirectorInfo, Entry, Exit, ExitClass, MoveReason, Record,
    ReleaseOutcome, RunPhase, RunReport, Schedulable,
};
use crate::repeats::{Answered, Digest, Key, Told};
use crate::spec::PartitionSpec;
use crate::time::WallTime;

/// The place of a kind in the list of all; a new kind does not compile until it has one.
fn kind(record: &Record) -> usize {
    match record {
        Record::Elected { .. } => 0,
        Record::Beat => 1,
        Record::ServicePut { .. } => 2,
        Record::ServiceRemoved { .. } => 3,
        Record::PartitionsPut { .. } => 4,
        Record::PartitionsRemoved { .. } => 5,
        Record::Staged { .. } => 6,
        Record::SourceStatus { .. } => 7,
        Record::DesiredSet { .. } => 8,
        Record::RestartAsked { .. } => 9,
        Record::AgentSet { .. } => 10,
        Record::SessionOpened { .. } => 11,
        Record::SessionResumed { .. } => 12,
        Record::SessionClosed { .. } => 13,
        Record::SessionExpired { .. } => 14,
        Record::Assigned { .. } => 15,
        Record::Withdrawn { .. } => 16,
        Record::Assumed { .. } => 17,
        Record::Revoked { .. } => 18,
        Record::Released { .. } => 19,
        Record::Observed { .. } => 20,
        Record::Evicted { .. } => 21,
        Record::Silent { .. } => 22,
        Record::Heard { .. } => 23,
        Record::Fenced { .. } => 24,
        Record::Drifts { .. } => 25,
        Record::CheckpointPut { .. } => 26,
        Record::AgentForgotten { .. } => 27,
        Record::DirectorKnown { .. } => 28,
        Record::DirectorForgotten { .. } => 29,
        Record::Access(_) => 30,
        Record::Audited(_) => 31,
        Record::Answered(_) => 32,
        Record::Format { .. } => 33,
    }
}

const KINDS: usize = 34;

fn put(partitions: Vec<PartitionSpec>) -> Record {
    Record::PartitionsPut {
        service: service("s"),
        partitions,
    }
}

const CRASH: Exit = Exit {
    class: ExitClass::Crash,
    code: Some(3),
    signal: None,
    cause: None,
};

/// Everything that can happen to a cluster, once.
fn everything() -> Log {
    let mut log = Log::with(&["p1", "p2", "p3", "p4"]);
    log.accept(vec![Record::Beat]);
    what_people_want(&mut log);
    log.accept(vec![Record::SessionResumed {
        session: crate::ids::SessionId(1),
        incarnation: Incarnation(3),
        process: 9,
    }]);
    rights(&mut log);
    let c = opened(&log.cluster, "c", 3);
    log.accept(vec![c]);
    log.accept(vec![
        Record::SessionExpired {
            session: crate::ids::SessionId(2),
        },
        Record::SessionClosed {
            session: crate::ids::SessionId(3),
            reason: CloseReason::AgentDied,
        },
    ]);
    let d = opened(&log.cluster, "d", 4);
    log.accept(vec![d]);
    let session = log.cluster.next_session();
    let session = crate::ids::SessionId(session.0 - 1);
    log.accept(vec![
        Record::Silent {
            session,
            for_ms: 7_500,
        },
        Record::Heard { session },
        Record::Drifts {
            agent: AgentName::new("d").unwrap(),
            ppm: -12_000,
        },
        Record::Fenced {
            session,
            agent: AgentName::new("d").unwrap(),
            hook: crate::ids::HookName::new("power-off").unwrap(),
        },
    ]);
    log.accept(vec![Record::Evicted {
        agent: AgentName::new("d").unwrap(),
        reason: Cause::new("its rack burnt"),
    }]);
    log.accept(vec![Record::SessionClosed {
        session,
        reason: CloseReason::Evicted,
    }]);
    let p1 = log.id("p1");
    log.accept(vec![Record::CheckpointPut {
        partition: p1,
        token: Token(1),
        number: 7_000_001,
        content: Content::new(b"offset 17\xff").unwrap(),
        tell: true,
    }]);
    let passes_by = opened(&log.cluster, "z", 9);
    let session = log.cluster.next_session();
    log.accept(vec![passes_by, Record::SessionExpired { session }]);
    log.accept(vec![Record::AgentForgotten {
        agent: AgentName::new("z").unwrap(),
    }]);
    directors(&mut log);
    tokens(&mut log);
    log
}

/// The same, gone over to the second format.
fn everything_since() -> Log {
    let mut log = everything();
    log.accept(vec![director("d2", Format(2))]);
    log.accept(vec![Record::Format { format: Format(2) }]);
    log.accept(vec![Record::Beat]);
    log
}

fn director(name: &str, format: Format) -> Record {
    Record::DirectorKnown {
        director: DirectorInfo {
            name: DirectorName::new(name).unwrap(),
            id: 7,
            address: format!("{name}:7400"),
            version: "0.1.0".to_owned(),
            format,
            oldest_format: Format::FIRST,
        },
    }
}

fn directors(log: &mut Log) {
    for name in ["d1", "d2"] {
        log.accept(vec![director(name, Format::FIRST)]);
    }
    log.accept(vec![Record::DirectorForgotten {
        director: DirectorName::new("d1").unwrap(),
    }]);
}

fn tokens(log: &mut Log) {
    let id = |id: &str| CredentialId::new(id).unwrap();
    let grant = |name: &str, role, scope: Option<&str>| {
        Record::Access(access::Record::TokenCreated(Box::new(TokenGrant {
            id: id(name),
            hash: "5a".repeat(32),
            name: TokenName::new("the CI of feeds").unwrap(),
            role,
            scope: scope.map(|scope| ServicePrefix::new(scope).unwrap()),
            expires: scope.map(|_| WallTime(1_800_000_000_000)),
            bootstrap: scope.is_none(),
        })))
    };
    log.accept(vec![
        grant("t0", Role::Admin, None),
        grant("t1", Role::Definer, Some("feeds-")),
        Record::Access(access::Record::JoinTokenCreated(Box::new(JoinGrant {
            id: id("j0"),
            hash: "a5".repeat(32),
            admits: Node::Agent,
            uses: 3,
            expires: WallTime(3_600_000),
        }))),
        Record::Access(access::Record::Admitted(Box::new(Admission {
            token: id("j0"),
            node: Node::Agent,
            name: NodeName::new("a7").unwrap(),
            request: "0f".repeat(32),
        }))),
        Record::Access(access::Record::TokenRevoked { id: id("t1") }),
        Record::Access(access::Record::JoinTokenRevoked { id: id("j0") }),
        Record::Audited(Box::new(Audit {
            by: By {
                who: Who::Token {
                    id: id("t0"),
                    name: TokenName::new("the first").unwrap(),
                },
                from: Some("192.0.2.7".to_owned()),
            },
            did: "revoke".to_owned(),
            to: vec!["join-token/j0".to_owned()],
            more: 0,
            records: 1,
        })),
        Record::Answered(Box::new(Answered {
            key: Key {
                of: Digest(1 << 127 | 7),
                request: Digest(8),
            },
            records: 2,
            told: Told::of(&["a note".to_owned()], [Applied::Changed].into_iter())
                .with_secret_of(Some(id("t1"))),
        })),
    ]);
}

fn what_people_want(log: &mut Log) {
    let mut full = partition("p5", Some("{\"url\":\"tcp://x\"}"));
    full.weight = 7;
    full.priority = -2;
    full.labels = [("zone".to_owned(), "a".to_owned())].into();
    let change = BatchId {
        writer: 1,
        sequence: 77,
    };
    log.accept(vec![
        Record::Staged {
            change,
            records: vec![put(vec![full])],
            last: true,
        },
        Record::PartitionsRemoved {
            service: service("s"),
            keys: vec![key("p4")],
        },
        Record::SourceStatus {
            service: service("s"),
            problem: Some("line 3: no key".to_owned()),
        },
        Record::DesiredSet {
            service: service("s"),
            key: Some(key("p5")),
            desired: Desired::Stopped,
        },
        Record::AgentSet {
            agent: AgentName::new("b").unwrap(),
            schedulable: Schedulable::Draining,
        },
        Record::ServicePut {
            name: service("t"),
            spec: spec("y"),
        },
        Record::ServiceRemoved { name: service("t") },
    ]);
}

fn rights(log: &mut Log) {
    log.assume("p1", 1);
    let p1 = log.id("p1");
    let withdrawn = log.assign("p2", 2);
    let p2 = log.id("p2");
    log.accept(vec![Record::Withdrawn {
        partition: p2,
        token: withdrawn,
        reason: MoveReason::Drain,
    }]);
    let token = log.assume("p2", 1);
    let p3 = log.id("p3");
    let third = log.assign("p3", 2);
    log.accept(vec![
        assumed(p3, 2, third),
        Record::RestartAsked {
            service: service("s"),
            key: Some(key("p1")),
        },
        Record::Observed {
            partition: p1,
            token: Token(1),
            run: RunReport {
                phase: RunPhase::Backoff,
                attempt: 2,
                pid: None,
                exit: Some(Box::new(Exit {
                    class: ExitClass::NotStarted,
                    code: None,
                    signal: None,
                    cause: Some(Cause::new("/bin/feed: no such file")),
                })),
            },
        },
        Record::Revoked {
            partition: p2,
            token,
            reason: MoveReason::Balance,
        },
        Record::Released {
            partition: p2,
            token,
            outcome: ReleaseOutcome::Stopped,
            exit: Some(CRASH),
            failures: 1,
        },
    ]);
}

/// Bytes with what is text in them as text, in lines of a bearable length.
fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    let letters: Vec<char> = text.chars().collect();
    letters
        .chunks(110)
        .map(|line| line.iter().collect::<String>() + "\n")
        .collect()
}

#[test]
fn entries_are_stored_as_they_always_were() {
    let log = everything_since();
    let mut seen = [false; KINDS];
    let mut told = String::new();
    for bytes in &log.entries {
        let entry = Entry::decode(bytes).unwrap();
        assert_eq!(&entry.encode(), bytes);
        for record in &entry.records {
            seen[kind(record)] = true;
        }
        told.push_str(&shown(bytes));
        told.push('\n');
    }
    assert_eq!(seen, [true; KINDS], "every kind of record is in it");
    insta::assert_snapshot!(told);
}

#[test]
fn snapshots_are_stored_as_they_always_were() {
    let cluster = everything().cluster;
    let bytes = cluster.encode();
    assert_eq!(Cluster::decode(&bytes).unwrap(), cluster);
    insta::assert_snapshot!(shown(&bytes));
}

#[test]
fn snapshots_name_the_format_of_a_ledger_that_is_over_the_first_one() {
    let name = b"ledger_format".as_slice();
    let names = |bytes: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(!names(&everything().cluster.encode()));
    let cluster = everything_since().cluster;
    let bytes = cluster.encode();
    assert!(names(&bytes));
    assert_eq!(Cluster::decode(&bytes).unwrap(), cluster);

    // Of a later one than this build reads.
    let at = bytes.windows(name.len()).position(|window| window == name);
    let mut later = bytes;
    later[at.unwrap() + name.len()] = 3;
    let error = Cluster::decode(&later).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Unread(unread) if unread.found == Format(3)),
        "{error:?}"
    );
}

#[test]
fn snapshots_of_a_restored_cluster_are_stored_as_they_always_were() {
    let new = NewEra {
        history: 7,
        ..NewEra::default()
    };
    let cluster = everything().cluster.in_new_era(new).unwrap().cluster;
    let bytes = cluster.encode();
    assert_eq!(Cluster::decode(&bytes).unwrap(), cluster);
    assert_eq!(cluster.check(), Vec::<String>::new());
    insta::assert_snapshot!(shown(&bytes));
}

/// The snapshot above as it was before there were checkpoints, and tokens.
#[test]
fn a_snapshot_from_before_there_were_checkpoints_and_tokens_is_taken_over_without_any() {
    let cluster = Cluster::decode(include_bytes!("before_checkpoints.snapshot")).unwrap();
    assert_eq!(cluster.check(), Vec::<String>::new());
    assert!(cluster.partition_count() > 0);
    assert!(cluster.partitions().all(|(_, p)| p.checkpoint().is_none()));
    assert!(cluster.credentials().tokens().is_empty());
    assert_eq!(Cluster::decode(&cluster.encode()).unwrap(), cluster);
}
