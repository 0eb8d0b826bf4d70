//! Comma-separated values (RFC 4180): the first line names the fields, every value is text.

use ::csv::{ErrorKind, Position, ReaderBuilder, StringRecord};
use quorate_core::spec::records::Row;
use serde_json::{Map, Value};

use super::text::ParseError;

pub(super) fn rows(text: &str) -> Result<Vec<Row>, ParseError> {
    if text.trim().is_empty() {
        return Err(ParseError::at(
            1,
            "the file is empty; its first line names the fields",
        ));
    }
    // The reader would take everything after it as one long field.
    if text.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        return Err(ParseError {
            line: None,
            message: "a quote is opened and never closed; inside a field write it twice".to_owned(),
        });
    }
    let mut reader = ReaderBuilder::new().from_reader(text.as_bytes());
    let names = reader.headers().map_err(located)?.clone();
    check_names(&names)?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(located)?;
        let line = record.position().map_or(1, Position::line);
        let fields: Map<String, Value> = names
            .iter()
            .zip(record.iter())
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect();
        rows.push(Row {
            place: format!("line {line}"),
            fields,
            untyped: true,
        });
    }
    Ok(rows)
}

fn check_names(names: &StringRecord) -> Result<(), ParseError> {
    for (at, name) in names.iter().enumerate() {
        if name.trim().is_empty() {
            return Err(ParseError::at(1, format!("column {} has no name", at + 1)));
        }
        if names.iter().take(at).any(|earlier| earlier == name) {
            return Err(ParseError::at(
                1,
                format!("the column {name:?} comes twice"),
            ));
        }
    }
    Ok(())
}

fn located(error: ::csv::Error) -> ParseError {
    let line = error
        .position()
        .and_then(|position| usize::try_from(position.line()).ok());
    let message = if let ErrorKind::UnequalLengths {
        expected_len, len, ..
    } = error.kind()
    {
        format!("it has {len} values, and the first line names {expected_len} fields")
    } else {
        error.to_string()
    };
    ParseError { line, message }
}
