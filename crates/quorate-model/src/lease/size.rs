//! How much there is of everything: what makes the search finite.

use crate::times::Times;

use super::state::{ROOM, Token};

/// The bounds of a search. Time and messages have none: time is kept only as what is left of each
/// timer, and a message may come at any later time and any number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Its name on the command line.
    pub name: &'static str,
    /// Directors. With all rules a deposed one can do nothing that others notice, so one place for the
    /// leader of the day is enough, unless `keep_deposed`.
    pub directors: usize,
    /// Keeps what deposed leaders believe, although nothing can come of it: to see that nothing does.
    pub keep_deposed: bool,
    /// Terms, the first included: changes of leader plus one.
    pub terms: u8,
    /// Sessions.
    pub seats: usize,
    /// Sessions that are open from the beginning; the others can open at any time.
    pub open: usize,
    /// Sessions that live by their leases: the first ones. The others are *steady*: always armed, never
    /// silent. An overlap is between one who should be dead and one who starts, and about the one who
    /// starts a lease can only forbid more.
    pub timed: usize,
    /// Grants of the partition.
    pub tokens: Token,
    /// How often an agent may begin a new process beside a living warden.
    pub restarts: u8,
    /// Sessions whose agent may do that: the first ones.
    pub restarting: usize,
    /// Spans of time.
    pub times: Times,
}

impl Size {
    /// Three terms of two directors over two sessions: what the tests search with all rules.
    pub const LEADERS: Self = Self {
        name: "leaders",
        directors: 1,
        keep_deposed: false,
        terms: 3,
        seats: 2,
        open: 2,
        timed: 2,
        tokens: 2,
        restarts: 0,
        restarting: 1,
        times: Times::SMALL,
    };

    /// A new process of each agent beside the old one's warden and messages.
    pub const RESTARTS: Self = Self {
        name: "restarts",
        terms: 1,
        timed: 1,
        restarts: 1,
        ..Self::LEADERS
    };

    /// One change of leader, and the old one stays: enough for every counter-example.
    pub const ABLATION: Self = Self {
        name: "ablation",
        directors: 2,
        keep_deposed: true,
        timed: 1,
        terms: 2,
        ..Self::LEADERS
    };

    /// One leader throughout: enough for the counter-examples that need no change of leader.
    pub const ONE_LEADER: Self = Self {
        name: "one-leader",
        timed: 1,
        terms: 1,
        ..Self::LEADERS
    };

    /// Three grants: back to the first session, or on to a third.
    pub const MOVES: Self = Self {
        name: "moves",
        terms: 2,
        tokens: 3,
        ..Self::LEADERS
    };

    /// Changes of leader and new processes together.
    pub const BOTH: Self = Self {
        name: "both",
        timed: 1,
        terms: 2,
        restarts: 1,
        ..Self::LEADERS
    };

    /// A session more, which opens late.
    pub const SESSIONS: Self = Self {
        name: "sessions",
        seats: ROOM,
        tokens: 3,
        terms: 1,
        ..Self::LEADERS
    };

    /// Two changes of leader between two directors, and the deposed one stays.
    pub const DEPOSED: Self = Self {
        name: "deposed",
        terms: 3,
        ..Self::ABLATION
    };

    /// Longer spans: more ways to interleave within one lease.
    pub const LONG: Self = Self {
        name: "long",
        timed: 1,
        times: Times {
            lease: 4,
            kill: 2,
            ratio: 3,
        },
        ..Self::LEADERS
    };

    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::LEADERS,
        Self::RESTARTS,
        Self::ABLATION,
        Self::ONE_LEADER,
        Self::MOVES,
        Self::BOTH,
        Self::SESSIONS,
        Self::DEPOSED,
        Self::LONG,
    ];

    /// How often the agent of a session may begin a new process.
    pub(super) fn restarts_of(&self, seat: usize) -> u8 {
        if seat < self.restarting {
            self.restarts
        } else {
            0
        }
    }

    /// Whether a session needs no lease in this size.
    pub(super) fn steady(&self, seat: usize) -> bool {
        seat >= self.timed
    }

    /// Whether a session is exactly like the first one, but for its number.
    pub(super) fn alike(&self, seat: usize) -> bool {
        seat < self.open && !self.steady(seat) && self.restarts_of(seat) == self.restarts_of(0)
    }

    /// The size with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.name == name)
    }
}
