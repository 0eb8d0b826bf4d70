//! Certificates of a cluster.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::peer::{DIRECTOR_DNS_NAME, PeerTls, director_uri};

/// Who signs the certificates of a cluster.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// The papers of a director.
    pub(super) fn director(&self, cluster: u64, name: &str) -> PeerTls {
        self.sign(&director_uri(cluster, name))
    }

    /// Papers that say this.
    pub(super) fn sign(&self, uri: &str) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![DIRECTOR_DNS_NAME.to_owned()]).unwrap();
        let uri = uri.try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        PeerTls {
            chain: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            authority: self.certificate.clone().into_bytes(),
        }
    }
}
