//! What a change would cause, without making it: `quorate plan`.

use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::director::event::Now;
use crate::ids::{AgentName, BatchId, PartitionId, PartitionKey, ServiceName, SessionId};
use crate::record::{Entry, Header, Record};
use crate::time::WallTime;

use super::{Planner, PlannerConfig};

/// What a change would cause once everything has settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Partitions that go from one agent to another.
    pub moves: Vec<Move>,
    /// Partitions that start and on which agent.
    pub starts: Vec<(ServiceName, PartitionKey, AgentName)>,
    /// Partitions that stop and on which agent.
    pub stops: Vec<(ServiceName, PartitionKey, AgentName)>,
    /// Partitions that are to run and would not, with the reason.
    pub waiting: Vec<(ServiceName, PartitionKey, String)>,
}

/// A partition that goes from one agent to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its service.
    pub service: ServiceName,
    /// Its key.
    pub key: PartitionKey,
    /// Who holds it.
    pub from: AgentName,
    /// Who is to hold it.
    pub to: AgentName,
}

impl Plan {
    /// Whether nothing would happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.starts.is_empty() && self.stops.is_empty()
    }
}

/// What these records would cause. They are folded into a copy; what is refused causes nothing.
#[must_use]
pub fn what_if(
    config: PlannerConfig,
    now: Now,
    cluster: &Cluster,
    silent: &BTreeSet<SessionId>,
    records: Vec<Record>,
) -> Plan {
    let mut after = cluster.clone();
    let header = Header {
        format: cluster.format(),
        epoch: cluster.epoch(),
        batch: BatchId::default(),
        predecessor: cluster.last_hash(),
        wall: WallTime::default(),
    };
    after.apply(cluster.position().next(), Entry { header, records });
    let planner = Planner::view(config, now, &after, silent);
    let mut plan = Plan::default();
    for (id, partition) in after.partitions() {
        let Some(service) = after.service_of(partition) else {
            continue;
        };
        let name = (service.name().clone(), partition.key().clone());
        let before = cluster.partition_id(&name.0, &name.1);
        let from = before.and_then(|id| holder(cluster, id));
        let to = after
            .wanted(partition)
            .then(|| planner.target(id))
            .flatten()
            .and_then(|index| planner.names.get(index.0 as usize));
        match (from, to) {
            (Some(from), Some(to)) if *from != *to => plan.moves.push(Move {
                service: name.0,
                key: name.1,
                from: from.clone(),
                to: to.clone(),
            }),
            (Some(_), Some(_)) => {}
            (Some(from), None) => plan.stops.push((name.0, name.1, from.clone())),
            (None, Some(to)) => plan.starts.push((name.0, name.1, to.clone())),
            (None, None) if after.wanted(partition) => {
                let reason = planner.waiting(now.moment, &after, id).unwrap_or_default();
                plan.waiting.push((name.0, name.1, reason));
            }
            (None, None) => {}
        }
    }
    plan
}

fn holder(cluster: &Cluster, id: PartitionId) -> Option<&AgentName> {
    let holder = cluster.partition(id)?.holder()?;
    Some(cluster.session(holder.session)?.agent())
}
