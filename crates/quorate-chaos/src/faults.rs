//! What can be done to a cluster: faults of the catalogue of `docs/chaos.md` and what operators do all day,
//! each with what it may cost.

use crate::link::Way;
use crate::process::Part;
use crate::times::Lasts;

/// What is done to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnMachine {
    /// Its agent is killed, and another one started afterwards.
    KillAgent,
    /// Its agent is stopped, and continued afterwards.
    StopAgent,
    /// Agent, wardens and runs are.
    StopAll,
    /// This process of each of its wardens is killed.
    KillWardens(Part),
    /// Both processes of each of its wardens are, at once.
    KillWholeWardens,
    /// Its agent is, too, and another one started afterwards.
    KillAgentAndWardens,
    /// Its control group is frozen.
    Freeze,
    /// Everything is killed and the network cut; an agent is started afterwards.
    Lose,
    /// The relay holds back what goes these ways.
    Cut(&'static [Way]),
    /// Routes swallow what goes these ways.
    Blackhole(&'static [Way]),
    /// The relay cuts and heals again and again.
    Flap,
    /// The relay is slow.
    Delay,
    /// The relay resets every connection.
    Reset,
    /// The relay forgets every connection without a word.
    Forget,
    /// Its disk is filled.
    FillDisk,
    /// A copy of its data folder is started, on it or elsewhere.
    Copy {
        here: bool,
    },
    /// The leader is cut from the other directors, and it reaches nobody but that one.
    OnlyDeposed,
    /// Somebody drains it, or gives it nothing new.
    Drain,
    Cordon,
}

/// Which directors; who leads is asked when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Leader,
    /// One that does not lead.
    Follower,
    /// As many as may be lost, whoever leads.
    Minority,
    All,
}

/// What is done to directors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDirectors {
    /// They are killed, and started afterwards.
    Kill,
    /// They are stopped, and continued afterwards.
    Stop,
    /// They are killed and their networks cut; they are started afterwards.
    Lose,
    /// Other directors do not reach them, and are not reached; agents do.
    Part,
    /// Nobody reaches them, and they reach nobody.
    Isolate,
    /// What they send other directors is swallowed.
    Mute,
    /// What other directors send them is swallowed.
    Deafen,
    /// One other director and this one do not reach each other, a third one both.
    Chain,
    /// Agents reach no other director.
    OnlyWay,
    /// The disk of the one that has a small one is filled; before that, leadership goes to it or from it.
    FillDisk,
    /// Somebody lets it lead.
    Transfer,
    /// Somebody removes it, and another one comes in with an empty folder.
    Replace,
    /// They do not reach the store, and it does not reach them.
    CutStore,
}

/// What is done to the store that the directors share. Where it is one server's, it is the one that leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStore {
    /// It is killed, and started afterwards.
    KillOne,
    /// It is stopped, and continued afterwards.
    StopOne,
    /// All servers are.
    StopAll,
    /// The relays of all directors are slow.
    Slow,
}

/// What is done to runs, or to what is wanted of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnRuns {
    /// Some commands are killed.
    Kill,
    /// Some commands are told to exit.
    Exit,
    /// One command exits at every start.
    Fail,
    /// Some commands are killed that have daemons.
    Orphan,
    /// A service is restarted.
    Restart(&'static str),
    /// A service is applied with another environment.
    Change,
    /// Partitions come or go.
    Scale,
    /// Partitions are stopped, and started afterwards.
    StopStart,
}

/// What is done to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Machine(OnMachine),
    Directors(Whom, OnDirectors),
    Store(OnStore),
    Runs(OnRuns),
}

/// What it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Nothing may restart.
    Nothing,
    /// What its machine has, which nobody is told of: taken over after the lease.
    Silence,
    /// What its machine has, or the partitions that it names.
    Theirs,
    /// More than can be said from outside: its machine may be back before the heal, or its partitions go
    /// elsewhere, and then others may move for an even spread.
    Unsaid,
}

