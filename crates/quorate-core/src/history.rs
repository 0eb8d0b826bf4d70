//! What an entry changed, for people: the lines of `quorate history` and `quorate events`.
//!
//! A change names everything by itself, because what it speaks of may be gone by the time it is read.
//! Nothing here decides anything; the planner takes the ids as a hint where to look again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access;
use crate::audit::Audit;
use crate::format::Format;
use crate::ids::{
    AgentName, DirectorName, Epoch, Era, HookName, Incarnation, PartitionId, PartitionKey,
    ServiceName, SessionId, Token,
};
use crate::lease::DRIFT_PERCENT;
use crate::record::{Cause, CloseReason, Desired, Exit, MoveReason, ReleaseOutcome, Schedulable};
use crate::spec::Span;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A director leads from here on.
    Elected {
        /// Its name.
        name: DirectorName,
        /// Its term.
        epoch: Epoch,
    },
    /// A director has told where it is, or that something about it is new.
    DirectorKnown {
        /// Its name.
        name: DirectorName,
        /// Where its API is reached.
        address: String,
        /// Version of its program.
        version: String,
    },
    /// A director is known no longer.
    DirectorForgotten {
        /// Its name.
        name: DirectorName,
    },
    /// The ledger has a higher format from here on: every director reads it.
    FormatRaised {
        /// Which.
        format: Format,
    },
    /// A service was created, or came back while its last partitions still stopped.
    ServiceCreated {
        /// Its name.
        service: ServiceName,
    },
    /// The specification of a service changed.
    ServiceChanged {
        /// Its name.
        service: ServiceName,
    },
    /// A service was removed; partitions that still run are being stopped.
    ServiceRemoved {
        /// Its name.
        service: ServiceName,
    },
    /// A service is to run or to be stopped as a whole.
    ServiceDesired {
        /// Its name.
        service: ServiceName,
        /// What is wanted.
        desired: Desired,
    },
    /// The source of a service was refused.
    SourceRefused {
        /// Its name.
        service: ServiceName,
        /// Why.
        problem: String,
    },
    /// The source of a service is taken again.
    SourceRecovered {
        /// Its name.
        service: ServiceName,
    },
    /// Something about one partition.
    Partition {
        /// Which.
        subject: Subject,
        /// The token that it concerns.
        token: Option<Token>,
        /// The agent that holds or held it.
        agent: Option<AgentName>,
        /// What.
        what: What,
    },
    /// A session began.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// Its agent.
        agent: AgentName,
        /// Its lease: an agent has one session for each lease that is in use.
        lease: Span,
        /// The agent had no other session, so it joins with this one.
        joined: bool,
    },
    /// A new agent process speaks for a session.
    SessionResumed {
        /// The session.
        session: SessionId,
        /// Its agent.
        agent: AgentName,
        /// The process that counts now.
        incarnation: Incarnation,
    },
    /// A session ended with proof of death.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Its agent.
        agent: AgentName,
        /// Why.
        reason: CloseReason,
        /// Partitions that it held.
        freed: usize,
        /// Those of them that an eviction freed though their fence hook had not succeeded.
        #[serde(default)]
        unfenced: usize,
    },
    /// A session was silent for too long.
    SessionExpired {
        /// The session.
        session: SessionId,
        /// Its agent.
        agent: AgentName,
        /// Partitions that are free now.
        freed: usize,
        /// Partitions that wait until a fence hook has succeeded.
        unfenced: usize,
    },
    /// A person took everything from an agent without proof that nothing of it executes.
    AgentEvicted {
        /// Which.
        agent: AgentName,
        /// What the person gave as the reason.
        reason: Cause,
    },
    /// A hook has made sure that an agent can do no harm any more.
    AgentFenced {
        /// Which.
        agent: AgentName,
        /// The session that was silent.
        session: SessionId,
        /// Name of the hook.
        hook: HookName,
        /// Partitions that waited for it.
        freed: usize,
    },
    /// The clock of an agent runs at another rate than the leader's (R14).
    AgentDrifts {
        /// Which.
        agent: AgentName,
        /// How much faster the agent's runs, in millionths.
        ppm: i64,
    },
    /// An agent was drained, cordoned or uncordoned.
    AgentSet {
        /// Which.
        agent: AgentName,
        /// What is wanted.
        schedulable: Schedulable,
    },
    /// An agent that was gone is known no longer.
    AgentForgotten {
        /// Which.
        agent: AgentName,
    },
    /// Nothing that was granted in earlier eras is in force any more, and work is given away again.
    EraBegan {
        /// The era of the cluster.
        era: Era,
    },
    /// Tokens came or went, or a machine was let in. Only for those who administer.
    Access(access::Change),
    /// Who has asked for what changed before it. No event: only the audit shows it.
    Audited(Audit),
}

