//! Paths of the API, once for the director that serves them and once for clients that fill them in.
//!
//! The constants have the form that the OpenAPI document uses; the functions percent-encode each part,
//! since keys may hold spaces and any letters.

use std::fmt::Write as _;

/// All services; put several with [`APPLY`].
pub const SERVICES: &str = "/v1/services";
/// One service.
pub const SERVICE: &str = "/v1/services/{name}";
/// Partitions of one service.
pub const SERVICE_PARTITIONS: &str = "/v1/services/{name}/partitions";
/// Stops and starts every run of a service where it is.
pub const SERVICE_RESTART: &str = "/v1/services/{name}/restart";
/// Wants a service stopped.
pub const SERVICE_STOP: &str = "/v1/services/{name}/stop";
/// Wants a service to run.
pub const SERVICE_START: &str = "/v1/services/{name}/start";
/// Partitions of all services.
pub const PARTITIONS: &str = "/v1/partitions";
/// One partition.
pub const PARTITION: &str = "/v1/services/{name}/partitions/{key}";
/// Why a partition is where it is, or nowhere.
pub const PARTITION_WHY: &str = "/v1/services/{name}/partitions/{key}/why";
/// Who held it.
pub const PARTITION_HISTORY: &str = "/v1/services/{name}/partitions/{key}/history";
/// What it printed.
pub const PARTITION_LOGS: &str = "/v1/services/{name}/partitions/{key}/logs";
/// How far its owners have come.
pub const PARTITION_CHECKPOINT: &str = "/v1/services/{name}/partitions/{key}/checkpoint";
/// Stops and starts one run where it is.
pub const PARTITION_RESTART: &str = "/v1/services/{name}/partitions/{key}/restart";
/// Wants one partition stopped.
pub const PARTITION_STOP: &str = "/v1/services/{name}/partitions/{key}/stop";
/// Wants one partition to run.
pub const PARTITION_START: &str = "/v1/services/{name}/partitions/{key}/start";
/// Puts many services, all or nothing.
pub const APPLY: &str = "/v1/apply";
/// What an apply would change.
pub const PLAN: &str = "/v1/plan";
/// All agents.
pub const AGENTS: &str = "/v1/agents";
/// One agent.
pub const AGENT: &str = "/v1/agents/{name}";
/// Moves everything off an agent.
pub const AGENT_DRAIN: &str = "/v1/agents/{name}/drain";
/// Gives an agent nothing new.
pub const AGENT_CORDON: &str = "/v1/agents/{name}/cordon";
/// Gives an agent work again.
pub const AGENT_UNCORDON: &str = "/v1/agents/{name}/uncordon";
/// Takes everything from a silent agent without proof that it is dead.
pub const AGENT_EVICT: &str = "/v1/agents/{name}/evict";
/// The directors.
pub const DIRECTORS: &str = "/v1/directors";
/// One director, as it tells of itself.
pub const DIRECTOR: &str = "/v1/directors/{name}";
/// The quorum of directors.
pub const CLUSTER: &str = "/v1/cluster";
/// Its members.
pub const CLUSTER_MEMBERS: &str = "/v1/cluster/members";
/// One of them.
pub const CLUSTER_MEMBER: &str = "/v1/cluster/members/{name}";
/// Gives a member a vote.
pub const CLUSTER_PROMOTE: &str = "/v1/cluster/members/{name}/promote";
/// The whole state as a file.
pub const CLUSTER_BACKUP: &str = "/v1/cluster/backup";
/// Hands leadership over.
pub const CLUSTER_TRANSFER: &str = "/v1/cluster/transfer-leader";
/// The certificate authority, for directors.
pub const CLUSTER_AUTHORITY: &str = "/v1/cluster/authority";
/// What happens, as it happens.
pub const EVENTS: &str = "/v1/events";
/// How far everything has come up.
pub const PROGRESS: &str = "/v1/progress";
/// Begins a session.
pub const SESSIONS: &str = "/v1/sessions";
/// What people want to see of the output of a session's runs.
pub const SESSION_LOG_REQUESTS: &str = "/v1/sessions/{id}/log-requests";
/// Answers to those requests.
pub const SESSION_LOG_CHUNKS: &str = "/v1/sessions/{id}/log-chunks";
/// A new agent process speaks for a living warden.
pub const SESSION_RESUME: &str = "/v1/sessions/{id}/resume";
/// Renews leases.
pub const SESSION_RENEW: &str = "/v1/sessions/{id}/renew";
/// Renewals that one director passes on to another, many at once.
pub const SESSION_RENEWALS: &str = "/v1/sessions/renewals";
/// Reports what happened.
pub const SESSION_REPORT: &str = "/v1/sessions/{id}/report";
/// Keeps how far runs of a session have come.
pub const SESSION_CHECKPOINTS: &str = "/v1/sessions/{id}/checkpoints";
/// Ends a session with proof of death.
pub const SESSION_CLOSE: &str = "/v1/sessions/{id}/close";
/// What the session is to hold.
pub const SESSION_WORK: &str = "/v1/sessions/{id}/work";
/// API tokens.
pub const TOKENS: &str = "/v1/tokens";
/// One API token.
pub const TOKEN: &str = "/v1/tokens/{id}";
/// Join tokens.
pub const JOIN_TOKENS: &str = "/v1/join-tokens";
/// One join token.
pub const JOIN_TOKEN: &str = "/v1/join-tokens/{id}";
/// Who has changed what.
pub const AUDIT: &str = "/v1/audit";
/// A machine asks to be let in.
pub const ENROL: &str = "/v1/enrol";
/// Renewing the certificate of a machine.
pub const CERTIFICATES: &str = "/v1/certificates";
/// The description of all this.
pub const OPENAPI: &str = "/openapi.json";
/// The process is alive.
pub const LIVEZ: &str = "/livez";
/// This director can answer.
pub const READYZ: &str = "/readyz";
/// Gauges and counters as text.
pub const METRICS: &str = "/metrics";

