//! Fence hooks: what the leader wants to see succeed before work of a silent agent is given away (T9).
//!
//! A hook is run when a session has expired and holds work whose service names it, and for work that is
//! kept without a lease when its agent has been silent for as long as the usual lease would have allowed.
//! It is tried again until it succeeds, by whoever leads, so it may run more than once. Only its success,
//! as an entry in the ledger, frees anything.
//!
//! Each try begins with a proof of leadership: a director that stood still, or was cut off, takes everybody
//! for silent, and must not switch a machine off that its successor hears. So that no proof grows old while
//! its hook waits for others to end, only a few are begun at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::Session;
use crate::ids::{AgentName, HookName, SessionId};
use crate::lease::LeaseTimes;
use crate::planted::Planted;
use crate::record::{Cause, Record};
use crate::spec::ServiceSpec;
use crate::time::Moment;

use super::Director;
use super::batch::Batch;
use super::effect::Effect;
use super::proofs::Waiting;

/// Pause after the first failure of a hook; it doubles up to [`AGAIN_MAX`].
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Hooks that run at the same time: a rack that is lost must not start a thousand processes here.
const AT_ONCE: usize = 16;

/// Which hook, for which silent session.
pub(super) type Target = (SessionId, HookName);

/// What became of the hooks that this leader wants to see succeed.
#[derive(Debug, Default)]
pub(super) struct Fences {
    of: BTreeMap<Target, Fence>,
}

#[derive(Debug)]
struct Fence {
    agent: AgentName,
    stage: Stage,
    failures: u32,
    problem: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is to be ordered once this director has proven that it leads.
    Proving,
    /// It has been ordered and has not ended.
    Running,
    /// It has failed and is tried again then.
    Again(Moment),
    /// It has succeeded, which the ledger does not know yet.
    Succeeded,
}

impl Fences {
    pub(super) fn clear(&mut self) {
        self.of.clear();
    }

    /// How many more may be begun now.
    fn room(&self) -> usize {
        let begun = self.of.values().filter(|fence| match fence.stage {
            Stage::Proving | Stage::Running => true,
            Stage::Again(_) | Stage::Succeeded => false,
        });
        AT_ONCE.saturating_sub(begun.count())
    }

    /// When the next try is due. While there is no room the end of another one says so.
    pub(super) fn next(&self) -> Option<Moment> {
        if self.room() == 0 {
            return None;
        }
        let due = self.of.values().filter_map(|fence| match fence.stage {
            Stage::Again(at) => Some(at),
            Stage::Proving | Stage::Running | Stage::Succeeded => None,
        });
        due.min()
    }

    /// A hook has ended.
    pub(super) fn ended(&mut self, now: Moment, target: &Target, problem: Option<Cause>) {
        let Some(fence) = self.of.get_mut(target) else {
            return;
        };
        if fence.stage != Stage::Running {
            return;
        }
        if problem.is_none() {
            fence.stage = Stage::Succeeded;
            return;
        }
        let pause = AGAIN_FIRST * 2u32.saturating_pow(fence.failures.min(10));
        fence.failures = fence.failures.saturating_add(1);
        fence.stage = Stage::Again(now + pause.min(AGAIN_MAX));
        fence.problem = problem;
    }

    /// What is wanted and not begun, or due again. Forgets what nobody waits for.
    fn want(&mut self, now: Moment, wanted: BTreeMap<Target, AgentName>) -> Vec<Target> {
        self.of.retain(|target, _| wanted.contains_key(target));
        let mut room = self.room();
        let mut due = Vec::new();
        for (target, agent) in wanted {
            let fence = self.of.entry(target.clone()).or_insert_with(|| Fence {
                agent,
                stage: Stage::Again(now),
                failures: 0,
                problem: None,
            });
            if room > 0 && matches!(fence.stage, Stage::Again(at) if at <= now) {
                room -= 1;
                fence.stage = Stage::Proving;
                due.push(target);
            }
        }
        due
    }

    /// This director leads: the hook is ordered, if it is still wanted.
    fn begin(&mut self, target: &Target, wanted: bool) -> Option<AgentName> {
        let fence = self.of.get_mut(target)?;
        if fence.stage != Stage::Proving {
            return None;
        }
        if !wanted {
            self.of.remove(target);
            return None;
        }
        fence.stage = Stage::Running;
        Some(fence.agent.clone())
    }

    /// Whether this director leads could not be proven: the hook waits a little.
    pub(super) fn put_off(&mut self, now: Moment, target: &Target) {
        let fence = self.of.get_mut(target);
        if let Some(fence) = fence.filter(|fence| fence.stage == Stage::Proving) {
            fence.stage = Stage::Again(now + AGAIN_FIRST);
        }
    }

