//! Route tables: prefixes, tags, next hops, appliances, the gateway, limits.

use std::fmt::Write as _;

use super::{base_with, case, check_cases, good};
use crate::model::network::{AddressPrefix, UserNextHop};

#[test]
fn next_hops_are_compared_without_case() {
    let network = good(&base_with("\"None\" }", "\"vnetLOCAL\" }"));
    let hops: Vec<UserNextHop> = network.route_tables[0].routes.iter().map(|route| route.next_hop).collect();
    let appliance = |address: &str| UserNextHop::VirtualAppliance(address.parse().unwrap());
    let expected = [
        UserNextHop::VirtualNetworkGateway,
        appliance("10.0.100.4"),
        appliance("fd00:10:0:100::4"),
        UserNextHop::VnetLocal,
    ];
    assert_eq!(hops, expected);
    assert_eq!(network.route_tables[0].routes[1].address_prefix, AddressPrefix::ServiceTag("AzureMonitor".to_owned()));
    assert_eq!(network.route_tables[2].routes[0].next_hop, UserNextHop::Internet);
}

#[test]
fn names_and_prefixes() {
    check_cases(&[
        case("name = \"tunnel\"\n", "name = §\"tun nel\"\n", &[("`tun nel` cannot be a name", "1 to 80")])
            .also("route_table = \"tunnel\"", "route_table = \"tun nel\""),
        case(
            "name = \"elsewhere\"\n",
            "name = §\"Tunnel\"\n",
            &[("the route table `Tunnel` is there twice", "in line 57")],
        )
        .also("  route_table = \"elsewhere\"\n", ""),
        case("name = \"drop\"", "name = §\"DEFAULT\"", &[("the route `DEFAULT` is there twice", "in line 61")]),
        case("\"198.51.100.0/24\"", "§\"0.0.0.0/0\"", &[("the prefix `0.0.0.0/0` is there twice", "in line 61")]),
        case(
            "\"198.51.100.0/24\"",
            "§\"AzureMonitor\"",
            &[("the service tag `AzureMonitor` is there twice", "in line 62")],
        ),
        case("\"198.51.100.0/24\"", "§\"198.51.100.1/24\"", &[("has host bits set", "write \"198.51.100.0/24\"")]),
        case("\"198.51.100.0/24\"", "§\"198.51.100.0\"", &[("is not a prefix", "write \"198.51.100.0/32\"")]),
        case("\"198.51.100.0/24\"", "§\"\"", &[("`` is not a prefix", "such as")]),
        case("\"198.51.100.0/24\"", "§\"Storag\"", &[("unknown service tag `Storag`", "`Storage`")]),
        case("\"198.51.100.0/24\"", "§\"Nothing\"", &[("unknown service tag `Nothing`", "")]),
        case("\"198.51.100.0/24\"", "§\"ApiOnly\"", &[("the service tag `ApiOnly` cannot be used in routes", "UDR")]),
        case("\"198.51.100.0/24\"", "§\"internet\"", &[("a route cannot have the tag `Internet`", "write prefixes")]),
        case("name = \"drop\", ", "", &[("a route has no `name`", "add name =")])
            .also("  { address_prefix = \"198.51.100.0/24\"", "  §{ address_prefix = \"198.51.100.0/24\""),
    ]);
}

#[test]
fn next_hop_types() {
    check_cases(&[
        case("\"None\" }", "§\"Non\" }", &[("unknown next_hop_type `Non`", "`None`")]),
        case(
            "\"None\" }",
            "§\"Somewhere\" }",
            &[("unknown next_hop_type `Somewhere`", "write one of VirtualNetworkGateway")],
        ),
        case(
            "\"None\" }",
            "§\"VirtualNetworkServiceEndpoint\" }",
            &[(
                "a route cannot have the next_hop_type `VirtualNetworkServiceEndpoint`",
                "service_endpoints of the subnet",
            )],
        ),
        case(
            "\"None\" }",
            "§\"VNetPeering\" }",
            &[("a route cannot have the next_hop_type `VNetPeering`", "declare peerings")],
        ),
        case(
            "\"None\" }",
            "§\"vnetglobalpeering\" }",
            &[("cannot have the next_hop_type `vnetglobalpeering`", "peerings")],
        ),
        case("\"None\" }", "§\"InterfaceEndpoint\" }", &[("cannot have the next_hop_type", "private endpoints")]),
        case("\"None\" }", "§\"VirtualApplianceEcmp\" }", &[("cannot have the next_hop_type", "one address")]),
        case("\"None\" }", "§\"VirtualAppliance\" }", &[("needs the appliance's address", "add next_hop_ip_address")]),
        case(
            "\"None\" }",
            "\"None\", next_hop_ip_address = §\"10.0.100.4\" }",
            &[("next_hop_ip_address means nothing with next_hop_type `None`", "remove it")],
        ),
        case(
            "\"None\" }",
            "\"VirtualAppliance\", next_hop_ip_address = §\"10.0.100\" }",
            &[("`10.0.100` is not an address", "such as")],
        ),
    ]);
}

