//! A whole director in this process, over the ledger in memory, with real HTTP on loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quorate_api::client::{Client, Options, distrusting};
use quorate_api::resources::ApplyRequest;
use quorate_api::session::{RegisterRequest, SessionOpened};
use quorate_core::ids::{ClusterId, DirectorName};
use quorate_director::{Config, Limits, RunError};
use quorate_ledger::memory::MemoryLedger;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A director and what it stands on.
pub(crate) struct Desk {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    pub(crate) http: reqwest::Client,
    pub(crate) ledger: MemoryLedger,
    pub(crate) folder: TempDir,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

pub(crate) fn config(folder: &TempDir, limits: Limits) -> Config {
    named("d1", folder, limits)
}

/// The same under another name.
pub(crate) fn named(name: &str, folder: &TempDir, limits: Limits) -> Config {
    let folder_of_it = folder.path().join(name);
    let name = DirectorName::new(name).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let mut config = Config::new(name, folder_of_it, listen);
    config.source_roots = vec![folder.path().to_owned()];
    config.limits = limits;
    config
}

/// That of every director of these tests.
pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

impl Desk {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let ledger = MemoryLedger::new();
        ledger.hint_leadership(Some(true));
        Self::over(ledger, TempDir::new().unwrap(), limits).await
    }

    pub(crate) async fn over(ledger: MemoryLedger, folder: TempDir, limits: Limits) -> Self {
        let config = config(&folder, limits);
        Self::configured(ledger, folder, config).await
    }

    pub(crate) async fn configured(ledger: MemoryLedger, folder: TempDir, config: Config) -> Self {
        Self::reached(ledger, folder, config, None).await
    }

    /// The same, whose own client uses this TLS.
    pub(crate) async fn reached(
        ledger: MemoryLedger,
        folder: TempDir,
        config: Config,
        tls: Option<ClientConfig>,
    ) -> Self {
        let bound = quorate_director::bind(config).await.unwrap();
        let address = bound.address();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(bound.run(ledger.clone(), CLUSTER, shutdown.clone()));
        let options = Options {
            tls,
            ..Options::default()
        };
        let client = Client::with(vec![address.to_string()], options).unwrap();
        let desk = Self {
            address,
            client,
            http: http(),
            ledger,
            folder,
            shutdown,
            running,
        };
        until("the director is ready", async || {
            desk.client.ready().await.is_ok()
        })
        .await;
        desk
    }

    /// Ends the director as a service manager would, and gives back what it stands on.
    pub(crate) async fn stop(self) -> (MemoryLedger, TempDir) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        (self.ledger, self.folder)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Applies services; the rest of each is as usual.
    pub(crate) async fn apply(&self, service: Value) -> u64 {
        let request = ApplyRequest {
            spec: json!({ "service": service }),
            base: None,
        };
        self.client.apply(&request).await.unwrap().index
    }
}

/// A client of plain HTTP without our client's manners.
pub(crate) fn http() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    let builder = builder.tls_backend_preconfigured(distrusting());
    builder.build().unwrap()
}

/// A service with these keys.
pub(crate) fn listed(keys: &[&str]) -> Value {
    json!({ "command": ["/bin/sleep", "inf"], "partitions": { "list": keys } })
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !met().await {
        assert!(Instant::now() < end, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A worker that speaks the session protocol.
pub(crate) struct Worker {
    pub(crate) client: Client,
    pub(crate) secret: String,
    pub(crate) opened: SessionOpened,
}

pub(crate) fn registration(agent: &str, lease_ms: u64) -> RegisterRequest {
    serde_json::from_value(json!({
        "agent": agent,
        "agent_id": agent.len(),
        "boot_id": "boot",
        "machine_id": "machine",
        "containment": "kernel",
        "lease_ms": lease_ms,
        "secret": format!("{:064x}", agent.bytes().map(u64::from).sum::<u64>()),
        "process": 7,
        "version": "test",
    }))
    .unwrap()
}

impl Worker {
    pub(crate) async fn join(desk: &Desk, agent: &str, lease_ms: u64) -> Self {
        let request = registration(agent, lease_ms);
        let opened = desk.client.register(&request).await.unwrap();
        Self {
            client: desk.client.clone(),
            secret: request.secret,
            opened,
        }
    }
}
