//! What steps of a store have in common, whichever store it is.

use quorate_core::ids::Position;
use quorate_core::record::ENTRY_BYTES_MAX;
use sha2::{Digest as _, Sha256};

use crate::{AppendError, Appended, Cause, ReadError};

/// Why a step of a store gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Certainly not done, and never will be by this call.
    #[error("the store refused")]
    Refused(#[source] Cause),
    /// It may be done now or later.
    #[error("the store's answer is not known")]
    Unknown(#[source] Cause),
}

impl StoreError {
    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Refused(cause) | Self::Unknown(cause) => cause,
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.cause())
    }
}

impl StoreError {
    /// The same of an append at a position.
    pub(crate) fn of_append(self, at: Position) -> AppendError {
        match self {
            Self::Refused(cause) => AppendError::Refused { at, cause },
            Self::Unknown(cause) => AppendError::OutcomeUnknown { at, cause },
        }
    }
}

/// Refuses an entry that is too large for any ledger.
pub(crate) fn fits(at: Position, entry: &[u8]) -> Result<(), AppendError> {
    if entry.len() <= ENTRY_BYTES_MAX {
        return Ok(());
    }
    let cause = format!(
        "an entry has at most {ENTRY_BYTES_MAX} bytes, this one has {}",
        entry.len()
    );
    let cause = cause.into();
    Err(AppendError::Refused { at, cause })
}

/// Why nothing was put at a position whose condition did not hold, by the first free position of a moment later.
pub(crate) fn not_put(at: Position, next: Result<u64, ReadError>) -> Result<Appended, AppendError> {
    let refused = |cause: Cause| AppendError::Refused { at, cause };
    match next {
        Ok(next) if at.0 < next => Ok(Appended::PositionTaken),
        // Who was free a moment ago may have been trimmed since: it is free no more, and asking again tells so.
        Ok(next) => Err(refused(
            format!("position {next} before it is still free").into(),
        )),
        Err(ReadError::Unavailable(cause)) => Err(refused(cause)),
        Err(error @ ReadError::Trimmed { .. }) => Err(refused(error.into())),
    }
}

/// Of a snapshot, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In words for people.
pub(crate) fn unavailable(cause: String) -> ReadError {
    ReadError::Unavailable(cause.into())
}
