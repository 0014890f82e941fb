//! What goes on in a node, for who looks at it: flows by rate, throughput of each path, ports, drops, changes.
//!
//! Looks are made only when somebody asks, at most one in [`INTERVAL`], in the same way as for `sidestep top`: workers remember a
//! bounded number of flows from look to look ([`look`]). Where there are more, [`Sample::complete`] is false: what is said of
//! single flows holds for those that are known, and the throughput of the paths is the node's own, divided as among those.
//! As long as looks are made, the flow log tells how long first answers take.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::control::answers::{Change, FlowAnswer};
use crate::control::difference::flow_answer;
use crate::control::node::Node;
use crate::control::round_trips::RoundTrip;
use crate::packet::parse::protocol;
use crate::path::DropReason;
use crate::path::kind::PathKind;
use crate::path::look::{self, Carried, Found, Look, PathCounted};
use crate::snapshot::{NextHopType, PortId, PortKind, Snapshot};
use crate::telemetry::metrics::Seen;
use crate::worker::Traffic;

/// Shortest time between two looks; a page asks twice a second, so that it hears of a change soon.
pub const INTERVAL: Duration = Duration::from_millis(900);

/// The same after a change, for [`SETTLING`]: flows that it moved go on with their next packets.
const INTERVAL_SETTLING: Duration = Duration::from_millis(100);

/// How long after a change it is looked more often.
const SETTLING: Duration = Duration::from_secs(1);

/// Longest time between two looks that rates are made of; an average over more says nothing about now.
const STALE: Duration = Duration::from_secs(5);

/// Most flows that are told, those with the highest rates.
const FLOWS: usize = 200;

/// Most lines of the picture that are told, those with the highest rates.
const LINES: usize = 200;

/// Most ports that are told, those with the highest rates.
const PORTS: usize = 200;

/// Moments that are kept for who opens the page later: five minutes.
const MOMENTS: usize = 300;

/// Which way a flow takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Over the backbone, by a service endpoint.
    Endpoint,
    /// Through the virtual network gateway or an appliance.
    Tunnel,
    /// By the internet edge, or straight to a service's public address.
    Internet,
    /// Inside the virtual networks.
    Inside,
    /// Between others, past the networks: the second half of what left through the tunnel.
    Outside,
}

impl From<Option<PathKind>> for Way {
    fn from(kind: Option<PathKind>) -> Self {
        match kind {
            Some(PathKind::Endpoint) => Self::Endpoint,
            Some(PathKind::Tunnel) => Self::Tunnel,
            Some(PathKind::Internet) => Self::Internet,
            Some(PathKind::Inside) => Self::Inside,
            None => Self::Outside,
        }
    }
}

/// `GET /api/live`
#[derive(Debug, Clone, Default, Serialize)]
pub struct Live {
    /// When it was looked, in milliseconds since 1970.
    pub time: u64,
    /// Generation in force.
    pub generation: u64,
    /// How many flows were looked at.
    pub sample: Sample,
    /// The flows with the highest rates.
    pub flows: Vec<LiveFlow>,
    /// Traffic by where it enters, its way and where it leaves.
    pub lines: Vec<Line>,
    /// Throughput and latency since the asked time, oldest first.
    pub moments: Vec<Moment>,
    /// Ports with a device.
    pub ports: Vec<LivePort>,
    /// Packets that were dropped, by reason; reasons that never occurred are left out.
    pub drops: Vec<LiveDrop>,
    /// The last changes, oldest first.
    pub changes: Vec<Change>,
}

/// How many flows were looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Flows that are known, with their rates.
    pub looked_at: u64,
    /// Flows that there are.
    pub total: u64,
    /// Whether these are all.
    pub complete: bool,
}

/// A flow with its way and rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LiveFlow {
    /// What tells it from all others: protocol, port, source, destination, and source port or ICMP identifier.
    pub key: String,
    /// The ICMP identifier: what tells pings between the same addresses apart.
    pub identifier: Option<u16>,
    /// The flow.
    #[serde(flatten)]
    pub flow: FlowAnswer,
    /// Its way.
    pub path: Way,
    /// The service of the endpoint that it goes over.
    pub endpoint: Option<String>,
    /// Bits in a second, there and back.
    pub rate: [u64; 2],
}

/// Traffic between two ports by one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Port where it enters.
    pub from: String,
    /// Its way.
    pub path: Way,
    /// Port where it leaves.
    pub to: String,
    /// Flows of it that are known and have not ended.
    pub flows: u64,
    /// Their bits in a second, both ways together.
    pub rate: u64,
}

