//! A director that asks everybody who he is: every route and role, scopes, tokens that end, machines that
//! are let in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quorate_api::access::{EnrolRequest, JoinTokenRequest, TokenCreated, TokenRequest, TokenState};
use quorate_api::client::{Client, Error, PartitionFilter};
use quorate_api::problem::Code;
use quorate_api::resources::ApplyRequest;
use quorate_api::session::CloseRequest;
use quorate_core::ids::TokenName;
use quorate_director::Limits;
use quorate_director::write_bootstrap_token;
use quorate_ledger::memory::MemoryLedger;
use quorate_pki::{Authority, Request, Role};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::desk::{CLUSTER, Desk, config, listed, registration, until};

/// A director that asks, and the client of its first admin.
struct Asking {
    desk: Desk,
    admin: Client,
    admin_token: String,
    authority: Arc<Authority>,
}

impl Asking {
    async fn start() -> Self {
        Self::over(MemoryLedger::new(), TempDir::new().unwrap(), None).await
    }

    /// With the first token of an earlier life, if there is one.
    async fn over(ledger: MemoryLedger, folder: TempDir, token: Option<String>) -> Self {
        ledger.hint_leadership(Some(true));
        let authority = Authority::new(CLUSTER, SystemTime::now()).unwrap();
        let authority = Arc::new(authority);
        let mut config = config(&folder, Limits::default());
        config.authentication = true;
        config.authority = Some(Arc::clone(&authority));
        let admin_token = token.unwrap_or_else(|| {
            let name = TokenName::new("the first").unwrap();
            write_bootstrap_token(&config.data_dir, name).unwrap()
        });
        let desk = Desk::configured(ledger, folder, config).await;
        let admin = client(&desk, &admin_token);
        until("the first token counts", async || {
            admin.services(None).await.is_ok()
        })
        .await;
        Self {
            desk,
            admin,
            admin_token,
            authority,
        }
    }

    async fn token(&self, role: &str, scope: Option<&str>) -> TokenCreated {
        let request = TokenRequest {
            name: format!("a {role}"),
            role: role.to_owned(),
            scope: scope.map(str::to_owned),
            ttl: None,
        };
        self.admin.create_token(&request).await.unwrap()
    }

    async fn as_a(&self, role: &str, scope: Option<&str>) -> Client {
        client(&self.desk, &self.token(role, scope).await.token)
    }

    async fn join_token(&self, role: &str, uses: u32) -> String {
        let request = JoinTokenRequest {
            role: role.to_owned(),
            uses: Some(uses),
            ttl: None,
        };
        self.admin.create_join_token(&request).await.unwrap().token
    }
}

