//! The protocol of a session: what a worker in any language says to the directors, and hears.
//!
//! `POST /v1/sessions` begins one; `resume`, `renew`, `report`, `close` and `GET …/work` belong to it
//! and carry its secret as `Authorization: Session <secret>`. Every call but `renew` is passed to the
//! leader and answered after its commit. All of them may be repeated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::checkpoint::{CheckpointView, Content};
use crate::problem::Problem;

/// `POST /v1/sessions`: a warden begins a session. Frees nothing of an older one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RegisterRequest {
    /// Name of the agent.
    pub agent: String,
    /// Random identity minted with the agent's data folder.
    pub agent_id: u64,
    /// Kernel boot identifier.
    pub boot_id: String,
    /// Which machine it is on. `uuid:` in front says that no other machine has the same, however it was
    /// copied: then a new boot of it proves that everything from before has ended.
    pub machine_id: String,
    /// Tells the folder that the identity is in from a copy of it on the same machine.
    #[serde(default)]
    pub folder: u64,
    /// Labels that services may require. `containment` is none of them: every agent has it, from the field
    /// of that name.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Most weight it wants to hold; absent means no limit.
    #[serde(default)]
    pub capacity: Option<u64>,
    /// `kernel`, `cgroup`, `scan` or `cooperative`.
    pub containment: String,
    /// Lease class in milliseconds.
    pub lease_ms: u64,
    /// 256 random bits in hexadecimal, chosen by the agent. The same secret again is a repeat of the
    /// same call and gets the same session.
    pub secret: String,
    /// Random number of the agent process, the same in all its calls: one process has one incarnation
    /// in all its sessions, and a new process fences the one before it.
    pub process: u64,
    /// Version of its program.
    pub version: String,
}

/// Answer to `register` and `resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionOpened {
    /// The session.
    pub session: u64,
    /// This agent process; a higher one fences it.
    pub incarnation: u64,
    /// Random identity of the cluster: tokens are compared only within one.
    #[serde(default)]
    pub cluster: u64,
    /// L: how long after sending its last successful renewal it may execute.
    pub lease_ms: u64,
    /// H: time between renewals.
    pub renew_every_ms: u64,
    /// G: the graceful stop begins this long before the deadline.
    pub grace_ms: u64,
    /// K: nothing executes later than this after the deadline.
    pub kill_ms: u64,
}

/// `POST /v1/sessions/{id}/resume`: a new agent process speaks for a living warden.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ResumeRequest {
    /// Random number of the agent process: a repeat of the same call gets the same incarnation.
    pub process: u64,
}

/// `POST /v1/sessions/{id}/renew`: renews this session and others of the same agent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RenewRequest {
    /// The agent process that asks.
    pub incarnation: u64,
    /// Higher in every attempt of that process.
    pub counter: u64,
    /// Random: the same counter with another nonce means two copies of one agent.
    pub nonce: u64,
    /// The agent's CLOCK_BOOTTIME in milliseconds when it sent this, for the drift monitor.
    pub sent_ms: u64,
    /// Further sessions of this agent.
    #[serde(default)]
    pub also: Vec<SessionProof>,
}

/// A session and its secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionProof {
    /// The session.
    pub session: u64,
    /// Its secret.
    pub secret: String,
}

/// Answer to `renew`, each session for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RenewResponse {
    /// The counter of the request.
    pub counter: u64,
    /// Sessions whose deadline may move to the moment of sending plus the lease.
    pub renewed: Vec<u64>,
    /// Sessions that have ended for ever: their runs must die.
    pub lost: Vec<LostSession>,
}

/// `POST /v1/sessions/renewals`: renewals that came to a director that does not lead.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PassedRenewals {
    /// Each as it came.
    pub renewals: Vec<PassedRenewal>,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PassedRenewal {
    /// The session of its path.
    pub session: u64,
    /// The secret of that session.
    pub secret: String,
    /// Its body.
    pub request: RenewRequest,
}

/// Answer to them, in the same order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PassedAnswers {
    /// One for each.
    pub answers: Vec<PassedAnswer>,
}

/// Answer to one of them: one or the other.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PassedAnswer {
    /// What the agent is to hear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<RenewResponse>,
    /// Why it hears nothing of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Box<Problem>>,
}

/// A session that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LostSession {
    /// The session.
    pub session: u64,
    /// Why, for people.
    pub reason: String,
}

/// `GET /v1/sessions/{id}/work?index=N&wait=60s`: what this session is to hold, as changes since N.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkResponse {
    /// Pass this as `index` next time.
    pub index: u64,
    /// `items` is everything the session holds: forget what is not in it. Otherwise only changes.
    pub whole: bool,
    /// Assigned, assumed and revoked partitions.
    pub items: Vec<WorkItem>,
    /// Tokens that were taken back before they were assumed, or are released.
    pub gone: Vec<u64>,
    /// How to run the services that `items` name, by `service` and `spec_version`.
    pub services: Vec<WorkService>,
    /// Lease classes in milliseconds that services of the cluster ask for: an agent opens a session
    /// for each that it has none of.
    #[serde(default)]
    pub leases_ms: Vec<u64>,
    /// Where the directors are reached, all that are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directors: Vec<String>,
}

