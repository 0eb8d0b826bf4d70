//! What can go wrong with a call, by what the caller may do about it.

use super::tls::Trouble;
use crate::problem::Problem;

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No address was given.
    #[error("no director address was given")]
    None,
    /// It is not an address of a director.
    #[error("{address:?} is not the address of a director: {why}")]
    Refused {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No director could be reached, and nothing was changed; trying again is safe.
    #[error("no director answers at {}", .addresses.join(", "))]
    Unreachable {
        /// Where it was tried.
        addresses: Vec<String>,
        /// What the last one failed with.
        #[source]
        cause: Option<reqwest::Error>,
    },
    /// Only a director of an earlier era answers, whose quorum was given up when the cluster was restored.
    /// Nothing was changed in the cluster that there is.
    #[error(
        "the director at {address} is of era {era}, and the cluster was restored since, to era {seen}"
    )]
    EarlierEra {
        /// Where it answers.
        address: String,
        /// Its era.
        era: u16,
        /// The highest that was seen.
        seen: u16,
    },
    /// Directors answer, but none leads, and nothing was changed; trying again is safe.
    #[error("the directors have no leader now")]
    NoLeader,
    /// A director refused, certainly.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The write may be done or not: look, or repeat it with the same idempotency key.
    #[error("it is not known whether this was done")]
    OutcomeUnknown {
        /// What broke the connection, when it was that.
        #[source]
        cause: Option<reqwest::Error>,
    },
    /// Something answered that is not a director of this version.
    #[error("the answer of {address} cannot be read: {what}")]
    Unreadable {
        /// Who answered.
        address: String,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// What is wrong with TLS, when nobody was reached because of it.
    #[must_use]
    pub fn tls(&self) -> Option<Trouble> {
        match self {
            Self::Unreachable { cause, .. } | Self::OutcomeUnknown { cause } => {
                Trouble::of(cause.as_ref()?)
            }
            Self::Problem(_)
            | Self::NoLeader
            | Self::EarlierEra { .. }
            | Self::Unreadable { .. } => None,
        }
    }

    /// The problem, when a director refused.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Unreachable { .. }
            | Self::NoLeader
            | Self::EarlierEra { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}
