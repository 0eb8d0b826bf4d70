//! JSON read strictly: a key twice in one object is an error instead of the last one silently
//! counting, and an integer that cannot be kept exactly is an error instead of a nearby number.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::text::ParseError;

/// Reads one JSON value that stands in a file from line `first_line` on.
pub(super) fn value(text: &str, first_line: usize) -> Result<Value, ParseError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| located(&error, first_line))?;
    match inexact_integer(text) {
        None => Ok(value),
        Some((at, digits)) => Err(ParseError {
            line: Some(first_line + line_breaks(text, at)),
            message: format!(
                "the number {digits} is too large to be kept exactly; write it in quotes"
            ),
        }),
    }
}

/// Reads one JSON object.
pub(super) fn object(text: &str, first_line: usize) -> Result<Map<String, Value>, ParseError> {
    let value = value(text, first_line)?;
    if let Value::Object(fields) = value {
        return Ok(fields);
    }
    Err(ParseError {
        line: Some(first_line),
        message: format!(
            "each record is an object such as {{\"key\": \"a\"}}, this is {}",
            kind(&value)
        ),
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The reader's error with the line in the file instead of in the piece of text it was given.
pub(super) fn located(error: &serde_json::Error, first_line: usize) -> ParseError {
    let message = error.to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(message, _)| message);
    ParseError {
        line: Some(first_line + error.line().saturating_sub(1)),
        message: message.to_owned(),
    }
}

pub(super) fn line_breaks(text: &str, before: usize) -> usize {
    text.bytes()
        .take(before)
        .filter(|byte| *byte == b'\n')
        .count()
}

/// The first integer outside the 64 bits that are kept exactly, with its place. The text is JSON.
fn inexact_integer(text: &str) -> Option<(usize, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut in_string = false;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let rest = text.get(at..)?;
                let end = rest
                    .find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'))
                    .unwrap_or(rest.len());
                let (number, _) = rest.split_at(end);
                let whole = !number.contains(['.', 'e', 'E']);
                if whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some((at, number));
                }
                at += end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Builds a [`Value`] and refuses a key that comes twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format!("the field {name:?} comes twice")));
            }
            let value = entries.next_value_seed(Strict)?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}
