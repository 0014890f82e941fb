//! The validated network. Every reference between its parts is an index that is known to be good, every prefix has
//! its host bits clear, and every rule of the check has held. Only the model's own validation makes one.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

mod security;

pub use security::{
    Access, ApplicationSecurityGroup, Denial, Direction, Firewall, NetworkSecurityGroup, PolicyDefinition, PolicyScope,
    RuleAddresses, RuleProtocol, RuleTag, SecurityRule, ServiceEndpointPolicy, VirtualNetworkRule,
};

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
    /// How workers wait for packets.
    pub poll: PollMode,
    /// Where the control socket is, if the document says.
    pub control: Option<PathBuf>,
    /// The switches between what Azure documents and what labs observe.
    pub semantics: Semantics,
    /// How many flows there may be, and how long they live.
    pub flows: Flows,
    /// How `identity6` addresses are made.
    pub identity: Identity,
    /// Virtual networks in the order of the document.
    pub virtual_networks: Vec<VirtualNetwork>,
    /// Route tables in the order of the document.
    pub route_tables: Vec<RouteTable>,
    /// NAT gateways in the order of the document.
    pub nat_gateways: Vec<NatGateway>,
    /// Pools that endpoints translate to, in the order of the document.
    pub snat_pools: Vec<SnatPool>,
    /// Application security groups in the order of the document.
    pub application_security_groups: Vec<ApplicationSecurityGroup>,
    /// Network security groups in the order of the document.
    pub network_security_groups: Vec<NetworkSecurityGroup>,
    /// Service endpoint policies in the order of the document.
    pub service_endpoint_policies: Vec<ServiceEndpointPolicy>,
    /// Network interfaces in the order of the document.
    pub nics: Vec<Nic>,
    /// The virtual network gateway: the near end of the forced tunnel.
    pub gateway: Option<Gateway>,
    /// The internet edge.
    pub internet: Option<Internet>,
    /// Where endpoint traffic goes whose destination no service of the document owns.
    pub backbone: Option<Backbone>,
    /// Where the platform's own addresses are: DNS, DHCP and probes, instance metadata.
    pub platform: Option<Platform>,
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

/// `poll = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PollMode {
    /// `"sleep"`: asleep until there are packets.
    #[default]
    Sleep,
    /// `"adaptive"`: looking for packets for a while first, as long as they come close to each other and nobody else wants
    /// the processor.
    Adaptive,
}

/// `[semantics]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Semantics {
    /// Whether an endpoint route beats every user and BGP route, or takes part in longest-prefix match.
    pub endpoint_precedence: EndpointPrecedence,
    /// Which protocols an endpoint route steers.
    pub endpoint_protocols: EndpointProtocols,
    /// What NAT gateways and default outbound access translate.
    pub nat_protocols: NatProtocols,
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

/// `semantics.nat_protocols`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NatProtocols {
    /// `"any"`: ICMP too, so that ping works.
    #[default]
    Any,
    /// `["tcp", "udp"]`: what Azure documents.
    TcpAndUdp,
}

/// `[flows]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flows {
    /// `limit`, default 1,048,576: most flows of the node.
    pub limit: u32,
    /// `limit_per_nic`, default 500,000: most flows of one NIC.
    pub limit_per_nic: u32,
    /// `[flows.lifetimes]`: what is not given is as the RFCs ask for.
    pub lifetimes: FlowLifetimes,
}

impl Default for Flows {
    fn default() -> Self {
        Self { limit: 1 << 20, limit_per_nic: 500_000, lifetimes: FlowLifetimes::default() }
    }
}

/// `[flows.lifetimes]`, and `lifetimes` of a NAT gateway: how long flows live without a packet, each 1 s to 24 h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowLifetimes {
    /// `icmp`: ICMP queries.
    pub icmp: Option<Duration>,
    /// `udp`: UDP and every protocol that is not followed.
    pub udp: Option<Duration>,
    /// `tcp_opening`: TCP until both sides have acknowledged.
    pub tcp_opening: Option<Duration>,
    /// `tcp_established`: TCP after that.
    pub tcp_established: Option<Duration>,
    /// `tcp_closing`: TCP after one side has finished.
    pub tcp_closing: Option<Duration>,
    /// `tcp_closed`: TCP after both sides have finished.
    pub tcp_closed: Option<Duration>,
    /// `tcp_reset`: TCP after a reset.
    pub tcp_reset: Option<Duration>,
    /// `port_rest`: how long a translated port rests before it serves another host.
    pub port_rest: Option<Duration>,
    /// `port_rest_half_open`: the same after a TCP connection that never opened.
    pub port_rest_half_open: Option<Duration>,
}

