//! What each command takes. The names are those of the documents.

mod daemons;
mod founding;
mod quorum;
mod recovery;
mod tokens;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use quorate_core::ids::{AgentName, PartitionKey, ServiceName};
use quorate_core::spec::Span;

use crate::output::Format;

pub(crate) use daemons::{AgentArgs, DirectorArgs};
pub(crate) use founding::{InitArgs, JoinArgs, PlaceArgs};
pub(crate) use quorum::{ClusterArgs, ClusterCommand, MemberArgs, TransferArgs};
pub(crate) use recovery::{
    AdoptArgs, BackupArgs, CopyArgs, DrillArgs, LedgerArgs, LedgerCommand, RestoreArgs,
};
pub(crate) use tokens::{
    JoinTokenArgs, JoinTokenCommand, NodeRole, TokenArgs, TokenCommand, TokenRole,
};

/// Runs each long-lived job on exactly one machine of a cluster, whatever fails.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    about = "Runs each long-lived job on exactly one machine of a cluster, whatever fails",
    after_help = "Begin with:  quorate up FILE.toml\nErrors and exit codes:  quorate explain CODE\nKeys of a service file:  quorate explain KEY",
    propagate_version = false,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Root {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where the directors are, comma-separated [default: 127.0.0.1:7400]
    #[arg(
        long,
        global = true,
        env = "QUORATE_ADDRESS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "ADDR"
    )]
    pub(crate) address: Vec<String>,
    /// API token; better in the environment or in a file, where no other user sees it
    #[arg(
        long,
        global = true,
        env = "QUORATE_API_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// A file that holds the API token; --token and QUORATE_API_TOKEN come before it
    #[arg(
        long,
        global = true,
        env = "QUORATE_API_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// File with the certificates of the cluster's authority; addresses without a scheme then mean https
    #[arg(long, global = true, env = "QUORATE_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How results are written; tables only on a terminal
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// What is logged to standard error: error, warn, info, debug, trace, or TARGET=LEVEL,...
    #[arg(
        long,
        global = true,
        env = "QUORATE_LOG__LEVEL",
        value_name = "LEVEL",
        help_heading = "Logging"
    )]
    pub(crate) log_level: Option<String>,
    /// How it is logged
    #[arg(
        long,
        global = true,
        env = "QUORATE_LOG__FORMAT",
        value_enum,
        value_name = "FORMAT",
        help_heading = "Logging"
    )]
    pub(crate) log_format: Option<LogFormat>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything on this machine: one director and N agents
    Up(UpArgs),
    /// Make the folder of the first director of a cluster, with its certificate authority and first token
    Init(InitArgs),
    /// Make the folder of a further director or an agent, with its certificate
    Join(JoinArgs),
    /// Run a director, a member of the quorum that decides
    Director(DirectorArgs),
    /// Run an agent, which runs the jobs on this machine
    Agent(AgentArgs),
    #[command(flatten)]
    Ask(Ask),
    /// Move the ledger of a cluster
    Ledger(LedgerArgs),
    /// Check whether this machine is fit for a director or an agent
    Doctor(DoctorArgs),
    /// Check files without asking a cluster
    Validate(FilesArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Write manual pages into a folder
    Man(ManArgs),
    /// Show the version
    Version,
    /// Say what an error code, an exit code or a key of a service file means
    Explain(ExplainArgs),
}

