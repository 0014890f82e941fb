//! Which devices the node's ports need, and what the kernel on their other side needs to know: addresses and routes that
//! follow from the port's role.
//!
//! | role | addresses of the interface | routes into it |
//! |---|---|---|
//! | NIC | its private addresses, with its subnet's prefix length | default |
//! | service | its addresses, alone; what stands for its IPv4 ones towards `identity6` traffic if it has no IPv6 | default |
//! | gateway | the device's | address spaces of its network and of the peers that use it |
//! | internet | the device's | addresses of services; public addresses of default outbound access, NAT gateways and NICs |
//! | backbone | the device's | address spaces of all networks; what endpoints translate to |
//!
//! Addresses that the document lists at a device come on top. An Ethernet interface is not the node's to configure: it
//! gets none of this.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::network::{Device, EndpointSource, Interface, Network, Nic, Service};
use crate::model::services::endpoint_service;
use crate::snapshot::{PLATFORM, PortId, PortKind, Snapshot};

/// A port of the snapshot and the device that it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// Its number.
    pub port: PortId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: PortKind,
    /// The device as the document describes it.
    pub device: Device,
    /// Addresses of the kernel's side.
    pub addresses: Vec<IpNet>,
    /// Destinations that the kernel's side sends into the interface.
    pub routes: Vec<IpNet>,
}

impl Attachment {
    /// The interface's name.
    pub fn interface(&self) -> &str {
        match &self.device.interface {
            Interface::Tun { name, .. } | Interface::Ethernet { name, .. } => name,
        }
    }

    /// Whether one of its addresses brings a route to this prefix along.
    pub(crate) fn covers(&self, route: &IpNet) -> bool {
        self.addresses.iter().any(|address| address.trunc() == *route)
    }

    /// Whether another attachment is the same device, open or not: only what the kernel was told may differ.
    pub fn same_device(&self, other: &Self) -> bool {
        let name = |attachment: &Self| match &attachment.device.interface {
            Interface::Tun { name, .. } => Interface::Tun { name: name.clone(), addresses: Vec::new() },
            ethernet => ethernet.clone(),
        };
        self.port == other.port
            && name(self) == name(other)
            && self.device.netns == other.device.netns
            && self.device.mtu == other.device.mtu
            && self.device.link == other.device.link
            && self.device.pcap == other.device.pcap
    }

    /// Whether both would be the same interface of the same namespace.
    pub fn same_place(&self, other: &Self) -> bool {
        self.interface() == other.interface() && self.device.netns == other.device.netns
    }
}

/// `nic`, `gateway` and so on, for people and JSON.
pub(crate) fn kind_name(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Nic => "nic",
        PortKind::Gateway => "gateway",
        PortKind::Internet => "internet",
        PortKind::Service => "service",
        PortKind::Backbone => "backbone",
        PortKind::Platform => "platform",
        PortKind::Vacant => "vacant",
    }
}

