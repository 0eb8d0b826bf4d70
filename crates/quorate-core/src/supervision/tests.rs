//! The state × event table of the module, cell by cell, and what a whole life looks like.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ids::Era;
use crate::spec::Span;

const NOW: Moment = Moment::from_millis(1_000_000);

fn run_in(state: State, policy: Policy) -> Supervision {
    let mut run = Supervision::new(Token::new(Era(0), 1), policy, 0);
    run.state = state;
    run.attempt = 1;
    run
}

fn states() -> Vec<(&'static str, State)> {
    let since = NOW;
    let later = NOW + Duration::from_secs(10);
    vec![
        ("held", State::Held),
        ("starting", State::Starting { since, then: None }),
        ("running", State::Running { since }),
        ("ready", State::Ready { since }),
        (
            "stopping",
            State::Stopping {
                why: Why::NotReady,
                kill_at: later,
            },
        ),
        ("killing", State::Killing { why: Why::NotReady }),
        ("backoff", State::Backoff { until: later }),
        ("over", State::Over(ReleaseOutcome::Done)),
    ]
}

fn events() -> Vec<(&'static str, Event)> {
    let cause = Cause::new("no such program");
    vec![
        ("begin", Event::Begin),
        ("started", Event::Started { pid: 7 }),
        ("not_started", Event::NotStarted { cause }),
        ("notified", Event::Notified),
        (
            "ended",
            Event::Ended {
                code: Some(1),
                signal: None,
            },
        ),
        ("stop", Event::StopAsked),
        ("pause", Event::PauseAsked),
        ("restart", Event::RestartAsked),
        ("data", Event::DataChanged),
        ("kill", Event::KillAsked),
        ("woke", Event::Woke),
    ]
}

fn name(state: State) -> &'static str {
    match state {
        State::Held => "held",
        State::Starting { then: None, .. } => "starting",
        State::Starting { .. } => "starting+",
        State::Running { .. } => "running",
        State::Ready { .. } => "ready",
        State::Stopping { .. } => "stopping",
        State::Killing { .. } => "killing",
        State::Backoff { .. } => "backoff",
        State::Over(_) => "over",
    }
}

fn orders_of(orders: &[Order]) -> String {
    let names: Vec<&str> = orders
        .iter()
        .map(|order| match order {
            Order::Start { .. } => "start",
            Order::Wanted => "wanted",
            Order::Signal { .. } => "signal",
            Order::WriteData => "write",
            Order::Kill => "kill",
            Order::Forget { .. } => "forget",
            Order::Observe(_) => "observe",
            Order::Release { .. } => "release",
        })
        .collect();
    names.join(" ")
}

