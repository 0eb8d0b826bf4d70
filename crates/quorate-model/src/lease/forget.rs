//! What may be forgotten: things that nothing can come of any more, so that states that differ only in
//! them are searched once. Each is forgotten only while the rules that make it powerless are in force.

use crate::rules::Removed;

use super::Leases;
use super::state::{Director, Host, Partition, Standing, State, Tokens, Warden};

impl Leases {
    /// Drops what is powerless.
    pub(super) fn forget(&self, state: &mut State) {
        self.forget_hosts(state);
        self.forget_answers(state);
        if self.rules.hold(Removed::ReplicatedCounter) && self.rules.hold(Removed::Assumption) {
            forget_tokens(state);
        }
        if !self.deposed_matter() && !self.size.keep_deposed {
            forget_deposed(state);
        }
    }

    /// Whether a deposed leader can do anything that others notice.
    fn deposed_matter(&self) -> bool {
        !(self.rules.hold(Removed::Proof)
            && self.rules.hold(Removed::TermCheck)
            && self.rules.hold(Removed::FreshStamps))
    }

    /// A session that is over has nothing left to do once its warden is dead, or was never armed: no
    /// leader that can prove its term renews it.
    fn forget_hosts(&self, state: &mut State) {
        for (seat, host) in state.hosts.0.iter_mut().enumerate() {
            let over = match state.ledger.standing[seat] {
                Standing::Expired | Standing::Closed => true,
                Standing::Unopened | Standing::Open => false,
            };
            let unarmed = host.fatal.is_none() && host.process().answer.is_none();
            let idle = unarmed && host.run.is_none() && !self.deposed_matter();
            if over && (host.warden == Warden::Dead || idle) {
                *host = Host {
                    warden: Warden::Dead,
                    ..Host::default()
                };
                state.ledger.speaks[seat] = 0;
            }
        }
    }

    /// An answer that would move no timer forward never will: both grow old together.
    fn forget_answers(&self, state: &mut State) {
        if !self.rules.hold(Removed::DeadlineFromSending) {
            return;
        }
        for host in &mut state.hosts.0 {
            let fatal = host.fatal;
            let process = host.process_mut();
            let moves = |age: &u8| fatal.is_none_or(|fatal| self.times().life() - age > fatal);
            process.answer = process.answer.filter(moves);
        }
    }
}

/// No token comes twice: a claim of one that nobody holds is refused for ever, and one that was given
/// back and freed is neither started nor freed again.
fn forget_tokens(state: &mut State) {
    for (seat, host) in state.hosts.0.iter_mut().enumerate() {
        let held = match state.ledger.partition {
            Partition::Free => None,
            Partition::Assigned { seat: by, token }
            | Partition::Assumed {
                seat: by, token, ..
            } => (by == seat).then_some(token),
        };
        let mut live = Tokens::default();
        if let Some(token) = held {
            live.add(token);
        }
        for process in &mut host.processes.0 {
            process.claims = process.claims.and(live);
            let over = process.released.without(live);
            process.granted = process.granted.without(over);
            process.released = process.released.and(live);
        }
    }
}

/// A leader of an earlier term can prove nothing and write nothing.
fn forget_deposed(state: &mut State) {
    let term = state.ledger.term;
    for director in &mut state.directors.0 {
        if director.leads.is_some_and(|leads| leads < term) || director.leads.is_none() {
            *director = Director::default();
        }
    }
}
