//! Stateless translation between IPv4 and IPv6 (RFC 7915), in place; which addresses and ports a packet gets is the
//! caller's to know. Super-packets stay whole, and checksums stay in the state they are in, kept by the change alone.
//!
//! What has a form in the other family: TCP, UDP, UDP-Lite, DCCP, SCTP and ICMP echo; of fragments those of TCP and UDP;
//! and, by [`cross_error`], ICMP errors. Hop limits stay: the caller has decremented them. Nothing is fragmented here: an
//! IPv4 packet that may be, and is too large for IPv6 after it has grown by 20 bytes, goes through
//! [`super::fragment::fragment_v4`] first (RFC 7915 section 4.1); a fragment grows by 28.

use std::net::IpAddr;

use super::checksum::{self, Delta};
pub use super::cross_error::cross_error;
use super::field::{bytes_at, put, put_u16, u16_at};
use super::frame::{Checksum, Frame, SegmentKind};
use super::parse::{Fragment, Parsed, TransportKind, parse, protocol};
use super::rewrite::{Changed, Translation, is_partial, set_transport};
use super::segment::wire_size;

/// The IPv4 header that is written.
pub(super) const HEADER_V4: usize = 20;

/// The IPv6 header.
pub(super) const HEADER_V6: usize = 40;

/// The IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;

/// The largest IPv4 packet that is sent with leave to fragment it: 1280, which every IPv6 way carries, less 20 (RFC 7915
/// section 5.1).
const MAX_FRAGMENTABLE: usize = 1260;

/// Next header value of the IPv6 fragment header.
const FRAGMENT: u8 = 44;

/// Makes a packet one of the other family, with the addresses of that family and the ports that `to` gives it. IPv4
/// options and IPv6 extension headers are dropped, but a fragment stays one. `identification` is for an IPv4 packet that
/// may be fragmented and was no fragment before. UDP without a checksum, which IPv6 does not allow, gets one; a
/// super-packet a partial one.
///
/// Gives the new packet, or `None` where it has no form in the other family, or where `to` is not of that family; the
/// bytes are then undefined.
pub fn cross(frame: &mut Frame, parsed: &Parsed, to: &Translation, identification: u16) -> Option<Parsed> {
    if parsed.network != 0 || !is_translatable(parsed) || frame.len() < parsed.total as usize {
        return None;
    }
    if parsed.fragment != Fragment::None && frame.offload.segmentation.is_some() {
        return None;
    }
    let addresses = Pair::of(parsed, (to.source, to.destination))?;
    frame.set_len(parsed.total as usize);
    let partial = is_partial(frame, parsed);
    let unsummed = is_unsummed(frame.bytes(), parsed) && !partial;
    if unsummed && parsed.fragment != Fragment::None {
        return None;
    }
    let headers = usize::from(parsed.transport);
    let payload = frame.len().checked_sub(headers)?;
    let largest = wire_size(frame, parsed).saturating_sub(headers);
    let header = Header::build(frame.bytes(), parsed, &addresses, payload, largest, identification)?;
    cross_transport(frame.bytes_mut(), parsed, &addresses, to, partial)?;
    frame.pull_front(headers);
    frame.push_front(header.as_bytes().len())?.copy_from_slice(header.as_bytes());
    move_offload(frame, parsed, header.as_bytes().len())?;
    let parsed = parse(frame.bytes()).ok()?;
    if unsummed {
        sum_udp(frame, &parsed)?;
    }
    Some(parsed)
}

/// Whether a packet has a form in the other family.
pub fn is_translatable(parsed: &Parsed) -> bool {
    if parsed.fragment != Fragment::None {
        return matches!(parsed.protocol, protocol::TCP | protocol::UDP);
    }
    match parsed.kind {
        TransportKind::Tcp { .. } | TransportKind::Udp | TransportKind::IcmpEcho { .. } => true,
        TransportKind::Other => matches!(parsed.protocol, protocol::UDP_LITE | protocol::DCCP | protocol::SCTP),
        TransportKind::IcmpError | TransportKind::IcmpOther | TransportKind::Fragment => false,
    }
}

/// Whether it is UDP over IPv4 without a checksum; of a later fragment that is not known.
fn is_unsummed(bytes: &[u8], parsed: &Parsed) -> bool {
    parsed.is_v4()
        && parsed.kind == TransportKind::Udp
        && u16_at(bytes, usize::from(parsed.transport) + 6).unwrap_or_default() == 0
}

/// The addresses that a packet gets, as they stand in the header: source and destination, 8 or 32 bytes.
pub(super) struct Pair {
    bytes: [u8; 32],
    length: usize,
}

