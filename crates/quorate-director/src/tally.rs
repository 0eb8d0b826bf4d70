//! Walks over all partitions in small steps, so that a million of them never hold the loop for long.
//!
//! What a walk gives is not the state at one position: each step shows the state at its own moment.

use std::collections::BTreeMap;

use quorate_api::resources::{Counts, PartitionState};
use quorate_core::cluster::{Holder, Partition, Service, State};
use quorate_core::ids::{PartitionKey, ServiceName, SessionId};

use crate::engine::Reading;
use crate::http::App;
use crate::http::answer::Failure;
use crate::views;

/// Partitions of one step: a millisecond or two.
pub(crate) const STEP: usize = 10_000;

/// Where a walk is: the last partition that it has seen.
pub(crate) type Place = (ServiceName, Option<PartitionKey>);

/// Visits partitions in the order of their names, after `place` and of one service if it is given, until
/// `visit` has had enough, a step is over, or there are no more. Tells where to go on.
pub(crate) fn walk(
    reading: &Reading<'_>,
    only: Option<&ServiceName>,
    place: Option<&Place>,
    mut visit: impl FnMut(&Service, &Partition) -> bool,
) -> Option<Place> {
    let cluster = reading.cluster();
    let mut left = STEP;
    for (_, service) in cluster.services() {
        let name = service.name();
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let after = match place {
            Some((at, _)) if name < at => continue,
            Some((at, key)) if name == at => key.as_ref(),
            Some(_) | None => None,
        };
        let first = match after {
            Some(key) => std::ops::Bound::Excluded(key),
            None => std::ops::Bound::Unbounded,
        };
        let all = service.partitions();
        for (key, id) in all.range::<PartitionKey, _>((first, std::ops::Bound::Unbounded)) {
            let Some(partition) = cluster.partition(*id) else {
                continue;
            };
            left -= 1;
            if !visit(service, partition) || left == 0 {
                return Some((name.clone(), Some(key.clone())));
            }
        }
    }
    None
}

/// How many partitions of each service are in which state.
pub(crate) type Tally = BTreeMap<ServiceName, Tallied>;

/// The counts of one service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tallied {
    pub(crate) counts: Counts,
    /// Assumed, and waiting for a fence hook.
    pub(crate) fencing: u64,
    /// Assumed, and kept on a silent agent.
    pub(crate) unknown: u64,
    /// Given to an agent and not ready, because what was tried has failed.
    pub(crate) failing: u64,
}

/// Counts all partitions, or those of one service.
pub(crate) async fn tally(app: &App, only: Option<ServiceName>) -> Result<Tally, Failure> {
    let mut tally = Tally::new();
    let mut place = None;
    loop {
        let only = only.clone();
        let step = app.query(move |reading| {
            let mut tally = Tally::new();
            let place = walk(
                reading,
                only.as_ref(),
                place.as_ref(),
                |service, partition| {
                    match tally.get_mut(service.name()) {
                        Some(tallied) => count(tallied, reading, partition),
                        None => {
                            let tallied = tally.entry(service.name().clone()).or_default();
                            count(tallied, reading, partition);
                        }
                    }
                    true
                },
            );
            (tally, place)
        });
        let (counted, next) = step.await?;
        for (name, tallied) in counted {
            add(tally.entry(name).or_default(), &tallied);
        }
        place = next;
        if place.is_none() {
            return Ok(tally);
        }
    }
}

/// How many partitions of a service each agent has.
pub(crate) async fn by_agent(
    app: &App,
    service: &ServiceName,
) -> Result<BTreeMap<String, u64>, Failure> {
    let mut agents: BTreeMap<String, u64> = BTreeMap::new();
    let mut place = None;
    loop {
        let service = service.clone();
        let step = app.query(move |reading| {
            let mut sessions: BTreeMap<SessionId, (Holder, u64)> = BTreeMap::new();
            let next = walk(reading, Some(&service), place.as_ref(), |_, partition| {
                if let Some(holder) = partition.holder() {
                    sessions.entry(holder.session).or_insert((holder, 0)).1 += 1;
                }
                true
            });
            let named = sessions.into_values().filter_map(|(holder, count)| {
                let agent = reading.cluster().agent_holding(holder)?;
                Some((agent.to_string(), count))
            });
            (named.collect::<Vec<_>>(), next)
        });
        let (counted, next) = step.await?;
        for (agent, count) in counted {
            *agents.entry(agent).or_default() += count;
        }
        place = next;
        if place.is_none() {
            return Ok(agents);
        }
    }
}

fn count(tallied: &mut Tallied, reading: &Reading<'_>, partition: &Partition) {
    let counts = &mut tallied.counts;
    counts.total += 1;
    let assumed = matches!(partition.state(), State::Assumed(_));
    if assumed && views::is_fencing(reading.cluster(), partition) {
        tallied.fencing += 1;
    } else if assumed && views::is_unknown(reading, partition) {
        tallied.unknown += 1;
    } else {
        counts.running += u64::from(views::is_ready(partition));
        tallied.failing += u64::from(views::is_failing(partition));
    }
    let state = match partition.state() {
        // The commonest case needs no look at the service.
        State::Assumed(_) => PartitionState::Assumed,
        State::Unassigned(_) | State::Assigned(_) | State::Stopping(..) => {
            views::state(reading.cluster(), partition)
        }
    };
    *match state {
        PartitionState::Unassigned => &mut counts.unassigned,
        PartitionState::Assigned => &mut counts.assigned,
        PartitionState::Assumed => &mut counts.assumed,
        PartitionState::Stopping => &mut counts.stopping,
        PartitionState::Failed => &mut counts.failed,
        PartitionState::Stopped => &mut counts.stopped,
    } += 1;
}

fn add(to: &mut Tallied, more: &Tallied) {
    to.fencing += more.fencing;
    to.unknown += more.unknown;
    to.failing += more.failing;
    let (to, more) = (&mut to.counts, &more.counts);
    to.total += more.total;
    to.running += more.running;
    to.unassigned += more.unassigned;
    to.assigned += more.assigned;
    to.assumed += more.assumed;
    to.stopping += more.stopping;
    to.failed += more.failed;
    to.stopped += more.stopped;
}
