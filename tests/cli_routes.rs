//! `sidestep routes` and `sidestep next-hop` as people and scripts meet them: text, JSON, errors and exit codes.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
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
  route_table = "to-on-premises"
  service_endpoints = [{ service = "Microsoft.Storage" }]

  [[virtual_network.subnet]]
  name = "appliances"
  address_prefixes = ["10.1.2.0/24"]

[[route_table]]
name = "to-on-premises"
disable_bgp_route_propagation = true
routes = [
  { name = "default", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualNetworkGateway" },
  { name = "inspect", address_prefix = "Sql", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.1.2.4" },
  { name = "block", address_prefix = "20.60.1.0/28", next_hop_type = "None" },
]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4"]

[[nic]]
name = "appliance"
subnet = "spoke/appliances"
private_addresses = ["10.1.2.4"]
ip_forwarding = true

[gateway]
virtual_network = "spoke"
learned_routes = ["192.168.7.0/24"]

[internet]
public_addresses = ["203.0.113.200"]

[[service]]
name = "contosodata"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10"]
host_names = ["contosodata.blob.core.windows.net"]
"#;

/// A folder with a document and its catalogue.
struct Documents {
    _folder: TempDir,
    config: String,
}

impl Documents {
    fn new(document: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let tag = |name: &str, prefixes: &[&str]| {
            json!({ "name": name, "id": name, "properties": {
                "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure", "systemService": name,
                "addressPrefixes": prefixes, "networkFeatures": ["API", "NSG", "UDR", "FW", "VSE"],
            } })
        };
        let values =
            [tag("Storage", &["20.60.0.0/20", "20.60.32.0/24", "2603:1020::/32"]), tag("Sql", &["20.61.0.0/24"])];
        let tags = json!({ "changeNumber": 1, "cloud": "Public", "values": values });
        fs::write(folder.path().join("tags.json"), tags.to_string()).unwrap();
        let config = folder.path().join("network.toml");
        fs::write(&config, document).unwrap();
        Self { config: config.to_str().unwrap().to_owned(), _folder: folder }
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidestep")).args(arguments).env_remove("SIDESTEP_LOG").output().unwrap()
}

/// The answer of a command that has to succeed and to say nothing else.
fn answer(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json_answer(arguments: &[&str]) -> Value {
    serde_json::from_str(&answer(arguments)).unwrap()
}

/// The error of a command that has to fail with an exit code and to answer nothing.
fn error(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn routes_as_text() {
    let documents = Documents::new(DOCUMENT);
    let expected = "\
Source   State    Address Prefix      Next Hop Type                  Next Hop IP  Name               Why
Default  Active   10.1.0.0/16         VnetLocal                      -            -
Default  Invalid  0.0.0.0/0           Internet                       -            -                  user route default has the same prefix; user routes come before BGP, BGP before system
User     Active   0.0.0.0/0           VirtualNetworkGateway          -            default
User     Active   Sql (1)             VirtualAppliance               10.1.2.4     inspect
Default  Active   20.60.0.0/20 (+1)   VirtualNetworkServiceEndpoint  -            Microsoft.Storage
User     Invalid  20.60.1.0/28        None                           -            block              the Microsoft.Storage endpoint comes first, whatever the prefix lengths
";
    // A NIC stands for its subnet.
    for subject in ["spoke/workload", "vm1"] {
        let text = answer(&["routes", subject, "-c", &documents.config]);
        assert_eq!(squeeze(&text), squeeze(expected));
    }
}

/// The lines with every run of spaces as one: the widths of columns are the table's.
fn squeeze(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn routes_as_json_have_azures_shape() {
    let documents = Documents::new(DOCUMENT);
    let route = |prefixes: &[&str], next_hop_type: &str, source: &str, state: &str| {
        json!({
            "addressPrefix": prefixes, "destinationServiceTags": [], "tagMap": {},
            "disableBgpRoutePropagation": true, "hasBgpOverride": false, "name": null, "nextHopIpAddress": [],
            "nextHopType": next_hop_type, "source": source, "state": state,
        })
    };
    let named = |mut route: Value, name: &str| {
        route["name"] = json!(name);
        route
    };
    let mut inspect = named(route(&["20.61.0.0/24"], "VirtualAppliance", "User", "Active"), "inspect");
    inspect["destinationServiceTags"] = json!(["Sql"]);
    inspect["tagMap"] = json!({ "Sql": ["20.61.0.0/24"] });
    inspect["nextHopIpAddress"] = json!(["10.1.2.4"]);
    // The one field that Azure's tool does not have.
    let mut endpoint = route(&["20.60.0.0/20", "20.60.32.0/24"], "VirtualNetworkServiceEndpoint", "Default", "Active");
    endpoint["endpointSource"] = json!("private");
    let expected = json!({ "nextLink": null, "value": [
        route(&["10.1.0.0/16"], "VnetLocal", "Default", "Active"),
        route(&["0.0.0.0/0"], "Internet", "Default", "Invalid"),
        named(route(&["0.0.0.0/0"], "VirtualNetworkGateway", "User", "Active"), "default"),
        inspect,
        endpoint,
        named(route(&["20.60.1.0/28"], "None", "User", "Invalid"), "block"),
    ] });
    assert_eq!(json_answer(&["routes", "vm1", "--json", "-c", &documents.config]), expected);
}

#[test]
fn a_subnet_without_a_table_has_system_routes() {
    let documents = Documents::new(DOCUMENT);
    let rows = json_answer(&["routes", "appliance", "--json", "-c", &documents.config]);
    let rows = rows["value"].as_array().unwrap().iter();
    let rows: Vec<_> = rows
        .map(|row| {
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            format!("{} {} {}", text("source"), row["addressPrefix"][0].as_str().unwrap(), text("nextHopType"))
        })
        .collect();
    let expected = [
        "Default 10.1.0.0/16 VnetLocal",
        "VirtualNetworkGateway 192.168.7.0/24 VirtualNetworkGateway",
        "Default 0.0.0.0/0 Internet",
        "Default 10.0.0.0/8 None",
        "Default 172.16.0.0/12 None",
        "Default 192.168.0.0/16 None",
        "Default 100.64.0.0/10 None",
    ];
    assert_eq!(rows, expected);
}

#[test]
fn next_hop_as_text() {
    let documents = Documents::new(DOCUMENT);
    let ask = |to: &str, protocol: &str| {
        squeeze(&answer(&["next-hop", "--from", "vm1", "--to", to, "--protocol", protocol, "-c", &documents.config]))
    };
    let expected = [
        "spoke/workload to 20.60.1.10, tcp: VirtualNetworkServiceEndpoint",
        "route Default Microsoft.Storage 20.60.0.0/20, System Route",
        "port contosodata",
        "",
        "Source Address Prefix Next Hop Type Next Hop IP Name Why it lost",
        "Default 0.0.0.0/0 Internet - - the Microsoft.Storage endpoint comes first, whatever the prefix lengths",
        "User 0.0.0.0/0 VirtualNetworkGateway - default the Microsoft.Storage endpoint comes first, whatever the \
         prefix lengths",
        "User 20.60.1.0/28 None - block the Microsoft.Storage endpoint comes first, whatever the prefix lengths",
    ];
    assert_eq!(ask("contosodata.blob.core.windows.net", "tcp"), expected);
    let expected = [
        "spoke/workload to 20.61.0.9, icmp: VirtualAppliance 10.1.2.4",
        "route User inspect 20.61.0.0/24 (Sql), to-on-premises",
        "port appliance",
        "",
        "Source Address Prefix Next Hop Type Next Hop IP Name Why it lost",
        "Default 0.0.0.0/0 Internet - - user route inspect has a longer prefix",
        "User 0.0.0.0/0 VirtualNetworkGateway - default user route inspect has a longer prefix",
    ];
    assert_eq!(ask("20.61.0.9", "1"), expected);
    let expected = ["spoke/workload to 2001:db8::1, udp: None", "route none", "drop no route matches"];
    assert_eq!(ask("2001:db8::1", "udp"), expected);
    let unassigned = ask("10.1.9.9", "tcp");
    assert_eq!(
        unassigned[..3],
        [
            "spoke/workload to 10.1.9.9, tcp: VnetLocal",
            "route Default 10.1.0.0/16, System Route",
            "drop no NIC has the address",
        ]
    );
}

#[test]
fn a_source_that_is_not_the_default_is_told() {
    let documents = Documents::new(
        &DOCUMENT
            .replace("service = \"Microsoft.Storage\" }", "service = \"Microsoft.Storage\", source = \"identity6\" }"),
    );
    let routes = answer(&["routes", "vm1", "-c", &documents.config]);
    assert!(routes.contains("Microsoft.Storage (identity6)"), "{routes}");
    let next_hop = squeeze(&answer(&["next-hop", "--from", "vm1", "--to", "20.60.1.10", "-c", &documents.config]));
    assert_eq!(next_hop[2..4], ["source identity6", "port contosodata"]);
}

#[test]
fn next_hop_as_json() {
    let document = DOCUMENT
        .replace("tags = \"tags.json\"", "tags = \"tags.json\"\nsemantics = { endpoint_protocols = [\"tcp\"] }");
    let documents = Documents::new(&document);
    let ask = |to: &str, protocol: &str| {
        let arguments = ["next-hop", "--from", "spoke/workload", "--to", to, "--protocol", protocol, "--json"];
        json_answer(&[&arguments[..], &["-c", &documents.config]].concat())
    };
    let tunnel = json!({
        "source": "User", "name": "default", "service": null, "serviceTag": null, "addressPrefix": "0.0.0.0/0",
        "nextHopType": "VirtualNetworkGateway", "nextHopIpAddress": "", "endpointSource": null,
    });
    let candidate = |mut route: Value, reason: &str| {
        route["reason"] = json!(reason);
        route
    };
    let internet = json!({
        "source": "Default", "name": null, "service": null, "serviceTag": null, "addressPrefix": "0.0.0.0/0",
        "nextHopType": "Internet", "nextHopIpAddress": "", "endpointSource": null,
    });
    let endpoint = json!({
        "source": "Default", "name": null, "service": "Microsoft.Storage", "serviceTag": null,
        "addressPrefix": "20.60.32.0/24", "nextHopType": "VirtualNetworkServiceEndpoint", "nextHopIpAddress": "",
        "endpointSource": "private",
    });
    let first = "the Microsoft.Storage endpoint comes first, whatever the prefix lengths";
    assert_eq!(
        ask("20.60.32.1", "tcp"),
        json!({
            "nextHopType": "VirtualNetworkServiceEndpoint", "nextHopIpAddress": "", "routeTableId": "System Route",
            "from": "spoke/workload", "to": "20.60.32.1", "protocol": 6, "route": endpoint, "port": null,
            "unroutable": "no service of the document has the address, and there is no backbone",
            "candidates": [candidate(internet.clone(), first), candidate(tunnel.clone(), first)],
        })
    );
    let same = "user route default has the same prefix; user routes come before BGP, BGP before system";
    assert_eq!(
        ask("20.60.32.1", "icmp"),
        json!({
            "nextHopType": "VirtualNetworkGateway", "nextHopIpAddress": "", "routeTableId": "to-on-premises",
            "from": "spoke/workload", "to": "20.60.32.1", "protocol": 1, "route": tunnel, "port": "gateway",
            "unroutable": null,
            "candidates": [
                candidate(internet, same), candidate(endpoint, "endpoints do not steer this protocol"),
            ],
        })
    );
}

#[test]
fn mistakes_are_explained() {
    let documents = Documents::new(DOCUMENT);
    let config = documents.config.as_str();
    assert_eq!(
        error(&["routes", "vm2", "-c", config], 1),
        "error: there is no subnet or NIC `vm2`; did you mean `vm1`?\n"
    );
    assert_eq!(
        error(&["next-hop", "--from", "vm1", "--to", "contosodta.blob.core.windows.net", "-c", config], 1),
        "error: there is no address, service or host name of a service `contosodta.blob.core.windows.net`; did you mean \
         `contosodata.blob.core.windows.net`?\n"
    );
    assert_eq!(
        error(&["next-hop", "--from", "vm1", "--to", "10.1.1.4", "--protocol", "tpc", "-c", config], 1),
        "error: `tpc` is no protocol: write tcp, udp, icmp, another name or a number from 0 to 255\n"
    );
    let broken = Documents::new(&DOCUMENT.replace("10.1.1.0/24", "10.9.1.0/24"));
    let text = error(&["routes", "vm1", "-c", &broken.config], 1);
    assert!(text.starts_with("error: the document has mistakes\n") && text.contains("network.toml:11:"), "{text}");
}

/// Azure's weekly file, if it lies beside the package. Its absence is a failure where CI says that it has to be there.
fn weekly_file() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json");
    if path.exists() {
        return Some(path);
    }
    assert!(env::var("CI").as_deref() != Ok("true"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

#[test]
fn azures_weekly_file_serves_as_catalogue() {
    let Some(tags) = weekly_file() else { return };
    let documents = Documents::new(DOCUMENT);
    let arguments = ["-c", &documents.config, "--tags", tags.to_str().unwrap()];
    let text = answer(&[&["routes", "vm1"][..], &arguments].concat());
    let endpoint = text.lines().find(|line| line.contains("VirtualNetworkServiceEndpoint")).unwrap();
    assert!(endpoint.contains("(+494)") && endpoint.contains("Microsoft.Storage"), "{endpoint}");
    let routes = json_answer(&[&["routes", "vm1", "--json"][..], &arguments].concat());
    let of_type = |name: &str| {
        let routes = routes["value"].as_array().unwrap();
        routes.iter().find(|route| route["nextHopType"] == name).unwrap()["addressPrefix"].as_array().unwrap().len()
    };
    assert_eq!(of_type("VirtualNetworkServiceEndpoint"), 495);
    for (to, expected) in [("20.60.1.10", "VirtualNetworkServiceEndpoint"), ("198.51.100.80", "VirtualNetworkGateway")]
    {
        let answer = json_answer(&[&["next-hop", "--from", "vm1", "--to", to, "--json"][..], &arguments].concat());
        assert_eq!(answer["nextHopType"], expected, "{to}");
    }
}
