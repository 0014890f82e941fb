//! Benchmarks of the tables: prefix lookup and build beside the crates that could be used instead, and the flow table.
//!
//! The prefixes are the distinct ones of Azure's weekly service-tag file, which `SIDESTEP_TAGS` names, or
//! `../shared/data` has; without it a made-up set of the same size and mix of lengths is used, and said so. Memory is
//! printed before the first measurement.

#[path = "inputs/tags.rs"]
#[allow(dead_code, reason = "shared with other benchmarks, which use more of it")]
mod tags;

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;
use ip_network_table_deps_treebitmap::IpLookupTable;
use ipnet::{Ipv4Net, Ipv6Net};
use poptrie::Poptrie;
use prefix_trie::PrefixMap;
use sidestep::table::directory::Directory;
use sidestep::table::flow::{FlowKey, FlowTable};
use sidestep::table::prefix::{Address, PrefixTable};
use sidestep::table::quota::Quota;

use tags::{ADDRESSES, addresses_v4, addresses_v6, prefixes};

fn prefix(criterion: &mut Criterion) {
    let (v4, v6) = prefixes();
    let mut random = Rng::with_seed(1);
    let (addresses4, addresses6) = (addresses_v4(&v4, &mut random), addresses_v6(&v6, &mut random));
    let nets4 = || v4.iter().map(|(a, l, v)| (Ipv4Net::new((*a).into(), *l).expect("a length"), *v));
    let nets6 = || v6.iter().map(|(a, l, v)| (Ipv6Net::new((*a).into(), *l).expect("a length"), *v));
    let build_treebitmap4 = || {
        let mut table = IpLookupTable::new();
        for (address, length, value) in &v4 {
            table.insert(Ipv4Addr::from(*address), u32::from(*length), *value);
        }
        table
    };
    let build_treebitmap6 = || {
        let mut table = IpLookupTable::new();
        for (address, length, value) in &v6 {
            table.insert(Ipv6Addr::from(*address), u32::from(*length), *value);
        }
        table
    };
    let (ours4, ours6) = (PrefixTable::build(v4.clone()), PrefixTable::build(v6.clone()));
    let (poptrie4, poptrie6): (Poptrie<_, u32>, Poptrie<_, u32>) = (nets4().collect(), nets6().collect());
    let (trie4, trie6): (PrefixMap<_, u32>, PrefixMap<_, u32>) = (nets4().collect(), nets6().collect());
    let (treebitmap4, treebitmap6) = (build_treebitmap4(), build_treebitmap6());
    println!("IPv4: {} prefixes in {} bytes", ours4.len(), ours4.memory());
    println!("IPv6: {} prefixes in {} bytes", ours6.len(), ours6.memory());

    let sum4 = |lookup: &dyn Fn(u32) -> u32| -> u32 { addresses4.iter().fold(0, |sum, a| sum ^ lookup(*a)) };
    let sum6 = |lookup: &dyn Fn(u128) -> u32| -> u32 { addresses6.iter().fold(0, |sum, a| sum ^ lookup(*a)) };
    assert_eq!(
        sum4(&|a| ours4.lookup(a).expect("covered")),
        sum4(&|a| *poptrie4.lookup(Ipv4Addr::from(a)).expect("covered")),
        "both answer alike"
    );
    assert_eq!(
        sum6(&|a| ours6.lookup(a).expect("covered")),
        sum6(&|a| *poptrie6.lookup(Ipv6Addr::from(a)).expect("covered")),
        "both answer alike"
    );

    // A macro and not a closure, so that every lookup is compiled into its own loop.
    macro_rules! lookups {
        ($group:ident, $name:literal, $addresses:ident, $lookup:expr) => {
            $group.bench_function($name, |bencher| {
                bencher.iter(|| $addresses.iter().fold(0, |sum, address| sum ^ $lookup(*address).map_or(0, u32::from)))
            });
        };
    }
    let mut group = criterion.benchmark_group("prefix/lookup_v4");
    group.throughput(Throughput::Elements(ADDRESSES as u64));
    lookups!(group, "sidestep", addresses4, |a| ours4.lookup(a));
    lookups!(group, "poptrie", addresses4, |a| poptrie4.lookup(Ipv4Addr::from(a)).copied());
    lookups!(group, "prefix-trie", addresses4, |a| trie4.get_lpm(&Ipv4Net::from(Ipv4Addr::from(a))).map(|(_, v)| *v));
    lookups!(group, "treebitmap", addresses4, |a| treebitmap4.longest_match(Ipv4Addr::from(a)).map(|(_, _, v)| *v));
    group.finish();
    let mut group = criterion.benchmark_group("prefix/lookup_v6");
    group.throughput(Throughput::Elements(ADDRESSES as u64));
    lookups!(group, "sidestep", addresses6, |a| ours6.lookup(a));
    lookups!(group, "poptrie", addresses6, |a| poptrie6.lookup(Ipv6Addr::from(a)).copied());
    lookups!(group, "prefix-trie", addresses6, |a| trie6.get_lpm(&Ipv6Net::from(Ipv6Addr::from(a))).map(|(_, v)| *v));
    lookups!(group, "treebitmap", addresses6, |a| treebitmap6.longest_match(Ipv6Addr::from(a)).map(|(_, _, v)| *v));
    group.finish();

    let mut group = criterion.benchmark_group("prefix/build");
    group.sample_size(10);
    group.bench_function("sidestep_v4", |bencher| {
        bencher.iter_batched(|| v4.clone(), PrefixTable::build, BatchSize::LargeInput)
    });
    group.bench_function("sidestep_v6", |bencher| {
        bencher.iter_batched(|| v6.clone(), PrefixTable::build, BatchSize::LargeInput)
    });
    group.bench_function("poptrie_v4", |bencher| bencher.iter(|| nets4().collect::<Poptrie<_, u32>>()));
    group.bench_function("prefix-trie_v4", |bencher| bencher.iter(|| nets4().collect::<PrefixMap<_, u32>>()));
    group.bench_function("treebitmap_v4", |bencher| bencher.iter(build_treebitmap4));
    group.finish();
}

