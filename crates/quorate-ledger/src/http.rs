//! Calls to a store that speaks HTTP at several servers, and what it means when one fails.
//!
//! A call that was never sent is refused, and another server may be asked. One that was sent and not answered may have
//! been done: only if it changes nothing is it made again. What an answer means is for the store to say.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};

use crate::Cause;
use crate::address::Address;
use crate::keyed::StoreError;
use crate::shared::OpenError;
use crate::tls;

/// How long a connection may take to be made, with TLS. A machine that is gone says nothing, and then another server
/// is asked within the time of a call.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// How long a call may take at one server. A director that hears nothing for so long cannot lead anyway, and etcd gives
/// its own requests 5 s and two elections.
const CALL_TIME: Duration = Duration::from_secs(5);

/// The same where another server can be asked instead: one that stands still must not take the time of a lease.
const READ_TIME: Duration = Duration::from_secs(2);

/// The most bytes of an answer: 20 of the largest entries, in base64, are 7 MiB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most letters of a text that a store gives for a reason.
const REASON_MAX: usize = 300;

/// What may be done when nobody knows what became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing: ask another server.
    Read,
    /// It may have been done: tell the caller.
    Write,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) repeat: Repeat,
    /// How long the server may hold the answer back, on top of what a call may take.
    pub(crate) wait: Duration,
}

impl Ask {
    pub(crate) fn new(repeat: Repeat, method: Method, path: String) -> Self {
        Self {
            method,
            path,
            headers: Vec::new(),
            body: Vec::new(),
            repeat,
            wait: Duration::ZERO,
        }
    }

    pub(crate) fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: Option<String>) -> Self {
        self.headers.extend(value.map(|value| (name, value)));
        self
    }
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    #[cfg_attr(
        not(feature = "consul"),
        expect(dead_code, reason = "Consul says in one what to wait from")
    )]
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Its body as a reason for people.
    pub(crate) fn reason(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.trim().chars().take(REASON_MAX).collect();
        format!("{}: {text}", self.status)
    }

    /// The body as JSON. What is none is not from the store.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, store: &str) -> Verdict<T> {
        match serde_json::from_slice(&self.body) {
            Ok(told) => Verdict::Told(told),
            Err(error) => Verdict::Unsure(
                format!("this is no answer of {store} ({error}): does the address lead to it?")
                    .into(),
            ),
        }
    }
}

/// What an answer means.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// It is what was asked for.
    Told(T),
    /// Certainly not done; any server would say so.
    Refused(Cause),
    /// It may have been done, and another server may know more.
    Unsure(Cause),
}

/// Why a call has no answer.
#[derive(Debug)]
enum Missed {
    /// Nothing was sent.
    Unsent(String),
    Lost(String),
}

#[derive(Debug)]
struct Server {
    /// `http://host:port`.
    base: String,
    /// As people know it.
    name: String,
}

/// The servers of a store.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    servers: Vec<Server>,
    /// The one to ask first: it answered last.
    good: AtomicUsize,
}

