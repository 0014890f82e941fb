//! Packets at random, built by etherparse, and what the tests ask of packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, PacketBuilder, TcpHeader,
};
use proptest::collection::vec;
use proptest::prelude::*;
use sidestep::packet::checksum;
use sidestep::packet::frame::{Checksum, Frame};
use sidestep::packet::parse::{Parsed, parse};

/// A transport header to be built.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    Tcp { source: u16, destination: u16, sequence: u32, acknowledgment: u32, flags: u8, window: u16, options: usize },
    Udp { source: u16, destination: u16 },
    UdpUnsummed { source: u16, destination: u16 },
    Echo { identifier: u16, sequence: u16, reply: bool },
    Raw { protocol: u8 },
}

/// A packet to be built.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    pub(crate) dont_fragment: bool,
    /// Words of IPv4 options; in IPv6 which extension headers there are, as bits.
    pub(crate) extra: u8,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        4 => (any::<(u16, u16, u32, u32)>(), any::<u8>(), any::<u16>(), 0_usize..=10).prop_map(
            |((source, destination, sequence, acknowledgment), flags, window, options)| Transport::Tcp {
                source, destination, sequence, acknowledgment, flags, window, options,
            }
        ),
        3 => any::<(u16, u16)>().prop_map(|(source, destination)| Transport::Udp { source, destination }),
        1 => any::<(u16, u16)>().prop_map(|(source, destination)| Transport::UdpUnsummed { source, destination }),
        2 => any::<(u16, u16, bool)>().prop_map(|(identifier, sequence, reply)| Transport::Echo {
            identifier, sequence, reply,
        }),
        1 => prop_oneof![Just(47), Just(4), Just(59), Just(253)].prop_map(|protocol| Transport::Raw { protocol }),
    ]
}

/// Unicast addresses of the same family.
pub(crate) fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        (host_v4(), host_v4()).prop_map(|(one, other)| (one.into(), other.into())),
        (host_v6(), host_v6()).prop_map(|(one, other)| (one.into(), other.into())),
    ]
}

fn host_v4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        (0x0100_0000_u32..0x7f00_0000).prop_map(Ipv4Addr::from_bits),
        (0x8000_0000_u32..0xe000_0000).prop_map(Ipv4Addr::from_bits)
    ]
}

fn host_v6() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from_bits((bits >> 3) | (0b001 << 125)))
}

/// Addresses of a given family.
pub(crate) fn addresses_of(v4: bool) -> BoxedStrategy<(IpAddr, IpAddr)> {
    if v4 {
        (host_v4(), host_v4()).prop_map(|(one, other)| (one.into(), other.into())).boxed()
    } else {
        (host_v6(), host_v6()).prop_map(|(one, other)| (one.into(), other.into())).boxed()
    }
}

/// Whole packets of all kinds.
pub(crate) fn recipe() -> impl Strategy<Value = Recipe> {
    (
        addresses(),
        any::<(u8, bool)>(),
        prop_oneof![3 => Just(0), 1 => any::<u8>()],
        transport(),
        vec(any::<u8>(), 0..300),
    )
        .prop_map(|((source, destination), (hop_limit, dont_fragment), extra, transport, payload)| Recipe {
            source,
            destination,
            hop_limit,
            dont_fragment,
            extra,
            transport,
            payload,
        })
}

