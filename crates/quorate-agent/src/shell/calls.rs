//! The calls of a session but renewal: open, resume, report, close, and the long poll for work.
//!
//! Each call is a task that tells one event. Repeating is the machine's decision, except for the long
//! poll, which goes on until the session is dropped.

use std::time::Duration;

use quorate_api::client::{Client, Error};
use quorate_api::problem::Code;
use quorate_api::session::{CloseRequest, RegisterRequest, ResumeRequest};
use quorate_core::agent::{Checkpoints, Event, Opened, Report, WardenId};
use quorate_core::ids::{SessionId, Token};
use quorate_core::record::CloseReason;
use tokio_util::sync::CancellationToken;

use super::translate::{self, Services};

/// How long a director may hold an answer back while there is no new work.
const POLL_FOR: Duration = Duration::from_secs(30);
/// Waits between polls that failed.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// Whether the directors have said that a session has ended for this process, for ever.
pub(crate) fn is_over(error: &Error) -> bool {
    error.problem().is_some_and(|problem| {
        matches!(
            problem.code,
            Code::Fenced | Code::NotFound | Code::Unauthenticated
        )
    })
}

fn log(call: &'static str, error: &Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(call, %error, cause, "a call to the directors failed");
}

/// A session as this process speaks for it.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) warden: WardenId,
    pub(crate) secret: String,
}

impl Caller {
    pub(crate) async fn register(self, request: RegisterRequest) -> Event {
        let warden = self.warden;
        match self.client.register(&request).await {
            Ok(answer) => Event::Opened {
                warden,
                opened: translate::opened(&answer),
            },
            Err(error) => {
                log("register", &error);
                Event::OpenFailed { warden }
            }
        }
    }

    pub(crate) async fn resume(self, session: SessionId, process: u64) -> Event {
        let warden = self.warden;
        let request = ResumeRequest { process };
        match self.client.resume(session.0, &self.secret, &request).await {
            Ok(answer) => Event::Opened {
                warden,
                opened: translate::opened(&answer),
            },
            Err(error) => {
                log("resume", &error);
                if is_over(&error) {
                    Event::Lost { warden }
                } else {
                    Event::OpenFailed { warden }
                }
            }
        }
    }

    pub(crate) async fn report(self, report: Report) -> Event {
        let warden = self.warden;
        let request = translate::report(&report);
        let session = report.session.0;
        match self.client.report(session, &self.secret, &request).await {
            Ok(answer) => {
                for refusal in &answer.refused {
                    tracing::warn!(token = refusal.token, reason = refusal.reason, "refused");
                }
                Event::Reported {
                    warden,
                    sequence: answer.sequence,
                    assumed: answer.assumed.into_iter().map(Token).collect(),
                    refused: answer
                        .refused
                        .into_iter()
                        .map(|refusal| Token(refusal.token))
                        .collect(),
                }
            }
            Err(error) => {
                log("report", &error);
                if is_over(&error) {
                    Event::Lost { warden }
                } else {
                    Event::ReportUnanswered {
                        warden,
                        sequence: report.sequence,
                    }
                }
            }
        }
    }

    pub(crate) async fn checkpoints(self, call: u64, checkpoints: Checkpoints) -> Event {
        let warden = self.warden;
        let request = translate::checkpoints(&checkpoints);
        let session = checkpoints.session.0;
        let answer = self.client.checkpoints(session, &self.secret, &request);
        match answer.await {
            Ok(answer) => {
                for refusal in &answer.refused {
                    tracing::warn!(
                        token = refusal.token,
                        reason = refusal.reason,
                        "a checkpoint was refused"
                    );
                }
                Event::CheckpointsAnswered {
                    warden,
                    call,
                    kept: answer.kept.into_iter().map(Token).collect(),
                }
            }
            // Whether the session is over, the reports and renewals tell: a director that does not
            // know these calls yet must not end it.
            Err(error) => {
                log("checkpoints", &error);
                Event::CheckpointsUnanswered { warden, call }
            }
        }
    }

    pub(crate) async fn close(self, opened: Opened, reason: CloseReason) -> Event {
        let warden = self.warden;
        let request = CloseRequest {
            incarnation: Some(opened.incarnation.0),
            reason: reason_name(reason).to_owned(),
        };
        match self
            .client
            .close(opened.session.0, &self.secret, &request)
            .await
        {
            Ok(()) => Event::Closed { warden },
            // It is over, which is what was asked for.
            Err(error) if is_over(&error) => Event::Closed { warden },
            Err(error) => {
                log("close", &error);
                Event::CloseUnanswered { warden }
            }
        }
    }

    /// Polls for work until the session is dropped.
    pub(crate) async fn follow_work(
        self,
        opened: Opened,
        dropped: CancellationToken,
        inputs: tokio::sync::mpsc::Sender<super::Input>,
    ) {
        let _dropped = dropped
            .run_until_cancelled(self.poll_work(opened, inputs))
            .await;
    }

    async fn poll_work(self, opened: Opened, inputs: tokio::sync::mpsc::Sender<super::Input>) {
        let warden = self.warden;
        let mut services = Services::default();
        let mut index = 0;
        let mut again = AGAIN_MIN;
        let mut directors = Vec::new();
        loop {
            let poll = self
                .client
                .work(opened.session.0, &self.secret, index, POLL_FOR);
            let events = match poll.await {
                Ok(mut response) => {
                    let told = std::mem::take(&mut response.directors);
                    if !told.is_empty() && told != directors {
                        directors.clone_from(&told);
                        if inputs.send(super::Input::Directors(told)).await.is_err() {
                            return;
                        }
                    }
                    // A director that does not hold its answers back must not be asked in a circle.
                    if response.index == index && response.items.is_empty() {
                        tokio::time::sleep(AGAIN_MIN).await;
                    }
                    index = response.index;
                    again = AGAIN_MIN;
                    let leases = response
                        .leases_ms
                        .iter()
                        .map(|&millis| Duration::from_millis(millis))
                        .collect();
                    let work = services.work(response);
                    [Event::Classes(leases), Event::Work { warden, work }]
                }
                // Never an end of the session, whatever it says: a director that is behind may not know
                // the session yet. The leader answers renewals.
                Err(error) => {
                    if is_over(&error) {
                        // So is every session that was closed in order; one that ended otherwise is told by
                        // its renewal.
                        tracing::debug!(%error, "no more work");
                    } else {
                        log("work", &error);
                    }
                    if error.problem().is_some_and(|p| p.code == Code::Gone) {
                        index = 0;
                    }
                    tokio::time::sleep(again.mul_f64(rand::random_range(0.8..1.2))).await;
                    again = (again * 2).min(AGAIN_MAX);
                    continue;
                }
            };
            for event in events {
                if inputs.send(super::Input::Event(event)).await.is_err() {
                    return;
                }
            }
        }
    }
}

pub(crate) const fn reason_name(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Left => "left",
        CloseReason::AgentDied => "agent_died",
        CloseReason::WardenDied => "warden_died",
        // Only directors give these.
        CloseReason::Rebooted => "rebooted",
        CloseReason::Evicted => "evicted",
    }
}
