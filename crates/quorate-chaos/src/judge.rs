//! The referee: from announcements and true exits, in the order in which they happened, it says what of the
//! promises is broken. Pure: no clock, no process, no file; [`crate::desk`] feeds it.
//!
//! Whoever feeds it has taken in every exit that has happened before it takes in an announcement. So a
//! process that is alive here when another one is announced really was, whatever the scheduling of the
//! referee: there is no tolerance anywhere.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::records::Record;

/// How many runs of a partition are remembered by the last moment that they wrote down themselves.
const REMEMBERED: usize = 8;

/// The number of a process, in the order of announcements.
pub(crate) type Id = u64;

/// Which start: token and attempt under it.
pub(crate) type Run = (u64, u64);

/// What a process says before it does anything.
#[derive(Clone, Debug)]
pub(crate) struct Announced {
    /// `SERVICE/KEY`.
    pub(crate) partition: String,
    pub(crate) run: Run,
    pub(crate) agent: String,
    /// 0 for the command itself.
    pub(crate) daemon: u32,
    pub(crate) pid: u32,
    /// When it says it began, on the referee's clock.
    pub(crate) clock: u64,
    /// The token in its token file.
    pub(crate) filed: u64,
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (token, attempt) = self.run;
        let who = if self.daemon == 0 {
            "command".to_owned()
        } else {
            format!("daemon {}", self.daemon)
        };
        let (partition, agent, pid) = (&self.partition, &self.agent, self.pid);
        write!(
            f,
            "{who} of {partition} with token {token}, attempt {attempt}, on {agent}, pid {pid}"
        )
    }
}

/// The promises that are judged; the numbers are those of `docs/proof.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// Processes of one partition never overlap.
    S1,
    /// A resource never sees a lower token after a higher one.
    S2,
    /// Tokens rise.
    S3,
    /// Nothing starts without a committed assumption, and no start happens twice.
    S5,
    /// What is to run runs, exactly once.
    L1,
    /// What need not stop does not stop.
    L2,
}

impl Promise {
    pub(crate) const ALL: [Self; 6] = [Self::S1, Self::S2, Self::S3, Self::S5, Self::L1, Self::L2];

    /// What it says.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::S1 => "processes of one partition never overlap",
            Self::S2 => "no write arrives under a lower token than one before",
            Self::S3 => "tokens rise, and each belongs to one partition",
            Self::S5 => "nothing starts without a committed assumption, or twice",
            Self::L1 => "what is to run runs again, exactly once",
            Self::L2 => "what need not stop does not stop",
        }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) promise: Promise,
    pub(crate) at: u64,
    pub(crate) text: String,
}

/// A start of a command, for the figures.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) partition: String,
    pub(crate) run: Run,
    pub(crate) agent: String,
    pub(crate) at: u64,
    /// How the run before ended.
    pub(crate) before: Option<End>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// When its last process was gone.
    pub(crate) at: u64,
    pub(crate) agent: String,
    /// Whether its command had heard that it is to stop.
    pub(crate) asked: bool,
    /// The last moment that one of its processes wrote down.
    pub(crate) wrote: u64,
}

/// A command that executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) id: Id,
    pub(crate) run: Run,
    pub(crate) agent: String,
}

/// When the daemons of an agent may be there beside the next run.
#[derive(Clone, Copy, Debug)]
struct Frozen {
    from: u64,
    /// When it was no longer frozen.
    thawed: Option<u64>,
    until: u64,
}

#[derive(Debug, Default)]
struct Partition {
    /// The highest start there was.
    last: Option<Run>,
    /// How the last run ended, as far as it has.
    ended: Option<End>,
    /// The last moment that ended runs wrote down.
    written: BTreeMap<Run, u64>,
}

/// Everything the referee knows.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    live: BTreeMap<Id, Announced>,
    partitions: BTreeMap<String, Partition>,
    /// Whose a token is.
    owners: BTreeMap<u64, String>,
    next: Id,
    /// Starts that nobody has taken yet.
    starts: Vec<Start>,
    /// Agents whose daemons cannot be ended as long as they are frozen, by the last time that they were.
    frozen: BTreeMap<String, Frozen>,
    /// Runs of which daemons were there beside the next one, and which of them.
    lingering: BTreeMap<(String, u64), BTreeSet<u32>>,
    /// When each of them could be ended, and was gone.
    lingered_until: Vec<(u64, u64)>,
    pub(crate) violations: Vec<Violation>,
    /// What was counted: processes that began and ended, and moments they wrote down.
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) beats: u64,
}

