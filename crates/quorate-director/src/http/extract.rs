//! Taking requests apart: names in the path, parameters, bodies. Whatever is wrong becomes a problem.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use quorate_api::problem::{Code, FieldError};
use quorate_api::routes::PAGE_MAX;
use quorate_core::spec::Span;
use quorate_core::spec::suggest::closest;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::App;
use super::answer::Failure;
use super::blocking::Blocking;
use super::{json, words};

/// Names in the path, each checked.
#[derive(Debug)]
pub(crate) struct Names<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for Names<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let taken: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        match taken {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => {
                let text = error.body_text();
                let text = text.strip_prefix("Invalid URL: ").unwrap_or(&text);
                Err(Failure::new(Code::BadParameter, words::of_path(text))
                    .next_step("check the names in the path"))
            }
        }
    }
}

/// A JSON body.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let bytes = RawBody::from_request(request, app).await?.0;
        Ok(Self(json::read(&bytes, app.limits.json_depth)?))
    }
}

/// The body of an action that needs no words: none at all, or `{}`. Whoever sends more means something that
/// would not be done.
#[derive(Debug)]
pub(crate) struct NoBody;

/// Has no fields, so that each one is told as unknown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl FromRequest<App> for NoBody {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let limit = body_limit(app, parts.uri.path());
        let bytes = collect(app, body, limit).await?;
        if !bytes.is_empty() {
            check_json(&parts.headers)?;
            let Nothing {} = json::read(&bytes, app.limits.json_depth)?;
        }
        Ok(Self)
    }
}

/// The bytes of a body that says it is JSON. The limit on its size is that of the router's layer.
#[derive(Debug)]
pub(crate) struct RawBody(pub(crate) Bytes);

impl FromRequest<App> for RawBody {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        check_json(&parts.headers)?;
        let limit = body_limit(app, parts.uri.path());
        Ok(Self(collect(app, body, limit).await?))
    }
}

/// How large a body of this path may be.
pub(crate) fn body_limit(app: &App, path: &str) -> usize {
    use quorate_api::routes::{APPLY, PLAN, SERVICES};
    if path == APPLY || path == PLAN || path.starts_with(SERVICES) {
        app.limits.apply_bytes
    } else {
        app.limits.body_bytes
    }
}

/// Reads a body within its limits of size and time.
pub(crate) async fn collect(app: &App, body: Body, limit: usize) -> Result<Bytes, Failure> {
    let too_large = || {
        let detail = format!("the body has more than {limit} bytes");
        Failure::new(Code::TooLarge, detail).next_step("apply fewer services at once")
    };
    // Who says so at once is told so at once.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let time = app.limits.body_time;
    let read = async {
        let mut body = body;
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Failure::new(
                    Code::MalformedRequest,
                    format!("the body broke off: {error}"),
                )
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if bytes.len() + data.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    match tokio::time::timeout(time, read).await {
        Ok(read) => read,
        Err(_) => {
            let detail = format!("the body took longer than {} s", time.as_secs());
            Err(Failure::new(Code::SlowRequest, detail))
        }
    }
}

fn check_json(headers: &HeaderMap) -> Result<(), Failure> {
    let coded = headers.get_all(header::CONTENT_ENCODING).iter();
    for coding in coded {
        if !coding.as_bytes().eq_ignore_ascii_case(b"identity") {
            // A small body could grow without limit.
            let detail = format!("the body is packed with {:?}", lossy(coding));
            return Err(Failure::new(Code::UnsupportedMediaType, detail)
                .next_step("send it as it is, without Content-Encoding"));
        }
    }
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok());
    let essence = given.map(|value| value.split(';').next().unwrap_or(value).trim());
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let detail = match given {
        Some(given) => format!("the body is {given:?}, not JSON"),
        None => "the body does not say what it is".to_owned(),
    };
    Err(Failure::new(Code::UnsupportedMediaType, detail)
        .next_step("send JSON with Content-Type: application/json"))
}

