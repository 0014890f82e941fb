//! How many flows there may be, who has to go when there are too many, and what the refused are told.

use std::cell::Cell;

use sidestep::packet::frame::Frame;
use sidestep::path::{DropReason, Forwarder, Verdict};

use crate::bench::{Bench, Sent};
use crate::packets::{Tcp, udp};
use crate::site::{A1, Connection, End, SERVER, Site, WEB};

fn limited(node: &str) -> Bench {
    Site { node, ..Site::default() }.bench()
}

/// A UDP packet from a NIC, by its port.
fn ask(address: &str, port: u16) -> Vec<u8> {
    udp((address, port), (WEB, 53), b"q")
}

/// Opens a connection from a port of a1.
fn open(bench: &mut Bench, port: u16) -> Connection<'static> {
    Connection::open(bench, End { port: "a1", socket: ("10.1.1.4", port) }, SERVER)
}

fn has(bench: &Bench, address: &str, port: u16) -> bool {
    bench.flows().iter().any(|flow| flow.sides.source == (address.parse().unwrap(), port))
}

/// Refused by name, and its sender is told that it is administratively prohibited.
#[track_caller]
fn refused(bench: &mut Bench, port: &str, packet: Vec<u8>, reason: DropReason) {
    assert_eq!(bench.inject(port, packet), Verdict::Dropped(reason));
    let sent = bench.take();
    assert_eq!(sent.len(), 1, "the sender is told");
    assert_eq!((sent[0].0.as_str(), sent[0].1.icmp), (port, Some((3, 13))));
}

#[test]
fn the_oldest_transient_flow_goes_where_the_node_is_full() {
    let mut bench = limited("[flows]\nlimit = 4\n");
    open(&mut bench, 40_000);
    for port in 1..=3 {
        bench.now += 1_000;
        bench.forward("a1", ask("10.1.1.4", port), "internet");
    }
    bench.now += 1_000;
    bench.forward("a2", ask("10.1.1.5", 9), "internet");
    assert!(!has(&bench, "10.1.1.4", 1), "the oldest that nobody answered");
    assert!(has(&bench, "10.1.1.4", 2) && has(&bench, "10.1.1.4", 3) && has(&bench, "10.1.1.5", 9));
    assert!(has(&bench, "10.1.1.4", 40_000), "connections stay");
    assert_eq!((bench.forwarder.flow_count(), bench.report().flows_evicted), (4, 1));
}

#[test]
fn the_port_of_a_flow_that_made_room_is_free_at_once() {
    let pools = "[[snat_pool]]\nname = \"narrow\"\naddresses = [\"100.64.9.1\"]\nports = \"2000-2000\"\n";
    let one = r#"service_endpoints = [{ service = "Microsoft.Storage", source = { snat = "narrow" } }]"#;
    let mut bench = Site { one, pools, node: "[flows]\nlimit = 2\n", ..Site::default() }.bench();
    let service = |from: &'static str| udp((from, 5_000), ("20.60.1.10", 443), b"q");
    assert_eq!(bench.forward("a1", service("10.1.1.4"), "data").source_port, 2_000);
    refused(&mut bench, "a2", service("10.1.1.5"), DropReason::NoFreePort);
    bench.now += 1_000;
    bench.forward("a1", ask("10.1.1.4", 1), "internet");
    // Now the node is full, and the flow of a1 to the service makes room.
    assert_eq!(bench.forward("a2", service("10.1.1.5"), "data").source_port, 2_000, "it does not rest");
    assert_eq!(bench.report().flows_evicted, 1);
}

#[test]
fn what_is_open_or_answered_is_never_ended_for_others() {
    let mut bench = limited("[flows]\nlimit = 2\n");
    let connection = open(&mut bench, 40_000);
    let asked = bench.forward("a1", ask("10.1.1.4", 1), "internet");
    bench.forward("internet", udp((WEB, 53), ("203.0.113.200", asked.source_port), b"a"), "a1");
    refused(&mut bench, "a2", ask("10.1.1.5", 9), DropReason::FlowTableFull);
    refused(
        &mut bench,
        "a1",
        Tcp { from: ("10.1.1.4", 2), to: (WEB, 80), ..Tcp::default() }.bytes(),
        DropReason::FlowTableFull,
    );
    // Both go on; when one is over, there is room.
    bench.forward("a1", ask("10.1.1.4", 1), "internet");
    connection.finish(&mut bench);
    bench.forward("a2", ask("10.1.1.5", 9), "internet");
    assert_eq!(bench.report().flows_evicted, 1);
}

#[test]
fn a_nic_has_a_limit_of_its_own() {
    let mut bench = limited("[flows]\nlimit_per_nic = 2\n");
    open(&mut bench, 40_000);
    open(&mut bench, 40_001);
    refused(&mut bench, "a1", ask("10.1.1.4", 1), DropReason::FlowLimitOfNic);
    // Its neighbour is not touched, nor does it lose a flow for it.
    bench.forward("a2", ask("10.1.1.5", 1), "internet");
    bench.forward("a2", ask("10.1.1.5", 2), "internet");
    refused(&mut bench, "a1", ask("10.1.1.4", 1), DropReason::FlowLimitOfNic);
    assert!(has(&bench, "10.1.1.5", 1) && has(&bench, "10.1.1.5", 2));
    // A transient flow of its own goes.
    bench.forward("a2", ask("10.1.1.5", 3), "internet");
    assert!(!has(&bench, "10.1.1.5", 1), "the oldest of its own");
    assert_eq!(bench.forwarder.flow_count(), 4);
}

