//! The leader's clocks: since when a session is silent, and when the leader may be sure that nothing of
//! it executes any more.
//!
//! They belong to one leadership: a new leader starts them all afresh, but for the silence of patient
//! sessions that leaders before have recorded (R6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::SessionId;
use crate::lease::{self, LeaseTimes};
use crate::time::Moment;

/// E of every open session, and who is silent.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    of: BTreeMap<SessionId, Clock>,
    expiry: BTreeSet<(Moment, SessionId)>,
    silence: BTreeSet<(Moment, SessionId)>,
    silent: BTreeSet<SessionId>,
    /// When the silence of a patient session is next to be recorded.
    notes: BTreeSet<(Moment, SessionId)>,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    /// When it was last heard, or this leadership began.
    heard: Moment,
    /// How long it had been silent by then, as leaders before have recorded.
    before: Duration,
    expires: Moment,
    silent_from: Moment,
    note_at: Option<Moment>,
    lease: LeaseTimes,
}

impl Clocks {
    /// Moves E of a session forward, never back (R4): a renewal of it has been received.
    pub(super) fn extend(&mut self, session: SessionId, now: Moment, lease: LeaseTimes) {
        let clock = Clock::begun(now, lease);
        let Some(known) = self.of.get_mut(&session) else {
            return self.set(session, clock);
        };
        if known.expires >= clock.expires {
            return;
        }
        let before = std::mem::replace(known, clock);
        self.unlist(session, before);
        self.list(session, clock);
    }

    /// The clock of a session under a new leader: the whole time once more, less what leaders before have
    /// recorded that they did not answer it (R6).
    pub(super) fn inherit(
        &mut self,
        session: SessionId,
        now: Moment,
        lease: LeaseTimes,
        silent_for: Duration,
    ) {
        let mut clock = Clock::begun(now, lease);
        clock.before = silent_for;
        clock.expires = now + lease.expiry().saturating_sub(lease::at_least(silent_for));
        self.set(session, clock);
    }

    fn set(&mut self, session: SessionId, clock: Clock) {
        self.end(session);
        self.of.insert(session, clock);
        self.list(session, clock);
    }

    fn list(&mut self, session: SessionId, clock: Clock) {
        self.expiry.insert((clock.expires, session));
        self.silence.insert((clock.silent_from, session));
        if let Some(at) = clock.note_at {
            self.notes.insert((at, session));
        }
    }

    fn unlist(&mut self, session: SessionId, clock: Clock) {
        self.expiry.remove(&(clock.expires, session));
        if !self.silence.remove(&(clock.silent_from, session)) {
            self.silent.remove(&session);
        }
        if let Some(at) = clock.note_at {
            self.notes.remove(&(at, session));
        }
    }

    /// Sessions whose silence is to be recorded now, and how long it has lasted.
    pub(super) fn notes_due(&self, now: Moment) -> Vec<(SessionId, Duration)> {
        let due = self.notes.iter().take_while(|(at, _)| *at <= now);
        let due = due.filter_map(|(_, session)| {
            let clock = self.of.get(session)?;
            Some((*session, clock.before + now.since(clock.heard)))
        });
        due.collect()
    }

    /// The silence of a session is being recorded; the next step of it is due later.
    pub(super) fn noted(&mut self, session: SessionId, now: Moment) {
        let Some(clock) = self.of.get_mut(&session) else {
            return;
        };
        if let Some(at) = clock.note_at.take() {
            self.notes.remove(&(at, session));
        }
        clock.note_at = clock.lease.silence_step().map(|step| now + step);
        self.notes.extend(clock.note_at.map(|at| (at, session)));
    }

    pub(super) fn end(&mut self, session: SessionId) {
        if let Some(clock) = self.of.remove(&session) {
            self.unlist(session, clock);
        }
    }

    /// A session has expired: what was heard of its agent's others no later than of it is silent as well,
    /// however long their leases are, because one message renews them all.
    pub(super) fn expired(
        &mut self,
        session: SessionId,
        others: impl IntoIterator<Item = SessionId>,
    ) {
        let heard = self.heard(session);
        self.end(session);
        for other in others {
            if let Some(clock) = self.of.get(&other)
                && heard.is_some_and(|heard| clock.heard <= heard)
            {
                self.silence.remove(&(clock.silent_from, other));
                self.silent.insert(other);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn expires(&self, session: SessionId) -> Option<Moment> {
        self.of.get(&session).map(|clock| clock.expires)
    }

    /// Since when nothing was heard of a session; at most since this leadership began.
    pub(super) fn heard(&self, session: SessionId) -> Option<Moment> {
        self.of.get(&session).map(|clock| clock.heard)
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

    /// Sessions that have not been renewed for half of their lease, so that several attempts were missed,
    /// or whose agent has let another one expire since it was heard.
    pub(super) fn silent(&self) -> &BTreeSet<SessionId> {
        &self.silent
    }

    /// When something here is due next.
    pub(super) fn next(&self) -> Option<Moment> {
        let first = [
            self.expiry.first(),
            self.silence.first(),
            self.notes.first(),
        ];
        first.into_iter().flatten().map(|(at, _)| *at).min()
    }
}

impl Clock {
    fn begun(now: Moment, lease: LeaseTimes) -> Self {
        Self {
            heard: now,
            before: Duration::ZERO,
            expires: now + lease.expiry(),
            silent_from: now + lease.silent_after(),
            note_at: lease.silence_step().map(|step| now + step),
            lease,
        }
    }
}
