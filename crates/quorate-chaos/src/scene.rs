//! Carries faults out, and heals them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::clock::{MILLI, boot_nanos, nanos};
use crate::cluster::Cluster;
use crate::deck::Card;
use crate::desk::Desk;
use crate::faults::{Act, BOTH, Cost, OnMachine, OnRuns};
use crate::grade::ENDED_WITHIN;
use crate::judge::Running;
use crate::link::{Link, Way};
use crate::machine::Machine;
use crate::process::{Held, OfWarden, Part, of_wardens, tell};
use crate::random::Random;
use crate::times::Times;

/// The list has at least and at most so many partitions.
const LISTED: std::ops::Range<usize> = 8..22;
/// Codes that runs exit with: done, failed, the connection was lost.
const CODES: [i32; 3] = [0, 1, 75];

/// A cluster and its referee.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) desk: Desk,
    /// Where the sockets of the referee are.
    pub(crate) folder: PathBuf,
}

/// A fault that was carried out.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) card: Card,
    /// When it began to have its effect.
    pub(crate) at: u64,
    /// What its machine had then, or the partitions that it is about.
    pub(crate) touched: BTreeMap<String, Running>,
    rest: Rest,
    /// The directors that it is about.
    pub(crate) directors: Vec<usize>,
    /// The server of the store that it is about.
    pub(crate) server: Option<usize>,
    /// When the store served again without that one, where it was killed.
    pub(crate) back: Option<u64>,
    /// When a write was accepted after it, where that was tried.
    pub(crate) written: Option<u64>,
    /// When it was healed.
    pub(crate) healed: u64,
}

/// What has to be undone beside what the fault itself says.
#[derive(Debug)]
enum Rest {
    Nothing,
    /// A thread that cuts and heals until it is told to stop.
    Flapping(Arc<AtomicBool>, JoinHandle<()>),
    /// An agent on a copy of a folder.
    Copy(Held, PathBuf),
    /// Partitions that are to be started again.
    Stopped(Vec<String>),
}

impl Active {
    /// The machine it is about.
    pub(crate) fn machine(&self) -> Option<String> {
        self.card.machine.map(|at| format!("a{}", at + 1))
    }
}

impl Scene {
    fn running(&self) -> BTreeMap<String, Running> {
        self.desk.judge(|judge| judge.running())
    }

    /// What runs on a machine.
    fn on(&self, machine: &str) -> BTreeMap<String, Running> {
        let mut all = self.running();
        all.retain(|_, running| running.agent == machine);
        all
    }

    /// Carries a card out.
    pub(crate) fn inject(&mut self, card: Card) -> Result<Active> {
        let fault = card.fault;
        let mut random = Random::new(card.seed);
        let mut active = Active {
            touched: BTreeMap::new(),
            rest: Rest::Nothing,
            at: boot_nanos(),
            directors: Vec::new(),
            server: None,
            back: None,
            written: None,
            healed: 0,
            card,
        };
        match fault.act {
            Act::Machine(what) => {
                let at = active
                    .card
                    .machine
                    .context("a fault of a machine has one")?;
                let name = self.cluster.machine(at)?.name().to_owned();
                if fault.cost != Cost::Nothing {
                    active.touched = self.on(&name);
                }
                active.at = boot_nanos();
                if self.cluster.place.grade.lets_daemons_linger(fault) {
                    // No other run may begin before the deadline, and the last renewal is not much older than this.
                    let Times { lease } = self.cluster.place.times;
                    let deadline = active.at + nanos(lease - lease / 4);
                    self.desk.judge(|judge| judge.freezes(&name, deadline));
                }
                if what == OnMachine::OnlyDeposed {
                    self.leave_deposed(at, &mut active)?;
                } else {
                    active.rest = self.disturb(what, at, active.card.lasts)?;
                }
            }
            Act::Directors(whom, what) => {
                self.disturb_directors(whom, what, &mut active, &mut random)?;
            }
            Act::Store(what) => self.disturb_store(what, &mut active)?,
            Act::Runs(what) => self.disturb_runs(what, &mut active, &mut random)?,
        }
        Ok(active)
    }

    /// Does something to a machine.
    fn disturb(&mut self, what: OnMachine, at: usize, lasts: u64) -> Result<Rest> {
        if what == OnMachine::StopAll {
            self.stop_machine(at, Signal::STOP)?;
        }
        let machine = self.cluster.machine(at)?;
        let name = machine.name().to_owned();
        match what {
            // Done already, or with a director.
            OnMachine::StopAll | OnMachine::OnlyDeposed => {}
            OnMachine::KillAgent => machine.kill_agent(),
            OnMachine::StopAgent => machine.signal_agent(Signal::STOP),
            OnMachine::KillWardens(part) => kill_part(&machine.wardens(), part),
            OnMachine::KillWholeWardens => machine.kill_whole_wardens(),
            OnMachine::KillAgentAndWardens => {
                machine.kill_agent();
                machine.kill_whole_wardens();
            }
            OnMachine::Freeze => machine.freeze(true)?,
            OnMachine::Lose => {
                cut(machine, BOTH, true);
                machine.kill_everything();
            }
            OnMachine::Cut(ways) => cut(machine, ways, true),
            OnMachine::Blackhole(ways) => {
                for &way in ways {
                    machine.blackhole(way, true)?;
                }
            }
            OnMachine::Flap => return flap(machine.links.clone()),
            OnMachine::Delay => each(machine, |link| link.delay(lasts % 100 + 20)),
            OnMachine::Reset => each(machine, Link::reset),
            OnMachine::Forget => each(machine, Link::forget),
            OnMachine::FillDisk => fill(&filler(machine)),
            OnMachine::Copy { here } => return copy(machine, here),
            OnMachine::Drain => drop(self.cluster.quorate(&["drain", &name])?),
            OnMachine::Cordon => drop(self.cluster.quorate(&["cordon", &name])?),
        }
        Ok(Rest::Nothing)
    }

