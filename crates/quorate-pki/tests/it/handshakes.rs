//! Handshakes over loopback: who gets through, and what the others hear.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quorate_core::ids::ClusterId;
use quorate_pki::{
    Authority, ClientTls, DIRECTOR_DNS_NAME, Identity, Papers, Role, ServerTls, Trust, Validity,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{CLUSTER, HOUR, authority, hosts, identity, papers};

/// A handshake on loopback ends within this time, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(20);

/// What each side saw: whom the server let in, whose certificate the client took.
struct Met {
    server: Result<Option<Identity>, String>,
    client: Result<CertificateDer<'static>, String>,
}

/// One connection, on which a byte goes each way.
async fn meet(server: &ServerTls, client: ClientConfig) -> Met {
    let (config, client) = (server.config(), client);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = async {
        let (socket, _) = listener.accept().await.map_err(text)?;
        let mut stream = TlsAcceptor::from(config)
            .accept(socket)
            .await
            .map_err(text)?;
        stream.write_all(b"x").await.map_err(text)?;
        stream.flush().await.map_err(text)?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(text)?;
        server
            .peer(stream.get_ref().1.peer_certificates())
            .map_err(text)
    };
    let connected = async {
        let socket = TcpStream::connect(address).await.map_err(text)?;
        // Reached by a name that stands in no certificate: the address proves nothing.
        let name = ServerName::try_from("somewhere.example").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let mut stream = connector.connect(name, socket).await.map_err(text)?;
        // A certificate that was refused is told with the first byte only.
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(text)?;
        stream.write_all(b"y").await.map_err(text)?;
        stream.flush().await.map_err(text)?;
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        Ok(shown.first().unwrap().clone().into_owned())
    };
    let both = async { tokio::join!(served, connected) };
    let (server, client) = tokio::time::timeout(LIMIT, both).await.unwrap();
    Met { server, client }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn client(trust: &Trust, papers: Option<&Papers>) -> ClientConfig {
    ClientTls::new(trust, papers).unwrap().config()
}

fn serving(authority: &Authority) -> ServerTls {
    let director = papers(authority, Role::Director, "d1");
    ServerTls::new(&director, authority.trust()).unwrap()
}

/// A client without our checks, which shows these papers whatever they say.
fn careless(authority: &Authority, papers: &Papers) -> ClientConfig {
    bare(authority.trust(), papers.chain_pem(), papers.key_pem())
}

fn bare(trust: &Trust, chain: &str, key: &str) -> ClientConfig {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap);
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(chain.collect(), key, &provider).unwrap();
    let mut config = client(trust, None);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    config
}

#[tokio::test]
async fn each_role_is_known_by_its_papers_and_nobody_without() {
    let made = authority();
    let server = serving(&made);
    for role in [Role::Director, Role::Agent, Role::Person] {
        let own = papers(&made, role, "x1");
        let met = meet(&server, client(made.trust(), Some(&own))).await;
        assert_eq!(met.server, Ok(Some(identity(role, "x1"))));
        assert!(met.client.is_ok(), "{:?}", met.client);
    }
    let met = meet(&server, client(made.trust(), None)).await;
    assert_eq!(met.server, Ok(None));
    assert!(met.client.is_ok(), "{:?}", met.client);
}

#[tokio::test]
async fn papers_that_are_not_good_are_refused_by_the_server() {
    let made = authority();
    let server = serving(&made);
    let now = SystemTime::now();
    let agent = identity(Role::Agent, "a1");
    let signed = |begins, expires| {
        let validity = Validity { begins, expires };
        careless(&made, &made.papers(&agent, &[], validity).unwrap())
    };
    // The same cluster, and another authority that calls itself by its name.
    let other = Authority::new(CLUSTER, now).unwrap();
    // An authority that was stolen or mixed up: it signs for another cluster than its own.
    let foreign = Authority::new(ClusterId(7), now).unwrap();
    let (chain, key) = self_signed(&agent.uri());
    let (nobody_chain, nobody_key) = self_signed("https://example");
    let cases = [
        ("expired", signed(now - 2 * HOUR, now - HOUR), "expired"),
        (
            "not yet valid",
            signed(now + HOUR, now + 2 * HOUR),
            "not valid yet",
        ),
        (
            "other authority",
            careless(&made, &papers(&other, Role::Agent, "a1")),
            "BadSignature|UnknownIssuer",
        ),
        (
            "other cluster",
            careless(&made, &papers(&foreign, Role::Agent, "a1")),
            "UnknownIssuer",
        ),
        (
            "self-signed",
            bare(made.trust(), &chain, &key),
            "UnknownIssuer",
        ),
        (
            "of nobody",
            bare(made.trust(), &nobody_chain, &nobody_key),
            "UnknownIssuer",
        ),
    ];
    for (name, config, reason) in cases {
        let met = meet(&server, config).await;
        let refused = met.server.unwrap_err();
        let told = reason.split('|').any(|reason| refused.contains(reason));
        assert!(told, "{name}: {refused}");
        assert!(met.client.is_err(), "{name}: the client must hear of it");
    }
}

#[tokio::test]
async fn a_certificate_of_the_authority_that_is_nobodys_is_refused() {
    let made = authority();
    let dir = tempfile::tempdir().unwrap();
    made.store(dir.path()).unwrap();
    let key = std::fs::read_to_string(dir.path().join(quorate_pki::AUTHORITY_KEY)).unwrap();
    let key = KeyPair::from_pem(&key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(made.trust().pem(), key).unwrap();
    let server = serving(&made);
    let both = [
        identity(Role::Agent, "a1").uri(),
        identity(Role::Agent, "a2").uri(),
    ];
    let elsewhere = Identity::new(ClusterId(7), Role::Agent, "a1").unwrap();
    for (uris, reason) in [
        (vec![], "Nobody"),
        (vec!["quorate://x/boss/me".to_owned()], "Unknown"),
        (both.to_vec(), "Several"),
        (vec![elsewhere.uri()], "OtherCluster"),
    ] {
        let own = KeyPair::generate().unwrap();
        let signed = params(&uris).signed_by(&own, &issuer).unwrap();
        let config = bare(made.trust(), &signed.pem(), &own.serialize_pem());
        let refused = meet(&server, config).await.server.unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}

#[tokio::test]
async fn a_client_takes_directors_of_its_cluster_only() {
    let made = authority();
    let now = SystemTime::now();
    let director = identity(Role::Director, "d1");
    let signed = |begins, expires| {
        let papers = made.papers(&director, &[], Validity { begins, expires });
        papers.unwrap()
    };
    let other = Authority::new(CLUSTER, now).unwrap();
    let foreign = Authority::new(ClusterId(7), now).unwrap();
    for (name, shown, reason) in [
        ("expired", signed(now - 2 * HOUR, now - HOUR), "expired"),
        (
            "not yet valid",
            signed(now + HOUR, now + 2 * HOUR),
            "not valid yet",
        ),
        ("other authority", papers(&other, Role::Director, "d1"), ""),
        (
            "other cluster",
            papers(&foreign, Role::Director, "d1"),
            "UnknownIssuer",
        ),
        // An agent or a person that poses as a director.
        ("agent", papers(&made, Role::Agent, "a1"), ""),
        ("person", papers(&made, Role::Person, "p1"), ""),
    ] {
        let met = meet_any(posing(&shown), client(made.trust(), None)).await;
        let refused = met.unwrap_err();
        assert!(refused.contains(reason), "{name}: {refused}");
    }
    let good = posing(&papers(&made, Role::Director, "d1"));
    meet_any(good, client(made.trust(), None)).await.unwrap();
}

#[tokio::test]
async fn renewed_papers_are_shown_from_the_next_connection_on() {
    let made = authority();
    let (first, second) = (
        papers(&made, Role::Director, "d1"),
        papers(&made, Role::Director, "d1"),
    );
    let server = ServerTls::new(&first, made.trust()).unwrap();
    let shown = |met: Met| met.client.unwrap().to_vec();
    let before = meet(&server, client(made.trust(), None)).await;
    assert_eq!(shown(before), der(&first));
    server.renew(&second, made.trust()).unwrap();
    let after = meet(&server, client(made.trust(), None)).await;
    assert_eq!(shown(after), der(&second));
    // Those of somebody else are refused, and what is in use stays.
    let strangers = papers(&made, Role::Director, "d2");
    server.renew(&strangers, made.trust()).unwrap_err();
    let agents = papers(&made, Role::Agent, "d1");
    server.renew(&agents, made.trust()).unwrap_err();
    let after = meet(&server, client(made.trust(), None)).await;
    assert_eq!(shown(after), der(&second));
}

#[tokio::test]
async fn a_client_shows_papers_that_it_got_or_renewed_later() {
    let made = authority();
    let server = serving(&made);
    let tls = ClientTls::new(made.trust(), None).unwrap();
    let config = tls.config();
    assert_eq!(meet(&server, config.clone()).await.server, Ok(None));
    tls.renew(&papers(&made, Role::Agent, "a1")).unwrap();
    let met = meet(&server, config.clone()).await;
    assert_eq!(met.server, Ok(Some(identity(Role::Agent, "a1"))));
    let foreign = Authority::new(ClusterId(7), SystemTime::now()).unwrap();
    tls.renew(&papers(&foreign, Role::Agent, "a1")).unwrap_err();
}

#[tokio::test]
async fn an_authority_is_exchanged_while_both_are_trusted() {
    let (old, new) = (authority(), authority());
    let both = format!("{}{}", new.trust().pem(), old.trust().pem());
    let both = Trust::from_pem(&both).unwrap();
    assert_eq!(both.fingerprint(), new.fingerprint());
    for (of_server, of_client) in [(&old, &new), (&new, &old), (&new, &new)] {
        let director = papers(of_server, Role::Director, "d1");
        let server = ServerTls::new(&director, &both).unwrap();
        let agent = papers(of_client, Role::Agent, "a1");
        let met = meet(&server, client(&both, Some(&agent))).await;
        assert_eq!(met.server, Ok(Some(identity(Role::Agent, "a1"))));
    }
    // Once the old one is gone, what it has signed is nothing.
    let server = ServerTls::new(&papers(&new, Role::Director, "d1"), new.trust()).unwrap();
    let agent = papers(&old, Role::Agent, "a1");
    let met = meet(&server, client(&both, Some(&agent))).await;
    assert!(met.server.is_err());
}

#[tokio::test]
async fn a_client_that_asks_for_the_address_takes_a_director_by_its_hosts() {
    let made = authority();
    let director = identity(Role::Director, "d1");
    let hosts = hosts(&["127.0.0.1", "d1.example"]);
    let validity = Validity::usual(SystemTime::now());
    let shown = made.papers(&director, &hosts, validity).unwrap();
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(made.trust().pem().as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let usual = Arc::new(config);
    for (name, good) in [
        ("127.0.0.1", true),
        ("d1.example", true),
        (DIRECTOR_DNS_NAME, true),
        ("127.0.0.2", false),
        ("evil.example", false),
    ] {
        let name = ServerName::try_from(name).unwrap();
        let met = connect(posing(&shown), Arc::clone(&usual), name.clone()).await;
        assert_eq!(met.is_ok(), good, "{name:?}: {met:?}");
    }
}

/// A server that shows whatever it has.
fn posing(papers: &Papers) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(papers.chain_pem().as_bytes());
    let key = PrivateKeyDer::from_pem_slice(papers.key_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key);
    Arc::new(config.unwrap())
}

async fn meet_any(server: Arc<ServerConfig>, client: ClientConfig) -> Result<(), String> {
    let name = ServerName::try_from("somewhere.example").unwrap();
    connect(server, Arc::new(client), name).await
}

async fn connect(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = async {
        let (socket, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(server).accept(socket).await.is_ok()
    };
    let connected = async {
        let socket = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(client);
        connector
            .connect(name, socket)
            .await
            .map(drop)
            .map_err(text)
    };
    let both = async { tokio::join!(served, connected) };
    tokio::time::timeout(LIMIT, both).await.unwrap().1
}

fn der(papers: &Papers) -> Vec<u8> {
    let first = CertificateDer::from_pem_slice(papers.chain_pem().as_bytes());
    first.unwrap().to_vec()
}

fn params(uris: &[String]) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["somebody".to_owned()]).unwrap();
    for uri in uris {
        let uri = uri.as_str().try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
    }
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn self_signed(uri: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let signed = params(&[uri.to_owned()]).self_signed(&key).unwrap();
    (signed.pem(), key.serialize_pem())
}

#[tokio::test]
async fn who_knows_the_hash_of_an_authority_takes_directors_of_that_one_alone() {
    let made = authority();
    let pinned = || ClientTls::pinned(made.fingerprint()).unwrap();
    let met = meet(&serving(&made), pinned()).await;
    assert!(met.client.is_ok(), "{:?}", met.client);
    assert_eq!(met.server, Ok(None));

    let other = Authority::new(CLUSTER, SystemTime::now()).unwrap();
    let met = meet(&serving(&other), pinned()).await;
    assert!(met.client.unwrap_err().contains("UnknownIssuer"));

    // A certificate is public: to show the right one proves nothing for who has another key.
    let impostor = papers(&other, Role::Director, "d1");
    let agent = papers(&made, Role::Agent, "a1");
    for (shown, refused) in [
        (&impostor, "BadSignature|UnknownIssuer"),
        (&agent, "server authentication"),
    ] {
        let chain = format!("{}{}", shown.chain_pem(), made.trust().pem());
        let met = meet_bare(&chain, shown.key_pem(), pinned()).await;
        let told = refused.split('|').any(|reason| met.contains(reason));
        assert!(told, "{met}");
    }
}

/// What a client says of a server that shows this chain and has this key.
async fn meet_bare(chain: &str, key: &str, client: ClientConfig) -> String {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap);
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.collect(), key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = async {
        let (socket, _) = listener.accept().await.unwrap();
        // It hears that it is refused, or nothing.
        drop(TlsAcceptor::from(Arc::new(config)).accept(socket).await);
    };
    let connected = async {
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("somewhere.example").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        connector.connect(name, socket).await.err().map(text)
    };
    let both = async { tokio::join!(served, connected).1 };
    let met = tokio::time::timeout(LIMIT, both).await.unwrap();
    met.expect("it is refused")
}
