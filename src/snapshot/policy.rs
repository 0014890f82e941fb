//! Service endpoint policies, compiled.

use super::ResourceId;

/// The policies of a subnet together. Index into [`super::Snapshot::policies`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId(pub u16);

/// What a subnet's policies let it reach over its storage endpoint: the union of what they list (Azure, "Virtual network
/// service endpoint policies for Azure Storage").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Names of the policies, joined by `, `.
    pub name: String,
    /// The resources that they list, ascending.
    pub resources: Vec<ResourceId>,
    /// Whether a connection passes that does not tell which resource it wants.
    pub unidentified: bool,
}

impl Policy {
    /// Whether a resource is listed.
    pub fn lists(&self, resource: ResourceId) -> bool {
        self.resources.binary_search(&resource).is_ok()
    }
}

/// Whom an endpoint leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointScope {
    /// Its service, as Azure spells it.
    pub service: String,
    /// The regions whose resources see the subnet's identity; none means all.
    pub regions: Option<Vec<String>>,
    /// The policies that say which resources may be reached.
    pub policy: Option<PolicyId>,
}

impl EndpointScope {
    /// Whether a resource of a region sees the subnet's identity.
    pub fn identifies_at(&self, location: &str) -> bool {
        self.regions.as_ref().is_none_or(|regions| regions.iter().any(|region| region == location))
    }
}
