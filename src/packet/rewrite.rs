//! Changes in place: hop limit, identification, addresses and ports, the packet quoted in an ICMP error. Super-packets stay whole.
//!
//! Checksums are kept by the change alone (RFC 1624): one that came wrong goes out wrong, for its receiver to notice.
//! What was there before is read from the bytes, so several changes of one packet may follow each other with the
//! [`Parsed`] of the first.
//!
//! Which rule a transport checksum follows:
//!
//! | state | addresses change | ports change |
//! |---|---|---|
//! | complete | updated (not in ICMPv4, which has no pseudo header) | updated |
//! | partial: the field holds the sum of the pseudo header | sum updated, not complemented | untouched |
//! | UDP without a checksum | untouched | untouched |
//! | SCTP (CRC32c, no pseudo header) | untouched | updated |
//! | SCTP in a first fragment: what the CRC covers is not all here | untouched | neither is changed |
//! | none, or in a later fragment | - | - |

use std::net::IpAddr;

use super::checksum::{self, Delta};
use super::crc32c;
use super::field::{bytes_at, put, put_u16, u16_at};
use super::frame::{Checksum, Frame};
use super::parse::{Addresses, Fragment, Parsed, TransportKind, protocol};

/// Where the checksum is in an IPv4 header.
const IPV4_CHECKSUM: usize = 10;

/// The addresses and ports that a packet gets. Families equal the packet's.
///
/// An ICMP echo has one identifier: requests take `source_port`, replies `destination_port`, which is in both cases the
/// number on the side of the host that asked. Ports mean nothing to fragments and to protocols without ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port, or the identifier of an echo request.
    pub source_port: u16,
    /// Destination port, or the identifier of an echo reply.
    pub destination_port: u16,
}

/// Takes one from TTL or hop limit. Returns `false`, and leaves the packet, where it was 1 or less: the packet's way
/// ends here (RFC 1812 section 5.3.1, RFC 8200 section 3).
#[inline]
pub fn decrement_hop_limit(frame: &mut Frame, parsed: &Parsed) -> bool {
    decrement(frame.bytes_mut(), parsed).unwrap_or(false)
}

#[inline]
fn decrement(bytes: &mut [u8], parsed: &Parsed) -> Option<bool> {
    let network = usize::from(parsed.network);
    if !parsed.is_v4() {
        let limit = bytes.get_mut(network + 7)?;
        if *limit <= 1 {
            return Some(false);
        }
        *limit -= 1;
        return Some(true);
    }
    let header = bytes.get_mut(network..)?.first_chunk_mut::<20>()?;
    if header[8] <= 1 {
        return Some(false);
    }
    let old = u16::from_be_bytes([header[8], header[9]]);
    header[8] -= 1;
    let mut delta = Delta::default();
    delta.change(old, u16::from_be_bytes([header[8], header[9]]));
    let [high, low] = delta.checksum(u16::from_be_bytes([header[10], header[11]])).to_be_bytes();
    header[10] = high;
    header[11] = low;
    Some(true)
}

/// Gives an IPv4 packet another identification, as who sends packets of several hosts from one address owes their
/// receivers (RFC 6864 section 5.3); the header checksum stays right. All fragments of a packet get the same one. Does
/// nothing in IPv6.
#[inline]
pub fn set_identification(frame: &mut Frame, parsed: &Parsed, id: u16) {
    if parsed.is_v4() {
        put_identification(frame.bytes_mut(), parsed, id);
    }
}

#[inline]
fn put_identification(bytes: &mut [u8], parsed: &Parsed, id: u16) -> Option<()> {
    let header = bytes.get_mut(usize::from(parsed.network)..)?.first_chunk_mut::<20>()?;
    let mut delta = Delta::default();
    delta.change(u16_at(header, 4)?, id);
    put_u16(header, 4, id)?;
    let checksum = delta.checksum(u16_at(header, IPV4_CHECKSUM)?);
    put_u16(header, IPV4_CHECKSUM, checksum)
}

