//! What can go wrong with certificates and keys.

use std::path::PathBuf;

use crate::identity::IdentityError;

/// Why certificates or keys cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {action} {}", .path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// A private key that others than its owner may read is not private: make it 0600, or a new one if
    /// somebody may have read it.
    #[error("{} holds a private key and its mode is {mode:04o}; only its owner may read it (0600)", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What was handed in is not what it must be.
    #[error("{what} cannot be used: {why}")]
    Unusable {
        /// Which part.
        what: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// A certificate does not say what it must.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Error {
    /// For `map_err`.
    pub(crate) fn unusable<E: std::fmt::Display>(
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |why| Self::Unusable {
            what,
            why: why.to_string(),
        }
    }
}
