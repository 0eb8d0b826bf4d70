//! A machine of the cluster: an agent with its folder, in a network, a control group, a time namespace and on
//! a disk of its own as far as this host allows that.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::grade::Grade;
use crate::link::{Link, Way};
use crate::net::{Network, middle, own};
use crate::privileges::Privileges;
use crate::process::{Held, OfWarden, Part, of_wardens, run, tell, within};
use crate::stage::{EMPTY_WITHIN, Stage, command, inside_group, remove_groups};
use crate::store;
use crate::times::Times;

/// Port of the directors' APIs, and of the relays to the first of them.
pub(crate) const PORT: u16 = 7400;
/// How far the clock of one machine is ahead of the others', in seconds.
const AHEAD: i64 = 86_400;

/// What a machine is like.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) name: String,
    /// Number of its network.
    pub(crate) number: u8,
    /// How long its wardens wait for the next agent process.
    pub(crate) adopt_within: Duration,
    /// MiB of its disk, when that is small.
    pub(crate) small_disk: Option<u32>,
    /// Whether its clock is ahead.
    pub(crate) ahead: bool,
}

/// Where everything of a cluster is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The program of the product.
    pub(crate) program: PathBuf,
    /// What runs execute.
    pub(crate) worker: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) stage: Stage,
    /// Where the directors listen.
    pub(crate) directors: Vec<SocketAddr>,
    /// The containment that wardens are asked for, when it is not the best one that they can have.
    pub(crate) containment: Option<&'static str>,
    /// The grade that agents must earn.
    pub(crate) grade: Grade,
    /// What they have for that.
    pub(crate) privileges: Privileges,
    /// The store that the directors share for their ledger.
    pub(crate) store: Option<store::At>,
    pub(crate) times: Times,
}

impl Place {
    /// Where the directors are, as commands are told.
    pub(crate) fn addresses(&self) -> String {
        let all: Vec<String> = self.directors.iter().map(SocketAddr::to_string).collect();
        all.join(",")
    }
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) kind: Kind,
    place: Place,
    /// The ways to the directors, in their order, where it has a network.
    pub(crate) links: Vec<Link>,
    network: Option<Network>,
    pub(crate) group: Option<PathBuf>,
    pub(crate) agent: Option<Held>,
}

/// Nanoseconds from the clock of a machine that is ahead to that of the referee, where this host can do that
/// at all.
pub(crate) fn offset(ahead: bool) -> i64 {
    if ahead && clocks_can_differ() {
        -AHEAD * 1_000_000_000
    } else {
        0
    }
}

fn ahead_words() -> [OsString; 5] {
    let ahead = AHEAD.to_string();
    ["unshare", "--time", "--boottime", &ahead, "--"].map(OsString::from)
}

/// Whether a program can be started in a time namespace of its own.
pub(crate) fn clocks_can_differ() -> bool {
    let uptime = |text: &str| text.split(['.', ' ']).next()?.parse::<i64>().ok();
    let here = fs::read_to_string("/proc/uptime").ok();
    let mut words = ahead_words().to_vec();
    words.extend(["cat", "/proc/uptime"].map(OsString::from));
    let there = command(&words).and_then(|mut command| run(command.stderr(Stdio::null())));
    let (Some(here), Ok(there)) = (here, there) else {
        return false;
    };
    uptime(&here)
        .zip(uptime(&there))
        .is_some_and(|(here, there)| there - here >= AHEAD)
}

impl Machine {
    /// Makes it, with nothing running.
    pub(crate) fn new(kind: Kind, place: &Place) -> Result<Self> {
        let number = kind.number;
        let network = place.stage.private.then(|| Network::connect(number));
        let network = network.transpose()?;
        let links = match &network {
            None => Vec::new(),
            Some(network) => links(network, number, &place.directors)?,
        };
        let group = place
            .stage
            .group
            .as_ref()
            .map(|above| above.join(&kind.name));
        if let Some(group) = &group {
            make_group(group, place)?;
        }
        let machine = Self {
            links,
            network,
            group,
            agent: None,
            kind,
            place: place.clone(),
        };
        fs::create_dir_all(machine.folder())?;
        if machine.has_small_disk()
            && let Some(size) = machine.kind.small_disk
        {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={size}m"), "chaos"]);
            run(mount.arg(machine.folder()))?;
        }
        place.privileges.give(&machine.folder())?;
        Ok(machine)
    }

    pub(crate) fn name(&self) -> &str {
        &self.kind.name
    }

