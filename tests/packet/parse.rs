//! Our parser beside etherparse's. Where ours says no and etherparse yes, the reason is one of a list.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use sidestep::packet::parse::{Fragment, ParseError, Parsed, TransportKind, parse};

use crate::sample::{Transport, fix_ipv4_checksum, recipe, tcp_v4};

/// What etherparse found, in our words.
fn assert_agree(ours: &Parsed, theirs: &SlicedPacket<'_>, packet: &[u8]) {
    let fragmented = match theirs.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(ours.source(), IpAddr::V4(header.source_addr()));
            assert_eq!(ours.destination(), IpAddr::V4(header.destination_addr()));
            assert_eq!(ours.hop_limit, header.ttl());
            assert_eq!(ours.total, u32::from(header.total_len()));
            assert_eq!(ours.dont_fragment, header.dont_fragment());
            assert_eq!(ours.has_options, !header.options().is_empty());
            assert_eq!(ours.protocol, header.protocol().0);
            assert_eq!(usize::from(ours.transport), header.slice().len());
            ip.payload().fragmented
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(ours.source(), IpAddr::V6(header.source_addr()));
            assert_eq!(ours.destination(), IpAddr::V6(header.destination_addr()));
            assert_eq!(ours.hop_limit, header.hop_limit());
            assert_eq!(ours.total, 40 + u32::from(header.payload_length()));
            ip.payload().fragmented
        }
        NetSlice::Arp(_) => unreachable!("parsed from the IP header on"),
    };
    assert_eq!(fragmented, ours.fragment != Fragment::None);
    match theirs.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(ours.identification, u32::from(header.identification()));
            assert_eq!(u32::from(ours.fragment_offset), u32::from(header.fragments_offset().value()) * 8);
            assert_eq!(ours.more_fragments, header.more_fragments());
        }
        _ if !fragmented => assert_eq!((ours.fragment_offset, ours.more_fragments), (0, false)),
        _ => {}
    }
    if ours.fragment == Fragment::Later {
        assert_eq!((ours.kind, ours.source_port, ours.destination_port), (TransportKind::Fragment, 0, 0));
    }
    if fragmented {
        // Etherparse leaves the transport header of a first fragment to its caller.
        return;
    }
    // Etherparse walks AH as an extension header; for us it is the protocol.
    let ours_stops_early = ours.protocol == 51;
    match (&theirs.transport, ours.kind) {
        _ if ours_stops_early => assert_eq!(ours.kind, TransportKind::Other),
        (Some(TransportSlice::Tcp(tcp)), TransportKind::Tcp { flags, sequence, acknowledgment, header, window }) => {
            assert_eq!(ours.source_port, tcp.source_port());
            assert_eq!(ours.destination_port, tcp.destination_port());
            assert_eq!(sequence, tcp.sequence_number());
            assert_eq!(acknowledgment, tcp.acknowledgment_number());
            assert_eq!(window, tcp.window_size());
            assert_eq!(usize::from(header), tcp.header_slice().len());
            assert_eq!(ours.payload_len(), tcp.payload().len());
            assert_eq!(&packet[ours.payload()..ours.payload() + ours.payload_len()], tcp.payload());
            let expected = [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg(), tcp.ece(), tcp.cwr()];
            for (bit, expected) in expected.into_iter().enumerate() {
                assert_eq!(flags & (1 << bit) != 0, expected, "flag {bit}");
            }
            assert_eq!(flags, ours.tcp_flags());
        }
        (Some(TransportSlice::Udp(udp)), TransportKind::Udp) => {
            assert_eq!(ours.source_port, udp.source_port());
            assert_eq!(ours.destination_port, udp.destination_port());
            assert!(ours.payload_len() >= udp.payload().len());
        }
        (Some(TransportSlice::Icmpv4(icmp)), kind) if ours.is_v4() => {
            assert_icmp(ours, icmp.type_u8(), icmp.bytes5to8(), kind, [8, 0], &[3, 4, 11, 12]);
        }
        (Some(TransportSlice::Icmpv6(icmp)), kind) if !ours.is_v4() => {
            let errors: Vec<u8> = (0..128).collect();
            assert_icmp(ours, icmp.type_u8(), icmp.bytes5to8(), kind, [128, 129], &errors);
        }
        // ICMP of the other family, IGMP and all else carry no key.
        (theirs, TransportKind::Other) => {
            assert!(!matches!(theirs, Some(TransportSlice::Tcp(_) | TransportSlice::Udp(_))));
        }
        (theirs, kind) => panic!("{kind:?} beside {theirs:?}"),
    }
}

