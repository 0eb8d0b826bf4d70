//! `director`, `agent`, `warden`: the daemons.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use quorate_core::format::{FORMATS, Format, Unread};
use quorate_core::ids::{AgentName, DirectorName, NameError};
use quorate_core::spec::constraint::CONTAINMENT_LABEL;
use tokio_util::sync::CancellationToken;

use super::args::{AgentArgs, DirectorArgs, Global};
use super::doctor::warn_at_start;
use super::remote::{DEFAULT_ADDRESS, addresses};
use crate::config::{self, AllowSection, LogSection};
use crate::daemon;
use crate::director::{Director, Home, Peering, address};
use crate::failure::{Code, Exit, Failure, chain};
use crate::telemetry;

/// How long a warden waits for the next agent process where something starts one.
const ADOPT_UNDER_MANAGER: Duration = Duration::from_secs(5);

/// Serves as a warden. Called before anything has made a second thread.
pub(crate) fn warden(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let options = daemon::program().and_then(|program| {
        quorate_agent::warden::Options::from_args(program, arguments)
            .map_err(|error| Failure::new(Code::Usage, error, "agents start them by themselves"))
    });
    match options {
        Ok(options) => quorate_agent::warden::run(&options),
        Err(failure) => {
            crate::output::report(&failure);
            failure.exit().into()
        }
    }
}

fn start_logging(global: &Global, section: &LogSection) -> Result<(), Failure> {
    let level = global.log_level.as_ref().or(section.level.as_ref());
    let level = level.map_or("info", String::as_str);
    let format = global.log_format.or(section.format).unwrap_or_default();
    telemetry::start(level, format)
}

/// The name of this machine, which is the name of its daemons when nobody says another.
pub(super) fn host_name<N>(make: impl Fn(&str) -> Result<N, NameError>) -> Result<N, Failure> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    make(text.trim()).map_err(|error| {
        Failure::new(
            Code::Usage,
            format!("the host's name {:?} cannot be used: {error}", text.trim()),
            "choose a name with --name",
        )
    })
}

fn no_data_dir() -> Failure {
    Failure::new(
        Code::Usage,
        "no data folder was given",
        "choose one with --data-dir DIR; it must survive restarts",
    )
}

pub(super) fn director(args: DirectorArgs, global: &Global) -> Result<Exit, Failure> {
    let file = config::read(args.config.as_deref())?;
    start_logging(global, &file.log)?;
    let section = file.director;
    let name = match args.name.or(section.name) {
        Some(name) => name,
        None => host_name(DirectorName::new)?,
    };
    let data_dir = args.data_dir.or(section.data_dir).ok_or_else(no_data_dir)?;
    let listen = args.listen.or(section.listen);
    let listen = listen.unwrap_or_else(|| std::net::SocketAddr::from(([127, 0, 0, 1], 7400)));
    let mut config = quorate_director::Config::new(name, daemon::absolute(&data_dir)?, listen);
    config.advertise = args.advertise.or(section.advertise);
    if let Some(format) = args.hold_format.or(section.hold_format) {
        config.formats = FORMATS.held_at(Format(format)).map_err(unheld)?;
    }
    let mut join = args.join;
    join.retain(|address| !address.trim().is_empty());
    let store = args.ledger.or(section.ledger);
    let peering = args
        .peer_listen
        .or(section.peer_listen)
        .map(|listen| Peering {
            listen,
            advertise: args.peer_advertise.or(section.peer_advertise),
            join: if join.is_empty() { section.join } else { join },
            learner: args.learner || section.learner,
            priority: args.priority.or(section.priority),
        });
    let home = match (store, peering) {
        (None, None) => Home::Alone,
        (None, Some(peering)) => Home::Quorum(peering),
        (Some(store), None) => Home::Store(Box::new(address(&store)?)),
        (Some(_), Some(_)) => {
            return Err(Failure::new(
                Code::Config,
                "ledger and peer_listen: directors over a store need no port for each other",
                "leave one of them out",
            ));
        }
    };
    config.source_roots = if args.source_root.is_empty() {
        section.source_root
    } else {
        args.source_root
    };
    for (name, hook) in section.fence {
        let hook = hook.hook(&name)?;
        config.fences.insert(name, hook);
    }
    daemon::threads()?.block_on(async {
        let leave = daemon::leave_on_signal(|| ())?;
        let data_dir = config.data_dir.clone();
        let director = tokio::select! {
            opened = Director::open(config, home) => opened?,
            // It may wait for its store.
            () = leave.cancelled() => return Ok(()),
        };
        warn_at_start(&data_dir);
        director.run(leave).await
    })?;
    Ok(Exit::Done)
}

