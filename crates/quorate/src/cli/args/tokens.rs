//! What `token` and `join-token` take.

use clap::{Args, Subcommand, ValueEnum};
use quorate_core::access::USES_MAX;
use quorate_core::ids::{CredentialId, ServicePrefix, TokenName};
use quorate_core::spec::Span;

/// What is done with API tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create an API token and show it, this once
    Create(TokenArgs),
    /// List API tokens, those that ended lately included
    Ls,
    /// Take an API token back
    Revoke(CredentialArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Who or what it is for
    #[arg(long, value_name = "NAME")]
    pub(crate) name: TokenName,
    /// What its holder may do
    #[arg(long, value_enum, value_name = "ROLE")]
    pub(crate) role: TokenRole,
    /// Only for services whose names begin so [default: all services]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) scope: Option<ServicePrefix>,
    /// For how long it counts, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "TIME")]
    pub(crate) ttl: Option<Span>,
}

/// What the holder of an API token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenRole {
    /// Look
    Viewer,
    /// Start, stop, restart, drain and cordon as well
    Operator,
    /// Define services as well: run any command on the agents
    Definer,
    /// Everything
    Admin,
}

/// What is done with join tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenCommand {
    /// Create a join token and show it, this once
    Create(JoinTokenArgs),
    /// List join tokens, those that ended lately included
    Ls,
    /// Take a join token back; whom it has let in stays
    Revoke(CredentialArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JoinTokenArgs {
    /// What it lets in
    #[arg(long, value_enum, value_name = "ROLE")]
    pub(crate) role: NodeRole,
    /// How many it lets in
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(USES_MAX)), value_name = "N")]
    pub(crate) uses: u32,
    /// For how long it counts, at most 7d
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub(crate) ttl: Span,
}

/// What a machine is to be in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NodeRole {
    /// It runs what it is given
    Agent,
    /// It becomes a member of the quorum
    Director,
}

#[derive(Debug, Args)]
pub(crate) struct CredentialArgs {
    /// The id of the token, as `ls` shows it
    #[arg(value_name = "ID", value_parser = credential)]
    pub(crate) id: CredentialId,
}

/// Reads an id as `ls -o name` writes it, or alone. Whoever gives the token itself hears that.
fn credential(text: &str) -> Result<CredentialId, String> {
    if text.starts_with("qr_") || text.starts_with("qrj_") {
        return Err(
            "this is a token itself, and others may have seen it now; give its id".to_owned(),
        );
    }
    let id = text
        .strip_prefix("token/")
        .or(text.strip_prefix("join-token/"));
    CredentialId::new(id.unwrap_or(text)).map_err(|error| error.to_string())
}
