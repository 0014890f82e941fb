//! A network that is changed at random: peerings, gateway, route tables, groups with their rules, and who has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::Path;

use ipnet::IpNet;
use serde_json::json;
use sidestep::model::network::{
    Access, AddressPrefix, Direction, Network, Route, RuleAddresses, RuleProtocol, RuleTag, SecurityRule, UserNextHop,
};
use sidestep::tags::Catalogue;

/// A hub with a gateway and two spokes; a network of its own has the addresses of a spoke.
const BASE: &str = r#"
location = "westeurope"
tags = "tags.json"

[[virtual_network]]
name = "hub"
address_space = ["10.0.0.0/16", "20.70.0.0/16", "fd00:0:1::/48"]
peerings = [{ remote = "one" }, { remote = "two" }]
  [[virtual_network.subnet]]
  name = "a"
  address_prefixes = ["10.0.1.0/24", "fd00:0:1:1::/64"]

[[virtual_network]]
name = "one"
address_space = ["10.1.0.0/16", "fd00:1::/48", "2001:db8:1::/48"]
peerings = [{ remote = "hub" }]
  [[virtual_network.subnet]]
  name = "a"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
  [[virtual_network.subnet]]
  name = "b"
  address_prefixes = ["10.1.2.0/24", "fd00:1:0:2::/64"]

[[virtual_network]]
name = "two"
address_space = ["10.2.0.0/16"]
peerings = [{ remote = "hub" }]
  [[virtual_network.subnet]]
  name = "a"
  address_prefixes = ["10.2.1.0/24"]

[[virtual_network]]
name = "apart"
address_space = ["10.1.0.0/16", "fd00:1::/48"]
  [[virtual_network.subnet]]
  name = "a"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]

[[route_table]]
name = "first"
[[route_table]]
name = "second"

[[network_security_group]]
name = "g0"
[[network_security_group]]
name = "g1"
[[network_security_group]]
name = "g2"

[[application_security_group]]
name = "m0"
[[application_security_group]]
name = "m1"

[[nic]]
name = "hub-a"
subnet = "hub/a"
private_addresses = ["10.0.1.4", "fd00:0:1:1::4"]
[[nic]]
name = "one-a"
subnet = "one/a"
private_addresses = ["10.1.1.4", "10.1.1.5", "fd00:1:0:1::4"]
[[nic]]
name = "one-b"
subnet = "one/b"
private_addresses = ["10.1.2.4", "fd00:1:0:2::4"]
[[nic]]
name = "two-a"
subnet = "two/a"
private_addresses = ["10.2.1.4"]
[[nic]]
name = "apart-a"
subnet = "apart/a"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]

[gateway]
virtual_network = "hub"
"#;

const PREFIXES: [&str; 20] = [
    "0.0.0.0/0",
    "::/0",
    "0.0.0.0/1",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.4/32",
    "10.2.1.0/25",
    "192.168.0.0/16",
    "172.16.0.0/12",
    "20.60.0.0/16",
    "20.60.1.10/32",
    "20.70.0.0/15",
    "168.63.129.16/32",
    "169.254.169.254/32",
    "100.64.0.0/10",
    "224.0.0.0/4",
    "fd00:1::/48",
    "2001:db8::/32",
    "2603:1020::/32",
];
const TAGS: [(&str, &str, &[&str]); 3] = [
    ("Storage", "", &["20.60.0.0/17", "20.60.200.0/24", "2603:1020:1::/48"]),
    ("Storage.WestEurope", "westeurope", &["20.60.1.0/24", "10.1.1.4/30"]),
    ("Sql", "", &["20.61.0.0/16", "20.60.128.0/17"]),
];
const PORTS: [&[RangeInclusive<u16>]; 5] = [&[], &[80..=80], &[0..=79, 81..=u16::MAX], &[53..=443], &[0..=u16::MAX]];

/// Choices in order; the first option once they are used up, so that shorter inputs are simpler networks.
pub(super) struct Choices<'c>(pub(super) std::slice::Iter<'c, u16>);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % count
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn one<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn some<T: Clone>(&mut self, all: &[T], share: usize) -> Vec<T> {
        all.iter().filter(|_| self.below(share) == 1).cloned().collect()
    }

    /// Up to three.
    fn prefixes(&mut self) -> Vec<IpNet> {
        (0..self.below(4)).map(|_| self.one(&PREFIXES).parse().unwrap()).collect()
    }
}

pub(super) fn catalogue() -> Catalogue {
    let tag = |(name, region, prefixes): &(&str, &str, &[&str])| {
        json!({ "name": name, "id": name, "properties": {
            "changeNumber": 1, "region": region, "regionId": 0, "platform": "Azure", "systemService": "",
            "addressPrefixes": prefixes, "networkFeatures": null,
        } })
    };
    let values: Vec<_> = TAGS.iter().map(tag).collect();
    let document = json!({ "changeNumber": 1, "cloud": "Public", "values": values });
    Catalogue::parse(document.to_string().as_bytes(), "test").unwrap()
}

