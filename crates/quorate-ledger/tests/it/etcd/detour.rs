//! A way to etcd on which things happen that a test could not bring about in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What happens on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trick {
    /// The first watch is made to begin with what etcd had first.
    OldWatch,
    /// Etcd does each append, and says that it is full, as it does of the one that makes it so.
    FullAfterAll,
}

/// The way.
pub(crate) struct Detour {
    pub(crate) host: String,
    played: Arc<AtomicBool>,
}

const FULL: &str = r#"{"error":"etcdserver: mvcc: database space exceeded","message":"etcdserver: mvcc: database space exceeded","code":8}"#;

impl Detour {
    pub(crate) async fn to(etcd: String, trick: Trick) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("a port").to_string();
        let (changed, played) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let seen = Arc::clone(&played);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&etcd).await.expect("it listens");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let (changed, seen) = (Arc::clone(&changed), Arc::clone(&seen));
                match trick {
                    Trick::OldWatch => {
                        tokio::spawn(older(from_client, to_server, changed));
                        tokio::spawn(watched(from_server, to_client, seen));
                    }
                    Trick::FullAfterAll => {
                        let lie = Arc::<AtomicBool>::default();
                        tokio::spawn(noticed(from_client, to_server, Arc::clone(&lie)));
                        tokio::spawn(denied(from_server, to_client, lie, seen));
                    }
                }
            }
        });
        Self { host, played }
    }

    /// Whether etcd, or the way, has said what it is there for.
    pub(crate) fn was_played(&self) -> bool {
        self.played.load(Ordering::SeqCst)
    }
}

/// The next bytes, after what is there. A request and an answer begin with what is read: nothing is asked before the
/// answer to what was asked before.
async fn more(from: &mut OwnedReadHalf, bytes: &mut Vec<u8>) -> bool {
    matches!(from.read_buf(bytes).await, Ok(1..))
}

async fn pass(to: &mut OwnedWriteHalf, bytes: &mut Vec<u8>) {
    // Whoever has gone hears of it at the next read.
    drop(to.write_all(bytes).await);
    bytes.clear();
}

async fn older(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, changed: Arc<AtomicBool>) {
    let mut bytes = Vec::new();
    while more(&mut from, &mut bytes).await {
        if bytes.starts_with(b"POST /v3/watch") && !changed.load(Ordering::SeqCst) {
            let Some(older) = from_the_first_on(&bytes) else {
                // There is more of it to come.
                continue;
            };
            changed.store(true, Ordering::SeqCst);
            bytes = older;
        }
        pass(&mut to, &mut bytes).await;
    }
}

/// A request for a watch that begins with revision 1, as long as it was.
fn from_the_first_on(request: &[u8]) -> Option<Vec<u8>> {
    let request = std::str::from_utf8(request).ok()?;
    let (before, after) = request.split_once("\"start_revision\":\"")?;
    let (number, after) = after.split_once('"')?;
    let spaces = " ".repeat(number.len() - 1);
    Some(format!("{before}\"start_revision\":{spaces}\"1\"{after}").into_bytes())
}

async fn watched(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, seen: Arc<AtomicBool>) {
    let (mut bytes, mut said) = (Vec::new(), String::new());
    while more(&mut from, &mut bytes).await {
        said.push_str(&String::from_utf8_lossy(&bytes));
        if said.contains("compact_revision") {
            seen.store(true, Ordering::SeqCst);
        }
        pass(&mut to, &mut bytes).await;
    }
}

async fn noticed(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, lie: Arc<AtomicBool>) {
    let mut bytes = Vec::new();
    while more(&mut from, &mut bytes).await {
        if bytes.starts_with(b"POST /v3/kv/txn") {
            let text = String::from_utf8_lossy(&bytes);
            // Objects have their names in order: this one comes last, and a read has no condition.
            if !text.trim_end().ends_with("]}") {
                continue;
            }
            lie.store(text.contains("request_put"), Ordering::SeqCst);
        }
        pass(&mut to, &mut bytes).await;
    }
}

async fn denied(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    lie: Arc<AtomicBool>,
    seen: Arc<AtomicBool>,
) {
    let mut bytes = Vec::new();
    while more(&mut from, &mut bytes).await {
        if lie.load(Ordering::SeqCst) {
            let answer = String::from_utf8_lossy(&bytes);
            if !answer.contains("\r\n\r\n{") || !answer.ends_with('}') {
                continue;
            }
            lie.store(false, Ordering::SeqCst);
            seen.store(true, Ordering::SeqCst);
            let length = FULL.len();
            let head = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json";
            bytes = format!("{head}\r\nContent-Length: {length}\r\n\r\n{FULL}").into_bytes();
        }
        pass(&mut to, &mut bytes).await;
    }
}
