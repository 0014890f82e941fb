//! A packet that meets a flow allocates nothing, nor does a batch of them: counted by an allocator of this test's own.

#[path = "behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
#[path = "behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sidestep::packet::frame::{Checksum, Frame};
use sidestep::packet::merge::{Merged, Piece};
use sidestep::path::{Egress, SendFailure, Verdict};
use sidestep::snapshot::PortId;
use sidestep::table::flow::{FlowKey, FlowTable};

use bench::Bench;
use packets::{Tcp, udp};
use sidestep::path::record::Records;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the count is a plain thread-local cell.
#[allow(unsafe_code, reason = "the trait of allocators is unsafe; this is a test")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Takes every packet and keeps none.
struct Sink(u64);

impl Egress for Sink {
    fn send(&mut self, _now: u64, _port: PortId, _frame: &mut Frame) -> Result<(), SendFailure> {
        self.0 += 1;
        Ok(())
    }
}

/// What a worker does around the path with small packets that come together.
#[test]
fn batches_allocate_nothing() {
    let mut flows: FlowTable<u32, [u64; 8]> = FlowTable::new(1_000, 3);
    let key = |number: u32, port| FlowKey::new(number, 7_u32, 1, 2, port, 17);
    for number in 0..1_000 {
        flows.insert(key(number, 0), key(number, 1), [0; 8], 1_000, true).expect("room for the flow");
    }
    let packet = udp(("10.1.1.4", 5), ("20.60.1.10", 443), b"x");
    let mut frames: Vec<Frame> = (0..64).map(|_| Frame::new()).collect();
    let mut merged = Merged::new();
    let before = COUNT.with(Cell::get);
    for _ in 0..100 {
        flows.approach((0..200).map(|number| key(number, 1)));
        for (number, frame) in (0_u16..).zip(&mut frames) {
            frame.set_packet(&packet);
            frame.bytes_mut()[4..6].copy_from_slice(&number.to_be_bytes());
            frame.offload.checksum = Checksum::Partial { start: 20, offset: 6 };
            let piece = Piece::of(frame).expect("a datagram");
            if number == 0 {
                merged.begin(frame, piece);
            } else {
                assert!(merged.add(frame, &piece), "datagram {number}");
            }
        }
        assert_eq!(merged.count(), 64);
        assert_eq!(merged.finish().len(), 28 + 64);
    }
    assert_eq!(COUNT.with(Cell::get) - before, 0, "allocations in 100 batches");
}

#[test]
fn a_flow_hit_allocates_nothing() {
    for logged in [false, true] {
        let mut bench = Bench::with_endpoint();
        if !logged {
            bench.log_nothing();
        }
        hit(bench);
    }
    // The counter counts: a box is one.
    let before = COUNT.with(Cell::get);
    let boxed = std::hint::black_box(Box::new(1_u64));
    assert_eq!(COUNT.with(Cell::get) - before, 1);
    drop(boxed);
}

fn hit(mut bench: Bench) {
    let (vm1, vm3, service) = (bench.port("vm1"), bench.port("vm3"), bench.port("contosodata"));
    bench.forward("vm1", Tcp::default().bytes(), "contosodata");
    bench.forward("vm1", udp(("fd00:1:0:1::4", 5), ("2603:1020:206:100::10", 443), b"x"), "contosodata");
    let translated = bench.forward("vm3", udp(("10.1.3.4", 5), ("198.51.100.80", 53), b"x"), "internet");
    let internet = bench.port("internet");
    let packets = [
        (vm1, Tcp { flags: "A", acknowledgment: 1, ..Tcp::default() }.bytes()),
        (service, Tcp { from: ("20.60.1.10", 443), to: ("10.1.1.4", 40_000), flags: "SA", ..Tcp::default() }.bytes()),
        (vm1, udp(("fd00:1:0:1::4", 5), ("2603:1020:206:100::10", 443), b"y")),
        (vm3, udp(("10.1.3.4", 5), ("198.51.100.80", 53), b"y")),
        (internet, udp(("198.51.100.80", 53), ("203.0.113.200", translated.source_port), b"y")),
    ];
    let mut frame = Frame::new();
    let mut sink = Sink(0);
    let before = COUNT.with(Cell::get);
    for _ in 0..1_000 {
        for (port, packet) in &packets {
            frame.set_packet(packet);
            let verdict = bench.forwarder.receive(bench.now, *port, &mut frame, &mut sink);
            assert!(matches!(verdict, Verdict::Forwarded(_)), "{verdict:?}");
        }
    }
    assert_eq!(COUNT.with(Cell::get) - before, 0, "allocations in 5,000 flow hits");
    assert_eq!(sink.0, 5_000);
    assert_eq!(bench.report().flow_hits, 5_000);
}

/// What is told of flows is kept in memory that is asked for once: neither flows that begin nor those that were there make it
/// grow.
#[test]
fn flows_that_are_told_allocate_nothing() {
    const FLOWS: u16 = 900;
    let mut bench = Bench::with_endpoint();
    let vm1 = bench.port("vm1");
    let mut frame = Frame::new();
    let mut sink = Sink(0);
    let mut begin = |bench: &mut Bench| {
        let packets: Vec<_> =
            (0..FLOWS).map(|port| udp(("10.1.1.4", 1_000 + port), ("20.60.1.10", 443), b"x")).collect();
        let before = COUNT.with(Cell::get);
        for packet in &packets {
            frame.set_packet(packet);
            let verdict = bench.forwarder.receive(bench.now, vm1, &mut frame, &mut sink);
            assert!(matches!(verdict, Verdict::Forwarded(_)), "{verdict:?}");
        }
        COUNT.with(Cell::get) - before
    };
    bench.log_nothing();
    // The table has its memory.
    begin(&mut bench);
    let end = |bench: &mut Bench| {
        for _ in 0..400 {
            bench.now += 1_000;
            bench.expire();
        }
        assert_eq!(bench.forwarder.flow_count(), 0);
    };
    end(&mut bench);
    let records = std::sync::Arc::new(Records::default());
    let _ = bench.forwarder.log_to(Some(records.clone()), bench.now);
    assert_eq!(begin(&mut bench), 0, "allocations while flows begin");
    assert_eq!(std::iter::from_fn(|| records.take()).count(), usize::from(FLOWS));
    // Others want records: these flows were there.
    let records = std::sync::Arc::new(Records::default());
    let _ = bench.forwarder.log_to(Some(records.clone()), bench.now);
    let before = COUNT.with(Cell::get);
    bench.expire();
    assert_eq!(COUNT.with(Cell::get) - before, 0, "allocations while they are looked at");
    end(&mut bench);
    let told: Vec<_> = std::iter::from_fn(|| records.take()).collect();
    assert!(told.len() >= usize::from(FLOWS), "{}", told.len());
    assert!(told.iter().all(|record| record.packets == [0, 0]), "what was before is not told");
}
