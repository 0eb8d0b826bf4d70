//! The client over HTTP: one for people's commands, for agents, and for anything else in Rust.
//!
//! It knows all directors, asks one after the other, follows hints to the leader, puts a time limit on
//! everything, and says honestly when it cannot know whether a write was done. It must never repeat a
//! write that may have been done already unless repeating is harmless.

mod access;
mod error;
mod events;
mod logs;
mod resources;
mod sessions;
mod transport;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

pub use error::{AddressError, Error};
pub use events::{EventStream, Followed};
pub use logs::{LogFilter, LogStream};
pub use resources::{AgentFilter, EventFilter, Indexed, PartitionFilter, Wait};

/// How long a call without a wait of its own may take at one director.
pub const CALL_TIME: Duration = Duration::from_secs(30);
/// How long connecting may take.
pub const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long an unused connection is kept: shorter than directors do (10 s), so that no request is sent on
/// one that is just being closed, whose outcome would then be unknown.
const IDLE_TIME: Duration = Duration::from_secs(8);
/// How long the client looks for a leader while directors answer that there is none.
pub const LEADER_TIME: Duration = Duration::from_secs(5);

/// Talks to the directors. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Base addresses, `http://host:port`.
    addresses: Vec<String>,
    /// Which of them answered last.
    preferred: AtomicUsize,
    token: Option<String>,
    leader_time: Duration,
    call_time: Duration,
}

impl Client {
    /// A client of the directors at these addresses (`host:port` or `http://host:port`), with an API
    /// token if there is one.
    ///
    /// # Errors
    /// When there is no address, or one of them cannot be used.
    pub fn new(addresses: Vec<String>, token: Option<String>) -> Result<Self, AddressError> {
        Self::with_times(addresses, token, CALL_TIME, LEADER_TIME)
    }

    /// The same with other limits: how long one call may take, and how long to look for a leader.
    ///
    /// # Errors
    /// When there is no address, or one of them cannot be used.
    pub fn with_times(
        addresses: Vec<String>,
        token: Option<String>,
        call_time: Duration,
        leader_time: Duration,
    ) -> Result<Self, AddressError> {
        let addresses = addresses
            .iter()
            .map(|address| base_address(address))
            .collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(AddressError::None);
        }
        let http = reqwest::Client::builder()
            // A proxy of the environment must not come between a machine and its own cluster.
            .no_proxy()
            .connect_timeout(CONNECT_TIME)
            .pool_idle_timeout(IDLE_TIME)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("quorate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(AddressError::Client)?;
        let shared = Shared {
            addresses,
            preferred: AtomicUsize::new(0),
            token,
            leader_time,
            call_time,
        };
        Ok(Self {
            http,
            shared: Arc::new(shared),
        })
    }

    /// The addresses it asks, `http://host:port` each.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.shared.addresses
    }
}

/// `http://host:port` of an address as a person writes it.
fn base_address(address: &str) -> Result<String, AddressError> {
    let given = address.trim();
    let refused = |why| AddressError::Refused {
        address: given.to_owned(),
        why,
    };
    if given.starts_with("https://") {
        return Err(refused("TLS is not supported yet; write http://"));
    }
    let rest = given.strip_prefix("http://").unwrap_or(given);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) || rest.contains("://") {
        return Err(refused("write host:port"));
    }
    let url =
        reqwest::Url::parse(&format!("http://{rest}")).map_err(|_| refused("write host:port"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refused("write host:port"));
    }
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    Ok(if has_port {
        format!("http://{rest}")
    } else {
        format!("http://{rest}:7400")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (given, base) in [
            ("127.0.0.1:7400", "http://127.0.0.1:7400"),
            (" d1 ", "http://d1:7400"),
            ("http://[::1]:7400/", "http://[::1]:7400"),
            ("[::1]", "http://[::1]:7400"),
        ] {
            assert_eq!(base_address(given).unwrap(), base);
        }
        for bad in [
            "",
            "https://d1",
            "ftp://d1",
            "d1/v1",
            "a b",
            "u@d1",
            "d1:99999",
        ] {
            assert!(base_address(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(Client::new(vec![], None), Err(AddressError::None)));
    }
}
