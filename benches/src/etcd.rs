//! etcd, one node, through its JSON gateway: a claim is a transaction that puts a key if it was never
//! created; a batch is one transaction of up to 128 such claims, which is etcd's own limit. The gateway
//! costs etcd some processor time that its gRPC interface does not.

use std::fmt::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::load::Target;

const START_LIMIT: Duration = Duration::from_secs(20);

/// A server of our own and a client of it.
#[derive(Clone, Debug)]
pub struct Peer {
    client: reqwest::Client,
    txn: String,
    _server: Arc<Server>,
}

#[derive(Debug)]
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts etcd on free ports of this machine.
///
/// # Errors
/// When it is not installed, or does not come up.
pub async fn start(dir: &Path) -> anyhow::Result<Peer> {
    let free = || -> anyhow::Result<String> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(format!("http://127.0.0.1:{port}"))
    };
    let (clients, peers) = (free()?, free()?);
    let server = Command::new("etcd")
        .args(["--name", "peer", "--log-level", "error"])
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args([
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
        ])
        .args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ])
        .args(["--initial-cluster", &format!("peer={peers}")])
        .args(["--quota-backend-bytes", "8589934592"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("etcd is not installed")?;
    let server = Arc::new(Server(server));
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .tls_backend_preconfigured(quorate_api::client::distrusting())
        .build()?;
    let began = Instant::now();
    loop {
        let health = client.get(format!("{clients}/health")).send().await;
        if health.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
        anyhow::ensure!(began.elapsed() < START_LIMIT, "etcd does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Peer {
        client,
        txn: format!("{clients}/v3/kv/txn"),
        _server: server,
    })
}

impl Target for Peer {
    async fn claim(&self, first: u64, each: usize) {
        let keys: Vec<String> = (first..)
            .take(each)
            .map(|key| base64(format!("claim/{key:016}").as_bytes()))
            .collect();
        let owner = base64(&[b'o'; 40]);
        let compare: Vec<Value> = keys
            .iter()
            .map(|key| json!({"key": key, "target": "CREATE", "create_revision": "0"}))
            .collect();
        let success: Vec<Value> = keys
            .iter()
            .map(|key| json!({"request_put": {"key": key, "value": owner}}))
            .collect();
        let body = json!({"compare": compare, "success": success});
        let answered = async {
            let answer = self.client.post(&self.txn).json(&body).send().await?;
            answer.error_for_status()?.json::<Value>().await
        };
        match answered.await {
            Ok(answer) if answer.get("succeeded") == Some(&Value::Bool(true)) => {}
            Ok(answer) => panic!("etcd did not take a claim: {answer}"),
            Err(error) => panic!("etcd did not answer: {error}"),
        }
    }
}

/// Base64 as the gateway wants it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..4 {
            let value = usize::try_from((bits >> (18 - 6 * digit)) & 63).unwrap_or(0);
            let digit = match DIGITS.get(value) {
                Some(found) if digit <= three.len() => char::from(*found),
                Some(_) | None => '=',
            };
            // Writing to a string cannot fail.
            let _ = text.write_char(digit);
        }
    }
    text
}
