//! Every source mode of an endpoint: what the service sees, that every protocol works, and that every checksum is right
//! on the wire behind both devices, whether super-packets go through the node or not.

use crate::capture::{Capture, checksums};
use crate::chain::{GUEST, SERVER, extend};
use crate::conversation::Web;
use crate::network::{DEFAULT, Family, IDENTITY, V4, V6, Variant, dropped, network, ping, ready, traces};
use crate::node::Node;

/// What a mode shows the service, for each family that it takes.
struct Mode {
    source: &'static str,
    seen: &'static [(Family, &'static str)],
    /// Whether the service speaks the other family. Then its router shows as the service in a trace, having no IPv4
    /// address, and ICMP in fragments does not pass: its checksum covers the whole length in one family alone (RFC 7915
    /// section 1.2).
    crosses: bool,
}

const PRIVATE: Mode = Mode { source: "\"private\"", seen: &[(V4, V4.vm1), (V6, V6.vm1)], crosses: false };

const PREFIX_MAP: Mode = Mode {
    source: r#"{ prefix_map = ["100.64.1.0/24", "fd00:64:1::/64"] }"#,
    seen: &[(V4, "100.64.1.4"), (V6, "fd00:64:1::4")],
    crosses: false,
};

const IDENTITY6: Mode = Mode { source: "\"identity6\"", seen: &[(V4, IDENTITY)], crosses: true };

const SNAT: Mode = Mode { source: r#"{ snat = "shared" }"#, seen: &[(V4, V4.shared), (V6, V6.shared)], crosses: false };

/// Everything that a mode has to carry.
fn carries(io: &str, mode: &Mode) {
    if !ready() {
        return;
    }
    let offload = io == "offload";
    let workers = if offload { 2 } else { 1 };
    let site = network(&["vm1", "guest", "storage", "server"], Variant { one: mode.source, workers, ..DEFAULT });
    let node = site.start(&["--io", io]);
    extend(&node, GUEST, offload);
    extend(&node, SERVER, offload);
    let captures = [Capture::start(&node, "guest", "eth0"), Capture::start(&node, "server", "eth0")];
    let web = Web::serve(&node.site.lab, "server");
    for (family, source) in mode.seen {
        converses(&node, *family, source);
        if mode.crosses {
            let ping = ["ping", "-c", "1", "-W", "1", "-s", "60000", family.service];
            assert!(!node.site.lab.command("guest", &ping).output().expect("run ping").status.success());
            assert!(dropped(&node.status(), "untranslatable") > 0);
        } else {
            ping(&node, "guest", family.service, 60_000);
        }
        let place = usize::from(family.option == "-6");
        let router = if mode.crosses { family.service } else { SERVER.router[place] };
        let hops = [GUEST.router[place], family.gateway, router, family.service];
        assert_eq!(traces(&node, "guest", *family, family.service), hops);
    }
    drop(web);
    let [guest, server] = captures.map(|capture| checksums(&capture.stop(), offload));
    let status = node.finish();
    for (host, good) in [("guest", &guest), ("server", &server)] {
        for (protocol, most) in [("tcp", 100), ("udp", 10), ("icmp", 3), ("icmpv6", 3)] {
            let absent = match protocol {
                "icmp" => mode.crosses && host == "server",
                "icmpv6" => mode.crosses && host == "guest",
                _ => false,
            };
            let count = good.get(protocol).copied().unwrap_or(0);
            assert!(absent || count >= most, "{host} got {count} packets of {protocol} with a checksum: {good:?}");
        }
    }
    let supers = status["counters"]["received_super"].as_u64();
    assert_eq!(supers > Some(10), offload, "{:#}", status["counters"]);
}

/// Ping, web, TCP both ways and UDP both ways, in whole packets and in fragments.
fn converses(node: &Node, family: Family, source: &str) {
    let service = family.service;
    ping(node, "guest", service, 56);
    assert_eq!(node.curl("guest", &family.url(service)), source);
    for arguments in [
        &["-n", "4M"][..],
        &["-n", "4M", "-R"],
        &["-u", "-b", "10M", "-t", "1", "-l", "1200"],
        &["-u", "-b", "10M", "-t", "1", "-l", "1200", "-R"],
        &["-u", "-b", "10M", "-t", "1", "-l", "8000"],
        &["-u", "-b", "10M", "-t", "1", "-l", "8000", "-R"],
    ] {
        node.iperf("guest", "server", service, arguments);
    }
}

#[test]
fn private_addresses_with_offload() {
    carries("offload", &PRIVATE);
}

#[test]
fn private_addresses_plain() {
    carries("plain", &PRIVATE);
}

#[test]
fn mapped_prefixes_with_offload() {
    carries("offload", &PREFIX_MAP);
}

#[test]
fn mapped_prefixes_plain() {
    carries("plain", &PREFIX_MAP);
}

#[test]
fn identities_with_offload() {
    carries("offload", &IDENTITY6);
}

#[test]
fn identities_plain() {
    carries("plain", &IDENTITY6);
}

#[test]
fn pools_with_offload() {
    carries("offload", &SNAT);
}

#[test]
fn pools_plain() {
    carries("plain", &SNAT);
}

#[test]
fn an_identity_has_no_room_for_ipv6() {
    if !ready() {
        return;
    }
    let node = network(&["vm1", "storage"], Variant { one: IDENTITY6.source, ..DEFAULT }).start(&[]);
    ping(&node, "vm1", V4.service, 56);
    let refused = ["ping", "-c", "2", "-i", "0.1", "-W", "1", V6.service];
    assert!(!node.site.lab.command("vm1", &refused).output().expect("run ping").status.success());
    let status = node.finish();
    assert_eq!(dropped(&status, "no_source_address"), 2, "{:#}", status["counters"]);
}
