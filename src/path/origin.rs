//! First stage: may the packet come from where it came from, and is its destination one that is ever forwarded?
//!
//! A NIC sends only from its own addresses unless it has `ip_forwarding` (virtual network FAQ of Azure: a NIC with IP
//! forwarding receives and sends traffic that is not for its own addresses). What comes in through
//! the gateway or the internet edge never has a source of a virtual network: it could pass for a VM at a service. And
//! nothing comes in with an address that the node itself gives to endpoint traffic.

use std::net::{IpAddr, Ipv6Addr};

use super::observer::{Observer, StageRecord};
use super::subject::Subject;
use super::verdict::DropReason;
use crate::snapshot::{PLATFORM, PortEntry, PortKind};

/// Checks source and destination against the port that the packet entered through.
///
/// # Errors
/// The reason to drop it.
pub fn check(port: &PortEntry, subject: &Subject, observer: &mut impl Observer) -> Result<(), DropReason> {
    let result = destination(subject.destination).and_then(|()| source(port, subject.source));
    observer.stage(|| match result {
        Ok(()) => StageRecord::new("origin", "pass").with(if port.ip_forwarding {
            format!("{} has ip_forwarding: any source address", port.name)
        } else {
            format!("{} may be sent by {}", subject.source, port.name)
        }),
        Err(reason) => StageRecord::new("origin", format!("drop: {}", reason.name())).with(reason.text()),
    });
    result
}

/// Whether the destination is one that is ever forwarded.
fn destination(address: IpAddr) -> Result<(), DropReason> {
    match address {
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Err(DropReason::MulticastDestination),
        IpAddr::V4(v4) if PLATFORM.contains(&v4) => Ok(()),
        IpAddr::V4(v4) if v4.is_link_local() || v4.is_unspecified() || v4.is_loopback() => Err(DropReason::LinkLocal),
        IpAddr::V6(v6) if v6.is_multicast() => Err(DropReason::MulticastDestination),
        IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_loopback() || is_mapped(v6) => {
            Err(DropReason::LinkLocal)
        }
        _ => Ok(()),
    }
}

/// Whether the port may send from the source address.
pub fn source(port: &PortEntry, address: IpAddr) -> Result<(), DropReason> {
    let never = match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unspecified() || v6.is_loopback() || is_mapped(v6),
    };
    // What the node makes of a subnet's addresses nobody else may show, or it would pass for that subnet at a service. A
    // service answers from addresses of its own.
    if !port.reserved_sources.is_empty() && port.reserved_sources.iter().any(|prefix| prefix.contains(&address)) {
        return Err(DropReason::ForgedIdentity);
    }
    let allowed = !never
        && match port.kind {
            PortKind::Nic => port.ip_forwarding || port.addresses.contains(&address),
            PortKind::Gateway | PortKind::Internet => {
                !port.refused_sources.iter().any(|prefix| prefix.contains(&address))
            }
            PortKind::Service | PortKind::Backbone => true,
            PortKind::Platform => port.addresses.contains(&address),
            PortKind::Vacant => false,
        };
    if allowed { Ok(()) } else { Err(DropReason::SpoofedSource) }
}

/// IPv4-mapped addresses are for the inside of hosts (RFC 4291 section 2.5.5.2, RFC 4942 section 2.2), and for flow keys
/// here.
fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}
