//! Flows across changes: an endpoint is switched under them.

use sidestep::model::network::EndpointSource;
use sidestep::packet::frame::Frame;
use sidestep::path::{Answer, DropReason, SendFailure, Verdict};

use crate::bench::{Bench, NETWORK, Sent};
use crate::packets::{Seen, Tcp, echo, fix_header, udp, udp_with_hops};

const CLIENT: (&str, u16) = ("10.1.1.4", 40_000);
const SERVICE: (&str, u16) = ("20.60.1.10", 443);

/// Opens a TCP connection from vm1 to the service through a port; both sides have then acknowledged.
fn connect(bench: &mut Bench, through: &str) {
    bench.forward("vm1", Tcp { from: CLIENT, to: SERVICE, ..Tcp::default() }.bytes(), through);
    let answer =
        Tcp { from: SERVICE, to: CLIENT, flags: "SA", sequence: 9_000, acknowledgment: 1_001, ..Tcp::default() };
    bench.forward(through, answer.bytes(), "vm1");
    bench.forward("vm1", data(1_001, 9_001, b"").bytes(), through);
}

fn data(sequence: u32, acknowledgment: u32, payload: &'static [u8]) -> Tcp<'static> {
    Tcp { from: CLIENT, to: SERVICE, flags: "A", sequence, acknowledgment, payload, ..Tcp::default() }
}

/// A fragment of an IPv4 packet: these bytes of what follows the header.
fn fragment(whole: &[u8], identification: u16, bytes: std::ops::Range<usize>, more: bool) -> Vec<u8> {
    let mut piece = whole[..20].to_vec();
    piece.extend(&whole[20..][bytes.clone()]);
    let length = piece.len() as u16;
    piece[2..4].copy_from_slice(&length.to_be_bytes());
    piece[4..6].copy_from_slice(&identification.to_be_bytes());
    let field = (bytes.start / 8) as u16 | if more { 0x2000 } else { 0 };
    piece[6..8].copy_from_slice(&field.to_be_bytes());
    fix_header(&mut piece);
    piece
}

fn reset_to<'a>(sent: &'a [(String, Seen)], port: &str) -> Vec<&'a Seen> {
    sent.iter().filter(|(name, _)| name == port).map(|(_, seen)| seen).collect()
}

#[test]
fn an_open_connection_is_reset_at_both_ends_when_its_path_changes() {
    let mut bench = Bench::new();
    connect(&mut bench, "gateway");
    bench.set_endpoint("spoke/workload", true);
    let sent = bench.answered("vm1", data(1_001, 9_001, b"hello").bytes(), Answer::Reset);
    let client = reset_to(&sent, "vm1");
    assert_eq!(client.len(), 1);
    let tcp = client[0].tcp.as_ref().unwrap();
    assert!(tcp.reset);
    assert_eq!(tcp.sequence, 9_001, "exactly what the client expects next");
    assert_eq!(client[0].source.to_string(), "20.60.1.10");
    let service = reset_to(&sent, "gateway");
    assert_eq!(service.len(), 1);
    assert_eq!(service[0].tcp.as_ref().unwrap().sequence, 1_001, "exactly what the service expects next");
    assert_eq!(service[0].source.to_string(), "10.1.1.4");
    assert_eq!(bench.report().flows_reset, 1);
    // The packet that met the change has not leaked to either path, and a new connection takes the new one.
    let again = Tcp { from: ("10.1.1.4", 40_001), ..Tcp::default() };
    bench.forward("vm1", again.bytes(), "contosodata");
}

