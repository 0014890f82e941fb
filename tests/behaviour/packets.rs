//! Packets as data.

use std::net::IpAddr;

use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep, TcpHeaderSlice, ip_number};

/// A TCP packet to build.
#[derive(Clone, Copy)]
pub(crate) struct Tcp<'a> {
    pub(crate) from: (&'a str, u16),
    pub(crate) to: (&'a str, u16),
    /// `S`, `A`, `F`, `R`, `P` in any order.
    pub(crate) flags: &'a str,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) payload: &'a [u8],
    pub(crate) hop_limit: u8,
}

impl Default for Tcp<'_> {
    fn default() -> Self {
        Self {
            from: ("10.1.1.4", 40_000),
            to: ("20.60.1.10", 443),
            flags: "S",
            sequence: 1_000,
            acknowledgment: 0,
            payload: b"",
            hop_limit: 64,
        }
    }
}

impl Tcp<'_> {
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut builder = ip(self.from.0, self.to.0, self.hop_limit).tcp(self.from.1, self.to.1, self.sequence, 65_000);
        for flag in self.flags.chars() {
            builder = match flag {
                'S' => builder.syn(),
                'A' => builder.ack(self.acknowledgment),
                'F' => builder.fin(),
                'R' => builder.rst(),
                'P' => builder.psh(),
                other => panic!("no TCP flag {other}"),
            };
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, self.payload).unwrap();
        bytes
    }
}

/// A TCP packet that says how large segments its sender takes.
pub(crate) fn with_mss(packet: Tcp<'_>, size: u16) -> Vec<u8> {
    use etherparse::TcpOptionElement::MaximumSegmentSize;
    let mut builder =
        ip(packet.from.0, packet.to.0, packet.hop_limit).tcp(packet.from.1, packet.to.1, packet.sequence, 65_000).syn();
    if packet.flags.contains('A') {
        builder = builder.ack(packet.acknowledgment);
    }
    let mut bytes = Vec::new();
    builder.options(&[MaximumSegmentSize(size)]).unwrap().write(&mut bytes, packet.payload).unwrap();
    bytes
}

/// The segment size that a TCP packet says.
pub(crate) fn mss(bytes: &[u8]) -> Option<u16> {
    use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};
    let packet = SlicedPacket::from_ip(bytes).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("not TCP") };
    tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
        _ => None,
    })
}

pub(crate) fn udp(from: (&str, u16), to: (&str, u16), payload: &[u8]) -> Vec<u8> {
    udp_with_hops(from, to, payload, 64)
}

pub(crate) fn udp_with_hops(from: (&str, u16), to: (&str, u16), payload: &[u8], hop_limit: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip(from.0, to.0, hop_limit).udp(from.1, to.1).write(&mut bytes, payload).unwrap();
    bytes
}

pub(crate) fn echo(from: &str, to: &str, reply: bool, id: u16, hop_limit: u8) -> Vec<u8> {
    let builder = ip(from, to, hop_limit);
    let mut bytes = Vec::new();
    match (from.contains(':'), reply) {
        (false, false) => builder.icmpv4_echo_request(id, 1).write(&mut bytes, b"ping").unwrap(),
        (false, true) => builder.icmpv4_echo_reply(id, 1).write(&mut bytes, b"ping").unwrap(),
        (true, false) => builder.icmpv6_echo_request(id, 1).write(&mut bytes, b"ping").unwrap(),
        (true, true) => builder.icmpv6_echo_reply(id, 1).write(&mut bytes, b"ping").unwrap(),
    }
    bytes
}

pub(crate) fn protocol(from: &str, to: &str, number: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip(from, to, 64).write(&mut bytes, IpNumber(number), payload).unwrap();
    bytes
}

/// An ICMP destination unreachable (port) that quotes a packet.
pub(crate) fn port_unreachable(from: &str, to: &str, quoted: &[u8]) -> Vec<u8> {
    use etherparse::{Icmpv4Type, Icmpv6Type, icmpv4, icmpv6};
    let mut bytes = Vec::new();
    let builder = ip(from, to, 64);
    if from.contains(':') {
        builder
            .icmpv6(Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port))
            .write(&mut bytes, quoted)
            .unwrap();
    } else {
        builder
            .icmpv4(Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port))
            .write(&mut bytes, &quoted[..quoted.len().min(28)])
            .unwrap();
    }
    bytes
}

