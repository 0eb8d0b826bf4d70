//! A whole run: rounds of faults until the time is over, each from calm to calm, judged all the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::clock::{MILLI, boot_nanos, nanos};
use crate::cluster::{Cluster, Size, Wanted, offsets};
use crate::deck::{Bench, Card, Deck, Seat};
use crate::desk::{self, Desk};
use crate::faults::{Act, Cost, FAULTS, Fault, Needs, OnDirectors, OnMachine, OnStore, Whom};
use crate::figures::{Figure, Figures};
use crate::grade::{Grade, Treatment};
use crate::judge::{Judge, Promise, Running, Start};
use crate::measure;
use crate::privileges::Privileges;
use crate::process::within;
use crate::pulse::{self, Pulse};
use crate::records;
use crate::register::{self, Late, Server};
use crate::scene::{Active, Scene};
use crate::stage::Stage;
use crate::store;
use crate::times::Times;

/// How long a first start may take, programs not yet in memory.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// How long the director may take for a question.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// A run that has not written to the register for so long does not execute.
const FRESH: Duration = Duration::from_secs(1);
/// How long after its deadline nothing that no director can have renewed may run, on a machine that is late.
const ENDED_WITHIN: Duration = Duration::from_secs(1);
/// When this machine was late by more than this, a lease may have ended by that alone.
const LATE: Duration = Duration::from_millis(150);
/// How often something may be waited for when this machine was late each time.
const TRIES_WHEN_LATE: u32 = 10;
/// Between two looks during a round.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) size: Size,
    /// The store of the ledger; none when the directors keep it themselves.
    pub(crate) ledger: Option<store::Kind>,
    /// Numbers or words of the faults that are wanted; all of them when there are none.
    pub(crate) only: Vec<String>,
    pub(crate) grade: Grade,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) rounds: u64,
    pub(crate) injected: BTreeMap<&'static str, u64>,
    /// What was left out, and why.
    pub(crate) left_out: Vec<String>,
    pub(crate) figures: Figures,
    /// How often each promise that is judged by rounds was judged.
    pub(crate) judged: BTreeMap<Promise, u64>,
    /// The rounds in words.
    pub(crate) schedule: Vec<String>,
    pub(crate) starts: u64,
    /// Rounds in which this machine was too late to judge or measure what must happen in time.
    pub(crate) late_rounds: u64,
    /// By how much it was late at most.
    pub(crate) latest: Duration,
    /// The load average after each round, in hundredths.
    pub(crate) loads: Vec<u64>,
}

/// A run under way.
pub(crate) struct Drama {
    asked: Asked,
    pub(crate) scene: Scene,
    pub(crate) register: Server,
    deck: Deck,
    pulse: Pulse,
    pub(crate) told: Told,
    /// Starts since the last calm.
    starts: Vec<Start>,
    begun: Instant,
}

impl Drama {
    /// Starts a cluster and waits until everything runs.
    pub(crate) fn begin(asked: Asked, stage: &Stage) -> Result<Self> {
        let dealt = dealt(&asked, stage)?;
        let privileges = Privileges::of(asked.grade, stage)?;
        let desk = Desk::open(&asked.folder, offsets(asked.size).collect())?;
        let register = Server::start(&asked.folder)?;
        for name in [desk::SOCKET, register::SOCKET, records::FOLDER] {
            privileges.give(&asked.folder.join(name))?;
        }
        let cluster = Cluster::start(&Wanted {
            program: &privileges.reachable(&asked.program, stage)?,
            worker: &privileges.reachable(&std::env::current_exe()?, stage)?,
            stage,
            folder: &asked.folder.join("c"),
            desk: &asked.folder,
            containment: None,
            grade: asked.grade,
            privileges: &privileges,
            first: 0,
            size: asked.size,
            ledger: asked.ledger,
        })?;
        let bench = Bench {
            quorum: asked.size.directors > 2,
            network: stage.private,
            store: asked.ledger,
        };
        let seats = cluster.machines.iter().map(Seat::of).collect();
        let pulse = Pulse::start(&asked.folder)?;
        let mut drama = Self {
            deck: Deck::new(asked.seed, dealt, seats, bench, cluster.place.times),
            scene: Scene {
                cluster,
                desk,
                folder: asked.folder.clone(),
            },
            asked,
            register,
            pulse,
            told: Told::default(),
            starts: Vec::new(),
            begun: Instant::now(),
        };
        drama.leave_out(stage);
        drama.calm(UP_WITHIN)?;
        drama.begun = Instant::now();
        // What was late while everything started concerns no round.
        drama.pulse.latest();
        Ok(drama)
    }

