//! Rows of a source become partitions. Pure: reading and parsing the source is the director's.
//!
//! A row that is wrong refuses the whole reading, because half a list looks like partitions that went.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Number, Value};

use super::expand::PARTITIONS_MAX;
use super::suggest::closest;
use super::{PartitionSource, PartitionSpec};
use crate::ids::PartitionKey;

/// Most bytes of the data of one partition: many fit into one entry of the ledger.
pub const DATA_BYTES_MAX: usize = 64 * 1024;

/// Problems that are told of one reading; more would only be scrolled away.
const TOLD_MAX: usize = 10;

/// One record as a source gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it stands, for people: `line 7`.
    pub place: String,
    /// Its fields.
    pub fields: Map<String, Value>,
    /// Whether the format knows only text, so that a number arrives as its digits (CSV).
    pub untyped: bool,
}

/// Everything that is wrong with a reading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RecordErrors {
    /// The first problems, each with its place.
    pub told: Vec<String>,
    /// How many there are beyond those.
    pub more: usize,
}

impl fmt::Display for RecordErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told.join("; "))?;
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        Ok(())
    }
}

impl RecordErrors {
    fn none() -> Self {
        Self {
            told: Vec::new(),
            more: 0,
        }
    }

    fn add(&mut self, problem: String) {
        if self.told.len() < TOLD_MAX {
            self.told.push(problem);
        } else {
            self.more += 1;
        }
    }
}

/// Turns the rows of a source into its partitions, in the order of the rows.
///
/// The data of a partition is its whole row as compact JSON with sorted keys, so that the same row
/// in another order is the same data.
///
/// # Errors
/// With every row that lacks a key, repeats one, or has a field of the wrong kind.
pub fn partitions(
    rows: &[Row],
    source: &PartitionSource,
) -> Result<Vec<PartitionSpec>, RecordErrors> {
    let mut errors = RecordErrors::none();
    if rows.len() > PARTITIONS_MAX {
        errors.add(format!(
            "{} partitions are more than the {PARTITIONS_MAX} that a service may have",
            rows.len()
        ));
        return Err(errors);
    }
    check_named_fields(rows, source, &mut errors);
    let mut first_at: BTreeMap<PartitionKey, &str> = BTreeMap::new();
    let mut partitions = Vec::with_capacity(rows.len());
    for row in rows {
        match partition(row, source) {
            Err(problem) => errors.add(format!("{}: {problem}", row.place)),
            Ok(partition) => {
                if let Some(first) = first_at.insert(partition.key.clone(), &row.place) {
                    errors.add(format!(
                        "{}: the key {:?} is already at {first}",
                        row.place, partition.key
                    ));
                }
                partitions.push(partition);
            }
        }
    }
    if errors.told.is_empty() {
        Ok(partitions)
    } else {
        Err(errors)
    }
}

fn key_field(source: &PartitionSource) -> &str {
    source.key.as_deref().unwrap_or("key")
}

/// A field that is optional in a row must still be in some row: otherwise its name is a slip.
fn check_named_fields(rows: &[Row], source: &PartitionSource, errors: &mut RecordErrors) {
    if rows.is_empty() {
        return;
    }
    let optional = source
        .weight
        .iter()
        .map(|field| ("weight", field))
        .chain(source.priority.iter().map(|field| ("priority", field)))
        .chain(source.labels.iter().map(|field| ("labels", field)));
    for (what, field) in optional {
        if !rows.iter().any(|row| row.fields.contains_key(field)) {
            let suggestion = rows
                .first()
                .and_then(|row| closest(field, row.fields.keys().map(String::as_str)))
                .map(|near| format!("; did you mean {near:?}?"))
                .unwrap_or_default();
            errors.add(format!(
                "{what} names the field {field:?}, which no row has{suggestion}"
            ));
        }
    }
}

