//! Bodies that are not what they should be, and names of all odd kinds: what a person reads of each.

use quorate_api::problem::{Code, Problem};
use serde_json::{Value, json};

use crate::desk::{Desk, Worker, listed};
use crate::wire::{get, problem};

/// Posts a body as JSON.
async fn post(desk: &Desk, path: &str, body: impl Into<reqwest::Body>) -> Problem {
    let request = desk.http.post(desk.url(path)).body(body);
    let request = request.header("content-type", "application/json");
    problem(request.send().await.unwrap()).await
}

/// A service `a` with this beside its command, as the body of an apply.
fn service(rest: &str) -> String {
    format!("{{\"spec\":{{\"service\":{{\"a\":{{\"command\":[\"x\"],{rest}}}}}}}}}")
}

#[tokio::test]
async fn bodies_that_are_no_object_are_told_what_they_are() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 60_000).await;
    let session = format!("/v1/sessions/{}", worker.opened.session);
    let bodies = [
        ("", "the body is empty"),
        (" \r\n ", "the body is empty"),
        ("null", "the body is null, not an object"),
        ("[]", "the body is a list, not an object"),
        ("[{},null]", "the body is a list, not an object"),
        ("1", "the body is a number, not an object"),
        ("\"{}\"", "the body is a text, not an object"),
        ("true", "the body is true or false, not an object"),
        ("NaN", "the body is no JSON, not an object"),
        ("<a/>", "the body is no JSON, not an object"),
        ("\u{feff}{}", "marked with a byte order mark, not an object"),
        ("{", "the text ends in the middle of an object"),
    ];
    for path in ["/v1/apply", "/v1/plan", "/v1/sessions"] {
        for (body, message) in bodies {
            let problem = post(&desk, path, body).await;
            assert_eq!(
                problem.code,
                Code::MalformedRequest,
                "{path} {body}: {problem}"
            );
            assert!(problem.detail.contains(message), "{path} {body}: {problem}");
            assert!(problem.next_step.is_some(), "{path} {body}");
        }
    }
    for path in ["renew", "report", "resume", "close", "log-chunks"] {
        for (body, message) in bodies {
            let request = desk.http.post(desk.url(&format!("{session}/{path}")));
            let request = request
                .header("content-type", "application/json")
                .header("authorization", format!("Session {}", worker.secret));
            let problem = problem(request.body(body).send().await.unwrap()).await;
            assert_eq!(
                problem.code,
                Code::MalformedRequest,
                "{path} {body}: {problem}"
            );
            assert!(problem.detail.contains(message), "{path} {body}: {problem}");
        }
    }
    for (body, message) in bodies {
        let request = desk.http.put(desk.url("/v1/services/a"));
        let request = request.header("content-type", "application/json");
        let problem = problem(request.body(body).send().await.unwrap()).await;
        assert!(problem.detail.contains(message), "put {body}: {problem}");
    }
    desk.stop().await;
}

