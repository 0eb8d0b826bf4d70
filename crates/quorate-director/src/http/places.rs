//! Who may have a connection. Most places are anybody's; the rest serve sessions only, so that nothing
//! people do keeps an agent from renewing.
//!
//! A place of the second kind is proven by its first request. While it is not, it can be taken away:
//! whoever connects and says nothing makes way for the next, and an agent speaks at once.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::descriptors::Budget;

/// Connections that were told to make way and have not ended yet.
const LEAVING_MAX: usize = 32;

/// What a connection may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Everything.
    Anything,
    /// The calls of sessions, and nothing else.
    Sessions,
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Its address has as many as one may have.
    Address,
    /// There are as many as this process can serve.
    All,
}

/// All places and who has them.
#[derive(Debug)]
pub(crate) struct Places {
    budget: Budget,
    of_address: usize,
    of_loopback: Option<usize>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    general: usize,
    sessions: usize,
    by_address: BTreeMap<IpAddr, usize>,
    last: u64,
    /// Connections in places for sessions that have sent no request yet, the oldest first.
    unproven: VecDeque<(u64, CancellationToken)>,
}

/// One place. Dropping it makes it free.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
    id: u64,
    pub(crate) usable_for: Use,
    /// Told when the place is needed for somebody else.
    pub(crate) taken_away: CancellationToken,
}

impl Places {
    pub(crate) fn new(budget: Budget, limits: &Limits) -> Self {
        Self {
            budget,
            of_address: limits.connections_per_address,
            of_loopback: limits.connections_of_loopback,
            inner: Mutex::default(),
        }
    }

    /// A place for a connection from this address.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let mut inner = self.lock();
        let has = inner.by_address.get(&address).copied().unwrap_or(0);
        let most = if address.is_loopback() {
            self.of_loopback
        } else {
            Some(self.of_address)
        };
        if most.is_some_and(|most| has >= most) {
            return Err(Full::Address);
        }
        let usable_for = if inner.general < self.budget.general {
            inner.general += 1;
            Use::Anything
        } else {
            inner.make_way(self.budget.sessions)?;
            inner.sessions += 1;
            Use::Sessions
        };
        inner.by_address.insert(address, has + 1);
        inner.last += 1;
        let id = inner.last;
        let taken_away = CancellationToken::new();
        if usable_for == Use::Sessions {
            inner.unproven.push_back((id, taken_away.clone()));
        }
        Ok(Place {
            places: Arc::clone(self),
            address,
            id,
            usable_for,
            taken_away,
        })
    }

    /// How many connections there are: anybody's, and those for sessions only.
    pub(crate) fn taken(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.general, inner.sessions)
    }

    /// The connection has shown that it is a session's: its place is its own from now on.
    pub(crate) fn prove(&self, id: u64) {
        self.lock().unproven.retain(|(other, _)| *other != id);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Makes sure of room in the places for sessions.
    fn make_way(&mut self, most: usize) -> Result<(), Full> {
        if self.sessions < most {
            return Ok(());
        }
        if self.sessions >= most + LEAVING_MAX {
            return Err(Full::All);
        }
        let (_, silent) = self.unproven.pop_front().ok_or(Full::All)?;
        silent.cancel();
        Ok(())
    }
}

impl Place {
    /// Its number, for [`Places::prove`].
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.lock();
        match self.usable_for {
            Use::Anything => inner.general -= 1,
            Use::Sessions => {
                inner.sessions -= 1;
                inner.unproven.retain(|(other, _)| *other != self.id);
            }
        }
        if let Some(has) = inner.by_address.get_mut(&self.address) {
            *has -= 1;
            if *has == 0 {
                inner.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn places(general: usize, sessions: usize, limits: &Limits) -> Arc<Places> {
        let budget = Budget {
            general,
            sessions,
            held: 1,
        };
        Arc::new(Places::new(budget, limits))
    }

    #[test]
    fn one_address_has_not_all_places_and_loopback_may() {
        let limits = Limits {
            connections_per_address: 2,
            ..Limits::default()
        };
        let all = places(10, 1, &limits);
        let there: IpAddr = "192.0.2.7".parse().unwrap();
        let held = [all.take(there).unwrap(), all.take(there).unwrap()];
        assert_eq!(all.take(there).err(), Some(Full::Address));
        let other = all.take("192.0.2.8".parse().unwrap()).unwrap();
        let many: Vec<Place> = (0..7).map(|_| all.take(HERE).unwrap()).collect();
        assert_eq!(all.taken(), (10, 0));
        drop((held, other, many));
        assert_eq!(all.taken(), (0, 0));
        assert!(all.lock().by_address.is_empty());

        let limits = Limits {
            connections_of_loopback: Some(1),
            ..limits
        };
        let few = places(10, 1, &limits);
        let _only = few.take(HERE).unwrap();
        assert_eq!(few.take(HERE).err(), Some(Full::Address));
    }

    #[test]
    fn whoever_says_nothing_makes_way_and_whoever_is_proven_stays() {
        let all = places(1, 2, &Limits::default());
        let general = all.take(HERE).unwrap();
        assert_eq!(general.usable_for, Use::Anything);
        let agent = all.take(HERE).unwrap();
        assert_eq!(agent.usable_for, Use::Sessions);
        all.prove(agent.id());
        let silent = all.take(HERE).unwrap();
        let next = all.take(HERE).unwrap();
        assert!(silent.taken_away.is_cancelled() && !agent.taken_away.is_cancelled());
        all.prove(next.id());
        assert_eq!(all.take(HERE).err(), Some(Full::All));
        drop(silent);
        assert_eq!(all.take(HERE).err(), Some(Full::All), "both are agents'");
        drop(agent);
        assert_eq!(all.take(HERE).unwrap().usable_for, Use::Sessions);
        drop(general);
        assert_eq!(all.take(HERE).unwrap().usable_for, Use::Anything);
    }

    #[test]
    fn connections_that_do_not_end_are_not_followed_by_ever_more() {
        let all = places(1, 1, &Limits::default());
        let mut held = vec![all.take(HERE).unwrap()];
        while let Ok(place) = all.take(HERE) {
            held.push(place);
            assert!(held.len() < 100);
        }
        assert_eq!(all.taken(), (1, 1 + LEAVING_MAX));
    }
}
