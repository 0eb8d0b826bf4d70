//! What a director's shell tells the machine: facts that have happened, never wishes.

use crate::ids::{Epoch, HookName, Position, SessionId};
use crate::record::Cause;
use crate::time::{Moment, WallTime};

use super::call::{Call, CallId, Renewal};

/// When a step happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The machine's own clock: all that decides.
    pub moment: Moment,
    /// What the wall clock says: written into entries for people, and compared only to end tokens.
    pub wall: WallTime,
}

/// Pairs the answer to a proof of leadership with its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProofId(pub u64);

/// Pairs the answer to an append with the entry that was to be appended: a second try with the same
/// entry has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppendId(pub u64);

/// A fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What the ledger hints at. Told once at start (with the tail, if it is known) and whenever it
    /// changes; may be late, repeated or wrong.
    Hint {
        /// Whether this director should lead; `None` when the ledger cannot know.
        should_lead: Option<bool>,
        /// A position that is occupied; 0 when none is known.
        occupied: Position,
    },
    /// Answer to `Effect::Read`.
    ReadAnswered {
        /// The first position that was asked for.
        from: Position,
        /// What came.
        outcome: ReadOutcome,
    },
    /// A snapshot is to be taken over: at start, after `Effect::LoadSnapshot`, or because the ledger
    /// streamed one to a director far behind.
    Reset {
        /// First position that it does not cover.
        next: Position,
        /// What `Effect::SaveSnapshot` once held.
        bytes: Vec<u8>,
    },
    /// Answer to `Effect::Append`.
    AppendAnswered {
        /// Which append.
        append: AppendId,
        /// What came of it.
        outcome: AppendOutcome,
    },
    /// Answer to `Effect::ProveTail`.
    TailAnswered {
        /// Which proof.
        proof: ProofId,
        /// First free position and the epoch before it, linearizable; `None` when it could not be had.
        tail: Option<(Position, Epoch)>,
    },
    /// Somebody asks for a change.
    Asked {
        /// Names the answer.
        id: CallId,
        /// What is asked.
        call: Call,
    },
    /// A renewal has arrived; `now` of the step is its time of receipt (R4).
    Renewed {
        /// Names the answer.
        id: CallId,
        /// The renewal.
        renewal: Renewal,
    },
    /// Answer to `Effect::Fence`.
    Fenced {
        /// The session.
        session: SessionId,
        /// The hook.
        hook: HookName,
        /// Why it did not succeed.
        problem: Option<Cause>,
    },
    /// The time of the last `Effect::WakeAt` has come. May come too early or too often.
    Woke,
}

/// What a read brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// A contiguous run of entries; empty at the tail.
    Entries(Vec<Vec<u8>>),
    /// The position is older than the log.
    Trimmed,
    /// The store did not answer.
    Failed,
}

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The entry is durable at its position.
    Appended,
    /// Some entry was there already, perhaps this very one.
    PositionTaken,
    /// Certainly not written.
    Refused,
    /// It may be there, or appear later.
    Unknown,
}