fn assert_icmp(ours: &Parsed, message: u8, rest: [u8; 4], kind: TransportKind, echo: [u8; 2], errors: &[u8]) {
    let identifier = u16::from_be_bytes([rest[0], rest[1]]);
    let (expected, port) = if message == echo[0] {
        (TransportKind::IcmpEcho { reply: false }, identifier)
    } else if message == echo[1] {
        (TransportKind::IcmpEcho { reply: true }, identifier)
    } else if errors.contains(&message) {
        (TransportKind::IcmpError, 0)
    } else {
        (TransportKind::IcmpOther, 0)
    };
    assert_eq!((kind, ours.source_port, ours.destination_port), (expected, port, port));
}

/// Whether ours may refuse what etherparse takes: it is stricter in these, on purpose.
fn is_stricter(error: ParseError, packet: &[u8], theirs: &SlicedPacket<'_>) -> bool {
    let fragmented = theirs.is_ip_payload_fragmented();
    let v6_without_length = packet[0] >> 4 == 6 && packet[4..6] == [0, 0];
    match error {
        // Etherparse leaves checksums and options to its caller, source routing to policy.
        ParseError::BadIpv4Checksum | ParseError::BadIpv4Options | ParseError::SourceRouting => true,
        ParseError::Ipv6ExtensionTooDeep => true,
        ParseError::TinyFragment | ParseError::MalformedFragment => fragmented || v6_without_length,
        // Etherparse does not look into a first fragment, nor into SCTP, DCCP and UDP-Lite.
        ParseError::TruncatedTransport | ParseError::BadTransportHeader => {
            let ip = theirs.ip_payload().unwrap();
            let udp_without_length = ip.ip_number.0 == 17 && ip.payload.get(4..6) == Some(&[0, 0]);
            fragmented || v6_without_length || udp_without_length || matches!(ip.ip_number.0, 33 | 132 | 136)
        }
        // A payload length of 0 means a jumbogram to etherparse, and no payload to us (RFC 2675 is not supported).
        ParseError::TruncatedIpv6Extension => v6_without_length,
        _ => false,
    }
}