fn client(desk: &Desk, token: &str) -> Client {
    Client::new(vec![desk.address.to_string()], Some(token.to_owned())).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> (Code, String) {
    match answer {
        Err(Error::Problem(problem)) => (problem.code, problem.detail),
        other => panic!("{other:?}"),
    }
}

fn request(services: Value) -> ApplyRequest {
    ApplyRequest {
        spec: json!({ "service": services }),
        base: None,
    }
}

#[tokio::test]
async fn whatever_somebody_has_changed_is_told_with_his_name() {
    let asking = Asking::start().await;
    let created = asking.token("definer", None).await;
    let definer = client(&asking.desk, &created.token);
    let feeds = request(json!({ "feeds": listed(&["a", "b"]) }));
    definer.apply(&feeds).await.unwrap();
    // What changes nothing is not told.
    definer.apply(&feeds).await.unwrap();
    definer.stop("feeds", Some("a")).await.unwrap();
    let stopped = definer.stop("feeds", None).await.unwrap().index;
    assert_eq!(
        refused(definer.revoke_token(&created.id).await).0,
        Code::Forbidden
    );
    let join = asking.join_token("agent", 1).await;
    let stranger = &asking.desk.client;
    stranger.enrol(&enrolment(&join, "a1")).await.unwrap();
    asking
        .admin
        .register(&registration("a1", 10_000))
        .await
        .unwrap();
    asking.admin.cordon("a1").await.unwrap();
    asking.admin.revoke_token(&created.id).await.unwrap();
    let deleted = asking
        .admin
        .remove_services(&["feeds"])
        .await
        .unwrap()
        .index;

    let audit = asking.admin.audit().await.unwrap();
    let told: Vec<(&str, &str)> = audit
        .entries
        .iter()
        .map(|entry| (entry.action.as_str(), entry.objects[0].as_str()))
        .collect();
    let id = format!("token/{}", created.id);
    let join = format!("join-token/{}", join.split('_').nth(1).unwrap());
    assert_eq!(
        told,
        [
            ("create", id.as_str()),
            ("apply", "service/feeds"),
            ("stop", "partition/feeds/a"),
            ("stop", "service/feeds"),
            ("create", &join),
            ("admit", "agent/a1"),
            ("cordon", "agent/a1"),
            ("revoke", &id),
            ("remove", "service/feeds"),
        ]
    );
    let by = format!("token {} (a definer)", created.id);
    assert!(audit.entries[1..4].iter().all(|entry| entry.by == by));
    assert!(audit.entries[5].by.starts_with("join token "));
    let from = audit.entries.iter().map(|entry| entry.from.as_deref());
    assert!(from.eq([Some("127.0.0.1"); 9]));
    assert_eq!(
        (audit.entries[3].index, audit.entries[8].index),
        (stopped, deleted)
    );

    // It is in the ledger, so another director has it too; this one has it after a restart.
    let (token, before) = (asking.admin_token.clone(), audit.entries);
    let (ledger, folder) = asking.desk.stop().await;
    let asking = Asking::over(ledger, folder, Some(token)).await;
    let after = asking.admin.audit().await.unwrap().entries;
    assert_eq!(after, before);
    let text = serde_json::to_string(&after).unwrap();
    assert!(!text.contains(created.token.rsplit('_').next().unwrap()));
    asking.desk.stop().await;
}

/// The least role for a method of a path: said here once more, not read from the product's own table.
fn least(method: &str, path: &str) -> Option<usize> {
    const OPEN: [&str; 4] = ["/openapi.json", "/livez", "/readyz", "/v1/enrol"];
    let (viewer, operator, definer, admin, machine) = (0, 1, 2, 3, 4);
    if OPEN.contains(&path) || path.starts_with("/v1/sessions/") {
        // They ask for nothing, or for another secret than an API token.
        return None;
    }
    let ends = |words: &[&str]| words.iter().any(|word| path.ends_with(word));
    Some(match method {
        _ if ends(&["/v1/certificates", "/v1/cluster/authority"]) => machine,
        _ if path.contains("token")
            || path == "/v1/audit"
            || ends(&["/evict"])
            || path == "/v1/sessions" =>
        {
            admin
        }
        "DELETE" if path.starts_with("/v1/agents") => admin,
        // The whole state, with the hashes of all tokens.
        "GET" if path == "/v1/cluster/backup" => admin,
        // Who belongs to the quorum.
        "POST" | "PUT" | "DELETE"
            if path.starts_with("/v1/cluster") || path.starts_with("/v1/directors") =>
        {
            admin
        }
        "GET" => viewer,
        "POST" if ends(&["/apply", "/plan"]) => definer,
        "DELETE" => definer,
        "PUT" if ends(&["/checkpoint"]) => operator,
        "PUT" => definer,
        "POST" => operator,
        other => panic!("{other} {path}"),
    })
}

#[tokio::test]
async fn every_route_is_for_the_roles_that_the_documents_say() {
    let asking = Asking::start().await;
    let desk = &asking.desk;
    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let mut tokens = Vec::new();
    for role in ["viewer", "operator", "definer", "admin"] {
        tokens.push((role, asking.token(role, None).await.token));
    }
    for (path, operations) in document["paths"].as_object().unwrap() {
        let filled = path.replace("{name}", "x").replace("{key}", "y");
        let filled = filled.replace("{id}", "1");
        for method in operations.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let least = least(&method, path);
            let ask = async |token: Option<&str>| {
                let verb = method.parse().unwrap();
                let mut asked = desk.http.request(verb, desk.url(&filled));
                if let Some(token) = token {
                    asked = asked.bearer_auth(token);
                }
                if path == "/v1/sessions" {
                    // Who may register is decided by the name that is to be.
                    asked = asked.json(&registration("x", 10_000));
                }
                // Only the head: streams have no end.
                asked.send().await.unwrap()
            };
            let stranger = ask(None).await;
            let wanted = stranger.headers().contains_key("www-authenticate");
            assert_eq!(wanted, least.is_some(), "{method} {path} by nobody");
            if least.is_some() {
                assert_eq!(stranger.status(), 401, "{method} {path} by nobody");
            }
            for (rank, (role, token)) in tokens.iter().enumerate() {
                let status = ask(Some(token)).await.status();
                let may = least.is_none_or(|least| rank >= least);
                assert_eq!(status != 403, may, "{method} {path} by {role}: {status}");
            }
        }
    }
    asking.desk.stop().await;
}

