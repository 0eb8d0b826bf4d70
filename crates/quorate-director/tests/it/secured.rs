//! Three directors that ask everybody who he is, over TLS: what is proven at one counts at the next, and
//! nothing else does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use quorate_api::access::{CertificateRequest, EnrolRequest, JoinTokenRequest};
use quorate_api::client::{Client, Error, Options};
use quorate_api::problem::Code;
use quorate_api::routes::{RELAYED_FOR_HEADER, RELAYED_FROM_HEADER, RELAYED_HEADER};
use quorate_api::session::CloseRequest;
use quorate_core::ids::TokenName;
use quorate_director::{Limits, write_bootstrap_token};
use quorate_ledger::Leader;
use quorate_ledger::memory::MemoryLedger;
use quorate_pki::{Authority, ClientTls, Identity, Papers, Request, Role, ServerTls, Validity};
use tempfile::TempDir;

use crate::desk::{CLUSTER, Desk, Worker, named, registration, until};
use crate::sessions::renewal;

/// Directors `d1` to `d3`, of which the first leads, and their first admin.
struct Secured {
    desks: Vec<Desk>,
    authority: Arc<Authority>,
    admin_token: String,
}

impl Secured {
    async fn start() -> Self {
        let authority = Authority::new(CLUSTER, SystemTime::now()).unwrap();
        let authority = Arc::new(authority);
        let ledger = MemoryLedger::new();
        let mut desks = Vec::new();
        let mut admin_token = String::new();
        for at in 0..3 {
            let ledger = ledger.another();
            let leader = Leader {
                name: "d1".to_owned(),
                address: String::new(),
            };
            ledger.hint_leader(at == 0, Some(leader));
            let folder = TempDir::new().unwrap();
            let name = format!("d{}", at + 1);
            let mut config = named(&name, &folder, Limits::default());
            if at == 0 {
                let first = TokenName::new("the first").unwrap();
                admin_token = write_bootstrap_token(&config.data_dir, first).unwrap();
            }
            let own = papers(&authority, Role::Director, &name);
            let tls = ServerTls::new(&own, authority.trust()).unwrap();
            config.tls = Some(Arc::new(tls));
            config.to_directors = Some(ClientTls::new(authority.trust(), Some(&own)).unwrap());
            config.authority = Some(Arc::clone(&authority));
            config.authentication = true;
            let client = ClientTls::new(authority.trust(), None).unwrap().config();
            desks.push(Desk::reached(ledger, folder, config, Some(client)).await);
        }
        let secured = Self {
            desks,
            authority,
            admin_token,
        };
        for at in 0..3 {
            let admin = secured.admin(at);
            until("the first token counts everywhere", async || {
                admin.services(None).await.is_ok()
            })
            .await;
        }
        secured
    }

    /// A client of one director that shows these papers and this token.
    fn client(&self, at: usize, own: Option<&Papers>, token: Option<&str>) -> Client {
        let tls = ClientTls::new(self.authority.trust(), own).unwrap();
        let options = Options {
            token: token.map(str::to_owned),
            tls: Some(tls.config()),
            ..Options::default()
        };
        let desk = self.desks.get(at).unwrap();
        Client::with(vec![desk.address.to_string()], options).unwrap()
    }

    fn admin(&self, at: usize) -> Client {
        self.client(at, None, Some(&self.admin_token))
    }

    fn machine(&self, at: usize, role: Role, name: &str) -> Client {
        let own = papers(&self.authority, role, name);
        self.client(at, Some(&own), None)
    }

    async fn stop(self) {
        for desk in self.desks.into_iter().rev() {
            desk.stop().await;
        }
    }
}

fn papers(authority: &Authority, role: Role, name: &str) -> Papers {
    let identity = Identity::new(CLUSTER, role, name).unwrap();
    let validity = Validity::usual(SystemTime::now());
    authority.papers(&identity, &[], validity).unwrap()
}

