//! Records of flows: what is told of what passes, and of what does not.

use std::collections::BTreeMap;

use sidestep::model::network::EndpointSource;
use sidestep::path::save::Refused;
use sidestep::path::{Answer, DropReason, SendFailure, Verdict};
use sidestep::telemetry::flow_record::{FlowEvent, FlowRecord};

use crate::bench::{Bench, NETWORK};
use crate::client::{self, Client, hello, name};
use crate::guarded::{Guarded, OWN, syn};
use crate::packets::{Tcp, echo, port_unreachable, udp};
use crate::restart::{older_by, restore, saved};

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

/// Both records of a connection that is denied: of the packet, and of its flow.
fn denied(bench: &mut Bench) -> (FlowRecord, FlowRecord) {
    let told = bench.told();
    let only = |event| {
        let mut of = told.iter().filter(|record| record.event == event);
        let found = of.next().unwrap_or_else(|| panic!("{event:?} in {told:#?}")).clone();
        assert!(of.next().is_none(), "{told:#?}");
        found
    };
    (only(FlowEvent::Denied), only(FlowEvent::End))
}

#[test]
fn who_is_denied_an_account_behind_a_shared_address_is_in_the_diagnostics_of_that_account() {
    let mut bench = logged(client::bench());
    let mut client = Client::open(&mut bench, 443);
    assert_eq!(client.send(&mut bench, &hello(&name("second"))), Verdict::Answered(Answer::PolicyDenied));
    bench.take();
    let (packet, end) = denied(&mut bench);
    for record in [&packet, &end] {
        assert_eq!(record.resource.as_deref(), Some("second"), "{record:#?}");
        assert_eq!(record.server_name.as_deref(), Some(name("second").as_str()));
        assert_eq!(record.identity.as_deref(), Some("blue/app"));
        assert_eq!(record.endpoint.as_deref(), Some("Microsoft.Storage"));
        assert_eq!(record.admitted, Some(false));
        assert_eq!(
            record.admission.as_deref(),
            Some("the endpoint policy only-first does not list the resource"),
            "which rule"
        );
        assert_eq!(record.presented.map(|presented| presented.address.to_string()).as_deref(), Some("10.1.1.4"));
    }
    assert_eq!((packet.reason.as_deref(), end.reason.as_deref()), (Some("policy_denied"), Some("denied")));
    // What still comes is told without the name: it asks for nothing any more.
    assert_eq!(client.send(&mut bench, b"more"), Verdict::Answered(Answer::Reset));
    bench.take();
    let later = only(&mut bench, FlowEvent::Denied);
    assert_eq!((later.reason.as_deref(), later.resource, later.server_name), (Some("reset"), None, None));
}

#[test]
fn a_connection_that_says_more_than_it_was_judged_by_is_told_with_its_resource() {
    let mut bench = logged(client::bench());
    let mut client = Client::open(&mut bench, 80);
    let request = format!("GET /c/b HTTP/1.1\r\nHost: {}\r\n\r\n", name("first"));
    assert!(matches!(client.send(&mut bench, request.as_bytes()), Verdict::Forwarded(_)));
    bench.take();
    assert_eq!(client.send(&mut bench, request.as_bytes()), Verdict::Answered(Answer::SecondRequest));
    bench.take();
    let (packet, end) = denied(&mut bench);
    for record in [&packet, &end] {
        assert_eq!(record.resource.as_deref(), Some("first"), "{record:#?}");
        assert_eq!(record.admitted, Some(false));
        let why = record.admission.as_deref().unwrap_or_default();
        assert!(why.starts_with("More than the request"), "{why}");
    }
}

/// What the first connection named is told with its end, though nothing is known of the name any more by then.
#[test]
fn a_connection_that_named_an_account_keeps_it_when_its_ports_are_used_again() {
    let mut bench = logged(client::bench());
    let mut client = Client::open(&mut bench, 443);
    assert!(matches!(client.send(&mut bench, &hello(&name("first"))), Verdict::Forwarded(_)));
    bench.take();
    client.acknowledge(&mut bench);
    bench.forward("blue1", client.packet("R", client.next, b""), "front");
    bench.told();
    bench.forward("blue1", client::another_syn(900_000), "front");
    let end = only(&mut bench, FlowEvent::End);
    assert_eq!((end.reason.as_deref(), end.resource.as_deref()), (Some("reused"), Some("first")), "{end:#?}");
    assert_eq!(end.admitted, Some(true));
}

