//! One JSON list of objects.

use quorate_core::spec::records::Row;
use serde_json::value::RawValue;

use super::strict;
use super::text::ParseError;

pub(super) fn rows(text: &str) -> Result<Vec<Row>, ParseError> {
    match text.trim_start().bytes().next() {
        Some(b'[') => {}
        None => {
            return Err(ParseError::at(
                1,
                "the file is empty; write [] for no partitions",
            ));
        }
        Some(_) => {
            return Err(ParseError::at(
                1,
                "the file is one list of objects, such as [{\"key\": \"a\"}]",
            ));
        }
    }
    // The pieces are borrowed from the text, which gives each record its line.
    let pieces: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|error| strict::located(&error, 1))?;
    let mut rows = Vec::with_capacity(pieces.len());
    let mut line = 1;
    let mut seen = 0;
    for piece in pieces {
        let piece = piece.get();
        let offset = piece.as_ptr().addr() - text.as_ptr().addr();
        line += text
            .as_bytes()
            .get(seen..offset)
            .unwrap_or_default()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        seen = offset;
        rows.push(Row {
            place: format!("line {line}"),
            fields: strict::object(piece, line)?,
            untyped: false,
        });
    }
    Ok(rows)
}
