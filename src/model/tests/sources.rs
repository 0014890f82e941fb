//! Source modes, NAT gateways, pools, public addresses of NICs, traffic tags, flows.

use std::fmt::Write as _;
use std::time::Duration;

use ipnet::IpNet;

use super::{Case, base_with, case, check_cases, check_document, good};
use crate::model::network::{EndpointSource, Filtering, Flows, Identity, Mapping, NatProtocols};

/// The endpoint of the base document that the cases give a source.
const SQL: &str = "{ service = \"Microsoft.Sql\" }";
/// What comes before the parts that cases add.
const END: &str = "[lab]\n";
const EGRESS: &str = "[[nat_gateway]]\nname = \"egress\"\npublic_addresses = [\"203.0.113.30\"]\n";
const POOL: &str = "[[snat_pool]]\nname = \"pool\"\naddresses = [\"198.51.100.10\"]\n";

/// The document with a part more.
fn with(part: &str) -> (&'static str, &'static str) {
    (END, format!("{part}\n{END}").leak())
}

fn added(part: &str, expected: &'static [(&'static str, &'static str)]) -> Case {
    let (from, to) = with(part);
    case(from, to, expected)
}

/// The endpoint with a source; two prefixes of two families to map.
fn source(source: &str, expected: &'static [(&'static str, &'static str)]) -> Case {
    case(SQL, format!("{{ service = \"Microsoft.Sql\", source = {source} }}").leak(), expected)
}

