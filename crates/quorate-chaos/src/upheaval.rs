//! Carries out what is done to directors, and heals it. Who leads is asked first, so a round with the same cards
//! hits whoever leads then.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::clock::boot_nanos;
use crate::faults::{BOTH, OnDirectors, Whom};
use crate::judge::Promise;
use crate::net::swallow_own;
use crate::process::within;
use crate::random::Random;
use crate::scene::{Active, Scene, fill};

/// How long a director may take to catch up with the leader before it leads in its place.
const TRANSFERRED_WITHIN: Duration = Duration::from_secs(10);

impl Scene {
    /// Does something to directors.
    pub(crate) fn disturb_directors(
        &mut self,
        whom: Whom,
        what: OnDirectors,
        active: &mut Active,
        random: &mut Random,
    ) -> Result<()> {
        active.directors = match what {
            OnDirectors::FillDisk => vec![self.prepare_disk(whom)?],
            OnDirectors::Chain => self.chained(whom, random)?,
            OnDirectors::Kill
            | OnDirectors::Stop
            | OnDirectors::Lose
            | OnDirectors::Part
            | OnDirectors::Isolate
            | OnDirectors::Mute
            | OnDirectors::Deafen
            | OnDirectors::OnlyWay
            | OnDirectors::Transfer
            | OnDirectors::CutStore
            | OnDirectors::Replace => self.chosen(whom, random)?,
        };
        let chosen = active.directors.clone();
        active.at = boot_nanos();
        for &at in &chosen {
            self.disturb_director(what, at)?;
        }
        match what {
            OnDirectors::Chain => self.part(&chosen, true)?,
            OnDirectors::Transfer => self.transfer(&chosen)?,
            OnDirectors::Replace => {
                for &at in &chosen {
                    self.cluster.quorum.replace(at)?;
                }
            }
            OnDirectors::Kill
            | OnDirectors::Stop
            | OnDirectors::Lose
            | OnDirectors::Part
            | OnDirectors::Isolate
            | OnDirectors::Mute
            | OnDirectors::Deafen
            | OnDirectors::OnlyWay
            | OnDirectors::CutStore
            | OnDirectors::FillDisk => {}
        }
        if whom == Whom::Leader && loses_leader(what) {
            // Whoever asks does not wait for one that is known to be away.
            let away = matches!(
                what,
                OnDirectors::Stop | OnDirectors::Lose | OnDirectors::Isolate
            );
            let without = if away { chosen.first().copied() } else { None };
            match self.cluster.write(without) {
                Ok(()) => active.written = Some(boot_nanos()),
                Err(cause) => self.desk.judge(|judge| {
                    let text = format!("{}: {cause}", active.card.fault.text);
                    judge.broken(Promise::L1, boot_nanos(), text);
                }),
            }
        }
        Ok(())
    }

    /// What is done to each of them.
    fn disturb_director(&mut self, what: OnDirectors, at: usize) -> Result<()> {
        let all = &mut self.cluster.quorum.directors;
        let director = all.get_mut(at).context("no such director")?;
        match what {
            OnDirectors::Kill => director.kill(),
            OnDirectors::Stop => director.signal(Signal::STOP),
            OnDirectors::Lose => {
                director.kill();
                self.isolate(at, true)?;
            }
            OnDirectors::Isolate => self.isolate(at, true)?,
            OnDirectors::Part => self.apart(at, [true, true], true)?,
            OnDirectors::Mute => self.apart(at, [true, false], true)?,
            OnDirectors::Deafen => self.apart(at, [false, true], true)?,
            OnDirectors::OnlyWay => self.only_way(at, true)?,
            OnDirectors::FillDisk => fill(&director.filler()),
            OnDirectors::CutStore => director.cut_store(true),
            // Done to all of them at once.
            OnDirectors::Chain | OnDirectors::Transfer | OnDirectors::Replace => {}
        }
        Ok(())
    }

    /// Ends what was done to these.
    pub(crate) fn heal_directors(&mut self, what: OnDirectors, chosen: &[usize]) -> Result<()> {
        for &at in chosen {
            let all = &mut self.cluster.quorum.directors;
            let director = all.get_mut(at).context("no such director")?;
            match what {
                OnDirectors::Kill => director.start()?,
                OnDirectors::Stop => director.signal(Signal::CONT),
                OnDirectors::Lose => {
                    self.isolate(at, false)?;
                    self.start_director(at)?;
                }
                OnDirectors::Isolate => self.isolate(at, false)?,
                OnDirectors::Part => self.apart(at, [true, true], false)?,
                OnDirectors::Mute => self.apart(at, [true, false], false)?,
                OnDirectors::Deafen => self.apart(at, [false, true], false)?,
                OnDirectors::OnlyWay => self.only_way(at, false)?,
                OnDirectors::CutStore => director.cut_store(false),
                OnDirectors::FillDisk => {
                    fs::remove_file(director.filler())?;
                    // It may have ended for want of space, as it must not go on without.
                    if director.ended().is_some() {
                        director.start()?;
                    }
                }
                OnDirectors::Chain | OnDirectors::Transfer | OnDirectors::Replace => {}
            }
        }
        if what == OnDirectors::Chain {
            self.part(chosen, false)?;
        }
        if what == OnDirectors::Kill && chosen.len() == self.cluster.quorum.directors.len() {
            self.cluster.quorum.ready()?;
        }
        Ok(())
    }

    fn start_director(&mut self, at: usize) -> Result<()> {
        let all = &mut self.cluster.quorum.directors;
        all.get_mut(at).context("no such director")?.start()
    }