/// `[identity]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// `prefix`, a /32: what every `identity6` source starts with.
    pub prefix: Ipv6Addr,
    /// `destination_prefix`, a /96 of RFC 6052: what the IPv4 address of a service without an IPv6 one is embedded in.
    pub destination_prefix: Ipv6Addr,
}

impl Default for Identity {
    /// `fde4:8dba::/32`, the unique local prefix (RFC 4193) that published samples of Azure's addresses show, and
    /// `64:ff9b::/96`, the well-known prefix (RFC 6052 section 2.1).
    fn default() -> Self {
        Self {
            prefix: Ipv6Addr::new(0xfde4, 0x8dba, 0, 0, 0, 0, 0, 0),
            destination_prefix: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
        }
    }
}

/// `mapping = …`: whether a translated port serves one inside address for all destinations (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mapping {
    /// `"address-and-port-dependent"`
    #[default]
    AddressAndPortDependent,
    /// `"endpoint-independent"`
    EndpointIndependent,
}

/// `filtering = …`: whom a mapping lets in (RFC 4787 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filtering {
    /// `"address-and-port-dependent"`
    #[default]
    AddressAndPortDependent,
    /// `"address-dependent"`, with endpoint-independent mapping only.
    AddressDependent,
    /// `"endpoint-independent"`, with endpoint-independent mapping only.
    EndpointIndependent,
}

/// How addresses and ports of a pool are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Translation {
    /// `mapping`
    pub mapping: Mapping,
    /// `filtering`
    pub filtering: Filtering,
}

/// `[[nat_gateway]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatGateway {
    /// Its name, unique among NAT gateways.
    pub name: String,
    /// Its 1 to 16 addresses.
    pub public_addresses: Vec<IpAddr>,
    /// `idle_timeout` of TCP, 4 to 120 minutes.
    pub idle_timeout: Duration,
    /// `lifetimes`: what is not given is as Azure documents for NAT gateways.
    pub lifetimes: FlowLifetimes,
    /// How addresses and ports are used.
    pub translation: Translation,
}

/// `[[snat_pool]]`: addresses that endpoints with `source = { snat = … }` translate to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnatPool {
    /// Its name, unique among pools.
    pub name: String,
    /// Its addresses, at least one.
    pub addresses: Vec<IpAddr>,
    /// `ports`, default 1024 to 65535; never empty, never with port 0.
    pub ports: RangeInclusive<u16>,
    /// How addresses and ports are used.
    pub translation: Translation,
}

/// `[[virtual_network]]`
#[derive(Debug, Clone)]
pub struct VirtualNetwork {
    /// Its name, unique among virtual networks.
    pub name: String,
    /// Its region; that of the document if it has none of its own.
    pub location: String,
    /// Its address ranges, IPv4 and IPv6, none overlapping another of the same network.
    pub address_space: Vec<IpNet>,
    /// `traffic_tag`: the lower 24 bits of its tag in `identity6` addresses, unique among virtual networks.
    pub traffic_tag: Option<u32>,
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
    /// Index in [`Network::nat_gateways`].
    pub nat_gateway: Option<usize>,
    /// `default_outbound_access`, default true; false makes a private subnet.
    pub default_outbound_access: bool,
    /// `traffic_tag`: its tag in `identity6` addresses, at least 1, unique in its virtual network.
    pub traffic_tag: Option<u16>,
    /// Index in [`Network::network_security_groups`].
    pub network_security_group: Option<usize>,
    /// Service endpoints, at most one for a service.
    pub service_endpoints: Vec<ServiceEndpoint>,
    /// `service_endpoint_policies`: indices in [`Network::service_endpoint_policies`], each once.
    pub service_endpoint_policies: Vec<usize>,
}

/// An entry of `service_endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceEndpoint {
    /// The service, spelled as Azure spells it: `Microsoft.Storage`.
    pub service: String,
    /// Regions as written, lower case; empty or `*` means everywhere.
    pub locations: Vec<String>,
    /// How its traffic presents itself to the service.
    pub source: EndpointSource,
}

