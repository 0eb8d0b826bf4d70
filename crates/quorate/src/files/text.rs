//! A file's text and where in it each value stands, for messages that show the line.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Item, TableLike, Value};

use crate::failure::Place;

/// Text of one file.
#[derive(Debug)]
pub(crate) struct Text {
    /// As the person named it.
    pub(crate) name: String,
    /// What it holds.
    pub(crate) content: String,
}

/// Where keys and values stand, by path: `service.feeds.command`, `service.feeds.command[0]`.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeMap<String, Range<usize>>);

impl Text {
    /// The place that a range of bytes names.
    pub(crate) fn place(&self, range: Range<usize>) -> Box<Place> {
        let start = floor(&self.content, range.start.min(self.content.len()));
        let end = floor(&self.content, range.end.clamp(start, self.content.len()));
        let before = self.content.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.content.get(line_start..).unwrap_or_default();
        let text = rest.lines().next().unwrap_or_default();
        let column = before.get(line_start..).unwrap_or_default().chars().count();
        let marked = self.content.get(start..end).unwrap_or_default();
        let width = marked.lines().next().unwrap_or_default().chars().count();
        Box::new(Place {
            file: self.name.clone(),
            line: before.matches('\n').count() + 1,
            column: column + 1,
            text: text.to_owned(),
            width: width.max(1),
        })
    }

    /// The place of a line and column, both from 1, as JSON errors name it.
    pub(super) fn place_at(&self, line: usize, column: usize) -> Box<Place> {
        let start: usize = self
            .content
            .split_inclusive('\n')
            .take(line.saturating_sub(1))
            .map(str::len)
            .sum();
        let at = start + column.saturating_sub(1);
        self.place(at..at + 1)
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl Spans {
    /// The range of this path, or of the nearest thing that holds it.
    pub(super) fn find(&self, path: &str) -> Option<Range<usize>> {
        let mut path = path;
        loop {
            if let Some(range) = self.0.get(path) {
                return Some(range.clone());
            }
            let cut = path.rfind(['.', '['])?;
            path = path.get(..cut)?;
        }
    }

    /// Spans of a TOML document: the key of a table, the value of everything else.
    pub(super) fn of_toml(root: &dyn TableLike) -> Self {
        let mut spans = Self::default();
        spans.table(root, "");
        spans
    }

    fn table(&mut self, table: &dyn TableLike, path: &str) {
        for (name, item) in table.iter() {
            let path = join(path, name);
            let key = table.key(name).and_then(toml_edit::Key::span);
            self.item(item, &path, key);
        }
    }

    fn item(&mut self, item: &Item, path: &str, key: Option<Range<usize>>) {
        match item {
            Item::None => {}
            Item::Value(value) => self.value(value, path, key),
            Item::Table(table) => {
                self.note(path, key.or_else(|| table.span()));
                self.table(table, path);
            }
            Item::ArrayOfTables(tables) => {
                self.note(path, key.or_else(|| tables.span()));
                for (at, table) in tables.iter().enumerate() {
                    self.note(&format!("{path}[{at}]"), table.span());
                    self.table(table, &format!("{path}[{at}]"));
                }
            }
        }
    }

    fn value(&mut self, value: &Value, path: &str, key: Option<Range<usize>>) {
        match value {
            Value::InlineTable(table) => {
                self.note(path, key.clone().or_else(|| table.span()));
                self.table(table, path);
            }
            Value::Array(array) => {
                self.note(path, array.span());
                for (at, value) in array.iter().enumerate() {
                    self.value(value, &format!("{path}[{at}]"), None);
                }
            }
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => self.note(path, value.span()),
        }
        self.note(&key_path(path), key);
    }

    fn note(&mut self, path: &str, range: Option<Range<usize>>) {
        if let Some(range) = range {
            self.0.entry(path.to_owned()).or_insert(range);
        }
    }

    /// The range of the key itself, where it is known apart from its value.
    pub(super) fn find_key(&self, path: &str) -> Option<Range<usize>> {
        self.0
            .get(&key_path(path))
            .cloned()
            .or_else(|| self.find(path))
    }

    /// Spans of JSON text that is known to be well formed.
    pub(super) fn of_json(text: &str) -> Self {
        let mut scanner = Scanner {
            text,
            at: 0,
            spans: Self::default(),
        };
        scanner.value("");
        scanner.spans
    }
}

/// A path that no value can have, for the key of a value.
fn key_path(path: &str) -> String {
    format!("{path}\0")
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Walks over JSON that serde has accepted, so nothing is checked a second time.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    spans: Spans,
}

impl Scanner<'_> {
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let blank = rest.iter().take_while(|c| c.is_ascii_whitespace()).count();
        self.at += blank;
        rest.get(blank).copied()
    }

