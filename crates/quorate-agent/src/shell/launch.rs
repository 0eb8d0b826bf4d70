//! How a run is started: its final command line, its whole environment, and the files that it finds.
//!
//! Must never let anything of the agent's own environment through but the language.

use std::io;
use std::path::{Path, PathBuf};

use quorate_core::agent::{Item, Latest, RunId};
use quorate_core::ids::{AgentName, ClusterId};
use quorate_core::spec::OnChange;
use quorate_core::spec::template::{self, Context, ExpandError, Expanded, TemplateError};
use serde::{Deserialize, Serialize};

use super::allow::{Allow, NotAllowed};
use super::data_dir::{make_dir, write_whole};
use crate::warden::protocol::{self, StartRun};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TARGET: &str = "target.json";
const DATA: &str = "data.json";
const TOKEN: &str = "token";
const CHECKPOINT: &str = "checkpoint";
pub(crate) const NOTIFY: &str = "notify.sock";
pub(crate) const API: &str = "api.sock";

/// Why a run cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("the data cannot be filled in: {0}")]
    Data(TemplateError),
    #[error("a placeholder cannot be filled in: {0}")]
    Placeholder(ExpandError),
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    #[error("{} cannot be written: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
}

/// Where the output of a run goes; kept beside the run, so that the next agent process knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogTarget {
    pub(crate) service: String,
    pub(crate) key: String,
    pub(crate) max_size: u64,
    pub(crate) keep: u32,
}

impl LogTarget {
    pub(crate) fn of(item: &Item) -> Self {
        Self {
            service: item.service.to_string(),
            key: item.key.to_string(),
            max_size: item.how.spec.logs.max_size.0,
            keep: item.how.spec.logs.keep,
        }
    }

    /// That of a run that an earlier agent process started.
    pub(crate) fn read(run_dir: &Path) -> Option<Self> {
        let bytes = std::fs::read(run_dir.join(TARGET)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Its folder below that of all logs. Keys have no slash and do not start with a dot.
    pub(crate) fn folder(&self, logs: &Path) -> PathBuf {
        logs.join(&self.service).join(&self.key)
    }
}

/// Where things are for a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) agent: &'a AgentName,
    pub(crate) cluster: ClusterId,
    pub(crate) run_dir: &'a Path,
    /// The same folder under a name that is short enough for sockets.
    pub(crate) sockets: &'a Path,
    pub(crate) lease_file: &'a Path,
}

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) run: RunId,
    pub(crate) item: &'a Item,
    pub(crate) checkpoint: Option<&'a Latest>,
    pub(crate) target: &'a LogTarget,
}

