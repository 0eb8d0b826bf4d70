//! Judges what happened by looking at records, answers and processes only. It must never ask a machine
//! what it believes, nor use its code.
//!
//! - S1: the processes of one partition never overlap.
//! - S2: a resource that rejects lower tokens never locks the rightful owner out. Whoever begins finds what
//!   the last one before it said of its progress, and nobody whose right has ended changes that.
//! - S3: tokens that are assigned rise strictly, over all elections and restores.
//! - S4: what was answered as done or kept is in the ledger and seen by everybody who asks later, and
//!   nothing is done more often than it was asked.
//! - S5: a process starts only under a token whose assumption by its session is committed, and whose
//!   session has neither ended nor given it back. A partition is given back, closed, expired and given
//!   to another only when nothing of it executes any more, or a person has taken that upon them; and what
//!   ended the right before it is in the ledger: a release, a proof of death, the end of a lease where
//!   there is one and no hook is asked for, the success of the hook that is asked for, or that person.
//! - S7: a process that was replaced neither renews nor reports.
//!   When a restored cluster begins to give work away, nothing from before executes any more.
//! - S8: directors that have folded the same position have the same state.
//! - R14: what is said of a clock is true, whoever has a clock that bears no lease is drained, and nobody
//!   else is.
//!
//! Where clocks are beyond the model, what rests on clocks is not judged: S1, and S5 after an expiry.

mod answers;
mod checkpoints;
mod drift;
mod eras;
mod records;
mod rights;

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::{AgentName, Epoch, Incarnation, PartitionId, Position, SessionId, Token};
use quorate_core::record::{Record, Schedulable};

use crate::clock::Instant;

pub(crate) use answers::Noted;
pub(crate) use checkpoints::{Word, read, written};
pub(crate) use eras::Known;

/// A process tree on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Where.
    pub host: usize,
    /// The session of its warden.
    pub session: SessionId,
    /// Under which token.
    pub token: Token,
    /// The how-manieth start.
    pub attempt: u32,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// What was seen.
    pub seen: String,
}

/// A process that started or ended while it was watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Motion {
    /// Of which partition.
    pub name: String,
    /// Where.
    pub host: usize,
    /// Whether it started; otherwise it ended.
    pub started: bool,
}

/// What it remembers.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Whether clocks are as the model wants them.
    timed: bool,
    /// What executes, by service and key.
    executing: BTreeMap<String, Vec<Process>>,
    /// Machines whose processes stand still.
    paused: BTreeSet<usize>,
    /// Tokens that execute, by the slot that they were assigned for.
    slots: BTreeMap<PartitionId, Vec<Token>>,
    names: BTreeMap<Token, String>,
    epoch: Epoch,
    highest: Token,
    assigned: BTreeMap<Token, PartitionId>,
    assumed: BTreeMap<Token, SessionId>,
    /// The newest assumption of each slot.
    newest: BTreeMap<PartitionId, Token>,
    released: BTreeMap<Token, Position>,
    opened: BTreeSet<SessionId>,
    ended: BTreeMap<SessionId, Position>,
    agents: BTreeMap<AgentName, Vec<(Position, Schedulable)>>,
    last: Position,
    hashes: BTreeMap<Position, (usize, u64)>,
    /// What a resource that every run works on has accepted last.
    register: BTreeMap<String, Token>,
    /// Highest position that anybody was told.
    told: Position,
    /// Highest incarnation that an agent was told.
    speaks: BTreeMap<String, Incarnation>,
    told_sessions: BTreeSet<SessionId>,
    restarts_asked: u64,
    restarts: u64,
    /// Parts of a large change whose last one has not come.
    staged: Vec<Record>,
    rights: rights::Rights,
    words: checkpoints::Words,
    lost: eras::Lost,
    clocks: drift::Clocks,
    /// How many processes have ever started.
    pub starts: u64,
    /// Something was given back to run elsewhere, because it kept failing where it was. It counts apart from the
    /// balance for a while, by the wall clocks of the leaders.
    pub(crate) failed_somewhere: bool,
    /// Starts and ends since somebody began to watch.
    pub(crate) motions: Option<Vec<Motion>>,
    /// From here on nothing may start or end.
    pub(crate) still_from: Option<Instant>,
    violation: Option<Violation>,
}

impl Oracle {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(timed: bool) -> Self {
        Self {
            timed,
            ..Self::default()
        }
    }

    /// The first thing that went wrong.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Something went wrong.
    pub fn blame(&mut self, promise: &'static str, seen: String) {
        self.violation.get_or_insert(Violation { promise, seen });
    }

    /// A director has folded up to a position. Says whether nobody else was seen there before.
    pub fn folded(&mut self, director: usize, position: Position, hash: u64) -> bool {
        if position > self.last {
            let seen = format!("director {director} has folded {position}, which is not there");
            self.blame("S4", seen);
        }
        let Some((other, expected)) = self.hashes.get(&position).copied() else {
            self.hashes.insert(position, (director, hash));
            return true;
        };
        if expected != hash {
            let seen = format!("directors {director} and {other} differ at position {position}");
            self.blame("S8", seen);
        }
        false
    }

