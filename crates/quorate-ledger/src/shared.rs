//! The ledger of an address, whichever store that is.

use std::path::PathBuf;

/// Why a ledger cannot even be tried. Whether its store answers is told by each call.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address asks for what this store does not do: why, and what to do instead.
    #[error("{0}")]
    Unfit(String),
    /// A file that the address names cannot be used.
    #[error("{} cannot be used", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        cause: crate::Cause,
    },
}
