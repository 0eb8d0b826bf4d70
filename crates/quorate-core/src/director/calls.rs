//! What a call becomes: records for the next entry, and how to answer after the fold.

use std::collections::BTreeSet;

use crate::cluster::{Agent, Refused, State};
use crate::ids::{
    AgentName, Incarnation, PartitionId, PartitionKey, ServiceName, SessionId, Token,
};
use crate::record::{CloseReason, Desired, Record, Schedulable};
use crate::spec::Span;
use crate::spec::validate::short_lease;

use super::Director;
use super::batch::{Batch, Carry, Reply};
use super::call::{Answer, Call, CallId, Object, Refusal};
use super::event::Now;
use super::joining::Registration;
use super::proofs::Waiting;
use super::repeats::is_done_in;

/// What was decided about a call. No records: nothing needs to change, and the answer waits for a proof.
pub(super) type Decided = Result<(Vec<Record>, Reply), Refusal>;

impl Director {
    /// Fills the batch with calls, in the order in which they came.
    pub(super) fn take_calls(&mut self, now: Now, batch: &mut Batch) {
        if let Some(carry) = self.carry.take() {
            batch.changes_specs = true;
            self.carry = batch.take(carry);
        }
        while self.carry.is_none() {
            let Some((id, call)) = self.queue.pop_front() else {
                return;
            };
            if let Some(session) = speaks_for(&call)
                && batch.resumes(session)
            {
                // Whether its process still speaks for the session is known after this very entry.
                self.queue.push_front((id, call));
                return;
            }
            if (compares(&call) && batch.changes_specs)
                || self.may_be_another(&call, batch)
                || is_done_in(batch, &call)
            {
                // It would be compared with what this very entry changes.
                self.queue.push_front((id, call));
                return;
            }
            batch.changes_specs |= compares(&call);
            match self.decide_call(now, batch, call) {
                Ok((records, reply)) if records.is_empty() => {
                    self.note_list(&reply);
                    self.proofs.wait(Waiting::Call(id, reply.unwritten()));
                }
                Ok((records, reply)) => {
                    let carry = Carry::new((id, reply), records);
                    if carry.fits() {
                        self.carry = batch.take(carry);
                    } else {
                        let refusal = Refusal::Conflict(
                            "a part of this is larger than an entry of the ledger may be"
                                .to_owned(),
                        );
                        self.refuse(id, refusal);
                    }
                }
                Err(refusal) => self.refuse(id, refusal),
            }
        }
    }

    /// The planner waits for lists that come from outside.
    pub(super) fn note_list(&mut self, reply: &Reply) {
        if let (Reply::Listed { service, .. }, Some(planning)) = (reply, &mut self.planning) {
            planning.planner.listed(service);
        }
    }

    /// Waits for a proof as well: a leader that was deposed does not know the newest sessions, and what
    /// it calls over may be alive.
    fn refuse(&mut self, id: CallId, refusal: Refusal) {
        let reply = Reply::Refused(refusal);
        self.proofs.wait(Waiting::Call(id, reply));
    }

    pub(super) fn decide_call(&mut self, now: Now, batch: &mut Batch, call: Call) -> Decided {
        match call {
            Call::Apply { services } => self.decide_apply(services),
            Call::Remove { services } => self.decide_remove(services),
            Call::Partitions { service, reading } => self.decide_partitions(service, reading),
            Call::SetDesired {
                service,
                key,
                desired,
            } => self.decide_desired(batch, service, key, desired),
            Call::Restart { service, key } => self.decide_restart(service, key),
            Call::SetAgent { agent, schedulable } => self.decide_agent(batch, agent, schedulable),
            Call::ForgetAgent { agent } => self.decide_forget(agent),
            Call::Announce { director } => self.decide_announce(director),
            Call::Members { directors } => Ok(self.decide_format(batch, &directors)),
            Call::ForgetDirector { director } => self.decide_forget_director(director),
            Call::Membership { .. } => Ok((Vec::new(), Reply::done())),
            Call::Evict { agent, reason } => self.decide_evict(now.moment, agent, reason),
            Call::Register {
                agent,
                lease,
                secret_hash,
                process,
            } => self.decide_register(
                now.moment,
                batch,
                Registration {
                    agent,
                    lease,
                    secret_hash,
                    process,
                },
            ),
            Call::Resume { session, process } => self.decide_resume(batch, session, process),
            Call::Report(report) => self.decide_report(*report),
            Call::Conditional(conditional) => self.decide_conditional(now, batch, *conditional),
            Call::Checkpoints(checkpoints) => self.decide_checkpoints(checkpoints),
            Call::PutCheckpoint {
                service,
                key,
                token,
                number,
                content,
            } => self.decide_checkpoint(&service, &key, (token, number), content),
            Call::Close {
                session,
                incarnation,
                reason,
            } => self.decide_close(session, incarnation, reason),
            Call::Access(call) => self.decide_access(now.wall, *call),
            Call::Attributed(attributed) => self.decide_attributed(now, batch, *attributed),
        }
    }