#[test]
fn an_idle_connection_is_reset_without_a_packet() {
    let mut bench = Bench::new();
    connect(&mut bench, "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    let sent = bench.take();
    assert_eq!(reset_to(&sent, "vm1").len(), 1);
    assert_eq!(reset_to(&sent, "gateway").len(), 1);
    assert_eq!(bench.report().flows_reset, 1);
}

#[test]
fn data_that_is_not_acknowledged_yet_is_covered_by_a_second_reset() {
    let mut bench = Bench::new();
    connect(&mut bench, "gateway");
    let response = Tcp {
        from: SERVICE,
        to: CLIENT,
        flags: "A",
        sequence: 9_001,
        acknowledgment: 1_001,
        payload: b"12345",
        ..Tcp::default()
    };
    bench.forward("gateway", response.bytes(), "vm1");
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    let sent = bench.take();
    let sequences: Vec<_> = reset_to(&sent, "vm1").iter().map(|seen| seen.tcp.as_ref().unwrap().sequence).collect();
    assert_eq!(sequences, [9_001, 9_006]);
}

#[test]
fn what_still_comes_of_a_reset_connection_is_answered_with_what_it_acknowledges() {
    let mut bench = Bench::new();
    connect(&mut bench, "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    bench.take();
    let late = Tcp { from: SERVICE, to: CLIENT, flags: "A", sequence: 9_500, acknowledgment: 1_777, ..Tcp::default() };
    let sent = bench.answered("gateway", late.bytes(), Answer::Reset);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, "gateway");
    assert_eq!(sent[0].1.tcp.as_ref().unwrap().sequence, 1_777);
    // A reset is not answered with a reset.
    bench.dropped("gateway", Tcp { flags: "R", ..late }.bytes(), DropReason::FlowMoved);
    // The same ports may be used again at once.
    bench.forward("vm1", Tcp { from: CLIENT, to: SERVICE, ..Tcp::default() }.bytes(), "contosodata");
}

#[test]
fn the_switch_back_resets_too() {
    let mut bench = Bench::with_endpoint();
    connect(&mut bench, "contosodata");
    bench.set_endpoint("spoke/workload", false);
    let sent = bench.answered("vm1", data(1_001, 9_001, b"x").bytes(), Answer::Reset);
    assert_eq!(reset_to(&sent, "contosodata").len(), 1);
    bench.forward("vm1", Tcp { from: ("10.1.1.4", 40_002), ..Tcp::default() }.bytes(), "gateway");
}

#[test]
fn a_syn_without_an_answer_moves_without_a_reset() {
    let mut bench = Bench::new();
    let syn = Tcp { from: CLIENT, to: SERVICE, ..Tcp::default() };
    bench.forward("vm1", syn.bytes(), "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.forward("vm1", syn.bytes(), "contosodata");
    assert_eq!(bench.report().flows_reset, 0);
}

#[test]
fn other_protocols_move_over_with_the_next_packet() {
    let mut bench = Bench::new();
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"1"), "gateway");
    bench.forward("vm1", echo("10.1.1.4", "20.60.1.10", false, 3, 64), "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"2"), "contosodata");
    bench.forward("contosodata", udp(SERVICE, ("10.1.1.4", 5_000), b"3"), "vm1");
    bench.dropped("gateway", echo("20.60.1.10", "10.1.1.4", true, 3, 64), DropReason::FlowMoved);
    assert_eq!(bench.report().flows_moved, 2);
}

#[test]
fn flows_that_a_change_does_not_touch_live_on() {
    let mut bench = Bench::new();
    let web = Tcp { to: ("198.51.100.80", 80), ..Tcp::default() };
    bench.forward("vm1", web.bytes(), "gateway");
    bench.forward("vm2", udp(("10.1.2.4", 1), ("10.1.3.4", 1), b""), "vm3");
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    assert!(bench.take().is_empty());
    let report = bench.report();
    assert_eq!((report.flows_kept, report.flows_reset, report.flows_moved), (2, 0, 0));
    bench.forward("vm1", Tcp { flags: "A", sequence: 1_001, ..web }.bytes(), "gateway");
    assert_eq!(bench.report().flow_hits, 1);
}

#[test]
fn a_connection_whose_way_is_gone_is_reset_and_a_new_one_is_dropped_by_the_routes_name() {
    let mut bench = Bench::new();
    connect(&mut bench, "gateway");
    bench.change(|network| network.gateway = None);
    let sent = bench.answered("vm1", data(1_001, 9_001, b"x").bytes(), Answer::Reset);
    assert_eq!(sent.len(), 1, "the other end is beyond a port that is gone: {sent:?}");
    assert_eq!(reset_to(&sent, "vm1")[0].tcp.as_ref().unwrap().sequence, 9_001);
    let late = bench.answered("vm1", data(1_002, 9_050, b"y").bytes(), Answer::Reset);
    assert_eq!(reset_to(&late, "vm1")[0].tcp.as_ref().unwrap().sequence, 9_050);
    bench.dropped("vm1", Tcp { from: CLIENT, to: SERVICE, ..Tcp::default() }.bytes(), DropReason::NoGateway);
    let late = Tcp { from: SERVICE, to: CLIENT, flags: "A", sequence: 9_001, acknowledgment: 1_001, ..Tcp::default() };
    bench.dropped("contosodata", late.bytes(), DropReason::Unsolicited);
}

#[test]
fn an_endpoint_switched_off_where_nothing_else_leads_out_resets_both_ends() {
    let mut bench = Bench::with_endpoint();
    bench.change(|network| {
        let subnet = network.find_subnet("spoke/workload").unwrap();
        let subnet = &mut network.virtual_networks[subnet.virtual_network].subnets[subnet.subnet];
        subnet.route_table = None;
        subnet.default_outbound_access = false;
    });
    connect(&mut bench, "contosodata");
    bench.set_endpoint("spoke/workload", false);
    bench.sweep();
    let sent = bench.take();
    assert_eq!((reset_to(&sent, "vm1").len(), reset_to(&sent, "contosodata").len()), (1, 1));
    assert_eq!(bench.report().flows_reset, 1);
    let again = Tcp { from: ("10.1.1.4", 40_003), to: SERVICE, ..Tcp::default() };
    bench.dropped("vm1", again.bytes(), DropReason::NoOutboundAddress);
}

#[test]
fn ports_keep_their_numbers_across_changes() {
    let mut bench = Bench::new();
    let before: Vec<_> = ["vm1", "vm4", "gateway", "internet", "contosodata"].map(|name| bench.port(name)).to_vec();
    bench.change(|network| {
        network.nics.remove(1);
    });
    let after: Vec<_> = ["vm1", "vm4", "gateway", "internet", "contosodata"].map(|name| bench.port(name)).to_vec();
    assert_eq!(before, after);
}

#[test]
fn a_late_reply_on_the_old_path_does_not_draw_a_flow_back_to_it() {
    let mut bench = Bench::new();
    let (client, service) = (("10.1.1.4", 5_000), SERVICE);
    bench.forward("vm1", udp(client, service, b"1"), "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    for _ in 0..3 {
        bench.dropped("gateway", udp(service, client, b"late"), DropReason::FlowMoved);
    }
    bench.forward("vm1", udp(client, service, b"2"), "contosodata");
    bench.dropped("gateway", udp(service, client, b"later"), DropReason::EndpointBypassed);
    bench.forward("vm1", udp(client, service, b"3"), "contosodata");
}

/// What comes late from the old path finds no way back to it, and the next packet of the client goes the new way.
fn only_the_new_path_is_left(bench: &mut Bench) {
    bench.dropped("gateway", udp(SERVICE, ("10.1.1.4", 5_000), b"late"), DropReason::FlowMoved);
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"on"), "contosodata");
    bench.dropped("gateway", udp(SERVICE, ("10.1.1.4", 5_000), b"later"), DropReason::EndpointBypassed);
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"on"), "contosodata");
}

