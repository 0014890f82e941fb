//! Second stage: where does the packet go?
//!
//! What enters through a NIC or the gateway follows the route table of its port: one prefix lookup, one row. What
//! enters from the internet reaches public addresses of services. Services and the backbone only answer: what they send
//! belongs to a flow, or nowhere.

use super::observer::{Observer, StageRecord};
use super::subject::Subject;
use super::verdict::DropReason;
use crate::snapshot::{Hop, HopAction, NextHopType, PortEntry, PortId, PortKind, Snapshot, SourceAction, TableId};

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Out of this port.
    pub egress: PortId,
    /// With this done to its source address.
    pub source: SourceAction,
    /// Type of the next hop.
    pub next_hop_type: NextHopType,
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
        (PortKind::Nic | PortKind::Gateway, Some(table)) => by_table(snapshot, port, table, subject, observer),
        (PortKind::Internet, _) => match snapshot.public_port(subject.destination) {
            Some(egress) => Ok(Chosen { egress, source: SourceAction::Keep, next_hop_type: NextHopType::Internet }),
            None => Err(DropReason::NoPublicAddress),
        },
        (PortKind::Service | PortKind::Backbone, _) => Err(DropReason::Unsolicited),
        (PortKind::Nic | PortKind::Gateway | PortKind::Vacant, _) => Err(DropReason::UnknownPort),
    };
    let result = match result {
        Ok(chosen) if chosen.egress == subject.ingress => Err(DropReason::Loop),
        other => other,
    };
    observer.stage(|| match result {
        Ok(chosen) => {
            let name = snapshot.port(chosen.egress).map_or("?", |port| port.name.as_str());
            StageRecord::new("next hop", format!("{} through {name}", chosen.next_hop_type.name()))
        }
        Err(reason) => StageRecord::new("next hop", format!("drop: {}", reason.name())).with(reason.text()),
    });
    result
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
            Ok(Chosen { egress, source, next_hop_type: hop.next_hop_type })
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
