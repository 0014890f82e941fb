//! ICMP errors and resets: etherparse decodes what we built.

use std::net::IpAddr;

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use sidestep::packet::frame::{Frame, Offload, SegmentKind, Segmentation};
use sidestep::packet::icmp::{IcmpError, build_error, embedded};
use sidestep::packet::parse::{Parsed, TransportKind, parse};
use sidestep::packet::tcp::{Reset, build_reset, sequence_span};

use crate::sample::{Transport, addresses, assert_sums, fix_ipv4_checksum, recipe, tcp_v4, udp_v4};

const ROUTER_V4: [u8; 4] = [10, 1, 0, 1];

fn router(v4: bool) -> IpAddr {
    if v4 { ROUTER_V4.into() } else { "2001:db8::1".parse().unwrap() }
}

fn errors() -> impl Strategy<Value = IcmpError> {
    prop_oneof![
        Just(IcmpError::TimeExceeded),
        Just(IcmpError::NetworkUnreachable),
        Just(IcmpError::HostUnreachable),
        Just(IcmpError::PortUnreachable),
        Just(IcmpError::AdministrativelyProhibited),
        (1280_u32..70_000).prop_map(|mtu| IcmpError::PacketTooBig { mtu }),
    ]
}

/// Type and code of each error (IANA, ICMP and ICMPv6 parameters).
fn type_and_code(error: IcmpError, v4: bool) -> (u8, u8) {
    match (error, v4) {
        (IcmpError::TimeExceeded, true) => (11, 0),
        (IcmpError::NetworkUnreachable, true) => (3, 0),
        (IcmpError::HostUnreachable, true) => (3, 1),
        (IcmpError::PortUnreachable, true) => (3, 3),
        (IcmpError::AdministrativelyProhibited, true) => (3, 13),
        (IcmpError::PacketTooBig { .. }, true) => (3, 4),
        (IcmpError::TimeExceeded, false) => (3, 0),
        (IcmpError::NetworkUnreachable, false) => (1, 0),
        (IcmpError::HostUnreachable, false) => (1, 3),
        (IcmpError::PortUnreachable, false) => (1, 4),
        (IcmpError::AdministrativelyProhibited, false) => (1, 1),
        (IcmpError::PacketTooBig { .. }, false) => (2, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn errors_decode(recipe in recipe(), long in any::<bool>(), error in errors()) {
        let mut recipe = recipe;
        if long {
            recipe.payload.resize(1700, 0x5a);
        }
        let packet = recipe.build();
        let parsed = parse(&packet).unwrap();
        let mut out = Frame::new();
        out.offload.segmentation = Some(Segmentation { kind: SegmentKind::Udp, size: 9, ecn: false });
        prop_assert!(build_error(error, &packet, &parsed, router(recipe.is_v4()), &mut out));
        prop_assert_eq!(out.offload, Offload::default());
        assert_sums(out.bytes());

        let sliced = SlicedPacket::from_ip(out.bytes()).unwrap();
        let (limit, quote) = match (&sliced.net, &sliced.transport) {
            (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
                prop_assert_eq!((icmp.type_u8(), icmp.code_u8()), type_and_code(error, true));
                prop_assert_eq!((ip.header().ttl(), ip.header().dcp().value()), (64, 0x30));
                if let (IcmpError::PacketTooBig { mtu }, Icmpv4Type::DestinationUnreachable(said)) = (error, icmp.icmp_type()) {
                    let said = match said {
                        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu } => next_hop_mtu,
                        other => panic!("{other:?}"),
                    };
                    prop_assert_eq!(u32::from(said), mtu.min(65_535));
                }
                (576, icmp.payload())
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                prop_assert_eq!((icmp.type_u8(), icmp.code_u8()), type_and_code(error, false));
                prop_assert_eq!(ip.header().hop_limit(), 64);
                if let (IcmpError::PacketTooBig { mtu }, Icmpv6Type::PacketTooBig { mtu: said }) = (error, icmp.icmp_type()) {
                    prop_assert_eq!(said, mtu);
                }
                (1280, icmp.payload())
            }
            other => panic!("{other:?}"),
        };
        let answer = parse(out.bytes()).unwrap();
        prop_assert_eq!(answer.destination(), recipe.source);
        prop_assert_eq!(answer.source(), router(recipe.is_v4()));
        prop_assert_eq!(answer.kind, TransportKind::IcmpError);
        prop_assert!(packet.starts_with(quote));
        prop_assert!(quote.len() == packet.len() || out.len() == limit);
        prop_assert!(out.len() <= limit);

        // What the error quotes is found again, and no error answers it.
        if let Some(inner) = embedded(out.bytes(), &answer) {
            prop_assert_eq!((inner.source(), inner.destination()), (parsed.source(), parsed.destination()));
            prop_assert_eq!((inner.source_port, inner.destination_port), (parsed.source_port, parsed.destination_port));
            prop_assert_eq!((inner.protocol, inner.total), (parsed.protocol, parsed.total));
            prop_assert_eq!(inner.network + parsed.transport, inner.transport);
            prop_assert_eq!(inner.kind, parsed.kind);
            prop_assert_eq!(inner.payload_len(), parsed.payload_len());
        } else {
            panic!("nothing quoted by {answer:?}");
        }
        let mut second = Frame::new();
        prop_assert!(!build_error(error, out.bytes(), &answer, router(recipe.is_v4()), &mut second));
        prop_assert!(second.is_empty());
    }

    #[test]
    fn resets_decode(
        (source, destination) in addresses(),
        (source_port, destination_port, sequence) in any::<(u16, u16, u32)>(),
        acknowledgment in any::<Option<u32>>(),
    ) {
        let reset = Reset { source, destination, source_port, destination_port, sequence, acknowledgment };
        let mut out = Frame::from_packet(&[1, 2, 3]);
        prop_assert!(build_reset(&reset, &mut out));
        assert_sums(out.bytes());
        let parsed = parse(out.bytes()).unwrap();
        prop_assert_eq!((parsed.source(), parsed.destination()), (source, destination));
        let sliced = SlicedPacket::from_ip(out.bytes()).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP") };
        prop_assert!(tcp.rst() && !tcp.syn() && !tcp.fin() && !tcp.psh());
        prop_assert_eq!((tcp.source_port(), tcp.destination_port()), (source_port, destination_port));
        prop_assert_eq!(tcp.sequence_number(), sequence);
        prop_assert_eq!(tcp.ack().then(|| tcp.acknowledgment_number()), acknowledgment);
        prop_assert_eq!(sequence_span(&parsed), 0);
    }

    #[test]
    fn sequence_numbers_count_payload_syn_and_fin(recipe in recipe()) {
        let parsed = parse(&recipe.build()).unwrap();
        let expected = match recipe.transport {
            Transport::Tcp { flags, .. } => {
                recipe.payload.len() as u32 + (u32::from(flags) & 1) + (u32::from(flags) >> 1 & 1)
            }
            _ => 0,
        };
        prop_assert_eq!(sequence_span(&parsed), expected);
    }
}

#[test]
fn a_reset_between_families_is_not_built() {
    let reset = Reset {
        source: router(true),
        destination: router(false),
        source_port: 1,
        destination_port: 2,
        sequence: 3,
        acknowledgment: None,
    };
    let mut out = Frame::from_packet(&[1]);
    assert!(!build_reset(&reset, &mut out));
    assert!(out.is_empty());
}

fn answers(packet: &[u8], error: IcmpError) -> bool {
    let parsed = parse(packet).unwrap();
    build_error(error, packet, &parsed, router(parsed.is_v4()), &mut Frame::new())
}

#[test]
fn no_error_about_addresses_that_are_not_one_host() {
    let between = |source: [u8; 4], destination: [u8; 4]| {
        let mut packet = udp_v4(b"x");
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        fix_ipv4_checksum(&mut packet);
        answers(&packet, IcmpError::TimeExceeded)
    };
    let (host, other) = ([10, 1, 0, 4], [20, 60, 1, 7]);
    assert!(between(host, other));
    for source in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
        assert!(!between(source, other), "{source:?}");
    }
    for destination in [[224, 0, 0, 251], [255; 4]] {
        assert!(!between(host, destination), "{destination:?}");
    }

    let between = |source: [u8; 16], destination: [u8; 16], error: IcmpError| {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(source, destination, 3).udp(1, 2).write(&mut packet, b"x").unwrap();
        answers(&packet, error)
    };
    let (mut host, mut group, mut loopback) = ([0; 16], [0; 16], [0; 16]);
    (host[0], group[0], loopback[15]) = (0x20, 0xff, 1);
    assert!(between(host, host, IcmpError::TimeExceeded));
    for source in [[0; 16], group, loopback] {
        assert!(!between(source, host, IcmpError::TimeExceeded));
    }
    assert!(!between(host, group, IcmpError::TimeExceeded));
    assert!(between(host, group, IcmpError::PacketTooBig { mtu: 1280 }));
}

