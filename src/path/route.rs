//! Second stage: where does the packet go?
//!
//! What enters through a NIC or the gateway follows the route table of its port: one prefix lookup, one row. What
//! enters from the internet reaches public addresses of services and NICs, and mappings that let it in. Services and the
//! backbone only answer: what they send belongs to a flow, or nowhere. The platform's own addresses are outside routes.
//!
//! What a NIC reaches over an endpoint answers over the endpoint. With the address of such a service nothing new comes to
//! the NIC through the gateway or an appliance: it is what is left of a way that the NIC's packets took before, or forged,
//! and a flow of it would draw the NIC's own packets there, past the endpoint.

use std::net::IpAddr;

use super::observer::{Observer, StageRecord};
use super::subject::Subject;
use super::verdict::DropReason;
use crate::snapshot::{
    Hop, HopAction, Mapping, NextHopType, PLATFORM, PoolId, PoolKind, PortEntry, PortId, PortKind, Snapshot,
    SourceAction, TableId,
};

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Out of this port.
    pub egress: PortId,
    /// With this done to its source address.
    pub source: SourceAction,
    /// And its destination leads to this.
    pub reached: Reached,
    /// Type of the next hop.
    pub next_hop_type: NextHopType,
}

/// What a destination address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// The host that has it.
    Own,
    /// It is the public address of a NIC, which has this private one.
    Instance(IpAddr),
    /// It is an address of a pool with endpoint-independent mappings: whom it leads to is known when the flow is made.
    Mapping(PoolId),
}

/// Chooses the way.
///
/// # Errors
/// The reason to drop the packet.
pub fn choose(
    snapshot: &Snapshot,
    port: &PortEntry,
    subject: &Subject,
    observer: &mut impl Observer,
) -> Result<Chosen, DropReason> {
    let result = match (port.kind, port.table) {
        (PortKind::Nic | PortKind::Gateway, _) if is_platform(subject.destination) => to_platform(snapshot, port),
        (PortKind::Platform, _) => from_platform(snapshot, subject),
        (PortKind::Nic | PortKind::Gateway, Some(table)) => by_table(snapshot, port, table, subject, observer),
        (PortKind::Internet, _) => from_internet(snapshot, subject),
        (PortKind::Service | PortKind::Backbone, _) => Err(DropReason::Unsolicited),
        (PortKind::Nic | PortKind::Gateway | PortKind::Vacant, _) => Err(DropReason::UnknownPort),
    };
    let result = match result {
        Ok(chosen) if chosen.egress == subject.ingress && !matches!(chosen.reached, Reached::Mapping(_)) => {
            Err(DropReason::Loop)
        }
        Ok(chosen) if bypasses_endpoint(snapshot, port, &reaching(subject, chosen.reached), chosen.egress) => {
            Err(DropReason::EndpointBypassed)
        }
        other => other,
    };
    observer.stage(|| match result {
        Ok(chosen) => {
            let name = snapshot.port(chosen.egress).map_or("?", |port| port.name.as_str());
            let record = StageRecord::new("next hop", format!("{} through {name}", chosen.next_hop_type.name()));
            match chosen.reached {
                Reached::Own => record,
                Reached::Instance(private) => {
                    record.with(format!("{} is the public address of {private}", subject.destination))
                }
                Reached::Mapping(pool) => {
                    let pool = snapshot.pool(pool).map_or("?", |pool| pool.name.as_str());
                    record.with(format!("{} is translated by {pool}: to whom its port belongs", subject.destination))
                }
            }
        }
        Err(reason) => StageRecord::new("next hop", format!("drop: {}", reason.name())).with(reason.text()),
    });
    result
}

/// Whether what enters through a port for a NIC has an address that the NIC itself reaches over an endpoint.
pub(super) fn bypasses_endpoint(snapshot: &Snapshot, port: &PortEntry, subject: &Subject, egress: PortId) -> bool {
    let receiver = forwarded_to(snapshot, port, subject, egress);
    let hop = receiver.and_then(|receiver| snapshot.route(receiver.table?, subject.source, subject.protocol));
    hop.is_some_and(|hop| matches!(hop.action, HopAction::Deliver { source: SourceAction::Endpoint(_), .. }))
}

/// A packet with the private address that it leads to, as far as that is known.
fn reaching(subject: &Subject, reached: Reached) -> Subject {
    match reached {
        Reached::Instance(private) => Subject { destination: private, ..*subject },
        Reached::Own | Reached::Mapping(_) => *subject,
    }
}

/// The NIC that a packet reaches which the gateway, the internet edge or an appliance has only passed on.
pub(super) fn forwarded_to<'s>(
    snapshot: &'s Snapshot,
    port: &PortEntry,
    subject: &Subject,
    egress: PortId,
) -> Option<&'s PortEntry> {
    let forwards = match port.kind {
        PortKind::Gateway | PortKind::Internet => true,
        PortKind::Nic => port.ip_forwarding && !port.addresses.contains(&subject.source),
        PortKind::Service | PortKind::Backbone | PortKind::Platform | PortKind::Vacant => false,
    };
    snapshot.port(egress).filter(|receiver| {
        forwards && receiver.kind == PortKind::Nic && receiver.addresses.contains(&subject.destination)
    })
}

