//! `sidestep run` and the commands that ask a running node, as users see them: text, JSON and exit codes. The documents
//! have no devices, so that no privileges are needed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const DOCUMENT: &str = r#"location = "westeurope"
tags = "tags.json"

[[virtual_network]]
name = "hub"
address_space = ["10.0.0.0/16"]
peerings = [{ remote = "spoke", allow_gateway_transit = true }]

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16"]
peerings = [{ remote = "hub", use_remote_gateways = true }]

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.1.1.0/24"]
  route_table = "forced"

[[route_table]]
name = "forced"
routes = [{ name = "default", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualNetworkGateway" }]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4"]

[gateway]
virtual_network = "hub"

[[service]]
name = "data"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10"]
host_names = ["data.blob.example"]
"#;

const STORAGE: &str = "Microsoft.Storage";

fn catalogue(prefix: &str) -> String {
    format!(
        r#"{{ "changeNumber": 7, "cloud": "Public", "values": [ {{ "name": "Storage", "id": "Storage", "properties":
           {{ "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure", "systemService": "AzureStorage",
              "addressPrefixes": ["{prefix}"], "networkFeatures": ["API", "NSG", "UDR", "FW", "VSE"] }} }} ] }}"#
    )
}

/// A folder with a catalogue and a document, where commands run.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tags.json"), catalogue("20.60.0.0/16")).unwrap();
        fs::write(folder.path().join("n.toml"), DOCUMENT).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
        command.current_dir(self.path()).env_remove("SIDESTEP_LOG").args(arguments);
        command.env("SIDESTEP_CONTROL", self.path().join("node.sock"));
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that succeeds prints.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{errors}");
        out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(arguments)).unwrap()
    }

    /// What a command that fails prints on stderr.
    fn error(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running node; killed if the test ends without ending it.
struct Node {
    process: Child,
    errors: Option<ChildStderr>,
}

impl Node {
    /// Starts a node and waits until it is ready; returns what it printed.
    fn start(place: &Place, arguments: &[&str]) -> (Self, Vec<String>) {
        let mut process = place
            .command(&["run", "-c", "n.toml"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = process.stderr.take();
        let out = process.stdout.take().unwrap();
        let mut node = Self { process, errors };
        let mut lines = Vec::new();
        for line in BufReader::new(out).lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap() == "ready" {
                return (node, lines);
            }
        }
        panic!("the node is not ready: {lines:?} {}", node.errors());
    }

    /// Waits for the end and returns exit code and stderr.
    fn wait(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return (status.code(), self.errors());
            }
            assert!(Instant::now() < deadline, "the node does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn errors(&mut self) -> String {
        let mut errors = String::new();
        self.errors.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}

#[test]
fn signals_end_a_node_cleanly() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let place = Place::new();
        let (node, lines) = Node::start(&place, &[]);
        let socket = place.path().join("node.sock");
        assert_eq!(lines, [format!("control socket {}", socket.display()), "ready".to_owned()]);
        node.signal(signal);
        let (code, errors) = node.wait();
        assert_eq!(code, Some(0), "{errors}");
        let summary = "received 0 packets: forwarded 0, answered 0, dropped 0; made 0; 0 flows\n";
        assert!(errors.ends_with(summary), "{errors}");
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "nothing is left but document and catalogue: {left:?}");
    }
}

#[test]
fn a_node_ends_with_its_stdin_if_asked_to() {
    let place = Place::new();
    let (mut node, _) = Node::start(&place, &["--exit-with-stdin"]);
    drop(node.process.stdin.take());
    assert_eq!(node.wait().0, Some(0));

    let (mut node, _) = Node::start(&place, &[]);
    drop(node.process.stdin.take());
    assert_eq!(place.json(&["status", "--json"])["generation"], 1, "without being asked it stays");
    node.signal(rustix::process::Signal::TERM);
    assert_eq!(node.wait().0, Some(0));
}

