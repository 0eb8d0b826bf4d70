//! The OpenAPI document: whoever writes a client relies on it, so a change of it is seen in review.

use std::path::Path;

use serde_json::Value;

use crate::desk::Desk;

/// Run with `UPDATE_GOLDEN=1` to write the file anew.
#[tokio::test]
async fn the_document_is_the_one_in_the_repository_and_lists_every_route() {
    let desk = Desk::start().await;
    let response = desk
        .http
        .get(desk.url("/openapi.json"))
        .send()
        .await
        .unwrap();
    let served = response.text().await.unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, format!("{served}\n")).unwrap();
    }
    let kept = std::fs::read_to_string(&golden).unwrap();
    assert!(
        served.trim() == kept.trim(),
        "the document has changed; look at the difference after UPDATE_GOLDEN=1"
    );

    let document: Value = serde_json::from_str(&served).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let constants = include_str!("../../../quorate-api/src/routes.rs");
    let routes = constants
        .lines()
        .filter(|line| line.starts_with("pub const"))
        .filter_map(|line| line.split('"').nth(1))
        .filter(|path| path.starts_with('/'));
    let missing: Vec<&str> = routes.filter(|path| !paths.contains_key(*path)).collect();
    assert!(missing.is_empty(), "not served: {missing:?}");
    // A path that is described answers: with anything but "no such path".
    for (path, operations) in paths {
        let filled = path
            .replace("{name}", "x")
            .replace("{key}", "y")
            .replace("{id}", "1");
        for method in operations.as_object().unwrap().keys() {
            if path.ends_with("/events") {
                continue;
            }
            let method = method.to_uppercase().parse().unwrap();
            let request = desk.http.request(method, desk.url(&filled));
            let text = request.send().await.unwrap().text().await.unwrap();
            let unknown = text.contains("\"code\":\"unknown_path\"");
            assert!(!unknown, "{path}: {text}");
        }
    }
    every_answer_is_described(paths);
    desk.stop().await;
}

/// What OpenAPI requires of each answer, and what this API promises of all that is refused.
fn every_answer_is_described(paths: &serde_json::Map<String, Value>) {
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let at = format!("{method} {path} {status}");
                let described = answer["description"].as_str();
                assert!(described.is_some_and(|text| !text.is_empty()), "{at}");
                let refused = status == "default" || status.starts_with(['4', '5']);
                if refused {
                    let kinds: Vec<&String> =
                        answer["content"].as_object().unwrap().keys().collect();
                    assert_eq!(kinds, ["application/problem+json"], "{at}");
                }
            }
        }
    }
}
