//! The director's decisions as a step machine.
//!
//! [`Director::step`] takes one fact and gives orders. It folds what the ledger holds, and while it
//! leads it turns calls, expiries and plans into entries. It must never answer a call before its own
//! fold of the entry that decides it, never keep more than one append outstanding, and never answer a
//! renewal without a proof of leadership that was begun after the renewal arrived.
//!
//! | event \ role | `Follower` | `Candidate` | `Leader` | `Halted` |
//! |---|---|---|---|---|
//! | `Hint` lead | becomes `Candidate` | reads on | reads on | nothing |
//! | `Hint` follow | reads on | becomes `Follower` | steps down | nothing |
//! | `ReadAnswered` | folds | folds, then stands | folds; another's `Elected` steps it down | nothing |
//! | `Reset` | takes it over if newer | the same | the same, and steps down | nothing |
//! | `AppendAnswered` appended | folds | folds; own `Elected` makes it `Leader` | folds, answers, decides on | nothing |
//! | … position taken | reads | reads, then stands again | reads: own batch counts as appended | nothing |
//! | … refused, unknown | forgets it | same entry, same position, again | the same | nothing |
//! | `TailAnswered` | shared store: reads, or becomes `Candidate` | nothing | own epoch: answers renewals; else reads | nothing |
//! | `Asked` | answers not leader | answers not leader | queues, or overloaded | answers not leader |
//! | `Renewed` | answers not leader | answers not leader | stamps (R4), proves (R5) | answers not leader |
//! | `Fenced` | nothing | nothing | frees what waited for it, or tries again | nothing |
//! | `Woke` | retries a read; shared store: looks at the tail | retries | retries; expires (R7); plans; shared store: beats, or steps down | nothing |
//!
//! *Steps down*: queued calls hear *not leader*; those in flight hear *unknown*, unless another entry is
//! seen at their position; renewals hear *not leader*.

mod access;
mod announcing;
mod batch;
pub mod call;
mod calls;
mod changes;
mod checkpoints;
mod clocks;
mod conditions;
mod drift;
pub mod effect;
pub mod event;
mod fences;
mod joining;
mod leading;
mod log;
mod planning;
mod planted;
mod proofs;
mod renewals;
mod repeats;
mod reports;
mod standing;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::format::Formats;
use crate::ids::{AgentName, DirectorName, HookName, Incarnation, Position, SessionId};
use crate::planner::PlannerConfig;
use crate::planted::Plants;
use crate::time::Moment;

use call::{Answer, Call, CallId, RenewalAnswer};
use effect::{Effect, Why};
use event::{Event, Now};

pub use standing::{SILENCE, Shared, TAKEOVER};
pub use work::{WorkDelta, WorkItem, WorkService, WorkState};

/// What a director is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name.
    pub name: DirectorName,
    /// Its random identity, minted with its data folder.
    pub id: u64,
    /// Random number of this process, drawn at start: tells its batches from those of any other.
    pub writer: u64,
    /// Where its API is reached.
    pub address: String,
    /// The formats of the ledger that it reads and writes: those of this build, or up to the one that it is held
    /// at.
    pub formats: Formats,
    /// Most calls that wait to be decided; more are told to come again.
    pub queue_max: usize,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Set where the ledger is in a store that cannot tell who should lead; `None` where it hints.
    pub shared: Option<Shared>,
    /// T of R17: how long a change of leader takes at most over this ledger. A lease that would not
    /// survive it is refused.
    pub takeover: Duration,
    /// For how long renewals are gathered before the next proof of leadership begins for them:
    /// [`GATHER_RENEWALS`], [`GATHER_OVER_STORE`], or nothing.
    pub gather_renewals: Duration,
    /// How partitions are placed where their services do not say.
    pub planner: PlannerConfig,
    /// Whether an agent whose clock drifts beyond what leases bear is drained, and not only told of (R14).
    pub drain_drifting: bool,
    /// The fence hooks that this director's own file describes.
    pub fences: BTreeSet<HookName>,
}

/// A proof of leadership is a round among the directors and takes more of their processors than the renewals that it
/// covers, and nobody waits for a renewal. Calls and fence hooks do not wait for it.
pub const GATHER_RENEWALS: Duration = Duration::from_millis(10);

/// The same over a store: there a proof may be a commit, and others use the store as well.
pub const GATHER_OVER_STORE: Duration = Duration::from_millis(100);

/// What a director is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It folds what others decide.
    Follower,
    /// It is to lead and tries to be elected.
    Candidate,
    /// Its own election is folded: it decides.
    Leader,
    /// It has stopped for ever, with the reason.
    Halted(String),
}

/// The machine.
#[derive(Debug)]
pub struct Director {
    config: Config,
    cluster: Cluster,
    role: Role,
    log: log::Log,
    queue: VecDeque<(CallId, Call)>,
    /// What is left of a change or report that did not fit one entry.
    carry: Option<batch::Carry>,
    proofs: proofs::Proofs,
    clocks: clocks::Clocks,
    planning: Option<planning::Planning>,
    renewals: renewals::Renewals,
    drift: drift::Drift,
    fences: fences::Fences,
    /// Newest report of each session: an older one that comes late changes no display.
    reports: BTreeMap<SessionId, (Incarnation, u64)>,
    standing: standing::Standing,
    saved: Position,
    wake: Option<Moment>,
    /// What the ledger last hinted.
    should_lead: bool,
    plants: Plants,
}

