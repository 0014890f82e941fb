//! The node and its socket over devices and workers that are made up: what they were told can be read, and they can be
//! told to refuse.

mod change;
mod denials;
mod drain;
mod dry_run;
mod flow_log;
mod fullness;
mod monitor;
mod page;
mod question;
mod socket;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::answers::Counters;
use super::dataplane::{Dataplane, Devices, Queues};
use super::document::Document;
use super::node::{Loaded, Node, Overrides};
use super::ports::Attachment;
use super::refusal::Refusal;
use crate::path::denial::Denial;
use crate::path::flow::{FlowState, Phase};
use crate::path::forwarder::FlowSummary;
use crate::path::look::{self, Look};
use crate::path::policy::Named;
use crate::path::record::Records;
use crate::path::redecide::{Fate, Foreseen, Sides, fate};
use crate::snapshot::{NextHopType, PortId, Publisher, Snapshot};
use crate::table::pool_use::PoolCounts;
use crate::worker::{Operation, PortErrors, PortReport, Stopped, Traffic, Wanted, Watching};

/// A network with a forced tunnel and a service, and places to put more.
const DOCUMENT: &str = r#"
location = "westeurope"
tags = "tags.json"

[[virtual_network]]
name = "hub"
address_space = ["10.0.0.0/16"]
peerings = [{ remote = "spoke", allow_gateway_transit = true }]

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16", "fd00:1::/48"]
peerings = [{ remote = "hub", use_remote_gateways = true }]

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
  route_table = "forced"

  [[virtual_network.subnet]]
  name = "empty"
  address_prefixes = ["10.1.2.0/24"]

[[route_table]]
name = "forced"
routes = [{ name = "default", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualNetworkGateway" }]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = { tun = "vm0", netns = "vm1" }

[gateway]
virtual_network = "hub"
learned_routes = ["192.168.0.0/16"]
device = { tun = "gw0", addresses = ["192.168.0.1/24"] }

[internet]
public_addresses = ["203.0.113.200"]
device = { tun = "edge0" }

[[service]]
name = "data"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10"]
host_names = ["data.blob.example"]
device = { tun = "data0" }
"#;

/// A second NIC for the document.
const SECOND_NIC: &str = r#"
[[nic]]
name = "vm2"
subnet = "spoke/workload"
private_addresses = ["10.1.1.5"]
device = { tun = "vm0", netns = "vm2" }
"#;

/// A second service for the document.
const SECOND_SERVICE: &str = r#"
[[service]]
name = "more"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.11"]
"#;

const STORAGE: &str = "Microsoft.Storage";
const WORKLOAD: &str = "spoke/workload";

/// The catalogue: one tag with these prefixes.
fn catalogue(prefixes: &str) -> String {
    format!(
        r#"{{ "changeNumber": 7, "cloud": "Public", "values": [ {{ "name": "Storage", "id": "Storage", "properties":
           {{ "changeNumber": 1, "region": "", "platform": "Azure", "systemService": "AzureStorage",
              "addressPrefixes": [{prefixes}], "networkFeatures": ["API", "NSG", "UDR", "FW", "VSE"] }} }} ] }}"#
    )
}

/// What the made-up devices and workers were told, and what they should do.
#[derive(Default)]
struct Stage {
    /// Names of ports whose devices are open.
    open: Mutex<Vec<String>>,
    /// Numbers of ports that the workers have.
    serving: Mutex<Vec<PortId>>,
    /// Names of ports whose devices were adjusted, with the routes that they have now.
    adjusted: Mutex<Vec<(String, Vec<String>)>>,
    /// A port whose device cannot be opened.
    refuse_open: Mutex<Option<String>>,
    /// A port whose device cannot be adjusted.
    refuse_adjust: Mutex<Option<String>>,
    /// Generations that the workers were waited for.
    waited: Mutex<Vec<u64>>,
    /// How long the workers take to forward by a generation.
    slow: Mutex<Duration>,
    /// The workers' flows.
    flows: Mutex<Vec<FlowSummary>>,
    /// Who was denied what.
    denials: Mutex<Vec<Denial>>,
    /// How many flows each port has, largest first.
    owners: Mutex<Vec<(PortId, u32)>>,
    /// Whether the workers leave questions about flows open.
    silent: Mutex<bool>,
    /// Whether the workers do not forward by a new generation in time.
    late: Mutex<bool>,
    /// Whether no flow may begin.
    draining: Mutex<bool>,
    /// The queue for records that the workers were given last, or that they were to make none any more.
    logged: Mutex<Vec<Option<Arc<Records>>>>,
    /// What the workers have forwarded.
    forwarded_bytes: Mutex<u64>,
    /// Records of flows, as long as somebody wants them.
    records: Mutex<Option<Arc<Records>>>,
}

