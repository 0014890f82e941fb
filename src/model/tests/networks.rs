//! Virtual networks: names, address spaces, subnets, endpoints, peerings, limits.

use std::fmt::Write as _;

use super::{BASE, base_with, case, check_cases, check_document, good};

#[test]
fn names_of_networks_and_subnets() {
    check_cases(&[
        case("name = \"other\"", "name = §\"-other\"", &[("`-other` cannot be a name", "1 to 80")])
            .also("{ remote = \"other\" }", "{ remote = \"-other\" }"),
        case("name = \"spare\"", "name = §\"spare/1\"", &[("`spare/1` cannot be a name", "1 to 80")]),
        case("name = \"spare\"", "name = §\"WORKLOAD\"", &[("the subnet `WORKLOAD` is there twice", "in line 35")]),
        case(
            "[[route_table]]\nname = \"tunnel\"",
            "[[virtual_network]]\nname = §\"Other\"\naddress_space = [\"10.9.0.0/16\"]\n\n[[route_table]]\nname = \"tunnel\"",
            &[("the virtual network `Other` is there twice", "in line 48")],
        ),
        case(
            "  [[virtual_network.subnet]]\n  name = \"spare\"\n",
            "  §[[virtual_network.subnet]]\n",
            &[("a subnet has no `name`", "add name =")],
        ),
    ]);
}

#[test]
fn address_spaces() {
    check_cases(&[
        case(
            "address_space = [\"10.2.0.0/16\"]",
            "address_space = [\"10.2.0.0/16\", §\"10.2.128.0/17\"]",
            &[("`10.2.128.0/17` of virtual network `other` overlaps `10.2.0.0/16`", "in line 49")],
        ),
        case(
            "\n\n  [[virtual_network.subnet]]\n  name = \"lonely\"\n  address_prefixes = [\"10.2.1.0/24\"]\n  route_table = \"elsewhere\"",
            "",
            &[],
        ),
        case("[\"10.2.0.0/16\"]", "[\"10.2.0.0/16\", §\"224.1.0.0/16\"]", &[("`224.0.0.0/4` (multicast)", "private")]),
        case("[\"10.2.0.0/16\"]", "[\"10.2.0.0/16\", §\"127.0.0.0/16\"]", &[("`127.0.0.0/8` (loopback)", "private")]),
        case(
            "[\"10.2.0.0/16\"]",
            "[\"10.2.0.0/16\", §\"169.254.8.0/24\"]",
            &[("`169.254.0.0/16` (link-local)", "private")],
        ),
        case(
            "[\"10.2.0.0/16\"]",
            "[\"10.2.0.0/16\", §\"168.63.0.0/16\"]",
            &[("`168.63.129.16/32` (Azure's", "private")],
        ),
        case(
            "[\"10.2.0.0/16\"]",
            "[\"10.2.0.0/16\", §\"255.255.255.248/29\"]",
            &[("`255.255.255.255/32` (broad", "private")],
        ),
        case("[\"10.2.0.0/16\"]", "[\"10.2.0.0/16\", §\"ff00::/16\"]", &[("`ff00::/8` (multicast)", "private")]),
        case("[\"10.2.0.0/16\"]", "[\"10.2.0.0/16\", §\"fe80::/64\"]", &[("`fe80::/10` (link-local)", "private")]),
        case("[\"10.2.0.0/16\"]", "[\"10.2.0.0/16\", §\"::/64\"]", &[("(loopback)", "private")]),
        case("[\"10.2.0.0/16\"]", "[\"10.2.0.0/16\", §\"fd00:2::/65\"]", &[("has no room for a subnet", "a /64")]),
        case(
            "[\"10.2.0.0/16\"]",
            "[\"10.2.0.0/16\", §\"10.3.0.0/30\"]",
            &[("`10.3.0.0/30` is too small", "10.3.0.0/29")],
        ),
        case("[\"10.2.0.0/16\"]", "[\"10.2.0.0/16\", §\"10.3.0.1/29\"]", &[("host bits", "write \"10.3.0.0/29\"")]),
    ]);
    check_document(
        "location = \"x\"\n[[virtual_network]]\nname = \"n\"\naddress_space = §[]\n",
        &[("`address_space` of a virtual network must not be empty", "")],
    );
    check_document(
        "location = \"x\"\n§[[virtual_network]]\nname = \"n\"\n",
        &[("a virtual network has no `address_space`", "add address_space =")],
    );
}

