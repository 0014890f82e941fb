//! Tests of the table of packets in fragments, the property test beside its twin among them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

const PORTS: Ports = Ports { source: 40_000, destination: 53, new_identification: 7 };
const OVERLAP: Met = Met::Overlap { dropped: 0 };

fn key(identification: u32, ingress: u16) -> FragmentKey {
    FragmentKey { source: 0xffff_0a00_0004, destination: 0xffff_c633_6450, identification, protocol: 17, ingress }
}

fn range(start: u16, end: u16) -> Range {
    Range { start, end, last: false }
}

fn last(start: u16, end: u16) -> Range {
    Range { start, end, last: true }
}

#[test]
fn in_order_the_first_tells_the_others_and_the_last_ends_it() {
    let mut table = FragmentTable::new(LIFETIME);
    assert_eq!(table.meet(0, &key(1, 0), range(0, 1_480), Some(PORTS)), Met::Ports(PORTS));
    assert_eq!(table.meet(1, &key(1, 0), range(1_480, 2_960), None), Met::Ports(PORTS));
    assert_eq!(table.meet(2, &key(1, 1), range(1_480, 2_960), None), Met::Hold, "another port is another packet");
    assert_eq!(table.meet(2, &key(1, 0), last(2_960, 3_000), None), Met::Ports(PORTS));
    assert_eq!((table.len(), table.held()), (1, 0));
}

#[test]
fn what_comes_before_the_first_is_held_and_fetched_in_order() {
    let mut table = FragmentTable::new(LIFETIME);
    assert_eq!(table.meet(0, &key(1, 0), last(16, 20), None), Met::Hold);
    assert!(table.hold(&key(1, 0), b"last"));
    assert_eq!(table.meet(0, &key(1, 0), range(8, 16), None), Met::Hold);
    assert!(table.hold(&key(1, 0), b"middle"));
    assert_eq!(table.next_held(&key(1, 0)), None, "the first has not come");
    assert_eq!(table.meet(0, &key(1, 0), range(0, 8), Some(PORTS)), Met::Ports(PORTS));
    assert!(!table.hold(&key(1, 0), b"late"), "nothing is waited for");
    for expected in [&b"last"[..], b"middle"] {
        let bytes = table.next_held(&key(1, 0)).unwrap();
        assert_eq!(bytes, expected);
        table.give_back(bytes);
    }
    assert_eq!(table.next_held(&key(1, 0)), None);
    assert!(table.is_empty() && table.held() == 0 && table.next_deadline().is_none());
}

#[test]
fn a_duplicate_is_dropped_and_an_overlap_spoils_the_packet() {
    let mut table = FragmentTable::new(LIFETIME);
    assert_eq!(table.meet(0, &key(1, 0), range(8, 16), None), Met::Hold);
    assert!(table.hold(&key(1, 0), b"held"));
    assert_eq!(table.meet(0, &key(1, 0), range(8, 16), None), Met::Duplicate);
    assert_eq!(table.meet(0, &key(1, 0), range(0, 9), Some(PORTS)), Met::Overlap { dropped: 1 });
    assert_eq!(table.held(), 0);
    assert_eq!(table.meet(0, &key(1, 0), range(0, 8), Some(PORTS)), OVERLAP);
    assert!(!table.hold(&key(1, 0), b"held"));
    table.expire(LIFETIME + 64, 9, |_, _| unreachable!("nothing is held"));
    assert_eq!(table.meet(LIFETIME + 64, &key(1, 0), range(0, 8), Some(PORTS)), Met::Ports(PORTS));
}

#[test]
fn fragments_that_contradict_where_the_packet_ends_spoil_it() {
    for [one, other] in [
        [last(8, 16), last(16, 24)],
        [last(8, 16), range(16, 24)],
        [range(16, 24), last(8, 16)],
        [range(8, 16), last(8, 16)],
        [last(8, 16), last(8, 12)],
    ] {
        let mut table = FragmentTable::new(LIFETIME);
        assert_eq!(table.meet(0, &key(1, 0), one, None), Met::Hold);
        assert_eq!(table.meet(0, &key(1, 0), other, None), OVERLAP, "{one:?} {other:?}");
    }
}

