//! What a run is to be: everything that is needed to replay it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::bug::Bug;
use crate::random::Random;

/// What a run is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Everything is drawn from this.
    pub seed: u64,
    /// How large the cluster is; drawn from the seed when it is `None`.
    pub size: Option<Size>,
    /// How long faults happen, in seconds of true time.
    pub fault_seconds: u64,
    /// Which faults and operations happen.
    pub schedule: Schedule,
    /// What is planted, to see whether it is found.
    pub bug: Option<Bug>,
    /// Whether to keep what happened, line by line.
    pub trace: bool,
}

impl Settings {
    /// How long faults happen where nobody says.
    pub const FAULT_SECONDS: u64 = 40;

    /// The usual run of a seed.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self {
            seed,
            size: None,
            fault_seconds: Self::FAULT_SECONDS,
            schedule: Schedule::All,
            bug: None,
            trace: false,
        }
    }
}

/// The options that replay it.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        if let Some(size) = self.size {
            write!(
                f,
                " --directors {} --agents {} --partitions {}",
                size.directors, size.agents, size.partitions
            )?;
        }
        if self.fault_seconds != Self::FAULT_SECONDS {
            write!(f, " --fault-seconds {}", self.fault_seconds)?;
        }
        match &self.schedule {
            Schedule::All => {}
            Schedule::Without(numbers) => write!(f, " --without {numbers}")?,
            Schedule::Only(numbers) => write!(f, " --only {numbers}")?,
        }
        if let Some(bug) = self.bug {
            write!(f, " --bug {}", bug.name())?;
        }
        Ok(())
    }
}

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Directors, 1 to 7.
    pub directors: u64,
    /// Agents in the beginning.
    pub agents: u64,
    /// Most partitions of one service.
    pub partitions: u64,
}

impl Size {
    /// The size that speed is measured with.
    pub const BIG: Self = Self {
        directors: 3,
        agents: 20,
        partitions: 500,
    };

    /// Most clusters are small, because a small one finds the same and sooner.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let directors = random.pick(&[1, 2, 3, 3, 3, 5]).unwrap_or(3);
        match random.below(60) {
            0 => Self::BIG,
            1..5 => Self {
                directors,
                agents: random.between(5, 9),
                partitions: random.between(30, 100),
            },
            _ => Self {
                directors,
                agents: random.between(2, 5),
                partitions: random.between(4, 24),
            },
        }
    }
}

/// Which of the faults and operations of a seed happen, by their number in the order of happening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// All.
    All,
    /// All but these.
    Without(Numbers),
    /// These and no others.
    Only(Numbers),
}

impl Schedule {
    /// Whether the one with this number happens.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        match self {
            Self::All => true,
            Self::Without(numbers) => !numbers.0.contains(&number),
            Self::Only(numbers) => numbers.0.contains(&number),
        }
    }

    /// The shorter way to say which of `count` happen.
    #[must_use]
    pub fn of(happen: &BTreeSet<u64>, count: u64) -> Self {
        let rest: BTreeSet<u64> = (0..count).filter(|n| !happen.contains(n)).collect();
        if rest.is_empty() {
            Self::All
        } else if rest.len() < happen.len() {
            Self::Without(Numbers(rest))
        } else {
            Self::Only(Numbers(happen.clone()))
        }
    }
}

/// Some numbers, written `3,9,17-20`; `none` when there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(pub BTreeSet<u64>);

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &number in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                Some(_) | None => runs.push((number, number)),
            }
        }
        for (at, (first, last)) in runs.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = BTreeSet::new();
        if text == "none" {
            return Ok(Self(numbers));
        }
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u64>();
            let (Ok(first), Ok(last)) = (number(first), number(last)) else {
                return Err(format!("{part:?} is no number; write 3,9,17-20 or none"));
            };
            numbers.extend(first..=last);
        }
        Ok(Self(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for text in ["none", "3", "3,9,17-20", "0-2,4"] {
            assert_eq!(
                text.parse::<Numbers>().map(|n| n.to_string()),
                Ok(text.to_owned())
            );
        }
        assert!("3,x".parse::<Numbers>().is_err());
    }

    #[test]
    fn the_shorter_way_to_say_what_happens_is_taken() {
        let happen = |numbers: &[u64]| numbers.iter().copied().collect();
        assert_eq!(Schedule::of(&happen(&[0, 1, 2]), 3), Schedule::All);
        let most = Schedule::of(&happen(&[0, 1, 2]), 4);
        assert!(most.has(2) && !most.has(3) && matches!(most, Schedule::Without(_)));
        let few = Schedule::of(&happen(&[2]), 4);
        assert!(few.has(2) && !few.has(3) && matches!(few, Schedule::Only(_)));
    }
}
