//! Mappings of address translation that do not depend on the destination (RFC 4787 section 4.1): all flows of one inside
//! socket leave through one outside socket. All workers share them, because flows of one inside socket may belong to
//! several workers; they are touched where a flow is made or ends, never for a packet of a flow that exists.
//!
//! One mutex guards all of it. A mapping is found from both sides, and which outside socket an inside socket gets is known
//! only while it is looked for: shards by one side would need two locks whose order nobody could keep. What the lock
//! covers is a few searches in an index (`index.rs`), and nothing grows at once: no call moves more than the entries of one
//! segment of an index. A flow of an existing mapping costs three searches, a new mapping one more for each candidate.
//!
//! A mapping takes 56 bytes and two index entries of 5 to 8, each remote address that it has flows towards 32 bytes and
//! one index entry.
//!
//! # Invariants
//! - No two inside sockets share an outside socket, and no inside socket has two.
//! - A mapping exists as long as it has flows. It lets others in only while one of them is live: a flow that has ended and
//!   whose port rests keeps the port for its inside socket, and nothing more.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::hash::HashKeys;
use super::index::Index;
use super::pool_use::PortSpace;
use super::slots::Slots;

/// A socket of a private network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inside {
    /// Its address, of IPv4 as `::ffff:a.b.c.d`.
    pub address: u128,
    /// Its port; the identifier of ICMP queries.
    pub number: u16,
    /// The port of the node where its packets enter: private networks may use the same addresses.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The pool that translates: one inside socket has a mapping in each.
    pub pool: u16,
}

/// A socket as the outside sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outside {
    /// Its address, of IPv4 as `::ffff:a.b.c.d`.
    pub address: u128,
    /// Its port; the identifier of ICMP queries.
    pub number: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// One inside and one outside socket that belong together. Addresses are kept as bytes, so that they need no padding.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    inside_address: [u8; 16],
    outside_address: [u8; 16],
    flows: u32,
    /// Of its flows, those whose conversation goes on.
    live: u32,
    inside_number: u16,
    outside_number: u16,
    port: u16,
    pool: u16,
    inside_protocol: u8,
    outside_protocol: u8,
}

impl Mapping {
    fn new(inside: &Inside, outside: &Outside) -> Self {
        Self {
            inside_address: inside.address.to_ne_bytes(),
            outside_address: outside.address.to_ne_bytes(),
            flows: 0,
            live: 0,
            inside_number: inside.number,
            outside_number: outside.number,
            port: inside.port,
            pool: inside.pool,
            inside_protocol: inside.protocol,
            outside_protocol: outside.protocol,
        }
    }

    fn inside(&self) -> Inside {
        Inside {
            address: u128::from_ne_bytes(self.inside_address),
            number: self.inside_number,
            port: self.port,
            protocol: self.inside_protocol,
            pool: self.pool,
        }
    }

    fn outside(&self) -> Outside {
        Outside {
            address: u128::from_ne_bytes(self.outside_address),
            number: self.outside_number,
            protocol: self.outside_protocol,
        }
    }
}

/// A remote address that a mapping has flows towards.
#[derive(Debug, Clone, Copy)]
struct Remote {
    address: [u8; 16],
    mapping: u32,
    flows: u32,
    live: u32,
}

/// With the mark of its place in use 56 and 32 bytes.
const _: () = assert!(size_of::<Mapping>() <= 52 && size_of::<Remote>() == 28);

/// Most mappings, and most remote addresses of all mappings together: what the index's payload can number.
const LIMIT: u32 = 1 << LIMIT_BITS;
const LIMIT_BITS: u32 = 24;

/// The mappings of a node.
#[derive(Debug)]
pub struct Mappings(Mutex<Tables>);

