//! Random networks and catalogues, and the addresses that are worth a look in them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;
use sidestep::model::network::{
    AddressPrefix, Backbone, Device, EndpointPrecedence, EndpointProtocols, EndpointSource, Flows, Gateway, Identity,
    Interface, Internet, IoMode, NatProtocols, Network, Nic, Peering, PollMode, Resource, Route, RouteTable, Semantics,
    Service, ServiceEndpoint, Subnet, SubnetRef, Translation, UserNextHop, VirtualNetwork,
};
use sidestep::tags::Catalogue;

const SPACES: [&str; 8] = [
    "10.0.0.0/16",
    "10.1.0.0/16",
    "10.0.0.0/8",
    "192.168.0.0/15",
    "172.16.0.0/12",
    "20.60.0.0/20",
    "fd00:1::/48",
    "fd00:2::/48",
];
const PREFIXES: [&str; 18] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.1.0/24",
    "10.1.0.4/32",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "20.0.0.0/8",
    "20.60.0.0/16",
    "20.60.0.0/17",
    "20.60.1.0/24",
    "20.60.1.10/32",
    "fd00:1::/48",
    "fd00:2:0:1::/64",
    "2603:1020::/32",
    "2603:1020:1::/48",
    "2603:1020:1::10/128",
];
const PUBLIC: [&str; 9] = [
    "20.60.0.0/16",
    "20.60.0.0/17",
    "20.60.1.0/24",
    "20.60.1.10/32",
    "20.61.0.0/16",
    "13.0.0.0/8",
    "2603:1020::/32",
    "2603:1020:1::/48",
    "10.0.1.0/24",
];
const TAGS: [(&str, &str); 8] = [
    ("Storage", ""),
    ("Storage.WestEurope", "westeurope"),
    ("Storage.NorthEurope", "northeurope"),
    ("Sql", ""),
    ("Sql.WestEurope", "westeurope"),
    ("AzureCloud", ""),
    ("AzureCloud.westeurope", "westeurope"),
    ("AzureKeyVault", ""),
];
const PRIVATE: [&str; 7] =
    ["10.0.0.4", "10.0.1.4", "10.1.0.4", "192.168.0.4", "20.60.1.10", "fd00:1::4", "fd00:2:0:1::4"];
const SERVED: [&str; 4] = ["20.60.1.10", "20.61.0.10", "203.0.113.80", "2603:1020:1::10"];

/// Choices in order; the first option once they are used up, so that shorter inputs are simpler networks.
pub(super) struct Choices<'c>(pub(super) std::slice::Iter<'c, u16>);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % count
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn some<T: Clone>(&mut self, all: &[T]) -> Vec<T> {
        all.iter().filter(|_| self.below(3) == 1).cloned().collect()
    }

    fn one<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn device(&mut self) -> Option<Device> {
        let interface = Interface::Tun { name: "eth0".to_owned(), addresses: vec![] };
        (self.below(4) != 3).then_some(Device { interface, netns: None, mtu: 1500, link: None, pcap: None })
    }
}

pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(super) fn catalogue(choices: &mut Choices<'_>) -> Catalogue {
    let values: Vec<_> = TAGS
        .iter()
        .map(|(name, region)| {
            let mut prefixes = choices.some(&PUBLIC);
            if prefixes.is_empty() {
                prefixes.push(choices.one(&PUBLIC));
            }
            json!({ "name": name, "id": name, "properties": {
                "changeNumber": 1, "region": region, "regionId": 0, "platform": "Azure", "systemService": "",
                "addressPrefixes": prefixes, "networkFeatures": null,
            } })
        })
        .collect();
    let document = json!({ "changeNumber": 1, "cloud": "Public", "values": values });
    Catalogue::parse(document.to_string().as_bytes(), "test").unwrap()
}

