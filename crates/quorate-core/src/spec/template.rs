//! The placeholders of a command: `{{key}}`, `{{data}}`, `{{data.a.b}}`, `{{token}}`, `{{agent}}`.
//!
//! A value is put in as it is, as one piece of one argument: nothing is split, quoted or given to a
//! shell. `{{{{` stands for two braces. A name that does not exist is an error, never an empty text.

use serde_json::Value;

use super::ServiceSpec;
use super::suggest::closest;
use crate::ids::{AgentName, PartitionKey, Token};

/// Names that a placeholder may start with.
pub const NAMES: [&str; 4] = ["key", "data", "token", "agent"];

/// Most bytes of one argument or environment string that Linux starts a program with.
pub const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Stays as it is.
    Text(String),
    /// `{{key}}`.
    Key,
    /// `{{data}}`, and with a path a field of it.
    Data(Vec<String>),
    /// `{{token}}`.
    Token,
    /// `{{agent}}`.
    Agent,
}

/// Why a template cannot be read or filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without its `}}`.
    #[error(
        "\"{{{{\" at byte {at} is never closed; write \"}}}}\" after the name, or \"{{{{{{{{\" for two braces"
    )]
    Unclosed {
        /// Byte of the opening braces.
        at: usize,
    },
    /// Not one of the names.
    #[error("{{{{{name}}}}} is not known; there are key, data, data.FIELD, token and agent{}", meant(.suggestion))]
    UnknownName {
        /// As written.
        name: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// The partition's data has no such field.
    #[error("{{{{{name}}}}} is not in the partition's data{}{}", there_are(.present), meant(.suggestion))]
    UnknownField {
        /// As written.
        name: String,
        /// Fields that are there instead.
        present: Vec<String>,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// The field is there and has no value.
    #[error("{{{{{name}}}}} is null in the partition's data")]
    Null {
        /// As written.
        name: String,
    },
    /// A list, a range, or a service without partitions has no data.
    #[error(
        "{{{{{name}}}}} is used and this partition has no data; only partitions from a file have"
    )]
    NoData {
        /// As written.
        name: String,
    },
    /// The data of the partition is not JSON.
    #[error("the partition's data is not JSON: {reason}")]
    BadData {
        /// What the reader says.
        reason: String,
    },
    /// The value holds a NUL character, which ends an argument.
    #[error("{{{{{name}}}}} holds a NUL character, which no argument or variable can have")]
    Nul {
        /// As written.
        name: String,
    },
    /// The result is longer than Linux takes.
    #[error(
        "the text has {length} bytes when filled in, and Linux takes at most {ARGUMENT_BYTES_MAX} in one argument"
    )]
    TooLong {
        /// Bytes of the result.
        length: usize,
    },
}

fn meant(suggestion: &Option<String>) -> String {
    suggestion
        .as_ref()
        .map(|name| format!("; did you mean {{{{{name}}}}}?"))
        .unwrap_or_default()
}

fn there_are(present: &[String]) -> String {
    match present {
        [] => String::new(),
        names => format!("; there are {}", names.join(", ")),
    }
}

/// What the placeholders stand for in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    key: String,
    /// The text as the source gave it, and what it says.
    data: Option<(String, Value)>,
    token: String,
    agent: String,
}

impl Context {
    /// The values for one run. `data` is JSON text.
    ///
    /// # Errors
    /// When `data` is not JSON.
    pub fn new(
        key: &PartitionKey,
        data: Option<&str>,
        token: Token,
        agent: &AgentName,
    ) -> Result<Self, TemplateError> {
        let data = data
            .map(|text| {
                serde_json::from_str(text)
                    .map(|value| (text.to_owned(), value))
                    .map_err(|error| TemplateError::BadData {
                        reason: error.to_string(),
                    })
            })
            .transpose()?;
        Ok(Self {
            key: key.to_string(),
            data,
            token: token.to_string(),
            agent: agent.to_string(),
        })
    }
}

impl Template {
    /// Reads a text with placeholders.
    ///
    /// # Errors
    /// When braces are not closed or a name is not known.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(found) = rest.find("{{") {
            let (before, from_braces) = rest.split_at(found);
            literal.push_str(before);
            if let Some(tail) = from_braces.strip_prefix("{{{{") {
                literal.push_str("{{");
                rest = tail;
                continue;
            }
            let inner = from_braces.get(2..).unwrap_or_default();
            let (name, tail) = inner.split_once("}}").ok_or(TemplateError::Unclosed {
                at: text.len() - from_braces.len(),
            })?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(placeholder(name.trim())?);
            rest = tail;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// Fills it in.
    ///
    /// # Errors
    /// When the data lacks a field, or a value cannot stand in an argument.
    pub fn expand(&self, context: &Context) -> Result<String, TemplateError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Key => text.push_str(&context.key),
                Part::Token => text.push_str(&context.token),
                Part::Agent => text.push_str(&context.agent),
                Part::Data(path) => text.push_str(&field(context, path)?),
            }
        }
        if text.len() > ARGUMENT_BYTES_MAX {
            return Err(TemplateError::TooLong { length: text.len() });
        }
        Ok(text)
    }

    /// The first placeholder that needs the partition's data, as written.
    #[must_use]
    pub fn data_name(&self) -> Option<String> {
        self.parts.iter().find_map(|part| match part {
            Part::Data(path) => Some(shown(path)),
            Part::Text(_) | Part::Key | Part::Token | Part::Agent => None,
        })
    }
}