fn prefix(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn sources_are_in_the_network() {
    let of = |written: &str, part: &str| {
        let text = base_with(SQL, &format!("{{ service = \"Microsoft.Sql\", source = {written} }}"));
        let network = good(&text.replace(END, &format!("{part}\n{END}")));
        let workload = network.find_subnet("spoke/workload").unwrap();
        network.subnet(workload).service_endpoints[1].source.clone()
    };
    assert_eq!(of("\"private\"", ""), EndpointSource::Private);
    assert_eq!(of("\"identity6\"", ""), EndpointSource::Identity6);
    assert_eq!(of("{ snat = \"POOL\" }", POOL), EndpointSource::Snat(0));
    let v4 = (prefix("10.1.1.0/24"), prefix("100.64.8.0/24"));
    let v6 = (prefix("fd00:1:0:1::/64"), prefix("fd00:64::/64"));
    assert_eq!(of("{ prefix_map = \"100.64.8.0/24\" }", ""), EndpointSource::PrefixMap(vec![v4]));
    assert_eq!(
        of("{ prefix_map = [\"fd00:64::/64\", \"100.64.8.0/24\"] }", ""),
        EndpointSource::PrefixMap(vec![v4, v6])
    );
}

#[test]
fn translation_is_in_the_network() {
    let network = good(&format!(
        "location = \"x\"\n{EGRESS}idle_timeout = \"10m\"\nmapping = \"endpoint-independent\"\n\
         filtering = \"address-dependent\"\n{POOL}ports = \"1-1023\"\n[internet]\nmapping = \"endpoint-independent\"\n\
         [semantics]\nnat_protocols = [\"udp\", \"tcp\"]\n"
    ));
    let gateway = &network.nat_gateways[0];
    assert_eq!((gateway.name.as_str(), gateway.idle_timeout), ("egress", Duration::from_secs(600)));
    assert_eq!(gateway.translation.mapping, Mapping::EndpointIndependent);
    assert_eq!(gateway.translation.filtering, Filtering::AddressDependent);
    assert_eq!(network.snat_pools[0].ports, 1..=1023);
    assert_eq!(network.snat_pools[0].translation.mapping, Mapping::AddressAndPortDependent);
    assert_eq!(network.internet.unwrap().translation.mapping, Mapping::EndpointIndependent);
    assert_eq!(network.semantics.nat_protocols, NatProtocols::TcpAndUdp);

    let network = good(&format!(
        "location = \"x\"\n{EGRESS}lifetimes = {{ udp = \"5m\", port_rest = \"90s\" }}\n[flows.lifetimes]\nicmp = \"2s\"\n"
    ));
    let lifetimes = network.nat_gateways[0].lifetimes;
    assert_eq!(lifetimes.udp, Some(Duration::from_secs(300)));
    assert_eq!(lifetimes.port_rest, Some(Duration::from_secs(90)));
    assert_eq!(lifetimes.icmp, None, "those of the node are not the gateway's");

    let network = good(&format!("location = \"x\"\n{EGRESS}{POOL}"));
    assert_eq!(network.nat_gateways[0].idle_timeout, Duration::from_secs(240));
    assert_eq!(network.snat_pools[0].ports, 1024..=65535);
    assert_eq!(network.semantics.nat_protocols, NatProtocols::Any);
    assert_eq!((network.flows, network.identity), (Flows::default(), Identity::default()));
}

#[test]
fn flows_are_in_the_network() {
    let network = good(
        "location = \"x\"\n[flows]\nlimit = 1000\nlimit_per_nic = 10\n[flows.lifetimes]\nicmp = \"1500ms\"\n\
         tcp_established = \"24h\"\n",
    );
    assert_eq!((network.flows.limit, network.flows.limit_per_nic), (1000, 10));
    assert_eq!(network.flows.lifetimes.icmp, Some(Duration::from_millis(1500)));
    assert_eq!(network.flows.lifetimes.tcp_established, Some(Duration::from_secs(86_400)));
    assert_eq!(network.flows.lifetimes.udp, None);
}

#[test]
fn flows() {
    check_cases(&[
        added("[flows]\nlimit = §0", &[("`limit` is out of range: 0", "from 1 to 16777216")]),
        added("[flows]\nlimit = 16777216", &[]),
        added("[flows]\nlimit_per_nic = §16777217", &[("`limit_per_nic` is out of range", "to 16777216")]),
        added("[flows.lifetimes]\nudp = §\"500ms\"", &[("`udp` is out of range: 0.5 s", "from 1s to 24h")]),
        added("[flows.lifetimes]\nport_rest = §\"25h\"", &[("`port_rest` is out of range", "from 1s to 24h")]),
        added("[flows.lifetimes]\nudp = §\"-1s\"", &[("`-1s` is not a duration", "ms, s, m and h")]),
        added("[flows.lifetimes]\nudp = §\"1d\"", &[("`1d` is not a duration", "ms, s, m and h")]),
        added("[flows.lifetimes]\nudp = §60", &[("expected a string, found an integer", "")]),
        added("[flows.lifetimes]\n§icpm = \"1s\"", &[("unknown key `icpm` in `lifetimes`", "`icmp`")]),
    ]);
}

#[test]
fn nat_gateways() {
    let subnet = "  name = \"spare\"\n";
    let uses = "  name = \"spare\"\n  nat_gateway = \"Egress\"\n";
    let (from, to) = with(EGRESS);
    check_cases(&[
        added(EGRESS, &[]),
        case(subnet, uses, &[]).also(from, to),
        case(
            subnet,
            "  name = \"spare\"\n  nat_gateway = §\"egres\"\n",
            &[("unknown NAT gateway `egres`", "`egress`")],
        )
        .also(from, to),
        case(
            "  name = \"GatewaySubnet\"\n",
            "  name = \"GatewaySubnet\"\n  nat_gateway = §\"egress\"\n",
            &[("GatewaySubnet cannot have a NAT gateway", "another subnet")],
        )
        .also(from, to),
        case(subnet, uses, &[("the NAT gateway `egress` serves virtual network `spoke` already", "of its own")])
            .also("  name = \"lonely\"\n", "  name = \"lonely\"\n  nat_gateway = §\"egress\"\n")
            .also(from, to),
        added(
            "[[nat_gateway]]\nname = \"a\"\npublic_addresses = §[]",
            &[("`public_addresses` of a NAT gateway must not be empty", "")],
        ),
        added(
            "[[nat_gateway]]\nname = \"a\"\npublic_addresses = [§\"192.168.0.1\"]",
            &[("`192.168.0.1` cannot be a NAT gateway's address: it is private", "internet")],
        ),
        added(
            &format!("{EGRESS}idle_timeout = §\"3m\""),
            &[("`idle_timeout` is out of range: 180 s", "from 4m to 2h")],
        ),
        added(&format!("{EGRESS}idle_timeout = \"120m\""), &[]),
        added(&format!("{EGRESS}lifetimes = {{ udp = \"5m\", tcp_reset = \"1s\", port_rest = \"24h\" }}"), &[]),
        added(
            &format!("{EGRESS}lifetimes = {{ udp = §\"500ms\" }}"),
            &[("`udp` is out of range: 0.5 s", "from 1s to 24h")],
        ),
        added(
            &format!("{EGRESS}lifetimes = §{{ tcp_established = \"1h\" }}"),
            &[(
                "a NAT gateway has no `tcp_established`: it is the `idle_timeout`",
                "write `idle_timeout` of 4m to 120m",
            )],
        ),
        added(
            &format!("{EGRESS}lifetimes = §{{ udp = \"5m\", tcp_closing = \"1h\" }}"),
            &[("a NAT gateway has no `tcp_closing`: it is the `idle_timeout`", "write `idle_timeout` of 4m to 120m")],
        ),
        added(
            &format!("{EGRESS}{}", EGRESS.replace("\"egress\"", "§\"Egress\"").replace("30", "31")),
            &[("the NAT gateway `Egress` is there twice", "the first one is in line")],
        ),
        added(
            &format!("{EGRESS}mapping = §\"full-cone\""),
            &[("unknown mapping `full-cone`", "\"endpoint-independent\"")],
        ),
        added(
            &format!("{EGRESS}filtering = §\"address-dependent\""),
            &[("the filtering `address-dependent` needs endpoint-independent mapping", "add mapping")],
        ),
        added(&format!("{EGRESS}mapping = \"endpoint-independent\"\nfiltering = \"endpoint-independent\""), &[]),
        case(
            "public_addresses = [\"203.0.113.200\", \"2001:db8:ffff::200\"]\n",
            "public_addresses = [\"203.0.113.200\"]\nfiltering = §\"endpoint-independent\"\n",
            &[("the filtering `endpoint-independent` needs", "add mapping")],
        ),
        case(
            "endpoint_protocols = [\"udp\", \"tcp\"]\n",
            "endpoint_protocols = [\"udp\", \"tcp\"]\nnat_protocols = §[\"tcp\"]\n",
            &[("NAT translates either every protocol or TCP and UDP", "write \"any\"")],
        ),
    ]);
}

#[test]
fn addresses_of_a_nat_gateway_are_limited() {
    let mut text = String::from("location = \"x\"\n[[nat_gateway]]\nname = \"n\"\npublic_addresses = [\n");
    for last in 1..=17 {
        let mark = if last == 17 { "§" } else { "" };
        writeln!(text, "{mark}\"203.0.113.{last}\",").unwrap();
    }
    check_document(&(text + "]\n"), &[("there are 17 public addresses of one NAT gateway, and 16 is the limit", "")]);
}

#[test]
fn snat_pools() {
    check_cases(&[
        added(POOL, &[]),
        added(&format!("{POOL}ports = \"1-65535\""), &[]),
        added(&format!("{POOL}ports = §\"0-10\""), &[("`0-10` is not a range of ports", "1024-65535")]),
        added(&format!("{POOL}ports = §\"20-10\""), &[("`20-10` is not a range of ports", "1024-65535")]),
        added(&format!("{POOL}ports = §\"1024\""), &[("`1024` is not a range of ports", "1024-65535")]),
        added(
            "[[snat_pool]]\nname = \"p\"\naddresses = [§\"224.0.0.1\"]",
            &[("`224.0.0.1` cannot be a SNAT pool's address: it is multicast", "")],
        ),
        added("[[snat_pool]]\nname = \"p\"\naddresses = [\"100.64.0.1\", \"192.168.7.7\"]", &[]),
        added(
            &format!("{POOL}{}", POOL.replace("\"pool\"", "§\"Pool\"").replace("100.10", "100.11")),
            &[("the SNAT pool `Pool` is there twice", "the first one is in line")],
        ),
        source("{ snat = §\"pol\" }", &[("unknown SNAT pool `pol`", "`pool`")]).also(END, with(POOL).1),
    ]);
}

#[test]
fn presented_addresses_are_nobody_elses() {
    let nic = |address: &str| format!("name = \"vm1\"\npublic_addresses = [{address}]\n").leak() as &str;
    check_cases(&[
        added(
            "[[nat_gateway]]\nname = \"n\"\npublic_addresses = [§\"203.0.113.200\"]",
            &[("the address `203.0.113.200` is there twice", "the first one is in line")],
        ),
        added(
            "[[snat_pool]]\nname = \"p\"\naddresses = [§\"20.60.1.10\"]",
            &[("the address `20.60.1.10` is there twice", "the first one is in line")],
        ),
        added(
            &format!("{EGRESS}[[snat_pool]]\nname = \"p\"\naddresses = [§\"203.0.113.30\", \"203.0.113.31\"]"),
            &[("the address `203.0.113.30` is there twice", "the first one is in line")],
        ),
        case("name = \"vm1\"\n", nic("§\"20.60.1.10\""), &[("the address `20.60.1.10` is there twice", "in line")]),
        added(
            "[[nat_gateway]]\nname = \"n\"\npublic_addresses = [\"203.0.113.10\"]",
            &[("the address `203.0.113.10` is there twice", "the first one is in line")],
        )
        .also("masquerade = \"203", "masquerade = §\"203"),
        added(
            "[[snat_pool]]\nname = \"p\"\naddresses = [§\"10.1.9.9\"]",
            &[("the address `10.1.9.9` is in `10.1.0.0/16` of virtual network `spoke`", "outside every")],
        ),
        case(
            "address_space = [\"10.2.0.0/16\"]",
            "address_space = [\"10.2.0.0/16\", \"203.0.112.0/23\"]",
            &[("the address `203.0.113.200` is in `203.0.112.0/23` of virtual network `other`", "outside every")],
        )
        .also("[\"203.0.113.200\"", "[§\"203.0.113.200\""),
    ]);
}

#[test]
fn public_addresses_of_nics() {
    let nic = |address: &str| format!("name = \"vm1\"\npublic_addresses = [{address}]\n").leak() as &str;
    check_cases(&[
        case("name = \"vm1\"\n", nic("\"203.0.113.40\", \"2001:db8:ffff::40\""), &[]),
        case(
            "name = \"vm1\"\n",
            nic("\"203.0.113.40\", §\"203.0.113.41\""),
            &[("there is a second IPv4 public address of a NIC: one is the limit", "")],
        ),
        case(
            "name = \"vm1\"\n",
            nic("§\"10.9.0.1\""),
            &[("`10.9.0.1` cannot be a NIC's public address: it is private", "internet")],
        ),
        case(
            "name = \"vm1\"\n",
            nic("§\"2001:db8:ffff::40\""),
            &[("the NIC `vm1` has no private IPv6 address to go with `2001:db8:ffff::40`", "private_addresses")],
        )
        .also("[\"10.1.1.4\", \"fd00:1:0:1::4\"]", "[\"10.1.1.4\"]"),
    ]);
}

#[test]
fn sources() {
    let v6_only = "address_prefixes = [\"fd00:1:0:2::/64\"]\n  service_endpoints = \
                   [{ service = \"Microsoft.Storage\", source = §\"identity6\" }]";
    check_cases(&[
        source("§\"public\"", &[("unknown source `public`", "\"identity6\"")]),
        source("§7", &[("expected a word or a table, found an integer", "")]),
        source("§{}", &[("a source is one of `prefix_map` and `snat`", "\"private\"")]),
        source(
            "§{ snat = \"pool\", prefix_map = \"100.64.8.0/24\" }",
            &[("a source is one of `prefix_map` and `snat`", "\"private\"")],
        )
        .also(END, with(POOL).1),
        source(
            "§{ §prefixmap = \"100.64.8.0/24\" }",
            &[
                ("a source is one of `prefix_map` and `snat`", "\"private\""),
                ("unknown key `prefixmap` in a source", "`prefix_map`"),
            ],
        ),
        case(
            "address_prefixes = [\"10.1.2.0/24\"]",
            v6_only,
            &[("the subnet `spoke/spare` has no IPv4 prefix, and identity6 carries IPv4", "\"private\"")],
        ),
    ]);
}

#[test]
fn prefix_maps() {
    check_cases(&[
        source("{ prefix_map = §[] }", &[("a prefix_map without prefixes denies everything", "100.64.8.0/24")]),
        source("{ prefix_map = §\"100.64.8.1/24\" }", &[("has host bits set", "write \"100.64.8.0/24\"")]),
        source(
            "{ prefix_map = §\"100.64.8.0/25\" }",
            &[(
                "the prefix `100.64.8.0/25` is not as long as `10.1.1.0/24` of subnet `spoke/workload`",
                "write \"100.64.8.0/24\"",
            )],
        ),
        source(
            "{ prefix_map = §[\"100.64.8.0/24\", \"100.64.9.0/24\"] }",
            &[("the subnet `spoke/workload` has 1 IPv4 prefixes, and prefix_map 2", "each of 10.1.1.0/24, in this")],
        ),
        source(
            "{ prefix_map = §\"224.0.1.0/24\" }",
            &[("the prefix `224.0.1.0/24` overlaps `224.0.0.0/4` (multicast)", "")],
        ),
        source(
            "{ prefix_map = §\"10.2.9.0/24\" }",
            &[("the prefix `10.2.9.0/24` overlaps `10.2.0.0/16` of virtual network `other`", "outside every")],
        ),
        source(
            "{ prefix_map = §\"198.51.100.0/24\" }",
            &[("the prefix `198.51.100.0/24` contains the address `198.51.100.10`", "without it")],
        )
        .also(END, with(POOL).1),
        // Endpoints of one subnet may share a map; subnets may not.
        source("{ prefix_map = \"100.64.8.0/24\" }", &[])
            .also("[\"West Europe\"] }", "[\"West Europe\"], source = { prefix_map = \"100.64.8.0/24\" } }"),
        source(
            "{ prefix_map = \"100.64.8.0/24\" }",
            &[(
                "the prefix `100.64.8.0/24` overlaps `100.64.8.0/24`, which `spoke/workload` is mapped to",
                "of its own",
            )],
        )
        .also(
            "  name = \"spare\"\n",
            "  name = \"spare\"\n  service_endpoints = \
             [{ service = \"Microsoft.Sql\", source = { prefix_map = §\"100.64.8.0/24\" } }]\n",
        ),
    ]);
}

#[test]
fn identity() {
    check_cases(&[
        added("[identity]\nprefix = \"fd12:3456::/32\"\ndestination_prefix = \"2001:db8:1::/96\"", &[]),
        added("[identity]\nprefix = §\"10.0.0.0/8\"", &[("`prefix` is not an IPv6 prefix: 10.0.0.0/8", "IPv6 /32")]),
        added(
            "[identity]\nprefix = §\"fd12:3456::/48\"",
            &[("`prefix` is not a /32: fd12:3456::/48", "write \"fd12:3456::/32\"")],
        ),
        added("[identity]\nprefix = §\"ff05:1::/32\"", &[("`prefix` overlaps `ff00::/8` (multicast)", "fd00::/8")]),
        added(
            "[identity]\ndestination_prefix = §\"2001:db8::/64\"",
            &[("`destination_prefix` is not a /96: 2001:db8::/64", "write \"2001:db8::/96\"")],
        ),
        added(
            "[identity]\ndestination_prefix = §\"2001:db8:0:0:100::/96\"",
            &[("has bits 64 to 71 set", "64:ff9b::/96")],
        ),
        added(
            "[identity]\nprefix = §\"fd00:1::/32\"",
            &[("the identity prefix `fd00:1::/32` overlaps `fd00:1::/48` of virtual network `spoke`", "nothing else")],
        ),
        added(
            "[identity]\nprefix = §\"fd12:3456::/32\"\ndestination_prefix = \"fd12:3456:1::/96\"",
            &[("the identity prefix `fd12:3456::/32` contains the destination prefix", "of their own")],
        ),
        // Without use of the default prefixes, a network may have them.
        case("\"fd00:10::/48\"", "\"fd00:10::/48\", \"fde4:8dba:1::/48\"", &[]),
        source(
            "§\"identity6\"",
            &[("the identity prefix `fde4:8dba::/32` overlaps `fde4:8dba:1::/48` of virtual network `hub`", "nothing")],
        )
        .also("\"fd00:10::/48\"", "\"fd00:10::/48\", \"fde4:8dba:1::/48\""),
    ]);
}

#[test]
fn traffic_tags() {
    let network =
        |name: &str, tag: &str| format!("name = \"{name}\"\ntraffic_tag = {tag}\naddress_space").leak() as &str;
    let subnet = |name: &str, tag: &str| format!("  name = \"{name}\"\n  traffic_tag = {tag}\n").leak() as &str;
    check_cases(&[
        case("name = \"hub\"\naddress_space", network("hub", "16777215"), &[])
            .also("name = \"spoke\"\naddress_space", network("spoke", "0")),
        case(
            "name = \"hub\"\naddress_space",
            network("hub", "§16777216"),
            &[("`traffic_tag` is out of range: 16777216", "from 0 to 16777215")],
        ),
        case(
            "name = \"hub\"\naddress_space",
            network("hub", "5"),
            &[("the traffic_tag of a virtual network `5` is there twice", "the first one is in line")],
        )
        .also("name = \"spoke\"\naddress_space", network("spoke", "§5")),
        case("  name = \"spare\"\n", subnet("spare", "§0"), &[("`traffic_tag` is out of range: 0", "from 1 to 65535")]),
        case(
            "  name = \"spare\"\n",
            subnet("spare", "§7"),
            &[("the traffic_tag of a subnet `7` is there twice", "the first one is in line")],
        )
        .also("  name = \"workload\"\n", subnet("workload", "7")),
        case("  name = \"spare\"\n", subnet("spare", "7"), &[]).also("  name = \"lonely\"\n", subnet("lonely", "7")),
    ]);
}