fn ip(from: &str, to: &str, hop_limit: u8) -> PacketBuilderStep<etherparse::IpHeaders> {
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), hop_limit),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), hop_limit),
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// Says in an IPv4 header that more fragments follow.
pub(crate) fn make_fragment(packet: &mut [u8]) {
    packet[6] = 0x20;
    fix_header(packet);
}

/// Makes the checksum of an IPv4 header of 20 bytes right.
pub(crate) fn fix_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let mut sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// What a test reads of a packet, decoded by etherparse with every checksum verified.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) hop_limit: u8,
    pub(crate) protocol: u8,
    pub(crate) tcp: Option<SeenTcp>,
    pub(crate) icmp: Option<(u8, u8)>,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SeenTcp {
    pub(crate) reset: bool,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: Option<u32>,
}

pub(crate) fn decode(bytes: &[u8]) -> Seen {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let packet = SlicedPacket::from_ip(bytes).unwrap();
    let (source, destination, hop_limit, protocol, payload): (IpAddr, IpAddr, u8, u8, &[u8]) =
        match packet.net.as_ref().unwrap() {
            NetSlice::Ipv4(v4) => {
                let header = v4.header().to_header();
                assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 header checksum");
                (
                    header.source.into(),
                    header.destination.into(),
                    header.time_to_live,
                    v4.payload().ip_number.0,
                    v4.payload().payload,
                )
            }
            NetSlice::Ipv6(v6) => {
                let header = v6.header().to_header();
                (
                    header.source.into(),
                    header.destination.into(),
                    header.hop_limit,
                    v6.payload().ip_number.0,
                    v6.payload().payload,
                )
            }
            other => panic!("not IP: {other:?}"),
        };
    verify_transport(source, destination, protocol, payload);
    let mut seen = Seen {
        source,
        destination,
        source_port: 0,
        destination_port: 0,
        hop_limit,
        protocol,
        tcp: None,
        icmp: None,
        payload: payload.to_vec(),
    };
    match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            (seen.source_port, seen.destination_port) = (tcp.source_port(), tcp.destination_port());
            seen.tcp = Some(SeenTcp {
                reset: tcp.rst(),
                sequence: tcp.sequence_number(),
                acknowledgment: tcp.ack().then(|| tcp.acknowledgment_number()),
            });
            let header = TcpHeaderSlice::from_slice(payload).unwrap();
            seen.payload = payload[header.slice().len()..].to_vec();
        }
        Some(TransportSlice::Udp(udp)) => {
            (seen.source_port, seen.destination_port) = (udp.source_port(), udp.destination_port());
            seen.payload = udp.payload().to_vec();
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            seen.icmp = Some((icmp.type_u8(), icmp.code_u8()));
            seen.payload = icmp.slice()[8..].to_vec();
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            seen.icmp = Some((icmp.type_u8(), icmp.code_u8()));
            seen.payload = icmp.slice()[8..].to_vec();
        }
        _ => {}
    }
    seen
}

/// The one's-complement sum over pseudo-header and transport must be all ones.
fn verify_transport(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) {
    let number = IpNumber(protocol);
    let pseudo = match number {
        ip_number::TCP | ip_number::UDP | ip_number::IPV6_ICMP => {
            let mut pseudo = Vec::new();
            for address in [source, destination] {
                match address {
                    IpAddr::V4(v4) => pseudo.extend(v4.octets()),
                    IpAddr::V6(v6) => pseudo.extend(v6.octets()),
                }
            }
            pseudo.extend((payload.len() as u32).to_be_bytes());
            pseudo.extend([0, 0, 0, protocol]);
            pseudo
        }
        ip_number::ICMP => Vec::new(),
        _ => return,
    };
    if number == ip_number::UDP && payload[6..8] == [0, 0] && source.is_ipv4() {
        return;
    }
    let mut sum = 0_u32;
    for bytes in [&pseudo[..], payload] {
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    assert_eq!(sum, 0xffff, "transport checksum of IP protocol {protocol}");
}
