//! The two paths to a service: down the forced tunnel, and over the backbone once the endpoint is on.

use serde_json::Value;

use crate::conversation::Web;
use crate::node::{Node, Site, WORKLOAD, port_counter};
use crate::site::{FAMILIES, Family};
use crate::support::privileged;

/// The same traffic on both paths, both ways.
fn both_paths(io: &str, family: Family) -> Value {
    let node = Site::new(&["vm1", "onprem", "internet", "storage"]).start(&["--io", io]);
    let _service = Web::serve(&node.site.lab, "storage");
    let _web = Web::serve(&node.site.lab, "internet");
    let Family { service, web, onprem_public, .. } = family;

    let tunnel = [family.gateways[0], family.onprem, family.internet, family.public, service];
    traffic(&node, family, &tunnel, onprem_public);
    assert_eq!(node.curl("vm1", &family.url(web)), onprem_public);

    node.endpoint(WORKLOAD, true);
    traffic(&node, family, &[family.gateways[0], service], family.vms[0]);
    assert_eq!(node.curl("vm1", &family.url(web)), onprem_public, "the web site stays in the tunnel");
    node.ping("vm1", web);

    node.endpoint(WORKLOAD, false);
    assert_eq!(node.curl("vm1", &family.url(service)), onprem_public);
    node.finish()
}

fn traffic(node: &Node, family: Family, path: &[&str], source: &str) {
    node.ping("vm1", family.service);
    assert_eq!(node.trace("vm1", family.option, family.service), path);
    assert_eq!(node.curl("vm1", &family.url(family.service)), source);
    node.iperf_both("vm1", "storage", family.service);
}

fn with_offload(family: Family) {
    if !privileged() {
        return;
    }
    let status = both_paths("offload", family);
    assert!(status["counters"]["received_super"].as_u64() > Some(100), "{:#}", status["counters"]);
    for port in ["vm1", "contosodata", "gateway", "internet"] {
        for counter in ["super_packets_in", "super_packets_out"] {
            assert!(port_counter(&status, port, counter) > 0, "{port} {counter}");
        }
        for counter in ["offload_fallbacks", "invalid_headers"] {
            assert_eq!(port_counter(&status, port, counter), 0, "{port} {counter}");
        }
    }
}

fn without_offload(family: Family) {
    if !privileged() {
        return;
    }
    let status = both_paths("plain", family);
    assert_eq!(status["counters"]["received_super"], 0);
    for port in ["vm1", "contosodata", "gateway", "internet"] {
        assert_eq!(port_counter(&status, port, "cut_in_software"), 0, "{port}");
    }
}

#[test]
fn both_paths_carry_ipv4_with_offload() {
    with_offload(FAMILIES[0]);
}

#[test]
fn both_paths_carry_ipv6_with_offload() {
    with_offload(FAMILIES[1]);
}

#[test]
fn both_paths_carry_ipv4_plain() {
    without_offload(FAMILIES[0]);
}

#[test]
fn both_paths_carry_ipv6_plain() {
    without_offload(FAMILIES[1]);
}
