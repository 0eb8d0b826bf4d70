//! Renewals that come to a director that does not lead, passed on many at a time.
//!
//! The leader stamps them at its own receipt (R4) and answers each after its proof (R5), so nothing is
//! decided here. They are gathered for a moment: one request for all of them costs the leader far less than
//! one for each. A lane of their own (R18) keeps them apart from everything else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_api::problem::{Code, Problem};
use quorate_api::routes;
use quorate_api::session::{
    PassedAnswer, PassedAnswers, PassedRenewal, PassedRenewals, RenewResponse,
};
use quorate_core::ids::DirectorName;
use quorate_pki::ClientTls;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Way, lanes};
use crate::engine::{AskError, Handle, Led};
use crate::http::answer::{Failure, not_leader};

/// How long they are gathered: a hundredth of the shortest time between two renewals of a session.
const GATHER: Duration = Duration::from_millis(10);
/// Most in one request, which then stays far below the longest body.
const TOGETHER_MAX: usize = 1024;
/// Requests under way: a leader that is slow to answer must not hold up those that come after.
const UNDER_WAY_MAX: usize = 16;
/// Renewals that may wait: one of each session that a cluster may have.
const WAITING_MAX: usize = 32_768;
/// After this an agent asks another director.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// A renewal that waits for its answer.
#[derive(Debug)]
struct Waiting {
    renewal: PassedRenewal,
    answer: oneshot::Sender<Result<RenewResponse, Box<Problem>>>,
}

/// The way in. Clones lead to the same.
#[derive(Clone, Debug)]
pub(crate) struct Renewals(mpsc::Sender<Waiting>);

impl Renewals {
    /// Starts the task that passes them on. It ends when nobody can renew here any more.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub(crate) fn start(handle: Handle, Way { by, tls }: Way) -> Result<Self, reqwest::Error> {
        let (renewals, waiting) = mpsc::channel(WAITING_MAX);
        let sender = Sender {
            connections: Mutex::new((Led::Nobody, lanes::client(tls.as_ref())?)),
            tls,
            by,
        };
        tokio::spawn(gather(handle, Arc::new(sender), waiting));
        Ok(Self(renewals))
    }

    /// Passes one on, with others that come at about the same time.
    ///
    /// # Errors
    /// With what the leader says, or that nothing was renewed.
    pub(crate) async fn pass(&self, renewal: PassedRenewal) -> Result<RenewResponse, Failure> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { renewal, answer };
        self.0.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Failure::from(AskError::Overloaded),
            mpsc::error::TrySendError::Closed(_) => Failure::stopping(),
        })?;
        match answered.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(problem)) => Err(Failure(problem)),
            Err(_) => Err(Failure::stopping()),
        }
    }
}

/// The way of the renewals to the leader.
#[derive(Debug)]
struct Sender {
    /// Those to this leader.
    connections: Mutex<(Led, reqwest::Client)>,
    tls: Option<ClientTls>,
    by: DirectorName,
}

