//! What a director is asked to do, and what it answers after the commit.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::access::{self, Admission, TokenGrant};
use crate::audit::By;
use crate::checkpoint::Content;
use crate::ids::{
    AgentName, CredentialId, DirectorName, Era, Incarnation, PartitionId, PartitionKey, Position,
    ServiceName, SessionId, Token,
};
use crate::lease::LeaseTimes;
use crate::record::{
    AgentInfo, Cause, CloseReason, Desired, DirectorInfo, Exit, ReleaseOutcome, RunReport,
    Schedulable,
};
use crate::repeats::Key;
use crate::spec::{PartitionSpec, Problem, ServiceSpec};

/// Pairs an answer with its call. The shell draws them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A call that needs a commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Puts services, all or nothing, already validated. Lists and ranges are expanded here; the
    /// partitions of a file come by [`Call::Partitions`].
    Apply {
        /// The services.
        services: Vec<(ServiceName, ServiceSpec)>,
    },
    /// Removes services, all or nothing.
    Remove {
        /// Their names.
        services: Vec<ServiceName>,
    },
    /// A source was read: this is now the whole list. The shrink guard is applied here.
    Partitions {
        /// The service.
        service: ServiceName,
        /// The list, or why it could not be read.
        reading: Result<Vec<PartitionSpec>, String>,
    },
    /// Starts or stops.
    SetDesired {
        /// The service.
        service: ServiceName,
        /// One partition, or all.
        key: Option<PartitionKey>,
        /// What is wanted.
        desired: Desired,
    },
    /// Restarts in place.
    Restart {
        /// The service.
        service: ServiceName,
        /// One partition, or all.
        key: Option<PartitionKey>,
    },
    /// Drains, cordons or uncordons.
    SetAgent {
        /// The agent.
        agent: AgentName,
        /// What is wanted.
        schedulable: Schedulable,
    },
    /// Forgets an agent that is gone.
    ForgetAgent {
        /// Which.
        agent: AgentName,
    },
    /// A director tells where it is reached and what it can read.
    Announce {
        /// The director as it describes itself.
        director: DirectorInfo,
    },
    /// These belong to the quorum, as the ledger of the leader says. Once all of them and everybody else who has
    /// told of himself read a higher format, the ledger has that one.
    Members {
        /// Voters and learners.
        directors: BTreeSet<DirectorName>,
    },
    /// Forgets a director that was removed.
    ForgetDirector {
        /// Which.
        director: DirectorName,
    },
    /// Tells that the members of the quorum were changed, for those who look who did what. It changes nothing
    /// itself: who belongs to a quorum is the ledger's affair.
    Membership {
        /// How.
        change: Membership,
        /// Whose.
        director: DirectorName,
    },
    /// Takes everything from an agent that is silent, at the risk that its processes still execute.
    Evict {
        /// The agent.
        agent: AgentName,
        /// Why, as the person says: it stays in the ledger.
        reason: Cause,
    },
    /// Opens a session.
    Register {
        /// Who asks.
        agent: AgentInfo,
        /// Its lease class.
        lease: LeaseTimes,
        /// SHA-256 of the secret: the same one again is the same session.
        secret_hash: String,
        /// Random number of the agent process: one process has one incarnation in all its sessions.
        process: u64,
    },
    /// Resumes a session. The shell has checked the secret.
    Resume {
        /// The session.
        session: SessionId,
        /// Random number of the agent process.
        process: u64,
    },
    /// Reports. The shell has checked the secret.
    Report(Box<Report>),
    /// A call that is done only while its object is as the caller knows it.
    Conditional(Box<Conditional>),
    /// Keeps how far runs of a session have come. The shell has checked the secret.
    Checkpoints(Checkpoints),
    /// Keeps how far the owner of a partition has come, on its own word: whoever knows the token.
    PutCheckpoint {
        /// The service.
        service: ServiceName,
        /// The partition.
        key: PartitionKey,
        /// The token under which it is held.
        token: Token,
        /// Its number, which is to be higher than that of the last one under this token, so that one
        /// that comes late replaces nothing newer; none: the next one.
        number: Option<u64>,
        /// What the owner says.
        content: Content,
    },
    /// Closes a session with proof of death. The shell has checked the secret.
    Close {
        /// The session.
        session: SessionId,
        /// The process that speaks for it, which must be the present one when it leaves.
        incarnation: Option<Incarnation>,
        /// Why.
        reason: CloseReason,
    },
    /// Changes who may do what.
    Access(Box<AccessCall>),
    /// A call of somebody whose change is to be told with his name, and who may repeat it under his key. It
    /// has no other such call in it.
    Attributed(Box<Attributed>),
}

impl Call {
    /// What is to be done, whoever asks.
    pub(super) fn itself(&self) -> &Self {
        if let Self::Attributed(attributed) = self {
            &attributed.call
        } else {
            self
        }
    }
}

/// How the quorum is changed, or who leads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It follows from now on.
    Added,
    /// It votes from now on.
    Promoted,
    /// It is to lead: told before, since who has handed over decides nothing any more.
    Leads,
}

/// A call and who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Attributed {
    /// Who, and from where.
    pub by: By,
    /// By which a repeat is told from a new request.
    pub key: Option<Key>,
    /// The call.
    pub call: Call,
}

/// A call about who may do what. The shell has drawn the secrets; only their hashes come here.
#[derive(Clone, Debug, PartialEq)]
pub enum AccessCall {
    /// Creates or revokes a token.
    Change(access::Record),
    /// Gives a cluster that nobody may administer the admin token whose hash lies in the folder of a
    /// director. Nothing changes where there is an admin, or this token has been there before.
    Bootstrap(TokenGrant),
    /// Lets a machine in. The shell has checked the secret of the join token.
    Admit {
        /// What is asked for.
        admission: Admission,
        /// The machine of an agent as it describes itself: the known agent of this name must be on it.
        machine: Option<String>,
    },
}

