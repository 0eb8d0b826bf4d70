//! The certificates of a cluster: its own authority, the papers of each party, and TLS made of them.
//!
//! ```text
//!  Authority ──signs──► Papers (chain, key)      on the machine that owns the key: Request ──CSR──► Authority
//!      │                   │
//!    Trust ──────────► ServerTls, ClientTls      who is at the other end: Identity { cluster, role, name }
//! ```
//!
//! One authority for each cluster, certificates of seven days that are renewed at two thirds of their life
//! ([`Papers::renew_at`]), and the role of its owner in each. It must never sign what a request asks for:
//! whoever signs says who it is. A private key never leaves the machine that it was made on, and one that
//! others than its owner may read is not used.

mod authority;
mod client;
mod error;
mod files;
mod identity;
mod papers;
mod server;
mod trust;

pub use authority::{Authority, Host, Validity};
pub use client::ClientTls;
pub use error::Error;
pub use files::{AUTHORITY_KEY, FOLDER, PAPERS, TRUST};
pub use identity::{DIRECTOR_DNS_NAME, Identity, IdentityError, Role, identity_of};
pub use papers::{Papers, Request};
pub use server::ServerTls;
pub use trust::{Fingerprint, Trust};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one provider of cryptography, named in one place.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