/// The commands that ask the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Ask {
    /// Put the services of files in force
    Apply(ApplyArgs),
    /// Show what an apply would change
    Plan(PlanArgs),
    /// Remove services with all their partitions, whose runs are stopped; forget agents that are gone
    Rm(RmArgs),
    /// Show how everything is, or one service or partition
    Status(StatusArgs),
    /// List services, partitions, agents or directors
    Ls(LsArgs),
    /// Say why a partition is where it is, or nowhere
    Why(PartitionArgs),
    /// Show who held a partition, when, with which token, and why it moved
    History(PartitionArgs),
    /// Show what runs have printed
    Logs(LogsArgs),
    /// Show what has happened
    Events(EventsArgs),
    /// Start what was stopped, or has failed
    Start(TargetArgs),
    /// Stop a service or a partition until it is started again
    Stop(TargetArgs),
    /// Stop runs and start them again where they are
    Restart(RestartArgs),
    /// Move everything off an agent and give it nothing new
    Drain(DrainArgs),
    /// Give an agent nothing new; what it has stays
    Cordon(AgentNameArgs),
    /// Give an agent work again after drain or cordon
    Uncordon(AgentNameArgs),
    /// Take everything from a silent agent without proof that it is dead
    Evict(EvictArgs),
    /// Show the quorum of directors, or change it
    Cluster(ClusterArgs),
    /// Wait until all that can run runs and nothing moves
    Wait(WaitArgs),
    /// Create, list and take back API tokens: who may ask, and what
    #[command(subcommand)]
    Token(TokenCommand),
    /// Create, list and take back join tokens, which let machines into the cluster
    #[command(subcommand)]
    JoinToken(JoinTokenCommand),
    /// Show who has changed what
    Audit,
    /// Ask the API as it is
    Api(ApiArgs),
}

impl Ask {
    /// Whether it goes on until somebody ends it.
    pub(crate) const fn goes_on(&self) -> bool {
        match self {
            Self::Ls(args) => args.watch,
            Self::Logs(args) => args.follow,
            Self::Events(args) => args.follow,
            Self::Apply(_)
            | Self::Plan(_)
            | Self::Rm(_)
            | Self::Status(_)
            | Self::Why(_)
            | Self::History(_)
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Drain(_)
            | Self::Cordon(_)
            | Self::Uncordon(_)
            | Self::Evict(_)
            | Self::Cluster(_)
            | Self::Wait(_)
            | Self::Token(_)
            | Self::JoinToken(_)
            | Self::Audit
            | Self::Api(_) => false,
        }
    }

    /// Whether it shows something once and decides nothing by it.
    pub(crate) const fn only_looks(&self) -> bool {
        match self {
            Self::Status(_) | Self::Why(_) => true,
            Self::Ls(args) => !args.watch,
            Self::Cluster(args) => matches!(args.command, ClusterCommand::Status),
            Self::Apply(_)
            | Self::Plan(_)
            | Self::Rm(_)
            | Self::History(_)
            | Self::Logs(_)
            | Self::Events(_)
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Drain(_)
            | Self::Cordon(_)
            | Self::Uncordon(_)
            | Self::Evict(_)
            | Self::Wait(_)
            | Self::Token(_)
            | Self::JoinToken(_)
            | Self::Audit
            | Self::Api(_) => false,
        }
    }
}

/// A service, or one of its partitions: NAME or NAME/KEY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) service: ServiceName,
    pub(crate) key: Option<PartitionKey>,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("service/").unwrap_or(text);
        let (service, key) = match text.split_once('/') {
            None => (text, None),
            Some((service, key)) => (service, Some(key)),
        };
        let service = ServiceName::new(service).map_err(|error| error.to_string())?;
        let key = key
            .map(PartitionKey::new)
            .transpose()
            .map_err(|error| error.to_string())?;
        Ok(Self { service, key })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.key {
            None => self.service.fmt(f),
            Some(key) => write!(f, "{}/{key}", self.service),
        }
    }
}

/// Reads an agent as `ls agents -o name` writes it, or its bare name.
fn agent(text: &str) -> Result<AgentName, String> {
    let name = text.strip_prefix("agent/").unwrap_or(text);
    AgentName::new(name).map_err(|error| error.to_string())
}

/// One partition: NAME/KEY.
#[derive(Clone, Debug)]
pub(crate) struct OnePartition {
    pub(crate) service: ServiceName,
    pub(crate) key: PartitionKey,
}

