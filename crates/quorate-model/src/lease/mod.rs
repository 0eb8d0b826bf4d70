//! Leases of two or three sessions under changes of leader (R1-R11, R13).
//!
//! [`Leases`] is the search space: a [`Size`], the [`Rules`] in force, and what can
//! happen in each state. [`state`] says what is kept, [`action`] what can happen, [`agents`] and
//! [`directors`] state the rules. It must never use code of the product.

pub mod action;
mod agents;
mod directors;
mod forget;
mod size;
pub mod state;

use stateright::{Model, Property};

use crate::rules::{Removed, Rules};
use crate::times::Times;

use action::Action;
use state::{Clock, Director, Host, Ledger, Row, Standing, State, Waiting, Warden};

pub use size::Size;

/// S1: one copy at most executes.
pub const S1: &str = "S1 exclusive execution";
/// S3: tokens rise.
pub const S3: &str = "S3 monotonic tokens";
/// S5: no start without a right, no move without proof or expiry.
pub const S5: &str = "S5 no start without right";
/// S7: one process speaks for a session.
pub const S7: &str = "S7 one incarnation";
/// A partition comes back elsewhere after an expiry.
pub const TAKEOVER: &str = "a silent session expires and another executes";
/// A change of leader stops nothing.
pub const RENEWED: &str = "a run outlives the longest life that the leader before could give it";
/// A partition moves in order.
pub const MOVED: &str = "a partition is given back and executes elsewhere";
/// A deposed leader that believes in itself exists beside the new one.
pub const DEPOSED: &str = "a deposed leader goes on believing";
/// A new process of an agent goes on with a living run.
pub const ADOPTED: &str = "a new process of the agent speaks for a run of the one before";

/// The search space.
#[derive(Clone, Copy, Debug)]
pub struct Leases {
    /// How much there is.
    pub size: Size,
    /// What is in force.
    pub rules: Rules,
}

impl Leases {
    fn times(&self) -> Times {
        self.size.times
    }

    /// Ticks until the fastest director's clock may have counted X.
    fn expiry(&self) -> u8 {
        let times = self.times();
        let units = times.expiry(
            self.rules.hold(Removed::DriftFactor),
            self.rules.hold(Removed::KillBudget),
        );
        times.earliest(units)
    }

    fn seats(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.size.seats
    }

    fn tick(&self, state: &mut State) {
        let lease = self.times().lease;
        let keeps_old = !self.rules.hold(Removed::DeadlineFromSending);
        let older = |age: u8| -> Option<u8> {
            // The deadline that such a renewal could give has passed even on the slowest clock.
            (age + 1 < lease || keeps_old).then(|| (age + 1).min(lease))
        };
        for host in state.hosts.0.iter_mut().take(self.size.timed) {
            for process in &mut host.processes.0 {
                process.request = process.request.and_then(older);
                process.answer = process.answer.and_then(older);
            }
            if let Some(left @ 1..) = host.fatal {
                host.fatal = Some(left - 1);
                if left == 1 {
                    self.fire(host);
                }
            }
        }
        for director in &mut state.directors.0 {
            if !self.rules.hold(Removed::StampAtReceipt) {
                director.read = (director.read + 1).min(self.expiry());
            }
            for clock in &mut director.clocks.0 {
                if let Clock::Left(left @ 1..) = *clock {
                    *clock = Clock::Left(left - 1);
                }
            }
            for waiting in &mut director.waiting.0 {
                *waiting = waiting
                    .and_then(|Waiting { age, from }| older(age).map(|age| Waiting { age, from }));
            }
        }
    }

    /// The timer has certainly gone off by now.
    fn fire(&self, host: &mut Host) {
        if !self.rules.hold(Removed::Timer) {
            return;
        }
        host.run = None;
        if self.rules.hold(Removed::TimerEndsWarden) {
            bury(host);
        }
    }

