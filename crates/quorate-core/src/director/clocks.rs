//! The leader's clocks: since when a session is silent, and when the leader may be sure that nothing of
//! it executes any more.
//!
//! They belong to one leadership: a new leader starts them all afresh (R6).

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::SessionId;
use crate::lease::LeaseTimes;
use crate::time::Moment;

/// E of every open session, and who has been silent for half of its lease.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    of: BTreeMap<SessionId, Clock>,
    expiry: BTreeSet<(Moment, SessionId)>,
    silence: BTreeSet<(Moment, SessionId)>,
    silent: BTreeSet<SessionId>,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    expires: Moment,
    silent_from: Moment,
}

impl Clocks {
    /// Moves E of a session forward, never back (R4).
    pub(super) fn extend(&mut self, session: SessionId, now: Moment, lease: LeaseTimes) {
        let clock = Clock {
            expires: now + lease.expiry(),
            silent_from: now + lease.lease / 2,
        };
        let before = self.of.get(&session);
        if before.is_some_and(|before| before.expires >= clock.expires) {
            return;
        }
        self.end(session);
        self.of.insert(session, clock);
        self.expiry.insert((clock.expires, session));
        self.silence.insert((clock.silent_from, session));
    }

    pub(super) fn end(&mut self, session: SessionId) {
        if let Some(clock) = self.of.remove(&session) {
            self.expiry.remove(&(clock.expires, session));
            self.silence.remove(&(clock.silent_from, session));
            self.silent.remove(&session);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn expires(&self, session: SessionId) -> Option<Moment> {
        self.of.get(&session).map(|clock| clock.expires)
    }

    /// Whether the session can no longer be renewed (R7). One that has no clock is not open.
    pub(super) fn spent(&self, session: SessionId, now: Moment) -> bool {
        self.expires(session).is_none_or(|expires| now >= expires)
    }

    /// Sessions that are to be expired, in the order in which they became so.
    pub(super) fn due(&self, now: Moment) -> impl Iterator<Item = SessionId> {
        let due = self.expiry.iter();
        due.take_while(move |(expires, _)| *expires <= now)
            .map(|(_, session)| *session)
    }

    /// Takes note of who has become silent.
    pub(super) fn listen(&mut self, now: Moment) {
        while let Some((from, session)) = self.silence.first().copied()
            && from <= now
        {
            self.silence.remove(&(from, session));
            self.silent.insert(session);
        }
    }

    /// Sessions that have not been renewed for half of their lease: several attempts were missed.
    pub(super) fn silent(&self) -> &BTreeSet<SessionId> {
        &self.silent
    }

    /// When something here is due next.
    pub(super) fn next(&self) -> Option<Moment> {
        let first = [self.expiry.first(), self.silence.first()];
        first.into_iter().flatten().map(|(at, _)| *at).min()
    }
}
