//! Resources of services: what an endpoint policy lists and what has a firewall, found by address or by name.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Firewall, PortId};

/// A resource. Index into [`Resources::list`].
///
/// Numbers are stable across generations of one process: a resource keeps its number as long as it exists under its
/// name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(pub u32);

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name in the document; empty for a number that a removed resource had.
    pub name: String,
    /// Its resource id, if it has one.
    pub id: Option<String>,
    /// The service: `Microsoft.Storage`.
    pub service: String,
    /// Its region.
    pub location: String,
    /// Where it is reached, if the node knows: else over the backbone.
    pub port: Option<PortId>,
    /// Who may reach it; none means everybody.
    pub firewall: Option<Firewall>,
}

/// Resources that share addresses. Index into [`Resources::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// The resources behind one front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontGroup {
    /// The resources, ascending.
    pub resources: Vec<ResourceId>,
    /// Whether one of them has a firewall.
    pub has_firewall: bool,
}

/// What an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// One resource, which has the address alone.
    One(ResourceId),
    /// Several: the name that a connection gives tells which.
    Shared(GroupId),
}

/// Every resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// By [`ResourceId`].
    pub list: Vec<Resource>,
    /// By [`GroupId`].
    pub groups: Vec<FrontGroup>,
    /// What the addresses of services lead to: sorted by address.
    pub fronts: Vec<(IpAddr, Front)>,
    /// By the names that connections give, in lower case.
    pub names: HashMap<String, ResourceId>,
}

impl Resources {
    /// The resource by its number.
    pub fn get(&self, resource: ResourceId) -> Option<&Resource> {
        self.list.get(usize::try_from(resource.0).ok()?)
    }

    /// What an address leads to; none for an address of no service of the document.
    pub fn front(&self, address: IpAddr) -> Option<Front> {
        let found = self.fronts.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        self.fronts.get(found).map(|(_, front)| *front)
    }

    /// The group by its number.
    pub fn group(&self, group: GroupId) -> Option<&FrontGroup> {
        self.groups.get(usize::try_from(group.0).ok()?)
    }

    /// The resource that a name in lower case belongs to.
    pub fn named(&self, name: &str) -> Option<ResourceId> {
        self.names.get(name).copied()
    }
}
