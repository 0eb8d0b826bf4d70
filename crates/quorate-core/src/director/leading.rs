//! Becoming the leader, deciding while it lasts, and stopping.

use crate::history::Change;
use crate::ids::{AgentName, BatchId, Position, SessionId};
use crate::planner::Planner;
use crate::record::Record;

use super::batch::{Batch, Job};
use super::call::Answer;
use super::effect::Effect;
use super::event::Now;
use super::log::Append;
use super::planning::Planning;
use super::{Director, Role};
use crate::cluster::{LOST, Outcome};

impl Director {
    pub(super) fn hinted(
        &mut self,
        should_lead: Option<bool>,
        occupied: Position,
        effects: &mut Vec<Effect>,
    ) {
        self.log.occupied(occupied);
        self.should_lead = should_lead.unwrap_or(self.should_lead);
        match (should_lead, &self.role) {
            (Some(true), Role::Follower) => self.role = Role::Candidate,
            (Some(false), Role::Leader) => self.step_down(effects),
            (Some(false), Role::Candidate) => self.role = Role::Follower,
            (Some(true), Role::Candidate | Role::Leader | Role::Halted(_))
            | (Some(false), Role::Follower | Role::Halted(_))
            | (None, _) => {}
        }
    }

    /// Stands for election behind everything that is known to be in the ledger.
    ///
    /// The position decides: it is won only if nothing was written that this director has not folded.
    pub(super) fn stand(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.log.busy(self.cluster.position()) || self.log.stands_later(now.moment) {
            return;
        }
        let elected = Record::Elected {
            name: self.config.name.clone(),
            id: self.config.id,
            address: self.config.address.clone(),
            format: self.config.formats.newest,
        };
        let epoch = self.cluster.epoch().next();
        self.append(now, epoch, vec![elected], Vec::new(), effects);
    }

    /// Somebody was elected.
    pub(super) fn led(&mut self, now: Now, by: BatchId, effects: &mut Vec<Effect>) {
        match self.role {
            Role::Leader => {
                self.step_down(effects);
                if self.should_lead {
                    self.role = Role::Candidate;
                    self.log.stand_later(now.moment);
                }
            }
            Role::Candidate if self.log.writes(by) => self.take_office(now),
            Role::Follower if self.takes_late_office(by) => self.take_office(now),
            Role::Candidate | Role::Follower | Role::Halted(_) => {}
        }
    }

    fn take_office(&mut self, now: Now) {
        self.role = Role::Leader;
        let planner = Planner::new(self.config.planner, now.wall);
        self.planning = Some(Planning::new(planner));
        self.renewals.clear();
        self.reports.clear();
        self.drift.clear();
        self.fences.clear();
        self.clocks.clear();
        // R6: whatever the leader before knew, everybody gets the whole time once more, less the silence
        // that is recorded.
        for (id, session) in self.cluster.sessions() {
            let from = self.stamp(now, session);
            let lease = self.plants.counted(session.lease());
            let silent_for = self.recorded_silence(session);
            self.clocks.inherit(*id, from, lease, silent_for);
        }
        if let Some((lease, silent_for)) = self.cluster.lost() {
            let lease = self.plants.counted(lease);
            self.clocks.inherit(LOST, now.moment, lease, silent_for);
        }
    }

    /// Keeps what only a leader knows in step with the fold.
    pub(super) fn observe(&mut self, now: Now, changes: &[Change]) {
        if self.role != Role::Leader {
            return;
        }
        if let Some(planning) = &mut self.planning {
            planning.planner.observe(changes);
        }
        for change in changes {
            match change {
                Change::SessionOpened { session, .. } => {
                    let opened = self.cluster.session(*session);
                    if let Some(lease) = opened.map(crate::cluster::Session::lease) {
                        let lease = self.plants.counted(lease);
                        self.clocks.extend(*session, now.moment, lease);
                    }
                }
                Change::SessionClosed { session, agent, .. } => {
                    self.clocks.end(*session);
                    self.session_ended(*session, agent);
                }
                Change::SessionExpired { session, agent, .. } => {
                    let others = self.cluster.agents().get(agent);
                    let others = others.into_iter().flat_map(|agent| agent.sessions());
                    self.clocks.expired(*session, others.copied());
                    self.session_ended(*session, agent);
                }
                Change::EraBegan { .. } => self.clocks.end(LOST),
                Change::Elected { .. }
                | Change::DirectorKnown { .. }
                | Change::DirectorForgotten { .. }
                | Change::FormatRaised { .. }
                | Change::ServiceCreated { .. }
                | Change::ServiceChanged { .. }
                | Change::ServiceRemoved { .. }
                | Change::ServiceDesired { .. }
                | Change::SourceRefused { .. }
                | Change::SourceRecovered { .. }
                | Change::Partition { .. }
                | Change::SessionResumed { .. }
                | Change::AgentEvicted { .. }
                | Change::AgentFenced { .. }
                | Change::AgentDrifts { .. }
                | Change::AgentSet { .. }
                | Change::AgentForgotten { .. }
                | Change::Access(_)
                | Change::Audited(_) => {}
            }
        }
    }

