//! What people do: apply, list, start, stop, drain, and what they hear when it is wrong.

use quorate_api::client::{Error, PartitionFilter, Wait};
use quorate_api::problem::Code;
use quorate_api::resources::{
    AgentState, ApplyRequest, EvictRequest, PartitionState, PartitionView, ServiceChangeKind,
};
use quorate_api::routes::IDEMPOTENCY_HEADER;
use quorate_director::{Limits, RunError};
use serde_json::json;
use std::time::Duration;
use tempfile::TempDir;

use crate::desk::{Desk, Worker, config, listed, until};

fn keys(partitions: &[PartitionView]) -> Vec<String> {
    let name = |p: &PartitionView| format!("{}/{}", p.service, p.key);
    partitions.iter().map(name).collect()
}

#[tokio::test]
async fn what_is_applied_is_listed_page_by_page_and_outlives_the_process() {
    let desk = Desk::start().await;
    let range = json!({ "command": ["/bin/true"], "partitions": { "range": "0..2500" } });
    desk.apply(json!({ "many": range, "feeds": listed(&["b", "a b", "ü"]) }))
        .await;

    let all = desk
        .client
        .partitions(&PartitionFilter::default(), None)
        .await
        .unwrap();
    assert_eq!(all.value.len(), 2503);
    assert_eq!(keys(&all.value)[..3], ["feeds/a b", "feeds/b", "feeds/ü"]);
    let page = desk
        .client
        .partitions_page(&PartitionFilter::default(), 2, None)
        .await
        .unwrap();
    assert_eq!(keys(&page.items), ["feeds/a b", "feeds/b"]);
    let page = desk
        .client
        .partitions_page(&PartitionFilter::default(), 2, page.next.as_deref())
        .await
        .unwrap();
    assert_eq!(keys(&page.items), ["feeds/ü", "many/0"]);
    let one = desk
        .client
        .partition("feeds", "a b", None)
        .await
        .unwrap()
        .value;
    assert_eq!(
        (one.state, one.running),
        (PartitionState::Unassigned, false)
    );
    assert_eq!(one.waiting.as_deref(), Some("no agent is connected"));

    let services = desk.client.services(None).await.unwrap().value;
    let counts: Vec<_> = services
        .iter()
        .map(|s| (s.name.as_str(), s.partitions.total))
        .collect();
    assert_eq!(counts, [("feeds", 3), ("many", 2500)]);
    let progress = desk.client.progress(None, None).await.unwrap();
    assert_eq!(
        (
            progress.total,
            progress.waiting,
            progress.unplaceable,
            progress.settled
        ),
        (2503, 2503, 2503, true),
        "only somebody who starts an agent helps"
    );

    let (ledger, folder) = desk.stop().await;
    let desk = Desk::over(ledger, folder, Limits::default()).await;
    let again = desk
        .client
        .partitions(&PartitionFilter::default(), None)
        .await
        .unwrap();
    assert_eq!(again.value.len(), 2503);
    assert!(again.index > all.index, "the index goes on where it was");
    desk.stop().await;
}

#[tokio::test]
async fn services_are_stopped_started_restarted_and_removed() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a", "b"]) })).await;
    desk.client.stop("feeds", Some("a")).await.unwrap();
    let one = desk
        .client
        .partition("feeds", "a", None)
        .await
        .unwrap()
        .value;
    assert_eq!(one.state, PartitionState::Stopped);
    let filter = PartitionFilter {
        state: Some(PartitionState::Stopped),
        ..PartitionFilter::default()
    };
    let stopped = desk.client.partitions(&filter, None).await.unwrap().value;
    assert_eq!(keys(&stopped), ["feeds/a"]);
    desk.client.start("feeds", Some("a")).await.unwrap();
    desk.client.stop("feeds", None).await.unwrap();
    assert!(desk.client.service("feeds").await.unwrap().value.stopped);
    let restarted = desk.client.restart("feeds", None).await.unwrap();
    assert!(
        restarted.notes[0].contains("is stopped"),
        "{:?}",
        restarted.notes
    );
    desk.client.remove_service("feeds").await.unwrap();
    let error = desk.client.service("feeds").await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, Code::NotFound);
    desk.stop().await;
}

