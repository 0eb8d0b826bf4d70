//! What is wrong with a command line, in the words and the format of every other error.
//!
//! clap finds the mistakes; this says them. **Never** decides whether a command line is right.

use std::error::Error as _;
use std::ffi::OsString;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;

use super::help;
use crate::failure::{Code, Failure};
use quorate_core::spec::suggest::closest;

/// The failure that a refused command line is.
///
/// `args` are the words of the command line, the program's own name first.
pub(super) fn failure(error: &Error, args: &[OsString]) -> Failure {
    let (sentence, next) = negative(error, args).unwrap_or_else(|| say(error));
    let next = next.unwrap_or_else(|| match command_of(args) {
        Some(command) => format!("`quorate {command} --help` shows what it takes, with examples"),
        None => "`quorate --help` lists the commands".to_owned(),
    });
    Failure::new(Code::Usage, sentence, next)
}

/// The failure that an option is which was typed and means nothing to the command. Of what comes from the
/// environment nothing is said: it is there for the other commands.
pub(super) fn meaningless(matches: &clap::ArgMatches) -> Option<Failure> {
    let (command, _) = matches.subcommand()?;
    let typed = |option| matches.value_source(option) == Some(ValueSource::CommandLine);
    let found =
        help::all_meaningless().find(|known| known.command == command && typed(known.option))?;
    let option = found.option.replace('_', "-");
    Some(Failure::new(
        Code::Usage,
        format!("--{option} means nothing to `quorate {command}`"),
        found.instead,
    ))
}

/// The command that was meant: the first word that is one. clap itself does not tell where it stopped.
fn command_of(args: &[OsString]) -> Option<&str> {
    let mut words = args.iter().skip(1).filter_map(|word| word.to_str());
    words.find(|word| help::COMMANDS.iter().any(|help| help.name == *word))
}

/// One sentence, and a next step where the mistake itself tells one.
fn say(error: &Error) -> (String, Option<String>) {
    let argument = || argument(error);
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => value(error),
        ErrorKind::UnknownArgument => {
            let given = argument();
            (format!("there is no {given} here"), meant(error))
        }
        ErrorKind::InvalidSubcommand => {
            let given = text(error, ContextKind::InvalidSubcommand);
            (format!("there is no command {given:?}"), meant(error))
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = list(error, ContextKind::InvalidArg);
            let missing: Vec<String> = missing.iter().map(|name| bare(name)).collect();
            let verb = if missing.len() == 1 { "is" } else { "are" };
            (format!("{} {verb} missing", missing.join(" and ")), None)
        }
        ErrorKind::ArgumentConflict => {
            let other = list(error, ContextKind::PriorArg);
            let sentence = match other.first().map(|other| bare(other)) {
                Some(other) if other == argument() => {
                    format!("{other} is given twice, and once is meant")
                }
                Some(other) => format!("{} and {other} exclude each other", argument()),
                None => format!("{} does not go with the rest", argument()),
            };
            (sentence, Some("leave one of them out".to_owned()))
        }
        ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues | ErrorKind::NoEquals => {
            (format!("{} lacks a value", argument()), None)
        }
        ErrorKind::TooManyValues => {
            let given = text(error, ContextKind::InvalidValue);
            (
                format!("{given:?} is one value too many for {}", argument()),
                None,
            )
        }
        ErrorKind::InvalidUtf8 => (
            "an argument is not text in UTF-8".to_owned(),
            Some("write it with letters that are; names of files may be anything".to_owned()),
        ),
        // The other kinds are help, or come from the system; later ones of clap say themselves what they are.
        ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelp
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::DisplayVersion
        | ErrorKind::Io
        | ErrorKind::Format
        | _ => {
            let all = error.to_string();
            let first = all.lines().next().unwrap_or_default();
            (first.trim_start_matches("error: ").to_owned(), None)
        }
    }
}

/// A value below zero: clap takes `-1` and `-5s` for options that there are not.
fn negative(error: &Error, args: &[OsString]) -> Option<(String, Option<String>)> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let refused = argument(error);
    let digit = |c: char| c.is_ascii_digit();
    let below_zero = |word: &str| {
        let rest = word.strip_prefix('-');
        rest.is_some_and(|rest| rest.starts_with(digit))
    };
    let words: Vec<&str> = args
        .iter()
        .map(|word| word.to_str().unwrap_or(""))
        .collect();
    // Of `-5s` clap names `-5`, the option that it would be.
    let at = words
        .iter()
        .position(|word| below_zero(word) && word.starts_with(&refused))?;
    let (before, given) = (words.get(at.checked_sub(1)?)?, words.get(at)?);
    let command = help::command();
    let of = command_of(args).and_then(|name| command.find_subcommand(name))?;
    let option = of.get_arguments().find(|option| {
        let long = option.get_long().map(|long| format!("--{long}"));
        let short = option.get_short().map(|short| format!("-{short}"));
        [long, short].iter().flatten().any(|name| name == before)
    })?;
    let kind = option.get_value_names()?.first()?.as_str();
    let (what, write) = match kind {
        "TIME" => ("no span of time", "write 500ms, 10s, 5m, 1h, 2d or 1m30s"),
        "N" => ("no whole number", "write digits only, such as 3"),
        _ => return None,
    };
    Some((
        format!("{before}: {given:?} is {what}"),
        Some(write.to_owned()),
    ))
}

