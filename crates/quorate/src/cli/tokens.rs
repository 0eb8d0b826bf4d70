//! `token`, `join-token` and `audit`: who may do what, which machines are let in, and who did what.
//!
//! A new token is the only thing on standard output, so that it can be put where it belongs; what a person
//! must know about it is told beside it.

use quorate_api::access::{
    AuditEntry, JoinTokenRequest, JoinTokenView, TokenRequest, TokenState, TokenView,
};

use super::args::{JoinTokenArgs, JoinTokenCommand, NodeRole, TokenArgs, TokenCommand, TokenRole};
use super::list::{column, wide};
use super::remote::{Remote, failure_of};
use crate::failure::{Exit, Failure};
use crate::output::{Cell, Column, Row, Style, say};

pub(super) async fn token(command: &TokenCommand, remote: &Remote) -> Result<Exit, Failure> {
    match command {
        TokenCommand::Create(args) => create(args, remote).await?,
        TokenCommand::Ls => {
            let tokens = remote.client.tokens().await.map_err(failure_of)?;
            remote.output.list(&tokens.value)?;
        }
        TokenCommand::Revoke(args) => {
            let id = args.id.as_str();
            let done = remote.client.revoke_token(id).await.map_err(failure_of)?;
            let name = format!("token/{id}");
            let text = || format!("{name} {}\n", revoked(done.changed));
            remote.output.one(&done, &name, text)?;
        }
    }
    Ok(Exit::Done)
}

async fn create(args: &TokenArgs, remote: &Remote) -> Result<(), Failure> {
    let request = TokenRequest {
        name: args.name.to_string(),
        role: match args.role {
            TokenRole::Viewer => "viewer",
            TokenRole::Operator => "operator",
            TokenRole::Definer => "definer",
            TokenRole::Admin => "admin",
        }
        .to_owned(),
        scope: args.scope.as_ref().map(ToString::to_string),
        ttl: args.ttl.map(|ttl| ttl.to_string()),
    };
    let created = remote.client.create_token(&request).await;
    let created = created.map_err(failure_of)?;
    say(&format!(
        "token {} for {}, role {}; it is shown this once",
        created.id, request.name, request.role
    ));
    let text = || format!("{}\n", created.token);
    let name = format!("token/{}", created.id);
    remote.output.one(&created, &name, text)
}

pub(super) async fn join_token(
    command: &JoinTokenCommand,
    remote: &Remote,
) -> Result<Exit, Failure> {
    match command {
        JoinTokenCommand::Create(args) => create_join(args, remote).await?,
        JoinTokenCommand::Ls => {
            let tokens = remote.client.join_tokens().await.map_err(failure_of)?;
            remote.output.list(&tokens.value)?;
        }
        JoinTokenCommand::Revoke(args) => {
            let id = args.id.as_str();
            let done = remote.client.revoke_join_token(id).await;
            let done = done.map_err(failure_of)?;
            let name = format!("join-token/{id}");
            let text = || format!("{name} {}\n", revoked(done.changed));
            remote.output.one(&done, &name, text)?;
        }
    }
    Ok(Exit::Done)
}

async fn create_join(args: &JoinTokenArgs, remote: &Remote) -> Result<(), Failure> {
    let request = JoinTokenRequest {
        role: match args.role {
            NodeRole::Agent => "agent",
            NodeRole::Director => "director",
        }
        .to_owned(),
        uses: Some(args.uses),
        ttl: Some(args.ttl.to_string()),
    };
    let created = remote.client.create_join_token(&request).await;
    let created = created.map_err(failure_of)?;
    let machines = if args.uses == 1 {
        "machine"
    } else {
        "machines"
    };
    say(&format!(
        "join token {} for {} {machines} as {}, until {}; it is shown this once",
        created.id, args.uses, request.role, created.expires
    ));
    let text = || format!("{}\n", created.token);
    let name = format!("join-token/{}", created.id);
    remote.output.one(&created, &name, text)
}

/// Who has changed what.
pub(super) async fn audit(remote: &Remote) -> Result<Exit, Failure> {
    let audit = remote.client.audit().await.map_err(failure_of)?;
    remote.output.list(&audit.entries)?;
    Ok(Exit::Done)
}

fn revoked(changed: bool) -> &'static str {
    if changed {
        "is revoked"
    } else {
        "was revoked before"
    }
}

fn state(state: TokenState) -> Cell {
    let style = match state {
        TokenState::Active => Style::Good,
        TokenState::Expired | TokenState::Revoked | TokenState::UsedUp => Style::Faint,
    };
    Cell::Styled(state.as_str().to_owned(), style)
}

impl Row for TokenView {
    const COLUMNS: &'static [Column] = &[
        column("ID"),
        column("NAME"),
        column("ROLE"),
        column("SCOPE"),
        column("STATE"),
        column("CREATED"),
        column("EXPIRES"),
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.id),
            Cell::text(&self.name),
            Cell::text(&self.role),
            Cell::maybe(self.scope.as_ref()),
            state(self.state),
            Cell::Time(Some(self.created.clone())),
            Cell::maybe(self.expires.as_ref()),
        ]
    }

    fn name(&self) -> String {
        format!("token/{}", self.id)
    }
}

impl Row for JoinTokenView {
    const COLUMNS: &'static [Column] = &[
        column("ID"),
        column("ROLE"),
        column("LEFT"),
        column("STATE"),
        column("CREATED"),
        column("EXPIRES"),
        wide("USED BY"),
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.id),
            Cell::text(&self.role),
            Cell::text(format!("{} of {}", self.left, self.uses)),
            state(self.state),
            Cell::Time(Some(self.created.clone())),
            Cell::text(&self.expires),
            Cell::text(self.used_by.join(",")),
        ]
    }

    fn name(&self) -> String {
        format!("join-token/{}", self.id)
    }
}

impl Row for AuditEntry {
    const COLUMNS: &'static [Column] = &[
        column("INDEX"),
        column("AGO"),
        column("BY"),
        column("ACTION"),
        column("OBJECTS"),
        wide("FROM"),
    ];

    fn cells(&self) -> Vec<Cell> {
        let mut objects = self.objects.join(",");
        if self.more > 0 {
            objects.push_str(&format!(" and {} more", self.more));
        }
        vec![
            Cell::text(self.index),
            Cell::Time(Some(self.at.clone())),
            Cell::text(&self.by),
            Cell::text(&self.action),
            Cell::text(objects),
            Cell::maybe(self.from.as_ref()),
        ]
    }

    fn name(&self) -> String {
        self.index.to_string()
    }
}