#[test]
fn every_cell_of_the_table_is_as_documented() {
    let notify = Policy {
        ready: crate::spec::Ready {
            notify: true,
            ..Default::default()
        },
        ..Policy::default()
    };
    let mut table = String::new();
    for (from, state) in states() {
        for (event_name, event) in events() {
            let mut run = run_in(state, notify.clone());
            let mut orders = Vec::new();
            run.step(NOW, event, &mut orders);
            if run.state != state || !orders.is_empty() {
                table.push_str(&format!(
                    "{from} · {event_name} → {} [{}]\n",
                    name(run.state),
                    orders_of(&orders)
                ));
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn what_time_does_to_each_state_is_as_documented() {
    let mut table = String::new();
    for (from, state) in states() {
        let mut run = run_in(state, Policy::default());
        let mut orders = Vec::new();
        run.step(NOW + Duration::from_secs(60), Event::Woke, &mut orders);
        table.push_str(&format!(
            "{from} → {} [{}]\n",
            name(run.state),
            orders_of(&orders)
        ));
    }
    insta::assert_snapshot!(table);
}

fn take(run: &mut Supervision, now: Moment, event: Event) -> Vec<Order> {
    let mut orders = Vec::new();
    run.step(now, event, &mut orders);
    orders
}

/// Lets one attempt start and crash after `up`; returns when, and what was ordered at its end.
fn crash(run: &mut Supervision, now: Moment, up: Duration) -> (Moment, Vec<Order>) {
    take(run, now, Event::Begin);
    take(run, now, Event::Started { pid: 1 });
    let end = now + up;
    let ended = Event::Ended {
        code: Some(1),
        signal: None,
    };
    (end, take(run, end, ended))
}

#[test]
fn after_so_many_failures_in_a_row_it_moves_and_one_that_lasted_starts_the_count_again() {
    let policy = Policy {
        move_after: 3,
        ..Policy::default()
    };
    let mut run = Supervision::new(Token::new(Era(0), 9), policy, 0);
    let mut now = NOW;
    let second = Duration::from_secs(1);
    for up in [second, second, second * 60, second, second] {
        let (end, orders) = crash(&mut run, now, up);
        assert_eq!(orders_of(&orders), "observe");
        now = end + second * 100;
        assert_eq!(take(&mut run, now, Event::Woke), [Order::Wanted]);
    }
    let (_, orders) = crash(&mut run, now, second);
    let exit = Exit {
        class: ExitClass::Crash,
        code: Some(1),
        signal: None,
        cause: None,
    };
    assert_eq!(
        orders.last(),
        Some(&Order::Release {
            outcome: ReleaseOutcome::Move,
            exit: Some(exit),
            failures: 3,
        })
    );
}

#[test]
fn failures_on_earlier_agents_count_towards_giving_up() {
    let policy = Policy {
        give_up_after: 6,
        move_after: 5,
        ..Policy::default()
    };
    let mut run = Supervision::new(Token::new(Era(0), 9), policy, 5);
    let (_, orders) = crash(&mut run, NOW, Duration::from_secs(1));
    assert_eq!(orders_of(&orders), "release");
    assert_eq!(run.state(), State::Over(ReleaseOutcome::Failed));
}

#[test]
fn an_exit_that_moves_it_counts_like_any_failure_until_it_is_given_up() {
    let mut policy = Policy {
        give_up_after: 3,
        ..Policy::default()
    };
    policy.on.crash = ExitPolicy::Move;
    let ends = |before, up| {
        let mut run = Supervision::new(Token::new(Era(0), 9), policy.clone(), before);
        let (_, orders) = crash(&mut run, NOW, Duration::from_secs(up));
        let Some(Order::Release {
            outcome, failures, ..
        }) = orders.last()
        else {
            panic!("{orders:?}")
        };
        (*outcome, *failures)
    };
    assert_eq!(ends(1, 1), (ReleaseOutcome::Move, 2));
    assert_eq!(ends(2, 1), (ReleaseOutcome::Failed, 3));
    // One that lasted begins anew.
    assert_eq!(ends(2, 100), (ReleaseOutcome::Move, 0));
}

#[test]
fn the_wait_goes_on_growing_on_the_next_agent() {
    let mut run = Supervision::new(Token::new(Era(0), 9), Policy::default(), 5);
    let (end, _) = crash(&mut run, NOW, Duration::from_secs(1));
    let State::Backoff { until } = run.state() else {
        panic!("{:?}", run.state())
    };
    // The sixth failure in a row: 1, 2, 4, 8, 16, 32 s.
    assert!(until >= end + Duration::from_secs(32), "{until:?}");
}

#[test]
fn a_restart_that_was_asked_for_is_no_failure_and_stays_in_place() {
    let policy = Policy {
        move_after: 1,
        ..Policy::default()
    };
    let mut run = Supervision::new(Token::new(Era(0), 9), policy, 0);
    take(&mut run, NOW, Event::Begin);
    take(&mut run, NOW, Event::Started { pid: 4 });
    let orders = take(&mut run, NOW, Event::RestartAsked);
    assert_eq!(orders_of(&orders), "signal observe");
    let ended = Event::Ended {
        code: None,
        signal: Some(15),
    };
    let orders = take(&mut run, NOW, ended);
    assert_eq!(orders_of(&orders), "wanted");
    assert_eq!(
        take(&mut run, NOW, Event::Begin),
        [Order::Forget { attempt: 1 }, Order::Start { attempt: 2 }]
    );
}

#[test]
fn one_that_is_not_ready_in_time_is_stopped_then_killed_and_has_failed() {
    let policy = Policy {
        ready: crate::spec::Ready {
            notify: true,
            timeout: Span(Duration::from_secs(5)),
            ..Default::default()
        },
        ..Policy::default()
    };
    let mut run = Supervision::new(Token::new(Era(0), 9), policy, 0);
    take(&mut run, NOW, Event::Begin);
    take(&mut run, NOW, Event::Started { pid: 4 });
    let late = NOW + Duration::from_secs(5);
    assert_eq!(
        orders_of(&take(&mut run, late, Event::Woke)),
        "signal observe"
    );
    let later = late + Duration::from_secs(10);
    assert_eq!(take(&mut run, later, Event::Woke), [Order::Kill]);
    let ended = Event::Ended {
        code: None,
        signal: Some(9),
    };
    let orders = take(&mut run, later, ended);
    let Some(Order::Observe(report)) = orders.last() else {
        panic!("{orders:?}");
    };
    assert_eq!(report.phase, RunPhase::Backoff);
    assert_eq!(
        report.exit.as_ref().map(|exit| exit.class),
        Some(ExitClass::Crash)
    );
}

#[test]
fn new_data_is_signalled_only_once_the_program_is_ready() {
    let policy = Policy {
        on_change: OnChange::Signal,
        ..Policy::default()
    };
    let mut run = Supervision::new(Token::new(Era(0), 9), policy, 0);
    take(&mut run, NOW, Event::Begin);
    take(&mut run, NOW, Event::Started { pid: 4 });
    assert_eq!(take(&mut run, NOW, Event::DataChanged), [Order::WriteData]);
    let ready = NOW + Duration::from_secs(1);
    assert_eq!(
        orders_of(&take(&mut run, ready, Event::Woke)),
        "observe signal"
    );
    assert_eq!(
        orders_of(&take(&mut run, ready, Event::DataChanged)),
        "write signal"
    );
}

fn any_event() -> impl Strategy<Value = Event> {
    let events = events().into_iter().map(|(_, event)| event);
    prop::sample::select(events.collect::<Vec<_>>())
}

proptest! {
    /// Whatever happens in whatever order: a token is given back once, and never while a process of
    /// it may live, as the warden's answers tell.
    #[test]
    fn a_token_is_given_back_once_and_only_when_nothing_lives(
        events in prop::collection::vec((any_event(), 0_u64..20_000), 1..60),
        notify: bool,
    ) {
        let mut policy = Policy::default();
        policy.ready.notify = notify;
        let mut run = Supervision::new(Token::new(Era(0), 1), policy, 0);
        let mut now = NOW;
        // What the warden really has: nothing, a start under way, or a process.
        let (mut ordered, mut lives, mut released) = (false, false, false);
        // The attempt whose end the warden still tells to whoever takes over.
        let mut held: Option<u32> = None;
        for (event, millis) in events {
            now = now + Duration::from_millis(millis);
            // The warden says only what is true.
            match event {
                Event::Started { .. } if ordered && !lives => lives = true,
                Event::NotStarted { .. } if ordered && !lives => {
                    ordered = false;
                    held = Some(run.attempt());
                }
                Event::Ended { .. } if lives => {
                    (ordered, lives) = (false, false);
                    held = Some(run.attempt());
                }
                Event::Notified if lives => {}
                Event::Started { .. } | Event::NotStarted { .. } | Event::Ended { .. } | Event::Notified => continue,
                Event::Begin | Event::StopAsked | Event::PauseAsked | Event::RestartAsked
                | Event::DataChanged | Event::KillAsked | Event::Woke => {}
            }
            for order in take(&mut run, now, event) {
                match order {
                    Order::Start { .. } => {
                        prop_assert!(!ordered && !released && held.is_none());
                        ordered = true;
                    }
                    Order::Release { .. } => {
                        prop_assert!(!ordered && !lives && !released);
                        released = true;
                    }
                    Order::Forget { attempt } => prop_assert_eq!(held.take(), Some(attempt)),
                    Order::Wanted | Order::Signal { .. } | Order::WriteData | Order::Kill
                    | Order::Observe(_) => {}
                }
            }
            prop_assert_eq!(run.may_live(), ordered);
            prop_assert_eq!(run.held_end(), held);
        }
    }
}
