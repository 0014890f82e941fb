//! Packet classification: which rule of an ordered list matches first.
//!
//! A rule has five dimensions: source and destination address, protocol, source and destination port. Each dimension maps
//! a packet's value to the bitmap of the rules that take it; the rule is the first bit of their intersection. Addresses
//! come as *classes*: all lists share one [`Classes`], so that an address is looked up once, however many lists it meets.
//!
//! # Cost
//! Two prefix lookups for each packet, then for each list two array reads for the addresses, one for the protocol, two
//! binary searches for the ports, and five words for each 64 rules up to the one that matches: at most 16 times five for
//! 1,024 rules. The order of the rules and the traffic change nothing about that bound; there is no cache to poison and
//! no tree to unbalance. Bitmaps are kept once for each distinct set of rules, so a list takes memory by what its rules
//! distinguish, not by the number of prefixes behind its sets.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::prefix::{Address, PrefixTable};

/// A set of addresses: a list of prefixes of both families. Index into what [`Classes::build`] was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u32);

/// The class of addresses that are in no set.
const IN_NONE: u32 = 0;

/// Maps an address to its class: which of the sets contain it.
#[derive(Debug, Clone)]
pub struct Classes {
    v4: PrefixTable<u32>,
    v6: PrefixTable<u128>,
    /// The sets of each class, in ascending order.
    members: Vec<Box<[SetId]>>,
}

impl Default for Classes {
    fn default() -> Self {
        Self::build::<Vec<IpNet>>(&[])
    }
}

impl Classes {
    /// Builds the classes of sets, which may overlap in any way.
    pub fn build<S: AsRef<[IpNet]>>(sets: &[S]) -> Self {
        let mut interned = Members::default();
        let (mut v4, mut v6) = (BTreeMap::<_, Vec<SetId>>::new(), BTreeMap::<_, Vec<SetId>>::new());
        for (set, number) in sets.iter().zip(0..) {
            for prefix in set.as_ref() {
                let users = match prefix.trunc() {
                    IpNet::V4(prefix) => v4.entry((prefix.network().to_bits(), prefix.prefix_len())).or_default(),
                    IpNet::V6(prefix) => v6.entry((prefix.network().to_bits(), prefix.prefix_len())).or_default(),
                };
                if users.last() != Some(&SetId(number)) {
                    users.push(SetId(number));
                }
            }
        }
        let v4 = PrefixTable::build(classes_of(v4, &mut interned));
        let v6 = PrefixTable::build(classes_of(v6, &mut interned));
        Self { v4, v6, members: interned.list }
    }

    /// The class of an address: 0 if it is in no set.
    #[inline]
    pub fn of(&self, address: IpAddr) -> u32 {
        let class = match address {
            IpAddr::V4(v4) => self.v4.lookup(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.lookup(v6.to_bits()),
        };
        class.unwrap_or(IN_NONE)
    }

    /// How many classes there are, that of no set included.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Memory in bytes.
    pub fn memory(&self) -> usize {
        let members = self.members.iter().map(|sets| size_of_val(&**sets) + size_of::<Box<[SetId]>>()).sum::<usize>();
        self.v4.memory() + self.v6.memory() + members
    }
}

/// Distinct memberships, numbered.
struct Members {
    list: Vec<Box<[SetId]>>,
    numbers: HashMap<Box<[SetId]>, u32>,
}

impl Default for Members {
    fn default() -> Self {
        Self { list: vec![Box::default()], numbers: HashMap::from([(Box::default(), IN_NONE)]) }
    }
}

impl Members {
    fn number(&mut self, sets: Box<[SetId]>) -> u32 {
        let list = &mut self.list;
        *self.numbers.entry(sets).or_insert_with_key(|sets| {
            list.push(sets.clone());
            (list.len() - 1) as u32
        })
    }
}

/// The class of each prefix: the sets that have it or a prefix around it. Prefixes come in ascending order, those around
/// others first; what changes nothing is left out.
fn classes_of<A: Address>(prefixes: BTreeMap<(A, u8), Vec<SetId>>, interned: &mut Members) -> Vec<(A, u8, u32)> {
    let mut around: Vec<(A, u8, u32)> = Vec::new();
    let mut entries = Vec::with_capacity(prefixes.len());
    for ((address, length), sets) in prefixes {
        while around.last().is_some_and(|(outer, bits, _)| address.masked(*bits) != *outer) {
            around.pop();
        }
        let outer = around.last().map_or(IN_NONE, |(_, _, class)| *class);
        let above = interned.list.get(outer as usize).map(|sets| &**sets).unwrap_or_default();
        let mut members: Vec<SetId> = above.iter().copied().chain(sets).collect();
        members.sort_unstable();
        members.dedup();
        let class = interned.number(members.into());
        if class != outer {
            entries.push((address, length, class));
        }
        around.push((address, length, class));
    }
    entries
}

/// Which addresses a rule takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// All.
    Any,
    /// Those in any of these sets.
    In(Vec<SetId>),
}

