//! The real thing under test: a node without devices, of one worker or several, whose packets are handed over by hand.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use sidestep::model::network::{EndpointSource, Network, ServiceEndpoint};
use sidestep::packet::checksum;
use sidestep::packet::frame::{Checksum, Frame};
use sidestep::packet::parse::{Fragment, parse};
use sidestep::path::counters::Counters;
use sidestep::path::forwarder::{FlowSummary, Settings};
use sidestep::path::record::{Event, Lost, Record, Records};
use sidestep::path::redecide::Foreseen;
use sidestep::path::shared::Shared;
use sidestep::path::{Egress, Forwarder, SendFailure, Verdict};
use sidestep::plan::Plan;
use sidestep::snapshot::{PortId, Snapshot};
use sidestep::tags::Catalogue;
use sidestep::telemetry::counters::Report;

/// A virtual network with three NICs, a NAT gateway, a SNAT pool of few ports, a hub with an appliance and the gateway, and
/// a network with the addresses of the first.
pub(crate) const NETWORK: &str = r#"
location = "westeurope"

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16", "fd00:1::/48"]
peerings = [{ remote = "hub", allow_forwarded_traffic = true, use_remote_gateways = true }]

  [[virtual_network.subnet]]
  name = "open"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]

  [[virtual_network.subnet]]
  name = "routed"
  address_prefixes = ["10.1.2.0/24", "fd00:1:0:2::/64"]
  route_table = "routes"

[[virtual_network]]
name = "hub"
address_space = ["10.0.0.0/16", "fd00:0:1::/48"]
peerings = [{ remote = "spoke", allow_gateway_transit = true, allow_forwarded_traffic = true }]

  [[virtual_network.subnet]]
  name = "GatewaySubnet"
  address_prefixes = ["10.0.0.0/24", "fd00:0:1:1::/64"]

  [[virtual_network.subnet]]
  name = "appliances"
  address_prefixes = ["10.0.100.0/24", "fd00:0:1:100::/64"]

[[virtual_network]]
name = "twin"
address_space = ["10.1.0.0/16", "fd00:1::/48"]

  [[virtual_network.subnet]]
  name = "open"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]

[[route_table]]
name = "routes"
routes = [
  { name = "tunnel", address_prefix = "198.51.100.0/24", next_hop_type = "VirtualNetworkGateway" },
  { name = "storage", address_prefix = "20.60.0.0/16", next_hop_type = "VirtualNetworkGateway" },
]

[[nat_gateway]]
name = "nat"
public_addresses = ["203.0.113.50", "203.0.113.51"]

[[snat_pool]]
name = "few"
addresses = ["100.64.1.1", "100.64.1.2"]
ports = "5000-5000"

[[nic]]
name = "vm1"
subnet = "spoke/open"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = { tun = "t-vm1" }

[[nic]]
name = "vm2"
subnet = "spoke/routed"
private_addresses = ["10.1.2.4", "fd00:1:0:2::4"]
device = { tun = "t-vm2", mtu = 1400 }

[[nic]]
name = "vm3"
subnet = "spoke/open"
private_addresses = ["10.1.1.5", "fd00:1:0:1::5"]
public_addresses = ["203.0.113.70"]
device = { tun = "t-vm3" }

[[nic]]
name = "twin"
subnet = "twin/open"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = { tun = "t-twin" }

[[nic]]
name = "appliance"
subnet = "hub/appliances"
private_addresses = ["10.0.100.4", "fd00:0:1:100::4"]
ip_forwarding = true
device = { tun = "t-nva" }

[gateway]
virtual_network = "hub"
learned_routes = ["192.168.0.0/16", "fd00:c0a8::/32"]
device = { tun = "t-gw" }

[internet]
public_addresses = ["203.0.113.200", "2001:db8:ffff::200"]
device = { tun = "t-edge" }

[[service]]
name = "contosodata"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10", "2603:1020:206:100::10"]
device = { tun = "t-store" }
"#;

/// The document above, validated, with an endpoint that shows the twin's own addresses.
pub(crate) fn network() -> Network {
    let mut network = sidestep::model::parse(NETWORK, Path::new("flows.toml"), None)
        .unwrap_or_else(|mistakes| panic!("the document is wrong:\n{mistakes}"));
    let source = EndpointSource::Private;
    network.virtual_networks[2].subnets[0].service_endpoints =
        vec![ServiceEndpoint { service: "Microsoft.Storage".to_owned(), locations: vec![], source }];
    network
}

