//! A plain interpreter of the routing rules, which shares no code with the plan: it expands every route into its
//! prefixes, and goes through them one by one.

use std::net::IpAddr;

use ipnet::IpNet;
use sidestep::model::network::{
    AddressPrefix, Device, EndpointPrecedence, EndpointProtocols, Network, Nic, SubnetRef, UserNextHop,
};
use sidestep::snapshot::SourceAction;
use sidestep::tags::Catalogue;

use super::random::parse;

/// Whose routes the interpreter looks at.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Whose {
    Subnet(SubnetRef),
    Gateway,
}

/// A next hop of the interpreter.
#[derive(Clone, Copy, PartialEq, Debug)]
enum To {
    Own,
    Peer(usize),
    Gateway,
    /// By its index in the subnet's.
    Endpoint(u16),
    Internet,
    Appliance(IpAddr),
    Drop,
}

/// One prefix of one route. `source`: 2 user, 1 BGP, 0 system. `tie`: larger wins among equal prefixes of a source.
#[derive(Clone, Copy, Debug)]
struct Entry {
    prefix: IpNet,
    source: u8,
    tie: u8,
    special: bool,
    to: To,
}

pub(super) struct Interpreter<'n> {
    pub(super) network: &'n Network,
    pub(super) catalogue: &'n Catalogue,
}

