//! What the decoder of JSON says, in a person's words: it speaks of the types of this program.

/// The same said so that whoever wrote the body understands it.
pub(super) fn of(message: &str) -> String {
    if let Some(where_) = message.strip_prefix("EOF while parsing ") {
        return match where_ {
            "a value" => "the text ends where a value should be".to_owned(),
            within => format!("the text ends in the middle of {}", kind(within)),
        };
    }
    if message == "expected value" {
        return "this is no JSON value".to_owned();
    }
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "));
    match rest.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            format!("expected {}, found {}", wanted(expected), kind(found))
        }
        None => message.to_owned(),
    }
}

/// The same of what stands in a path.
pub(super) fn of_path(message: &str) -> String {
    let number = message.strip_prefix("Cannot parse `");
    match number.and_then(|rest| rest.rsplit_once("` to a `u64`")) {
        Some((given, "")) => format!("{given:?} is not {}", wanted("u64")),
        Some(_) | None => message.to_owned(),
    }
}

/// What was there.
fn kind(found: &str) -> String {
    let number = found
        .strip_prefix("integer `")
        .or_else(|| found.strip_prefix("floating point `"));
    if let Some(number) = number {
        return format!("the number {}", number.trim_end_matches('`'));
    }
    if let Some(text) = found.strip_prefix("string ") {
        return format!("the text {text}");
    }
    if let Some(truth) = found.strip_prefix("boolean `") {
        return truth.trim_end_matches('`').to_owned();
    }
    match found {
        "sequence" => "a list",
        "map" => "an object",
        "a string" => "a text",
        other => other,
    }
    .to_owned()
}

/// What should be there.
fn wanted(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 on",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_program_are_told_as_what_a_person_writes() {
        for (said, told) in [
            (
                "invalid type: string \"10\", expected u32",
                "expected a whole number from 0 to 4294967295, found the text \"10\"",
            ),
            (
                "invalid value: integer `-1`, expected u64",
                "expected a whole number from 0 on, found the number -1",
            ),
            (
                "invalid type: floating point `1.5`, expected u16",
                "expected a whole number from 0 to 65535, found the number 1.5",
            ),
            (
                "invalid type: sequence, expected struct Exit",
                "expected an object, found a list",
            ),
            (
                "invalid type: map, expected a sequence",
                "expected a list, found an object",
            ),
            (
                "invalid type: string \"a, expected b\", expected a boolean",
                "expected true or false, found the text \"a, expected b\"",
            ),
            (
                "invalid type: null, expected a table",
                "expected a table, found null",
            ),
            (
                "invalid type: boolean `true`, expected a string",
                "expected a text, found true",
            ),
            (
                "EOF while parsing a value",
                "the text ends where a value should be",
            ),
            (
                "EOF while parsing an object",
                "the text ends in the middle of an object",
            ),
            ("missing field `spec`", "missing field `spec`"),
        ] {
            assert_eq!(of(said), told);
        }
    }
}