/// A partition by all its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its slot.
    pub partition: PartitionId,
    /// Its service.
    pub service: ServiceName,
    /// Its key.
    pub key: PartitionKey,
}

/// What happened to a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It came into being.
    Created,
    /// Its data, weight, labels or priority changed.
    Changed,
    /// It was removed while it ran, and came back before that had ended.
    Restored,
    /// It is gone.
    Removed,
    /// It is to run or to be stopped.
    Desired(Desired),
    /// What had left it done or failed no longer counts: it may run again.
    Revived,
    /// Somebody asked for a restart in place.
    RestartAsked,
    /// The leader chose an agent.
    Assigned,
    /// The leader took back what was not yet assumed.
    Withdrawn(MoveReason),
    /// The agent acknowledged: it may start.
    Assumed,
    /// An attempt began.
    Started {
        /// The how-manieth under this token.
        attempt: u32,
        /// Its process.
        pid: Option<u32>,
    },
    /// The run is ready.
    Ready,
    /// An attempt ended; the next one follows in place.
    Exited {
        /// The how-manieth under this token.
        attempt: u32,
        /// How.
        exit: Exit,
    },
    /// The leader wants it back.
    Revoked(MoveReason),
    /// The agent gave it back with proof of death.
    Released {
        /// How it ended.
        outcome: ReleaseOutcome,
        /// How its last attempt ended.
        exit: Option<Exit>,
    },
    /// Its session was silent for too long.
    Expired,
    /// A fence hook has made sure that its former agent can do no harm.
    Fenced(HookName),
    /// Its session was closed with proof of death.
    Closed(CloseReason),
}

impl Change {
    /// The service it speaks of.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::ServiceCreated { service }
            | Self::ServiceChanged { service }
            | Self::ServiceRemoved { service }
            | Self::ServiceDesired { service, .. }
            | Self::SourceRefused { service, .. }
            | Self::SourceRecovered { service } => Some(service),
            Self::Partition { subject, .. } => Some(&subject.service),
            Self::Elected { .. }
            | Self::DirectorKnown { .. }
            | Self::DirectorForgotten { .. }
            | Self::FormatRaised { .. }
            | Self::SessionOpened { .. }
            | Self::SessionResumed { .. }
            | Self::SessionClosed { .. }
            | Self::SessionExpired { .. }
            | Self::AgentEvicted { .. }
            | Self::AgentFenced { .. }
            | Self::AgentDrifts { .. }
            | Self::AgentSet { .. }
            | Self::AgentForgotten { .. }
            | Self::EraBegan { .. }
            | Self::Access(_)
            | Self::Audited(_) => None,
        }
    }

    /// The partition it speaks of.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Partition { subject, .. } => Some(subject),
            Self::Elected { .. }
            | Self::DirectorKnown { .. }
            | Self::DirectorForgotten { .. }
            | Self::FormatRaised { .. }
            | Self::ServiceCreated { .. }
            | Self::ServiceChanged { .. }
            | Self::ServiceRemoved { .. }
            | Self::ServiceDesired { .. }
            | Self::SourceRefused { .. }
            | Self::SourceRecovered { .. }
            | Self::SessionOpened { .. }
            | Self::SessionResumed { .. }
            | Self::SessionClosed { .. }
            | Self::SessionExpired { .. }
            | Self::AgentEvicted { .. }
            | Self::AgentFenced { .. }
            | Self::AgentDrifts { .. }
            | Self::AgentSet { .. }
            | Self::AgentForgotten { .. }
            | Self::EraBegan { .. }
            | Self::Access(_)
            | Self::Audited(_) => None,
        }
    }

    /// The token that it concerns.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        if let Self::Partition { token, .. } = self {
            *token
        } else {
            None
        }
    }

    /// The agent it speaks of.
    #[must_use]
    pub fn agent(&self) -> Option<&AgentName> {
        match self {
            Self::Partition { agent, .. } => agent.as_ref(),
            Self::SessionOpened { agent, .. }
            | Self::SessionResumed { agent, .. }
            | Self::SessionClosed { agent, .. }
            | Self::SessionExpired { agent, .. }
            | Self::AgentEvicted { agent, .. }
            | Self::AgentFenced { agent, .. }
            | Self::AgentDrifts { agent, .. }
            | Self::AgentSet { agent, .. }
            | Self::AgentForgotten { agent } => Some(agent),
            Self::Elected { .. }
            | Self::DirectorKnown { .. }
            | Self::DirectorForgotten { .. }
            | Self::FormatRaised { .. }
            | Self::ServiceCreated { .. }
            | Self::ServiceChanged { .. }
            | Self::ServiceRemoved { .. }
            | Self::ServiceDesired { .. }
            | Self::SourceRefused { .. }
            | Self::SourceRecovered { .. }
            | Self::EraBegan { .. }
            | Self::Access(_)
            | Self::Audited(_) => None,
        }
    }

    /// Its name for filters and machines, such as `partition.assigned`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Elected { .. } => "director.elected",
            Self::DirectorKnown { .. } => "director.known",
            Self::DirectorForgotten { .. } => "director.forgotten",
            Self::FormatRaised { .. } => "ledger.format",
            Self::ServiceCreated { .. } => "service.created",
            Self::ServiceChanged { .. } => "service.changed",
            Self::ServiceRemoved { .. } => "service.removed",
            Self::ServiceDesired { .. } => "service.desired",
            Self::SourceRefused { .. } => "source.refused",
            Self::SourceRecovered { .. } => "source.recovered",
            Self::Partition { what, .. } => what.name(),
            Self::SessionOpened { .. } => "session.opened",
            Self::SessionResumed { .. } => "session.resumed",
            Self::SessionClosed { .. } => "session.closed",
            Self::SessionExpired { .. } => "session.expired",
            Self::AgentEvicted { .. } => "agent.evicted",
            Self::AgentFenced { .. } => "agent.fenced",
            Self::AgentDrifts { .. } => "agent.drifts",
            Self::AgentSet { .. } => "agent.set",
            Self::AgentForgotten { .. } => "agent.forgotten",
            Self::EraBegan { .. } => "cluster.era_began",
            Self::Access(change) => change.name(),
            Self::Audited(_) => "audit",
        }
    }
}

