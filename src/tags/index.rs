//! Which tags contain an address: prefixes sorted by length and network, one binary search for each length that occurs.
//!
//! This answers questions of people and of the plan, not of packets; a packet's lookup is the prefix table's.

use std::cmp::Reverse;
use std::ops::Range;

/// Addresses as integers.
pub(super) trait Bits: Copy + Ord {
    /// The address with everything after the first `length` bits clear.
    fn masked(self, length: u8) -> Self;
}

impl Bits for u32 {
    fn masked(self, length: u8) -> Self {
        self & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
    }
}

impl Bits for u128 {
    fn masked(self, length: u8) -> Self {
        self & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
    }
}

/// The prefixes of one address family.
#[derive(Debug, Clone, Default)]
pub(super) struct Index<A> {
    /// Longest first, then by network, then by tag.
    rows: Vec<Row<A>>,
    /// Where the rows of each length are; longest first.
    lengths: Vec<(u8, Range<usize>)>,
}

#[derive(Debug, Clone, Copy)]
struct Row<A> {
    network: A,
    length: u8,
    tag: usize,
}

impl<A: Bits> Index<A> {
    /// Takes networks with clear host bits, their lengths and the tags that they belong to.
    pub(super) fn new(prefixes: impl Iterator<Item = (A, u8, usize)>) -> Self {
        let mut rows: Vec<_> = prefixes.map(|(network, length, tag)| Row { network, length, tag }).collect();
        rows.sort_unstable_by_key(|row| (Reverse(row.length), row.network, row.tag));
        let mut lengths = Vec::new();
        let mut start = 0;
        for same in rows.chunk_by(|a, b| a.length == b.length) {
            lengths.push((same[0].length, start..start + same.len()));
            start += same.len();
        }
        Self { rows, lengths }
    }

    /// Calls back with the network, length and tag of every prefix that contains an address, longest first.
    pub(super) fn containing(&self, address: A, mut found: impl FnMut(A, u8, usize)) {
        for (length, range) in &self.lengths {
            let network = address.masked(*length);
            let rows = &self.rows[range.clone()];
            let first = rows.partition_point(|row| row.network < network);
            for row in rows[first..].iter().take_while(|row| row.network == network) {
                found(network, *length, row.tag);
            }
        }
    }

    /// How many prefixes there are, each counted once however many tags have it.
    pub(super) fn distinct(&self) -> usize {
        self.rows.chunk_by(|a, b| a.length == b.length && a.network == b.network).count()
    }
}
