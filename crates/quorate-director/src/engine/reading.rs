//! What a query sees: the state at one position, and what the loop itself has noticed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_core::cluster::Cluster;
use quorate_core::director::Director;
use quorate_core::director::event::Now;
use quorate_core::history::{Change, What};
use quorate_core::ids::{Position, ServiceName};
use quorate_core::time::Moment;

/// The pace of starts is measured over this long.
const PACE_WINDOW: Duration = Duration::from_secs(10);
/// Fewer starts than these tell nothing of how long many more of them take.
const PACE_STARTS: u64 = 5;
/// When nothing has come up for so long, and for twice the usual time, there is no pace.
const PACE_BROKEN: Duration = Duration::from_secs(2);

/// The state at one position.
pub(crate) struct Reading<'a> {
    pub(crate) director: &'a Director,
    pub(crate) tracker: &'a Tracker,
    pub(crate) now: Now,
}

impl Reading<'_> {
    pub(crate) fn cluster(&self) -> &Cluster {
        self.director.cluster()
    }

    pub(crate) fn index(&self) -> u64 {
        self.cluster().position().0
    }
}

/// Where things changed last, and how fast runs become ready.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    changed: Position,
    /// Only since this process folds; before that, `base`.
    services: BTreeMap<ServiceName, Position>,
    base: Position,
    /// Where services came into being, since this process folds.
    created: BTreeMap<ServiceName, Position>,
    last_created: Position,
    /// When this process began: what came up before has another pace than what comes up now.
    began: Moment,
    /// Runs that became ready, in buckets of a second.
    ready: VecDeque<(Moment, u64)>,
}

impl Tracker {
    /// Nothing noted yet, by a process that begins now.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            began: now,
            ..Self::default()
        }
    }

    /// Takes note of what an entry changed that the ledger took `at`. What is read back after a start is
    /// older than it looks: the pace would seem to be that of reading.
    pub(super) fn note(&mut self, position: Position, at: Moment, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        self.changed = position;
        let mut ready = 0;
        for change in changes {
            if let Some(service) = change.service() {
                match self.services.get_mut(service) {
                    Some(at) => *at = position,
                    None => {
                        self.services.insert(service.clone(), position);
                    }
                }
            }
            if let Change::Partition {
                what: What::Ready, ..
            } = change
            {
                ready += 1;
            }
            if let Change::ServiceCreated { service } = change {
                self.created.insert(service.clone(), position);
                self.last_created = position;
            }
        }
        if ready > 0 && at >= self.began {
            self.count_ready(at, ready);
        }
    }

    pub(super) fn replaced(&mut self, position: Position) {
        self.services.clear();
        self.created.clear();
        self.base = position;
        self.changed = position;
    }

    /// The last position that changed anything that people see.
    pub(crate) fn changed(&self) -> Position {
        self.changed
    }

    /// The last position that changed anything about a service.
    pub(crate) fn service_changed(&self, service: &ServiceName) -> Position {
        self.services.get(service).copied().unwrap_or(self.base)
    }

    /// Where a service last came into being; 0 when that was before this process.
    pub(crate) fn created(&self, service: &ServiceName) -> Position {
        self.created.get(service).copied().unwrap_or_default()
    }

    /// Where any service last came into being.
    pub(crate) fn last_created(&self) -> Position {
        self.last_created
    }

    /// How long this many starts take at the pace of the last seconds; nothing when it has broken off, or when too
    /// few were seen to tell.
    pub(crate) fn time_for(&self, starts: u64, now: Moment) -> Option<Duration> {
        let since = now.before(PACE_WINDOW);
        let recent = self.ready.iter().filter(|(at, _)| *at >= since);
        let (first, count) = recent.fold((None, 0), |(first, count), (at, ready)| {
            (first.or(Some(*at)), count + ready)
        });
        if count < PACE_STARTS && starts > PACE_STARTS {
            return None;
        }
        let span = now.since(first?).max(Duration::from_secs(1));
        let (last, _) = self.ready.back()?;
        let usual = span / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        if now.since(*last) > PACE_BROKEN.max(usual * 2) {
            return None;
        }
        let millis = u128::from(starts) * span.as_millis() / u128::from(count.max(1));
        Some(Duration::from_millis(u64::try_from(millis).ok()?))
    }

    fn count_ready(&mut self, now: Moment, ready: u64) {
        match self.ready.back_mut() {
            // Also when the clock that people see was set back meanwhile.
            Some((at, count)) if now.since(*at) < Duration::from_secs(1) => *count += ready,
            Some(_) | None => self.ready.push_back((now, ready)),
        }
        let since = now.before(PACE_WINDOW);
        while self.ready.front().is_some_and(|(at, _)| *at < since) {
            self.ready.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::history::Subject;
    use quorate_core::ids::{PartitionId, PartitionKey};

    use super::*;

    #[test]
    fn the_time_that_is_left_follows_the_pace_of_the_last_seconds() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.time_for(10, Moment::from_millis(0)), None);
        for second in 0..20 {
            tracker.count_ready(Moment::from_millis(second * 1000), 5);
        }
        let now = Moment::from_millis(20_000);
        let left = tracker.time_for(50, now).unwrap();
        assert_eq!(left, Duration::from_secs(10));
        // Nothing has come up for a while: whatever is said now would be said again and again.
        assert_eq!(tracker.time_for(50, Moment::from_millis(24_000)), None);
        assert_eq!(tracker.time_for(1, Moment::from_millis(90_000)), None);
    }

    #[test]
    fn a_single_start_does_not_tell_how_long_a_thousand_take() {
        let mut tracker = Tracker::default();
        tracker.count_ready(Moment::from_millis(0), 1);
        let now = Moment::from_millis(1_500);
        assert_eq!(tracker.time_for(1_000, now), None);
        // One more takes about as long as this one did.
        assert!(tracker.time_for(1, now).is_some());
        tracker.count_ready(Moment::from_millis(1_400), 9);
        let left = tracker.time_for(1_000, now).unwrap();
        assert_eq!(left, Duration::from_secs(150));
    }

    #[test]
    fn what_is_read_back_after_a_start_came_up_when_it_did() {
        let ready = [Change::Partition {
            subject: Subject {
                service: ServiceName::new("feeds").unwrap(),
                key: PartitionKey::new("a").unwrap(),
                partition: PartitionId(0),
            },
            token: None,
            agent: None,
            what: What::Ready,
        }];
        // Three hundred that came up at 100 a second, the last of them a moment before the start.
        let now = Moment::from_millis(3_100);
        let mut tracker = Tracker::new(now);
        for entry in 0..300 {
            let at = Moment::from_millis(entry * 10);
            tracker.note(Position(entry), at, &ready);
        }
        assert_eq!(tracker.time_for(20, now), None, "nothing comes up now");
        for entry in 0..10 {
            tracker.note(
                Position(300 + entry),
                now + Duration::from_secs(entry),
                &ready,
            );
        }
        let left = tracker.time_for(20, now + Duration::from_secs(10));
        assert_eq!(left, Some(Duration::from_secs(20)));
    }
}
