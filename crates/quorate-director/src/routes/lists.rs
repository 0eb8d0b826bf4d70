//! Lists of partitions as they are at this moment: read once, for who plans or applies.
//!
//! What is read here is told and nothing else; what counts is the reading of those who follow the list
//! ([`crate::duties::sources`]), which comes by itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use quorate_api::resources::RefusedList;
use quorate_core::cluster::{Cluster, Partition, Service};
use quorate_core::ids::{PartitionKey, ServiceName};
use quorate_core::spec::{File, PartitionSource, PartitionSpec, Shrink};

use crate::duties::sources;
use crate::http::App;
use crate::http::answer::Failure;
use crate::tally::walk;

/// Lists that one request reads at a time.
const READ_AT_ONCE: usize = 8;
/// Longest that an apply, which is done already, waits for what it tells of its lists.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// The services of a file whose partitions come from a list outside of it.
pub(super) fn sourced(file: &File) -> Vec<(ServiceName, PartitionSource)> {
    let all = file.service.iter().filter_map(|(name, spec)| {
        let source = spec.partitions.as_ref()?;
        source.file.as_ref()?;
        Some((name.clone(), source.clone()))
    });
    all.collect()
}

/// Those of these lists that are refused as they are now, and those that could not be looked at in time.
///
/// # Errors
/// When the director ends.
pub(super) async fn refused(
    app: &App,
    lists: Vec<(ServiceName, PartitionSource)>,
) -> Result<(Vec<RefusedList>, Vec<ServiceName>), Failure> {
    let looks = lists.into_iter().map(async |(name, source)| {
        let looked = tokio::time::timeout(TOLD_WITHIN, look(app, &name, source)).await;
        (name, looked)
    });
    let mut looks = futures::stream::iter(looks).buffered(READ_AT_ONCE);
    let (mut refused, mut late) = (Vec::new(), Vec::new());
    while let Some((name, looked)) = looks.next().await {
        match looked {
            Ok(looked) => refused.extend(looked?.map(|problem| RefusedList {
                service: name.to_string(),
                problem,
            })),
            Err(_) => late.push(name),
        }
    }
    Ok((refused, late))
}

/// Why a list is refused, if it is.
async fn look(
    app: &App,
    name: &ServiceName,
    source: PartitionSource,
) -> Result<Option<String>, Failure> {
    let listed = match sources::read_once(name, &source, &app.roots).await {
        Ok(listed) => listed,
        Err(problem) => return Ok(Some(problem)),
    };
    let emptied = listed.is_empty();
    let keys: BTreeSet<PartitionKey> = listed.into_iter().map(|one| one.key).collect();
    let keys = Arc::new(keys);
    let (mut removed, mut place) = (0, None);
    loop {
        let (name, keys, from) = (name.clone(), Arc::clone(&keys), place.take());
        let step = app.query(move |reading| {
            let mut gone = 0;
            let next = walk(reading, Some(&name), from.as_ref(), |_, partition| {
                gone += usize::from(is_gone(partition, |key| keys.contains(key)));
                true
            });
            let before = reading.cluster().service(&name).map_or(0, Service::listed);
            (gone, before, next)
        });
        let (gone, before, next) = step.await?;
        removed += gone;
        place = next;
        if place.is_none() {
            return Ok(source.shrunk(Shrink {
                before,
                removed,
                emptied,
            }));
        }
    }
}

fn is_gone(partition: &Partition, names: impl FnOnce(&PartitionKey) -> bool) -> bool {
    !partition.doomed() && !names(partition.key())
}

/// Why the guard of a source would not let this list take the place of the one in force.
pub(super) fn shrunk(
    cluster: &Cluster,
    known: &Service,
    source: &PartitionSource,
    listed: &[PartitionSpec],
) -> Option<String> {
    let keys: BTreeSet<&PartitionKey> = listed.iter().map(|one| &one.key).collect();
    let ids = known.partitions().values();
    let all = ids.filter_map(|id| cluster.partition(*id));
    let gone = all.filter(|partition| is_gone(partition, |key| keys.contains(key)));
    source.shrunk(Shrink {
        before: known.listed(),
        removed: gone.count(),
        emptied: listed.is_empty(),
    })
}

/// The list in force.
pub(super) fn in_force(cluster: &Cluster, known: &Service) -> Vec<PartitionSpec> {
    let ids = known.partitions().values();
    let all = ids.filter_map(|id| cluster.partition(*id));
    all.filter(|partition| !partition.doomed())
        .map(Partition::description)
        .collect()
}
