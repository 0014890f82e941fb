//! `sidestep nsg` and `sidestep verify` as people and scripts meet them: text, JSON, errors and exit codes.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const DOCUMENT: &str = r#"
location = "westeurope"
tags = "tags.json"

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16"]

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.1.1.0/24"]
  network_security_group = "web"

  [[virtual_network.subnet]]
  name = "bare"
  address_prefixes = ["10.1.2.0/24"]

  [[virtual_network.subnet]]
  name = "empty"
  address_prefixes = ["10.1.3.0/24"]

[[application_security_group]]
name = "front"

[[network_security_group]]
name = "web"
security_rules = [
  { name = "storage", priority = 100, direction = "Outbound", access = "Allow", protocol = "Tcp", destination_address_prefix = "storage", destination_port_range = "443" },
  { name = "no-internet", priority = 200, direction = "Outbound", access = "Deny", protocol = "*", destination_address_prefix = "Internet", destination_port_range = "*" },
  { name = "front", priority = 110, direction = "Inbound", access = "Allow", protocol = "Tcp", source_address_prefixes = ["192.168.7.0/24", "203.0.113.9"], destination_application_security_groups = ["front"], destination_port_ranges = ["80", "8000-8080"] },
]

[[network_security_group]]
name = "own"
security_rules = [
  { name = "no-dns", priority = 300, direction = "Outbound", access = "Deny", protocol = "Udp", destination_address_prefix = "AzurePlatformDNS", destination_port_range = "53" },
  { name = "telnet", priority = 400, direction = "Outbound", access = "Deny", protocol = "Tcp", destination_port_range = "23" },
]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4"]
network_security_group = "own"
application_security_groups = ["front"]

[[nic]]
name = "vm2"
subnet = "spoke/bare"
private_addresses = ["10.1.2.4"]
"#;

/// A folder with the document and its catalogue.
struct Documents {
    _folder: TempDir,
    config: String,
}

