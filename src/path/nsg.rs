//! Network security groups: may a NIC send the packet, and may another get it?
//!
//! What a NIC sends meets its own group and then that of its subnet, before the route is looked for; what a NIC gets
//! meets the groups the other way round, last. Both have to allow it, and a NIC without a group allows everything. Inside
//! a subnet it is the same. Addresses are private ones: of what comes in, the destination behind a public address; of
//! what goes out, the source before it is translated (Azure, "How network security groups filter network traffic").
//!
//! Addresses of the platform as destinations are outside rules, but for rules with the tags of these addresses.
//!
//! Only first packets come here: replies follow the flow. A rule that changes is for new flows, unless its group flushes
//! connections.

use std::net::IpAddr;

use super::observer::{Observer, StageRecord};
use super::order::Standing;
use super::subject::Subject;
use super::verdict::DropReason;
use crate::packet::parse::protocol;
use crate::snapshot::{Access, NicNsgs, Nsg, NsgId, PLATFORM, PortEntry, PortId, PortKind, RuleInfo, Snapshot};

/// Which way a packet goes, seen from the NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// The NIC sends it.
    Outbound,
    /// The NIC gets it.
    Inbound,
}

impl Direction {
    /// Both, in the order of their counters.
    pub const ALL: [Self; 2] = [Self::Outbound, Self::Inbound];

    /// Which way a packet that entered through a port goes through the node: out where a NIC has sent it, whoever gets it, and in
    /// where it came by an edge, the gateway, or from a service.
    pub fn through(snapshot: &Snapshot, ingress: PortId) -> Self {
        match snapshot.port(ingress) {
            Some(port) if port.kind == PortKind::Nic => Self::Outbound,
            _ => Self::Inbound,
        }
    }

    /// The name in Azure's tools.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "Outbound",
            Self::Inbound => "Inbound",
        }
    }
}

/// Whose group it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Association {
    /// That of the NIC's subnet.
    Subnet,
    /// The NIC's own.
    NetworkInterface,
}

/// What a group says about a packet.
#[derive(Debug, Clone, Copy)]
pub struct Ruling<'s> {
    /// The group.
    pub nsg: &'s Nsg,
    /// The first of its rules that takes the packet. None where no rule does, which denies, and where the packet goes to an
    /// address of the platform and no rule is about that, which allows.
    pub rule: Option<&'s RuleInfo>,
    /// Whether the packet passes the group.
    pub access: Access,
}

/// The groups that a packet of a NIC meets, in their order.
pub fn asked(port: &PortEntry, direction: Direction) -> impl Iterator<Item = (Association, NsgId)> {
    let subnet = port.nsgs.subnet.map(|group| (Association::Subnet, group));
    let nic = port.nsgs.nic.map(|group| (Association::NetworkInterface, group));
    let order = match direction {
        Direction::Outbound => [nic, subnet],
        Direction::Inbound => [subnet, nic],
    };
    order.into_iter().flatten()
}

/// Asks the groups of a NIC. `subject` has the addresses and ports that are to be judged.
///
/// # Errors
/// A group denies the packet.
pub fn check(
    snapshot: &Snapshot,
    port: &PortEntry,
    direction: Direction,
    subject: &Subject,
    standing: Standing,
    observer: &mut impl Observer,
) -> Result<(), DropReason> {
    if port.nsgs == NicNsgs::default() {
        return Ok(());
    }
    let facts = Facts::of(snapshot, subject);
    for (_, group) in asked(port, direction) {
        let Some(ruling) = rule(snapshot, group, direction, &facts) else { continue };
        let denied = ruling.access == Access::Deny;
        let lives_on = denied && standing == Standing::Established && !ruling.nsg.flush;
        observer.stage(|| record(&ruling, direction, subject, lives_on));
        if denied && !lives_on {
            return Err(match direction {
                Direction::Outbound => DropReason::NsgOutboundDenied,
                Direction::Inbound => DropReason::NsgInboundDenied,
            });
        }
    }
    Ok(())
}

/// What a group says about a packet; none for a group that the snapshot does not have.
pub fn decide<'s>(snapshot: &'s Snapshot, group: NsgId, direction: Direction, subject: &Subject) -> Option<Ruling<'s>> {
    rule(snapshot, group, direction, &Facts::of(snapshot, subject))
}

/// What rules look at, the same for every group.
struct Facts {
    source_class: u32,
    destination_class: u32,
    protocol: u8,
    ports: Option<(u16, u16)>,
    to_platform: bool,
}

impl Facts {
    fn of(snapshot: &Snapshot, subject: &Subject) -> Self {
        Self {
            source_class: snapshot.address_sets.of(subject.source),
            destination_class: snapshot.address_sets.of(subject.destination),
            protocol: subject.protocol,
            ports: has_ports(subject.protocol).then_some((subject.source_port, subject.destination_port)),
            to_platform: matches!(subject.destination, IpAddr::V4(v4) if PLATFORM.contains(&v4)),
        }
    }
}

fn rule<'s>(snapshot: &'s Snapshot, group: NsgId, direction: Direction, facts: &Facts) -> Option<Ruling<'s>> {
    let nsg = snapshot.nsgs.get(usize::from(group.0))?;
    let (rules, otherwise) = match direction {
        Direction::Outbound if facts.to_platform => (&nsg.platform, Access::Allow),
        Direction::Outbound => (&nsg.outbound, Access::Deny),
        Direction::Inbound => (&nsg.inbound, Access::Deny),
    };
    let Facts { source_class, destination_class, protocol, ports, .. } = *facts;
    let found = rules.classifier.first_match(source_class, destination_class, protocol, ports);
    let rule = found.and_then(|rule| rules.rules.get(rule));
    Some(Ruling { nsg, rule, access: rule.map_or(otherwise, |rule| rule.access) })
}

/// Whether a protocol has ports that rules may name. ICMP has an identifier in their place.
pub(super) fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP)
}

fn record(ruling: &Ruling<'_>, direction: Direction, subject: &Subject, lives_on: bool) -> StageRecord {
    let access = match ruling.access {
        Access::Allow => "allow",
        Access::Deny => "deny",
    };
    let name = match (ruling.rule, ruling.access) {
        (Some(rule), _) => rule.name.as_str(),
        (None, Access::Allow) => "an address of the platform, outside the rules",
        (None, Access::Deny) => "no rule",
    };
    let record = StageRecord::new("nsg", format!("{access}: {name} of {}", ruling.nsg.name)).with(format!(
        "{}, {} to {}{}",
        direction.name(),
        subject.source,
        subject.destination,
        ruling.rule.map_or_else(String::new, |rule| format!(", priority {}", rule.priority))
    ));
    if lives_on {
        record.with("the flow was there before and lives on: the group does not flush connections")
    } else {
        record
    }
}
