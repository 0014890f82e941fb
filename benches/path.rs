//! The packet path in memory, one core: cost of a packet that meets a flow, with few and with many flows, and of a first
//! packet. Run with `cargo bench --bench path`.

#[path = "../tests/behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
#[path = "../tests/behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sidestep::packet::frame::Frame;
use sidestep::path::counters::Counters;
use sidestep::path::forwarder::Settings;
use sidestep::path::shared::Shared;
use sidestep::path::{Egress, Forwarder, SendFailure, Verdict};
use sidestep::snapshot::PortId;

use bench::Bench;
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
    let settings = Settings { flow_limit: 2_000_000, seed: 11, worker: 0, shared: Arc::new(Shared::new(1)) };
    Forwarder::new(bench.forwarder.snapshot().clone(), Arc::new(Counters::new()), settings)
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

criterion_group!(benches, established, first_packet);
criterion_main!(benches);
