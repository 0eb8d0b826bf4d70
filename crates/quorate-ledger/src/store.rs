//! What steps of a store have in common, whichever store it is.

use quorate_core::ids::{ClusterId, Epoch, Position};
use quorate_core::record::ENTRY_BYTES_MAX;
use sha2::{Digest as _, Sha256};

use crate::shared::{BeginError, Owner};
use crate::{AppendError, Appended, Cause, ReadError};

/// The epoch that the end of a log has whose cluster has moved: no leader can take it for its own, so that one which still
/// runs finds nothing proven by it. `PostgreSQL` counts no further.
pub(crate) const EPOCH_OF_NOBODY: Epoch = Epoch(i64::MAX.cast_unsigned());

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

/// A log that is to begin instead of another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anew<'a> {
    pub(crate) next: Position,
    pub(crate) epoch: Epoch,
    pub(crate) snapshot: &'a [u8],
    pub(crate) instead_of: Option<Position>,
}

impl Anew<'_> {
    /// Whether it may begin instead of a log with this first free position.
    pub(crate) fn may_begin(&self, free: Position, is_empty: bool) -> Result<(), BeginError> {
        match self.instead_of {
            None if !is_empty => return Err(BeginError::NotEmpty),
            Some(seen) if seen != free => return Err(BeginError::Moved { next: free }),
            None | Some(_) => {}
        }
        // At the first free position itself an append to the old log would land in the new one.
        if self.next <= free {
            return Err(BeginError::Backwards { free });
        }
        Ok(())
    }
}

/// Refuses what only the owner may do.
pub(crate) fn owned_by(cluster: ClusterId, owner: Option<&Owner>) -> Result<(), ReadError> {
    match owner {
        Some(owner) if owner.cluster == cluster => Ok(()),
        Some(owner) => Err(unavailable(format!(
            "the ledger is that of cluster {}, not of {cluster}",
            owner.cluster
        ))),
        None => Err(unavailable(format!(
            "the ledger is nobody's: cluster {cluster} has to claim it first"
        ))),
    }
}

/// Why an append at the first free position does not land in the ledger of a cluster that has moved.
pub(crate) fn has_moved(at: Position, to: &str) -> AppendError {
    let cause = format!("the cluster of this ledger has moved to {to}").into();
    AppendError::Refused { at, cause }
}
