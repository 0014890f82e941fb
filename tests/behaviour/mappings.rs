//! Endpoint-independent mapping: one outside socket for each inside socket, whom it lets in, and inside hosts that talk to
//! each other through it.

use std::collections::HashSet;

use sidestep::path::{DropReason, Verdict};

use crate::bench::Bench;
use crate::packets::{Seen, Tcp, echo, fix_header, port_unreachable, udp};
use crate::site::{A1, BY_GATEWAY, Connection, GATEWAY, SERVER, Site, WEB, WEB6};

/// Another host on the internet.
const OTHER: &str = "198.51.100.81";

const INSTANCE: &str = r#"public_addresses = ["203.0.113.40"]"#;

/// Behind a NAT gateway whose mappings are endpoint-independent and let in whom `filtering` says.
fn mapped(filtering: &str) -> Bench {
    let pools = format!("{GATEWAY}mapping = \"endpoint-independent\"\nfiltering = \"{filtering}\"\n");
    Site { one: BY_GATEWAY, pools: &pools, ..Site::default() }.bench()
}

fn from_a1(port: u16, to: (&str, u16)) -> Vec<u8> {
    udp(("10.1.1.4", port), to, b"q")
}

/// The outside socket of a packet that left.
fn socket(seen: &Seen) -> (String, u16) {
    (seen.source.to_string(), seen.source_port)
}

