//! A watch of `tail`: a stream of lines that must be suspected while it is silent.

use reqwest::{Method, Response};
use serde_json::json;
use tokio::time::timeout;

use crate::http::{Ask, Repeat};
use crate::keyed::{StoreError, TAIL};

use super::wire::{self, Event, Line, Watched};
use super::{Etcd, QUIET, WATCH};

/// The most bytes of one line: a watch that was behind may tell thousands of changes at once.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

type Told<'a> = &'a (dyn Fn(&[u8]) + Send + Sync);

/// What came next on a watch.
enum Next {
    Changes(Vec<Event>),
    /// Nothing, for a while.
    Quiet,
    /// What it was to begin with is compacted away.
    Compacted,
}

fn broken(why: impl Into<String>) -> StoreError {
    StoreError::Unknown(why.into().into())
}

impl Etcd {
    /// Tells what `tail` has and what becomes of it. Returns when it is time to begin again.
    pub(super) async fn watch(&self, told: Told<'_>) -> Result<(), StoreError> {
        let range = self.range(&json!({"key": self.key(TAIL)})).await?;
        let mut seen = 0;
        if let Some(kv) = range.kvs.first() {
            seen = kv.mod_revision.0;
            told(&kv.value.0);
        }
        let from = range.header.revision.0 + 1;
        let (server, response) = self.open(from).await?;
        let mut lines = Lines::new(response);
        loop {
            match lines.next().await? {
                Next::Changes(events) => {
                    for kv in events.into_iter().filter_map(put) {
                        seen = kv.mod_revision.0;
                        told(&kv.value.0);
                    }
                }
                Next::Quiet => {
                    let range = self.range(&json!({"key": self.key(TAIL)})).await?;
                    let now = range.kvs.first().map_or(0, |kv| kv.mod_revision.0);
                    // It should have told, or its server does not answer any more.
                    if now != seen || self.http.good() != server {
                        return Ok(());
                    }
                }
                Next::Compacted => return Ok(()),
            }
        }
    }

    /// The stream, and which server gives it.
    async fn open(&self, from: u64) -> Result<(usize, Response), StoreError> {
        let create = json!({"key": self.key(TAIL), "start_revision": from.to_string()});
        let ask = Ask::new(Repeat::Read, Method::POST, WATCH.to_owned())
            .header("content-type", Some(String::from("application/json")))
            .header("authorization", self.token(None).await?)
            .body(wire::to_bytes(&json!({"create_request": create})));
        let (server, response) = self.http.stream(&ask).await?;
        if response.status().is_success() {
            return Ok((server, response));
        }
        Err(broken(format!("etcd gave no watch: {}", response.status())))
    }
}

/// The value of an event that put one.
fn put(event: Event) -> Option<wire::Kv> {
    let is_put = event.kind.is_none_or(|kind| kind == "PUT");
    event.kv.filter(|_| is_put)
}

/// The lines of a stream.
struct Lines {
    response: Response,
    begun: Vec<u8>,
}

impl Lines {
    fn new(response: Response) -> Self {
        Self {
            response,
            begun: Vec::new(),
        }
    }

    async fn next(&mut self) -> Result<Next, StoreError> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                return of_line(&line);
            }
            match timeout(QUIET, self.response.chunk()).await {
                Err(_) => return Ok(Next::Quiet),
                Ok(Ok(Some(chunk))) if self.begun.len() + chunk.len() <= LINE_BYTES_MAX => {
                    self.begun.extend_from_slice(&chunk);
                }
                Ok(Ok(Some(_))) => return Err(broken("a line of the watch is too long")),
                Ok(Ok(None)) => return Err(broken("etcd ended the watch")),
                Ok(Err(error)) => return Err(StoreError::Unknown(Box::new(error))),
            }
        }
    }
}

fn of_line(line: &[u8]) -> Result<Next, StoreError> {
    let line: Line =
        serde_json::from_slice(line).map_err(|error| StoreError::Unknown(Box::new(error)))?;
    if let Some(error) = line.error {
        return Err(broken(format!("etcd ended the watch: {}", error.message)));
    }
    let Watched {
        canceled,
        cancel_reason,
        compact_revision,
        events,
    } = line.result.unwrap_or_default();
    if compact_revision.0 > 0 {
        return Ok(Next::Compacted);
    }
    if canceled {
        return Err(broken(format!("etcd ended the watch: {cancel_reason}")));
    }
    Ok(Next::Changes(events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_is_told_apart() {
        let line = |text: &str| of_line(text.as_bytes());
        let header = r#""header":{"revision":"7","raft_term":"2"}"#;
        let created = line(&format!(r#"{{"result":{{{header},"created":true}}}}"#));
        assert!(matches!(created, Ok(Next::Changes(events)) if events.is_empty()));
        let compacted =
            format!(r#"{{"result":{{{header},"canceled":true,"compact_revision":"5"}}}}"#);
        assert!(matches!(line(&compacted), Ok(Next::Compacted)));
        let refused = format!(
            r#"{{"result":{{{header},"canceled":true,"cancel_reason":"permission denied"}}}}"#
        );
        assert!(matches!(line(&refused), Err(StoreError::Unknown(_))));
        assert!(line(r#"{"error":{"grpc_code":14,"message":"stopped"}}"#).is_err());
        assert!(line("Not Found").is_err());
        let changes = format!(
            r#"{{"result":{{{header},"events":[{{"kv":{{"key":"YQ==","mod_revision":"8","value":"MQ=="}}}},{{"type":"DELETE","kv":{{"key":"YQ=="}}}}]}}}}"#
        );
        let Ok(Next::Changes(events)) = line(&changes) else {
            panic!("two changes")
        };
        let put: Vec<_> = events.into_iter().filter_map(put).collect();
        let [kv] = put.as_slice() else {
            panic!("one of them is a put")
        };
        assert_eq!((kv.mod_revision.0, kv.value.0.as_slice()), (8, &b"1"[..]));
    }
}
