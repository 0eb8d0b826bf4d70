//! What an upgrade of the directors waits for, and who is of a version with which the cluster cannot go on.

use std::collections::BTreeSet;

use quorate_api::problem::Code;
use quorate_api::resources::FormatRange;
use quorate_core::cluster::Cluster;
use quorate_core::format::Format;
use quorate_core::ids::DirectorName;
use quorate_core::record::DirectorInfo;

use crate::http::answer::Failure;
use crate::quorum::Member;

/// What a person should know while directors of several versions are at work.
pub(super) fn half_done(cluster: &Cluster, members: &[Member]) -> Vec<String> {
    let told = cluster.directors();
    let highest = told.values().map(|director| director.format).max();
    let waits = highest.filter(|highest| *highest > cluster.format());
    let waiting = waits.and_then(|highest| {
        let late = told.values().filter(|director| director.format < highest);
        let mut late: Vec<String> = late
            .map(|director| lagging(director, highest, cluster))
            .collect();
        let silent = members
            .iter()
            .filter(|member| !told.contains_key(member.name.as_str()));
        late.extend(
            silent.map(|member| format!("{}, which has not told what it reads", member.name)),
        );
        (!late.is_empty()).then(|| {
            format!(
                "an upgrade is half done: format {highest} of the ledger waits for {}",
                late.join("; and for ")
            )
        })
    });
    waiting.into_iter().chain(versions(cluster)).collect()
}

fn lagging(director: &DirectorInfo, highest: Format, cluster: &Cluster) -> String {
    let DirectorInfo {
        name,
        version,
        format,
        ..
    } = director;
    let mut others = cluster.directors().values();
    if others.any(|other| other.format == highest && other.version == *version) {
        format!("{name}, which is held at format {format} by its hold_format")
    } else {
        format!("{name}, which still runs {version} and reads up to format {format}")
    }
}

/// That not all run the same version, though all of them read the same.
fn versions(cluster: &Cluster) -> Option<String> {
    let told = cluster.directors().values();
    let versions: BTreeSet<&str> = told.map(|director| director.version.as_str()).collect();
    if versions.len() < 2 {
        return None;
    }
    let of = |version: &str| {
        let those = cluster.directors().values();
        let those = those.filter(|director| director.version == version);
        let names: Vec<&str> = those.map(|director| director.name.as_str()).collect();
        format!("{version} on {}", names.join(", "))
    };
    let all: Vec<String> = versions.into_iter().map(of).collect();
    Some(format!(
        "the directors are of several versions: {}",
        all.join("; ")
    ))
}

/// A director that is to come into the cluster.
pub(super) struct Newcomer<'a> {
    pub(super) name: &'a DirectorName,
    pub(super) formats: FormatRange,
    pub(super) version: Option<&'a str>,
}

/// Refuses a director that does not read the ledger: it would stop as soon as it had it.
pub(super) fn reads_the_ledger(newcomer: &Newcomer<'_>, ledger: Format) -> Result<(), Failure> {
    let Newcomer {
        name,
        formats,
        version,
    } = newcomer;
    let FormatRange { oldest, newest } = *formats;
    if (oldest..=newest).contains(&ledger.0) {
        return Ok(());
    }
    let runs = version.map_or_else(String::new, |version| format!(" ({version})"));
    let reads = if oldest == newest {
        format!("format {newest}")
    } else {
        format!("formats {oldest} to {newest}")
    };
    let detail = format!(
        "director {name}{runs} reads {reads} of the ledger, and that of this cluster has format {ledger}"
    );
    Err(Failure::new(Code::Conflict, detail).next_step(
        "install the version that the other directors run; `quorate cluster status` shows it",
    ))
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::BatchId;
    use quorate_core::record::{Entry, Header, Record};
    use quorate_core::time::WallTime;

    use super::*;

    /// A cluster with these directors: name, version, and highest format.
    fn cluster(directors: &[(&str, &str, u16)], format: u16) -> Cluster {
        let mut cluster = Cluster::default();
        let known = directors
            .iter()
            .map(|(name, version, format)| Record::DirectorKnown {
                director: DirectorInfo {
                    name: DirectorName::new(name).expect("a name"),
                    id: 1,
                    address: String::new(),
                    version: (*version).to_owned(),
                    format: Format(*format),
                    oldest_format: Format::FIRST,
                },
            });
        let raised = Record::Format {
            format: Format(format),
        };
        let header = Header {
            format: Format(format),
            epoch: cluster.epoch(),
            batch: BatchId::default(),
            predecessor: 0,
            wall: WallTime(0),
        };
        let records = known.chain((format > 1).then_some(raised)).collect();
        cluster.apply(cluster.position().next(), Entry { header, records });
        assert_eq!(cluster.format(), Format(format));
        cluster
    }

    fn member(name: &str) -> Member {
        Member {
            id: 1,
            name: name.to_owned(),
            peer_address: String::new(),
            voter: true,
            leads: false,
            behind: None,
            silent_for: None,
        }
    }

    #[test]
    fn an_upgrade_that_is_half_done_says_whom_it_waits_for() {
        let all = ["d1", "d2", "d3"].map(member);
        for (directors, format, told) in [
            (&[][..], 1, vec![]),
            (
                &[("d1", "0.2.0", 2), ("d2", "0.2.0", 2), ("d3", "0.2.0", 2)],
                1,
                vec![],
            ),
            (&[("d1", "0.2.0", 2), ("d2", "0.2.0", 2)], 2, vec![]),
            (
                &[("d1", "0.2.0", 2), ("d2", "0.1.0", 1), ("d3", "0.2.0", 2)],
                1,
                vec![
                    "an upgrade is half done: format 2 of the ledger waits for d2, which still runs 0.1.0 and reads up \
                     to format 1",
                    "the directors are of several versions: 0.1.0 on d2; 0.2.0 on d1, d3",
                ],
            ),
            (
                &[("d1", "0.2.0", 2), ("d2", "0.2.0", 1)],
                1,
                vec![
                    "an upgrade is half done: format 2 of the ledger waits for d2, which is held at format 1 by its \
                     hold_format; and for d3, which has not told what it reads",
                ],
            ),
            (
                &[("d1", "0.2.0", 2), ("d2", "0.2.1", 2), ("d3", "0.2.0", 2)],
                2,
                vec!["the directors are of several versions: 0.2.0 on d1, d3; 0.2.1 on d2"],
            ),
        ] {
            assert_eq!(half_done(&cluster(directors, format), &all), told);
        }
    }

    #[test]
    fn a_director_comes_in_only_if_it_reads_the_ledger() {
        let name = DirectorName::new("d4").expect("a name");
        let asks = |oldest, newest, version, ledger| {
            let formats = FormatRange { oldest, newest };
            let newcomer = Newcomer {
                name: &name,
                formats,
                version,
            };
            let refused = reads_the_ledger(&newcomer, Format(ledger)).err();
            refused.map(|failure| failure.0.detail)
        };
        assert_eq!(asks(1, 2, None, 1), None);
        assert_eq!(asks(1, 2, None, 2), None);
        assert_eq!(
            asks(1, 1, None, 2).as_deref(),
            Some("director d4 reads format 1 of the ledger, and that of this cluster has format 2")
        );
        assert_eq!(
            asks(3, 5, Some("0.9.0"), 2).as_deref(),
            Some(
                "director d4 (0.9.0) reads formats 3 to 5 of the ledger, and that of this cluster has format 2"
            )
        );
    }
}
