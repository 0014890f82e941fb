//! Flows that outlive their process: what of them is saved, as bytes, and how they are taken in again.
//!
//! A flow is saved as what its packets look like on both sides, how far its conversation is, what was counted, and how
//! long ago its last packet was. It is taken in under generation 0, which no snapshot has: the first packet that meets
//! it, or the sweep, decides it again under the snapshot that is in force now. Where the answer is the same it lives on,
//! otherwise it ends as after any change.
//!
//! Numbers of ports and resources are those of the process that saved them. Who restores maps them
//! ([`SavedFlow::map_ports`], [`SavedFlow::map_resource`]).
//!
//! A connection that has not named its resource yet is not saved: what it has said so far would have to be. Nor is one of
//! plain HTTP that was judged by its only request.

use super::Forwarder;
use super::core::Core;
use super::flow::{Family, FlowState, STATE_BYTES, take};
use super::policy::Named;
use super::record::Ending;
use super::redecide;
use super::shared::owner_of;
use super::undecided::key_of;
use crate::snapshot::{PortId, ResourceId};
use crate::table::flow::{FlowId, FlowKey, FlowTable};

/// One flow, as it is saved.
#[derive(Debug, Clone, Copy)]
pub struct SavedFlow {
    keys: Keys,
    /// Milliseconds since its last packet.
    age: u64,
    state: FlowState,
    /// What its client named.
    named: Named,
    /// How many milliseconds ago it began, rounded to 64; none where that is not known, as no records were made.
    began: Option<u64>,
}

/// What stands for [`Named`] in saved bytes; resources follow, by their number.
const NOT_YET: u32 = 0;
const NOTHING: u32 = 1;
const FIRST_RESOURCE: u32 = 2;

/// Forward and reverse key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    V4([FlowKey<u32>; 2]),
    V6([FlowKey<u128>; 2]),
}

/// Why a saved flow was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It would have ended by now.
    #[error("its time is over")]
    Expired,
    /// Packets that look like its own belong to another flow.
    #[error("another flow has one of its keys")]
    Taken,
    /// The flow table is full.
    #[error("the flow table is full")]
    Full,
    /// A port or the resource of its is not there any more.
    #[error("its port or its resource is gone")]
    Gone,
}

/// Flows whose places are read at once.
const AHEAD: usize = 32;

/// First byte of a saved flow.
const V4: u8 = 4;
const V6: u8 = 6;
/// Added to it where it is known when the flow began: that follows what its client named.
const BEGAN: u8 = 128;

/// Milliseconds of a unit of it, as a power of two: 32 bits of them are 8.7 years.
const BEGAN_SHIFT: u32 = 6;

/// What a port is called that there is no more.
const NOWHERE: PortId = PortId(u16::MAX);

impl SavedFlow {
    /// Appends the flow as bytes.
    pub fn to_bytes(&self, out: &mut Vec<u8>) {
        // Put together here first: a million flows are written while nothing is forwarded.
        let mut bytes = Fields { bytes: [0; LONGEST], length: 0 };
        let began = self.began.map(|began| u32::try_from(began >> BEGAN_SHIFT).unwrap_or(u32::MAX));
        let more = if began.is_some() { BEGAN } else { 0 };
        match &self.keys {
            Keys::V4(keys) => {
                bytes.put([V4 | more]);
                keys.iter().for_each(|key| put_key(key, u32::to_le_bytes, &mut bytes));
            }
            Keys::V6(keys) => {
                bytes.put([V6 | more]);
                keys.iter().for_each(|key| put_key(key, u128::to_le_bytes, &mut bytes));
            }
        }
        bytes.put(u32::try_from(self.age).unwrap_or(u32::MAX).to_le_bytes());
        self.state.put(&mut bytes);
        let named = match self.named {
            Named::NotYet => NOT_YET,
            Named::Nothing => NOTHING,
            Named::Resource(resource) => resource.0.saturating_add(FIRST_RESOURCE),
        };
        bytes.put(named.to_le_bytes());
        if let Some(began) = began {
            bytes.put(began.to_le_bytes());
        }
        out.extend_from_slice(bytes.bytes.get(..bytes.length).unwrap_or_default());
    }