fn placeholder(name: &str) -> Result<Part, TemplateError> {
    let unknown = || TemplateError::UnknownName {
        name: name.to_owned(),
        suggestion: suggest_name(name),
    };
    match name {
        "key" => Ok(Part::Key),
        "token" => Ok(Part::Token),
        "agent" => Ok(Part::Agent),
        "data" => Ok(Part::Data(Vec::new())),
        other => {
            let path = other.strip_prefix("data.").ok_or_else(unknown)?;
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            if path.iter().any(String::is_empty) {
                return Err(unknown());
            }
            Ok(Part::Data(path))
        }
    }
}

fn suggest_name(name: &str) -> Option<String> {
    if let Some((head, field)) = name.split_once('.') {
        let near = closest(head, ["data"])?;
        return (!field.is_empty() && head != near).then(|| format!("{near}.{field}"));
    }
    closest(name, NAMES)
        .map(str::to_owned)
        // A bare field name is the likeliest slip of all.
        .or_else(|| (!name.is_empty()).then(|| format!("data.{name}")))
}

fn shown(path: &[String]) -> String {
    let mut name = "data".to_owned();
    for step in path {
        name.push('.');
        name.push_str(step);
    }
    name
}

fn field(context: &Context, path: &[String]) -> Result<String, TemplateError> {
    let name = || shown(path);
    let (text, whole) = context
        .data
        .as_ref()
        .ok_or_else(|| TemplateError::NoData { name: name() })?;
    if path.is_empty() {
        return Ok(text.clone());
    }
    let mut value = whole;
    for (depth, step) in path.iter().enumerate() {
        value = child(value, step).ok_or_else(|| unknown_field(value, path, depth))?;
    }
    let text = match value {
        Value::Null => return Err(TemplateError::Null { name: name() }),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    if text.contains('\0') {
        return Err(TemplateError::Nul { name: name() });
    }
    Ok(text)
}

/// A field of an object, or an element of a list by its index.
fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn unknown_field(parent: &Value, path: &[String], depth: usize) -> TemplateError {
    const SHOWN_MAX: usize = 20;
    let above = path.get(..depth).unwrap_or_default();
    let under = |field: &str| {
        let mut path = above.to_vec();
        path.push(field.to_owned());
        shown(&path)
    };
    let fields: Vec<&str> = match parent {
        Value::Object(fields) => fields.keys().map(String::as_str).collect(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Vec::new()
        }
    };
    let step = path.get(depth).map_or("", String::as_str);
    TemplateError::UnknownField {
        name: shown(path),
        suggestion: closest(step, fields.iter().copied()).map(under),
        present: fields
            .iter()
            .take(SHOWN_MAX)
            .map(|name| under(name))
            .collect(),
    }
}

/// A service's command with everything filled in for one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The environment that the service asks for.
    pub env: Vec<(String, String)>,
    /// Folder to run in.
    pub working_dir: Option<String>,
}

/// Fills in everything of a service that may hold placeholders: `command`, the values of `env`, and
/// `working_dir`.
///
/// # Errors
/// When a placeholder cannot be filled in; the path says where it stands.
pub fn expand(spec: &ServiceSpec, context: &Context) -> Result<Expanded, ExpandError> {
    let fill = |place: &dyn Fn() -> String, text: &str| {
        Template::parse(text)
            .and_then(|template| template.expand(context))
            .map_err(|cause| ExpandError {
                place: place(),
                cause,
            })
    };
    let command = spec
        .command
        .iter()
        .enumerate()
        .map(|(at, text)| fill(&|| format!("command[{at}]"), text))
        .collect::<Result<_, _>>()?;
    let env = spec
        .env
        .iter()
        .map(|(name, text)| Ok((name.clone(), fill(&|| format!("env.{name}"), text)?)))
        .collect::<Result<_, _>>()?;
    let working_dir = spec
        .working_dir
        .as_deref()
        .map(|text| fill(&|| "working_dir".to_owned(), text))
        .transpose()?;
    Ok(Expanded {
        command,
        env,
        working_dir,
    })
}

