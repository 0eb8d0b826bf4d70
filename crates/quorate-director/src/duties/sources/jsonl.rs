//! One JSON object on each line; empty lines are skipped.

use quorate_core::spec::records::Row;

use super::strict;
use super::text::ParseError;

pub(super) fn rows(text: &str) -> Result<Vec<Row>, ParseError> {
    text.split('\n')
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            let number = at + 1;
            Ok(Row {
                place: format!("line {number}"),
                fields: strict::object(line, number)?,
                untyped: false,
            })
        })
        .collect()
}
