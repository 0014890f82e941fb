//! Endpoint policies: which resources of Azure Storage may a subnet reach over its endpoint?
//!
//! A resource that has its address alone is known by the address. Resources that share addresses are told apart by the
//! name that the connection gives: `server_name` of a TLS ClientHello on port 443, `Host` of an HTTP request on port 80.
//! That name comes after the handshake, so that the flow is made first and stays *undecided* (`inspect`) until
//! the name is known. A connection that gives no name, or none of a resource behind that address, is unidentified: the
//! policy says what becomes of it. So is one to an address that no resource of the document has.
//!
//! Without the endpoint, and for other services, policies mean nothing (Azure, "Virtual network service endpoint policies
//! for Azure Storage").

use std::net::IpAddr;

use super::observer::{Observer, StageRecord};
use super::subject::Subject;
use super::verdict::DropReason;
use crate::packet::parse::protocol;
use crate::packet::server_name::Application;
use crate::snapshot::{EndpointScope, Front, Policy, PortEntry, ResourceId, Snapshot};

/// What is known of the resource that a connection wants, beside its address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Named {
    /// Nobody has looked yet.
    #[default]
    NotYet,
    /// The connection gives no name, or none of a resource.
    Nothing,
    /// The name of this resource.
    Resource(ResourceId),
}

/// The resource that a packet or flow is for, as far as its destination or what it named tells.
pub fn resource_of(snapshot: &Snapshot, destination: IpAddr, named: Named) -> Option<ResourceId> {
    match (snapshot.resources.front(destination), named) {
        (Some(Front::One(resource)), _) => Some(resource),
        (_, Named::Resource(resource)) => Some(resource),
        _ => None,
    }
}

/// What a stage that may need a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// The packet passes.
    Pass,
    /// The name decides, which the client gives in this protocol.
    Inspect(Application),
}

/// The resource that an address and a name lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    Resource(ResourceId),
    /// None that the document has, or that can be told.
    Unidentified,
    /// That of a name which the client has not given yet.
    Unknown(Application),
}

/// The resource that a packet's destination and the name of its connection lead to.
pub fn wanted(snapshot: &Snapshot, subject: &Subject, named: Named) -> Wanted {
    let group = match snapshot.resources.front(subject.destination) {
        Some(Front::One(resource)) => return Wanted::Resource(resource),
        Some(Front::Shared(group)) => Some(group),
        None => None,
    };
    match named {
        Named::Resource(resource) => {
            // Another front end does not serve the resource, whatever the client calls it; nor does an address that the
            // document does not know.
            let group = group.and_then(|group| snapshot.resources.group(group));
            let is_behind = group.is_some_and(|group| group.resources.contains(&resource));
            if is_behind { Wanted::Resource(resource) } else { Wanted::Unidentified }
        }
        Named::Nothing => Wanted::Unidentified,
        Named::NotYet => application(subject).map_or(Wanted::Unidentified, Wanted::Unknown),
    }
}

/// The protocol in which the client of a connection gives the name, if there is one.
pub(super) fn application(subject: &Subject) -> Option<Application> {
    match (subject.protocol, subject.destination_port) {
        (protocol::TCP, 443) => Some(Application::Tls),
        (protocol::TCP, 80) => Some(Application::Http),
        _ => None,
    }
}

/// The policy of what entered through `port` and takes one of its endpoints.
pub fn of<'s>(
    snapshot: &'s Snapshot,
    port: &'s PortEntry,
    endpoint: Option<u16>,
) -> Option<(&'s EndpointScope, &'s Policy)> {
    let scope = port.endpoint_scopes.get(usize::from(endpoint?))?;
    let policy = snapshot.policies.get(usize::from(scope.policy?.0))?;
    Some((scope, policy))
}

/// Asks the policies of the subnet that a packet comes from.
///
/// # Errors
/// They do not list what it wants.
pub fn check(
    snapshot: &Snapshot,
    port: &PortEntry,
    endpoint: Option<u16>,
    subject: &Subject,
    named: Named,
    observer: &mut impl Observer,
) -> Result<Ruling, DropReason> {
    let Some((_, policy)) = of(snapshot, port, endpoint) else { return Ok(Ruling::Pass) };
    let wanted = wanted(snapshot, subject, named);
    let result = match wanted {
        Wanted::Resource(resource) if policy.lists(resource) => Ok(Ruling::Pass),
        Wanted::Resource(_) => Err(DropReason::PolicyDenied),
        Wanted::Unidentified if policy.unidentified => Ok(Ruling::Pass),
        Wanted::Unidentified => Err(DropReason::PolicyUnidentified),
        Wanted::Unknown(application) => Ok(Ruling::Inspect(application)),
    };
    observer.stage(|| {
        let decision = match result {
            Ok(Ruling::Pass) => "allow".to_owned(),
            Ok(Ruling::Inspect(application)) => format!("undecided until the {} names the resource", text(application)),
            Err(reason) => format!("drop: {}", reason.name()),
        };
        let what = match wanted {
            Wanted::Resource(resource) => {
                let name = snapshot.resources.get(resource).map_or("?", |resource| resource.name.as_str());
                format!("{} is {name}", subject.destination)
            }
            Wanted::Unidentified => "nothing tells which resource it wants".to_owned(),
            Wanted::Unknown(_) => format!("several resources may be behind {}", subject.destination),
        };
        StageRecord::new("endpoint policy", decision).with(format!("{} on the endpoint", policy.name)).with(what)
    });
    result
}

/// What the client names the resource in, for people.
pub(super) const fn text(application: Application) -> &'static str {
    match application {
        Application::Tls => "ClientHello",
        Application::Http => "request",
    }
}
