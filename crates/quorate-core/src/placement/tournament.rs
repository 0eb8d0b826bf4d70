//! Who has least, while loads change.

/// Places by load, the lowest first, equal ones in their order.
pub(super) struct Tournament {
    /// Node `n` is the lower one of nodes `2n` and `2n + 1`, so the lowest of all is node 1; the second
    /// half are the places. Load above, place below: one comparison.
    nodes: Vec<u128>,
}

/// A place that takes no part; above every load.
const OUT: u128 = u128::MAX;
/// The lower part of a node is the place.
const PLACE_BITS: u32 = 32;

impl Tournament {
    /// All places take part.
    pub(super) fn new(loads: impl ExactSizeIterator<Item = u64>) -> Self {
        let places = loads.len();
        let mut nodes = vec![OUT; places];
        nodes.extend(loads.enumerate().map(|(at, load)| key(load, at)));
        for node in (1..places).rev() {
            let pair = nodes.get(2 * node..2 * node + 2);
            let low = pair.and_then(|pair| pair.iter().min().copied());
            if let (Some(node), Some(low)) = (nodes.get_mut(node), low) {
                *node = low;
            }
        }
        Self { nodes }
    }

    /// The place with least.
    #[inline]
    pub(super) fn first(&self) -> Option<usize> {
        let first = *self.nodes.get(1)?;
        (first != OUT).then_some((first & ((1 << PLACE_BITS) - 1)) as usize)
    }

    /// A place has so much now, and takes part.
    #[inline]
    pub(super) fn set(&mut self, at: usize, load: u64) {
        self.play(at, key(load, at));
    }

    /// A place takes part no longer.
    pub(super) fn remove(&mut self, at: usize) {
        self.play(at, OUT);
    }

    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "every node above a place, and what is beside it, exists"
    )]
    fn play(&mut self, at: usize, key: u128) {
        let mut node = self.nodes.len() / 2 + at;
        self.nodes[node] = key;
        let mut low = key;
        while node > 1 {
            low = low.min(self.nodes[node ^ 1]);
            node /= 2;
            self.nodes[node] = low;
        }
    }
}

fn key(load: u64, at: usize) -> u128 {
    u128::from(load) << PLACE_BITS | at as u128
}
