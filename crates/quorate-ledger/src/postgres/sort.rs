//! What an error of the database means: certainly not done, or perhaps; and what somebody can do about it.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::Cause;
use crate::store::StoreError;
use crate::tls;

/// What to do where no server takes writes.
const STANDBY: &str = "no server of the address takes writes: name all servers in the address of the ledger, and the \
                       primary among them is used";

/// What is to happen beside telling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// The tables are missing: they are made, and the statement is tried again.
    SetUp,
    /// This connection is of no use any more.
    Reconnect,
}

/// What a failed statement means.
pub(super) fn of_statement(error: Error) -> (StoreError, Then) {
    let Some(code) = error.code().cloned() else {
        // Whatever it is, it was on the way to the server or back.
        return (StoreError::Unknown(cause(error)), Then::Reconnect);
    };
    let then = if code == SqlState::UNDEFINED_TABLE || code == SqlState::INVALID_SCHEMA_NAME {
        Then::SetUp
    } else if ends_connection(&code) || code == SqlState::READ_ONLY_SQL_TRANSACTION {
        Then::Reconnect
    } else {
        Then::Nothing
    };
    let text = cause(error);
    if ends_connection(&code) {
        return (StoreError::Unknown(text), then);
    }
    // The server has said that the transaction failed, and a transaction that failed has done nothing.
    (StoreError::Refused(text), then)
}

/// Whether a code is told of a server that goes away or is in disorder. It may have committed before: while it waits for
/// its standby, say.
fn ends_connection(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    match class {
        // Connection exceptions, errors of the system, internal errors.
        "08" | "58" | "XX" => true,
        // Shutdown and crash of the server, database dropped; but not a statement that was cancelled.
        "57" => *code != SqlState::QUERY_CANCELED,
        _ => false,
    }
}

/// A connection that did not come about: nothing was asked.
pub(super) fn of_connection(error: Error) -> StoreError {
    // So the client tells that a server takes no writes.
    let source = error.source().and_then(|source| source.downcast_ref());
    if source.is_some_and(|source: &io::Error| source.kind() == io::ErrorKind::PermissionDenied) {
        return StoreError::Refused(STANDBY.into());
    }
    StoreError::Refused(cause(error))
}

fn cause(error: Error) -> Cause {
    if let Some(trouble) = tls::trouble(&error) {
        return trouble.into();
    }
    let Some(told) = error.as_db_error() else {
        let text = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        return text.into();
    };
    let message = told.message();
    match next_step(told.code()) {
        Some(step) => format!("{message}: {step}").into(),
        None => format!("{message} (SQLSTATE {})", told.code().code()).into(),
    }
}

/// What somebody can do about it.
fn next_step(code: &SqlState) -> Option<&'static str> {
    let steps = [
        (
            SqlState::INVALID_PASSWORD,
            "check the user in the address of the ledger and its password (password_file= or QUORATE_LEDGER_PASSWORD)",
        ),
        (
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            "check the user in the address of the ledger, and pg_hba.conf of the server",
        ),
        (
            SqlState::INVALID_CATALOG_NAME,
            "create it first (createdb), or name another one in the address of the ledger",
        ),
        (
            SqlState::INSUFFICIENT_PRIVILEGE,
            "the user needs a schema of its own (create schema quorate authorization USER)",
        ),
        (
            SqlState::TOO_MANY_CONNECTIONS,
            "each director needs three; raise max_connections, or put a pooler before the server",
        ),
        (
            SqlState::DISK_FULL,
            "free some space on the server; nothing is lost meanwhile",
        ),
        (SqlState::READ_ONLY_SQL_TRANSACTION, STANDBY),
    ];
    let mut steps = steps.into_iter();
    steps.find_map(|(of, step)| (of == *code).then_some(step))
}