impl Judge {
    /// A process exists and waits for its order. Its number is given out even when it must not be there.
    pub(crate) fn announced(&mut self, who: Announced, at: u64) -> Id {
        let id = self.next;
        self.next += 1;
        self.began += 1;
        self.overlaps(&who, at);
        if who.filed != who.run.0 {
            let text = format!("{who}: its token file says {}", who.filed);
            self.broken(Promise::S3, at, text);
        }
        let owner = self
            .owners
            .entry(who.run.0)
            .or_insert_with(|| who.partition.clone());
        if *owner != who.partition {
            let text = format!("{who}: the token was given to {owner} before");
            self.broken(Promise::S3, at, text);
        }
        if who.daemon == 0 {
            self.started(&who, at);
        }
        self.live.insert(id, who);
        id
    }

    /// S1, by two proofs that do not depend on each other: which processes exist, and what they wrote.
    fn overlaps(&mut self, who: &Announced, at: u64) {
        // Of one run there is each process once, too.
        let second = |other: &Announced| other.run != who.run || other.daemon == who.daemon;
        let others = self
            .live
            .values()
            .filter(|other| other.partition == who.partition && second(other));
        let (excused, others): (Vec<&Announced>, Vec<&Announced>) =
            others.partition(|other| self.may_linger(who, other, at));
        let texts: Vec<String> = others
            .into_iter()
            .map(|other| format!("{who} began while there was still the {other}"))
            .collect();
        let earlier = |other: &&Announced| {
            let daemon = if other.run < who.run { *other } else { who };
            (daemon.run.0, daemon.daemon)
        };
        let lingering: Vec<(u64, u32)> = excused.iter().map(earlier).collect();
        for (token, daemon) in lingering {
            let run = (who.partition.clone(), token);
            self.lingering.entry(run).or_default().insert(daemon);
        }
        for text in texts {
            self.broken(Promise::S1, at, text);
        }
        let partition = self.partitions.entry(who.partition.clone()).or_default();
        let later = partition
            .written
            .iter()
            .filter(|&(&run, &last)| run != who.run && last >= who.clock)
            .map(|(run, last)| {
                format!(
                    "{who} began at {}, token {} wrote until {last}",
                    who.clock, run.0
                )
            });
        let texts: Vec<String> = later.collect();
        for text in texts {
            self.broken(Promise::S1, at, text);
        }
    }

    /// Whether the earlier of these two runs is there as a daemon that nobody could end.
    fn may_linger(&self, one: &Announced, other: &Announced, at: u64) -> bool {
        let earlier = if one.run < other.run { one } else { other };
        let frozen = self.frozen.get(&earlier.agent);
        one.run.0 != other.run.0
            && earlier.daemon != 0
            && frozen.is_some_and(|frozen| (frozen.from..=frozen.until).contains(&at))
    }

    /// An agent and everything of it is frozen: from that moment on, and until [`Judge::thaws`] says more, daemons of its
    /// runs may be there beside the next run. Only where the grade of containment promises no more.
    pub(crate) fn freezes(&mut self, agent: &str, from: u64) {
        let frozen = Frozen {
            from,
            thawed: None,
            until: u64::MAX,
        };
        self.frozen.insert(agent.to_owned(), frozen);
    }

    /// It is frozen no longer, and has so long to end them.
    pub(crate) fn thaws(&mut self, agent: &str, at: u64, within: u64) {
        if let Some(frozen) = self.frozen.get_mut(agent) {
            frozen.thawed = Some(at);
            frozen.until = at + within;
        }
    }

    /// Until when daemons may be there beside the next run.
    pub(crate) fn lingers_until(&self) -> u64 {
        let all = self.frozen.values().map(|frozen| frozen.until);
        all.max().unwrap_or_default()
    }

    /// Whether a write under this token at this moment may be that of a daemon that nobody could end.
    pub(crate) fn may_write_late(&self, partition: &str, token: u64, at: u64) -> bool {
        let run = (partition.to_owned(), token);
        self.lingering.contains_key(&run) && at <= self.lingers_until()
    }

    /// S1: what is there though a later run of its partition has begun, and nothing excuses it any more.
    pub(crate) fn outlived(&mut self, at: u64) {
        let later = |who: &&Announced| {
            let partition = self.partitions.get(&who.partition);
            partition.is_some_and(|partition| partition.last > Some(who.run))
        };
        let texts =
            self.live.values().filter(later).map(|who| {
                format!("the {who} is there, and the next run of its partition has begun")
            });
        let texts: Vec<String> = texts.collect();
        for text in texts {
            self.broken(Promise::S1, at, text);
        }
    }