#[tokio::test]
async fn a_misspelt_name_is_answered_with_the_one_that_was_meant() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["berlin"]) })).await;
    let step = |error: Error| error.problem().unwrap().next_step.clone().unwrap();
    let error = desk.client.service("feds").await.unwrap_err();
    assert_eq!(step(error), "did you mean \"feeds\"?");
    let error = desk
        .client
        .partition("feeds", "berlni", None)
        .await
        .unwrap_err();
    assert_eq!(step(error), "did you mean \"berlin\"?");
    let error = desk.client.why("feeds", "rome").await.unwrap_err();
    assert_eq!(error.problem().unwrap().status, 404);
    let error = desk.client.history("feeds", "rome").await.unwrap_err();
    assert_eq!(error.problem().unwrap().status, 404);
    let error = desk.client.drain("a1").await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, Code::NotFound);
    desk.stop().await;
}

#[tokio::test]
async fn an_apply_is_all_or_nothing_and_tells_everything_that_is_wrong() {
    let desk = Desk::start().await;
    let mut bad = listed(&["a"]);
    bad["ramp"] = json!({ "rate": "fast" });
    bad["lease"] = json!("10ms");
    let request = ApplyRequest {
        spec: json!({ "service": { "good": listed(&["a"]), "bad": bad } }),
        base: None,
    };
    let error = desk.client.apply(&request).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(
        (problem.status, problem.code),
        (422, Code::InvalidSpecification)
    );
    let at: Vec<_> = problem.errors.iter().map(|e| e.at.as_str()).collect();
    assert_eq!(at, ["service.bad.lease", "service.bad.ramp.rate"]);
    assert!(desk.client.services(None).await.unwrap().value.is_empty());

    let request = ApplyRequest {
        spec: json!({ "service": { "feeds": { "comand": ["/bin/true"] } } }),
        base: None,
    };
    let error = desk.client.apply(&request).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(problem.status, 400);
    assert_eq!(
        problem.next_step.as_deref(),
        Some("did you mean \"command\"?")
    );
    desk.stop().await;
}

#[tokio::test]
async fn a_plan_tells_what_would_change_and_changes_nothing() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a", "b"]) })).await;
    let mut changed = listed(&["b", "c", "d"]);
    changed["ramp"] = json!({ "cluster": 5 });
    let request = ApplyRequest {
        spec: json!({ "service": { "feeds": changed, "new": listed(&["x"]) } }),
        base: None,
    };
    let plan = desk.client.plan(&request).await.unwrap();
    let feeds = &plan.services[0];
    assert_eq!(
        (feeds.service.as_str(), feeds.change),
        ("feeds", ServiceChangeKind::Changed)
    );
    assert_eq!((feeds.partitions_added, feeds.partitions_removed), (2, 1));
    assert_eq!(feeds.fields, ["partitions.list", "ramp.cluster"]);
    assert_eq!(plan.services[1].change, ServiceChangeKind::Added);
    assert_eq!(desk.client.services(None).await.unwrap().value.len(), 1);
    desk.stop().await;
}

#[tokio::test]
async fn a_file_of_partitions_is_read_and_its_changes_are_followed() {
    let desk = Desk::start().await;
    let file = desk.folder.path().join("feeds.jsonl");
    std::fs::write(&file, "{\"key\":\"a\",\"n\":1}\n").unwrap();
    let request = ApplyRequest {
        spec: json!({ "service": { "feeds": {
            "command": ["/bin/true"], "partitions": { "file": "feeds.jsonl" },
        } } }),
        base: Some(desk.folder.path().to_str().unwrap().to_owned()),
    };
    desk.client.apply(&request).await.unwrap();
    until("the file is read", async || {
        desk.client.partition("feeds", "a", None).await.is_ok()
    })
    .await;
    let one = desk
        .client
        .partition("feeds", "a", None)
        .await
        .unwrap()
        .value;
    assert_eq!(one.data.unwrap().get(), "{\"key\":\"a\",\"n\":1}");
    std::fs::write(&file, "{\"key\":\"a\"}\n{\"key\":\"b\"}\n").unwrap();
    until("the new line is read", async || {
        desk.client.partition("feeds", "b", None).await.is_ok()
    })
    .await;
    std::fs::write(&file, "{\"key\":").unwrap();
    until("the problem is told", async || {
        let service = desk.client.service("feeds").await.unwrap().value;
        service.source.problem.is_some() && service.partitions.total == 2
    })
    .await;
    desk.stop().await;
}

/// What `apply` sends of one service with this list.
fn with_list(base: &std::path::Path, guard: &str) -> ApplyRequest {
    ApplyRequest {
        spec: json!({ "service": { "feeds": {
            "command": ["/bin/true"],
            "partitions": { "file": "feeds.jsonl", "shrink_guard": guard },
        } } }),
        base: Some(base.to_str().unwrap().to_owned()),
    }
}

