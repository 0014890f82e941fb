//! Model, catalogue and learned routes to a snapshot: the effective routes of every subnet and of the gateway, network
//! security groups, and the tables that the packet path looks them up in.
//!
//! | module | what it does |
//! |---|---|
//! | `effective` | the routes that a subnet, or the gateway, chooses among |
//! | [`select`] | which of the matching routes wins; the only place where that is decided |
//! | [`table`] | the routes of one subnet: Active and Invalid, and why |
//! | `resolve` | what is behind a next hop: NIC, service, edge |
//! | `chains`, `compile` | classes of destinations and the rows of hops |
//! | `ports` | numbers of ports, the same from snapshot to snapshot |
//! | [`nsg`] | network security groups: rules, and the addresses that their tags stand for |
//! | `sources` | pools and what traffic presents itself with |
//! | [`identity`] | tags of networks and subnets, and addresses that carry them |
//! | [`explain`] | answers for people: effective routes, next hop |
//! | [`advice`] | what a good network means that its author may not have meant |
//! | `tag_names` | what the check of a document asks of the catalogue |

pub mod advice;
mod chains;
mod compile;
mod effective;
mod endpoint;
pub mod explain;
pub mod identity;
mod lists;
mod mistake;
pub mod nsg;
mod policies;
mod ports;
mod regions;
mod resolve;
mod resources;
pub mod select;
mod sources;
pub mod table;
mod tag_names;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use effective::{Builder, gateway_subnet};
pub use effective::{NextHop, Route};
use lists::Lists;
pub use mistake::{MissingTag, PlanError, TagUser, UnknownName};
use resolve::{Owner, Resolver, Target};
use select::Rules;
use table::{EffectiveRoute, Table};

use crate::model::network::{EndpointProtocols, Network, ServiceEndpoint, SubnetRef};
use crate::snapshot::Snapshot;
use crate::tags::Catalogue;

/// What subnets with one table have alike: network, route table, endpoints, and whether policies make those global.
type Alike<'n> = (usize, Option<usize>, &'n [ServiceEndpoint], bool);

/// The effective routes of a network under a catalogue.
#[derive(Debug)]
pub struct Plan {
    network: Arc<Network>,
    lists: Lists,
    resolver: Resolver,
    missing: Vec<MissingTag>,
    groups: nsg::Groups,
    /// Distinct tables; subnets of a network with the same route table and endpoints share one.
    tables: Vec<Table>,
    /// Table of each subnet, in the order of the document.
    subnets: Vec<(SubnetRef, usize)>,
    gateway: Option<usize>,
    /// Azure's numbers of the virtual networks' regions; 0 where the catalogue does not say.
    regions: Vec<u16>,
}

impl Plan {
    /// Works out the routes of every subnet and of the gateway. The catalogue may be empty where nothing refers to a
    /// service tag.
    pub fn new(network: Arc<Network>, catalogue: Arc<Catalogue>) -> Self {
        let mut builder = Builder::new(&network, &catalogue);
        let mut tables = Vec::new();
        let gateway = network.gateway.as_ref().map(|gateway| {
            tables.push(Table::new(Owner::Gateway(gateway.virtual_network), builder.gateway()));
            tables.len() - 1
        });
        let in_gateway_subnet = gateway_subnet(&network);
        let mut known: HashMap<Alike<'_>, usize> = HashMap::new();
        let mut subnets = Vec::new();
        for (virtual_network, declared) in network.virtual_networks.iter().enumerate() {
            for (subnet, declared) in declared.subnets.iter().enumerate() {
                let subnet = SubnetRef { virtual_network, subnet };
                let table = match gateway {
                    Some(table) if in_gateway_subnet == Some(subnet) => table,
                    _ => {
                        let has_policies = !declared.service_endpoint_policies.is_empty();
                        let endpoints = declared.service_endpoints.as_slice();
                        let key = (virtual_network, declared.route_table, endpoints, has_policies);
                        *known.entry(key).or_insert_with(|| {
                            tables.push(Table::new(Owner::Network(virtual_network), builder.subnet(subnet)));
                            tables.len() - 1
                        })
                    }
                };
                subnets.push((subnet, table));
            }
        }
        let (lists, mut missing) = builder.finish();
        let groups = nsg::Groups::new(&network, &catalogue, &mut missing);
        let resolver = Resolver::new(&network);
        let locations = network.virtual_networks.iter().map(|network| &network.location);
        let regions = locations.map(|location| catalogue.region_id(location).unwrap_or(0)).collect();
        Self { lists, resolver, missing, groups, tables, subnets, gateway, regions, network }
    }

