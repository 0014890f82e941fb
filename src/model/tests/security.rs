//! Security groups: names, rules and what they name, who has them, limits.

use std::fmt::Write as _;
use std::path::Path;

use ipnet::IpNet;

use super::{check_document, compare, good, replace_one};
use crate::model::network::{Access, Direction, Network, RuleAddresses, RuleProtocol, RuleTag};
use crate::model::parse;

/// A good document, which every case damages in one place.
const BASE: &str = r#"
location = "westeurope"
tags = "tags.json"

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16"]

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.1.1.0/24"]
  network_security_group = "WEB"

[[virtual_network]]
name = "other"
address_space = ["10.2.0.0/16"]

  [[virtual_network.subnet]]
  name = "only"
  address_prefixes = ["10.2.1.0/24"]

[[application_security_group]]
name = "front"

[[application_security_group]]
name = "back"

[[network_security_group]]
name = "web"
flush_connection = true
security_rules = [
  { name = "https", description = "for all", priority = 100, direction = "inbound", access = "ALLOW", protocol = "Tcp", source_address_prefix = "internet", destination_application_security_groups = ["front"], destination_port_ranges = ["443", "8000-8080"] },
  { name = "storage", priority = 100, direction = "Outbound", access = "Allow", protocol = "*", destination_address_prefixes = ["Storage", "10.2.0.0/16", "10.3.0.1"], source_port_range = "1024-65535", destination_port_range = "*" },
  { name = "ping", priority = 4096, direction = "Outbound", access = "Deny", protocol = "icmp", source_application_security_groups = ["front"], destination_application_security_groups = ["back"] },
]

[[network_security_group]]
name = "own"

[[network_security_group]]
name = "unused"

[[application_security_group]]
name = "empty"

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4"]
network_security_group = "own"
application_security_groups = ["front", "back"]

[[nic]]
name = "vm2"
subnet = "other/only"
private_addresses = ["10.2.1.4"]
"#;

/// What is damaged, what takes its place with marks, and for each mark a part of the message and of the help.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

fn check_cases(cases: &[Case]) {
    let compared = cases.iter().filter_map(|(from, to, expected)| {
        let difference = compare(&replace_one(BASE, from, to), expected).err()?;
        Some(format!("`{from}` to `{to}`\n{difference}"))
    });
    let differences: Vec<String> = compared.collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

fn prefixes(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|prefix| prefix.parse().unwrap()).collect()
}

#[test]
fn a_good_document_says_what_it_says() {
    let network = good(BASE);
    assert_eq!(network.virtual_networks[0].subnets[0].network_security_group, Some(0), "case does not count");
    assert_eq!(network.virtual_networks[1].subnets[0].network_security_group, None);
    assert_eq!(network.nics[0].network_security_group, Some(1));
    assert_eq!(network.nics[0].application_security_groups, [0, 1]);
    let [web, own, _] = network.network_security_groups.as_slice() else { panic!("three groups") };
    assert!(web.flush_connection && !own.flush_connection && own.security_rules.is_empty());
    let [https, storage, ping] = web.security_rules.as_slice() else { panic!("three rules") };
    assert_eq!(
        (https.name.as_str(), https.priority, https.direction, https.access, https.protocol),
        ("https", 100, Direction::Inbound, Access::Allow, RuleProtocol::Tcp)
    );
    assert_eq!(https.source, RuleAddresses::Listed { prefixes: vec![], tag: Some(RuleTag::Internet) });
    assert_eq!(https.destination, RuleAddresses::ApplicationSecurityGroups(vec![0]));
    assert_eq!(
        (https.source_ports.as_slice(), https.destination_ports.as_slice()),
        (&[][..], &[443..=443, 8000..=8080][..])
    );
    assert_eq!(storage.source, RuleAddresses::Any, "what is not written is everything");
    assert_eq!(
        storage.destination,
        RuleAddresses::Listed {
            prefixes: prefixes(&["10.2.0.0/16", "10.3.0.1/32"]),
            tag: Some(RuleTag::Catalogue("Storage".into()))
        }
    );
    assert_eq!((storage.source_ports.as_slice(), storage.destination_ports.len()), (&[1024..=u16::MAX][..], 0));
    assert_eq!((ping.access, ping.protocol), (Access::Deny, RuleProtocol::Icmp));
}

