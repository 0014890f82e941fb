//! Network security groups on the packet's way: cases N1 to N3, both directions, what rules are judged on, and what the
//! computed tags stand for.

use std::net::IpAddr;

use sidestep::packet::frame::Frame;
use sidestep::path::nsg::{Direction, asked, decide};
use sidestep::path::subject::Subject;
use sidestep::path::{DropReason, explain};

use crate::bench::{Bench, NETWORK};
use crate::packets::{Tcp, echo, port_unreachable, protocol, udp};
use crate::site::{Connection, End, Site};

const OUT: DropReason = DropReason::NsgOutboundDenied;
const IN: DropReason = DropReason::NsgInboundDenied;

const WEB: &str = "198.51.100.80";
const STORE: &str = "20.60.1.10";
const ESP: u8 = 50;
const AH: u8 = 51;

/// A second NIC beside vm3.
const MORE: &str = r#"
[[nic]]
name = "vm5"
subnet = "spoke/open"
private_addresses = ["10.1.3.5", "fd00:1:0:3::5"]
device = { tun = "t-vm5" }
"#;

/// A rule from a line: `100 Outbound Deny Tcp * -> Storage,10.0.0.0/8 : 443,1000-2000`. `@front` is an application security
/// group; without ports, all.
fn rule(line: &str) -> String {
    let (head, rest) = line.split_once(" -> ").unwrap();
    let (destination, ports) = rest.split_once(" : ").unwrap_or((rest, "*"));
    let [priority, direction, access, protocol, source] = head.split(' ').collect::<Vec<_>>()[..] else {
        panic!("no rule: {line}")
    };
    let list = |text: &str| text.split(',').map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ");
    let side = |side: &str, written: &str| match written.strip_prefix('@') {
        Some(groups) => format!("{side}_application_security_groups = [{}]", list(groups)),
        None => format!("{side}_address_prefixes = [{}]", list(written)),
    };
    format!(
        "{{ name = \"{direction}-{priority}\", priority = {priority}, direction = \"{direction}\", access = \"{access}\", protocol = \
         \"{protocol}\", {}, {}, destination_port_ranges = [{}] }}",
        side("source", source),
        side("destination", destination),
        list(ports)
    )
}

/// A group in a document.
fn group(name: &str, flush: bool, rules: &[&str]) -> String {
    let rules: Vec<String> = rules.iter().map(|line| rule(line)).collect();
    format!(
        "\n[[network_security_group]]\nname = \"{name}\"\nflush_connection = {flush}\nsecurity_rules = [{}]\n",
        rules.join(",\n")
    )
}

/// The bench's network with vm5, with groups at subnets (`spoke/open`) and NICs (`vm3`), and with more text.
fn document(users: &[(&str, &str)], groups: &str) -> String {
    let mut text = format!("tags = \"service-tags.json\"\n{NETWORK}{MORE}");
    for (user, group) in users {
        let name = user.split_once('/').map_or(*user, |(_, subnet)| subnet);
        let place = format!("name = \"{name}\"\n");
        assert_eq!(text.matches(&place).count(), 1, "{place}");
        text = text.replace(&place, &format!("{place}network_security_group = \"{group}\"\n"));
    }
    text + groups
}

/// One group with these rules at one subnet or NIC.
fn bench(user: &str, rules: &[&str]) -> Bench {
    Bench::with(&document(&[(user, "web")], &group("web", false, rules)))
}

/// The rules that a packet meets, as explaining shows them: `deny: securityRules/r of web`.
fn met(bench: &Bench, port: &str, packet: &[u8]) -> Vec<String> {
    let explanation = explain(bench.forwarder.snapshot(), bench.port(port), &Frame::from_packet(packet));
    explanation.stages.into_iter().filter(|stage| stage.stage == "nsg").map(|stage| stage.decision).collect()
}

fn tcp(from: &str, to: &str, port: u16) -> Vec<u8> {
    Tcp { from: (from, 40_000), to: (to, port), ..Tcp::default() }.bytes()
}

