//! How late this machine is: a thread that sleeps for a moment, and now and then works for a moment, and sees how
//! much longer that took; and one that writes a little to the disk that the directors write to, of whose writes an
//! election waits for several. What must happen in time can be judged only while this machine itself is in time.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use crate::clock::{boot_nanos, nanos};

/// How long it sleeps.
const BEAT: Duration = Duration::from_millis(10);
/// How often, before it works.
const SLEEPS: usize = 20;
/// How long it works: more than a scheduler gives to one at a time, so that it must wait for its turn as whoever
/// has something to do.
const WORK: Duration = Duration::from_millis(6);

/// Between two writes to the disk.
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// What a write may take.
const WRITE: Duration = Duration::from_millis(10);

/// How many tasks wanted a processor in the last minute, in hundredths; zero where nobody counts them.
pub(crate) fn load_hundredths() -> u64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = text.split(' ').next().unwrap_or_default();
    minute.replace('.', "").parse().unwrap_or_default()
}

/// The pulse of this machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Latest>);

/// By how much it was late at most, in nanoseconds: for two who each ask since they asked last.
#[derive(Debug, Default)]
struct Latest {
    of_round: AtomicU64,
    of_try: AtomicU64,
}

impl Pulse {
    /// Begins to feel it, also of the disk of this folder, until the process ends.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let pulse = Self::default();
        let mut file = File::create(folder.join("pulse"))?;
        let written = pulse.clone();
        let thread = std::thread::Builder::new().name("pulse of the disk".to_owned());
        thread.spawn(move || {
            loop {
                std::thread::sleep(WRITE_EVERY);
                written.late(WRITE, || {
                    if let Err(cause) = write(&mut file) {
                        eprintln!("pulse of the disk: {cause}");
                    }
                });
            }
        })?;
        let felt = pulse.clone();
        let thread = std::thread::Builder::new().name("pulse".to_owned());
        thread.spawn(move || {
            loop {
                for _ in 0..SLEEPS {
                    felt.late(BEAT, || std::thread::sleep(BEAT));
                }
                felt.late(WORK, work);
            }
        })?;
        Ok(pulse)
    }

    /// Does something that takes so long when nobody else wants anything.
    fn late(&self, takes: Duration, what: impl FnOnce()) {
        let due = boot_nanos() + nanos(takes);
        what();
        let late = boot_nanos().saturating_sub(due);
        for latest in [&self.0.of_round, &self.0.of_try] {
            latest.fetch_max(late, Ordering::Relaxed);
        }
    }

    /// By how much it was late at most since this was asked last.
    pub(crate) fn latest(&self) -> Duration {
        Duration::from_nanos(self.0.of_round.swap(0, Ordering::Relaxed))
    }

    /// The same, to be asked again.
    pub(crate) fn look(&self) -> Duration {
        Duration::from_nanos(self.0.of_round.load(Ordering::Relaxed))
    }

    /// By how much it was late at most since this was asked last, whatever the others have asked.
    pub(crate) fn latest_of_try(&self) -> Duration {
        Duration::from_nanos(self.0.of_try.swap(0, Ordering::Relaxed))
    }
}

/// Waits until something is on disk.
fn write(file: &mut File) -> io::Result<()> {
    file.write_all(b"beat\n")?;
    file.sync_data()
}

/// Uses a processor for a moment.
fn work() {
    let used = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(
            u64::try_from(now.tv_sec).unwrap_or_default(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        )
    };
    let begun = used();
    while used().saturating_sub(begun) < WORK {
        std::hint::spin_loop();
    }
}
