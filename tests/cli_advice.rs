//! `sidestep check --advice` as users see it: each advice on a document that was damaged in one place, and documents that
//! are nearly so and need none.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sidestep::plan::advice::Kind;
use tempfile::TempDir;

/// A document on which there is nothing to say.
const BASE: &str = r#"location = "westeurope"
tags = "tags.json"

[semantics]
endpoint_precedence = "documented"
endpoint_protocols = "any"

[[virtual_network]]
name = "hub"
address_space = ["10.0.0.0/16"]
peerings = [{ remote = "spoke", allow_forwarded_traffic = true, allow_gateway_transit = true }]

  [[virtual_network.subnet]]
  name = "GatewaySubnet"
  address_prefixes = ["10.0.255.0/27"]

  [[virtual_network.subnet]]
  name = "appliances"
  address_prefixes = ["10.0.100.0/24"]

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16"]
peerings = [{ remote = "hub", allow_forwarded_traffic = true, use_remote_gateways = true }]

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.1.1.0/24"]
  route_table = "forced"
  network_security_group = "web"
  service_endpoints = [{ service = "Microsoft.Storage" }]
  service_endpoint_policies = ["accounts"]

  [[virtual_network.subnet]]
  name = "front"
  address_prefixes = ["10.1.2.0/24"]
  network_security_group = "db"
  service_endpoints = [{ service = "Microsoft.Sql" }]

  [[virtual_network.subnet]]
  name = "plain"
  address_prefixes = ["10.1.3.0/24"]
  route_table = "forced"

[[route_table]]
name = "forced"
routes = [
  { name = "default", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualNetworkGateway" },
  { name = "inspected", address_prefix = "198.51.100.0/24", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.4" },
]

[[network_security_group]]
name = "web"
security_rules = [
  { name = "allow-storage", priority = 200, direction = "Outbound", access = "Allow", protocol = "Tcp", source_address_prefix = "*", source_port_range = "*", destination_address_prefix = "Storage", destination_port_range = "443" },
  { name = "deny-internet", priority = 300, direction = "Outbound", access = "Deny", protocol = "*", source_address_prefix = "*", source_port_range = "*", destination_address_prefix = "Internet", destination_port_range = "*" },
]

[[network_security_group]]
name = "db"
security_rules = [
  { name = "allow-sql", priority = 200, direction = "Outbound", access = "Allow", protocol = "Tcp", source_address_prefix = "*", source_port_range = "*", destination_address_prefix = "Sql", destination_port_ranges = ["1433", "11000-11999"] },
  { name = "deny-all", priority = 4000, direction = "Outbound", access = "Deny", protocol = "*", source_address_prefix = "*", source_port_range = "*", destination_address_prefix = "*", destination_port_range = "*" },
]

[[service_endpoint_policy]]
name = "accounts"
definitions = [{ name = "ours", service = "Microsoft.Storage", service_resources = ["/subscriptions/s1"] }]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4"]

[[nic]]
name = "vm2"
subnet = "spoke/front"
private_addresses = ["10.1.2.4"]
public_addresses = ["203.0.113.40"]

[[nic]]
name = "appliance"
subnet = "hub/appliances"
private_addresses = ["10.0.100.4"]
ip_forwarding = true

[gateway]
virtual_network = "hub"
learned_routes = ["192.168.0.0/16"]

[internet]
public_addresses = ["203.0.113.200"]

[[service]]
name = "data"
service = "Microsoft.Storage"
addresses = ["20.60.1.10"]

  [service.firewall]
  default_action = "Deny"
  virtual_network_rules = [{ subnet = "spoke/workload" }]
  ip_rules = ["198.51.100.7", "203.0.113.64/28"]

[[service]]
name = "logs"
service = "Microsoft.Storage"
addresses = ["20.60.1.11"]

[[service]]
name = "sql"
service = "Microsoft.Sql"
addresses = ["20.70.1.10"]
firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "spoke/front" }] }

[[lab.host]]
netns = "site"
masquerade = ["203.0.113.10"]
connect = { to = "net" }

[[lab.host]]
netns = "net"
"#;

