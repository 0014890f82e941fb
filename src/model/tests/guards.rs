//! Endpoint policies and firewalls of services: what they list, whom they name, limits, and the port of the platform.

use std::fmt::Write as _;

use super::{check_document, compare, good, replace_one};
use crate::model::network::{Access, Denial, PolicyScope};

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
  service_endpoints = [{ service = "Microsoft.Storage" }]
  service_endpoint_policies = ["DATA"]

[[virtual_network]]
name = "far"
location = "North Europe"
address_space = ["10.2.0.0/16"]

  [[virtual_network.subnet]]
  name = "app"
  address_prefixes = ["10.2.1.0/24"]

[[service_endpoint_policy]]
name = "data"
location = "West Europe"
unidentified = "allow"
definitions = [
  { name = "accounts", description = "ours", service = "microsoft.storage", service_resources = ["/subscriptions/s1", "/subscriptions/s2/resourceGroups/g", "/subscriptions/s3/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a"] },
  { name = "managed", service = "Global", service_resources = ["/services/azure/batch"] },
]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4"]
trusted_service = true
resource_id = "/subscriptions/s1/resourceGroups/g/providers/Microsoft.Batch/batchAccounts/b"

[platform]
device = { tun = "host0" }

[[service]]
name = "account"
service = "Microsoft.Storage"
service_alias = "/services/Azure/Batch"
addresses = ["20.60.1.10"]

[service.firewall]
public_network_access = "Enabled"
default_action = "deny"
virtual_network_rules = [{ subnet = "Spoke/workload", ignore_missing_endpoint = true }, { subnet = "far/gone" }]
ip_rules = ["203.0.113.7", "198.51.100.0/24"]
bypass = ["AzureServices"]
resource_access_rules = ["/subscriptions/s1/resourceGroups/g/providers/Microsoft.Synapse/workspaces/w"]
denial = "prohibited"
answering_port = 8403

[[service]]
name = "front"
service = "Microsoft.Storage"
addresses = ["20.60.1.20"]

  [[service.resource]]
  name = "first"
  host_names = ["first.example"]
  firewall = { default_action = "Deny", bypass = ["None"] }

  [[service.resource]]
  name = "second"
  host_names = ["second.example"]
"#;

struct Case(&'static str, &'static str, &'static [(&'static str, &'static str)]);

fn check_cases(cases: &[Case]) {
    let differences = cases.iter().filter_map(|Case(from, to, expected)| {
        let text = replace_one(BASE, from, to);
        compare(&text, expected).err().map(|difference| format!("{from} -> {to}\n{difference}"))
    });
    let differences: Vec<String> = differences.collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn a_good_document_says_what_it_says() {
    let network = good(BASE);
    let workload = network.find_subnet("spoke/workload").unwrap();
    assert_eq!(network.subnet(workload).service_endpoint_policies, [0]);
    let locations: Vec<&str> = network.virtual_networks.iter().map(|network| network.location.as_str()).collect();
    assert_eq!(locations, ["westeurope", "northeurope"]);
    let policy = &network.service_endpoint_policies[0];
    assert_eq!((policy.unidentified, policy.definitions.len()), (Access::Allow, 2));
    assert_eq!(policy.definitions[1].service_resources, [PolicyScope::Alias("/services/Azure/Batch".to_owned())]);
    let resource = &network.services[0].resources[0];
    assert_eq!(resource.service_alias.as_deref(), Some("/services/Azure/Batch"));
    let firewall = resource.firewall.as_ref().unwrap();
    assert!(firewall.public_network_access && firewall.bypass_azure_services);
    assert_eq!((firewall.default_action, firewall.denial), (Access::Deny, Denial::Prohibited));
    assert_eq!(firewall.answering_port, Some(8403));
    let rules: Vec<_> =
        firewall.virtual_network_rules.iter().map(|rule| (rule.subnet, rule.ignore_missing_endpoint)).collect();
    assert_eq!(rules, [(Some(workload), true), (None, false)], "a subnet that is gone is no mistake");
    let addresses: Vec<String> = firewall.ip_rules.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["203.0.113.7/32", "198.51.100.0/24"]);
    assert!(network.services[1].resources[0].firewall.is_some() && network.services[1].resources[1].firewall.is_none());
    assert!(network.nics[0].trusted_service && network.nics[0].resource_id.is_some() && network.platform.is_some());
}

#[test]
fn scopes_list_what_is_at_or_below_them() {
    let network = good(BASE);
    let scopes = &network.service_endpoint_policies[0].definitions[0].service_resources;
    let listed = |id: &str| scopes.iter().any(|scope| scope.lists(Some(id), None));
    let account = |subscription: &str, group: &str, name: &str| {
        format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}"
        )
    };
    for (id, expected) in [
        (account("S1", "any", "any"), true),
        (account("s11", "any", "any"), false),
        (account("s2", "G", "any"), true),
        (account("s2", "g2", "any"), false),
        (account("s3", "g", "A"), true),
        (account("s3", "g", "ab"), false),
    ] {
        assert_eq!(listed(&id), expected, "{id}");
    }
    assert!(!scopes.iter().any(|scope| scope.lists(None, Some("/services/Azure/Batch"))));
    assert!(
        PolicyScope::EveryAlias.lists(None, Some("/services/Azure/WebPI"))
            && !PolicyScope::EveryAlias.lists(None, None)
    );
    let batch = PolicyScope::Alias("/services/Azure/Batch".to_owned());
    assert!(batch.lists(None, Some("/SERVICES/azure/batch")) && !batch.lists(None, Some("/services/Azure/WebPI")));
}

