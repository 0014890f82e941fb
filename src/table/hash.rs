//! The keyed hash of flow keys.
//!
//! Tuples are chosen by whoever sends packets, so the hash is keyed by numbers that are drawn once for each process and
//! never leave it. It is a chain of folded multiplications (the product of two 64-bit words, upper half xor lower
//! half), the scheme of wyhash and foldhash: about one multiplication for 8 bytes where SipHash-1-3 needs a dozen
//! operations for each of its rounds. Every word of the key is xored with a secret before it is multiplied, and a last
//! multiplication with a secret follows. To make tuples collide on purpose, a sender would have to learn the
//! secrets; it sees no hash, and a bucket's load shows only as nanoseconds inside a batch. Words that cancel a secret
//! exactly (the one weakness of a product: zero) are hit with a chance of 2^-64. It is not a cryptographic hash and
//! isn't used where somebody could read its output.

use super::prefix::Address;

/// Secrets of the hash.
#[derive(Clone, Copy)]
pub(crate) struct HashKeys([u64; 6]);

impl HashKeys {
    /// Draws the secrets out of a seed (SplitMix64, whose outputs for one seed differ from each other).
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        }))
    }

    /// Hashes two addresses and a word with everything else.
    #[inline]
    pub(crate) fn hash<A: Address>(&self, source: A, destination: A, rest: u64) -> u64 {
        let [k0, k1, k2, k3, k4, k5] = self.0;
        let ((source_high, source_low), (destination_high, destination_low)) = (source.halves(), destination.halves());
        if A::BITS <= 32 {
            return fold(fold((source_low << 32 | destination_low) ^ k0, rest ^ k1) ^ k2, k3);
        }
        let first = fold(source_high ^ k0, source_low ^ k1);
        let second = fold(destination_high ^ first ^ k2, destination_low ^ k3);
        fold(second ^ rest ^ k4, k5)
    }
}

/// The secrets stay out of logs.
impl std::fmt::Debug for HashKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HashKeys")
    }
}

#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Ports and addresses that count up fill all parts of the hash evenly: chi-square over 256 cells of three bytes of
    /// the hash, for several seeds.
    #[test]
    fn counting_tuples_spread_evenly() {
        for seed in [0, 1, 2, u64::MAX, 0xdead_beef] {
            let keys = HashKeys::new(seed);
            for shift in [56, 24, 0] {
                let mut cells = [0_u32; 256];
                let mut cells6 = [0_u32; 256];
                for i in 0..65_536_u32 {
                    let (low, high) = (i & 0xff, i >> 8);
                    let hash = keys.hash(0x0a00_0000 + low, 0x0a01_0000_u32, u64::from(high) << 32);
                    cells[(hash >> shift) as usize & 255] += 1;
                    let hash = keys.hash(u128::from(low) << 64, u128::from(high), 443);
                    cells6[(hash >> shift) as usize & 255] += 1;
                }
                for cells in [cells, cells6] {
                    let chi: f64 = cells.iter().map(|&n| (f64::from(n) - 256.0).powi(2) / 256.0).sum();
                    // 255 degrees of freedom: mean 255, deviation 22.6; seven deviations.
                    assert!(chi < 413.0, "seed {seed} shift {shift}: {chi}");
                }
            }
        }
    }

    #[test]
    fn seeds_give_different_hashes() {
        let hash = |seed| HashKeys::new(seed).hash(1_u32, 2, 3);
        assert_ne!(hash(1), hash(2));
        assert_eq!(hash(1), hash(1));
    }
}
