//! The authority of a cluster: made once with it, kept by its directors, signs who is who.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use quorate_core::ids::ClusterId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::Error;
use crate::files::{self, AUTHORITY_KEY, TRUST};
use crate::identity::{DIRECTOR_DNS_NAME, Identity, Role, authority_uri};
use crate::papers::{Papers, Request};
use crate::trust::{Fingerprint, Trust};

/// How long the certificate of an authority is good; it is exchanged by overlap before that.
const AUTHORITY_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
/// The largest request that is looked at.
const CSR_BYTES_MAX: usize = 16 << 10;

/// From when and until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment, in whole seconds.
    pub begins: SystemTime,
    /// The last, in whole seconds.
    pub expires: SystemTime,
}

impl Validity {
    /// How long the certificates of directors and agents are good.
    pub const LIFE: Duration = Duration::from_hours(7 * 24);
    /// How much the clock of a machine may be behind that of the authority.
    pub const SKEW: Duration = Duration::from_mins(5);

    /// That of directors and agents from now on.
    #[must_use]
    pub fn usual(now: SystemTime) -> Self {
        Self::lasting(now, Self::LIFE)
    }

    /// From now on for so long.
    #[must_use]
    pub fn lasting(now: SystemTime, life: Duration) -> Self {
        Self {
            begins: now - Self::SKEW,
            expires: now + life,
        }
    }
}

/// Where a director is reached, as its certificate says for clients that ask for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A DNS name.
    Name(String),
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(text).parse() {
            return Ok(Self::Ip(ip));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(format!("{text:?} is neither an address nor a host name"))
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Signs the certificates of one cluster.
pub struct Authority {
    trust: Trust,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.trust.cluster())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(cluster: ClusterId, now: SystemTime) -> Result<Self, Error> {
        let make = || -> Result<(String, KeyPair), rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(Vec::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.distinguished_name = common_name(format!("quorate cluster {cluster}"));
            params.subject_alt_names = vec![uri(authority_uri(cluster))?];
            params.serial_number = Some(serial());
            let validity = Validity::lasting(now, AUTHORITY_LIFE);
            (params.not_before, params.not_after) = dates(validity);
            Ok((params.self_signed(&key)?.pem(), key))
        };
        let (certificate, key) = make().map_err(Error::unusable("a new authority"))?;
        Self::of(Trust::from_pem(&certificate)?, key)
    }

    fn of(trust: Trust, key: KeyPair) -> Result<Self, Error> {
        let what = "the authority's certificate";
        let none = || Error::unusable(what)("there is none");
        let first = trust.first().ok_or_else(none)?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(Error::unusable(what))?;
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            let why = "it does not belong to the first certificate";
            return Err(Error::unusable("the authority's key")(why));
        }
        let key_pem = key.serialize_pem();
        let issuer = Issuer::from_ca_cert_der(first, key).map_err(Error::unusable(what))?;
        Ok(Self {
            trust,
            key_pem,
            issuer,
        })
    }

    /// Reads an authority from its folder.
    ///
    /// # Errors
    /// When it is not there, is not whole, or others may read its key.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let trust = Trust::load(&folder.join(TRUST))?;
        let path = folder.join(AUTHORITY_KEY);
        let key = KeyPair::from_pem(&files::read_private(&path)?)
            .map_err(Error::unusable(path.display().to_string()))?;
        Self::of(trust, key)
    }

    /// Writes it into a folder that has none yet.
    ///
    /// # Errors
    /// When the disk refuses, or the folder has an authority.
    pub fn store(&self, folder: &Path) -> Result<(), Error> {
        files::create(&folder.join(AUTHORITY_KEY), &self.key_pem, files::PRIVATE)?;
        files::create(&folder.join(TRUST), self.trust.pem(), files::PUBLIC)
    }

    /// Writes it into a folder over what is there: the same once more, after an interruption, or the next.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn store_over(&self, folder: &Path) -> Result<(), Error> {
        files::replace(&folder.join(AUTHORITY_KEY), &self.key_pem, files::PRIVATE)?;
        self.trust.store(&folder.join(TRUST))
    }

    /// What others are to trust.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// That of the certificate whose key signs.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.trust.fingerprint()
    }

    /// Signs the key of a request (PKCS #10, as PEM) for this identity, and answers the certificate as PEM.
    /// What the request asks for is not looked at, only that whoever sent it has the key. `hosts` are
    /// those of a director, and nobody else's.
    ///
    /// # Errors
    /// When the request cannot be read or is not signed with its own key, or the identity is one of another
    /// cluster.
    pub fn sign(
        &self,
        csr: &str,
        identity: &Identity,
        hosts: &[Host],
        validity: Validity,
    ) -> Result<String, Error> {
        let what = "the certificate request";
        if identity.cluster() != self.trust.cluster() {
            let why = format!("{identity} is of another cluster");
            return Err(Error::unusable(what)(why));
        }
        let request = read(csr)?;
        let make = || -> Result<String, rcgen::Error> {
            let params = params(identity, hosts, validity)?;
            let signed = params.signed_by(&request.public_key, &self.issuer)?;
            Ok(signed.pem())
        };
        make().map_err(Error::unusable(what))
    }

    /// Whether a request could be signed.
    ///
    /// # Errors
    /// When it cannot be read or is not signed with its own key.
    pub fn check(&self, csr: &str) -> Result<(), Error> {
        read(csr).map(|_request| ())
    }

    /// The key that signs, as PEM. Only another director may have it.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// An authority of its certificates and the key of the first, both as PEM.
    ///
    /// # Errors
    /// When they do not belong together.
    pub fn from_pem(trust: &str, key: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key).map_err(Error::unusable("the authority's key"))?;
        Self::of(Trust::from_pem(trust)?, key)
    }

    /// Makes a key here and signs it: papers for somebody on this machine.
    ///
    /// # Errors
    /// As [`sign`](Self::sign).
    pub fn papers(
        &self,
        identity: &Identity,
        hosts: &[Host],
        validity: Validity,
    ) -> Result<Papers, Error> {
        let request = Request::new()?;
        let chain = self.sign(request.csr(), identity, hosts, validity)?;
        request.complete(&chain)
    }
}

