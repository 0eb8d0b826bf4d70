//! With all rules in force nothing is broken, and useful things happen.

use quorate_model::lease::{Leases, Size};
use quorate_model::rules::Rules;
use quorate_model::search::search;

/// Searches a size to its end. Prints the figures of docs/model.md.
fn all_is_well(size: Size) -> usize {
    let rules = Rules::ALL;
    let found = search(Leases { size, rules }, 2);
    eprintln!("{}: {found}", size.name);
    assert!(
        found.broken.is_empty(),
        "{}: {:#?}",
        size.name,
        found.broken
    );
    assert_eq!(found.missed, Vec::<&str>::new(), "{}", size.name);
    found.states
}

#[test]
fn two_sessions_under_three_leaders_never_overlap() {
    let states = all_is_well(Size::LEADERS);
    assert!(states > 500_000, "only {states} states: what was left out?");
}

#[test]
fn a_leader_that_does_not_know_that_it_is_deposed_does_no_harm() {
    let states = all_is_well(Size::ABLATION);
    assert!(states > 100_000, "only {states} states: what was left out?");
}

#[test]
fn a_new_process_beside_the_messages_of_the_old_one_does_no_harm() {
    let states = all_is_well(Size::RESTARTS);
    assert!(states > 100_000, "only {states} states: what was left out?");
}

#[test]
fn a_new_process_under_a_new_leader_does_no_harm() {
    let states = all_is_well(Size::BOTH);
    assert!(states > 200_000, "only {states} states: what was left out?");
}

#[test]
fn one_leader_throughout_is_safe_and_useful() {
    all_is_well(Size::ONE_LEADER);
}
