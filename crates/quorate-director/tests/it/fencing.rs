//! Fence hooks of the directors' own file, run for real.

use quorate_api::client::{EventFilter, PartitionFilter};
use quorate_api::problem::Code;
use quorate_api::resources::{AgentState, EvictRequest, Progress};
use quorate_api::session::WorkState;
use quorate_core::ids::HookName;
use quorate_director::{FenceHook, Limits};
use quorate_ledger::memory::MemoryLedger;
use serde_json::json;
use std::time::Duration;
use tempfile::TempDir;

use crate::desk::{Desk, Worker, config, until};
use crate::life::{assume, work};

/// A director whose hook `power-off` succeeds as soon as the file `off-<agent>` exists.
async fn desk() -> Desk {
    let folder = TempDir::new().unwrap();
    let mut config = config(&folder, Limits::default());
    let script = format!(
        "echo run >> {0}/runs; test -e {0}/off-$1 || {{ echo 'the outlet does not answer' >&2; exit 1; }}",
        folder.path().display()
    );
    let hook = FenceHook {
        command: ["/bin/sh", "-c", &script, "sh", "{{agent}}"]
            .map(str::to_owned)
            .into(),
        timeout: Duration::from_secs(5),
    };
    config
        .fences
        .insert(HookName::new("power-off").unwrap(), hook);
    let ledger = MemoryLedger::new();
    ledger.hint_leadership(Some(true));
    Desk::configured(ledger, folder, config).await
}

#[tokio::test]
async fn a_partition_of_a_silent_agent_waits_for_its_hook_and_says_so() {
    let desk = desk().await;
    let service = json!({
        "command": ["/bin/sleep", "inf"],
        "partitions": { "list": ["p"] },
        "lease": "3s",
        "fence": "power-off",
        "ramp": { "settle": "0s" },
    });
    desk.apply(json!({ "s": service })).await;
    let first = Worker::join(&desk, "a1", 3000).await;
    let items = work(&first, 1, WorkState::Assigned).await;
    let [token] = assume(&first, 1, &items).await[..] else {
        panic!("{items:?}")
    };
    // The agent is never heard again.
    let view = async || {
        let seen = desk.client.partition("s", "p", None).await;
        seen.unwrap().value
    };
    until("it waits for the hook, which has failed", async || {
        let waiting = view().await.waiting.unwrap_or_default();
        waiting.contains("fence hook power-off must succeed first")
            && waiting.contains("the outlet does not answer")
    })
    .await;
    let waiting = view().await;
    assert_eq!(waiting.token, Some(token));
    assert_eq!(waiting.agent.as_deref(), Some("a1"));
    assert!(!waiting.running);
    let agent = desk.client.agent("a1", None).await.unwrap().value;
    assert_eq!((agent.state, agent.partitions), (AgentState::Gone, 1));
    let of_agent = PartitionFilter {
        agent: Some("a1".to_owned()),
        ..PartitionFilter::default()
    };
    let held = desk.client.partitions(&of_agent, None).await.unwrap();
    assert_eq!(held.value.len(), 1, "it is nobody else's");
    let service = desk.client.service("s").await.unwrap().value;
    assert_eq!(service.agents.get("a1"), Some(&1));
    let progress = desk.client.progress(None, None).await.unwrap();
    assert_eq!(
        (progress.fencing, progress.starting, progress.total),
        (1, 0, 1)
    );
    assert_eq!((progress.eta_ms, progress.settled), (None, false));

    std::fs::write(desk.folder.path().join("off-a1"), "").unwrap();
    until("the hook has succeeded", async || {
        view().await.token.is_none()
    })
    .await;
    let second = Worker::join(&desk, "a22", 3000).await;
    let items = work(&second, 1, WorkState::Assigned).await;
    assert!(items[0].token > token, "{items:?}");
    let history = desk.client.history("s", "p").await.unwrap();
    let told: Vec<&str> = history.entries.iter().map(|e| e.kind.as_str()).collect();
    assert!(told.contains(&"fenced"), "{told:?}");
    desk.stop().await;
}