#[test]
fn one_inside_socket_has_one_outside_socket_whoever_it_talks_to() {
    let mut bench = mapped("endpoint-independent");
    let mut seen = HashSet::new();
    for to in [(WEB, 53), (WEB, 54), (OTHER, 53), ("192.0.2.7", 9)] {
        seen.insert(socket(&bench.forward("a1", from_a1(5_000, to), "internet")));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    let mut echoes = HashSet::new();
    for to in [WEB, OTHER] {
        bench.forward_bytes("a1", echo("10.1.1.4", to, false, 77, 64), |bytes| {
            echoes.insert([bytes[24], bytes[25]]);
        });
    }
    assert_eq!(echoes.len(), 1, "the identifier of a query is a port");
    let six: HashSet<_> = [(WEB6, 53), ("2001:db8:80::81", 54)]
        .map(|to| socket(&bench.forward("a1", udp(("fd00:1:0:1::4", 5_000), to, b"q"), "internet")))
        .into();
    assert_eq!(six.len(), 1, "{six:?}");
    assert_eq!(bench.forwarder.flow_count(), 8);
    let counts = bench.pool_named("egress");
    assert_eq!(counts.flows, [0, 4, 2, 0, 0, 2, 0, 0]);
    assert_eq!(counts.mapped, [0, 1, 1, 0, 0, 1, 0, 0], "all flows of a socket have one port");
}

#[test]
fn a_mapped_port_serves_one_inside_socket_alone() {
    let pools = r#"
[[snat_pool]]
name = "narrow"
addresses = ["100.64.9.1"]
ports = "2000-2001"
mapping = "endpoint-independent"
"#;
    let one = r#"service_endpoints = [{ service = "Microsoft.Storage", source = { snat = "narrow" } }]"#;
    let mut bench = Site { one, pools, ..Site::default() }.bench();
    let ask = |port, to| udp(("10.1.1.4", port), ("20.60.1.10", to), b"q");
    let first = bench.forward("a1", ask(5_000, 443), "data").source_port;
    let second = bench.forward("a1", ask(5_001, 443), "data").source_port;
    assert_ne!(first, second);
    // Not even towards a destination that neither talks to.
    assert_eq!(bench.inject("a1", ask(5_002, 444)), Verdict::Dropped(DropReason::NoFreePort));
    assert_eq!(bench.take()[0].1.icmp, Some((3, 13)));
    assert_eq!(bench.forward("a1", ask(5_000, 444), "data").source_port, first);
    let counts = bench.pool_named("narrow");
    assert_eq!((counts.mapped[1], counts.flows[1], counts.exhausted[1]), (2, 3, 1));
    // What has ended leaves nothing.
    bench.now += 10_000_000;
    for _ in 0..3 {
        bench.expire();
        bench.now += 1_000_000;
    }
    let counts = bench.pool_named("narrow");
    assert_eq!((counts.mapped, counts.flows, counts.exhausted[1]), ([0; 8], [0; 8], 1));
}

#[test]
fn filtering_lets_in_whom_it_says() {
    // Whether the mapping lets in: the port that was talked to, another of the same host, another host.
    let modes = [
        ("endpoint-independent", [true, true, true]),
        ("address-dependent", [true, true, false]),
        ("address-and-port-dependent", [true, false, false]),
    ];
    for (filtering, admitted) in modes {
        let mut bench = mapped(filtering);
        let (public, port) = socket(&bench.forward("a1", from_a1(5_000, (WEB, 53)), "internet"));
        for (from, admitted) in [(WEB, 53), (WEB, 54), (OTHER, 53)].into_iter().zip(admitted) {
            let packet = || udp(from, (&public, port), b"hello");
            if admitted {
                let seen = bench.forward("internet", packet(), "a1");
                assert_eq!((seen.destination.to_string().as_str(), seen.destination_port), ("10.1.1.4", 5_000));
                // And the answer leaves from the same socket.
                let answer = bench.forward("a1", from_a1(5_000, from), "internet");
                assert_eq!(socket(&answer), (public.clone(), port), "{filtering}");
            } else {
                bench.dropped("internet", packet(), DropReason::NoMapping);
            }
        }
        // A port that nobody has, and a query, get in nowhere.
        let free = if port == 65_535 { 1_024 } else { port + 1 };
        bench.dropped("internet", udp((WEB, 53), (&public, free), b"x"), DropReason::NoMapping);
        bench.dropped("internet", echo(WEB, &public, false, port, 64), DropReason::NoMapping);
    }
}

#[test]
fn a_mapping_ends_with_its_last_flow() {
    let mut bench = mapped("endpoint-independent");
    let (public, port) = socket(&bench.forward("a1", from_a1(5_000, (WEB, 53)), "internet"));
    bench.now += 200_000;
    bench.forward("a1", from_a1(5_000, (OTHER, 53)), "internet");
    for wait in [100_000, 66_000] {
        bench.now += wait;
        bench.expire();
    }
    assert_eq!(bench.forwarder.flow_count(), 1, "the first has ended");
    bench.forward("internet", udp(("192.0.2.7", 1), (&public, port), b"x"), "a1");
    for wait in [241_000, 66_000] {
        bench.now += wait;
        bench.expire();
    }
    assert_eq!(bench.forwarder.flow_count(), 0);
    bench.dropped("internet", udp(("192.0.2.7", 1), (&public, port), b"x"), DropReason::NoMapping);
}

#[test]
fn protocols_are_mapped_each_by_itself() {
    let mut bench = mapped("endpoint-independent");
    let (public, port) = socket(&bench.forward("a1", from_a1(5_000, (WEB, 53)), "internet"));
    let syn = Tcp { from: (WEB, 53), to: (&public, port), ..Tcp::default() };
    bench.dropped("internet", syn.bytes(), DropReason::NoMapping);
}

#[test]
fn inside_hosts_reach_each_other_by_their_outside_sockets() {
    let mut bench = mapped("endpoint-independent");
    let one = socket(&bench.forward("a1", from_a1(5_000, (WEB, 53)), "internet"));
    let other = socket(&bench.forward("a2", udp(("10.1.1.5", 6_000), (WEB, 53), b"q"), "internet"));
    let seen = bench.forward("a1", udp(("10.1.1.4", 5_000), (&other.0, other.1), b"hello"), "a2");
    assert_eq!(socket(&seen), one, "with the outside source address and port");
    assert_eq!((seen.destination.to_string().as_str(), seen.destination_port), ("10.1.1.5", 6_000));
    let back = bench.forward("a2", udp(("10.1.1.5", 6_000), (&one.0, one.1), b"hi"), "a1");
    assert_eq!(socket(&back), other);
    assert_eq!((back.destination.to_string().as_str(), back.destination_port), ("10.1.1.4", 5_000));
}

#[test]
fn tcp_is_hairpinned_as_well() {
    let mut bench = mapped("endpoint-independent");
    let listener = Connection::open(&mut bench, A1, SERVER);
    let (public, port) = (listener.presented.0.as_str(), listener.presented.1);
    let from = ("10.1.1.5", 40_000);
    let seen = bench.forward("a2", Tcp { from, to: (public, port), ..Tcp::default() }.bytes(), "a1");
    let (source, presented) = socket(&seen);
    assert_eq!((seen.destination.to_string().as_str(), seen.destination_port), A1.socket);
    assert_ne!(source, "10.1.1.5");
    let to = (source.as_str(), presented);
    let answer = Tcp { from: A1.socket, to, flags: "SA", sequence: 9_000, acknowledgment: 1_001, ..Tcp::default() };
    let back = bench.forward("a1", answer.bytes(), "a2");
    assert_eq!(socket(&back), (public.to_owned(), port));
    assert_eq!((back.destination.to_string().as_str(), back.destination_port), from);
}

#[test]
fn an_error_about_a_hairpinned_packet_shows_outside_addresses_alone() {
    let mut bench = mapped("endpoint-independent");
    let one = socket(&bench.forward("a1", from_a1(5_000, (WEB, 53)), "internet"));
    let other = socket(&bench.forward("a2", udp(("10.1.1.5", 6_000), (WEB, 53), b"q"), "internet"));
    bench.forward("a1", udp(("10.1.1.4", 5_000), (&other.0, other.1), b"hello"), "a2");
    let received = udp((&one.0, one.1), ("10.1.1.5", 6_000), b"hello");
    let error = bench.forward("a2", port_unreachable("10.1.1.5", &one.0, &received), "a1");
    assert_eq!((error.icmp, error.source.to_string()), (Some((3, 3)), other.0.clone()));
    assert_eq!(error.destination.to_string(), "10.1.1.4");
    assert_eq!(error.payload[12..16], [10, 1, 1, 4], "what it quotes is what was sent");
    let destination: [u8; 4] = error.payload[16..20].try_into().unwrap();
    assert_eq!(std::net::Ipv4Addr::from(destination).to_string(), other.0);
    assert_eq!(error.payload[22..24], other.1.to_be_bytes());
}

#[test]
fn an_instance_address_is_reached_from_inside() {
    let mut bench = Site { a1: INSTANCE, ..Site::default() }.bench();
    for protocol in ["udp", "echo"] {
        let packet = match protocol {
            "udp" => udp(("10.1.1.5", 6_000), ("203.0.113.40", 53), b"q"),
            _ => echo("10.1.1.5", "203.0.113.40", false, 9, 64),
        };
        let seen = bench.forward("a2", packet, "a1");
        assert_eq!(
            (seen.source.to_string().as_str(), seen.destination.to_string().as_str()),
            ("203.0.113.200", "10.1.1.4")
        );
    }
    let flow = bench.flows().into_iter().find(|flow| flow.sides.protocol == 17).unwrap();
    let back = bench.forward("a1", udp(("10.1.1.4", 53), ("203.0.113.200", flow.sides.presented.1), b"a"), "a2");
    assert_eq!((back.source.to_string().as_str(), back.destination.to_string().as_str()), ("203.0.113.40", "10.1.1.5"));
}

#[test]
fn without_endpoint_independent_mapping_nobody_inside_comes_in_either() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    let (public, port) = socket(&bench.forward("a1", from_a1(5_000, (WEB, 53)), "internet"));
    bench.dropped("a2", udp(("10.1.1.5", 6_000), (&public, port), b"x"), DropReason::NoMapping);
}

