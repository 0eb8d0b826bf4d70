//! What a person asks for: services, how to run them, and their partitions.
//!
//! These are the shapes of the file (TOML or JSON). They hold values as written, with defaults
//! filled in; [`mod@validate`] says what is wrong between them. Everything here is display and intent:
//! nothing in it decides who may run.

pub mod backoff;
pub mod constraint;
pub mod expand;
pub mod rate;
pub mod records;
mod shrink;
pub mod signal;
pub mod suggest;
mod tables;
pub mod template;
pub mod validate;
pub mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::tables::tables;
use crate::ids::{HookName, PartitionKey, ServiceName};
use crate::lease::KEPT;
pub use backoff::BackoffRange;
pub use constraint::Constraint;
pub use rate::{Percent, Rate};
pub use shrink::Shrink;
pub use validate::{Problem, validate};
pub use values::{ByteSize, Span};

tables! {
    File, ServiceSpec, Limits, Logs, Stop, Restart, ExitPolicies, Ready, PartitionSource, Placement, Ramp
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct File {
    /// The services by name.
    #[serde(default, deserialize_with = "tables::unique")]
    pub service: BTreeMap<ServiceName, ServiceSpec>,
}

/// A command, how to run it, and what to run it for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Program and arguments; no shell. `{{key}}`, `{{data.x}}`, `{{token}}` and `{{agent}}` are replaced.
    pub command: Vec<String>,
    /// Folder to run in; absolute once it is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// User to run as; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment beside the run's own `QUORATE_*` and a clean `PATH`, `HOME`, `LANG`.
    #[serde(
        default,
        deserialize_with = "tables::unique",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub env: BTreeMap<String, String>,
    /// Resource limits of each run.
    #[serde(default)]
    pub limits: Limits,
    /// What is kept of a run's output.
    #[serde(default)]
    pub logs: Logs,
    /// How a run is asked to end.
    #[serde(default)]
    pub stop: Stop,
    /// What happens after a run has ended by itself.
    #[serde(default)]
    pub restart: Restart,
    /// When a run counts as started.
    #[serde(default)]
    pub ready: Ready,
    /// How long an agent may be silent.
    #[serde(default = "default_lease")]
    pub lease: Span,
    /// Extra wait between the expiry of a session and the next start.
    #[serde(default)]
    pub takeover_delay: Span,
    /// What happens to its runs while no director answers.
    #[serde(default)]
    pub isolation: Isolation,
    /// A hook in the directors' own file that must succeed before work of a silent agent moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<HookName>,
    /// What happens when the data of a partition changes.
    #[serde(default)]
    pub on_change: OnChange,
    /// Where its partitions come from; absent means one partition named like the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionSource>,
    /// Which agents may hold its partitions, and how many.
    #[serde(default)]
    pub placement: Placement,
    /// How many starts may be in flight.
    #[serde(default)]
    pub ramp: Ramp,
}

fn default_lease() -> Span {
    Span(Duration::from_secs(10))
}

impl ServiceSpec {
    /// The lease when none is written.
    #[must_use]
    pub fn default_lease() -> Span {
        default_lease()
    }

    /// The lease class that its partitions are held under: its lease, or [`KEPT`] when they are kept.
    #[must_use]
    pub fn lease_class(&self) -> Duration {
        match self.isolation {
            Isolation::Stop => self.lease.0,
            Isolation::Keep => KEPT,
        }
    }
}

/// What happens to runs while no director answers their agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// They end with the lease, and start elsewhere once that is certain.
    #[default]
    Stop,
    /// They go on. Nothing takes over by itself: a person evicts the agent, a fence hook succeeds, or the
    /// agent is proven dead.
    Keep,
}

/// Resource limits of each run, set with `setrlimit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Limits {
    /// Most open files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

/// What is kept of a run's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct Logs {
    /// A file is rotated when it has reached this size.
    pub max_size: ByteSize,
    /// Rotated files that are kept beside the current one.
    pub keep: u32,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            max_size: ByteSize(10 << 20),
            keep: 2,
        }
    }
}

/// How a run is asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct Stop {
    /// Name of the signal, with or without `SIG`.
    pub signal: String,
    /// After this the whole tree is killed.
    pub timeout: Span,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            signal: "TERM".to_owned(),
            timeout: Span(Duration::from_secs(10)),
        }
    }
}

/// What happens after a run has ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", from = "GivenRestart")]
pub struct Restart {
    /// Shortest and longest wait before the next attempt, written `1s..1m`; it doubles in between.
    pub backoff: String,
    /// Failed attempts in a row on one agent before the partition moves to another; 0 means never.
    /// Where nobody says: 5, or `give_up_after` if that comes first.
    pub move_after: u32,
    /// Failed attempts in a row over all agents before it is left `failed`; 0 means never.
    pub give_up_after: u32,
    /// A run that stayed up this long counts as a success and resets both counts.
    pub reset_after: Span,
    /// What each class of exit means (F9).
    pub on: ExitPolicies,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            backoff: "1s..1m".to_owned(),
            move_after: 5,
            give_up_after: 0,
            reset_after: Span(Duration::from_secs(60)),
            on: ExitPolicies::default(),
        }
    }
}

/// [`Restart`] as it is written: what is not said may depend on what is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GivenRestart {
    backoff: String,
    move_after: Option<u32>,
    give_up_after: u32,
    reset_after: Span,
    on: ExitPolicies,
}