    fn succeeded(&self) -> impl Iterator<Item = Record> {
        let done = self.of.iter();
        let done = done.filter(|(_, fence)| fence.stage == Stage::Succeeded);
        done.map(|((session, hook), fence)| Record::Fenced {
            session: *session,
            agent: fence.agent.clone(),
            hook: hook.clone(),
        })
    }
}

impl Director {
    /// Prepares hooks, and writes down which have succeeded.
    pub(super) fn fence(&mut self, now: Moment, batch: &mut Batch, effects: &mut Vec<Effect>) {
        let nobody = self.cluster.expired().is_empty() && self.clocks.silent().is_empty();
        if nobody && self.fences.of.is_empty() {
            return;
        }
        let wanted = self.wanted_fences(now);
        for target in self.fences.want(now, wanted) {
            if self.plants.has(Planted::UnprovenFence) {
                self.begin_fence(now, target, effects);
            } else {
                self.proofs.wait(Waiting::Fence(target));
            }
        }
        for record in self.fences.succeeded() {
            if !batch.push(record) {
                return;
            }
        }
        // A service that no longer names its hook waits for nothing any more.
        let spent = self.cluster.expired().values();
        let spent = spent.filter(|session| self.lacks_a_fence(session));
        for session in spent.map(Session::id) {
            if !batch.push(Record::SessionExpired { session }) {
                return;
            }
        }
    }

    /// This director led at a moment after it wanted a hook: the hook is ordered, unless its agent was heard
    /// meanwhile.
    pub(super) fn begin_fence(&mut self, now: Moment, target: Target, effects: &mut Vec<Effect>) {
        let wanted = self.wanted_fences(now).contains_key(&target);
        if let Some(agent) = self.fences.begin(&target, wanted) {
            let (session, hook) = target;
            effects.push(Effect::Fence {
                session,
                agent,
                hook,
            });
        }
    }

    fn wanted_fences(&self, now: Moment) -> BTreeMap<Target, AgentName> {
        let expired = self.cluster.expired().values();
        let silent = self.clocks.silent().iter();
        let kept = silent.filter_map(|id| self.cluster.session(*id));
        let kept = kept.filter(|session| self.overdue(now, session));
        let mut wanted = BTreeMap::new();
        for session in expired.chain(kept) {
            for hook in self.cluster.fences_of(session) {
                let target = (session.id(), hook.clone());
                wanted.insert(target, session.agent().clone());
            }
        }
        wanted
    }

    /// How long kept work may be without a sign of its agent before its hook is begun: as long as others are
    /// waited for.
    fn patience(&self) -> Duration {
        if self.plants.has(Planted::HastyFence) {
            return Duration::ZERO;
        }
        LeaseTimes::of(ServiceSpec::default_lease().0).expiry()
    }

    /// Whether work that is kept has been without a sign of its agent for as long as others are waited for.
    fn overdue(&self, now: Moment, session: &Session) -> bool {
        if session.lease().ends() {
            return false;
        }
        let heard = self.clocks.heard(session.id());
        heard.is_some_and(|heard| now.since(heard) >= self.patience())
    }

    fn lacks_a_fence(&self, session: &Session) -> bool {
        let mut held = session.held().iter();
        held.any(|id| self.cluster.fence_of(*id).is_none())
    }

    /// When a hook is to be begun though nothing happens: kept work that becomes overdue, or a try again.
    pub(super) fn fence_at(&self, now: Moment) -> Option<Moment> {
        let silent = self.clocks.silent().iter();
        let kept = silent.filter_map(|id| self.cluster.session(*id));
        let kept = kept.filter(|session| !session.lease().ends());
        let kept = kept.filter(|session| !self.cluster.fences_of(session).is_empty());
        let overdue =
            kept.filter_map(|session| Some(self.clocks.heard(session.id())? + self.patience()));
        // What is overdue already has its hook running, or waiting for its next try.
        let later = overdue.filter(|at| *at > now);
        later.chain(self.fences.next()).min()
    }

    /// How far a hook is that a partition waits for, for people.
    #[must_use]
    pub fn fencing(&self, now: Moment, session: SessionId, hook: &HookName) -> Option<String> {
        let fence = self.fences.of.get(&(session, hook.clone()))?;
        let tried = match (&fence.problem, fence.failures) {
            (Some(problem), failures) => {
                format!(", failed {failures} times, last: {}", problem.as_str())
            }
            (None, _) => String::new(),
        };
        Some(match fence.stage {
            Stage::Proving => format!("it begins{tried}"),
            Stage::Running => format!("it runs{tried}"),
            Stage::Again(at) if at <= now => format!("it waits for other hooks to end{tried}"),
            Stage::Again(at) => {
                let left = at.since(now).as_secs_f64();
                format!("it is tried again in {left:.0} s{tried}")
            }
            Stage::Succeeded => "it has succeeded".to_owned(),
        })
    }
}