/// The paths at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub time: u64,
    /// Bits in a second by path; paths without traffic are left out.
    pub rates: BTreeMap<Way, u64>,
    /// Whether the rates are estimated from a sample of the flows.
    pub estimated: bool,
    /// How long first answers of new flows took since the moment before; none of paths on which no flow had its first answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub latency: Vec<Latency>,
}

/// How long first answers took on a path: microseconds from the first packet of a flow of a NIC, as the node saw it, to the
/// first one back, or to the end of TCP's handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The path.
    pub path: Way,
    /// How many flows had their first answer.
    pub count: u64,
    /// The shortest.
    pub least_us: u32,
    /// The middle one.
    pub median_us: u32,
    /// Nine of ten took no longer.
    pub p90_us: u32,
}

impl From<RoundTrip> for Latency {
    fn from(told: RoundTrip) -> Self {
        let RoundTrip { path, count, least, median, p90 } = told;
        Self { path: Some(path).into(), count, least_us: least, median_us: median, p90_us: p90 }
    }
}

/// A port with its traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LivePort {
    /// Its name.
    pub name: String,
    /// `nic`, `gateway`, `internet`, `service`, `backbone`, `platform`.
    pub kind: String,
    /// The interface, with its namespace where it is in another.
    pub interface: String,
    /// What the device was granted.
    pub io: String,
    /// What went through it.
    pub packets: [u64; 2],
    /// Bytes received from it and sent by it.
    pub bytes: [u64; 2],
    /// Bits in a second received from it and sent by it.
    pub rate: [u64; 2],
}

/// Packets dropped for one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LiveDrop {
    /// The reason's name.
    pub reason: String,
    /// The reason in a sentence.
    pub text: String,
    /// Packets since the start.
    pub packets: u64,
    /// Packets in a second.
    pub rate: f64,
}

/// What the look before saw.
struct Before {
    at: Instant,
    ports: HashMap<String, Traffic>,
    drops: BTreeMap<String, u64>,
    forwarded_bytes: u64,
}

#[derive(Default)]
struct Looked {
    before: Option<Before>,
    /// What workers remember of the look before.
    looks: Vec<Look>,
    /// Since when the generation of the last look is in force, as far as it was looked.
    changed: Option<Instant>,
    last: Live,
    moments: VecDeque<Moment>,
}

/// Looks at a node for all who ask.
#[derive(Default)]
pub(in crate::control) struct Watch(Mutex<Looked>);

impl Watch {
    /// What goes on, with moments since a time. Looks again if the last look is older than [`INTERVAL`], or, after a change,
    /// than [`INTERVAL_SETTLING`].
    pub(in crate::control) fn look(&self, node: &Node, since: u64) -> Live {
        let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let settling = looked.changed.is_some_and(|changed| changed.elapsed() < SETTLING);
        let changed = looked.last.generation != node.health().generation;
        let interval = if settling || changed { INTERVAL_SETTLING } else { INTERVAL };
        if looked.before.as_ref().is_none_or(|before| before.at.elapsed() >= interval) {
            looked.look(node);
        }
        let moments = looked.moments.iter().filter(|moment| moment.time > since).cloned().collect();
        Live { moments, ..looked.last.clone() }
    }
}

