//! `Idempotency-Key`: a write that is repeated with the same key is answered with the first answer.
//!
//! What is done carries its key into the ledger, where every leader finds it. Beside that this director keeps
//! its own answers whole for a while, with what the ledger must not know, such as the secret of a new token,
//! and lets a repeat wait for a first request that is not answered yet. A write goes on when its client has
//! gone, so that its repeat finds the outcome. What was refused leaves its key free. The calls of sessions are
//! not for here: they carry numbers of their own, and thousands a second would push out people's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use quorate_api::problem::Code;
use quorate_api::routes::{IDEMPOTENCY_HEADER, SESSIONS};
use quorate_core::repeats::{Digest, Key};
use quorate_core::time::Moment;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::App;
use super::access::Caller;
use super::answer::{Failure, other_request};
use super::extract::{body_limit, collect};
use crate::clock;

/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// How many are kept; the oldest go first.
const KEPT_MAX: usize = 4096;
/// Bytes of a key.
const KEY_BYTES_MAX: usize = 200;
/// An answer longer than this is not one of a write.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The answers that are kept.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    kept: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    by_key: BTreeMap<Digest, Kept>,
    /// When each came, the oldest first. One that was forgotten may still be in here.
    ages: VecDeque<(Moment, Digest)>,
}

#[derive(Clone, Debug)]
struct Kept {
    since: Moment,
    /// Another request under the same key is a mistake.
    request: Digest,
    /// `None` while it is not answered yet.
    answer: watch::Receiver<Option<Answered>>,
}

#[derive(Clone, Debug)]
struct Answered {
    parts: axum::http::response::Parts,
    body: Bytes,
}

/// Answers repeats, and remembers the answers of first requests.
pub(crate) async fn remember(State(app): State<App>, request: Request, next: Next) -> Response {
    let read = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    let numbered = request.uri().path().starts_with(SESSIONS);
    let key = request.headers().get(IDEMPOTENCY_HEADER);
    let Some(key) = key.filter(|_| !read && !numbered) else {
        return next.run(request).await;
    };
    match String::from_utf8(key.as_bytes().to_vec()) {
        Ok(key) if (1..=KEY_BYTES_MAX).contains(&key.len()) => {
            match answer(&app, &key, request, next).await {
                Ok(response) => response,
                Err(failure) => failure.into_response(),
            }
        }
        Ok(_) | Err(_) => {
            let detail = format!("an idempotency key has 1 to {KEY_BYTES_MAX} letters");
            Failure::new(Code::BadParameter, detail).into_response()
        }
    }
}

async fn answer(app: &App, key: &str, request: Request, next: Next) -> Result<Response, Failure> {
    let (mut parts, body) = request.into_parts();
    let limit = body_limit(app, parts.uri.path());
    let body = collect(app, body, limit).await?;
    let key = Key {
        of: of(parts.extensions.get(), key),
        request: digest(&parts, &body),
    };
    if let Some(caller) = parts.extensions.get_mut::<Caller>() {
        caller.keyed(key);
    }
    let (tell, answered) = watch::channel(None);
    let first = Kept {
        since: clock::moment(),
        request: key.request,
        answer: answered.clone(),
    };
    match app.repeats.first(key.of, first) {
        Some(before) if before.request != key.request => Err(other_request(
            "this idempotency key belongs to another request",
        )),
        Some(before) => outcome(before.answer).await,
        None => {
            let request = Request::from_parts(parts, Body::from(body));
            let app_of_task = app.clone();
            app.writes.spawn(async move {
                let response = next.run(request).await;
                // What was certainly not done, or is not known, must be tried again when it is repeated. In the
                // ledger is what was done alone, and its key may be of another request than this one.
                if !response.status().is_success() {
                    app_of_task.repeats.forget(key.of);
                }
                let (parts, body) = response.into_parts();
                let body = axum::body::to_bytes(body, ANSWER_BYTES_MAX)
                    .await
                    .unwrap_or_default();
                tell.send_replace(Some(Answered { parts, body }));
            });
            outcome(answered).await
        }
    }
}

/// A key is that of its caller: nobody meets the keys of another, whose answer may be for him alone.
fn of(caller: Option<&Caller>, key: &str) -> Digest {
    let mut digest = Sha256::new();
    digest.update(caller.map(Caller::apart).unwrap_or_default());
    digest.update(b"\n");
    digest.update(key);
    shortened(digest)
}

