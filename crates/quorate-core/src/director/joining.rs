//! Who may open or resume a session (R13, S7), and what is over for certain because somebody joins.
//!
//! An agent's identity is in its data folder, and folders and machines get copied. Two that have the same
//! identity must never take it from each other in turns: whoever is heard keeps it, and the other one is
//! told what to do. One that is not heard any more may be replaced; its sessions are fenced by the new
//! incarnation and end by their leases.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::{Agent, Session};
use crate::ids::{AgentName, HookName, SessionId};
use crate::lease::LeaseTimes;
use crate::planted::Planted;
use crate::record::{AgentInfo, Cause, CloseReason, Place, Record};
use crate::spec::constraint::CONTAINMENT_LABEL;
use crate::spec::{Problem, Span};
use crate::time::Moment;

use super::Director;
use super::batch::{Batch, Reply};
use super::call::Refusal;
use super::calls::{Decided, not_found, over};

/// An answer to a renewal may take this long, beside the time between two of them.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// An agent process that asks for a session.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) agent: AgentInfo,
    pub(super) lease: LeaseTimes,
    pub(super) secret_hash: String,
    pub(super) process: u64,
}

impl Director {
    pub(super) fn decide_register(
        &self,
        now: Moment,
        batch: &mut Batch,
        registration: Registration,
    ) -> Decided {
        let Registration {
            agent,
            lease,
            secret_hash,
            process,
        } = registration;
        self.long_enough("lease_ms", Span(lease.lease))?;
        own_labels(&agent)?;
        let reply = Reply::Opened {
            secret_hash: secret_hash.clone(),
            process,
        };
        if let Some(session) = self.cluster.session_by_secret(&secret_hash) {
            if self.cluster.exiled(session.id()) {
                return Err(over());
            }
            return Ok((Vec::new(), reply));
        }
        let known = self.cluster.agents().get(&agent.name);
        if let Some(known) = known {
            self.admit(now, known, &agent, process)?;
        }
        let same = known.filter(|known| known.info().id == agent.id && known.process() == process);
        let incarnation =
            same.map_or_else(|| batch.mint_incarnation(), |known| known.incarnation());
        let mut records = self.ended_by_registration(&agent);
        records.push(Record::SessionOpened {
            session: batch.mint_session(),
            incarnation,
            agent: Box::new(agent),
            lease,
            secret_hash,
            process,
        });
        Ok((records, reply))
    }

    /// Whether a process may speak for an agent that is known.
    fn admit(
        &self,
        now: Moment,
        known: &Agent,
        agent: &AgentInfo,
        process: u64,
    ) -> Result<(), Refusal> {
        if known.info().id != agent.id {
            if known.sessions().is_empty() {
                return Ok(());
            }
            let heard = self
                .sessions_of(known)
                .any(|session| self.fresh(now, session).is_some());
            return Err(Refusal::Conflict(name_taken(agent, heard)));
        }
        if known.process() == process {
            return Ok(());
        }
        let elsewhere = self.sessions_of(known);
        let elsewhere = elsewhere.filter(|session| *session.place() != agent.place);
        let heard = elsewhere.filter_map(|session| Some((session, self.fresh(now, session)?)));
        match heard.min_by_key(|(_, ago)| *ago) {
            None => Ok(()),
            Some((session, ago)) => Err(Refusal::Conflict(copied(agent, session.place(), ago))),
        }
    }

