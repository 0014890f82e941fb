//! Internet egress: which public source traffic gets, and which ports.

use std::collections::HashSet;
use std::net::IpAddr;

use sidestep::path::{DropReason, Verdict};

use crate::bench::Bench;
use crate::packets::{Tcp, echo, fix_header, protocol, udp};
use crate::site::{A1, BY_GATEWAY, Connection, End, GATEWAY, SERVER, Site, WEB, WEB6};

const INSTANCE: &str = r#"public_addresses = ["203.0.113.40", "2001:db8:ffff::40"]"#;

/// A pool of few ports, and who uses it.
const NARROW: &str = r#"
[[snat_pool]]
name = "narrow"
addresses = ["100.64.9.1"]
ports = "2000-2003"
"#;
const BY_NARROW: &str = r#"service_endpoints = [{ service = "Microsoft.Storage", source = { snat = "narrow" } }]"#;
const SERVICE: (&str, u16) = ("20.60.1.10", 443);

fn ask(port: u16) -> Vec<u8> {
    udp(("10.1.1.4", port), (WEB, 53), b"q")
}

fn source(bench: &mut Bench, packet: Vec<u8>) -> String {
    bench.forward("a1", packet, "internet").source.to_string()
}

#[test]
fn the_nat_gateway_is_before_the_instance_address_and_that_before_default_access() {
    let site = Site { one: BY_GATEWAY, a1: INSTANCE, pools: GATEWAY, ..Site::default() };
    let gateway = ["203.0.113.30", "203.0.113.31"];
    let mut bench = site.bench();
    assert!(gateway.contains(&source(&mut bench, ask(1)).as_str()));
    let six = || udp(("fd00:1:0:1::4", 1), (WEB6, 53), b"q");
    assert_eq!(source(&mut bench, six()), "2001:db8:ffff::30");
    let mut bench = Site { one: "", ..site }.bench();
    assert_eq!(source(&mut bench, ask(1)), "203.0.113.40");
    assert_eq!(source(&mut bench, six()), "2001:db8:ffff::40");
    let mut bench = Site { one: "", a1: "", ..site }.bench();
    assert_eq!(source(&mut bench, ask(1)), "203.0.113.200");
    assert_eq!(source(&mut bench, six()), "2001:db8:ffff::200");
}

#[test]
fn a_method_without_an_address_of_the_family_is_passed_over() {
    let four = GATEWAY.replace(", \"2001:db8:ffff::30\"", "");
    let mut bench = Site { one: BY_GATEWAY, a1: INSTANCE, pools: &four, ..Site::default() }.bench();
    assert_eq!(source(&mut bench, udp(("fd00:1:0:1::4", 1), (WEB6, 53), b"q")), "2001:db8:ffff::40");
}

#[test]
fn a_private_subnet_has_no_way_out() {
    let mut bench = Site { one: "default_outbound_access = false", ..Site::default() }.bench();
    for (from, to) in [("10.1.1.4", WEB), ("fd00:1:0:1::4", WEB6)] {
        bench.dropped(
            "a1",
            Tcp { from: (from, 1), to: (to, 443), ..Tcp::default() }.bytes(),
            DropReason::NoOutboundAddress,
        );
        bench.dropped("a1", udp((from, 1), (to, 53), b"q"), DropReason::NoOutboundAddress);
        bench.dropped("a1", echo(from, to, false, 1, 64), DropReason::NoOutboundAddress);
        bench.dropped("a1", protocol(from, to, 50, b"12345678"), DropReason::NoOutboundAddress);
    }
    // A NAT gateway or an address of its own is one.
    let one = format!("default_outbound_access = false\n{BY_GATEWAY}");
    let mut bench = Site { one: &one, pools: GATEWAY, ..Site::default() }.bench();
    assert!(source(&mut bench, ask(1)).starts_with("203.0.113.3"));
    let mut bench = Site { one: "default_outbound_access = false", a1: INSTANCE, ..Site::default() }.bench();
    assert_eq!(source(&mut bench, ask(1)), "203.0.113.40");
    // And endpoints work without any.
    let one = "default_outbound_access = false\nservice_endpoints = [{ service = \"Microsoft.Storage\" }]";
    let mut bench = Site { one, ..Site::default() }.bench();
    bench.forward("a1", udp(("10.1.1.4", 1), SERVICE, b"q"), "data");
}