/// What it takes: of the machine that it is done to, or of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// A machine whose wardens wait for the next agent process.
    Adoption,
    /// A network of each machine's own.
    Networks,
    /// Control groups of version 2.
    Groups,
    /// A machine with a small disk.
    SmallDisk,
    /// Directors of which one may be lost.
    Quorum,
    /// The same, with networks of their own, and one with a small disk.
    QuorumNetworks,
    /// Directors that share a store, and of which one may be lost.
    QuorumStore,
    /// A store of any kind.
    Store,
    /// A store with one server.
    Server,
    /// A store with several servers.
    Members,
}

/// Something that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its number in the catalogue; `O` for what operators do.
    pub(crate) id: &'static str,
    pub(crate) text: &'static str,
    pub(crate) act: Act,
    pub(crate) cost: Cost,
    pub(crate) needs: Needs,
    pub(crate) lasts: Lasts,
}

impl Fault {
    const fn new(
        (id, text): (&'static str, &'static str),
        act: Act,
        cost: Cost,
        lasts: Lasts,
    ) -> Self {
        Self {
            id,
            text,
            act,
            cost,
            needs: Needs::Nothing,
            lasts,
        }
    }

    const fn needing(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// Whether directors are asked for it.
    pub(crate) fn asks(&self) -> bool {
        match self.act {
            Act::Machine(OnMachine::Drain | OnMachine::Cordon) => true,
            Act::Machine(_) | Act::Directors(..) | Act::Store(_) => false,
            Act::Runs(OnRuns::Kill | OnRuns::Exit | OnRuns::Fail | OnRuns::Orphan) => false,
            Act::Runs(OnRuns::Restart(_) | OnRuns::Change | OnRuns::Scale | OnRuns::StopStart) => {
                true
            }
        }
    }

    /// Whether directors are disturbed by it.
    pub(crate) fn disturbs(&self) -> bool {
        match self.act {
            Act::Directors(..) | Act::Store(_) | Act::Machine(OnMachine::OnlyDeposed) => true,
            Act::Machine(_) | Act::Runs(_) => false,
        }
    }

    /// Whether it is about a store that directors share, and so never comes where they have none.
    pub(crate) const fn is_of_store(&self) -> bool {
        matches!(
            self.needs,
            Needs::QuorumStore | Needs::Store | Needs::Server | Needs::Members
        )
    }

    /// Why it is not there where the directors share a store.
    pub(crate) const fn without_quorum(&self) -> Option<&'static str> {
        match self.act {
            Act::Machine(OnMachine::OnlyDeposed)
            | Act::Directors(
                _,
                OnDirectors::Part | OnDirectors::Mute | OnDirectors::Deafen | OnDirectors::Chain,
            ) => Some("what directors over a store send each other decides nothing"),
            Act::Directors(_, OnDirectors::FillDisk) => {
                Some("the ledger is not on the disk of a director")
            }
            Act::Directors(_, OnDirectors::Transfer) => {
                Some("nobody is told to lead over a store: whoever appends leads")
            }
            Act::Directors(_, OnDirectors::Replace) => {
                Some("directors over a store vote on nothing, so there is no member to change")
            }
            Act::Machine(_) | Act::Directors(..) | Act::Store(_) | Act::Runs(_) => None,
        }
    }
}

/// Shorter than every lease bears.
const SHORT: Lasts = Ms(300, 700);
/// Both ways.
pub(crate) const BOTH: &[Way] = &[Way::Up, Way::Down];

use Act::{Directors, Machine, Runs, Store};
use Cost::{Nothing, Silence, Theirs, Unsaid};
use Lasts::{Away, Borne, Expired, HalfAgain, Ms, Stopped};
use OnDirectors::{
    Chain, CutStore, Deafen, FillDisk, Isolate, Kill, Lose, Mute, OnlyWay, Part as Apart, Replace,
    Stop, Transfer,
};
use Whom::{All, Follower, Leader, Minority};

/// A fault of some of several directors: whoever is left decides, and nothing may restart.
const fn some(
    id: &'static str,
    text: &'static str,
    (whom, what): (Whom, OnDirectors),
    lasts: Lasts,
) -> Fault {
    Fault::new((id, text), Directors(whom, what), Nothing, lasts).needing(Needs::Quorum)
}

/// The same where the network between directors is needed.
const fn between(
    id: &'static str,
    text: &'static str,
    what: (Whom, OnDirectors),
    lasts: Lasts,
) -> Fault {
    some(id, text, what, lasts).needing(Needs::QuorumNetworks)
}