fn partition(row: &Row, source: &PartitionSource) -> Result<PartitionSpec, String> {
    let key = key(row, key_field(source))?;
    let weight = match present(row, source.weight.as_deref()) {
        None => 1,
        Some((field, value)) => weight(row, field, value)?,
    };
    let priority = match present(row, source.priority.as_deref()) {
        None => 0,
        Some((field, value)) => priority(row, field, value)?,
    };
    let mut labels = BTreeMap::new();
    for field in &source.labels {
        if let Some((_, value)) = present(row, Some(field)) {
            labels.insert(field.clone(), label(field, value)?);
        }
    }
    let mut data = String::new();
    write_object(&mut data, &row.fields);
    if data.len() > DATA_BYTES_MAX {
        return Err(format!(
            "the record has {} bytes, and at most {DATA_BYTES_MAX} are kept for a partition",
            data.len()
        ));
    }
    Ok(PartitionSpec {
        key,
        data: Some(data),
        weight,
        labels,
        priority,
    })
}

/// The field with its value, unless it is absent, null, or an empty cell of a format without types.
fn present<'a>(row: &'a Row, field: Option<&'a str>) -> Option<(&'a str, &'a Value)> {
    let field = field?;
    let value = row.fields.get(field)?;
    let empty = value.is_null() || (row.untyped && value.as_str() == Some(""));
    (!empty).then_some((field, value))
}

fn key(row: &Row, field: &str) -> Result<PartitionKey, String> {
    let text = match row.fields.get(field) {
        None => return Err(missing_key(row, field)),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
        Some(other) => {
            return Err(format!(
                "the key {field:?} is {}, and must be a text or a whole number",
                kind(other)
            ));
        }
    };
    PartitionKey::new(&text).map_err(|error| format!("the key {field:?} is refused: {error}"))
}

fn missing_key(row: &Row, field: &str) -> String {
    let names: Vec<&str> = row.fields.keys().map(String::as_str).collect();
    let suggestion = match closest(field, names.iter().copied()) {
        Some(near) => format!("; did you mean key = {near:?}?"),
        None if names.is_empty() => "; the record is empty".to_owned(),
        None => {
            let some: Vec<&str> = names.into_iter().take(10).collect();
            format!("; its fields are {}", some.join(", "))
        }
    };
    format!("the key {field:?} is missing{suggestion}")
}

/// A fraction is rounded up: what is light still weighs something.
fn weight(row: &Row, field: &str, value: &Value) -> Result<u32, String> {
    let refused = |rule: &str| format!("the weight {field:?} is {}, and {rule}", shown(value));
    let Some(number) = number(row, value) else {
        return Err(refused(if value.is_string() && !row.untyped {
            "must be a number; write it without quotes"
        } else {
            "must be a number, such as 12 or 3.5"
        }));
    };
    let fraction = number.as_f64().unwrap_or(f64::INFINITY);
    if fraction <= 0.0 {
        return Err(refused(
            "must be above 0; leave it out for a weight of 1, or `quorate stop` what is not to run",
        ));
    }
    if fraction > f64::from(u32::MAX) {
        return Err(refused(
            "at most 4294967295 is taken; choose a larger unit, such as thousands",
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be within 1..=u32::MAX once rounded up"
    )]
    let weight = fraction.ceil() as u32;
    Ok(weight)
}

fn priority(row: &Row, field: &str, value: &Value) -> Result<i32, String> {
    number(row, value)
        .and_then(|number| number.as_i64())
        .and_then(|number| i32::try_from(number).ok())
        .ok_or_else(|| {
            format!(
                "the priority {field:?} is {}, and must be a whole number from {} to {}",
                shown(value),
                i32::MIN,
                i32::MAX
            )
        })
}

/// A number, or the digits of one where the format has no numbers.
fn number(row: &Row, value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => Some(number.clone()),
        Value::String(digits) if row.untyped => serde_json::from_str(digits.trim()).ok(),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

fn label(field: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(format!(
            "the label {field:?} is {}, and must be a text, a number or true/false",
            kind(value)
        )),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number with a fraction",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The value itself when it is short enough to be read, else its kind.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 40 {
        text
    } else {
        kind(value).to_owned()
    }
}

/// Compact JSON with the keys of every object in the order of their bytes, whatever order the map
/// type of the JSON library keeps.
fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Object(fields) => write_object(out, fields),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}