/// A value that is not one of those there are, or that was read and refused.
fn value(error: &Error) -> (String, Option<String>) {
    let (argument, given) = (argument(error), text(error, ContextKind::InvalidValue));
    let valid = list(error, ContextKind::ValidValue);
    if !valid.is_empty() {
        let next = meant(error).unwrap_or_else(|| format!("write one of: {}", valid.join(", ")));
        let sentence = if given.is_empty() {
            format!("{argument} lacks a value")
        } else {
            format!("{given:?} is no value of {argument}")
        };
        return (sentence, Some(next));
    }
    if let Some(cause) = error.source() {
        // Our own readers of values put the next step behind a semicolon.
        let cause = cause.to_string();
        if let Some((what, write)) = in_our_words(&cause) {
            return (
                format!("{argument}: {given:?} is {what}"),
                Some(write.to_owned()),
            );
        }
        if let Some(range) = range(&cause) {
            return (format!("{argument}: {given} is not {range}"), None);
        }
        return match cause.split_once("; ") {
            // Of a name they put the character there that breaks its rule.
            Some((_, character)) if character.ends_with(" is not allowed") => {
                let next = "leave that character out".to_owned();
                (format!("{argument}: {cause}"), Some(next))
            }
            Some((cause, next)) => (format!("{argument}: {cause}"), Some(next.to_owned())),
            None if cause.contains(&format!("{given:?}")) || cause.contains(&given) => {
                (format!("{argument}: {cause}"), None)
            }
            None => (format!("{argument}: {given:?} is refused: {cause}"), None),
        };
    }
    if given.is_empty() {
        return (format!("{argument} lacks a value"), None);
    }
    (format!("{given:?} is no value of {argument}"), None)
}

/// What clap says of a number out of its range, `0 is not in 1..=256`, without the syntax of Rust.
fn range(cause: &str) -> Option<String> {
    let (_, range) = cause.split_once(" is not in ")?;
    let (first, last) = range.split_once("..")?;
    Some(match last.strip_prefix('=').unwrap_or(last) {
        "" => format!("{first} or more"),
        last => format!("from {first} to {last}"),
    })
}

/// What the standard library says of a value that it cannot read, as a person says it: what the value is,
/// and what to write.
fn in_our_words(cause: &str) -> Option<(&'static str, &'static str)> {
    match cause {
        "invalid digit found in string" => {
            Some(("no whole number", "write digits only, such as 3"))
        }
        "number too large to fit in target type" => Some(("too large", "write a smaller number")),
        "invalid socket address syntax" => Some((
            "no address with a port",
            "write numbers, such as 127.0.0.1:7400 or [::1]:7400",
        )),
        _ => None,
    }
}

/// What was probably meant. clap suggests freely; what is not near enough is kept back.
fn meant(error: &Error) -> Option<String> {
    let kinds = [
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        (ContextKind::InvalidValue, ContextKind::SuggestedValue),
        (
            ContextKind::InvalidSubcommand,
            ContextKind::SuggestedSubcommand,
        ),
    ];
    kinds.into_iter().find_map(|(given, suggested)| {
        let given = bare(&text(error, given));
        let all: Vec<String> = list(error, suggested)
            .iter()
            .map(|name| bare(name))
            .collect();
        let near = closest(&given, all.iter().map(String::as_str))?;
        Some(format!("did you mean {near}?"))
    })
}

/// The argument that is at fault, as a person writes it.
fn argument(error: &Error) -> String {
    let names = list(error, ContextKind::InvalidArg);
    names
        .first()
        .map_or_else(|| "an argument".to_owned(), |name| bare(name))
}

/// `--agents` of `--agents <N>`, `FILE` of `<FILE>...` and `NAME[/KEY]` of `[NAME[/KEY]]`.
fn bare(shown: &str) -> String {
    let name = if shown.starts_with('-') {
        shown.split([' ', '=', '[']).next().unwrap_or(shown)
    } else {
        let name = shown.trim_end_matches("...");
        let inner = |open, close| name.strip_prefix(open)?.strip_suffix(close);
        inner('<', '>').or_else(|| inner('[', ']')).unwrap_or(name)
    };
    name.to_owned()
}

