//! Memory and processor of an agent and of the processes that hold its runs.

use std::time::Duration;

use anyhow::Context as _;

/// Most that an agent may hold resident, with its warden; goals of this bench.
const RESIDENT_MAX_KIB: u64 = 12 * 1024;
/// Most for each run more.
const EACH_MAX_KIB: f64 = 4.0;
/// Most of a core while nothing happens.
const IDLE_MAX: f64 = 0.001;
/// Until what follows starts is over.
const CALM: Duration = Duration::from_secs(5);

/// One process.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: u32,
    resident_kib: u64,
    /// The same with what it shares divided by how many share it.
    proportional_kib: u64,
}

/// What an agent with its runs holds.
#[derive(Debug)]
pub(crate) struct Cost {
    agent: Process,
    timekeeper: Process,
    holder: Process,
    inits_kib: u64,
    inits: usize,
}

impl Cost {
    /// Of the agent with this process, which has one warden.
    pub(crate) fn of(agent: u32) -> anyhow::Result<Self> {
        let timekeeper = *children(agent)?.first().context("no warden")?;
        let holder = *children(timekeeper)?.first().context("no holder of runs")?;
        let inits = children(holder)?;
        let mut inits_kib = 0;
        for &init in &inits {
            inits_kib += Process::of(init)?.proportional_kib;
        }
        Ok(Self {
            agent: Process::of(agent)?,
            timekeeper: Process::of(timekeeper)?,
            holder: Process::of(holder)?,
            inits_kib,
            inits: inits.len(),
        })
    }

    fn ours(&self) -> [Process; 3] {
        [self.agent, self.timekeeper, self.holder]
    }

    fn resident_kib(&self) -> u64 {
        self.ours().iter().map(|process| process.resident_kib).sum()
    }

    /// What it is with `count` runs, and what each costs beyond the one of `first`.
    pub(crate) fn print(&self, first: &Self, count: usize) {
        for (name, process) in ["agent", "timekeeper", "holder"].iter().zip(self.ours()) {
            println!(
                "{name:<10} {:>6} KiB resident, {:>6} KiB proportional",
                process.resident_kib, process.proportional_kib
            );
        }
        let more = self.resident_kib().saturating_sub(first.resident_kib());
        println!(
            "together {} KiB resident (goal {RESIDENT_MAX_KIB}); {:.2} KiB more for each of {count} runs (goal {EACH_MAX_KIB}); \
             the init of a run {:.1} KiB proportional",
            self.resident_kib(),
            more as f64 / count as f64,
            self.inits_kib as f64 / self.inits.max(1) as f64
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
        for process in self.ours() {
            all += process.processor_time()?;
        }
        Ok(all)
    }
}

impl Process {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            let number = number.with_context(|| format!("no {name} of {pid}"))?;
            anyhow::Ok(number.trim().parse()?)
        };
        Ok(Self {
            pid,
            resident_kib: field("Rss:")?,
            proportional_kib: field("Pss:")?,
        })
    }

    /// What all of its threads have used. `/proc/PID/stat` counts hundredths of a second: too coarse for this.
    fn processor_time(&self) -> anyhow::Result<Duration> {
        let mut all = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let first = text.split_whitespace().next();
            all += first.context("schedstat is empty")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(all))
    }
}

/// Children of a process, of whichever of its threads.
fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("children"))?;
        for word in text.split_whitespace() {
            all.push(word.parse()?);
        }
    }
    Ok(all)
}
