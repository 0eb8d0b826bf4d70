//! The store of the ledger: whether it answers, how fast, whose it is, and whether a director leads over it.

use std::time::{Duration, Instant};

use quorate_core::director::SILENCE;
use quorate_ledger::address::Address;
use quorate_ledger::shared::SharedLedger;
use quorate_ledger::{Ledger as _, ReadError, Tail};

use super::Finding;
use crate::director::{address, open_store, unready};
use crate::failure::Failure;

const CHECK: &str = "ledger";
/// How often the end is looked at, to tell a usual time from a single slow one.
const LOOKS: usize = 9;
/// A leader looks at the end for every batch of renewals, and must be heard three times within a silence.
const SLOW: Duration = Duration::from_millis(200);

pub(super) async fn findings(said: &str) -> Result<Vec<Finding>, Failure> {
    let at = address(said)?;
    let ledger = open_store(&at)?;
    Ok(look(&ledger, &at).await.unwrap_or_else(|error| {
        let failure = unready(&at, &error);
        vec![Finding::bad(
            CHECK,
            failure.first.sentence,
            failure.first.next,
        )]
    }))
}

async fn look(ledger: &SharedLedger, at: &Address) -> Result<Vec<Finding>, ReadError> {
    // The first call opens the connection.
    let owner = ledger.owner().await?;
    let mut took = Vec::with_capacity(LOOKS);
    let mut tail = ledger.tail().await?;
    for _ in 0..LOOKS {
        let begun = Instant::now();
        tail = ledger.tail().await?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let usual = took.get(LOOKS / 2).copied().unwrap_or_default();
    let worst = took.last().copied().unwrap_or_default();
    let speed = format!(
        "{at} tells its end in {} ms, at worst {} ms",
        usual.as_millis(),
        worst.as_millis()
    );
    let speed = if usual > SLOW {
        Finding::warn(
            CHECK,
            speed,
            "with leases of 10 s a leader would be given up now and then: bring the directors nearer to the store",
        )
    } else {
        Finding::ok(CHECK, speed)
    };
    let whose = match owner {
        None => Finding::ok(CHECK, "nobody has a ledger there yet"),
        Some(owner) => match owner.moved_to {
            Some(to) => Finding::bad(
                CHECK,
                format!("cluster {} was moved from there to {to}", owner.cluster),
                "use the new address",
            ),
            None => {
                let led = is_led(ledger, tail).await?;
                Finding::ok(
                    CHECK,
                    format!(
                        "cluster {}, position {}; {}",
                        owner.cluster,
                        tail.next.0.saturating_sub(1),
                        if led {
                            "a director leads"
                        } else {
                            "no director leads at the moment"
                        }
                    ),
                )
            }
        },
    };
    Ok(vec![speed, whose])
}

/// A director that leads says something within a silence.
async fn is_led(ledger: &SharedLedger, before: Tail) -> Result<bool, ReadError> {
    tokio::time::sleep(SILENCE).await;
    Ok(ledger.tail().await?.next > before.next)
}
