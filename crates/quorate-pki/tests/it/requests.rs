//! Requests, and what is signed of them: never what they ask for.

use std::time::{Duration, SystemTime};

use quorate_core::ids::ClusterId;
use quorate_pki::{Identity, Request, Role, Validity};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{HOUR, authority, hosts, identity};

#[test]
fn a_request_that_asks_for_more_gets_what_the_authority_says() {
    let made = authority();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["director.quorate.internal".to_owned()]).unwrap();
    let director = identity(Role::Director, "d1").uri();
    let uri = Ia5String::try_from(director.as_str()).unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    params.distinguished_name.push(DnType::CommonName, "d1");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let agent = identity(Role::Agent, "a1");
    let validity = Validity::usual(SystemTime::now());
    let signed = made.sign(&csr, &agent, &[], validity).unwrap();
    let papers = quorate_pki::Papers::from_pem(&format!("{}{signed}", key.serialize_pem()));
    let papers = papers.unwrap();
    assert_eq!(*papers.identity(), agent);
    assert_eq!(papers.hosts().unwrap(), []);
    let der = pem(&signed);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(!certificate.is_ca());
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1, "{names:?}");
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth, "{usage:?}");
    assert_eq!(certificate.subject().to_string(), "CN=a1");
}

#[test]
fn hosts_are_for_directors_only() {
    let made = authority();
    let hosts = hosts(&["10.0.0.1", "d1.example", "[fd00::1]"]);
    let validity = Validity::usual(SystemTime::now());
    let of = |role| {
        let papers = made.papers(&identity(role, "x"), &hosts, validity);
        papers.unwrap().hosts().unwrap()
    };
    assert_eq!(of(Role::Director), hosts);
    assert_eq!(of(Role::Agent), []);
    assert_eq!(of(Role::Person), []);
}

#[test]
fn a_request_that_its_key_did_not_sign_or_that_is_none_is_refused() {
    let made = authority();
    let agent = identity(Role::Agent, "a1");
    let validity = Validity::usual(SystemTime::now());
    let good = Request::new().unwrap().csr().to_owned();
    // The last bytes are the signature.
    let at = good.rfind("\n-----END").unwrap() - 12;
    let swapped = if good.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    let mut forged = good.clone();
    forged.replace_range(at..=at, swapped);
    let long = "x".repeat(1 << 20);
    for bad in ["", "nothing", &forged, &long, made.trust().pem()] {
        assert!(made.sign(bad, &agent, &[], validity).is_err());
    }
    made.sign(&good, &agent, &[], validity).unwrap();
}

#[test]
fn nobody_of_another_cluster_is_signed() {
    let stranger = Identity::new(ClusterId(7), Role::Agent, "a1").unwrap();
    let request = Request::new().unwrap();
    let validity = Validity::usual(SystemTime::now());
    let refused = authority().sign(request.csr(), &stranger, &[], validity);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("another cluster"), "{refused}");
}

#[test]
fn a_certificate_for_another_key_is_refused() {
    let made = authority();
    let agent = identity(Role::Agent, "a1");
    let validity = Validity::usual(SystemTime::now());
    let (mine, other) = (Request::new().unwrap(), Request::new().unwrap());
    let chain = made.sign(other.csr(), &agent, &[], validity).unwrap();
    mine.complete(&chain).unwrap_err();
    other.complete(&chain).unwrap();
}

#[test]
fn papers_are_good_from_before_now_for_seven_days_and_renewed_at_two_thirds() {
    let now = SystemTime::now();
    let made = authority();
    let agent = identity(Role::Agent, "a1");
    let papers = made.papers(&agent, &[], Validity::usual(now)).unwrap();
    let life = papers.expires().duration_since(now).unwrap();
    let day = 24 * HOUR;
    assert!(life <= 7 * day && life > 7 * day - Duration::from_secs(2));
    let left = papers.expires().duration_since(papers.renew_at()).unwrap();
    assert_eq!(left, (7 * day + Validity::SKEW) / 3);
    assert!(papers.is_good(now));
    // One whose clock was ahead has made them, or they are over.
    assert!(!papers.is_good(now - HOUR));
    assert!(!papers.is_good(papers.expires()));
}

fn pem(text: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(text.as_bytes());
    der.unwrap().to_vec()
}
