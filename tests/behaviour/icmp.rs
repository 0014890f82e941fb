//! ICMP: answers of the router, errors along flows.

use std::net::IpAddr;

use sidestep::model::network::EndpointSource;
use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};
use sidestep::path::{Answer, DropReason, Verdict};

use crate::bench::Bench;
use crate::packets::{Tcp, echo, fix_header, port_unreachable, udp, udp_with_hops};

#[test]
fn the_subnets_gateway_address_answers_when_the_hop_limit_ends() {
    let mut bench = Bench::with_endpoint();
    let probe = udp_with_hops(("10.1.1.4", 5_000), ("20.60.1.10", 33_434), b"probe", 1);
    let sent = bench.answered("vm1", probe.clone(), Answer::TimeExceeded);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, "vm1");
    assert_eq!(sent[0].1.source, "10.1.1.1".parse::<IpAddr>().unwrap());
    assert_eq!(sent[0].1.icmp, Some((11, 0)));
    assert_eq!(sent[0].1.payload, probe, "the whole packet is quoted");
    assert_eq!(bench.report().generated, 1);
    assert!(bench.flows().is_empty(), "a probe that ends here makes no flow");
    let probe = udp_with_hops(("fd00:1:0:1::4", 5_000), ("2603:1020:206:100::10", 33_434), b"probe", 1);
    let sent = bench.answered("vm1", probe, Answer::TimeExceeded);
    assert_eq!(sent[0].1.source, "fd00:1:0:1::1".parse::<IpAddr>().unwrap());
    assert_eq!(sent[0].1.icmp, Some((3, 0)));
}

#[test]
fn the_hop_limit_ends_on_a_flow_hit_too() {
    let mut bench = Bench::with_endpoint();
    bench.forward("vm1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b""), "contosodata");
    let last = udp_with_hops(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"", 1);
    assert_eq!(bench.answered("vm1", last, Answer::TimeExceeded).len(), 1);
    // A service has no router of its own: the packet ends, and nothing is said.
    let back = udp_with_hops(("20.60.1.10", 443), ("10.1.1.4", 5_000), b"", 1);
    bench.dropped("contosodata", back, DropReason::HopLimitExceeded);
}

#[test]
fn no_error_answers_an_error() {
    let mut bench = Bench::with_endpoint();
    let out = udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"x");
    bench.forward("vm1", out.clone(), "contosodata");
    let mut error = port_unreachable("20.60.1.10", "10.1.1.4", &out);
    set_hops(&mut error, 1);
    bench.dropped("contosodata", error, DropReason::HopLimitExceeded);
}

#[test]
fn errors_about_a_flow_go_back_along_it() {
    let mut bench = Bench::with_endpoint();
    let out = udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"x");
    let seen = bench.forward("vm1", out.clone(), "contosodata");
    assert_eq!(seen.hop_limit, 63);
    let back = bench.forward("contosodata", port_unreachable("20.60.1.10", "10.1.1.4", &out), "vm1");
    assert_eq!(back.icmp, Some((3, 3)));
    let out = udp(("fd00:1:0:1::4", 5_000), ("2603:1020:206:100::10", 443), b"x");
    bench.forward("vm1", out.clone(), "contosodata");
    let error = port_unreachable("2603:1020:206:100::10", "fd00:1:0:1::4", &out);
    assert_eq!(bench.forward("contosodata", error, "vm1").icmp, Some((1, 4)));
}

#[test]
fn errors_of_routers_behind_the_gateway_reach_the_vm() {
    let mut bench = Bench::new();
    let out = udp(("10.1.1.4", 5_000), ("20.60.1.10", 33_435), b"x");
    bench.forward("vm1", out.clone(), "gateway");
    let back = bench.forward("gateway", port_unreachable("192.168.0.1", "10.1.1.4", &out), "vm1");
    assert_eq!(back.source, "192.168.0.1".parse::<IpAddr>().unwrap());
}

#[test]
fn errors_about_nothing_are_dropped_by_name() {
    let mut bench = Bench::with_endpoint();
    let never = udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"x");
    let error = port_unreachable("20.60.1.10", "10.1.1.4", &never);
    bench.dropped("contosodata", error.clone(), DropReason::IcmpErrorWithoutFlow);
    bench.dropped("contosodata", port_unreachable("20.60.1.10", "10.1.1.4", b""), DropReason::IcmpErrorMalformed);
    bench.dropped("vm1", port_unreachable("10.1.1.9", "20.60.1.10", &never), DropReason::SpoofedSource);
}

#[test]
fn an_error_does_not_refresh_its_flow() {
    let mut bench = Bench::with_endpoint();
    let out = udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"x");
    bench.forward("vm1", out.clone(), "contosodata");
    let seen = bench.flows()[0].state.last_seen();
    bench.now += 1_000;
    bench.forward("contosodata", port_unreachable("20.60.1.10", "10.1.1.4", &out), "vm1");
    assert_eq!(bench.flows()[0].state.last_seen(), seen);
}

