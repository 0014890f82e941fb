//! Packets of one flow that follow each other, merged into the super-packet that they might have come as: one write to a
//! device instead of many. The inverse of [`segment`](super::segment): cut again, the same packets come out, byte for byte
//! but for IPv4 identifications that mean nothing.
//!
//! What is merged is what a receiver cannot tell apart afterwards, by the rules of the kernel's own generic receive
//! offload, where they differ by the stricter one:
//!
//! - whole TCP or UDP without IPv4 options or IPv6 extension headers, whose own checksum (not that of a packet inside a
//!   tunnel) is left to the device or was verified: a wrong one would become a right one;
//! - the same addresses, ports, hop limit, traffic class, flow label and DF bit; without DF the IPv4 identifications count
//!   up, as they will when the packet is cut (RFC 6864 section 4: with DF they mean nothing);
//! - TCP: nothing but ACK and PSH, payload that follows on the one before, the same acknowledgment, window and options. PSH
//!   ends the super-packet, since only a last segment has it;
//! - UDP: a length that is the packet's, and a checksum;
//! - payloads of one size, the last one at most that.

use super::checksum::{self, fold, write_ipv4};
use super::field::{bytes_at, put_u16, u16_at, u32_at};
use super::frame::{Checksum, Frame, HEADROOM, SegmentKind, Segmentation};
use super::parse::{Parsed, protocol};

/// Bytes of a super-packet at most: an IPv4 total length, and an IPv6 payload with its header is not made longer.
const MOST_BYTES: usize = 65_535;

/// Datagrams of a super-packet at most: what kernels before 6.9 take of one (`UDP_MAX_SEGMENTS`).
const MOST_DATAGRAMS: usize = 64;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// Where checksums are in their headers.
const UDP_CHECKSUM: u16 = 6;
const TCP_CHECKSUM: u16 = 16;

/// More fragments and the fragment offset of IPv4.
const FRAGMENT: u16 = 0x3fff;
/// Don't fragment.
const DONT_FRAGMENT: u16 = 0x4000;

/// A packet that may be merged with others of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What the super-packet would be.
    pub kind: SegmentKind,
    /// Where the transport header is.
    transport: usize,
    /// Where the payload is.
    payload: usize,
    /// Nothing may follow it in a super-packet.
    last: bool,
}

impl Piece {
    /// Looks at a packet; none where it is to be sent alone.
    #[inline]
    pub fn of(frame: &Frame) -> Option<Self> {
        // Most that is not merged ends here.
        if frame.offload.segmentation.is_some() || frame.offload.checksum == Checksum::Complete {
            return None;
        }
        // A packet that was translated between the families or comes in a tunnel has another length than was counted.
        if !frame.starts_at(HEADROOM) {
            return None;
        }
        let packet = frame.bytes();
        let (transport, number, v4) = match packet.first()? {
            0x45 => {
                let whole = u16_at(packet, 6)? & FRAGMENT == 0 && usize::from(u16_at(packet, 2)?) == packet.len();
                whole.then_some((IPV4_HEADER, *packet.get(9)?, true))?
            }
            first if first >> 4 == 6 => {
                let whole = usize::from(u16_at(packet, 4)?) + IPV6_HEADER == packet.len();
                whole.then_some((IPV6_HEADER, *packet.get(6)?, false))?
            }
            _ => return None,
        };
        let (payload, last, kind) = match number {
            protocol::UDP => {
                let length = usize::from(u16_at(packet, transport + 4)?);
                let left = Checksum::Partial { start: transport as u16, offset: UDP_CHECKSUM };
                let summed = frame.offload.checksum == left
                    || frame.offload.checksum == Checksum::Verified && u16_at(packet, transport + 6)? != 0;
                let whole = length == packet.len() - transport && summed;
                whole.then_some((transport + UDP_HEADER, false, SegmentKind::Udp))?
            }
            protocol::TCP => {
                let [offset, flags] = bytes_at(packet, transport + 12)?;
                let left = Checksum::Partial { start: transport as u16, offset: TCP_CHECKSUM };
                let summed = frame.offload.checksum == left || frame.offload.checksum == Checksum::Verified;
                if flags & !Parsed::PSH != Parsed::ACK || !summed {
                    return None;
                }
                let kind = if v4 { SegmentKind::TcpV4 } else { SegmentKind::TcpV6 };
                (transport + usize::from(offset >> 4) * 4, flags & Parsed::PSH != 0, kind)
            }
            _ => return None,
        };
        // An empty payload, an acknowledgment for one, is sent alone; so is a header that claims more than there is.
        (payload < packet.len() && payload >= transport + UDP_HEADER).then_some(Self { kind, transport, payload, last })
    }
}

/// A super-packet that grows.
#[derive(Debug, Default)]
pub struct Merged {
    frame: Frame,
    piece: Option<Piece>,
    /// Payload bytes of its first packet.
    size: usize,
    count: usize,
}

impl Merged {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Packets in it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their bytes, each with its own headers.
    pub fn bytes(&self) -> usize {
        let headers = self.piece.map_or(0, |piece| piece.payload);
        self.frame.len() + self.count.saturating_sub(1) * headers
    }

    /// Begins with a packet, which it takes out of its frame; whatever was in it before is forgotten.
    pub fn begin(&mut self, frame: &mut Frame, piece: Piece) {
        std::mem::swap(&mut self.frame, frame);
        self.size = self.frame.len() - piece.payload;
        self.piece = Some(piece);
        self.count = 1;
    }

