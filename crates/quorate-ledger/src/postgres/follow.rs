//! Follows the end of the log for hints: by notices, and by a look now and then, because a pooler passes no notices on.

use std::future::poll_fn;
use std::time::Duration;

use quorate_core::ids::Position;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::{AsyncMessage, Client};

use crate::hints::{Followed, occupied};
use crate::{Cause, Hints};

use super::lane::{Server, Wire};
use super::sort;
use super::sql::Sql;

/// Between two looks. They are all there is behind a pooler.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A look that takes longer is of a connection that is lost.
const LOOK_TIME: Duration = Duration::from_secs(5);

/// Where the log is, and how it is asked.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) server: Server,
    pub(super) sql: Sql,
}

impl Followed for Log {
    async fn follow(&self, hints: &watch::Sender<Hints>) -> Cause {
        let (client, wire) = match self.server.connect().await {
            Ok(connected) => connected,
            Err(error) => return error.cause(),
        };
        tokio::select! {
            cause = listen(wire, hints) => cause,
            cause = look(&client, &self.sql, hints) => cause,
        }
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
        Ok(Err(error)) => Err(sort::of_statement(error).0.cause()),
        Err(_elapsed) => Err(format!("no answer within {LOOK_TIME:?}").into()),
    }
}
