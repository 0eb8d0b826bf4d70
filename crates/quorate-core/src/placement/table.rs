//! Dense tables that are read by index.

use std::marker::PhantomData;

/// A dense index.
pub(super) trait Key: Copy {
    /// Its row.
    fn at(self) -> usize;
}

/// Rows by index. Reading a row that was never made is a broken invariant and panics.
#[derive(Clone, Debug)]
pub(super) struct Table<K, T> {
    rows: Vec<T>,
    key: PhantomData<K>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            key: PhantomData,
        }
    }
}

impl<K: Key, T: Clone> Table<K, T> {
    /// Makes every row up to `key`, filled with `empty`.
    pub(super) fn reach(&mut self, key: K, empty: T) {
        if key.at() >= self.rows.len() {
            self.rows.resize(key.at() + 1, empty);
        }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: T) {
        self.rows.push(row);
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row, if it was made.
    pub(super) fn get(&self, key: K) -> Option<&T> {
        self.rows.get(key.at())
    }

    /// All rows in order.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.rows.iter()
    }
}

impl<K: Key, T> Table<K, T> {
    /// The row.
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "an index without a row is a broken invariant"
    )]
    pub(super) fn row(&self, key: K) -> &T {
        &self.rows[key.at()]
    }

    /// The row, to change it.
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "an index without a row is a broken invariant"
    )]
    pub(super) fn row_mut(&mut self, key: K) -> &mut T {
        &mut self.rows[key.at()]
    }
}

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Puts `n` in or out; true when that changed something.
    pub(super) fn set(&mut self, n: usize, present: bool) -> bool {
        let (word, bit) = (n / 64, 1u64 << (n % 64));
        if word >= self.words.len() {
            if !present {
                return false;
            }
            self.words.resize(word + 1, 0);
        }
        let Some(word) = self.words.get_mut(word) else {
            return false;
        };
        let was = *word & bit != 0;
        if present {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        was != present
    }

    /// Whether `n` is in.
    pub(super) fn has(&self, n: usize) -> bool {
        self.words
            .get(n / 64)
            .is_some_and(|word| word & (1 << (n % 64)) != 0)
    }

    /// How many are in this set and not in `other`.
    pub(super) fn count_without(&self, other: &Self) -> usize {
        let mut count = 0;
        for (at, word) in self.words.iter().enumerate() {
            let without = word & !other.words.get(at).copied().unwrap_or(0);
            count += without.count_ones() as usize;
        }
        count
    }
}