    /// How many daemons were there beside the next run of their partition, and nobody could end them.
    pub(crate) fn lingered(&self) -> usize {
        self.lingering.values().map(BTreeSet::len).sum()
    }

    /// When daemons that nobody could end before could be ended, and were gone, since this was asked last.
    pub(crate) fn take_lingered(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.lingered_until)
    }

    fn started(&mut self, who: &Announced, at: u64) {
        let partition = self.partitions.entry(who.partition.clone()).or_default();
        let last = partition.last;
        let before = partition.ended.clone();
        partition.last = Some(last.map_or(who.run, |last| last.max(who.run)));
        if last == Some(who.run) {
            self.broken(Promise::S5, at, format!("{who} was started a second time"));
        }
        if let Some((token, attempt)) = last.filter(|&last| last > who.run) {
            let text = format!("{who} began after token {token}, attempt {attempt}");
            self.broken(Promise::S3, at, text);
        }
        self.starts.push(Start {
            partition: who.partition.clone(),
            run: who.run,
            agent: who.agent.clone(),
            at,
            before,
        });
    }

    /// A process is gone, seen at this moment, and has left this record.
    pub(crate) fn exited(&mut self, id: Id, at: u64, record: Record) {
        let Some(who) = self.live.remove(&id) else {
            return;
        };
        self.ended += 1;
        self.beats += record.beats;
        if record.last > at || record.broken > 0 {
            let text =
                format!("{who} was gone at {at}, but its record goes on or is broken: {record:?}");
            self.broken(Promise::S1, at, text);
        }
        let run = (who.partition.clone(), who.run.0);
        let lingered = self.lingering.get(&run);
        if lingered.is_some_and(|daemons| daemons.contains(&who.daemon))
            && let Some(frozen) = self.frozen.get(&who.agent)
        {
            // One that was gone before had nobody to end it: it ended by itself.
            self.lingered_until
                .extend(frozen.thawed.map(|thawed| (thawed, at)));
        }
        let partition = self.partitions.entry(who.partition).or_default();
        let asked = match (who.daemon, &partition.ended) {
            (0, _) | (_, None) => record.stopping.is_some(),
            // A daemon hears nothing; what counts is its command.
            (_, Some(ended)) => ended.asked,
        };
        let written = partition.written.entry(who.run).or_default();
        *written = record.last.max(*written);
        partition.ended = Some(End {
            at,
            agent: who.agent,
            asked,
            wrote: *written,
        });
        while partition.written.len() > REMEMBERED {
            partition.written.pop_first();
        }
    }

    /// Writes down what somebody else has found.
    pub(crate) fn broken(&mut self, promise: Promise, at: u64, text: String) {
        self.violations.push(Violation { promise, at, text });
    }

    /// The commands that execute; a partition that executes twice is there once, and in the violations.
    pub(crate) fn running(&self) -> BTreeMap<String, Running> {
        let commands = self.live.iter().filter(|(_, who)| who.daemon == 0);
        let running = |(&id, who): (&Id, &Announced)| {
            let running = Running {
                id,
                run: who.run,
                agent: who.agent.clone(),
            };
            (who.partition.clone(), running)
        };
        commands.map(running).collect()
    }

    /// Every process that lives, with the partition and the number of the daemon.
    pub(crate) fn living(&self) -> impl Iterator<Item = (Id, &Announced)> {
        self.live.iter().map(|(&id, who)| (id, who))
    }

    /// What differs from these partitions running exactly once and nothing else running.
    pub(crate) fn differs(&self, wanted: &BTreeSet<String>) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut problems = Vec::new();
        for who in self.live.values() {
            if !wanted.contains(&who.partition) {
                problems.push(format!("the {who} is not wanted"));
            }
            *counts.entry(&who.partition).or_default() += usize::from(who.daemon == 0);
        }
        for partition in wanted {
            let count = counts.get(partition.as_str()).copied().unwrap_or_default();
            if count != 1 {
                problems.push(format!("{partition} runs {count} times"));
            }
        }
        problems
    }

    /// The starts since this was asked last.
    pub(crate) fn take_starts(&mut self) -> Vec<Start> {
        std::mem::take(&mut self.starts)
    }
}