#[test]
fn names() {
    check_cases(&[
        ("name = \"unused\"\n", "name = §\"own/1\"\n", &[("`own/1` cannot be a name", "1 to 80")]),
        (
            "name = \"unused\"\n",
            "name = §\"Web\"\n",
            &[("the network security group `Web` is there twice", "in line 29")],
        ),
        (
            "[[network_security_group]]\nname = \"unused\"\n",
            "§[[network_security_group]]\n",
            &[("a network security group has no `name`", "add name =")],
        ),
        ("name = \"empty\"", "name = §\"back-\"", &[("`back-` cannot be a name", "1 to 80")]),
        (
            "name = \"empty\"",
            "name = §\"FRONT\"",
            &[("the application security group `FRONT` is there twice", "in line 23")],
        ),
        ("name = \"ping\"", "name = §\"-\"", &[("`-` cannot be a name", "1 to 80")]),
        ("name = \"ping\"", "name = §\"HTTPS\"", &[("the security rule `HTTPS` is there twice", "in line 32")]),
        ("{ name = \"ping\", ", "§{ ", &[("a security rule has no `name`", "add name =")]),
    ]);
}

#[test]
fn who_has_groups() {
    check_cases(&[
        ("\"WEB\"", "§\"webb\"", &[("unknown network security group `webb`", "`web`")]),
        (
            "network_security_group = \"own\"",
            "network_security_group = §\"nothing\"",
            &[("unknown network security group `nothing`", "")],
        ),
        (
            "security_groups = [\"front\", \"back\"]",
            "security_groups = [\"front\", §\"bakc\", \"back\"]",
            &[("unknown application security group `bakc`", "`back`")],
        ),
        (
            "security_groups = [\"front\", \"back\"]",
            "security_groups = [\"front\", \"back\", §\"Front\"]",
            &[("the application security group `Front` is there twice", "in line 51")],
        ),
        (
            "private_addresses = [\"10.2.1.4\"]",
            "private_addresses = [\"10.2.1.4\"]\napplication_security_groups = [§\"front\"]",
            &[("the application security group `front` has NICs of `spoke` and `other`", "make one for each")],
        ),
    ]);
}

#[test]
fn what_a_rule_says() {
    check_cases(&[
        ("description = \"for all\"", "description = \"for all\", §x = 1", &[("unknown key `x`", "")]),
        ("priority = 4096", "priority = §4097", &[("`priority` is out of range: 4097", "from 100 to 4096")]),
        ("priority = 4096", "priority = §99", &[("`priority` is out of range: 99", "from 100 to 4096")]),
        ("priority = 4096", "priority = §100", &[("the priority `100` is there twice", "in line 33")]),
        ("\"inbound\"", "§\"inward\"", &[("unknown direction `inward`", "\"Inbound\" or \"Outbound\"")]),
        ("\"ALLOW\"", "§\"alow\"", &[("unknown access `alow`", "\"Allow\" or \"Deny\"")]),
        ("\"icmp\"", "§\"icmpv6\"", &[("unknown protocol `icmpv6`", "\"Icmp\" or \"Esp\"")]),
        (
            "{ name = \"ping\", priority = 4096, direction = \"Outbound\", access = \"Deny\", protocol = \"icmp\"",
            "§{ name = \"ping\", priority = 4096, direction = \"Outbound\", access = \"Deny\"",
            &[("a security rule has no `protocol`", "add protocol =")],
        ),
    ]);
    let long = "x".repeat(141);
    check_document(
        &replace_one(BASE, "\"for all\"", &format!("§\"{long}\"")),
        &[("a description has 140 characters at most", "")],
    );
    good(&replace_one(BASE, "for all", &"ü".repeat(140)));
}

