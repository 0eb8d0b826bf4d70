//! Runs that say how far they have come, by way of their agent, and hear whether it is kept.

use quorate_core::agent::{AskId, Event, Fate, Latest, RunId, WardenId};
use quorate_core::checkpoint::Content;
use quorate_core::director::call::{Call, Checkpoints};

use crate::clock::{MILLI, SECOND};
use crate::oracle::{Word, read, written};
use crate::world::{Happening, What, World};

/// Most words that a run says one soon after the other. Then it goes on to say one now and then, as long as
/// it lives: the process of its agent may change at any time.
const WORDS: u64 = 20;
/// Least and longest pause between those.
const NOW_AND_THEN: (u64, u64) = (10 * SECOND, 30 * SECOND);
/// With more partitions than this fewer of their runs say anything: many words find no more than some.
const PARTITIONS: u64 = 16;

impl World {
    /// A run has started: perhaps it is one that says how far it has come.
    pub(crate) fn may_say(&mut self, n: usize, warden: WardenId, run: RunId) {
        let share = self.profile.says * PARTITIONS / self.size.partitions.max(PARTITIONS);
        if self.random.permille(share) {
            let words = self.random.between(1, WORDS);
            let pause = self.random.between(MILLI, SECOND);
            self.after(pause, Happening::RunSays(n, warden, run, words));
        }
    }

    /// A run says how far it has come, and more later.
    pub(crate) fn run_says(&mut self, n: usize, id: WardenId, run: RunId, left: u64) {
        let now = self.now;
        let warden = self.warden(n, id);
        let Some(warden) = warden.filter(|warden| warden.lives(run)) else {
            return;
        };
        let hears = warden.connected && warden.frozen_until <= now;
        let left = left.saturating_sub(1);
        let (least, most) = if left > 0 {
            (20 * MILLI, 4 * SECOND)
        } else {
            NOW_AND_THEN
        };
        let pause = self.random.between(least, most);
        self.after(pause, Happening::RunSays(n, id, run, left));
        let ask = self.number();
        let word = (run.token, ask);
        let Ok(content) = Content::new(&written(word)) else {
            return;
        };
        // While there is no agent, nobody takes the word.
        if hears {
            self.asks.insert(ask, (run, word));
            let asked = Event::CheckpointAsked {
                warden: id,
                run,
                ask: AskId(ask),
                content,
            };
            self.answer(n, id, asked);
        }
    }

    /// The agent tells a run what became of its word.
    pub(crate) fn word_answered(&mut self, n: usize, ask: AskId, fate: Fate) {
        let Some((run, word)) = self.asks.remove(&ask.0) else {
            return;
        };
        let host = self.hosts.get(n);
        let mut wardens = host.into_iter().flat_map(|host| host.wardens.values());
        let hears = wardens.any(|warden| warden.lives(run));
        match fate {
            Fate::Kept { .. } if hears => self.oracle.told_as_kept(self.now, word),
            Fate::Kept { .. } | Fate::Ended { .. } | Fate::Unknown => {}
        }
    }

    pub(crate) fn send_words(
        &mut self,
        n: usize,
        warden: WardenId,
        call: u64,
        checkpoints: Checkpoints,
    ) {
        let what = What::Checkpoints(call);
        self.agent_call(n, warden, what, Call::Checkpoints(checkpoints));
    }
}

/// What a run finds of the ones before it.
pub(crate) fn found(checkpoint: Option<&Latest>) -> Option<Word> {
    checkpoint.and_then(|latest| read(latest.content.as_bytes()))
}
