//! The option of Multipath TCP (RFC 8684). With it the order of a connection's sequence numbers is not that in which its
//! bytes are read, so where these are judged it is taken out, and both ends go on with ordinary TCP (section 3.7).

use super::checksum::Delta;
use super::field::{put, u16_at};
use super::frame::Frame;
use super::options::{FIXED, NO_OPERATION, options};
use super::parse::{Parsed, TransportKind};
use super::rewrite::is_partial;

/// Kind of the option.
const MPTCP: u8 = 30;
/// Place of the checksum.
const CHECKSUM: usize = 16;

/// Whether a TCP packet has the option.
pub fn has_mptcp(frame: &Frame, parsed: &Parsed) -> bool {
    let TransportKind::Tcp { header, .. } = parsed.kind else { return false };
    let start = usize::from(parsed.transport);
    let header = frame.bytes().get(start..start + usize::from(header)).unwrap_or_default();
    find(header, FIXED).is_some()
}

/// Overwrites the option by no-operations, as often as it is there; the checksum stays right in the state it is in. Returns
/// whether the packet was changed.
pub fn strip_mptcp(frame: &mut Frame, parsed: &Parsed) -> bool {
    let TransportKind::Tcp { header, .. } = parsed.kind else { return false };
    let partial = is_partial(frame, parsed);
    let start = usize::from(parsed.transport);
    let Some(header) = frame.bytes_mut().get_mut(start..start + usize::from(header)) else { return false };
    let mut delta = Delta::default();
    let mut from = FIXED;
    let mut changed = false;
    while let Some((at, length)) = find(header, from) {
        for place in at..at + length {
            let Some(byte) = header.get_mut(place) else { break };
            let shift = if place.is_multiple_of(2) { 8 } else { 0 };
            delta.change(u16::from(*byte) << shift, u16::from(NO_OPERATION) << shift);
            *byte = NO_OPERATION;
        }
        changed = true;
        from = at + length;
    }
    // A partial checksum is the sum of the pseudo header, which does not have the options.
    if changed
        && !partial
        && let Some(before) = u16_at(header, CHECKSUM)
    {
        let _there = put(header, CHECKSUM, delta.checksum(before).to_be_bytes());
    }
    changed
}

/// Place and length of the first such option from a place on; what follows an end or a malformed option is none.
fn find(header: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut readable = options(header, from).map_while(Result::ok);
    readable.find(|(kind, ..)| *kind == MPTCP).map(|(_, at, length)| (at, length))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement};

    use super::*;
    use crate::packet::checksum::verify;
    use crate::packet::parse::parse;

    /// A SYN with these bytes of options.
    fn syn(options: &[u8]) -> Frame {
        let builder = PacketBuilder::ipv4([10, 1, 1, 4], [20, 60, 1, 20], 64).tcp(40_000, 443, 1, 65_000).syn();
        let mut bytes = Vec::new();
        builder.options_raw(options).unwrap().write(&mut bytes, &[]).unwrap();
        Frame::from_packet(&bytes)
    }

    #[test]
    fn the_option_is_taken_out_wherever_it_is_and_the_checksum_stays_right() {
        let capable: &[u8] = &[MPTCP, 12, 1, 0x81, 1, 2, 3, 4, 5, 6, 7, 8];
        let mss: &[u8] = &[2, 4, 5, 180];
        for options in [
            [capable, mss].concat(),
            [mss, capable].concat(),
            [&[1], capable, mss, &[MPTCP, 3, 9]].concat(),
            [mss, &[1, MPTCP, 2, 1]].concat(),
        ] {
            let mut frame = syn(&options);
            let parsed = parse(frame.bytes()).unwrap();
            assert!(has_mptcp(&frame, &parsed) && strip_mptcp(&mut frame, &parsed));
            assert!(!has_mptcp(&frame, &parsed) && !strip_mptcp(&mut frame, &parsed));
            assert_eq!(verify(frame.bytes(), &parse(frame.bytes()).unwrap()), Some(true), "{options:?}");
            let header = etherparse::TcpHeader::from_slice(&frame.bytes()[20..]).unwrap().0;
            let kept: Vec<_> = header.options_iterator().map(Result::unwrap).collect();
            assert!(kept.contains(&TcpOptionElement::MaximumSegmentSize(1_460)), "{kept:?}");
        }
    }

    #[test]
    fn what_has_none_stays_as_it_is() {
        for options in [&[][..], &[2, 4, 5, 180], &[0, MPTCP, 4, 0], &[3, 0, MPTCP, 4], &[MPTCP, 99], &[MPTCP, 1, 1, 1]]
        {
            let mut frame = syn(options);
            let (parsed, before) = (parse(frame.bytes()).unwrap(), frame.bytes().to_vec());
            assert!(!has_mptcp(&frame, &parsed) && !strip_mptcp(&mut frame, &parsed), "{options:?}");
            assert_eq!(frame.bytes(), before);
        }
    }
}
