//! The routes that a subnet, or the gateway, chooses among.
//!
//! # System routes (Azure, "Virtual network traffic routing", default and optional routes)
//! - Each range of the network's address space and of every directly peered network.
//! - Learned routes of the virtual network gateway, where the network has it or uses that of a peer, unless the
//!   subnet's route table stops propagation; those of families that the network has address space of.
//! - The default route to the internet, for each family that the network has address space of.
//! - Four IPv4 ranges reserved for private use, with next hop `None`. Such a range is left out where a range of the
//!   network's own or a peered address space equals or contains it (Azure says so of the own; a peer's is treated
//!   alike, since it would be cut off otherwise), and where a user route for 0.0.0.0/0 leads to a virtual appliance or
//!   the virtual network gateway: then unknown private destinations go there, as in the example of Azure's page (which
//!   shows three of the ranges; 172.16.0.0/12 is treated alike). A user route for 0.0.0.0/0 to `Internet`, `None` or
//!   `VnetLocal` keeps them, as does a learned 0.0.0.0/0: the page has no such case, and private destinations have
//!   nothing to gain from the internet edge.
//! - One route for each endpoint of the subnet, with all prefixes of its tags that are of the network's families.
//!
//! # Order
//! Network, peering, gateway, default, reserved, endpoints, as Azure's tools list them. A user route stands after the
//! group of the system route that it overrides or divides: the group of the longest system prefix that contains its
//! own; routes by service tag stand after the default routes.
//!
//! # The gateway
//! What comes in through the tunnel follows the user routes of the network's `GatewaySubnet`, if there is one, its
//! network, and peered networks that use this gateway. There is no endpoint, no default and no way back into the tunnel.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::endpoint;
use super::lists::{Families, ListId, Lists};
use super::mistake::{MissingTag, TagUser};
use super::policies::is_storage;
use super::select::{Kind, PrefixRank};
use crate::model::network::{AddressPrefix, Network, RouteTable, SubnetRef, UserNextHop};
use crate::snapshot::NextHopType;
use crate::tags::{Catalogue, Tag};

/// The name of the subnet that the virtual network gateway is in.
pub(crate) const GATEWAY_SUBNET: &str = "GatewaySubnet";

/// The ranges that system routes drop.
const RESERVED: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// Inside the virtual network.
    VnetLocal,
    /// A peered network, by its index in [`Network::virtual_networks`].
    Peering(usize),
    /// The virtual network gateway.
    Gateway,
    /// The backbone, straight to the service: the endpoint of this index in the subnet's.
    Endpoint(u16),
    /// The internet edge.
    Internet,
    /// The NIC with this address.
    Appliance(IpAddr),
    /// Nowhere.
    None,
}

impl NextHop {
    /// The name that Azure's tools show.
    pub const fn next_hop_type(self) -> NextHopType {
        match self {
            Self::VnetLocal => NextHopType::VnetLocal,
            Self::Peering(_) => NextHopType::VNetPeering,
            Self::Gateway => NextHopType::VirtualNetworkGateway,
            Self::Endpoint(_) => NextHopType::VirtualNetworkServiceEndpoint,
            Self::Internet => NextHopType::Internet,
            Self::Appliance(_) => NextHopType::VirtualAppliance,
            Self::None => NextHopType::None,
        }
    }

    /// The address, which only appliances have.
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Appliance(address) => Some(address),
            _ => None,
        }
    }
}

/// A route of a subnet.
#[derive(Debug, Clone)]
pub struct Route {
    /// What it is, as far as the choice depends on it.
    pub kind: Kind,
    /// The name of a user route, the service of an endpoint.
    pub name: Option<String>,
    /// The service tag of a user route that has one.
    pub service_tag: Option<String>,
    /// What it matches.
    pub prefixes: Arc<[IpNet]>,
    /// Where it leads.
    pub next_hop: NextHop,
    pub(crate) list: ListId,
}

