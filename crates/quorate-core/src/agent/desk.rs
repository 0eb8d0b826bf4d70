//! How far the runs of a session have come, on its way to the directors: gathered while a call is under
//! way, sent as one.
//!
//! Of each token at most one checkpoint is under way and one waits, the newest; whoever wrote an older
//! one that waits no more is answered with the newer. A call that was sent is never changed: a repeat has
//! the same numbers and the same content.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{AskId, Opened, retry_wait};
use crate::checkpoint::Content;
use crate::director::call::{Checkpoints, Written};
use crate::ids::{PartitionId, Token};
use crate::planted::{Planted, Plants};
use crate::time::Moment;

/// The least time between two calls of a session. A thousand programs that write every second, or one
/// that does nothing else, are five calls a second.
const GAP: Duration = Duration::from_millis(200);
/// Most checkpoints in a call.
const LINES_MAX: usize = 500;
/// Runs that wait for one and the same answer. A shell lets a run wait a few times at once; what is
/// older has given up.
const ASKS_MAX: usize = 64;
/// Most bytes in a call: half of an entry of the ledger.
const BYTES_MAX: usize = 128 * 1024;

/// The newest checkpoint of a token that is not under way yet.
#[derive(Debug)]
struct Waiting {
    partition: PartitionId,
    content: Content,
    asks: Vec<AskId>,
}

/// The call that is under way.
#[derive(Debug)]
struct Sent {
    call: u64,
    checkpoints: Checkpoints,
    asks: BTreeMap<Token, Vec<AskId>>,
}

/// What was written, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) written: Written,
    pub(super) asks: Vec<AskId>,
}

/// What waits, and the one call that is under way.
#[derive(Debug, Default)]
pub(super) struct Desk {
    waiting: BTreeMap<Token, Waiting>,
    /// Tokens that wait, the longest first: none is passed over.
    queue: VecDeque<Token>,
    sent: Option<Sent>,
    calls: u64,
    /// The highest number given so far.
    number: u64,
    tries: u32,
    again_at: Option<Moment>,
    /// No call before this.
    not_before: Option<Moment>,
}

impl Desk {
    /// Takes a checkpoint in; one of the same token that waits already is superseded. Who has waited for
    /// so long that nobody can listen any more is given back.
    pub(super) fn put(
        &mut self,
        partition: PartitionId,
        token: Token,
        content: Content,
        ask: AskId,
    ) -> Option<AskId> {
        if let Some(waiting) = self.waiting.get_mut(&token) {
            waiting.content = content;
            let full = waiting.asks.len() >= ASKS_MAX;
            let oldest = full.then(|| waiting.asks.remove(0));
            waiting.asks.push(ask);
            return oldest;
        }
        self.queue.push_back(token);
        let asks = vec![ask];
        self.waiting.insert(
            token,
            Waiting {
                partition,
                content,
                asks,
            },
        );
        None
    }

    /// Nothing more is written under a token: who waits for that.
    pub(super) fn drop(&mut self, token: Token) -> Vec<AskId> {
        let Some(waiting) = self.waiting.remove(&token) else {
            return Vec::new();
        };
        self.queue.retain(|queued| *queued != token);
        waiting.asks
    }

    /// Everybody who waits, also for what is under way.
    pub(super) fn drop_all(&mut self) -> Vec<AskId> {
        let Self { waiting, sent, .. } = std::mem::take(self);
        let waiting = waiting.into_values().flat_map(|waiting| waiting.asks);
        let sent = sent.into_iter().flat_map(|sent| sent.asks.into_values());
        waiting.chain(sent.flatten()).collect()
    }

    /// When there is something to send that must not be sent yet.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        if self.sent.is_some() {
            return self.again_at;
        }
        self.not_before.filter(|_| !self.queue.is_empty())
    }

    /// The next call to make: the one without an answer again when its time has come, otherwise a new
    /// one if none is under way and something waits.
    pub(super) fn next(
        &mut self,
        now: Moment,
        opened: Opened,
        plants: Plants,
    ) -> Option<(u64, Checkpoints)> {
        if let Some(sent) = &self.sent {
            self.again_at.take_if(|at| now >= *at)?;
            return Some((sent.call, sent.checkpoints.clone()));
        }
        if self.queue.is_empty() || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let mut given = Vec::new();
        let mut asks = BTreeMap::new();
        let mut bytes = 0;
        while let Some(&token) = self.queue.front() {
            let next = self.waiting.get(&token).map(|next| &next.content);
            bytes += next.map_or(0, |content| content.as_bytes().len());
            if given.len() == LINES_MAX || (bytes > BYTES_MAX && !given.is_empty()) {
                break;
            }
            self.queue.pop_front();
            if let Some(waiting) = self.waiting.remove(&token) {
                given.push(Written {
                    partition: waiting.partition,
                    token,
                    number: self.number(now, plants),
                    content: waiting.content,
                });
                asks.insert(token, waiting.asks);
            }
        }
        let checkpoints = Checkpoints {
            session: opened.session,
            incarnation: opened.incarnation,
            given,
        };
        self.calls += 1;
        self.not_before = Some(now + GAP);
        self.sent = Some(Sent {
            call: self.calls,
            checkpoints: checkpoints.clone(),
            asks,
        });
        Some((self.calls, checkpoints))
    }

    /// Above every number that was given before, also by an earlier process of this agent: the clock
    /// counts on while the machine is up, and no token outlives that.
    fn number(&mut self, now: Moment, plants: Plants) -> u64 {
        let clock = now.as_nanos() / 1000;
        let restarted = plants.has(Planted::RestartedNumbers);
        self.number = if restarted { 0 } else { clock }.max(self.number + 1);
        self.number
    }

    /// The call with this number was answered; `None` when it is not the one under way.
    pub(super) fn answered(&mut self, call: u64) -> Option<Vec<Answered>> {
        let sent = self.sent.take_if(|sent| sent.call == call)?;
        self.tries = 0;
        self.again_at = None;
        let mut asks = sent.asks;
        let given = sent.checkpoints.given.into_iter();
        let answered = given.map(|written| Answered {
            asks: asks.remove(&written.token).unwrap_or_default(),
            written,
        });
        Some(answered.collect())
    }

    /// The call with this number had no answer.
    pub(super) fn unanswered(&mut self, now: Moment, call: u64) {
        if self.sent.as_ref().is_some_and(|sent| sent.call == call) {
            self.tries = self.tries.saturating_add(1);
            let wait = retry_wait(call, self.tries).clamp(GAP, Duration::from_secs(1));
            self.again_at = Some(now + wait);
        }
    }
}