#[test]
fn who_never_says_what_it_wants_is_told_without_a_name_that_another_gave() {
    let mut bench = logged(client::bench());
    let silent = Client::open(&mut bench, 443);
    bench.told();
    bench.now += 31_000;
    bench.expire();
    bench.take();
    let end = only(&mut bench, FlowEvent::End);
    assert_eq!((end.reason.as_deref(), end.resource, end.admitted), (Some("denied"), None, Some(false)));
    // Nothing of it is told with the next packet that is dropped.
    bench.inject("blue1", silent.packet("PA", 1_001, b"x"));
    let next = only(&mut bench, FlowEvent::Denied);
    assert_eq!((next.resource, next.server_name, next.presented), (None, None, None));
}

#[test]
fn who_is_denied_without_an_endpoint_is_told_with_the_address_that_the_firewall_saw() {
    let rule = r#"firewall = { default_action = "Deny", ip_rules = ["198.51.100.0/24"] }"#;
    let mut bench = logged(Guarded { own: rule, app: "", ..Guarded::default() }.bench());
    bench.answered("blue1", syn("10.1.1.4", OWN, 443), Answer::FirewallDenied);
    let denied = only(&mut bench, FlowEvent::Denied);
    let presented = denied.presented.expect("the public address");
    assert_eq!(Some(presented.address), bench.denials().take().unwrap().presented);
    assert_ne!(presented.address.to_string(), "10.1.1.4");
    assert_eq!(presented.port, 0, "no port was picked");
    assert_eq!((denied.resource.as_deref(), denied.identity, denied.endpoint), (Some("own"), None, None));
    assert_eq!(denied.admitted, Some(false));
    assert_eq!(denied.admission.as_deref(), Some("not over an endpoint, and no IP rule admits the address"));
}

#[test]
fn who_is_denied_over_an_endpoint_is_told_with_its_identity() {
    let rule = r#"firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "green/app" }] }"#;
    let mut bench = logged(Guarded { own: rule, ..Guarded::default() }.bench());
    bench.answered("blue1", syn("10.1.1.4", OWN, 443), Answer::FirewallDenied);
    let denied = only(&mut bench, FlowEvent::Denied);
    assert_eq!((denied.resource.as_deref(), denied.identity.as_deref()), (Some("own"), Some("blue/app")));
    let presented = denied.presented.expect("its own address");
    assert_eq!((presented.address.to_string().as_str(), presented.port), ("10.1.1.4", 40_000));
    assert_eq!(denied.admission.as_deref(), Some("over the endpoint, and no virtual network rule admits the subnet"));
}

/// A datagram of one of many flows of `vm1`.
fn datagram(number: u16) -> Vec<u8> {
    udp(("10.1.1.4", 10_000 + number), ("20.60.1.10", 443), b"q")
}

#[test]
fn a_flow_that_goes_on_is_told_every_five_minutes_with_what_passed_since() {
    let mut bench = logged(Bench::with_endpoint());
    let start = bench.now;
    let packet = storage(&mut bench, "contosodata");
    let answer = udp(("20.60.1.10", 443), ("10.1.1.4", 5_000), b"answer");
    bench.now += 7;
    bench.forward("contosodata", answer.clone(), "vm1");
    let mut told = Vec::new();
    for _ in 0..62 {
        bench.now += 10_000;
        bench.forward("vm1", packet.clone(), "contosodata");
        for _ in 0..10 {
            bench.expire();
            bench.now += 1_000;
        }
        bench.now -= 10_000;
        told.extend(bench.told());
    }
    let events: Vec<_> = told.iter().map(|record| (record.event, record.packets)).collect();
    assert_eq!(
        events,
        [
            (FlowEvent::Begin, [0, 0]),
            (FlowEvent::Reply, [0, 0]),
            (FlowEvent::Continue, [31, 1]),
            (FlowEvent::Continue, [30, 0]),
        ]
    );
    let (bytes, back) = (packet.len() as u64, answer.len() as u64);
    assert_eq!((told[2].bytes, told[3].bytes), ([31 * bytes, back], [30 * bytes, 0]));
    for (record, minutes) in told[2..].iter().zip([5, 10]) {
        let late = record.time - start - minutes * 60_000;
        assert!(late <= 20_000, "{late} ms late");
        assert_eq!((record.began, record.phase.as_deref()), (start, Some("datagram")));
    }
}

