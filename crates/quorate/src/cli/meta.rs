//! Commands about the program itself, and `api`.

use serde::Serialize;
use serde_json::Value;

use super::args::{ApiArgs, ExplainArgs, ManArgs, Method};
use super::help;
use super::remote::{Remote, failure_of};
use crate::failure::{Code, Exit, Failure};
use crate::output::{Cell, Column, Output, Row, say};
use crate::reference::{self, Entry};
use quorate_core::format::FORMATS;
use quorate_core::spec::suggest::closest;

/// What `explain` calls the reference of all keys.
const SERVICE_FILE: &str = "service-file";

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
    exit: u8,
    meaning: &'static str,
}

impl Explained {
    fn of_code(code: Code) -> Self {
        Self {
            code: code.name().to_owned(),
            exit: code.exit().number(),
            meaning: code.meaning(),
        }
    }

    fn of_exit(exit: Exit) -> Self {
        Self {
            code: exit.number().to_string(),
            exit: exit.number(),
            meaning: exit.meaning(),
        }
    }
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
    let exits = Exit::ALL.iter().copied().map(Explained::of_exit);
    let codes = Code::ALL.iter().copied().map(Explained::of_code);
    let all: Vec<Explained> = exits.chain(codes).collect();
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
    if let Some(explained) = all.iter().find(|explained| explained.code == bare) {
        output.one(explained, &explained.code, || {
            let head = match Code::named(bare) {
                Some(code) => format!("{bare} (exit code {})", code.exit().number()),
                None => format!("exit code {bare}"),
            };
            format!("{head}\n  {}\n", explained.meaning)
        })?;
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
