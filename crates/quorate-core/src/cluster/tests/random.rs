//! Random logs, of records that mostly make sense and often do not: the fold never contradicts itself,
//! two folds agree, a snapshot is as good as the log, tokens go up, nothing runs twice.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::access::{self, Admission, JoinGrant, Node, Role, TokenGrant};
use crate::checkpoint::Content;
use crate::format::FORMATS;
use crate::history::{Change, What};
use crate::ids::{CredentialId, NodeName, ServicePrefix, TokenName};
use crate::record::{
    Cause, CloseReason, Desired, DirectorInfo, MoveReason, ReleaseOutcome, RunPhase, RunReport,
    Schedulable,
};
use crate::repeats::{Answered, Digest, Key, Told};

/// Four small numbers that become a record against the state at that point.
type Dice = (u8, u8, u8, u8);

fn pick<T: Copy>(from: &[T], dice: u8) -> T {
    from[usize::from(dice) % from.len()]
}

fn record(cluster: &Cluster, (kind, a, b, c): Dice) -> Record {
    let name = service(pick(&["s", "t", "u"], a));
    let names = ["k0", "k1", "k2", "k3", "k4"];
    let partition_key = key(pick(&names, b));
    let id = PartitionId(u32::from(b) % 8);
    let session = SessionId(u64::from(c) % 8);
    let held = cluster
        .partition(id)
        .and_then(|partition| partition.holder());
    // Mostly the true token, now and then one that is over or not given yet.
    let token = match (held, c % 8) {
        (_, 0) => Token(u64::from(a)),
        (Some(holder), _) => holder.token,
        (None, _) => cluster.next_token(),
    };
    let holder = held
        .filter(|_| c % 8 != 1)
        .map_or(session, |holder| holder.session);
    let reasons = [MoveReason::Balance, MoveReason::Failing, MoveReason::Drain];
    let reason = pick(&reasons, a);
    match kind % 34 {
        0 => {
            let mut spec = spec(pick(&["x", "y"], c));
            spec.fence = (c < 128).then(|| HookName::new("power-off").unwrap());
            Record::ServicePut { name, spec }
        }
        1 if b < 64 => Record::ServiceRemoved { name },
        1..=4 => Record::PartitionsPut {
            service: name,
            partitions: vec![
                partition(partition_key.as_str(), pick(&[None, Some("1")], c)),
                partition(pick(&names, c), None),
            ],
        },
        5 => Record::PartitionsRemoved {
            service: name,
            keys: vec![partition_key],
        },
        6 => Record::DesiredSet {
            service: name,
            key: (c < 200).then_some(partition_key),
            desired: pick(&[Desired::Running, Desired::Stopped], b),
        },
        7 => Record::RestartAsked {
            service: name,
            key: (c < 128).then_some(partition_key),
        },
        8 if c % 4 == 0 => Record::AgentForgotten {
            agent: AgentName::new(pick(&["a", "b", "z"], a)).unwrap(),
        },
        8 => Record::AgentSet {
            agent: AgentName::new(pick(&["a", "b", "z"], a)).unwrap(),
            schedulable: pick(&[Schedulable::Active, Schedulable::Draining], b),
        },
        9 | 10 => opened(cluster, pick(&["a", "b", "c"], a), u64::from(b % 2)),
        11 => Record::SessionResumed {
            session,
            incarnation: pick(&[cluster.next_incarnation(), Incarnation(1)], a),
            process: u64::from(b),
        },
        12 => Record::SessionClosed {
            session,
            reason: CloseReason::Left,
        },
        13 => Record::SessionExpired { session },
        14 => Record::Withdrawn {
            partition: id,
            token,
            reason,
        },
        15 => Record::Revoked {
            partition: id,
            token,
            reason,
        },
        16 | 17 => Record::Released {
            partition: id,
            token,
            outcome: pick(
                &[
                    ReleaseOutcome::Stopped,
                    ReleaseOutcome::Move,
                    ReleaseOutcome::Done,
                    ReleaseOutcome::Failed,
                ],
                a,
            ),
            exit: None,
            failures: u32::from(a),
        },
        18 => Record::Observed {
            partition: id,
            token,
            run: RunReport {
                phase: pick(&[RunPhase::Starting, RunPhase::Ready, RunPhase::Backoff], a),
                attempt: u32::from(b % 3),
                pid: None,
                exit: None,
            },
        },
        19 => Record::Staged {
            change: BatchId {
                writer: 1,
                sequence: u64::from(a % 2),
            },
            records: vec![record(cluster, (c % 6, a, b, c))],
            last: b % 2 == 0,
        },
        20 => Record::SourceStatus {
            service: name,
            problem: (b < 128).then(|| "unreadable".to_owned()),
        },
        26 => Record::Silent {
            session,
            for_ms: u64::from(a),
        },
        27 => Record::Heard { session },
        28 => Record::Fenced {
            session: holder,
            agent: AgentName::new("a").unwrap(),
            hook: HookName::new(pick(&["power-off", "other"], a)).unwrap(),
        },
        29 => Record::Evicted {
            agent: AgentName::new(pick(&["a", "b", "z"], a)).unwrap(),
            reason: Cause::new("gone"),
        },
        21 | 22 => Record::Assigned {
            partition: id,
            session,
            token: if a % 8 == 0 {
                token
            } else {
                cluster.next_token()
            },
        },
        23 | 24 => Record::CheckpointPut {
            partition: id,
            token,
            number: u64::from(b % 4),
            content: Content::new(&[a]).unwrap(),
            tell: b % 3 == 0,
        },
        30 => Record::Access(access((a, b, c))),
        32 => Record::DirectorKnown {
            director: DirectorInfo {
                name: DirectorName::new(pick(&["d1", "d2"], a)).unwrap(),
                id: u64::from(a),
                address: String::new(),
                version: String::new(),
                format: pick(&[Format::FIRST, FORMATS.newest], b),
                oldest_format: Format::FIRST,
            },
        },
        33 => Record::Format {
            format: pick(&[Format::FIRST, FORMATS.newest], b),
        },
        _ => Record::Assumed {
            partition: id,
            session: holder,
            token,
        },
    }
}