/// What the groups of a NIC say about TCP, without a packet.
fn says(bench: &Bench, nic: &str, direction: Direction, source: &str, destination: &str, port: u16) -> Vec<String> {
    let snapshot = bench.forwarder.snapshot();
    let subject = Subject {
        ingress: bench.port(nic),
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: 6,
        source_port: 40_000,
        destination_port: port,
    };
    let port = snapshot.port(bench.port(nic)).unwrap();
    let rulings = asked(port, direction).map(|(_, group)| decide(snapshot, group, direction, &subject).unwrap());
    rulings
        .map(|ruling| {
            let rule = ruling.rule.map_or("-", |rule| rule.name.split_once('/').unwrap().1);
            format!("{:?} {rule}", ruling.access)
        })
        .collect()
}

#[test]
fn n1_storage_passes_where_the_internet_is_denied() {
    let mut bench =
        bench("spoke/open", &["100 Outbound Allow Tcp * -> Storage : 443", "200 Outbound Deny * * -> Internet"]);
    bench.set_endpoint("spoke/open", true);
    let seen = bench.forward("vm3", tcp("10.1.3.4", STORE, 443), "contosodata");
    assert_eq!(seen.source.to_string(), "10.1.3.4", "over the endpoint");
    bench.forward("vm3", tcp("fd00:1:0:3::4", "2603:1020:206:100::10", 443), "contosodata");
    bench.dropped("vm3", tcp("10.1.3.4", STORE, 80), OUT);
    bench.dropped("vm3", tcp("10.1.3.4", WEB, 443), OUT);
    bench.dropped("vm3", tcp("fd00:1:0:3::4", "2001:db8:80::80", 443), OUT);
    bench.forward("vm3", tcp("10.1.3.4", "10.1.1.4", 80), "vm1");
    assert_eq!(bench.report().dropped["nsg_outbound_denied"], 3);
}

#[test]
fn endpoint_traffic_is_internet_to_the_rules_and_its_own_tag() {
    for (rules, passes) in [
        (&[][..], true),
        (&["100 Outbound Allow * * -> Internet", "200 Outbound Deny * * -> *"], true),
        (&["100 Outbound Allow * * -> Storage.WestEurope", "200 Outbound Deny * * -> *"], true),
        (&["100 Outbound Allow * * -> Storage.NorthEurope", "200 Outbound Deny * * -> *"], false),
        (&["100 Outbound Allow * * -> VirtualNetwork", "200 Outbound Deny * * -> *"], false),
        (&["100 Outbound Deny * * -> AzureCloud"], false),
    ] {
        let mut bench = bench("spoke/open", rules);
        bench.set_endpoint("spoke/open", true);
        match passes {
            true => drop(bench.forward("vm3", tcp("10.1.3.4", STORE, 443), "contosodata")),
            false => bench.dropped("vm3", tcp("10.1.3.4", STORE, 443), OUT),
        }
    }
}

#[test]
fn n2_what_the_nic_denies_the_subnet_is_not_asked() {
    let groups = group("nic", false, &["100 Outbound Deny * * -> *"])
        + &group("subnet", false, &["100 Outbound Allow * * -> *", "100 Inbound Deny Tcp * -> * : 22"]);
    let mut bench = Bench::with(&document(&[("vm3", "nic"), ("spoke/open", "subnet")], &groups));
    let packet = tcp("10.1.3.4", WEB, 443);
    assert_eq!(met(&bench, "vm3", &packet), ["deny: securityRules/Outbound-100 of nic"]);
    bench.dropped("vm3", packet, OUT);
    // Inbound the subnet comes first.
    let ssh = tcp("10.1.1.4", "10.1.3.4", 22);
    assert_eq!(met(&bench, "vm1", &ssh), ["deny: securityRules/Inbound-100 of subnet"]);
    bench.dropped("vm1", ssh, IN);
    let web = tcp("10.1.1.4", "10.1.3.4", 80);
    assert_eq!(
        met(&bench, "vm1", &web),
        [
            "allow: defaultSecurityRules/AllowVnetInBound of subnet",
            "allow: defaultSecurityRules/AllowVnetInBound of nic"
        ]
    );
    bench.forward("vm1", web, "vm3");
}

#[test]
fn both_groups_have_to_allow() {
    let groups = group("nic", false, &["100 Inbound Allow Tcp * -> * : 22"]) + &group("subnet", false, &[]);
    let mut bench = Bench::with(&document(&[("vm3", "nic"), ("spoke/open", "subnet")], &groups));
    // 192.168.0.0/16 is behind the gateway, and so in VirtualNetwork; what else comes through it is not.
    bench.forward("gateway", tcp("192.168.0.9", "10.1.3.4", 22), "vm3");
    bench.dropped("gateway", tcp("172.16.0.9", "10.1.3.4", 22), IN);
}

