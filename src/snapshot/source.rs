//! Which source addresses traffic presents, and how long its flows live: what source modes, NAT gateways and default
//! outbound access compile to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::table::port_pool::PortRange;

/// A pool of translated addresses. Index into [`super::Snapshot::pools`].
///
/// Numbers are stable across generations of one process: a pool keeps its number as long as it exists under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// What becomes of the source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceAction {
    /// It stays: private addresses inside the network and to the gateway.
    Keep,
    /// It becomes public as the port that the packet entered through says: [`super::PortEntry::outbound`].
    Outbound,
    /// It is presented as the subnet's endpoint says: this index into [`super::PortEntry::endpoint_sources`].
    Endpoint(u16),
}

/// How what enters through a port gets a public source, in Azure's order ("Source Network Address Translation with NAT
/// gateway"): NAT gateway, instance public address, default outbound access. The first that has an address of the
/// packet's family is it; none of them denies the packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outbound {
    /// The NAT gateway of the subnet.
    pub nat_gateway: Option<PoolId>,
    /// Instance public addresses: private address, public address, one to one. The port's own, NICs only.
    pub instance: Vec<(IpAddr, IpAddr)>,
    /// Default outbound access; none in a private subnet.
    pub default: Option<PoolId>,
}

/// How an endpoint's traffic presents itself to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointSource {
    /// With its private address.
    Private,
    /// With its address mapped one to one: the subnet's prefixes and theirs, of equal length and family in pairs. An
    /// address in none of them is denied.
    PrefixMap(Vec<(IpNet, IpNet)>),
    /// With an IPv6 address that carries identity and private IPv4 address, translated statelessly (RFC 7915). IPv6
    /// packets are denied: there is no room for their address.
    Identity6(Identity6),
    /// With an address and port of a pool.
    Snat(PoolId),
}

/// How `identity6` addresses are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity6 {
    /// The upper 96 bits of the source: prefix, region, network tag, subnet tag. The lower 32 bits are zero here, and
    /// the private IPv4 address in a packet.
    pub source: Ipv6Addr,
    /// Prefix of 96 bits that the service's IPv4 address is embedded in (RFC 6052) where the service has no IPv6
    /// address of its own.
    pub destination: Ipv6Addr,
}

/// The tags that a subnet has in `identity6` addresses, or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetIdentity {
    /// Name of the virtual network.
    pub network: String,
    /// Name of the subnet in it.
    pub subnet: String,
    /// Tag of the virtual network; its upper byte is the lower one of the region's number.
    pub network_tag: u32,
    /// Tag of the subnet, unique under the network's.
    pub subnet_tag: u16,
    /// The subnet is gone, or has other tags now: nobody gets these.
    pub retired: bool,
}

/// The identity of a subnet: it lives and dies with the subnet, and no other ever has it. A subnet that is made anew under
/// an old name has another one, unless the document gives it the old one's `traffic_tag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubnetKey {
    /// The lower 24 bits of the network's tag.
    pub network_tag: u32,
    /// Tag of the subnet.
    pub subnet_tag: u16,
}

impl SubnetIdentity {
    /// The identity, whatever the number of the region.
    pub const fn key(&self) -> SubnetKey {
        SubnetKey { network_tag: self.network_tag & 0x00ff_ffff, subnet_tag: self.subnet_tag }
    }
}

/// What a pool is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// Public addresses of default outbound access.
    DefaultOutbound,
    /// A NAT gateway.
    NatGateway,
    /// A pool that endpoints name: `source = { snat = … }`.
    Snat,
    /// A number that a removed pool had; it has no addresses.
    Vacant,
}

/// Whether a port is used for one destination or for all (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mapping {
    /// Address and port-dependent: a port serves several flows as long as their destinations differ. Azure's NAT gateway
    /// and every large NAT do this; the default.
    #[default]
    AddressAndPortDependent,
    /// Endpoint-independent: one inside address and port has one outside address and port, whoever it talks to.
    EndpointIndependent,
}

/// Whom an endpoint-independent mapping lets in (RFC 4787 section 5). With the other mapping it is always
/// [`Filtering::AddressAndPortDependent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Filtering {
    /// Only whom the inside has sent to, address and port.
    #[default]
    AddressAndPortDependent,
    /// Whom the inside has sent to, whatever the port.
    AddressDependent,
    /// Anybody.
    EndpointIndependent,
}

/// Addresses and ports to translate to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name in the document; `default outbound access`.
    pub name: String,
    /// What it is for.
    pub kind: PoolKind,
    /// Its IPv4 addresses.
    pub v4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses.
    pub v6: Vec<Ipv6Addr>,
    /// Its ports, the same for every address and protocol.
    pub ports: PortRange,
    /// How ports are used.
    pub mapping: Mapping,
    /// Whom mappings let in.
    pub filtering: Filtering,
    /// Only TCP and UDP, and no fragments, as Azure's NAT gateway and default outbound access document.
    pub tcp_udp_only: bool,
    /// How long its flows live.
    pub lifetimes: Lifetimes,
}

impl Pool {
    /// Whether an address is one of the pool's.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains(&v4),
            IpAddr::V6(v6) => self.v6.contains(&v6),
        }
    }
}

/// How long flows live without a packet, in milliseconds, by how far the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lifetimes {
    /// ICMP queries.
    pub query: u64,
    /// UDP and every protocol that is not followed.
    pub datagram: u64,
    /// TCP until both sides have acknowledged.
    pub opening: u64,
    /// TCP after that.
    pub established: u64,
    /// TCP after one side has finished.
    pub closing: u64,
    /// TCP after both sides have finished.
    pub closed: u64,
    /// TCP after a reset.
    pub aborted: u64,
    /// How long a translated port rests after a flow that never opened or opened and fell idle, before it serves
    /// another inside host.
    pub rest: u64,
    /// The same after a TCP connection that never opened.
    pub rest_half_open: u64,
}

impl Lifetimes {
    /// The longest of them.
    pub fn longest(&self) -> u64 {
        let Self { query, datagram, opening, established, closing, closed, aborted, rest, rest_half_open } = *self;
        [query, datagram, opening, established, closing, closed, aborted, rest, rest_half_open]
            .into_iter()
            .fold(0, u64::max)
    }

    /// What the RFCs ask for: RFC 5382 REQ-5 (TCP 7,440 s and 240 s), RFC 4787 REQ-5 (UDP more than 120 s), RFC 5508
    /// REQ-2 (ICMP 60 s), RFC 7857 section 2.2 (240 s after a reset), RFC 6888 REQ-8 (a port rests 120 s).
    pub const RFC: Self = Self {
        query: 60_000,
        datagram: 240_000,
        opening: 240_000,
        established: 7_440_000,
        closing: 240_000,
        closed: 240_000,
        aborted: 240_000,
        rest: 120_000,
        rest_half_open: 120_000,
    };

    /// Azure's NAT gateway with its default idle timeout of 4 minutes: UDP 4 minutes fixed, a port rests 65 s after
    /// FIN or UDP, 16 s after a reset, 30 s half-open ("Azure NAT Gateway", SNAT port reuse timers).
    pub const NAT_GATEWAY: Self = Self {
        query: 60_000,
        datagram: 240_000,
        opening: 240_000,
        established: 240_000,
        closing: 240_000,
        closed: 65_000,
        aborted: 16_000,
        rest: 65_000,
        rest_half_open: 30_000,
    };
}