impl Looked {
    fn look(&mut self, node: &Node) {
        let before = self.before.take().filter(|before| before.at.elapsed() < STALE);
        if before.is_none() {
            self.looks.clear();
        }
        let by = look::By::Bytes;
        let wanted = look::Wanted { listed: FLOWS, path: None, words: Arc::default(), by, lines: true };
        let (found, looks) = node.look_at_rates(std::mem::take(&mut self.looks), &wanted);
        self.looks = looks;
        let (seen, snapshot) = (node.seen(), node.snapshot());
        let latency = node.round_trips().into_iter().map(Latency::from).collect();
        let at = Instant::now();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let ports = node.ports();
        let seconds = before.as_ref().map_or(0.0, |before| at.duration_since(before.at).as_secs_f64());
        let rate = |bytes: u64| per_second(bytes, seconds);

        let total = found.flows.max(found.known);
        let sample = Sample { looked_at: found.known, total, complete: found.known == total };
        let all_lines = lines(&found, &snapshot);
        if let (Some(before), Some(_)) = (&before, found.elapsed) {
            let forwarded = rate(forwarded_bytes(&seen).saturating_sub(before.forwarded_bytes));
            self.moments.push_back(Moment { latency, ..moment(time, &all_lines, sample.complete, forwarded) });
            while self.moments.len() > MOMENTS {
                self.moments.pop_front();
            }
        }
        let lines = told_lines(all_lines, &snapshot);
        let mut flows = flows(&found, &snapshot);
        name_endpoints(node, &mut flows);

        let traffic = traffic(&seen);
        let mut live_ports: Vec<LivePort> = ports
            .iter()
            .map(|port| {
                let now = traffic.get(&port.name).copied().unwrap_or_default();
                let past = before.as_ref().and_then(|before| before.ports.get(&port.name)).copied();
                // A device that was opened anew counts anew.
                let past =
                    past.filter(|past| past.received_bytes <= now.received_bytes && past.sent_bytes <= now.sent_bytes);
                let past = past.unwrap_or(now);
                LivePort {
                    name: port.name.clone(),
                    kind: port.kind.clone(),
                    interface: match &port.netns {
                        Some(netns) => format!("{} in {netns}", port.interface),
                        None => port.interface.clone(),
                    },
                    io: port.io.clone(),
                    packets: [now.received, now.sent],
                    bytes: [now.received_bytes, now.sent_bytes],
                    rate: [rate(now.received_bytes - past.received_bytes), rate(now.sent_bytes - past.sent_bytes)],
                }
            })
            .collect();
        live_ports.sort_by_key(|port| Reverse(port.rate[0] + port.rate[1]));
        live_ports.truncate(PORTS);

        let dropped = dropped(&seen);
        let drops = DropReason::ALL.iter().filter_map(|reason| {
            let packets = *dropped.get(reason.name())?;
            let past = before.as_ref().map(|before| before.drops.get(reason.name()).copied().unwrap_or_default());
            let rate = past.map_or(0.0, |past| packets.saturating_sub(past) as f64 / seconds);
            Some(LiveDrop { reason: reason.name().to_owned(), text: reason.text().to_owned(), packets, rate })
        });
        if ![0, seen.generation].contains(&self.last.generation) {
            self.changed = Some(at);
        }
        self.last = Live {
            time,
            generation: seen.generation,
            sample,
            flows,
            lines,
            moments: Vec::new(),
            ports: live_ports,
            drops: drops.collect(),
            changes: node.changes(),
        };
        self.before = Some(Before { at, ports: traffic, drops: dropped, forwarded_bytes: forwarded_bytes(&seen) });
    }
}

fn per_second(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (bytes as f64 * 8.0 / seconds) as u64 } else { 0 }
}

/// Which way flows take from one port to another.
fn way(snapshot: &Snapshot, (ingress, next_hop_type, egress): (PortId, NextHopType, PortId)) -> Way {
    let kind = |port| snapshot.port(port).map_or(PortKind::Vacant, |port| port.kind);
    PathKind::of_flow(next_hop_type, kind(ingress), kind(egress)).into()
}

/// The fastest flows, the fastest first.
fn flows(found: &Found, snapshot: &Snapshot) -> Vec<LiveFlow> {
    let seconds = found.elapsed.map_or(0.0, |elapsed| elapsed as f64 / 1000.0);
    let live = |Carried { flow, counted }: &Carried| {
        let (told, number) = (flow_answer(flow, snapshot), flow.sides.source.1);
        LiveFlow {
            key: format!("{} {} {} {} {number}", told.protocol, told.ingress, told.source, told.destination),
            identifier: [protocol::ICMP, protocol::ICMPV6].contains(&flow.sides.protocol).then_some(number),
            flow: told,
            path: way(snapshot, (flow.sides.ingress, flow.state.next_hop_type, flow.sides.egress)),
            endpoint: None,
            rate: counted.bytes.map(|bytes| per_second(bytes, seconds)),
        }
    };
    let mut flows: Vec<LiveFlow> = found.fastest.iter().map(live).collect();
    flows.sort_by_key(|flow| {
        let sum = |values: [u64; 2]| values[0].saturating_add(values[1]);
        Reverse((sum(flow.rate), sum(flow.flow.bytes)))
    });
    flows
}

/// Traffic by where it enters, its way and where it leaves: flows, and bits in a second.
type Lines = BTreeMap<(PortId, Way, PortId), (u64, u64)>;

