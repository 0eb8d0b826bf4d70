//! Secrets of sessions.

use super::clock;

/// Random, and another one in a copy of this process that draws the same numbers.
pub(super) fn secret() -> String {
    let now = u128::from(clock::now().as_nanos());
    format!(
        "{:064x}",
        U256(rand::random(), rand::random::<u128>() ^ now)
    )
}

/// 256 random bits.
struct U256(u128, u128);

impl std::fmt::LowerHex for U256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}{:032x}", self.0, self.1)
    }
}
