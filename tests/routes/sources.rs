//! What sources compile to: endpoints, pools, instance addresses, tags, lifetimes.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use sidestep::model;
use sidestep::plan::{Plan, PlanError};
use sidestep::snapshot::{
    EndpointSource, Filtering, HopAction, Lifetimes, Mapping, PoolId, PoolKind, PortEntry, Snapshot, SourceAction,
};

use sidestep::tags::Catalogue;

use super::{TCP, hop, plan};

/// A network with a subnet for each source, a service of two families and one of IPv4 alone.
const NETWORK: &str = r#"
    [[virtual_network]]
    name = "net"
    address_space = ["10.0.0.0/16", "fd00::/48"]
    traffic_tag = 0x6adb98
    [[virtual_network.subnet]]
    name = "plain"
    address_prefixes = ["10.0.1.0/24", "fd00:0:0:1::/64"]
    service_endpoints = [{ service = "Microsoft.Sql" }, { service = "Microsoft.Storage" }]
    [[virtual_network.subnet]]
    name = "mapped"
    address_prefixes = ["10.0.2.0/24", "10.0.3.0/24"]
    service_endpoints = [
      { service = "Microsoft.Sql", source = { snat = "Pool" } },
      { service = "Microsoft.Storage", source = { prefix_map = ["100.64.8.0/24", "100.64.9.0/24"] } },
    ]
    [[virtual_network.subnet]]
    name = "identified"
    address_prefixes = ["10.0.4.0/24"]
    service_endpoints = [{ service = "Microsoft.Storage", source = "identity6" }]
    nat_gateway = "egress"
    [[virtual_network.subnet]]
    name = "private"
    address_prefixes = ["10.0.5.0/24"]
    default_outbound_access = false
    [[nat_gateway]]
    name = "egress"
    public_addresses = ["203.0.113.30", "2001:db8:ffff::30", "203.0.113.31"]
    idle_timeout = "10m"
    mapping = "endpoint-independent"
    filtering = "address-dependent"
    [[snat_pool]]
    name = "pool"
    addresses = ["198.51.100.10"]
    ports = "2000-2999"
    [[nic]]
    name = "plain"
    subnet = "net/plain"
    private_addresses = ["fd00:0:0:1::4", "10.0.1.4", "10.0.1.5"]
    public_addresses = ["203.0.113.41", "2001:db8:ffff::40"]
    [[nic]]
    name = "mapped"
    subnet = "net/mapped"
    private_addresses = ["10.0.2.4"]
    public_addresses = ["203.0.113.40"]
    [[nic]]
    name = "identified"
    subnet = "net/identified"
    private_addresses = ["10.0.4.38"]
    [[nic]]
    name = "private"
    subnet = "net/private"
    private_addresses = ["10.0.5.4"]
    [internet]
    public_addresses = ["203.0.113.200"]
    mapping = "endpoint-independent"
    device = { tun = "edge0" }
    [[service]]
    name = "both"
    service = "Microsoft.Storage"
    addresses = ["20.60.1.1", "20.60.1.2", "2603:1020::1", "20.60.1.3", "2603:1020::2"]
    device = { tun = "both0" }
    [[service]]
    name = "four"
    service = "Microsoft.Storage"
    addresses = ["20.60.1.9"]
    device = { tun = "four0" }
"#;

fn port<'s>(snapshot: &'s Snapshot, name: &str) -> &'s PortEntry {
    snapshot.ports.iter().find(|port| port.name == name).expect("the port is there")
}

fn address<A: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> A {
    text.parse().unwrap()
}

