//! The agent's decisions: which wardens it needs, how long each session may execute, what runs under
//! which token, and what the directors are told.
//!
//! One machine per agent process; one [`session`] per warden, one warden per lease class.
//! It knows no network and no process: the shell carries out [`Effect`]s and tells [`Event`]s.
//!
//! What it must never do: start anything that the directors have not answered as assumed in this
//! process (R9), that is not covered by an armed deadline, or with less than the grace time left;
//! take in any answer before it has looked whether the deadline has passed (R2); count a lease from
//! anything but the moment of sending (R1); give back a token whose process tree is not proven dead
//! (R10).
//!
//! ```text
//!   directors ◄── open, report, close ── agent machine ── arm, start, signal, kill ──► warden
//!             ─── opened, work, renewed, reported ──►  ◄── started, ready, ended ────
//! ```

mod classes;
mod desk;
mod outbox;
mod run;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Content;
pub use crate::director::call::{Checkpoints, Report};
use crate::ids::{
    ClusterId, Incarnation, PartitionId, PartitionKey, ServiceName, SessionId, Token,
};
use crate::lease::LeaseTimes;
use crate::planted::Plants;
use crate::record::{Cause, CloseReason};
use crate::spec::ServiceSpec;
use crate::spec::values::ValueError;
use crate::supervision::Policy;
use crate::time::Moment;

use classes::Classes;
pub use session::Phase;
use session::Session;

/// Number of a warden in the agent's data folder; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WardenId(pub u64);

/// One process tree: a token and the attempt under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId {
    /// Fencing token.
    pub token: Token,
    /// The how-manieth start under it, from 1.
    pub attempt: u32,
}

/// How to run a service, read once and shared by its partitions.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// The specification.
    pub spec: ServiceSpec,
    /// Its supervision.
    pub policy: Policy,
    /// Changes when a run would be started differently: then it is restarted in place. Everything
    /// else in a specification is taken over without a restart.
    pub recipe: u64,
}

impl Service {
    /// Reads a specification.
    ///
    /// # Errors
    /// When one of its texts cannot be read, which validation refuses earlier.
    pub fn new(spec: ServiceSpec) -> Result<Self, ValueError> {
        let policy = Policy::of(&spec)?;
        let recipe = (
            &spec.command,
            &spec.working_dir,
            &spec.user,
            &spec.env,
            &spec.limits,
            spec.ready.notify,
        );
        #[expect(
            clippy::expect_used,
            reason = "writing to memory cannot fail and all fields encode"
        )]
        let bytes = rmp_serde::to_vec_named(&recipe).expect("recipe encodes");
        Ok(Self {
            policy,
            recipe: xxhash_rust::xxh3::xxh3_64(&bytes),
            spec,
        })
    }
}

/// Pairs an answer with the run that asked for a checkpoint to be kept. The shell draws them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the ledger, or a later one of the same run is.
    Kept {
        /// The token under which it is.
        token: Token,
        /// Its number.
        number: u64,
    },
    /// It is not: the token is not, or no longer, the present one.
    Ended {
        /// The token.
        token: Token,
    },
    /// Nobody here will know: the session of the run has ended meanwhile.
    Unknown,
}

/// The latest checkpoint of a partition that an agent knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Under which token it was written.
    pub token: Token,
    /// Its number.
    pub number: u64,
    /// What was written.
    pub content: Content,
}

/// A run as its program may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// What it is; `None` when this process has only just taken it over, and nobody has named it yet.
    pub item: Option<&'a Arc<Item>>,
    /// Its partition's latest checkpoint.
    pub checkpoint: Option<&'a Latest>,
    /// By when it must be dead.
    pub deadline: Option<Moment>,
}

/// What the directors want a session to do with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Assume it, then run it.
    Running,
    /// End it and give it back.
    Stopped,
}

/// One partition in the hands of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its slot.
    pub partition: PartitionId,
    /// Its token.
    pub token: Token,
    /// What is to be done with it.
    pub wanted: Wanted,
    /// Its service.
    pub service: ServiceName,
    /// Its key.
    pub key: PartitionKey,
    /// Its data as JSON text.
    pub data: Option<Arc<str>>,
    /// Changes with the data.
    pub data_version: u64,
    /// Rises with every restart that somebody asks for.
    pub restarts_asked: u32,
    /// Failed attempts in a row before this token.
    pub failures: u32,
    /// How far its owners have come.
    pub checkpoint: Option<Latest>,
    /// How to run it.
    pub how: Arc<Service>,
}

/// What a session is to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// `items` is everything; otherwise only changes.
    pub whole: bool,
    /// New and changed ones.
    pub items: Vec<Item>,
    /// Tokens that the session does not hold any more.
    pub gone: Vec<Token>,
}

