//! How answers look: JSON with the ledger index, or a problem.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use quorate_api::problem::{self, Code, FieldError, Problem};
use quorate_api::resources::Done;
use quorate_api::routes::INDEX_HEADER;
use quorate_core::director::call::{Answer, Call, Refusal};
use quorate_core::spec;
use serde::Serialize;

use super::App;
use crate::engine::{AskError, Reading};

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Box<Problem>);

impl Failure {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, detail)))
    }

    pub(crate) fn next_step(self, text: impl Into<String>) -> Self {
        Self(Box::new(self.0.next_step(text)))
    }

    /// There is no such thing; with the name that was probably meant.
    pub(crate) fn not_found<'a>(
        what: &str,
        name: &str,
        others: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let failure = Self::new(Code::NotFound, format!("{what} {name:?} does not exist"));
        match quorate_core::spec::suggest::closest(name, others) {
            Some(near) => failure.next_step(format!("did you mean {near:?}?")),
            None => failure.next_step(format!("`quorate ls {what}s` shows those that exist")),
        }
    }

    pub(crate) fn stopping() -> Self {
        Self::new(Code::Unavailable, "this director is stopping")
            .next_step("ask another director, or this one again in a moment")
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

/// For reads: nothing was changed.
impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Overloaded => Self::new(Code::TooManyRequests, error.to_string())
                .next_step("try again in a moment"),
            AskError::Ended => Self::stopping(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = self.0;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(problem::MEDIA_TYPE),
        );
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A value and the ledger index that it shows.
#[derive(Debug)]
pub(crate) struct Indexed<T>(pub(crate) u64, pub(crate) T);

impl<T: Serialize> IntoResponse for Indexed<T> {
    fn into_response(self) -> Response {
        let Self(index, value) = self;
        let body = match serde_json::to_vec(&value) {
            Ok(body) => body,
            Err(error) => {
                return Failure::new(Code::Internal, error.to_string()).into_response();
            }
        };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        // What it shows may be over a moment later; who wants to know asks with the index.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(INDEX_HEADER, HeaderValue::from(index));
        response
    }
}

impl App {
    /// Looks something up.
    pub(crate) async fn query<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Reading<'_>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.limits.query_time, self.handle.query(look)).await {
            Ok(found) => Ok(found?),
            Err(_) => Err(Failure::new(
                Code::TimedOut,
                "the director had no time for this",
            )),
        }
    }

    /// Asks for a change and awaits its commit.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, Failure> {
        let unknown = |detail: &str| {
            Failure::new(Code::OutcomeUnknown, detail).next_step(
                "look whether it was done; repeating it with the same Idempotency-Key is safe",
            )
        };
        let answer = match tokio::time::timeout(self.limits.call_time, self.handle.call(call)).await
        {
            Ok(Ok(answer)) => answer,
            Ok(Err(error @ AskError::Overloaded)) => return Err(error.into()),
            Ok(Err(AskError::Ended)) => {
                return Err(unknown("the director stopped before the outcome was known"));
            }
            Err(_) => return Err(unknown("the ledger did not answer in time")),
        };
        match answer {
            Answer::Done { .. }
            | Answer::Opened { .. }
            | Answer::Reported { .. }
            | Answer::Checkpoints { .. } => Ok(answer),
            Answer::Refused(refusal) => Err(refused(&refusal)),
            Answer::Unknown => Err(unknown("the leader changed before the outcome was known")),
            Answer::NotLeader { leader } => Err(not_leader(leader)),
        }
    }

    /// The same for calls that are answered with a position.
    pub(crate) async fn change(&self, call: Call) -> Result<Indexed<Done>, Failure> {
        let answer = self.call(call).await?;
        let Answer::Done {
            position,
            notes,
            changed,
            ..
        } = answer
        else {
            return Err(unexpected(&answer));
        };
        let index = position.0;
        let done = Done {
            index,
            notes,
            changed,
        };
        Ok(Indexed(index, done))
    }
}

/// The machine answered a question that was not asked: a defect.
pub(crate) fn unexpected(answer: &Answer) -> Failure {
    tracing::error!(?answer, "an answer that does not belong to its call");
    Failure::new(Code::Internal, "the director answered something else")
}

pub(crate) fn not_leader(leader: Option<String>) -> Failure {
    let detail = match &leader {
        Some(leader) => format!("another director leads: {leader}"),
        None => "no director leads at the moment".to_owned(),
    };
    let mut failure = Failure::new(Code::NotLeader, detail).next_step("try again in a moment");
    failure.0.leader = leader;
    failure
}

/// An idempotency key was used for something else.
pub(crate) fn other_request(text: impl Into<String>) -> Failure {
    Failure::new(Code::Conflict, text).next_step("use a new key for each new request")
}

/// A rule of this cluster is broken, at one place.
fn invalid(problem: &spec::Problem) -> Failure {
    let detail = format!("{}: {}", problem.path, problem.message);
    let mut failure = Failure::new(Code::InvalidSpecification, detail);
    failure.0.next_step.clone_from(&problem.hint);
    failure.0.errors = vec![FieldError {
        at: problem.path.clone(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }];
    failure
}

/// Why the leader does not do what was asked.
pub(crate) fn refused(refusal: &Refusal) -> Failure {
    let text = refusal.to_string();
    match refusal {
        Refusal::NotFound { what, .. } => Failure::new(Code::NotFound, text)
            .next_step(format!("`quorate ls {what}s` shows those that exist")),
        Refusal::Conflict(_) => Failure::new(Code::Conflict, text),
        Refusal::Condition(_) => Failure::new(Code::PreconditionFailed, text)
            .next_step("read it again, and write with the ETag of that answer"),
        Refusal::Invalid(problem) => invalid(problem),
        Refusal::OtherRequest => other_request(text),
        Refusal::ShownOnce { what, id } => Failure::new(Code::Conflict, text).next_step(format!(
            "if nobody has it, take it back with `quorate {what} revoke {id}` and create another one, under a new idempotency key"
        )),
        Refusal::Fenced(_) => Failure::new(Code::Fenced, text),
        Refusal::Overloaded => Failure::new(Code::TooManyRequests, text),
    }
}
