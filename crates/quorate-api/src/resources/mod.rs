//! What the directors show: services, partitions, agents, directors, events, plans.
//!
//! Times are RFC 3339 in UTC and come from the leader's clock: for people, never for leases. A list is
//! answered in pages; each answer tells the ledger position that it shows, the same on every director.

mod change;
mod cluster;
mod service;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use change::{
    AppliedKind, AppliedService, ApplyAnswer, ApplyRequest, Done, Event, HistoryEntry, HistoryView,
    Plan, PlannedMove, PlannedStart, PlannedStop, PlannedWait, RefusedList, ServiceChange,
    ServiceChangeKind,
};
pub use cluster::{
    AddMember, AgentState, AgentView, ClusterView, DirectorAnnouncement, DirectorRole,
    DirectorView, EvictRequest, FormatRange, MemberView, Progress, TransferLeader,
};
pub use service::{
    Counts, ExcludedAgent, ExitView, PartitionState, PartitionView, ServiceState, ServiceView,
    SourceView, Why,
};

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// Ledger position that this shows. Pass it as `index` to wait for a change.
    pub index: u64,
    /// The items, in the order of their names.
    pub items: Vec<T>,
    /// Pass this as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
