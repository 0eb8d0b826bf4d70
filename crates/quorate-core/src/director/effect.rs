//! What the machine orders its shell to do. The shell chooses nothing.

use crate::format::Unread;
use crate::history::Change;
use crate::ids::{AgentName, Epoch, HookName, Position, SessionId};
use crate::time::{Moment, WallTime};

use super::call::{Answer, CallId, RenewalAnswer};
use super::event::{AppendId, ProofId};

/// An order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Append this entry at exactly this position; answer with `Event::AppendAnswered`.
    Append {
        /// Names the answer.
        append: AppendId,
        /// Where.
        position: Position,
        /// Epoch of the entry, which the tail tells again.
        epoch: Epoch,
        /// The encoded entry.
        bytes: Vec<u8>,
    },
    /// Ask the ledger for its tail, beginning **after** this order; answer with `Event::TailAnswered`.
    /// At most one is outstanding.
    ProveTail {
        /// Names the answer.
        proof: ProofId,
    },
    /// Read entries from here on; answer with `Event::ReadAnswered`. At most one is outstanding.
    Read {
        /// First position wanted.
        from: Position,
    },
    /// Load the newest snapshot; answer with `Event::Reset`. When there is none or it cannot be had,
    /// try again: without it this director cannot go on.
    LoadSnapshot,
    /// Keep this as the state before `next`.
    SaveSnapshot {
        /// First position that it does not cover.
        next: Position,
        /// The state.
        bytes: Vec<u8>,
    },
    /// Answer a call.
    Answer {
        /// Which.
        id: CallId,
        /// The answer.
        answer: Answer,
    },
    /// Answer a renewal.
    AnswerRenewal {
        /// Which.
        id: CallId,
        /// The answer.
        answer: RenewalAnswer,
    },
    /// An entry was folded. Write history, wake blocked queries; `changes` may be empty.
    Changed {
        /// Where it is in the ledger.
        position: Position,
        /// When its leader wrote it.
        wall: WallTime,
        /// What it changed.
        changes: Vec<Change>,
    },
    /// Run this fence hook for the agent of a silent session; answer with `Event::Fenced`. May be ordered
    /// again for the same session, by this director or another.
    Fence {
        /// The session.
        session: SessionId,
        /// Its agent.
        agent: AgentName,
        /// Name of the hook in the directors' own file.
        hook: HookName,
    },
    /// The whole state was replaced by a snapshot: blocked queries look again, history has a gap.
    Replaced {
        /// Position of the last entry that it covers.
        position: Position,
    },
    /// Wake me with `Event::Woke` at this moment; replaces the order before it.
    WakeAt(Moment),
    /// Stop for ever and tell people why: going on could do harm.
    Halt {
        /// Why, as a sentence.
        reason: String,
        /// What a person can do about it.
        why: Why,
    },
}

/// Why a director has stopped for ever, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// All that is wrong is that this director is of another version than it should be.
    Unread(Unread),
    /// The store has lost or replaced what this director has folded.
    OtherHistory,
    /// What is in the ledger makes no sense.
    Malformed,
}
