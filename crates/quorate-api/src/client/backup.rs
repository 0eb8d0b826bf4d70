//! A backup, as it comes in: it may be larger than what is kept in memory of any other answer.

use reqwest::Response;

use super::transport::Call;
use super::{Client, Error};
use crate::routes;

/// A backup as it comes in.
#[derive(Debug)]
pub struct BackupStream {
    response: Response,
    address: String,
}

impl BackupStream {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the connection broke off before the end: what came so far is no backup.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let piece = self.response.chunk().await;
        let piece = piece.map_err(|cause| Error::Unreachable {
            addresses: vec![self.address.clone()],
            cause: Some(cause),
        })?;
        Ok(piece.map(|piece| piece.to_vec()))
    }
}

impl Client {
    /// The whole state of the cluster as a file.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn backup(&self) -> Result<BackupStream, Error> {
        let mut call = Call::get(routes::CLUSTER_BACKUP.to_owned());
        call.streaming = true;
        let response = self.send(call).await?;
        let address = response.url().authority().to_owned();
        Ok(BackupStream { response, address })
    }
}