    fn value(&mut self, path: &str) {
        let Some(first) = self.peek() else { return };
        let start = self.at;
        match first {
            b'{' => self.items(b'}', |scanner, _| {
                let key_start = scanner.at;
                let raw = scanner.string();
                let key: String = serde_json::from_str(raw).unwrap_or_default();
                let path = join(path, &key);
                let range = key_start..scanner.at;
                scanner.spans.note(&key_path(&path), Some(range));
                scanner.peek();
                scanner.at += 1; // The colon.
                scanner.value(&path);
            }),
            b'[' => self.items(b']', |scanner, at| {
                scanner.value(&format!("{path}[{at}]"));
            }),
            b'"' => {
                self.string();
            }
            _ => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let end = rest.find(|c: char| c.is_whitespace() || ",]}".contains(c));
                self.at += end.unwrap_or(rest.len());
            }
        }
        self.spans.note(path, Some(start..self.at));
    }

    fn items(&mut self, close: u8, mut item: impl FnMut(&mut Self, usize)) {
        self.at += 1;
        let mut count = 0;
        while let Some(next) = self.peek() {
            if next == close {
                self.at += 1;
                return;
            }
            if next == b',' {
                self.at += 1;
                continue;
            }
            item(self, count);
            count += 1;
        }
    }

    fn string(&mut self) -> &str {
        let start = self.at;
        let mut escaped = false;
        let rest = self.text.as_bytes().get(start + 1..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|&c| {
                let end = c == b'"' && !escaped;
                escaped = c == b'\\' && !escaped;
                end
            })
            .unwrap_or(rest.len());
        self.at = (start + length + 2).min(self.text.len());
        self.text.get(start..self.at).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_toml_values_are_found_by_the_same_paths() {
        let json = r#"{"service": {"a\"b": {"command": ["x", "y, }"], "lease": 5}}}"#;
        let spans = Spans::of_json(json);
        let text = |path: &str| &json[spans.find(path).unwrap()];
        assert_eq!(text("service.a\"b.command[1]"), "\"y, }\"");
        assert_eq!(text("service.a\"b.lease"), "5");
        assert_eq!(
            &json[spans.find_key("service.a\"b.lease").unwrap()],
            "\"lease\""
        );

        let toml = "[service.a]\ncommand = ['x', 'y']\nstop = { signal = 'INT' }\n";
        let document = toml_edit::Document::parse(toml).unwrap();
        let spans = Spans::of_toml(document.as_table());
        let text = |path: &str| &toml[spans.find(path).unwrap()];
        assert_eq!(text("service.a.command[1]"), "'y'");
        assert_eq!(text("service.a.stop.signal"), "'INT'");
        assert_eq!(text("service.a.absent.deeper"), "a");
    }

    #[test]
    fn a_place_counts_characters_and_survives_the_end_of_the_text() {
        let text = Text {
            name: "f".into(),
            content: "a = 1\nä = 'größe'\n".into(),
        };
        let place = text.place(11..20);
        assert_eq!((place.line, place.column), (2, 5));
        assert_eq!(place.text, "ä = 'größe'");
        assert_eq!(text.place(500..501).line, 3);
    }
}