/// A call with the condition under which it is done.
///
/// The condition is compared where the call is decided, with a fold that holds everything that was
/// decided about the object before: between the two nothing can change it.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditional {
    /// What the condition is about.
    pub object: Object,
    /// The condition.
    pub condition: Condition,
    /// The call.
    pub call: Call,
}

/// What people write, and may write on a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A service.
    Service(ServiceName),
    /// A partition.
    Partition(ServiceName, PartitionKey),
    /// An agent.
    Agent(AgentName),
}

/// What must hold of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It exists.
    Exists,
    /// It does not.
    Absent,
    /// It exists at one of these revisions.
    At(Vec<Revision>),
}

/// Where an object last changed: the same on every director, and never used for another state of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// Positions are counted anew by a restore, and the era rises with it.
    pub era: Era,
    /// The position of the change.
    pub position: Position,
}

/// What has happened on an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The session.
    pub session: SessionId,
    /// The agent process.
    pub incarnation: Incarnation,
    /// Counts its reports.
    pub sequence: u64,
    /// Acknowledged assignments.
    pub assume: Vec<(PartitionId, Token)>,
    /// Proven ends.
    pub release: Vec<Release>,
    /// What became of runs it goes on holding.
    pub observed: Vec<(PartitionId, Token, RunReport)>,
}

/// A partition that is given back: its process tree is proven dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The partition.
    pub partition: PartitionId,
    /// Its token.
    pub token: Token,
    /// How it ended.
    pub outcome: ReleaseOutcome,
    /// How its last attempt ended, if there was one.
    pub exit: Option<Exit>,
    /// Failed attempts in a row at its end, those under earlier tokens included.
    pub failures: u32,
}

/// How far runs of a session have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// The session.
    pub session: SessionId,
    /// The agent process.
    pub incarnation: Incarnation,
    /// At most one for each token.
    pub given: Vec<Written>,
}

/// How far one run has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The partition.
    pub partition: PartitionId,
    /// Its token.
    pub token: Token,
    /// Rises with every checkpoint under this token; a repeat has the same one.
    pub number: u64,
    /// What the run says.
    pub content: Content,
}

/// Answer to a [`Call`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Committed and folded; a blocking query from this position on sees it.
    Done {
        /// Where it was committed.
        position: Position,
        /// What to tell the person about it, such as partitions that stay as they were.
        notes: Vec<String>,
        /// What became of each service of a [`Call::Apply`]; empty for every other call.
        applied: Vec<(ServiceName, Applied)>,
        /// Something was written for it; `false` when everything was so already, or nothing could be meant.
        changed: bool,
    },
    /// A session is open.
    Opened {
        /// The session.
        session: SessionId,
        /// The agent process.
        incarnation: Incarnation,
        /// Its times.
        lease: LeaseTimes,
    },
    /// A report was folded.
    Reported {
        /// Its sequence.
        sequence: u64,
        /// Tokens assumed by this session now.
        assumed: Vec<Token>,
        /// Tokens that are not, and why.
        refused: Vec<(Token, String)>,
    },
    /// Checkpoints were folded.
    Checkpoints {
        /// Tokens whose checkpoint, or a later one, is kept.
        kept: Vec<Token>,
        /// Tokens that may not write, and why.
        refused: Vec<(Token, String)>,
    },
    /// Not done, certainly.
    Refused(Refusal),
    /// The leader changed before the outcome was known: it may or may not be done.
    Unknown,
    /// This director does not lead; ask that one.
    NotLeader {
        /// API address of the leader, if one is known.
        leader: Option<String>,
    },
}

/// What an apply made of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// It is new, or comes back while what was removed under its name still stops.
    Created,
    /// Its specification or its list differs from what was in force.
    Changed,
    /// It was already so; nothing was written about it.
    Unchanged,
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such thing.
    #[error("{what} {name:?} does not exist")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// As it was named.
        name: String,
    },
    /// It contradicts what is in force.
    #[error("{0}")]
    Conflict(String),
    /// The object is not as the caller knows it.
    #[error("{0}")]
    Condition(String),
    /// It breaks a rule of this cluster.
    #[error("{0}")]
    Invalid(Problem),
    /// Another request came with this idempotency key before.
    #[error("this idempotency key belongs to another request")]
    OtherRequest,
    /// The request was done before, and its answer had a secret that nobody has kept.
    #[error("{what} {id} was created by this request before, and is shown only once")]
    ShownOnce {
        /// The kind of token, `token` or `join-token`.
        what: &'static str,
        /// Which.
        id: CredentialId,
    },
    /// The caller's session or incarnation is over.
    #[error("{0}")]
    Fenced(String),
    /// Too much at once; try again later.
    #[error("too many calls are waiting; try again in a moment")]
    Overloaded,
}

/// A renewal as it arrived (R4): stamped by the shell, answered only after a later proof of leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Sessions whose secrets the shell has checked.
    pub sessions: Vec<SessionId>,
    /// The agent process.
    pub incarnation: Incarnation,
    /// Higher in every attempt.
    pub counter: u64,
    /// Random.
    pub nonce: u64,
    /// The agent's clock in milliseconds.
    pub sent_ms: u64,
}

/// Answer to a [`Renewal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalAnswer {
    /// Each session for itself.
    Answered {
        /// Renewed.
        renewed: Vec<SessionId>,
        /// Ended for ever, and why.
        lost: Vec<(SessionId, String)>,
    },
    /// This director does not lead, or could not prove that it does.
    NotLeader {
        /// API address of the leader, if one is known.
        leader: Option<String>,
    },
}