#[tokio::test]
async fn a_token_counts_until_it_is_revoked_or_its_time_is_over() {
    let asking = Asking::start().await;
    let created = asking.token("viewer", None).await;
    let viewer = client(&asking.desk, &created.token);
    viewer.services(None).await.unwrap();
    let (code, detail) = refused(viewer.drain("a1").await);
    assert_eq!(code, Code::Forbidden);
    assert!(
        detail.contains("viewer") && detail.contains("operator"),
        "{detail}"
    );

    let known = asking.admin.tokens().await.unwrap().value;
    let shown = serde_json::to_string(&known).unwrap();
    let secret = created.token.rsplit('_').next().unwrap();
    assert!(
        !shown.contains(secret) && shown.contains(&created.id),
        "{shown}"
    );
    assert!(known.iter().all(|token| token.state == TokenState::Active));

    assert!(
        asking
            .admin
            .revoke_token(&created.id)
            .await
            .unwrap()
            .changed
    );
    assert!(
        !asking
            .admin
            .revoke_token(&created.id)
            .await
            .unwrap()
            .changed
    );
    let (code, detail) = refused(viewer.services(None).await);
    assert_eq!(code, Code::Unauthenticated);
    assert!(detail.contains("revoked"), "{detail}");

    let brief = TokenRequest {
        name: "brief".to_owned(),
        role: "viewer".to_owned(),
        scope: None,
        ttl: Some("300ms".to_owned()),
    };
    let brief = asking.admin.create_token(&brief).await.unwrap();
    let brief = client(&asking.desk, &brief.token);
    until("the token has expired", async || {
        matches!(brief.services(None).await, Err(Error::Problem(problem)) if problem.detail.contains("expired"))
    })
    .await;
    asking.desk.stop().await;
}

#[tokio::test]
async fn what_is_no_token_is_told_so_and_tells_nothing() {
    let asking = Asking::start().await;
    let good = &asking.admin_token;
    let of_another_cluster = "0".repeat(64);
    let swapped = format!("{}{of_another_cluster}{}", &good[..14], &good[78..]);
    for bad in [
        "",
        "x",
        "qr_0123456789_ab",
        &good[..good.len() - 1],
        &format!("{good}0"),
        &swapped,
        &"q".repeat(8000),
    ] {
        let (code, detail) = refused(client(&asking.desk, bad).services(None).await);
        assert_eq!(code, Code::Unauthenticated, "{bad:?}");
        assert!(bad.len() < 20 || !detail.contains(bad), "{detail}");
    }
    // A well-formed one that nobody has given out, and one in the place of another.
    let desk = &asking.desk;
    let url = desk.url(&format!("/v1/services?token={good}"));
    let in_url = desk.http.get(url).send().await.unwrap();
    assert_eq!(in_url.status(), 401);
    let twice = desk.http.get(desk.url("/v1/services"));
    let twice = twice.bearer_auth(good).bearer_auth(good);
    assert_eq!(twice.send().await.unwrap().status(), 401);
    let unknown = desk.http.get(desk.url("/v1/nothing"));
    assert_eq!(
        unknown.try_clone().unwrap().send().await.unwrap().status(),
        401
    );
    assert_eq!(
        unknown.bearer_auth(good).send().await.unwrap().status(),
        404
    );
    let method = desk.http.patch(desk.url("/v1/services"));
    assert_eq!(method.bearer_auth(good).send().await.unwrap().status(), 405);
    for (field, body) in [
        ("name", json!({ "name": "", "role": "viewer" })),
        ("role", json!({ "name": "n", "role": "root" })),
        (
            "scope",
            json!({ "name": "n", "role": "viewer", "scope": "../" }),
        ),
        (
            "scope",
            json!({ "name": "n", "role": "admin", "scope": "s" }),
        ),
        ("ttl", json!({ "name": "n", "role": "viewer", "ttl": "0s" })),
        ("ttl", json!({ "name": "n", "role": "viewer", "ttl": "1y" })),
    ] {
        let asked = desk.http.post(desk.url("/v1/tokens")).bearer_auth(good);
        let answer = asked.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{body}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["errors"][0]["at"], field, "{problem}");
    }
    asking.desk.stop().await;
}