#[test]
fn no_error_about_errors_redirects_and_later_fragments() {
    let icmp_v4 = |message: u8| {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 1, 0, 4], [20, 60, 1, 7], 1).icmpv4_raw(message, 0, [0; 4]);
        builder.write(&mut packet, &[0; 28]).unwrap();
        answers(&packet, IcmpError::TimeExceeded)
    };
    for message in [3, 4, 5, 11, 12] {
        assert!(!icmp_v4(message), "{message}");
    }
    for message in [0, 8, 15] {
        assert!(icmp_v4(message), "{message}");
    }
    let icmp_v6 = |message: u8| {
        let mut packet = Vec::new();
        let host = [0x20; 16];
        PacketBuilder::ipv6(host, host, 1).icmpv6_raw(message, 0, [0; 4]).write(&mut packet, &[0; 48]).unwrap();
        answers(&packet, IcmpError::TimeExceeded)
    };
    for message in [1, 2, 3, 4, 100, 127, 137] {
        assert!(!icmp_v6(message), "{message}");
    }
    assert!(icmp_v6(128));

    let mut packet = udp_v4(&[0; 32]);
    packet[6] = 0x20;
    fix_ipv4_checksum(&mut packet);
    assert!(answers(&packet, IcmpError::TimeExceeded), "a first fragment may be answered");
    packet[6..8].copy_from_slice(&[0, 1]);
    fix_ipv4_checksum(&mut packet);
    assert!(!answers(&packet, IcmpError::TimeExceeded));
}

