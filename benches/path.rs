//! The packet path in memory, one core: cost of a packet that meets a flow, with few and with many flows, and of a first
//! packet, without network security groups and with groups of 1,000 rules over the tags of Azure's weekly file, where there
//! is one. Run with `cargo bench --bench path`.

#[path = "../tests/behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
#[path = "../tests/behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;
use rustix::time::{ClockId, clock_gettime};
use sidestep::packet::frame::Frame;
use sidestep::path::counters::Counters;
use sidestep::path::forwarder::Settings;
use sidestep::path::shared::Shared;
use sidestep::path::{Egress, Forwarder, SendFailure, Verdict};
use sidestep::plan::Plan;
use sidestep::snapshot::{PortId, Snapshot};
use sidestep::tags::Catalogue;

use bench::{Bench, NETWORK};
use packets::udp;

/// Takes every packet and keeps none.
struct Sink;

impl Egress for Sink {
    fn send(&mut self, _now: u64, _port: PortId, frame: &mut Frame) -> Result<(), SendFailure> {
        black_box(frame.bytes());
        Ok(())
    }
}

fn forwarder(bench: &Bench) -> Forwarder {
    forwarder_of(bench.forwarder.snapshot().clone(), 2_000_000)
}

fn forwarder_of(snapshot: Arc<Snapshot>, flow_limit: usize) -> Forwarder {
    let settings = Settings { flow_limit, seed: 11, worker: 0, shared: Arc::new(Shared::new(1)) };
    Forwarder::new(snapshot, Arc::new(Counters::new()), settings)
}

/// A packet of flow `number` from vm1 to the service.
fn packet(number: u32) -> Vec<u8> {
    let port = (number % 60_000) as u16 + 1_000;
    let service = (number / 60_000) as u16 + 1;
    udp(("10.1.1.4", port), ("20.60.1.10", service), &[0; 22])
}

fn established(criterion: &mut Criterion) {
    let bench = Bench::with_endpoint();
    let vm1 = bench.port("vm1");
    let mut group = criterion.benchmark_group("established");
    group.throughput(Throughput::Elements(1));
    for flows in [1_u32, 1_024, 1_032_192] {
        let mut forwarder = forwarder(&bench);
        let mut frame = Frame::new();
        for number in 0..flows {
            frame.set_packet(&packet(number));
            assert!(matches!(forwarder.receive(0, vm1, &mut frame, &mut Sink), Verdict::Forwarded(_)));
        }
        // Packets are prepared, so that what is timed is a copy of 50 bytes and the path; every flow's turn comes in an
        // order that no prefetcher guesses.
        let mut random = fastrand::Rng::with_seed(5);
        let order: Vec<Vec<u8>> = (0..flows.min(65_536)).map(|_| packet(random.u32(..flows))).collect();
        let mut next = 0;
        group.bench_function(format!("{flows} flows"), |bencher| {
            bencher.iter(|| {
                frame.set_packet(&order[next]);
                next = (next + 1) % order.len();
                forwarder.receive(0, vm1, &mut frame, &mut Sink)
            });
        });
    }
    group.finish();
}