#[test]
fn policies() {
    check_cases(&[
        Case("{ name = \"accounts\"", "{ name = §\"-accounts\"", &[("`-accounts` cannot be a name", "1 to 80")]),
        Case(
            "service_endpoint_policies = [\"DATA\"]",
            "service_endpoint_policies = [§\"date\"]",
            &[("unknown service endpoint policy `date`", "did you mean `data`?")],
        ),
        Case(
            "service_endpoint_policies = [\"DATA\"]",
            "service_endpoint_policies = [\"data\", §\"data\"]",
            &[("`data` is there twice", "in line")],
        ),
        Case(
            "unidentified = \"allow\"",
            "unidentified = §\"maybe\"",
            &[("unknown unidentified `maybe`", "\"Allow\" or \"Deny\"")],
        ),
        Case(
            "service = \"microsoft.storage\"",
            "service = §\"Microsoft.Sql\"",
            &[("unknown service of a policy `Microsoft.Sql`", "\"Microsoft.Storage\"")],
        ),
        Case("name = \"managed\"", "name = §\"accounts\"", &[("`accounts` is there twice", "in line")]),
        Case(
            "\"/subscriptions/s1\"",
            "§\"/subscriptions/\"",
            &[("is not a subscription, a resource group or a storage account", "/subscriptions/ID")],
        ),
        Case(
            "\"/subscriptions/s1\"",
            "§\"/subscriptions/s1/resourceGroups\"",
            &[("is not a subscription", "/resourceGroups/NAME")],
        ),
        Case(
            "\"/subscriptions/s1\"",
            "§\"/subscriptions/s1/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v\"",
            &[("is not a subscription", "storageAccounts")],
        ),
        Case(
            "\"/subscriptions/s1\"",
            "§\"/services/Azure\"",
            &[("is an alias, which the service `Microsoft.Storage` does not have", "Global")],
        ),
        Case(
            "\"/services/azure/batch\"",
            "§\"/services/Azure/Bach\"",
            &[("unknown alias `/services/Azure/Bach`", "did you mean `/services/Azure/Batch`?")],
        ),
        Case("\"/services/azure/batch\"", "§\"/subscriptions/s9\"", &[("is not an alias", "Microsoft.Storage")]),
        Case(
            "service_alias = \"/services/Azure/Batch\"",
            "service_alias = §\"/services/Azure\"",
            &[("unknown alias", "aliases are")],
        ),
    ]);
    check_document(
        &replace_one(BASE, "location = \"West Europe\"\nunidentified", "location = \"North Europe\"\nunidentified")
            .replace("policies = [\"DATA\"]", "policies = [§\"DATA\"]"),
        &[("the policy `DATA` is in `North Europe`, and the network in `westeurope`", "one region")],
    );
}

#[test]
fn firewalls() {
    check_cases(&[
        Case(
            "public_network_access = \"Enabled\"",
            "public_network_access = §\"SecuredByPerimeter\"",
            &[("unknown public_network_access", "\"Enabled\" or \"Disabled\"")],
        ),
        Case(
            "default_action = \"deny\"",
            "default_action = §\"Block\"",
            &[("unknown default_action `Block`", "\"Allow\" or \"Deny\"")],
        ),
        Case(
            "denial = \"prohibited\"",
            "denial = §\"drop\"",
            &[("unknown denial `drop`", "\"reset\" or \"prohibited\"")],
        ),
        Case("answering_port = 8403", "answering_port = §0", &[("`answering_port` is out of range", "1 to 65535")]),
        Case(
            "bypass = [\"AzureServices\"]",
            "bypass = [\"AzureServices\", §\"Metrics\"]",
            &[("bypass `Metrics` cannot be enforced", "remove")],
        ),
        Case("bypass = [\"AzureServices\"]", "bypass = [§\"Azure\"]", &[("unknown bypass `Azure`", "AzureServices")]),
        Case(
            "bypass = [\"AzureServices\"]",
            "bypass = [\"AzureServices\", §\"None\"]",
            &[("unknown bypass `None`", "[] for none")],
        ),
        Case(
            "[\"/subscriptions/s1/resourceGroups/g/providers/Microsoft.Synapse/workspaces/w\"]",
            "[§\"workspace\"]",
            &[("is not a resource id", "/subscriptions/")],
        ),
        Case("resource_id = \"/subs", "resource_id = §\"subs", &[("is not a resource id", "/subscriptions/")]),
        Case(
            "subnet = \"Spoke/workload\"",
            "subnet = §\"workload\"",
            &[("`workload` is not the name of a subnet", "network/subnet")],
        ),
        Case(
            "subnet = \"Spoke/workload\"",
            "subnet = §\"Spokes/workload\"",
            &[("unknown virtual network `Spokes`", "did you mean `spoke`?")],
        ),
        Case(
            "subnet = \"Spoke/workload\"",
            "subnet = §\"spoke/workloads\"",
            &[("unknown subnet `workloads`", "did you mean `spoke/workload`?")],
        ),
        Case(
            "{ subnet = \"far/gone\" }",
            "{ subnet = §\"spoke/WORKLOAD\" }",
            &[("`spoke/WORKLOAD` is there twice", "in line")],
        ),
    ]);
    check_document(
        &replace_one(BASE, "addresses = [\"20.60.1.20\"]", "addresses = [\"20.60.1.20\"]\nfirewall = §{}"),
        &[("the service `front` has resources and a `firewall` of its own", "[[service.resource]]")],
    );
}

