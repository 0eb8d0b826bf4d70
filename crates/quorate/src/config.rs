//! The configuration files of the daemons. Every key but the hooks of `director.fence` is also a flag and an
//! environment variable; the flag wins, then the variable, then the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use quorate_agent::Allow;
use quorate_core::ids::{AgentName, DirectorName, HookName};
use quorate_core::spec::Span;
use quorate_director::FenceHook;
use serde::Deserialize;

use crate::cli::LogFormat;
use crate::failure::{Code, Failure};
use crate::files::{Text, explain_in};

/// One file, for either role.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    pub(crate) director: DirectorSection,
    pub(crate) agent: AgentSection,
    pub(crate) log: LogSection,
}

/// What a director is told.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DirectorSection {
    pub(crate) name: Option<DirectorName>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) advertise: Option<String>,
    pub(crate) ledger: Option<String>,
    pub(crate) peer_listen: Option<SocketAddr>,
    pub(crate) peer_advertise: Option<String>,
    pub(crate) join: Vec<String>,
    pub(crate) learner: bool,
    pub(crate) priority: Option<u8>,
    pub(crate) hold_format: Option<u16>,
    pub(crate) source_root: Vec<PathBuf>,
    pub(crate) fence: BTreeMap<HookName, FenceSection>,
}

/// A fence hook.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FenceSection {
    pub(crate) command: Vec<String>,
    #[serde(default = "fence_timeout")]
    pub(crate) timeout: Span,
}

fn fence_timeout() -> Span {
    Span(Duration::from_secs(30))
}

impl FenceSection {
    /// The hook as the director runs it.
    ///
    /// # Errors
    /// When it names no program that could be found wherever the director was started.
    pub(crate) fn hook(self, name: &HookName) -> Result<FenceHook, Failure> {
        let program = self.command.first().map_or("", String::as_str);
        if !program.starts_with('/') {
            return Err(Failure::new(
                Code::Config,
                format!("director.fence.{name}: {program:?} is not the whole path of a program"),
                "write it as command = [\"/path/to/program\", \"{{agent}}\"]",
            ));
        }
        if self.timeout.0.is_zero() {
            return Err(Failure::new(
                Code::Config,
                format!("director.fence.{name}: no hook can end within 0s"),
                "write how long it may take, such as timeout = \"30s\"",
            ));
        }
        Ok(FenceHook {
            command: self.command,
            timeout: self.timeout.0,
        })
    }
}

/// What an agent is told.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AgentSection {
    pub(crate) name: Option<AgentName>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) join: Vec<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) label: BTreeMap<String, String>,
    pub(crate) capacity: Option<u64>,
    pub(crate) adopt_within: Option<Span>,
    pub(crate) allow: AllowSection,
}

/// What may be run on an agent's machine; what is absent is not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AllowSection {
    pub(crate) services: Option<Vec<String>>,
    pub(crate) commands: Option<Vec<PathBuf>>,
    pub(crate) users: Option<Vec<String>>,
    pub(crate) directories: Option<Vec<PathBuf>>,
    pub(crate) root: Option<bool>,
}

impl AllowSection {
    /// The same for the agent.
    ///
    /// # Errors
    /// When a path is no whole one, and so could mean anything.
    pub(crate) fn allow(self) -> Result<Allow, Failure> {
        for (key, paths) in [
            ("commands", &self.commands),
            ("directories", &self.directories),
        ] {
            let odd = |path: &&PathBuf| {
                let mut parts = path.components();
                !path.is_absolute() || parts.any(|part| part == Component::ParentDir)
            };
            if let Some(path) = paths.iter().flatten().find(odd) {
                return Err(Failure::new(
                    Code::Config,
                    format!(
                        "agent.allow.{key}: {:?} is not a whole path",
                        path.display()
                    ),
                    "write it from the root, without ..",
                ));
            }
        }
        Ok(Allow {
            services: self.services,
            commands: self.commands,
            users: self.users,
            directories: self.directories,
            root: self.root.unwrap_or(true),
        })
    }
}

/// What is logged.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogSection {
    pub(crate) level: Option<String>,
    pub(crate) format: Option<LogFormat>,
}

/// Reads a file; without one everything is absent.
///
/// # Errors
/// When it cannot be read or says something that cannot be.
pub(crate) fn read(path: Option<&Path>) -> Result<ConfigFile, Failure> {
    let Some(path) = path else {
        return Ok(ConfigFile::default());
    };
    let next = "every key but director.fence is also a flag: quorate director --help, quorate agent --help";
    let name = path.display().to_string();
    let content = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(
            Code::Config,
            format!("{name} cannot be read: {error}"),
            next,
        )
    })?;
    toml::from_str(&content).map_err(|error: toml::de::Error| {
        let found = error.span().and_then(|span| content.get(span));
        let (what, step) = explain_in(error.message().trim(), found.unwrap_or_default());
        let next = format!("{step}; {next}");
        let mut failure = Failure::new(Code::Config, format!("{name}: {what}"), next);
        let text = Text { name, content };
        failure.first.place = error.span().map(|span| text.place(span));
        failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_in_the_document_is_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
        let document = std::fs::read_to_string(path).unwrap();
        let mut files = document.split("```toml\n").skip(1).map(|rest| {
            let (text, _) = rest.split_once("```").unwrap();
            toml::from_str::<ConfigFile>(text).unwrap()
        });
        let agent = files.next().unwrap();
        assert_eq!(agent.agent.capacity, Some(200));
        assert_eq!(agent.log.level.as_deref(), Some("info"));
        let (name, hook) = files.next().unwrap().director.fence.pop_first().unwrap();
        let hook = hook.hook(&name).unwrap();
        assert_eq!(hook.timeout, Duration::from_secs(30));
        assert!(files.next().is_none());
    }

    #[test]
    fn paths_that_could_mean_anything_allow_nothing() {
        for (text, good) in [
            (
                "[agent.allow]\ncommands = ['/opt/feeds/', '/bin/true']",
                true,
            ),
            ("[agent.allow]\ncommands = ['feeds']", false),
            ("[agent.allow]\ndirectories = ['/opt/../etc']", false),
        ] {
            let file: ConfigFile = toml::from_str(text).unwrap();
            assert_eq!(file.agent.allow.allow().is_ok(), good, "{text}");
        }
        assert!(toml::from_str::<ConfigFile>("[agent.allow]\nuser = ['x']").is_err());
    }

    #[test]
    fn a_hook_that_could_not_be_run_is_refused_with_what_to_write() {
        for (text, expected) in [
            (
                "[director.fence.a]\ncommand = ['power-off']",
                "not the whole path",
            ),
            ("[director.fence.a]\ncommand = []", "not the whole path"),
            (
                "[director.fence.a]\ncommand = ['/bin/true']\ntimeout = '0s'",
                "within 0s",
            ),
        ] {
            let mut file: ConfigFile = toml::from_str(text).unwrap();
            let (name, hook) = file.director.fence.pop_first().unwrap();
            let refused = hook.hook(&name).unwrap_err();
            assert!(refused.first.sentence.contains(expected), "{text}");
        }
    }
}