fn lines(found: &Found, snapshot: &Snapshot) -> Lines {
    let seconds = found.elapsed.map_or(0.0, |elapsed| elapsed as f64 / 1000.0);
    let mut lines = Lines::new();
    for (&line, PathCounted { flows, counted }) in &found.lines {
        let sum = lines.entry((line.0, way(snapshot, line), line.2)).or_default();
        sum.0 += flows;
        sum.1 += per_second(counted.bytes[0].saturating_add(counted.bytes[1]), seconds);
    }
    lines
}

/// The paths now. Where not all flows are known, what the node has forwarded is divided as among those that are.
fn moment(time: u64, lines: &Lines, complete: bool, forwarded: u64) -> Moment {
    let mut rates: BTreeMap<Way, u64> = BTreeMap::new();
    for ((_, way, _), (_, rate)) in lines {
        *rates.entry(*way).or_default() += rate;
    }
    if !complete {
        let sum: u64 = rates.values().sum();
        for rate in rates.values_mut() {
            *rate = if sum > 0 { (u128::from(*rate) * u128::from(forwarded) / u128::from(sum)) as u64 } else { 0 };
        }
    }
    rates.retain(|path, rate| *rate > 0 && *path != Way::Outside);
    Moment { time, rates, estimated: !complete, latency: Vec::new() }
}

/// The lines with the highest rates, with names for numbers.
fn told_lines(lines: Lines, snapshot: &Snapshot) -> Vec<Line> {
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_by_key(|(_, (_, rate))| Reverse(*rate));
    lines.truncate(LINES);
    let told = |((from, path, to), (flows, rate))| Line {
        from: snapshot.port_name(from),
        path,
        to: snapshot.port_name(to),
        flows,
        rate,
    };
    lines.into_iter().map(told).collect()
}

/// Which service's endpoint flows go over: that of the service that they leave by, or of the route where they leave by
/// the backbone.
fn name_endpoints(node: &Node, flows: &mut [LiveFlow]) {
    let (network, ..) = node.drawn();
    let services: HashMap<&str, &str> =
        network.services.iter().map(|service| (service.name.as_str(), service.service.as_str())).collect();
    for flow in flows.iter_mut().filter(|flow| flow.path == Way::Endpoint) {
        flow.endpoint = match services.get(flow.flow.egress.as_str()) {
            Some(service) => Some((*service).to_owned()),
            None => {
                let address = flow.flow.destination.parse().map(|socket: std::net::SocketAddr| socket.ip().to_string());
                let to = address.unwrap_or_else(|_| flow.flow.destination.clone());
                let hop = node.next_hop(&flow.flow.ingress, &to, Some(&flow.flow.protocol));
                hop.ok().and_then(|hop| hop.route?.service)
            }
        };
    }
}

fn forwarded_bytes(seen: &Seen) -> u64 {
    seen.workers.iter().map(|worker| worker.forwarded_bytes).sum()
}

fn dropped(seen: &Seen) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (reason, packets) in seen.workers.iter().flat_map(|worker| &worker.dropped) {
        *sums.entry(reason.clone()).or_default() += packets;
    }
    sums
}

fn traffic(seen: &Seen) -> HashMap<String, Traffic> {
    let mut sums: HashMap<String, Traffic> = HashMap::new();
    for port in &seen.ports {
        let sum = sums.entry(port.port.clone()).or_default();
        sum.received += port.traffic.received;
        sum.received_bytes += port.traffic.received_bytes;
        sum.sent += port.traffic.sent;
        sum.sent_bytes += port.traffic.sent_bytes;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where not all flows are known, the node's own throughput is divided as among those that are.
    #[test]
    fn a_sample_stands_for_all() {
        let line = |way, rate| ((PortId(0), way, PortId(1)), (1, rate));
        let lines = [line(Way::Tunnel, 300), line(Way::Endpoint, 100)].into();
        let all = moment(1, &lines, true, 8000);
        assert_eq!((all.rates[&Way::Tunnel], all.rates[&Way::Endpoint], all.estimated), (300, 100, false));
        let sample = moment(1, &lines, false, 8000);
        assert_eq!((sample.rates[&Way::Tunnel], sample.rates[&Way::Endpoint], sample.estimated), (6000, 2000, true));
        assert!(moment(1, &Lines::new(), false, 8000).rates.is_empty());
    }

    /// The page calls paths as flow logs and `sidestep top` do.
    #[test]
    fn ways_have_the_names_of_paths() {
        for kind in PathKind::ALL {
            assert_eq!(serde_json::to_value(Way::from(Some(kind))).unwrap(), kind.name());
        }
    }
}
