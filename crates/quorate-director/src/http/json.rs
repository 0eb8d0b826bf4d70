//! JSON of strangers: how deep it is, and what is wrong with it in words that help.

use quorate_api::problem::{Code, FieldError};
use quorate_core::spec::suggest::closest;
use serde::de::{DeserializeOwned, DeserializeSeed as _};

use super::answer::Failure;
use super::once::Once;
use super::words;

/// Reads a body.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8], depth_max: usize) -> Result<T, Failure> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::new(Code::MalformedRequest, "the body is empty")
            .next_step("send a JSON object"));
    }
    if depth(bytes) > depth_max {
        let detail = format!("the body is nested more than {depth_max} levels deep");
        return Err(Failure::new(Code::MalformedRequest, detail));
    }
    check_object(bytes)?;
    let value = serde_json::from_slice(bytes).map_err(|error| malformed("the body", &error))?;
    let mut once = serde_json::Deserializer::from_slice(bytes);
    Once.deserialize(&mut once)
        .map_err(|error| malformed("the body", &error))?;
    Ok(value)
}

/// The decoder would take a list for an object, field by field.
fn check_object(bytes: &[u8]) -> Result<(), Failure> {
    let what = match bytes.trim_ascii_start() {
        [b'{', ..] => return Ok(()),
        [b'[', ..] => "a list",
        [b'"', ..] => "a text",
        [b'n', b'u', b'l', b'l', ..] => "null",
        [b't' | b'f', ..] => "true or false",
        [b'-' | b'0'..=b'9', ..] => "a number",
        [0xef, 0xbb, 0xbf, ..] => "marked with a byte order mark",
        _ => "no JSON",
    };
    let detail = format!("the body is {what}, not an object");
    Err(Failure::new(Code::MalformedRequest, detail).next_step("send a JSON object"))
}

/// What is wrong, where, and what was probably meant.
pub(crate) fn malformed(what: &str, error: &serde_json::Error) -> Failure {
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or(&text);
    let at = match (error.line(), error.column()) {
        (0, _) => what.to_owned(),
        (line, column) => format!("line {line}, column {column}"),
    };
    let hint = meant(message).map(|near| format!("did you mean {near:?}?"));
    let message = words::of(message);
    let mut failure = Failure::new(Code::MalformedRequest, format!("{what}, {at}: {message}"));
    let next = match &hint {
        Some(hint) => hint.as_str(),
        None if error.is_syntax() || error.is_eof() => "up to there it is JSON; go on from there",
        None => "/openapi.json describes what is taken",
    };
    failure = failure.next_step(next);
    failure.0.errors = vec![FieldError { at, message, hint }];
    failure
}

/// The known field nearest to an unknown one, taken from the words of the decoder:
/// "unknown field `comand`, expected one of `command`, `env`".
fn meant(message: &str) -> Option<&str> {
    let (given, rest) = message
        .strip_prefix("unknown field `")
        .or_else(|| message.strip_prefix("unknown variant `"))?
        .split_once('`')?;
    closest(given, rest.split('`').skip(1).step_by(2))
}

/// How deep arrays and objects are nested, strings left out.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_and_not_those_in_texts() {
        assert_eq!(depth(br#"{"a":[{"b":"[[[\"[["}]}"#), 3);
        assert_eq!(depth(b"[[[["), 4);
        assert_eq!(depth(b"}}}}"), 0);
    }

    #[test]
    fn a_slip_in_a_field_name_is_told_with_the_name_that_was_meant() {
        let error = serde_json::from_str::<quorate_core::spec::File>(
            r#"{"service":{"feeds":{"comand":["/bin/true"]}}}"#,
        )
        .unwrap_err();
        let problem = malformed("the specification", &error).0;
        assert_eq!(
            problem.next_step.as_deref(),
            Some("did you mean \"command\"?")
        );
        assert!(
            problem.detail.contains("line 1, column"),
            "{}",
            problem.detail
        );
    }
}
