//! A server that does what Consul's documentation says of `/v1/kv` and `/v1/txn`, keeps what it was asked, and answers
//! something else where a test says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What Consul takes at most, as a value and as a transaction.
const BYTES_MAX: usize = 512 * 1024;
const OPERATIONS_MAX: usize = 64;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `GET /v1/kv/…?…`
    pub(crate) line: String,
    pub(crate) token: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Whether it is of whoever follows the end, who asks when it likes.
    fn follows(&self) -> bool {
        self.line.starts_with("GET ")
            && self.line.contains("/tail")
            && !self.line.contains("consistent")
    }

    fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.line.split_once('?')?;
        let mut pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find_map(|(its, value)| (its == name).then_some(value))
    }
}

/// A status, an index, a body.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) index: Option<u64>,
    pub(crate) body: String,
}

impl Told {
    pub(crate) fn new(status: u16, index: Option<u64>, body: impl Into<String>) -> Self {
        let body = body.into();
        Self {
            status,
            index,
            body,
        }
    }
}

#[derive(Clone, Debug)]
struct Kept {
    value: Vec<u8>,
    created: u64,
    modified: u64,
}

#[derive(Debug, Default)]
struct State {
    index: u64,
    keys: BTreeMap<String, Kept>,
    asked: Vec<Asked>,
    /// Answers instead of what is documented, to whoever does not follow.
    instead: VecDeque<Told>,
    /// To which requests, once each, an error is answered after all was done.
    lost: Vec<String>,
    /// The same to whoever follows; when they are used up it is told nothing more.
    followed: Option<VecDeque<Told>>,
}

/// The server. It ends with the runtime that it was started in.
#[derive(Clone, Debug)]
pub(crate) struct Documented {
    pub(crate) host: String,
    state: Arc<Mutex<State>>,
    /// The index of the last change.
    changed: watch::Sender<u64>,
}

impl Documented {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("a port").to_string();
        let consul = Self {
            host,
            state: Arc::default(),
            changed: watch::Sender::new(0),
        };
        let serving = consul.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let consul = serving.clone();
                tokio::spawn(async move { consul.serve(client).await });
            }
        });
        consul
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody failed with it")
    }

    /// Answers this once.
    pub(crate) fn answer_instead(&self, told: Told) {
        self.state().instead.push_back(told);
    }

    /// Does what is asked like this, once, and answers an error.
    pub(crate) fn lose_the_answer_to(&self, line: &str) {
        self.state().lost.push(line.to_owned());
    }

    /// All keys there are.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.state().keys.keys().cloned().collect()
    }

    /// Answers these to whoever follows, and then nothing more.
    pub(crate) fn tell_followers(&self, told: impl IntoIterator<Item = Told>) {
        self.state().followed = Some(told.into_iter().collect());
    }

    /// What was asked since, by all but who follows.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let (_, others) = self.take();
        others
    }

    /// What was asked by who follows, since.
    pub(crate) fn followed(&self) -> Vec<Asked> {
        self.take().0
    }

    fn take(&self) -> (Vec<Asked>, Vec<Asked>) {
        let asked = std::mem::take(&mut self.state().asked);
        asked.into_iter().partition(Asked::follows)
    }

    async fn serve(&self, client: TcpStream) {
        let mut client = BufReader::new(client);
        while let Some(asked) = hear(&mut client).await {
            let Some(told) = self.tell(asked).await else {
                return std::future::pending().await;
            };
            if say(&mut client, &told).await.is_err() {
                return;
            }
        }
    }

    async fn tell(&self, asked: Asked) -> Option<Told> {
        let follows = asked.follows();
        {
            let mut state = self.state();
            state.asked.push(asked.clone());
            if follows && let Some(told) = &mut state.followed {
                return told.pop_front();
            }
            if !follows && let Some(told) = state.instead.pop_front() {
                return Some(told);
            }
        }
        if let Some(after) = asked.query("index").and_then(|index| index.parse().ok()) {
            // A value may change, or the time pass.
            let mut changed = self.changed.subscribe();
            let news = changed.wait_for(|index| *index > after);
            drop(tokio::time::timeout(Duration::from_secs(30), news).await);
        }
        let told = self.state().obey(&asked);
        self.changed.send_replace(self.state().index);
        let mut state = self.state();
        if let Some(at) = state.lost.iter().position(|line| *line == asked.line) {
            state.lost.remove(at);
            return Some(Told::new(500, None, "rpc error: lost on the way"));
        }
        drop(state);
        Some(told)
    }
}

impl State {
    fn obey(&mut self, asked: &Asked) -> Told {
        let (method, path) = asked.line.split_once(' ').expect("a method");
        let path = path.split('?').next().unwrap_or_default();
        if (method, path) == ("PUT", "/v1/txn") {
            return self.txn(asked);
        }
        let key = path.strip_prefix("/v1/kv/").expect("a key");
        match method {
            "GET" if asked.query("keys").is_some() => self.keys(key, asked),
            "GET" => self.get(key, asked.query("recurse").is_some()),
            "PUT" => self.put(key, asked),
            "DELETE" => {
                assert!(asked.query("recurse").is_some());
                self.index += 1;
                self.keys.retain(|its, _| !its.starts_with(key));
                Told::new(200, None, "true")
            }
            other => panic!("nobody asks with {other}"),
        }
    }

    fn pair(&self, key: &str, with_value: bool) -> Option<Value> {
        let kept = self.keys.get(key)?;
        // Consul says null where there are no bytes.
        let value = (with_value && !kept.value.is_empty()).then(|| STANDARD.encode(&kept.value));
        Some(json!({
            "LockIndex": 0,
            "Key": key,
            "Flags": 0,
            "Value": value,
            "CreateIndex": kept.created,
            "ModifyIndex": kept.modified,
        }))
    }

