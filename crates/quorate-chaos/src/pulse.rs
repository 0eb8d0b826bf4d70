//! How late this machine is: a thread that sleeps a moment and sees how much longer it took. What must happen
//! in time can be judged only while this machine itself is in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::clock::{boot_nanos, nanos};

/// How long it sleeps.
const BEAT: Duration = Duration::from_millis(10);

/// How many tasks wanted a processor in the last minute, in hundredths; zero where nobody counts them.
pub(crate) fn load_hundredths() -> u64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = text.split(' ').next().unwrap_or_default();
    minute.replace('.', "").parse().unwrap_or_default()
}

/// The pulse of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// Begins to feel it, until the process ends.
    pub(crate) fn start() -> Result<Self> {
        let latest = Arc::new(AtomicU64::new(0));
        let felt = Arc::clone(&latest);
        let thread = std::thread::Builder::new().name("pulse".to_owned());
        thread.spawn(move || {
            loop {
                let due = boot_nanos() + nanos(BEAT);
                std::thread::sleep(BEAT);
                felt.fetch_max(boot_nanos().saturating_sub(due), Ordering::Relaxed);
            }
        })?;
        Ok(Self(latest))
    }

    /// By how much it was late at most since this was asked last.
    pub(crate) fn latest(&self) -> Duration {
        Duration::from_nanos(self.0.swap(0, Ordering::Relaxed))
    }

    /// The same, to be asked again.
    pub(crate) fn look(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