#[test]
fn subnets() {
    check_cases(&[
        case(
            "\"10.1.2.0/24\"",
            "§\"10.1.1.128/25\"",
            &[(
                "`10.1.1.128/25` of subnet `spoke/spare` overlaps `10.1.1.0/24` of subnet `spoke/workload`",
                "in line 36",
            )],
        ),
        case(
            "\"10.1.2.0/24\"",
            "§\"10.9.2.0/24\"",
            &[(
                "`10.9.2.0/24` of subnet `spoke/spare` is outside the address space of `spoke`",
                "10.1.0.0/16, fd00:1::/48",
            )],
        ),
        case(
            "\"10.1.2.0/24\"",
            "§\"10.1.2.1/24\"",
            &[("the prefix `10.1.2.1/24` has host bits set", "write \"10.1.2.0/24\"")],
        ),
        case("\"10.1.2.0/24\"", "§\"10.1.2.0/30\"", &[("`10.1.2.0/30` is too small", "such as \"10.1.2.0/29\"")]),
        case("\"10.1.2.0/24\"", "\"10.1.2.0/29\"", &[]),
        case(
            "\"10.1.2.0/24\"",
            "§§§\"0.0.0.0/1\"",
            &[
                ("`0.0.0.0/1` is too large", "a /2"),
                ("is outside the address space", "the address space is"),
                ("overlaps `10.1.1.0/24`", "in line 36"),
            ],
        ),
        case("\"10.1.2.0/24\"", "§\"fd00:1:0:2::/63\"", &[("is not a /64", "write \"fd00:1:0:2::/64\"")]),
        case("\"10.1.2.0/24\"", "§\"fd00:1:0:2::/65\"", &[("is not a /64", "write \"fd00:1:0:2::/64\"")]),
        case("\"10.1.2.0/24\"", "§\"10.1.2/24\"", &[("`10.1.2/24` is not a prefix", "such as")]),
        case("[\"10.1.2.0/24\"]", "§[]", &[("`address_prefixes` of a subnet must not be empty", "")]),
        case("route_table = \"tunnel\"", "route_table = §\"tunel\"", &[("unknown route table `tunel`", "`tunnel`")]),
        case("route_table = \"tunnel\"", "route_table = §\"nothing\"", &[("unknown route table `nothing`", "")]),
    ]);
}

#[test]
fn a_prefix_that_cannot_be_read_puts_no_subnet_outside() {
    check_cases(&[case("[\"10.1.0.0/16\", ", "[§\"10.1.0.0/166\", ", &[("is not a prefix", "such as")])]);
}

#[test]
fn endpoints() {
    check_cases(&[
        case("\"Microsoft.Sql\" }", "§\"Microsoft.Sq1\" }", &[("unknown service `Microsoft.Sq1`", "`Microsoft.Sql`")]),
        case("\"Microsoft.Sql\" }", "§\"Contoso\" }", &[("unknown service `Contoso`", "Microsoft.ContainerRegistry")]),
        case(
            "\"Microsoft.Sql\" }",
            "§\"microsoft.STORAGE\" }",
            &[("the subnet `spoke/workload` has two endpoints for `Microsoft.Storage`", "in line 39")],
        ),
        case(
            "\"Microsoft.Sql\" }",
            "§\"Microsoft.Storage.Global\" }",
            &[("`Microsoft.Storage` and `Microsoft.Storage.Global`, which exclude each other", "in line 39")],
        ),
        case(
            "\"Microsoft.Sql\" }",
            "§\"Microsoft.Web\" }",
            &[("the catalogue has no service tag `AppService`", "tags = \"FILE\"")],
        ),
        case("[\"West Europe\"]", "[§\"West/Europe\"]", &[("`West/Europe` is not a region", "westeurope")]),
        case(
            "[\"West Europe\"]",
            "[§\"westus\"]",
            &[("no service tag `Storage` for the region `westus`", "locations")],
        ),
        case("\"Microsoft.Sql\" }", "\"Microsoft.Sql\", locations = [\"westus\"] }", &[]),
        case(
            "\"West Europe\"\ntags",
            "\"westus\"\ntags",
            &[("no service tag `Sql` for the region `westus`", "region")],
        )
        .also("\"Microsoft.Sql\" }", "§\"Microsoft.Sql\" }"),
        case("{ service = \"Microsoft.Sql\" }", "§{}", &[("a service endpoint has no `service`", "add service =")]),
    ]);
    let network = good(&base_with("[\"West Europe\"]", "[\"*\"]"));
    assert_eq!(network.virtual_networks[1].subnets[0].service_endpoints[0].locations, ["*"]);
}

