//! Tests of the flow table, the property test beside its twin among them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn key<A: From<u32>>(number: u32, port: u16) -> FlowKey<A> {
    FlowKey {
        source: (0x0a00_0000 + number % 251).into(),
        destination: (0x1400_0000 + number / 251).into(),
        source_port: number as u16,
        destination_port: 443,
        port,
        protocol: 6,
    }
}

#[test]
fn room_that_was_made_is_enough() {
    let mut table = FlowTable::<u128, u64>::new(100_000, 1);
    table.reserve(40_000);
    let before = table.memory();
    for number in 0..40_000 {
        table.insert(key(number, 0), key(number, 1), 0, 1000, false).unwrap();
    }
    assert!(table.memory() < before + before / 100, "all but nothing grew: {before} to {}", table.memory());
    assert_eq!(table.lookup(&key(39_999, 1)).map(|(_, direction)| direction), Some(Direction::Reverse));
}

#[test]
fn both_directions_lead_to_the_flow_until_it_is_removed() {
    let mut table = FlowTable::<u128, u64>::new(10, 1);
    let flow = table.insert(key(1, 0), key(2, 1), 77, 1000, false).unwrap();
    assert_eq!(table.lookup(&key(1, 0)), Some((flow, Direction::Forward)));
    assert_eq!(table.lookup(&key(2, 1)), Some((flow, Direction::Reverse)));
    assert_eq!(table.lookup(&key(1, 1)), None);
    assert_eq!(table.key(flow, Direction::Reverse), Some(&key(2, 1)));
    *table.state_mut(flow).unwrap() += 1;
    assert_eq!(table.remove(flow), Some(Removed { id: flow, forward: key(1, 0), reverse: key(2, 1), state: 78 }));
    assert_eq!(table.lookup(&key(1, 0)), None);
    assert_eq!(table.lookup(&key(2, 1)), None);
    assert!(table.is_empty());
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn an_old_id_leads_to_nothing_when_its_place_is_taken() {
    let mut table = FlowTable::<u32, u64>::new(10, 1);
    let old = table.insert(key(1, 0), key(2, 1), 1, 1000, false).unwrap();
    table.remove(old);
    let new = table.insert(key(3, 0), key(4, 1), 2, 1000, false).unwrap();
    assert_eq!(old.index(), new.index());
    assert_eq!(table.state(old), None);
    assert_eq!(table.state_mut(old), None);
    assert_eq!(table.remove(old), None);
    table.set_deadline(old, 0, true);
    assert_eq!(table.oldest_transient(10, |_, _, _, _| true), None);
    assert_eq!(table.expire(500, 10, |_, _| None), 0);
    assert_eq!(table.state(new), Some(&2));
}

#[test]
fn keys_in_use_and_a_full_table_are_refused_without_a_trace() {
    let mut table = FlowTable::<u32, u64>::new(1, 1);
    let flow = table.insert(key(1, 0), key(2, 1), 1, 1000, false).unwrap();
    let before = table.memory();
    assert_eq!(table.insert(key(1, 0), key(9, 0), 2, 0, false), Err(Refused::ForwardInUse(flow)));
    assert_eq!(table.insert(key(9, 0), key(2, 1), 2, 0, false), Err(Refused::ReverseInUse(flow)));
    assert_eq!(table.insert(key(9, 0), key(1, 0), 2, 0, false), Err(Refused::ReverseInUse(flow)));
    assert_eq!(table.insert(key(8, 0), key(9, 0), 2, 0, false), Err(Refused::Full));
    assert_eq!((table.len(), table.memory()), (1, before));
    assert_eq!(table.lookup(&key(9, 0)), None);
    assert_eq!(FlowTable::<u32, u64>::new(0, 1).insert(key(8, 0), key(9, 0), 2, 0, false), Err(Refused::Full));
}

#[test]
fn a_flow_with_two_equal_keys_is_found_as_forward() {
    let mut table = FlowTable::<u32, u64>::new(4, 1);
    let flow = table.insert(key(1, 0), key(1, 0), 1, 1000, false).unwrap();
    assert_eq!(table.lookup(&key(1, 0)), Some((flow, Direction::Forward)));
    assert!(table.remove(flow).is_some());
    assert_eq!(table.lookup(&key(1, 0)), None);
}

#[test]
fn at_the_end_of_time_a_kept_flow_is_asked_about_once_in_a_call() {
    let mut table = FlowTable::<u32, u64>::new(4, 1);
    table.insert(key(1, 0), key(2, 0), 1, u64::MAX, false).unwrap();
    assert_eq!(table.expire(1 << 53, usize::MAX, |_, _| None), 0);
    let mut asked = 0;
    let ended = table.expire(u64::MAX, usize::MAX, |_, _| {
        asked += 1;
        Some(u64::MAX)
    });
    assert_eq!((ended, asked, table.len()), (0, 1, 1));
    assert_eq!(table.expire(u64::MAX, usize::MAX, |_, _| None), 1);
}

#[test]
fn the_oldest_transient_flow_makes_room_and_lasting_ones_stay() {
    let mut table = FlowTable::<u32, u64>::new(4, 1);
    let lasting = table.insert(key(1, 0), key(2, 0), 1, 1_000, false).unwrap();
    let later = table.insert(key(3, 0), key(4, 0), 2, 60_000, true).unwrap();
    let earlier = table.insert(key(5, 0), key(6, 0), 3, 30_000, true).unwrap();
    assert_eq!(table.oldest_transient(4, |_, _, _, _| true), Some(earlier));
    assert_eq!(table.oldest_transient(4, |_, _, reverse, state| *reverse == key(4, 0) && *state == 2), Some(later));
    assert_eq!(table.oldest_transient(0, |_, _, _, _| true), None);
    assert_eq!(table.expire(40_000, 10, |flow, _| (flow != lasting).then_some(50_000)), 1);
    assert_eq!(table.oldest_transient(4, |_, _, _, _| true), Some(earlier), "one that is kept stays transient");
    table.set_deadline(earlier, 70_000, true);
    assert_eq!(table.oldest_transient(4, |_, _, _, _| true), Some(later));
    table.set_deadline(later, 60_000, false);
    assert_eq!(table.oldest_transient(4, |_, _, _, _| true), Some(earlier));
    table.remove(earlier);
    assert_eq!(table.oldest_transient(4, |_, _, _, _| true), None);
    assert_eq!(table.next_deadline().map(|deadline| deadline <= 60_000), Some(true));
}

/// The budget of memory: 128 bytes a flow at the third step of the scale, and all of them are found.
#[test]
fn a_million_flows_take_at_most_128_bytes_each() {
    const FLOWS: u32 = 1_032_192;
    let mut table = FlowTable::<u32, [u64; 8]>::new(FLOWS as usize, 7);
    for number in 0..FLOWS {
        table.insert(key(number, 0), key(number, 1), [0; 8], 300_000, false).unwrap();
        if number.is_power_of_two() && number >= 1 << 16 {
            // While it grows too, but for the array of records, which doubles.
            assert!(table.index.memory() <= 20 * number as usize, "{number}: {}", table.index.memory());
        }
    }
    assert_eq!(table.insert(key(FLOWS, 0), key(FLOWS, 1), [0; 8], 0, false), Err(Refused::Full));
    let each = table.memory() as f64 / f64::from(FLOWS);
    assert!(each <= 128.0, "{each} bytes");
    for number in (0..FLOWS).step_by(97) {
        assert!(table.lookup(&key(number, 0)).is_some() && table.lookup(&key(number, 1)).is_some());
        assert!(table.lookup(&key(number, 2)).is_none());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u32, u32, u64, bool),
    Remove(usize),
    SetDeadline(usize, u64, bool),
    Touch(usize),
    Expire(u64, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let span = || prop_oneof![0_u64..200, 0_u64..100_000, 0_u64..1 << 40];
    let step = prop_oneof![
        6 => (0_u32..60, 0_u32..60, span(), any::<bool>()).prop_map(|(f, r, after, t)| Step::Insert(f, r, after, t)),
        2 => any::<usize>().prop_map(Step::Remove),
        1 => (any::<usize>(), span(), any::<bool>()).prop_map(|(n, after, t)| Step::SetDeadline(n, after, t)),
        2 => any::<usize>().prop_map(Step::Touch),
        2 => (span(), prop_oneof![0_usize..6, Just(usize::MAX)]).prop_map(|(by, budget)| Step::Expire(by, budget)),
    ];
    proptest::collection::vec(step, 1..200)
}

/// What the twin knows of a flow.
#[derive(Debug, Clone, Copy)]
struct Known {
    forward: FlowKey<u32>,
    reverse: FlowKey<u32>,
    last_seen: u64,
    deadline: u64,
    transient: bool,
}

proptest! {
    /// The twin is a map of ids, looked through as a whole for everything.
    #[test]
    fn behaves_like_a_map_and_a_list(seed in any::<u64>(), limit in 0_usize..40, steps in steps()) {
        const IDLE: u64 = 5_000;
        let mut table = FlowTable::<u32, u64>::new(limit, seed);
        let mut twin: HashMap<FlowId, Known> = HashMap::new();
        let mut now = 1_000;
        for step in steps {
            let mut ids: Vec<FlowId> = twin.keys().copied().collect();
            ids.sort_by_key(|flow| flow.index());
            let nth = |n: usize| (!ids.is_empty()).then(|| ids[n % ids.len()]);
            match step {
                Step::Insert(forward, reverse, after, transient) => {
                    let (forward, reverse) = (key(forward, 0), key(reverse, 0));
                    let owner = |k: FlowKey<u32>| {
                        twin.iter().find(|(_, known)| known.forward == k || known.reverse == k).map(|(flow, _)| *flow)
                    };
                    let refused = owner(forward).map(Refused::ForwardInUse)
                        .or(owner(reverse).map(Refused::ReverseInUse))
                        .or((twin.len() == limit).then_some(Refused::Full));
                    let made = table.insert(forward, reverse, now, now + after, transient);
                    prop_assert_eq!(made.err(), refused);
                    if let Ok(flow) = made {
                        twin.insert(flow, Known { forward, reverse, last_seen: now, deadline: now + after, transient });
                    }
                }
                Step::Remove(n) => if let Some(flow) = nth(n) {
                    let known = twin.remove(&flow).unwrap();
                    let state = known.last_seen;
                    let expected = Removed { id: flow, forward: known.forward, reverse: known.reverse, state };
                    prop_assert_eq!(table.remove(flow), Some(expected));
                },
                Step::SetDeadline(n, after, transient) => if let Some(flow) = nth(n) {
                    table.set_deadline(flow, now + after, transient);
                    let known = twin.get_mut(&flow).unwrap();
                    (known.deadline, known.transient) = (now + after, transient);
                },
                Step::Touch(n) => if let Some(flow) = nth(n) {
                    *table.state_mut(flow).unwrap() = now;
                    twin.get_mut(&flow).unwrap().last_seen = now;
                },
                Step::Expire(by, budget) => {
                    now += by;
                    let mut early = false;
                    let ended = table.expire(now, budget, |flow, last_seen| {
                        let known = twin.get_mut(&flow).unwrap();
                        early |= known.deadline > now || known.last_seen != *last_seen;
                        if last_seen + IDLE > now {
                            known.deadline = last_seen + IDLE;
                            return Some(known.deadline);
                        }
                        twin.remove(&flow);
                        None
                    });
                    prop_assert!(!early);
                    prop_assert!(ended <= budget);
                    if budget == usize::MAX {
                        prop_assert!(twin.values().all(|known| known.deadline + 64 > now));
                    }
                }
            }
            prop_assert_eq!(table.len(), twin.len());
            for (flow, known) in &twin {
                prop_assert_eq!(table.lookup(&known.forward), Some((*flow, Direction::Forward)));
                let direction = if known.forward == known.reverse { Direction::Forward } else { Direction::Reverse };
                prop_assert_eq!(table.lookup(&known.reverse), Some((*flow, direction)));
            }
            for number in 0..60 {
                let known = twin.values().any(|known| known.forward == key(number, 0) || known.reverse == key(number, 0));
                prop_assert_eq!(table.lookup(&key(number, 0)).is_some(), known);
            }
            let walked: Vec<FlowId> = (0..table.places()).filter_map(|place| table.at(place)).collect();
            prop_assert!(walked.iter().copied().eq(table.iter().map(|(flow, ..)| flow)));
            prop_assert!(walked.iter().all(|flow| twin.contains_key(flow)) && walked.len() == twin.len());
            let earliest = twin.values().map(|known| known.deadline).min();
            prop_assert_eq!(table.next_deadline().is_some(), earliest.is_some());
            let wanted = |known: &Known| !known.forward.source_port.is_multiple_of(3);
            let tick = |known: &Known| known.deadline.div_ceil(64);
            let oldest = twin.values().filter(|known| known.transient && wanted(known)).map(tick).min();
            for budget in [0, 2, usize::MAX] {
                let (mut asked, mut wrong) = (0, false);
                let found = table.oldest_transient(budget, |flow, forward, reverse, last_seen| {
                    asked += 1;
                    let known = &twin[&flow];
                    wrong |= (known.forward, known.reverse, known.last_seen) != (*forward, *reverse, *last_seen);
                    wanted(known)
                });
                prop_assert!(asked <= budget && !wrong);
                prop_assert!(found.is_none_or(|flow| twin[&flow].transient && wanted(&twin[&flow])));
                if budget > twin.len() {
                    prop_assert_eq!(found.map(|flow| tick(&twin[&flow])), oldest);
                }
            }
        }
    }
}
