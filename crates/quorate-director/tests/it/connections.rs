//! How many connections and held requests there may be, and that agents are served whatever people do.

use std::time::{Duration, Instant};

use quorate_api::client::Client;
use quorate_api::problem::Problem;
use quorate_api::session::RenewRequest;
use quorate_director::Limits;
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::desk::{Desk, PATIENCE, listed, registration, until};

async fn connect(desk: &Desk) -> TcpStream {
    TcpStream::connect(desk.address).await.unwrap()
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// The status line and what else comes at once; nothing when the director closed.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::with_capacity(4096);
    let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut bytes)).await;
    // A connection that was cut says nothing.
    let _ = read.expect("an answer or an end");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the director to close.
async fn ended(stream: &mut TcpStream) {
    let rest = async { while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {} };
    tokio::time::timeout(PATIENCE, rest)
        .await
        .expect("the director closes");
}

fn renewal(counter: u64, incarnation: u64) -> RenewRequest {
    serde_json::from_value(json!({
        "incarnation": incarnation, "counter": counter, "nonce": counter, "sent_ms": counter,
    }))
    .unwrap()
}

/// A session of an agent that connects now.
struct Agent {
    client: Client,
    secret: String,
    session: u64,
    incarnation: u64,
    counter: u64,
}

impl Agent {
    async fn join(desk: &Desk, name: &str) -> Self {
        let client = Client::new(vec![desk.address.to_string()], None).unwrap();
        let request = registration(name, 60_000);
        let opened = client.register(&request).await.unwrap();
        Self {
            client,
            secret: request.secret,
            session: opened.session,
            incarnation: opened.incarnation,
            counter: 0,
        }
    }

    async fn renew(&mut self) {
        self.counter += 1;
        let request = renewal(self.counter, self.incarnation);
        let renewed = self.client.renew(self.session, &self.secret, &request);
        assert_eq!(renewed.await.unwrap().renewed, [self.session]);
    }
}

#[tokio::test]
async fn idle_connections_and_blocking_queries_keep_no_agent_out() {
    let limits = Limits {
        connections: 150,
        ..Limits::default()
    };
    let desk = Desk::with(limits).await;
    let mut before = Agent::join(&desk, "before").await;
    let mut blocked = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(&desk).await;
        ask(&mut stream, "/v1/services?index=1000000&wait=300s").await;
        blocked.push(stream);
    }
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(connect(&desk).await);
    }
    // The general share is taken, the rest by connections that say nothing.
    let mut turned_away = connect(&desk).await;
    ask(&mut turned_away, "/v1/services").await;
    let text = answer(&mut turned_away).await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.contains("connection: close"), "{text}");
    assert!(text.contains("what is left is for agents"), "{text}");
    ended(&mut turned_away).await;

    let mut agents = vec![Agent::join(&desk, "after").await];
    agents.push(Agent::join(&desk, "later").await);
    for _ in 0..5 {
        let begun = Instant::now();
        before.renew().await;
        for agent in &mut agents {
            agent.renew().await;
        }
        assert!(begun.elapsed() < Duration::from_secs(3));
        // And there are always more of the others.
        for _ in 0..20 {
            idle.push(connect(&desk).await);
        }
    }
    drop((blocked, idle));
    until("people are served again", async || {
        let asked = desk.http.get(desk.url("/v1/services")).send().await;
        asked.is_ok_and(|response| response.status() == StatusCode::OK)
    })
    .await;
    desk.stop().await;
}