struct FakeDevices(Arc<Stage>);

impl Devices for FakeDevices {
    fn open(&self, attachment: &Attachment) -> Result<Queues, Refusal> {
        if self.0.refuse_open.lock().unwrap().as_deref() == Some(&attachment.name) {
            return Err(Refusal::Failed(format!("port `{}`: no device today", attachment.name)));
        }
        self.0.open.lock().unwrap().push(attachment.name.clone());
        Ok(Vec::new())
    }

    fn keep(&self, _: &mut Queues) -> io::Result<()> {
        Ok(())
    }

    fn adjust(&self, before: &Attachment, after: &Attachment) -> Result<(), Refusal> {
        assert!(before.same_device(after));
        if self.0.refuse_adjust.lock().unwrap().as_deref() == Some(&after.name) {
            return Err(Refusal::Failed(format!("port `{}`: not adjusted", after.name)));
        }
        let routes = after.routes.iter().map(ToString::to_string).collect();
        self.0.adjusted.lock().unwrap().push((after.name.clone(), routes));
        Ok(())
    }
}

struct FakeWorkers {
    stage: Arc<Stage>,
    started: Instant,
    publisher: Arc<Publisher>,
}

impl Dataplane for FakeWorkers {
    fn wait_for_generation(&self, generation: u64, _: Duration) -> bool {
        assert_eq!(self.publisher.generation(), generation, "a change waits for what it published");
        std::thread::sleep(*self.stage.slow.lock().unwrap());
        self.stage.waited.lock().unwrap().push(generation);
        !*self.stage.late.lock().unwrap()
    }

    fn take_denials(&self, most: usize) -> (Vec<Denial>, u64) {
        let mut denials = self.stage.denials.lock().unwrap();
        let taken = denials.len().min(most);
        (denials.drain(..taken).collect(), 0)
    }

    fn log(&self, wanted: bool) -> Vec<Arc<Records>> {
        let mut records = self.stage.records.lock().unwrap();
        *records = wanted.then(Default::default);
        self.stage.logged.lock().unwrap().push(records.clone());
        records.iter().cloned().collect()
    }

    fn milliseconds(&self) -> u64 {
        0
    }

    fn flows(&self, limit: usize) -> Vec<FlowSummary> {
        self.stage.flows.lock().unwrap().iter().take(limit).copied().collect()
    }

    fn foresee(&self, snapshot: Arc<Snapshot>, _: Duration) -> Option<Foreseen> {
        if *self.stage.silent.lock().unwrap() {
            return None;
        }
        let mut foreseen = Foreseen::default();
        for flow in self.stage.flows.lock().unwrap().iter() {
            match fate(&snapshot, &flow.sides, &flow.state, Named::NotYet) {
                Fate::Kept { .. } => foreseen.kept += 1,
                Fate::Reset => foreseen.reset += 1,
                Fate::Ended | Fate::Moved => foreseen.moved += 1,
            }
            if !matches!(fate(&snapshot, &flow.sides, &flow.state, Named::NotYet), Fate::Kept { .. }) {
                foreseen.cut.push(*flow);
            }
        }
        Some(foreseen)
    }

    fn look(&self, mut looks: Vec<Look>, wanted: &look::Wanted) -> Vec<Look> {
        let mut look = looks.pop().unwrap_or_default();
        look.begin(wanted.clone());
        look.look_at(&self.stage.flows.lock().unwrap(), self.started.elapsed().as_millis() as u64 + 1);
        vec![look]
    }

    fn last_change(&self) -> Option<Foreseen> {
        // Its flows are as before a change, whatever was changed.
        self.foresee(self.publisher.current(), Duration::ZERO)
    }

    fn flow_owners(&self, count: usize) -> (u32, Vec<(PortId, u32)>) {
        let mut owners = self.stage.owners.lock().unwrap().clone();
        let used = owners.iter().map(|(_, flows)| flows).sum();
        owners.truncate(count);
        (used, owners)
    }

    fn set_draining(&self, draining: bool) {
        *self.stage.draining.lock().unwrap() = draining;
    }