#[test]
fn an_unsolicited_syn_is_answered_after_six_seconds() {
    let mut bench = mapped("address-dependent");
    let listener = Connection::open(&mut bench, A1, SERVER);
    let syn = Tcp { from: (OTHER, 443), to: (&listener.presented.0, listener.presented.1), ..Tcp::default() };
    bench.dropped("internet", syn.bytes(), DropReason::NoMapping);
    bench.now += 5_999;
    bench.expire();
    assert!(bench.take().is_empty(), "nothing is said for six seconds");
    bench.now += 1;
    bench.expire();
    let sent = bench.take();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0.as_str(), sent[0].1.icmp), ("internet", Some((3, 3))));
    assert_eq!(sent[0].1.destination.to_string(), OTHER);
}

#[test]
fn an_unsolicited_syn_is_forgotten_when_the_inside_opens_the_connection() {
    let mut bench = mapped("address-dependent");
    let listener = Connection::open(&mut bench, A1, SERVER);
    let to = (listener.presented.0.as_str(), listener.presented.1);
    let syn = Tcp { from: (OTHER, 443), to, sequence: 9_000, ..Tcp::default() };
    bench.dropped("internet", syn.bytes(), DropReason::NoMapping);
    bench.now += 3_000;
    bench.expire();
    let out = Tcp { from: A1.socket, to: (OTHER, 443), ..Tcp::default() };
    assert_eq!(socket(&bench.forward("a1", out.bytes(), "internet")), listener.presented);
    bench.now += 4_000;
    bench.expire();
    assert!(bench.take().is_empty(), "the other side is not turned away");
    bench.forward("internet", syn.bytes(), "a1");
}

