//! The virtio net header in front of each packet of an offloading TUN device or packet socket, and its translation to and
//! from [`Offload`].
//!
//! The legacy layout without `num_buffers` (virtio 1.3 section 5.1.6, `include/uapi/linux/virtio_net.h`), ten bytes in
//! the byte order of the machine:
//!
//! | offset | field |
//! |---|---|
//! | 0 | flags: 1 the checksum is partial, 2 the checksum was verified |
//! | 1 | segment type: 0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP, with 0x80 for ECN |
//! | 2 | `hdr_len`: a hint; what the kernel gives is the linear part of its buffer, so it is never read |
//! | 4 | payload bytes of a segment |
//! | 6 | where summing starts |
//! | 8 | where the checksum is, from there |
//!
//! Nothing in it is trusted: both directions hold it against the packet, with the rules by which the kernel itself
//! refuses a write. So a refusal of a packet that passed here speaks of the device and not of the packet.

use crate::packet::frame::{Checksum, Offload, SegmentKind, Segmentation};

/// Bytes of the header.
pub(crate) const HEADER: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const SEGMENT_NONE: u8 = 0;
const SEGMENT_TCP4: u8 = 1;
const SEGMENT_TCP6: u8 = 4;
const SEGMENT_UDP: u8 = 5;
const SEGMENT_ECN: u8 = 0x80;

/// The kernel's mark for packets whose segments are ready in a list; never a size.
const BY_FRAGS: u16 = 0xffff;

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// Why header and packet do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VnetError {
    /// Neither an IPv4 nor an IPv6 header, or a cut one.
    #[error("the packet has no whole IP header")]
    NoIpHeader,
    /// Summing would start inside the IP header or reach behind the packet.
    #[error("the checksum lies outside the packet's transport part")]
    ChecksumBounds,
    /// A segment type that does not exist or that the packet is not of.
    #[error("the segment type does not fit the packet")]
    SegmentKind,
    /// Segments of zero bytes or of the kernel's special size.
    #[error("the segment size is not usable")]
    SegmentSize,
    /// A super-packet without a partial checksum at its protocol's place.
    #[error("a super-packet needs a partial checksum at its protocol's place")]
    SegmentChecksum,
    /// The transport header is not whole.
    #[error("the transport header is cut off")]
    TransportHeader,
}

/// Reads a header that the kernel put in front of `packet`. `link` bytes before the IP header (an Ethernet header) are
/// counted in the header's positions and not in `packet`.
///
/// A packet that fits in one segment is not a super-packet, whatever the header says.
///
/// # Errors
/// [`VnetError`]: the packet is not usable.
pub(crate) fn decode(header: [u8; HEADER], link: u16, packet: &[u8]) -> Result<Offload, VnetError> {
    let [flags, kind, _, _, size0, size1, start0, start1, offset0, offset1] = header;
    let checksum = if flags & NEEDS_CHECKSUM != 0 {
        let start = u16::from_ne_bytes([start0, start1]).checked_sub(link).ok_or(VnetError::ChecksumBounds)?;
        Checksum::Partial { start, offset: u16::from_ne_bytes([offset0, offset1]) }
    } else if flags & DATA_VALID != 0 {
        Checksum::Verified
    } else {
        Checksum::Complete
    };
    let segment = match kind & !SEGMENT_ECN {
        SEGMENT_NONE => None,
        SEGMENT_TCP4 => Some(SegmentKind::TcpV4),
        SEGMENT_TCP6 => Some(SegmentKind::TcpV6),
        SEGMENT_UDP => Some(SegmentKind::Udp),
        _ => return Err(VnetError::SegmentKind),
    };
    let segmentation = segment.map(|kind_of| Segmentation {
        kind: kind_of,
        size: u16::from_ne_bytes([size0, size1]),
        ecn: kind & SEGMENT_ECN != 0,
    });
    let mut offload = Offload { checksum, segmentation };
    let headers = check(&offload, packet)?;
    if offload.segmentation.is_some_and(|s| packet.len() <= headers + usize::from(s.size)) {
        offload.segmentation = None;
    }
    Ok(offload)
}

