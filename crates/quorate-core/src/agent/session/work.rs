//! What the directors want this session to hold. A list of theirs gives and takes; nothing here starts
//! anything before the claim is answered.

use std::collections::BTreeSet;

use super::*;

impl Session {
    pub(super) fn work(&mut self, now: Moment, work: Work, effects: &mut Vec<Effect>) {
        if self.link != Link::Open {
            return;
        }
        if work.whole {
            let named: BTreeSet<Token> = work.items.iter().map(|item| item.token).collect();
            let unnamed: Vec<Token> = self
                .runs
                .keys()
                .filter(|token| !named.contains(token))
                .copied()
                .collect();
            for token in unnamed {
                self.unlisted(now, token, effects);
            }
            self.refused.retain(|token| named.contains(token));
        }
        for token in work.gone {
            self.refused.remove(&token);
            self.deny(now, token, effects);
        }
        for item in work.items {
            self.item(now, item, effects);
        }
    }

    pub(super) fn item(&mut self, now: Moment, mut item: Item, effects: &mut Vec<Effect>) {
        let token = item.token;
        if self.refused.contains(&token) {
            return;
        }
        let checkpoint = item.checkpoint.take();
        let item = Arc::new(item);
        let event = match self.runs.get_mut(&token) {
            Some(run) if matches!(run.right, Right::Given | Right::Denied) => return,
            Some(run) => run.set_item(Arc::clone(&item)),
            None => {
                self.runs.insert(token, Run::named(Arc::clone(&item)));
                None
            }
        };
        let Some(run) = self.runs.get_mut(&token) else {
            return;
        };
        if let Some(checkpoint) = checkpoint {
            run.learn(checkpoint);
        }
        if self.leaving || !run.wanted() {
            self.stop(now, token, effects);
            return;
        }
        if run.right == Right::Unconfirmed {
            // Also what an earlier process had assumed: whether it has given it back since, only the
            // directors know.
            self.outbox.assume(item.partition, token);
            if let (Some(report), true) = (run.life.report(), run.life.may_live()) {
                self.outbox.observe(item.partition, token, report);
            }
            if run.life.state() == State::Held {
                self.held.insert(token);
            }
            self.set_right(token, Right::Claimed);
            if self.plants.has(Planted::UnassumedStart) {
                self.assumed(now, token, effects);
            }
        }
        if let Some(event) = event {
            self.drive(now, token, event, effects);
        }
        self.drive_end(now, token, effects);
    }

    /// Ends a run and gives its token back.
    pub(super) fn stop(&mut self, now: Moment, token: Token, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(&token) else {
            return;
        };
        match run.right {
            // The directors say that this session holds it, and nothing of it lives or will.
            Right::Unconfirmed => {}
            Right::Claimed => {
                if self.outbox.withdraw(token) && !run.life.may_live() && self.leaving {
                    // It was only assigned: closing the session frees it.
                    self.remove(token, effects);
                    return;
                }
                // The claim is under way: whatever becomes of it, nothing is started.
            }
            Right::Assumed => {}
            Right::Given | Right::Denied => return,
        }
        self.drive(now, token, RunEvent::StopAsked, effects);
        self.drive_end(now, token, effects);
    }

    /// The list of a director does not name a token, so nothing of it may live. It is given back all
    /// the same: a director that is behind may not know yet that it is ours, and the others would wait
    /// for a run that is no more.
    pub(super) fn unlisted(&mut self, now: Moment, token: Token, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(&token) else {
            return;
        };
        match run.right {
            Right::Given | Right::Denied => return,
            Right::Unconfirmed | Right::Claimed | Right::Assumed => {}
        }
        self.set_right(token, Right::Unconfirmed);
        self.outbox.drop(token);
        self.held.remove(&token);
        self.drive(now, token, RunEvent::KillAsked, effects);
        self.drive_end(now, token, effects);
    }

    /// A token is not ours: what lives of it must die at once.
    pub(super) fn deny(&mut self, now: Moment, token: Token, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(&token) else {
            return;
        };
        if run.right == Right::Given {
            // The answer to its release is on its way and removes it.
            return;
        }
        self.set_right(token, Right::Denied);
        self.drop_checkpoint(token, effects);
        self.outbox.drop(token);
        self.held.remove(&token);
        self.drive(now, token, RunEvent::KillAsked, effects);
        self.drive_end(now, token, effects);
    }
}
