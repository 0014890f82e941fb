//! What a node counts in the text format of Prometheus (version 0.0.4), which everything that scrapes metrics reads.
//!
//! Names begin with `sidestep_`, counters end in `_total`, units are seconds and bytes. The sum over the labels of a metric
//! is the node's; those of ports begin anew when a device is opened anew, and end when it is gone, but for errors of devices,
//! which are kept as long as there is the port. Labels name workers, ports, pools and reasons; never an address, a port number
//! or a flow, of which there is no end. Workers only count; text is made when somebody asks, for which each tells what its
//! ports have counted between two batches.

use std::collections::BTreeMap;
use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::counters::{Report, TimesReport};
use super::flow_record::FlowLogTotals;
use crate::path::counters::{BATCH_SIZES, TIMES};
use crate::path::{Answer, DropReason};
use crate::snapshot::PoolKind;
use crate::table::pool_use::{PoolCounts, PortSpace};
use crate::worker::{PortErrors, Traffic};

/// The media type of [`text`], as a `Content-Type` says it.
pub const MEDIA_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Offloads that a device may be granted, as [`Port::describe`](crate::port::Port::describe) names them.
const OFFLOADS: [&str; 5] = ["checksum", "tcp4", "tcp6", "ecn", "udp"];

/// Reads one number of a worker.
type Read = fn(&Report) -> u64;

/// Counters of which each worker has one.
const COUNTERS: &[(&str, &str, Read)] = &[
    ("received_packets", "Packets that devices delivered; a super-packet is one", |report| report.received),
    ("received_bytes", "Bytes of received packets, from the IP header on", |report| report.received_bytes),
    ("received_super_packets", "Received packets that were super-packets", |report| report.received_super),
    ("received_segments", "Packets that the received super-packets stand for", |report| report.received_segments),
    ("forwarded_packets", "Packets sent on; a super-packet is one", |report| report.forwarded),
    ("forwarded_bytes", "Bytes of packets sent on, as received", |report| report.forwarded_bytes),
    ("generated_packets", "ICMP errors and TCP resets made here that left", |report| report.generated),
    ("handed_over_packets", "Packets given to the worker that owns their flow", |report| report.handed_over),
    ("taken_over_packets", "Packets taken from other workers", |report| report.taken_over),
    ("flows_created", "Flows made, each a first packet with its whole decision", |report| report.flows_created),
    ("timed_packets", "Packets in the batches that batch_seconds tells of", |report| report.timed_packets),
    ("waits", "Times that the worker asked the kernel to wait for something to do", |report| report.waits),
];

/// Gauges of which each worker has one.
const GAUGES: &[(&str, &str, Read)] = &[
    ("flows", "Flows now, with what is left of flows that a change ended until its time is over", |report| {
        report.flows
    }),
    ("flows_undecided", "Connections that have to name the resource that they want, now", |report| report.undecided),
    ("fragments_held", "Fragments that wait for the first of their packet, now", |report| report.fragments_held),
];

/// Why flows end.
const ENDS: &[(&str, Read)] = &[("timer", |report| report.flows_expired), ("evicted", |report| report.flows_evicted)];

/// What changes did to flows.
const OUTCOMES: &[(&str, Read)] = &[
    ("kept", |report| report.flows_kept),
    ("reset", |report| report.flows_reset),
    ("moved", |report| report.flows_moved),
];

/// What became of the search for a packet's flow.
const LOOKUPS: &[(&str, Read)] = &[("hit", |report| report.flow_hits), ("miss", |report| report.flow_misses)];

/// Reads how long something took for a worker.
type ReadTimes = fn(&Report) -> &TimesReport;

/// What is timed, one of 16 each.
const DURATIONS: &[(&str, &str, ReadTimes)] = &[
    ("batch_seconds", "How long a batch took, from its read to the last write, of one in 16", |report| {
        &report.batch_times
    }),
    ("first_packet_seconds", "How long a packet that met no flow took from there to its end, of one in 16", |report| {
        &report.first_packets
    }),
];

/// Reads one number of a port.
type ReadTraffic = fn(&Traffic) -> u64;

