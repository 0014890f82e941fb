//! Default outbound access: a public source towards the internet and, without an endpoint, towards services.

use sidestep::path::DropReason;

use crate::bench::{Bench, NETWORK};
use crate::packets::{Tcp, echo, port_unreachable, udp};

#[test]
fn the_internet_sees_a_public_address_and_replies_find_back() {
    let mut bench = Bench::new();
    let out = bench.forward("vm3", udp(("10.1.3.4", 5_000), ("198.51.100.80", 53), b"q"), "internet");
    assert_eq!(out.source.to_string(), "203.0.113.200");
    assert!(out.source_port >= 1_024);
    let reply = udp(("198.51.100.80", 53), ("203.0.113.200", out.source_port), b"a");
    let back = bench.forward("internet", reply, "vm3");
    assert_eq!((back.destination.to_string().as_str(), back.destination_port), ("10.1.3.4", 5_000));
    let six = Tcp { from: ("fd00:1:0:3::4", 5_000), to: ("2001:db8:80::80", 80), ..Tcp::default() };
    assert_eq!(bench.forward("vm3", six.bytes(), "internet").source.to_string(), "2001:db8:ffff::200");
}

#[test]
fn a_service_without_endpoint_sees_the_public_address_and_with_it_the_private_one() {
    let mut bench = Bench::new();
    let packet = Tcp { from: ("10.1.3.4", 40_000), ..Tcp::default() };
    assert_eq!(bench.forward("vm3", packet.bytes(), "contosodata").source.to_string(), "203.0.113.200");
    bench.set_endpoint("spoke/open", true);
    let packet = Tcp { from: ("10.1.3.4", 40_001), ..packet };
    assert_eq!(bench.forward("vm3", packet.bytes(), "contosodata").source.to_string(), "10.1.3.4");
}

#[test]
fn an_echo_identifier_is_translated_both_ways() {
    let mut bench = Bench::new();
    let out = bench.forward("vm3", echo("10.1.3.4", "198.51.100.80", false, 77, 64), "internet");
    let flow = bench.flows().remove(0);
    let id = flow.sides.presented.1;
    assert_eq!(out.source.to_string(), "203.0.113.200");
    let back = bench.forward("internet", echo("198.51.100.80", "203.0.113.200", true, id, 64), "vm3");
    assert_eq!(back.destination.to_string(), "10.1.3.4");
}

#[test]
fn an_error_about_a_translated_packet_is_translated_inside_and_outside() {
    let mut bench = Bench::new();
    let original = udp(("10.1.3.4", 5_000), ("198.51.100.80", 53), b"q");
    let out = bench.forward("vm3", original, "internet");
    let quoted = udp(("203.0.113.200", out.source_port), ("198.51.100.80", 53), b"q");
    let back = bench.forward("internet", port_unreachable("192.0.2.55", "203.0.113.200", &quoted), "vm3");
    assert_eq!(back.source.to_string(), "192.0.2.55", "a router on the way keeps its address");
    assert_eq!(back.destination.to_string(), "10.1.3.4");
    assert_eq!(back.payload[12..16], [10, 1, 3, 4], "the quoted source is the VM's own");
    assert_eq!(u16::from_be_bytes([back.payload[20], back.payload[21]]), 5_000);
}

#[test]
fn without_a_public_address_the_packet_is_denied_not_sent() {
    let document = NETWORK.replace(r#"["203.0.113.200", "2001:db8:ffff::200"]"#, "[]");
    let mut bench = Bench::with(&document);
    bench.dropped("vm3", udp(("10.1.3.4", 1), ("198.51.100.80", 1), b""), DropReason::NoOutboundAddress);
}

#[test]
fn an_error_from_inside_leaves_with_the_public_address() {
    let mut bench = Bench::new();
    bench.forward("appliance", udp(("10.1.2.4", 5_000), ("198.51.100.80", 53), b"q"), "internet");
    // The appliance answers the reply that it was to forward, in its own name.
    let reply = udp(("198.51.100.80", 53), ("10.1.2.4", 5_000), b"a");
    let error = bench.forward("appliance", port_unreachable("10.0.100.4", "198.51.100.80", &reply), "internet");
    assert_eq!(error.source.to_string(), "203.0.113.200");
}

#[test]
fn packets_from_outside_do_not_keep_a_finished_connection() {
    let mut bench = Bench::new();
    let out = Tcp { from: ("10.1.3.4", 5_000), to: ("198.51.100.80", 443), sequence: 10, ..Tcp::default() };
    let seen = bench.forward("vm3", out.bytes(), "internet");
    let back = Tcp {
        from: ("198.51.100.80", 443),
        to: ("203.0.113.200", seen.source_port),
        flags: "FA",
        sequence: 100,
        acknowledgment: 11,
        ..Tcp::default()
    };
    bench.forward("internet", back.bytes(), "vm3");
    bench.forward("vm3", Tcp { flags: "FA", sequence: 11, acknowledgment: 101, ..out }.bytes(), "internet");
    for _ in 0..3 {
        bench.now += 100_000;
        bench.expire();
        if !bench.flows().is_empty() {
            bench.forward("internet", Tcp { flags: "A", sequence: 101, acknowledgment: 12, ..back }.bytes(), "vm3");
        }
    }
    assert!(bench.flows().is_empty(), "both sides have finished 300 s ago, and the inside has said nothing since");
}