fn text(error: &Error, kind: ContextKind) -> String {
    list(error, kind).into_iter().next().unwrap_or_default()
}

/// What clap noted under this kind.
fn list(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        // Numbers and styled text are not asked for; later kinds of clap are not known.
        Some(_) | None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    /// The sentence and the next step of a refused line.
    fn refused(line: &[&str]) -> (String, String) {
        let args: Vec<OsString> = std::iter::once(&"quorate")
            .chain(line)
            .map(OsString::from)
            .collect();
        let error = super::super::matches(&args).unwrap_err();
        let failure = failure(&error, &args);
        assert_eq!(failure.exit(), Exit::Usage, "{line:?}");
        assert_eq!(failure.first.code, Code::Usage, "{line:?}");
        (failure.first.sentence, failure.first.next)
    }

    #[test]
    fn every_slip_on_the_command_line_is_told_in_one_sentence_with_a_next_step() {
        let help = |command: &str| {
            format!("`quorate {command} --help` shows what it takes, with examples")
        };
        for (line, sentence, next) in [
            (
                &["aply", "f.toml"][..],
                "there is no command \"aply\"",
                "did you mean apply?".to_owned(),
            ),
            (
                &["frobnicate"],
                "there is no command \"frobnicate\"",
                "`quorate --help` lists the commands".to_owned(),
            ),
            (
                &["up", "f.toml", "--agent", "3"],
                "there is no --agent here",
                "did you mean --agents?".to_owned(),
            ),
            (
                &["ls", "agents", "--frob"],
                "there is no --frob here",
                help("ls"),
            ),
            (&["status", "a", "b"], "there is no b here", help("status")),
            (&["up"], "FILE is missing", help("up")),
            (&["wait"], "--settled is missing", help("wait")),
            (
                &["ls", "agentss"],
                "\"agentss\" is no value of KIND",
                "did you mean agents?".to_owned(),
            ),
            (
                &["ls", "agents", "-o", "xml"],
                "\"xml\" is no value of --output",
                "write one of: table, wide, json, ndjson, name".to_owned(),
            ),
            (
                &["up", "f.toml", "--agents"],
                "--agents lacks a value",
                help("up"),
            ),
            (
                &["up", "f.toml", "--agents", "300"],
                "--agents: 300 is not from 1 to 256",
                help("up"),
            ),
            (
                &["up", "f.toml", "--agents", "x"],
                "--agents: \"x\" is no whole number",
                "write digits only, such as 3".to_owned(),
            ),
            (
                &["up", "f.toml", "--listen", "7400"],
                "--listen: \"7400\" is no address with a port",
                "write numbers, such as 127.0.0.1:7400 or [::1]:7400".to_owned(),
            ),
            (
                &["up", "f.toml", "--agents", "1", "--agents", "2"],
                "--agents is given twice, and once is meant",
                "leave one of them out".to_owned(),
            ),
            (
                &["why", "feeds"],
                "NAME/KEY: a partition is named SERVICE/KEY, such as feeds/KEY",
                "`quorate ls partitions` lists them".to_owned(),
            ),
            (
                &["why", "a b/c"],
                "NAME/KEY: a service name has letters, digits, '-', '_' and '.', and starts with a letter or digit; \
                 ' ' at byte 1 of \"a b\" is not allowed",
                "leave that character out".to_owned(),
            ),
            (
                &["restart", "feeds", "--max", "2"],
                "--rolling is missing",
                help("restart"),
            ),
            (
                &["evict", "a2"],
                "--accept-duplicate-risk and --reason are missing",
                help("evict"),
            ),
            (
                &["wait", "--settled", "--timeout", "-1"],
                "--timeout: \"-1\" is no span of time",
                "write 500ms, 10s, 5m, 1h, 2d or 1m30s".to_owned(),
            ),
            (
                &["apply", "f.toml", "--wait", "-5s"],
                "--wait: \"-5s\" is no span of time",
                "write 500ms, 10s, 5m, 1h, 2d or 1m30s".to_owned(),
            ),
            (
                &["logs", "feeds", "-n", "-1"],
                "-n: \"-1\" is no whole number",
                "write digits only, such as 3".to_owned(),
            ),
            (&["status", "-1"], "there is no -1 here", help("status")),
        ] {
            assert_eq!(refused(line), (sentence.to_owned(), next), "{line:?}");
        }
    }

    #[test]
    fn the_command_is_found_behind_options_that_are_wrong() {
        let (_, next) = refused(&["--frob", "status"]);
        assert_eq!(
            next,
            "`quorate status --help` shows what it takes, with examples"
        );
    }
}
