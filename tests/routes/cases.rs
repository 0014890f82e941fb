//! The choice of routes by the cases that Azure documents and labs observe, each under both values of both switches.

use super::{TCP, hop, outcome, plan};

const ICMP: u8 = 1;

/// One case of the table. The network is 10.0.0.0/16 with an appliance at 10.0.100.4; the subnet that sends has the
/// routes, a storage endpoint if asked for, and a gateway that learned some prefixes.
pub(super) struct Case {
    name: &'static str,
    /// Rows of the route table: prefix or tag, next hop type.
    routes: &'static [(&'static str, &'static str)],
    endpoint: bool,
    learned: &'static [&'static str],
    propagation: bool,
    to: &'static str,
    protocol: u8,
    /// Next hop type by the switches: documented with any and with TCP only, longest prefix with any and with TCP only.
    expected: [&'static str; 4],
}

pub(super) const SERVICE: &str = "VirtualNetworkServiceEndpoint";
pub(super) const APPLIANCE: &str = "VirtualAppliance";
const GATEWAY: &str = "VirtualNetworkGateway";
const DEFAULT_TO_APPLIANCE: (&str, &str) = ("0.0.0.0/0", APPLIANCE);

const PLAIN: Case = Case {
    name: "",
    routes: &[],
    endpoint: true,
    learned: &[],
    propagation: true,
    to: "20.60.1.1",
    protocol: TCP,
    expected: [SERVICE; 4],
};

