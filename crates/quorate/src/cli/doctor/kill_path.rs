//! Whether and how surely this machine ends a process tree, and what would make it surer.

use std::path::PathBuf;

use quorate_agent::machine::{KillPath, prove_kill_path};
use quorate_agent::warden::{CGROUP, KERNEL, SCAN};

use super::Finding;
use crate::daemon;
use crate::failure::{Failure, chain};

const CHECK: &str = "kill path";
/// A warden is started for each lease class; one that takes this long delays the first start of a job.
const SLOW_MS: u128 = 1000;

pub(super) async fn findings() -> Result<Vec<Finding>, Failure> {
    let program = daemon::program()?;
    // Nobody else guesses it, and the folder is made for this user alone.
    let folder = format!("quorate-doctor-{:016x}", rand::random::<u64>());
    let folder: PathBuf = std::env::temp_dir().join(folder);
    Ok(match prove_kill_path(&program, &folder).await {
        Ok(proven) => of_proven(&proven, &Host::here()),
        Err(error) => vec![Finding::bad(
            CHECK,
            chain(&error),
            "an agent cannot run anything here; is /proc mounted, and TMPDIR writable?",
        )],
    })
}

/// What this host says about namespaces of ordinary users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Host {
    root: bool,
    /// `user.max_user_namespaces`.
    user_namespaces_max: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, of some distributions.
    unprivileged: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    restricted: Option<u64>,
}

impl Host {
    fn here() -> Self {
        let number = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
            text.trim().parse().ok()
        };
        Self {
            root: rustix::process::geteuid().is_root(),
            user_namespaces_max: number("user/max_user_namespaces"),
            unprivileged: number("kernel/unprivileged_userns_clone"),
            restricted: number("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }

    /// How namespaces could be had.
    fn namespaces(&self) -> String {
        let allow = if self.user_namespaces_max == Some(0) {
            "set sysctl user.max_user_namespaces above 0"
        } else if self.unprivileged == Some(0) {
            "set sysctl kernel.unprivileged_userns_clone = 1"
        } else if self.restricted == Some(1) {
            "allow this program user namespaces in an AppArmor profile"
        } else {
            "allow user namespaces here (a container needs it of its runtime)"
        };
        if self.root {
            format!("give the agent CAP_SYS_ADMIN, or {allow}")
        } else {
            format!("run the agent as root, or {allow}")
        }
    }
}

fn of_proven(proven: &KillPath, host: &Host) -> Vec<Finding> {
    let took = proven.took.as_millis();
    let found = format!("{}, proven in {took} ms", proven.containment);
    let first = if proven.containment == KERNEL && took >= SLOW_MS {
        Finding::warn(
            CHECK,
            found,
            "this machine is busy; look again when it is not",
        )
    } else if proven.containment == KERNEL {
        Finding::ok(CHECK, found)
    } else if proven.containment == CGROUP {
        Finding::warn(
            CHECK,
            format!(
                "{found}: if agent and warden are frozen together, what a command has started outlives its deadline"
            ),
            "see below; `containment = kernel` in placement.require keeps a service away",
        )
    } else if proven.containment == SCAN {
        Finding::warn(
            CHECK,
            format!(
                "{found}: what hides from a scan of /proc outlives its deadline, and so does what a command has started while its warden is frozen"
            ),
            "see below; `containment = kernel` in placement.require keeps a service away",
        )
    } else {
        Finding::unknown(CHECK, found, "compare the versions of program and warden")
    };
    let kernel = proven.containment == KERNEL;
    let rest = proven.shortfalls.iter().map(|why| {
        let next = if why.starts_with("no kill by control groups") {
            "optional where there are namespaces: delegate a control group of version 2 (systemd: Delegate=yes)".to_owned()
        } else if why.contains("QUORATE_WARDEN_CONTAINMENT") {
            "unset it".to_owned()
        } else {
            host.namespaces()
        };
        if kernel {
            Finding::unknown(CHECK, why, next)
        } else {
            Finding::warn(CHECK, why, next)
        }
    });
    std::iter::once(first).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use std::time::Duration;

    fn proven(containment: &str, shortfalls: &[&str]) -> KillPath {
        KillPath {
            containment: containment.to_owned(),
            shortfalls: shortfalls.iter().map(|&text| text.to_owned()).collect(),
            took: Duration::from_millis(30),
        }
    }

    #[test]
    fn a_weaker_grade_says_what_would_raise_it() {
        let closed = Host {
            user_namespaces_max: Some(0),
            ..Host::default()
        };
        let why = [
            "no kill by control groups: read-only",
            "no namespaces: not permitted",
        ];
        let found = of_proven(&proven(SCAN, &why), &closed);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|finding| finding.state == State::Warn));
        let next = |at: usize| found.get(at).unwrap().next.clone().unwrap();
        assert!(next(1).contains("Delegate=yes"));
        assert!(
            next(2).contains("run the agent as root") && next(2).contains("max_user_namespaces")
        );
    }

    #[test]
    fn the_kernels_containment_is_well_without_a_second_line() {
        let why = ["no kill by control groups: read-only"];
        let found = of_proven(&proven(KERNEL, &why), &Host::default());
        let states: Vec<State> = found.iter().map(|finding| finding.state).collect();
        assert_eq!(states, [State::Ok, State::Unknown]);
    }

    #[test]
    fn each_way_to_close_user_namespaces_is_named() {
        let base = Host {
            root: true,
            user_namespaces_max: Some(100),
            unprivileged: Some(1),
            restricted: Some(0),
        };
        for (host, wanted) in [
            (
                Host {
                    unprivileged: Some(0),
                    ..base.clone()
                },
                "unprivileged_userns_clone",
            ),
            (
                Host {
                    restricted: Some(1),
                    ..base.clone()
                },
                "AppArmor",
            ),
            (base, "CAP_SYS_ADMIN"),
        ] {
            assert!(host.namespaces().contains(wanted), "{host:?}");
        }
    }
}