/// An open connection from vm3 to the service, and its group.
fn connected(flush: bool) -> (Bench, Connection<'static>) {
    let groups = group("web", flush, &["200 Outbound Allow * * -> *"]);
    let mut bench = Bench::with(&document(&[("spoke/open", "web")], &groups));
    let (inside, remote) =
        (End { port: "vm3", socket: ("10.1.3.4", 40_000) }, End { port: "contosodata", socket: (STORE, 443) });
    bench.set_endpoint("spoke/open", true);
    let connection = Connection::open(&mut bench, inside, remote);
    bench.forward("vm3", udp(("10.1.3.4", 5_000), (STORE, 443), b"q"), "contosodata");
    (bench, connection)
}

/// A rule is added that denies all.
fn deny(bench: &mut Bench) {
    bench.change(|network| {
        let rules = &mut network.network_security_groups[0].security_rules;
        let mut rule = rules[0].clone();
        rule.name = "deny".into();
        rule.priority = 100;
        rule.access = sidestep::model::network::Access::Deny;
        rules.push(rule);
    });
}

#[test]
fn n3_an_established_flow_outlives_a_rule_that_denies_it() {
    let (mut bench, connection) = connected(false);
    deny(&mut bench);
    bench.sweep();
    assert!(bench.take().is_empty(), "nothing is reset");
    bench.forward("vm3", connection.out("PA", 1_001, 9_001), "contosodata");
    bench.forward("contosodata", connection.back("A", 9_001, 1_001), "vm3");
    bench.forward("vm3", udp(("10.1.3.4", 5_000), (STORE, 443), b"q"), "contosodata");
    bench.dropped("vm3", tcp("10.1.3.4", STORE, 444), OUT);
    bench.dropped("vm3", udp(("10.1.3.4", 5_001), (STORE, 443), b"q"), OUT);
    let report = bench.report();
    assert_eq!((report.flows_kept, report.flows_reset, report.flows_moved), (2, 0, 0));
}

#[test]
fn n3_a_group_that_flushes_cuts_what_it_denies() {
    let (mut bench, connection) = connected(true);
    deny(&mut bench);
    bench.sweep();
    let sent = bench.take();
    let mut to: Vec<&str> = sent.iter().map(|(port, _)| port.as_str()).collect();
    to.sort_unstable();
    assert_eq!(to, ["contosodata", "vm3"], "both ends are reset");
    assert!(sent.iter().all(|(_, seen)| seen.tcp.as_ref().is_some_and(|tcp| tcp.reset)));
    bench.answered("vm3", connection.out("PA", 1_001, 9_001), sidestep::path::Answer::Reset);
    bench.dropped("vm3", udp(("10.1.3.4", 5_000), (STORE, 443), b"q"), OUT);
    bench.dropped("vm3", tcp("10.1.3.4", STORE, 444), OUT);
}

#[test]
fn a_group_that_comes_later_and_flushes_not_leaves_flows_alone() {
    let mut bench = Bench::with(&document(&[], &group("web", false, &["100 Inbound Deny * * -> *"])));
    let mapped = Connection::open(
        &mut bench,
        End { port: "vm1", socket: ("10.1.1.4", 40_000) },
        End { port: "vm3", socket: ("10.1.3.4", 80) },
    );
    bench.change(|network| {
        let subnet = network.find_subnet("spoke/open").unwrap();
        network.virtual_networks[subnet.virtual_network].subnets[subnet.subnet].network_security_group = Some(0);
    });
    bench.forward("vm1", mapped.out("PA", 1_001, 9_001), "vm3");
    bench.dropped("vm1", tcp("10.1.1.4", "10.1.3.4", 81), IN);
}

