//! What a flow remembers, and how far TCP is followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::save::Fields;
use crate::packet::parse::{Parsed, TransportKind};
use crate::packet::tcp::sequence_span;
use crate::snapshot::{Lifetimes, NextHopType, PoolId, PortId, Snapshot};
use crate::table::flow::Direction;
use crate::table::prefix::Address;

/// How far a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// ICMP queries.
    Query,
    /// UDP and every protocol that is not followed.
    Datagram,
    /// TCP: not yet seen from both sides and acknowledged.
    Opening,
    /// TCP: both sides have acknowledged.
    Established,
    /// TCP: one side has finished.
    Closing,
    /// TCP: both sides have finished.
    Closed,
    /// TCP, and its path changed: what still comes is answered with a reset.
    Reset,
    /// Its path changed or is gone: the sender of its first packet may begin anew, what still comes from the other side
    /// goes nowhere.
    Moved,
    /// TCP: one side has reset.
    Aborted,
    /// It fell idle, and its translated port rests: only the inside host that had it may go on with it.
    Resting,
}

/// Bytes that may be on their way unacknowledged: more than twice what Linux lets a receiver offer by default (6 MiB).
const LARGEST_WINDOW: i32 = 16 << 20;

/// How long what is left of a moved flow answers, in milliseconds: longer than packets of the old path are on their
/// way, and than the first retransmissions take.
const TRACE_LIFETIME: u64 = 60_000;

impl Phase {
    /// Every phase in the order of its number.
    pub const ALL: [Self; 10] = [
        Self::Query,
        Self::Datagram,
        Self::Opening,
        Self::Established,
        Self::Closing,
        Self::Closed,
        Self::Reset,
        Self::Moved,
        Self::Aborted,
        Self::Resting,
    ];

    /// The name that people see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Datagram => "datagram",
            Self::Opening => "opening",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Moved => "moved",
            Self::Aborted => "aborted",
            Self::Resting => "resting",
        }
    }
}

/// What is known about one direction of a TCP connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Half {
    /// The sequence number behind everything that was sent in this direction.
    next_sequence: u32,
    /// The newest acknowledgment number that was sent in this direction.
    acknowledged: u32,
}

/// Bits of [`FlowState::seen`], each shifted left by the direction's index.
const SEQUENCE_SEEN: u8 = 0b0000_0001;
const ACKNOWLEDGMENT_SEEN: u8 = 0b0000_0100;
const FIN_SEEN: u8 = 0b0001_0000;
const RST_SEEN: u8 = 0b0100_0000;

/// Milliseconds of a unit of [`FlowState::last_seen`], as a power of two: 64 ms, as the timers' ticks. 32 bits of them
/// are 8.7 years.
const SEEN_SHIFT: u32 = 6;

/// [`FlowState::generation`] of a flow that this process has not decided yet: no snapshot has it.
pub(super) const NEVER: u32 = 0;

/// [`FlowState::pool`] of a flow that no pool translates.
const NO_POOL: u16 = u16::MAX;

/// What installing a flow decided, for its state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Installed {
    /// Low half of the generation.
    pub(super) generation: u32,
    /// Type of the next hop.
    pub(super) next_hop_type: NextHopType,
    /// The pool that translates.
    pub(super) pool: Option<PoolId>,
    /// The port that the flow counts for.
    pub(super) owner: PortId,
    /// Addresses or ports differ between the two sides.
    pub(super) translated: bool,
    /// The source has an endpoint-independent mapping.
    pub(super) maps_source: bool,
    /// The destination has one.
    pub(super) maps_destination: bool,
    /// The first packet came from the internet.
    pub(super) from_internet: bool,
    /// The client has to name the resource first.
    pub(super) undecided: bool,
    /// It may be the receiver's own connection, and goes the way that the receiver's own would.
    pub(super) midway: bool,
}

/// Types of next hops by the numbers that saved flows give them: new ones come at the end.
const NEXT_HOP_TYPES: [NextHopType; 8] = [
    NextHopType::None,
    NextHopType::VnetLocal,
    NextHopType::VNetPeering,
    NextHopType::VirtualNetworkGateway,
    NextHopType::VirtualNetworkServiceEndpoint,
    NextHopType::Internet,
    NextHopType::VirtualAppliance,
    NextHopType::Platform,
];