/// One partition in the hands of a session.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkItem {
    /// Slot of the partition; names it together with the token.
    pub partition: u32,
    /// Fencing token of this assignment.
    pub token: u64,
    /// What the session is to do with it.
    pub state: WorkState,
    /// Its service.
    pub service: String,
    /// Its key.
    pub key: String,
    /// Its data, any JSON value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Box<RawValue>>,
    /// Changes with the data.
    pub data_version: u64,
    /// Which entry of `services` says how to run it.
    pub spec_version: u64,
    /// Rises with every restart that somebody asks for.
    pub restarts_asked: u32,
    /// Failed attempts in a row before this token, on other agents.
    pub failures: u32,
    /// How far its owners have come. What the session itself has said of it since is not told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointView>,
}

/// What a session is to do with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkState {
    /// Assume it, and start only after the answer.
    Assigned,
    /// It is yours: run it.
    Assumed,
    /// Stop it, prove the process tree dead, release it.
    Stopping,
}

/// How to run a service.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkService {
    /// Its name.
    pub service: String,
    /// Changes with the specification.
    pub spec_version: u64,
    /// The specification, in the shape of the file.
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
}

/// `POST /v1/sessions/{id}/report`: what has happened on the agent, many things at once.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ReportRequest {
    /// The agent process that reports.
    pub incarnation: u64,
    /// Counts the reports of that process from 1; a repeat has the same number and the same content.
    pub sequence: u64,
    /// Assigned partitions that it acknowledges.
    #[serde(default)]
    pub assume: Vec<Claim>,
    /// Partitions whose process tree is proven dead.
    #[serde(default)]
    pub release: Vec<Release>,
    /// What became of runs that it goes on holding.
    #[serde(default)]
    pub observed: Vec<Observation>,
}

/// A partition under a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claim {
    /// The slot.
    pub partition: u32,
    /// The token.
    pub token: u64,
}

/// A partition that is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// The slot.
    pub partition: u32,
    /// The token.
    pub token: u64,
    /// `stopped`, `move`, `done` or `failed`.
    pub outcome: String,
    /// How the last attempt ended, if there was one.
    #[serde(default)]
    pub exit: Option<ExitReport>,
    /// Failed attempts in a row at its end, `failures` of the work item included.
    #[serde(default)]
    pub failures: u32,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Observation {
    /// The slot.
    pub partition: u32,
    /// The token.
    pub token: u64,
    /// `starting`, `ready`, `backoff` or `stopping`.
    pub phase: String,
    /// The how-manieth start under this token, from 1.
    pub attempt: u32,
    /// Process id of the command, while there is one.
    #[serde(default)]
    pub pid: Option<u32>,
    /// How the last attempt ended.
    #[serde(default)]
    pub exit: Option<ExitReport>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExitReport {
    /// `clean`, `interrupted`, `crash`, `killed`, `stopped` or `not_started`.
    pub class: String,
    /// Exit code, when it exited.
    #[serde(default)]
    pub code: Option<u8>,
    /// Signal number, when a signal ended it.
    #[serde(default)]
    pub signal: Option<u8>,
    /// Why it could not be started, or was ended, in a line; longer ones are cut at 300 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Answer to `report`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportResponse {
    /// The sequence of the request.
    pub sequence: u64,
    /// Tokens that are assumed now and may start.
    pub assumed: Vec<u64>,
    /// Tokens that are no longer this session's, with the reason. Not to be started; what runs under
    /// one must be stopped.
    pub refused: Vec<Refusal>,
}

/// A claim that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// The token.
    pub token: u64,
    /// Why, for people.
    pub reason: String,
}

/// `POST /v1/sessions/{id}/checkpoints`: how far runs have come, many at once. A repeat changes nothing,
/// and what is written under a token that has ended is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointsRequest {
    /// The agent process that speaks.
    pub incarnation: u64,
    /// At most one for each token.
    pub checkpoints: Vec<WrittenCheckpoint>,
}

/// How far one run has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WrittenCheckpoint {
    /// The slot.
    pub partition: u32,
    /// The token.
    pub token: u64,
    /// Above that of every earlier one under this token, from whichever process of the agent; a repeat
    /// has the same number and the same content.
    pub number: u64,
    /// At most 16 KiB.
    pub content: Content,
}

/// Answer to `checkpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointsResponse {
    /// Tokens whose checkpoint is kept, or a later one in its place.
    pub kept: Vec<u64>,
    /// Tokens that may not write, with the reason.
    pub refused: Vec<Refusal>,
}

/// `POST /v1/sessions/{id}/close`: everything of the session is proven dead.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CloseRequest {
    /// The agent process that asks, when the reason is `left`: a later process may have taken the session
    /// over since, and what it runs has not ended. A death is a death, whoever tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// `left`, `agent_died` or `warden_died`.
    pub reason: String,
}