#[test]
fn a_second_node_on_the_same_socket_is_refused() {
    let place = Place::new();
    let (_node, _) = Node::start(&place, &[]);
    let socket = place.path().join("node.sock");
    assert_eq!(
        place.error(&["run", "-c", "n.toml"]),
        format!(
            "error: another node runs on {}: stop it, or give this one a socket of its own with --control\n",
            socket.display()
        )
    );
    assert_eq!(place.json(&["status", "--json"])["generation"], 1, "the first is not disturbed");
}

#[test]
fn a_folder_that_flow_logs_cannot_be_written_to_ends_the_start() {
    let place = Place::new();
    fs::write(place.path().join("logs"), "no folder").unwrap();
    let error = place.error(&["run", "-c", "n.toml", "--flow-log", "logs"]);
    for line in [
        "error: --flow-log cannot be used",
        "cannot write the flow log logs/insights-logs-flowlogflowevent",
        "Not a directory",
    ] {
        assert!(error.contains(line), "{error}");
    }
    assert!(!place.path().join("node.sock").exists());
}

#[test]
fn a_document_with_mistakes_does_not_run() {
    let place = Place::new();
    fs::write(place.path().join("n.toml"), DOCUMENT.replace("\"10.1.1.4\"", "\"10.9.1.4\"")).unwrap();
    let checked = place.error(&["check", "-c", "n.toml"]);
    assert_eq!(place.error(&["run", "-c", "n.toml"]), checked, "as `check` says it");
    assert!(!place.path().join("node.sock").exists());
}

#[test]
fn nobody_there_is_said() {
    let place = Place::new();
    let socket = place.path().join("node.sock");
    let expected = format!(
        "error: no node runs on {}: start one with `sidestep run -c FILE`, name its socket with --control, or ask a \
         document with -c FILE\n",
        socket.display()
    );
    for command in [
        &["status"][..],
        &["flows"],
        &["routes", "vm1"],
        &["next-hop", "--from", "vm1", "--to", "20.60.1.10"],
        &["explain", "--from", "vm1", "--to", "20.60.1.10"],
        &["nsg", "vm1"],
        &["verify", "--from", "vm1", "--to", "20.60.1.10", "--direction", "outbound"],
        &["endpoint", "enable", "spoke/workload", STORAGE],
        &["apply", "-c", "n.toml"],
        &["tags", "apply", "tags.json"],
    ] {
        assert_eq!(place.error(command), expected, "{command:?}");
    }
}

