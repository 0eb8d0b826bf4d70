//! What is applied and removed: what became of it, all or nothing, and when everything has settled.

use quorate_api::client::{AgentFilter, Error};
use quorate_api::problem::Code;
use quorate_api::resources::{AppliedKind, ApplyAnswer, ApplyRequest, ServiceState};
use quorate_api::routes::IDEMPOTENCY_HEADER;
use quorate_director::Limits;
use quorate_ledger::memory::MemoryLedger;
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

use crate::desk::{Desk, Worker, config, listed, registration, until};
use crate::sessions::renewal;

fn code(error: &Error) -> Code {
    error.problem().unwrap().code
}

fn became(answer: &ApplyAnswer) -> Vec<(&str, AppliedKind)> {
    let changes = answer.changes.iter();
    changes.map(|c| (c.service.as_str(), c.change)).collect()
}

async fn apply(desk: &Desk, service: Value) -> ApplyAnswer {
    let request = ApplyRequest {
        spec: json!({ "service": service }),
        base: None,
    };
    desk.client.apply(&request).await.unwrap()
}

#[tokio::test]
async fn an_apply_and_a_put_tell_what_became_of_each_service() {
    let desk = Desk::start().await;
    let both = json!({ "feeds": listed(&["a"]), "more": listed(&["x"]) });
    let first = apply(&desk, both.clone()).await;
    let created = AppliedKind::Created;
    assert_eq!(became(&first), [("feeds", created), ("more", created)]);
    let same = apply(&desk, both).await;
    let unchanged = AppliedKind::Unchanged;
    assert_eq!(became(&same), [("feeds", unchanged), ("more", unchanged)]);
    assert_eq!(same.index, first.index, "nothing was written");
    let put = desk.client.put_service("feeds", &listed(&["a"])).await;
    let put = put.unwrap();
    assert_eq!(
        (became(&put), put.index),
        (vec![("feeds", unchanged)], first.index)
    );
    let put = desk.client.put_service("feeds", &listed(&["a", "b"])).await;
    assert_eq!(became(&put.unwrap()), [("feeds", AppliedKind::Changed)]);
    desk.stop().await;
}

#[tokio::test]
async fn several_services_are_removed_together_or_not_at_all() {
    let desk = Desk::start().await;
    apply(
        &desk,
        json!({ "a": listed(&["x"]), "b": listed(&["x"]), "c": listed(&["x"]) }),
    )
    .await;
    let names = async || {
        let services = desk.client.services(None).await.unwrap().value;
        services.into_iter().map(|s| s.name).collect::<Vec<_>>()
    };
    let error = desk
        .client
        .remove_services(&["a", "x", "b"])
        .await
        .unwrap_err();
    assert_eq!(code(&error), Code::NotFound);
    assert!(error.to_string().contains("service \"x\""), "{error}");
    assert_eq!(names().await, ["a", "b", "c"]);
    let remove = async |name: &str| {
        let path = desk.url(&format!("/v1/services?name={name}"));
        let request = desk.http.delete(path).header(IDEMPOTENCY_HEADER, "k1");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(remove("x").await, 404);
    assert_eq!(
        remove("b").await,
        200,
        "what was refused leaves its key free"
    );
    assert_eq!(remove("b").await, 200, "it is done, though it is not there");
    assert_eq!(remove("a").await, 409, "the key belongs to another request");
    let error = desk.client.remove_services(&[]).await.unwrap_err();
    assert_eq!(code(&error), Code::BadParameter);
    let error = desk
        .client
        .remove_services(&["a", "a/b"])
        .await
        .unwrap_err();
    assert_eq!(code(&error), Code::BadParameter);
    desk.client.remove_services(&["c", "a", "c"]).await.unwrap();
    assert_eq!(names().await, Vec::<String>::new());
    desk.stop().await;
}

#[tokio::test]
async fn what_has_no_place_has_settled_and_is_counted() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 10_000).await;
    let mut nowhere = listed(&["a", "b"]);
    nowhere["placement"] = json!({ "require": ["gpu"] });
    let index = apply(&desk, json!({ "gpus": nowhere })).await.index;
    let progress = desk.client.settling(Some("gpus"), None).await.unwrap();
    assert!(progress.index >= index);
    assert_eq!(
        (
            progress.total,
            progress.waiting,
            progress.unplaceable,
            progress.settled
        ),
        (2, 2, 2, true)
    );
    apply(&desk, json!({ "feeds": listed(&["a"]) })).await;
    let mut counter = 0;
    until(
        "it is assigned, which its agent does not acknowledge",
        async || {
            // One that is silent gets nothing.
            counter += 1;
            let (session, renewal) = (worker.opened.session, renewal(&worker, counter));
            let renewed = worker.client.renew(session, &worker.secret, &renewal).await;
            assert_eq!(renewed.unwrap().renewed, [session]);
            let progress = desk.client.settling(Some("feeds"), None).await.unwrap();
            assert!(!progress.settled);
            progress.starting == 1
        },
    )
    .await;
    let error = desk.client.settling(Some("fed"), None).await.unwrap_err();
    assert_eq!(code(&error), Code::NotFound);
    desk.stop().await;
}

