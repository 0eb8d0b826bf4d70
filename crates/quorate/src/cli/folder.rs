//! The data folder that `init` and `join` make: papers, a configuration file, and nothing that was there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use quorate_ledger::address::Address;
use quorate_pki::{FOLDER, Host};

use super::args::PlaceArgs;
use crate::daemon::next;
use crate::failure::{Code, Failure};

/// The configuration file, in the data folder.
pub(super) const CONFIG: &str = "quorate.toml";
/// What it is called until it is whole.
const DRAFT: &str = "quorate.toml.new";
/// Beside the port of the API.
const PEER_PORT: u16 = 7401;

/// Where a director listens and is reached, all of it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) listen: SocketAddr,
    pub(super) advertise: Option<String>,
    pub(super) peer_listen: SocketAddr,
    pub(super) peer_advertise: Option<String>,
    /// The store of the ledger, as it was said. The directors need not reach each other then, but by their APIs.
    pub(super) ledger: Option<Store>,
}

/// A store of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store {
    /// As it was said.
    said: String,
    pub(super) address: Address,
}

impl Store {
    /// What was said of a store.
    ///
    /// # Errors
    /// When it is no address, or has a password in it: the configuration file is for everybody to read.
    fn of(said: &str) -> Result<Self, Failure> {
        let address = crate::director::address(said)?;
        if password_in(said) {
            return Err(Failure::new(
                Code::Usage,
                "--ledger: the address has a password in it, and it is written into a file that everybody may read",
                "write the password into a file of its own, and ?password_file=FILE behind the address",
            ));
        }
        if let Some(option) = relative_file(said) {
            return Err(Failure::new(
                Code::Usage,
                format!("--ledger: the file of {option} is not given by its whole path"),
                "write the whole path: a daemon is started in another folder than this",
            ));
        }
        Ok(Self {
            said: said.to_owned(),
            address,
        })
    }
}

/// An option of an address that names a file by where this program happens to be.
fn relative_file(said: &str) -> Option<&str> {
    let (_, options) = said.split_once('?')?;
    let mut options = options
        .split('&')
        .filter_map(|option| option.split_once('='));
    let relative = options.find(|(name, value)| {
        ["ca", "cert", "key", "password_file"].contains(name)
            && !value.starts_with('/')
            && !value.starts_with("%2F")
    });
    relative.map(|(name, _)| name)
}

/// Whether there is more than a name before the hosts of an address.
fn password_in(said: &str) -> bool {
    let rest = said.split_once("://").map_or(said, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':'))
}

impl Place {
    /// What was said, and the usual for the rest.
    ///
    /// # Errors
    /// When others could not reach it so.
    pub(super) fn of(listen: SocketAddr, args: &PlaceArgs) -> Result<Self, Failure> {
        let beside = SocketAddr::new(listen.ip(), PEER_PORT);
        let place = Self {
            listen,
            advertise: args.advertise.clone(),
            peer_listen: args.peer_listen.unwrap_or(beside),
            peer_advertise: args.peer_advertise.clone(),
            ledger: args.ledger.as_deref().map(Store::of).transpose()?,
        };
        let unreachable = |address: SocketAddr, said: &Option<String>| {
            (address.ip().is_unspecified() || address.port() == 0) && said.is_none()
        };
        if unreachable(place.listen, &place.advertise) {
            return Err(nowhere("listen", "advertise", place.listen));
        }
        let peers = place.ledger.is_none();
        if peers && unreachable(place.peer_listen, &place.peer_advertise) {
            return Err(nowhere("peer-listen", "peer-advertise", place.peer_listen));
        }
        if peers && place.peer_listen == place.listen {
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "{} is one port, for the API and for other directors",
                    place.listen
                ),
                "choose another one with --peer-listen ADDR",
            ));
        }
        for said in [&place.advertise, &place.peer_advertise] {
            said.as_deref().map(host_of).transpose()?;
        }
        Ok(place)
    }

    /// Where its API is reached.
    pub(super) fn address(&self) -> String {
        self.advertise
            .clone()
            .unwrap_or_else(|| self.listen.to_string())
    }

    /// What its certificate says for programs that ask for an address.
    pub(super) fn hosts(&self) -> Result<Vec<Host>, Failure> {
        let mut hosts = Vec::new();
        if let Some(said) = &self.advertise {
            hosts.push(host_of(said)?);
        }
        let ip = self.listen.ip();
        if !ip.is_unspecified() {
            hosts.push(Host::Ip(ip));
        }
        if ip.is_loopback() {
            hosts.push(Host::Name("localhost".to_owned()));
        }
        Ok(hosts)
    }

    /// The keys of `[director]` that say where it is.
    pub(super) fn keys(&self) -> String {
        let said = |key: &str, value: &Option<String>, why: &str| match value {
            Some(value) => format!("{key} = {}\n", text(value)),
            None => format!("# {key} = \"{why}\"\n"),
        };
        let others = match &self.ledger {
            Some(store) => format!(
                "# The ledger, which the directors share.\nledger = {}\n",
                text(&store.said)
            ),
            None => format!(
                "# Directors among themselves.\npeer_listen = \"{}\"\n{}",
                self.peer_listen,
                said("peer_advertise", &self.peer_advertise, "d1.example:7401"),
            ),
        };
        format!(
            "# The API: agents, people and other directors. Beyond loopback it takes the certificates in pki/.\n\
             listen = \"{}\"\n\
             # Where others reach it, when that is another address.\n{}{others}",
            self.listen,
            said("advertise", &self.advertise, "d1.example:7400"),
        )
    }
}