/// A session as the directors opened or resumed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The session.
    pub session: SessionId,
    /// This agent process.
    pub incarnation: Incarnation,
    /// The cluster whose tokens its runs get.
    pub cluster: ClusterId,
    /// Times of its class.
    pub times: LeaseTimes,
}

/// What a warden keeps for the next agent process, beside the shell's own secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The session.
    pub session: SessionId,
    /// Times of its class.
    pub times: LeaseTimes,
    /// What its runs were started with.
    pub notes: BTreeMap<Token, Note>,
}

/// What a run was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its slot.
    pub partition: PartitionId,
    /// [`Service::recipe`].
    pub recipe: u64,
    /// [`Item::data_version`].
    pub data_version: u64,
    /// [`Item::restarts_asked`].
    pub restarts_asked: u32,
}

/// A run that a living warden holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundRun {
    /// The run.
    pub run: RunId,
    /// Process id of its command.
    pub pid: u32,
    /// How it ended, when it has and nobody took that in.
    pub ended: Option<RunEnd>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// Exit code.
    pub code: Option<u8>,
    /// Signal that ended it.
    pub signal: Option<u8>,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A warden of an earlier agent process lives. Only before [`Event::Began`].
    Found {
        /// The warden.
        warden: WardenId,
        /// What it keeps.
        kept: Kept,
        /// Its deadline as armed.
        deadline: Option<Moment>,
        /// What it holds.
        runs: Vec<FoundRun>,
    },
    /// All living wardens have been told: begin.
    Began,
    /// These lease classes are in use in the cluster, and no others: there is to be a session for each.
    Classes(Vec<Duration>),
    /// A warden is up.
    Spawned {
        /// The warden.
        warden: WardenId,
    },
    /// A warden is gone, or never came up.
    WardenGone {
        /// The warden.
        warden: WardenId,
        /// Whether everything that it held is proven dead.
        proven: bool,
    },
    /// The directors opened or resumed the session.
    Opened {
        /// The warden.
        warden: WardenId,
        /// The session.
        opened: Opened,
    },
    /// Opening or resuming had no answer, or a refusal that may pass.
    OpenFailed {
        /// The warden.
        warden: WardenId,
    },
    /// The directors say that the session has ended, or that another process speaks for it.
    Lost {
        /// The warden.
        warden: WardenId,
    },
    /// A renewal that was sent at this moment was answered.
    Renewed {
        /// The warden.
        warden: WardenId,
        /// When it was sent.
        sent: Moment,
    },
    /// What the session is to hold.
    Work {
        /// The warden.
        warden: WardenId,
        /// The work.
        work: Work,
    },
    /// A report was answered.
    Reported {
        /// The warden.
        warden: WardenId,
        /// Its sequence.
        sequence: u64,
        /// Tokens that may start.
        assumed: Vec<Token>,
        /// Tokens that are not the session's.
        refused: Vec<Token>,
    },
    /// A report had no answer.
    ReportUnanswered {
        /// The warden.
        warden: WardenId,
        /// Its sequence.
        sequence: u64,
    },
    /// The directors closed the session.
    Closed {
        /// The warden.
        warden: WardenId,
    },
    /// Closing had no answer.
    CloseUnanswered {
        /// The warden.
        warden: WardenId,
    },
    /// A command executes.
    Started {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
        /// Its process id.
        pid: u32,
    },
    /// A command could not be executed; nothing of it lives.
    NotStarted {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
        /// Why.
        cause: Cause,
    },
    /// A run said that it is ready.
    Notified {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
    },
    /// A run wants a checkpoint to be kept. Answered by [`Effect::AnswerCheckpoint`].
    CheckpointAsked {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
        /// Names the answer.
        ask: AskId,
        /// What it says.
        content: Content,
    },
    /// A call about checkpoints was answered.
    CheckpointsAnswered {
        /// The warden.
        warden: WardenId,
        /// The call.
        call: u64,
        /// Tokens whose checkpoint is kept; the others of the call may not write.
        kept: Vec<Token>,
    },
    /// A call about checkpoints had no answer.
    CheckpointsUnanswered {
        /// The warden.
        warden: WardenId,
        /// The call.
        call: u64,
    },
    /// Nothing of a run executes any more.
    Ended {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
        /// Exit code of the command.
        code: Option<u8>,
        /// Signal that ended the command.
        signal: Option<u8>,
    },
    /// Leave in order: stop everything, give it back, close the sessions.
    Shutdown,
    /// Time has passed.
    Woke,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start a warden in a new folder of this number.
    SpawnWarden {
        /// The warden.
        warden: WardenId,
        /// The lease class that it is for.
        lease: Duration,
    },
    /// Open a session for a warden. The shell draws its secret once and uses it in every repeat.
    Open {
        /// The warden.
        warden: WardenId,
        /// Its lease class.
        lease: Duration,
    },
    /// Speak for a session that an earlier process opened.
    Resume {
        /// The warden.
        warden: WardenId,
        /// The session.
        session: SessionId,
    },
    /// From here on renew the session and fetch its work, until [`Effect::Discard`].
    Follow {
        /// The warden.
        warden: WardenId,
        /// The session.
        opened: Opened,
    },
    /// Let the warden keep this.
    Keep {
        /// The warden.
        warden: WardenId,
        /// What.
        kept: Kept,
    },
    /// Move the deadline of the warden forward.
    Arm {
        /// The warden.
        warden: WardenId,
        /// To here.
        deadline: Moment,
    },
    /// Start a run.
    Start {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
        /// What and how.
        item: Arc<Item>,
        /// How far its partition's owners have come.
        checkpoint: Option<Latest>,
    },
    /// Send a signal to the command of a run.
    Signal {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
        /// Signal number.
        signal: u8,
    },
    /// Write the new data where the run finds it.
    WriteData {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
        /// The data.
        item: Arc<Item>,
    },
    /// Kill every process of a run.
    Kill {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
    },
    /// The warden may forget the end of a run.
    Forget {
        /// The warden.
        warden: WardenId,
        /// The run.
        run: RunId,
    },
    /// Send a report.
    Report {
        /// The warden.
        warden: WardenId,
        /// The report.
        report: Report,
    },
    /// Tell the directors how far runs have come.
    Checkpoints {
        /// The warden.
        warden: WardenId,
        /// Names the answer; a repeat has the same.
        call: u64,
        /// What the runs say.
        checkpoints: Checkpoints,
    },
    /// Answer a run.
    AnswerCheckpoint {
        /// Which question.
        ask: AskId,
        /// What became of it.
        outcome: Fate,
    },
    /// Close the session: nothing of it executes any more.
    Close {
        /// The warden.
        warden: WardenId,
        /// Why.
        reason: CloseReason,
    },
    /// Kill everything that the warden holds, end it, and stop all calls of its session.
    Discard {
        /// The warden.
        warden: WardenId,
        /// Why, for people.
        why: &'static str,
    },
    /// Tell [`Event::Woke`] at this moment at the latest; replaces the one before.
    WakeAt(Moment),
    /// Nothing is left to do: the process may end.
    Done,
}

