//! NICs, gateway, internet edge, services, devices, lab hosts.

use std::fmt::Write as _;

use super::{base_with, case, check_cases, check_document, good};

#[test]
fn nics() {
    check_cases(&[
        case("name = \"vm1\"", "name = §\"vm 1\"", &[("`vm 1` cannot be a name", "1 to 80")]),
        case("name = \"appliance\"", "name = §\"VM1\"", &[("the name `VM1` is there twice", "in line 76")]),
        case("name = \"contososql\"", "name = §\"vm1\"", &[("the name `vm1` is there twice", "in line 76")]),
        case("name = \"vm1\"", "name = §\"Gateway\"", &[("`Gateway` is the name of a port of the node", "")]),
        case(
            "\"Spoke/workload\"",
            "§\"spoke/worload\"",
            &[("unknown subnet `worload` of virtual network `spoke`", "`spoke/workload`")],
        ),
        case(
            "\"Spoke/workload\"",
            "§\"spoke/nothing\"",
            &[("unknown subnet `nothing` of virtual network `spoke`", "")],
        ),
        case("\"Spoke/workload\"", "§\"spok/workload\"", &[("unknown virtual network `spok`", "`spoke`")]),
        case("\"Spoke/workload\"", "§\"workload\"", &[("`workload` is not the name of a subnet", "network/subnet")]),
        case("subnet = \"Spoke/workload\"\n", "", &[("a NIC has no `subnet`", "add subnet =")])
            .also("[[nic]]\nname = \"vm1\"", "§[[nic]]\nname = \"vm1\""),
        case(
            "\"10.1.1.4\"",
            "§\"10.1.2.4\"",
            &[("the address `10.1.2.4` is outside the subnet `Spoke/workload`", "10.1.1.0/24, fd00")],
        ),
        case(
            "\"10.1.1.4\"",
            "§\"10.1.1.0\"",
            &[("the address `10.1.1.0` of `10.1.1.0/24` is reserved", "10.1.1.4 to 10.1.1.254")],
        ),
        case(
            "\"10.1.1.4\"",
            "§\"10.1.1.3\"",
            &[("the address `10.1.1.3` of `10.1.1.0/24` is reserved", "10.1.1.4 to 10.1.1.254")],
        ),
        case(
            "\"10.1.1.4\"",
            "§\"10.1.1.255\"",
            &[("the address `10.1.1.255` of `10.1.1.0/24` is reserved", "the last one")],
        ),
        case("\"10.1.1.4\"", "\"10.1.1.254\"", &[]),
        case("\"fd00:1:0:1::4\"", "§\"fd00:1:0:1::3\"", &[("the address `fd00:1:0:1::3` of", "take fd00:1:0:1::4")]),
        case("\"fd00:1:0:1::4\"", "\"fd00:1:0:1:ffff:ffff:ffff:ffff\"", &[]),
        case(
            "\"10.1.1.4\"",
            "\"10.1.1.4\", §\"10.1.1.4\"",
            &[("the private address `10.1.1.4` is there twice", "in line 78")],
        ),
        case("[\"10.1.1.4\", \"fd00:1:0:1::4\"]", "§[]", &[("`private_addresses` of a NIC must not be empty", "")]),
        case("\"hub/appliances\"", "§\"hub/GatewaySubnet\"", &[("not the NIC `appliance`", "another subnet")])
            .also("[\"10.0.100.4\", \"fd00:10:0:100::4\"]", "[\"10.0.255.4\"]"),
    ]);
}

#[test]
fn addresses_of_a_nic_are_limited() {
    let mut text = String::from(
        "location = \"x\"\n[[virtual_network]]\nname = \"n\"\naddress_space = [\"10.0.0.0/16\"]\n\
         [[virtual_network.subnet]]\nname = \"s\"\naddress_prefixes = [\"10.0.0.0/16\"]\n\
         [[nic]]\nname = \"vm\"\nsubnet = \"n/s\"\nprivate_addresses = [\n",
    );
    for index in 0..257 {
        let mark = if index == 256 { "§" } else { "" };
        let (high, low) = (1 + index / 256, index % 256);
        writeln!(text, "{mark}\"10.0.{high}.{low}\",").unwrap();
    }
    check_document(&(text + "]\n"), &[("there are 257 private addresses of one NIC, and 256 is the limit", "")]);
}

#[test]
fn addresses_of_a_network_are_limited() {
    let mut text = String::from(
        "location = \"x\"\n[[virtual_network]]\nname = \"n\"\naddress_space = [\"10.0.0.0/8\"]\n\
         [[virtual_network.subnet]]\nname = \"s\"\naddress_prefixes = [\"10.0.0.0/8\"]\n",
    );
    for index in 0..=65_536_u32 {
        if index % 256 == 0 {
            let end = if index == 0 { "" } else { "]\n" };
            writeln!(text, "{end}[[nic]]\nname = \"vm{index}\"\nsubnet = \"n/s\"\nprivate_addresses = [").unwrap();
        }
        let mark = if index == 65_536 { "§" } else { "" };
        let address = std::net::Ipv4Addr::from_bits(0x0a01_0000 + index);
        writeln!(text, "{mark}\"{address}\",").unwrap();
    }
    check_document(&(text + "]\n"), &[("virtual network `n` has more than 65536 private addresses", "")]);
}