    /// Whether a packet is of the same flow: it must not be sent before what is in here.
    #[inline]
    pub fn is_of_flow(&self, frame: &Frame, piece: &Piece) -> bool {
        let Some(own) = self.piece.filter(|own| own.kind == piece.kind && own.transport == piece.transport) else {
            return false;
        };
        let (ours, theirs) = (self.frame.bytes(), frame.bytes());
        // Addresses and ports, which are next to each other in both families.
        let addresses = if own.transport == IPV4_HEADER { 12 } else { 8 };
        let end = own.transport + 4;
        ours.get(addresses..end) == theirs.get(addresses..end)
    }

    /// Adds a packet of the same flow behind the others; false, and nothing has changed, where it does not fit on them.
    pub fn add(&mut self, frame: &Frame, piece: &Piece) -> bool {
        self.try_add(frame, piece).is_some()
    }

    fn try_add(&mut self, frame: &Frame, piece: &Piece) -> Option<()> {
        let own = self.piece?;
        let (ours, theirs) = (self.frame.bytes(), frame.bytes());
        let before = ours.len();
        let payload = theirs.get(piece.payload..)?;
        let fits = !self.is_complete()
            && own.payload == piece.payload
            && payload.len() <= self.size
            && before + payload.len() <= MOST_BYTES
            && std::mem::discriminant(&self.frame.offload.checksum) == std::mem::discriminant(&frame.offload.checksum);
        if !fits {
            return None;
        }
        let alike = if own.transport == IPV4_HEADER {
            let flags = u16_at(ours, 6)?;
            let counted = u16_at(ours, 4)?.wrapping_add(self.count as u16);
            bytes_at::<2>(ours, 0)? == bytes_at::<2>(theirs, 0)?
                && flags == u16_at(theirs, 6)?
                && (flags & DONT_FRAGMENT != 0 || counted == u16_at(theirs, 4)?)
                && ours.get(8)? == theirs.get(8)?
        } else {
            bytes_at::<4>(ours, 0)? == bytes_at::<4>(theirs, 0)? && ours.get(7)? == theirs.get(7)?
        };
        let transport = own.transport;
        let follows = own.kind == SegmentKind::Udp || {
            let next = u32_at(ours, transport + 4)?.wrapping_add((before - own.payload) as u32);
            // The acknowledgment, the length of the header, the window; the urgent pointer; options.
            u32_at(theirs, transport + 4)? == next
                && bytes_at::<5>(ours, transport + 8)? == bytes_at::<5>(theirs, transport + 8)?
                && u16_at(ours, transport + 14)? == u16_at(theirs, transport + 14)?
                && u16_at(ours, transport + 18)? == u16_at(theirs, transport + 18)?
                && ours.get(transport + 20..own.payload)? == theirs.get(transport + 20..own.payload)?
        };
        if !alike || !follows {
            return None;
        }
        let last = piece.last || payload.len() < self.size;
        self.frame.extend(payload)?;
        if piece.last {
            let flags = self.frame.bytes_mut().get_mut(transport + 13)?;
            *flags |= Parsed::PSH;
        }
        if let Some(own) = &mut self.piece {
            own.last = last;
        }
        self.count += 1;
        Some(())
    }

    /// Whether nothing more can be added.
    pub fn is_complete(&self) -> bool {
        let datagrams = self.piece.is_some_and(|piece| piece.kind == SegmentKind::Udp) && self.count >= MOST_DATAGRAMS;
        datagrams || self.piece.is_none_or(|piece| piece.last) || self.frame.len() + self.size > MOST_BYTES
    }

    /// Ends it: the super-packet with its headers, or the one packet as it came. Empty where nothing was begun.
    pub fn finish(&mut self) -> &mut Frame {
        if let Some(piece) = self.piece.take()
            && self.count > 1
        {
            // Everything that is written was there before.
            let _written = self.write_headers(piece);
        }
        &mut self.frame
    }

    fn write_headers(&mut self, piece: Piece) -> Option<()> {
        let Piece { kind, transport, .. } = piece;
        let length = self.frame.len();
        let packet = self.frame.bytes_mut();
        let covered = u16::try_from(length - transport).ok()?;
        let (addresses, number) = if transport == IPV4_HEADER {
            put_u16(packet, 2, u16::try_from(length).ok()?)?;
            write_ipv4(packet.get_mut(..IPV4_HEADER)?)?;
            (packet.get(12..20)?, packet.get(9)?)
        } else {
            put_u16(packet, 4, u16::try_from(length - IPV6_HEADER).ok()?)?;
            (packet.get(8..40)?, packet.get(6)?)
        };
        // The sum of the pseudo header: the rest is left to the device.
        let sum = fold(u64::from(checksum::sum(addresses)) + u64::from(*number) + u64::from(covered));
        let offset = if kind == SegmentKind::Udp {
            put_u16(packet, transport + 4, covered)?;
            UDP_CHECKSUM
        } else {
            TCP_CHECKSUM
        };
        put_u16(packet, transport + usize::from(offset), sum)?;
        self.frame.offload.checksum = Checksum::Partial { start: transport as u16, offset };
        self.frame.offload.segmentation = Some(Segmentation { kind, size: self.size as u16, ecn: false });
        Some(())
    }
}
