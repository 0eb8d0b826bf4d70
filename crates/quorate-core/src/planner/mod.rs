//! From the state of the cluster to what the leader does next: who is assigned what, and what is taken
//! back, a little at a time.
//!
//! [`Planner`] keeps a [`Layout`] of where everything is to be in step with
//! the fold, and lets the cluster follow it within the ramp, the settle window and the budget of moves.
//! It belongs to one leadership: a new leader makes a new one, and nothing in it need survive.
//!
//! - What is free and is to run is assigned as fast as its service's `ramp` allows: highest priority of
//!   the partition first, then of its service. Where all agents have only just come, that waits for the
//!   settle window (F12), unless as many are there as are expected.
//! - What is elsewhere than it should be is revoked. For balance that waits until the settle window
//!   after the last join has passed and, where it follows from a change of what is wanted, for a quiet
//!   time; for balance, drains and changed leases only so many partitions are on the move at once: a
//!   tenth of all, at least one for each agent.
//! - What an agent was given and has not assumed in time, or keeps failing on it, goes to another one.
//!
//! It must never revoke for balance or a drain what no other agent can take, and never lets one
//! partition that does not start or stop hold up the others for ever: places in the ramp and the budget
//! are given up after a while.

mod decide;
mod explain;
mod flight;
mod paged;
mod quiet;
mod rest;
mod sync;
#[cfg(test)]
mod tests;
mod what_if;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::director::event::Now;
use crate::history::{Change, What};
use crate::ids::{AgentName, PartitionId, Position, ServiceId, ServiceName, SessionId, Token};
use crate::placement::{AgentIndex, GroupIndex, Layout, PartitionIndex};
use crate::record::{Containment, MoveReason, Schedulable};
use crate::spec::backoff::BackoffRange;
use crate::spec::constraint::Constraint;
use crate::time::{Moment, WallTime};

pub use explain::{AgentVerdict, Why, given_up};
pub use rest::Settling;
pub use what_if::{Move, Plan, what_if};

/// What a planner is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// How long after a join planned moves and the very first placement wait for others, and how long
    /// nothing that is wanted may change before balance moves anything, where the service does not say.
    pub settle: Duration,
    /// With so many agents present nothing waits, where the service does not say.
    pub expect_agents: Option<u32>,
    /// Share of the partitions, in percent, that may be on the move at once.
    pub moving_percent: u32,
    /// How long an agent may take to assume what it was assigned.
    pub assume_within: Duration,
    /// How long a partition that failed on an agent is kept away from it by all means.
    pub exile: Duration,
    /// Most orders in one decision: they are to fit one entry.
    pub orders_max: usize,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(5),
            expect_agents: None,
            moving_percent: 10,
            assume_within: Duration::from_secs(10),
            exile: Duration::from_secs(600),
            orders_max: 2_000,
        }
    }
}

/// What the leader is to write next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Partitions and the sessions that are to run them, in the order of being served.
    pub assign: Vec<(PartitionId, SessionId)>,
    /// Assigned partitions to take back.
    pub withdraw: Vec<(PartitionId, Token, MoveReason)>,
    /// Assumed partitions to take back.
    pub revoke: Vec<(PartitionId, Token, MoveReason)>,
    /// When to decide again though nothing has happened.
    pub wake_at: Option<Moment>,
}

impl Decision {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.assign.is_empty() && self.withdraw.is_empty() && self.revoke.is_empty()
    }

    fn orders(&self) -> usize {
        self.assign.len() + self.withdraw.len() + self.revoke.len()
    }
}

/// The planner of one leadership.
#[derive(Clone, Debug)]
pub struct Planner {
    config: PlannerConfig,
    /// When this leadership looked at the cluster first, and what its wall clock said when it began.
    began: (Moment, WallTime),
    layout: Layout,
    agents: BTreeMap<AgentName, AgentRow>,
    names: Vec<AgentName>,
    present: Present,
    services: BTreeMap<ServiceId, ServiceRow>,
    /// Numbers for combinations of label values that are to be spread.
    labels: BTreeMap<(ServiceId, Vec<Option<String>>), u32>,
    /// When an agent came last, and when one last opened a session of each lease class.
    last_join: Option<Moment>,
    class_joins: BTreeMap<Duration, Moment>,

