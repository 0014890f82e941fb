//! Ports and their numbers. A port keeps its number from snapshot to snapshot as long as it exists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::PlanError;
use super::effective::gateway_subnet;
use super::identity;
use super::nsg::Groups;
use super::policies::Policies;
use super::resolve::Target;
use super::sources::{Sources, identity_addresses};
use crate::model::network::{Device, Network, Nic};
use crate::snapshot::{NicNsgs, Outbound, PLATFORM, PortEntry, PortId, PortKind, TableId};

/// MTU of a port that has no device, in bytes: Ethernet's.
const DEFAULT_MTU: u16 = 1500;

/// Every port of a network.
#[derive(Debug)]
pub(crate) struct Ports {
    /// By number, vacant numbers included.
    pub(crate) entries: Vec<PortEntry>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    target: Target,
    port: PortId,
    has_device: bool,
}

impl Ports {
    /// Numbers the ports of a network. Those that `previous` has, by kind and name, keep their numbers; the others get
    /// numbers that were vacant there or new ones. A number that loses its port now stays vacant for one snapshot at
    /// least, so that nothing can take an old port for a new one.
    ///
    /// # Errors
    /// [`PlanError::TooManyPorts`].
    pub(crate) fn assign(
        network: &Network,
        previous: &[PortEntry],
        sources: &Sources<'_>,
        policies: &Policies<'_>,
        groups: &Groups,
        table_of: impl Fn(Target) -> Option<TableId>,
    ) -> Result<Self, PlanError> {
        let wanted = wanted(network, sources, policies, groups, table_of);
        let mut entries: Vec<PortEntry> = previous.iter().map(|_| vacant()).collect();
        let kept = |(entry, _, _): &(PortEntry, Target, bool)| {
            previous.iter().position(|before| before.kind == entry.kind && before.name == entry.name)
        };
        let numbers: Vec<Option<usize>> = wanted.iter().map(kept).collect();
        let mut free = (0..previous.len()).filter(|index| previous[*index].kind == PortKind::Vacant);
        let mut places = Vec::with_capacity(wanted.len());
        for ((entry, target, has_device), number) in wanted.into_iter().zip(numbers) {
            let number = number.or_else(|| free.next()).unwrap_or(entries.len());
            let port = PortId(u16::try_from(number).map_err(|_| PlanError::TooManyPorts)?);
            match entries.get_mut(number) {
                Some(place) => *place = entry,
                None => entries.push(entry),
            }
            places.push(Place { target, port, has_device });
        }
        places.sort_by_key(|place| order(place.target));
        Ok(Self { entries, places })
    }

    /// The port of a target, and whether it has a device.
    pub(crate) fn of(&self, target: Target) -> Option<(PortId, bool)> {
        let found = self.places.binary_search_by_key(&order(target), |place| order(place.target)).ok()?;
        self.places.get(found).map(|place| (place.port, place.has_device))
    }
}

/// The name of the port of a target.
pub(crate) fn name(network: &Network, target: Target) -> &str {
    match target {
        Target::Nic(nic) => &network.nics[nic].name,
        Target::Service(service) => &network.services[service].name,
        Target::Gateway => "gateway",
        Target::Internet => "internet",
        Target::Backbone => "backbone",
        Target::Platform => "platform",
    }
}

/// Targets as something to sort by.
fn order(target: Target) -> (u8, usize) {
    match target {
        Target::Nic(nic) => (0, nic),
        Target::Gateway => (1, 0),
        Target::Internet => (2, 0),
        Target::Backbone => (3, 0),
        Target::Service(service) => (4, service),
        Target::Platform => (5, 0),
    }
}

fn vacant() -> PortEntry {
    PortEntry {
        name: String::new(),
        kind: PortKind::Vacant,
        addresses: Vec::new(),
        ip_forwarding: false,
        table: None,
        address_space: Arc::from([]),
        refused_sources: Arc::from([]),
        reserved_sources: Arc::from([]),
        router_v4: None,
        router_v6: None,
        mtu: DEFAULT_MTU,
        outbound: Outbound::default(),
        nsgs: NicNsgs::default(),
        identity: None,
        endpoint_sources: Vec::new(),
        endpoint_scopes: Vec::new(),
        identity_addresses: Vec::new(),
    }
}

