//! The index of the flow table: from the hash of a key to where its record is.
//!
//! Robin Hood hashing with linear probing. An entry is 4 bytes: how far it is from its home, some bits of the hash, and
//! the payload. Distance and position together say the home, so an entry whose distance equals the probe's has the same
//! home, and the remaining bits of the hash are compared only among those: a record is touched for nothing in about one
//! of fifty misses at a million flows. Entries nearer to home than the probe end the search, whether it finds or not.
//! Removing shifts the rest of the cluster back, so that nothing is left behind and nothing ever degrades.
//!
//! The index is cut into segments by the top of the hash, each grows alone by half its size. So there is no moment at
//! which everything moves: one growth moves about 2000 entries at a million flows.

/// Bits for the distance: 0 is an empty entry, 1 an entry at home.
const DISTANCE_BITS: u32 = 6;
/// One step away from home.
const STEP: u32 = 1 << (32 - DISTANCE_BITS);
/// Entries of a segment at first: a cache line.
const SEGMENT_FIRST: usize = 16;
/// Most segments: their headers (32 bytes each) stay within 32 KiB.
const SEGMENTS_MAX: usize = 1024;
/// Entries that a segment should have when the table is full.
const SEGMENT_TARGET: usize = 1024;

/// One independent part of the index.
#[derive(Debug, Clone, Default)]
struct Segment {
    entries: Vec<u32>,
    used: usize,
}

/// The index.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    segments: Vec<Segment>,
    /// How far to shift a hash right to get its segment: 64 where there is only one.
    segment_shift: u32,
    /// Low bits of an entry that are payload.
    payload_bits: u32,
}

/// A hash, cut to what the index needs.
#[derive(Clone, Copy)]
struct Probe {
    segment: usize,
    position: usize,
    /// Distance 1 and the bits of the hash, payload zero.
    entry: u32,
}

impl Index {
    /// An index for payloads of up to `payload_bits` bits (25 at most) and about `limit` entries.
    pub(crate) fn new(payload_bits: u32, limit: usize) -> Self {
        let segments = (limit / SEGMENT_TARGET).next_power_of_two().clamp(1, SEGMENTS_MAX);
        Self {
            segments: vec![Segment::default(); segments],
            segment_shift: 64 - segments.trailing_zeros(),
            payload_bits: payload_bits.clamp(1, 31 - DISTANCE_BITS),
        }
    }

    /// Sizes segments that have nothing yet for this many entries of the whole index, so that none grows on the way there.
    pub(crate) fn reserve(&mut self, entries: usize) {
        let count = self.segments.len();
        // A tenth more for segments that the hash gives more than their share, and room above four fifths.
        let share = entries.div_ceil(count);
        let length = (share + share / 10 + SEGMENT_FIRST) * 5 / 4;
        for segment in self.segments.iter_mut().filter(|segment| segment.entries.is_empty()) {
            segment.entries = vec![0; length];
        }
    }

