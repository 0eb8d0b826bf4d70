//! Completion: the script that a shell sources, and what the program answers when that script asks it for
//! the candidates of a word. So a shell offers the names of services, partitions and agents, too.
//!
//! It answers while somebody types: **never** an error on the terminal, and never longer than [`PATIENCE`].

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{EnvCompleter, Shells};
use quorate_api::client::{Client, PartitionFilter};

use super::args::{CompletionArgs, Global, Root};
use super::remote::{DEFAULT_ADDRESS, addresses, options, with_token};
use super::{help, one_thread};
use crate::failure::{Code, Exit, Failure};
use crate::output::Output;

/// Says that a shell asks, and which.
const VARIABLE: &str = "QUORATE_COMPLETE";
/// A cluster that answers later is not waited for: a person has pressed a key.
const PATIENCE: Duration = Duration::from_secs(1);
/// More partitions than nobody looks through.
const PARTITIONS_MAX: u32 = 1000;

/// What can stand where a name is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// A service.
    Services,
    /// A service, or one of its partitions.
    Targets,
    /// A partition.
    Partitions,
    /// An agent.
    Agents,
}

impl Names {
    /// By what the help of a command calls its value.
    fn of(arg: &clap::Arg) -> Option<Self> {
        let names = arg.get_value_names()?;
        match (arg.get_id().as_str(), names.first()?.as_str()) {
            ("service", "NAME") | ("targets", "NAME") => Some(Self::Services),
            (_, "NAME[/KEY]") => Some(Self::Targets),
            (_, "NAME/KEY") => Some(Self::Partitions),
            ("agent", "NAME" | "AGENT") => Some(Self::Agents),
            _ => None,
        }
    }
}

/// Writes the script.
pub(super) fn script(args: &CompletionArgs, output: Output) -> Result<Exit, Failure> {
    let name = args.shell.to_string();
    let mut script = Vec::new();
    let written =
        shell(&name)?.write_registration(VARIABLE, "quorate", "quorate", "quorate", &mut script);
    written.map_err(failed)?;
    output.bytes(&script)?;
    Ok(Exit::Done)
}

/// The shell that asks for candidates, when one does.
pub(super) fn asked() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|shell| !shell.is_empty())
}

/// Answers the script: `args` are the program, `--`, and the words of the line so far.
pub(super) fn answer(asking: &OsStr, args: &[OsString]) -> Result<Exit, Failure> {
    let begin = args.iter().position(|word| word == "--");
    let words = args.get(begin.map_or(args.len(), |at| at + 1)..);
    let words = words.unwrap_or_default().to_vec();
    let mut found = Vec::new();
    if !words.is_empty() {
        let folder = std::env::current_dir().ok();
        let shell = shell(&asking.to_string_lossy())?;
        let mut line = line(&words);
        let done = shell.write_complete(&mut line, words, folder.as_deref(), &mut found);
        done.map_err(failed)?;
    }
    Output::new(None).bytes(&found)?;
    Ok(Exit::Done)
}

fn shell(name: &str) -> Result<&'static dyn EnvCompleter, Failure> {
    const SHELLS: Shells<'static> = Shells::builtins();
    let known = SHELLS.0.iter().copied().find(|shell| shell.is(name));
    known.ok_or_else(|| {
        Failure::new(
            Code::Usage,
            format!("{name:?} is no shell that can be completed for"),
            format!(
                "`quorate completion --help` lists those that can; {VARIABLE} is for their scripts"
            ),
        )
    })
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new(
        Code::Failed,
        format!("no completion: {error}"),
        "source `quorate completion SHELL` again",
    )
}

/// The command line, with the names of the cluster that these words mean where they can stand.
fn line(words: &[OsString]) -> clap::Command {
    let meant = meant(words);
    let mut root = named(help::command(), meant.as_ref());
    root.build();
    root
}