    /// Nothing of the cluster has been looked at yet.
    fresh: bool,
    dirty_agents: bool,
    dirty_services: BTreeSet<ServiceName>,
    /// In no order, and some of them perhaps more than once.
    dirty_partitions: Vec<PartitionId>,
    /// The same, of those with nothing new to place: they have only come further under their right.
    advanced: Vec<PartitionId>,
    silent: BTreeSet<SessionId>,
    /// Lease classes that agents are taken to have open, because they open them a moment after somebody
    /// needs them. Only a view that tells what would be foresees any.
    foreseen: BTreeSet<Duration>,

    /// Free partitions with a place, by whom they go to.
    queues: BTreeMap<(ServiceId, AgentIndex), BTreeSet<Turn>>,
    queued: paged::Paged<(ServiceId, AgentIndex, Turn)>,
    /// Free partitions whose turn comes later (`takeover_delay`, or failures).
    delayed: BTreeSet<(Moment, PartitionId)>,
    delays: BTreeMap<PartitionId, Moment>,
    /// Partitions without a place.
    placeless: BTreeSet<PartitionId>,
    /// Held partitions that are to be elsewhere.
    misplaced: BTreeSet<PartitionId>,
    quiet: quiet::Quiet,
    /// Something that is wanted has changed since everything was looked at last.
    stirred: bool,
    unrest: rest::Unrest,
    /// How far the ledger was folded when everything was looked at last.
    looked: Position,
    /// Runs that somebody wants to be started anew, and those with other data: since then.
    restart_asked: BTreeSet<PartitionId>,
    data_changed: BTreeSet<PartitionId>,
    /// Services that have come into being since then.
    created: BTreeSet<ServiceName>,
    /// Partitions kept away from an agent on which they failed, with where they go instead.
    exiled: BTreeMap<PartitionId, Exile>,
    flight: flight::Flight,
    /// Partitions that their agents should have assumed by now.
    late: BTreeSet<PartitionId>,
    /// Agents that do not acknowledge what they are given; until then they get nothing more.
    slow: BTreeMap<AgentName, Moment>,
    /// Agents that have just been found to be so.
    refusing: BTreeSet<AgentName>,

    idle: bool,
    wake_at: Option<Moment>,
}

/// Whose turn it is among those that go to one agent; the slot follows the order of the keys.
type Turn = (Reverse<i32>, PartitionId);

/// A partition that is placed by itself, outside of the balance of its service.
#[derive(Clone, Copy, Debug)]
struct Exile {
    to: AgentIndex,
    weight: u32,
    until: Moment,
}

/// What is known of an agent.
#[derive(Clone, Debug)]
struct AgentRow {
    index: AgentIndex,
    /// Since when it has been here without a break; `None` while it is not.
    since: Option<Moment>,
    /// The same for each lease class: a service can be placed only where its class is open.
    class_since: BTreeMap<Duration, Moment>,
    facts: Facts,
}

/// How many agents are here: asked for each turn, so it is kept.
#[derive(Clone, Debug, Default)]
struct Present {
    all: usize,
    /// Of these, how many have opened a session of each lease class.
    by_class: BTreeMap<Duration, usize>,
}

impl Present {
    fn of<'a>(agents: impl Iterator<Item = &'a AgentRow>) -> Self {
        let mut present = Self::default();
        for row in agents {
            present.all += usize::from(row.since.is_some());
            for lease in row.class_since.keys() {
                *present.by_class.entry(*lease).or_default() += 1;
            }
        }
        present
    }

    fn in_class(&self, lease: Duration) -> usize {
        self.by_class.get(&lease).copied().unwrap_or(0)
    }
}

/// All that decides which services an agent may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    schedulable: Schedulable,
    silent: bool,
    slow: bool,
    capacity: Option<u64>,
    labels: BTreeMap<String, String>,
    containment: Option<Containment>,
    /// The newest session of each lease class.
    sessions: BTreeMap<Duration, SessionId>,
}

