//! The way to the loop for everybody else: send, and await the answer.

use std::fmt;
use std::sync::Arc;

use quorate_core::director::call::{Answer, Call, Refusal, Renewal, RenewalAnswer};
use quorate_core::ids::{DirectorName, Epoch, Era, Position, SessionId};
use tokio::sync::{mpsc, oneshot, watch};

use super::{LedgerTimes, Reading, Secrets, WorkAsk, confirm};
use crate::history::History;

/// What of the loop's state everybody may see at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How far the ledger is folded.
    pub(crate) position: Position,
    /// The last position that changed anything that people see.
    pub(crate) changed: Position,
    /// The term.
    pub(crate) epoch: Epoch,
    /// The era.
    pub(crate) era: Era,
    /// Whether this director decides.
    pub(crate) leading: bool,
}

/// Who decides, as far as this director knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Led {
    /// This director.
    Here,
    /// Another one, which is in office.
    By {
        /// Its name.
        name: DirectorName,
        /// Where its API is reached.
        address: String,
    },
    /// Nobody at the moment.
    #[default]
    Nobody,
}

/// A message to the loop.
pub(crate) enum Message {
    /// A call that needs a commit.
    Ask(Box<Ask>),
    /// Something to look up. It must be quick: it holds up everybody else.
    Query(Box<dyn FnOnce(&Reading<'_>) + Send>),
    /// A session waits for work.
    Work(WorkAsk),
}

/// A call that needs a commit.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) call: Call,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// A change that was decided and is in force.
#[derive(Debug)]
pub(crate) struct Made {
    /// What to tell people about it.
    pub(crate) notes: Vec<String>,
    /// Something was written for it.
    pub(crate) changed: bool,
}

/// A renewal.
#[derive(Debug)]
pub(crate) struct RenewalAsk {
    pub(crate) renewal: Renewal,
    /// Sessions that the shared table does not know, with their secrets.
    pub(crate) unknown: Vec<(SessionId, String)>,
    pub(crate) answer: oneshot::Sender<RenewalAnswer>,
}

/// Why the loop gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// Its queue is full; nothing was done.
    #[error("the director has too much to do")]
    Overloaded,
    /// It has ended; a call may have been done.
    #[error("the director is stopping")]
    Ended,
}

/// The way to the loop. Clones lead to the same.
#[derive(Clone)]
pub(crate) struct Handle {
    messages: mpsc::Sender<Message>,
    renewals: mpsc::Sender<RenewalAsk>,
    confirms: mpsc::Sender<confirm::Ask>,
    seen: watch::Receiver<Seen>,
    led: watch::Receiver<Led>,
    times: Arc<LedgerTimes>,
    secrets: Arc<Secrets>,
    history: History,
}

/// The ends of the channels to the loop and from it.
pub(super) struct Ends {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) renewals: mpsc::Sender<RenewalAsk>,
    pub(super) confirms: mpsc::Sender<confirm::Ask>,
    pub(super) seen: watch::Receiver<Seen>,
    pub(super) led: watch::Receiver<Led>,
    pub(super) times: Arc<LedgerTimes>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("seen", &*self.seen.borrow())
            .finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn new(ends: Ends, secrets: Arc<Secrets>, history: History) -> Self {
        let Ends {
            messages,
            renewals,
            confirms,
            seen,
            led,
            times,
        } = ends;
        Self {
            messages,
            renewals,
            confirms,
            seen,
            led,
            times,
            secrets,
            history,
        }
    }

    /// How long the ledger takes.
    pub(crate) fn ledger_times(&self) -> &LedgerTimes {
        &self.times
    }

    /// Asks for a change and awaits its outcome.
    ///
    /// # Errors
    /// When there is none. The caller sets the time limit.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, AskError> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Ask(Box::new(Ask { call, answer })))?;
        answered.await.map_err(|_| AskError::Ended)
    }

    /// Asks for a change that a duty asks for again until it is decided; a refusal decides, too. `None`: it is
    /// not, since nobody looked at it or the outcome is not known.
    pub(crate) async fn decide(&self, call: Call) -> Option<Result<Made, Refusal>> {
        match self.call(call).await {
            Ok(Answer::Done { notes, changed, .. }) => Some(Ok(Made { notes, changed })),
            Ok(Answer::Refused(Refusal::Overloaded)) => None,
            Ok(Answer::Refused(refusal)) => Some(Err(refusal)),
            Ok(
                Answer::Unknown
                | Answer::NotLeader { .. }
                | Answer::Opened { .. }
                | Answer::Reported { .. }
                | Answer::Checkpoints { .. },
            )
            | Err(AskError::Overloaded | AskError::Ended) => None,
        }
    }

    /// Looks something up in the state, within the loop: at most a few thousand items.
    ///
    /// # Errors
    /// When the loop is overloaded or has ended.
    pub(crate) async fn query<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Reading<'_>) -> T + Send + 'static,
    ) -> Result<T, AskError> {
        let (answer, answered) = oneshot::channel();
        let query = Box::new(move |reading: &Reading<'_>| {
            // Whoever asked may have gone.
            let _ = answer.send(look(reading));
        });
        self.send(Message::Query(query))?;
        answered.await.map_err(|_| AskError::Ended)
    }

    /// Renews, in the lane that nothing else uses.
    ///
    /// # Errors
    /// When the lane is full or the loop has ended.
    pub(crate) async fn renew(
        &self,
        renewal: Renewal,
        unknown: Vec<(SessionId, String)>,
    ) -> Result<RenewalAnswer, AskError> {
        let (answer, answered) = oneshot::channel();
        let ask = RenewalAsk {
            renewal,
            unknown,
            answer,
        };
        self.renewals.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => AskError::Ended,
        })?;
        answered.await.map_err(|_| AskError::Ended)
    }

    /// Any other message.
    ///
    /// # Errors
    /// When the loop is overloaded or has ended.
    pub(crate) fn send(&self, message: Message) -> Result<(), AskError> {
        self.messages
            .try_send(message)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => AskError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => AskError::Ended,
            })
    }

    /// What everybody may see.
    pub(crate) fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Tells when that changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// Who decides.
    pub(crate) fn led(&self) -> Led {
        self.led.borrow().clone()
    }

    /// Tells when that changes.
    pub(crate) fn watch_led(&self) -> watch::Receiver<Led> {
        self.led.clone()
    }

    /// The last position that is occupied, or was at some moment after this call began. `None`: the ledger
    /// does not tell. The caller sets the time limit.
    ///
    /// # Errors
    /// When too many ask or the director has ended.
    pub(crate) async fn confirm(&self) -> Result<Option<Position>, AskError> {
        let (ask, answered) = oneshot::channel();
        self.confirms.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => AskError::Ended,
        })?;
        answered.await.map_err(|_| AskError::Ended)
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }
}