/// `source = …` of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum EndpointSource {
    /// `"private"`: with its private address.
    #[default]
    Private,
    /// `{ prefix_map = … }`: prefixes of the subnet and what each is mapped to, of equal length; all prefixes of one
    /// family or of both.
    PrefixMap(Vec<(IpNet, IpNet)>),
    /// `"identity6"`: with an IPv6 address that carries identity and private IPv4 address.
    Identity6,
    /// `{ snat = … }`: with an address and port of a pool, by its index in [`Network::snat_pools`].
    Snat(usize),
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
    /// Instance public addresses, at most one of each family; goes with the first private address of that family.
    pub public_addresses: Vec<IpAddr>,
    /// `ip_forwarding`, default false: may send from, and receive for, addresses that are not its own.
    pub ip_forwarding: bool,
    /// Index in [`Network::network_security_groups`].
    pub network_security_group: Option<usize>,
    /// Indices in [`Network::application_security_groups`], each once.
    pub application_security_groups: Vec<usize>,
    /// `trusted_service`, default false: it is a service that firewalls with `bypass = ["AzureServices"]` trust.
    pub trusted_service: bool,
    /// `resource_id`: the resource whose traffic this is, for `resource_access_rules`.
    pub resource_id: Option<String>,
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
    /// How default outbound access uses them.
    pub translation: Translation,
    /// How packets to the internet leave the node.
    pub device: Option<Device>,
}

/// `[backbone]`
#[derive(Debug, Clone)]
pub struct Backbone {
    /// How packets to services without a resource in the document leave the node.
    pub device: Option<Device>,
}

/// `[platform]`
#[derive(Debug, Clone)]
pub struct Platform {
    /// How packets to the platform's addresses leave the node.
    pub device: Option<Device>,
}

/// `[[service]]`: a front end of a service, and the resources behind it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, unique among NICs, services and devices of the node.
    pub name: String,
    /// The service, spelled as Azure spells it: `Microsoft.Storage`.
    pub service: String,
    /// Its region.
    pub location: String,
    /// The public addresses that it answers on.
    pub addresses: Vec<IpAddr>,
    /// Its resources, at least one: itself, or the `[[service.resource]]` that share its addresses, each with host names.
    pub resources: Vec<Resource>,
    /// How packets reach it.
    pub device: Option<Device>,
}

impl Service {
    /// The names that resolve to its addresses.
    pub fn host_names(&self) -> impl Iterator<Item = &String> {
        self.resources.iter().flat_map(|resource| &resource.host_names)
    }
}

/// A resource of a service: what endpoint policies list and what has a firewall.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its name, unique among resources; that of the service where it has the service's addresses alone.
    pub name: String,
    /// Its resource id, if given.
    pub id: Option<String>,
    /// `service_alias`: the managed service that depends on it, for endpoint policies: `/services/Azure/Batch`.
    pub service_alias: Option<String>,
    /// The names that connections to it give.
    pub host_names: Vec<String>,
    /// Who may reach it; everybody if it has none.
    pub firewall: Option<Firewall>,
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

    /// Public addresses that hosts of the network show to the internet: of default outbound access, NAT gateways and NICs.
    pub fn public_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let internet = self.internet.iter().flat_map(|internet| &internet.public_addresses);
        let gateways = self.nat_gateways.iter().flat_map(|gateway| &gateway.public_addresses);
        let nics = self.nics.iter().flat_map(|nic| &nic.public_addresses);
        internet.chain(gateways).chain(nics).copied()
    }

    /// What endpoints translate to, for which services send their replies to the backbone: prefixes of maps, addresses
    /// of SNAT pools, and the identity prefix if an endpoint uses it.
    pub fn endpoint_prefixes(&self) -> impl Iterator<Item = IpNet> {
        let maps = self.endpoints().filter_map(|endpoint| match &endpoint.source {
            EndpointSource::PrefixMap(pairs) => Some(pairs),
            _ => None,
        });
        let maps = maps.flatten().map(|(_, to)| *to);
        let pools = self.snat_pools.iter().flat_map(|pool| &pool.addresses).copied().map(IpNet::from);
        let identified = self.endpoints().any(|endpoint| endpoint.source == EndpointSource::Identity6);
        let identity = IpNet::new(self.identity.prefix.into(), 32).ok().filter(|_| identified);
        maps.chain(pools).chain(identity)
    }

    /// Every endpoint of every subnet.
    pub fn endpoints(&self) -> impl Iterator<Item = &ServiceEndpoint> {
        let subnets = self.virtual_networks.iter().flat_map(|network| &network.subnets);
        subnets.flat_map(|subnet| &subnet.service_endpoints)
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
