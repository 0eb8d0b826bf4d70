//! The life of a partition from apply to another agent, as workers and people see it.

use std::time::Duration;

use quorate_api::client::PartitionFilter;
use quorate_api::logs::LogChunk;
use quorate_api::resources::{ApplyRequest, PartitionState, ServiceState};
use quorate_api::session::{
    Claim, Observation, Release, RenewRequest, ReportRequest, WorkItem, WorkState,
};
use serde_json::json;

use crate::desk::{Desk, PATIENCE, Worker, listed, until};

/// The pieces of work that a worker hears of, until there are so many in this state.
pub(crate) async fn work(worker: &Worker, count: usize, state: WorkState) -> Vec<WorkItem> {
    let (id, mut index, mut items) = (worker.opened.session, 0, Vec::<WorkItem>::new());
    let all = async {
        loop {
            let work = worker
                .client
                .work(id, &worker.secret, index, Duration::from_secs(30));
            let work = work.await.unwrap();
            index = work.index;
            if work.whole {
                items.clear();
            }
            items.retain(|old| {
                !work.gone.contains(&old.token)
                    && work.items.iter().all(|new| new.token != old.token)
            });
            items.extend(work.items);
            let found = items.iter().filter(|item| item.state == state);
            if found.count() == count {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("the work comes");
    items
}

pub(crate) async fn assume(worker: &Worker, sequence: u64, items: &[WorkItem]) -> Vec<u64> {
    let claims = items.iter().map(|item| Claim {
        partition: item.partition,
        token: item.token,
    });
    let observed = items.iter().map(|item| Observation {
        partition: item.partition,
        token: item.token,
        phase: "ready".to_owned(),
        attempt: 1,
        pid: Some(4711),
        exit: None,
    });
    let mut report = ReportRequest {
        incarnation: worker.opened.incarnation,
        sequence,
        assume: claims.collect(),
        ..ReportRequest::default()
    };
    let (id, secret) = (worker.opened.session, &worker.secret);
    let assumed = worker
        .client
        .report(id, secret, &report)
        .await
        .unwrap()
        .assumed;
    report.sequence += 1;
    report.assume.clear();
    report.observed = observed.collect();
    worker.client.report(id, secret, &report).await.unwrap();
    assumed
}

pub(crate) fn quick(keys: &[&str]) -> serde_json::Value {
    json!({
        "command": ["/bin/sleep", "inf"],
        "partitions": { "list": keys },
        "lease": "3s",
        "ramp": { "settle": "0s" },
    })
}

#[tokio::test]
async fn what_an_agent_stops_by_itself_has_not_settled() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 3000).await;
    desk.apply(json!({ "feeds": quick(&["a", "b"]) })).await;
    let items = work(&worker, 2, WorkState::Assigned).await;
    assume(&worker, 1, &items).await;
    let progress = desk.client.progress(Some("feeds"), None).await.unwrap();
    assert_eq!((progress.running, progress.settled), (2, true));

    let item = &items[0];
    let observed = Observation {
        partition: item.partition,
        token: item.token,
        phase: "stopping".to_owned(),
        attempt: 1,
        pid: Some(4711),
        exit: None,
    };
    let report = ReportRequest {
        incarnation: worker.opened.incarnation,
        sequence: 3,
        observed: vec![observed],
        ..ReportRequest::default()
    };
    let session = worker.opened.session;
    let told = worker.client.report(session, &worker.secret, &report).await;
    told.unwrap();
    let progress = desk.client.progress(Some("feeds"), None).await.unwrap();
    assert_eq!((progress.running, progress.settled), (1, false));
    desk.stop().await;
}

#[tokio::test]
async fn what_is_applied_is_assigned_assumed_shown_and_freed_by_expiry() {
    let desk = Desk::start().await;
    let first = Worker::join(&desk, "a1", 3000).await;
    desk.apply(json!({ "feeds": quick(&["a", "b"]) })).await;
    let items = work(&first, 2, WorkState::Assigned).await;
    let mut tokens = assume(&first, 1, &items).await;
    tokens.sort_unstable();
    assert_eq!(tokens.len(), 2);

    let one = desk
        .client
        .partition("feeds", "a", None)
        .await
        .unwrap()
        .value;
    assert_eq!((one.state, one.running), (PartitionState::Assumed, true));
    assert_eq!((one.agent.as_deref(), one.pid), (Some("a1"), Some(4711)));
    assert_eq!(one.waiting, None);
    assert!(tokens.contains(&one.token.unwrap()));
    let progress = desk.client.progress(Some("feeds"), None).await.unwrap();
    assert_eq!(
        (progress.running, progress.total, progress.settled),
        (2, 2, true)
    );
    let why = desk.client.why("feeds", "a").await.unwrap();
    assert_eq!(why.agent.as_deref(), Some("a1"));
    assert!(!why.reason.is_empty());

    // a1 falls silent. Its partitions go to a2, only after the expiry and under higher tokens.
    let second = Worker::join(&desk, "a2", 3000).await;
    let renewing = tokio::spawn({
        let (client, id) = (second.client.clone(), second.opened.session);
        let (secret, incarnation) = (second.secret.clone(), second.opened.incarnation);
        async move {
            for counter in 1.. {
                let request = RenewRequest {
                    incarnation,
                    counter,
                    nonce: counter,
                    sent_ms: 0,
                    also: Vec::new(),
                };
                client.renew(id, &secret, &request).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    let items = work(&second, 2, WorkState::Assigned).await;
    let again = assume(&second, 1, &items).await;
    assert!(
        again.iter().min() > tokens.iter().max(),
        "{again:?} after {tokens:?}"
    );
    let history = desk.client.history("feeds", "a").await.unwrap();
    let kinds: Vec<_> = history.entries.iter().map(|e| e.kind.as_str()).collect();
    let expired = kinds.iter().position(|kind| *kind == "expired").unwrap();
    assert!(
        kinds[..expired].contains(&"assumed") && kinds[expired..].contains(&"assumed"),
        "{kinds:?}"
    );
    let filter = PartitionFilter {
        agent: Some("a2".to_owned()),
        ..PartitionFilter::default()
    };
    assert_eq!(
        desk.client
            .partitions(&filter, None)
            .await
            .unwrap()
            .value
            .len(),
        2
    );
    renewing.abort();
    desk.stop().await;
}

#[tokio::test]
async fn a_removed_service_is_shown_until_its_runs_have_ended_and_comes_back_behind_them() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 10_000).await;
    let mut service = quick(&["a", "b"]);
    service["lease"] = json!("10s");
    desk.apply(json!({ "feeds": service.clone() })).await;
    let items = work(&worker, 2, WorkState::Assigned).await;
    let tokens = assume(&worker, 1, &items).await;
    desk.client.remove_service("feeds").await.unwrap();
    let removing = desk.client.service("feeds").await.unwrap().value;
    assert_eq!(removing.state, ServiceState::Removing);
    assert_eq!(removing.agents, [("a1".to_owned(), 2)].into());
    let services = desk.client.services(None).await.unwrap().value;
    assert_eq!(services[0].state, ServiceState::Removing);
    let progress = desk.client.settling(Some("feeds"), None).await.unwrap();
    assert_eq!((progress.stopping, progress.settled), (2, false));
    let again = desk.client.stop("feeds", None).await.unwrap_err();
    assert_eq!(
        again.problem().unwrap().status,
        404,
        "nothing can be done to it"
    );

    desk.apply(json!({ "feeds": service })).await;
    let back = desk.client.service("feeds").await.unwrap().value;
    assert_eq!(
        (back.state, back.partitions.stopping),
        (ServiceState::Active, 2)
    );
    let stopping = work(&worker, 2, WorkState::Stopping).await;
    let release = stopping.iter().map(|item| Release {
        partition: item.partition,
        token: item.token,
        outcome: "stopped".to_owned(),
        exit: None,
        failures: 0,
    });
    let report = ReportRequest {
        incarnation: worker.opened.incarnation,
        sequence: 3,
        release: release.collect(),
        ..ReportRequest::default()
    };
    let (id, secret) = (worker.opened.session, &worker.secret);
    worker.client.report(id, secret, &report).await.unwrap();
    let items = work(&worker, 2, WorkState::Assigned).await;
    let new = assume(&worker, 4, &items).await;
    assert!(
        new.iter().min() > tokens.iter().max(),
        "{new:?} after {tokens:?}"
    );
    let progress = desk.client.settling(Some("feeds"), None).await.unwrap();
    assert_eq!((progress.running, progress.settled), (2, true));
    desk.stop().await;
}

#[tokio::test]
async fn a_plan_tells_where_partitions_would_start_also_those_of_a_file() {
    let desk = Desk::start().await;
    Worker::join(&desk, "a1", 10_000).await;
    std::fs::write(desk.folder.path().join("f.jsonl"), "{\"key\":\"x\"}\n").unwrap();
    let mut service = listed(&[]);
    service["partitions"] = json!({ "file": "f.jsonl" });
    let mut request = ApplyRequest {
        spec: json!({ "service": { "feeds": listed(&["a"]), "filed": service } }),
        base: Some(desk.folder.path().to_str().unwrap().to_owned()),
    };
    let plan = desk.client.plan(&request).await.unwrap();
    let starts: Vec<_> = plan
        .starts
        .iter()
        .map(|s| format!("{}/{} {}", s.service, s.key, s.agent))
        .collect();
    assert_eq!(starts, ["feeds/a a1", "filed/x a1"]);
    assert!(!plan.is_empty());
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("f.jsonl"), "").unwrap();
    request.base = Some(elsewhere.path().to_str().unwrap().to_owned());
    let error = desk.client.plan(&request).await.unwrap_err();
    assert!(error.to_string().contains("outside the folders"), "{error}");
    assert!(desk.client.services(None).await.unwrap().value.is_empty());
    desk.stop().await;
}

#[tokio::test]
async fn why_names_the_rule_that_excludes_each_agent() {
    let desk = Desk::start().await;
    Worker::join(&desk, "a1", 10_000).await;
    let mut service = listed(&["a"]);
    service["placement"] = json!({ "require": ["zone = eu"] });
    desk.apply(json!({ "feeds": service })).await;
    until("the planner has looked", async || {
        let why = desk.client.why("feeds", "a").await.unwrap();
        why.excluded
            .iter()
            .any(|agent| agent.agent == "a1" && agent.rule.contains("zone = eu"))
    })
    .await;
    until("that is what it waits for", async || {
        let one = desk.client.partition("feeds", "a", None).await.unwrap();
        one.value.waiting.unwrap().contains("zone = eu")
    })
    .await;
    desk.stop().await;
}

#[tokio::test]
async fn a_log_is_pulled_from_the_agent_that_holds_the_partition() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 10_000).await;
    let mut service = quick(&["a"]);
    service["lease"] = json!("10s");
    desk.apply(json!({ "feeds": service })).await;
    let items = work(&worker, 1, WorkState::Assigned).await;
    assume(&worker, 1, &items).await;

    let path = desk.url("/v1/services/feeds/partitions/a/logs?lines=5&follow=true");
    let asked = tokio::spawn(desk.http.get(path).send());
    let (id, secret) = (worker.opened.session, &worker.secret);
    let requests = worker
        .client
        .log_requests(id, secret, Duration::from_secs(20))
        .await
        .unwrap();
    let request = &requests.requests[0];
    assert_eq!(
        (request.key.as_str(), request.lines, request.follow),
        ("a", 5, true)
    );
    let chunk = |text: &str, end| LogChunk {
        id: request.id,
        text: text.to_owned(),
        end,
        problem: None,
    };
    worker
        .client
        .log_chunk(id, secret, &chunk("one\n", false))
        .await
        .unwrap();
    let response = asked.await.unwrap().unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    worker
        .client
        .log_chunk(id, secret, &chunk("two\n", true))
        .await
        .unwrap();
    assert_eq!(response.text().await.unwrap(), "one\ntwo\n");
    let late = worker
        .client
        .log_chunk(id, secret, &chunk("three\n", false))
        .await;
    assert_eq!(late.unwrap_err().problem().unwrap().status, 410);
    let none = desk
        .http
        .get(desk.url("/v1/services/feeds/partitions/b/logs"))
        .send()
        .await;
    assert_eq!(none.unwrap().status(), 404);
    desk.stop().await;
}