    fn leave_out(&mut self, stage: &Stage) {
        let wanted = |fault: &&Fault| is_wanted(fault, &self.asked.only);
        let without = FAULTS.iter().filter(wanted);
        // What its grade does not promise is told elsewhere.
        let treated = |fault: &Fault| self.asked.grade.exception(fault).map(|one| one.treatment);
        let without = without.filter(|fault| treated(fault) != Some(Treatment::LeftOut));
        let over_store = self.asked.ledger.is_some();
        // What is about a store is missed by nobody who has none, nor what its kind has not.
        let missed = |fault: &&Fault| {
            !fault.is_of_store() || (over_store && fault.needs == Needs::QuorumStore)
        };
        let without = without.filter(|fault| !self.deck.has(fault)).filter(missed);
        let few = self.asked.size.directors < 3;
        let of_quorum = |fault: &Fault| {
            matches!(
                fault.needs,
                Needs::Quorum | Needs::QuorumNetworks | Needs::QuorumStore
            )
        };
        let why = |fault: &Fault| {
            let over_store = fault.without_quorum().filter(|_| over_store);
            if let Some(why) = over_store {
                why
            } else if few && of_quorum(fault) {
                "there are too few directors"
            } else if stage.private || treated(fault) == Some(Treatment::ByGroup) {
                "this host has no control groups of version 2 that can be used"
            } else {
                "this host allows no namespaces"
            }
        };
        let texts = without.map(|fault| format!("{} {}: {}", fault.id, fault.text, why(fault)));
        self.told.left_out = texts.collect();
        if offsets(self.asked.size).all(|(_, offset)| offset == 0) {
            let text = "C1 a machine whose clock is ahead: this host allows no time namespaces";
            self.told.left_out.push(text.to_owned());
        }
    }

    /// Whether something is broken.
    pub(crate) fn is_broken(&self) -> bool {
        self.scene.desk.judge(|judge| !judge.violations.is_empty())
    }

    fn broken(&self, promise: Promise, text: String) {
        let now = boot_nanos();
        self.scene
            .desk
            .judge(|judge| judge.broken(promise, now, text));
    }

    /// Rounds until the time is over or something is broken; then everything leaves in order.
    pub(crate) fn play(&mut self) -> Result<()> {
        while self.begun.elapsed() < self.asked.time && !self.is_broken() {
            let round = self.deck.deal();
            self.round(round)?;
            self.told.rounds += 1;
        }
        if !self.is_broken() {
            self.scene.cluster.leave()?;
            self.scene.desk.take_exits();
            let left = self
                .scene
                .desk
                .judge(|judge| judge.differs(&BTreeSet::new()));
            if !left.is_empty() {
                let text = format!("every agent has left, and there are: {}", left.join(", "));
                self.broken(Promise::S1, text);
            }
        }
        Ok(())
    }

