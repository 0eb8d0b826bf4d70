//! Who a certificate belongs to: one URI among its alternative names, `quorate://CLUSTER/ROLE/NAME`, or
//! `quorate://CLUSTER/ROLE/NAME/SINCE` for a machine that was let in at a position of the ledger.
//!
//! Nothing else in a certificate is believed: no subject, no other name.

use std::fmt;

use quorate_core::ids::{ClusterId, DirectorName, NameError, Position};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The name that the certificate of every director carries, whatever its address: whoever connects asks
/// for it, and no certificate of another role has it.
pub const DIRECTOR_DNS_NAME: &str = "director.quorate.internal";

/// Names of other parties in our URIs.
const AUTHORITY: &str = "authority";
const SCHEME: &str = "quorate://";

/// What the owner of a certificate is. Every endpoint asks for the role, never only for the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A member of the quorum, or one that is to become a member.
    Director,
    /// A machine that runs work.
    Agent,
    /// Somebody who asks and changes.
    Person,
}

impl Role {
    const ALL: [Self; 3] = [Self::Director, Self::Agent, Self::Person];

    /// As it stands in certificates.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Director => "director",
            Self::Agent => "agent",
            Self::Person => "person",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who somebody is, as the authority of its cluster has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    cluster: ClusterId,
    role: Role,
    name: String,
    since: Position,
}

impl Identity {
    /// An identity to be signed.
    ///
    /// # Errors
    /// When the name is not one that directors and agents may have.
    pub fn new(cluster: ClusterId, role: Role, name: &str) -> Result<Self, NameError> {
        // All three follow the same rule, that of host names.
        DirectorName::new(name).map(|name| Self {
            cluster,
            role,
            name: name.as_str().to_owned(),
            since: Position(0),
        })
    }

    /// The same of a machine that was let in at this position of the ledger. A renewed certificate keeps it,
    /// so that a later position at which the machine was forgotten ends all that it ever had.
    #[must_use]
    pub fn let_in_at(self, since: Position) -> Self {
        Self { since, ..self }
    }

    /// Its cluster.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What it is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Its name among those of its role.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where in the ledger it was let in; 0 for who founded the cluster.
    #[must_use]
    pub const fn since(&self) -> Position {
        self.since
    }

    /// As it stands in certificates.
    #[must_use]
    pub fn uri(&self) -> String {
        let who = format!("{SCHEME}{}/{}/{}", self.cluster, self.role, self.name);
        match self.since {
            Position(0) => who,
            Position(since) => format!("{who}/{since}"),
        }
    }

    /// Reads what [`uri`](Self::uri) writes, and nothing else.
    fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix(SCHEME)?.split('/');
        let cluster = parse_cluster(parts.next()?)?;
        let role = parts.next()?;
        let role = Role::ALL.into_iter().find(|other| other.name() == role)?;
        let identity = Self::new(cluster, role, parts.next()?).ok()?;
        let since = parts.next().map_or(Some(0), |since| since.parse().ok())?;
        let identity = identity.let_in_at(Position(since));
        // What could be written in two ways is read in one.
        (identity.uri() == uri).then_some(identity)
    }
}

/// For people: `agent "a1" of cluster 0123456789abcdef`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            role,
            name,
            since: _,
        } = self;
        write!(f, "{role} {name:?} of cluster {cluster}")
    }
}

/// Why a certificate does not say who its owner is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// There is no certificate.
    #[error("no certificate was shown")]
    Missing,
    /// It is not a certificate.
    #[error("the certificate cannot be read: {why}")]
    Unreadable {
        /// What is wrong, as a fragment.
        why: String,
    },
    /// It has no URI of ours.
    #[error("the certificate does not say whose it is")]
    Nobody,
    /// It has several URIs of ours.
    #[error("the certificate says more than one thing")]
    Several,
    /// It has a URI of ours that means nothing here.
    #[error("the certificate is for {uri:?}, which is nobody's")]
    Unknown {
        /// What it says.
        uri: String,
    },
    /// Another cluster's.
    #[error("the certificate is that of {identity}, this is cluster {cluster}")]
    OtherCluster {
        /// Whose it is.
        identity: Identity,
        /// Where it was shown.
        cluster: ClusterId,
    },
    /// Another role than this end must have.
    #[error("the certificate is that of {identity}; a {wanted} is needed")]
    OtherRole {
        /// Whose it is.
        identity: Identity,
        /// Who must be there.
        wanted: Role,
    },
}

