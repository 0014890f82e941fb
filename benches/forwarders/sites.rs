//! The forwarders that are compared, each between the hosts `left` and `right` of its own lab.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sidestep::control::answers::Counters;
use sidestep::control::client::Client;
use sidestep::port::namespace;
use tempfile::TempDir;

use crate::support::{Lab, Process, run};

/// A forwarder between the hosts `left` and `right`.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    // Before the lab, so that it ends before its devices go.
    process: Option<Process>,
    pub(crate) lab: Lab,
    /// The address of `right`.
    pub(crate) to: &'static str,
    folder: Option<TempDir>,
    /// What a `sidestep` printed before it was ready.
    said: Vec<String>,
}

impl Site {
    /// What another program forwards.
    pub(crate) fn of_others(name: &'static str, lab: Lab, to: &'static str, process: Process) -> Self {
        Self { name, lab, to, process: Some(process), folder: None, said: Vec::new() }
    }

    /// The process that forwards; none where the kernel does.
    pub(crate) fn process(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.0.id())
    }

    /// Packets that `left` has sent and the forwarder has taken. What arrives at `right` does not tell: packets may have been
    /// put together.
    pub(crate) fn taken(&self) -> u64 {
        let read = || fs::read_to_string("/proc/thread-self/net/dev");
        let text = namespace::run(Some(&self.lab.name("left")), read).expect("a namespace").expect("devices");
        let device = text.lines().find_map(|line| line.trim_start().strip_prefix("eth0:")).expect("a device");
        // Eight figures of what the host receives stand before those of what it sends: bytes, packets.
        device.split_whitespace().nth(9).and_then(|packets| packets.parse().ok()).expect("a number")
    }

    /// The rest of the line that it printed with this word in front.
    pub(crate) fn said(&self, word: &str) -> &str {
        let rest = self.said.iter().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        rest.unwrap_or_else(|| panic!("{} did not say {word}: {:?}", self.name, self.said))
    }

    /// A file of a node's own folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.as_ref().expect("a node").path().join(name)
    }

    /// Who asks a node.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.file(SOCKET))
    }

    /// What a node has counted; none for other forwarders.
    pub(crate) fn counters(&self) -> Option<Counters> {
        self.folder.as_ref().map(|_| self.client().get("/v1/counters").expect("counters"))
    }
}

/// The control socket in a node's folder.
const SOCKET: &str = "node.sock";

/// The document in a node's folder.
pub(crate) const DOCUMENT: &str = "n.toml";

/// The `sidestep` that is measured.
const SIDESTEP: &str = env!("CARGO_BIN_EXE_sidestep");

/// Starts a `sidestep` and gives what it printed until it said `ready`.
fn start(program: &Path, arguments: &[&str]) -> (Process, Vec<String>) {
    let mut command = Command::new(program);
    let mut process = Process(command.args(arguments).stdout(Stdio::piped()).spawn().expect("start sidestep"));
    let mut out = BufReader::new(process.0.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let said: Vec<String> = out.by_ref().take_while(|line| line != "ready").collect();
    assert!(matches!(process.0.try_wait(), Ok(None)), "sidestep {arguments:?} ends");
    (process, said)
}

/// The kernel's router between two veth pairs, with the connection tracking and the masquerade that a NAT needs.
pub(crate) fn kernel() -> Site {
    let lab = Lab::new(&["left", "right", "router"]);
    let router = lab.name("router");
    for (host, number) in [("left", "1"), ("right", "2")] {
        let (host, inside) = (lab.name(host), format!("veth{number}"));
        run("ip", &["-n", &router, "link", "add", &inside, "type", "veth", "peer", "name", "eth0", "netns", &host]);
        run("ip", &["-n", &router, "address", "add", &format!("10.9.{number}.254/24"), "dev", &inside]);
        run("ip", &["-n", &router, "link", "set", &inside, "up"]);
        run("ip", &["-n", &host, "address", "add", &format!("10.9.{number}.1/24"), "dev", "eth0"]);
        run("ip", &["-n", &host, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &host, "route", "add", "default", "via", &format!("10.9.{number}.254")]);
    }
    let rules = "table ip nat { chain post { type nat hook postrouting priority 100; oifname veth2 masquerade; }; }";
    lab.exec("router", &["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
    lab.exec("router", &["nft", rules]);
    Site { name: "kernel", lab, to: "10.9.2.1", process: None, folder: None, said: Vec::new() }
}

/// The loop that only reads and writes.
pub(crate) fn null(name: &'static str, io: &str) -> Site {
    let lab = Lab::new(&["left", "right"]);
    let ends = [("left", "10.9.1.1/24"), ("right", "10.9.2.1/24")];
    let [left, right] = ends.map(|(host, address)| format!("{}/eth0={address}", lab.name(host)));
    let (process, said) = start(Path::new(SIDESTEP), &["bench", "null", "--io", io, &left, &right]);
    Site { name, lab, to: "10.9.2.1", process: Some(process), folder: None, said }
}

/// What distinguishes one node from another.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Which `sidestep`.
    pub(crate) program: PathBuf,
    /// More arguments of `sidestep run`; `FOLDER` in them is the node's own.
    pub(crate) arguments: Vec<String>,
    /// `source` of the endpoint.
    pub(crate) source: &'static str,
    /// More settings of the document.
    pub(crate) settings: String,
    /// More subnets of the network.
    pub(crate) subnets: String,
    /// More tables behind the rest.
    pub(crate) tables: String,
    /// The service tags.
    pub(crate) catalogue: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            program: SIDESTEP.into(),
            arguments: Vec::new(),
            source: PRIVATE,
            settings: String::new(),
            subnets: String::new(),
            tables: String::new(),
            catalogue: Path::new(env!("CARGO_MANIFEST_DIR")).join("config/service-tags.json"),
        }
    }
}

