//! What a partition has printed, as it comes in from its agent.

use std::time::Duration;

use reqwest::Response;

use super::transport::Call;
use super::{Client, Error};
use crate::routes::{self, fill};

/// Which part of a log to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// So many of the last lines; the director's default when absent.
    pub lines: Option<u32>,
    /// Go on with what is printed from then on.
    pub follow: bool,
    /// The file before the current one.
    pub previous: bool,
    /// Only what was printed in the last so long.
    pub since: Option<Duration>,
}

/// Text as it comes in.
#[derive(Debug)]
pub struct LogStream {
    response: Response,
}

impl LogStream {
    /// The next piece; `None` at the end, also when the connection is lost: what has been shown is
    /// shown, and the rest can be asked for anew.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        let piece = self.response.chunk().await.ok()??;
        Some(piece.to_vec())
    }
}

impl Client {
    /// What a partition has printed.
    ///
    /// # Errors
    /// As [`Error`] says; a problem when no agent has a log of it.
    pub async fn logs(
        &self,
        service: &str,
        key: &str,
        filter: LogFilter,
    ) -> Result<LogStream, Error> {
        let mut call = Call::get(fill(routes::PARTITION_LOGS, &[service, key]));
        call.streaming = true;
        if let Some(lines) = filter.lines {
            call = call.query("lines", lines);
        }
        if let Some(since) = filter.since {
            call = call.query("since", format!("{}ms", since.as_millis()));
        }
        for (name, on) in [("follow", filter.follow), ("previous", filter.previous)] {
            if on {
                call = call.query(name, "true");
            }
        }
        let response = self.send(call).await?;
        Ok(LogStream { response })
    }
}
