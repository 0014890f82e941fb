//! Enabling and disabling a service endpoint on a subnet of a network that runs.

use super::refusal::Refusal;
use crate::model::network::{EndpointSource, Network, ServiceEndpoint, SubnetRef};
use crate::model::services::{ENDPOINT_SERVICES, EndpointService, endpoint_service};
use crate::plan::UnknownName;

/// Services that exclude each other on a subnet (Azure, "Virtual network service endpoints", storage in any region).
const EXCLUSIVE: [&str; 2] = ["Microsoft.Storage", "Microsoft.Storage.Global"];

/// The service of a name, whatever its case.
///
/// # Errors
/// [`Refusal::Unknown`] with the services that there are.
pub(crate) fn service(name: &str) -> Result<&'static EndpointService, Refusal> {
    endpoint_service(name).ok_or_else(|| {
        let names: Vec<&str> = ENDPOINT_SERVICES.iter().map(|service| service.name).collect();
        let unknown = UnknownName::new("service with endpoints", name, names.iter().copied());
        Refusal::Unknown(format!("{unknown} (there are {})", names.join(", ")))
    })
}

/// Switches an endpoint on or off; false where it is so already. One that is switched on is as `declared` has it, with its
/// locations and source; where that has none, it covers every region and presents private addresses.
///
/// # Errors
/// [`Refusal::Conflict`] where another endpoint of the subnet excludes it; then nothing has changed.
pub(crate) fn switch(
    network: &mut Network,
    subnet: SubnetRef,
    service: &EndpointService,
    enabled: bool,
    declared: Option<&Network>,
) -> Result<bool, Refusal> {
    let name = network.subnet_name(subnet);
    let endpoints = &mut network.virtual_networks[subnet.virtual_network].subnets[subnet.subnet].service_endpoints;
    let found = endpoints.iter().position(|endpoint| endpoint.service.eq_ignore_ascii_case(service.name));
    match (found, enabled) {
        (Some(_), true) | (None, false) => return Ok(false),
        (Some(position), false) => {
            endpoints.remove(position);
        }
        (None, true) => {
            let exclusive = EXCLUSIVE.contains(&service.name);
            let other = endpoints
                .iter()
                .find(|endpoint| exclusive && EXCLUSIVE.iter().any(|name| endpoint.service.eq_ignore_ascii_case(name)));
            if let Some(other) = other {
                return Err(Refusal::Conflict(format!(
                    "{name} has an endpoint for {}, which excludes {}: disable it first",
                    other.service, service.name
                )));
            }
            let is_it = |endpoint: &&ServiceEndpoint| endpoint.service.eq_ignore_ascii_case(service.name);
            let declared = declared.and_then(|declared| declared.subnet(subnet).service_endpoints.iter().find(is_it));
            endpoints.push(declared.cloned().unwrap_or_else(|| ServiceEndpoint {
                service: service.name.to_owned(),
                locations: Vec::new(),
                source: EndpointSource::Private,
            }));
        }
    }
    Ok(true)
}
