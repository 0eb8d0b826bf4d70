//! Commands about the program itself, and `api`.

use serde::Serialize;
use serde_json::Value;

use super::args::{ApiArgs, ExplainArgs, ManArgs, Method};
use super::help;
use super::remote::{Remote, code_of, failure_of};
use crate::failure::{Code, Exit, Failure};
use crate::output::{Cell, Column, Output, Row, say};
use crate::reference::{self, Entry};
use quorate_api::problem::{self, Problem};
use quorate_core::format::FORMATS;
use quorate_core::spec::suggest::closest;

/// What `explain` calls the reference of all keys.
const SERVICE_FILE: &str = "service-file";
/// And its JSON Schema.
const SCHEMA: &str = "schema";

pub(super) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let written = std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(help::command(), &args.dir));
    written.map(|()| Exit::Done).map_err(|error| {
        Failure::new(
            Code::Output,
            format!(
                "the pages cannot be written to {}: {error}",
                args.dir.display()
            ),
            "choose a folder that you may write to",
        )
    })
}

/// What `version` tells.
#[derive(Serialize)]
struct Version {
    version: &'static str,
    ledger_format: u16,
    oldest_ledger_format: u16,
    warden_protocol: u32,
}

pub(super) fn version(output: Output) -> Result<Exit, Failure> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        ledger_format: FORMATS.newest.0,
        oldest_ledger_format: FORMATS.oldest.0,
        warden_protocol: quorate_agent::warden::protocol::PROTOCOL,
    };
    output.one(&version, version.version, || {
        format!("quorate {}\n", version.version)
    })?;
    Ok(Exit::Done)
}

/// A code and what it means.
#[derive(Serialize)]
struct Explained {
    code: String,
    /// How the program ends after it.
    exit: u8,
    meaning: &'static str,
    /// The HTTP status of a problem of the API that has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// As what the command line shows such a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    shown_as: Option<&'static str>,
}

impl Explained {
    fn of_code(code: Code) -> Self {
        let mut problems = problem::Code::ALL.iter();
        let same = problems.find(|problem| problem.name() == code.name());
        Self {
            code: code.name().to_owned(),
            exit: code.exit().number(),
            meaning: code.meaning(),
            status: same.map(|problem| problem.status()),
            shown_as: same.map(|&problem| shown_as(problem).name()),
        }
    }

    fn of_exit(exit: Exit) -> Self {
        Self {
            code: exit.number().to_string(),
            exit: exit.number(),
            meaning: exit.meaning(),
            status: None,
            shown_as: None,
        }
    }

    /// A problem of the API that has no namesake among the codes of the command line.
    fn of_problem(problem: problem::Code) -> Self {
        let shown = shown_as(problem);
        Self {
            code: problem.name(),
            exit: shown.exit().number(),
            meaning: problem.meaning(),
            status: Some(problem.status()),
            shown_as: Some(shown.name()),
        }
    }

    /// For people.
    fn text(&self) -> String {
        let Self {
            code,
            exit,
            meaning,
            ..
        } = self;
        let head = match (Code::named(code), self.status) {
            (Some(_), _) => format!("{code} (exit code {exit})"),
            (None, Some(_)) => format!("{code} (problem of the API)"),
            (None, None) => format!("exit code {code}"),
        };
        let api = match (self.status, self.shown_as) {
            (Some(status), Some(shown)) => {
                format!(
                    "  Over HTTP it has status {status}; a command shows it as error[{shown}], exit code {exit}.\n"
                )
            }
            _ => String::new(),
        };
        format!("{head}\n  {meaning}\n{api}")
    }
}

/// As what the command line shows a problem of the API.
fn shown_as(problem: problem::Code) -> Code {
    code_of(&Problem::new(problem, ""))
}

/// Everything that has a code: how the program ends, what it shows, and what the API answers.
fn explained() -> Vec<Explained> {
    let exits = Exit::ALL.iter().copied().map(Explained::of_exit);
    let codes = Code::ALL.iter().copied().map(Explained::of_code);
    let problems = problem::Code::ALL.iter().copied();
    let problems = problems.filter(|problem| Code::named(&problem.name()).is_none());
    exits
        .chain(codes)
        .chain(problems.map(Explained::of_problem))
        .collect()
}

