//! Numbered slots that are used again in a fixed order, so that every director gives the same ones.

/// Values in slots. The slot freed last is used first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            let place = self.slots.get_mut(slot as usize);
            let place = place.unwrap_or_else(|| panic!("free slot {slot} does not exist"));
            assert!(place.is_none(), "free slot {slot} is in use");
            *place = Some(value);
            return slot;
        }
        if self.slots.len() == self.slots.capacity() {
            // Doubling would leave up to half of a large table unused.
            self.slots.reserve_exact(self.slots.len() / 8 + 64);
        }
        let slot = u32::try_from(self.slots.len());
        let slot = slot.unwrap_or_else(|_| panic!("more than {} slots", u32::MAX));
        self.slots.push(Some(value));
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let numbered = (0u32..).zip(&self.slots);
        numbered.filter_map(|(slot, value)| Some((slot, value.as_ref()?)))
    }

    /// Slots in the order in which they were freed.
    pub(super) fn free(&self) -> &[u32] {
        &self.free
    }

    /// Puts back what [`iter`](Self::iter) and [`free`](Self::free) told; `None` when they contradict
    /// each other.
    pub(super) fn restore(values: Vec<(u32, T)>, free: Vec<u32>) -> Option<Self> {
        let total = values.len() + free.len();
        let mut slots: Vec<Option<T>> = Vec::new();
        slots.resize_with(total, || None);
        for (slot, value) in values {
            let place = slots.get_mut(slot as usize)?;
            if place.replace(value).is_some() {
                return None;
            }
        }
        let mut seen = vec![false; total];
        for slot in &free {
            let mark = seen.get_mut(*slot as usize)?;
            if *mark || slots.get(*slot as usize)?.is_some() {
                return None;
            }
            *mark = true;
        }
        Some(Self { slots, free })
    }
}