#[test]
fn a_route_to_an_appliance_is_before_every_way_to_the_internet() {
    let pools = format!(
        r#"{GATEWAY}
[[route_table]]
name = "inspect"
routes = [
  {{ name = "web", address_prefix = "198.51.100.0/24", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.1.2.4" }},
]
"#
    );
    let one = format!("{BY_GATEWAY}\nroute_table = \"inspect\"");
    let site = Site { one: &one, a1: INSTANCE, pools: &pools, ..Site::default() };
    // The appliance is in a subnet of its own.
    let subnet = "  [[virtual_network.subnet]]\n  name = \"appliances\"\n  address_prefixes = [\"10.1.2.0/24\"]\n";
    let document = site.document().replacen(
        "[[virtual_network]]\nname = \"two\"",
        &format!("{subnet}[[virtual_network]]\nname = \"two\""),
        1,
    );
    let document = document
        .replace("name = \"a2\"\nsubnet = \"one/work\"", "name = \"a2\"\nsubnet = \"one/appliances\"")
        .replace("[\"10.1.1.5\", \"fd00:1:0:1::5\"]", "[\"10.1.2.4\"]");
    let mut bench = Bench::with(&document);
    let seen = bench.forward("a1", ask(1), "a2");
    assert_eq!((seen.source.to_string().as_str(), seen.source_port), ("10.1.1.4", 1), "the appliance sees who sends");
    // What is not routed there leaves by the NAT gateway.
    assert!(source(&mut bench, udp(("10.1.1.4", 1), ("192.0.2.9", 53), b"q")).starts_with("203.0.113.3"));
}

#[test]
fn open_flows_keep_their_source_when_a_nat_gateway_is_added_and_new_ones_take_it() {
    let mut bench = Site { pools: GATEWAY, ..Site::default() }.bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    let asked = bench.forward("a1", ask(5_000), "internet");
    assert_eq!(connection.presented.0, "203.0.113.200");
    bench.change(|network| network.virtual_networks[0].subnets[0].nat_gateway = Some(0));
    bench.sweep();
    assert!(bench.take().is_empty(), "nobody is reset");
    let seen = bench.forward("a1", connection.out("PA", 1_001, 9_001), "internet");
    assert_eq!((seen.source.to_string(), seen.source_port), connection.presented);
    bench.forward("internet", connection.back("A", 9_001, 1_001), "a1");
    let again = bench.forward("a1", ask(5_000), "internet");
    assert_eq!((again.source, again.source_port), (asked.source, asked.source_port));
    assert!(source(&mut bench, ask(5_001)).starts_with("203.0.113.3"), "a new flow");
    // Without the address there is nothing to keep.
    bench.change(|network| network.internet.as_mut().unwrap().public_addresses.clear());
    bench.sweep();
    assert_eq!(bench.report().flows_reset, 1);
    bench.take();
}

#[test]
fn an_instance_address_is_reached_from_outside_and_answers_with_it() {
    let mut bench = Site { one: BY_GATEWAY, a1: INSTANCE, pools: GATEWAY, ..Site::default() }.bench();
    for (outside, public, private) in [(WEB, "203.0.113.40", "10.1.1.4"), (WEB6, "2001:db8:ffff::40", "fd00:1:0:1::4")]
    {
        let seen = bench.forward("internet", udp((outside, 9_000), (public, 53), b"q"), "a1");
        assert_eq!((seen.destination.to_string().as_str(), seen.destination_port), (private, 53));
        let back = bench.forward("a1", udp((private, 53), (outside, 9_000), b"a"), "internet");
        assert_eq!((back.source.to_string().as_str(), back.source_port), (public, 53), "ports stay");
        let ping = bench.forward("internet", echo(outside, public, false, 7, 64), "a1");
        assert_eq!(ping.destination.to_string(), private);
        let pong = bench.forward("a1", echo(private, outside, true, 7, 64), "internet");
        assert_eq!(pong.source.to_string(), public);
        let esp = bench.forward("internet", protocol(outside, public, 50, b"12345678"), "a1");
        assert_eq!(esp.destination.to_string(), private);
    }
}

#[test]
fn a_nat_gateway_lets_nothing_in_that_nobody_asked_for() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    let asked = bench.forward("a1", ask(5_000), "internet");
    let public = asked.source.to_string();
    bench.forward("internet", udp((WEB, 53), (&public, asked.source_port), b"a"), "a1");
    // Not another port of the host, not another host.
    bench.dropped("internet", udp((WEB, 54), (&public, asked.source_port), b"x"), DropReason::NoMapping);
    bench.dropped("internet", udp(("198.51.100.81", 53), (&public, asked.source_port), b"x"), DropReason::NoMapping);
    bench.dropped("internet", echo(WEB, &public, false, 1, 64), DropReason::NoMapping);
}

#[test]
fn a_host_shows_one_address_whatever_it_talks_to() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    let mut sources = HashSet::new();
    for flow in 0..50_u16 {
        sources.insert(source(&mut bench, ask(1_000 + flow)));
        let to = (WEB, 1_000 + flow);
        sources.insert(source(&mut bench, Tcp { from: ("10.1.1.4", flow + 1), to, ..Tcp::default() }.bytes()));
        sources.insert(source(&mut bench, echo("10.1.1.4", "198.51.100.81", false, flow, 64)));
    }
    assert_eq!(sources.len(), 1, "{sources:?}");
    // Hosts are spread over the addresses.
    let other = bench.forward("a2", udp(("10.1.1.5", 1), (WEB, 53), b"q"), "internet").source.to_string();
    assert!(!sources.contains(&other));
}

