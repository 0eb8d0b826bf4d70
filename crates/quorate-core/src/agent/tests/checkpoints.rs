//! Checkpoints of runs: how they gather, what the directors are told, and that each run is answered once.

use super::*;
use crate::checkpoint::Content;
use crate::director::call::Written;

const GAP: Duration = Duration::from_millis(200);

fn content(text: &str) -> Content {
    Content::new(text.as_bytes()).unwrap()
}

fn asked(number: u64, ask: u64, text: &str) -> Event {
    Event::CheckpointAsked {
        warden: W,
        run: run(number, 1),
        ask: AskId(ask),
        content: content(text),
    }
}

fn answered(call: u64, kept: &[u64]) -> Event {
    Event::CheckpointsAnswered {
        warden: W,
        call,
        kept: kept.iter().copied().map(token).collect(),
    }
}

/// Runs 1 to `runs` are up.
fn live(runs: u32) -> Agent {
    let mut agent = agent_in(Phase::Open);
    let renewed = Event::Renewed {
        warden: W,
        sent: NOW,
    };
    take(&mut agent, NOW, renewed);
    let items = (1..=runs).map(|number| item(number, Wanted::Running));
    take(&mut agent, NOW, work(items.collect()));
    let reported = Event::Reported {
        warden: W,
        sequence: 1,
        assumed: (1..=u64::from(runs)).map(token).collect(),
        refused: Vec::new(),
    };
    take(&mut agent, NOW, reported);
    for number in 1..=u64::from(runs) {
        let started = Event::Started {
            warden: W,
            run: run(number, 1),
            pid: 9,
        };
        take(&mut agent, NOW, started);
    }
    agent
}

/// The call among these orders, if there is one.
fn call(effects: &[Effect]) -> Option<(u64, Vec<Written>)> {
    let mut calls = effects.iter().filter_map(|effect| {
        if let Effect::Checkpoints {
            call, checkpoints, ..
        } = effect
        {
            Some((*call, checkpoints.given.clone()))
        } else {
            None
        }
    });
    let first = calls.next();
    assert_eq!(calls.next(), None, "one at a time");
    first
}

fn texts(given: &[Written]) -> Vec<(u64, &str)> {
    given
        .iter()
        .map(|written| {
            let text = std::str::from_utf8(written.content.as_bytes()).unwrap();
            (written.token.counter(), text)
        })
        .collect()
}

fn answers(effects: &[Effect]) -> Vec<(u64, Fate)> {
    let answers = effects.iter().filter_map(|effect| {
        if let Effect::AnswerCheckpoint { ask, outcome } = effect {
            Some((ask.0, *outcome))
        } else {
            None
        }
    });
    answers.collect()
}

fn kept(number: u64, written: &Written) -> Fate {
    Fate::Kept {
        token: token(number),
        number: written.number,
    }
}

#[test]
fn a_checkpoint_is_sent_at_once_and_answered_after_the_directors_have_it() {
    let mut agent = live(1);
    let effects = take(&mut agent, NOW, asked(1, 7, "one"));
    let (first, given) = call(&effects).unwrap();
    assert_eq!(texts(&given), [(1, "one")]);
    assert_eq!(answers(&effects), []);
    let seen = agent.see(W, run(1, 1)).unwrap();
    assert_eq!(seen.checkpoint, None, "not before it is sure");
    let effects = take(&mut agent, NOW, answered(first, &[1]));
    assert_eq!(answers(&effects), [(7, kept(1, &given[0]))]);
    let latest = agent.see(W, run(1, 1)).unwrap().checkpoint.unwrap();
    assert_eq!(
        (latest.number, &latest.content),
        (given[0].number, &content("one"))
    );
}

#[test]
fn while_a_call_is_under_way_the_newest_of_each_run_waits_and_answers_the_older_ones() {
    let mut agent = live(2);
    let (first, _) = call(&take(&mut agent, NOW, asked(1, 1, "a"))).unwrap();
    for (ask, text) in [(2, "b"), (3, "c")] {
        assert_eq!(call(&take(&mut agent, NOW, asked(1, ask, text))), None);
    }
    take(&mut agent, NOW, asked(2, 4, "x"));
    let soon = NOW + Duration::from_millis(50);
    let effects = take(&mut agent, soon, answered(first, &[1]));
    assert_eq!(answers(&effects).len(), 1);
    assert_eq!(call(&effects), None, "not before the gap has passed");
    let early = take(
        &mut agent,
        NOW + (GAP - Duration::from_millis(1)),
        Event::Woke,
    );
    assert_eq!(call(&early), None);
    let (second, given) = call(&take(&mut agent, NOW + GAP, Event::Woke)).unwrap();
    assert_eq!(texts(&given), [(1, "c"), (2, "x")]);
    assert!(given[0].number != given[1].number);
    let effects = take(&mut agent, NOW + GAP, answered(second, &[1]));
    assert_eq!(
        answers(&effects),
        [
            (2, kept(1, &given[0])),
            (3, kept(1, &given[0])),
            (4, Fate::Ended { token: token(2) }),
        ]
    );
}