/// State of one flow; its two keys are in the flow table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowState {
    /// Packets forwarded in each direction.
    pub packets: [u64; 2],
    /// Bytes forwarded in each direction, as the packets came.
    pub bytes: [u64; 2],
    halves: [Half; 2],
    /// When the last packet passed, rounded up, in units of 2^[`SEEN_SHIFT`] milliseconds.
    last_seen: u32,
    /// Low half of the generation that the flow was last decided under.
    pub generation: u32,
    pool: u16,
    /// The port that the flow counts for in the limit of NICs.
    pub owner: PortId,
    /// Type of the next hop that was chosen.
    pub next_hop_type: NextHopType,
    /// How far the conversation is.
    pub phase: Phase,
    seen: u8,
    flags: u8,
}

/// Bits of [`FlowState::flags`].
const TRANSLATED: u8 = 1;
const MAPS_SOURCE: u8 = 2;
const MAPS_DESTINATION: u8 = 4;
const FROM_INTERNET: u8 = 8;
const UNDECIDED: u8 = 16;
const INSPECTED: u8 = 32;
const MIDWAY: u8 = 64;
const BOUNDED: u8 = 128;

/// Those that mean something to another process: what a client named is saved beside the state.
const SAVED_FLAGS: u8 = TRANSLATED | MAPS_SOURCE | MAPS_DESTINATION | FROM_INTERNET | MIDWAY;

/// Bytes of a state that is saved.
pub(super) const STATE_BYTES: usize = 4 * 8 + 4 * 4 + 4;

/// 64 bytes beside keys and index keep an IPv4 flow within 128 bytes.
const _: () = assert!(size_of::<FlowState>() == 64);

/// 0 for the direction of the flow's first packet, 1 for the other.
pub const fn index(direction: Direction) -> usize {
    match direction {
        Direction::Forward => 0,
        Direction::Reverse => 1,
    }
}

impl FlowState {
    /// State of a flow before its first packet.
    pub(super) fn new(parsed: &Parsed, installed: &Installed, now: u64) -> Self {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let mut state = Self {
            pool: installed.pool.map_or(NO_POOL, |pool| pool.0),
            owner: installed.owner,
            flags: flag(installed.translated, TRANSLATED)
                | flag(installed.maps_source, MAPS_SOURCE)
                | flag(installed.maps_destination, MAPS_DESTINATION)
                | flag(installed.from_internet, FROM_INTERNET)
                | flag(installed.undecided, UNDECIDED | INSPECTED)
                | flag(installed.midway, MIDWAY),
            ..Self::at(Phase::Datagram, installed.next_hop_type, u64::from(installed.generation))
        };
        state.begin(parsed, now);
        state
    }

    /// State of a conversation that is this far, that no pool translates and no packet of has been counted.
    pub fn at(phase: Phase, next_hop_type: NextHopType, generation: u64) -> Self {
        Self {
            packets: [0; 2],
            bytes: [0; 2],
            halves: [Half::default(); 2],
            last_seen: 0,
            generation: generation as u32,
            pool: NO_POOL,
            owner: PortId(0),
            next_hop_type,
            phase,
            seen: 0,
            flags: 0,
        }
    }

    /// The phase of a conversation that a packet begins.
    pub(super) fn first_phase(parsed: &Parsed) -> Phase {
        match parsed.kind {
            TransportKind::Tcp { .. } => Phase::Opening,
            TransportKind::IcmpEcho { .. } => Phase::Query,
            _ => Phase::Datagram,
        }
    }

    /// Begins the conversation, anew where there was one.
    pub(super) fn begin(&mut self, parsed: &Parsed, now: u64) {
        self.phase = Self::first_phase(parsed);
        self.seen = 0;
        self.halves = [Half::default(); 2];
        self.touch(now);
    }

    /// A packet passes, or the phase is changed from outside.
    #[inline]
    pub(crate) fn touch(&mut self, now: u64) {
        self.last_seen = (now.saturating_add((1 << SEEN_SHIFT) - 1) >> SEEN_SHIFT) as u32;
    }

    /// When the last packet passed, in milliseconds, rounded up to 64.
    pub fn last_seen(&self) -> u64 {
        u64::from(self.last_seen) << SEEN_SHIFT
    }

    /// The pool that translates the flow.
    pub fn pool(&self) -> Option<PoolId> {
        (self.pool != NO_POOL).then_some(PoolId(self.pool))
    }

