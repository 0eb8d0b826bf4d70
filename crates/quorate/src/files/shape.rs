//! From text to a [`File`]: syntax, `${ENV}`, shape; each problem with its line.
//!
//! TOML and JSON become the same tree first, so that both are checked by the same code.

use quorate_core::spec::File;
use quorate_core::spec::suggest::closest;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::text::{Spans, Text, join};
use crate::failure::{Code, Problem};

/// How a message ends that tells of a second key.
const TWICE: &str = "is there twice";
/// What stands for NaN and infinity.
const NOT_FINITE: &str = "not a finite number";
/// More unknown keys than this in one file are not worth listing.
const UNKNOWN_KEYS_MAX: usize = 20;

/// A file in the right shape, and where each of its values stands.
#[derive(Debug)]
pub(super) struct Shaped {
    pub(super) file: File,
    pub(super) spans: Spans,
}

/// Reads a file's text.
pub(super) fn read(
    text: &Text,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Shaped, Vec<Problem>> {
    let (mut tree, spans) = tree(text).map_err(|problem| vec![problem])?;
    if let Some(problem) = not_a_table(text, &tree) {
        return Err(vec![problem]);
    }
    let mut problems = Vec::new();
    substitute(&mut tree, "", &mut |path, value| {
        expand(value, env).unwrap_or_else(|undefined| {
            problems.extend(undefined.into_iter().map(|name| Problem {
                code: Code::EnvUndefined,
                sentence: undefined_sentence(&name),
                place: spans.find(path).map(|range| text.place(range)),
                next: undefined_next(&name),
            }));
            value.to_owned()
        })
    });
    problems.extend(contradictions(text, &spans, &tree));
    let file = shape(text, &spans, tree, &mut problems);
    match file {
        Some(file) if problems.is_empty() => Ok(Shaped { file, spans }),
        Some(_) | None => Err(problems),
    }
}

/// JSON is told by its name, or by its first character when the name says nothing.
fn is_json(text: &Text) -> bool {
    let extension = std::path::Path::new(&text.name).extension();
    match extension.and_then(|ext| ext.to_str()) {
        Some("json") => true,
        Some("toml") => false,
        Some(_) | None => text.content.trim_start().starts_with('{'),
    }
}

fn tree(text: &Text) -> Result<(Value, Spans), Problem> {
    if is_json(text) {
        json(text)
    } else {
        toml(text)
    }
}

fn toml(text: &Text) -> Result<(Value, Spans), Problem> {
    let document = toml_edit::Document::parse(text.content.as_str()).map_err(|error| {
        let message = error.message().trim().replace('\n', ", ");
        Problem {
            code: Code::FileSyntax,
            sentence: message,
            place: error.span().map(|range| text.place(range)),
            next: toml_next(error.message()).to_owned(),
        }
    })?;
    if let Some(problem) = not_finite(text, document.as_table()) {
        return Err(problem);
    }
    let spans = Spans::of_toml(document.as_table());
    let tree = toml_table(document.as_table());
    Ok((tree, spans))
}

/// What helps with a mistake that the TOML library finds.
fn toml_next(message: &str) -> &'static str {
    if message.starts_with("duplicate key") {
        "it is there twice: remove one of the two, or give it another name"
    } else if message.contains("overflow") {
        "write a smaller number"
    } else {
        "write NAME = VALUE, with text in quotes and tables as [service.NAME]"
    }
}

/// The first NaN or infinity: TOML has them, and no key takes them, not even as text.
fn not_finite(text: &Text, table: &dyn toml_edit::TableLike) -> Option<Problem> {
    fn of_value(text: &Text, value: &toml_edit::Value) -> Option<Problem> {
        match value {
            toml_edit::Value::Float(number) if !number.value().is_finite() => Some(Problem {
                code: Code::FileValue,
                sentence: format!("{} is no finite number", number.value()),
                place: value.span().map(|range| text.place(range)),
                next: "write a number".to_owned(),
            }),
            toml_edit::Value::Array(items) => items.iter().find_map(|item| of_value(text, item)),
            toml_edit::Value::InlineTable(table) => not_finite(text, table),
            toml_edit::Value::Float(_)
            | toml_edit::Value::String(_)
            | toml_edit::Value::Integer(_)
            | toml_edit::Value::Boolean(_)
            | toml_edit::Value::Datetime(_) => None,
        }
    }
    table.iter().find_map(|(_, item)| match item {
        toml_edit::Item::None => None,
        toml_edit::Item::Value(value) => of_value(text, value),
        toml_edit::Item::Table(table) => not_finite(text, table),
        toml_edit::Item::ArrayOfTables(tables) => {
            tables.iter().find_map(|table| not_finite(text, table))
        }
    })
}

