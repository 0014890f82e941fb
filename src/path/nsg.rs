//! Network security groups: may a NIC send the packet, and may another get it?
//!
//! What a NIC sends meets its own group and then that of its subnet, before the route is looked for; what a NIC gets
//! meets the groups the other way round, last. Both have to allow it, and a NIC without a group allows everything. Inside
//! a subnet it is the same. Addresses are private ones: of what comes in, the destination behind a public address; of
//! what goes out, the source before it is translated (Azure, "How network security groups filter network traffic").
//!
//! Only first packets come here: replies follow the flow. A rule that changes is for new flows, unless its group flushes
//! connections.

use super::observer::{Observer, StageRecord};
use super::order::Standing;
use super::subject::Subject;
use super::verdict::DropReason;
use crate::packet::parse::protocol;
use crate::snapshot::{Access, Nsg, NsgId, PortEntry, RuleInfo, Snapshot};

/// Which way a packet goes, seen from the NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The NIC sends it.
    Outbound,
    /// The NIC gets it.
    Inbound,
}

impl Direction {
    /// The name in Azure's tools.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "Outbound",
            Self::Inbound => "Inbound",
        }
    }
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
    let order = match direction {
        Direction::Outbound => [port.nsgs.nic, port.nsgs.subnet],
        Direction::Inbound => [port.nsgs.subnet, port.nsgs.nic],
    };
    if order == [None, None] {
        return Ok(());
    }
    for group in order.into_iter().flatten() {
        let Some((nsg, rule)) = decide(snapshot, group, direction, subject) else { continue };
        let denied = rule.is_none_or(|rule| rule.access == Access::Deny);
        let lives_on = denied && standing == Standing::Established && !nsg.flush;
        observer.stage(|| record(nsg, rule, direction, subject, lives_on));
        if denied && !lives_on {
            return Err(match direction {
                Direction::Outbound => DropReason::NsgOutboundDenied,
                Direction::Inbound => DropReason::NsgInboundDenied,
            });
        }
    }
    Ok(())
}

/// The rule of a group that a packet meets; no rule denies as a rule does.
pub fn decide<'s>(
    snapshot: &'s Snapshot,
    group: NsgId,
    direction: Direction,
    subject: &Subject,
) -> Option<(&'s Nsg, Option<&'s RuleInfo>)> {
    let nsg = snapshot.nsgs.get(usize::from(group.0))?;
    let rules = match direction {
        Direction::Outbound => &nsg.outbound,
        Direction::Inbound => &nsg.inbound,
    };
    let (source, destination) =
        (snapshot.address_sets.of(subject.source), snapshot.address_sets.of(subject.destination));
    let ports = has_ports(subject.protocol).then_some((subject.source_port, subject.destination_port));
    let found = rules.classifier.first_match(source, destination, subject.protocol, ports);
    Some((nsg, found.and_then(|rule| rules.rules.get(rule))))
}

/// Whether a protocol has ports that rules may name. ICMP has an identifier in their place.
fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
}

fn record(nsg: &Nsg, rule: Option<&RuleInfo>, direction: Direction, subject: &Subject, lives_on: bool) -> StageRecord {
    let access = match rule.map(|rule| rule.access) {
        Some(Access::Allow) => "allow",
        Some(Access::Deny) | None => "deny",
    };
    let name = rule.map_or("no rule", |rule| rule.name.as_str());
    let record = StageRecord::new("nsg", format!("{access}: {name} of {}", nsg.name)).with(format!(
        "{}, {} to {}{}",
        direction.name(),
        subject.source,
        subject.destination,
        rule.map_or_else(String::new, |rule| format!(", priority {}", rule.priority))
    ));
    if lives_on {
        record.with("the flow was there before and lives on: the group does not flush connections")
    } else {
        record
    }
}