/// Whether etherparse may refuse what ours takes.
fn is_laxer(ours: &Parsed, packet: &[u8]) -> bool {
    let message = packet.get(usize::from(ours.transport)).copied();
    match ours.protocol {
        // Etherparse wants a timestamp message to be 20 bytes long; it has no key, so its length matters to nobody here.
        1 => matches!(message, Some(13 | 14)),
        // Etherparse looks into AH, and into IGMP, which we forward as any protocol.
        51 | 2 => true,
        // Etherparse decodes ICMP of the other family.
        58 if ours.is_v4() => true,
        _ if ours.protocol == 1 && !ours.is_v4() => true,
        // Etherparse walks extension headers behind the fragment header of a later fragment, where there are none.
        _ => ours.fragment == Fragment::Later && !ours.is_v4(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn valid_packets(recipe in recipe(), trailing in vec(any::<u8>(), 0..8)) {
        let mut packet = recipe.build();
        let length = packet.len();
        packet.extend(trailing);
        let ours = parse(&packet).unwrap();
        prop_assert_eq!(ours.total as usize, length);
        prop_assert_eq!(ours.source(), recipe.source);
        prop_assert_eq!(ours.destination(), recipe.destination);
        prop_assert_eq!(ours.fragment, Fragment::None);
        let ports = match recipe.transport {
            Transport::Tcp { source, destination, .. }
            | Transport::Udp { source, destination }
            | Transport::UdpUnsummed { source, destination } => (source, destination),
            Transport::Echo { identifier, .. } => (identifier, identifier),
            Transport::Raw { protocol } => {
                prop_assert_eq!((ours.protocol, ours.kind), (protocol, TransportKind::Other));
                (0, 0)
            }
        };
        prop_assert_eq!((ours.source_port, ours.destination_port), ports);
        if !matches!(recipe.transport, Transport::Echo { .. }) {
            prop_assert_eq!(ours.payload_len(), recipe.payload.len());
        }
        // An IPv6 header without payload would be a jumbogram to etherparse.
        if recipe.is_v4() || length > 40 {
            assert_agree(&ours, &SlicedPacket::from_ip(&packet).unwrap(), &packet);
        }
    }

    #[test]
    fn changed_and_cut_packets(
        recipe in recipe(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..6),
        cut in proptest::option::weighted(0.3, any::<prop::sample::Index>()),
        fix in proptest::bool::weighted(0.8),
    ) {
        let mut packet = recipe.build();
        for (index, value, in_headers) in changes {
            let reach = if in_headers { packet.len().min(64) } else { packet.len() };
            packet[index.index(reach)] = value;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len() + 1));
        }
        if fix {
            fix_ipv4_checksum(&mut packet);
        }
        match (parse(&packet), SlicedPacket::from_ip(&packet)) {
            (Ok(ours), Ok(theirs)) => {
                let jumbo = !ours.is_v4() && ours.total == 40 && packet.len() > 40;
                if !jumbo {
                    assert_agree(&ours, &theirs, &packet);
                }
            }
            (Err(error), Ok(theirs)) => {
                prop_assert!(is_stricter(error, &packet, &theirs), "{error:?} but {theirs:?}");
            }
            (Ok(ours), Err(theirs)) => {
                let jumbo = !ours.is_v4() && ours.total == 40 && packet.len() > 40;
                prop_assert!(jumbo || is_laxer(&ours, &packet), "{ours:?} but {theirs:?}");
            }
            (Err(_), Err(_)) => {}
        }
    }
}

fn v6_with(extensions: &[&[u8]], first: u8, rest: &[u8]) -> Vec<u8> {
    let payload: Vec<u8> = extensions.concat().into_iter().chain(rest.iter().copied()).collect();
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet[6] = first;
    packet[7] = 64;
    packet[8] = 0x20;
    packet[24] = 0x20;
    packet.extend(payload);
    packet
}

const UDP: [u8; 8] = [0, 53, 0, 99, 0, 8, 1, 1];

fn reason(packet: &[u8]) -> ParseError {
    parse(packet).expect_err("a packet that is refused")
}

#[test]
fn every_reason_has_its_packet() {
    let good = tcp_v4(b"data");
    let changed = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        fix_ipv4_checksum(&mut packet);
        packet
    };
    assert_eq!(reason(&[]), ParseError::Empty);
    assert_eq!(reason(&good[..good.len() - 1]), ParseError::Truncated);
    assert_eq!(reason(&changed(0, 0x55)), ParseError::BadVersion);
    assert_eq!(reason(&changed(0, 0x44)), ParseError::BadHeaderLength);
    assert_eq!(reason(&changed(3, 19)), ParseError::BadTotalLength);
    let mut wrong = good.clone();
    wrong[8] ^= 1;
    assert_eq!(reason(&wrong), ParseError::BadIpv4Checksum);
    assert_eq!(reason(&changed(3, 30)), ParseError::TruncatedTransport);
    assert_eq!(reason(&changed(32, 0x40)), ParseError::BadTransportHeader);

    let none: &[u8] = &[59, 0, 1, 4, 0, 0, 0, 0];
    let more: &[u8] = &[60, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(reason(&v6_with(&[more; 9], 60, &[])), ParseError::Ipv6ExtensionTooDeep);
    assert!(parse(&v6_with(&[more, more, more, more, more, more, more, none], 60, &[])).is_ok());
    assert_eq!(reason(&v6_with(&[&[59, 1, 0, 0, 0, 0, 0, 0]], 60, &[])), ParseError::TruncatedIpv6Extension);
    assert_eq!(reason(&v6_with(&[&[0, 0, 1, 4, 0, 0, 0, 0], none], 60, &[])), ParseError::Ipv6HopByHopNotFirst);
    assert_eq!(reason(&v6_with(&[&[17, 0, 0, 0, 0, 0, 0, 0]], 43, &UDP)), ParseError::SourceRouting);
    assert_eq!(reason(&v6_with(&[&[17, 0, 4, 1, 0, 0, 0, 0]], 43, &UDP)), ParseError::SourceRouting);

    let with_options = |options: [u8; 4]| {
        let mut packet = good.clone();
        packet[0] = 0x46;
        packet[3] += 4;
        packet.splice(20..20, options);
        fix_ipv4_checksum(&mut packet);
        packet
    };
    assert_eq!(reason(&with_options([131, 3, 4, 0])), ParseError::SourceRouting);
    assert_eq!(reason(&with_options([1, 137, 3, 4])), ParseError::SourceRouting);
    assert_eq!(reason(&with_options([7, 1, 4, 0])), ParseError::BadIpv4Options);
    assert_eq!(reason(&with_options([7, 5, 4, 0])), ParseError::BadIpv4Options);
    assert!(parse(&with_options([0, 131, 131, 131])).unwrap().has_options);
}

