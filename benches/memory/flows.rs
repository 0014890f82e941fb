//! Packets of flows, and first packets beside them, by the number of flows.

use fastrand::Rng;
use sidestep::path::Forwarder;
use sidestep::snapshot::PortId;

use crate::Measure;
use crate::batch::{Batch, Packets};
use crate::forwarding::{LIFETIME, Sink, forwarder, network_with_endpoint, packet, port};
use crate::packets::Tcp;
use crate::report::plot::{Curve, Plot};
use crate::report::{Report, Wanted, grouped, median};

/// Steps of CSIT's session scale, and some below it.
const FLOWS: [u32; 8] = [1, 16, 1_024, 16_384, 64_512, 258_048, 1_032_192, 4_128_768];

/// Packets that are taken at once: a worker's turn of small packets of flows, and what it reads of it first. What has no name
/// of a batch is the turn.
const BATCHES: [usize; 2] = [64, 8];

/// Packets that are timed at least, all flows in turn.
const PACKETS: usize = 65_536;

/// First packets of a round, which make flows beside those that there are.
const FIRST: u32 = 4_096;

/// A path with so many flows.
struct Table {
    flows: u32,
    forwarder: Forwarder,
    /// A packet of each flow in an order that no prefetcher guesses, each as often as it takes.
    packets: Packets,
    now: u64,
}

impl Table {
    fn new(flows: u32, vm1: PortId) -> Self {
        let room = flows + FIRST;
        let mut forwarder = forwarder(network_with_endpoint(room), room as usize);
        let mut order: Vec<u32> = (0..flows).collect();
        Rng::with_seed(5).shuffle(&mut order);
        let times = PACKETS.div_ceil(flows as usize);
        let packets: Packets = (0..times).flat_map(|_| &order).map(|number| packet(*number)).collect();
        Batch::new(BATCHES[0]).pass(&mut forwarder, 0, vm1, &packets);
        assert_eq!(forwarder.flow_count(), flows as usize);
        Self { flows, forwarder, packets, now: 0 }
    }
}

/// By the number of flows.
pub(crate) struct Flows {
    vm1: PortId,
    tables: Vec<Table>,
    /// First packets of flows that no table has.
    first: Packets,
    /// A path with TCP connections, and a packet of each.
    tcp: (Forwarder, Packets),
    batches: Vec<Batch>,
}

/// What the row of a batch is called.
fn key(flows: u32, batch: usize) -> String {
    let flows = match flows {
        1 => String::new(),
        1_032_192 => "_1m".to_owned(),
        4_128_768 => "_4m".to_owned(),
        flows => format!("_{flows}"),
    };
    let batch = if batch == BATCHES[0] { String::new() } else { format!("_batch_{batch}") };
    format!("established{flows}{batch}_ns")
}

/// `1,024 flows`.
fn count(flows: u32) -> String {
    format!("{} flow{}", grouped(flows.into()), if flows == 1 { "" } else { "s" })
}

fn first_key(flows: u32) -> String {
    format!("first_packet_at_{flows}_ns")
}

impl Flows {
    /// Makes the flows.
    pub(crate) fn new(quick: bool, report: &mut Report) -> Self {
        let vm1 = port(&network_with_endpoint(1), "vm1");
        let sizes = FLOWS.into_iter().filter(|flows| !quick || *flows <= 1_032_192);
        let tables: Vec<Table> = sizes.map(|flows| Table::new(flows, vm1)).collect();
        report.row("copy_ns", "copying a packet into a frame, not in the others, ns", Wanted::Anything);
        for table in &tables {
            let flows = table.flows;
            for batch in BATCHES {
                let wanted = match (flows, batch) {
                    (1, 64) => Wanted::AtMost(60.0),
                    (1_032_192, 64) => Wanted::AtMost(120.0),
                    _ => Wanted::Anything,
                };
                report.row(
                    &key(flows, batch),
                    &format!("a packet of {}, batches of {batch}, ns", count(flows)),
                    wanted,
                );
            }
        }
        report.row("established_tcp_1024_ns", "a TCP packet of 1,024 flows, batches of 64, ns", Wanted::Anything);
        for Table { flows, .. } in &tables {
            report.row(&first_key(*flows), &format!("a first packet beside {}, ns", count(*flows)), Wanted::Anything);
        }
        let ratio = "rate at 1,032,192 flows to that at 1,024";
        report.row("flows_1m_rate_vs_1024", ratio, Wanted::AtLeast(0.5));
        let first = (0..FIRST).map(|number| packet(u32::MAX / 1024 + number)).collect();
        let batches = BATCHES.map(Batch::new).into();
        Self { vm1, tables, first, tcp: connections(), batches }
    }
}

