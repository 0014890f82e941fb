//! Where packets go: forced tunnel, endpoint, inside the network, appliances, and back.

use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};
use sidestep::path::{DropReason, Verdict};

use crate::bench::Bench;
use crate::packets::{Tcp, decode, echo, protocol, udp};

#[test]
fn forced_tunnel_takes_service_traffic_to_the_gateway_with_its_own_source() {
    let mut bench = Bench::new();
    let seen = bench.forward("vm1", Tcp::default().bytes(), "gateway");
    assert_eq!(seen.source.to_string(), "10.1.1.4");
    assert_eq!(seen.destination.to_string(), "20.60.1.10");
    assert_eq!((seen.source_port, seen.destination_port), (40_000, 443));
    assert_eq!(seen.hop_limit, 63);
}

#[test]
fn endpoint_takes_service_traffic_straight_to_the_service_with_its_own_source() {
    let mut bench = Bench::with_endpoint();
    let seen = bench.forward("vm1", Tcp::default().bytes(), "contosodata");
    assert_eq!(seen.source.to_string(), "10.1.1.4");
    assert_eq!(seen.hop_limit, 63);
    let reply = Tcp { from: ("20.60.1.10", 443), to: ("10.1.1.4", 40_000), flags: "SA", ..Tcp::default() };
    let seen = bench.forward("contosodata", reply.bytes(), "vm1");
    assert_eq!(seen.source.to_string(), "20.60.1.10");
    let report = bench.report();
    assert_eq!((report.flow_misses, report.flow_hits, report.flows_created), (1, 1, 1), "{report:?}");
}