pub(super) fn network(choices: &mut Choices<'_>) -> Network {
    let count = 1 + choices.below(3);
    let mut networks: Vec<VirtualNetwork> = (0..count)
        .map(|index| {
            let mut space = choices.some(&SPACES);
            if space.is_empty() {
                space.push(choices.one(&SPACES));
            }
            VirtualNetwork {
                name: format!("net{index}"),
                address_space: parse(&space),
                location: "westeurope".to_owned(),
                traffic_tag: None,
                peerings: vec![],
                subnets: (0..1 + choices.below(2)).map(|subnet| random_subnet(choices, index, subnet)).collect(),
            }
        })
        .collect();
    for one in 0..count {
        for other in one + 1..count {
            if choices.flag() {
                for (from, remote) in [(one, other), (other, one)] {
                    networks[from].peerings.push(Peering {
                        remote,
                        allow_virtual_network_access: true,
                        allow_forwarded_traffic: choices.flag(),
                        allow_gateway_transit: choices.flag(),
                        use_remote_gateways: choices.flag(),
                    });
                }
            }
        }
    }
    let subnets: Vec<SubnetRef> = networks
        .iter()
        .enumerate()
        .flat_map(|(virtual_network, network)| {
            (0..network.subnets.len()).map(move |subnet| SubnetRef { virtual_network, subnet })
        })
        .collect();
    let nics = (0..choices.below(5))
        .map(|index| Nic {
            name: format!("nic{index}"),
            subnet: choices.one(&subnets),
            private_addresses: parse(&choices.some(&PRIVATE)),
            public_addresses: vec![],
            ip_forwarding: choices.flag(),
            network_security_group: None,
            application_security_groups: vec![],
            trusted_service: false,
            resource_id: None,
            device: choices.device(),
        })
        .collect();
    Network {
        location: "westeurope".to_owned(),
        tags: None,
        io: IoMode::Offload,
        workers: 1,
        poll: PollMode::default(),
        control: None,
        semantics: Semantics {
            endpoint_precedence: choices.one(&[EndpointPrecedence::Documented, EndpointPrecedence::LongestPrefix]),
            endpoint_protocols: choices.one(&[
                EndpointProtocols::Any,
                EndpointProtocols::Only(vec![6]),
                EndpointProtocols::Only(vec![]),
            ]),
            nat_protocols: NatProtocols::Any,
        },
        flows: Flows::default(),
        identity: Identity::default(),
        virtual_networks: networks,
        route_tables: (0..2).map(|index| random_table(choices, index)).collect(),
        nat_gateways: vec![],
        snat_pools: vec![],
        application_security_groups: vec![],
        network_security_groups: vec![],
        service_endpoint_policies: vec![],
        nics,
        gateway: choices.flag().then(|| Gateway {
            virtual_network: choices.below(count),
            learned_routes: parse(&choices.some(&PREFIXES)),
            device: choices.device(),
        }),
        internet: choices.flag().then(|| Internet {
            public_addresses: vec![],
            translation: Translation::default(),
            device: choices.device(),
        }),
        backbone: choices.flag().then(|| Backbone { device: choices.device() }),
        platform: None,
        services: choices
            .some(&SERVED)
            .into_iter()
            .map(|address| Service {
                name: format!("service-{address}"),
                service: "Microsoft.Storage".to_owned(),
                location: "westeurope".to_owned(),
                addresses: parse(&[address]),
                resources: vec![Resource {
                    name: format!("service-{address}"),
                    id: None,
                    service_alias: None,
                    host_names: vec![],
                    firewall: None,
                }],
                device: choices.device(),
            })
            .collect(),
        lab: None,
    }
}

fn random_subnet(choices: &mut Choices<'_>, network: usize, subnet: usize) -> Subnet {
    let locations: Vec<Vec<String>> = [&[][..], &["*"], &["westeurope"], &["northeurope", "westeurope"]]
        .iter()
        .map(|locations| locations.iter().map(|location| (*location).to_owned()).collect())
        .collect();
    let services = choices.some(&["Microsoft.Storage", "Microsoft.Sql", "Microsoft.KeyVault"]);
    let endpoint = |service: &str, locations| ServiceEndpoint {
        service: service.to_owned(),
        locations,
        source: EndpointSource::Private,
    };
    Subnet {
        name: if subnet == 0 && choices.flag() { "GatewaySubnet".to_owned() } else { format!("subnet{subnet}") },
        address_prefixes: parse(&[["10.0.0.0/24", "10.1.0.0/24", "192.168.0.0/24"][network]]),
        route_table: choices.flag().then(|| choices.below(2)),
        nat_gateway: None,
        default_outbound_access: true,
        traffic_tag: None,
        network_security_group: None,
        service_endpoint_policies: vec![],
        service_endpoints: services.into_iter().map(|service| endpoint(service, choices.one(&locations))).collect(),
    }
}

fn random_table(choices: &mut Choices<'_>, index: usize) -> RouteTable {
    let mut prefixes: Vec<AddressPrefix> =
        choices.some(&PREFIXES).iter().map(|prefix| AddressPrefix::Prefix(prefix.parse().unwrap())).collect();
    let tags = choices.some(&TAGS);
    prefixes.extend(tags.iter().map(|(tag, _)| AddressPrefix::ServiceTag((*tag).to_owned())));
    let routes = prefixes.into_iter().enumerate().map(|(route, address_prefix)| {
        let appliance = choices.one(&PRIVATE).parse().unwrap();
        let next_hops = [
            UserNextHop::VirtualAppliance(appliance),
            UserNextHop::VirtualNetworkGateway,
            UserNextHop::Internet,
            UserNextHop::None,
            UserNextHop::VnetLocal,
        ];
        Route { name: format!("r{route}"), address_prefix, next_hop: choices.one(&next_hops) }
    });
    let routes = routes.collect();
    RouteTable { name: format!("table{index}"), disable_bgp_route_propagation: choices.flag(), routes }
}

/// The first and last address of every prefix that occurs and their neighbours, and all addresses that occur.
pub(super) fn destinations() -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = parse(&PRIVATE);
    all.extend(parse::<IpAddr>(&SERVED));
    for prefix in parse::<IpNet>(&SPACES).into_iter().chain(parse(&PREFIXES)).chain(parse(&PUBLIC)) {
        match (prefix.network(), prefix.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                for bits in
                    [first.to_bits().wrapping_sub(1), first.to_bits(), last.to_bits(), last.to_bits().wrapping_add(1)]
                {
                    all.push(std::net::Ipv4Addr::from_bits(bits).into());
                }
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                for bits in
                    [first.to_bits().wrapping_sub(1), first.to_bits(), last.to_bits(), last.to_bits().wrapping_add(1)]
                {
                    all.push(std::net::Ipv6Addr::from_bits(bits).into());
                }
            }
            _ => unreachable!("both ends of a prefix are of one family"),
        }
    }
    all.sort();
    all.dedup();
    all
}