impl Mappings {
    /// No mappings. The keys of their hash are drawn at random.
    pub fn new() -> Self {
        let index = || Index::new(LIMIT_BITS, LIMIT as usize);
        Self(Mutex::new(Tables {
            keys: HashKeys::new(RandomState::new().hash_one(0)),
            mappings: Slots::new(),
            by_inside: index(),
            by_outside: index(),
            remotes: Slots::new(),
            by_remote: index(),
            of_pools: BTreeMap::new(),
        }))
    }

    /// The outside socket of an inside socket, with one more live flow towards the address `remote`. If there is no mapping
    /// yet, one is made with the first candidate that is free. None if no candidate is, or all places are taken; nothing
    /// has changed then.
    ///
    /// Candidates are asked for under the lock, and only for a new mapping: they must not ask these mappings themselves,
    /// and their number bounds the time that others wait.
    pub fn acquire(
        &self,
        inside: &Inside,
        remote: u128,
        mut candidates: impl Iterator<Item = Outside>,
    ) -> Option<Outside> {
        let mut tables = self.lock();
        if let Some((place, mapping)) = tables.of_inside(inside) {
            return tables.add_flow(place, remote).then(|| mapping.outside());
        }
        let outside = candidates.find(|candidate| tables.of_outside(candidate).is_none())?;
        tables.make(inside, &outside, remote).then_some(outside)
    }

    /// The same for a given pair: a flow that is restored, or that came in from outside. False where either side is mapped
    /// otherwise, or all places are taken; nothing has changed then.
    pub fn acquire_exact(&self, inside: &Inside, outside: &Outside, remote: u128) -> bool {
        let mut tables = self.lock();
        match (tables.of_inside(inside), tables.of_outside(outside)) {
            (None, None) => tables.make(inside, outside, remote),
            (Some((one, _)), Some((other, _))) if one == other => tables.add_flow(one, remote),
            _ => false,
        }
    }

    /// Whose mapping an outside socket is.
    #[cfg(test)]
    fn inside_of(&self, outside: &Outside) -> Option<Inside> {
        self.lock().of_outside(outside).map(|(_, mapping)| mapping.inside())
    }

    /// Whose mapping an outside socket is, if it has a live flow: whom a stranger may reach.
    pub fn admits(&self, outside: &Outside) -> Option<Inside> {
        let tables = self.lock();
        tables.of_outside(outside).filter(|(_, mapping)| mapping.live > 0).map(|(_, mapping)| mapping.inside())
    }

    /// Whether the mapping of an outside socket has a live flow towards a remote address, whatever the port: what
    /// filtering that depends on the address lets in (RFC 4787 section 5).
    pub fn knows_address(&self, outside: &Outside, remote: u128) -> bool {
        let tables = self.lock();
        let remote = tables.of_outside(outside).and_then(|(place, _)| tables.of_remote(place, remote));
        remote.and_then(|place| tables.remotes.get(place)).is_some_and(|remote| remote.live > 0)
    }

    /// A flow towards `remote` is live no more; it keeps the mapping.
    pub fn rest(&self, outside: &Outside, remote: u128) {
        self.lock().count_live(outside, remote, |live| live.saturating_sub(1));
    }

    /// A flow towards `remote` is live again.
    pub fn wake(&self, outside: &Outside, remote: u128) {
        self.lock().count_live(outside, remote, |live| live.saturating_add(1));
    }

    /// One flow towards `remote` less, which was live or not; does nothing if there is none. The mapping ends with its
    /// last flow.
    pub fn release(&self, outside: &Outside, remote: u128, live: bool) {
        let mut tables = self.lock();
        if live {
            tables.count_live(outside, remote, |live| live.saturating_sub(1));
        }
        tables.release(outside, remote);
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.lock().mappings.len()
    }

    /// How many mappings a pool has, each of which takes a port.
    pub fn of_pool(&self, pool: u16) -> [u32; PortSpace::COUNT] {
        self.lock().of_pools.get(&pool).copied().unwrap_or_default()
    }

    /// Whether there is no mapping.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Mappings {
    fn default() -> Self {
        Self::new()
    }
}