impl Route {
    /// A short name for people: `system 0.0.0.0/0 Internet`, `user default 0.0.0.0/0 VirtualNetworkGateway`.
    pub fn text(&self) -> String {
        let next_hop = self.next_hop.next_hop_type().name();
        let name = self.name.as_deref().unwrap_or_default();
        let prefix = match (&self.service_tag, self.prefixes.first()) {
            (Some(tag), _) => tag.clone(),
            (None, Some(prefix)) => prefix.to_string(),
            (None, None) => String::new(),
        };
        match self.kind {
            Kind::User { .. } => format!("user {name} {prefix} {next_hop}"),
            Kind::Endpoint => format!("system {name} {next_hop}"),
            Kind::Learned => format!("BGP {prefix} {next_hop}"),
            _ => format!("system {prefix} {next_hop}"),
        }
    }
}

/// Makes routes: what they are made from, and the lists they share.
pub(crate) struct Builder<'n> {
    network: &'n Network,
    catalogue: &'n Catalogue,
    lists: Lists,
    missing: Vec<MissingTag>,
}

impl<'n> Builder<'n> {
    pub(crate) fn new(network: &'n Network, catalogue: &'n Catalogue) -> Self {
        Self { network, catalogue, lists: Lists::default(), missing: Vec::new() }
    }

    /// The lists of all routes made, and what the catalogue misses.
    pub(crate) fn finish(self) -> (Lists, Vec<MissingTag>) {
        (self.lists, self.missing)
    }

    /// The routes of a subnet, in their order.
    pub(crate) fn subnet(&mut self, subnet: SubnetRef) -> Vec<Route> {
        let network = self.network;
        let own = &network.virtual_networks[subnet.virtual_network];
        let families = Families::of(&own.address_space);
        let declared = network.subnet(subnet);
        let has_policies = !declared.service_endpoint_policies.is_empty();
        let table = declared.route_table.map(|table| &network.route_tables[table]);
        let mut groups = Groups::default();

        self.networks(subnet.virtual_network, &mut groups, |_| true);
        let propagates = table.is_none_or(|table| !table.disable_bgp_route_propagation);
        if let Some(gateway) = network.gateway.as_ref().filter(|_| propagates)
            && reaches_gateway(network, subnet.virtual_network)
        {
            for prefix in gateway.learned_routes.iter().filter(|prefix| families.has(prefix)) {
                groups.system(Place::Gateway).push(self.explicit(Kind::Learned, *prefix, NextHop::Gateway));
            }
        }
        for (has, default) in [(families.v4, "0.0.0.0/0"), (families.v6, "::/0")] {
            if has && let Ok(prefix) = default.parse() {
                groups.system(Place::Default).push(self.explicit(Kind::Internet, prefix, NextHop::Internet));
            }
        }
        if families.v4 && !table.is_some_and(redirects_default) {
            let connected = groups.connected();
            for reserved in RESERVED.iter().filter_map(|range| range.parse::<IpNet>().ok()) {
                if !connected.iter().any(|range| range.contains(&reserved)) {
                    groups.system(Place::Reserved).push(self.explicit(Kind::Reserved, reserved, NextHop::None));
                }
            }
        }
        for (number, declared) in (0..).zip(&declared.service_endpoints) {
            // A policy makes the endpoint one for all regions (Azure, the page on policies).
            let everywhere = has_policies && is_storage(&declared.service);
            let coverage = endpoint::coverage(declared, &own.location, everywhere, self.catalogue);
            for tag in coverage.missing {
                let (subnet, service) = (network.subnet_name(subnet), declared.service.clone());
                self.miss(TagUser::Endpoint { subnet, service }, tag);
            }
            let list = self.tag_list(&coverage.tags, families);
            let route = self.route(Kind::Endpoint, list, NextHop::Endpoint(number));
            groups.system(Place::Endpoint).push(Route { name: Some(declared.service.clone()), ..route });
        }
        if let Some(table) = table {
            self.user(table, families, &mut groups);
        }
        groups.in_order()
    }