/// The devices that a snapshot's ports need, by [`PortId`].
pub fn attachments(network: &Network, snapshot: &Snapshot) -> Vec<Attachment> {
    let mut attachments = Vec::new();
    for (number, entry) in (0..=u16::MAX).zip(&snapshot.ports) {
        let found = match entry.kind {
            PortKind::Nic => network.nics.iter().find(|nic| nic.name == entry.name).and_then(|nic| {
                Some((nic.device.as_ref()?, nic_addresses(network, nic), default_routes(&nic.private_addresses)))
            }),
            PortKind::Service => {
                network.services.iter().find(|service| service.name == entry.name).and_then(|service| {
                    let addresses = service_addresses(network, service);
                    let routes = default_routes(&addresses);
                    Some((service.device.as_ref()?, addresses.into_iter().map(IpNet::from).collect(), routes))
                })
            }
            PortKind::Gateway => network.gateway.as_ref().and_then(|gateway| {
                Some((gateway.device.as_ref()?, Vec::new(), gateway_routes(network, gateway.virtual_network)))
            }),
            PortKind::Internet => network
                .internet
                .as_ref()
                .and_then(|internet| Some((internet.device.as_ref()?, Vec::new(), internet_routes(network)))),
            PortKind::Backbone => network.backbone.as_ref().and_then(|backbone| {
                let spaces = network.virtual_networks.iter().flat_map(|network| network.address_space.iter().copied());
                let routes = spaces.chain(network.endpoint_prefixes()).collect();
                Some((backbone.device.as_ref()?, Vec::new(), routes))
            }),
            PortKind::Platform => network.platform.as_ref().and_then(|platform| {
                let addresses = PLATFORM.map(|address| IpNet::from(std::net::IpAddr::V4(address))).to_vec();
                let spaces = network.virtual_networks.iter().flat_map(|network| network.address_space.iter().copied());
                Some((platform.device.as_ref()?, addresses, spaces.collect()))
            }),
            PortKind::Vacant => None,
        };
        let Some((device, mut addresses, mut routes)) = found else { continue };
        match &device.interface {
            Interface::Tun { addresses: more, .. } => {
                addresses
                    .extend(more.iter().filter(|address| !addresses.contains(address)).copied().collect::<Vec<_>>());
                routes.sort();
                routes.dedup();
            }
            Interface::Ethernet { .. } => {
                addresses.clear();
                routes.clear();
            }
        }
        attachments.push(Attachment {
            port: PortId(number),
            name: entry.name.clone(),
            kind: entry.kind,
            device: device.clone(),
            addresses,
            routes,
        });
    }
    attachments
}

fn nic_addresses(network: &Network, nic: &Nic) -> Vec<IpNet> {
    let prefixes = &network.subnet(nic.subnet).address_prefixes;
    nic.private_addresses
        .iter()
        .map(|address| {
            let length = prefixes.iter().find(|prefix| prefix.contains(address)).map(IpNet::prefix_len);
            length.and_then(|length| IpNet::new(*address, length).ok()).unwrap_or_else(|| IpNet::from(*address))
        })
        .collect()
}

/// A service's addresses. One without an IPv6 address has its IPv4 ones embedded (RFC 6052) as well, where an endpoint
/// for it sends `identity6` traffic.
fn service_addresses(network: &Network, service: &Service) -> Vec<IpAddr> {
    let tags = |name: &str| endpoint_service(name).map(|service| service.tags);
    let identified = network.endpoints().any(|endpoint| {
        endpoint.source == EndpointSource::Identity6 && tags(&endpoint.service) == tags(&service.service)
    });
    let mut addresses = service.addresses.clone();
    if identified && service.addresses.iter().all(IpAddr::is_ipv4) {
        let prefix = network.identity.destination_prefix.to_bits();
        addresses.extend(service.addresses.iter().filter_map(|address| match address {
            IpAddr::V4(v4) => Some(IpAddr::V6(Ipv6Addr::from_bits(prefix | u128::from(v4.to_bits())))),
            IpAddr::V6(_) => None,
        }));
    }
    addresses
}

/// A default route for each family of the addresses.
fn default_routes(addresses: &[IpAddr]) -> Vec<IpNet> {
    let mut routes = Vec::new();
    if addresses.iter().any(IpAddr::is_ipv4) {
        routes.push(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)));
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        routes.push(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)));
    }
    routes
}

fn gateway_routes(network: &Network, gateway: usize) -> Vec<IpNet> {
    let transit = |peer: usize| {
        network.virtual_networks[gateway].peerings.iter().any(|side| side.remote == peer && side.allow_gateway_transit)
    };
    network
        .virtual_networks
        .iter()
        .enumerate()
        .filter(|(index, candidate)| {
            *index == gateway
                || transit(*index)
                    && candidate.peerings.iter().any(|side| side.remote == gateway && side.use_remote_gateways)
        })
        .flat_map(|(_, network)| network.address_space.iter().copied())
        .collect()
}

fn internet_routes(network: &Network) -> Vec<IpNet> {
    let services = network.services.iter().flat_map(|service| &service.addresses).copied();
    services.chain(network.public_addresses()).map(IpNet::from).collect()
}