/// What is remembered of a request, for some of them.
fn answered((_, a, b, c): Dice) -> Option<Record> {
    let key = Key {
        of: Digest(u128::from(a % 16)),
        request: Digest(u128::from(b)),
    };
    let told = Told::of(&["x".repeat(usize::from(c) * 4)], std::iter::empty());
    let records = 1;
    (c % 3 == 0).then(|| Record::Answered(Box::new(Answered { key, records, told })))
}

/// Something about tokens; wall times of the log are its positions.
fn access((a, b, c): (u8, u8, u8)) -> access::Record {
    let id = CredentialId::new(pick(&["x", "y", "z"], b)).unwrap();
    let expires = WallTime(i64::from(c) * 2);
    let hash = String::new();
    match a % 5 {
        0 => access::Record::TokenCreated(Box::new(TokenGrant {
            id,
            hash,
            name: TokenName::new("n").unwrap(),
            role: pick(&Role::ALL, c),
            scope: (c < 64).then(|| ServicePrefix::new("s").unwrap()),
            expires: (c < 128).then_some(expires),
            bootstrap: c % 2 == 0,
        })),
        1 => access::Record::TokenRevoked { id },
        2 => access::Record::JoinTokenCreated(Box::new(JoinGrant {
            id,
            hash,
            admits: pick(&[Node::Agent, Node::Director], c),
            uses: u32::from(c % 3),
            expires,
        })),
        3 => access::Record::JoinTokenRevoked { id },
        _ => access::Record::Admitted(Box::new(Admission {
            token: id,
            node: pick(&[Node::Agent, Node::Director], c),
            name: NodeName::new(pick(&["a", "b"], c)).unwrap(),
            request: pick(&["r", "q"], a).to_owned(),
        })),
    }
}

/// An observer that knows only the changes: who may run, by name.
#[derive(Default)]
struct Witness {
    running: BTreeMap<String, Token>,
    last: Token,
}

impl Witness {
    fn see(&mut self, changes: &[Change]) {
        for change in changes {
            let Change::Partition {
                subject,
                token,
                what,
                ..
            } = change
            else {
                continue;
            };
            let name = format!("{}/{}", subject.service, subject.key);
            match what {
                What::Assigned => {
                    let token = token.unwrap();
                    assert!(token > self.last, "S3: {token} after {}", self.last);
                    assert!(!self.running.contains_key(&name), "S5: {name} still runs");
                    self.last = token;
                }
                What::Assumed => {
                    let before = self.running.insert(name.clone(), token.unwrap());
                    assert_eq!(before, None, "S1: {name} runs twice");
                }
                What::Released { .. } => {
                    assert_eq!(self.running.remove(&name), *token, "{name}");
                }
                What::Expired | What::Fenced(_) | What::Closed(_) => {
                    self.running.remove(&name);
                }
                What::Removed => {
                    assert!(
                        !self.running.contains_key(&name),
                        "{name} removed while it runs"
                    );
                }
                What::Created
                | What::Changed
                | What::Restored
                | What::Desired(_)
                | What::Revived
                | What::RestartAsked
                | What::Withdrawn(_)
                | What::Started { .. }
                | What::Ready
                | What::Exited { .. }
                | What::Revoked(_) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_log_folds_without_contradiction_and_the_same_everywhere(
        dice in prop::collection::vec(any::<Dice>(), 1..400),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut log = Log::with(&["k0", "k1", "k2"]);
        let mut witness = Witness::default();
        let mut kept = None;
        let cut = cut.index(dice.len());
        for (number, dice) in dice.into_iter().enumerate() {
            if number == cut {
                kept = Some((log.cluster.encode(), log.entries.len()));
            }
            let before = log.cluster.next_token();
            if dice.0 == 255 {
                log.elect();
            } else {
                // Now and then a deposed leader's entry.
                let epoch = Epoch(log.cluster.epoch().0 - u64::from(dice.0 == 254));
                let mut records = vec![record(&log.cluster, dice)];
                records.extend(answered(dice));
                let applied = log.fold(epoch, records);
                witness.see(&applied.changes);
            }
            prop_assert!(log.cluster.next_token() >= before);
        }

        let mut other = Cluster::default();
        for entry in &log.entries {
            other.fold(entry).unwrap();
        }
        prop_assert!(other == log.cluster);
        prop_assert_eq!(other.state_hash(), log.cluster.state_hash());

        let (bytes, entries) = kept.unwrap();
        let mut restored = Cluster::decode(&bytes).unwrap();
        for entry in &log.entries[entries..] {
            restored.fold(entry).unwrap();
        }
        prop_assert!(restored == log.cluster);
        prop_assert_eq!(restored.state_hash(), log.cluster.state_hash());
    }
}
