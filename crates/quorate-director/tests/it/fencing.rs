//! Fence hooks of the directors' own file, run for real.

use quorate_api::problem::Code;
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
        "lease": "2s",
        "fence": "power-off",
        "ramp": { "settle": "0s" },
    });
    desk.apply(json!({ "s": service })).await;
    let first = Worker::join(&desk, "a1", 2000).await;
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

    std::fs::write(desk.folder.path().join("off-a1"), "").unwrap();
    until("the hook has succeeded", async || {
        view().await.token.is_none()
    })
    .await;
    let second = Worker::join(&desk, "a22", 2000).await;
    let items = work(&second, 1, WorkState::Assigned).await;
    assert!(items[0].token > token, "{items:?}");
    let history = desk.client.history("s", "p").await.unwrap();
    let told: Vec<&str> = history.entries.iter().map(|e| e.kind.as_str()).collect();
    assert!(told.contains(&"fenced"), "{told:?}");
    desk.stop().await;
}

#[tokio::test]
async fn a_hook_that_no_director_knows_is_refused_when_it_is_applied() {
    let desk = desk().await;
    let spec = json!({ "service": { "s": { "command": ["/bin/true"], "fence": "reset" } } });
    let request = quorate_api::resources::ApplyRequest { spec, base: None };
    let error = desk.client.apply(&request).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(problem.code, Code::Conflict);
    assert!(problem.detail.contains("fence hook reset"), "{problem:?}");
    assert!(problem.detail.contains("power-off"), "{problem:?}");
    desk.stop().await;
}