/// Lets the walk go on until it waits for the next second; gives how many records the largest step made.
fn walk(bench: &mut Bench, budget: usize) -> usize {
    let mut most = 0;
    let mut waiting = 0;
    while bench.forwarder.next_expiry().is_some_and(|at| at <= bench.now) {
        bench.forwarder.expire(bench.now, budget, &mut bench.sent);
        let now = bench.waiting();
        most = most.max(now - waiting);
        waiting = now;
    }
    most
}

#[test]
fn flows_that_were_there_before_are_told_in_turn_and_never_many_at_once() {
    const FLOWS: u16 = 3_000;
    const BUDGET: usize = 16;
    let mut bench = Bench::with_room(NETWORK, 4_000);
    for number in 0..FLOWS {
        bench.forward("vm1", datagram(number), "gateway");
    }
    bench.log(16_384);
    let start = bench.now;
    let mut by_port: BTreeMap<u16, u64> = BTreeMap::new();
    let mut in_ten_seconds = vec![0_u64; 32];
    for second in 0..312_u64 {
        assert!(walk(&mut bench, BUDGET) <= BUDGET, "a step is bounded");
        for record in bench.told() {
            assert_eq!(record.event, FlowEvent::Continue, "{record:#?}");
            // What passed before is not told.
            assert_eq!(record.packets[0], (record.time - start) / 100_000, "{record:#?}");
            *by_port.entry(record.source.expect("a source").port).or_default() += 1;
            in_ten_seconds[((record.time - start) / 10_000) as usize] += 1;
        }
        bench.now += 1_000;
        if second % 100 == 99 {
            for number in 0..FLOWS {
                bench.forward("vm1", datagram(number), "gateway");
            }
        }
    }
    assert_eq!(by_port.len(), usize::from(FLOWS), "all of them");
    // Those that were told first are due again at the end.
    assert!(by_port.values().filter(|told| **told != 1).count() < 150, "each once");
    // A round of ten seconds has what came due in it.
    assert!(in_ten_seconds[1..30].iter().all(|told| (50..=150).contains(told)), "{in_ten_seconds:?}");
}

#[test]
fn flows_that_go_on_leave_room_for_what_begins_and_ends() {
    const ROOM: usize = 64;
    let mut bench = Bench::new();
    for number in 0..200 {
        bench.forward("vm1", datagram(number), "gateway");
    }
    bench.log(ROOM);
    let mut told = 0;
    for _ in 0..4 {
        for _ in 0..80 {
            bench.expire();
            bench.now += 1_000;
        }
        for number in 0..200 {
            bench.forward("vm1", datagram(number), "gateway");
        }
        assert!(bench.waiting() <= ROOM / 2 + 1, "{} of {ROOM}", bench.waiting());
        // Nobody took anything, and what begins is told all the same.
        bench.forward("vm1", udp(("10.1.1.4", 9_000 + told as u16), ("20.60.1.10", 443), b"q"), "gateway");
        let records = bench.told();
        assert_eq!(records.iter().filter(|record| record.event == FlowEvent::Begin).count(), 1);
        told += records.len() - 1;
    }
    assert!(told > ROOM, "flows are told once there is room: {told}");
    assert_eq!(bench.lost().records, 0);
}

#[test]
fn a_flow_that_was_there_before_ends_with_what_passed_since() {
    let mut bench = Bench::new();
    let packet = storage(&mut bench, "gateway");
    bench.forward("vm1", packet.clone(), "gateway");
    bench.log(ROOM);
    bench.expire();
    bench.forward("vm1", packet, "gateway");
    bench.now += 300_000;
    bench.expire();
    let told = bench.told();
    let end = told.last().expect("its end");
    assert_eq!((end.event, end.reason.as_deref()), (FlowEvent::End, Some("expired")));
    let packets: u64 = told.iter().map(|record| record.packets[0]).sum();
    assert_eq!(packets, 1, "{told:#?}");
}