fn nowhere(listen: &str, advertise: &str, address: SocketAddr) -> Failure {
    Failure::new(
        Code::Usage,
        format!("--{listen} {address} does not say where others reach it"),
        format!("say it with --{advertise} HOST:PORT"),
    )
}

/// The host of `host:port`.
fn host_of(address: &str) -> Result<Host, Failure> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let good = port.parse::<u16>().is_ok_and(|port| port > 0);
    let host = host.parse::<Host>().ok().filter(|_| good);
    host.ok_or_else(|| {
        Failure::new(
            Code::Usage,
            format!("{address:?} is not where others could reach a director"),
            "write HOST:PORT, without a scheme",
        )
    })
}

/// A string of TOML.
pub(super) fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

/// What a data folder must not hold when it becomes that of somebody new.
const TAKEN: [&str; 9] = [
    CONFIG,
    FOLDER,
    quorate_director::folded::FILE,
    "ledger",
    "history",
    "bootstrap-token.json",
    "identity.json",
    "wardens",
    "directors",
];

/// Whether a folder is somebody's; the first thing in it that says so.
pub(super) fn taken(data_dir: &Path) -> Option<PathBuf> {
    let mut all = TAKEN.iter().map(|name| data_dir.join(name));
    all.find(|path| path.exists() && !(path.ends_with(FOLDER) && is_blank(path)))
}

/// Whether a folder of papers holds nothing but drafts: whoever made it was killed at once.
fn is_blank(pki: &Path) -> bool {
    let is_draft = |entry: io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "new"))
    };
    std::fs::read_dir(pki).is_ok_and(|mut entries| entries.all(is_draft))
}

/// Makes a folder for its owner alone, with those above it.
pub(super) fn make(folder: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| unwritable(folder, &error))
}

/// Writes the configuration file whole or not at all: one that is there stays, so half of one would.
pub(super) fn write_config(data_dir: &Path, content: &str) -> Result<PathBuf, Failure> {
    let path = data_dir.join(CONFIG);
    let draft = data_dir.join(DRAFT);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&draft)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)?;
        File::open(data_dir)?.sync_all()
    };
    write().map_err(|error| {
        // It may be what has filled the disk; the next try writes over it.
        let _ = std::fs::remove_file(&draft);
        unwritable(&path, &error)
    })?;
    Ok(path)
}

pub(super) fn unwritable(path: &Path, error: &io::Error) -> Failure {
    unusable(format!("{} cannot be written: {error}", path.display()))
}

/// What is wrong with a data folder.
pub(super) fn unusable(why: String) -> Failure {
    Failure::new(Code::DataDir, why, next(Code::DataDir))
}

