//! Who we are to etcd: a token for a name and a password, renewed when etcd no longer knows it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use reqwest::Method;
use serde_json::json;

use crate::address::{Address, Secret};
use crate::http::{Ask, Http, Repeat};
use crate::keyed::StoreError;
use crate::shared::OpenError;

use super::sort::{self, Heard};
use super::wire::{self, Authenticated};

const AUTHENTICATE: &str = "/v3/auth/authenticate";

/// A user, and the newest token.
pub(super) struct Login {
    user: String,
    password: Secret,
    token: Mutex<Option<String>>,
}

/// Without what proves who we are.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Login");
        shown.field("user", &self.user).finish_non_exhaustive()
    }
}

impl Login {
    pub(super) fn of(address: &Address) -> Result<Option<Self>, OpenError> {
        match (&address.user, &address.password) {
            (Some(user), Some(password)) => Ok(Some(Self {
                user: user.clone(),
                password: password.clone(),
                token: Mutex::default(),
            })),
            (None, None) => Ok(None),
            (Some(user), None) => Err(OpenError::Unfit(format!(
                "the address has etcd's user {user} and no password: name a file with password_file=, or set {}",
                crate::address::PASSWORD_VARIABLE
            ))),
            (None, Some(_)) => Err(OpenError::Unfit(String::from(
                "the address has a password and no user of etcd: write etcd://user@host",
            ))),
        }
    }

    /// The newest token if it is not `bad`, or a new one.
    pub(super) async fn token(&self, http: &Http, bad: Option<&str>) -> Result<String, StoreError> {
        if let Some(token) = self.known().filter(|token| bad != Some(token.as_str())) {
            return Ok(token);
        }
        let body = json!({"name": self.user, "password": self.password.expose()});
        let ask = Ask::new(Repeat::Read, Method::POST, AUTHENTICATE.to_owned())
            .header("content-type", Some(String::from("application/json")))
            .body(wire::to_bytes(&body));
        let heard = http
            .call(&ask, sort::judge::<Authenticated>)
            .await
            // Whatever came of it, what it was wanted for was not asked.
            .map_err(|error| match error {
                StoreError::Refused(cause) | StoreError::Unknown(cause) => {
                    StoreError::Refused(cause)
                }
            })?;
        match heard {
            Heard::Told(Authenticated { token }) => {
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
                Ok(token)
            }
            Heard::NoSpace => Err(StoreError::Refused(sort::no_space())),
            Heard::OldToken => Err(StoreError::Refused(sort::token_refused())),
        }
    }

    fn known(&self) -> Option<String> {
        let token = self.token.lock();
        token.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
