//! Folding the life of agents and their sessions (R6, R7, R13, S7).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::access::Node;
use crate::history::{Change, What};
use crate::ids::{AgentName, Incarnation, PartitionId, SessionId};
use crate::lease::LeaseTimes;
use crate::record::{AgentInfo, Cause, CloseReason, Schedulable};
use crate::spec::Span;

use super::apply::Fold;
use super::eras::LOST;
use super::partition::Freed;
use super::session::{Agent, Session};
use super::{Cluster, Refused};

/// Agents that are gone and still known, by which people see that a machine is missing.
pub(super) const GONE_MAX: usize = 1_000;

/// A session that is to begin.
pub(super) struct Opening {
    pub(super) session: SessionId,
    pub(super) incarnation: Incarnation,
    pub(super) agent: AgentInfo,
    pub(super) lease: LeaseTimes,
    pub(super) secret_hash: String,
    pub(super) process: u64,
}

impl Cluster {
    pub(super) fn open_session(
        &mut self,
        fold: &mut Fold,
        opening: Opening,
    ) -> Result<(), Refused> {
        let name = opening.agent.name.clone();
        let place = Arc::new(opening.agent.place.clone());
        self.check_opening(&opening)?;
        self.last_session = opening.session;
        self.last_incarnation = self.last_incarnation.max(opening.incarnation);
        if !self.agents.contains_key(&name) {
            self.forget_the_longest_gone(fold);
        }
        let agent = self.agents.entry(name.clone()).or_insert_with(|| Agent {
            info: opening.agent.clone(),
            schedulable: Schedulable::Active,
            incarnation: opening.incarnation,
            process: opening.process,
            sessions: BTreeSet::new(),
            expired: BTreeSet::new(),
            last_seen: fold.wall,
            joined: fold.at,
            revision: fold.at,
        });
        agent.info = opening.agent;
        agent.incarnation = opening.incarnation;
        agent.process = opening.process;
        agent.sessions.insert(opening.session);
        agent.last_seen = fold.wall;
        agent.joined = fold.at;
        let joined = agent.sessions.len() == 1;
        let lease = Span(opening.lease.lease);
        let session = Session {
            id: opening.session,
            agent: name.clone(),
            place,
            lease: opening.lease,
            secret_hash: Arc::from(opening.secret_hash),
            incarnation: opening.incarnation,
            opened: fold.at,
            held: BTreeSet::new(),
            gone: VecDeque::new(),
            gone_known_from: fold.at,
            changed: fold.at,
            silent_ms: 0,
        };
        self.sessions.insert(opening.session, session);
        fold.changes.push(Change::SessionOpened {
            session: opening.session,
            agent: name,
            lease,
            joined,
        });
        Ok(())
    }

    fn check_opening(&self, opening: &Opening) -> Result<(), Refused> {
        if opening.session <= self.last_session {
            return Err(Refused::Number);
        }
        let agent = self.agents.get(&opening.agent.name);
        let same_machine = agent.is_none_or(|agent| agent.info.id == opening.agent.id);
        if !same_machine && agent.is_some_and(|agent| !agent.sessions.is_empty()) {
            return Err(Refused::AgentId);
        }
        let same_process = agent.is_some_and(|agent| {
            same_machine
                && agent.process == opening.process
                && agent.incarnation == opening.incarnation
        });
        if opening.incarnation <= self.last_incarnation && !same_process {
            return Err(Refused::Number);
        }
        if self.session_by_secret(&opening.secret_hash).is_some() {
            return Err(Refused::Secret);
        }
        Ok(())
    }

    pub(super) fn resume_session(
        &mut self,
        fold: &mut Fold,
        id: SessionId,
        incarnation: Incarnation,
        process: u64,
    ) -> Result<(), Refused> {
        if self.exiled(id) {
            return Err(Refused::NoSession);
        }
        let session = self.sessions.get_mut(&id).ok_or(Refused::NoSession)?;
        let agent = self.agents.get_mut(&session.agent);
        let agent = agent.ok_or(Refused::NoAgent)?;
        // A process that speaks for several sessions resumes each with the same incarnation.
        let same_process = agent.process == process && agent.incarnation == incarnation;
        if incarnation <= self.last_incarnation && !same_process {
            return Err(Refused::Number);
        }
        self.last_incarnation = self.last_incarnation.max(incarnation);
        agent.incarnation = incarnation;
        agent.process = process;
        agent.last_seen = fold.wall;
        session.incarnation = incarnation;
        fold.changes.push(Change::SessionResumed {
            session: id,
            agent: session.agent.clone(),
            incarnation,
        });
        Ok(())
    }