/// What the lock guards.
#[derive(Debug)]
struct Tables {
    keys: HashKeys,
    mappings: Slots<Mapping>,
    by_inside: Index,
    by_outside: Index,
    remotes: Slots<Remote>,
    by_remote: Index,
    /// How many mappings pools have; those without any are left out.
    of_pools: BTreeMap<u16, [u32; PortSpace::COUNT]>,
}

impl Tables {
    fn of_inside(&self, inside: &Inside) -> Option<(u32, Mapping)> {
        let is_it = |place| self.mappings.get(place).is_some_and(|mapping| mapping.inside() == *inside);
        let place = self.by_inside.find(hash_inside(&self.keys, inside), is_it)?;
        Some((place, *self.mappings.get(place)?))
    }

    fn of_outside(&self, outside: &Outside) -> Option<(u32, Mapping)> {
        let is_it = |place| self.mappings.get(place).is_some_and(|mapping| mapping.outside() == *outside);
        let place = self.by_outside.find(hash_outside(&self.keys, outside), is_it)?;
        Some((place, *self.mappings.get(place)?))
    }

    fn of_remote(&self, mapping: u32, remote: u128) -> Option<u32> {
        let address = remote.to_ne_bytes();
        let is_it =
            |place| self.remotes.get(place).is_some_and(|other| other.mapping == mapping && other.address == address);
        self.by_remote.find(hash_remote(&self.keys, mapping, remote), is_it)
    }

    /// Makes a mapping of two sockets that have none, with its first flow.
    fn make(&mut self, inside: &Inside, outside: &Outside, remote: u128) -> bool {
        let Some(place) = self.mappings.add(Mapping::new(inside, outside), LIMIT) else { return false };
        if let Some(count) = self.of_pools.entry(inside.pool).or_default().get_mut(space(outside).index()) {
            *count += 1;
        }
        let (keys, mappings) = (&self.keys, &self.mappings);
        let inside_hash = |place| mappings.get(place).map_or(0, |mapping| hash_inside(keys, &mapping.inside()));
        let outside_hash = |place| mappings.get(place).map_or(0, |mapping| hash_outside(keys, &mapping.outside()));
        let made = self.by_inside.insert(hash_inside(keys, inside), place, inside_hash)
            && self.by_outside.insert(hash_outside(keys, outside), place, outside_hash)
            && self.add_flow(place, remote);
        if !made {
            self.end(place);
        }
        made
    }

    /// Adds a flow to a mapping.
    fn add_flow(&mut self, mapping: u32, remote: u128) -> bool {
        if let Some(known) = self.of_remote(mapping, remote).and_then(|place| self.remotes.get_mut(place)) {
            known.flows += 1;
            known.live += 1;
        } else {
            let record = Remote { address: remote.to_ne_bytes(), mapping, flows: 1, live: 1 };
            let Some(place) = self.remotes.add(record, LIMIT) else { return false };
            let (keys, remotes) = (&self.keys, &self.remotes);
            let hash = |place| {
                let hash = |other: &Remote| hash_remote(keys, other.mapping, u128::from_ne_bytes(other.address));
                remotes.get(place).map_or(0, hash)
            };
            if !self.by_remote.insert(hash(place), place, hash) {
                self.remotes.remove(place);
                return false;
            }
        }
        if let Some(mapping) = self.mappings.get_mut(mapping) {
            mapping.flows += 1;
            mapping.live += 1;
        }
        true
    }

    fn count_live(&mut self, outside: &Outside, remote: u128, change: impl Fn(u32) -> u32) {
        let Some((place, _)) = self.of_outside(outside) else { return };
        let Some(known) = self.of_remote(place, remote) else { return };
        if let (Some(mapping), Some(record)) = (self.mappings.get_mut(place), self.remotes.get_mut(known)) {
            mapping.live = change(mapping.live);
            record.live = change(record.live);
        }
    }

