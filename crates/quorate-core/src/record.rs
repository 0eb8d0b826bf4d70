//! What the ledger holds: entries of records, the only inputs of the fold.
//!
//! A record says what was decided, with every identifier, token and time already in it; folding it
//! computes nothing that could come out differently elsewhere. A record whose precondition fails is
//! folded as *refused*. Changing what is stored here needs a new [`Format`], a golden file and an ADR.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::access;
use crate::audit::Audit;
use crate::checkpoint::Content;
use crate::format::{FORMATS, Format, Formats, Unread};
use crate::ids::{
    AgentName, BatchId, DirectorName, Epoch, HookName, Incarnation, PartitionId, PartitionKey,
    ServiceName, SessionId, Token,
};
use crate::lease::LeaseTimes;
use crate::repeats::Answered;
use crate::spec::{PartitionSpec, ServiceSpec};
use crate::time::WallTime;

/// Most bytes of an encoded entry: what the tightest supported store (Consul, in base64) takes.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024;

/// One position of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who wrote it, and after what.
    pub header: Header,
    /// What was decided, in order.
    pub records: Vec<Record>,
}

/// Head of every entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// That of the ledger where it was written, or the one that it begins: none of its records is of a later one.
    pub format: Format,
    /// Term of the writer. An entry whose epoch is not that of the last `Elected` is folded as nothing.
    pub epoch: Epoch,
    /// Names this batch for ever.
    pub batch: BatchId,
    /// Hash of the encoded entry before it (XXH3-64), 0 at position 1: tells another history.
    pub predecessor: u64,
    /// The leader's wall time: for display and schedules, never for leases.
    pub wall: WallTime,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A director leads from here on. Always alone in its entry, whose epoch it raises by one.
    Elected {
        /// Its name.
        name: DirectorName,
        /// Its random identity, minted with its data folder.
        id: u64,
        /// Where its API is reached.
        address: String,
        /// Highest format it reads.
        format: Format,
    },
    /// The leader is alive though it has nothing to say (shared stores only).
    Beat,
    /// A director tells where it is reached and what it can read.
    DirectorKnown {
        /// The director as it describes itself.
        director: DirectorInfo,
    },
    /// A director that was removed is to be known no longer.
    DirectorForgotten {
        /// Its name.
        director: DirectorName,
    },

    /// A service is created or its specification replaced; its partitions are set on their own.
    ServicePut {
        /// Its name.
        name: ServiceName,
        /// The whole specification.
        spec: Box<ServiceSpec>,
    },
    /// A service and all its partitions go; those that run are stopped first.
    ServiceRemoved {
        /// Its name.
        name: ServiceName,
    },
    /// Partitions come or change. Unknown keys are created; known ones get the new data.
    PartitionsPut {
        /// Their service.
        service: ServiceName,
        /// The partitions, whole.
        partitions: Vec<PartitionSpec>,
    },
    /// Partitions go; those that run are stopped first.
    PartitionsRemoved {
        /// Their service.
        service: ServiceName,
        /// Their keys.
        keys: Vec<PartitionKey>,
    },
    /// A part of a change too large for one entry. It counts only with its last part and is dropped
    /// at the next `Elected`.
    Staged {
        /// The change it belongs to.
        change: BatchId,
        /// The records of this part: `ServicePut`, `PartitionsPut`, `PartitionsRemoved`.
        records: Vec<Record>,
        /// Whether the whole change is now to be folded.
        last: bool,
    },
    /// The last reading of a service's source was refused or has recovered; for people.
    SourceStatus {
        /// The service.
        service: ServiceName,
        /// Why the reading was refused; `None` when it was taken.
        problem: Option<String>,
    },
    /// Somebody wants partitions to run or to be stopped.
    DesiredSet {
        /// The service.
        service: ServiceName,
        /// One partition, or the whole service.
        key: Option<PartitionKey>,
        /// What is wanted.
        desired: Desired,
    },
    /// Somebody wants partitions to be stopped and started again where they are.
    RestartAsked {
        /// The service.
        service: ServiceName,
        /// One partition, or the whole service.
        key: Option<PartitionKey>,
    },
    /// Whether new work may be placed on an agent, and whether its work is to leave.
    AgentSet {
        /// The agent.
        agent: AgentName,
        /// What is wanted.
        schedulable: Schedulable,
    },
    /// An agent that is gone for good is to be known no longer, nor what was wanted of it.
    AgentForgotten {
        /// The agent.
        agent: AgentName,
    },

    /// A warden begins a session for an agent. Frees nothing of an older one.
    SessionOpened {
        /// The new session.
        session: SessionId,
        /// First incarnation of the agent process that speaks for it.
        incarnation: Incarnation,
        /// The agent as it describes itself.
        agent: Box<AgentInfo>,
        /// Times of its lease class.
        lease: LeaseTimes,
        /// SHA-256 of the session's secret, in hexadecimal.
        secret_hash: String,
        /// Random number of the agent process: one process has one incarnation in all its sessions.
        process: u64,
    },
    /// A new agent process speaks for a living warden: same session, next incarnation.
    SessionResumed {
        /// The session.
        session: SessionId,
        /// The incarnation that counts from here on, for every session of the agent.
        incarnation: Incarnation,
        /// Random number of the agent process, which tells a repeat of the call.
        process: u64,
    },
    /// A session has ended with proof of death: everything it held is free.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Why, for people.
        reason: CloseReason,
    },
    /// A person takes what an agent is silent about, without proof that nothing of it executes: the one way
    /// around the rules, and therefore in the ledger with its reason. The sessions that it closes follow.
    Evicted {
        /// The agent.
        agent: AgentName,
        /// What the person gave as the reason.
        reason: Cause,
    },
    /// The leader has answered no renewal of this session for so long: the next leader need not wait for
    /// that time once more (R6).
    Silent {
        /// The session.
        session: SessionId,
        /// For how long, on the clocks of the leaders that recorded it.
        for_ms: u64,
    },
    /// The session was heard again, before it is answered.
    Heard {
        /// The session.
        session: SessionId,
    },
    /// A fence hook has succeeded: the agent of a silent session can do no more harm to the partitions
    /// whose service names this hook (T9 of the requirements: fencing by force).
    Fenced {
        /// The session, open or expired.
        session: SessionId,
        /// Its agent.
        agent: AgentName,
        /// Name of the hook.
        hook: HookName,
    },
    /// The clock of an agent runs at another rate than the leader's (R14); for people.
    Drifts {
        /// The agent.
        agent: AgentName,
        /// How much faster, in millionths.
        ppm: i64,
    },
    /// The directors have waited long enough to be sure that nothing of the session executes (R7).
    SessionExpired {
        /// The session.
        session: SessionId,
    },

    /// The leader chose a session for a partition. Nothing runs yet (R8).
    Assigned {
        /// The partition.
        partition: PartitionId,
        /// Who is to run it.
        session: SessionId,
        /// The fencing token of this assignment.
        token: Token,
    },
    /// The leader takes back what was assigned and not yet assumed.
    Withdrawn {
        /// The partition.
        partition: PartitionId,
        /// The token that ends.
        token: Token,
        /// Why, for people.
        reason: MoveReason,
    },
    /// The agent acknowledged, and only now may start (R9).
    Assumed {
        /// The partition.
        partition: PartitionId,
        /// Who assumed it.
        session: SessionId,
        /// Its token.
        token: Token,
    },
    /// The leader wants an assumed partition back; the agent stops it and releases (R11).
    Revoked {
        /// The partition.
        partition: PartitionId,
        /// Its token.
        token: Token,
        /// Why, for people.
        reason: MoveReason,
    },
    /// The agent has proven the whole process tree dead and gives the partition back (R10).
    Released {
        /// The partition.
        partition: PartitionId,
        /// Its token.
        token: Token,
        /// How it ended.
        outcome: ReleaseOutcome,
        /// How its last attempt ended, if there was one.
        exit: Option<Exit>,
        /// Failed attempts in a row at its end, those under earlier tokens included.
        failures: u32,
    },
    /// What an agent reports of a run it holds. Changes no right; `ready` frees a place in the ramp.
    Observed {
        /// The partition.
        partition: PartitionId,
        /// Its token.
        token: Token,
        /// What was seen.
        run: RunReport,
    },
    /// How far the owner of a partition has come, for the one after it. Changes no right (S2).
    CheckpointPut {
        /// The partition.
        partition: PartitionId,
        /// The token of the owner that says so.
        token: Token,
        /// Above that of every earlier one under this token.
        number: u64,
        /// What it says.
        content: Content,
        /// It did not come by way of the agent that holds the partition, which has to be told.
        tell: bool,
    },
    /// Tokens come and go, machines are let in: who may do what.
    Access(access::Record),
    /// From this entry on the ledger has a higher format: every director reads it, and it never falls again.
    Format {
        /// Which.
        format: Format,
    },
    /// Who has asked for the records before it, in the same entry.
    Audited(Box<Audit>),
    /// What the request with an idempotency key was answered that the records before it are of, in the same
    /// entry.
    Answered(Box<Answered>),
}

