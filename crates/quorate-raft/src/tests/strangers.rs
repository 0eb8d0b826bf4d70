//! Who is not let in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::VoteRequest;
use quorate_ledger::Ledger;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::cluster::{Cluster, PATIENCE, until};
use super::papers::Authority;
use crate::peer::{Answer, Append, Ballot, Client, Configs, Request, Target, Tls, Us};
use crate::types::{Member, Vote, log_id};
use crate::{DIRECTOR_DNS_NAME, Embedded, OpenError, PeerTls};

/// A vote that would depose the leader, if it were let in.
fn coup(from: u64) -> Request {
    let mut request = VoteRequest::new(Vote::new(1_000_000, from), Some(log_id(999_999, 9999)));
    request.leadership_transfer = true;
    Request::Vote(Ballot::from(request))
}

/// Asks a director for it with these papers and claims, and gives the answer.
async fn ask(
    ledger: &Embedded,
    us: Us,
    papers: &PeerTls,
    to: u64,
    request: &Request,
) -> Result<Answer, String> {
    let configs = Configs::new(papers, us.cluster, &us.name).unwrap();
    let client = Client::new(us, Arc::new(Tls::new(configs)), None);
    let target = Target {
        id: to,
        member: Member {
            name: "d1".to_owned(),
            address: ledger.peer_address().unwrap().to_string(),
        },
    };
    client.ask(&target, request, PATIENCE).await
}

