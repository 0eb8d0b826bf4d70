//! Who is to hold which partition: a pure, deterministic function of the partitions, the agents, what
//! they hold now, and the rules of each group.
//!
//! A *group* is what balances by itself: the partitions of one service. Within a group the agents that
//! may take its partitions hold equally many (weights equal: never more than one apart) or equally
//! much (weights differ). Where that leaves a choice, agents that hold less in total are preferred, so
//! the remainders of many groups do not pile up. What is held stays where it is unless moving it makes
//! the spread more even; when weights are equal the number of moves is exactly the least possible:
//! with targets of ⌊P/N⌋ or ⌈P/N⌉ it is the minimum of Σ max(0, held − target) over all their choices.
//! When weights differ, nothing moves while every agent is within five percent of the mean; beyond
//! that the agents outside are brought back to within a thousandth, or as near as weights allow, and
//! the others give or take up to half of the five percent, so that few heavy partitions move and not
//! many light ones. A partition heavier than the mean counts as the mean, and is no part of it: its
//! agent keeps little beside it, and nobody else moves because of it.
//!
//! Totals are made more even only by what makes no group less so. They stay as they are while within
//! five percent of the mean of the agents that are allowed for the same groups, and where a few of those
//! furthest away can give nothing: single heavy partitions may keep them there.
//!
//! [`Layout`] holds the answer and follows changes: an agent that comes or goes costs time in
//! proportion to what moves, not to what there is. Settling twice changes nothing the second time.
//!
//! It must never place anything on an agent that is not open and allowed, exceed a capacity or
//! `max_per_agent`, or depend on anything but its inputs. It does not stop a running partition of a low
//! priority for the sake of a waiting one of a high priority; priority is the order of being served.

mod aim;
mod bucket;
mod even;
mod layout;
mod level;
mod seats;
mod table;
#[cfg(test)]
mod tests;
mod totals;
mod tournament;
mod weigh;

pub use layout::Layout;

use crate::spec::Strategy;
use table::Key;

/// Declares a dense index.
macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl Key for $name {
            fn at(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index! {
    /// An agent in a [`Layout`]: counted from 0 in the order of being added.
    AgentIndex
}
index! {
    /// A group in a [`Layout`]: counted from 0 in the order of being added.
    GroupIndex
}
index! {
    /// A partition in a [`Layout`], chosen by the caller. Numbers should be dense, and in the order of
    /// the partitions' names where the same names are to give the same map.
    PartitionIndex
}

/// What may be placed on an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It takes part.
    Open,
    /// It keeps what it holds and gets nothing.
    Holding,
    /// It gets nothing, and what it holds goes wherever else there is room; without room it stays.
    Leaving,
    /// It holds nothing.
    Absent,
}

/// An agent as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// What may be placed on it.
    pub standing: Standing,
    /// Most weight it takes; `None` means no limit.
    pub capacity: Option<u64>,
    /// Decides between agents that are otherwise equal: a hash of its name.
    pub rank: u64,
}

/// How the partitions of a group are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether partitions move for the sake of balance.
    pub strategy: Strategy,
    /// Most partitions of the group on one agent; 0 means no limit.
    pub max_per_agent: u32,
    /// Groups with a higher one are served first.
    pub priority: i32,
}

/// A partition as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its group.
    pub group: GroupIndex,
    /// How heavy it is, at least 1.
    pub weight: u32,
    /// Partitions of a group with the same number go to different agents as far as the balance lets
    /// them; `None` for those that may be anywhere.
    pub spread: Option<u32>,
}

/// What an agent has been given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many partitions.
    pub count: u32,
    /// Their weight.
    pub weight: u64,
}

/// Why a partition has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// No agent is open and allowed for its group.
    NoAgent,
    /// Every such agent holds `max_per_agent` of its group.
    PerAgent,
    /// None of those that are below it has capacity left for its weight.
    Capacity,
}
