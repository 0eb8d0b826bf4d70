//! One session: the life of one warden, from its start to its end.
//!
//! | phase \ event | Spawned | Opened | OpenFailed | Renewed | Work | Reported | deadline − grace | deadline | Lost | WardenGone | Shutdown |
//! |---|---|---|---|---|---|---|---|---|---|---|---|
//! | Spawning | Opening: open | · | · | · | · | · | – | – | Over | Over | Over |
//! | Opening | · | Open: keep, follow | open again later | · | · | · | – | – | Over | Over | Over |
//! | Resuming | · | Live (Open without a deadline): keep, follow | resume again later | · | · | · | pause all | Over | Over | Over¹ | stop all |
//! | Open | · | · | · | Live: arm, claim | taken in | taken in | – | – | Over | Closing² | Leaving |
//! | Live | · | · | · | arm | taken in, claim | start | Draining: pause all | Over | Over | Closing² | Leaving |
//! | Draining | · | · | · | arm, Live: start | taken in | taken in | – | Over | Over | Closing² | Leaving |
//! | Leaving | · | · | · | arm | taken in, stopped | taken in | – | Over | Over | Closing² | · |
//! | Closing | · | · | · | arm | · | · | – | Over | Over | · | · |
//! | Over | · | · | · | · | · | · | · | · | · | · | · |
//!
//! *Over* always orders the warden to kill everything and end; the agent then starts a new one under
//! a new number, unless it leaves. Leaving becomes Closing when everything was given back; Closing
//! becomes Over when the directors have closed the session. ¹ Without an incarnation nothing can be
//! closed. ² With proof of death, otherwise Over.
//!
//! What happened to a run (Started, NotStarted, Notified, Ended) is taken in in every phase but
//! Over, and told to [`supervision`](crate::supervision).

mod checkpoints;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::outbox::Outbox;
use super::run::{Right, Run};
use super::{
    Effect, Event, FoundRun, Item, Kept, Note, Opened, RunEnd, RunId, WardenId, Work, retry_wait,
};
use crate::director::call::Release;
use crate::ids::{SessionId, Token};
use crate::lease::LeaseTimes;
use crate::planted::{Planted, Plants};
use crate::record::{CloseReason, Exit, ReleaseOutcome};
use crate::supervision::{Event as RunEvent, Order, State};
use crate::time::Moment;

/// Notes for the next agent process may be this late: without a note a run counts as started with
/// what is in force.
const KEEP_WITHIN: Duration = Duration::from_millis(250);

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its warden is being started.
    Spawning,
    /// The directors are asked to open it.
    Opening,
    /// The directors are asked to let this process speak for it.
    Resuming,
    /// It is open and nothing may start: no deadline is armed.
    Open,
    /// It has a deadline; runs may start.
    Live,
    /// The lease runs out: runs are stopped in order, and start again when it is renewed.
    Draining,
    /// The agent leaves: runs are stopped and given back.
    Leaving,
    /// Nothing of it executes; the directors are asked to close it.
    Closing,
    /// It has ended for ever.
    Over,
}

/// What a phase is made of: leaving and draining are told apart from the way to the directors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Spawning,
    Opening,
    Resuming(SessionId),
    Open,
    Closing(CloseReason),
    Over,
}

#[derive(Debug)]
pub(super) struct Session {
    warden: WardenId,
    lease: Duration,
    link: Link,
    opened: Option<Opened>,
    times: LeaseTimes,
    deadline: Option<Moment>,
    draining: bool,
    leaving: bool,
    was_live: bool,
    runs: BTreeMap<Token, Run>,
    /// Runs that wait for permission to start.
    held: BTreeSet<Token>,
    alarms: BTreeSet<(Moment, Token)>,
    outbox: Outbox,
    desk: Desk,
    /// Tokens that the directors refused and have not yet taken from the list.
    refused: BTreeSet<Token>,
    tries: u32,
    retry_at: Option<Moment>,
    keep_at: Option<Moment>,
    pub(super) plants: Plants,
}