const TAGS: &str = r#"{ "changeNumber": 1, "cloud": "Public", "values": [
  { "name": "Storage", "id": "Storage", "properties": { "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure",
    "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16", "20.61.0.0/16"], "networkFeatures": ["API", "NSG", "UDR", "FW", "VSE"] } },
  { "name": "Storage.WestEurope", "id": "Storage.WestEurope", "properties": { "changeNumber": 1, "region": "westeurope", "regionId": 18,
    "platform": "Azure", "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16"], "networkFeatures": ["API", "NSG", "UDR", "FW"] } },
  { "name": "Sql", "id": "Sql", "properties": { "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure",
    "systemService": "AzureSQL", "addressPrefixes": ["20.70.0.0/16"], "networkFeatures": ["API", "NSG", "UDR", "FW", "VSE"] } },
  { "name": "Sql.WestEurope", "id": "Sql.WestEurope", "properties": { "changeNumber": 1, "region": "westeurope", "regionId": 18,
    "platform": "Azure", "systemService": "AzureSQL", "addressPrefixes": ["20.70.0.0/16"], "networkFeatures": ["API", "NSG", "UDR", "FW"] } } ] }
"#;

/// A folder with a catalogue and the base document, texts of which are replaced that are in it once.
fn folder(damages: &[(&str, &str)]) -> TempDir {
    let mut document = BASE.to_owned();
    for (from, to) in damages {
        assert_eq!(document.matches(from).count(), 1, "`{from}` must be in the document once");
        document = document.replace(from, to);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tags.json"), TAGS).unwrap();
    fs::write(folder.path().join("n.toml"), document).unwrap();
    folder
}

fn check(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    command.current_dir(folder).env_remove("SIDESTEP_LOG").arg("check").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The advice on a damaged document, as text, without what stands before and behind it.
fn advice(damages: &[(&str, &str)]) -> String {
    let folder = folder(damages);
    let output = check(folder.path(), &["-c", "n.toml", "--advice"]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    let [first, advice @ .., last] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(first.starts_with("n.toml: ok: "), "{first}");
    let count = advice.iter().filter(|line| line.contains(": advice: [")).count();
    let noun = if count == 1 { "piece" } else { "pieces" };
    assert_eq!(*last, format!("n.toml: {count} {noun} of advice"));
    advice.join("\n")
}

/// Expects one advice: its place and message, its reason, its way out.
fn gives(damages: &[(&str, &str)], expected: &str) {
    assert_eq!(advice(damages), expected.trim_start_matches('\n'), "{damages:?}");
}

/// Expects that there is nothing to say.
fn gives_none(damages: &[(&str, &str)]) {
    assert_eq!(advice(damages), "", "{damages:?}");
}

#[test]
fn the_base_needs_none() {
    gives_none(&[]);
}

#[test]
fn ip_rules_that_an_endpoint_kills() {
    // Every resource of the service is hit: the one with a firewall of nothing but IP rules, too.
    gives(
        &[
            ("  virtual_network_rules = [{ subnet = \"spoke/workload\" }]\n", ""),
            ("203.0.113.64/28", "203.0.113.10"),
            (
                "addresses = [\"20.60.1.11\"]",
                "addresses = [\"20.60.1.11\"]\nfirewall = { default_action = \"Deny\", ip_rules = [\"203.0.113.0/28\"] }",
            ),
        ],
        r#"
n.toml:31:36: advice: [dead-ip-rules] the endpoint of `spoke/workload` for `Microsoft.Storage` takes the subnet past the IP rules that would admit it: denied at `data` (203.0.113.10), `logs` (203.0.113.0/28)
  reason: over an endpoint a service sees the subnet's identity and a private address, which no IP rule admits, and an endpoint moves the traffic to every resource of the service at once (Azure, "Virtual Network service endpoints")
  way out: add { subnet = "spoke/workload" } to the virtual_network_rules of `data` and `logs`
n.toml:41:10: advice: [dead-ip-rules] an endpoint of `spoke/plain` for `Microsoft.Storage` would take the subnet past the IP rules that admit it now: it would be denied at `data` (203.0.113.10), `logs` (203.0.113.0/28)
  reason: over an endpoint a service sees the subnet's identity and a private address, which no IP rule admits, and an endpoint moves the traffic to every resource of the service at once (Azure, "Virtual Network service endpoints")
  way out: before the endpoint is on, add { subnet = "spoke/plain", ignore_missing_endpoint = true } to the virtual_network_rules of `data` and `logs`"#,
    );
    // Where the document does not tell the address of the site, the rules may be for it.
    gives(
        &[
            ("  virtual_network_rules = [{ subnet = \"spoke/workload\" }]\n", ""),
            ("[[lab.host]]\nnetns = \"site\"\nmasquerade = [\"203.0.113.10\"]\nconnect = { to = \"net\" }\n", ""),
        ],
        r#"
n.toml:31:36: advice: [dead-ip-rules] the endpoint of `spoke/workload` for `Microsoft.Storage` takes the subnet past the IP rules that would admit it: denied at `data` (198.51.100.7, 203.0.113.64/28, if that is the site's address)
  reason: over an endpoint a service sees the subnet's identity and a private address, which no IP rule admits, and an endpoint moves the traffic to every resource of the service at once (Azure, "Virtual Network service endpoints")
  way out: add { subnet = "spoke/workload" } to the virtual_network_rules of `data`"#,
    );
    // A rule for the subnet saves it.
    gives_none(&[("203.0.113.64/28", "203.0.113.10"), ("route_table = \"forced\"\n\n[[route", "\n[[route")]);
    // IP rules for somebody else are as good as before.
    gives_none(&[("  virtual_network_rules = [{ subnet = \"spoke/workload\" }]\n", "")]);
    // A NIC that is an exception comes in anyway.
    gives_none(&[
        ("  virtual_network_rules = [{ subnet = \"spoke/workload\" }]\n", "  bypass = [\"AzureServices\"]\n"),
        ("203.0.113.64/28", "203.0.113.10"),
        ("route_table = \"forced\"\n\n[[route", "\n[[route"),
        ("private_addresses = [\"10.1.1.4\"]", "private_addresses = [\"10.1.1.4\"]\ntrusted_service = true"),
    ]);
}

#[test]
fn ip_rules_that_an_endpoint_would_kill() {
    // `plain` is in the tunnel and has no endpoint yet.
    gives(
        &[("203.0.113.64/28", "203.0.113.10")],
        r#"
n.toml:41:10: advice: [dead-ip-rules] an endpoint of `spoke/plain` for `Microsoft.Storage` would take the subnet past the IP rules that admit it now: it would be denied at `data` (203.0.113.10)
  reason: over an endpoint a service sees the subnet's identity and a private address, which no IP rule admits, and an endpoint moves the traffic to every resource of the service at once (Azure, "Virtual Network service endpoints")
  way out: before the endpoint is on, add { subnet = "spoke/plain", ignore_missing_endpoint = true } to the virtual_network_rules of `data`"#,
    );
    // Behind an appliance, the address is that of the appliance.
    gives(
        &[
            ("203.0.113.64/28", "203.0.113.200"),
            (
                "\"0.0.0.0/0\", next_hop_type = \"VirtualNetworkGateway\"",
                "\"0.0.0.0/0\", next_hop_type = \"VirtualAppliance\", next_hop_ip_address = \"10.0.100.4\"",
            ),
        ],
        r#"
n.toml:41:10: advice: [dead-ip-rules] an endpoint of `spoke/plain` for `Microsoft.Storage` would take the subnet past the IP rules that admit it now: it would be denied at `data` (203.0.113.200)
  reason: over an endpoint a service sees the subnet's identity and a private address, which no IP rule admits, and an endpoint moves the traffic to every resource of the service at once (Azure, "Virtual Network service endpoints")
  way out: before the endpoint is on, add { subnet = "spoke/plain", ignore_missing_endpoint = true } to the virtual_network_rules of `data`"#,
    );
}

#[test]
fn endpoint_past_the_tunnel_without_policy() {
    gives(
        &[("  service_endpoint_policies = [\"accounts\"]\n", "")],
        r#"
n.toml:31:36: advice: [endpoint-without-policy] `spoke/workload` reaches every account of `Microsoft.Storage`, anybody's, past the virtual network gateway (route `default`), which other traffic goes to
  reason: an endpoint is for the service as a whole and bypasses what filters the default route, so data can leave to any account (Azure, "Azure virtual network service endpoint policies for Azure Storage")
  way out: give `spoke/workload` service_endpoint_policies that list the accounts it needs; with them the endpoint is one for all regions"#,
    );
    gives_none(&[
        ("  service_endpoint_policies = [\"accounts\"]\n", ""),
        ("\"0.0.0.0/0\", next_hop_type = \"VirtualNetworkGateway\"", "\"0.0.0.0/0\", next_hop_type = \"Internet\""),
    ]);
    gives_none(&[
        ("  service_endpoint_policies = [\"accounts\"]\n", ""),
        ("[{ service = \"Microsoft.Storage\" }]", "[]"),
        ("  virtual_network_rules = [{ subnet = \"spoke/workload\" }]\n", ""),
    ]);
}

#[test]
fn policy_without_endpoint() {
    gives(
        &[
            ("[{ service = \"Microsoft.Storage\" }]", "[]"),
            ("  virtual_network_rules = [{ subnet = \"spoke/workload\" }]\n", ""),
        ],
        r#"
n.toml:32:32: advice: [policy-without-endpoint] `accounts` restricts nothing in `spoke/workload`: it has no endpoint for Azure Storage
  reason: policies are asked about what goes over a storage endpoint, and about nothing else (Azure, "Azure virtual network service endpoint policies for Azure Storage")
  way out: add { service = "Microsoft.Storage" } to the service_endpoints of `spoke/workload`"#,
    );
    gives_none(&[("[{ service = \"Microsoft.Storage\" }]", "[{ service = \"Microsoft.Storage.Global\" }]")]);
}

#[test]
fn deny_internet_without_the_tag() {
    gives(
        &[(
            "destination_address_prefix = \"Storage\", destination_port_range = \"443\"",
            "destination_address_prefix = \"Storage\", destination_port_range = \"445\"",
        )],
        r#"
n.toml:56:12: advice: [deny-internet-without-tag] the rule `deny-internet` of `web` keeps `spoke/workload` from the endpoint for `Microsoft.Storage`: TCP 443 to it is denied
  reason: groups know nothing of endpoints: the addresses of a service are part of Internet, and of no other tag but the service's own (Azure, "Virtual Network service endpoints")
  way out: add an outbound rule to `web` that allows TCP 443 to the service tag `Storage`, with a priority below 300"#,
    );
    gives(
        &[("priority = 300", "priority = 100")],
        r#"
n.toml:56:12: advice: [deny-internet-without-tag] the rule `deny-internet` of `web` keeps `spoke/workload` from the endpoint for `Microsoft.Storage`: TCP 443 to it is denied
  reason: groups know nothing of endpoints: the addresses of a service are part of Internet, and of no other tag but the service's own (Azure, "Virtual Network service endpoints")
  way out: add an outbound rule to `web` that allows TCP 443 to the service tag `Storage`, before it, which needs `deny-internet` to have a priority above 100"#,
    );
    // The region of the tag is enough.
    gives_none(&[(
        "destination_address_prefix = \"Storage\", destination_port_range = \"443\"",
        "destination_address_prefix = \"Storage.WestEurope\", destination_port_range = \"443\"",
    )]);
    // Who denies the service means the service.
    gives_none(&[
        ("\"deny-internet\", priority = 300", "\"deny-storage\", priority = 300"),
        ("destination_address_prefix = \"Internet\"", "destination_address_prefix = \"Storage\""),
        (
            "destination_address_prefix = \"Storage\", destination_port_range = \"443\"",
            "destination_address_prefix = \"Storage\", destination_port_range = \"445\"",
        ),
    ]);
}

#[test]
fn sql_redirects() {
    gives(
        &[("[\"1433\", \"11000-11999\"]", "[\"1433\"]")],
        r#"
n.toml:62:12: advice: [sql-redirect-ports] the rule `allow-sql` of `db` lets `spoke/front` begin with Azure SQL at port 1433 and not go on: 11000-11999 are denied
  reason: inside Azure a server redirects its clients to a node at one of these ports, unless its connection policy is Proxy (Azure, "Azure SQL connectivity architecture")
  way out: allow TCP 11000-11999 to the service tag `Sql` in `db` as well"#,
    );
    gives_none(&[("[\"1433\", \"11000-11999\"]", "[\"1433\", \"11000-12000\"]")]);
}

#[test]
fn rule_for_a_subnet_without_endpoint() {
    gives(
        &[(
            "  virtual_network_rules = [{ subnet = \"spoke/workload\" }]\n",
            "  virtual_network_rules = [{ subnet = \"spoke/plain\" }]\n",
        )],
        r#"
n.toml:101:39: advice: [rule-without-endpoint] the rule of `data` for `spoke/plain` admits nobody: the subnet has no endpoint for `Microsoft.Storage`
  reason: a rule admits the identity that an endpoint gives; without one, the traffic comes from a public address, which IP rules are for (Azure, "Virtual Network service endpoints")
  way out: add { service = "Microsoft.Storage" } to the service_endpoints of `spoke/plain`; if it comes later, write ignore_missing_endpoint = true in the rule"#,
    );
    gives_none(&[(
        "  virtual_network_rules = [{ subnet = \"spoke/workload\" }]\n",
        "  virtual_network_rules = [{ subnet = \"spoke/plain\", ignore_missing_endpoint = true }]\n",
    )]);
}

#[test]
fn rule_of_a_resource_in_another_region() {
    gives(
        &[
            ("addresses = [\"20.60.1.10\"]", "location = \"eastus\"\naddresses = [\"20.60.1.10\"]"),
            ("  service_endpoint_policies = [\"accounts\"]\n", ""),
            ("\"0.0.0.0/0\", next_hop_type = \"VirtualNetworkGateway\"", "\"0.0.0.0/0\", next_hop_type = \"Internet\""),
        ],
        r#"
n.toml:101:39: advice: [rule-out-of-region] the rule of `data` for `spoke/workload` admits nobody: `data` is in `eastus`, and the subnet's endpoint for `Microsoft.Storage` counts in `westeurope` and `northeurope` only
  reason: a regional endpoint gives an identity to resources of its own region, for Azure Storage also of the paired one (Azure, "Virtual Network service endpoints")
  way out: make it an endpoint for `Microsoft.Storage.Global`, which counts in every region"#,
    );
    // The paired region counts.
    gives_none(&[("addresses = [\"20.60.1.10\"]", "location = \"northeurope\"\naddresses = [\"20.60.1.10\"]")]);
    // So does every region with a policy.
    gives_none(&[("addresses = [\"20.60.1.10\"]", "location = \"eastus\"\naddresses = [\"20.60.1.10\"]")]);
    gives(
        &[("addresses = [\"20.70.1.10\"]", "location = \"northeurope\"\naddresses = [\"20.70.1.10\"]")],
        r#"
n.toml:114:75: advice: [rule-out-of-region] the rule of `sql` for `spoke/front` admits nobody: `sql` is in `northeurope`, and the subnet's endpoint for `Microsoft.Sql` counts in `westeurope` only
  reason: a regional endpoint gives an identity to resources of its own region, for Azure Storage also of the paired one (Azure, "Virtual Network service endpoints")
  way out: a subnet of a virtual network in `northeurope` can have access"#,
    );
}

#[test]
fn rule_for_a_subnet_that_is_gone() {
    gives(
        &[(
            "virtual_network_rules = [{ subnet = \"spoke/front\" }]",
            "virtual_network_rules = [{ subnet = \"spoke/front\" }, { subnet = \"spoke/yesterday\" }]",
        )],
        r#"
n.toml:113:103: advice: [stale-subnet] the rule of `sql` for `spoke/yesterday` admits nobody: there is no such subnet
  reason: a rule is for the subnet that had the name when the rule was made, not for the name: making a subnet with that name again does not help (Azure: state NetworkSourceDeleted, "Configure Azure Storage firewalls and virtual networks")
  way out: remove the rule, and where the subnet is made again, put the rule in force once more after it"#,
    );
}

#[test]
fn ping_over_endpoints_for_tcp() {
    gives(
        &[("endpoint_protocols = \"any\"", "endpoint_protocols = [\"tcp\"]")],
        r#"
n.toml:6:22: advice: [ping-as-probe] ping and traceroute do not show the way that TCP takes: from `spoke/workload` to 20.60.1.10 (`Microsoft.Storage`) it goes to the virtual network gateway (route `default`); from `spoke/front` to 20.70.1.10 (`Microsoft.Sql`) it goes to the internet (system route 0.0.0.0/0)
  reason: endpoints steer the listed protocols only, in Azure TCP; ICMP takes the other routes (Azure, "Azure Virtual Network frequently asked questions")
  way out: probe with TCP (`curl`, `traceroute -T -p 443`), or ask `sidestep next-hop --protocol tcp`"#,
    );
    gives_none(&[("endpoint_protocols = \"any\"", "endpoint_protocols = [\"tcp\", \"icmp\"]")]);
}

#[test]
fn public_address_in_a_tunnel() {
    gives(
        &[(
            "private_addresses = [\"10.1.1.4\"]",
            "private_addresses = [\"10.1.1.4\"]\npublic_addresses = [\"203.0.113.41\"]",
        )],
        r#"
n.toml:74:21: advice: [asymmetric-inbound] who asks `vm1` at 203.0.113.41 comes in from the internet, and in Azure the answer goes to the virtual network gateway (route `default`)
  reason: Azure sends answers by the routes of the subnet, not back to where the question came from, and firewalls drop answers to what they have not seen (Azure, "Virtual network traffic routing"); this node decides both directions of a flow at once, and so does not show it
  way out: let the questions come in by the same way, through a public address in front of it, or give the prefixes of those who ask a route with next_hop_type = "Internet""#,
    );
}

#[test]
fn rules_that_are_ignored() {
    gives(
        &[("  default_action = \"Deny\"\n", "")],
        r#"
n.toml:99:3: advice: [rules-without-deny] the firewall of `data` admits everybody: its rules mean nothing
  reason: rules are ignored while the default action is Allow, which it is unless something else is written (Azure, "Configure Azure Storage firewalls and virtual networks")
  way out: write default_action = "Deny", or remove the rules"#,
    );
    gives_none(&[("  default_action = \"Deny\"\n", "  public_network_access = \"Disabled\"\n")]);
}

#[test]
fn routes_inside_an_endpoint() {
    gives(
        &[("address_prefix = \"198.51.100.0/24\"", "address_prefix = \"20.60.0.0/24\"")],
        r#"
n.toml:49:12: advice: [route-shadowed-by-endpoint] the route `inspected` for 20.60.0.0/24 does nothing in `spoke/workload`: the endpoint for `Microsoft.Storage` comes first
  reason: endpoint routes come before user routes that match, whatever the prefix lengths (Azure, "Virtual Network service endpoints"); labs have seen equal and longer prefixes win, as with endpoint_precedence = "longest-prefix"
  way out: remove the route; or remove the endpoint, if the traffic is meant to go there"#,
    );
    gives(
        &[
            ("address_prefix = \"198.51.100.0/24\"", "address_prefix = \"Storage.WestEurope\""),
            ("\"documented\"", "\"longest-prefix\""),
        ],
        r#"
n.toml:49:12: advice: [endpoint-shadowed-by-route] the route `inspected` for Storage.WestEurope takes traffic from the endpoint for `Microsoft.Storage` in `spoke/workload`
  reason: with endpoint_precedence = "longest-prefix", user routes with an equal or longer prefix win, as labs have seen; Azure says that the endpoint comes first (Azure, "Virtual network traffic routing")
  way out: remove the route or the endpoint, so that the way does not depend on it"#,
    );
    gives(
        &[
            (
                "address_prefix = \"198.51.100.0/24\", next_hop_type = \"VirtualAppliance\", next_hop_ip_address = \"10.0.100.4\"",
                "address_prefix = \"Storage\", next_hop_type = \"Internet\"",
            ),
            ("\"documented\"", "\"longest-prefix\""),
        ],
        r#"
n.toml:49:12: advice: [route-shadowed-by-endpoint] the route `inspected` for Storage does nothing in `spoke/workload`: the endpoint for `Microsoft.Storage` comes first
  reason: a user route to Internet leaves endpoint traffic where it is, as labs have seen; Azure says that the endpoint comes first in any case (Azure, "Virtual network traffic routing")
  way out: remove the route; or remove the endpoint, if the traffic is meant to go there"#,
    );
    // A route that contains the endpoint has what the endpoint leaves.
    gives_none(&[("address_prefix = \"198.51.100.0/24\"", "address_prefix = \"20.0.0.0/8\"")]);
}

const STALE: (&str, &str) =
    ("{ subnet = \"spoke/front\" }", "{ subnet = \"spoke/front\" }, { subnet = \"spoke/gone\" }");

#[test]
fn only_stale_subnets_are_told_unasked() {
    let folder = folder(&[STALE, ("  service_endpoint_policies = [\"accounts\"]\n", "")]);
    for arguments in [vec!["-c", "n.toml"], vec!["-c", "n.toml", "--json"]] {
        let output = check(folder.path(), &arguments);
        assert_eq!(text(&output.stderr), "n.toml: 1 piece of advice on stale-subnet: see --advice\n");
        assert!(!text(&output.stdout).contains("advice"), "{}", text(&output.stdout));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn other_advice_waits_to_be_asked_for() {
    let folder = folder(&[("  service_endpoint_policies = [\"accounts\"]\n", "")]);
    let output = check(folder.path(), &["-c", "n.toml"]);
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn advice_as_json() {
    let folder = folder(&[STALE]);
    let output = check(folder.path(), &["-c", "n.toml", "--advice", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], true);
    let [advice] = answer["advice"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    let keys: Vec<&str> = advice.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
    assert_eq!((&advice["name"], &advice["line"]), (&"stale-subnet".into(), &113.into()));
    for key in ["column", "message", "reason", "way_out"] {
        assert!(!advice[key].is_null(), "{key} is missing in {advice}");
    }
}

#[test]
fn advice_can_be_denied() {
    let damaged = folder(&[STALE]);
    let output = check(damaged.path(), &["-c", "n.toml", "--deny-advice"]);
    assert!(text(&output.stdout).contains(": advice: [stale-subnet] "), "{}", text(&output.stdout));
    assert_eq!(output.status.code(), Some(1));
    let output = check(folder(&[]).path(), &["-c", "n.toml", "--deny-advice"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn help_tells_of_advice_and_its_exit_code() {
    let output = check(Path::new("/"), &["--help"]);
    // As wide as the terminal is.
    let shown = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["--advice", "--deny-advice", "The exit code is 0 with advice, too", "exit with 1 if there is any"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
}

/// What is true of the shipped documents: the tour shows an endpoint without policy, a route that an endpoint beats, and a
/// public address behind an appliance, each where the language is explained.
#[test]
fn shipped_documents_are_advised_of_what_they_teach() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (document, expected) in [
        ("config/demo.toml", vec![]),
        (
            "config/example.toml",
            vec![
                ("endpoint-without-policy", "`spoke/workload`"),
                ("route-shadowed-by-endpoint", "`key-vault`"),
                ("asymmetric-inbound", "`vm2`"),
            ],
        ),
    ] {
        let output = check(package, &["-c", document, "--advice", "--json"]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = answer["advice"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{answer}");
        for (advice, (name, object)) in found.iter().zip(expected) {
            assert_eq!(advice["name"], name);
            assert!(advice["message"].as_str().unwrap().contains(object), "{advice}");
        }
    }
}

#[test]
fn the_readme_lists_every_advice() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for kind in Kind::ALL {
        assert!(readme.contains(&format!("| `{}` |", kind.name())), "{} is missing", kind.name());
    }
}