#[test]
fn a_route_names_the_endpoint_and_the_port_its_source() {
    let snapshot = plan(NETWORK).compile(1, None).unwrap();
    let source = |subnet: &str, to: &str| match hop(&snapshot, subnet, to, TCP).unwrap().action {
        HopAction::Deliver { source, .. } => source,
        HopAction::Drop(reason) => panic!("{subnet} to {to}: {reason:?}"),
    };
    assert_eq!(source("net/plain", "20.60.1.1"), SourceAction::Endpoint(1));
    assert_eq!(source("net/mapped", "20.60.1.1"), SourceAction::Endpoint(1));
    assert_eq!(source("net/identified", "20.60.1.1"), SourceAction::Endpoint(0));
    assert_eq!(source("net/private", "20.60.1.1"), SourceAction::Outbound);
    assert_eq!(source("net/mapped", "8.8.8.8"), SourceAction::Outbound);

    assert_eq!(port(&snapshot, "plain").endpoint_sources, [EndpointSource::Private, EndpointSource::Private]);
    let pairs = [("10.0.2.0/24", "100.64.8.0/24"), ("10.0.3.0/24", "100.64.9.0/24")];
    let pairs = pairs.map(|(from, to)| (address(from), address(to))).to_vec();
    assert_eq!(
        port(&snapshot, "mapped").endpoint_sources,
        [EndpointSource::Snat(PoolId(2)), EndpointSource::PrefixMap(pairs)]
    );
    assert!(port(&snapshot, "private").endpoint_sources.is_empty());
}

#[test]
fn pools_are_what_the_document_says() {
    let snapshot = plan(NETWORK).compile(1, None).unwrap();
    let [default, egress, pool] = &snapshot.pools[..] else { panic!("{:?}", snapshot.pools) };
    assert_eq!((default.name.as_str(), default.kind), ("default outbound access", PoolKind::DefaultOutbound));
    assert_eq!((default.mapping, default.filtering), (Mapping::EndpointIndependent, Filtering::default()));
    assert_eq!((default.lifetimes, default.tcp_udp_only), (Lifetimes::NAT_GATEWAY, false));
    assert_eq!((egress.name.as_str(), egress.kind), ("egress", PoolKind::NatGateway));
    assert_eq!((egress.v4.len(), egress.v6.len(), egress.ports.first, egress.ports.last), (2, 1, 1024, 65535));
    assert_eq!((egress.mapping, egress.filtering), (Mapping::EndpointIndependent, Filtering::AddressDependent));
    let idle = Lifetimes { established: 600_000, closing: 600_000, ..Lifetimes::NAT_GATEWAY };
    assert_eq!((egress.lifetimes, egress.tcp_udp_only), (idle, false));
    assert_eq!((pool.name.as_str(), pool.kind), ("pool", PoolKind::Snat));
    assert_eq!((pool.ports.first, pool.ports.last, pool.lifetimes), (2000, 2999, Lifetimes::RFC));
    assert_eq!(snapshot.pool_of(address("203.0.113.31")), Some(PoolId(1)));

    let restricted = plan(&format!("{NETWORK}\n[semantics]\nnat_protocols = [\"tcp\", \"udp\"]\n"));
    let restricted: Vec<bool> =
        restricted.compile(1, None).unwrap().pools.iter().map(|pool| pool.tcp_udp_only).collect();
    assert_eq!(restricted, [true, true, false]);
}