    /// Its data folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.place.folder.join(&self.kind.name)
    }

    pub(crate) fn has_small_disk(&self) -> bool {
        self.kind.small_disk.is_some() && self.place.stage.private
    }

    pub(crate) fn has_network(&self) -> bool {
        self.network.is_some()
    }

    pub(crate) fn adopts(&self) -> bool {
        !self.kind.adopt_within.is_zero()
    }

    /// Lets it in: its folder is then that of an agent of the cluster.
    pub(crate) fn join(&self, token: &Path) -> Result<()> {
        self.place.privileges.give(token)?;
        let mut words: Vec<OsString> = self.network_words();
        words.extend(self.place.privileges.words());
        words.push(self.place.program.clone().into());
        words.extend(["join".into(), self.place.addresses().into()]);
        words.extend(["--name", self.name(), "--join-token-file"].map(OsString::from));
        words.extend([token.into(), "--data-dir".into(), self.folder().into()]);
        run(command(&words)?.env_clear().stdin(Stdio::null()))?;
        Ok(())
    }

    /// Cuts these ways to one director, or heals them.
    pub(crate) fn cut(&self, director: usize, ways: &[Way], cut: bool) -> Result<()> {
        let Some(link) = self.links.get(director) else {
            bail!("{} has no way of its own to a director", self.name());
        };
        for &way in ways {
            link.cut(way, cut);
        }
        Ok(())
    }

    /// Starts its agent.
    pub(crate) fn start(&mut self) -> Result<()> {
        let folder = self.folder();
        self.agent = Some(self.start_with(&folder, true)?);
        Ok(())
    }

    /// Starts an agent on this folder; on this machine, or beside it, in the middle.
    pub(crate) fn start_with(&self, folder: &Path, here: bool) -> Result<Held> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(group) = &self.group {
            words.extend(inside_group(group));
        }
        if here {
            words.extend(self.network_words());
        }
        if offset(self.kind.ahead) != 0 {
            words.extend(ahead_words());
        }
        words.extend(self.place.privileges.words());
        words.push(self.place.program.clone().into());
        words.extend(["agent", "--name", self.name(), "--data-dir"].map(OsString::from));
        words.push(folder.into());
        words.extend(["--join".into(), self.place.addresses().into()]);
        let adopt = format!("{}ms", self.kind.adopt_within.as_millis());
        words.extend(["--adopt-within".into(), adopt.into()]);
        let mut command = command(&words)?;
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        if let Some(containment) = self.place.containment {
            command.env("QUORATE_WARDEN_CONTAINMENT", containment);
        }
        let log = log(&self.place.folder, self.name())?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Held::start(&mut command)
    }

    /// Words before a command that is to be in the network of this machine.
    fn network_words(&self) -> Vec<OsString> {
        self.network.iter().flat_map(Network::words).collect()
    }

    /// Adds or deletes routes that swallow what goes this way. Both ends know the other by its address.
    pub(crate) fn blackhole(&self, way: Way, cut: bool) -> Result<()> {
        let number = self.kind.number;
        let (mut words, to) = match way {
            Way::Up => (self.network_words(), middle(number)),
            Way::Down => (Vec::new(), own(number)),
        };
        let verb = if cut { "add" } else { "del" };
        let to = format!("{to}/32");
        words.extend(["ip", "route", verb, "blackhole", &to].map(OsString::from));
        run(&mut command(&words)?)?;
        Ok(())
    }

    /// Sends its agent a signal.
    pub(crate) fn signal_agent(&mut self, signal: Signal) {
        if let Some(agent) = &mut self.agent {
            agent.signal(signal);
        }
    }

    /// Kills its agent.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill();
        }
    }

    /// The processes of its wardens.
    pub(crate) fn wardens(&self) -> Vec<OfWarden> {
        of_wardens(&self.folder())
    }

    /// Kills both processes of each of its wardens.
    pub(crate) fn kill_whole_wardens(&self) {
        let wardens = self.wardens();
        for part in [Part::Timekeeper, Part::Holder] {
            for one in wardens.iter().filter(|one| one.part == part) {
                tell(one.pid, Signal::KILL);
            }
        }
    }

    /// Kills everything that a machine without power loses: with namespaces it is gone with the timekeepers, else with
    /// the control group.
    pub(crate) fn kill_everything(&mut self) {
        if let Some(group) = self.group.as_ref().filter(|_| self.place.grade.is_lower()) {
            // Without it nothing here is below `kernel`: that is looked at before a machine is lost.
            let _none = fs::write(group.join("cgroup.kill"), "1");
        }
        self.kill_agent();
        let timekeepers = self.wardens().into_iter();
        for one in timekeepers.filter(|one| one.part == Part::Timekeeper) {
            tell(one.pid, Signal::KILL);
        }
    }

    /// Gives it a new control group, as when it is switched on again: below one that was killed as a whole nothing can be
    /// forked into a group of its own any more (Linux since 2025).
    pub(crate) fn renew_group(&self) -> Result<()> {
        let Some(group) = self.group.as_ref().filter(|_| self.place.grade.is_lower()) else {
            return Ok(());
        };
        within(EMPTY_WITHIN, "a control group is empty", || {
            remove_groups(group).ok()
        })?;
        make_group(group, &self.place)
    }

    /// Freezes its control group, or thaws it.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let group = self.group.as_ref().context("no control group")?;
        fs::write(group.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
        Ok(())
    }
}

/// Makes the control group of a machine.
fn make_group(group: &Path, place: &Place) -> Result<()> {
    fs::create_dir_all(group)?;
    if place.grade == Grade::Cgroup {
        place.privileges.give_group(group)?;
    }
    Ok(())
}

/// A file for what a daemon says.
pub(crate) fn log(folder: &Path, name: &str) -> Result<fs::File> {
    let path = folder.join(format!("{name}.log"));
    Ok(fs::File::options().create(true).append(true).open(path)?)
}

/// Relays between a machine and each director: the machine has the address of each director itself, and what it
/// sends there goes by a relay at each end of its cable.
fn links(network: &Network, number: u8, directors: &[SocketAddr]) -> Result<Vec<Link>> {
    let link = |(port, &director): (u16, &SocketAddr)| {
        if let SocketAddr::V4(director) = director {
            network.adds(*director.ip())?;
        }
        let far = SocketAddr::from((middle(number), port));
        Link::open(far, director)?;
        Link::open_inside(network.pid(), director, far)
    };
    (PORT..).zip(directors).map(link).collect()
}
