//! Lanes to the leader, so that nothing that people ask holds up what agents say, and nobody who waits for
//! something to happen holds up anybody.
//!
//! Each lane has connections of its own, one for each request that is under way, and so many places that all
//! of them together stay below what a director takes from one address.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Uri};
use quorate_api::client::distrusting;
use quorate_api::problem::Code;
use quorate_api::routes::WAIT_SECONDS_MAX;
use quorate_pki::ClientTls;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::is_read;
use crate::config::Limits;
use crate::http::answer::Failure;

/// Calls of sessions that are under way to the leader; each takes as long as a commit.
const SESSIONS_MAX: usize = 64;
/// Calls of people that are answered at once.
const PEOPLE_MAX: usize = 32;
/// Calls of people that wait for something to happen.
const HELD_MAX: usize = 64;
/// The leader is near, or gone.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Shorter than a director keeps an unused connection, so that no request meets its end.
const IDLE_TIME: Duration = Duration::from_secs(8);
/// Beyond what the leader itself takes for an answer: the way there and back.
const WAY_TIME: Duration = Duration::from_secs(2);

/// Held while a request is under way.
pub(super) type Place = OwnedSemaphorePermit;

/// All lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    sessions: Lane,
    people: Lane,
    held: Lane,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) http: reqwest::Client,
    places: Arc<Semaphore>,
    waits: bool,
}

/// A client that keeps connections to the other directors, and proves itself to them if it can.
pub(super) fn client(tls: Option<&ClientTls>) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.map_or_else(distrusting, ClientTls::config))
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT_TIME)
        .pool_idle_timeout(IDLE_TIME)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

impl Lanes {
    pub(super) fn new(tls: Option<&ClientTls>) -> Result<Self, reqwest::Error> {
        let lane = |places, waits| {
            Ok(Lane {
                http: client(tls)?,
                places: Arc::new(Semaphore::new(places)),
                waits,
            })
        };
        Ok(Self {
            sessions: lane(SESSIONS_MAX, false)?,
            people: lane(PEOPLE_MAX, false)?,
            held: lane(HELD_MAX, true)?,
        })
    }

    /// The lane of a request.
    pub(super) fn of(&self, method: &Method, uri: &Uri) -> &Lane {
        let query = uri.query().unwrap_or_default();
        let waits = |part: &str| part.starts_with("index=") || part == "follow=true";
        if uri.path().starts_with("/v1/sessions") {
            &self.sessions
        } else if is_read(method) && query.split('&').any(waits) {
            &self.held
        } else {
            &self.people
        }
    }
}

impl Lane {
    /// A place in the lane, when there is one within this time. Who would hold it for long gets one at once
    /// or not at all.
    pub(super) async fn place(&self, within: Duration) -> Result<Place, Failure> {
        let within = if self.waits { Duration::ZERO } else { within };
        let place = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(within, place).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => {
                let detail = "as many requests are on their way to the leader as may be";
                Err(Failure::new(Code::TooManyRequests, detail)
                    .next_step("ask the leader itself, or try again in a moment"))
            }
        }
    }

    /// How long an answer may take to begin.
    pub(super) fn limit(&self, limits: &Limits) -> Duration {
        let answer = if self.waits {
            Duration::from_secs(WAIT_SECONDS_MAX)
        } else {
            limits.call_time.max(limits.body_time)
        };
        answer + WAY_TIME
    }
}