impl Pair {
    /// `None` where the addresses are not of the family that the packet has not.
    pub(super) fn of(parsed: &Parsed, to: (IpAddr, IpAddr)) -> Option<Self> {
        let mut bytes = [0; 32];
        let length = match to {
            (IpAddr::V4(source), IpAddr::V4(destination)) if !parsed.is_v4() => {
                put(&mut bytes, 0, source.octets())?;
                put(&mut bytes, 4, destination.octets())?;
                8
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) if parsed.is_v4() => {
                put(&mut bytes, 0, source.octets())?;
                put(&mut bytes, 16, destination.octets())?;
                32
            }
            _ => return None,
        };
        Some(Self { bytes, length })
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A header of the other family, with its fragment header.
pub(super) struct Header {
    bytes: [u8; HEADER_V6 + FRAGMENT_HEADER],
    length: usize,
}

impl Header {
    /// Builds the header that takes the place of a packet's, from its network header to its transport header. `payload`
    /// is what the packet has behind that, `largest` what the largest of its segments has.
    pub(super) fn build(
        bytes: &[u8],
        parsed: &Parsed,
        addresses: &Pair,
        payload: usize,
        largest: usize,
        identification: u16,
    ) -> Option<Self> {
        let old = bytes.get(usize::from(parsed.network)..usize::from(parsed.transport))?;
        let mut header = Self { bytes: [0; HEADER_V6 + FRAGMENT_HEADER], length: 0 };
        if parsed.is_v4() {
            header.v6(old, parsed, payload)?
        } else {
            header.v4(old, parsed, payload, largest, identification)?
        }
        let at = if parsed.is_v4() { 8 } else { 12 };
        header.bytes.get_mut(at..at + addresses.length)?.copy_from_slice(addresses.as_bytes());
        if !parsed.is_v4() {
            checksum::write_ipv4(header.bytes.get_mut(..HEADER_V4)?)?;
        }
        Some(header)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// RFC 7915 section 4.1, without addresses.
    fn v6(&mut self, old: &[u8], parsed: &Parsed, payload: usize) -> Option<()> {
        let protocol = if parsed.protocol == protocol::ICMP { protocol::ICMPV6 } else { parsed.protocol };
        let [class] = bytes_at::<1>(old, 1)?;
        let [hop_limit] = bytes_at::<1>(old, 8)?;
        let whole = parsed.fragment == Fragment::None;
        self.length = if whole { HEADER_V6 } else { HEADER_V6 + FRAGMENT_HEADER };
        put(&mut self.bytes, 0, [0x60 | class >> 4, class << 4, 0, 0])?;
        put_u16(&mut self.bytes, 4, u16::try_from(payload + self.length - HEADER_V6).ok()?)?;
        put(&mut self.bytes, 6, [if whole { protocol } else { FRAGMENT }, hop_limit])?;
        if !whole {
            put(&mut self.bytes, HEADER_V6, [protocol, 0])?;
            put_u16(&mut self.bytes, HEADER_V6 + 2, parsed.fragment_offset | u16::from(parsed.more_fragments))?;
            put(&mut self.bytes, HEADER_V6 + 4, parsed.identification.to_be_bytes())?;
        }
        Some(())
    }

    /// RFC 7915 sections 5.1 and 5.1.1, without addresses and checksum.
    fn v4(&mut self, old: &[u8], parsed: &Parsed, payload: usize, largest: usize, identification: u16) -> Option<()> {
        const DONT: u16 = 0x4000;
        const MORE: u16 = 0x2000;
        let protocol = if parsed.protocol == protocol::ICMPV6 { protocol::ICMP } else { parsed.protocol };
        let [first, second] = bytes_at::<2>(old, 0)?;
        let [hop_limit] = bytes_at::<1>(old, 7)?;
        // A fragment header, be it that of a whole packet, means that an IPv4 hop may fragment.
        let had_header = parsed.fragment != Fragment::None || parsed.identification != 0;
        if parsed.fragment != Fragment::None && !ends_with_fragment_header(old)? {
            return None;
        }
        let (identification, flags) = if had_header {
            (parsed.identification as u16, if parsed.more_fragments { MORE } else { 0 })
        } else if HEADER_V4 + largest > MAX_FRAGMENTABLE {
            (0, DONT)
        } else {
            (identification, 0)
        };
        self.length = HEADER_V4;
        put(&mut self.bytes, 0, [0x45, first << 4 | second >> 4])?;
        put_u16(&mut self.bytes, 2, u16::try_from(HEADER_V4 + payload).ok()?)?;
        put_u16(&mut self.bytes, 4, identification)?;
        put_u16(&mut self.bytes, 6, flags | parsed.fragment_offset >> 3)?;
        put(&mut self.bytes, 8, [hop_limit, protocol])
    }
}

/// Whether the fragment header is the last of a chain of IPv6 headers. Headers behind it count to the offsets of the
/// fragments and cannot be dropped.
fn ends_with_fragment_header(headers: &[u8]) -> Option<bool> {
    let mut next = *headers.get(6)?;
    let mut at = HEADER_V6;
    while next != FRAGMENT {
        let [following, length] = bytes_at::<2>(headers, at)?;
        next = following;
        at += 8 + usize::from(length) * 8;
    }
    Some(at + FRAGMENT_HEADER == headers.len())
}

/// Writes ports and the checksum of the transport header, where it still stands behind the old network header.
pub(super) fn cross_transport(
    bytes: &mut [u8],
    parsed: &Parsed,
    addresses: &Pair,
    to: &Translation,
    partial: bool,
) -> Option<()> {
    let network = usize::from(parsed.network);
    let at = if parsed.is_v4() { network + 12..network + 20 } else { network + 8..network + 40 };
    let before = checksum::sum(bytes.get(at)?);
    let after = checksum::sum(addresses.as_bytes());
    if let TransportKind::IcmpEcho { reply } = parsed.kind {
        let identifier = if reply { to.destination_port } else { to.source_port };
        return cross_echo(bytes, parsed, identifier, if parsed.is_v4() { after } else { before }, partial);
    }
    let mut changed = Changed::default();
    changed.addresses.change(before, after);
    // A quote may end before the checksum; then there is nothing to keep right.
    let _ = set_transport(bytes, parsed, Some((to.source_port, to.destination_port)), partial, &mut changed);
    Some(())
}

/// An echo changes its type, its identifier and, since only ICMPv6 has a pseudo header, what its checksum covers;
/// `addresses` is the sum of the IPv6 addresses.
fn cross_echo(bytes: &mut [u8], parsed: &Parsed, identifier: u16, addresses: u16, partial: bool) -> Option<()> {
    let length = parsed.total.checked_sub(u32::from(parsed.transport - parsed.network))?;
    let pseudo = checksum::fold(u64::from(addresses) + u64::from(length) + u64::from(protocol::ICMPV6));
    let header = bytes.get_mut(usize::from(parsed.transport)..)?.first_chunk_mut::<8>()?;
    let message = match (header[0], parsed.is_v4()) {
        (8, true) => 128,
        (0, true) => 129,
        (128, false) => 8,
        (129, false) => 0,
        _ => return None,
    };
    let mut delta = Delta::default();
    if parsed.is_v4() {
        delta.change(u16::MAX, pseudo)
    } else {
        delta.change(pseudo, 0)
    }
    let before = u16::from_be_bytes([header[2], header[3]]);
    let sum = delta.sum(before);
    delta.change(u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([message, header[1]]));
    delta.change(u16::from_be_bytes([header[4], header[5]]), identifier);
    let checksum = match delta.checksum(before) {
        // An echo reply may have nothing but zeros, whose checksum is all ones; to all others 0 is the same number.
        0 if parsed.kind == (TransportKind::IcmpEcho { reply: true }) && !parsed.is_v4() => u16::MAX,
        checksum => checksum,
    };
    header[0] = message;
    put_u16(header, 2, if partial { sum } else { checksum })?;
    put_u16(header, 4, identifier)
}

/// Tells the offload state where the transport header is now, and of which family the packet is.
fn move_offload(frame: &mut Frame, before: &Parsed, transport: usize) -> Option<()> {
    if let Checksum::Partial { start, .. } = &mut frame.offload.checksum {
        // It may be that of a packet in a tunnel, behind our transport header.
        let distance = usize::from(start.checked_sub(before.transport)?);
        *start = u16::try_from(transport + distance).ok()?;
    }
    if let Some(segmentation) = &mut frame.offload.segmentation {
        segmentation.kind = match segmentation.kind {
            SegmentKind::Udp => SegmentKind::Udp,
            SegmentKind::TcpV4 | SegmentKind::TcpV6 if before.is_v4() => SegmentKind::TcpV6,
            SegmentKind::TcpV4 | SegmentKind::TcpV6 => SegmentKind::TcpV4,
        };
    }
    Some(())
}

/// Gives UDP a checksum: a super-packet a partial one, for each segment will get its own.
fn sum_udp(frame: &mut Frame, parsed: &Parsed) -> Option<()> {
    const OFFSET: usize = 6;
    let start = usize::from(parsed.transport);
    let whole = frame.offload.segmentation.is_some();
    let length = if whole { frame.len().checked_sub(start)? } else { usize::from(u16_at(frame.bytes(), start + 4)?) };
    let pseudo = checksum::pseudo_header(frame.bytes(), parsed, u32::try_from(length).ok()?)?;
    let value = if whole {
        frame.offload.checksum = Checksum::Partial { start: parsed.transport, offset: OFFSET as u16 };
        pseudo
    } else {
        frame.offload.checksum = Checksum::Complete;
        let sum = checksum::add(checksum::sum(frame.bytes().get(start..start + length)?), pseudo);
        if sum == u16::MAX { u16::MAX } else { !sum }
    };
    put_u16(frame.bytes_mut(), start + OFFSET, value)
}
