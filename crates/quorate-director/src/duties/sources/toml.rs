//! TOML with one `[[partition]]` table for each record.

use ::toml::{Spanned, Table, Value as Toml};
use quorate_core::spec::records::Row;
use serde::Deserialize;
use serde_json::{Map, Number, Value};

use super::strict::line_breaks;
use super::text::ParseError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    partition: Vec<Spanned<Table>>,
}

pub(super) fn rows(text: &str) -> Result<Vec<Row>, ParseError> {
    let document: Document = ::toml::from_str(text).map_err(|error| ParseError {
        line: error.span().map(|span| line_breaks(text, span.start) + 1),
        message: format!(
            "{}; each record is a table [[partition]]",
            error.message().trim().replace('\n', ", ")
        ),
    })?;
    document
        .partition
        .into_iter()
        .map(|table| {
            let line = line_breaks(text, table.span().start) + 1;
            Ok(Row {
                place: format!("line {line}"),
                fields: object(table.into_inner(), line)?,
                untyped: false,
            })
        })
        .collect()
}

fn object(table: Table, line: usize) -> Result<Map<String, Value>, ParseError> {
    table
        .into_iter()
        .map(|(name, value)| Ok((name, json(value, line)?)))
        .collect()
}

/// Dates and times become texts, because JSON has none.
fn json(value: Toml, line: usize) -> Result<Value, ParseError> {
    Ok(match value {
        Toml::String(text) => Value::String(text),
        Toml::Integer(number) => Value::from(number),
        Toml::Float(number) => Number::from_f64(number).map(Value::Number).ok_or_else(|| {
            ParseError::at(line, format!("{number} is not a number that JSON can hold"))
        })?,
        Toml::Boolean(value) => Value::Bool(value),
        Toml::Datetime(moment) => Value::String(moment.to_string()),
        Toml::Array(items) => {
            let items: Result<Vec<Value>, ParseError> =
                items.into_iter().map(|item| json(item, line)).collect();
            Value::Array(items?)
        }
        Toml::Table(table) => Value::Object(object(table, line)?),
    })
}