    /// Takes a flow from the front of bytes; none where they are not one.
    #[inline]
    pub fn from_bytes(from: &mut &[u8]) -> Option<Self> {
        let [first] = take(from)?;
        let keys = match first & !BEGAN {
            V4 => Keys::V4([key_from_bytes(from, u32::from_le_bytes)?, key_from_bytes(from, u32::from_le_bytes)?]),
            V6 => Keys::V6([key_from_bytes(from, u128::from_le_bytes)?, key_from_bytes(from, u128::from_le_bytes)?]),
            _ => return None,
        };
        let age = take(from).map(u32::from_le_bytes)?;
        let state = FlowState::from_bytes(from)?;
        let named = match take(from).map(u32::from_le_bytes)? {
            NOT_YET => Named::NotYet,
            NOTHING => Named::Nothing,
            resource => Named::Resource(ResourceId(resource - FIRST_RESOURCE)),
        };
        let began = if first & BEGAN == 0 { None } else { Some(take(from).map(u32::from_le_bytes)?) };
        let began = began.map(|began| u64::from(began) << BEGAN_SHIFT);
        Some(Self { keys, age: u64::from(age), state, named, began })
    }

    /// Whether it is of IPv4; otherwise it is of IPv6.
    pub const fn is_v4(&self) -> bool {
        matches!(self.keys, Keys::V4(_))
    }

    /// Milliseconds since its last packet.
    pub const fn age(&self) -> u64 {
        self.age
    }

    /// More time has passed, in milliseconds.
    pub fn grow_older(&mut self, by: u64) {
        self.age = self.age.saturating_add(by);
        self.began = self.began.map(|began| began.saturating_add(by));
    }

    /// Gives its two ports other numbers; false where one of them has none, and then it is of no use.
    #[must_use]
    pub fn map_ports(&mut self, map: impl Fn(PortId) -> Option<PortId>) -> bool {
        let change = |port: &mut u16| {
            let new = map(PortId(*port));
            *port = new.unwrap_or(NOWHERE).0;
            new.is_some()
        };
        // Both, whatever becomes of the first: it is told that the flow ends.
        match &mut self.keys {
            Keys::V4([forward, reverse]) => change(&mut forward.port) & change(&mut reverse.port),
            Keys::V6([forward, reverse]) => change(&mut forward.port) & change(&mut reverse.port),
        }
    }

    /// Gives the resource that its client named another number; false where that has none, and then it is of no use.
    #[must_use]
    pub fn map_resource(&mut self, map: impl Fn(ResourceId) -> Option<ResourceId>) -> bool {
        let Named::Resource(resource) = self.named else { return true };
        let new = map(resource);
        self.named = new.map_or(Named::NotYet, Named::Resource);
        new.is_some()
    }