    fn release(&mut self, outside: &Outside, remote: u128) {
        let Some((place, _)) = self.of_outside(outside) else { return };
        let Some(known) = self.of_remote(place, remote) else { return };
        let Some(record) = self.remotes.get_mut(known) else { return };
        record.flows -= 1;
        if record.flows == 0 {
            self.by_remote.remove(hash_remote(&self.keys, place, remote), known);
            self.remotes.remove(known);
        }
        let Some(mapping) = self.mappings.get_mut(place) else { return };
        mapping.flows -= 1;
        if mapping.flows == 0 {
            self.end(place);
        }
    }

    /// Takes a mapping without flows out of everything that it is in.
    fn end(&mut self, place: u32) {
        let Some(mapping) = self.mappings.remove(place) else { return };
        if let Some(counts) = self.of_pools.get_mut(&mapping.pool) {
            if let Some(count) = counts.get_mut(space(&mapping.outside()).index()) {
                *count -= 1;
            }
            if *counts == [0; PortSpace::COUNT] {
                self.of_pools.remove(&mapping.pool);
            }
        }
        self.by_inside.remove(hash_inside(&self.keys, &mapping.inside()), place);
        self.by_outside.remove(hash_outside(&self.keys, &mapping.outside()), place);
    }
}

/// Which ports an outside socket is of.
fn space(outside: &Outside) -> PortSpace {
    PortSpace::of(outside.address >> 32 == 0xffff, outside.protocol)
}

fn hash_inside(keys: &HashKeys, inside: &Inside) -> u64 {
    let rest = u64::from(inside.number) | u64::from(inside.port) << 16 | u64::from(inside.protocol) << 32;
    keys.hash(inside.address, u128::from(inside.pool), rest)
}

fn hash_outside(keys: &HashKeys, outside: &Outside) -> u64 {
    keys.hash(outside.address, 0, u64::from(outside.number) | u64::from(outside.protocol) << 32)
}

