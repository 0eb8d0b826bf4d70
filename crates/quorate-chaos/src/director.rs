//! A director of the cluster, with its folder, in a network and a control group and on a disk of its own as far
//! as this host allows that. It is started as `docs/cluster.md` has it.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::faults::BOTH;
use crate::link::Link;
use crate::machine::{PORT, Place, log};
use crate::net::{Network, middle, own};
use crate::process::{Held, run};
use crate::stage::{Stage, command, inside_group};
use crate::store;

/// The data folder of a director with a small disk: it has room for two pieces of its ledger and for all the history that
/// it keeps, which is full after an hour of hundreds of partitions.
const SMALL_DISK: &str = "size=112m";
/// Numbers of networks of directors begin so much above those of their agents.
const NUMBERS: u8 = 50;

/// Where the API of a director listens: at the address of its machine, or where there are no networks, at an
/// address of loopback that other runs do not use.
pub(crate) fn address(stage: &Stage, first: u8, at: u8) -> SocketAddr {
    let number = first + NUMBERS + at;
    let ip = if stage.private {
        own(number)
    } else {
        let run = std::process::id().to_be_bytes();
        let part = |at: usize| run.get(at).copied().unwrap_or_default();
        Ipv4Addr::new(127, part(2) | 1, part(3), number)
    };
    SocketAddr::from((ip, PORT))
}

/// Relays at this address to each server of a store, and the address of the ledger by them.
fn ways(here: IpAddr, store: &store::At) -> Result<(String, Vec<Link>)> {
    let relays = (store::PORT..).zip(&store.servers);
    let relays: Vec<_> = relays
        .map(|(port, &server)| (SocketAddr::from((here, port)), server))
        .collect();
    let links = relays
        .iter()
        .map(|&(relay, server)| Link::open(relay, server));
    let links = links.collect::<Result<_>>()?;
    let relays: Vec<SocketAddr> = relays.into_iter().map(|(relay, _)| relay).collect();
    Ok((store.kind.url(&relays), links))
}

/// A director.
#[derive(Debug)]
pub(crate) struct Director {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    place: Place,
    network: Option<Network>,
    group: Option<PathBuf>,
    small_disk: bool,
    /// The ways to the servers of the store, where directors share one.
    store: Vec<Link>,
    /// The address of the ledger there.
    ledger: Option<String>,
    process: Option<Held>,
}

impl Director {
    /// Makes the machine of one, with nothing in its folder.
    pub(crate) fn new(place: &Place, first: u8, at: u8, small_disk: bool) -> Result<Self> {
        let number = first + NUMBERS + at;
        let name = format!("d{}", at + 1);
        let network = place.stage.private.then(|| Network::connect(number));
        let group = place.stage.group.as_ref().map(|above| above.join(&name));
        if let Some(group) = &group {
            fs::create_dir_all(group)?;
        }
        let network = network.transpose()?;
        let address = address(&place.stage, first, at);
        let (ledger, store) = match &place.store {
            None => (None, Vec::new()),
            Some(store) => {
                let here = match (&network, address) {
                    (Some(_), _) => middle(number).into(),
                    (None, address) => address.ip(),
                };
                let (ledger, links) = ways(here, store)?;
                (Some(ledger), links)
            }
        };
        let director = Self {
            address,
            network,
            store,
            ledger,
            group,
            small_disk: small_disk && place.stage.private,
            process: None,
            place: place.clone(),
            name,
        };
        if director.small_disk {
            fs::create_dir_all(director.folder())?;
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", SMALL_DISK, "chaos"]);
            run(mount.arg(director.folder()))?;
        }
        Ok(director)
    }

    /// Its data folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.place.folder.join(&self.name)
    }

    pub(crate) const fn has_small_disk(&self) -> bool {
        self.small_disk
    }

    /// The file that fills its disk.
    pub(crate) fn filler(&self) -> PathBuf {
        self.folder().join("filler")
    }

    /// Its address without the port.
    pub(crate) fn ip(&self) -> Ipv4Addr {
        match self.address {
            SocketAddr::V4(address) => *address.ip(),
            SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// A command of the program on its machine.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(group) = &self.group {
            words.extend(inside_group(group));
        }
        words.extend(self.network.iter().flat_map(Network::words));
        words.push(self.place.program.clone().into());
        let mut command = command(&words)?;
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// What `init` and `join` are told of where it listens and keeps what it has.
    pub(crate) fn settles(&self, command: &mut Command) {
        command.arg("--data-dir").arg(self.folder());
        command.args(["--listen", &self.address.to_string()]);
        if let Some(ledger) = &self.ledger {
            command.args(["--ledger", ledger]);
        }
    }

    /// Cuts it from the store, or heals that.
    pub(crate) fn cut_store(&self, cut: bool) {
        for (link, &way) in self
            .store
            .iter()
            .flat_map(|link| BOTH.iter().map(move |way| (link, way)))
        {
            link.cut(way, cut);
        }
    }

    /// Makes each piece between it and the store take so many milliseconds.
    pub(crate) fn slow_store(&self, millis: u64) {
        for link in &self.store {
            link.delay(millis);
        }
    }

    /// Starts it.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command = self.command()?;
        command
            .args(["director", "--config"])
            .arg(self.folder().join("quorate.toml"))
            .arg("--source-root")
            .arg(&self.place.folder)
            .stdout(Stdio::null())
            .stderr(log(&self.place.folder, &self.name)?);
        self.process = Some(Held::start(&mut command)?);
        Ok(())
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }

    /// How it ended, if it has done that by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Held::ended)
    }

    /// Empties its folder, as of a machine that is replaced.
    pub(crate) fn empty(&self) -> Result<()> {
        for entry in fs::read_dir(self.folder())? {
            let path = entry?.path();
            let gone = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            gone.with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}
