//! TCP: resets made by the node, and sequence arithmetic.

use std::net::IpAddr;

use etherparse::PacketBuilder;

use super::frame::{Frame, MAX_PACKET};
use super::parse::{Parsed, TransportKind};

/// TTL and hop limit of packets that the node makes (IANA's recommended default).
pub(super) const HOP_LIMIT: u8 = 64;

/// A reset to send. A receiver acts on it only where `sequence` is exactly what it expects next (RFC 5961 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Whom the reset pretends to come from: the receiver's peer.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The peer's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The next sequence number that the receiver expects from its peer.
    pub sequence: u32,
    /// What to acknowledge, with ACK set: needed where the receiver has sent SYN and heard nothing yet (RFC 9293
    /// section 3.10.7.3).
    pub acknowledgment: Option<u32>,
}

/// Builds a reset with complete checksums. Returns `false`, with `out` empty, where the families differ.
pub fn build_reset(reset: &Reset, out: &mut Frame) -> bool {
    out.clear();
    let ip = match (reset.source, reset.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), HOP_LIMIT)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), HOP_LIMIT)
        }
        _ => return false,
    };
    let mut tcp = ip.tcp(reset.source_port, reset.destination_port, reset.sequence, 0).rst();
    if let Some(acknowledgment) = reset.acknowledgment {
        tcp = tcp.ack(acknowledgment);
    }
    let room = out.room_mut().get_mut(..MAX_PACKET).unwrap_or_default();
    let Ok(length) = tcp.write_to_slice(room, &[]) else {
        return false;
    };
    out.set_len(length);
    true
}

/// Sequence numbers that a packet takes up: its payload, and one each for SYN and FIN. A super-packet takes up those of
/// all its segments. 0 where it is not TCP.
#[inline]
pub fn sequence_span(parsed: &Parsed) -> u32 {
    let TransportKind::Tcp { flags, .. } = parsed.kind else {
        return 0;
    };
    parsed.payload_len() as u32 + u32::from(flags & Parsed::SYN != 0) + u32::from(flags & Parsed::FIN != 0)
}