#[tokio::test]
async fn only_the_leader_says_that_everything_has_settled() {
    let desk = Desk::start().await;
    assert!(desk.client.settling(None, None).await.unwrap().settled);
    desk.ledger.hint_leadership(Some(false));
    let ask = async |path: &str| desk.http.get(desk.url(path)).send().await.unwrap();
    until("it leads no longer", async || {
        ask("/v1/progress?leader=true").await.status() == 503
    })
    .await;
    assert_eq!(ask("/v1/progress").await.status(), 503);
    let answer = ask("/v1/progress?stale=true").await;
    assert_eq!(answer.status(), 200);
    let progress: Value = answer.json().await.unwrap();
    assert_eq!(progress["settled"], json!(false));
    desk.stop().await;
}

#[tokio::test]
async fn agents_and_services_are_chosen_by_the_director() {
    let desk = Desk::start().await;
    for (name, zone) in [("a1", "eu"), ("a2", "us"), ("a33", "eu")] {
        let mut request = registration(name, 10_000);
        request.labels.insert("zone".to_owned(), zone.to_owned());
        desk.client.register(&request).await.unwrap();
    }
    desk.client.cordon("a1").await.unwrap();
    let names = async |problems, labels: &[&str]| {
        let filter = AgentFilter {
            problems,
            labels: labels.iter().map(ToString::to_string).collect(),
        };
        let found = desk.client.agents_where(&filter, None).await.unwrap();
        found.value.into_iter().map(|a| a.name).collect::<Vec<_>>()
    };
    assert_eq!(names(false, &["zone=eu"]).await, ["a1", "a33"]);
    assert_eq!(names(true, &["zone=eu"]).await, ["a1"]);
    assert_eq!(names(true, &["zone=us"]).await, [""; 0]);
    assert_eq!(names(false, &["zone=eu", "disk=ssd"]).await, [""; 0]);
    let bad = desk
        .http
        .get(desk.url("/v1/agents?label=zone"))
        .send()
        .await;
    assert_eq!(bad.unwrap().status(), 400);
    apply(
        &desk,
        json!({ "down": listed(&["a"]), "still": listed(&["a"]) }),
    )
    .await;
    desk.client.stop("still", None).await.unwrap();
    let problems = desk.client.services_with_problems(None).await;
    let problems = problems.unwrap().value;
    let problems: Vec<_> = problems.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(problems, ["down"]);
    let state = desk.client.service("still").await.unwrap().value.state;
    assert_eq!(state, ServiceState::Stopped);
    desk.stop().await;
}

#[tokio::test]
async fn a_lease_that_is_too_short_for_this_ledger_is_refused_with_the_shortest_allowed() {
    let folder = TempDir::new().unwrap();
    let ledger = MemoryLedger::new();
    ledger.hint_leadership(Some(true));
    let mut config = config(&folder, Limits::default());
    config.takeover = Duration::from_secs(3);
    let desk = Desk::configured(ledger, folder, config).await;
    let mut fast = listed(&["a"]);
    fast["lease"] = json!("3s");
    let request = ApplyRequest {
        spec: json!({ "service": { "feeds": fast } }),
        base: None,
    };
    for error in [
        desk.client.apply(&request).await.unwrap_err(),
        desk.client.plan(&request).await.unwrap_err(),
    ] {
        let problem = error.problem().unwrap();
        assert_eq!(
            (problem.status, problem.code),
            (422, Code::InvalidSpecification)
        );
        assert_eq!(problem.errors[0].at, "service.feeds.lease");
        assert_eq!(problem.next_step.as_deref(), Some("write 8s200ms or more"));
    }
    let error = desk.client.register(&registration("a1", 3_000)).await;
    let error = error.unwrap_err();
    assert!(
        error.to_string().contains("lease_ms: 3s is too short"),
        "{error}"
    );
    desk.client
        .register(&registration("a1", 10_000))
        .await
        .unwrap();
    assert!(desk.client.services(None).await.unwrap().value.is_empty());
    desk.stop().await;
}

#[tokio::test]
async fn a_plan_tells_too_what_is_wrong_with_the_leases_of_all_files_together() {
    let desk = Desk::start().await;
    let with = |name: &str, lease: &str| {
        let mut service = listed(&["a"]);
        service["lease"] = json!(lease);
        json!({ name: service })
    };
    for (name, lease) in [("a", "10s"), ("b", "20s"), ("c", "30s"), ("d", "40s")] {
        desk.apply(with(name, lease)).await;
    }
    let ask = |name: &str, lease: &str| ApplyRequest {
        spec: json!({ "service": with(name, lease) }),
        base: None,
    };
    let fifth = ask("e", "50s");
    for error in [
        desk.client.plan(&fifth).await.unwrap_err(),
        desk.client.apply(&fifth).await.unwrap_err(),
    ] {
        let problem = error.problem().unwrap();
        assert_eq!(problem.code, Code::InvalidSpecification);
        assert!(
            problem
                .detail
                .contains("5 different leases: 10s, 20s, 30s, 40s, 50s"),
            "{problem}"
        );
    }
    for (name, lease) in [("e", "40s"), ("d", "50s")] {
        assert!(desk.client.plan(&ask(name, lease)).await.is_ok(), "{lease}");
    }
    desk.stop().await;
}