#[tokio::test]
async fn a_scope_hides_what_is_outside_and_keeps_it_from_being_touched() {
    let asking = Asking::start().await;
    let all = json!({ "feeds-eu": listed(&["a"]), "imports": listed(&["b", "c"]) });
    asking.admin.apply(&request(all)).await.unwrap();
    let scoped = asking.as_a("definer", Some("feeds-")).await;

    let services = scoped.services(None).await.unwrap().value;
    let names: Vec<_> = services
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    assert_eq!(names, ["feeds-eu"]);
    let everything = PartitionFilter::default();
    let partitions = scoped.partitions(&everything, None).await.unwrap().value;
    assert!(partitions.len() == 1 && partitions[0].service == "feeds-eu");
    let page = scoped.partitions_page(&everything, 1, None).await.unwrap();
    let next = page.next.unwrap_or_default();
    assert!(!next.contains("imports"), "{next}");
    assert_eq!(scoped.progress(None, None).await.unwrap().total, 1);
    let other = PartitionFilter {
        service: Some("imports".to_owned()),
        ..PartitionFilter::default()
    };
    for code in [
        refused(scoped.partitions(&other, None).await).0,
        refused(scoped.service("imports").await).0,
        refused(scoped.stop("imports", None).await).0,
        refused(scoped.stop("imports", Some("b")).await).0,
        refused(scoped.why("imports", "b").await).0,
        refused(scoped.history("imports", "b").await).0,
        refused(scoped.remove_service("imports").await).0,
        refused(scoped.remove_services(&["feeds-eu", "imports"]).await).0,
        refused(scoped.progress(Some("imports"), None).await).0,
        refused(scoped.drain("a1").await).0,
    ] {
        assert_eq!(code, Code::Forbidden);
    }
    // One that is allowed does not take another one along.
    let both = request(json!({ "feeds-us": listed(&["x"]), "imports": listed(&["x"]) }));
    let (code, detail) = refused(scoped.apply(&both).await);
    assert_eq!(code, Code::Forbidden);
    assert!(
        detail.contains("imports") && detail.contains("feeds-"),
        "{detail}"
    );
    assert_eq!(refused(scoped.plan(&both).await).0, Code::Forbidden);
    assert_eq!(asking.admin.services(None).await.unwrap().value.len(), 2);
    let own = request(json!({ "feeds-us": listed(&["x"]) }));
    scoped.apply(&own).await.unwrap();
    scoped.stop("feeds-us", None).await.unwrap();
    asking.desk.stop().await;
}

