//! What goes wrong. Every seed draws its own mix, so that some clusters only lose messages and others
//! only crash. Each fault is drawn from a stream of its own, so that one can be left out.

use quorate_core::agent::Event as AgentEvent;
use quorate_core::director::call::Call;

use crate::clock::{Instant, MILLI, SECOND};
use crate::hosts::Host;
use crate::profile::Kind;
use crate::random::Random;
use crate::trip::Trip;
use crate::world::{Happening, Origin, Party, World};

pub(crate) use crate::profile::Profile;

impl World {
    /// One fault, and the next one later.
    pub(crate) fn fault(&mut self) {
        if self.quiet {
            return;
        }
        let (least, most) = self.profile.pauses();
        let pause = self.pauses[0].between(least, most);
        self.after(pause, Happening::Fault);
        let Some((number, mut random)) = self.next_drawn() else {
            return;
        };
        let Some(kind) = random.pick(&self.profile.kinds) else {
            return;
        };
        self.faults += 1;
        let now = self.now;
        self.remark(|| format!("{now} fault {number}: {kind:?}"));
        self.make(kind, &mut random);
    }

    fn make(&mut self, kind: Kind, random: &mut Random) {
        let host = index(random, self.hosts.len());
        let n = index(random, self.directors.len());
        match kind {
            Kind::DirectorCrash => {
                let rest = self.profile.outage(random, 5 * SECOND);
                self.crash_director(n, rest);
            }
            Kind::DirectorFreeze => {
                let until = self.now + self.profile.outage(random, 15 * SECOND);
                self.freeze_director(n, until);
            }
            Kind::DirectorTrip => {
                let trip = Trip::draw(random);
                self.trip_director(n, Some(trip));
            }
            Kind::AgentCrash => {
                self.end_agent(host);
                let pause = Profile::restarts(random);
                self.after(pause, Happening::AgentStarts(host));
            }
            Kind::AgentFreeze => {
                let until = self.now + self.profile.outage(random, 15 * SECOND);
                self.freeze_agent(host, until);
            }
            Kind::AgentTrip => {
                let trip = Trip::draw(random);
                if let Some(host) = self.host(host) {
                    host.trip = Some(trip);
                }
            }
            Kind::AgentLeaves => {
                let generation = self.host(host).map_or(0, |host| host.generation);
                self.tell_agent(host, generation, AgentEvent::Shutdown);
            }
            Kind::WardenCrash | Kind::WardenFreeze => self.harm_warden(kind, host, random),
            Kind::HostCrash => {
                let pause = random.between(SECOND / 2, 20 * SECOND);
                self.crash_host(host, Some(pause));
            }
            Kind::HostLoss if self.staying() > 2 => self.lose_host(host),
            Kind::HostLoss => {}
            Kind::HostSuspend => {
                let until = self.now + random.between(100 * MILLI, 30 * SECOND);
                self.suspend_host(host, until);
            }
            Kind::HostJoins => {
                self.add_host(random);
            }
            Kind::HostLeaves if self.staying() > 2 => {
                // It leaves in order, and is switched off some time later.
                let generation = self.host(host).map_or(0, |host| host.generation);
                self.tell_agent(host, generation, AgentEvent::Shutdown);
                if let Some(host) = self.host(host) {
                    host.leaving = true;
                }
                self.after(
                    random.between(SECOND, 10 * SECOND),
                    Happening::HostGoes(host),
                );
            }
            Kind::HostLeaves => {}
            Kind::Copy | Kind::Namesake => self.copy_host(kind == Kind::Copy, host, random),
            Kind::ClockSet => {
                self.clocks_were_set = true;
                let by = i64::try_from(random.below(7_200_000)).unwrap_or(0) - 3_600_000;
                if let Some(node) = self.directors.get_mut(n) {
                    node.wall_offset = by;
                }
            }
            Kind::Backup => self.back_up(random),
            Kind::Restore => self.restore(random),
            Kind::Cut
            | Kind::Isolate
            | Kind::Flap
            | Kind::LedgerCut
            | Kind::LedgerSlow
            | Kind::Deposed
            | Kind::Echo => self.harm_links(kind, host, n, random),
        }
    }

