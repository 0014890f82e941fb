//! A plain interpreter of security rules: it takes one rule after the other as the document has it, and asks of each
//! address whether the words of the rule mean it.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use sidestep::model::network::{
    Access, AddressPrefix, Direction, Network, RuleAddresses, RuleProtocol, RuleTag, SecurityRule, SubnetRef,
};
use sidestep::tags::Catalogue;

const HOST: &str = "168.63.129.16";
const METADATA: &str = "169.254.169.254";

#[derive(Debug)]
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) ports: Option<(u16, u16)>,
}

pub(super) struct Interpreter<'n> {
    pub(super) network: &'n Network,
    pub(super) catalogue: &'n Catalogue,
}

impl Interpreter<'_> {
    /// What each group of a NIC says, in Azure's order: `group access rule`.
    pub(super) fn judge(&self, nic: usize, inbound: bool, packet: &Packet) -> Vec<String> {
        let nic = &self.network.nics[nic];
        let subnet = self.network.subnet(nic.subnet).network_security_group;
        let mut order = vec![subnet, nic.network_security_group];
        if !inbound {
            order.reverse();
        }
        order.into_iter().flatten().map(|group| self.ask(group, nic.subnet, inbound, packet)).collect()
    }

    fn ask(&self, group: usize, place: SubnetRef, inbound: bool, packet: &Packet) -> String {
        let group = &self.network.network_security_groups[group];
        let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
        let mut rules: Vec<&SecurityRule> =
            group.security_rules.iter().filter(|rule| rule.direction == direction).collect();
        rules.sort_by_key(|rule| rule.priority);
        let to = packet.destination.to_string();
        let to_platform = !inbound && (to == HOST || to == METADATA);
        for rule in rules {
            let destination = match &rule.destination {
                RuleAddresses::Listed { tag: Some(RuleTag::AzurePlatformDns), .. } if to_platform => to == HOST,
                RuleAddresses::Listed { tag: Some(RuleTag::AzurePlatformImds), .. } if to_platform => to == METADATA,
                _ if to_platform => false,
                written => self.means(written, place, packet.destination),
            };
            if destination
                && self.means(&rule.source, place, packet.source)
                && takes(rule.protocol, packet.protocol)
                && among(&rule.source_ports, packet.ports.map(|(source, _)| source))
                && among(&rule.destination_ports, packet.ports.map(|(_, destination)| destination))
            {
                let access = if rule.access == Access::Allow { "Allow" } else { "Deny" };
                return format!("{} {access} securityRules/{}", group.name, rule.name);
            }
        }
        if to_platform {
            return format!("{} Allow -", group.name);
        }
        let inside = |address| self.in_virtual_network(place, address);
        let both_inside = inside(packet.source) && inside(packet.destination);
        let (access, rule) = match inbound {
            true if both_inside => ("Allow", "AllowVnetInBound"),
            true if packet.source.to_string() == HOST => ("Allow", "AllowAzureLoadBalancerInBound"),
            true => ("Deny", "DenyAllInBound"),
            false if both_inside => ("Allow", "AllowVnetOutBound"),
            false if self.in_internet(place, packet.destination) => ("Allow", "AllowInternetOutBound"),
            false => ("Deny", "DenyAllOutBound"),
        };
        format!("{} {access} defaultSecurityRules/{rule}", group.name)
    }

    fn means(&self, written: &RuleAddresses, place: SubnetRef, address: IpAddr) -> bool {
        match written {
            RuleAddresses::Any => true,
            RuleAddresses::Listed { prefixes, tag } => {
                within(prefixes, address) || tag.as_ref().is_some_and(|tag| self.tag_means(tag, place, address))
            }
            RuleAddresses::ApplicationSecurityGroups(groups) => self.network.nics.iter().any(|nic| {
                let near = nic.subnet.virtual_network == place.virtual_network
                    || self.peers(place).any(|(remote, _)| remote == nic.subnet.virtual_network);
                near && nic.private_addresses.contains(&address)
                    && nic.application_security_groups.iter().any(|group| groups.contains(group))
            }),
        }
    }

    fn tag_means(&self, tag: &RuleTag, place: SubnetRef, address: IpAddr) -> bool {
        match tag {
            RuleTag::VirtualNetwork => self.in_virtual_network(place, address),
            RuleTag::Internet => self.in_internet(place, address),
            RuleTag::AzureLoadBalancer | RuleTag::AzurePlatformDns => address.to_string() == HOST,
            RuleTag::AzurePlatformImds => address.to_string() == METADATA,
            RuleTag::Catalogue(name) => self.in_tag(name, address),
        }
    }

    fn in_tag(&self, name: &str, address: IpAddr) -> bool {
        let tag = self.catalogue.tags().find(|tag| tag.name.eq_ignore_ascii_case(name)).unwrap();
        tag.prefixes().any(|prefix| prefix.contains(&address))
    }

    fn peers(&self, place: SubnetRef) -> impl Iterator<Item = (usize, bool)> {
        let own = &self.network.virtual_networks[place.virtual_network];
        own.peerings.iter().map(|peering| (peering.remote, peering.allow_virtual_network_access))
    }

    /// What the gateway has learned, where the network may use it.
    fn learned(&self, place: SubnetRef) -> &[IpNet] {
        let Some(gateway) = &self.network.gateway else { return &[] };
        let (own, hub) = (place.virtual_network, gateway.virtual_network);
        let networks = &self.network.virtual_networks;
        let lent = networks[own].peerings.iter().any(|side| side.remote == hub && side.use_remote_gateways)
            && networks[hub].peerings.iter().any(|side| side.remote == own && side.allow_gateway_transit);
        if own == hub || lent { &gateway.learned_routes } else { &[] }
    }

    fn in_virtual_network(&self, place: SubnetRef, address: IpAddr) -> bool {
        let networks = &self.network.virtual_networks;
        let table = self.network.subnet(place).route_table.map(|table| &self.network.route_tables[table]);
        within(&networks[place.virtual_network].address_space, address)
            || self.peers(place).any(|(remote, access)| access && within(&networks[remote].address_space, address))
            || within(self.learned(place), address)
            || address.to_string() == HOST
            || table.is_some_and(|table| {
                table.routes.iter().any(|route| match &route.address_prefix {
                    AddressPrefix::Prefix(prefix) => prefix.contains(&address),
                    AddressPrefix::ServiceTag(tag) => self.in_tag(tag, address),
                })
            })
    }

    fn in_internet(&self, place: SubnetRef, address: IpAddr) -> bool {
        let networks = &self.network.virtual_networks;
        is_public(address)
            && !within(&networks[place.virtual_network].address_space, address)
            && !self.peers(place).any(|(remote, _)| within(&networks[remote].address_space, address))
            && !self.learned(place).iter().any(|prefix| prefix.prefix_len() > 0 && prefix.contains(&address))
    }
}

fn within(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            let never = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast();
            !(never || shared || first == 0 || first >= 240 || v4.to_string() == HOST)
        }
        IpAddr::V6(v6) => v6.segments()[0] >> 13 == 1 || v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0],
    }
}

fn takes(written: RuleProtocol, protocol: u8) -> bool {
    match written {
        RuleProtocol::Any => true,
        RuleProtocol::Tcp => protocol == 6,
        RuleProtocol::Udp => protocol == 17,
        RuleProtocol::Icmp => protocol == 1 || protocol == 58,
        RuleProtocol::Esp => protocol == 50,
        RuleProtocol::Ah => protocol == 51,
    }
}

/// A rule that names ports takes no packet that has none; `0-65535` is another spelling of all.
fn among(ranges: &[RangeInclusive<u16>], port: Option<u16>) -> bool {
    ranges.is_empty()
        || ranges.contains(&(0..=u16::MAX))
        || port.is_some_and(|port| ranges.iter().any(|range| range.contains(&port)))
}