    /// The flow is another pool's, or the pool has another number.
    pub(super) fn set_pool(&mut self, pool: Option<PoolId>) {
        self.pool = pool.map_or(NO_POOL, |pool| pool.0);
    }

    /// What a restored flow is of now.
    pub(super) fn set_place(&mut self, pool: Option<PoolId>, owner: PortId, last_seen: u64) {
        self.set_pool(pool);
        self.owner = owner;
        self.touch(last_seen);
    }

    /// Whether addresses or ports differ between the two sides.
    #[inline]
    pub fn translated(&self) -> bool {
        self.flags & TRANSLATED != 0
    }

    /// Whether the source has an endpoint-independent mapping.
    pub fn maps_source(&self) -> bool {
        self.flags & MAPS_SOURCE != 0
    }

    /// Whether the destination has one.
    pub fn maps_destination(&self) -> bool {
        self.flags & MAPS_DESTINATION != 0
    }

    /// Whether the client has still to name the resource that it wants, or the server to acknowledge the name.
    #[inline]
    pub(super) fn is_undecided(&self) -> bool {
        self.flags & UNDECIDED != 0
    }

    /// Whether the client's packets are looked at: it has something to name, or may not say more than so much, or nothing.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.flags & (UNDECIDED | BOUNDED) != 0
    }

    /// The client's packets are looked at from now on.
    pub(super) fn watch(&mut self) {
        self.flags |= BOUNDED;
    }

    /// Whether the receiver of a reset may accept it: its sequence number is among those that were sent and, as far as is
    /// known here, not acknowledged, or just before (RFC 5961 section 3.2). More than it says [`Phase::Aborted`].
    pub(super) fn may_be_reset(&self, direction: Direction, sequence: u32) -> bool {
        let (side, other) = (index(direction), index(direction.opposite()));
        let known = self.seen & (SEQUENCE_SEEN << side) != 0 && self.seen & (ACKNOWLEDGMENT_SEEN << other) != 0;
        let (Some(sender), Some(receiver)) = (self.halves.get(side), self.halves.get(other)) else { return true };
        let from = receiver.acknowledged.wrapping_sub(1);
        !known || sequence.wrapping_sub(from) <= sender.next_sequence.wrapping_sub(from)
    }

    /// Whether bytes of the client begin before what the server has acknowledged, as far as that is known.
    #[inline]
    pub(super) fn is_repeated(&self, parsed: &Parsed) -> bool {
        let TransportKind::Tcp { sequence, .. } = parsed.kind else { return false };
        let [_, server] = self.halves;
        self.seen & (ACKNOWLEDGMENT_SEEN << 1) != 0 && after(server.acknowledged, sequence)
    }

    /// Whether something is kept about what the client named.
    pub(super) fn is_inspected(&self) -> bool {
        self.flags & INSPECTED != 0
    }

    /// Whether it is TCP of which nobody has seen who began it, and that has the way of the receiver's own connections: it
    /// is decided again as one of these, too.
    pub fn is_midway(&self) -> bool {
        self.flags & MIDWAY != 0
    }

    /// The client has to name the resource, again.
    pub(super) fn undecided(&mut self) {
        self.flags = self.flags & !BOUNDED | UNDECIDED | INSPECTED;
    }

    /// What the client wants is known, and whether it may not say more than so much.
    pub(super) fn decided(&mut self, bounded: bool) {
        self.flags &= !UNDECIDED;
        if bounded {
            self.flags |= BOUNDED;
        }
    }

    /// What the client named is known, and kept.
    pub(super) fn set_named(&mut self) {
        self.flags |= INSPECTED;
    }

    /// Nobody needs to know what the client named, and nothing is kept about it.
    pub(super) fn forget_name(&mut self) {
        self.flags &= !(UNDECIDED | INSPECTED | BOUNDED);
    }

    /// It holds no mapping any more.
    pub(super) fn forget_mappings(&mut self) {
        self.flags &= !(MAPS_SOURCE | MAPS_DESTINATION);
    }

    /// Whether packets of a direction come from the inside of a translation: from who sent the first packet, unless that
    /// came from the internet.
    pub fn is_from_inside(&self, direction: Direction) -> bool {
        (direction == Direction::Forward) != (self.flags & FROM_INTERNET != 0)
    }

    /// Whether the conversation goes on: its mapping lets others in, where filtering allows it.
    pub fn is_live(&self) -> bool {
        match self.phase {
            Phase::Query | Phase::Datagram | Phase::Opening | Phase::Established | Phase::Closing => true,
            Phase::Closed | Phase::Aborted | Phase::Resting | Phase::Reset | Phase::Moved => false,
        }
    }

    /// How long any flow lives without a packet at most, in milliseconds.
    pub fn longest_lifetime(snapshot: &Snapshot) -> u64 {
        let pools = snapshot.pools.iter().map(|pool| pool.lifetimes.longest());
        pools.fold(snapshot.lifetimes.longest().max(TRACE_LIFETIME), u64::max)
    }

    /// How long the flow lives without a packet in its phase, in milliseconds.
    pub fn lifetime(&self, snapshot: &Snapshot) -> u64 {
        let lifetimes = self.lifetimes(snapshot);
        match self.phase {
            Phase::Query => lifetimes.query,
            Phase::Datagram => lifetimes.datagram,
            Phase::Opening => lifetimes.opening,
            Phase::Established => lifetimes.established,
            Phase::Closing => lifetimes.closing,
            Phase::Closed => lifetimes.closed,
            Phase::Aborted => lifetimes.aborted,
            Phase::Reset | Phase::Moved => TRACE_LIFETIME,
            Phase::Resting if self.seen != 0 && !self.both(ACKNOWLEDGMENT_SEEN) => lifetimes.rest_half_open,
            Phase::Resting => lifetimes.rest,
        }
    }

    fn lifetimes<'s>(&self, snapshot: &'s Snapshot) -> &'s Lifetimes {
        self.pool().and_then(|pool| snapshot.pool(pool)).map_or(&snapshot.lifetimes, |pool| &pool.lifetimes)
    }

    /// Whether its port rests when the flow falls idle. After FIN and RST the phase's lifetime is the rest.
    pub(super) fn rests(&self) -> bool {
        self.pool != NO_POOL && self.is_live()
    }

    /// Lets its port rest.
    pub(super) fn rest(&mut self, now: u64) {
        self.phase = Phase::Resting;
        self.touch(now);
    }

    /// Whether the flow may be ended for another one where there is no room: nothing of value is lost. What nobody has
    /// answered yet is transient, and what has ended.
    pub fn is_transient(&self) -> bool {
        match self.phase {
            Phase::Established | Phase::Closing => false,
            Phase::Query | Phase::Datagram => self.packets.contains(&0),
            Phase::Opening | Phase::Closed | Phase::Aborted | Phase::Resting | Phase::Reset | Phase::Moved => true,
        }
    }

    fn both(&self, bit: u8) -> bool {
        self.seen & (bit << 1 | bit) == (bit << 1 | bit)
    }

    /// Appends everything but the generation, the time of the last packet, pool and owner, little-endian and field by
    /// field, to what is saved: those mean nothing to another process.
    #[inline(always)]
    pub(super) fn put(&self, out: &mut Fields) {
        for number in self.packets.into_iter().chain(self.bytes) {
            out.put(number.to_le_bytes());
        }
        for half in self.halves {
            out.put(half.next_sequence.to_le_bytes());
            out.put(half.acknowledged.to_le_bytes());
        }
        let position = NEXT_HOP_TYPES.iter().position(|known| *known == self.next_hop_type).unwrap_or_default();
        out.put([position as u8, self.phase as u8, self.seen, self.flags & SAVED_FLAGS]);
    }

    /// Takes what [`FlowState::put`] wrote from the front of what was saved; none where it was not that. The flow
    /// is of generation 0, which no snapshot has, and was last seen at time 0, without pool and owner.
    pub(super) fn from_bytes(from: &mut &[u8]) -> Option<Self> {
        let mut u64s = || take(from).map(u64::from_le_bytes);
        let packets = [u64s()?, u64s()?];
        let bytes = [u64s()?, u64s()?];
        let mut half = || {
            let next_sequence = take(from).map(u32::from_le_bytes)?;
            Some(Half { next_sequence, acknowledged: take(from).map(u32::from_le_bytes)? })
        };
        let halves = [half()?, half()?];
        let [next_hop_type, phase, seen, flags] = take(from)?;
        Some(Self {
            packets,
            bytes,
            halves,
            seen,
            flags: Some(flags).filter(|flags| flags & !SAVED_FLAGS == 0)?,
            ..Self::at(*Phase::ALL.get(usize::from(phase))?, *NEXT_HOP_TYPES.get(usize::from(next_hop_type))?, 0)
        })
    }

    /// Whether a packet is not the first SYN again: the ports are used for another connection. While one is open its end
    /// answers such a SYN with an acknowledgment, and the sender resets it if it is gone (RFC 5961 section 4).
    #[inline]
    pub(super) fn begins_anew(&self, direction: Direction, parsed: &Parsed) -> bool {
        let TransportKind::Tcp { flags, sequence, .. } = parsed.kind else { return false };
        let side = index(direction);
        flags & (Parsed::SYN | Parsed::ACK | Parsed::RST) == Parsed::SYN
            && self.seen & (SEQUENCE_SEEN << side) != 0
            && !matches!(self.phase, Phase::Established | Phase::Closing)
            && self
                .halves
                .get(side)
                .is_some_and(|half| half.next_sequence != sequence.wrapping_add(sequence_span(parsed)))
    }

    /// Follows a packet; true where the phase changed. A reset that its receiver would not accept, and a packet from the
    /// outside after the end, do not keep the flow alive (RFC 7857 section 2).
    pub fn follow(&mut self, direction: Direction, parsed: &Parsed, now: u64) -> bool {
        let TransportKind::Tcp { flags, sequence, acknowledgment, .. } = parsed.kind else {
            self.touch(now);
            return false;
        };
        let before = self.phase;
        let side = index(direction);
        let end = sequence.wrapping_add(sequence_span(parsed));
        if flags & Parsed::RST != 0 {
            // Anyone can send a reset; only one that the receiver accepts ends the connection.
            if before != Phase::Aborted && self.accepts_reset(direction, sequence, flags, acknowledgment) {
                self.phase = Phase::Aborted;
                self.seen |= RST_SEEN << side;
                self.touch(now);
            }
            return self.phase != before;
        }
        if self.begins_anew(direction, parsed) {
            self.phase = Phase::Opening;
            self.seen = 0;
            if direction == Direction::Forward {
                self.flags &= !MIDWAY;
            }
        }
        if self.phase == Phase::Aborted {
            // Who goes on sending did not send the reset: it was forged (RFC 7857 section 2.2). What the other side sends
            // was on its way.
            if self.seen & (RST_SEEN << side) == 0 {
                return self.phase != before;
            }
            self.phase = if self.both(ACKNOWLEDGMENT_SEEN) { Phase::Established } else { Phase::Opening };
            self.seen &= !(RST_SEEN | RST_SEEN << 1);
        }
        // What the outside sends after the end keeps no port from resting.
        if self.phase != Phase::Closed || self.is_from_inside(direction) {
            self.touch(now);
        }
        let further = self.is_further(direction, end);
        if let Some(half) = self.halves.get_mut(side) {
            if further {
                half.next_sequence = end;
            }
            if flags & Parsed::ACK != 0
                && (self.seen & (ACKNOWLEDGMENT_SEEN << side) == 0 || after(acknowledgment, half.acknowledged))
            {
                half.acknowledged = acknowledgment;
            }
        }
        self.seen |= SEQUENCE_SEEN << side;
        if flags & Parsed::ACK != 0 {
            self.seen |= ACKNOWLEDGMENT_SEEN << side;
        }
        if flags & Parsed::FIN != 0 {
            self.seen |= FIN_SEEN << side;
        }
        self.phase = match self.phase {
            Phase::Opening | Phase::Established | Phase::Closing if self.both(FIN_SEEN) => Phase::Closed,
            Phase::Opening | Phase::Established if self.seen & (FIN_SEEN | FIN_SEEN << 1) != 0 => Phase::Closing,
            Phase::Opening if self.both(ACKNOWLEDGMENT_SEEN) => Phase::Established,
            other => other,
        };
        self.phase != before
    }

    /// Whether a packet that ends at this number goes further than what was sent in its direction before. One that is
    /// further ahead of what the other side has acknowledged than any window would let it be is forged, and must not move
    /// what resets are held against. The first packet has nothing to be held against: where it was that far off, those
    /// that go on from there count as it does, and one that is not takes its place.
    fn is_further(&self, direction: Direction, end: u32) -> bool {
        let (side, other) = (index(direction), index(direction.opposite()));
        let half = |side: usize| self.halves.get(side).copied().unwrap_or_default();
        let (known, acknowledged) = (half(side).next_sequence, half(other).acknowledged);
        if self.seen & (SEQUENCE_SEEN << side) == 0 {
            return true;
        }
        if self.seen & (ACKNOWLEDGMENT_SEEN << other) == 0 {
            return after(end, known);
        }
        let ahead = |number: u32| number.wrapping_sub(acknowledged) as i32;
        let is_beyond = |number: u32| ahead(number) >= LARGEST_WINDOW;
        if is_beyond(end) == is_beyond(known) { ahead(end) > ahead(known) } else { is_beyond(known) }
    }

    /// Whether the receiver of a reset accepts it: its sequence number is what the receiver acknowledged last, or follows
    /// what was sent to it last (RFC 5961 section 3.2); where nothing was sent to it yet, it acknowledges the SYN
    /// (RFC 9293 section 3.10.7.3).
    fn accepts_reset(&self, direction: Direction, sequence: u32, flags: u8, acknowledgment: u32) -> bool {
        let receiver = self.reset_numbers(direction.opposite());
        match (receiver.acknowledged, receiver.sent) {
            (None, None) => flags & Parsed::ACK != 0 && receiver.unanswered == Some(acknowledgment),
            (acknowledged, sent) => acknowledged == Some(sequence) || sent == Some(sequence),
        }
    }

    /// Whether anything came back yet.
    pub fn answered(&self) -> bool {
        self.seen & (SEQUENCE_SEEN << 1) != 0
    }

    /// Counts a forwarded packet.
    pub fn count(&mut self, direction: Direction, bytes: usize) {
        let side = index(direction);
        if let (Some(packets), Some(total)) = (self.packets.get_mut(side), self.bytes.get_mut(side)) {
            *packets = packets.wrapping_add(1);
            *total = total.wrapping_add(bytes as u64);
        }
    }

    /// The sequence numbers that the sender of a direction may expect next, for resetting it: what it acknowledged
    /// last, and what was sent to it last where that is more (RFC 5961 section 3.2 wants the exact number; an
    /// acknowledgment may still be outstanding). The last element is what to acknowledge where nothing was sent to it
    /// yet: its SYN.
    pub fn reset_numbers(&self, direction: Direction) -> ResetNumbers {
        let (side, other) = (index(direction), index(direction.opposite()));
        let half = |side: usize| self.halves.get(side).copied().unwrap_or_default();
        let acknowledged = (self.seen & (ACKNOWLEDGMENT_SEEN << side) != 0).then_some(half(side).acknowledged);
        let sent = (self.seen & (SEQUENCE_SEEN << other) != 0).then_some(half(other).next_sequence);
        let unanswered = (self.seen & (SEQUENCE_SEEN << side) != 0).then_some(half(side).next_sequence);
        ResetNumbers { acknowledged, sent, unanswered }
    }
}