    fn harm_links(&mut self, kind: Kind, host: usize, n: usize, random: &mut Random) {
        let lasts = self.profile.outage(random, self.profile.cut_max);
        match kind {
            Kind::Cut => {
                let (host, n) = (Party::Host(host), Party::Director(n));
                let (from, to) = if random.permille(500) {
                    (host, n)
                } else {
                    (n, host)
                };
                self.cut(from, to, lasts);
            }
            Kind::Isolate => {
                for n in 0..self.directors.len() {
                    self.cut_both(Party::Host(host), Party::Director(n), lasts);
                }
            }
            Kind::Flap => {
                let times = u32::try_from(random.between(4, 20)).unwrap_or(4);
                self.flap(host, n, times);
            }
            Kind::LedgerCut => self.cut_both(Party::Director(n), Party::Ledger, lasts),
            Kind::LedgerSlow => self.ledger_slow_until = self.now + lasts,
            Kind::Deposed => self.depose(host, lasts),
            Kind::Echo => {
                self.harm_links(Kind::Isolate, host, n, random);
                self.echo(host, random);
            }
            Kind::DirectorCrash
            | Kind::DirectorFreeze
            | Kind::DirectorTrip
            | Kind::AgentCrash
            | Kind::AgentFreeze
            | Kind::AgentTrip
            | Kind::AgentLeaves
            | Kind::WardenCrash
            | Kind::WardenFreeze
            | Kind::HostCrash
            | Kind::HostLoss
            | Kind::HostSuspend
            | Kind::HostJoins
            | Kind::HostLeaves
            | Kind::Copy
            | Kind::Namesake
            | Kind::Backup
            | Kind::Restore
            | Kind::ClockSet => {}
        }
    }

    fn harm_warden(&mut self, kind: Kind, n: usize, random: &mut Random) {
        let (proven, lasts) = (
            random.permille(500),
            random.between(100 * MILLI, 15 * SECOND),
        );
        let until = self.now + lasts;
        let wardens = self.host(n).map(|host| host.wardens.keys().copied());
        let wardens: Vec<_> = wardens.into_iter().flatten().collect();
        let Some(id) = random.pick(&wardens) else {
            return;
        };
        if kind == Kind::WardenCrash {
            return self.crash_warden(n, id, proven);
        }
        let now = self.now;
        // Whatever stops a warden may stop the agent beside it, and its runs go on without either.
        let until = if random.permille(400) {
            let until = now + random.between(8 * SECOND, 20 * SECOND);
            self.freeze_agent(n, until);
            until
        } else {
            until
        };
        let awake = self.host(n).filter(|host| host.suspended_until <= now);
        let warden = awake.and_then(|host| host.wardens.get_mut(&id));
        if let Some(warden) = warden.filter(|warden| warden.frozen_until <= now) {
            warden.frozen_until = until;
        }
    }

    /// The leader loses the ledger and does not know it, while another one is chosen and one machine
    /// reaches only the former (N3).
    fn depose(&mut self, host: usize, lasts: u64) {
        let Some(former) = self.leading() else {
            return;
        };
        self.cut_both(Party::Director(former), Party::Ledger, lasts);
        for n in (0..self.directors.len()).filter(|n| *n != former) {
            self.cut_both(Party::Host(host), Party::Director(n), lasts);
        }
        if let Some(host) = self.host(host) {
            host.favourite = former;
        }
        self.lead_instead_of(former);
    }

