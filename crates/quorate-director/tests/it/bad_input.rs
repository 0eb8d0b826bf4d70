//! What strangers, browsers and people who slip ask for: parameters, paths, other sites.

use std::time::{Duration, Instant};

use quorate_api::problem::Code;

use crate::desk::Desk;
use crate::wire::{get, problem};

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
        (
            "/v1/sessions/-1/work",
            "\"-1\" is not a whole number from 0 on",
        ),
        ("/v1/sessions/x/work", "\"x\" is not a whole number"),
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
        "/livez/",
        "/livez.",
        "/v1/services.",
    ] {
        let problem = get(&desk, path).await;
        assert_eq!(problem.code, Code::UnknownPath, "{path}");
        assert_eq!(problem.detail, format!("there is no path {path:?}"));
    }
    let response = desk
        .http
        .delete(desk.url("/v1/apply"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    let wrong = problem(response).await;
    assert_eq!(wrong.code, Code::MethodNotAllowed);
    assert_eq!(wrong.detail, "DELETE is not possible at \"/v1/apply\"");
    let long = format!("/v1/services?cursor={}", "x".repeat(9000));
    assert_eq!(get(&desk, &long).await.code, Code::UriTooLong);
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
