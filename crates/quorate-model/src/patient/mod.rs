//! Patient leases: what leaders must tell each other about silence (second half of R6).
//!
//! A new leader gives every session the whole of X, so a chain of leaders keeps the partition of a dead
//! host for as long as the chain goes on. For a lease of hours that is long. Therefore the leader
//! records how long a session has been silent, and its successor waits only for the rest:
//!
//! 1. Let E be the leader's expiry of σ, as R4 and R6 set it. The silence of σ is `X − (E − now)`, counted
//!    on the leader's own clock. Whenever its whole steps exceed what the ledger holds for σ, the leader
//!    may commit `Silent{σ, for}` with `for` rounded *down* to whole steps.
//! 2. The leader answers σ OK only while the ledger holds no silence for σ **and** no `Silent{σ}` of
//!    its own is on its way. Otherwise it first commits `Heard{σ}`, which ends the silence in the
//!    ledger.
//! 3. A new leader sets E ← now + X − for, with the `for` that its fold holds for σ (0 if none).
//!
//! One session, one leader at a time (a deposed one can answer and write nothing, which the other model
//! shows), and the leader's clock is explicit: in each tick it counts as little or as much as is allowed.

mod state;

use stateright::{Model, Property};

use crate::times::Times;

pub use state::{Action, Record, State};

/// S1: the partition is free only when nothing of the session executes.
pub const S1: &str = "S1 exclusive execution";
/// The partition of a dead host is free after a bounded time, however many leaders there are.
pub const BOUND: &str = "a dead host keeps its partition for a bounded time";
/// A session expires under a later leader than the one that heard it last.
pub const EXPIRED: &str = "a silent session expires under a leader that counted on";
/// A session that was silent is heard again and goes on.
pub const HEARD: &str = "a run is renewed after its silence was recorded";

/// How the rule is kept, or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keeping {
    /// As stated.
    Rule,
    /// Nothing is recorded: each leader waits for the whole of X.
    NoRecords,
    /// OK is answered although the ledger holds a silence.
    NoHeard,
    /// `Heard` is written, but OK does not wait until it is committed.
    HeardNotAwaited,
    /// OK is answered while a `Silent` is on its way, because the ledger does not hold it yet.
    SilentOvertaken,
    /// The silence is rounded up to whole steps.
    RoundedUp,
    /// The next leader divides what is recorded by 1 + ρ.
    Divided,
}

impl Keeping {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Rule,
        Self::NoRecords,
        Self::NoHeard,
        Self::HeardNotAwaited,
        Self::SilentOvertaken,
        Self::RoundedUp,
        Self::Divided,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::NoRecords => "no-records",
            Self::NoHeard => "no-heard",
            Self::HeardNotAwaited => "heard-not-awaited",
            Self::SilentOvertaken => "silent-overtaken",
            Self::RoundedUp => "rounded-up",
            Self::Divided => "divided",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|keeping| keeping.name() == name)
    }
}

/// The search space.
#[derive(Clone, Copy, Debug)]
pub struct Patient {
    /// Spans of time.
    pub times: Times,
    /// Units between two records of a silence: X/8 in the product.
    pub step: u8,
    /// How the rule is kept.
    pub keeping: Keeping,
    /// Leaders act at once and reign for one step at least, as [`BOUND`] takes for granted. Otherwise
    /// everybody may be late and leaders may change at any moment.
    pub prompt: bool,
    /// The bound of [`BOUND`], in multiples of X. With records it is 2: a reign that brings one whole
    /// step is shorter than two.
    pub patience: u8,
}

impl Patient {
    /// The size that is searched by the tests: X is 8 units, a step is 3. A step
    /// must be longer than what a fast clock counts in a tick, or rounding could do no harm.
    #[must_use]
    pub const fn small(keeping: Keeping, prompt: bool) -> Self {
        Self {
            times: Times {
                lease: 3,
                kill: 1,
                ratio: 2,
            },
            step: 3,
            keeping,
            prompt,
            patience: 2,
        }
    }

    const fn expiry(&self) -> u8 {
        self.times.expiry(true, true)
    }

    /// Ticks of a dead host after which nobody counts on.
    const fn longest(&self) -> u8 {
        self.patience * self.expiry()
    }

    /// What a leader would record now.
    fn silence(&self, left: u8) -> u8 {
        let silent = self.expiry() - left;
        match self.keeping {
            Keeping::NoRecords => 0,
            Keeping::RoundedUp => silent.div_ceil(self.step) * self.step,
            Keeping::Rule
            | Keeping::NoHeard
            | Keeping::HeardNotAwaited
            | Keeping::SilentOvertaken
            | Keeping::Divided => silent / self.step * self.step,
        }
    }

    /// What a new leader takes off X.
    fn inherited(&self, silent: u8) -> u8 {
        let silent = match self.keeping {
            // 1 + ρ is 2 r / (r + 1) when r is (1 + ρ)/(1 − ρ).
            Keeping::Divided => silent * (self.times.ratio + 1) / (2 * self.times.ratio),
            Keeping::Rule
            | Keeping::NoRecords
            | Keeping::NoHeard
            | Keeping::HeardNotAwaited
            | Keeping::SilentOvertaken
            | Keeping::RoundedUp => silent,
        };
        silent.min(self.expiry())
    }