/// Which protocols a rule takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocols {
    /// All.
    Any,
    /// These IP protocol numbers.
    Only(Vec<u8>),
}

/// One rule of an ordered list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Source addresses.
    pub sources: Addresses,
    /// Destination addresses.
    pub destinations: Addresses,
    /// IP protocols.
    pub protocols: Protocols,
    /// Source ports; none means all. A rule that does not take all ports takes no packet without ports.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Destination ports; none means all, as above.
    pub destination_ports: Vec<RangeInclusive<u16>>,
}

/// The bitmap of a value: where its words begin in [`Classifier::words`].
type Place = u32;

/// An ordered list of rules, compiled.
#[derive(Debug, Clone)]
pub struct Classifier {
    /// Words of a bitmap.
    width: usize,
    /// Distinct bitmaps, one after the other.
    words: Box<[u64]>,
    /// By class.
    sources: Box<[Place]>,
    /// By class.
    destinations: Box<[Place]>,
    protocols: Box<[Place; 256]>,
    source_ports: Ports,
    destination_ports: Ports,
}

impl Classifier {
    /// Compiles a list; its sets are those of `classes`.
    pub fn build(classes: &Classes, rules: &[Rule]) -> Self {
        let mut bitmaps = Bitmaps::new(rules.len());
        let sources = addresses(classes, rules.iter().map(|rule| &rule.sources), &mut bitmaps);
        let destinations = addresses(classes, rules.iter().map(|rule| &rule.destinations), &mut bitmaps);
        let takes = |rule: &Rule, protocol: u8| match &rule.protocols {
            Protocols::Any => true,
            Protocols::Only(list) => list.contains(&protocol),
        };
        let protocols = Box::new(std::array::from_fn(|protocol| {
            bitmaps.number(rules.iter().map(|rule| takes(rule, protocol as u8)))
        }));
        let source_ports = Ports::build(rules.iter().map(|rule| &*rule.source_ports), &mut bitmaps);
        let destination_ports = Ports::build(rules.iter().map(|rule| &*rule.destination_ports), &mut bitmaps);
        let width = bitmaps.width;
        Self { width, words: bitmaps.words.into(), sources, destinations, protocols, source_ports, destination_ports }
    }

    /// The first rule that takes a packet, by its place in the list. Addresses come as classes; `ports` are source and
    /// destination, none for protocols that have none.
    #[inline]
    pub fn first_match(
        &self,
        source_class: u32,
        destination_class: u32,
        protocol: u8,
        ports: Option<(u16, u16)>,
    ) -> Option<usize> {
        let bitmap = |place: Option<&Place>| {
            let start = *place? as usize;
            self.words.get(start..start + self.width)
        };
        let sources = bitmap(self.sources.get(source_class as usize))?;
        let destinations = bitmap(self.destinations.get(destination_class as usize))?;
        let protocols = bitmap(self.protocols.get(usize::from(protocol)))?;
        let source_ports = bitmap(self.source_ports.place(ports.map(|(source, _)| source)))?;
        let destination_ports = bitmap(self.destination_ports.place(ports.map(|(_, destination)| destination)))?;
        let words = sources.iter().zip(destinations).zip(protocols).zip(source_ports).zip(destination_ports);
        words.enumerate().find_map(|(index, ((((a, b), c), d), e))| {
            let both = a & b & c & d & e;
            (both != 0).then(|| index * 64 + both.trailing_zeros() as usize)
        })
    }

