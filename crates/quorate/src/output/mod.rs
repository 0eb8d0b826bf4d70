//! Everything that reaches a person: results on standard output, all else on standard error.
//!
//! Colour and tables only on a terminal; `NO_COLOR` and `TERM=dumb` are respected. A reader that has
//! had enough (`quorate ls | head`) ends the program in silence.

mod progress;
mod table;
mod time;

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::failure::{Code, Exit, Failure, Problem};
pub(crate) use progress::{Bar, ON_SILENT, WAITS_FOR_FENCE};
pub(crate) use table::{Cell, Column, Row};
pub(crate) use time::{ago, eta};

/// So many partitions, in words.
pub(crate) fn partitions(count: u64) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} partition{ending}")
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table on a terminal, tab-separated values elsewhere.
    Table,
    /// The same with more columns.
    Wide,
    /// One JSON document; one a line of `logs`, and of what goes on (`-f`, `--watch`).
    Json,
    /// One JSON document a line.
    Ndjson,
    /// One name a line.
    Name,
}

/// How a word is set off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// Something is well.
    Good,
    /// Something needs a look.
    Warn,
    /// Something is wrong.
    Bad,
    /// Less important.
    Faint,
    /// More important.
    Strong,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
            Self::Strong => "\x1b[1m",
        }
    }

    /// The text in this style, if colours are wanted.
    pub(crate) fn paint(self, text: &str, color: bool) -> String {
        if color && self != Self::Plain {
            format!("{}{text}\x1b[0m", self.code())
        } else {
            text.to_owned()
        }
    }
}

/// Where results go and how they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// As the person asked; `None` means that nothing was asked.
    pub(crate) format: Option<Format>,
    /// Standard output is a terminal.
    pub(crate) terminal: bool,
    /// Standard output may be coloured.
    pub(crate) color: bool,
}

impl Output {
    /// What this process's standard output allows.
    pub(crate) fn new(format: Option<Format>) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            format,
            terminal,
            color: terminal && color_wanted(),
        }
    }

    /// Whether machines read the results.
    pub(crate) const fn is_json(self) -> bool {
        matches!(self.format, Some(Format::Json | Format::Ndjson))
    }

    /// Writes a list in the format that was asked for.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub(crate) fn list<T: Row>(self, rows: &[T]) -> Result<(), Failure> {
        let mut text = String::new();
        match self.format.unwrap_or(Format::Table) {
            Format::Json => {
                text = json(&rows, true)?;
                text.push('\n');
            }
            Format::Ndjson => {
                for row in rows {
                    text.push_str(&json(row, false)?);
                    text.push('\n');
                }
            }
            Format::Name => {
                for row in rows {
                    text.push_str(&row.name());
                    text.push('\n');
                }
            }
            format @ (Format::Table | Format::Wide) => {
                let wide = format == Format::Wide;
                text = if self.terminal || self.format.is_some() {
                    table::aligned(rows, wide, self)
                } else {
                    table::tabbed(rows, wide)
                };
            }
        }
        self.text(&text)
    }

    /// Writes one thing: as JSON when that was asked for, else the text made for people.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub(crate) fn one<T: Serialize>(
        self,
        value: &T,
        name: &str,
        people: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Some(Format::Json) => self.text(&(json(value, true)? + "\n")),
            Some(Format::Ndjson) => self.text(&(json(value, false)? + "\n")),
            Some(Format::Name) => self.text(&format!("{name}\n")),
            Some(Format::Table | Format::Wide) | None => self.text(&people()),
        }
    }

    /// Writes text to standard output.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes to standard output.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        if !bytes.is_empty() && quorate_agent::sys::stdout_was_closed() {
            return Err(Failure::new(
                Code::Output,
                "the results cannot be written: standard output is closed",
                "send them somewhere, if only to /dev/null",
            ));
        }
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(|error| {
                let code = if error.kind() == std::io::ErrorKind::BrokenPipe {
                    Code::ReaderLeft
                } else {
                    Code::Output
                };
                Failure::new(
                    code,
                    format!("the results cannot be written: {error}"),
                    "make room, or send them elsewhere",
                )
            })
    }

    /// Clears the terminal before a list is written again.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub(crate) fn clear(self) -> Result<(), Failure> {
        if self.terminal && !dumb() {
            self.text("\x1b[H\x1b[2J\x1b[3J")
        } else {
            Ok(())
        }
    }
}

