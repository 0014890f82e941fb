//! Longest prefix match over immutable tables.
//!
//! A table is built whole from an unsorted list and never changes; a new list makes a new table. Every address lies
//! between two neighbouring ends of prefixes, so the prefixes are first flattened into a sorted list of *boundaries*,
//! each with the leaf that holds from there to the next. The list becomes a trie of plain arrays: cells are leaves or
//! lead to a node below, nothing has to be backtracked, and a level costs one dependent read. The two families differ
//! in shape: IPv4 has fixed levels (`strides.rs`), IPv6 nodes fit the clusters of its prefixes (`ranges.rs`).
//!
//! # What was measured
//! On the distinct prefixes of Azure's service tags (39,638 of IPv4, 13,948 of IPv6), random addresses inside them, on
//! one core of a 2.6 GHz EPYC with 1 MiB of second-level cache, builds for plain x86-64:
//!
//! | structure | IPv4 ns | MB | IPv6 ns | MB |
//! |---|---|---|---|---|
//! | **kept** | 6 | 2.6 | 28 | 1.3 |
//! | IPv6 nodes of whole addresses instead of halves | | | 35 | 1.2 |
//! | bitmaps with popcount (as poptrie, wider nodes, skips) | 25 | 0.9 | 92 | 0.4 |
//! | the same with fixed levels and no branches | 18 | 1.0 | | |
//! | fixed levels of 16, 8, 8 bits | 6 | 12.6 | | |
//! | 24 and 8 bits (DIR-24-8) | 4 | 78.6 | | |
//! | 16 bits, then ranges (DXR-like), binary search | 19 | 2.3 | 44 | 2.6 |
//! | binary search in the sorted boundaries | 28 | 0.5 | 78 | 0.4 |
//!
//! Mispredicted branches decide, and counting bits without a popcount instruction; both cost more here than the memory
//! that bitmaps save. Tables of 24 and 8 bits are faster only while nothing else wants the cache.

mod ranges;
mod strides;

use ranges::Ranges;
use strides::Strides;

/// Marks a cell that is no leaf.
const BRANCH: u32 = 1 << 31;
/// The leaf of addresses without a prefix; a leaf with a value is the value's code plus one.
const NOTHING: u32 = 0;
/// Values from here on don't fit in a leaf: then leaves number the distinct values.
const DIRECT_VALUES: u32 = BRANCH - 1;

/// An address as an integer in host order.
pub trait Address: Copy + Ord + Send + Sync + std::fmt::Debug + 'static {
    /// Bits of an address.
    const BITS: u8;
    /// The structure that looks addresses of this family up.
    type Trie: Trie<Self>;
    /// This address with all but the first `length` bits cleared; a length above [`Self::BITS`] clears nothing.
    fn masked(self, length: u8) -> Self;
    /// The address after the last one of a prefix; none where the prefix ends at the end of the address space.
    fn after(self, length: u8) -> Option<Self>;
    /// The upper and the lower 64 bits; the upper ones of an IPv4 address are 0.
    fn halves(self) -> (u64, u64);
}

macro_rules! address {
    ($type:ty, $trie:ty) => {
        impl Address for $type {
            const BITS: u8 = <$type>::BITS as u8;
            type Trie = $trie;
            #[inline]
            fn masked(self, length: u8) -> Self {
                let host_bits = <$type>::BITS.saturating_sub(u32::from(length));
                self & <$type>::MAX.checked_shl(host_bits).unwrap_or(0)
            }
            fn after(self, length: u8) -> Option<Self> {
                let host_bits = <$type>::BITS.saturating_sub(u32::from(length));
                self.masked(length).checked_add((1 as $type).checked_shl(host_bits)?)
            }
            #[inline]
            fn halves(self) -> (u64, u64) {
                (self.checked_shr(64).unwrap_or(0) as u64, self as u64)
            }
        }
    };
}

address!(u32, Strides);
address!(u128, Ranges);

/// From an address to the leaf that holds there.
pub trait Trie<A>: Clone + std::fmt::Debug + Send + Sync {
    /// Builds it from boundaries in ascending order: from each address on, until the next, the leaf is the same; it is
    /// 0 before the first. Leaves are below 2^31.
    fn build(boundaries: &[(A, u32)]) -> Self;
    /// The leaf of an address. There always is one; `None` is what a checked access answers that can't happen.
    fn lookup(&self, address: A) -> Option<u32>;
    /// Bytes on the heap.
    fn memory(&self) -> usize;
}

