//! The JSON Schema of the service file, from the same words as the reference, for editors that complete and
//! check while a person writes.
//!
//! **Never** stricter than the parser: it knows names and kinds, and leaves limits to `quorate validate`.

use serde_json::{Map, Value, json};

use super::{Key, keys};

/// The whole schema, draft 2020-12.
pub(crate) fn schema() -> Value {
    let mut service = table("");
    if let Some(service) = service.as_object_mut() {
        service.insert("required".to_owned(), json!(required("")));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "quorate service file",
        "description": "TOML, or JSON of the same shape. `quorate validate FILE` checks the limits, too.",
        "type": "object",
        "additionalProperties": false,
        "required": ["service"],
        "properties": {
            "service": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": service,
            },
        },
    })
}

/// As it stands in `docs/service-file.schema.json`.
pub(crate) fn document() -> String {
    let mut text = format!("{:#}", schema());
    text.push('\n');
    text
}

fn required(table: &str) -> Vec<&'static str> {
    let sections = keys::SECTIONS
        .iter()
        .filter(|section| section.table == table);
    let keys = sections.flat_map(|section| section.keys);
    keys.filter(|key| key.default == "required")
        .map(|key| key.name)
        .collect()
}

/// One table, with those inside it.
fn table(name: &str) -> Value {
    let mut properties = Map::new();
    let mut meaning = "";
    for section in keys::SECTIONS {
        if section.table == name {
            meaning = section.meaning;
            for key in section.keys {
                properties.insert(key.name.to_owned(), property(key));
            }
        } else if let Some(inner) = inside(section.table, name) {
            properties.insert(inner.to_owned(), table(section.table));
        }
    }
    json!({
        "type": "object",
        "description": meaning,
        "additionalProperties": false,
        "properties": properties,
    })
}

/// The last part of a table's name, when the table is right inside the other.
fn inside<'a>(table: &'a str, other: &str) -> Option<&'a str> {
    let rest = if other.is_empty() {
        table
    } else {
        table.strip_prefix(other)?.strip_prefix('.')?
    };
    (!rest.is_empty() && !rest.contains('.')).then_some(rest)
}

fn property(key: &Key) -> Value {
    let mut schema = kind(key.kind);
    let limits = match key.limits {
        "" => String::new(),
        limits => format!(" Limits: {limits}."),
    };
    if let Some(schema) = schema.as_object_mut() {
        let words = format!("{}{limits} Example: `{}`", key.meaning, key.example);
        schema.insert("description".to_owned(), json!(words));
        if !matches!(key.default, "none" | "required")
            && let Ok(default) = serde_json::from_str::<Value>(key.default)
        {
            schema.insert("default".to_owned(), default);
        }
    }
    schema
}

/// What is written there. A test knows that every kind of the reference is here.
fn kind(kind: &str) -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer" });
    match kind {
        "text" | "time" | "size" => text(),
        "whole number" => number(),
        "true or false" => json!({ "type": "boolean" }),
        "list of texts" => json!({ "type": "array", "items": text() }),
        "list of whole numbers" => json!({ "type": "array", "items": number() }),
        "table of texts" => json!({ "type": "object", "additionalProperties": text() }),
        choice => {
            let values: Vec<&str> = choice.split('`').skip(1).step_by(2).collect();
            if values.is_empty() {
                json!({})
            } else {
                json!({ "type": "string", "enum": values })
            }
        }
    }
}
