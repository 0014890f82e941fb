//! A node without devices: one worker's path over the ports of a document, with what it sends kept in a list.

use std::path::Path;
use std::sync::Arc;

use sidestep::model::network::{EndpointSource, Network, ServiceEndpoint};
use sidestep::packet::frame::Frame;
use sidestep::path::counters::Counters;
use sidestep::path::forwarder::{FlowSummary, Settings};
use sidestep::path::record::{Event, Lost, Record, Records};
use sidestep::path::shared::Shared;
use sidestep::path::{Answer, DropReason, Egress, Forwarder, SendFailure, Verdict};
use sidestep::plan::Plan;
use sidestep::snapshot::{PoolId, PortId, Snapshot};
use sidestep::table::pool_use::PoolCounts;
use sidestep::tags::Catalogue;
use sidestep::telemetry::counters::Report;
use sidestep::telemetry::flow_record::{FlowEvent, FlowRecord};

use crate::packets::{Seen, decode};

/// Two spokes, a hub with an appliance and the gateway, an internet edge and a service: the networks that the tests
/// walk through. Lines of `{extra}` come from the test.
pub(crate) const NETWORK: &str = r#"
location = "westeurope"

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16", "fd00:1::/48"]
peerings = [{ remote = "hub", allow_forwarded_traffic = true, use_remote_gateways = true }]

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
  route_table = "to-on-premises"

  [[virtual_network.subnet]]
  name = "inspected"
  address_prefixes = ["10.1.2.0/24", "fd00:1:0:2::/64"]
  route_table = "to-appliance"

  [[virtual_network.subnet]]
  name = "open"
  address_prefixes = ["10.1.3.0/24", "fd00:1:0:3::/64"]

[[virtual_network]]
name = "hub"
address_space = ["10.0.0.0/16", "fd00:0:1::/48"]
peerings = [
  { remote = "spoke", allow_gateway_transit = true, allow_forwarded_traffic = true },
  { remote = "strict" },
]

  [[virtual_network.subnet]]
  name = "GatewaySubnet"
  address_prefixes = ["10.0.0.0/24", "fd00:0:1:1::/64"]

  [[virtual_network.subnet]]
  name = "appliances"
  address_prefixes = ["10.0.100.0/24", "fd00:0:1:100::/64"]

[[virtual_network]]
name = "strict"
address_space = ["10.3.0.0/16"]
peerings = [{ remote = "hub" }]

  [[virtual_network.subnet]]
  name = "only"
  address_prefixes = ["10.3.1.0/24"]

