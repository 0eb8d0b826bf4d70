//! The loop: one task owns the state of this director and everything that changes it.
//!
//! It turns ledger answers, hints, timers and calls into events for the machine of `quorate-core`, and
//! carries out what that orders. It chooses nothing. Everybody else sends a message and awaits the
//! answer. It must never wait for anything but the next message: what takes time runs beside it.
//!
//! ```text
//!  renewals ─────┐ first                       ┌──► ledger tasks ──answers──┐
//!  ledger answers┼──► events ──► machine ──► effects ──► answers to calls   │
//!  calls, reads ─┤                             └──► history, watches        │
//!  hints, timer ─┘◄─────────────────────────────────────────────────────────┘
//! ```

mod confirm;
mod handle;
mod hooks;
mod ledger;
mod reading;
mod secrets;
mod times;
mod waiters;

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::director::call::{Answer, CallId, RenewalAnswer};
use quorate_core::director::effect::{Effect, Why};
use quorate_core::director::event::Event;
use quorate_core::director::{self, Director, Role};
use quorate_core::ids::{HookName, Position};
use quorate_core::time::Moment;
use quorate_ledger::{Hints, Ledger};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::{FenceHook, RunError};
use crate::duties::sources::{Follow, Wanted};
use crate::history::{History, Recorder};

pub(crate) use handle::{Ask, AskError, Handle, Led, Message, RenewalAsk, Seen};
pub(crate) use reading::Reading;
pub(crate) use secrets::{Checked, Secrets, hash as secret_hash, matches as secret_matches};
pub(crate) use times::LedgerTimes;
pub(crate) use waiters::WorkAsk;

use handle::Ends;
use hooks::Hooks;
use ledger::LedgerTasks;
use reading::Tracker;
use waiters::Waiters;

/// Messages that may wait for the loop. It takes hundreds of thousands a second, so a full queue means
/// that it is stuck, and callers had better know.
const MESSAGES_MAX: usize = 1024;
/// Renewals that may wait: one of each session that a cluster may have.
const RENEWALS_MAX: usize = 32_768;
/// Questions for the end of the ledger that may wait: one of each request that may be open.
const CONFIRMS_MAX: usize = 32_768;
/// How many messages are taken in before the ledger's answers have their turn again.
const TURN: usize = 64;

/// The loop and all that it owns.
pub(crate) struct Engine<L> {
    machine: Director,
    ledger: LedgerTasks<L>,
    hooks: Hooks,
    hints: watch::Receiver<Hints>,
    renewals: mpsc::Receiver<RenewalAsk>,
    messages: mpsc::Receiver<Message>,
    answers: BTreeMap<CallId, oneshot::Sender<Answer>>,
    renewal_answers: BTreeMap<CallId, oneshot::Sender<RenewalAnswer>>,
    next_call: CallId,
    waiters: Waiters,
    tracker: Tracker,
    recorder: Recorder,
    secrets: Arc<Secrets>,
    seen: watch::Sender<Seen>,
    led: watch::Sender<Led>,
    wanted: watch::Sender<Wanted>,
    /// Where `wanted` was last computed.
    wanted_at: Option<Position>,
    wake: Option<Moment>,
    halted: Option<RunError>,
    effects: Vec<Effect>,
    shutdown: CancellationToken,
}

/// What has come.
enum Turn {
    Renewal(RenewalAsk),
    Ledger(Event),
    Hook(Event),
    Message(Message),
    Hint,
    Woke,
    End,
}

impl<L: Ledger> Engine<L> {
    /// The loop of a director over a ledger, and the way to reach it.
    pub(crate) fn new(
        config: director::Config,
        ledger: Arc<L>,
        hooks: BTreeMap<HookName, FenceHook>,
        (history, recorder): (History, Recorder),
        shutdown: CancellationToken,
    ) -> (Self, Handle, watch::Receiver<Wanted>) {
        let (to_renewals, renewals) = mpsc::channel(RENEWALS_MAX);
        let (to_messages, messages) = mpsc::channel(MESSAGES_MAX);
        let (seen, see) = watch::channel(Seen::default());
        let (wanted, want) = watch::channel(Wanted::default());
        let (led, see_led) = watch::channel(Led::default());
        let (to_confirms, confirms) = mpsc::channel(CONFIRMS_MAX);
        let secrets = Arc::new(Secrets::default());
        let times = Arc::new(LedgerTimes::default());
        let hints = ledger.hints();
        // It ends with the last handle.
        tokio::spawn(confirm::run(Arc::clone(&ledger), confirms));
        let ends = Ends {
            messages: to_messages,
            renewals: to_renewals,
            confirms: to_confirms,
            seen: see,
            led: see_led,
            times: Arc::clone(&times),
        };
        let handle = Handle::new(ends, Arc::clone(&secrets), history);
        let engine = Self {
            machine: Director::new(config),
            ledger: LedgerTasks::new(ledger, times),
            hooks: Hooks::new(hooks),
            hints,
            renewals,
            messages,
            answers: BTreeMap::new(),
            renewal_answers: BTreeMap::new(),
            next_call: CallId(0),
            waiters: Waiters::default(),
            tracker: Tracker::new(clock::moment()),
            recorder,
            secrets,
            seen,
            led,
            wanted,
            wanted_at: None,
            wake: None,
            halted: None,
            effects: Vec::new(),
            shutdown,
        };
        (engine, handle, want)
    }

