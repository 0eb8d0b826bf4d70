//! The output of runs, pulled over the agents' own outgoing connections: nothing on an agent listens.
//!
//! For each of its sessions an agent long-polls `GET /v1/sessions/{id}/log-requests?wait=30s` and
//! answers each [`LogRequest`] with one or more [`LogChunk`]s by `POST /v1/sessions/{id}/log-chunks`,
//! always at the director that it got the request from. The director that a person asked hands out the requests and
//! passes on the chunks; it stores nothing.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What somebody wants to see of a partition's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogRequest {
    /// Names it among the requests of the director that was asked.
    pub id: u64,
    /// The service.
    pub service: String,
    /// The key.
    pub key: String,
    /// So many of the last lines; 4294967295 for all.
    pub lines: u32,
    /// Go on with what is written from then on, until a chunk is answered 404 or 410.
    #[serde(default)]
    pub follow: bool,
    /// The file before the current one.
    #[serde(default)]
    pub previous: bool,
    /// Only what was printed in the last so many milliseconds, from all files that have some of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// Answer to a poll for requests: all that wait, taken by this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogRequests {
    /// The requests.
    pub requests: Vec<LogRequest>,
}

/// A part of the answer to a [`LogRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogChunk {
    /// The request.
    pub id: u64,
    /// Whole lines, each with its line break; what is not UTF-8 is replaced.
    pub text: String,
    /// Nothing more will come.
    pub end: bool,
    /// Why nothing can be shown, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