    /// Stops or continues everything of a machine: agent, wardens, runs.
    fn stop_machine(&mut self, at: usize, signal: Signal) -> Result<()> {
        let machine = self.cluster.machine(at)?;
        machine.signal_agent(signal);
        for one in machine.wardens() {
            tell(one.pid, signal);
        }
        let name = machine.name().to_owned();
        let living = self.desk.judge(|judge| {
            let here = judge.living().filter(|(_, who)| who.agent == name);
            here.map(|(id, _)| id).collect::<Vec<_>>()
        });
        for id in living {
            self.desk.signal(id, signal);
        }
        Ok(())
    }

    /// Does something to some partitions, or to what is wanted.
    fn disturb_runs(
        &mut self,
        what: OnRuns,
        active: &mut Active,
        random: &mut Random,
    ) -> Result<()> {
        match what {
            OnRuns::Kill => {
                active.touched = self.some(random, 4, "");
                for running in active.touched.values() {
                    self.desk.signal(running.id, Signal::KILL);
                }
            }
            OnRuns::Exit => {
                active.touched = self.some(random, 3, "");
                for running in active.touched.values() {
                    let code = random.pick(&CODES).copied().unwrap_or_default();
                    self.desk.exit(running.id, code);
                }
            }
            OnRuns::Fail => {
                active.touched = self.some(random, 1, "");
                let until = boot_nanos() + active.card.lasts * MILLI;
                for (partition, running) in &active.touched {
                    self.desk.fail(partition, until, 1);
                    self.desk.exit(running.id, 1);
                }
            }
            OnRuns::Orphan => {
                active.touched = self.some(random, 2, "daemons/");
                for running in active.touched.values() {
                    self.desk.signal(running.id, Signal::KILL);
                }
            }
            OnRuns::Restart(service) => {
                active.touched = self.of_service(service);
                self.cluster.quorate(&["restart", service])?;
            }
            OnRuns::Change => {
                active.touched = self.of_service("slow");
                let folder = self.folder.clone();
                self.cluster.apply(&folder)?;
            }
            OnRuns::Scale => self.scale(random)?,
            OnRuns::StopStart => {
                let some = self.some(random, 3, "");
                for partition in some.keys() {
                    self.cluster.quorate(&["stop", partition])?;
                    self.cluster.stopped.insert(partition.clone());
                }
                active.rest = Rest::Stopped(some.into_keys().collect());
            }
        }
        Ok(())
    }

    fn of_service(&self, service: &str) -> BTreeMap<String, Running> {
        let mut all = self.running();
        all.retain(|name, _| name.split('/').next() == Some(service));
        all
    }

    fn scale(&mut self, random: &mut Random) -> Result<()> {
        let listed = self.cluster.listed();
        let grows = listed <= LISTED.start || (listed < LISTED.end && random.below(2) == 0);
        if grows {
            self.cluster.grow(4)
        } else {
            self.cluster.shrink(3)
        }
    }

    /// One to so many commands that run, of partitions whose names begin so.
    fn some(&self, random: &mut Random, most: u64, begins: &str) -> BTreeMap<String, Running> {
        let mut all: Vec<_> = self.running().into_iter().collect();
        all.retain(|(name, _)| name.starts_with(begins));
        random.shuffle(&mut all);
        let count = usize::try_from(random.between(1, most)).unwrap_or(1);
        all.into_iter().take(count).collect()
    }