#[test]
fn an_endpoint_is_switched_and_the_answers_follow() {
    let place = Place::new();
    let (_node, _) = Node::start(&place, &[]);
    let next_hop = ["next-hop", "--from", "spoke/workload", "--to", "data.blob.example", "--json"];
    assert_eq!(place.json(&next_hop)["nextHopType"], "VirtualNetworkGateway");

    let routes = "spoke/workload\n  + Default Active 20.60.0.0/16 VirtualNetworkServiceEndpoint Microsoft.Storage\n";
    assert_eq!(
        place.text(&["endpoint", "enable", "spoke/workload", "microsoft.storage", "--dry-run"]),
        format!(
            "{routes}nothing done, still generation 1: Microsoft.Storage enabled on spoke/workload, flows that would be \
             reset 0, moved 0, kept 0\n"
        )
    );
    let dry = place.json(&["endpoint", "disable", "spoke/workload", STORAGE, "--dry-run", "--json"]);
    assert_eq!((&dry["dry_run"], &dry["changed"]), (&true.into(), &false.into()));
    assert_eq!(place.json(&next_hop)["nextHopType"], "VirtualNetworkGateway", "nothing was done");
    assert_eq!(
        place.text(&["endpoint", "enable", "spoke/workload", "microsoft.storage"]),
        format!("{routes}Microsoft.Storage enabled on spoke/workload: generation 2, flows reset 0, moved 0, kept 0\n")
    );
    assert_eq!(place.json(&next_hop)["nextHopType"], "VirtualNetworkServiceEndpoint");
    assert_eq!(
        place.text(&["endpoint", "enable", "spoke/workload", STORAGE]),
        "Microsoft.Storage was enabled on spoke/workload already: generation 2\n"
    );
    let routes = place.text(&["routes", "vm1"]);
    assert!(routes.contains("VirtualNetworkServiceEndpoint"), "{routes}");

    assert_eq!(
        place.error(&["endpoint", "enable", "spoke/workload", "Microsoft.Storage.Global"]),
        "error: spoke/workload has an endpoint for Microsoft.Storage, which excludes Microsoft.Storage.Global: disable it \
         first\n"
    );
    assert_eq!(
        place.error(&["endpoint", "enable", "workload", STORAGE]),
        "error: `workload` is no subnet: write NETWORK/SUBNET\n"
    );
    let off = place.json(&["endpoint", "disable", "spoke/workload", STORAGE, "--json"]);
    assert_eq!(
        off,
        serde_json::json!({
            "subnet": "spoke/workload", "service": STORAGE, "enabled": false, "changed": true, "dry_run": false,
            "generation": 3,
            "routes": [{
                "subnet": "spoke/workload", "added": [],
                "removed": ["Default Active 20.60.0.0/16 VirtualNetworkServiceEndpoint Microsoft.Storage"]
            }],
            "flows_complete": true, "flows_reset": 0, "flows_moved": 0, "flows_kept": 0, "flows_cut": []
        })
    );

    let status = place.json(&["status", "--json"]);
    assert_eq!(status["generation"], 3);
    assert_eq!(status["document"], place.path().join("n.toml").to_str().unwrap());
    let changes: Vec<&str> =
        status["changes"].as_array().unwrap().iter().map(|change| change["what"].as_str().unwrap()).collect();
    assert_eq!(changes.len(), 4, "{changes:?}");
    assert!(status["changes"][2]["refused"].is_string());
    assert_eq!(status["counters"]["received"], 0);
    assert_eq!((&status["counters"]["flows"], &status["counters"]["flow_limit"]), (&0.into(), &1_048_576.into()));
    assert_eq!(
        status["flows"],
        serde_json::json!({ "used": 0, "limit": 1_048_576, "limit_per_nic": 500_000, "owners": [] })
    );
    let shown = place.text(&["status"]);
    assert!(shown.starts_with("generation  3\n"), "{shown}");
    assert!(
        shown.contains("\nflows       0 of 1048576 (0 %), 500000 for each NIC; 0 made, 0 reset by changes\n"),
        "{shown}"
    );
    assert_eq!(place.text(&["flows"]), "0 flows\n");
    assert_eq!(place.json(&["flows", "--json", "--limit", "3"]), serde_json::json!({ "total": 0, "flows": [] }));
}

#[test]
fn a_document_and_a_node_give_the_same_answers() {
    let place = Place::new();
    let with_endpoint = DOCUMENT.replace(
        "route_table = \"forced\"",
        "route_table = \"forced\"\n  service_endpoints = [{ service = \"Microsoft.Storage\" }]",
    );
    let with_group = with_endpoint.replace(
        "\n[[nic]]",
        "\n[[network_security_group]]\nname = \"own\"\nsecurity_rules = [{ name = \"no\", priority = 100, direction = \
         \"Outbound\", access = \"Deny\", protocol = \"*\", destination_address_prefix = \"Storage\", \
         destination_port_range = \"80\" }]\n\n[[nic]]\nnetwork_security_group = \"own\"",
    );
    fs::write(place.path().join("n.toml"), with_group).unwrap();
    let (_node, _) = Node::start(&place, &[]);
    for question in [
        &["routes", "spoke/workload"][..],
        &["next-hop", "--from", "vm1", "--to", "data.blob.example"],
        &["next-hop", "--from", "vm1", "--to", "198.51.100.1", "--protocol", "udp"],
        &["explain", "--from", "vm1", "--to", "data.blob.example", "--port", "80"],
        &["explain", "--from", "spoke/workload", "--to", "10.0.0.9", "--protocol", "icmp"],
        &["nsg", "vm1"],
        &["verify", "--from", "vm1", "--to", "data.blob.example", "--direction", "outbound", "--port", "80"],
        &["verify", "--from", "10.0.0.9", "--to", "vm1", "--direction", "inbound", "--local-port", "1"],
    ] {
        for form in [&[][..], &["--json"]] {
            let node = place.text(&[question, form].concat());
            assert_eq!(node, place.text(&[question, form, &["-c", "n.toml"]].concat()), "{question:?}");
        }
    }
    for wrong in [
        &["routes", "spoke/workloda"][..],
        &["next-hop", "--from", "vm9", "--to", "20.60.1.10"],
        &["next-hop", "--from", "vm1", "--to", "20.60.1.10", "--protocol", "tpc"],
        &["explain", "--from", "vm1", "--to", "data.blob.exampel"],
        &["nsg", "vm9"],
        &["verify", "--from", "vm1", "--to", "data.blob.example", "--direction", "upwards"],
    ] {
        let node = place.error(wrong);
        assert_eq!(node, place.error(&[wrong, &["-c", "n.toml"]].concat()), "{wrong:?}");
    }
}

