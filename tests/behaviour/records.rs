//! Records of flows: what is told of what passes, and of what does not.

use sidestep::telemetry::flow_record::{FlowEvent, FlowRecord};

use crate::bench::Bench;
use crate::packets::{Tcp, udp};

const ROOM: usize = 1_024;

fn logged(mut bench: Bench) -> Bench {
    bench.log(ROOM);
    bench
}

/// The only record of a kind.
#[track_caller]
fn only(bench: &mut Bench, event: FlowEvent) -> FlowRecord {
    let mut told = bench.told_of(event);
    assert_eq!(told.len(), 1, "{told:#?}");
    told.remove(0)
}

/// `10.1.1.4` talks to storage; gives its packet.
fn storage(bench: &mut Bench, to: &str) -> Vec<u8> {
    let packet = udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"q");
    bench.forward("vm1", packet.clone(), to);
    packet
}

#[test]
fn the_last_record_of_a_flow_that_a_change_ended_is_of_what_it_was_decided_under() {
    let mut bench = logged(Bench::with_endpoint());
    storage(&mut bench, "contosodata");
    bench.told();
    bench.set_endpoint("spoke/workload", false);
    bench.sweep();
    let end = only(&mut bench, FlowEvent::End);
    assert_eq!(end.reason.as_deref(), Some("changed"));
    assert_eq!(end.next_hop_type.as_deref(), Some("VirtualNetworkServiceEndpoint"));
    assert_eq!(end.endpoint.as_deref(), Some("Microsoft.Storage"));
    assert_eq!(end.identity.as_deref(), Some("spoke/workload"));
    assert_eq!((end.generation, end.packets), (2, [1, 0]));
}

#[test]
fn the_last_record_of_a_flow_of_a_nic_that_is_gone_tells_whose_it_was() {
    let mut bench = logged(Bench::new());
    storage(&mut bench, "gateway");
    bench.told();
    bench.change(|network| network.nics.retain(|nic| nic.name != "vm1"));
    bench.sweep();
    let end = only(&mut bench, FlowEvent::End);
    assert_eq!((end.ingress.as_deref(), end.egress.as_deref()), (Some("vm1"), Some("gateway")));
    let subnet = end.from_subnet.expect("it was in a subnet");
    assert_eq!((subnet.network.as_str(), subnet.subnet.as_str()), ("spoke", "workload"));
    assert_eq!((end.generation, end.packets), (1, [1, 0]));
}

#[test]
fn a_flow_that_outlives_changes_is_of_the_newest_and_ends_under_it() {
    let mut bench = logged(Bench::new());
    let packet = storage(&mut bench, "gateway");
    for generation in 2..9 {
        bench.set_endpoint("spoke/open", generation % 2 == 0);
        bench.forward("vm1", packet.clone(), "gateway");
    }
    // As many changes as that are not remembered without a sweep: the oldest that is stands for those before.
    let idle = udp(("10.1.1.4", 6_000), ("20.60.1.10", 443), b"q");
    bench.forward("vm1", idle, "gateway");
    bench.told();
    for _ in 0..6 {
        bench.set_endpoint("spoke/open", true);
    }
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    let ends = bench.told_of(FlowEvent::End);
    assert_eq!(ends.len(), 2, "{ends:#?}");
    for end in ends {
        assert_eq!((end.next_hop_type.as_deref(), end.endpoint), (Some("VirtualNetworkGateway"), None));
        assert_eq!(end.generation, 11, "of 8, with 15 in force");
    }
}

#[test]
fn what_an_older_generation_held_is_let_go_once_all_flows_are_decided_again() {
    let mut bench = logged(Bench::with_endpoint());
    storage(&mut bench, "contosodata");
    bench.told();
    let before = std::sync::Arc::downgrade(bench.forwarder.snapshot());
    bench.set_endpoint("spoke/open", true);
    assert!(before.upgrade().is_some(), "a flow is still of it");
    bench.sweep();
    assert!(before.upgrade().is_none());
    // It lives on: from now on it is of the newest.
    bench.set_endpoint("spoke/workload", false);
    let next = Tcp { from: ("10.1.1.4", 5_001), ..Tcp::default() };
    bench.forward("vm1", next.bytes(), "gateway");
    bench.sweep();
    let end = only(&mut bench, FlowEvent::End);
    assert_eq!(end.generation, 3);
    assert_eq!(end.endpoint.as_deref(), Some("Microsoft.Storage"));
}