#[tokio::test]
async fn what_is_wrong_within_a_body_is_told_in_a_persons_words() {
    let desk = Desk::start().await;
    let ramp = |value: &str| service(&format!("\"ramp\":{{\"cluster\":{value}}}"));
    let source = |value: &str| service(&format!("\"partitions\":{{{value}}}"));
    let cases: &[(u16, String, &str)] = &[
        (400, "{}".into(), "missing field `spec`"),
        (
            400,
            "{\"spec\":1}".into(),
            "expected a table, found the number 1",
        ),
        (
            400,
            "{\"spec\":null}".into(),
            "expected a table, found null",
        ),
        (
            400,
            "{\"spec\":[]}".into(),
            "expected a table, found a list",
        ),
        (422, "{\"spec\":{}}".into(), "the file has no service"),
        (
            400,
            "{\"spec\":{\"service\":[]}}".into(),
            "expected a table, found a list",
        ),
        (
            400,
            "{\"spec\":{},\"spec\":{}}".into(),
            "duplicate field `spec`",
        ),
        (400, "{\"spec\":{},\"x\":1}".into(), "unknown field `x`"),
        (
            400,
            "{\"spec\":{\"service\":{\"a\":null}}}".into(),
            "expected a table, found null",
        ),
        (
            400,
            "{\"spec\":{\"service\":{\"a\":{}}}}".into(),
            "missing field `command`",
        ),
        (
            400,
            "{\"spec\":{\"service\":{\"a\":{\"command\":1}}}}".into(),
            "expected a list, found the number 1",
        ),
        (
            422,
            "{\"spec\":{\"service\":{\"a\":{\"command\":[]}}}}".into(),
            "there is no command",
        ),
        (
            400,
            "{\"spec\":{\"service\":{\"a\":{\"command\":[\"x\"]},\"a\":{\"command\":[\"y\"]}}}}"
                .into(),
            "the field \"a\" comes twice",
        ),
        (
            400,
            service("\"command\":[\"y\"]"),
            "the field \"command\" comes twice",
        ),
        (
            400,
            service("\"env\":{\"A\":\"1\",\"A\":\"2\"}"),
            "the field \"A\" comes twice",
        ),
        (
            400,
            service("\"env\":{\"A\":1}"),
            "expected a text, found the number 1",
        ),
        (400, ramp("-1"), "from 0 to 4294967295, found the number -1"),
        (
            400,
            ramp("1.5"),
            "from 0 to 4294967295, found the number 1.5",
        ),
        (
            400,
            ramp("9007199254740993"),
            "found the number 9007199254740993",
        ),
        (
            400,
            ramp("\"10\""),
            "from 0 to 4294967295, found the text \"10\"",
        ),
        (400, ramp("1e309"), "number out of range"),
        (400, ramp("NaN"), "this is no JSON value"),
        (400, ramp("Infinity"), "this is no JSON value"),
        (400, ramp("010"), "invalid number"),
        (422, ramp("0"), "with 0 nothing would ever start"),
        (
            400,
            service("\"ramp\":[]"),
            "expected a table, found a list",
        ),
        (422, source("\"list\":[]"), "it has no partition at all"),
        (
            422,
            source("\"range\":\"0..0\""),
            "it has no partition at all",
        ),
        (422, source(""), "no source of partitions is named"),
        (
            422,
            source("\"list\":[\"a\",\"b\",\"a\"]"),
            "the key \"a\" is already at",
        ),
        (
            400,
            source("\"list\":\"a\""),
            "expected a list, found the text \"a\"",
        ),
        (
            422,
            source("\"range\":\"0..10000000\""),
            "10000000 partitions are more than the 1000000",
        ),
        (
            422,
            source("\"range\":\"0..99999999999999999999\""),
            "is not a range",
        ),
        (422, source("\"range\":\"5..1\""), "ends before it begins"),
        (422, source("\"range\":\"-5..1\""), "is not a range"),
        (
            400,
            service("\"lease\":10"),
            "expected a text, found the number 10",
        ),
        (400, service("\"lease\":\"-5s\""), "is not a span of time"),
        (400, "{\"spec\":{},}".into(), "trailing comma"),
        (400, "{\"spec\":{}} {}".into(), "trailing characters"),
    ];
    for (status, body, message) in cases {
        let problem = post(&desk, "/v1/apply", body.clone()).await;
        assert_eq!(problem.status, *status, "{body}: {problem}");
        assert!(problem.detail.contains(message), "{body}: {problem}");
        assert!(problem.next_step.is_some(), "{body}: {problem}");
    }
    let slip = post(&desk, "/v1/apply", "{\"sepc\":{}}").await;
    assert_eq!(slip.next_step.as_deref(), Some("did you mean \"spec\"?"));
    assert!(slip.detail.contains("line 1"), "{slip}");
    let deep = format!(
        "{{\"spec\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(
        post(&desk, "/v1/apply", deep)
            .await
            .detail
            .contains("levels deep")
    );
    let relative = source("\"file\":\"a.jsonl\"");
    let relative = post(&desk, "/v1/apply", relative).await;
    assert!(
        relative.errors[0].message.contains("not an absolute path"),
        "{relative}"
    );
    assert!(desk.client.services(None).await.unwrap().value.is_empty());
    desk.stop().await;
}