fn json<T: Serialize>(value: &T, pretty: bool) -> Result<String, Failure> {
    let text = if pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    text.map_err(|error| {
        Failure::new(
            Code::Failed,
            format!("the results cannot be written as JSON: {error}"),
            "report this as a defect",
        )
    })
}

fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

fn color_wanted() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && !dumb()
}

/// Whether standard error may be coloured.
pub(crate) fn stderr_color() -> bool {
    std::io::stderr().is_terminal() && color_wanted()
}

/// Whether progress may be drawn on standard error.
pub(crate) fn stderr_draws() -> bool {
    std::io::stderr().is_terminal() && !dumb()
}

/// Tells a person something that is not a result. That nobody can read it is no failure.
pub(crate) fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{text}");
}

/// Tells why a command failed.
pub(crate) fn report(failure: &Failure) {
    if failure.exit() == Exit::Done {
        return;
    }
    let color = stderr_color();
    let mut text = String::new();
    for problem in failure.problems() {
        describe(&mut text, problem, color);
    }
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
}

/// One problem as text: code, sentence, line, next step. Writing to a string cannot fail.
fn describe(text: &mut String, problem: &Problem, color: bool) {
    let head = format!("error[{}]", problem.code.name());
    let head = Style::Bad.paint(&head, color);
    let sentence = one_line(&problem.sentence);
    let _ = writeln!(text, "{head}: {}", Style::Strong.paint(&sentence, color));
    if let Some(place) = &problem.place {
        let number = place.line.to_string();
        let gap = " ".repeat(number.len());
        let bar = Style::Faint.paint("|", color);
        let _ = writeln!(
            text,
            "{gap}--> {}:{}:{}",
            one_line(&place.file),
            place.line,
            place.column
        );
        // A tab would shift the mark under the line.
        let line = visible(&place.text.replace('\t', " "));
        let before = place.text.replace("\t", " ");
        let before: String = before.chars().take(place.column - 1).collect();
        let indent = " ".repeat(visible(&before).chars().count());
        let mark = Style::Bad.paint(&"^".repeat(place.width), color);
        let _ = writeln!(text, "{gap} {bar}");
        let _ = writeln!(text, "{number} {bar} {line}");
        let _ = writeln!(text, "{gap} {bar} {indent}{mark}");
    }
    if !problem.next.is_empty() {
        let _ = writeln!(
            text,
            "  {}: {}",
            Style::Good.paint("next", color),
            one_line(&problem.next)
        );
    }
}

/// Control characters of others must not drive a person's terminal.
pub(crate) fn visible(text: &str) -> String {
    let hidden = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hidden) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if hidden(c) {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

/// The same for what belongs on one line, such as names: a line break in it must not look like a line
/// of ours.
pub(crate) fn one_line(text: &str) -> String {
    visible(text).replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Place;

    #[test]
    fn a_problem_shows_its_line_with_a_mark_under_it() {
        let mut text = String::new();
        let problem = Problem {
            code: Code::FileKey,
            sentence: "unknown key `comand`".into(),
            place: Some(Box::new(Place {
                file: "feeds.toml".into(),
                line: 12,
                column: 2,
                text: "\tcomand = 1".into(),
                width: 6,
            })),
            next: "did you mean `command`?".into(),
        };
        describe(&mut text, &problem, false);
        assert_eq!(
            text,
            "error[file_key]: unknown key `comand`\n  --> feeds.toml:12:2\n   |\n12 |  comand = 1\n   |  ^^^^^^\n  next: did you mean `command`?\n"
        );
    }

    #[test]
    fn control_characters_of_others_are_made_visible() {
        assert_eq!(visible("a\x1b[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
        assert_eq!(visible("größe"), "größe");
        assert_eq!(one_line("a\nerror: b"), "a\\nerror: b");
    }
}
