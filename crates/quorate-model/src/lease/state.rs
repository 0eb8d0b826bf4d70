//! What the model keeps: the fold of the ledger, what each director believes, and each session's host
//! with the messages from and to it.
//!
//! Messages are facts that stay: a claim that was made can arrive at any later time, often, or never.

use std::fmt;
use std::ops::{Index, IndexMut};

/// Most directors and most sessions that a size may ask for.
pub const ROOM: usize = 3;

/// Most processes of one agent.
pub const PROCESSES: usize = 2;

/// A few of something, addressed by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row<T, const N: usize = ROOM>(pub [T; N]);

impl<T: Copy + Default, const N: usize> Default for Row<T, N> {
    fn default() -> Self {
        Self([T::default(); N])
    }
}

impl<T, const N: usize> Row<T, N> {
    /// All of them with their numbers.
    pub fn each(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0.iter().enumerate()
    }
}

impl<T, const N: usize> Index<usize> for Row<T, N> {
    type Output = T;

    #[expect(
        clippy::indexing_slicing,
        reason = "a number beyond the row is a fault of the model, which must stop the search"
    )]
    fn index(&self, at: usize) -> &T {
        &self.0[at]
    }
}

impl<T, const N: usize> IndexMut<usize> for Row<T, N> {
    #[expect(
        clippy::indexing_slicing,
        reason = "a number beyond the row is a fault of the model, which must stop the search"
    )]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.0[at]
    }
}

/// A fencing token; the first one is 1.
pub type Token = u8;

/// A set of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tokens(u8);

impl Tokens {
    /// Whether a token is in it.
    #[must_use]
    pub const fn has(self, token: Token) -> bool {
        self.0 & (1 << token) != 0
    }

    /// Puts a token into it.
    pub const fn add(&mut self, token: Token) {
        self.0 |= 1 << token;
    }

    /// Those that are in the other set, too.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not in the other set.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Every token in it.
    pub fn each(self) -> impl Iterator<Item = Token> {
        (0..8).filter(move |token| self.has(*token))
    }
}

/// Which process of an agent speaks; 0 is the first.
pub type Incarnation = u8;

/// What the ledger knows of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It does not exist in this size, or not yet.
    #[default]
    Unopened,
    /// It is open.
    Open,
    /// A leader was sure that nothing of it executes.
    Expired,
    /// Its agent proved that nothing of it executes.
    Closed,
}

/// Who holds the partition. There is one, because partitions share nothing but their sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Partition {
    /// Nobody.
    #[default]
    Free,
    /// A leader chose this session; it has not acknowledged.
    Assigned {
        /// The session.
        seat: usize,
        /// Its token.
        token: Token,
    },
    /// The session acknowledged: it may start.
    Assumed {
        /// The session.
        seat: usize,
        /// Its token.
        token: Token,
        /// It is to stop and to give the partition back.
        revoked: bool,
    },
}

impl Partition {
    /// Who holds it, and under which token.
    #[must_use]
    pub const fn holder(self) -> Option<(usize, Token)> {
        match self {
            Self::Free => None,
            Self::Assigned { seat, token } | Self::Assumed { seat, token, .. } => {
                Some((seat, token))
            }
        }
    }
}

/// The fold of everything committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Term of the last `Elected`.
    pub term: u8,
    /// The next token.
    pub next_token: Token,
    /// The highest token that was ever granted: what the next one is judged by.
    pub highest: Token,
    /// The partition.
    pub partition: Partition,
    /// The sessions.
    pub standing: Row<Standing>,
    /// The process that speaks for each session.
    pub speaks: Row<Incarnation>,
    /// Tokens that each session ever assumed.
    pub assumed: Row<Tokens>,
}

/// What a director counts for a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clock {
    /// It knows of no such session, or knows that it is over.
    #[default]
    None,
    /// Its fastest possible clock passes X in so many ticks; at 0 it may have.
    Left(u8),
    /// It has seen X pass: nothing is renewed any more.
    Spent,
}

/// A renewal on its way, or its answer, by the ticks since it was sent. Of several in one place only the
/// youngest is kept: it allows everything that an older one allows.
pub type Age = Option<u8>;

/// A renewal that a director has stamped and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// Ticks since it was sent.
    pub age: u8,
    /// The process that sent it.
    pub from: Incarnation,
}

/// A director.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Director {
    /// The term in which it believes to lead. It may be deposed and not know.
    pub leads: Option<u8>,
    /// What it counts for each session.
    pub clocks: Row<Clock>,
    /// Renewals that wait for a proof.
    pub waiting: Row<Option<Waiting>>,
    /// Ticks since it read its clock. Always 0 unless R4 is left out.
    pub read: u8,
}

/// A process of an agent, and the messages that it sent or is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// A renewal on its way.
    pub request: Age,
    /// An OK on its way.
    pub answer: Age,
    /// Claims that it sent.
    pub claims: Tokens,
    /// Tokens of which the directors told it that they are assumed.
    pub granted: Tokens,
    /// Releases that it sent.
    pub released: Tokens,
    /// It asked to close the session, because nothing of it executes, and starts nothing any more.
    pub closing: bool,
}

/// The warden of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Warden {
    /// It lives.
    #[default]
    Alive,
    /// It is dead and everything of it, for ever.
    Dead,
}

/// The host of a session: a warden, its run, and the processes of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Host {
    /// The warden.
    pub warden: Warden,
    /// Ticks until the armed timer has certainly killed everything: D + K on the slowest clock. `None`
    /// before it is armed, 0 after it has fired.
    pub fatal: Option<u8>,
    /// The token of the run that executes.
    pub run: Option<Token>,
    /// The newest process.
    pub newest: Incarnation,
    /// Whether the newest process lives.
    pub up: bool,
    /// The processes.
    pub processes: Row<Process, PROCESSES>,
}

impl Host {
    /// The newest process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.processes[usize::from(self.newest)]
    }

    /// The newest process.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.processes[usize::from(self.newest)]
    }
}

/// Promises that a step has broken; those that a state shows by itself are not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broken {
    /// S3: a grant had a token that was not higher than all before.
    pub tokens: bool,
    /// S5: a start without a right, or a move without proof or expiry.
    pub rights: bool,
    /// S7: a process was heard that does not speak for its session any more.
    pub voices: bool,
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The fold of the ledger.
    pub ledger: Ledger,
    /// The directors.
    pub directors: Row<Director>,
    /// The hosts, by session.
    pub hosts: Row<Host>,
    /// What was broken on the way here.
    pub broken: Broken,
}

impl State {
    /// How many copies of the partition execute.
    #[must_use]
    pub fn executing(&self) -> usize {
        let runs = self.hosts.each();
        runs.filter(|(_, host)| host.run.is_some()).count()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ledger = &self.ledger;
        write!(f, "term {}, partition {:?}", ledger.term, ledger.partition)?;
        for (at, director) in self.directors.each() {
            if let Some(term) = director.leads {
                write!(f, "\ndirector {at} believes to lead in term {term}")?;
            }
        }
        for (seat, host) in self.hosts.each() {
            let standing = ledger.standing[seat];
            if standing == Standing::Unopened {
                continue;
            }
            write!(
                f,
                "\nsession {seat}: {standing:?}, warden {:?}",
                host.warden
            )?;
            if let Some(fatal) = host.fatal {
                write!(f, ", certainly dead in {fatal} ticks")?;
            }
            if let Some(token) = host.run {
                write!(f, ", token {token} EXECUTES")?;
            }
        }
        Ok(())
    }
}