    /// Runs until it is told to end, or must.
    ///
    /// # Errors
    /// When the machine says that going on could do harm.
    pub(crate) async fn run(mut self) -> Result<(), RunError> {
        self.begin().await;
        loop {
            match self.next().await {
                Turn::End => break,
                Turn::Renewal(ask) => {
                    self.renewal(ask);
                    for _ in 1..TURN {
                        let Ok(ask) = self.renewals.try_recv() else {
                            break;
                        };
                        self.renewal(ask);
                    }
                }
                Turn::Ledger(event) | Turn::Hook(event) => self.step(event),
                Turn::Message(message) => self.message(message),
                Turn::Hint => self.hint(),
                Turn::Woke => {
                    self.wake = None;
                    self.step(Event::Woke);
                }
            }
            // Renewals come first, but a flood of them must not keep the ledger's answers away.
            while let Some(event) = self.ledger.ready() {
                self.step(event);
            }
            self.publish();
            if self.halted.is_some() {
                break;
            }
        }
        self.ledger.end().await;
        self.recorder.close();
        match self.halted {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// What an earlier life left: the snapshot first, then the first hint.
    async fn begin(&mut self) {
        if let Some(event) = self.ledger.snapshot(&self.shutdown).await {
            self.step(event);
        }
        self.hint();
        self.publish();
    }

    async fn next(&mut self) -> Turn {
        let wake = self.wake.map(instant);
        let timer = async {
            match wake {
                Some(wake) => tokio::time::sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Turn::End,
            Some(ask) = self.renewals.recv() => Turn::Renewal(ask),
            event = self.ledger.next() => Turn::Ledger(event),
            event = self.hooks.next() => Turn::Hook(event),
            () = timer => Turn::Woke,
            Ok(()) = self.hints.changed() => Turn::Hint,
            message = self.messages.recv() => message.map_or(Turn::End, Turn::Message),
        }
    }

    fn hint(&mut self) {
        let hints = self.hints.borrow_and_update().clone();
        self.step(Event::Hint {
            should_lead: hints.should_lead,
            occupied: hints.occupied,
        });
    }

    fn renewal(&mut self, ask: RenewalAsk) {
        let RenewalAsk {
            mut renewal,
            unknown,
            answer,
        } = ask;
        // The shared table may be a moment behind the fold: what it did not know is checked here.
        for (session, secret) in unknown {
            let known = self.machine.cluster().session(session);
            let right = known.is_none_or(|open| secrets::matches(open.secret_hash(), &secret));
            if right {
                renewal.sessions.push(session);
            }
        }
        let id = self.draw();
        self.renewal_answers.insert(id, answer);
        self.step(Event::Renewed { id, renewal });
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Ask(ask) => {
                let Ask { call, answer } = *ask;
                let id = self.draw();
                self.answers.insert(id, answer);
                self.step(Event::Asked { id, call });
            }
            Message::Query(query) => query(&Reading {
                director: &self.machine,
                tracker: &self.tracker,
                now: clock::now(),
            }),
            Message::Work(ask) => self.waiters.add(ask, &self.machine),
        }
    }

    fn draw(&mut self) -> CallId {
        self.next_call = CallId(self.next_call.0 + 1);
        self.next_call
    }

    fn step(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        self.machine.step(clock::now(), event, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Append {
                append,
                position,
                epoch,
                bytes,
            } => self.ledger.append(append, position, epoch, bytes),
            Effect::ProveTail { proof } => self.ledger.prove(proof),
            Effect::Read { from } => self.ledger.read(from),
            Effect::LoadSnapshot => self.ledger.load_snapshot(),
            Effect::SaveSnapshot { next, bytes } => self.ledger.save_snapshot(next, bytes),
            Effect::Answer { id, answer } => {
                // Whoever asked may have gone; the answer stands all the same.
                self.answers.remove(&id).map(|caller| caller.send(answer));
            }
            Effect::AnswerRenewal { id, answer } => {
                let caller = self.renewal_answers.remove(&id);
                caller.map(|caller| caller.send(answer));
            }
            Effect::Changed {
                position,
                wall,
                changes,
            } => {
                let at = clock::moment_of(wall, clock::now());
                self.tracker.note(position, at, &changes);
                self.secrets.note(self.machine.cluster(), &changes);
                self.recorder.record(position, wall, changes);
            }
            Effect::Fence {
                session,
                agent,
                hook,
            } => self.hooks.start(session, agent, hook),
            Effect::Replaced { position } => {
                self.tracker.replaced(position);
                self.secrets.replace(self.machine.cluster());
                self.recorder.gap(position);
            }
            Effect::WakeAt(moment) => self.wake = Some(moment),
            Effect::Halt { reason, why } => {
                tracing::error!(reason, "the director has stopped for safety");
                self.halted = Some(match why {
                    Why::Unread(unread) => RunError::Unread {
                        reason,
                        found: unread.found,
                    },
                    Why::OtherHistory => {
                        let cluster = self.machine.cluster();
                        let folded = (cluster.position(), cluster.last_hash());
                        RunError::OtherHistory { reason, folded }
                    }
                    Why::Malformed => RunError::Halted { reason },
                });
            }
        }
    }

    /// Who decides. Over an embedded quorum its own word counts, too: the last one elected may be dead.
    fn led_by(&self) -> Led {
        match self.machine.role() {
            Role::Leader => return Led::Here,
            Role::Candidate | Role::Halted(_) => return Led::Nobody,
            Role::Follower => {}
        }
        let leader = self.machine.cluster().leader();
        let Some((leader, address)) = leader.zip(self.machine.leader_address()) else {
            return Led::Nobody;
        };
        let hints = self.hints.borrow();
        let in_office = hints.should_lead.is_none()
            || hints
                .leader
                .as_ref()
                .is_some_and(|hinted| hinted.name == leader.name.as_str());
        if !in_office {
            return Led::Nobody;
        }
        Led::By {
            name: leader.name.clone(),
            address,
        }
    }

    /// Tells those who wait what is new.
    fn publish(&mut self) {
        tell(&self.led, self.led_by());
        let cluster = self.machine.cluster();
        let leading = *self.machine.role() == Role::Leader;
        let now = Seen {
            position: cluster.position(),
            changed: self.tracker.changed(),
            epoch: cluster.epoch(),
            era: cluster.era(),
            leading,
        };
        let before = *self.seen.borrow();
        if now == before {
            return;
        }
        if now.leading != before.leading || now.epoch != before.epoch {
            tracing::info!(epoch = %now.epoch, leading, position = %now.position, "leadership changed");
        }
        self.waiters.look(&self.machine);
        self.publish_wanted(leading);
        self.seen.send_replace(now);
    }

    /// Files are read by the leader alone.
    fn publish_wanted(&mut self, leading: bool) {
        let cluster = self.machine.cluster();
        let at = cluster.spec_changed().max(self.tracker.last_created());
        let at = leading.then_some(at);
        if at == self.wanted_at {
            return;
        }
        self.wanted_at = at;
        let mut wanted = Wanted::new();
        for (_, service) in cluster.services().filter(|_| leading) {
            let source = service.spec().partitions.as_ref();
            if let Some(source) = source.filter(|s| s.file.is_some() && !service.removed()) {
                let follow = Follow {
                    generation: self.tracker.created(service.name()).0,
                    source: source.clone(),
                };
                wanted.insert(service.name().clone(), follow);
            }
        }
        tell(&self.wanted, wanted);
    }
}

/// Wakes those who watch only when there is something new.
fn tell<T: PartialEq>(watched: &watch::Sender<T>, now: T) {
    watched.send_if_modified(|before| {
        let differs = *before != now;
        *before = now;
        differs
    });
}

/// The runtime's timer runs on another clock, which stops while the machine is suspended: it may be
/// late, which is the safe direction, and never early by more than its own resolution.
fn instant(moment: Moment) -> Instant {
    Instant::now() + moment.since(clock::moment())
}