#[test]
fn explain_tells_every_stage_in_text_and_json() {
    let place = Place::new();
    let question =
        ["explain", "-c", "n.toml", "--from", "spoke/workload", "--to", "data.blob.example", "--protocol", "tcp"];
    let shown = place.text(&[&question[..], &["--port", "80"]].concat());
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "tcp 10.1.1.4:49152 -> 20.60.1.10:80 from vm1 (spoke/workload), generation 1");
    let stages: Vec<&str> = lines
        .iter()
        .skip(1)
        .take_while(|line| **line != "routes")
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(stages.starts_with(&["parse", "flow", "origin", "route"]), "{stages:?}");
    assert!(shown.contains("  won   User 0.0.0.0/0 VirtualNetworkGateway (default)\n"), "{shown}");
    assert!(shown.contains("  lost  Default 0.0.0.0/0 Internet: "), "{shown}");
    assert!(lines.last().unwrap().starts_with("verdict: dropped, no_device: "), "{shown}");

    let answer = place.json(&[&question[..], &["--json"]].concat());
    assert_eq!(answer["nic"], "vm1");
    assert_eq!(answer["verdict"]["verdict"], "dropped");
    assert_eq!(answer["verdict"]["reason"], "no_device");
    assert_eq!(answer["next_hop"]["nextHopType"], "VirtualNetworkGateway");
    assert_eq!(answer["stages"][0]["stage"], "parse");
}

#[test]
fn a_document_is_applied_or_refused_whole() {
    let place = Place::new();
    let (_node, _) = Node::start(&place, &[]);
    let next = DOCUMENT.replace(
        "route_table = \"forced\"",
        "route_table = \"forced\"\n  service_endpoints = [{ service = \"Microsoft.Storage\" }]",
    );
    fs::write(place.path().join("next.toml"), &next).unwrap();
    let difference =
        "spoke/workload\n  + Default Active 20.60.0.0/16 VirtualNetworkServiceEndpoint Microsoft.Storage\n";
    assert_eq!(
        place.text(&["apply", "-c", "next.toml", "--dry-run"]),
        format!(
            "{difference}nothing done, still generation 1: routes of 1 subnet change, flows that would be reset 0, moved 0, kept 0\n"
        )
    );
    assert_eq!(
        place.text(&["apply", "-c", "next.toml"]),
        format!("{difference}generation 2: routes of 1 subnet change, flows reset 0, moved 0, kept 0\n")
    );
    assert_eq!(
        place.text(&["apply", "-c", "next.toml"]),
        "generation 3: no routes change, flows reset 0, moved 0, kept 0\n",
        "a document in force can be applied again"
    );

    fs::write(place.path().join("bad.toml"), next.replace("\"10.1.1.4\"", "\"10.9.1.4\"")).unwrap();
    assert_eq!(place.error(&["apply", "-c", "bad.toml"]), place.error(&["check", "-c", "bad.toml"]));
    let output = place.ask(&["apply", "-c", "bad.toml", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), answer["mistakes"].as_array().unwrap().len()), (Some(1), 1));
    assert!(answer["mistakes"][0]["line"].is_u64());
    assert_eq!(place.json(&["status", "--json"])["generation"], 3);
}

