//! Callers with one request outstanding each, and what they measured.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is measured: takes claims and answers when they are durable.
pub trait Target: Clone + Send + Sync + 'static {
    /// Claims `each` keys, which nobody claimed before, beginning with `first`.
    fn claim(&self, first: u64, each: usize) -> impl Future<Output = ()> + Send;
}

/// One sample, or the median of some.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Claims a second.
    pub per_second: f64,
    p50: Duration,
    p99: Duration,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let (p50, p99) = (milliseconds(self.p50), milliseconds(self.p99));
        write!(f, "{:.0} ({p50:.2}, {p99:.2})", self.per_second)
    }
}

/// No key is ever claimed twice, whoever is measured.
static KEYS: AtomicU64 = AtomicU64::new(1);

/// Lets `outstanding` callers claim for `time`.
pub async fn run<T: Target>(
    target: &T,
    outstanding: usize,
    each: usize,
    time: Duration,
) -> Measured {
    let began = Instant::now();
    let callers: Vec<_> = (0..outstanding)
        .map(|_| {
            let target = target.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while began.elapsed() < time {
                    let first = KEYS.fetch_add(each as u64, Ordering::Relaxed);
                    let asked = Instant::now();
                    target.claim(first, each).await;
                    times.push(asked.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for caller in callers {
        match caller.await {
            Ok(some) => times.extend(some),
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
    let took = began.elapsed();
    Measured::of(times, each, took)
}

impl Measured {
    /// What calls that took so long, with `each` claims in one, were together.
    #[must_use]
    pub fn of(mut times: Vec<Duration>, each: usize, took: Duration) -> Self {
        times.sort_unstable();
        let quantile = |of_a_hundred: usize| {
            let at = times.len() * of_a_hundred / 100;
            times
                .get(at.min(times.len().saturating_sub(1)))
                .copied()
                .unwrap_or_default()
        };
        Self {
            per_second: (times.len() * each) as f64 / took.as_secs_f64(),
            p50: quantile(50),
            p99: quantile(99),
        }
    }
}

/// The sample with the median rate.
pub fn median(samples: &[Measured]) -> Measured {
    let mut samples = samples.to_vec();
    samples.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}