fn toml_table(table: &dyn toml_edit::TableLike) -> Value {
    let entries = table.iter().map(|(key, item)| {
        let value = match item {
            toml_edit::Item::None => Value::Null,
            toml_edit::Item::Value(value) => toml_value(value),
            toml_edit::Item::Table(table) => toml_table(table),
            toml_edit::Item::ArrayOfTables(tables) => {
                Value::Array(tables.iter().map(|table| toml_table(table)).collect())
            }
        };
        (key.to_owned(), value)
    });
    Value::Object(entries.collect())
}

fn toml_value(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::String(text.value().clone()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        // NaN and infinity have no place in any key, and were refused before.
        toml_edit::Value::Float(number) => {
            Number::from_f64(*number.value()).map_or_else(|| Value::from(NOT_FINITE), Value::Number)
        }
        toml_edit::Value::Boolean(flag) => Value::Bool(*flag.value()),
        toml_edit::Value::Datetime(time) => Value::String(time.value().to_string()),
        toml_edit::Value::Array(items) => Value::Array(items.iter().map(toml_value).collect()),
        toml_edit::Value::InlineTable(table) => toml_table(table),
    }
}

fn json(text: &Text) -> Result<(Value, Spans), Problem> {
    let mut reader = serde_json::Deserializer::from_str(&text.content);
    let tree = NoDuplicates
        .deserialize(&mut reader)
        .and_then(|tree| reader.end().map(|()| tree))
        .map_err(|error| {
            // serde_json ends its text with the place, which is shown with the line instead.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            let next = if message.ends_with(TWICE) {
                "remove one of the two, or give it another name"
            } else if message.contains("out of range") {
                "write a smaller number"
            } else {
                "write {\"service\": {\"NAME\": {\"command\": [\"PROGRAM\"]}}}"
            };
            Problem {
                code: Code::FileSyntax,
                sentence: message.to_owned(),
                place: Some(text.place_at(error.line(), error.column())),
                next: next.to_owned(),
            }
        })?;
    Ok((tree, Spans::of_json(&text.content)))
}

/// Takes any JSON value, and refuses an object that has a key twice instead of keeping the last one.
struct NoDuplicates;

impl<'de> DeserializeSeed<'de> for NoDuplicates {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("the key {key:?} {TWICE}")));
            }
            let value = entries.next_value_seed(Self)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

fn not_a_table(text: &Text, tree: &Value) -> Option<Problem> {
    let Value::Object(_) = tree else {
        return Some(Problem {
            code: Code::FileValue,
            sentence: format!("the file holds {}, not an object", kind(tree)),
            place: Some(text.place(0..1)),
            next: "write {\"service\": {\"NAME\": {\"command\": [\"PROGRAM\"]}}}".to_owned(),
        });
    };
    None
}

/// What a value is, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Replaces every text in the tree.
fn substitute(tree: &mut Value, path: &str, replace: &mut impl FnMut(&str, &str) -> String) {
    match tree {
        Value::String(text) => *text = replace(path, text),
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                substitute(item, &format!("{path}[{at}]"), replace);
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                substitute(value, &join(path, key), replace);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces `${NAME}`; `$${` stands for `${` itself. Gives the undefined names otherwise.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<String>> {
    let mut result = String::with_capacity(text.len());
    let mut undefined = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = after.get(2..).unwrap_or_default();
            continue;
        }
        result.push_str(before);
        let Some(end) = after.find('}') else {
            rest = after;
            break;
        };
        let name = after.get(2..end).unwrap_or_default();
        match env(name) {
            Some(value) => result.push_str(&value),
            None => undefined.push(name.to_owned()),
        }
        rest = after.get(end + 1..).unwrap_or_default();
    }
    result.push_str(rest);
    if undefined.is_empty() {
        Ok(result)
    } else {
        Err(undefined)
    }
}