/// A connection of `vm1` to storage by the gateway, from its SYN to the end.
fn connection(bench: &mut Bench, sequence: u32) {
    let client = Tcp { from: ("10.1.1.4", 40_000), to: ("20.60.1.10", 443), ..Tcp::default() };
    let server = Tcp { from: client.to, to: client.from, ..client };
    let (next, answer) = (sequence.wrapping_add(1), sequence ^ 0x5555_5555);
    bench.forward("vm1", Tcp { flags: "S", sequence, ..client }.bytes(), "gateway");
    let packet = Tcp { flags: "SA", sequence: answer, acknowledgment: next, ..server };
    bench.forward("gateway", packet.bytes(), "vm1");
    let sequence = answer.wrapping_add(1);
    bench.forward("vm1", Tcp { flags: "A", sequence: next, acknowledgment: sequence, ..client }.bytes(), "gateway");
    let finish = Tcp { flags: "FA", sequence: next, acknowledgment: sequence, ..client };
    bench.forward("vm1", finish.bytes(), "gateway");
    let finished = Tcp { flags: "FA", sequence, acknowledgment: next.wrapping_add(1), ..server };
    bench.forward("gateway", finished.bytes(), "vm1");
}

#[test]
fn another_connection_on_the_same_ports_is_a_flow_of_its_own_from_its_syn_on() {
    let mut bench = logged(Bench::new());
    connection(&mut bench, 1_000);
    bench.now += 5;
    connection(&mut bench, 9_000_000);
    bench.now += 600_000;
    bench.expire();
    let told = bench.told();
    let events: Vec<_> = told.iter().map(|record| (record.event, record.reason.as_deref(), record.packets)).collect();
    assert_eq!(
        events,
        [
            (FlowEvent::Begin, None, [0, 0]),
            (FlowEvent::Reply, None, [0, 0]),
            (FlowEvent::End, Some("reused"), [3, 2]),
            (FlowEvent::Begin, None, [0, 0]),
            (FlowEvent::Reply, None, [0, 0]),
            (FlowEvent::End, Some("expired"), [3, 2]),
        ]
    );
    assert_eq!((told[2].phase.as_deref(), told[3].phase.as_deref()), (Some("closed"), Some("opening")));
    assert_eq!(told[3].began, 1_005);
}

#[test]
fn what_comes_again_after_its_port_rested_is_a_flow_of_its_own() {
    let mut bench = logged(Bench::new());
    let packet = udp(("10.1.3.4", 7), ("198.51.100.80", 53), b"q");
    bench.forward("vm3", packet.clone(), "internet");
    bench.now += 241_000;
    bench.expire();
    assert_eq!(bench.flows()[0].state.phase.name(), "resting");
    bench.told();
    bench.forward("vm3", packet, "internet");
    let told = bench.told();
    assert_eq!(told.iter().map(|record| record.event).collect::<Vec<_>>(), [FlowEvent::End, FlowEvent::Begin]);
    assert_eq!((told[0].packets, told[0].reason.as_deref()), ([1, 0], Some("reused")));
    assert_eq!((told[1].phase.as_deref(), told[1].began), (Some("datagram"), bench.now));
}

#[test]
fn an_error_about_a_flow_between_the_families_counts_as_it_came() {
    let mut bench = logged(Bench::new());
    bench.set_source("spoke/workload", EndpointSource::Identity6);
    let query = udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"query");
    let seen = bench.forward("vm1", query, "contosodata");
    let (source, service) = (seen.source.to_string(), seen.destination.to_string());
    let error = port_unreachable(&service, &source, &udp((&source, 5_000), (&service, 443), b"query"));
    let length = error.len() as u64;
    bench.told();
    bench.forward("contosodata", error, "vm1");
    let related = only(&mut bench, FlowEvent::Related);
    assert_eq!((related.packets, related.bytes), ([1, 0], [length, 0]));
    assert_eq!(related.source.expect("its source").address.to_string(), service);
}

