//! The flow table of one worker.
//!
//! A flow is one record with two keys: what packets of its forward direction look like, and what those of its reverse
//! direction look like (not the same turned round, where addresses are translated). Either key leads to the record; the
//! rest of the record is the user's state.
//!
//! - Records live in one array; removed ones are used again, the last first. The array grows by doubling up to the
//!   limit. Its one move is a `realloc`, which the system's allocator does by remapping pages and not by copying.
//! - Keys are found through an index (`index.rs`) of 4 bytes an entry, cut into segments that grow one by one: no insert
//!   moves more than about 2000 entries.
//! - Each record is in a timer wheel ([`crate::table::timer`]), where packets need not touch it: the user keeps the time
//!   of the last packet in the state and answers with a new deadline when the old one is due. Flows that may be ended
//!   early are in a wheel of their own, so that one is found without a search where room is needed.
//! - The hash is keyed (`hash.rs`) with the seed, which has to be random and secret for each process.
//!
//! A flow of IPv4 with 64 bytes of state takes 112 bytes for its record and 10 to 15 for its two index entries: at most 128,
//! at 1,032,192 flows of one table that has room for just as many. That is all that one worker keeps for such a flow. Not in
//! it are what IPv6 takes more (two keys of 48 bytes instead of 16: a record of 176), what several workers keep to find a
//! flow's owner ([`crate::table::directory`], two entries), what endpoint-independent mappings take
//! ([`crate::table::mapping`]), and the counts of flows, which take the same for one flow as for all
//! ([`crate::table::quota`]). A table that grows into more room than it needs has up to twice the records. `benches/table.rs`
//! prints all of these.
//!
//! # Invariants
//! - A record in use is in the index by both keys (by one if they are equal) and in one of the wheel's two halves, the
//!   transient or the lasting one; others are in neither.
//! - No key belongs to two flows.
//! - [`FlowTable::lookup`] changes nothing and allocates nothing.

use std::ops::Range;

use super::hash::HashKeys;
use super::index::Index;
use super::prefix::Address;
use super::timer::{Timer, Timers, Wheel};

/// What identifies the packets of one direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct FlowKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; the identifier of ICMP queries; 0 where a protocol has none.
    pub source_port: u16,
    /// Destination port, or 0.
    pub destination_port: u16,
    /// Where packets of this direction enter.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl<A: Address> FlowKey<A> {
    /// The key of packets that enter through `port`.
    pub const fn new(
        source: A,
        destination: A,
        source_port: u16,
        destination_port: u16,
        port: u16,
        protocol: u8,
    ) -> Self {
        Self { source, destination, source_port, destination_port, port, protocol }
    }

    #[inline]
    fn rest(&self) -> u64 {
        u64::from(self.source_port)
            | u64::from(self.destination_port) << 16
            | u64::from(self.port) << 32
            | u64::from(self.protocol) << 48
    }

    /// Equality in one comparison for each word instead of a branch for each field.
    #[inline]
    fn same(&self, other: &Self) -> bool {
        (self.source == other.source) & (self.destination == other.destination) & (self.rest() == other.rest())
    }
}

/// Which of a flow's two keys a packet matched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// That of the packet that made the flow.
    Forward,
    /// Back.
    Reverse,
}

impl Direction {
    /// The other one.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }
}

/// A flow of one table.
///
/// Meant to be used at once. After the flow is removed, its id leads to nothing, also when the place has been taken by
/// another flow; only after 32,768 flows in the same place does an old id fit again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowId {
    place: u32,
    generation: u16,
}

impl FlowId {
    /// The place of the flow's record: below [`FlowTable::limit`], used again after the flow has ended.
    pub const fn index(self) -> u32 {
        self.place
    }
}

/// Why a flow was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The table has as many flows as it may have.
    #[error("the flow table is full")]
    Full,
    /// The forward key belongs to a flow.
    #[error("the forward key belongs to flow {}", .0.place)]
    ForwardInUse(FlowId),
    /// The reverse key belongs to a flow.
    #[error("the reverse key belongs to flow {}", .0.place)]
    ReverseInUse(FlowId),
}

