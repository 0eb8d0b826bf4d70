//! Networks of machines: each has one of its own, with a cable to the one in the middle, which is that of the
//! stage and passes on what one machine sends another. What is swallowed is swallowed there, so that whoever sent
//! it is told nothing.
//!
//! ```text
//! 10.77.N.2 (machine) ── cable ── 10.77.N.1 (the middle: relays, referee, commands) ── cables ── other machines
//! ```

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use crate::process::{Held, run, within};

/// How long the kernel may take for a network.
const MADE_WITHIN: Duration = Duration::from_secs(10);

/// The network of a machine. It is there as long as this is held.
#[derive(Debug)]
pub(crate) struct Network {
    holder: Held,
}

/// The end of a cable that is in the middle.
pub(crate) const fn middle(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, number, 1)
}

/// The end of a cable that is a machine's own.
pub(crate) const fn own(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, number, 2)
}

impl Network {
    /// Makes the network with this number.
    pub(crate) fn connect(number: u8) -> Result<Self> {
        let mut holder = Command::new("unshare");
        holder.args(["--net", "--", "sleep", "infinity"]);
        let holder = Held::start(holder.stdin(Stdio::null()))?;
        let pid = holder.pid().to_string();
        let other = format!("/proc/{pid}/ns/net");
        let here = fs::read_link("/proc/self/ns/net")?;
        within(MADE_WITHIN, "a network is there", || {
            (fs::read_link(&other).ok()? != here).then_some(())
        })?;
        let (middle, own) = (middle(number), own(number));
        let script = format!(
            "set -e
             ip link add cable{number} type veth peer name eth0 netns {pid}
             ip addr add {middle}/30 dev cable{number}
             ip link set cable{number} up
             nsenter --net={other} ip link set lo up
             nsenter --net={other} ip addr add {own}/30 dev eth0
             nsenter --net={other} ip link set eth0 up
             nsenter --net={other} ip route add default via {middle}"
        );
        run(Command::new("sh").args(["-c", &script]))?;
        Ok(Self { holder })
    }

    /// A process that is in it.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// Words before a command that is to be in it.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let net = format!("--net=/proc/{}/ns/net", self.pid());
        vec!["nsenter".into(), net.into(), "--".into()]
    }

    /// Gives it a further address, which then is itself for whoever is in it.
    pub(crate) fn adds(&self, address: Ipv4Addr) -> Result<()> {
        let mut words = self.words();
        let address = format!("{address}/32");
        words.extend(["ip", "addr", "add", &address, "dev", "lo"].map(OsString::from));
        run(&mut crate::stage::command(&words)?)?;
        Ok(())
    }
}

/// Swallows in the middle what one machine sends another, or no longer does.
pub(crate) fn swallow(from: Ipv4Addr, to: Ipv4Addr, cut: bool) -> Result<()> {
    let verb = if cut { "add" } else { "del" };
    let mut rule = Command::new("ip");
    rule.args(["rule", verb, "from", &from.to_string()]);
    run(rule.args(["to", &to.to_string(), "blackhole"]))?;
    Ok(())
}

/// Swallows what the middle itself sends a machine, or no longer does.
pub(crate) fn swallow_own(to: Ipv4Addr, cut: bool) -> Result<()> {
    let verb = if cut { "add" } else { "del" };
    let to = format!("{to}/32");
    run(Command::new("ip").args(["route", verb, "blackhole", &to]))?;
    Ok(())
}
