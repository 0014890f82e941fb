//! Questions about packets that are never sent: effective routes, next hop, and every stage of the path. The same for a
//! document that nobody runs and for a running node.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use serde::{Deserialize, Serialize};

use super::answers::ExplainQuery;
use super::refusal::Refusal;
use crate::model::network::{Network, Nic, SubnetRef};
use crate::packet::frame::Frame;
use crate::packet::parse::protocol;
use crate::path::source::Presented;
use crate::path::{self, StageRecord};
use crate::plan::explain::{NextHopAnswer, RoutesAnswer, protocol_name, protocol_number};
use crate::plan::{Plan, UnknownName};
use crate::snapshot::{PortId, PortKind, Snapshot};

/// The source port of packets that are made up: the first that RFC 6335 leaves to clients.
pub(crate) const SOURCE_PORT: u16 = 49_152;

/// The destination port if none is asked for.
pub(crate) const DESTINATION_PORT: u16 = 443;

/// Hop limit of packets that are made up, as Linux sends them.
const HOP_LIMIT: u8 = 64;

/// Every stage of a packet's path, and the routes that it could have taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// Generation of the snapshot that decided; 1 for a document that nobody runs.
    pub generation: u64,
    /// The NIC that the packet enters through.
    pub nic: String,
    /// Its subnet.
    pub subnet: String,
    /// Source of the packet: address, and port for TCP and UDP.
    pub source: String,
    /// Destination of the packet.
    pub destination: String,
    /// `tcp`, `udp`, `icmp`, … or the protocol's number.
    pub protocol: String,
    /// The stages in order, each with its decision.
    pub stages: Vec<StageRecord>,
    /// What becomes of it.
    pub verdict: PacketVerdict,
    /// The route that wins, and every candidate that lost with the reason. About the route alone: an earlier stage may
    /// have ended the packet.
    pub next_hop: NextHopAnswer,
    /// Whether the node drains: a packet that begins a flow is dropped now, whatever the verdict here, which is that of the
    /// documents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum PacketVerdict {
    /// It leaves.
    Forwarded {
        /// The port of the node.
        port: String,
        /// Type of the next hop.
        next_hop_type: String,
        /// The source address that the next network sees.
        source_seen: IpAddr,
    },
    /// It ends.
    Dropped {
        /// The reason's name, as counters have it.
        reason: String,
        /// The reason in a sentence.
        text: String,
    },
}

/// The effective routes of a NIC or subnet.
///
/// # Errors
/// [`Refusal::Unknown`]
pub fn routes(plan: &Plan, of: &str) -> Result<RoutesAnswer, Refusal> {
    Ok(plan.routes_answer(subnet_or_nic(plan, of)?))
}

/// The next hop from a NIC or subnet to an address or host name.
///
/// # Errors
/// [`Refusal::Unknown`] for names, [`Refusal::Malformed`] for a protocol that is none.
pub fn next_hop(plan: &Plan, from: &str, to: &str, protocol: Option<&str>) -> Result<NextHopAnswer, Refusal> {
    let subnet = subnet_or_nic(plan, from)?;
    let to = destination(plan, to)?;
    Ok(plan.next_hop(subnet, to, number(protocol.unwrap_or("tcp"), to)?))
}

/// What would become of a packet: the stages of forwarding, run on a packet that is made up.
///
/// # Errors
/// As [`next_hop`]; [`Refusal::Conflict`] for a subnet without a NIC that could send it.
pub fn explain(plan: &Plan, snapshot: &Snapshot, query: &ExplainQuery) -> Result<ExplainAnswer, Refusal> {
    let network = plan.network();
    let subnet = subnet_or_nic(plan, &query.from)?;
    let to = destination(plan, &query.to)?;
    let protocol = number(&query.protocol, to)?;
    let (nic, source) = sender(network, subnet, &query.from, to)?;
    let port = port_of(snapshot, nic).ok_or_else(|| {
        Refusal::Conflict(format!("the NIC {} has no port in generation {}", nic.name, snapshot.generation))
    })?;
    let has_ports = has_ports(protocol);
    if query.port.is_some() && !has_ports {
        return Err(Refusal::Malformed(format!("{} has no ports: leave --port out", protocol_name(protocol))));
    }
    let to_port = query.port.unwrap_or(DESTINATION_PORT);
    let packet = packet(source, to, protocol, to_port)?;
    let explained = path::explain(snapshot, port, &Frame::from_packet(&packet));
    let verdict = match explained.result {
        Ok(decision) => PacketVerdict::Forwarded {
            port: snapshot.port(decision.egress).map(|port| port.name.clone()).unwrap_or_default(),
            next_hop_type: decision.next_hop_type.name().to_owned(),
            source_seen: match decision.presented {
                Presented::Own => source,
                Presented::OneToOne(address) => address,
                Presented::Pool(pool) => {
                    snapshot.pool(pool).and_then(|pool| path::source::paired(pool, source, 0)).unwrap_or(source)
                }
                Presented::Identity6 { source, .. } => source.into(),
            },
        },
        Err(reason) => PacketVerdict::Dropped { reason: reason.name().to_owned(), text: reason.text().to_owned() },
    };
    let shown = |address: IpAddr, port: u16| if has_ports { socket(address, port) } else { address.to_string() };
    Ok(ExplainAnswer {
        generation: snapshot.generation,
        nic: nic.name.clone(),
        subnet: network.subnet_name(subnet),
        source: shown(source, SOURCE_PORT),
        destination: shown(to, to_port),
        protocol: protocol_name(protocol),
        stages: explained.stages,
        verdict,
        next_hop: plan.next_hop(subnet, to, protocol),
        draining: false,
    })
}