/// Its snapshot, after a previous one.
pub(crate) fn compile(network: &Network, catalogue: &Arc<Catalogue>, previous: Option<&Snapshot>) -> Arc<Snapshot> {
    let generation = previous.map_or(1, |previous| previous.generation + 1);
    Arc::new(Plan::new(Arc::new(network.clone()), catalogue.clone()).compile(generation, previous).unwrap())
}

pub(crate) fn catalogue() -> Arc<Catalogue> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/service-tags.json");
    Arc::new(Catalogue::load(&path).unwrap())
}

/// What leaves, with its port. Nothing leaves that has a wrong checksum.
#[derive(Default)]
pub(crate) struct Sent(pub(crate) Vec<(PortId, Frame)>);

impl Egress for Sent {
    fn send(&mut self, _now: u64, port: PortId, frame: &mut Frame) -> Result<(), SendFailure> {
        verify(frame);
        let mut copy = Frame::new();
        copy.copy_from(frame);
        self.0.push((port, copy));
        Ok(())
    }
}

/// Every checksum of a packet is right, or in the partial state that its sender left it in.
#[track_caller]
pub(crate) fn verify(frame: &Frame) {
    let bytes = frame.bytes();
    let parsed = parse(bytes).unwrap_or_else(|error| panic!("{error} in what is sent: {bytes:02x?}"));
    assert_eq!(parsed.total as usize, bytes.len(), "nothing behind the packet: {bytes:02x?}");
    // The parser has verified the IPv4 header. The checksum of a packet in fragments is over all of them.
    if parsed.fragment != Fragment::None {
        return;
    }
    let transport = &bytes[usize::from(parsed.transport)..];
    let mut pseudo = Vec::new();
    for address in [parsed.source(), parsed.destination()] {
        match address {
            IpAddr::V4(v4) => pseudo.extend(v4.octets()),
            IpAddr::V6(v6) => pseudo.extend(v6.octets()),
        }
    }
    pseudo.extend((transport.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, parsed.protocol]);
    let place = match parsed.protocol {
        6 => 16,
        17 if parsed.is_v4() && transport[6..8] == [0, 0] => return,
        17 => 6,
        1 => {
            pseudo.clear();
            2
        }
        58 => 2,
        _ => return,
    };
    if let Checksum::Partial { start, offset } = frame.offload.checksum {
        assert_eq!((start, offset), (parsed.transport, place), "where the checksum is");
        let field = u16::from_be_bytes([transport[usize::from(place)], transport[usize::from(place) + 1]]);
        assert_eq!(ones(&[&pseudo]), field, "the sum of the pseudo-header: {bytes:02x?}");
    } else {
        assert_eq!(ones(&[&pseudo, transport]), 0xffff, "transport checksum: {bytes:02x?}");
    }
    assert_ne!(checksum::verify(bytes, &parsed), Some(false).filter(|_| frame.offload.checksum == Checksum::Complete));
}

/// The one's-complement sum of byte strings of which all but the last have an even length.
fn ones(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What became of one packet, and of fragments that it let go.
pub(crate) struct Ended {
    pub(crate) verdict: Verdict,
    pub(crate) sent: Vec<(PortId, Frame)>,
}

/// The node.
pub(crate) struct Node {
    workers: Vec<Forwarder>,
    counters: Vec<Arc<Counters>>,
    pub(crate) shared: Arc<Shared>,
    sent: Sent,
    records: Vec<Arc<Records>>,
    told: Told,
}

/// What records have told: packets and bytes that flows passed, and packets that ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    packets: u64,
    bytes: u64,
    ended: u64,
}

impl Told {
    fn add(&mut self, record: &Record) {
        let packets: u64 = record.packets.iter().sum();
        match record.event {
            Event::Answered(_) | Event::Dropped(_) => self.ended += packets,
            Event::Unsent(_) => panic!("nothing is held back here: {record:?}"),
            _ => {
                self.packets += packets;
                self.bytes += record.bytes.iter().sum::<u64>();
            }
        }
    }
}

impl Node {
    pub(crate) fn new(snapshot: &Arc<Snapshot>, workers: u16, seed: u64) -> Self {
        let shared = Arc::new(Shared::new(workers));
        let counters: Vec<Arc<Counters>> = (0..workers).map(|_| Arc::default()).collect();
        let forwarder = |worker: u16| {
            let settings = Settings { flow_limit: 1_000, seed, worker, shared: shared.clone() };
            Forwarder::new(snapshot.clone(), counters[usize::from(worker)].clone(), settings)
        };
        let mut workers: Vec<Forwarder> = (0..workers).map(forwarder).collect();
        let log = |worker: &mut Forwarder| {
            let records = Arc::new(Records::default());
            let _nothing = worker.log_to(Some(records.clone()), 0);
            records
        };
        let records = workers.iter_mut().map(log).collect();
        Self { workers, counters, shared, sent: Sent::default(), records, told: Told::default() }
    }

