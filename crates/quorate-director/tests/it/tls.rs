//! The API over TLS: who gets in, what the others hear, and that no web page gets in by another name.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use quorate_api::client::{Client, Error, Options, Trouble};
use quorate_api::problem::{Code, Problem};
use quorate_core::ids::ClusterId;
use quorate_director::{Limits, RunError};
use quorate_ledger::memory::MemoryLedger;
use quorate_pki::{Authority, ClientTls, Identity, Papers, Role, ServerTls, Validity};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::desk::{CLUSTER, Desk, PATIENCE, config, http, until};
use crate::wire::{problem, raw};

/// A director behind TLS and who signs for it.
struct Secured {
    desk: Desk,
    authority: Authority,
    tls: Arc<ServerTls>,
}

impl Secured {
    async fn start(limits: Limits) -> Self {
        let authority = Authority::new(CLUSTER, SystemTime::now()).unwrap();
        let own = papers(&authority, Role::Director, "d1");
        let tls = Arc::new(ServerTls::new(&own, authority.trust()).unwrap());
        let folder = TempDir::new().unwrap();
        let mut config = config(&folder, limits);
        config.tls = Some(Arc::clone(&tls));
        let ledger = MemoryLedger::new();
        ledger.hint_leadership(Some(true));
        let client = ClientTls::new(authority.trust(), None).unwrap().config();
        let desk = Desk::reached(ledger, folder, config, Some(client)).await;
        Self {
            desk,
            authority,
            tls,
        }
    }

    /// A client that believes this authority and shows these papers.
    fn client(&self, authority: &Authority, own: Option<&Papers>) -> Client {
        let tls = ClientTls::new(authority.trust(), own).unwrap().config();
        self.with(Some(tls), &self.desk.address.to_string())
    }

    fn with(&self, tls: Option<rustls::ClientConfig>, address: &str) -> Client {
        let options = Options {
            tls,
            ..Options::default()
        };
        Client::with(vec![address.to_owned()], options).unwrap()
    }

    /// Sends bytes as they are through TLS, and reads everything until the director closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        // How it closes is its affair.
        let _ = read.expect("the director answers and closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let tls = ClientTls::new(self.authority.trust(), None).unwrap();
        let connector = TlsConnector::from(Arc::new(tls.config()));
        let socket = TcpStream::connect(self.desk.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, socket).await.unwrap()
    }
}

fn papers(authority: &Authority, role: Role, name: &str) -> Papers {
    let validity = Validity::usual(SystemTime::now());
    signed(authority, role, name, validity)
}

fn signed(authority: &Authority, role: Role, name: &str, validity: Validity) -> Papers {
    let identity = Identity::new(authority.trust().cluster(), role, name).unwrap();
    authority.papers(&identity, &[], validity).unwrap()
}

fn trouble(answer: Result<impl std::fmt::Debug, Error>) -> Option<Trouble> {
    answer.unwrap_err().tls()
}

#[tokio::test]
async fn it_serves_clients_with_papers_of_any_role_and_without() {
    let secured = Secured::start(Limits::default()).await;
    for role in [Role::Director, Role::Agent, Role::Person] {
        let own = papers(&secured.authority, role, "x1");
        let client = secured.client(&secured.authority, Some(&own));
        assert_eq!(client.directors().await.unwrap().value.len(), 1);
    }
    secured.desk.client.directors().await.unwrap();
    secured.desk.stop().await;
}

#[tokio::test]
async fn tls_alone_opens_nothing_beyond_loopback() {
    let authority = Authority::new(CLUSTER, SystemTime::now()).unwrap();
    let own = papers(&authority, Role::Director, "d1");
    let folder = TempDir::new().unwrap();
    let mut config = config(&folder, Limits::default());
    config.tls = Some(Arc::new(ServerTls::new(&own, authority.trust()).unwrap()));
    config.listen = "0.0.0.0:0".parse().unwrap();
    let refused = quorate_director::bind(config).await.unwrap_err();
    assert!(matches!(refused, RunError::NotLoopback { .. }));
}

#[tokio::test]
async fn papers_that_are_not_good_are_refused_and_nothing_is_done() {
    let secured = Secured::start(Limits::default()).await;
    let now = SystemTime::now();
    let hour = Duration::from_hours(1);
    let over = Validity {
        begins: now - 2 * hour,
        expires: now - hour,
    };
    let expired = signed(&secured.authority, Role::Agent, "a1", over);
    let client = secured.client(&secured.authority, Some(&expired));
    // A write, whose outcome is known all the same.
    for _ in 0..3 {
        let refused = trouble(client.drain("a1").await);
        assert!(matches!(refused, Some(Trouble::Refused(_))), "{refused:?}");
    }
    secured.desk.stop().await;
}

#[tokio::test]
async fn a_client_that_knows_another_authority_or_none_hears_that() {
    let secured = Secured::start(Limits::default()).await;
    for cluster in [CLUSTER, ClusterId(7)] {
        let other = Authority::new(cluster, SystemTime::now()).unwrap();
        let client = secured.client(&other, None);
        assert_eq!(trouble(client.directors().await), Some(Trouble::Untrusted));
    }
    let address = format!("https://{}", secured.desk.address);
    let client = secured.with(None, &address);
    assert_eq!(trouble(client.directors().await), Some(Trouble::Untrusted));
    secured.desk.stop().await;
}

