//! ICMP errors between the families (RFC 7915 sections 4.2, 4.3, 5.2, 5.3): type, code and value, and the packet that
//! they quote.

use std::net::IpAddr;

use super::checksum;
use super::cross::{HEADER_V4, HEADER_V6, Header, Pair, cross_transport, is_translatable};
use super::field::{bytes_at, put, put_u16, u16_at, u32_at};
use super::frame::{Checksum, Frame, Offload};
use super::icmp::{ICMP_HEADER, MAX_ERROR_V4, MAX_ERROR_V6};
use super::parse::{Fragment, Parsed, TransportKind, parse};
use super::rewrite::{Translation, is_partial};

/// Path MTUs to try where a router does not say its own (RFC 1191 section 7.1).
const PLATEAUS: [u32; 10] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68];

/// The least MTU of IPv6; smaller ones are no news to a sender, whose packets of up to this size are translated to IPv4
/// packets that may be fragmented.
const MIN_MTU: u32 = 1280;

/// By how much an IPv6 header is longer.
const GROWTH: u32 = 20;

/// And a fragment more than that.
const FRAGMENT_GROWTH: u32 = 8;

/// Makes an ICMP error one of the other family: `outer` is its source and destination there, `inner_to` are the
/// addresses and ports that the packet it quotes gets. `inner` comes from [`super::icmp::embedded`]. The quote is cut to
/// what errors of the new family may have, ICMP extensions (RFC 4884) are dropped, the checksum is complete.
/// `identification` is for an IPv4 error that may be fragmented.
///
/// Gives the new packet, or `None` where the error or what it quotes has no form in the other family, its checksum is
/// wrong, or it is a fragment; the bytes are then undefined.
pub fn cross_error(
    frame: &mut Frame,
    parsed: &Parsed,
    inner: &Parsed,
    outer: (IpAddr, IpAddr),
    inner_to: &Translation,
    identification: u16,
) -> Option<Parsed> {
    let fits = parsed.network == 0 && parsed.kind == TransportKind::IcmpError && parsed.fragment == Fragment::None;
    if !fits || inner.is_v4() != parsed.is_v4() || !is_translatable(inner) || frame.len() < parsed.total as usize {
        return None;
    }
    let outer_addresses = Pair::of(parsed, outer)?;
    let inner_addresses = Pair::of(inner, (inner_to.source, inner_to.destination))?;
    frame.set_len(parsed.total as usize);
    // The checksum is made anew and must not make right what is wrong.
    if !is_partial(frame, parsed)
        && (matches!(frame.offload.checksum, Checksum::Partial { .. })
            || checksum::verify(frame.bytes(), parsed) != Some(true))
    {
        return None;
    }
    let message = usize::from(parsed.transport);
    let old = bytes_at::<ICMP_HEADER>(frame.bytes(), message)?;
    if usize::from(inner.network) != message + ICMP_HEADER {
        return None;
    }
    let new =
        if parsed.is_v4() { message_v6(old, inner.total)? } else { message_v4(old, inner.fragment != Fragment::None)? };
    if let Some(length) = quote_length(old, parsed.is_v4()) {
        frame.set_len(frame.len().min(usize::from(inner.network) + length));
    }
    cross_transport(frame.bytes_mut(), inner, &inner_addresses, inner_to, false)?;

    let inner_headers = usize::from(inner.transport.checked_sub(inner.network)?);
    let inner_payload = (inner.total as usize).checked_sub(inner_headers)?;
    let inner_header = Header::build(frame.bytes(), inner, &inner_addresses, inner_payload, inner_payload, 0)?;
    let ahead = ICMP_HEADER + inner_header.as_bytes().len();
    let limit = if parsed.is_v4() { MAX_ERROR_V6 - HEADER_V6 } else { MAX_ERROR_V4 - HEADER_V4 };
    let quoted = frame.len().checked_sub(usize::from(inner.transport))?.min(limit.checked_sub(ahead)?);
    let payload = ahead + quoted;
    let header = Header::build(frame.bytes(), parsed, &outer_addresses, payload, payload, identification)?;

    frame.pull_front(usize::from(inner.transport));
    frame.set_len(quoted);
    frame.push_front(inner_header.as_bytes().len())?.copy_from_slice(inner_header.as_bytes());
    frame.push_front(ICMP_HEADER)?.copy_from_slice(&new);
    frame.push_front(header.as_bytes().len())?.copy_from_slice(header.as_bytes());
    frame.offload = Offload::default();
    let parsed = parse(frame.bytes()).ok()?;
    write_checksum(frame.bytes_mut(), &parsed)?;
    Some(parsed)
}

