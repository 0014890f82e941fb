//! Resources of services and their numbers. A resource keeps its number from snapshot to snapshot as long as it exists
//! under its name.

use super::ports::Ports;
use super::resolve::Target;
use crate::model::network::Network;
use crate::snapshot::{Front, Resource, ResourceId, Resources};

/// Numbers the resources of a network. Those that `previous` has keep their numbers; a number that loses its resource
/// now stays vacant for one snapshot at least, so that no flow can take another resource for its own.
pub(super) fn compile(network: &Network, ports: &Ports, previous: &[Resource]) -> Resources {
    let mut resources = Resources { list: previous.iter().map(|_| vacant()).collect(), ..Resources::default() };
    let mut free = (0..previous.len()).filter(|number| previous[*number].name.is_empty());
    for (index, service) in network.services.iter().enumerate() {
        let port = ports.of(Target::Service(index)).map(|(port, _)| port);
        let mut last = ResourceId(0);
        for declared in &service.resources {
            let kept = previous.iter().position(|before| before.name == declared.name);
            let number = kept.or_else(|| free.next()).unwrap_or(resources.list.len());
            let resource = Resource {
                name: declared.name.clone(),
                id: declared.id.clone(),
                service: service.service.clone(),
                location: service.location.clone(),
                port,
            };
            match resources.list.get_mut(number) {
                Some(place) => *place = resource,
                None => resources.list.push(resource),
            }
            last = ResourceId(number as u32);
            resources.names.extend(declared.host_names.iter().map(|name| (name.to_ascii_lowercase(), last)));
        }
        let front = match (service.resources.len(), port) {
            (2.., Some(port)) => Front::Shared(port),
            _ => Front::One(last),
        };
        resources.fronts.extend(service.addresses.iter().map(|address| (*address, front)));
    }
    resources.fronts.sort_unstable_by_key(|(address, _)| *address);
    resources
}

/// A number without a resource.
fn vacant() -> Resource {
    Resource { name: String::new(), id: None, service: String::new(), location: String::new(), port: None }
}
