//! Being killed or stopped between two orders of one step: after a decision and before it is carried
//! out, or between an entry and the answer to it.

use crate::clock::{MILLI, SECOND};
use crate::random::Random;

/// What happens in the middle of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trip {
    /// After so many orders, counted over steps.
    pub(crate) after: u64,
    /// How long it stands still; `None` when it is killed.
    pub(crate) freeze: Option<u64>,
}

impl Trip {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let freeze = random.between(100 * MILLI, 15 * SECOND);
        Self {
            after: random.below(30),
            freeze: random.permille(500).then_some(freeze),
        }
    }

    /// Splits the orders of a step where it trips; `None` when that is in a later step.
    pub(crate) fn split<T>(trip: &mut Option<Self>, orders: &mut Vec<T>) -> Option<(Self, Vec<T>)> {
        let due = trip.as_mut()?;
        let count = orders.len() as u64;
        if due.after > count || count == 0 {
            due.after -= count.min(due.after);
            return None;
        }
        let at = usize::try_from(due.after).unwrap_or(0);
        let rest = orders.split_off(at.min(orders.len()));
        trip.take().map(|trip| (trip, rest))
    }
}
