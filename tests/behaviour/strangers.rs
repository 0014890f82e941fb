//! What strangers, forgers and changes must not get out of flows: each is named after what it once got.

use sidestep::model::network::{EndpointSource, FlowLifetimes, NatGateway, ServiceEndpoint};
use sidestep::path::flow::Phase;
use sidestep::path::{DropReason, Verdict};

use crate::bench::{Bench, NETWORK};
use crate::packets::{Tcp, fix_header, port_unreachable, protocol, udp};

const INSIDE: &str = "10.1.3.4";
const WEB: &str = "198.51.100.80";
const STRANGER: &str = "198.51.100.99";
const PUBLIC: &str = "203.0.113.200";

/// Default outbound access with endpoint-independent mapping.
fn independent(filtering: &str) -> Bench {
    let keys = format!("[internet]\nmapping = \"endpoint-independent\"\nfiltering = \"{filtering}\"\n");
    Bench::with(&NETWORK.replace("[internet]\n", &keys))
}

fn with_pool(keys: &str) -> Bench {
    let pool = format!("[[snat_pool]]\nname = \"svc\"\naddresses = [\"100.64.7.7\"]\n{keys}\n[internet]\n");
    let mut bench = Bench::with(&NETWORK.replace("[internet]\n", &pool));
    endpoint(&mut bench, "spoke/open", EndpointSource::Snat(0));
    bench
}

fn endpoint(bench: &mut Bench, subnet: &str, source: EndpointSource) {
    bench.change(|network| {
        let subnet = network.find_subnet(subnet).unwrap();
        let subnet = &mut network.virtual_networks[subnet.virtual_network].subnets[subnet.subnet];
        subnet.service_endpoints =
            vec![ServiceEndpoint { service: "Microsoft.Storage".into(), locations: vec![], source }];
    });
}

fn make_private(bench: &mut Bench) {
    bench.change(|network| {
        let subnet = network.find_subnet("spoke/open").unwrap();
        network.virtual_networks[subnet.virtual_network].subnets[subnet.subnet].default_outbound_access = false;
    });
    bench.sweep();
}

/// A piece of a packet's payload as a fragment.
fn fragment(whole: &[u8], identification: u16, bytes: std::ops::Range<usize>, more: bool) -> Vec<u8> {
    let mut piece = whole[..20].to_vec();
    piece.extend(&whole[20..][bytes.clone()]);
    let total = piece.len() as u16;
    piece[2..4].copy_from_slice(&total.to_be_bytes());
    piece[4..6].copy_from_slice(&identification.to_be_bytes());
    let field = (bytes.start / 8) as u16 | if more { 0x2000 } else { 0 };
    piece[6..8].copy_from_slice(&field.to_be_bytes());
    fix_header(&mut piece);
    piece
}

/// An open connection of vm3 to the web; gives its public port.
fn connected(bench: &mut Bench) -> u16 {
    let syn = Tcp { from: (INSIDE, 40_000), to: (WEB, 80), ..Tcp::default() };
    let port = bench.forward("vm3", syn.bytes(), "internet").source_port;
    let answer =
        Tcp { from: (WEB, 80), to: (PUBLIC, port), flags: "SA", sequence: 5_000, acknowledgment: 1_001, ..syn };
    bench.forward("internet", answer.bytes(), "vm3");
    bench.forward("vm3", Tcp { flags: "A", sequence: 1_001, acknowledgment: 5_001, ..syn }.bytes(), "internet");
    port
}

fn phases(bench: &Bench) -> Vec<Phase> {
    bench.flows().iter().map(|flow| flow.state.phase).collect()
}

#[test]
fn fragments_that_cross_to_ipv6_keep_one_identification_and_fit() {
    for cut in [1_480, 1_456] {
        let mut bench = Bench::new();
        endpoint(&mut bench, "spoke/workload", EndpointSource::Identity6);
        let whole = udp(("10.1.1.4", 5_000), ("20.60.1.10", 53), &[7; 1_984]);
        let mut carried = 0;
        for (bytes, more) in [(0..cut, true), (cut..1_992, false)] {
            let piece = fragment(&whole, 0x1234, bytes, more);
            assert!(matches!(bench.inject("vm1", piece), Verdict::Forwarded(_)), "cut at {cut}");
            for (_, bytes, _) in std::mem::take(&mut bench.sent.packets) {
                assert!(bytes.len() <= 1_500);
                assert_eq!(
                    (bytes[6], &bytes[44..48]),
                    (44, &[0, 0, 0x12, 0x34][..]),
                    "one fragment header, one packet"
                );
                carried += bytes.len() - 48;
            }
        }
        assert_eq!(carried, 1_992);
    }
}