#[test]
fn addresses_of_a_rule() {
    check_cases(&[
        (
            "source_address_prefix = \"internet\"",
            "source_address_prefix = \"internet\", source_address_prefixes = §[\"10.0.0.0/8\"]",
            &[("one of `source_address_prefix` and `source_address_prefixes`", "remove `source_address_prefixes`")],
        ),
        (
            "source_address_prefix = \"internet\"",
            "source_address_prefix = \"internet\", source_application_security_groups = §[\"back\"]",
            &[(
                "one of `source_address_prefix` and `source_application_security_groups`",
                "remove `source_application_security_groups`",
            )],
        ),
        ("[\"Storage\", \"10.2.0.0/16\", \"10.3.0.1\"]", "§[]", &[("must not be empty", "takes nothing")]),
        (
            "destination_application_security_groups = [\"front\"]",
            "destination_application_security_groups = §[]",
            &[("must not be empty", "takes nothing")],
        ),
        ("\"10.3.0.1\"]", "§\"*\"]", &[("`*` stands for every address", "remove the others")]),
        ("\"10.3.0.1\"]", "§\"Sql\"]", &[("`Sql` is a second service tag", "a rule of its own")]),
        ("\"10.3.0.1\"]", "§\"VirtualNetwork\"]", &[("`VirtualNetwork` is a second service tag", "a rule of its own")]),
        ("\"10.3.0.1\"]", "§\"10.3.0.1/24\"]", &[("the prefix `10.3.0.1/24` has host bits set", "\"10.3.0.0/24\"")]),
        ("\"10.3.0.1\"]", "§\"10.3.0\"]", &[("`10.3.0` is not a prefix", "such as")]),
        ("\"10.3.0.1\"]", "§\"fd00::x\"]", &[("`fd00::x` is not a prefix", "such as")]),
        ("\"10.3.0.1\"]", "§\"\"]", &[("`` is not a prefix", "such as")]),
        ("\"Storage\"", "§\"Storag\"", &[("unknown service tag `Storag`", "`Storage`")]),
        ("\"Storage\"", "§\"VirtualNetwrok\"", &[("unknown service tag `VirtualNetwrok`", "`VirtualNetwork`")]),
        ("\"Storage\"", "§\"Nothing\"", &[("unknown service tag `Nothing`", "")]),
        ("\"Storage\"", "§\"ApiOnly\"", &[("`ApiOnly` cannot be used in security rules", "no NSG among")]),
        ("\"Storage\"", "§\"AzurePlatformLKM\"", &[("`AzurePlatformLKM` has no published addresses", "licensing")]),
        ("\"Storage\"", "\"azureplatformdns\"", &[]),
        (
            "destination_application_security_groups = [\"back\"]",
            "destination_application_security_groups = [§\"bakc\"]",
            &[("unknown application security group `bakc`", "`back`")],
        ),
        (
            "destination_application_security_groups = [\"back\"]",
            "destination_application_security_groups = [\"back\", §\"back\"]",
            &[("the application security group `back` is there twice", "in line 34")],
        ),
    ]);
    let text = BASE.replace("tags = \"tags.json\"\n", "");
    let mistakes = parse(&text, Path::new("network.toml"), None).unwrap_err().mistakes;
    let [mistake] = mistakes.as_slice() else { panic!("one mistake: {mistakes:?}") };
    assert_eq!(mistake.message, "the service tag `Storage` needs a catalogue");
    assert!(mistake.help.as_ref().is_some_and(|help| help.contains("tags = \"FILE\"")), "{mistake:?}");
}

#[test]
fn the_computed_tags_have_their_classic_spellings_too() {
    for (written, tag) in [
        ("VirtualNetwork", RuleTag::VirtualNetwork),
        ("VIRTUAL_NETWORK", RuleTag::VirtualNetwork),
        ("INTERNET", RuleTag::Internet),
        ("AZURE_LOADBALANCER", RuleTag::AzureLoadBalancer),
        ("azureloadbalancer", RuleTag::AzureLoadBalancer),
        ("AzurePlatformDNS", RuleTag::AzurePlatformDns),
        ("AzurePlatformIMDS", RuleTag::AzurePlatformImds),
    ] {
        let network: Network = good(&replace_one(BASE, "\"internet\"", &format!("\"{written}\"")));
        let source = &network.network_security_groups[0].security_rules[0].source;
        assert_eq!(*source, RuleAddresses::Listed { prefixes: vec![], tag: Some(tag) }, "{written}");
    }
}

#[test]
fn both_sides_are_of_one_network() {
    let text = replace_one(
        BASE,
        "private_addresses = [\"10.2.1.4\"]",
        "private_addresses = [\"10.2.1.4\"]\napplication_security_groups = [\"back\"]",
    );
    let text = replace_one(&text, "[\"front\", \"back\"]", "[\"front\"]");
    let text = replace_one(
        &text,
        "destination_application_security_groups = [\"back\"]",
        "destination_application_security_groups = §[\"back\"]",
    );
    check_document(
        &text,
        &[("the rule `ping` has application security groups of `spoke` and `other`", "write the addresses")],
    );
}

#[test]
fn ports_of_a_rule() {
    const NO_PORT: &[(&str, &str)] = &[("is not a port or a range of ports", "\"1000-2000\", or \"*\"")];
    check_cases(&[
        ("\"8000-8080\"", "§\"8080-8000\"", NO_PORT),
        ("\"8000-8080\"", "§\"8000-\"", NO_PORT),
        ("\"8000-8080\"", "§\"+80\"", NO_PORT),
        ("\"8000-8080\"", "§\"65536\"", NO_PORT),
        ("\"8000-8080\"", "§\"http\"", NO_PORT),
        ("\"8000-8080\"", "§\"\"", NO_PORT),
        ("\"8000-8080\"", "\"0-65535\"", &[]),
        (
            "[\"443\", \"8000-8080\"]",
            "§[]",
            &[("`destination_port_ranges` of a security rule must not be empty", "fill it")],
        ),
        (
            "source_port_range = \"1024-65535\"",
            "source_port_range = \"1024-65535\", source_port_ranges = §[\"1\"]",
            &[("one of `source_port_range` and `source_port_ranges`", "remove `source_port_ranges`")],
        ),
        (
            "{ name = \"https\"",
            "§{ name = \"http\", priority = 101, direction = \"Inbound\", access = \"Allow\", protocol = \"Udp\" },\n  \
             { name = \"https\"",
            &[("the rule `http` does not say which ports it is for", "destination_port_range = \"443\"")],
        ),
    ]);
}

