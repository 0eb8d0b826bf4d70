//! What runs ask of their agent at their sockets: answered from the machine, or handed to it.

use quorate_core::agent::{AskId, Event, Fate};

use super::Shell;
use super::local::{self, Ask, Question, Reply};

impl Shell {
    /// A run asks something.
    pub(super) fn asked(&mut self, ask: Ask) {
        let Ask {
            warden,
            run,
            question,
            answer,
        } = ask;
        match question {
            Question::Look => {
                if let Some(seen) = self.machine.see(warden, run) {
                    // Whoever asked may have gone.
                    let _gone = answer.send(Reply::Seen {
                        item: seen.item.cloned(),
                        checkpoint: seen.checkpoint.cloned(),
                        deadline: seen.deadline,
                    });
                }
            }
            Question::Ready => {
                self.step(Event::Notified { warden, run });
                let _gone = answer.send(Reply::Noted);
            }
            Question::Keep(content) => {
                self.last_ask = AskId(self.last_ask.0 + 1);
                let ask = self.last_ask;
                if self.keeping.len() >= local::OF_ALL_MAX {
                    // Those that have given up waiting; the others have their connection open.
                    self.keeping.retain(|_, waiting| !waiting.is_closed());
                }
                self.keeping.insert(ask, answer);
                self.step(Event::CheckpointAsked {
                    warden,
                    run,
                    ask,
                    content,
                });
            }
        }
    }

    pub(super) fn answer(&mut self, ask: AskId, outcome: Fate) {
        if let Some(waiting) = self.keeping.remove(&ask) {
            let _gone = waiting.send(Reply::Kept(outcome));
        }
    }
}
