//! The local API of a run: what it tells, what it keeps, and what it does not let itself in for.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_api::checkpoint::Content;
use quorate_api::problem::Problem;
use quorate_api::session::WorkState;
use serde_json::{Value, json};

use crate::agent::{deadline, read, reported, script, start, until};
use crate::director::Director;
use crate::support::{SOON, lacks};

/// Sends bytes as they are and reads until the agent closes.
fn raw(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // The agent may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// One request: status, head and body.
fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> (u16, String, String) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: self\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = raw(socket, &[head.as_bytes(), body].concat());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

async fn asked(
    socket: &Path,
    method: &'static str,
    path: &'static str,
    body: &[u8],
) -> (u16, String, String) {
    let (socket, body) = (socket.to_owned(), body.to_vec());
    tokio::task::spawn_blocking(move || ask(&socket, method, path, &body))
        .await
        .unwrap()
}

fn problem(body: &str) -> Problem {
    serde_json::from_str(body).unwrap()
}

/// The socket of a run that is up.
async fn socket_of(director: &Director, dir: &Path, token: u64) -> PathBuf {
    until("the run is ready", || reported(director, token, "ready")).await;
    let socket = dir.join(format!("runs/{token}/api.sock"));
    assert!(socket.exists());
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_finds_itself_and_its_lease_and_says_that_it_is_ready() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    let out = dir.path().join("socket");
    let told = dir.path().join("lease");
    let text = format!(
        "echo -n $QUORATE_LEASE_FILE > {}; echo -n $QUORATE_SOCKET > {}; exec sleep 600",
        told.display(),
        out.display()
    );
    let mut spec = script(&text);
    spec["ready"] = json!({ "notify": true });
    director.assign(3, spec);
    let path = until("its socket", || read(&out).filter(|path| !path.is_empty())).await;
    let socket = PathBuf::from(path);
    assert_eq!(socket, dir.path().join("runs/3/api.sock"));
    assert_eq!(socket.metadata().unwrap().mode() & 0o077, 0);

    let (status, _, body) = asked(&socket, "GET", "/self", b"").await;
    let this: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(this["service"], "feeds");
    assert_eq!(this["key"], "key 3");
    assert_eq!((&this["token"], &this["attempt"]), (&json!(3), &json!(1)));
    assert_eq!(this["agent"], "a1");
    assert_eq!(this["data"], json!({ "url": "tcp://x" }));
    let since: jiff::Timestamp = this["since"].as_str().unwrap().parse().unwrap();
    assert!(since.duration_until(jiff::Timestamp::now()).as_secs() < 60);

    let (_, _, body) = asked(&socket, "GET", "/self/lease", b"").await;
    let lease: Value = serde_json::from_str(&body).unwrap();
    let remaining = lease["remaining_ms"].as_u64().unwrap();
    assert!((1..=10_000).contains(&remaining), "{lease}");
    let file = read(&told).unwrap();
    let of_file = deadline(&read(Path::new(&file)).unwrap());
    let of_api = lease["deadline_boottime_ms"].as_u64().unwrap();
    assert!(of_file.abs_diff(of_api) < 10_000, "{of_file}: {lease}");

    assert_eq!(reported(&director, 3, "ready"), None);
    assert_eq!(asked(&socket, "POST", "/self/ready", b"").await.0, 200);
    until("ready", || reported(&director, 3, "ready")).await;
    agent.leave().await;
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_is_answered_when_it_is_kept_and_the_next_attempt_finds_it() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    let out = dir.path().join("found");
    let text = format!(
        "cat $QUORATE_CHECKPOINT_FILE > {0} 2>/dev/null; exec sleep 600",
        out.display()
    );
    director.assign(4, script(&text));
    let socket = socket_of(&director, dir.path(), 4).await;
    let (status, _, body) = asked(&socket, "GET", "/self/checkpoint", b"").await;
    assert_eq!(status, 404, "{body}");

    let (status, _, body) = asked(&socket, "PUT", "/self/checkpoint", b"done: 1\xff").await;
    assert_eq!(status, 200, "{body}");
    let kept = director.look(|table| table.items[&4].checkpoint.clone().unwrap());
    assert_eq!(kept.content, Content::of(b"done: 1\xff"));
    let (status, head, _) = asked(&socket, "GET", "/self/checkpoint", b"").await;
    assert_eq!(status, 200);
    assert!(head.contains("quorate-token: 4\r\n"), "{head}");
    assert!(
        head.contains(&format!("quorate-number: {}", kept.number)),
        "{head}"
    );

    // While no director answers, nobody hears that it is kept.
    director.change(|table| table.forgetful = true);
    let waiting = tokio::task::spawn_blocking({
        let socket = socket.clone();
        move || ask(&socket, "PUT", "/self/checkpoint", b"done: 2")
    });
    let (_, _, body) = asked(&socket, "GET", "/self/checkpoint", b"").await;
    assert!(body.starts_with("done: 1"), "{body}");
    assert!(!waiting.is_finished());
    director.change(|table| table.forgetful = false);
    assert_eq!(waiting.await.unwrap().0, 200);

    director.set(4, |item| item.restarts_asked += 1);
    until("the next attempt finds it", || {
        read(&out).filter(|text| text == "done: 2")
    })
    .await;
    let file = dir.path().join("runs/4/checkpoint");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_comes_while_there_is_no_agent_is_served_by_the_next_one() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    director.assign(5, script("exec sleep 600"));
    let socket = socket_of(&director, dir.path(), 5).await;
    asked(&socket, "PUT", "/self/checkpoint", b"before").await;
    let before = director.look(|table| table.items[&5].checkpoint.clone().unwrap());
    agent.kill().await;
    let waiting = tokio::task::spawn_blocking({
        let socket = socket.clone();
        move || ask(&socket, "GET", "/self/lease", b"")
    });
    let agent = start(&director, dir.path());
    let (status, _, body) = waiting.await.unwrap();
    assert_eq!(status, 200, "{body}");
    // The next process may not have heard yet what the run is.
    until("it is named", || {
        (ask(&socket, "GET", "/self", b"").0 == 200).then_some(())
    })
    .await;
    let (_, _, body) = asked(&socket, "GET", "/self/checkpoint", b"").await;
    assert_eq!(body, "before");
    let (status, _, _) = asked(&socket, "PUT", "/self/checkpoint", b"after").await;
    assert_eq!(status, 200);
    let after = director.look(|table| table.items[&5].checkpoint.clone().unwrap());
    assert!(after.number > before.number);
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_owner_is_told_so() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    director.assign(6, script("exec sleep 600"));
    let socket = socket_of(&director, dir.path(), 6).await;
    // The directors have given it to somebody else, of which this agent has not heard.
    let item = director.look(|table| table.items[&6].clone());
    director.change(|table| table.forgetful = true);
    let waiting = tokio::task::spawn_blocking({
        let socket = socket.clone();
        move || ask(&socket, "PUT", "/self/checkpoint", b"stale")
    });
    until("it is on its way", || {
        director.look(|table| (table.forgotten > 0).then_some(()))
    })
    .await;
    director.change(|table| {
        table.items.remove(&6);
        table.forgetful = false;
    });
    let (status, _, body) = waiting.await.unwrap();
    let told = problem(&body);
    assert_eq!(status, 409, "{body}");
    assert!(told.detail.contains("token 6"), "{body}");
    assert!(told.next_step.is_some());
    assert_eq!(item.state, WorkState::Assumed);
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_told_and_the_run_and_the_others_go_on() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    director.assign(7, script("exec sleep 600"));
    let socket = socket_of(&director, dir.path(), 7).await;
    for (method, path, body, status, said) in [
        ("GET", "/", &b""[..], 404, "there is no path"),
        ("GET", "/self/", b"", 404, "there is no path"),
        ("GET", "/v1/services", b"", 404, "there is no path"),
        ("POST", "/self", b"", 405, "POST"),
        ("DELETE", "/self/checkpoint", b"", 405, "DELETE"),
        ("GET", "/self/ready", b"", 405, "GET"),
        ("PUT", "/self/lease", b"x", 405, "PUT"),
        (
            "PUT",
            "/self/checkpoint",
            &[b'x'; 16 * 1024 + 1],
            413,
            "16384",
        ),
    ] {
        let (found, head, text) = asked(&socket, method, path, body).await;
        assert_eq!(found, status, "{method} {path}: {text}");
        assert!(head.contains("application/problem+json"), "{head}");
        assert!(
            problem(&text).detail.contains(said),
            "{method} {path}: {text}"
        );
    }
    let most = vec![0; 16 * 1024];
    assert_eq!(
        asked(&socket, "PUT", "/self/checkpoint", &most).await.0,
        200
    );
    let long = [b"GET /", [b'x'; 20_000].as_slice(), b" HTTP/1.1\r\n\r\n"].concat();
    for garbage in [
        b"\x16\x03\x01\x02\x00".as_slice(),
        b"HELLO\r\n\r\n",
        b"GET /self HTTP/9.9\r\n\r\n",
        &long,
    ] {
        let (socket, garbage) = (socket.clone(), garbage.to_vec());
        let answer = tokio::task::spawn_blocking(move || raw(&socket, &garbage));
        let answer = answer.await.unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert_eq!(asked(&socket, "GET", "/self", b"").await.0, 200);
    agent.leave().await;
}

/// Requests that never end, and more of them than a run may have: it waits for itself alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_floods_its_socket_holds_up_nobody_else() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    director.assign(8, script("exec sleep 600"));
    director.assign(9, script("exec sleep 600"));
    let flooded = socket_of(&director, dir.path(), 8).await;
    let other = socket_of(&director, dir.path(), 9).await;
    let half = |socket: &Path| {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream
            .write_all(b"PUT /self/checkpoint HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf")
            .unwrap();
        stream
    };
    let open: Vec<UnixStream> = (0..50).map(|_| half(&flooded)).collect();
    for _ in 0..20 {
        let started = std::time::Instant::now();
        assert_eq!(asked(&other, "GET", "/self", b"").await.0, 200);
        assert!(started.elapsed() < Duration::from_secs(4), "held up");
    }
    assert_eq!(asked(&other, "PUT", "/self/checkpoint", b"x").await.0, 200);
    // Each half request is told that it took too long, or is cut.
    let first = tokio::task::spawn_blocking(move || {
        let mut stream = open.into_iter().next().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    assert!(first.await.unwrap().starts_with("HTTP/1.1 408"), "told");
    // The others were closed by this side; the run is served again.
    assert_eq!(asked(&flooded, "GET", "/self", b"").await.0, 200);

    // A program that does nothing but write costs the directors a few calls.
    let before = director.look(|table| table.checkpoints.len());
    let started = std::time::Instant::now();
    let writers = (0..4).map(|writer| {
        let socket = flooded.clone();
        tokio::task::spawn_blocking(move || {
            (0..8).all(|n| {
                let body = format!("{writer}: {n}");
                ask(&socket, "PUT", "/self/checkpoint", body.as_bytes()).0 == 200
            })
        })
    });
    let kept = futures::future::join_all(writers).await;
    assert!(kept.into_iter().all(|kept| kept.unwrap()));
    let calls = director.look(|table| table.checkpoints.len()) - before;
    let most = started.elapsed().as_millis() / 200 + 2;
    assert!(
        calls as u128 <= most,
        "{calls} calls in {:?}",
        started.elapsed()
    );
    agent.leave().await;
}

/// Needs root: only root runs commands as other users.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_for_the_user_of_the_run_alone() {
    if !rustix::process::geteuid().is_root() {
        lacks("only root starts runs of other users");
        return;
    }
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let agent = start(&director, dir.path());
    let mut spec = script(
        "import http.client, os, socket, time\n\
         class Local(http.client.HTTPConnection):\n\
         \x20   def connect(self):\n\
         \x20       self.sock = socket.socket(socket.AF_UNIX)\n\
         \x20       self.sock.connect(os.environ['QUORATE_SOCKET'])\n\
         local = Local('self')\n\
         local.request('PUT', '/self/checkpoint', b'of nobody')\n\
         print(local.getresponse().status, flush=True)\n\
         time.sleep(600)",
    );
    spec["command"][0] = json!("/usr/bin/python3");
    spec["user"] = json!("nobody");
    director.assign(10, spec);
    until("it is kept", || {
        director.look(|table| {
            table
                .items
                .get(&10)
                .and_then(|item| item.checkpoint.clone())
        })
    })
    .await;
    let socket = dir.path().join("runs/10/api.sock");
    let owner = socket.metadata().unwrap();
    assert_ne!(owner.uid(), 0);
    assert_eq!(owner.mode() & 0o077, 0);
    let (status, _, body) = asked(&socket, "GET", "/self", b"").await;
    assert_eq!(status, 403, "{body}");
    // What it finds at its next start is its own, too.
    director.set(10, |item| item.restarts_asked += 1);
    let file = dir.path().join("runs/10/checkpoint");
    until("its checkpoint is its own", || {
        file.metadata()
            .ok()
            .filter(|file| file.uid() == owner.uid())
    })
    .await;
    agent.leave().await;
}
