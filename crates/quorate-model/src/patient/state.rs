//! What the model of patient leases keeps, and what can happen.

use std::fmt;

/// What a leader writes about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// The session has been silent for so many units.
    Silent(u8),
    /// The session is about to be answered OK.
    Heard,
}

/// Everything.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts about the past that properties ask for"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The host lives and sends.
    pub host: bool,
    /// Ticks until everything of the session is certainly dead; `None` before it was ever renewed.
    pub fatal: Option<u8>,
    /// Age of the youngest renewal on its way.
    pub request: Option<u8>,
    /// Age of the youngest OK on its way.
    pub answer: Option<u8>,
    /// Units of its clock after which the leader expires the session.
    pub left: u8,
    /// Age of the renewal that the leader has stamped and not answered.
    pub waiting: Option<u8>,
    /// What the leader has written and the ledger has not committed.
    pub writing: Option<Record>,
    /// The silence that the ledger holds.
    pub silent: u8,
    /// The session is expired: another may execute from now on.
    pub expired: bool,
    /// Units since the leader was elected, up to one step.
    pub reign: u8,
    /// Ticks since the host died.
    pub dead_for: u8,
    /// The leader began with less than X.
    pub counted_on: bool,
    /// A silence was once committed.
    pub was_silent: bool,
    /// The session was answered after that, while it executed.
    pub renewed: bool,
}

impl State {
    /// Whether the run may execute.
    #[must_use]
    pub fn executing(&self) -> bool {
        self.fatal.is_some_and(|fatal| fatal > 0)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = if self.expired { "expired" } else { "open" };
        write!(
            f,
            "session {session}, the ledger holds a silence of {} units, the leader waits {} more",
            self.silent, self.left
        )?;
        if !self.host {
            write!(f, ", host silent for {} ticks", self.dead_for)?;
        }
        if self.executing() {
            let left = self.fatal.unwrap_or_default();
            write!(
                f,
                ", the run EXECUTES and is certainly dead in {left} ticks"
            )?;
        }
        Ok(())
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A tick of real time passes.
    Tick {
        /// The leader's clock counts as much as is allowed, not as little.
        fast: bool,
    },
    /// Another leader is elected.
    Elect,
    /// The agent sends a renewal.
    Renew,
    /// The leader receives and stamps it.
    Receive,
    /// The leader answers OK.
    Answer,
    /// The agent takes the OK.
    Take,
    /// The leader writes a record.
    Write(Record),
    /// It is committed.
    Commit,
    /// The leader expires the session.
    Expire,
    /// The host dies, for everybody else: its runs may go on until their deadline.
    Die,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tick { fast: true } => "time passes: one tick, the leader's clock is fast",
            Self::Tick { fast: false } => "time passes: one tick, the leader's clock is slow",
            Self::Elect => "another leader is elected",
            Self::Renew => "the agent sends a renewal",
            Self::Receive => "the leader receives and stamps it",
            Self::Answer => "the leader answers OK",
            Self::Take => "the agent takes the OK and arms its warden",
            Self::Write(Record::Silent(silent)) => {
                return write!(f, "the leader writes: silent for {silent} units");
            }
            Self::Write(Record::Heard) => "the leader writes: heard",
            Self::Commit => "what the leader wrote is committed",
            Self::Expire => "committed: the session expired",
            Self::Die => "the host is silent from here on",
        })
    }
}