    /// What is so already is not written again: no revision changes, and nobody is woken.
    fn decide_desired(
        &self,
        batch: &Batch,
        service: ServiceName,
        key: Option<PartitionKey>,
        desired: Desired,
    ) -> Decided {
        self.known(&service, key.as_ref())?;
        let notes = match (&key, desired) {
            (Some(_), Desired::Running) => self.stopped_note(&service),
            (None, Desired::Running) => self.stopped_apart_note(&service),
            (_, Desired::Stopped) => Vec::new(),
        };
        let reply = Reply::noted(notes);
        let object = match &key {
            None => Object::Service(service.clone()),
            Some(key) => Object::Partition(service.clone(), key.clone()),
        };
        let is_so = self.cluster.is_desired(&service, key.as_ref(), desired);
        if is_so && !self.changes_in(batch, &object) {
            return Ok((Vec::new(), reply));
        }
        let record = Record::DesiredSet {
            service,
            key,
            desired,
        };
        Ok((vec![record], reply))
    }

    /// What was stopped on purpose stays so: there is nothing to start anew, and the person hears what does.
    fn decide_restart(&self, service: ServiceName, key: Option<PartitionKey>) -> Decided {
        self.known(&service, key.as_ref())?;
        let stopped = self.stopped_note(&service);
        if !stopped.is_empty() {
            return Ok((Vec::new(), Reply::noted(stopped)));
        }
        let notes = match &key {
            None => self.stopped_apart_note(&service),
            Some(key) => {
                let id = self.cluster.partition_id(&service, key);
                let partition = id.and_then(|id| self.cluster.partition(id));
                if partition.is_some_and(|partition| partition.desired() == Desired::Stopped) {
                    let name = format!("{service}/{key}");
                    let note = format!("{name} is stopped; `quorate start {name}` starts it");
                    return Ok((Vec::new(), Reply::noted(vec![note])));
                }
                Vec::new()
            }
        };
        let record = Record::RestartAsked { service, key };
        Ok((vec![record], Reply::noted(notes)))
    }

    /// All of them or, when one of the names is none, nothing.
    fn decide_remove(&self, services: Vec<ServiceName>) -> Decided {
        let names = BTreeSet::from_iter(services);
        for name in &names {
            self.known_service(name)?;
        }
        let records = names
            .into_iter()
            .map(|name| Record::ServiceRemoved { name });
        Ok((records.collect(), Reply::done()))
    }

    fn decide_agent(&self, batch: &Batch, agent: AgentName, schedulable: Schedulable) -> Decided {
        let known = self.cluster.agents().get(&agent);
        let known = known.ok_or_else(|| not_found("agent", agent.as_str()))?;
        let reply = Reply::done();
        let is_so = known.schedulable() == schedulable;
        if is_so && !self.changes_in(batch, &Object::Agent(agent.clone())) {
            return Ok((Vec::new(), reply));
        }
        Ok((vec![Record::AgentSet { agent, schedulable }], reply))
    }

    /// Only what is gone and holds nothing can be forgotten: it has no right that could be lost with it.
    fn decide_forget(&self, agent: AgentName) -> Decided {
        let known = self.cluster.agents().get(&agent);
        let known = known.ok_or_else(|| not_found("agent", agent.as_str()))?;
        if !known.sessions().is_empty() {
            return Err(Refusal::Conflict(format!(
                "agent {agent} is not gone: stop it first, or wait until its lease is over"
            )));
        }
        if !known.expired().is_empty() {
            return Err(Refusal::Conflict(format!(
                "what agent {agent} held still waits for its fence hook"
            )));
        }
        Ok((vec![Record::AgentForgotten { agent }], Reply::done()))
    }

    /// The agent of an open session of this era: nobody of an earlier one is heard, but about deaths.
    pub(super) fn agent_heard(&self, session: SessionId) -> Option<&Agent> {
        self.cluster.in_force(session)?;
        self.cluster.agent_of(session)
    }