/// The format at which the ledger is to be held is none that this version reads.
fn unheld(unread: Unread) -> Failure {
    let Unread { found, read } = unread;
    Failure::new(
        Code::Config,
        format!("hold_format: this version does not read format {found} of the ledger, but {read}"),
        "`quorate cluster status` shows the format that the ledger has; leave hold_format out to hold nothing",
    )
}

pub(super) fn agent(args: AgentArgs, global: &Global) -> Result<Exit, Failure> {
    if let Some(dir) = &args.last_will {
        return last_will(dir);
    }
    let tied = args.tied;
    let file = config::read(args.config.as_deref())?;
    start_logging(global, &file.log)?;
    let section = file.agent;
    let name = match args.name.or(section.name) {
        Some(name) => name,
        None => host_name(AgentName::new)?,
    };
    let data_dir = args.data_dir.or(section.data_dir).ok_or_else(no_data_dir)?;
    let mut join = args.join;
    join.retain(|address| !address.trim().is_empty());
    if join.is_empty() {
        join = section.join;
    }
    if join.is_empty() {
        join = addresses(global);
    }
    if join.is_empty() {
        join.push(DEFAULT_ADDRESS.to_owned());
    }
    let labels = if args.labels.is_empty() {
        section.label
    } else {
        BTreeMap::from_iter(args.labels)
    };
    if labels.contains_key(CONTAINMENT_LABEL) {
        return Err(Failure::new(
            Code::Config,
            format!("agent.label.{CONTAINMENT_LABEL}: every agent has this label by itself"),
            "leave it out; `quorate doctor` shows its value here",
        ));
    }
    let adopt_within = args.adopt_within.or(section.adopt_within);
    let allow = AllowSection {
        services: said(args.allow_services, section.allow.services),
        commands: said(args.allow_commands, section.allow.commands),
        users: said(args.allow_users, section.allow.users),
        directories: said(args.allow_directories, section.allow.directories),
        root: args.allow_root.or(section.allow.root),
    };
    let ca_file = global.ca_file.clone().or(section.ca_file);
    let config = quorate_agent::Config {
        name,
        data_dir: daemon::absolute(&data_dir)?,
        join,
        labels,
        capacity: args.capacity.or(section.capacity),
        allow: allow.allow()?,
        adopt_within: adopt_within.map_or_else(usual_adoption, |span| span.0),
        ca_file: ca_file.as_deref().map(daemon::absolute).transpose()?,
        program: daemon::program()?,
        token: global.token.clone(),
    };
    if !tied {
        // Of one machine `up` says it once.
        warn_at_start(&config.data_dir);
    }
    let runtime = daemon::threads()?;
    let ended = runtime.block_on(async {
        let stops = quorate_agent::Stops {
            leave: daemon::leave_on_signal(|| ())?,
            hand_over: CancellationToken::new(),
        };
        if tied {
            watch_parent(stops.hand_over.clone())?;
        }
        let ended = quorate_agent::run(config, stops).await;
        ended.map_err(daemon::of_agent)
    });
    // Nothing that still waits may keep the process.
    runtime.shutdown_background();
    ended.map(|()| Exit::Done)
}

/// What was said on the command line, or else in the file.
fn said<T>(given: Vec<T>, kept: Option<Vec<T>>) -> Option<Vec<T>> {
    if given.is_empty() { kept } else { Some(given) }
}

/// How long wardens wait for the next agent process when nobody says.
fn usual_adoption() -> Duration {
    if std::env::var_os("INVOCATION_ID").is_some() {
        // systemd sets it for every service, and starts an agent that died again.
        ADOPT_UNDER_MANAGER
    } else {
        Duration::ZERO
    }
}

/// Standard input is a pipe that `up` holds and never writes to: its end is the end of `up`, however
/// that came.
fn watch_parent(gone: CancellationToken) -> Result<(), Failure> {
    std::thread::Builder::new()
        .name("parent".to_owned())
        .spawn(move || {
            let mut stdin = std::io::stdin().lock();
            let mut byte = [0];
            while stdin.read(&mut byte).is_ok_and(|count| count > 0) {}
            gone.cancel();
        })
        .map(|_thread| ())
        .map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("a thread cannot be started: {error}"),
                "look at the limits of this machine (threads)",
            )
        })
}

fn last_will(dir: &std::path::Path) -> Result<Exit, Failure> {
    daemon::threads()?
        .block_on(quorate_agent::last_will(dir))
        .map(|()| Exit::Done)
        .map_err(|error| {
            Failure::new(
                Code::Failed,
                chain(&error),
                "nothing is lost: the session ends with its lease",
            )
        })
}
