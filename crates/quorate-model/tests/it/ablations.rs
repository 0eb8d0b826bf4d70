//! Each rule is needed: without it a promise is broken, and the shortest way there is known.

use quorate_model::lease::{Leases, S1, S3, S5, S7, Size};
use quorate_model::rules::{Removed, Rules};
use quorate_model::search::{search, shortest};

/// Without these rules the promise is broken. Prints the lengths of docs/model.md.
fn breaks(removed: &[Removed], size: Size, property: &'static str) {
    let rules = Rules::without(removed);
    let trace = shortest(&Leases { size, rules }, property);
    let names: Vec<_> = removed.iter().map(|rule| rule.name()).collect();
    let trace = trace.unwrap_or_else(|| panic!("{property} holds without {names:?}"));
    eprintln!(
        "without {names:?}: {property} broken after {} steps",
        trace.steps.len()
    );
    assert!(!trace.steps.is_empty());
}

/// Without this rule alone nothing is broken.
fn holds(removed: Removed, size: Size) {
    let rules = Rules::without(&[removed]);
    let found = search(Leases { size, rules }, 1);
    eprintln!("without {removed}: nothing broken in {found}");
    assert!(found.broken.is_empty(), "{:#?}", found.broken);
    assert_eq!(found.missed, Vec::<&str>::new());
}

#[test]
fn a_deadline_that_counts_from_the_answer_is_too_late() {
    breaks(&[Removed::DeadlineFromSending], Size::ONE_LEADER, S1);
}

#[test]
fn an_agent_that_is_the_only_one_to_end_its_runs_is_paused_at_the_wrong_time() {
    breaks(&[Removed::Timer], Size::ONE_LEADER, S1);
    breaks(&[Removed::Timer], Size::ONE_LEADER, S5);
}

#[test]
fn an_expiry_that_is_stamped_with_an_earlier_moment_comes_too_early() {
    breaks(&[Removed::StampAtReceipt], Size::ONE_LEADER, S1);
}

#[test]
fn a_deposed_leader_that_answers_keeps_alive_what_the_new_one_expires() {
    breaks(&[Removed::Proof], Size::ABLATION, S1);
}

#[test]
fn a_new_leader_that_trusts_its_old_stamps_expires_what_another_renewed() {
    breaks(&[Removed::FreshStamps], Size::ABLATION, S1);
}

#[test]
fn an_expiry_that_is_not_committed_is_unknown_to_the_next_leader() {
    breaks(&[Removed::CommittedExpiry], Size::ABLATION, S5);
    breaks(&[Removed::CommittedExpiry], Size::ABLATION, S1);
}

#[test]
fn an_assignment_of_what_somebody_holds_makes_two_copies() {
    breaks(&[Removed::OwnerReleases], Size::ONE_LEADER, S1);
    breaks(&[Removed::OwnerReleases], Size::ONE_LEADER, S5);
}

#[test]
fn a_counter_of_tokens_that_begins_again_repeats_them() {
    breaks(&[Removed::ReplicatedCounter], Size::ABLATION, S3);
}

#[test]
fn a_start_before_the_assumption_is_committed_meets_a_withdrawal() {
    breaks(&[Removed::Assumption], Size::ONE_LEADER, S5);
    breaks(&[Removed::Assumption], Size::ONE_LEADER, S1);
}

#[test]
fn a_release_before_the_proof_of_death_makes_two_copies() {
    breaks(&[Removed::ProofOfDeath], Size::ONE_LEADER, S1);
    breaks(&[Removed::ProofOfDeath], Size::ONE_LEADER, S5);
}

#[test]
fn a_partition_that_is_free_when_revoked_is_stolen() {
    breaks(&[Removed::StopBeforeMove], Size::ONE_LEADER, S1);
    breaks(&[Removed::StopBeforeMove], Size::ONE_LEADER, S5);
}

#[test]
fn a_late_release_of_an_earlier_process_frees_what_the_newest_runs() {
    breaks(&[Removed::FencedRelease], Size::RESTARTS, S7);
    breaks(&[Removed::FencedRelease], Size::RESTARTS, S1);
}

#[test]
fn a_late_close_of_an_earlier_process_frees_what_the_newest_runs() {
    breaks(&[Removed::FencedClose], Size::RESTARTS, S7);
    breaks(&[Removed::FencedClose], Size::RESTARTS, S1);
}

#[test]
fn a_renewal_of_an_earlier_process_is_a_second_voice() {
    breaks(&[Removed::FencedRenewal], Size::RESTARTS, S7);
}

#[test]
fn an_expiry_without_the_factor_for_clock_rates_comes_too_early() {
    breaks(&[Removed::DriftFactor], Size::ONE_LEADER, S1);
}

#[test]
fn an_expiry_without_the_kill_budget_comes_too_early() {
    breaks(&[Removed::KillBudget], Size::ONE_LEADER, S1);
}

#[test]
fn an_expiry_of_a_deposed_leader_must_not_count() {
    breaks(&[Removed::TermCheck], Size::ABLATION, S1);
}

/// R2 and the end of the warden at the deadline stand in for each other: see docs/model.md.
#[test]
fn looking_at_the_deadline_and_the_end_of_the_warden_guard_the_same_start() {
    holds(Removed::LookAtDeadline, Size::ONE_LEADER);
    holds(Removed::LookAtDeadline, Size::RESTARTS);
    holds(Removed::TimerEndsWarden, Size::ONE_LEADER);
    let both = [Removed::LookAtDeadline, Removed::TimerEndsWarden];
    breaks(&both, Size::ONE_LEADER, S1);
}

/// What a late renewal does is put the expiry off, which is the safe side: only S7 forbids it.
#[test]
fn a_renewal_of_an_earlier_process_starts_no_second_copy() {
    let rules = Rules::without(&[Removed::FencedRenewal]);
    let size = Size::RESTARTS;
    let found = search(Leases { size, rules }, 1);
    assert!(found.breach(S1).is_none(), "{:#?}", found.broken);
}