#[tokio::test]
async fn an_apply_tells_at_once_that_a_list_is_refused_and_progress_counts_it() {
    let desk = Desk::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("feeds.jsonl"), "{\"key\":\"a\"}\n").unwrap();
    let request = with_list(elsewhere.path(), "20%");
    let answer = desk.client.apply(&request).await.unwrap();
    let [refused] = answer.refused.as_slice() else {
        panic!("{answer:?}")
    };
    assert_eq!(refused.service, "feeds");
    assert!(refused.problem.contains("outside the folders"), "{refused}");
    assert_eq!(answer.notes, [refused.to_string()]);
    until("the directors themselves have read it", async || {
        let progress = desk.client.settling(Some("feeds"), None).await.unwrap();
        progress.refused == 1
    })
    .await;
    let folder = desk.folder.path();
    std::fs::write(folder.join("feeds.jsonl"), "{\"key\":\"a\"}\n").unwrap();
    let answer = desk.client.apply(&with_list(folder, "20%")).await.unwrap();
    assert_eq!((answer.refused, answer.notes), (vec![], vec![]));
    until("that list is taken", async || {
        let progress = desk.client.settling(None, None).await.unwrap();
        progress.refused == 0 && progress.total == 1
    })
    .await;
    desk.stop().await;
}

#[tokio::test]
async fn a_plan_and_an_apply_know_what_the_shrink_guard_refuses() {
    let desk = Desk::start().await;
    let folder = desk.folder.path();
    let write = |count: usize| {
        let lines = (0..count).map(|n| format!("{{\"key\":\"k{n}\"}}\n"));
        std::fs::write(folder.join("feeds.jsonl"), lines.collect::<String>()).unwrap();
    };
    write(6);
    desk.client.apply(&with_list(folder, "20%")).await.unwrap();
    let total = async || {
        let progress = desk.client.settling(None, None).await.unwrap();
        progress.total
    };
    until("the list is read", async || total().await == 6).await;
    write(2);
    let plan = desk.client.plan(&with_list(folder, "20%")).await.unwrap();
    let service = &plan.services[0];
    let why = service.refused.as_deref().unwrap();
    assert!(why.contains("drop 4 of 6 partitions"), "{why}");
    assert!(why.contains("shrink_guard = \"67%\""), "{why}");
    assert_eq!((service.partitions_removed, plan.stop_count), (0, 0));
    let answer = desk.client.apply(&with_list(folder, "20%")).await.unwrap();
    assert_eq!(answer.refused.len(), 1, "{answer:?}");
    assert_eq!(answer.refused[0].problem, why);
    // As it says itself, the same list is taken with the guard that it names.
    let plan = desk.client.plan(&with_list(folder, "67%")).await.unwrap();
    let service = &plan.services[0];
    assert_eq!((&service.refused, service.partitions_removed), (&None, 4));
    let answer = desk.client.apply(&with_list(folder, "67%")).await.unwrap();
    assert_eq!(answer.refused, []);
    until("the short list is taken", async || total().await == 2).await;
    desk.stop().await;
}

#[tokio::test]
async fn agents_are_drained_cordoned_and_taken_back() {
    let desk = Desk::start().await;
    Worker::join(&desk, "a1", 10_000).await;
    let state = async || desk.client.agent("a1", None).await.unwrap().value.state;
    desk.client.cordon("a1").await.unwrap();
    assert_eq!(state().await, AgentState::Cordoned);
    desk.client.drain("a1").await.unwrap();
    assert_eq!(state().await, AgentState::Draining);
    desk.client.uncordon("a1").await.unwrap();
    assert_eq!(state().await, AgentState::Active);
    desk.stop().await;
}

#[tokio::test]
async fn a_repeated_write_with_its_key_is_done_once() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a"]) })).await;
    let restart = async |key: &str, path: &str| {
        let request = desk
            .http
            .post(desk.url(path))
            .header(IDEMPOTENCY_HEADER, key);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let first = restart("k1", "/v1/services/feeds/restart").await;
    let again = restart("k1", "/v1/services/feeds/restart").await;
    assert_eq!(first, again, "the same answer, with the same index");
    let other = restart("k2", "/v1/services/feeds/restart").await;
    assert_ne!(first, other);
    let (status, text) = restart("k1", "/v1/services/feeds/stop").await;
    assert_eq!(status, 409);
    assert!(text.contains("belongs to another request"), "{text}");
    desk.stop().await;
}

