//! Agents, directors, and how far everything has come up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    /// Its name.
    pub name: String,
    /// What may be asked of it.
    pub state: AgentState,
    /// How many partitions it has, those included that wait for a fence hook after it was silent.
    pub partitions: u64,
    /// How heavy they are together.
    #[serde(default)]
    pub weight: u64,
    /// Most weight it wants to hold; `null` means no limit.
    pub capacity: Option<u64>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `kernel`, `cgroup`, `scan` or `cooperative`.
    pub containment: String,
    /// How long until its first session would expire, as the leader knows; `null` elsewhere or when it
    /// has no session.
    pub lease_margin_ms: Option<u64>,
    /// Its open sessions.
    #[serde(default)]
    pub sessions: Vec<u64>,
    /// Version of its program.
    #[serde(default)]
    pub version: String,
}

/// What may be asked of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It takes new work.
    Active,
    /// It keeps what it has while that moves away.
    Draining,
    /// It keeps what it has and gets nothing new.
    Cordoned,
    /// It has missed renewals and may soon expire.
    Silent,
    /// It has no session.
    Gone,
}

impl AgentState {
    /// As it is written on the wire and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Cordoned => "cordoned",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }
}

/// `POST /v1/agents/{name}/evict`: what a person takes upon himself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvictRequest {
    /// Must be `true`: if the agent lives after all, its work runs twice until it hears of this or its
    /// lease ends. Only fencing tokens protect then.
    pub accept_duplicate_risk: bool,
    /// Why, in one line; it stays in the ledger and in the events.
    pub reason: String,
}

/// A director.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectorView {
    /// Its name.
    pub name: String,
    /// Where its API is reached.
    pub address: String,
    /// What it does.
    pub role: DirectorRole,
    /// The term that it knows.
    pub epoch: u64,
    /// How far it has folded the ledger; each knows that of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Version of its program, when it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What a director does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DirectorRole {
    /// It decides.
    Leader,
    /// It votes, and follows the leader.
    Follower,
    /// It follows without a vote.
    Learner,
    /// It does not answer.
    Unreachable,
}

impl DirectorRole {
    /// As it is written on the wire and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Unreachable => "unreachable",
        }
    }
}

/// How far everything that is wanted has come up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Ledger position that this shows.
    pub index: u64,
    /// All partitions that are to run.
    pub total: u64,
    /// Those that run.
    pub running: u64,
    /// Those that are given to an agent and are coming up.
    pub starting: u64,
    /// Those of `starting` whose last run has failed.
    #[serde(default)]
    pub failing: u64,
    /// Those that no agent has.
    pub waiting: u64,
    /// Those of `waiting` that time alone will not start: no agent meets what their service requires, or
    /// none has a place left. Counted by the leader; 0 elsewhere.
    #[serde(default)]
    pub unplaceable: u64,
    /// Those whose agent was silent for longer than its lease, and that wait for a fence hook to succeed.
    #[serde(default)]
    pub fencing: u64,
    /// Those that are kept on an agent that is silent (`isolation = "keep"`): they may run, and nobody
    /// knows. Counted by the leader; 0 elsewhere.
    #[serde(default)]
    pub unknown: u64,
    /// Those that are being stopped; not in `total`.
    pub stopping: u64,
    /// Those that were given up; not in `total`.
    pub failed: u64,
    /// Those that are stopped on purpose; not in `total`.
    pub stopped: u64,
    /// Services whose list was refused when it was last read; what ran of them goes on.
    #[serde(default)]
    pub refused: u64,
    /// Milliseconds until those run that start or wait for their turn and have not failed, at the present
    /// pace; `null` while that is not known.
    pub eta_ms: Option<u64>,
    /// The leader has looked at everything up to `index`, wants to change nothing and has nothing on its
    /// way: every partition runs and is ready, is stopped, has failed for good, or is `unplaceable`. A
    /// start, stop, restart or move that is under way or waits for its turn is not settled. Only the
    /// leader knows; it is false elsewhere, so ask with `leader=true`.
    pub settled: bool,
}

/// `PUT /v1/directors/{name}`: where a director is reached, as it tells itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectorAnnouncement {
    /// Its random identity.
    pub id: u64,
    /// Where its API is reached.
    pub address: String,
    /// Version of its program.
    pub version: String,
    /// Highest format of the ledger that it reads.
    pub format: u16,
    /// Lowest format of the ledger that it reads.
    #[serde(default = "first_format")]
    pub oldest_format: u16,
}

/// The format with which every ledger begins: what is meant by who knows no other.
const fn first_format() -> u16 {
    1
}

/// Formats of the ledger, from the lowest to the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FormatRange {
    /// The lowest.
    pub oldest: u16,
    /// The highest.
    pub newest: u16,
}

impl Default for FormatRange {
    fn default() -> Self {
        Self {
            oldest: first_format(),
            newest: first_format(),
        }
    }
}

/// `GET /v1/cluster`: the quorum of directors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// Ledger position that this shows.
    pub index: u64,
    /// Random identity of the cluster, in hexadecimal.
    pub cluster: String,
    /// The term.
    pub epoch: u64,
    /// How often the cluster was restored, or its history lost; the upper part of every token.
    #[serde(default)]
    pub era: u16,
    /// It was restored, and nothing is given away before every lease of before is over.
    #[serde(default)]
    pub recovering: bool,
    /// The format of the ledger: directors of a version that does not read it cannot take part.
    #[serde(default = "first_format")]
    pub format: u16,
    /// How many directors vote.
    pub voters: u32,
    /// How many of them may be lost, and the others go on.
    pub losses: u32,
    /// Where the ledger is, when it is in a store that the directors share. Nobody votes then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// Voters and learners; over a store every director that is known.
    pub members: Vec<MemberView>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A member of the quorum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// Its random identity in the quorum, in hexadecimal.
    pub id: String,
    /// What it does.
    pub role: DirectorRole,
    /// Where its API is reached, when it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Where the other directors reach it; empty over a store, where they need not.
    pub peer_address: String,
    /// Version of its program, when it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Formats of the ledger that it reads, when it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formats: Option<FormatRange>,
    /// How many records it lacks; only the leader knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// How long ago it last answered the leader, in milliseconds; only the leader knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
}

/// `POST /v1/cluster/members`: a director that waits to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddMember {
    /// Its name.
    pub name: String,
    /// Its random identity in the quorum, in hexadecimal.
    pub id: String,
    /// Where the other directors reach it, `host:port`.
    pub peer_address: String,
    /// Formats of the ledger that it reads; the first one alone when it says nothing.
    #[serde(default)]
    pub formats: FormatRange,
    /// Version of its program, for the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// `POST /v1/cluster/transfer-leader`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferLeader {
    /// Who is to lead; without it the voter that lacks least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}
