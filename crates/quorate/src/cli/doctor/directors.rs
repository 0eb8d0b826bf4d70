//! The directors: whether they are reached, how fast, and whether one leads.

use std::time::{Duration, Instant};

use quorate_api::client::{Client, Options};
use quorate_api::resources::{DirectorRole, DirectorView};

use super::Finding;
use crate::cli::Global;
use crate::cli::remote::{failure_of, options};
use crate::failure::{Code, Failure, chain};

const CHECK: &str = "directors";
/// A director that is farther away than this makes the shortest leases unsafe to keep.
const SLOW: Duration = Duration::from_millis(150);
/// A person waits for the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

pub(super) async fn findings(global: &Global) -> Result<Vec<Finding>, Failure> {
    let named = global.address.iter().map(|address| address.trim());
    let named: Vec<&str> = named.filter(|address| !address.is_empty()).collect();
    if named.is_empty() {
        return Ok(vec![Finding::unknown(
            CHECK,
            "not asked",
            "name them: --address HOST:PORT, or QUORATE_ADDRESS",
        )]);
    }
    let mut findings = Vec::new();
    for address in named {
        findings.push(one(address, global).await?);
    }
    Ok(findings)
}

async fn one(address: &str, global: &Global) -> Result<Finding, Failure> {
    let options = Options {
        call_time: ANSWER_WITHIN,
        leader_time: ANSWER_WITHIN,
        ..options(global)?
    };
    let client = Client::with(vec![address.to_owned()], options).map_err(|error| {
        Failure::new(
            Code::Usage,
            chain(&error),
            "write --address HOST:PORT, or several with commas",
        )
    })?;
    // The first call opens the connection; the second shows the way alone.
    let first = client.directors().await;
    let began = Instant::now();
    Ok(match first {
        Err(error) => {
            let failure = failure_of(error);
            Finding::bad(CHECK, failure.first.sentence, failure.first.next)
        }
        Ok(_) => match client.directors().await {
            Ok(directors) => answered(address, &directors.value, began.elapsed()),
            Err(error) => {
                let failure = failure_of(error);
                Finding::bad(CHECK, failure.first.sentence, failure.first.next)
            }
        },
    })
}

fn answered(address: &str, directors: &[DirectorView], took: Duration) -> Finding {
    let millis = took.as_secs_f64() * 1e3;
    let leader = directors
        .iter()
        .find(|director| director.role == DirectorRole::Leader);
    match leader {
        None => Finding::bad(
            CHECK,
            format!("{address} answers in {millis:.1} ms, and none leads"),
            "is a majority of the directors running?",
        ),
        Some(leader) => {
            let found = format!("{address} answers in {millis:.1} ms, {} leads", leader.name);
            if took >= SLOW {
                Finding::warn(
                    CHECK,
                    found,
                    "a lease of 3s needs directors that are nearer",
                )
            } else {
                Finding::ok(CHECK, found)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_cluster_without_a_leader_is_bad_and_a_far_one_is_warned_of() {
        let director = |role| DirectorView {
            name: "d1".to_owned(),
            address: "127.0.0.1:7400".to_owned(),
            role,
            epoch: 1,
            position: Some(1),
            version: None,
        };
        let near = Duration::from_millis(1);
        let leader = [director(DirectorRole::Leader)];
        assert_eq!(answered("a", &leader, near).state, State::Ok);
        assert_eq!(
            answered("a", &leader, Duration::from_secs(1)).state,
            State::Warn
        );
        let none = [director(DirectorRole::Follower)];
        assert_eq!(answered("a", &none, near).state, State::Bad);
    }
}
