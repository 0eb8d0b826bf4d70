//! etcd, one node or several, through its JSON gateway at its leader: a claim is a transaction that puts a key if it was never
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

/// Servers of our own and a client of the one that leads.
#[derive(Clone, Debug)]
pub struct Peer {
    client: reqwest::Client,
    txn: String,
    _servers: Arc<Vec<Server>>,
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

/// Where one server is to listen: for clients, and for the others.
#[derive(Debug)]
struct Node {
    name: String,
    clients: String,
    peers: String,
}

/// Starts so many servers of etcd on free ports of this machine.
///
/// # Errors
/// When it is not installed, or does not come up.
pub async fn start(dir: &Path, count: usize) -> anyhow::Result<Peer> {
    let nodes = nodes(count)?;
    let peers = nodes.iter();
    let peers: Vec<String> = peers
        .map(|node| format!("{}={}", node.name, node.peers))
        .collect();
    let servers = nodes.iter().map(|node| serve(dir, node, &peers.join(",")));
    let servers = servers.collect::<anyhow::Result<Vec<_>>>()?;
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .tls_backend_preconfigured(quorate_api::client::distrusting())
        .build()?;
    let began = Instant::now();
    let leader = loop {
        if let Some(leader) = leader(&client, &nodes).await {
            break leader;
        }
        anyhow::ensure!(began.elapsed() < START_LIMIT, "etcd does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    Ok(Peer {
        client,
        txn: format!("{leader}/v3/kv/txn"),
        _servers: Arc::new(servers),
    })
}

/// Free ports, all found before the first is let go.
fn nodes(count: usize) -> anyhow::Result<Vec<Node>> {
    let mut held = Vec::new();
    let mut free = || -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        held.push(listener);
        Ok(format!("http://127.0.0.1:{port}"))
    };
    let nodes = (0..count).map(|n| {
        anyhow::Ok(Node {
            name: format!("peer{n}"),
            clients: free()?,
            peers: free()?,
        })
    });
    nodes.collect()
}

fn serve(dir: &Path, node: &Node, all: &str) -> anyhow::Result<Server> {
    let Node {
        name,
        clients,
        peers,
    } = node;
    let child = Command::new("etcd")
        .args(["--name", name, "--log-level", "error"])
        .arg("--data-dir")
        .arg(dir.join("etcd").join(name))
        .args(["--listen-client-urls", clients])
        .args(["--advertise-client-urls", clients])
        .args(["--listen-peer-urls", peers])
        .args(["--initial-advertise-peer-urls", peers])
        .args(["--initial-cluster", all])
        .args(["--quota-backend-bytes", "8589934592"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("etcd is not installed")?;
    Ok(Server(child))
}

/// Where the server listens that leads, once all are in order.
async fn leader(client: &reqwest::Client, nodes: &[Node]) -> Option<String> {
    let mut leading = None;
    for node in nodes {
        let health = client.get(format!("{}/health", node.clients)).send().await;
        health.ok()?.error_for_status().ok()?;
        let status = client
            .post(format!("{}/v3/maintenance/status", node.clients))
            .json(&json!({}))
            .send();
        let status: Value = status.await.ok()?.json().await.ok()?;
        let leader = status.get("leader")?;
        if status.get("header")?.get("member_id")? == leader {
            leading = Some(node.clients.clone());
        }
    }
    leading
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