impl Recipe {
    pub(crate) fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    fn ip(&self) -> IpHeaders {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                // A router alert, then no-operations: valid options of any number of words.
                let words = usize::from(self.extra % 11);
                let mut options = [1; 40];
                options[..4].copy_from_slice(&[148, 4, 0, 0]);
                let header = Ipv4Header {
                    identification: 0xfffe,
                    dont_fragment: self.dont_fragment,
                    time_to_live: self.hop_limit,
                    source: source.octets(),
                    destination: destination.octets(),
                    options: Ipv4Options::try_from(&options[..words * 4]).unwrap(),
                    ..Default::default()
                };
                IpHeaders::Ipv4(header, Default::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    hop_limit: self.hop_limit,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Default::default()
                };
                let raw = |payload: &[u8]| Ipv6RawExtHeader::new_raw(IpNumber(0), payload).unwrap();
                let has = |bit: u8| self.extra & (1 << bit) != 0;
                let extensions = Ipv6Extensions {
                    hop_by_hop_options: has(0).then(|| raw(&[1, 4, 0, 0, 0, 0])),
                    destination_options: has(1).then(|| raw(&[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
                    // Type 2 with no segments left.
                    routing: has(2).then(|| Ipv6RoutingExtensions {
                        routing: raw(&[2, 0, 0, 0, 0, 0]),
                        final_destination_options: None,
                    }),
                    // The only piece of its packet.
                    fragment: has(3).then(|| Ipv6FragmentHeader::new(IpNumber(0), IpFragOffset::ZERO, false, 77)),
                    auth: None,
                };
                IpHeaders::Ipv6(header, extensions)
            }
            _ => unreachable!("addresses of one family"),
        }
    }

    /// Builds the packet, all checksums right.
    pub(crate) fn build(&self) -> Vec<u8> {
        let ip = PacketBuilder::ip(self.ip());
        let mut out = Vec::new();
        let payload = &self.payload;
        match self.transport {
            Transport::Tcp { source, destination, sequence, acknowledgment, flags, window, options } => {
                let mut header = TcpHeader::new(source, destination, sequence, window);
                header.acknowledgment_number = acknowledgment;
                header.fin = flags & Parsed::FIN != 0;
                header.syn = flags & Parsed::SYN != 0;
                header.rst = flags & Parsed::RST != 0;
                header.psh = flags & Parsed::PSH != 0;
                header.ack = flags & Parsed::ACK != 0;
                header.urg = flags & Parsed::URG != 0;
                header.ece = flags & Parsed::ECE != 0;
                header.cwr = flags & Parsed::CWR != 0;
                header.set_options_raw(&[1; 40][..options * 4]).unwrap();
                ip.tcp_header(header).write(&mut out, payload).unwrap();
            }
            Transport::Udp { source, destination } => ip.udp(source, destination).write(&mut out, payload).unwrap(),
            Transport::UdpUnsummed { source, destination } => {
                ip.udp(source, destination).write(&mut out, payload).unwrap();
                let transport = usize::from(parse(&out).unwrap().transport);
                out[transport + 6..transport + 8].fill(0);
            }
            Transport::Echo { identifier, sequence, reply } => {
                let echo = IcmpEchoHeader { id: identifier, seq: sequence };
                match (self.is_v4(), reply) {
                    (true, false) => ip.icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut out, payload).unwrap(),
                    (true, true) => ip.icmpv4(Icmpv4Type::EchoReply(echo)).write(&mut out, payload).unwrap(),
                    (false, false) => ip.icmpv6(Icmpv6Type::EchoRequest(echo)).write(&mut out, payload).unwrap(),
                    (false, true) => ip.icmpv6(Icmpv6Type::EchoReply(echo)).write(&mut out, payload).unwrap(),
                }
            }
            Transport::Raw { protocol } => ip.write(&mut out, IpNumber(protocol), payload).unwrap(),
        }
        out
    }
}

/// A TCP packet over IPv4 with fixed addresses.
pub(crate) fn tcp_v4(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ipv4([10, 1, 0, 4], [20, 60, 1, 7], 64).tcp(40_000, 443, 1000, 512).ack(77);
    builder.write(&mut out, payload).unwrap();
    out
}

/// A UDP packet over IPv4 with fixed addresses, not forbidden to be fragmented.
pub(crate) fn udp_v4(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4([10, 1, 0, 4], [20, 60, 1, 7], 64).udp(40_000, 53).write(&mut out, payload).unwrap();
    out[6] = 0;
    fix_ipv4_checksum(&mut out);
    out
}

/// Sets the IPv4 header checksum right where there is a header.
pub(crate) fn fix_ipv4_checksum(packet: &mut [u8]) {
    let Some(&first) = packet.first() else { return };
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < 20 || packet.len() < length {
        return;
    }
    packet[10..12].fill(0);
    let sum = !checksum::sum(&packet[..length]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Makes the transport checksum of a TCP or UDP packet partial, the way the kernel hands it out: the field holds the
/// sum of the pseudo header.
pub(crate) fn partial(packet: &[u8]) -> Frame {
    let mut frame = Frame::from_packet(packet);
    let parsed = parse(packet).unwrap();
    let offset: u16 = if parsed.protocol == 6 { 16 } else { 6 };
    let length = parsed.total - u32::from(parsed.transport);
    let sum = slow_pseudo(packet, &parsed, length);
    let at = usize::from(parsed.transport + offset);
    frame.bytes_mut()[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    frame.offload.checksum = Checksum::Partial { start: parsed.transport, offset };
    frame
}

/// The sum of bytes as RFC 1071 writes it.
pub(crate) fn slow_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn slow_pseudo(packet: &[u8], parsed: &Parsed, length: u32) -> u16 {
    let mut bytes = if parsed.is_v4() { packet[12..20].to_vec() } else { packet[8..40].to_vec() };
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, parsed.protocol]);
    slow_sum(&bytes)
}

/// Asserts that the IPv4 header checksum, and the transport checksum where there is one, are those that a full
/// computation gives, bit by bit.
#[track_caller]
pub(crate) fn assert_sums(packet: &[u8]) {
    let parsed = parse(packet).unwrap();
    let start = usize::from(parsed.transport);
    let (offset, pseudo) = match parsed.protocol {
        6 => (16, true),
        17 => (6, true),
        1 if parsed.is_v4() => (2, false),
        58 if !parsed.is_v4() => (2, true),
        _ => return,
    };
    let at = start + offset;
    let found = u16::from_be_bytes([packet[at], packet[at + 1]]);
    if parsed.protocol == 17 && found == 0 {
        return;
    }
    let mut bytes = packet[start..parsed.total as usize].to_vec();
    bytes[offset..offset + 2].fill(0);
    let sum = u32::from(slow_sum(&bytes))
        + if pseudo { u32::from(slow_pseudo(packet, &parsed, bytes.len() as u32)) } else { 0 };
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    let expected = if sum == 0 && parsed.protocol == 17 { 0xffff } else { sum };
    assert_eq!(found, expected, "transport checksum of {parsed:?}");
    assert_eq!(checksum::verify(packet, &parsed), Some(true));
}
