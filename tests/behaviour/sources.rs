//! How endpoint traffic presents itself: every source mode, in both families, for every protocol; and two networks with
//! the same addresses at one service.

use std::net::{IpAddr, Ipv6Addr};

use sidestep::path::{Answer, DropReason, Verdict};
use sidestep::plan::identity::IdentityAddress;

use crate::bench::Bench;
use crate::packets::{Seen, Tcp, echo, fix_header, mss, port_unreachable, protocol, udp, with_mss};
use crate::site::{BY_GATEWAY, End, GATEWAY, Site, WEB};

const POOL: &str = r#"
[[snat_pool]]
name = "pool"
addresses = ["100.64.9.1", "fd00:65::1"]
"#;

/// ESP: a protocol without ports.
const ESP: u8 = 50;

fn endpoint(source: &str) -> String {
    format!("service_endpoints = [{{ service = \"Microsoft.Storage\", source = {source} }}]")
}

/// A host inside and a service, of each family.
const PAIRS: [(&str, &str); 2] = [("10.1.1.4", "20.60.1.10"), ("fd00:1:0:1::4", "2603:1020:206:100::10")];

/// A packet of each protocol.
fn packets(from: &str, to: &str) -> [(&'static str, Vec<u8>); 4] {
    [
        ("TCP", Tcp { from: (from, 5_000), to: (to, 443), ..Tcp::default() }.bytes()),
        ("UDP", udp((from, 5_000), (to, 443), b"q")),
        ("echo", echo(from, to, false, 77, 64)),
        ("ESP", protocol(from, to, ESP, b"12345678")),
    ]
}

/// The reply to a packet of a protocol, from the service to the source and port that it saw.
fn reply(name: &str, service: &str, presented: (&str, u16)) -> Vec<u8> {
    match name {
        "TCP" => {
            let (from, to) = ((service, 443), presented);
            Tcp { from, to, flags: "SA", sequence: 9_000, acknowledgment: 1_001, ..Tcp::default() }.bytes()
        }
        "UDP" => udp((service, 443), presented, b"a"),
        "echo" => echo(service, presented.0, true, presented.1, 64),
        _ => protocol(service, presented.0, ESP, b"abcdefgh"),
    }
}

/// Sends a packet of every protocol and family, checks the source that the service sees, and that the reply is back with
/// the addresses and ports that its receiver knows.
fn presents(bench: &mut Bench, from: &str, sources: [&str; 2]) {
    for ((inside, service), source) in PAIRS.into_iter().zip(sources) {
        for (name, packet) in packets(inside, service) {
            let seen = bench.forward(from, packet, "data");
            assert_eq!(seen.source.to_string(), source, "{name}");
            let flow = bench.flows().into_iter().last().unwrap();
            assert_eq!(flow.sides.presented.0, seen.source, "{name}");
            let newest = newest(bench, seen.protocol, seen.source);
            let back = bench.forward("data", reply(name, service, (source, newest)), from);
            assert_eq!(back.destination.to_string(), inside, "{name}");
            if matches!(name, "TCP" | "UDP") {
                assert_eq!((back.source_port, back.destination_port), (443, 5_000), "{name}");
            }
        }
    }
}

/// The port that the service saw in the one flow of a protocol from a source.
fn newest(bench: &Bench, protocol: u8, source: IpAddr) -> u16 {
    let flows = bench.flows();
    let mut flows = flows.iter().filter(|flow| flow.sides.protocol == protocol && flow.sides.presented.0 == source);
    let port = flows.next().unwrap().sides.presented.1;
    assert_eq!(flows.count(), 0, "one flow of each protocol");
    port
}

#[test]
fn private_shows_the_private_address() {
    let mut bench = Site { one: &endpoint("\"private\""), ..Site::default() }.bench();
    presents(&mut bench, "a1", ["10.1.1.4", "fd00:1:0:1::4"]);
}

#[test]
fn prefix_map_shows_the_mapped_address_and_the_same_port() {
    let one = endpoint(r#"{ prefix_map = ["100.64.8.0/24", "fd00:64:0:1::/64"] }"#);
    let mut bench = Site { one: &one, ..Site::default() }.bench();
    presents(&mut bench, "a1", ["100.64.8.4", "fd00:64:0:1::4"]);
    assert!(bench.flows().iter().all(|flow| flow.sides.presented.1 == flow.sides.source.1), "ports stay");
}

#[test]
fn snat_shows_an_address_and_port_of_the_pool() {
    let one = endpoint(r#"{ snat = "pool" }"#);
    let mut bench = Site { one: &one, pools: POOL, ..Site::default() }.bench();
    presents(&mut bench, "a1", ["100.64.9.1", "fd00:65::1"]);
    for flow in bench.flows() {
        assert!(flow.sides.protocol == ESP || flow.sides.presented.1 >= 1_024, "{flow:?}");
    }
}

/// The parts of the address that a service sees.
fn identity(source: IpAddr) -> IdentityAddress {
    match source {
        IpAddr::V6(v6) => v6.into(),
        IpAddr::V4(v4) => panic!("{v4} carries no identity"),
    }
}

#[test]
fn identity6_shows_who_sends_and_from_which_private_address() {
    let one = format!("traffic_tag = 3\n{}", endpoint("\"identity6\""));
    let mut bench = Site { one: &one, ..Site::default() }.bench();
    let service: IpAddr = "2603:1020:206:100::10".parse().unwrap();
    for (name, packet) in packets("10.1.1.4", "20.60.1.10").into_iter().take(3) {
        let seen = bench.forward("a1", packet, "data");
        let who = identity(seen.source);
        assert_eq!((who.region, who.subnet_tag, who.private.to_string().as_str()), (18, 3, "10.1.1.4"), "{name}");
        assert_eq!(who.network_tag >> 24, 18);
        assert_eq!(seen.destination, service, "the service's own address, where it has one");
        let source = seen.source.to_string();
        let port = newest(&bench, seen_protocol(name), seen.source);
        let back = bench.forward("data", reply(name, "2603:1020:206:100::10", (&source, port)), "a1");
        assert_eq!(
            (back.source.to_string().as_str(), back.destination.to_string().as_str()),
            ("20.60.1.10", "10.1.1.4")
        );
    }
}

/// The protocol number that the first packet of a flow had.
fn seen_protocol(name: &str) -> u8 {
    match name {
        "TCP" => 6,
        "UDP" => 17,
        _ => 1,
    }
}

#[test]
fn identity6_embeds_the_address_of_a_service_that_has_none_of_ipv6() {
    let mut bench = Site { one: &endpoint("\"identity6\""), ..Site::default() }.bench();
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), ("20.60.1.11", 443), b"q"), "archive");
    let embedded: Ipv6Addr = "64:ff9b::20.60.1.11".parse().unwrap();
    assert_eq!(seen.destination, IpAddr::V6(embedded));
    let (service, source) = (embedded.to_string(), seen.source.to_string());
    let back = bench.forward("archive", udp((&service, 443), (&source, 5_000), b"a"), "a1");
    assert_eq!(back.source.to_string(), "20.60.1.11");
    assert_eq!(back.payload, b"a");
}