impl Row for Explained {
    const COLUMNS: &'static [Column] = &[
        Column {
            name: "CODE",
            wide: false,
        },
        Column {
            name: "EXIT",
            wide: false,
        },
        Column {
            name: "MEANING",
            wide: false,
        },
    ];

    fn name(&self) -> String {
        self.code.clone()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.code),
            Cell::text(self.exit),
            Cell::text(self.meaning),
        ]
    }
}

pub(super) fn explain(args: &ExplainArgs, output: Output) -> Result<Exit, Failure> {
    let all = explained();
    let Some(asked) = &args.code else {
        output.list(&all)?;
        if output.terminal && !output.is_json() {
            say(&format!(
                "keys of a service file: quorate explain {SERVICE_FILE}"
            ));
        }
        return Ok(Exit::Done);
    };
    // As it is shown in an error, `error[no_leader]`, or bare.
    let bare = asked
        .strip_prefix("error[")
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(asked);
    if bare == SERVICE_FILE {
        let entries: Vec<Entry> = reference::entries().collect();
        output.one(&entries, bare, reference::document)?;
        return Ok(Exit::Done);
    }
    if bare == SCHEMA {
        output.one(&reference::schema(), bare, reference::schema_document)?;
        return Ok(Exit::Done);
    }
    if let Some(explained) = all.iter().find(|explained| explained.code == bare) {
        output.one(explained, &explained.code, || explained.text())?;
        return Ok(Exit::Done);
    }
    let keys = reference::named(bare);
    if !keys.is_empty() {
        let text = || keys.iter().map(Entry::text).collect();
        output.one(&keys, bare, text)?;
        return Ok(Exit::Done);
    }
    let keys: Vec<String> = reference::entries().map(|entry| entry.key).collect();
    let codes = all.iter().map(|explained| explained.code.as_str());
    let near = closest(bare, codes.chain(keys.iter().map(String::as_str)));
    Err(Failure::new(
        Code::NotFound,
        format!("there is no code and no key {bare:?}"),
        near.map_or_else(
            || {
                format!(
                    "`quorate explain` lists all codes, `quorate explain {SERVICE_FILE}` all keys"
                )
            },
            |near| format!("did you mean {near}?"),
        ),
    ))
}

pub(super) async fn api(args: &ApiArgs, remote: &Remote) -> Result<Exit, Failure> {
    let answer = match args.method {
        Method::Get => remote
            .client
            .get_raw(&args.path)
            .await
            .map_err(failure_of)?,
    };
    // Some paths answer with plain text, such as /metrics.
    match serde_json::from_str::<Value>(&answer) {
        Ok(json) => remote.output.one(&json, &args.path, || {
            serde_json::to_string_pretty(&json).unwrap_or_default() + "\n"
        })?,
        Err(_) => remote.output.one(&answer, &args.path, || answer.clone())?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_program_and_of_the_api_is_explained_once() {
        let all = explained();
        let named = |name: &str| {
            let found: Vec<&Explained> = all.iter().filter(|one| one.code == name).collect();
            assert_eq!(found.len(), 1, "{name}");
            found[0].text()
        };
        for code in Code::ALL {
            let text = named(code.name());
            assert!(text.contains(code.meaning()), "{text}");
        }
        for problem in problem::Code::ALL {
            let text = named(&problem.name());
            let shown = shown_as(*problem);
            let status = format!("status {}", problem.status());
            let becomes = format!(
                "error[{}], exit code {}",
                shown.name(),
                shown.exit().number()
            );
            assert!(text.contains(&status) && text.contains(&becomes), "{text}");
        }
        let fenced = named("fenced");
        assert_eq!(
            fenced,
            "fenced (problem of the API)\n  The caller's session, incarnation or token is over.\n  \
             Over HTTP it has status 409; a command shows it as error[conflict], exit code 4.\n"
        );
    }
}