#[tokio::test]
async fn a_registration_that_makes_no_sense_is_told_and_opens_nothing() {
    let desk = Desk::start().await;
    let good = json!({
        "agent": "a1", "agent_id": 1, "boot_id": "b", "machine_id": "m", "containment": "kernel",
        "lease_ms": 10_000, "secret": "0".repeat(64), "process": 7, "version": "test",
    });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body.to_string()
    };
    for (body, message) in [
        (with("agent", json!("..")), "an agent name has letters"),
        (with("agent", json!("")), "an agent name cannot be empty"),
        (
            with("agent_id", json!("1")),
            "from 0 on, found the text \"1\"",
        ),
        (
            with("agent_id", json!(-1)),
            "from 0 on, found the number -1",
        ),
        (
            with("agent_id", json!(1.5)),
            "from 0 on, found the number 1.5",
        ),
        (with("agent_id", json!(null)), "from 0 on, found null"),
        (with("secret", json!("short")), "256 random bits"),
        (
            with("containment", json!("prayer")),
            "unknown variant `prayer`",
        ),
        (
            with("labels", json!({}))
                .replace("\"labels\":{}", "\"labels\":{\"a\":\"1\",\"a\":\"2\"}"),
            "the field \"a\" comes twice",
        ),
    ] {
        let problem = post(&desk, "/v1/sessions", body.clone()).await;
        assert_eq!(problem.code, Code::MalformedRequest, "{body}: {problem}");
        assert!(problem.detail.contains(message), "{body}: {problem}");
    }
    let problem = post(&desk, "/v1/sessions", with("lease_ms", json!(0))).await;
    assert_eq!(problem.code, Code::InvalidSpecification, "{problem}");
    assert!(
        problem.detail.contains("lease_ms: 0s is too short"),
        "{problem}"
    );
    let claimed = with("labels", json!({ "zone": "a", "containment": "kernel" }));
    let problem = post(&desk, "/v1/sessions", claimed).await;
    assert_eq!(problem.code, Code::InvalidSpecification, "{problem}");
    assert!(
        problem
            .detail
            .contains("labels.containment: every agent has this label by itself"),
        "{problem}"
    );
    assert!(desk.client.agents(None).await.unwrap().value.is_empty());
    // An agent of a newer version may say more than this director understands.
    let request = desk.http.post(desk.url("/v1/sessions"));
    let request = request.header("content-type", "application/json");
    let newer = request.body(with("x", json!(1))).send().await.unwrap();
    assert_eq!(newer.status(), 200);
    desk.stop().await;
}

/// Written as in a path, as in JSON, and whether a service and a partition may be named so.
const NAMES: &[(&str, &str, bool, bool)] = &[
    ("%20", " ", false, false),
    ("..", "..", false, false),
    ("%2e%2e", "..", false, false),
    ("a%2Fb", "a/b", false, false),
    ("a%5Cb", "a\\\\b", false, false),
    ("a%00b", "a\\u0000b", false, false),
    ("a%0Ab", "a\\nb", false, false),
    ("a%0Db", "a\\rb", false, false),
    ("%E2%80%AEa", "\\u202ea", false, false),
    ("%E2%80%8Ba", "\\u200ba", false, false),
    ("%EF%BB%BFa", "\\ufeffa", false, false),
    ("-x", "-x", false, false),
    (".a", ".a", false, false),
    ("a%20", "a ", false, false),
    ("a%20b", "a b", false, true),
    ("%D0%B0dmin", "\u{430}dmin", false, true),
    ("%F0%9F%98%80", "😀", false, true),
    ("%252e%252e", "%2e%2e", false, true),
    ("%3Cscript%3E", "<script>", false, true),
    ("a.", "a.", true, true),
];

