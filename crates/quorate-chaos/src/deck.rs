//! Which faults come when: a deck of cards that is dealt to its end before it is shuffled again, so that a
//! short run has seen many kinds and a long one every kind about as often.

use crate::faults::{Act, Fault, Needs, OnRuns};
use crate::machine::Machine;
use crate::random::Random;
use crate::store;
use crate::times::Times;

/// What is done at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) fault: &'static Fault,
    /// The machine, where it is one's.
    pub(crate) machine: Option<usize>,
    /// How long it lasts, in milliseconds.
    pub(crate) lasts: u64,
    /// How long after the one before it begins, in milliseconds.
    pub(crate) after: u64,
    /// Draws what is left to chance beside that.
    pub(crate) seed: u64,
}

/// What a machine can be used for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) adopts: bool,
    pub(crate) network: bool,
    pub(crate) group: bool,
    pub(crate) small_disk: bool,
}

impl Seat {
    pub(crate) fn of(machine: &Machine) -> Self {
        Self {
            adopts: machine.adopts(),
            network: machine.has_network(),
            group: machine.group.is_some(),
            small_disk: machine.has_small_disk(),
        }
    }

    const fn fits(self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => true,
            Needs::Adoption => self.adopts,
            Needs::Networks => self.network,
            Needs::Groups => self.group,
            Needs::SmallDisk => self.small_disk,
            // It is the directors that must be fit for these.
            Needs::Quorum
            | Needs::QuorumNetworks
            | Needs::QuorumStore
            | Needs::Store
            | Needs::Server
            | Needs::Members => true,
        }
    }
}

/// What the directors can be used for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench {
    /// One of them may be lost.
    pub(crate) quorum: bool,
    /// They have networks of their own.
    pub(crate) network: bool,
    /// The store that they share.
    pub(crate) store: Option<store::Kind>,
}

impl Bench {
    fn fits(self, needs: Needs) -> bool {
        match needs {
            Needs::Quorum => self.quorum,
            Needs::QuorumNetworks => self.quorum && self.network,
            Needs::QuorumStore => self.quorum && self.store.is_some(),
            Needs::Store | Needs::Server | Needs::Members => {
                self.store.is_some_and(|kind| kind.fits(needs))
            }
            Needs::Nothing
            | Needs::Adoption
            | Needs::Networks
            | Needs::Groups
            | Needs::SmallDisk => true,
        }
    }
}

/// The deck.
#[derive(Debug)]
pub(crate) struct Deck {
    random: Random,
    possible: Vec<&'static Fault>,
    left: Vec<&'static Fault>,
    seats: Vec<Seat>,
    times: Times,
}

impl Deck {
    /// A deck of those faults that are possible with such machines and such directors.
    pub(crate) fn new(
        seed: u64,
        faults: Vec<&'static Fault>,
        seats: Vec<Seat>,
        bench: Bench,
        times: Times,
    ) -> Self {
        // Over a store some faults of a quorum are about nothing.
        let is_there = |fault: &Fault| bench.store.is_none() || fault.without_quorum().is_none();
        let fits = |fault: &&Fault| {
            is_there(fault)
                && bench.fits(fault.needs)
                && seats.iter().any(|seat| seat.fits(fault.needs))
        };
        Self {
            random: Random::new(seed),
            possible: faults.into_iter().filter(fits).collect(),
            left: Vec::new(),
            seats,
            times,
        }
    }

    /// Whether it has this fault at all.
    pub(crate) fn has(&self, fault: &Fault) -> bool {
        self.possible.contains(&fault)
    }

    /// The next round: one fault, or two that have different targets.
    pub(crate) fn deal(&mut self) -> Vec<Card> {
        let mut round: Vec<Card> = Vec::new();
        let two = self.random.below(3) > 0;
        round.extend(self.draw(&[]));
        if two && let Some(second) = self.draw(&round) {
            round.push(second);
        }
        round
    }

    /// The topmost card that goes with those that are dealt already.
    fn draw(&mut self, dealt: &[Card]) -> Option<Card> {
        if self.left.is_empty() {
            self.left.clone_from(&self.possible);
            self.random.shuffle(&mut self.left);
        }
        let goes = |fault: &&Fault| {
            goes_with(fault, dealt)
                && (!is_of_machine(fault) || !self.free(fault, dealt).is_empty())
        };
        let at = self.left.iter().rposition(goes)?;
        let fault = self.left.remove(at);
        let free = self.free(fault, dealt);
        let machine = is_of_machine(fault).then(|| self.random.pick(&free).copied());
        let (least, most) = fault.lasts.of(self.times);
        Some(Card {
            fault,
            machine: machine.flatten(),
            lasts: self.random.between(least, most),
            after: if dealt.is_empty() {
                0
            } else {
                self.random.between(0, 800)
            },
            seed: self.random.any(),
        })
    }