#[test]
fn flows_of_ipv6_and_between_the_families_are_told_with_both_sides() {
    let mut bench = logged(Bench::new());
    bench.set_source("spoke/workload", EndpointSource::Identity6);
    let packet = udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"query");
    let seen = bench.forward("vm1", packet.clone(), "contosodata");
    let crossing = only(&mut bench, FlowEvent::Begin);
    let address = |socket: Option<sidestep::telemetry::flow_record::Socket>| socket.expect("a socket").address;
    assert_eq!(address(crossing.source).to_string(), "10.1.1.4");
    assert_eq!(address(crossing.presented), seen.source);
    assert_eq!(address(crossing.reached), seen.destination);
    assert_eq!(crossing.identity.as_deref(), Some("spoke/workload"));
    // Its bytes are those of IPv4, in both directions those that came.
    let back = udp((&seen.destination.to_string(), 443), (&seen.source.to_string(), 5_000), b"a");
    bench.forward("contosodata", back.clone(), "vm1");
    bench.now += 241_000;
    bench.expire();
    let end = only(&mut bench, FlowEvent::End);
    assert_eq!((end.packets, end.bytes), ([1, 1], [packet.len() as u64, back.len() as u64]));
    let plain = udp(("fd00:1:0:3::4", 7), ("fd00:1:0:1::4", 53), b"q");
    bench.forward("vm3", plain.clone(), "vm1");
    bench.now += 241_000;
    bench.expire();
    let told = bench.told();
    assert_eq!(told.iter().map(|record| record.event).collect::<Vec<_>>(), [FlowEvent::Begin, FlowEvent::End]);
    assert_eq!(address(told[0].source).to_string(), "fd00:1:0:3::4");
    assert_eq!((told[1].packets, told[1].bytes), ([1, 0], [plain.len() as u64, 0]));
}

#[test]
fn flows_say_why_they_ended() {
    // Another needed the room.
    let mut bench = Bench::with(&format!("{NETWORK}\n[flows]\nlimit = 8\n"));
    for number in 0..9 {
        bench.now += 100;
        bench.forward("vm1", datagram(number), "gateway");
    }
    let end = only(&mut bench, FlowEvent::End);
    assert_eq!((end.reason.as_deref(), end.packets), (Some("evicted"), [1, 0]));
    assert_eq!(end.source.expect("its source").port, 10_000, "the oldest");
    // The node ends: what is saved goes on, what cannot be does not.
    let rest = bench.rest(true);
    assert_eq!(rest.len(), 8);
    assert!(rest.iter().all(|record| record.event == FlowEvent::Continue && record.packets == [1, 0]));
    let rest = bench.rest(false);
    let stopped = |record: &FlowRecord| record.reason.as_deref() == Some("stopped") && record.packets == [0, 0];
    assert!(rest.iter().all(stopped), "told once: {rest:#?}");
    let mut undecided = client::bench();
    Client::open(&mut undecided, 443);
    let rest = undecided.rest(true);
    assert_eq!(rest[0].reason.as_deref(), Some("stopped"), "it is not saved");
}

#[test]
fn what_finds_no_room_is_counted_with_its_packets_and_bytes() {
    let mut bench = Bench::new();
    bench.log(4);
    let packet = udp(("10.1.1.4", 5_000), ("10.200.0.1", 7), b"nowhere");
    for _ in 0..3 {
        bench.inject("vm2", packet.clone());
    }
    storage(&mut bench, "gateway");
    let other = echo("10.1.1.4", "20.60.1.10", false, 9, 64);
    bench.forward("vm1", other.clone(), "gateway");
    bench.now += 241_000;
    bench.expire();
    let lost = bench.lost();
    let storage = udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"q");
    assert_eq!(lost.records, 3, "a begin and two ends");
    assert_eq!((lost.packets, lost.bytes), (2, (storage.len() + other.len()) as u64));
    assert_eq!(bench.told().len(), 4);
    bench.check_records();
}

