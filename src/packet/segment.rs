//! Software segmentation: what a device without offload needs of a super-packet, and how large its segments are.

use super::checksum;
use super::field::{put, put_u16, u16_at};
use super::frame::{Checksum, Frame, Offload, Segmentation};
use super::parse::{Fragment, Parsed, TransportKind, protocol};

/// Length on the wire, from the IP header on: of a super-packet, of its largest segment. To be compared with an MTU.
#[inline]
pub fn wire_size(frame: &Frame, parsed: &Parsed) -> usize {
    let total = parsed.total as usize;
    match frame.offload.segmentation {
        Some(Segmentation { size, .. }) => {
            let headers = parsed.payload().saturating_sub(usize::from(parsed.network));
            total.min(headers + usize::from(size))
        }
        None => total,
    }
}

/// Segments that [`segment`] makes of a frame: 1 for one that is no super-packet.
#[inline]
pub fn segment_count(frame: &Frame, parsed: &Parsed) -> usize {
    match segment_size(frame, parsed) {
        Some(size) => parsed.payload_len().div_ceil(size),
        None => 1,
    }
}

/// Payload bytes of each segment, where the frame really is a super-packet of whole TCP or UDP.
fn segment_size(frame: &Frame, parsed: &Parsed) -> Option<usize> {
    let size = usize::from(frame.offload.segmentation?.size);
    let can = matches!(parsed.kind, TransportKind::Tcp { .. } | TransportKind::Udp)
        && parsed.fragment == Fragment::None
        && size > 0
        && parsed.payload_len() > size;
    can.then_some(size)
}

/// Cuts a super-packet into its segments, each with complete checksums and no offload state, and hands them out one by
/// one in `scratch`, in order; nothing is allocated. A frame that is no super-packet is handed out once, as a copy with
/// its checksum finished; that of a fragment, which covers bytes that are not here, stays as it is. Returns how many were handed out.
///
/// As the kernel does: the IPv4 identification counts up, the TCP sequence number advances, FIN and PSH are on the last
/// segment only, CWR on the first only (RFC 3168 section 6.1.2). UDP without a checksum stays without.
pub fn segment(frame: &Frame, parsed: &Parsed, scratch: &mut Frame, mut emit: impl FnMut(&mut Frame)) -> usize {
    let packet = frame.bytes();
    let pieces = segment_size(frame, parsed).and_then(|size| {
        let headers = packet.get(..parsed.payload())?;
        let payload = packet.get(parsed.payload()..parsed.payload() + parsed.payload_len())?;
        Some((size, headers, payload))
    });
    let Some((size, headers, payload)) = pieces else {
        scratch.copy_from(frame);
        scratch.offload.segmentation = None;
        if parsed.fragment == Fragment::None {
            checksum::finish(scratch);
        }
        emit(scratch);
        return 1;
    };
    let count = payload.len().div_ceil(size);
    let summed = parsed.protocol != protocol::UDP
        || matches!(frame.offload.checksum, Checksum::Partial { .. })
        || u16_at(packet, usize::from(parsed.transport) + 6) != Some(0);
    for (index, piece) in payload.chunks(size).enumerate() {
        let place = Place { index, last: index + 1 == count, payload_offset: index * size, summed };
        if write_segment(scratch, headers, piece, parsed, place).is_none() {
            return index;
        }
        emit(scratch);
    }
    count
}

/// Where a segment is in its super-packet.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    last: bool,
    payload_offset: usize,
    /// The segments have a transport checksum.
    summed: bool,
}

/// Writes one segment into the scratch frame.
fn write_segment(scratch: &mut Frame, headers: &[u8], piece: &[u8], parsed: &Parsed, place: Place) -> Option<()> {
    scratch.clear();
    let length = headers.len() + piece.len();
    let room = scratch.room_mut().get_mut(..length)?;
    let (front, back) = room.split_at_mut_checked(headers.len())?;
    front.copy_from_slice(headers);
    back.copy_from_slice(piece);
    write_headers(room, parsed, place)?;
    scratch.set_len(length);
    scratch.offload = Offload::default();
    Some(())
}

/// Makes the copied headers those of the segment: lengths, identification, sequence, flags, checksums.
fn write_headers(segment: &mut [u8], parsed: &Parsed, place: Place) -> Option<()> {
    let network = usize::from(parsed.network);
    let transport = usize::from(parsed.transport);
    let total = segment.len().checked_sub(network)?;
    if parsed.is_v4() {
        put_u16(segment, network + 2, u16::try_from(total).ok()?)?;
        let identification = u16_at(segment, network + 4)?.wrapping_add(place.index as u16);
        put_u16(segment, network + 4, identification)?;
        checksum::write_ipv4(segment.get_mut(network..transport)?)?;
    } else {
        put_u16(segment, network + 4, u16::try_from(total.checked_sub(40)?).ok()?)?;
    }
    let bytes = segment.get_mut(transport..)?;
    let length = u32::try_from(bytes.len()).ok()?;
    let offset = match parsed.kind {
        TransportKind::Tcp { flags, sequence, .. } => {
            put(bytes, 4, sequence.wrapping_add(place.payload_offset as u32).to_be_bytes())?;
            let not_last = if place.last { 0 } else { Parsed::FIN | Parsed::PSH };
            let not_first = if place.index == 0 { 0 } else { Parsed::CWR };
            put(bytes, 13, [flags & !(not_last | not_first)])?;
            16
        }
        _ => {
            put_u16(bytes, 4, u16::try_from(length).ok()?)?;
            6
        }
    };
    if !place.summed {
        return Some(());
    }
    put_u16(bytes, offset, 0)?;
    let sum = checksum::sum(bytes);
    let sum = checksum::add(sum, checksum::pseudo_header(segment, parsed, length)?);
    // A computed 0 is sent as ones in UDP alone.
    let value = if sum == 0xffff && parsed.protocol == protocol::UDP { 0xffff } else { !sum };
    put_u16(segment, transport + offset, value)
}
