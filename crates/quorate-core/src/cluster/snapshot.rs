//! The fold as bytes: a head with field names, then the partitions as plain arrays, because there may be
//! a million of them. Indices are not stored but built again.
//!
//! A snapshot is a copy of what entries made; a build reads only the format that it writes or older ones
//! that it knows. Changing a struct that is stored here needs a new format.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::access::Credentials;
use crate::format::{FORMATS, Format, Unread};
use crate::ids::{
    Epoch, Era, Incarnation, PartitionId, Position, ServiceId, ServiceName, SessionId, Token,
};
use crate::record::{Desired, DirectorInfo};
use crate::repeats::Repeats;
use crate::spec::ServiceSpec;

use super::eras::Lost;
use super::partition::Partition;
use super::service::Service;
use super::session::{Agent, Session};
use super::slab::Slab;
use super::{Cluster, Leader, Staged};

/// The format of snapshots of a cluster whose history was never lost.
const FIRST_ERA: u16 = 1;
/// The format of snapshots of a restored cluster, and the newest that this build reads: who does not know of
/// eras would renew sessions of earlier ones.
const LATER_ERA: u16 = 2;

/// Why bytes are not a snapshot that this build can take over.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A newer director wrote it.
    #[error("snapshot has format {found}, this build reads up to {LATER_ERA}")]
    NewerFormat {
        /// Its format.
        found: u16,
    },
    /// The bytes are not a snapshot.
    #[error("snapshot cannot be decoded")]
    Malformed(#[source] rmp_serde::decode::Error),
    /// A ledger of another format made it than this build reads.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// Its parts contradict each other.
    #[error("snapshot contradicts itself: {0}")]
    Inconsistent(&'static str),
}

/// What is written borrows from the fold: nothing is copied that is only looked at.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    format: u16,
    /// Not in snapshots of a ledger that has the first.
    #[serde(default, skip_serializing_if = "Format::is_first")]
    ledger_format: Format,
    position: Position,
    last_hash: u64,
    epoch: Epoch,
    leader: Option<Leader>,
    /// Not in snapshots from before directors told of themselves.
    #[serde(default)]
    directors: Vec<Cow<'a, DirectorInfo>>,
    era: Era,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<Lost>,
    last_token: Token,
    last_session: SessionId,
    last_incarnation: Incarnation,
    spec_changed: Position,
    services: Vec<(u32, KeptService<'a>)>,
    services_free: Vec<u32>,
    agents: Vec<Cow<'a, Agent>>,
    sessions: Vec<Cow<'a, Session>>,
    expired: Vec<Cow<'a, Session>>,
    staged: Option<Cow<'a, Staged>>,
    #[serde(default)]
    credentials: Cow<'a, Credentials>,
    #[serde(default)]
    repeats: Cow<'a, Repeats>,
    partitions: usize,
    partitions_free: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct KeptService<'a> {
    name: ServiceName,
    spec: Cow<'a, ServiceSpec>,
    spec_version: Position,
    desired: Desired,
    removed: bool,
    problem: Option<String>,
    revision: Position,
    list_revision: Position,
}

impl Cluster {
    /// The whole state as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4096 + self.partitions.len() * 96);
        let mut named = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
        let written = self.head().serialize(&mut named);
        assert!(written.is_ok(), "head of a snapshot: {written:?}");
        let mut plain = rmp_serde::Serializer::new(&mut bytes);
        for numbered in self.partitions.iter() {
            let written = numbered.serialize(&mut plain);
            assert!(written.is_ok(), "partition of a snapshot: {written:?}");
        }
        bytes
    }

    fn head(&self) -> Head<'_> {
        let services = self.services.iter().map(|(slot, service)| {
            let kept = KeptService {
                name: service.name.clone(),
                spec: Cow::Borrowed(&*service.spec),
                spec_version: service.spec_version,
                desired: service.desired,
                removed: service.removed,
                problem: service.problem.clone(),
                revision: service.revision,
                list_revision: service.list_revision,
            };
            (slot, kept)
        });
        Head {
            format: if self.era == Era::default() {
                FIRST_ERA
            } else {
                LATER_ERA
            },
            ledger_format: self.format,
            position: self.position,
            last_hash: self.last_hash,
            epoch: self.epoch,
            leader: self.leader.clone(),
            directors: self.directors.values().map(Cow::Borrowed).collect(),
            era: self.era,
            lost: self.lost,
            last_token: self.last_token,
            last_session: self.last_session,
            last_incarnation: self.last_incarnation,
            spec_changed: self.spec_changed,
            services: services.collect(),
            services_free: self.services.free().to_vec(),
            agents: self.agents.values().map(Cow::Borrowed).collect(),
            sessions: self.sessions.values().map(Cow::Borrowed).collect(),
            expired: self.expired.values().map(Cow::Borrowed).collect(),
            staged: self.staged.as_ref().map(Cow::Borrowed),
            credentials: Cow::Borrowed(&self.credentials),
            repeats: Cow::Borrowed(&self.repeats),
            partitions: self.partitions.len(),
            partitions_free: self.partitions.free().to_vec(),
        }
    }

    /// The state that [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// When the bytes are of a newer format, damaged, or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        /// Read first, because a newer head may not decode at all.
        #[derive(Deserialize)]
        struct First {
            format: u16,
            #[serde(default)]
            ledger_format: Format,
        }
        let mut first = rmp_serde::Deserializer::from_read_ref(bytes);
        let First {
            format,
            ledger_format,
        } = First::deserialize(&mut first).map_err(SnapshotError::Malformed)?;
        if !(FIRST_ERA..=LATER_ERA).contains(&format) {
            return Err(SnapshotError::NewerFormat { found: format });
        }
        FORMATS.check(ledger_format)?;
        let mut input = rmp_serde::Deserializer::from_read_ref(bytes);
        let head = Head::deserialize(&mut input).map_err(SnapshotError::Malformed)?;
        let mut partitions: Vec<(u32, Partition)> = Vec::new();
        // Not more than the bytes can hold: a damaged count must not exhaust the memory.
        partitions.reserve_exact(head.partitions.min(bytes.len() / 8));
        for _ in 0..head.partitions {
            let numbered = Deserialize::deserialize(&mut input);
            partitions.push(numbered.map_err(SnapshotError::Malformed)?);
        }
        build(head, partitions)
    }
}

