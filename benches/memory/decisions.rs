//! First packets by the number of rules and of routes, under the whole catalogue, and packets of the flows that they made.

use std::net::Ipv4Addr;
use std::sync::Arc;

use fastrand::Rng;
use ipnet::Ipv4Net;
use sidestep::path::Forwarder;
use sidestep::snapshot::{PortId, Snapshot};

use crate::Measure;
use crate::batch::{Batch, Packets};
use crate::bench::NETWORK;
use crate::forwarding::{Sink, compile, forwarder, network_with_rules, packets_anywhere, port};
use crate::packets::udp;
use crate::report::plot::{Curve, Plot};
use crate::report::{Report, Wanted, grouped, median};
use crate::tags;

/// First packets of a round.
const PACKETS: usize = 16_384;

/// A path whose flows all end before the next round.
struct Case {
    /// What sizes the plot draws it at; none where it is no size of the plot.
    size: Option<usize>,
    first: String,
    again: String,
    vm1: PortId,
    forwarder: Forwarder,
    packets: Packets,
    now: u64,
}

impl Case {
    fn new(name: &str, size: Option<usize>, snapshot: Arc<Snapshot>, packets: Packets) -> Self {
        let (vm1, now) = (port(&snapshot, "vm1"), 0);
        let (first, again) = (format!("first_packet_{name}_ns"), format!("established_{name}_ns"));
        Self { size, first, again, vm1, forwarder: forwarder(snapshot, 2 * PACKETS), packets, now }
    }

    fn rows(&self, what: &str, report: &mut Report) {
        report.row(&self.first, &format!("a first packet, {what}, ns"), Wanted::Anything);
        report.row(&self.again, &format!("a packet of 16,384 flows, {what}, ns"), Wanted::Anything);
    }

    fn round(&mut self, batch: &mut Batch, report: &mut Report) {
        let Self { vm1, forwarder, packets, now, .. } = self;
        let first = batch.path(forwarder, *now, *vm1, packets);
        assert!(forwarder.flow_count() > PACKETS * 9 / 10, "nearly every packet was a first one");
        report.note(&self.first, first);
        report.note(&self.again, batch.path(forwarder, *now, *vm1, packets));
        // All flows end, and their memory is there for the next round.
        while forwarder.flow_count() > 0 {
            *now += 1_000_000;
            forwarder.expire(*now, 100_000, &mut Sink);
        }
    }
}

/// `1 rule`, `1,000 rules`.
fn counted(count: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(count as u64), if count == 1 { "" } else { "s" })
}

fn curves(cases: &[Case], report: &Report) -> Vec<Curve> {
    let curve = |name, key: fn(&Case) -> &str| {
        let point = |case: &Case| Some((case.size? as f64, 1e3 / median(report.samples(key(case)))));
        Curve { name, points: cases.iter().filter_map(point).collect() }
    };
    vec![curve("packets of flows", |case| &case.again), curve("first packets", |case| &case.first)]
}

/// Rules of the subnet's network security group, the last of which allows.
const RULES: [usize; 5] = [1, 10, 100, 300, 1_000];

/// By the number of rules.
pub(crate) struct Rules {
    cases: Vec<Case>,
    batch: Batch,
}

impl Rules {
    /// Compiles the networks.
    pub(crate) fn new(report: &mut Report) -> Self {
        let catalogue = Arc::new(tags::catalogue());
        let packets: Packets = packets_anywhere(&catalogue, PACKETS).into_iter().collect();
        let case = |name: &str, size, users: &[&str], count| {
            let snapshot = compile(&network_with_rules(&catalogue, users, count, true), &catalogue);
            Case::new(name, size, snapshot, packets.first(PACKETS))
        };
        report.row("first_packet_ns", "a first packet, 1,000 rules, whole catalogue, ns", Wanted::AtMost(1_000.0));
        let mut cases = vec![case("no_rules", None, &[], 1)];
        cases[0].rows("no rules", report);
        for count in RULES {
            let case = case(&format!("{count}_rules"), Some(count), &["workload"], count);
            case.rows(&counted(count, "rule"), report);
            cases.push(case);
        }
        // One group at the NIC, one at the subnet.
        let twice = case("rules_twice", None, &["vm1", "workload"], 1_000);
        twice.rows("1,000 rules twice", report);
        cases.push(twice);
        Self { cases, batch: Batch::new(8) }
    }
}

impl Measure for Rules {
    fn round(&mut self, report: &mut Report) {
        for case in &mut self.cases {
            case.round(&mut self.batch, report);
        }
        let thousand = *report.samples("first_packet_1000_rules_ns").last().expect("a sample");
        report.note("first_packet_ns", thousand);
    }

    fn plot(&self, report: &Report) {
        Plot {
            name: "rules",
            title: "Throughput of one core in memory, by the number of rules",
            sizes: "rules of the network security group",
            values: "million packets a second",
            curves: curves(&self.cases, report),
        }
        .save();
    }
}

/// Routes that the gateway has learned.
const ROUTES: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

/// By the number of routes.
pub(crate) struct Routes {
    cases: Vec<Case>,
    batch: Batch,
}

impl Routes {
    /// Compiles the networks.
    pub(crate) fn new(quick: bool, report: &mut Report) -> Self {
        let catalogue = Arc::new(tags::catalogue());
        let sizes = ROUTES.into_iter().filter(|count| !quick || *count <= 10_000);
        let cases = sizes.map(|count| {
            let mut random = Rng::with_seed(8);
            let routes = routes(count, &mut random);
            let listed: Vec<String> = routes.iter().map(|route| format!("\"{route}\"")).collect();
            let learned = format!("learned_routes = [{}, ", listed.join(", "));
            let document = NETWORK.replace("learned_routes = [", &learned);
            assert_ne!(document, NETWORK, "the gateway has learned routes");
            let draw = |_| {
                let route = routes[random.usize(..routes.len())];
                let host = random.u32(..).checked_shr(route.prefix_len().into()).unwrap_or(0);
                let to = Ipv4Addr::from(route.network().to_bits() | host).to_string();
                udp(("10.1.1.4", random.u16(1_024..)), (&to, random.u16(1..)), &[0; 22])
            };
            let packets: Packets = (0..PACKETS).map(draw).collect();
            let case = Case::new(&format!("{count}_routes"), Some(count), compile(&document, &catalogue), packets);
            case.rows(&counted(count, "route"), report);
            case
        });
        Self { cases: cases.collect(), batch: Batch::new(8) }
    }
}

/// Different prefixes of lengths as in the internet's tables, outside of the network's own.
fn routes(count: usize, random: &mut Rng) -> Vec<Ipv4Net> {
    let mut routes = std::collections::BTreeSet::new();
    while routes.len() < count {
        let length = [24, 24, 24, 23, 22, 22, 21, 20, 19, 16][random.usize(..10)];
        let net = Ipv4Net::new(random.u32(32 << 24..96 << 24).into(), length).expect("a length").trunc();
        routes.insert(net);
    }
    routes.into_iter().collect()
}

impl Measure for Routes {
    fn round(&mut self, report: &mut Report) {
        for case in &mut self.cases {
            case.round(&mut self.batch, report);
        }
    }

    fn plot(&self, report: &Report) {
        Plot {
            name: "routes",
            title: "Throughput of one core in memory, by the number of routes",
            sizes: "routes",
            values: "million packets a second",
            curves: curves(&self.cases, report),
        }
        .save();
    }
}