#[test]
fn a_fragment_without_bytes_changes_nothing() {
    let mut table = FragmentTable::new(LIFETIME);
    assert_eq!(table.meet(0, &key(1, 0), last(8, 8), None), Met::Duplicate);
    assert_eq!(table.meet(0, &key(1, 0), range(9, 8), None), Met::Duplicate);
    assert!(table.is_empty());
}

#[test]
fn a_packet_in_more_stretches_than_there_is_room_for_is_refused() {
    let mut table = FragmentTable::new(LIFETIME);
    table.meet(0, &key(1, 0), range(0, 1), Some(PORTS));
    for stretch in 1..64 {
        assert_eq!(table.meet(0, &key(1, 0), range(stretch * 8, stretch * 8 + 1), None), Met::Ports(PORTS));
    }
    assert_eq!(table.meet(0, &key(1, 0), range(640, 641), None), Met::Full);
    assert_eq!(table.meet(0, &key(1, 0), range(1, 8), None), Met::Ports(PORTS), "this one closes a gap");
    assert_eq!(table.meet(0, &key(1, 0), range(640, 641), None), Met::Ports(PORTS));
}

#[test]
fn the_deadline_is_that_of_the_fragment_that_came_first() {
    let mut table = FragmentTable::new(LIFETIME);
    table.meet(0, &key(1, 3), range(8, 16), None);
    assert!(table.hold(&key(1, 3), b"a"));
    table.meet(LIFETIME - 1, &key(1, 3), range(16, 24), None);
    assert!(table.hold(&key(1, 3), b"b"));
    assert!(table.next_deadline().unwrap() <= LIFETIME + 64);
    table.expire(LIFETIME - 1, usize::MAX, |_, _| unreachable!("it is not due"));
    let mut dropped = Vec::new();
    table.expire(LIFETIME + 64, usize::MAX, |count, ingress| dropped.push((count, ingress)));
    assert_eq!(dropped, [(2, 3)]);
    assert!(table.is_empty() && table.held() == 0);
}

/// Two ports that send fragments of packets that never come: the first gets half of everything, the second the rest,
/// and a third that comes before the second gets its share.
#[test]
fn a_port_gets_half_of_everything_and_no_more() {
    let mut table = FragmentTable::new(LIFETIME);
    let flood = |table: &mut FragmentTable, ingress| {
        for number in 0..2_000 {
            if table.meet(0, &key(number, ingress), range(8, 16), None) == Met::Hold {
                table.hold(&key(number, ingress), &[0; 100]);
            }
        }
        (table.len(), table.held())
    };
    assert_eq!(flood(&mut table, 0), (512, 128));
    assert_eq!(table.meet(0, &key(1, 1), range(8, 16), None), Met::Hold);
    assert!(table.hold(&key(1, 1), b"x"));
    assert_eq!(table.meet(0, &key(1_999, 0), range(16, 24), None), Met::Hold, "a packet that is followed stays");
    assert_eq!(table.take_dropped(), 3 * 128, "what was held of those that made room: of each 512 the first 128");
    assert_eq!(flood(&mut table, 1), (1_024, 256));
    assert_eq!(table.meet(0, &key(1, 2), range(0, 8), Some(PORTS)), Met::Full);
    table.expire(LIFETIME + 64, usize::MAX, |_, _| {});
    assert_eq!((table.len(), table.held(), table.shares.len(), table.held_bytes), (0, 0, 0, 0));
    assert!(table.buffers.len() <= 256 && table.buffers.iter().all(|buffer| buffer.capacity() <= BUFFER));
}