#[test]
fn gateway_and_internet() {
    check_cases(&[
        case("virtual_network = \"hub\"", "virtual_network = §\"hug\"", &[("unknown virtual network `hug`", "`hub`")]),
        case("virtual_network = \"hub\"\n", "", &[("[gateway] has no `virtual_network`", "add virtual_network =")])
            .also("[gateway]", "§[gateway]"),
        case(
            "\"fd00:c0a8::/32\"]",
            "§\"192.168.0.0/16\"]",
            &[("the learned route `192.168.0.0/16` is there twice", "in line 90")],
        ),
        case(
            "\"203.0.113.200\"",
            "§\"10.9.0.1\"",
            &[("`10.9.0.1` cannot be a public address: it is private", "internet")],
        ),
        case(
            "\"203.0.113.200\"",
            "§\"100.64.0.1\"",
            &[("`100.64.0.1` cannot be a public address: it is shared", "internet")],
        ),
        case(
            "\"203.0.113.200\"",
            "§\"240.0.0.1\"",
            &[("`240.0.0.1` cannot be a public address: it is reserved", "internet")],
        ),
        case(
            "\"203.0.113.200\"",
            "§\"0.1.2.3\"",
            &[("`0.1.2.3` cannot be a public address: it is this network", "internet")],
        ),
        case(
            "\"2001:db8:ffff::200\"",
            "§\"fd00::1\"",
            &[("`fd00::1` cannot be a public address: it is private", "internet")],
        ),
        case("\"2001:db8:ffff::200\"", "§\"::ffff:1.2.3.4\"", &[("it is IPv4-mapped", "internet")]),
        case(
            "\"2001:db8:ffff::200\"",
            "§\"203.0.113.200\"",
            &[("the public address `203.0.113.200` is there twice", "100")],
        ),
    ]);
}

#[test]
fn services() {
    check_cases(&[
        case("[\"20.61.1.10\"]", "§[]", &[("`addresses` of a service must not be empty", "")]),
        case("addresses = [\"20.61.1.10\"]\n", "", &[("a service has no `addresses`", "add addresses =")])
            .also("[[service]]\nname = \"contososql\"", "§[[service]]\nname = \"contososql\""),
        case(
            "\"20.61.1.10\"",
            "§\"192.168.7.7\"",
            &[("`192.168.7.7` cannot be a service's address: it is private", "internet")],
        ),
        case(
            "\"20.61.1.10\"",
            "§\"20.60.1.10\"",
            &[("the service address `20.60.1.10` is there twice", "in line 111")],
        ),
        case(
            "\"20.61.1.10\"",
            "§\"203.0.113.200\"",
            &[("the service address `203.0.113.200` is there twice", "in line 100")],
        ),
        case(
            "service = \"Microsoft.Sql\"\n",
            "service = §\"Microsoft.SQLs\"\n",
            &[("unknown service `Microsoft.SQLs`", "`Microsoft.Sql`")],
        ),
        case(
            "\"microsoft.storage\"",
            "§\"Microsoft.Storage.Global\"",
            &[("is a kind of endpoint, not of resource", "\"Microsoft.Storage\"")],
        ),
        case(
            "location = \"West Europe\"\nid",
            "location = §\"west_europe\"\nid",
            &[("`west_europe` is not a region", "westeurope")],
        ),
        case("id = \"/subscriptions", "id = §\"subscriptions", &[("is not a resource id", "/subscriptions/")]),
        case(
            "\"contosodata.blob.core.windows.net\"",
            "§\"contoso_data\"",
            &[("`contoso_data` cannot be a host name", "labels")],
        ),
        case(
            "\"contosodata.blob.core.windows.net\"",
            "\"a.example\", §\"A.example\"",
            &[("the host name `A.example` is there twice", "112")],
        ),
    ]);
}

