//! Effective routes as they are shown: which rows there are, Active and Invalid, and why.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use sidestep::model;
use sidestep::plan::Plan;
use sidestep::tags::Catalogue;

use super::cases::{APPLIANCE, Case, SERVICE};
use super::{catalogue, plan};

/// Source, state, prefixes, next hop type, next hop address and name of every row, endpoint prefixes left out.
fn rows(plan: &Plan, subnet: &str) -> BTreeSet<[String; 6]> {
    let answer = plan.routes_answer(plan.find_subnet_or_nic(subnet).unwrap());
    let row = |route: &sidestep::plan::explain::AzureRoute| {
        let service = route.next_hop_type == SERVICE;
        let prefix = if service { "[service]".to_owned() } else { route.address_prefix.join(" ") };
        let address = route.next_hop_ip_address.join(" ");
        let name = route.name.clone().unwrap_or_default();
        [route.source.clone(), route.state.clone(), prefix, route.next_hop_type.clone(), address, name]
    };
    assert_eq!(answer.azure().next_link, None);
    answer.azure().value.iter().map(row).collect()
}

fn expected_rows(rows: &[[&str; 6]]) -> BTreeSet<[String; 6]> {
    rows.iter().map(|row| row.map(str::to_owned)).collect()
}

/// The example on Azure's page about routing, once for each precedence: no row of it depends on that.
#[test]
fn example_of_azures_page() {
    for precedence in ["documented", "longest-prefix"] {
        let plan = plan(&format!(
            r#"
            [semantics]
            endpoint_precedence = "{precedence}"
            [[virtual_network]]
            name = "VNet1"
            address_space = ["10.0.0.0/16"]
            peerings = [{{ remote = "VNet2" }}]
            [[virtual_network.subnet]]
            name = "Subnet1"
            address_prefixes = ["10.0.0.0/24"]
            route_table = "Subnet1"
            service_endpoints = [{{ service = "Microsoft.Storage" }}]
            [[virtual_network.subnet]]
            name = "Subnet2"
            address_prefixes = ["10.0.1.0/24"]
            [[virtual_network.subnet]]
            name = "Appliances"
            address_prefixes = ["10.0.100.0/24"]
            [[virtual_network]]
            name = "VNet2"
            address_space = ["10.1.0.0/16", "10.2.0.0/16"]
            peerings = [{{ remote = "VNet1" }}]
            [[route_table]]
            name = "Subnet1"
            routes = [
              {{ name = "Within-VNet1", address_prefix = "10.0.0.0/16", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.4" }},
              {{ name = "Within-Subnet1", address_prefix = "10.0.0.0/24", next_hop_type = "VnetLocal" }},
              {{ name = "ToVNet2-1-Drop", address_prefix = "10.1.0.0/16", next_hop_type = "None" }},
              {{ name = "ToVNet2-2-Drop", address_prefix = "10.2.0.0/16", next_hop_type = "None" }},
              {{ name = "To-On-Prem", address_prefix = "10.10.0.0/16", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.4" }},
              {{ name = "Default-NVA", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.4" }},
            ]
            [[nic]]
            name = "nva"
            subnet = "VNet1/Appliances"
            private_addresses = ["10.0.100.4"]
            ip_forwarding = true
            [gateway]
            virtual_network = "VNet1"
            learned_routes = ["10.10.0.0/16"]
            "#
        ));
        let subnet1 = [
            ["Default", "Invalid", "10.0.0.0/16", "VnetLocal", "", ""],
            ["User", "Active", "10.0.0.0/16", "VirtualAppliance", "10.0.100.4", "Within-VNet1"],
            ["User", "Active", "10.0.0.0/24", "VnetLocal", "", "Within-Subnet1"],
            ["Default", "Invalid", "10.1.0.0/16", "VNetPeering", "", ""],
            ["Default", "Invalid", "10.2.0.0/16", "VNetPeering", "", ""],
            ["User", "Active", "10.1.0.0/16", "None", "", "ToVNet2-1-Drop"],
            ["User", "Active", "10.2.0.0/16", "None", "", "ToVNet2-2-Drop"],
            ["VirtualNetworkGateway", "Invalid", "10.10.0.0/16", "VirtualNetworkGateway", "", ""],
            ["User", "Active", "10.10.0.0/16", "VirtualAppliance", "10.0.100.4", "To-On-Prem"],
            ["Default", "Active", "[service]", "VirtualNetworkServiceEndpoint", "", ""],
            ["Default", "Invalid", "0.0.0.0/0", "Internet", "", ""],
            ["User", "Active", "0.0.0.0/0", "VirtualAppliance", "10.0.100.4", "Default-NVA"],
        ];
        assert_eq!(rows(&plan, "VNet1/Subnet1"), expected_rows(&subnet1));
        let subnet2 = [
            ["Default", "Active", "10.0.0.0/16", "VnetLocal", "", ""],
            ["Default", "Active", "10.1.0.0/16", "VNetPeering", "", ""],
            ["Default", "Active", "10.2.0.0/16", "VNetPeering", "", ""],
            ["VirtualNetworkGateway", "Active", "10.10.0.0/16", "VirtualNetworkGateway", "", ""],
            ["Default", "Active", "0.0.0.0/0", "Internet", "", ""],
            ["Default", "Active", "10.0.0.0/8", "None", "", ""],
            ["Default", "Active", "172.16.0.0/12", "None", "", ""],
            ["Default", "Active", "192.168.0.0/16", "None", "", ""],
            ["Default", "Active", "100.64.0.0/10", "None", "", ""],
        ];
        assert_eq!(rows(&plan, "VNet1/Subnet2"), expected_rows(&subnet2));
    }
}

/// R13, R14 and the case between: reserved ranges that an address space equals, contains or is inside of.
#[test]
fn address_space_replaces_and_removes_reserved_ranges() {
    let reserved = |space: &str| {
        let (address, _) = space.split_once('/').unwrap();
        let plan = plan(&format!(
            r#"
            [[virtual_network]]
            name = "net"
            address_space = ["{space}"]
            [[virtual_network.subnet]]
            name = "all"
            address_prefixes = ["{address}/24"]
            "#
        ));
        let rows: Vec<_> = rows(&plan, "net/all").into_iter().collect();
        rows.into_iter()
            .filter(|row| row[3] != "Internet")
            .map(|row| format!("{} {} {}", row[2], row[3], row[1]))
            .collect::<Vec<_>>()
    };
    let none = |range: &str| format!("{range} None Active");
    assert_eq!(
        reserved("10.0.0.0/8"),
        [
            "10.0.0.0/8 VnetLocal Active".to_owned(),
            none("100.64.0.0/10"),
            none("172.16.0.0/12"),
            none("192.168.0.0/16")
        ]
    );
    assert_eq!(
        reserved("192.168.0.0/15"),
        [
            none("10.0.0.0/8"),
            none("100.64.0.0/10"),
            none("172.16.0.0/12"),
            "192.168.0.0/15 VnetLocal Active".to_owned()
        ]
    );
    assert_eq!(
        reserved("10.1.0.0/16"),
        [
            none("10.0.0.0/8"),
            "10.1.0.0/16 VnetLocal Active".to_owned(),
            none("100.64.0.0/10"),
            none("172.16.0.0/12"),
            none("192.168.0.0/16")
        ]
    );
}

/// R17 is for the check of the document.
#[test]
fn twenty_six_tag_routes_are_refused() {
    let routes = (0..26)
        .map(|index| format!("{{ name = \"r{index}\", address_prefix = \"Storage\", next_hop_type = \"Internet\" }},"));
    let document = format!(
        "location = \"westeurope\"\ntags = \"tags.json\"\n[[route_table]]\nname = \"t\"\nroutes = [{}]\n",
        routes.collect::<String>()
    );
    let mistakes = model::parse(&document, Path::new("test.toml"), Some(&catalogue())).unwrap_err();
    assert!(mistakes.to_string().contains("25"), "{mistakes}");
}

#[test]
fn partly_overridden_endpoint_stays_active() {
    let case = Case::with_routes(&[("20.60.0.0/16", APPLIANCE)]);
    let why = |precedence: &str, protocols: &str, next_hop: &str| {
        let plan = plan(&case.document(precedence, protocols));
        let answer = plan.routes_answer(plan.find_subnet_or_nic("net/workload").unwrap());
        let row = answer
            .routes
            .iter()
            .find(|row| row.route.next_hop_type == next_hop && (row.service.is_some() || row.route.name.is_some()))
            .unwrap();
        (row.route.state.clone(), row.why.clone())
    };
    let same = "user route r0 has the same prefix; user routes come before BGP, BGP before system";
    let first = "the Microsoft.Storage endpoint comes first, whatever the prefix lengths";
    let active = |reasons: &[String]| ("Active".to_owned(), reasons.to_vec());
    assert_eq!(why("longest-prefix", "\"any\"", SERVICE), active(&[format!("1 of 5 prefixes: {same}")]));
    assert_eq!(why("longest-prefix", "\"any\"", APPLIANCE), active(&[]));
    assert_eq!(why("documented", "\"any\"", SERVICE), active(&[]));
    assert_eq!(why("documented", "\"any\"", APPLIANCE), ("Invalid".to_owned(), vec![first.to_owned()]));
    assert_eq!(why("documented", "[\"tcp\"]", APPLIANCE), active(&[format!("tcp: {first}")]));
}

#[test]
fn missing_tags_are_all_named() {
    let case = Case::with_routes(&[("AzureCloud", "Internet"), ("Storage.WestEurope", APPLIANCE)]);
    let document = format!("location = \"westeurope\"\ntags = \"t.json\"\n{}", case.document("documented", "\"any\""));
    let network = model::parse(&document, Path::new("test.toml"), Some(&catalogue())).unwrap();
    let plan = Plan::new(Arc::new(network), Arc::new(Catalogue::default()));
    let error = plan.compile(1, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "subnet `net/workload`, endpoint `Microsoft.Storage`: it needs the service tag `Storage`, and there is no \
         service-tag catalogue\n\
         route table `table`, route `r0`: it needs the service tag `AzureCloud`, and there is no service-tag catalogue\n\
         route table `table`, route `r1`: it needs the service tag `Storage.WestEurope`, and there is no service-tag \
         catalogue"
    );
}
