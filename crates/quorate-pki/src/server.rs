//! The side of TLS that listens: a director's API. Who connects may show a certificate of the cluster;
//! one that is shown must be good.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::ids::ClusterId;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
};

use crate::error::Error;
use crate::identity::{Identity, IdentityError, Role, identity_of};
use crate::papers::Papers;
use crate::trust::Trust;

/// TLS of a listener. Its certificate is exchanged while it serves: connections that are open keep what
/// they began with, the next one uses the new.
#[derive(Debug)]
pub struct ServerTls {
    cluster: ClusterId,
    name: String,
    config: Mutex<Arc<ServerConfig>>,
}

impl ServerTls {
    /// TLS that shows these papers and takes certificates that are signed by one of these authorities.
    ///
    /// # Errors
    /// When the papers are not those of a director of this cluster.
    pub fn new(papers: &Papers, trust: &Trust) -> Result<Self, Error> {
        let config = Mutex::new(config(papers, trust)?);
        Ok(Self {
            cluster: trust.cluster(),
            name: papers.identity().name().to_owned(),
            config,
        })
    }

    /// Uses these from the next connection on.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when they are those of another director; then the old ones stay.
    pub fn renew(&self, papers: &Papers, trust: &Trust) -> Result<(), Error> {
        let same = trust.cluster() == self.cluster && papers.identity().name() == self.name;
        if !same {
            let why = format!("they are those of {}", papers.identity());
            return Err(Error::unusable("the renewed papers")(why));
        }
        let config = config(papers, trust)?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What to accept the next connection with.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who is at the other end of a connection whose handshake is done; `None` when it showed nothing.
    ///
    /// # Errors
    /// When what it showed is nobody's of this cluster, which the handshake does not let through.
    pub fn peer(
        &self,
        shown: Option<&[CertificateDer<'_>]>,
    ) -> Result<Option<Identity>, IdentityError> {
        shown
            .map(|chain| identity_of(chain, self.cluster))
            .transpose()
    }
}

fn config(papers: &Papers, trust: &Trust) -> Result<Arc<ServerConfig>, Error> {
    let what = "the director's TLS";
    check(papers, trust, Role::Director)?;
    let webpki = WebPkiClientVerifier::builder_with_provider(trust.roots()?, crate::provider())
        .allow_unauthenticated()
        .build()
        .map_err(Error::unusable(what))?;
    let verifier = Arc::new(Members {
        webpki,
        cluster: trust.cluster(),
    });
    let mut config = ServerConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::unusable(what))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown(papers, trust))));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A session that is resumed would bring back a certificate that may have ended since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The chain with the authorities at its end: a machine that is let in knows nothing of them but the hash
/// of one, and finds it there.
fn shown(papers: &Papers, trust: &Trust) -> CertifiedKey {
    let own = papers.certified();
    let mut chain = own.cert.clone();
    chain.extend(trust.certificates().iter().cloned());
    CertifiedKey::new(chain, Arc::clone(&own.key))
}

/// Papers must be those of somebody of this cluster, and of this role.
pub(crate) fn check(papers: &Papers, trust: &Trust, wanted: Role) -> Result<(), Error> {
    let identity = papers.identity().clone();
    if identity.cluster() != trust.cluster() {
        let cluster = trust.cluster();
        return Err(IdentityError::OtherCluster { identity, cluster }.into());
    }
    if identity.role() != wanted {
        return Err(IdentityError::OtherRole { identity, wanted }.into());
    }
    Ok(())
}

/// Takes certificates of the cluster's authority that say who their owner is.
#[derive(Debug)]
struct Members {
    webpki: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
}

impl ClientCertVerifier for Members {
    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .webpki
            .verify_client_cert(end_entity, intermediates, now)?;
        identity_of(std::slice::from_ref(end_entity), self.cluster).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Our own reason, inside the error of a handshake.
pub(crate) fn refused(error: IdentityError) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
