//! Who may do what: people by API tokens with a role and a scope, machines by join tokens that let them in.
//!
//! [`decide`] is the one place that says whether somebody may do something, [`Credentials`] is the part of
//! the replicated state that says who there is. A secret never comes here: only its SHA-256 does, so that
//! nobody learns one from the ledger, a snapshot or a backup.

mod bars;
mod credentials;
mod decide;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{CredentialId, NodeName, ServicePrefix, TokenName};
use crate::time::WallTime;

pub use bars::{BARRED_FOR, Bars};
pub use credentials::{ApiToken, Credentials, JoinToken, Use};
pub use decide::{Denied, Object, Principal, Verb, decide};

/// Most API tokens that count at once, and most join tokens.
pub const LIVE_MAX: usize = 1000;
/// How many that count no longer are still shown, of each kind; the oldest are forgotten first.
pub const ENDED_MAX: usize = 100;
/// How long a join token counts when nothing else is said.
pub const JOIN_TTL: Duration = Duration::from_secs(60 * 60);
/// The longest that a join token may count.
pub const JOIN_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The most uses that one join token may have.
pub const USES_MAX: u32 = 1000;

/// What the holder of an API token may do; each may also do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything that is not secret.
    Viewer,
    /// Start, stop and restart what is defined; drain and cordon agents.
    Operator,
    /// Say which commands are executed: code of his runs on every agent that fits.
    Definer,
    /// Everything: tokens, members of the cluster, evictions.
    Admin,
}

impl Role {
    /// All of them, the one that may least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Definer, Self::Admin];

    /// Its name as people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Definer => "definer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a machine is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// It runs what it is given.
    Agent,
    /// It is or becomes a member of the quorum.
    Director,
}

impl Node {
    /// Its name as people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Director => "director",
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An API token as it is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenGrant {
    /// What it is called in public.
    pub id: CredentialId,
    /// SHA-256 of the whole secret, in hexadecimal.
    pub hash: String,
    /// What a person calls it.
    pub name: TokenName,
    /// What its holder may do.
    pub role: Role,
    /// How the names of the services begin that it is for; `None`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ServicePrefix>,
    /// From this wall time of the leader on it counts no longer; `None`: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<WallTime>,
    /// It came from the folder of a director and not from another token. Such a one is never forgotten, so
    /// that a file that still lies there brings nothing back that was revoked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bootstrap: bool,
}

/// A join token as it is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGrant {
    /// What it is called in public.
    pub id: CredentialId,
    /// SHA-256 of the whole secret, in hexadecimal.
    pub hash: String,
    /// What it lets in. The role of a machine comes from here and never from what it says itself.
    pub admits: Node,
    /// How many it lets in.
    pub uses: u32,
    /// From this wall time of the leader on it counts no longer.
    pub expires: WallTime,
}

/// A machine that is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The join token.
    pub token: CredentialId,
    /// What the machine is to be.
    pub node: Node,
    /// What it is to be called.
    pub name: NodeName,
    /// SHA-256 of what it asks to be signed, in hexadecimal: the same one again takes no further use.
    pub request: String,
}

/// What changes who may do what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// An API token comes.
    TokenCreated(Box<TokenGrant>),
    /// An API token counts no longer.
    TokenRevoked {
        /// Which.
        id: CredentialId,
    },
    /// A join token comes.
    JoinTokenCreated(Box<JoinGrant>),
    /// A join token counts no longer.
    JoinTokenRevoked {
        /// Which.
        id: CredentialId,
    },
    /// A machine is let in: one use of a join token is gone, before anything is handed out for it.
    Admitted(Box<Admission>),
}

/// What has changed about who may do what, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// An API token came.
    TokenCreated {
        /// Its id.
        id: CredentialId,
        /// What a person calls it.
        name: TokenName,
        /// What its holder may do.
        role: Role,
    },
    /// An API token counts no longer.
    TokenRevoked {
        /// Its id.
        id: CredentialId,
        /// What a person called it.
        name: TokenName,
    },
    /// A join token came.
    JoinTokenCreated {
        /// Its id.
        id: CredentialId,
        /// What it lets in.
        admits: Node,
        /// How many of them.
        uses: u32,
    },
    /// A join token counts no longer.
    JoinTokenRevoked {
        /// Its id.
        id: CredentialId,
    },
    /// A machine was let in.
    Admitted {
        /// The join token.
        token: CredentialId,
        /// What it is.
        node: Node,
        /// What it is called.
        name: NodeName,
    },
}

impl Change {
    /// Its name for filters and machines.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TokenCreated { .. } => "token.created",
            Self::TokenRevoked { .. } => "token.revoked",
            Self::JoinTokenCreated { .. } => "join_token.created",
            Self::JoinTokenRevoked { .. } => "join_token.revoked",
            Self::Admitted { .. } => "node.admitted",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenCreated { id, name, role } => {
                write!(f, "API token {id} ({name}) created with the role {role}")
            }
            Self::TokenRevoked { id, name } => write!(f, "API token {id} ({name}) revoked"),
            Self::JoinTokenCreated { id, admits, uses } => {
                write!(f, "join token {id} created: {admits}, {uses} uses")
            }
            Self::JoinTokenRevoked { id } => write!(f, "join token {id} revoked"),
            Self::Admitted { token, node, name } => {
                write!(f, "{node} {name} let in by join token {token}")
            }
        }
    }
}

/// Why nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none with this id.
    #[error("there is no token with this id")]
    Unknown,
    /// The id was used before.
    #[error("the id of the token was used before")]
    Known,
    /// As many as there may be are there.
    #[error("there are {LIVE_MAX} tokens that count, which is the most: revoke some")]
    TooMany,
    /// It would end before it begins, or a join token would last too long.
    #[error("the token would end before it begins, or last longer than it may")]
    Expiry,
    /// It has no use, or more than it may.
    #[error("a join token has 1 to {USES_MAX} uses")]
    Uses,
    /// Whoever may everything cannot be kept to some services.
    #[error("an admin has no scope: whoever gives out tokens could give himself one without")]
    ScopedAdmin,
    /// It was revoked.
    #[error("the join token was revoked")]
    Revoked,
    /// Its time is over.
    #[error("the join token has expired")]
    Expired,
    /// All its uses are gone.
    #[error("the join token is used up")]
    UsedUp,
    /// It is for something else.
    #[error("the join token is not for this kind of machine")]
    OtherKind,
}
