//! When the format of the ledger rises, who stops at it, and who is refused (U1).

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::director::call::Refusal;
use crate::format::Format;
use crate::record::DirectorInfo;

const ONE: Formats = Formats {
    oldest: Format(1),
    newest: Format(1),
};
const TWO: Formats = Formats {
    oldest: Format(1),
    newest: Format(2),
};

fn director(name: &str) -> DirectorName {
    DirectorName::new(name).unwrap()
}

fn tells(name: &str, format: u16) -> Call {
    Call::Announce {
        director: DirectorInfo {
            name: director(name),
            id: 1,
            address: format!("{name}:7400"),
            version: format!("0.{format}.0"),
            format: Format(format),
            oldest_format: Format::FIRST,
        },
    }
}

fn members(names: &[&str]) -> Call {
    Call::Members {
        directors: names.iter().copied().map(director).collect(),
    }
}

/// The formats of the entries, in order.
fn formats(world: &World) -> Vec<u16> {
    let entries = world.ledger.iter();
    let entries = entries.map(|(_, bytes)| Entry::decode(bytes).unwrap().header.format.0);
    entries.collect()
}

fn done(answer: &Answer) -> bool {
    let Answer::Done { changed, .. } = answer else {
        panic!("{answer:?}")
    };
    *changed
}

#[test]
fn the_format_rises_to_what_everybody_reads_and_waits_for_who_has_not_told() {
    let d123 = &["d1", "d2", "d3"][..];
    for (told, belong, becomes) in [
        (&[("d1", 2)][..], &["d1"][..], 2),
        (&[("d1", 2), ("d2", 2), ("d3", 2)], d123, 2),
        (&[("d1", 2), ("d2", 2), ("d3", 1)], d123, 1),
        (&[("d1", 2), ("d2", 2)], d123, 1),
        (&[], d123, 1),
        // Nobody but the leader itself reads a later one than this leader.
        (&[("d1", 9), ("d2", 7)], &["d1", "d2"], 2),
        // Who has told of himself and is no member may read the ledger all the same: a shared store has none.
        (&[("d1", 2), ("d4", 1)], &["d1"], 1),
        (&[("d1", 2), ("d4", 2)], &[], 2),
        (&[], &[], 1),
    ] {
        let mut world = World::led();
        for (name, format) in told {
            assert!(done(&world.ask(tells(name, *format))));
        }
        let changed = done(&world.ask(members(belong)));
        assert_eq!(
            world.cluster().format(),
            Format(becomes),
            "{told:?} {belong:?}"
        );
        assert_eq!(changed, becomes > 1);
        // Told again, it is so already.
        assert!(!done(&world.ask(members(belong))));
    }
}

#[test]
fn entries_are_of_the_old_format_up_to_the_one_that_begins_the_new_one() {
    let mut world = World::led();
    world.ask(tells("d1", 2));
    world.ask(apply("s", &["p"]));
    assert_eq!(formats(&world), [1, 1, 1]);
    world.ask(members(&["d1"]));
    world.ask(apply("t", &["p"]));
    assert_eq!(formats(&world), [1, 1, 1, 2, 2]);
    let raised = Change::FormatRaised { format: Format(2) };
    assert!(world.nodes[0].changes.contains(&raised));
    // A new leader goes on with it, and so does one that begins with a snapshot.
    world.lead_again();
    assert_eq!(formats(&world).last(), Some(&2));
    let cluster = world.cluster();
    let kept = crate::cluster::Cluster::decode(&cluster.encode()).unwrap();
    assert!(kept == *cluster);
    assert_eq!(kept.format(), Format(2));
}

#[test]
fn a_director_of_the_version_before_stops_at_the_entry_that_begins_the_new_format() {
    let mut world = World::led();
    world.nodes.push(Node::of(2, ONE));
    world.ask(tells("d1", 2));
    world.hint(1, Some(false));
    let old = world.nodes[1].director.cluster().clone();
    assert!(old == *world.cluster());

    world.ask(members(&["d1"]));
    world.ask(apply("s", &["p"]));
    world.hint(1, Some(false));
    let stopped = &world.nodes[1];
    let why =
        "position 3 cannot be folded: the ledger has format 2 there, and this director reads 1";
    assert_eq!(*stopped.director.role(), Role::Halted(why.to_owned()));
    assert!(
        *stopped.director.cluster() == old,
        "nothing is folded of it"
    );
    let unread = crate::format::Unread {
        found: Format(2),
        read: ONE,
    };
    assert_eq!(stopped.stopped, Some(Why::Unread(unread)));

    // One that begins with a snapshot of the new format stops as well; of the version of the others it does not.
    for (formats, stops) in [(ONE, true), (TWO, false)] {
        let (next, bytes) = (world.cluster().position().next(), world.cluster().encode());
        world.nodes.push(Node::of(3, formats));
        let node = world.nodes.len() - 1;
        world.tell(node, Event::Reset { next, bytes });
        let node = &world.nodes[node];
        assert_eq!(matches!(node.director.role(), Role::Halted(_)), stops);
        assert_eq!(node.stopped.is_some(), stops);
        assert_eq!(node.director.cluster() == world.cluster(), !stops);
    }
}