impl What {
    /// Its name for filters and machines.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created => "partition.created",
            Self::Changed => "partition.changed",
            Self::Restored => "partition.restored",
            Self::Removed => "partition.removed",
            Self::Desired(_) => "partition.desired",
            Self::Revived => "partition.revived",
            Self::RestartAsked => "partition.restart_asked",
            Self::Assigned => "partition.assigned",
            Self::Withdrawn(_) => "partition.withdrawn",
            Self::Assumed => "partition.assumed",
            Self::Started { .. } => "partition.started",
            Self::Ready => "partition.ready",
            Self::Exited { .. } => "partition.exited",
            Self::Revoked(_) => "partition.revoked",
            Self::Released {
                outcome: ReleaseOutcome::Failed,
                ..
            } => "partition.failed",
            Self::Released { .. } => "partition.released",
            Self::Expired => "partition.expired",
            Self::Fenced(_) => "partition.fenced",
            Self::Closed(_) => "partition.closed",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created"),
            Self::Changed => f.write_str("its data changed"),
            Self::Restored => f.write_str("back in its source while it was being stopped"),
            Self::Removed => f.write_str("removed"),
            Self::Desired(Desired::Running) => f.write_str("to be started"),
            Self::Desired(Desired::Stopped) => f.write_str("to be stopped"),
            Self::Revived => f.write_str("may run again"),
            Self::RestartAsked => f.write_str("restart asked"),
            Self::Assigned => f.write_str("assigned"),
            Self::Withdrawn(reason) => write!(f, "withdrawn before it started: {reason}"),
            Self::Assumed => f.write_str("assumed"),
            Self::Started { attempt, pid } => {
                write!(f, "started, attempt {attempt}")?;
                pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
            }
            Self::Ready => f.write_str("ready"),
            Self::Exited { attempt, exit } => write!(f, "attempt {attempt} ended: {exit}"),
            Self::Revoked(reason) => write!(f, "being stopped: {reason}"),
            Self::Released { outcome, exit } => {
                write!(f, "{outcome}")?;
                exit.as_ref().map_or(Ok(()), |exit| write!(f, " ({exit})"))
            }
            Self::Expired => f.write_str("freed: its agent was silent for longer than its lease"),
            Self::Fenced(hook) => write!(f, "freed: its agent was fenced by {hook}"),
            Self::Closed(reason) => write!(f, "freed: {reason}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elected { name, epoch } => write!(f, "director {name} leads, epoch {epoch}"),
            Self::DirectorKnown {
                name,
                address,
                version,
            } => write!(f, "director {name} is at {address}, version {version}"),
            Self::DirectorForgotten { name } => write!(f, "director {name} forgotten"),
            Self::FormatRaised { format } => write!(
                f,
                "the ledger has format {format}: earlier versions read it no more"
            ),
            Self::ServiceCreated { service } => write!(f, "service {service} created"),
            Self::ServiceChanged { service } => write!(f, "service {service} changed"),
            Self::ServiceRemoved { service } => write!(f, "service {service} removed"),
            Self::ServiceDesired { service, desired } => match desired {
                Desired::Running => write!(f, "service {service} to be started"),
                Desired::Stopped => write!(f, "service {service} to be stopped"),
            },
            Self::SourceRefused { service, problem } => {
                write!(f, "service {service}: its list is refused: {problem}")
            }
            Self::SourceRecovered { service } => {
                write!(f, "service {service}: its list is taken again")
            }
            Self::Partition {
                subject,
                token,
                agent,
                what,
            } => {
                write!(f, "{}/{} {what}", subject.service, subject.key)?;
                agent
                    .as_ref()
                    .map_or(Ok(()), |a| write!(f, ", agent {a}"))?;
                token.map_or(Ok(()), |token| write!(f, ", token {token}"))
            }
            Self::SessionOpened {
                session,
                agent,
                lease,
                joined,
            } => {
                let what = if *joined { "joined," } else { "opened" };
                write!(f, "agent {agent} {what} session {session}, lease {lease}")
            }
            Self::SessionResumed {
                session,
                agent,
                incarnation,
            } => write!(
                f,
                "agent {agent} resumed session {session}, incarnation {incarnation}"
            ),
            Self::SessionClosed {
                session,
                agent,
                reason,
                freed,
                unfenced,
            } => {
                write!(
                    f,
                    "session {session} of agent {agent} closed: {reason}; {freed} partitions freed"
                )?;
                match unfenced {
                    0 => Ok(()),
                    some => write!(f, ", {some} without their fence hook"),
                }
            }
            Self::SessionExpired {
                session,
                agent,
                freed,
                unfenced,
            } => {
                write!(
                    f,
                    "session {session} of agent {agent} expired; {freed} partitions freed"
                )?;
                match unfenced {
                    0 => Ok(()),
                    waiting => write!(f, ", {waiting} wait for a fence hook"),
                }
            }
            Self::AgentEvicted { agent, reason } => write!(
                f,
                "agent {agent} evicted at the risk of duplicates: {}",
                reason.as_str()
            ),
            Self::AgentFenced {
                agent,
                session,
                hook,
                freed,
            } => write!(
                f,
                "agent {agent} fenced by {hook} after session {session} was silent; {freed} partitions freed"
            ),
            Self::AgentDrifts { agent, ppm } => {
                let which = if *ppm < 0 { "slower" } else { "faster" };
                let percent = Percent(ppm.unsigned_abs());
                write!(
                    f,
                    "the clock of agent {agent} runs {percent} {which} than the leader's, {} is promised to be borne",
                    Percent(u64::from(DRIFT_PERCENT) * 10_000)
                )
            }
            Self::AgentSet { agent, schedulable } => match schedulable {
                Schedulable::Active => write!(f, "agent {agent} takes work again"),
                Schedulable::Cordoned => write!(f, "agent {agent} cordoned"),
                Schedulable::Draining => write!(f, "agent {agent} drains"),
            },
            Self::AgentForgotten { agent } => write!(f, "agent {agent} is forgotten"),
            Self::EraBegan { era } => write!(
                f,
                "era {era} begins: whatever was granted before the restore is over, and work is given away again"
            ),
            Self::Access(change) => change.fmt(f),
            Self::Audited(audit) => audit.fmt(f),
        }
    }
}

