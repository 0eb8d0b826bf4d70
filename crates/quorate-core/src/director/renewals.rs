//! Renewals (R4, R5, R7, R13): stamped at receipt, answered after a proof, refused for what is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cluster::Agent;
use crate::ids::{AgentName, Incarnation, SessionId};
use crate::planted::Planted;
use crate::record::{Record, Schedulable};
use crate::time::Moment;

use super::batch::Batch;
use super::call::{CallId, Renewal, RenewalAnswer};
use super::drift::Finding;
use super::effect::Effect;
use super::event::Now;
use super::proofs::Waiting;
use super::{Director, Role};

/// How many attempts of each agent are remembered to tell a repeat from a copy of the agent.
const ATTEMPTS: usize = 16;

const CLOSED: &str = "the session is over: it was silent for longer than its lease, or was closed";
const EXILED: &str = "the session is of before the cluster was restored from a backup";
const FENCED: &str = "a newer process speaks for this agent";
const SPENT: &str = "the session was silent for longer than its lease";
const COPY: &str = "another copy of this agent is running";

/// What was seen of each agent since this director leads.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    /// Sessions whose silence is in the ledger, or on its way there, and that have been heard since: they
    /// get no yes before that is in the ledger, too (R6).
    heard: BTreeSet<SessionId>,
    /// Renewals of those sessions, until then.
    held_back: Vec<(CallId, Renewal)>,
    /// Clocks about which something is to be done.
    findings: BTreeMap<AgentName, Finding>,
    /// Sessions that were renewed while their agents have others beside, which may be of an earlier boot.
    beside_others: BTreeSet<SessionId>,
    seen: BTreeMap<AgentName, (Incarnation, VecDeque<Attempt>)>,
}

/// Below this, in millionths, a planted bug tells of no clock.
const DEAF: i64 = 200_000;

/// What an attempt is beside those that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempted {
    /// It was sent after all of them.
    Newly,
    /// It is one of them. It tells nothing new, and a network that repeats it for ever must not keep a dead
    /// host's session open.
    Again,
    /// It was sent before one of them. Its process has given it up, or is a copy that lags behind: a yes
    /// would let that execute for ever.
    Late,
    /// The same attempt came with another nonce: two copies of one process are running.
    ByCopy,
}

#[derive(Debug, PartialEq, Eq)]
struct Attempt {
    counter: u64,
    nonce: u64,
}

impl Renewals {
    pub(super) fn clear(&mut self) {
        self.seen.clear();
        self.heard.clear();
        self.findings.clear();
        self.beside_others.clear();
    }

    /// A session was renewed whose agent has others, which were not.
    pub(super) fn beside_others(&mut self, session: SessionId) {
        self.beside_others.insert(session);
    }

    pub(super) fn next_beside_others(&mut self) -> Option<SessionId> {
        self.beside_others.pop_first()
    }

    pub(super) fn hold_back(&mut self, id: CallId, renewal: Renewal) {
        self.held_back.push((id, renewal));
    }

    /// What is held back, because this director does not lead any more.
    pub(super) fn give_up(&mut self) -> Vec<Waiting> {
        let held_back = std::mem::take(&mut self.held_back).into_iter();
        held_back
            .map(|(id, renewal)| Waiting::Renewal(id, renewal))
            .collect()
    }

    pub(super) fn forget(&mut self, agent: &AgentName) {
        self.seen.remove(agent);
    }