#[test]
fn packets_that_could_not_leave_are_told_as_such() {
    let mut bench = logged(Bench::new());
    bench.sent.refuse = Some(SendFailure::QueueFull);
    bench.dropped("vm1", datagram(1), DropReason::EgressQueueFull);
    bench.sent.refuse = None;
    // The flow is there and has passed nothing.
    let told = bench.told();
    assert_eq!(told.iter().map(|record| record.event).collect::<Vec<_>>(), [FlowEvent::Begin, FlowEvent::Denied]);
    bench.forward("vm1", datagram(1), "gateway");
    let bytes = datagram(1).len() as u64;
    bench.forwarder.count_unsent(bench.now, bench.port("vm1"), SendFailure::QueueFull, 1, bytes);
    let unsent = only(&mut bench, FlowEvent::Unsent);
    assert_eq!((unsent.packets, unsent.bytes), ([1, 0], [bytes, 0]));
}

#[test]
fn restored_flows_go_on_from_what_was_told_and_keep_when_they_began() {
    let mut before = logged(Bench::with_endpoint());
    before.now += 640;
    let packet = storage(&mut before, "contosodata");
    let began = before.now;
    before.now += 100_000;
    before.forward("vm1", packet.clone(), "contosodata");
    assert_eq!(before.rest(true).len(), 1);
    let flows: Vec<_> = saved(&before).into_iter().map(|flow| older_by(flow, 6_400)).collect();
    let age = before.now + 6_400 - began;

    let mut after = logged(Bench::with_endpoint());
    after.now = 1_000_000;
    restore(&mut after, &flows);
    after.sweep();
    assert_eq!(after.told(), [], "it neither begins nor ends");
    after.forward("vm1", packet, "contosodata");
    after.now += 241_000;
    after.expire();
    let end = only(&mut after, FlowEvent::End);
    assert_eq!((end.packets, end.reason.as_deref()), ([1, 0], Some("expired")));
    assert!((1_000_000 - age..=1_000_000 - age + 64).contains(&end.began), "{} {age}", end.began);
    assert_eq!(end.endpoint.as_deref(), Some("Microsoft.Storage"));
}

#[test]
fn flows_that_are_not_restored_end() {
    let mut before = Bench::with_endpoint();
    storage(&mut before, "contosodata");
    let flow = saved(&before).remove(0);
    let mut after = logged(Bench::with_endpoint());
    after.now = 1_000_000;
    let told = |after: &mut Bench| {
        let end = only(after, FlowEvent::End);
        assert_eq!((end.packets, end.bytes), ([0; 2], [0; 2]), "its process has told them");
        assert_eq!(end.source.expect("its source").address.to_string(), "10.1.1.4");
        (end.reason.expect("why"), end.ingress)
    };
    assert_eq!(after.forwarder.restore(after.now, &older_by(flow, 600_000)), Err(Refused::Expired));
    assert_eq!(told(&mut after), ("expired".to_owned(), Some("vm1".to_owned())));
    assert_eq!(after.forwarder.restore(after.now, &flow), Ok(()));
    assert_eq!(after.forwarder.restore(after.now, &flow), Err(Refused::Taken));
    assert_eq!(told(&mut after).0, "reused");
    // A port that is gone is not taken for another of the same number.
    let mut bytes = Vec::new();
    flow.to_bytes(&mut bytes);
    let gone = |flow: &mut sidestep::path::save::SavedFlow| {
        let there = flow.map_ports(|port| (port != before.port("vm1")).then_some(port));
        Some(if there { Ok(()) } else { Err(Refused::Gone) })
    };
    let mut results = Vec::new();
    assert!(after.forwarder.restore_all(after.now, &mut bytes.as_slice(), 1, gone, |result| results.push(result)));
    assert_eq!(results, [Err(Refused::Gone)]);
    assert_eq!(told(&mut after), ("changed".to_owned(), None));
    assert_eq!(after.report().flows, 1);
}

#[test]
fn nothing_is_to_be_done_when_nobody_wants_records_any_more() {
    let mut bench = Bench::new();
    assert!(bench.forwarder.next_expiry().is_some(), "flows that go on are looked for");
    bench.log_nothing();
    assert_eq!(bench.forwarder.next_expiry(), None);
    let packet = storage(&mut bench, "gateway");
    // Others want them later: what passed meanwhile is not told.
    bench.log(ROOM);
    bench.expire();
    bench.forward("vm1", packet, "gateway");
    bench.now += 241_000;
    bench.expire();
    assert_eq!(only(&mut bench, FlowEvent::End).packets, [1, 0]);
}