    fn sessions_of<'a>(&'a self, agent: &'a Agent) -> impl Iterator<Item = &'a Session> + 'a {
        let ids = agent.sessions().iter();
        ids.filter_map(|id| self.cluster.session(*id))
    }

    /// How long ago a session was heard, if it is so recent that its agent must be taken for alive: at
    /// least one renewal and a try again fit in between.
    fn fresh(&self, now: Moment, session: &Session) -> Option<Duration> {
        let ago = now.since(self.clocks.heard(session.id())?);
        (ago <= session.lease().renew_every * 2 + ANSWER_TIME).then_some(ago)
    }

    /// A machine that has been started anew executes nothing from before: what it held then is free at
    /// once, without waiting for the lease.
    ///
    /// Only a renewal shows that. Whoever sends one has been told the number of its session, so at that
    /// moment its machine was in its boot, and each session that was opened before in another boot is of an
    /// earlier one. A registration shows nothing: it may have been on its way since before the other boot.
    pub(super) fn end_what_a_reboot_ended(&mut self, batch: &mut Batch) {
        while let Some(renewed) = self.renewals.next_beside_others() {
            for session in self.ended_by_reboot(renewed) {
                let reason = CloseReason::Rebooted;
                if !batch.push(Record::SessionClosed { session, reason }) {
                    self.renewals.beside_others(renewed);
                    return;
                }
            }
        }
    }

    fn ended_by_reboot(&self, renewed: SessionId) -> Vec<SessionId> {
        let Some(renewed) = self.cluster.session(renewed) else {
            return Vec::new();
        };
        let known = self.cluster.agents().get(renewed.agent());
        let open = known.into_iter().flat_map(|known| self.sessions_of(known));
        let unfenced = known.into_iter().flat_map(Agent::expired);
        let unfenced = unfenced.filter_map(|id| self.cluster.expired().get(id));
        let before = open.chain(unfenced).filter(|one| one.id() < renewed.id());
        let ended = before.filter(|one| renewed.place().rebooted_since(one.place()));
        ended.map(Session::id).collect()
    }

    pub(super) fn decide_resume(
        &self,
        batch: &mut Batch,
        session: SessionId,
        process: u64,
    ) -> Decided {
        let reply = Reply::Resumed { session, process };
        let open = self.cluster.session(session).ok_or_else(over)?;
        let agent = self.agent_heard(session).ok_or_else(over)?;
        let same = agent.process() == process;
        if same && open.incarnation() == agent.incarnation() {
            return Ok((Vec::new(), reply));
        }
        let incarnation = if same {
            agent.incarnation()
        } else {
            batch.mint_incarnation()
        };
        let record = Record::SessionResumed {
            session,
            incarnation,
            process,
        };
        Ok((vec![record], reply))
    }

    /// Only what is not heard can be evicted: of what is alive two copies would be certain, and it can be
    /// drained. An agent may be alive while a session of its dead wardens is not.
    pub(super) fn decide_evict(&self, now: Moment, name: AgentName, reason: Cause) -> Decided {
        let known = self.cluster.agents().get(&name);
        let known = known.ok_or_else(|| not_found("agent", name.as_str()))?;
        if known.sessions().is_empty() && known.expired().is_empty() {
            let notes = vec![format!("agent {name} holds nothing")];
            return Ok((Vec::new(), Reply::noted(notes)));
        }
        let expired = known.expired().iter();
        let expired = expired.filter_map(|id| self.cluster.expired().get(id));
        let silent = self.sessions_of(known);
        let anyway = self.plants.has(Planted::EvictHeard);
        let silent = silent.filter(|session| anyway || self.fresh(now, session).is_none());
        let taken: Vec<&Session> = silent.chain(expired).collect();
        if taken.is_empty() {
            let heard = self.sessions_of(known);
            let ago = heard.filter_map(|session| self.fresh(now, session)).max();
            return Err(Refusal::Conflict(format!(
                "agent {name} was heard {:.1} s ago in all its sessions, so its processes are alive; \
                 `quorate drain {name}` moves its work without duplicates",
                ago.unwrap_or_default().as_secs_f64()
            )));
        }
        let mut records = vec![Record::Evicted {
            agent: name,
            reason,
        }];
        records.extend(taken.iter().map(|session| Record::SessionClosed {
            session: session.id(),
            reason: CloseReason::Evicted,
        }));
        Ok((records, Reply::noted(self.without_a_hook(&taken))))
    }

    /// What is to be told of work that an eviction frees though its fence hook has not succeeded.
    fn without_a_hook(&self, taken: &[&Session]) -> Vec<String> {
        let held = taken.iter().flat_map(|session| session.held());
        let mut hooks: BTreeMap<&HookName, usize> = BTreeMap::new();
        for hook in held.filter_map(|id| self.cluster.fence_of(*id)) {
            *hooks.entry(hook).or_default() += 1;
        }
        let notes = hooks.into_iter().map(|(hook, count)| {
            let partitions = if count == 1 {
                "partition"
            } else {
                "partitions"
            };
            format!("{count} {partitions} freed without fence hook {hook}, which has not succeeded")
        });
        notes.collect()
    }
}

/// R19: an agent proves its grade, and a label that says another would be shown to people as if it were one.
fn own_labels(agent: &AgentInfo) -> Result<(), Refusal> {
    if !agent.labels.contains_key(CONTAINMENT_LABEL) {
        return Ok(());
    }
    let path = format!("labels.{CONTAINMENT_LABEL}");
    let problem = Problem::new(path, "every agent has this label by itself");
    let hint =
        format!("leave it out; the field \"{CONTAINMENT_LABEL}\" says the grade that was proven");
    Err(Refusal::Invalid(problem.hint(hint)))
}

/// Why an agent may not have a name whose work may still be running somewhere.
fn name_taken(agent: &AgentInfo, heard: bool) -> String {
    let name = &agent.name;
    if heard {
        format!(
            "an agent named {name} is alive with another identity; give this one another --name, or stop that \
             one first"
        )
    } else {
        format!(
            "an agent named {name} with another identity is not heard, and its work may still be running; give \
             this one another --name, or wait for its lease, which work that is kept has not. When its machine \
             is certainly dead, `quorate evict {name}` ends it (see its --help)"
        )
    }
}

fn copied(agent: &AgentInfo, other: &Place, ago: Duration) -> String {
    let place = &agent.place;
    let difference = if place.machine != other.machine {
        "on another machine"
    } else if place.boot != other.boot {
        "in another boot of this machine"
    } else {
        "with another data folder on this machine"
    };
    format!(
        "agent {} with this identity was heard {:.1} s ago {difference}. If this data folder or machine is a \
         copy, start it with an empty --data-dir and a --name of its own; if the other one has just \
         ended, this one is let in a few seconds later",
        agent.name,
        ago.as_secs_f64(),
    )
}
