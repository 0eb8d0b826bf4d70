//! A decorator that makes the bad days of a network out of any ledger: answers are lost, delayed,
//! repeated and reordered, calls are refused, and an append whose answer was lost may land much later,
//! even after its position was trimmed.
//!
//! It must never break a rule of [`Ledger`] that the ledger within keeps: everything it does could have
//! happened between a caller and a store. The same seed draws the same faults in the same order of calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_core::ids::{ClusterId, Epoch, Position};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::conformance::InStore;
use crate::shared::{BeginError, Owner};
use crate::{AppendError, Appended, Committed, Hints, Ledger, ReadError, Snapshot, Tail};

/// How often each fault happens, in calls of a thousand, and how long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The call never reaches the store: refused, or unavailable for a read.
    pub refused: u32,
    /// The store does it and the answer is lost.
    pub lost: u32,
    /// The answer is lost and an append reaches the store only after up to `late_max`.
    pub late: u32,
    /// The append reaches the store twice; the second answer is told.
    pub repeated: u32,
    /// A read tells fewer entries than it could.
    pub shortened: u32,
    /// A hint is not passed on.
    pub hint_lost: u32,
    /// Longest delay of a call on its way to the store, and of an answer on its way back. Different
    /// delays of concurrent calls reorder them.
    pub delay_max: Duration,
    /// Longest delay of a late append.
    pub late_max: Duration,
}

impl Faults {
    /// Everything goes wrong often, within milliseconds.
    #[must_use]
    pub const fn rough() -> Self {
        Self {
            refused: 100,
            lost: 100,
            late: 100,
            repeated: 100,
            shortened: 200,
            hint_lost: 300,
            delay_max: Duration::from_millis(2),
            late_max: Duration::from_millis(20),
        }
    }
}

/// A ledger behind a bad network.
#[derive(Debug)]
pub struct FaultyLedger<L> {
    within: Arc<L>,
    faults: Faults,
    dice: Mutex<Dice>,
    late: Mutex<JoinSet<()>>,
    hints: watch::Sender<Hints>,
    forwarder: AbortHandle,
}

impl<L> Drop for FaultyLedger<L> {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

/// A small generator (splitmix64): the faults need variety, not unpredictability.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&mut self, of_a_thousand: u32) -> bool {
        self.draw() % 1000 < u64::from(of_a_thousand)
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.draw() % micros.saturating_add(1))
    }
}

/// What becomes of one append.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Refused,
    Lost,
    Late(Duration),
    Repeated,
    Well,
}

const LOST: &str = "the answer was lost";
const UNSENT: &str = "the store was not reached";

impl<L: Ledger> FaultyLedger<L> {
    /// Puts a bad network before `within`. Must be called within a Tokio runtime, which runs the task
    /// that passes hints on.
    pub fn new(within: Arc<L>, faults: Faults, seed: u64) -> Self {
        let mut source = within.hints();
        let hints = watch::Sender::new(source.borrow_and_update().clone());
        let passing = hints.clone();
        let mut dice = Dice(seed ^ 0x6869_6e74);
        let forwarder = tokio::spawn(async move {
            while source.changed().await.is_ok() {
                let hint = source.borrow_and_update().clone();
                tokio::time::sleep(dice.up_to(faults.delay_max)).await;
                if !dice.happens(faults.hint_lost) {
                    passing.send_replace(hint);
                }
            }
        })
        .abort_handle();
        Self {
            within,
            faults,
            dice: Mutex::new(Dice(seed)),
            late: Mutex::new(JoinSet::new()),
            hints,
            forwarder,
        }
    }

    /// Waits until every late call that was drawn so far has landed.
    pub async fn settled(&self) {
        let mut late = std::mem::take(&mut *lock(&self.late));
        while late.join_next().await.is_some() {}
    }

    fn fate(&self) -> Fate {
        let mut dice = lock(&self.dice);
        if dice.happens(self.faults.refused) {
            Fate::Refused
        } else if dice.happens(self.faults.lost) {
            Fate::Lost
        } else if dice.happens(self.faults.late) {
            Fate::Late(dice.up_to(self.faults.late_max))
        } else if dice.happens(self.faults.repeated) {
            Fate::Repeated
        } else {
            Fate::Well
        }
    }

    async fn travel(&self) {
        let delay = lock(&self.dice).up_to(self.faults.delay_max);
        tokio::time::sleep(delay).await;
    }