#[tokio::test]
async fn a_blocking_query_wakes_when_something_changes_and_when_the_director_stops() {
    let desk = Desk::start().await;
    let index = desk.apply(json!({ "feeds": listed(&["a"]) })).await;
    let wait = |index| {
        Some(Wait {
            index,
            wait: Duration::from_secs(60),
        })
    };
    let waiting = tokio::spawn({
        let client = desk.client.clone();
        async move { client.partition("feeds", "a", wait(index)).await }
    });
    desk.client.stop("feeds", Some("a")).await.unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    let woken = woken.unwrap().unwrap().unwrap();
    assert_eq!(woken.value.state, PartitionState::Stopped);
    assert!(woken.index > index);

    let short = Wait {
        index: woken.index,
        wait: Duration::from_millis(50),
    };
    let unchanged = desk.client.services(Some(short)).await.unwrap();
    assert_eq!(unchanged.index, woken.index, "the time was over");
    let future = Wait {
        index: 1 << 40,
        wait: Duration::from_millis(50),
    };
    let future = desk.client.services(Some(future)).await.unwrap();
    assert_eq!(
        future.index, woken.index,
        "a future index waits and is told the truth"
    );

    let waiting = tokio::spawn({
        let client = desk.client.clone();
        async move { client.services(wait(1 << 40)).await }
    });
    tokio::task::yield_now().await;
    let begun = std::time::Instant::now();
    desk.stop().await;
    let _ = waiting.await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "nobody is held until the time is over"
    );
}

#[tokio::test]
async fn nothing_listens_beyond_loopback_and_no_folder_is_used_twice() {
    let folder = TempDir::new().unwrap();
    let mut beyond = config(&folder, Limits::default());
    beyond.listen = "0.0.0.0:0".parse().unwrap();
    let error = quorate_director::bind(beyond).await.unwrap_err();
    assert!(matches!(error, RunError::NotLoopback { .. }));
    assert!(error.to_string().contains("authentication"), "{error}");
    let first = quorate_director::bind(config(&folder, Limits::default()))
        .await
        .unwrap();
    let second = quorate_director::bind(config(&folder, Limits::default())).await;
    assert!(matches!(second, Err(RunError::InUse { .. })));
    drop(first);
}

#[tokio::test]
async fn only_a_silent_agent_is_evicted_and_only_by_somebody_who_takes_the_risk() {
    let desk = Desk::start().await;
    Worker::join(&desk, "a1", 3000).await;
    let mut request = EvictRequest {
        accept_duplicate_risk: false,
        reason: "its rack burnt".to_owned(),
    };
    let refused = async |request: &EvictRequest| {
        let error = desk.client.evict("a1", request).await.unwrap_err();
        let problem = error.problem().unwrap().clone();
        (problem.code, problem.detail)
    };
    let (code, why) = refused(&request).await;
    assert_eq!(code, Code::MalformedRequest, "{why}");
    assert!(why.contains("accept_duplicate_risk"), "{why}");
    request.accept_duplicate_risk = true;
    request.reason = " ".to_owned();
    let (_, why) = refused(&request).await;
    assert!(why.contains("say why"), "{why}");
    request.reason = "its rack burnt".to_owned();
    let (code, why) = refused(&request).await;
    assert_eq!(code, Code::Conflict);
    assert!(
        why.contains("was heard") && why.contains("quorate drain a1"),
        "{why}"
    );

    let here = desk.client.forget_agent("a1").await.unwrap_err();
    assert_eq!(here.problem().unwrap().code, Code::Conflict);
    until("it counts as dead and is evicted", async || {
        desk.client.evict("a1", &request).await.is_ok()
    })
    .await;
    let agent = desk.client.agent("a1", None).await.unwrap().value;
    assert_eq!(agent.state, AgentState::Gone);
    desk.client.forget_agent("a1").await.unwrap();
    let forgotten = desk.client.forget_agent("a1").await.unwrap_err();
    assert_eq!(forgotten.problem().unwrap().code, Code::NotFound);
    assert!(desk.client.agents(None).await.unwrap().value.is_empty());
    let unknown = desk.client.evict("a9", &request).await.unwrap_err();
    assert_eq!(unknown.problem().unwrap().code, Code::NotFound);
    desk.stop().await;
}
