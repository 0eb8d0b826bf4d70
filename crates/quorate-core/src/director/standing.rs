//! Who leads over a store that cannot tell: a leader is heard by what it appends, and who has heard nothing for long
//! enough stands for election.
//!
//! A leader that has nothing to write appends `Beat`. Silence is what a successful look at the end of the ledger
//! says, never a clock alone: a director that cannot reach the store has heard nothing of anybody. How long each
//! waits is drawn anew every time, so that two seldom stand at once; if they do, the position decides.
//!
//! All of this is about having a leader. What a leader may do rests on proofs and positions, whatever is heard here.

use std::time::Duration;

use crate::ids::{BatchId, Era, Position};
use crate::time::Moment;

use super::effect::Effect;
use super::event::Now;
use super::proofs::Arrival;
use super::{Config, Director, Role};

/// For how long a leader over a shared store may be silent: a store that loses its own leader, or waits for a slow
/// disk, mostly answers again within a second, and then nothing need change.
pub const SILENCE: Duration = Duration::from_millis(1200);
/// T of R17 over a shared store: silence twice, a look at the end of the ledger, an append, and what a read takes.
pub const TAKEOVER: Duration = Duration::from_secs(3);

/// A leader is heard so often while others would wait for it once.
const BEATS: u32 = 3;
/// In so many steps the second half of a wait is drawn.
const STEPS: u32 = 1000;

/// What is told once to a director whose ledger is in a store that several share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// A leader that is silent for this long may be followed by another, and one that has not reached the store for
    /// this long leads no longer. Others wait for as long once more at most.
    pub silence: Duration,
    /// The last entry that this director had folded when it wrote that down last, and its hash: the store must have
    /// it. `None` when it has folded nothing before.
    pub folded: Option<(Position, u64)>,
    /// It has stopped over lost history before: only an era after that of `folded` can be folded.
    pub stopped: bool,
}

impl Shared {
    /// How far the ledger must reach at least.
    fn least(&self) -> Option<Position> {
        let (position, _) = self.folded?;
        let next = Era(Era::of(position.0).0.saturating_add(1));
        Some(if self.stopped {
            Position(next.first())
        } else {
            position
        })
    }
}

/// What was heard, and when.
#[derive(Debug)]
pub(super) struct Standing {
    shared: Option<Shared>,
    /// Not before this is the end of the ledger looked at. Nothing is known before the first step.
    look_at: Option<Moment>,
    /// When this leader last knew that it has the store.
    reached: Moment,
    /// When this leader last ordered an append.
    spoken: Moment,
    /// When this leader last looked whether it still has the store.
    doubted: Moment,
    /// State of the draws.
    drawn: u64,
}

impl Standing {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            shared: config.shared,
            look_at: None,
            reached: Moment::default(),
            spoken: Moment::default(),
            doubted: Moment::default(),
            drawn: config.writer,
        }
    }

    fn silence(&self) -> Option<Duration> {
        self.shared.map(|shared| shared.silence)
    }

    /// Between nothing and the whole of a span.
    fn draw(&mut self, span: Duration) -> Duration {
        // SplitMix64: nothing rests on how good it is, only on directors having drawn different numbers to begin with.
        self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.drawn;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let step = u32::try_from(mixed % u64::from(STEPS)).unwrap_or(0);
        span * step / STEPS
    }

    /// Somebody leads, or nobody can know: nothing is looked at for a while.
    fn wait(&mut self, now: Moment) {
        if let Some(silence) = self.silence() {
            self.look_at = Some(now + silence + self.draw(silence));
        }
    }

    /// Nothing could be known, or this director itself led until now: it is looked at again soon.
    fn wait_shortly(&mut self, now: Moment) {
        if let Some(silence) = self.silence() {
            self.look_at = Some(now + silence / BEATS);
        }
    }

    /// What this director had folded before is where the ledger must reach to at least.
    pub(super) fn at_least(&self, folded: Position) -> Position {
        let least = self.shared.and_then(|shared| shared.least());
        least.map_or(folded, |least| folded.max(least))
    }

    /// Why what was folded last cannot be of the ledger that this director knows: it had folded another entry there,
    /// or has stopped over what is missing before.
    pub(super) fn contradiction(&self, position: Position, hash: u64) -> Option<String> {
        let shared = self.shared?;
        let (noted, other) = shared.folded?;
        if shared.stopped && shared.least().is_some_and(|least| position < least) {
            let era = Era::of(noted.0);
            return Some(format!(
                "other history: this director has stopped over it before, and the ledger is still of era {era}"
            ));
        }
        (noted == position && other != hash).then(|| {
            format!(
                "other history: position {position} has another entry than this director has folded there before"
            )
        })
    }

    /// Over a shared store only the leader keeps snapshots.
    pub(super) fn keeps(&self, role: &Role) -> bool {
        self.shared.is_none() || *role == Role::Leader
    }

    /// An entry of this leader is on its way.
    pub(super) fn speaks(&mut self, now: Moment) {
        self.spoken = now;
    }

    /// This leader has shown that it has the store.
    pub(super) fn reaches(&mut self, now: Moment) {
        self.reached = now;
    }

    /// Whether a leader has to say something, so that others hear it.
    pub(super) fn beats(&self, now: Moment) -> bool {
        self.beats_at().is_some_and(|at| at <= now)
    }

    fn beats_at(&self) -> Option<Moment> {
        self.silence().map(|silence| self.spoken + silence / BEATS)
    }

    fn gives_up_at(&self) -> Option<Moment> {
        self.silence().map(|silence| self.reached + silence)
    }

    /// When a leader that has not reached the store for some time is to look whether it still can.
    fn doubts_at(&self) -> Option<Moment> {
        let silence = self.silence()?;
        Some((self.reached + silence / 2).max(self.doubted + silence / BEATS))
    }

    /// When something is to be done for all this; `looks` while the end of the ledger is being looked at.
    pub(super) fn due(&self, role: &Role, busy: bool, looks: bool) -> Option<Moment> {
        match role {
            Role::Follower if looks => None,
            Role::Follower => self.look_at,
            Role::Leader => {
                let doubts = self.doubts_at().filter(|_| !looks);
                let beats = self.beats_at().filter(|_| !busy);
                super::earliest(self.gives_up_at(), super::earliest(doubts, beats))
            }
            Role::Candidate | Role::Halted(_) => None,
        }
    }
}