    /// The routes of what comes in through the gateway.
    pub(crate) fn gateway(&mut self) -> Vec<Route> {
        let network = self.network;
        let mut groups = Groups::default();
        if let Some(gateway) = &network.gateway {
            let hub = gateway.virtual_network;
            self.networks(hub, &mut groups, |remote| uses_gateway_of(network, remote, hub));
            let table = gateway_subnet(network).and_then(|subnet| network.subnet(subnet).route_table);
            if let Some(table) = table {
                let families = Families::of(&network.virtual_networks[hub].address_space);
                self.user(&network.route_tables[table], families, &mut groups);
            }
        }
        groups.in_order()
    }

    /// The system routes of a network and of the peered networks that `peer` takes.
    fn networks(&mut self, own: usize, groups: &mut Groups, peer: impl Fn(usize) -> bool) {
        let network = self.network;
        let own = &network.virtual_networks[own];
        for range in &own.address_space {
            groups.system(Place::Own).push(self.explicit(Kind::VirtualNetwork, *range, NextHop::VnetLocal));
        }
        for remote in own.peerings.iter().map(|peering| peering.remote).filter(|remote| peer(*remote)) {
            for range in &network.virtual_networks[remote].address_space {
                groups.system(Place::Peering).push(self.explicit(Kind::Peering, *range, NextHop::Peering(remote)));
            }
        }
    }

    /// The user routes of a table.
    fn user(&mut self, table: &RouteTable, families: Families, groups: &mut Groups) {
        for declared in &table.routes {
            let next_hop = match declared.next_hop {
                UserNextHop::VirtualNetworkGateway => NextHop::Gateway,
                UserNextHop::VnetLocal => NextHop::VnetLocal,
                UserNextHop::Internet => NextHop::Internet,
                UserNextHop::VirtualAppliance(address) => NextHop::Appliance(address),
                UserNextHop::None => NextHop::None,
            };
            let kind = |prefix| Kind::User { internet: next_hop == NextHop::Internet, prefix };
            let name = Some(declared.name.clone());
            match &declared.address_prefix {
                AddressPrefix::Prefix(prefix) => {
                    let route = Route { name, ..self.explicit(kind(PrefixRank::Explicit), *prefix, next_hop) };
                    groups.insert(prefix, route);
                }
                AddressPrefix::ServiceTag(written) => {
                    let found = self.catalogue.get(written);
                    if found.is_none() {
                        let user = TagUser::Route { table: table.name.clone(), route: declared.name.clone() };
                        self.miss(user, written.clone());
                    }
                    let tag = found.map_or(written.as_str(), |tag| tag.name.as_str());
                    let list = self.tag_list(&[tag], families);
                    let rank = found.map_or(PrefixRank::GlobalTag, rank_of_tag);
                    let route = self.route(kind(rank), list, next_hop);
                    groups.0[Place::Default as usize].user.push(Route {
                        name,
                        service_tag: Some(tag.to_owned()),
                        ..route
                    });
                }
            }
        }
    }

    /// Notes once that the catalogue has no such tag.
    fn miss(&mut self, user: TagUser, tag: String) {
        let missing = MissingTag::new(user, tag, self.catalogue);
        if !self.missing.contains(&missing) {
            self.missing.push(missing);
        }
    }

    fn tag_list(&mut self, tags: &[&str], families: Families) -> ListId {
        let catalogue = self.catalogue;
        self.lists
            .tags(tags, families, |tag| catalogue.get(tag).map(|tag| tag.prefixes().collect()).unwrap_or_default())
    }

    fn explicit(&mut self, kind: Kind, prefix: IpNet, next_hop: NextHop) -> Route {
        let list = self.lists.prefix(prefix);
        self.route(kind, list, next_hop)
    }