#[test]
fn a_later_fragment_does_not_open_the_old_path_again() {
    let mut bench = Bench::new();
    let whole = udp(("10.1.1.4", 5_000), SERVICE, &[7; 40]);
    bench.inject("vm1", fragment(&whole, 7, 0..24, true));
    bench.sent.packets.clear();
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    bench.dropped("vm1", fragment(&whole, 7, 24..48, false), DropReason::FragmentWithoutFlow);
    only_the_new_path_is_left(&mut bench);
}

#[test]
fn a_probe_whose_hop_limit_ends_does_not_open_the_old_path_again() {
    let mut bench = Bench::new();
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"1"), "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    bench.answered("vm1", udp_with_hops(("10.1.1.4", 5_000), SERVICE, b"probe", 1), Answer::TimeExceeded);
    only_the_new_path_is_left(&mut bench);
}

#[test]
fn a_packet_that_gets_no_port_does_not_open_the_old_path_again() {
    let mut bench = Bench::with(
        &(NETWORK.to_owned()
            + "\n[[snat_pool]]\nname = \"few\"\naddresses = [\"100.64.9.1\"]\nports = \"5000-5000\"\n"),
    );
    let few = EndpointSource::Snat(0);
    bench.set_source("spoke/open", few.clone());
    bench.forward("vm3", udp(("10.1.3.4", 1), SERVICE, b"has the port"), "contosodata");
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"1"), "gateway");
    bench.set_source("spoke/workload", few);
    bench.sweep();
    assert_eq!(bench.inject("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"2")), Verdict::Dropped(DropReason::NoFreePort));
    bench.take();
    bench.set_source("spoke/workload", EndpointSource::Private);
    bench.sweep();
    only_the_new_path_is_left(&mut bench);
}

#[test]
fn a_nic_at_its_limit_moves_its_flow_into_the_room_that_it_had() {
    let mut bench = Bench::with(&(NETWORK.to_owned() + "\n[flows]\nlimit_per_nic = 1\n"));
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"1"), "gateway");
    bench.set_source("spoke/workload", EndpointSource::Identity6);
    bench.sweep();
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"2"), "contosodata");
    bench.set_source("spoke/workload", EndpointSource::Private);
    bench.sweep();
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"3"), "contosodata");
    assert_eq!((bench.flows().len(), bench.report().flows_evicted), (1, 0));
}