/// Whether partitions are to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// They are to run.
    #[default]
    Running,
    /// They are to be stopped.
    Stopped,
}

/// What an agent may be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedulable {
    /// New work, and what it has stays.
    #[default]
    Active,
    /// No new work; what it has stays.
    Cordoned,
    /// No new work, and what it has moves away.
    Draining,
}

/// A director as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorInfo {
    /// Its name in the cluster.
    pub name: DirectorName,
    /// Its random identity, minted with its data folder.
    pub id: u64,
    /// Where its API is reached.
    pub address: String,
    /// Version of its program, for people.
    pub version: String,
    /// Highest format of the ledger that it reads.
    pub format: Format,
    /// Lowest format of the ledger that it reads, for people.
    #[serde(default, skip_serializing_if = "Format::is_first")]
    pub oldest_format: Format,
}

/// An agent as it describes itself when a session opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its name in the cluster.
    pub name: AgentName,
    /// Random identity minted with its data folder; tells a restart from a namesake.
    pub id: u64,
    /// Where its processes are.
    pub place: Place,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Most weight it wants to hold; `None` means no limit.
    pub capacity: Option<u64>,
    /// What its kill path was proven to be.
    pub containment: Containment,
    /// Version of its program, for people.
    pub version: String,
}

/// Where an agent's processes are: one boot of one machine, and the folder that holds the agent's
/// identity there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which machine, as it tells; begins with [`Place::CERTAIN`] when no second machine has the same.
    pub machine: String,
    /// The kernel's boot identifier.
    pub boot: String,
    /// Tells the folder from a copy of it on the same machine.
    pub folder: u64,
}

