//! The calls of a session. All of them may be repeated, so the transport may ask again elsewhere.

use std::time::Duration;

use super::transport::Call;
use super::{Client, Error};
use crate::logs::{LogChunk, LogRequests};
use crate::routes::{self, fill};
use crate::session::{
    CheckpointsRequest, CheckpointsResponse, CloseRequest, RegisterRequest, RenewRequest,
    RenewResponse, ReportRequest, ReportResponse, ResumeRequest, SessionOpened, WorkResponse,
};

impl Client {
    /// Begins a session.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn register(&self, request: &RegisterRequest) -> Result<SessionOpened, Error> {
        let call = Call::numbered(routes::SESSIONS.to_owned()).json(request);
        Ok(self.call(call).await?.1)
    }

    /// A new agent process speaks for a living warden.
    ///
    /// # Errors
    /// As [`Error`] says; `Fenced` when the session is over.
    pub async fn resume(
        &self,
        session: u64,
        secret: &str,
        request: &ResumeRequest,
    ) -> Result<SessionOpened, Error> {
        let call = session_call(routes::SESSION_RESUME, session, secret).json(request);
        Ok(self.call(call).await?.1)
    }

    /// Renews a session and others of the same agent.
    ///
    /// # Errors
    /// As [`Error`] says. Whatever the error, nothing may be concluded but that it was not renewed.
    pub async fn renew(
        &self,
        session: u64,
        secret: &str,
        request: &RenewRequest,
    ) -> Result<RenewResponse, Error> {
        let call = session_call(routes::SESSION_RENEW, session, secret).json(request);
        Ok(self.call(call).await?.1)
    }

    /// What the session is to hold, as changes since `index`; waits for one at most `wait`.
    ///
    /// # Errors
    /// As [`Error`] says; `Fenced` when the session is over.
    pub async fn work(
        &self,
        session: u64,
        secret: &str,
        index: u64,
        wait: Duration,
    ) -> Result<WorkResponse, Error> {
        let path = fill(routes::SESSION_WORK, &[&session.to_string()]);
        let call = Call::get(path)
            .secret(secret)
            .query("index", index)
            .query("wait", format!("{}ms", wait.as_millis()))
            .wait(wait);
        Ok(self.call(call).await?.1)
    }

    /// Reports what has happened.
    ///
    /// # Errors
    /// As [`Error`] says. After [`Error::OutcomeUnknown`] the same report must be sent again, with the
    /// same sequence.
    pub async fn report(
        &self,
        session: u64,
        secret: &str,
        request: &ReportRequest,
    ) -> Result<ReportResponse, Error> {
        let call = session_call(routes::SESSION_REPORT, session, secret).json(request);
        Ok(self.call(call).await?.1)
    }

    /// Keeps how far runs of the session have come.
    ///
    /// # Errors
    /// As [`Error`] says. After [`Error::OutcomeUnknown`] the same may be sent again, with the same
    /// numbers.
    pub async fn checkpoints(
        &self,
        session: u64,
        secret: &str,
        request: &CheckpointsRequest,
    ) -> Result<CheckpointsResponse, Error> {
        let call = session_call(routes::SESSION_CHECKPOINTS, session, secret).json(request);
        Ok(self.call(call).await?.1)
    }

    /// What people want to see of the output of the session's runs; waits for it at most `wait`.
    ///
    /// # Errors
    /// As [`Error`] says; `UnknownPath` when the director is older than this.
    pub async fn log_requests(
        &self,
        session: u64,
        secret: &str,
        wait: Duration,
    ) -> Result<LogRequests, Error> {
        let path = fill(routes::SESSION_LOG_REQUESTS, &[&session.to_string()]);
        let call = Call::get(path)
            .secret(secret)
            .query("wait", format!("{}ms", wait.as_millis()))
            .wait(wait);
        Ok(self.call(call).await?.1)
    }

    /// A part of the answer to a log request.
    ///
    /// # Errors
    /// As [`Error`] says; `NotFound` or `Gone` when nobody waits for it any more.
    pub async fn log_chunk(
        &self,
        session: u64,
        secret: &str,
        chunk: &LogChunk,
    ) -> Result<(), Error> {
        let call = session_call(routes::SESSION_LOG_CHUNKS, session, secret).json(chunk);
        let (_, _): (u64, serde_json::Value) = self.call(call).await?;
        Ok(())
    }

    /// Ends a session: everything of it is proven dead.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn close(
        &self,
        session: u64,
        secret: &str,
        request: &CloseRequest,
    ) -> Result<(), Error> {
        let call = session_call(routes::SESSION_CLOSE, session, secret).json(request);
        let (_, _): (u64, serde_json::Value) = self.call(call).await?;
        Ok(())
    }
}

fn session_call(route: &str, session: u64, secret: &str) -> Call {
    Call::numbered(fill(route, &[&session.to_string()])).secret(secret)
}