/// The steps of CSIT's session scale that a worker has to carry, after one flow and a small table.
const FLOWS: [u32; 4] = [1, 1_024, 64_512, 1_032_192];
/// The next step, which has to fit too.
const FLOWS_MOST: u32 = 4_128_768;
/// Bytes that a flow of IPv4 may take at 1,032,192 flows of one worker: keys, state, timer and index together.
const FLOW_BYTES: usize = 128;

fn key(number: u32, port: u16) -> FlowKey<u32> {
    FlowKey {
        source: 0x0a00_0000 + number % 60_000,
        destination: 0x1400_0000 + number / 60_000,
        source_port: number as u16,
        destination_port: 443,
        port,
        protocol: 6,
    }
}

/// A table with room for 1,032,192 flows, and `flows` of them with 64 bytes of state each.
fn filled(flows: u32) -> FlowTable<u32, [u64; 8]> {
    let mut table = FlowTable::new(1_032_192, 0x1234_5678_9abc_def0);
    for number in 0..flows {
        table.insert(key(number, 0), key(number, 1), [1; 8], 300_000, true).expect("room for the flow");
    }
    table
}

/// The key of the same flow in IPv6.
fn key6(number: u32, port: u16) -> FlowKey<u128> {
    let FlowKey { source, destination, source_port, destination_port, port, protocol } = key(number, port);
    let [source, destination] = [source, destination].map(|address| 0xfd00 << 112 | u128::from(address));
    FlowKey { source, destination, source_port, destination_port, port, protocol }
}

