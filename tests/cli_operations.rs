//! `sidestep drain`, `sidestep support-bundle` and what a service manager is told, as users see them. The documents have no
//! devices, so that no privileges are needed.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const DOCUMENT: &str = r#"location = "westeurope"
tags = "tags.json"

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16", "fd00:1::/48"]

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
  route_table = "forced"

[[route_table]]
name = "forced"
routes = [{ name = "site", address_prefix = "198.51.100.0/24", next_hop_type = "None" }]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]

[[service]]
name = "data"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10"]
host_names = ["data.blob.example"]
"#;

/// Addresses of the document, of what is done to the node, and of its warnings.
const ADDRESSES: &[&str] = &[
    "10.1.0.0",
    "10.1.1.0",
    "10.1.1.4",
    "fd00:1::",
    "fd00:1:0:1::",
    "198.51.100.",
    "20.60.1.10",
    "20.60.0.0",
    "203.0.113.",
    "10.77.1.2",
    "10.9.9.9",
    "fd00:9::9",
];

/// Names that tell whose it is.
const NAMES: &[&str] = &["data.blob.example", "login.contoso.example", "alice-smith"];

/// A page of a catalogue that warns of the next, which it names by address and host.
fn catalogue(next: &str) -> String {
    format!(
        r#"{{ "changeNumber": 7, "cloud": "Public", "nextLink": "{next}", "values": [ {{ "name": "Storage", "id": "Storage",
           "properties": {{ "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure",
              "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16"],
              "networkFeatures": ["API", "NSG", "UDR", "FW", "VSE"] }} }} ] }}"#
    )
}

/// A folder with a catalogue and a document, where commands run. Its name has that of a user.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("alice-smith").tempdir().unwrap();
        let next = "https://login.contoso.example/tags?at=10.77.1.2";
        fs::write(folder.path().join("tags.json"), catalogue(next)).unwrap();
        fs::write(folder.path().join("n.toml"), DOCUMENT).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
        command.current_dir(self.path()).env_remove("SIDESTEP_LOG").env_remove("NOTIFY_SOCKET").args(arguments);
        command.env("SIDESTEP_CONTROL", self.path().join("node.sock"));
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that succeeds prints.
    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{errors}");
        out
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(arguments)).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running node; killed when the test ends.
struct Node(Child);