    fn may_answer(&self, state: &State) -> bool {
        let recorded = state.silent > 0;
        let on_its_way = matches!(state.writing, Some(Record::Silent(_)));
        match self.keeping {
            Keeping::NoHeard => true,
            Keeping::HeardNotAwaited => !on_its_way && (!recorded || state.writing.is_some()),
            Keeping::SilentOvertaken => !recorded,
            Keeping::Rule | Keeping::NoRecords | Keeping::RoundedUp | Keeping::Divided => {
                !recorded && !on_its_way
            }
        }
    }

    /// Something that a prompt leader does before time passes or another one is elected.
    fn due(&self, state: &State) -> bool {
        let record = self.silence(state.left) > state.silent || state.writing.is_some();
        self.prompt && (state.left == 0 || record)
    }

    fn offer(&self, state: &State, actions: &mut Vec<Action>) {
        if state.expired {
            // Only what is left of the session can still happen.
            if state.executing() {
                actions.push(Action::Tick { fast: false });
            }
            return;
        }
        if !self.due(state) {
            actions.push(Action::Tick { fast: false });
            actions.push(Action::Tick { fast: true });
            if !self.prompt || state.reign >= self.step {
                actions.push(Action::Elect);
            }
        }
        match state.writing {
            Some(_) => actions.push(Action::Commit),
            None => {
                let silence = self.silence(state.left);
                if silence > state.silent {
                    actions.push(Action::Write(Record::Silent(silence)));
                }
                if state.silent > 0 && state.waiting.is_some() && self.keeping != Keeping::NoHeard {
                    actions.push(Action::Write(Record::Heard));
                }
            }
        }
        if state.left == 0 {
            actions.push(Action::Expire);
        } else {
            if state.request.is_some() {
                actions.push(Action::Receive);
            }
            if state.waiting.is_some() && self.may_answer(state) {
                actions.push(Action::Answer);
            }
        }
        self.offer_host(state, actions);
    }

    fn offer_host(&self, state: &State, actions: &mut Vec<Action>) {
        if !state.host {
            return;
        }
        actions.push(Action::Die);
        // R2, on the slowest clock.
        let in_time = state.fatal.is_none_or(|fatal| fatal > self.times.kill);
        if in_time {
            actions.push(Action::Renew);
            if state.answer.is_some() {
                actions.push(Action::Take);
            }
        }
    }

    fn tick(&self, state: &mut State, fast: bool) {
        let units = if fast { self.times.ratio } else { 1 };
        let lease = self.times.lease;
        for age in [&mut state.request, &mut state.waiting, &mut state.answer] {
            *age = age.and_then(|age| (age + 1 < lease).then_some(age + 1));
        }
        state.fatal = state.fatal.map(|fatal| fatal.saturating_sub(1));
        state.left = state.left.saturating_sub(units);
        state.reign = (state.reign + units).min(self.step);
        if !state.host && !state.expired {
            state.dead_for = (state.dead_for + 1).min(self.longest());
        }
    }

    fn next(&self, mut state: State, action: Action) -> State {
        match action {
            Action::Tick { fast } => self.tick(&mut state, fast),
            Action::Elect => {
                state.left = self.expiry() - self.inherited(state.silent);
                state.waiting = None;
                // R5 and the check of terms: what the leader before still writes counts for nothing.
                state.writing = None;
                state.reign = 0;
                state.counted_on = state.silent > 0;
            }
            Action::Renew => state.request = Some(0),
            Action::Receive => {
                state.waiting = state.request;
                state.left = self.expiry();
            }
            Action::Answer => {
                state.renewed = state.was_silent && state.executing();
                state.answer = state.waiting.take();
            }
            Action::Take => {
                let fatal = state.answer.take().map(|age| self.times.life() - age);
                state.fatal = state.fatal.max(fatal);
            }
            Action::Write(record) => state.writing = Some(record),
            Action::Commit => match state.writing.take() {
                Some(Record::Silent(silent)) => {
                    state.silent = silent;
                    state.was_silent = true;
                }
                Some(Record::Heard) => state.silent = 0,
                None => {}
            },
            Action::Expire => state.expired = true,
            Action::Die => {
                state.host = false;
                if self.prompt {
                    // What it had sent would count as a sign of life.
                    state.request = None;
                    state.waiting = None;
                }
            }
        }
        state
    }
}

impl Model for Patient {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            host: true,
            fatal: None,
            request: None,
            answer: None,
            left: self.expiry(),
            waiting: None,
            writing: None,
            silent: 0,
            expired: false,
            reign: 0,
            dead_for: 0,
            counted_on: false,
            was_silent: false,
            renewed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.offer(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        Some(self.next(*last, action)).filter(|next| next != last)
    }

    fn format_action(&self, action: &Action) -> String {
        action.to_string()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(S1, |_, state: &State| !(state.expired && state.executing())),
            Property::sometimes(HEARD, |_, state: &State| state.renewed),
            Property::sometimes(EXPIRED, |_, state: &State| {
                state.expired && state.counted_on
            }),
        ];
        if self.prompt {
            properties.push(Property::always(BOUND, |model: &Self, state: &State| {
                state.dead_for < model.longest()
            }));
        }
        properties
    }
}