    fn route(&self, kind: Kind, list: ListId, next_hop: NextHop) -> Route {
        Route { kind, name: None, service_tag: None, prefixes: self.lists.prefixes(list).clone(), next_hop, list }
    }
}

/// Places in the order of routes.
#[derive(Debug, Clone, Copy)]
enum Place {
    Own,
    Peering,
    Gateway,
    Default,
    Reserved,
    Endpoint,
}

/// Routes by their place in the order.
#[derive(Default)]
struct Groups([Group; 6]);

#[derive(Default)]
struct Group {
    system: Vec<Route>,
    user: Vec<Route>,
}

impl Groups {
    fn system(&mut self, place: Place) -> &mut Vec<Route> {
        &mut self.0[place as usize].system
    }

    /// The ranges of network and peerings.
    fn connected(&self) -> Vec<IpNet> {
        let routes = self.0[Place::Own as usize].system.iter().chain(&self.0[Place::Peering as usize].system);
        routes.flat_map(|route| route.prefixes.iter().copied()).collect()
    }

    /// Puts a user route after the group of the longest system prefix that contains its own (of groups with equal ones
    /// the first), or after the default routes if there is none.
    fn insert(&mut self, prefix: &IpNet, route: Route) {
        let longest = |group: &Group| {
            let all = group.system.iter().flat_map(|route| route.prefixes.iter());
            all.filter(|system| system.contains(prefix)).map(IpNet::prefix_len).max()
        };
        let mut best = (None, Place::Default as usize);
        for (index, group) in self.0.iter().enumerate() {
            let length = longest(group);
            if length > best.0 {
                best = (length, index);
            }
        }
        self.0[best.1].user.push(route);
    }

    fn in_order(self) -> Vec<Route> {
        self.0.into_iter().flat_map(|group| group.system.into_iter().chain(group.user)).collect()
    }
}

/// Whether a table sends the IPv4 default to an appliance or the gateway.
fn redirects_default(table: &RouteTable) -> bool {
    table.routes.iter().any(|route| {
        matches!(route.address_prefix, AddressPrefix::Prefix(IpNet::V4(prefix)) if prefix.prefix_len() == 0)
            && matches!(route.next_hop, UserNextHop::VirtualAppliance(_) | UserNextHop::VirtualNetworkGateway)
    })
}

/// How a service tag ranks among user routes. Only the regional tags of a service name a region.
fn rank_of_tag(tag: &Tag) -> PrefixRank {
    let cloud = tag.name.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case("AzureCloud"));
    match (cloud, tag.region.is_empty()) {
        (false, false) => PrefixRank::RegionalTag,
        (false, true) => PrefixRank::GlobalTag,
        (true, false) => PrefixRank::RegionalAzureCloud,
        (true, true) => PrefixRank::AzureCloud,
    }
}

/// Whether a network has the virtual network gateway, or may use that of a peer.
pub(crate) fn reaches_gateway(network: &Network, own: usize) -> bool {
    let Some(gateway) = &network.gateway else { return false };
    let hub = gateway.virtual_network;
    own == hub || uses_gateway_of(network, own, hub)
}

/// Whether a network uses the gateway of a hub: both sides of the peering say so.
fn uses_gateway_of(network: &Network, own: usize, hub: usize) -> bool {
    let side = |from: usize, to: usize| network.virtual_networks[from].peerings.iter().find(|side| side.remote == to);
    side(own, hub).is_some_and(|side| side.use_remote_gateways)
        && side(hub, own).is_some_and(|side| side.allow_gateway_transit)
}

/// The subnet of the virtual network gateway, if the document declares it.
pub(crate) fn gateway_subnet(network: &Network) -> Option<SubnetRef> {
    let virtual_network = network.gateway.as_ref()?.virtual_network;
    let subnets = &network.virtual_networks[virtual_network].subnets;
    let subnet = subnets.iter().position(|subnet| subnet.name.eq_ignore_ascii_case(GATEWAY_SUBNET))?;
    Some(SubnetRef { virtual_network, subnet })
}
