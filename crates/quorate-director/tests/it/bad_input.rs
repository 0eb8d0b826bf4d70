//! What strangers, browsers and broken clients send.

use std::time::{Duration, Instant};

use quorate_api::problem::{Code, Problem};
use quorate_director::Limits;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::desk::{Desk, PATIENCE};

/// Sends bytes as they are and reads everything until the director closes.
async fn raw(desk: &Desk, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(desk.address).await.unwrap();
    // The director may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the director answers and closes");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(desk: &Desk, path: &str) -> Problem {
    let response = desk.http.get(desk.url(path)).send().await.unwrap();
    problem(response).await
}

async fn problem(response: reqwest::Response) -> Problem {
    let status = response.status().as_u16();
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    assert!(!problem.detail.is_empty());
    problem
}

#[tokio::test]
async fn parameters_that_make_no_sense_are_told() {
    let desk = Desk::start().await;
    for (path, message) in [
        ("/v1/partitions?limit=-1", "not a whole number"),
        ("/v1/partitions?limit=0", "at least 1"),
        ("/v1/partitions?limit=1e3", "not a whole number"),
        ("/v1/partitions?index=-1", "not a whole number"),
        (
            "/v1/partitions?index=99999999999999999999",
            "not a whole number",
        ),
        ("/v1/partitions?index=1&wait=-5s", "not a span of time"),
        ("/v1/partitions?index=1&wait=1y", "not a span of time"),
        ("/v1/partitions?wait=5s", "needs an index"),
        ("/v1/partitions?state=running", "not a state"),
        ("/v1/partitions?problems=maybe", "neither true nor false"),
        ("/v1/partitions?service=..", "not allowed"),
        ("/v1/partitions?label=x", "name=value"),
        ("/v1/partitions?cursor=agent:a1", "not from this list"),
        ("/v1/services?cursor=partition:a/b", "not from this list"),
        ("/v1/agents?cursor=%2e%2e", "not from this list"),
        ("/v1/partitions?limit=1&limit=2", "more than once"),
        ("/v1/partitions?limt=1", "no parameter"),
        ("/v1/services/-x", "not allowed"),
        ("/v1/services/a%00b", "not allowed"),
        ("/v1/services/a/partitions/%E2%80%AEx", "not allowed"),
        ("/v1/sessions/-1/work", "Invalid"),
    ] {
        let problem = get(&desk, path).await;
        assert_eq!(problem.code, Code::BadParameter, "{path}: {problem}");
        assert!(problem.detail.contains(message), "{path}: {problem}");
    }
    let slip = get(&desk, "/v1/partitions?limt=1").await;
    assert_eq!(slip.next_step.as_deref(), Some("did you mean \"limit\"?"));
    desk.stop().await;
}