#[test]
fn replies_and_errors_need_no_rule() {
    let mut bench = bench("vm3", &["100 Inbound Deny * * -> *"]);
    let question = udp(("10.1.3.4", 5_000), (WEB, 53), b"q");
    let out = bench.forward("vm3", question, "internet");
    let public = out.source.to_string();
    bench.forward("internet", udp((WEB, 53), (&public, out.source_port), b"a"), "vm3");
    let quoted = udp((&public, out.source_port), (WEB, 53), b"q");
    bench.forward("internet", port_unreachable("192.0.2.55", &public, &quoted), "vm3");
    bench.forward("vm3", udp(("10.1.3.4", 5_000), ("10.1.1.4", 53), b"q"), "vm1");
    bench.forward("vm1", udp(("10.1.1.4", 53), ("10.1.3.4", 5_000), b"a"), "vm3");
    bench.dropped("vm1", udp(("10.1.1.4", 54), ("10.1.3.4", 5_000), b"a"), IN);
}

#[test]
fn groups_count_inside_a_subnet() {
    let mut bench = bench("spoke/open", &["100 Inbound Deny Tcp 10.1.3.0/24 -> * : 22"]);
    bench.dropped("vm5", tcp("10.1.3.5", "10.1.3.4", 22), IN);
    bench.forward("vm5", tcp("10.1.3.5", "10.1.3.4", 80), "vm3");
    bench.forward("vm5", echo("fd00:1:0:3::5", "fd00:1:0:3::4", false, 1, 64), "vm3");
}

#[test]
fn application_security_groups_stand_for_the_addresses_of_their_nics() {
    let groups = group(
        "web",
        false,
        &["100 Inbound Allow Tcp @front -> @back : 1433", "200 Inbound Deny * VirtualNetwork -> @back"],
    ) + "\n[[application_security_group]]\nname = \"front\"\n[[application_security_group]]\nname = \"back\"\n";
    let text = document(&[("spoke/open", "web")], &groups)
        .replace("name = \"vm3\"\n", "name = \"vm3\"\napplication_security_groups = [\"back\"]\n")
        .replace("name = \"vm1\"\n", "name = \"vm1\"\napplication_security_groups = [\"front\"]\n");
    let mut bench = Bench::with(&text);
    bench.forward("vm1", tcp("10.1.1.4", "10.1.3.4", 1433), "vm3");
    bench.forward("vm1", tcp("fd00:1:0:1::4", "fd00:1:0:3::4", 1433), "vm3");
    bench.dropped("vm1", tcp("10.1.1.4", "10.1.3.4", 1434), IN);
    bench.dropped("vm5", tcp("10.1.3.5", "10.1.3.4", 1433), IN);
    bench.forward("vm1", tcp("10.1.1.4", "10.1.3.5", 1434), "vm5");
    // Membership is the NIC's, and follows it.
    bench.change(|network| {
        let vm5 = network.nics.iter_mut().find(|nic| nic.name == "vm5").unwrap();
        vm5.application_security_groups = vec![0];
    });
    bench.forward("vm5", Tcp { from: ("10.1.3.5", 40_001), to: ("10.1.3.4", 1433), ..Tcp::default() }.bytes(), "vm3");
}

#[test]
fn networks_with_the_same_addresses_are_kept_apart() {
    let groups = group("web", false, &["100 Outbound Deny * @front -> *"])
        + "\n[[application_security_group]]\nname = \"front\"\n";
    let site = Site {
        node: "",
        one: "network_security_group = \"web\"",
        two: "network_security_group = \"web\"",
        a1: "application_security_groups = [\"front\"]",
        pools: &groups,
        ..Site::default()
    };
    let mut bench = site.bench();
    assert_eq!(bench.forwarder.snapshot().nsgs.len(), 2, "one for each network");
    bench.dropped("a1", tcp("10.1.1.4", WEB, 443), OUT);
    bench.forward("b1", tcp("10.1.1.4", WEB, 443), "internet");
}

#[test]
fn a_group_of_many_subnets_is_compiled_once() {
    let users = [("spoke/open", "web"), ("vm3", "web"), ("vm5", "web"), ("spoke/workload", "web")];
    let bench = Bench::with(&document(&users, &group("web", false, &[])));
    assert_eq!(bench.forwarder.snapshot().nsgs.len(), 2, "with and without routes for everything");
}

