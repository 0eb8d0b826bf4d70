//! HTTP/2 frame by frame: floods that cost a server more than their sender.

use std::time::Duration;

use quorate_director::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::desk::{Desk, PATIENCE};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `GET path` at localhost in HPACK: indexed fields, and texts without indexing.
fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(0x04, path), (0x01, "localhost")] {
        block.push(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    }
    block
}

async fn open(desk: &Desk) -> TcpStream {
    let mut stream = TcpStream::connect(desk.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// The next frame: its kind and payload. Nothing at the end.
async fn next(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}

/// Sends `flood` again and again until the director ends the connection, and gives back what it had
/// said on its way, or how much it took.
async fn flood(desk: &Desk, mut part: impl FnMut() -> Vec<u8>, most: usize) -> (bool, usize) {
    let (mut from, mut to) = open(desk).await.into_split();
    let read = tokio::spawn(async move {
        let mut said = Vec::new();
        let _ = from.read_to_end(&mut said).await;
        said
    });
    let mut sent = 0;
    while sent < most && !read.is_finished() {
        let bytes = part();
        match tokio::time::timeout(PATIENCE, to.write_all(&bytes)).await {
            Ok(Ok(())) => sent += bytes.len(),
            Ok(Err(_)) => break,
            Err(_) => panic!("neither read nor closed"),
        }
    }
    let said = tokio::time::timeout(PATIENCE, read).await;
    let said = said.expect("the director ends it").unwrap();
    (go_away(&said), sent)
}

fn go_away(mut said: &[u8]) -> bool {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = said {
        if *kind == GO_AWAY {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]);
        said = rest
            .get(usize::try_from(length).unwrap()..)
            .unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn a_request_is_answered() {
    let desk = Desk::start().await;
    let mut stream = open(&desk).await;
    let ask = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/livez"));
    stream.write_all(&ask).await.unwrap();
    let body = async {
        loop {
            match next(&mut stream).await.expect("an answer") {
                (0, payload) if !payload.is_empty() => return payload,
                _ => {}
            }
        }
    };
    let body = tokio::time::timeout(PATIENCE, body).await.unwrap();
    assert_eq!(body, b"ok\n");
    desk.stop().await;
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let desk = Desk::start().await;
    let mut stream = 1;
    let reset = || {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            let block = get("/v1/services?index=1000000");
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
            bytes.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
            stream += 2;
        }
        bytes
    };
    let (told, sent) = flood(&desk, reset, 64 << 20).await;
    assert!(told, "it is told to go away");
    assert!(sent < 64 << 20, "{sent}");
    assert!(desk.client.ready().await.is_ok());
    desk.stop().await;
}

#[tokio::test]
async fn a_head_that_goes_on_for_ever_ends_the_connection() {
    let desk = Desk::start().await;
    let mut begun = false;
    let go_on = || {
        if std::mem::replace(&mut begun, true) {
            // A field whose name and value are one letter each, again and again.
            frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b'].repeat(100))
        } else {
            frame(HEADERS, END_STREAM, 1, &get("/livez"))
        }
    };
    let (_, sent) = flood(&desk, go_on, 64 << 20).await;
    assert!(sent < 8 << 20, "{sent} bytes of a head were taken");
    let mut begun = false;
    let nothing = || {
        if std::mem::replace(&mut begun, true) {
            frame(CONTINUATION, 0, 1, &[]).repeat(100)
        } else {
            frame(HEADERS, END_STREAM, 1, &get("/livez"))
        }
    };
    let (_, sent) = flood(&desk, nothing, 64 << 20).await;
    assert!(sent < 8 << 20, "{sent} bytes of empty frames were taken");
    assert!(desk.client.ready().await.is_ok());
    desk.stop().await;
}

#[tokio::test]
async fn a_connection_with_no_request_on_it_is_closed_although_it_answers_pings() {
    let limits = Limits {
        idle_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let desk = Desk::with(limits).await;
    let mut stream = open(&desk).await;
    let ask = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/livez"));
    stream.write_all(&ask).await.unwrap();
    let talk = async {
        let mut pinged = 0_u64;
        loop {
            tokio::select! {
                frame = next(&mut stream) => if frame.is_none() {
                    return;
                },
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    pinged += 1;
                    let ping = frame(PING, 0, 0, &pinged.to_be_bytes());
                    if stream.write_all(&ping).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let limit = Duration::from_secs(8);
    tokio::time::timeout(limit, talk)
        .await
        .expect("the director closes it");
    desk.stop().await;
}
