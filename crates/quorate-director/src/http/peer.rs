//! Who is at the other end of a connection, by the certificate that it has shown.

use quorate_core::access::Node;
use quorate_core::ids::NodeName;

/// The machine of this cluster at the other end. Whoever accepts a connection over TLS puts it into the
/// extensions of each request, after the chain, the cluster and the time of the certificate were checked;
/// without it nobody is known. **Never** made of anything that a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What it is.
    pub node: Node,
    /// What it is called.
    pub name: NodeName,
}