impl std::str::FromStr for OnePartition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let target: Target = text.parse()?;
        let service = target.service;
        match target.key {
            Some(key) => Ok(Self { service, key }),
            None => Err(format!(
                "a partition is named SERVICE/KEY, such as {service}/KEY; `quorate ls partitions` lists them"
            )),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct FilesArgs {
    /// Job files, TOML or JSON; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    /// How many agents to run, as if each were a machine
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256), value_name = "N")]
    pub(crate) agents: u32,
    /// Where everything is kept, so that the next `up` goes on from there
    #[arg(
        long,
        env = "QUORATE_UP__DATA_DIR",
        default_value = "quorate-data",
        value_name = "DIR"
    )]
    pub(crate) data_dir: PathBuf,
    /// Where the API listens
    #[arg(
        long,
        env = "QUORATE_UP__LISTEN",
        default_value = "127.0.0.1:7400",
        value_name = "ADDR"
    )]
    pub(crate) listen: std::net::SocketAddr,
    /// A further folder in which `partitions.file` may be, beside those of the files; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(crate) source_root: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The data folder of a director or an agent, in use or to be; its disk is tried
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where a director is to listen, or does [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// The store of the ledger, in use or to be; in PostgreSQL its tables are made
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__LEDGER",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) ledger: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// A service or one of its partitions
    #[arg(value_name = "NAME[/KEY]")]
    pub(crate) target: Target,
    /// Go on with what is printed from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what was printed in the last so long, such as 10m, by the agent that has it now
    #[arg(long, value_name = "TIME", conflicts_with = "previous")]
    pub(crate) since: Option<Span>,
    /// So many of the last lines [default: 100; with --since all]
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u32).range(0..=10_000), value_name = "N")]
    pub(crate) lines: Option<u32>,
    /// Show the file before the current one
    #[arg(long)]
    pub(crate) previous: bool,
}

/// Reads `k=v`.
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        Some(_) | None => Err("a label is written NAME=VALUE, such as zone=eu-1a".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    /// Wait until everything of these files runs, at most this long [default: 5m]
    #[arg(long, num_args = 0..=1, default_missing_value = "5m", value_name = "TIME")]
    pub(crate) wait: Option<Span>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    /// Exit with 10 when there are changes
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// A service, NAME or service/NAME, or an agent that is gone, agent/NAME
    #[arg(required = true, value_name = "NAME", value_parser = removable)]
    pub(crate) targets: Vec<Removable>,
}

/// What `rm` takes.
#[derive(Clone, Debug)]
pub(crate) enum Removable {
    Service(ServiceName),
    Agent(AgentName),
}

/// Reads what is to go. `service/q` is the service q, never a partition.
fn removable(text: &str) -> Result<Removable, String> {
    if let Some(agent) = text.strip_prefix("agent/") {
        let agent = AgentName::new(agent).map_err(|error| error.to_string())?;
        return Ok(Removable::Agent(agent));
    }
    let name = text.strip_prefix("service/").unwrap_or(text);
    if let Some((service, _)) = name.split_once('/') {
        return Err(format!(
            "{text:?} is a partition, and those go by taking them out of the list of their service; \
             `quorate stop {text}` only stops it, `quorate rm {service}` removes the whole service"
        ));
    }
    let service = ServiceName::new(name).map_err(|error| error.to_string())?;
    Ok(Removable::Service(service))
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// A service or one of its partitions; everything when absent
    #[arg(value_name = "NAME[/KEY]")]
    pub(crate) target: Option<Target>,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The services
    #[value(alias = "service", alias = "svc")]
    Services,
    /// The partitions of all services
    #[value(alias = "partition", alias = "part")]
    Partitions,
    /// The agents
    #[value(alias = "agent")]
    Agents,
    /// The directors
    #[value(alias = "director")]
    Directors,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// What to list
    #[arg(value_enum)]
    pub(crate) kind: Kind,
    /// Only with this label; may be given several times
    #[arg(short = 'l', long = "label", value_name = "K=V", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Only what should run and does not, or is otherwise not as it should be
    #[arg(long)]
    pub(crate) problems: bool,
    /// Only partitions of this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<ServiceName>,
    /// Only partitions on this agent
    #[arg(long, value_name = "NAME", value_parser = agent)]
    pub(crate) agent: Option<AgentName>,
    /// List again at every change
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PartitionArgs {
    /// The partition
    #[arg(value_name = "NAME/KEY")]
    pub(crate) partition: OnePartition,
}

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// A service or one of its partitions
    #[arg(value_name = "NAME[/KEY]")]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only those of a service or partition
    #[arg(value_name = "NAME[/KEY]")]
    pub(crate) target: Option<Target>,
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only those of this agent
    #[arg(long, value_name = "NAME", value_parser = agent)]
    pub(crate) agent: Option<AgentName>,
    /// Only those of the last so long, such as 10m, or after this ledger position, such as 812
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Since>,
}

