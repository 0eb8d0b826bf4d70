//! The rules of directors and of the fold: who may lead, answer and write, and what it does.

use crate::rules::Removed;

use super::Leases;
use super::action::Action;
use super::state::{Clock, Incarnation, Partition, Row, Standing, State, Token, Waiting, Warden};

impl Leases {
    pub(super) fn offer_directors(&self, state: &State, actions: &mut Vec<Action>) {
        for at in 0..self.size.directors {
            if state.ledger.term < self.size.terms {
                actions.push(Action::Elect(at));
            }
            let director = &state.directors[at];
            let Some(term) = director.leads else {
                continue;
            };
            actions.push(Action::StepDown(at));
            if !self.rules.hold(Removed::StampAtReceipt) {
                actions.push(Action::ReadClock(at));
            }
            // R5: the moment of the proof lies after the receipt, and nobody else was elected by then.
            let proven = term == state.ledger.term || !self.rules.hold(Removed::Proof);
            let writes = term == state.ledger.term || !self.rules.hold(Removed::TermCheck);
            for seat in self.seats() {
                let spent = match director.clocks[seat] {
                    Clock::None => continue,
                    Clock::Left(left) => {
                        if left == 0 {
                            actions.push(Action::SeeSilence { director: at, seat });
                        }
                        false
                    }
                    Clock::Spent => true,
                };
                if !spent {
                    self.offer_receipts(state, at, seat, actions);
                    let waiting = director.waiting[seat];
                    let heard = waiting.is_some_and(|waiting| {
                        waiting.from == state.ledger.speaks[seat]
                            || !self.rules.hold(Removed::FencedRenewal)
                    });
                    if proven && heard {
                        actions.push(Action::Answer { director: at, seat });
                    }
                }
                if spent && writes && state.ledger.standing[seat] == Standing::Open {
                    actions.push(Action::Expire { director: at, seat });
                }
            }
        }
    }

    fn offer_receipts(
        &self,
        state: &State,
        director: usize,
        seat: usize,
        actions: &mut Vec<Action>,
    ) {
        let processes = state.hosts[seat].processes.each();
        for (from, _) in processes.filter(|(_, process)| process.request.is_some()) {
            let from = incarnation(from);
            actions.push(Action::Receive {
                director,
                seat,
                from,
            });
        }
    }

    /// What the leader of the current term may commit. That it must have proposed it earlier makes no
    /// difference, because its term was current all the time; what it looked at before it proposed,
    /// the silence of a session, is a step of its own.
    pub(super) fn offer_commits(&self, state: &State, actions: &mut Vec<Action>) {
        let ledger = &state.ledger;
        let leaders = state.directors.each();
        let mut leaders = leaders.filter(|(_, one)| one.leads == Some(ledger.term));
        let Some((_, leader)) = leaders.next() else {
            return;
        };
        match ledger.partition {
            Partition::Free => {}
            Partition::Assigned { .. } => actions.push(Action::Withdraw),
            Partition::Assumed { revoked, .. } => {
                if !revoked {
                    actions.push(Action::Revoke);
                }
            }
        }
        let holder = ledger.partition.holder();
        // R7 and R8: an assignment is refused while somebody holds the partition.
        let vacant = match holder {
            None => true,
            Some((seat, _)) => {
                !self.rules.hold(Removed::OwnerReleases)
                    || (!self.rules.hold(Removed::CommittedExpiry)
                        && leader.clocks[seat] == Clock::Spent)
            }
        };
        for seat in self.seats() {
            match ledger.standing[seat] {
                Standing::Unopened => actions.push(Action::Open(seat)),
                Standing::Expired | Standing::Closed => {}
                Standing::Open => {
                    let another = holder.is_none_or(|(held_by, _)| held_by != seat);
                    // Of sessions that are alike the first grant may as well go to the first one.
                    let mirrored = ledger.highest == 0 && seat > 0 && self.size.alike(seat);
                    let left = ledger.next_token <= self.size.tokens;
                    if vacant && another && left && !mirrored {
                        actions.push(Action::Assign(seat));
                    }
                    self.offer_reports(state, seat, actions);
                }
            }
        }
    }

    /// What agents ask to have committed: R13 lets only the newest process be heard.
    fn offer_reports(&self, state: &State, seat: usize, actions: &mut Vec<Action>) {
        let ledger = &state.ledger;
        let host = &state.hosts[seat];
        if host.up && host.newest > ledger.speaks[seat] {
            actions.push(Action::Resume(seat));
        }
        for (from, process) in host.processes.each() {
            let from = incarnation(from);
            let speaks = from == ledger.speaks[seat];
            match ledger.partition {
                Partition::Assigned { seat: held, token }
                | Partition::Assumed {
                    seat: held,
                    token,
                    revoked: false,
                } if held == seat && speaks && process.claims.has(token) => {
                    actions.push(Action::Assume { seat, token, from });
                }
                Partition::Free | Partition::Assigned { .. } | Partition::Assumed { .. } => {}
            }
            if let Partition::Assumed {
                seat: held, token, ..
            } = ledger.partition
                && held == seat
                && process.released.has(token)
                && (speaks || !self.rules.hold(Removed::FencedRelease))
            {
                actions.push(Action::Release { seat, token, from });
            }
            if process.closing && (speaks || !self.rules.hold(Removed::FencedClose)) {
                actions.push(Action::Close { seat, from });
            }
        }
        // A living agent proves that its warden and everything of it is dead.
        if host.warden == Warden::Dead && host.up && host.newest == ledger.speaks[seat] {
            let from = host.newest;
            actions.push(Action::Close { seat, from });
        }
    }

