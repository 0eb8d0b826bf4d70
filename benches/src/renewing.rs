//! Renewals of sessions, as an agent makes them: a second for each answer, a quarter of a second until the next
//! try and twice as long until each further one, all directors in turn. What came too late is counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_api::client::{Client, Error};
use quorate_api::problem::Code;
use quorate_api::session::{RenewRequest, SessionOpened};
use serde::{Deserialize, Serialize};

/// A director that has not answered a renewal within this is left for another one, as an agent has it.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A renewal that failed is tried again after this, and after twice as long each further time, as an agent has it.
pub const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What has become of renewals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Renewals that were answered.
    pub renewed: u64,
    /// Tries that came to nothing; each is tried again.
    pub failed: u64,
    /// Renewals that took longer than the time between two, with all their tries.
    pub late: u64,
    /// Renewals whose answer came when an agent would have begun to stop its runs, which is the time of a
    /// graceful stop before the lease is over.
    pub beyond: u64,
    /// Sessions that the directors have ended.
    pub lost: u64,
    /// The longest time from the sending of a renewal to the answer of the next, in milliseconds.
    pub oldest_ms: u64,
    /// What the first try that came to nothing heard.
    pub trouble: Option<String>,
}

impl Counts {
    /// Sessions that missed a lease: they would have stopped their runs.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.beyond + self.lost
    }
}

/// Where many sessions count.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    /// Counts something. What is said of trouble stays what it was first.
    pub fn note(&self, note: impl FnOnce(&mut Counts)) {
        // Counts are whole after each step.
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A try that came to nothing.
    pub fn failed(&self, cause: &Error) {
        self.note(|counts| {
            counts.failed += 1;
            let trouble = &mut counts.trouble;
            trouble.get_or_insert_with(|| format!("{cause:?}"));
        });
    }

    /// What was counted since the last time.
    pub fn take(&self) -> Counts {
        let mut taken = Counts::default();
        self.note(|counts| taken = std::mem::take(counts));
        taken
    }
}

/// Renews a session, as often as its director said, until it is lost. The client asks its directors in turn and
/// waits for each no longer than [`ANSWER_WITHIN`].
pub async fn renew(client: &Client, opened: &SessionOpened, secret: &str, tally: &Tally) {
    let every = Duration::from_millis(opened.renew_every_ms);
    let lease = Duration::from_millis(opened.lease_ms.saturating_sub(opened.grace_ms));
    let began = Instant::now();
    let (mut last_sent, mut due) = (began, began);
    let mut failures = 0;
    for counter in 1.. {
        // R1: the lease counts from here.
        let sent = Instant::now();
        let request = RenewRequest {
            incarnation: opened.incarnation,
            counter,
            nonce: counter,
            sent_ms: millis(began.elapsed()),
            also: Vec::new(),
        };
        match client.renew(opened.session, secret, &request).await {
            Ok(answer) if answer.renewed.contains(&opened.session) => {
                let age = last_sent.elapsed();
                tally.note(|counts| {
                    counts.renewed += 1;
                    counts.late += u64::from(due.elapsed() > every);
                    counts.beyond += u64::from(age > lease);
                    counts.oldest_ms = counts.oldest_ms.max(millis(age));
                });
                last_sent = sent;
                failures = 0;
                tokio::time::sleep(every).await;
                due = Instant::now();
            }
            Ok(_lost) => break,
            Err(cause) if is_over(&cause) => break,
            Err(cause) => {
                tally.failed(&cause);
                let wait = AGAIN_AFTER.saturating_mul(1 << failures.min(16)).min(every);
                failures += 1;
                tokio::time::sleep(wait.mul_f64(jitter(opened.session, counter))).await;
            }
        }
    }
    tally.note(|counts| counts.lost += 1);
}

/// From 0.75 to 1, other for each session and try.
fn jitter(session: u64, counter: u64) -> f64 {
    let mixed = (session ^ counter.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    0.75 + f64::from(u16::try_from(mixed).unwrap_or_default()) / f64::from(u16::MAX) / 4.0
}

/// Whether the session has ended for ever, as an agent understands it.
#[must_use]
pub fn is_over(cause: &Error) -> bool {
    let over = [Code::Fenced, Code::NotFound, Code::Unauthenticated];
    let problem = cause.problem();
    problem.is_some_and(|problem| over.contains(&problem.code))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
