//! The phase × event table of a session, what a life looks like, and the properties of safety over
//! whatever order of events.

mod alarms;
mod checkpoints;
mod classes;
mod table;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::ids::{ClusterId, Era};
use crate::record::{ReleaseOutcome, RunPhase};

const NOW: Moment = Moment::from_millis(1_000_000);
const LEASE: Duration = Duration::from_secs(10);
const W: WardenId = WardenId(1);

fn opened() -> Opened {
    Opened {
        session: SessionId(5),
        incarnation: Incarnation(2),
        cluster: ClusterId(9),
        times: LeaseTimes::of(LEASE),
    }
}

fn token(number: u64) -> Token {
    Token::new(Era(0), number)
}

fn service() -> Arc<Service> {
    let spec = serde_json::from_str(r#"{"command":["true"]}"#).unwrap();
    Arc::new(Service::new(spec).unwrap())
}

fn item(number: u32, wanted: Wanted) -> Item {
    Item {
        partition: PartitionId(number),
        token: token(u64::from(number)),
        wanted,
        service: ServiceName::new("s").unwrap(),
        key: PartitionKey::new("k").unwrap(),
        data: None,
        data_version: 1,
        restarts_asked: 0,
        failures: 0,
        checkpoint: None,
        how: service(),
    }
}

fn work(items: Vec<Item>) -> Event {
    Event::Work {
        warden: W,
        work: Work {
            whole: false,
            items,
            gone: Vec::new(),
        },
    }
}

fn run(number: u64, attempt: u32) -> RunId {
    RunId {
        token: token(number),
        attempt,
    }
}

fn take(agent: &mut Agent, now: Moment, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    agent.step(now, event, &mut effects);
    effects.retain(|effect| !matches!(effect, Effect::WakeAt(_)));
    effects
}

fn agent_in(phase: Phase) -> Agent {
    let mut agent = Agent::new(&[LEASE], W);
    if phase == Phase::Resuming {
        let found = Event::Found {
            warden: W,
            kept: Kept {
                session: SessionId(5),
                times: LeaseTimes::of(LEASE),
                notes: BTreeMap::new(),
            },
            deadline: Some(NOW + LEASE),
            runs: vec![FoundRun {
                run: run(1, 3),
                pid: 9,
                ended: None,
            }],
        };
        take(&mut agent, NOW, found);
    }
    take(&mut agent, NOW, Event::Began);
    let after = |agent: &mut Agent, events: Vec<Event>| {
        for event in events {
            take(agent, NOW, event);
        }
    };
    let open = vec![
        Event::Spawned { warden: W },
        Event::Opened {
            warden: W,
            opened: opened(),
        },
    ];
    let live = vec![
        Event::Renewed {
            warden: W,
            sent: NOW,
        },
        work(vec![item(1, Wanted::Running)]),
        Event::Reported {
            warden: W,
            sequence: 1,
            assumed: vec![token(1)],
            refused: Vec::new(),
        },
        Event::Started {
            warden: W,
            run: run(1, 1),
            pid: 9,
        },
        Event::Reported {
            warden: W,
            sequence: 2,
            assumed: Vec::new(),
            refused: Vec::new(),
        },
    ];
    match phase {
        Phase::Spawning | Phase::Resuming => {}
        Phase::Opening => after(&mut agent, vec![Event::Spawned { warden: W }]),
        Phase::Open => after(&mut agent, open),
        Phase::Live => after(&mut agent, [open, live].concat()),
        Phase::Draining => {
            after(&mut agent, [open, live].concat());
            take(&mut agent, NOW + Duration::from_millis(8_500), Event::Woke);
        }
        Phase::Leaving => after(&mut agent, [open, live, vec![Event::Shutdown]].concat()),
        Phase::Closing => after(&mut agent, [open, vec![Event::Shutdown]].concat()),
        Phase::Over => after(&mut agent, vec![Event::Shutdown]),
    }
    agent
}

fn phase_of(agent: &Agent, warden: WardenId) -> Phase {
    agent
        .sessions()
        .find(|(id, ..)| *id == warden)
        .map_or(Phase::Over, |(_, phase, _)| phase)
}

fn name(effect: &Effect) -> String {
    match effect {
        Effect::SpawnWarden { warden, .. } => format!("spawn {}", warden.0),
        Effect::Open { .. } => "open".to_owned(),
        Effect::Resume { .. } => "resume".to_owned(),
        Effect::Follow { .. } => "follow".to_owned(),
        Effect::Keep { .. } => "keep".to_owned(),
        Effect::Arm { deadline, .. } => format!("arm +{}", deadline.since(NOW).as_millis()),
        Effect::Start { run, .. } => format!("start {}.{}", run.token, run.attempt),
        Effect::Signal { signal, .. } => format!("signal {signal}"),
        Effect::WriteData { .. } => "write".to_owned(),
        Effect::Kill { .. } => "kill".to_owned(),
        Effect::Forget { .. } => "forget".to_owned(),
        Effect::Report { report, .. } => format!(
            "report {} (assume {}, release {}, observed {})",
            report.sequence,
            report.assume.len(),
            report.release.len(),
            report.observed.len()
        ),
        Effect::Checkpoints { call, .. } => format!("checkpoints {call}"),
        Effect::AnswerCheckpoint { outcome, .. } => format!("answer {outcome:?}"),
        Effect::Close { reason, .. } => format!("close {reason:?}"),
        Effect::Discard { why, .. } => format!("discard: {why}"),
        Effect::WakeAt(_) => "wake".to_owned(),
        Effect::Done => "done".to_owned(),
    }
}

#[test]
fn a_run_starts_only_after_its_claim_was_answered_and_is_given_back_only_after_its_end() {
    let mut agent = agent_in(Phase::Open);
    let all = |effects: Vec<Effect>| effects.iter().map(name).collect::<Vec<_>>();
    assert!(take(&mut agent, NOW, work(vec![item(1, Wanted::Running)])).is_empty());
    let renewed = Event::Renewed {
        warden: W,
        sent: NOW,
    };
    assert_eq!(
        all(take(&mut agent, NOW, renewed)),
        ["arm +10000", "report 1 (assume 1, release 0, observed 0)"]
    );
    let reported = Event::Reported {
        warden: W,
        sequence: 1,
        assumed: vec![token(1)],
        refused: Vec::new(),
    };
    assert_eq!(all(take(&mut agent, NOW, reported.clone())), ["start 1.1"]);
    assert!(take(&mut agent, NOW, reported).is_empty());
    let started = Event::Started {
        warden: W,
        run: run(1, 1),
        pid: 3,
    };
    assert_eq!(
        all(take(&mut agent, NOW, started)),
        ["report 2 (assume 0, release 0, observed 1)"]
    );
    assert_eq!(
        all(take(&mut agent, NOW, work(vec![item(1, Wanted::Stopped)]))),
        ["signal 15"]
    );
    let answered = Event::Reported {
        warden: W,
        sequence: 2,
        assumed: Vec::new(),
        refused: Vec::new(),
    };
    assert_eq!(
        all(take(&mut agent, NOW, answered)),
        ["report 3 (assume 0, release 0, observed 1)"]
    );
    let ended = Event::Ended {
        warden: W,
        run: run(1, 1),
        code: Some(0),
        signal: None,
    };
    assert!(take(&mut agent, NOW, ended).is_empty());
    let answered = Event::Reported {
        warden: W,
        sequence: 3,
        assumed: Vec::new(),
        refused: Vec::new(),
    };
    let effects = take(&mut agent, NOW, answered);
    let Some(Effect::Report { report, .. }) = effects.first() else {
        panic!("{effects:?}");
    };
    assert_eq!(report.release.len(), 1);
    assert_eq!(report.release[0].outcome, ReleaseOutcome::Stopped);
    let answered = Event::Reported {
        warden: W,
        sequence: 4,
        assumed: Vec::new(),
        refused: Vec::new(),
    };
    // Not before: an agent process that takes over in between would not know that it has ended.
    assert_eq!(all(take(&mut agent, NOW, answered)), ["forget"]);
}

#[test]
fn a_report_without_an_answer_is_repeated_with_the_same_content() {
    let mut agent = agent_in(Phase::Live);
    let first = take(&mut agent, NOW, work(vec![item(2, Wanted::Running)]));
    let Some(Effect::Report { report: first, .. }) = first.first() else {
        panic!("{first:?}");
    };
    take(&mut agent, NOW, work(vec![item(3, Wanted::Running)]));
    let sequence = first.sequence;
    let unanswered = Event::ReportUnanswered {
        warden: W,
        sequence,
    };
    assert!(take(&mut agent, NOW, unanswered).is_empty());
    let again = take(&mut agent, NOW + Duration::from_secs(1), Event::Woke);
    let repeat = Effect::Report {
        warden: W,
        report: first.clone(),
    };
    assert!(again.contains(&repeat), "{again:?}");
}

#[test]
fn what_a_living_warden_holds_goes_on_untouched_and_what_is_not_ours_dies() {
    let mut agent = Agent::new(&[LEASE], W);
    let note = Note {
        partition: PartitionId(1),
        ..Note::of(&item(1, Wanted::Running))
    };
    let found = |number| FoundRun {
        run: run(number, 2),
        pid: 40,
        ended: None,
    };
    let notes = BTreeMap::from([(token(1), note), (token(2), note)]);
    let event = Event::Found {
        warden: W,
        kept: Kept {
            session: SessionId(5),
            times: LeaseTimes::of(LEASE),
            notes,
        },
        deadline: Some(NOW + LEASE),
        runs: vec![found(1), found(2)],
    };
    take(&mut agent, NOW, event);
    take(&mut agent, NOW, Event::Began);
    take(
        &mut agent,
        NOW,
        Event::Opened {
            warden: W,
            opened: opened(),
        },
    );
    let whole = Event::Work {
        warden: W,
        work: Work {
            whole: true,
            items: vec![item(1, Wanted::Running)],
            gone: Vec::new(),
        },
    };
    let effects = take(&mut agent, NOW, whole);
    assert!(effects.contains(&Effect::Kill {
        warden: W,
        run: run(2, 2)
    }));
    let Some(Effect::Report { report, .. }) = effects.last() else {
        panic!("{effects:?}");
    };
    // The claim is said again, because only its answer allows a later restart in place.
    assert_eq!(report.assume, [(PartitionId(1), token(1))]);
    assert_eq!(report.observed[0].2.phase, RunPhase::Ready);
    assert_eq!(effects.len(), 2, "{effects:?}");
}

#[test]
fn an_end_while_no_agent_was_there_is_judged_by_the_policy_of_the_service() {
    let mut agent = Agent::new(&[LEASE], W);
    let ended = Some(RunEnd {
        code: Some(0),
        signal: None,
    });
    let note = Note::of(&item(1, Wanted::Running));
    let event = Event::Found {
        warden: W,
        kept: Kept {
            session: SessionId(5),
            times: LeaseTimes::of(LEASE),
            notes: BTreeMap::from([(token(1), note)]),
        },
        deadline: Some(NOW + LEASE),
        runs: vec![FoundRun {
            run: run(1, 1),
            pid: 40,
            ended,
        }],
    };
    take(&mut agent, NOW, event);
    take(&mut agent, NOW, Event::Began);
    take(
        &mut agent,
        NOW,
        Event::Opened {
            warden: W,
            opened: opened(),
        },
    );
    let mut once = item(1, Wanted::Running);
    let spec = r#"{"command":["true"],"restart":{"on":{"clean":"stop"}}}"#;
    once.how = Arc::new(Service::new(serde_json::from_str(spec).unwrap()).unwrap());
    let effects = take(&mut agent, NOW, work(vec![once]));
    let Some(Effect::Report { report, .. }) = effects.last() else {
        panic!("{effects:?}");
    };
    assert_eq!(report.release[0].outcome, ReleaseOutcome::Done);
}

#[test]
fn a_claim_that_is_refused_is_given_back_because_the_directors_may_wait_for_its_end() {
    let mut agent = agent_in(Phase::Live);
    take(&mut agent, NOW, work(vec![item(2, Wanted::Running)]));
    let refused = Event::Reported {
        warden: W,
        sequence: 3,
        assumed: Vec::new(),
        refused: vec![token(2)],
    };
    let effects = take(&mut agent, NOW, refused);
    let Some(Effect::Report { report, .. }) = effects.last() else {
        panic!("{effects:?}");
    };
    assert_eq!(effects.len(), 1, "nothing was started");
    assert_eq!(report.release[0].token, token(2));
    // Named once more before the directors have taken that in, it is not claimed again.
    assert!(take(&mut agent, NOW, work(vec![item(2, Wanted::Running)])).is_empty());
}

#[test]
fn a_renewal_in_the_last_seconds_brings_paused_runs_back() {
    let mut agent = agent_in(Phase::Draining);
    let late = NOW + Duration::from_millis(8_600);
    let ended = Event::Ended {
        warden: W,
        run: run(1, 1),
        code: None,
        signal: Some(15),
    };
    take(&mut agent, late, ended);
    let effects = take(
        &mut agent,
        late,
        Event::Renewed {
            warden: W,
            sent: late,
        },
    );
    let start = effects
        .iter()
        .find(|effect| matches!(effect, Effect::Start { .. }));
    assert!(start.is_some(), "{effects:?}");
}

/// What surrounds the machine: says only what could be true, in any order and at any time.
#[derive(Default)]
struct World {
    discarded: BTreeSet<WardenId>,
    armed: BTreeMap<WardenId, Moment>,
    sent: BTreeMap<WardenId, Moment>,
    answered: BTreeSet<(WardenId, Token)>,
    reports: BTreeMap<WardenId, Report>,
    /// Ordered and not ended; the second says whether it executes.
    runs: BTreeMap<(WardenId, RunId), bool>,
    /// How a token's last attempt ended is still to be learnt from its warden: whether that holds.
    ends: BTreeMap<(WardenId, Token), bool>,
    released: BTreeSet<(WardenId, Token)>,
    last: Option<WardenId>,
    done: bool,
}

impl World {
    /// Looks at every order for what must never be ordered.
    fn check(&mut self, now: Moment, effect: Effect) -> Result<(), TestCaseError> {
        match effect {
            Effect::SpawnWarden { warden, .. } => {
                prop_assert!(self.last.is_none_or(|last| warden > last), "a number twice");
                self.last = Some(warden);
            }
            Effect::Arm { warden, deadline } => {
                prop_assert!(!self.discarded.contains(&warden));
                let before = self.armed.insert(warden, deadline);
                prop_assert!(
                    before.is_none_or(|before| before < deadline),
                    "deadline goes back"
                );
                let sent = self.sent[&warden];
                prop_assert!(deadline <= sent + LEASE, "not counted from sending");
            }
            Effect::Start { warden, run, .. } => {
                prop_assert!(
                    !self.discarded.contains(&warden),
                    "start after the session ended"
                );
                prop_assert!(
                    self.answered.contains(&(warden, run.token)),
                    "start without answer"
                );
                prop_assert!(
                    !self.released.contains(&(warden, run.token)),
                    "start after release"
                );
                let armed = self.armed.get(&warden).copied();
                prop_assert!(
                    armed.is_some_and(|at| now + LeaseTimes::of(LEASE).grace < at),
                    "start without a deadline ahead"
                );
                let twice = self.runs.keys().any(|&(_, other)| other.token == run.token);
                prop_assert!(!twice, "two runs of one token");
                self.ends.remove(&(warden, run.token));
                self.runs.insert((warden, run), false);
            }
            Effect::Report { warden, report } => {
                for release in &report.release {
                    let lives = self.runs.keys().any(|(_, run)| run.token == release.token);
                    prop_assert!(!lives, "released while it may live");
                    let held = self.ends.get(&(warden, release.token));
                    prop_assert!(held != Some(&false), "its end is forgotten too early");
                    self.released.insert((warden, release.token));
                }
                self.reports.insert(warden, report);
            }
            Effect::Discard { warden, .. } => {
                self.discarded.insert(warden);
                self.runs.retain(|(of, _), _| *of != warden);
                self.reports.remove(&warden);
            }
            Effect::Done => self.done = true,
            Effect::Close { warden, .. } => {
                let lives = self.runs.keys().any(|(of, _)| *of == warden);
                prop_assert!(!lives, "closed while something may live");
            }
            Effect::Open { .. }
            | Effect::Resume { .. }
            | Effect::Follow { .. }
            | Effect::Keep { .. }
            | Effect::Signal { .. }
            | Effect::WriteData { .. }
            | Effect::Kill { .. }
            | Effect::Checkpoints { .. }
            | Effect::AnswerCheckpoint { .. }
            | Effect::WakeAt(_) => {}
            Effect::Forget { warden, run } => {
                let waits = self.reports.get(&warden).is_some_and(|report| {
                    let mut given = report.release.iter();
                    given.any(|release| release.token == run.token)
                });
                prop_assert!(!waits, "forgotten before the directors know of it");
                self.ends.insert((warden, run.token), false);
            }
        }
        Ok(())
    }

    /// Turns a number into something that could happen now.
    fn event(&mut self, now: Moment, choice: u8, number: u32) -> Option<Event> {
        let warden = self.last?;
        let first = self
            .runs
            .iter()
            .nth(number as usize % 3)
            .map(|(&id, &lives)| (id, lives));
        Some(match choice {
            0 => Event::Spawned { warden },
            1 => Event::Opened {
                warden,
                opened: opened(),
            },
            2..=4 => {
                self.sent.insert(warden, now);
                Event::Renewed { warden, sent: now }
            }
            // An answer that was under way for long.
            5 => {
                let sent = now.before(Duration::from_secs(u64::from(number)));
                self.sent.insert(warden, sent);
                Event::Renewed { warden, sent }
            }
            6..=7 => self.work(warden, vec![item(number, Wanted::Running)], Vec::new()),
            8 => self.work(warden, vec![item(number, Wanted::Stopped)], Vec::new()),
            9 => self.work(warden, Vec::new(), vec![token(u64::from(number))]),
            10..=13 => {
                let report = self.reports.remove(&warden)?;
                // Some claims are refused.
                let (assumed, refused): (Vec<_>, Vec<_>) = report
                    .assume
                    .iter()
                    .map(|&(_, token)| token)
                    .partition(|token| {
                        token.0 % 5 != 0 && !self.released.contains(&(warden, *token))
                    });
                self.answered
                    .extend(assumed.iter().map(|&token| (warden, token)));
                Event::Reported {
                    warden,
                    sequence: report.sequence,
                    assumed,
                    refused,
                }
            }
            14 => {
                let report = self.reports.get(&warden)?;
                Event::ReportUnanswered {
                    warden,
                    sequence: report.sequence,
                }
            }
            15..=16 => {
                let ((warden, run), lives) = first?;
                if lives {
                    return None;
                }
                self.runs.insert((warden, run), true);
                Event::Started {
                    warden,
                    run,
                    pid: 1,
                }
            }
            17 => {
                let ((warden, run), lives) = first?;
                if lives {
                    return None;
                }
                self.runs.remove(&(warden, run));
                Event::NotStarted {
                    warden,
                    run,
                    cause: Cause::new("no such program"),
                }
            }
            18..=19 => {
                let ((warden, run), lives) = first?;
                if !lives {
                    return None;
                }
                self.runs.remove(&(warden, run));
                self.ends.insert((warden, run.token), true);
                Event::Ended {
                    warden,
                    run,
                    code: Some(1),
                    signal: None,
                }
            }
            20 => Event::Lost { warden },
            21 => {
                // A dead warden's runs are dead with it; here it is even proven.
                self.runs.retain(|(of, _), _| *of != warden);
                Event::WardenGone {
                    warden,
                    proven: number.is_multiple_of(2),
                }
            }
            22 => Event::Closed { warden },
            23 if number == 0 => Event::Shutdown,
            _ => Event::Woke,
        })
    }

    fn work(&self, warden: WardenId, items: Vec<Item>, gone: Vec<Token>) -> Event {
        let work = Work {
            whole: false,
            items,
            gone,
        };
        Event::Work { warden, work }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Nothing is ever started without an answered claim and a deadline ahead, under a session that
    /// has ended, or twice; no deadline goes back; nothing is given back that may live.
    #[test]
    fn no_order_of_events_breaks_a_rule_of_safety(
        steps in prop::collection::vec((0_u8..30, 0_u32..12, 0_u64..1_500), 1..150),
    ) {
        let mut agent = Agent::new(&[LEASE], W);
        let mut world = World::default();
        let mut now = NOW;
        let mut effects = Vec::new();
        agent.step(now, Event::Began, &mut effects);
        for (choice, number, millis) in steps {
            now = now + Duration::from_millis(millis);
            // The warden keeps its own deadline.
            let passed: Vec<WardenId> = world.armed.iter()
                .filter(|&(_, &at)| now >= at).map(|(&warden, _)| warden).collect();
            world.runs.retain(|(of, _), _| !passed.contains(of));
            for effect in effects.drain(..) {
                world.check(now, effect)?;
            }
            if let Some(event) = world.event(now, choice, number) {
                agent.step(now, event, &mut effects);
            }
            for effect in effects.drain(..) {
                world.check(now, effect)?;
            }
        }
    }

    /// Whatever has happened, an agent that is told to leave is done once its answers have come or
    /// its leases have passed.
    #[test]
    fn an_agent_that_leaves_comes_to_an_end(
        steps in prop::collection::vec((0_u8..22, 0_u32..12, 0_u64..1_500), 0..60),
    ) {
        let mut agent = Agent::new(&[LEASE], W);
        let mut world = World::default();
        let mut now = NOW;
        let mut effects = Vec::new();
        agent.step(now, Event::Began, &mut effects);
        for effect in effects.drain(..) {
            world.check(now, effect)?;
        }
        for (choice, number, millis) in steps {
            now = now + Duration::from_millis(millis);
            if let Some(event) = world.event(now, choice, number) {
                agent.step(now, event, &mut effects);
            }
            for effect in effects.drain(..) {
                world.check(now, effect)?;
            }
        }
        agent.step(now, Event::Shutdown, &mut effects);
        let closing: Vec<WardenId> = agent.sessions().map(|(warden, ..)| warden).collect();
        for warden in closing {
            agent.step(now, Event::CloseUnanswered { warden }, &mut effects);
        }
        agent.step(now + LEASE + LEASE, Event::Woke, &mut effects);
        for effect in effects.drain(..) {
            world.check(now, effect)?;
        }
        prop_assert!(world.done);
    }
}
