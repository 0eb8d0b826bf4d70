//! How far runs have come: taken from them, and answered when the directors have it, or will not.

use super::*;
use crate::agent::{AskId, Fate, Latest, Seen};
use crate::checkpoint::Content;

impl Session {
    /// A run wants this to be kept for the next owner.
    pub(super) fn checkpoint_asked(
        &mut self,
        run: RunId,
        ask: AskId,
        content: Content,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.runs.get(&run.token);
        let known = known.filter(|known| known.life.attempt() == run.attempt);
        let partition = known.and_then(|known| match known.right {
            // Whether it is still ours, the directors say.
            Right::Unconfirmed | Right::Claimed | Right::Assumed => known.partition(),
            Right::Given | Right::Denied => None,
        });
        match partition {
            Some(partition) => {
                let given_up = self.desk.put(partition, run.token, content, ask);
                let outcome = Fate::Unknown;
                effects.extend(given_up.map(|ask| Effect::AnswerCheckpoint { ask, outcome }));
            }
            None => effects.push(refused(ask, run.token)),
        }
    }

    /// The directors answered a call.
    pub(super) fn checkpoints_answered(
        &mut self,
        call: u64,
        kept: &[Token],
        effects: &mut Vec<Effect>,
    ) {
        let kept: BTreeSet<Token> = kept.iter().copied().collect();
        for answered in self.desk.answered(call).into_iter().flatten() {
            let written = answered.written;
            let token = written.token;
            let held = kept.contains(&token);
            if held && let Some(run) = self.runs.get_mut(&token) {
                run.learn(Latest {
                    token,
                    number: written.number,
                    content: written.content,
                });
            }
            let asks = answered.asks.into_iter();
            effects.extend(asks.map(|ask| {
                if held {
                    let number = written.number;
                    let outcome = Fate::Kept { token, number };
                    Effect::AnswerCheckpoint { ask, outcome }
                } else {
                    refused(ask, token)
                }
            }));
        }
    }

    /// A run as its program may see it.
    pub(in crate::agent) fn see(&self, run: RunId) -> Option<Seen<'_>> {
        let known = self.runs.get(&run.token);
        let known = known.filter(|known| known.life.attempt() == run.attempt)?;
        Some(Seen {
            item: known.item.as_ref(),
            checkpoint: known.checkpoint.as_ref(),
            deadline: self.deadline,
        })
    }

    /// Nothing more is written under a token: what has not been sent is refused.
    pub(super) fn drop_checkpoint(&mut self, token: Token, effects: &mut Vec<Effect>) {
        let asks = self.desk.drop(token).into_iter();
        effects.extend(asks.map(|ask| refused(ask, token)));
    }

    /// The session ends: whether what is under way was kept, nobody here will hear.
    pub(super) fn drop_checkpoints(&mut self, effects: &mut Vec<Effect>) {
        let outcome = Fate::Unknown;
        let asks = self.desk.drop_all().into_iter();
        effects.extend(asks.map(|ask| Effect::AnswerCheckpoint { ask, outcome }));
    }
}

fn refused(ask: AskId, token: Token) -> Effect {
    let outcome = Fate::Ended { token };
    Effect::AnswerCheckpoint { ask, outcome }
}
