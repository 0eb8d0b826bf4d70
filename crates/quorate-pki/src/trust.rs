//! What is trusted: the certificates of the cluster's authority, and which cluster that is.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use quorate_core::ids::ClusterId;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::files;
use crate::identity;

/// SHA-256 of a certificate, by which people and join tokens name an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// That of a certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

/// Reads what is shown.
impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no SHA-256 in hexadecimal");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(at * 2..at * 2 + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The certificates of a cluster's authority. While it is exchanged there are several: all are trusted,
/// and the first one's key signs.
#[derive(Clone, Debug)]
pub struct Trust {
    pem: String,
    cluster: ClusterId,
    certificates: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Reads certificates as PEM. All must be of one cluster.
    ///
    /// # Errors
    /// When there is none, or one is not that of an authority of the same cluster.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let what = "the authority's certificate";
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::unusable(what))?;
        let mut cluster = None;
        for certificate in &certificates {
            let this = identity::authority_of(certificate)?;
            if cluster.is_some_and(|other| other != this) {
                return Err(Error::unusable(what)("they are of different clusters"));
            }
            cluster = Some(this);
        }
        let cluster = cluster.ok_or_else(|| Error::unusable(what)("there is none in it"))?;
        let trust = Self {
            pem: pem.to_owned(),
            cluster,
            certificates,
        };
        trust.roots()?;
        Ok(trust)
    }

    /// Reads a file of them, such as `ca.pem` of a director's folder.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::from_pem(&files::read(path)?)
    }

    /// Writes them for everybody to read, over those that are there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn store(&self, path: &Path) -> Result<(), Error> {
        files::replace(path, &self.pem, files::PUBLIC)
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// As PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// That of the certificate whose key signs.
    ///
    /// # Panics
    /// Never: there is at least one.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.certificates.first().expect("there is at least one"))
    }

    /// Whether the authority of this hash is among them.
    #[must_use]
    pub fn is_of(&self, authority: Fingerprint) -> bool {
        let mut all = self.certificates.iter();
        all.any(|certificate| Fingerprint::of(certificate) == authority)
    }

    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(crate) fn first(&self) -> Option<&CertificateDer<'static>> {
        self.certificates.first()
    }

    pub(crate) fn roots(&self) -> Result<Arc<RootCertStore>, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.certificates {
            let added = roots.add(certificate.clone());
            added.map_err(Error::unusable("the authority's certificate"))?;
        }
        Ok(Arc::new(roots))
    }
}
