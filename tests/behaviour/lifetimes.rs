//! How long flows live and ports rest, to the tick of the timers.

use sidestep::path::flow::Phase;
use sidestep::path::{Answer, DropReason};

use crate::bench::Bench;
use crate::packets::{echo, port_unreachable, udp};
use crate::site::{A1, BY_GATEWAY, Connection, End, GATEWAY, SERVER, Site, WEB};

/// What is behind a timer: the time of the last packet is kept, and timers go off, in units of 64 ms, both rounded up.
const TICKS: u64 = 2 * 64;

fn gateway() -> Bench {
    Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench()
}

/// A pool of an endpoint, which has the figures of the RFCs.
fn pooled() -> Bench {
    let pools = "[[snat_pool]]\nname = \"shared\"\naddresses = [\"100.64.9.1\"]\n";
    let one = r#"service_endpoints = [{ service = "Microsoft.Storage", source = { snat = "shared" } }]"#;
    Site { one, pools, ..Site::default() }.bench()
}

const DATA: End<'_> = End { port: "data", socket: ("20.60.1.10", 443) };

/// The phase of the one flow.
fn phase(bench: &Bench) -> Option<Phase> {
    let flows = bench.flows();
    assert!(flows.len() <= 1, "one flow at most");
    flows.first().map(|flow| flow.state.phase)
}

/// The one flow stays in its phase for so many milliseconds and is then in the next, or gone.
#[track_caller]
fn lasts(bench: &mut Bench, milliseconds: u64, next: Option<Phase>) {
    let before = phase(bench);
    assert!(before.is_some(), "there is a flow");
    let start = bench.now;
    bench.now = start + milliseconds - 1;
    bench.expire();
    assert_eq!(phase(bench), before, "not before {milliseconds} ms");
    bench.now = start + milliseconds + TICKS;
    bench.expire();
    assert_eq!(phase(bench), next, "soon after {milliseconds} ms");
}

#[test]
fn udp_lives_four_minutes_and_its_port_rests_two() {
    let mut bench = pooled();
    bench.forward("a1", udp(("10.1.1.4", 5_000), DATA.socket, b"q"), "data");
    lasts(&mut bench, 240_000, Some(Phase::Resting));
    lasts(&mut bench, 120_000, None);
    assert_eq!(bench.report().flows_expired, 1);
}

#[test]
fn an_icmp_query_lives_a_minute() {
    let mut bench = pooled();
    bench.forward("a1", echo("10.1.1.4", DATA.socket.0, false, 7, 64), "data");
    lasts(&mut bench, 60_000, Some(Phase::Resting));
    lasts(&mut bench, 120_000, None);
}

#[test]
fn tcp_lives_as_long_as_its_phase_says() {
    let mut bench = pooled();
    Connection::begin(&mut bench, A1, DATA);
    lasts(&mut bench, 240_000, Some(Phase::Resting));
    lasts(&mut bench, 120_000, None);

    let mut bench = pooled();
    Connection::open(&mut bench, A1, DATA);
    lasts(&mut bench, 7_440_000, Some(Phase::Resting));
    lasts(&mut bench, 120_000, None);

    let mut bench = pooled();
    let connection = Connection::open(&mut bench, A1, DATA);
    bench.forward("a1", connection.out("FA", 1_001, 9_001), "data");
    assert_eq!(phase(&bench), Some(Phase::Closing));
    lasts(&mut bench, 240_000, Some(Phase::Resting));

    let mut bench = pooled();
    let connection = Connection::open(&mut bench, A1, DATA);
    connection.finish(&mut bench);
    assert_eq!(phase(&bench), Some(Phase::Closed));
    lasts(&mut bench, 240_000, None);

    let mut bench = pooled();
    let connection = Connection::open(&mut bench, A1, DATA);
    bench.forward("data", connection.back("R", 9_001, 0), "a1");
    assert_eq!(phase(&bench), Some(Phase::Aborted));
    lasts(&mut bench, 240_000, None);
}