impl Session {
    pub(super) fn new(warden: WardenId, lease: Duration) -> Self {
        Self {
            warden,
            lease,
            link: Link::Spawning,
            opened: None,
            times: LeaseTimes::of(lease),
            deadline: None,
            draining: false,
            leaving: false,
            was_live: false,
            runs: BTreeMap::new(),
            held: BTreeSet::new(),
            alarms: BTreeSet::new(),
            outbox: Outbox::default(),
            desk: Desk::default(),
            refused: BTreeSet::new(),
            tries: 0,
            retry_at: None,
            keep_at: None,
            plants: Plants::default(),
        }
    }

    /// A session whose warden lives on from an earlier agent process: its runs go on, its deadline
    /// stays, and nothing of it is believed to be ours until the directors say so again.
    pub(super) fn found(
        now: Moment,
        warden: WardenId,
        kept: Kept,
        deadline: Option<Moment>,
        runs: &[FoundRun],
        effects: &mut Vec<Effect>,
    ) -> Self {
        let mut session = Self::new(warden, kept.times.lease);
        session.link = Link::Resuming(kept.session);
        session.times = kept.times;
        session.deadline = deadline;
        // Of several attempts the last one counts; one starts only after the one before has ended.
        let mut runs = runs.to_vec();
        runs.sort_by_key(|found| found.run);
        for found in runs {
            let token = found.run.token;
            let run = Run::found(now, found, kept.notes.get(&token).copied());
            if let Some(earlier) = session.runs.insert(token, run) {
                let attempt = earlier.life.attempt();
                let run = RunId { token, attempt };
                effects.push(Effect::Forget { warden, run });
            }
        }
        effects.push(Effect::Resume {
            warden,
            session: kept.session,
        });
        session
    }

    pub(super) const fn phase(&self) -> Phase {
        match self.link {
            Link::Spawning => Phase::Spawning,
            Link::Opening => Phase::Opening,
            Link::Resuming(_) => Phase::Resuming,
            Link::Closing(_) => Phase::Closing,
            Link::Over => Phase::Over,
            Link::Open if self.leaving => Phase::Leaving,
            Link::Open if self.draining => Phase::Draining,
            Link::Open if self.deadline.is_some() => Phase::Live,
            Link::Open => Phase::Open,
        }
    }

    pub(super) const fn deadline(&self) -> Option<Moment> {
        self.deadline
    }

    pub(super) const fn lease(&self) -> Duration {
        self.lease
    }

    /// Whether it ever had a deadline.
    pub(super) const fn was_live(&self) -> bool {
        self.was_live
    }