#[track_caller]
fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> Code {
    match answer {
        Err(Error::Problem(problem)) => problem.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_is_who_its_certificate_says_at_any_director() {
    let secured = Secured::start().await;
    for at in [1, 0, 2] {
        let name = format!("a{at}");
        let client = secured.machine(at, Role::Agent, &name);
        let request = registration(&name, 10_000);
        let opened = client.register(&request).await.unwrap();
        let worker = Worker {
            client,
            secret: request.secret,
            opened,
        };
        let session = worker.opened.session;
        let renewed = worker
            .client
            .renew(session, &worker.secret, &renewal(&worker, 1))
            .await;
        assert_eq!(renewed.unwrap().renewed, [session], "at director {at}");
        let other = worker.client.register(&registration("other", 10_000)).await;
        assert_eq!(code(other), Code::Forbidden, "at director {at}");
    }
    let stranger = secured.client(1, None, None);
    let refused = stranger.register(&registration("a9", 10_000)).await;
    assert_eq!(code(refused), Code::Unauthenticated);
    // A director's certificate registers nobody, neither here nor passed on.
    for at in [0, 1] {
        let director = secured.machine(at, Role::Director, "d2");
        let refused = director.register(&registration("a9", 10_000)).await;
        assert_eq!(code(refused), Code::Forbidden);
    }
    secured.admin(2).cordon("a1").await.unwrap();
    let audit = secured.admin(0).audit().await.unwrap();
    let last = audit.entries.last().unwrap();
    assert!(last.by.contains("the first"), "{}", last.by);
    secured.stop().await;
}

#[tokio::test]
async fn the_word_of_a_director_is_believed_and_nobody_elses() {
    let secured = Secured::start().await;
    let ask = async |sender: Option<&Papers>| {
        let tls = ClientTls::new(secured.authority.trust(), sender).unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls.config())
            .build()
            .unwrap();
        let url = format!("https://{}/v1/sessions", secured.desks[0].address);
        let asked = http
            .post(url)
            .header(RELAYED_HEADER, "d2")
            .header(RELAYED_FOR_HEADER, "agent/a7/0")
            .header(RELAYED_FROM_HEADER, "10.9.8.7")
            .json(&registration("a7", 10_000));
        asked.send().await.unwrap().status().as_u16()
    };
    let agent = papers(&secured.authority, Role::Agent, "a8");
    let person = papers(&secured.authority, Role::Person, "a7");
    assert_eq!(ask(None).await, 401);
    assert_eq!(ask(Some(&agent)).await, 403);
    assert_eq!(ask(Some(&person)).await, 401);
    let director = papers(&secured.authority, Role::Director, "d2");
    assert_eq!(ask(Some(&director)).await, 200);
    secured.stop().await;
}

#[tokio::test]
async fn a_machine_gets_its_next_certificate_as_long_as_it_belongs_to_the_cluster() {
    let secured = Secured::start().await;
    let admin = secured.admin(0);
    let agent = secured.machine(1, Role::Agent, "a1");
    let ask = async |client: &Client| {
        let kept = Request::new().unwrap();
        let csr = kept.csr().to_owned();
        let answer = client.renew_certificate(&CertificateRequest { csr }).await;
        answer.map(|signed| kept.complete(&signed.certificate).unwrap())
    };
    assert_eq!(code(ask(&agent).await), Code::Forbidden, "nobody knows it");
    let opened = agent.register(&registration("a1", 10_000)).await.unwrap();
    let next = ask(&agent).await.unwrap();
    assert_eq!(
        next.identity().uri(),
        papers(&secured.authority, Role::Agent, "a1")
            .identity()
            .uri()
    );
    let again = secured.client(2, Some(&next), None);
    ask(&again).await.unwrap();

    // Gone and forgotten: it is over with the certificate that it has.
    let secret = registration("a1", 10_000).secret;
    let closing = CloseRequest {
        incarnation: Some(opened.incarnation),
        reason: "left".to_owned(),
    };
    let closed = agent.close(opened.session, &secret, &closing).await;
    closed.unwrap();
    until("it is forgotten", async || {
        admin.forget_agent("a1").await.is_ok()
    })
    .await;
    for at in 0..3 {
        // Nothing of it counts any more, at no director: neither the next nor a session.
        let forgotten = secured.client(at, Some(&next), None);
        until("the forgetting is known everywhere", async || {
            ask(&forgotten).await.is_err()
        })
        .await;
        assert_eq!(code(ask(&forgotten).await), Code::Forbidden);
        let back = forgotten.register(&registration("a1", 10_000)).await;
        assert_eq!(code(back), Code::Forbidden);
    }

    assert_eq!(code(ask(&admin).await), Code::Forbidden, "no machine");
    until("a director is known", async || {
        ask(&secured.machine(1, Role::Director, "d3")).await.is_ok()
    })
    .await;
    secured.stop().await;
}

#[tokio::test]
async fn who_was_forgotten_comes_back_by_a_join_token_and_under_a_new_certificate_alone() {
    let secured = Secured::start().await;
    let admin = secured.admin(0);
    let token = admin
        .create_join_token(&JoinTokenRequest {
            role: "agent".to_owned(),
            uses: Some(3),
            ttl: None,
        })
        .await
        .unwrap();
    let own = registration("a1", 10_000).machine_id;
    let join = async |csr: &str| {
        let request = EnrolRequest {
            join_token: token.token.clone(),
            name: "a1".to_owned(),
            csr: csr.to_owned(),
            machine_id: Some(own.clone()),
        };
        secured.client(0, None, None).enrol(&request).await
    };
    let left = async || {
        let tokens = admin.join_tokens().await.unwrap().value;
        tokens.first().unwrap().left
    };
    let request = Request::new().unwrap();
    let asked = request.csr().to_owned();
    let first = join(&asked).await.unwrap();
    let first = request.complete(&first.certificate).unwrap();
    let live = secured.client(0, Some(&first), None);
    let opened = live.register(&registration("a1", 10_000)).await.unwrap();
    // The same machine is alive: nobody takes its place, but a repeated request is answered again.
    join(&asked).await.unwrap();
    let thief = Request::new().unwrap();
    assert_eq!(code(join(thief.csr()).await), Code::Conflict);
    assert_eq!(left().await, 2);

    let secret = registration("a1", 10_000).secret;
    let closing = CloseRequest {
        incarnation: Some(opened.incarnation),
        reason: "left".to_owned(),
    };
    live.close(opened.session, &secret, &closing).await.unwrap();
    admin.forget_agent("a1").await.unwrap();
    let back = live.register(&registration("a1", 10_000)).await;
    assert_eq!(code(back), Code::Forbidden);

    // What it had asked for is no ticket any more: it takes another use, as what is new does.
    join(&asked).await.unwrap();
    assert_eq!(left().await, 1);
    let request = Request::new().unwrap();
    let again = join(request.csr()).await.unwrap();
    let again = request.complete(&again.certificate).unwrap();
    assert!(again.identity().since() > first.identity().since());
    let anew = secured.client(2, Some(&again), None);
    until("it is let in everywhere", async || {
        anew.register(&registration("a1", 10_000)).await.is_ok()
    })
    .await;
    assert_eq!(
        code(live.register(&registration("a1", 10_000)).await),
        Code::Forbidden
    );
    secured.stop().await;
}

#[tokio::test]
async fn the_authority_goes_to_directors_alone_and_by_no_other() {
    let secured = Secured::start().await;
    for at in 0..3 {
        let director = secured.machine(at, Role::Director, "d9");
        let files = director.authority().await.unwrap();
        let taken = Authority::from_pem(&files.authorities, &files.key).unwrap();
        assert_eq!(taken.fingerprint(), secured.authority.fingerprint());
        let agent = secured.machine(at, Role::Agent, "a1").authority().await;
        assert_eq!(code(agent), Code::Forbidden);
        assert_eq!(code(secured.admin(at).authority().await), Code::Forbidden);
        let stranger = secured.client(at, None, None).authority().await;
        assert_eq!(code(stranger), Code::Unauthenticated);
    }
    let known = secured.admin(1).directors().await.unwrap().value;
    let known: BTreeMap<_, _> = known.into_iter().map(|d| (d.name, d.address)).collect();
    assert!(
        known
            .values()
            .all(|address| address.starts_with("https://127.0.0.1:")),
        "{known:?}"
    );
    secured.stop().await;
}