#[test]
fn a_socket_has_a_mapping_of_its_own_in_each_pool() {
    let keys = "[internet]\nmapping = \"endpoint-independent\"\n";
    let pool = "[[snat_pool]]\nname = \"svc\"\naddresses = [\"100.64.7.7\"]\nmapping = \"endpoint-independent\"\n";
    let mut bench = Bench::with(&NETWORK.replace("[internet]\n", &format!("{pool}\n{keys}")));
    endpoint(&mut bench, "spoke/open", EndpointSource::Snat(0));
    for port in [5_000, 5_001] {
        let web = |bench: &mut Bench| bench.forward("vm3", udp((INSIDE, port), (WEB, 53), b"q"), "internet").source;
        let service = |bench: &mut Bench| {
            bench.forward("vm3", udp((INSIDE, port), ("20.60.1.10", 53), b"q"), "contosodata").source
        };
        let seen = if port == 5_000 {
            (web(&mut bench), service(&mut bench))
        } else {
            let service = service(&mut bench);
            (web(&mut bench), service)
        };
        assert_eq!((seen.0.to_string(), seen.1.to_string()), (PUBLIC.to_owned(), "100.64.7.7".to_owned()));
    }
}

#[test]
fn a_mapping_at_rest_lets_nobody_in() {
    for filtering in ["endpoint-independent", "address-dependent"] {
        let mut bench = independent(filtering);
        let port = bench.forward("vm3", udp((INSIDE, 5_000), (WEB, 53), b"q"), "internet").source_port;
        let other = |bench: &mut Bench| bench.inject("internet", udp((WEB, 9_999), (PUBLIC, port), b"x"));
        bench.now += 241_000;
        bench.expire();
        assert_eq!(phases(&bench), [Phase::Resting]);
        assert_eq!(other(&mut bench), Verdict::Dropped(DropReason::NoMapping), "{filtering}");
        bench.forward("vm3", udp((INSIDE, 5_000), (WEB, 53), b"q"), "internet");
        assert!(matches!(other(&mut bench), Verdict::Forwarded(_)), "it woke up: {filtering}");
        bench.take();
        // The flow that the outside began is the inside's to go on with after a rest, not the outside's.
        bench.now += 241_000;
        bench.expire();
        assert_eq!(other(&mut bench), Verdict::Dropped(DropReason::PortResting), "{filtering}");
        bench.forward("vm3", udp((INSIDE, 5_000), (WEB, 9_999), b"x"), "internet");
    }
}

#[test]
fn a_mapping_ends_with_the_policy_that_allowed_it() {
    let mut bench = independent("endpoint-independent");
    let port = bench.forward("vm3", udp((INSIDE, 5_000), (WEB, 53), b"q"), "internet").source_port;
    bench.forward("internet", udp((STRANGER, 9_999), (PUBLIC, port), b"x"), "vm3");
    make_private(&mut bench);
    for stranger in [STRANGER, "198.51.100.98"] {
        let verdict = bench.inject("internet", udp((stranger, 9_999), (PUBLIC, port), b"x"));
        assert!(matches!(verdict, Verdict::Dropped(_)), "{stranger}: {verdict:?}");
    }
    let out = bench.inject("vm3", udp((INSIDE, 5_000), (STRANGER, 9_999), b"x"));
    assert!(matches!(out, Verdict::Dropped(_)), "{out:?}");
    assert!(bench.sent.packets.is_empty());
}

