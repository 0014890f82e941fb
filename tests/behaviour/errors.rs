//! ICMP errors through translation: what they quote is translated, what they say stays, and nothing ends by them.

use std::net::Ipv4Addr;

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
use sidestep::path::{DropReason, Verdict};

use crate::bench::Bench;
use crate::packets::{Tcp, decode, echo, fix_header, port_unreachable, udp};
use crate::site::{A1, BY_GATEWAY, Connection, GATEWAY, SERVER, Site, WEB, WEB6};

/// A router on the way, in both families.
const ROUTER: &str = "192.0.2.1";
const ROUTER6: &str = "2001:db8:77::1";

fn nat() -> Bench {
    Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench()
}

fn error_v4(from: &str, to: &str, kind: Icmpv4Type, quoted: &[u8]) -> Vec<u8> {
    let [from, to] = [from, to].map(|address| address.parse::<Ipv4Addr>().unwrap().octets());
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(from, to, 64).icmpv4(kind).write(&mut bytes, quoted).unwrap();
    bytes
}

fn error_v6(from: &str, to: &str, kind: Icmpv6Type, quoted: &[u8]) -> Vec<u8> {
    let [from, to] = [from, to].map(|address| address.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let mut bytes = Vec::new();
    PacketBuilder::ipv6(from, to, 64).icmpv6(kind).write(&mut bytes, quoted).unwrap();
    bytes
}

#[test]
fn an_error_keeps_its_type_and_code_and_what_it_says() {
    use icmpv4::DestUnreachableHeader::{FragmentationNeeded, Host, Port};
    let mut bench = nat();
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"query"), "internet");
    let public = seen.source.to_string();
    let quoted = udp((&public, seen.source_port), (WEB, 53), b"query");
    let kinds = [
        (Icmpv4Type::DestinationUnreachable(Host), (3, 1)),
        (Icmpv4Type::DestinationUnreachable(Port), (3, 3)),
        (Icmpv4Type::DestinationUnreachable(FragmentationNeeded { next_hop_mtu: 1_280 }), (3, 4)),
        (Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit), (11, 0)),
    ];
    for (kind, code) in kinds {
        bench.forward_bytes("internet", error_v4(ROUTER, &public, kind, &quoted), |bytes| {
            let back = decode(bytes);
            assert_eq!((back.icmp, back.source.to_string().as_str()), (Some(code), ROUTER));
            assert_eq!(back.destination.to_string(), "10.1.1.4");
            let inner = decode(&back.payload);
            assert_eq!((inner.source.to_string().as_str(), inner.source_port), ("10.1.1.4", 5_000));
            assert_eq!((inner.destination.to_string().as_str(), inner.destination_port), (WEB, 53));
            let mtu = if code == (3, 4) { 1_280_u16 } else { 0 };
            assert_eq!(bytes[26..28], mtu.to_be_bytes(), "the MTU that fits stays");
        });
    }
}

#[test]
fn an_error_of_ipv6_is_translated_as_well() {
    let mut bench = nat();
    let seen = bench.forward("a1", udp(("fd00:1:0:1::4", 5_000), (WEB6, 53), b"query"), "internet");
    let public = seen.source.to_string();
    let quoted = udp((&public, seen.source_port), (WEB6, 53), b"query");
    let kinds = [
        (Icmpv6Type::PacketTooBig { mtu: 1_280 }, (2, 0)),
        (Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded), (3, 0)),
        (Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port), (1, 4)),
    ];
    for (kind, code) in kinds {
        let back = bench.forward("internet", error_v6(ROUTER6, &public, kind, &quoted), "a1");
        assert_eq!((back.icmp, back.source.to_string().as_str()), (Some(code), ROUTER6));
        let inner = decode(&back.payload);
        assert_eq!((inner.source.to_string().as_str(), inner.source_port), ("fd00:1:0:1::4", 5_000));
    }
}

#[test]
fn an_error_about_a_query_and_about_tcp_finds_its_sender() {
    let mut bench = nat();
    bench.forward("a1", echo("10.1.1.4", WEB, false, 77, 64), "internet");
    let presented = bench.flows()[0].sides.presented;
    let public = presented.0.to_string();
    let back =
        bench.forward("internet", port_unreachable(ROUTER, &public, &echo(&public, WEB, false, presented.1, 64)), "a1");
    assert_eq!(back.payload[24..26], 77_u16.to_be_bytes(), "the identifier that the host chose");
    let connection = Connection::open(&mut bench, A1, SERVER);
    let (public, port) = (connection.presented.0.as_str(), connection.presented.1);
    let quoted = Tcp { from: (public, port), to: SERVER.socket, flags: "A", ..Tcp::default() }.bytes();
    let back = bench.forward("internet", port_unreachable(WEB, public, &quoted), "a1");
    assert_eq!(back.payload[20..22], 40_000_u16.to_be_bytes());
    assert_eq!(bench.flows().iter().filter(|flow| flow.state.phase.name() == "established").count(), 1);
}

#[test]
fn an_error_that_quotes_a_packet_with_options_is_translated() {
    let mut bench = nat();
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"query"), "internet");
    let public = seen.source.to_string();
    let plain = udp((&public, seen.source_port), (WEB, 53), b"query");
    // Record route, as a router on the way may have found it.
    let mut quoted = plain[..20].to_vec();
    quoted.extend([7, 7, 4, 0, 0, 0, 0, 0]);
    quoted.extend(&plain[20..]);
    quoted[0] = 0x47;
    let total = quoted.len() as u16;
    quoted[2..4].copy_from_slice(&total.to_be_bytes());
    fix_long_header(&mut quoted, 28);
    let kind = Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit);
    let back = bench.forward("internet", error_v4(ROUTER, &public, kind, &quoted), "a1");
    let inner = decode(&back.payload);
    assert_eq!((inner.source.to_string().as_str(), inner.source_port), ("10.1.1.4", 5_000));
    assert_eq!(back.payload[20..28], [7, 7, 4, 0, 0, 0, 0, 0], "the options stay");
}