    /// What an attempt is beside those before it.
    fn judge(&mut self, agent: &AgentName, renewal: &Renewal) -> Attempted {
        let fresh = || (renewal.incarnation, VecDeque::new());
        let (incarnation, attempts) = self.seen.entry(agent.clone()).or_insert_with(fresh);
        if *incarnation != renewal.incarnation {
            (*incarnation, *attempts) = fresh();
        }
        let same = attempts.iter().find(|seen| seen.counter == renewal.counter);
        if let Some(same) = same {
            return if same.nonce == renewal.nonce {
                Attempted::Again
            } else {
                Attempted::ByCopy
            };
        }
        let newest = attempts.iter().map(|seen| seen.counter).max();
        if newest.is_some_and(|newest| renewal.counter < newest) {
            return Attempted::Late;
        }
        if attempts.len() == ATTEMPTS {
            attempts.pop_front();
        }
        attempts.push_back(Attempt {
            counter: renewal.counter,
            nonce: renewal.nonce,
        });
        Attempted::Newly
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
        if let Some(agent) = &agent {
            let found = self
                .drift
                .note(agent, renewal.incarnation, now.moment, renewal.sent_ms)
                .filter(|found| !self.plants.has(Planted::DeafDrift) || found.ppm.abs() > DEAF);
            self.renewals
                .findings
                .extend(found.map(|found| (agent.clone(), found)));
        }
        let attempted = agent.map(|agent| self.renewals.judge(&agent, &renewal));
        let refused = match attempted {
            Some(Attempted::ByCopy) => Some(renewal.sessions.as_slice()),
            Some(Attempted::Late) => Some([].as_slice()),
            Some(Attempted::Newly | Attempted::Again) | None => None,
        };
        if let Some(lost) = refused {
            let lost = lost.iter().map(|session| (*session, COPY.to_owned()));
            let answer = RenewalAnswer::Answered {
                renewed: Vec::new(),
                lost: lost.collect(),
            };
            effects.push(Effect::AnswerRenewal { id, answer });
            return;
        }
        for session in &renewal.sessions {
            let repeated = attempted == Some(Attempted::Again);
            let incarnation = renewal.incarnation;
            if repeated || self.lost(now, *session, incarnation, &mut None).is_some() {
                continue;
            }
            if let Some(open) = self.cluster.session(*session) {
                let lease = self.plants.counted(open.lease());
                self.clocks.extend(*session, now.moment, lease);
                let silent = !open.silent_for().is_zero() || self.log.records_silence(*session);
                if silent && !self.plants.has(Planted::Unheard) {
                    self.renewals.heard.insert(*session);
                }
                let known = self.cluster.agents().get(open.agent());
                let all = known.map_or(0, |known| known.sessions().len() + known.expired().len());
                if all > renewal.sessions.len() {
                    self.renewals.beside_others(*session);
                }
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

    /// Records for the next leader how long sessions have been silent, and which have been heard again.
    pub(super) fn note_silence(&mut self, now: Moment, batch: &mut Batch) {
        let cluster = &self.cluster;
        self.renewals.heard.retain(|session| {
            let known = cluster.session(*session);
            known.is_some_and(|known| !known.silent_for().is_zero())
        });
        let held_back = std::mem::take(&mut self.renewals.held_back);
        for (id, renewal) in held_back {
            if self.waits_for_heard(&renewal) {
                self.renewals.hold_back(id, renewal);
            } else {
                self.proofs.wait(Waiting::Renewal(id, renewal));
            }
        }
        for session in &self.renewals.heard {
            let session = *session;
            if !batch.push(Record::Heard { session }) {
                return;
            }
        }
        for (session, lasted) in self.clocks.notes_due(now) {
            let for_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
            if !batch.push(Record::Silent { session, for_ms }) {
                return;
            }
            self.clocks.noted(session, now);
        }
    }

    /// Tells of clocks that drift, and takes the work from those that do so beyond what leases bear (R14).
    pub(super) fn note_drift(&mut self, batch: &mut Batch) {
        while let Some((agent, found)) = self.renewals.findings.pop_first() {
            let Finding { ppm, beyond } = found;
            let known = self.cluster.agents().get(&agent);
            let active = known.is_some_and(|known| known.schedulable() != Schedulable::Draining);
            let mut records = vec![Record::Drifts {
                agent: agent.clone(),
                ppm,
            }];
            if beyond && active && self.config.drain_drifting {
                records.push(Record::AgentSet {
                    agent: agent.clone(),
                    schedulable: Schedulable::Draining,
                });
            }
            if !records.into_iter().all(|record| batch.push(record)) {
                self.renewals.findings.insert(agent, found);
                return;
            }
        }
    }

    /// Whether a renewal has to wait until the ledger knows that its sessions are heard again.
    pub(super) fn waits_for_heard(&self, renewal: &Renewal) -> bool {
        let mut waiting = renewal.sessions.iter();
        waiting.any(|session| {
            let known = self.cluster.session(*session);
            let recorded = known.is_some_and(|known| !known.silent_for().is_zero());
            self.renewals.heard.contains(session)
                && (recorded || self.log.records_silence(*session))
        })
    }

    /// Why a session cannot be renewed. `known` is the agent that was looked at last: mostly all sessions of
    /// a renewal are of one.
    fn lost<'a>(
        &'a self,
        now: Now,
        session: SessionId,
        incarnation: Incarnation,
        known: &mut Option<&'a Agent>,
    ) -> Option<&'static str> {
        if self.cluster.exiled(session) && !self.plants.has(Planted::RestoredSessions) {
            return Some(EXILED);
        }
        let open = self.cluster.session(session);
        *known = open.and_then(|open| match *known {
            Some(agent) if agent.name() == open.agent() => Some(agent),
            Some(_) | None => self.cluster.agents().get(open.agent()),
        });
        let Some(agent) = *known else {
            return Some(CLOSED);
        };
        if incarnation != agent.incarnation() {
            return Some(FENCED);
        }
        self.clocks.spent(session, now.moment).then_some(SPENT)
    }

    pub(super) fn renewal_answer(&self, now: Now, renewal: &Renewal) -> RenewalAnswer {
        let mut renewed = Vec::with_capacity(renewal.sessions.len());
        let mut lost = Vec::new();
        let mut known = None;
        for session in &renewal.sessions {
            match self.lost(now, *session, renewal.incarnation, &mut known) {
                None => renewed.push(*session),
                Some(why) => lost.push((*session, why.to_owned())),
            }
        }
        RenewalAnswer::Answered { renewed, lost }
    }
}