    /// Ends a session. Who leaves must be the present process: a message of an earlier one may come late, when
    /// the next has taken the session over and runs something.
    fn decide_close(
        &self,
        session: SessionId,
        incarnation: Option<Incarnation>,
        reason: CloseReason,
    ) -> Decided {
        let agent = self.cluster.agent_of(session);
        let present = agent.map(Agent::incarnation);
        if reason == CloseReason::Left && present.is_some() && incarnation != present {
            return Err(fenced());
        }
        // A proof of death counts as much after the lease is over as before, when it is waited for.
        let unfenced = self.cluster.expired().contains_key(&session) && reason != CloseReason::Left;
        let open = unfenced || self.cluster.session(session).is_some();
        let record = open.then_some(Record::SessionClosed { session, reason });
        let reply = Reply::done();
        Ok((record.into_iter().collect(), reply))
    }

    /// The answer to a call whose records are folded.
    pub(super) fn reply_after(&self, reply: Reply, refused: Option<Refused>) -> Answer {
        match (&reply, refused) {
            // Each claim is told for itself, and a session that was opened twice is open.
            (
                Reply::Reported { .. }
                | Reply::Checkpoints { .. }
                | Reply::Opened { .. }
                | Reply::Resumed { .. },
                _,
            )
            | (
                Reply::Refused(_)
                | Reply::Again { .. }
                | Reply::Listed {
                    refusal: Some(_), ..
                },
                _,
            )
            | (_, None) => self.reply(reply),
            (Reply::Done { .. } | Reply::Listed { .. }, Some(refused)) => {
                Answer::Refused(Refusal::Conflict(refused.to_string()))
            }
        }
    }

    /// The answer as the fold shows it.
    pub(super) fn reply(&self, reply: Reply) -> Answer {
        match reply {
            Reply::Done {
                notes,
                applied,
                changed,
            } => Answer::Done {
                position: self.cluster.position(),
                notes,
                applied,
                changed,
            },
            Reply::Again {
                position,
                notes,
                applied,
            } => Answer::Done {
                position,
                notes,
                applied,
                changed: true,
            },
            Reply::Refused(refusal)
            | Reply::Listed {
                refusal: Some(refusal),
                ..
            } => Answer::Refused(refusal),
            Reply::Listed { refusal: None, .. } => self.reply(Reply::done()),
            Reply::Opened {
                secret_hash,
                process,
            } => {
                let session = self.cluster.session_by_secret(&secret_hash);
                let session = session.map(crate::cluster::Session::id);
                session.map_or_else(lost_race, |session| self.opened(session, process))
            }
            Reply::Resumed { session, process } => self.opened(session, process),
            Reply::Reported {
                session,
                sequence,
                claims,
            } => self.reported(session, sequence, &claims),
            Reply::Checkpoints { asked } => self.checkpoints_kept(&asked),
        }
    }

    fn opened(&self, id: SessionId, process: u64) -> Answer {
        let (Some(session), Some(agent)) = (self.cluster.session(id), self.cluster.agent_of(id))
        else {
            return Answer::Refused(over());
        };
        // A process that was fenced since then hears its own number and is refused with it.
        let current = agent.process() == process;
        Answer::Opened {
            session: id,
            incarnation: if current {
                agent.incarnation()
            } else {
                session.incarnation()
            },
            lease: session.lease(),
        }
    }

    fn reported(
        &self,
        session: SessionId,
        sequence: u64,
        claims: &[(PartitionId, Token)],
    ) -> Answer {
        let mut assumed = Vec::new();
        let mut refused = Vec::new();
        for (partition, token) in claims {
            match self.claim(session, *partition, *token) {
                Ok(()) => assumed.push(*token),
                Err(why) => refused.push((*token, why.to_owned())),
            }
        }
        Answer::Reported {
            sequence,
            assumed,
            refused,
        }
    }

