//! The validated network. Every reference between its parts is an index that is known to be good, every prefix has
//! its host bits clear, and every rule of the check has held. Only the model's own validation makes one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// A whole network document, validated.
#[derive(Debug, Clone)]
pub struct Network {
    /// The Azure region that this network lives in, in lower case without spaces (`westeurope`).
    pub location: String,
    /// The service-tag catalogue, resolved against the folder of the document.
    pub tags: Option<PathBuf>,
    /// How TUN devices are opened.
    pub io: IoMode,
    /// How many workers forward packets; each owns one queue of every port. At least 1.
    pub workers: u16,
    /// Where the control socket is, if the document says.
    pub control: Option<PathBuf>,
    /// The switches between what Azure documents and what labs observe.
    pub semantics: Semantics,
    /// Virtual networks in the order of the document.
    pub virtual_networks: Vec<VirtualNetwork>,
    /// Route tables in the order of the document.
    pub route_tables: Vec<RouteTable>,
    /// Network interfaces in the order of the document.
    pub nics: Vec<Nic>,
    /// The virtual network gateway: the near end of the forced tunnel.
    pub gateway: Option<Gateway>,
    /// The internet edge.
    pub internet: Option<Internet>,
    /// Where endpoint traffic goes whose destination no service of the document owns.
    pub backbone: Option<Backbone>,
    /// Resources of services.
    pub services: Vec<Service>,
    /// The hosts that demo and tests put around the network.
    pub lab: Option<Lab>,
}

/// `io = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoMode {
    /// TUN with the vnet header and segmentation offload; falls back aloud.
    #[default]
    Offload,
    /// TUN without offload: one packet, one frame.
    Plain,
}

/// `[semantics]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Semantics {
    /// Whether an endpoint route beats every user and BGP route, or takes part in longest-prefix match.
    pub endpoint_precedence: EndpointPrecedence,
    /// Which protocols an endpoint route steers.
    pub endpoint_protocols: EndpointProtocols,
}

/// `semantics.endpoint_precedence`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointPrecedence {
    /// `"documented"`: an endpoint route beats every user and BGP route that matches, whatever its length.
    #[default]
    Documented,
    /// `"longest-prefix"`: what labs observe.
    LongestPrefix,
}

/// `semantics.endpoint_protocols`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EndpointProtocols {
    /// `"any"`: every protocol, so that ping shows the path.
    #[default]
    Any,
    /// A list such as `["tcp"]`, as IP protocol numbers in ascending order.
    Only(Vec<u8>),
}

impl EndpointProtocols {
    /// Whether packets of this IP protocol number may take an endpoint route.
    pub fn steers(&self, protocol: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Only(list) => list.contains(&protocol),
        }
    }
}

/// `[[virtual_network]]`
#[derive(Debug, Clone)]
pub struct VirtualNetwork {
    /// Its name, unique among virtual networks.
    pub name: String,
    /// Its address ranges, IPv4 and IPv6, none overlapping another of the same network.
    pub address_space: Vec<IpNet>,
    /// Its side of each peering.
    pub peerings: Vec<Peering>,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
}

/// One side of a peering. A peering works only when both sides exist; validation refuses half of one.
#[derive(Debug, Clone)]
pub struct Peering {
    /// Index of the remote network in [`Network::virtual_networks`].
    pub remote: usize,
    /// `allow_virtual_network_access`, default true.
    pub allow_virtual_network_access: bool,
    /// `allow_forwarded_traffic`, default false: whether packets from the remote side may carry a source address
    /// outside the remote network's address space.
    pub allow_forwarded_traffic: bool,
    /// `allow_gateway_transit`, default false.
    pub allow_gateway_transit: bool,
    /// `use_remote_gateways`, default false.
    pub use_remote_gateways: bool,
}

/// A subnet of a virtual network. A subnet named `GatewaySubnet` holds the virtual network gateway: its route table
/// applies to what comes in through the tunnel.
#[derive(Debug, Clone)]
pub struct Subnet {
    /// Its name, unique in its virtual network.
    pub name: String,
    /// One or more prefixes inside the network's address space.
    pub address_prefixes: Vec<IpNet>,
    /// Index in [`Network::route_tables`].
    pub route_table: Option<usize>,
    /// Service endpoints, at most one for a service.
    pub service_endpoints: Vec<ServiceEndpoint>,
}

/// An entry of `service_endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceEndpoint {
    /// The service, spelled as Azure spells it: `Microsoft.Storage`.
    pub service: String,
    /// Regions as written, lower case; empty or `*` means everywhere.
    pub locations: Vec<String>,
}

/// `[[route_table]]`
#[derive(Debug, Clone)]
pub struct RouteTable {
    /// Its name, unique among route tables.
    pub name: String,
    /// `disable_bgp_route_propagation`, default false: gateway-learned routes are not installed.
    pub disable_bgp_route_propagation: bool,
    /// Routes in the order of the document.
    pub routes: Vec<Route>,
}

/// A user-defined route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name, unique in its table.
    pub name: String,
    /// What it matches.
    pub address_prefix: AddressPrefix,
    /// Where it sends.
    pub next_hop: UserNextHop,
}

/// What a user-defined route matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressPrefix {
    /// An explicit prefix.
    Prefix(IpNet),
    /// A service tag, by its name in the catalogue (`Storage.WestEurope`).
    ServiceTag(String),
}

/// The next hops that a user may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNextHop {
    /// `VirtualNetworkGateway`
    VirtualNetworkGateway,
    /// `VnetLocal`
    VnetLocal,
    /// `Internet`
    Internet,
    /// `VirtualAppliance` with its `next_hop_ip_address`
    VirtualAppliance(IpAddr),
    /// `None`: drop
    None,
}