#[test]
fn a_late_reply_conflicts_with_a_flow_between_the_families_too() {
    let routes = r#"
[[route_table]]
name = "inwards"
routes = [
  { name = "spoke", address_prefix = "10.1.2.0/24", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.4" },
]
"#;
    let subnet = "name = \"GatewaySubnet\"\n";
    let document = NETWORK.replace(subnet, &format!("{subnet}  route_table = \"inwards\"\n")) + routes;
    let mut bench = Bench::with(&document);
    bench.set_source("hub/appliances", EndpointSource::Identity6);
    // The appliance passes on what vm2 sends.
    let client = ("10.1.2.4", 5_000);
    bench.forward("appliance", udp(client, SERVICE, b"1"), "contosodata");
    // The packets of the flow that is there would look like the replies to this.
    bench.dropped("gateway", udp(SERVICE, client, b"late"), DropReason::FlowConflict);
    bench.forward("appliance", udp(client, SERVICE, b"2"), "contosodata");
    // Whichever worker has that flow.
    let ([mut zero, mut one], mut sent) = (bench.workers(), Sent::default());
    let (appliance, gateway) = (bench.port("appliance"), bench.port("gateway"));
    let mut ask = Frame::from_packet(&udp(client, SERVICE, b"1"));
    let verdict = zero.receive(1_000, appliance, &mut ask, &mut sent);
    assert_eq!(verdict, Verdict::Forwarded(bench.port("contosodata")));
    let mut late = Frame::from_packet(&udp(SERVICE, client, b"late"));
    let verdict = one.receive(1_000, gateway, &mut late, &mut sent);
    assert_eq!(verdict, Verdict::Dropped(DropReason::FlowConflict));
}

/// A segment in the middle of the client's connection, from the service.
fn from_service(flags: &'static str) -> Tcp<'static> {
    Tcp { from: SERVICE, to: CLIENT, flags, sequence: 9_001, acknowledgment: 1_001, payload: b"x", ..Tcp::default() }
}

/// The node has lost the client's connection, and the service's side of it is seen first.
fn seen_from_the_service(bench: &mut Bench) {
    bench.forward("gateway", from_service("A").bytes(), "vm1");
    bench.forward("vm1", data(1_001, 9_002, b"").bytes(), "gateway");
}

#[test]
fn a_connection_first_seen_from_the_gateway_is_reset_when_its_path_changes() {
    let mut bench = Bench::new();
    seen_from_the_service(&mut bench);
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    let sent = bench.take();
    assert_eq!((reset_to(&sent, "vm1").len(), reset_to(&sent, "gateway").len()), (1, 1), "{sent:?}");
    assert_eq!(reset_to(&sent, "vm1")[0].tcp.as_ref().unwrap().sequence, 9_002);
    assert_eq!(bench.report().flows_reset, 1);
    // Nothing of it goes to the tunnel any more, and the client opens the next one over the endpoint, from the same port.
    bench.answered("vm1", data(1_001, 9_002, b"secret").bytes(), Answer::Reset);
    bench.answered("gateway", from_service("A").bytes(), Answer::Reset);
    bench.forward("vm1", Tcp { from: CLIENT, to: SERVICE, ..Tcp::default() }.bytes(), "contosodata");
    bench.answered("gateway", from_service("A").bytes(), Answer::Reset);
    bench.forward("contosodata", Tcp { acknowledgment: 1_002, ..from_service("SA") }.bytes(), "vm1");
}

#[test]
fn a_connection_first_seen_from_an_appliance_is_reset_when_its_route_changes() {
    let mut bench = Bench::new();
    let (client, server) = (("10.1.2.4", 5_000), ("203.0.113.9", 443));
    let answer = Tcp { from: server, to: client, flags: "A", sequence: 9_001, acknowledgment: 1_001, ..Tcp::default() };
    bench.forward("appliance", answer.bytes(), "vm2");
    bench.forward(
        "vm2",
        Tcp { from: client, to: server, flags: "A", sequence: 1_001, acknowledgment: 9_001, ..answer }.bytes(),
        "appliance",
    );
    bench.change(|network| network.location = "northeurope".into());
    bench.sweep();
    assert_eq!(bench.report().flows_kept, 1, "another change does not touch it");
    bench.change(|network| {
        let subnet = network.find_subnet("spoke/inspected").unwrap();
        let subnets = &mut network.virtual_networks[subnet.virtual_network].subnets;
        subnets[subnet.subnet].route_table = subnets[0].route_table;
    });
    bench.sweep();
    let sent = bench.take();
    assert_eq!((reset_to(&sent, "vm2").len(), reset_to(&sent, "appliance").len()), (1, 1), "{sent:?}");
    bench.forward("vm2", Tcp { from: client, to: server, ..Tcp::default() }.bytes(), "gateway");
}

#[test]
fn a_connection_that_was_asymmetric_before_is_left_alone() {
    let mut bench = Bench::new();
    // What vm3 sends there goes out to the internet, and what comes from there comes through the appliance.
    let answer =
        Tcp { from: ("203.0.113.9", 443), to: ("10.1.3.4", 5_000), flags: "A", sequence: 9_001, ..Tcp::default() };
    bench.forward("appliance", answer.bytes(), "vm3");
    bench.change(|network| network.location = "northeurope".into());
    bench.sweep();
    assert_eq!((bench.report().flows_kept, bench.report().flows_reset), (1, 0));
}

#[test]
fn nothing_new_comes_past_an_endpoint_with_its_services_address() {
    let mut bench = Bench::with_endpoint();
    let sent = bench.answered("gateway", from_service("A").bytes(), Answer::Reset);
    assert_eq!((sent[0].0.as_str(), sent[0].1.tcp.as_ref().unwrap().sequence), ("gateway", 1_001));
    for port in ["gateway", "appliance"] {
        bench.dropped(port, from_service("R").bytes(), DropReason::EndpointBypassed);
        bench.dropped(port, from_service("S").bytes(), DropReason::EndpointBypassed);
        bench.dropped(port, udp(SERVICE, ("10.1.1.4", 5_000), b"late"), DropReason::EndpointBypassed);
    }
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"1"), "contosodata");
    // A subnet without the endpoint answers the way that it always went.
    bench.forward("appliance", udp(SERVICE, ("10.1.2.4", 5_000), b"there"), "vm2");
}

