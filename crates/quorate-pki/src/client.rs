//! The side of TLS that connects: to a director of the cluster and nobody else, whatever its address.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::ids::ClusterId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::error::Error;
use crate::identity::{DIRECTOR_DNS_NAME, IdentityError, Role, authority_of, identity_of};
use crate::papers::Papers;
use crate::server::{check, refused};
use crate::trust::{Fingerprint, Trust};

/// TLS of somebody who connects to directors.
///
/// The other end must be a director of this cluster, by the name that every director's certificate has:
/// its address is not asked for, so that a director may be reached in any way.
#[derive(Clone, Debug)]
pub struct ClientTls {
    cluster: ClusterId,
    config: ClientConfig,
    own: Arc<Own>,
}

impl ClientTls {
    /// TLS that trusts these authorities only, and shows these papers if there are some.
    ///
    /// # Errors
    /// When the papers are those of another cluster.
    pub fn new(trust: &Trust, papers: Option<&Papers>) -> Result<Self, Error> {
        let what = "the client's TLS";
        let verifier = Arc::new(Directors::of(trust.roots()?, trust.cluster())?);
        let own = Arc::new(Own::default());
        let mut config = ClientConfig::builder_with_provider(crate::provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(Error::unusable(what))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::clone(&own) as Arc<dyn ResolvesClientCert>);
        config.resumption = Resumption::disabled();
        let tls = Self {
            cluster: trust.cluster(),
            config,
            own,
        };
        if let Some(papers) = papers {
            check(papers, trust, papers.identity().role())?;
            tls.own.show(papers);
        }
        Ok(tls)
    }

    /// TLS of a machine that knows nothing of a cluster but the hash of its authority's certificate, which
    /// a join token carries: the other end must be a director that this very authority has signed for, and
    /// shows its certificate. It shows no papers.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn pinned(authority: Fingerprint) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(crate::provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(Error::unusable("the client's TLS"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Directors::Pinned(authority)))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// Shows these from the next connection on.
    ///
    /// # Errors
    /// When they are those of another cluster; then the old ones stay.
    pub fn renew(&self, papers: &Papers) -> Result<(), Error> {
        let identity = papers.identity().clone();
        if identity.cluster() != self.cluster {
            let cluster = self.cluster;
            return Err(IdentityError::OtherCluster { identity, cluster }.into());
        }
        self.own.show(papers);
        Ok(())
    }

    /// The cluster whose directors are trusted.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// For an HTTP client. It sees renewed papers, too.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        self.config.clone()
    }
}

/// The own papers, which may change.
#[derive(Debug, Default)]
struct Own(Mutex<Option<Arc<CertifiedKey>>>);

impl Own {
    fn show(&self, papers: &Papers) {
        let certified = Arc::clone(papers.certified());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(certified);
    }

    fn now(&self) -> Option<Arc<CertifiedKey>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ResolvesClientCert for Own {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.now()
    }

    fn has_certs(&self) -> bool {
        self.now().is_some()
    }
}

/// Takes certificates of directors alone.
#[derive(Debug)]
enum Directors {
    /// Those of this cluster, signed by one of its authorities.
    Of {
        webpki: Arc<WebPkiServerVerifier>,
        cluster: ClusterId,
    },
    /// Those of the cluster whose authority has this hash, and is shown along with them.
    Pinned(Fingerprint),
}

impl Directors {
    fn of(roots: Arc<RootCertStore>, cluster: ClusterId) -> Result<Self, Error> {
        let webpki = WebPkiServerVerifier::builder_with_provider(roots, crate::provider());
        let webpki = webpki
            .build()
            .map_err(Error::unusable("the client's TLS"))?;
        Ok(Self::Of { webpki, cluster })
    }

    /// Those that this authority signs for.
    fn of_one(authority: &CertificateDer<'_>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        let added = roots.add(authority.clone().into_owned());
        added.map_err(Error::unusable("the authority's certificate"))?;
        Self::of(Arc::new(roots), authority_of(authority)?)
    }
}

impl ServerCertVerifier for Directors {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let director = ServerName::try_from(DIRECTOR_DNS_NAME).expect("it is a DNS name");
        let (webpki, cluster) = match self {
            Self::Of { webpki, cluster } => (webpki, *cluster),
            Self::Pinned(authority) => {
                let mut shown = intermediates.iter();
                let authority = shown.find(|shown| Fingerprint::of(shown) == *authority);
                let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
                let known = Self::of_one(authority.ok_or(unknown)?);
                let known = known.map_err(|error| rustls::Error::General(error.to_string()))?;
                return known.verify_server_cert(end_entity, intermediates, &director, ocsp, now);
            }
        };
        let verified =
            webpki.verify_server_cert(end_entity, intermediates, &director, ocsp, now)?;
        let chain = std::slice::from_ref(end_entity);
        let identity = identity_of(chain, cluster).map_err(refused)?;
        if identity.role() == Role::Director {
            Ok(verified)
        } else {
            let wanted = Role::Director;
            Err(refused(IdentityError::OtherRole { identity, wanted }))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = crate::provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = crate::provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let schemes = crate::provider().signature_verification_algorithms;
        schemes.supported_schemes()
    }
}
