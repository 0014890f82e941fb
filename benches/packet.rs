//! What the packet room costs per packet, beside etherparse where it does the same.

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::{PacketBuilder, SlicedPacket};
use sidestep::packet::checksum;
use sidestep::packet::frame::{Checksum, Frame, SegmentKind, Segmentation};
use sidestep::packet::parse::parse;
use sidestep::packet::rewrite::{Translation, decrement_hop_limit, translate};
use sidestep::packet::segment::segment;

fn packets() -> [(&'static str, Vec<u8>); 3] {
    let mut packets = [("tcp4", Vec::new()), ("tcp6", Vec::new()), ("udp4", Vec::new())];
    let [(_, tcp4), (_, tcp6), (_, udp4)] = &mut packets;
    let payload = [0x5a; 1400];
    let v4 = || PacketBuilder::ipv4([10, 1, 0, 4], [20, 60, 1, 7], 64);
    let v6 = PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64);
    v4().tcp(40_000, 443, 1, 512).ack(2).write(tcp4, &payload).expect("a packet");
    v6.tcp(40_000, 443, 1, 512).ack(2).write(tcp6, &payload).expect("a packet");
    v4().udp(40_000, 53).write(udp4, &payload).expect("a packet");
    packets
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, packet) in packets() {
        // Results are used where they lie, as the path does; a copy would cost as much as the parsing.
        group.bench_function(BenchmarkId::new("sidestep", name), |b| {
            b.iter(|| {
                black_box(&parse(black_box(&packet)));
            });
        });
        group.bench_function(BenchmarkId::new("etherparse", name), |b| {
            b.iter(|| {
                black_box(&SlicedPacket::from_ip(black_box(&packet)));
            });
        });
    }
    group.finish();
}

fn summing(c: &mut Criterion) {
    let mut group = c.benchmark_group("sum");
    for length in [20, 40, 64, 1500, 65_535] {
        let bytes: Vec<u8> = (0..length).map(|index: u32| index as u8).collect();
        group.throughput(Throughput::Bytes(u64::from(length)));
        group.bench_function(BenchmarkId::from_parameter(length), |b| b.iter(|| checksum::sum(black_box(&bytes))));
    }
    group.finish();
}

fn rewriting(c: &mut Criterion) {
    let mut group = c.benchmark_group("rewrite");
    for (name, packet) in packets() {
        let parsed = parse(&packet).expect("a packet");
        let other: IpAddr =
            if parsed.is_v4() { [192, 0, 2, 1].into() } else { "2001:db8::1".parse().expect("an address") };
        let to = Translation {
            source: other,
            destination: parsed.destination(),
            source_port: 1024,
            destination_port: parsed.destination_port,
        };
        for state in ["complete", "partial"] {
            let mut frame = Frame::from_packet(&packet);
            if state == "partial" {
                let offset = if parsed.protocol == 6 { 16 } else { 6 };
                frame.offload.checksum = Checksum::Partial { start: parsed.transport, offset };
            }
            group.bench_function(BenchmarkId::new(format!("translate-{state}"), name), |b| {
                b.iter(|| translate(black_box(&mut frame), black_box(&parsed), black_box(&to)));
            });
        }
        let mut frame = Frame::from_packet(&packet);
        group.bench_function(BenchmarkId::new("hop-limit", name), |b| {
            b.iter(|| {
                // Put back what is taken, so that the packet never runs out.
                if let Some(limit) = frame.bytes_mut().get_mut(if parsed.is_v4() { 8 } else { 7 }) {
                    *limit = 64;
                }
                decrement_hop_limit(black_box(&mut frame), black_box(&parsed))
            });
        });
    }
    group.finish();
}

fn segmenting(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([10, 1, 0, 4], [20, 60, 1, 7], 64).tcp(40_000, 443, 1, 512).ack(2);
    builder.write(&mut packet, &vec![0x5a; 44 * 1448]).expect("a packet");
    let parsed = parse(&packet).expect("a packet");
    let mut frame = Frame::from_packet(&packet);
    frame.offload.checksum = Checksum::Partial { start: 20, offset: 16 };
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 1448, ecn: false });
    let mut scratch = Frame::new();
    group.throughput(Throughput::Elements(44));
    group.bench_function("tcp4 of 44", |b| {
        b.iter(|| {
            segment(black_box(&frame), &parsed, &mut scratch, |piece| {
                black_box(piece.bytes());
            })
        });
    });
    group.finish();
}

criterion_group!(benches, parsing, summing, rewriting, segmenting);
criterion_main!(benches);
