//! What a decision is about: a packet reduced to the facts that policy reads. It can be made from a packet and from the
//! key of a flow, so that a flow is decided again without a packet.

use std::net::IpAddr;

use crate::packet::parse::Parsed;
use crate::snapshot::PortId;

/// The facts that the stages decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Where it entered.
    pub ingress: PortId,
    /// Source address as it entered.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number of the transport.
    pub protocol: u8,
    /// Source port, ICMP identifier, or 0.
    pub source_port: u16,
    /// Destination port, ICMP identifier, or 0.
    pub destination_port: u16,
}

impl Subject {
    /// The subject of a packet.
    pub fn of(ingress: PortId, parsed: &Parsed) -> Self {
        Self {
            ingress,
            source: parsed.source(),
            destination: parsed.destination(),
            protocol: parsed.protocol,
            source_port: parsed.source_port,
            destination_port: parsed.destination_port,
        }
    }
}
