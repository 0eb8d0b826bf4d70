//! The reference against the parser, the validator and the document.

use std::collections::BTreeSet;

use quorate_core::planner;
use quorate_core::spec::{self, File};
use quorate_director::duties::sources;
use serde_json::{Map, Value, json};

use super::*;

/// A key that no table has.
const NO_KEY: &str = "no_such_key";

/// The keys that a table takes, as the parser itself lists them; nothing when it is no table.
fn known_at(path: &[&str]) -> Option<Vec<String>> {
    let mut tree = json!({ NO_KEY: 1 });
    for name in path.iter().rev() {
        tree = json!({ *name: tree });
    }
    let mut service = json!({ "command": ["x"] });
    if let (Some(service), Value::Object(more)) = (service.as_object_mut(), tree) {
        service.extend(more);
    }
    let file = json!({ "service": { "a": service } });
    let error = serde_json::from_value::<File>(file)
        .unwrap_err()
        .to_string();
    let rest = error.strip_prefix(&format!("unknown field `{NO_KEY}`, expected "))?;
    Some(
        rest.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect(),
    )
}

/// Every key that is no table, with dots between.
fn leaves(path: &mut Vec<String>, found: &mut BTreeSet<String>) {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    match known_at(&names) {
        Some(keys) => {
            for key in keys {
                path.push(key);
                leaves(path, found);
                path.pop();
            }
        }
        None => {
            found.insert(path.join("."));
        }
    }
}

#[test]
fn every_key_that_the_parser_knows_is_described_and_no_other() {
    let mut known = BTreeSet::new();
    leaves(&mut Vec::new(), &mut known);
    let described: Vec<String> = entries().map(|entry| entry.key).collect();
    let unique: BTreeSet<String> = described.iter().cloned().collect();
    assert_eq!(unique, known);
    assert_eq!(described.len(), unique.len());
    let error = serde_json::from_value::<File>(json!({ NO_KEY: 1 })).unwrap_err();
    assert!(error.to_string().contains("expected `service`"), "{error}");
}

fn value(toml: &str) -> Value {
    let mut table: Map<String, Value> = toml::from_str(&format!("v = {toml}")).unwrap();
    table.remove("v").unwrap()
}

#[test]
fn every_default_is_that_of_the_parser() {
    let minimal =
        json!({ "service": { "a": { "command": ["x"], "partitions": { "list": ["k"] } } } });
    let file: File = serde_json::from_value(minimal).unwrap();
    let all = serde_json::to_value(&file).unwrap();
    for entry in entries() {
        let pointer = format!("/service/a/{}", entry.key.replace('.', "/"));
        let found = all.pointer(&pointer).cloned().unwrap_or(Value::Null);
        match (entry.key.as_str(), entry.default) {
            // What stands in the file is what must; and these two are filled in by those who use them.
            ("command" | "partitions.list", _) => continue,
            ("ramp.settle", default) => {
                let usual = spec::Span(planner::PlannerConfig::default().settle);
                assert_eq!(value(default), json!(usual.to_string()));
            }
            ("partitions.key", default) => assert_eq!(value(default), json!("key")),
            (key, "none") => assert_eq!(found, Value::Null, "{key}"),
            (key, default) => assert_eq!(found, value(default), "{key}"),
        }
    }
}

/// A service in which the value of a key stands, and what the key needs beside it.
fn with(key: &str, value: Value) -> Value {
    let mut service = json!({ "command": ["x"] });
    let mut set = |path: &str, value: Value| {
        let mut at = &mut service;
        for name in path.split('.') {
            at = &mut at[name];
        }
        *at = value;
    };
    match key {
        "partitions.list" | "partitions.range" | "partitions.file" => {}
        key if key.starts_with("partitions.") || key == "placement.spread" => {
            set("partitions.file", json!("/x/feeds.jsonl"));
        }
        _ => {}
    }
    if key == "placement.spread" {
        set("partitions.labels", json!(["customer"]));
    }
    set(key, value);
    if key == "partitions.file" {
        // Relative paths are made absolute before anything is validated.
        let name = service["partitions"]["file"].as_str().unwrap().to_owned();
        service["partitions"]["file"] = json!(format!("/x/{name}"));
    }
    json!({ "service": { "a": service } })
}

fn taken(key: &str, toml: &str) -> Result<(), String> {
    let file = with(key, value(toml));
    let file: File = serde_json::from_value(file).map_err(|error| error.to_string())?;
    match spec::validate(&file).first() {
        None => Ok(()),
        Some(problem) => Err(problem.to_string()),
    }
}

#[test]
fn every_example_is_taken_and_what_is_beyond_the_limits_is_refused() {
    for section in keys::SECTIONS {
        for key in section.keys {
            let name = path(section, key);
            assert_eq!(taken(&name, key.example), Ok(()), "{name}");
            assert!(!key.refused.is_empty(), "{name}");
            for beyond in key.refused {
                assert!(taken(&name, beyond).is_err(), "{name} = {beyond}");
            }
        }
    }
    let shortest = spec::validate::shortest_lease(spec::validate::TAKEOVER_MAX);
    let lease = named("lease").remove(0);
    let told = lease.limits.split(' ').next().unwrap();
    assert_eq!(told, shortest.to_string());
}