#[test]
fn the_second_packet_of_a_flow_is_a_hit_in_either_direction() {
    let mut bench = Bench::with_endpoint();
    bench.forward("vm1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"1"), "contosodata");
    bench.forward("vm1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"2"), "contosodata");
    bench.forward("contosodata", udp(("20.60.1.10", 443), ("10.1.1.4", 5_000), b"3"), "vm1");
    let report = bench.report();
    assert_eq!((report.flow_misses, report.flow_hits, report.flows_created), (1, 2, 1));
    let flow = bench.flows().remove(0);
    assert_eq!(flow.state.packets, [2, 1]);
    assert_eq!(flow.state.bytes, [58, 29]);
}

#[test]
fn both_families_take_the_same_ways() {
    let service = "2603:1020:206:100::10";
    let packet = Tcp { from: ("fd00:1:0:1::4", 40_000), to: (service, 443), ..Tcp::default() };
    let mut bench = Bench::new();
    assert_eq!(bench.forward("vm1", packet.bytes(), "gateway").hop_limit, 63);
    bench.set_endpoint("spoke/workload", true);
    let again = Tcp { from: ("fd00:1:0:1::4", 40_001), ..packet };
    let seen = bench.forward("vm1", again.bytes(), "contosodata");
    assert_eq!(seen.source.to_string(), "fd00:1:0:1::4");
    let reply = Tcp { from: (service, 443), to: ("fd00:1:0:1::4", 40_001), flags: "SA", ..Tcp::default() };
    bench.forward("contosodata", reply.bytes(), "vm1");
}

#[test]
fn the_endpoint_of_one_subnet_is_not_another_ones() {
    let mut bench = Bench::with_endpoint();
    let packet = Tcp { from: ("10.1.2.4", 40_000), ..Tcp::default() };
    bench.forward("vm2", packet.bytes(), "appliance");
}

#[test]
fn an_ordinary_web_site_stays_in_the_tunnel() {
    let mut bench = Bench::with_endpoint();
    bench.forward("vm1", Tcp { to: ("198.51.100.80", 80), ..Tcp::default() }.bytes(), "gateway");
}

#[test]
fn traffic_inside_the_network_and_to_peers_is_delivered_to_the_nic() {
    let mut bench = Bench::new();
    bench.forward("vm1", echo("10.1.1.4", "10.1.3.4", false, 9, 64), "vm3");
    bench.forward("vm3", echo("10.1.3.4", "10.1.1.4", true, 9, 64), "vm1");
    bench.forward("vm3", udp(("10.1.3.4", 1), ("10.0.100.4", 2), b"x"), "appliance");
    bench.forward("vm1", echo("fd00:1:0:1::4", "fd00:1:0:3::4", false, 9, 64), "vm3");
}

#[test]
fn on_premises_reaches_vms_through_the_gateway_and_gets_its_answers() {
    let mut bench = Bench::new();
    bench.forward("gateway", udp(("192.168.7.7", 1_000), ("10.1.3.4", 53), b"q"), "vm3");
    bench.forward("vm3", udp(("10.1.3.4", 53), ("192.168.7.7", 1_000), b"a"), "gateway");
}

#[test]
fn an_appliance_between_workload_and_service_sees_both_directions() {
    let mut bench = Bench::new();
    bench.set_endpoint("hub/appliances", true);
    let out = Tcp { from: ("10.1.2.4", 40_000), ..Tcp::default() };
    let seen = bench.forward("vm2", out.bytes(), "appliance");
    assert_eq!(seen.hop_limit, 63);
    // The appliance forwards it: the same addresses and ports enter through another port.
    let seen = bench.forward("appliance", Tcp { hop_limit: 62, ..out }.bytes(), "contosodata");
    assert_eq!(seen.source.to_string(), "10.1.2.4");
    let back = Tcp { from: ("20.60.1.10", 443), to: ("10.1.2.4", 40_000), flags: "SA", ..Tcp::default() };
    bench.forward("contosodata", back.bytes(), "appliance");
    bench.forward("appliance", back.bytes(), "vm2");
    assert_eq!(bench.report().flows_created, 2);
}

#[test]
fn the_internet_reaches_public_addresses_of_services() {
    let mut bench = Bench::new();
    bench.forward("internet", Tcp { from: ("203.0.113.10", 9), ..Tcp::default() }.bytes(), "contosodata");
    let reply = Tcp { from: ("20.60.1.10", 443), to: ("203.0.113.10", 9), flags: "SA", ..Tcp::default() };
    bench.forward("contosodata", reply.bytes(), "internet");
}

#[test]
fn protocols_without_ports_are_forwarded_too() {
    let mut bench = Bench::with_endpoint();
    bench.forward("vm1", protocol("10.1.1.4", "20.60.1.10", 47, b"gre"), "contosodata");
    bench.forward("contosodata", protocol("20.60.1.10", "10.1.1.4", 47, b"gre"), "vm1");
}

#[test]
fn a_super_packet_stays_whole_with_its_offload_state() {
    let mut bench = Bench::with_endpoint();
    bench.forward("vm1", Tcp::default().bytes(), "contosodata");
    let payload = vec![7; 40_000];
    let whole = Tcp { flags: "A", acknowledgment: 5, sequence: 1_001, payload: &payload, ..Tcp::default() };
    let mut frame = Frame::from_packet(&whole.bytes());
    frame.offload = Offload {
        checksum: Checksum::Partial { start: 20, offset: 16 },
        segmentation: Some(Segmentation { kind: SegmentKind::TcpV4, size: 1_448, ecn: false }),
    };
    let before = frame.offload;
    assert_eq!(bench.inject_frame("vm1", &mut frame), Verdict::Forwarded(bench.port("contosodata")));
    let (_, bytes, sent) = bench.sent.packets.remove(1 - 1);
    assert_eq!(bytes.len(), 40_040);
    assert_eq!(sent.offload, before);
    assert_eq!(bench.report().received_super, 1);
    // Only the hop limit and the header checksum differ.
    let mut expected = whole.bytes();
    expected[8] = 63;
    expected[10..12].copy_from_slice(&bytes[10..12]);
    assert_eq!(bytes, expected);
    assert_eq!(decode(&bytes).hop_limit, 63);
}

#[test]
fn the_hundredth_packet_is_like_the_second_whatever_the_port_order() {
    let mut bench = Bench::with_endpoint();
    for round in 0..100_u16 {
        bench.forward("vm1", udp(("10.1.1.4", 1_000 + round), ("20.60.1.10", 443), b"x"), "contosodata");
    }
    for round in (0..100_u16).rev() {
        bench.forward("contosodata", udp(("20.60.1.10", 443), ("10.1.1.4", 1_000 + round), b"x"), "vm1");
    }
    assert_eq!(bench.report().flows, 100);
}

#[test]
fn what_leaves_a_full_device_is_a_named_drop() {
    let mut bench = Bench::with_endpoint();
    bench.sent.refuse = Some(sidestep::path::SendFailure::QueueFull);
    bench.dropped("vm1", Tcp::default().bytes(), DropReason::EgressQueueFull);
}

#[test]
fn flows_end_by_their_timer() {
    let mut bench = Bench::with_endpoint();
    bench.forward("vm1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"1"), "contosodata");
    bench.now += 200_000;
    bench.forward("vm1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"2"), "contosodata");
    bench.now += 200_000;
    bench.expire();
    assert_eq!(bench.flows().len(), 1, "the second packet has refreshed it");
    bench.now += 45_000;
    bench.expire();
    assert!(bench.flows().is_empty());
    bench.dropped("contosodata", udp(("20.60.1.10", 443), ("10.1.1.4", 5_000), b"late"), DropReason::Unsolicited);
}
