//! Sessions that wait for work. Kept in the loop, so that a commit wakes exactly those it concerns
//! instead of every agent of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::cluster::Cluster;
use quorate_core::director::{Director, WorkDelta};
use quorate_core::ids::{Position, SessionId};
use quorate_core::spec::Span;
use tokio::sync::oneshot;

/// A session asks what is new for it since `since`.
#[derive(Debug)]
pub(crate) struct WorkAsk {
    pub(crate) session: SessionId,
    pub(crate) since: Position,
    /// `None`: the session is not open, as far as this director knows. Dropped: a newer question of the
    /// same session took its place.
    pub(crate) answer: oneshot::Sender<Option<WorkDelta>>,
}

/// Those who wait: one question of each session.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    of: BTreeMap<SessionId, Waiter>,
    leases: Leases,
}

/// The lease classes that services ask for. An agent opens a session for each, so a new one is news
/// to everybody.
#[derive(Debug, Default)]
struct Leases {
    in_use: BTreeSet<Span>,
    looked: Position,
    changed: Position,
}

impl Leases {
    fn look(&mut self, cluster: &Cluster) {
        if cluster.spec_changed() <= self.looked {
            return;
        }
        self.looked = cluster.spec_changed();
        let services = cluster.services().filter(|(_, service)| !service.removed());
        let in_use = services
            .map(|(_, service)| Span(service.spec().lease_class()))
            .collect();
        if self.in_use != in_use {
            self.in_use = in_use;
            self.changed = cluster.position();
        }
    }
}

#[derive(Debug)]
struct Waiter {
    ask: WorkAsk,
    /// Nothing was new up to here.
    looked: Position,
}

impl Waiters {
    /// Answers at once when there is something new, else waits.
    pub(super) fn add(&mut self, ask: WorkAsk, director: &Director) {
        let session = ask.session;
        self.leases.look(director.cluster());
        if let Some(ask) = answer(ask, director, self.leases.changed) {
            let looked = director.cluster().position();
            self.of.insert(session, Waiter { ask, looked });
        }
    }

    /// Answers those for whom something is new.
    pub(super) fn look(&mut self, director: &Director) {
        let cluster = director.cluster();
        let here = cluster.position();
        self.leases.look(cluster);
        let leases = self.leases.changed;
        let mut ready = Vec::new();
        for (id, waiter) in &mut self.of {
            let session = cluster.session(*id);
            let news = session.is_none_or(|session| {
                session.changed().max(cluster.spec_changed()).max(leases) > waiter.looked
            });
            if news || waiter.ask.answer.is_closed() {
                ready.push(*id);
            }
            waiter.looked = here;
        }
        for id in ready {
            if let Some(waiter) = self.of.remove(&id)
                && !waiter.ask.answer.is_closed()
            {
                self.add(waiter.ask, director);
            }
        }
    }
}

/// Answers, or gives the question back because nothing is new.
fn answer(ask: WorkAsk, director: &Director, leases: Position) -> Option<WorkAsk> {
    if director.cluster().in_force(ask.session).is_none() {
        // The agent may have given up waiting; then nobody needs the answer.
        let _ = ask.answer.send(None);
        return None;
    }
    match director.work(ask.session, ask.since) {
        None if leases > ask.since => {
            let _ = ask.answer.send(Some(WorkDelta {
                index: director.cluster().position(),
                whole: false,
                items: Vec::new(),
                gone: Vec::new(),
                services: Vec::new(),
            }));
            None
        }
        None => Some(ask),
        delta @ Some(_) => {
            let _ = ask.answer.send(delta);
            None
        }
    }
}
