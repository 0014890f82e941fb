//! Longest prefix match over the distinct prefixes of the weekly file, beside the crates that could be used instead.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ip_network_table_deps_treebitmap::IpLookupTable;
use ipnet::{Ipv4Net, Ipv6Net};
use poptrie::Poptrie;
use prefix_trie::PrefixMap;
use sidestep::table::prefix::PrefixTable;

use crate::Measure;
use crate::forwarding::processor_time;
use crate::report::{Report, Wanted};
use crate::tags::{addresses_v4, addresses_v6, prefixes};

/// How often all addresses are looked up in a round.
const TIMES: usize = 8;

/// The other crates, as the rows call them.
const OTHERS: [&str; 3] = ["poptrie", "prefix_trie", "treebitmap"];

/// A table of each crate for each family.
pub(crate) struct Lookups {
    addresses_v4: Vec<u32>,
    addresses_v6: Vec<u128>,
    ours_v4: PrefixTable<u32>,
    ours_v6: PrefixTable<u128>,
    poptrie_v4: Poptrie<Ipv4Net, u32>,
    poptrie_v6: Poptrie<Ipv6Net, u32>,
    trie_v4: PrefixMap<Ipv4Net, u32>,
    trie_v6: PrefixMap<Ipv6Net, u32>,
    treebitmap_v4: IpLookupTable<Ipv4Addr, u32>,
    treebitmap_v6: IpLookupTable<Ipv6Addr, u32>,
}

impl Lookups {
    /// Builds the tables.
    pub(crate) fn new(report: &mut Report) -> Self {
        for (family, wanted) in [(4, 10.0), (6, 30.0)] {
            report.row(&format!("lpm{family}_ns"), &format!("IPv{family} prefix lookup, ns"), Wanted::AtMost(wanted));
            for other in OTHERS {
                let title = format!("the same, crate {other}, ns");
                report.row(&format!("lpm{family}_{other}_ns"), &title, Wanted::Anything);
                let title = format!("rate of IPv{family} prefix lookups to that of {other}");
                report.row(&format!("lpm{family}_vs_{other}"), &title, Wanted::AtLeast(1.0));
            }
        }
        let (v4, v6) = prefixes();
        let mut random = Rng::with_seed(1);
        let net4 = |(address, length, value): &(u32, u8, u32)| {
            (Ipv4Net::new((*address).into(), *length).expect("a length"), *value)
        };
        let net6 = |(address, length, value): &(u128, u8, u32)| {
            (Ipv6Net::new((*address).into(), *length).expect("a length"), *value)
        };
        let (mut treebitmap_v4, mut treebitmap_v6) = (IpLookupTable::new(), IpLookupTable::new());
        for (address, length, value) in &v4 {
            treebitmap_v4.insert(Ipv4Addr::from(*address), u32::from(*length), *value);
        }
        for (address, length, value) in &v6 {
            treebitmap_v6.insert(Ipv6Addr::from(*address), u32::from(*length), *value);
        }
        Self {
            addresses_v4: addresses_v4(&v4, &mut random),
            addresses_v6: addresses_v6(&v6, &mut random),
            poptrie_v4: v4.iter().map(net4).collect(),
            poptrie_v6: v6.iter().map(net6).collect(),
            trie_v4: v4.iter().map(net4).collect(),
            trie_v6: v6.iter().map(net6).collect(),
            treebitmap_v4,
            treebitmap_v6,
            ours_v4: PrefixTable::build(v4),
            ours_v6: PrefixTable::build(v6),
        }
    }
}

/// Looks addresses up in turn; all tables have to find the same. Inlined, so that every lookup is compiled into its own
/// loop.
#[inline(always)]
fn time<A: Copy>(report: &mut Report, key: &str, addresses: &[A], lookup: impl Fn(A) -> Option<u32>) -> u32 {
    let start = processor_time();
    let mut sum = 0;
    for _ in 0..TIMES {
        for address in black_box(addresses) {
            sum ^= lookup(*address).map_or(0, |value| value.wrapping_mul(31));
        }
        sum = sum.rotate_left(1);
    }
    let spent = processor_time() - start;
    report.note(key, spent.as_nanos() as f64 / (TIMES * addresses.len()) as f64);
    black_box(sum)
}

impl Measure for Lookups {
    fn round(&mut self, report: &mut Report) {
        let Self { addresses_v4, addresses_v6, .. } = self;
        let found_v4 = [
            time(report, "lpm4_ns", addresses_v4, |a| self.ours_v4.lookup(a)),
            time(report, "lpm4_poptrie_ns", addresses_v4, |a| self.poptrie_v4.lookup(Ipv4Addr::from(a)).copied()),
            time(report, "lpm4_prefix_trie_ns", addresses_v4, |a| {
                self.trie_v4.get_lpm(&Ipv4Net::from(Ipv4Addr::from(a))).map(|(_, value)| *value)
            }),
            time(report, "lpm4_treebitmap_ns", addresses_v4, |a| {
                self.treebitmap_v4.longest_match(Ipv4Addr::from(a)).map(|(_, _, value)| *value)
            }),
        ];
        let found_v6 = [
            time(report, "lpm6_ns", addresses_v6, |a| self.ours_v6.lookup(a)),
            time(report, "lpm6_poptrie_ns", addresses_v6, |a| self.poptrie_v6.lookup(Ipv6Addr::from(a)).copied()),
            time(report, "lpm6_prefix_trie_ns", addresses_v6, |a| {
                self.trie_v6.get_lpm(&Ipv6Net::from(Ipv6Addr::from(a))).map(|(_, value)| *value)
            }),
            time(report, "lpm6_treebitmap_ns", addresses_v6, |a| {
                self.treebitmap_v6.longest_match(Ipv6Addr::from(a)).map(|(_, _, value)| *value)
            }),
        ];
        for found in [found_v4, found_v6] {
            assert!(found.iter().all(|sum| *sum == found[0]), "all find the same: {found:?}");
        }
        for family in [4, 6] {
            for other in OTHERS {
                let own = format!("lpm{family}_ns");
                report.note_ratio(&format!("lpm{family}_vs_{other}"), &format!("lpm{family}_{other}_ns"), &own);
            }
        }
    }
}