    /// What records have told and what is left to tell is what was counted, to the packet and byte.
    pub(crate) fn check_records(&mut self, now: u64) {
        let told = &mut self.told;
        for (worker, records) in self.workers.iter_mut().zip(&self.records) {
            assert_eq!(records.lost(), Lost::default(), "there is room");
            while let Some(record) = records.take() {
                told.add(&record);
            }
            worker.log_rest(true, now, |record| told.add(&record));
        }
        let report = self.report();
        let ended = report.answered.values().chain(report.dropped.values()).sum();
        let counted = Told { packets: report.forwarded, bytes: report.forwarded_bytes, ended };
        assert_eq!(self.told, counted, "records and counters");
    }

    /// Makes no records from now on.
    pub(crate) fn log_nothing(&mut self) {
        for worker in &mut self.workers {
            let _kept = worker.log_to(None, 0);
        }
    }

    /// A packet enters at a worker, and is taken to its end wherever that is.
    pub(crate) fn receive(&mut self, worker: usize, now: u64, port: PortId, frame: &mut Frame) -> Ended {
        let verdict = self.workers[worker].receive(now, port, frame, &mut self.sent);
        self.end(worker, now, port, frame, verdict)
    }

    /// A fragment that waited at a worker and may go: where it entered, its bytes, and what became of it.
    pub(crate) fn resume(&mut self, now: u64) -> Option<(PortId, Vec<u8>, Ended)> {
        let mut frame = Frame::new();
        let mut found = self.workers.iter_mut().enumerate();
        let (worker, port) = found.find_map(|(worker, path)| Some((worker, path.released(&mut frame)?)))?;
        let bytes = frame.bytes().to_vec();
        let verdict = self.workers[worker].resume(now, port, &mut frame, &mut self.sent);
        Some((port, bytes, self.end(worker, now, port, &mut frame, verdict)))
    }

    /// A fragment goes to the worker that follows its packet, and from there to the owner of the flow; anything else to the
    /// owner at once.
    fn end(&mut self, worker: usize, now: u64, port: PortId, packet: &mut Frame, mut verdict: Verdict) -> Ended {
        let mut at = worker;
        let mut steps = 0;
        while let Verdict::HandOver(owner) = verdict {
            let next = usize::from(owner);
            assert_ne!(next, at, "no worker hands over to itself");
            steps += 1;
            assert!(steps < 2 || packet.fragment.is_some() && steps == 2, "handed over {steps} times");
            self.workers[at].count_hand_over(0, PortId(0), 0, true);
            verdict = self.workers[next].take_over(now, port, packet, &mut self.sent);
            at = next;
        }
        Ended { verdict, sent: self.taken() }
    }

    fn taken(&mut self) -> Vec<(PortId, Frame)> {
        std::mem::take(&mut self.sent.0)
    }

    /// Ends what is over; gives what was sent.
    pub(crate) fn expire(&mut self, now: u64, budget: usize) -> Vec<(PortId, Frame)> {
        for worker in &mut self.workers {
            worker.expire(now, budget, &mut self.sent);
        }
        self.taken()
    }

    pub(crate) fn adopt(&mut self, snapshot: &Arc<Snapshot>) {
        for worker in &mut self.workers {
            worker.adopt(snapshot.clone());
        }
    }

    /// Decides some flows again; true with what was sent when all are done.
    pub(crate) fn sweep(&mut self, now: u64, budget: usize) -> (bool, Vec<(PortId, Frame)>) {
        let mut done = true;
        for worker in &mut self.workers {
            done &= worker.sweep(now, budget, &mut self.sent);
        }
        (done, self.taken())
    }

    /// What a snapshot would do to the flows, asked in steps.
    pub(crate) fn foresee(&self, snapshot: &Snapshot, budget: usize) -> Foreseen {
        let mut all = Foreseen::default();
        for worker in &self.workers {
            let mut foreseen = Foreseen::default();
            let mut place = Some((0, 0));
            while let Some(from) = place {
                place = worker.foresee(snapshot, from, budget, &mut foreseen);
            }
            all.add(foreseen);
        }
        all
    }

    /// Every flow.
    pub(crate) fn flows(&self) -> Vec<FlowSummary> {
        let mut flows = Vec::new();
        for worker in &self.workers {
            worker.visit_flows(usize::MAX, |flow| flows.push(flow));
        }
        flows
    }

    /// When a worker may have something to end.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.workers.iter().filter_map(Forwarder::next_expiry).min()
    }

    /// The counters of all workers.
    pub(crate) fn report(&self) -> Report {
        Report::sum(&self.counters)
    }
}
