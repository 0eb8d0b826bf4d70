//! What is asked of Consul, request by request, and what its answers mean.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_core::ids::{Epoch, Position};
use quorate_ledger::shared::SharedLedger;
use quorate_ledger::{AppendError, Appended, Ledger, ReadError};
use serde_json::{Value, json};

use crate::support::long;

use super::documented::{Asked, Documented, Told};
use super::open;

const PATIENCE: Duration = Duration::from_secs(60);

async fn started() -> (Documented, SharedLedger) {
    let consul = Documented::start().await;
    let ledger = open(&format!("consul://{}/p", consul.host));
    (consul, ledger)
}

async fn append(ledger: &SharedLedger, at: u64) -> Result<Appended, AppendError> {
    let entry = format!("entry {at}").into_bytes();
    ledger.append(Position(at), Epoch(3), entry).await
}

fn lines(asked: &[Asked]) -> Vec<&str> {
    asked.iter().map(|asked| asked.line.as_str()).collect()
}

fn entry_key(at: u64) -> String {
    format!("p/entries/{at:020}")
}

fn log_key(begin: u64) -> String {
    format!("p/log/{begin:020}")
}

fn empty_key(begin: u64) -> String {
    format!("{}-empty", log_key(begin))
}

fn entry(at: u64) -> Value {
    json!(STANDARD.encode(format!("entry {at}")))
}

