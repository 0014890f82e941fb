//! Firewalls of resources: does the service take what arrives?
//!
//! What came over an endpoint carries the identity of its subnet, and is judged by that alone: a rule for an address never
//! admits it. What came any other way is judged by its public source address, and a virtual network rule never admits it
//! (Azure, "Configure Azure Storage firewalls and virtual networks"). The identity is that of the NIC's subnet that the
//! packet entered by: behind an appliance with an endpoint the service sees the appliance's subnet. At a resource of a
//! region that the endpoint does not reach, there is no identity.
//!
//! Of resources that share an address, the name that the connection gives says whose firewall it meets
//! ([`super::policy`]); where there is none, all of them have to admit the packet.

use std::net::IpAddr;

use super::observer::{Observer, StageRecord};
use super::policy::{Named, Ruling, Wanted, wanted};
use super::subject::Subject;
use super::verdict::DropReason;
use crate::packet::parse::protocol;
use crate::snapshot::{Firewall, Front, PortEntry, PortId, Resource, ResourceId, Snapshot, SubnetKey};

/// Who knocks at a firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller<'s> {
    /// Where the packet entered.
    pub ingress: PortId,
    /// The port that is.
    pub port: &'s PortEntry,
    /// The endpoint that it came over.
    pub endpoint: Option<u16>,
    /// The source address that the service sees.
    pub source: IpAddr,
}

impl Caller<'_> {
    /// The identity that a resource of a region sees.
    pub fn identity(&self, location: &str) -> Option<SubnetKey> {
        let scope = self.port.endpoint_scopes.get(usize::from(self.endpoint?))?;
        self.port.identity.filter(|_| scope.identifies_at(location))
    }
}

/// What becomes of a packet that a firewall has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The resource takes it.
    Admitted,
    /// The resource answers the connection at this port of its own, as services answer whom they deny.
    Answered(u16),
}

/// Why a firewall decided as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no firewall, or its default action is Allow.
    Default,
    /// A virtual network rule.
    VirtualNetworkRule,
    /// An IP rule.
    IpRule,
    /// A trusted service, or a resource instance.
    Exception,
    /// Public network access is disabled.
    PublicNetworkAccess,
    /// No virtual network rule admits the subnet.
    NoVirtualNetworkRule,
    /// It came over the endpoint from another region than those that the endpoint reaches.
    OtherRegion,
    /// No IP rule admits the address.
    NoIpRule,
}

impl Why {
    /// One sentence for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Default => "nothing restricts access to the resource",
            Self::VirtualNetworkRule => "a virtual network rule admits the subnet",
            Self::IpRule => "an IP rule admits the address",
            Self::Exception => "an exception admits the NIC: trusted service or resource instance",
            Self::PublicNetworkAccess => "public network access is disabled",
            Self::NoVirtualNetworkRule => "over the endpoint, and no virtual network rule admits the subnet",
            Self::OtherRegion => "over the endpoint, which gives no identity to resources of this region",
            Self::NoIpRule => "not over an endpoint, and no IP rule admits the address",
        }
    }
}

/// The decision of one resource. True where it admits the caller.
pub fn decide(resource: &Resource, caller: &Caller<'_>) -> (bool, Why) {
    let Some(firewall) = &resource.firewall else { return (true, Why::Default) };
    if firewall.excepts(caller.ingress) {
        return (true, Why::Exception);
    }
    if !firewall.public_network_access {
        return (false, Why::PublicNetworkAccess);
    }
    if firewall.default_allow {
        return (true, Why::Default);
    }
    if caller.endpoint.is_some() {
        return match caller.identity(&resource.location) {
            Some(identity) if firewall.admits_identity(identity) => (true, Why::VirtualNetworkRule),
            Some(_) => (false, Why::NoVirtualNetworkRule),
            None => (false, Why::OtherRegion),
        };
    }
    if firewall.admits_address(caller.source) { (true, Why::IpRule) } else { (false, Why::NoIpRule) }
}