#[test]
fn packets_without_a_first_fragment_do_not_shut_others_out() {
    let mut table = FragmentTable::new(LIFETIME);
    for number in 0..512 {
        assert_eq!(table.meet(0, &key(number, 0), range(8, 16), None), Met::Hold);
    }
    assert_eq!(table.meet(1, &key(1_000, 0), range(0, 8), Some(PORTS)), Met::Ports(PORTS));
    for number in 2_000..3_000 {
        table.meet(2, &key(number, 0), range(8, 16), None);
    }
    assert_eq!(table.meet(3, &key(1_000, 0), range(8, 16), None), Met::Ports(PORTS), "it was not the one to go");
}

#[test]
fn held_bytes_are_bounded_too() {
    let mut table = FragmentTable::new(LIFETIME);
    let fragment = vec![0; 65_535];
    for ingress in [0, 1] {
        let held = (0..10).filter(|number| {
            table.meet(0, &key(*number, ingress), range(8, 16), None) == Met::Hold
                && table.hold(&key(*number, ingress), &fragment)
        });
        assert_eq!(held.count(), 4, "4 of 65,535 bytes are within 256 KiB");
    }
    let mut table = FragmentTable::new(LIFETIME);
    let held = (0..100).filter(|step| {
        table.meet(0, &key(1, 0), range(8 + step * 8, 16 + step * 8), None) == Met::Hold && table.hold(&key(1, 0), b"x")
    });
    assert_eq!(held.count(), 64);
}

const LIMITS: Limits = Limits { packets: 6, held: 6, held_per_packet: 2, bytes: 40 };