/// Writes the header for `packet`, whose offload state was held against it. `link` bytes stand between the header and
/// the packet.
///
/// # Errors
/// [`VnetError`]: the kernel would refuse the packet.
pub(crate) fn encode(offload: &Offload, link: u16, packet: &[u8]) -> Result<[u8; HEADER], VnetError> {
    let headers = check(offload, packet)?;
    let (flags, start, offset) = match offload.checksum {
        Checksum::Complete => (0, 0, 0),
        Checksum::Verified => (DATA_VALID, 0, 0),
        Checksum::Partial { start, offset } => (NEEDS_CHECKSUM, start.saturating_add(link), offset),
    };
    let segmentation = offload.segmentation.filter(|s| packet.len() > headers + usize::from(s.size));
    let (kind, size, length) = match segmentation {
        None => (SEGMENT_NONE, 0, 0),
        Some(s) => {
            let kind = match s.kind {
                SegmentKind::TcpV4 => SEGMENT_TCP4,
                SegmentKind::TcpV6 => SEGMENT_TCP6,
                SegmentKind::Udp => SEGMENT_UDP,
            };
            let headers = u16::try_from(headers).map_err(|_| VnetError::TransportHeader)?;
            (if s.ecn { kind | SEGMENT_ECN } else { kind }, s.size, headers.saturating_add(link))
        }
    };
    let [length0, length1] = length.to_ne_bytes();
    let [size0, size1] = size.to_ne_bytes();
    let [start0, start1] = start.to_ne_bytes();
    let [offset0, offset1] = offset.to_ne_bytes();
    Ok([flags, kind, length0, length1, size0, size1, start0, start1, offset0, offset1])
}

/// How many packets of which header size a super-packet stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segments {
    /// Bytes of all headers of each segment, from the IP header on.
    pub(crate) headers: usize,
    /// How many segments there are.
    pub(crate) count: usize,
}

/// What a super-packet stands for; `None` for a packet that is none, and for one that no device would cut.
pub(crate) fn segments(offload: &Offload, packet: &[u8]) -> Option<Segments> {
    let segmentation = offload.segmentation?;
    let headers = check(offload, packet).ok()?;
    let count = (packet.len() - headers).div_ceil(usize::from(segmentation.size)).max(1);
    Some(Segments { headers, count })
}

