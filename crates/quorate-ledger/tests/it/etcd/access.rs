//! Who may use the ledger, how it is known, and what else is below its prefix.

use std::path::{Path, PathBuf};

use quorate_core::ids::Position;
use quorate_ledger::Ledger;
use quorate_ledger::shared::{OpenError, SharedLedger};
use quorate_servers::etcd::{EtcdCluster, Options, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tokio::task::block_in_place;

use crate::support::long;

use super::support::{entries, fill, next, open, open_at, prefix, refusal, text, whole, within};

fn start(options: Options) -> Option<EtcdCluster> {
    Some(EtcdCluster::start_with(options)?.expect("it comes up"))
}

/// A user `ann` who may do on a prefix what a ledger does, and nothing else.
fn let_in(cluster: &mut EtcdCluster, prefix: &str) -> std::io::Result<()> {
    let below = format!("{prefix}/");
    cluster.etcdctl(&["role", "add", "ledger"])?;
    cluster.etcdctl(&[
        "role",
        "grant-permission",
        "ledger",
        "--prefix=true",
        "readwrite",
        &below,
    ])?;
    cluster.etcdctl(&["user", "add", "ann:s3cret"])?;
    cluster.etcdctl(&["user", "grant-role", "ann", "ledger"])?;
    cluster.turn_on_users("r00t")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_user_with_the_right_to_the_prefix_may_use_it() {
    // Passwords are not to cost much time here.
    let cheap = Options::members(1).argument("--bcrypt-cost=4");
    let Some(mut cluster) = start(cheap) else {
        return;
    };
    let (prefix, host) = (prefix(), cluster.hosts().swap_remove(0));
    let early = open(std::slice::from_ref(&host), &prefix);
    fill(&early, 1..=2).await;
    let said = refusal(&open_at(&format!("etcd://ann:s3cret@{host}/{prefix}")), 3).await;
    assert!(said.contains("auth enable"), "{said}");
    block_in_place(|| let_in(&mut cluster, &prefix)).expect("users are made");

    let ledger = open_at(&format!("etcd://ann:s3cret@{host}/{prefix}"));
    fill(&ledger, 3..=4).await;
    let saved = ledger.save_snapshot(Position(4), b"state".to_vec());
    within("a snapshot", saved).await.expect("it is kept");
    let another = open_at(&format!("etcd://ann:s3cret@{host}/{prefix}/another"));
    long::begins_and_moves(&another, 1).await;
    for (stranger, step) in [
        (format!("etcd://{host}/{prefix}"), "etcd://user@host"),
        (
            format!("etcd://ann:wr0ng@{host}/{prefix}"),
            "check the user",
        ),
        (
            format!("etcd://ben:wr0ng@{host}/{prefix}"),
            "check the user",
        ),
        (
            format!("etcd://ann:s3cret@{host}/{prefix}-not"),
            "readwrite",
        ),
    ] {
        let stranger = open_at(&stranger);
        let said = refusal(&stranger, 5).await;
        assert!(said.contains(step), "{said}");
        assert!(
            !said.contains("wr0ng") && !said.contains("s3cret"),
            "{said}"
        );
        let told = within("a tail", stranger.tail()).await;
        let said = whole(&told.expect_err("it may not"));
        assert!(said.contains(step), "{said}");
    }
    assert_eq!(next(&ledger).await, 5);

    // It forgets whom it knew, and is asked again.
    cluster.kill(0).expect("it runs");
    block_in_place(|| cluster.restart(0)).expect("it starts again");
    fill(&ledger, 5..=6).await;
    assert_eq!(entries(&ledger, 5, 2).await, [text(5), text(6)]);
}

/// An authority, and what it has signed.
struct Papers {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Papers {
    /// Of an authority of this name, in files of a folder.
    fn make(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("a certificate");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let mut params =
            CertificateParams::new(vec![String::from("127.0.0.1")]).expect("a certificate");
        // A member of etcd is a client, too: of itself, for its gateway.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &ca).expect("a certificate");
        let file = |what: &str, pem: String| {
            let file = folder.join(format!("{name}-{what}.pem"));
            std::fs::write(&file, pem).expect("it is written");
            file
        };
        Self {
            ca: file("ca", ca.pem()),
            certificate: file("certificate", certificate.pem()),
            key: file("key", key.serialize_pem()),
        }
    }

    fn tls(&self) -> Tls {
        Tls {
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            asks_clients: true,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_both_ends_must_be_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, others) = (
        Papers::make(folder.path(), "ours"),
        Papers::make(folder.path(), "others"),
    );
    let mut options = Options::members(1);
    options.tls = Some(ours.tls());
    let Some(cluster) = start(options) else {
        return;
    };
    let (prefix, host) = (prefix(), cluster.hosts().swap_remove(0));
    let identity = |papers: &Papers| {
        let (certificate, key) = (papers.certificate.display(), papers.key.display());
        format!("cert={certificate}&key={key}")
    };
    let at = |options: &str| open_at(&format!("etcd://{host}/{prefix}?{options}"));
    let ca = |papers: &Papers| format!("ca={}", papers.ca.display());

    let ledger = at(&format!("{}&{}", ca(&ours), identity(&ours)));
    fill(&ledger, 1..=3).await;
    assert_eq!(entries(&ledger, 1, 3).await, [text(1), text(2), text(3)]);
    for (options, step) in [
        (format!("{}&{}", ca(&others), identity(&ours)), "ca=FILE"),
        (ca(&ours), "cert and key"),
        (
            format!("{}&{}", ca(&ours), identity(&others)),
            "cert and key",
        ),
    ] {
        let said = refusal(&at(&options), 4).await;
        assert!(said.contains(step), "{options}: {said}");
    }
    // In the clear nothing is heard, and so nothing is certain.
    let clear = open(std::slice::from_ref(&host), &prefix);
    let told = within("a tail", clear.tail()).await;
    let said = whole(&told.expect_err("it does not understand"));
    assert!(said.contains("?tls=true"), "{said}");
    assert_eq!(next(&ledger).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_an_etcd_that_has_none_and_files_that_are_none_are_told() {
    let Some(cluster) = start(Options::members(1)) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let papers = Papers::make(folder.path(), "ours");
    let host = cluster.hosts().swap_remove(0);
    let address = format!("etcd://{host}/p?ca={}", papers.ca.display());
    let said = refusal(&open_at(&address), 1).await;
    assert!(said.contains("leave tls, ca"), "{said}");
    for (option, file) in [("ca", &papers.key), ("ca", &folder.path().join("none"))] {
        let address = format!("etcd://{host}/p?{option}={}", file.display());
        let refused = SharedLedger::open(&address.parse().expect("an address"));
        match refused.expect_err("it is no certificate") {
            OpenError::File { file: named, .. } => assert_eq!(&named, file),
            error @ OpenError::Unfit(_) => panic!("{error}"),
        }
    }
    let address = format!("etcd://ann@{host}/p").parse().expect("an address");
    let refused = SharedLedger::open(&address).expect_err("there is no password");
    assert!(whole(&refused).contains("password_file="), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_put_below_the_prefix_is_told_or_left_alone() {
    let Some(cluster) = start(Options::members(1)) else {
        return;
    };
    let prefix = prefix();
    let put = |key: &str, value: &str| {
        let key = format!("{prefix}/{key}");
        block_in_place(|| cluster.etcdctl(&["put", &key, value])).expect("it is put")
    };
    let ledger = open(&cluster.hosts(), &prefix);
    fill(&ledger, 1..=6).await;
    for key in [
        "entries/alien",
        "parts/alien",
        "parts/alien/1",
        "alien",
        "tailor",
    ] {
        put(key, "alien");
    }
    for next in [3, 5, 7] {
        let saved = ledger.save_snapshot(Position(next), b"state".to_vec());
        within("a snapshot", saved).await.expect("it is kept");
    }
    fill(&ledger, 7..=8).await;
    assert_eq!(entries(&ledger, 6, 3).await, [text(6), text(7), text(8)]);
    let left = block_in_place(|| cluster.etcdctl(&["get", "--prefix", "--keys-only", &prefix]));
    let left = left.expect("it answers");
    assert_eq!(left.matches("alien").count(), 4, "{left}");
    put("tail", "{}");
    let told = within("a tail", ledger.tail()).await;
    let said = whole(&told.expect_err("it is no tail"));
    assert!(said.contains("prefix used by something else"), "{said}");
}