/// Takes bytes from the front.
pub(super) fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*first)
}

/// What a reset to one end may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetNumbers {
    /// The newest acknowledgment number of that end: a sequence number that it expects.
    pub acknowledged: Option<u32>,
    /// The number behind everything that was sent to it.
    pub sent: Option<u32>,
    /// The number behind everything that it sent: acknowledged by the reset where it has acknowledged nothing itself.
    pub unanswered: Option<u32>,
}

/// Whether sequence number `a` is later than `b` (RFC 9293 section 3.4).
pub fn after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 0x8000_0000
}

/// An address family of the flow tables.
pub trait Family: Address + std::hash::Hash {
    /// The address as users know it.
    fn to_ip(self) -> IpAddr;
    /// The integer of an address of this family.
    fn from_ip(address: IpAddr) -> Option<Self>;
}

impl Family for u32 {
    fn to_ip(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self))
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Some(v4.to_bits()),
            IpAddr::V6(_) => None,
        }
    }
}

/// An IPv4 address is kept as its IPv4-mapped form (RFC 4291 section 2.5.5.2), for flows between the families. No packet
/// carries such an address.
impl Family for u128 {
    fn to_ip(self) -> IpAddr {
        Ipv6Addr::from_bits(self).to_canonical()
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        Some(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        })
    }
}
