//! Opens the folder and starts the Raft library on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};
use quorate_ledger::Cause;

use crate::error::OpenError;
use crate::files;
use crate::identity::{self, Identity};
use crate::log::{self, LogStore, Sizes};
use crate::machine::{Machine, View};
use crate::network::Network;
use crate::options::Options;
use crate::peer::Client;
use crate::snapshot;
use crate::types::{Member, Raft};

/// Locks the folder and reads what is in it. Blocks.
pub(crate) fn open_disk(options: &Options) -> Result<(Identity, Arc<View>, LogStore), OpenError> {
    let dir = &options.dir;
    let lock = files::lock(dir)?;
    let identity = identity::load_or_mint(dir, options.name.as_str(), options.start)?;
    let head = snapshot::load_newest(dir)?;
    let sizes = Sizes {
        segment: options.segment_bytes.max(64 * 1024),
        cache: options.cache_bytes,
    };
    let log = log::open(dir, sizes, lock)?;
    if let Some(purged) = log.purged()
        && head
            .as_ref()
            .is_none_or(|head| head.last.index < purged.index)
    {
        let what = "does not reach the records that were purged, or is missing";
        return Err(OpenError::damaged(&snapshot::path(dir), what));
    }
    let view = View::restore(dir.clone(), head, &log).map_err(|error| {
        OpenError::damaged(
            &snapshot::path(dir),
            format!("does not fit the log: {error}"),
        )
    })?;
    Ok((identity, view, log))
}

/// Starts the Raft library; in a new folder that founds a cluster it is a quorum of one from here on.
pub(crate) async fn raft(
    identity: &Identity,
    options: &Options,
    view: &Arc<View>,
    log: &LogStore,
    client: Option<Arc<Client>>,
) -> Result<Raft, Cause> {
    let config = Arc::new(config(identity, options)?.validate()?);
    let machine = Machine::new(Arc::clone(view));
    let network = Network(client);
    let raft = Raft::new(identity.node, config, network, log.clone(), machine).await?;
    if !identity.awaits && !raft.is_initialized().await? {
        let member = Member {
            name: identity.name.clone(),
            address: options.address.clone(),
        };
        raft.initialize(BTreeMap::from([(identity.node, member)]))
            .await?;
    }
    Ok(raft)
}

fn config(identity: &Identity, options: &Options) -> Result<Config, Cause> {
    let timing = options.timing;
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis());
    let election_timeout_max = millis(timing.election_max)?;
    Ok(Config {
        cluster_name: format!("{:x}", identity.cluster),
        heartbeat_interval: millis(timing.heartbeat)?,
        election_timeout_min: millis(timing.election_min)?,
        election_timeout_max,
        // Who cannot win an election disturbs nobody with a new term.
        enable_pre_vote: Some(true),
        // A leader that reaches no majority falls silent from time to time, so that those whom it reaches
        // may follow one that does. The time is the shortest that lets an election happen in it.
        quorum_loss_probe_interval: Some(election_timeout_max * 2),
        // A leader that comes back asks again, since others may have followed it.
        enable_leader_restore: Some(false),
        // Snapshots are made of the fold, which only the director has.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Who lags behind gets the log as long as the log has it.
        replication_lag_threshold: u64::MAX / 2,
        install_snapshot_timeout: 60_000,
        // A director that is back gets entries after half a second at most; heartbeats are not held back.
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..Config::default()
    })
}
