//! One token in the hands of a session: what is wanted, by which right, and its supervision.

use std::sync::Arc;

use super::{FoundRun, Item, Latest, Note, RunEnd, Wanted};
use crate::ids::PartitionId;
use crate::supervision::{Event, Policy, State, Supervision};
use crate::time::Moment;

/// By which right a session holds a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// It is not known to this process that the directors agree: it must not be started.
    Unconfirmed,
    /// A report that claims it is under way.
    Claimed,
    /// The directors have answered that it is ours (R9).
    Assumed,
    /// Nothing of it lives, and it is being given back.
    Given,
    /// It is another's, or nobody's: what lives of it must die, and nothing is given back.
    Denied,
}

/// One token.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) right: Right,
    /// What the directors said of it; `None` when only the warden knows it so far.
    pub(super) item: Option<Arc<Item>>,
    /// What its last attempt was started with.
    pub(super) note: Option<Note>,
    pub(super) life: Supervision,
    /// It has ended, and what follows is known only when the directors have named it.
    pub(super) ended: Option<RunEnd>,
    /// How far its partition's owners have come.
    pub(super) checkpoint: Option<Latest>,
    /// When it is in the session's list of alarms.
    pub(super) alarm: Option<Moment>,
}

impl Run {
    /// A token that the directors want here.
    pub(super) fn named(item: Arc<Item>) -> Self {
        Self {
            right: Right::Unconfirmed,
            life: Supervision::new(item.token, item.how.policy.clone(), item.failures),
            item: Some(item),
            note: None,
            ended: None,
            checkpoint: None,
            alarm: None,
        }
    }

    /// A token that a living warden holds. Until the directors name it, it goes on under the
    /// policy of a service that says nothing.
    pub(super) fn found(now: Moment, found: FoundRun, note: Option<Note>) -> Self {
        let FoundRun { run, pid, ended } = found;
        Self {
            right: Right::Unconfirmed,
            item: None,
            note,
            life: Supervision::adopted(run.token, Policy::default(), run.attempt, pid, now),
            ended,
            checkpoint: None,
            alarm: None,
        }
    }

    /// Whether an event is an end that nobody asked for, of a run whose policy is not known yet: it
    /// is put aside.
    pub(super) fn end_must_wait(&mut self, event: &Event) -> bool {
        let by_itself = match self.life.state() {
            State::Starting { .. } | State::Running { .. } | State::Ready { .. } => true,
            State::Held
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Over(_) => false,
        };
        let &Event::Ended { code, signal } = event else {
            return false;
        };
        if self.item.is_some() || !by_itself {
            return false;
        }
        self.ended = Some(RunEnd { code, signal });
        true
    }

    /// Takes in a checkpoint, unless a later one is known: an answer of the directors may overtake a
    /// list of theirs.
    pub(super) fn learn(&mut self, told: Latest) {
        let known = self.checkpoint.as_ref();
        if known.is_none_or(|known| (known.token, known.number) < (told.token, told.number)) {
            self.checkpoint = Some(told);
        }
    }

    pub(super) fn partition(&self) -> Option<PartitionId> {
        let named = self.item.as_ref().map(|item| item.partition);
        named.or(self.note.map(|note| note.partition))
    }

    pub(super) fn wanted(&self) -> bool {
        self.item
            .as_ref()
            .is_some_and(|item| item.wanted == Wanted::Running)
    }

    /// Takes in what the directors say of it now; the answer is what that means for its run.
    pub(super) fn set_item(&mut self, item: Arc<Item>) -> Option<Event> {
        self.life.set_policy(item.how.policy.clone());
        if self.item.is_none() {
            self.life.set_failures_before(item.failures);
        }
        let event = match (item.wanted, self.note) {
            (Wanted::Stopped, _) => Some(Event::StopAsked),
            // Nothing was started yet: the start will take what is newest.
            (Wanted::Running, None) => None,
            (Wanted::Running, Some(note)) => {
                let new = Note::of(&item);
                if note.recipe != new.recipe || note.restarts_asked != new.restarts_asked {
                    Some(Event::RestartAsked)
                } else if note.data_version != new.data_version {
                    Some(Event::DataChanged)
                } else {
                    None
                }
            }
        };
        if let (Some(note), Some(_)) = (&mut self.note, &event) {
            // What was taken in once must not be taken for a change again.
            *note = Note::of(&item);
        }
        self.item = Some(item);
        event
    }
}

impl Note {
    pub(super) fn of(item: &Item) -> Self {
        Self {
            partition: item.partition,
            recipe: item.how.recipe,
            data_version: item.data_version,
            restarts_asked: item.restarts_asked,
        }
    }
}
