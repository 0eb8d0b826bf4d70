//! Checkpoints over HTTP: by way of a session and on the word of an owner, read with an ETag, handed to
//! the next owner, and refused to everybody else.

use quorate_api::checkpoint::Content;
use quorate_api::client::Error;
use quorate_api::problem::{Code, Problem};
use quorate_api::session::{
    CheckpointsRequest, CheckpointsResponse, Release, ReportRequest, WorkItem, WorkState,
    WrittenCheckpoint,
};
use serde_json::json;

use crate::desk::{Desk, Worker};
use crate::life::{assume, quick, work};

fn text(text: &str) -> Content {
    Content::Text(text.to_owned())
}

async fn write(
    worker: &Worker,
    item: &WorkItem,
    number: u64,
    content: Content,
) -> Result<CheckpointsResponse, Error> {
    let request = CheckpointsRequest {
        incarnation: worker.opened.incarnation,
        checkpoints: vec![WrittenCheckpoint {
            partition: item.partition,
            token: item.token,
            number,
            content,
        }],
    };
    let (id, secret) = (worker.opened.session, &worker.secret);
    worker.client.checkpoints(id, secret, &request).await
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    result.unwrap_err().problem().unwrap().code
}

async fn holding(desk: &Desk, worker: &Worker) -> WorkItem {
    desk.apply(json!({ "feeds": quick(&["a"]) })).await;
    let items = work(worker, 1, WorkState::Assigned).await;
    assume(worker, 1, &items).await;
    items.into_iter().next().unwrap()
}

#[tokio::test]
async fn what_one_owner_writes_the_next_one_is_given_and_the_first_is_refused() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 3000).await;
    let item = holding(&desk, &worker).await;
    assert_eq!(item.checkpoint, None);
    let none = desk.client.checkpoint("feeds", "a").await;
    assert_eq!(code(none), Code::NotFound);

    let binary = Content::of(b"\x00\xff");
    let kept = write(&worker, &item, 1_000_001, binary.clone())
        .await
        .unwrap();
    assert_eq!(kept.kept, [item.token]);
    let seen = desk.client.checkpoint("feeds", "a").await.unwrap().value;
    assert_eq!((seen.token, &seen.content), (item.token, &binary));
    let view = desk.client.partition("feeds", "a", None).await.unwrap();
    let summary = view.value.checkpoint.unwrap();
    assert_eq!((summary.token, summary.bytes), (item.token, 2));
    assert_eq!(summary.at, seen.at);

    let give_back = ReportRequest {
        incarnation: worker.opened.incarnation,
        sequence: 9,
        release: vec![Release {
            partition: item.partition,
            token: item.token,
            outcome: "move".to_owned(),
            exit: None,
            failures: 0,
        }],
        ..ReportRequest::default()
    };
    let (id, secret) = (worker.opened.session, &worker.secret);
    worker.client.report(id, secret, &give_back).await.unwrap();
    let late = write(&worker, &item, 2_000_000, text("stale"))
        .await
        .unwrap();
    assert!(late.kept.is_empty());
    assert_eq!(late.refused[0].token, item.token);
    let direct = desk
        .client
        .put_checkpoint("feeds", "a", (item.token, None), &text("stale"))
        .await;
    assert_eq!(code(direct), Code::Fenced);

    let next = work(&worker, 1, WorkState::Assigned).await;
    let given = next[0].checkpoint.as_ref().unwrap();
    assert_eq!(given, &seen);
    assert!(next[0].token > item.token);
    desk.stop().await;
}

#[tokio::test]
async fn an_owner_that_speaks_for_itself_writes_under_its_token() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 3000).await;
    let item = holding(&desk, &worker).await;
    let client = &desk.client;
    for content in ["one", "two"] {
        client
            .put_checkpoint("feeds", "a", (item.token, None), &text(content))
            .await
            .unwrap();
    }
    let url = desk.url("/v1/services/feeds/partitions/a/checkpoint");
    let response = desk.http.get(&url).send().await.unwrap();
    let etag = response.headers()["etag"].clone();
    assert_eq!(etag, format!("\"{}.2\"", item.token));
    assert!(response.text().await.unwrap().contains(r#""text":"two""#));
    let again = desk.http.get(&url).header("if-none-match", &etag);
    let again = again.send().await.unwrap();
    assert_eq!(
        (again.status().as_u16(), &again.headers()["etag"]),
        (304, &etag)
    );
    client
        .put_checkpoint("feeds", "a", (item.token, None), &text("three"))
        .await
        .unwrap();
    let changed = desk.http.get(&url).header("if-none-match", &etag);
    assert_eq!(changed.send().await.unwrap().status(), 200);
    let late = client
        .put_checkpoint("feeds", "a", (item.token, Some(2)), &text("two"))
        .await;
    assert_eq!(code(late), Code::Conflict);
    // Its agent hears of what did not come through it.
    let told = work(&worker, 1, WorkState::Assumed).await;
    let told = told[0].checkpoint.as_ref().unwrap();
    assert_eq!(told.content, text("three"));
    desk.stop().await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_told() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 3000).await;
    let item = holding(&desk, &worker).await;
    let token = item.token;
    let most = text(&"x".repeat(16 * 1024));
    let client = &desk.client;
    client
        .put_checkpoint("feeds", "a", (token, None), &most)
        .await
        .unwrap();
    let large = text(&"x".repeat(16 * 1024 + 1));
    assert_eq!(code(write(&worker, &item, 1, large).await), Code::TooLarge);
    let path = "/v1/services/feeds/partitions/a/checkpoint";
    for (query, body, expected, said) in [
        ("", r#"{"text":"x"}"#, Code::BadParameter, "token"),
        ("?token=x", r#"{"text":"x"}"#, Code::BadParameter, "token"),
        ("?tokn=1", r#"{"text":"x"}"#, Code::BadParameter, "tokn"),
        (
            "?token=0",
            r#"{"text":"x"}"#,
            Code::Fenced,
            "token 0 has ended",
        ),
        (
            "?token=1",
            r#"{"base64":"?"}"#,
            Code::MalformedRequest,
            "base64",
        ),
        ("?token=1", r#"{"json":1}"#, Code::MalformedRequest, "json"),
        ("?token=1", "", Code::MalformedRequest, ""),
    ] {
        let request = desk.http.put(desk.url(&format!("{path}{query}")));
        let request = request.header("content-type", "application/json");
        let response = request.body(body).send().await.unwrap();
        let problem: Problem = response.json().await.unwrap();
        assert_eq!(problem.code, expected, "{query} {body}: {problem:?}");
        assert!(problem.detail.contains(said), "{query} {body}: {problem:?}");
    }
    let missing = client
        .put_checkpoint("feeds", "nope", (token, None), &text("x"))
        .await;
    assert_eq!(code(missing), Code::NotFound);
    let mut stranger = Worker::join(&desk, "a2", 3000).await;
    let foreign = write(&stranger, &item, 9_000_000, text("x")).await.unwrap();
    assert_eq!(foreign.refused[0].token, token);
    stranger.secret = "0".repeat(64);
    let wrong = write(&stranger, &item, 9_000_001, text("x")).await;
    assert_eq!(code(wrong), Code::Unauthenticated);
    let kept = client.checkpoint("feeds", "a").await.unwrap().value;
    assert_eq!(kept.content, most);
    desk.stop().await;
}