    fn chosen(&self, whom: Whom, random: &mut Random) -> Result<Vec<usize>> {
        let count = self.cluster.quorum.directors.len();
        let mut all: Vec<usize> = (0..count).collect();
        random.shuffle(&mut all);
        Ok(match whom {
            Whom::Leader => vec![self.cluster.quorum.leader()?],
            Whom::Follower => {
                let leader = self.cluster.quorum.leader()?;
                all.into_iter().filter(|&at| at != leader).take(1).collect()
            }
            // Over a store one that is left is enough.
            Whom::Minority if self.cluster.store.is_some() => {
                all.into_iter().take(count - 1).collect()
            }
            Whom::Minority => all.into_iter().take((count - 1) / 2).collect(),
            Whom::All => all,
        })
    }

    /// Two directors that are to be the ends of a chain: the leader and a follower, or two followers.
    fn chained(&self, whom: Whom, random: &mut Random) -> Result<Vec<usize>> {
        let leader = self.cluster.quorum.leader()?;
        let mut others: Vec<usize> = (0..self.cluster.quorum.directors.len()).collect();
        others.retain(|&at| at != leader);
        random.shuffle(&mut others);
        let first = (whom == Whom::Leader).then_some(leader);
        Ok(first.into_iter().chain(others).take(2).collect())
    }

    /// Lets the director with the small disk lead, or another one.
    fn prepare_disk(&self, whom: Whom) -> Result<usize> {
        let quorum = &self.cluster.quorum;
        let mut all = quorum.directors.iter();
        let small = all.position(|director| director.has_small_disk());
        let small = small.context("no director has a small disk")?;
        let leads = quorum.leader()? == small;
        if leads != (whom == Whom::Leader) {
            let to = if leads { 0 } else { small };
            self.transfer(&[to])?;
        }
        Ok(small)
    }

    /// On a machine that is late one that is to lead may not have caught up yet: it is asked again.
    fn transfer(&self, to: &[usize]) -> Result<()> {
        let all = &self.cluster.quorum.directors;
        let first = to.first().and_then(|&at| all.get(at));
        let name = &first.context("no such director")?.name;
        let args = ["cluster", "transfer-leader", "--to", name];
        let mut said = String::new();
        let transferred = within(TRANSFERRED_WITHIN, "the leadership is handed over", || {
            let answer = self.cluster.quorate(&args);
            answer.map_err(|error| said = error.to_string()).ok()
        });
        transferred.with_context(|| said)?;
        Ok(())
    }

    /// The two ends of a chain do not reach each other.
    fn part(&self, ends: &[usize], cut: bool) -> Result<()> {
        if let [one, other] = *ends {
            self.cluster.quorum.swallow(one, other, cut)?;
            self.cluster.quorum.swallow(other, one, cut)?;
        }
        Ok(())
    }

    /// Swallows what this one sends other directors, and what they send it.
    fn apart(&self, at: usize, [sends, hears]: [bool; 2], cut: bool) -> Result<()> {
        let quorum = &self.cluster.quorum;
        for other in (0..quorum.directors.len()).filter(|&other| other != at) {
            if sends {
                quorum.swallow(at, other, cut)?;
            }
            if hears {
                quorum.swallow(other, at, cut)?;
            }
        }
        Ok(())
    }

    /// Nobody reaches this one: directors, agents, and whoever asks.
    fn isolate(&self, at: usize, cut: bool) -> Result<()> {
        self.apart(at, [true, true], cut)?;
        for machine in &self.cluster.machines {
            machine.cut(at, BOTH, cut)?;
        }
        let director = self.cluster.quorum.directors.get(at);
        swallow_own(director.context("no such director")?.ip(), cut)
    }

    /// No machine reaches another director than this one.
    fn only_way(&self, at: usize, cut: bool) -> Result<()> {
        for machine in 0..self.cluster.machines.len() {
            self.reaches_only(machine, at, cut)?;
        }
        Ok(())
    }

    fn reaches_only(&self, machine: usize, director: usize, cut: bool) -> Result<()> {
        let all = &self.cluster.machines;
        let machine = all.get(machine).context("no such machine")?;
        for other in (0..self.cluster.quorum.directors.len()).filter(|&other| other != director) {
            machine.cut(other, BOTH, cut)?;
        }
        Ok(())
    }

    /// Cuts the leader from the other directors, and leaves a machine nobody but that one.
    pub(crate) fn leave_deposed(&self, machine: usize, active: &mut Active) -> Result<()> {
        let leader = self.cluster.quorum.leader()?;
        active.directors = vec![leader];
        active.at = boot_nanos();
        self.apart(leader, [true, true], true)?;
        self.reaches_only(machine, leader, true)
    }

    /// Heals that.
    pub(crate) fn join_deposed(&self, machine: usize, deposed: &[usize]) -> Result<()> {
        for &leader in deposed {
            self.apart(leader, [true, true], false)?;
            self.reaches_only(machine, leader, false)?;
        }
        Ok(())
    }
}

/// Whether this is the end of a leader's time.
fn loses_leader(what: OnDirectors) -> bool {
    match what {
        OnDirectors::Kill
        | OnDirectors::Stop
        | OnDirectors::Lose
        | OnDirectors::Part
        | OnDirectors::Isolate
        | OnDirectors::Mute
        | OnDirectors::Deafen
        | OnDirectors::CutStore => true,
        OnDirectors::Chain
        | OnDirectors::OnlyWay
        | OnDirectors::FillDisk
        | OnDirectors::Transfer
        | OnDirectors::Replace => false,
    }
}
