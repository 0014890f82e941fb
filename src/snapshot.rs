//! The compiled state: immutable tables made from model, catalogue and learned routes, with one generation number;
//! how it is published and how it is read.
//!
//! `plan` builds a [`Snapshot`] whole, off the workers; [`Publisher::publish`] swaps one pointer; a worker compares one
//! atomic generation for each batch and takes the new snapshot only when it differs. The packet path sees nothing of
//! the model but this.
//!
//! # How a route is found
//! One prefix table for each address family maps a destination to its *class*: the number of a set of destinations
//! that every route table treats alike. A route table is a row of hops indexed by class; there is one row for the
//! protocols that endpoints steer and one for the others. Addresses of NICs and services are prefixes too, so that a
//! single lookup gives the port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

mod firewall;
mod nsg;
mod policy;
mod resource;
mod source;

pub use firewall::{Denial, Firewall, FirewallRule};
pub use nsg::{Access, NicNsgs, Nsg, NsgId, RuleInfo, Rules};
pub use policy::{EndpointScope, Policy, PolicyId};
pub use resource::{Front, FrontGroup, GroupId, Resource, ResourceId, Resources};
pub use source::{
    EndpointSource, Filtering, Identity6, Lifetimes, Mapping, Outbound, Pool, PoolId, PoolKind, SourceAction,
    SubnetIdentity, SubnetKey,
};

use crate::table::classifier::Classes;
use crate::table::prefix::PrefixTable;

/// A port of the node: where packets enter and leave. Index into [`Snapshot::ports`].
///
/// Numbers are stable across generations of one process: a port keeps its number as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// A route table of the snapshot. Index into [`Snapshot::tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u16);

/// Names of next hops, as the effective-routes JSON of Azure spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHopType {
    /// Inside the virtual network.
    VnetLocal,
    /// A directly peered virtual network.
    VNetPeering,
    /// The virtual network gateway.
    VirtualNetworkGateway,
    /// The backbone, straight to the service.
    VirtualNetworkServiceEndpoint,
    /// The internet edge.
    Internet,
    /// A network virtual appliance.
    VirtualAppliance,
    /// The platform's own addresses, which no route serves.
    Platform,
    /// Nowhere: drop.
    None,
}

impl NextHopType {
    /// Every type.
    pub const ALL: [Self; 8] = [
        Self::VnetLocal,
        Self::VNetPeering,
        Self::VirtualNetworkGateway,
        Self::VirtualNetworkServiceEndpoint,
        Self::Internet,
        Self::VirtualAppliance,
        Self::Platform,
        Self::None,
    ];

    /// The name in Azure's JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VnetLocal => "VnetLocal",
            Self::VNetPeering => "VNetPeering",
            Self::VirtualNetworkGateway => "VirtualNetworkGateway",
            Self::VirtualNetworkServiceEndpoint => "VirtualNetworkServiceEndpoint",
            Self::Internet => "Internet",
            Self::VirtualAppliance => "VirtualAppliance",
            Self::Platform => "Platform",
            Self::None => "None",
        }
    }
}

/// Why a route leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unroutable {
    /// No route of the table matches.
    NoRoute,
    /// The route's next hop is `None`.
    NextHopNone,
    /// The route is inside the virtual network or a peered one, and no NIC has the address.
    AddressUnassigned,
    /// The next hop is the virtual network gateway, and the network has none that it may use.
    NoGateway,
    /// No NIC of this or a directly peered network has the appliance's address.
    ApplianceUnreachable,
    /// The appliance's NIC has no `ip_forwarding`.
    ApplianceWithoutForwarding,
    /// The destination is a service's, no resource has the address, and there is no backbone port.
    NoSuchResource,
    /// The next hop is the internet, and the network has no edge.
    NoInternetEdge,
    /// The port exists and has no device.
    NoDevice,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HopAction {
    /// Out of a port.
    Deliver {
        /// The port.
        port: PortId,
        /// What becomes of the source address.
        source: SourceAction,
        /// True where the next network takes forwarded traffic: if false, the source address has to be in the address
        /// space of the sending port's network (`allow_forwarded_traffic` of the receiving peering).
        forwarded_allowed: bool,
    },
    /// Nowhere.
    Drop(Unroutable),
}

/// The outcome of routing for one class in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The winning route's next hop type, `None` where no route matches.
    pub next_hop_type: NextHopType,
    /// What to do.
    pub action: HopAction,
    /// Index of the winning route in [`RouteTable::routes`]; `u32::MAX` where none matches.
    pub route: u32,
}

/// One effective route as the plan numbered it, for explaining; never read on the packet path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// `system 0.0.0.0/0 Internet`, `user default 0.0.0.0/0 VirtualNetworkGateway`: enough to recognise it.
    pub text: String,
}

