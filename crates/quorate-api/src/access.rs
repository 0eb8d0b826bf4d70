//! Who may do what: API tokens of people and programs, join tokens of machines, and enrolment.
//!
//! A secret is in one answer only, that of its creation: a director keeps nothing but its SHA-256.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/tokens`: an API token that is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Who or what it is for, in words of yours.
    pub name: String,
    /// What its holder may do: `viewer`, `operator`, `definer` or `admin`.
    pub role: String,
    /// How the names of the services begin that it is for; absent: all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// For how long it counts, `90d`; absent: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// An API token that was created, with its secret for the first and last time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// Ledger position of its creation.
    pub index: u64,
    /// What it is called from now on.
    pub id: String,
    /// The token itself: `Authorization: Bearer` and this.
    pub token: String,
    /// When it ends, RFC 3339; `null`: when it is revoked.
    pub expires: Option<String>,
}

/// An API token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// What it is called in public.
    pub id: String,
    /// Who or what it is for.
    pub name: String,
    /// What its holder may do.
    pub role: String,
    /// How the names of the services begin that it is for; `null`: all services.
    pub scope: Option<String>,
    /// Whether it counts.
    pub state: TokenState,
    /// When it was created, RFC 3339.
    pub created: String,
    /// When it ends, RFC 3339; `null`: when it is revoked.
    pub expires: Option<String>,
    /// When it was revoked, RFC 3339.
    pub revoked: Option<String>,
}

/// Whether a token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It does.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody took it back.
    Revoked,
    /// A join token that has let in as many as it may.
    UsedUp,
}

impl TokenState {
    /// As it is written on the wire and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::UsedUp => "used up",
        }
    }
}

/// `POST /v1/join-tokens`: a join token that is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// What it lets in: `agent` or `director`.
    pub role: String,
    /// How many it lets in, 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// For how long it counts, `1h` when absent and at most `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// A join token that was created, with its secret for the first and last time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenCreated {
    /// Ledger position of its creation.
    pub index: u64,
    /// What it is called from now on.
    pub id: String,
    /// The token itself.
    pub token: String,
    /// When it ends, RFC 3339.
    pub expires: String,
}

/// A join token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenView {
    /// What it is called in public.
    pub id: String,
    /// What it lets in.
    pub role: String,
    /// Whether it counts.
    pub state: TokenState,
    /// How many more it lets in.
    pub left: u32,
    /// How many it lets in altogether.
    pub uses: u32,
    /// Whom it has let in.
    pub used_by: Vec<String>,
    /// When it was created, RFC 3339.
    pub created: String,
    /// When it ends, RFC 3339.
    pub expires: String,
    /// When it was revoked, RFC 3339.
    pub revoked: Option<String>,
}

/// `POST /v1/enrol`: a machine asks to be let in. Nothing in it says what it may do: that is in the join
/// token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The join token.
    pub join_token: String,
    /// What the machine is to be called, unique in the cluster.
    pub name: String,
    /// A certificate signing request, PEM, for a key that was made on the machine and stays there. What it
    /// says of names is not looked at.
    pub csr: String,
    /// The machine of an agent as it will register: an agent that is known by this name must be on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
}

/// A machine is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolAnswer {
    /// Ledger position of the use.
    pub index: u64,
    /// What it is: `agent` or `director`.
    pub role: String,
    /// What it is called.
    pub name: String,
    /// Its certificate and those between it and the authority's, PEM.
    pub certificate: String,
    /// Certificates of the authorities that it is to trust, PEM.
    pub authorities: String,
    /// When the certificate ends, RFC 3339.
    pub expires: String,
}

/// `POST /v1/certificates`: a machine asks for its next certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// A certificate signing request, PEM. What it says of names is not looked at.
    pub csr: String,
}

/// A certificate that was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// The certificate and those between it and the authority's, PEM.
    pub certificate: String,
    /// Certificates of the authorities that the machine is to trust, PEM.
    pub authorities: String,
    /// When it ends, RFC 3339.
    pub expires: String,
}

/// `GET /v1/cluster/authority`: the certificate authority of the cluster, with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthorityFiles {
    /// Its certificates, PEM; the first one's key signs.
    pub authorities: String,
    /// That key, PEM.
    pub key: String,
}

/// `GET /v1/audit`: who has changed what, as far back as the director that is asked has kept it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Ledger position that this shows.
    pub index: u64,
    /// Nothing is known before this position.
    pub known_since: u64,
    /// The changes, oldest first.
    pub entries: Vec<AuditEntry>,
}

/// A change that a person or a program has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Where it was committed.
    pub index: u64,
    /// When, RFC 3339, by the leader's clock.
    pub at: String,
    /// Who: `local`, `token ID (NAME)`, `join token ID`, or a machine.
    pub by: String,
    /// The address that the request came from.
    pub from: Option<String>,
    /// What was done: `apply`, `stop`, `create`, …
    pub action: String,
    /// To what: `service/feeds`, `partition/feeds/ci`, `agent/a1`, `token/…`; the first 20 of many.
    pub objects: Vec<String>,
    /// How many more objects there are.
    #[serde(default)]
    pub more: u64,
}

/// Declares that a type is shown without what it holds: it holds a secret.
macro_rules! secret {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

secret!(TokenCreated, JoinTokenCreated, EnrolRequest, AuthorityFiles);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_secret_does_not_show_it() {
        let created = TokenCreated {
            index: 1,
            id: "id".to_owned(),
            token: "qr_secret".to_owned(),
            expires: None,
        };
        assert_eq!(format!("{created:?}"), "TokenCreated { .. }");
    }
}