/// Holds an offload state against its packet and returns how many bytes all headers have, 0 where nobody needs to know.
fn check(offload: &Offload, packet: &[u8]) -> Result<usize, VnetError> {
    let Checksum::Partial { start, offset } = offload.checksum else {
        return if offload.segmentation.is_some() { Err(VnetError::SegmentChecksum) } else { Ok(0) };
    };
    let (version, ip_header) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (4, usize::from(packet.first().copied().unwrap_or_default() & 0x0f) * 4),
        Some(6) => (6, 40),
        _ => return Err(VnetError::NoIpHeader),
    };
    if ip_header < 20 || packet.len() < ip_header {
        return Err(VnetError::NoIpHeader);
    }
    let transport = usize::from(start);
    if transport < ip_header || transport + usize::from(offset) + 2 > packet.len() {
        return Err(VnetError::ChecksumBounds);
    }
    let Some(segmentation) = offload.segmentation else { return Ok(0) };
    // IPv6 extension headers stand between: the last one names the protocol, and only the kernel knows where it is.
    let protocol = match version {
        4 => packet.get(9).copied(),
        _ if transport == ip_header => packet.get(6).copied(),
        _ => None,
    };
    let (version_wanted, protocol_wanted, offset_wanted) = match segmentation.kind {
        SegmentKind::TcpV4 => (4, TCP, TCP_CHECKSUM),
        SegmentKind::TcpV6 => (6, TCP, TCP_CHECKSUM),
        SegmentKind::Udp => (version, UDP, UDP_CHECKSUM),
    };
    if version != version_wanted || protocol.is_some_and(|protocol| protocol != protocol_wanted) {
        return Err(VnetError::SegmentKind);
    }
    if offset != offset_wanted {
        return Err(VnetError::SegmentChecksum);
    }
    if segmentation.size == 0 || segmentation.size == BY_FRAGS {
        return Err(VnetError::SegmentSize);
    }
    let transport_header = match segmentation.kind {
        SegmentKind::Udp => 8,
        SegmentKind::TcpV4 | SegmentKind::TcpV6 => {
            let words = packet.get(transport + 12).ok_or(VnetError::TransportHeader)? >> 4;
            usize::from(words) * 4
        }
    };
    if transport_header < 8 || (offset == TCP_CHECKSUM && transport_header < 20) {
        return Err(VnetError::TransportHeader);
    }
    let headers = transport + transport_header;
    if packet.len() < headers {
        return Err(VnetError::TransportHeader);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp4(payload: usize) -> Vec<u8> {
        let mut packet = vec![0; 40 + payload];
        packet[0] = 0x45;
        packet[9] = TCP;
        packet[32] = 5 << 4;
        packet
    }

    fn udp6(payload: usize) -> Vec<u8> {
        let mut packet = vec![0; 48 + payload];
        packet[0] = 0x60;
        packet[6] = UDP;
        packet
    }

    fn tcp4_offload(size: u16) -> Offload {
        Offload {
            checksum: Checksum::Partial { start: 20, offset: 16 },
            segmentation: Some(Segmentation { kind: SegmentKind::TcpV4, size, ecn: false }),
        }
    }

    #[test]
    fn a_super_packet_survives_both_ways() {
        for (packet, offload) in [
            (tcp4(5000), tcp4_offload(1400)),
            (
                udp6(5000),
                Offload {
                    checksum: Checksum::Partial { start: 40, offset: 6 },
                    segmentation: Some(Segmentation { kind: SegmentKind::Udp, size: 1200, ecn: true }),
                },
            ),
        ] {
            for link in [0, 14] {
                let header = encode(&offload, link, &packet).expect("encode");
                assert_eq!(decode(header, link, &packet), Ok(offload));
            }
        }
    }

    #[test]
    fn the_header_has_the_layout_of_virtio() {
        let header = encode(&tcp4_offload(1400), 14, &tcp4(5000)).expect("encode");
        let mut expected = vec![1, 1];
        for field in [54_u16, 1400, 34, 16] {
            expected.extend(field.to_ne_bytes());
        }
        assert_eq!(header.as_slice(), expected);
    }

    #[test]
    fn checksum_states_survive() {
        let packet = tcp4(10);
        for checksum in [Checksum::Complete, Checksum::Verified, Checksum::Partial { start: 20, offset: 16 }] {
            let offload = Offload { checksum, segmentation: None };
            assert_eq!(decode(encode(&offload, 0, &packet).expect("encode"), 0, &packet), Ok(offload));
        }
    }

    #[test]
    fn segments_are_counted() {
        assert_eq!(segments(&tcp4_offload(1400), &tcp4(2801)), Some(Segments { headers: 40, count: 3 }));
        assert_eq!(segments(&tcp4_offload(1400), &tcp4(2800)), Some(Segments { headers: 40, count: 2 }));
        assert_eq!(segments(&Offload::default(), &tcp4(2800)), None);
    }

    #[test]
    fn a_packet_of_one_segment_is_none() {
        let packet = tcp4(1400);
        let header = encode(&tcp4_offload(1400), 0, &packet).expect("encode");
        assert_eq!(header[1], SEGMENT_NONE);
        let mut claimed = header;
        claimed[1] = SEGMENT_TCP4;
        claimed[4..6].copy_from_slice(&1400_u16.to_ne_bytes());
        assert_eq!(decode(claimed, 0, &packet).expect("decode").segmentation, None);
    }

    #[test]
    fn the_length_of_headers_is_never_believed() {
        let packet = tcp4(5000);
        let mut header = encode(&tcp4_offload(1400), 0, &packet).expect("encode");
        header[2..4].copy_from_slice(&0xffff_u16.to_ne_bytes());
        assert_eq!(decode(header, 0, &packet), Ok(tcp4_offload(1400)));
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused() {
        let packet = tcp4(5000);
        let with = |change: &dyn Fn(&mut Offload)| {
            let mut offload = tcp4_offload(1400);
            change(&mut offload);
            encode(&offload, 0, &packet).expect_err("refused")
        };
        let segment = |kind, size| Some(Segmentation { kind, size, ecn: false });
        assert_eq!(with(&|o| o.checksum = Checksum::Complete), VnetError::SegmentChecksum);
        assert_eq!(with(&|o| o.checksum = Checksum::Partial { start: 20, offset: 6 }), VnetError::SegmentChecksum);
        assert_eq!(with(&|o| o.checksum = Checksum::Partial { start: 16, offset: 16 }), VnetError::ChecksumBounds);
        assert_eq!(with(&|o| o.checksum = Checksum::Partial { start: 5030, offset: 16 }), VnetError::ChecksumBounds);
        assert_eq!(with(&|o| o.segmentation = segment(SegmentKind::TcpV4, 0)), VnetError::SegmentSize);
        assert_eq!(with(&|o| o.segmentation = segment(SegmentKind::TcpV4, BY_FRAGS)), VnetError::SegmentSize);
        assert_eq!(with(&|o| o.segmentation = segment(SegmentKind::TcpV6, 1400)), VnetError::SegmentKind);
        assert_eq!(with(&|o| o.segmentation = segment(SegmentKind::Udp, 1400)), VnetError::SegmentKind);
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let packet = tcp4(100);
        let mut header = [0; HEADER];
        header[1] = 3; // UFO, which no kernel makes since 4.14
        assert_eq!(decode(header, 0, &packet), Err(VnetError::SegmentKind));
        header[1] = SEGMENT_TCP4;
        assert_eq!(decode(header, 0, &packet), Err(VnetError::SegmentChecksum));
        header[0] = NEEDS_CHECKSUM;
        header[6..8].copy_from_slice(&20_u16.to_ne_bytes());
        assert_eq!(decode(header, 34, &packet), Err(VnetError::ChecksumBounds));
        assert_eq!(decode(header, 0, &[]), Err(VnetError::NoIpHeader));
    }

    /// No header and no packet makes either direction panic.
    #[test]
    fn random_bytes_do_no_harm() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut header = [0; HEADER];
            random.fill(&mut header);
            let mut packet = vec![0; random.usize(0..120)];
            random.fill(&mut packet);
            if let Ok(offload) = decode(header, random.u16(0..20), &packet) {
                encode(&offload, 14, &packet).expect("what was read can be written");
            }
        }
    }
}
