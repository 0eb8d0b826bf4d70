//! What the answers of etcd mean: told, certainly not done, or perhaps done.
//!
//! Certain is only what etcd says before it proposes a request to its members, or when it applies one and finds that its
//! sender may not. Whatever has to do with time, leaders and quorums is not.

use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Cause;
use crate::http::{Answer, Verdict};

/// Codes of gRPC.
const INVALID_ARGUMENT: u32 = 3;
const PERMISSION_DENIED: u32 = 7;
const FAILED_PRECONDITION: u32 = 9;
const UNIMPLEMENTED: u32 = 12;
const UNAUTHENTICATED: u32 = 16;

/// An answer that settles a request.
#[derive(Debug)]
pub(super) enum Heard<T> {
    Told(T),
    /// Its quota is reached; the request may have been done.
    NoSpace,
    /// Nothing was done: the token is no longer good.
    OldToken,
}

/// An error as the gateway tells it, in all versions.
#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(default)]
    code: u32,
    message: String,
}

/// Sorts an answer.
pub(super) fn judge<T: DeserializeOwned>(answer: &Answer) -> Verdict<Heard<T>> {
    if answer.status.is_success() {
        return match answer.json("etcd") {
            Verdict::Told(told) => Verdict::Told(Heard::Told(told)),
            Verdict::Refused(cause) => Verdict::Refused(cause),
            Verdict::Unsure(cause) => Verdict::Unsure(cause),
        };
    }
    match serde_json::from_slice(&answer.body) {
        Ok(problem) => of_problem(&problem),
        Err(_) if is_refused(answer.status) => Verdict::Refused(
            format!(
                "this is no answer of etcd's v3 gateway ({}): does the address lead to etcd 3.4 or later, and is \
                 --enable-grpc-gateway on?",
                answer.reason()
            )
            .into(),
        ),
        Err(_) => Verdict::Unsure(answer.reason().into()),
    }
}

/// Statuses of whoever has not even let a request through to etcd.
fn is_refused(status: StatusCode) -> bool {
    [
        StatusCode::BAD_REQUEST,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::PAYLOAD_TOO_LARGE,
    ]
    .contains(&status)
}

fn of_problem<T>(problem: &Problem) -> Verdict<Heard<T>> {
    let Problem { code, message } = problem;
    let has = |text: &str| message.contains(text);
    if has("database space exceeded") {
        return Verdict::Told(Heard::NoSpace);
    }
    if is_about_token(message) {
        return Verdict::Told(Heard::OldToken);
    }
    let next = if has("request is too large") {
        "raise --max-request-bytes of etcd to 1.5 MiB or more"
    } else if has("permission denied") {
        "grant the role of this user readwrite on the prefix of the address, and all below it"
    } else if has("user name is empty") {
        "etcd asks who we are: write etcd://user@host, and name a file with password_file="
    } else if has("invalid user ID or password") {
        "check the user and the password of the address"
    } else if has("authentication is not enabled") {
        "etcd asks nobody who they are: leave the user out of the address, or run etcdctl auth enable"
    } else if has("too many requests") {
        "its disk does not keep up: give etcd a faster one, or less to do"
    } else if [INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED].contains(code) {
        "check the address of the ledger"
    } else if *code == UNIMPLEMENTED {
        "etcd 3.4 or later is needed"
    } else if *code == FAILED_PRECONDITION {
        return Verdict::Unsure(format!("{message}; look at etcd's own log").into());
    } else {
        // Time-outs, lost leaders, servers that stop.
        return Verdict::Unsure(message.clone().into());
    };
    Verdict::Refused(format!("{message}; {next}").into())
}

/// Whether etcd wants a newer token.
pub(super) fn is_about_token(message: &str) -> bool {
    message.contains("invalid auth token") || message.contains("revision of auth store is old")
}

/// For people, when the quota is reached.
pub(super) fn no_space() -> Cause {
    "etcd has no space left: compact and defragment it, raise --quota-backend-bytes if that is not enough, then run \
     etcdctl alarm disarm; see that --auto-compaction-retention is set"
        .into()
}

/// For people, when a new token is no good either.
pub(super) fn token_refused() -> Cause {
    "etcd does not accept the token that it has just given: do all its members run with the same --auth-token, and is \
     one of them behind?"
        .into()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;
    use serde_json::Value;

    use super::*;

    fn judged(status: u16, body: &str) -> Verdict<Heard<Value>> {
        judge(&Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        })
    }

    fn problem(status: u16, code: u32, message: &str) -> Verdict<Heard<Value>> {
        judged(
            status,
            &format!(r#"{{"error":"{message}","message":"{message}","code":{code}}}"#),
        )
    }

    #[test]
    fn what_etcd_has_not_even_tried_is_refused_and_names_the_next_step() {
        for (status, code, message, next) in [
            (
                400,
                3,
                "etcdserver: request is too large",
                "--max-request-bytes",
            ),
            (403, 7, "etcdserver: permission denied", "readwrite"),
            (400, 3, "etcdserver: user name is empty", "etcd://user@host"),
            (
                400,
                3,
                "etcdserver: authentication failed, invalid user ID or password",
                "check the user",
            ),
            (
                412,
                9,
                "etcdserver: authentication is not enabled",
                "auth enable",
            ),
            (429, 8, "etcdserver: too many requests", "disk"),
            (400, 3, "etcdserver: key is not provided", "address"),
        ] {
            match problem(status, code, message) {
                Verdict::Refused(cause) => {
                    let cause = cause.to_string();
                    assert!(cause.contains(message) && cause.contains(next), "{cause}");
                }
                other @ (Verdict::Told(_) | Verdict::Unsure(_)) => panic!("{message}: {other:?}"),
            }
        }
        assert!(matches!(judged(404, "Not Found"), Verdict::Refused(_)));
    }

    #[test]
    fn what_has_to_do_with_time_and_leaders_is_not_certain() {
        for (status, code, message) in [
            (503, 14, "etcdserver: request timed out"),
            (503, 14, "etcdserver: leader changed"),
            (503, 14, "etcdserver: no leader"),
            (503, 14, "etcdserver: server stopped"),
            (500, 2, "raft proposal dropped"),
            (504, 4, "context deadline exceeded"),
            (412, 9, "etcdserver: not leader"),
            (500, 15, "etcdserver: corrupt cluster"),
        ] {
            let judged = problem(status, code, message);
            assert!(
                matches!(judged, Verdict::Unsure(_)),
                "{message}: {judged:?}"
            );
        }
        assert!(matches!(judged(502, "Bad Gateway"), Verdict::Unsure(_)));
        assert!(matches!(judged(200, "<html>"), Verdict::Unsure(_)));
    }

    #[test]
    fn a_full_store_and_an_old_token_are_cases_of_their_own() {
        let full = problem(429, 8, "etcdserver: mvcc: database space exceeded");
        assert!(matches!(full, Verdict::Told(Heard::NoSpace)));
        for message in [
            "etcdserver: invalid auth token",
            "etcdserver: revision of auth store is old",
        ] {
            let old = problem(401, 16, message);
            assert!(matches!(old, Verdict::Told(Heard::OldToken)));
        }
    }
}