    /// A number that spreads flows over workers.
    pub fn spread(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        match &self.keys {
            Keys::V4([forward, _]) => forward.hash(&mut hasher),
            Keys::V6([forward, _]) => forward.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// Bytes of a saved flow at most: one of IPv6.
pub const LONGEST: usize = 1 + 2 * (2 * 16 + 3 * 2 + 1) + 4 + STATE_BYTES + 4 + 4;

/// The fields of one saved flow.
pub(super) struct Fields {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Fields {
    /// Appends one; what [`LONGEST`] has no room for is not there.
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, field: [u8; N]) {
        let end = self.length + N;
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(&field);
            self.length = end;
        }
    }
}

#[inline(always)]
fn put_key<A: Family, const N: usize>(key: &FlowKey<A>, address: impl Fn(A) -> [u8; N], out: &mut Fields) {
    out.put(address(key.source));
    out.put(address(key.destination));
    out.put(key.source_port.to_le_bytes());
    out.put(key.destination_port.to_le_bytes());
    out.put(key.port.to_le_bytes());
    out.put([key.protocol]);
}

fn key_from_bytes<A: Family, const N: usize>(from: &mut &[u8], address: impl Fn([u8; N]) -> A) -> Option<FlowKey<A>> {
    let (source, destination) = (address(take(from)?), address(take(from)?));
    let mut number = || take(from).map(u16::from_le_bytes);
    let (source_port, destination_port, port) = (number()?, number()?, number()?);
    let [protocol] = take(from)?;
    Some(FlowKey { source, destination, source_port, destination_port, port, protocol })
}

impl Forwarder {
    /// Visits every flow as it is to be saved.
    pub fn save(&self, now: u64, mut visit: impl FnMut(SavedFlow)) {
        let age = |state: &FlowState| now.saturating_sub(state.last_seen());
        let saved = |state: &FlowState| !state.is_watched();
        for (id, forward, reverse, state) in self.tables.v4.iter().filter(|(.., state)| saved(state)) {
            let named = redecide::named(&self.core, forward, state);
            let began = self.core.log_age::<u32>(id, now);
            visit(SavedFlow { keys: Keys::V4([*forward, *reverse]), age: age(state), state: *state, named, began });
        }
        for (id, forward, reverse, state) in self.tables.v6.iter().filter(|(.., state)| saved(state)) {
            let named = redecide::named(&self.core, forward, state);
            let began = self.core.log_age::<u128>(id, now);
            visit(SavedFlow { keys: Keys::V6([*forward, *reverse]), age: age(state), state: *state, named, began });
        }
    }

    /// How many flows [`Forwarder::save`] visits at most, of IPv4 and of IPv6.
    pub fn saved_at_most(&self) -> [usize; 2] {
        [self.tables.v4.len(), self.tables.v6.len()]
    }

    /// Makes room for so many saved flows of IPv4 and of IPv6 that are to be restored.
    pub fn reserve(&mut self, [v4, v6]: [usize; 2]) {
        self.tables.v4.reserve(v4);
        self.tables.v6.reserve(v6);
    }

    /// Takes in so many flows from the front of saved bytes, each as `now_of` makes it what it is now, as [`Forwarder::restore`]
    /// takes one, and tells what became of each; none of it where that says nothing. Where their places are is read for some
    /// of them at once, so that the reads of memory overlap. False where there are not so many flows; those before are there.
    pub fn restore_all(
        &mut self,
        now: u64,
        from: &mut &[u8],
        count: usize,
        now_of: impl Fn(&mut SavedFlow) -> Option<Result<(), Refused>>,
        mut told: impl FnMut(Result<(), Refused>),
    ) -> bool {
        let mut flows: Vec<SavedFlow> = Vec::with_capacity(AHEAD);
        let mut hashes: Vec<[u64; 2]> = Vec::with_capacity(AHEAD);
        let mut left = count;
        while left > 0 {
            for _ in 0..left.min(AHEAD) {
                let Some(mut flow) = SavedFlow::from_bytes(from) else { return false };
                left -= 1;
                match now_of(&mut flow) {
                    Some(Ok(())) => flows.push(flow),
                    Some(Err(why)) => {
                        self.leave_out(now, &flow, why);
                        told(Err(why));
                    }
                    None => {}
                }
            }
            // With nothing between them, so that the processor waits for all of these reads at once.
            hashes.extend(flows.iter().map(|flow| self.hashes(flow)));
            for (flow, hashes) in flows.drain(..).zip(hashes.drain(..)) {
                told(self.restore_hashed(now, &flow, hashes));
            }
        }
        true
    }

    /// The hashes of both keys of a flow; what a search for them reads first is being read.
    #[inline(always)]
    fn hashes(&self, flow: &SavedFlow) -> [u64; 2] {
        match &flow.keys {
            Keys::V4([forward, reverse]) => [self.tables.v4.touch(forward), self.tables.v4.touch(reverse)],
            Keys::V6([forward, reverse]) => [self.tables.v6.touch(forward), self.tables.v6.touch(reverse)],
        }
    }

    /// Takes a saved flow in. It is decided again by the first packet that meets it, or by [`Forwarder::sweep`].
    ///
    /// `now` must not be less than the flow's age: a clock that begins later would make the flow younger.
    ///
    /// # Errors
    /// Why it was left out.
    pub fn restore(&mut self, now: u64, flow: &SavedFlow) -> Result<(), Refused> {
        self.restore_hashed(now, flow, self.hashes(flow))
    }

    /// A flow is not taken in: it ends here, and what it was is told.
    fn leave_out(&mut self, now: u64, flow: &SavedFlow, why: Refused) {
        if !self.core.is_logged() {
            return;
        }
        let sides = match &flow.keys {
            Keys::V4([forward, reverse]) => redecide::sides(forward, reverse),
            Keys::V6([forward, reverse]) => redecide::sides(forward, reverse),
        };
        let ending = match why {
            Refused::Expired => Ending::Expired,
            Refused::Taken => Ending::Reused,
            Refused::Full => Ending::Evicted,
            Refused::Gone => Ending::Changed,
        };
        self.core.log_left_out(sides, (&flow.state, flow.named), flow.began, ending, now);
    }

    fn restore_hashed(&mut self, now: u64, flow: &SavedFlow, hashes: [u64; 2]) -> Result<(), Refused> {
        let taken = self.take_in(now, flow, hashes);
        if let Err(why) = taken {
            self.leave_out(now, flow, why);
        }
        taken
    }

    fn take_in(&mut self, now: u64, flow: &SavedFlow, hashes: [u64; 2]) -> Result<(), Refused> {
        let key = match flow.keys {
            Keys::V4(keys) => {
                let id = insert(&self.core, &mut self.tables.v4, keys, hashes, flow, now)?;
                self.core.log_restored::<u32>(id, &flow.state, flow.began, now);
                key_of(&keys[0])
            }
            Keys::V6(keys) => {
                let id = insert(&self.core, &mut self.tables.v6, keys, hashes, flow, now)?;
                self.core.log_restored::<u128>(id, &flow.state, flow.began, now);
                let [forward, reverse] = keys;
                // The snapshot of this process need not have such endpoints any more.
                self.core.crosses |= forward.source.to_ip().is_ipv4() != reverse.source.to_ip().is_ipv4();
                key_of(&forward)
            }
        };
        if flow.named != Named::NotYet {
            self.core.undecided.finish(&key, flow.named);
        }
        self.sweep = Some((0, 0));
        Ok(())
    }
}

fn insert<A: Family>(
    core: &Core,
    flows: &mut FlowTable<A, FlowState>,
    [forward, reverse]: [FlowKey<A>; 2],
    [forward_hash, reverse_hash]: [u64; 2],
    flow: &SavedFlow,
    now: u64,
) -> Result<FlowId, Refused> {
    let snapshot = &core.snapshot;
    let mut state = flow.state;
    if flow.named != Named::NotYet {
        state.set_named();
    }
    let pool = snapshot.pool_of(reverse.destination.to_ip()).filter(|_| state.translated());
    let pool = if state.maps_destination() { pool.or(snapshot.pool_of(forward.destination.to_ip())) } else { pool };
    state.set_place(pool, owner_of(snapshot, &forward, &reverse), now.saturating_sub(flow.age));
    let lifetime = state.lifetime(snapshot);
    if flow.age >= lifetime {
        return Err(Refused::Expired);
    }
    let hashes = (forward_hash, reverse_hash);
    if flows.lookup_hashed(hashes.0, &forward).is_some() || flows.lookup_hashed(hashes.1, &reverse).is_some() {
        return Err(Refused::Taken);
    }
    let (shared, me) = (&core.settings.shared, core.settings.worker);
    shared.take_room(snapshot, state.owner.0).map_err(|_| Refused::Full)?;
    let claimed = shared.claim(me, hashes);
    let mapped = claimed && shared.map_again(snapshot, &forward, &reverse, &state);
    if mapped {
        let deadline = now + (lifetime - flow.age);
        let hashes = [forward_hash, reverse_hash];
        if let Ok(id) = flows.insert_absent([forward, reverse], hashes, state, deadline, state.is_transient()) {
            shared.take_of_pool(pool, &forward);
            core.counters.flows.add(1);
            return Ok(id);
        }
    }
    shared.quota.give_back(state.owner.0);
    if mapped {
        shared.unmap(&forward, &reverse, &state);
    }
    if claimed {
        shared.unclaim(me, hashes);
    }
    Err(if mapped { Refused::Full } else { Refused::Taken })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any flow, as bytes: whatever the fields hold.
    fn saved() -> impl Strategy<Value = Vec<u8>> {
        let key = |address: usize| proptest::collection::vec(any::<u8>(), 2 * address + 7);
        let keys = prop_oneof![
            (key(4), key(4)).prop_map(|(forward, reverse)| [vec![V4], forward, reverse].concat()),
            (key(16), key(16)).prop_map(|(forward, reverse)| [vec![V6], forward, reverse].concat()),
        ];
        let numbers = proptest::collection::vec(any::<u8>(), 4 + 4 * 8 + 4 * 4);
        let flags = prop_oneof![0..16_u8, 64..80_u8];
        let named = any::<u32>().prop_map(|named| named.to_le_bytes().to_vec());
        let began = proptest::option::of(any::<u32>());
        (keys, numbers, (0..7_u8, 0..10_u8, any::<u8>(), flags), named, began).prop_map(
            |(keys, numbers, (hop, phase, seen, flags), named, began)| {
                let mut all = [keys, numbers, vec![hop, phase, seen, flags], named].concat();
                if let Some(began) = began {
                    all[0] |= BEGAN;
                    all.extend(began.to_le_bytes());
                }
                all
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_saved_is_read_back(bytes in saved(), more in proptest::collection::vec(any::<u8>(), 0..9)) {
            let all = [bytes.clone(), more.clone()].concat();
            let mut from = all.as_slice();
            let flow = SavedFlow::from_bytes(&mut from).expect("a flow");
            prop_assert_eq!(from, more.as_slice());
            let mut again = Vec::new();
            flow.to_bytes(&mut again);
            prop_assert_eq!(again, bytes);
        }

        #[test]
        fn what_is_cut_is_no_flow(bytes in saved(), cut in any::<prop::sample::Index>()) {
            let mut from = &bytes[..cut.index(bytes.len())];
            prop_assert!(SavedFlow::from_bytes(&mut from).is_none());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut from = bytes.as_slice();
            while SavedFlow::from_bytes(&mut from).is_some() {}
        }

        #[test]
        fn ports_are_mapped_on_both_sides(bytes in saved()) {
            let flow = SavedFlow::from_bytes(&mut bytes.as_slice()).expect("a flow");
            let mut other = flow;
            prop_assert!(other.map_ports(|port| Some(PortId(port.0.wrapping_add(1)))));
            prop_assert_ne!(other.keys, flow.keys);
            prop_assert!(other.map_ports(|port| Some(PortId(port.0.wrapping_sub(1)))));
            prop_assert_eq!(other.keys, flow.keys);
            prop_assert!(!other.map_ports(|_| None));
        }
    }

    #[test]
    fn what_was_named_is_found_under_its_new_number_or_the_flow_is_left_out() {
        let mut bytes = vec![V4];
        bytes.resize(1 + 2 * 15 + 4 + 4 * 8 + 4 * 4 + 4 + 4, 0);
        let mut plain = SavedFlow::from_bytes(&mut bytes.as_slice()).expect("a flow");
        assert_eq!(plain.named, Named::NotYet);
        for named in [Named::NotYet, Named::Nothing, Named::Resource(ResourceId(0)), Named::Resource(ResourceId(7))] {
            let mut bytes = Vec::new();
            SavedFlow { named, ..plain }.to_bytes(&mut bytes);
            assert_eq!(SavedFlow::from_bytes(&mut bytes.as_slice()).expect("a flow").named, named);
        }
        let flow = SavedFlow { named: Named::Resource(ResourceId(7)), ..plain };
        let mut there = flow;
        assert!(there.map_resource(|resource| Some(ResourceId(resource.0 + 1))));
        assert_eq!(there.named, Named::Resource(ResourceId(8)));
        assert!(!there.map_resource(|_| None));
        assert!(plain.map_resource(|_| None), "nobody needs a resource there");
    }

    #[test]
    fn fields_that_mean_nothing_are_refused() {
        let mut good = vec![V4];
        good.resize(1 + 2 * 15 + 4 + 4 * 8 + 4 * 4 + 4 + 4, 0);
        assert!(SavedFlow::from_bytes(&mut good.as_slice()).is_some());
        let last = good.len() - 1 - 4;
        for (place, value) in [(0, 5), (last - 3, 8), (last - 2, 10), (last, 16)] {
            let mut bad = good.clone();
            bad[place] = value;
            assert!(SavedFlow::from_bytes(&mut bad.as_slice()).is_none(), "byte {place} is {value}");
        }
    }

    /// The numbers in the bytes are the places in two lists: they have to be those that the types have.
    #[test]
    fn every_phase_and_hop_type_survives() {
        use crate::path::flow::Phase;
        use crate::snapshot::NextHopType;
        let mut bytes = vec![V4];
        bytes.resize(1 + 2 * 15 + 4 + 4 * 8 + 4 * 4 + 4 + 4, 0);
        let plain = SavedFlow::from_bytes(&mut bytes.as_slice()).expect("a flow");
        let round = |flow: SavedFlow| {
            let mut bytes = Vec::new();
            flow.to_bytes(&mut bytes);
            SavedFlow::from_bytes(&mut bytes.as_slice()).expect("a flow").state
        };
        for phase in Phase::ALL {
            let mut state = plain.state;
            state.phase = phase;
            assert_eq!(round(SavedFlow { state, ..plain }).phase, phase);
        }
        for next_hop_type in [
            NextHopType::VnetLocal,
            NextHopType::VNetPeering,
            NextHopType::VirtualNetworkGateway,
            NextHopType::VirtualNetworkServiceEndpoint,
            NextHopType::Internet,
            NextHopType::VirtualAppliance,
            NextHopType::Platform,
            NextHopType::None,
        ] {
            let mut state = plain.state;
            state.next_hop_type = next_hop_type;
            assert_eq!(round(SavedFlow { state, ..plain }).next_hop_type, next_hop_type);
        }
    }
}