    fn is_draining(&self) -> bool {
        *self.stage.draining.lock().unwrap()
    }

    fn counters(&self) -> Counters {
        Counters {
            flows: self.stage.flows.lock().unwrap().len() as u64,
            forwarded_bytes: *self.stage.forwarded_bytes.lock().unwrap(),
            ports: [("0".to_owned(), BTreeMap::from([("received".to_owned(), 5)]))].into(),
            ..Counters::default()
        }
    }

    fn workers(&self) -> (Vec<Counters>, Vec<PortReport>) {
        let serving = self.stage.serving.lock().unwrap();
        let report = |port: &PortId| PortReport {
            port: port.0,
            worker: 0,
            device: "memory".to_owned(),
            traffic: Traffic { received: 5, sent_bytes: 7, ..Traffic::default() },
            counters: BTreeMap::new(),
        };
        (vec![self.counters()], serving.iter().map(report).collect())
    }

    fn pool_counts(&self, pools: usize) -> Vec<PoolCounts> {
        vec![PoolCounts { flows: [0, 4, 0, 0, 0, 0, 0, 0], ..PoolCounts::default() }; pools]
    }

    fn port_errors(&self) -> Vec<PortErrors> {
        vec![PortErrors { port: PortId(0), worker: 0, operation: Operation::Write, errno: "EIO", count: 3 }]
    }

    fn watch(&self, _: Wanted, _: usize) -> Option<Watching> {
        None
    }

    fn add_ports(&self, ports: Vec<(PortId, Queues)>) {
        self.stage.serving.lock().unwrap().extend(ports.iter().map(|(port, _)| *port));
    }

    fn remove_ports(&self, ports: &[PortId]) {
        self.stage.serving.lock().unwrap().retain(|port| !ports.contains(port));
    }

    fn stop(&self) -> Stopped {
        self.stage.serving.lock().unwrap().clear();
        Stopped::empty()
    }
}

/// A node over the stage, with its document and catalogue in a folder of its own.
struct Setup {
    folder: TempDir,
    stage: Arc<Stage>,
    node: Arc<Node>,
}

impl Setup {
    fn new() -> Self {
        Self::with(DOCUMENT).unwrap()
    }

    fn with(document: &str) -> Result<Self, Refusal> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("network.toml"), document).unwrap();
        fs::write(folder.path().join("tags.json"), catalogue(r#""20.60.0.0/16", "2603:1020::/40""#)).unwrap();
        let stage = Arc::new(Stage::default());
        let node = Self::start(&folder, &stage)?;
        Ok(Self { folder, stage, node: Arc::new(node) })
    }

    fn start(folder: &TempDir, stage: &Arc<Stage>) -> Result<Node, Refusal> {
        let document = Document::read(&folder.path().join("network.toml"))?;
        let loaded = Loaded::load(document, Overrides::default())?;
        loaded.start(Box::new(FakeDevices(stage.clone())), |publisher, ports| -> io::Result<_> {
            stage.serving.lock().unwrap().extend(ports.iter().map(|(port, _)| *port));
            Ok(FakeWorkers { stage: stage.clone(), started: Instant::now(), publisher })
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn generation(&self) -> u64 {
        self.node.health().generation
    }

    fn next_hop_type(&self) -> String {
        self.node.next_hop(WORKLOAD, "20.60.1.10", None).unwrap().next_hop_type
    }

    /// Everything that a refusal has to leave as it is.
    fn in_force(&self) -> (u64, String, Vec<String>, usize) {
        let ports = self.node.ports().into_iter().map(|port| port.name).collect();
        (self.generation(), self.next_hop_type(), ports, self.stage.serving.lock().unwrap().len())
    }

    fn last_change(&self) -> super::answers::Change {
        self.node.status().changes.last().cloned().unwrap()
    }
}

/// A TCP flow of vm1 (port 0) to a service.
fn flow(destination: [u8; 4]) -> FlowSummary {
    let source = (IpAddr::V4(Ipv4Addr::new(10, 1, 1, 4)), 40_000);
    let destination = (IpAddr::V4(destination.into()), 443);
    let sides = Sides {
        protocol: 6,
        ingress: PortId(0),
        source,
        destination,
        egress: PortId(1),
        presented: source,
        reached: destination,
    };
    let mut state = FlowState::at(Phase::Established, NextHopType::VirtualNetworkGateway, 1);
    state.packets = [3, 2];
    state.bytes = [300, 200];
    FlowSummary { sides, state }
}