#[test]
fn a_full_address_is_followed_by_the_next() {
    let pools = NARROW.replace("[\"100.64.9.1\"]", "[\"100.64.9.1\", \"100.64.9.2\"]");
    let mut bench = Site { one: BY_NARROW, pools: &pools, ..Site::default() }.bench();
    let mut seen = Vec::new();
    for port in 0..8 {
        let out = bench.forward("a1", udp(("10.1.1.4", 5_000 + port), SERVICE, b"q"), "data");
        seen.push((out.source, out.source_port));
    }
    let first = seen[0].0;
    assert!(seen[..4].iter().all(|(address, _)| *address == first), "first all ports of one address: {seen:?}");
    assert!(seen[4..].iter().all(|(address, _)| *address != first), "then those of the next: {seen:?}");
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 8, "and no socket twice");
}

/// The packet is dropped for want of a port, and its sender is told that it is administratively prohibited.
#[track_caller]
fn exhausted(bench: &mut Bench, packet: Vec<u8>, code: (u8, u8)) {
    assert_eq!(bench.inject("a1", packet), Verdict::Dropped(DropReason::NoFreePort));
    let sent = bench.take();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0.as_str(), sent[0].1.icmp), ("a1", Some(code)));
}

#[test]
fn ports_that_are_all_in_use_are_named_and_the_sender_is_told() {
    let pools = NARROW.replace("[\"100.64.9.1\"]", "[\"100.64.9.1\", \"fd00:65::1\"]");
    let mut bench = Site { one: BY_NARROW, pools: &pools, ..Site::default() }.bench();
    let mut ports = HashSet::new();
    for port in 0..4 {
        ports.insert(bench.forward("a1", udp(("10.1.1.4", 5_000 + port), SERVICE, b"q"), "data").source_port);
        bench.forward("a1", echo("10.1.1.4", SERVICE.0, false, port, 64), "data");
        let six = udp(("fd00:1:0:1::4", 5_000 + port), ("2603:1020:206:100::10", 443), b"q");
        bench.forward("a1", six, "data");
    }
    assert_eq!(ports, HashSet::from([2_000, 2_001, 2_002, 2_003]), "to the last port, and none outside the range");
    exhausted(&mut bench, udp(("10.1.1.4", 5_004), SERVICE, b"q"), (3, 13));
    exhausted(&mut bench, echo("10.1.1.4", SERVICE.0, false, 99, 64), (3, 13));
    let six = udp(("fd00:1:0:1::4", 5_004), ("2603:1020:206:100::10", 443), b"q");
    exhausted(&mut bench, six, (1, 1));
    // Those that have a port go on, and TCP has an inventory of its own.
    bench.forward("a1", udp(("10.1.1.4", 5_000), SERVICE, b"q"), "data");
    bench.forward("a1", Tcp { from: ("10.1.1.4", 5_000), to: SERVICE, ..Tcp::default() }.bytes(), "data");
    // Each family and protocol by itself: TCP, UDP, ICMP and others of IPv4, then of IPv6.
    let counts = bench.pool_named("narrow");
    assert_eq!(counts.flows, [1, 4, 4, 0, 0, 4, 0, 0]);
    assert_eq!(counts.exhausted, [0, 1, 1, 0, 0, 1, 0, 0]);
    assert_eq!(counts.mapped, [0; 8], "a port may serve others towards other destinations");
}

