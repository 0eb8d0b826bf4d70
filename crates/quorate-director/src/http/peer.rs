//! Who is at the other end of a connection, by the certificate that it has shown; or whom a director speaks
//! for that passes a request on.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use quorate_api::routes::{RELAYED_FOR_HEADER, RELAYED_FROM_HEADER, RELAYED_HEADER};
use quorate_core::access::Node;
use quorate_core::audit::{By, Who};
use quorate_core::director::call::{Attributed, Call};
use quorate_core::ids::{NodeName, Position};
use quorate_core::repeats::Key;

/// The machine of this cluster at the other end. Whoever accepts a connection over TLS puts it into the
/// extensions of each request, after the chain, the cluster and the time of the certificate were checked;
/// without it nobody is known. **Never** made of anything that a request says, unless another director
/// says it of the client whose request it passes on ([`stand_in`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What it is.
    pub node: Node,
    /// What it is called.
    pub name: NodeName,
    /// Where in the ledger it was let in: what was forgotten or removed later is nobody.
    pub since: Position,
}

/// The address at the other end of a connection. Whoever accepts it puts it into the extensions of each
/// request; the word of another director counts as for [`PeerIdentity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

/// Puts the client of a passed request in the place of the director that passes it on. Nobody else is
/// believed, and no later reader finds the headers. Tells whether somebody else is spoken for.
pub(crate) fn stand_in(parts: &mut Parts) -> bool {
    let client = parts.headers.remove(RELAYED_FOR_HEADER);
    let address = parts.headers.remove(RELAYED_FROM_HEADER);
    let passed = parts.headers.contains_key(RELAYED_HEADER);
    let sender = parts.extensions.get::<PeerIdentity>();
    if !passed || sender.is_none_or(|sender| sender.node != Node::Director) {
        return false;
    }
    // Without a word about the client nobody is known: the director asks nothing for itself in this way.
    parts.extensions.remove::<PeerIdentity>();
    if let Some(client) = client.and_then(|text| PeerIdentity::read(text.to_str().ok()?)) {
        parts.extensions.insert(client);
    }
    parts.extensions.remove::<PeerAddress>();
    if let Some(address) = address.and_then(|text| text.to_str().ok()?.parse().ok()) {
        parts.extensions.insert(PeerAddress(address));
    }
    true
}

/// Tells the next director of the client whose request is passed on.
pub(crate) fn tell(parts: &Parts, headers: &mut HeaderMap) {
    let client = parts.extensions.get::<PeerIdentity>();
    let address = parts.extensions.get::<PeerAddress>();
    let said = [
        (RELAYED_FOR_HEADER, client.map(PeerIdentity::written)),
        (
            RELAYED_FROM_HEADER,
            address.map(|PeerAddress(address)| address.to_string()),
        ),
    ];
    for (name, text) in said {
        // Names of machines and addresses are plain text.
        if let Some(Ok(value)) = text.as_deref().map(HeaderValue::from_str) {
            headers.insert(name, value);
        }
    }
}

impl PeerIdentity {
    fn written(&self) -> String {
        format!("{}/{}/{}", self.node, self.name, self.since.0)
    }

    fn read(text: &str) -> Option<Self> {
        let (node, who) = text.split_once('/')?;
        let (name, since) = who.split_once('/')?;
        let all = [Node::Agent, Node::Director];
        let node = all.into_iter().find(|known| known.as_str() == node)?;
        let name = NodeName::new(name).ok()?;
        let since = Position(since.parse().ok()?);
        Some(Self { node, name, since })
    }
}

/// Where a request comes from, for who looks into it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source(Option<PeerAddress>);

impl Source {
    /// The same of a request that is taken apart.
    pub(crate) fn of(parts: &Parts) -> Self {
        Self(parts.extensions.get::<PeerAddress>().copied())
    }

    /// The call of somebody who asks from there, under his idempotency key if he has given one.
    pub(crate) fn asks(self, who: Who, key: Option<Key>, call: Call) -> Call {
        let from = self.0.map(|PeerAddress(address)| address.to_string());
        let by = By { who, from };
        Call::Attributed(Box::new(Attributed { by, key, call }))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(node: Node, name: &str) -> PeerIdentity {
        let name = NodeName::new(name).unwrap();
        let since = Position(8);
        PeerIdentity { node, name, since }
    }

    /// A request of this machine, with these headers.
    fn request(sender: Option<PeerIdentity>, headers: &[(&'static str, &'static str)]) -> Parts {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        parts
            .extensions
            .insert(PeerAddress("10.0.0.1".parse().unwrap()));
        if let Some(sender) = sender {
            parts.extensions.insert(sender);
        }
        for (name, value) in headers {
            parts.headers.insert(*name, HeaderValue::from_static(value));
        }
        parts
    }

    fn seen(parts: &Parts) -> (Option<String>, Option<String>) {
        let client = parts.extensions.get::<PeerIdentity>();
        let address = parts.extensions.get::<PeerAddress>();
        let address = address.map(|PeerAddress(address)| address.to_string());
        (client.map(PeerIdentity::written), address)
    }

    const PASSED: (&str, &str) = (RELAYED_HEADER, "d2");
    const FOR: (&str, &str) = (RELAYED_FOR_HEADER, "agent/a1/8");
    const FROM: (&str, &str) = (RELAYED_FROM_HEADER, "10.0.0.7");

    #[test]
    fn only_a_director_that_passes_a_request_on_speaks_for_another() {
        let director = || Some(machine(Node::Director, "d2"));
        let agent = || Some(machine(Node::Agent, "a2"));
        let own = Some("10.0.0.1".to_owned());
        for (sender, headers, expected) in [
            (
                director(),
                vec![PASSED, FOR, FROM],
                (Some("agent/a1/8".to_owned()), Some("10.0.0.7".to_owned())),
            ),
            // It passes on what somebody without a certificate asks: it does not lend its own.
            (director(), vec![PASSED], (None, None)),
            (
                director(),
                vec![PASSED, (RELAYED_FOR_HEADER, "boss/me/8")],
                (None, None),
            ),
            (
                director(),
                vec![PASSED, (RELAYED_FOR_HEADER, "agent/a1")],
                (None, None),
            ),
            (
                director(),
                vec![FOR, FROM],
                (Some("director/d2/8".to_owned()), own.clone()),
            ),
            (
                agent(),
                vec![PASSED, (RELAYED_FOR_HEADER, "director/d1/8"), FROM],
                (Some("agent/a2/8".to_owned()), own.clone()),
            ),
            (None, vec![PASSED, FOR, FROM], (None, own.clone())),
        ] {
            let mut parts = request(sender, &headers);
            stand_in(&mut parts);
            assert_eq!(seen(&parts), expected, "{headers:?}");
            assert!(!parts.headers.contains_key(RELAYED_FOR_HEADER));
            assert!(!parts.headers.contains_key(RELAYED_FROM_HEADER));
        }
    }

    #[test]
    fn what_is_told_is_what_is_believed() {
        for client in [Some(machine(Node::Agent, "a1.example")), None] {
            let given = request(client, &[]);
            let mut parts = request(Some(machine(Node::Director, "d2")), &[PASSED]);
            tell(&given, &mut parts.headers);
            stand_in(&mut parts);
            assert_eq!(seen(&parts), seen(&given));
        }
    }
}