    /// Ends a fault.
    pub(crate) fn heal(&mut self, active: &mut Active) -> Result<()> {
        match std::mem::replace(&mut active.rest, Rest::Nothing) {
            Rest::Nothing => {}
            Rest::Flapping(stop, thread) => {
                stop.store(true, Ordering::Relaxed);
                let _panicked = thread.join();
            }
            Rest::Copy(agent, folder) => {
                agent.kill();
                kill_part(&of_wardens(&folder), Part::Timekeeper);
                let _left = fs::remove_dir_all(folder);
            }
            Rest::Stopped(partitions) => {
                for partition in partitions {
                    // It may have been taken off the list meanwhile.
                    if self.cluster.stopped.remove(&partition) {
                        self.cluster.quorate(&["start", &partition])?;
                    }
                }
            }
        }
        match (active.card.fault.act, active.card.machine) {
            (Act::Directors(_, what), _) => self.heal_directors(what, &active.directors)?,
            (Act::Machine(OnMachine::OnlyDeposed), Some(at)) => {
                self.join_deposed(at, &active.directors)?;
            }
            (Act::Machine(what), Some(at)) => self.heal_machine(what, at)?,
            (Act::Store(what), _) => self.heal_store(what, active.server)?,
            (Act::Machine(_), None) | (Act::Runs(_), _) => {}
        }
        active.healed = boot_nanos();
        if self
            .cluster
            .place
            .grade
            .lets_daemons_linger(active.card.fault)
            && let Some(name) = active.machine()
        {
            let (at, within) = (active.healed, nanos(ENDED_WITHIN));
            self.desk.judge(|judge| judge.thaws(&name, at, within));
        }
        if matches!(active.card.fault.act, Act::Store(_)) && active.written.is_none() {
            self.accepts_again(active);
        }
        Ok(())
    }

    fn heal_machine(&mut self, what: OnMachine, at: usize) -> Result<()> {
        if what == OnMachine::StopAll {
            self.stop_machine(at, Signal::CONT)?;
        }
        let machine = self.cluster.machine(at)?;
        let name = machine.name().to_owned();
        match what {
            OnMachine::KillAgent | OnMachine::KillAgentAndWardens => machine.start()?,
            OnMachine::StopAgent => machine.signal_agent(Signal::CONT),
            OnMachine::Freeze => machine.freeze(false)?,
            OnMachine::Lose => {
                cut(machine, BOTH, false);
                machine.renew_group()?;
                machine.start()?;
            }
            OnMachine::Cut(ways) => cut(machine, ways, false),
            OnMachine::Blackhole(ways) => {
                for &way in ways {
                    machine.blackhole(way, false)?;
                }
            }
            OnMachine::Delay => each(machine, |link| link.delay(0)),
            // Whoever still waits for an answer on one of them is told that there will be none.
            OnMachine::Forget => each(machine, Link::reset),
            OnMachine::FillDisk => fs::remove_file(filler(machine))?,
            OnMachine::Drain | OnMachine::Cordon => {
                self.cluster.quorate(&["uncordon", &name])?;
            }
            OnMachine::StopAll
            | OnMachine::OnlyDeposed
            | OnMachine::KillWardens(_)
            | OnMachine::KillWholeWardens
            | OnMachine::Flap
            | OnMachine::Reset
            | OnMachine::Copy { .. } => {}
        }
        Ok(())
    }

    /// The partitions of which none of these faults is a reason to restart.
    pub(crate) fn untouched(
        &self,
        faults: &[Active],
        before: &BTreeMap<String, Running>,
    ) -> BTreeSet<String> {
        let touched = |name: &String| faults.iter().any(|fault| fault.touched.contains_key(name));
        before
            .keys()
            .filter(|name| !touched(name))
            .cloned()
            .collect()
    }
}

fn cut(machine: &Machine, ways: &[Way], cut: bool) {
    for (link, &way) in machine
        .links
        .iter()
        .flat_map(|link| ways.iter().map(move |way| (link, way)))
    {
        link.cut(way, cut);
    }
}

fn each(machine: &Machine, what: impl Fn(&Link)) {
    machine.links.iter().for_each(what);
}

/// Kills this part of each of these wardens.
fn kill_part(wardens: &[OfWarden], part: Part) {
    for one in wardens.iter().filter(|one| one.part == part) {
        tell(one.pid, Signal::KILL);
    }
}

/// Cuts links again and again for less than a lease bears, with time to renew between.
fn flap(links: Vec<Link>) -> Result<Rest> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let cuts = move || {
        while !told.load(Ordering::Relaxed) {
            for (cut, millis) in [(true, 350), (false, 650)] {
                for link in &links {
                    for &way in BOTH {
                        link.cut(way, cut);
                    }
                }
                std::thread::sleep(Duration::from_millis(millis));
            }
        }
    };
    let thread = std::thread::Builder::new().name("flapping".to_owned());
    Ok(Rest::Flapping(stop, thread.spawn(cuts)?))
}

fn filler(machine: &Machine) -> PathBuf {
    machine.folder().join("filler")
}

/// Writes until nothing more fits.
pub(crate) fn fill(path: &std::path::Path) {
    let Ok(mut file) = File::create(path) else {
        return;
    };
    let piece = vec![0; 4096];
    while file.write_all(&piece).is_ok() {}
}

/// Copies the folder of a machine and starts an agent on it.
fn copy(machine: &Machine, here: bool) -> Result<Rest> {
    let folder = machine.folder().with_extension("copy");
    // What comes and goes meanwhile is missing in a copy; its identity must be there.
    let _missing = Command::new("cp")
        .arg("-a")
        .args([machine.folder(), folder.clone()])
        .output()?;
    if !folder.join("agent_id").exists() {
        bail!("{} cannot be copied", machine.folder().display());
    }
    let agent = machine.start_with(&folder, here)?;
    Ok(Rest::Copy(agent, folder))
}