/// Counters of each port. Which way a packet took shows here: what an endpoint takes out of the tunnel is sent to the service,
/// and no more to the gateway.
const TRAFFIC: &[(&str, &str, ReadTraffic)] = &[
    ("port_received_packets", "Packets that the port's device delivered", |traffic| traffic.received),
    ("port_received_bytes", "Bytes that the port's device delivered, from the IP header on", |traffic| {
        traffic.received_bytes
    }),
    ("port_sent_packets", "Packets that the port's device took", |traffic| traffic.sent),
    ("port_sent_bytes", "Bytes that the port's device took, from the IP header on", |traffic| traffic.sent_bytes),
];

/// A device of a port, of one worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSeen {
    /// The port's name: `vm1`, `gateway`.
    pub port: String,
    /// The worker that it is a queue of.
    pub worker: u16,
    /// What went through it.
    pub traffic: Traffic,
    /// What the device is and has been granted, as it says now.
    pub device: String,
    /// What it counts itself.
    pub counters: Vec<(String, u64)>,
}

/// A pool of translated ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSeen {
    /// Its name in the document.
    pub name: String,
    /// What it is for.
    pub kind: PoolKind,
    /// How many IPv4 and IPv6 addresses it has.
    pub addresses: [u64; 2],
    /// Ports of each.
    pub ports: u64,
    /// Whether its mappings are endpoint-independent.
    pub maps: bool,
    /// Whether it takes only TCP and UDP.
    pub only_tcp_udp: bool,
    /// What is in use of it.
    pub counts: PoolCounts,
}

impl PoolSeen {
    fn kind(&self) -> &'static str {
        match self.kind {
            PoolKind::DefaultOutbound => "default_outbound",
            PoolKind::NatGateway => "nat_gateway",
            PoolKind::Snat => "snat_pool",
            PoolKind::Vacant => "none",
        }
    }

    /// Ports that it has for a protocol; none where that has no ports of its own, or is not translated.
    fn size(&self, space: PortSpace) -> Option<u64> {
        let [v4, v6] = self.addresses;
        let translated = match space.protocol() {
            "tcp" | "udp" => true,
            "icmp" => !self.only_tcp_udp,
            _ => false,
        };
        translated.then_some(self.ports * if space.is_v4() { v4 } else { v6 })
    }
}

/// What is told of a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Version of the program.
    pub version: String,
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// When it was put in force, in seconds since 1970 UTC.
    pub in_force_since: f64,
    /// Seconds that it took to be compiled.
    pub compiled_in: f64,
    /// When the node started, in seconds since 1970 UTC.
    pub started: f64,
    /// Most flows that there may be.
    pub flow_limit: u64,
    /// Whether packets are forwarded as they should be.
    pub ready: bool,
    /// What was recorded of flows, and lost.
    pub flow_log: FlowLogTotals,

    /// Whether no flow may begin.
    pub draining: bool,
    /// Each worker, by number.
    pub workers: Vec<Report>,
    /// Devices, in the order of ports.
    pub ports: Vec<PortSeen>,
    /// Pools of translated ports.
    pub pools: Vec<PoolSeen>,
    /// How devices failed, with the names of their ports.
    pub port_errors: Vec<(String, PortErrors)>,
}

/// The text of all metrics.
///
/// # Errors
/// Where the library does not take a metric, which no value of one can cause.
pub fn text(seen: Seen) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("sidestep");
    registry.register_collector(Box::new(seen));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Writes the rows of one metric.
struct Rows<'a, 'b>(&'a mut DescriptorEncoder<'b>);

/// Labels of a row.
type Labels<'a> = &'a [(&'a str, &'a str)];

