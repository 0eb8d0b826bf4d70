//! What the directors say of clocks, beside what the clocks really are (R14).

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::AgentName;
use quorate_core::record::Schedulable;

use super::Oracle;
use crate::clock::Clock;

/// From here on a clock is told of, in millionths; beyond twice that its work is taken away.
const TOLD: u64 = 5_000;
/// So far the measure may be off: delays of a minute's fastest messages, and the quotient of two rates.
const EXACT: u64 = 1_500;

/// Who has which clock, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    directors: Vec<u64>,
    /// Machines that have one name, in order of joining.
    agents: BTreeMap<String, Vec<u64>>,
    leader: Option<usize>,
    /// What the present leader has told of.
    told: BTreeSet<AgentName>,
    /// Agents that a person wanted drained at some time.
    asked: BTreeSet<AgentName>,
}

impl Oracle {
    /// A director has this clock.
    pub(crate) fn director_has(&mut self, clock: Clock) {
        self.clocks.directors.push(clock.rate_millionths);
    }

    /// A machine of this name has this clock.
    pub(crate) fn agent_has(&mut self, name: &str, clock: Clock) {
        let all = self.clocks.agents.entry(name.to_owned()).or_default();
        all.push(clock.rate_millionths);
    }

    /// Somebody else leads, by its random identity.
    pub(super) fn leads(&mut self, id: u64) {
        let leader = usize::try_from(id.saturating_sub(1));
        self.clocks.leader = leader.ok();
        self.clocks.told.clear();
    }

    /// A person wants an agent drained.
    pub(super) fn drain_asked(&mut self, agent: &AgentName) {
        self.clocks.asked.insert(agent.clone());
    }

    /// How much faster the clocks of machines of this name run than the leader's, in millionths.
    fn truths(&self, agent: &str) -> Vec<i64> {
        let leader = self.clocks.leader;
        let leader = leader.and_then(|leader| self.clocks.directors.get(leader));
        let Some(leader) = leader.and_then(|rate| i64::try_from(*rate).ok()) else {
            return Vec::new();
        };
        let own = self.clocks.agents.get(agent).into_iter().flatten();
        let own = own.filter_map(|rate| i64::try_from(*rate).ok());
        own.map(|own| own * 1_000_000 / leader - 1_000_000)
            .collect()
    }

    /// The leader tells of a clock.
    pub(super) fn drifts(&mut self, agent: &AgentName, ppm: i64) {
        self.clocks.told.insert(agent.clone());
        let truths = self.truths(agent.as_str());
        // A clock that is far off leaves no message of a minute to compare with but the first.
        let near = |truth: &i64| truth.abs_diff(ppm) <= EXACT + truth.unsigned_abs();
        if !truths.iter().any(near) {
            let seen = format!("the clock of {agent} is said to be off by {ppm}, it is {truths:?}");
            self.blame("R14", seen);
        }
    }

    /// An agent is to be drained, by a person or by the leader.
    pub(super) fn drained(&mut self, agent: &AgentName) {
        let truths = self.truths(agent.as_str());
        let beyond = |truth: &i64| truth.unsigned_abs() + EXACT > 2 * TOLD;
        if !self.clocks.asked.contains(agent) && !truths.iter().any(beyond) {
            let seen =
                format!("{agent} is drained and nobody asked; its clock is off by {truths:?}");
            self.blame("R14", seen);
        }
    }

    /// Long after the last fault: every clock that is off was told of, and what is beyond was drained. Of
    /// the work that may run anywhere nothing is left there, when there is somewhere else.
    pub(crate) fn judge_clocks<'a>(
        &mut self,
        staying: impl Iterator<Item = (usize, &'a str)> + Clone,
        wanted: impl Fn(&str) -> bool,
    ) {
        let elsewhere = staying.clone().any(|(_, name)| self.keeps_time(name));
        for (host, name) in staying {
            let truths = self.truths(name);
            let (Ok(agent), [truth]) = (AgentName::new(name), truths.as_slice()) else {
                continue;
            };
            let truth = *truth;
            let off = truth.unsigned_abs();
            if off > TOLD + EXACT && !self.clocks.told.contains(&agent) {
                let seen = format!("nobody tells of the clock of {agent}, off by {truth}");
                self.blame("R14", seen);
            }
            let history = self.agents.get(&agent).map(Vec::as_slice);
            let last = history.and_then(<[_]>::last).map(|(_, set)| *set);
            let beyond = off > 2 * TOLD + EXACT;
            if beyond && last != Some(Schedulable::Draining) {
                let seen = format!("{agent} is not drained, its clock is off by {truth}");
                self.blame("R14", seen);
            }
            if beyond
                && elsewhere
                && self
                    .executing()
                    .any(|(name, at)| at == host && wanted(name))
            {
                let seen = format!("work is left on {agent}, whose clock is off by {truth}");
                self.blame("R14", seen);
            }
        }
    }

    /// Whether every machine of this name has a clock that bears leases for certain.
    pub(crate) fn keeps_time(&self, name: &str) -> bool {
        let truths = self.truths(name);
        let bears = |truth: &i64| truth.unsigned_abs() + EXACT < 2 * TOLD;
        !truths.is_empty() && truths.iter().all(bears)
    }
}
