//! What steps of a store have in common, whichever store it is.

use crate::{Cause, ReadError};

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