    fn get(&self, key: &str, recurse: bool) -> Told {
        let is_asked = |its: &&String| *its == key || (recurse && its.starts_with(key));
        let keys = self.keys.keys().filter(is_asked);
        let pairs: Vec<Value> = keys.filter_map(|key| self.pair(key, true)).collect();
        let newest = pairs
            .iter()
            .filter_map(|pair| pair.get("ModifyIndex")?.as_u64());
        let newest = newest.max().unwrap_or(self.index).max(1);
        if pairs.is_empty() {
            return Told::new(404, Some(newest), "");
        }
        Told::new(200, Some(newest), Value::Array(pairs).to_string())
    }

    fn keys(&self, prefix: &str, asked: &Asked) -> Told {
        assert_eq!(asked.query("separator"), Some("/"));
        let mut names: Vec<String> = Vec::new();
        for rest in self.keys.keys().filter_map(|key| key.strip_prefix(prefix)) {
            let name = match rest.split_once('/') {
                Some((name, _)) => format!("{prefix}{name}/"),
                None => format!("{prefix}{rest}"),
            };
            if names.last() != Some(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Told::new(404, Some(self.index.max(1)), "");
        }
        Told::new(200, Some(self.index.max(1)), json!(names).to_string())
    }

    fn set(&mut self, key: &str, value: Vec<u8>) {
        let created = self.keys.get(key).map_or(self.index, |kept| kept.created);
        let kept = Kept {
            value,
            created,
            modified: self.index,
        };
        self.keys.insert(key.to_owned(), kept);
    }

    /// Whether a key is as it was at an index; 0: not there.
    fn is_at(&self, key: &str, index: u64) -> bool {
        self.keys.get(key).map_or(0, |kept| kept.modified) == index
    }

    fn put(&mut self, key: &str, asked: &Asked) -> Told {
        if asked.body.len() > BYTES_MAX {
            return Told::new(413, None, "Request body too large, max size: 524288 bytes");
        }
        let cas = asked
            .query("cas")
            .map(|index| index.parse().expect("an index"));
        if cas.is_some_and(|index| !self.is_at(key, index)) {
            return Told::new(200, None, "false");
        }
        self.index += 1;
        self.set(key, asked.body.clone());
        Told::new(200, None, "true")
    }

    fn txn(&mut self, asked: &Asked) -> Told {
        if asked.body.len() > BYTES_MAX {
            return Told::new(413, None, "Request body too large, max size: 524288 bytes");
        }
        let operations = asked.json();
        let operations = operations.as_array().expect("a list");
        if operations.len() > OPERATIONS_MAX {
            return Told::new(413, None, "Transaction contains too many operations");
        }
        let before = (self.index, self.keys.clone());
        self.index += 1;
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for (at, operation) in operations.iter().enumerate() {
            match self.operate(operation) {
                Ok(result) => results.extend(result.map(|pair| json!({"KV": pair}))),
                Err(what) => errors.push(json!({"OpIndex": at, "What": what})),
            }
        }
        if errors.is_empty() {
            return Told::new(
                200,
                None,
                json!({"Results": results, "Errors": null}).to_string(),
            );
        }
        (self.index, self.keys) = before;
        Told::new(
            409,
            None,
            json!({"Results": null, "Errors": errors}).to_string(),
        )
    }

    fn operate(&mut self, operation: &Value) -> Result<Option<Value>, String> {
        let kv = operation.get("KV").expect("an operation on a key");
        let text = |name: &str| kv.get(name).and_then(Value::as_str);
        let key = text("Key").expect("a key");
        let value = STANDARD
            .decode(text("Value").unwrap_or_default())
            .expect("base64");
        match text("Verb").expect("a verb") {
            "get" => match self.pair(key, true) {
                Some(pair) => return Ok(Some(pair)),
                None => return Err(format!("key {key:?} doesn't exist")),
            },
            "delete" => {
                self.keys.remove(key);
                return Ok(None);
            }
            "set" => self.set(key, value),
            "cas" => {
                let index = kv.get("Index").and_then(Value::as_u64).expect("an index");
                if !self.is_at(key, index) {
                    return Err(format!("failed to set key {key:?}, index is stale"));
                }
                self.set(key, value);
            }
            other => panic!("nobody asks for {other}"),
        }
        Ok(self.pair(key, false))
    }
}

/// The next request of a connection.
async fn hear(client: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut asked = Asked {
        line: read_line(client)
            .await?
            .strip_suffix(" HTTP/1.1")?
            .to_owned(),
        token: None,
        body: Vec::new(),
    };
    let mut length = 0;
    loop {
        let line = read_line(client).await?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "x-consul-token" => asked.token = Some(value.to_owned()),
            _ => {}
        }
    }
    asked.body = vec![0; length];
    client.read_exact(&mut asked.body).await.ok()?;
    Some(asked)
}

async fn read_line(client: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    match client.read_line(&mut line).await {
        Ok(1..) => Some(line.trim_end().to_owned()),
        Ok(0) | Err(_) => None,
    }
}

async fn say(client: &mut BufReader<TcpStream>, told: &Told) -> std::io::Result<()> {
    let Told {
        status,
        index,
        body,
    } = told;
    let index = index.map_or(String::new(), |index| {
        format!("X-Consul-Index: {index}\r\n")
    });
    let head = format!(
        "HTTP/1.1 {status} Said\r\n{index}Content-Length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.flush().await
}