/// Whose a chain of certificates is, the owner's first. It does not check who has signed it.
///
/// # Errors
/// When it is not that of somebody of this cluster.
pub fn identity_of(
    chain: &[CertificateDer<'_>],
    cluster: ClusterId,
) -> Result<Identity, IdentityError> {
    let identity = read(chain.first().ok_or(IdentityError::Missing)?)?;
    if identity.cluster == cluster {
        Ok(identity)
    } else {
        Err(IdentityError::OtherCluster { identity, cluster })
    }
}

/// Whose a certificate is, of whichever cluster.
pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
    let uri = only_uri(certificate)?;
    Identity::parse(&uri).ok_or(IdentityError::Unknown { uri })
}

/// The URI of the certificate of an authority.
pub(crate) fn authority_uri(cluster: ClusterId) -> String {
    format!("{SCHEME}{cluster}/{AUTHORITY}")
}

/// The cluster that an authority's certificate is for.
pub(crate) fn authority_of(certificate: &CertificateDer<'_>) -> Result<ClusterId, IdentityError> {
    let uri = only_uri(certificate)?;
    let cluster = uri
        .strip_prefix(SCHEME)
        .and_then(|rest| rest.split_once('/'))
        .filter(|(_, who)| *who == AUTHORITY)
        .and_then(|(cluster, _)| parse_cluster(cluster));
    cluster.ok_or(IdentityError::Unknown { uri })
}

/// 16 hexadecimal digits in lower case, as a cluster is shown.
fn parse_cluster(text: &str) -> Option<ClusterId> {
    let cluster = ClusterId(u64::from_str_radix(text, 16).ok()?);
    (cluster.to_string() == text).then_some(cluster)
}

fn only_uri(certificate: &CertificateDer<'_>) -> Result<String, IdentityError> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|error| {
        let why = error.to_string();
        IdentityError::Unreadable { why }
    })?;
    let mut ours = parsed
        .valid_uri_names()
        .filter(|uri| uri.starts_with("quorate:"));
    match (ours.next(), ours.next()) {
        (Some(uri), None) => Ok(uri.to_owned()),
        (None, _) => Err(IdentityError::Nobody),
        (Some(_), Some(_)) => Err(IdentityError::Several),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let identity = Identity::new(ClusterId(0xbeef), Role::Agent, "a1.example").unwrap();
        assert_eq!(
            identity.uri(),
            "quorate://000000000000beef/agent/a1.example"
        );
        assert_eq!(Identity::parse(&identity.uri()), Some(identity.clone()));
        let later = identity.let_in_at(Position(812));
        assert_eq!(
            later.uri(),
            "quorate://000000000000beef/agent/a1.example/812"
        );
        assert_eq!(Identity::parse(&later.uri()), Some(later));
        for bad in [
            "quorate://beef/agent/a1",
            "quorate://000000000000BEEF/agent/a1",
            "quorate://+00000000000beef/agent/a1",
            "quorate://000000000000beef/authority",
            "quorate://000000000000beef/Agent/a1",
            "quorate://000000000000beef/agent/",
            "quorate://000000000000beef/agent/a1/director",
            "quorate://000000000000beef/agent/a1/0",
            "quorate://000000000000beef/agent/a1/+7",
            "quorate://000000000000beef/agent/a1/07",
            "quorate://000000000000beef/agent/a1/7/8",
            "quorate://000000000000beef/agent/a1/",
            "quorate://000000000000beef/agent/a1/18446744073709551616",
            "quorate://000000000000beef/agent/..%2fa1",
            "quorate://000000000000beef/agent",
            "spiffe://000000000000beef/agent/a1",
            "quorate:000000000000beef/agent/a1",
        ] {
            assert_eq!(Identity::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_that_could_be_read_as_something_else_are_not_signed() {
        for bad in ["", "a/b", "a b", "-a", "a\nb", &"a".repeat(64)] {
            assert!(Identity::new(ClusterId(1), Role::Agent, bad).is_err());
        }
    }
}
