//! What the answers of Consul mean: told, certainly not done, or perhaps done.

use reqwest::StatusCode;
use serde::de::DeserializeOwned;

use crate::http::{Answer, Verdict};
use crate::keyed::Done;

use super::wire::{Committed, Found, RolledBack};

const INDEX: &str = "x-consul-index";

/// Whoever speaks for Consul says from where on to wait, also of what is not there: an answer without that must not pass
/// for an empty store.
pub(super) fn found<T: DeserializeOwned>(answer: &Answer) -> Verdict<Found<T>> {
    let index = answer.headers.get(INDEX);
    let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
    let told = match (answer.status, index) {
        (StatusCode::OK, Some(_)) => answer.json("Consul"),
        (StatusCode::NOT_FOUND, Some(_)) => Verdict::Told(Vec::new()),
        (StatusCode::OK | StatusCode::NOT_FOUND, None) => Verdict::Unsure(
            format!(
                "this is no answer of Consul ({}, without {INDEX}): does the address lead to it?",
                answer.reason()
            )
            .into(),
        ),
        _ => failed(answer),
    };
    match told {
        Verdict::Told(told) => Verdict::Told(Found {
            told,
            index: index.unwrap_or(0),
        }),
        Verdict::Refused(cause) => Verdict::Refused(cause),
        Verdict::Unsure(cause) => Verdict::Unsure(cause),
    }
}

/// A write of one key says `true` or `false`.
pub(super) fn written(answer: &Answer) -> Verdict<Done> {
    if answer.status != StatusCode::OK {
        return failed(answer);
    }
    match answer.json::<bool>("Consul") {
        Verdict::Told(true) => Verdict::Told(Done::Done),
        Verdict::Told(false) => Verdict::Told(Done::NotSo),
        Verdict::Refused(cause) => Verdict::Refused(cause),
        Verdict::Unsure(cause) => Verdict::Unsure(cause),
    }
}

/// A transaction is done, or rolled back for reasons.
pub(super) fn txn(answer: &Answer) -> Verdict<Done> {
    match answer.status {
        StatusCode::OK => match answer.json::<Committed>("Consul") {
            Verdict::Told(Committed { .. }) => Verdict::Told(Done::Done),
            Verdict::Refused(cause) => Verdict::Refused(cause),
            Verdict::Unsure(cause) => Verdict::Unsure(cause),
        },
        StatusCode::CONFLICT => match answer.json::<RolledBack>("Consul") {
            Verdict::Told(why) => rolled_back(&why),
            Verdict::Refused(cause) => Verdict::Refused(cause),
            Verdict::Unsure(cause) => Verdict::Unsure(cause),
        },
        _ => failed(answer),
    }
}

fn rolled_back(why: &RolledBack) -> Verdict<Done> {
    let reasons: Vec<&str> = why.errors.iter().map(|error| error.what.as_str()).collect();
    let all = reasons.join("; ");
    if reasons.iter().any(|reason| is_about_rights(reason)) {
        return Verdict::Refused(format!("{all}; {RIGHTS}").into());
    }
    // Of `get` and of `cas`.
    let is_condition =
        |reason: &&str| reason.ends_with("doesn't exist") || reason.ends_with("index is stale");
    if !reasons.is_empty() && reasons.iter().all(is_condition) {
        return Verdict::Told(Done::NotSo);
    }
    // It says that nothing was done, and not why: whoever asks again learns more.
    Verdict::Unsure(format!("the transaction was rolled back: {all}").into())
}

const RIGHTS: &str = "the token of the address needs policy write on the key prefix of the address, and all below it";

fn is_about_rights(reason: &str) -> bool {
    reason.contains("Permission denied") || reason.contains("ACL not found")
}

fn failed<T>(answer: &Answer) -> Verdict<T> {
    let status = answer.status;
    let reason = answer.reason();
    let next = if is_about_rights(&reason) || status == StatusCode::FORBIDDEN {
        RIGHTS
    } else if status == StatusCode::PAYLOAD_TOO_LARGE {
        "set kv_max_value_size and txn_max_req_len of Consul to 524288 (512 KiB) or more"
    } else if status == StatusCode::TOO_MANY_REQUESTS {
        "its rate limits are too low for a ledger: raise them"
    } else {
        "check the address of the ledger"
    };
    // A time-out on the way is none of the caller's faults.
    if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT {
        Verdict::Refused(format!("{reason}; {next}").into())
    } else {
        Verdict::Unsure(reason.into())
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::super::wire::Pair;
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(INDEX, HeaderValue::from_static("7"));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.as_bytes().to_vec(),
        }
    }

    fn conflict(what: &str) -> Verdict<Done> {
        let body = format!(r#"{{"Results":null,"Errors":[{{"OpIndex":0,"What":"{what}"}}]}}"#);
        txn(&answer(409, &body))
    }

    #[test]
    fn a_transaction_that_was_rolled_back_says_why() {
        for what in [
            "key \\\"p/entries/7\\\" doesn't exist",
            "failed to set key \\\"p/entries/8\\\", index is stale",
        ] {
            assert!(
                matches!(conflict(what), Verdict::Told(Done::NotSo)),
                "{what}"
            );
        }
        let denied = conflict("Permission denied: token lacks permission");
        assert!(matches!(denied, Verdict::Refused(cause) if cause.to_string().contains(RIGHTS)));
        assert!(matches!(conflict("whatever"), Verdict::Unsure(_)));
        assert!(matches!(txn(&answer(409, "no JSON")), Verdict::Unsure(_)));
        assert!(matches!(txn(&answer(200, "{}")), Verdict::Unsure(_)));
        let done = txn(&answer(200, r#"{"Results":[],"Errors":null}"#));
        assert!(matches!(done, Verdict::Told(Done::Done)));
    }

    #[test]
    fn faults_of_the_caller_are_refused_and_those_of_the_store_are_not_certain() {
        for status in [400, 403, 404, 405, 413, 429] {
            let judged = written(&answer(status, "no"));
            assert!(
                matches!(judged, Verdict::Refused(_)),
                "{status}: {judged:?}"
            );
        }
        for status in [408, 500, 502, 503, 504, 302] {
            let judged = written(&answer(status, "no"));
            assert!(matches!(judged, Verdict::Unsure(_)), "{status}: {judged:?}");
        }
        assert!(matches!(
            written(&answer(200, "false")),
            Verdict::Told(Done::NotSo)
        ));
        assert!(matches!(
            written(&answer(200, "<html>")),
            Verdict::Unsure(_)
        ));
    }

    #[test]
    fn what_does_not_speak_for_consul_is_no_empty_store() {
        let nothing = answer(404, "");
        assert!(matches!(found::<Pair>(&nothing), Verdict::Told(found) if found.told.is_empty()));
        let mut stranger = nothing;
        stranger.headers.clear();
        assert!(matches!(found::<Pair>(&stranger), Verdict::Unsure(_)));
        let pair = r#"[{"LockIndex":0,"Key":"p/tail","Flags":0,"Value":null,"CreateIndex":5,"ModifyIndex":9}]"#;
        let Verdict::Told(found) = found::<Pair>(&answer(200, pair)) else {
            panic!("a pair")
        };
        assert_eq!((found.index, found.told.len()), (7, 1));
        assert_eq!(found.told.first().map(|pair| pair.modify_index), Some(9));
    }
}
