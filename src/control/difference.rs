//! How what could be in force differs from what is: effective routes, devices, and flows that would not go
//! where they go.

use std::collections::{BTreeMap, BTreeSet};

use std::net::IpAddr;

use super::answers::{DocumentAnswer, FlowAnswer, FlowChanges, RouteChanges};
use super::explain::{has_ports, socket};
use super::ports::Attachment;
use super::refusal::Refusal;
use crate::model::network::SubnetRef;
use crate::path::forwarder::FlowSummary;
use crate::path::redecide::Foreseen;
use crate::plan::Plan;
use crate::plan::explain::{AzureRoute, protocol_name};
use crate::snapshot::{PortId, Snapshot};

/// Subnets whose effective routes differ. Routes with a long list of prefixes are told by name and count.
pub(crate) fn routes(before: &Plan, after: &Plan) -> Vec<RouteChanges> {
    let (mut old, mut new) = (by_subnet(before), by_subnet(after));
    let names: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    let mut changes = Vec::new();
    for subnet in names {
        let old = old.remove(&subnet).unwrap_or_default();
        let new = new.remove(&subnet).unwrap_or_default();
        let lines = |these: &[(AzureRoute, Option<String>)], those: &[(AzureRoute, Option<String>)]| -> Vec<String> {
            these.iter().filter(|route| !those.contains(route)).map(line).collect()
        };
        let (added, removed) = (lines(&new, &old), lines(&old, &new));
        if !added.is_empty() || !removed.is_empty() {
            changes.push(RouteChanges { subnet, added, removed });
        }
    }
    changes
}

fn by_subnet(plan: &Plan) -> BTreeMap<String, Vec<(AzureRoute, Option<String>)>> {
    let networks = plan.network().virtual_networks.iter().enumerate();
    networks
        .flat_map(|(virtual_network, declared)| {
            (0..declared.subnets.len()).map(move |subnet| SubnetRef { virtual_network, subnet })
        })
        .map(|subnet| {
            let answer = plan.routes_answer(subnet);
            (answer.subnet, answer.routes.into_iter().map(|row| (row.route, row.service)).collect())
        })
        .collect()
}

/// A route in one line: `User Active 0.0.0.0/0 VirtualNetworkGateway default`.
fn line((route, service): &(AzureRoute, Option<String>)) -> String {
    let prefix = match (route.destination_service_tags.first(), route.address_prefix.as_slice()) {
        (Some(tag), prefixes) => format!("{tag} ({} prefixes)", prefixes.len()),
        (None, [prefix]) => prefix.clone(),
        (None, prefixes) => format!("{} prefixes", prefixes.len()),
    };
    let mut line = format!("{} {} {prefix} {}", route.source, route.state, route.next_hop_type);
    for more in route.next_hop_ip_address.iter().chain(&route.name).chain(service) {
        line.push(' ');
        line.push_str(more);
    }
    if let Some(source) = route.endpoint_source.as_deref().filter(|source| *source != "private") {
        line.push_str(&format!(" ({source})"));
    }
    line
}

/// How the devices of two networks differ.
pub(crate) struct PortChanges {
    /// Devices to open.
    pub(crate) added: Vec<Attachment>,
    /// Devices to close.
    pub(crate) removed: Vec<Attachment>,
    /// The same devices, before and after, told other addresses or routes.
    pub(crate) changed: Vec<(Attachment, Attachment)>,
}

impl PortChanges {
    /// Compares the devices in force with those of another document.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] where an open device would have to be another one under the same name: it cannot be opened
    /// before the old one is closed.
    pub(crate) fn between(before: &[Attachment], after: &[Attachment]) -> Result<Self, Refusal> {
        let mut changes = Self { added: Vec::new(), removed: Vec::new(), changed: Vec::new() };
        for attachment in after {
            match before.iter().find(|old| old.same_device(attachment)) {
                Some(old) if old != attachment => changes.changed.push((old.clone(), attachment.clone())),
                Some(_) => {}
                None => changes.added.push(attachment.clone()),
            }
        }
        let gone = before.iter().filter(|old| !after.iter().any(|attachment| old.same_device(attachment)));
        changes.removed = gone.cloned().collect();
        for added in &changes.added {
            if let Some(old) = changes.removed.iter().find(|old| old.same_place(added)) {
                return Err(Refusal::Conflict(format!(
                    "the interface {} of {} would have to be made anew for {}: apply a document without it first, or \
                     restart the node",
                    old.interface(),
                    old.name,
                    added.name
                )));
            }
        }
        Ok(changes)
    }

    /// Numbers of ports that are there no more.
    pub(crate) fn gone(&self) -> Vec<PortId> {
        let replaced = |port: PortId| self.added.iter().any(|added| added.port == port);
        self.removed.iter().map(|removed| removed.port).filter(|port| !replaced(*port)).collect()
    }

    /// The changes as the socket tells them.
    pub(crate) fn answer(
        &self,
        generation: u64,
        dry_run: bool,
        routes: Vec<RouteChanges>,
        flows: FlowChanges,
    ) -> DocumentAnswer {
        let names = |attachments: &[Attachment]| attachments.iter().map(|port| port.name.clone()).collect();
        DocumentAnswer {
            generation,
            dry_run,
            routes,
            ports_added: names(&self.added),
            ports_removed: names(&self.removed),
            ports_changed: self.changed.iter().map(|(_, after)| after.name.clone()).collect(),
            flows,
        }
    }
}

/// What becomes of flows, as every worker tells, with the names that ports have before the change.
pub(crate) fn flow_changes(foreseen: &Foreseen, before: &Snapshot) -> FlowChanges {
    let Foreseen { reset, moved, kept, cut } = foreseen;
    let cut = cut.iter().map(|flow| flow_answer(flow, before)).collect();
    FlowChanges { complete: true, reset: *reset, moved: *moved, kept: *kept, cut }
}

/// A flow with names for numbers.
pub(crate) fn flow_answer(flow: &FlowSummary, snapshot: &Snapshot) -> FlowAnswer {
    let FlowSummary { sides, state } = flow;
    let shown = |side| socket_text(sides.protocol, side);
    FlowAnswer {
        protocol: protocol_name(sides.protocol),
        ingress: snapshot.port_name(sides.ingress),
        source: shown(sides.source),
        destination: shown(sides.destination),
        egress: snapshot.port_name(sides.egress),
        presented: shown(sides.presented),
        reached: shown(sides.reached),
        next_hop_type: state.next_hop_type.name().to_owned(),
        phase: state.phase.name().to_owned(),
        packets: state.packets,
        bytes: state.bytes,
    }
}

/// `address:port`, or the address alone where a protocol has no ports.
pub(crate) fn socket_text(protocol: u8, (address, port): (IpAddr, u16)) -> String {
    if has_ports(protocol) { socket(address, port) } else { address.to_string() }
}