/// What a removed flow was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removed<A, S> {
    /// What it was found by; leads to nothing any more.
    pub id: FlowId,
    /// Its forward key.
    pub forward: FlowKey<A>,
    /// Its reverse key.
    pub reverse: FlowKey<A>,
    /// Its last state.
    pub state: S,
}

#[derive(Clone, Debug)]
struct Record<A, S> {
    forward: FlowKey<A>,
    reverse: FlowKey<A>,
    state: S,
    /// The deadline, and as the owner's part the generation: odd while the record is in use.
    timer: Timer,
}

impl<A, S> Record<A, S> {
    fn in_use(&self) -> bool {
        self.timer.owner & 1 == 1
    }
}

#[derive(Clone, Debug)]
struct Records<A, S>(Vec<Record<A, S>>);

impl<A, S> Timers for Records<A, S> {
    #[inline]
    fn timer(&mut self, record: u32) -> Option<&mut Timer> {
        self.0.get_mut(record as usize).map(|record| &mut record.timer)
    }

    #[inline]
    fn peek(&self, record: u32) -> Option<&Timer> {
        self.0.get(record as usize).map(|record| &record.timer)
    }
}

/// Most flows of one table: what the index's payload can number beside the direction.
const LIMIT_MAX: usize = 1 << 24;
/// Keys that are looked up at once in [`FlowTable::approach`]: as many as a batch of small packets has.
const AT_ONCE: usize = 64;
/// Bytes of records that stay in small pages, so that few flows take little memory.
const SMALL_TABLE: usize = 2 << 20;
/// Records at first.
const RECORDS_FIRST: usize = 64;
/// The end of the free list.
const NONE: u32 = u32::MAX;

/// A table of flows, for one worker and one address family.
#[derive(Clone, Debug)]
pub struct FlowTable<A, S> {
    keys: HashKeys,
    index: Index,
    records: Records<A, S>,
    wheel: Wheel,
    /// The first record of the free list.
    free: u32,
    used: usize,
    limit: usize,
}

impl<A: Address, S: Copy> FlowTable<A, S> {
    /// An empty table for up to `limit` flows (2^24 at most). It takes memory only as it fills.
    ///
    /// `seed` keys the hash: draw it from the system's random numbers once for each process, and keep it secret.
    pub fn new(limit: usize, seed: u64) -> Self {
        let limit = limit.min(LIMIT_MAX);
        let place_bits = usize::BITS - limit.saturating_sub(1).leading_zeros();
        Self {
            keys: HashKeys::new(seed),
            index: Index::new(place_bits + 1, limit.saturating_mul(2)),
            records: Records(Vec::new()),
            wheel: Wheel::default(),
            free: NONE,
            used: 0,
            limit,
        }
    }

    /// Makes room in an empty table for this many flows at once: for taking in many that are known.
    pub fn reserve(&mut self, flows: usize) {
        let flows = flows.min(self.limit);
        self.records.0.reserve_exact(flows.saturating_sub(self.records.0.len()));
        if self.is_empty() {
            self.index.reserve(flows.saturating_mul(2));
        }
    }

    /// Reserves addresses for all records that there may ever be, so that they never move, and gives where those behind
    /// the first 2 MiB are: memory is taken as flows are made. Where the system has no such room, they grow and
    /// move as before.
    pub fn spread_out(&mut self) -> Range<usize> {
        let records = &mut self.records.0;
        // Refused where a limit is far beyond what the machine has.
        let _reserved = records.try_reserve_exact(self.limit.saturating_sub(records.len()));
        let start = records.as_ptr().addr();
        start + SMALL_TABLE..start + records.capacity() * size_of::<Record<A, S>>()
    }

    /// The hash of a key, for [`Self::lookup_hashed`].
    #[inline]
    pub fn hash(&self, key: &FlowKey<A>) -> u64 {
        self.keys.hash(key.source, key.destination, key.rest())
    }