fn us(cluster: u64, node: u64, name: &str) -> Us {
    Us {
        cluster,
        node,
        name: name.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_the_director_that_it_must_be_is_told_why_and_granted_nothing() {
    let cluster = Cluster::of(3).await;
    cluster.fill(3).await;
    let ledger = cluster.ledger(0);
    let before = cluster.term(0);
    let (id, first, second) = (cluster.id, cluster.nodes[0].id, cluster.nodes[1].id);
    let ours = &cluster.authority;
    let second_papers = ours.director(id, "d2");
    let theirs = Authority::new();
    let mixed = |mut papers: PeerTls, by: &Authority| {
        papers.authority = by.director(id, "d1").authority;
        papers
    };
    let cases = [
        (
            us(id, second, "d2"),
            second_papers.clone(),
            second,
            "one folder was made anew",
        ),
        (
            us(id, second, "d3"),
            ours.director(id, "d3"),
            first,
            "is that of director \"d2\"",
        ),
        (
            us(id, 4242, "d3"),
            ours.director(id, "d3"),
            first,
            "has a new folder",
        ),
        (
            us(id + 1, second, "d2"),
            ours.director(id + 1, "d2"),
            first,
            "not for a director",
        ),
        (
            us(id, second, "d2"),
            theirs.director(id, "d2"),
            first,
            "invalid peer certificate",
        ),
        (
            us(id, second, "d2"),
            mixed(theirs.director(id, "d2"), ours),
            first,
            "",
        ),
    ];
    for (us, papers, to, why) in cases {
        let claim = format!("{us:?}");
        let refused = ask(&ledger, us, &papers, to, &coup(second))
            .await
            .unwrap_err();
        assert!(refused.contains(why), "{claim}: {refused}");
    }
    // Nor does a director speak for another.
    let third = cluster.nodes[2].id;
    let append = openraft::raft::AppendEntriesRequest {
        vote: Vote::new_committed(1_000_000, third),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    for request in [coup(third), Request::Append(Append::from(append))] {
        let us = us(id, second, "d2");
        let answer = ask(&ledger, us, &second_papers, first, &request).await;
        let refused =
            matches!(&answer, Ok(Answer::Failed(why)) if why.contains("cannot speak for"));
        assert!(refused, "{answer:?}");
    }
    assert_eq!(cluster.term(0), before, "nothing was granted");
    let last = cluster.fill(1).await;
    cluster.check(&[0, 1, 2], last).await;
}

/// Whether the other side ends the connection, without another word than TLS has.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    ended.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_no_certificate_or_does_not_speak_tls_is_shut_out() {
    let cluster = Cluster::found().await;
    let ledger = cluster.ledger(0);
    let address = ledger.peer_address().unwrap();
    for words in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        b"\x00\x00\x00\x05hello",
        &[0xff; 4096],
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(words).await.unwrap();
        assert!(is_closed(&mut stream).await);
    }
    // TLS, the right authority, but nothing to show.
    let papers = cluster.authority.director(cluster.id, "d2");
    let mut roots = rustls::RootCertStore::empty();
    let authority = rustls::pki_types::pem::PemObject::from_pem_slice(&papers.authority);
    roots.add(authority.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let nobody = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(DIRECTOR_DNS_NAME).unwrap();
    let connected = TlsConnector::from(Arc::new(nobody))
        .connect(name, socket)
        .await;
    let told = match connected {
        // In TLS 1.3 the refusal comes after the client thinks that it is through.
        Ok(mut stream) => stream.read_u32().await.map(drop),
        Err(error) => Err(error),
    };
    assert!(told.is_err(), "it was let in");
    ledger.tail().await.unwrap();
}

/// Connects as a director and sends these bytes in place of what should come.
async fn say(cluster: &Cluster, address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let configs = Configs::new(
        &cluster.authority.director(cluster.id, "d2"),
        cluster.id,
        "d2",
    );
    let connector = TlsConnector::from(configs.unwrap().client);
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(DIRECTOR_DNS_NAME).unwrap();
    let mut stream = connector.connect(name, socket).await?;
    stream.write_all(bytes).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    match read.expect("it is closed") {
        Ok(_) | Err(_) => Ok(answer),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_that_talks_nonsense_is_cut_off() {
    let cluster = Cluster::found().await;
    let ledger = cluster.ledger(0);
    let address = ledger.peer_address().unwrap();
    let nonsense: [&[u8]; 4] = [
        &u32::MAX.to_be_bytes(),
        &[0, 0, 0x20, 0],
        &[0, 0, 0, 4, 0xc1, 0xc1, 0xc1, 0xc1],
        &[0, 0, 0, 0],
    ];
    for bytes in nonsense {
        let answer = say(&cluster, address, bytes).await.unwrap();
        assert!(answer.is_empty(), "{answer:?}");
    }
    // A version that is not spoken is told so.
    let hello = rmp_serde::to_vec_named(&crate::peer::Hello {
        greeting: crate::peer::GREETING.to_owned(),
        oldest: 7,
        newest: 9,
        cluster: cluster.id,
        from: 42,
        to: cluster.nodes[0].id,
        empty: false,
    })
    .unwrap();
    let mut frame = u32::try_from(hello.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(hello);
    let answer = say(&cluster, address, &frame).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("it speaks versions 7 to 9"), "{answer}");
    ledger.tail().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_only_hold_connections_are_dropped_and_keep_no_director_out() {
    let mut cluster = Cluster::found().await;
    let address = cluster.ledger(0).peer_address().unwrap();
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    // Others come from other addresses and are served.
    let began = std::time::Instant::now();
    cluster.join().await;
    let last = cluster.fill(1).await;
    cluster.check(&[0, 1], last).await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "{took:?}: less than strangers are waited for"
    );
    for mut stream in held {
        assert!(is_closed(&mut stream).await, "each is dropped in the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn papers_that_the_others_would_refuse_are_refused_before() {
    let cluster = Cluster::found().await;
    let ledger = cluster.ledger(0);
    let authority = &cluster.authority;
    let garbage = PeerTls {
        chain: b"nothing".to_vec(),
        ..authority.director(cluster.id, "d1")
    };
    let other_key = PeerTls {
        key: authority.director(cluster.id, "d1").key,
        ..authority.director(cluster.id, "d1")
    };
    for papers in [
        garbage,
        other_key,
        authority.director(cluster.id, "d2"),
        authority.director(cluster.id + 1, "d1"),
        authority.sign(&format!("quorate://{:016x}/agent/d1", cluster.id)),
        authority.sign("https://example.org/"),
        authority.sign(&format!("quorate://{:016x}/director/d1/", cluster.id)),
        authority.sign(&format!("quorate://{:016x}/director/d1/x", cluster.id)),
        authority.sign(&format!("quorate://{:016x}/director/d1/1/2", cluster.id)),
    ] {
        let refused = ledger.renew_certificate(&papers);
        assert!(
            matches!(refused, Err(OpenError::Certificate(_))),
            "{refused:?}"
        );
    }
    // It may say where in the ledger it was let in.
    let joined = authority.sign(&format!("quorate://{:016x}/director/d1/12", cluster.id));
    ledger.renew_certificate(&joined).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_while_the_quorum_works() {
    let mut cluster = Cluster::of(3).await;
    cluster.fill(2).await;
    let old = cluster.authority.director(cluster.id, "d1").authority;
    // The new authority is trusted beside the old one first, then everybody gets papers of it.
    let next = Authority::new();
    let both = [old, next.director(cluster.id, "d1").authority].concat();
    for (authority, trusted) in [(&cluster.authority, &both), (&next, &both)] {
        for number in 0..3 {
            let name = cluster.nodes[number].name.as_str();
            let mut papers = authority.director(cluster.id, name);
            papers.authority.clone_from(trusted);
            cluster.ledger(number).renew_certificate(&papers).unwrap();
        }
        let last = cluster.fill(2).await;
        cluster.check(&[0, 1, 2], last).await;
    }
    for number in 0..3 {
        let papers = next.director(cluster.id, cluster.nodes[number].name.as_str());
        cluster.ledger(number).renew_certificate(&papers).unwrap();
    }
    let last = cluster.fill(2).await;
    cluster.check(&[0, 1, 2], last).await;
    // Who still has papers of the old one is out.
    let lost = (cluster.leader().await + 1) % 3;
    let papers = cluster
        .authority
        .director(cluster.id, cluster.nodes[lost].name.as_str());
    cluster.ledger(lost).renew_certificate(&papers).unwrap();
    cluster.stop(lost).await;
    cluster.start(lost).await;
    let ledger = cluster.ledger(lost);
    assert!(ledger.tail().await.is_err(), "nobody answers it");
    cluster.authority = next;
    drop(ledger);
    cluster.stop(lost).await;
    cluster.start(lost).await;
    let last = until("all are back", async || Some(cluster.fill(1).await)).await;
    cluster.check(&[0, 1, 2], last).await;
}
