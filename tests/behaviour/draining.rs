//! A node that drains: no flow begins, those that there are go on, and whoever would have been refused before still is, by the
//! same name.

use sidestep::path::flow::Phase;
use sidestep::path::{Answer, DropReason};

use crate::bench::Bench;
use crate::packets::{Tcp, echo, udp};
use crate::site::{A1, BY_GATEWAY, Connection, End, GATEWAY, SERVER, Site, WEB};

/// An endpoint of this node's subnet, with the addresses of a pool.
fn pooled() -> Bench {
    let pools = "[[snat_pool]]\nname = \"shared\"\naddresses = [\"100.64.9.1\"]\n";
    let one = r#"service_endpoints = [{ service = "Microsoft.Storage", source = { snat = "shared" } }]"#;
    Site { one, pools, ..Site::default() }.bench()
}

const DATA: End<'_> = End { port: "data", socket: ("20.60.1.10", 443) };

#[test]
fn flows_go_on_and_none_begins_until_it_ends() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    let open = Connection::open(&mut bench, A1, SERVER);
    bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    bench.drain(true);

    bench.forward("a1", open.out("PA", 1_001, 9_001), "internet");
    bench.forward("internet", open.back("A", 9_001, 1_001), "a1");
    bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"again"), "internet");
    // Without a word: who sends again may meet another gateway then.
    let syn = Tcp { from: ("10.1.1.4", 40_001), to: SERVER.socket, ..Tcp::default() };
    bench.dropped("a1", syn.bytes(), DropReason::Draining);
    bench.dropped("a1", udp(("10.1.1.4", 5_001), (WEB, 53), b"q"), DropReason::Draining);
    bench.dropped("a1", echo("10.1.1.4", WEB, false, 7, 64), DropReason::Draining);
    assert_eq!((bench.flows().len(), bench.report().dropped["draining"]), (2, 3));
    open.finish(&mut bench);

    bench.drain(false);
    let syn = Tcp { from: ("10.1.1.4", 40_001), to: SERVER.socket, ..Tcp::default() };
    bench.forward("a1", syn.bytes(), "internet");
}

#[test]
fn what_would_be_refused_keeps_its_name() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    bench.drain(true);
    bench.dropped("a1", udp(("10.9.9.9", 1), (WEB, 53), b"q"), DropReason::SpoofedSource);
    bench.dropped("internet", udp((WEB, 53), ("203.0.113.30", 4_000), b"q"), DropReason::NoMapping);
    // A connection whose mapping has ended hears at once that it is over, as without the drain.
    let midway = Tcp { from: A1.socket, to: SERVER.socket, flags: "A", ..Tcp::default() };
    bench.answered("a1", midway.bytes(), Answer::FlowEnded);
}

#[test]
fn a_connection_that_has_ended_does_not_begin_anew_by_its_ports() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    let ended = Connection::open(&mut bench, A1, SERVER);
    ended.finish(&mut bench);
    assert_eq!(bench.flows()[0].state.phase, Phase::Closed);
    bench.drain(true);
    let syn = Tcp { from: A1.socket, to: SERVER.socket, sequence: 500_000, ..Tcp::default() };
    bench.dropped("a1", syn.bytes(), DropReason::Draining);
    // What belongs to its end passes: an acknowledgment that was lost comes again.
    bench.forward("a1", ended.out("A", 1_002, 9_002), "internet");
}

#[test]
fn a_port_that_rests_wakes_up_for_nobody() {
    let mut bench = pooled();
    bench.forward("a1", udp(("10.1.1.4", 5_000), DATA.socket, b"q"), "data");
    bench.now += 241_000;
    bench.expire();
    assert_eq!(bench.flows()[0].state.phase, Phase::Resting);
    bench.drain(true);
    bench.dropped("a1", udp(("10.1.1.4", 5_000), DATA.socket, b"q"), DropReason::Draining);
    bench.drain(false);
    bench.forward("a1", udp(("10.1.1.4", 5_000), DATA.socket, b"q"), "data");
}

/// A change of the path ends TCP, and moves what has no connections: that is the conversation of before, not a new one.
#[test]
fn what_a_change_moves_goes_on() {
    let mut bench = Bench::new();
    let datagram = || udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"q");
    bench.forward("vm1", datagram(), "gateway");
    bench.drain(true);
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    bench.forward("vm1", datagram(), "contosodata");
    bench.dropped("vm1", udp(("10.1.1.4", 5_001), ("20.60.1.10", 443), b"q"), DropReason::Draining);
}