    /// R6: a new leader gives every open session the whole of X.
    pub(super) fn elect(&self, state: &mut State, at: usize) {
        state.ledger.term += 1;
        if !self.rules.hold(Removed::ReplicatedCounter) {
            state.ledger.next_token = 1;
        }
        let director = &mut state.directors[at];
        director.leads = Some(state.ledger.term);
        director.waiting = Row::default();
        director.read = 0;
        for seat in self.seats().filter(|seat| !self.size.steady(*seat)) {
            let stamp = match (state.ledger.standing[seat], director.clocks[seat]) {
                (Standing::Unopened | Standing::Expired | Standing::Closed, _) => Clock::None,
                (Standing::Open, old) if !self.rules.hold(Removed::FreshStamps) => old,
                (Standing::Open, Clock::None | Clock::Left(_) | Clock::Spent) => {
                    Clock::Left(self.expiry())
                }
            };
            director.clocks[seat] = stamp;
        }
    }

    /// R4: the expiry moves to the receipt plus X.
    pub(super) fn receive(&self, state: &mut State, at: usize, seat: usize, from: Incarnation) {
        let sent = &state.hosts[seat].processes[usize::from(from)];
        let Some(age) = sent.request else { return };
        let director = &mut state.directors[at];
        let stamp = Clock::Left(self.expiry() - director.read);
        director.clocks[seat] = director.clocks[seat].max(stamp);
        director.waiting[seat] = Some(Waiting { age, from });
    }

    pub(super) fn answer(&self, state: &mut State, at: usize, seat: usize) {
        let Some(Waiting { age, from }) = state.directors[at].waiting[seat].take() else {
            return;
        };
        state.broken.voices |= from < state.ledger.speaks[seat];
        let host = &mut state.hosts[seat];
        // The process that waits for it is gone, or its warden is.
        if host.warden == Warden::Dead || !host.up || from != host.newest {
            return;
        }
        let process = host.process_mut();
        process.answer = Some(process.answer.map_or(age, |other| other.min(age)));
    }

    pub(super) fn open(&self, state: &mut State, seat: usize) {
        state.ledger.standing[seat] = Standing::Open;
        if self.size.steady(seat) {
            state.hosts[seat].fatal = Some(self.times().life());
            return;
        }
        for director in &mut state.directors.0 {
            director.clocks[seat] = Clock::Left(self.expiry());
        }
    }

    pub(super) fn expire(&self, state: &mut State, at: usize, seat: usize) {
        end_session(state, seat, Standing::Expired);
        // A leader of an earlier term does not hear of what it did not write.
        state.directors[at].clocks[seat] = Clock::None;
    }

    pub(super) fn revoke(&self, state: &mut State) {
        let Partition::Assumed { seat, token, .. } = state.ledger.partition else {
            return;
        };
        if self.rules.hold(Removed::StopBeforeMove) {
            state.ledger.partition = Partition::Assumed {
                seat,
                token,
                revoked: true,
            };
        } else {
            state.ledger.partition = Partition::Free;
            state.broken.rights = true;
        }
    }
}

/// R8: the token comes from the replicated counter, and nobody else holds the partition.
pub(super) fn assign(state: &mut State, seat: usize) {
    let token = state.ledger.next_token;
    state.broken.tokens |= token <= state.ledger.highest;
    // S5: it moves although the holder has neither given it back nor expired.
    if let Partition::Assumed { .. } = state.ledger.partition {
        state.broken.rights = true;
    }
    state.ledger.next_token += 1;
    state.ledger.highest = state.ledger.highest.max(token);
    state.ledger.partition = Partition::Assigned { seat, token };
}

/// R9: the claim of the chosen session, or a repeat of it, is committed and answered.
pub(super) fn assume(state: &mut State, seat: usize, token: Token, from: Incarnation) {
    state.ledger.partition = Partition::Assumed {
        seat,
        token,
        revoked: false,
    };
    state.ledger.assumed[seat].add(token);
    let host = &mut state.hosts[seat];
    if host.up && host.newest == from {
        host.process_mut().granted.add(token);
    }
}

/// R10: what was given back is free.
pub(super) fn release(state: &mut State, seat: usize, token: Token, from: Incarnation) {
    state.broken.voices |= from != state.ledger.speaks[seat];
    state.broken.rights |= state.hosts[seat].run == Some(token);
    state.ledger.partition = Partition::Free;
}

pub(super) fn close(state: &mut State, seat: usize, from: Incarnation) {
    state.broken.voices |= from != state.ledger.speaks[seat];
    state.broken.rights |= state.hosts[seat].run.is_some();
    end_session(state, seat, Standing::Closed);
    let term = state.ledger.term;
    for director in &mut state.directors.0 {
        if director.leads == Some(term) {
            director.clocks[seat] = Clock::None;
        }
    }
}

fn end_session(state: &mut State, seat: usize, standing: Standing) {
    state.ledger.standing[seat] = standing;
    if state
        .ledger
        .partition
        .holder()
        .is_some_and(|(held_by, _)| held_by == seat)
    {
        state.ledger.partition = Partition::Free;
    }
}

fn incarnation(number: usize) -> Incarnation {
    Incarnation::try_from(number).unwrap_or(Incarnation::MAX)
}