#[test]
fn five_hundred_runs_that_write_twice_a_second_are_a_few_calls() {
    let mut agent = live(500);
    let mut calls = Vec::new();
    let mut under_way = None;
    for millis in 0..2000_u32 {
        let now = NOW + Duration::from_millis(millis.into());
        let run = u64::from(millis % 500) + 1;
        let mut effects = take(&mut agent, now, asked(run, millis.into(), "offset 4711"));
        if let Some(call) = under_way.take() {
            effects.extend(take(&mut agent, now, answered(call, &[])));
        }
        if let Some((call, given)) = call(&effects) {
            calls.push(given.len());
            under_way = Some(call);
        }
    }
    assert!(calls.len() <= 10, "{calls:?}");
    assert!(calls.iter().sum::<usize>() >= 1800, "{calls:?}");
}

#[test]
fn large_ones_go_in_several_calls_and_none_is_passed_over() {
    let mut agent = live(20);
    let large = "x".repeat(Content::MAX);
    let (mut under_way, _) = call(&take(&mut agent, NOW, asked(20, 0, "first"))).unwrap();
    for number in (1..=20).rev() {
        take(&mut agent, NOW, asked(number, number, &large));
    }
    let mut order = Vec::new();
    for round in 1..=3 {
        let now = NOW + GAP * round;
        // The answer lets the next one go.
        let effects = take(&mut agent, now, answered(under_way, &[]));
        let (call, given) = call(&effects).unwrap();
        assert!(given.len() <= 8, "128 KiB at most");
        order.extend(given.iter().map(|written| written.token.counter()));
        under_way = call;
    }
    assert_eq!(order, (1..=20).rev().collect::<Vec<u64>>());
}

#[test]
fn a_call_without_an_answer_is_repeated_as_it_was() {
    let mut agent = live(1);
    let first = call(&take(&mut agent, NOW, asked(1, 1, "a"))).unwrap();
    let unanswered = Event::CheckpointsUnanswered {
        warden: W,
        call: first.0,
    };
    assert_eq!(call(&take(&mut agent, NOW, unanswered.clone())), None);
    take(&mut agent, NOW, asked(1, 2, "newer"));
    let later = NOW + Duration::from_millis(300);
    let again = call(&take(&mut agent, later, Event::Woke)).unwrap();
    assert_eq!(again, first);
    let effects = take(&mut agent, later, answered(first.0, &[1]));
    assert_eq!(answers(&effects).len(), 1);
    // A late word about it changes nothing.
    assert_eq!(
        call(&take(&mut agent, later, unanswered)).map(|c| c.1[0].token),
        None
    );
}

#[test]
fn the_next_attempt_starts_with_the_last_one_and_the_number_rises_over_a_restart_of_the_agent() {
    let mut agent = live(1);
    let (first, given) = call(&take(&mut agent, NOW, asked(1, 1, "done: 3"))).unwrap();
    take(&mut agent, NOW, answered(first, &[1]));
    let ended = Event::Ended {
        warden: W,
        run: run(1, 1),
        code: Some(1),
        signal: None,
    };
    take(&mut agent, NOW, ended);
    let later = NOW + Duration::from_secs(5);
    let effects = take(&mut agent, later, Event::Woke);
    let started = effects.iter().find_map(|effect| {
        if let Effect::Start { checkpoint, .. } = effect {
            checkpoint.clone()
        } else {
            None
        }
    });
    assert_eq!(started.unwrap().content, content("done: 3"));

    // The next process knows nothing but the time.
    let mut next = agent_in(Phase::Resuming);
    let asked = Event::CheckpointAsked {
        warden: W,
        run: run(1, 3),
        ask: AskId(1),
        content: content("done: 4"),
    };
    let told = answers(&take(&mut next, later, asked.clone()));
    assert_eq!(told.len(), 1, "its slot is not known yet");
    let opened = Event::Opened {
        warden: W,
        opened: opened(),
    };
    take(&mut next, later, opened);
    take(&mut next, later, work(vec![item(1, Wanted::Running)]));
    let (_, again) = call(&take(&mut next, later, asked)).unwrap();
    assert!(again[0].number > given[0].number);
}

#[test]
fn what_a_director_tells_late_does_not_replace_what_is_known_to_be_later() {
    let mut agent = live(1);
    let (first, given) = call(&take(&mut agent, NOW, asked(1, 1, "later"))).unwrap();
    take(&mut agent, NOW, answered(first, &[1]));
    let told = |number, text| {
        let mut told = item(1, Wanted::Running);
        told.checkpoint = Some(Latest {
            token: token(1),
            number,
            content: content(text),
        });
        work(vec![told])
    };
    let known = |agent: &Agent| {
        agent
            .see(W, run(1, 1))
            .unwrap()
            .checkpoint
            .cloned()
            .unwrap()
    };
    take(&mut agent, NOW, told(given[0].number - 1, "earlier"));
    assert_eq!(known(&agent).content, content("later"));
    take(
        &mut agent,
        NOW,
        told(given[0].number + 1, "of the owner itself"),
    );
    assert_eq!(known(&agent).content, content("of the owner itself"));
}

