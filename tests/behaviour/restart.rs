//! Flows that are saved by one forwarder and taken in by the next.

use sidestep::model::network::EndpointSource;
use sidestep::path::Answer;
use sidestep::path::flow::Phase;
use sidestep::path::save::{Refused, SavedFlow};
use sidestep::snapshot::PortId;

use crate::bench::Bench;
use crate::packets::{Tcp, udp};
use crate::site::{BY_GATEWAY, Site, WEB};

/// The flows of a node as another one reads them.
pub(crate) fn saved(bench: &Bench) -> Vec<SavedFlow> {
    let mut bytes = Vec::new();
    bench.forwarder.save(bench.now, |flow| flow.to_bytes(&mut bytes));
    let mut from = bytes.as_slice();
    let flows = std::iter::from_fn(|| SavedFlow::from_bytes(&mut from)).collect();
    assert!(from.is_empty(), "every byte is a flow's");
    flows
}

pub(crate) fn older_by(mut flow: SavedFlow, milliseconds: u64) -> SavedFlow {
    flow.grow_older(milliseconds);
    flow
}

/// The flow with other numbers of its ports.
fn with_ports(mut flow: SavedFlow, map: impl Fn(PortId) -> PortId) -> SavedFlow {
    assert!(flow.map_ports(|port| Some(map(port))));
    flow
}

pub(crate) fn restore(bench: &mut Bench, flows: &[SavedFlow]) {
    for flow in flows {
        bench.forwarder.restore(bench.now, flow).expect("taken in");
    }
}

/// A connection from `vm3` to a web site, established.
fn connect(bench: &mut Bench) -> u16 {
    let client = Tcp { from: ("10.1.3.4", 5_000), to: ("198.51.100.80", 80), ..Tcp::default() };
    let out = bench.forward("vm3", Tcp { flags: "S", sequence: 100, ..client }.bytes(), "internet");
    let port = out.source_port;
    let server = Tcp { from: ("198.51.100.80", 80), to: ("203.0.113.200", port), ..Tcp::default() };
    let answer = Tcp { flags: "SA", sequence: 900, acknowledgment: 101, ..server };
    bench.forward("internet", answer.bytes(), "vm3");
    bench.forward("vm3", Tcp { flags: "A", sequence: 101, acknowledgment: 901, ..client }.bytes(), "internet");
    port
}

#[test]
fn a_translated_connection_keeps_its_port_in_both_directions() {
    let mut before = Bench::new();
    let port = connect(&mut before);
    let mut after = Bench::new();
    restore(&mut after, &saved(&before));
    assert_eq!(after.report().flows, 1);
    // The server speaks first: without the flow nobody would know for whom it is.
    let server = Tcp { from: ("198.51.100.80", 80), to: ("203.0.113.200", port), ..Tcp::default() };
    let back = after.forward("internet", Tcp { flags: "A", sequence: 901, ..server }.bytes(), "vm3");
    assert_eq!((back.destination.to_string().as_str(), back.destination_port), ("10.1.3.4", 5_000));
    let client = Tcp { from: ("10.1.3.4", 5_000), to: ("198.51.100.80", 80), ..Tcp::default() };
    let out = after.forward("vm3", Tcp { flags: "A", sequence: 101, ..client }.bytes(), "internet");
    assert_eq!((out.source.to_string().as_str(), out.source_port), ("203.0.113.200", port));
    let flow = after.flows().remove(0);
    assert_eq!(flow.state.phase, Phase::Established);
    assert_eq!(flow.state.packets, [3, 2], "counts go on");
    assert_eq!(after.report().flows_kept, 1);
    assert_eq!(after.report().flows_created, 0);
}

#[test]
fn the_sweep_decides_what_no_packet_meets() {
    let mut before = Bench::new();
    connect(&mut before);
    before.forward("vm3", udp(("fd00:1:0:3::4", 7), ("2001:db8:80::80", 53), b"q"), "internet");
    let mut after = Bench::new();
    restore(&mut after, &saved(&before));
    assert!(after.flows().iter().all(|flow| flow.state.generation == 0));
    after.sweep();
    assert!(after.flows().iter().all(|flow| flow.state.generation == 1));
    assert_eq!((after.report().flows_kept, after.report().flows_reset), (2, 0));
}

#[test]
fn a_connection_whose_path_changed_meanwhile_is_reset() {
    let mut before = Bench::with_endpoint();
    let packet = Tcp { from: ("10.1.1.4", 40_000), flags: "S", sequence: 10, ..Tcp::default() };
    before.forward("vm1", packet.bytes(), "contosodata");
    let answer = Tcp { from: packet.to, to: packet.from, flags: "SA", sequence: 70, acknowledgment: 11, ..packet };
    before.forward("contosodata", answer.bytes(), "vm1");
    let mut after = Bench::new();
    restore(&mut after, &saved(&before));
    let next = Tcp { from: ("10.1.1.4", 40_000), flags: "A", sequence: 11, acknowledgment: 71, ..Tcp::default() };
    let sent = after.answered("vm1", next.bytes(), Answer::Reset);
    assert!(sent.iter().any(|(port, _)| port == "vm1"), "the client is told");
    assert_eq!(after.report().flows_reset, 1);
}