    /// The machines that this can be done to and that nothing is done to yet.
    fn free(&self, fault: &Fault, dealt: &[Card]) -> Vec<usize> {
        let taken = |at| dealt.iter().any(|card| card.machine == Some(at));
        let all = self.seats.iter().enumerate();
        let free = all.filter(|&(at, seat)| seat.fits(fault.needs) && !taken(at));
        free.map(|(at, _)| at).collect()
    }
}

const fn is_of_machine(fault: &Fault) -> bool {
    matches!(fault.act, Act::Machine(_))
}

/// Whether a fault can be done beside these: never two to directors, nothing is asked of them while they are
/// disturbed, and two do not change wishes at once.
fn goes_with(fault: &Fault, dealt: &[Card]) -> bool {
    let wishes = |fault: &Fault| matches!(fault.act, Act::Runs(OnRuns::Scale | OnRuns::StopStart));
    dealt.iter().all(|card| {
        let other = card.fault;
        let asked = (fault.disturbs() && other.asks()) || (other.disturbs() && fault.asks());
        let both = (fault.disturbs() && other.disturbs()) || (wishes(fault) && wishes(other));
        !asked && !both
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::FAULTS;

    fn deck(seed: u64) -> Deck {
        deck_over(seed, None)
    }

    /// The deck of directors that share this store.
    fn deck_over(seed: u64, store: Option<store::Kind>) -> Deck {
        let seat = Seat {
            adopts: true,
            network: true,
            group: true,
            small_disk: false,
        };
        let small_disk = Seat {
            small_disk: true,
            ..seat
        };
        let dies = Seat {
            adopts: false,
            ..seat
        };
        Deck::new(
            seed,
            FAULTS.iter().collect(),
            vec![dies, small_disk, seat],
            bench(true, store),
            Times::EMBEDDED,
        )
    }

    fn bench(all: bool, store: Option<store::Kind>) -> Bench {
        Bench {
            quorum: all,
            network: all,
            store,
        }
    }

    #[test]
    fn a_seed_always_deals_the_same_and_every_fault_comes() {
        let deal = |seed| {
            let mut deck = deck(seed);
            (0..90).flat_map(|_| deck.deal()).collect::<Vec<_>>()
        };
        assert_eq!(deal(4), deal(4));
        assert_ne!(deal(4), deal(5));
        for fault in FAULTS.iter().filter(|fault| !fault.is_of_store()) {
            assert!(deal(4).iter().any(|card| card.fault == fault), "{fault:?}");
        }
    }

    #[test]
    fn two_faults_of_a_round_never_have_one_machine_and_none_is_without_a_target() {
        let mut deck = deck(1);
        for _ in 0..2000 {
            let round = deck.deal();
            let machines: Vec<usize> = round.iter().filter_map(|card| card.machine).collect();
            assert!(
                machines.len() < 2 || machines.first() != machines.last(),
                "{round:?}"
            );
            for card in &round {
                assert_eq!(
                    is_of_machine(card.fault),
                    card.machine.is_some(),
                    "{card:?}"
                );
                let small = card.fault.needs == Needs::SmallDisk;
                assert!(!small || card.machine == Some(1), "{card:?}");
            }
        }
    }

    #[test]
    fn over_a_store_come_its_faults_and_none_that_is_about_a_quorum_alone() {
        for kind in [store::Kind::Postgres, store::Kind::Zookeeper] {
            let mut deck = deck_over(1, Some(kind));
            let dealt: Vec<Card> = (0..90).flat_map(|_| deck.deal()).collect();
            for fault in &FAULTS {
                let other = !kind.fits(fault.needs) || fault.without_quorum().is_some();
                let comes = dealt.iter().any(|card| card.fault == fault);
                assert_eq!(comes, !other, "{fault:?}");
            }
        }
    }

    #[test]
    fn what_no_machine_is_fit_for_is_not_dealt() {
        let seat = Seat {
            adopts: false,
            network: false,
            group: false,
            small_disk: false,
        };
        let mut deck = Deck::new(
            1,
            FAULTS.iter().collect(),
            vec![seat; 3],
            bench(false, None),
            Times::EMBEDDED,
        );
        let possible = FAULTS.iter().filter(|fault| fault.needs == Needs::Nothing);
        assert_eq!(deck.possible.len(), possible.count());
        let dealt: Vec<Card> = (0..200).flat_map(|_| deck.deal()).collect();
        for card in dealt {
            assert!(deck.has(card.fault));
            assert_eq!(card.fault.needs, Needs::Nothing);
        }
    }
}
