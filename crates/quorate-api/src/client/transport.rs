//! One call, at whichever director takes it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Client, Error};
use crate::problem::{Code, Problem};
use crate::routes::{IDEMPOTENCY_HEADER, INDEX_HEADER};

/// Waits between two rounds over all directors; a little jitter is added.
const ROUND_WAIT: Duration = Duration::from_millis(100);
/// The most bytes of an answer that is read whole. A page has at most 1000 items.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The most bytes of an answer that is only shown as the text of a problem.
const PROBLEM_TEXT_MAX: usize = 400;

/// Whether a call may be made again when it is not known what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing.
    Read,
    /// It changes something, and doing it twice is the same as doing it once.
    Harmless,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Path with its parts filled in.
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) repeat: Repeat,
    /// Secret of a session.
    pub(super) session_secret: Option<String>,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Added to the time limit: how long the director may hold the answer back.
    pub(super) wait: Duration,
    /// The answer is a stream: the time limit ends with its head.
    pub(super) streaming: bool,
}

impl Call {
    pub(super) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            query: Vec::new(),
            body: None,
            repeat: Repeat::Read,
            session_secret: None,
            headers: Vec::new(),
            wait: Duration::ZERO,
            streaming: false,
        }
    }

    /// A write. It carries an idempotency key, by which a director answers a repeat with the first answer.
    pub(super) fn write(method: Method, path: String) -> Self {
        let key = format!("{:032x}", rand::random::<u128>());
        Self {
            method,
            repeat: Repeat::Harmless,
            headers: vec![(IDEMPOTENCY_HEADER, key)],
            ..Self::get(path)
        }
    }

    pub(super) fn post(path: String) -> Self {
        Self::write(Method::POST, path)
    }

    /// A call of a session: it carries its own numbers, by which a director knows a repeat.
    pub(super) fn numbered(path: String) -> Self {
        Self {
            method: Method::POST,
            repeat: Repeat::Harmless,
            ..Self::get(path)
        }
    }

    pub(super) fn json<T: Serialize>(mut self, body: &T) -> Self {
        // Our own types always encode; an empty body would be refused by the director with a reason.
        self.body = Some(serde_json::to_vec(body).unwrap_or_default());
        self
    }

    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(super) fn secret(mut self, secret: &str) -> Self {
        self.session_secret = Some(secret.to_owned());
        self
    }

    pub(super) fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// A director of a quorum that was given up.
#[derive(Debug)]
struct Earlier {
    address: String,
    era: u16,
    seen: u16,
}

/// What one director made of a call.
enum Outcome {
    Answer(Response),
    /// Certainly not done here; another director may do it.
    NotHere(NotHere),
    /// It may have been done.
    Lost(Option<reqwest::Error>),
    Refused(Box<Problem>),
}

enum NotHere {
    Unreachable(reqwest::Error),
    /// It is of an earlier era than this client has seen.
    EarlierEra(Earlier),
    NotLeader {
        hint: Option<String>,
    },
}

