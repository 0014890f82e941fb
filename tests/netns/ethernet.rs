//! TUN on one side, a wire on the other: the internet edge and a service attached by Ethernet.

use crate::conversation::Web;
use crate::node::{Site, WORKLOAD, port_counter};
use crate::site::{FAMILIES, ip, veth};
use crate::support::privileged;

/// A veth pair whose one end, in the namespace `wires`, is the node's to attach to.
fn wire(site: &Site, host: &str, device: &str, addresses: &[&str]) {
    let lab = &site.lab;
    veth(lab, (host, device), ("wires", device));
    // The kernel has no business there.
    ip(lab, "wires", &["link", "set", device, "addrgenmode", "none"]);
    for address in addresses {
        let more: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        ip(lab, host, &[&["address", "add", address, "dev", device], more].concat());
    }
}

fn passes(io: &str) {
    let site = Site::new(&["vm1", "vm3", "internet", "storage", "wires"]);
    wire(&site, "internet", "edge0", &["203.0.113.130/30", "2001:db8:ffff:1::2/64"]);
    wire(&site, "storage", "store0", &["20.60.1.10/24", "2603:1020:206:100::10/64"]);
    for (host, to, via) in [
        ("internet", "203.0.113.200", "203.0.113.129"),
        ("internet", "2001:db8:ffff::200", "2001:db8:ffff:1::1"),
        ("storage", "0.0.0.0/0", "20.60.1.1"),
        ("storage", "::/0", "2603:1020:206:100::1"),
    ] {
        ip(&site.lab, host, &["route", "add", to, "via", via]);
    }
    let (internet, storage) = (site.lab.name("internet"), site.lab.name("storage"));
    let wires = site.lab.name("wires");
    let edge = format!(
        r#"{{ ethernet = "edge0", netns = "{wires}", addresses = ["203.0.113.129/30", "2001:db8:ffff:1::1/64"], next_hop = ["203.0.113.130", "2001:db8:ffff:1::2"] }}"#
    );
    let store = format!(
        r#"{{ ethernet = "store0", netns = "{wires}", addresses = ["20.60.1.1/24", "2603:1020:206:100::1/64"] }}"#
    );
    let before = format!(
        r#"{{ tun = "edge0", netns = "{internet}", addresses = ["203.0.113.129/32", "2001:db8:ffff::129/128"] }}"#
    );
    let site = site.replace(&before, &edge);
    let node = site.replace(&format!(r#"{{ tun = "eth0", netns = "{storage}" }}"#), &store).start(&["--io", io]);
    let _service = Web::serve(&node.site.lab, "storage");
    let _web = Web::serve(&node.site.lab, "internet");
    node.endpoint(WORKLOAD, true);
    for family in FAMILIES {
        for (vm, gateway, server, address, source) in [
            ("vm1", family.gateways[0], "storage", family.service, family.vms[0]),
            ("vm3", family.gateways[2], "internet", family.web, family.public),
        ] {
            node.ping(vm, address);
            assert_eq!(node.trace(vm, family.option, address), [gateway, address]);
            assert_eq!(node.curl(vm, &family.url(address)), source);
            node.iperf_both(vm, server, address);
        }
    }
    let status = node.finish();
    for port in ["internet", "contosodata"] {
        for counter in ["offload_fallbacks", "invalid_frames"] {
            assert_eq!(port_counter(&status, port, counter), 0, "{port} {counter}");
        }
        assert!(port_counter(&status, port, "super_packets_in") > 0, "{port}");
        let out = port_counter(&status, port, "super_packets_out");
        assert_eq!(out > 0, io == "offload", "{port}: {out} super-packets left");
    }
    for vm in ["vm1", "vm3"] {
        let cut = port_counter(&status, vm, "cut_in_software");
        assert_eq!(cut > 0, io == "plain", "{vm}: {cut} super-packets cut");
    }
}

#[test]
fn wires_carry_what_tun_does_with_offload() {
    if privileged() {
        passes("offload");
    }
}

#[test]
fn wires_carry_what_plain_tun_does() {
    if privileged() {
        passes("plain");
    }
}