fn write_object(out: &mut String, fields: &Map<String, Value>) {
    let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
    out.push('{');
    for (at, (name, value)) in sorted.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(name.as_str()).to_string());
        out.push(':');
        write_value(out, value);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rows(values: Value, untyped: bool) -> Vec<Row> {
        let Value::Array(values) = values else {
            panic!("rows are a list")
        };
        values
            .into_iter()
            .enumerate()
            .map(|(at, value)| Row {
                place: format!("line {}", at + 1),
                fields: value.as_object().unwrap().clone(),
                untyped,
            })
            .collect()
    }

    fn source() -> PartitionSource {
        serde_json::from_value(json!({
            "file": "/x.jsonl", "key": "id", "weight": "w", "priority": "p", "labels": ["customer"],
        }))
        .unwrap()
    }

    fn told(values: Value) -> String {
        partitions(&rows(values, false), &source())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_row_becomes_a_partition_with_its_whole_row_as_data() {
        let found = partitions(
            &rows(json!([
                { "w": 2.1, "p": -3, "id": "a", "customer": "x", "z": { "b": 1, "a": [true, null] } },
                { "id": 9_007_199_254_740_993_u64, "big": 9_007_199_254_740_993_u64, "w": null },
            ]), false),
            &source(),
        )
        .unwrap();
        assert_eq!(found[0].key.as_str(), "a");
        assert_eq!((found[0].weight, found[0].priority), (3, -3));
        assert_eq!(found[0].labels["customer"], "x");
        assert_eq!(
            found[0].data.as_deref().unwrap(),
            r#"{"customer":"x","id":"a","p":-3,"w":2.1,"z":{"a":[true,null],"b":1}}"#
        );
        assert_eq!(found[1].key.as_str(), "9007199254740993");
        assert_eq!(
            found[1].data.as_deref().unwrap(),
            r#"{"big":9007199254740993,"id":9007199254740993,"w":null}"#
        );
        assert_eq!((found[1].weight, found[1].priority), (1, 0));
    }

    #[test]
    fn weights_are_rounded_up_and_never_zero() {
        for (given, expected) in [
            (json!(1), 1),
            (json!(0.001), 1),
            (json!(1.5), 2),
            (json!(u32::MAX), u32::MAX),
        ] {
            let found = partitions(
                &rows(
                    json!([{ "id": "a", "w": given, "p": 1, "customer": 1 }]),
                    false,
                ),
                &source(),
            );
            assert_eq!(found.unwrap()[0].weight, expected);
        }
        let digits = rows(
            json!([{ "id": "a", "w": "2.5", "p": "7", "customer": "" }]),
            true,
        );
        let found = partitions(&digits, &source()).unwrap();
        assert_eq!((found[0].weight, found[0].priority), (3, 7));
        assert!(found[0].labels.is_empty());
    }

    #[test]
    fn every_bad_row_is_told_with_its_place() {
        let row = |extra: Value| {
            let mut row = json!({ "id": "a", "w": 1, "p": 1, "customer": "c" });
            for (name, value) in extra.as_object().unwrap() {
                row[name] = value.clone();
            }
            json!([row])
        };
        for (values, expected) in [
            (
                json!([{ "di": "a", "w": 1, "p": 1, "customer": 1 }]),
                "line 1: the key \"id\" is missing; did you mean key = \"di\"?",
            ),
            (
                json!([{ "feed": "a", "w": 1, "p": 1, "customer": 1 }]),
                "line 1: the key \"id\" is missing; its fields are customer, feed, p, w",
            ),
            (
                row(json!({ "id": 1.5 })),
                "the key \"id\" is a number with a fraction, and must be a text or a whole number",
            ),
            (row(json!({ "id": null })), "the key \"id\" is null"),
            (
                row(json!({ "id": true })),
                "the key \"id\" is true or false",
            ),
            (
                row(json!({ "id": "../x" })),
                "the key \"id\" is refused: a partition key has visible characters",
            ),
            (row(json!({ "id": "" })), "a partition key cannot be empty"),
            (
                row(json!({ "w": 0 })),
                "the weight \"w\" is 0, and must be above 0; leave it out for a weight of 1",
            ),
            (
                row(json!({ "w": -0.5 })),
                "the weight \"w\" is -0.5, and must be above 0; leave it out",
            ),
            (
                row(json!({ "w": "10" })),
                "the weight \"w\" is \"10\", and must be a number; write it without quotes",
            ),
            (
                row(json!({ "w": true })),
                "the weight \"w\" is true, and must be a number, such as 12",
            ),
            (
                row(json!({ "w": 4_294_967_296_u64 })),
                "the weight \"w\" is 4294967296, and at most 4294967295 is taken; choose a larger unit",
            ),
            (
                row(json!({ "w": 1e300 })),
                "the weight \"w\" is 1e+300, and at most 4294967295",
            ),
            (
                row(json!({ "p": 1.5 })),
                "the priority \"p\" is 1.5, and must be a whole number",
            ),
            (
                row(json!({ "p": 9_000_000_000_u64 })),
                "the priority \"p\" is 9000000000",
            ),
            (
                row(json!({ "customer": { "a": 1 } })),
                "the label \"customer\" is an object",
            ),
            (
                row(json!({ "x": "x".repeat(70_000) })),
                "and at most 65536 are kept for a partition",
            ),
            (
                json!([{ "id": "a", "w": 1, "p": 1, "customr": 1 }]),
                "labels names the field \"customer\", which no row has; did you mean \"customr\"?",
            ),
        ] {
            let told = told(values);
            assert!(told.contains(expected), "expected {expected}\n told {told}");
        }
        let twice = told(json!([
            { "id": "a", "w": 1, "p": 1, "customer": 1 }, { "id": "b" }, { "id": "a" },
        ]));
        assert_eq!(twice, "line 3: the key \"a\" is already at line 1");
    }

    #[test]
    fn a_flood_of_problems_is_cut_and_counted() {
        let row = json!({ "id": null, "w": 1, "p": 1, "customer": 1 });
        let told = told(Value::from(vec![row; 1000]));
        assert!(told.ends_with("; and 990 more"), "{told}");
    }

    #[test]
    fn an_empty_list_is_an_empty_list() {
        assert_eq!(partitions(&[], &source()).unwrap(), []);
    }

    proptest! {
        #[test]
        fn data_says_what_the_row_said_whatever_its_order(
            fields in prop::collection::vec(("[a-z]{1,4}", any::<i64>()), 0..8), id in "[a-z]{1,8}",
        ) {
            let source: PartitionSource = serde_json::from_value(json!({ "file": "/x.csv", "key": "id" })).unwrap();
            let build = |fields: &mut dyn Iterator<Item = &(String, i64)>| {
                let mut map: Map<String, Value> = fields.map(|(name, n)| (name.clone(), json!(n))).collect();
                map.insert("id".to_owned(), json!(id));
                Row { place: "line 1".to_owned(), fields: map, untyped: false }
            };
            let mut unique: BTreeMap<String, i64> = BTreeMap::new();
            unique.extend(fields);
            let fields: Vec<_> = unique.into_iter().collect();
            let there = partitions(&[build(&mut fields.iter())], &source).unwrap();
            let back = partitions(&[build(&mut fields.iter().rev())], &source).unwrap();
            prop_assert_eq!(&there, &back);
            let read: Map<String, Value> = serde_json::from_str(there[0].data.as_deref().unwrap()).unwrap();
            prop_assert_eq!(read, build(&mut fields.iter()).fields);
        }
    }
}