    /// Forgets what was known of a session, and of its agent with the last one.
    fn session_ended(&mut self, session: SessionId, agent: &AgentName) {
        self.reports.remove(&session);
        let open = self.cluster.agents().get(agent);
        if open.is_none_or(|agent| agent.sessions().is_empty()) {
            self.renewals.forget(agent);
            self.drift.forget(agent);
        }
    }

    /// Decides what goes into the next entry, when there is no other on its way.
    pub(super) fn decide(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.log.busy(self.cluster.position()) {
            return;
        }
        self.clocks.listen(now.moment);
        let mut batch = Batch::new(&self.cluster);
        self.plant_in_batch(now, &mut batch);
        for session in self.clocks.due(now.moment) {
            if !batch.push(Record::SessionExpired { session }) {
                break;
            }
        }
        self.end_what_a_reboot_ended(&mut batch);
        self.note_silence(now.moment, &mut batch);
        self.fence(now.moment, &mut batch, effects);
        self.note_drift(&mut batch);
        // What waits for an entry with room for all of it gets this one: a plan may fill any number.
        if !self.carry.as_ref().is_some_and(|carry| carry.whole) {
            self.plan(now.moment, &mut batch);
        }
        self.take_calls(now, &mut batch);
        if batch.is_empty() && (self.proofs.beat || self.standing.beats(now.moment)) {
            batch.push(Record::Beat);
        }
        if batch.is_empty() {
            return;
        }
        let (records, jobs) = batch.finish();
        self.answer_early(&jobs, effects);
        self.append(now, self.cluster.epoch(), records, jobs, effects);
    }

    /// An own entry is folded: answers leave now.
    pub(super) fn committed(
        &mut self,
        now: Now,
        append: Append,
        outcomes: &[Outcome],
        effects: &mut Vec<Effect>,
    ) {
        for Job {
            id,
            first,
            count,
            reply,
        } in append.jobs
        {
            let own = outcomes.iter().skip(first).take(count);
            let mut refused = own.filter_map(|outcome| match outcome {
                Outcome::Accepted => None,
                Outcome::Refused(refused) => Some(*refused),
            });
            self.note_list(&reply);
            let answer = self.reply_after(reply, refused.next_back());
            effects.push(Effect::Answer { id, answer });
        }
        if self.role == Role::Leader {
            self.proven(now, append.covers, effects);
        }
    }

    /// Another entry is where an own one was to be: that one was certainly not written, and never will.
    pub(super) fn displaced(&mut self, now: Now, append: Append, effects: &mut Vec<Effect>) {
        if let Some(Record::Elected { .. }) = append.records.first() {
            // Two that both believe they should lead must not depose each other without a pause.
            self.log.stand_later(now.moment);
            return;
        }
        if self.role == Role::Leader {
            // What took the position is of another epoch and was folded as nothing, so everything that
            // was decided still holds, one position further on.
            self.append(
                now,
                self.cluster.epoch(),
                append.records,
                append.jobs,
                effects,
            );
            return;
        }
        for job in append.jobs {
            let answer = self.not_leader();
            effects.push(Effect::Answer { id: job.id, answer });
        }
    }

    /// Decides nothing any more. What may or may not have been written is answered as unknown.
    pub(super) fn step_down(&mut self, effects: &mut Vec<Effect>) {
        self.role = Role::Follower;
        let unknown = self.log.abandon().into_iter().map(|job| job.id);
        let unknown: Vec<_> = unknown
            .chain(self.carry.take().map(|carry| carry.id()))
            .collect();
        for id in unknown {
            let answer = Answer::Unknown;
            effects.push(Effect::Answer { id, answer });
        }
        for (id, _) in std::mem::take(&mut self.queue) {
            let answer = self.not_leader();
            effects.push(Effect::Answer { id, answer });
        }
        let mut waiting = self.proofs.give_up();
        waiting.append(&mut self.renewals.give_up());
        self.turn_away(waiting, effects);
        self.clocks.clear();
        self.fences.clear();
        self.planning = None;
    }
}