/// Header that says of which era the answering director is: it rises when a cluster is restored, and who has
/// seen a higher one believes no lower one.
pub const ERA_HEADER: &str = "quorate-era";
/// Header of every read: the ledger position that the answer shows. Pass it as `index` to wait for more.
pub const INDEX_HEADER: &str = "quorate-index";
/// Header of a request that a director has passed on, with that director's name. It is passed on once only.
pub const RELAYED_HEADER: &str = "quorate-relayed-by";
/// The machine whose certificate a passed request came with, `agent/NAME` or `director/NAME`; a director
/// believes it of another director alone.
pub const RELAYED_FOR_HEADER: &str = "quorate-relayed-for";
/// The address that a passed request came from; believed likewise.
pub const RELAYED_FROM_HEADER: &str = "quorate-relayed-from";
/// Header that makes a repeated write harmless.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// The most items that one page of a list has.
pub const PAGE_MAX: u32 = 1000;
/// The longest that a blocking query waits, in seconds; more is cut down to it.
pub const WAIT_SECONDS_MAX: u64 = 300;

/// A path with its `{parts}` filled in, in order, each percent-encoded.
#[must_use]
pub fn fill(path: &str, parts: &[&str]) -> String {
    let mut filled = String::with_capacity(path.len() + 32);
    let mut parts = parts.iter();
    for segment in path.split('/').skip(1) {
        filled.push('/');
        if segment.starts_with('{') {
            encode(parts.next().copied().unwrap_or_default(), &mut filled);
        } else {
            filled.push_str(segment);
        }
    }
    filled
}

/// Appends `text` so that it is one part of a path whatever it holds.
fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            into.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_any_letters_stays_one_part_of_the_path() {
        assert_eq!(
            fill(PARTITION_WHY, &["feeds", "Kunde 7/ü?#%"]),
            "/v1/services/feeds/partitions/Kunde%207%2F%C3%BC%3F%23%25/why"
        );
    }
}