/// A table of prefixes with a value each, for one address family.
#[derive(Debug, Clone)]
pub struct PrefixTable<A: Address> {
    trie: A::Trie,
    /// Distinct values in ascending order, if some don't fit in a leaf; else empty, and leaves hold the values.
    values: Vec<u32>,
    prefixes: usize,
}

impl<A: Address> PrefixTable<A> {
    /// Builds the table from prefixes in any order: address, length, value.
    ///
    /// Host bits are cleared. A length above [`Address::BITS`] counts as a host's own (/32, /128). Of equal prefixes the
    /// last one counts. Cells have numbers of 31 bits, enough for 2^22 prefixes of whatever shape.
    pub fn build(mut prefixes: Vec<(A, u8, u32)>) -> Self {
        for (address, length, _) in &mut prefixes {
            *length = (*length).min(A::BITS);
            *address = address.masked(*length);
        }
        prefixes.sort_by_key(|(address, length, _)| (*address, *length));
        prefixes.dedup_by(|later, kept| {
            let same = (later.0, later.1) == (kept.0, kept.1);
            if same {
                kept.2 = later.2;
            }
            same
        });
        let mut values = Vec::new();
        if prefixes.iter().any(|(_, _, value)| *value >= DIRECT_VALUES) {
            values = prefixes.iter().map(|(_, _, value)| *value).collect();
            values.sort_unstable();
            values.dedup();
            values.shrink_to_fit();
            for (_, _, value) in &mut prefixes {
                *value = values.binary_search(value).map_or(0, |code| code as u32);
            }
        }
        Self { trie: A::Trie::build(&flatten(&prefixes)), values, prefixes: prefixes.len() }
    }

    /// The value of the longest prefix that contains the address.
    #[inline]
    pub fn lookup(&self, address: A) -> Option<u32> {
        let code = self.trie.lookup(address)?.checked_sub(1)?;
        if self.values.is_empty() { Some(code) } else { self.values.get(code as usize).copied() }
    }

    /// How many distinct prefixes the table was built from.
    pub fn len(&self) -> usize {
        self.prefixes
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.prefixes == 0
    }

    /// Bytes that the table takes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.trie.memory() + self.values.capacity() * size_of::<u32>()
    }
}

