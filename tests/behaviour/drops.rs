//! Every drop has its name.

use sidestep::path::DropReason;

use crate::bench::Bench;
use crate::packets::{Tcp, echo, udp};

#[test]
fn a_nic_sends_from_its_own_addresses_only() {
    let mut bench = Bench::new();
    bench.dropped("vm1", Tcp { from: ("10.1.1.5", 1), ..Tcp::default() }.bytes(), DropReason::SpoofedSource);
    bench.dropped("vm1", echo("fd00:1:0:1::5", "fd00:1:0:3::4", false, 1, 64), DropReason::SpoofedSource);
    bench.dropped("vm1", udp(("0.0.0.0", 68), ("10.1.3.4", 67), b""), DropReason::SpoofedSource);
}

#[test]
fn the_gateway_brings_in_no_source_of_any_virtual_network() {
    let mut bench = Bench::new();
    for private in ["10.0.100.4", "10.1.1.4", "10.3.1.4"] {
        bench.dropped("gateway", udp((private, 1), ("10.1.3.4", 1), b""), DropReason::SpoofedSource);
    }
}

#[test]
fn the_internet_cannot_pass_for_a_vm_at_a_service() {
    let mut bench = Bench::with_endpoint();
    let forged = Tcp::default();
    bench.dropped("internet", forged.bytes(), DropReason::SpoofedSource);
    bench.forward("vm1", forged.bytes(), "contosodata");
}

#[test]
fn multicast_broadcast_and_link_local_stay() {
    let mut bench = Bench::new();
    bench.dropped("vm1", udp(("10.1.1.4", 1), ("224.0.0.251", 5353), b""), DropReason::MulticastDestination);
    bench.dropped("vm1", udp(("10.1.1.4", 1), ("255.255.255.255", 67), b""), DropReason::MulticastDestination);
    bench.dropped("vm1", udp(("fd00:1:0:1::4", 1), ("ff02::2", 1), b""), DropReason::MulticastDestination);
    bench.dropped("vm1", udp(("fd00:1:0:1::4", 1), ("fe80::1", 1), b""), DropReason::LinkLocal);
    bench.dropped("vm1", udp(("10.1.1.4", 1), ("169.254.1.1", 1), b""), DropReason::LinkLocal);
    bench.dropped("vm1", udp(("10.1.1.4", 1), ("168.63.129.16", 53), b""), DropReason::PlatformAddress);
    bench.dropped("vm1", udp(("10.1.1.4", 1), ("169.254.169.254", 80), b""), DropReason::PlatformAddress);
}

#[test]
fn unroutable_destinations_have_their_names() {
    let mut bench = Bench::new();
    let to = |address: &'static str| udp(("10.1.2.4", 1), (address, 1), b"");
    bench.dropped("vm2", to("198.18.0.1"), DropReason::NextHopNone);
    bench.dropped("vm2", to("192.0.2.1"), DropReason::ApplianceUnreachable);
    bench.dropped("vm2", to("198.51.100.1"), DropReason::ApplianceWithoutForwarding);
    bench.dropped("vm2", to("10.1.3.77"), DropReason::AddressUnassigned);
    bench.dropped("vm3", udp(("10.1.3.4", 1), ("10.77.0.1", 1), b""), DropReason::NextHopNone);
    bench.dropped("gateway", udp(("192.168.1.1", 1), ("8.8.8.8", 1), b""), DropReason::NoRoute);
}

#[test]
fn services_start_nothing_and_the_internet_reaches_only_what_is_public() {
    let mut bench = Bench::new();
    bench.dropped("contosodata", udp(("20.60.1.10", 1), ("10.1.1.4", 1), b""), DropReason::Unsolicited);
    bench.dropped("internet", udp(("198.51.100.80", 1), ("10.1.1.4", 1), b""), DropReason::NoPublicAddress);
}

#[test]
fn a_strict_peering_refuses_forwarded_traffic() {
    let mut bench = Bench::new();
    // From the hub's own address it passes, from elsewhere through the hub it does not.
    bench.forward("appliance", udp(("10.0.100.4", 1), ("10.3.1.4", 1), b""), "vm4");
    bench.dropped("appliance", udp(("10.1.1.4", 1), ("10.3.1.4", 1), b""), DropReason::ForwardedTrafficRefused);
}

#[test]
fn malformed_packets_have_their_names() {
    let mut bench = Bench::new();
    let good = Tcp::default().bytes();
    bench.dropped("vm1", vec![], DropReason::Empty);
    bench.dropped("vm1", good[..10].to_vec(), DropReason::Truncated);
    let mut bad = good.clone();
    bad[0] = 0x95;
    bench.dropped("vm1", bad, DropReason::Version);
    let mut bad = good.clone();
    bad[0] = 0x44;
    bench.dropped("vm1", bad, DropReason::HeaderLength);
    let mut bad = good.clone();
    bad[10] ^= 0xff;
    bench.dropped("vm1", bad, DropReason::HeaderChecksum);
}

#[test]
fn two_senders_cannot_share_the_replies_of_one_tuple() {
    let mut bench = Bench::new();
    bench.set_endpoint("hub/appliances", true);
    bench.change(|network| {
        let subnet = network.find_subnet("spoke/workload").unwrap();
        let endpoint = network.virtual_networks[1].subnets[1].service_endpoints[0].clone();
        network.virtual_networks[subnet.virtual_network].subnets[subnet.subnet].service_endpoints = vec![endpoint];
    });
    bench.forward("vm1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b""), "contosodata");
    // The appliance claims to forward for the same host: the replies could not be told apart.
    bench.dropped("appliance", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b""), DropReason::FlowConflict);
}

/// Out is what a NIC sent, whoever would have got it; in is what came by an edge, the gateway or from a service.
#[test]
fn drops_are_counted_by_the_way_that_the_packet_went() {
    let mut bench = Bench::new();
    for (port, from, to, reason) in [
        ("vm1", "10.1.9.9", "10.1.2.4", DropReason::SpoofedSource),
        ("vm1", "10.1.1.4", "10.1.3.77", DropReason::AddressUnassigned),
        ("internet", "10.1.1.4", "203.0.113.200", DropReason::SpoofedSource),
        ("gateway", "10.1.1.4", "10.1.2.4", DropReason::SpoofedSource),
        ("contosodata", "20.60.1.10", "10.1.1.4", DropReason::Unsolicited),
    ] {
        bench.dropped(port, udp((from, 1), (to, 1), b""), reason);
    }
    // Only the port is known of what cannot be read.
    bench.dropped("vm1", vec![], DropReason::Empty);
    bench.dropped("gateway", vec![], DropReason::Empty);
    let report = bench.report();
    let count = |reason: DropReason| {
        let of = |counts: &std::collections::BTreeMap<String, u64>| counts.get(reason.name()).copied().unwrap_or(0);
        (of(&report.dropped), of(&report.dropped_inbound))
    };
    assert_eq!(count(DropReason::SpoofedSource), (3, 2));
    assert_eq!(count(DropReason::AddressUnassigned), (1, 0));
    assert_eq!(count(DropReason::Unsolicited), (1, 1));
    assert_eq!(count(DropReason::Empty), (2, 1));
    assert_eq!(report.dropped.values().sum::<u64>(), report.received);
}