    /// Memory in bytes.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.words)
            + size_of_val(&*self.sources)
            + size_of_val(&*self.destinations)
            + size_of_val(&*self.protocols)
            + self.source_ports.memory()
            + self.destination_ports.memory()
    }
}

/// The bitmap of each class.
fn addresses<'r>(
    classes: &Classes,
    rules: impl Iterator<Item = &'r Addresses> + Clone,
    bitmaps: &mut Bitmaps,
) -> Box<[Place]> {
    let mut any = vec![0; bitmaps.width];
    let mut of_set: HashMap<SetId, Vec<u64>> = HashMap::new();
    for (rule, addresses) in rules.enumerate() {
        match addresses {
            Addresses::Any => set_bit(&mut any, rule),
            Addresses::In(sets) => {
                for set in sets {
                    set_bit(of_set.entry(*set).or_insert_with(|| vec![0; bitmaps.width]), rule);
                }
            }
        }
    }
    let of_class = |sets: &[SetId]| {
        let mut words = any.clone();
        for more in sets.iter().filter_map(|set| of_set.get(set)) {
            words.iter_mut().zip(more).for_each(|(word, more)| *word |= more);
        }
        words
    };
    classes.members.iter().map(|sets| bitmaps.intern(of_class(sets))).collect()
}

/// The ports of one side: elementary ranges, each with the rules that take it.
#[derive(Debug, Clone)]
struct Ports {
    /// The first port of each range, ascending from 0.
    starts: Box<[u16]>,
    /// The bitmap of each range.
    places: Box<[Place]>,
    /// The bitmap of packets without ports.
    without: Place,
}

impl Ports {
    fn build<'r>(rules: impl Iterator<Item = &'r [RangeInclusive<u16>]> + Clone, bitmaps: &mut Bitmaps) -> Self {
        let mut starts = vec![0];
        for range in rules.clone().flatten() {
            starts.push(*range.start());
            starts.extend(range.end().checked_add(1));
        }
        starts.sort_unstable();
        starts.dedup();
        let takes_all = |ranges: &[RangeInclusive<u16>]| ranges.is_empty() || ranges.contains(&(0..=u16::MAX));
        let takes =
            |ranges: &[RangeInclusive<u16>], port| takes_all(ranges) || ranges.iter().any(|r| r.contains(&port));
        let places = starts.iter().map(|start| bitmaps.number(rules.clone().map(|ranges| takes(ranges, *start))));
        let places = places.collect();
        let without = bitmaps.number(rules.map(takes_all));
        Self { starts: starts.into(), places, without }
    }

    #[inline]
    fn place(&self, port: Option<u16>) -> Option<&Place> {
        let Some(port) = port else { return Some(&self.without) };
        // The first range begins at 0.
        self.places.get(self.starts.partition_point(|start| *start <= port).checked_sub(1)?)
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.places)
    }
}

/// Distinct bitmaps of one width.
struct Bitmaps {
    width: usize,
    words: Vec<u64>,
    numbers: HashMap<Vec<u64>, Place>,
}

impl Bitmaps {
    fn new(rules: usize) -> Self {
        Self { width: rules.div_ceil(64), words: Vec::new(), numbers: HashMap::new() }
    }