impl Place {
    /// How the name of a machine begins that was given to the hardware, real or virtual, and not to an
    /// image that many machines may have been made from.
    pub const CERTAIN: &'static str = "uuid:";

    /// Whether nothing that executed there before executes any more: it is the same machine for certain,
    /// and it has been started anew since (R13, and the reboot rule of `docs/failure-model.md`).
    #[must_use]
    pub fn rebooted_since(&self, before: &Self) -> bool {
        self.machine.starts_with(Self::CERTAIN)
            && self.machine == before.machine
            && !self.boot.is_empty()
            && !before.boot.is_empty()
            && self.boot != before.boot
    }
}

/// How surely an agent can end a process tree (R19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// Programs end themselves when asked; only fencing protects.
    Cooperative,
    /// Subreaper and scans of the process table.
    Scan,
    /// A control group is killed as a whole.
    Cgroup,
    /// A PID namespace that the kernel clears.
    Kernel,
}

/// Why a session was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The agent left in order: everything had been released.
    Left,
    /// The agent died and its warden ended every run.
    AgentDied,
    /// The warden died and the agent has proof that the runs died with it.
    WardenDied,
    /// The machine was started anew, which ended everything on it.
    Rebooted,
    /// A person said so, at the risk that its processes still execute.
    Evicted,
}

/// Why a partition is taken from an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveReason {
    /// Its agent is draining.
    Drain,
    /// Another agent has room for it and the spread becomes more even.
    Balance,
    /// Somebody stopped it.
    Stopped,
    /// It was removed from its source, or with its service.
    Removed,
    /// Its agent is no longer allowed to hold it.
    Constraint,
    /// It kept failing where it was.
    Failing,
    /// The service's lease changed, which takes a stop and a start.
    LeaseChanged,
    /// Its agent has not acknowledged it in time, or did not want it.
    Unacknowledged,
}

/// How an assumption ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseOutcome {
    /// Stopped because the leader revoked it, or the agent was told to leave.
    Stopped,
    /// Its policy says that it should run somewhere else now.
    Move,
    /// Its policy says that its work is done: it stays stopped.
    Done,
    /// Its policy says that it is given up: it stays failed.
    Failed,
}

