//! Conditions: the `ETag` of what is read, and `If-Match` and `If-None-Match` of what is written.
//!
//! A tag is the revision of an object, so every director gives the same one. It names what can be
//! written; what is only shown with it, such as counts and times, is told by the index of the answer.
//! Nothing is compared here: the condition goes with the call to where the call is decided.

use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use quorate_api::problem::Code;
use quorate_core::director::call::{Call, Condition, Conditional, Object, Revision};
use quorate_core::ids::{Era, Position};
use serde::Serialize;

use super::answer::{Failure, Indexed};

/// What `If-Match` does, for the document.
pub(crate) const IF_MATCH_HELP: &str =
    "Only if it is still as in the answer with this `ETag`; `*`: only if it exists";

/// An answer with the tag of its object.
#[derive(Debug)]
pub(crate) struct Tagged<T>(pub(crate) Option<Revision>, pub(crate) Indexed<T>);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let Self(revision, answer) = self;
        let mut response = answer.into_response();
        // Digits, a point and quotes are always a header's value.
        if let Some(tag) = revision.and_then(|r| HeaderValue::from_str(&tag(r)).ok()) {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}

fn tag(Revision { era, position }: Revision) -> String {
    format!("\"{era}.{position}\"", era = era.0, position = position.0)
}

/// The condition of a request, if it has one.
#[derive(Debug)]
pub(crate) struct Given(Option<Condition>);

impl Given {
    /// The call, done only if the condition holds of the object.
    pub(crate) fn of(self, object: Object, call: Call) -> Call {
        match self.0 {
            None => call,
            Some(condition) => Call::Conditional(Box::new(Conditional {
                object,
                condition,
                call,
            })),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Given {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        condition(&parts.headers).map(Self)
    }
}

/// For writes that no condition fits: one that is overlooked would be worse than a refusal.
#[derive(Debug)]
pub(crate) struct Unconditional;

impl<S: Send + Sync> FromRequestParts<S> for Unconditional {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let given = [IF_MATCH, IF_NONE_MATCH];
        let given = given.iter().find(|name| parts.headers.contains_key(*name));
        match given {
            None => Ok(Self),
            Some(name) => Err(bad(name, "this concerns many objects at once")
                .next_step("write one object on a condition, such as PUT /v1/services/{name}")),
        }
    }
}

fn condition(headers: &HeaderMap) -> Result<Option<Condition>, Failure> {
    let matches = read(headers, &IF_MATCH)?;
    let none_matches = read(headers, &IF_NONE_MATCH)?;
    match (matches, none_matches) {
        (None, None) => Ok(None),
        (Some(Tags::Any), None) => Ok(Some(Condition::Exists)),
        (Some(Tags::These(tags)), None) => Ok(Some(Condition::At(tags))),
        (None, Some(Tags::Any)) => Ok(Some(Condition::Absent)),
        (None, Some(Tags::These(_))) => Err(bad(&IF_NONE_MATCH, "a write takes only * here")
            .next_step("If-None-Match: * creates only; If-Match changes only what was read")),
        (Some(_), Some(_)) => Err(bad(&IF_MATCH, "it cannot hold together with If-None-Match")
            .next_step("send one of the two")),
    }
}

enum Tags {
    Any,
    /// Those that may be revisions; others are well formed and match nothing.
    These(Vec<Revision>),
}

/// The tags of a header, which may be spread over several lines.
fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Failure> {
    let mut tags = Vec::new();
    let mut lines = 0;
    for value in headers.get_all(name) {
        lines += 1;
        let malformed = || {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            bad(name, &format!("{value:?} is no list of tags"))
                .next_step("write the ETag of an answer as it is, with its quotes, or *")
        };
        let text = value.to_str().map_err(|_| malformed())?;
        if text.trim() == "*" {
            if headers.get_all(name).iter().count() > 1 {
                return Err(malformed());
            }
            return Ok(Some(Tags::Any));
        }
        list(text, &mut tags).ok_or_else(malformed)?;
    }
    Ok((lines > 0).then_some(Tags::These(tags)))
}

/// Adds the tags of one line; nothing when it is malformed.
fn list(text: &str, tags: &mut Vec<Revision>) -> Option<()> {
    let mut rest = text.trim();
    loop {
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        if !opaque.bytes().all(|byte| byte > b' ' && byte != 0x7f) {
            return None;
        }
        // A weak tag never matches: it does not say that nothing has changed.
        tags.extend(revision(opaque).filter(|_| !weak));
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(());
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

fn revision(opaque: &str) -> Option<Revision> {
    let (era, position) = opaque.split_once('.')?;
    let revision = Revision {
        era: Era(era.parse().ok()?),
        position: Position(position.parse().ok()?),
    };
    // A number can be written in several ways, and a tag is what was given, letter for letter.
    (tag(revision).trim_matches('"') == opaque).then_some(revision)
}

fn bad(name: &HeaderName, message: &str) -> Failure {
    let mut failure = Failure::new(Code::BadParameter, format!("header {name}: {message}"));
    failure.0.errors = vec![quorate_api::problem::FieldError {
        at: name.to_string(),
        message: message.to_owned(),
        hint: None,
    }];
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(HeaderName, &str)]) -> Result<Option<Condition>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        condition(&headers).map_err(|failure| failure.0.detail)
    }

    fn at(revisions: &[(u16, u64)]) -> Option<Condition> {
        let revisions = revisions.iter().map(|(era, position)| Revision {
            era: Era(*era),
            position: Position(*position),
        });
        Some(Condition::At(revisions.collect()))
    }

    #[test]
    fn tags_are_read_as_they_were_given() {
        for (text, condition) in [
            ("*", Some(Condition::Exists)),
            (" * ", Some(Condition::Exists)),
            ("\"0.812\"", at(&[(0, 812)])),
            ("\"0.812\", \"1.7\"", at(&[(0, 812), (1, 7)])),
            ("\"0.812\",\"x,y\" ,\"\"", at(&[(0, 812)])),
            ("W/\"0.812\"", at(&[])),
            ("\"00.812\"", at(&[])),
            ("\"0.+812\"", at(&[])),
            ("\"another kind of tag\"", None),
        ] {
            let found = given(&[(IF_MATCH, text)]);
            match condition {
                Some(_) => assert_eq!(found, Ok(condition), "{text}"),
                None => assert!(found.is_err(), "{text}: spaces are not part of a tag"),
            }
        }
        assert_eq!(given(&[]), Ok(None));
        assert_eq!(given(&[(IF_NONE_MATCH, "*")]), Ok(Some(Condition::Absent)));
        let lines = [(IF_MATCH, "\"0.1\""), (IF_MATCH, "\"0.2\"")];
        assert_eq!(given(&lines), Ok(at(&[(0, 1), (0, 2)])));
    }

    #[test]
    fn what_is_no_tag_is_told() {
        for text in [
            "",
            "0.812",
            "\"0.812",
            "0.812\"",
            "\"a\" \"b\"",
            "\"a\",",
            ",",
            "w/\"a\"",
            "*, \"a\"",
            "**",
            "\"ü\"",
        ] {
            let error = given(&[(IF_MATCH, text)]).unwrap_err();
            assert!(error.contains("no list of tags"), "{text}: {error}");
        }
        let both = [(IF_MATCH, "*"), (IF_NONE_MATCH, "*")];
        assert!(given(&both).unwrap_err().contains("together"));
        let one = [(IF_NONE_MATCH, "\"0.1\"")];
        assert!(given(&one).unwrap_err().contains("only *"));
    }
}
