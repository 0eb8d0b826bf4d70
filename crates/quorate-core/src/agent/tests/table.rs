//! The phase × event table of a session: every event of the machine, in every phase.

use super::*;
use crate::checkpoint::Content;

const PHASES: [Phase; 9] = [
    Phase::Spawning,
    Phase::Opening,
    Phase::Resuming,
    Phase::Open,
    Phase::Live,
    Phase::Draining,
    Phase::Leaving,
    Phase::Closing,
    Phase::Over,
];

/// An event, and what has to come before it so that there is something for it to be about.
struct Happens {
    name: &'static str,
    before: Vec<Event>,
    after: Duration,
    event: Event,
}

/// Every event, some of them in several ways.
fn events() -> Vec<Happens> {
    // Later than every moment at which a phase was reached, earlier than every deadline.
    let soon = Duration::from_millis(8_600);
    let at_once = Duration::ZERO;
    let (warden, run) = (W, run(1, 1));
    let claims = || vec![work(vec![item(2, Wanted::Running)])];
    let starts = |sequence| Event::Reported {
        warden,
        sequence,
        assumed: vec![token(2)],
        refused: Vec::new(),
    };
    let started = |number| Event::Started {
        warden,
        run: RunId {
            token: token(number),
            attempt: 1,
        },
        pid: 10,
    };
    let wants = || Event::CheckpointAsked {
        warden,
        run,
        ask: AskId(7),
        content: Content::new(b"here").unwrap(),
    };
    let found = Event::Found {
        warden: WardenId(8),
        kept: Kept {
            session: SessionId(6),
            times: LeaseTimes::of(LEASE),
            notes: BTreeMap::new(),
        },
        deadline: Some(NOW + LEASE),
        runs: Vec::new(),
    };
    let mut happens = Vec::new();
    let mut add = |name, before, after, event| {
        happens.push(Happens {
            name,
            before,
            after,
            event,
        });
    };
    add("found another", Vec::new(), at_once, found);
    add("began", Vec::new(), at_once, Event::Began);
    let classes = vec![LEASE, Duration::from_secs(60)];
    let classes = Event::Classes(classes);
    add("classes: one more", Vec::new(), at_once, classes);
    add("spawned", Vec::new(), soon, Event::Spawned { warden });
    let opened = Event::Opened {
        warden,
        opened: opened(),
    };
    add("opened", Vec::new(), soon, opened);
    add(
        "open failed",
        Vec::new(),
        soon,
        Event::OpenFailed { warden },
    );
    let renewed = |after| Event::Renewed {
        warden,
        sent: NOW + after,
    };
    add("renewed", Vec::new(), soon, renewed(soon));
    add("work", Vec::new(), at_once, claims().remove(0));
    add("reported: assumed", claims(), at_once, starts(3));
    add("reported: not waited for", claims(), at_once, starts(77));
    let refused = Event::Reported {
        warden,
        sequence: 3,
        assumed: Vec::new(),
        refused: vec![token(2)],
    };
    add("reported: refused", claims(), at_once, refused);
    let unanswered = Event::ReportUnanswered {
        warden,
        sequence: 3,
    };
    add("report unanswered", claims(), at_once, unanswered);
    let mut starting = claims();
    starting.push(starts(3));
    add("started", starting.clone(), at_once, started(2));
    let not_started = Event::NotStarted {
        warden,
        run: RunId {
            token: token(2),
            attempt: 1,
        },
        cause: Cause::new("no such program"),
    };
    add("not started", starting, at_once, not_started);
    add(
        "notified",
        Vec::new(),
        at_once,
        Event::Notified { warden, run },
    );
    add("checkpoint asked", Vec::new(), at_once, wants());
    let kept = |call| Event::CheckpointsAnswered {
        warden,
        call,
        kept: vec![token(1)],
    };
    add("checkpoints answered", vec![wants()], at_once, kept(1));
    let not_waited = "checkpoints answered: not waited for";
    add(not_waited, vec![wants()], at_once, kept(77));
    let unanswered = Event::CheckpointsUnanswered { warden, call: 1 };
    add("checkpoints unanswered", vec![wants()], at_once, unanswered);
    let ended = |code, signal| Event::Ended {
        warden,
        run,
        code,
        signal,
    };
    add("ended", Vec::new(), at_once, ended(Some(1), None));
    add(
        "ended by a signal",
        Vec::new(),
        at_once,
        ended(None, Some(15)),
    );
    add("deadline-grace", Vec::new(), soon, Event::Woke);
    add("deadline", Vec::new(), LEASE, renewed(LEASE));
    add("lost", Vec::new(), at_once, Event::Lost { warden });
    let gone = |proven| Event::WardenGone { warden, proven };
    add("gone, proven", Vec::new(), at_once, gone(true));
    add("gone", Vec::new(), at_once, gone(false));
    add("closed", Vec::new(), at_once, Event::Closed { warden });
    let unanswered = Event::CloseUnanswered { warden };
    add("close unanswered", Vec::new(), at_once, unanswered);
    add("shutdown", Vec::new(), at_once, Event::Shutdown);
    happens
}

/// The place of an event's variant among all. A new one does not compile here before it has its place, and
/// then the table wants a row of it.
const fn variant(event: &Event) -> usize {
    match event {
        Event::Found { .. } => 0,
        Event::Began => 1,
        Event::Classes(_) => 2,
        Event::Spawned { .. } => 3,
        Event::WardenGone { .. } => 4,
        Event::Opened { .. } => 5,
        Event::OpenFailed { .. } => 6,
        Event::Lost { .. } => 7,
        Event::Renewed { .. } => 8,
        Event::Work { .. } => 9,
        Event::Reported { .. } => 10,
        Event::ReportUnanswered { .. } => 11,
        Event::Closed { .. } => 12,
        Event::CloseUnanswered { .. } => 13,
        Event::Started { .. } => 14,
        Event::NotStarted { .. } => 15,
        Event::Notified { .. } => 16,
        Event::CheckpointAsked { .. } => 17,
        Event::CheckpointsAnswered { .. } => 18,
        Event::CheckpointsUnanswered { .. } => 19,
        Event::Ended { .. } => 20,
        Event::Shutdown => 21,
        Event::Woke => 22,
    }
}

#[test]
fn no_event_is_left_out_of_the_table() {
    let all: BTreeSet<usize> = events().iter().map(|one| variant(&one.event)).collect();
    assert_eq!(all, BTreeSet::from_iter(0..=variant(&Event::Woke)));
}

#[test]
fn every_cell_of_the_table_is_as_documented() {
    let mut table = String::new();
    for phase in PHASES {
        for one in events() {
            let mut agent = agent_in(phase);
            assert_eq!(phase_of(&agent, W), phase);
            for event in one.before {
                take(&mut agent, NOW, event);
            }
            assert_eq!(phase_of(&agent, W), phase, "before {}", one.name);
            let effects = take(&mut agent, NOW + one.after, one.event);
            let names: Vec<String> = effects.iter().map(name).collect();
            let to = phase_of(&agent, W);
            if to != phase || !names.is_empty() {
                table.push_str(&format!(
                    "{phase:?} · {} → {to:?} [{}]\n",
                    one.name,
                    names.join("; ")
                ));
            }
        }
    }
    insta::assert_snapshot!(table);
}