pub(super) fn network(choices: &mut Choices<'_>) -> Network {
    let mut network = sidestep::model::parse(BASE, Path::new("base.toml"), None)
        .unwrap_or_else(|mistakes| panic!("the document is wrong:\n{mistakes}"));
    for group in &mut network.network_security_groups {
        let count = choices.below(7) as u16;
        group.security_rules = (0..count).map(|index| rule(choices, index)).collect();
    }
    for declared in &mut network.virtual_networks {
        for side in &mut declared.peerings {
            side.allow_virtual_network_access = !choices.flag();
            side.allow_gateway_transit = choices.flag();
            side.use_remote_gateways = choices.flag();
        }
        for subnet in &mut declared.subnets {
            subnet.network_security_group = Some(choices.below(4)).filter(|group| *group < 3);
            subnet.route_table = [None, Some(0), Some(1)][choices.below(3)];
        }
    }
    for nic in &mut network.nics {
        nic.network_security_group = [None, Some(0), Some(1), Some(2)][choices.below(4)];
        nic.application_security_groups = choices.some(&[0, 1], 2);
    }
    if choices.flag() {
        network.gateway = None;
    } else if let Some(gateway) = &mut network.gateway {
        gateway.learned_routes = choices.prefixes();
    }
    for table in &mut network.route_tables {
        let mut prefixes: Vec<AddressPrefix> = choices.prefixes().into_iter().map(AddressPrefix::Prefix).collect();
        let tags = choices.some(&TAGS, 4);
        prefixes.extend(tags.iter().map(|(tag, ..)| AddressPrefix::ServiceTag((*tag).to_owned())));
        let route = |(index, address_prefix)| Route {
            name: format!("r{index}"),
            address_prefix,
            next_hop: UserNextHop::Internet,
        };
        table.routes = prefixes.into_iter().enumerate().map(route).collect();
    }
    network
}

fn rule(choices: &mut Choices<'_>, index: u16) -> SecurityRule {
    SecurityRule {
        name: format!("r{index}"),
        // Not in the order of the document, and none twice.
        priority: 100 + (index * 5 + choices.below(3) as u16 * 7) % 7 * 10 + index,
        direction: choices.one(&[Direction::Inbound, Direction::Outbound]),
        access: choices.one(&[Access::Allow, Access::Deny]),
        protocol: choices.one(&[
            RuleProtocol::Any,
            RuleProtocol::Tcp,
            RuleProtocol::Udp,
            RuleProtocol::Icmp,
            RuleProtocol::Esp,
            RuleProtocol::Ah,
        ]),
        source: side(choices),
        destination: side(choices),
        source_ports: if choices.below(4) == 1 { choices.one(&PORTS).to_vec() } else { vec![] },
        destination_ports: choices.one(&PORTS).to_vec(),
    }
}

fn side(choices: &mut Choices<'_>) -> RuleAddresses {
    let tags = [
        RuleTag::VirtualNetwork,
        RuleTag::Internet,
        RuleTag::AzureLoadBalancer,
        RuleTag::AzurePlatformDns,
        RuleTag::AzurePlatformImds,
        RuleTag::Catalogue("Storage".to_owned()),
        RuleTag::Catalogue("storage.westeurope".to_owned()),
        RuleTag::Catalogue("Sql".to_owned()),
    ];
    match choices.below(5) {
        0 => RuleAddresses::Any,
        1 => RuleAddresses::Listed { prefixes: choices.prefixes(), tag: None },
        2 => RuleAddresses::Listed { prefixes: vec![], tag: Some(choices.one(&tags)) },
        3 => RuleAddresses::Listed { prefixes: choices.prefixes(), tag: Some(choices.one(&tags)) },
        _ => RuleAddresses::ApplicationSecurityGroups(choices.some(&[0, 1], 2)),
    }
}

/// Both ends of every prefix that occurs with their neighbours, the addresses of NICs, and of the platform.
pub(super) fn addresses() -> Vec<IpAddr> {
    let written = BASE.split('"').filter_map(|text| text.parse::<IpNet>().ok());
    let tags = TAGS.iter().flat_map(|(_, _, prefixes)| *prefixes).chain(&PREFIXES).map(|text| text.parse().unwrap());
    let mut all: Vec<IpAddr> = BASE.split('"').filter_map(|text| text.parse().ok()).collect();
    for prefix in written.chain(tags) {
        match (prefix.network(), prefix.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let (first, last) = (first.to_bits(), last.to_bits());
                let ends = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                all.extend(ends.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let (first, last) = (first.to_bits(), last.to_bits());
                let ends = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                all.extend(ends.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
            }
            _ => unreachable!("both ends of a prefix are of one family"),
        }
    }
    all.extend(
        ["8.8.8.8", "127.0.0.1", "240.0.0.1", "64:ff9b::1", "4000::1", "fe80::1"]
            .map(|text| text.parse::<IpAddr>().unwrap()),
    );
    all.sort();
    all.dedup();
    all
}
