//! Service endpoint policies: the sets of policies that subnets have, numbered, and what each lets through; and whom the
//! endpoints of a subnet lead to.

use super::regions::paired;
use crate::model::network::{self as model, Access, Network, ServiceEndpoint, SubnetRef};
use crate::model::services::{ACTIVE_DIRECTORY, SQL, STORAGE, STORAGE_GLOBAL};
use crate::snapshot::{EndpointScope, Policy, PolicyId, ResourceId};

/// The distinct sets of policies.
pub(super) struct Policies<'n> {
    network: &'n Network,
    sets: Vec<Vec<usize>>,
}

impl<'n> Policies<'n> {
    /// Numbers the sets that subnets have.
    pub(super) fn new(network: &'n Network) -> Self {
        let mut sets: Vec<Vec<usize>> = Vec::new();
        for subnet in network.virtual_networks.iter().flat_map(|network| &network.subnets) {
            let set = sorted(&subnet.service_endpoint_policies);
            if !set.is_empty() && !sets.contains(&set) {
                sets.push(set);
            }
        }
        Self { network, sets }
    }

    fn of(&self, subnet: &model::Subnet) -> Option<PolicyId> {
        let set = sorted(&subnet.service_endpoint_policies);
        self.sets.iter().position(|known| *known == set).map(|found| PolicyId(found as u16))
    }

    /// Whom the endpoints of a subnet lead to, in their order.
    pub(super) fn scopes(&self, subnet: SubnetRef) -> Vec<EndpointScope> {
        let home = &self.network.virtual_networks[subnet.virtual_network].location;
        let declared = self.network.subnet(subnet);
        let policy = self.of(declared);
        let scope = |endpoint: &ServiceEndpoint| {
            let policy = policy.filter(|_| is_storage(&endpoint.service));
            EndpointScope {
                service: endpoint.service.clone(),
                regions: if policy.is_some() { None } else { regions(endpoint, home) },
                policy,
            }
        };
        declared.service_endpoints.iter().map(scope).collect()
    }

    /// What the sets let through. `resources` are the document's with their numbers.
    pub(super) fn compile(&self, resources: &[(ResourceId, &model::Resource)]) -> Vec<Policy> {
        let compiled = |set: &Vec<usize>| {
            let policies = || set.iter().map(|index| &self.network.service_endpoint_policies[*index]);
            let definitions = || policies().flat_map(|policy| &policy.definitions);
            let scopes = || definitions().flat_map(|definition| &definition.service_resources);
            let listed = resources.iter().filter(|(_, resource)| {
                scopes().any(|scope| scope.lists(resource.id.as_deref(), resource.service_alias.as_deref()))
            });
            let mut listed: Vec<ResourceId> = listed.map(|(number, _)| *number).collect();
            listed.sort_unstable();
            let names: Vec<&str> = policies().map(|policy| policy.name.as_str()).collect();
            Policy {
                name: names.join(", "),
                resources: listed,
                unidentified: policies().any(|policy| policy.unidentified == Access::Allow),
            }
        };
        self.sets.iter().map(compiled).collect()
    }
}

fn sorted(policies: &[usize]) -> Vec<usize> {
    let mut set = policies.to_vec();
    set.sort_unstable();
    set
}

/// Whether a service is one that endpoint policies are for.
pub(crate) fn is_storage(service: &str) -> bool {
    service == STORAGE || service == STORAGE_GLOBAL
}

/// The regions whose resources see the identity of an endpoint's traffic: those of its `locations`; else for Azure Storage
/// the network's region and the one that it is paired with, for Azure SQL and Data Lake Storage Gen1 the network's alone,
/// for the others all (Azure, "Virtual network service endpoints").
fn regions(endpoint: &ServiceEndpoint, home: &str) -> Option<Vec<String>> {
    let everywhere = endpoint.locations.is_empty() || endpoint.locations.iter().any(|location| location == "*");
    match endpoint.service.as_str() {
        SQL | ACTIVE_DIRECTORY => Some(vec![home.to_owned()]),
        STORAGE if everywhere => {
            Some(std::iter::once(home.to_owned()).chain(paired(home).map(str::to_owned)).collect())
        }
        _ if everywhere => None,
        _ => Some(endpoint.locations.clone()),
    }
}