#[test]
fn appliances() {
    check_cases(&[
        case(
            "\"None\" }",
            "\"VirtualAppliance\", next_hop_ip_address = §\"10.1.1.9\" }",
            &[(
                "the appliance `10.1.1.9` is in the subnet `spoke/workload`, which uses this route table",
                "a subnet of its own",
            )],
        ),
        case("\"None\" }", "\"VirtualAppliance\", next_hop_ip_address = \"10.1.2.9\" }", &[]),
        case(
            "\"None\" }",
            "\"VirtualAppliance\", next_hop_ip_address = §\"10.2.1.9\" }",
            &[(
                "the appliance `10.2.1.9` is outside virtual network `spoke` and those it is peered with",
                "reach directly",
            )],
        ),
        case(
            "\"None\" }",
            "\"VirtualAppliance\", next_hop_ip_address = §\"20.0.0.1\" }",
            &[("the appliance `20.0.0.1` is outside virtual network `spoke`", "reach directly")],
        ),
        case(
            "\"None\" }",
            "\"VirtualAppliance\", next_hop_ip_address = §\"fd00:10:0:100::4\" }",
            &[(
                "the prefix `198.51.100.0/24` is IPv4, and the appliance's address `fd00:10:0:100::4` is IPv6",
                "an IPv4 address",
            )],
        ),
        case("\"2001:db8::/32\"", "\"203.0.113.0/24\"", &[("is IPv4, and the appliance's address", "write an IPv4")])
            .also("\"fd00:10:0:100::4\" },", "§\"fd00:10:0:100::4\" },"),
    ]);
}

#[test]
fn the_gateway_must_be_usable() {
    check_cases(&[
        case(
            "\"AzureCloud\", next_hop_type = \"Internet\"",
            "\"AzureCloud\", next_hop_type = §\"VirtualNetworkGateway\"",
            &[(
                "no virtual network that uses this route table has a gateway (`other` has none)",
                "the gateway is in `hub`",
            )],
        ),
        case("  route_table = \"elsewhere\"\n", "", &[]).also(
            "\"AzureCloud\", next_hop_type = \"Internet\"",
            "\"AzureCloud\", next_hop_type = \"VirtualNetworkGateway\"",
        ),
    ]);
    let text = "location = \"x\"\n[[virtual_network]]\nname = \"n\"\naddress_space = [\"10.0.0.0/16\"]\n\
                [[virtual_network.subnet]]\nname = \"s\"\naddress_prefixes = [\"10.0.0.0/24\"]\nroute_table = \"t\"\n\
                [[route_table]]\nname = \"t\"\nroutes = [{ name = \"d\", address_prefix = \"0.0.0.0/0\", \
                next_hop_type = §\"VirtualNetworkGateway\" }]\n";
    super::check_document(text, &[("has a gateway (`n` has none)", "add [gateway] with virtual_network = \"n\"")]);
}

#[test]
fn gateway_subnet() {
    check_cases(&[
        case(
            "name = \"spoke\", address_prefix = \"10.1.0.0/16\"",
            "name = \"spoke\", address_prefix = \"0.0.0.0/0\"",
            &[("the route table `gateway-routes` has a route for `0.0.0.0/0`, which GatewaySubnet", "in line 69")],
        )
        .also("route_table = \"gateway-routes\"", "route_table = §\"gateway-routes\""),
        case(
            "name = \"gateway-routes\"\n",
            "name = \"gateway-routes\"\ndisable_bgp_route_propagation = true\n",
            &[("the route table `gateway-routes` disables propagation", "with propagation, or none")],
        )
        .also("route_table = \"gateway-routes\"", "route_table = §\"gateway-routes\""),
    ]);
    let network = good(&base_with("\"GatewaySubnet\"", "\"gatewaysubnet\""));
    assert_eq!(network.virtual_networks[0].subnets[0].name, "GatewaySubnet");
}

#[test]
fn twenty_five_tag_routes_are_the_limit() {
    // The tags of this test are many: the mistake is about their number alone.
    struct AnyTag;
    impl crate::model::TagNames for AnyTag {
        fn contains(&self, _: &str) -> bool {
            true
        }
        fn nearest(&self, _: &str) -> Option<String> {
            None
        }
        fn usable_in_routes(&self, _: &str) -> bool {
            true
        }
    }
    let table = |count: usize| {
        let mut text = String::from("location = \"x\"\ntags = \"t\"\n[[route_table]]\nname = \"t\"\nroutes = [\n");
        for index in 0..count {
            writeln!(text, "{{ name = \"r{index}\", address_prefix = \"Tag{index}\", next_hop_type = \"Internet\" }},")
                .unwrap();
        }
        text + "]\n"
    };
    let path = std::path::Path::new("n.toml");
    assert!(crate::model::parse(&table(25), path, Some(&AnyTag)).is_ok());
    let mistakes = crate::model::parse(&table(27), path, Some(&AnyTag)).unwrap_err().mistakes;
    assert_eq!(mistakes.len(), 1);
    assert_eq!((mistakes[0].line, mistakes[0].column), (31, 34));
    assert!(mistakes[0].message.contains("`t` has more than 25 routes with service tags"), "{mistakes:?}");
}

#[test]
fn limits_of_tables_and_routes() {
    let mut routes = String::from("location = \"x\"\n[[route_table]]\nname = \"t\"\nroutes = [\n");
    for index in 0..401 {
        let mark = if index == 400 { "§" } else { "" };
        let (high, low) = (index / 256, index % 256);
        writeln!(
            routes,
            "{mark}{{ name = \"r{index}\", address_prefix = \"10.{high}.{low}.0/24\", next_hop_type = \"None\" }},"
        )
        .unwrap();
    }
    super::check_document(&(routes + "]\n"), &[("there are 401 routes in table `t`, and 400 is the limit", "")]);

    let mut tables = String::from("location = \"x\"\n");
    for index in 0..201 {
        let mark = if index == 200 { "§" } else { "" };
        writeln!(tables, "{mark}[[route_table]]\nname = \"t{index}\"").unwrap();
    }
    super::check_document(&tables, &[("there are 201 route tables, and 200 is the limit", "")]);
}
