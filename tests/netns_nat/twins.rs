//! Two virtual networks with equal prefixes, and hosts in them with equal addresses, use one service at the same time
//! from the same ports.

use std::time::Duration;

use crate::conversation::{accept, listen};
use crate::network::{DEFAULT, Family, IDENTITY, TWIN_IDENTITY, V4, V6, Variant, dropped, network, ready};
use crate::node::{Node, PATIENCE};
use crate::sockets::{bound, connect_within, connected, receive, talk, udp};
use crate::support::{Process, wait_for_end};

/// Two sources of `vm1` and `twin`, and what the service calls them in the families that they have.
struct Sources {
    one: &'static str,
    two: &'static str,
    seen: &'static [(Family, [&'static str; 2])],
}

/// Both hosts hold a TCP connection and a UDP conversation from the same ports at the same time, each with its own
/// words, while both ping with the same identifier.
fn talks(node: &Node, family: Family, seen: [&str; 2]) {
    let lab = &node.site.lab;
    let (local, service) = (family.socket(family.vm1, 4001), family.socket(family.service, 7000));
    let pings = ["vm1", "twin"].map(|host| {
        let ping = ["ping", "-q", "-e", "77", "-c", "20", "-i", "0.05", "-W", "3", family.service];
        Process(lab.command(host, &ping).stdout(std::process::Stdio::null()).spawn().expect("start ping"))
    });
    let listener = listen(lab, "storage", 7000);
    let mut ends = ["vm1", "twin"].map(|host| {
        let client = connected(bound(lab, host, local), service);
        let (server, from) = accept(&listener);
        (client, server, from)
    });
    let sockets = ["vm1", "twin"].map(|host| udp(lab, host, local));
    let server = udp(lab, "storage", std::net::SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 7000));
    for round in 0..20 {
        for ((client, end, _), host) in ends.iter_mut().zip(["vm1", "twin"]) {
            talk(client, end, &format!("{host} says {round}"));
        }
        for (socket, expected) in sockets.iter().zip(seen) {
            let words = format!("{expected} says {round}");
            socket.send_to(words.as_bytes(), service).expect("send");
            let from = receive(&server, words.as_bytes());
            assert_eq!(from.ip().to_canonical().to_string(), expected);
            server.send_to(words.as_bytes(), from).expect("send");
            assert_eq!(receive(socket, words.as_bytes()), service);
        }
    }
    for ((_, _, from), expected) in ends.iter().zip(seen) {
        assert_eq!(from.ip().to_string(), expected);
    }
    for mut ping in pings {
        assert!(wait_for_end("ping ends", PATIENCE, &mut ping.0).success(), "a ping was not answered");
    }
}

fn share(sources: &Sources) {
    if !ready() {
        return;
    }
    let variant = Variant { one: sources.one, two: sources.two, ..DEFAULT };
    let node = network(&["vm1", "twin", "storage"], variant).start(&[]);
    for (family, seen) in sources.seen {
        talks(&node, *family, *seen);
    }
    let status = node.finish();
    assert_eq!(dropped(&status, "flow_conflict"), 0, "{:#}", status["counters"]);
}

#[test]
fn twins_share_a_service_by_mapped_prefixes() {
    share(&Sources {
        one: r#"{ prefix_map = ["100.64.1.0/24", "fd00:64:1::/64"] }"#,
        two: r#"{ prefix_map = ["100.64.2.0/24", "fd00:64:2::/64"] }"#,
        seen: &[(V4, ["100.64.1.4", "100.64.2.4"]), (V6, ["fd00:64:1::4", "fd00:64:2::4"])],
    });
}

#[test]
fn twins_share_a_service_by_identities() {
    share(&Sources { one: "\"identity6\"", two: "\"identity6\"", seen: &[(V4, [IDENTITY, TWIN_IDENTITY])] });
}

#[test]
fn twins_share_a_service_by_one_pool() {
    share(&Sources {
        one: r#"{ snat = "shared" }"#,
        two: r#"{ snat = "shared" }"#,
        seen: &[(V4, [V4.shared, V4.shared]), (V6, [V6.shared, V6.shared])],
    });
}

#[test]
fn of_twins_with_private_addresses_the_second_is_refused() {
    if !ready() {
        return;
    }
    let node = network(&["vm1", "twin", "storage"], DEFAULT).start(&[]);
    let lab = &node.site.lab;
    let listener = listen(lab, "storage", 7000);
    for family in [V4, V6] {
        let (local, service) = (family.socket(family.vm1, 4001), family.socket(family.service, 7000));
        let mut client = connected(bound(lab, "vm1", local), service);
        let (mut server, from) = accept(&listener);
        assert_eq!(from, local);
        let before = dropped(&node.status(), "flow_conflict");
        assert!(connect_within(bound(lab, "twin", local), service, Duration::from_secs(2)).is_err());
        assert!(dropped(&node.status(), "flow_conflict") > before, "{:#}", node.status()["counters"]);
        talk(&mut client, &mut server, "the first goes on");
        // From another port there is nothing to mix up.
        let mut twin = connected(bound(lab, "twin", family.socket(family.vm1, 4002)), service);
        let (mut other, _) = accept(&listener);
        talk(&mut twin, &mut other, "the second from another port");
        talk(&mut client, &mut server, "and the first still");
    }
    node.finish();
}