/// Whether packets of an IP protocol have ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
pub(crate) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDP_LITE)
}

/// `10.0.0.1:443`, `[fd00::1]:443`.
pub(crate) fn socket(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// The subnet of a name; case does not count.
pub(crate) fn subnet(network: &Network, name: &str) -> Result<SubnetRef, Refusal> {
    let all = || {
        network.virtual_networks.iter().enumerate().flat_map(|(virtual_network, declared)| {
            (0..declared.subnets.len()).map(move |subnet| SubnetRef { virtual_network, subnet })
        })
    };
    all().find(|subnet| network.subnet_name(*subnet).eq_ignore_ascii_case(name)).ok_or_else(|| {
        let names: Vec<String> = all().map(|subnet| network.subnet_name(subnet)).collect();
        let unknown = UnknownName::new("subnet", name, names.iter().map(String::as_str));
        Refusal::Unknown(format!("{unknown} (there are {})", names.join(", ")))
    })
}

/// The subnet of a name, or that of the NIC that has it.
pub(crate) fn subnet_or_nic(plan: &Plan, name: &str) -> Result<SubnetRef, Refusal> {
    plan.find_subnet_or_nic(name).map_err(|error| Refusal::Unknown(error.to_string()))
}

/// The address of a name.
pub(crate) fn destination(plan: &Plan, name: &str) -> Result<IpAddr, Refusal> {
    plan.find_destination(name).map_err(|error| Refusal::Unknown(error.to_string()))
}

/// The protocol's number; `icmp` towards an IPv6 address means ICMPv6.
pub(crate) fn number(name: &str, to: IpAddr) -> Result<u8, Refusal> {
    match protocol_number(name) {
        Some(protocol::ICMP) if to.is_ipv6() && name.eq_ignore_ascii_case("icmp") => Ok(protocol::ICMPV6),
        Some(number) => Ok(number),
        None => Err(Refusal::Malformed(format!(
            "`{name}` is no protocol: write tcp, udp, icmp, another name or a number from 0 to 255"
        ))),
    }
}

/// The NIC that sends, and its address of the destination's family: the one named, or the subnet's first.
pub(crate) fn sender<'n>(
    network: &'n Network,
    subnet: SubnetRef,
    from: &str,
    to: IpAddr,
) -> Result<(&'n Nic, IpAddr), Refusal> {
    let address = |nic: &Nic| nic.private_addresses.iter().copied().find(|own| own.is_ipv4() == to.is_ipv4());
    let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
    let is_subnet = network.subnet_name(subnet).eq_ignore_ascii_case(from);
    if !is_subnet && let Some(nic) = network.nics.iter().find(|nic| nic.name.eq_ignore_ascii_case(from)) {
        return address(nic).map(|address| (nic, address)).ok_or_else(|| {
            Refusal::Conflict(format!("the NIC {} has no {family} address to talk with {to}", nic.name))
        });
    }
    let mut nics = network.nics.iter().filter(|nic| nic.subnet == subnet);
    nics.find_map(|nic| address(nic).map(|address| (nic, address))).ok_or_else(|| {
        Refusal::Conflict(format!("the subnet {from} has no NIC with an {family} address to talk with {to}"))
    })
}

/// The port of a NIC.
pub(crate) fn port_of(snapshot: &Snapshot, nic: &Nic) -> Option<PortId> {
    let found = snapshot.ports.iter().position(|port| port.kind == PortKind::Nic && port.name == nic.name)?;
    u16::try_from(found).ok().map(PortId)
}

/// A whole packet: TCP SYN, UDP with four bytes, an echo request, or the shortest header of another protocol with ports
/// and nothing else in it.
fn packet(source: IpAddr, to: IpAddr, protocol: u8, port: u16) -> Result<Vec<u8>, Refusal> {
    const PAYLOAD: [u8; 4] = [0; 4];
    const WINDOW: u16 = 64_240;
    let builder = match (source, to) {
        (IpAddr::V4(source), IpAddr::V4(to)) => PacketBuilder::ipv4(source.octets(), to.octets(), HOP_LIMIT),
        (IpAddr::V6(source), IpAddr::V6(to)) => PacketBuilder::ipv6(source.octets(), to.octets(), HOP_LIMIT),
        _ => return Err(Refusal::Malformed(format!("{source} and {to} are of different families"))),
    };
    let mut packet = Vec::with_capacity(64);
    let written = match (protocol, to) {
        (protocol::TCP, _) => builder.tcp(SOURCE_PORT, port, 0, WINDOW).syn().write(&mut packet, &[]),
        (protocol::UDP, _) => builder.udp(SOURCE_PORT, port).write(&mut packet, &PAYLOAD),
        (protocol::ICMP, IpAddr::V4(_)) => builder.icmpv4_echo_request(1, 1).write(&mut packet, &PAYLOAD),
        (protocol::ICMPV6, IpAddr::V6(_)) => builder.icmpv6_echo_request(1, 1).write(&mut packet, &PAYLOAD),
        // Extension headers are no protocols that end at a host: the packet would be malformed.
        (0 | 43 | 44 | 51 | 60 | 135 | 139 | 140, IpAddr::V6(_)) => {
            return Err(Refusal::Malformed(format!("{protocol} is an IPv6 extension header, no protocol")));
        }
        (other, _) if has_ports(other) => {
            let mut header = [0; 12];
            header[..2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
            header[2..4].copy_from_slice(&port.to_be_bytes());
            builder.write(&mut packet, other.into(), &header)
        }
        (other, _) => builder.write(&mut packet, other.into(), &PAYLOAD),
    };
    match written {
        Ok(()) => Ok(packet),
        Err(error) => Err(Refusal::Failed(format!("cannot make the packet: {error}"))),
    }
}