impl Client {
    /// Makes a call and reads its answer, with the ledger index that it shows.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<(u64, T), Error> {
        let (index, address, bytes) = self.bytes(call).await?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok((index, value)),
            Err(error) => Err(Error::Unreadable {
                address,
                what: error.to_string(),
            }),
        }
    }

    /// The same, with the body as it is.
    pub(super) async fn text(&self, call: Call) -> Result<String, Error> {
        let (_, address, bytes) = self.bytes(call).await?;
        String::from_utf8(bytes).map_err(|error| Error::Unreadable {
            address,
            what: error.to_string(),
        })
    }

    /// The index of an answer, who gave it, and its body.
    async fn bytes(&self, call: Call) -> Result<(u64, String, Vec<u8>), Error> {
        let repeat = call.repeat;
        let response = self.send(call).await?;
        let address = response.url().authority().to_owned();
        let index = index_of(&response).unwrap_or_default();
        let bytes = read_body(response, ANSWER_BYTES_MAX)
            .await
            .map_err(|broken| match broken {
                // The director did it; only its words are lost.
                Broken::Connection(cause) if repeat != Repeat::Read => {
                    Error::OutcomeUnknown { cause: Some(cause) }
                }
                Broken::Connection(cause) => Error::Unreachable {
                    addresses: vec![address.clone()],
                    cause: Some(cause),
                },
                Broken::TooLong => Error::Unreadable {
                    address: address.clone(),
                    what: format!("longer than {ANSWER_BYTES_MAX} bytes"),
                },
            })?;
        Ok((index, address, bytes))
    }

    /// Makes a call at whichever director takes it.
    pub(super) async fn send(&self, call: Call) -> Result<Response, Error> {
        let until = Instant::now() + self.shared.leader_time;
        let mut seen = Seen::default();
        loop {
            match self.round(&call, &mut seen).await {
                Some(result) => return result,
                // Directors that answer will have a leader soon; silence is told at once.
                None if seen.leaderless && Instant::now() < until => {
                    seen.leaderless = false;
                    let jitter = Duration::from_millis(rand::random_range(0..100));
                    tokio::time::sleep(ROUND_WAIT + jitter).await;
                }
                None => break,
            }
        }
        let repeat = call.repeat;
        match self.stale(call, &seen).await {
            Some(response) => Ok(response),
            None => Err(seen.error(self, repeat)),
        }
    }

    /// What any director knows, for a reader who takes that when nobody leads.
    async fn stale(&self, call: Call, seen: &Seen) -> Option<Response> {
        let waits = call.streaming || !call.wait.is_zero();
        let takes = self.shared.stale_reads && call.repeat == Repeat::Read && !waits;
        if !takes || !seen.leaderless_ever {
            return None;
        }
        let call = call.query("stale", true);
        let answer = self.round(&call, &mut Seen::default()).await?.ok()?;
        self.shared.stale.store(true, Ordering::Relaxed);
        Some(answer)
    }

    /// Asks every director once, and leaders that they name. `None`: nobody took it.
    async fn round(&self, call: &Call, seen: &mut Seen) -> Option<Result<Response, Error>> {
        let addresses = self.addresses();
        let first = self.shared.preferred();
        let mut turns = (0..addresses.len()).map(|turn| (first + turn) % addresses.len());
        let mut hint = None;
        // Every address once, and at most one hint after each.
        for _ in 0..addresses.len() * 2 {
            let (address, at) = match hint.take() {
                Some(hinted) => (hinted, None),
                None => match turns.next() {
                    Some(at) => (addresses.get(at)?.clone(), Some(at)),
                    None => break,
                },
            };
            match self.once(&address, call).await {
                Outcome::Answer(response) => {
                    let at = at.or_else(|| addresses.iter().position(|a| *a == address));
                    if let Some(at) = at {
                        self.shared.prefer(at);
                    }
                    return Some(Ok(response));
                }
                // What has changed since it was read may have been changed by this very call.
                Outcome::Refused(problem)
                    if seen.lost && problem.code == Code::PreconditionFailed =>
                {
                    let cause = seen.cause.take();
                    return Some(Err(Error::OutcomeUnknown { cause }));
                }
                Outcome::Refused(problem) => return Some(Err(Error::Problem(problem))),
                Outcome::NotHere(NotHere::Unreachable(cause)) => seen.cause = Some(cause),
                Outcome::NotHere(NotHere::EarlierEra(earlier)) => seen.earlier = Some(earlier),
                Outcome::NotHere(NotHere::NotLeader { hint: leader }) => {
                    seen.leaderless = true;
                    seen.leaderless_ever = true;
                    hint = leader
                        .and_then(|l| super::base_address(&l, self.shared.scheme).ok())
                        .filter(|l| *l != address);
                }
                Outcome::Lost(cause) => {
                    seen.lost = true;
                    seen.cause = cause.or(seen.cause.take());
                }
            }
        }
        None
    }

    async fn once(&self, address: &str, call: &Call) -> Outcome {
        let request = self.request(address, call);
        let limit = self.shared.call_time + call.wait;
        let sent = if call.streaming {
            match tokio::time::timeout(limit, request.send()).await {
                Ok(sent) => sent,
                Err(_) => return Outcome::Lost(None),
            }
        } else {
            request.timeout(limit).send().await
        };
        match sent {
            Ok(response) => {
                if let Some(eras) = &self.shared.eras
                    && let Err((era, seen)) = eras.note(&response)
                {
                    let address = address.to_owned();
                    let earlier = Earlier { address, era, seen };
                    return Outcome::NotHere(NotHere::EarlierEra(earlier));
                }
                judge(response).await
            }
            // A connection that was never made has carried nothing.
            Err(error)
                if error.is_connect() || error.is_builder() || super::tls::is_refusal(&error) =>
            {
                Outcome::NotHere(NotHere::Unreachable(error))
            }
            Err(error) => Outcome::Lost(Some(error)),
        }
    }

    fn request(&self, address: &str, call: &Call) -> reqwest::RequestBuilder {
        let url = format!("{address}{}", call.path);
        let mut request = self.http.request(call.method.clone(), url);
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        if let Some(body) = &call.body {
            request = request
                .header("content-type", "application/json")
                .body(body.clone());
        }
        if let Some(secret) = &call.session_secret {
            request = request.header("authorization", format!("Session {secret}"));
        } else if let Some(token) = &self.shared.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        request
    }
}

