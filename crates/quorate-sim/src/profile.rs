//! How bad a seed is: its mix of faults, drawn once.

use crate::clock::{Clock, MILLI, SECOND};
use crate::random::Random;

/// How bad it is; shares are in thousandths.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    lost: u64,
    repeated: u64,
    /// Repeats that come when nobody waits for an answer any more.
    pub(crate) held: u64,
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
    /// Runs that say how far they have come.
    pub(crate) says: u64,
    /// How long a run lives that ends by itself, at most.
    pub(crate) lives: u64,
    /// Entries between two snapshots.
    pub(crate) snapshot_every: u64,
    /// Every outage is so short that no lease ends by it, one comes after the other, and nobody asks for
    /// anything: nothing may be restarted.
    pub(crate) gentle: bool,
    /// Work has leases so long that leaders record who is silent, and everything takes longer.
    pub(crate) patient: bool,
    /// Directors are lost and restored from backups.
    pub(crate) restores: bool,
    /// The ledger is in a store that cannot tell who should lead.
    pub(crate) shared: bool,
    /// What people want in the end is kept, however long no director answers.
    pub(crate) kept: bool,
    /// Longest time for which a link is cut.
    pub(crate) cut_max: u64,
    /// Whether clocks are within what model M allows. Where they are not, only fencing is promised.
    pub(crate) clocks_within: bool,
    /// All agents have the slowest clocks that the model allows, and all directors the fastest: then the
    /// margins for that are used up wherever a lease ends.
    apart: bool,
    /// Pause between faults, at most.
    pause: u64,
    pub(crate) kinds: Vec<Kind>,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A director is killed and starts again.
    DirectorCrash,
    /// A director is stopped and goes on later.
    DirectorFreeze,
    /// A director is killed or stopped in the middle of what it does next.
    DirectorTrip,
    /// An agent process is killed and another one starts.
    AgentCrash,
    /// An agent process is stopped and goes on later; its warden lives on.
    AgentFreeze,
    /// An agent process is killed or stopped in the middle of what it does next.
    AgentTrip,
    /// An agent leaves in order and comes back.
    AgentLeaves,
    /// A warden dies, and what it holds with it.
    WardenCrash,
    /// A warden is stopped and goes on later; the kernel's timer does not stop.
    WardenFreeze,
    /// A machine loses power and boots again.
    HostCrash,
    /// A machine loses power for ever.
    HostLoss,
    /// A machine is suspended; its boot time goes on.
    HostSuspend,
    /// A new machine joins.
    HostJoins,
    /// A machine leaves in order for ever.
    HostLeaves,
    /// A second machine has the data folder of another one.
    Copy,
    /// A second machine has the name of another one.
    Namesake,
    /// The wall clock of a director is set.
    ClockSet,
    /// A link is cut in one direction.
    Cut,
    /// A machine reaches no director.
    Isolate,
    /// A link comes and goes.
    Flap,
    /// A director does not reach the ledger.
    LedgerCut,
    /// The ledger is slow.
    LedgerSlow,
    /// A leader is replaced without knowing, and a machine reaches only that one.
    Deposed,
    /// Somebody makes a backup.
    Backup,
    /// All directors are lost at once and restored from an older backup.
    Restore,
    /// While a machine reaches nobody, something comes that it sent at any time before, perhaps in an earlier
    /// boot.
    Echo,
}

const KINDS: [Kind; 24] = [
    Kind::DirectorCrash,
    Kind::DirectorFreeze,
    Kind::DirectorTrip,
    Kind::AgentCrash,
    Kind::AgentFreeze,
    Kind::AgentTrip,
    Kind::AgentLeaves,
    Kind::WardenCrash,
    Kind::WardenFreeze,
    Kind::HostCrash,
    Kind::HostLoss,
    Kind::HostSuspend,
    Kind::HostJoins,
    Kind::HostLeaves,
    Kind::Copy,
    Kind::Namesake,
    Kind::ClockSet,
    Kind::Cut,
    Kind::Isolate,
    Kind::Flap,
    Kind::LedgerCut,
    Kind::LedgerSlow,
    Kind::Deposed,
    Kind::Echo,
];

/// What may happen where no lease may end by it.
const GENTLE: [Kind; 7] = [
    Kind::DirectorCrash,
    Kind::DirectorFreeze,
    Kind::AgentFreeze,
    Kind::ClockSet,
    Kind::Cut,
    Kind::Isolate,
    Kind::LedgerCut,
];

/// What may happen where leases are long: nothing that ends work at once but the end of a machine, or of a
/// boot of it.
const PATIENT: [Kind; 10] = [
    Kind::DirectorCrash,
    Kind::DirectorFreeze,
    Kind::AgentFreeze,
    Kind::HostCrash,
    Kind::HostLoss,
    Kind::HostSuspend,
    Kind::Isolate,
    Kind::Isolate,
    Kind::Deposed,
    Kind::Echo,
];

/// The slowest and the fastest clock that model M allows, in millionths of true time (M1).
const SLOWEST: u64 = 990_000;
const FASTEST: u64 = 1_010_000;