#[test]
fn ip_rules_are_public_ipv4_without_small_prefixes() {
    check_cases(&[
        Case("\"203.0.113.7\"", "§\"203.0.113.6/31\"", &[("is a /31", "\"203.0.113.6\", \"203.0.113.7\"")]),
        Case("\"203.0.113.7\"", "§\"203.0.113.7/32\"", &[("is a /32", "\"203.0.113.7\"")]),
        Case("\"203.0.113.7\"", "§\"10.1.1.4\"", &[("is not public: it is private", "virtual network rules")]),
        Case("\"203.0.113.7\"", "§\"0.0.0.0/0\"", &[("is not public", "public")]),
        Case("\"203.0.113.7\"", "§\"2001:db8::1\"", &[("is IPv6", "IPv4")]),
        Case("\"203.0.113.7\"", "§\"2001:db8::/32\"", &[("is IPv6", "IPv4")]),
        Case("\"203.0.113.7\"", "§\"203.0.113.7/24\"", &[("has host bits set", "\"203.0.113.0/24\"")]),
        Case("\"203.0.113.7\"", "§\"everybody\"", &[("is not an address or a prefix", "203.0.113.10")]),
        Case("\"203.0.113.7\"", "\"203.0.113.7\", §\"203.0.113.7\"", &[("is there twice", "in line")]),
    ]);
}

/// `number` values in a list, of which the one beyond a limit has a mark.
fn list(number: usize, limit: usize, value: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for index in 0..number {
        let mark = if index == limit { "§" } else { "" };
        let _ = write!(text, "{mark}{}, ", value(index));
    }
    text
}

#[test]
fn limits() {
    let address = |index: usize| format!("\"203.{}.{}.1\"", index / 200, index % 200);
    let with = |rules: &str| replace_one(BASE, "\"203.0.113.7\", \"198.51.100.0/24\"", rules);
    good(&with(&list(400, 400, address)));
    check_document(
        &with(&list(401, 400, address)),
        &[("there are 401 IP rules of one `Microsoft.Storage`, and 400 is the limit", "")],
    );
    let vault = |number| {
        replace_one(
            BASE,
            "[platform]",
            &format!(
                "[[service]]\nname = \"vault\"\nservice = \"Microsoft.KeyVault\"\naddresses = [\"20.62.4.9\"]\nfirewall = {{ ip_rules = [{}] }}\n\n[platform]",
                list(number, 1_000, address)
            ),
        )
    };
    good(&vault(1_000));
    check_document(&vault(1_001), &[("1001 IP rules of one `Microsoft.KeyVault`, and 1000 is the limit", "")]);
    let resource = |index: usize| format!("\"/subscriptions/r{index}\"");
    let with = |resources: &str| replace_one(BASE, "\"/subscriptions/s1\", ", resources);
    good(&with(&list(198, 200, resource)));
    check_document(
        &replace_one(
            BASE,
            "[\"/services/azure/batch\"]",
            &format!("[\"/services/Azure\", {}]", list(0, 200, resource)),
        ),
        &[],
    );
    let instance = |index: usize| format!("\"/subscriptions/i{index}\"");
    let with = |rules: &str| {
        replace_one(
            BASE,
            "[\"/subscriptions/s1/resourceGroups/g/providers/Microsoft.Synapse/workspaces/w\"]",
            &format!("[{rules}]"),
        )
    };
    check_document(&with(&list(201, 200, instance)), &[("there are 201 resource access rules", "")]);
    // Subscriptions and regions of one service that have rules for one network.
    let services = |number: usize| {
        let mut text = BASE.to_owned();
        for index in 0..number {
            let mark = if index == 199 { "§" } else { "" };
            let _ = write!(
                text,
                "\n[[service]]\nname = \"a{index}\"\nservice = \"Microsoft.Storage\"\nid = \"/subscriptions/x{index}/resourceGroups/g\"\n\
                 addresses = [\"20.60.{}.{}\"]\nfirewall = {{ virtual_network_rules = [{{ subnet = {mark}\"spoke/workload\" }}] }}\n",
                10 + index / 200,
                1 + index % 200
            );
        }
        text
    };
    good(&services(199));
    check_document(&services(200), &[("in more than 200 subscriptions and regions have rules for `spoke`", "")]);
}
