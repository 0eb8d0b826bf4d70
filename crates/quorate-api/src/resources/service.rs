//! Services and their partitions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::checkpoint::CheckpointSummary;

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// What is wanted of it.
    #[serde(default)]
    pub state: ServiceState,
    /// Whether somebody stopped it.
    pub stopped: bool,
    /// How many of its partitions are in which state.
    pub partitions: Counts,
    /// Where its partitions come from.
    pub source: SourceView,
    /// How long an agent may be silent, in milliseconds.
    pub lease_ms: u64,
    /// Ledger position at which its specification was last put.
    pub spec_version: u64,
    /// The specification in the shape of the file; only when one service is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub spec: Option<serde_json::Value>,
    /// How many of its partitions each agent has; only when one service is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<String, u64>,
}

/// What is wanted of a service.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It is to run.
    #[default]
    Active,
    /// Somebody stopped it.
    Stopped,
    /// It was removed, and is gone as soon as its last run has ended.
    Removing,
}

impl ServiceState {
    /// As it is written on the wire and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Stopped => "stopped",
            Self::Removing => "removing",
        }
    }
}

/// How many partitions are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// All of them.
    pub total: u64,
    /// Assumed, and their run is ready.
    pub running: u64,
    /// No agent has them.
    pub unassigned: u64,
    /// Given to an agent that has not acknowledged yet.
    pub assigned: u64,
    /// Held by an agent.
    pub assumed: u64,
    /// Being stopped.
    pub stopping: u64,
    /// Given up.
    pub failed: u64,
    /// Stopped on purpose, or done.
    pub stopped: u64,
}

/// Where partitions come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceView {
    /// `single`, `list`, `range` or `file`.
    pub kind: String,
    /// The path of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Why the last reading was refused; what ran goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Where a partition is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// No agent has it; `waiting` says why.
    Unassigned,
    /// An agent was chosen and has not acknowledged yet.
    Assigned,
    /// An agent holds it and runs it.
    Assumed,
    /// Its agent is stopping it.
    Stopping,
    /// Given up: it stays so until somebody starts it.
    Failed,
    /// Stopped on purpose, or done: it stays so until somebody starts it.
    Stopped,
}

impl PartitionState {
    /// As it is written on the wire and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unassigned => "unassigned",
            Self::Assigned => "assigned",
            Self::Assumed => "assumed",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// A partition.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PartitionView {
    /// Its service.
    pub service: String,
    /// Its key.
    pub key: String,
    /// Where it is in its life.
    pub state: PartitionState,
    /// Whether its run is up, as its agent last told; `false` when it is kept on an agent that is silent,
    /// because nobody knows.
    pub running: bool,
    /// Who has it.
    pub agent: Option<String>,
    /// The fencing token under which it is held.
    pub token: Option<u64>,
    /// Since when it is in this state, RFC 3339.
    pub since: Option<String>,
    /// How often it was started again in place under this token.
    pub restarts: u32,
    /// `starting`, `ready`, `backoff` or `stopping`, as its agent last told; `unknown` when it is kept on an
    /// agent that is silent.
    #[serde(default)]
    pub health: Option<String>,
    /// Why it does not run.
    pub waiting: Option<String>,
    /// The how-manieth start under this token.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// Process id of the command on its machine.
    #[serde(default)]
    pub pid: Option<u32>,
    /// How the last attempt ended.
    #[serde(default)]
    pub exit: Option<ExitView>,
    /// How heavy it is.
    pub weight: u32,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its configuration, any JSON value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Box<RawValue>>,
    /// That its owners have said how far they have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointSummary>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExitView {
    /// `clean`, `interrupted`, `crash`, `killed`, `stopped` or `not_started`.
    pub class: String,
    /// Exit code, when it exited.
    pub code: Option<u8>,
    /// Signal number, when a signal ended it.
    pub signal: Option<u8>,
    /// Why it could not be started or was ended, as its agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Why a partition is where it is, or why it is nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// Its service.
    pub service: String,
    /// Its key.
    pub key: String,
    /// Where it is in its life.
    pub state: PartitionState,
    /// Who has it.
    pub agent: Option<String>,
    /// The fencing token under which it is held.
    pub token: Option<u64>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// The reason in one sentence.
    pub reason: String,
    /// How its last run ended, unless it is up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitView>,
    /// Every agent that cannot have it, with the one rule that excludes it.
    pub excluded: Vec<ExcludedAgent>,
}

/// An agent that cannot have a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExcludedAgent {
    /// The agent.
    pub agent: String,
    /// The rule that excludes it.
    pub rule: String,
}