impl Http {
    /// The servers of an address. Only its files are read.
    pub(crate) fn new(address: &Address) -> Result<Self, OpenError> {
        let client = Client::builder()
            // A proxy of the environment must not come between a director and its store.
            .no_proxy()
            .connect_timeout(CONNECT_TIME)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(15))
            .tls_backend_preconfigured(tls::config(address.tls.as_ref())?)
            // One call a connection: a large answer must not be in the way of an append.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("quorate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| OpenError::Unfit(format!("no client can be made: {error}")))?;
        let scheme = if address.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let servers = address.hosts.iter().map(|host| Server {
            base: format!("{scheme}://{host}"),
            name: host.to_string(),
        });
        Ok(Self {
            client,
            servers: servers.collect(),
            good: AtomicUsize::new(0),
        })
    }

    /// Which server is asked first.
    pub(crate) fn good(&self) -> usize {
        self.good.load(Ordering::Relaxed)
    }

    /// Servers in the order to ask them, the last one marked.
    fn in_order(&self) -> impl Iterator<Item = (usize, &Server, bool)> {
        let (first, count) = (self.good(), self.servers.len());
        let order = (0..count).map(move |step| ((first + step) % count, step + 1 == count));
        order.filter_map(|(at, last)| Some((at, self.servers.get(at)?, last)))
    }

    /// Another one is asked first from now on, unless somebody has found one already.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.servers.len().max(1);
        // If it is another one by now, that is as it should be.
        let _ = self
            .good
            .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Makes a call at the first server that takes it.
    pub(crate) async fn call<T>(
        &self,
        ask: &Ask,
        judge: impl Fn(&Answer) -> Verdict<T>,
    ) -> Result<T, StoreError> {
        let mut said = Vec::new();
        for (at, server, last) in self.in_order() {
            let limit = if last || ask.repeat == Repeat::Write {
                CALL_TIME
            } else {
                READ_TIME
            };
            let unsure = match self.once(server, ask, limit + ask.wait).await {
                Ok(answer) => match judge(&answer) {
                    Verdict::Told(told) => {
                        self.good.store(at, Ordering::Relaxed);
                        return Ok(told);
                    }
                    Verdict::Refused(cause) => return Err(StoreError::Refused(cause)),
                    Verdict::Unsure(cause) => {
                        said.push(format!("{}: {cause}", server.name));
                        true
                    }
                },
                Err(Missed::Unsent(why)) => {
                    said.push(why);
                    false
                }
                Err(Missed::Lost(why)) => {
                    said.push(why);
                    true
                }
            };
            self.leave(at);
            if unsure && ask.repeat == Repeat::Write {
                return Err(StoreError::Unknown(said.join("; ").into()));
            }
        }
        Err(StoreError::Refused(said.join("; ").into()))
    }

    /// A watch of etcd. Opens an answer that goes on, with the server that gives it; its head must come within the time of a call.
    #[cfg(feature = "etcd")]
    pub(crate) async fn stream(&self, ask: &Ask) -> Result<(usize, Response), StoreError> {
        let mut said = Vec::new();
        for (at, server, _) in self.in_order() {
            let sent = timeout(CALL_TIME, self.request(server, ask).send()).await;
            match sent {
                Ok(Ok(response)) => return Ok((at, response)),
                Ok(Err(error)) => said.push(missed(server, &error)),
                Err(_) => said.push(silent(server, CALL_TIME)),
            }
            self.leave(at);
        }
        let said: Vec<String> = said.into_iter().map(Missed::why).collect();
        Err(StoreError::Unknown(said.join("; ").into()))
    }

    async fn once(&self, server: &Server, ask: &Ask, limit: Duration) -> Result<Answer, Missed> {
        let until = Instant::now() + limit;
        let sent = timeout_at(until, self.request(server, ask).send()).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(missed(server, &error)),
            Err(_) => return Err(silent(server, limit)),
        };
        let status = response.status();
        let headers = response.headers().clone();
        // Who has begun to answer is well: what is long has its time from here.
        match timeout(CALL_TIME, body(server, response)).await {
            Ok(body) => Ok(Answer {
                status,
                headers,
                body: body?,
            }),
            Err(_) => Err(silent(server, CALL_TIME)),
        }
    }

    fn request(&self, server: &Server, ask: &Ask) -> RequestBuilder {
        let url = format!("{}{}", server.base, ask.path);
        let mut request = self.client.request(ask.method.clone(), url);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if ask.body.is_empty() {
            request
        } else {
            request.body(ask.body.clone())
        }
    }
}

async fn body(server: &Server, mut response: Response) -> Result<Vec<u8>, Missed> {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > ANSWER_BYTES_MAX => {
                let name = &server.name;
                return Err(Missed::Lost(format!(
                    "{name}: its answer has more than {ANSWER_BYTES_MAX} bytes"
                )));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) => return Err(Missed::Lost(missed(server, &error).why())),
        }
    }
}

impl Missed {
    fn why(self) -> String {
        match self {
            Self::Unsent(why) | Self::Lost(why) => why,
        }
    }
}

fn silent(server: &Server, limit: Duration) -> Missed {
    let (name, limit) = (&server.name, limit.as_secs());
    Missed::Lost(format!("{name} did not answer within {limit} s"))
}

fn missed(server: &Server, error: &reqwest::Error) -> Missed {
    let over_tls = server.base.starts_with("https");
    let what = match tls::trouble(error) {
        Some(trouble) => trouble,
        None if error.is_connect() && error.is_timeout() => {
            format!("no connection within {} s", CONNECT_TIME.as_secs())
        }
        None if error.is_connect() && over_tls && was_ended(error) => String::from(
            "it ended the connection instead of a handshake: if it does not speak TLS, leave tls, ca, cert and key out \
             of the address",
        ),
        None if !error.is_connect() && !over_tls && was_ended(error) => String::from(
            "it ended the connection without an answer: if it speaks TLS, write ?tls=true or ?ca=FILE in the address",
        ),
        None => root(error),
    };
    let why = format!("{}: {what}", server.name);
    // A connection that was never made has carried nothing.
    if error.is_connect() || error.is_builder() || tls::is_refusal(error) {
        Missed::Unsent(why)
    } else {
        Missed::Lost(why)
    }
}

/// What it comes down to.
fn root(error: &reqwest::Error) -> String {
    tls::causes(error)
        .last()
        .map_or_else(String::new, |cause| cause.to_string())
}

/// Whether the other end has closed the connection, for whatever reason.
fn was_ended(error: &reqwest::Error) -> bool {
    let kinds = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
    tls::causes(error).any(|cause| {
        let ended = cause.downcast_ref::<io::Error>();
        ended.is_some_and(|cause| kinds.contains(&cause.kind()))
            // Of hyper, which has its own word for it.
            || cause.to_string().contains("closed before message completed")
    })
}
