//! The rules of agents and wardens: what they may do, and what it does.

use crate::rules::Removed;

use super::Leases;
use super::action::Action;
use super::state::{Host, Partition, Process, Standing, State, Token, Tokens, Warden};

impl Leases {
    pub(super) fn offer_agents(&self, state: &State, actions: &mut Vec<Action>) {
        for seat in self.seats() {
            let host = &state.hosts[seat];
            if host.warden == Warden::Dead {
                continue;
            }
            if !self.size.steady(seat) {
                actions.push(Action::WardenDies(seat));
            }
            if host.run.is_some() {
                actions.push(Action::End(seat));
            }
            if host.up {
                self.offer_process(state, seat, actions);
            } else if host.newest < self.size.restarts_of(seat) {
                actions.push(Action::Restart(seat));
            }
        }
    }

    /// What the newest process of an agent may do while it lives. That it may also do nothing for any
    /// time is its pause.
    fn offer_process(&self, state: &State, seat: usize, actions: &mut Vec<Action>) {
        let host = &state.hosts[seat];
        if host.newest < self.size.restarts_of(seat) {
            actions.push(Action::Crash(seat));
        }
        let told_of = state.ledger.speaks[seat] >= host.newest;
        let known = state.ledger.standing[seat] != Standing::Unopened && told_of;
        if !known {
            return;
        }
        let in_time = self.in_time(host) || !self.rules.hold(Removed::LookAtDeadline);
        let process = host.process();
        if in_time && !process.closing && !self.size.steady(seat) {
            actions.push(Action::Renew(seat));
        }
        if in_time && process.answer.is_some() {
            actions.push(Action::Take(seat));
        }
        self.offer_work(state, seat, in_time, actions);
    }

    fn offer_work(&self, state: &State, seat: usize, in_time: bool, actions: &mut Vec<Action>) {
        let host = &state.hosts[seat];
        let process = host.process();
        if process.closing {
            return;
        }
        match state.ledger.partition {
            Partition::Assigned {
                seat: chosen,
                token,
            }
            | Partition::Assumed {
                seat: chosen,
                token,
                revoked: false,
            } if chosen == seat => actions.push(Action::Claim { seat, token }),
            Partition::Free | Partition::Assigned { .. } | Partition::Assumed { .. } => {}
        }
        let may_start = self.rights(process);
        for token in may_start.each() {
            let armed = host.fatal.is_some();
            if host.run.is_none() && armed && in_time && !process.released.has(token) {
                actions.push(Action::Start { seat, token });
            }
        }
        for token in process.granted.each() {
            let proven = host.run != Some(token) || !self.rules.hold(Removed::ProofOfDeath);
            if proven && !process.released.has(token) {
                actions.push(Action::GiveBack { seat, token });
            }
        }
        let holds = process.granted.each();
        let mut holds = holds.filter(|token| !process.released.has(*token));
        // An agent leaves by giving everything back first; what it was never told of cannot run.
        if host.run.is_none() && self.size.restarts_of(seat) > 0 && holds.next().is_none() {
            actions.push(Action::Leave(seat));
        }
    }

    /// R9: the tokens that a process may start.
    fn rights(&self, process: &Process) -> Tokens {
        if self.rules.hold(Removed::Assumption) {
            process.granted
        } else {
            process.claims
        }
    }

    /// R2: whether the agent, on the slowest clock that is allowed, can still find its deadline ahead.
    /// Before the first renewal there is none.
    fn in_time(&self, host: &Host) -> bool {
        host.fatal.is_none_or(|fatal| fatal > self.times().kill)
    }

    /// R1: the deadline moves to the sending of the renewal plus L, and only forward.
    pub(super) fn take(&self, host: &mut Host) {
        let Some(age) = host.process().answer else {
            return;
        };
        let counted = if self.rules.hold(Removed::DeadlineFromSending) {
            age
        } else {
            0
        };
        let fatal = self.times().life() - counted;
        // A warden whose timer has gone off and who lives all the same has no second one.
        if host.fatal != Some(0) {
            host.fatal = host.fatal.max(Some(fatal));
        }
        if self.rules.hold(Removed::DeadlineFromSending) {
            host.process_mut().answer = None;
        }
    }

    pub(super) fn start(&self, state: &mut State, seat: usize, token: Token) {
        let assumed = state.ledger.assumed[seat].has(token);
        let host = &mut state.hosts[seat];
        let armed = host.fatal.is_some() && self.rules.hold(Removed::Timer);
        state.broken.rights |= !assumed || !armed;
        host.run = Some(token);
    }
}

/// What a process knew is gone; what it had sent is still on its way.
pub(super) fn crash(host: &mut Host) {
    host.up = false;
    let process = host.process_mut();
    process.granted = Tokens::default();
    process.answer = None;
}
