//! Who may speak on the port between directors: only a certificate of the cluster's authority that says
//! *director*, of this cluster, with a name.
//!
//! Each side asks the other for one, on every connection anew: sessions are never resumed, so that an
//! expired or replaced certificate ends with its connection. It must never fall back to less.

use std::fmt;
use std::sync::Arc;

use quorate_core::ids::ClusterId;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use webpki::EndEntityCert;

/// The name that the certificate of every director carries, whatever its address: whoever dials asks for
/// it, and no certificate of another role has it.
pub const DIRECTOR_DNS_NAME: &str = "director.quorate.internal";

/// Told in the TLS handshake, so that a client of another protocol is turned away there.
const PROTOCOL: &[u8] = b"quorate-peer";

/// The URI that the certificate of a director carries among its alternative names: its cluster in 16
/// hexadecimal digits, its role and its name. The position of the ledger at which it was let in may follow
/// after another slash: who was removed since then is no member, so it is not looked at here.
#[must_use]
pub fn director_uri(cluster: u64, name: &str) -> String {
    format!("{}{name}", prefix(cluster))
}

fn prefix(cluster: u64) -> String {
    format!("quorate://{}/director/", ClusterId(cluster))
}

/// What a director shows to the others and checks them by, each as PEM.
///
/// The certificate must be good for a TLS server and client, and carry [`DIRECTOR_DNS_NAME`] and
/// [`director_uri`].
#[derive(Clone, PartialEq, Eq)]
pub struct PeerTls {
    /// The certificate of this director, followed by those between it and the authority.
    pub chain: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// The authorities that sign directors of this cluster; several while they are exchanged.
    pub authority: Vec<u8>,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").finish_non_exhaustive()
    }
}

/// Both sides of TLS, ready to use.
#[derive(Clone, Debug)]
pub(crate) struct Configs {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

impl Configs {
    /// Checks what was handed in; it must name this director, or the others would refuse it one by one.
    pub(crate) fn new(tls: &PeerTls, cluster: u64, name: &str) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(&tls.chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(&tls.key)
            .map_err(|error| format!("the private key cannot be read: {error}"))?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&tls.authority) {
            let added = authority
                .map_err(|error| error.to_string())
                .and_then(|authority| roots.add(authority).map_err(|error| error.to_string()));
            added.map_err(|error| format!("the authority cannot be read: {error}"))?;
        }
        let named = director_of(&chain, cluster)?;
        if named != name {
            return Err(format!(
                "the certificate is that of director {named:?}, this one is {name:?}"
            ));
        }
        Self::build(chain, key, Arc::new(roots)).map_err(|error| error.to_string())
    }

    fn build(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Arc<RootCertStore>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// The name to ask a director's certificate for.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from(DIRECTOR_DNS_NAME).expect("it is a DNS name")
}

/// The name of the director that a verified chain of certificates belongs to.
pub(crate) fn director_of(chain: &[CertificateDer<'_>], cluster: u64) -> Result<String, String> {
    let certificate = chain.first().ok_or("no certificate was shown")?;
    let parsed = EndEntityCert::try_from(certificate)
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let prefix = prefix(cluster);
    let mut ours = parsed
        .valid_uri_names()
        .filter(|uri| uri.starts_with("quorate:"));
    match (ours.next(), ours.next()) {
        (Some(uri), None) => {
            let name = uri.strip_prefix(&prefix).and_then(name_of);
            name.map(str::to_owned).ok_or_else(|| {
                format!("the certificate is for {uri:?}, not for a director of cluster {cluster}")
            })
        }
        (None, _) => Err("the certificate does not say whose it is".to_owned()),
        (Some(_), Some(_)) => Err("the certificate says more than one thing".to_owned()),
    }
}

/// The name in front of the position at which it was let in, if there is one.
fn name_of(who: &str) -> Option<&str> {
    let (name, since) = who.split_once('/').unwrap_or((who, "0"));
    let digits = !since.is_empty() && since.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !name.is_empty()).then_some(name)
}