#[derive(Debug, Clone)]
enum Step {
    Meet(u32, Range, usize),
    Fetch(u32),
    Expire(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = (0..12_u16, prop_oneof![4 => Just(2_u16), 1 => 0..6_u16], 0..5_u8)
        .prop_map(|(start, length, last)| Range { start: start / 2 * 2, end: start / 2 * 2 + length, last: last == 0 });
    let step = prop_oneof![
        8 => (0..8_u32, range, 0..16_usize).prop_map(|(packet, range, bytes)| Step::Meet(packet, range, bytes)),
        3 => (0..8_u32).prop_map(Step::Fetch),
        1 => (0..3_000_u64).prop_map(Step::Expire),
    ];
    proptest::collection::vec(step, 1..150)
}

/// What the twin knows of a packet: every byte by itself.
#[derive(Debug, Clone, Default)]
struct Known {
    packet: u32,
    deadline: u64,
    seen: [bool; 20],
    end: Option<u16>,
    has_ports: bool,
    spoiled: bool,
    held: Vec<Vec<u8>>,
}

impl Known {
    fn is_complete(&self) -> bool {
        let all = |end: u16| self.seen[..end.into()].iter().all(|seen| *seen);
        self.has_ports && !self.spoiled && self.held.is_empty() && self.end.is_some_and(all)
    }
}

fn ingress_of(packet: u32) -> u16 {
    (packet % 3) as u16
}

/// The answer of a list of packets.
fn answer(twin: &mut Vec<Known>, dropped: &mut u32, now: u64, packet: u32, range: Range) -> Met {
    if range.start >= range.end {
        return Met::Duplicate;
    }
    if !twin.iter().any(|known| known.packet == packet) {
        let of_port = twin.iter().filter(|known| ingress_of(known.packet) == ingress_of(packet)).count();
        if of_port == 3 {
            let of_port = |known: &Known| ingress_of(known.packet) == ingress_of(packet);
            let oldest = twin.iter().position(|known| of_port(known) && !known.has_ports);
            let oldest = oldest.or_else(|| twin.iter().position(of_port)).unwrap();
            *dropped += twin.remove(oldest).held.len() as u32;
        }
        if twin.len() == 6 {
            return Met::Full;
        }
        twin.push(Known { packet, deadline: now + 1_000, ..Known::default() });
    }
    let known = twin.iter_mut().find(|known| known.packet == packet).unwrap();
    if known.spoiled {
        return OVERLAP;
    }
    let bytes = || usize::from(range.start)..usize::from(range.end);
    let seen = known.seen[bytes()].iter().filter(|seen| **seen).count();
    let beyond_end = known.end.is_some_and(|end| range.end > end);
    let other_end = range.last && known.end.is_some_and(|end| range.end != end);
    let beyond_last = range.last && known.end.is_none() && known.seen[bytes().end - 1..].contains(&true);
    if !(beyond_end || other_end || beyond_last) && seen == bytes().len() {
        return Met::Duplicate;
    }
    if beyond_end || other_end || beyond_last || seen > 0 {
        known.spoiled = true;
        return Met::Overlap { dropped: std::mem::take(&mut known.held).len() as u32 };
    }
    known.seen[bytes()].fill(true);
    known.has_ports |= range.start == 0;
    if range.last {
        known.end = Some(range.end);
    }
    if known.has_ports { Met::Ports(PORTS) } else { Met::Hold }
}

proptest! {
    #[test]
    fn behaves_like_a_list_of_packets(steps in steps()) {
        let mut table = FragmentTable::with_limits(1_000, LIMITS);
        let mut twin: Vec<Known> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Meet(packet, range, length) => {
                    let key = key(packet, ingress_of(packet));
                    let mut dropped = 0;
                    let expected = answer(&mut twin, &mut dropped, now, packet, range);
                    prop_assert_eq!(table.meet(now, &key, range, (range.start == 0).then_some(PORTS)), expected);
                    prop_assert_eq!(table.take_dropped(), dropped);
                    if expected == Met::Hold {
                        let bytes = vec![packet as u8; length];
                        let held = |of_port: bool| {
                            let ours = |known: &&Known| !of_port || ingress_of(known.packet) == key.ingress;
                            let all: Vec<usize> =
                                twin.iter().filter(ours).flat_map(|known| known.held.iter().map(Vec::len)).collect();
                            (all.len(), all.iter().sum::<usize>() + length)
                        };
                        let ((count, sum), (port_count, port_sum)) = (held(false), held(true));
                        let room = count < 6 && sum <= 40 && port_count < 3 && port_sum <= 20;
                        let known = twin.iter_mut().find(|known| known.packet == packet).unwrap();
                        let room = room && known.held.len() < 2;
                        prop_assert_eq!(table.hold(&key, &bytes), room);
                        known.held.extend(room.then_some(bytes));
                    }
                }
                Step::Fetch(packet) => {
                    let known = twin.iter_mut().find(|known| known.packet == packet && known.has_ports);
                    let expected = known.filter(|known| !known.held.is_empty()).map(|known| known.held.remove(0));
                    let found = table.next_held(&key(packet, ingress_of(packet)));
                    prop_assert_eq!(&found, &expected);
                    found.into_iter().for_each(|buffer| table.give_back(buffer));
                }
                Step::Expire(by) => {
                    now += by;
                    let mut dropped = Vec::new();
                    table.expire(now, usize::MAX, |count, ingress| dropped.push((count, ingress)));
                    let is_due = |known: &Known| known.deadline.div_ceil(64) <= now / 64;
                    let due = twin.iter().filter(|known| is_due(known) && !known.held.is_empty());
                    let mut expected: Vec<(u32, u16)> =
                        due.map(|known| (known.held.len() as u32, ingress_of(known.packet))).collect();
                    expected.sort_unstable();
                    dropped.sort_unstable();
                    prop_assert_eq!(dropped, expected);
                    twin.retain(|known| !is_due(known));
                }
            }
            twin.retain(|known| !known.is_complete());
            prop_assert_eq!(table.len(), twin.len());
            prop_assert_eq!(table.held(), twin.iter().map(|known| known.held.len()).sum::<usize>());
            prop_assert_eq!(table.next_deadline().is_some(), !twin.is_empty());
        }
    }
}
