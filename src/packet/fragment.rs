//! IPv4 fragmentation (RFC 791 section 3.2) of what exceeds an MTU and may be cut.

use super::checksum;
use super::field::{put_u16, u16_at};
use super::frame::{Checksum, Frame};
use super::parse::{Fragment, Parsed};

/// More fragments follow.
const MORE: u16 = 0x2000;

/// Do not fragment.
const DONT: u16 = 0x4000;

/// The fragment offset in the same field, in units of 8 bytes.
const OFFSET: u16 = 0x1fff;

/// The largest IPv4 header.
const MAX_HEADER: usize = 60;

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes and hands them out one by one in `scratch`, in order;
/// nothing is allocated. A partial checksum of `frame` is finished first. A packet that fits is handed out as the one
/// piece it is; a fragment is cut further. Options go to the first fragment, those marked for it to all.
///
/// Returns how many were handed out; 0 where the packet must not or cannot be cut: DF, IPv6, a super-packet (first
/// [`super::segment::segment`] it), an MTU without room for 8 bytes of payload, or a fragment with a partial checksum,
/// which covers bytes that are not here.
pub fn fragment_v4(
    frame: &mut Frame,
    parsed: &Parsed,
    mtu: usize,
    scratch: &mut Frame,
    emit: impl FnMut(&mut Frame),
) -> usize {
    let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
    if !parsed.is_v4() || frame.offload.segmentation.is_some() || (partial && parsed.fragment != Fragment::None) {
        return 0;
    }
    if !checksum::finish(frame) {
        return 0;
    }
    cut(frame.bytes(), parsed, frame.offload.checksum, mtu, scratch, emit).unwrap_or(0)
}

fn cut(
    packet: &[u8],
    parsed: &Parsed,
    checksum: Checksum,
    mtu: usize,
    scratch: &mut Frame,
    mut emit: impl FnMut(&mut Frame),
) -> Option<usize> {
    let packet = packet.get(usize::from(parsed.network)..)?.get(..parsed.total as usize)?;
    if packet.len() <= mtu {
        scratch.set_packet(packet);
        scratch.offload.checksum = checksum;
        emit(scratch);
        return Some(1);
    }
    let field = u16_at(packet, 6)?;
    if field & DONT != 0 {
        return None;
    }
    let header_length = usize::from(parsed.transport.checked_sub(parsed.network)?);
    let (header, payload) = packet.split_at_checked(header_length)?;
    // The room of the first header serves for all: a later one is as long or shorter.
    let size = mtu.checked_sub(header_length)? & !7;
    if size == 0 {
        return None;
    }
    let mut later = [0; MAX_HEADER];
    let later = later_header(header, &mut later)?;
    // A fragment near the end of the offset's range would be cut into pieces behind it.
    if usize::from(field & OFFSET) + payload.len() / 8 > usize::from(OFFSET) {
        return None;
    }
    let count = payload.len().div_ceil(size);
    for (index, piece) in payload.chunks(size).enumerate() {
        let header = if index == 0 { header } else { later };
        let more = if index + 1 < count { MORE } else { field & MORE };
        let offset = (field & OFFSET) + (index * size / 8) as u16;
        scratch.clear();
        let length = header.len() + piece.len();
        let room = scratch.room_mut().get_mut(..length)?;
        let (front, back) = room.split_at_mut_checked(header.len())?;
        front.copy_from_slice(header);
        back.copy_from_slice(piece);
        put_u16(front, 2, u16::try_from(length).ok()?)?;
        put_u16(front, 6, (field & !(MORE | OFFSET)) | more | offset)?;
        checksum::write_ipv4(front)?;
        scratch.set_len(length);
        emit(scratch);
    }
    Some(count)
}

/// The header of later fragments: only the options with the copied bit, padded to words of 32 bits.
fn later_header<'a>(header: &[u8], room: &'a mut [u8; MAX_HEADER]) -> Option<&'a [u8]> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let (fixed, mut options) = header.split_at_checked(20)?;
    room.get_mut(..20)?.copy_from_slice(fixed);
    let mut length = 20;
    while let Some((&kind, rest)) = options.split_first() {
        if kind == END {
            break;
        }
        if kind == NO_OPERATION {
            options = rest;
            continue;
        }
        let size = usize::from(*rest.first()?);
        let (option, behind) = options.split_at_checked(size.max(2))?;
        if kind & COPIED != 0 {
            room.get_mut(length..length + option.len())?.copy_from_slice(option);
            length += option.len();
        }
        options = behind;
    }
    let length = length.next_multiple_of(4);
    let first = room.first_mut()?;
    *first = 0x40 | (length / 4) as u8;
    room.get(..length)
}
