//! Whose ledger it is, and that its cluster has moved.

use quorate_core::ids::ClusterId;

use crate::ReadError;
use crate::shared::Owner;
use crate::store::{EPOCH_OF_NOBODY, owned_by, unavailable};

use super::snapshots::TRIES;
use super::{Change, Done, End, KeyValue, Keyed, StoreError, TAIL, from_json, to_json};

/// Where it is said.
const OWNER: &str = "owner";

impl<S: KeyValue> Keyed<S> {
    /// The owner and its version in the store.
    async fn owned(&self) -> Result<Option<(Owner, u64)>, ReadError> {
        let Some(found) = self.store.get(OWNER).await? else {
            return Ok(None);
        };
        Ok(Some((from_json(OWNER, &found.value)?, found.version)))
    }

    pub(crate) async fn owner(&self) -> Result<Option<Owner>, ReadError> {
        Ok(self.owned().await?.map(|(owner, _)| owner))
    }

    pub(crate) async fn claim(&self, cluster: ClusterId) -> Result<Owner, ReadError> {
        if let Some(owner) = self.owner().await? {
            return Ok(owner);
        }
        let new = Owner {
            cluster,
            moved_to: None,
        };
        let cause = match self.store.swap(OWNER, None, &to_json(&new)).await {
            Ok(Done::Done) => return Ok(new),
            Ok(Done::NotSo) => "somebody was there, and is there no more".into(),
            Err(StoreError::Unknown(cause)) => cause,
            Err(error @ StoreError::Refused(_)) => return Err(error.into()),
        };
        let owner = self.owner().await?;
        owner.ok_or(ReadError::Unavailable(cause))
    }

    pub(crate) async fn mark_moved(&self, cluster: ClusterId, to: &str) -> Result<(), ReadError> {
        for _ in 0..TRIES {
            let owned = self.owned().await?;
            owned_by(cluster, owned.as_ref().map(|(owner, _)| owner))?;
            let (version, before) = match owned {
                Some((owner, version)) => (Some(version), owner.moved_to),
                None => (None, None),
            };
            if before.as_deref() == Some(to) {
                return self.disown().await;
            }
            let owner = to_json(&Owner {
                cluster,
                moved_to: Some(to.to_owned()),
            });
            let end = self.some_end().await?;
            let log = end.unwrap_or(End::NONE).key();
            let nothing = to_json(&End::NONE);
            let mut changes = vec![Change::Swap {
                key: OWNER,
                version,
                value: &owner,
            }];
            match end {
                _ if before.is_some() => {}
                Some(_) => changes.push(Change::Delete { key: &log }),
                // A first entry needs that it is not there.
                None => changes.push(Change::Swap {
                    key: TAIL,
                    version: None,
                    value: &nothing,
                }),
            }
            match self.store.change(&changes).await {
                Ok(Done::Done) => return self.disown().await,
                // What is there now tells.
                Ok(Done::NotSo) | Err(StoreError::Unknown(_)) => {}
                Err(error @ StoreError::Refused(_)) => return Err(error.into()),
            }
        }
        Err(unavailable(format!(
            "the store did not say that it was done, {TRIES} times in a row"
        )))
    }

    /// Has the end of a closed log tell an epoch that is no leader's. Nothing moves it any more but this.
    async fn disown(&self) -> Result<(), ReadError> {
        for _ in 0..TRIES {
            let Some(told) = self.store.get(TAIL).await? else {
                return Err(unavailable(String::from("the end of a closed log is gone")));
            };
            let end: End = from_json(TAIL, &told.value)?;
            if end.epoch == EPOCH_OF_NOBODY.0 {
                return Ok(());
            }
            let closed = to_json(&End {
                epoch: EPOCH_OF_NOBODY.0,
                ..end
            });
            match self.store.swap(TAIL, Some(told.version), &closed).await {
                Ok(_) | Err(StoreError::Unknown(_)) => {}
                Err(error @ StoreError::Refused(_)) => return Err(error.into()),
            }
        }
        Err(unavailable(format!(
            "the store did not say that the log is closed, {TRIES} times in a row"
        )))
    }
}