/// Gives a packet other addresses and ports, with all its checksums right in the state they were in. Does nothing where
/// the families differ.
#[inline]
pub fn translate(frame: &mut Frame, parsed: &Parsed, to: &Translation) {
    let partial = is_partial(frame, parsed);
    let bytes = frame.bytes_mut();
    let mut changed = Changed::default();
    if set_addresses(bytes, parsed, (to.source, to.destination), &mut changed).is_some() {
        set_transport(bytes, parsed, Some((to.source_port, to.destination_port)), partial, &mut changed);
    }
}

/// Gives an ICMP error other addresses, and the packet that it quotes other addresses and ports, in both directions of
/// RFC 5508 section 4: the quoted IP header checksum, the quoted transport checksum where the quote reaches that far,
/// and the ICMP checksum are right after it. `inner` comes from [`super::icmp::embedded`]; `outer` is the error's
/// source and destination. Of a transport checksum that is quoted by half the first byte stays. Does nothing where
/// families differ.
pub fn translate_embedded(
    frame: &mut Frame,
    parsed: &Parsed,
    inner: &Parsed,
    outer: (IpAddr, IpAddr),
    inner_to: &Translation,
) {
    if inner.is_v4() != parsed.is_v4() || inner_to.source.is_ipv4() != parsed.is_v4() {
        return;
    }
    let partial = is_partial(frame, parsed);
    let bytes = frame.bytes_mut();
    let mut changed = Changed::default();
    if set_addresses(bytes, parsed, outer, &mut changed).is_none() {
        return;
    }
    let quote = bytes.get_mut(..usize::from(parsed.network) + parsed.total as usize).unwrap_or_default();
    let mut quoted = Changed::default();
    let addresses = (inner_to.source, inner_to.destination);
    if set_addresses(quote, inner, addresses, &mut quoted).is_some() {
        let ports = Some((inner_to.source_port, inner_to.destination_port));
        set_transport(quote, inner, ports, false, &mut quoted);
    }
    changed.transport = quoted.all;
    set_transport(bytes, parsed, None, partial, &mut changed);
}

/// Whether this packet's own transport checksum is partial. The offload state may also speak of a packet inside a
/// tunnel; then the outer checksum is complete and stays so.
#[inline]
pub(super) fn is_partial(frame: &Frame, parsed: &Parsed) -> bool {
    match frame.offload.checksum {
        Checksum::Partial { start, offset } => {
            start == parsed.transport
                && checksum::field(parsed).is_some_and(|field| field.offset == usize::from(offset))
        }
        Checksum::Complete | Checksum::Verified => false,
    }
}

/// What changed so far in a packet.
#[derive(Default)]
pub(super) struct Changed {
    /// Addresses, as a pseudo header sees them.
    pub(super) addresses: Delta,
    /// The transport header and what it carries, without the transport checksum.
    transport: Delta,
    /// Every word of the packet: what a checksum around the whole packet sees.
    all: Delta,
}

/// Writes the addresses and the IPv4 header checksum.
#[inline]
fn set_addresses(bytes: &mut [u8], parsed: &Parsed, to: (IpAddr, IpAddr), changed: &mut Changed) -> Option<()> {
    let network = usize::from(parsed.network);
    match (parsed.addresses, to) {
        (Addresses::V4 { .. }, (IpAddr::V4(source), IpAddr::V4(destination))) => {
            let header = bytes.get_mut(network..)?.first_chunk_mut::<20>()?;
            let old = bytes_at::<8>(header, 12)?;
            let mut new = [0; 8];
            put(&mut new, 0, source.octets())?;
            put(&mut new, 4, destination.octets())?;
            changed.addresses.change_bytes(old, new);
            put(header, 12, new)?;
            let before = u16_at(header, IPV4_CHECKSUM)?;
            let after = changed.addresses.checksum(before);
            put_u16(header, IPV4_CHECKSUM, after)?;
            changed.all = changed.addresses;
            changed.all.change(before, after);
        }
        (Addresses::V6 { .. }, (IpAddr::V6(source), IpAddr::V6(destination))) => {
            let header = bytes.get_mut(network..)?.first_chunk_mut::<40>()?;
            let old = bytes_at::<32>(header, 8)?;
            let mut new = [0; 32];
            put(&mut new, 0, source.octets())?;
            put(&mut new, 16, destination.octets())?;
            changed.addresses.change_bytes(old, new);
            put(header, 8, new)?;
            changed.all = changed.addresses;
        }
        _ => return None,
    }
    Some(())
}