#[test]
fn a_packet_larger_than_the_next_mtu_is_answered_with_the_mtu() {
    let document = crate::bench::NETWORK.replace("{ tun = \"t-store\" }", "{ tun = \"t-store\", mtu = 1400 }");
    let mut bench = Bench::with(&document);
    bench.set_endpoint("spoke/workload", true);
    bench.forward("vm1", Tcp::default().bytes(), "contosodata");
    let payload = [1; 1_400];
    let big = Tcp { flags: "A", sequence: 1_001, acknowledgment: 1, payload: &payload, ..Tcp::default() };
    let sent = bench.answered("vm1", big.bytes(), Answer::PacketTooBig);
    assert_eq!(sent[0].1.icmp, Some((3, 4)));
    assert_eq!(sent[0].0, "vm1");
    let v6 = Tcp { from: ("fd00:1:0:1::4", 1), to: ("2603:1020:206:100::10", 1), ..big };
    assert_eq!(bench.answered("vm1", v6.bytes(), Answer::PacketTooBig)[0].1.icmp, Some((2, 0)));
    // What counts of a super-packet is its segments.
    let mut frame = Frame::from_packet(&big.bytes());
    frame.offload = Offload {
        checksum: Checksum::Partial { start: 20, offset: 16 },
        segmentation: Some(Segmentation { kind: SegmentKind::TcpV4, size: 1_000, ecn: false }),
    };
    assert_eq!(bench.inject_frame("vm1", &mut frame), Verdict::Forwarded(bench.port("contosodata")));
}

#[test]
fn ping_shows_the_path_by_default() {
    let mut bench = Bench::with_endpoint();
    bench.forward("vm1", echo("10.1.1.4", "20.60.1.10", false, 3, 64), "contosodata");
    bench.forward("contosodata", echo("20.60.1.10", "10.1.1.4", true, 3, 64), "vm1");
}

#[test]
fn an_error_goes_to_the_sender_of_what_it_is_about_and_nowhere_else() {
    let mut bench = Bench::new();
    bench.forward("vm1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"1"), "gateway");
    let reply = udp(("20.60.1.10", 443), ("10.1.1.4", 5_000), b"1");
    let elsewhere = port_unreachable("10.1.1.4", "10.0.100.4", &reply);
    bench.dropped("vm1", elsewhere, DropReason::IcmpErrorMalformed);
}

#[test]
fn a_service_learns_the_mtu_of_its_client() {
    let document = crate::bench::NETWORK.replace("{ tun = \"t-vm1\" }", "{ tun = \"t-vm1\", mtu = 1400 }");
    let mut bench = Bench::with(&document);
    bench.set_endpoint("spoke/workload", true);
    bench.forward("vm1", Tcp::default().bytes(), "contosodata");
    let payload = [1; 1_400];
    let (from, to) = (("20.60.1.10", 443), ("10.1.1.4", 40_000));
    let big = Tcp { from, to, flags: "A", sequence: 1, acknowledgment: 1_001, payload: &payload, ..Tcp::default() };
    let sent = bench.answered("contosodata", big.bytes(), Answer::PacketTooBig);
    assert_eq!((sent[0].0.as_str(), sent[0].1.icmp), ("contosodata", Some((3, 4))));
    assert_eq!(sent[0].1.source.to_string(), "10.1.1.1");
}

#[test]
fn errors_are_sent_at_a_bounded_rate() {
    let mut bench = Bench::with_endpoint();
    let probe = || udp_with_hops(("10.1.1.4", 5_000), ("20.60.1.10", 33_434), b"probe", 1);
    for _ in 0..100 {
        bench.answered("vm1", probe(), Answer::TimeExceeded);
    }
    bench.dropped("vm1", probe(), DropReason::HopLimitExceeded);
    bench.now += 1;
    bench.answered("vm1", probe(), Answer::TimeExceeded);
    bench.dropped("vm1", probe(), DropReason::HopLimitExceeded);
}

fn set_hops(packet: &mut [u8], hops: u8) {
    packet[8] = hops;
    fix_header(packet);
}

#[test]
fn an_echo_that_crosses_to_ipv6_is_answered() {
    let mut bench = Bench::with_endpoint();
    bench.change(|network| {
        network.virtual_networks[0].subnets[0].service_endpoints[0].source = EndpointSource::Identity6;
    });
    let request = bench.forward("vm1", echo("10.1.1.4", "20.60.1.10", false, 7, 64), "contosodata");
    assert_eq!((request.protocol, request.destination.to_string().as_str()), (58, "2603:1020:206:100::10"));
    let reply = echo("2603:1020:206:100::10", &request.source.to_string(), true, 7, 64);
    let back = bench.forward("contosodata", reply, "vm1");
    assert_eq!((back.protocol, back.icmp), (1, Some((0, 0))));
    assert_eq!((back.source.to_string().as_str(), back.destination.to_string().as_str()), ("20.60.1.10", "10.1.1.4"));
}
