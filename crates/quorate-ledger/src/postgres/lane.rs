//! A connection to the primary, made when it is needed and made anew when it is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Connection, Row, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::address::Address;
use crate::shared::OpenError;
use crate::store::StoreError;
use crate::tls;

use super::sort::{self, Then};

/// How long one server may take to be connected to. A machine that is gone says nothing, and then the next one in the
/// address is tried.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// How long a statement may take, and a connection to whichever server. A director that hears nothing for so long cannot
/// lead anyway.
const CALL_TIME: Duration = Duration::from_secs(5);

/// A server that vanished without a word is noticed by the system after this, where nothing is asked of it.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// Where the servers are and who we are to them.
#[derive(Clone)]
pub(super) struct Server {
    config: Arc<Config>,
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// Drives a connection, and tells what comes unasked.
pub(super) type Wire = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

impl Server {
    pub(super) fn new(address: &Address) -> Result<Self, OpenError> {
        let mut config = Config::new();
        for host in &address.hosts {
            config.host(&host.name).port(host.port);
        }
        if let Some(user) = &address.user {
            config.user(user);
        }
        if let Some(password) = &address.password {
            config.password(password.expose());
        }
        config
            .dbname(&address.prefix)
            .application_name("quorate")
            .connect_timeout(CONNECT_TIME)
            .tcp_user_timeout(SILENT_FOR)
            .keepalives_idle(SILENT_FOR)
            // A standby answers too, and knows nothing for certain.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .ssl_mode(match address.tls {
                Some(_) => SslMode::Require,
                None => SslMode::Disable,
            });
        let tls = tls::config(address.tls.as_ref())?;
        Ok(Self {
            config: Arc::new(config),
            tls: MakeRustlsConnect::new(tls),
        })
    }

    /// A connection to the primary.
    pub(super) async fn connect(&self) -> Result<(Client, Wire), StoreError> {
        // It is large, and rare.
        let connected = Box::pin(self.config.connect(self.tls.clone()));
        match timeout(CALL_TIME, connected).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(sort::of_connection(error)),
            Err(_elapsed) => Err(StoreError::Refused(
                format!("no server took a connection within {CALL_TIME:?}").into(),
            )),
        }
    }
}

/// A connection in use. Whoever still waits for it when it is dropped hears that it is closed.
#[derive(Debug)]
struct Link {
    client: Client,
    wire: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.wire.abort();
    }
}

/// One connection, shared: statements go one after the other.
#[derive(Debug)]
pub(super) struct Lane {
    server: Server,
    setup: String,
    link: Mutex<Option<Arc<Link>>>,
}

/// A parameter and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Lane {
    pub(super) fn new(server: Server, setup: String) -> Self {
        Self {
            server,
            setup,
            link: Mutex::new(None),
        }
    }

    /// What a statement tells. Makes the tables if they are missing.
    pub(super) async fn ask(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        match self.ask_once(sql, parameters).await {
            Err((_, Then::SetUp)) => {
                self.set_up().await?;
                self.ask_once(sql, parameters).await
            }
            told => told,
        }
        .map_err(|(error, _)| error)
    }

    async fn ask_once(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, (StoreError, Then)> {
        let link = self.link().await.map_err(|error| (error, Then::Nothing))?;
        let answer = timeout(CALL_TIME, link.client.query_typed(sql, parameters)).await;
        let (error, then) = match answer {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error)) => sort::of_statement(error),
            Err(_elapsed) => {
                let cause = format!("the server did not answer within {CALL_TIME:?}");
                (StoreError::Unknown(cause.into()), Then::Reconnect)
            }
        };
        if then == Then::Reconnect {
            self.give_up(&link).await;
        }
        Err((error, then))
    }

    /// Several directors may do this at once, and then the server may refuse all but one: that one is enough.
    async fn set_up(&self) -> Result<(), StoreError> {
        let link = self.link().await?;
        match timeout(CALL_TIME, link.client.batch_execute(&self.setup)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(sort::of_statement(error).0),
            Err(_elapsed) => {
                self.give_up(&link).await;
                let cause = format!("the tables could not be made within {CALL_TIME:?}");
                Err(StoreError::Refused(cause.into()))
            }
        }
    }

    /// The connection there is, or a new one. Who comes meanwhile waits for that, no longer than it may take.
    async fn link(&self) -> Result<Arc<Link>, StoreError> {
        let mut link = self.link.lock().await;
        if let Some(link) = link.as_ref().filter(|link| !link.client.is_closed()) {
            return Ok(Arc::clone(link));
        }
        let (client, wire) = self.server.connect().await?;
        let wire = tokio::spawn(async move {
            // Whoever waits for an answer hears of it.
            drop(wire.await);
        });
        let new = Arc::new(Link {
            client,
            wire: wire.abort_handle(),
        });
        *link = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Nobody gets this connection any more, and who waits for an answer on it hears that there is none.
    async fn give_up(&self, lost: &Arc<Link>) {
        let mut link = self.link.lock().await;
        if link.as_ref().is_some_and(|link| Arc::ptr_eq(link, lost)) {
            *link = None;
        }
        lost.wire.abort();
    }
}