/// Where events are to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Span),
    /// After this ledger position, or after the event with this id (`812.3`).
    After(String),
}

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let (position, sequence) = text.split_once('.').unwrap_or((text, "0"));
        if number(position) && number(sequence) {
            return Ok(Self::After(text.to_owned()));
        }
        let ago = text.parse().map_err(|_| {
            format!("{text:?} is no span of time and no ledger position; write such as 10m, or 812")
        });
        ago.map(Self::Ago)
    }
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// A service or one of its partitions
    #[arg(value_name = "NAME[/KEY]")]
    pub(crate) target: Target,
    /// A few at a time, each time waiting until they run again
    #[arg(long)]
    pub(crate) rolling: bool,
    /// How many at a time
    #[arg(long, default_value_t = 1, requires = "rolling", value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub(crate) max: u32,
    /// How long each of them may take to run again
    #[arg(long, default_value = "5m", requires = "rolling", value_name = "TIME")]
    pub(crate) timeout: Span,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The agent
    #[arg(value_name = "AGENT", value_parser = agent)]
    pub(crate) agent: AgentName,
    /// Wait until it holds nothing, at most this long [default: 5m]
    #[arg(long, num_args = 0..=1, default_missing_value = "5m", value_name = "TIME")]
    pub(crate) wait: Option<Span>,
}

#[derive(Debug, Args)]
pub(crate) struct AgentNameArgs {
    /// The agent
    #[arg(value_name = "AGENT", value_parser = agent)]
    pub(crate) agent: AgentName,
}

#[derive(Debug, Args)]
pub(crate) struct EvictArgs {
    /// The agent
    #[arg(value_name = "AGENT", value_parser = agent)]
    pub(crate) agent: AgentName,
    /// Say that its work may run twice if it lives after all
    #[arg(long, required = true)]
    pub(crate) accept_duplicate_risk: bool,
    /// Why; it stays in the ledger and in the events
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Until all that can run runs, and nothing moves or stops
    #[arg(long, required = true)]
    pub(crate) settled: bool,
    /// Only for this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<ServiceName>,
    /// How long at most
    #[arg(long, default_value = "5m", value_name = "TIME")]
    pub(crate) timeout: Span,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where the pages go; made if it does not exist
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// An error code, an exit code, a key of a service file, service-file, or schema; all codes when absent
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<String>,
}

/// What may be asked of the API as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Read
    #[value(name = "GET", alias = "get")]
    Get,
}

#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// The method
    #[arg(value_enum)]
    pub(crate) method: Method,
    /// The path, such as /v1/agents
    #[arg(value_name = "PATH", value_parser = api_path)]
    pub(crate) path: String,
}

fn api_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(format!("a path begins with a slash: /{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Root::command().debug_assert();
    }

    #[test]
    fn targets_are_read_as_people_write_them() {
        let target: Target = "feeds/eu 1".parse().unwrap();
        assert_eq!(target.to_string(), "feeds/eu 1");
        assert_eq!(
            "service/feeds".parse::<Target>().unwrap().to_string(),
            "feeds"
        );
        for bad in ["", "/", "feeds/", "feeds/a/b", "-x", "a b", "feeds/.."] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
        assert_eq!("812.3".parse(), Ok(Since::After("812.3".to_owned())));
        let ago = Span(std::time::Duration::from_secs(600));
        assert_eq!("10m".parse(), Ok(Since::Ago(ago)));
        for bad in ["", ".", "812.", "1.5m", "yesterday"] {
            assert!(bad.parse::<Since>().is_err(), "{bad:?}");
        }
        assert!(
            "feeds"
                .parse::<OnePartition>()
                .unwrap_err()
                .contains("feeds/KEY")
        );
    }
}