impl Node {
    /// The document: a VM behind a network security group reaches a service over its endpoint.
    pub(crate) fn document(&self, lab: &Lab) -> String {
        let Self { source, settings, subnets, tables, catalogue, .. } = self;
        let [left, right] = ["left", "right"].map(|host| lab.name(host));
        format!(
            r#"
location = "westeurope"
tags = {catalogue:?}
{settings}

[[virtual_network]]
name = "n"
address_space = ["10.1.0.0/16"]

  [[virtual_network.subnet]]
  name = "s"
  address_prefixes = ["10.1.1.0/24"]
  network_security_group = "g"
  service_endpoints = [{{ service = "Microsoft.Storage", source = {source} }}]
{subnets}

[[network_security_group]]
name = "g"

  [[network_security_group.security_rules]]
  name = "storage"
  priority = 100
  direction = "Outbound"
  access = "Allow"
  protocol = "*"
  source_address_prefix = "VirtualNetwork"
  source_port_range = "*"
  destination_address_prefix = "Storage"
  destination_port_range = "*"

[[snat_pool]]
name = "pool"
addresses = ["100.64.9.1"]

[[nic]]
name = "vm1"
subnet = "n/s"
private_addresses = ["10.1.1.4"]
device = {{ tun = "eth0", netns = "{left}" }}

[[service]]
name = "data"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["{SERVICE}"]
device = {{ tun = "eth0", netns = "{right}" }}
{tables}
"#
        )
    }

    /// Starts it.
    pub(crate) fn start(&self, name: &'static str) -> Site {
        let lab = Lab::new(&["left", "right"]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = |file: &str| folder.path().join(file).display().to_string();
        fs::write(path(DOCUMENT), self.document(&lab)).expect("write");
        let more: Vec<String> = self.arguments.iter().map(|text| text.replace("FOLDER", &path(""))).collect();
        let (document, socket) = (path(DOCUMENT), path(SOCKET));
        let mut arguments = vec!["run", "-c", &document, "--control", &socket];
        arguments.extend(more.iter().map(String::as_str));
        let (process, said) = start(&self.program, &arguments);
        Site { name, lab, to: SERVICE, process: Some(process), folder: Some(folder), said }
    }
}

/// The address of the service that a node's VM reaches.
pub(crate) const SERVICE: &str = "20.60.1.10";

/// `source` of an endpoint that leaves the address as it is.
pub(crate) const PRIVATE: &str = r#""private""#;

/// `source` of an endpoint that translates to a pool.
pub(crate) const SNAT: &str = r#"{ snat = "pool" }"#;

/// Settings of a node that looks for packets a while before it sleeps.
pub(crate) const ADAPTIVE: &str = r#"poll = "adaptive""#;