impl Interpreter<'_> {
    fn has_v4(&self, network: usize) -> bool {
        self.network.virtual_networks[network].address_space.iter().any(|range| range.addr().is_ipv4())
    }

    fn has_v6(&self, network: usize) -> bool {
        self.network.virtual_networks[network].address_space.iter().any(|range| range.addr().is_ipv6())
    }

    fn has_family(&self, network: usize, prefix: &IpNet) -> bool {
        if prefix.addr().is_ipv4() { self.has_v4(network) } else { self.has_v6(network) }
    }

    fn tag(&self, name: &str, network: usize) -> Vec<IpNet> {
        let tag = self.catalogue.tags().find(|tag| tag.name == name).unwrap();
        tag.prefixes().filter(|prefix| self.has_family(network, prefix)).collect()
    }

    /// Whether a network may use the gateway: it has it, or both sides of a peering agree.
    fn uses_gateway(&self, own: usize) -> bool {
        let Some(gateway) = &self.network.gateway else { return false };
        let hub = gateway.virtual_network;
        let networks = &self.network.virtual_networks;
        own == hub
            || networks[own].peerings.iter().any(|side| side.remote == hub && side.use_remote_gateways)
                && networks[hub].peerings.iter().any(|side| side.remote == own && side.allow_gateway_transit)
    }

    pub(super) fn gateway_subnet(&self) -> Option<SubnetRef> {
        let virtual_network = self.network.gateway.as_ref()?.virtual_network;
        let subnets = &self.network.virtual_networks[virtual_network].subnets;
        let subnet = subnets.iter().position(|subnet| subnet.name == "GatewaySubnet")?;
        Some(SubnetRef { virtual_network, subnet })
    }

    /// Every prefix of every route.
    fn entries(&self, whose: Whose) -> (usize, Vec<Entry>) {
        let at_gateway = whose == Whose::Gateway;
        let subnet = match whose {
            Whose::Subnet(subnet) => Some(subnet),
            Whose::Gateway => self.gateway_subnet(),
        };
        let own = match subnet {
            Some(subnet) => subnet.virtual_network,
            None => self.network.gateway.as_ref().unwrap().virtual_network,
        };
        let declared = subnet.map(|subnet| self.network.subnet(subnet));
        let table = declared.and_then(|subnet| subnet.route_table).map(|table| &self.network.route_tables[table]);
        let mut entries = Vec::new();
        let mut add = |prefix, source, tie, special, to| entries.push(Entry { prefix, source, tie, special, to });

        let mut connected = self.network.virtual_networks[own].address_space.clone();
        for range in &self.network.virtual_networks[own].address_space {
            add(*range, 0, 9, true, To::Own);
        }
        for peering in &self.network.virtual_networks[own].peerings {
            if at_gateway && !self.uses_gateway(peering.remote) {
                continue;
            }
            for range in &self.network.virtual_networks[peering.remote].address_space {
                connected.push(*range);
                add(*range, 0, 8, true, To::Peer(peering.remote));
            }
        }
        if !at_gateway {
            if self.has_v4(own) {
                add("0.0.0.0/0".parse().unwrap(), 0, 1, false, To::Internet);
                let redirected = table.is_some_and(|table| {
                    table.routes.iter().any(|route| {
                        route.address_prefix == AddressPrefix::Prefix("0.0.0.0/0".parse().unwrap())
                            && matches!(
                                route.next_hop,
                                UserNextHop::VirtualAppliance(_) | UserNextHop::VirtualNetworkGateway
                            )
                    })
                });
                for reserved in parse::<IpNet>(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]) {
                    if !redirected && !connected.iter().any(|range| range.contains(&reserved)) {
                        add(reserved, 0, 0, false, To::Drop);
                    }
                }
            }
            if self.has_v6(own) {
                add("::/0".parse().unwrap(), 0, 1, false, To::Internet);
            }
            if self.uses_gateway(own) && !table.is_some_and(|table| table.disable_bgp_route_propagation) {
                for prefix in &self.network.gateway.as_ref().unwrap().learned_routes {
                    if self.has_family(own, prefix) {
                        add(*prefix, 1, 0, false, To::Gateway);
                    }
                }
            }
            for (number, endpoint) in (0..).zip(&declared.unwrap().service_endpoints) {
                let (global, west, north) = match endpoint.service.as_str() {
                    "Microsoft.Storage" => ("Storage", "Storage.WestEurope", "Storage.NorthEurope"),
                    "Microsoft.Sql" => ("Sql.WestEurope", "Sql.WestEurope", "Sql.WestEurope"),
                    _ => ("AzureKeyVault", "AzureKeyVault", "AzureKeyVault"),
                };
                let tags = match endpoint.locations.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                    [] | ["*"] => vec![global],
                    ["westeurope"] => vec![west],
                    _ => vec![north, west],
                };
                for prefix in tags.iter().flat_map(|tag| self.tag(tag, own)) {
                    add(prefix, 0, 7, true, To::Endpoint(number));
                }
            }
        }
        for route in table.iter().flat_map(|table| &table.routes) {
            let to = match route.next_hop {
                UserNextHop::VirtualNetworkGateway => To::Gateway,
                UserNextHop::VnetLocal => To::Own,
                UserNextHop::Internet => To::Internet,
                UserNextHop::VirtualAppliance(address) => To::Appliance(address),
                UserNextHop::None => To::Drop,
            };
            match &route.address_prefix {
                AddressPrefix::Prefix(prefix) => add(*prefix, 2, 9, false, to),
                AddressPrefix::ServiceTag(tag) => {
                    let tie = match tag.as_str() {
                        "AzureCloud" => 1,
                        "AzureCloud.westeurope" => 2,
                        name if name.contains('.') => 4,
                        _ => 3,
                    };
                    for prefix in self.tag(tag, own) {
                        add(prefix, 2, tie, false, to);
                    }
                }
            }
        }
        (own, entries)
    }

    /// The winner among all entries.
    fn choose(&self, entries: &[Entry], destination: IpAddr, protocol: u8) -> Option<Entry> {
        let steered = match &self.network.semantics.endpoint_protocols {
            EndpointProtocols::Any => true,
            EndpointProtocols::Only(list) => list.contains(&protocol),
        };
        let documented = self.network.semantics.endpoint_precedence == EndpointPrecedence::Documented;
        let mut matching: Vec<Entry> =
            entries.iter().filter(|entry| entry.prefix.contains(&destination)).copied().collect();
        let is_endpoint = |entry: &Entry| matches!(entry.to, To::Endpoint(_));
        matching.retain(|entry| !is_endpoint(entry) || steered);
        if matching.iter().any(is_endpoint) {
            if documented {
                matching.retain(is_endpoint);
            }
            matching.retain(|entry| !(entry.source == 2 && entry.to == To::Internet));
        }
        if matching.iter().any(|entry| entry.special) {
            matching.retain(|entry| entry.source != 1);
        }
        let mut best: Option<Entry> = None;
        for entry in matching {
            let rank = |entry: &Entry| (entry.prefix.prefix_len(), entry.source, entry.tie);
            if best.is_none_or(|best| rank(&entry) > rank(&best)) {
                best = Some(entry);
            }
        }
        best
    }

    fn nic(&self, network: usize, address: IpAddr) -> Option<&Nic> {
        let mut nics = self.network.nics.iter();
        nics.find(|nic| nic.subnet.virtual_network == network && nic.private_addresses.contains(&address))
    }

    /// Next hop type and what becomes of the packet: `port source forwarded` or the name of the drop.
    pub(super) fn route(&self, whose: Whose, destination: IpAddr, protocol: u8) -> (&'static str, String) {
        let (own, entries) = self.entries(whose);
        let at_gateway = whose == Whose::Gateway;
        let Some(entry) = self.choose(&entries, destination, protocol) else {
            return ("None", "NoRoute".to_owned());
        };
        let deliver = |name: &str, device: &Option<Device>, source: SourceAction, forwarded: bool| match device {
            Some(_) => format!("{name} {source:?} {forwarded}"),
            None => "NoDevice".to_owned(),
        };
        let to_nic = |nic: &Nic, forwarded| deliver(&nic.name, &nic.device, SourceAction::Keep, forwarded);
        let forwarded = |remote: usize| {
            let sides = &self.network.virtual_networks[remote].peerings;
            at_gateway || sides.iter().any(|side| side.remote == own && side.allow_forwarded_traffic)
        };
        let service = self.network.services.iter().find(|service| service.addresses.contains(&destination));
        match entry.to {
            To::Drop => ("None", "NextHopNone".to_owned()),
            To::Own => {
                let nic = self.nic(own, destination);
                ("VnetLocal", nic.map_or("AddressUnassigned".to_owned(), |nic| to_nic(nic, true)))
            }
            To::Peer(remote) => {
                let nic = self.nic(remote, destination);
                ("VNetPeering", nic.map_or("AddressUnassigned".to_owned(), |nic| to_nic(nic, forwarded(remote))))
            }
            To::Appliance(address) => {
                let mut places = vec![(own, true)];
                let peerings = &self.network.virtual_networks[own].peerings;
                places.extend(peerings.iter().map(|side| (side.remote, forwarded(side.remote))));
                let found = places
                    .into_iter()
                    .find_map(|(network, forwarded)| self.nic(network, address).map(|nic| (nic, forwarded)));
                let outcome = match found {
                    None => "ApplianceUnreachable".to_owned(),
                    Some((nic, _)) if !nic.ip_forwarding && address != destination => {
                        "ApplianceWithoutForwarding".to_owned()
                    }
                    Some((nic, forwarded)) => to_nic(nic, forwarded),
                };
                ("VirtualAppliance", outcome)
            }
            To::Gateway if at_gateway => ("VirtualNetworkGateway", "NoRoute".to_owned()),
            To::Internet if at_gateway => ("Internet", "NoRoute".to_owned()),
            To::Gateway => {
                let outcome = match &self.network.gateway {
                    Some(gateway) if self.uses_gateway(own) => {
                        deliver("gateway", &gateway.device, SourceAction::Keep, true)
                    }
                    _ => "NoGateway".to_owned(),
                };
                ("VirtualNetworkGateway", outcome)
            }
            To::Endpoint(number) => {
                let source = SourceAction::Endpoint(number);
                let outcome = match (service, &self.network.backbone) {
                    (Some(service), _) => deliver(&service.name, &service.device, source, true),
                    (None, Some(backbone)) => deliver("backbone", &backbone.device, source, true),
                    (None, None) => "NoSuchResource".to_owned(),
                };
                ("VirtualNetworkServiceEndpoint", outcome)
            }
            To::Internet => {
                let outcome = match (service, &self.network.internet) {
                    (Some(service), _) => deliver(&service.name, &service.device, SourceAction::Outbound, true),
                    (None, Some(edge)) => deliver("internet", &edge.device, SourceAction::Outbound, true),
                    (None, None) => "NoInternetEdge".to_owned(),
                };
                ("Internet", outcome)
            }
        }
    }
}
