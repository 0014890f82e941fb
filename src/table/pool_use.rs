//! How much of each pool of translated ports is in use, and how often it had nothing left. All workers share the counts and touch
//! them only where a flow is made or ends, never for a packet of a flow that exists: an addition each, in the pool's own
//! cache lines.
//!
//! Every protocol and address family has ports of its own, so each is counted for itself: a pool can be out of UDP ports and
//! have all its TCP ports.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Pools that get their counts at once.
const CHUNK: usize = 64;

/// Chunks: for as many pools as their number can say.
const CHUNKS: usize = (u16::MAX as usize + 1) / CHUNK;

/// Ports that are counted together: those of one address family and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortSpace(u8);

impl PortSpace {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// All, in the order of their counts.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    /// Of IPv4 or IPv6 addresses, for an IP protocol number.
    pub const fn of(is_v4: bool, protocol: u8) -> Self {
        let protocol = match protocol {
            6 => 0,
            17 => 1,
            1 | 58 => 2,
            _ => 3,
        };
        Self(if is_v4 { protocol } else { 4 + protocol })
    }

    /// `ipv4` or `ipv6`.
    pub const fn family(self) -> &'static str {
        if self.is_v4() { "ipv4" } else { "ipv6" }
    }

    /// Whether they are those of IPv4 addresses.
    pub const fn is_v4(self) -> bool {
        self.0 < 4
    }

    /// `tcp`, `udp`, `icmp`, whose identifiers are translated like ports, or `other`.
    pub const fn protocol(self) -> &'static str {
        match self.0 % 4 {
            0 => "tcp",
            1 => "udp",
            2 => "icmp",
            _ => "other",
        }
    }

    /// Its place in counts.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is in use of a pool, by [`PortSpace`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Flows that the pool translates, those too whose port rests.
    pub flows: [u32; PortSpace::COUNT],
    /// Ports that endpoint-independent mappings have taken.
    pub mapped: [u32; PortSpace::COUNT],
    /// How often a flow was not made because no port was free.
    pub exhausted: [u64; PortSpace::COUNT],
}

/// The counts of one pool.
#[derive(Debug, Default)]
struct Counts {
    flows: [AtomicU32; PortSpace::COUNT],
    exhausted: [AtomicU64; PortSpace::COUNT],
}

/// The counts of all pools.
#[derive(Debug)]
pub struct PoolUse {
    chunks: Box<[OnceLock<Box<[Counts]>>]>,
}

impl PoolUse {
    /// Without any pool.
    pub fn new() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect() }
    }

    /// Makes room for the pools below a number, before anything of them is counted. What is counted stays.
    pub fn reserve(&self, pools: usize) {
        for chunk in self.chunks.iter().take(pools.div_ceil(CHUNK)) {
            chunk.get_or_init(|| (0..CHUNK).map(|_| Counts::default()).collect());
        }
    }

    /// One more flow of a pool.
    pub fn take(&self, pool: u16, space: PortSpace) {
        if let Some(flows) = self.counts(pool).and_then(|counts| counts.flows.get(space.index())) {
            flows.fetch_add(1, Relaxed);
        }
    }

    /// One flow of a pool less; does nothing where it has none.
    pub fn give_back(&self, pool: u16, space: PortSpace) {
        if let Some(flows) = self.counts(pool).and_then(|counts| counts.flows.get(space.index())) {
            let _none = flows.fetch_update(Relaxed, Relaxed, |flows| flows.checked_sub(1));
        }
    }

    /// A pool had no free port.
    pub fn exhausted(&self, pool: u16, space: PortSpace) {
        if let Some(exhausted) = self.counts(pool).and_then(|counts| counts.exhausted.get(space.index())) {
            exhausted.fetch_add(1, Relaxed);
        }
    }

    /// What has been counted of a pool, but for mappings.
    pub fn of(&self, pool: u16) -> PoolCounts {
        let Some(counts) = self.counts(pool) else { return PoolCounts::default() };
        PoolCounts {
            flows: counts.flows.each_ref().map(|flows| flows.load(Relaxed)),
            exhausted: counts.exhausted.each_ref().map(|exhausted| exhausted.load(Relaxed)),
            ..PoolCounts::default()
        }
    }

    fn counts(&self, pool: u16) -> Option<&Counts> {
        let pool = usize::from(pool);
        self.chunks.get(pool / CHUNK)?.get()?.get(pool % CHUNK)
    }
}

impl Default for PoolUse {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    const TCP: PortSpace = PortSpace::of(true, 6);
    const UDP6: PortSpace = PortSpace::of(false, 17);

    #[test]
    fn pools_families_and_protocols_are_counted_apart() {
        let pools = PoolUse::new();
        pools.reserve(CHUNK + 1);
        for (pool, space) in [(0, TCP), (0, TCP), (0, UDP6), (CHUNK as u16, TCP)] {
            pools.take(pool, space);
        }
        pools.give_back(0, TCP);
        pools.exhausted(0, UDP6);
        let (first, last) = (pools.of(0), pools.of(CHUNK as u16));
        assert_eq!((first.flows[TCP.index()], first.flows[UDP6.index()], last.flows[TCP.index()]), (1, 1, 1));
        assert_eq!((first.exhausted[UDP6.index()], first.exhausted[TCP.index()]), (1, 0));
        assert_eq!(first.flows.iter().chain(&last.flows).sum::<u32>(), 3);
        pools.reserve(CHUNK * 2);
        assert_eq!(pools.of(0), first, "what is counted stays");
    }

    #[test]
    fn nothing_is_counted_below_zero_or_of_a_pool_without_room() {
        let pools = PoolUse::new();
        pools.take(3, TCP);
        assert_eq!(pools.of(3), PoolCounts::default());
        pools.reserve(4);
        pools.give_back(3, TCP);
        assert_eq!(pools.of(3), PoolCounts::default());
        pools.reserve(usize::MAX);
        pools.take(u16::MAX, TCP);
        assert_eq!(pools.of(u16::MAX).flows[TCP.index()], 1);
    }

    #[test]
    fn every_space_has_names_of_its_own() {
        let names: std::collections::HashSet<_> =
            PortSpace::all().map(|space| (space.family(), space.protocol())).collect();
        assert_eq!(names.len(), PortSpace::COUNT);
        assert_eq!((TCP.family(), TCP.protocol()), ("ipv4", "tcp"));
        assert_eq!((UDP6.family(), UDP6.protocol()), ("ipv6", "udp"));
        assert_eq!(PortSpace::of(false, 58).protocol(), "icmp");
        assert_eq!(PortSpace::of(true, 132).protocol(), "other");
    }
}