/// Makes the checksum of a header of any length right.
fn fix_long_header(packet: &mut [u8], length: usize) {
    packet[10..12].fill(0);
    let sum: u32 = packet[..length].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn an_error_from_inside_shows_no_inside_address() {
    let mut bench = nat();
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    let public = seen.source.to_string();
    bench.forward("internet", udp((WEB, 53), (&public, seen.source_port), b"answer"), "a1");
    let received = udp((WEB, 53), ("10.1.1.4", 5_000), b"answer");
    let out = bench.forward("a1", port_unreachable("10.1.1.4", WEB, &received), "internet");
    assert_eq!((out.icmp, out.source.to_string()), (Some((3, 3)), public.clone()));
    let public: Ipv4Addr = public.parse().unwrap();
    assert_eq!(out.payload[16..20], public.octets());
    assert_eq!(out.payload[22..24], seen.source_port.to_be_bytes());
}

#[test]
fn an_error_about_nothing_that_was_sent_is_dropped_by_name() {
    let mut bench = nat();
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    let public = seen.source.to_string();
    let never = udp((&public, seen.source_port), (WEB, 54), b"q");
    bench.dropped("internet", port_unreachable(ROUTER, &public, &never), DropReason::IcmpErrorWithoutFlow);
    // Addressed to another than the sender of what it quotes.
    let sent = udp((&public, seen.source_port), (WEB, 53), b"q");
    bench.dropped("internet", port_unreachable(ROUTER, "203.0.113.200", &sent), DropReason::IcmpErrorMalformed);
    let short =
        error_v4(ROUTER, &public, Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host), &sent[..22]);
    bench.dropped("internet", short, DropReason::IcmpErrorMalformed);
}

#[test]
fn an_error_about_an_error_is_not_about_a_query() {
    let mut bench = nat();
    // An error has zeros where a query has its identifier.
    bench.forward("a1", echo("10.1.1.4", WEB, false, 0, 64), "internet");
    let received = port_unreachable(WEB, "10.1.1.4", &udp(("10.1.1.4", 5_000), (WEB, 53), b"q"));
    bench.dropped("a1", port_unreachable("10.1.1.4", WEB, &received), DropReason::IcmpErrorWithoutFlow);
}

#[test]
fn an_error_with_a_wrong_checksum_stays_wrong() {
    let mut bench = nat();
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    let public = seen.source.to_string();
    let mut error = port_unreachable(ROUTER, &public, &udp((&public, seen.source_port), (WEB, 53), b"q"));
    let (high, low) = (error[22], error[23]);
    error[22] ^= 0x55;
    assert!(matches!(bench.inject("internet", error), Verdict::Forwarded(_)));
    let wrong = bench.sent.packets.remove(0).1;
    assert!(!is_right(&wrong), "the receiver drops it");
    let mut right = port_unreachable(ROUTER, &public, &udp((&public, seen.source_port), (WEB, 53), b"q"));
    (right[22], right[23]) = (high, low);
    assert!(matches!(bench.inject("internet", right), Verdict::Forwarded(_)));
    assert!(is_right(&bench.sent.packets.remove(0).1));
}

/// Whether the ICMP checksum of an IPv4 packet without options is right.
fn is_right(packet: &[u8]) -> bool {
    let pairs = packet[20..].chunks(2).map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0)]);
    let sum: u32 = pairs.map(|pair| u32::from(u16::from_be_bytes(pair))).sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

#[test]
fn a_flood_of_errors_ends_no_mapping() {
    let mut bench = nat();
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    let public = seen.source.to_string();
    let quoted = udp((&public, seen.source_port), (WEB, 53), b"q");
    for _ in 0..2_000 {
        bench.forward("internet", port_unreachable(WEB, &public, &quoted), "a1");
    }
    let again = bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    assert_eq!((again.source, again.source_port), (seen.source, seen.source_port));
    bench.forward("internet", udp((WEB, 53), (&public, seen.source_port), b"a"), "a1");
    assert_eq!(bench.report().flows_created, 1);
}

#[test]
fn an_error_after_the_flow_has_ended_reaches_nobody() {
    let mut bench = nat();
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    let public = seen.source.to_string();
    let error = || port_unreachable(WEB, &public, &udp((&public, seen.source_port), (WEB, 53), b"q"));
    bench.now += 241_000;
    bench.expire();
    bench.dropped("internet", error(), DropReason::PortResting);
    bench.now += 66_000;
    bench.expire();
    bench.dropped("internet", error(), DropReason::IcmpErrorWithoutFlow);
}

#[test]
fn a_probe_that_ends_at_the_node_takes_no_port() {
    let mut bench = nat();
    let mut probe = udp(("10.1.1.4", 5_000), (WEB, 33_434), b"probe");
    probe[8] = 1;
    fix_header(&mut probe);
    let sent = bench.answered("a1", probe, sidestep::path::Answer::TimeExceeded);
    assert_eq!((sent[0].0.as_str(), sent[0].1.source.to_string().as_str()), ("a1", "10.1.1.1"));
    assert!(bench.flows().is_empty());
}