#[test]
fn what_comes_in_is_judged_on_the_private_address() {
    for (destination, passes) in [("10.1.3.4", true), ("203.0.113.40", false)] {
        let rules = [format!("100 Inbound Allow Tcp * -> {destination} : 443")];
        let text = document(&[("vm3", "web")], &group("web", false, &[&rules[0]]))
            .replace("name = \"vm3\"\n", "name = \"vm3\"\npublic_addresses = [\"203.0.113.40\"]\n");
        let mut bench = Bench::with(&text);
        let packet = tcp(WEB, "203.0.113.40", 443);
        match passes {
            true => drop(bench.forward("internet", packet, "vm3")),
            false => bench.dropped("internet", packet, IN),
        }
        bench.dropped("internet", tcp(WEB, "203.0.113.40", 80), IN);
    }
}

#[test]
fn what_goes_out_is_judged_before_its_source_is_translated() {
    let mut bench = bench("vm3", &["100 Outbound Deny Tcp 203.0.113.200 -> *", "110 Outbound Deny Udp 10.1.3.4 -> *"]);
    let seen = bench.forward("vm3", tcp("10.1.3.4", WEB, 443), "internet");
    assert_eq!(seen.source.to_string(), "203.0.113.200");
    bench.dropped("vm3", udp(("10.1.3.4", 1), (WEB, 53), b"q"), OUT);
}

#[test]
fn a_public_address_of_the_network_itself_is_judged_at_both_ends() {
    let text = document(
        &[("vm3", "out"), ("vm5", "in")],
        &(group("out", false, &["100 Outbound Deny Tcp * -> 203.0.113.40 : 22"])
            + &group("in", false, &["100 Inbound Allow Tcp 203.0.113.200 -> 10.1.3.5 : 80,22"])),
    )
    .replace("name = \"vm5\"\n", "name = \"vm5\"\npublic_addresses = [\"203.0.113.40\"]\n");
    let mut bench = Bench::with(&text);
    bench.forward("vm3", tcp("10.1.3.4", "203.0.113.40", 80), "vm5");
    bench.dropped("vm3", tcp("10.1.3.4", "203.0.113.40", 81), IN);
    bench.dropped("vm3", tcp("10.1.3.4", "203.0.113.40", 22), OUT);
}

#[test]
fn a_peer_without_access_leaves_the_tag_and_no_more() {
    let mut bench = bench("strict/only", &[]);
    bench.forward("appliance", tcp("10.0.100.4", "10.3.1.4", 80), "vm4");
    bench.change(|network| {
        let strict = network.virtual_networks.iter_mut().find(|network| network.name == "strict").unwrap();
        strict.peerings[0].allow_virtual_network_access = false;
    });
    let again = |port| Tcp { from: ("10.0.100.4", 40_001), to: ("10.3.1.4", port), ..Tcp::default() }.bytes();
    bench.dropped("appliance", again(80), IN);
    bench.dropped("vm4", tcp("10.3.1.4", "10.0.100.4", 80), OUT);
    bench.change(|network| {
        let rule = "100 Inbound Allow * 10.0.0.0/16 -> *";
        let text = document(&[("strict/only", "web")], &group("web", false, &[rule]));
        let other = sidestep::model::parse(&text, std::path::Path::new("other.toml"), None).unwrap();
        network.network_security_groups = other.network_security_groups;
    });
    bench.forward("appliance", again(80), "vm4");
}

