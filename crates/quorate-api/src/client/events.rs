//! The stream of events, which survives a lost connection: it goes on after the last event it has seen.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::Response;

use super::transport::Call;
use super::{Client, Error, EventFilter};
use crate::problem::{Code, Problem};
use crate::resources::Event;
use crate::routes;

/// A director says something at least every 15 s; after this long without a word the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The most bytes of one event; a longer one is not from a director.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// `id` before the first event there can be: the director tells all that it has kept.
const BEGINNING: &str = "0.0";
/// First and longest wait before a lost stream is opened again.
const REOPEN_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a follower hears.
#[derive(Debug)]
pub enum Followed {
    /// Something has happened.
    Event(Box<Event>),
    /// The follower has fallen behind, and events were dropped before it came to them. The problem names the
    /// last event that it has seen and the first that is kept; the stream goes on with the latter.
    Skipped(Box<Problem>),
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    filter: EventFilter,
    /// `id` of the last event that was seen.
    last: Option<String>,
    response: Response,
    parser: Parser,
}

impl EventStream {
    pub(super) async fn open(
        client: Client,
        filter: EventFilter,
        after: Option<String>,
    ) -> Result<Self, Error> {
        let response = connect(&client, &filter, after.as_deref()).await?;
        Ok(Self {
            client,
            filter,
            last: after,
            response,
            parser: Parser::default(),
        })
    }

    /// The next event. Waits as long as it takes; may be dropped and called again.
    ///
    /// # Errors
    /// When no director answers any more, or the events since the last one are no longer kept.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some((id, data)) = self.parser.ready.pop_front() {
                if let Ok(event) = serde_json::from_str(&data) {
                    self.last = id.or(self.last.take());
                    return Ok(event);
                }
                if let Some(gone) = gone(&data) {
                    return Err(Error::Problem(gone));
                }
                // An event of a newer director that this build cannot read is passed over.
                continue;
            }
            match tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) if self.parser.feed(&chunk) => {}
                Ok(Ok(Some(_)) | Ok(None) | Err(_)) | Err(_) => self.reopen().await?,
            }
        }
    }

    /// The next event, or that some were skipped because this follower is too slow. Waits as long as it
    /// takes; may be dropped and called again.
    ///
    /// # Errors
    /// When no director answers any more.
    pub async fn follow(&mut self) -> Result<Followed, Error> {
        match self.next().await {
            Ok(event) => Ok(Followed::Event(Box::new(event))),
            Err(Error::Problem(problem)) if problem.code == Code::Gone => {
                // This connection ends, and the next call opens another one from there.
                self.last = Some(BEGINNING.to_owned());
                Ok(Followed::Skipped(problem))
            }
            Err(error) => Err(error),
        }
    }

    /// `id` of the last event that [`next`](Self::next) gave.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last.as_deref()
    }

    async fn reopen(&mut self) -> Result<(), Error> {
        let mut wait = REOPEN_WAIT.0;
        loop {
            tokio::time::sleep(wait).await;
            match connect(&self.client, &self.filter, self.last.as_deref()).await {
                Ok(response) => {
                    self.response = response;
                    self.parser = Parser::default();
                    return Ok(());
                }
                Err(Error::Unreachable { .. } | Error::NoLeader) if wait < REOPEN_WAIT.1 => {
                    wait *= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a director says at the end of a stream whose reader has fallen behind.
fn gone(data: &str) -> Option<Box<Problem>> {
    let problem: Problem = serde_json::from_str(data).ok()?;
    (problem.code == Code::Gone).then(|| Box::new(problem))
}

async fn connect(
    client: &Client,
    filter: &EventFilter,
    after: Option<&str>,
) -> Result<Response, Error> {
    let mut call = Call::get(routes::EVENTS.to_owned());
    call.streaming = true;
    call.query = filter.query();
    call.headers
        .push(("accept", "text/event-stream".to_owned()));
    if let Some(after) = after {
        call.headers.push(("last-event-id", after.to_owned()));
    }
    client.send(call).await
}

/// Takes server-sent events apart, whatever pieces they come in.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    id: Option<String>,
    data: String,
    ready: VecDeque<(Option<String>, String)>,
}

impl Parser {
    /// Takes the next bytes. `false`: this is no stream of a director.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.take_line(String::from_utf8_lossy(&line).trim_end_matches('\r'));
            } else {
                self.line.push(byte);
            }
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return false;
            }
        }
        true
    }

    fn take_line(&mut self, line: &str) {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            if !data.is_empty() {
                self.ready.push_back((self.id.clone(), data));
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments keep the connection alive; other fields are not ours.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_whatever_pieces_they_come_in() {
        let text =
            ": alive\n\nid: 7.0\nevent: e\ndata: {\"a\":\ndata: 1}\n\nid: 8.0\r\ndata: x\r\n\r\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            for piece in text.as_bytes().chunks(size) {
                assert!(parser.feed(piece));
            }
            let found: Vec<_> = parser.ready.into_iter().collect();
            let expected = [
                (Some("7.0".to_owned()), "{\"a\":\n1}".to_owned()),
                (Some("8.0".to_owned()), "x".to_owned()),
            ];
            assert_eq!(found, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 16];
        assert!((0..20).any(|_| !parser.feed(&piece)));
    }
}
