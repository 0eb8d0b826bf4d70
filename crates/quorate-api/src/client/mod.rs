//! The client over HTTP: one for people's commands, for agents, and for anything else in Rust.
//!
//! It knows all directors, asks one after the other, follows hints to the leader, puts a time limit on
//! everything, and says honestly when it cannot know whether a write was done. It must never repeat a
//! write that may have been done already unless repeating is harmless.

mod access;
mod backup;
mod eras;
mod error;
mod events;
mod logs;
mod near;
mod resources;
mod sessions;
mod tls;
mod transport;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use backup::BackupStream;
pub use eras::Eras;
pub use error::{AddressError, Error};
pub use events::{EventStream, Followed};
pub use logs::{LogFilter, LogStream};
pub use resources::{AgentFilter, EventFilter, Indexed, PartitionFilter, Wait};
pub use tls::{Trouble, distrusting};

/// How long a call without a wait of its own may take at one director.
pub const CALL_TIME: Duration = Duration::from_secs(30);
/// How long connecting may take.
pub const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long an unused connection is kept: shorter than directors do (10 s), so that no request is sent on
/// one that is just being closed, whose outcome would then be unknown.
const IDLE_TIME: Duration = Duration::from_secs(8);
/// How long the client looks for a leader while directors answer that there is none.
pub const LEADER_TIME: Duration = Duration::from_secs(5);

/// The most addresses that are asked in turn: more directors than a cluster may have.
const ADDRESSES_MAX: usize = 64;

/// Talks to the directors. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Base addresses that it was made with, `http://host:port` or `https://host:port`.
    given: Vec<String>,
    /// Those and what was learned since.
    addresses: RwLock<Arc<[String]>>,
    scheme: Scheme,
    /// Which of them answered last.
    preferred: AtomicUsize,
    token: Option<String>,
    leader_time: Duration,
    call_time: Duration,
    stale_reads: bool,
    /// A read was answered without a leader.
    stale: AtomicBool,
    eras: Option<Eras>,
}

impl Shared {
    /// Which address is asked first.
    fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    fn prefer(&self, at: usize) {
        self.preferred.store(at, Ordering::Relaxed);
    }
}

/// What a client may be told beside the addresses.
#[derive(Clone, Debug)]
pub struct Options {
    /// API token.
    pub token: Option<String>,
    /// Whom `https://` addresses are believed, and what is shown to them; nobody when `None`. With it an
    /// address without a scheme means `https://`, without it `http://`.
    pub tls: Option<rustls::ClientConfig>,
    /// How long one call may take.
    pub call_time: Duration,
    /// How long to look for a leader.
    pub leader_time: Duration,
    /// When no leader was found, let reads be answered by any director from what it knows, which may be of the
    /// past. [`Client::is_stale`] tells whether that was so.
    pub stale_reads: bool,
    /// The highest era that was seen: directors of lower ones are not believed. Everybody is when `None`.
    pub eras: Option<Eras>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            tls: None,
            call_time: CALL_TIME,
            leader_time: LEADER_TIME,
            stale_reads: false,
            eras: None,
        }
    }
}

/// What an address without a scheme means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }
}

impl Client {
    /// A client of the directors at these addresses (`host:port`, or with `http://` before it), with an
    /// API token if there is one.
    ///
    /// # Errors
    /// When there is no address, or one of them cannot be used.
    pub fn new(addresses: Vec<String>, token: Option<String>) -> Result<Self, AddressError> {
        let options = Options {
            token,
            ..Options::default()
        };
        Self::with(addresses, options)
    }

