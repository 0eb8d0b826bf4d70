//! The whole quorum is lost and restored from a backup, while the agents go on with what they run. What has
//! been decided since the backup was made is lost, and with it what directors have answered.

use std::time::Duration;

use quorate_core::cluster::{Cluster, NewEra};
use quorate_core::ids::{Era, Position};
use quorate_core::time::WallTime;

use crate::bug::Bug;
use crate::clock::{MILLI, SECOND};
use crate::ledger::Ledger;
use crate::oracle::Known;
use crate::random::Random;
use crate::world::{Happening, World};

/// Backups that are kept: the oldest of them is rather old.
const KEPT: usize = 4;
/// Most disasters of one seed: more of them only keep everything from running.
const MOST: u32 = 2;

/// Backups, and how often one was needed.
#[derive(Debug, Default)]
pub(crate) struct Disasters {
    backups: Vec<Backup>,
    happened: u32,
}

/// What was saved, and what the oracle knew at that moment: that is what counts again later.
#[derive(Clone, Debug)]
struct Backup {
    bytes: Vec<u8>,
    position: Position,
    known: Known,
}

impl World {
    /// Somebody makes a backup from a director that has folded everything.
    pub(crate) fn back_up(&mut self, random: &mut Random) {
        let last = self.ledger.last();
        let mut machines = self
            .directors
            .iter()
            .filter_map(|node| node.machine.as_ref());
        let current = machines.find(|machine| machine.cluster().position() == last);
        let Some(bytes) = current.map(|machine| machine.cluster().encode()) else {
            return;
        };
        let backups = &mut self.disasters.backups;
        if backups.len() == KEPT {
            let at = usize::try_from(random.below(KEPT as u64)).unwrap_or(0);
            backups.remove(at);
        }
        backups.push(Backup {
            bytes,
            position: last,
            known: self.oracle.known(),
        });
    }

    /// All directors die at once, and somebody restores a cluster from any of the backups. The old ones never
    /// come back.
    pub(crate) fn restore(&mut self, random: &mut Random) {
        let count = self.disasters.backups.len() as u64;
        let at = usize::try_from(random.below(count)).unwrap_or(0);
        let Some(backup) = self.disasters.backups.get(at).cloned() else {
            return;
        };
        if self.disasters.happened == MOST {
            return;
        }
        let Ok(cluster) = Cluster::decode(&backup.bytes) else {
            return self
                .oracle
                .blame("S8", "a backup cannot be read".to_owned());
        };
        self.disasters.happened += 1;
        // Whoever restores the same backup twice must know that, and ask for the era after.
        let era = Era(u16::try_from(self.disasters.happened).unwrap_or(0));
        let new = NewEra {
            era,
            longest_lease: Duration::ZERO,
            history: random.any(),
            wall: WallTime(0),
        };
        let plants = self.bug.map(Bug::plants).unwrap_or_default();
        let cluster = match plants.in_new_era(cluster, new) {
            Ok(restored) => restored.cluster,
            Err(error) => return self.oracle.blame("S3", error.to_string()),
        };
        for n in 0..self.directors.len() {
            let rest = random.between(50 * MILLI, 3 * SECOND);
            self.crash_director(n, rest);
            if let Some(node) = self.node(n) {
                node.reaches_from = node.generation;
            }
        }
        let state = (cluster.position(), cluster.epoch());
        self.ledger = Ledger::behind(state, cluster.encode());
        self.oracle.restored(backup.known, state);
        let now = self.now;
        let position = backup.position;
        self.remark(|| {
            format!(
                "{now} restored as of {position}, goes on behind {}",
                state.0
            )
        });
        self.after(SECOND, Happening::ChooseLeader(false));
    }
}