    /// Reads what lookups of these keys read: the index entries of all, then the records that those lead to. Each of the loops
    /// does nothing else, so that as many reads as the processor can keep in flight overlap.
    #[inline]
    pub fn approach(&self, keys: impl Iterator<Item = FlowKey<A>>) {
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            let mut hashes = [0; AT_ONCE];
            let mut count = 0;
            for (hash, key) in hashes.iter_mut().zip(&mut keys) {
                *hash = self.hash(&key);
                count += 1;
            }
            let mut places = [0; AT_ONCE];
            for (place, hash) in places.iter_mut().zip(hashes).take(count) {
                *place = self.index.touch(hash) >> 1;
            }
            for place in places.into_iter().take(count) {
                if let Some(record) = self.records.0.get(place as usize) {
                    // A record lies in two or three lines; these fields are in all of them.
                    std::hint::black_box((record.forward.source, record.state, record.timer.owner));
                }
            }
        }
    }

    /// The hash of a key, of which a lookup reads the index entry next: doing this for some keys before the first lookup
    /// lets the reads of memory overlap.
    #[inline]
    pub fn touch(&self, key: &FlowKey<A>) -> u64 {
        let hash = self.hash(key);
        std::hint::black_box(self.index.touch(hash));
        hash
    }

    /// Finds the flow that a key belongs to, and as which direction.
    #[inline]
    pub fn lookup(&self, key: &FlowKey<A>) -> Option<(FlowId, Direction)> {
        self.lookup_hashed(self.hash(key), key)
    }

    /// The same for a key whose hash is known.
    #[inline]
    pub fn lookup_hashed(&self, hash: u64, key: &FlowKey<A>) -> Option<(FlowId, Direction)> {
        let mut generation = 0;
        let payload = self.index.find(hash, |payload| {
            let Some(record) = self.records.0.get((payload >> 1) as usize) else { return false };
            generation = record.timer.owner;
            let stored = if payload & 1 == 0 { &record.forward } else { &record.reverse };
            stored.same(key)
        })?;
        let direction = if payload & 1 == 0 { Direction::Forward } else { Direction::Reverse };
        Some((FlowId { place: payload >> 1, generation }, direction))
    }

    /// Makes a flow that is due at `deadline` (milliseconds of the caller's clock); a `transient` one may be found by
    /// [`Self::oldest_transient`] before. If both keys are equal, its packets are found as forward.
    ///
    /// # Errors
    /// If a key belongs to a flow (the forward one is looked at first), or the table is full. Nothing has changed then.
    pub fn insert(
        &mut self,
        forward: FlowKey<A>,
        reverse: FlowKey<A>,
        state: S,
        deadline: u64,
        transient: bool,
    ) -> Result<FlowId, Refused> {
        let (forward_hash, reverse_hash) = (self.hash(&forward), self.hash(&reverse));
        if let Some((flow, _)) = self.lookup_hashed(forward_hash, &forward) {
            return Err(Refused::ForwardInUse(flow));
        }
        if let Some((flow, _)) = self.lookup_hashed(reverse_hash, &reverse) {
            return Err(Refused::ReverseInUse(flow));
        }
        self.insert_absent([forward, reverse], [forward_hash, reverse_hash], state, deadline, transient)
    }

    /// [`Self::insert`] of a flow whose keys, forward and reverse, have been looked up by their hashes and belong to none.
    ///
    /// # Errors
    /// If the table is full. Nothing has changed then.
    pub fn insert_absent(
        &mut self,
        [forward, reverse]: [FlowKey<A>; 2],
        [forward_hash, reverse_hash]: [u64; 2],
        state: S,
        deadline: u64,
        transient: bool,
    ) -> Result<FlowId, Refused> {
        let place = self.take_place(forward, reverse, state)?;
        if !self.index_add(forward_hash, place << 1) {
            self.give_back(place);
            return Err(Refused::Full);
        }
        if !forward.same(&reverse) && !self.index_add(reverse_hash, place << 1 | 1) {
            self.index.remove(forward_hash, place << 1);
            self.give_back(place);
            return Err(Refused::Full);
        }
        self.wheel.set(&mut self.records, place, deadline, transient);
        self.used += 1;
        let generation = self.records.peek(place).map_or(0, |timer| timer.owner);
        Ok(FlowId { place, generation })
    }

    /// A key of a flow.
    pub fn key(&self, flow: FlowId, direction: Direction) -> Option<&FlowKey<A>> {
        self.record(flow).map(|record| match direction {
            Direction::Forward => &record.forward,
            Direction::Reverse => &record.reverse,
        })
    }

    /// The state of a flow.
    #[inline]
    pub fn state(&self, flow: FlowId) -> Option<&S> {
        self.record(flow).map(|record| &record.state)
    }

    /// The state of a flow, to change it.
    #[inline]
    pub fn state_mut(&mut self, flow: FlowId) -> Option<&mut S> {
        let record = self.records.0.get_mut(flow.place as usize)?;
        (record.timer.owner == flow.generation).then_some(&mut record.state)
    }

    /// Ends a flow.
    pub fn remove(&mut self, flow: FlowId) -> Option<Removed<A, S>> {
        let record = self.record(flow)?;
        let removed = Removed { id: flow, forward: record.forward, reverse: record.reverse, state: record.state };
        self.index.remove(self.hash(&removed.forward), flow.place << 1);
        if !removed.forward.same(&removed.reverse) {
            self.index.remove(self.hash(&removed.reverse), flow.place << 1 | 1);
        }
        self.wheel.cancel(&mut self.records, flow.place);
        self.give_back(flow.place);
        self.used -= 1;
        Some(removed)
    }

    /// Moves the deadline of a flow (milliseconds), earlier or later, and says whether it is transient from now on. Packets
    /// need not do this: see [`Self::expire`].
    pub fn set_deadline(&mut self, flow: FlowId, deadline: u64, transient: bool) {
        if self.record(flow).is_some() {
            self.wheel.set(&mut self.records, flow.place, deadline, transient);
        }
    }

    /// The transient flow whose deadline comes first, of those that are accepted by id, forward key, reverse key and
    /// state: what may be ended where room is needed. At most `budget` flows are looked at, so there may be one although
    /// none is found, or an earlier one. Flows of one slot of the wheel are looked at in the order in which their
    /// deadlines were set, and the earliest of them is taken; where all lifetimes are equal that is the first one.
    ///
    /// A deadline is the one that was set, which packets need not have moved since: the time of the last packet in the
    /// state tells `accept` whether the flow is really idle.
    pub fn oldest_transient(
        &self,
        budget: usize,
        mut accept: impl FnMut(FlowId, &FlowKey<A>, &FlowKey<A>, &S) -> bool,
    ) -> Option<FlowId> {
        let accept = |place: u32| {
            self.records.0.get(place as usize).is_some_and(|record| {
                let flow = FlowId { place, generation: record.timer.owner };
                accept(flow, &record.forward, &record.reverse, &record.state)
            })
        };
        let place = self.wheel.earliest_transient(&self.records, budget, accept)?;
        self.records.peek(place).map(|timer| FlowId { place, generation: timer.owner })
    }

    /// The deadline of a flow in milliseconds, rounded up to a tick.
    pub fn deadline(&self, flow: FlowId) -> Option<u64> {
        self.record(flow).map(|record| record.timer.deadline())
    }

    /// Asks what to do with flows whose deadline has passed at `now`: `Some` keeps the flow until another deadline, as
    /// transient or lasting as it was, `None` ends it. Returns how many ended.
    ///
    /// A flow is asked about at its deadline or up to 64 ms later, never earlier, and once in a call. `budget` bounds
    /// the work of the call: flows asked about, plus timers on their way down the wheel. If it didn't suffice,
    /// [`Self::next_deadline`] isn't after `now`. Time that goes backwards does nothing.
    pub fn expire(&mut self, now: u64, budget: usize, verdict: impl FnMut(FlowId, &S) -> Option<u64>) -> usize {
        self.expire_with(now, budget, verdict, |_, _| {})
    }

    /// [`Self::expire`], and tells of every flow that ended, with the table that it was in.
    pub fn expire_with(
        &mut self,
        now: u64,
        budget: usize,
        mut verdict: impl FnMut(FlowId, &S) -> Option<u64>,
        mut ended_flow: impl FnMut(&Self, Removed<A, S>),
    ) -> usize {
        let mut budget = budget;
        let mut ended = 0;
        // Nobody is asked twice, also at the end of time, where there is no later deadline.
        for _ in 0..self.used {
            let Some((place, transient)) = self.wheel.next_due(&mut self.records, now, &mut budget) else { break };
            let Some(record) = self.records.0.get(place as usize) else { break };
            let flow = FlowId { place, generation: record.timer.owner };
            match verdict(flow, &record.state) {
                Some(deadline) => {
                    self.wheel.set(&mut self.records, place, deadline.max(Wheel::tick_after(now)), transient);
                }
                None => {
                    let Some(removed) = self.remove(flow) else { continue };
                    ended += 1;
                    ended_flow(self, removed);
                }
            }
        }
        ended
    }

    /// A time in milliseconds before which [`Self::expire`] has nothing to do; none while there is no flow.
    pub fn next_deadline(&self) -> Option<u64> {
        self.wheel.next_deadline()
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// How many flows there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that the table takes, what it keeps in reserve included.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.records.0.capacity() * size_of::<Record<A, S>>()
            + self.index.memory()
            + self.wheel.memory()
    }

    /// Every flow: id, forward key, reverse key, state. In no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (FlowId, &FlowKey<A>, &FlowKey<A>, &S)> {
        self.records.0.iter().enumerate().filter(|(_, record)| record.in_use()).map(|(place, record)| {
            let flow = FlowId { place: place as u32, generation: record.timer.owner };
            (flow, &record.forward, &record.reverse, &record.state)
        })
    }

    /// Places that have had a flow: the [`FlowId::index`] of every flow is below. For walking the table in steps.
    pub fn places(&self) -> u32 {
        self.records.0.len() as u32
    }

    /// The flow of a place, if it is in use.
    pub fn at(&self, place: u32) -> Option<FlowId> {
        let record = self.records.0.get(place as usize).filter(|record| record.in_use())?;
        Some(FlowId { place, generation: record.timer.owner })
    }

    #[inline]
    fn record(&self, flow: FlowId) -> Option<&Record<A, S>> {
        // A generation in an id is odd, so equal means in use.
        self.records.0.get(flow.place as usize).filter(|record| record.timer.owner == flow.generation)
    }

    /// Takes a record from the free list, or a new one, and fills it.
    fn take_place(&mut self, forward: FlowKey<A>, reverse: FlowKey<A>, state: S) -> Result<u32, Refused> {
        if self.used >= self.limit {
            return Err(Refused::Full);
        }
        let place = self.free;
        if let Some(record) = self.records.0.get_mut(place as usize) {
            self.free = record.timer.link();
            let timer = Timer::new(record.timer.owner.wrapping_add(1));
            *record = Record { forward, reverse, state, timer };
            return Ok(place);
        }
        let length = self.records.0.len();
        if length == self.records.0.capacity() {
            let wanted = (length * 2).clamp(RECORDS_FIRST, RECORDS_FIRST.max(self.limit));
            self.records.0.reserve_exact(wanted - length);
        }
        self.records.0.push(Record { forward, reverse, state, timer: Timer::new(1) });
        Ok(length as u32)
    }

    /// Puts a record on the free list.
    fn give_back(&mut self, place: u32) {
        let free = self.free;
        if let Some(timer) = self.records.timer(place) {
            *timer = Timer::new(timer.owner.wrapping_add(1));
            timer.set_link(free);
            self.free = place;
        }
    }

    fn index_add(&mut self, hash: u64, payload: u32) -> bool {
        let (keys, records) = (&self.keys, &self.records.0);
        self.index.insert(hash, payload, |payload| {
            let Some(record) = records.get((payload >> 1) as usize) else { return 0 };
            let key = if payload & 1 == 0 { &record.forward } else { &record.reverse };
            keys.hash(key.source, key.destination, key.rest())
        })
    }
}

#[cfg(test)]
mod tests;