    /// Finds the payload with this hash that `is_it` says yes to.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let probe = self.probe(hash)?;
        let entries = self.segments.get(probe.segment)?.entries.as_slice();
        let payload_mask = (1 << self.payload_bits) - 1;
        let mut position = probe.position;
        let mut wanted = probe.entry;
        loop {
            let entry = *entries.get(position)?;
            if (entry ^ wanted) >> self.payload_bits == 0 && is_it(entry & payload_mask) {
                return Some(entry & payload_mask);
            }
            if entry / STEP < wanted / STEP {
                return None;
            }
            wanted = wanted.checked_add(STEP)?;
            position = next(position, entries.len());
        }
    }

    /// The payload where a search for this hash begins, most often what it finds: for reading some packets ahead of the
    /// lookup. 0 where there is none.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u32 {
        let entry = |probe: Probe| self.segments.get(probe.segment)?.entries.get(probe.position).copied();
        self.probe(hash).and_then(entry).unwrap_or(0) & ((1 << self.payload_bits) - 1)
    }

    /// Adds a payload, which must not be in the index yet. `hash_of` gives the hash of payloads that are. False if it
    /// can't be done: so many equal hashes that a cluster is longer than a distance can say.
    pub(crate) fn insert(&mut self, hash: u64, payload: u32, hash_of: impl Fn(u32) -> u64) -> bool {
        let number = self.segment_of(hash);
        let Some(segment) = self.segments.get_mut(number) else { return false };
        // Four fifths at most; 0.53 after growing by half.
        let mut grow = (segment.used + 1) * 5 > segment.entries.len() * 4;
        loop {
            if grow && !self.grow(number, &hash_of) {
                return false;
            }
            if self.place(hash, payload) {
                return true;
            }
            grow = true;
        }
    }

    /// Takes a payload out; false if it wasn't there.
    pub(crate) fn remove(&mut self, hash: u64, payload: u32) -> bool {
        let Some(probe) = self.probe(hash) else { return false };
        let Some(segment) = self.segments.get_mut(probe.segment) else { return false };
        let entries = segment.entries.as_mut_slice();
        let mut position = probe.position;
        let mut wanted = probe.entry | payload;
        loop {
            let Some(&entry) = entries.get(position) else { return false };
            if entry == wanted {
                break;
            }
            let further = wanted.checked_add(STEP);
            match further {
                Some(further) if entry / STEP >= wanted / STEP => wanted = further,
                _ => return false,
            }
            position = next(position, entries.len());
        }
        segment.used -= 1;
        loop {
            let after = next(position, entries.len());
            let follower = entries.get(after).copied().unwrap_or(0);
            let home = follower / STEP <= 1;
            if let Some(hole) = entries.get_mut(position) {
                *hole = if home { 0 } else { follower - STEP };
            }
            if home {
                return true;
            }
            position = after;
        }
    }

    /// Bytes on the heap.
    pub(crate) fn memory(&self) -> usize {
        let entries: usize = self.segments.iter().map(|segment| segment.entries.capacity()).sum();
        self.segments.capacity() * size_of::<Segment>() + entries * size_of::<u32>()
    }

    #[inline]
    fn segment_of(&self, hash: u64) -> usize {
        hash.checked_shr(self.segment_shift).unwrap_or(0) as usize
    }

    /// Where a search begins; none while the segment is empty.
    #[inline]
    fn probe(&self, hash: u64) -> Option<Probe> {
        let segment = self.segment_of(hash);
        let length = self.segments.get(segment)?.entries.len();
        if length == 0 {
            return None;
        }
        // 32 bits below those of the segment say the position, the lowest are compared.
        let spread = (hash >> 16) as u32;
        let position = (u64::from(spread) * length as u64) >> 32;
        let compared = hash as u32 & ((STEP - 1) >> self.payload_bits);
        Some(Probe { segment, position: position as usize, entry: STEP | compared << self.payload_bits })
    }

    /// Puts an entry in; false if some distance would get too large, and then nothing has changed.
    fn place(&mut self, hash: u64, payload: u32) -> bool {
        let Some(probe) = self.probe(hash) else { return false };
        let Some(segment) = self.segments.get_mut(probe.segment) else { return false };
        let entries = segment.entries.as_mut_slice();
        let mut position = probe.position;
        let mut carried = probe.entry | payload;
        while entries.get(position).is_some_and(|entry| entry / STEP >= carried / STEP) {
            let Some(further) = carried.checked_add(STEP) else { return false };
            carried = further;
            position = next(position, entries.len());
        }
        // Everything from here to the next empty entry moves by one.
        let mut end = position;
        for _ in 0..=entries.len() {
            match entries.get(end).copied() {
                Some(0) => break,
                Some(entry) if entry.checked_add(STEP).is_some() => end = next(end, entries.len()),
                _ => return false,
            }
        }
        while let Some(entry) = entries.get_mut(position) {
            let moved = std::mem::replace(entry, carried);
            if moved == 0 {
                segment.used += 1;
                return true;
            }
            carried = moved + STEP;
            position = next(position, entries.len());
        }
        false
    }

    /// Makes a segment half as large again; false if it is nearly empty as it is.
    fn grow(&mut self, number: usize, hash_of: &impl Fn(u32) -> u64) -> bool {
        let payload_mask = (1 << self.payload_bits) - 1;
        let Some(segment) = self.segments.get_mut(number) else { return false };
        let old = std::mem::take(segment);
        let mut length = old.entries.len();
        loop {
            length = (length + length / 2).max(SEGMENT_FIRST);
            let hopeless = length > (old.used + SEGMENT_FIRST) * 16;
            let Some(segment) = self.segments.get_mut(number) else { return false };
            *segment = Segment { entries: vec![0; length], used: 0 };
            let mut entries = old.entries.iter().filter(|entry| **entry != 0).map(|entry| entry & payload_mask);
            if !hopeless && entries.all(|payload| self.place(hash_of(payload), payload)) {
                return true;
            }
            if hopeless {
                if let Some(segment) = self.segments.get_mut(number) {
                    *segment = old;
                }
                return false;
            }
        }
    }
}

#[inline]
fn next(position: usize, length: usize) -> usize {
    if position + 1 == length { 0 } else { position + 1 }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// A cluster longer than a distance can say is refused, and nothing is lost by the attempt.
    #[test]
    fn equal_hashes_without_end_are_refused() {
        let mut index = Index::new(10, 1000);
        let mut held = 0;
        while index.insert(42, held, |_| 42) {
            held += 1;
        }
        assert_eq!(held, (1 << DISTANCE_BITS) - 1);
        for payload in 0..held {
            assert_eq!(index.find(42, |found| found == payload), Some(payload));
            assert!(index.remove(42, payload));
            assert!(!index.remove(42, payload));
        }
        assert!(index.insert(42, 7, |_| 42));
    }

    /// Distances stay small under a long life of inserts and removals, and an emptied index is really empty.
    #[test]
    fn removals_leave_nothing_behind() {
        let keys = super::super::hash::HashKeys::new(3);
        let hash = |payload: u32| keys.hash(payload, 0_u32, 0);
        let mut index = Index::new(20, 4096);
        for payload in 0..200_000 {
            assert!(index.insert(hash(payload), payload, hash));
            if payload >= 4096 {
                assert!(index.remove(hash(payload - 4096), payload - 4096));
            }
        }
        let furthest = index.segments.iter().flat_map(|segment| &segment.entries).map(|entry| entry / STEP).max();
        assert!(furthest < Some(40), "{furthest:?}");
        for payload in 200_000 - 4096..200_000 {
            assert_eq!(index.find(hash(payload), |found| found == payload), Some(payload));
            assert!(index.remove(hash(payload), payload));
        }
        assert!(
            index.segments.iter().all(|segment| segment.used == 0 && segment.entries.iter().all(|&entry| entry == 0))
        );
    }
}
