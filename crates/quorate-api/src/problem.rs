//! What a director says when it does not do what was asked: RFC 9457 problem details.
//!
//! Every refusal has this shape, also those of unknown paths, wrong methods and malformed bodies. It
//! names a code that programs match, one sentence for people and what they can do next.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI reference that names the kind of problem: `/problems/` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What this kind of problem is, the same for each of its code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, one sentence.
    #[serde(default)]
    pub detail: String,
    /// Stable name of the kind of problem.
    pub code: Code,
    /// What the person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
    /// Every single thing that is wrong with the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// API address of the leader, when this director does not lead and knows who does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where: the path of a field, written `service.feeds.ramp.rate`, or the name of a parameter.
    pub at: String,
    /// What is wrong there.
    pub message: String,
    /// How to mend it, such as the name that was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Declares the codes with the status and title that belong to each.
macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $status:literal $title:literal;)*) => {
        /// Stable names of the kinds of problems.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
            /// A code that this build does not know yet.
            #[serde(other)]
            Other,
        }

        impl Code {
            /// All that this build knows, in the order of the document.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it means, a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*).trim_ascii(),)*
                    Self::Other => "A code that this build does not know yet.",
                }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Other => 500,
                }
            }

            /// What this kind of problem is.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                    Self::Other => "problem of a newer version",
                }
            }
        }
    };
}

codes! {
    /// The body is not what the route takes: no JSON, an unknown field, a wrong type.
    MalformedRequest = 400 "malformed request";
    /// A parameter of the query or path is not allowed.
    BadParameter = 400 "parameter not allowed";
    /// The specification contradicts itself or the rules.
    InvalidSpecification = 422 "invalid specification";
    /// The secret of the session, the API token or the join token is missing or wrong.
    Unauthenticated = 401 "secret or token missing or wrong";
    /// The request comes from a place that may not ask this.
    Forbidden = 403 "not allowed";
    /// There is no such route.
    UnknownPath = 404 "no such path";
    /// There is no such thing.
    NotFound = 404 "not found";
    /// The path exists, but not with this method.
    MethodNotAllowed = 405 "method not allowed";
    /// The body came too slowly.
    SlowRequest = 408 "request too slow";
    /// The request came over plain HTTP to a port that speaks TLS; nothing of it was read.
    TlsRequired = 400 "TLS required";
    /// The request contradicts what is in force.
    Conflict = 409 "conflict";
    /// The caller's session, incarnation or token is over.
    Fenced = 409 "session, incarnation or token is over";
    /// What was asked for is older than what is kept.
    Gone = 410 "no longer kept";
    /// What was to be written is not as the caller knows it: its `If-Match` or `If-None-Match` does not hold.
    PreconditionFailed = 412 "changed since it was read";
    /// The body is larger than allowed.
    TooLarge = 413 "body too large";
    /// The path and its query are longer than allowed.
    UriTooLong = 414 "path too long";
    /// The body is not JSON.
    UnsupportedMediaType = 415 "unsupported media type";
    /// The head of the request, all its fields together, is larger than allowed.
    HeadTooLarge = 431 "request head too large";
    /// Too much at once.
    TooManyRequests = 429 "too many requests";
    /// This director does not lead and cannot pass the request on.
    NotLeader = 503 "no leader here";
    /// This director is starting or stopping.
    Unavailable = 503 "not available now";
    /// It took too long, and certainly nothing was changed.
    TimedOut = 504 "timed out";
    /// The leader changed before the outcome was known: it may or may not be done.
    OutcomeUnknown = 504 "outcome unknown";
    /// A defect of the director.
    Internal = 500 "internal error";
}

impl Problem {
    /// A problem of this kind, with what happened this time.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{}", code.name()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            next_step: None,
            errors: Vec::new(),
            leader: None,
        }
    }

    /// The same with what the person can do about it.
    #[must_use]
    pub fn next_step(mut self, text: impl Into<String>) -> Self {
        self.next_step = Some(text.into());
        self
    }

    /// The same with every single thing that is wrong.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.detail.is_empty() {
            f.write_str(&self.title)
        } else {
            f.write_str(&self.detail)
        }
    }
}

impl Code {
    /// Its name as it is on the wire.
    #[must_use]
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            Ok(_) | Err(_) => String::from("other"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_carries_the_members_of_rfc_9457() {
        let problem = Problem::new(Code::NotFound, "service \"feds\" does not exist")
            .next_step("did you mean \"feeds\"?");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "/problems/not_found",
                "title": "not found",
                "status": 404,
                "detail": "service \"feds\" does not exist",
                "code": "not_found",
                "next_step": "did you mean \"feeds\"?",
            })
        );
    }

    #[test]
    fn every_code_has_a_name_of_its_own_and_a_sentence() {
        let names: std::collections::BTreeSet<String> =
            Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let meaning = code.meaning();
            assert!(
                meaning.ends_with('.') && !meaning.starts_with(' '),
                "{meaning:?}"
            );
            assert!((400..600).contains(&code.status()), "{meaning}");
        }
    }

    #[test]
    fn a_code_of_a_newer_director_can_be_read() {
        let json = r#"{"type":"/problems/moon","title":"moon","status":418,"code":"moon"}"#;
        let problem: Problem = serde_json::from_str(json).unwrap();
        assert_eq!((problem.code, problem.status), (Code::Other, 418));
    }
}