/// Two hosts behind pools of their own, which reach each other by their outside sockets.
fn two_pools() -> Bench {
    let open = "mapping = \"endpoint-independent\"\nfiltering = \"endpoint-independent\"\n";
    let pools = format!("[[nat_gateway]]\nname = \"egress\"\npublic_addresses = [\"203.0.113.30\"]\n{open}");
    Site { one: BY_GATEWAY, pools: &pools, edge: open, ..Site::default() }.bench()
}

#[test]
fn a_hairpin_between_two_pools_survives_in_any_order() {
    let mut before = two_pools();
    let from = |port| ("10.1.1.4", port);
    let one = before.forward("a1", udp(from(5_000), (WEB, 53), b"q"), "internet");
    let two = before.forward("b1", udp(from(6_000), (WEB, 53), b"q"), "internet");
    let (one, two) = ((one.source.to_string(), one.source_port), (two.source.to_string(), two.source_port));
    before.forward("a1", udp(from(5_000), (&two.0, two.1), b"x"), "b1");
    let flows = saved(&before);
    assert_eq!(flows.len(), 3);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut after = two_pools();
        restore(&mut after, &order.map(|place| flows[place]));
        after.sweep();
        assert_eq!(after.report().flows_kept, 3, "{order:?}");
        // Both ways go on by the outside sockets that there were, and both sockets are still their hosts'.
        after.forward("b1", udp(from(6_000), (&one.0, one.1), b"y"), "a1");
        after.forward("a1", udp(from(5_000), (&two.0, two.1), b"z"), "b1");
        for (host, port, outside) in [("a1", 5_000, &one), ("b1", 6_000, &two)] {
            let seen = after.forward(host, udp(from(port), (WEB, 54), b"q"), "internet");
            assert_eq!((seen.source.to_string(), seen.source_port), *outside, "{order:?}");
        }
    }
}

#[test]
fn a_connection_between_the_families_is_told_where_that_translation_is_gone() {
    let client = ("10.1.1.4", 40_000);
    let syn = Tcp { from: client, to: ("20.60.1.10", 443), ..Tcp::default() };
    let mut before = Bench::new();
    before.set_source("spoke/workload", EndpointSource::Identity6);
    let seen = before.forward("vm1", syn.bytes(), "contosodata");
    let (from, to) = (seen.destination.to_string(), seen.source.to_string());
    let answer = Tcp {
        from: (&from, 443),
        to: (&to, client.1),
        flags: "SA",
        sequence: 9_000,
        acknowledgment: 1_001,
        ..Tcp::default()
    };
    before.forward("contosodata", answer.bytes(), "vm1");
    let next = Tcp { flags: "A", sequence: 1_001, acknowledgment: 9_001, ..syn };
    before.forward("vm1", next.bytes(), "contosodata");
    let mut after = Bench::with_endpoint();
    restore(&mut after, &saved(&before));
    let sent = after.answered("vm1", Tcp { payload: b"x", ..next }.bytes(), Answer::Reset);
    assert_eq!(sent.len(), 2, "both ends are told: {sent:?}");
    assert_eq!(after.report().flows_created, 0, "its packets begin nothing of their own");
}

#[test]
fn age_goes_on_where_it_was() {
    let mut before = Bench::new();
    before.forward("vm3", udp(("10.1.3.4", 7), ("198.51.100.80", 53), b"q"), "internet");
    before.now += 200_000;
    let flow = saved(&before).remove(0);
    assert!((199_936..=200_000).contains(&flow.age()), "rounded to 64 ms: {}", flow.age());
    let mut after = Bench::new();
    after.now = 300_000;
    assert_eq!(after.forwarder.restore(after.now, &older_by(flow, 40_064)), Err(Refused::Expired));
    assert_eq!(after.forwarder.restore(after.now, &older_by(flow, 39_000)), Ok(()));
    after.sweep();
    after.now += 900;
    after.expire();
    assert_eq!(after.flows()[0].state.phase.name(), "datagram");
    after.now += 200;
    after.expire();
    assert_eq!(after.flows()[0].state.phase.name(), "resting", "its public port rests");
}

#[test]
fn a_flow_is_taken_in_once_and_not_over_another() {
    let mut before = Bench::new();
    connect(&mut before);
    let flows = saved(&before);
    let mut after = Bench::new();
    restore(&mut after, &flows);
    assert_eq!(after.forwarder.restore(after.now, &flows[0]), Err(Refused::Taken));
    assert_eq!(after.forwarder.flow_count(), 1);
}

#[test]
fn a_flow_goes_to_the_ports_that_it_is_given() {
    let mut before = Bench::new();
    connect(&mut before);
    let mut after = Bench::new();
    // As if the internet edge had another number now: then it is not where the flow went, and the flow has moved.
    let internet = after.port("internet");
    let other = after.port("gateway");
    let flow = saved(&before).remove(0);
    assert!(!flow.clone().map_ports(|port| (port != internet).then_some(port)));
    let moved = with_ports(flow, |port| if port == internet { other } else { port });
    restore(&mut after, &[moved]);
    assert_eq!(after.flows()[0].sides.egress, other);
    after.sweep();
    assert_eq!(after.flows()[0].state.phase, Phase::Reset);
    after.take();
    // Numbers that no port has lead to a flow without a way, which ends: nobody is there to hear of it.
    let mut empty = Bench::new();
    let unknown = with_ports(flow, |port| PortId(port.0 + 1_000));
    restore(&mut empty, &[unknown]);
    empty.sweep();
    assert_eq!(empty.flows()[0].state.phase, Phase::Reset);
    assert!(empty.take().is_empty());
}