/// Of method, path, query, condition and body.
fn digest(parts: &Parts, body: &[u8]) -> Digest {
    let mut digest = Sha256::new();
    digest.update(parts.method.as_str());
    digest.update(b" ");
    digest.update(parts.uri.path().as_bytes());
    digest.update([0]);
    digest.update(parts.uri.query().unwrap_or_default().as_bytes());
    digest.update(b"\n");
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        for value in parts.headers.get_all(&name) {
            digest.update(value.as_bytes());
            digest.update(b"\n");
        }
        digest.update(b"\n");
    }
    digest.update(body);
    shortened(digest)
}

fn shortened(digest: Sha256) -> Digest {
    let first = digest.finalize().into_iter().take(16);
    Digest(first.fold(0, |number, byte| number << 8 | u128::from(byte)))
}

async fn outcome(mut answer: watch::Receiver<Option<Answered>>) -> Result<Response, Failure> {
    let answered = answer.wait_for(Option::is_some).await;
    match answered.as_deref() {
        Ok(Some(Answered { parts, body })) => Ok(Response::from_parts(
            parts.clone(),
            Body::from(body.clone()),
        )),
        Ok(None) | Err(_) => Err(Failure::stopping()),
    }
}

impl Repeats {
    /// Takes the place of a key, or tells who has it.
    fn first(&self, key: Digest, new: Kept) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = new.since;
        kept.make_room(now);
        if let Some(before) = kept.by_key.get(&key) {
            return Some(before.clone());
        }
        kept.ages.push_back((now, key));
        kept.by_key.insert(key, new);
        None
    }

    fn forget(&self, key: Digest) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_key.remove(&key);
    }
}

impl Answers {
    /// Drops those that are too old, and then the oldest until there is room for one.
    fn make_room(&mut self, now: Moment) {
        while let Some((since, key)) = self.ages.front() {
            let old = now.since(*since) >= KEPT_FOR;
            if !old && self.ages.len() < KEPT_MAX {
                return;
            }
            // The key may have been forgotten and taken again since.
            if self
                .by_key
                .get(key)
                .is_some_and(|kept| kept.since == *since)
            {
                self.by_key.remove(key);
            }
            self.ages.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn asked(at: u64) -> Kept {
        let (_, answer) = watch::channel(None);
        Kept {
            since: Moment::from_millis(at),
            request: Digest(0),
            answer,
        }
    }

    fn known(repeats: &Repeats, key: &str, at: u64) -> bool {
        repeats.first(of(None, key), asked(at)).is_some()
    }

    #[test]
    fn an_answer_is_kept_for_a_while_and_no_longer() {
        let repeats = Repeats::default();
        assert!(!known(&repeats, "a", 1));
        assert!(known(&repeats, "a", 600_000));
        assert!(!known(&repeats, "a", 600_001));
        assert!(known(&repeats, "a", 600_002), "the new one is kept anew");
    }

    #[test]
    fn with_too_many_the_oldest_go() {
        let repeats = Repeats::default();
        for n in 0..KEPT_MAX as u64 {
            assert!(!known(&repeats, &n.to_string(), n));
        }
        assert!(!known(&repeats, "one more", 5_000));
        assert!(known(&repeats, "4095", 5_001));
        assert!(!known(&repeats, "0", 5_002), "this one had to go");
        assert!(repeats.kept.lock().unwrap().by_key.len() <= KEPT_MAX);
    }

    #[test]
    fn a_key_that_was_forgotten_and_taken_again_outlives_its_first_time() {
        let repeats = Repeats::default();
        assert!(!known(&repeats, "a", 0));
        repeats.forget(of(None, "a"));
        assert!(!known(&repeats, "a", 300_000));
        assert!(known(&repeats, "a", 700_000));
    }

    #[test]
    fn two_requests_are_the_same_in_all_that_says_what_is_asked() {
        let request = |method: &str, uri: &str, condition: &'static str, body: &str| {
            let (mut parts, ()) = axum::http::Request::new(()).into_parts();
            parts.method = method.parse().unwrap();
            parts.uri = uri.parse().unwrap();
            parts
                .headers
                .insert(header::IF_MATCH, HeaderValue::from_static(condition));
            digest(&parts, body.as_bytes())
        };
        let one = request("POST", "/v1/a?b", "*", "c");
        assert_eq!(one, request("POST", "/v1/a?b", "*", "c"));
        for other in [
            request("PUT", "/v1/a?b", "*", "c"),
            request("POST", "/v1/b?b", "*", "c"),
            request("POST", "/v1/a?c", "*", "c"),
            request("POST", "/v1/a?b", "\"0.1\"", "c"),
            request("POST", "/v1/a?b", "*", "d"),
        ] {
            assert_ne!(one, other);
        }
        assert_ne!(of(None, "k"), of(None, "l"));
    }
}
