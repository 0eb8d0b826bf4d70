//! A partition as a snapshot holds it: what is apart in memory is in its place here, whatever becomes of
//! the other.

use serde::{Deserialize, Serialize, Serializer};

use crate::ids::{PartitionKey, Position, ServiceId};
use crate::record::{Desired, RunReport};
use crate::time::WallTime;

use super::partition::{Extra, Partition, State};
use super::run::{Fled, Run};

/// As it is written.
#[derive(Serialize)]
struct Written<'a> {
    key: &'a PartitionKey,
    service: ServiceId,
    weight: u32,
    state: &'a State,
    since: WallTime,
    changed: Position,
    data_version: Position,
    run: Option<Run<'a>>,
    restarts_asked: u32,
    failures: u32,
    desired: Desired,
    doomed: bool,
    extra: Option<&'a Extra>,
    revision: Position,
    fled: Option<&'a Fled>,
}

/// As it is read: the same fields in the same order.
#[derive(Deserialize)]
pub(super) struct Kept {
    key: PartitionKey,
    service: ServiceId,
    weight: u32,
    state: State,
    since: WallTime,
    changed: Position,
    data_version: Position,
    run: Option<RunReport>,
    restarts_asked: u32,
    failures: u32,
    desired: Desired,
    doomed: bool,
    extra: Option<Box<Extra>>,
    revision: Position,
    /// Absent in snapshots from before it was kept.
    #[serde(default)]
    fled: Option<Fled>,
}

impl Serialize for Partition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            key: &self.key,
            service: self.service,
            weight: self.weight,
            state: &self.state,
            since: self.since,
            changed: self.changed,
            data_version: self.data_version,
            run: self.run(),
            restarts_asked: self.restarts_asked(),
            failures: self.failures(),
            desired: self.desired,
            doomed: self.doomed,
            extra: self.extra.as_deref(),
            revision: self.revision,
            fled: self.fled(),
        };
        written.serialize(serializer)
    }
}

impl From<Kept> for Partition {
    fn from(kept: Kept) -> Self {
        let mut partition = Self {
            key: kept.key,
            service: kept.service,
            weight: kept.weight,
            state: kept.state,
            since: kept.since,
            changed: kept.changed,
            data_version: kept.data_version,
            run: None,
            desired: kept.desired,
            doomed: kept.doomed,
            troubles: None,
            extra: kept.extra,
            revision: kept.revision,
        };
        partition.set_kept(kept.run, kept.restarts_asked, kept.failures, kept.fled);
        partition
    }
}
