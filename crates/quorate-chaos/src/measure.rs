//! The times of a round: from what was done to what came of it.

use std::collections::BTreeMap;

use crate::clock::nanos;
use crate::faults::{Act, Cost, OnMachine};
use crate::figures::{Figure, Figures};
use crate::judge::{End, Start};
use crate::scene::Active;
use crate::times::Times;

/// Takes the times of a round whose last fault was healed at this moment; of none in which something hinders
/// starts: directors that are disturbed, or an agent that cannot start anything.
pub(crate) fn round(
    figures: &mut Figures,
    times: Times,
    active: &[Active],
    starts: &[Start],
    healed: u64,
) {
    let hinders = |fault: &Active| {
        let full = Act::Machine(OnMachine::FillDisk);
        fault.card.fault.disturbs() || fault.card.fault.act == full
    };
    if active.iter().any(hinders) {
        return;
    }
    for fault in active {
        let later = starts
            .iter()
            .filter(|start| start.at > fault.at && fault.touched.contains_key(&start.partition));
        let mut firsts: BTreeMap<&str, &Start> = BTreeMap::new();
        for start in later {
            firsts.entry(&start.partition).or_insert(start);
        }
        let firsts: Vec<&Start> = firsts.into_values().collect();
        of_fault(figures, times, fault, &firsts, healed);
    }
    let over = |fault: &Active| match fault.card.fault.cost {
        // What they cost has come back before they are healed, or nothing was to come back.
        Cost::Silence | Cost::Nothing => true,
        Cost::Theirs => matches!(fault.card.fault.act, Act::Machine(_)),
        Cost::Unsaid => false,
    };
    if active.iter().all(over) {
        // A run that ended before may have been stopped by its agent for want of a renewal.
        let gaps = starts.iter().filter_map(gap);
        for (from, to) in gaps.filter(|&(from, _)| from > healed) {
            figures.add(Figure::HandOverBalance, from, to);
        }
    }
}

/// From the end of a run that was asked to stop to its start on another agent.
fn gap(start: &Start) -> Option<(u64, u64)> {
    let End {
        at, agent, asked, ..
    } = start.before.as_ref()?;
    (*asked && *agent != start.agent).then_some((*at, start.at))
}

/// The times of one fault, from the first start after it of each partition that it touched.
fn of_fault(figures: &mut Figures, times: Times, fault: &Active, firsts: &[&Start], healed: u64) {
    let machine = fault.machine();
    let moved = |start: &&&Start| Some(&start.agent) != machine.as_ref() && start.at < healed;
    let elsewhere = firsts.iter().filter(moved);
    let spans: Vec<(u64, u64)> = firsts.iter().map(|start| (fault.at, start.at)).collect();
    match fault.card.fault.act {
        Act::Machine(what) if fault.card.fault.cost == Cost::Silence => {
            let deadline = fault.at + nanos(times.lease);
            for start in elsewhere {
                let expiry = fault.at + nanos(times.expiry());
                figures.add(Figure::TakeoverBeyondExpiry, expiry, start.at);
                let Some(before) = &start.before else {
                    continue;
                };
                if what == OnMachine::StopAgent {
                    figures.add(Figure::WrotePastDeadline, deadline, before.wrote);
                } else if matches!(what, OnMachine::StopAll | OnMachine::Freeze) {
                    figures.add(Figure::GonePastDeadline, deadline, before.at);
                }
            }
        }
        Act::Machine(OnMachine::KillAgent) if fault.card.machine == Some(0) => {
            figures.add_all([Figure::AgentDeathFirst, Figure::AgentDeathEach], &spans);
        }
        Act::Machine(OnMachine::KillWardens(_) | OnMachine::KillWholeWardens) => {
            for (from, to) in spans {
                figures.add(Figure::WardenDeath, from, to);
            }
        }
        Act::Machine(OnMachine::Drain) => {
            for (from, to) in elsewhere.filter_map(|start| gap(start)) {
                figures.add(Figure::HandOverDrain, from, to);
            }
        }
        Act::Machine(_) | Act::Directors(..) | Act::Store(_) | Act::Runs(_) => {}
    }
}