fn named(mut command: clap::Command, meant: Option<&Global>) -> clap::Command {
    let args = command.get_arguments();
    let args: Vec<_> = args
        .filter_map(|arg| Some((arg.get_id().clone(), Names::of(arg)?)))
        .collect();
    for (id, names) in args {
        let meant = meant.cloned();
        let candidates = move |begun: &OsStr| candidates(names, begun, meant.as_ref());
        let completer = ArgValueCompleter::new(candidates);
        command = command.mut_arg(id, |arg| arg.add(completer));
    }
    command.mut_subcommands(|command| named(command, meant))
}

/// The cluster that a line means which is not written to its end.
fn meant(words: &[OsString]) -> Option<Global> {
    let line = Root::command().ignore_errors(true);
    let matches = line.try_get_matches_from(words).ok()?;
    with_token(Global::from_arg_matches(&matches).ok()?).ok()
}

fn candidates(names: Names, begun: &OsStr, meant: Option<&Global>) -> Vec<CompletionCandidate> {
    let found = begun.to_str().zip(meant).and_then(|(begun, global)| {
        let mut addresses = addresses(global);
        if addresses.is_empty() {
            addresses.push(DEFAULT_ADDRESS.to_owned());
        }
        let client = Client::with(addresses, options(global).ok()?).ok()?;
        let asked = async { tokio::time::timeout(PATIENCE, list(&client, names, begun)).await };
        let mut found = one_thread().ok()?.block_on(asked).ok()??;
        found.retain(|name| name.starts_with(begun) && is_one_word(name));
        Some(found)
    });
    let found = found.unwrap_or_default().into_iter();
    found.map(CompletionCandidate::new).collect()
}

/// Not every shell can be given a name that it would have to quote.
fn is_one_word(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    name.chars().all(plain)
}

async fn list(client: &Client, names: Names, begun: &str) -> Option<Vec<String>> {
    if names == Names::Agents {
        let agents = client.agents(None).await.ok()?.value;
        return Some(agents.into_iter().map(|agent| agent.name).collect());
    }
    if let (Names::Targets | Names::Partitions, Some((service, _))) = (names, begun.split_once('/'))
    {
        let filter = PartitionFilter {
            service: Some(service.to_owned()),
            ..PartitionFilter::default()
        };
        let page = client.partitions_page(&filter, PARTITIONS_MAX, None).await;
        let partitions = page.ok()?.items.into_iter();
        let named = partitions.map(|partition| format!("{}/{}", partition.service, partition.key));
        return Some(named.collect());
    }
    let services = client.services(None).await.ok()?.value.into_iter();
    let named = services.flat_map(|service| {
        let begins = format!("{}/", service.name);
        match names {
            Names::Targets => vec![service.name, begins],
            Names::Partitions => vec![begins],
            Names::Services | Names::Agents => vec![service.name],
        }
    });
    Some(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_a_command_takes_is_offered() {
        let root = help::command();
        let names = |command: &str, id: &str| {
            let command = root.find_subcommand(command).expect(command);
            let arg = command.get_arguments().find(|arg| arg.get_id() == id);
            Names::of(arg.expect(id))
        };
        for (command, id, expected) in [
            ("status", "target", Names::Targets),
            ("logs", "target", Names::Targets),
            ("events", "target", Names::Targets),
            ("restart", "target", Names::Targets),
            ("why", "partition", Names::Partitions),
            ("history", "partition", Names::Partitions),
            ("rm", "targets", Names::Services),
            ("wait", "service", Names::Services),
            ("ls", "service", Names::Services),
            ("ls", "agent", Names::Agents),
            ("drain", "agent", Names::Agents),
            ("uncordon", "agent", Names::Agents),
        ] {
            assert_eq!(names(command, id), Some(expected), "{command} {id}");
        }
        assert_eq!(names("agent", "name"), None);
        assert_eq!(names("up", "files"), None);
    }

    #[test]
    fn the_cluster_is_that_of_the_line_that_is_being_typed() {
        let words = ["quorate", "--address", "127.0.0.1:7", "drain", "a"];
        let global = meant(&words.map(OsString::from)).unwrap();
        assert_eq!(addresses(&global), ["127.0.0.1:7"]);
    }
}
