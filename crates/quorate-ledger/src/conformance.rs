//! The rules that every ledger keeps, as tests that any implementation runs: one function a rule.
//!
//! A ledger's tests say once how it is started (a [`Stand`], and a [`DurableStand`] when it outlives its
//! process) and name the rules with [`ledger_conformance!`](crate::ledger_conformance). The rules hold
//! over a bad network too, so nothing here takes a refusal or a lost answer for the end: it asks again,
//! as a director does. It must never look at how a ledger works inside.

mod anew;
mod client;
mod durable;
mod owner;
mod rules;
mod stress;

use std::future::Future;
use std::sync::Arc;

use quorate_core::ids::{ClusterId, Epoch, Position};

use crate::faulty::{Faults, FaultyLedger};
use crate::shared::{BeginError, Owner, SharedLedger};
use crate::{Ledger, ReadError};

pub use anew::*;
pub use durable::*;
pub use owner::*;
pub use rules::*;
pub use stress::*;

/// How a test gets a ledger.
pub trait Stand: Send + Sync {
    /// What is tested.
    type Ledger: Ledger;

    /// That many clients of one fresh, empty store; the same client several times where a store has
    /// only one.
    fn fresh(&self, clients: usize) -> impl Future<Output = Vec<Arc<Self::Ledger>>> + Send;
}

/// A stand whose stores outlive the process.
pub trait DurableStand: Stand {
    /// Closes the client, ends whatever serves the store on this machine for it, and opens it again.
    fn reopen(&self, ledger: Arc<Self::Ledger>) -> impl Future<Output = Arc<Self::Ledger>> + Send;
}

/// A ledger in a store of others, perhaps behind a bad network: what [`SharedLedger`] does beside what every ledger does.
pub trait InStore: Ledger {
    /// See [`SharedLedger::owner`].
    fn owner(&self) -> impl Future<Output = Result<Option<Owner>, ReadError>> + Send;

    /// See [`SharedLedger::claim`].
    fn claim(&self, cluster: ClusterId) -> impl Future<Output = Result<Owner, ReadError>> + Send;

    /// See [`SharedLedger::mark_moved`].
    fn mark_moved(
        &self,
        cluster: ClusterId,
        to: &str,
    ) -> impl Future<Output = Result<(), ReadError>> + Send;

    /// See [`SharedLedger::begin`].
    fn begin(
        &self,
        next: Position,
        epoch: Epoch,
        snapshot: Vec<u8>,
        instead_of: Option<Position>,
    ) -> impl Future<Output = Result<(), BeginError>> + Send;
}

impl InStore for SharedLedger {
    async fn owner(&self) -> Result<Option<Owner>, ReadError> {
        Self::owner(self).await
    }

    async fn claim(&self, cluster: ClusterId) -> Result<Owner, ReadError> {
        Self::claim(self, cluster).await
    }

    async fn mark_moved(&self, cluster: ClusterId, to: &str) -> Result<(), ReadError> {
        Self::mark_moved(self, cluster, to).await
    }

    async fn begin(
        &self,
        next: Position,
        epoch: Epoch,
        snapshot: Vec<u8>,
        instead_of: Option<Position>,
    ) -> Result<(), BeginError> {
        Self::begin(self, next, epoch, snapshot, instead_of).await
    }
}

/// The ledgers of a stand, each client behind a bad network of its own.
#[derive(Debug)]
pub struct BadNetwork<S>(pub S);

impl<S: Stand> Stand for BadNetwork<S> {
    type Ledger = FaultyLedger<S::Ledger>;

    async fn fresh(&self, clients: usize) -> Vec<Arc<Self::Ledger>> {
        let within = self.0.fresh(clients).await;
        (7..)
            .zip(within)
            .map(|(seed, ledger)| Arc::new(FaultyLedger::new(ledger, Faults::rough(), seed)))
            .collect()
    }
}

/// Makes a test of every rule: `ledger_conformance!(stand)` for all ledgers,
/// `ledger_conformance!(in_store stand)` for those in stores of others, which have further rules, and
/// `ledger_conformance!(durable stand)` for the further rules of those that outlive their process.
/// `stand` is an expression that makes the [`Stand`](crate::conformance::Stand).
#[macro_export]
macro_rules! ledger_conformance {
    (@each $stand:expr; $($rule:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                $crate::conformance::$rule(&$stand).await;
            }
        )*
    };
    (durable $stand:expr) => {
        $crate::ledger_conformance!(@each $stand;
            what_was_appended_is_there_after_reopening
            a_snapshot_and_what_follows_it_are_there_after_reopening
            a_trimmed_position_stays_taken_after_reopening
        );
    };
    (in_store $stand:expr) => {
        $crate::ledger_conformance!($stand);
        $crate::ledger_conformance!(@each $stand;
            of_two_clusters_that_claim_a_ledger_one_has_it
            a_ledger_whose_cluster_has_moved_takes_nothing_any_more
            a_ledger_that_is_empty_takes_nothing_after_its_cluster_has_moved
            only_its_cluster_says_where_a_ledger_has_moved
            a_log_begins_in_an_empty_store_and_lives_on
            a_log_is_given_up_only_for_one_above_it_by_who_has_seen_its_end
            of_two_that_begin_at_once_one_does
            the_same_begin_again_is_done_already
            a_begin_that_is_cut_short_leaves_one_log
            an_append_of_the_old_log_never_lands
            a_log_that_grows_is_not_given_up_unseen
        );
    };
    ($stand:expr) => {
        $crate::ledger_conformance!(@each $stand;
            an_empty_ledger_begins_at_position_one
            an_entry_is_appended_only_at_the_first_free_position
            an_entry_never_follows_a_free_position
            a_taken_position_keeps_its_entry
            an_entry_of_the_largest_size_is_kept_and_a_larger_one_is_refused
            many_writers_of_one_position_have_one_winner
            a_tail_shows_every_append_that_was_answered_before_it_began
            a_tail_tells_the_epoch_of_the_last_entry
            reads_are_contiguous_and_keep_their_limit
            a_read_beyond_the_tail_is_empty
            a_read_stays_within_about_a_mebibyte
            the_newest_snapshot_is_kept_and_never_goes_back
            a_snapshot_of_entries_that_are_not_there_is_not_kept
            trimming_stays_one_snapshot_behind
            a_read_of_a_trimmed_position_says_what_is_left
            the_last_entry_is_never_trimmed
            a_late_append_does_not_land_at_a_trimmed_position
            a_hint_tells_that_something_was_appended
            concurrent_writers_and_readers_see_one_history
        );
    };
}