/// Writes the ports, if there are any to write, and the transport checksum. What is not in the bytes is left out: a
/// quote may end anywhere.
#[inline]
pub(super) fn set_transport(
    bytes: &mut [u8],
    parsed: &Parsed,
    ports: Option<(u16, u16)>,
    partial: bool,
    changed: &mut Changed,
) -> Option<()> {
    let start = usize::from(parsed.transport);
    if let Some(ports) = ports {
        set_ports(bytes, parsed, ports, changed);
    }
    changed.all.merge(changed.transport);
    let field = checksum::field(parsed)?;
    let before = u16_at(bytes, start + field.offset)?;
    let after = if partial {
        changed.addresses.sum(before)
    } else if field.optional && before == 0 {
        return Some(());
    } else {
        let mut delta = changed.transport;
        if field.pseudo {
            delta.merge(changed.addresses);
        }
        match delta.checksum(before) {
            0 if field.zero_as_ones => 0xffff,
            checksum => checksum,
        }
    };
    changed.all.change(before, after);
    put_u16(bytes, start + field.offset, after)
}

#[inline]
fn set_ports(
    bytes: &mut [u8],
    parsed: &Parsed,
    (source, destination): (u16, u16),
    changed: &mut Changed,
) -> Option<()> {
    let start = usize::from(parsed.transport);
    match parsed.kind {
        TransportKind::Tcp { .. } | TransportKind::Udp => {}
        TransportKind::Other if matches!(parsed.protocol, protocol::UDP_LITE | protocol::DCCP) => {}
        TransportKind::Other if parsed.protocol == protocol::SCTP && parsed.fragment == Fragment::None => {
            return set_sctp_ports(bytes, parsed, (source, destination), changed);
        }
        TransportKind::IcmpEcho { reply } => {
            let identifier = if reply { destination } else { source };
            changed.transport.change(u16_at(bytes, start + 4)?, identifier);
            return put_u16(bytes, start + 4, identifier);
        }
        _ => return Some(()),
    }
    let old = bytes_at::<4>(bytes, start)?;
    let new = joined(source, destination);
    changed.transport.change_bytes(old, new);
    put(bytes, start, new)
}

#[cold]
fn set_sctp_ports(
    bytes: &mut [u8],
    parsed: &Parsed,
    (source, destination): (u16, u16),
    changed: &mut Changed,
) -> Option<()> {
    let start = usize::from(parsed.transport);
    let end = usize::from(parsed.network) + parsed.total as usize;
    let old = bytes_at::<4>(bytes, start)?;
    let new = joined(source, destination);
    changed.transport.change_bytes(old, new);
    put(bytes, start, new)?;
    let before = bytes_at::<4>(bytes, start + 8)?;
    let change = (u32::from_be_bytes(old) ^ u32::from_be_bytes(new)).to_be_bytes();
    let difference = crc32c::difference(change, end.saturating_sub(start + 4));
    let after = (u32::from_le_bytes(before) ^ difference).to_le_bytes();
    changed.transport.change_bytes(before, after);
    put(bytes, start + 8, after)
}

#[inline]
fn joined(source: u16, destination: u16) -> [u8; 4] {
    ((u32::from(source) << 16) | u32::from(destination)).to_be_bytes()
}
