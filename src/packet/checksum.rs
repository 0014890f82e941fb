//! The internet checksum: whole sums, incremental updates, pseudo headers, and finishing what a sender left to do.
//!
//! A *sum* is the folded one's-complement sum of 16-bit big-endian words; the *checksum* in a header is its complement
//! (RFC 1071). A header or a packet with its pseudo header is right where the sum over all of it is `0xffff`.

use super::field::{put_u16, u16_at};
use super::frame::{Checksum, Frame};
use super::parse::{Fragment, Parsed, protocol};

/// Folds the carries of a sum of 16-bit words.
#[inline]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum over bytes; an odd one at the end counts as the upper half of a word.
///
/// Adds words of 32 bits into 64 without looking at carries: 2^32 of them fit, and the compiler makes vectors of it.
/// The order of bytes within a word is left as the machine has it and turned at the end, which one's-complement
/// arithmetic allows (RFC 1071 section 2).
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total += u64::from(u32::from_ne_bytes(last));
    u16::from_be(fold(total))
}

/// The sum over an IPv4 header without options, unrolled.
#[inline]
pub(super) fn sum_header(header: &[u8; 20]) -> u16 {
    let (words, _) = header.as_chunks::<4>();
    u16::from_be(fold(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()))
}

/// The sum of two sums.
#[inline]
pub fn add(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum + u16::from(carry)
}

/// Sum of the pseudo header of a packet (RFC 9293 section 3.1, RFC 8200 section 8.1), with the addresses that are in its
/// bytes now; `length` is that of the transport header with its payload. `None` where the packet is cut.
#[inline]
pub fn pseudo_header(packet: &[u8], parsed: &Parsed, length: u32) -> Option<u16> {
    let header = packet.get(usize::from(parsed.network)..)?;
    let addresses = if parsed.is_v4() { header.get(12..20)? } else { header.get(8..40)? };
    Some(fold(u64::from(sum(addresses)) + u64::from(parsed.protocol) + u64::from(length)))
}

/// The change of a sum: old words taken out, new ones put in, to be applied to any checksum that covers them (RFC 1624
/// equation 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Takes one word out and puts another in.
    #[inline]
    pub fn change(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// Takes bytes out and puts others in. Both start at an even distance from where the summing starts.
    #[inline]
    pub fn change_bytes<const N: usize>(&mut self, old: [u8; N], new: [u8; N]) {
        let (old, _) = old.as_chunks::<2>();
        let (new, _) = new.as_chunks::<2>();
        for (old, new) in old.iter().zip(new) {
            self.change(u16::from_be_bytes(*old), u16::from_be_bytes(*new));
        }
    }

    /// Adds the changes of another.
    #[inline]
    pub fn merge(&mut self, other: Delta) {
        self.0 += other.0;
    }

    /// The checksum (complemented) after the change.
    #[inline]
    pub fn checksum(self, checksum: u16) -> u16 {
        !fold(u64::from(!checksum) + self.0)
    }

    /// The sum (not complemented) after the change: what a partial checksum holds.
    #[inline]
    pub fn sum(self, sum: u16) -> u16 {
        fold(u64::from(sum) + self.0)
    }
}

/// Where the checksum is in a UDP header.
const UDP_CHECKSUM: usize = 6;

/// How a transport protocol carries its internet checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Offset in the transport header.
    pub(super) offset: usize,
    /// The checksum covers the pseudo header.
    pub(super) pseudo: bool,
    /// A computed 0 is sent as `0xffff`.
    pub(super) zero_as_ones: bool,
    /// A 0 in the field means that there is no checksum.
    pub(super) optional: bool,
}

/// The checksum field of a packet's transport protocol; `None` where it has none, or in a later fragment.
#[inline]
pub(super) fn field(parsed: &Parsed) -> Option<Field> {
    if parsed.fragment == Fragment::Later {
        return None;
    }
    let (offset, pseudo, zero_as_ones, optional) = match parsed.protocol {
        protocol::TCP => (16, true, false, false),
        protocol::UDP => (6, true, true, true),
        protocol::UDP_LITE => (6, true, true, false),
        protocol::DCCP => (6, true, false, false),
        protocol::ICMP if parsed.is_v4() => (2, false, false, false),
        protocol::ICMPV6 if !parsed.is_v4() => (2, true, false, false),
        _ => return None,
    };
    Some(Field { offset, pseudo, zero_as_ones, optional })
}

/// Whether the transport checksum of a packet is right, summed over all of it. `None` where it cannot be told: a
/// fragment, a protocol without an internet checksum or with one that covers a part (UDP-Lite, DCCP), UDP without one.
pub fn verify(packet: &[u8], parsed: &Parsed) -> Option<bool> {
    if parsed.fragment != Fragment::None || matches!(parsed.protocol, protocol::UDP_LITE | protocol::DCCP) {
        return None;
    }
    let field = field(parsed)?;
    let start = usize::from(parsed.transport);
    let mut end = usize::from(parsed.network) + parsed.total as usize;
    if parsed.protocol == protocol::UDP {
        end = end.min(start + usize::from(u16_at(packet, start + 4)?));
    }
    let bytes = packet.get(start..end)?;
    if field.optional && u16_at(bytes, field.offset)? == 0 {
        return None;
    }
    let pseudo = if field.pseudo { pseudo_header(packet, parsed, u32::try_from(bytes.len()).ok()?)? } else { 0 };
    Some(add(sum(bytes), pseudo) == 0xffff)
}

/// Recomputes the checksum of an IPv4 header in place. `header` is the header alone, options included.
pub(super) fn write_ipv4(header: &mut [u8]) -> Option<()> {
    put_u16(header, 10, 0)?;
    let checksum = !sum(header);
    put_u16(header, 10, checksum)
}

/// Completes a partial checksum in place, over all bytes from its start to the end of the packet, as a device does
/// (performance reference 4.5: the field holds the sum of the pseudo header). Any other frame stays as it is. A
/// super-packet gets the checksum of the packet it looks like; to send it as segments use [`super::segment::segment`].
///
/// Returns whether the checksum is complete now: not where the offload state points outside the packet.
pub fn finish(frame: &mut Frame) -> bool {
    let Checksum::Partial { start, offset } = frame.offload.checksum else {
        return true;
    };
    let offset = usize::from(offset);
    let Some(bytes) = frame.bytes_mut().get_mut(usize::from(start)..) else {
        return false;
    };
    // A computed 0 means no checksum in UDP. TCP has the 0 (RFC 1624 section 3): some take 0xffff for wrong.
    let checksum = match !sum(bytes) {
        0 if offset == UDP_CHECKSUM => 0xffff,
        checksum => checksum,
    };
    if put_u16(bytes, offset, checksum).is_none() {
        return false;
    }
    frame.offload.checksum = Checksum::Complete;
    true
}
