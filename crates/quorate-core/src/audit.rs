//! Who has changed what: a record beside the change that a person or a program has asked for.
//!
//! It is derived from the call itself where that is decided, so it cannot tell something else than what is
//! done, and it is in the entry of the change, so that there is none without the other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::{Node, Principal, Record as Access};
use crate::director::call::{AccessCall, Call, Membership};
use crate::ids::{CredentialId, NodeName, TokenName};
use crate::record::{Desired, Schedulable};

/// Objects that are named one by one; of more only the number is told.
const NAMED_MAX: usize = 20;

/// Who asked, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// Who.
    pub who: Who,
    /// The address that the request came from, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Whoever reaches a director that asks nobody who he is.
    Local,
    /// The holder of an API token.
    Token {
        /// Its id.
        id: CredentialId,
        /// What a person calls it.
        name: TokenName,
    },
    /// The holder of a join token.
    JoinToken {
        /// Its id.
        id: CredentialId,
    },
    /// A machine of the cluster.
    Machine {
        /// What it is.
        node: Node,
        /// What it is called.
        name: NodeName,
    },
}

impl From<&Principal> for Who {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::Local => Self::Local,
            Principal::Token { id, name, .. } => Self::Token {
                id: id.clone(),
                name: name.clone(),
            },
            Principal::Machine { node, name } => Self::Machine {
                node: *node,
                name: name.clone(),
            },
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Token { id, name } => write!(f, "token {id} ({name})"),
            Self::JoinToken { id } => write!(f, "join token {id}"),
            Self::Machine { node, name } => write!(f, "{node} {name}"),
        }
    }
}

/// What was changed, by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// By whom.
    pub by: By,
    /// What was done, such as `stop`.
    pub did: String,
    /// To what, such as `service/feeds`; the first of many.
    pub to: Vec<String>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
    /// How many records of the entry before this one are its change; none where the ledger itself was changed.
    #[serde(default)]
    pub records: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} did {} to {}",
            self.by.who,
            self.did,
            self.to.join(", ")
        )?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Audit {
    /// What a call does, by whom; `None` for what machines ask as part of their work.
    pub(crate) fn of(by: By, call: &Call) -> Option<Self> {
        let (did, mut to) = told(call)?;
        let more = to.len().saturating_sub(NAMED_MAX);
        to.truncate(NAMED_MAX);
        Some(Self {
            by,
            did: did.to_owned(),
            to,
            more,
            records: 0,
        })
    }
}

/// What a call does, and to what.
fn told(call: &Call) -> Option<(&'static str, Vec<String>)> {
    let of_service = |service: &_, key: &Option<_>| match key {
        None => vec![format!("service/{service}")],
        Some(key) => vec![format!("partition/{service}/{key}")],
    };
    let named = |kind: &str, name: &dyn fmt::Display| vec![format!("{kind}/{name}")];
    Some(match call {
        Call::Apply { services } => {
            let names = services.iter().map(|(name, _)| format!("service/{name}"));
            ("apply", names.collect())
        }
        Call::Remove { services } => {
            let names = services.iter().map(|name| format!("service/{name}"));
            ("remove", names.collect())
        }
        Call::SetDesired {
            service,
            key,
            desired,
        } => {
            let did = match desired {
                Desired::Running => "start",
                Desired::Stopped => "stop",
            };
            (did, of_service(service, key))
        }
        Call::Restart { service, key } => ("restart", of_service(service, key)),
        Call::SetAgent { agent, schedulable } => {
            let did = match schedulable {
                Schedulable::Active => "uncordon",
                Schedulable::Cordoned => "cordon",
                Schedulable::Draining => "drain",
            };
            (did, named("agent", agent))
        }
        Call::ForgetAgent { agent } => ("forget", named("agent", agent)),
        Call::Evict { agent, .. } => ("evict", named("agent", agent)),
        Call::ForgetDirector { director } => ("remove", named("director", director)),
        Call::Membership { change, director } => {
            let did = match change {
                Membership::Added => "add",
                Membership::Promoted => "promote",
                Membership::Leads => "transfer-leader",
            };
            (did, named("director", director))
        }
        Call::Conditional(conditional) => return told(&conditional.call),
        Call::Access(call) => match &**call {
            AccessCall::Change(record) => of_access(record),
            AccessCall::Bootstrap(grant) => ("create", named("token", &grant.id)),
            AccessCall::Admit { admission, .. } => {
                let kind = admission.node.as_str();
                ("admit", named(kind, &admission.name))
            }
        },
        // How far a run has come is said by who has its fencing token, as often as he likes.
        Call::PutCheckpoint { .. }
        | Call::Announce { .. }
        | Call::Members { .. }
        | Call::Partitions { .. }
        | Call::Register { .. }
        | Call::Resume { .. }
        | Call::Report(_)
        | Call::Checkpoints(_)
        | Call::Close { .. }
        | Call::Attributed(_) => return None,
    })
}

fn of_access(record: &Access) -> (&'static str, Vec<String>) {
    match record {
        Access::TokenCreated(grant) => ("create", vec![format!("token/{}", grant.id)]),
        Access::TokenRevoked { id } => ("revoke", vec![format!("token/{id}")]),
        Access::JoinTokenCreated(grant) => ("create", vec![format!("join-token/{}", grant.id)]),
        Access::JoinTokenRevoked { id } => ("revoke", vec![format!("join-token/{id}")]),
        Access::Admitted(admission) => {
            let name = format!("{}/{}", admission.node, admission.name);
            ("admit", vec![name])
        }
    }
}