    /// The bitmap that says yes or no for each rule in turn.
    fn number(&mut self, rules: impl Iterator<Item = bool>) -> Place {
        let mut bits = vec![0; self.width];
        for (rule, takes) in rules.enumerate() {
            if takes {
                set_bit(&mut bits, rule);
            }
        }
        self.intern(bits)
    }

    fn intern(&mut self, bits: Vec<u64>) -> Place {
        let words = &mut self.words;
        *self.numbers.entry(bits).or_insert_with_key(|bits| {
            let place = words.len() as Place;
            words.extend_from_slice(bits);
            place
        })
    }
}

fn set_bit(words: &mut [u64], bit: usize) {
    if let Some(word) = words.get_mut(bit / 64) {
        *word |= 1 << (bit % 64);
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn prefixes(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|prefix| prefix.parse().expect("a prefix")).collect()
    }

    fn any() -> Rule {
        Rule {
            sources: Addresses::Any,
            destinations: Addresses::Any,
            protocols: Protocols::Any,
            source_ports: vec![],
            destination_ports: vec![],
        }
    }

    #[test]
    fn classes_tell_apart_what_the_sets_do_and_no_more() {
        let sets = [
            prefixes(&["10.0.0.0/8", "2001:db8::/32"]),
            prefixes(&["10.1.0.0/16", "10.2.0.0/16"]),
            prefixes(&["10.0.0.0/8", "10.1.2.3/32"]),
        ];
        let classes = Classes::build(&sets);
        let of = |address: &str| classes.of(address.parse().expect("an address"));
        assert_eq!(of("192.0.2.1"), 0);
        assert_eq!(of("2001:db9::"), 0);
        assert_eq!(of("10.1.0.1"), of("10.2.255.255"));
        assert_eq!(of("10.1.0.1"), of("10.1.2.3"), "what changes no membership makes no class");
        assert_ne!(of("10.3.0.1"), of("10.1.0.1"));
        assert_ne!(of("2001:db8::1"), of("10.3.0.1"));
        assert_eq!(classes.count(), 4);
    }

    #[test]
    fn the_first_of_many_rules_that_take_a_packet_is_found() {
        let classes = Classes::build(&[prefixes(&["10.0.0.0/8"]), prefixes(&["10.9.0.0/16"])]);
        let mut rules: Vec<Rule> = (0..1_000)
            .map(|port| Rule {
                sources: Addresses::In(vec![SetId(0)]),
                protocols: Protocols::Only(vec![6]),
                destination_ports: vec![port..=port],
                ..any()
            })
            .collect();
        rules.push(Rule { destinations: Addresses::In(vec![SetId(1)]), ..any() });
        let list = Classifier::build(&classes, &rules);
        let [inside, nine, outside] =
            ["10.1.1.1", "10.9.1.1", "192.0.2.1"].map(|address| classes.of(address.parse().expect("an address")));
        assert_eq!(list.first_match(inside, outside, 6, Some((5, 999))), Some(999));
        assert_eq!(list.first_match(nine, outside, 6, Some((5, 0))), Some(0));
        assert_eq!(list.first_match(inside, nine, 17, Some((5, 0))), Some(1_000));
        assert_eq!(list.first_match(inside, outside, 6, Some((5, 1_000))), None);
        assert_eq!(list.first_match(outside, outside, 6, Some((5, 7))), None);
    }

    #[test]
    fn a_packet_without_ports_meets_only_rules_for_all_ports() {
        let some = Rule { destination_ports: vec![443..=443], ..any() };
        let all = Rule { destination_ports: vec![80..=80, 0..=u16::MAX], ..any() };
        let list = Classifier::build(&Classes::default(), &[some, all]);
        assert_eq!(list.first_match(0, 0, 1, None), Some(1));
        assert_eq!(list.first_match(0, 0, 6, Some((443, 443))), Some(0));
        assert_eq!(list.first_match(0, 0, 6, Some((443, 65_535))), Some(1));
    }

    #[test]
    fn no_rules_match_nothing() {
        let list = Classifier::build(&Classes::default(), &[]);
        assert_eq!(list.first_match(0, 0, 6, Some((1, 1))), None);
    }

    /// The same by trying one rule after the other.
    fn interpreted(
        sets: &[Vec<IpNet>],
        rules: &[Rule],
        (source, destination): (IpAddr, IpAddr),
        protocol: u8,
        ports: Option<(u16, u16)>,
    ) -> Option<usize> {
        let within = |addresses: &Addresses, address| match addresses {
            Addresses::Any => true,
            Addresses::In(list) => {
                list.iter().any(|set| sets[set.0 as usize].iter().any(|prefix| prefix.contains(&address)))
            }
        };
        let among = |ranges: &[RangeInclusive<u16>], port: Option<u16>| {
            let all = ranges.is_empty() || ranges.contains(&(0..=u16::MAX));
            all || port.is_some_and(|port| ranges.iter().any(|range| range.contains(&port)))
        };
        rules.iter().position(|rule| {
            within(&rule.sources, source)
                && within(&rule.destinations, destination)
                && match &rule.protocols {
                    Protocols::Any => true,
                    Protocols::Only(list) => list.contains(&protocol),
                }
                && among(&rule.source_ports, ports.map(|(source, _)| source))
                && among(&rule.destination_ports, ports.map(|(_, destination)| destination))
        })
    }

    /// Few bits, so that prefixes lie in each other and rules overlap.
    fn an_address() -> impl Strategy<Value = IpAddr> {
        let v4 = (0_u32..4, 0_u32..4).prop_map(|(high, low)| IpAddr::from((high << 30 | low).to_be_bytes()));
        let v6 = (0_u128..4, 0_u128..4).prop_map(|(high, low)| IpAddr::from((high << 126 | low).to_be_bytes()));
        prop_oneof![v4, v6]
    }

    fn a_prefix() -> impl Strategy<Value = IpNet> {
        (an_address(), 0_u8..8).prop_map(|(address, pick)| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let length = [0, 1, 2, bits - 2, bits - 1, bits, bits, 3][usize::from(pick)];
            IpNet::new(address, length).expect("a length of the family").trunc()
        })
    }

    fn some_addresses() -> impl Strategy<Value = Addresses> {
        prop_oneof![Just(Addresses::Any), vec((0_u32..6).prop_map(SetId), 0..3).prop_map(Addresses::In),]
    }

    fn some_ports() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
        let port = prop_oneof![0_u16..6, 65_530_u16..=65_535];
        vec((port.clone(), port).prop_map(|(a, b)| a.min(b)..=a.max(b)), 0..3)
    }

    fn a_rule() -> impl Strategy<Value = Rule> {
        let protocols = prop_oneof![
            Just(Protocols::Any),
            vec(prop_oneof![Just(6), Just(17), Just(1)], 0..3).prop_map(Protocols::Only)
        ];
        (some_addresses(), some_addresses(), protocols, some_ports(), some_ports()).prop_map(
            |(sources, destinations, protocols, source_ports, destination_ports)| Rule {
                sources,
                destinations,
                protocols,
                source_ports,
                destination_ports,
            },
        )
    }

    proptest! {
        #[test]
        fn the_compiled_list_says_what_trying_each_rule_says(
            sets in vec(vec(a_prefix(), 0..5), 6..=6),
            rules in vec(a_rule(), 0..150),
            packets in vec((an_address(), an_address(), 0_usize..4, 0_u16..8, 65_528_u16..=65_535), 1..60),
        ) {
            let classes = Classes::build(&sets);
            let list = Classifier::build(&classes, &rules);
            for (source, destination, protocol, low, high) in packets {
                let (protocol, ports) = [(6, Some((low, high))), (6, Some((high, low))), (17, Some((low, low))), (1, None)][protocol];
                let found = list.first_match(classes.of(source), classes.of(destination), protocol, ports);
                prop_assert_eq!(found, interpreted(&sets, &rules, (source, destination), protocol, ports));
            }
        }
    }
}