#[test]
fn ports_know_their_way_to_a_public_source() {
    let snapshot = plan(NETWORK).compile(1, None).unwrap();
    let outbound = |name: &str| port(&snapshot, name).outbound.clone();
    let (v4, v6): (IpAddr, IpAddr) = (address("203.0.113.41"), address("2001:db8:ffff::40"));
    assert_eq!(outbound("plain").nat_gateway, None);
    assert_eq!(outbound("plain").instance, [(address("10.0.1.4"), v4), (address("fd00:0:0:1::4"), v6)]);
    assert_eq!((outbound("plain").default, outbound("private").default), (Some(PoolId(0)), None));
    assert_eq!(outbound("identified").nat_gateway, Some(PoolId(1)));
    assert_eq!(snapshot.instances.len(), 3);
    let (number, private) = snapshot.instance(v6).unwrap();
    assert_eq!((snapshot.port(number).unwrap().name.as_str(), private), ("plain", address("fd00:0:0:1::4")));
    let (number, _) = snapshot.instance(address("203.0.113.40")).unwrap();
    assert_eq!(snapshot.port(number).unwrap().name, "mapped");

    // Without an edge pools have other numbers, and there is no default.
    let without = NETWORK.replace("[internet]", "[backbone]").replace("public_addresses = [\"203.0.113.200\"]", "");
    let without = plan(&without.replacen("mapping = \"endpoint-independent\"\n    device", "device", 1));
    let snapshot = without.compile(1, None).unwrap();
    let identified = &port(&snapshot, "identified").outbound;
    assert_eq!((identified.nat_gateway, identified.default), (Some(PoolId(0)), None));
    assert_eq!(port(&snapshot, "mapped").endpoint_sources[0], EndpointSource::Snat(PoolId(1)));
}

#[test]
fn a_service_has_an_ipv6_address_for_each_ipv4_one() {
    let snapshot = plan(NETWORK).compile(1, None).unwrap();
    let pair = |v4: &str, v6: &str| (address(v4), address(v6));
    assert_eq!(
        port(&snapshot, "both").identity_addresses,
        [pair("20.60.1.1", "2603:1020::1"), pair("20.60.1.2", "2603:1020::2"), pair("20.60.1.3", "2603:1020::1")]
    );
    assert!(port(&snapshot, "four").identity_addresses.is_empty());
}

#[test]
fn limits_and_lifetimes_are_in_the_snapshot() {
    let snapshot = plan(NETWORK).compile(1, None).unwrap();
    assert_eq!((snapshot.flow_limit, snapshot.flow_limit_per_nic), (1 << 20, 500_000));
    assert_eq!(snapshot.lifetimes, Lifetimes::RFC);
    let written = "[flows]\nlimit = 64\nlimit_per_nic = 16\n[flows.lifetimes]\nicmp = \"1s\"\nudp = \"2s\"\n\
                   tcp_opening = \"3s\"\ntcp_established = \"4s\"\ntcp_closing = \"5s\"\ntcp_closed = \"6s\"\n\
                   tcp_reset = \"7s\"\nport_rest = \"8s\"\nport_rest_half_open = \"9s\"\n";
    let snapshot = plan(&format!("{NETWORK}\n{written}")).compile(1, None).unwrap();
    assert_eq!((snapshot.flow_limit, snapshot.flow_limit_per_nic), (64, 16));
    let expected = Lifetimes {
        query: 1000,
        datagram: 2000,
        opening: 3000,
        established: 4000,
        closing: 5000,
        closed: 6000,
        aborted: 7000,
        rest: 8000,
        rest_half_open: 9000,
    };
    assert_eq!(
        (snapshot.lifetimes, snapshot.pools[0].lifetimes, snapshot.pools[2].lifetimes),
        (expected, expected, expected)
    );
    assert_eq!(snapshot.pools[1].lifetimes.rest, Lifetimes::NAT_GATEWAY.rest, "a NAT gateway has its own");
}

/// The example says of its lifetimes that they are the defaults.
#[test]
fn the_example_has_the_default_lifetimes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.toml");
    let catalogue = Catalogue::built_in().unwrap();
    let network = model::parse(&std::fs::read_to_string(&path).unwrap(), &path, Some(&catalogue)).unwrap();
    let snapshot = Plan::new(Arc::new(network), Arc::new(catalogue)).compile(1, None).unwrap();
    assert_eq!(snapshot.lifetimes, Lifetimes::RFC);
    let limits = (snapshot.flow_limit, snapshot.flow_limit_per_nic);
    assert_eq!(limits, (1 << 20, 500_000));
    let egress = &snapshot.pools[1];
    assert_eq!((egress.kind, egress.lifetimes), (PoolKind::NatGateway, Lifetimes::NAT_GATEWAY));
}

