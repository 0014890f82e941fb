//! ICMP: errors made by the node (RFC 1812 section 4.3.2, RFC 4443 section 2.4), and the packet that an error quotes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, Icmpv6Type, IpDscp, IpHeaders, Ipv4Header, PacketBuilder, icmpv4, icmpv6};

use super::frame::Frame;
use super::parse::{Addresses, Fragment, Parsed, TransportKind, parse_quoted, protocol};
use super::tcp::HOP_LIMIT;

/// Longest ICMPv4 error (RFC 1812 section 4.3.2.3).
pub(super) const MAX_ERROR_V4: usize = 576;

/// Longest ICMPv6 error: the minimum MTU (RFC 4443 section 2.4 c).
pub(super) const MAX_ERROR_V6: usize = 1280;

/// An ICMP message's header; the quoted packet follows.
pub(super) const ICMP_HEADER: usize = 8;

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// TTL or hop limit ended here.
    TimeExceeded,
    /// There is no route.
    NetworkUnreachable,
    /// There is a route, and nobody at its end.
    HostUnreachable,
    /// Nobody listens.
    PortUnreachable,
    /// A rule forbids it.
    AdministrativelyProhibited,
    /// The packet exceeds an MTU and must not be fragmented.
    PacketTooBig {
        /// The MTU in bytes. An IPv4 error says at most 65535.
        mtu: u32,
    },
}

impl IcmpError {
    fn v4(self) -> Icmpv4Type {
        match self {
            Self::TimeExceeded => Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
            Self::NetworkUnreachable => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Network),
            Self::HostUnreachable => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host),
            Self::PortUnreachable => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port),
            Self::AdministrativelyProhibited => {
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FilterProhibited)
            }
            Self::PacketTooBig { mtu } => {
                let next_hop_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu })
            }
        }
    }

    fn v6(self) -> Icmpv6Type {
        match self {
            Self::TimeExceeded => Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
            Self::NetworkUnreachable => Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::NoRoute),
            Self::HostUnreachable => Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Address),
            Self::PortUnreachable => Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port),
            Self::AdministrativelyProhibited => {
                Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Prohibited)
            }
            Self::PacketTooBig { mtu } => Icmpv6Type::PacketTooBig { mtu },
        }
    }
}

/// Builds the error about a packet, addressed to its source, with complete checksums. `original` is the packet as its
/// sender sent it; as much of it is quoted as the limits allow, a super-packet's header once, a partial checksum as it
/// is.
///
/// Returns `false`, with `out` empty, where no error may be sent: about an ICMP error or redirect, a fragment but the
/// first, a packet to several hosts (but for a packet too big in IPv6, RFC 4443 section 2.4 e.3) or from none in
/// particular; or where `from` has the other family.
pub fn build_error(error: IcmpError, original: &[u8], parsed: &Parsed, from: IpAddr, out: &mut Frame) -> bool {
    out.clear();
    build(error, original, parsed, from, out).is_some()
}

fn build(error: IcmpError, original: &[u8], parsed: &Parsed, from: IpAddr, out: &mut Frame) -> Option<()> {
    if parsed.fragment == Fragment::Later || is_error_or_redirect(original, parsed) {
        return None;
    }
    let packet = original.get(usize::from(parsed.network)..)?;
    let packet = packet.get(..parsed.total as usize).unwrap_or(packet);
    let length = match (parsed.addresses, from) {
        (Addresses::V4 { source, destination }, IpAddr::V4(from)) => {
            if !is_one_host_v4(source) || destination.is_multicast() || destination.is_broadcast() {
                return None;
            }
            let quote = packet.get(..MAX_ERROR_V4 - 20 - ICMP_HEADER).unwrap_or(packet);
            let mut header = Ipv4Header {
                time_to_live: HOP_LIMIT,
                source: from.octets(),
                destination: source.octets(),
                ..Default::default()
            };
            // Precedence internetwork control, type of service as the original's (RFC 1812 section 4.3.2.5); ECN clear.
            let tos = packet.get(1).copied().unwrap_or_default();
            header.dscp = IpDscp::try_new(0x30 | ((tos >> 2) & 0x07)).ok()?;
            let builder = PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default())).icmpv4(error.v4());
            builder.write_to_slice(out.room_mut().get_mut(..MAX_ERROR_V4)?, quote).ok()?
        }
        (Addresses::V6 { source, destination }, IpAddr::V6(from)) => {
            let to_many = destination.is_multicast() && !matches!(error, IcmpError::PacketTooBig { .. });
            if !is_one_host_v6(source) || to_many {
                return None;
            }
            let quote = packet.get(..MAX_ERROR_V6 - 40 - ICMP_HEADER).unwrap_or(packet);
            let builder = PacketBuilder::ipv6(from.octets(), source.octets(), HOP_LIMIT).icmpv6(error.v6());
            builder.write_to_slice(out.room_mut().get_mut(..MAX_ERROR_V6)?, quote).ok()?
        }
        _ => return None,
    };
    out.set_len(length);
    Some(())
}

/// ICMP errors never answer ICMP errors, and a redirect counts as one (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4
/// e.2). In a first fragment the type has to be looked up.
fn is_error_or_redirect(packet: &[u8], parsed: &Parsed) -> bool {
    let message = packet.get(usize::from(parsed.transport)).copied();
    match (parsed.protocol, message) {
        (protocol::ICMP, Some(message)) if parsed.is_v4() => matches!(message, 3 | 4 | 5 | 11 | 12),
        (protocol::ICMPV6, Some(message)) if !parsed.is_v4() => message < 128 || message == 137,
        _ => false,
    }
}

/// Whether an address can be that of one host which could hear of the error.
fn is_one_host_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 240 && !address.is_multicast() && !address.is_loopback()
}

fn is_one_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

/// The packet that an ICMP error quotes, as far as the quote reaches; its offsets count from the start of `packet`, as
/// those of `parsed` do. A quoted first fragment has its ports, as one that is forwarded has.
///
/// `None` where `packet` is no ICMP error, or where less than the IP header and, of protocols with ports, 8 bytes of
/// the transport header are quoted, or where the quote is of the other family.
pub fn embedded(packet: &[u8], parsed: &Parsed) -> Option<Parsed> {
    if parsed.kind != TransportKind::IcmpError {
        return None;
    }
    let message = *packet.get(usize::from(parsed.transport))?;
    // Of ICMPv6 error types only these are defined; what others carry is not known (RFC 4443 section 2.1).
    if !parsed.is_v4() && !(1..=4).contains(&message) {
        return None;
    }
    let end = usize::from(parsed.network) + parsed.total as usize;
    let packet = packet.get(..end).unwrap_or(packet);
    let inner = parse_quoted(packet, usize::from(parsed.transport) + ICMP_HEADER).ok()?;
    (inner.is_v4() == parsed.is_v4()).then_some(inner)
}
