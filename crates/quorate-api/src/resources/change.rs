//! What is asked to change, what would change, and what has changed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/apply` and `POST /v1/plan`: services to put, all or nothing.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// JSON in the shape of the file: `{"service": {"feeds": {"command": […]}}}`. The paths in it are
    /// absolute and its `${NAME}` are already replaced: both belong to whoever applies.
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
    /// Folder of the file, absolute: what paths in it would be relative to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// Answer to `apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyAnswer {
    /// Ledger position from which on it is seen.
    pub index: u64,
    /// Names of the services that were put.
    #[serde(default)]
    pub services: Vec<String>,
    /// What became of each of them. One whose list comes from a file counts without that list.
    #[serde(default)]
    pub changes: Vec<AppliedService>,
    /// What to tell the person about it.
    pub notes: Vec<String>,
    /// Those of the services whose list, as it is now, the directors refuse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedList>,
}

/// A list of partitions that is not taken. What runs goes on as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedList {
    /// The service whose list it is.
    pub service: String,
    /// Why, and where known what to do.
    pub problem: String,
}

impl std::fmt::Display for RefusedList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, problem } = self;
        write!(
            f,
            "the list of service {service} is refused: {problem}; everything keeps running as it was"
        )
    }
}

/// What an apply made of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedService {
    /// Its name.
    pub service: String,
    /// What became of it.
    pub change: AppliedKind,
}

/// What an apply made of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AppliedKind {
    /// It is new, or comes back while what was removed under its name still stops.
    Created,
    /// It differs from what was in force.
    Changed,
    /// It was already so; nothing was written.
    Unchanged,
}

impl AppliedKind {
    /// As it is written on the wire and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Answer to every other write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Ledger position from which on it is seen.
    pub index: u64,
    /// What to tell the person about it.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether anything was changed: `false` when everything was so already, or there was nothing to do.
    #[serde(default = "changed")]
    pub changed: bool,
}

const fn changed() -> bool {
    true
}

/// What an apply would change. Lists are cut at 1000; the counts are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// What would happen to each service that was given.
    pub services: Vec<ServiceChange>,
    /// Partitions that would leave one agent for another.
    pub moves: Vec<PlannedMove>,
    /// Partitions that would start.
    pub starts: Vec<PlannedStart>,
    /// Partitions that would stop.
    pub stops: Vec<PlannedStop>,
    /// Partitions that would stop and start again where they are.
    #[serde(default)]
    pub restarts: Vec<PlannedStop>,
    /// Partitions that would not run, and why.
    pub waiting: Vec<PlannedWait>,
    /// How many moves there are.
    pub move_count: u64,
    /// How many starts there are.
    pub start_count: u64,
    /// How many stops there are.
    pub stop_count: u64,
    /// How many restarts there are.
    #[serde(default)]
    pub restart_count: u64,
    /// How many would wait.
    pub waiting_count: u64,
}

impl Plan {
    /// Whether applying would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let unchanged = |s: &ServiceChange| s.change == ServiceChangeKind::Unchanged;
        self.move_count + self.start_count + self.stop_count + self.restart_count == 0
            && self.services.iter().all(unchanged)
    }
}

/// What would happen to a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceChange {
    /// Its name.
    pub service: String,
    /// What would happen.
    pub change: ServiceChangeKind,
    /// Fields of the specification that differ, written `ramp.rate`.
    #[serde(default)]
    pub fields: Vec<String>,
    /// How many partitions would come.
    pub partitions_added: u64,
    /// How many partitions would go.
    pub partitions_removed: u64,
    /// How many partitions would get other data, weight or labels.
    pub partitions_changed: u64,
    /// Why its list would be refused; its partitions would then stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What would happen to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceChangeKind {
    /// It is new.
    Added,
    /// Its specification or partitions differ.
    Changed,
    /// It is already so.
    Unchanged,
}

/// A partition that would leave one agent for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedMove {
    /// Its service.
    pub service: String,
    /// Its key.
    pub key: String,
    /// Who has it.
    pub from: String,
    /// Who would have it.
    pub to: String,
    /// Why, for people.
    pub reason: String,
}

/// A partition that would start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedStart {
    /// Its service.
    pub service: String,
    /// Its key.
    pub key: String,
    /// Who would have it.
    pub agent: String,
}

/// A partition that would stop, for good or to start again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedStop {
    /// Its service.
    pub service: String,
    /// Its key.
    pub key: String,
    /// Who has it.
    pub agent: String,
    /// Why, for people.
    pub reason: String,
}

/// A partition that would not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedWait {
    /// Its service.
    pub service: String,
    /// Its key.
    pub key: String,
    /// Why, for people.
    pub reason: String,
}

/// Something that has happened. In a stream its `index` and position within that index are the
/// `id`, from which the stream can be resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Ledger position at which it was decided.
    pub index: u64,
    /// When, by the leader's clock, RFC 3339.
    pub at: String,
    /// What, written `partition.assumed`.
    pub kind: String,
    /// The service it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The partition it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The agent it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The token it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// One sentence for people.
    pub text: String,
}

/// One step in the life of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    /// Ledger position at which it was decided.
    pub index: u64,
    /// When, by the leader's clock, RFC 3339.
    pub at: String,
    /// What, written `assumed`.
    pub kind: String,
    /// Who had it.
    pub agent: Option<String>,
    /// With which token.
    pub token: Option<u64>,
    /// Why, one sentence for people.
    pub text: String,
}

/// The history of a partition, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryView {
    /// Its service.
    pub service: String,
    /// Its key.
    pub key: String,
    /// Nothing is known of it before this ledger position.
    pub known_since: u64,
    /// What happened.
    pub entries: Vec<HistoryEntry>,
}