#[test]
fn endpoints_and_tag_routes_need_a_catalogue() {
    let text = BASE
        .replace("tags = \"tags.json\"\n", "")
        .replace("\"microsoft.keyvault\"", "§\"microsoft.keyvault\"")
        .replace("\"Microsoft.Storage\",", "§\"Microsoft.Storage\",")
        .replace("\"Microsoft.Sql\" }", "§\"Microsoft.Sql\" }")
        .replace("\"AzureMonitor\"", "§\"AzureMonitor\"")
        .replace("\"AzureCloud\"", "§\"AzureCloud\"");
    let places = super::places(&text);
    let text = text.replace(super::MARK, "");
    let mistakes = super::parse(&text, std::path::Path::new("n.toml"), None).unwrap_err().mistakes;
    assert_eq!(mistakes.iter().map(|mistake| (mistake.line, mistake.column)).collect::<Vec<_>>(), places);
    assert!(mistakes[0].message.contains("an endpoint for `Microsoft.KeyVault` needs a catalogue"), "{mistakes:?}");
    assert!(mistakes[3].message.contains("the service tag `AzureMonitor` needs a catalogue"), "{mistakes:?}");
}

#[test]
fn a_named_catalogue_that_is_not_there_leaves_tags_unjudged() {
    let text = BASE.replace("AzureMonitor", "NoSuchTag");
    assert!(super::parse(&text, std::path::Path::new("n.toml"), None).is_ok());
}

#[test]
fn peerings() {
    const HUB: &str = "{ remote = \"hub\", allow_forwarded_traffic = true, use_remote_gateways = true }";
    check_cases(&[
        case("{ remote = \"other\" }", "{ remote = §\"othre\" }", &[("unknown virtual network `othre`", "`other`")]),
        case(
            "peerings = [{ remote = \"hub\" }]\n",
            "",
            &[("`hub` is peered with `other`, but `other` not with `hub`", "add { remote = \"hub\" }")],
        )
        .also("{ remote = \"other\" }", "{ remote = §\"other\" }"),
        case(
            "{ remote = \"hub\" }",
            "{ remote = \"hub\" }, { remote = §\"other\" }",
            &[("`other` is peered with itself", "")],
        ),
        case(
            "{ remote = \"hub\" }",
            "{ remote = \"hub\" }, { remote = §\"Hub\" }",
            &[("the peering with `Hub` is there twice", "50")],
        ),
        case(
            "allow_gateway_transit = true, ",
            "",
            &[(
                "`spoke` uses the gateway of `hub`, which does not allow gateway transit",
                "set allow_gateway_transit = true",
            )],
        )
        .also("use_remote_gateways = true", "use_remote_gateways = §true"),
        case(
            "virtual_network = \"hub\"",
            "virtual_network = \"spoke\"",
            &[("`spoke` uses the gateway of `hub` and has one of its own", "remove use_remote_gateways")],
        )
        .also("use_remote_gateways = true", "use_remote_gateways = §true"),
        case(
            "virtual_network = \"hub\"",
            "virtual_network = \"other\"",
            &[
                ("`spoke` uses the gateway of `hub`, which has none", "virtual_network = \"hub\""),
                ("no virtual network that uses this route table has a gateway", "the gateway is in `other`"),
            ],
        )
        .also("use_remote_gateways = true", "use_remote_gateways = §true")
        .also("\"virtualnetworkgateway\"", "§\"virtualnetworkgateway\""),
        case(
            "virtual_network = \"hub\"",
            "virtual_network = §\"hubb\"",
            &[("unknown virtual network `hubb`", "`hub`")],
        ),
        case(HUB, "§{ use_remote_gateways = true }", &[("a peering has no `remote`", "add remote =")]),
        case(
            "address_space = [\"10.2.0.0/16\"]",
            "address_space = [\"10.2.0.0/16\", \"10.0.128.0/17\"]",
            &[("the peered virtual networks `hub` and `other` overlap: `10.0.0.0/16` and `10.0.128.0/17`", "distinct")],
        )
        .also("{ remote = \"other\" }", "{ remote = §\"other\" }"),
        case(
            "address_space = [\"10.2.0.0/16\"]",
            "address_space = [\"10.2.0.0/16\", \"10.1.128.0/17\"]",
            &[(
                "`hub` is peered with `spoke` and `other`, which overlap: `10.1.0.0/16` and `10.1.128.0/17`",
                "distinct",
            )],
        )
        .also("{ remote = \"other\" }", "{ remote = §\"other\" }"),
    ]);
}

