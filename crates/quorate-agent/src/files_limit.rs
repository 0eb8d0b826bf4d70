//! How many files a process may have open. An agent and its warden have a handful for each run.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of this process as far as it may go. Tells what it was before, soft and hard: what
/// runs get, because programs that wait with `select` break when they are given more.
pub(crate) fn raise_files_limit() -> (u64, u64) {
    let before = getrlimit(Resource::Nofile);
    let before = (
        before.current.unwrap_or(u64::MAX),
        before.maximum.unwrap_or(u64::MAX),
    );
    let most = Some(before.1).filter(|&most| most != u64::MAX);
    let _unchanged = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    );
    before
}