/// Reads a request; its signature proves that whoever made it has the key.
fn read(csr: &str) -> Result<CertificateSigningRequestParams, Error> {
    let what = "the certificate request";
    if csr.len() > CSR_BYTES_MAX {
        let why = format!(
            "it has {} bytes, at most {CSR_BYTES_MAX} are taken",
            csr.len()
        );
        return Err(Error::unusable(what)(why));
    }
    CertificateSigningRequestParams::from_pem(csr).map_err(Error::unusable(what))
}

/// All that a certificate says, of what we know and nothing that was asked for.
fn params(
    identity: &Identity,
    hosts: &[Host],
    validity: Validity,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = common_name(identity.name().to_owned());
    params.subject_alt_names = vec![uri(identity.uri())?];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(serial());
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = dates(validity);
    match identity.role() {
        Role::Director => {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            let name = Host::Name(DIRECTOR_DNS_NAME.to_owned());
            for host in std::iter::once(&name).chain(hosts) {
                params.subject_alt_names.push(match host {
                    Host::Ip(ip) => SanType::IpAddress(*ip),
                    Host::Name(name) => SanType::DnsName(Ia5String::try_from(name.as_str())?),
                });
            }
        }
        Role::Agent | Role::Person => {}
    }
    Ok(params)
}

fn common_name(name: String) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::CommonName, name);
    full
}

fn uri(text: String) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(Ia5String::try_from(text)?))
}

/// Random, so that no two certificates of an authority share one; positive, as the standard wants it.
fn serial() -> SerialNumber {
    let number = rand::random::<u128>() >> 1;
    SerialNumber::from_slice(&number.to_be_bytes())
}

fn dates(validity: Validity) -> (OffsetDateTime, OffsetDateTime) {
    (validity.begins.into(), validity.expires.into())
}
