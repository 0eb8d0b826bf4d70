//! What a director needs of a certificate authority. It is given in its configuration.

use std::fmt;

use quorate_core::access::Node;
use quorate_core::ids::NodeName;
use quorate_core::time::WallTime;

/// What a machine is in the cluster: what its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// What it is. It comes from the join token and never from what the machine says.
    pub node: Node,
    /// What it is called.
    pub name: NodeName,
}

/// A certificate that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The certificate and those between it and the authority's, PEM.
    pub certificate: String,
    /// Certificates of the authorities that the machine is to trust, PEM.
    pub authorities: String,
    /// When the certificate ends.
    pub expires: WallTime,
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// What was to be signed is no request, or does not prove that its sender has the key.
    #[error("the certificate signing request cannot be used: {0}")]
    Request(String),
    /// The authority cannot sign at the moment.
    #[error("the certificate authority of this director cannot sign: {0}")]
    Authority(String),
}

/// Signs certificates of machines that are let in. It may take some milliseconds and must not wait for
/// anything; it is called beside the runtime's own threads.
pub trait Signer: fmt::Debug + Send + Sync {
    /// Whether a request could be signed. Asked before a use of a join token is spent on it.
    ///
    /// # Errors
    /// When it could not.
    fn check(&self, request: &str) -> Result<(), SignError>;

    /// Signs a request for an identity. Of what the request says only the key is taken.
    ///
    /// # Errors
    /// When it cannot.
    fn sign(&self, request: &str, identity: &NodeIdentity) -> Result<Signed, SignError>;

    /// SHA-256 of the authority's certificate in hexadecimal. A join token carries it, so that the machine
    /// trusts no other authority on its first call.
    fn authority_hash(&self) -> String;
}
