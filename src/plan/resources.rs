//! Resources of services, their numbers and their firewalls. A resource keeps its number from snapshot to snapshot as long
//! as it exists under its name, and a virtual network rule keeps the subnet that it was made for.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use super::identity;
use super::ports::Ports;
use super::resolve::Target;
use crate::model::network::{self as model, Access, Network};
use crate::model::services::SQL;
use crate::snapshot::{
    Denial, Firewall, FirewallRule, Front, FrontGroup, GroupId, Resource, ResourceId, Resources, SubnetIdentity,
};

/// The port of plain HTTP.
const HTTP: RangeInclusive<u16> = 80..=80;
/// The ports of Azure SQL: its gateway, and the nodes that it redirects to (Azure, "Azure SQL connectivity architecture").
const SQL_PORTS: [RangeInclusive<u16>; 2] = [1433..=1433, 11_000..=11_999];

/// The resources of a network, and the document's with their numbers.
pub(super) struct Compiled<'n> {
    pub(super) resources: Resources,
    pub(super) declared: Vec<(ResourceId, &'n model::Resource)>,
}

/// Numbers the resources of a network. Those that `previous` has keep their numbers; a number that loses its resource
/// now stays vacant for one snapshot at least, so that no flow can take another resource for its own. `identities` are the
/// subnets', as [`identity::assign`] made them.
pub(super) fn compile<'n>(
    network: &'n Network,
    ports: &Ports,
    identities: &[SubnetIdentity],
    previous: &[Resource],
) -> Compiled<'n> {
    let mut resources = Resources { list: previous.iter().map(|_| vacant()).collect(), ..Resources::default() };
    let mut all = Vec::new();
    let mut free = (0..previous.len()).filter(|number| previous[*number].name.is_empty());
    for (index, service) in network.services.iter().enumerate() {
        let port = ports.of(Target::Service(index)).map(|(port, _)| port);
        let mut own = Vec::new();
        for declared in &service.resources {
            let kept = previous.iter().position(|before| before.name == declared.name);
            let number = kept.or_else(|| free.next()).unwrap_or(resources.list.len());
            let before = kept.and_then(|kept| previous[kept].firewall.as_ref());
            let firewall = declared.firewall.as_ref();
            let resource = Resource {
                name: declared.name.clone(),
                id: declared.id.clone(),
                service: service.service.clone(),
                location: service.location.clone(),
                port,
                firewall: firewall
                    .map(|declared| self::firewall(network, ports, identities, &service.service, declared, before)),
            };
            match resources.list.get_mut(number) {
                Some(place) => *place = resource,
                None => resources.list.push(resource),
            }
            let number = ResourceId(number as u32);
            own.push(number);
            all.push((number, declared));
            resources.names.extend(declared.host_names.iter().map(|name| (name.to_ascii_lowercase(), number)));
        }
        let front = match own.as_slice() {
            [one] => Front::One(*one),
            _ => {
                own.sort_unstable();
                let has_firewall = service.resources.iter().any(|resource| resource.firewall.is_some());
                resources.groups.push(FrontGroup { resources: own, has_firewall });
                Front::Shared(GroupId(resources.groups.len() as u32 - 1))
            }
        };
        resources.fronts.extend(service.addresses.iter().map(|address| (*address, front)));
    }
    resources.fronts.sort_unstable_by_key(|(address, _)| *address);
    Compiled { resources, declared: all }
}

/// A number without a resource.
fn vacant() -> Resource {
    let name = String::new();
    Resource { name, id: None, service: String::new(), location: String::new(), port: None, firewall: None }
}

fn firewall(
    network: &Network,
    ports: &Ports,
    identities: &[SubnetIdentity],
    service: &str,
    declared: &model::Firewall,
    before: Option<&Firewall>,
) -> Firewall {
    let rules: Vec<FirewallRule> = declared
        .virtual_network_rules
        .iter()
        .map(|rule| {
            let name = rule.name.to_ascii_lowercase();
            let kept = before.and_then(|before| before.rules.iter().find(|kept| kept.name == name)).cloned();
            kept.unwrap_or_else(|| FirewallRule {
                identity: rule.subnet.and_then(|subnet| identity::of_subnet(network, identities, subnet)),
                name,
            })
        })
        .collect();
    let mut admitted: Vec<_> = rules.iter().filter_map(|rule| rule.identity).collect();
    admitted.sort_unstable();
    let is_exception = |nic: &model::Nic| {
        let listed = |id: &String| declared.resource_access_rules.iter().any(|rule| rule.eq_ignore_ascii_case(id));
        nic.trusted_service && declared.bypass_azure_services || nic.resource_id.as_ref().is_some_and(listed)
    };
    let exceptions = network.nics.iter().enumerate().filter(|(_, nic)| is_exception(nic));
    let mut exceptions: Vec<_> = exceptions.filter_map(|(index, _)| Some(ports.of(Target::Nic(index))?.0)).collect();
    exceptions.sort_unstable();
    Firewall {
        public_network_access: declared.public_network_access,
        default_allow: declared.default_action == Access::Allow,
        rules,
        identities: admitted,
        addresses: ranges(&declared.ip_rules),
        exceptions,
        denial: match declared.denial {
            model::Denial::Reset => Denial::Reset,
            model::Denial::Prohibited => Denial::Prohibited,
        },
        answering_port: declared.answering_port,
        answered_ports: if service == SQL { SQL_PORTS.to_vec() } else { vec![HTTP] },
    }
}

/// The addresses of prefixes, as ranges that do not touch.
fn ranges(prefixes: &[Ipv4Net]) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let prefixes = Ipv4Net::aggregate(&prefixes.to_vec());
    let mut ranges: Vec<_> = prefixes.iter().map(|prefix| (prefix.network(), prefix.broadcast())).collect();
    ranges.sort_unstable();
    ranges
}
