//! Follows the end of the log for hints: by notices, and by a look now and then, because a pooler passes no notices on.

use std::future::poll_fn;
use std::time::Duration;

use quorate_core::ids::Position;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::{AsyncMessage, Client};

use crate::store::StoreError;
use crate::{Cause, Hints};

use super::lane::{Server, Wire};
use super::sort;
use super::sql::Sql;

/// Between two looks. They are all there is behind a pooler.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A look that takes longer is of a connection that is lost.
const LOOK_TIME: Duration = Duration::from_secs(5);

/// Pause after the database could not be followed, which grows with every failure up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The task that follows; it ends with this.
#[derive(Debug)]
pub(super) struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    pub(super) fn spawn(server: Server, sql: Sql, hints: watch::Sender<Hints>) -> Self {
        let following = async move {
            let mut pause = PAUSE;
            loop {
                let before = hints.borrow().occupied;
                let error = follow(&server, &sql, &hints).await;
                tracing::debug!(%error, "the end of the ledger could not be followed");
                if hints.borrow().occupied > before {
                    pause = PAUSE;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        };
        Self(tokio::spawn(following).abort_handle())
    }
}

/// Hints only ever grow.
pub(super) fn occupied(hints: &watch::Sender<Hints>, at: Position) {
    hints.send_if_modified(|hints| {
        let news = at > hints.occupied;
        hints.occupied = hints.occupied.max(at);
        news
    });
}

/// Follows as long as the connection lasts.
async fn follow(server: &Server, sql: &Sql, hints: &watch::Sender<Hints>) -> Cause {
    let (client, wire) = match server.connect().await {
        Ok(connected) => connected,
        Err(StoreError::Refused(cause) | StoreError::Unknown(cause)) => return cause,
    };
    tokio::select! {
        cause = listen(wire, hints) => cause,
        cause = look(&client, sql, hints) => cause,
    }
}

/// Drives the connection, and takes the notices that come on it.
async fn listen(mut wire: Wire, hints: &watch::Sender<Hints>) -> Cause {
    loop {
        match poll_fn(|context| wire.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(notice))) => {
                // What is no number is not of ours.
                if let Ok(position) = notice.payload().parse() {
                    occupied(hints, Position(position));
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.into(),
            None => return "the connection was closed".into(),
        }
    }
}

async fn look(client: &Client, sql: &Sql, hints: &watch::Sender<Hints>) -> Cause {
    let listen = format!("listen {}", sql.channel);
    if let Err(cause) = in_time(client.batch_execute(&listen)).await {
        return cause;
    }
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match in_time(client.query_typed(&sql.look, &[])).await {
            Ok(rows) => {
                let next = rows.first().and_then(|row| row.try_get("next").ok());
                let next = next.and_then(|next: i64| u64::try_from(next).ok());
                occupied(hints, Position(next.unwrap_or(1).saturating_sub(1)));
            }
            Err(cause) => return cause,
        }
    }
}

async fn in_time<T>(
    asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Cause> {
    match timeout(LOOK_TIME, asked).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(error)) => {
            let (StoreError::Refused(cause) | StoreError::Unknown(cause)) =
                sort::of_statement(error).0;
            Err(cause)
        }
        Err(_elapsed) => Err(format!("no answer within {LOOK_TIME:?}").into()),
    }
}
