//! What planted bugs do in a director. Without the feature `planted` nothing here does anything.

use std::time::Duration;

use crate::cluster::Session;
use crate::ids::{PartitionId, Position, SessionId, Token};
use crate::planted::Planted;
use crate::record::{AgentInfo, Cause, CloseReason, Record};
use crate::time::Moment;

use super::Director;
use super::batch::{Batch, Job, Reply};
use super::call::Answer;
use super::effect::Effect;
use super::event::Now;
use super::proofs::Waiting;

/// How many positions back an agent that asks late is told of, with a planted bug.
const NEWS_MAX: u64 = 5;

impl Director {
    /// From when on a new leader counts the lease of a session (R6): from now.
    pub(super) fn stamp(&self, now: Now, session: &Session) -> Moment {
        if !self.plants.has(Planted::OldStamps) {
            return now.moment;
        }
        let agent = self.cluster.agents().get(session.agent());
        let seen = agent.map_or(now.wall, |agent| agent.last_seen());
        let millis = now.wall.0.saturating_sub(seen.0);
        let millis = u64::try_from(millis).unwrap_or(0);
        now.moment.before(Duration::from_millis(millis))
    }

    /// How long a session was silent by the word of leaders before: as they recorded it.
    pub(super) fn recorded_silence(&self, session: &Session) -> Duration {
        if self.plants.has(Planted::ForgottenSilence) {
            return Duration::ZERO;
        }
        session.silent_for()
    }

    /// What the registration of an agent ends of what it held elsewhere: nothing.
    pub(super) fn ended_by_registration(&self, agent: &AgentInfo) -> Vec<Record> {
        if !self.plants.has(Planted::RebootByWord) {
            return Vec::new();
        }
        let open = self.cluster.sessions().values().filter_map(|session| {
            let other_boot = agent.place.rebooted_since(session.place());
            (*session.agent() == agent.name && other_boot).then(|| session.id())
        });
        let reason = CloseReason::Rebooted;
        open.map(|session| Record::SessionClosed { session, reason })
            .collect()
    }

    /// Why a fence hook has not succeeded: as it was told.
    pub(super) fn problem_of_fence(&self, problem: Option<Cause>) -> Option<Cause> {
        problem.filter(|_| !self.plants.has(Planted::FailedFence))
    }

    pub(super) fn plant_in_batch(&mut self, now: Now, batch: &mut Batch) {
        if self.plants.has(Planted::WallClockTokens) {
            let millis = u64::try_from(now.wall.0).unwrap_or(0);
            batch.count_tokens_from(Token::new(self.cluster.era(), millis));
        }
        if self.plants.has(Planted::EarlyExpiry) {
            let due: Vec<SessionId> = self.clocks.due(now.moment).collect();
            for session in due {
                let changes = self.cluster.expire_early(session);
                batch.push(Record::SessionExpired { session });
                self.observe(now, &changes);
            }
        }
    }

    /// Answers claims and checkpoints that are not committed yet.
    pub(super) fn answer_early(&self, jobs: &[Job], effects: &mut Vec<Effect>) {
        if self.plants.has(Planted::EarlyCheckpoints) {
            for job in jobs {
                if let Reply::Checkpoints { asked } = &job.reply {
                    let answer = Answer::Checkpoints {
                        kept: asked.iter().map(|(_, token, _)| *token).collect(),
                        refused: Vec::new(),
                    };
                    effects.push(Effect::Answer { id: job.id, answer });
                }
            }
        }
        if !self.plants.has(Planted::EarlyAnswers) {
            return;
        }
        for job in jobs {
            if let Reply::Reported {
                sequence, claims, ..
            } = &job.reply
            {
                let answer = Answer::Reported {
                    sequence: *sequence,
                    assumed: claims.iter().map(|(_, token)| *token).collect(),
                    refused: Vec::new(),
                };
                effects.push(Effect::Answer { id: job.id, answer });
            }
        }
    }

    /// Answers calls that change nothing without a proof of leadership.
    pub(super) fn answer_unproven(&mut self, effects: &mut Vec<Effect>) {
        if !self.plants.has(Planted::StaleReads) {
            return;
        }
        for waiting in self.proofs.take_calls() {
            if let Waiting::Call(id, reply) = waiting {
                let answer = self.reply(reply);
                effects.push(Effect::Answer { id, answer });
            }
        }
    }

    /// The right that a report ends: the one that it names.
    pub(super) fn ended_right(
        &self,
        session: SessionId,
        partition: PartitionId,
        token: Token,
    ) -> (SessionId, Token) {
        if !self.plants.has(Planted::OldCompletion) {
            return (session, token);
        }
        let partition = self.cluster.partition(partition);
        let holder = partition.and_then(crate::cluster::Partition::holder);
        holder.map_or((session, token), |holder| (holder.session, holder.token))
    }

    /// Since when an agent is told what is new: since it asked last.
    pub(super) fn told_since(&self, since: Position) -> Position {
        let latest = Position(self.cluster.position().0.saturating_sub(NEWS_MAX));
        if self.plants.has(Planted::LostNews) && since > Position(0) {
            since.max(latest)
        } else {
            since
        }
    }
}
