//! How to open the embedded ledger.

use std::path::PathBuf;
use std::time::Duration;

use quorate_core::ids::DirectorName;

use crate::peer::Peers;

/// Bytes of a segment of the log: large enough that a new one is rare, small enough that the folder of a
/// trial on one machine stays small.
pub(crate) const SEGMENT_BYTES: u32 = 16 * 1024 * 1024;
/// Bytes of entries kept in memory, so that directors that follow closely are served without the disk.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// How to open the embedded ledger.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that holds everything; made if need be, locked while the ledger is open.
    pub dir: PathBuf,
    /// The name of this director, which the folder belongs to.
    pub name: DirectorName,
    /// Where the other directors reach this one; empty while it is alone.
    pub address: String,
    /// What a new folder becomes.
    pub start: Start,
    /// How the other directors are reached; `None` while it is alone.
    pub peers: Option<Peers>,
    /// How soon a lost leader is noticed and replaced.
    pub timing: Timing,
    /// Bytes of a segment file of the log, at least 64 KiB.
    pub segment_bytes: u32,
    /// Bytes of entries kept in memory.
    pub cache_bytes: usize,
}

impl Options {
    /// The usual options of a director that is alone.
    #[must_use]
    pub const fn new(dir: PathBuf, name: DirectorName) -> Self {
        Self {
            dir,
            name,
            address: String::new(),
            start: Start::Found,
            peers: None,
            timing: Timing::LAN,
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: CACHE_BYTES,
        }
    }
}

/// What a new folder becomes. A folder that is not new stays what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A new cluster, of this director alone.
    Found,
    /// A director that waits until it is added to a cluster. It never founds one.
    Await {
        /// The cluster.
        cluster: u64,
    },
}

/// How soon a lost leader is noticed and replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A leader is heard this often. It must exceed the slowest round trip between two directors, since
    /// the answer to a heartbeat is not waited for longer.
    pub heartbeat: Duration,
    /// After a leader was last heard it is not deserted for `election_max`; then each waits a time drawn
    /// anew for each election, from this …
    pub election_min: Duration,
    /// … to this.
    pub election_max: Duration,
    /// From 0 to [`Timing::FIRST`]: who has less stands back for longer, so that a director that is to be
    /// preferred is elected when it can be.
    pub priority: u8,
}

impl Timing {
    /// The highest priority, which stands back for nobody.
    pub const FIRST: u8 = 10;

    /// For directors within some milliseconds of each other.
    ///
    /// Four heartbeats may be lost before anybody thinks of an election. From the death of a leader until
    /// another one serves it takes `election_max` of loyalty, at most as much of waiting, and two rounds
    /// and writes: 0.4 + 0.2…0.4 + about 0.1 s. So it stays below the 1.1 s that the shortest leases (3 s)
    /// allow for. Much less would make an election of every pause of a busy disk or host.
    pub const LAN: Self = Self {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(200),
        election_max: Duration::from_millis(400),
        priority: Self::FIRST,
    };

    /// How long a leader that is not heard any more is not deserted.
    pub(crate) const fn loyalty(&self) -> Duration {
        self.election_max
    }

    /// How much longer than the first this one waits: at the lowest priority longer than the first two
    /// elections of the others take.
    pub(crate) fn stand_back(&self) -> Duration {
        let less = Self::FIRST.saturating_sub(self.priority);
        self.election_max * 2 * u32::from(less) / u32::from(Self::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_less_priority_stands_back_for_longer() {
        let mut before = None;
        for priority in 0..=Timing::FIRST {
            let timing = Timing {
                priority,
                ..Timing::LAN
            };
            assert!(before.is_none_or(|before| timing.stand_back() < before));
            before = Some(timing.stand_back());
        }
        assert_eq!(before, Some(Duration::ZERO));
    }

    #[test]
    fn another_leader_serves_within_the_time_that_the_shortest_leases_allow() {
        let Timing {
            election_max,
            election_min,
            heartbeat,
            ..
        } = Timing::LAN;
        assert!(election_max * 2 + heartbeat * 2 < Duration::from_millis(1100));
        assert!(heartbeat * 4 <= election_min, "four may be lost");
    }
}
