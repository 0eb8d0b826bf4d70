//! The renewal of leases: a thread, a runtime and connections of its own (R18), so that nothing that
//! a user makes, be it logs, calls or a thousand starts, can queue ahead of it.
//!
//! It decides nothing: it tells what was answered and when the question was *sent* (R1).

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_api::client::{Client, Error, Options};
use quorate_api::session::{RenewRequest, SessionProof};
use quorate_core::agent::{Event, Opened, WardenId};
use quorate_core::time::Moment;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::Input;
use super::calls::is_over;
use super::clock;
use super::config::RunError;

/// A renewal that failed is tried again after this, and after twice as long each further time, but never later than
/// the next one would be due: thousands of agents that lost their director must not take from each other the time
/// in which one of them could be answered.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
/// A director that has not answered a renewal within this is left for another one.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A session that is to be renewed.
#[derive(Clone, Debug)]
pub(crate) struct Renewed {
    pub(crate) opened: Opened,
    pub(crate) secret: String,
}

pub(crate) type Sessions = BTreeMap<WardenId, Renewed>;

/// Starts the thread, and tells by which client it asks. It ends when the sender of `sessions` is dropped.
pub(crate) fn start(
    addresses: Vec<String>,
    options: Options,
    sessions: watch::Receiver<Sessions>,
    inputs: mpsc::Sender<Input>,
) -> Result<(std::thread::JoinHandle<()>, Client), RunError> {
    const NAME: &str = "renewal";
    let options = Options {
        call_time: ANSWER_WITHIN,
        leader_time: Duration::ZERO,
        ..options
    };
    let client = Client::with(addresses, options)?;
    let fail = |cause| RunError::Thread { name: NAME, cause };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(fail)?;
    let asked_by = client.clone();
    let thread = std::thread::Builder::new()
        .name(NAME.to_owned())
        .spawn(move || runtime.block_on(renew_all(client, sessions, inputs)))
        .map_err(fail)?;
    Ok((thread, asked_by))
}

async fn renew_all(
    client: Client,
    mut sessions: watch::Receiver<Sessions>,
    inputs: mpsc::Sender<Input>,
) {
    let mut counter = 0;
    let mut failures = 0;
    loop {
        let now: Sessions = sessions.borrow_and_update().clone();
        let shortest = now
            .values()
            .map(|session| session.opened.times.renew_every)
            .min();
        let Some(every) = shortest else {
            if sessions.changed().await.is_err() {
                return;
            }
            continue;
        };
        counter += 1;
        let wait = match renew(&client, &now, counter, &inputs).await {
            Ok(()) => {
                failures = 0;
                every
            }
            Err(Stopped::Failed) => {
                failures += 1;
                again_after(failures, every, rand::random())
            }
            Err(Stopped::Left) => return,
        };
        // A new session must not wait for the turn of the others.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = sessions.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

/// How long to wait after so many failures in a row, with a jitter of a quarter: `drawn` is from 0 to 1.
fn again_after(failures: u32, every: Duration, drawn: f64) -> Duration {
    let doubled = 1 << failures.saturating_sub(1).min(16);
    let wait = AGAIN_AFTER.saturating_mul(doubled).min(every);
    wait.mul_f64(0.75 + drawn.clamp(0.0, 1.0) / 4.0)
}

enum Stopped {
    /// No answer that counts.
    Failed,
    /// The agent is gone.
    Left,
}

async fn renew(
    client: &Client,
    sessions: &Sessions,
    counter: u64,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), Stopped> {
    let mut rest = sessions.iter();
    let Some((&first, session)) = rest.next() else {
        return Ok(());
    };
    let incarnation = sessions
        .values()
        .map(|session| session.opened.incarnation.0)
        .max()
        .unwrap_or_default();
    let also = rest
        .map(|(_, session)| SessionProof {
            session: session.opened.session.0,
            secret: session.secret.clone(),
        })
        .collect();
    // R1: the lease counts from here, whatever happens to the message from now on.
    let sent = clock::now();
    let request = RenewRequest {
        incarnation,
        counter,
        nonce: nonce(rand::random(), sent),
        sent_ms: sent.as_nanos() / 1_000_000,
        also,
    };
    let id = session.opened.session.0;
    let directors = u32::try_from(client.addresses().len()).unwrap_or(u32::MAX);
    let limit = ANSWER_WITHIN.saturating_mul(directors.saturating_add(1));
    let answer = timeout(limit, client.renew(id, &session.secret, &request)).await;
    let tell = |event| async move {
        let told = inputs.send(Input::Event(event)).await;
        told.map_err(|_| Stopped::Left)
    };
    let response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if is_over(&error) => {
            tracing::warn!(session = id, %error, "a session is over");
            return tell(Event::Lost { warden: first }).await;
        }
        Ok(Err(error)) => {
            log_failure(&error);
            return Err(Stopped::Failed);
        }
        Err(_elapsed) => {
            tracing::warn!("a renewal had no answer in time");
            return Err(Stopped::Failed);
        }
    };
    if response.counter != counter {
        tracing::warn!("a renewal was answered that was not asked");
        return Err(Stopped::Failed);
    }
    let by_id: BTreeMap<u64, WardenId> = sessions
        .iter()
        .map(|(&warden, session)| (session.opened.session.0, warden))
        .collect();
    for renewed in &response.renewed {
        if let Some(&warden) = by_id.get(renewed) {
            tell(Event::Renewed { warden, sent }).await?;
        }
    }
    for lost in &response.lost {
        if let Some(&warden) = by_id.get(&lost.session) {
            tracing::warn!(
                session = lost.session,
                reason = lost.reason,
                "a session is over"
            );
            tell(Event::Lost { warden }).await?;
        }
    }
    if response.renewed.is_empty() && response.lost.is_empty() {
        return Err(Stopped::Failed);
    }
    Ok(())
}

/// What tells an attempt from that of a copy of this process (R13). A machine that is cloned while it runs has
/// the state of every random generator cloned with it, and both copies would draw the same numbers for hours;
/// but they do not send in the same nanosecond.
fn nonce(drawn: u64, sent: Moment) -> u64 {
    drawn ^ sent.as_nanos()
}

fn log_failure(error: &Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "a renewal failed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_again_waits_longer_and_never_longer_than_until_the_next() {
        let (normal, fast) = (Duration::from_secs(2), Duration::from_millis(300));
        let waits = |every| (1..=5).map(move |n| again_after(n, every, 1.0).as_millis());
        assert_eq!(
            waits(normal).collect::<Vec<_>>(),
            [250, 500, 1000, 2000, 2000]
        );
        assert_eq!(waits(fast).collect::<Vec<_>>(), [250, 300, 300, 300, 300]);
        assert_eq!(again_after(u32::MAX, normal, 0.0).as_millis(), 1500);
        let apart = again_after(1, normal, 0.1) != again_after(1, normal, 0.9);
        assert!(apart, "not all at once");
    }

    #[test]
    fn copies_that_draw_the_same_numbers_are_told_apart() {
        let (one, other) = (Moment::from_nanos(1_000), Moment::from_nanos(1_001));
        assert_ne!(nonce(7, one), nonce(7, other));
        assert_ne!(nonce(7, one), nonce(8, one));
    }
}