/// What an agent tells of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// Where it is in its life.
    pub phase: RunPhase,
    /// The how-manieth start under this token, from 1.
    pub attempt: u32,
    /// Process id of the command on its machine, while there is one.
    pub pid: Option<u32>,
    /// How the last attempt ended. Apart, because most runs have none and there are many.
    pub exit: Option<Box<Exit>>,
}

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPhase {
    /// Started, not yet ready.
    Starting,
    /// Ready.
    Ready,
    /// Ended, and waiting for its next attempt.
    Backoff,
    /// Asked to end.
    Stopping,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What it means.
    pub class: ExitClass,
    /// Exit code, when it exited.
    pub code: Option<u8>,
    /// Signal number, when a signal ended it.
    pub signal: Option<u8>,
    /// Why it could not be started, when it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// Why something failed, as the machine that saw it says. It comes from an agent and goes to the
/// terminals of people, so it is one line of at most [`Cause::MAX`] bytes without control characters,
/// wherever it was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Cause(Box<str>);

impl Cause {
    /// Most bytes: an error of the system with a path and what to do about it. The ledger keeps one for
    /// every failing partition.
    pub const MAX: usize = 300;

    /// Takes a text over, cut and cleaned where it must be.
    #[must_use]
    pub fn new(text: &str) -> Self {
        const CUT: char = '…';
        let clean = |letter: char| if letter.is_control() { ' ' } else { letter };
        let mut line: String = text.trim().chars().take(Self::MAX + 1).map(clean).collect();
        if line.len() > Self::MAX {
            let mut end = Self::MAX - CUT.len_utf8();
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            line.truncate(end);
            line.push(CUT);
        }
        Self(line.into())
    }

    /// The text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

/// What an exit means (F9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitClass {
    /// Exit code 0.
    Clean,
    /// The connection ended, not the program.
    Interrupted,
    /// The program failed.
    Crash,
    /// Somebody else ended it.
    Killed,
    /// quorate ended it.
    Stopped,
    /// It could not be started at all.
    NotStarted,
}

/// Why bytes of a ledger are not an entry that this build can fold.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A director of another version wrote it: stop folding and say so.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// The bytes are not an entry.
    #[error("entry cannot be decoded")]
    Malformed(#[source] rmp_serde::decode::Error),
}

impl Entry {
    /// Encodes with field names, so that a reader can tell what it does not know.
    ///
    /// # Panics
    /// Never for entries built by this crate: every field is encodable.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Room for the header, and for more than most records take.
        let mut bytes = Vec::with_capacity(256 + self.records.len() * 128);
        #[expect(
            clippy::expect_used,
            reason = "writing to memory cannot fail and all fields encode"
        )]
        rmp_serde::encode::write_named(&mut bytes, self).expect("entry encodes");
        bytes
    }

    /// Decodes what [`encode`](Self::encode) wrote, in any format that this build reads.
    ///
    /// # Errors
    /// As [`decode_of`](Self::decode_of).
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_of(bytes, FORMATS)
    }

    /// Decodes what [`encode`](Self::encode) wrote, in one of these formats.
    ///
    /// # Errors
    /// When it is of another format, or the bytes are not an entry.
    pub fn decode_of(bytes: &[u8], formats: Formats) -> Result<Self, DecodeError> {
        /// The records of a newer format may not decode at all.
        #[derive(Deserialize)]
        struct Head {
            header: Header,
        }
        let entry: Result<Self, _> = rmp_serde::from_slice(bytes);
        let header = match &entry {
            Ok(entry) => Some(entry.header),
            Err(_) => {
                let head: Result<Head, _> = rmp_serde::from_slice(bytes);
                head.ok().map(|head| head.header)
            }
        };
        if let Some(header) = header {
            formats.check(header.format)?;
        }
        entry.map_err(DecodeError::Malformed)
    }
}

/// Hash of an encoded entry, which the next entry carries as its predecessor.
#[must_use]
pub fn hash(encoded: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_one_line_of_bounded_length_wherever_it_comes_from() {
        assert_eq!(Cause::new(" a\n\x1b[31mb\t").as_str(), "a  [31mb");
        let exact = "é".repeat(150);
        assert_eq!(Cause::new(&exact).as_str(), exact);
        for long in ["x".repeat(301), "é".repeat(151), "€".repeat(1000)] {
            let cause = Cause::new(&long);
            assert!(cause.as_str().len() <= Cause::MAX && cause.as_str().ends_with('…'));
            let told: Cause = serde_json::from_value(long.into()).unwrap();
            assert_eq!(told, cause);
            assert_eq!(Cause::new(cause.as_str()), cause, "cut once");
        }
    }
}
