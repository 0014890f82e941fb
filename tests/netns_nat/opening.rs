//! TCP that both ends open at the same time (RFC 5382 REQ-2), and SYNs that nobody asked for (REQ-4).

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::mpsc;

use crate::conversation::{accept, listen};
use crate::network::{DEFAULT, Family, OPEN, V4, V6, Variant, dropped, network, ready};
use crate::node::{Node, PATIENCE};
use crate::sockets::{bound, connect_within, connected, talk};
use crate::support::{Process, wait_for};

/// A line that is slow enough for both SYNs to be on it at the same time.
const SLOW: &str = "\"2001:db8:ffff::129/128\"], link = { delay = \"100ms\" } }";

fn start(host: &str, translation: &str) -> Node {
    let site = network(&[host, "internet"], Variant { translation, ..DEFAULT });
    site.replace("\"2001:db8:ffff::129/128\"] }", SLOW).start(&[])
}

/// Connects two sockets to each other at once; neither listens, so only a simultaneous open succeeds.
#[track_caller]
fn meet(node: &Node, host: &str, local: SocketAddr, outside: SocketAddr, remote: SocketAddr) {
    let lab = &node.site.lab;
    let (inner, outer) = (bound(lab, host, local), bound(lab, "internet", remote));
    let (mut inner, mut outer) = std::thread::scope(|scope| {
        let other = scope.spawn(move || connected(outer, outside));
        (connected(inner, remote), other.join().expect("the other end"))
    });
    talk(&mut inner, &mut outer, "at the same time");
    assert_eq!(outer.peer_addr().expect("an address"), outside);
}

/// What the internet calls a TCP port: kept by a connection from it, which lives as long as what this gives.
#[track_caller]
fn known(node: &Node, family: Family, local: SocketAddr) -> (SocketAddr, impl Sized) {
    let server = listen(&node.site.lab, "internet", 7000);
    let there = connected(bound(&node.site.lab, "vm1", local), family.socket(family.web, 7000));
    let (here, outside) = accept(&server);
    (outside, (there, here))
}

#[test]
fn both_ends_open_at_once_through_endpoint_independent_mappings() {
    if !ready() {
        return;
    }
    let node = start("vm1", OPEN);
    for family in [V4, V6] {
        let local = family.socket(family.vm1, 4001);
        let (outside, _kept) = known(&node, family, local);
        meet(&node, "vm1", local, outside, family.socket(family.web, 6000));
    }
    node.finish();
}

#[test]
fn both_ends_open_at_once_by_an_instance_address() {
    if !ready() {
        return;
    }
    let node = start("public", "");
    for family in [V4, V6] {
        let (local, outside) = (family.socket(family.public, 4001), family.socket(family.instance, 4001));
        meet(&node, "public", local, outside, family.socket(family.web, 6000));
    }
    node.finish();
}

#[test]
fn a_syn_that_comes_too_early_is_met_by_one_from_inside() {
    if !ready() {
        return;
    }
    // The strictest filtering: the SYN from outside comes in only by the flow of one that went out.
    let node = start("vm1", "mapping = \"endpoint-independent\"");
    for family in [V4, V6] {
        let (local, remote) = (family.socket(family.vm1, 4001), family.socket(family.web, 6000));
        let (outside, _kept) = known(&node, family, local);
        let refused = dropped(&node.status(), "no_mapping");
        let outer = bound(&node.site.lab, "internet", remote);
        let (mut inner, mut outer) = std::thread::scope(|scope| {
            let other = scope.spawn(move || connected(outer, outside));
            wait_for("the first SYN is refused", PATIENCE, || {
                (dropped(&node.status(), "no_mapping") > refused).then_some(())
            });
            let inner = connected(bound(&node.site.lab, "vm1", local), remote);
            (inner, other.join().expect("the other end"))
        });
        talk(&mut inner, &mut outer, "after all");
    }
    node.finish();
}

/// The time that tcpdump saw something at, in seconds.
#[track_caller]
fn time(line: &str) -> f64 {
    let text = line.split(' ').next().and_then(|time| time.parse().ok());
    text.unwrap_or_else(|| panic!("tcpdump says {line}"))
}

fn strangers_wait(translation: &str) {
    if !ready() {
        return;
    }
    let node = network(&["vm1", "internet"], Variant { translation, ..DEFAULT }).start(&[]);
    for family in [V4, V6] {
        let to = family.socket(family.egress, 33_333);
        // IPv6 hosts look for routers all the time.
        // Each SYN that is sent again is answered six seconds later, too: those of the other family are not looked at.
        let filter = match family.option {
            "-4" => "ip and (tcp or icmp[icmptype] = icmp-unreach)",
            _ => "ip6 and (tcp or icmp6[icmp6type] = icmp6-destinationunreach)",
        };
        let arguments = ["tcpdump", "-tt", "-n", "-l", "-i", "edge0", filter];
        let mut command = node.site.lab.command("internet", &arguments);
        let mut tcpdump =
            Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start tcpdump"));
        let mut said = BufReader::new(tcpdump.0.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        assert!(said.any(|line| line.contains("listening on")), "tcpdump does not start");
        let lines = BufReader::new(tcpdump.0.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let (send, receive) = mpsc::channel();
        // Ends with tcpdump.
        std::thread::spawn(move || {
            for line in lines {
                let _nobody_listens = send.send(line);
            }
        });
        let stranger = bound(&node.site.lab, "internet", family.socket(family.web, 6000));
        let trying = std::thread::spawn(move || connect_within(stranger, to, PATIENCE));
        let next = || receive.recv_timeout(PATIENCE).expect("another packet");
        let first = next();
        assert!(first.contains("Flags [S]"), "{first}");
        let answer = loop {
            let line = next();
            if !line.contains("Flags [S]") {
                break line;
            }
        };
        assert!(answer.contains("unreachable"), "{answer}");
        assert!(answer.contains("port 33333") || answer.contains("unreachable port"), "{answer}");
        let silence = time(&answer) - time(&first);
        assert!(silence >= 6.0, "an answer after {silence} s");
        assert!(trying.join().expect("the stranger").is_err());
    }
    node.finish();
}

#[test]
fn strangers_hear_nothing_for_six_seconds_and_then_that_the_port_is_unreachable() {
    strangers_wait("");
}

#[test]
fn strangers_wait_as_long_where_mappings_are_endpoint_independent() {
    strangers_wait(OPEN);
}