#[test]
fn protocols_by_their_words() {
    let mut bench = bench(
        "vm3",
        &[
            "100 Outbound Deny Icmp * -> *",
            "110 Outbound Deny Esp * -> 10.1.1.0/24",
            "120 Outbound Deny Ah * -> 10.1.1.0/24",
            "130 Outbound Deny Udp * -> * : 53",
            "140 Outbound Deny * * -> * : 7000-7010",
        ],
    );
    bench.dropped("vm3", echo("10.1.3.4", "10.1.1.4", false, 1, 64), OUT);
    bench.dropped("vm3", echo("fd00:1:0:3::4", "fd00:1:0:1::4", false, 1, 64), OUT);
    bench.dropped("vm3", protocol("10.1.3.4", "10.1.1.4", ESP, b"12345678"), OUT);
    bench.forward("vm3", protocol("10.1.3.4", "10.1.2.4", ESP, b"12345678"), "vm2");
    let header = [59, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bench.dropped("vm3", protocol("10.1.3.4", "10.1.1.4", AH, &header), OUT);
    bench.forward("vm3", protocol("10.1.3.4", "10.1.2.4", AH, &header), "vm2");
    bench.dropped("vm3", udp(("10.1.3.4", 1), ("10.1.1.4", 53), b"q"), OUT);
    bench.forward("vm3", tcp("10.1.3.4", "10.1.1.4", 53), "vm1");
    bench.dropped("vm3", tcp("10.1.3.4", "10.1.1.4", 7010), OUT);
    bench.forward("vm3", tcp("10.1.3.4", "10.1.1.4", 7011), "vm1");
    // What has no ports meets no rule with ports.
    bench.forward("vm3", protocol("10.1.3.4", "10.1.1.4", 253, b"12345678"), "vm1");
}

#[test]
fn the_virtual_network_has_what_it_is_connected_with() {
    let bench = bench("vm3", &[]);
    let says = |remote: &str| says(&bench, "vm3", Direction::Inbound, remote, "10.1.3.4", 80).remove(0);
    for inside in ["10.1.1.4", "10.0.100.4", "192.168.0.9", "168.63.129.16"] {
        assert_eq!(says(inside), "Allow AllowVnetInBound", "{inside}");
    }
    // A peer's peer is no peer.
    for outside in ["10.3.1.4", WEB, STORE, "172.16.0.1"] {
        assert_eq!(says(outside), "Deny DenyAllInBound", "{outside}");
    }
}

#[test]
fn a_route_makes_its_prefix_part_of_the_virtual_network() {
    // spoke/workload has routes for 0.0.0.0/0 and ::/0: the tag has every address, as Azure's page says.
    let bench = Bench::with(&document(&[("vm1", "web"), ("vm2", "web")], &group("web", false, &[])));
    let outbound = |nic, from: &str, to: &str| says(&bench, nic, Direction::Outbound, from, to, 443).remove(0);
    assert_eq!(outbound("vm1", "10.1.1.4", WEB), "Allow AllowVnetOutBound");
    assert_eq!(outbound("vm1", "fd00:1:0:1::4", "2001:db8:80::80"), "Allow AllowVnetOutBound");
    assert_eq!(
        says(&bench, "vm1", Direction::Inbound, WEB, "10.1.1.4", 443),
        ["Allow AllowVnetInBound"],
        "whoever gets so far is let in"
    );
    // spoke/inspected has one for 0.0.0.0/0 alone.
    assert_eq!(outbound("vm2", "10.1.2.4", WEB), "Allow AllowVnetOutBound");
    assert_eq!(outbound("vm2", "fd00:1:0:2::4", "2001:db8:80::80"), "Allow AllowInternetOutBound");
}

#[test]
fn a_default_route_leaves_the_internet_what_it_is() {
    let mut bench = Bench::with(&document(
        &[("vm1", "web"), ("vm3", "web")],
        &group("web", false, &["100 Outbound Deny * * -> Internet"]),
    ));
    let denied = |bench: &Bench, nic, from, to| {
        says(bench, nic, Direction::Outbound, from, to, 443)[0].starts_with("Deny Outbound-100")
    };
    for (nic, from) in [("vm1", "10.1.1.4"), ("vm3", "10.1.3.4")] {
        for public in [WEB, STORE, "8.8.8.8", "1.0.0.0", "223.255.255.255", "168.63.129.17"] {
            assert!(denied(&bench, nic, from, public), "{nic} {public}");
        }
        for other in ["10.1.2.4", "10.200.0.1", "192.168.0.9", "172.31.0.1", "100.64.0.1", "127.0.0.1", "240.0.0.1"] {
            assert!(!denied(&bench, nic, from, other), "{nic} {other}");
        }
    }
    assert!(denied(&bench, "vm3", "fd00:1:0:3::4", "2001:db8::1"));
    for other in ["fd00:9::1", "fe80::1", "ff02::1", "::1", "4000::1"] {
        assert!(!denied(&bench, "vm3", "fd00:1:0:3::4", other), "{other}");
    }
    // Public addresses behind the gateway, or in the network's own space, are no internet; a learned default route is no
    // space.
    bench.change(|network| {
        let gateway = network.gateway.as_mut().unwrap();
        gateway
            .learned_routes
            .extend(["0.0.0.0/0", "203.0.113.0/25"].map(|prefix| prefix.parse::<ipnet::IpNet>().unwrap()));
        network.virtual_networks[0].address_space.push("20.60.0.0/16".parse().unwrap());
    });
    assert!(denied(&bench, "vm3", "10.1.3.4", WEB));
    assert!(!denied(&bench, "vm3", "10.1.3.4", "203.0.113.10"));
    assert!(denied(&bench, "vm3", "10.1.3.4", "203.0.113.128"));
    assert!(!denied(&bench, "vm3", "10.1.3.4", STORE));
    assert_eq!(says(&bench, "vm3", Direction::Inbound, WEB, "10.1.3.4", 80), ["Allow AllowVnetInBound"]);
}

#[test]
fn addresses_of_the_platform_are_outside_rules_but_their_own() {
    let groups =
        group("web", false, &["100 Outbound Deny Udp * -> AzurePlatformDNS : 53", "200 Outbound Deny * * -> *"])
            + &group("imds", false, &["100 Outbound Deny Tcp * -> AzurePlatformIMDS,168.63.129.16 : 80"]);
    let bench = Bench::with(&document(&[("vm3", "web"), ("spoke/open", "imds")], &groups));
    let snapshot = bench.forwarder.snapshot();
    let port = snapshot.port(bench.port("vm3")).unwrap();
    let check = |to: &str, protocol, destination_port| {
        let subject = Subject {
            ingress: bench.port("vm3"),
            source: "10.1.3.4".parse().unwrap(),
            destination: to.parse::<IpAddr>().unwrap(),
            protocol,
            source_port: 40_000,
            destination_port,
        };
        let standing = sidestep::path::order::Standing::New;
        sidestep::path::nsg::check(
            snapshot,
            port,
            Direction::Outbound,
            &subject,
            standing,
            &mut sidestep::path::observer::Silent,
        )
    };
    assert_eq!(check("168.63.129.16", 17, 53), Err(OUT));
    assert_eq!(check("168.63.129.16", 6, 53), Ok(()));
    assert_eq!(check("168.63.129.16", 6, 80), Ok(()), "a prefix beside the tag does not count");
    assert_eq!(check("169.254.169.254", 6, 80), Err(OUT));
    assert_eq!(check("169.254.169.254", 6, 443), Ok(()));
    assert_eq!(check(WEB, 6, 443), Err(OUT));
    // Probes come from such an address, and are judged as anything.
    let probe = says(&bench, "vm3", Direction::Inbound, "168.63.129.16", "10.1.3.4", 80);
    assert_eq!(probe, ["Allow AllowVnetInBound", "Allow AllowVnetInBound"]);
}

#[test]
fn probes_pass_where_the_virtual_network_does_not() {
    let bench = bench("vm3", &["100 Inbound Deny Tcp VirtualNetwork -> * : 22", "110 Inbound Deny * 10.0.0.0/8 -> *"]);
    let probe = |port| says(&bench, "vm3", Direction::Inbound, "168.63.129.16", "10.1.3.4", port).remove(0);
    assert!(probe(22).starts_with("Deny Inbound-100"), "the tag has the host's address");
    assert_eq!(probe(80), "Allow AllowVnetInBound");
    // An address that is no one's own in the network: the default rule for probes takes it.
    let elsewhere = says(&bench, "vm3", Direction::Inbound, "168.63.129.16", "203.0.113.77", 80).remove(0);
    assert_eq!(elsewhere, "Allow AllowAzureLoadBalancerInBound");
}

#[test]
fn an_appliance_meets_groups_for_what_it_forwards() {
    let rules = ["100 Inbound Allow Tcp 10.1.2.4 -> Internet : 80-90", "110 Outbound Deny * 10.1.2.4 -> * : 85"];
    let mut bench = bench("appliance", &rules);
    bench.dropped("vm2", tcp("10.1.2.4", "8.8.8.8", 23), IN);
    bench.forward("vm2", tcp("10.1.2.4", "8.8.8.8", 85), "appliance");
    bench.dropped("appliance", tcp("10.1.2.4", "8.8.8.8", 85), OUT);
    bench.forward("vm2", tcp("10.1.2.4", "8.8.8.8", 80), "appliance");
    bench.forward("appliance", tcp("10.1.2.4", "8.8.8.8", 80), "internet");
}
