//! The ways to the internet: NAT gateway, instance public address in both directions, none at all.

use crate::capture::{Capture, checksums};
use crate::chain::{FAR, GUEST, extend};
use crate::conversation::Web;
use crate::network::{DEFAULT, OPEN, V4, V6, Variant, dropped, network, ping, ready, traces};
use crate::node::Node;

/// Two ways of TCP and of UDP, the latter in whole packets and in fragments.
fn iperf(node: &Node, host: &str, server: &str, to: &str) {
    for arguments in [
        &["-n", "4M"][..],
        &["-n", "4M", "-R"],
        &["-u", "-b", "10M", "-t", "1", "-l", "1200"],
        &["-u", "-b", "10M", "-t", "1", "-l", "8000"],
        &["-u", "-b", "10M", "-t", "1", "-l", "8000", "-R"],
    ] {
        node.iperf(host, server, to, arguments);
    }
}

/// Everything through a NAT gateway.
fn through_a_gateway(io: &str, translation: &str) {
    if !ready() {
        return;
    }
    let offload = io == "offload";
    let workers = if offload { 2 } else { 1 };
    let site = network(&["vm1", "guest", "internet", "far"], Variant { translation, workers, ..DEFAULT });
    let node = site.start(&["--io", io]);
    extend(&node, GUEST, offload);
    extend(&node, FAR, offload);
    let captures = [Capture::start(&node, "guest", "eth0"), Capture::start(&node, "far", "eth0")];
    let web = Web::serve(&node.site.lab, "far");
    for (place, family) in [V4, V6].into_iter().enumerate() {
        assert_eq!(node.curl("guest", &family.url(family.far)), family.egress);
        ping(&node, "guest", family.far, 56);
        ping(&node, "guest", family.far, 60_000);
        let hops = [GUEST.router[place], family.gateway, family.edge, family.far];
        assert_eq!(traces(&node, "guest", family, family.far), hops);
        iperf(&node, "guest", "far", family.far);
    }
    drop(web);
    for good in captures.map(|capture| checksums(&capture.stop(), offload)) {
        for protocol in ["tcp", "udp", "icmp", "icmpv6"] {
            assert!(good.get(protocol) > Some(&5), "{good:?}");
        }
    }
    node.finish();
}

#[test]
fn a_nat_gateway_carries_everything_with_offload() {
    through_a_gateway("offload", "");
}

#[test]
fn a_nat_gateway_carries_everything_plain() {
    through_a_gateway("plain", "");
}

#[test]
fn endpoint_independent_mappings_carry_everything_with_offload() {
    through_a_gateway("offload", OPEN);
}

#[test]
fn endpoint_independent_mappings_carry_everything_plain() {
    through_a_gateway("plain", OPEN);
}

/// Everything by an instance public address, begun by either side.
fn by_an_instance_address(io: &str) {
    if !ready() {
        return;
    }
    let offload = io == "offload";
    let workers = if offload { 2 } else { 1 };
    let node = network(&["public", "internet", "far"], Variant { workers, ..DEFAULT }).start(&["--io", io]);
    extend(&node, FAR, offload);
    let capture = Capture::start(&node, "far", "eth0");
    let far = Web::serve(&node.site.lab, "far");
    let inside = Web::serve(&node.site.lab, "public");
    for family in [V4, V6] {
        assert_eq!(node.curl("public", &family.url(family.far)), family.instance);
        assert_eq!(node.curl("far", &family.url(family.instance)), family.far);
        for size in [56, 60_000] {
            ping(&node, "public", family.far, size);
            ping(&node, "far", family.instance, size);
        }
        assert_eq!(traces(&node, "far", family, family.instance), [family.edge, family.pool, family.instance]);
        iperf(&node, "public", "far", family.far);
        iperf(&node, "far", "public", family.instance);
    }
    drop((far, inside));
    let good = checksums(&capture.stop(), offload);
    for protocol in ["tcp", "udp", "icmp", "icmpv6"] {
        assert!(good.get(protocol) > Some(&5), "{good:?}");
    }
    node.finish();
}

#[test]
fn an_instance_address_works_both_ways_with_offload() {
    by_an_instance_address("offload");
}

#[test]
fn an_instance_address_works_both_ways_plain() {
    by_an_instance_address("plain");
}

#[test]
fn a_private_subnet_reaches_services_and_nothing_else() {
    if !ready() {
        return;
    }
    let node = network(&["closed", "internet", "storage"], DEFAULT).start(&[]);
    let capture = Capture::start(&node, "internet", "edge0");
    let _service = Web::serve(&node.site.lab, "storage");
    let _web = Web::serve(&node.site.lab, "internet");
    for family in [V4, V6] {
        assert_eq!(node.curl("closed", &family.url(family.service)), family.closed);
        ping(&node, "closed", family.service, 56);
        let refused = ["ping", "-c", "2", "-i", "0.1", "-W", "1", family.web];
        assert!(!node.site.lab.command("closed", &refused).output().expect("run ping").status.success());
    }
    let capture = capture.stop();
    assert_eq!(checksums(&capture, true).values().sum::<usize>(), 0, "the internet got packets");
    let status = node.finish();
    assert_eq!(dropped(&status, "no_outbound_address"), 4, "{:#}", status["counters"]);
}

#[test]
fn endpoint_traffic_does_not_take_the_nat_gateway() {
    if !ready() {
        return;
    }
    let node = network(&["vm1", "internet", "storage"], DEFAULT).start(&[]);
    let _service = Web::serve(&node.site.lab, "storage");
    let _web = Web::serve(&node.site.lab, "internet");
    for family in [V4, V6] {
        assert_eq!(node.curl("vm1", &family.url(family.service)), family.vm1);
        assert_eq!(node.curl("vm1", &family.url(family.web)), family.egress);
    }
    node.finish();
}