#[test]
fn while_no_director_answers_what_waits_is_bounded() {
    let mut agent = live(1);
    take(&mut agent, NOW, asked(1, 0, "under way"));
    let given_up: Vec<_> = (1..=1000)
        .flat_map(|ask| answers(&take(&mut agent, NOW, asked(1, ask, "x"))))
        .collect();
    assert_eq!(given_up.len(), 1000 - 64);
    assert_eq!(given_up[0], (1, Fate::Unknown));
}

/// What ends, and what those hear who wait.
#[test]
fn whoever_waits_is_answered_when_the_run_or_the_session_ends() {
    let gone = Event::Work {
        warden: W,
        work: Work {
            gone: vec![token(1)],
            ..Work::default()
        },
    };
    let ended = Event::Ended {
        warden: W,
        run: run(1, 1),
        code: None,
        signal: Some(9),
    };
    let lost = Event::Lost { warden: W };
    let died = Event::WardenGone {
        warden: W,
        proven: true,
    };
    let over = Fate::Ended { token: token(1) };
    for (event, waiting, under_way) in [
        (gone, Some(over), None),
        (lost, Some(Fate::Unknown), Some(Fate::Unknown)),
        (died, Some(Fate::Unknown), Some(Fate::Unknown)),
        // A restart in place: what was written counts for the next attempt.
        (ended, None, None),
    ] {
        let mut agent = live(1);
        take(&mut agent, NOW, asked(1, 1, "under way"));
        take(&mut agent, NOW, asked(1, 2, "waits"));
        let told = answers(&take(&mut agent, NOW, event.clone()));
        let of = |ask| told.iter().find(|(asked, _)| *asked == ask).map(|a| a.1);
        assert_eq!((of(2), of(1)), (waiting, under_way), "{event:?}");
    }
    let stranger = answers(&take(&mut live(1), NOW, asked(9, 1, "x")));
    assert_eq!(stranger, [(1, Fate::Ended { token: token(9) })]);
    let mut unknown = asked(9, 1, "x");
    if let Event::CheckpointAsked { warden, .. } = &mut unknown {
        *warden = WardenId(99);
    }
    let of_no_warden = answers(&take(&mut live(1), NOW, unknown));
    assert_eq!(of_no_warden, [(1, Fate::Ended { token: token(9) })]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the order: every run that asks is answered exactly once, one call is under way at a
    /// time, calls keep their distance, and numbers only rise.
    #[test]
    fn every_ask_is_answered_once_and_calls_keep_their_distance(
        steps in prop::collection::vec((0_u8..10, 1_u64..5, 0_u64..120), 1..120),
    ) {
        let mut agent = live(4);
        let mut now = NOW;
        let mut under_way: Option<(u64, Vec<Written>)> = None;
        let (mut asks, mut told) = (0, BTreeMap::new());
        let (mut last_call, mut last_number) = (None::<Moment>, 0);
        for (choice, number, millis) in steps {
            now = now + Duration::from_millis(millis);
            let event = match (choice, &under_way) {
                (0..5, _) => {
                    asks += 1;
                    asked(number, asks, "x")
                }
                (5..7, Some((call, given))) => {
                    let kept: Vec<u64> = given.iter().map(|w| w.token.counter()).collect();
                    let event = answered(*call, &kept);
                    under_way = None;
                    event
                }
                (7, Some((call, _))) => {
                    Event::CheckpointsUnanswered { warden: W, call: *call }
                }
                (8, _) => Event::Renewed { warden: W, sent: now },
                (_, _) => Event::Woke,
            };
            let effects = take(&mut agent, now, event);
            for (ask, fate) in answers(&effects) {
                prop_assert!(told.insert(ask, fate).is_none(), "twice");
            }
            if let Some((call, given)) = call(&effects) {
                if let Some(sent) = &under_way {
                    prop_assert_eq!(sent, &(call, given.clone()), "a repeat is the same");
                } else {
                    prop_assert!(last_call.is_none_or(|last| now >= last + GAP));
                    last_call = Some(now);
                    for written in &given {
                        prop_assert!(written.number > last_number);
                        last_number = written.number;
                    }
                }
                under_way = Some((call, given));
            }
        }
        let rest = answers(&take(&mut agent, now, Event::Lost { warden: W }));
        for (ask, fate) in rest {
            prop_assert!(told.insert(ask, fate).is_none(), "twice");
        }
        prop_assert_eq!(told.len() as u64, asks);
    }
}
