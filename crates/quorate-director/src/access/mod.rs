//! Who may ask: the secrets of tokens, the table of what each route takes, enrolment, the first token.
//!
//! What is decided here is who asks; whether he may is decided by [`quorate_core::access::decide`] alone.

pub(crate) mod bootstrap;
pub(crate) mod needs;
pub(crate) mod secret;

pub use bootstrap::{BootstrapError, write_bootstrap_token};