#[test]
fn reasons_are_listed_once_and_named() {
    for (number, reason) in ParseError::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, number);
        assert!(reason.name().chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        assert_eq!(reason.to_string(), reason.text());
        assert_eq!(ParseError::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
    }
}

/// A fragment over IPv6 with the offset and the more-fragments bit in one field, as the header has them.
fn fragment_v6(protocol: u8, field: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = field.to_be_bytes();
    v6_with(&[&[protocol, 0, high, low, 1, 2, 3, 9]], 44, payload)
}

/// The same over IPv4.
fn fragment_v4(protocol: u8, field: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0, 10, 1, 0, 4, 20, 60, 1, 7];
    packet.extend(payload);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[6..8].copy_from_slice(&(field >> 3 | (field & 1) << 13).to_be_bytes());
    fix_ipv4_checksum(&mut packet);
    packet
}

#[test]
fn only_a_first_fragment_has_ports() {
    for (build, id) in [(fragment_v4 as fn(u8, u16, &[u8]) -> Vec<u8>, 0x1234), (fragment_v6, 0x0102_0309)] {
        for (field, fragment, offset, more) in [
            (0, Fragment::None, 0, false),
            (1, Fragment::First, 0, true),
            (8, Fragment::Later, 8, false),
            (9, Fragment::Later, 8, true),
            (0xffc0, Fragment::Later, 65_472, false),
        ] {
            let parsed = parse(&build(17, field, &UDP)).unwrap();
            assert_eq!((parsed.fragment, parsed.protocol, parsed.identification), (fragment, 17, id));
            assert_eq!((parsed.fragment_offset, parsed.more_fragments), (offset, more));
            let (kind, ports) = match fragment {
                Fragment::Later => (TransportKind::Fragment, (0, 0)),
                Fragment::First | Fragment::None => (TransportKind::Udp, (53, 99)),
            };
            assert_eq!((parsed.kind, (parsed.source_port, parsed.destination_port)), (kind, ports));
        }
        let mut header = tcp_v4(b"")[20..].to_vec();
        header.extend([1; 4]);
        let parsed = parse(&build(6, 1, &header)).unwrap();
        assert_eq!((parsed.fragment, parsed.source_port, parsed.destination_port), (Fragment::First, 40_000, 443));
        assert_eq!((parsed.tcp_flags(), parsed.payload_len()), (Parsed::ACK, 4));
    }
    assert_eq!(parse(&v6_with(&[], 17, &UDP)).unwrap().identification, 0);
}