#[test]
fn a_mapping_is_not_inherited_by_the_next_nic_of_a_port_number() {
    let mut bench = independent("endpoint-independent");
    let port = bench.forward("vm3", udp((INSIDE, 5_000), (WEB, 53), b"q"), "internet").source_port;
    let number = bench.port("vm3");
    let mut tenant = bench.network.nics.iter().find(|nic| nic.name == "vm4").unwrap().clone();
    tenant.name = "tenant2".into();
    tenant.private_addresses = vec!["10.3.1.77".parse().unwrap()];
    bench.change(|network| network.nics.retain(|nic| nic.name != "vm3"));
    bench.sweep();
    bench.change(|network| network.nics.push(tenant));
    bench.sweep();
    assert_eq!(bench.port("tenant2"), number);
    let verdict = bench.inject("internet", udp((STRANGER, 9_999), (PUBLIC, port), b"x"));
    assert!(matches!(verdict, Verdict::Dropped(_)), "{verdict:?}");
}

#[test]
fn a_pool_of_an_endpoint_is_closed_to_the_internet() {
    let mut bench = with_pool("mapping = \"endpoint-independent\"\nfiltering = \"endpoint-independent\"\n");
    let out = bench.forward("vm3", udp((INSIDE, 5_000), ("20.60.1.10", 53), b"q"), "contosodata");
    let to = ("100.64.7.7", out.source_port);
    bench.dropped("internet", udp((STRANGER, 9_999), to, b"x"), DropReason::NoPublicAddress);
    bench.dropped("internet", udp((PUBLIC, 9_999), to, b"x"), DropReason::SpoofedSource);
}

#[test]
fn a_forged_syn_does_not_end_an_open_connection() {
    let mut bench = Bench::new();
    let port = connected(&mut bench);
    let syn = Tcp { from: (WEB, 80), to: (PUBLIC, port), sequence: 3_000_000_000, ..Tcp::default() };
    bench.forward("internet", syn.bytes(), "vm3");
    assert_eq!(phases(&bench), [Phase::Established]);
    // Nor does a reset that agrees with the forged number.
    bench.forward("internet", Tcp { flags: "R", sequence: 3_000_000_001, ..syn }.bytes(), "vm3");
    assert_eq!(phases(&bench), [Phase::Established]);
}

#[test]
fn a_refused_connection_is_not_established_by_one_more_packet() {
    let mut bench = Bench::new();
    let syn = Tcp { from: (INSIDE, 40_000), to: (WEB, 80), ..Tcp::default() };
    let port = bench.forward("vm3", syn.bytes(), "internet").source_port;
    let refusal = Tcp { from: (WEB, 80), to: (PUBLIC, port), flags: "RA", sequence: 0, acknowledgment: 1_001, ..syn };
    bench.forward("internet", refusal.bytes(), "vm3");
    assert_eq!(phases(&bench), [Phase::Aborted]);
    bench.forward("internet", Tcp { flags: "A", ..refusal }.bytes(), "vm3");
    assert_eq!(phases(&bench), [Phase::Opening]);
}

#[test]
fn the_outside_keeps_no_trace_alive() {
    let mut bench = Bench::new();
    let port = bench.forward("vm3", udp((INSIDE, 5_000), (WEB, 53), b"q"), "internet").source_port;
    make_private(&mut bench);
    assert_eq!(phases(&bench), [Phase::Moved]);
    for _ in 0..3 {
        bench.now += 50_000;
        bench.inject("internet", udp((WEB, 53), (PUBLIC, port), b"a"));
        bench.expire();
    }
    assert!(bench.flows().is_empty());
}

#[test]
fn a_router_on_the_way_of_an_inbound_flow_keeps_its_address() {
    let mut bench = independent("endpoint-independent");
    let port = bench.forward("vm3", udp((INSIDE, 5_000), (WEB, 53), b"q"), "internet").source_port;
    bench.forward("internet", udp((STRANGER, 9_999), (PUBLIC, port), b"x"), "vm3");
    let answer = udp((PUBLIC, port), (STRANGER, 9_999), b"q");
    let error = bench.forward("internet", port_unreachable("192.0.2.55", PUBLIC, &answer), "vm3");
    assert_eq!(error.source.to_string(), "192.0.2.55");
}

