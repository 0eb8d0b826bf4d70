//! Notes in the data folder what was folded of a store's ledger, from time to time and at the end.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::folded::{self, Folded};
use crate::http::App;

/// So much of a history may be lost without being noticed, if every director was started anew since.
const EVERY: Duration = Duration::from_secs(10);

/// Goes on until the director stops.
pub(crate) async fn note_folded(
    app: App,
    (data_dir, mut noted): (PathBuf, Folded),
    shutdown: CancellationToken,
) {
    let mut failed = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => {}
        }
        let folded = app.query(|reading| {
            let cluster = reading.cluster();
            (cluster.position().0, cluster.last_hash())
        });
        if let Ok((position, hash)) = folded.await
            && position > noted.position
        {
            noted = Folded {
                position,
                hash,
                stopped: false,
                ..noted
            };
            let (dir, folded) = (data_dir.clone(), noted.clone());
            let written = tokio::task::spawn_blocking(move || folded::write(&dir, &folded)).await;
            match written {
                Ok(Ok(())) => failed = false,
                Ok(Err(error)) if !failed => {
                    tracing::warn!(%error, "what was folded could not be noted in the data folder");
                    failed = true;
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        if shutdown.is_cancelled() {
            return;
        }
    }
}
