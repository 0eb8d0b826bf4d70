//! The way from agents and people to directors and back: calls, renewals and polls.

use std::time::Duration;

use quorate_core::cluster::Cluster;
use quorate_core::director::WorkDelta;
use quorate_core::director::call::{Answer, Call, CallId, Refusal, Renewal, RenewalAnswer};
use quorate_core::director::event::Event;
use quorate_core::ids::{Position, SessionId};

use crate::clock::SECOND;
use crate::directors::{HeldPoll, Poll, PollAnswer};
use crate::world::{Arrival, Happening, Origin, Party, Pending, PendingRenewal, What, World};

/// How long a caller waits for the answer to a call.
const CALL_WITHIN: u64 = 2 * SECOND;
/// How long a director holds a poll back.
const POLL_HELD: u64 = 4 * SECOND;
/// Directors that one call asks, at most.
const HOPS_MAX: u32 = 5;

fn at_address(address: &str) -> Option<usize> {
    let digits = address.strip_prefix('d')?.strip_suffix(":7400")?;
    digits.parse().ok()
}

impl World {
    /// The name of the agent for which a call is made.
    pub(crate) fn agent_of(&self, origin: &Origin) -> Option<&str> {
        match origin {
            Origin::Agent { host, .. } => {
                let host = self.hosts.get(*host)?;
                Some(&host.name)
            }
            Origin::LastWill { .. } | Origin::Operator => None,
        }
    }

    /// Makes a call.
    pub(crate) fn call(&mut self, origin: Origin, call: Call) {
        let number = self.number();
        let pending = Pending {
            origin,
            call,
            hops: 0,
            awaited: true,
        };
        self.calls.insert(number, pending);
        let n = self.favourite(&origin);
        self.ask(number, n);
        self.after(CALL_WITHIN, Happening::CallTimedOut(number));
    }

    fn ask(&mut self, number: u64, n: usize) {
        let Some(from) = self.calls.get(&number).map(|call| party(&call.origin)) else {
            return;
        };
        let arrives = Happening::CallArrives(n, number);
        self.send(from, Party::Director(n), arrives);
    }

    fn favourite(&mut self, origin: &Origin) -> usize {
        match origin {
            Origin::Agent { host, .. } | Origin::LastWill { host, .. } => {
                self.hosts.get(*host).map_or(0, |host| host.favourite)
            }
            Origin::Operator => self.any_director(),
        }
    }

    pub(crate) fn any_director(&mut self) -> usize {
        let n = self.random.below(self.directors.len() as u64);
        usize::try_from(n).unwrap_or(0)
    }

    pub(crate) fn call_arrives(&mut self, n: usize, number: u64) {
        let Some((origin, call)) = self
            .calls
            .get(&number)
            .map(|one| (one.origin, one.call.clone()))
        else {
            return;
        };
        if self.node(n).is_none_or(|node| node.machine.is_none()) {
            return;
        }
        let id = self.number();
        let agent = self.agent_of(&origin).map(str::to_owned);
        let noted = self.oracle.asked(self.now, agent.as_deref(), Some(&call));
        self.arrivals.insert(id, Arrival { number, noted });
        let id = CallId(id);
        self.step_director(n, Event::Asked { id, call });
    }

    pub(crate) fn call_answered(&mut self, number: u64, answer: Answer) {
        let Some(pending) = self.calls.get_mut(&number).filter(|one| one.awaited) else {
            return;
        };
        if let Answer::NotLeader { leader } = &answer {
            pending.hops += 1;
            let (origin, hops) = (pending.origin, pending.hops);
            if hops > HOPS_MAX {
                return self.call_failed(number);
            }
            let known = leader.as_deref().and_then(at_address);
            let next = match known {
                Some(next) => next,
                None => self.any_director(),
            };
            self.prefer(&origin, next);
            return self.ask(number, next);
        }
        pending.awaited = false;
        match pending.origin {
            Origin::Agent {
                host,
                generation,
                warden,
                what,
            } => self.agent_answered(host, generation, warden, what, answer),
            Origin::LastWill {
                host,
                session,
                tries,
            } => match answer {
                Answer::Done { .. } | Answer::Refused(_) => {}
                Answer::Opened { .. }
                | Answer::Reported { .. }
                | Answer::Checkpoints { .. }
                | Answer::Unknown
                | Answer::NotLeader { .. } => {
                    self.after(SECOND, Happening::LastWill(host, session, tries + 1));
                }
            },
            Origin::Operator => self.operator_answered(&answer),
        }
    }