    /// Whether it holds nothing and has nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.outbox.is_idle()
    }

    pub(super) fn wake_at(&self) -> Option<Moment> {
        let lease = self.deadline.map(|deadline| {
            if self.draining {
                deadline
            } else {
                deadline.before(self.times.grace)
            }
        });
        let run = self.alarms.first().map(|&(at, _)| at);
        [
            lease,
            run,
            self.outbox.wake_at(),
            // In every other phase it would not be sent, and wake this agent again and again.
            self.desk.wake_at().filter(|_| self.link == Link::Open),
            self.retry_at,
            self.keep_at,
        ]
        .into_iter()
        .flatten()
        .min()
        .filter(|_| self.link != Link::Over)
    }

    /// R2: looks at the deadline before anything else is taken in.
    pub(super) fn watch_deadline(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.link != Link::Over && self.deadline.is_some_and(|deadline| now >= deadline) {
            self.end("its deadline has passed", effects);
        }
    }

    /// Stops in order what would otherwise be killed soon; after the event, which may have been a
    /// renewal.
    pub(super) fn watch_grace(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let late = self
            .deadline
            .is_some_and(|deadline| now + self.times.grace >= deadline);
        if late && !self.draining && self.link != Link::Over {
            self.draining = true;
            self.tell_all(now, RunEvent::PauseAsked, effects);
        }
    }

    pub(super) fn step(&mut self, now: Moment, event: Event, effects: &mut Vec<Effect>) {
        if self.link == Link::Over {
            return;
        }
        match event {
            Event::Spawned { .. } => self.spawned(effects),
            Event::WardenGone { proven, .. } => self.warden_gone(proven, effects),
            Event::Opened { opened, .. } => self.opened(opened, effects),
            Event::OpenFailed { .. } => self.open_failed(now),
            Event::Lost { .. } => self.end("the directors say that it has ended", effects),
            Event::Renewed { sent, .. } => self.renewed(now, sent, effects),
            Event::Work { work, .. } => self.work(now, work, effects),
            Event::Reported {
                sequence,
                assumed,
                refused,
                ..
            } => self.reported(now, sequence, &assumed, &refused, effects),
            Event::ReportUnanswered { sequence, .. } => self.outbox.unanswered(now, sequence),
            Event::Closed { .. } => {
                if let Link::Closing(_) = self.link {
                    self.end("it is closed", effects);
                }
            }
            Event::CloseUnanswered { .. } => self.close_unanswered(now, effects),
            Event::Started { run, pid, .. } => {
                self.run_event(now, run, RunEvent::Started { pid }, effects);
            }
            Event::NotStarted { run, cause, .. } => {
                self.run_event(now, run, RunEvent::NotStarted { cause }, effects);
            }
            Event::CheckpointAsked {
                run, ask, content, ..
            } => self.checkpoint_asked(run, ask, content, effects),
            Event::CheckpointsAnswered { call, kept, .. } => {
                self.checkpoints_answered(call, &kept, effects);
            }
            Event::CheckpointsUnanswered { call, .. } => self.desk.unanswered(now, call),
            Event::Notified { run, .. } => self.run_event(now, run, RunEvent::Notified, effects),
            Event::Ended {
                run, code, signal, ..
            } => self.run_event(now, run, RunEvent::Ended { code, signal }, effects),
            // The agent takes these in itself.
            Event::Found { .. }
            | Event::Began
            | Event::Classes(_)
            | Event::Shutdown
            | Event::Woke => {}
        }
    }

    pub(super) fn leave(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        match self.link {
            Link::Spawning | Link::Opening => self.end("the agent leaves", effects),
            // Nobody knows until when to try: the session ends by itself.
            Link::Resuming(_) if self.deadline.is_none() => self.end("the agent leaves", effects),
            Link::Resuming(_) | Link::Open => {
                self.leaving = true;
                let tokens: Vec<Token> = self.runs.keys().copied().collect();
                for token in tokens {
                    self.stop(now, token, effects);
                }
            }
            Link::Closing(_) | Link::Over => {}
        }
    }

    pub(super) fn woke(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        while let Some(&(at, token)) = self.alarms.first() {
            if at > now {
                break;
            }
            self.alarms.pop_first();
            if let Some(run) = self.runs.get_mut(&token) {
                run.alarm = None;
            }
            self.drive(now, token, RunEvent::Woke, effects);
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            self.retry(effects);
        }
    }

    /// Sends what there is to say, at the end of every step.
    pub(super) fn flush(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.link != Link::Open {
            return;
        }
        let Some(opened) = self.opened else {
            return;
        };
        let warden = self.warden;
        let claims = self.phase() == Phase::Live;
        if let Some(report) = self.outbox.next(now, opened, claims) {
            effects.push(Effect::Report { warden, report });
        }
        if let Some((call, checkpoints)) = self.desk.next(now, opened, self.plants) {
            effects.push(Effect::Checkpoints {
                warden,
                call,
                checkpoints,
            });
        }
        if self.keep_at.is_some_and(|at| now >= at) {
            self.keep(opened, effects);
        }
        // Without a deadline nothing was ever started.
        if self.leaving && (self.is_empty() || self.deadline.is_none()) {
            self.close(CloseReason::Left, effects);
        }
    }

    fn retry(&self, effects: &mut Vec<Effect>) {
        let warden = self.warden;
        match self.link {
            Link::Opening => effects.push(Effect::Open {
                warden,
                lease: self.lease,
            }),
            Link::Resuming(session) => effects.push(Effect::Resume { warden, session }),
            Link::Closing(reason) => effects.push(Effect::Close { warden, reason }),
            Link::Spawning | Link::Open | Link::Over => {}
        }
    }

    fn spawned(&mut self, effects: &mut Vec<Effect>) {
        if self.link == Link::Spawning {
            self.link = Link::Opening;
            effects.push(Effect::Open {
                warden: self.warden,
                lease: self.lease,
            });
        }
    }

    fn opened(&mut self, opened: Opened, effects: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Opening | Link::Resuming(_)) {
            return;
        }
        self.link = Link::Open;
        self.opened = Some(opened);
        self.times = opened.times;
        self.tries = 0;
        self.retry_at = None;
        if self.deadline.is_some() {
            self.was_live = true;
        }
        self.keep(opened, effects);
        effects.push(Effect::Follow {
            warden: self.warden,
            opened,
        });
    }

    fn open_failed(&mut self, now: Moment) {
        if matches!(self.link, Link::Opening | Link::Resuming(_)) {
            self.tries = self.tries.saturating_add(1);
            self.retry_at = Some(now + retry_wait(self.warden.0, self.tries));
        }
    }

    fn warden_gone(&mut self, proven: bool, effects: &mut Vec<Effect>) {
        match self.link {
            Link::Open if proven => self.close(CloseReason::WardenDied, effects),
            Link::Spawning | Link::Opening | Link::Resuming(_) | Link::Open => {
                self.end("its warden is gone", effects);
            }
            Link::Closing(_) | Link::Over => {}
        }
    }

    fn close(&mut self, reason: CloseReason, effects: &mut Vec<Effect>) {
        self.link = Link::Closing(reason);
        self.drop_checkpoints(effects);
        self.runs.clear();
        self.held.clear();
        self.alarms.clear();
        // Nothing is left to tell or to keep, and nothing may wake this agent for it.
        self.outbox = Outbox::default();
        self.keep_at = None;
        self.tries = 0;
        effects.push(Effect::Close {
            warden: self.warden,
            reason,
        });
    }

    fn close_unanswered(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Closing(_)) {
            return;
        }
        // Nothing executes. The lease ends by itself; without one there is nothing to wait for.
        if self.deadline.is_none() {
            self.end("it could not be closed", effects);
            return;
        }
        self.tries = self.tries.saturating_add(1);
        self.retry_at = Some(now + retry_wait(self.warden.0, self.tries));
    }

    fn renewed(&mut self, now: Moment, sent: Moment, effects: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Open | Link::Closing(_)) {
            return;
        }
        // R1: from sending, never from the answer; and only forward.
        let late = self.plants.has(Planted::DeadlineFromReply);
        let deadline = if late { now } else { sent } + self.times.lease;
        if deadline <= now || self.deadline.is_some_and(|present| deadline <= present) {
            return;
        }
        self.deadline = Some(deadline);
        self.was_live = true;
        effects.push(Effect::Arm {
            warden: self.warden,
            deadline,
        });
        self.draining = now + self.times.grace >= deadline;
        self.begin_held(now, effects);
    }

    /// Takes in an end that had to wait until it was known what follows it.
    fn drive_end(&mut self, now: Moment, token: Token, effects: &mut Vec<Effect>) {
        let run = self.runs.get_mut(&token);
        if let Some(RunEnd { code, signal }) = run.and_then(|run| run.ended.take()) {
            self.drive(now, token, RunEvent::Ended { code, signal }, effects);
        }
    }

    fn reported(
        &mut self,
        now: Moment,
        sequence: u64,
        assumed: &[Token],
        refused: &[Token],
        effects: &mut Vec<Effect>,
    ) {
        let Some(report) = self.outbox.answered(sequence) else {
            return;
        };
        for release in &report.release {
            self.remove(release.token, effects);
        }
        let assumed: BTreeSet<Token> = assumed.iter().copied().collect();
        for &(_, token) in &report.assume {
            if assumed.contains(&token) {
                self.assumed(now, token, effects);
            } else {
                self.refuse(now, token, effects);
            }
        }
        for &token in refused {
            self.refuse(now, token, effects);
        }
    }

    fn assumed(&mut self, now: Moment, token: Token, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&token) else {
            return;
        };
        if run.right == Right::Claimed {
            run.right = Right::Assumed;
            self.begin(now, token, effects);
        }
    }

    /// A claim was refused: what lives of it must die at once. It is given back all the same, because
    /// the directors also refuse what they want stopped by now, and then wait for its end.
    fn refuse(&mut self, now: Moment, token: Token, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(&token) else {
            return;
        };
        if matches!(run.right, Right::Given | Right::Denied) {
            return;
        }
        let stopping = run.item.is_some() && !run.wanted();
        self.refused.insert(token);
        self.set_right(token, Right::Unconfirmed);
        self.outbox.drop(token);
        self.held.remove(&token);
        if !stopping {
            self.drive(now, token, RunEvent::KillAsked, effects);
            self.drive_end(now, token, effects);
        }
    }

    fn run_event(&mut self, now: Moment, run: RunId, event: RunEvent, effects: &mut Vec<Effect>) {
        let known = self
            .runs
            .get_mut(&run.token)
            .filter(|known| known.life.attempt() == run.attempt);
        if let Some(known) = known {
            if !known.end_must_wait(&event) {
                self.drive(now, run.token, event, effects);
            }
        } else if let RunEvent::Ended { .. } = event {
            effects.push(Effect::Forget {
                warden: self.warden,
                run,
            });
        } else if let RunEvent::Started { .. } = event {
            // Nobody asked for this one any more.
            effects.push(Effect::Kill {
                warden: self.warden,
                run,
            });
        }
    }

    fn tell_all(&mut self, now: Moment, event: RunEvent, effects: &mut Vec<Effect>) {
        let tokens: Vec<Token> = self.runs.keys().copied().collect();
        for token in tokens {
            self.drive(now, token, event.clone(), effects);
        }
    }

    fn begin_held(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let tokens: Vec<Token> = self.held.iter().copied().collect();
        for token in tokens {
            self.begin(now, token, effects);
        }
    }

    /// Starts a run that waits, if everything that R9 asks for is there.
    fn begin(&mut self, now: Moment, token: Token, effects: &mut Vec<Effect>) {
        let allowed = self.phase() == Phase::Live
            && self
                .deadline
                .is_some_and(|deadline| now + self.times.grace < deadline)
            && self
                .runs
                .get(&token)
                .is_some_and(|run| run.right == Right::Assumed && run.wanted());
        if allowed && self.held.remove(&token) {
            self.drive(now, token, RunEvent::Begin, effects);
        }
    }

    /// Lets the supervision of a run take in an event, and carries out what it orders.
    fn drive(&mut self, now: Moment, token: Token, event: RunEvent, effects: &mut Vec<Effect>) {
        let mut orders = Vec::new();
        let Some(run) = self.runs.get_mut(&token) else {
            return;
        };
        run.life.step(now, event, &mut orders);
        for order in orders {
            self.carry_out(now, token, order, effects);
        }
        let Some(run) = self.runs.get_mut(&token) else {
            return;
        };
        let alarm = run.life.wake_at();
        if alarm != run.alarm {
            if let Some(at) = run.alarm {
                self.alarms.remove(&(at, token));
            }
            self.alarms.extend(alarm.map(|at| (at, token)));
            run.alarm = alarm;
        }
    }

    fn carry_out(&mut self, now: Moment, token: Token, order: Order, effects: &mut Vec<Effect>) {
        let warden = self.warden;
        let Some(run) = self.runs.get_mut(&token) else {
            return;
        };
        let id = RunId {
            token,
            attempt: run.life.attempt(),
        };
        match order {
            Order::Start { attempt } => {
                let Some(item) = run.item.clone() else {
                    return;
                };
                run.note = Some(Note::of(&item));
                let checkpoint = run.checkpoint.clone();
                self.keep_at.get_or_insert(now + KEEP_WITHIN);
                let run = RunId { token, attempt };
                effects.push(Effect::Start {
                    warden,
                    run,
                    item,
                    checkpoint,
                });
            }
            Order::Wanted => {
                self.held.insert(token);
                self.begin(now, token, effects);
            }
            Order::Signal { signal } => {
                effects.push(Effect::Signal {
                    warden,
                    run: id,
                    signal,
                });
                if self.plants.has(Planted::EarlyRelease) {
                    self.give_back(token, ReleaseOutcome::Stopped, None, 0, effects);
                }
            }
            Order::WriteData => {
                effects.extend(run.item.clone().map(|item| Effect::WriteData {
                    warden,
                    run: id,
                    item,
                }));
            }
            Order::Kill => effects.push(Effect::Kill { warden, run: id }),
            Order::Forget { attempt } => {
                let run = RunId { token, attempt };
                effects.push(Effect::Forget { warden, run });
            }
            Order::Observe(report) => {
                let partition = run.partition();
                if let (Some(partition), false) = (partition, run.right == Right::Denied) {
                    self.outbox.observe(partition, token, report);
                }
            }
            Order::Release {
                outcome,
                exit,
                failures,
            } => self.give_back(token, outcome, exit, failures, effects),
        }
    }

    fn give_back(
        &mut self,
        token: Token,
        outcome: ReleaseOutcome,
        exit: Option<Exit>,
        failures: u32,
        effects: &mut Vec<Effect>,
    ) {
        self.held.remove(&token);
        self.drop_checkpoint(token, effects);
        let Some(run) = self.runs.get_mut(&token) else {
            return;
        };
        match run.partition() {
            Some(partition) if run.right != Right::Denied => {
                run.right = Right::Given;
                self.outbox.release(Release {
                    partition,
                    token,
                    outcome,
                    exit,
                    failures,
                });
            }
            Some(_) | None => self.remove(token, effects),
        }
    }

    fn set_right(&mut self, token: Token, right: Right) {
        if let Some(run) = self.runs.get_mut(&token) {
            run.right = right;
        }
    }

    /// Nothing of a token lives here, and nobody waits for word of it.
    fn remove(&mut self, token: Token, effects: &mut Vec<Effect>) {
        self.held.remove(&token);
        self.drop_checkpoint(token, effects);
        let Some(run) = self.runs.remove(&token) else {
            return;
        };
        if let Some(at) = run.alarm {
            self.alarms.remove(&(at, token));
        }
        effects.extend(run.life.held_end().map(|attempt| Effect::Forget {
            warden: self.warden,
            run: RunId { token, attempt },
        }));
    }

    fn keep(&mut self, opened: Opened, effects: &mut Vec<Effect>) {
        self.keep_at = None;
        let notes = self
            .runs
            .iter()
            .filter(|(_, run)| run.life.may_live())
            .filter_map(|(&token, run)| run.note.map(|note| (token, note)))
            .collect();
        effects.push(Effect::Keep {
            warden: self.warden,
            kept: Kept {
                session: opened.session,
                times: self.times,
                notes,
            },
        });
    }

    fn end(&mut self, why: &'static str, effects: &mut Vec<Effect>) {
        self.link = Link::Over;
        self.drop_checkpoints(effects);
        self.runs.clear();
        self.held.clear();
        self.alarms.clear();
        effects.push(Effect::Discard {
            warden: self.warden,
            why,
        });
    }
}