    pub(super) fn close_session(
        &mut self,
        fold: &mut Fold,
        id: SessionId,
        reason: CloseReason,
    ) -> Result<(), Refused> {
        let (agent, held) = self.ending(id)?;
        // Every other reason is a proof that nothing executes, for which no hook is needed.
        let unfenced = match reason {
            CloseReason::Evicted => {
                let waiting = held.iter().filter(|id| self.fence_of(**id).is_some());
                waiting.count()
            }
            CloseReason::Left
            | CloseReason::AgentDied
            | CloseReason::WardenDied
            | CloseReason::Rebooted => 0,
        };
        fold.changes.push(Change::SessionClosed {
            session: id,
            agent,
            reason,
            freed: held.len(),
            unfenced,
        });
        for partition in held {
            self.vacate(fold, partition, What::Closed(reason), |from| {
                Freed::Closed { reason, from }
            });
        }
        self.end_session(fold, id);
        Ok(())
    }

    /// A person takes what an agent is silent about without proof of death; the sessions that this closes
    /// follow as records of their own.
    pub(super) fn evict(
        &mut self,
        fold: &mut Fold,
        name: &AgentName,
        reason: Cause,
    ) -> Result<(), Refused> {
        if !self.agents.contains_key(name) {
            return Err(Refused::NoAgent);
        }
        fold.changes.push(Change::AgentEvicted {
            agent: name.clone(),
            reason,
        });
        Ok(())
    }

    fn ending(&self, id: SessionId) -> Result<(AgentName, Vec<PartitionId>), Refused> {
        let open = self.sessions.get(&id).or_else(|| self.expired.get(&id));
        let session = open.ok_or(Refused::NoSession)?;
        Ok((
            session.agent.clone(),
            session.held.iter().copied().collect(),
        ))
    }

    /// Ends a session, open or expired, that holds nothing any more.
    pub(super) fn end_session(&mut self, fold: &Fold, id: SessionId) {
        let open = self.sessions.remove(&id);
        let Some(session) = open.or_else(|| self.expired.remove(&id)) else {
            return;
        };
        assert!(
            session.held.is_empty(),
            "session {id} ended while it held {:?}",
            session.held
        );
        if let Some(agent) = self.agents.get_mut(&session.agent) {
            agent.sessions.remove(&id);
            agent.expired.remove(&id);
            agent.last_seen = fold.wall;
        }
    }

    /// How long leaders have answered no renewal of a session (R6).
    pub(super) fn note_silence(&mut self, id: SessionId, for_ms: u64) -> Result<(), Refused> {
        if id == LOST {
            return self.note_lost_silence(for_ms);
        }
        let session = self.sessions.get_mut(&id).ok_or(Refused::NoSession)?;
        session.silent_ms = for_ms;
        Ok(())
    }

    pub(super) fn note_drift(
        &self,
        fold: &mut Fold,
        agent: AgentName,
        ppm: i64,
    ) -> Result<(), Refused> {
        if !self.agents.contains_key(&agent) {
            return Err(Refused::NoAgent);
        }
        fold.changes.push(Change::AgentDrifts { agent, ppm });
        Ok(())
    }

    /// Room for one more name: machines that come and go under ever new ones must not fill the ledger.
    fn forget_the_longest_gone(&mut self, fold: &mut Fold) {
        if self.agents.len() < GONE_MAX {
            return;
        }
        let gone = self.agents.values().filter(|agent| agent.is_gone());
        if gone.clone().count() < GONE_MAX {
            return;
        }
        let longest = gone.min_by_key(|agent| (agent.last_seen, agent.joined));
        if let Some(name) = longest.map(|agent| agent.name().clone()) {
            self.forget(fold, name);
        }
    }

    pub(super) fn forget_agent(&mut self, fold: &mut Fold, name: AgentName) -> Result<(), Refused> {
        let agent = self.agents.get(&name).ok_or(Refused::NoAgent)?;
        if !agent.is_gone() {
            return Err(Refused::Held);
        }
        self.bar(fold, Node::Agent, name.as_str());
        self.forget(fold, name);
        Ok(())
    }

    fn forget(&mut self, fold: &mut Fold, name: AgentName) {
        self.agents.remove(&name);
        fold.changes.push(Change::AgentForgotten { agent: name });
    }

    pub(super) fn set_agent(
        &mut self,
        fold: &mut Fold,
        name: AgentName,
        schedulable: Schedulable,
    ) -> Result<(), Refused> {
        let agent = self.agents.get_mut(&name).ok_or(Refused::NoAgent)?;
        if agent.schedulable != schedulable {
            agent.schedulable = schedulable;
            fold.changes.push(Change::AgentSet {
                agent: name,
                schedulable,
            });
        }
        Ok(())
    }
}