#[test]
fn what_is_in_use_of_a_pool_goes_down_with_its_flows_and_not_with_its_name() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    for port in 0..3 {
        bench.forward("a1", ask(5_000 + port), "internet");
    }
    assert_eq!(bench.pool_named("egress").flows, [1, 3, 0, 0, 0, 0, 0, 0]);
    // Another pool in front of it changes no number.
    bench.change(|network| {
        let mut before = network.nat_gateways[0].clone();
        before.name = "another".to_owned();
        before.public_addresses = vec!["203.0.113.33".parse().unwrap()];
        network.nat_gateways.insert(0, before);
        for network in &mut network.virtual_networks {
            for subnet in &mut network.subnets {
                subnet.nat_gateway = subnet.nat_gateway.map(|index| index + 1);
            }
        }
    });
    bench.sweep();
    bench.forward("internet", connection.back("A", 9_001, 1_001), "a1");
    assert_eq!(bench.pool_named("egress").flows, [1, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.pool_named("another").flows, [0; 8]);
    // The datagrams are over, and their ports have rested.
    bench.now += 241_000;
    bench.forward("internet", connection.back("A", 9_001, 1_001), "a1");
    bench.expire();
    assert_eq!(bench.pool_named("egress").flows, [1, 3, 0, 0, 0, 0, 0, 0], "what rests has its port");
    bench.now += 66_000;
    bench.expire();
    assert_eq!(bench.pool_named("egress").flows, [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_query_with_the_identifier_0_is_translated_like_any_other() {
    let mut bench = Site { one: BY_NARROW, pools: NARROW, ..Site::default() }.bench();
    for (port, address) in [("a1", "10.1.1.4"), ("a2", "10.1.1.5")] {
        bench.forward(port, echo(address, SERVICE.0, false, 0, 64), "data");
    }
    for flow in bench.flows() {
        let identifier = flow.sides.presented.1;
        assert!((2_000..=2_003).contains(&identifier), "{identifier}");
        let back = bench.forward_anywhere("data", echo(SERVICE.0, "100.64.9.1", true, identifier, 64));
        assert_eq!(back.destination, flow.sides.source.0);
    }
}

#[test]
fn a_port_is_used_again_towards_another_destination_and_never_towards_the_same() {
    let mut bench = Site { one: BY_NARROW, pools: NARROW, ..Site::default() }.bench();
    let mut sockets = HashSet::new();
    for destination in [443, 444, 445] {
        for host in [("a1", "10.1.1.4"), ("a2", "10.1.1.5")] {
            for port in [5_000, 5_001] {
                let to = (SERVICE.0, destination);
                let seen = bench.forward(host.0, udp((host.1, port), to, b"q"), "data");
                assert!(sockets.insert((destination, seen.source, seen.source_port)), "twice to {to:?}");
                // The reply finds the one that asked.
                let back = udp(to, ("100.64.9.1", seen.source_port), b"a");
                assert_eq!(bench.forward("data", back, host.0).destination_port, port);
            }
        }
    }
    assert_eq!(sockets.iter().map(|(_, _, port)| port).collect::<HashSet<_>>().len(), 4, "four ports for twelve flows");
}

#[test]
fn ports_are_hard_to_guess() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    let ports: Vec<u16> = (0..200).map(|flow| bench.forward("a1", ask(1_000 + flow), "internet").source_port).collect();
    assert!(ports.iter().all(|port| *port >= 1_024));
    let steps: HashSet<i32> = ports.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect();
    assert!(steps.len() > 190, "no step between two ports comes often: {}", steps.len());
    let spread: HashSet<u16> = ports.iter().map(|port| port >> 12).collect();
    assert_eq!(spread.len(), 16, "all parts of the range are used");
}

#[test]
fn the_same_happens_again_however_full_the_table_is() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, node: "[flows]\nlimit = 60\n", ..Site::default() }.bench();
    let first = bench.forward("a1", ask(5_000), "internet");
    let public = first.source.to_string();
    bench.forward("internet", udp((WEB, 53), (&public, first.source_port), b"a"), "a1");
    for flow in 0..200 {
        bench.forward("a1", ask(10_000 + flow), "internet");
        assert_eq!(bench.forward("a1", ask(5_000), "internet").source_port, first.source_port, "the mapping stays");
        bench.dropped("internet", udp((WEB, 9), (&public, first.source_port), b"x"), DropReason::NoMapping);
    }
    assert!(bench.report().flows_evicted > 100);
}