#[test]
fn a_first_fragment_of_sctp_does_not_leave_with_the_inside_port() {
    let mut bench = with_pool("ports = \"20000-30000\"\n");
    let mut payload = [0; 64];
    payload[..4].copy_from_slice(&[0x13, 0x88, 0, 80]);
    let whole = protocol(INSIDE, "20.60.1.10", 132, &payload);
    bench.dropped("vm3", fragment(&whole, 9, 0..32, true), DropReason::FragmentNotTranslatable);
}

#[test]
fn fragments_to_nobody_take_no_room() {
    let mut bench = Bench::new();
    let whole = udp((WEB, 53), ("198.18.0.1", 5_000), &[7; 1_984]);
    for identification in 0..600 {
        bench.dropped("internet", fragment(&whole, identification, 1_480..1_992, false), DropReason::NoPublicAddress);
    }
    assert_eq!(bench.report().fragments_held, 0);
}

#[test]
fn a_stranger_at_a_resting_port_is_answered_as_at_any_other() {
    let mut bench = Bench::new();
    let port = connected(&mut bench);
    bench.now += 7_441_000;
    bench.expire();
    assert_eq!(phases(&bench), [Phase::Resting]);
    let syn = Tcp { from: (WEB, 80), to: (PUBLIC, port), sequence: 77_777, ..Tcp::default() };
    bench.dropped("internet", syn.bytes(), DropReason::PortResting);
    bench.now += 6_100;
    bench.expire();
    assert_eq!(bench.take().len(), 1);
}

#[test]
fn another_pool_in_front_does_not_change_the_lifetime_of_a_flow() {
    let mut bench = with_pool("");
    let syn = Tcp { from: (INSIDE, 40_000), ..Tcp::default() };
    let port = bench.forward("vm3", syn.bytes(), "contosodata").source_port;
    let answer = Tcp {
        from: ("20.60.1.10", 443),
        to: ("100.64.7.7", port),
        flags: "SA",
        sequence: 5_000,
        acknowledgment: 1_001,
        ..syn
    };
    bench.forward("contosodata", answer.bytes(), "vm3");
    bench.forward("vm3", Tcp { flags: "A", sequence: 1_001, acknowledgment: 5_001, ..syn }.bytes(), "contosodata");
    bench.now += 7_200_000;
    bench.change(|network| {
        network.nat_gateways.push(NatGateway {
            lifetimes: FlowLifetimes::default(),
            name: "egress".into(),
            public_addresses: vec!["203.0.113.77".parse().unwrap()],
            idle_timeout: std::time::Duration::from_secs(240),
            translation: Default::default(),
        });
    });
    bench.expire();
    assert_eq!(phases(&bench), [Phase::Established]);
    bench.sweep();
    bench.expire();
    assert_eq!(phases(&bench), [Phase::Established]);
}

#[test]
fn after_its_end_a_connection_that_the_outside_began_is_closed_to_it() {
    let mut bench = independent("endpoint-independent");
    let syn = Tcp { from: (INSIDE, 40_000), to: (WEB, 80), ..Tcp::default() };
    let port = bench.forward("vm3", syn.bytes(), "internet").source_port;
    let inwards = Tcp { from: (STRANGER, 81), to: (PUBLIC, port), sequence: 10, ..syn };
    bench.forward("internet", inwards.bytes(), "vm3");
    let outwards =
        Tcp { from: (INSIDE, 40_000), to: (STRANGER, 81), flags: "SA", sequence: 100, acknowledgment: 11, ..syn };
    bench.forward("vm3", outwards.bytes(), "internet");
    let fin = Tcp { flags: "FA", sequence: 11, acknowledgment: 101, ..inwards };
    bench.forward("internet", fin.bytes(), "vm3");
    bench.forward("vm3", Tcp { flags: "FA", sequence: 101, acknowledgment: 12, ..outwards }.bytes(), "internet");
    bench.dropped("internet", Tcp { sequence: 900, ..inwards }.bytes(), DropReason::NoMapping);
    let late = Tcp { flags: "A", sequence: 12, acknowledgment: 102, ..inwards };
    for _ in 0..3 {
        bench.now += 100_000;
        bench.inject("internet", late.bytes());
        bench.expire();
    }
    let closed = bench.flows().iter().any(|flow| flow.state.phase == Phase::Closed);
    assert!(!closed, "what the outside sends keeps nothing: {:?}", phases(&bench));
    bench.take();
}
