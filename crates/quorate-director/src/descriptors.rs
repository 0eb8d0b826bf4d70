//! File descriptors: how many this process may have, and what they are for.
//!
//! The ledger, the history and the files of partitions need some at any moment; one that cannot be had
//! there stops the director. So connections get what is left, and never more.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Kept for the ledger (segments, snapshots, other directors), the history, watched files and the
/// runtime itself: several times what they were ever seen to use.
const KEPT: usize = 128;
/// How many a process is supposed to have when the system does not say.
const USUAL: usize = 1024;

/// The soft limit that this process was started with.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Raises the soft limit to the hard one, and tells how many descriptors this process may have.
///
/// The low soft limit is for programs that use `select`; whoever starts such programs gives them back
/// what [`before`] tells.
pub(crate) fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _first = BEFORE.set(limit.current);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let have = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current
        }
    };
    have.and_then(|have| usize::try_from(have).ok())
        .unwrap_or(USUAL)
}

/// The soft limit of open files that this process had before a director in it raised it; `None` when
/// none has, or there was no limit. For processes that are started from here.
#[must_use]
pub fn before() -> Option<u64> {
    BEFORE.get().copied().flatten()
}

/// How many connections and held requests there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Connections of anybody.
    pub(crate) general: usize,
    /// Further connections that serve sessions only.
    pub(crate) sessions: usize,
    /// Requests of people that wait for something: each holds its connection for minutes.
    pub(crate) held: usize,
}

impl Budget {
    /// What a process with this many descriptors can have within the limits.
    pub(crate) fn of(descriptors: usize, limits: &Limits) -> Self {
        // With very few of them half must do; nothing works well then, and something works.
        let kept = KEPT.min(descriptors / 2);
        let connections = limits.connections.min(descriptors - kept).max(2);
        let share = |of: usize, percent: usize| of.saturating_mul(percent.min(100)) / 100;
        let sessions = share(connections, limits.session_percent).clamp(1, connections - 1);
        let general = connections - sessions;
        Self {
            general,
            sessions,
            held: share(general, limits.held_percent).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_rest_does_not_need() {
        let limits = Limits::default();
        let budget = |descriptors| Budget::of(descriptors, &limits);
        let of = |general, sessions, held| Budget {
            general,
            sessions,
            held,
        };
        assert_eq!(budget(1024), of(672, 224, 336));
        assert_eq!(budget(1 << 20), of(7500, 2500, 3750));
        // However few there are, a session gets in.
        for descriptors in 0..300 {
            let Budget {
                general,
                sessions,
                held,
            } = budget(descriptors);
            assert!(general >= 1 && sessions >= 1 && held >= 1, "{descriptors}");
            assert!(general + sessions <= (descriptors - descriptors.min(256) / 2).max(2));
        }
    }

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let first = raise();
        assert!(first as u64 >= before().unwrap_or(0));
        assert_eq!(raise(), first);
    }
}