/// Writes the files of a run and says how to start it.
pub(crate) fn prepare(
    places: Places<'_>,
    order: Order<'_>,
    allow: &Allow,
) -> Result<StartRun, LaunchError> {
    let Order {
        run,
        item,
        checkpoint,
        target,
    } = order;
    let spec = &item.how.spec;
    let context = Context::new(&item.key, item.data.as_deref(), run.token, places.agent)
        .map_err(LaunchError::Data)?;
    let filled = template::expand(spec, &context).map_err(LaunchError::Placeholder)?;
    let Expanded {
        command,
        env: wanted,
        working_dir,
    } = filled;
    let failed = |path: PathBuf| move |cause| LaunchError::File { path, cause };
    make_dir(places.run_dir, 0o711).map_err(failed(places.run_dir.to_owned()))?;
    let target_path = places.run_dir.join(TARGET);
    let text = serde_json::to_vec(target).unwrap_or_default();
    write_whole(&target_path, 0o600, &text).map_err(failed(target_path))?;

    let mut env = environment(places, run, item);
    let path = write_token(places, run, item)?;
    env.push(("QUORATE_TOKEN_FILE".to_owned(), shown(&path)));
    if spec.on_change == OnChange::Signal {
        let path = write_data(places.run_dir, item)?;
        env.push(("QUORATE_DATA_FILE".to_owned(), shown(&path)));
    }
    let checkpoint_file = places.run_dir.join(CHECKPOINT);
    env.push((
        "QUORATE_CHECKPOINT_FILE".to_owned(),
        shown(&checkpoint_file),
    ));
    let mut handed_over = Vec::new();
    if let Some(latest) = checkpoint {
        write_whole(&checkpoint_file, 0o600, latest.content.as_bytes())
            .map_err(failed(checkpoint_file.clone()))?;
        handed_over.push(shown(&checkpoint_file));
    }
    let api_socket = places.sockets.join(API);
    env.push(("QUORATE_SOCKET".to_owned(), shown(&api_socket)));
    let notify_socket = spec.ready.notify.then(|| places.sockets.join(NOTIFY));
    if let Some(path) = &notify_socket {
        env.push(("NOTIFY_SOCKET".to_owned(), shown(path)));
    }
    for (name, value) in wanted {
        env.retain(|(present, _)| *present != name);
        env.push((name, value));
    }
    let mut start = StartRun {
        run: protocol::RunId {
            token: run.token.0,
            attempt: run.attempt,
        },
        command,
        program: None,
        env,
        working_dir: working_dir.unwrap_or_else(|| "/".to_owned()),
        user: spec.user.clone(),
        root: allow.root,
        files_max: spec.limits.files,
        notify_socket: notify_socket.as_deref().map(shown),
        api_socket: Some(shown(&api_socket)),
        handed_over,
    };
    allow.check(item.service.as_str(), &mut start)?;
    Ok(start)
}

/// Writes the data of a partition where its run finds it.
pub(crate) fn write_data(run_dir: &Path, item: &Item) -> Result<PathBuf, LaunchError> {
    let text = item.data.as_deref().unwrap_or("null");
    write_for_run(run_dir.join(DATA), item, text)
}

/// Writes the token where programs find it whose environment is not passed on. What is in the file is a
/// promise to programs (`docs/fencing.md`): lines are added, never changed.
fn write_token(places: Places<'_>, run: RunId, item: &Item) -> Result<PathBuf, LaunchError> {
    let text = format!("token={}\ncluster={}\n", run.token, places.cluster);
    write_for_run(places.run_dir.join(TOKEN), item, &text)
}

fn write_for_run(path: PathBuf, item: &Item, text: &str) -> Result<PathBuf, LaunchError> {
    // Another user must be able to read it; the folder cannot be listed.
    let mode = if item.how.spec.user.is_some() {
        0o644
    } else {
        0o600
    };
    match write_whole(&path, mode, text.as_bytes()) {
        Ok(()) => Ok(path),
        Err(cause) => Err(LaunchError::File { path, cause }),
    }
}

fn environment(places: Places<'_>, run: RunId, item: &Item) -> Vec<(String, String)> {
    let user = item.how.spec.user.as_deref();
    let language = std::env::var("LANG").unwrap_or_else(|_| "C.UTF-8".to_owned());
    let data = item.data.as_deref().unwrap_or("null");
    [
        ("PATH", PATH.to_owned()),
        ("HOME", home(user)),
        ("LANG", language),
        ("QUORATE_SERVICE", item.service.to_string()),
        ("QUORATE_KEY", item.key.to_string()),
        ("QUORATE_DATA", data.to_owned()),
        ("QUORATE_TOKEN", run.token.to_string()),
        ("QUORATE_CLUSTER", places.cluster.to_string()),
        ("QUORATE_AGENT", places.agent.to_string()),
        ("QUORATE_RUN", format!("{}.{}", run.token, run.attempt)),
        ("QUORATE_ATTEMPT", run.attempt.to_string()),
        ("QUORATE_LEASE_FILE", shown(places.lease_file)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The home folder of a user, of the agent's own when none is named.
fn home(user: Option<&str>) -> String {
    let own = || std::env::var("HOME").ok();
    let listed = |name: &str| {
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name))
                .then(|| fields.nth(4).map(str::to_owned))
                .flatten()
        })
    };
    user.map_or_else(own, listed)
        .unwrap_or_else(|| "/".to_owned())
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