#[test]
fn going_back_is_free_before_the_new_format_and_refused_after_it() {
    let mut world = World::led();
    world.ask(tells("d1", 2));
    world.ask(tells("d2", 2));
    // Back to the version before, as long as the third is not of the new one.
    assert!(done(&world.ask(tells("d2", 1))));
    world.ask(tells("d3", 2));
    assert!(!done(&world.ask(members(&["d1", "d2", "d3"]))));
    world.ask(tells("d2", 2));
    assert!(done(&world.ask(members(&["d1", "d2", "d3"]))));

    let answer = world.ask(tells("d2", 1));
    let Answer::Refused(Refusal::Conflict(why)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        why,
        "director d2 (0.1.0) reads the ledger up to format 1, and the ledger has format 2; start it with the \
         version of the others"
    );
    assert_eq!(
        world.cluster().directors()[&director("d2")].format,
        Format(2)
    );
}

#[test]
fn who_tells_in_the_same_entry_that_he_reads_less_is_heard() {
    for (calls, becomes) in [
        ([tells("d2", 1), members(&["d1", "d2"])], 1),
        ([members(&["d1", "d2"]), tells("d2", 1)], 2),
    ] {
        let mut world = World::led();
        world.ask(tells("d1", 2));
        world.ask(tells("d2", 2));
        world.append = Append::Held;
        let first = world.ask_later(0, apply("s", &["p"]));
        world.run(0);
        let order = world.held(0);
        let both: Vec<u64> = calls.map(|call| world.ask_later(0, call)).into();
        world.append = Append::Works;
        let Effect::Append { append, .. } = order else {
            panic!()
        };
        let outcome = world.land(&order);
        world.tell(0, Event::AppendAnswered { append, outcome });
        assert_eq!(world.cluster().format(), Format(becomes));
        assert_eq!(world.ledger.len(), 5, "both are in one entry");
        let refused = both.iter().any(|id| {
            matches!(
                world.nodes[0].answers[id],
                Answer::Refused(Refusal::Conflict(_))
            )
        });
        assert_eq!(refused, becomes == 2, "whoever reads less is told");
        assert!(world.nodes[0].answers.contains_key(&first));
    }
}

#[test]
fn a_kind_of_record_that_nobody_knows_stops_the_director_whatever_the_format() {
    let mut world = World::led();
    world.decree(vec![Record::Beat]);
    let before = world.cluster().clone();
    let header = Entry::decode(&world.ledger[1].1).unwrap().header;
    let entry = Entry {
        header: crate::record::Header {
            predecessor: before.last_hash(),
            ..header
        },
        records: vec![Record::Beat],
    };
    let mut bytes = entry.encode();
    let at = bytes.windows(4).position(|window| window == b"beat");
    bytes[at.unwrap()] = b'm';
    world.ledger.push((header.epoch, bytes));
    world.hint(0, None);
    let role = world.nodes[0].director.role();
    assert!(
        matches!(role, Role::Halted(why) if why.contains("position 3 cannot be folded: entry cannot be decoded") && why.contains("unknown variant `meat`")),
        "{role:?}"
    );
    assert!(*world.cluster() == before);
}

#[test]
#[should_panic(expected = "in a ledger of format 1")]
fn a_record_of_a_later_format_is_never_written_into_a_ledger_of_an_earlier_one() {
    // A staged change hides what is in it from whoever only looks at the entry.
    let staged = Record::Staged {
        change: crate::ids::BatchId::default(),
        records: vec![Record::Format { format: Format(2) }],
        last: true,
    };
    let mut world = World::led();
    let now = world.now;
    let node = &mut world.nodes[0].director;
    let epoch = node.cluster.epoch();
    node.append(now, epoch, vec![staged], Vec::new(), &mut Vec::new());
}

/// What happens to directors: (who, what).
fn happening((who, what): (u8, u8)) -> Call {
    let names = ["d1", "d2", "d3"];
    let name = names[usize::from(who) % 3];
    match what % 6 {
        0 | 1 => tells(name, 1),
        2 | 3 => tells(name, 2),
        4 => Call::ForgetDirector {
            director: director(name),
        },
        _ => members(&names[..=usize::from(who) % 3]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever last told, and was not refused, reads everything that is written after.
    #[test]
    fn nothing_is_written_that_a_director_who_has_told_does_not_read(
        dice in prop::collection::vec(any::<(u8, u8)>(), 1..40),
    ) {
        let mut world = World::led();
        let mut reads: BTreeMap<DirectorName, Format> = BTreeMap::new();
        for dice in dice {
            let call = happening(dice);
            let (told, before) = (call.clone(), world.cluster().format());
            let asked: Option<BTreeSet<DirectorName>> = if let Call::Members { directors } = &call {
                Some(directors.clone())
            } else {
                None
            };
            let answer = world.ask(call);
            match (told, &answer) {
                (Call::Announce { director }, Answer::Done { .. }) => {
                    reads.insert(director.name, director.format);
                }
                (Call::ForgetDirector { director }, _) => {
                    reads.remove(&director);
                }
                _ => {}
            }
            let format = world.cluster().format();
            prop_assert!(format >= before, "it never falls");
            prop_assert!(reads.values().all(|read| *read >= format));
            if let Some(members) = asked {
                let told = members.iter().all(|member| reads.contains_key(member));
                let lowest = reads.values().min().copied().filter(|_| told);
                let rises = lowest.map_or(before, |lowest| lowest.max(before));
                prop_assert_eq!(format, rises, "all that everybody reads");
            }
        }
        let formats = formats(&world);
        prop_assert!(formats.is_sorted());
        prop_assert_eq!(formats.last().copied(), Some(world.cluster().format().0));
    }
}