fn hash_remote(keys: &HashKeys, mapping: u32, remote: u128) -> u64 {
    keys.hash(remote, 0, u64::from(mapping))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const UDP: u8 = 17;

    fn inside(number: u16) -> Inside {
        Inside { address: 0xffff_0a00_0004, number, port: 1, protocol: UDP, pool: 0 }
    }

    fn outside(number: u16) -> Outside {
        Outside { address: 0xffff_cb00_7101, number, protocol: UDP }
    }

    #[test]
    fn a_mapping_whose_flows_rest_lets_nobody_in_and_stays_its_sockets() {
        let mappings = Mappings::new();
        mappings.acquire(&inside(5), 1, [outside(1024)].into_iter());
        mappings.acquire(&inside(5), 2, std::iter::empty());
        mappings.rest(&outside(1024), 1);
        assert_eq!(mappings.admits(&outside(1024)), Some(inside(5)), "the other flow is live");
        assert!(!mappings.knows_address(&outside(1024), 1));
        assert!(mappings.knows_address(&outside(1024), 2));
        mappings.rest(&outside(1024), 2);
        assert_eq!(mappings.admits(&outside(1024)), None);
        assert_eq!(mappings.inside_of(&outside(1024)), Some(inside(5)));
        assert_eq!(mappings.acquire(&inside(6), 1, [outside(1024)].into_iter()), None, "its port rests");
        mappings.wake(&outside(1024), 1);
        assert_eq!(mappings.admits(&outside(1024)), Some(inside(5)));
        mappings.release(&outside(1024), 1, true);
        assert_eq!(mappings.admits(&outside(1024)), None);
        mappings.release(&outside(1024), 2, false);
        assert!(mappings.is_empty());
    }

    #[test]
    fn an_inside_socket_has_a_mapping_in_each_pool() {
        let mappings = Mappings::new();
        let other = Inside { pool: 1, ..inside(5) };
        assert_eq!(mappings.acquire(&inside(5), 1, [outside(1024)].into_iter()), Some(outside(1024)));
        assert_eq!(mappings.acquire(&other, 1, [outside(1024), outside(2048)].into_iter()), Some(outside(2048)));
        assert_eq!(mappings.acquire(&inside(5), 2, std::iter::empty()), Some(outside(1024)));
    }

    #[test]
    fn all_flows_of_an_inside_socket_leave_through_one_outside_socket() {
        let mappings = Mappings::new();
        assert_eq!(mappings.acquire(&inside(5), 1, [outside(1024)].into_iter()), Some(outside(1024)));
        assert_eq!(mappings.acquire(&inside(5), 2, std::iter::empty()), Some(outside(1024)), "no candidate is needed");
        assert_eq!(mappings.acquire(&inside(6), 1, [outside(1024)].into_iter()), None, "it is another's");
        let candidates = [outside(1024), outside(1025), outside(1026)];
        assert_eq!(mappings.acquire(&inside(6), 1, candidates.into_iter()), Some(outside(1025)));
        assert_eq!(mappings.inside_of(&outside(1025)), Some(inside(6)));
        assert_eq!(mappings.len(), 2);
    }

    #[test]
    fn a_mapping_ends_with_its_last_flow_and_knows_the_addresses_of_those_that_it_has() {
        let mappings = Mappings::new();
        for remote in [7, 7, 8] {
            assert!(mappings.acquire(&inside(5), remote, [outside(1024)].into_iter()).is_some());
        }
        mappings.release(&outside(1024), 7, true);
        assert!(mappings.knows_address(&outside(1024), 7), "another flow towards it is left");
        mappings.release(&outside(1024), 7, true);
        mappings.release(&outside(1024), 7, true);
        mappings.release(&outside(1025), 8, true);
        assert!(!mappings.knows_address(&outside(1024), 7) && mappings.knows_address(&outside(1024), 8));
        mappings.release(&outside(1024), 8, true);
        assert!(mappings.is_empty() && mappings.inside_of(&outside(1024)).is_none());
        assert!(mappings.acquire_exact(&inside(6), &outside(1024), 9), "it is free again");
    }

    #[test]
    fn a_given_pair_is_refused_where_either_side_is_mapped_otherwise() {
        let mappings = Mappings::new();
        assert!(mappings.acquire_exact(&inside(5), &outside(1024), 1));
        assert!(mappings.acquire_exact(&inside(5), &outside(1024), 2));
        assert!(!mappings.acquire_exact(&inside(5), &outside(1025), 1));
        assert!(!mappings.acquire_exact(&inside(6), &outside(1024), 1));
        assert!(mappings.acquire_exact(&inside(6), &outside(1025), 1));
        assert!(!mappings.acquire_exact(&inside(5), &outside(1025), 1), "both are mapped, but not to each other");
        let elsewhere = Inside { port: 2, ..inside(5) };
        assert!(mappings.acquire_exact(&elsewhere, &outside(1026), 1), "the same address in another network");
        assert_eq!(mappings.len(), 3);
    }

    /// Workers that make and end flows of the same inside sockets at once get the same outside sockets.
    #[test]
    fn workers_agree_on_the_mapping() {
        let mappings = Mappings::new();
        let found: Vec<Vec<Outside>> = thread::scope(|scope| {
            let work = |worker: u16| {
                let mappings = &mappings;
                move || {
                    let candidates = || (0..64).map(move |step| outside(1024 + (worker * 16 + step) % 64));
                    let get = |number| mappings.acquire(&inside(number), worker.into(), candidates()).unwrap();
                    (0..64).map(get).collect()
                }
            };
            let threads: Vec<_> = (0..4).map(|worker| scope.spawn(work(worker))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(found.iter().all(|outsides| *outsides == found[0]));
        let distinct: std::collections::HashSet<Outside> = found[0].iter().copied().collect();
        assert_eq!((distinct.len(), mappings.len()), (64, 64));
        for (worker, outsides) in found.iter().enumerate() {
            outsides.iter().for_each(|outside| mappings.release(outside, worker as u128, true));
        }
        assert!(mappings.is_empty());
    }

    #[test]
    fn a_hundred_thousand_mappings_are_found_from_both_sides() {
        let mappings = Mappings::new();
        let pair = |number: u32| {
            let inside = Inside { address: u128::from(number), ..inside(number as u16) };
            (inside, Outside { address: u128::from(number >> 16), ..outside(number as u16) })
        };
        for (inside, outside) in (0..100_000).map(pair) {
            assert!(mappings.acquire_exact(&inside, &outside, 3));
        }
        for (inside, outside) in (0..100_000).map(pair) {
            assert_eq!(mappings.inside_of(&outside), Some(inside));
            mappings.release(&outside, 3, true);
            assert_eq!(mappings.inside_of(&outside), None);
        }
        assert!(mappings.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Acquire(u16, u128, Vec<u16>),
        Exact(u16, u16, u128),
        Release(u16, u128),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..8_u16, 0..4_u128, proptest::collection::vec(0..8_u16, 0..4))
                .prop_map(|(inside, remote, candidates)| Step::Acquire(inside, remote, candidates)),
            1 => (0..8_u16, 0..8_u16, 0..4_u128).prop_map(|(inside, outside, remote)| Step::Exact(inside, outside, remote)),
            4 => (0..8_u16, 0..4_u128).prop_map(|(outside, remote)| Step::Release(outside, remote)),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        /// The twin is a list of flows: inside, outside, remote.
        #[test]
        fn behaves_like_a_list_of_flows(steps in steps()) {
            let mappings = Mappings::new();
            let mut twin: Vec<(u16, u16, u128)> = Vec::new();
            for step in steps {
                let outside_of = |i: u16| twin.iter().find(|flow| flow.0 == i).map(|flow| flow.1);
                let inside_of = |o: u16| twin.iter().find(|flow| flow.1 == o).map(|flow| flow.0);
                match step {
                    Step::Acquire(i, remote, candidates) => {
                        let expected = outside_of(i).or_else(|| candidates.iter().copied().find(|o| inside_of(*o).is_none()));
                        let found = mappings.acquire(&inside(i), remote, candidates.into_iter().map(outside));
                        prop_assert_eq!(found, expected.map(outside));
                        twin.extend(expected.map(|o| (i, o, remote)));
                    }
                    Step::Exact(i, o, remote) => {
                        let expected = outside_of(i).is_none_or(|other| other == o) && inside_of(o).is_none_or(|other| other == i);
                        prop_assert_eq!(mappings.acquire_exact(&inside(i), &outside(o), remote), expected);
                        twin.extend(expected.then_some((i, o, remote)));
                    }
                    Step::Release(o, remote) => {
                        mappings.release(&outside(o), remote, true);
                        if let Some(at) = twin.iter().position(|flow| (flow.1, flow.2) == (o, remote)) {
                            twin.swap_remove(at);
                        }
                    }
                }
                let mut mapped: Vec<u16> = twin.iter().map(|flow| flow.1).collect();
                mapped.sort_unstable();
                mapped.dedup();
                prop_assert_eq!(mappings.len(), mapped.len());
                prop_assert_eq!(mappings.of_pool(inside(0).pool).iter().sum::<u32>() as usize, mapped.len());
                for o in 0..8 {
                    let inside_twin = twin.iter().find(|flow| flow.1 == o).map(|flow| inside(flow.0));
                    prop_assert_eq!(mappings.inside_of(&outside(o)), inside_twin);
                    for remote in 0..4 {
                        let known = twin.iter().any(|flow| (flow.1, flow.2) == (o, remote));
                        prop_assert_eq!(mappings.knows_address(&outside(o), remote), known);
                    }
                }
            }
        }
    }
}