    /// A process begins to execute.
    pub fn starts(&mut self, now: Instant, partition: &str, process: Process) {
        self.starts += 1;
        self.move_noted(now, partition, process.host, true);
        let Process { session, token, .. } = process;
        if self.assumed.get(&token) != Some(&session) {
            let seen =
                format!("{now}: {partition} started, not assumed by its session: {process:?}");
            self.blame("S5", seen);
        }
        let waived = self.rights.waived(session) && !self.released.contains_key(&token);
        if waived {
            self.starts_after_waiver(now, session);
        }
        let over = self.ended.get(&session).or(self.released.get(&token));
        let over = over.filter(|_| !waived);
        if let Some(position) = over
            && (self.timed || self.released.contains_key(&token))
        {
            let seen =
                format!("{now}: {partition} started, its right ended at {position}: {process:?}");
            self.blame("S5", seen);
        }
        if let Some(slot) = self.assigned.get(&token) {
            self.slots.entry(*slot).or_default().push(token);
        }
        self.names.insert(token, partition.to_owned());
        self.right_is_sure(token);
        let executing = self.executing.entry(partition.to_owned()).or_default();
        executing.push(process);
        self.check_alone(now, partition);
    }

    fn check_alone(&mut self, now: Instant, partition: &str) {
        let Some(executing) = self.executing.get(partition) else {
            return;
        };
        let awake = executing.iter();
        let awake = awake.filter(|process| !self.paused.contains(&process.host));
        // What a person has taken from a silent agent may go on beside the next one, and nothing else.
        let awake = awake.filter(|process| !self.rights.waived(process.session));
        if self.timed && awake.count() > 1 {
            let seen = format!("{now}: {partition} executes more than once: {executing:?}");
            self.blame("S1", seen);
        }
    }

    /// Nothing of a process executes any more.
    pub fn ends(&mut self, now: Instant, partition: &str, process: &Process) {
        let Some(executing) = self.executing.get_mut(partition) else {
            return;
        };
        let before = executing.len();
        executing.retain(|other| other != process);
        let gone = before - executing.len();
        if executing.is_empty() {
            self.executing.remove(partition);
        }
        let slot = self.assigned.get(&process.token).copied();
        if let Some(tokens) = slot.and_then(|slot| self.slots.get_mut(&slot))
            && let Some(at) = tokens.iter().position(|token| *token == process.token)
        {
            tokens.swap_remove(at);
        }
        if gone > 0 {
            self.move_noted(now, partition, process.host, false);
        }
    }

    /// Everything on a machine stands still.
    pub(crate) fn pauses(&mut self, host: usize) {
        self.paused.insert(host);
    }

    /// What is left on a machine goes on.
    pub(crate) fn resumes(&mut self, now: Instant, host: usize) {
        self.paused.remove(&host);
        let here = self.executing.iter();
        let here = here.filter(|(_, all)| all.iter().any(|process| process.host == host));
        let here: Vec<String> = here.map(|(name, _)| name.clone()).collect();
        for name in here {
            self.check_alone(now, &name);
        }
    }

    /// A write reaches the resource that the run of a partition works on.
    pub(crate) fn written(&mut self, now: Instant, partition: &str, token: Token) {
        let last = self.register.entry(partition.to_owned()).or_default();
        if token >= *last {
            *last = token;
            return;
        }
        let (last, slot) = (*last, self.assigned.get(&token));
        let newest = slot.and_then(|slot| self.newest.get(slot));
        if newest == Some(&token) && self.executes(token) {
            let seen = format!(
                "{now}: {partition} under its newest token {token} is rejected, {last} wrote before"
            );
            self.blame("S2", seen);
        }
    }

    /// Whether a process under this token executes.
    fn executes(&self, token: Token) -> bool {
        let mut processes = self.processes(token);
        processes.any(|process| !self.paused.contains(&process.host))
    }

    /// Whether there is a process under this token, perhaps on a machine that is suspended.
    fn exists(&self, token: Token) -> bool {
        self.processes(token).next().is_some()
    }

    fn processes(&self, token: Token) -> impl Iterator<Item = &Process> {
        let name = self.names.get(&token);
        let all = name.and_then(|name| self.executing.get(name));
        let all = all.into_iter().flatten();
        all.filter(move |process| process.token == token)
    }

    fn move_noted(&mut self, now: Instant, name: &str, host: usize, started: bool) {
        let what = if started { "started" } else { "ended" };
        if self.still_from.is_some_and(|from| now >= from) {
            let seen = format!(
                "{now}: {name} {what} on {host}, though every outage was shorter than its lease allows"
            );
            self.blame("L2", seen);
        }
        if let Some(motions) = &mut self.motions {
            motions.push(Motion {
                name: name.to_owned(),
                host,
                started,
            });
        }
    }

    /// Where a partition executes.
    #[must_use]
    pub fn host_of(&self, partition: &str) -> Option<usize> {
        let executing = self.executing.get(partition)?;
        executing.first().map(|process| process.host)
    }

    /// Everything that executes and where.
    pub fn executing(&self) -> impl Iterator<Item = (&str, usize)> {
        let all = self.executing.iter();
        all.flat_map(|(name, all)| all.iter().map(|process| (name.as_str(), process.host)))
    }
}
