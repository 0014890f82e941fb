//! The packet path in memory, one core: cost of a packet that meets a flow, with few and with many flows, and of a first
//! packet, without network security groups and with groups of 1,000 rules over the tags of Azure's weekly file, where there
//! is one. Run with `cargo bench --bench path`.

#[path = "../tests/behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
#[path = "inputs/forwarding.rs"]
#[allow(dead_code, reason = "shared with other benchmarks, which use more of it")]
mod forwarding;
#[path = "../tests/behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;
#[path = "inputs/tags.rs"]
#[allow(dead_code, reason = "shared with other benchmarks, which use more of it")]
mod tags;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sidestep::packet::frame::Frame;
use sidestep::path::Verdict;

use forwarding::{Sink, forwarder, packet, processor_time};

/// Room for flows.
const FLOW_LIMIT: u32 = 2_000_000;

fn established(criterion: &mut Criterion) {
    let snapshot = forwarding::network_with_endpoint(FLOW_LIMIT);
    let vm1 = forwarding::port(&snapshot, "vm1");
    let mut group = criterion.benchmark_group("established");
    group.throughput(Throughput::Elements(1));
    for flows in [1_u32, 1_024, 1_032_192] {
        let mut forwarder = forwarder(snapshot.clone(), FLOW_LIMIT as usize);
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
    let snapshot = forwarding::network_with_endpoint(FLOW_LIMIT);
    let vm1 = forwarding::port(&snapshot, "vm1");
    let mut group = criterion.benchmark_group("first packet");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 new flows", |bencher| {
        bencher.iter_batched_ref(
            || {
                (
                    forwarder(snapshot.clone(), FLOW_LIMIT as usize),
                    (0..1_000).map(|number| Frame::from_packet(&packet(number))).collect::<Vec<_>>(),
                )
            },
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

fn first_packet_with_rules(criterion: &mut Criterion) {
    let catalogue = Arc::new(tags::catalogue());
    let packets = forwarding::packets_anywhere(&catalogue, 16_384);
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
        let text = forwarding::network_with_rules(&catalogue, users, 1_000, allowing_last);
        let start = Instant::now();
        let snapshot = forwarding::compile(&text, &catalogue);
        println!(
            "{name}: read and compiled in {:?}, {} classes in {} bytes, rules in {} bytes",
            start.elapsed(),
            snapshot.address_sets.count(),
            snapshot.address_sets.memory(),
            snapshot
                .nsgs
                .iter()
                .map(|nsg| nsg.inbound.classifier.memory() + nsg.outbound.classifier.memory())
                .sum::<usize>()
        );
        let vm1 = forwarding::port(&snapshot, "vm1");
        let mut forwarder = forwarder(snapshot, 32_768);
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
