//! HTTP as nobody should speak it: lengths that contradict each other, floods, slow senders.

use std::time::{Duration, Instant};

use quorate_api::problem::Code;
use quorate_director::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::desk::{Desk, PATIENCE};
use crate::wire::{problem, problem_in, raw};

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
    let told = problem_in(&slow);
    assert_eq!((told.status, told.code), (408, Code::SlowRequest));
    assert!(
        told.detail.starts_with("the body took longer than "),
        "{told}"
    );
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
    // A little too large is told in full, in either version of HTTP.
    let large = |bytes| {
        let request = desk.http.get(desk.url("/v1/services"));
        request.header("cookie", "x".repeat(bytes)).send()
    };
    let told = problem(large(20_000).await.unwrap()).await;
    assert_eq!(told.code, Code::HeadTooLarge);
    assert!(
        told.detail.contains("at most 16384 are taken"),
        "{}",
        told.detail
    );
    assert_eq!(large(16_000).await.unwrap().status(), 200);
    // Far too large is not even read.
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
        ("GET /livez HTTP/1.1\r\n\r\n", "400"),
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
        (
            "POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            "400",
        ),
        (
            "POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\n\r\n",
            "400",
        ),
        (
            "POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nX y: 1\r\n\r\n",
            "400",
        ),
        (
            "GET /livez HTTP/1.1\r\nHost: localhost\r\n folded: 1\r\n\r\n",
            "400",
        ),
        (
            "GET /livez HTTP/1.1\r\nHost: localhost.\r\nConnection: close\r\n\r\n",
            "403",
        ),
        ("GET /livez HTTP/1.0\r\n\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let close = request.replacen(
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1\r\nConnection: close\r\n\r\n",
            1,
        );
        let answer = raw(&desk, close.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}"))
                || answer.starts_with(&format!("HTTP/1.0 {status}")),
            "{request:?}: {answer}"
        );
    }
    desk.stop().await;
}

#[tokio::test]
async fn who_asks_for_another_host_or_for_two_is_told_in_words() {
    let desk = Desk::start().await;
    for (start, hosts, code, detail) in [
        (
            "GET /livez",
            "Host: localhost\r\nHost: evil.example\r\n",
            Code::MalformedRequest,
            "the request names two hosts",
        ),
        (
            "GET http://evil.example/livez",
            "Host: localhost\r\n",
            Code::Forbidden,
            "this director is not \"evil.example\"",
        ),
        (
            "GET /livez",
            "",
            Code::MalformedRequest,
            "the request names no host",
        ),
    ] {
        let request = format!("{start} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let told = problem_in(&raw(&desk, request.as_bytes()).await);
        assert_eq!((told.code, told.detail.as_str()), (code, detail));
        assert!(told.next_step.is_some(), "{told:?}");
    }
    desk.stop().await;
}

#[tokio::test]
async fn an_absolute_address_of_this_director_is_taken() {
    let desk = Desk::start().await;
    let ask =
        b"GET http://localhost/livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    assert!(raw(&desk, ask).await.ends_with("\r\n\r\nok\n"));
    desk.stop().await;
}

#[tokio::test]
async fn what_follows_a_body_with_two_lengths_is_not_read_as_a_request() {
    let desk = Desk::start().await;
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        let request = format!(
            "POST /v1/apply HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{lengths}\r\n\r\n\
             0\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        // The director ends the connection by itself.
        let answer = raw(&desk, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.contains("the body is empty"), "{answer}");
    }
    desk.stop().await;
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_their_order() {
    let desk = Desk::start().await;
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let all = [
        ask("/livez"),
        ask("/v1/nothing"),
        ask("/livez"),
        "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
        ask("/livez"),
    ];
    let answer = raw(&desk, all.concat().as_bytes()).await;
    let statuses: Vec<&str> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answer[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "404", "200", "200"], "{answer}");

    // Whoever asks and never reads is not asked to wait for, and costs no more than its buffers.
    let mut greedy = TcpStream::connect(desk.address).await.unwrap();
    let flood = ask("/openapi.json").repeat(100);
    let sent = async {
        let mut sent = 0;
        while greedy.write_all(flood.as_bytes()).await.is_ok() {
            sent += flood.len();
        }
        sent
    };
    let stalled = tokio::time::timeout(Duration::from_secs(1), sent).await;
    assert!(stalled.is_err(), "more is taken than answers are read");
    assert!(desk.client.ready().await.is_ok());
    drop(greedy);
    desk.stop().await;
}

#[tokio::test]
async fn a_head_of_a_hundred_megabytes_is_not_read() {
    let desk = Desk::start().await;
    for start in [
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ",
        "GET /",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n",
    ] {
        let mut stream = TcpStream::connect(desk.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let part = "X: y\r\n".repeat(10_000);
        let part = match start.ends_with("\r\n") {
            true => part,
            false => "x".repeat(part.len()),
        };
        let mut sent = 0;
        while sent < 100 << 20 {
            let write = stream.write_all(part.as_bytes());
            match tokio::time::timeout(PATIENCE, write).await {
                Ok(Ok(())) => sent += part.len(),
                Ok(Err(_)) => break,
                Err(_) => panic!("the connection is neither read nor closed"),
            }
        }
        assert!(sent < 20 << 20, "{sent} bytes were taken");
    }
    desk.stop().await;
}

#[tokio::test]
async fn packed_bodies_and_ranges_are_not_what_this_takes() {
    let desk = Desk::start().await;
    for coding in ["gzip", "br", "deflate, gzip", "x"] {
        let request = desk.http.post(desk.url("/v1/apply"));
        let request = request
            .header("content-type", "application/json")
            .header("content-encoding", coding)
            .body(vec![0x1f, 0x8b, 8, 0]);
        let problem = problem(request.send().await.unwrap()).await;
        assert_eq!(problem.code, Code::UnsupportedMediaType, "{coding}");
        assert!(problem.detail.contains("packed with"), "{problem}");
    }
    for (kind, message) in [
        (None, "does not say what it is"),
        (Some("text/plain"), "\"text/plain\", not JSON"),
        (Some("application/x-www-form-urlencoded"), "not JSON"),
        (Some("application/jsonp"), "not JSON"),
    ] {
        let mut request = desk.http.post(desk.url("/v1/apply")).body("{}");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let problem = problem(request.send().await.unwrap()).await;
        assert_eq!(problem.code, Code::UnsupportedMediaType, "{kind:?}");
        assert!(problem.detail.contains(message), "{kind:?}: {problem}");
    }
    let part = desk
        .http
        .get(desk.url("/v1/services"))
        .header("range", "bytes=0-3");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), 200, "a range is answered with the whole");
    let page: serde_json::Value = part.json().await.unwrap();
    assert_eq!(page["items"], serde_json::json!([]));
    desk.stop().await;
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_not_waited_for() {
    let desk = Desk::start().await;
    let begun = Instant::now();
    for (path, length) in [("/v1/apply", 17 << 20), ("/v1/sessions", 2 << 20)] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(&desk, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("the body has more than"), "{answer}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "not by the limit of time"
    );
    desk.stop().await;
}