/// Where a subnet is: indices into [`Network::virtual_networks`] and [`VirtualNetwork::subnets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubnetRef {
    /// Index of the virtual network.
    pub virtual_network: usize,
    /// Index of the subnet in it.
    pub subnet: usize,
}

/// `[[nic]]`: a network interface of a VM.
#[derive(Debug, Clone)]
pub struct Nic {
    /// Its name, unique among NICs, services and devices of the node.
    pub name: String,
    /// The subnet that it is in.
    pub subnet: SubnetRef,
    /// Its private addresses, each inside a prefix of the subnet and not reserved.
    pub private_addresses: Vec<IpAddr>,
    /// `ip_forwarding`, default false: may send from, and receive for, addresses that are not its own.
    pub ip_forwarding: bool,
    /// How its packets reach the node; none where the document only describes the network.
    pub device: Option<Device>,
}

/// `[gateway]`
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Index of the virtual network that it is in.
    pub virtual_network: usize,
    /// Prefixes learned from on-premises, as BGP would have brought them.
    pub learned_routes: Vec<IpNet>,
    /// How packets to on-premises leave the node.
    pub device: Option<Device>,
}

/// `[internet]`
#[derive(Debug, Clone)]
pub struct Internet {
    /// Addresses that default outbound access translates to; at most some of each family.
    pub public_addresses: Vec<IpAddr>,
    /// How packets to the internet leave the node.
    pub device: Option<Device>,
}

/// `[backbone]`
#[derive(Debug, Clone)]
pub struct Backbone {
    /// How packets to services without a resource in the document leave the node.
    pub device: Option<Device>,
}

/// `[[service]]`: one resource of a service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, unique among NICs, services and devices of the node.
    pub name: String,
    /// The service, spelled as Azure spells it: `Microsoft.Storage`.
    pub service: String,
    /// Its region.
    pub location: String,
    /// Its resource id, if given.
    pub id: Option<String>,
    /// The public addresses that it answers on.
    pub addresses: Vec<IpAddr>,
    /// Names that resolve to its addresses.
    pub host_names: Vec<String>,
    /// How packets reach it.
    pub device: Option<Device>,
}

/// `device = { … }`: how a port of the node is attached.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// TUN or Ethernet, and the interface's name.
    pub interface: Interface,
    /// The network namespace (by name, as `ip netns` shows it) that the interface is in; none: the node's own.
    pub netns: Option<String>,
    /// MTU of the interface in bytes, 1280 to 9000; 1500 if not given.
    pub mtu: u16,
    /// Impairment between the node and the interface, both directions alike.
    pub link: Option<Link>,
    /// Where every packet of the port is captured to.
    pub pcap: Option<PathBuf>,
}

/// The kind and name of an interface.
#[derive(Debug, Clone, PartialEq)]
pub enum Interface {
    /// `tun = "eth0"`: a TUN device that the node makes. `addresses` are put on the interface in its namespace, beside
    /// those that follow from its role.
    Tun {
        /// The interface's name.
        name: String,
        /// `addresses`, default none: extra addresses with prefix lengths for the kernel's side.
        addresses: Vec<IpNet>,
    },
    /// `ethernet = "veth0"`: an existing interface that the node attaches to.
    Ethernet {
        /// The interface's name.
        name: String,
        /// `addresses`: the node's own addresses on that link, for which it answers ARP and neighbour discovery.
        addresses: Vec<IpNet>,
        /// `next_hop`: the router behind which everything off-link is; one for each family at most.
        next_hop: Vec<IpAddr>,
    },
}

/// `link = { … }`: what the lab's long tunnels are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// One-way delay.
    pub delay: Duration,
    /// Bits in a second, none for no limit.
    pub rate: Option<u64>,
    /// Probability that a packet is lost, 0 to 1.
    pub loss: f64,
    /// Probability that a packet skips the delay and so overtakes others, 0 to 1.
    pub reorder: f64,
    /// Seed of the two probabilities.
    pub seed: u64,
}

/// `[lab]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lab {
    /// Hosts, each a network namespace.
    pub hosts: Vec<LabHost>,
}

/// `[[lab.host]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabHost {
    /// Its network namespace.
    pub netns: String,
    /// The public addresses behind which it hides what it forwards (nftables masquerading): none, or one for each family.
    pub masquerade: Vec<IpAddr>,
    /// Another host that a veth pair leads to.
    pub connect: Option<String>,
    /// Addresses of an ordinary web site that it serves.
    pub web: Vec<IpAddr>,
    /// Names for the web site in every namespace's hosts file.
    pub web_names: Vec<String>,
}

impl Network {
    /// The subnet that a reference points at.
    ///
    /// # Panics
    /// If the reference is not of this network.
    pub fn subnet(&self, subnet: SubnetRef) -> &Subnet {
        &self.virtual_networks[subnet.virtual_network].subnets[subnet.subnet]
    }

    /// The name of a subnet as users write it: `network/subnet`.
    pub fn subnet_name(&self, subnet: SubnetRef) -> String {
        let network = &self.virtual_networks[subnet.virtual_network];
        format!("{}/{}", network.name, network.subnets[subnet.subnet].name)
    }

    /// Finds a subnet by `network/subnet`; case does not count.
    pub fn find_subnet(&self, name: &str) -> Option<SubnetRef> {
        let (network, subnet) = name.split_once('/')?;
        let virtual_network = self.virtual_networks.iter().position(|n| n.name.eq_ignore_ascii_case(network))?;
        let subnet =
            self.virtual_networks[virtual_network].subnets.iter().position(|s| s.name.eq_ignore_ascii_case(subnet))?;
        Some(SubnetRef { virtual_network, subnet })
    }
}