/// A placeholder that cannot be filled in, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {cause}")]
pub struct ExpandError {
    /// Field of the service.
    pub place: String,
    /// Why. Part of the message, because a person reads it as one sentence.
    pub cause: TemplateError,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Era;

    fn context(data: Option<&str>) -> Context {
        Context::new(
            &PartitionKey::new("eu-1").unwrap(),
            data,
            Token::new(Era(0), 42),
            &AgentName::new("a1").unwrap(),
        )
        .unwrap()
    }

    fn fill(text: &str, data: Option<&str>) -> Result<String, TemplateError> {
        Template::parse(text)?.expand(&context(data))
    }

    #[test]
    fn placeholders_become_their_values_and_everything_else_stays() {
        let data = r#"{"big":9007199254740993,"f":1.5,"no":false,"o":{"b":[1,{"c":"x y"}],"a":null},"s":"$(rm); 'q'"}"#;
        for (text, expected) in [
            ("--feed={{key}}", "--feed=eu-1"),
            ("{{ key }}@{{agent}}#{{token}}", "eu-1@a1#42"),
            ("{{data}}", data),
            ("{{data.s}}", "$(rm); 'q'"),
            ("{{data.big}}", "9007199254740993"),
            ("{{data.f}}/{{data.no}}", "1.5/false"),
            ("{{data.o.b}}", r#"[1,{"c":"x y"}]"#),
            ("{{data.o.b.1.c}}", "x y"),
            ("{{{{key}}", "{{key}}"),
            ("{{{{{{key}}}}", "{{eu-1}}"),
            ("${HOME} {x} }}", "${HOME} {x} }}"),
            ("", ""),
        ] {
            assert_eq!(fill(text, Some(data)).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_an_error_that_lists_what_does() {
        let data = Some(r#"{"host":"h","port":1,"o":{"url":"u"},"n":null}"#);
        for (text, expected) in [
            (
                "{{kye}}",
                "{{kye}} is not known; there are key, data, data.FIELD, token and agent; did you mean {{key}}?",
            ),
            (
                "{{host}}",
                "{{host}} is not known; there are key, data, data.FIELD, token and agent; did you mean {{data.host}}?",
            ),
            (
                "{{dat.host}}",
                "{{dat.host}} is not known; there are key, data, data.FIELD, token and agent; did you mean {{data.host}}?",
            ),
            (
                "{{data.hots}}",
                "{{data.hots}} is not in the partition's data; there are data.host, data.n, data.o, data.port; did you mean {{data.host}}?",
            ),
            (
                "{{data.o.ulr}}",
                "{{data.o.ulr}} is not in the partition's data; there are data.o.url; did you mean {{data.o.url}}?",
            ),
            (
                "{{data.host.x}}",
                "{{data.host.x}} is not in the partition's data",
            ),
            ("{{data.n}}", "{{data.n}} is null in the partition's data"),
            (
                "{{}}",
                "{{}} is not known; there are key, data, data.FIELD, token and agent",
            ),
            (
                "{{data.}}",
                "{{data.}} is not known; there are key, data, data.FIELD, token and agent",
            ),
            (
                "ab{{key",
                "\"{{\" at byte 2 is never closed; write \"}}\" after the name, or \"{{{{\" for two braces",
            ),
        ] {
            assert_eq!(
                fill(text, data).unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
        let error = fill("{{data.x}}", None).unwrap_err();
        assert_eq!(
            error,
            TemplateError::NoData {
                name: "data.x".to_owned()
            }
        );
    }

    #[test]
    fn a_value_that_no_argument_can_hold_is_refused() {
        let error = fill("{{data.x}}", Some(r#"{"x":"a\u0000b"}"#)).unwrap_err();
        assert_eq!(
            error,
            TemplateError::Nul {
                name: "data.x".to_owned()
            }
        );
        let long = format!(r#"{{"x":"{}"}}"#, "a".repeat(ARGUMENT_BYTES_MAX + 1));
        assert!(matches!(
            fill("{{data.x}}", Some(&long)),
            Err(TemplateError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn text_without_double_braces_stays_as_it_is(text in "[^{]*(\\{[^{]+)*") {
            prop_assert_eq!(fill(&text, None).unwrap(), text);
        }

        #[test]
        fn no_text_and_no_data_make_it_panic(text in "[{}a-z. ]{0,30}", data in "\\PC{0,30}") {
            let key = PartitionKey::new("k").unwrap();
            let agent = AgentName::new("a").unwrap();
            if let (Ok(template), Ok(context)) = (
                Template::parse(&text),
                Context::new(&key, Some(&data), Token(1), &agent),
            ) {
                template.expand(&context).ok();
            }
        }

        #[test]
        fn every_integer_stays_exact(number: u64) {
            let data = format!(r#"{{"n":{number}}}"#);
            prop_assert_eq!(fill("{{data.n}}", Some(&data)).unwrap(), number.to_string());
        }
    }
}
