//! Whose ledger it is, and that its cluster has moved: columns of the row of `head`, which every append asks.

use quorate_core::ids::ClusterId;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::ReadError;
use crate::shared::Owner;
use crate::store::{StoreError, owned_by, unavailable};

use super::lane::Parameter;
use super::{Postgres, bigint, column, no_head};

/// Whose it is, by the row of `head`.
pub(super) fn of(row: &Row) -> Result<Option<Owner>, ReadError> {
    let cluster: Option<i64> = column(row, "cluster")?;
    let Some(cluster) = cluster else {
        return Ok(None);
    };
    Ok(Some(Owner {
        cluster: ClusterId(u64::try_from(cluster).unwrap_or(0)),
        moved_to: column(row, "moved_to")?,
    }))
}

impl Postgres {
    pub(crate) async fn owner(&self) -> Result<Option<Owner>, ReadError> {
        Ok(self.head().await?.owner)
    }

    pub(crate) async fn claim(&self, cluster: ClusterId) -> Result<Owner, ReadError> {
        let cluster = bigint(cluster.0);
        let parameters: [Parameter<'_>; 1] = [(&cluster, Type::INT8)];
        match self.writes.ask(&self.sql.claim, &parameters).await {
            Ok(rows) => {
                let owner = of(rows.first().ok_or_else(no_head)?)?;
                owner.ok_or_else(|| unavailable(String::from("the claim was not kept")))
            }
            Err(StoreError::Unknown(cause)) => {
                let owner = self.owner().await?;
                owner.ok_or(ReadError::Unavailable(cause))
            }
            Err(error @ StoreError::Refused(_)) => Err(error.into()),
        }
    }

    pub(crate) async fn mark_moved(&self, cluster: ClusterId, to: &str) -> Result<(), ReadError> {
        let number = bigint(cluster.0);
        let parameters: [Parameter<'_>; 2] = [(&number, Type::INT8), (&to, Type::TEXT)];
        match self.writes.ask(&self.sql.mark_moved, &parameters).await {
            Ok(rows) if !rows.is_empty() => Ok(()),
            Ok(_) => {
                owned_by(cluster, self.owner().await?.as_ref())?;
                Err(unavailable(String::from(
                    "somebody has claimed it only now",
                )))
            }
            Err(StoreError::Unknown(cause)) => {
                let head = self.head().await?;
                owned_by(cluster, head.owner.as_ref())?;
                if head.moved_to() == Some(to) {
                    return Ok(());
                }
                Err(ReadError::Unavailable(cause))
            }
            Err(error @ StoreError::Refused(_)) => Err(error.into()),
        }
    }
}
