//! Keeps a session with the servers open, and hands it to the steps.
//!
//! A session is nothing but a connection that outlives its server: when it ends, whyever, a new one is opened. It must
//! never send a step twice.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zookeeper_client::{Client, Error, SessionId, SessionState};

use crate::address::{Address, Host};
use crate::keyed::StoreError;
use crate::shared::OpenError;

use super::errors::{said, sorted};
use super::{Layout, STEP_LIMIT};

/// How long the servers keep a session whose client they do not hear. A connection that is silent for two fifths of it
/// is given up for another one.
const SESSION: Duration = Duration::from_secs(6);

/// Pause before another session is tried, which grows with every failure up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where the servers are, and who we are to them.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `host:port,host:port`.
    hosts: String,
    credentials: Option<Credentials>,
}

#[derive(Clone)]
struct Credentials {
    /// `user:password`.
    digest: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

fn unfit<T>(why: &str) -> Result<T, OpenError> {
    Err(OpenError::Unfit(why.to_owned()))
}

impl Target {
    pub(super) fn of(address: &Address) -> Result<Self, OpenError> {
        if address.tls.is_some() {
            return unfit(
                "quorate speaks to ZooKeeper in the clear only: leave out tls, ca, cert and key, and protect the way \
                 to its servers by other means, such as a tunnel",
            );
        }
        let first = address.prefix.split('/').next();
        if first == Some("zookeeper") {
            return unfit(
                "ZooKeeper keeps /zookeeper for itself: put another prefix into the address of the ledger",
            );
        }
        let credentials = match (&address.user, &address.password) {
            (None, _) => None,
            (Some(user), _) if user.contains(':') => {
                return unfit("a user of ZooKeeper has no colon in its name: use another one");
            }
            (Some(user), Some(password)) => Some(Credentials {
                digest: format!("{user}:{}", password.expose()),
            }),
            (Some(_), None) => {
                return unfit(
                    "the user of the ledger has no password: name a file that has it with password_file=, or put it \
                     into the variable QUORATE_LEDGER_PASSWORD",
                );
            }
        };
        let hosts: Vec<String> = address.hosts.iter().map(Host::to_string).collect();
        Ok(Self {
            hosts: hosts.join(","),
            credentials,
        })
    }
}

/// What the steps are told.
#[derive(Debug)]
enum State {
    Ready(Client),
    /// Why not.
    Down(String),
}

/// The session, while there is one. Its task ends with this.
#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    doubted: watch::Sender<Option<SessionId>>,
    keeper: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// A step that has a session to go to, and what is left of its time.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) client: Client,
    until: Instant,
    doubted: watch::Sender<Option<SessionId>>,
}

impl Link {
    pub(super) fn spawn(target: Target, layout: Layout) -> Self {
        let (state, receiver) = watch::channel(State::Down("no server has answered yet".into()));
        let doubted = watch::Sender::new(None);
        let keeper = Keeper {
            target,
            layout,
            state,
            doubted: doubted.subscribe(),
        };
        Self {
            state: receiver,
            doubted,
            keeper: tokio::spawn(keeper.run()).abort_handle(),
        }
    }

    /// Begins a step: waits for a session. A step that gets none was not done.
    pub(super) async fn step(&self) -> Result<Step, StoreError> {
        let until = Instant::now() + STEP_LIMIT;
        let mut states = self.state.clone();
        let ready = states.wait_for(|state| matches!(state, State::Ready(_)));
        // Not that of the wait, whose end another state may have followed already.
        drop(timeout_at(until, ready).await);
        match &*self.state.borrow() {
            State::Ready(client) => Ok(Step {
                client: client.clone(),
                until,
                doubted: self.doubted.clone(),
            }),
            State::Down(why) => Err(StoreError::Refused(why.clone().into())),
        }
    }
}

