//! What a session is to hold, as changes since it last asked. Read from the fold on any director.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::cluster::{Cluster, Partition, Service, State};
use crate::ids::{PartitionId, PartitionKey, Position, ServiceId, ServiceName, SessionId, Token};
use crate::spec::ServiceSpec;

use super::Director;

/// What is new for a session.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkDelta {
    /// To be passed as `since` next time.
    pub index: Position,
    /// `items` is everything that the session holds; otherwise only changes.
    pub whole: bool,
    /// Partitions that are assigned, assumed or to be stopped.
    pub items: Vec<WorkItem>,
    /// Tokens that have ended.
    pub gone: Vec<Token>,
    /// The services that `items` name.
    pub services: Vec<WorkService>,
}

/// One partition in the hands of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkItem {
    /// Its slot.
    pub partition: PartitionId,
    /// The token.
    pub token: Token,
    /// What is to be done with it.
    pub state: WorkState,
    /// Its service.
    pub service: ServiceName,
    /// Its key.
    pub key: PartitionKey,
    /// Its data as JSON text.
    pub data: Option<Arc<str>>,
    /// Changes with the data.
    pub data_version: Position,
    /// Which specification says how to run it.
    pub spec_version: Position,
    /// Rises with every restart that somebody asks for.
    pub restarts_asked: u32,
    /// Failed attempts in a row before this token.
    pub failures: u32,
    /// How far its owners have come. A change of it through the agent is not told again.
    pub checkpoint: Option<Checkpoint>,
}

/// What a session is to do with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkState {
    /// Assume it.
    Assigned,
    /// Run it.
    Assumed,
    /// Stop it and give it back.
    Stopping,
}

/// How to run a service.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkService {
    /// Its name.
    pub service: ServiceName,
    /// Changes with the specification.
    pub spec_version: Position,
    /// The specification.
    pub spec: Arc<ServiceSpec>,
}

impl Director {
    /// What an open session is to hold, as changes since an index (0: from the beginning); `None` when
    /// there is nothing new, or the session is not open.
    #[must_use]
    pub fn work(&self, session: SessionId, since: Position) -> Option<WorkDelta> {
        work(&self.cluster, session, self.told_since(since))
    }
}

fn work(cluster: &Cluster, session: SessionId, since: Position) -> Option<WorkDelta> {
    // What one of an earlier era was to hold has been changed by a history that is lost.
    let session = cluster.in_force(session)?;
    let index = cluster.position();
    if since > index {
        // A director that knows more gave that index. What this one could tell is of the past.
        return None;
    }
    let whole = !session.knows_gone_since(since);
    if !whole && session.changed().max(cluster.spec_changed()) <= since {
        return None;
    }
    let known = session.gone_since(since);
    let mut services: BTreeMap<ServiceId, WorkService> = BTreeMap::new();
    let mut items = Vec::new();
    for id in session.held() {
        let partition = cluster.partition(*id);
        let Some((partition, service)) =
            partition.zip(partition.and_then(|p| cluster.service_of(p)))
        else {
            continue;
        };
        if !whole && partition.changed().max(service.spec_version()) <= since {
            continue;
        }
        let Some(item) = item(*id, partition, service) else {
            continue;
        };
        services
            .entry(partition.service())
            .or_insert_with(|| WorkService {
                service: service.name().clone(),
                spec_version: service.spec_version(),
                spec: service.spec().clone(),
            });
        items.push(item);
    }
    let gone = known.unwrap_or_default();
    if !whole && items.is_empty() && gone.is_empty() {
        return None;
    }
    Some(WorkDelta {
        index,
        whole,
        items,
        gone,
        services: services.into_values().collect(),
    })
}

fn item(id: PartitionId, partition: &Partition, service: &Service) -> Option<WorkItem> {
    let (holder, state) = match partition.state() {
        State::Unassigned(_) => return None,
        State::Assigned(holder) => (holder, WorkState::Assigned),
        State::Assumed(holder) => (holder, WorkState::Assumed),
        State::Stopping(holder, _) => (holder, WorkState::Stopping),
    };
    Some(WorkItem {
        partition: id,
        token: holder.token,
        state,
        service: service.name().clone(),
        key: partition.key().clone(),
        data: partition.data().cloned(),
        data_version: partition.data_version(),
        spec_version: service.spec_version(),
        restarts_asked: partition.restarts_asked(),
        failures: partition.failures(),
        checkpoint: partition.checkpoint().cloned(),
    })
}