/// The effective routes of a subnet (or of the gateway), compiled.
#[derive(Debug, Clone)]
pub struct RouteTable {
    /// Whose table it is: `spoke/workload`, `gateway`.
    pub name: String,
    /// Hop of each class for protocols that endpoints steer: indices into [`Snapshot::hops`].
    pub steered_v4: Vec<u32>,
    /// The same for the other protocols.
    pub unsteered_v4: Vec<u32>,
    /// IPv6, steered.
    pub steered_v6: Vec<u32>,
    /// IPv6, not steered.
    pub unsteered_v6: Vec<u32>,
    /// The effective routes in the order of the plan.
    pub routes: Vec<RouteInfo>,
}

/// What a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// A NIC of a VM.
    Nic,
    /// The virtual network gateway.
    Gateway,
    /// The internet edge.
    Internet,
    /// A resource of a service.
    Service,
    /// Services without a resource of their own.
    Backbone,
    /// The platform's own addresses: DNS, DHCP and probes, instance metadata.
    Platform,
    /// A number that a removed port had; nothing enters or leaves.
    Vacant,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEntry {
    /// `vm1`, `contosodata`, `gateway`, `internet`, `backbone`.
    pub name: String,
    /// What it is.
    pub kind: PortKind,
    /// Addresses that are the port's own: a NIC's private addresses, a service's public ones.
    pub addresses: Vec<IpAddr>,
    /// NICs: may send from other addresses.
    pub ip_forwarding: bool,
    /// The route table that decides for packets that enter here; services and the internet have none: they reach what
    /// [`Snapshot::public`] lists, and what flows lead back to.
    pub table: Option<TableId>,
    /// Address space of the port's virtual network; empty for services, internet and backbone.
    pub address_space: Arc<[IpNet]>,
    /// Prefixes that no packet entering here has as its source: for the gateway and the internet edge, every address
    /// space of the document; for the edge every public address of the node and its services, too.
    pub refused_sources: Arc<[IpNet]>,
    /// Prefixes that the node alone gives to sources, for NICs and edges: of identities, and of what endpoints translate to.
    pub reserved_sources: Arc<[IpNet]>,
    /// Source of ICMP errors made for packets that entered here: a subnet's gateway address (its first), for the
    /// gateway and the internet edge an address of theirs.
    pub router_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub router_v6: Option<Ipv6Addr>,
    /// MTU of the port's device in bytes.
    pub mtu: u16,
    /// How what enters here gets a public source.
    pub outbound: Outbound,
    /// NICs: the network security groups that it meets.
    pub nsgs: NicNsgs,
    /// NICs: the identity of their subnet, for what they send over an endpoint, forwarded for others or not.
    pub identity: Option<SubnetKey>,
    /// How each endpoint of the port's subnet presents itself, in the order of the subnet's endpoints.
    pub endpoint_sources: Vec<EndpointSource>,
    /// Whom each of these endpoints leads to, in the same order.
    pub endpoint_scopes: Vec<EndpointScope>,
    /// Services: the IPv6 address that stands for each IPv4 address towards `identity6` traffic.
    pub identity_addresses: Vec<(Ipv4Addr, Ipv6Addr)>,
}

/// Addresses of the platform: DNS, DHCP and probes; instance metadata. Outside routes and rules in Azure, but for the rules
/// that name their service tags (Azure, "Network security groups").
pub const PLATFORM: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(169, 254, 169, 254)];

/// The compiled state of the node.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number, larger than those of all before it; 0 is never published.
    pub generation: u64,
    /// Every port by [`PortId`].
    pub ports: Vec<PortEntry>,
    /// Class of an IPv4 destination.
    pub classes_v4: PrefixTable<u32>,
    /// Class of an IPv6 destination.
    pub classes_v6: PrefixTable<u128>,
    /// Route tables by [`TableId`].
    pub tables: Vec<RouteTable>,
    /// Distinct outcomes.
    pub hops: Vec<Hop>,
    /// Service addresses that the internet reaches: sorted by address.
    pub public: Vec<(IpAddr, PortId)>,
    /// Instance public addresses: public address, port of the NIC, its private address. Sorted by public address.
    pub instances: Vec<(IpAddr, PortId, IpAddr)>,
    /// Network security groups by [`NsgId`].
    pub nsgs: Vec<Nsg>,
    /// The sets of addresses that their rules name.
    pub address_sets: Classes,
    /// Resources of services.
    pub resources: Resources,
    /// Service endpoint policies by [`PolicyId`].
    pub policies: Vec<Policy>,
    /// The port of the platform's addresses.
    pub platform: Option<PortId>,
    /// Pools of translated addresses by [`PoolId`].
    pub pools: Vec<Pool>,
    /// The tags of every subnet in `identity6` addresses, and those that subnets had which are gone. The packet path does
    /// not read them: what they come to is in [`PortEntry::endpoint_sources`].
    pub identities: Vec<SubnetIdentity>,
    /// Lifetimes of flows that no pool translates.
    pub lifetimes: Lifetimes,
    /// Most flows of one NIC, over all workers.
    pub flow_limit_per_nic: u32,
    /// Most flows of the node, over all workers.
    pub flow_limit: u32,
    /// For each IP protocol number whether endpoints steer it.
    pub steered: [bool; 256],
}

