//! What goes wrong. Every seed draws its own mix, so that some clusters only lose messages and others
//! only crash.

use crate::clock::{Instant, MILLI, SECOND};
use crate::random::Random;
use crate::world::{Happening, Party, World};

/// How bad it is; shares are in thousandths.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    lost: u64,
    repeated: u64,
    /// Messages that are slow, and how slow at most.
    pub(crate) slow: u64,
    pub(crate) slow_max: u64,
    /// Questions to the ledger that go wrong.
    pub(crate) ledger: u64,
    /// How long a director is believed to be the leader, at most.
    pub(crate) leader_stays: u64,
    /// Runs that cannot be started, that end by themselves, and that do not hear SIGTERM.
    pub(crate) start_fails: u64,
    pub(crate) crashes: u64,
    pub(crate) deaf: u64,
    /// Pause between faults, at most.
    pause: u64,
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    DirectorCrash,
    AgentCrash,
    AgentLeaves,
    AgentFreeze,
    WardenCrash,
    HostCrash,
    Cut,
    Isolate,
    LedgerCut,
}

const KINDS: [Kind; 9] = [
    Kind::DirectorCrash,
    Kind::AgentCrash,
    Kind::AgentLeaves,
    Kind::AgentFreeze,
    Kind::WardenCrash,
    Kind::HostCrash,
    Kind::Cut,
    Kind::Isolate,
    Kind::LedgerCut,
];

impl Profile {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut some = |most: u64| {
            if random.permille(500) {
                random.below(most)
            } else {
                0
            }
        };
        let (lost, repeated, slow) = (some(200), some(100), some(200));
        let (ledger, start_fails, crashes) = (some(300), some(100), some(400));
        let deaf = some(300);
        let kinds = KINDS.iter().copied().filter(|_| random.permille(500));
        let kinds = kinds.collect();
        Self {
            lost,
            repeated,
            slow,
            slow_max: random.between(20 * MILLI, 4 * SECOND),
            ledger,
            leader_stays: random.between(SECOND, 30 * SECOND),
            start_fails,
            crashes,
            deaf,
            pause: random.between(200 * MILLI, 5 * SECOND),
            kinds,
        }
    }

    pub(crate) fn loss(&self, quiet: bool) -> u64 {
        if quiet { 0 } else { self.lost }
    }

    pub(crate) fn repeats(&self, quiet: bool) -> u64 {
        if quiet { 0 } else { self.repeated }
    }
}

impl World {
    /// One fault, and the next one later.
    pub(crate) fn fault(&mut self) {
        if self.quiet {
            return;
        }
        let pause = self.random.between(50 * MILLI, self.profile.pause);
        self.after(pause, Happening::Fault);
        let kinds = self.profile.kinds.clone();
        let Some(kind) = self.random.pick(&kinds) else {
            return;
        };
        self.faults += 1;
        let host = self.random.below(self.hosts.len() as u64);
        let host = usize::try_from(host).unwrap_or(0);
        match kind {
            Kind::DirectorCrash => {
                let n = self.any_director();
                self.crash_director(n);
            }
            Kind::AgentCrash => {
                self.end_agent(host);
                let pause = self.random.between(100 * MILLI, 6 * SECOND);
                self.after(pause, Happening::AgentStarts(host));
            }
            Kind::AgentLeaves => {
                let generation = self.host(host).map_or(0, |host| host.generation);
                self.tell_agent(host, generation, quorate_core::agent::Event::Shutdown);
            }
            Kind::AgentFreeze => {
                let until = self.now + self.random.between(100 * MILLI, 15 * SECOND);
                if let Some(host) = self.host(host).filter(|host| host.process.is_some()) {
                    host.frozen_until = until;
                }
            }
            Kind::WardenCrash => {
                let wardens = self.host(host).map(|host| host.wardens.keys().copied());
                let wardens: Vec<_> = wardens.into_iter().flatten().collect();
                let proven = self.random.permille(500);
                if let Some(warden) = self.random.pick(&wardens) {
                    self.crash_warden(host, warden, proven);
                }
            }
            Kind::HostCrash => self.crash_host(host),
            Kind::Cut => {
                let n = self.any_director();
                let (from, to) = if self.random.permille(500) {
                    (Party::Host(host), Party::Director(n))
                } else {
                    (Party::Director(n), Party::Host(host))
                };
                self.cut(from, to);
            }
            Kind::Isolate => {
                for n in 0..self.directors.len() {
                    self.cut(Party::Host(host), Party::Director(n));
                    self.cut(Party::Director(n), Party::Host(host));
                }
            }
            Kind::LedgerCut => {
                let n = self.any_director();
                self.cut(Party::Director(n), Party::Ledger);
                self.cut(Party::Ledger, Party::Director(n));
            }
        }
    }

    fn cut(&mut self, from: Party, to: Party) {
        self.cuts.insert((from, to));
        let lasts = self.random.between(200 * MILLI, 20 * SECOND);
        self.after(lasts, Happening::Heal(from, to));
    }

    /// Faults stop: everybody is up, everything is connected.
    pub(crate) fn become_quiet(&mut self) {
        self.quiet = true;
        self.cuts.clear();
        for n in 0..self.directors.len() {
            self.after(MILLI, Happening::DirectorStarts(n));
        }
        for n in 0..self.hosts.len() {
            if let Some(host) = self.host(n) {
                host.frozen_until = Instant::default();
            }
            self.after(MILLI, Happening::AgentStarts(n));
        }
        self.after(100 * MILLI, Happening::ChooseLeader);
        // By then every call made before has its answer.
        self.after(3 * SECOND, Happening::FinalCall(0));
    }
}
