//! The command line: what a person types. Each command is one file of this folder.
//!
//! Commands ask and show; everything that decides is behind the API.

mod agents;
mod apply;
mod args;
mod cluster;
mod completion;
mod daemon;
mod doctor;
mod drill;
mod events;
mod folder;
mod help;
mod init;
mod join;
mod ledger;
mod list;
mod logs;
mod meta;
mod operate;
mod recovery;
mod remote;
mod settle;
mod status;
mod tokens;
mod usage;

use std::ffi::OsString;

use clap::FromArgMatches as _;

use crate::failure::{Code, Exit, Failure};
use crate::output::{Output, say};
pub(crate) use apply::request;
use args::{Ask, Command, LedgerCommand, Root};
pub(crate) use args::{Global, LogFormat, UpArgs};
pub(crate) use daemon::warden;
pub(crate) use doctor::warn_at_start;
pub(crate) use events::line as event_line;
use remote::Remote;
pub(crate) use remote::{DEFAULT_ADDRESS, failure_of};
pub(crate) use settle::{Goal, counted, summary as progress_summary};
pub(crate) use status::exit_text;

/// Runs one command line.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(shell) = completion::asked() {
        return ended(completion::answer(&shell, &args));
    }
    let matches = match matches(&args) {
        Ok(matches) => matches,
        Err(error) => return refused(&error, &args),
    };
    let root = match Root::from_arg_matches(&matches) {
        Ok(root) => root,
        Err(error) => return refused(&error, &args),
    };
    let done = match usage::meaningless(&matches) {
        Some(failure) => Err(failure),
        None => dispatch(root),
    };
    ended(done)
}

/// How a command ended, told when it failed.
fn ended(done: Result<Exit, Failure>) -> Exit {
    match done {
        Ok(exit) => exit,
        Err(failure) => {
            crate::output::report(&failure);
            failure.exit()
        }
    }
}

/// Reads a command line, the program's own name first.
fn matches<S: Clone + Into<OsString>>(args: &[S]) -> Result<clap::ArgMatches, clap::Error> {
    help::command().try_get_matches_from(args.iter().cloned())
}

/// Shows the help that was asked for on standard output, and what is wrong on standard error.
fn refused(error: &clap::Error, args: &[OsString]) -> Exit {
    if !error.use_stderr() {
        // That nobody can read it changes nothing about the command line.
        let _ = error.print();
        return Exit::Done;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Exit::Usage;
    }
    let failure = usage::failure(error, args);
    crate::output::report(&failure);
    failure.exit()
}

fn dispatch(root: Root) -> Result<Exit, Failure> {
    let output = Output::new(root.global.output);
    let global = root.global;
    match root.command {
        Command::Up(args) => crate::up::run(&args, &global, output),
        Command::Init(args) => one_thread()?.block_on(init::init(&args, output)),
        Command::Join(args) => one_thread()?.block_on(join::join(&args, output)),
        Command::Director(args) => daemon::director(args, &global),
        Command::Agent(args) => daemon::agent(args, &remote::with_token(global)?),
        Command::Ledger(args) => match args.command {
            LedgerCommand::Copy(args) => one_thread()?.block_on(ledger::copy(&args, output)),
        },
        Command::Doctor(args) => {
            let global = remote::with_token(global)?;
            one_thread()?.block_on(doctor::doctor(&args, &global, output))
        }
        Command::Validate(args) => apply::validate(&args, output),
        Command::Completion(args) => completion::script(&args, output),
        Command::Man(args) => meta::man(&args),
        Command::Version => meta::version(output),
        Command::Explain(args) => meta::explain(&args, output),
        Command::Ask(asked) => {
            let global = remote::with_token(global)?;
            let remote = Remote::new(&global, output, asked.only_looks())?;
            let exit = one_thread()?.block_on(ask(asked, &remote))?;
            if !remote.client.is_stale() {
                return Ok(exit);
            }
            say(
                "no director leads at the moment: this is what one of them knows, and it may be of the past",
            );
            // A program must not take it for what is.
            Ok(Exit::Unreachable)
        }
    }
}

/// The commands that ask the cluster.
async fn ask(command: Ask, remote: &Remote) -> Result<Exit, Failure> {
    let interrupted = async {
        // Without a handler Ctrl-C ends the program anyway.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let goes_on = command.goes_on();
    tokio::select! {
        done = answer(command, remote) => done,
        // One that goes on is meant to end so, and there is nothing to be told.
        () = interrupted => if goes_on {
            Ok(Exit::Interrupted)
        } else {
            Err(Failure::new(
                Code::Interrupted,
                "interrupted; what was asked of the cluster goes on there",
                "`quorate status` shows how far it is",
            ))
        },
    }
}

async fn answer(command: Ask, remote: &Remote) -> Result<Exit, Failure> {
    match command {
        Ask::Apply(args) => apply::apply(&args, remote).await,
        Ask::Plan(args) => apply::plan(&args, remote).await,
        Ask::Rm(args) => apply::rm(&args, remote).await,
        Ask::Status(args) => status::status(&args, remote).await,
        Ask::Ls(args) => list::ls(&args, remote).await,
        Ask::Why(args) => status::why(&args, remote).await,
        Ask::History(args) => status::history(&args, remote).await,
        Ask::Logs(args) => logs::logs(&args, remote).await,
        Ask::Events(args) => events::events(&args, remote).await,
        Ask::Start(args) => operate::start(&args, remote).await,
        Ask::Stop(args) => operate::stop(&args, remote).await,
        Ask::Restart(args) => operate::restart(&args, remote).await,
        Ask::Drain(args) => agents::drain(&args, remote).await,
        Ask::Cordon(args) => agents::cordon(&args, remote).await,
        Ask::Uncordon(args) => agents::uncordon(&args, remote).await,
        Ask::Evict(args) => agents::evict(&args, remote).await,
        Ask::Cluster(args) => cluster::cluster(&args.command, remote).await,
        Ask::Wait(args) => settle::wait(&args, remote).await,
        Ask::Token(command) => tokens::token(&command, remote).await,
        Ask::JoinToken(command) => tokens::join_token(&command, remote).await,
        Ask::Audit => tokens::audit(remote).await,
        Ask::Api(args) => meta::api(&args, remote).await,
    }
}

/// A runtime for a command that waits for answers and does nothing else.
fn one_thread() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("this process cannot wait for the network: {error}"),
                "look at the limits of this machine (open files, threads)",
            )
        })
}
