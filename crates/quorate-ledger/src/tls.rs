//! TLS to a store: made of the files that an address names, and what went wrong with it in words.
//!
//! It must never trust anybody whom the address does not name, or the system where it names none.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::Cause;
use crate::address::Tls;
use crate::shared::OpenError;

/// What an address asks for; `None` is a client that speaks in the clear and so trusts nobody.
pub(crate) fn config(tls: Option<&Tls>) -> Result<ClientConfig, OpenError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Unfit(format!("TLS cannot be used here: {error}")))?;
    let Some(tls) = tls else {
        let nobody = RootCertStore::empty();
        return Ok(builder.with_root_certificates(nobody).with_no_client_auth());
    };
    let builder = builder.with_root_certificates(match &tls.ca {
        Some(file) => authorities_of(file)?,
        None => authorities_of_the_system()?,
    });
    let Some((certificate, key)) = &tls.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, Box::new(error)))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| unusable(key, Box::new(error)))
}

fn unusable(file: &Path, cause: Cause) -> OpenError {
    let file = file.to_owned();
    OpenError::File { file, cause }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| unusable(file, Box::new(error)))?;
    if found.is_empty() {
        return Err(unusable(file, "it has no certificate in PEM".into()));
    }
    Ok(found)
}

fn authorities_of(file: &Path) -> Result<RootCertStore, OpenError> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(file)? {
        authorities
            .add(certificate)
            .map_err(|error| unusable(file, Box::new(error)))?;
    }
    Ok(authorities)
}

fn authorities_of_the_system() -> Result<RootCertStore, OpenError> {
    let mut authorities = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Systems have authorities that are of no use to anybody; the others count.
    authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        return Err(OpenError::Unfit(String::from(
            "this machine has no certificates of authorities: name the one of the store with ca=FILE in the address",
        )));
    }
    Ok(authorities)
}

/// What is wrong, and the next step, if an error is one of TLS.
pub(crate) fn trouble(error: &(dyn Error + 'static)) -> Option<String> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else goes wrong in TLS is told as it is"
    )]
    Some(match find(error)? {
        rustls::Error::InvalidMessage(_) => String::from(
            "it does not speak TLS: leave tls, ca, cert and key out of the address, or turn TLS on in the store",
        ),
        rustls::Error::InvalidCertificate(reason) => of_certificate(reason),
        rustls::Error::AlertReceived(alert) if is_about_certificates(*alert) => format!(
            "it refused our certificate ({alert:?}): the address needs a cert and key that an authority of the store \
             has signed"
        ),
        other => format!("TLS failed: {other}"),
    })
}

fn of_certificate(reason: &CertificateError) -> String {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else is wrong with it is told as it is"
    )]
    match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => String::from(
            "its certificate is not signed by an authority that is trusted here: name the authority of the store with \
             ca=FILE in the address",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => String::from(
            "its certificate has expired, or the clock here is ahead: renew it, or set the clock",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            String::from("its certificate is not valid yet: the clock here or there is wrong")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            String::from(
                "its certificate is not for this name: write a host in the address as its certificate has it",
            )
        }
        other => format!("its certificate is not good: {other}"),
    }
}

/// Whether the other end has refused our certificate. In TLS 1.3 that is heard after the handshake, in place of an
/// answer; nothing of the request was read.
#[cfg(any(feature = "etcd", feature = "consul"))]
pub(crate) fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    matches!(find(error), Some(rustls::Error::AlertReceived(alert)) if is_about_certificates(*alert))
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

fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// An error and what it comes from, also what an error of I/O holds and hides from `source`.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        let held = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match held {
            Some(held) => Some(held as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}