impl Default for GivenRestart {
    fn default() -> Self {
        let usual = Restart::default();
        Self {
            backoff: usual.backoff,
            move_after: None,
            give_up_after: usual.give_up_after,
            reset_after: usual.reset_after,
            on: usual.on,
        }
    }
}

impl From<GivenRestart> for Restart {
    fn from(given: GivenRestart) -> Self {
        let usual = Self::default().move_after;
        let adapted = match given.give_up_after {
            0 => usual,
            most => usual.min(most),
        };
        Self {
            backoff: given.backoff,
            move_after: given.move_after.unwrap_or(adapted),
            give_up_after: given.give_up_after,
            reset_after: given.reset_after,
            on: given.on,
        }
    }
}

/// What each class of exit means (F9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct ExitPolicies {
    /// Exit code 0.
    pub clean: ExitPolicy,
    /// An exit code that `interrupted_codes` names: the connection ended, not the program.
    pub interrupted: ExitPolicy,
    /// Any other exit code, or a signal that tells of a fault (SEGV, ABRT, BUS, FPE, ILL, SYS).
    pub crash: ExitPolicy,
    /// Any other signal that quorate did not send: somebody or the kernel's OOM killer ended it.
    pub killed: ExitPolicy,
    /// The exit codes of class `interrupted`; by default 75, EX_TEMPFAIL of sysexits.h.
    pub interrupted_codes: Vec<u8>,
}

impl Default for ExitPolicies {
    fn default() -> Self {
        Self {
            clean: ExitPolicy::Restart,
            interrupted: ExitPolicy::Restart,
            crash: ExitPolicy::Restart,
            killed: ExitPolicy::Restart,
            interrupted_codes: vec![75],
        }
    }
}

/// What follows one class of exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitPolicy {
    /// Restart in place after the back-off; the limits of `restart` count.
    Restart,
    /// Move to another agent at once.
    Move,
    /// Leave it stopped until somebody starts it: its work is done.
    Stop,
    /// Leave it `failed` until somebody starts it.
    Fail,
}

/// When a run counts as started, which frees its place in the ramp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct Ready {
    /// Wait for `READY=1` on `$NOTIFY_SOCKET`; otherwise it counts after `after`.
    pub notify: bool,
    /// With `notify`, a run that has not said so by then is stopped and counts as failed.
    pub timeout: Span,
    /// Without `notify`, a run that has stayed up this long is ready.
    pub after: Span,
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            notify: false,
            timeout: Span(Duration::from_secs(30)),
            after: Span(Duration::from_secs(1)),
        }
    }
}

/// What happens when the data of a partition changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    /// Its run is stopped and started again in place.
    #[default]
    Restart,
    /// Its run gets SIGHUP and finds the new data in the file `$QUORATE_DATA_FILE`.
    Signal,
    /// Its run goes on; the next start sees the new data.
    Ignore,
}

/// Where partitions come from: exactly one of `list`, `range`, `file`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct PartitionSource {
    /// The keys themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<String>>,
    /// `0..16`: the numbers from the first up to, not including, the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// A `.jsonl`, `.json`, `.csv` or `.toml` file that the directors watch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Field of a record that holds its key; `key` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Field that holds its weight; every partition weighs 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// Fields that become labels of the partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Field that says who starts first while ramping up, higher first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Share of the partitions, written `20%`, that a new list may drop at most.
    #[serde(default = "default_shrink_guard")]
    pub shrink_guard: String,
    /// How often a file is read again even if nothing seems to have changed.
    #[serde(default = "default_every")]
    pub every: Span,
}

fn default_shrink_guard() -> String {
    "20%".to_owned()
}

fn default_every() -> Span {
    Span(Duration::from_secs(1))
}

/// Which agents may hold partitions of a service, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct Placement {
    /// How agents are chosen.
    pub strategy: Strategy,
    /// Most partitions of this service on one agent; 0 means no limit.
    pub max_per_agent: u32,
    /// Rules on agent labels that must hold: `zone in (a, b)`, `zone not in (a)`, `disk = ssd`, `disk != ssd`, `gpu`, `!gpu`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
    /// Labels of partitions; those with equal values go to different agents as far as possible.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<String>,
    /// When capacity lacks, services with a lower one wait.
    pub priority: i32,
}

/// How agents are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Evenly by weight, and by count where weights are equal, moving the least.
    #[default]
    Balanced,
    /// Like balanced for what has no agent, but nothing moves unless its agent is gone (P7).
    Static,
}

/// How many starts may be in flight. Absent means no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct Ramp {
    /// On one agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_agent: Option<u32>,
    /// In the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<u32>,
    /// Starts per time, written `20/s` or `100/m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// After an agent has joined, planned moves and the very first placement wait this long for others;
    /// after a change of what is wanted, moves for balance wait until nothing has changed for this long.
    pub settle: Option<Span>,
    /// With this many agents present nothing waits for `settle` after a join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_agents: Option<u32>,
}

/// One unit of work as its source describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionSpec {
    /// Its name.
    pub key: PartitionKey,
    /// Its configuration as compact JSON text; absent for lists and ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// How heavy it is, at least 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Who starts first, higher first.
    #[serde(default)]
    pub priority: i32,
}

fn one() -> u32 {
    1
}