/// A path with 1,024 TCP connections that both sides have acknowledged, and a packet of each, in turn.
fn connections() -> (Forwarder, Packets) {
    let snapshot = network_with_endpoint(2_048);
    let (vm1, service) = (port(&snapshot, "vm1"), port(&snapshot, "contosodata"));
    let mut forwarder = forwarder(snapshot, 2_048);
    let mut batch = Batch::new(1);
    let mut packets = Vec::new();
    for number in 1_000..2_024 {
        let from = ("10.1.1.4", number);
        let ours = Tcp { from, ..Tcp::default() };
        let theirs = Tcp { from: ours.to, to: from, flags: "SA", sequence: 7, acknowledgment: 1_001, ..ours };
        let data = Tcp { flags: "PA", sequence: 1_001, acknowledgment: 8, payload: &[0; 22], ..ours }.bytes();
        for (port, packet) in [(vm1, ours.bytes()), (service, theirs.bytes()), (vm1, data.clone())] {
            batch.pass(&mut forwarder, 0, port, &[packet].into_iter().collect());
        }
        packets.push(data);
    }
    Rng::with_seed(6).shuffle(&mut packets);
    let times = PACKETS / packets.len();
    (forwarder, (0..times).flat_map(|_| packets.clone()).collect())
}

impl Measure for Flows {
    fn round(&mut self, report: &mut Report) {
        let Self { vm1, tables, first, tcp, batches } = self;
        for table in tables {
            let Table { flows, forwarder, packets, now } = table;
            for (batch, frames) in batches.iter_mut().zip(BATCHES) {
                *now += LIFETIME / 4;
                // The path before this one had the caches.
                batch.pass(forwarder, *now, *vm1, &packets.first(packets.count().min(PACKETS)));
                report.note(&key(*flows, frames), batch.path(forwarder, *now, *vm1, packets));
            }
            // First packets are read as few at once as what is read first.
            let batch = &mut batches[1];
            let time = batch.path(forwarder, *now, *vm1, first);
            assert_eq!(forwarder.flow_count(), (*flows + FIRST) as usize);
            report.note(&first_key(*flows), time);
            // Those that there are live on, the new ones end.
            *now += LIFETIME;
            batch.pass(forwarder, *now - LIFETIME / 2, *vm1, packets);
            while forwarder.flow_count() > *flows as usize {
                forwarder.expire(*now, 100_000, &mut Sink);
                *now += 1_000;
            }
            assert_eq!(forwarder.flow_count(), *flows as usize);
        }
        let (forwarder, packets) = tcp;
        batches[0].pass(forwarder, 0, *vm1, packets);
        report.note("established_tcp_1024_ns", batches[0].path(forwarder, 0, *vm1, packets));
        report.note("copy_ns", batches[0].copying(packets).as_nanos() as f64 / packets.count() as f64);
        report.note_ratio("flows_1m_rate_vs_1024", &key(1_024, BATCHES[0]), &key(1_032_192, BATCHES[0]));
    }

    fn plot(&self, report: &Report) {
        let curve = |name, key: &dyn Fn(u32) -> String| {
            let point = |table: &Table| (f64::from(table.flows), 1e3 / median(report.samples(&key(table.flows))));
            Curve { name, points: self.tables.iter().map(point).collect() }
        };
        Plot {
            name: "flows",
            title: "Throughput of one core in memory, by the number of flows",
            sizes: "flows",
            values: "million packets a second",
            curves: vec![
                curve("packets of flows", &|flows| key(flows, BATCHES[0])),
                curve("packets of flows, batches of 8", &|flows| key(flows, BATCHES[1])),
                curve("first packets", &first_key),
            ],
        }
        .save();
    }
}