#[tokio::test]
async fn plain_http_at_a_port_of_tls_and_tls_at_one_of_http_are_told() {
    let secured = Secured::start(Limits::default()).await;
    let address = format!("http://{}", secured.desk.address);
    let answer = http().get(format!("{address}/v1/agents")).send().await;
    let told = problem(answer.unwrap()).await;
    assert_eq!(told.code, Code::TlsRequired);
    assert_eq!(told.detail, "this port speaks TLS");
    assert!(told.next_step.unwrap().contains("https://"));
    let client = secured.with(None, &address);
    let refused = client.drain("a1").await.unwrap_err();
    let told = refused
        .problem()
        .map(|problem: &Problem| problem.detail.as_str());
    assert_eq!(told, Some("this port speaks TLS"));
    let plain = Desk::start().await;
    let client = secured.with(None, &format!("https://{}", plain.address));
    assert_eq!(trouble(client.drain("a1").await), Some(Trouble::NotTls));
    plain.stop().await;
    secured.desk.stop().await;
}

#[tokio::test]
async fn whoever_does_not_shake_hands_is_cut_off_and_has_a_place_until_then() {
    let secured = Secured::start(Limits {
        handshake_time: Duration::from_millis(500),
        connections_of_loopback: Some(2),
        ..Limits::default()
    })
    .await;
    let address = secured.desk.address;
    // The own client's connection and this one are all that an address may have.
    let mut silent = TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    // The first bytes of a handshake that never goes on.
    silent.write_all(&[0x16, 3, 1, 2]).await.unwrap();
    until("an address has as many connections as it may", async || {
        let mut third = TcpStream::connect(address).await.unwrap();
        matches!(third.read(&mut [0]).await, Ok(0) | Err(_)) && begun.elapsed() < PATIENCE
    })
    .await;
    let cut = tokio::time::timeout(PATIENCE, silent.read(&mut [0])).await;
    assert!(matches!(cut.expect("it is cut off"), Ok(0) | Err(_)));
    assert!(begun.elapsed() >= Duration::from_millis(500));
    until("its place is free", async || {
        let client = secured.client(&secured.authority, None);
        client.directors().await.is_ok()
    })
    .await;
    secured.desk.stop().await;
}

#[tokio::test]
async fn renewed_papers_are_shown_from_the_next_connection_on() {
    let secured = Secured::start(Limits::default()).await;
    let shown = |stream: tokio_rustls::client::TlsStream<TcpStream>| {
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        chain.first().unwrap().to_vec()
    };
    let before = shown(secured.connect().await);
    assert_eq!(shown(secured.connect().await), before);
    let renewed = papers(&secured.authority, Role::Director, "d1");
    // One that is open goes on.
    let mut open = secured.connect().await;
    let trust = secured.authority.trust();
    secured.tls.renew(&renewed, trust).unwrap();
    assert_ne!(shown(secured.connect().await), before);
    let request = b"GET /livez HTTP/1.1\r\nHost: d1\r\nConnection: close\r\n\r\n";
    open.write_all(request).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, open.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    secured.desk.stop().await;
}

#[tokio::test]
async fn any_name_is_served_that_the_certificate_was_asked_for_and_no_page_of_another_site_writes()
{
    let secured = Secured::start(Limits::default()).await;
    let ask = |method: &str, headers: &str| {
        format!(
            "{method} /v1/agents/a1/drain HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
        )
    };
    // Without TLS this would be a rebound name; here no browser gets so far.
    let named = "Host: d1.example:7400\r\n";
    let served = secured.raw(&ask("POST", named)).await;
    assert!(served.starts_with("HTTP/1.1 404"), "{served}");
    for (origin, taken) in [
        ("https://d1.example:7400", true),
        ("http://d1.example:7400", false),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let headers = format!("{named}Origin: {origin}\r\n");
        let answer = secured.raw(&ask("POST", &headers)).await;
        let expected = if taken {
            "HTTP/1.1 404"
        } else {
            "HTTP/1.1 403"
        };
        assert!(answer.starts_with(expected), "{origin}: {answer}");
    }
    let two = secured.raw(&ask("POST", "Host: a\r\nHost: b\r\n")).await;
    assert!(two.starts_with("HTTP/1.1 400"), "{two}");
    // And without TLS it is refused as ever.
    let plain = Desk::start().await;
    let answer = raw(&plain, ask("POST", named).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    plain.stop().await;
    secured.desk.stop().await;
}

#[tokio::test]
async fn an_agent_with_papers_keeps_its_place_although_it_has_not_spoken() {
    // Room for the own client in places of anybody, and few for sessions.
    let secured = Secured::start(Limits {
        connections: 8,
        session_percent: 50,
        ..Limits::default()
    })
    .await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(secured.connect().await);
    }
    let agent = papers(&secured.authority, Role::Agent, "a1");
    let tls = ClientTls::new(secured.authority.trust(), Some(&agent)).unwrap();
    let connector = TlsConnector::from(Arc::new(tls.config()));
    let socket = TcpStream::connect(secured.desk.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut own = connector.connect(name, socket).await.unwrap();
    // Whoever comes now and says nothing makes way for the next one; the agent does not.
    for _ in 0..12 {
        others.push(secured.connect().await);
    }
    let request = b"GET /v1/sessions/1/work HTTP/1.1\r\nHost: d1\r\nConnection: close\r\n\r\n";
    own.write_all(request).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, own.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    drop(others);
    secured.desk.stop().await;
}