impl Director {
    /// A director that has folded nothing. Pass the snapshot as `Event::Reset` if there is one, then
    /// a `Event::Hint`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            log: log::Log::new(config.writer),
            standing: standing::Standing::new(&config),
            config,
            cluster: Cluster::default(),
            role: Role::Follower,
            queue: VecDeque::new(),
            carry: None,
            proofs: proofs::Proofs::default(),
            clocks: clocks::Clocks::default(),
            planning: None,
            renewals: renewals::Renewals::default(),
            drift: drift::Drift::default(),
            fences: fences::Fences::default(),
            reports: BTreeMap::new(),
            saved: Position(0),
            wake: None,
            should_lead: false,
            plants: Plants::default(),
        }
    }

    /// The same with a bug, to see whether it is found.
    #[must_use]
    pub fn with_plants(self, plants: Plants) -> Self {
        Self {
            drift: drift::Drift::with_plants(plants),
            plants,
            ..self
        }
    }

    /// All state of the cluster as this director has folded it.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What this director is.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The moment at which an agent's session may be expired, while this director leads: for people.
    #[must_use]
    pub fn expires(&self, session: SessionId) -> Option<Moment> {
        self.clocks.expires(session)
    }

    /// Whether a session has missed several renewals, as far as this director knows while it leads.
    #[must_use]
    pub fn silent(&self, session: SessionId) -> bool {
        self.clocks.silent().contains(&session)
    }

    /// How much faster the clock of an agent runs than this director's, in millionths, as measured while
    /// this director leads.
    #[must_use]
    pub fn drift(&self, agent: &AgentName) -> Option<i64> {
        self.drift.of(agent)
    }

    /// Where the leader's API is, if it is another director.
    #[must_use]
    pub fn leader_address(&self) -> Option<String> {
        let leader = self.cluster.leader()?;
        (leader.id != self.config.id).then(|| leader.address.clone())
    }

    /// Takes one fact and gives orders.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        if let Role::Halted(_) = self.role {
            return self.step_halted(event, effects);
        }
        match event {
            Event::Hint {
                should_lead,
                occupied,
            } => self.hinted(should_lead, occupied, effects),
            Event::ReadAnswered { from, outcome } => {
                self.read_answered(now, from, outcome, effects);
            }
            Event::Reset { next, bytes } => self.reset(now, next, &bytes, effects),
            Event::AppendAnswered { append, outcome } => {
                self.append_answered(now, append, outcome, effects);
            }
            Event::TailAnswered { proof, tail } => self.tail_answered(now, proof, tail, effects),
            Event::Asked { id, call } => self.asked(id, call, effects),
            Event::Renewed { id, renewal } => self.renewed(now, id, renewal, effects),
            Event::Fenced {
                session,
                hook,
                problem,
            } => {
                let problem = self.problem_of_fence(problem);
                self.fences.ended(now.moment, &(session, hook), problem);
            }
            Event::Woke => self.wake = None,
        }
        self.advance(now, effects);
    }

    /// What follows from the state, whatever the event was.
    fn advance(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if let Role::Halted(_) = self.role {
            return;
        }
        self.retry(now, effects);
        self.read_on(now, effects);
        if self.role == Role::Leader {
            self.give_up_office(now, effects);
        }
        match self.role {
            Role::Halted(_) => {}
            Role::Follower => self.listen(now, effects),
            Role::Candidate => self.stand(now, effects),
            Role::Leader => {
                self.decide(now, effects);
                self.prove(now.moment, effects);
            }
        }
        self.order_wake(now, effects);
    }

    fn order_wake(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let busy = self.log.busy(self.cluster.position());
        let stands = self.standing.due(&self.role, busy, self.proofs.begun());
        let mut wake = earliest(self.log.retry_at(), stands);
        if self.role == Role::Leader {
            wake = earliest(wake, self.proofs.due());
        }
        if self.role == Role::Leader && !busy {
            // While the ledger is to answer, nothing is decided anyway.
            wake = earliest(wake, self.clocks.next());
            wake = earliest(wake, self.fence_at(now.moment));
            let planning = self.planning.as_ref();
            wake = earliest(wake, planning.and_then(planning::Planning::next));
        }
        let Some(wake) = wake else { return };
        // An order that stands and comes earlier is enough: waking too often does no harm.
        if self
            .wake
            .is_none_or(|ordered| wake < ordered || ordered <= now.moment)
        {
            self.wake = Some(wake);
            effects.push(Effect::WakeAt(wake));
        }
    }

    fn asked(&mut self, id: CallId, call: Call, effects: &mut Vec<Effect>) {
        let answer = if self.role != Role::Leader {
            self.not_leader()
        } else if self.queue.len() >= self.config.queue_max {
            Answer::Refused(call::Refusal::Overloaded)
        } else {
            self.queue.push_back((id, call));
            return;
        };
        effects.push(Effect::Answer { id, answer });
    }

    fn not_leader(&self) -> Answer {
        Answer::NotLeader {
            leader: self.leader_address(),
        }
    }

    fn renewal_not_leader(&self) -> RenewalAnswer {
        RenewalAnswer::NotLeader {
            leader: self.leader_address(),
        }
    }

    fn step_halted(&self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Asked { id, call: _ } => {
                let answer = self.not_leader();
                effects.push(Effect::Answer { id, answer });
            }
            Event::Renewed { id, renewal: _ } => {
                let answer = self.renewal_not_leader();
                effects.push(Effect::AnswerRenewal { id, answer });
            }
            Event::Hint { .. }
            | Event::ReadAnswered { .. }
            | Event::Reset { .. }
            | Event::AppendAnswered { .. }
            | Event::TailAnswered { .. }
            | Event::Fenced { .. }
            | Event::Woke => {}
        }
    }

    /// Stops for ever.
    fn halt(&mut self, reason: String, why: Why, effects: &mut Vec<Effect>) {
        self.step_down(effects);
        self.role = Role::Halted(reason.clone());
        effects.push(Effect::Halt { reason, why });
    }
}

fn earliest(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