#[tokio::test]
async fn a_huge_wait_is_cut_down_and_ends_with_the_director() {
    let desk = Desk::start().await;
    let url = desk.url("/v1/services?index=1000000&wait=36500d");
    let waiting = tokio::spawn(desk.http.get(url).send());
    let begun = Instant::now();
    desk.stop().await;
    let _ = waiting.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problems() {
    let desk = Desk::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/nothing",
        "//v1/services",
        "/v1/services/",
        "/v2/services",
    ] {
        assert_eq!(get(&desk, path).await.code, Code::UnknownPath, "{path}");
    }
    let response = desk
        .http
        .delete(desk.url("/v1/apply"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(problem(response).await.code, Code::MethodNotAllowed);
    let long = format!("/v1/services?cursor={}", "x".repeat(9000));
    assert_eq!(get(&desk, &long).await.code, Code::UriTooLong);
    desk.stop().await;
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be_are_told() {
    let desk = Desk::start().await;
    let post = async |kind: Option<&str>, body: String| {
        let mut request = desk.http.post(desk.url("/v1/apply")).body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        problem(request.send().await.unwrap()).await
    };
    let json = Some("application/json");
    assert_eq!(
        post(None, "{}".into()).await.code,
        Code::UnsupportedMediaType
    );
    let form = Some("application/x-www-form-urlencoded");
    assert_eq!(post(form, "a=b".into()).await.status, 415);
    for body in [
        "",
        "  ",
        "null",
        "[]",
        "{",
        "{}",
        "{\"spec\":1}",
        "{\"spec\":{},\"x\":1}",
        "{\"spec\":{},\"spec\":{}}",
        "{\"spec\":{\"service\":{\"a\":{\"command\":1}}}}",
        "{\"spec\":{\"service\":{\"../a\":{\"command\":[\"x\"]}}}}",
        "{\"spec\":{\"service\":{\"a\":{\"command\":[\"x\"],\"ramp\":{\"cluster\":-1}}}}}",
        "{\"spec\":{\"service\":{\"a\":{\"command\":[\"x\"],\"ramp\":{\"cluster\":1e309}}}}}",
        "{\"spec\":{\"service\":{\"a\":{\"command\":[\"x\"],\"ramp\":{\"cluster\":\"10\"}}}}}",
        "{\"spec\":{\"service\":{\"a\":{\"command\":[\"x\"],\"ramp\":{\"cluster\":NaN}}}}}",
        "\u{feff}{}",
    ] {
        let problem = post(json, body.into()).await;
        assert_eq!(problem.code, Code::MalformedRequest, "{body}: {problem}");
    }
    let unknown = post(json, "{\"sepc\":{}}".into()).await;
    assert_eq!(unknown.next_step.as_deref(), Some("did you mean \"spec\"?"));
    assert!(unknown.detail.contains("line 1"), "{unknown}");
    let deep = format!(
        "{{\"spec\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(post(json, deep).await.detail.contains("levels deep"));
    let empty = post(json, json!({ "spec": { "service": {} } }).to_string()).await;
    assert_eq!(empty.code, Code::InvalidSpecification);
    let relative = json!({ "spec": { "service": { "a": {
        "command": ["x"], "partitions": { "file": "a.jsonl" } } } } });
    let relative = post(json, relative.to_string()).await;
    assert!(
        relative.errors[0].message.contains("not an absolute path"),
        "{relative}"
    );
    desk.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_or_too_slow_is_refused() {
    let limits = Limits {
        apply_bytes: 10_000,
        body_time: Duration::from_millis(200),
        ..Limits::default()
    };
    let desk = Desk::with(limits).await;
    let request = desk
        .http
        .post(desk.url("/v1/apply"))
        .header("content-type", "application/json")
        .body(format!("{{\"spec\":\"{}\"}}", "x".repeat(20_000)));
    assert_eq!(
        problem(request.send().await.unwrap()).await.code,
        Code::TooLarge
    );
    let slow = raw(
        &desk,
        b"POST /v1/apply HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
          Content-Length: 100\r\nConnection: close\r\n\r\n{\"spec\":",
    )
    .await;
    assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
    desk.stop().await;
}

#[tokio::test]
async fn a_head_that_never_ends_or_comes_too_slowly_is_cut_off() {
    let limits = Limits {
        header_time: Duration::from_millis(500),
        ..Limits::default()
    };
    let desk = Desk::with(limits).await;
    // Before the first byte, within the first line, within HTTP/2's preface, within the head.
    for start in [
        "",
        "GET /liv",
        "PRI * HTTP/2.0\r\n",
        "GET /livez HTTP/1.1\r\nHost: loc",
    ] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(desk.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A byte now and then, as a slow attacker would.
        let cut = async {
            loop {
                tokio::select! {
                    read = stream.read_buf(&mut answer) => match read {
                        Ok(0) | Err(_) => break,
                        Ok(_) => {}
                    },
                    () = tokio::time::sleep(Duration::from_millis(100)) => {
                        if !start.is_empty() && !start.starts_with("PRI") {
                            let _ = stream.write_all(b"x").await;
                        }
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, cut).await.expect(start);
        assert!(begun.elapsed() < Duration::from_secs(5), "{start:?}");
    }
    let huge = format!(
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(200_000)
    );
    let answer = raw(&desk, huge.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    assert!(
        desk.client.ready().await.is_ok(),
        "the others are served all the while"
    );
    desk.stop().await;
}

#[tokio::test]
async fn requests_that_could_be_understood_in_two_ways_are_refused() {
    let desk = Desk::start().await;
    for (request, status) in [
        ("GET /livez HTTP/1.1\r\n\r\n", "403"),
        (
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "403",
        ),
        (
            "POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
            "400",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let close = request.replacen(
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1\r\nConnection: close\r\n\r\n",
            1,
        );
        let answer = raw(&desk, close.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request:?}: {answer}"
        );
    }
    desk.stop().await;
}

#[tokio::test]
async fn pages_of_other_sites_can_neither_read_nor_write() {
    let desk = Desk::start().await;
    let ask = |name: &'static str, value: String| {
        desk.http
            .post(desk.url("/v1/services/feeds/restart"))
            .header(name, value)
    };
    for (name, value) in [
        ("origin", "https://evil.example".to_owned()),
        ("origin", "null".to_owned()),
        (
            "origin",
            format!("http://localhost:{}", desk.address.port() ^ 1),
        ),
        ("sec-fetch-site", "cross-site".to_owned()),
        ("sec-fetch-site", "same-site".to_owned()),
        ("host", "evil.example".to_owned()),
    ] {
        let response = ask(name, value.clone()).send().await.unwrap();
        assert_eq!(
            problem(response).await.code,
            Code::Forbidden,
            "{name}: {value}"
        );
    }
    let own = ask("origin", format!("http://{}", desk.address))
        .send()
        .await
        .unwrap();
    assert_eq!(
        problem(own).await.code,
        Code::NotFound,
        "our own pages may ask"
    );
    let rebound = desk
        .http
        .get(desk.url("/v1/services"))
        .header("host", "evil.example:7400");
    let rebound = rebound.send().await.unwrap();
    assert_eq!(problem(rebound).await.code, Code::Forbidden);
    desk.stop().await;
}