#[test]
fn devices() {
    check_cases(&[
        case("{ tun = \"edge0\", ", "§{ ", &[("a device needs an interface", "add tun =")]),
        case(
            "ethernet = \"veth0\"",
            "tun = \"t\"\nethernet = §\"veth0\"",
            &[("either `tun` or `ethernet`", "keep `tun`")],
        ),
        case(
            "tun = \"edge0\"",
            "tun = §\"an-interface-of-16\"",
            &[("cannot be the name of an interface", "1 to 15 bytes")],
        ),
        case("tun = \"edge0\"", "tun = §\"tun%d\"", &[("`tun%d` cannot be the name of an interface", "`%`")]),
        case("tun = \"edge0\"", "tun = §\"a/b\"", &[("`a/b` cannot be the name of an interface", "`/`")]),
        case("tun = \"edge0\"", "tun = §\"\"", &[("`` cannot be the name of an interface", "1 to 15")]),
        case("netns = \"backbone\"", "netns = §\"back/bone\"", &[("cannot be the name of a network namespace", "`/`")]),
        case(
            "netns = \"backbone\"",
            "netns = §\"..\"",
            &[("`..` cannot be the name of a network namespace", "1 to 255")],
        ),
        case(
            "{ tun = \"bb0\", netns = \"backbone\" }",
            "{ tun = §\"edge0\", netns = \"internet\" }",
            &[("the interface `edge0` is in namespace `internet` twice", "in line 10")],
        ),
        case("{ tun = \"bb0\", netns = \"backbone\" }", "{ tun = \"edge0\", netns = \"backbone\" }", &[]),
        case(
            "{ tun = \"bb0\", netns = \"backbone\" }",
            "{ tun = \"bb0\", pcap = §\"vm1.pcap\" }",
            &[("the capture file `vm1.pcap` is there twice", "79")],
        ),
        case(
            "\"203.0.113.129/32\"",
            "\"203.0.113.129/32\", §\"203.0.113.129/24\"",
            &[("the address `203.0.113.129` is there twice", "101")],
        ),
        case(
            "\"203.0.113.129/32\"",
            "§\"224.0.0.1/32\"",
            &[("no interface has the address `224.0.0.1` (multicast)", "")],
        ),
        case("\"203.0.113.129/32\"", "\"fe80::1/64\"", &[]),
        case(
            "tun = \"bb0\"",
            "tun = \"bb0\", next_hop = §\"10.0.0.1\"",
            &[("a TUN device has no next hop", "remove next_hop")],
        ),
        case(
            "\"192.168.0.2\"",
            "§\"192.168.1.2\"",
            &[("the next hop `192.168.1.2` is on no link of the device", "`addresses`")],
        ),
        case("\"192.168.0.2\"", "\"192.168.0.2\", §\"192.168.0.3\"", &[("there is a second IPv4 next hop", "")]),
    ]);
    let network = good(&base_with("{ tun = \"bb0\", netns = \"backbone\" }", "{ tun = \"bb0\" }"));
    let device = network.backbone.unwrap().device.unwrap();
    assert_eq!((device.mtu, device.netns, device.link, device.pcap), (1500, None, None, None));
}

#[test]
fn lab_hosts() {
    const SITE: &str = "netns = \"site\"\n  masquerade";
    check_cases(&[
        case(
            SITE,
            "netns = §\"s ite\"\n  masquerade",
            &[("`s ite` cannot be the name of a network namespace", "white space")],
        ),
        case(
            "netns = \"internet\"\n",
            "netns = §\"site\"\n",
            &[("is connected to itself", ""), ("the lab host `site` is there twice", "in line 12")],
        )
        .also("{ to = \"internet\" }", "{ to = §\"site\" }"),
        case("{ to = \"internet\" }", "{ to = §\"internett\" }", &[("unknown lab host `internett`", "`internet`")]),
        case("{ to = \"internet\" }", "{ to = §\"site\" }", &[("the lab host `site` is connected to itself", "")]),
        case("{ to = \"internet\" }", "§{}", &[("`connect` has no `to`", "add to =")]),
        case(
            "  connect = { to = \"internet\" }\n",
            "",
            &[("masquerades, but is connected to no other", "add connect")],
        )
        .also("masquerade = \"203", "masquerade = §\"203"),
        case("  connect = { to = \"internet\" }\n", "", &[]).also(
            "web_names = [\"www.example.com\"]",
            "web_names = [\"www.example.com\"]\n  connect = { to = \"site\" }",
        ),
        case(
            "\"203.0.113.10\"",
            "§\"10.0.0.1\"",
            &[("`10.0.0.1` cannot be what a host masquerades as: it is private", "internet")],
        ),
        case("\"203.0.113.10\"", "[\"203.0.113.10\", §\"203.0.113.11\"]", &[("a second IPv4 masquerade address", "")]),
        case("\"203.0.113.10\"", "[\"203.0.113.10\", \"2001:db8::10\"]", &[]),
        case(
            "\"203.0.113.10\"",
            "§\"203.0.113.200\"",
            &[("the address `203.0.113.200` is there twice", "in line 100")],
        ),
        case("\"198.51.100.80\"", "§\"20.60.1.10\"", &[("the address `20.60.1.10` is there twice", "in line 111")]),
        case(
            "\"198.51.100.80\"",
            "§\"127.0.0.1\"",
            &[("`127.0.0.1` cannot be a web site's address: it is loopback", "")],
        ),
        case(
            "\"198.51.100.80\"",
            "§\"0.0.0.0\"",
            &[("`0.0.0.0` cannot be a web site's address: it is this network", "")],
        ),
        case(
            "  web = [\"198.51.100.80\"]\n",
            "",
            &[("web_names without `web` lead nowhere", "add the web site's addresses")],
        )
        .also("[\"www.example.com\"]", "[§\"www.example.com\"]"),
        case("\"www.example.com\"", "§\"www..example\"", &[("`www..example` cannot be a host name", "labels")]),
        case(
            "\"www.example.com\"",
            "§\"contosodata.blob.core.windows.net\"",
            &[("the host name `contosodata", "in line 112")],
        ),
    ]);
}
