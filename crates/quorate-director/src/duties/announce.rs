//! Tells the cluster where this director is reached and what it can read, whenever that is not known; and learns
//! that way that the cluster does not want it any more. The one that leads tells its machine who belongs to the
//! quorum, for the format of the ledger.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_core::director::call::Call;
use quorate_core::format::Format;
use quorate_core::ids::DirectorName;
use quorate_core::record::DirectorInfo;
use tokio_util::sync::CancellationToken;

use crate::engine::Led;
use crate::http::App;
use crate::http::relay::Unannounced;

/// How often it is looked at; a change of leader is a reason to look at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Goes on until the director stops.
pub(crate) async fn announce(app: App, own: DirectorInfo, shutdown: CancellationToken) {
    let mut led = app.handle.watch_led();
    // What is known here may be long over: whoever was off asks at least once whether it is still wanted.
    let mut heard = false;
    let mut refused = None;
    while !shutdown.is_cancelled() {
        let leader = led.borrow_and_update().clone();
        match tell(&app, &own, leader, heard).await {
            Ok(()) => (heard, refused) = (true, None),
            Err(Unannounced::Failed(why)) => {
                tracing::debug!(why, "the cluster does not know yet where this director is");
            }
            Err(Unannounced::Refused(why)) if refused.as_ref() == Some(&why) => {}
            Err(Unannounced::Refused(why)) => {
                tracing::error!(
                    why,
                    "the other directors want nothing of this one: end it; it comes in again with an empty data \
                     folder by `quorate join`"
                );
                refused = Some(why);
            }
        }
        if *led.borrow() == Led::Here {
            tell_members(&app, own.format).await;
        }
        tokio::select! {
            changed = led.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn tell(app: &App, own: &DirectorInfo, leader: Led, heard: bool) -> Result<(), Unannounced> {
    let expected = own.clone();
    let known = app.query(move |reading| {
        let all = reading.cluster().directors();
        let known = all.get(&expected.name) == Some(&expected);
        let others = all.values().filter(|other| other.name != expected.name);
        let others: Vec<String> = others.map(|other| other.address.clone()).collect();
        (known, others)
    });
    let known = known.await;
    let (known, others) = known.map_err(|failure| Unannounced::Failed(failure.0.detail))?;
    match leader {
        Led::By { .. } | Led::Nobody if !heard => ask_around(app, own, &others).await,
        Led::Nobody => Ok(()),
        Led::By { .. } | Led::Here if known => Ok(()),
        Led::By { address, .. } => app.relay.announce(&address, own).await,
        Led::Here => {
            let director = own.clone();
            let decided = decide(app, Call::Announce { director }).await;
            decided.map_err(Unannounced::Failed)
        }
    }
}

async fn decide(app: &App, call: Call) -> Result<(), String> {
    let decided = app.handle.decide(call);
    match tokio::time::timeout(app.limits.call_time, decided).await {
        Ok(Some(Ok(_))) => Ok(()),
        Ok(Some(Err(refusal))) => Err(refusal.to_string()),
        Ok(None) | Err(_) => Err("it was not decided".to_owned()),
    }
}

/// Tells the machine that leads who belongs to the quorum. It decides whether the format rises.
async fn tell_members(app: &App, newest: Format) {
    let format = app.query(|reading| reading.cluster().format()).await;
    if format.is_ok_and(|format| format >= newest) {
        return;
    }
    let Some(directors) = members(app).await else {
        return;
    };
    if let Err(why) = decide(app, Call::Members { directors }).await {
        tracing::debug!(
            why,
            "whether the format of the ledger can rise is looked at later"
        );
    }
}

/// Who has to read a new format. Over a store that is whoever has told of itself: nobody else knows the directors.
async fn members(app: &App) -> Option<BTreeSet<DirectorName>> {
    let Some(quorum) = &app.quorum else {
        let known = app.query(|reading| reading.cluster().directors().keys().cloned().collect());
        return known.await.ok();
    };
    let members = quorum.members();
    let names = members.iter().map(|member| DirectorName::new(&member.name));
    // A name that is none could have told nothing of itself.
    names.collect::<Result<_, _>>().ok()
}

/// Tells any other director, which passes it on to the one that leads. Whoever was removed while it was off takes
/// for the leader whoever was that then.
async fn ask_around(app: &App, own: &DirectorInfo, others: &[String]) -> Result<(), Unannounced> {
    let mut failed = Unannounced::Failed("no other director is known".to_owned());
    for address in others {
        match app.relay.announce(address, own).await {
            Err(Unannounced::Failed(why)) => failed = Unannounced::Failed(why),
            heard => return heard,
        }
    }
    Err(failed)
}