/// What is known of a service.
#[derive(Clone, Debug)]
struct ServiceRow {
    name: ServiceName,
    index: GroupIndex,
    /// Rules as written and as read.
    require: Vec<(String, Constraint)>,
    lease: Duration,
    priority: i32,
    max_per_agent: u32,
    spread: Vec<String>,
    limits: flight::Limits,
    settle: Duration,
    expect: Option<u32>,
    takeover_delay: Duration,
    /// How long the next try waits after failures.
    backoff: BackoffRange,
    /// How long a stop and a start may take before nobody waits for them any longer.
    patience: Duration,
    /// Since when it is known with this lease.
    since: Moment,
    /// What makes every run be started anew when it changes.
    recipe: Option<u64>,
    /// Whether a run is started anew when its data changes.
    restarts_on_data: bool,
    /// The file that its list comes from.
    source: Option<String>,
}

/// Whether a change leaves everything as it was that placement looks at.
fn advances(what: &What) -> bool {
    match what {
        What::Assigned
        | What::Assumed
        | What::Started { .. }
        | What::Ready
        | What::Exited { .. }
        | What::RestartAsked => true,
        What::Created
        | What::Changed
        | What::Restored
        | What::Removed
        | What::Desired(_)
        | What::Revived
        | What::Withdrawn(_)
        | What::Revoked(_)
        | What::Released { .. }
        | What::Expired
        | What::Fenced(_)
        | What::Closed(_) => false,
    }
}

impl Planner {
    /// A planner that has seen nothing: its first decision looks at the whole cluster. `begins` is what the wall clock
    /// of the leader says now.
    #[must_use]
    pub fn new(config: PlannerConfig, begins: WallTime) -> Self {
        Self {
            config,
            began: (Moment::default(), begins),
            layout: Layout::new(),
            agents: BTreeMap::new(),
            names: Vec::new(),
            present: Present::default(),
            services: BTreeMap::new(),
            labels: BTreeMap::new(),
            last_join: None,
            class_joins: BTreeMap::new(),
            fresh: true,
            dirty_agents: true,
            dirty_services: BTreeSet::new(),
            dirty_partitions: Vec::new(),
            advanced: Vec::new(),
            silent: BTreeSet::new(),
            foreseen: BTreeSet::new(),
            queues: BTreeMap::new(),
            queued: paged::Paged::default(),
            delayed: BTreeSet::new(),
            delays: BTreeMap::new(),
            placeless: BTreeSet::new(),
            misplaced: BTreeSet::new(),
            quiet: quiet::Quiet::default(),
            stirred: false,
            unrest: rest::Unrest::default(),
            looked: Position::default(),
            restart_asked: BTreeSet::new(),
            data_changed: BTreeSet::new(),
            created: BTreeSet::new(),
            exiled: BTreeMap::new(),
            flight: flight::Flight::default(),
            late: BTreeSet::new(),
            slow: BTreeMap::new(),
            refusing: BTreeSet::new(),
            idle: false,
            wake_at: None,
        }
    }