#[test]
fn a_fragment_that_cuts_through_the_transport_header_is_refused() {
    let header = &tcp_v4(b"")[20..];
    for build in [fragment_v4 as fn(u8, u16, &[u8]) -> Vec<u8>, fragment_v6] {
        for cut in [0, 8, 16] {
            assert_eq!(reason(&build(6, 1, &header[..cut])), ParseError::TinyFragment);
        }
        // The data offset says 40 bytes.
        let mut long = header.to_vec();
        long[12] = 0xa0;
        long.extend([1; 12]);
        assert_eq!(reason(&build(6, 1, &long)), ParseError::TinyFragment);
        for protocol in [17, 33, 132, 136] {
            assert_eq!(reason(&build(protocol, 1, &[])), ParseError::TinyFragment);
        }
        assert_eq!(reason(&build(132, 1, &[0; 8])), ParseError::TinyFragment);
        // The second piece of a TCP header, RFC 3128; of UDP there is none.
        assert_eq!(reason(&build(6, 8, &[0; 32])), ParseError::TinyFragment);
        assert_eq!(reason(&build(6, 9, &[0; 32])), ParseError::TinyFragment);
        assert!(parse(&build(6, 24, &[0; 32])).is_ok());
        assert!(parse(&build(17, 8, &[0; 32])).is_ok());
    }
    assert_eq!(reason(&fragment_v4(1, 1, &[])), ParseError::TinyFragment);
    assert_eq!(reason(&fragment_v6(58, 1, &[])), ParseError::TinyFragment);
    // A first fragment that ends within its extension headers, RFC 7112.
    assert_eq!(reason(&fragment_v6(60, 1, &[])), ParseError::TinyFragment);
    assert_eq!(reason(&fragment_v6(60, 1, &[17, 1, 1, 4, 0, 0, 0, 0])), ParseError::TinyFragment);
    // A whole packet is not tiny but truncated.
    assert_eq!(reason(&fragment_v6(6, 0, &header[..16])), ParseError::TruncatedTransport);
    assert_eq!(reason(&fragment_v4(6, 0, &header[..16])), ParseError::TruncatedTransport);
}

#[test]
fn a_fragment_without_a_possible_place_is_refused() {
    // The largest IPv4 packet has 65,515 bytes behind its header; the largest IPv6 payload has 65,535.
    assert!(parse(&fragment_v4(17, 65_504, &[0; 11])).is_ok());
    assert_eq!(reason(&fragment_v4(17, 65_504, &[0; 12])), ParseError::MalformedFragment);
    assert!(parse(&fragment_v6(17, 65_528, &[0; 7])).is_ok());
    assert_eq!(reason(&fragment_v6(17, 65_528, &[0; 8])), ParseError::MalformedFragment);
    // Headers ahead of the fragment header are in every piece and in the whole.
    let ahead = v6_with(&[&[44, 0, 1, 4, 0, 0, 0, 0], &[17, 0, 0xff, 0xf8, 0, 0, 0, 9]], 60, &[0; 7]);
    assert_eq!(reason(&ahead), ParseError::MalformedFragment);
    for build in [fragment_v4 as fn(u8, u16, &[u8]) -> Vec<u8>, fragment_v6] {
        assert_eq!(reason(&build(17, 1, &[0; 15])), ParseError::MalformedFragment);
        assert_eq!(reason(&build(17, 65, &[0; 9])), ParseError::MalformedFragment);
        assert!(parse(&build(17, 64, &[0; 9])).is_ok());
    }
    let fragment = [44, 0, 0, 1, 0, 0, 0, 9];
    let within = v6_with(&[&fragment, &[17, 0, 0, 1, 0, 0, 0, 8]], 44, &UDP);
    assert_eq!(reason(&within), ParseError::MalformedFragment);
}

#[test]
fn protocols_with_ports_where_tcp_has_them() {
    for (protocol, length) in [(132, 12), (33, 12), (136, 8)] {
        let header = [0, 53, 0, 99, 0, 8, 1, 1, 0, 0, 0, 0];
        let parsed = parse(&v6_with(&[], protocol, &header)).unwrap();
        assert_eq!((parsed.source_port, parsed.destination_port, parsed.kind), (53, 99, TransportKind::Other));
        assert_eq!(reason(&v6_with(&[], protocol, &header[..length - 1])), ParseError::TruncatedTransport);
    }
    assert_eq!(reason(&v6_with(&[], 136, &[0, 53, 0, 99, 0, 7, 1, 1])), ParseError::BadTransportHeader);
}
