//! Clusters that are broken on purpose: the referee must find out, or it is worth nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cluster::{Cluster, Size, Wanted, offsets};
use crate::desk::Desk;
use crate::grade::Grade;
use crate::judge::Promise;
use crate::machine::Machine;
use crate::privileges::Privileges;
use crate::process::within;
use crate::register::Server;
use crate::stage::Stage;

/// How long anything here may take.
const WITHIN: Duration = Duration::from_secs(60);

/// One director is enough for that.
const SIZE: Size = Size {
    directors: 1,
    agents: 3,
    crowd: 0,
};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Broken {
    /// Two clusters that know nothing of each other run the same partitions.
    TwoClusters,
    /// A daemon hides from a warden that can only look for it, and both processes of the warden are killed:
    /// the documented hole of containment below `kernel`.
    HiddenDaemon,
}

/// Sets it up, and waits until the referee has found what it must.
pub(crate) fn bite(broken: Broken, program: &Path, stage: &Stage) -> Result<String> {
    let folder = stage.folder.as_path();
    let desk = Desk::open(folder, offsets(SIZE).collect())?;
    let register = Server::start(folder)?;
    let first = folder.join("c");
    let worker = std::env::current_exe()?;
    let wanted = Wanted {
        program,
        worker: &worker,
        stage,
        folder: &first,
        desk: folder,
        containment: match broken {
            Broken::TwoClusters => None,
            Broken::HiddenDaemon => Some("scan"),
        },
        grade: Grade::Kernel,
        privileges: &Privileges::default(),
        first: 0,
        size: SIZE,
        ledger: None,
    };
    let cluster = Cluster::start(&wanted)?;
    let all_run = || {
        let differs = desk.judge(|judge| judge.differs(&cluster.wanted()));
        differs.is_empty().then_some(())
    };
    within(WITHIN, "everything runs", all_run)?;
    // The first tokens of every cluster are the same; now some are higher than any of the second one.
    cluster.quorate(&["drain", "a1", "--wait", "30s"])?;
    within(WITHIN, "everything runs elsewhere", all_run)?;
    if let Some(early) = desk.judge(|judge| judge.violations.first().cloned()) {
        bail!("it was broken before anything was: {early:?}");
    }
    let second = match broken {
        Broken::TwoClusters => {
            let folder = folder.join("d");
            Some(Cluster::start(&Wanted {
                folder: &folder,
                first: 100,
                ..wanted
            })?)
        }
        Broken::HiddenDaemon => {
            let machines = cluster.machines.iter();
            machines.for_each(Machine::kill_whole_wardens);
            None
        }
    };
    let found = within(WITHIN, "the referee finds two copies", || {
        desk.judge(|judge| {
            let all = judge.violations.iter();
            all.filter(|one| one.promise == Promise::S1)
                .map(|one| one.text.clone())
                .next()
        })
    })?;
    if broken == Broken::TwoClusters {
        within(WITHIN, "the register finds writes out of order", || {
            (register.look().late > 0).then_some(())
        })?;
    }
    drop((cluster, second));
    desk.kill_all();
    Ok(found)
}
