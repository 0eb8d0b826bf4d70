//! Memory and processor of an agent and of the processes that hold its runs.

use std::time::Duration;

use anyhow::Context as _;
use quorate_benches::warden::{Footprint, Warden, children};

/// Most that an agent may hold resident, with its warden; goals of this bench.
const RESIDENT_MAX_KIB: u64 = 12 * 1024;
/// Most for each run more.
const EACH_MAX_KIB: f64 = 4.0;
/// Most of a core while nothing happens.
const IDLE_MAX: f64 = 0.001;
/// Until what follows starts is over.
const CALM: Duration = Duration::from_secs(5);

/// What an agent with its runs holds.
#[derive(Debug)]
pub(crate) struct Cost {
    agent: u32,
    of_agent: Footprint,
    warden: Warden,
}

impl Cost {
    /// Of the agent with this process, which has one warden.
    pub(crate) fn of(agent: u32) -> anyhow::Result<Self> {
        let timekeeper = *children(agent)?.first().context("no warden")?;
        Ok(Self {
            agent,
            of_agent: Footprint::of(agent)?,
            warden: Warden::of(timekeeper)?,
        })
    }

    fn ours(&self) -> [Footprint; 3] {
        [
            self.of_agent,
            self.warden.of_timekeeper,
            self.warden.of_holder,
        ]
    }

    fn resident_kib(&self) -> u64 {
        self.ours().iter().map(|process| process.resident).sum()
    }

    /// What it is with `count` runs, and what each costs beyond the one of `first`.
    pub(crate) fn print(&self, first: &Self, count: usize) {
        for (name, process) in ["agent", "timekeeper", "holder"].iter().zip(self.ours()) {
            println!(
                "{name:<10} {:>6} KiB resident, {:>6} KiB proportional",
                process.resident, process.proportional
            );
        }
        let more = self.resident_kib().saturating_sub(first.resident_kib());
        println!(
            "together {} KiB resident (goal {RESIDENT_MAX_KIB}); {:.2} KiB more for each of {count} runs (goal {EACH_MAX_KIB}); \
             the init of a run {:.1} KiB proportional",
            self.resident_kib(),
            more as f64 / count as f64,
            self.warden.of_inits.proportional as f64 / self.warden.inits.max(1) as f64
        );
    }

    /// Watches it while nothing happens.
    pub(crate) async fn print_idle(&self, time: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(CALM).await;
        let before = self.processor_time()?;
        tokio::time::sleep(time).await;
        let used = self.processor_time()?.saturating_sub(before);
        println!(
            "idle for {} s: {:.3} % of a core (goal {:.1})",
            time.as_secs(),
            100.0 * used.as_secs_f64() / time.as_secs_f64(),
            100.0 * IDLE_MAX
        );
        Ok(())
    }

    fn processor_time(&self) -> anyhow::Result<Duration> {
        let mut all = Duration::ZERO;
        for pid in [self.agent, self.warden.timekeeper, self.warden.holder] {
            all += threads_time(pid)?;
        }
        Ok(all)
    }
}

/// What all threads of a process have used. `/proc/PID/stat` counts hundredths of a second: too coarse for this.
fn threads_time(pid: u32) -> anyhow::Result<Duration> {
    let mut all = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next();
        all += first.context("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(all))
}