#[tokio::test]
async fn requests_that_wait_have_a_limit_and_the_others_are_answered() {
    let limits = Limits {
        connections: 40,
        held_percent: 20,
        ..Limits::default()
    };
    let desk = Desk::with(limits).await;
    desk.apply(json!({ "feeds": listed(&["a"]) })).await;
    let held = 6;
    let mut waiting = Vec::new();
    for path in ["/v1/services?index=1000000", "/v1/events"] {
        for _ in 0..held / 2 {
            let mut stream = connect(&desk).await;
            ask(&mut stream, path).await;
            waiting.push(stream);
        }
    }
    let text = format!("\nquorate_held_requests {held}\n");
    let gauges = async || {
        let response = desk.http.get(desk.url("/metrics")).send().await.unwrap();
        response.text().await.unwrap()
    };
    until("all of them wait", async || gauges().await.contains(&text)).await;
    for path in [
        "/v1/agents?index=1000000&wait=60s",
        "/v1/events",
        "/v1/services/feeds?index=1000000",
    ] {
        let response = desk.http.get(desk.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 429, "{path}");
        assert_eq!(response.headers()["retry-after"], "1");
        let problem: Problem = response.json().await.unwrap();
        assert!(problem.detail.contains("6 requests wait"), "{problem}");
    }
    // What need not wait is answered, and so is what the agents wait for.
    for path in ["/v1/services?index=0", "/v1/services"] {
        let response = desk.http.get(desk.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
    let agent = Agent::join(&desk, "a1").await;
    let work = agent
        .client
        .work(agent.session, &agent.secret, 0, Duration::ZERO);
    work.await.unwrap();
    drop(waiting);
    until("their places are free again", async || {
        gauges().await.contains("\nquorate_held_requests 0\n")
    })
    .await;
    desk.stop().await;
}

#[tokio::test]
async fn a_connection_with_nothing_to_do_is_closed_and_one_that_waits_is_not() {
    let limits = Limits {
        idle_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let desk = Desk::with(limits).await;
    let mut waiting = connect(&desk).await;
    ask(&mut waiting, "/v1/services?index=1000000&wait=60s").await;
    let mut first = connect(&desk).await;
    ask(&mut first, "/livez").await;
    assert!(answer(&mut first).await.starts_with("HTTP/1.1 200"));
    // Before the first request the longer limit holds.
    let mut silent = connect(&desk).await;
    let begun = Instant::now();
    ended(&mut first).await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "not by header_time"
    );
    ask(&mut silent, "/livez").await;
    assert!(answer(&mut silent).await.starts_with("HTTP/1.1 200"));
    desk.apply(json!({ "feeds": listed(&["a"]) })).await;
    let quiet = tokio::time::timeout(Duration::ZERO, waiting.read(&mut [0; 64])).await;
    assert!(quiet.is_err(), "the future index is not reached: it waits");
    desk.stop().await;
}

#[tokio::test]
async fn the_limit_of_one_address_can_be_set_for_loopback_too() {
    let limits = Limits {
        connections_of_loopback: Some(4),
        ..Limits::default()
    };
    let desk = Desk::with(limits).await;
    let mut held = Vec::new();
    let mut closed = 0;
    for _ in 0..8 {
        let mut stream = connect(&desk).await;
        // The director may have closed already.
        let _ = stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        match answer(&mut stream).await {
            text if text.starts_with("HTTP/1.1 200") => held.push(stream),
            text => {
                assert_eq!(text, "");
                closed += 1;
            }
        }
    }
    // The desk's own client holds one place.
    assert!((4..=5).contains(&closed), "{closed}");
    held.clear();
    until("one that has gone makes room", async || {
        desk.client.ready().await.is_ok()
    })
    .await;
    desk.stop().await;
}

#[tokio::test]
async fn what_is_kept_for_sessions_serves_nothing_else_even_later() {
    let limits = Limits {
        connections: 4,
        session_percent: 50,
        ..Limits::default()
    };
    let desk = Desk::with(limits).await;
    let agent = Agent::join(&desk, "a1").await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&desk).await;
        ask(&mut stream, "/livez").await;
        // There may be a connection of the desk's own client as well.
        answer(&mut stream).await;
        others.push(stream);
    }
    let mut stream = connect(&desk).await;
    ask(&mut stream, "/v1/sessions/7/work").await;
    let text = answer(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 401"), "a session's call: {text}");
    ask(&mut stream, "/v1/sessionsx").await;
    let text = answer(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    ended(&mut stream).await;
    drop(agent);
    desk.stop().await;
}