impl Node {
    /// Starts a node and waits until it is ready; gives what it printed.
    fn start(mut command: Command) -> (Self, Vec<String>) {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let out = process.stdout.take().unwrap();
        let node = Self(process);
        let mut lines = Vec::new();
        for line in BufReader::new(out).lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap() == "ready" {
                return (node, lines);
            }
        }
        panic!("the node is not ready: {lines:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// The node of most tests.
fn start(place: &Place) -> Node {
    Node::start(place.command(&["run", "-c", "n.toml"])).0
}

/// All addresses in a text, found by trying every piece of it: slow and obvious.
fn addresses(text: &str) -> BTreeSet<IpAddr> {
    let pieces = text.split(|c: char| !c.is_ascii_hexdigit() && c != '.' && c != ':');
    let trimmed = pieces.map(|piece| piece.trim_end_matches(['.', ':']));
    trimmed.filter(|piece| piece.len() > 4).filter_map(|piece| piece.parse().ok()).collect()
}

#[test]
fn a_bundle_has_no_address_and_no_name_unless_asked_to() {
    let place = Place::new();
    let _node = start(&place);
    // What is refused is remembered with its reason, which names addresses.
    let wrong = DOCUMENT.replace("[\"10.1.1.4\", \"fd00:1:0:1::4\"]", "[\"10.9.9.9\", \"fd00:9::9\"]");
    fs::write(place.path().join("wrong.toml"), wrong).unwrap();
    assert_eq!(place.ask(&["apply", "-c", "wrong.toml"]).status.code(), Some(1));
    place.text(&["endpoint", "enable", "spoke/workload", "Microsoft.Storage"]);

    let output = place.ask(&["support-bundle"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = "sidestep-support.json: without addresses and names; look at it before you attach it to a report\n";
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), said.to_owned()));
    let file = place.path().join("sidestep-support.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let hidden = fs::read_to_string(&file).unwrap();
    let whole = place.text(&["support-bundle", "--addresses", "-o", "-"]);
    for secret in ADDRESSES.iter().chain(NAMES) {
        assert!(!hidden.contains(secret), "{secret} is told: {hidden}");
    }
    assert_eq!(addresses(&hidden), BTreeSet::new());
    for told in ["10.9.9.9", "fd00:9::9", "10.77.1.2", "login.contoso.example", "alice-smith"] {
        assert!(whole.contains(told), "{told} is missing: {whole}");
    }

    let value: Value = serde_json::from_str(&hidden).unwrap();
    let node = &value["node"];
    assert_eq!((&value["format"], &value["addresses"]), (&Value::from(1), &Value::Bool(false)));
    assert_eq!(value["version"], node["status"]["version"]);
    assert_eq!((&node["generation"], &node["poll"]), (&Value::from(2), &Value::from("sleep")));
    let hash = Command::new("sha256sum").arg(place.path().join("n.toml")).output().unwrap();
    assert!(text(&hash.stdout).starts_with(node["document_sha256"].as_str().unwrap()));
    assert_eq!(node["status"]["switched_endpoints"]["spoke/workload Microsoft.Storage"], true);
    assert!(node["status"]["document"].as_str().unwrap().ends_with("/n.toml"), "names of files stay");
    let changes = node["status"]["changes"].as_array().unwrap();
    assert!(changes.iter().any(|change| change["refused"].as_str().is_some_and(|why| why.contains("ipv4-"))), "{node}");
    let log = node["log"].as_array().unwrap();
    assert!(log.iter().any(|line| line["text"].as_str().unwrap().contains("host-")), "{log:?}");
    let metrics = node["metrics"].as_array().unwrap();
    assert!(metrics.contains(&Value::from("sidestep_snapshot_generation 2.0")), "{metrics:?}");
    assert!(node["counters"]["received"].is_u64());
}

#[test]
fn without_a_node_the_bundle_says_so() {
    let place = Place::new();
    let output = place.ask(&["support-bundle", "-o", "-"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.starts_with("no node runs on "), "{said}");
    assert!(said.ends_with("the bundle has what can be told without a node\n"), "{said}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["no_node"].as_str().unwrap().starts_with("no node runs on "), "{value}");
    assert!(value["node"].is_null() && value["system"]["kernel"].is_string(), "{value}");
    assert!(!text(&output.stdout).contains("alice-smith"), "{value}");
}

/// Also over a file that everybody could read, with a bundle of before.
#[test]
fn a_bundle_is_only_for_who_makes_it() {
    let place = Place::new();
    let file = place.path().join("bundle.json");
    fs::write(&file, "{}").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    place.text(&["support-bundle", "-o", "bundle.json"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

/// A node that hangs accepts connections, as the kernel does for it, and says nothing.
#[test]
fn what_follows_a_node_that_hangs_can_be_ended() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path().join("node.sock")).unwrap();
    for (command, signal) in [
        (&["trace"][..], Signal::INT),
        (&["capture", "-w", "none.pcapng"], Signal::TERM),
        (&["flow-log", "--follow"], Signal::INT),
    ] {
        let mut child = place.command(command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let _connection = listener.accept().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "{command:?} does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(!place.path().join("none.pcapng").exists());
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let place = Place::new();
    let output = place.ask(&["support-bundle", "-o", "nowhere/bundle.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write nowhere/bundle.json"), "{}", text(&output.stderr));
}

#[test]
fn a_drain_shows_in_answers_status_and_readiness() {
    let place = Place::new();
    let (_node, lines) = Node::start(place.command(&["run", "-c", "n.toml", "--metrics", "127.0.0.1:0"]));
    let address = lines.iter().find_map(|line| line.strip_prefix("metrics http://")?.strip_suffix("/metrics")).unwrap();
    let ready = || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ready().starts_with("HTTP/1.1 200 "));
    assert_eq!(place.text(&["drain"]), "draining: no new flows, 0 flows left\n");
    assert_eq!(place.text(&["drain"]), "draining already: no new flows, 0 flows left\n");
    let answer = ready();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("draining, no new flows are taken\n"), "{answer}");
    assert!(place.text(&["status"]).contains("\ndraining    no new flows are taken"));
    let explain = ["explain", "--from", "vm1", "--to", "20.60.1.10", "--protocol", "tcp", "--port", "443"];
    assert!(
        place.text(&explain).ends_with("it drops what begins a flow, this packet, too\n"),
        "{}",
        place.text(&explain)
    );
    assert_eq!(place.json(&["drain", "--end", "--json"])["changed"], true);
    assert!(!place.text(&explain).contains("drains"));
    assert!(ready().starts_with("HTTP/1.1 200 "));
    assert!(!place.text(&["status"]).contains("\ndraining "));
}

#[test]
fn a_service_manager_is_told_when_packets_are_forwarded_and_when_it_ends() {
    let place = Place::new();
    let path = place.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let heard = || {
        let mut bytes = [0; 100];
        let length = socket.recv(&mut bytes).expect("the service manager is told");
        text(&bytes[..length])
    };
    let mut command = place.command(&["run", "-c", "n.toml"]);
    command.env("NOTIFY_SOCKET", &path);
    let (node, _) = Node::start(command);
    assert_eq!(heard(), "READY=1");
    assert!(place.ask(&["status"]).status.success(), "the socket answers by then");
    let pid = rustix::process::Pid::from_child(&node.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(heard(), "STOPPING=1");
}
