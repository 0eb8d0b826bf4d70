//! Many seeds at once: every thread takes the next seed, until there is none or time is over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::oracle::Violation;
use crate::settings::Settings;
use crate::world::{Outcome, run};

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Many {
    /// What every run has in common; its seed is the first one.
    pub settings: Settings,
    /// How many seeds at most.
    pub count: u64,
    /// No further seed is begun after this.
    pub within: Option<Duration>,
    /// Threads.
    pub jobs: usize,
    /// No further seed is begun after so many failures.
    pub failures_max: usize,
}

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Runs.
    pub runs: u64,
    /// Faults that were made.
    pub faults: u64,
    /// Time that passed in the runs.
    pub simulated: Duration,
    /// Time of processors: what the runs cost.
    pub spent: Duration,
    /// Those that failed, in the order of their seeds.
    pub failures: Vec<Outcome>,
}

/// Runs them.
#[must_use]
pub fn run_many(many: &Many) -> Sum {
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 1..many.jobs {
            scope.spawn(|| work(many, begin, &next, &sum));
        }
        // A process that never has a second thread pays nothing for one.
        work(many, begin, &next, &sum);
    });
    let mut sum = sum
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    sum.failures.sort_by_key(|outcome| outcome.seed);
    sum
}

fn work(many: &Many, begin: Instant, next: &AtomicU64, sum: &Mutex<Sum>) {
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        if nth >= many.count || many.within.is_some_and(|within| begin.elapsed() >= within) {
            return;
        }
        let settings = Settings {
            seed: many.settings.seed.wrapping_add(nth),
            ..many.settings.clone()
        };
        let watch = Stopwatch::start();
        let outcome = run_safely(&settings);
        let mut sum = sum
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        sum.runs += 1;
        sum.faults += outcome.faults;
        sum.simulated += Duration::from_nanos(outcome.nanos);
        sum.spent += watch.busy();
        if outcome.violation.is_some() {
            sum.failures.push(outcome);
        }
        if sum.failures.len() >= many.failures_max {
            return;
        }
    }
}

/// Runs a seed; a machine that panics has broken an invariant of its own, which is a failure like others.
#[must_use]
pub fn run_safely(settings: &Settings) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(settings))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        Outcome {
            seed: settings.seed,
            trace_hash: 0,
            happenings: 0,
            nanos: 0,
            entries: 0,
            starts: 0,
            faults: 0,
            drawn: DRAWN_MAX,
            violation: Some(Violation {
                promise: "an invariant of a machine",
                seen: text.unwrap_or("it panicked").to_owned(),
            }),
            trace: Vec::new(),
        }
    })
}

/// Measures how long the thread is busy, whatever else the machine does.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    began: Instant,
    busy: Option<Duration>,
}

impl Stopwatch {
    /// Counts from now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            began: Instant::now(),
            busy: thread_busy(),
        }
    }

    /// Time of the processor since then; where the kernel does not tell, time that passed.
    #[must_use]
    pub fn busy(&self) -> Duration {
        let busy = thread_busy().zip(self.busy);
        let busy = busy.map(|(now, then)| now.saturating_sub(then));
        busy.unwrap_or_else(|| self.began.elapsed())
    }
}

fn thread_busy() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = told.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// Of a run that panicked it is not known how many faults and operations were drawn.
const DRAWN_MAX: u64 = 500;
