//! `Idempotency-Key`: a write that is repeated with the same key is answered with the first answer.
//!
//! Kept in the memory of this director, for a while: enough for a client whose connection broke. A
//! write goes on when its client has gone, so that its repeat finds the outcome. The calls of sessions
//! are not for here: they carry numbers of their own, and thousands a second would push out people's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use quorate_api::problem::Code;
use quorate_api::routes::{IDEMPOTENCY_HEADER, SESSIONS};
use quorate_core::time::Moment;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::App;
use super::access::Caller;
use super::answer::Failure;
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
    by_key: BTreeMap<String, Kept>,
    /// When each came, the oldest first. One that was forgotten may still be in here.
    ages: VecDeque<(Moment, String)>,
}

#[derive(Clone, Debug)]
struct Kept {
    since: Moment,
    /// Of caller, method, path, query, condition and body: another request under the same key is a mistake.
    request: [u8; 32],
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
            match answer(&app, key, request, next).await {
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

async fn answer(app: &App, key: String, request: Request, next: Next) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let limit = body_limit(app, parts.uri.path());
    let body = collect(app, body, limit).await?;
    let mut digest = Sha256::new();
    // An answer may hold what is for its caller alone, such as a new token.
    let caller = parts.extensions.get::<Caller>();
    digest.update(caller.map(Caller::key).unwrap_or_default());
    digest.update(b"\n");
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
    digest.update(&body);
    let digest: [u8; 32] = digest.finalize().into();

    let (tell, answered) = watch::channel(None);
    let first = Kept {
        since: clock::moment(),
        request: digest,
        answer: answered.clone(),
    };
    match app.repeats.first(key.clone(), first) {
        Some(before) if before.request != digest => Err(Failure::new(
            Code::Conflict,
            "this idempotency key belongs to another request",
        )
        .next_step("use a new key for each new request")),
        Some(before) => outcome(before.answer).await,
        None => {
            let request = Request::from_parts(parts, Body::from(body));
            let app_of_task = app.clone();
            app.writes.spawn(async move {
                let response = next.run(request).await;
                // What was certainly not done, or is not known, must be tried again when it is repeated.
                let status = response.status();
                if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                    app_of_task.repeats.forget(&key);
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
    fn first(&self, key: String, new: Kept) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = new.since;
        kept.make_room(now);
        if let Some(before) = kept.by_key.get(&key) {
            return Some(before.clone());
        }
        kept.ages.push_back((now, key.clone()));
        kept.by_key.insert(key, new);
        None
    }

    fn forget(&self, key: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_key.remove(key);
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
    use super::*;

    fn asked(at: u64) -> Kept {
        let (_, answer) = watch::channel(None);
        Kept {
            since: Moment::from_millis(at),
            request: [0; 32],
            answer,
        }
    }

    fn known(repeats: &Repeats, key: &str, at: u64) -> bool {
        repeats.first(key.to_owned(), asked(at)).is_some()
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
        repeats.forget("a");
        assert!(!known(&repeats, "a", 300_000));
        assert!(known(&repeats, "a", 700_000));
    }
}
