//! Writes on a condition: `ETag`, `If-Match`, `If-None-Match`.

use quorate_api::problem::{Code, Problem};
use quorate_director::Limits;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::desk::{Desk, Worker, listed};

const FEEDS: &str = "/v1/services/feeds";

async fn tag(desk: &Desk, path: &str) -> String {
    let response = desk.http.get(desk.url(path)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    tag
}

/// A write with these headers: its status and what the problem says.
async fn write(
    desk: &Desk,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> (u16, Option<Problem>) {
    let mut request = desk.http.request(method, desk.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    let problem = match status.is_success() {
        true => None,
        false => Some(response.json().await.unwrap()),
    };
    (status.as_u16(), problem)
}

async fn put(desk: &Desk, headers: &[(&str, &str)], body: &Value) -> (u16, Option<Problem>) {
    write(desk, Method::PUT, FEEDS, headers, Some(body)).await
}

#[tokio::test]
async fn of_two_that_read_the_same_only_one_writes() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a"]) })).await;
    for round in 0..5 {
        let seen = tag(&desk, FEEDS).await;
        let bodies = ["b", "c", "d", "e"].map(|key| listed(&[key, &format!("round-{round}")]));
        let condition = [("if-match", seen.as_str())];
        let writes = bodies.iter().map(|body| put(&desk, &condition, body));
        let answers = futures::future::join_all(writes).await;
        let done = answers.iter().filter(|(status, _)| *status == 200).count();
        assert_eq!(done, 1, "{answers:?}");
        for (status, problem) in answers.iter().filter(|(status, _)| *status != 200) {
            let problem = problem.as_ref().unwrap();
            assert_eq!((*status, problem.code), (412, Code::PreconditionFailed));
            assert_eq!(
                problem.detail,
                "service feeds has changed since it was read"
            );
            assert!(
                problem
                    .next_step
                    .as_ref()
                    .unwrap()
                    .contains("read it again")
            );
        }
    }
    desk.stop().await;
}

#[tokio::test]
async fn every_write_of_an_object_takes_a_condition() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a"]) })).await;
    Worker::join(&desk, "a1", 60_000).await;
    let post = |path: String, object: &'static str| (Method::POST, path, object);
    let partition = "/v1/services/feeds/partitions/a";
    let agent = "/v1/agents/a1";
    let writes = [
        post(format!("{FEEDS}/restart"), FEEDS),
        post(format!("{FEEDS}/stop"), FEEDS),
        post(format!("{FEEDS}/start"), FEEDS),
        post(format!("{partition}/restart"), partition),
        post(format!("{partition}/stop"), partition),
        post(format!("{partition}/start"), partition),
        post(format!("{agent}/cordon"), agent),
        post(format!("{agent}/drain"), agent),
        post(format!("{agent}/uncordon"), agent),
        (Method::DELETE, FEEDS.to_owned(), FEEDS),
    ];
    for (method, path, object) in writes {
        for stale in ["\"0.1\"", "W/\"0.1\"", "\"something\""] {
            let headers = [("if-match", stale)];
            let (status, _) = write(&desk, method.clone(), &path, &headers, None).await;
            assert_eq!(status, 412, "{path} {stale}");
        }
        let headers = [("if-none-match", "*")];
        let (status, problem) = write(&desk, method.clone(), &path, &headers, None).await;
        assert_eq!(status, 412, "{path}");
        assert!(problem.unwrap().detail.contains("exists already"));
        // The leader may be about to place the partition: then what was read is stale, truly.
        let mut tries = 0;
        loop {
            let seen = tag(&desk, object).await;
            let list = format!("\"0.1\", {seen}");
            let headers = [("if-match", list.as_str())];
            match write(&desk, method.clone(), &path, &headers, None).await.0 {
                200 => break,
                412 => tries += 1,
                other => panic!("{path}: {other}"),
            }
            assert!(tries < 20, "{path} is stale again and again");
        }
    }
    desk.stop().await;
}

#[tokio::test]
async fn a_service_is_created_only_when_there_is_none() {
    let desk = Desk::start().await;
    let body = listed(&["a"]);
    let (status, problem) = put(&desk, &[("if-match", "*")], &body).await;
    assert_eq!(status, 412);
    assert_eq!(problem.unwrap().detail, "service feeds does not exist");
    let create = [("if-none-match", "*")];
    let both = futures::future::join(put(&desk, &create, &body), put(&desk, &create, &body));
    let (one, other) = both.await;
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    assert_eq!(
        put(&desk, &[("if-match", "*")], &listed(&["b"])).await.0,
        200
    );
    let missing = "/v1/services/none";
    let headers = [("if-match", "\"0.1\"")];
    let (status, _) = write(&desk, Method::DELETE, missing, &headers, None).await;
    assert_eq!(status, 404, "what does not exist is told as that");
    desk.stop().await;
}

#[tokio::test]
async fn conditions_that_make_no_sense_are_told() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a"]) })).await;
    for (headers, message) in [
        (vec![("if-match", "0.4")], "no list of tags"),
        (vec![("if-match", "\"0.4")], "no list of tags"),
        (vec![("if-match", "")], "no list of tags"),
        (
            vec![("if-match", "*"), ("if-match", "\"0.4\"")],
            "no list of tags",
        ),
        (vec![("if-none-match", "\"0.4\"")], "only *"),
        (vec![("if-match", "*"), ("if-none-match", "*")], "together"),
    ] {
        let (status, problem) = put(&desk, &headers, &listed(&["b"])).await;
        let problem = problem.unwrap();
        assert_eq!(
            (status, problem.code),
            (400, Code::BadParameter),
            "{headers:?}"
        );
        assert!(problem.detail.contains(message), "{headers:?}: {problem}");
    }
    let body = json!({ "spec": { "service": { "feeds": listed(&["b"]) } } });
    let headers = [("if-match", "*")];
    let (status, problem) = write(&desk, Method::POST, "/v1/apply", &headers, Some(&body)).await;
    assert_eq!(status, 400);
    assert!(problem.unwrap().detail.contains("many objects"));
    desk.stop().await;
}

#[tokio::test]
async fn tags_outlive_the_process_and_change_with_their_objects_only() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a", "b"]), "other": listed(&["x"]) }))
        .await;
    let paths = [
        FEEDS,
        "/v1/services/feeds/partitions",
        "/v1/services/feeds/partitions/a",
        "/v1/services/feeds/partitions/b",
        "/v1/services/other",
        "/v1/services/other/partitions",
    ];
    let all = async |desk: &Desk| {
        let mut tags = Vec::new();
        for path in paths {
            tags.push(tag(desk, path).await);
        }
        tags
    };
    let before = all(&desk).await;
    let (ledger, folder) = desk.stop().await;
    let desk = Desk::over(ledger, folder, Limits::default()).await;
    assert_eq!(all(&desk).await, before, "as another director would say");
    desk.client.stop("feeds", Some("a")).await.unwrap();
    let after = all(&desk).await;
    let changed: Vec<bool> = before.iter().zip(&after).map(|(b, a)| b != a).collect();
    assert_eq!(changed, [false, true, true, false, false, false]);
    let why = desk
        .http
        .get(desk.url("/v1/services"))
        .send()
        .await
        .unwrap();
    assert!(
        !why.headers().contains_key("etag"),
        "a list of many has none"
    );
    assert_eq!(why.headers()["cache-control"], "no-store");
    desk.stop().await;
}
