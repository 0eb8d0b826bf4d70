//! From the bytes of a file to its rows, whatever its format.

use std::fmt;

use quorate_core::spec::records::Row;
use quorate_core::spec::validate::extension;

use super::{csv, json, jsonl, toml};

/// Why a text is not a list of records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// The line where it was noticed, from 1, where that is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl ParseError {
    pub(super) fn at(line: usize, message: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            message: message.into(),
        }
    }
}

/// The rows of a file whose name tells its format.
///
/// # Errors
/// When the bytes are not text, or the text is not a whole list of records.
pub fn rows(name: &str, bytes: &[u8]) -> Result<Vec<Row>, ParseError> {
    let text = decode(bytes)?;
    match extension(name) {
        Some("jsonl") => jsonl::rows(text),
        Some("json") => json::rows(text),
        Some("csv") => csv::rows(text),
        Some("toml") => toml::rows(text),
        Some(_) | None => Err(ParseError {
            line: None,
            message:
                "its name does not tell its format; let it end in .jsonl, .json, .csv or .toml"
                    .to_owned(),
        }),
    }
}

fn decode(bytes: &[u8]) -> Result<&str, ParseError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(ParseError::at(1, "the file is UTF-16; save it as UTF-8"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let breaks = bytes
            .iter()
            .take(error.valid_up_to())
            .filter(|byte| **byte == b'\n');
        ParseError::at(breaks.count() + 1, "it is not UTF-8 text")
    })?;
    // Some editors mark the beginning of a text.
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
