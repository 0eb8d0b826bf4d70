//! What lies on disk, and who may read it.

use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use quorate_pki::{
    AUTHORITY_KEY, Authority, ClientTls, Error, PAPERS, Papers, Request, Role, TRUST, Trust,
    Validity,
};

use crate::{CLUSTER, authority, identity, papers};

fn mode(path: &std::path::Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_is_read_as_it_was_written_and_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let made = authority();
    made.store(dir.path()).unwrap();
    assert_eq!(mode(&dir.path().join(AUTHORITY_KEY)), 0o600);
    let read = Authority::load(dir.path()).unwrap();
    assert_eq!(read.fingerprint(), made.fingerprint());
    assert_eq!(read.trust().cluster(), CLUSTER);
    // What it signs is trusted by those who trusted the first.
    let signed = papers(&read, Role::Director, "d1");
    ClientTls::new(made.trust(), Some(&signed)).unwrap();
    let again = authority().store(dir.path());
    assert!(matches!(again, Err(Error::Disk { .. })), "{again:?}");
    let kept = Authority::load(dir.path()).unwrap();
    assert_eq!(kept.fingerprint(), made.fingerprint());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let made = authority();
    made.store(dir.path()).unwrap();
    let own = dir.path().join(PAPERS);
    papers(&made, Role::Agent, "a1").store(&own).unwrap();
    assert_eq!(mode(&own), 0o600);
    for bits in [0o640, 0o604, 0o620, 0o601] {
        for path in [dir.path().join(AUTHORITY_KEY), own.clone()] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(bits)).unwrap();
        }
        let refused = Authority::load(dir.path()).unwrap_err();
        assert!(matches!(refused, Error::Exposed { mode, .. } if mode == bits));
        let refused = Papers::load(&own).unwrap_err();
        assert!(matches!(refused, Error::Exposed { mode, .. } if mode == bits));
    }
}

#[test]
fn papers_are_replaced_whole_even_over_a_draft_that_a_crash_left() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join(PAPERS);
    let made = authority();
    papers(&made, Role::Agent, "a1").store(&own).unwrap();
    std::fs::write(dir.path().join("papers.pem.new"), "half").unwrap();
    let second = papers(&made, Role::Agent, "a1");
    second.store(&own).unwrap();
    let read = Papers::load(&own).unwrap();
    assert_eq!(read.chain_pem(), second.chain_pem());
    assert_eq!(read.key_pem(), second.key_pem());
    assert_eq!(read.identity(), second.identity());
    assert!(!dir.path().join("papers.pem.new").exists());
}

#[test]
fn a_key_of_another_authority_is_told() {
    let dir = tempfile::tempdir().unwrap();
    authority().store(dir.path()).unwrap();
    authority().trust().store(&dir.path().join(TRUST)).unwrap();
    let refused = Authority::load(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("does not belong"), "{refused}");
}

#[test]
fn what_is_no_authority_of_one_cluster_is_not_trusted() {
    let made = authority();
    let other = Authority::new(quorate_core::ids::ClusterId(7), SystemTime::now()).unwrap();
    let director = papers(&made, Role::Director, "d1");
    let both = format!("{}{}", made.trust().pem(), other.trust().pem());
    for (bad, why) in [
        ("", "none in it"),
        ("nothing of the kind", "none in it"),
        (director.chain_pem(), "nobody's"),
        (&both, "different clusters"),
    ] {
        let refused = Trust::from_pem(bad).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn papers_say_in_words_whose_they_are_and_until_when() {
    let text = papers(&authority(), Role::Agent, "a1").to_string();
    let start = "agent \"a1\" of cluster 123456789abcdef0, valid until 20";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn a_request_that_is_kept_is_the_same_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("request.pem");
    let made = Request::kept(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let again = Request::kept(&path).unwrap();
    assert_eq!(again.csr(), made.csr());
    let authority = authority();
    let agent = identity(Role::Agent, "a1");
    let validity = Validity::usual(SystemTime::now());
    let signed = authority.sign(made.csr(), &agent, &[], validity).unwrap();
    assert_eq!(*again.complete(&signed).unwrap().identity(), agent);
    std::fs::write(&path, "something else").unwrap();
    assert!(Request::kept(&path).is_err());
    // A draft that was cut off in the middle is no file that is kept.
    let path = dir.path().join("next.pem");
    std::fs::write(dir.path().join("next.pem.new"), "-----BEGIN").unwrap();
    let made = Request::kept(&path).unwrap();
    assert_eq!(Request::kept(&path).unwrap().csr(), made.csr());
    assert!(!dir.path().join("next.pem.new").exists());
}

#[test]
fn an_authority_is_handed_on_as_text() {
    let made = authority();
    let trust = made.trust().pem();
    let taken = Authority::from_pem(trust, made.key_pem()).unwrap();
    assert_eq!(taken.fingerprint(), made.fingerprint());
    assert!(Authority::from_pem(trust, authority().key_pem()).is_err());
}