#[test]
fn lifetimes_are_what_the_document_says() {
    let node = r#"
[flows.lifetimes]
icmp = "5s"
udp = "7s"
tcp_opening = "3s"
tcp_established = "11s"
tcp_closing = "4s"
tcp_closed = "2s"
tcp_reset = "1s"
port_rest = "6s"
port_rest_half_open = "8s"
"#;
    let site = Site { node, ..Site::default() };
    let mut bench = site.bench();
    bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    lasts(&mut bench, 7_000, Some(Phase::Resting));
    lasts(&mut bench, 6_000, None);
    let mut bench = site.bench();
    bench.forward("a1", echo("10.1.1.4", WEB, false, 7, 64), "internet");
    lasts(&mut bench, 5_000, Some(Phase::Resting));
    let mut bench = site.bench();
    Connection::begin(&mut bench, A1, SERVER);
    lasts(&mut bench, 3_000, Some(Phase::Resting));
    lasts(&mut bench, 8_000, None);
    let mut bench = site.bench();
    Connection::open(&mut bench, A1, SERVER);
    lasts(&mut bench, 11_000, Some(Phase::Resting));
    let mut bench = site.bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    bench.forward("a1", connection.out("FA", 1_001, 9_001), "internet");
    lasts(&mut bench, 4_000, Some(Phase::Resting));
    let mut bench = site.bench();
    Connection::open(&mut bench, A1, SERVER).finish(&mut bench);
    lasts(&mut bench, 2_000, None);
    let mut bench = site.bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    bench.forward("a1", connection.out("R", 1_001, 0), "internet");
    lasts(&mut bench, 1_000, None);
}

