//! Carries out what is done to the store that the directors share, and heals it. Which server leads is asked first.

use anyhow::{Context as _, Result};

use crate::clock::boot_nanos;
use crate::cluster::Cluster;
use crate::faults::OnStore;
use crate::judge::Promise;
use crate::scene::{Active, Scene};
use crate::store::Store;

impl Scene {
    /// Does something to the store.
    pub(crate) fn disturb_store(&mut self, what: OnStore, active: &mut Active) -> Result<()> {
        let slow = active.card.lasts % 100 + 20;
        let store = store(&mut self.cluster)?;
        match what {
            OnStore::KillOne => {
                let server = store.leader()?;
                active.server = Some(server);
                active.at = boot_nanos();
                store.kill(server)?;
                if store.count() > 1 {
                    store.goes_on_without(server)?;
                    active.back = Some(boot_nanos());
                    self.accepts_again(active);
                }
            }
            OnStore::StopOne => {
                let server = store.leader()?;
                active.server = Some(server);
                active.at = boot_nanos();
                store.pause(server, true)?;
            }
            OnStore::StopAll => {
                active.at = boot_nanos();
                store.pause_all(true)?;
            }
            OnStore::Slow => {
                active.at = boot_nanos();
                self.slow_store(slow);
            }
        }
        Ok(())
    }

    /// Ends it.
    pub(crate) fn heal_store(&mut self, what: OnStore, server: Option<usize>) -> Result<()> {
        let store = store(&mut self.cluster)?;
        match (what, server) {
            (OnStore::KillOne, Some(server)) => store.start_again(server)?,
            (OnStore::StopOne, Some(server)) => store.pause(server, false)?,
            // One that was never chosen has had nothing done to it.
            (OnStore::KillOne | OnStore::StopOne, None) => {}
            (OnStore::StopAll, _) => store.pause_all(false)?,
            (OnStore::Slow, _) => self.slow_store(0),
        }
        Ok(())
    }

    /// L1: now that the store is there again, a write is accepted.
    pub(crate) fn accepts_again(&mut self, active: &mut Active) {
        let limit = self.cluster.place.times.calm();
        match self.cluster.write_within(limit, None) {
            Ok(()) => active.written = Some(boot_nanos()),
            Err(cause) => self.desk.judge(|judge| {
                let text = format!("{}: {cause}", active.card.fault.text);
                judge.broken(Promise::L1, boot_nanos(), text);
            }),
        }
    }

    fn slow_store(&self, millis: u64) {
        for director in &self.cluster.quorum.directors {
            director.slow_store(millis);
        }
    }
}

fn store(cluster: &mut Cluster) -> Result<&mut Store> {
    cluster.store.as_mut().context("there is no store")
}