impl Step {
    /// Waits for an answer as long as the step may take.
    pub(super) async fn limited<T>(
        &self,
        answer: impl Future<Output = T>,
    ) -> Result<T, StoreError> {
        match timeout_at(self.until, answer).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                // A server that answers its clients' pings and nothing else is given up as well.
                self.doubt();
                let why = format!("ZooKeeper did not answer within {STEP_LIMIT:?}");
                Err(StoreError::Unknown(why.into()))
            }
        }
    }
}

impl Step {
    /// What an error of this step means.
    pub(super) fn sorted(&self, error: Error, path: &str) -> StoreError {
        // The client makes another connection by itself. Of anything else that is odd no client need recover.
        let connects = error == Error::ConnectionLoss;
        let sorted = sorted(error, path);
        if matches!(sorted, StoreError::Unknown(_)) && !connects {
            self.doubt();
        }
        sorted
    }

    fn doubt(&self) {
        self.doubted.send_replace(Some(self.client.session_id()));
    }
}

/// The task that keeps a session.
struct Keeper {
    target: Target,
    layout: Layout,
    state: watch::Sender<State>,
    doubted: watch::Receiver<Option<SessionId>>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let why = match self.open().await {
                Ok(client) => {
                    pause = PAUSE;
                    self.attend(client).await
                }
                Err(why) => why,
            };
            tracing::debug!(why, "no session with ZooKeeper");
            self.state.send_replace(State::Down(why));
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// A new session, in which all that is read is at least what was seen in any session before.
    async fn open(&self) -> Result<Client, String> {
        let hosts = &self.target.hosts;
        let mut connector = Client::connector()
            .with_session_timeout(SESSION)
            .with_fail_eagerly();
        if let Some(Credentials { digest }) = &self.target.credentials {
            connector = connector.with_auth("digest", digest.as_bytes());
        }
        let client = match connector.connect(hosts).await {
            Ok(client) => client,
            Err(Error::AuthFailed) => {
                return Err(format!(
                    "the ZooKeeper servers at {hosts} do not take a user and a password (scheme digest): see what \
                     authentication they ask for"
                ));
            }
            Err(error) => {
                return Err(format!(
                    "no ZooKeeper server at {hosts} serves: see that they run, that most of them reach each other, \
                     and that nothing is between them and this machine ({error})"
                ));
            }
        };
        match timeout(STEP_LIMIT, self.prepare(&client)).await {
            Ok(Ok(())) => Ok(client),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!(
                "the ZooKeeper servers at {hosts} do not write within {STEP_LIMIT:?}: see that most of them reach \
                 each other, and that their disks answer"
            )),
        }
    }

    /// Writes, so that what is read is not behind, and makes the parents of all keys where they are missing.
    async fn prepare(&self, client: &Client) -> Result<(), String> {
        let Layout { root, probe, .. } = &self.layout;
        match client.set_data(probe, b"", None).await {
            Ok(_) => return Ok(()),
            Err(Error::NoNode) => {}
            Err(error) => return Err(said(error, probe)),
        }
        // The probe comes last: where it is, the others are.
        let parents = ["entries", "log", "parts"].map(|name| format!("{root}/{name}"));
        for path in parents.iter().chain([probe]) {
            let made = client.mkdir(path, &self.layout.created()).await;
            made.map_err(|error| said(error, path))?;
        }
        let written = client.set_data(probe, b"", None).await;
        written.map(drop).map_err(|error| said(error, probe))
    }

    /// Tells the steps of a session until it ends, and then why.
    async fn attend(&mut self, client: Client) -> String {
        let mut states = client.state_watcher();
        loop {
            let state = states.peek_state();
            if state.is_terminated() {
                return format!("the session with ZooKeeper has ended ({state})");
            }
            self.state
                .send_replace(if state == SessionState::SyncConnected {
                    State::Ready(client.clone())
                } else {
                    State::Down("the connection to ZooKeeper is lost".into())
                });
            tokio::select! {
                _ = states.changed() => {}
                _ = self.doubted.wait_for(|doubted| *doubted == Some(client.session_id())) => {
                    return "the session with ZooKeeper was given up: it did not answer as it should".into();
                }
            }
        }
    }
}
