//! One service in the fold.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{PartitionId, PartitionKey, Position, ServiceName};
use crate::record::Desired;
use crate::spec::ServiceSpec;

/// A service and the index of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub(super) name: ServiceName,
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) spec_version: Position,
    pub(super) desired: Desired,
    pub(super) removed: bool,
    pub(super) problem: Option<String>,
    pub(super) partitions: BTreeMap<PartitionKey, PartitionId>,
    pub(super) doomed: usize,
    pub(super) revision: Position,
    pub(super) list_revision: Position,
}

impl Service {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// How to run it.
    #[must_use]
    pub fn spec(&self) -> &Arc<ServiceSpec> {
        &self.spec
    }

    /// Where its specification was last put.
    #[must_use]
    pub fn spec_version(&self) -> Position {
        self.spec_version
    }

    /// Whether it is to run.
    #[must_use]
    pub fn desired(&self) -> Desired {
        self.desired
    }

    /// Whether it is removed and exists only until its last run has ended.
    #[must_use]
    pub fn removed(&self) -> bool {
        self.removed
    }

    /// Why the last reading of its source was refused.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Its partitions by key, those that only stop included.
    #[must_use]
    pub fn partitions(&self) -> &BTreeMap<PartitionKey, PartitionId> {
        &self.partitions
    }

    /// How many partitions its source has: those that only stop are not counted.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.partitions.len() - self.doomed
    }
}
