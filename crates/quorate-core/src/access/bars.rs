//! Which certificates count no longer before they end: those of machines that were forgotten or removed, and
//! those that a machine had before it was let in again.
//!
//! A certificate says at which position of the ledger its owner was let in, and keeps that when it is renewed.
//! So one position for a name tells all certificates from before from those after, without a clock and without
//! a list of certificates.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeName, Position};
use crate::time::WallTime;

use super::Node;

/// A bar is remembered for this long, twice the life of a certificate: afterwards nothing that it bars can
/// be good, by any clock that is less than a week wrong.
pub const BARRED_FOR: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Names whose certificates of before count no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bars {
    agents: BTreeMap<NodeName, Bar>,
    directors: BTreeMap<NodeName, Bar>,
}

/// From where on certificates for a name count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bar {
    /// Those of who was let in before it do not.
    pub(crate) before: Position,
    /// When it was set, by the leader's wall time.
    pub(crate) set: WallTime,
}

impl Bars {
    /// Whether the certificates of who was let in under this name at this position count no longer.
    #[must_use]
    pub fn bar(&self, node: Node, name: &NodeName, since: Position) -> bool {
        let bar = self.of(node).get(name);
        bar.is_some_and(|bar| since < bar.before)
    }

    /// Whether nothing is barred.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty() && self.directors.is_empty()
    }

    /// Bars all that was let in under this name before a position.
    pub(crate) fn set(&mut self, node: Node, name: NodeName, (before, set): (Position, WallTime)) {
        let long = i64::try_from(BARRED_FOR.as_millis()).unwrap_or(i64::MAX);
        for bars in [&mut self.agents, &mut self.directors] {
            bars.retain(|_, bar| set.0.saturating_sub(bar.set.0) < long);
        }
        let bars = match node {
            Node::Agent => &mut self.agents,
            Node::Director => &mut self.directors,
        };
        bars.insert(name, Bar { before, set });
    }

    /// All of one kind, by name.
    pub(crate) const fn of(&self, node: Node) -> &BTreeMap<NodeName, Bar> {
        match node {
            Node::Agent => &self.agents,
            Node::Director => &self.directors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    #[test]
    fn who_was_let_in_before_is_barred_and_who_comes_after_is_not() {
        let mut bars = Bars::default();
        let barred = |bars: &Bars, node, since| bars.bar(node, &name("x"), Position(since));
        assert!(!barred(&bars, Node::Agent, 0));
        bars.set(Node::Agent, name("x"), (Position(9), WallTime(0)));
        assert!(barred(&bars, Node::Agent, 0) && barred(&bars, Node::Agent, 8));
        assert!(!barred(&bars, Node::Agent, 9) && !barred(&bars, Node::Agent, 10));
        assert!(!barred(&bars, Node::Director, 8), "another machine");
        assert!(!bars.bar(Node::Agent, &name("y"), Position(8)));
    }

    #[test]
    fn a_bar_goes_when_all_that_it_bars_is_over() {
        let mut bars = Bars::default();
        let long = i64::try_from(BARRED_FOR.as_millis()).unwrap();
        bars.set(Node::Agent, name("old"), (Position(9), WallTime(5)));
        bars.set(
            Node::Director,
            name("d"),
            (Position(10), WallTime(4 + long)),
        );
        assert!(bars.bar(Node::Agent, &name("old"), Position(8)));
        bars.set(
            Node::Director,
            name("e"),
            (Position(11), WallTime(5 + long)),
        );
        assert!(!bars.bar(Node::Agent, &name("old"), Position(8)));
        assert!(bars.bar(Node::Director, &name("d"), Position(9)));
    }
}
