//! TCP packets as both ends of a connection write and read them.

use std::collections::HashMap;
use std::net::IpAddr;

use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

const TCP: u8 = 6;
const FRAGMENT: u8 = 44;

/// One segment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) urgent: u16,
    pub(crate) payload: Vec<u8>,
}

impl std::fmt::Display for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags: String = [(SYN, 'S'), (ACK, 'A'), (PSH, 'P'), (FIN, 'F'), (RST, 'R'), (URG, 'U')]
            .iter()
            .filter(|(flag, _)| self.flags & flag != 0)
            .map(|(_, letter)| *letter)
            .collect();
        let Self { from, to, sequence, acknowledgment, payload, .. } = self;
        write!(f, "{}:{} > {}:{} {flags} {sequence} ack {acknowledgment}", from.0, from.1, to.0, to.1)?;
        write!(f, " +{} {}", payload.len(), payload[..payload.len().min(12)].escape_ascii())
    }
}

/// The one's-complement sum of bytes, added to another.
fn sum(start: u32, bytes: &[u8]) -> u32 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u32
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn pseudo(from: IpAddr, to: IpAddr, length: usize) -> u32 {
    let addresses = sum(sum(0, &octets(from)), &octets(to));
    sum(addresses + u32::from(TCP), &(length as u32).to_be_bytes())
}

impl Segment {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers that it takes.
    pub(crate) fn span(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20 + self.payload.len());
        bytes.extend(self.from.1.to_be_bytes());
        bytes.extend(self.to.1.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgment.to_be_bytes());
        bytes.extend([0x50, self.flags, 0xff, 0xff, 0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet, with every checksum right.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let complete = !sum(pseudo(self.from.0, self.to.0, transport.len()), &transport) as u16;
        transport[16..18].copy_from_slice(&complete.to_be_bytes());
        let mut packet = header(self.from.0, self.to.0, transport.len());
        packet.extend(transport);
        packet
    }

    /// The packet with its checksum left to the device, as a super-packet if there is a size.
    pub(crate) fn offloaded(&self, size: Option<u16>) -> Frame {
        let mut transport = self.transport();
        let partial = pseudo(self.from.0, self.to.0, transport.len()) as u16;
        transport[16..18].copy_from_slice(&partial.to_be_bytes());
        let mut packet = header(self.from.0, self.to.0, transport.len());
        let start = packet.len() as u16;
        packet.extend(transport);
        let mut frame = Frame::from_packet(&packet);
        let kind = if self.from.0.is_ipv4() { SegmentKind::TcpV4 } else { SegmentKind::TcpV6 };
        frame.offload = Offload {
            checksum: Checksum::Partial { start, offset: 16 },
            segmentation: size.map(|size| Segmentation { kind, size, ecn: false }),
        };
        frame
    }

    /// An IPv4 packet in two fragments, cut behind so many bytes of what it carries.
    pub(crate) fn fragments(&self, cut: usize, identification: u16) -> Option<[Vec<u8>; 2]> {
        let whole = self.packet();
        let cut = cut / 8 * 8;
        if !self.from.0.is_ipv4() || cut < 8 || 20 + cut >= whole.len() {
            return None;
        }
        let piece = |bytes: &[u8], place: u16| {
            let mut piece = whole[..20].to_vec();
            piece[2..4].copy_from_slice(&(20 + bytes.len() as u16).to_be_bytes());
            piece[4..6].copy_from_slice(&identification.to_be_bytes());
            piece[6..8].copy_from_slice(&place.to_be_bytes());
            fix_header(&mut piece);
            piece.extend(bytes);
            piece
        };
        Some([piece(&whole[20..20 + cut], 0x2000), piece(&whole[20 + cut..], (cut / 8) as u16)])
    }
}

fn fix_header(header: &mut [u8]) {
    header[10..12].fill(0);
    let right = !sum(0, &header[..20]) as u16;
    header[10..12].copy_from_slice(&right.to_be_bytes());
}

fn header(from: IpAddr, to: IpAddr, length: usize) -> Vec<u8> {
    let mut header = match from {
        IpAddr::V4(_) => vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, TCP, 0, 0],
        IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, 0, TCP, 64],
    };
    header.extend(octets(from));
    header.extend(octets(to));
    if from.is_ipv4() {
        header[2..4].copy_from_slice(&(20 + length as u16).to_be_bytes());
        fix_header(&mut header);
    } else {
        header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    }
    header
}

/// A fragment: where it begins, whether more follow, and its bytes.
type Piece = (usize, bool, Vec<u8>);

/// The identification of a fragment, where it begins, and whether more follow.
type Place = (u32, usize, bool);

/// Reads packets as a host does: what has a wrong checksum is not seen, fragments are put together.
#[derive(Default)]
pub(crate) struct Receiver {
    fragments: HashMap<(IpAddr, IpAddr, u32), Vec<Piece>>,
}

impl Receiver {
    pub(crate) fn read(&mut self, bytes: &[u8], checksum: Checksum) -> Option<Segment> {
        let (from, to, fragment, payload): (IpAddr, IpAddr, Option<Place>, &[u8]) = if bytes[0] >> 4 == 4 {
            let array = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap();
            let place = u16::from_be_bytes([bytes[6], bytes[7]]);
            let (offset, more) = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
            let identification = u32::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            let fragment = (offset > 0 || more).then_some((identification, offset, more));
            if bytes[9] != TCP {
                return None;
            }
            (array(12).into(), array(16).into(), fragment, &bytes[20..])
        } else {
            let array = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap();
            let fragment = (bytes[6] == FRAGMENT).then(|| {
                let place = u16::from_be_bytes([bytes[42], bytes[43]]);
                let identification = u32::from_be_bytes(bytes[44..48].try_into().unwrap());
                (identification, usize::from(place & 0xfff8), place & 1 != 0)
            });
            let next = if fragment.is_some() { bytes[40] } else { bytes[6] };
            if next != TCP {
                return None;
            }
            (array(8).into(), array(24).into(), fragment, &bytes[if fragment.is_some() { 48 } else { 40 }..])
        };
        let Some((identification, offset, more)) = fragment else { return segment(from, to, payload, checksum) };
        let pieces = self.fragments.entry((from, to, identification)).or_default();
        pieces.push((offset, more, payload.to_vec()));
        pieces.sort_by_key(|(offset, ..)| *offset);
        let mut whole = Vec::new();
        let mut complete = false;
        for (offset, more, bytes) in pieces.iter() {
            if *offset > whole.len() {
                return None;
            }
            whole.truncate(*offset);
            whole.extend(bytes);
            complete |= !more;
        }
        if !complete {
            return None;
        }
        self.fragments.remove(&(from, to, identification));
        segment(from, to, &whole, Checksum::Complete)
    }
}

fn segment(from: IpAddr, to: IpAddr, bytes: &[u8], checksum: Checksum) -> Option<Segment> {
    if bytes.len() < 20 {
        return None;
    }
    let pseudo = pseudo(from, to, bytes.len());
    let is_sound = match checksum {
        Checksum::Complete => sum(pseudo, bytes) == 0xffff,
        Checksum::Verified => true,
        Checksum::Partial { .. } => u32::from(u16::from_be_bytes([bytes[16], bytes[17]])) == pseudo,
    };
    if !is_sound {
        return None;
    }
    let two = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let four = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    Some(Segment {
        from: (from, two(0)),
        to: (to, two(2)),
        flags: bytes[13],
        sequence: four(4),
        acknowledgment: four(8),
        urgent: two(18),
        payload: bytes.get(usize::from(bytes[12] >> 4) * 4..)?.to_vec(),
    })
}
