//! Where the objects of a good document stand in its text: what is said about a validated network, which knows no places,
//! is shown at a line and column by this.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;

use super::document::{Document, Firewall, Subnet, Text};
use super::mistake::Report;
use super::network::SubnetRef;

/// Something that has a place. Indices are those of the validated [`super::network::Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Object {
    /// `endpoint_protocols` of `[semantics]`.
    EndpointProtocols,
    /// The name of a subnet.
    Subnet(SubnetRef),
    /// An endpoint of a subnet: its service.
    Endpoint(SubnetRef, usize),
    /// The first of a subnet's `service_endpoint_policies`.
    Policies(SubnetRef),
    /// The name of a route of a route table.
    Route {
        /// The route table.
        table: usize,
        /// The route.
        route: usize,
    },
    /// The name of a rule of a network security group.
    SecurityRule {
        /// The group.
        group: usize,
        /// The rule.
        rule: usize,
    },
    /// One of a NIC's `public_addresses`.
    PublicAddress {
        /// The NIC.
        nic: usize,
        /// The address.
        address: usize,
    },
    /// The firewall of a resource of a service: its `default_action`, if it is written.
    Firewall {
        /// The service.
        service: usize,
        /// The resource.
        resource: usize,
    },
    /// A virtual network rule of a resource's firewall: its subnet.
    VirtualNetworkRule {
        /// The service.
        service: usize,
        /// The resource.
        resource: usize,
        /// The rule.
        rule: usize,
    },
}

/// The places of a document.
#[derive(Debug)]
pub struct Places<'t> {
    text: &'t str,
    document: Document,
    /// Where each line starts.
    lines: Vec<usize>,
}

impl<'t> Places<'t> {
    /// Reads the text of a document in which no mistake was found.
    pub fn new(text: &'t str) -> Self {
        let (table, _) = DeTable::parse_recoverable(text);
        let document = Document::read(table.get_ref(), &Report::new(text));
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        Self { text, document, lines }
    }

    /// Line, and column in characters, both from 1; the start of the document for what is not there.
    pub fn of(&self, object: Object) -> (usize, usize) {
        let start = self.range(object).unwrap_or(0..0).start;
        let line = self.lines.partition_point(|line| *line <= start).max(1);
        let before = self.text.get(self.lines[line - 1]..start).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    fn range(&self, object: Object) -> Option<Range<usize>> {
        let document = &self.document;
        Some(match object {
            Object::EndpointProtocols => document.semantics.as_ref()?.get_ref().endpoint_protocols.as_ref()?.span(),
            Object::Subnet(subnet) => named(&self.subnet(subnet)?.get_ref().name, self.subnet(subnet)?),
            Object::Endpoint(subnet, endpoint) => {
                let endpoint = self.subnet(subnet)?.get_ref().service_endpoints.get(endpoint)?;
                named(&endpoint.get_ref().service, endpoint)
            }
            Object::Policies(subnet) => self.subnet(subnet)?.get_ref().service_endpoint_policies.first()?.span(),
            Object::Route { table, route } => {
                let route = document.route_tables.get(table)?.get_ref().routes.get(route)?;
                named(&route.get_ref().name, route)
            }
            Object::SecurityRule { group, rule } => {
                let rule = document.network_security_groups.get(group)?.get_ref().security_rules.get(rule)?;
                named(&rule.get_ref().name, rule)
            }
            Object::PublicAddress { nic, address } => {
                document.nics.get(nic)?.get_ref().public_addresses.get(address)?.span()
            }
            Object::Firewall { service, resource } => {
                let firewall = self.firewall(service, resource)?;
                named(&firewall.get_ref().default_action, firewall)
            }
            Object::VirtualNetworkRule { service, resource, rule } => {
                let rule = self.firewall(service, resource)?.get_ref().virtual_network_rules.get(rule)?;
                named(&rule.get_ref().subnet, rule)
            }
        })
    }

    fn subnet(&self, subnet: SubnetRef) -> Option<&Spanned<Subnet>> {
        self.document.virtual_networks.get(subnet.virtual_network)?.get_ref().subnets.get(subnet.subnet)
    }

    /// A service without resources of its own is the one resource.
    fn firewall(&self, service: usize, resource: usize) -> Option<&Spanned<Firewall>> {
        let service = self.document.services.get(service)?.get_ref();
        if service.resources.is_empty() {
            return service.firewall.as_ref();
        }
        service.resources.get(resource)?.get_ref().firewall.as_ref()
    }
}

/// The place of what names an object; else of the whole of it.
fn named<T>(name: &Option<Text>, object: &Spanned<T>) -> Range<usize> {
    name.as_ref().map_or_else(|| object.span(), Spanned::span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"location = "westeurope"
[semantics]
endpoint_protocols = ["tcp"]
[[virtual_network]]
  [[virtual_network.subnet]]
  name = "größer"
  service_endpoints = [{ service = "Microsoft.Storage" }, { service = "Microsoft.Sql" }]
[[service]]
firewall = { virtual_network_rules = [{ subnet = "n/s" }] }
[[service]]
  [[service.resource]]
  firewall = { default_action = "Deny" }
"#;

    #[test]
    fn objects_have_the_places_of_their_names() {
        let places = Places::new(DOCUMENT);
        let subnet = SubnetRef { virtual_network: 0, subnet: 0 };
        assert_eq!(places.of(Object::EndpointProtocols), (3, 22));
        assert_eq!(places.of(Object::Subnet(subnet)), (6, 10));
        assert_eq!(places.of(Object::Endpoint(subnet, 1)), (7, 71));
        assert_eq!(places.of(Object::VirtualNetworkRule { service: 0, resource: 0, rule: 0 }), (9, 50));
        assert_eq!(places.of(Object::Firewall { service: 0, resource: 0 }), (9, 12));
        assert_eq!(places.of(Object::Firewall { service: 1, resource: 0 }), (12, 33));
    }

    #[test]
    fn what_is_not_there_is_at_the_start() {
        assert_eq!(Places::new(DOCUMENT).of(Object::Route { table: 0, route: 0 }), (1, 1));
        assert_eq!(Places::new("").of(Object::EndpointProtocols), (1, 1));
    }
}
