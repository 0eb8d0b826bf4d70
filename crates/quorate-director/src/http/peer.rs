//! Who is at the other end of a connection, by the certificate that it has shown.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use quorate_core::access::Node;
use quorate_core::audit::{By, Who};
use quorate_core::director::call::{Attributed, Call};
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

/// The address at the other end of a connection. Whoever accepts it puts it into the extensions of each
/// request; **never** taken from a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

/// Where a request comes from, for who looks into it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source(Option<PeerAddress>);

impl Source {
    /// The same of a request that is taken apart.
    pub(crate) fn of(parts: &Parts) -> Self {
        Self(parts.extensions.get::<PeerAddress>().copied())
    }

    /// The call of somebody who asks from there.
    pub(crate) fn asks(self, who: Who, call: Call) -> Call {
        let from = self.0.map(|PeerAddress(address)| address.to_string());
        let by = By { who, from };
        Call::Attributed(Box::new(Attributed { by, call }))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}