    fn round(&mut self, cards: Vec<Card>) -> Result<()> {
        self.write_down(&cards);
        let before = self.scene.desk.judge(|judge| judge.running());
        let mut active: Vec<Active> = Vec::new();
        for card in cards {
            self.pass(boot_nanos() + card.after * MILLI);
            let done = self.scene.inject(card)?;
            self.write_down_directors(&done);
            active.push(done);
        }
        let ends = active
            .iter()
            .map(|fault| fault.at + fault.card.lasts * MILLI);
        let mut ends: Vec<(u64, usize)> = ends.zip(0..).collect();
        ends.sort_unstable();
        for (turn, (end, at)) in ends.into_iter().enumerate() {
            self.pass(end);
            // What comes back may move others.
            if turn == 0 {
                self.judge_untouched(&active, &before);
            }
            if let Some(fault) = active.get_mut(at) {
                self.judge_ended(fault);
                self.scene.heal(fault)?;
            }
        }
        let healed = boot_nanos();
        self.calm(self.scene.cluster.place.times.calm())?;
        self.judge_outlived();
        let late = self.pulse.latest();
        self.told.latest = self.told.latest.max(late);
        self.told.loads.push(pulse::load_hundredths());
        if late > late_for(&active) {
            self.told.late_rounds += 1;
        } else {
            self.judge_free(&active, &before);
            let times = self.scene.cluster.place.times;
            measure::round(&mut self.told.figures, times, &active, &self.starts, healed);
        }
        for fault in &active {
            *self.told.injected.entry(fault.card.fault.text).or_default() += 1;
        }
        Ok(())
    }

    fn write_down(&mut self, cards: &[Card]) {
        let words = cards.iter().map(|card| {
            let Card {
                fault,
                machine,
                lasts,
                after,
                ..
            } = card;
            let on = machine
                .map(|at| format!(" on a{}", at + 1))
                .unwrap_or_default();
            format!(
                "{} {}{on} for {lasts} ms after {after} ms",
                fault.id, fault.text
            )
        });
        let words: Vec<String> = words.collect();
        let at = self.begun.elapsed().as_secs_f64();
        let line = format!("{at:8.1} s  {}", words.join("; "));
        eprintln!("{line}");
        self.told.schedule.push(line);
    }

    /// Which directors a fault was about, which is known only when it is done.
    fn write_down_directors(&mut self, done: &Active) {
        if !done.directors.is_empty() {
            let all = done.directors.iter().map(|at| format!("d{}", at + 1));
            let all: Vec<String> = all.collect();
            let line = format!("            {}: {}", done.card.fault.text, all.join(", "));
            eprintln!("{line}");
            self.told.schedule.push(line);
        }
    }

