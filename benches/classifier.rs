//! Benchmarks of the rule classifier beside trying each rule in turn: lists of 10, 100 and 1,000 rules over every tag of
//! Azure's weekly service-tag file, which `SIDESTEP_TAGS` names or `../shared/data` has, else over made-up sets.
//!
//! Both start from addresses, not from classes: two prefix lookups are part of what is measured. The one that tries each
//! rule has the prefixes of a set sorted and searches them, so that it does not lose by the length of the tags.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;
use ipnet::IpNet;
use sidestep::table::classifier::{Addresses, Classes, Classifier, Protocols, Rule, SetId};

/// Packets that are classified in turn.
const PACKETS: usize = 16_384;

const TCP: u8 = 6;

/// The prefixes of each tag.
fn sets() -> Vec<Vec<IpNet>> {
    let file = std::env::var_os("SIDESTEP_TAGS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json"),
        PathBuf::from,
    );
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) => {
            println!("{}: {error}; measuring with made-up sets", file.display());
            let mut random = Rng::with_seed(5);
            let prefix = |random: &mut Rng| {
                IpNet::new(Ipv4Addr::from(random.u32(1 << 24..224 << 24)).into(), random.u8(20..=32)).expect("a length")
            };
            return (0..3_000).map(|_| (0..30).map(|_| prefix(&mut random).trunc()).collect()).collect();
        }
    };
    let document: serde_json::Value = serde_json::from_slice(&text).expect("a JSON document");
    let tags = document["values"].as_array().expect("a list of tags").iter();
    tags.map(|tag| {
        let prefixes = tag["properties"]["addressPrefixes"].as_array().expect("a list of prefixes").iter();
        prefixes.map(|prefix| prefix.as_str().and_then(|text| text.parse().ok()).expect("a prefix")).collect()
    })
    .collect()
}

/// Rules for pairs of tags and narrow ranges of ports; the last one takes everything.
fn rules(count: usize, sets: usize, random: &mut Rng) -> Vec<Rule> {
    let some = |random: &mut Rng| Addresses::In(vec![SetId(random.u32(..sets as u32))]);
    let ports = |random: &mut Rng| {
        let first = random.u16(1..60_000);
        vec![first..=first + random.u16(..1_000)]
    };
    let mut rules: Vec<Rule> = (1..count)
        .map(|_| Rule {
            sources: if random.bool() { Addresses::Any } else { some(random) },
            destinations: some(random),
            protocols: if random.bool() { Protocols::Any } else { Protocols::Only(vec![TCP]) },
            source_ports: vec![],
            destination_ports: ports(random),
        })
        .collect();
    rules.push(Rule {
        sources: Addresses::Any,
        destinations: Addresses::Any,
        protocols: Protocols::Any,
        source_ports: vec![],
        destination_ports: vec![],
    });
    rules
}

/// Sorted ranges of addresses, as numbers of 128 bits.
struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    fn new(prefixes: &[IpNet]) -> Self {
        let mut ranges: Vec<_> = prefixes.iter().map(|p| (number(p.network()), number(p.broadcast()))).collect();
        ranges.sort_unstable();
        // Prefixes contain each other or are apart: those inside others say nothing more.
        ranges.dedup_by(|inner, outer| inner.0 <= outer.1);
        Self(ranges)
    }

    fn contain(&self, address: u128) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= address);
        after > 0 && self.0[after - 1].1 >= address
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

struct Packet {
    source: IpAddr,
    destination: IpAddr,
    ports: (u16, u16),
}

fn tried(sets: &[Ranges], rules: &[Rule], packet: &Packet) -> Option<usize> {
    let (source, destination) = (number(packet.source), number(packet.destination));
    let within = |addresses: &Addresses, address| match addresses {
        Addresses::Any => true,
        Addresses::In(list) => list.iter().any(|set| sets[set.0 as usize].contain(address)),
    };
    let among = |ranges: &[RangeInclusive<u16>], port| ranges.is_empty() || ranges.iter().any(|r| r.contains(&port));
    rules.iter().position(|rule| {
        let protocol = match &rule.protocols {
            Protocols::Any => true,
            Protocols::Only(list) => list.contains(&TCP),
        };
        protocol
            && among(&rule.destination_ports, packet.ports.1)
            && among(&rule.source_ports, packet.ports.0)
            && within(&rule.sources, source)
            && within(&rule.destinations, destination)
    })
}

fn first_match(criterion: &mut Criterion) {
    let mut random = Rng::with_seed(2);
    let sets = sets();
    let classes = Classes::build(&sets);
    let ranges: Vec<Ranges> = sets.iter().map(|set| Ranges::new(set)).collect();
    println!("{} sets, {} classes in {} bytes", sets.len(), classes.count(), classes.memory());
    let all: Vec<IpNet> = sets.iter().flatten().copied().filter(|prefix| prefix.network().is_ipv4()).collect();
    let inside = |random: &mut Rng| all[random.usize(..all.len())].network();
    let packets: Vec<Packet> = (0..PACKETS)
        .map(|_| Packet {
            source: inside(&mut random),
            destination: inside(&mut random),
            ports: (random.u16(..), random.u16(..)),
        })
        .collect();
    let mut group = criterion.benchmark_group("classifier/first_match");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for count in [10, 100, 1_000] {
        let mut rules = rules(count, sets.len(), &mut random);
        for order in ["last rule takes all", "first rule takes all"] {
            let list = Classifier::build(&classes, &rules);
            println!("{count} rules, {order}: {} bytes", list.memory());
            let ours = |packet: &Packet| {
                let class = |address| classes.of(address);
                list.first_match(class(packet.source), class(packet.destination), TCP, Some(packet.ports))
            };
            assert!(packets.iter().all(|packet| ours(packet) == tried(&ranges, &rules, packet)), "both answer alike");
            group.bench_function(BenchmarkId::new(format!("sidestep, {order}"), count), |bencher| {
                bencher.iter(|| packets.iter().filter_map(|packet| black_box(ours(packet))).count());
            });
            group.bench_function(BenchmarkId::new(format!("each rule in turn, {order}"), count), |bencher| {
                bencher.iter(|| packets.iter().filter_map(|packet| black_box(tried(&ranges, &rules, packet))).count());
            });
            rules.reverse();
        }
    }
}

criterion_group!(benches, first_match);
criterion_main!(benches);
