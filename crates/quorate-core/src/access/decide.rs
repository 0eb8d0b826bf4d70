//! Whether somebody may do something: a function of who asks, what is to be done and to which object.
//!
//! What counts is the name of the object itself, never a name that a request merely mentions; a request
//! about several objects is decided for each of them. It must never look at anything but its arguments.

use std::fmt;

use crate::ids::{AgentName, CredentialId, NodeName, ServiceName, ServicePrefix, TokenName};

use super::{Node, Role};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Whoever reaches a director that asks nobody who he is: it listens on loopback only.
    Local,
    /// The holder of an API token.
    Token {
        /// Its id.
        id: CredentialId,
        /// What a person calls it.
        name: TokenName,
        /// What it may do.
        role: Role,
        /// How the names of the services begin that it is for.
        scope: Option<ServicePrefix>,
    },
    /// A machine of the cluster, by its certificate. It does what its sessions are for and nothing that
    /// people do: whoever takes a machine over must not become an operator with it.
    Machine {
        /// What it is.
        node: Node,
        /// What it is called.
        name: NodeName,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Look: states, events, output of runs.
    Read,
    /// Start, stop, restart, drain, cordon, write a checkpoint for a run.
    Operate,
    /// Say what is executed: put and remove services, and see what that would change.
    Define,
    /// Tokens, members, evicting and forgetting agents.
    Administer,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Operate, Self::Define, Self::Administer];

    /// The least role that may.
    #[must_use]
    pub const fn least(self) -> Role {
        match self {
            Self::Read => Role::Viewer,
            Self::Operate => Role::Operator,
            Self::Define => Role::Definer,
            Self::Administer => Role::Admin,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "look at this",
            Self::Operate => "start, stop or move work",
            Self::Define => "define what is executed",
            Self::Administer => "administer the cluster",
        })
    }
}

/// To what it is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object<'a> {
    /// The cluster as a whole, or everything of a kind; a list is filtered by what is in it.
    Cluster,
    /// An agent, which serves all services.
    Agent(&'a AgentName),
    /// A service, or something of it.
    Service(&'a ServiceName),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Its role is not enough.
    #[error("token {name:?} has the role {role}, and to {verb} takes the role {}", verb.least())]
    Role {
        /// What a person calls the token.
        name: TokenName,
        /// What it may do.
        role: Role,
        /// What was asked.
        verb: Verb,
    },
    /// It is for other services.
    #[error(
        "token {name:?} is for services that begin with {scope:?}, and {what} is not one of them"
    )]
    Scope {
        /// What a person calls the token.
        name: TokenName,
        /// What it is for.
        scope: ServicePrefix,
        /// What was asked for, in words.
        what: String,
    },
    /// A machine asks for what people do.
    #[error(
        "the certificate of {node} {name} is for its sessions alone; to {verb} takes an API token"
    )]
    Machine {
        /// What it is.
        node: Node,
        /// What it is called.
        name: NodeName,
        /// What was asked.
        verb: Verb,
    },
}

impl Denied {
    /// What the person can do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::Role { verb, .. } | Self::Machine { verb, .. } => format!(
                "ask an admin for a token: `quorate token create --name NAME --role {}`",
                verb.least()
            ),
            Self::Scope { .. } => {
                "ask an admin for a token with another scope, or without one".to_owned()
            }
        }
    }
}

/// Whether somebody may do something to an object.
///
/// # Errors
/// When not, with the reason.
pub fn decide(principal: &Principal, verb: Verb, object: Object<'_>) -> Result<(), Denied> {
    principal.may(verb)?;
    let Principal::Token {
        name,
        scope: Some(scope),
        ..
    } = principal
    else {
        return Ok(());
    };
    let what = match object {
        Object::Service(service) if service.as_str().starts_with(scope.as_str()) => return Ok(()),
        Object::Service(service) => format!("service {service:?}"),
        // Which agents and directors there are is no secret of any service.
        Object::Cluster | Object::Agent(_) if verb == Verb::Read => return Ok(()),
        Object::Agent(agent) => format!("agent {agent:?}, which serves all,"),
        Object::Cluster => "the whole cluster".to_owned(),
    };
    Err(Denied::Scope {
        name: name.clone(),
        scope: scope.clone(),
        what,
    })
}

impl Principal {
    /// Whether there is an object at all to which it may do this.
    ///
    /// # Errors
    /// When its role is not enough.
    pub fn may(&self, verb: Verb) -> Result<(), Denied> {
        match self {
            Self::Local => Ok(()),
            Self::Token { role, .. } if *role >= verb.least() => Ok(()),
            Self::Token { name, role, .. } => Err(Denied::Role {
                name: name.clone(),
                role: *role,
                verb,
            }),
            Self::Machine { node, name } => Err(Denied::Machine {
                node: *node,
                name: name.clone(),
                verb,
            }),
        }
    }

    /// Whether it may look at a service: what a list is filtered by.
    #[must_use]
    pub fn sees(&self, service: &ServiceName) -> bool {
        decide(self, Verb::Read, Object::Service(service)).is_ok()
    }
}
