//! What each route takes, in one table: a route that is not in it is served to nobody who is asked who he is.

use quorate_api::routes::{
    AGENT, AGENT_CORDON, AGENT_DRAIN, AGENT_EVICT, AGENT_UNCORDON, AGENTS, APPLY, AUDIT,
    CERTIFICATES, CLUSTER, CLUSTER_AUTHORITY, CLUSTER_BACKUP, CLUSTER_MEMBER, CLUSTER_MEMBERS,
    CLUSTER_PROMOTE, CLUSTER_TRANSFER, DIRECTOR, DIRECTORS, ENROL, EVENTS, JOIN_TOKEN, JOIN_TOKENS,
    LIVEZ, METRICS, OPENAPI, PARTITION, PARTITION_CHECKPOINT, PARTITION_HISTORY, PARTITION_LOGS,
    PARTITION_RESTART, PARTITION_START, PARTITION_STOP, PARTITION_WHY, PARTITIONS, PLAN, PROGRESS,
    READYZ, SERVICE, SERVICE_PARTITIONS, SERVICE_RESTART, SERVICE_START, SERVICE_STOP, SERVICES,
    SESSION_CHECKPOINTS, SESSION_CLOSE, SESSION_LOG_CHUNKS, SESSION_LOG_REQUESTS, SESSION_RENEW,
    SESSION_RENEWALS, SESSION_REPORT, SESSION_RESUME, SESSION_WORK, SESSIONS, TOKEN, TOKENS,
};
use quorate_core::access::Verb;

/// What a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: it tells nothing about the cluster.
    Open,
    /// The secret of a session, which the route checks itself.
    Session,
    /// A join token in the body, which the route checks itself.
    JoinToken,
    /// The certificate of the agent that registers, or an admin; the route knows the name.
    Register,
    /// The certificate of a director, which lets itself in, or an admin.
    Director,
    /// The certificate of a machine, which the route looks at itself.
    Machine,
    /// The right to do this to an object.
    May(Verb, On),
}

/// Which object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// The cluster.
    Cluster,
    /// The agent `{name}` of the path.
    Agent,
    /// The service `{name}` of the path.
    Service,
    /// Services that the query or the body names, or a list of all: the route decides for each of them.
    Several,
}

use Need::{Director, JoinToken, Machine, May, Open, Register, Session};
use On::{Agent, Cluster, Service, Several};
use Verb::{Administer, Define, Operate, Read};