impl Snapshot {
    /// Finds the hop of an IPv4 destination: one prefix lookup, one row.
    pub fn route_v4(&self, table: TableId, destination: Ipv4Addr, protocol: u8) -> Option<&Hop> {
        let table = self.tables.get(usize::from(table.0))?;
        let rows = if self.steers(protocol) { &table.steered_v4 } else { &table.unsteered_v4 };
        let class = self.classes_v4.lookup(destination.to_bits())?;
        self.hops.get(*rows.get(class as usize)? as usize)
    }

    /// Finds the hop of an IPv6 destination.
    pub fn route_v6(&self, table: TableId, destination: Ipv6Addr, protocol: u8) -> Option<&Hop> {
        let table = self.tables.get(usize::from(table.0))?;
        let rows = if self.steers(protocol) { &table.steered_v6 } else { &table.unsteered_v6 };
        let class = self.classes_v6.lookup(destination.to_bits())?;
        self.hops.get(*rows.get(class as usize)? as usize)
    }

    /// Finds the hop of a destination of either family.
    pub fn route(&self, table: TableId, destination: IpAddr, protocol: u8) -> Option<&Hop> {
        match destination {
            IpAddr::V4(v4) => self.route_v4(table, v4, protocol),
            IpAddr::V6(v6) => self.route_v6(table, v6, protocol),
        }
    }

    /// Whether endpoints steer an IP protocol.
    pub fn steers(&self, protocol: u8) -> bool {
        self.steered.get(usize::from(protocol)).copied().unwrap_or(false)
    }

    /// The port by its number.
    pub fn port(&self, port: PortId) -> Option<&PortEntry> {
        self.ports.get(usize::from(port.0))
    }

    /// The name of a port, or its number where there is no such port.
    pub fn port_name(&self, port: PortId) -> String {
        self.port(port).map_or_else(|| port.0.to_string(), |port| port.name.clone())
    }

    /// The subnet that has an identity now.
    pub fn identity(&self, key: SubnetKey) -> Option<&SubnetIdentity> {
        self.identities.iter().find(|known| known.key() == key && !known.retired)
    }

    /// The pool by its number.
    pub fn pool(&self, pool: PoolId) -> Option<&Pool> {
        self.pools.get(usize::from(pool.0))
    }

    /// The pool that an address belongs to.
    pub fn pool_of(&self, address: IpAddr) -> Option<PoolId> {
        let found = self.pools.iter().position(|pool| pool.contains(address))?;
        u16::try_from(found).ok().map(PoolId)
    }

    /// Whether a pool translates for an address of a port now: the port is a NIC that has the address, or forwards for
    /// others, and its way to the internet or one of its endpoints names the pool.
    pub fn serves(&self, pool: PoolId, port: PortId, address: IpAddr) -> bool {
        let Some(port) = self.port(port).filter(|port| port.kind == PortKind::Nic) else { return false };
        let named = port.outbound.nat_gateway == Some(pool)
            || port.outbound.default == Some(pool)
            || port.endpoint_sources.contains(&EndpointSource::Snat(pool));
        named && (port.ip_forwarding || port.addresses.contains(&address))
    }

    /// The NIC port and private address behind an instance public address.
    pub fn instance(&self, public: IpAddr) -> Option<(PortId, IpAddr)> {
        let found = self.instances.binary_search_by_key(&public, |(address, _, _)| *address).ok()?;
        self.instances.get(found).map(|(_, port, private)| (*port, *private))
    }

    /// The port of the service that has a public address.
    pub fn public_port(&self, address: IpAddr) -> Option<PortId> {
        let found = self.public.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        self.public.get(found).map(|(_, port)| *port)
    }
}

/// Publishes snapshots; shared by the control side (writes) and the workers (read).
#[derive(Debug)]
pub struct Publisher {
    generation: AtomicU64,
    current: Mutex<Arc<Snapshot>>,
}

impl Publisher {
    /// Starts with a first snapshot.
    pub fn new(first: impl Into<Arc<Snapshot>>) -> Self {
        let first = first.into();
        Self { generation: AtomicU64::new(first.generation), current: Mutex::new(first) }
    }

    /// The generation of the newest snapshot: one atomic read, what a worker compares for each batch.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The newest snapshot. Takes a lock; called only when the generation differs.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Swaps in the next snapshot and returns the one before. Workers see it at their next batch.
    pub fn publish(&self, next: impl Into<Arc<Snapshot>>) -> Arc<Snapshot> {
        let next = next.into();
        let generation = next.generation;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, next);
        self.generation.store(generation, Ordering::Release);
        before
    }
}
