//! Records with numbers that stay: an array whose free places are used again, the last first.
//!
//! The array grows by doubling, and its one move is a `realloc`, which the system's allocator does for large arrays by
//! remapping pages and not by copying.

/// The end of the free list.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
enum Slot<T> {
    Used(T),
    /// The next free place.
    Free(u32),
}

/// Up to 2^32 - 1 records.
#[derive(Debug, Clone)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    /// The first place of the free list.
    free: u32,
    used: usize,
}

impl<T> Slots<T> {
    /// No records.
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, used: 0 }
    }

    /// Adds a record while there are fewer than `limit`, and gives its place, which is below `limit`.
    pub(crate) fn add(&mut self, record: T, limit: u32) -> Option<u32> {
        if self.used >= limit as usize {
            return None;
        }
        let place = self.free;
        if let Some(slot) = self.slots.get_mut(place as usize) {
            if let Slot::Free(next) = *slot {
                self.free = next;
            }
            *slot = Slot::Used(record);
            self.used += 1;
            return Some(place);
        }
        let place = u32::try_from(self.slots.len()).ok().filter(|place| *place < limit)?;
        self.slots.push(Slot::Used(record));
        self.used += 1;
        Some(place)
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, place: u32) -> Option<T> {
        let slot = self.slots.get_mut(place as usize).filter(|slot| matches!(slot, Slot::Used(_)))?;
        let Slot::Used(record) = std::mem::replace(slot, Slot::Free(self.free)) else { return None };
        self.free = place;
        self.used -= 1;
        Some(record)
    }

    /// A record.
    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        match self.slots.get(place as usize)? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    /// A record, to change it.
    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        match self.slots.get_mut(place as usize)? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_the_limit_holds() {
        let mut slots = Slots::new();
        assert_eq!([slots.add('a', 3), slots.add('b', 3), slots.add('c', 3)], [Some(0), Some(1), Some(2)]);
        assert_eq!(slots.add('d', 3), None);
        assert_eq!(slots.remove(1), Some('b'));
        assert_eq!([slots.remove(1), slots.remove(7), slots.get(1).copied()], [None; 3]);
        assert_eq!(slots.remove(0), Some('a'));
        assert_eq!(slots.len(), 1);
        assert_eq!([slots.add('e', 3), slots.add('f', 3), slots.add('g', 3)], [Some(0), Some(1), None]);
        assert_eq!(slots.get(0), Some(&'e'));
        assert_eq!(slots.get_mut(1), Some(&mut 'f'));
    }
}