fn tail(next: u64) -> Value {
    json!(STANDARD.encode(format!(r#"{{"next":{next},"epoch":3,"begin":1}}"#)))
}

fn text(error: AppendError) -> String {
    match error {
        AppendError::Refused { cause, .. } => format!("refused: {cause}"),
        AppendError::OutcomeUnknown { cause, .. } => format!("unknown: {cause}"),
    }
}

#[tokio::test]
async fn an_append_is_one_transaction() {
    let (consul, ledger) = started().await;
    for at in [1, 2] {
        assert_eq!(append(&ledger, at).await.unwrap(), Appended::Appended);
    }
    let asked = consul.asked();
    assert_eq!(lines(&asked), ["PUT /v1/txn", "PUT /v1/txn"]);
    let first = json!([
        {"KV": {"Verb": "cas", "Key": entry_key(1), "Value": entry(1), "Index": 0}},
        {"KV": {"Verb": "cas", "Key": "p/tail", "Value": tail(2), "Index": 0}},
        {"KV": {"Verb": "set", "Key": log_key(1), "Value": ""}},
    ]);
    let second = json!([
        {"KV": {"Verb": "get", "Key": entry_key(1)}},
        {"KV": {"Verb": "get", "Key": log_key(1)}},
        {"KV": {"Verb": "cas", "Key": entry_key(2), "Value": entry(2), "Index": 0}},
        {"KV": {"Verb": "set", "Key": "p/tail", "Value": tail(3)}},
    ]);
    let bodies: Vec<Value> = asked.iter().map(Asked::json).collect();
    assert_eq!(bodies, [first, second]);
}

#[tokio::test]
async fn a_transaction_that_was_rolled_back_is_looked_into() {
    let (consul, ledger) = started().await;
    append(&ledger, 1).await.unwrap();
    consul.asked();
    assert_eq!(append(&ledger, 1).await.unwrap(), Appended::PositionTaken);
    let taken = ["PUT /v1/txn", "GET /v1/kv/p/tail?consistent"];
    assert_eq!(lines(&consul.asked()), taken);
    let said = text(append(&ledger, 3).await.unwrap_err());
    assert!(said.starts_with("refused: position 2"), "{said}");
    assert_eq!(lines(&consul.asked()), taken);
}

#[tokio::test]
async fn answers_are_sorted_into_refused_and_unknown() {
    let (consul, ledger) = started().await;
    for (told, begins, has) in [
        (
            Told::new(500, None, "No cluster leader"),
            "unknown",
            "No cluster leader",
        ),
        (
            Told::new(500, None, "leadership lost while committing log"),
            "unknown",
            "lost",
        ),
        (
            Told::new(503, None, "retry later"),
            "unknown",
            "retry later",
        ),
        (
            Told::new(200, None, "<html>"),
            "unknown",
            "no answer of Consul",
        ),
        (
            Told::new(409, None, r#"{"Errors":[{"OpIndex":0,"What":"whatever"}]}"#),
            "unknown",
            "rolled back",
        ),
        (
            Told::new(
                409,
                None,
                r#"{"Errors":[{"OpIndex":0,"What":"Permission denied: token"}]}"#,
            ),
            "refused",
            "policy write",
        ),
        (
            Told::new(403, None, "Permission denied"),
            "refused",
            "policy write",
        ),
        (
            Told::new(413, None, "Request body too large"),
            "refused",
            "kv_max_value_size",
        ),
        (
            Told::new(429, None, "rate limit exceeded"),
            "refused",
            "rate limits",
        ),
        (
            Told::new(400, None, "Failed to parse body"),
            "refused",
            "parse",
        ),
    ] {
        let status = told.status;
        consul.answer_instead(told);
        let said = text(append(&ledger, 1).await.unwrap_err());
        assert!(
            said.starts_with(begins) && said.contains(has),
            "{status}: {said}"
        );
    }
    // Nothing was asked twice.
    assert_eq!(consul.asked().len(), 10);
    consul.answer_instead(Told::new(404, None, "not found"));
    match ledger.tail().await {
        Err(ReadError::Unavailable(cause)) => {
            assert!(cause.to_string().contains("no answer of Consul"), "{cause}");
        }
        other => panic!("what is no answer of Consul is no empty store: {other:?}"),
    }
}

#[tokio::test]
async fn where_nobody_listens_an_append_is_refused_and_another_server_is_asked() {
    let consul = Documented::start().await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = {
        let host = gone.local_addr().unwrap().to_string();
        drop(gone);
        host
    };
    let alone = open(&format!("consul://{gone}/p"));
    let said = text(append(&alone, 1).await.unwrap_err());
    assert!(
        said.starts_with("refused") && said.contains(&gone),
        "{said}"
    );
    let both = open(&format!("consul://{gone},{}/p", consul.host));
    assert_eq!(append(&both, 1).await.unwrap(), Appended::Appended);
}

#[tokio::test]
async fn the_token_goes_with_every_request() {
    let consul = Documented::start().await;
    let ledger = open(&format!("consul://any:s3cret@{}/p", consul.host));
    append(&ledger, 1).await.unwrap();
    ledger.read(Position(1), 1).await.unwrap();
    ledger
        .save_snapshot(Position(2), b"state".to_vec())
        .await
        .unwrap();
    let asked = consul.asked();
    assert!(asked.len() > 5, "{asked:?}");
    long::begins_and_moves(&ledger, 2).await;
    let asked: Vec<Asked> = asked.into_iter().chain(consul.asked()).collect();
    assert!(
        asked
            .iter()
            .all(|asked| asked.token.as_deref() == Some("s3cret"))
    );
    assert!(!format!("{ledger:?}").contains("s3cret"));
}

#[tokio::test]
async fn reads_take_neighbours_together() {
    let (consul, ledger) = started().await;
    for at in 1..=12 {
        append(&ledger, at).await.unwrap();
    }
    consul.asked();
    let found = ledger.read(Position(8), 5).await.unwrap();
    assert_eq!(found.len(), 5);
    let stem = |tens: u64| format!("GET /v1/kv/p/entries/{tens:019}?recurse&consistent");
    assert_eq!(lines(&consul.asked()), [stem(0), stem(1)]);
}

#[tokio::test]
async fn a_snapshot_is_put_pointed_to_and_what_it_leaves_is_deleted_in_order() {
    let (consul, ledger) = started().await;
    for at in 1..=100 {
        append(&ledger, at).await.unwrap();
    }
    ledger
        .save_snapshot(Position(91), vec![1; 300_000])
        .await
        .unwrap();
    let asked = consul.asked();
    let asked: Vec<&Asked> = asked.iter().skip(100).collect();
    let lines: Vec<&str> = asked.iter().map(|asked| asked.line.as_str()).collect();
    let [tail, pointer, part_0, part_1, swap, list] = lines.as_slice() else {
        panic!("{lines:#?}")
    };
    assert_eq!(*tail, "GET /v1/kv/p/tail?consistent");
    assert_eq!(*pointer, "GET /v1/kv/p/snapshot?consistent");
    let folder = part_0
        .strip_prefix("PUT /v1/kv/p/")
        .and_then(|part| part.strip_suffix("/00000"));
    let folder = folder.expect("a part");
    assert!(
        folder.starts_with("parts/00000000000000000001-"),
        "{folder}"
    );
    assert_eq!(*part_1, format!("PUT /v1/kv/p/{folder}/00001"));
    // As it is, not in base64.
    assert_eq!(asked.get(2).map(|asked| asked.body.len()), Some(256 * 1024));
    assert_eq!(*swap, "PUT /v1/kv/p/snapshot?cas=0");
    assert_eq!(*list, "GET /v1/kv/p/parts/?keys&separator=/&consistent");

    ledger
        .save_snapshot(Position(101), b"state".to_vec())
        .await
        .unwrap();
    let asked = consul.asked();
    let deleted = format!("DELETE /v1/kv/p/{folder}/?recurse");
    assert!(lines_of(&asked).any(|line| line == deleted), "{asked:?}");
    let swap = lines_of(&asked).find(|line| line.contains("cas="));
    assert!(
        swap.is_some_and(|swap| !swap.ends_with("cas=0")),
        "{swap:?}"
    );
    // What the first one covers: 90 entries, the oldest first, at most 64 at once.
    let trimmed: Vec<Vec<String>> = asked
        .iter()
        .filter(|asked| asked.line == "PUT /v1/txn")
        .map(|asked| deletes(&asked.json()))
        .collect();
    let expected: Vec<String> = (1..=90).map(entry_key).collect();
    assert_eq!(trimmed.concat(), expected);
    assert_eq!(trimmed.iter().map(Vec::len).collect::<Vec<_>>(), [64, 26]);
}

#[tokio::test]
async fn a_log_begins_anew_in_one_transaction_and_the_old_one_is_deleted_in_order() {
    let (consul, ledger) = started().await;
    for at in 1..=70 {
        append(&ledger, at).await.unwrap();
    }
    consul.asked();
    let seen = Some(Position(71));
    let snapshot = vec![1; 300_000];
    let begun = ledger.begin(Position(500), Epoch(4), snapshot, seen);
    begun.await.unwrap();
    let asked = consul.asked();
    let puts = lines_of(&asked).filter(|line| line.contains("/parts/") && line.contains("PUT"));
    assert_eq!(puts.count(), 2, "{asked:?}");
    let txns: Vec<Value> = asked
        .iter()
        .filter(|asked| asked.line == "PUT /v1/txn")
        .map(Asked::json)
        .collect();
    let [begin, deleted @ ..] = txns.as_slice() else {
        panic!("{asked:?}")
    };
    let pointer = begin.pointer("/0/KV/Value").cloned();
    let end = json!(STANDARD.encode(r#"{"next":500,"epoch":4,"begin":500}"#));
    let expected = json!([
        {"KV": {"Verb": "cas", "Key": "p/snapshot", "Value": pointer, "Index": 0}},
        {"KV": {"Verb": "cas", "Key": empty_key(500), "Value": "", "Index": 0}},
        {"KV": {"Verb": "get", "Key": log_key(1)}},
        {"KV": {"Verb": "delete", "Key": log_key(1)}},
        {"KV": {"Verb": "cas", "Key": entry_key(71), "Value": "", "Index": 0}},
        {"KV": {"Verb": "delete", "Key": entry_key(71)}},
        {"KV": {"Verb": "set", "Key": "p/tail", "Value": end}},
    ]);
    assert_eq!(*begin, expected);
    let deleted: Vec<Vec<String>> = deleted.iter().map(deletes).collect();
    let expected: Vec<String> = (1..=70).map(entry_key).collect();
    assert_eq!(deleted.concat(), expected);
    // The first entry of the new log needs that nothing was ever there.
    append(&ledger, 500).await.unwrap();
    let asked = consul.asked();
    let [first] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    let end = json!(STANDARD.encode(r#"{"next":501,"epoch":3,"begin":500}"#));
    let expected = json!([
        {"KV": {"Verb": "get", "Key": empty_key(500)}},
        {"KV": {"Verb": "delete", "Key": empty_key(500)}},
        {"KV": {"Verb": "cas", "Key": entry_key(500), "Value": entry(500), "Index": 0}},
        {"KV": {"Verb": "set", "Key": "p/tail", "Value": end}},
        {"KV": {"Verb": "set", "Key": log_key(500), "Value": ""}},
    ]);
    assert_eq!(first.json(), expected);
}

#[tokio::test]
async fn a_begin_or_a_move_without_an_answer_is_looked_for() {
    let (consul, ledger) = started().await;
    append(&ledger, 1).await.unwrap();
    let owner = ledger.claim(quorate_core::ids::ClusterId(7)).await.unwrap();
    assert_eq!(owner.cluster.0, 7);
    consul.lose_the_answer_to("PUT /v1/txn");
    let (next, seen) = (Position(200), Some(Position(2)));
    let begun = ledger.begin(next, Epoch(4), b"state".to_vec(), seen);
    begun.await.unwrap();
    assert_eq!(ledger.tail().await.unwrap().next, next);
    consul.lose_the_answer_to("PUT /v1/txn");
    let marked = ledger.mark_moved(owner.cluster, "elsewhere").await;
    marked.unwrap();
    let owner = ledger.owner().await.unwrap();
    assert_eq!(
        owner.and_then(|owner| owner.moved_to).as_deref(),
        Some("elsewhere")
    );
    let said = text(append(&ledger, 200).await.unwrap_err());
    assert!(
        said.starts_with("refused") && said.contains("has moved to elsewhere"),
        "{said}"
    );
}

#[tokio::test]
async fn a_claim_without_an_answer_is_looked_for() {
    let (consul, ledger) = started().await;
    consul.lose_the_answer_to("PUT /v1/kv/p/owner?cas=0");
    let owner = ledger.claim(quorate_core::ids::ClusterId(7)).await.unwrap();
    assert_eq!(owner.cluster.0, 7);
}

fn lines_of(asked: &[Asked]) -> impl Iterator<Item = &str> {
    asked.iter().map(|asked| asked.line.as_str())
}

fn deletes(operations: &Value) -> Vec<String> {
    let operations = operations.as_array().expect("a list");
    let keys = operations.iter().map(|operation| {
        let kv = operation.get("KV").expect("an operation on a key");
        assert_eq!(kv.get("Verb"), Some(&json!("delete")));
        let key = kv.get("Key").and_then(Value::as_str).expect("a key");
        key.to_owned()
    });
    keys.collect()
}

#[tokio::test]
async fn whoever_follows_waits_from_the_last_index_and_begins_again_when_it_goes_back() {
    let consul = Documented::start().await;
    let pair = |next: u64, index: u64| {
        let pair = json!([{"Key": "p/tail", "Value": tail(next), "ModifyIndex": index}]);
        Told::new(200, Some(index), pair.to_string())
    };
    consul.tell_followers([
        Told::new(404, Some(4), ""),
        pair(2, 12),
        // The time has passed.
        pair(2, 12),
        pair(3, 13),
        // Another history.
        pair(2, 5),
        pair(9, 20),
    ]);
    let ledger = open(&format!("consul://{}/p", consul.host));
    let mut hints = ledger.hints();
    let told = hints.wait_for(|hints| hints.occupied == Position(8));
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("a hint")
        .expect("it follows");
    let waiting = |index: u64| format!("GET /v1/kv/p/tail?index={index}&wait=30s");
    let begin = || String::from("GET /v1/kv/p/tail");
    let asked = consul.followed();
    let expected = [
        begin(),
        waiting(4),
        waiting(12),
        waiting(12),
        waiting(13),
        begin(),
    ];
    // It may ask once more by now.
    let asked: Vec<&str> = lines(&asked).into_iter().take(expected.len()).collect();
    assert_eq!(asked, expected);
}