#[test]
fn what_a_mapped_host_answers_has_an_identification_of_the_node() {
    let mut bench = mapped("endpoint-independent");
    let one = socket(&bench.forward("a1", from_a1(5_000, (WEB, 53)), "internet"));
    let other = socket(&bench.forward("a2", udp(("10.1.1.5", 5_000), (WEB, 53), b"q"), "internet"));
    for socket in [&one, &other] {
        let to = if *socket == one { "a1" } else { "a2" };
        bench.forward("internet", udp((OTHER, 9), (&socket.0, socket.1), b"q"), to);
    }
    let mut seen = HashSet::new();
    for _ in 0..5 {
        for (port, address) in [("a1", "10.1.1.4"), ("a2", "10.1.1.5")] {
            let mut answer = udp((address, 5_000), (OTHER, 9), b"a");
            answer[4..6].copy_from_slice(&[0, 1]);
            answer[6] = 0;
            fix_header(&mut answer);
            bench.forward_bytes(port, answer, |bytes| {
                assert!(seen.insert([bytes[4], bytes[5]]), "two hosts, one identification");
            });
        }
    }
}

#[test]
fn a_change_elsewhere_keeps_what_came_in_by_a_mapping_and_what_is_hairpinned() {
    let mut bench = mapped("endpoint-independent");
    let one = socket(&bench.forward("a1", from_a1(5_000, (WEB, 53)), "internet"));
    let other = socket(&bench.forward("a2", udp(("10.1.1.5", 6_000), (WEB, 53), b"q"), "internet"));
    bench.forward("internet", udp((OTHER, 9), (&one.0, one.1), b"hello"), "a1");
    bench.forward("a1", udp(("10.1.1.4", 5_000), (&other.0, other.1), b"hello"), "a2");
    bench.change(|network| network.services.truncate(1));
    bench.sweep();
    let report = bench.report();
    assert_eq!((report.flows_kept, report.flows_moved), (4, 0));
    bench.forward("internet", udp((OTHER, 9), (&one.0, one.1), b"again"), "a1");
    bench.forward("a2", udp(("10.1.1.5", 6_000), (&one.0, one.1), b"hi"), "a1");
}
