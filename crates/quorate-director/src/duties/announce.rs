//! Tells the cluster where this director is reached and what it can read, whenever that is not known.

use std::time::Duration;

use quorate_core::director::call::Call;
use quorate_core::record::DirectorInfo;
use tokio_util::sync::CancellationToken;

use crate::engine::Led;
use crate::http::App;

/// How often it is looked at; a change of leader is a reason to look at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Goes on until the director stops.
pub(crate) async fn announce(app: App, own: DirectorInfo, shutdown: CancellationToken) {
    let mut led = app.handle.watch_led();
    while !shutdown.is_cancelled() {
        let leader = led.borrow_and_update().clone();
        if let Err(why) = tell(&app, &own, leader).await {
            tracing::debug!(why, "the cluster does not know yet where this director is");
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

async fn tell(app: &App, own: &DirectorInfo, leader: Led) -> Result<(), String> {
    let expected = own.clone();
    let known = app.query(move |reading| {
        let known = reading.cluster().directors().get(&expected.name);
        known == Some(&expected)
    });
    if known.await.map_err(|failure| failure.0.detail)? {
        return Ok(());
    }
    match leader {
        Led::Nobody => Ok(()),
        Led::By { address, .. } => app.relay.announce(&address, own).await,
        Led::Here => {
            let director = own.clone();
            let decided = app.handle.decide(Call::Announce { director });
            match tokio::time::timeout(app.limits.call_time, decided).await {
                Ok(Some(Ok(_))) => Ok(()),
                Ok(Some(Err(refusal))) => Err(refusal.to_string()),
                Ok(None) | Err(_) => Err("it was not decided".to_owned()),
            }
        }
    }
}
