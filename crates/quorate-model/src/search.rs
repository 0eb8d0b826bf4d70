//! Runs a search to its end and says what it found.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Steps to the state that is farthest from the beginning.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Promises that are broken.
    pub broken: Vec<Trace>,
    /// Useful things that happen.
    pub reached: Vec<Trace>,
    /// Useful things that never happen.
    pub missed: Vec<&'static str>,
}

/// How a property was found.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its name.
    pub property: &'static str,
    /// One sentence for each step.
    pub steps: Vec<String>,
    /// The state that shows it, in words.
    pub last: String,
}

impl Found {
    /// The sequence of steps that breaks a promise, if there is one.
    #[must_use]
    pub fn breach(&self, property: &str) -> Option<&Trace> {
        self.broken.iter().find(|trace| trace.property == property)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after {} steps:", self.property, self.steps.len())?;
        for (at, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>4}  {step}", at + 1)?;
        }
        writeln!(f, "      {}", self.last.replace('\n', "\n      "))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states, depth {}, {:.1} s",
            self.states,
            self.depth,
            self.took.as_secs_f64()
        )
    }
}

/// Searches every state, breadth first, until all is seen.
///
/// The traces in the answer need not be shortest ones: use [`shortest`] for that.
pub fn search<M>(model: M, threads: usize) -> Found
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + fmt::Debug + fmt::Display + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + fmt::Debug + PartialEq,
{
    let begin = Instant::now();
    let properties = model.properties();
    let checker = model.checker().threads(threads).spawn_bfs().join();
    let mut found = Found {
        states: checker.unique_state_count(),
        depth: checker.max_depth().saturating_sub(1),
        took: begin.elapsed(),
        broken: Vec::new(),
        reached: Vec::new(),
        missed: Vec::new(),
    };
    for property in properties {
        let trace = trace(&checker, property.name);
        match (promises(&property.expectation), trace) {
            (true, Some(trace)) => found.broken.push(trace),
            (true, None) => {}
            (false, Some(trace)) => found.reached.push(trace),
            (false, None) => found.missed.push(property.name),
        }
    }
    found
}

/// A shortest sequence of steps that breaks the promise, or reaches the useful thing, of this name.
///
/// The library ends a search some states after the discovery and keeps the last one, so the search is
/// repeated with less depth until nothing is found any more.
pub fn shortest<M>(model: &M, property: &'static str) -> Option<Trace>
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + fmt::Debug + fmt::Display + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + fmt::Debug + PartialEq,
{
    let wanted = BTreeSet::from([property]);
    let mut best: Option<Trace> = None;
    loop {
        let checker = model.clone().checker();
        let mut checker = checker.finish_when(HasDiscoveries::AllOf(wanted.clone()));
        if let Some(best) = &best {
            if best.steps.is_empty() {
                return Some(best.clone());
            }
            // The library counts states, one more than steps, and leaves the last one out.
            checker = checker.target_max_depth(best.steps.len() + 1);
        }
        match trace(&checker.spawn_bfs().join(), property) {
            Some(shorter) => best = Some(shorter),
            None => return best,
        }
    }
}

fn promises(expectation: &Expectation) -> bool {
    match expectation {
        Expectation::Always | Expectation::Eventually => true,
        Expectation::Sometimes => false,
    }
}

fn trace<M>(checker: &impl Checker<M>, property: &'static str) -> Option<Trace>
where
    M: Model,
    M::State: Clone + fmt::Debug + fmt::Display + Hash + PartialEq,
    M::Action: Clone + fmt::Debug + PartialEq,
{
    let path = checker.discovery(property)?;
    let last = path.last_state().to_string();
    let steps = path.into_actions();
    let steps = steps.iter().map(|step| checker.model().format_action(step));
    Some(Trace {
        property,
        steps: steps.collect(),
        last,
    })
}
