//! What a flow remembers, and how far TCP is followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::parse::{Parsed, TransportKind};
use crate::packet::tcp::sequence_span;
use crate::snapshot::NextHopType;
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
    /// TCP: both sides have finished, or one has reset.
    Closed,
    /// TCP, and its path changed: what still comes is answered with a reset.
    Reset,
    /// Its path changed or is gone: the sender of its first packet may begin anew, what still comes from the other side
    /// goes nowhere.
    Moved,
}

impl Phase {
    /// How long a flow of this phase lives without a packet, in milliseconds: RFC 5382 REQ-5 for TCP, RFC 4787 REQ-5
    /// (at least 120 s) for UDP, RFC 5508 REQ-2 for ICMP queries, RFC 7857 section 2 after a reset.
    pub const fn lifetime(self) -> u64 {
        match self {
            Self::Query => 60_000,
            Self::Datagram | Self::Opening | Self::Closing | Self::Closed => 240_000,
            Self::Established => 7_440_000,
            Self::Reset | Self::Moved => 60_000,
        }
    }

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
        }
    }
}

/// What is known about one direction of a TCP connection.
#[derive(Debug, Clone, Copy, Default)]
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

/// State of one flow; its two keys are in the flow table.
#[derive(Debug, Clone, Copy)]
pub struct FlowState {
    /// When the last packet passed, in milliseconds.
    pub last_seen: u64,
    /// Packets forwarded in each direction.
    pub packets: [u64; 2],
    /// Bytes forwarded in each direction.
    pub bytes: [u64; 2],
    halves: [Half; 2],
    /// Low half of the generation that the flow was last decided under.
    pub generation: u32,
    /// Type of the next hop that was chosen.
    pub next_hop_type: NextHopType,
    /// How far the conversation is.
    pub phase: Phase,
    seen: u8,
    /// Whether addresses or ports differ between the two sides.
    pub translated: bool,
}

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
    pub fn new(parsed: &Parsed, generation: u64, next_hop_type: NextHopType, translated: bool, now: u64) -> Self {
        let phase = match parsed.kind {
            TransportKind::Tcp { .. } => Phase::Opening,
            TransportKind::IcmpEcho { .. } => Phase::Query,
            _ => Phase::Datagram,
        };
        Self {
            last_seen: now,
            packets: [0; 2],
            bytes: [0; 2],
            halves: [Half::default(); 2],
            generation: generation as u32,
            next_hop_type,
            phase,
            seen: 0,
            translated,
        }
    }

    /// Follows a packet; true where the phase changed.
    pub fn follow(&mut self, direction: Direction, parsed: &Parsed, now: u64) -> bool {
        self.last_seen = now;
        let TransportKind::Tcp { flags, sequence, acknowledgment, .. } = parsed.kind else {
            return false;
        };
        let before = self.phase;
        let side = index(direction);
        let end = sequence.wrapping_add(sequence_span(parsed));
        let known = self.seen & (SEQUENCE_SEEN << side) != 0;
        if flags & Parsed::RST != 0 {
            // Anyone can send a reset; only one that the receiver accepts ends the connection.
            if self.accepts_reset(direction, sequence, flags, acknowledgment) {
                self.phase = Phase::Closed;
            }
            return self.phase != before;
        }
        if flags & Parsed::SYN != 0
            && flags & Parsed::ACK == 0
            && known
            && self.halves.get(side).is_some_and(|half| half.next_sequence != end)
        {
            // Not the first SYN again: the ports are used for another connection.
            self.phase = Phase::Opening;
            self.seen = 0;
        }
        if let Some(half) = self.halves.get_mut(side) {
            if self.seen & (SEQUENCE_SEEN << side) == 0 || after(end, half.next_sequence) {
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
        let both = |bit: u8| self.seen & (bit << 1 | bit) == (bit << 1 | bit);
        self.phase = match self.phase {
            Phase::Opening | Phase::Established | Phase::Closing if both(FIN_SEEN) => Phase::Closed,
            Phase::Opening | Phase::Established if self.seen & (FIN_SEEN | FIN_SEEN << 1) != 0 => Phase::Closing,
            Phase::Opening if both(ACKNOWLEDGMENT_SEEN) => Phase::Established,
            other => other,
        };
        self.phase != before
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

impl Family for u128 {
    fn to_ip(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(self))
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(v6.to_bits()),
        }
    }
}