    fn next(&self, mut state: State, action: Action) -> Option<State> {
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Elect(director) => self.elect(&mut state, director),
            Action::StepDown(director) => step_down(&mut state.directors[director]),
            Action::ReadClock(director) => state.directors[director].read = 0,
            Action::Renew(seat) => state.hosts[seat].process_mut().request = Some(0),
            Action::Receive {
                director,
                seat,
                from,
            } => self.receive(&mut state, director, seat, from),
            Action::Answer { director, seat } => self.answer(&mut state, director, seat),
            Action::Take(seat) => self.take(&mut state.hosts[seat]),
            Action::SeeSilence { director, seat } => {
                state.directors[director].clocks[seat] = Clock::Spent;
            }
            Action::Expire { director, seat } => self.expire(&mut state, director, seat),
            Action::Open(seat) => self.open(&mut state, seat),
            Action::Assign(seat) => directors::assign(&mut state, seat),
            Action::Withdraw => state.ledger.partition = state::Partition::Free,
            Action::Claim { seat, token } => state.hosts[seat].process_mut().claims.add(token),
            Action::Assume { seat, token, from } => {
                directors::assume(&mut state, seat, token, from);
            }
            Action::Start { seat, token } => self.start(&mut state, seat, token),
            Action::End(seat) => state.hosts[seat].run = None,
            Action::WardenDies(seat) => bury(&mut state.hosts[seat]),
            Action::Revoke => self.revoke(&mut state),
            Action::GiveBack { seat, token } => {
                state.hosts[seat].process_mut().released.add(token);
            }
            Action::Release { seat, token, from } => {
                directors::release(&mut state, seat, token, from);
            }
            Action::Leave(seat) => state.hosts[seat].process_mut().closing = true,
            Action::Close { seat, from } => directors::close(&mut state, seat, from),
            Action::Crash(seat) => agents::crash(&mut state.hosts[seat]),
            Action::Restart(seat) => {
                let host = &mut state.hosts[seat];
                host.newest += 1;
                host.up = true;
            }
            Action::Resume(seat) => state.ledger.speaks[seat] = state.hosts[seat].newest,
        }
        self.forget(&mut state);
        Some(state)
    }
}

/// A warden dies, and everything of it.
fn bury(host: &mut Host) {
    host.warden = Warden::Dead;
    host.fatal = None;
    host.run = None;
    for process in &mut host.processes.0 {
        // Such a renewal could only put the expiry off, and its answer finds nobody.
        process.request = None;
        process.answer = None;
    }
}

fn step_down(director: &mut Director) {
    director.leads = None;
    director.waiting = Row::default();
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            ledger: Ledger {
                term: 1,
                next_token: 1,
                highest: 0,
                partition: state::Partition::Free,
                standing: Row::default(),
                speaks: Row::default(),
                assumed: Row::default(),
            },
            directors: Row::default(),
            hosts: Row::default(),
            broken: state::Broken::default(),
        };
        state.directors[0].leads = Some(1);
        for seat in self.seats() {
            state.hosts[seat].up = true;
            if seat < self.size.open {
                self.open(&mut state, seat);
            }
        }
        self.forget(&mut state);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        self.offer_directors(state, actions);
        self.offer_commits(state, actions);
        self.offer_agents(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        self.next(*last, action).filter(|next| next != last)
    }

    fn format_action(&self, action: &Action) -> String {
        action.to_string()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(S1, |_, state: &State| state.executing() <= 1),
            Property::always(S3, |_, state: &State| !state.broken.tokens),
            Property::always(S5, |_, state: &State| !state.broken.rights),
            Property::always(S7, |_, state: &State| !state.broken.voices),
            Property::sometimes(TAKEOVER, |_, state: &State| taken_over(state)),
            Property::sometimes(MOVED, |_, state: &State| moved(state)),
        ];
        if self.size.terms > 1 && self.size.timed > 1 {
            properties.push(Property::sometimes(RENEWED, |_, state: &State| {
                outlived(state)
            }));
        }
        if self.size.keep_deposed {
            properties.push(Property::sometimes(DEPOSED, |_, state: &State| {
                let believers = state.directors.each();
                believers.filter(|(_, one)| one.leads.is_some()).count() > 1
            }));
        }
        if self.size.restarts > 0 {
            properties.push(Property::sometimes(ADOPTED, |_, state: &State| {
                state.hosts.each().any(|(seat, host)| {
                    host.run.is_some() && state.ledger.speaks[seat] > 0 && host.up
                })
            }));
        }
        properties
    }
}

fn taken_over(state: &State) -> bool {
    let expired = state.ledger.standing.each();
    let expired = expired.filter(|(_, standing)| **standing == Standing::Expired);
    expired.count() > 0 && state.executing() == 1
}

/// One session assumed the partition and is still open, and another executes it.
fn moved(state: &State) -> bool {
    let before = state.ledger.assumed.each();
    let mut before = before.filter(|(seat, tokens)| {
        tokens.each().next().is_some() && state.ledger.standing[*seat] == Standing::Open
    });
    before.any(|(seat, _)| {
        let mut others = state.hosts.each().filter(|(other, _)| *other != seat);
        others.any(|(_, host)| host.run.is_some())
    })
}

/// The run was started in an earlier term, and this term's leader has waited for X since it was elected,
/// as its clock for a session that was never renewed shows.
fn outlived(state: &State) -> bool {
    let leader = state.directors.each();
    let mut leader = leader.filter(|(_, one)| one.leads == Some(state.ledger.term));
    let waited = leader.any(|(_, leader)| {
        leader
            .clocks
            .each()
            .any(|(_, clock)| *clock == Clock::Left(0))
    });
    waited && state.ledger.term > 1 && state.hosts.each().any(|(_, host)| host.run == Some(1))
}