/// The boundaries of sorted, distinct prefixes: from each address on, until the next, the leaf is the same.
fn flatten<A: Address>(prefixes: &[(A, u8, u32)]) -> Vec<(A, u32)> {
    let mut boundaries: Vec<(A, u32)> = Vec::with_capacity(prefixes.len() * 2 + 1);
    let mut push = |start: A, leaf: u32| {
        if boundaries.last().is_some_and(|(before, _)| *before == start) {
            boundaries.pop();
        }
        if boundaries.last().map_or(NOTHING, |(_, before)| *before) != leaf {
            boundaries.push((start, leaf));
        }
    };
    // Prefixes around the present one, each with where it ends and its leaf.
    let mut open: Vec<(Option<A>, u32)> = Vec::new();
    for (address, length, value) in prefixes {
        while let Some((Some(end), _)) = open.last().copied() {
            if end > *address {
                break;
            }
            open.pop();
            push(end, open.last().map_or(NOTHING, |(_, leaf)| *leaf));
        }
        let leaf = value + 1;
        push(*address, leaf);
        open.push((address.after(*length), leaf));
    }
    while let Some((end, _)) = open.pop() {
        if let Some(end) = end {
            push(end, open.last().map_or(NOTHING, |(_, leaf)| *leaf));
        }
    }
    boundaries
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the table has to answer, by looking at every prefix.
    fn scan<A: Address>(prefixes: &[(A, u8, u32)], address: A) -> Option<u32> {
        prefixes
            .iter()
            .map(|(prefix, length, value)| (*prefix, (*length).min(A::BITS), *value))
            .filter(|(prefix, length, _)| address.masked(*length) == prefix.masked(*length))
            .max_by_key(|(_, length, _)| *length)
            .map(|(_, _, value)| value)
    }

    /// Addresses that the tests count with.
    trait Count: Address {
        const ZERO: Self;
        fn before(self) -> Self;
    }

    macro_rules! count {
        ($type:ty) => {
            impl Count for $type {
                const ZERO: Self = 0;
                fn before(self) -> Self {
                    self.wrapping_sub(1)
                }
            }
        };
    }
    count!(u32);
    count!(u128);

    /// Compares the table with the scan at the given addresses, and at and around both ends of every prefix.
    fn check<A: Count>(prefixes: &[(A, u8, u32)], others: &[A]) {
        let table = PrefixTable::build(prefixes.to_vec());
        let ends = prefixes.iter().flat_map(|(address, length, _)| {
            let start = address.masked(*length);
            let after = address.after(*length).unwrap_or(A::ZERO);
            [start, start.before(), after, after.before()]
        });
        for address in others.iter().copied().chain(ends) {
            assert_eq!(table.lookup(address), scan(prefixes, address), "{address:x?} in {prefixes:x?}");
        }
    }

    #[test]
    fn an_empty_table_has_no_answer() {
        let table = PrefixTable::<u32>::build(Vec::new());
        assert!(table.is_empty());
        assert_eq!(table.lookup(0), None);
        assert_eq!(table.lookup(u32::MAX), None);
    }

    #[test]
    fn the_default_route_covers_everything() {
        check(&[(0_u32, 0, 7)], &[0, 1, u32::MAX]);
        check(&[(0_u128, 0, 7)], &[0, 1, u128::MAX]);
        check(&[(u32::MAX, 0, 0)], &[0, 1, u32::MAX]);
    }

    #[test]
    fn host_prefixes_at_both_ends_of_the_address_space() {
        check(&[(0_u32, 32, 1), (u32::MAX, 32, 2)], &[1, u32::MAX - 1]);
        check(&[(0_u128, 128, 1), (u128::MAX, 128, 2)], &[1, u128::MAX - 1]);
        check(&[(0, 0, 0), (0_u128, 128, 1), (u128::MAX, 128, 2), (u128::MAX, 1, 3)], &[1, u128::MAX - 1]);
    }

    #[test]
    fn host_bits_are_cleared_and_long_lengths_are_hosts() {
        let table = PrefixTable::build(vec![(0x0a00_00ff_u32, 24, 1), (0x0a00_0001, 200, 2)]);
        assert_eq!(table.len(), 2);
        assert_eq!(table.lookup(0x0a00_0000), Some(1));
        assert_eq!(table.lookup(0x0a00_0001), Some(2));
        assert_eq!(table.lookup(0x0a00_0002), Some(1));
    }

    #[test]
    fn the_last_of_equal_prefixes_counts() {
        let table = PrefixTable::build(vec![(0x0a00_0000_u32, 8, 1), (0x0b00_0000, 8, 9), (0x0a12_0000, 8, 2)]);
        assert_eq!(table.len(), 2);
        assert_eq!(table.lookup(0x0a00_0001), Some(2));
    }

    #[test]
    fn values_that_do_not_fit_in_a_leaf() {
        check(&[(0x0a00_0000_u32, 8, u32::MAX), (0x0b00_0000, 8, 0), (0x0c00_0000, 8, 1 << 31)], &[0]);
        check(&[(0x0a00_0000_u32, 8, (1 << 31) - 2), (0x0b00_0000, 8, (1 << 31) - 1)], &[0]);
    }

    #[test]
    fn dense_parts_beside_lone_hosts() {
        let mut prefixes: Vec<(u128, u8, u32)> =
            (0..2000).map(|i| (0x2001_0db8 << 96 | i << 64, 64, i as u32)).collect();
        prefixes.extend((0..70).map(|i| (0x2001_0db8 << 96 | (i * 7) << 64 | i, 128, 5000 + i as u32)));
        prefixes.push((0x2001 << 112, 16, 9999));
        check(&prefixes, &[0, u128::MAX]);
    }

    /// Prefixes that like to nest: few distinct bits, every length.
    fn nested<A: Address>(
        from: impl Fn(u128) -> A + Copy + 'static,
    ) -> impl Strategy<Value = (Vec<(A, u8, u32)>, Vec<A>)> {
        let address = (any::<u128>(), any::<u128>(), 0_u32..128)
            .prop_map(move |(a, b, keep)| from((a & 0x8000_8001_0000_8000_0001_0000_8000_0003) | (b >> keep.min(127))));
        (
            proptest::collection::vec((address.clone(), 0..=A::BITS, 0_u32..50), 0..200),
            proptest::collection::vec(address, 50),
        )
    }

    proptest! {
        #[test]
        fn ipv4_answers_like_a_scan((prefixes, addresses) in nested(|a| (a ^ (a >> 64) ^ (a >> 32)) as u32)) {
            // Of equal prefixes the scan takes the last too, because `max_by_key` does.
            check(&prefixes, &addresses);
        }

        #[test]
        fn ipv6_answers_like_a_scan((prefixes, addresses) in nested(|a| a)) {
            check(&prefixes, &addresses);
        }
    }
}