#[test]
fn what_comes_in_counts_for_the_nic_that_it_comes_to() {
    let node = "[flows]\nlimit_per_nic = 1\n";
    let a1 = r#"public_addresses = ["203.0.113.40"]"#;
    let mut bench = Site { node, a1, ..Site::default() }.bench();
    open(&mut bench, 40_000);
    let syn = Tcp { from: (WEB, 9), to: ("203.0.113.40", 22), ..Tcp::default() };
    assert_eq!(bench.inject("internet", syn.bytes()), Verdict::Dropped(DropReason::FlowLimitOfNic));
    bench.take();
    bench.forward("a2", ask("10.1.1.5", 1), "internet");
}

#[test]
fn a_limit_that_is_raised_counts_at_once() {
    let mut bench = limited("[flows]\nlimit = 1\n");
    open(&mut bench, 40_000);
    refused(&mut bench, "a1", ask("10.1.1.4", 1), DropReason::FlowTableFull);
    bench.change(|network| network.flows.limit = 2);
    bench.forward("a1", ask("10.1.1.4", 1), "internet");
}

#[test]
fn a_flood_of_syns_ends_no_connection() {
    let mut bench = limited("[flows]\nlimit = 100\n");
    let connection = Connection::open(&mut bench, A1, SERVER);
    for port in 1..=2_000 {
        bench.now += 1;
        let syn = Tcp { from: ("10.1.1.5", port), to: (WEB, 80), ..Tcp::default() };
        bench.forward("a2", syn.bytes(), "internet");
    }
    bench.forward("a1", connection.out("PA", 1_001, 9_001), "internet");
    bench.forward("internet", connection.back("PA", 9_001, 1_001), "a1");
    let report = bench.report();
    assert_eq!((bench.forwarder.flow_count(), report.flows_evicted), (100, 1_901));
}

#[test]
fn a_flood_of_one_family_leaves_room_for_the_other() {
    for node in ["[flows]\nlimit = 10\n", "[flows]\nlimit_per_nic = 10\n"] {
        let mut bench = limited(node);
        for port in 1..=20 {
            bench.forward("a1", ask("10.1.1.4", port), "internet");
        }
        let six = udp(("fd00:1:0:1::4", 1), (crate::site::WEB6, 53), b"q");
        bench.forward("a1", six, "internet");
        assert_eq!((bench.forwarder.flow_count(), bench.report().flows_evicted), (10, 11), "{node}");
        for port in 1..=20 {
            let six = udp(("fd00:1:0:1::4", port), (crate::site::WEB6, 53), b"q");
            bench.forward("a1", six, "internet");
        }
        bench.forward("a1", ask("10.1.1.4", 99), "internet");
        assert_eq!(bench.forwarder.flow_count(), 10, "{node}");
    }
}

#[test]
fn a_flood_at_one_worker_leaves_room_for_the_flows_of_another() {
    let bench = limited("[flows]\nlimit = 16\n");
    let [mut zero, mut one] = bench.workers();
    let (mut sent, a1, a2) = (Sent::default(), bench.port("a1"), bench.port("a2"));
    let now = Cell::new(1_000);
    let mut packet = |worker: &mut Forwarder, port, bytes: Vec<u8>| {
        worker.receive(now.get(), port, &mut Frame::from_packet(&bytes), &mut sent)
    };
    let mut flood = (1..).map(|port| ask("10.1.1.5", port));
    for bytes in flood.by_ref().take(30) {
        assert!(matches!(packet(&mut one, a2, bytes), Verdict::Forwarded(_)), "it makes room of its own");
    }
    for round in 1..=5 {
        // It has nothing to end for it, and nobody can be waited for; the next flow of the other makes room for both.
        let new = || ask("10.1.1.4", round);
        assert_eq!(packet(&mut zero, a1, new()), Verdict::Dropped(DropReason::FlowTableFull));
        for bytes in flood.by_ref().take(30) {
            assert!(matches!(packet(&mut one, a2, bytes), Verdict::Forwarded(_)));
        }
        assert_eq!(one.flow_count() + zero.flow_count(), 15, "one room is kept");
        assert!(matches!(packet(&mut zero, a1, new()), Verdict::Forwarded(_)), "round {round}");
        assert_eq!((zero.flow_count(), one.flow_count()), (1, 15));
        // It is transient itself until it is answered: let it go, so that the next round finds nothing to end.
        for _ in 0..2 {
            now.set(now.get() + 1_000_000);
            zero.expire(now.get(), usize::MAX, &mut Sent::default());
        }
        assert_eq!(zero.flow_count(), 0);
        let bytes = flood.next().unwrap();
        assert!(matches!(packet(&mut one, a2, bytes), Verdict::Forwarded(_)), "nothing is kept any more");
        assert_eq!(one.flow_count(), 16);
    }
}

/// What nat.md says of a NIC at its limit: its own transient flow is looked for among the 64 of its worker that would end first.
#[test]
fn a_nic_at_its_limit_is_refused_behind_64_transient_flows_of_others() {
    for (others, room) in [(63, true), (64, false)] {
        let mut bench = limited("[flows]\nlimit_per_nic = 64\n");
        for port in 1..=others {
            bench.forward("a1", ask("10.1.1.4", port), "internet");
        }
        bench.now += 10_000;
        for port in 1..=64 {
            bench.forward("a2", ask("10.1.1.5", port), "internet");
        }
        let verdict = bench.inject("a2", ask("10.1.1.5", 99));
        bench.take();
        assert_eq!(matches!(verdict, Verdict::Forwarded(_)), room, "{others}: {verdict:?}");
        assert!(room || verdict == Verdict::Dropped(DropReason::FlowLimitOfNic));
    }
}