/// Where the items of a list that go beyond a limit begin: a mark for the first of them.
fn mark(index: usize, limit: usize) -> &'static str {
    if index == limit { "§" } else { "" }
}

fn rule(index: usize, more: &str) -> String {
    format!(
        "{{ name = \"r{index}\", priority = {}, direction = \"Inbound\", access = \"Deny\", protocol = \"Icmp\"{more} }},",
        100 + index
    )
}

#[test]
fn limits_of_groups_and_rules() {
    let mut groups = String::from("location = \"x\"\n");
    for index in 0..5_001 {
        writeln!(groups, "{}[[network_security_group]]\nname = \"g{index}\"", mark(index, 5_000)).unwrap();
    }
    check_document(&groups, &[("there are 5001 network security groups, and 5000 is the limit", "")]);

    let mut groups = String::from("location = \"x\"\n");
    for index in 0..3_001 {
        writeln!(groups, "{}[[application_security_group]]\nname = \"g{index}\"", mark(index, 3_000)).unwrap();
    }
    check_document(&groups, &[("there are 3001 application security groups, and 3000 is the limit", "")]);

    let rules: String = (0..1_001).map(|index| format!("{}{}\n", mark(index, 1_000), rule(index, ""))).collect();
    check_document(
        &format!("location = \"x\"\n[[network_security_group]]\nname = \"web\"\nsecurity_rules = [{rules}]"),
        &[("there are 1001 rules of network security group `web`, and 1000 is the limit", "")],
    );
}

#[test]
fn limits_of_addresses() {
    let list = |count: usize| (0..count).map(|i| format!("\"10.0.{}.{}\",", i / 256, i % 256)).collect::<String>();
    let group = |rules: &str| {
        format!("location = \"x\"\n[[network_security_group]]\nname = \"web\"\nsecurity_rules = [{rules}]\n")
    };
    let side = |side: &str, mark: &str, count| format!(", {side}_address_prefixes = {mark}[{}]", list(count));
    // A side that is not written counts as one.
    let enough = rule(0, &side("source", "", 3_998)) + &rule(1, &side("source", "", 2));
    check_document(&group(&enough), &[]);
    for (name, what) in [("source", "source addresses"), ("destination", "destination addresses")] {
        let many = rule(0, &side(name, "", 3_999)) + &rule(1, &side(name, "§", 2)) + &rule(2, &side(name, "", 2));
        let expected = format!("the network security group `web` has more than 4000 {what}");
        check_document(&group(&many), &[(&expected, "")]);
    }
}

#[test]
fn limits_of_application_security_groups() {
    let declared: String =
        (0..110).map(|index| format!("[[application_security_group]]\nname = \"g{index}\"\n")).collect();
    let group = |rules: &str| {
        format!("location = \"x\"\n{declared}[[network_security_group]]\nname = \"web\"\nsecurity_rules = [{rules}]\n")
    };
    let names = |from: usize, to: usize, marked: usize| {
        (from..to).map(|index| format!("{}\"g{index}\",", mark(index, marked))).collect::<String>()
    };
    let side = |mark: &str, names: String| format!(", source_application_security_groups = {mark}[{names}]");
    check_document(
        &group(&rule(0, &side("", names(0, 11, 10)))),
        &[("there are 11 application security groups of one side of a rule, and 10 is the limit", "")],
    );
    let many: String = (0..11)
        .map(|index| rule(index, &side(mark(index, 10), names(index * 10, index * 10 + 10, usize::MAX))))
        .collect();
    check_document(
        &group(&many),
        &[("the network security group `web` has more than 100 application security groups", "")],
    );

    let mut members = String::from(
        "location = \"x\"\n[[virtual_network]]\nname = \"n\"\naddress_space = [\"10.0.0.0/8\"]\n\
         [[virtual_network.subnet]]\nname = \"s\"\naddress_prefixes = [\"10.0.0.0/16\"]\n\
         [[application_security_group]]\nname = \"all\"\n",
    );
    for index in 0..17 {
        let addresses: String = (4..254).map(|host| format!("\"10.0.{}.{host}\",", index + 1)).collect();
        writeln!(
            members,
            "[[nic]]\nname = \"n{index}\"\nsubnet = \"n/s\"\nprivate_addresses = [{addresses}]\n\
             application_security_groups = [{}\"all\"]",
            mark(index, 16)
        )
        .unwrap();
    }
    check_document(&members, &[("the application security group `all` has more than 4000 addresses", "")]);
}
