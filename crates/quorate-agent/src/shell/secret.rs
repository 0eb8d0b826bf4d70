//! Secrets of sessions.

use super::clock;

/// 256 random bits, and others in a copy of this process that draws the same numbers.
pub(super) fn secret() -> String {
    let now = u128::from(clock::now().as_nanos());
    let (one, other): (u128, u128) = rand::random();
    format!("{one:032x}{:032x}", other ^ now)
}