    /// The network that was planned.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// Whether the catalogue has every tag that the network refers to.
    ///
    /// # Errors
    /// [`PlanError::MissingTags`].
    pub fn check(&self) -> Result<(), PlanError> {
        if self.missing.is_empty() { Ok(()) } else { Err(PlanError::MissingTags(self.missing.clone())) }
    }

    /// Compiles the snapshot of a generation. Ports that `previous` has keep their numbers, and subnets their tags.
    ///
    /// # Errors
    /// [`PlanError`], the first of [`Plan::check`] included.
    pub fn compile(&self, generation: u64, previous: Option<&Snapshot>) -> Result<Snapshot, PlanError> {
        self.check()?;
        compile::compile(self, generation, previous)
    }

    /// The effective routes of a subnet in their order; none for a subnet of another network document. Those of the
    /// gateway's subnet are the gateway's.
    pub fn effective_routes(&self, subnet: SubnetRef) -> &[EffectiveRoute] {
        self.table(subnet).map(|table| table.effective(&self.variants())).unwrap_or_default()
    }

    /// The effective routes of what comes in through the gateway; none without a gateway.
    pub fn gateway_routes(&self) -> &[EffectiveRoute] {
        self.gateway.map(|table| self.tables[table].effective(&self.variants())).unwrap_or_default()
    }

    /// Finds a subnet by `network/subnet`, or the subnet of a NIC by the NIC's name. Case does not count.
    ///
    /// # Errors
    /// [`UnknownName`], with the nearest name.
    pub fn find_subnet_or_nic(&self, name: &str) -> Result<SubnetRef, UnknownName> {
        let subnets: Vec<_> =
            self.subnets.iter().map(|(subnet, _)| (self.network.subnet_name(*subnet), *subnet)).collect();
        let nics = self.network.nics.iter().map(|nic| (nic.name.as_str(), nic.subnet));
        let mut all = subnets.iter().map(|(name, subnet)| (name.as_str(), *subnet)).chain(nics.clone());
        if let Some((_, subnet)) = all.find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Ok(subnet);
        }
        let known = subnets.iter().map(|(name, _)| name.as_str()).chain(nics.map(|(name, _)| name));
        Err(UnknownName::new("subnet or NIC", name, known))
    }

    /// Reads a destination: an address, or a service of the document by its name or a host name, which stands for the
    /// service's first address. Case does not count.
    ///
    /// # Errors
    /// [`UnknownName`], with the nearest name.
    pub fn find_destination(&self, name: &str) -> Result<IpAddr, UnknownName> {
        if let Ok(address) = name.parse() {
            return Ok(address);
        }
        let services = &self.network.services;
        let names = || {
            services.iter().flat_map(|service| {
                let own = std::iter::once(&service.name).chain(service.host_names());
                own.map(move |name| (name.as_str(), service))
            })
        };
        let found = names().find(|(known, _)| known.eq_ignore_ascii_case(name));
        match found.and_then(|(_, service)| service.addresses.first()) {
            Some(address) => Ok(*address),
            None => {
                let known = names().map(|(name, _)| name);
                Err(UnknownName::new("address, service or host name of a service", name, known))
            }
        }
    }

    fn table(&self, subnet: SubnetRef) -> Option<&Table> {
        let found = self.subnets.binary_search_by_key(&subnet, |(subnet, _)| *subnet).ok()?;
        self.tables.get(self.subnets[found].1)
    }

    /// The kinds of packets that can be routed differently: those that endpoints steer, first, and the others.
    fn variants(&self) -> Vec<Rules> {
        let steered: &[bool] = match &self.network.semantics.endpoint_protocols {
            EndpointProtocols::Any => &[true],
            EndpointProtocols::Only(list) if list.is_empty() => &[false],
            EndpointProtocols::Only(_) => &[true, false],
        };
        steered.iter().map(|&steered| self.rules(steered)).collect()
    }

    fn rules(&self, steered: bool) -> Rules {
        Rules { precedence: self.network.semantics.endpoint_precedence, steered }
    }

    /// The name of the port of a target.
    fn port_name(&self, target: Target) -> &str {
        ports::name(&self.network, target)
    }
}