impl Rows<'_, '_> {
    fn write<'l, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        rows: impl IntoIterator<Item = (Vec<(&'l str, &'l str)>, M)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in rows {
            let labels: Labels<'_> = &labels;
            value.encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A gauge of the whole node.
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Vec<(&'l str, &'l str)>, u64)>,
    ) -> Result<(), Error> {
        let rows = rows.into_iter().map(|(labels, count)| (labels, ConstCounter::new(count)));
        self.write(name, help, MetricType::Counter, rows)
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Vec<(&'l str, &'l str)>, f64)>,
    ) -> Result<(), Error> {
        let rows = rows.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.write(name, help, MetricType::Gauge, rows)
    }
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.node(&mut Rows(&mut encoder))?;
        self.workers(&mut Rows(&mut encoder))?;
        self.batches(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.ports(&mut Rows(&mut encoder))?;
        self.port_errors(&mut Rows(&mut encoder))?;
        self.pools(&mut Rows(&mut encoder))
    }
}

impl Seen {
    fn node(&self, rows: &mut Rows<'_, '_>) -> Result<(), Error> {
        rows.gauges("build_info", "The program, by its version", [(vec![("version", self.version.as_str())], 1.0)])?;
        rows.gauge("start_time_seconds", "When the node started, since 1970 UTC", self.started)?;
        let help = "1 where every port has its device, every worker serves it, and new flows are taken";
        rows.gauge("ready", help, f64::from(self.ready))?;
        rows.gauge("draining", "1 where no new flows are taken, on request", f64::from(self.draining))?;
        rows.gauge("snapshot_generation", "Generation of the snapshot in force", self.generation as f64)?;
        let help = "When the snapshot came in force, since 1970 UTC";
        rows.gauge("snapshot_in_force_time_seconds", help, self.in_force_since)?;
        rows.gauge("snapshot_compile_seconds", "How long the snapshot took to be compiled", self.compiled_in)?;
        rows.gauge("flows_limit", "Most flows that there may be", self.flow_limit as f64)?;
        let totals = &self.flow_log;
        for (name, help, count) in [
            ("flow_log_records", "Records of flows that were taken in, for flow logs", totals.records),
            (
                "flow_log_lost_records",
                "Records of flows that found no room in the workers' queues",
                totals.lost_records,
            ),
            ("flow_log_lost_packets", "Packets that lost records told of", totals.lost_packets),
            ("flow_log_lost_bytes", "Bytes that lost records told of", totals.lost_bytes),
            ("flow_log_unwritten_tuples", "Tuples that could not be written to a file", totals.unwritten),
            (
                "ipfix_records",
                "Data records that were sent to the IPFIX collector, and acknowledged over TCP",
                totals.exported,
            ),
            ("ipfix_lost_records", "Data records that did not reach it", totals.not_exported),
        ] {
            rows.counters(name, help, [(Vec::new(), count)])?;
        }
        Ok(())
    }

    fn workers(&self, rows: &mut Rows<'_, '_>) -> Result<(), Error> {
        let numbers: Vec<String> = (0..self.workers.len()).map(|number| number.to_string()).collect();
        let workers = || numbers.iter().map(String::as_str).zip(&self.workers);
        for (name, help, read) in COUNTERS {
            rows.counters(name, help, workers().map(|(number, report)| (vec![("worker", number)], read(report))))?;
        }
        for (name, help, read) in GAUGES {
            let gauges = workers().map(|(number, report)| (vec![("worker", number)], read(report) as f64));
            rows.gauges(name, help, gauges)?;
        }
        for (name, help, label, values) in [
            ("flow_lookups", "Packets by whether they met a flow, which decides what they cost", "result", LOOKUPS),
            ("flows_ended", "Flows that left the table, by cause; what changes left of flows, too", "cause", ENDS),
            ("flows_redecided", "Flows that were decided again after a change, by outcome", "outcome", OUTCOMES),
        ] {
            let each = workers().flat_map(|(number, report)| {
                let one = move |(value, read): &(&'static str, Read)| {
                    (vec![("worker", number), (label, *value)], read(report))
                };
                values.iter().map(one)
            });
            rows.counters(name, help, each)?;
        }
        // Those that never occurred are there, too, with 0: whoever watches a reason sees its first packet as an increase.
        let answers = workers().flat_map(|(number, report)| {
            Answer::ALL.iter().map(move |answer| {
                let count = report.answered.get(answer.name()).copied().unwrap_or(0);
                (vec![("worker", number), ("answer", answer.name())], count)
            })
        });
        rows.counters("answered_packets", "Packets that were answered here, by answer", answers)?;
        let drops = workers().flat_map(|(number, report)| {
            DropReason::ALL.iter().flat_map(move |reason| {
                let of = |counts: &BTreeMap<String, u64>| counts.get(reason.name()).copied().unwrap_or(0);
                let (all, inbound) = (of(&report.dropped), of(&report.dropped_inbound));
                let row = move |direction, count| {
                    (vec![("worker", number), ("reason", reason.name()), ("direction", direction)], count)
                };
                [row("outbound", all.saturating_sub(inbound)), row("inbound", inbound)]
            })
        });
        let help = "Packets that were dropped, by reason and direction: outbound where a NIC sent it, else inbound";
        rows.counters("dropped_packets", help, drops)
    }