/// Length of the quote where ICMP extensions follow it (RFC 4884 section 4): in words of 4 bytes in IPv4, of 8 in IPv6.
fn quote_length(message: [u8; ICMP_HEADER], v4: bool) -> Option<usize> {
    let words = match (v4, message) {
        (true, [3 | 11 | 12, _, _, _, _, length, ..]) => usize::from(length) * 4,
        (false, [1 | 3, _, _, _, length, ..]) => usize::from(length) * 8,
        _ => 0,
    };
    (words > 0).then_some(words)
}

/// An ICMPv6 header, without checksum, from that of an ICMPv4 error about a packet of `total` bytes.
fn message_v6(old: [u8; ICMP_HEADER], total: u32) -> Option<[u8; ICMP_HEADER]> {
    /// Where IPv6 has the protocol.
    const NEXT_HEADER: u32 = 6;
    let (message, code, value) = match (old[0], old[1]) {
        (3, 0 | 1 | 5..=8 | 11 | 12) => (1, 0, 0),
        (3, 2) => (4, 1, NEXT_HEADER),
        (3, 3) => (1, 4, 0),
        (3, 4) => {
            let mtu = match u32::from(u16_at(&old, 6)?) {
                0 => PLATEAUS.into_iter().find(|&plateau| plateau < total).unwrap_or_default(),
                mtu => mtu,
            };
            (2, 0, (mtu + GROWTH).max(MIN_MTU))
        }
        (3, 9 | 10 | 13 | 15) => (1, 1, 0),
        (11, code) => (3, code, 0),
        (12, 0 | 2) => {
            let pointer = match old[4] {
                pointer @ (0 | 1) => u32::from(pointer),
                2 | 3 => 4,
                8 => 7,
                9 => NEXT_HEADER,
                12..=15 => 8,
                16..=19 => 24,
                _ => return None,
            };
            (4, 0, pointer)
        }
        _ => return None,
    };
    let mut new = [message, code, 0, 0, 0, 0, 0, 0];
    put(&mut new, 4, u32::to_be_bytes(value))?;
    Some(new)
}

/// An ICMPv4 header, without checksum, from that of an ICMPv6 error about a fragment or not: what is left of an MTU for
/// IPv4 is less where the packet has a fragment header (RFC 7915 section 5.2).
fn message_v4(old: [u8; ICMP_HEADER], fragment: bool) -> Option<[u8; ICMP_HEADER]> {
    let value = u32_at(&old, 4)?;
    let growth = if fragment { GROWTH + FRAGMENT_GROWTH } else { GROWTH };
    let mut new = [0; ICMP_HEADER];
    let (message, code) = match (old[0], old[1]) {
        (1, 0 | 2 | 3) => (3, 1),
        (1, 1) => (3, 10),
        (1, 4) => (3, 3),
        (2, _) => {
            put_u16(&mut new, 6, u16::try_from(value.saturating_sub(growth)).unwrap_or(u16::MAX))?;
            (3, 4)
        }
        (3, code) => (11, code),
        (4, 0) => {
            let pointer = match value {
                0 => 0,
                1 => 1,
                4 | 5 => 2,
                6 => 9,
                7 => 8,
                8..=23 => 12,
                24..=39 => 16,
                _ => return None,
            };
            put(&mut new, 4, [pointer])?;
            (12, 0)
        }
        (4, 1) => (3, 2),
        _ => return None,
    };
    put(&mut new, 0, [message, code])?;
    Some(new)
}

/// Writes the checksum of a whole ICMP message.
fn write_checksum(bytes: &mut [u8], parsed: &Parsed) -> Option<()> {
    let start = usize::from(parsed.transport);
    let length = bytes.len().checked_sub(start)?;
    let pseudo = if parsed.is_v4() { 0 } else { checksum::pseudo_header(bytes, parsed, u32::try_from(length).ok()?)? };
    let message = bytes.get_mut(start..)?;
    put_u16(message, 2, 0)?;
    let checksum = !checksum::add(checksum::sum(message), pseudo);
    put_u16(message, 2, checksum)
}