/// The text of a header, for people.
pub(crate) fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The parameters of a query. Each is taken once by name; what is left at the end was not understood.
#[derive(Debug)]
pub(crate) struct Params {
    left: Vec<(String, String)>,
    asked: Vec<&'static str>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
            Ok(Query(left)) => Ok(Self {
                left,
                asked: Vec::new(),
            }),
            Err(error) => Err(Failure::new(Code::BadParameter, error.body_text())),
        }
    }
}

impl Params {
    /// A parameter as text.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, Failure> {
        let mut values = self.many(name);
        match (values.pop(), values.is_empty()) {
            (value, true) => Ok(value),
            (_, false) => Err(bad(name, "it is given more than once")),
        }
    }

    /// Every value of a parameter that may be repeated.
    pub(crate) fn many(&mut self, name: &'static str) -> Vec<String> {
        self.asked.push(name);
        let (found, left) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|(given, _)| given == name);
        self.left = left;
        let found: Vec<(String, String)> = found;
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// A parameter as a value of a type that says itself what is wrong.
    pub(crate) fn value<T>(&mut self, name: &'static str) -> Result<Option<T>, Failure>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(name)?;
        text.map(|text| {
            text.parse()
                .map_err(|error: T::Err| bad(name, &error.to_string()))
        })
        .transpose()
    }

    /// A parameter as a number.
    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<u64>, Failure> {
        let number = |text: String| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let parsed = text.parse().ok().filter(|_| digits);
            parsed.ok_or_else(|| bad(name, &format!("{text:?} is not a whole number from 0 on")))
        };
        self.text(name)?.map(number).transpose()
    }

    /// A parameter that is `true` or `false`; absent is `false`.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, Failure> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(other) => Err(bad(name, &format!("{other:?} is neither true nor false"))),
        }
    }

    /// `label`: pairs that must all be there, each written `name=value`.
    pub(crate) fn labels(&mut self) -> Result<Vec<(String, String)>, Failure> {
        let given = self.many("label");
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            Some(_) | None => Err(bad("label", "write name=value")),
        };
        given.iter().map(pair).collect()
    }

    /// `limit`: how many items a page is to have.
    pub(crate) fn limit(&mut self) -> Result<usize, Failure> {
        let limit = self.number("limit")?.unwrap_or(u64::from(PAGE_MAX));
        if limit == 0 {
            return Err(bad("limit", "a page has at least 1 item"));
        }
        // More than a page may have is no mistake: the answer says where the next one begins.
        Ok(usize::try_from(limit.min(u64::from(PAGE_MAX))).unwrap_or(usize::MAX))
    }

    /// `index` and `wait`.
    pub(crate) fn blocking(&mut self) -> Result<Blocking, Failure> {
        let index = self.number("index")?;
        let wait = self.value::<Span>("wait")?.map(|span| span.0);
        if wait.is_some_and(|wait| wait > Duration::ZERO) && index.is_none() {
            return Err(bad("wait", "it needs an index to wait from"));
        }
        Ok(Blocking::new(index, wait))
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Failure> {
        let Some((name, _)) = self.left.first() else {
            return Ok(());
        };
        let failure = Failure::new(
            Code::BadParameter,
            format!("there is no parameter {name:?} here"),
        );
        Err(match closest(name, self.asked.iter().copied()) {
            Some(near) => failure.next_step(format!("did you mean {near:?}?")),
            None if self.asked.is_empty() => failure.next_step("this path takes no parameters"),
            None => failure.next_step(format!("this path takes {}", self.asked.join(", "))),
        })
    }
}

/// A parameter with a value that is not allowed.
pub(crate) fn bad(name: &str, message: &str) -> Failure {
    let mut failure = Failure::new(Code::BadParameter, format!("parameter {name:?}: {message}"));
    failure.0.errors = vec![FieldError {
        at: name.to_owned(),
        message: message.to_owned(),
        hint: None,
    }];
    failure
}