#[test]
fn an_error_about_an_identity6_packet_comes_back_in_ipv4() {
    let mut bench = Site { one: &endpoint("\"identity6\""), ..Site::default() }.bench();
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"query"), "data");
    let (source, service) = (seen.source.to_string(), seen.destination.to_string());
    let quoted = udp((&source, 5_000), (&service, 443), b"query");
    let back = bench.forward("data", port_unreachable(&service, &source, &quoted), "a1");
    assert_eq!((back.icmp, back.source.to_string().as_str()), (Some((3, 3)), "20.60.1.10"));
    assert_eq!((&back.payload[12..16], &back.payload[16..20]), (&[10, 1, 1, 4][..], &[20, 60, 1, 10][..]));
}

/// Every protocol of a family is denied, and nothing leaves.
#[track_caller]
fn denied(bench: &mut Bench, port: &str, from: &str, to: &str) {
    for (_, packet) in packets(from, to) {
        bench.dropped(port, packet, DropReason::NoSourceAddress);
    }
    assert!(bench.flows().is_empty());
}

#[test]
fn a_policy_without_an_address_for_the_source_denies() {
    let [(_, service), (inside6, service6)] = PAIRS;
    // A map of the IPv4 prefix alone says nothing about IPv6.
    let mut bench = Site { one: &endpoint(r#"{ prefix_map = "100.64.8.0/24" }"#), ..Site::default() }.bench();
    denied(&mut bench, "a1", inside6, service6);
    // What an appliance forwards is in no prefix of its subnet.
    denied(&mut bench, "a2", "10.9.9.9", service);
    // A pool without an address of the family.
    let four = POOL.replace(", \"fd00:65::1\"", "");
    let one = endpoint(r#"{ snat = "pool" }"#);
    let mut bench = Site { one: &one, pools: &four, ..Site::default() }.bench();
    denied(&mut bench, "a1", inside6, service6);
    let six = POOL.replace("\"100.64.9.1\", ", "");
    let mut bench = Site { one: &one, pools: &six, ..Site::default() }.bench();
    denied(&mut bench, "a1", "10.1.1.4", service);
    // There is no room for an IPv6 address beside the identity.
    let mut bench = Site { one: &endpoint("\"identity6\""), ..Site::default() }.bench();
    denied(&mut bench, "a1", inside6, service6);
}

#[test]
fn what_identity6_cannot_carry_is_dropped_by_name() {
    let mut bench = Site { one: &endpoint("\"identity6\""), ..Site::default() }.bench();
    let flows = bench.flows().len();
    bench.dropped("a1", protocol("10.1.1.4", "20.60.1.10", ESP, b"12345678"), DropReason::Untranslatable);
    assert_eq!(bench.flows().len(), flows, "what has no other form begins no flow");
}

#[test]
fn endpoint_traffic_takes_no_port_of_the_nat_gateway() {
    let one = format!("{BY_GATEWAY}\n{}", endpoint("\"private\""));
    let mut bench = Site { one: &one, pools: GATEWAY, ..Site::default() }.bench();
    presents(&mut bench, "a1", ["10.1.1.4", "fd00:1:0:1::4"]);
    assert!(bench.flows().iter().all(|flow| flow.state.pool().is_none()));
}

/// The same packet from both networks.
fn both(bench: &mut Bench) -> (Seen, Seen) {
    let packet = || udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"q");
    (bench.forward("a1", packet(), "data"), bench.forward("b1", packet(), "data"))
}

/// The replies to two packets of one tuple each find their own network.
fn replies_find_their_network(bench: &mut Bench, first: &Seen, second: &Seen) {
    assert_ne!((first.source, first.source_port), (second.source, second.source_port));
    for (seen, port) in [(first, "a1"), (second, "b1")] {
        let (service, source) = (seen.destination.to_string(), seen.source.to_string());
        let back = bench.forward("data", udp((&service, 443), (&source, seen.source_port), b"a"), port);
        assert_eq!((back.destination.to_string().as_str(), back.destination_port), ("10.1.1.4", 5_000));
    }
}

#[test]
fn two_networks_with_one_tuple_use_a_service_in_every_mode_that_tells_them_apart() {
    let maps = (endpoint(r#"{ prefix_map = "100.64.8.0/24" }"#), endpoint(r#"{ prefix_map = "100.64.9.0/24" }"#));
    let snat = || endpoint(r#"{ snat = "pool" }"#);
    let identity = || endpoint("\"identity6\"");
    for ((one, two), pools) in [(maps, ""), ((snat(), snat()), POOL), ((identity(), identity()), "")] {
        let mut bench = Site { one: &one, two: &two, pools, ..Site::default() }.bench();
        let (first, second) = both(&mut bench);
        replies_find_their_network(&mut bench, &first, &second);
    }
}

#[test]
fn two_networks_with_one_tuple_are_refused_by_name_where_they_cannot_be_told_apart() {
    let private = endpoint("\"private\"");
    let mut bench = Site { one: &private, two: &private, ..Site::default() }.bench();
    let packet = |port| udp(("10.1.1.4", port), ("20.60.1.10", 443), b"q");
    bench.forward("a1", packet(5_000), "data");
    bench.dropped("b1", packet(5_000), DropReason::FlowConflict);
    // The first flow goes on, and so does another tuple of the second network.
    bench.forward("data", udp(("20.60.1.10", 443), ("10.1.1.4", 5_000), b"a"), "a1");
    bench.forward("b1", packet(5_001), "data");
    bench.forward("data", udp(("20.60.1.10", 443), ("10.1.1.4", 5_001), b"a"), "b1");
}

#[test]
fn a_policy_that_is_changed_moves_flows_to_the_new_source() {
    let mut bench = Site { one: &endpoint("\"private\""), ..Site::default() }.bench();
    let packet = || udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"q");
    assert_eq!(bench.forward("a1", packet(), "data").source.to_string(), "10.1.1.4");
    bench.change(|network| {
        let source = sidestep::model::network::EndpointSource::Identity6;
        network.virtual_networks[0].subnets[0].service_endpoints[0].source = source;
    });
    let seen = bench.forward("a1", packet(), "data");
    assert_eq!(identity(seen.source).private.to_string(), "10.1.1.4");
    let late = bench.inject("data", udp(("20.60.1.10", 443), ("10.1.1.4", 5_000), b"late"));
    assert!(matches!(late, Verdict::Dropped(_)), "nothing comes in by the old path: {late:?}");
    assert!(bench.take().is_empty());
}

/// The modes whose sources differ from the private address, with what they need.
fn modes() -> [(String, &'static str); 3] {
    let map = endpoint(r#"{ prefix_map = ["100.64.8.0/24", "fd00:64:0:1::/64"] }"#);
    [(map, ""), (endpoint(r#"{ snat = "pool" }"#), POOL), (endpoint("\"identity6\""), "")]
}

#[test]
fn errors_find_the_sender_in_every_mode() {
    for (one, pools) in modes() {
        let mut bench = Site { one: &one, pools, ..Site::default() }.bench();
        let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"query"), "data");
        let (source, service) = (seen.source.to_string(), seen.destination.to_string());
        let quoted = udp((&source, seen.source_port), (&service, 443), b"query");
        let back = bench.forward("data", port_unreachable(&service, &source, &quoted), "a1");
        assert_eq!((back.icmp, back.destination.to_string().as_str()), (Some((3, 3)), "10.1.1.4"), "{one}");
        assert_eq!((&back.payload[12..16], &back.payload[16..20]), (&[10, 1, 1, 4][..], &[20, 60, 1, 10][..]), "{one}");
        assert_eq!(back.payload[20..22], 5_000_u16.to_be_bytes(), "{one}");
    }
}

#[test]
fn a_policy_that_is_changed_resets_connections_by_the_addresses_that_each_end_knows() {
    for (one, pools) in modes() {
        let mut bench = Site { one: &one, pools, ..Site::default() }.bench();
        let inside = End { port: "a1", socket: ("10.1.1.4", 40_000) };
        let syn = Tcp { from: inside.socket, to: ("20.60.1.10", 443), ..Tcp::default() };
        let seen = bench.forward("a1", syn.bytes(), "data");
        let (source, service) = (seen.source.to_string(), seen.destination.to_string());
        let (from, to) = ((service.as_str(), 443), (source.as_str(), seen.source_port));
        let answer = Tcp { from, to, flags: "SA", sequence: 9_000, acknowledgment: 1_001, ..Tcp::default() };
        bench.forward("data", answer.bytes(), "a1");
        bench.forward("a1", Tcp { flags: "A", sequence: 1_001, acknowledgment: 9_001, ..syn }.bytes(), "data");
        bench.change(|network| {
            let source = sidestep::model::network::EndpointSource::Private;
            network.virtual_networks[0].subnets[0].service_endpoints[0].source = source;
        });
        bench.sweep();
        let sent = bench.take();
        assert_eq!(sent.len(), 2, "{one}");
        for (port, reset) in sent {
            let numbers = reset.tcp.as_ref().map(|tcp| (tcp.reset, tcp.sequence));
            let ends = (reset.source.to_string(), reset.destination.to_string());
            if port == "a1" {
                assert_eq!((numbers, reset.destination_port), (Some((true, 9_001)), 40_000), "{one}");
                assert_eq!(ends, ("20.60.1.10".to_owned(), "10.1.1.4".to_owned()), "{one}");
            } else {
                assert_eq!((numbers, reset.destination_port), (Some((true, 1_001)), 443), "{one}");
                assert_eq!(ends, (source.clone(), service.clone()), "{one}");
            }
        }
        // What the service still sends is answered with a reset of its own family.
        let late = Tcp { from, to, flags: "A", sequence: 9_001, acknowledgment: 1_001, ..Tcp::default() };
        let sent = bench.answered("data", late.bytes(), Answer::Reset);
        assert_eq!((sent.len(), sent[0].0.as_str(), sent[0].1.source.to_string()), (1, "data", source), "{one}");
        // And a new connection shows the private address.
        let again = Tcp { from: ("10.1.1.4", 40_001), ..syn };
        assert_eq!(bench.forward("a1", again.bytes(), "data").source.to_string(), "10.1.1.4");
    }
}

#[test]
fn what_identity6_makes_too_large_is_answered_or_cut() {
    let mut bench = Site { one: &endpoint("\"identity6\""), ..Site::default() }.bench();
    let large = |dont_fragment: bool| {
        let mut packet = udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), &[7; 1_472]);
        packet[6] = if dont_fragment { 0x40 } else { 0 };
        fix_header(&mut packet);
        packet
    };
    assert_eq!(bench.inject("a1", large(true)), Verdict::Answered(Answer::PacketTooBig));
    let error = bench.sent.packets.remove(0).1;
    assert_eq!((error[20], error[21]), (3, 4));
    assert_eq!(error[26..28], 1_480_u16.to_be_bytes(), "20 bytes are for the larger header");
    assert_eq!(bench.inject("a1", large(false)), Verdict::Forwarded(bench.port("data")));
    let sent = std::mem::take(&mut bench.sent.packets);
    assert_eq!(sent.len(), 2, "two IPv6 fragments");
    for (_, bytes, _) in sent {
        assert_eq!((bytes[0] >> 4, bytes[6]), (6, 44));
        assert!(bytes.len() <= 1_500);
    }
}

#[test]
fn an_identity6_syn_is_told_the_segment_size_of_ipv6() {
    let mut bench = Site { one: &endpoint("\"identity6\""), ..Site::default() }.bench();
    let syn = Tcp { from: ("10.1.1.4", 40_000), to: ("20.60.1.10", 443), ..Tcp::default() };
    bench.forward_bytes("a1", with_mss(syn, 1_460), |bytes| assert_eq!(mss(bytes), Some(1_440)));
    let sides = bench.flows()[0].sides;
    let (source, service) = (sides.presented.0.to_string(), sides.reached.0.to_string());
    let (from, to) = ((service.as_str(), 443), (source.as_str(), 40_000));
    let answer = Tcp { from, to, flags: "SA", sequence: 9_000, acknowledgment: 1_001, ..Tcp::default() };
    bench.forward_bytes("data", with_mss(answer, 1_440), |bytes| assert_eq!(mss(bytes), Some(1_440)));
}

#[test]
fn a_hop_limit_ends_before_an_identity6_packet_crosses() {
    let mut bench = Site { one: &endpoint("\"identity6\""), ..Site::default() }.bench();
    let mut probe = udp(("10.1.1.4", 5_000), ("20.60.1.10", 33_434), b"probe");
    probe[8] = 1;
    fix_header(&mut probe);
    let sent = bench.answered("a1", probe, Answer::TimeExceeded);
    assert_eq!((sent[0].0.as_str(), sent[0].1.source.to_string().as_str()), ("a1", "10.1.1.1"));
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"q"), "data");
    assert_eq!(seen.hop_limit, 63);
}

#[test]
fn two_networks_with_one_tuple_share_default_outbound_access() {
    let mut bench = Site::default().bench();
    let packet = || udp(("10.1.1.4", 5_000), (WEB, 53), b"q");
    let first = bench.forward("a1", packet(), "internet");
    let second = bench.forward("b1", packet(), "internet");
    assert_ne!(first.source_port, second.source_port);
    for (seen, port) in [(first, "a1"), (second, "b1")] {
        bench.forward("internet", udp((WEB, 53), ("203.0.113.200", seen.source_port), b"a"), port);
    }
}