    /// A message of a machine comes that some relay has held back until now, while nothing newer comes.
    fn echo(&mut self, host: usize, random: &mut Random) {
        let old = self
            .calls
            .iter()
            .filter(|(_, pending)| match pending.origin {
                Origin::Agent { host: sender, .. } => sender == host,
                Origin::LastWill { .. } | Origin::Operator => false,
            });
        // What opens a session may do more than a report of one.
        let (opening, rest): (Vec<_>, Vec<_>) =
            old.partition(|(_, pending)| matches!(pending.call, Call::Register { .. }));
        let from = if random.permille(700) { opening } else { rest };
        let numbers: Vec<u64> = from.into_iter().map(|(number, _)| *number).collect();
        let Some(number) = random.pick(&numbers) else {
            return;
        };
        let comes = random.between(4 * SECOND, 10 * SECOND);
        for n in 0..self.directors.len() {
            self.after(comes, Happening::CallArrives(n, number));
        }
    }

    pub(crate) fn cut_both(&mut self, one: Party, other: Party, lasts: u64) {
        self.cut(one, other, lasts);
        self.cut(other, one, lasts);
    }

    fn cut(&mut self, from: Party, to: Party, lasts: u64) {
        self.cuts.insert((from, to));
        self.after(lasts, Happening::Heal(from, to));
    }

    /// A link goes, or comes back.
    pub(crate) fn flap(&mut self, host: usize, n: usize, left: u32) {
        if self.quiet {
            return;
        }
        let (from, to) = (Party::Host(host), Party::Director(n));
        if left == 0 || !self.cuts.insert((from, to)) {
            self.cuts.remove(&(from, to));
        }
        let pause = self.random.between(100 * MILLI, 5 * SECOND);
        if let Some(left) = left.checked_sub(1) {
            self.after(pause, Happening::Flap(host, n, left));
        }
    }

    /// Machines that are there for good.
    pub(crate) fn staying(&self) -> usize {
        self.hosts.iter().filter(|host| host.stays()).count()
    }

    /// A new machine.
    pub(crate) fn add_host(&mut self, random: &mut Random) -> usize {
        let n = self.hosts.len();
        let host = Host::new(n as u64, format!("a{n}"), random, &self.profile);
        self.oracle.agent_has(&host.name, host.clock);
        self.hosts.push(host);
        self.after(SECOND, Happening::AgentStarts(n));
        n
    }

    /// Another machine with the name of this one, and perhaps its data folder, for a while.
    fn copy_host(&mut self, identity: bool, of: usize, random: &mut Random) {
        let Some((name, id)) = self.host(of).map(|host| (host.name.clone(), host.id)) else {
            return;
        };
        let n = self.add_host(random);
        if let Some(host) = self.hosts.get_mut(n) {
            self.oracle.agent_has(&name, host.clock);
            host.name = name;
            host.copy = true;
            if identity {
                host.id = id;
            }
        }
        let stays = random.between(3 * SECOND, 30 * SECOND);
        self.after(stays, Happening::HostGoes(n));
    }

    /// Faults stop: everybody is up, everything is connected. What stands still goes on in its time, so
    /// that what came to it meanwhile keeps its order.
    pub(crate) fn become_quiet(&mut self) {
        self.quiet = true;
        self.oracle.still_from = None;
        self.operator.finals.clear();
        self.operator.asked = None;
        self.cuts.clear();
        self.ledger_slow_until = Instant::default();
        for n in 0..self.directors.len() {
            self.trip_director(n, None);
            self.after(2 * MILLI, Happening::DirectorStarts(n));
        }
        for n in 0..self.hosts.len() {
            if self.hosts.get(n).is_some_and(|host| host.copy) {
                self.lose_host(n);
                continue;
            }
            if let Some(host) = self.host(n) {
                host.trip = None;
            }
            self.after(2 * MILLI, Happening::AgentStarts(n));
        }
        self.after(100 * MILLI, Happening::ChooseLeader(false));
        // By then everybody who stood still goes on, and every call made before has its answer.
        self.after(20 * SECOND, Happening::FinalCall(0));
    }
}

fn index(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).unwrap_or(0)
}