fn build(head: Head<'_>, partitions: Vec<(u32, Partition)>) -> Result<Cluster, SnapshotError> {
    let mut services: BTreeMap<u32, Service> = BTreeMap::new();
    let mut service_ids = BTreeMap::new();
    for (slot, kept) in head.services {
        service_ids.insert(kept.name.clone(), ServiceId(slot));
        let service = Service {
            name: kept.name,
            spec: kept.spec.into_owned().into(),
            spec_version: kept.spec_version,
            desired: kept.desired,
            removed: kept.removed,
            problem: kept.problem,
            partitions: BTreeMap::new(),
            doomed: 0,
            revision: kept.revision,
            list_revision: kept.list_revision,
        };
        services.insert(slot, service);
    }
    for (slot, partition) in &partitions {
        let service = services.get_mut(&partition.service.0);
        let service = service.ok_or(SnapshotError::Inconsistent("partition without service"))?;
        service.doomed += usize::from(partition.doomed);
        let before = service
            .partitions
            .insert(partition.key.clone(), PartitionId(*slot));
        if before.is_some() {
            return Err(SnapshotError::Inconsistent("partition key used twice"));
        }
    }
    let services = Slab::restore(services.into_iter().collect(), head.services_free);
    let partitions = Slab::restore(partitions, head.partitions_free);
    let slots = SnapshotError::Inconsistent("slots used twice");
    let (Some(services), Some(partitions)) = (services, partitions) else {
        return Err(slots);
    };
    let agents = head.agents.into_iter().map(Cow::into_owned);
    let directors = head.directors.into_iter().map(Cow::into_owned);
    let by_id = |sessions: Vec<Cow<'_, Session>>| {
        let sessions = sessions.into_iter().map(Cow::into_owned);
        sessions.map(|session| (session.id, session)).collect()
    };
    Ok(Cluster {
        position: head.position,
        last_hash: head.last_hash,
        format: head.ledger_format,
        epoch: head.epoch,
        leader: head.leader,
        directors: directors
            .map(|director| (director.name.clone(), director))
            .collect(),
        era: head.era,
        lost: head.lost,
        last_token: head.last_token,
        last_session: head.last_session,
        last_incarnation: head.last_incarnation,
        spec_changed: head.spec_changed,
        services,
        service_ids,
        partitions,
        agents: agents.map(|agent| (agent.name().clone(), agent)).collect(),
        sessions: by_id(head.sessions),
        expired: by_id(head.expired),
        staged: head.staged.map(Cow::into_owned),
        credentials: head.credentials.into_owned(),
        repeats: head.repeats.into_owned(),
    })
}
