//! Events and history.

use std::time::Duration;

use quorate_api::client::{EventFilter, Followed};
use quorate_api::problem::Code;
use quorate_director::Limits;
use serde_json::json;

use crate::desk::{Desk, Worker, listed, until};

#[tokio::test]
async fn a_stream_of_events_is_resumed_after_the_last_one_that_was_seen() {
    let desk = Desk::start().await;
    let all = EventFilter::default();
    let mut stream = desk.client.events(&all, None).await.unwrap();
    desk.apply(json!({ "feeds": listed(&["a", "b"]) })).await;
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(stream.next().await.unwrap().kind);
    }
    assert_eq!(
        kinds,
        ["service.created", "partition.created", "partition.created"]
    );
    let last = stream.last_id().unwrap().to_owned();
    drop(stream);

    desk.client.stop("feeds", Some("b")).await.unwrap();
    let mut resumed = desk.client.events(&all, Some(last.clone())).await.unwrap();
    let event = resumed.next().await.unwrap();
    assert_eq!(
        (event.kind.as_str(), event.key.as_deref()),
        ("partition.desired", Some("b"))
    );

    let only = EventFilter {
        key: Some("a".to_owned()),
        ..EventFilter::default()
    };
    let mut filtered = desk
        .client
        .events(&only, Some("0".to_owned()))
        .await
        .unwrap();
    assert_eq!(filtered.next().await.unwrap().kind, "partition.created");
    desk.client.stop("feeds", Some("a")).await.unwrap();
    assert_eq!(filtered.next().await.unwrap().kind, "partition.desired");
    desk.stop().await;
}

#[tokio::test]
async fn events_outlive_the_process_and_those_too_old_are_told() {
    let limits = || Limits {
        events_kept: 4,
        ..Limits::default()
    };
    let desk = Desk::with(limits()).await;
    desk.apply(json!({ "feeds": listed(&["a", "b", "c"]) }))
        .await;
    desk.client.stop("feeds", Some("c")).await.unwrap();
    let (ledger, folder) = desk.stop().await;
    let desk = Desk::over(ledger, folder, limits()).await;
    let error = desk
        .client
        .events(&EventFilter::default(), Some("1".to_owned()))
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.problem().unwrap().code, Code::Gone);
    let history = desk.client.history("feeds", "c").await.unwrap();
    let kinds: Vec<_> = history.entries.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["created", "desired"], "files know more than memory");
    desk.stop().await;
}

#[tokio::test]
async fn a_follower_that_falls_behind_hears_what_it_missed_and_goes_on() {
    let desk = Desk::with(Limits {
        events_kept: 4,
        ..Limits::default()
    })
    .await;
    let all = EventFilter::default();
    let mut stream = desk.client.events(&all, None).await.unwrap();
    let keys: Vec<String> = (0..40).map(|n| format!("k{n:02}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    desk.apply(json!({ "feeds": listed(&keys) })).await;
    let mut skipped = 0;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|key| key != "k39") {
        match stream.follow().await.unwrap() {
            Followed::Event(event) => seen.extend(event.key),
            Followed::Skipped(problem) => {
                assert!(problem.detail.contains("they are from"), "{problem}");
                skipped += 1;
            }
        }
    }
    assert_eq!(skipped, 1);
    // The fourth of those that are kept tells who has asked for it, which is no event.
    assert_eq!(seen, ["k37", "k38", "k39"]);
    desk.client.stop("feeds", Some("k00")).await.unwrap();
    let Followed::Event(next) = stream.follow().await.unwrap() else {
        panic!("nothing more was missed");
    };
    assert_eq!(next.key.as_deref(), Some("k00"));
    desk.stop().await;
}

#[tokio::test]
async fn streams_of_events_are_limited_and_end_with_the_director() {
    let desk = Desk::with(Limits {
        event_streams: 1,
        ..Limits::default()
    })
    .await;
    let open = || desk.http.get(desk.url("/v1/events")).send();
    let mut stream = open().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(open().await.unwrap().status(), 429);
    let bad = desk
        .http
        .get(desk.url("/v1/events?after=x"))
        .send()
        .await
        .unwrap();
    assert_eq!(bad.status(), 400);
    let stopped = tokio::spawn(desk.stop());
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while let Ok(Some(_)) = stream.chunk().await {}
    });
    ended.await.unwrap();
    stopped.await.unwrap();
}

#[tokio::test]
async fn joining_and_expiring_agents_are_events() {
    let desk = Desk::start().await;
    let filter = EventFilter {
        agent: Some("a1".to_owned()),
        ..EventFilter::default()
    };
    let mut stream = desk.client.events(&filter, None).await.unwrap();
    Worker::join(&desk, "a1", 3000).await;
    assert_eq!(stream.next().await.unwrap().kind, "session.opened");
    assert_eq!(stream.next().await.unwrap().kind, "session.expired");
    desk.stop().await;
}

#[tokio::test]
async fn gauges_tell_what_is_there() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a", "b"]) })).await;
    until("two partitions are counted", async || {
        let response = desk.http.get(desk.url("/metrics")).send().await.unwrap();
        let text = response.text().await.unwrap();
        let appended = |line: &str| {
            let count = line.strip_prefix("quorate_ledger_seconds_count{call=\"append\"} ");
            count.is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count >= 2))
        };
        text.contains("\nquorate_partitions 2\n")
            && text.contains("\nquorate_leading 1\n")
            && text.contains("\nquorate_ledger_failures_total{call=\"append\"} 0\n")
            && text.lines().any(appended)
    })
    .await;
    let live = desk.http.get(desk.url("/livez")).send().await.unwrap();
    assert_eq!(live.status(), 200);
    desk.stop().await;
}

#[tokio::test]
async fn events_of_the_last_so_long_are_told_first() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a"]) })).await;
    let hour = EventFilter {
        key: Some("a".to_owned()),
        since: Some("1h".to_owned()),
        ..EventFilter::default()
    };
    let mut stream = desk.client.events(&hour, None).await.unwrap();
    assert_eq!(stream.next().await.unwrap().kind, "partition.created");
    let none = EventFilter {
        since: Some("0s".to_owned()),
        ..hour.clone()
    };
    let mut later = desk.client.events(&none, None).await.unwrap();
    desk.client.stop("feeds", Some("a")).await.unwrap();
    assert_eq!(later.next().await.unwrap().kind, "partition.desired");
    for bad in ["/v1/events?since=yesterday", "/v1/events?since=1h&after=3"] {
        let response = desk.http.get(desk.url(bad)).send().await.unwrap();
        assert_eq!(response.status(), 400, "{bad}");
    }
    desk.stop().await;
}