/// Whether this can be the name of a variable; shells write more into the braces, such as `${#NAME}`.
fn is_variable(name: &str) -> bool {
    let word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    !name.is_empty() && name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn undefined_sentence(name: &str) -> String {
    if is_variable(name) {
        format!("the environment variable {name} is not defined")
    } else {
        format!("${{{name}}} is no environment variable")
    }
}

/// What a run is told is meant for its shell most often, and never known where the command runs.
fn undefined_next(name: &str) -> String {
    let escaped = format!("write $${{{name}}} to leave it to the shell of the run");
    if is_variable(name) && !name.starts_with("QUORATE_") {
        format!("define it: {name}=… quorate …; or {escaped}")
    } else {
        escaped
    }
}

/// What is written and means nothing beside something else, also where it is the default: that it was
/// written is known here only.
fn contradictions(text: &Text, spans: &Spans, tree: &Value) -> Vec<Problem> {
    let services = tree.get("service").and_then(Value::as_object);
    let both = services.into_iter().flatten().filter(|(_, spec)| {
        let ready = spec.get("ready");
        let notifies = ready.and_then(|ready| ready.get("notify")) == Some(&Value::Bool(true));
        notifies && ready.is_some_and(|ready| ready.get("after").is_some())
    });
    both.map(|(name, _)| {
        let path = format!("service.{name}.ready.after");
        Problem {
            code: Code::FileInvalid,
            place: spans.find(&path).map(|range| text.place(range)),
            sentence: format!(
                "{path}: with notify = true a run is ready when it says so, and not after a time"
            ),
            next: "leave one of them out; timeout limits how long a start may take".to_owned(),
        }
    })
    .collect()
}

/// Makes the file of a tree. Unknown keys are taken out one after the other, so that all are told.
fn shape(text: &Text, spans: &Spans, mut tree: Value, problems: &mut Vec<Problem>) -> Option<File> {
    for _ in 0..UNKNOWN_KEYS_MAX {
        let error = match serde_path_to_error::deserialize(&tree) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let path = plain(error.path());
        let message = error.inner().to_string();
        if let Some((key, known)) = unknown_field(&message) {
            problems.push(unknown_key(text, spans, &path, &key, &known));
            if !remove(&mut tree, &path) {
                return None;
            }
            continue;
        }
        // A key that is missing was most likely the misspelt one.
        if problems.is_empty() || !message.starts_with("missing field") {
            problems.push(wrong_value(text, spans, &tree, &path, &message));
        }
        return None;
    }
    None
}

/// The path in the words of [`Spans`].
fn plain(path: &serde_path_to_error::Path) -> String {
    let mut plain = String::new();
    for segment in path {
        match segment {
            serde_path_to_error::Segment::Seq { index } => {
                plain.push_str(&format!("[{index}]"));
            }
            serde_path_to_error::Segment::Map { key } => plain = join(&plain, key),
            serde_path_to_error::Segment::Enum { variant } => plain = join(&plain, variant),
            serde_path_to_error::Segment::Unknown => {}
        }
    }
    plain
}

/// Takes a value out of the tree by the path that [`plain`] wrote. Names may hold dots themselves,
/// so each level takes the longest name that fits.
fn remove(tree: &mut Value, path: &str) -> bool {
    match tree {
        Value::Object(entries) => {
            if entries.remove(path).is_some() {
                return true;
            }
            entries.iter_mut().any(|(key, value)| {
                path.strip_prefix(key.as_str())
                    .is_some_and(|rest| remove(value, rest.strip_prefix('.').unwrap_or(rest)))
            })
        }
        Value::Array(items) => items.iter_mut().enumerate().any(|(at, item)| {
            path.strip_prefix(&format!("[{at}]"))
                .is_some_and(|rest| remove(item, rest.strip_prefix('.').unwrap_or(rest)))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Reads serde's ``unknown field `x`, expected one of `a`, `b` ``.
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field ")?;
    let mut names = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((names.next()?, names.collect()))
}

/// Keys that the documents name and this version cannot carry out yet.
const LATER: &[&str] = &[
    "secrets",
    "max_active",
    "hooks",
    "artifacts",
    "after",
    "check",
    "notify",
    "notifier",
    "task",
    "pool",
    "prefer",
    "active",
    "dir",
    "http",
    "postgres",
    "mongodb",
    "memory",
    "cpu",
];

fn unknown_key(text: &Text, spans: &Spans, path: &str, key: &str, known: &[String]) -> Problem {
    let next = match closest(key, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if LATER.contains(&key) => {
            format!("`{key}` is not in this version yet; take it out")
        }
        None => format!("known here: {}", known.join(", ")),
    };
    Problem {
        code: Code::FileKey,
        sentence: format!("unknown key `{key}`"),
        place: spans.find_key(path).map(|range| text.place(range)),
        next,
    }
}

fn wrong_value(text: &Text, spans: &Spans, tree: &Value, path: &str, message: &str) -> Problem {
    let place = spans.find(path).map(|range| text.place(range));
    let at = if path.is_empty() {
        String::new()
    } else {
        format!("{path}: ")
    };
    let (sentence, next) = explain(message, lookup(tree, path));
    Problem {
        code: Code::FileValue,
        sentence: format!("{at}{sentence}"),
        place,
        next,
    }
}

fn lookup<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    match tree {
        _ if path.is_empty() => Some(tree),
        Value::Object(entries) => entries.iter().find_map(|(key, value)| {
            let rest = path.strip_prefix(key.as_str())?;
            let deeper = rest.is_empty() || rest.starts_with(['.', '[']);
            deeper.then(|| lookup(value, rest.strip_prefix('.').unwrap_or(rest)))?
        }),
        Value::Array(items) => items.iter().enumerate().find_map(|(at, item)| {
            let rest = path.strip_prefix(&format!("[{at}]"))?;
            lookup(item, rest.strip_prefix('.').unwrap_or(rest))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// What is wrong with a value of another kind of file, and what to do: `found` is its text in that file.
pub(crate) fn explain_in(message: &str, found: &str) -> (String, String) {
    if let Some((key, known)) = unknown_field(message) {
        let near = closest(&key, known.iter().map(String::as_str));
        let next = near.map_or_else(
            || format!("known here: {}", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        return (format!("unknown key `{key}`"), next);
    }
    let value = format!("value = {found}").parse::<toml_edit::DocumentMut>();
    let value = value.ok().map(|document| toml_table(document.as_table()));
    explain(message, value.as_ref().and_then(|tree| tree.get("value")))
}

/// Turns serde's words into a person's: what is there, what is wanted, what to write.
fn explain(message: &str, found: Option<&Value>) -> (String, String) {
    if let Some(field) = message.strip_prefix("missing field ") {
        let field = field.trim_matches('`');
        return (
            format!("the key `{field}` is missing"),
            format!("add `{field}`"),
        );
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut names = rest.split('`').skip(1).step_by(2);
        let given = names.next().unwrap_or_default();
        let known: Vec<&str> = names.collect();
        let next = closest(given, known.iter().copied()).map_or_else(
            || format!("write one of: {}", known.join(", ")),
            |near| format!("did you mean {near:?}?"),
        );
        return (format!("{given:?} is not known here"), next);
    }
    let expected = message
        .split_once(", expected ")
        .map(|(_, expected)| wanted(expected));
    match (found, expected) {
        (Some(Value::String(text)), Some(expected)) if text == NOT_FINITE => (
            format!("expected {expected}, found {NOT_FINITE}"),
            format!("write {expected}"),
        ),
        (Some(Value::String(text)), Some(expected))
            if expected.contains("number") && text.parse::<f64>().is_ok() =>
        {
            (
                format!("expected {expected}, found the text {text:?}"),
                format!("write {text} without quotes"),
            )
        }
        (Some(Value::Number(number)), Some(expected)) if expected == "text" => (
            format!("expected text, found the number {number}"),
            format!(
                "write \"{number}\" with quotes, and a unit where one belongs, such as \"10s\""
            ),
        ),
        (Some(Value::Number(number)), Some(expected)) => (
            format!("{number} is not {expected}"),
            format!("write {expected}"),
        ),
        (Some(value), Some(expected)) => (
            format!("expected {expected}, found {}", kind(value)),
            format!("write {expected}"),
        ),
        (_, None | Some(_)) => (message.to_owned(), String::from("correct the value")),
    }
}

/// What serde expects, in a person's words.
fn wanted(expected: &str) -> String {
    let text = match expected.trim() {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "i8" | "i16" | "i64" => "a whole number",
        "socket address" => "an address and a port, such as \"127.0.0.1:7400\"",
        "path string" => "text",
        "f32" | "f64" => "a number",
        "a string" | "string" | "str" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list, such as [\"a\", \"b\"]",
        "a map" => "a table, such as { name = \"value\" }",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "A").then(|| "1".to_owned())
    }

    #[test]
    fn variables_are_replaced_once_and_a_doubled_dollar_is_kept() {
        assert_eq!(expand("0..${A}${A}", &env).unwrap(), "0..11");
        assert_eq!(expand("$${A} $A ${", &env).unwrap(), "${A} $A ${");
        assert_eq!(expand("${B} ${A} ${C}", &env).unwrap_err(), ["B", "C"]);
    }

    #[test]
    fn values_under_names_with_dots_are_taken_out_by_their_path() {
        let mut tree = serde_json::json!({"service": {"a.b": {"x": 1, "c": [{"y": 2}]}}});
        assert!(remove(&mut tree, "service.a.b.x"));
        assert!(remove(&mut tree, "service.a.b.c[0].y"));
        assert!(!remove(&mut tree, "service.a.b.z"));
        assert_eq!(tree, serde_json::json!({"service": {"a.b": {"c": [{}]}}}));
    }
}