    fn prefer(&mut self, origin: &Origin, n: usize) {
        if let Origin::Agent { host, .. } | Origin::LastWill { host, .. } = origin
            && let Some(host) = self.hosts.get_mut(*host)
        {
            host.favourite = n;
        }
    }

    pub(crate) fn call_failed(&mut self, number: u64) {
        let Some(pending) = self.calls.get_mut(&number).filter(|one| one.awaited) else {
            return;
        };
        pending.awaited = false;
        let origin = pending.origin;
        let n = self.any_director();
        self.prefer(&origin, n);
        match origin {
            Origin::Agent {
                host,
                generation,
                warden,
                what,
            } => self.agent_unanswered(host, generation, warden, what),
            Origin::LastWill {
                host,
                session,
                tries,
            } => {
                self.after(SECOND / 2, Happening::LastWill(host, session, tries + 1));
            }
            Origin::Operator => self.operator_answered(&Answer::Unknown),
        }
    }

    pub(crate) fn renewal_arrives(&mut self, n: usize, number: u64, renewal: Renewal) {
        let host = self.renewals.get(&number).map(|pending| pending.host);
        let Some(host) = host.and_then(|host| self.hosts.get(host)) else {
            return;
        };
        if self
            .directors
            .get(n)
            .is_none_or(|node| node.machine.is_none())
        {
            return;
        }
        let now = self.now;
        let pending = self.renewals.get_mut(&number);
        let arrived = pending.map_or(now, |pending| *pending.arrived.get_or_insert(now));
        let noted = self.oracle.asked(arrived, Some(&host.name), None);
        let id = self.number();
        self.arrivals.insert(id, Arrival { number, noted });
        let id = CallId(id);
        self.step_director(n, Event::Renewed { id, renewal });
    }

    pub(crate) fn renewal_answered(&mut self, number: u64, answer: RenewalAnswer) {
        let Some(pending) = self.renewal_settled(number) else {
            return;
        };
        match answer {
            RenewalAnswer::Answered { renewed, lost } => {
                self.agent_renewed(&pending, &renewed, &lost);
            }
            RenewalAnswer::NotLeader { leader } => {
                let known = leader.as_deref().and_then(at_address);
                let next = match known {
                    Some(next) => next,
                    None => self.any_director(),
                };
                if let Some(host) = self.hosts.get_mut(pending.host) {
                    host.favourite = next;
                }
                self.renew_soon(pending.host, pending.generation);
            }
        }
    }

    /// A director has not answered: the shell asks the next one, with the same attempt.
    pub(crate) fn renewal_unanswered(&mut self, number: u64, director: usize) {
        let directors = self.directors.len();
        let pending = self.renewals.get_mut(&number);
        let Some(pending) = pending.filter(|one| one.awaited) else {
            return;
        };
        pending.tries += 1;
        let (host, renewal) = (pending.host, pending.renewal.clone());
        if pending.tries > directors {
            return self.renewal_failed(number);
        }
        self.ask_renewal(host, number, (director + 1) % directors.max(1), renewal);
    }

    pub(crate) fn ask_renewal(&mut self, host: usize, number: u64, n: usize, renewal: Renewal) {
        let arrives = Happening::RenewalArrives(n, number, renewal);
        self.send(Party::Host(host), Party::Director(n), arrives);
        self.after(SECOND, Happening::RenewalUnanswered(number, n));
    }

    /// Nobody waits for the answer to a renewal from here on; what it was, if somebody did.
    fn renewal_settled(&mut self, number: u64) -> Option<PendingRenewal> {
        let pending = self.renewals.get_mut(&number)?;
        if !std::mem::take(&mut pending.awaited) {
            return None;
        }
        // Nobody else asks whose they were.
        let sessions = std::mem::take(&mut pending.sessions);
        Some(PendingRenewal {
            sessions,
            ..pending.clone()
        })
    }

    fn renewal_failed(&mut self, number: u64) {
        let Some(pending) = self.renewal_settled(number) else {
            return;
        };
        let n = self.any_director();
        if let Some(host) = self.hosts.get_mut(pending.host) {
            host.favourite = n;
        }
        self.renew_soon(pending.host, pending.generation);
    }

