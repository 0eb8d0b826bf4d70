//! `cluster`: the quorum of directors, and changing it.

use quorate_api::client::Error;
use quorate_api::resources::{ClusterView, Done, FormatRange, MemberView};
use quorate_core::ids::DirectorName;
use quorate_core::spec::suggest::closest;

use super::args::{ClusterCommand, MemberArgs, TransferArgs};
use super::list::{column, director_role};
use super::remote::{Remote, failure_of};
use super::{drill, ledger, recovery};
use crate::failure::{Code, Exit, Failure};
use crate::output::{Cell, Column, Format, Row, say};

pub(super) async fn cluster(command: &ClusterCommand, remote: &Remote) -> Result<Exit, Failure> {
    match command {
        ClusterCommand::Status => status(remote).await,
        ClusterCommand::Add(args) => add(args, remote).await,
        ClusterCommand::Remove(args) => remove(args, remote).await,
        ClusterCommand::TransferLeader(args) => transfer(args, remote).await,
        ClusterCommand::Backup(args) => recovery::backup(args, remote).await,
        ClusterCommand::Restore(args) => recovery::restore(args, remote).await,
        ClusterCommand::AdoptHistory(args) => ledger::adopt(args, remote.output).await,
        ClusterCommand::Drill(args) => drill::drill(args, remote).await,
    }
}

async fn status(remote: &Remote) -> Result<Exit, Failure> {
    let cluster = remote.client.cluster().await.map_err(failure_of)?;
    for warning in &cluster.warnings {
        say(warning);
    }
    if remote.output.is_json() {
        remote.output.one(&cluster, "cluster", String::new)?;
        return Ok(Exit::Done);
    }
    if remote.output.format != Some(Format::Name) {
        remote.output.text(&summary(&cluster))?;
    }
    remote.output.list(&cluster.members)?;
    Ok(Exit::Done)
}

fn summary(cluster: &ClusterView) -> String {
    // Until a backup is restored nobody needs to know the word.
    let era = match cluster.era {
        0 => String::new(),
        era => format!(", era {era}"),
    };
    let head = format!(
        "cluster {}{era}, epoch {}, format {}",
        cluster.cluster, cluster.epoch, cluster.format
    );
    if let Some(ledger) = &cluster.ledger {
        return format!("{head}: ledger in {ledger}, any one of the directors is enough\n");
    }
    let losses = match cluster.losses {
        0 => "none of which may be lost".to_owned(),
        1 => "one of which may be lost".to_owned(),
        more => format!("{more} of which may be lost"),
    };
    let directors = match cluster.voters {
        1 => "1 director votes".to_owned(),
        more => format!("{more} directors vote"),
    };
    format!("{head}: {directors}, {losses}\n")
}

impl Row for MemberView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("ROLE"),
        column("ADDRESS"),
        column("PEER ADDRESS"),
        column("BEHIND"),
        column("SILENT"),
        column("VERSION"),
        column("FORMATS"),
    ];

    fn name(&self) -> String {
        format!("director/{}", self.name)
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.name),
            director_role(self.role),
            Cell::maybe(self.address.as_ref()),
            Cell::maybe(Some(&self.peer_address).filter(|address| !address.is_empty())),
            Cell::maybe(self.behind),
            Cell::maybe(self.silent_ms.map(|ms| format!("{ms} ms"))),
            Cell::maybe(self.version.as_ref()),
            Cell::maybe(self.formats.map(formats)),
        ]
    }
}

/// Formats of the ledger that a director reads.
fn formats(FormatRange { oldest, newest }: FormatRange) -> String {
    if oldest == newest {
        newest.to_string()
    } else {
        format!("{oldest}-{newest}")
    }
}

async fn add(args: &MemberArgs, remote: &Remote) -> Result<Exit, Failure> {
    let done = remote.client.promote_member(args.director.as_str()).await;
    told(remote, &args.director, done, "votes").await
}

async fn remove(args: &MemberArgs, remote: &Remote) -> Result<Exit, Failure> {
    let done = remote.client.remove_member(args.director.as_str()).await;
    told(
        remote,
        &args.director,
        done,
        "is removed; stop it and keep its folder away from this cluster",
    )
    .await
}

async fn transfer(args: &TransferArgs, remote: &Remote) -> Result<Exit, Failure> {
    let to = args.to.as_ref().map(DirectorName::as_str);
    let done = remote.client.transfer_leader(to).await;
    match (&args.to, done) {
        (Some(to), done) => told(remote, to, done, "leads").await,
        (None, Ok(done)) => {
            let what = || "leadership is handed over\n".to_owned();
            remote.output.one(&done, "cluster", what)?;
            Ok(Exit::Done)
        }
        (None, Err(error)) => Err(failure_of(error)),
    }
}

async fn told(
    remote: &Remote,
    director: &DirectorName,
    done: Result<Done, Error>,
    what: &str,
) -> Result<Exit, Failure> {
    let done = match done {
        Ok(done) => done,
        Err(error) => return Err(about(remote, director, error).await),
    };
    for note in &done.notes {
        say(note);
    }
    let name = format!("director/{director}");
    remote
        .output
        .one(&done, &name, || format!("{name} {what}\n"))?;
    Ok(Exit::Done)
}

/// The failure of a call about a director, with the name that was probably meant.
async fn about(remote: &Remote, director: &DirectorName, error: Error) -> Failure {
    let mut failure = failure_of(error);
    if failure.first.code == Code::NotFound
        && let Ok(cluster) = remote.client.cluster().await
    {
        let names = cluster.members.iter().map(|member| member.name.as_str());
        failure.first.next = match closest(director.as_str(), names) {
            Some(near) => format!("did you mean {near}?"),
            None => "`quorate cluster status` shows those that exist".to_owned(),
        };
    }
    failure
}
