//! The fold by example and by random logs.

mod checkpoints;
mod eras;
mod golden;
mod random;
mod repeats;
mod rights;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Applied, Cluster, Outcome, Refused};
use crate::format::{self, Format};
use crate::ids::{
    AgentName, BatchId, DirectorName, Epoch, HookName, Incarnation, PartitionId, PartitionKey,
    ServiceName, SessionId, Token,
};
use crate::lease::LeaseTimes;
use crate::record::{AgentInfo, Containment, Entry, Header, Place, Record};
use crate::spec::{PartitionSpec, ServiceSpec};
use crate::time::WallTime;

pub(super) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(super) fn key(name: &str) -> PartitionKey {
    PartitionKey::new(name).unwrap()
}

pub(super) fn spec(command: &str) -> Box<ServiceSpec> {
    Box::new(serde_json::from_value(serde_json::json!({ "command": [command] })).unwrap())
}

pub(super) fn partition(name: &str, data: Option<&str>) -> PartitionSpec {
    PartitionSpec {
        key: key(name),
        data: data.map(str::to_owned),
        weight: 1,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

pub(super) fn opened(cluster: &Cluster, agent: &str, id: u64) -> Record {
    let session = cluster.next_session();
    Record::SessionOpened {
        session,
        incarnation: cluster.next_incarnation(),
        agent: Box::new(AgentInfo {
            name: AgentName::new(agent).unwrap(),
            id,
            place: Place::default(),
            labels: BTreeMap::new(),
            capacity: None,
            containment: Containment::Kernel,
            version: String::new(),
        }),
        lease: LeaseTimes::of(Duration::from_secs(10)),
        secret_hash: format!("secret of {session}"),
        process: session.0,
    }
}

pub(super) fn elected(name: &str) -> Record {
    Record::Elected {
        name: DirectorName::new(name).unwrap(),
        id: 1,
        address: String::new(),
        format: Format::FIRST,
    }
}

/// A cluster and the log that made it.
#[derive(Default)]
pub(super) struct Log {
    pub(super) cluster: Cluster,
    pub(super) entries: Vec<Vec<u8>>,
}

impl Log {
    /// A cluster with a leader, service `s` with these partitions, and agents `a` and `b` with
    /// sessions 1 and 2.
    pub(super) fn with(keys: &[&str]) -> Self {
        let mut log = Self::default();
        log.elect();
        log.accept(vec![
            Record::ServicePut {
                name: service("s"),
                spec: spec("x"),
            },
            Record::PartitionsPut {
                service: service("s"),
                partitions: keys.iter().map(|key| partition(key, None)).collect(),
            },
        ]);
        let a = opened(&log.cluster, "a", 1);
        log.accept(vec![a]);
        let b = opened(&log.cluster, "b", 2);
        log.accept(vec![b]);
        log
    }

    pub(super) fn elect(&mut self) {
        let epoch = self.cluster.epoch().next();
        let outcomes = self.fold(epoch, vec![elected("d")]).outcomes;
        assert_eq!(outcomes, [Outcome::Accepted]);
    }

    pub(super) fn fold(&mut self, epoch: Epoch, records: Vec<Record>) -> Applied {
        let sequence = self.cluster.position().next().0;
        let header = Header {
            format: format::of_entry(self.cluster.format(), &records),
            epoch,
            batch: BatchId {
                writer: 1,
                sequence,
            },
            predecessor: self.cluster.last_hash(),
            wall: WallTime(i64::try_from(sequence).unwrap()),
        };
        let bytes = Entry { header, records }.encode();
        let (_, applied) = self.cluster.fold(&bytes).unwrap();
        self.entries.push(bytes);
        assert_eq!(self.cluster.check(), Vec::<String>::new());
        applied
    }

    pub(super) fn apply(&mut self, records: Vec<Record>) -> Applied {
        self.fold(self.cluster.epoch(), records)
    }

    pub(super) fn accept(&mut self, records: Vec<Record>) {
        let outcomes = self.apply(records).outcomes;
        let refused = outcomes.iter().find(|o| **o != Outcome::Accepted);
        assert_eq!(refused, None);
    }

    pub(super) fn refuse(&mut self, record: Record, refused: Refused) {
        let outcomes = self.apply(vec![record.clone()]).outcomes;
        assert_eq!(outcomes, [Outcome::Refused(refused)], "{record:?}");
    }

    pub(super) fn id(&self, name: &str) -> PartitionId {
        self.cluster
            .partition_id(&service("s"), &key(name))
            .unwrap()
    }

    pub(super) fn state(&self, name: &str) -> &super::State {
        self.cluster.partition(self.id(name)).unwrap().state()
    }

    pub(super) fn assign(&mut self, name: &str, session: u64) -> Token {
        let token = self.cluster.next_token();
        self.accept(vec![Record::Assigned {
            partition: self.id(name),
            session: SessionId(session),
            token,
        }]);
        token
    }

    pub(super) fn assume(&mut self, name: &str, session: u64) -> Token {
        let token = self.assign(name, session);
        self.accept(vec![assumed(self.id(name), session, token)]);
        token
    }
}

pub(super) fn assumed(partition: PartitionId, session: u64, token: Token) -> Record {
    Record::Assumed {
        partition,
        session: SessionId(session),
        token,
    }
}

#[test]
fn an_entry_of_a_deposed_leader_folds_as_nothing() {
    let mut log = Log::with(&["p"]);
    let old = log.cluster.epoch();
    log.elect();
    let token = log.cluster.next_token();
    let record = Record::Assigned {
        partition: log.id("p"),
        session: SessionId(1),
        token,
    };
    let before = log.cluster.state_hash();
    let applied = log.fold(old, vec![record, Record::Beat]);
    assert_eq!(applied.outcomes, [Outcome::Refused(Refused::Epoch); 2]);
    assert!(applied.changes.is_empty());
    assert_ne!(log.cluster.state_hash(), before, "the position counts");
    assert_eq!(log.cluster.next_token(), token);
}

#[test]
fn an_election_must_raise_the_epoch_by_exactly_one_and_stand_alone() {
    let mut log = Log::with(&[]);
    let epoch = log.cluster.epoch();
    for wrong in [Epoch(0), epoch, Epoch(epoch.0 + 2)] {
        let outcomes = log.fold(wrong, vec![elected("e")]).outcomes;
        assert_eq!(outcomes, [Outcome::Refused(Refused::Epoch)], "{wrong}");
    }
    let applied = log.fold(epoch.next(), vec![elected("e"), Record::Beat]);
    assert_eq!(applied.outcomes, [Outcome::Refused(Refused::Epoch); 2]);
    assert_eq!(log.cluster.epoch(), epoch);
}

#[test]
fn an_entry_that_does_not_follow_the_one_before_is_another_history() {
    let mut log = Log::with(&[]);
    let header = Header {
        format: Format::FIRST,
        epoch: log.cluster.epoch(),
        batch: BatchId::default(),
        predecessor: log.cluster.last_hash() ^ 1,
        wall: WallTime(0),
    };
    let before = log.cluster.clone();
    let entry = Entry {
        header,
        records: vec![Record::Beat],
    };
    let error = log.cluster.fold(&entry.encode()).unwrap_err();
    assert!(matches!(error, super::FoldError::OtherHistory { .. }));
    assert!(log.cluster == before);
}

#[test]
fn a_staged_change_counts_with_its_last_part_and_is_all_or_nothing() {
    let mut log = Log::with(&[]);
    let change = BatchId {
        writer: 7,
        sequence: 1,
    };
    let put = |name: &str, service_name: &str| Record::PartitionsPut {
        service: service(service_name),
        partitions: vec![partition(name, None)],
    };
    let part = |records, last| Record::Staged {
        change,
        records,
        last,
    };
    log.accept(vec![part(vec![put("a", "s")], false)]);
    assert_eq!(log.cluster.partition_count(), 0);
    log.refuse(part(vec![put("b", "missing")], true), Refused::Staged);
    assert_eq!(log.cluster.partition_count(), 0, "nor the part before it");

    log.accept(vec![part(vec![put("a", "s")], false)]);
    log.elect();
    log.accept(vec![part(vec![put("b", "s")], true)]);
    assert_eq!(log.cluster.partition_count(), 1, "dropped at the election");

    let new = Record::ServicePut {
        name: service("t"),
        spec: spec("y"),
    };
    log.accept(vec![part(vec![new], false)]);
    log.accept(vec![part(vec![put("c", "t"), put("d", "s")], true)]);
    assert_eq!(log.cluster.partition_count(), 3);
    log.refuse(part(vec![Record::Beat], true), Refused::Staged);
}

#[test]
fn a_name_that_is_alive_is_not_given_to_another_machine() {
    let mut log = Log::with(&[]);
    let other = opened(&log.cluster, "a", 99);
    log.refuse(other, Refused::AgentId);
    log.accept(vec![Record::SessionExpired {
        session: SessionId(1),
    }]);
    let other = opened(&log.cluster, "a", 99);
    log.accept(vec![other]);
}

#[test]
fn an_agent_is_forgotten_only_when_it_is_gone_and_the_longest_gone_make_room() {
    let mut log = Log::with(&[]);
    let name = |text: &str| AgentName::new(text).unwrap();
    let forget = |text: &str| Record::AgentForgotten { agent: name(text) };
    log.refuse(forget("a"), Refused::Held);
    log.refuse(forget("z"), Refused::NoAgent);
    log.accept(vec![Record::SessionExpired {
        session: SessionId(1),
    }]);
    log.accept(vec![forget("a")]);
    assert!(!log.cluster.agents().contains_key(&name("a")));
    // Machines come and go under ever new names; `b` stays.
    let most = crate::cluster::sessions::GONE_MAX;
    for n in 0..most + 5 {
        let join = opened(&log.cluster, &format!("m{n}"), 100 + n as u64);
        let session = log.cluster.next_session();
        log.accept(vec![join, Record::SessionExpired { session }]);
    }
    let agents = log.cluster.agents();
    assert_eq!(agents.len(), most + 1);
    assert!(agents.contains_key(&name("b")) && !agents.contains_key(&name("m4")));
    assert!(agents.contains_key(&name("m5")));
}

#[test]
fn an_agent_joins_once_however_many_sessions_it_opens() {
    let mut log = Log::with(&[]);
    let second = opened(&log.cluster, "c", 3);
    let told = |applied: Applied| applied.changes[0].to_string();
    let epoch = log.cluster.epoch();
    assert_eq!(
        told(log.fold(epoch, vec![second])),
        "agent c joined, session 3, lease 10s"
    );
    let mut further = opened(&log.cluster, "c", 3);
    if let Record::SessionOpened {
        incarnation,
        process,
        lease,
        ..
    } = &mut further
    {
        (*incarnation, *process) = (
            log.cluster.agents()[&AgentName::new("c").unwrap()].incarnation(),
            3,
        );
        *lease = LeaseTimes::of(Duration::from_secs(3));
    }
    assert_eq!(
        told(log.fold(epoch, vec![further])),
        "agent c opened session 4, lease 3s"
    );
}

#[test]
fn one_process_keeps_its_incarnation_in_further_sessions_and_a_new_one_raises_it() {
    let mut log = Log::with(&[]);
    let name = AgentName::new("a").unwrap();
    let first = log.cluster.agents()[&name].incarnation();
    let Record::SessionOpened {
        agent,
        lease,
        process,
        ..
    } = opened(&Log::with(&[]).cluster, "a", 1)
    else {
        unreachable!()
    };
    let again = |cluster: &Cluster, incarnation, process| Record::SessionOpened {
        session: cluster.next_session(),
        incarnation,
        agent: agent.clone(),
        lease,
        secret_hash: format!("again {}", cluster.next_session()),
        process,
    };
    let same = again(&log.cluster, first, 1);
    log.accept(vec![same]);
    assert_eq!(log.cluster.agents()[&name].incarnation(), first);
    let stale = again(&log.cluster, first, process + 1000);
    log.refuse(stale, Refused::Number);
    let resumed = Record::SessionResumed {
        session: SessionId(1),
        incarnation: log.cluster.next_incarnation(),
        process: 5,
    };
    log.accept(vec![resumed]);
    assert!(log.cluster.agents()[&name].incarnation() > first);
    let low = Record::SessionResumed {
        session: SessionId(1),
        incarnation: Incarnation(first.0),
        process: 1,
    };
    log.refuse(low, Refused::Number);
}