/// Asks the firewall of the resource that a packet arrives at. `subject` has the destination as the packet entered, by
/// which resources are found.
///
/// # Errors
/// The firewall denies it, and nothing answers in its place.
pub fn check(
    snapshot: &Snapshot,
    caller: &Caller<'_>,
    subject: &Subject,
    named: Named,
    observer: &mut impl Observer,
) -> Result<(Admission, Ruling), DropReason> {
    let Some(front) = snapshot.resources.front(subject.destination) else {
        return Ok((Admission::Admitted, Ruling::Pass));
    };
    let admitted = (Admission::Admitted, Ruling::Pass);
    match (front, wanted(snapshot, subject, named)) {
        (_, Wanted::Resource(resource)) => {
            let Some(resource) = snapshot.resources.get(resource) else { return Ok(admitted) };
            admit(resource, caller, subject, named, observer)
        }
        (Front::Shared(group), Wanted::Unknown(application)) => {
            if !snapshot.resources.group(group).is_some_and(|group| group.has_firewall) {
                return Ok(admitted);
            }
            observer.stage(|| {
                StageRecord::new("firewall", "undecided until the client names the resource")
                    .with(format!("several resources share {}", subject.destination))
            });
            Ok((Admission::Admitted, Ruling::Inspect(application)))
        }
        (Front::Shared(group), Wanted::Unidentified) => {
            let resources = snapshot.resources.group(group).map(|group| group.resources.as_slice()).unwrap_or_default();
            for resource in resources.iter().filter_map(|resource| snapshot.resources.get(*resource)) {
                // Who answers for one of several is not known.
                if !decide(resource, caller).0 {
                    return deny(resource, caller, observer);
                }
            }
            Ok(admitted)
        }
        (Front::One(_), _) => Ok(admitted),
    }
}

fn admit(
    resource: &Resource,
    caller: &Caller<'_>,
    subject: &Subject,
    named: Named,
    observer: &mut impl Observer,
) -> Result<(Admission, Ruling), DropReason> {
    let Some(firewall) = &resource.firewall else { return Ok((Admission::Admitted, Ruling::Pass)) };
    let (admitted, why) = decide(resource, caller);
    if admitted {
        observer.stage(|| record("allow", resource, caller, why));
        return Ok((Admission::Admitted, Ruling::Pass));
    }
    // Once the client has spoken, it is too late for another port.
    let is_new = named == Named::NotYet && subject.protocol == protocol::TCP;
    match firewall.answering(subject.destination_port).filter(|_| is_new) {
        Some(port) => {
            observer.stage(|| record(&format!("deny: the resource answers at port {port}"), resource, caller, why));
            Ok((Admission::Answered(port), Ruling::Pass))
        }
        None => deny(resource, caller, observer),
    }
}

fn deny<T>(resource: &Resource, caller: &Caller<'_>, observer: &mut impl Observer) -> Result<T, DropReason> {
    observer.stage(|| {
        record(&format!("drop: {}", DropReason::FirewallDenied.name()), resource, caller, decide(resource, caller).1)
    });
    Err(DropReason::FirewallDenied)
}

fn record(decision: &str, resource: &Resource, caller: &Caller<'_>, why: Why) -> StageRecord {
    let record = StageRecord::new("firewall", decision).with(format!("{}: {}", resource.name, why.text()));
    match caller.identity(&resource.location) {
        Some(identity) => record.with(format!(
            "identity {:06x}:{:04x}, source {}",
            identity.network_tag, identity.subnet_tag, caller.source
        )),
        None => record.with(format!("source {}, without identity", caller.source)),
    }
}

/// The firewall that a packet to a destination was denied by, as far as that is known: of resources that share an address,
/// the first one's.
pub fn of(snapshot: &Snapshot, destination: IpAddr) -> Option<(ResourceId, &Firewall)> {
    let firewall = |resource: ResourceId| Some((resource, snapshot.resources.get(resource)?.firewall.as_ref()?));
    match snapshot.resources.front(destination)? {
        Front::One(resource) => firewall(resource),
        Front::Shared(group) => snapshot.resources.group(group)?.resources.iter().copied().find_map(firewall),
    }
}