/// The address by which this machine reaches another, which is where the other reaches it, too, unless
/// something translates between them.
pub(super) async fn own_address(towards: &str) -> Option<IpAddr> {
    let target = towards.split_once("://").map_or(towards, |(_, rest)| rest);
    // A connected socket of UDP sends nothing; the system only chooses its address.
    for target in tokio::net::lookup_host(target).await.ok()? {
        let any: SocketAddr = if target.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = tokio::net::UdpSocket::bind(any).await.ok()?;
        if socket.connect(target).await.is_ok() {
            return socket.local_addr().ok().map(|address| address.ip());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(listen: &str, args: [Option<&str>; 3]) -> Result<Place, Failure> {
        let [advertise, peer_listen, peer_advertise] = args;
        let args = PlaceArgs {
            advertise: advertise.map(str::to_owned),
            peer_listen: peer_listen.map(|text| text.parse().unwrap()),
            peer_advertise: peer_advertise.map(str::to_owned),
            ledger: None,
        };
        Place::of(listen.parse().unwrap(), &args)
    }

    #[test]
    fn a_configuration_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        // Where it must be written first, nothing can be: as on a full disk.
        std::fs::create_dir(dir.path().join(DRAFT)).unwrap();
        let refused = write_config(dir.path(), "[agent]\n").unwrap_err();
        assert_eq!(refused.first.code, Code::DataDir);
        assert!(!dir.path().join(CONFIG).exists());
        std::fs::remove_dir(dir.path().join(DRAFT)).unwrap();
        // One who was killed in the middle has left something.
        std::fs::write(dir.path().join(DRAFT), "[agent]\nname = \"half").unwrap();
        let path = write_config(dir.path(), "[agent]\n").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "[agent]\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_password_comes_into_a_file_that_everybody_may_read() {
        for said in [
            "etcd://u:p@h/q",
            "postgres://u:@h",
            "consul://:p@h:1,i:2?x=y",
        ] {
            assert!(password_in(said), "{said}");
        }
        for said in [
            "etcd://h:1,i:2/q",
            "etcd://u@h:1/q?password_file=/a:b@c",
            "u:p",
        ] {
            assert!(!password_in(said), "{said}");
        }
    }

    #[test]
    fn files_of_a_store_are_named_by_their_whole_path() {
        let of = |options: &str| relative_file(&format!("etcd://h/q?{options}")).map(str::to_owned);
        assert_eq!(of("tls=true&ca=/a/b"), None);
        assert_eq!(of("ca=/a&cert=b.pem&key=/c"), Some("cert".to_owned()));
        assert_eq!(of("password_file=secret"), Some("password_file".to_owned()));
        assert_eq!(relative_file("etcd://h/q"), None);
    }

    #[test]
    fn a_folder_that_was_only_begun_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join(FOLDER);
        std::fs::create_dir(&pki).unwrap();
        assert_eq!(taken(dir.path()), None);
        std::fs::write(pki.join("request.pem.new"), "").unwrap();
        assert_eq!(taken(dir.path()), None);
        std::fs::write(pki.join("ca.pem"), "").unwrap();
        assert_eq!(taken(dir.path()), Some(pki));
    }

    #[test]
    fn a_place_is_where_others_can_reach_it() {
        let usual = place("10.0.0.1:7400", [None, None, None]).unwrap();
        assert_eq!(usual.peer_listen.to_string(), "10.0.0.1:7401");
        assert_eq!(usual.hosts().unwrap(), ["10.0.0.1".parse().unwrap()]);
        let named = [Some("d1.example:7400"), None, Some("d1.example:7401")];
        let named = place("0.0.0.0:7400", named).unwrap();
        assert_eq!(named.hosts().unwrap(), ["d1.example".parse().unwrap()]);
        for (listen, args) in [
            ("0.0.0.0:7400", [None, None, None]),
            ("0.0.0.0:7400", [Some("d1:7400"), None, None]),
            ("10.0.0.1:0", [None, None, None]),
            ("10.0.0.1:7400", [None, Some("10.0.0.1:7400"), None]),
            ("10.0.0.1:7400", [Some("https://d1:7400"), None, None]),
            ("10.0.0.1:7400", [Some("d1"), None, None]),
            ("10.0.0.1:7400", [Some("a b:1"), None, None]),
            ("10.0.0.1:7400", [None, None, Some("d1:0")]),
        ] {
            let refused = place(listen, args).unwrap_err();
            assert_eq!(refused.first.code, Code::Usage, "{listen} {args:?}");
        }
    }
}