/// What the directors have said so far.
#[derive(Default)]
struct Seen {
    /// One that answered in this round has no leader.
    leaderless: bool,
    /// The same in any round.
    leaderless_ever: bool,
    /// One may have done it.
    lost: bool,
    cause: Option<reqwest::Error>,
    /// One is of an earlier era.
    earlier: Option<Earlier>,
}

impl Seen {
    fn error(self, client: &Client, repeat: Repeat) -> Error {
        if self.lost && repeat != Repeat::Read {
            Error::OutcomeUnknown { cause: self.cause }
        } else if self.leaderless_ever {
            Error::NoLeader
        } else if let Some(Earlier { address, era, seen }) = self.earlier {
            Error::EarlierEra { address, era, seen }
        } else {
            Error::Unreachable {
                addresses: client.addresses().to_vec(),
                cause: self.cause,
            }
        }
    }
}

/// Sorts an answer by what it means for the call.
async fn judge(response: Response) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return Outcome::Answer(response);
    }
    let problem = problem_of(response, status).await;
    match problem.code {
        Code::NotLeader => Outcome::NotHere(NotHere::NotLeader {
            hint: problem.leader,
        }),
        Code::OutcomeUnknown => Outcome::Lost(None),
        Code::MalformedRequest
        | Code::BadParameter
        | Code::InvalidSpecification
        | Code::Unauthenticated
        | Code::Forbidden
        | Code::UnknownPath
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::Conflict
        | Code::PreconditionFailed
        | Code::Fenced
        | Code::Gone
        | Code::SlowRequest
        | Code::TlsRequired
        | Code::TooLarge
        | Code::UriTooLong
        | Code::HeadTooLarge
        | Code::UnsupportedMediaType
        | Code::TooManyRequests
        | Code::Unavailable
        | Code::TimedOut
        | Code::Internal
        | Code::Other => Outcome::Refused(Box::new(problem)),
    }
}

/// The problem that an answer tells, or one made of it when it tells none.
async fn problem_of(response: Response, status: StatusCode) -> Problem {
    let bytes = read_body(response, 1 << 20).await.unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&bytes);
        let text: String = text.chars().take(PROBLEM_TEXT_MAX).collect();
        let mut problem = Problem::new(Code::Other, format!("answer {status}: {}", text.trim()));
        problem.status = status.as_u16();
        problem.title = String::from("not an answer of a director");
        problem.next_step(String::from("check the address: is it that of a director?"))
    })
}

/// Why a body could not be read whole.
enum Broken {
    Connection(reqwest::Error),
    TooLong,
}

async fn read_body(mut response: Response, limit: usize) -> Result<Vec<u8>, Broken> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Broken::Connection)? {
        if bytes.len() + chunk.len() > limit {
            return Err(Broken::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn index_of(response: &Response) -> Option<u64> {
    response
        .headers()
        .get(INDEX_HEADER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A director that answers every request alike.
    async fn answering(status: &str, body: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 4096];
                if socket.read(&mut request).await.is_ok() {
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_leader_that_is_named_and_dead_takes_nobodys_turn() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead_at = dead.local_addr().unwrap().to_string();
        drop(dead);
        let mut problem = Problem::new(Code::NotLeader, "d2 leads");
        problem.leader = Some(dead_at);
        let problem = serde_json::to_string(&problem).unwrap();
        let first = answering("503 Service Unavailable", &problem).await;
        let second = answering("200 OK", "\"well\"").await;
        let options = super::super::Options {
            leader_time: Duration::ZERO,
            ..super::super::Options::default()
        };
        let client = Client::with(vec![first, second], options).unwrap();
        let (_, told) = client
            .call::<String>(Call::get("/x".to_owned()))
            .await
            .unwrap();
        assert_eq!(told, "well");
    }
}
