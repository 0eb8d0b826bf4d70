//! Proofs of leadership (R5): an answer that rests on what the leader knows leaves only after the ledger
//! has shown this leader's epoch at a moment after the question arrived.
//!
//! Everything that waits has the number of its arrival. A proof, or an append, covers what had arrived
//! when it began; one is outstanding at a time and covers all that came while the one before ran.

use std::collections::VecDeque;

use crate::ids::{Epoch, Era, Position};
use crate::time::Moment;

use super::batch::Reply;
use super::call::{CallId, Renewal};
use super::effect::{Effect, Why};
use super::event::{Now, ProofId};
use super::fences::Target;
use super::{Director, Role};

/// Counts arrivals; what has this number or a lower one had arrived by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival(u64);

#[derive(Debug)]
pub(super) enum Waiting {
    /// A renewal, already stamped.
    Renewal(CallId, Renewal),
    /// A call that changes nothing.
    Call(CallId, Reply),
    /// A fence hook that is to begin.
    Fence(Target),
}

#[derive(Debug, Default)]
pub(super) struct Proofs {
    arrived: Arrival,
    waiting: VecDeque<(Arrival, Waiting)>,
    begun: Option<Begun>,
    last: u64,
    /// The last that waits and is no renewal.
    urgent: Option<Arrival>,
    /// Before this nothing begins for renewals alone.
    gathering_until: Option<Moment>,
    /// The tail shows an entry of an earlier leader behind my election: only an entry of mine proves.
    pub(super) beat: bool,
}

#[derive(Debug)]
struct Begun {
    proof: ProofId,
    covers: Arrival,
    folded: Position,
}

impl Proofs {
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.arrived.0 += 1;
        match &waiting {
            Waiting::Renewal(..) => {}
            Waiting::Call(..) | Waiting::Fence(_) => self.urgent = Some(self.arrived),
        }
        self.waiting.push_back((self.arrived, waiting));
    }

    /// Whether one runs.
    pub(super) fn begun(&self) -> bool {
        self.begun.is_some()
    }

    /// When a proof is to begin; `None` when none is to, or one runs already.
    pub(super) fn due(&self) -> Option<Moment> {
        if self.begun.is_some() || self.waiting.is_empty() || self.beat {
            return None;
        }
        let gathers = self.gathering_until.filter(|_| self.urgent.is_none());
        Some(gathers.unwrap_or(Moment::from_nanos(0)))
    }

    /// Everything that has arrived by now.
    pub(super) fn arrived(&self) -> Arrival {
        self.arrived
    }

    /// Takes the calls that wait, and leaves the renewals.
    pub(super) fn take_calls(&mut self) -> Vec<Waiting> {
        let waiting = std::mem::take(&mut self.waiting);
        let (calls, rest) = waiting
            .into_iter()
            .partition(|(_, waiting)| matches!(waiting, Waiting::Call(..)));
        self.waiting = rest;
        let calls: VecDeque<(Arrival, Waiting)> = calls;
        calls.into_iter().map(|(_, waiting)| waiting).collect()
    }

    fn take(&mut self, covers: Arrival) -> Vec<Waiting> {
        let covered = self.waiting.iter().take_while(|(at, _)| *at <= covers);
        let count = covered.count();
        self.urgent.take_if(|urgent| *urgent <= covers);
        let covered = self.waiting.drain(..count);
        covered.map(|(_, waiting)| waiting).collect()
    }

    /// Everything that waits, because nothing can be proven any more.
    pub(super) fn give_up(&mut self) -> Vec<Waiting> {
        self.begun = None;
        self.beat = false;
        self.gathering_until = None;
        self.take(self.arrived)
    }
}

impl Director {
    /// Begins a proof when somebody waits for one.
    pub(super) fn prove(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.answer_unproven(effects);
        let gathers = self.config.gather_renewals;
        let proofs = &mut self.proofs;
        if proofs.due().is_none_or(|due| due > now) {
            return;
        }
        proofs.gathering_until = Some(now + gathers);
        let covers = proofs.arrived;
        self.begin_proof(covers, effects);
    }

    /// Looks at the end of the ledger.
    pub(super) fn begin_proof(&mut self, covers: Arrival, effects: &mut Vec<Effect>) {
        let proofs = &mut self.proofs;
        proofs.last += 1;
        let proof = ProofId(proofs.last);
        proofs.begun = Some(Begun {
            proof,
            covers,
            folded: self.standing.at_least(self.cluster.position()),
        });
        effects.push(Effect::ProveTail { proof });
    }

    pub(super) fn tail_answered(
        &mut self,
        now: Now,
        proof: ProofId,
        tail: Option<(Position, Epoch)>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(begun) = self.proofs.begun.take_if(|begun| begun.proof == proof) else {
            return;
        };
        let Some((next, epoch)) = tail else {
            self.looked(now, None);
            return self.unproven(now, begun.covers, effects);
        };
        if next <= begun.folded {
            let reason = format!(
                "other history: the ledger ends before position {next} of era {}, and this director has folded, or \
                 wants to see, position {} of era {}",
                Era::of(next.0),
                begun.folded,
                Era::of(begun.folded.0)
            );
            return self.halt(reason, Why::OtherHistory, effects);
        }
        if self.role != Role::Leader {
            return self.looked(now, Some(next));
        }
        if epoch == self.cluster.epoch() {
            self.standing.reaches(now.moment);
            return self.proven(now, begun.covers, effects);
        }
        self.log.occupied(Position(next.0.saturating_sub(1)));
        if epoch < self.cluster.epoch() {
            // A late entry of an earlier leader is the last one: only an entry of my own proves now.
            self.proofs.beat = true;
            return;
        }
        self.unproven(now, begun.covers, effects);
    }

    /// This director led at a moment after everything that is covered had arrived.
    pub(super) fn proven(&mut self, now: Now, covers: Arrival, effects: &mut Vec<Effect>) {
        self.proofs.beat = false;
        for waiting in self.proofs.take(covers) {
            match waiting {
                Waiting::Renewal(id, renewal) if self.waits_for_heard(&renewal) => {
                    self.renewals.hold_back(id, renewal);
                }
                Waiting::Renewal(id, renewal) => {
                    let answer = self.renewal_answer(now, &renewal);
                    effects.push(Effect::AnswerRenewal { id, answer });
                }
                Waiting::Call(id, reply) => {
                    let answer = self.reply(reply);
                    effects.push(Effect::Answer { id, answer });
                }
                Waiting::Fence(target) => self.begin_fence(now.moment, target, effects),
            }
        }
    }

    fn unproven(&mut self, now: Now, covers: Arrival, effects: &mut Vec<Effect>) {
        let waiting = self.proofs.take(covers);
        for waiting in &waiting {
            if let Waiting::Fence(target) = waiting {
                self.fences.put_off(now.moment, target);
            }
        }
        self.turn_away(waiting, effects);
    }

    /// Nothing was decided for these: they may ask again, here or elsewhere.
    pub(super) fn turn_away(&self, waiting: Vec<Waiting>, effects: &mut Vec<Effect>) {
        let answers = waiting.into_iter().filter_map(|waiting| match waiting {
            Waiting::Renewal(id, _) => Some(Effect::AnswerRenewal {
                id,
                answer: self.renewal_not_leader(),
            }),
            Waiting::Call(id, _) => Some(Effect::Answer {
                id,
                answer: self.not_leader(),
            }),
            // Nobody waits for an answer: whoever leads wants it anew.
            Waiting::Fence(_) => None,
        });
        effects.extend(answers);
    }
}