    /// Carries a call that changes nothing or may be lost as a whole.
    async fn carry<T, E: From<ReadError>>(
        &self,
        call: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        self.travel().await;
        if lock(&self.dice).happens(self.faults.refused) {
            return Err(ReadError::Unavailable(UNSENT.into()).into());
        }
        let answer = call.await;
        self.travel().await;
        if lock(&self.dice).happens(self.faults.lost) {
            return Err(ReadError::Unavailable(LOST.into()).into());
        }
        answer
    }

    fn land_later<T>(&self, delay: Duration, call: impl Future<Output = T> + Send + 'static) {
        let mut late = lock(&self.late);
        while late.try_join_next().is_some() {}
        late.spawn(async move {
            tokio::time::sleep(delay).await;
            // Nobody waits for this answer any more: that is the fault.
            drop(call.await);
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<L: Ledger> Ledger for FaultyLedger<L> {
    async fn append(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> Result<Appended, AppendError> {
        let unknown = || AppendError::OutcomeUnknown {
            at,
            cause: LOST.into(),
        };
        self.travel().await;
        let answer = match self.fate() {
            Fate::Refused => {
                return Err(AppendError::Refused {
                    at,
                    cause: UNSENT.into(),
                });
            }
            Fate::Lost => {
                drop(self.within.append(at, epoch, entry).await);
                Err(unknown())
            }
            Fate::Late(delay) => {
                let within = Arc::clone(&self.within);
                let append = async move { within.append(at, epoch, entry).await };
                self.land_later(delay, append);
                Err(unknown())
            }
            Fate::Repeated => {
                drop(self.within.append(at, epoch, entry.clone()).await);
                match self.within.append(at, epoch, entry).await {
                    // The first copy may still have been written: a second refusal proves nothing.
                    Err(AppendError::Refused { .. }) => Err(unknown()),
                    answer => answer,
                }
            }
            Fate::Well => self.within.append(at, epoch, entry).await,
        };
        self.travel().await;
        answer
    }

    async fn tail(&self) -> Result<Tail, ReadError> {
        self.carry(self.within.tail()).await
    }

    async fn read(&self, from: Position, limit: usize) -> Result<Vec<Committed>, ReadError> {
        let mut found = self.carry(self.within.read(from, limit)).await?;
        if lock(&self.dice).happens(self.faults.shortened) {
            found.truncate(found.len().div_ceil(2));
        }
        Ok(found)
    }

    async fn save_snapshot(&self, next: Position, snapshot: Vec<u8>) -> Result<(), ReadError> {
        self.carry(self.within.save_snapshot(next, snapshot)).await
    }

    async fn load_snapshot(&self) -> Result<Option<Snapshot>, ReadError> {
        self.carry(self.within.load_snapshot()).await
    }

    fn hints(&self) -> watch::Receiver<Hints> {
        self.hints.subscribe()
    }
}

impl<L: InStore> InStore for FaultyLedger<L> {
    async fn owner(&self) -> Result<Option<Owner>, ReadError> {
        self.carry(self.within.owner()).await
    }

    async fn claim(&self, cluster: ClusterId) -> Result<Owner, ReadError> {
        self.carry(self.within.claim(cluster)).await
    }

    async fn mark_moved(&self, cluster: ClusterId, to: &str) -> Result<(), ReadError> {
        self.carry(self.within.mark_moved(cluster, to)).await
    }

    async fn begin(
        &self,
        next: Position,
        epoch: Epoch,
        snapshot: Vec<u8>,
        instead_of: Option<Position>,
    ) -> Result<(), BeginError> {
        let call = |snapshot: Vec<u8>| {
            let within = Arc::clone(&self.within);
            async move { within.begin(next, epoch, snapshot, instead_of).await }
        };
        let unavailable = |why: &str| Err(BeginError::Unavailable(why.into()));
        self.travel().await;
        let answer = match self.fate() {
            Fate::Refused => return unavailable(UNSENT),
            Fate::Lost => {
                drop(call(snapshot).await);
                unavailable(LOST)
            }
            Fate::Late(delay) => {
                self.land_later(delay, call(snapshot));
                unavailable(LOST)
            }
            Fate::Repeated => {
                drop(call(snapshot.clone()).await);
                call(snapshot).await
            }
            Fate::Well => call(snapshot).await,
        };
        self.travel().await;
        answer
    }
}