    /// Takes note of what an entry changed. Cheap: the looking is done by the next decision.
    pub fn observe(&mut self, changes: &[Change]) {
        for change in changes {
            self.idle = false;
            self.stirred |= quiet::stirs(change);
            match change {
                Change::Partition {
                    subject,
                    what,
                    agent,
                    ..
                } => {
                    if advances(what) {
                        self.advanced.push(subject.partition);
                    } else {
                        self.dirty_partitions.push(subject.partition);
                    }
                    self.observe_run(subject.partition, what);
                    if *what == What::Withdrawn(MoveReason::Unacknowledged) {
                        self.refusing.extend(agent.clone());
                    }
                    let answers = agent.as_ref().filter(|_| *what == What::Assumed);
                    if answers.is_some_and(|agent| self.slow.remove(agent).is_some()) {
                        self.dirty_agents = true;
                    }
                }
                Change::ServiceCreated { service } => {
                    self.created.insert(service.clone());
                    self.dirty_services.insert(service.clone());
                }
                Change::ServiceChanged { service }
                | Change::ServiceRemoved { service }
                | Change::ServiceDesired { service, .. } => {
                    self.dirty_services.insert(service.clone());
                }
                Change::SessionOpened { .. }
                | Change::SessionResumed { .. }
                | Change::SessionClosed { .. }
                | Change::SessionExpired { .. }
                | Change::AgentSet { .. }
                | Change::AgentForgotten { .. }
                | Change::EraBegan { .. } => self.dirty_agents = true,
                // The sessions and partitions that they free are told one by one.
                Change::AgentEvicted { .. }
                | Change::AgentFenced { .. }
                | Change::AgentDrifts { .. }
                | Change::Elected { .. }
                | Change::DirectorKnown { .. }
                | Change::DirectorForgotten { .. }
                | Change::FormatRaised { .. }
                | Change::SourceRefused { .. }
                | Change::SourceRecovered { .. }
                | Change::Access(_)
                | Change::Audited(_) => {}
            }
        }
    }

    /// What a change of a partition tells of runs that are to be started anew.
    fn observe_run(&mut self, id: PartitionId, what: &What) {
        match what {
            What::RestartAsked => {
                self.restart_asked.insert(id);
            }
            What::Changed => {
                self.data_changed.insert(id);
            }
            What::Started { .. }
            | What::Exited { .. }
            | What::Released { .. }
            | What::Expired
            | What::Fenced(_)
            | What::Closed(_) => {
                self.restart_asked.remove(&id);
                self.unrest.restarted(id);
            }
            What::Created
            | What::Restored
            | What::Removed
            | What::Desired(_)
            | What::Revived
            | What::Assigned
            | What::Withdrawn(_)
            | What::Assumed
            | What::Ready
            | What::Revoked(_) => {}
        }
    }

    /// The list of a service was read, and what it changes is folded; or it cannot be read.
    pub fn listed(&mut self, service: &ServiceName) {
        self.created.remove(service);
        self.unrest.listed(service);
    }

    /// What is to be done now. The same decision comes again until the fold shows it.
    ///
    /// `silent` are sessions that have not been renewed for so long that nothing new is given to them.
    pub fn decide(
        &mut self,
        now: Moment,
        cluster: &Cluster,
        silent: &BTreeSet<SessionId>,
    ) -> Decision {
        if self.silent != *silent {
            self.silent.clone_from(silent);
            self.dirty_agents = true;
            self.idle = false;
        }
        if self.idle && self.wake_at.is_none_or(|at| now < at) {
            return Decision {
                wake_at: self.wake_at,
                ..Decision::default()
            };
        }
        self.sync(now, cluster);
        let decision = self.orders(now, cluster);
        self.idle = decision.is_empty();
        self.wake_at = decision.wake_at;
        decision
    }

    /// Where a partition is to be.
    fn target(&self, id: PartitionId) -> Option<AgentIndex> {
        let exile = self.exiled.get(&id).map(|exile| exile.to);
        exile.or_else(|| self.layout.owner(PartitionIndex(id.0)))
    }

    fn row(&self, index: AgentIndex) -> Option<&AgentRow> {
        self.agents.get(self.names.get(index.0 as usize)?)
    }

    fn index_of(&self, session: SessionId, cluster: &Cluster) -> Option<AgentIndex> {
        let agent = cluster.session(session)?.agent();
        self.agents.get(agent).map(|row| row.index)
    }

    /// Looks at the whole cluster as it will be once all agents that are here have the lease classes open
    /// that its services need, without deciding anything: enough to tell what would be.
    #[must_use]
    pub fn view(
        config: PlannerConfig,
        now: Now,
        cluster: &Cluster,
        silent: &BTreeSet<SessionId>,
    ) -> Self {
        let mut planner = Self::new(config, now.wall);
        planner.silent.clone_from(silent);
        let services = cluster.services();
        planner.foreseen = services
            .map(|(_, service)| service.spec().lease_class())
            .collect();
        planner.sync(now.moment, cluster);
        planner
    }
}