fn is_platform(destination: IpAddr) -> bool {
    matches!(destination, IpAddr::V4(v4) if PLATFORM.contains(&v4))
}

/// VMs reach the platform whatever their routes say; on-premises does not (Azure, "What is IP address 168.63.129.16?").
fn to_platform(snapshot: &Snapshot, port: &PortEntry) -> Result<Chosen, DropReason> {
    let egress = snapshot.platform.filter(|_| port.kind == PortKind::Nic).ok_or(DropReason::PlatformAddress)?;
    let reached = Reached::Own;
    Ok(Chosen { egress, source: SourceAction::Keep, reached, next_hop_type: NextHopType::Platform })
}

/// The platform probes VMs: the one that has the address. Of networks with the same addresses it does not know which.
fn from_platform(snapshot: &Snapshot, subject: &Subject) -> Result<Chosen, DropReason> {
    let has = |port: &PortEntry| port.kind == PortKind::Nic && port.addresses.contains(&subject.destination);
    let mut found = snapshot.ports.iter().zip(0..).filter(|(port, _)| has(port));
    match (found.next(), found.next()) {
        (Some((_, egress)), None) => Ok(Chosen {
            egress: PortId(egress),
            source: SourceAction::Keep,
            reached: Reached::Own,
            next_hop_type: NextHopType::VnetLocal,
        }),
        (Some(_), Some(_)) => Err(DropReason::FlowConflict),
        (None, _) => Err(DropReason::AddressUnassigned),
    }
}

/// From the internet: to services, to public addresses of NICs, to mappings.
fn from_internet(snapshot: &Snapshot, subject: &Subject) -> Result<Chosen, DropReason> {
    let chosen =
        |egress, reached| Chosen { egress, source: SourceAction::Keep, reached, next_hop_type: NextHopType::Internet };
    if let Some(egress) = snapshot.public_port(subject.destination) {
        return Ok(chosen(egress, Reached::Own));
    }
    match inside(snapshot, subject.destination) {
        Some(Ok((egress, reached))) => Ok(chosen(egress.unwrap_or(subject.ingress), reached)),
        Some(Err(reason)) => Err(reason),
        None => Err(DropReason::NoPublicAddress),
    }
}

/// What inside a public address leads to, and through which port if that is known; none for an address of nobody here.
fn inside(snapshot: &Snapshot, destination: IpAddr) -> Option<Result<(Option<PortId>, Reached), DropReason>> {
    if let Some((port, private)) = snapshot.instance(destination) {
        return Some(Ok((Some(port), Reached::Instance(private))));
    }
    // Pools of endpoints are for services, which start nothing.
    let pool = snapshot
        .pool_of(destination)
        .filter(|pool| snapshot.pool(*pool).is_some_and(|pool| pool.kind != PoolKind::Snat))?;
    Some(match snapshot.pool(pool)?.mapping {
        Mapping::EndpointIndependent => Ok((None, Reached::Mapping(pool))),
        Mapping::AddressAndPortDependent => Err(DropReason::NoMapping),
    })
}

/// Follows a route table.
fn by_table(
    snapshot: &Snapshot,
    port: &PortEntry,
    table: TableId,
    subject: &Subject,
    observer: &mut impl Observer,
) -> Result<Chosen, DropReason> {
    let hop = snapshot.route(table, subject.destination, subject.protocol);
    observer.stage(|| record(snapshot, table, subject, hop));
    let hop = hop.ok_or(DropReason::NoRoute)?;
    match hop.action {
        HopAction::Deliver { port: egress, source, forwarded_allowed } => {
            if !forwarded_allowed && !port.address_space.iter().any(|prefix| prefix.contains(&subject.source)) {
                return Err(DropReason::ForwardedTrafficRefused);
            }
            let chosen = Chosen { egress, source, reached: Reached::Own, next_hop_type: hop.next_hop_type };
            if snapshot.port(egress).is_none_or(|port| port.kind != PortKind::Internet) {
                return Ok(chosen);
            }
            // Hairpin: a public address of the inside is not sent out to come back (RFC 4787 REQ-9).
            match inside(snapshot, subject.destination) {
                Some(Ok((egress, reached))) => {
                    Ok(Chosen { egress: egress.unwrap_or(subject.ingress), reached, ..chosen })
                }
                Some(Err(reason)) => Err(reason),
                None => Ok(chosen),
            }
        }
        HopAction::Drop(reason) => Err(reason.into()),
    }
}

fn record(snapshot: &Snapshot, table: TableId, subject: &Subject, hop: Option<&Hop>) -> StageRecord {
    let name = snapshot.tables.get(usize::from(table.0)).map_or("?", |table| table.name.as_str());
    let winner = hop.and_then(|hop| {
        let route = snapshot.tables.get(usize::from(table.0))?.routes.get(hop.route as usize)?;
        Some(route.text.as_str())
    });
    let record = StageRecord::new("route", winner.unwrap_or("no route matches"))
        .with(format!("effective routes of {name}, destination {}", subject.destination));
    if snapshot.steers(subject.protocol) {
        record
    } else {
        record.with(format!("endpoint routes do not steer IP protocol {}", subject.protocol))
    }
}