#[test]
fn one_peering_may_use_remote_gateways() {
    check_cases(&[case(
        "address_space = [\"10.2.0.0/16\"]\npeerings = [{ remote = \"hub\" }]",
        "address_space = [\"10.2.0.0/16\"]\npeerings = [{ remote = \"hub\", use_remote_gateways = true }, \
         { remote = \"spoke\", use_remote_gateways = §§true }]",
        &[
            ("`other` uses the gateway of `spoke`, which has none", "add [gateway]"),("`other` uses remote gateways over two peerings", "in line 50"),
        ],
    )
    .also("{ remote = \"other\" }", "{ remote = \"other\", allow_gateway_transit = true }")
    .also(
        "allow_forwarded_traffic = true, use_remote_gateways = true }",
        "allow_forwarded_traffic = true, use_remote_gateways = true }, { remote = \"other\", allow_gateway_transit = true }",
    )]);
}

#[test]
fn networks_that_are_not_peered_may_overlap() {
    good(
        &base_with("peerings = [{ remote = \"hub\" }]\n", "")
            .replace("  { remote = \"other\" },\n", "")
            .replace("[\"10.2.0.0/16\"]", "[\"10.2.0.0/16\", \"10.1.0.0/16\", \"10.0.0.0/16\"]"),
    );
}

#[test]
fn limits_of_networks_subnets_and_peerings() {
    let mut networks = String::from("location = \"x\"\n");
    for index in 0..1001 {
        let mark = if index == 1000 { "§" } else { "" };
        let (high, low) = (index / 256, index % 256);
        writeln!(
            networks,
            "{mark}[[virtual_network]]\nname = \"n{index}\"\naddress_space = [\"10.{high}.{low}.0/24\"]"
        )
        .unwrap();
    }
    check_document(&networks, &[("there are 1001 virtual networks, and 1000 is the limit", "")]);

    let mut subnets =
        String::from("location = \"x\"\n[[virtual_network]]\nname = \"n\"\naddress_space = [\"10.0.0.0/8\"]\n");
    for index in 0..3001 {
        let mark = if index == 3000 { "§" } else { "" };
        let (high, low) = (index / 256, index % 256);
        writeln!(
            subnets,
            "{mark}[[virtual_network.subnet]]\nname = \"s{index}\"\naddress_prefixes = [\"10.{high}.{low}.0/24\"]"
        )
        .unwrap();
    }
    check_document(&subnets, &[("there are 3001 subnets of virtual network `n`, and 3000 is the limit", "")]);

    let mut peerings = String::from(
        "location = \"x\"\n[[virtual_network]]\nname = \"hub\"\naddress_space = [\"10.255.0.0/16\"]\npeerings = [\n",
    );
    for index in 0..501 {
        let mark = if index == 500 { "§" } else { "" };
        writeln!(peerings, "{mark}{{ remote = \"n{index}\" }},").unwrap();
    }
    peerings.push_str("]\n");
    for index in 0..501 {
        let (high, low) = (index / 256, index % 256);
        writeln!(peerings, "[[virtual_network]]\nname = \"n{index}\"\naddress_space = [\"10.{high}.{low}.0/24\"]\npeerings = [{{ remote = \"hub\" }}]").unwrap();
    }
    check_document(&peerings, &[("there are 501 peerings of virtual network `hub`, and 500 is the limit", "")]);
}