    pub(crate) fn poll_arrives(&mut self, n: usize, poll: Poll) {
        if let Some(thaw) = self
            .node(n)
            .map(|node| node.frozen_until)
            .filter(|at| *at > self.now)
        {
            return self.at(thaw, Happening::PollArrives(n, poll));
        }
        if !self.answer_poll(n, &poll, false)
            && let Some(node) = self.node(n)
            && let Some(machine) = &node.machine
        {
            let looked = machine.cluster().position();
            node.polls.insert(poll.number, HeldPoll { poll, looked });
            self.after(POLL_HELD, Happening::PollHeld(n, poll.number));
        }
    }

    pub(crate) fn poll_held(&mut self, n: usize, number: u64) {
        if let Some(thaw) = self
            .node(n)
            .map(|node| node.frozen_until)
            .filter(|at| *at > self.now)
        {
            return self.at(thaw, Happening::PollHeld(n, number));
        }
        let held = self.node(n).and_then(|node| node.polls.remove(&number));
        if let Some(held) = held {
            self.answer_poll(n, &held.poll, true);
        }
    }

    /// Answers a poll when there is news, or it has waited for long enough.
    fn answer_poll(&mut self, n: usize, poll: &Poll, anyway: bool) -> bool {
        let machine = self.directors.get(n).and_then(|node| node.machine.as_ref());
        let Some(machine) = machine else {
            return false;
        };
        let work = machine.work(poll.session, poll.since);
        if work.is_none() && !anyway {
            return false;
        }
        self.send_answer(n, poll, work);
        true
    }

    fn send_answer(&mut self, n: usize, poll: &Poll, work: Option<WorkDelta>) {
        let machine = self.directors.get(n).and_then(|node| node.machine.as_ref());
        let Some(machine) = machine else {
            return;
        };
        let services = machine.cluster().services();
        let mut leases: Vec<Duration> = services
            .filter(|(_, service)| !service.removed())
            .map(|(_, service)| service.spec().lease_class())
            .collect();
        leases.sort_unstable();
        leases.dedup();
        let answer = Box::new(PollAnswer { work, leases });
        let answered = Happening::PollAnswered(*poll, answer);
        self.send(Party::Director(n), Party::Host(poll.host), answered);
    }

    pub(crate) fn tell_news(&mut self, n: usize) {
        let Some(node) = self.directors.get_mut(n) else {
            return;
        };
        let Some(machine) = &node.machine else {
            return;
        };
        let cluster = machine.cluster();
        let mut news = Vec::new();
        for HeldPoll { poll, looked } in node.polls.values_mut() {
            if may_have_news(cluster, poll.session, *looked) {
                let work = machine.work(poll.session, poll.since);
                news.extend(work.map(|work| (*poll, work)));
                *looked = cluster.position();
            }
        }
        for (poll, work) in news {
            if let Some(node) = self.node(n) {
                node.polls.remove(&poll.number);
            }
            self.send_answer(n, &poll, Some(work));
        }
    }
}

/// Whether what a session is to hold may have changed since there was nothing new for it: a director does not
/// look through the work of everybody who waits after every entry.
fn may_have_news(cluster: &Cluster, session: SessionId, looked: Position) -> bool {
    let session = cluster.session(session);
    session.is_some_and(|session| session.changed().max(cluster.spec_changed()) > looked)
}

pub(crate) fn party(origin: &Origin) -> Party {
    match origin {
        Origin::Agent { host, .. } | Origin::LastWill { host, .. } => Party::Host(*host),
        Origin::Operator => Party::Operator,
    }
}

/// Whether an answer means that a session is over for this process.
pub(crate) fn is_over(answer: &Answer) -> bool {
    match answer {
        Answer::Refused(Refusal::Fenced(_) | Refusal::NotFound { .. }) => true,
        Answer::Refused(
            Refusal::Conflict(_)
            | Refusal::Condition(_)
            | Refusal::Invalid(_)
            | Refusal::OtherRequest
            | Refusal::ShownOnce { .. }
            | Refusal::Overloaded,
        )
        | Answer::Done { .. }
        | Answer::Opened { .. }
        | Answer::Reported { .. }
        | Answer::Checkpoints { .. }
        | Answer::Unknown
        | Answer::NotLeader { .. } => false,
    }
}

/// Whether a call of an agent may be answered by this.
pub(crate) fn fits(what: What, answer: &Answer) -> bool {
    match (what, answer) {
        (What::Open | What::Resume, Answer::Opened { .. })
        | (What::Report(_), Answer::Reported { .. })
        | (What::Checkpoints(_), Answer::Checkpoints { .. })
        | (What::Close, Answer::Done { .. }) => true,
        (What::Open | What::Resume | What::Report(_) | What::Checkpoints(_) | What::Close, _) => {
            false
        }
    }
}
