//! Writes that are repeated under their idempotency key at another director, after a change of leader.

use quorate_api::routes::{
    APPLY, IDEMPOTENCY_HEADER, JOIN_TOKENS, SERVICE, SERVICE_RESTART, TOKENS, fill,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::desk::listed;
use crate::relay::Trio;

impl Trio {
    /// A write under a key at one of the directors: its status, and its answer.
    async fn write(
        &self,
        at: usize,
        key: &str,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> (u16, Value) {
        let desk = self.desks.get(at).unwrap();
        let mut request = desk.http.request(method, desk.url(path));
        request = request.header(IDEMPOTENCY_HEADER, key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    async fn restart(&self, at: usize, key: &str, service: &str) -> (u16, Value) {
        let path = fill(SERVICE_RESTART, &[service]);
        self.write(at, key, (Method::POST, &path), None).await
    }

    /// How often a restart of this service is in the ledger.
    async fn restarts(&self, service: &str) -> usize {
        let audit = self.desks.last().unwrap().client.audit().await.unwrap();
        let to = [format!("service/{service}")];
        let restarts = audit.entries.iter().filter(|one| one.action == "restart");
        restarts.filter(|one| one.objects == to).count()
    }
}

/// What is wrong, and what to do next.
fn problem((status, answer): &(u16, Value)) -> (u16, &str, &str) {
    let text = |name: &str| answer[name].as_str().unwrap();
    (*status, text("detail"), text("next_step"))
}

#[tokio::test]
async fn what_one_leader_did_the_next_does_not_do_again_under_the_same_key() {
    let trio = Trio::start().await;
    trio.desks[0]
        .apply(json!({ "s": listed(&["a"]), "t": listed(&["a"]) }))
        .await;
    // Passed on to the leader, with its key.
    let first = trio.restart(1, "k1", "s").await;
    assert_eq!(first.0, 200);
    assert_eq!(trio.restarts("s").await, 1);
    trio.elect(1).await;
    for at in 0..3 {
        assert_eq!(
            trio.restart(at, "k1", "s").await,
            first,
            "as the first time"
        );
    }
    assert_eq!(trio.restarts("s").await, 1);
    assert_eq!(trio.restart(2, "k2", "s").await.0, 200);
    assert_eq!(trio.restarts("s").await, 2, "another request");
    trio.stop().await;
}

#[tokio::test]
async fn a_key_is_that_of_its_request_also_for_the_next_leader() {
    let trio = Trio::start().await;
    trio.desks[0]
        .apply(json!({ "s": listed(&["a"]), "t": listed(&["a"]) }))
        .await;
    let first = trio.restart(0, "k1", "s").await;
    trio.elect(2).await;
    // The mistake comes first, and is not in the way of the repeat.
    for _ in 0..2 {
        let other = trio.restart(1, "k1", "t").await;
        let (status, detail, next) = problem(&other);
        assert_eq!(status, 409);
        assert!(detail.contains("belongs to another request"), "{detail}");
        assert!(next.contains("a new key"), "{next}");
        assert_eq!(trio.restart(1, "k1", "s").await, first);
    }
    assert_eq!(trio.restarts("t").await, 0);
    trio.stop().await;
}

#[tokio::test]
async fn what_is_gone_or_there_already_is_answered_as_it_was_done() {
    let trio = Trio::start().await;
    let spec = json!({ "spec": { "service": { "s": listed(&["a"]), "t": listed(&["a"]) } } });
    let apply = (Method::POST, APPLY);
    let applied = trio.write(0, "k1", apply.clone(), Some(&spec)).await;
    assert_eq!(applied.0, 200);
    let path = fill(SERVICE, &["t"]);
    let remove = (Method::DELETE, path.as_str());
    let removed = trio.write(0, "k2", remove.clone(), None).await;
    assert_eq!(removed.0, 200);
    trio.elect(1).await;
    assert_eq!(trio.write(2, "k2", remove, None).await, removed);
    // It does not come back with a repeat of what created it.
    assert_eq!(trio.write(2, "k1", apply, Some(&spec)).await, applied);
    let services = trio.desks[0].client.services(None).await.unwrap().value;
    let names: Vec<&str> = services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["s"]);
    trio.stop().await;
}

#[tokio::test]
async fn a_token_is_not_made_twice_and_its_secret_is_not_in_the_ledger() {
    let trio = Trio::start().await;
    let name = json!({ "name": "n", "role": "viewer" });
    let role = json!({ "role": "agent" });
    let creates = [("token", TOKENS, name), ("join-token", JOIN_TOKENS, role)];
    let mut made = Vec::new();
    for (kind, path, body) in &creates {
        let create = (Method::POST, *path);
        let (status, created) = trio.write(1, kind, create.clone(), Some(body)).await;
        assert_eq!(status, 200);
        // The director that has told it tells it again.
        let again = trio.write(2, kind, create, Some(body)).await;
        assert_eq!(again, (200, created.clone()));
        made.push(created);
    }
    trio.elect(1).await;
    for ((kind, path, body), created) in creates.iter().zip(&made) {
        let again = trio.write(0, kind, (Method::POST, path), Some(body)).await;
        let (status, detail, next) = problem(&again);
        let id = created["id"].as_str().unwrap();
        assert_eq!(status, 409, "{kind}");
        assert!(
            detail.contains(id) && detail.contains("only once"),
            "{detail}"
        );
        let revoke = format!("`quorate {kind} revoke {id}`");
        assert!(next.contains(&revoke), "{next}");
    }
    let client = &trio.desks[0].client;
    assert_eq!(client.tokens().await.unwrap().value.len(), 1);
    assert_eq!(client.join_tokens().await.unwrap().value.len(), 1);

    let backup = trio.desks[1]
        .http
        .get(trio.desks[1].url("/v1/cluster/backup"));
    let backup = backup.send().await.unwrap().bytes().await.unwrap();
    let holds = |text: &str| {
        backup
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    for created in &made {
        assert!(holds(created["id"].as_str().unwrap()));
        let secret = created["token"]
            .as_str()
            .unwrap()
            .split('_')
            .nth(2)
            .unwrap();
        assert!(!holds(&secret[..32]));
    }
    trio.stop().await;
}
