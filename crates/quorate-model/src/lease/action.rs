//! What can happen, one sentence each.

use std::fmt;

use super::state::{Incarnation, Token};

/// One step of one party, or of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A tick of real time passes.
    Tick,
    /// A director is elected in the next term, and the directors before it need not know.
    Elect(usize),
    /// A director learns that it leads no more, or crashes and forgets.
    StepDown(usize),
    /// A director reads its clock (only without R4).
    ReadClock(usize),
    /// An agent sends a renewal.
    Renew(usize),
    /// A director receives a renewal and stamps it.
    Receive {
        /// The director.
        director: usize,
        /// The session.
        seat: usize,
        /// The process that sent it.
        from: Incarnation,
    },
    /// A director proves its term and answers OK.
    Answer {
        /// The director.
        director: usize,
        /// The session.
        seat: usize,
    },
    /// An agent takes an OK and moves its timer forward.
    Take(usize),
    /// A director sees that X has passed.
    SeeSilence {
        /// The director.
        director: usize,
        /// The session.
        seat: usize,
    },
    /// `Expired` is committed.
    Expire {
        /// The director that wrote it.
        director: usize,
        /// The session.
        seat: usize,
    },
    /// `SessionOpened` is committed.
    Open(usize),
    /// `Assigned` is committed.
    Assign(usize),
    /// `Withdrawn` is committed: an assignment that nobody acknowledged.
    Withdraw,
    /// An agent claims what it was chosen for, or claims it again.
    Claim {
        /// The session.
        seat: usize,
        /// The token.
        token: Token,
    },
    /// `Assumed` is committed, or found committed, and answered.
    Assume {
        /// The session.
        seat: usize,
        /// The token.
        token: Token,
        /// The process that claimed.
        from: Incarnation,
    },
    /// A run starts.
    Start {
        /// The session.
        seat: usize,
        /// The token.
        token: Token,
    },
    /// A run ends: by itself, stopped, or killed by its agent.
    End(usize),
    /// A warden dies early, and everything of it.
    WardenDies(usize),
    /// `Revoked` is committed.
    Revoke,
    /// An agent sends a release.
    GiveBack {
        /// The session.
        seat: usize,
        /// The token.
        token: Token,
    },
    /// `Released` is committed.
    Release {
        /// The session.
        seat: usize,
        /// The token.
        token: Token,
        /// The process that gave it back.
        from: Incarnation,
    },
    /// An agent whose session runs nothing asks to close it.
    Leave(usize),
    /// `SessionClosed` is committed.
    Close {
        /// The session.
        seat: usize,
        /// The process that asked.
        from: Incarnation,
    },
    /// The process of an agent crashes; its warden goes on.
    Crash(usize),
    /// The next process of an agent finds the warden.
    Restart(usize),
    /// `SessionResumed` is committed: the newest process speaks for the session.
    Resume(usize),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tick => write!(f, "time passes: one tick"),
            Self::Elect(director) => write!(f, "director {director} is elected in the next term"),
            Self::StepDown(director) => {
                write!(f, "director {director} stops believing that it leads")
            }
            Self::ReadClock(director) => write!(f, "director {director} reads its clock"),
            Self::Renew(seat) => write!(f, "agent {seat} sends a renewal"),
            Self::Receive {
                director,
                seat,
                from,
            } => write!(
                f,
                "director {director} receives and stamps the renewal of agent {seat}, process {from}"
            ),
            Self::Answer { director, seat } => {
                write!(f, "director {director} answers OK to agent {seat}")
            }
            Self::Take(seat) => write!(f, "agent {seat} takes the OK and arms its warden"),
            Self::SeeSilence { director, seat } => {
                write!(f, "director {director} sees X pass for session {seat}")
            }
            Self::Expire { director, seat } => {
                write!(
                    f,
                    "committed, written by director {director}: session {seat} expired"
                )
            }
            Self::Open(seat) => write!(f, "committed: session {seat} opened"),
            Self::Assign(seat) => write!(f, "committed: partition assigned to session {seat}"),
            Self::Withdraw => write!(f, "committed: assignment withdrawn"),
            Self::Claim { seat, token } => write!(f, "agent {seat} claims token {token}"),
            Self::Assume { seat, token, from } => write!(
                f,
                "committed and answered: session {seat} assumed token {token}, claimed by process {from}"
            ),
            Self::Start { seat, token } => {
                write!(f, "warden {seat} starts the run of token {token}")
            }
            Self::End(seat) => write!(f, "the run on host {seat} ends"),
            Self::WardenDies(seat) => write!(f, "warden {seat} dies with all its runs"),
            Self::Revoke => write!(f, "committed: partition revoked"),
            Self::GiveBack { seat, token } => write!(f, "agent {seat} gives token {token} back"),
            Self::Release { seat, token, from } => write!(
                f,
                "committed: session {seat} released token {token}, sent by process {from}"
            ),
            Self::Leave(seat) => write!(f, "agent {seat} asks to close its session"),
            Self::Close { seat, from } => {
                write!(
                    f,
                    "committed: session {seat} closed, asked by process {from}"
                )
            }
            Self::Crash(seat) => write!(f, "the process of agent {seat} crashes"),
            Self::Restart(seat) => write!(f, "agent {seat} has a new process"),
            Self::Resume(seat) => {
                write!(f, "committed: the newest process speaks for session {seat}")
            }
        }
    }
}
