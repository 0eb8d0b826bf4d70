//! Values by partition, for what may be known of every partition or of none.
//!
//! Pages of neighbouring slots come and go with what is in them. While a large cluster starts, and every
//! partition is in the same state, this is as fast as an array; afterwards it takes hardly any memory.

use crate::ids::PartitionId;

/// Slots of a page.
const PAGE: usize = 64;

/// Values by partition.
#[derive(Clone, Debug)]
pub(super) struct Paged<T> {
    pages: Vec<Option<Box<Page<T>>>>,
    /// How many slots of each page are in use. Apart, so that a change touches one place of a page.
    used: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Page<T>([Option<T>; PAGE]);

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            used: Vec::new(),
        }
    }
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self([const { None }; PAGE])
    }
}

/// The page of a partition and its slot in there.
fn place(id: PartitionId) -> (usize, usize) {
    let at = id.0 as usize;
    (at / PAGE, at % PAGE)
}

impl<T> Paged<T> {
    /// What is known of a partition.
    pub(super) fn get(&self, id: PartitionId) -> Option<&T> {
        let (page, slot) = place(id);
        let page = self.pages.get(page)?.as_ref()?;
        page.0.get(slot)?.as_ref()
    }

    /// Puts a value in, and gives the one that it replaces.
    pub(super) fn insert(&mut self, id: PartitionId, value: T) -> Option<T> {
        let (at, slot) = place(id);
        if at >= self.pages.len() {
            self.pages.resize_with(at + 1, || None);
            self.used.resize(at + 1, 0);
        }
        let page = self.pages.get_mut(at)?.get_or_insert_default();
        let before = page.0.get_mut(slot)?.replace(value);
        *self.used.get_mut(at)? += u8::from(before.is_none());
        before
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, id: PartitionId) -> Option<T> {
        let (at, slot) = place(id);
        let page = self.pages.get_mut(at)?;
        let value = page.as_mut()?.0.get_mut(slot)?.take()?;
        let used = self.used.get_mut(at)?;
        *used -= 1;
        if *used == 0 {
            *page = None;
        }
        Some(value)
    }

    /// The partitions of which something is known, in their order.
    pub(super) fn ids(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let pages = (0u32..).step_by(PAGE).zip(&self.pages);
        let pages = pages.filter_map(|(first, page)| Some((first, page.as_ref()?)));
        pages.flat_map(|(first, page)| {
            let used = (first..).zip(&page.0).filter(|(_, slot)| slot.is_some());
            used.map(|(id, _)| PartitionId(id))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_does_what_a_map_does(steps in prop::collection::vec((0u32..300, any::<Option<u8>>()), 0..400)) {
            let mut paged = Paged::default();
            let mut map = BTreeMap::new();
            for (id, value) in steps {
                let id = PartitionId(id);
                let (ours, theirs) = match value {
                    Some(value) => (paged.insert(id, value), map.insert(id, value)),
                    None => (paged.remove(id), map.remove(&id)),
                };
                prop_assert_eq!(ours, theirs);
                prop_assert_eq!(paged.get(id), map.get(&id));
            }
            prop_assert!(paged.ids().eq(map.keys().copied()));
            for id in map.into_keys() {
                paged.remove(id);
            }
            prop_assert!(paged.pages.iter().all(Option::is_none), "what is empty takes no page");
        }
    }
}
