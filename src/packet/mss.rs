//! The maximum segment size that TCP connections agree on, lowered where the way between the ends carries less.

use super::checksum::Delta;
use super::field::{put, put_u16, u16_at};
use super::frame::Frame;
use super::options::{FIXED, options};
use super::parse::{Parsed, TransportKind};
use super::rewrite::is_partial;

/// Where the checksum is in a TCP header.
const CHECKSUM: usize = 16;

/// Lowers the MSS option of a SYN, with or without ACK, to `largest` (RFC 9293 section 3.7.1); the checksum stays right
/// in the state it is in. Never raises it and adds none: without the option a sender keeps to a default that fits
/// everywhere. Options that do not fit their room, and an MSS option of another length than 4, are left alone.
///
/// Returns whether the packet was changed.
#[inline]
pub fn clamp_mss(frame: &mut Frame, parsed: &Parsed, largest: u16) -> bool {
    parsed.tcp_flags() & Parsed::SYN != 0 && clamp(frame, parsed, largest).is_some()
}

#[cold]
fn clamp(frame: &mut Frame, parsed: &Parsed, largest: u16) -> Option<()> {
    let TransportKind::Tcp { header, .. } = parsed.kind else { return None };
    let partial = is_partial(frame, parsed);
    let start = usize::from(parsed.transport);
    let header = frame.bytes_mut().get_mut(start..start + usize::from(header))?;
    let at = find(header)?;
    let before = u16_at(header, at)?;
    if before <= largest {
        return None;
    }
    put_u16(header, at, largest)?;
    // A partial checksum is the sum of the pseudo header, which does not have the options.
    if !partial {
        let mut delta = Delta::default();
        if at.is_multiple_of(2) {
            delta.change(before, largest);
        } else {
            delta.change(before.swap_bytes(), largest.swap_bytes());
        }
        let checksum = delta.checksum(u16_at(header, CHECKSUM)?);
        put(header, CHECKSUM, checksum.to_be_bytes())?;
    }
    Some(())
}

/// Where the value of the MSS option is. `None` where there is none or the options are malformed up to the end.
fn find(header: &[u8]) -> Option<usize> {
    const MSS: u8 = 2;
    const MSS_LENGTH: usize = 4;
    let mut found = None;
    for option in options(header, FIXED) {
        let (kind, at, length) = option.ok()?;
        if kind == MSS && length != MSS_LENGTH {
            return None;
        }
        if kind == MSS && found.is_none() {
            found = Some(at + 2);
        }
    }
    found
}