[[route_table]]
name = "to-on-premises"
routes = [
  { name = "default", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualNetworkGateway" },
  { name = "default6", address_prefix = "::/0", next_hop_type = "VirtualNetworkGateway" },
]

[[route_table]]
name = "to-appliance"
routes = [
  { name = "default", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.4" },
  { name = "sink", address_prefix = "198.18.0.0/15", next_hop_type = "None" },
  { name = "dead", address_prefix = "192.0.2.0/24", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.9" },
  { name = "deaf", address_prefix = "198.51.100.0/24", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.1.3.4" },
]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = { tun = "t-vm1" }

[[nic]]
name = "vm2"
subnet = "spoke/inspected"
private_addresses = ["10.1.2.4", "fd00:1:0:2::4"]
device = { tun = "t-vm2" }

[[nic]]
name = "vm3"
subnet = "spoke/open"
private_addresses = ["10.1.3.4", "fd00:1:0:3::4"]
device = { tun = "t-vm3" }

[[nic]]
name = "appliance"
subnet = "hub/appliances"
private_addresses = ["10.0.100.4", "fd00:0:1:100::4"]
ip_forwarding = true
device = { tun = "t-nva" }

[[nic]]
name = "vm4"
subnet = "strict/only"
private_addresses = ["10.3.1.4"]
device = { tun = "t-vm4" }

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

/// Records that wait, where a test does not say how many.
const ROOM: usize = 1_024;

/// The catalogue that ships with the project.
pub(crate) fn catalogue() -> Arc<Catalogue> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/service-tags.json");
    Arc::new(Catalogue::load(&path).unwrap())
}

/// The ports' side: keeps what is sent, or refuses it.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) packets: Vec<(PortId, Vec<u8>, Frame)>,
    pub(crate) refuse: Option<SendFailure>,
}

impl Egress for Sent {
    fn send(&mut self, _now: u64, port: PortId, frame: &mut Frame) -> Result<(), SendFailure> {
        if let Some(failure) = self.refuse {
            return Err(failure);
        }
        // Taken out of its frame: nobody may use that afterwards.
        let taken = std::mem::take(frame);
        self.packets.push((port, taken.bytes().to_vec(), taken));
        Ok(())
    }
}

/// A node under test. When it goes, its accounting has to balance.
pub(crate) struct Bench {
    pub(crate) network: Network,
    pub(crate) forwarder: Forwarder,
    pub(crate) sent: Sent,
    pub(crate) now: u64,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    /// Records of flows, where they are made.
    records: Option<Arc<Records>>,
    /// What they told, and what the counters said before.
    sums: Sums,
    before: Report,
}

/// What records told, in packets and bytes.
#[derive(Debug, Default)]
struct Sums {
    /// Of flows, and of what went back along them.
    forwarded: [u64; 2],
    /// Of flows, and could not leave.
    unsent: [u64; 2],
    /// Of packets that ended.
    ended: u64,
}

impl Sums {
    fn add(&mut self, record: &Record) {
        let told = [record.packets.iter().sum::<u64>(), record.bytes.iter().sum()];
        let to = match record.event {
            Event::Answered(_) | Event::Dropped(_) => {
                self.ended += told[0];
                return;
            }
            Event::Unsent(_) => &mut self.unsent,
            Event::Begin | Event::Reply | Event::Continue | Event::End(_) | Event::Related => &mut self.forwarded,
        };
        *to = [to[0] + told[0], to[1] + told[1]];
    }
}

impl Bench {
    /// The network above.
    pub(crate) fn new() -> Self {
        Self::with(NETWORK)
    }

    /// Another document.
    pub(crate) fn with(document: &str) -> Self {
        Self::with_room(document, 1_000)
    }

    /// Another document, and another size of the flow tables.
    pub(crate) fn with_room(document: &str, flow_limit: usize) -> Self {
        let network = sidestep::model::parse(document, Path::new("bench.toml"), None)
            .unwrap_or_else(|mistakes| panic!("the document is wrong:\n{mistakes}"));
        let snapshot = compile(&network, None);
        let counters = Arc::new(Counters::new());
        let shared = Arc::new(Shared::new(1));
        let settings = Settings { flow_limit, seed: 7, worker: 0, shared: shared.clone() };
        let forwarder = Forwarder::new(Arc::new(snapshot), counters.clone(), settings);
        let (sums, before) = (Sums::default(), Report::default());
        let sent = Sent::default();
        let mut bench = Self { network, forwarder, sent, now: 1_000, counters, shared, records: None, sums, before };
        bench.log(ROOM);
        bench
    }

    /// The network with a storage endpoint on `spoke/workload`.
    pub(crate) fn with_endpoint() -> Self {
        let mut bench = Self::new();
        bench.set_endpoint("spoke/workload", true);
        bench
    }

    pub(crate) fn port(&self, name: &str) -> PortId {
        let found = self.forwarder.snapshot().ports.iter().position(|port| port.name == name);
        PortId(found.unwrap_or_else(|| panic!("no port {name}")) as u16)
    }

    /// Turns the storage endpoint of a subnet on or off and lets the forwarder take the new snapshot; flows are
    /// decided again when packets meet them, or by [`Bench::sweep`].
    pub(crate) fn set_endpoint(&mut self, subnet: &str, on: bool) {
        self.set_endpoints(subnet, on.then_some(EndpointSource::Private));
    }

    /// The same with another source address.
    pub(crate) fn set_source(&mut self, subnet: &str, source: EndpointSource) {
        self.set_endpoints(subnet, Some(source));
    }

    fn set_endpoints(&mut self, subnet: &str, source: Option<EndpointSource>) {
        self.change(|network| {
            let subnet = network.find_subnet(subnet).unwrap();
            let endpoint = |source| ServiceEndpoint { service: "Microsoft.Storage".into(), locations: vec![], source };
            network.virtual_networks[subnet.virtual_network].subnets[subnet.subnet].service_endpoints =
                source.map(endpoint).into_iter().collect();
        });
    }

    /// Changes the network in any way and publishes it.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Network)) {
        change(&mut self.network);
        let snapshot = compile(&self.network, Some(self.forwarder.snapshot()));
        self.forwarder.adopt(Arc::new(snapshot));
    }

    /// Decides all flows again.
    pub(crate) fn sweep(&mut self) {
        while !self.forwarder.sweep(self.now, 16, &mut self.sent) {}
    }

    /// Makes records of flows from now on, with room for so many, instead of those that are made.
    pub(crate) fn log(&mut self, room: usize) {
        self.check_records();
        let records = Arc::new(Records::with_room(room));
        let _before = self.forwarder.log_to(Some(records.clone()), self.now);
        self.records = Some(records);
        (self.sums, self.before) = (Sums::default(), self.report());
    }

    /// Makes no records from now on.
    pub(crate) fn log_nothing(&mut self) {
        self.check_records();
        let _before = self.forwarder.log_to(None, self.now);
        self.records = None;
    }

    /// The records that wait, in words; times are those of the bench.
    pub(crate) fn told(&mut self) -> Vec<FlowRecord> {
        let records = self.records.as_ref().expect("records are made");
        let sums = &mut self.sums;
        let taken = std::iter::from_fn(|| records.take()).inspect(|record| sums.add(record));
        taken.map(|record| FlowRecord::new(&record, 0)).collect()
    }

    /// What is left to tell when the node ends.
    pub(crate) fn rest(&mut self, saved: bool) -> Vec<FlowRecord> {
        let (mut rest, sums) = (Vec::new(), &mut self.sums);
        self.forwarder.log_rest(saved, self.now, |record| {
            sums.add(&record);
            rest.push(FlowRecord::new(&record, 0));
        });
        rest
    }

    /// What records have told, will tell and have lost is what was counted, to the packet and byte.
    pub(crate) fn check_records(&mut self) {
        let Some(records) = self.records.clone() else { return };
        std::iter::from_fn(|| records.take()).for_each(|record| self.sums.add(&record));
        self.rest(false);
        let (report, before, lost) = (self.report(), &self.before, records.lost());
        let Sums { forwarded, unsent, ended } = &self.sums;
        let left = [report.forwarded - before.forwarded, report.forwarded_bytes - before.forwarded_bytes];
        let all = |report: &Report| report.answered.values().chain(report.dropped.values()).sum::<u64>();
        let gone = all(&report) - all(before) - unsent[0];
        if lost == Lost::default() {
            assert_eq!(left, [forwarded[0] - unsent[0], forwarded[1] - unsent[1]], "{:#?} {report:#?}", self.sums);
            assert_eq!(gone, *ended, "{:#?} {report:#?}", self.sums);
        } else {
            assert_eq!(left[0] + gone, forwarded[0] - unsent[0] + ended + lost.packets, "{:#?} {lost:?}", self.sums);
        }
    }

    /// How many records wait.
    pub(crate) fn waiting(&self) -> usize {
        self.records.as_ref().map_or(0, |records| records.waiting())
    }

    /// What found no room.
    pub(crate) fn lost(&self) -> Lost {
        self.records.as_ref().map(|records| records.lost()).unwrap_or_default()
    }

    /// The records of one kind that wait; the others are gone.
    pub(crate) fn told_of(&mut self, event: FlowEvent) -> Vec<FlowRecord> {
        self.told().into_iter().filter(|record| record.event == event).collect()
    }

    /// Takes no new flows from now on, or takes them again.
    pub(crate) fn drain(&self, draining: bool) {
        self.shared.set_draining(draining);
    }

    /// Ends what is over.
    pub(crate) fn expire(&mut self) {
        self.forwarder.expire(self.now, 1_000, &mut self.sent);
    }

    /// A packet enters through a port.
    pub(crate) fn inject(&mut self, port: &str, packet: Vec<u8>) -> Verdict {
        self.inject_frame(port, &mut Frame::from_packet(&packet))
    }

    pub(crate) fn inject_frame(&mut self, port: &str, frame: &mut Frame) -> Verdict {
        let port = self.port(port);
        self.forwarder.receive(self.now, port, frame, &mut self.sent)
    }

    /// A packet enters and must leave as one packet through a port.
    #[track_caller]
    pub(crate) fn forward(&mut self, from: &str, packet: Vec<u8>, to: &str) -> Seen {
        let verdict = self.inject(from, packet);
        assert_eq!(verdict, Verdict::Forwarded(self.port(to)), "from {from} to {to}");
        let mut sent = self.take();
        assert_eq!(sent.len(), 1, "one packet in, one out");
        let (port, seen) = sent.remove(0);
        assert_eq!(port, to);
        seen
    }

    /// A packet enters and must leave as one packet, wherever.
    #[track_caller]
    pub(crate) fn forward_anywhere(&mut self, from: &str, packet: Vec<u8>) -> Seen {
        let mut seen = None;
        self.forward_bytes(from, packet, |bytes| seen = Some(decode(bytes)));
        seen.unwrap()
    }

    /// Fragments that waited for the one that has just come go on; gives what becomes of each.
    pub(crate) fn release(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let mut frame = Frame::new();
        while let Some(port) = self.forwarder.released(&mut frame) {
            verdicts.push(self.forwarder.resume(self.now, port, &mut frame, &mut self.sent));
        }
        verdicts
    }

    /// A packet enters and must leave as one packet; `look` sees its bytes, which are decoded too.
    #[track_caller]
    pub(crate) fn forward_bytes(&mut self, from: &str, packet: Vec<u8>, look: impl FnOnce(&[u8])) {
        let verdict = self.inject(from, packet);
        assert!(matches!(verdict, Verdict::Forwarded(_)), "from {from}: {verdict:?}");
        let sent = std::mem::take(&mut self.sent.packets);
        assert_eq!(sent.len(), 1, "one packet in, one out");
        decode(&sent[0].1);
        look(&sent[0].1);
    }

    /// A packet enters and must be dropped for a reason, with nothing sent.
    #[track_caller]
    pub(crate) fn dropped(&mut self, from: &str, packet: Vec<u8>, reason: DropReason) {
        assert_eq!(self.inject(from, packet), Verdict::Dropped(reason));
        assert!(self.sent.packets.is_empty(), "a dropped packet sends nothing");
    }

    /// A packet enters and must be answered; gives what was sent.
    #[track_caller]
    pub(crate) fn answered(&mut self, from: &str, packet: Vec<u8>, answer: Answer) -> Vec<(String, Seen)> {
        assert_eq!(self.inject(from, packet), Verdict::Answered(answer));
        self.take()
    }

    /// What was sent since the last look, with the port's name.
    pub(crate) fn take(&mut self) -> Vec<(String, Seen)> {
        let packets = std::mem::take(&mut self.sent.packets);
        packets
            .into_iter()
            .map(|(port, bytes, _)| (self.forwarder.snapshot().port(port).unwrap().name.clone(), decode(&bytes)))
            .collect()
    }

    /// Two workers of another node that has the same snapshot.
    pub(crate) fn workers(&self) -> [Forwarder; 2] {
        let shared = Arc::new(Shared::new(2));
        [0, 1].map(|worker| {
            let settings = Settings { flow_limit: 1_000, seed: 7, worker, shared: shared.clone() };
            Forwarder::new(self.forwarder.snapshot().clone(), Arc::new(Counters::new()), settings)
        })
    }

    pub(crate) fn report(&self) -> Report {
        Report::sum(std::slice::from_ref(&self.counters))
    }

    /// How much of a pool is in use.
    pub(crate) fn pool(&self, pool: PoolId) -> PoolCounts {
        self.shared.pool_counts(pool)
    }

    /// The same of the pool of a name.
    pub(crate) fn pool_named(&self, name: &str) -> PoolCounts {
        let found = self.forwarder.snapshot().pools.iter().position(|pool| pool.name == name);
        self.pool(PoolId(found.unwrap_or_else(|| panic!("no pool {name}")) as u16))
    }

    /// Who was denied what.
    pub(crate) fn denials(&self) -> &sidestep::path::denial::Denials {
        self.shared.denials()
    }

    pub(crate) fn flows(&self) -> Vec<FlowSummary> {
        let mut flows = Vec::new();
        self.forwarder.visit_flows(usize::MAX, |flow| flows.push(flow));
        flows
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let report = self.report();
            assert_eq!(report.unaccounted(), 0, "in = out + answers + drops: {report:#?}");
            assert_eq!(report.flows as usize, self.forwarder.flow_count(), "the flow gauge");
            let flows = self.flows();
            for number in 0..self.forwarder.snapshot().pools.len() as u16 {
                let of_pool = |flow: &&FlowSummary| flow.state.pool() == Some(PoolId(number));
                let counted: u32 = self.pool(PoolId(number)).flows.iter().sum();
                assert_eq!(counted as usize, flows.iter().filter(of_pool).count(), "flows of pool {number}");
            }
            self.check_records();
        }
    }
}

fn compile(network: &Network, previous: Option<&Snapshot>) -> Snapshot {
    let generation = previous.map_or(1, |previous| previous.generation + 1);
    let plan = Plan::new(Arc::new(network.clone()), catalogue());
    plan.compile(generation, previous).unwrap()
}