#[test]
fn tcp_and_udp_alone_are_translated_where_the_document_says_so() {
    let node = "[semantics]\nnat_protocols = [\"tcp\", \"udp\"]\n";
    let site = Site { node, one: BY_GATEWAY, pools: GATEWAY, ..Site::default() };
    for one in [BY_GATEWAY, ""] {
        let mut bench = Site { one, ..site }.bench();
        bench.dropped("a1", echo("10.1.1.4", WEB, false, 1, 64), DropReason::ProtocolNotTranslatable);
        bench.dropped("a1", protocol("10.1.1.4", WEB, 50, b"12345678"), DropReason::ProtocolNotTranslatable);
        bench.forward("a1", ask(5_000), "internet");
        let mut fragment = udp(("10.1.1.4", 1), (WEB, 1), b"xxxxxxxx");
        crate::packets::make_fragment(&mut fragment);
        bench.dropped("a1", fragment, DropReason::FragmentNotTranslatable);
    }
    // An instance address takes everything.
    let mut bench = Site { one: "", a1: INSTANCE, ..site }.bench();
    assert_eq!(source(&mut bench, echo("10.1.1.4", WEB, false, 1, 64)), "203.0.113.40");
}

#[test]
fn a_connection_is_opened_from_both_sides_at_once() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    let connection = Connection::begin(&mut bench, A1, SERVER);
    bench.forward("internet", connection.back("S", 9_000, 0), "a1");
    bench.forward("a1", connection.out("SA", 1_000, 9_001), "internet");
    bench.forward("internet", connection.back("SA", 9_000, 1_001), "a1");
    assert_eq!(bench.flows()[0].state.phase.name(), "established");
    let seen = bench.forward("a1", connection.out("PA", 1_001, 9_001), "internet");
    assert_eq!((seen.source.to_string(), seen.source_port), connection.presented);
}

#[test]
fn every_order_in_which_a_connection_ends_is_followed() {
    let ways: [&[(&str, bool, u32, u32)]; 4] = [
        &[
            ("FA", true, 1_001, 9_001),
            ("A", false, 9_001, 1_002),
            ("FA", false, 9_001, 1_002),
            ("A", true, 1_002, 9_002),
        ],
        &[("FA", false, 9_001, 1_001), ("FA", true, 1_001, 9_002), ("A", false, 9_002, 1_002)],
        // Both at once.
        &[
            ("FA", true, 1_001, 9_001),
            ("FA", false, 9_001, 1_001),
            ("A", true, 1_002, 9_002),
            ("A", false, 9_002, 1_002),
        ],
        // The last acknowledgment twice.
        &[
            ("FA", true, 1_001, 9_001),
            ("FA", false, 9_001, 1_002),
            ("A", true, 1_002, 9_002),
            ("A", true, 1_002, 9_002),
        ],
    ];
    for way in ways {
        let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
        let connection = Connection::open(&mut bench, A1, SERVER);
        for (flags, out, sequence, acknowledgment) in way {
            if *out {
                bench.forward("a1", connection.out(flags, *sequence, *acknowledgment), "internet");
            } else {
                bench.forward("internet", connection.back(flags, *sequence, *acknowledgment), "a1");
            }
        }
        assert_eq!(bench.flows()[0].state.phase.name(), "closed", "{way:?}");
    }
}