    fn batches(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "Packets that were read from a port at once";
        let mut metric = encoder.encode_descriptor("batch_packets", help, None, MetricType::Histogram)?;
        for (number, report) in self.workers.iter().enumerate() {
            let buckets: Vec<(f64, u64)> =
                BATCH_SIZES.iter().map(|size| *size as f64).zip(report.batches.iter().copied()).collect();
            let number = number.to_string();
            let labels: Labels<'_> = &[("worker", &number)];
            let (sum, count) = (report.batched as f64, report.batches.iter().sum());
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        for (name, help, read) in DURATIONS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (number, report) in self.workers.iter().enumerate() {
                let times = read(report);
                let bounds = TIMES.iter().map(|nanoseconds| seconds(*nanoseconds));
                let buckets: Vec<(f64, u64)> = bounds.zip(times.counts.iter().copied()).collect();
                let number = number.to_string();
                let labels: Labels<'_> = &[("worker", &number)];
                let (sum, count) = (seconds(times.nanoseconds), times.count());
                metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn ports(&self, rows: &mut Rows<'_, '_>) -> Result<(), Error> {
        let numbers: Vec<String> = self.ports.iter().map(|port| port.worker.to_string()).collect();
        let ports = || self.ports.iter().zip(numbers.iter().map(String::as_str));
        for (name, help, read) in TRAFFIC {
            let each = ports()
                .map(|(port, number)| (vec![("port", port.port.as_str()), ("worker", number)], read(&port.traffic)));
            rows.counters(name, help, each)?;
        }
        let offloads = ports().flat_map(|(port, number)| {
            let granted: Vec<&str> = port.device.split([' ', ',']).skip_while(|word| *word != "offload").collect();
            OFFLOADS.map(|feature| {
                let labels = vec![("port", port.port.as_str()), ("worker", number), ("feature", feature)];
                (labels, f64::from(granted.contains(&feature)))
            })
        });
        rows.gauges("port_offload", "1 where the port's device does it for us, now", offloads)?;
        let events = ports().flat_map(|(port, number)| {
            port.counters.iter().map(move |(event, count)| {
                (vec![("port", port.port.as_str()), ("worker", number), ("event", event.as_str())], *count)
            })
        });
        rows.counters("port_events", "What the port's device counts itself, by event", events)
    }

    /// Use of pools, by family and protocol, each of which has ports of its own. Families that a pool has no address of are
    /// left out.
    fn pools(&self, rows: &mut Rows<'_, '_>) -> Result<(), Error> {
        let each = || {
            self.pools.iter().flat_map(|pool| {
                let has_family = |space: &PortSpace| pool.addresses[usize::from(!space.is_v4())] > 0;
                PortSpace::all().filter(has_family).map(move |space| {
                    let labels = vec![
                        ("pool", pool.name.as_str()),
                        ("kind", pool.kind()),
                        ("family", space.family()),
                        ("protocol", space.protocol()),
                    ];
                    (pool, space, labels)
                })
            })
        };
        let sizes = each().filter_map(|(pool, space, labels)| Some((labels, pool.size(space)? as f64)));
        rows.gauges("snat_pool_ports", "Ports of the pool, over all its addresses", sizes)?;
        let flows = each().map(|(pool, space, labels)| (labels, f64::from(pool.counts.flows[space.index()])));
        let help =
            "Flows that the pool translates, those too whose port rests; one port serves one flow to each destination";
        rows.gauges("snat_pool_flows", help, flows)?;
        let mapped = each().filter(|(pool, ..)| pool.maps);
        let mapped = mapped.map(|(pool, space, labels)| (labels, f64::from(pool.counts.mapped[space.index()])));
        let help =
            "Ports in use of a pool whose mappings are endpoint-independent; one port serves all flows of one socket";
        rows.gauges("snat_pool_mapped_ports", help, mapped)?;
        let exhausted = each().map(|(pool, space, labels)| (labels, pool.counts.exhausted[space.index()]));
        rows.counters("snat_pool_exhausted_packets", "Packets whose flow the pool had no free port for", exhausted)
    }

    fn port_errors(&self, rows: &mut Rows<'_, '_>) -> Result<(), Error> {
        let numbers: Vec<String> = self.port_errors.iter().map(|(_, errors)| errors.worker.to_string()).collect();
        let each = self.port_errors.iter().zip(&numbers).map(|((port, errors), number)| {
            let labels = vec![
                ("port", port.as_str()),
                ("worker", number.as_str()),
                ("operation", errors.operation.name()),
                ("errno", errors.errno),
            ];
            (labels, errors.count)
        });
        let help = "Reads and writes that the port's device refused, by the kernel's name for the error";
        rows.counters("port_errors", help, each)
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::path::counters::Counters;
    use crate::path::nsg::Direction;
    use crate::snapshot::PortId;
    use crate::worker::Operation;

    fn seen() -> Seen {
        let counters = Counters::new();
        counters.received.add(7);
        counters.forwarded.add(3);
        counters.count_answer(Answer::ALL[0]);
        counters.count_drops(DropReason::ALL[1], Direction::Outbound, 3);
        counters.count_drops(DropReason::ALL[1], Direction::Inbound, 2);
        for size in [0, 1, 3, 64] {
            counters.count_batch(size);
        }
        for nanoseconds in [250, 600, 700, 30_000_000] {
            counters.first_packets.add(nanoseconds);
        }
        counters.batch_times.add(9_000);
        counters.timed_packets.add(8);
        let report = Report::sum(&[Arc::new(counters)]);
        let port = |worker, device: &str| PortSeen {
            port: "vm1".to_owned(),
            worker,
            traffic: Traffic { received: 2, sent: 9, ..Traffic::default() },
            device: device.to_owned(),
            counters: vec![("cut_in_software".to_owned(), 5)],
        };
        let mut counts = PoolCounts::default();
        for (place, (flows, mapped)) in counts.flows.iter_mut().zip(&mut counts.mapped).enumerate() {
            (*flows, *mapped) = (10 + place as u32, 20 + place as u32);
        }
        counts.exhausted[PortSpace::of(true, 17).index()] = 5;
        let pool = |name: &str, kind| PoolSeen {
            name: name.to_owned(),
            kind,
            addresses: [1, 1],
            ports: 1_000,
            maps: true,
            only_tcp_udp: false,
            counts,
        };
        let (port_number, operation) = (PortId(7), Operation::Write);
        let write_error = PortErrors { port: port_number, worker: 1, operation, errno: "EIO", count: 6 };
        Seen {
            version: "1.2.3".to_owned(),
            generation: 4,
            flow_log: FlowLogTotals { records: 9, lost_records: 2, exported: 7, ..FlowLogTotals::default() },
            in_force_since: 1_000.5,
            workers: vec![report.clone(), report],
            pools: vec![
                PoolSeen { maps: false, addresses: [2, 0], ..pool("egress", PoolKind::NatGateway) },
                PoolSeen { only_tcp_udp: true, ..pool("egress", PoolKind::Snat) },
            ],
            port_errors: vec![("vm1".to_owned(), write_error)],
            ports: vec![port(0, "tun eth0, offload checksum tcp4, pcap x"), port(1, "tun eth0, plain")],
            ..Seen::default()
        }
    }

    fn value(text: &str, row: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {row} in {text}")).parse().unwrap()
    }

    #[test]
    fn what_workers_count_is_told_by_worker_and_reason() {
        let text = text(seen()).unwrap();
        assert!(text.contains("# TYPE sidestep_received_packets_total counter\n"), "{text}");
        let (answer, reason) = (Answer::ALL[0].name(), DropReason::ALL[1].name());
        for worker in 0..2 {
            assert_eq!(value(&text, &format!("sidestep_received_packets_total{{worker=\"{worker}\"}}")), 7.0);
            let answered = format!("sidestep_answered_packets_total{{worker=\"{worker}\",answer=\"{answer}\"}}");
            assert_eq!(value(&text, &answered), 1.0);
            for (direction, packets) in [("outbound", 3.0), ("inbound", 2.0)] {
                let labels = format!("worker=\"{worker}\",reason=\"{reason}\",direction=\"{direction}\"");
                assert_eq!(value(&text, &format!("sidestep_dropped_packets_total{{{labels}}}")), packets);
            }
        }
        assert_eq!(value(&text, "sidestep_snapshot_generation"), 4.0);
        assert_eq!(value(&text, "sidestep_snapshot_in_force_time_seconds"), 1_000.5);
        assert_eq!(value(&text, "sidestep_build_info{version=\"1.2.3\"}"), 1.0);
    }

    /// What never happened is there: an alert on an increase needs the zero before it.
    #[test]
    fn every_reason_and_answer_has_a_row() {
        let text = text(seen()).unwrap();
        for (reason, direction) in DropReason::ALL.iter().flat_map(|reason| [(reason, "outbound"), (reason, "inbound")])
        {
            let labels = format!("worker=\"0\",reason=\"{}\",direction=\"{direction}\"", reason.name());
            value(&text, &format!("sidestep_dropped_packets_total{{{labels}}}"));
        }
        for answer in Answer::ALL {
            value(&text, &format!("sidestep_answered_packets_total{{worker=\"1\",answer=\"{}\"}}", answer.name()));
        }
    }

    #[test]
    fn batches_are_a_histogram() {
        let text = text(seen()).unwrap();
        let bucket =
            |bound: &str| value(&text, &format!("sidestep_batch_packets_bucket{{worker=\"0\",le=\"{bound}\"}}"));
        assert_eq!(["1", "2", "4", "32", "64", "+Inf"].map(bucket), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(value(&text, "sidestep_batch_packets_sum{worker=\"0\"}"), 68.0);
        assert_eq!(value(&text, "sidestep_batch_packets_count{worker=\"0\"}"), 3.0);
    }

    #[test]
    fn times_are_histograms_in_seconds() {
        let text = text(seen()).unwrap();
        let first = |row: &str| value(&text, &format!("sidestep_first_packet_seconds_{row}"));
        let bucket = |bound: &str| first(&format!("bucket{{worker=\"1\",le=\"{bound}\"}}"));
        assert_eq!(["2.5e-07", "5e-07", "1e-06", "0.025", "+Inf"].map(bucket), [1.0, 1.0, 3.0, 3.0, 4.0]);
        assert_eq!(first("sum{worker=\"1\"}"), 0.030_001_55);
        assert_eq!(first("count{worker=\"1\"}"), 4.0);
        assert_eq!(value(&text, "sidestep_batch_seconds_sum{worker=\"0\"}"), 9e-6);
        assert_eq!(value(&text, "sidestep_timed_packets_total{worker=\"0\"}"), 8.0);
    }

    #[test]
    fn offloads_are_what_the_device_says_now() {
        let text = text(seen()).unwrap();
        let offload = |worker: u16, feature: &str| {
            value(&text, &format!("sidestep_port_offload{{port=\"vm1\",worker=\"{worker}\",feature=\"{feature}\"}}"))
        };
        assert_eq!(OFFLOADS.map(|feature| offload(0, feature)), [1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(OFFLOADS.map(|feature| offload(1, feature)), [0.0; 5]);
        let events = "sidestep_port_events_total{port=\"vm1\",worker=\"1\",event=\"cut_in_software\"}";
        assert_eq!(value(&text, events), 5.0);
    }

    /// The way that packets take shows by the port that they leave through.
    #[test]
    fn ports_tell_what_went_through_them() {
        let text = text(seen()).unwrap();
        let of = |name: &str| value(&text, &format!("sidestep_port_{name}_total{{port=\"vm1\",worker=\"1\"}}"));
        assert_eq!(["received_packets", "received_bytes", "sent_packets", "sent_bytes"].map(of), [2.0, 0.0, 9.0, 0.0]);
    }

    /// Of two pools of one name, each has rows of its own, by family and protocol.
    #[test]
    fn pools_tell_what_is_in_use_of_them() {
        let text = text(seen()).unwrap();
        let of = |name: &str, kind: &str, family: &str, protocol: &str| {
            let row = format!(
                "sidestep_snat_pool_{name}{{pool=\"egress\",kind=\"{kind}\",family=\"{family}\",protocol=\"{protocol}\"}}"
            );
            text.lines().find_map(|line| line.strip_prefix(&*row)?.strip_prefix(' ')?.parse::<f64>().ok())
        };
        let gateway = |name, family, protocol| of(name, "nat_gateway", family, protocol);
        assert_eq!(gateway("ports", "ipv4", "icmp"), Some(2_000.0));
        assert_eq!(gateway("ports", "ipv4", "other"), None);
        assert_eq!(gateway("flows", "ipv4", "tcp"), Some(10.0));
        assert_eq!(gateway("flows", "ipv4", "other"), Some(13.0));
        assert_eq!(gateway("flows", "ipv6", "tcp"), None, "it has no such addresses");
        assert_eq!(gateway("mapped_ports", "ipv4", "tcp"), None, "its mappings depend on the destination");
        assert_eq!(gateway("exhausted_packets_total", "ipv4", "udp"), Some(5.0));
        assert_eq!(gateway("exhausted_packets_total", "ipv4", "tcp"), Some(0.0));
        let pool = |name, family, protocol| of(name, "snat_pool", family, protocol);
        assert_eq!(pool("ports", "ipv6", "tcp"), Some(1_000.0));
        assert_eq!(pool("ports", "ipv6", "icmp"), None, "it is not translated");
        assert_eq!(pool("mapped_ports", "ipv6", "udp"), Some(25.0));
    }

    #[test]
    fn refusals_of_devices_have_the_kernels_names() {
        let row = "sidestep_port_errors_total{port=\"vm1\",worker=\"1\",operation=\"write\",errno=\"EIO\"}";
        assert_eq!(value(&text(seen()).unwrap(), row), 6.0);
    }

    /// The dashboard that is kept beside the configuration asks for metrics that there are, and for nearly all of them.
    #[test]
    fn the_dashboard_asks_for_metrics_that_there_are() {
        let dashboard = include_str!("../../config/grafana-dashboard.json");
        let json: serde_json::Value = serde_json::from_str(dashboard).unwrap();
        assert!(json["panels"].as_array().unwrap().len() > 10);
        let text = text(seen()).unwrap();
        let known: Vec<&str> = text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
        let asked = dashboard.match_indices("sidestep_").map(|(start, _)| {
            let rest = &dashboard[start..];
            &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap()]
        });
        let asked: std::collections::BTreeSet<&str> = asked.collect();
        for metric in &asked {
            assert!(known.contains(metric), "there is no {metric}");
        }
        // What counts packets once more, or is for those who look closer.
        let left_out = [
            "sidestep_build_info",
            "sidestep_flow_log_lost_bytes_total",
            "sidestep_flow_log_lost_packets_total",
            "sidestep_fragments_held",
            "sidestep_generated_packets_total",
            "sidestep_taken_over_packets_total",
        ];
        let named = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        for name in named.filter(|name| !left_out.contains(name)) {
            assert!(asked.iter().any(|metric| metric.starts_with(name)), "no panel for {name}");
        }
    }
}