#[tokio::test]
async fn events_tell_each_what_he_may_see() {
    let asking = Asking::start().await;
    let scoped = asking.token("viewer", Some("feeds-")).await.token;
    let viewer = asking.token("viewer", None).await.token;
    let desk = &asking.desk;
    let both = json!({ "imports": listed(&["b"]), "feeds-eu": listed(&["a"]) });
    asking.admin.apply(&request(both)).await.unwrap();
    let last = json!({ "feeds-last": listed(&["z"]) });
    asking.admin.apply(&request(last)).await.unwrap();
    let read = async |token: &str| {
        let asked = desk.http.get(desk.url("/v1/events?after=0"));
        let mut events = asked.bearer_auth(token).send().await.unwrap();
        let mut text = String::new();
        while !text.contains("feeds-last") {
            let chunk = tokio::time::timeout(Duration::from_secs(20), events.chunk());
            let chunk = chunk.await.unwrap().unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        text
    };
    let (scoped, viewer) = (read(&scoped).await, read(&viewer).await);
    let admin = read(&asking.admin_token).await;
    assert!(
        scoped.contains("feeds-eu") && !scoped.contains("imports"),
        "{scoped}"
    );
    assert!(
        viewer.contains("imports") && !viewer.contains("token.created"),
        "{viewer}"
    );
    assert!(admin.contains("token.created") && admin.contains("imports"));
    asking.desk.stop().await;
}

#[tokio::test]
async fn an_agent_without_a_certificate_registers_only_by_an_admin() {
    let asking = Asking::start().await;
    let wanted = registration("a1", 10_000);
    let nobody = asking.desk.client.register(&wanted).await;
    assert_eq!(refused(nobody).0, Code::Unauthenticated);
    let definer = asking.as_a("definer", None).await;
    assert_eq!(refused(definer.register(&wanted).await).0, Code::Forbidden);
    let opened = asking.admin.register(&wanted).await.unwrap();
    // From then on the secret of the session is enough, and nothing else is.
    let desk = &asking.desk;
    let path = format!("/v1/sessions/{}/work", opened.session);
    let work = desk.http.get(desk.url(&path));
    let by_token = work.try_clone().unwrap().bearer_auth(&asking.admin_token);
    assert_eq!(by_token.send().await.unwrap().status(), 401);
    let by_secret = work.header("authorization", format!("Session {}", wanted.secret));
    assert_eq!(by_secret.send().await.unwrap().status(), 200);
    asking.desk.stop().await;
}

#[tokio::test]
async fn the_answer_to_one_caller_is_not_given_to_another_with_the_same_key() {
    let asking = Asking::start().await;
    let desk = &asking.desk;
    let create = async |token: &str| {
        let asked = desk.http.post(desk.url("/v1/tokens")).bearer_auth(token);
        let asked = asked.header("idempotency-key", "k");
        let asked = asked.json(&json!({ "name": "n", "role": "viewer" }));
        asked.send().await.unwrap()
    };
    let first: Value = create(&asking.admin_token).await.json().await.unwrap();
    let again: Value = create(&asking.admin_token).await.json().await.unwrap();
    assert_eq!(first, again, "whoever lost the answer gets it again");
    let other = asking.token("admin", None).await.token;
    let others: Value = create(&other).await.json().await.unwrap();
    assert_ne!(first["token"], others["token"]);
    assert!(others["token"].is_string(), "{others}");
    let viewer = asking.token("viewer", None).await.token;
    assert_eq!(create(&viewer).await.status(), 403);
    asking.desk.stop().await;
}

fn enrolment(join_token: &str, name: &str) -> EnrolRequest {
    EnrolRequest {
        join_token: join_token.to_owned(),
        name: name.to_owned(),
        csr: Request::new().unwrap().csr().to_owned(),
        machine_id: None,
    }
}

#[tokio::test]
async fn a_join_token_lets_in_what_it_is_for_and_no_more() {
    let asking = Asking::start().await;
    let stranger = &asking.desk.client;
    let token = asking.join_token("agent", 2).await;
    assert!(
        token.starts_with("qrj_") && token.ends_with(&asking.authority.fingerprint().to_string())
    );

    // What cannot be signed costs no use.
    let mut nonsense = enrolment(&token, "a1");
    nonsense.csr = "nonsense".to_owned();
    let nonsense = stranger.enrol(&nonsense).await;
    assert_eq!(refused(nonsense).0, Code::MalformedRequest);
    let kept = Request::new().unwrap();
    let mut first = enrolment(&token, "a1");
    first.csr = kept.csr().to_owned();
    let answer = stranger.enrol(&first).await.unwrap();
    assert_eq!(
        (answer.role.as_str(), answer.name.as_str()),
        ("agent", "a1")
    );
    let papers = kept.complete(&answer.certificate).unwrap();
    let own = papers.identity();
    assert_eq!(
        (own.role(), own.name(), own.cluster()),
        (Role::Agent, "a1", CLUSTER)
    );
    assert_eq!(answer.authorities, asking.authority.trust().pem());
    // Who lost the answer gets another one.
    stranger.enrol(&first).await.unwrap();
    stranger.enrol(&enrolment(&token, "a2")).await.unwrap();
    let (code, detail) = refused(stranger.enrol(&enrolment(&token, "a3")).await);
    assert_eq!(code, Code::Forbidden);
    assert!(detail.contains("used up"), "{detail}");
    let known = asking.admin.join_tokens().await.unwrap().value;
    assert_eq!((known[0].left, known[0].state), (0, TokenState::UsedUp));
    assert_eq!(known[0].used_by, ["a1", "a2"]);

    // Whom the name belongs to already.
    let known = registration("known", 10_000);
    let opened = asking.admin.register(&known).await.unwrap();
    let token = asking.join_token("agent", 9).await;
    let mut thief = enrolment(&token, "known");
    thief.machine_id = Some("another".to_owned());
    assert_eq!(refused(stranger.enrol(&thief).await).0, Code::Conflict);
    // Its own machine, while it is alive and when it has left.
    thief.machine_id = Some("machine".to_owned());
    assert_eq!(refused(stranger.enrol(&thief).await).0, Code::Conflict);
    let closing = CloseRequest {
        incarnation: Some(opened.incarnation),
        reason: "left".to_owned(),
    };
    let closed = asking.admin.close(opened.session, &known.secret, &closing);
    closed.await.unwrap();
    stranger.enrol(&thief).await.unwrap();

    let director = asking.join_token("director", 1).await;
    let answer = stranger.enrol(&enrolment(&director, "d2")).await.unwrap();
    assert_eq!(answer.role, "director");

    let revoked = &asking.admin.join_tokens().await.unwrap().value;
    let revoked = revoked.iter().find(|known| known.left == 8).unwrap();
    asking.admin.revoke_join_token(&revoked.id).await.unwrap();
    let late = stranger.enrol(&enrolment(&token, "a9")).await;
    assert!(refused(late).1.contains("revoked"));
    let guess = format!("{}0", &token[..token.len() / 2]);
    let guess = stranger.enrol(&enrolment(&guess, "a9")).await;
    assert_eq!(refused(guess).0, Code::Unauthenticated);
    // Nobody becomes a director that is there.
    let another = asking.join_token("director", 1).await;
    let (code, detail) = refused(stranger.enrol(&enrolment(&another, "d1")).await);
    assert_eq!(code, Code::Conflict);
    assert!(detail.contains("cluster remove d1"), "{detail}");
    // A person's token lets no machine in.
    let person = stranger.enrol(&enrolment(&asking.admin_token, "a9")).await;
    assert_eq!(refused(person).0, Code::Unauthenticated);
    asking.desk.stop().await;
}

#[tokio::test]
async fn a_director_without_an_authority_says_that_it_lets_nobody_in() {
    let desk = Desk::start().await;
    // Nobody is asked who he is here, and tokens can be made before that changes.
    let request = JoinTokenRequest {
        role: "agent".to_owned(),
        uses: None,
        ttl: None,
    };
    let token = desk.client.create_join_token(&request).await.unwrap().token;
    let answer = desk.client.enrol(&enrolment(&token, "a1")).await;
    let (code, detail) = refused(answer);
    assert_eq!(code, Code::Unavailable);
    assert!(detail.contains("no certificate authority"), "{detail}");
    let known = desk.client.join_tokens().await.unwrap().value;
    assert_eq!((known[0].left, known[0].uses), (1, 1));
    let long = JoinTokenRequest {
        ttl: Some("8d".to_owned()),
        ..request
    };
    let (code, detail) = refused(desk.client.create_join_token(&long).await);
    assert_eq!(code, Code::MalformedRequest);
    assert!(detail.contains("7d"), "{detail}");
    desk.stop().await;
}

#[tokio::test]
async fn the_first_token_outlives_a_restart_and_its_file_brings_nothing_back() {
    let asking = Asking::start().await;
    let token = asking.admin_token.clone();
    let second = asking.token("admin", None).await;
    let (ledger, folder) = asking.desk.stop().await;
    let asking = Asking::over(ledger, folder, Some(token.clone())).await;
    let tokens = asking.admin.tokens().await.unwrap().value;
    assert_eq!(tokens.len(), 2, "it was taken in once");
    let first = tokens.iter().find(|token| token.id != second.id).unwrap();
    asking.admin.revoke_token(&first.id).await.unwrap();
    let second = client(&asking.desk, &second.token);
    second
        .revoke_token(&tokens.iter().find(|t| t.id != first.id).unwrap().id)
        .await
        .unwrap();
    let (ledger, folder) = asking.desk.stop().await;

    // Nobody may administer now, and the file is still there: it counts no more.
    let mut config = config(&folder, Limits::default());
    config.authentication = true;
    let file = config.data_dir.join("bootstrap-token.json");
    let desk = Desk::configured(ledger, folder, config.clone()).await;
    let (code, detail) = refused(client(&desk, &token).services(None).await);
    assert_eq!(code, Code::Unauthenticated);
    assert!(detail.contains("revoked"), "{detail}");
    let (ledger, folder) = desk.stop().await;

    // The way back for who may write to the folder.
    std::fs::remove_file(file).unwrap();
    let name = TokenName::new("the way back").unwrap();
    let token = write_bootstrap_token(&config.data_dir, name).unwrap();
    let asking = Asking::over(ledger, folder, Some(token)).await;
    assert_eq!(asking.admin.tokens().await.unwrap().value.len(), 3);
    asking.desk.stop().await;
}
