//! ICMP errors that match a mapping, true or forged, end nothing (RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6).

use std::net::{IpAddr, SocketAddr};

use sidestep::packet::checksum;

use crate::conversation::{accept, listen};
use crate::network::{DEFAULT, Family, OPEN, V4, V6, Variant, network, ready};
use crate::node::{Node, PATIENCE};
use crate::sockets::{Icmp, bound, connected, receive, talk, udp};
use crate::support::wait_for;

/// How many errors of each kind.
const FLOOD: u64 = 3_000;

/// An ICMP error that says that a packet could not be delivered, with the quote of the packet: its IP header and the
/// first eight bytes behind it.
fn unreachable(code: u8, protocol: u8, from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    let mut quoted = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 60, protocol, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = !checksum::sum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 20, protocol, 60];
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        _ => panic!("{from} and {to} are of two families"),
    };
    quoted.extend(from.port().to_be_bytes());
    quoted.extend(to.port().to_be_bytes());
    if protocol == 17 {
        // Length and checksum.
        quoted.extend([0, 20, sequence as u8, 1]);
    } else {
        quoted.extend(sequence.to_be_bytes());
    }
    let kind = if from.is_ipv4() { 3 } else { 1 };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.append(&mut quoted);
    if from.is_ipv4() {
        let sum = !checksum::sum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    // The kernel fills in the checksum of ICMPv6.
    message
}

/// Sends errors about a conversation to its outer address, of every code that ends a conversation for some stacks, and
/// waits until the node has passed them on: they are no strangers'.
#[track_caller]
fn flood(node: &Node, family: Family, protocol: u8, outside: SocketAddr, remote: SocketAddr) {
    let socket = Icmp::open(&node.site.lab, "internet", outside.ip());
    // Host, protocol, port unreachable and administratively prohibited.
    let codes: &[u8] = if family.option == "-4" { &[1, 2, 3, 13] } else { &[1, 3, 4] };
    let before = forwarded(node);
    for number in 0..FLOOD {
        let code = codes[number as usize % codes.len()];
        socket.send(&unreachable(code, protocol, outside, remote, number as u32), outside.ip());
    }
    wait_for("the flood is through", PATIENCE, || (forwarded(node) >= before + FLOOD).then_some(()));
}

fn forwarded(node: &Node) -> u64 {
    node.status()["counters"]["forwarded"].as_u64().expect("a number")
}

fn survives(host: &str, translation: &str) {
    if !ready() {
        return;
    }
    let node = network(&[host, "internet"], Variant { translation, ..DEFAULT }).start(&[]);
    let lab = &node.site.lab;
    let server = listen(lab, "internet", 7000);
    for family in [V4, V6] {
        let address = if host == "vm1" { family.vm1 } else { family.public };
        let remote = family.socket(family.web, 7000);
        let mut there = connected(bound(lab, host, family.socket(address, 4001)), remote);
        let (mut here, outside) = accept(&server);
        talk(&mut there, &mut here, "before");
        flood(&node, family, 6, outside, remote);
        talk(&mut there, &mut here, "and after");

        let inside = udp(lab, host, family.socket(address, 4002));
        let far = udp(lab, "internet", family.socket(family.web, 7001));
        inside.send_to(b"before", family.socket(family.web, 7001)).expect("send");
        let outside = receive(&far, b"before");
        flood(&node, family, 17, outside, family.socket(family.web, 7001));
        // The mapping lets the far end in still, and stands for the same socket.
        far.send_to(b"in", outside).expect("send");
        assert_eq!(receive(&inside, b"in"), family.socket(family.web, 7001));
        inside.send_to(b"out", family.socket(family.web, 7001)).expect("send");
        assert_eq!(receive(&far, b"out"), outside);
    }
    let status = node.finish();
    assert_eq!(status["counters"]["flows_reset"], 0, "{:#}", status["counters"]);
}

#[test]
fn a_flood_of_errors_ends_no_mapping() {
    survives("vm1", "");
}

#[test]
fn a_flood_of_errors_ends_no_endpoint_independent_mapping() {
    survives("vm1", OPEN);
}

#[test]
fn a_flood_of_errors_ends_nothing_at_an_instance_address() {
    survives("public", "");
}
