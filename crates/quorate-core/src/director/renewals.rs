//! Renewals (R4, R5, R7, R13): stamped at receipt, answered after a proof, refused for what is over.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{AgentName, Incarnation, SessionId};
use crate::planted::Planted;

use super::call::{CallId, Renewal, RenewalAnswer};
use super::effect::Effect;
use super::event::Now;
use super::proofs::Waiting;
use super::{Director, Role};

/// How many attempts of each agent are remembered to tell a repeat from a copy of the agent.
const ATTEMPTS: usize = 16;

const CLOSED: &str = "the session is over: it was silent for longer than its lease, or was closed";
const FENCED: &str = "a newer process speaks for this agent";
const SPENT: &str = "the session was silent for longer than its lease";
const COPY: &str = "another copy of this agent is running";

/// What was seen of each agent since this director leads.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    seen: BTreeMap<AgentName, (Incarnation, VecDeque<Attempt>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Attempt {
    counter: u64,
    nonce: u64,
}

impl Renewals {
    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }

    pub(super) fn forget(&mut self, agent: &AgentName) {
        self.seen.remove(agent);
    }

    /// Whether the same attempt came with another nonce: two copies of one process are running.
    fn is_copy(&mut self, agent: &AgentName, renewal: &Renewal) -> bool {
        let fresh = || (renewal.incarnation, VecDeque::new());
        let (incarnation, attempts) = self.seen.entry(agent.clone()).or_insert_with(fresh);
        if *incarnation != renewal.incarnation {
            (*incarnation, *attempts) = fresh();
        }
        let same = attempts.iter().find(|seen| seen.counter == renewal.counter);
        if let Some(same) = same {
            return same.nonce != renewal.nonce;
        }
        if attempts.len() == ATTEMPTS {
            attempts.pop_front();
        }
        attempts.push_back(Attempt {
            counter: renewal.counter,
            nonce: renewal.nonce,
        });
        false
    }
}

impl Director {
    pub(super) fn renewed(
        &mut self,
        now: Now,
        id: CallId,
        renewal: Renewal,
        effects: &mut Vec<Effect>,
    ) {
        if self.role != Role::Leader {
            let answer = self.renewal_not_leader();
            effects.push(Effect::AnswerRenewal { id, answer });
            return;
        }
        let agents = renewal.sessions.iter();
        let agents = agents.filter_map(|session| self.cluster.session(*session));
        let agent = agents.map(|session| session.agent().clone()).next();
        if agent.is_some_and(|agent| self.renewals.is_copy(&agent, &renewal)) {
            let lost = renewal.sessions.into_iter();
            let answer = RenewalAnswer::Answered {
                renewed: Vec::new(),
                lost: lost.map(|session| (session, COPY.to_owned())).collect(),
            };
            effects.push(Effect::AnswerRenewal { id, answer });
            return;
        }
        for session in &renewal.sessions {
            if self.lost(now, *session, renewal.incarnation).is_some() {
                continue;
            }
            if let Some(open) = self.cluster.session(*session) {
                let lease = self.plants.counted(open.lease());
                self.clocks.extend(*session, now.moment, lease);
            }
        }
        if self.plants.has(Planted::UnprovenRenewals) {
            let answer = self.renewal_answer(now, &renewal);
            effects.push(Effect::AnswerRenewal { id, answer });
            return;
        }
        // A refusal waits for the proof as well: this director may not know the newest sessions.
        self.proofs.wait(Waiting::Renewal(id, renewal));
    }

    /// Why a session cannot be renewed.
    fn lost(&self, now: Now, session: SessionId, incarnation: Incarnation) -> Option<&'static str> {
        let Some(agent) = self.cluster.agent_of(session) else {
            return Some(CLOSED);
        };
        if incarnation != agent.incarnation() {
            return Some(FENCED);
        }
        self.clocks.spent(session, now.moment).then_some(SPENT)
    }

    pub(super) fn renewal_answer(&self, now: Now, renewal: &Renewal) -> RenewalAnswer {
        let mut renewed = Vec::new();
        let mut lost = Vec::new();
        for session in &renewal.sessions {
            match self.lost(now, *session, renewal.incarnation) {
                None => renewed.push(*session),
                Some(why) => lost.push((*session, why.to_owned())),
            }
        }
        RenewalAnswer::Answered { renewed, lost }
    }
}
