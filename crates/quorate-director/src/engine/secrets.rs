//! Who may speak for a session, and who holds a token. Tables beside the loop, so that secrets are checked
//! without it.
//!
//! It only says who asks. Whether a session is open is decided by the machine alone: what is missing
//! here is passed on and checked in the loop.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock};

use quorate_core::access::Credentials;
use quorate_core::cluster::Cluster;
use quorate_core::history::Change;
use quorate_core::ids::SessionId;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The hashes of the secrets of all open sessions, and of all tokens.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    hashes: RwLock<BTreeMap<SessionId, Arc<str>>>,
    credentials: RwLock<Arc<Credentials>>,
}

/// What a secret is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// It is the session's.
    Right,
    /// It is not.
    Wrong,
    /// The session is not in the table.
    Unknown,
}

impl Secrets {
    /// Checks a secret in constant time.
    pub(crate) fn check(&self, session: SessionId, secret: &str) -> Checked {
        let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
        let known = hashes.get(&session).map(Arc::clone);
        drop(hashes);
        match known {
            None => Checked::Unknown,
            Some(known) if matches(&known, secret) => Checked::Right,
            Some(_) => Checked::Wrong,
        }
    }

    /// The tokens as this director has folded them.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        let credentials = self.credentials.read();
        Arc::clone(&credentials.unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, cluster: &Cluster) {
        let fresh = Arc::new(cluster.credentials().clone());
        let credentials = self.credentials.write();
        *credentials.unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Takes in what an entry changed.
    pub(super) fn note(&self, cluster: &Cluster, changes: &[Change]) {
        for change in changes {
            match change {
                Change::SessionOpened { session, .. } => {
                    if let Some(open) = cluster.session(*session) {
                        self.write(|hashes| {
                            hashes.insert(*session, Arc::from(open.secret_hash()));
                        });
                    }
                }
                Change::SessionClosed { session, .. } | Change::SessionExpired { session, .. } => {
                    self.write(|hashes| {
                        hashes.remove(session);
                    });
                }
                // Changed by people now and then; there are few enough to be copied.
                Change::Access(_)
                // Their certificates count no longer.
                | Change::AgentForgotten { .. }
                | Change::DirectorForgotten { .. } => self.publish(cluster),
                Change::Elected { .. }
                | Change::DirectorKnown { .. }
                | Change::FormatRaised { .. }
                | Change::ServiceCreated { .. }
                | Change::ServiceChanged { .. }
                | Change::ServiceRemoved { .. }
                | Change::ServiceDesired { .. }
                | Change::SourceRefused { .. }
                | Change::SourceRecovered { .. }
                | Change::Partition { .. }
                | Change::SessionResumed { .. }
                // The sessions that an eviction ends are told one by one.
                | Change::AgentEvicted { .. }
                | Change::AgentFenced { .. }
                | Change::AgentDrifts { .. }
                | Change::AgentSet { .. }
                | Change::EraBegan { .. }
                | Change::Audited(_) => {}
            }
        }
    }

    /// The whole state is another.
    pub(super) fn replace(&self, cluster: &Cluster) {
        let sessions = cluster.sessions().iter();
        let fresh = sessions.map(|(id, open)| (*id, Arc::from(open.secret_hash())));
        let fresh: BTreeMap<_, _> = fresh.collect();
        self.write(|hashes| *hashes = fresh);
        self.publish(cluster);
    }

    fn write(&self, change: impl FnOnce(&mut BTreeMap<SessionId, Arc<str>>)) {
        // Each change is one call of the map: a poisoned one is whole.
        change(&mut self.hashes.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// SHA-256 of a secret, in hexadecimal.
pub(crate) fn hash(secret: &str) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(secret.as_bytes()) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether a secret has this hash.
pub(crate) fn matches(known: &str, secret: &str) -> bool {
    hash(secret).as_bytes().ct_eq(known.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_itself_opens_a_session() {
        let known = hash("5ec2e7");
        assert!(matches(&known, "5ec2e7"));
        assert!(!matches(&known, "5ec2e8") && !matches(&known, "") && !matches("", "5ec2e7"));
        assert_eq!(
            hash("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