#[test]
fn a_syn_is_told_the_segment_size_of_the_narrower_side() {
    let document = Site::default().document().replace("{ tun = \"t-a1\" }", "{ tun = \"t-a1\", mtu = 1300 }");
    let mut bench = Bench::with(&document);
    let syn = Tcp { from: A1.socket, to: SERVER.socket, ..Tcp::default() };
    bench.forward_bytes("a1", crate::packets::with_mss(syn, 1_460), |bytes| {
        assert_eq!(crate::packets::mss(bytes), Some(1_260), "both directions");
    });
    let seen = bench.flows()[0].sides;
    let presented = (seen.presented.0.to_string(), seen.presented.1);
    let to = (presented.0.as_str(), presented.1);
    let answer = Tcp { from: SERVER.socket, to, flags: "SA", sequence: 9_000, acknowledgment: 1_001, ..Tcp::default() };
    bench.forward_bytes("internet", crate::packets::with_mss(answer, 1_460), |bytes| {
        assert_eq!(crate::packets::mss(bytes), Some(1_260));
    });
    // A smaller one stays, and IPv6 has larger headers.
    let syn = Tcp { from: ("10.1.1.4", 40_001), ..syn };
    bench.forward_bytes("a1", crate::packets::with_mss(syn, 1_000), |bytes| {
        assert_eq!(crate::packets::mss(bytes), Some(1_000));
    });
    let six = Tcp { from: ("fd00:1:0:1::4", 40_000), to: (WEB6, 443), ..syn };
    bench.forward_bytes("a1", crate::packets::with_mss(six, 1_440), |bytes| {
        assert_eq!(crate::packets::mss(bytes), Some(1_240));
    });
}

/// Sets identification and the flag that forbids fragments.
fn identified(mut packet: Vec<u8>, identification: u16, dont_fragment: bool) -> Vec<u8> {
    packet[4..6].copy_from_slice(&identification.to_be_bytes());
    packet[6] = if dont_fragment { 0x40 } else { 0 };
    fix_header(&mut packet);
    packet
}

#[test]
fn hosts_behind_one_address_never_show_one_identification_twice() {
    let mut bench = Site::default().bench();
    let mut seen = HashSet::new();
    for round in 0..20 {
        for (port, address) in [("a1", "10.1.1.4"), ("a2", "10.1.1.5")] {
            let packet = identified(udp((address, 5_000), (WEB, 53), &[round]), 1, false);
            bench.forward_bytes(port, packet, |bytes| {
                assert!(seen.insert(u16::from_be_bytes([bytes[4], bytes[5]])), "twice");
            });
        }
    }
    // One that forbids fragments is never put together: its identification says nothing and stays.
    bench.forward_bytes("a1", identified(udp(("10.1.1.4", 5_001), (WEB, 53), b"q"), 4_711, true), |bytes| {
        assert_eq!(bytes[4..6], 4_711_u16.to_be_bytes());
    });
}

#[test]
fn families_have_ports_of_their_own() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    let inside = End { port: "a1", socket: ("fd00:1:0:1::4", 40_000) };
    let four = Connection::open(&mut bench, A1, SERVER);
    let six = Connection::open(&mut bench, inside, End { port: "internet", socket: (WEB6, 443) });
    assert!(four.presented.0.parse::<IpAddr>().unwrap().is_ipv4());
    assert_eq!(six.presented.0, "2001:db8:ffff::30");
    bench.forward("internet", six.back("PA", 9_001, 1_001), "a1");
    bench.forward("internet", four.back("PA", 9_001, 1_001), "a1");
}