async fn gather(handle: Handle, sender: Arc<Sender>, mut waiting: mpsc::Receiver<Waiting>) {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut gathered = Vec::new();
    while waiting.recv_many(&mut gathered, TOGETHER_MAX).await > 0 {
        let until = Instant::now() + GATHER;
        while gathered.len() < TOGETHER_MAX {
            let room = TOGETHER_MAX - gathered.len();
            let more = waiting.recv_many(&mut gathered, room);
            match tokio::time::timeout_at(until, more).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let batch = std::mem::take(&mut gathered);
        // Whoever leads here now is asked again in a moment.
        if !matches!(handle.led(), Led::By { .. }) {
            turn_away(batch, &not_leader(None));
            continue;
        }
        let led = handle.watch_led();
        let (sender, places) = (Arc::clone(&sender), Arc::clone(&under_way));
        // The semaphore is never closed.
        let Ok(place) = places.acquire_owned().await else {
            return;
        };
        tokio::spawn(async move {
            sender.send(led, batch).await;
            drop(place);
        });
    }
}

impl Sender {
    async fn send(&self, led: watch::Receiver<Led>, batch: Vec<Waiting>) {
        let (renewals, answers): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.renewal, waiting.answer))
            .unzip();
        let renewals = PassedRenewals { renewals };
        let asked = self.ask_who_leads(led, &renewals);
        let answered = tokio::time::timeout(ANSWER_TIME, asked).await;
        let answered = answered.unwrap_or_else(|_| Err(String::from("no answer in time")));
        let answered = answered.unwrap_or_else(|why| {
            tracing::debug!(why, "renewals were not passed on");
            Vec::new()
        });
        let unanswered = not_leader(None);
        let mut answered = answered.into_iter();
        for answer in answers {
            let said = match answered.next() {
                Some(said) => match (said.renewed, said.problem) {
                    (Some(renewed), _) => Ok(renewed),
                    (None, Some(problem)) => Err(problem),
                    (None, None) => Err(unanswered.0.clone()),
                },
                None => Err(unanswered.0.clone()),
            };
            // The agent may have given up.
            let _ = answer.send(said);
        }
    }

    /// Asks the leader, and the next one where that is elected before it has answered: it may be dead, and a lease has
    /// no time to wait for it. A renewal that reaches both is one.
    async fn ask_who_leads(
        &self,
        mut led: watch::Receiver<Led>,
        renewals: &PassedRenewals,
    ) -> Result<Vec<PassedAnswer>, String> {
        loop {
            let now = led.borrow_and_update().clone();
            let asked = async {
                match &now {
                    Led::By { address, .. } => self.ask(&now, address, renewals).await,
                    Led::Here => Err(String::from("this director leads now")),
                    // Until there is a leader.
                    Led::Nobody => std::future::pending().await,
                }
            };
            tokio::select! {
                answered = asked => return answered,
                changed = led.changed() => if changed.is_err() {
                    return Err(String::from("this director ends"));
                },
            }
        }
    }

    /// Connections to this leader. Those from before its office may lead to a machine that was lost meanwhile, and such
    /// a one says nothing to what is sent on them.
    fn connections(&self, leader: &Led) -> reqwest::Client {
        // What is within is whole whoever panics.
        let mut kept = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.0 != *leader
            && let Ok(new) = lanes::client(self.tls.as_ref())
        {
            *kept = (leader.clone(), new);
        }
        kept.1.clone()
    }

    async fn ask(
        &self,
        leader: &Led,
        address: &str,
        renewals: &PassedRenewals,
    ) -> Result<Vec<PassedAnswer>, String> {
        let uri = axum::http::Uri::from_static(routes::SESSION_RENEWALS);
        let response = self
            .connections(leader)
            .post(super::url(address, &uri))
            .header(routes::RELAYED_HEADER, self.by.as_str())
            .timeout(ANSWER_TIME)
            .json(renewals)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        if !status.is_success() {
            return Err(status.to_string());
        }
        let answers: PassedAnswers = response.json().await.map_err(|e| e.to_string())?;
        if answers.answers.len() != renewals.renewals.len() {
            return Err(String::from("another number of answers"));
        }
        Ok(answers.answers)
    }
}

fn turn_away(batch: Vec<Waiting>, failure: &Failure) {
    for waiting in batch {
        // The agent may have given up.
        let _ = waiting.answer.send(Err(failure.0.clone()));
    }
}

/// What a leader says when it could not prove in time that it is one.
pub(crate) fn unproven() -> Failure {
    Failure::new(
        Code::TimedOut,
        "leadership was not proven in time; nothing was renewed",
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn led_by(name: &str, listener: &TcpListener) -> Led {
        Led::By {
            name: DirectorName::new(name).unwrap(),
            address: listener.local_addr().unwrap().to_string(),
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_leader_that_is_dead_asks_the_next_one_as_soon_as_there_is_one() {
        // It takes connections and says nothing, as a machine that has lost its power does.
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let next = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (lead, led) = watch::channel(led_by("d1", &dead));
        let sender = Sender {
            connections: Mutex::new((Led::Nobody, lanes::client(None).unwrap())),
            tls: None,
            by: DirectorName::new("d3").unwrap(),
        };
        let renewals = PassedRenewals {
            renewals: Vec::new(),
        };
        let second = led_by("d2", &next);
        let elect = async {
            let (_unanswered, _) = dead.accept().await.unwrap();
            lead.send_replace(Led::Nobody);
            lead.send_replace(second);
            let (mut socket, _) = next.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(socket.read(&mut request).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                           content-length: 14\r\n\r\n{\"answers\":[]}";
            socket.write_all(answer).await.unwrap();
            // Until the answer is read.
            std::future::pending::<()>().await;
        };
        let began = Instant::now();
        tokio::select! {
            answered = sender.ask_who_leads(led, &renewals) => {
                assert!(answered.unwrap().is_empty());
            }
            () = elect => {}
        }
        assert!(
            began.elapsed() < ANSWER_TIME,
            "it did not wait for the dead one"
        );
    }
}