#[test]
fn a_catalogue_is_asked_about_and_put_in_force() {
    let place = Place::new();
    let (_node, _) = Node::start(&place, &[]);
    place.text(&["endpoint", "enable", "spoke/workload", STORAGE]);
    fs::write(place.path().join("next.json"), catalogue("20.99.0.0/16")).unwrap();
    let difference = "\
spoke/workload
  - Default Active 20.60.0.0/16 VirtualNetworkServiceEndpoint Microsoft.Storage
  + Default Active 20.99.0.0/16 VirtualNetworkServiceEndpoint Microsoft.Storage
";
    assert_eq!(
        place.text(&["tags", "apply", "next.json", "--dry-run"]),
        format!(
            "{difference}nothing done, still generation 2: routes of 1 subnet change, flows that would be reset 0, moved 0, kept 0\n"
        )
    );
    let dry = place.json(&["tags", "apply", "next.json", "--dry-run", "--json"]);
    assert_eq!((&dry["dry_run"], &dry["generation"]), (&true.into(), &2.into()));
    assert_eq!(
        place.text(&["tags", "apply", "next.json"]),
        format!("{difference}generation 3: routes of 1 subnet change, flows reset 0, moved 0, kept 0\n")
    );
    let status = place.json(&["status", "--json"]);
    assert_eq!(status["catalogue"]["path"], place.path().join("next.json").to_str().unwrap());
    let effect = &status["changes"][2]["effect"];
    assert_eq!((&effect["subnets"], &effect["routes"]), (&1.into(), &dry["routes"]));
    let shown = place.text(&["status"]);
    let last = shown.lines().last().unwrap();
    assert!(last.contains("  apply the catalogue next.json  "), "{last}");
    assert!(last.ends_with("  done: routes of 1 subnet change, flows reset 0, moved 0, kept 0"), "{last}");

    fs::write(place.path().join("bad.json"), "{").unwrap();
    let asked = place.error(&["tags", "apply", "bad.json", "--dry-run"]);
    assert!(asked.starts_with("error: ") && asked.contains("bad.json"), "{asked}");
    assert_eq!(place.error(&["tags", "apply", "bad.json"]), asked);
    fs::write(place.path().join("other.json"), catalogue("20.60.0.0/16").replace("\"Storage\"", "\"Other\"")).unwrap();
    let asked = place.error(&["tags", "apply", "other.json", "--dry-run"]);
    assert!(asked.contains("other.json does not do for the document"), "{asked}");
    assert_eq!(place.json(&["status", "--json"])["generation"], 3);
}

#[test]
fn a_catalogue_that_changes_is_taken_in_or_refused() {
    let place = Place::new();
    let (_node, _) = Node::start(&place, &[]);
    place.text(&["endpoint", "enable", "spoke/workload", STORAGE]);
    let await_status = |what: &str, reached: &dyn Fn(&Value) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = place.json(&["status", "--json"]);
            if reached(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what}: {status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let next_hop = |to: &str| place.json(&["next-hop", "--from", "vm1", "--to", to, "--json"])["nextHopType"].clone();

    fs::write(place.path().join("tags.json"), "{").unwrap();
    let status = await_status("refusal", &|status| status["catalogue"]["refused"].is_string());
    assert_eq!(status["generation"], 2);
    assert_eq!(next_hop("20.60.1.10"), "VirtualNetworkServiceEndpoint", "the one before stays in force");

    let next = place.path().join("next.json");
    fs::write(&next, catalogue("20.99.0.0/16")).unwrap();
    fs::rename(&next, place.path().join("tags.json")).unwrap();
    await_status("reload", &|status| status["generation"] == 3 && status["catalogue"]["refused"].is_null());
    assert_eq!(next_hop("20.60.1.10"), "VirtualNetworkGateway");
    assert_eq!(next_hop("20.99.0.1"), "VirtualNetworkServiceEndpoint");
}