/// Every route.
const NEEDS: &[(&str, &str, Need)] = &[
    ("GET", OPENAPI, Open),
    ("GET", LIVEZ, Open),
    ("GET", READYZ, Open),
    ("GET", METRICS, May(Read, Cluster)),
    ("GET", DIRECTORS, May(Read, Cluster)),
    ("PUT", DIRECTOR, Director),
    ("GET", CLUSTER, May(Read, Cluster)),
    ("GET", CLUSTER_BACKUP, May(Administer, Cluster)),
    ("POST", CLUSTER_MEMBERS, Director),
    ("DELETE", CLUSTER_MEMBER, May(Administer, Cluster)),
    ("POST", CLUSTER_PROMOTE, Director),
    ("POST", CLUSTER_TRANSFER, May(Administer, Cluster)),
    ("GET", SERVICES, May(Read, Several)),
    ("DELETE", SERVICES, May(Define, Several)),
    ("GET", SERVICE, May(Read, Service)),
    ("PUT", SERVICE, May(Define, Service)),
    ("DELETE", SERVICE, May(Define, Service)),
    ("POST", SERVICE_RESTART, May(Operate, Service)),
    ("POST", SERVICE_STOP, May(Operate, Service)),
    ("POST", SERVICE_START, May(Operate, Service)),
    ("POST", APPLY, May(Define, Several)),
    ("POST", PLAN, May(Define, Several)),
    ("GET", PARTITIONS, May(Read, Several)),
    ("GET", SERVICE_PARTITIONS, May(Read, Service)),
    ("GET", PARTITION, May(Read, Service)),
    ("GET", PARTITION_WHY, May(Read, Service)),
    ("GET", PARTITION_HISTORY, May(Read, Service)),
    ("GET", PARTITION_LOGS, May(Read, Service)),
    ("GET", PARTITION_CHECKPOINT, May(Read, Service)),
    ("PUT", PARTITION_CHECKPOINT, May(Operate, Service)),
    ("POST", PARTITION_RESTART, May(Operate, Service)),
    ("POST", PARTITION_STOP, May(Operate, Service)),
    ("POST", PARTITION_START, May(Operate, Service)),
    ("GET", EVENTS, May(Read, Several)),
    ("GET", PROGRESS, May(Read, Several)),
    ("GET", AGENTS, May(Read, Cluster)),
    ("GET", AGENT, May(Read, Agent)),
    ("DELETE", AGENT, May(Administer, Agent)),
    ("POST", AGENT_DRAIN, May(Operate, Agent)),
    ("POST", AGENT_CORDON, May(Operate, Agent)),
    ("POST", AGENT_UNCORDON, May(Operate, Agent)),
    ("POST", AGENT_EVICT, May(Administer, Agent)),
    ("GET", TOKENS, May(Administer, Cluster)),
    ("POST", TOKENS, May(Administer, Cluster)),
    ("DELETE", TOKEN, May(Administer, Cluster)),
    ("GET", JOIN_TOKENS, May(Administer, Cluster)),
    ("POST", JOIN_TOKENS, May(Administer, Cluster)),
    ("DELETE", JOIN_TOKEN, May(Administer, Cluster)),
    ("GET", AUDIT, May(Administer, Cluster)),
    ("POST", ENROL, JoinToken),
    ("POST", CERTIFICATES, Machine),
    ("GET", CLUSTER_AUTHORITY, Machine),
    ("POST", SESSIONS, Register),
    ("POST", SESSION_RESUME, Session),
    ("POST", SESSION_RENEW, Session),
    ("POST", SESSION_RENEWALS, Session),
    ("POST", SESSION_REPORT, Session),
    ("POST", SESSION_CHECKPOINTS, Session),
    ("POST", SESSION_CLOSE, Session),
    ("GET", SESSION_WORK, Session),
    ("GET", SESSION_LOG_REQUESTS, Session),
    ("POST", SESSION_LOG_CHUNKS, Session),
];

/// What a method of a path takes; `None` when the table does not have it.
pub(crate) fn need(method: &str, path: &str) -> Option<Need> {
    // Whoever may read something may ask how long it is.
    let method = if method == "HEAD" { "GET" } else { method };
    let mut all = NEEDS.iter();
    let found = all.find(|(verb, known, _)| *verb == method && *known == path);
    found.map(|(_, _, need)| *need)
}

/// Whether the table has any method of a path.
pub(crate) fn knows(path: &str) -> bool {
    NEEDS.iter().any(|(_, known, _)| *known == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One that is forgotten would be served to nobody; one too many would be a mistake that nobody sees.
    #[test]
    fn the_table_has_every_route_of_the_document_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(&crate::routes::document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let served: BTreeSet<(String, &str)> = paths
            .iter()
            .flat_map(|(path, operations)| {
                let methods = operations.as_object().unwrap().keys();
                methods.map(move |method| (method.to_uppercase(), path.as_str()))
            })
            .collect();
        let known = NEEDS.iter();
        let known: Vec<(String, &str)> = known
            .map(|(method, path, _)| ((*method).to_owned(), *path))
            .collect();
        let unique: BTreeSet<_> = known.iter().cloned().collect();
        assert_eq!(known.len(), unique.len(), "nothing is in it twice");
        assert_eq!(unique, served);
    }

    #[test]
    fn what_names_an_object_in_its_path_is_decided_by_that_object() {
        for (method, path, need) in NEEDS {
            let at = format!("{method} {path}");
            let May(_, on) = need else { continue };
            if path.starts_with("/v1/services/{name}") {
                assert_eq!(*on, Service, "{at}");
            } else if path.starts_with("/v1/agents/{name}") {
                assert_eq!(*on, Agent, "{at}");
            } else if *path != CLUSTER_MEMBER {
                assert!(!path.contains("{name}"), "{at}");
            }
            if *method != "GET" {
                assert_ne!(*need, May(Read, *on), "{at} changes something");
            }
        }
    }
}