impl Documents {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let storage = json!({ "name": "Storage", "id": "Storage", "properties": {
            "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure", "systemService": "AzureStorage",
            "addressPrefixes": ["20.60.0.0/20", "20.60.32.0/24"], "networkFeatures": ["API", "NSG", "UDR"],
        } });
        let tags = json!({ "changeNumber": 1, "cloud": "Public", "values": [storage] });
        fs::write(folder.path().join("tags.json"), tags.to_string()).unwrap();
        let config = folder.path().join("network.toml");
        fs::write(&config, DOCUMENT).unwrap();
        Self { config: config.to_str().unwrap().to_owned(), _folder: folder }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
        command.args(arguments).args(["-c", &self.config]).env_remove("SIDESTEP_LOG").output().unwrap()
    }

    /// The answer of a command that has to succeed and to say nothing else.
    fn answer(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.answer(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// The error of a command that has to fail and to answer nothing.
    fn error(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn rules_as_text() {
    let documents = Documents::new();
    let web = "\
web, of the subnet spoke/workload
Direction  Priority  Access  Protocol  Source                         Source Ports  Destination         Destination Ports  Name
Inbound    110       Allow   Tcp       192.168.7.0/24,203.0.113.9/32  *             front               80,8000-8080       securityRules/front
Inbound    65000     Allow   All       VirtualNetwork (2)             *             VirtualNetwork (2)  *                  defaultSecurityRules/AllowVnetInBound
Inbound    65001     Allow   All       AzureLoadBalancer (1)          *             *                   *                  defaultSecurityRules/AllowAzureLoadBalancerInBound
Inbound    65500     Deny    All       *                              *             *                   *                  defaultSecurityRules/DenyAllInBound
Outbound   100       Allow   Tcp       *                              *             Storage (2)         443                securityRules/storage
Outbound   200       Deny    All       *                              *             Internet (76)       *                  securityRules/no-internet
Outbound   65000     Allow   All       VirtualNetwork (2)             *             VirtualNetwork (2)  *                  defaultSecurityRules/AllowVnetOutBound
Outbound   65001     Allow   All       *                              *             Internet (76)       *                  defaultSecurityRules/AllowInternetOutBound
Outbound   65500     Deny    All       *                              *             *                   *                  defaultSecurityRules/DenyAllOutBound
";
    let own = "
own, of the NIC vm1
Direction  Priority  Access  Protocol  Source                 Source Ports  Destination           Destination Ports  Name
Inbound    65000     Allow   All       VirtualNetwork (2)     *             VirtualNetwork (2)    *                  defaultSecurityRules/AllowVnetInBound
Inbound    65001     Allow   All       AzureLoadBalancer (1)  *             *                     *                  defaultSecurityRules/AllowAzureLoadBalancerInBound
Inbound    65500     Deny    All       *                      *             *                     *                  defaultSecurityRules/DenyAllInBound
Outbound   300       Deny    Udp       *                      *             AzurePlatformDNS (1)  53                 securityRules/no-dns
Outbound   400       Deny    Tcp       *                      *             *                     23                 securityRules/telnet
Outbound   65000     Allow   All       VirtualNetwork (2)     *             VirtualNetwork (2)    *                  defaultSecurityRules/AllowVnetOutBound
Outbound   65001     Allow   All       *                      *             Internet (76)         *                  defaultSecurityRules/AllowInternetOutBound
Outbound   65500     Deny    All       *                      *             *                     *                  defaultSecurityRules/DenyAllOutBound
";
    assert_eq!(documents.answer(&["nsg", "spoke/workload"]), web);
    assert_eq!(documents.answer(&["nsg", "VM1"]), format!("{web}{own}"));
    assert_eq!(
        documents.answer(&["nsg", "spoke/bare"]),
        "spoke/bare has no network security group: everything passes\n"
    );
}

#[test]
fn rules_in_the_shape_of_azures_tool() {
    let documents = Documents::new();
    let answer = documents.json(&["nsg", "vm1"]);
    assert_eq!(answer["nextLink"], Value::Null);
    let [web, own] = answer["value"].as_array().unwrap().as_slice() else { panic!("two groups: {answer}") };
    assert_eq!(web["networkSecurityGroup"], json!({ "id": "web" }));
    assert_eq!(
        web["association"],
        json!({ "subnet": { "id": "spoke/workload" }, "networkInterface": null, "networkManager": null })
    );
    assert_eq!(
        own["association"],
        json!({ "subnet": null, "networkInterface": { "id": "vm1" }, "networkManager": null })
    );
    let tags: Vec<&String> = web["tagMap"].as_object().unwrap().keys().collect();
    assert_eq!(tags, ["AzureLoadBalancer", "Internet", "Storage", "VirtualNetwork"]);
    assert_eq!(web["tagMap"]["VirtualNetwork"], json!(["10.1.0.0/16", "168.63.129.16/32"]));
    let rules = web["effectiveSecurityRules"].as_array().unwrap();
    assert_eq!(
        rules[0],
        json!({
            "name": "securityRules/front", "protocol": "Tcp", "access": "Allow", "priority": 110, "direction": "Inbound",
            "sourcePortRange": "0-65535", "sourcePortRanges": ["0-65535"],
            "destinationPortRange": null, "destinationPortRanges": ["80-80", "8000-8080"],
            "sourceAddressPrefix": null, "sourceAddressPrefixes": ["192.168.7.0/24", "203.0.113.9/32"],
            "destinationAddressPrefix": null, "destinationAddressPrefixes": [],
            "destinationApplicationSecurityGroups": [{ "id": "front" }],
            "expandedSourceAddressPrefix": null, "expandedDestinationAddressPrefix": ["10.1.1.4/32"],
        })
    );
    let storage = json!({
        "name": "securityRules/storage", "protocol": "Tcp", "access": "Allow", "priority": 100, "direction": "Outbound",
        "sourcePortRange": "0-65535", "sourcePortRanges": ["0-65535"],
        "destinationPortRange": "443-443", "destinationPortRanges": ["443-443"],
        "sourceAddressPrefix": "*", "sourceAddressPrefixes": ["*"],
        "destinationAddressPrefix": "Storage", "destinationAddressPrefixes": ["Storage"],
        "expandedSourceAddressPrefix": null,
        "expandedDestinationAddressPrefix": ["20.60.0.0/20", "20.60.32.0/24"],
    });
    assert_eq!(rules.iter().find(|rule| rule["name"] == "securityRules/storage"), Some(&storage));
    assert_eq!(documents.json(&["nsg", "vm2"]), json!({ "nextLink": null, "value": [] }));
}

#[test]
fn packets_are_verified_in_text() {
    let documents = Documents::new();
    let verify = |from: &str, to: &str, direction: &str, more: &[&str]| {
        documents.answer(&[&["verify", "--from", from, "--to", to, "--direction", direction], more].concat())
    };
    assert_eq!(
        verify("vm1", "20.60.1.10", "outbound", &[]),
        "\
Allow by securityRules/storage: Outbound tcp, vm1 10.1.1.4:49152 to 20.60.1.10:443

Asked           Group  Access  Priority  Rule
vm1             own    Allow   65001     defaultSecurityRules/AllowInternetOutBound
spoke/workload  web    Allow   100       securityRules/storage
"
    );
    assert_eq!(
        verify("spoke/workload", "198.51.100.80", "Outbound", &["--remote-port", "23", "--local-port", "5000"]),
        "\
Deny by securityRules/telnet: Outbound tcp, vm1 10.1.1.4:5000 to 198.51.100.80:23

Asked           Group  Access     Priority  Rule
vm1             own    Deny       400       securityRules/telnet
spoke/workload  web    not asked  -         -
",
        "the subnet is never asked"
    );
    assert_eq!(
        verify("192.168.7.3", "vm1", "inbound", &["--port", "8001"]),
        "\
Deny by defaultSecurityRules/DenyAllInBound: Inbound tcp, vm1 10.1.1.4:8001 from 192.168.7.3:49152

Asked           Group  Access  Priority  Rule
spoke/workload  web    Allow   110       securityRules/front
vm1             own    Deny    65500     defaultSecurityRules/DenyAllInBound
"
    );
    assert_eq!(
        verify("vm1", "168.63.129.16", "outbound", &["--port", "80"]),
        "\
Allow, for the address is one of the platform and no rule is about it: Outbound tcp, vm1 10.1.1.4:49152 to 168.63.129.16:80

Asked           Group  Access  Priority  Rule
vm1             own    Allow   -         -
spoke/workload  web    Allow   -         -
"
    );
    assert_eq!(
        verify("vm1", "spoke/bare", "inbound", &["--protocol", "icmp"]),
        "Allow, for neither vm2 nor spoke/bare has a network security group: Inbound icmp, vm2 10.1.2.4 from 10.1.1.4\n"
    );
}

#[test]
fn packets_are_verified_in_json() {
    let documents = Documents::new();
    let question = ["verify", "--from", "vm2", "--to", "vm1", "--direction", "inbound", "--protocol", "udp"];
    let ruling = |association: &str, group: &str| {
        json!({
            "association": association, "networkSecurityGroup": group, "access": "Allow",
            "ruleName": "defaultSecurityRules/AllowVnetInBound", "priority": 65000,
        })
    };
    assert_eq!(
        documents.json(&[&question[..], &["--local-port", "53", "--remote-port", "7"]].concat()),
        json!({
            "access": "Allow", "ruleName": "defaultSecurityRules/AllowVnetInBound", "generation": 1,
            "direction": "Inbound", "protocol": "udp", "nic": "vm1", "subnet": "spoke/workload",
            "local": "10.1.1.4:53", "remote": "10.1.2.4:7",
            "groups": [ruling("subnet", "web"), ruling("networkInterface", "own")],
        })
    );
}

#[test]
fn mistakes_are_explained() {
    let documents = Documents::new();
    let verify = |from: &str, to: &str, direction: &str, more: &[&str]| {
        documents.error(&[&["verify", "--from", from, "--to", to, "--direction", direction], more].concat())
    };
    let unknown = "error: there is no subnet or NIC `vm3`; did you mean `vm1`?\n";
    assert_eq!(documents.error(&["nsg", "vm3"]), unknown);
    assert_eq!(verify("vm3", "vm1", "outbound", &[]), unknown);
    assert_eq!(verify("10.1.1.4", "vm3", "inbound", &[]), unknown);
    assert_eq!(
        verify("vm2", "vn1", "outbound", &[]),
        "error: there is no address, NIC, service or host name of a service `vn1`; did you mean `vm1`?\n"
    );
    assert_eq!(verify("vm2", "vm1", "sideways", &[]), "error: `sideways` is no direction: write inbound or outbound\n");
    assert_eq!(
        verify("vm2", "vm1", "inbound", &["--port", "1", "--local-port", "2"]),
        "error: --port and --local-port are the same port of Inbound traffic: leave one out\n"
    );
    assert_eq!(
        verify("vm2", "vm1", "inbound", &["--protocol", "icmp", "--port", "1"]),
        "error: icmp has no ports: leave them out\n"
    );
    assert_eq!(
        verify("vm1", "spoke/empty", "inbound", &[]),
        "error: the subnet spoke/empty has no NIC with an IPv4 address to talk with 10.1.1.4\n"
    );
    assert_eq!(
        verify("2001:db8::1", "vm1", "inbound", &[]),
        "error: the NIC vm1 has no IPv6 address to talk with 2001:db8::1\n"
    );
}