const CASES: &[Case] = &[
    Case { name: "R1 endpoint under a default to the appliance", routes: &[DEFAULT_TO_APPLIANCE], ..PLAIN },
    Case {
        name: "R2 the same with an echo request",
        routes: &[DEFAULT_TO_APPLIANCE],
        protocol: ICMP,
        expected: [SERVICE, APPLIANCE, SERVICE, APPLIANCE],
        ..PLAIN
    },
    Case {
        name: "R3 outside any endpoint tag",
        routes: &[DEFAULT_TO_APPLIANCE],
        to: "198.51.100.80",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case { name: "R4 learned default and endpoint", learned: &["0.0.0.0/0"], ..PLAIN },
    Case {
        name: "R4 learned default without the endpoint's protocol",
        learned: &["0.0.0.0/0"],
        protocol: ICMP,
        expected: [SERVICE, GATEWAY, SERVICE, GATEWAY],
        ..PLAIN
    },
    Case {
        name: "R4 learned default, outside any endpoint tag",
        learned: &["0.0.0.0/0"],
        to: "198.51.100.80",
        expected: [GATEWAY; 4],
        ..PLAIN
    },
    Case { name: "R5 learned route inside an endpoint prefix", learned: &["20.60.1.0/24"], ..PLAIN },
    Case {
        name: "R5 the same with an echo request",
        learned: &["20.60.1.0/24"],
        protocol: ICMP,
        expected: [SERVICE, GATEWAY, SERVICE, GATEWAY],
        ..PLAIN
    },
    Case {
        name: "R6 user route equal to an endpoint prefix",
        routes: &[("20.60.0.0/16", APPLIANCE)],
        expected: [SERVICE, SERVICE, APPLIANCE, APPLIANCE],
        ..PLAIN
    },
    Case {
        name: "R7 user route to None inside an endpoint prefix",
        routes: &[("20.60.1.1/32", "None")],
        expected: [SERVICE, SERVICE, "None", "None"],
        ..PLAIN
    },
    Case { name: "R7 beside that user route", routes: &[("20.60.1.1/32", "None")], to: "20.60.1.2", ..PLAIN },
    Case {
        name: "R8 regional tag to the appliance, inside the region",
        routes: &[("Storage.WestEurope", APPLIANCE)],
        to: "191.239.203.1",
        expected: [SERVICE, SERVICE, APPLIANCE, APPLIANCE],
        ..PLAIN
    },
    Case {
        name: "R8 regional tag to the appliance, in another region",
        routes: &[("Storage.WestEurope", APPLIANCE)],
        to: "191.235.255.192",
        ..PLAIN
    },
    Case {
        name: "R8 swapped: the tag of the other region",
        routes: &[("Storage.NorthEurope", APPLIANCE)],
        to: "191.235.255.192",
        expected: [SERVICE, SERVICE, APPLIANCE, APPLIANCE],
        ..PLAIN
    },
    Case {
        name: "R9 regional tag to the internet",
        routes: &[("Storage.WestEurope", "Internet")],
        to: "191.239.203.1",
        ..PLAIN
    },
    Case {
        name: "R9 the same with an echo request",
        routes: &[("Storage.WestEurope", "Internet")],
        to: "191.239.203.1",
        protocol: ICMP,
        expected: [SERVICE, "Internet", SERVICE, "Internet"],
        ..PLAIN
    },
    Case {
        name: "R10 user route shorter than the network's range",
        routes: &[("10.0.0.0/8", APPLIANCE)],
        to: "10.0.5.5",
        expected: ["VnetLocal"; 4],
        ..PLAIN
    },
    Case {
        name: "R11 user route equal to the network's range",
        routes: &[("10.0.0.0/16", APPLIANCE)],
        to: "10.0.5.5",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case {
        name: "R12 learned route inside the network's range",
        learned: &["10.0.1.0/24"],
        to: "10.0.1.9",
        expected: ["VnetLocal"; 4],
        ..PLAIN
    },
    Case {
        name: "R15 learned prefix with propagation",
        routes: &[DEFAULT_TO_APPLIANCE],
        learned: &["172.20.0.0/16"],
        to: "172.20.0.9",
        expected: [GATEWAY; 4],
        ..PLAIN
    },
    Case {
        name: "R15 learned prefix without propagation",
        routes: &[DEFAULT_TO_APPLIANCE],
        learned: &["172.20.0.0/16"],
        propagation: false,
        to: "172.20.0.9",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case {
        name: "R18 AzureCloud and a regional tag with the same prefix",
        routes: &[("AzureCloud", "Internet"), ("Storage.EastUS", APPLIANCE)],
        endpoint: false,
        to: "20.70.0.1",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case {
        name: "R18 where AzureCloud's prefix is longer",
        routes: &[("AzureCloud", "Internet"), ("Storage.EastUS", APPLIANCE)],
        endpoint: false,
        to: "20.70.0.129",
        expected: ["Internet"; 4],
        ..PLAIN
    },
    Case {
        name: "regional tag before the global one, wherever it stands",
        routes: &[("Storage", "Internet"), ("Storage.EastUS", APPLIANCE)],
        endpoint: false,
        to: "20.70.0.1",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case {
        name: "global tag before AzureCloud of a region",
        routes: &[("AzureCloud.eastus", "Internet"), ("Storage", APPLIANCE)],
        endpoint: false,
        to: "20.70.0.1",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case {
        name: "AzureCloud of a region before AzureCloud",
        routes: &[("AzureCloud", "Internet"), ("AzureCloud.eastus", APPLIANCE)],
        endpoint: false,
        to: "20.70.0.1",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case {
        name: "explicit prefix before any tag",
        routes: &[("Storage.EastUS", "Internet"), ("20.70.0.0/24", APPLIANCE)],
        endpoint: false,
        to: "20.70.0.1",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case {
        name: "user before learned at the same prefix",
        routes: &[("172.20.0.0/16", APPLIANCE)],
        learned: &["172.20.0.0/16"],
        to: "172.20.0.9",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case {
        name: "learned route longer than a user route",
        routes: &[("172.16.0.0/12", APPLIANCE)],
        learned: &["172.20.0.0/16"],
        to: "172.20.0.9",
        expected: [GATEWAY; 4],
        ..PLAIN
    },
    Case { name: "private range nobody has", to: "10.9.9.9", expected: ["None"; 4], ..PLAIN },
    Case {
        name: "the same under a default to the appliance",
        routes: &[DEFAULT_TO_APPLIANCE],
        to: "10.9.9.9",
        expected: [APPLIANCE; 4],
        ..PLAIN
    },
    Case {
        name: "the same under a default to the gateway",
        routes: &[("0.0.0.0/0", GATEWAY)],
        to: "100.64.0.1",
        expected: [GATEWAY; 4],
        ..PLAIN
    },
    Case {
        name: "the same under a default to the internet",
        routes: &[("0.0.0.0/0", "Internet")],
        to: "192.168.3.4",
        expected: ["None"; 4],
        ..PLAIN
    },
    Case {
        name: "the same under a learned default",
        learned: &["0.0.0.0/0"],
        to: "192.168.3.4",
        expected: ["None"; 4],
        ..PLAIN
    },
    Case { name: "IPv6 endpoint", to: "2603:1020::1", ..PLAIN },
    Case { name: "IPv6 default", to: "2001:db8::1", expected: ["Internet"; 4], ..PLAIN },
    Case {
        name: "IPv6 default to None",
        routes: &[("::/0", "None")],
        to: "2001:db8::1",
        expected: ["None"; 4],
        ..PLAIN
    },
];

impl Case {
    /// A storage endpoint and some user routes.
    pub(super) const fn with_routes(routes: &'static [(&'static str, &'static str)]) -> Self {
        Self { routes, ..PLAIN }
    }

    pub(super) fn document(&self, precedence: &str, protocols: &str) -> String {
        let routes = self.routes.iter().enumerate().map(|(index, (prefix, next_hop))| {
            let address = if *next_hop == APPLIANCE { ", next_hop_ip_address = \"10.0.100.4\"" } else { "" };
            format!(
                "{{ name = \"r{index}\", address_prefix = \"{prefix}\", next_hop_type = \"{next_hop}\"{address} }},\n"
            )
        });
        let endpoint = if self.endpoint { "{ service = \"Microsoft.Storage\" }" } else { "" };
        format!(
            r#"
            [semantics]
            endpoint_precedence = "{precedence}"
            endpoint_protocols = {protocols}
            [[virtual_network]]
            name = "net"
            address_space = ["10.0.0.0/16", "fd00:1::/48"]
            [[virtual_network.subnet]]
            name = "workload"
            address_prefixes = ["10.0.1.0/24", "fd00:1:0:1::/64"]
            route_table = "table"
            service_endpoints = [{endpoint}]
            [[virtual_network.subnet]]
            name = "appliances"
            address_prefixes = ["10.0.100.0/24"]
            [[route_table]]
            name = "table"
            disable_bgp_route_propagation = {no_propagation}
            routes = [{routes}]
            [[nic]]
            name = "appliance"
            subnet = "net/appliances"
            private_addresses = ["10.0.100.4"]
            ip_forwarding = true
            [gateway]
            virtual_network = "net"
            learned_routes = {learned:?}
            [internet]
            public_addresses = ["203.0.113.200"]
            "#,
            no_propagation = !self.propagation,
            routes = routes.collect::<String>(),
            learned = self.learned,
        )
    }
}

#[test]
fn every_case_holds_under_both_values_of_both_switches() {
    let switches = ["documented", "longest-prefix"]
        .into_iter()
        .flat_map(|precedence| ["\"any\"", "[\"tcp\"]"].into_iter().map(move |protocols| (precedence, protocols)));
    for (index, (precedence, protocols)) in switches.enumerate() {
        for case in CASES {
            let plan = plan(&case.document(precedence, protocols));
            let snapshot = plan.compile(1, None).unwrap();
            outcome(&plan, &snapshot, "net/workload", case.to, case.protocol);
            let hop = hop(&snapshot, "net/workload", case.to, case.protocol);
            let found = hop.map(|hop| hop.next_hop_type.name());
            assert_eq!(found, Some(case.expected[index]), "{} ({precedence}, {protocols})", case.name);
        }
    }
}
