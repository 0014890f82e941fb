//! The IPv4 trie: four levels of plain arrays that resolve 16, 8, 4 and 4 bits.

use std::hint::select_unpredictable;

use super::{BRANCH, NOTHING, Trie};

/// Bits that each level below the root resolves.
const STRIDES: [u32; 3] = [8, 4, 4];
/// Bits of the root.
const ROOT_STRIDE: u32 = 16;
const _: () = assert!(ROOT_STRIDE + STRIDES[0] + STRIDES[1] + STRIDES[2] == 32);

/// Cells of all nodes, the root's first. A cell is a leaf, or [`BRANCH`] and where the cells of the node below begin.
#[derive(Debug, Clone)]
pub struct Strides {
    cells: Vec<u32>,
}

impl Trie<u32> for Strides {
    fn build(boundaries: &[(u32, u32)]) -> Self {
        let mut trie = Self { cells: Vec::new() };
        trie.node(ROOT_STRIDE, 0, &STRIDES, NOTHING, boundaries);
        trie.cells.shrink_to_fit();
        trie
    }

    /// Every lookup takes all four steps; those below a leaf read the first cell and keep the leaf. That is cheaper
    /// than a branch the processor can't foresee.
    #[inline]
    fn lookup(&self, address: u32) -> Option<u32> {
        let mut cell = *self.cells.get((address >> (32 - ROOT_STRIDE)) as usize)?;
        let mut depth = ROOT_STRIDE;
        for stride in STRIDES {
            let slot = (address << depth) >> (32 - stride);
            let inner = cell & BRANCH != 0;
            let below = *self.cells.get(select_unpredictable(inner, (cell & !BRANCH) + slot, 0) as usize)?;
            cell = select_unpredictable(inner, below, cell);
            depth += stride;
        }
        Some(cell)
    }

    fn memory(&self) -> usize {
        self.cells.capacity() * size_of::<u32>()
    }
}

impl Strides {
    /// Builds the node that resolves `stride` bits after the first `depth`, and returns where it begins. `leaf` holds
    /// before the first of its boundaries; `deeper` are the strides below.
    fn node(&mut self, stride: u32, depth: u32, deeper: &[u32], leaf: u32, boundaries: &[(u32, u32)]) -> u32 {
        let node = self.cells.len();
        self.cells.resize(node + (1 << stride), NOTHING);
        let slot_of = |start: u32| (start << depth) >> (32 - stride);
        let (mut leaf, mut rest) = (leaf, boundaries);
        for slot in 0..1_u32 << stride {
            let count = rest.iter().take_while(|(start, _)| slot_of(*start) == slot).count();
            let (mut inside, after) = rest.split_at(count);
            rest = after;
            // A boundary at the slot's first address decides for the slot and isn't inside.
            if let Some(((start, from), others)) = inside.split_first()
                && start.checked_shl(depth + stride).unwrap_or(0) == 0
            {
                (leaf, inside) = (*from, others);
            }
            let cell = match (inside, deeper.split_first()) {
                ([.., (_, last)], Some((below, deeper))) => {
                    let below = BRANCH | self.node(*below, depth + stride, deeper, leaf, inside);
                    leaf = *last;
                    below
                }
                _ => leaf,
            };
            if let Some(place) = self.cells.get_mut(node + slot as usize) {
                *place = cell;
            }
        }
        node as u32
    }
}
