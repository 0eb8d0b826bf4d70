//! TLS as a client meets it: whom to believe when nobody has said, and what went wrong in words.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

/// TLS that believes nobody. A director is known by the authority of its cluster and by nothing else, so
/// the authorities of the public web do not count.
///
/// # Panics
/// Never: the provider has TLS 1.3.
#[must_use]
pub fn distrusting() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// Why TLS came to nothing. In each case nothing was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The other end does not speak TLS.
    NotTls,
    /// Its certificate is not signed by an authority that is trusted here.
    Untrusted,
    /// Its certificate has ended, or the clock here is ahead.
    Expired,
    /// Its certificate is not valid yet, or the clock here is behind.
    NotYetValid,
    /// Its certificate is good and somebody else's: no director of the cluster.
    Stranger(String),
    /// It has refused the certificate that was shown to it.
    Refused(String),
    /// Anything else.
    Other(String),
}

impl Trouble {
    /// The trouble in an error, if it is one of TLS.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "whatever else goes wrong in TLS is told as it is"
        )]
        Some(match find(error)?.clone() {
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::InvalidCertificate(reason) => Self::of_certificate(&reason),
            rustls::Error::AlertReceived(alert) if is_about_certificates(alert) => {
                Self::Refused(format!("{alert:?}"))
            }
            other => Self::Other(other.to_string()),
        })
    }

    fn of_certificate(reason: &CertificateError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "whatever else is wrong with it is told as it is"
        )]
        match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Untrusted,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            // The reason of whoever made the configuration.
            CertificateError::Other(other) => Self::Stranger(other.0.to_string()),
            CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
            | CertificateError::InvalidPurpose
            | CertificateError::InvalidPurposeContext { .. } => {
                Self::Stranger(String::from("its certificate is not that of a director"))
            }
            other => Self::Other(other.to_string()),
        }
    }
}

/// Whether the other end has refused the certificate of this one. In TLS 1.3 that is heard after the
/// handshake, in place of an answer; nothing of the request was read.
pub(super) fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    matches!(Trouble::of(error), Some(Trouble::Refused(_)))
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    [
        AlertDescription::BadCertificate,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateUnknown,
        AlertDescription::UnknownCA,
        AlertDescription::AccessDenied,
        AlertDescription::DecryptError,
        AlertDescription::CertificateRequired,
    ]
    .contains(&alert)
}

/// An error of I/O hides the one that it holds from `source`.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let held = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}