#[tokio::test]
async fn odd_names_are_refused_alike_in_paths_and_bodies() {
    let desk = Desk::start().await;
    desk.apply(json!({ "feeds": listed(&["a"]) })).await;
    for (path, text, of_service, of_partition) in NAMES {
        for (begin, kind, allowed) in [
            ("/v1/services/", "a service name", of_service),
            ("/v1/agents/", "an agent name", of_service),
            (
                "/v1/services/feeds/partitions/",
                "a partition key",
                of_partition,
            ),
        ] {
            let problem = get_path(&desk, &format!("{begin}{path}")).await;
            if *allowed {
                assert_eq!(problem.code, Code::NotFound, "{begin}{path}: {problem}");
            } else {
                assert_eq!(problem.code, Code::BadParameter, "{begin}{path}: {problem}");
                assert!(problem.detail.starts_with(kind), "{begin}{path}: {problem}");
            }
        }
        let named = format!("{{\"spec\":{{\"service\":{{\"{text}\":{{\"command\":[\"x\"]}}}}}}}}");
        let keyed = service(&format!("\"partitions\":{{\"list\":[\"{text}\"]}}"));
        for (body, kind, allowed) in [
            (named, "a service name", of_service),
            (keyed, "a partition key", of_partition),
        ] {
            let request = desk.http.post(desk.url("/v1/plan")).body(body.clone());
            let request = request.header("content-type", "application/json");
            let response = request.send().await.unwrap();
            if *allowed {
                assert_eq!(response.status(), 200, "{body}");
                continue;
            }
            let problem = problem(response).await;
            assert!([400, 422].contains(&problem.status), "{body}: {problem}");
            assert!(problem.detail.contains(kind), "{body}: {problem}");
        }
    }
    let long = "x".repeat(64 << 10);
    let body = service(&format!("\"partitions\":{{\"list\":[\"{long}\"]}}"));
    let problem = post(&desk, "/v1/apply", body).await;
    assert!(
        problem
            .detail
            .contains("at most 200 bytes, this one has 65536")
    );
    assert!(problem.detail.len() < 1000, "it is not told in full");
    let problem = get(&desk, &format!("/v1/services/{}", &long[..7000])).await;
    assert!(problem.detail.contains("at most 63 bytes"), "{problem}");
    let problem = get_path(&desk, "/v1/services/%FF").await;
    assert_eq!(problem.code, Code::BadParameter);
    assert!(problem.detail.contains("UTF-8"), "{problem}");
    desk.stop().await;
}

/// Asks for a path letter for letter: a client's library would tidy up its dots.
async fn get_path(desk: &Desk, path: &str) -> Problem {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = crate::wire::raw(desk, head.as_bytes()).await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
}

#[tokio::test]
async fn an_action_takes_no_body_or_an_empty_object_and_nothing_else() {
    let desk = Desk::start().await;
    desk.apply(json!({ "a": listed(&["k"]) })).await;
    let _worker = Worker::join(&desk, "a1", 60_000).await;
    for path in [
        "/v1/services/a/start",
        "/v1/services/a/restart",
        "/v1/services/a/stop",
        "/v1/services/a/partitions/k/start",
        "/v1/services/a/partitions/k/restart",
        "/v1/services/a/partitions/k/stop",
        "/v1/agents/a1/drain",
        "/v1/agents/a1/cordon",
        "/v1/agents/a1/uncordon",
    ] {
        let refused = post(&desk, path, "{\"reason\":\"x\"}").await;
        assert_eq!(refused.code, Code::MalformedRequest, "{path}: {refused}");
        assert!(refused.detail.contains("reason"), "{path}: {refused}");
        let text = post(&desk, path, "reason").await;
        assert_eq!(text.code, Code::MalformedRequest, "{path}: {text}");
        for body in ["", "{}", " { } "] {
            let request = desk.http.post(desk.url(path)).body(body);
            let request = request.header("content-type", "application/json");
            let status = request.send().await.unwrap().status();
            assert_eq!(status, 200, "{path} {body:?}");
        }
        let bare = desk.http.post(desk.url(path)).send().await.unwrap();
        assert_eq!(bare.status(), 200, "{path}");
    }
    desk.stop().await;
}
