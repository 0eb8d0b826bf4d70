//! The leader's clocks: when it may be sure that nothing of a session executes any more.
//!
//! They belong to one leadership: a new leader starts them all afresh (R6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::SessionId;
use crate::time::Moment;

/// E of every open session.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    of: BTreeMap<SessionId, Moment>,
    order: BTreeSet<(Moment, SessionId)>,
}

impl Clocks {
    /// Moves E of a session forward, never back (R4).
    pub(super) fn extend(&mut self, session: SessionId, now: Moment, expiry: Duration) {
        let expires = now + expiry;
        let before = self.of.get(&session).copied();
        if before.is_some_and(|before| before >= expires) {
            return;
        }
        if let Some(before) = self.of.insert(session, expires) {
            self.order.remove(&(before, session));
        }
        self.order.insert((expires, session));
    }

    pub(super) fn end(&mut self, session: SessionId) {
        if let Some(expires) = self.of.remove(&session) {
            self.order.remove(&(expires, session));
        }
    }

    pub(super) fn clear(&mut self) {
        self.of.clear();
        self.order.clear();
    }

    pub(super) fn expires(&self, session: SessionId) -> Option<Moment> {
        self.of.get(&session).copied()
    }

    /// Whether the session can no longer be renewed (R7). One that has no clock is not open.
    pub(super) fn spent(&self, session: SessionId, now: Moment) -> bool {
        self.of.get(&session).is_none_or(|expires| now >= *expires)
    }

    /// Sessions that are to be expired, in the order in which they became so.
    pub(super) fn due(&self, now: Moment) -> impl Iterator<Item = SessionId> {
        let due = self.order.iter();
        due.take_while(move |(expires, _)| *expires <= now)
            .map(|(_, session)| *session)
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.order.first().map(|(expires, _)| *expires)
    }
}