#[tokio::test]
async fn an_eviction_tells_that_it_frees_work_without_its_hook() {
    let desk = desk().await;
    let service = json!({
        "command": ["/bin/sleep", "inf"],
        "partitions": { "list": ["p"] },
        "lease": "3s",
        "fence": "power-off",
        "ramp": { "settle": "0s" },
    });
    desk.apply(json!({ "s": service })).await;
    let worker = Worker::join(&desk, "a1", 3000).await;
    let items = work(&worker, 1, WorkState::Assigned).await;
    assume(&worker, 1, &items).await;
    let view = async || {
        let seen = desk.client.partition("s", "p", None).await;
        seen.unwrap().value
    };
    until("it waits for the hook", async || {
        let waiting = view().await.waiting.unwrap_or_default();
        waiting.contains("fence hook")
    })
    .await;
    let index = desk.client.progress(None, None).await.unwrap().index;
    let all = EventFilter::default();
    let events = desk.client.events(&all, Some(index.to_string())).await;
    let mut events = events.unwrap();
    let request = EvictRequest {
        accept_duplicate_risk: true,
        reason: "its rack burnt".to_owned(),
    };
    let done = desk.client.evict("a1", &request).await.unwrap();
    assert!(done.changed);
    assert!(done.notes[0].contains("without fence hook power-off"));
    assert_eq!(events.next().await.unwrap().kind, "agent.evicted");
    let closed = events.next().await.unwrap().text;
    assert!(closed.ends_with("1 partitions freed, 1 without their fence hook"));
    let again = desk.client.evict("a1", &request).await.unwrap();
    assert!(!again.changed, "{again:?}");
    desk.stop().await;
}

#[tokio::test]
async fn kept_work_of_a_silent_agent_is_a_problem_and_counts_as_neither_running_nor_free() {
    let desk = desk().await;
    let service = json!({
        "command": ["/bin/sleep", "inf"],
        "partitions": { "list": ["p"] },
        "isolation": "keep",
        "ramp": { "settle": "0s" },
    });
    desk.apply(json!({ "s": service })).await;
    let kept = u64::try_from(quorate_core::lease::KEPT.as_millis()).unwrap();
    let worker = Worker::join(&desk, "a1", kept).await;
    let items = work(&worker, 1, WorkState::Assigned).await;
    assume(&worker, 1, &items).await;
    let problems = PartitionFilter {
        problems: true,
        ..PartitionFilter::default()
    };
    let found = desk.client.partitions(&problems, None).await.unwrap();
    assert!(found.value.is_empty(), "it runs: {found:?}");
    // The agent is never heard again.
    until("it is a problem", async || {
        let found = desk.client.partitions(&problems, None).await.unwrap();
        !found.value.is_empty()
    })
    .await;
    let seen = desk.client.partition("s", "p", None).await.unwrap().value;
    assert_eq!(
        (seen.running, seen.health.as_deref()),
        (false, Some("unknown"))
    );
    assert!(
        seen.waiting
            .unwrap()
            .contains("kept on a1, which is silent")
    );
    let why = desk.client.why("s", "p").await.unwrap();
    assert!(why.reason.contains("quorate evict a1"), "{}", why.reason);
    let progress = desk.client.progress(None, None).await.unwrap();
    let sums = |progress: &Progress| (progress.running, progress.unknown, progress.total);
    assert_eq!(sums(&progress), (0, 1, 1));
    assert!(progress.settled, "time alone changes nothing");
    let counts = desk.client.service("s").await.unwrap().value.partitions;
    assert_eq!((counts.running, counts.total), (0, 1));
    desk.client.stop("s", None).await.unwrap();
    let progress = desk.client.progress(None, None).await.unwrap();
    assert_eq!((sums(&progress), progress.stopping), ((0, 0, 0), 1));
    let counts = desk.client.service("s").await.unwrap().value.partitions;
    assert_eq!((counts.running, counts.stopping), (0, 1));
    let seen = desk.client.partition("s", "p", None).await.unwrap().value;
    assert!(
        seen.waiting
            .unwrap()
            .contains("once it is heard it stops it")
    );
    desk.stop().await;
}

#[tokio::test]
async fn a_hook_that_no_director_knows_is_refused_when_it_is_planned_and_applied() {
    let desk = desk().await;
    let spec = json!({ "service": { "s": { "command": ["/bin/true"], "fence": "reset" } } });
    let request = quorate_api::resources::ApplyRequest { spec, base: None };
    for error in [
        desk.client.plan(&request).await.unwrap_err(),
        desk.client.apply(&request).await.unwrap_err(),
    ] {
        let problem = error.problem().unwrap();
        assert_eq!(problem.code, Code::Conflict);
        assert!(problem.detail.contains("fence hook reset"), "{problem:?}");
        assert!(problem.detail.contains("power-off"), "{problem:?}");
    }
    desk.stop().await;
}