/// Prints what a flow takes: of both families in one table, and what there is beside the tables. No flow is refused.
fn memory() {
    fn table<A: Address>(family: &str, flows: u32, key: fn(u32, u16) -> FlowKey<A>) -> usize {
        let mut table = FlowTable::<A, [u64; 8]>::new(flows as usize, 3);
        for number in 0..flows {
            table.insert(key(number, 0), key(number, 1), [1; 8], 300_000, true).expect("room for the flow");
        }
        let found = (0..flows).filter(|number| table.lookup(&key(*number, 1)).is_some()).count();
        assert_eq!((table.len(), found), (flows as usize, flows as usize));
        row(&format!("table of {family}, one worker"), flows, table.memory())
    }
    fn row(what: &str, flows: u32, bytes: usize) -> usize {
        let hundredths = bytes * 100 / flows as usize;
        println!("{flows} flows, {what}: {bytes} bytes, {}.{:02} each", hundredths / 100, hundredths % 100);
        bytes
    }
    for flows in [1_032_192, FLOWS_MOST] {
        let (v4, _) = (table("IPv4", flows, key), table("IPv6", flows, key6));
        let directory = Directory::new();
        let hashes = FlowTable::<u32, [u64; 8]>::new(1, 3);
        for number in 0..flows {
            for port in 0..2 {
                directory.claim(hashes.hash(&key(number, port)), number as u16 % 4).expect("nobody else's");
            }
        }
        assert_eq!(directory.len(), 2 * flows as usize);
        row("directory of several workers", flows, directory.memory());
        let quota = Quota::new(1 << 16);
        for number in 0..flows {
            quota.take(number as u16, u32::MAX, flows).expect("room for the flow");
        }
        let counts = row("counts of all owners", flows, quota.memory());
        if flows == 1_032_192 {
            assert!(v4 + counts <= FLOW_BYTES * flows as usize, "over the budget of memory");
        }
    }
}

/// Packets of a batch.
const BATCH: usize = 64;

fn flow(criterion: &mut Criterion) {
    memory();
    let mut random = Rng::with_seed(2);
    let mut group = criterion.benchmark_group("flow");
    group.sample_size(20);
    for flows in FLOWS {
        let table = filled(flows);
        let hits: Vec<_> = (0..ADDRESSES).map(|_| key(random.u32(..flows), random.u16(..2))).collect();
        let misses: Vec<_> = (0..ADDRESSES).map(|_| key(random.u32(..), 2)).collect();
        group.throughput(Throughput::Elements(ADDRESSES as u64));
        for (name, keys, found) in [("hit", &hits, ADDRESSES), ("miss", &misses, 0)] {
            group.bench_with_input(BenchmarkId::new(name, flows), keys, |bencher, keys| {
                bencher.iter(|| {
                    let count = keys.iter().filter(|key| table.lookup(key).is_some()).count();
                    assert_eq!(count, found);
                })
            });
        }
        group.bench_with_input(BenchmarkId::new("hit_and_state", flows), &hits, |bencher, keys| {
            bencher.iter(|| {
                let state = |key| table.lookup(key).and_then(|(flow, _)| table.state(flow)).map_or(0, |state| state[7]);
                assert_eq!(keys.iter().map(state).sum::<u64>(), ADDRESSES as u64);
            })
        });
        group.bench_with_input(BenchmarkId::new("hit_in_batches", flows), &hits, |bencher, keys| {
            bencher.iter(|| {
                let mut count = 0;
                for batch in keys.chunks(BATCH) {
                    table.approach(batch.iter().copied());
                    count += batch.iter().filter(|key| table.lookup(key).is_some()).count();
                }
                assert_eq!(count, ADDRESSES);
            })
        });
    }
    group.sample_size(10);
    for flows in [64_512, 1_032_192] {
        group.throughput(Throughput::Elements(u64::from(flows)));
        group.bench_function(BenchmarkId::new("insert", flows), |bencher| {
            bencher.iter_with_large_drop(|| filled(black_box(flows)))
        });
    }
    // What a full table does before it makes a flow; one of 64 may be ended early.
    let mut table = filled(0);
    for number in 0..1_032_192_u32 {
        let deadline = 240_000 + u64::from(number) / 4_300;
        table.insert(key(number, 0), key(number, 1), [1; 8], deadline, number % 64 == 0).expect("room for the flow");
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("oldest_transient", |bencher| {
        bencher.iter(|| table.oldest_transient(64, |_, _, _, _| true).expect("a transient flow"))
    });
    // A full life at a standing number of flows: made, found due, ended.
    let mut table = filled(64_512);
    let mut number = 64_512;
    group.throughput(Throughput::Elements(1));
    group.bench_function("replace", |bencher| {
        bencher.iter(|| {
            let oldest = number - 64_512;
            let flow = table.lookup(&key(oldest, 0)).expect("the oldest flow").0;
            table.remove(flow);
            number += 1;
            table.insert(key(number - 1, 0), key(number - 1, 1), [1; 8], 300_000, true).expect("room for the flow")
        })
    });
    group.finish();
}

criterion_group!(benches, prefix, flow);
criterion_main!(benches);
