//! The IPv6 trie: nodes that cut just the range in which they have boundaries, into as many parts as they have use for.
//!
//! IPv6 prefixes come in few dense clusters with long runs of equal bits between them, so a node has no fixed place and
//! width. It begins near its first boundary, ends after its last and is cut into parts of equal size, at most six for
//! each boundary. The parts before and after the range are two leaves, so the bits that all boundaries below share cost
//! one subtraction, however many they are.
//!
//! A node works on one half of the address: as long as its boundaries are in different /64s on the upper one, below on the
//! lower one. Numbers of 64 bits are compared, subtracted and shifted by one instruction each, those of 128 take several
//! that wait for each other: with nodes of whole addresses a lookup took a fifth longer.

use super::{BRANCH, NOTHING, Trie};

/// Parts of a node for each of its boundaries: fewer make more levels, more take more memory. With 4, and nodes that lie
/// across cache lines, a lookup took an eighth longer and the table a fifth less.
const PARTS: u64 = 6;

/// Marks, beside [`BRANCH`], a cell that leads to a node of a single /64.
const SINGLE: u32 = 1 << 30;

/// A range of one half of the address in parts; two of them are a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct Node {
    /// The first number of the first part.
    start: u64,
    /// Where the cells of the parts begin; after the last part's comes that of all numbers behind.
    cells: u32,
    /// How many parts there are.
    parts: u32,
    /// The size of a part, as a power of two.
    shift: u32,
    /// The leaf of all numbers before.
    before: u32,
}

/// The first node of a /64.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The upper half of its addresses.
    upper: u64,
    /// The cell of its addresses.
    cell: u32,
    /// The leaves of all addresses before and behind.
    around: [u32; 2],
}

/// A cell is a leaf, or [`BRANCH`] and the number of a node, or these, [`SINGLE`] and the number of an entry.
#[derive(Debug, Clone)]
pub struct Ranges {
    root: u32,
    nodes: Vec<Node>,
    entries: Vec<Entry>,
    cells: Vec<u32>,
}

impl Trie<u128> for Ranges {
    fn build(boundaries: &[(u128, u32)]) -> Self {
        let mut trie = Self { root: NOTHING, nodes: Vec::new(), entries: Vec::new(), cells: Vec::new() };
        trie.root = trie.upper(NOTHING, boundaries);
        trie.nodes.shrink_to_fit();
        trie.entries.shrink_to_fit();
        trie.cells.shrink_to_fit();
        trie
    }

    #[inline]
    fn lookup(&self, address: u128) -> Option<u32> {
        let upper = (address >> 64) as u64;
        let cell = self.follow(self.root, upper)?;
        if cell & BRANCH == 0 {
            return Some(cell);
        }
        let entry = self.entries.get((cell & !(BRANCH | SINGLE)) as usize)?;
        if upper != entry.upper {
            let [before, behind] = entry.around;
            return Some(if upper < entry.upper { before } else { behind });
        }
        self.follow(entry.cell, address as u64)
    }

    fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.cells.capacity() * size_of::<u32>()
    }
}

impl Ranges {
    /// Follows nodes of one half of the address down to a leaf or an entry.
    #[inline]
    fn follow(&self, mut cell: u32, number: u64) -> Option<u32> {
        while cell & (BRANCH | SINGLE) == BRANCH {
            let node = self.nodes.get((cell & !BRANCH) as usize)?;
            if number < node.start {
                return Some(node.before);
            }
            let part = ((number - node.start) >> (node.shift & 63)).min(u64::from(node.parts)) as usize;
            cell = *self.cells.get(node.cells as usize + part)?;
        }
        Some(cell)
    }

    /// The cell for a range of addresses: `leaf` holds before the first of the boundaries inside.
    fn upper(&mut self, leaf: u32, boundaries: &[(u128, u32)]) -> u32 {
        let ([(first, _), ..], [.., (last, behind)]) = (boundaries, boundaries) else { return leaf };
        let (upper, last) = ((first >> 64) as u64, (last >> 64) as u64);
        if upper != last {
            let upper = |boundary: u128| (boundary >> 64) as u64;
            return self.node(leaf, boundaries, upper, |half| u128::from(half) << 64, Self::upper);
        }
        let cell = self.lower(leaf, boundaries);
        let entry = self.entries.len();
        self.entries.push(Entry { upper, cell, around: [leaf, *behind] });
        BRANCH | SINGLE | entry as u32
    }

    /// The same where all addresses are of one /64.
    fn lower(&mut self, leaf: u32, boundaries: &[(u128, u32)]) -> u32 {
        let Some((first, _)) = boundaries.first() else { return leaf };
        let upper = first >> 64 << 64;
        self.node(leaf, boundaries, |boundary| boundary as u64, |half| upper | u128::from(half), Self::lower)
    }

    /// The cell of a new node. `half` is the half of a boundary that it works on, `whole` the first address with such a half,
    /// `below` makes the cell of a part.
    fn node(
        &mut self,
        leaf: u32,
        boundaries: &[(u128, u32)],
        half: impl Fn(u128) -> u64,
        whole: impl Fn(u64) -> u128,
        below: fn(&mut Self, u32, &[(u128, u32)]) -> u32,
    ) -> u32 {
        let ([(first, _), ..], [.., (last, behind)]) = (boundaries, boundaries) else { return leaf };
        let (first, last) = (half(*first), half(*last));
        // The smallest parts that aren't too many. With two parts at least, any two boundaries come apart sooner or
        // later, and a single one is its part's first address.
        let most = boundaries.len() as u64 * PARTS;
        let aligned = |shift: u32| first >> shift << shift;
        let fits = |shift: &u32| (last - aligned(*shift)) >> shift < most;
        let shift = (0..u64::BITS).find(fits).unwrap_or(u64::BITS - 1);
        let start = aligned(shift);
        let parts = ((last - start) >> shift) as usize + 1;
        let cells = self.cells.len();
        self.cells.resize(cells + parts, leaf);
        self.cells.push(*behind);
        let node = self.nodes.len();
        self.nodes.push(Node { start, cells: cells as u32, parts: parts as u32, shift, before: leaf });
        let (mut leaf, mut rest) = (leaf, boundaries);
        for part in 0..parts {
            let here = start + ((part as u64) << shift);
            let count = rest.iter().take_while(|(boundary, _)| (half(*boundary) - here) >> shift == 0).count();
            let (mut inside, after) = rest.split_at(count);
            rest = after;
            if let Some(((boundary, from), others)) = inside.split_first()
                && *boundary == whole(here)
            {
                (leaf, inside) = (*from, others);
            }
            let cell = below(self, leaf, inside);
            if let Some((_, last)) = inside.last() {
                leaf = *last;
            }
            if let Some(place) = self.cells.get_mut(cells + part) {
                *place = cell;
            }
        }
        BRANCH | node as u32
    }
}
