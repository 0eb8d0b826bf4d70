//! What an error of the client means for a step, and what a person can do about it.

use zookeeper_client::Error;

use crate::keyed::StoreError;

/// An error of a step that touched this path, sorted by whether the step may have been done.
pub(super) fn sorted(error: Error, path: &str) -> StoreError {
    // A server says these instead of doing what it was asked for. What ends a session or a connection is not among
    // them: another server may have done it meanwhile.
    let instead = matches!(
        error,
        Error::NoNode
            | Error::NodeExists
            | Error::NotEmpty
            | Error::BadVersion
            | Error::BadArguments(_)
            | Error::InvalidAcl
            | Error::NoAuth
            | Error::NoChildrenForEphemerals
            | Error::NotReadOnly
            | Error::QuotaExceeded
            | Error::Throttled
            | Error::Unimplemented
    );
    if instead {
        refused(error, path)
    } else {
        StoreError::Unknown(error.into())
    }
}

/// An error of a step that certainly was not done.
pub(super) fn refused(error: Error, path: &str) -> StoreError {
    StoreError::Refused(said(error, path).into())
}

/// With the next step.
pub(super) fn said(error: Error, path: &str) -> String {
    let is_error = |known: Error| error == known;
    if is_error(Error::NoAuth) {
        format!(
            "we may not use node {path}: give user and password of who made it in the ledger's address, or give this \
             user all rights (cdrwa) on it and on the node above it"
        )
    } else if is_error(Error::QuotaExceeded) {
        format!("the quota of node {path} is used up: raise it (zkCli.sh setquota)")
    } else if is_error(Error::NoNode) {
        format!(
            "node {path}, or one that belongs to it, was deleted: restore the store or the cluster from a backup"
        )
    } else if is_error(Error::NoChildrenForEphemerals) {
        format!("node {path} is below an ephemeral node: use another prefix")
    } else if is_error(Error::NotEmpty) {
        format!(
            "node {path} has nodes below it: another director is writing them, or quorate did not make them"
        )
    } else {
        format!("the store refused to use node {path}: {error}")
    }
}