/// The ports that a network has, and whether each has a device.
fn wanted(
    network: &Network,
    sources: &Sources<'_>,
    policies: &Policies<'_>,
    groups: &Groups,
    table_of: impl Fn(Target) -> Option<TableId>,
) -> Vec<(PortEntry, Target, bool)> {
    let spaces: Vec<Arc<[IpNet]>> =
        network.virtual_networks.iter().map(|network| network.address_space.as_slice().into()).collect();
    let inside = spaces.iter().flat_map(|space| space.iter().copied());
    // Nor does anybody on the internet send in the name of the node's own public addresses, or of its services.
    let own = sources
        .pools
        .iter()
        .flat_map(|pool| pool.v4.iter().copied().map(IpAddr::V4).chain(pool.v6.iter().copied().map(IpAddr::V6)));
    let own = own
        .chain(network.nics.iter().flat_map(|nic| nic.public_addresses.iter().copied()))
        .chain(network.services.iter().flat_map(|service| service.addresses.iter().copied()));
    let identities = IpNet::new(network.identity.prefix.into(), 32).ok();
    let reserved: Arc<[IpNet]> = network.endpoint_prefixes().chain(identities).collect();
    let every: Arc<[IpNet]> = inside.clone().collect();
    let every_and_own: Arc<[IpNet]> = inside.chain(own.map(IpNet::from)).collect();
    let mut ports = Vec::new();
    let mut add = |kind, target, device: Option<&Device>, entry: PortEntry| {
        let mtu = device.map_or(DEFAULT_MTU, |device| device.mtu);
        let name = name(network, target).to_owned();
        ports.push((PortEntry { name, kind, mtu, table: table_of(target), ..entry }, target, device.is_some()));
    };
    for (index, nic) in network.nics.iter().enumerate() {
        let (router_v4, router_v6) = nic_routers(network, nic);
        let entry = PortEntry {
            addresses: nic.private_addresses.clone(),
            ip_forwarding: nic.ip_forwarding,
            address_space: spaces[nic.subnet.virtual_network].clone(),
            reserved_sources: reserved.clone(),
            outbound: sources.outbound(nic),
            nsgs: groups.of_nic(index),
            identity: identity::of_subnet(network, &sources.identities, nic.subnet),
            endpoint_sources: sources.endpoints(nic.subnet),
            endpoint_scopes: policies.scopes(nic.subnet),
            router_v4,
            router_v6,
            ..vacant()
        };
        add(PortKind::Nic, Target::Nic(index), nic.device.as_ref(), entry);
    }
    if let Some(gateway) = &network.gateway {
        let prefixes = gateway_subnet(network).map(|subnet| network.subnet(subnet).address_prefixes.as_slice());
        let routers = || prefixes.unwrap_or_default().iter().map(router);
        let entry = PortEntry {
            address_space: spaces[gateway.virtual_network].clone(),
            refused_sources: every.clone(),
            reserved_sources: reserved.clone(),
            router_v4: routers().find_map(v4),
            router_v6: routers().find_map(v6),
            ..vacant()
        };
        add(PortKind::Gateway, Target::Gateway, gateway.device.as_ref(), entry);
    }
    if let Some(internet) = &network.internet {
        let public = || internet.public_addresses.iter().copied();
        let entry = PortEntry {
            refused_sources: every_and_own,
            reserved_sources: reserved,
            router_v4: public().find_map(v4),
            router_v6: public().find_map(v6),
            ..vacant()
        };
        add(PortKind::Internet, Target::Internet, internet.device.as_ref(), entry);
    }
    if let Some(backbone) = &network.backbone {
        add(PortKind::Backbone, Target::Backbone, backbone.device.as_ref(), vacant());
    }
    if let Some(platform) = &network.platform {
        let entry = PortEntry { addresses: PLATFORM.map(IpAddr::V4).to_vec(), ..vacant() };
        add(PortKind::Platform, Target::Platform, platform.device.as_ref(), entry);
    }
    for (index, service) in network.services.iter().enumerate() {
        let entry = PortEntry {
            addresses: service.addresses.clone(),
            identity_addresses: identity_addresses(&service.addresses),
            ..vacant()
        };
        add(PortKind::Service, Target::Service(index), service.device.as_ref(), entry);
    }
    ports
}

/// The routers that a NIC sees: the first usable address of the subnet's prefix that its own address is in.
fn nic_routers(network: &Network, nic: &Nic) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let prefixes = &network.subnet(nic.subnet).address_prefixes;
    let routers = || {
        let prefix_of = |address: &IpAddr| prefixes.iter().find(|prefix| prefix.contains(address));
        nic.private_addresses.iter().filter_map(prefix_of).map(router)
    };
    (routers().find_map(v4), routers().find_map(v6))
}

/// The first usable address of a subnet's prefix, which is its gateway's (Azure, "Azure Virtual Network FAQ").
fn router(prefix: &IpNet) -> IpAddr {
    match prefix.network() {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() | 1).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() | 1).into(),
    }
}

/// An IPv4 address.
pub(super) fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// An IPv6 address.
pub(super) fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}