#[test]
fn a_datagram_first_seen_from_the_gateway_does_not_keep_the_nic_there() {
    let mut bench = Bench::new();
    bench.forward("gateway", udp(SERVICE, ("10.1.1.4", 5_000), b"1"), "vm1");
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"2"), "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    assert_eq!(bench.report().flows_moved, 1);
    bench.dropped("gateway", udp(SERVICE, ("10.1.1.4", 5_000), b"late"), DropReason::EndpointBypassed);
    bench.forward("vm1", udp(("10.1.1.4", 5_000), SERVICE, b"3"), "contosodata");
    bench.forward("contosodata", udp(SERVICE, ("10.1.1.4", 5_000), b"4"), "vm1");
}

#[test]
fn a_late_syn_ack_on_the_old_path_is_reset_and_the_connection_opens_on_the_new_one() {
    let mut bench = Bench::new();
    let syn = Tcp { from: CLIENT, to: SERVICE, ..Tcp::default() };
    bench.forward("vm1", syn.bytes(), "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    let late = Tcp { from: SERVICE, to: CLIENT, flags: "SA", sequence: 9_000, acknowledgment: 1_001, ..Tcp::default() };
    let sent = bench.answered("gateway", late.bytes(), Answer::Reset);
    assert_eq!((sent[0].0.as_str(), sent[0].1.tcp.as_ref().unwrap().sequence), ("gateway", 1_001));
    bench.forward("vm1", syn.bytes(), "contosodata");
}

#[test]
fn a_reset_that_no_kernel_accepts_does_not_end_following() {
    let mut bench = Bench::new();
    connect(&mut bench, "gateway");
    let stray = Tcp { from: SERVICE, to: CLIENT, flags: "R", sequence: 77, ..Tcp::default() };
    bench.forward("gateway", stray.bytes(), "vm1");
    assert_eq!(bench.flows()[0].state.phase.name(), "established");
    bench.forward("gateway", Tcp { sequence: 9_001, ..stray }.bytes(), "vm1");
    assert_eq!(bench.flows()[0].state.phase.name(), "aborted");
}

#[test]
fn the_rest_of_a_closed_connection_does_not_leak_to_the_new_path() {
    let mut bench = Bench::new();
    connect(&mut bench, "gateway");
    let reset = Tcp { from: SERVICE, to: CLIENT, flags: "R", sequence: 9_001, ..Tcp::default() };
    bench.forward("gateway", reset.bytes(), "vm1");
    bench.set_endpoint("spoke/workload", true);
    bench.answered("vm1", data(1_001, 9_001, b"x").bytes(), Answer::Reset);
}

#[test]
fn a_connection_on_reused_ports_is_reset_by_its_own_numbers() {
    let mut bench = Bench::new();
    connect(&mut bench, "gateway");
    // The same ports again with lower numbers, the old connection never closed: the service acknowledges what it has, the
    // client resets that, and asks again (RFC 9293 section 3.5.1).
    let syn = Tcp { from: CLIENT, to: SERVICE, sequence: 500, ..Tcp::default() };
    bench.forward("vm1", syn.bytes(), "gateway");
    let challenge =
        Tcp { from: SERVICE, to: CLIENT, flags: "A", sequence: 9_001, acknowledgment: 1_001, ..Tcp::default() };
    bench.forward("gateway", challenge.bytes(), "vm1");
    let reset = Tcp { from: CLIENT, to: SERVICE, flags: "R", sequence: 1_001, ..Tcp::default() };
    bench.forward("vm1", reset.bytes(), "gateway");
    bench.forward("vm1", syn.bytes(), "gateway");
    let answer = Tcp { from: SERVICE, to: CLIENT, flags: "SA", sequence: 4_000, acknowledgment: 501, ..Tcp::default() };
    bench.forward("gateway", answer.bytes(), "vm1");
    bench.forward("vm1", data(501, 4_001, b"").bytes(), "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.sweep();
    let sent = bench.take();
    assert_eq!(reset_to(&sent, "vm1")[0].tcp.as_ref().unwrap().sequence, 4_001);
    assert_eq!(reset_to(&sent, "gateway")[0].tcp.as_ref().unwrap().sequence, 501);
}

#[test]
fn a_shorter_lifetime_counts_for_flows_that_are_there() {
    let mut bench = Bench::new();
    bench.forward("vm3", udp(("10.1.3.4", 5_000), ("10.1.1.4", 53), b"q"), "vm1");
    bench.now += 10_000;
    bench.change(|network| network.flows.lifetimes.udp = Some(std::time::Duration::from_secs(20)));
    bench.sweep();
    bench.now += 9_000;
    bench.expire();
    assert_eq!(bench.flows().len(), 1, "its packet is 19 s old");
    bench.now += 1_200;
    bench.expire();
    assert!(bench.flows().is_empty(), "20 s are over, long before the 240 s that it began with");
}

#[test]
fn a_translated_query_lives_on_where_a_change_does_not_touch_it() {
    let mut bench = Bench::new();
    let query = echo("10.1.3.4", "198.51.100.80", false, 3, 64);
    let seen = bench.forward("vm3", query.clone(), "internet");
    bench.change(|network| network.location = "northeurope".into());
    bench.sweep();
    assert_eq!((bench.report().flows_kept, bench.report().flows_moved), (1, 0));
    assert_eq!(bench.forward("vm3", query, "internet").source, seen.source);
}

#[test]
fn a_connection_whose_ends_could_not_be_told_does_not_count_as_reset() {
    let mut bench = Bench::new();
    connect(&mut bench, "gateway");
    bench.set_endpoint("spoke/workload", true);
    bench.sent.refuse = Some(SendFailure::QueueFull);
    bench.sweep();
    bench.sent.refuse = None;
    assert_eq!((bench.report().flows_reset, bench.report().flows_moved), (0, 1));
    // They are told when they go on.
    let sent = bench.answered("vm1", data(1_001, 9_001, b"x").bytes(), Answer::Reset);
    assert_eq!(reset_to(&sent, "vm1").len(), 1);
}

#[test]
fn the_end_that_has_not_been_told_is_told_when_it_answers() {
    let mut bench = Bench::new();
    let syn = Tcp { from: CLIENT, to: SERVICE, ..Tcp::default() };
    bench.forward("vm1", syn.bytes(), "gateway");
    bench.forward("vm1", Tcp { flags: "F", sequence: 1_001, ..syn }.bytes(), "gateway");
    // The client is gone, and the service has sent nothing yet.
    bench.change(|network| _ = network.nics.remove(0));
    let answer =
        Tcp { from: SERVICE, to: CLIENT, flags: "A", sequence: 9_001, acknowledgment: 1_002, ..Tcp::default() };
    let sent = bench.answered("gateway", answer.bytes(), Answer::Reset);
    assert_eq!(sent.len(), 1);
    assert_eq!(reset_to(&sent, "gateway")[0].tcp.as_ref().unwrap().sequence, 1_002);
}