#[test]
fn identity_addresses_carry_region_tags_and_prefixes() {
    let document = format!("{NETWORK}\n[identity]\ndestination_prefix = \"2001:db8:64::/96\"\n");
    let snapshot = plan(&document).compile(1, None).unwrap();
    let [EndpointSource::Identity6(identity)] = port(&snapshot, "identified").endpoint_sources[..] else {
        panic!("{:?}", port(&snapshot, "identified").endpoint_sources)
    };
    // The network of a published sample: region 18, tag 0x126adb98; the third subnet.
    assert_eq!(identity.source, address::<Ipv6Addr>("fde4:8dba:1200:98db:6a12:300::"));
    assert_eq!(identity.destination, address::<Ipv6Addr>("2001:db8:64::"));
    let tags: Vec<_> = snapshot.identities.iter().map(|known| (known.subnet.as_str(), known.subnet_tag)).collect();
    assert_eq!(tags, [("plain", 1), ("mapped", 2), ("identified", 3), ("private", 4)]);
    assert!(snapshot.identities.iter().all(|known| known.network_tag == 0x126a_db98 && !known.retired));
}

/// A document of networks with subnets; a subnet may have a tag.
fn subnets(networks: &[(&str, &[&str])]) -> Plan {
    let subnet = |(place, written): (usize, &&str)| {
        let (name, tag) = written
            .split_once('=')
            .map_or((*written, String::new()), |(name, tag)| (name, format!("traffic_tag = {tag}\n")));
        format!("[[virtual_network.subnet]]\nname = \"{name}\"\naddress_prefixes = [\"10.0.{place}.0/24\"]\n{tag}")
    };
    let network = |(name, written): &(&str, &[&str])| {
        let (name, tag) =
            name.split_once('=').map_or((*name, String::new()), |(name, tag)| (name, format!("traffic_tag = {tag}\n")));
        let subnets: String = written.iter().enumerate().map(subnet).collect();
        format!("[[virtual_network]]\nname = \"{name}\"\naddress_space = [\"10.0.0.0/16\"]\n{tag}{subnets}")
    };
    plan(&networks.iter().map(network).collect::<String>())
}

/// `network/subnet tag`, retired ones in brackets.
fn tags(snapshot: &Snapshot) -> Vec<String> {
    let shown = |known: &sidestep::snapshot::SubnetIdentity| {
        let text = format!("{}/{} {}", known.network, known.subnet, known.subnet_tag);
        if known.retired { format!("({text})") } else { text }
    };
    snapshot.identities.iter().map(shown).collect()
}

#[test]
fn a_subnet_keeps_its_tag_and_leaves_it_to_nobody() {
    let first = subnets(&[("n", &["a", "b", "c"])]).compile(1, None).unwrap();
    assert_eq!(tags(&first), ["n/a 1", "n/b 2", "n/c 3"]);
    let second = subnets(&[("n", &["C", "d", "a"])]).compile(2, Some(&first)).unwrap();
    assert_eq!(tags(&second), ["n/C 3", "n/d 4", "n/a 1", "(n/b 2)"]);
    // Made again under its name, it is another subnet.
    let third = subnets(&[("n", &["a", "b", "c", "d"])]).compile(3, Some(&second)).unwrap();
    assert_eq!(tags(&third), ["n/a 1", "n/b 5", "n/c 3", "n/d 4", "(n/b 2)"]);
    // So are the subnets of a network that was made again.
    let fourth = subnets(&[("m", &["a"])]).compile(4, Some(&third)).unwrap();
    let fifth = subnets(&[("n", &["a"])]).compile(5, Some(&fourth)).unwrap();
    assert_eq!(tags(&fifth)[0], "n/a 6");
    let tag = |snapshot: &Snapshot| snapshot.identities[0].network_tag;
    assert_eq!(tag(&fifth), tag(&first), "the network's own tag follows from its name");
    assert_ne!(tag(&fourth), tag(&first));
    assert_eq!(fifth.identities.iter().filter(|known| known.retired).count(), 6);
}