#[test]
fn a_flow_that_no_pool_translates_leaves_no_port_to_rest() {
    let endpoint = r#"service_endpoints = [{ service = "Microsoft.Storage" }]"#;
    let mut bench = Site { one: endpoint, ..Site::default() }.bench();
    bench.forward("a1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"q"), "data");
    lasts(&mut bench, 240_000, None);
}

#[test]
fn a_nat_gateway_times_out_as_azure_documents() {
    let mut bench = gateway();
    Connection::open(&mut bench, A1, SERVER);
    lasts(&mut bench, 240_000, Some(Phase::Resting));
    lasts(&mut bench, 65_000, None);

    let longer = format!("{GATEWAY}idle_timeout = \"30m\"\n");
    let mut bench = Site { one: BY_GATEWAY, pools: &longer, ..Site::default() }.bench();
    Connection::open(&mut bench, A1, SERVER);
    lasts(&mut bench, 30 * 60_000, Some(Phase::Resting));

    // UDP has four minutes whatever the idle timeout is, and its port rests 65 s.
    let mut bench = Site { one: BY_GATEWAY, pools: &longer, ..Site::default() }.bench();
    bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    lasts(&mut bench, 240_000, Some(Phase::Resting));
    lasts(&mut bench, 65_000, None);
}

#[test]
fn default_outbound_access_times_out_as_a_nat_gateway() {
    let site = Site::default();
    let mut bench = site.bench();
    Connection::open(&mut bench, A1, SERVER);
    lasts(&mut bench, 240_000, Some(Phase::Resting));
    lasts(&mut bench, 65_000, None);
    let mut bench = site.bench();
    Connection::open(&mut bench, A1, SERVER).finish(&mut bench);
    lasts(&mut bench, 65_000, None);
    let mut bench = site.bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    bench.forward("a1", connection.out("R", 1_001, 0), "internet");
    lasts(&mut bench, 16_000, None);
    // What the document says is before Azure's figures, each by itself.
    let node = "[flows.lifetimes]\ntcp_established = \"2h\"\n";
    let mut bench = Site { node, ..site }.bench();
    Connection::open(&mut bench, A1, SERVER);
    lasts(&mut bench, 7_200_000, Some(Phase::Resting));
    lasts(&mut bench, 65_000, None);
}

#[test]
fn an_instance_address_shares_no_port_and_lives_as_the_rfcs_ask() {
    let mut bench = Site { a1: "public_addresses = [\"203.0.113.77\"]\n", ..Site::default() }.bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    assert_eq!(connection.presented, ("203.0.113.77".to_owned(), 40_000));
    lasts(&mut bench, 7_440_000, None);
}

#[test]
fn lifetimes_of_a_nat_gateway_are_what_it_says() {
    let pools = format!(
        "{GATEWAY}lifetimes = {{ icmp = \"5s\", udp = \"7s\", tcp_opening = \"3s\", tcp_closed = \"2s\", \
         tcp_reset = \"1s\", port_rest = \"6s\", port_rest_half_open = \"8s\" }}\n"
    );
    // Those of the node are for what goes elsewhere.
    let node =
        "[flows.lifetimes]\nudp = \"20s\"\ntcp_reset = \"21s\"\ntcp_established = \"22s\"\nport_rest = \"23s\"\n";
    let site = Site { node, one: BY_GATEWAY, pools: &pools, ..Site::default() };
    let mut bench = site.bench();
    bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    lasts(&mut bench, 7_000, Some(Phase::Resting));
    lasts(&mut bench, 6_000, None);
    let mut bench = site.bench();
    bench.forward("a1", echo("10.1.1.4", WEB, false, 7, 64), "internet");
    lasts(&mut bench, 5_000, Some(Phase::Resting));
    let mut bench = site.bench();
    Connection::begin(&mut bench, A1, SERVER);
    lasts(&mut bench, 3_000, Some(Phase::Resting));
    lasts(&mut bench, 8_000, None);
    let mut bench = site.bench();
    Connection::open(&mut bench, A1, SERVER);
    lasts(&mut bench, 240_000, Some(Phase::Resting));
    lasts(&mut bench, 6_000, None);
    let mut bench = site.bench();
    Connection::open(&mut bench, A1, SERVER).finish(&mut bench);
    lasts(&mut bench, 2_000, None);
    let mut bench = site.bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    bench.forward("a1", connection.out("R", 1_001, 0), "internet");
    lasts(&mut bench, 1_000, None);

    let mut bench = Site { one: "", ..site }.bench();
    bench.forward("a1", udp(("10.1.1.4", 5_000), (WEB, 53), b"q"), "internet");
    lasts(&mut bench, 20_000, Some(Phase::Resting));
    lasts(&mut bench, 23_000, None);
    // What the gateway does not say is as Azure documents, whatever the node says.
    let mut bench = Site { pools: GATEWAY, ..site }.bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    bench.forward("a1", connection.out("R", 1_001, 0), "internet");
    lasts(&mut bench, 16_000, None);
}

#[test]
fn a_nat_gateways_port_rests_as_azure_documents() {
    // 65 s after both sides have finished.
    let mut bench = gateway();
    Connection::open(&mut bench, A1, SERVER).finish(&mut bench);
    lasts(&mut bench, 65_000, None);
    // 16 s after a reset.
    let mut bench = gateway();
    let connection = Connection::open(&mut bench, A1, SERVER);
    bench.forward("a1", connection.out("R", 1_001, 0), "internet");
    lasts(&mut bench, 16_000, None);
    // 30 s where it never opened.
    let mut bench = gateway();
    Connection::begin(&mut bench, A1, SERVER);
    lasts(&mut bench, 240_000, Some(Phase::Resting));
    lasts(&mut bench, 30_000, None);
}

#[test]
fn a_resting_port_serves_its_own_host_and_no_other() {
    let pools = r#"
[[snat_pool]]
name = "narrow"
addresses = ["100.64.9.1"]
ports = "2000-2000"
"#;
    let one = r#"service_endpoints = [{ service = "Microsoft.Storage", source = { snat = "narrow" } }]"#;
    let mut bench = Site { one, pools, ..Site::default() }.bench();
    let to = ("20.60.1.10", 443);
    let ask = |from: &'static str| udp((from, 5_000), to, b"q");
    assert_eq!(bench.forward("a1", ask("10.1.1.4"), "data").source_port, 2_000);
    bench.now += 240_000 + TICKS;
    bench.expire();
    assert_eq!(phase(&bench), Some(Phase::Resting));
    assert_refused(&mut bench, "a2", ask("10.1.1.5"));
    // A late reply reaches nobody, its own host goes on.
    bench.dropped("data", udp(to, ("100.64.9.1", 2_000), b"late"), DropReason::PortResting);
    assert_eq!(bench.forward("a1", ask("10.1.1.4"), "data").source_port, 2_000);
    assert_eq!(phase(&bench), Some(Phase::Datagram));
    bench.forward("data", udp(to, ("100.64.9.1", 2_000), b"a"), "a1");
    // Once it has rested, it is anybody's.
    for wait in [240_000, 120_000] {
        bench.now += wait + TICKS;
        bench.expire();
    }
    assert_eq!(bench.forward("a2", ask("10.1.1.5"), "data").source_port, 2_000);
}

#[track_caller]
fn assert_refused(bench: &mut Bench, port: &str, packet: Vec<u8>) {
    assert_eq!(bench.inject(port, packet), sidestep::path::Verdict::Dropped(DropReason::NoFreePort));
    let sent = bench.take();
    assert_eq!(sent.len(), 1, "the sender is told");
    assert_eq!((sent[0].0.as_str(), sent[0].1.icmp), (port, Some((3, 13))));
}

#[test]
fn what_goes_out_keeps_a_flow_alive() {
    let mut bench = Site::default().bench();
    let ask = || udp(("10.1.1.4", 5_000), (WEB, 53), b"q");
    let first = bench.forward("a1", ask(), "internet");
    for _ in 0..5 {
        bench.now += 200_000;
        bench.expire();
        assert_eq!(bench.forward("a1", ask(), "internet").source_port, first.source_port);
    }
    assert_eq!(bench.report().flows_created, 1);
}

#[test]
fn keepalives_keep_a_connection_of_a_nat_gateway_open() {
    let mut bench = gateway();
    let connection = Connection::open(&mut bench, A1, SERVER);
    for _ in 0..5 {
        bench.now += 200_000;
        bench.expire();
        // A keepalive is an acknowledgment with the sequence number before the next.
        bench.forward("a1", connection.out("A", 1_000, 9_001), "internet");
    }
    lasts(&mut bench, 240_000, Some(Phase::Resting));
}

#[test]
fn tcp_of_a_connection_that_timed_out_is_reset_when_it_comes_and_not_before() {
    let mut bench = gateway();
    let connection = Connection::open(&mut bench, A1, SERVER);
    bench.now += 240_000 + TICKS;
    bench.expire();
    assert!(bench.take().is_empty(), "nobody is told of the timeout");
    let sent = bench.answered("a1", connection.out("PA", 1_001, 9_001), Answer::FlowEnded);
    assert_eq!(sent.len(), 1, "one reset, in one direction");
    assert_eq!(sent[0].0, "a1");
    let tcp = sent[0].1.tcp.as_ref().unwrap();
    assert_eq!((tcp.reset, tcp.sequence, tcp.acknowledgment), (true, 9_001, None), "just what the sender expects");
    assert_eq!(sent[0].1.source.to_string(), WEB);
    // The same when the port has rested, and the flow is gone.
    bench.now += 65_000 + TICKS;
    bench.expire();
    assert_eq!(phase(&bench), None);
    assert_eq!(bench.answered("a1", connection.out("PA", 1_001, 9_001), Answer::FlowEnded).len(), 1);
    bench.dropped("a1", connection.out("R", 1_001, 0), DropReason::TcpWithoutFlow);
    bench.dropped("internet", connection.back("A", 9_001, 1_001), DropReason::NoMapping);
}

#[test]
fn icmp_errors_neither_refresh_nor_end_a_flow() {
    let mut bench = Site::default().bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    let created = bench.now;
    let presented = (connection.presented.0.as_str(), connection.presented.1);
    let quoted = remote_packet(presented);
    for _ in 0..50 {
        bench.now += 1_000;
        bench.forward("internet", port_unreachable("192.0.2.1", presented.0, &quoted), "a1");
        let inside = inside_packet(&connection);
        bench.forward("a1", port_unreachable("10.1.1.4", WEB, &inside), "internet");
    }
    assert_eq!(phase(&bench), Some(Phase::Established));
    bench.now = created + 240_000 + TICKS;
    bench.expire();
    assert_eq!(phase(&bench), Some(Phase::Resting), "they did not refresh it");
}

/// What the remote end has got of a connection.
fn remote_packet(presented: (&str, u16)) -> Vec<u8> {
    crate::packets::Tcp { from: presented, to: SERVER.socket, flags: "A", ..Default::default() }.bytes()
}

/// What the inside end has got of it.
fn inside_packet(connection: &Connection<'_>) -> Vec<u8> {
    let (from, to) = (connection.remote.socket, connection.inside.socket);
    crate::packets::Tcp { from, to, flags: "A", ..Default::default() }.bytes()
}

#[test]
fn a_reset_that_nobody_accepts_neither_refreshes_nor_ends() {
    let mut bench = Site::default().bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    let created = bench.now;
    bench.now += 100_000;
    bench.forward("internet", connection.back("R", 77, 0), "a1");
    bench.forward("a1", connection.out("R", 78, 0), "internet");
    assert_eq!(phase(&bench), Some(Phase::Established));
    bench.now = created + 240_000 + TICKS;
    bench.expire();
    assert_eq!(phase(&bench), Some(Phase::Resting));
}

#[test]
fn traffic_after_a_forged_reset_keeps_the_connection() {
    let mut bench = Site::default().bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    bench.forward("internet", connection.back("R", 9_001, 0), "a1");
    assert_eq!(phase(&bench), Some(Phase::Aborted));
    // What the other side sends was on its way: it does not prove anything.
    bench.now += 10_000;
    bench.forward("a1", connection.out("A", 1_001, 9_001), "internet");
    assert_eq!(phase(&bench), Some(Phase::Aborted));
    bench.forward("internet", connection.back("PA", 9_001, 1_001), "a1");
    assert_eq!(phase(&bench), Some(Phase::Established), "who goes on did not reset");
    lasts(&mut bench, 240_000, Some(Phase::Resting));
}

#[test]
fn a_reset_starts_a_lifetime_that_the_other_side_cannot_extend() {
    let mut bench = Site::default().bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    bench.forward("internet", connection.back("R", 9_001, 0), "a1");
    let reset = bench.now;
    bench.now += 10_000;
    bench.forward("a1", connection.out("A", 1_001, 9_001), "internet");
    bench.now = reset + 16_000 + TICKS;
    bench.expire();
    assert_eq!(phase(&bench), None);
}

#[test]
fn nobody_outside_keeps_a_port_after_the_connection_is_closed() {
    let mut bench = gateway();
    let connection = Connection::open(&mut bench, A1, SERVER);
    connection.finish(&mut bench);
    let closed = bench.now;
    for _ in 0..6 {
        bench.now += 10_000;
        bench.expire();
        bench.forward("internet", connection.back("A", 9_002, 1_002), "a1");
    }
    bench.now = closed + 65_000 + TICKS;
    bench.expire();
    assert_eq!(phase(&bench), None);
    bench.dropped("internet", connection.back("A", 9_002, 1_002), DropReason::NoMapping);
}

#[test]
fn a_closed_connection_is_not_opened_from_outside() {
    let mut bench = gateway();
    let connection = Connection::open(&mut bench, A1, SERVER);
    connection.finish(&mut bench);
    bench.dropped("internet", connection.back("S", 50_000, 0), DropReason::NoMapping);
    // The inside host may use its port again at once, for the same destination too.
    let again = crate::packets::Tcp { from: A1.socket, to: SERVER.socket, sequence: 70_000, ..Default::default() };
    assert_eq!(bench.forward("a1", again.bytes(), "internet").source_port, connection.presented.1);
    assert_eq!(phase(&bench), Some(Phase::Opening));
}

#[test]
fn opening_and_closing_have_timers_of_their_own() {
    let node = "[flows.lifetimes]\ntcp_opening = \"10s\"\ntcp_closing = \"20s\"\n";
    let site = Site { node, ..Site::default() };
    let mut bench = site.bench();
    Connection::begin(&mut bench, A1, SERVER);
    lasts(&mut bench, 10_000, Some(Phase::Resting));
    let mut bench = site.bench();
    let v6 = End { port: "a1", socket: ("fd00:1:0:1::4", 40_000) };
    let connection = Connection::open(&mut bench, v6, End { port: "internet", socket: (crate::site::WEB6, 443) });
    bench.forward("internet", connection.back("FA", 9_001, 1_001), "a1");
    lasts(&mut bench, 20_000, Some(Phase::Resting));
}
