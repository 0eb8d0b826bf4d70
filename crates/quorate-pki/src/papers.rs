//! What one party shows: its certificate with its key, and when both are to be renewed.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::authority::Host;
use crate::error::Error;
use crate::files;
use crate::identity::{self, DIRECTOR_DNS_NAME, Identity};

/// A key that was just made, and the request to sign it. The key stays where it was made.
pub struct Request {
    key: String,
    csr: String,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").finish_non_exhaustive()
    }
}

impl Request {
    /// Makes a key and a request that says nothing but the public half of it: who it is for is not its
    /// own affair.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self, Error> {
        let make = || -> Result<Self, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(Vec::new())?;
            params.distinguished_name = DistinguishedName::new();
            let csr = params.serialize_request(&key)?.pem()?;
            let key = key.serialize_pem();
            Ok(Self { key, csr })
        };
        make().map_err(Error::unusable("a new key"))
    }

    /// The request that a file keeps, or a new one, which is written there: who lost an answer asks with
    /// the same again. Its key is for the owner of the file alone.
    ///
    /// # Errors
    /// When the file cannot be read or written, others may read it, or it holds something else.
    pub fn kept(path: &Path) -> Result<Self, Error> {
        if path.exists() {
            let text = files::read_private(path)?;
            let what = path.display().to_string();
            KeyPair::from_pem(&text).map_err(Error::unusable(what))?;
            return Ok(Self {
                key: blocks(&text, |label| label.ends_with("PRIVATE KEY")),
                csr: blocks(&text, |label| label == "CERTIFICATE REQUEST"),
            });
        }
        let made = Self::new()?;
        // Half of it would be taken for a file of somebody else by the next try.
        files::replace(path, &format!("{}{}", made.key, made.csr), files::PRIVATE)?;
        Ok(made)
    }

    /// The request (PKCS #10) as PEM, to be handed to the authority.
    #[must_use]
    pub fn csr(&self) -> &str {
        &self.csr
    }

    /// Puts the certificate that came back to the key.
    ///
    /// # Errors
    /// When it is not one, says nobody's name, or is for another key.
    pub fn complete(self, chain: &str) -> Result<Papers, Error> {
        Papers::from_pem(&format!("{}{chain}", self.key))
    }
}

/// Certificate and key of one party.
#[derive(Clone)]
pub struct Papers {
    chain_pem: String,
    key_pem: String,
    certified: Arc<CertifiedKey>,
    identity: Identity,
    begins: SystemTime,
    expires: SystemTime,
}

impl fmt::Debug for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Papers")
            .field("identity", &self.identity)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Papers {
    /// Reads key and certificates from one text, in any order; the owner's certificate is the first.
    ///
    /// # Errors
    /// When one is missing or they do not belong together.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let what = "the certificate";
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::unusable(what))?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(Error::unusable("the private key"))?;
        let first = chain.first().ok_or(identity::IdentityError::Missing)?;
        let identity = identity::read(first)?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(Error::unusable(what))?;
        let validity = parsed.validity();
        let (begins, expires) = (
            moment(validity.not_before.timestamp()),
            moment(validity.not_after.timestamp()),
        );
        let certified = CertifiedKey::from_der(chain, key, &crate::provider())
            .map_err(Error::unusable("the certificate with its key"))?;
        Ok(Self {
            chain_pem: blocks(pem, |label| label == "CERTIFICATE"),
            key_pem: blocks(pem, |label| label.ends_with("PRIVATE KEY")),
            certified: Arc::new(certified),
            identity,
            begins,
            expires,
        })
    }

    /// Reads a file that only its owner may read.
    ///
    /// # Errors
    /// When it cannot be read or used, or others may read it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::from_pem(&files::read_private(path)?)
    }

    /// Writes them for their owner alone, over those that are there; after a crash either are whole.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn store(&self, path: &Path) -> Result<(), Error> {
        let text = format!("{}{}", self.chain_pem, self.key_pem);
        files::replace(path, &text, files::PRIVATE)
    }

    /// Whose they are.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificate and those between it and the authority, as PEM.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The private key as PEM. It must not leave this machine.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// After this moment nobody takes them any more.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    /// When to have them renewed: at two thirds of their life, so that a third is left to try again.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        let life = self.expires.duration_since(self.begins);
        self.expires - life.unwrap_or(Duration::ZERO) / 3
    }

    /// Whether they are good at this moment: not over, and not those of a clock that was ahead.
    #[must_use]
    pub fn is_good(&self, now: SystemTime) -> bool {
        (self.begins..self.expires).contains(&now)
    }

    /// The addresses that the certificate is good for, beside the name that every director has. A
    /// renewed one is made for the same.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn hosts(&self) -> Result<Vec<Host>, Error> {
        let what = "the certificate";
        let first = self.certified.cert.first();
        let first = first.ok_or(identity::IdentityError::Missing)?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(Error::unusable(what))?;
        let names = parsed
            .subject_alternative_name()
            .map_err(Error::unusable(what))?;
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        Ok(names.iter().filter_map(host).collect())
    }

    pub(crate) const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// For people: whose they are and until when.
impl fmt::Display for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = jiff::Timestamp::try_from(self.expires).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{}, valid until {until}", self.identity)
    }
}

fn host(name: &GeneralName<'_>) -> Option<Host> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "names of other kinds are no addresses"
    )]
    match name {
        GeneralName::DNSName(name) if *name != DIRECTOR_DNS_NAME => {
            Some(Host::Name((*name).to_owned()))
        }
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let ip = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            ip.ok().map(Host::Ip)
        }
        _ => None,
    }
}

/// A second of Unix time. Moments before 1970 are all long ago.
fn moment(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH + since
}

/// The blocks of a PEM text whose label is meant, each with its line ends.
fn blocks(pem: &str, meant: impl Fn(&str) -> bool) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in pem.lines() {
        let label = |prefix| {
            line.strip_prefix(prefix)
                .and_then(|l| l.strip_suffix("-----"))
        };
        if label("-----BEGIN ").is_some_and(&meant) {
            inside = true;
        }
        if inside {
            kept.push_str(line);
            kept.push('\n');
        }
        if label("-----END ").is_some() {
            inside = false;
        }
    }
    kept
}