#[test]
fn a_tag_of_the_document_goes_before_all_others() {
    let first = subnets(&[("n", &["a", "b=1", "c"])]).compile(1, None).unwrap();
    assert_eq!(tags(&first), ["n/a 2", "n/b 1", "n/c 3"]);
    // `d` takes what `a` had, which gets another; `c` is gone, and `e` says that it is `c`.
    let second = subnets(&[("n", &["a", "d=2", "b"])]).compile(2, Some(&first)).unwrap();
    assert_eq!(tags(&second), ["n/a 4", "n/d 2", "n/b 1", "(n/c 3)"]);
    let third = subnets(&[("n", &["a", "e=3"])]).compile(3, Some(&second)).unwrap();
    assert_eq!(tags(&third), ["n/a 4", "n/e 3", "(n/d 2)", "(n/b 1)"]);
}

#[test]
fn networks_with_one_hash_get_two_tags() {
    // The upper byte is the region's.
    let own = |snapshot: &Snapshot, place: usize| snapshot.identities[place].network_tag;
    let alone = subnets(&[("n", &["a"])]).compile(1, None).unwrap();
    let tag = own(&alone, 0);
    assert_eq!(tag >> 24, 18);
    let given = format!("x={}", tag & 0xff_ffff);
    let both = subnets(&[("n", &["a"]), (given.as_str(), &["a"])]).compile(1, None).unwrap();
    assert_eq!((own(&both, 0), own(&both, 1)), (tag & 0xff00_0000 | (tag + 1) & 0xff_ffff, tag));
    // A network keeps its tag, until the document gives it to another.
    let next = subnets(&[("n", &["a"])]).compile(2, Some(&both)).unwrap();
    assert_eq!(own(&next, 0), own(&both, 0));
    let mine = format!("n={}", 7);
    let next = subnets(&[(mine.as_str(), &["a"])]).compile(3, Some(&next)).unwrap();
    assert_eq!(own(&next, 0), 18 << 24 | 7);
}

#[test]
fn tags_of_a_network_run_out_aloud() {
    let subnets_of = |tag: u32| subnets(&[("n", &[format!("s={tag}").as_str()])]);
    let mut all = subnets_of(1).compile(1, None).unwrap();
    let one = all.identities.remove(0);
    all.identities = (1..=u16::MAX)
        .map(|subnet_tag| sidestep::snapshot::SubnetIdentity { subnet_tag, retired: true, ..one.clone() })
        .collect();
    let error = subnets(&[("n", &["s"])]).compile(2, Some(&all)).unwrap_err();
    assert_eq!(error, PlanError::TooManySubnetTags("n".to_owned()));
    assert!(subnets_of(9).compile(2, Some(&all)).is_ok());
}

#[test]
fn answers_tell_the_source_of_an_endpoint() {
    let plan = plan(NETWORK);
    let sources = |subnet: &str| -> Vec<String> {
        let answer = plan.routes_answer(plan.find_subnet_or_nic(subnet).unwrap());
        answer.routes.into_iter().filter_map(|row| row.route.endpoint_source).collect()
    };
    assert_eq!(sources("plain"), ["private", "private"]);
    let map = "prefix_map 10.0.2.0/24 to 100.64.8.0/24, 10.0.3.0/24 to 100.64.9.0/24";
    assert_eq!(sources("mapped"), ["snat pool", map]);
    assert_eq!(sources("identified"), ["identity6"]);
    assert!(sources("private").is_empty());
    let next_hop = |from: &str| {
        let answer = plan.next_hop(plan.find_subnet_or_nic(from).unwrap(), address("20.60.1.1"), TCP);
        answer.route.unwrap().endpoint_source
    };
    assert_eq!(next_hop("mapped").as_deref(), Some(map));
    assert_eq!(next_hop("private"), None);
}