/// L − G − H of the class that gentle seeds use is 6 s. An outage, an attempt that is still waiting when
/// it ends, and an election must fit.
const GENTLE_OUTAGE: u64 = 1500 * MILLI;
const GENTLE_PAUSE: u64 = 8 * SECOND;

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
        let says = some(600);
        let kinds = KINDS.iter().copied().filter(|_| random.permille(400));
        let kinds = kinds.collect();
        let wild = Self {
            lost,
            repeated,
            held: 200,
            slow,
            slow_max: random.between(20 * MILLI, 4 * SECOND),
            ledger,
            leader_stays: random.between(SECOND, 30 * SECOND),
            start_fails,
            crashes,
            deaf,
            says,
            lives: random
                .pick(&[300 * MILLI, 3 * SECOND, 15 * SECOND])
                .unwrap_or(SECOND),
            snapshot_every: random.between(10, 200),
            gentle: false,
            patient: false,
            restores: false,
            shared: false,
            kept: false,
            cut_max: 20 * SECOND,
            clocks_within: !random.permille(25),
            apart: random.permille(250),
            pause: random.between(200 * MILLI, 5 * SECOND),
            kinds,
        };
        let drawn = match random.below(100) {
            0..3 => wild.gentle(false),
            3..6 => wild.gentle(true),
            6..10 => wild.patient(),
            10..22 => wild.restoring(),
            _ => wild,
        };
        Self {
            shared: random.permille(250),
            ..drawn
        }
    }

    /// How many times as long as usual faults happen: where they are rare they need more time to come
    /// together, and where leases are long as well.
    pub(crate) const fn lasts(&self) -> u64 {
        if self.patient {
            5
        } else if self.gentle {
            3
        } else {
            1
        }
    }

    fn patient(self) -> Self {
        Self {
            patient: true,
            cut_max: 70 * SECOND,
            pause: 8 * SECOND,
            leader_stays: 20 * SECOND,
            clocks_within: true,
            kinds: PATIENT.to_vec(),
            ..self
        }
    }

    /// Directors are lost and restored. Whether kept work still executes then is for a person to know, so there
    /// is none.
    fn restoring(mut self) -> Self {
        self.kinds
            .extend([Kind::Backup, Kind::Backup, Kind::Restore]);
        Self {
            restores: true,
            clocks_within: true,
            ..self
        }
    }

    /// Work that is kept bears any outage but the end of its machine.
    fn gentle(self, kept: bool) -> Self {
        Self {
            lost: 0,
            repeated: self.repeated,
            slow: 0,
            ledger: 0,
            leader_stays: 3_600 * SECOND,
            start_fails: 0,
            crashes: 0,
            deaf: 0,
            gentle: true,
            kept,
            cut_max: 30 * SECOND,
            clocks_within: true,
            kinds: GENTLE.to_vec(),
            ..self
        }
    }

    pub(crate) fn loss(&self, quiet: bool) -> u64 {
        if quiet { 0 } else { self.lost }
    }

    pub(crate) fn repeats(&self, quiet: bool) -> u64 {
        if quiet { 0 } else { self.repeated }
    }

    /// Least and longest pause between two faults.
    pub(crate) fn pauses(&self) -> (u64, u64) {
        if self.gentle {
            (GENTLE_PAUSE, 2 * GENTLE_PAUSE)
        } else {
            (50 * MILLI, self.pause)
        }
    }

    /// How long something is out of order.
    pub(crate) fn outage(&self, random: &mut Random, most: u64) -> u64 {
        let most = if self.gentle && !self.kept {
            most.min(GENTLE_OUTAGE)
        } else {
            most
        };
        random.between(100 * MILLI, most)
    }

    /// How long it takes until the next agent process begins: mostly somebody sees to it at once.
    pub(crate) fn restarts(random: &mut Random) -> u64 {
        let most = if random.permille(500) {
            SECOND
        } else {
            6 * SECOND
        };
        random.between(100 * MILLI, most)
    }

    /// The clock of a worker machine.
    pub(crate) fn agent_clock(&self, random: &mut Random) -> Clock {
        let clock = self.clock(random);
        self.set_apart(clock, SLOWEST)
    }

    /// The clock of a director.
    pub(crate) fn director_clock(&self, random: &mut Random) -> Clock {
        let clock = self.clock(random);
        self.set_apart(clock, FASTEST)
    }

    fn set_apart(&self, clock: Clock, rate_millionths: u64) -> Clock {
        if !self.apart || !self.clocks_within {
            return clock;
        }
        Clock {
            rate_millionths,
            ..clock
        }
    }

    /// A clock: at the bounds of what model M allows in many cases, because there it matters.
    fn clock(&self, random: &mut Random) -> Clock {
        let rate_millionths = match (self.clocks_within, random.below(3)) {
            (true, 0) => SLOWEST,
            (true, 1) => FASTEST,
            (true, _) => random.between(SLOWEST, FASTEST),
            (false, 0) => random.between(999_000, 1_001_000),
            (false, 1) => random
                .pick(&[987_000, 993_000, 1_007_000, 1_013_000])
                .unwrap_or(1_000_000),
            (false, _) => random
                .pick(&[900_000, 950_000, 980_000, 1_020_000, 1_050_000, 1_100_000])
                .unwrap_or(1_000_000),
        };
        Clock {
            offset: random.between(SECOND, 1_000_000 * SECOND),
            rate_millionths,
            stood: 0,
        }
    }
}