#[test]
fn no_error_from_the_other_family() {
    let packet = tcp_v4(b"");
    let parsed = parse(&packet).unwrap();
    let mut out = Frame::new();
    assert!(!build_error(IcmpError::TimeExceeded, &packet, &parsed, router(false), &mut out));
    assert!(out.is_empty());
}

#[test]
fn bytes_behind_the_packet_are_not_quoted() {
    let mut packet = tcp_v4(b"data");
    let length = packet.len();
    packet.extend([0xee; 100]);
    let parsed = parse(&packet).unwrap();
    let mut out = Frame::new();
    assert!(build_error(IcmpError::TimeExceeded, &packet, &parsed, router(true), &mut out));
    assert_eq!(out.len(), 28 + length);
}

/// RFC 792 asks for no more than the header and 8 bytes, and old routers send no more.
#[test]
fn a_quote_of_eight_transport_bytes_has_ports_and_sequence() {
    let packet = tcp_v4(b"data");
    let quote = |length: usize| {
        let mut error = Vec::new();
        let builder = PacketBuilder::ipv4(ROUTER_V4, [10, 1, 0, 4], 64).icmpv4_raw(11, 0, [0; 4]);
        builder.write(&mut error, &packet[..length]).unwrap();
        let parsed: Parsed = parse(&error).unwrap();
        embedded(&error, &parsed)
    };
    let inner = quote(28).unwrap();
    assert_eq!((inner.source_port, inner.destination_port), (40_000, 443));
    assert!(matches!(inner.kind, TransportKind::Tcp { sequence: 1000, flags: 0, header: 0, .. }));
    assert_eq!(quote(27), None);
    assert_eq!(quote(12), None);
    assert!(matches!(quote(packet.len()).unwrap().kind, TransportKind::Tcp { acknowledgment: 77, header: 20, .. }));
}

/// A router that fragmented sends back the first fragment; it belongs to the flow whose ports it shows.
#[test]
fn a_quoted_first_fragment_keeps_its_ports() {
    let mut packet = udp_v4(&[0; 32]);
    packet[6] = 0x20;
    fix_ipv4_checksum(&mut packet);
    let parsed = parse(&packet).unwrap();
    assert_eq!(parsed.source_port, 40_000);
    let mut out = Frame::new();
    assert!(build_error(IcmpError::TimeExceeded, &packet, &parsed, router(true), &mut out));
    let inner = embedded(out.bytes(), &parse(out.bytes()).unwrap()).unwrap();
    assert_eq!((inner.source_port, inner.kind), (40_000, TransportKind::Udp));
}