    /// Whether a session holds a partition as assumed, or why not.
    fn claim(
        &self,
        session: SessionId,
        partition: PartitionId,
        token: Token,
    ) -> Result<(), &'static str> {
        let partition = self.cluster.partition(partition);
        let Some(partition) = partition.filter(|partition| {
            let holder = partition.holder();
            holder.is_some_and(|holder| holder.session == session && holder.token == token)
        }) else {
            return Err("the token has ended");
        };
        match partition.state() {
            State::Assumed(_) => Ok(()),
            State::Stopping(..) => Err("it is to be stopped"),
            State::Assigned(_) | State::Unassigned(_) => Err("it was not assumed"),
        }
    }

    /// R17: work under the lease must survive a change of leader.
    pub(super) fn long_enough(&self, at: &str, lease: Span) -> Result<(), Refusal> {
        match short_lease(at, lease, self.config.takeover) {
            None => Ok(()),
            Some(problem) => Err(Refusal::Invalid(problem)),
        }
    }

    pub(super) fn known_service(&self, name: &ServiceName) -> Result<(), Refusal> {
        let known = self.cluster.service(name);
        known
            .map(|_| ())
            .ok_or_else(|| not_found("service", name.as_str()))
    }

    fn known(&self, service: &ServiceName, key: Option<&PartitionKey>) -> Result<(), Refusal> {
        self.known_service(service)?;
        let Some(key) = key else { return Ok(()) };
        let id = self.cluster.partition_id(service, key);
        let partition = id.and_then(|id| self.cluster.partition(id));
        let known = partition.is_some_and(|partition| !partition.doomed());
        let missing = || not_found("partition", &format!("{service}/{key}"));
        known.then_some(()).ok_or_else(missing)
    }

    pub(super) fn stopped_note(&self, service: &ServiceName) -> Vec<String> {
        let stopped = self.cluster.service(service);
        let stopped = stopped.filter(|service| service.desired() == Desired::Stopped);
        let note = stopped.map(|_| {
            format!(
                "service {service} is stopped and stays so until it is started: `quorate start {service}`"
            )
        });
        note.into_iter().collect()
    }

    fn stopped_apart_note(&self, name: &ServiceName) -> Vec<String> {
        let Some(service) = self.cluster.service(name) else {
            return Vec::new();
        };
        let partitions = service.partitions().values();
        let partitions = partitions.filter_map(|id| self.cluster.partition(*id));
        let apart = partitions.filter(|partition| partition.desired() == Desired::Stopped);
        match apart.count() {
            0 => Vec::new(),
            1 => vec![
                "1 partition was stopped by its key and stays so until it is started".to_owned(),
            ],
            n => vec![format!(
                "{n} partitions were stopped by their keys and stay so until they are started"
            )],
        }
    }
}

/// Whether a call is decided by comparing with specifications and lists in force.
fn compares(call: &Call) -> bool {
    match call.itself() {
        Call::Apply { .. } | Call::Remove { .. } | Call::Partitions { .. } => true,
        Call::Conditional(conditional) => compares(&conditional.call),
        Call::SetDesired { .. }
        | Call::Restart { .. }
        | Call::SetAgent { .. }
        | Call::ForgetAgent { .. }
        | Call::Announce { .. }
        | Call::Members { .. }
        | Call::ForgetDirector { .. }
        | Call::Membership { .. }
        | Call::Evict { .. }
        | Call::Register { .. }
        | Call::Resume { .. }
        | Call::Report(_)
        | Call::Checkpoints(_)
        | Call::PutCheckpoint { .. }
        | Call::Close { .. }
        | Call::Access(_)
        | Call::Attributed(_) => false,
    }
}

/// The session that a call counts for only while its process is the present one.
fn speaks_for(call: &Call) -> Option<SessionId> {
    match call {
        Call::Report(report) => Some(report.session),
        Call::Checkpoints(checkpoints) => Some(checkpoints.session),
        Call::Close { session, .. } => Some(*session),
        Call::Apply { .. }
        | Call::Remove { .. }
        | Call::Partitions { .. }
        | Call::SetDesired { .. }
        | Call::Restart { .. }
        | Call::SetAgent { .. }
        | Call::ForgetAgent { .. }
        | Call::Announce { .. }
        | Call::Members { .. }
        | Call::ForgetDirector { .. }
        | Call::Membership { .. }
        | Call::Evict { .. }
        | Call::Conditional(_)
        | Call::PutCheckpoint { .. }
        | Call::Register { .. }
        | Call::Resume { .. }
        | Call::Access(_)
        | Call::Attributed(_) => None,
    }
}

pub(super) fn not_found(what: &'static str, name: &str) -> Refusal {
    Refusal::NotFound {
        what,
        name: name.to_owned(),
    }
}

pub(super) fn fenced() -> Refusal {
    Refusal::Fenced("a newer process speaks for this agent".to_owned())
}

pub(super) fn over() -> Refusal {
    Refusal::Fenced("the session is over".to_owned())
}

/// Two registrations met in one entry, and the other one was first.
fn lost_race() -> Answer {
    let why = "another agent took this name at the same moment; try again";
    Answer::Refused(Refusal::Conflict(why.to_owned()))
}