    /// The same with all that it may be told.
    ///
    /// # Errors
    /// When there is no address, or one of them cannot be used.
    pub fn with(addresses: Vec<String>, options: Options) -> Result<Self, AddressError> {
        let Options {
            token,
            tls,
            call_time,
            leader_time,
            stale_reads,
            eras,
        } = options;
        let scheme = if tls.is_some() {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let addresses = addresses
            .iter()
            .map(|address| base_address(address, scheme))
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
            .tls_backend_preconfigured(tls.unwrap_or_else(distrusting))
            // A connection carries one call at a time: what waits must not be in the way of a renewal.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("quorate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(AddressError::Client)?;
        let shared = Shared {
            given: addresses.clone(),
            addresses: RwLock::new(addresses.into()),
            scheme,
            preferred: AtomicUsize::new(0),
            token,
            leader_time,
            call_time,
            stale_reads,
            stale: AtomicBool::new(false),
            eras,
        };
        Ok(Self {
            http,
            shared: Arc::new(shared),
        })
    }

    /// The same that waits for no leader, and for no answer longer than this: for whoever measures.
    #[must_use]
    pub fn impatient(&self, call_time: Duration) -> Self {
        let shared = Shared {
            given: self.shared.given.clone(),
            addresses: RwLock::new(self.addresses()),
            scheme: self.shared.scheme,
            preferred: AtomicUsize::new(0),
            token: self.shared.token.clone(),
            leader_time: Duration::ZERO,
            call_time,
            stale_reads: false,
            stale: AtomicBool::new(false),
            eras: self.shared.eras.clone(),
        };
        Self {
            http: self.http.clone(),
            shared: Arc::new(shared),
        }
    }

    /// The addresses it asks, `http://host:port` or `https://host:port` each.
    #[must_use]
    pub fn addresses(&self) -> Arc<[String]> {
        let addresses = self.shared.addresses.read();
        Arc::clone(&addresses.unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether something that this client read was told without a leader, and so may be of the past.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.shared.stale.load(Ordering::Relaxed)
    }

    /// Asks these directors as well as those that it was made with, and no others; the one that `first` picks
    /// comes first, so that many clients spread over all. What is no address is left out. Tells whether
    /// anything is new.
    pub fn learn(&self, directors: &[String], first: u64) -> bool {
        let mut all = self.shared.given.clone();
        for address in directors {
            if let Ok(base) = base_address(address, self.shared.scheme)
                && !all.contains(&base)
                && all.len() < ADDRESSES_MAX
            {
                all.push(base);
            }
        }
        if *self.addresses() == *all {
            return false;
        }
        let count = all.len() as u64;
        // Less than the count, which is small.
        let first = usize::try_from(first % count).unwrap_or_default();
        let known = self.shared.addresses.write();
        // It is replaced in one step, so a poisoned one is whole.
        *known.unwrap_or_else(PoisonError::into_inner) = all.into();
        self.shared.prefer(first);
        true
    }
}

/// `http://host:port` or `https://host:port` of an address as a person writes it.
fn base_address(address: &str, scheme: Scheme) -> Result<String, AddressError> {
    let given = address.trim();
    let refused = |why| AddressError::Refused {
        address: given.to_owned(),
        why,
    };
    let named = [Scheme::Http, Scheme::Https]
        .into_iter()
        .find_map(|scheme| Some((scheme, given.strip_prefix(scheme.prefix())?)));
    let (scheme, rest) = named.unwrap_or((scheme, given));
    let scheme = scheme.prefix();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) || rest.contains("://") {
        return Err(refused("write host:port"));
    }
    let url =
        reqwest::Url::parse(&format!("{scheme}{rest}")).map_err(|_| refused("write host:port"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refused("write host:port"));
    }
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    Ok(if has_port {
        format!("{scheme}{rest}")
    } else {
        format!("{scheme}{rest}:7400")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_is_asked_beside_what_was_given() {
        let client = Client::new(vec!["d1".to_owned()], None).unwrap();
        let learn = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            client.learn(&names, 5)
        };
        assert!(!learn(&["d1:7400"]), "it is the one that was given");
        assert!(learn(&["d2", "http://d1:7400", "d3", "no address"]));
        let all = ["http://d1:7400", "http://d2:7400", "http://d3:7400"];
        assert_eq!(*client.addresses(), all);
        assert_eq!(client.shared.preferred(), 2);
        assert!(!learn(&["d2", "d3"]));
        assert!(learn(&["d3"]), "one that was removed is forgotten");
        assert_eq!(*client.addresses(), ["http://d1:7400", "http://d3:7400"]);
    }

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (given, base) in [
            ("127.0.0.1:7400", "http://127.0.0.1:7400"),
            (" d1 ", "http://d1:7400"),
            ("http://[::1]:7400/", "http://[::1]:7400"),
            ("[::1]", "http://[::1]:7400"),
            ("https://d1/", "https://d1:7400"),
        ] {
            assert_eq!(base_address(given, Scheme::Http).unwrap(), base);
        }
        let secure = |given| base_address(given, Scheme::Https).unwrap();
        assert_eq!(secure("d1"), "https://d1:7400");
        assert_eq!(secure("http://127.0.0.1:1"), "http://127.0.0.1:1");
        for bad in [
            "", "https://", "ftp://d1", "d1/v1", "a b", "u@d1", "d1:99999",
        ] {
            assert!(base_address(bad, Scheme::Http).is_err(), "{bad:?}");
        }
        assert!(matches!(Client::new(vec![], None), Err(AddressError::None)));
    }
}
