//! What loads that may differ a little are to come near to.

/// Nothing moves while every agent is within a twentieth of the mean.
const WIDE: u64 = 20;
/// Agents beyond that are brought back to within a thousandth of the mean.
pub(super) const FINE: u64 = 1000;

/// How far from the mean a load may be.
pub(super) fn near(mean: u64) -> u64 {
    mean / WIDE
}

/// The loads of some agents, by place, and what they are to come near to.
pub(super) struct Aim {
    /// What each would have, if weights could be divided.
    mean: u64,
    /// How far from it a load may be.
    near: u64,
    /// No partition counts as more than this.
    whole: u64,
    loads: Vec<u64>,
    /// Those too far from the mean when they were looked at last.
    far: Vec<bool>,
}

impl Aim {
    /// Loads within `near` of the mean are to stay as they are.
    pub(super) fn new(mean: u64, near: u64, loads: Vec<u64>) -> Self {
        let mut aim = Self {
            mean,
            near,
            whole: u64::MAX,
            loads,
            far: Vec::new(),
        };
        aim.look_again();
        aim
    }

    /// The same where partitions weigh more than the mean: each counts as the mean, because nothing can
    /// be done about the rest of it. `big` are such weights with the places that have them.
    pub(super) fn beside(mean: u64, near: u64, mut loads: Vec<u64>, big: &[(u64, usize)]) -> Self {
        for (weight, at) in big {
            if let Some(load) = loads.get_mut(*at) {
                *load -= weight.saturating_sub(mean);
            }
        }
        Self {
            whole: mean,
            ..Self::new(mean, near, loads)
        }
    }

    /// Looks who is too far from the mean now.
    pub(super) fn look_again(&mut self) {
        let far = self.loads.iter();
        self.far = far
            .map(|load| load.abs_diff(self.mean) > self.near)
            .collect();
    }

    pub(super) fn any_far(&self) -> bool {
        self.far.contains(&true)
    }

    pub(super) fn loads(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.loads.iter().copied()
    }

    pub(super) fn load(&self, at: usize) -> u64 {
        self.loads.get(at).copied().unwrap_or(0)
    }

    pub(super) fn is_far(&self, at: usize) -> bool {
        self.far.get(at).copied().unwrap_or(false)
    }

    /// Whether anything is to go from one to the other.
    pub(super) fn is_worth_it(&self, from: usize, to: usize) -> bool {
        let gap = self.load(from).saturating_sub(self.load(to));
        gap > self.mean / FINE && (self.is_far(from) || self.is_far(to))
    }

    /// The most weight that still brings the two nearer to each other.
    pub(super) fn limit(&self, from: usize, to: usize) -> u64 {
        let gap = self.load(from).saturating_sub(self.load(to));
        self.uncapped(gap.saturating_sub(self.mean / FINE + 1))
    }

    /// The most weight that takes neither too far. One that is far is brought to the mean and not past
    /// it; any other may go half of the way to being far, so that few heavy partitions move and not
    /// many light ones.
    pub(super) fn wanted(&self, from: usize, to: usize) -> u64 {
        let slack = |at| {
            if self.is_far(at) { 0 } else { self.near / 2 }
        };
        let give = (self.load(from) + slack(from)).saturating_sub(self.mean);
        let take = (self.mean + slack(to)).saturating_sub(self.load(to));
        self.uncapped(give.min(take))
    }

    /// Where so much has a place, so has whatever counts as no more.
    fn uncapped(&self, limit: u64) -> u64 {
        if limit >= self.whole { u64::MAX } else { limit }
    }

    /// So much has gone from one to the other.
    pub(super) fn shift(&mut self, from: usize, to: usize, weight: u64) {
        let counted = weight.min(self.whole);
        if let Some(load) = self.loads.get_mut(from) {
            *load = load.saturating_sub(counted);
        }
        if let Some(load) = self.loads.get_mut(to) {
            *load += counted;
        }
    }
}