/// A fault of the store that directors share.
const fn store(text: &'static str, what: OnStore, cost: Cost, lasts: Lasts) -> Fault {
    Fault::new(("B1", text), Store(what), cost, lasts).needing(Needs::Store)
}

/// All of them.
pub(crate) static FAULTS: [Fault; 71] = [
    Fault::new(
        ("P1", "agent killed"),
        Machine(OnMachine::KillAgent),
        Theirs,
        Ms(300, 2500),
    ),
    Fault::new(
        ("P1", "agent killed, the next one starts at once"),
        Machine(OnMachine::KillAgent),
        Nothing,
        Ms(20, 200),
    )
    .needing(Needs::Adoption),
    Fault::new(
        ("P2", "agent stopped for less than its lease"),
        Machine(OnMachine::StopAgent),
        Nothing,
        SHORT,
    ),
    Fault::new(
        ("P3", "agent stopped for longer"),
        Machine(OnMachine::StopAgent),
        Silence,
        Expired,
    ),
    Fault::new(
        ("P4", "agent, wardens and runs stopped"),
        Machine(OnMachine::StopAll),
        Silence,
        Expired,
    ),
    Fault::new(
        ("P5", "timekeepers of wardens killed"),
        Machine(OnMachine::KillWardens(Part::Timekeeper)),
        Unsaid,
        Ms(300, 1500),
    ),
    Fault::new(
        ("P5", "holders of wardens killed"),
        Machine(OnMachine::KillWardens(Part::Holder)),
        Unsaid,
        Ms(300, 1500),
    ),
    Fault::new(
        ("P5", "both processes of wardens killed at once"),
        Machine(OnMachine::KillWholeWardens),
        Unsaid,
        Ms(300, 1500),
    ),
    Fault::new(
        (
            "P5",
            "agent and both processes of its wardens killed at once",
        ),
        Machine(OnMachine::KillAgentAndWardens),
        Theirs,
        Ms(300, 1500),
    ),
    Fault::new(
        ("P6", "runs killed"),
        Runs(OnRuns::Kill),
        Theirs,
        Ms(200, 1500),
    ),
    Fault::new(
        ("P6", "runs exit by themselves"),
        Runs(OnRuns::Exit),
        Theirs,
        Ms(200, 1500),
    ),
    Fault::new(
        ("P6", "a run fails again and again"),
        Runs(OnRuns::Fail),
        Unsaid,
        Ms(1500, 3000),
    ),
    Fault::new(
        ("P7", "runs restarted that do not hear SIGTERM"),
        Runs(OnRuns::Restart("deaf")),
        Theirs,
        Ms(1500, 2500),
    ),
    Fault::new(
        ("P8", "commands killed whose daemons live on"),
        Runs(OnRuns::Orphan),
        Theirs,
        Ms(200, 1500),
    ),
    Fault::new(
        ("P9", "control group of a machine frozen"),
        Machine(OnMachine::Freeze),
        Silence,
        Expired,
    )
    .needing(Needs::Groups),
    some("P10", "leader killed", (Leader, Kill), Away),
    some("P10", "follower killed", (Follower, Kill), Away),
    some(
        "P10",
        "minority of directors killed",
        (Minority, Kill),
        Away,
    ),
    Fault::new(
        ("P10", "all directors killed, and started at once"),
        Directors(All, Kill),
        Nothing,
        Ms(0, 50),
    ),
    Fault::new(
        ("P10", "all directors away for longer than the lease"),
        Directors(All, Kill),
        Unsaid,
        Stopped,
    ),
    some("P11", "leader stopped", (Leader, Stop), Away),
    some("P11", "follower stopped", (Follower, Stop), Away),
    Fault::new(
        ("P11", "all directors stopped for less than a lease"),
        Directors(All, Stop),
        Nothing,
        SHORT,
    ),
    Fault::new(
        ("P11", "all directors stopped for longer than the lease"),
        Directors(All, Stop),
        Unsaid,
        Stopped,
    ),
    between(
        "P12",
        "machine of the leader lost: killed, network cut",
        (Leader, Lose),
        Away,
    ),
    between(
        "P12",
        "machine of a director lost: killed, network cut",
        (Minority, Lose),
        Away,
    ),
    between(
        "N4",
        "leader cut from the other directors, not from agents",
        (Leader, Apart),
        Away,
    ),
    between(
        "N4",
        "follower cut from the other directors, not from agents",
        (Follower, Apart),
        Away,
    ),
    between("N4", "leader cut from everything", (Leader, Isolate), Away),
    between(
        "N4",
        "follower cut from everything",
        (Follower, Isolate),
        Away,
    ),
    between(
        "N5",
        "what the leader sends other directors swallowed",
        (Leader, Mute),
        Away,
    ),
    between(
        "N5",
        "what other directors send the leader swallowed",
        (Leader, Deafen),
        Away,
    ),
    between(
        "N5",
        "what a follower sends other directors swallowed",
        (Follower, Mute),
        Away,
    ),
    between(
        "N5",
        "what other directors send a follower swallowed",
        (Follower, Deafen),
        Away,
    ),
    between(
        "N5",
        "directors in a chain, the leader at an end",
        (Leader, Chain),
        Away,
    ),
    between(
        "N5",
        "directors in a chain, the leader in the middle",
        (Follower, Chain),
        Away,
    ),
    between(
        "N5",
        "agents reach only one follower",
        (Follower, OnlyWay),
        Away,
    ),
    Fault::new(
        ("N3", "a machine reaches only the deposed leader"),
        Machine(OnMachine::OnlyDeposed),
        Silence,
        Expired,
    )
    .needing(Needs::QuorumNetworks),
    between(
        "D1",
        "disk of the leader full",
        (Leader, FillDisk),
        Ms(1500, 4000),
    ),
    between(
        "D1",
        "disk of a follower full",
        (Follower, FillDisk),
        Ms(1500, 4000),
    ),
    some(
        "I4",
        "director removed, a new one joined",
        (Minority, Replace),
        Ms(500, 1500),
    ),
    some(
        "O",
        "leadership handed over",
        (Follower, Transfer),
        Ms(500, 1500),
    ),
    store(
        "leading server of the store killed",
        OnStore::KillOne,
        Nothing,
        Away,
    )
    .needing(Needs::Members),
    store(
        "only server of the store killed, and started at once",
        OnStore::KillOne,
        Nothing,
        Ms(0, 300),
    )
    .needing(Needs::Server),
    store(
        "leading server of the store stopped for less than a lease",
        OnStore::StopOne,
        Nothing,
        Borne,
    )
    .needing(Needs::Members),
    store(
        "leading server of the store stopped for longer than the lease",
        OnStore::StopOne,
        Unsaid,
        Stopped,
    )
    .needing(Needs::Members),
    store(
        "whole store stopped for less than a lease",
        OnStore::StopAll,
        Nothing,
        Borne,
    ),
    store(
        "whole store stopped for one and a half leases",
        OnStore::StopAll,
        Unsaid,
        HalfAgain,
    ),
    store("slow store", OnStore::Slow, Nothing, Ms(1500, 3500)),
    some(
        "B1",
        "leader cut from the store, not from agents",
        (Leader, CutStore),
        Away,
    )
    .needing(Needs::QuorumStore),
    some(
        "B1",
        "follower cut from the store, not from agents",
        (Follower, CutStore),
        Away,
    )
    .needing(Needs::QuorumStore),
    Fault::new(
        ("P12", "machine lost: everything killed, network cut"),
        Machine(OnMachine::Lose),
        Silence,
        Expired,
    ),
    Fault::new(
        ("N1", "network cut by the relay"),
        Machine(OnMachine::Cut(BOTH)),
        Silence,
        Expired,
    )
    .needing(Needs::Networks),
    Fault::new(
        ("N2", "way to the directors cut by the relay"),
        Machine(OnMachine::Cut(&[Way::Up])),
        Silence,
        Expired,
    )
    .needing(Needs::Networks),
    Fault::new(
        ("N2", "way from the directors cut by the relay"),
        Machine(OnMachine::Cut(&[Way::Down])),
        Silence,
        Expired,
    )
    .needing(Needs::Networks),
    Fault::new(
        ("N1", "routes swallow everything"),
        Machine(OnMachine::Blackhole(BOTH)),
        Silence,
        Expired,
    )
    .needing(Needs::Networks),
    Fault::new(
        ("N2", "routes swallow what goes to the directors"),
        Machine(OnMachine::Blackhole(&[Way::Up])),
        Silence,
        Expired,
    )
    .needing(Needs::Networks),
    Fault::new(
        ("N2", "routes swallow what comes from the directors"),
        Machine(OnMachine::Blackhole(&[Way::Down])),
        Silence,
        Expired,
    )
    .needing(Needs::Networks),
    Fault::new(
        ("N6", "link that comes and goes"),
        Machine(OnMachine::Flap),
        Nothing,
        Ms(1500, 3500),
    )
    .needing(Needs::Networks),
    Fault::new(
        ("N7", "slow link"),
        Machine(OnMachine::Delay),
        Nothing,
        Ms(1500, 3500),
    )
    .needing(Needs::Networks),
    Fault::new(
        ("N8", "all connections reset"),
        Machine(OnMachine::Reset),
        Nothing,
        Ms(100, 500),
    )
    .needing(Needs::Networks),
    Fault::new(
        ("N8", "all connections dead without an end"),
        Machine(OnMachine::Forget),
        Unsaid,
        Ms(2000, 4000),
    )
    .needing(Needs::Networks),
    Fault::new(
        ("D1", "disk of an agent full"),
        Machine(OnMachine::FillDisk),
        Unsaid,
        Ms(1500, 4000),
    )
    .needing(Needs::SmallDisk),
    Fault::new(
        ("I1", "copy of the data folder started on the machine"),
        Machine(OnMachine::Copy { here: true }),
        Nothing,
        Ms(1000, 2500),
    ),
    Fault::new(
        ("I1", "copy of the data folder started elsewhere"),
        Machine(OnMachine::Copy { here: false }),
        Nothing,
        Ms(1000, 2500),
    )
    .needing(Needs::Networks),
    Fault::new(
        ("O", "drain, then uncordon"),
        Machine(OnMachine::Drain),
        Theirs,
        Ms(1500, 3000),
    ),
    Fault::new(
        ("O", "cordon, then uncordon"),
        Machine(OnMachine::Cordon),
        Nothing,
        Ms(500, 2000),
    ),
    Fault::new(
        ("O", "partitions added to the list or taken off it"),
        Runs(OnRuns::Scale),
        Unsaid,
        Ms(1500, 3000),
    ),
    Fault::new(
        ("O", "partitions stopped, then started"),
        Runs(OnRuns::StopStart),
        Unsaid,
        Ms(1000, 3000),
    ),
    Fault::new(
        ("O", "changed service applied"),
        Runs(OnRuns::Change),
        Theirs,
        Ms(1500, 2500),
    ),
    Fault::new(
        ("O", "service restarted"),
        Runs(OnRuns::Restart("plain")),
        Theirs,
        Ms(1000, 2000),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::Times;

    #[test]
    fn every_fault_is_there_once_and_what_is_silent_lasts_longer_than_the_lease() {
        let mut texts: Vec<&str> = FAULTS.iter().map(|fault| fault.text).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), FAULTS.len());
        for (times, fault) in [Times::EMBEDDED, Times::STORE]
            .into_iter()
            .flat_map(|times| FAULTS.iter().map(move |fault| (times, fault)))
        {
            let expiry = u64::try_from(times.expiry().as_millis()).unwrap();
            let bearable = u64::try_from(times.bearable().as_millis()).unwrap();
            let (least, most) = fault.lasts.of(times);
            assert!(least <= most, "{}", fault.text);
            match fault.cost {
                Silence => assert!(least > expiry + 1000, "{}: seen for too short", fault.text),
                Nothing => {
                    let stops = matches!(
                        fault.act,
                        Directors(All, _)
                            | Machine(OnMachine::StopAgent | OnMachine::KillAgent)
                            | Store(OnStore::StopOne | OnStore::StopAll)
                    );
                    assert!(
                        !stops || most < bearable,
                        "{}: no lease bears that",
                        fault.text
                    );
                }
                Theirs | Unsaid => {}
            }
        }
    }

    #[test]
    fn what_is_of_the_store_is_never_left_out_over_one() {
        for fault in &FAULTS {
            assert!(
                !fault.is_of_store() || fault.without_quorum().is_none(),
                "{fault:?}"
            );
        }
    }
}
