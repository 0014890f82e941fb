//! The network as the page draws it: what is where, without devices and rules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::control::node::Node;
use crate::model::network::{Network, Nic, Service, SubnetRef, VirtualNetwork};
use crate::model::services::ENDPOINT_SERVICES;
use crate::path::kind::PathKind;
use crate::plan::explain::source_text;
use crate::snapshot::NextHopType;

/// Most virtual networks that are told.
const NETWORKS: usize = 64;

/// Most subnets of a network that are told.
const SUBNETS: usize = 64;

/// Most NICs of a subnet that are told.
const NICS: usize = 32;

/// Most services that are told.
const SERVICES: usize = 128;

/// Most addresses and prefixes that are told of one thing.
const ADDRESSES: usize = 16;

/// `GET /api/picture`
#[derive(Debug, Serialize)]
pub struct Picture {
    /// Generation in force.
    generation: u64,
    /// Version of the program.
    version: &'static str,
    /// File name of the document.
    document: String,
    /// The network's region.
    location: String,
    virtual_networks: Vec<PictureNetwork>,
    gateway: Option<PictureGateway>,
    internet: Option<PictureInternet>,
    /// Whether there is a backbone for services without a resource in the document.
    backbone: bool,
    /// Whether there are the platform's own addresses.
    platform: bool,
    services: Vec<PictureService>,
    /// Every service that a subnet can have an endpoint for.
    endpoint_services: Vec<&'static str>,
    /// The path that each type of next hop is of.
    paths: BTreeMap<&'static str, &'static str>,
    /// What there is and is not told, because there is too much of it.
    left_out: LeftOut,
}

#[derive(Debug, Default, Serialize)]
struct LeftOut {
    virtual_networks: usize,
    services: usize,
}

#[derive(Debug, Serialize)]
struct PictureNetwork {
    name: String,
    location: String,
    address_space: Vec<IpNet>,
    /// Names of the networks at the other end of its peerings.
    peerings: Vec<String>,
    subnets: Vec<PictureSubnet>,
    /// Subnets that are not told.
    more_subnets: usize,
}

#[derive(Debug, Serialize)]
struct PictureSubnet {
    /// `network/subnet`.
    name: String,
    address_prefixes: Vec<IpNet>,
    route_table: Option<String>,
    nat_gateway: Option<String>,
    network_security_group: Option<String>,
    endpoints: Vec<PictureEndpoint>,
    nics: Vec<PictureNic>,
    /// NICs that are not told.
    more_nics: usize,
}

#[derive(Debug, Serialize)]
struct PictureEndpoint {
    service: String,
    locations: Vec<String>,
    /// How its traffic presents itself, in words.
    source: String,
}

#[derive(Debug, Serialize)]
struct PictureNic {
    name: String,
    private_addresses: Vec<IpAddr>,
    public_addresses: Vec<IpAddr>,
}

#[derive(Debug, Serialize)]
struct PictureGateway {
    virtual_network: String,
    learned_routes: Vec<IpNet>,
}

#[derive(Debug, Serialize)]
struct PictureInternet {
    public_addresses: Vec<IpAddr>,
}

#[derive(Debug, Serialize)]
struct PictureService {
    name: String,
    service: String,
    location: String,
    addresses: Vec<IpAddr>,
    host_names: Vec<String>,
}

/// What is in force, to be drawn.
pub(super) fn picture(node: &Node) -> Picture {
    let (network, generation, document) = node.drawn();
    let network = &*network;
    let mut nics: BTreeMap<SubnetRef, Vec<&Nic>> = BTreeMap::new();
    for nic in &network.nics {
        nics.entry(nic.subnet).or_default().push(nic);
    }
    let networks = network.virtual_networks.iter().enumerate().take(NETWORKS);
    let networks = networks.map(|(index, declared)| drawn_network(network, &nics, index, declared));
    Picture {
        generation,
        version: env!("CARGO_PKG_VERSION"),
        document: document.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        location: network.location.clone(),
        virtual_networks: networks.collect(),
        gateway: network.gateway.as_ref().map(|gateway| PictureGateway {
            virtual_network: network.virtual_networks[gateway.virtual_network].name.clone(),
            learned_routes: first(&gateway.learned_routes),
        }),
        internet: network
            .internet
            .as_ref()
            .map(|internet| PictureInternet { public_addresses: first(&internet.public_addresses) }),
        backbone: network.backbone.is_some(),
        platform: network.platform.is_some(),
        services: network.services.iter().take(SERVICES).map(drawn_service).collect(),
        endpoint_services: ENDPOINT_SERVICES.iter().map(|service| service.name).collect(),
        paths: NextHopType::ALL.iter().map(|&hop| (hop.name(), PathKind::of(hop).name())).collect(),
        left_out: LeftOut {
            virtual_networks: network.virtual_networks.len().saturating_sub(NETWORKS),
            services: network.services.len().saturating_sub(SERVICES),
        },
    }
}

fn first<T: Clone>(list: &[T]) -> Vec<T> {
    list.iter().take(ADDRESSES).cloned().collect()
}

fn drawn_network(
    network: &Network,
    nics: &BTreeMap<SubnetRef, Vec<&Nic>>,
    virtual_network: usize,
    declared: &VirtualNetwork,
) -> PictureNetwork {
    let subnets = (0..declared.subnets.len()).take(SUBNETS).map(|subnet| {
        let subnet = SubnetRef { virtual_network, subnet };
        let own = network.subnet(subnet);
        let nics = nics.get(&subnet).map(Vec::as_slice).unwrap_or_default();
        PictureSubnet {
            name: network.subnet_name(subnet),
            address_prefixes: first(&own.address_prefixes),
            route_table: own.route_table.map(|table| network.route_tables[table].name.clone()),
            nat_gateway: own.nat_gateway.map(|gateway| network.nat_gateways[gateway].name.clone()),
            network_security_group: own
                .network_security_group
                .map(|group| network.network_security_groups[group].name.clone()),
            endpoints: own
                .service_endpoints
                .iter()
                .map(|endpoint| PictureEndpoint {
                    service: endpoint.service.clone(),
                    locations: endpoint.locations.clone(),
                    source: source_text(network, &endpoint.source),
                })
                .collect(),
            nics: nics
                .iter()
                .take(NICS)
                .map(|nic| PictureNic {
                    name: nic.name.clone(),
                    private_addresses: first(&nic.private_addresses),
                    public_addresses: first(&nic.public_addresses),
                })
                .collect(),
            more_nics: nics.len().saturating_sub(NICS),
        }
    });
    let peerings = declared.peerings.iter().map(|peering| network.virtual_networks[peering.remote].name.clone());
    PictureNetwork {
        name: declared.name.clone(),
        location: declared.location.clone(),
        address_space: first(&declared.address_space),
        peerings: peerings.collect(),
        subnets: subnets.collect(),
        more_subnets: declared.subnets.len().saturating_sub(SUBNETS),
    }
}

fn drawn_service(service: &Service) -> PictureService {
    PictureService {
        name: service.name.clone(),
        service: service.service.clone(),
        location: service.location.clone(),
        addresses: first(&service.addresses),
        host_names: service.host_names().take(ADDRESSES).cloned().collect(),
    }
}
