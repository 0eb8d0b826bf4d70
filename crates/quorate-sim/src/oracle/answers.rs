//! What the oracle makes of answers: what was told must be so, for everybody who asks later (S4), and
//! only the newest process of an agent speaks for it (S7).

use quorate_core::director::call::{Answer, Call, Refusal, RenewalAnswer};
use quorate_core::ids::{Incarnation, Position, SessionId};
use quorate_core::record::Schedulable;

use super::Oracle;
use crate::clock::Instant;

/// What was so when a question arrived: the answer must not be older.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noted {
    /// When it arrived.
    at: Instant,
    /// Highest position that anybody had been told.
    told: Position,
    /// Last position of the ledger.
    last: Position,
    /// Highest incarnation that the asking agent had been told.
    speaks: Incarnation,
    /// Whether the session that is to be resumed had been told as open.
    open: bool,
}

impl Oracle {
    /// A question arrives at a director.
    pub(crate) fn asked(
        &mut self,
        now: Instant,
        agent: Option<&str>,
        call: Option<&Call>,
    ) -> Noted {
        match call {
            Some(Call::Restart { .. }) => self.restarts_asked += 1,
            Some(Call::Evict { agent, .. }) => self.eviction_asked(now, agent),
            Some(Call::SetAgent {
                agent,
                schedulable: Schedulable::Draining,
            }) => self.drain_asked(agent),
            Some(_) | None => {}
        }
        let speaks = agent.and_then(|agent| self.speaks.get(agent));
        Noted {
            at: now,
            told: self.told,
            last: self.last,
            speaks: speaks.copied().unwrap_or_default(),
            open: resumed(call).is_some_and(|session| self.told_sessions.contains(&session)),
        }
    }

    /// An answer to a call leaves a director.
    pub(crate) fn answered(
        &mut self,
        agent: Option<&str>,
        noted: Noted,
        call: &Call,
        answer: &Answer,
    ) {
        match answer {
            Answer::Done { position, .. } => self.done(noted, call, *position),
            Answer::Opened {
                session,
                incarnation,
                ..
            } => {
                self.told_sessions.insert(*session);
                if !self.opened.contains(session) {
                    let seen = format!("session {session} was told as open and is not there");
                    self.blame("S4", seen);
                }
                if let Some(agent) = agent {
                    let speaks = self.speaks.entry(agent.to_owned()).or_default();
                    *speaks = (*speaks).max(*incarnation);
                }
            }
            Answer::Reported { assumed, .. } => {
                let Call::Report(report) = call else { return };
                if report.incarnation < noted.speaks {
                    let seen = format!(
                        "a report of incarnation {} was taken after {} had been told",
                        report.incarnation, noted.speaks
                    );
                    self.blame("S7", seen);
                }
                for token in assumed {
                    self.right_is_sure(*token);
                    if self.assumed.get(token) != Some(&report.session) {
                        let seen = format!("{token} was told as assumed and is not");
                        self.blame("S5", seen);
                    }
                }
            }
            Answer::Refused(Refusal::Fenced(why)) => {
                let session = resumed(Some(call));
                let alive = session.filter(|session| !self.ended.contains_key(session));
                if let (Some(session), true) = (alive, noted.open) {
                    let seen = format!("session {session} is open and was refused: {why}");
                    self.blame("S4", seen);
                }
            }
            Answer::Checkpoints { kept, .. } => {
                if let Call::Checkpoints(asked) = call {
                    self.kept(asked, kept);
                }
            }
            Answer::Refused(
                Refusal::NotFound { .. }
                | Refusal::Conflict(_)
                | Refusal::Condition(_)
                | Refusal::Invalid(_)
                | Refusal::OtherRequest
                | Refusal::ShownOnce { .. }
                | Refusal::Overloaded,
            )
            | Answer::Unknown
            | Answer::NotLeader { .. } => {}
        }
    }

    fn done(&mut self, noted: Noted, call: &Call, position: Position) {
        if position > self.last {
            let seen = format!("a call was answered as done at {position}, which is not there");
            self.blame("S4", seen);
        }
        if position < noted.told {
            let seen = format!(
                "a call was answered as of {position} after {} had been told",
                noted.told
            );
            self.blame("S4", seen);
        }
        self.told = self.told.max(position);
        let Call::SetAgent { agent, schedulable } = call else {
            return;
        };
        let history = self.agents.get(agent).map(Vec::as_slice);
        let (before, since): (Vec<_>, Vec<_>) = history
            .unwrap_or_default()
            .iter()
            .filter(|(at, _)| *at <= position)
            .partition(|(at, _)| *at <= noted.last);
        let before = before.last().map_or(Schedulable::Active, |(_, set)| *set);
        let so = before == *schedulable || since.iter().any(|(_, set)| set == schedulable);
        if !so {
            let seen = format!("{agent} was told to be {schedulable:?} at {position} and is not");
            self.blame("S4", seen);
        }
    }

    /// An answer to a renewal leaves a director.
    pub(crate) fn renewed(
        &mut self,
        noted: Noted,
        (incarnation, counter): (Incarnation, u64),
        answer: &RenewalAnswer,
    ) {
        let renewed = match answer {
            RenewalAnswer::Answered { renewed, .. } => renewed,
            RenewalAnswer::NotLeader { .. } => return,
        };
        if !renewed.is_empty() && incarnation < noted.speaks {
            let seen = format!(
                "incarnation {incarnation} was renewed after {} had been told",
                noted.speaks
            );
            self.blame("S7", seen);
        }
        for session in renewed {
            self.heard(noted.at, *session, (incarnation, counter));
        }
    }
}

fn resumed(call: Option<&Call>) -> Option<SessionId> {
    match call? {
        Call::Resume { session, .. } => Some(*session),
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
        | Call::Register { .. }
        | Call::Report(_)
        | Call::Checkpoints(_)
        | Call::PutCheckpoint { .. }
        | Call::Close { .. }
        | Call::Access(_)
        | Call::Attributed(_) => None,
    }
}