impl Director {
    /// An entry was folded, or a snapshot taken over: whoever wrote it leads, or has done so a moment ago.
    pub(super) fn heard(&mut self, now: Now, by: Option<BatchId>) {
        if self.standing.shared.is_none() {
            return;
        }
        if by.is_some_and(|by| self.log.writes(by)) {
            self.standing.reaches(now.moment);
        } else if self.role == Role::Candidate {
            self.role = Role::Follower;
        }
        self.standing.wait(now.moment);
    }

    /// This director's own election is folded, as a follower's: it had been a candidate, and given up before it knew.
    pub(super) fn takes_late_office(&self, by: BatchId) -> bool {
        self.standing.shared.is_some() && self.log.writes(by)
    }

    /// A leader that has lost the store decides nothing any more, and those who ask are told so.
    pub(super) fn give_up_office(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self
            .standing
            .gives_up_at()
            .is_some_and(|at| at <= now.moment)
        {
            self.step_down(effects);
            self.standing.wait_shortly(now.moment);
        } else if self.standing.doubts_at().is_some_and(|at| at <= now.moment) {
            // An append may take long where a look does not.
            self.doubt(now, effects);
        }
    }

    /// A follower looks at the end of the ledger when it has heard nothing for long.
    pub(super) fn listen(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(silence) = self.standing.silence() else {
            return;
        };
        let Some(look_at) = self.standing.look_at else {
            // Nobody leads who could be waited for: this is the first step, and either nobody ever led, or it was this
            // director itself in an earlier life. The look tells if it is otherwise.
            let nobody = self
                .cluster
                .leader()
                .is_none_or(|leader| leader.id == self.config.id);
            if nobody {
                self.standing.look_at = Some(now.moment + self.standing.draw(silence / BEATS));
            } else {
                self.standing.wait(now.moment);
            }
            return;
        };
        if look_at <= now.moment && !self.proofs.begun() {
            // Until it is answered, and if it is not.
            self.standing.wait(now.moment);
            self.begin_proof(Arrival::default(), effects);
        }
    }

    /// A store that does not take an entry may have lost those before it: its end tells.
    pub(super) fn doubt(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.standing.shared.is_some() && !self.proofs.begun() {
            self.standing.doubted = now.moment;
            self.begin_proof(Arrival::default(), effects);
        }
    }

    /// The end of the ledger was looked at, and nobody leads here; `None` when it could not be.
    pub(super) fn looked(&mut self, now: Now, next: Option<Position>) {
        if self.standing.shared.is_none() || self.role != Role::Follower {
            return;
        }
        let Some(next) = next else {
            return self.standing.wait_shortly(now.moment);
        };
        self.standing.wait(now.moment);
        if next > self.cluster.position().next() {
            self.log.occupied(Position(next.0.saturating_sub(1)));
        } else {
            self.role = Role::Candidate;
        }
    }
}