#[test]
fn the_document_holds_these_words() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/service-file.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap();
    assert_eq!(there, document(), "run this test with UPDATE_GOLDEN=1");
}

/// Whether a value fits a schema, as far as ours goes.
fn fits(schema: &Value, value: &Value) -> bool {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let of_kind = schema["type"] == kind;
    let of_enum = schema["enum"]
        .as_array()
        .is_none_or(|values| values.contains(value));
    let mut items = value.as_array().into_iter().flatten();
    let mut fields = value.as_object().into_iter().flatten();
    let required = schema["required"].as_array().into_iter().flatten();
    let mut required = required.filter_map(Value::as_str);
    of_kind
        && of_enum
        && items.all(|item| fits(&schema["items"], item))
        && required.all(|name| value.get(name).is_some())
        && fields.all(|(name, field)| match schema["properties"].get(name) {
            Some(property) => fits(property, field),
            None => {
                schema["additionalProperties"].is_object()
                    && fits(&schema["additionalProperties"], field)
            }
        })
}

#[test]
fn the_schema_takes_every_example_and_no_unknown_key_and_knows_every_kind_and_default() {
    let schema = schema();
    for section in keys::SECTIONS {
        for key in section.keys {
            let name = path(section, key);
            let file = with(&name, value(key.example));
            assert!(fits(&schema, &file), "{name}: {file}");
            let default = match key.default {
                "none" | "required" => Value::Null,
                toml => value(toml),
            };
            let pointer = format!("/{}", name.replace('.', "/properties/"));
            let service = &schema["properties"]["service"]["additionalProperties"];
            let property = service["properties"].pointer(&pointer).unwrap();
            assert_eq!(property["default"], default, "{name}");
            assert!(property["type"].is_string(), "{name}");
            assert!(default.is_null() || fits(property, &default), "{name}");
            let odd = json!({ "neither": [null] });
            assert!(!fits(property, &odd), "{name}");
        }
        let inside = [section.table, NO_KEY].join(".");
        let file = with(inside.trim_start_matches('.'), json!(1));
        assert!(!fits(&schema, &file), "{file}");
    }
    for file in [json!({}), json!({ "service": { "a": {} } }), json!([])] {
        assert!(!fits(&schema, &file), "{file}");
    }
}

#[test]
fn the_schema_is_published() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/service-file.schema.json"
    );
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, schema_document()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        there,
        schema_document(),
        "run this test with UPDATE_GOLDEN=1"
    );
}

#[test]
fn the_four_lists_of_the_document_are_one() {
    let source = json!({ "file": "/x/feeds.jsonl", "key": "feed_id", "weight": "weight" });
    let source = serde_json::from_value(source).unwrap();
    let list = |format: &str| {
        let (_, rest) = TAIL.split_once(&format!("```{format}\n")).unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let name = format!("feeds.{format}");
        sources::parse(&name, text.as_bytes(), &source).unwrap()
    };
    let lines = list("jsonl");
    let all: Vec<(&str, u32)> = lines
        .iter()
        .map(|one| (one.key.as_str(), one.weight))
        .collect();
    assert_eq!(all, [("acme-eu", 12), ("globex", 3)]);
    assert_eq!(list("json"), lines);
    assert_eq!(list("toml"), lines);
    // Every value is text there.
    let mut texts = lines.clone();
    for one in &mut texts {
        let weight = format!("\"weight\":{}", one.weight);
        let text = format!("\"weight\":\"{}\"", one.weight);
        one.data = one.data.take().map(|data| data.replace(&weight, &text));
    }
    assert_eq!(list("csv"), texts);
}

#[test]
fn keys_are_found_by_their_path_their_table_or_their_last_part() {
    let keys = |name: &str| -> Vec<String> { named(name).into_iter().map(|e| e.key).collect() };
    assert_eq!(keys("restart.backoff"), ["restart.backoff"]);
    assert_eq!(keys("service.feeds.restart.backoff"), ["restart.backoff"]);
    assert_eq!(keys("timeout"), ["stop.timeout", "ready.timeout"]);
    let restart_on = keys("restart.on");
    assert!(restart_on.contains(&"restart.on.crash".to_owned()));
    assert!(keys("ramp").iter().all(|key| key.starts_with("ramp.")));
    assert!(keys("ramp").len() > 3 && keys("frob").is_empty());
}

#[test]
fn service_files_in_the_documents_are_valid() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    for name in ["README.md", "docs/service-file.md"] {
        let document = std::fs::read_to_string(format!("{root}/{name}")).unwrap();
        let (_, rest) = document.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        // As the command line does, which knows the file's own folder.
        let text = text
            .replace("\"./", "\"/x/")
            .replace("\"feeds.jsonl", "\"/x/feeds.jsonl");
        let file: File = toml::from_str(&text).unwrap();
        assert_eq!(spec::validate(&file), [], "{name}");
    }
}