fn first_packet(criterion: &mut Criterion) {
    let bench = Bench::with_endpoint();
    let vm1 = bench.port("vm1");
    let mut group = criterion.benchmark_group("first packet");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 new flows", |bencher| {
        bencher.iter_batched_ref(
            || (forwarder(&bench), (0..1_000).map(|number| Frame::from_packet(&packet(number))).collect::<Vec<_>>()),
            |(forwarder, frames)| {
                for frame in frames {
                    black_box(forwarder.receive(0, vm1, frame, &mut Sink));
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Azure's weekly file, which `SIDESTEP_TAGS` names or `../shared/data` has, else the catalogue of the project.
fn catalogue() -> Arc<Catalogue> {
    let path = std::env::var_os("SIDESTEP_TAGS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json"),
        PathBuf::from,
    );
    match Catalogue::load(&path) {
        Ok(catalogue) => Arc::new(catalogue),
        Err(error) => {
            eprintln!("{}: {error}; measuring with the project's catalogue", path.display());
            bench::catalogue()
        }
    }
}

/// The behaviour tests' network with groups of 1,000 rules, all about tags and ports that no packet here has but for one
/// that allows everything: the last, or the first.
fn network_with_rules(catalogue: &Catalogue, users: &[&str], allowing_last: bool) -> String {
    let tags: Vec<&str> =
        catalogue.tags().filter(|tag| tag.has_feature("NSG") && tag.prefix_count() > 0).map(|tag| &*tag.name).collect();
    let mut text = format!("tags = \"service-tags.json\"\n{NETWORK}");
    for (number, user) in users.iter().enumerate() {
        let place = format!("name = \"{user}\"\n");
        text = text.replace(&place, &format!("{place}network_security_group = \"g{number}\"\n"));
        let mut rules = String::new();
        for rule in 0..999 {
            let (source, destination) = match rule % 3 {
                0 => ("*", tags[(rule * 2 + number) % tags.len()]),
                1 => ("VirtualNetwork", tags[(rule * 2 + number) % tags.len()]),
                _ => (tags[(rule * 2 + number) % tags.len()], tags[(rule * 2 + number + 1) % tags.len()]),
            };
            let first = 1_000 + rule * 50;
            // Writing to a String cannot fail.
            let _ = writeln!(
                rules,
                "{{ name = \"r{rule}\", priority = {}, direction = \"Outbound\", access = \"Deny\", protocol = \"Udp\", \
                 source_address_prefix = \"{source}\", destination_address_prefix = \"{destination}\", \
                 destination_port_range = \"{first}-{}\" }},",
                200 + rule,
                first + 49
            );
        }
        let _ = writeln!(
            text,
            "[[network_security_group]]\nname = \"g{number}\"\nsecurity_rules = [{rules}\
             {{ name = \"rest\", priority = {}, direction = \"Outbound\", access = \"Allow\", protocol = \"*\", \
             destination_port_range = \"*\" }}]",
            if allowing_last { 4_000 } else { 100 }
        );
    }
    text
}

/// What this thread has used of a processor: what others do on the machine counts by what it does to caches alone.
fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

fn first_packet_with_rules(criterion: &mut Criterion) {
    let catalogue = catalogue();
    let mut random = Rng::with_seed(9);
    let prefixes: Vec<Ipv4Addr> =
        catalogue.tags().flat_map(|tag| tag.prefixes_v4.iter().map(|prefix| prefix.network())).collect();
    // Everywhere in the catalogue, to ports below those of the rules that deny.
    let packets: Vec<Vec<u8>> = (0..16_384_u32)
        .map(|_| {
            let to = prefixes[random.usize(..prefixes.len())].to_string();
            udp(("10.1.1.4", random.u16(1_024..)), (&to, random.u16(1..1_000)), &[0; 22])
        })
        .collect();
    let mut group = criterion.benchmark_group("first packet, anywhere in the catalogue");
    group.sample_size(30);
    group.throughput(Throughput::Elements(packets.len() as u64));
    let cases: [(&str, &[&str], bool); 4] = [
        ("no rules", &[], true),
        ("1,000 rules at the subnet, the last allows", &["workload"], true),
        ("1,000 rules at the subnet, the first allows", &["workload"], false),
        ("1,000 rules at the NIC and 1,000 at the subnet, the last allow", &["vm1", "workload"], true),
    ];
    for (name, users, allowing_last) in cases {
        let text = network_with_rules(&catalogue, users, allowing_last);
        let network = sidestep::model::parse(&text, Path::new("bench.toml"), Some(&*catalogue))
            .unwrap_or_else(|mistakes| panic!("the document is wrong:\n{mistakes}"));
        let start = Instant::now();
        let plan = Plan::new(Arc::new(network), catalogue.clone());
        let snapshot = Arc::new(plan.compile(1, None).expect("the catalogue has every tag"));
        println!(
            "{name}: compiled in {:?}, {} classes in {} bytes, rules in {} bytes",
            start.elapsed(),
            snapshot.address_sets.count(),
            snapshot.address_sets.memory(),
            snapshot
                .nsgs
                .iter()
                .map(|nsg| nsg.inbound.classifier.memory() + nsg.outbound.classifier.memory())
                .sum::<usize>()
        );
        let vm1 = PortId(snapshot.ports.iter().position(|port| port.name == "vm1").expect("a port") as u16);
        let mut forwarder = forwarder_of(snapshot, 32_768);
        let (mut frame, mut now) = (Frame::new(), 0);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    let start = processor_time();
                    for packet in &packets {
                        frame.set_packet(packet);
                        black_box(forwarder.receive(now, vm1, &mut frame, &mut Sink));
                    }
                    spent += processor_time() - start;
                    assert!(forwarder.flow_count() > packets.len() * 9 / 10, "nearly every packet was a first one");
                    // All flows end, and their memory is there for the next round.
                    while forwarder.flow_count() > 0 {
                        now += 1_000_000;
                        forwarder.expire(now, 100_000, &mut Sink);
                    }
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, established, first_packet, first_packet_with_rules);
criterion_main!(benches);
