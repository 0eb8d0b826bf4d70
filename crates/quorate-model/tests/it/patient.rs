//! Patient leases: a chain of leaders must not keep a dead host's partition, and the records that see to
//! that must not free the partition of a living one.

use quorate_model::patient::{BOUND, Keeping, Patient, S1};
use quorate_model::search::{Found, search, shortest};

fn found(keeping: Keeping, prompt: bool) -> Found {
    let found = search(Patient::small(keeping, prompt), 1);
    eprintln!("{}, prompt {prompt}: {found}", keeping.name());
    found
}

fn breaks(keeping: Keeping, prompt: bool, property: &'static str) {
    let model = Patient::small(keeping, prompt);
    let trace = shortest(&model, property);
    let trace = trace.unwrap_or_else(|| panic!("{property} holds with {}", keeping.name()));
    eprintln!(
        "{}: {property} broken after {} steps",
        keeping.name(),
        trace.steps.len()
    );
}

#[test]
fn the_rule_is_safe_whatever_the_leaders_do() {
    let found = found(Keeping::Rule, false);
    assert!(found.broken.is_empty(), "{:#?}", found.broken);
    assert_eq!(found.missed, Vec::<&str>::new());
}

#[test]
fn with_records_no_chain_of_leaders_keeps_the_partition_of_a_dead_host() {
    let found = found(Keeping::Rule, true);
    assert!(found.broken.is_empty(), "{:#?}", found.broken);
    assert_eq!(found.missed, Vec::<&str>::new());
}

/// Whatever the bound is, a longer chain exceeds it.
#[test]
fn without_records_a_chain_of_leaders_keeps_it_for_ever() {
    for patience in 2..=8 {
        let model = Patient {
            patience,
            ..Patient::small(Keeping::NoRecords, true)
        };
        let trace = shortest(&model, BOUND).expect("a chain of leaders is long enough");
        let elected = "another leader is elected";
        let leaders = trace.steps.iter().filter(|step| *step == elected).count();
        eprintln!("no-records: {patience} X are reached after {leaders} changes of leader");
        assert!(leaders >= usize::from(patience - 1));
    }
    assert!(found(Keeping::NoRecords, false).breach(S1).is_none());
}

#[test]
fn an_ok_without_heard_leaves_a_silence_behind_that_is_over() {
    breaks(Keeping::NoHeard, false, S1);
}

#[test]
fn an_ok_that_does_not_wait_for_heard_can_outlive_the_leader_that_wrote_it() {
    breaks(Keeping::HeardNotAwaited, false, S1);
}

#[test]
fn an_ok_that_overtakes_a_silence_on_its_way_makes_it_a_lie() {
    breaks(Keeping::SilentOvertaken, false, S1);
}

#[test]
fn a_silence_that_is_rounded_up_was_not_all_silent() {
    breaks(Keeping::RoundedUp, false, S1);
}

/// Both leaders count the same X, each at most 1 + ρ too fast, so their parts add up without division.
/// Dividing is as safe, and loses up to ρ/(1 + ρ) of the silence at each change: with clocks as far apart
/// as here, more than a step brings.
#[test]
fn dividing_the_silence_by_the_clock_bound_is_not_needed_and_can_undo_the_records() {
    assert!(found(Keeping::Divided, false).breach(S1).is_none());
    breaks(Keeping::Divided, true, BOUND);
}