    /// Waits until that moment, or until something is broken.
    fn pass(&mut self, until: u64) {
        while boot_nanos() < until && !self.is_broken() {
            let left = Duration::from_nanos(until.saturating_sub(boot_nanos()));
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Waits until everything that is to run runs exactly once, writes, and nothing moves any more.
    fn calm(&mut self, limit: Duration) -> Result<()> {
        let begun = boot_nanos();
        self.all_run(limit, "at first");
        self.told.figures.add(Figure::Recovery, begun, boot_nanos());
        for text in self.scene.cluster.quorum.fallen() {
            self.broken(Promise::L1, text);
        }
        self.comes(limit, "every director votes and follows", || {
            self.scene.cluster.quorum.all_here()
        });
        // Before that it has settled without them.
        self.comes(limit, "every agent is active", || {
            self.scene.cluster.all_here()
        });
        self.comes(limit, "`quorate wait --settled` succeeds", || {
            let settled = self
                .scene
                .cluster
                .quorate(&["wait", "--settled", "--timeout", "5s"]);
            settled.is_ok()
        });
        self.all_run(limit, "when it had settled");
        if !self.is_broken() {
            self.scene.cluster.is_of_grade()?;
        }
        *self.told.judged.entry(Promise::L1).or_default() += 1;
        let starts = self.scene.desk.judge(|judge| judge.take_starts());
        self.told.starts += starts.len() as u64;
        self.starts = starts;
        self.audit();
        Ok(())
    }

    /// S1: what the grade lets be there beside the next run is gone in time.
    fn judge_outlived(&mut self) {
        self.pass(self.scene.desk.judge(|judge| judge.lingers_until()));
        self.scene.desk.take_exits();
        let lingered = self.scene.desk.judge(|judge| {
            judge.outlived(boot_nanos());
            judge.take_lingered()
        });
        for (thawed, gone) in lingered {
            self.told
                .figures
                .add(Figure::LingeredAfterThaw, thawed, gone);
        }
    }

    /// L1: everything that is to run runs exactly once, and writes.
    fn all_run(&self, limit: Duration, when: &str) {
        let wanted = self.scene.cluster.wanted();
        let mut differs = Vec::new();
        let run = self.within(limit, when, || {
            differs = self.differs(&wanted);
            differs.is_empty()
        });
        if run.is_err() {
            let text = format!("not within {limit:?} {when}: {}", differs.join(", "));
            self.broken(Promise::L1, text);
        }
    }

    /// L1: this comes about in time.
    fn comes(&self, limit: Duration, what: &str, look: impl FnMut() -> bool) {
        if let Err(cause) = self.within(limit, what, look) {
            self.broken(Promise::L1, cause.to_string());
        }
    }

    /// Waits for something, or until something is broken. The time begins anew when this machine was late in
    /// it, but not for ever.
    fn within(&self, limit: Duration, what: &str, mut look: impl FnMut() -> bool) -> Result<()> {
        let mut tries = TRIES_WHEN_LATE;
        loop {
            self.pulse.latest_of_try();
            let came = within(limit, what, || (look() || self.is_broken()).then_some(()));
            tries -= 1;
            if came.is_ok() || tries == 0 || self.pulse.latest_of_try() <= LATE {
                return came;
            }
        }
    }

    fn differs(&self, wanted: &BTreeSet<String>) -> Vec<String> {
        let mut differs = self.scene.desk.judge(|judge| judge.differs(wanted));
        let oldest = boot_nanos().saturating_sub(nanos(FRESH));
        let register = self.register.look();
        let silent = wanted
            .iter()
            .filter(|partition| register.last(partition) < Some(oldest));
        differs.extend(silent.map(|partition| format!("{partition} does not write")));
        differs
    }

    /// S2, as the register has seen it, and S5: each start must have a committed assumption in the director's
    /// history.
    fn audit(&mut self) {
        let late = std::mem::take(&mut self.register.look().kept);
        for Late {
            partition,
            token,
            after,
            at,
        } in late
        {
            let may = |judge: &mut Judge| judge.may_write_late(&partition, token, at);
            if !self.scene.desk.judge(may) {
                let text = format!("{partition}: token {token} wrote after token {after}");
                self.broken(Promise::S2, text);
            }
        }
        // One that was taken off the list has no history any more.
        let wanted = self.scene.cluster.wanted();
        let started = |partition: &&String| {
            self.starts
                .iter()
                .any(|start| start.partition == **partition)
        };
        for partition in wanted.iter().filter(started) {
            if self.is_broken() {
                return;
            }
            let mut assumed = BTreeSet::new();
            self.comes(ANSWERED_WITHIN, "the director tells a history", || {
                let told = self.scene.cluster.quorum.assumed(partition, None);
                told.map(|tokens| assumed = tokens).is_ok()
            });
            let directors = self.scene.cluster.quorum.directors.len();
            let all_known = |known: &BTreeSet<u64>| {
                let mut all = self.starts.iter();
                all.all(|start| start.partition != *partition || known.contains(&start.run.0))
            };
            for at in 0..directors {
                // One that has come in later, or was sent a snapshot, has not seen what was before.
                if all_known(&assumed) {
                    break;
                }
                self.comes(ANSWERED_WITHIN, "each director tells a history", || {
                    let told = self.scene.cluster.quorum.assumed(partition, Some(at));
                    told.map(|tokens| assumed.extend(tokens)).is_ok()
                });
            }
            for start in self
                .starts
                .iter()
                .filter(|start| start.partition == *partition)
            {
                *self.told.judged.entry(Promise::S5).or_default() += 1;
                let token = start.run.0;
                if !assumed.contains(&token) {
                    let text =
                        format!("{partition} began with token {token}, which nobody assumed");
                    self.broken(Promise::S5, text);
                }
            }
        }
    }

    /// While the whole store stands still no director can renew anything, so once a lease is over nothing runs. Whether
    /// that was so is seen before it is there again.
    fn judge_ended(&mut self, fault: &Active) {
        let times = self.scene.cluster.place.times;
        let over = fault.at + nanos(times.lease + ENDED_WITHIN);
        // A lower grade does not end what another fault of the round has frozen.
        let stopped = fault.card.fault.act == Act::Store(OnStore::StopAll);
        if !stopped
            || self.asked.grade.is_lower()
            || boot_nanos() < over
            || self.pulse.look() > LATE
        {
            return;
        }
        self.scene.desk.take_exits();
        let running = self.scene.desk.judge(|judge| judge.running());
        for (partition, running) in running {
            let text = format!(
                "{partition} still runs on {} though no lease can have been renewed for {:?}",
                running.agent,
                Duration::from_nanos(boot_nanos().saturating_sub(fault.at))
            );
            self.broken(Promise::S1, text);
        }
    }

    /// L2: before the first heal nothing has restarted but what the faults touch.
    fn judge_untouched(&mut self, active: &[Active], before: &BTreeMap<String, Running>) {
        if !bearable(active, self.scene.cluster.place.times) || self.pulse.look() > late_for(active)
        {
            return;
        }
        let untouched = self.scene.untouched(active, before);
        self.judge_same(&untouched, before, "was not touched by what was done, and");
    }

    /// L2: after faults that cost nothing everything is as it was before.
    fn judge_free(&mut self, active: &[Active], before: &BTreeMap<String, Running>) {
        let free = active
            .iter()
            .all(|fault| fault.card.fault.cost == Cost::Nothing);
        if free && bearable(active, self.scene.cluster.place.times) {
            let all = before.keys().cloned().collect();
            self.judge_same(&all, before, "had no reason to stop, and");
        }
        for fault in active {
            let figures = &mut self.told.figures;
            match (fault.card.fault.act, fault.written) {
                (Act::Directors(Whom::All, OnDirectors::Kill), _) => {
                    if fault.card.fault.cost == Cost::Nothing {
                        figures.add(Figure::DirectorReady, fault.at, fault.healed);
                    }
                }
                (Act::Directors(_, OnDirectors::Kill), Some(written)) => {
                    figures.add(Figure::WriteAfterKill, fault.at, written);
                }
                (Act::Directors(..), Some(written)) => {
                    figures.add(Figure::WriteAfterSilence, fault.at, written);
                }
                (Act::Store(_), Some(written)) => match fault.back {
                    Some(back) => {
                        figures.add(Figure::StoreAfterKill, fault.at, back);
                        figures.add(Figure::WriteAfterServer, fault.at, written);
                    }
                    None => figures.add(Figure::WriteAfterStore, fault.healed, written),
                },
                (Act::Directors(..) | Act::Store(_), None)
                | (Act::Machine(_) | Act::Runs(_), _) => {}
            }
        }
    }

    fn judge_same(
        &mut self,
        which: &BTreeSet<String>,
        before: &BTreeMap<String, Running>,
        why: &str,
    ) {
        *self.told.judged.entry(Promise::L2).or_default() += 1;
        let now = self.scene.desk.judge(|judge| judge.running());
        let wanted = self.scene.cluster.wanted();
        let other = which
            .iter()
            .filter(|name| wanted.contains(*name) && now.get(*name) != before.get(*name));
        let texts: Vec<String> = other
            .map(|name| {
                format!(
                    "{name} {why} was {:?} and is {:?}",
                    before.get(name),
                    now.get(name)
                )
            })
            .collect();
        for text in texts {
            self.broken(Promise::L2, text);
        }
    }

    /// Keeps what is gone with the stage.
    pub(crate) fn keep(&self, into: &Path) -> Result<()> {
        let cluster = &self.scene.cluster;
        let machines = cluster.machines.iter();
        let machines = machines.filter(|machine| machine.has_small_disk());
        let machines = machines.map(|machine| (machine.name(), machine.folder()));
        let directors = cluster.quorum.directors.iter();
        let directors = directors.filter(|director| director.has_small_disk());
        let directors = directors.map(|director| (director.name.as_str(), director.folder()));
        for (name, folder) in machines.chain(directors) {
            let to = into.join(format!("{name}.disk"));
            // Sockets and files that vanish meanwhile are no loss.
            let mut copy = std::process::Command::new("cp");
            copy.arg("-a").args([folder, to]).output()?;
        }
        if let Some(store) = &cluster.store {
            let mut copy = std::process::Command::new("cp");
            copy.arg("-a").args([store.folder(), into.join("store")]);
            copy.output()?;
        }
        Ok(())
    }
}

fn is_wanted(fault: &Fault, only: &[String]) -> bool {
    let is = |words: &String| fault.id == words || fault.text.contains(words.as_str());
    only.is_empty() || only.iter().any(is)
}

/// The faults that are wanted.
fn faults(only: &[String]) -> Result<Vec<&'static Fault>> {
    let wanted = FAULTS.iter().filter(|fault| is_wanted(fault, only));
    let wanted: Vec<&Fault> = wanted.collect();
    if wanted.is_empty() {
        bail!("no fault is or has {}", only.join(", "));
    }
    Ok(wanted)
}

/// The faults that are wanted and can be judged with that grade on this host.
fn dealt(asked: &Asked, stage: &Stage) -> Result<Vec<&'static Fault>> {
    let mut dealt = faults(&asked.only)?;
    dealt.retain(|fault| {
        let exception = asked.grade.exception(fault);
        match exception.map(|one| one.treatment) {
            None | Some(Treatment::DaemonsLinger) => true,
            Some(Treatment::ByGroup) => stage.group.is_some(),
            Some(Treatment::LeftOut) => false,
        }
    });
    if dealt.is_empty() {
        bail!(
            "none of these faults can be judged with the grade {}",
            asked.grade
        );
    }
    Ok(dealt)
}