/// The machine of one agent process.
#[derive(Debug)]
pub struct Agent {
    sessions: BTreeMap<WardenId, Session>,
    classes: Classes,
    next_warden: WardenId,
    began: bool,
    leaving: bool,
    done: bool,
    wake_at: Option<Moment>,
    plants: Plants,
}

impl Agent {
    /// An agent for these lease classes. Wardens get numbers from `first_warden` on.
    #[must_use]
    pub fn new(leases: &[Duration], first_warden: WardenId) -> Self {
        Self {
            sessions: BTreeMap::new(),
            classes: Classes::always(leases),
            next_warden: first_warden,
            began: false,
            leaving: false,
            done: false,
            wake_at: None,
            plants: Plants::default(),
        }
    }

    /// The same with a bug, to see whether it is found.
    #[must_use]
    pub fn with_plants(self, plants: Plants) -> Self {
        Self { plants, ..self }
    }

    /// The state of each session, for people and tests.
    pub fn sessions(&self) -> impl Iterator<Item = (WardenId, Phase, Option<Moment>)> {
        self.sessions
            .iter()
            .map(|(&warden, session)| (warden, session.phase(), session.deadline()))
    }

    /// A run as its program may see it; `None` when it is none of this agent's.
    #[must_use]
    pub fn see(&self, warden: WardenId, run: RunId) -> Option<Seen<'_>> {
        self.sessions.get(&warden)?.see(run)
    }

    /// Takes in what has happened; appends what is to be done.
    pub fn step(&mut self, now: Moment, event: Event, effects: &mut Vec<Effect>) {
        // R2: before anything else, whatever the event is.
        for session in self.sessions.values_mut() {
            session.watch_deadline(now, effects);
        }
        self.take(now, event, effects);
        self.give_up_unused(now, effects);
        for session in self.sessions.values_mut() {
            session.watch_grace(now, effects);
            session.flush(now, effects);
        }
        self.bury(now);
        self.spawn(now, effects);
        self.finish(effects);
        self.set_alarm(now, effects);
    }

    fn take(&mut self, now: Moment, event: Event, effects: &mut Vec<Effect>) {
        let warden = match event {
            Event::Found {
                warden,
                kept,
                deadline,
                runs,
            } => return self.found(now, warden, kept, deadline, &runs, effects),
            Event::Began => {
                self.began = true;
                return;
            }
            Event::Classes(leases) => {
                self.classes.in_use(now, leases);
                return;
            }
            Event::Shutdown => {
                self.leaving = true;
                for session in self.sessions.values_mut() {
                    session.leave(now, effects);
                }
                return;
            }
            Event::Woke => {
                // The alarm has gone off; whatever is still to come needs a new one.
                self.wake_at = None;
                for session in self.sessions.values_mut() {
                    session.woke(now, effects);
                }
                return;
            }
            Event::Spawned { warden }
            | Event::WardenGone { warden, .. }
            | Event::Opened { warden, .. }
            | Event::OpenFailed { warden }
            | Event::Lost { warden }
            | Event::Renewed { warden, .. }
            | Event::Work { warden, .. }
            | Event::Reported { warden, .. }
            | Event::ReportUnanswered { warden, .. }
            | Event::Closed { warden }
            | Event::CloseUnanswered { warden }
            | Event::Started { warden, .. }
            | Event::NotStarted { warden, .. }
            | Event::Notified { warden, .. }
            | Event::CheckpointAsked { warden, .. }
            | Event::CheckpointsAnswered { warden, .. }
            | Event::CheckpointsUnanswered { warden, .. }
            | Event::Ended { warden, .. } => warden,
        };
        // A discarded warden may still be heard of; it has no rights any more.
        if let Some(session) = self.sessions.get_mut(&warden) {
            session.step(now, event, effects);
        } else if let Event::CheckpointAsked { run, ask, .. } = event {
            let outcome = Fate::Ended { token: run.token };
            effects.push(Effect::AnswerCheckpoint { ask, outcome });
        }
    }

    fn found(
        &mut self,
        now: Moment,
        warden: WardenId,
        kept: Kept,
        deadline: Option<Moment>,
        runs: &[FoundRun],
        effects: &mut Vec<Effect>,
    ) {
        let lease = kept.times.lease;
        self.classes.found(lease);
        self.next_warden = self.next_warden.max(WardenId(warden.0 + 1));
        let mut session = Session::found(now, warden, kept, deadline, runs, effects);
        session.plants = self.plants;
        session.watch_deadline(now, effects);
        self.sessions.insert(warden, session);
    }

    /// Removes the sessions that are over, and says when their classes may try again.
    fn bury(&mut self, now: Moment) {
        let over: Vec<WardenId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.phase() == Phase::Over)
            .map(|(&warden, _)| warden)
            .collect();
        for warden in over {
            let Some(session) = self.sessions.remove(&warden) else {
                continue;
            };
            let (lease, was_live) = (session.lease(), session.was_live());
            self.classes.ended(now, lease, warden.0, was_live);
        }
    }

    /// Closes what no service asks for and nothing is held under.
    fn give_up_unused(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for lease in self.classes.given_up(now) {
            let sessions = self.sessions.values_mut();
            for session in sessions.filter(|one| one.lease() == lease && one.is_empty()) {
                session.leave(now, effects);
            }
        }
    }

    fn spawn(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if !self.began || self.leaving {
            return;
        }
        let have: Vec<Duration> = self.sessions.values().map(Session::lease).collect();
        for lease in self.classes.due(now, &have) {
            let warden = self.next_warden;
            self.next_warden = WardenId(warden.0 + 1);
            let mut session = Session::new(warden, lease);
            session.plants = self.plants;
            self.sessions.insert(warden, session);
            effects.push(Effect::SpawnWarden { warden, lease });
        }
    }

    fn finish(&mut self, effects: &mut Vec<Effect>) {
        if self.leaving && self.sessions.is_empty() && !self.done {
            self.done = true;
            effects.push(Effect::Done);
        }
    }

    fn set_alarm(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let classes = self.classes.next(now).filter(|_| !self.leaving);
        let next = self
            .sessions
            .values()
            .filter_map(Session::wake_at)
            .chain(classes)
            .min();
        if next != self.wake_at {
            self.wake_at = next;
            effects.extend(next.map(Effect::WakeAt));
        }
    }
}

/// How long to wait before trying again for the so-manieth time: nothing at first, then from 100 ms
/// doubling to 5 s, spread by 20 %.
fn retry_wait(seed: u64, tries: u32) -> Duration {
    let Some(doublings) = tries.checked_sub(1) else {
        return Duration::ZERO;
    };
    let plain = Duration::from_millis(100) * (1 << doublings.min(6));
    jitter(plain.min(Duration::from_secs(5)), seed, u64::from(tries))
}

/// Spreads a wait by ±20 %, by two numbers instead of by chance.
fn jitter(wait: Duration, one: u64, other: u64) -> Duration {
    let mut seed = [0; 16];
    let (low, high) = seed.split_at_mut(8);
    low.copy_from_slice(&one.to_le_bytes());
    high.copy_from_slice(&other.to_le_bytes());
    let permille = 800 + xxhash_rust::xxh3::xxh3_64(&seed) % 401;
    let nanos = wait.as_nanos().saturating_mul(u128::from(permille)) / 1000;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