/// Millionths, shown as a percentage with as many digits as tell a clock from another.
struct Percent(u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} %", self.0 / 10_000, self.0 % 10_000 / 100)
    }
}

impl fmt::Display for MoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drain => "its agent drains",
            Self::Balance => "moved for an even spread",
            Self::Stopped => "somebody stopped it",
            Self::Removed => "it was removed",
            Self::Constraint => "its agent may no longer hold it",
            Self::Failing => "it kept failing there",
            Self::LeaseChanged => "the lease of its service changed",
            Self::Unacknowledged => "its agent did not take it",
        })
    }
}

impl fmt::Display for ReleaseOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Move => "given back to run elsewhere",
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left => "its agent left",
            Self::AgentDied => "its agent died and its processes were ended",
            Self::WardenDied => "its warden died and its processes with it",
            Self::Rebooted => "its machine was started anew",
            Self::Evicted => "its agent was evicted, at the risk of duplicates",
        })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::record::ExitClass;
        let class = match self.class {
            ExitClass::Clean => "clean exit",
            ExitClass::Interrupted => "interrupted",
            ExitClass::Crash => "crashed",
            ExitClass::Killed => "killed",
            ExitClass::Stopped => "stopped by quorate",
            ExitClass::NotStarted => "could not be started",
        };
        f.write_str(class)?;
        self.code
            .map_or(Ok(()), |code| write!(f, ", code {code}"))?;
        self.signal
            .map_or(Ok(()), |signal| write!(f, ", signal {signal}"))?;
        self.cause
            .as_ref()
            .map_or(Ok(()), |cause| write!(f, ": {}", cause.as_str()))
    }
}
