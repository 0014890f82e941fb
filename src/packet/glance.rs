//! Whose conversation a packet seems to be of: read at fixed places and not checked, for work that only has to be right
//! most of the time, such as having the flow in the cache before the packet is parsed.

use super::field::{bytes_at, u16_at};
use super::parse::{Addresses, protocol};

/// What a packet seems to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Source and destination.
    pub addresses: Addresses,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// TCP or UDP.
    pub protocol: u8,
}

/// Looks at a packet; none where it is not TCP or UDP right behind an IP header without options.
#[inline]
pub fn glance(packet: &[u8]) -> Option<Glance> {
    let (addresses, protocol, transport) = match packet.first()? {
        0x45 => {
            let [source, destination] = [bytes_at::<4>(packet, 12)?, bytes_at::<4>(packet, 16)?];
            let addresses = Addresses::V4 { source: source.into(), destination: destination.into() };
            (addresses, *packet.get(9)?, 20)
        }
        first if first >> 4 == 6 => {
            let [source, destination] = [bytes_at::<16>(packet, 8)?, bytes_at::<16>(packet, 24)?];
            let addresses = Addresses::V6 { source: source.into(), destination: destination.into() };
            (addresses, *packet.get(6)?, 40)
        }
        _ => return None,
    };
    if !matches!(protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let source_port = u16_at(packet, transport)?;
    let destination_port = u16_at(packet, transport + 2)?;
    Some(Glance { addresses, source_port, destination_port, protocol })
}