/// By how much this machine may be late when it is judged what these faults cost. A change of leader is a handful of
/// steps one after the other, and each of them may be late by as much.
fn late_for(active: &[Active]) -> Duration {
    let directors = active.iter().any(|fault| fault.card.fault.disturbs());
    if directors { LATE / 3 } else { LATE }
}

/// Whether what must cost nothing was done as it was meant: alone in what it does to leases, and short.
fn bearable(active: &[Active], times: Times) -> bool {
    let now = boot_nanos();
    let short = |fault: &Active| {
        let until = if fault.healed == 0 { now } else { fault.healed };
        let (until, longest) = match fault.card.fault.act {
            // A change of leader may come after that.
            Act::Store(_) => (fault.back.unwrap_or(until), times.takeover()),
            Act::Machine(_) | Act::Directors(..) | Act::Runs(_) => (until, times.bearable()),
        };
        until.saturating_sub(fault.at) <= nanos(longest)
    };
    let counts = |fault: &Fault| match fault.act {
        // Whoever is left decides meanwhile, however long it takes.
        Act::Directors(whom, _) => whom == Whom::All,
        Act::Store(what) => what != OnStore::Slow,
        Act::Machine(what) => matches!(what, OnMachine::StopAgent | OnMachine::KillAgent),
        Act::Runs(_) => false,
    };
    let director = active.iter().any(|fault| fault.card.fault.disturbs());
    active.iter().all(|fault| match fault.card.fault.cost {
        Cost::Nothing => !counts(fault.card.fault) || short(fault),
        Cost::Silence | Cost::Theirs => true,
        Cost::Unsaid => false,
    }) && (!director || active.len() == 1)
}
