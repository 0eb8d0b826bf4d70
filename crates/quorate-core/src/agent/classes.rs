//! Lease classes: which of them this agent keeps a warden for, and when it may start the next one.
//!
//! The directors tell which are in use. One that no service asks for any more is kept for a while, because
//! answers overtake each other, and then given up as soon as its session holds nothing: otherwise an agent
//! would gather a session for every lease that anybody ever wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::retry_wait;
use crate::time::Moment;

/// How long a class is kept that no service asks for: longer than an answer to a poll is held back.
const KEPT_UNUSED: Duration = Duration::from_secs(60);
/// Most wardens at a time, each with a session: one message renews all of them, and a director takes no more
/// in it. A class that has no room waits.
const SESSIONS_MAX: usize = 16;

/// A lease class.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    /// There is a session for it whether it is in use or not.
    always: bool,
    /// Since when no service asks for it.
    unused_since: Option<Moment>,
    /// Wardens that were lost in a row before one had a deadline.
    fruitless: u32,
    /// When the next warden may be started.
    spawn_at: Option<Moment>,
}

impl Class {
    /// When it is given up.
    fn given_up_at(&self) -> Option<Moment> {
        self.unused_since.map(|since| since + KEPT_UNUSED)
    }
}

/// All that this agent knows of.
#[derive(Debug)]
pub(super) struct Classes {
    of: BTreeMap<Duration, Class>,
}

impl Classes {
    /// Those that there is always a session for.
    pub(super) fn always(leases: &[Duration]) -> Self {
        let always = Class {
            always: true,
            ..Class::default()
        };
        Self {
            of: leases.iter().map(|&lease| (lease, always)).collect(),
        }
    }

    /// A warden of this class lives from before.
    pub(super) fn found(&mut self, lease: Duration) {
        self.of.entry(lease).or_default();
    }

    /// These are in use, and no others.
    pub(super) fn in_use(&mut self, now: Moment, leases: Vec<Duration>) {
        let leases = BTreeSet::from_iter(leases);
        for lease in &leases {
            self.of.entry(*lease).or_default();
        }
        for (lease, class) in &mut self.of {
            if class.always || leases.contains(lease) {
                class.unused_since = None;
            } else {
                class.unused_since.get_or_insert(now);
            }
        }
    }

    /// Those that are given up. What a session of one still holds is waited for.
    pub(super) fn given_up(&self, now: Moment) -> impl Iterator<Item = Duration> {
        let all = self.of.iter();
        all.filter(move |(_, class)| class.given_up_at().is_some_and(|at| at <= now))
            .map(|(lease, _)| *lease)
    }

    /// A session of this class has ended: when the next warden may be started, if one is wanted.
    pub(super) fn ended(&mut self, now: Moment, lease: Duration, seed: u64, was_live: bool) {
        let class = self.of.entry(lease).or_default();
        if class.given_up_at().is_some_and(|at| at <= now) {
            self.of.remove(&lease);
            return;
        }
        class.fruitless = if was_live {
            0
        } else {
            class.fruitless.saturating_add(1)
        };
        class.spawn_at = Some(now + retry_wait(seed, class.fruitless));
    }

    /// Those that a warden is to be started for. `have`: the classes of the sessions that there are.
    pub(super) fn due(&mut self, now: Moment, have: &[Duration]) -> Vec<Duration> {
        self.of.retain(|lease, class| {
            have.contains(lease) || class.given_up_at().is_none_or(|at| at > now)
        });
        let mut room = SESSIONS_MAX.saturating_sub(have.len());
        let mut due = Vec::new();
        for (&lease, class) in &mut self.of {
            if have.contains(&lease) {
                // Another warden of the class lives: waking for this would never end. Its own end says
                // when to try again.
                class.spawn_at = None;
                continue;
            }
            if class.spawn_at.is_some_and(|at| now < at) {
                continue;
            }
            class.spawn_at = None;
            if room > 0 {
                room -= 1;
                due.push(lease);
            }
        }
        due
    }

    /// When something here is due next after this moment.
    pub(super) fn next(&self, now: Moment) -> Option<Moment> {
        let all = self.of.values();
        let due = all.flat_map(|class| [class.spawn_at, class.given_up_at()]);
        due.flatten().filter(|at| *at > now).min()
    }
}
