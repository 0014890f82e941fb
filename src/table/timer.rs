//! A hierarchical timer wheel whose links live in the records that it times, or rather two of them that turn together:
//! one for transient records, which may be ended early where room is needed, and one for lasting ones.
//!
//! Time is cut into ticks of 64 ms. Eight levels of 64 slots each cover all ticks that 48 bits can say: level 0 holds
//! the next 64 ticks one by one, level 1 the next 64 × 64, and so on. A timer goes to the level of the highest bit in
//! which its tick differs from the present, so a slot of a higher level never mixes with the present one, and when time
//! reaches a slot its timers move down. Each moves at most seven times in its life, and a 300 s timer twice.
//!
//! Setting and cancelling are O(1), finding the next slot reads sixteen bitmaps, nothing ever scans the records, and the
//! work of one call is bounded by its budget, the moving down included.
//!
//! A timer doesn't say which wheel it is in: the ends of its list do, and nobody asks before the list ends there. A list
//! is first in, first out, also when its timers move down. So where all deadlines are equally far away when they are
//! set, every list is sorted by them, and else by the time of setting: looking for an early timer from the front finds
//! one, however long the list is.
//!
//! # Invariants
//! - A timer never ends before its deadline, and at most one tick late, counted from calls of [`Wheel::next_due`].
//! - Time only goes forward: a `now` before an earlier one does nothing.
//! - A linked timer is in exactly one list; lists are doubly linked, and the first's `previous` and the last's `next` name
//!   the list.

/// Milliseconds of one tick, as a power of two.
const TICK_SHIFT: u32 = 6;
/// Bits of a tick's number: 2^48 ticks of 64 ms are half a million years, later deadlines count as that.
const TICK_MAX: u64 = (1 << 48) - 1;
/// Bits of one level.
const LEVEL_BITS: u32 = 6;
/// Levels: 8 × 6 bits are a tick's 48.
const LEVELS: usize = 8;
const _: () = assert!(TICK_MAX.ilog2() + 1 == LEVEL_BITS * LEVELS as u32);
/// Lists of one wheel.
const LISTS: usize = LEVELS << LEVEL_BITS;
/// Neither a record nor a list.
const NONE: u32 = u32::MAX;
/// Marks a link that names the list and not a record. Records are therefore below 2^31.
const LIST: u32 = 1 << 31;

/// The wheel's part of a record: 16 bytes, two of which are left to the record's owner.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    tick_low: u32,
    tick_high: u16,
    /// The owner's own.
    pub owner: u16,
    next: u32,
    previous: u32,
}

impl Timer {
    /// A timer that isn't set.
    pub const fn new(owner: u16) -> Self {
        Self { tick_low: 0, tick_high: 0, owner, next: NONE, previous: NONE }
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.previous != NONE
    }

    /// A number that the owner keeps while the timer isn't set (the next record of a free list, say).
    pub fn link(&self) -> u32 {
        self.next
    }

    /// Keeps such a number; does nothing while the timer is set.
    pub fn set_link(&mut self, link: u32) {
        if !self.is_set() {
            self.next = link;
        }
    }

    fn tick(&self) -> u64 {
        u64::from(self.tick_high) << 32 | u64::from(self.tick_low)
    }

    /// The deadline in milliseconds, rounded up to a tick.
    pub(super) fn deadline(&self) -> u64 {
        self.tick() << TICK_SHIFT
    }

    fn set_tick(&mut self, tick: u64) {
        self.tick_low = tick as u32;
        self.tick_high = (tick >> 32) as u16;
    }
}

/// Where the timers are.
pub trait Timers {
    /// The timer of a record, to change it; none if there is no such record.
    fn timer(&mut self, record: u32) -> Option<&mut Timer>;
    /// The timer of a record, to look at it.
    fn peek(&self, record: u32) -> Option<&Timer>;
}

impl Timers for Vec<Timer> {
    fn timer(&mut self, record: u32) -> Option<&mut Timer> {
        self.get_mut(record as usize)
    }

    fn peek(&self, record: u32) -> Option<&Timer> {
        self.get(record as usize)
    }
}

/// The first and the last record of a list; links that name a list where it is empty.
#[derive(Debug, Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

/// For each level which slots have timers.
type Occupied = [u64; LEVELS];

/// The two wheels: the ends of their lists.
#[derive(Debug, Clone)]
pub struct Wheel {
    /// The present tick: everything before it has been handed out.
    present: u64,
    lasting: Occupied,
    transient: Occupied,
    /// The lists of lasting timers, then those of transient ones.
    lists: Box<[Ends]>,
}

impl Default for Wheel {
    fn default() -> Self {
        let lists = vec![Ends { first: NONE, last: NONE }; 2 * LISTS].into_boxed_slice();
        Self { present: 0, lasting: [0; LEVELS], transient: [0; LEVELS], lists }
    }
}

impl Wheel {
    /// Sets a record's timer to a deadline in milliseconds, among the transient or the lasting ones, whether and where it
    /// was set before or not. A deadline in the past is due at the next call. Records from 2^31 on have no timers.
    pub fn set(&mut self, timers: &mut impl Timers, record: u32, deadline: u64, transient: bool) {
        self.set_tick(timers, record, tick_of(deadline).max(self.present), transient);
    }

    /// Ends a timer without its being due; does nothing where it isn't set.
    pub fn cancel(&mut self, timers: &mut impl Timers, record: u32) {
        let Some(timer) = timers.timer(record).filter(|timer| timer.is_set()) else { return };
        let (next, previous) = (timer.next, timer.previous);
        timer.next = NONE;
        timer.previous = NONE;
        if next & LIST == 0 {
            if let Some(next) = timers.timer(next) {
                next.previous = previous;
            }
        } else if let Some(ends) = self.lists.get_mut((next & !LIST) as usize) {
            ends.last = previous;
        }
        if previous & LIST == 0 {
            if let Some(previous) = timers.timer(previous) {
                previous.next = next;
            }
        } else if let Some(ends) = self.lists.get_mut((previous & !LIST) as usize) {
            ends.first = next;
            if next & LIST != 0 {
                self.mark(previous & !LIST, false);
            }
        }
    }

    /// The next record whose deadline is not after `now` (milliseconds), its timer ended, and whether it was among the
    /// transient ones; none if there is none or the budget is used up. Each record handed out and each that moves down a
    /// level takes one from the budget.
    pub fn next_due(&mut self, timers: &mut impl Timers, now: u64, budget: &mut usize) -> Option<(u32, bool)> {
        let now = (now >> TICK_SHIFT).min(TICK_MAX);
        loop {
            let (lasting, transient) = (self.earliest(&self.lasting), self.earliest(&self.transient));
            let is_transient = match (lasting, transient) {
                (Some(lasting), Some(transient)) => transient.start <= lasting.start,
                (lasting, _) => lasting.is_none(),
            };
            let earliest = if is_transient { transient } else { lasting };
            let Some(slot) = earliest.filter(|slot| slot.start <= now) else {
                self.present = self.present.max(now);
                return None;
            };
            if *budget == 0 {
                return None;
            }
            *budget -= 1;
            // Time can't go past a slot before that is empty.
            self.present = slot.start;
            let record = self.lists.get(slot.list(is_transient))?.first;
            self.cancel(timers, record);
            let tick = timers.peek(record)?.tick();
            if slot.level == 0 || tick <= slot.start {
                return Some((record, is_transient));
            }
            self.set_tick(timers, record, tick, is_transient);
        }
    }

    /// The transient record with the earliest deadline (to a tick) of those that are accepted, as far as looking at
    /// `budget` records tells: slots are gone through from the earliest on, and the last one may not be gone through to
    /// its end. Only records that would be better than the best so far are put to `accept`.
    pub fn earliest_transient(
        &self,
        timers: &impl Timers,
        budget: usize,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let mut budget = budget;
        let mut unseen = self.transient;
        let mut best: Option<(u64, u32)> = None;
        while let Some(slot) = self.earliest(&unseen) {
            // All that follow are later. Another slot begins before this one ends only while this one's timers move down.
            if best.is_some_and(|(tick, _)| tick <= slot.start) {
                break;
            }
            let mut record = self.lists.get(slot.list(true))?.first;
            while record & LIST == 0 && budget > 0 {
                budget -= 1;
                let timer = timers.peek(record)?;
                if best.is_none_or(|(tick, _)| timer.tick() < tick) && accept(record) {
                    best = Some((timer.tick(), record));
                }
                record = timer.next;
            }
            if budget == 0 {
                break;
            }
            if let Some(slots) = unseen.get_mut(slot.level as usize) {
                *slots &= !(1 << slot.number);
            }
        }
        best.map(|(_, record)| record)
    }

    /// A time in milliseconds before which nothing is due; none if no timer is set. Exact to a tick for what is due
    /// within four seconds, a lower bound for the rest.
    pub fn next_deadline(&self) -> Option<u64> {
        let earliest = self.earliest(&self.lasting).into_iter().chain(self.earliest(&self.transient));
        earliest.map(|slot| slot.start << TICK_SHIFT).min()
    }

    /// The earliest deadline after `now` that falls into a later tick, so that a timer set to it isn't due at `now`.
    pub fn tick_after(now: u64) -> u64 {
        ((now >> TICK_SHIFT) + 1).saturating_mul(1 << TICK_SHIFT)
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        self.lists.len() * size_of::<Ends>()
    }

    /// The slot that comes first. Of several that begin together the highest level comes first, because its timers may
    /// have to move into the others.
    fn earliest(&self, occupied: &Occupied) -> Option<Slot> {
        let mut found: Option<Slot> = None;
        for (level, slots) in (0..).zip(occupied) {
            if *slots == 0 {
                continue;
            }
            let number = slots.trailing_zeros();
            let shift = LEVEL_BITS * level;
            let above = self.present >> (shift + LEVEL_BITS) << (shift + LEVEL_BITS);
            let start = (above | u64::from(number) << shift).max(self.present);
            if found.is_none_or(|earliest| start <= earliest.start) {
                found = Some(Slot { level, number, start });
            }
        }
        found
    }

    fn set_tick(&mut self, timers: &mut impl Timers, record: u32, tick: u64, transient: bool) {
        self.cancel(timers, record);
        let level = ((self.present ^ tick) | 1).ilog2() / LEVEL_BITS;
        let number = (tick >> (level * LEVEL_BITS)) as u32 & ((1 << LEVEL_BITS) - 1);
        let list = Slot { level, number, start: tick }.list(transient);
        let Some(ends) = self.lists.get_mut(list) else { return };
        let Some(timer) = timers.timer(record).filter(|_| record & LIST == 0) else { return };
        let list = list as u32;
        let last = ends.last;
        timer.set_tick(tick);
        timer.next = LIST | list;
        timer.previous = if last & LIST == 0 { last } else { LIST | list };
        ends.last = record;
        if last & LIST == 0 {
            if let Some(before) = timers.timer(last) {
                before.next = record;
            }
        } else {
            ends.first = record;
            self.mark(list, true);
        }
    }

    /// Notes whether a list has timers.
    fn mark(&mut self, list: u32, has_timers: bool) {
        let occupied = if list as usize >= LISTS { &mut self.transient } else { &mut self.lasting };
        if let Some(slots) = occupied.get_mut((list as usize % LISTS) >> LEVEL_BITS) {
            let bit = 1 << (list & ((1 << LEVEL_BITS) - 1));
            if has_timers {
                *slots |= bit;
            } else {
                *slots &= !bit;
            }
        }
    }
}

/// A slot of either wheel.
#[derive(Debug, Clone, Copy)]
struct Slot {
    level: u32,
    /// Its number in its level.
    number: u32,
    /// Its first tick that is not before the present.
    start: u64,
}

impl Slot {
    /// The number of its list.
    fn list(self, transient: bool) -> usize {
        (self.level << LEVEL_BITS | self.number) as usize + if transient { LISTS } else { 0 }
    }
}

/// The first tick at which a deadline has passed.
fn tick_of(deadline: u64) -> u64 {
    deadline.div_ceil(1 << TICK_SHIFT).min(TICK_MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 1 << TICK_SHIFT;

    fn due(wheel: &mut Wheel, timers: &mut Vec<Timer>, now: u64) -> Vec<u32> {
        let mut budget = usize::MAX;
        let mut due: Vec<u32> =
            std::iter::from_fn(|| wheel.next_due(timers, now, &mut budget)).map(|(record, _)| record).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn a_timer_ends_at_its_deadline_and_not_before() {
        for deadline in [0, 1, TICK, 63 * TICK, 64 * TICK, 300_000, 7_440_000, 1 << 40, 1 << 53] {
            let mut timers = vec![Timer::new(0)];
            let mut wheel = Wheel::default();
            wheel.set(&mut timers, 0, deadline, false);
            assert!(wheel.next_deadline().unwrap() < deadline + TICK);
            if deadline > 0 {
                assert_eq!(due(&mut wheel, &mut timers, deadline - 1), [0; 0]);
            }
            assert!(timers[0].is_set());
            assert_eq!(due(&mut wheel, &mut timers, deadline + TICK - 1), [0]);
            assert_eq!(wheel.next_deadline(), None);
            assert!(!timers[0].is_set());
        }
    }

    #[test]
    fn the_end_of_time_is_a_deadline_too() {
        let mut timers = vec![Timer::new(0); 2];
        let mut wheel = Wheel::default();
        wheel.set(&mut timers, 0, u64::MAX, false);
        assert_eq!(due(&mut wheel, &mut timers, 1 << 53), [0; 0]);
        assert_eq!(due(&mut wheel, &mut timers, u64::MAX), [0]);
        wheel.set(&mut timers, 1, 5, true);
        assert_eq!(due(&mut wheel, &mut timers, 0), [0; 0], "time does not go back");
        assert_eq!(due(&mut wheel, &mut timers, u64::MAX), [1]);
    }

    #[test]
    fn a_budget_bounds_moving_down_and_loses_nothing() {
        let mut timers = vec![Timer::new(0); 1000];
        let mut wheel = Wheel::default();
        for record in 0..1000 {
            wheel.set(&mut timers, record, 300_000 + u64::from(record % 7), record % 2 == 0);
        }
        let (mut found, mut calls) = (0, 0);
        while wheel.next_deadline().is_some_and(|deadline| deadline <= 301_000) {
            let mut budget = 10;
            while wheel.next_due(&mut timers, 301_000, &mut budget).is_some() {
                found += 1;
            }
            calls += 1;
            if calls == 50 {
                // Between two calls a timer may be set to what is being emptied.
                wheel.set(&mut timers, 999, 300_001, true);
            }
        }
        assert_eq!(found, 1000);
        assert!((200..=400).contains(&calls), "each timer moves at most twice and ends once: {calls} calls of 10");
    }

    /// Half an hour of timers that are all set to the same distance: whatever slots they are in, the first that is looked
    /// at is the one that was set first of those that are left.
    #[test]
    fn of_equal_lifetimes_the_first_set_is_found_at_once() {
        let mut timers = vec![Timer::new(0); 1_800];
        let mut wheel = Wheel::default();
        let mut alive = std::collections::VecDeque::new();
        for second in 0..1_800_u32 {
            let now = u64::from(second) * 1_000;
            for ended in due(&mut wheel, &mut timers, now) {
                assert_eq!(alive.pop_front(), Some(ended));
            }
            wheel.set(&mut timers, second, now + 240_000, true);
            alive.push_back(second);
            if second % 3 == 0 {
                let oldest = wheel.earliest_transient(&timers, 1, |_| true);
                assert_eq!(oldest, alive.pop_front(), "in second {second}");
                wheel.cancel(&mut timers, oldest.unwrap());
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(u32, u64, bool),
        Cancel(u32),
        Advance(u64, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let span = prop_oneof![0_u64..300, 0_u64..10_000, 0_u64..10_000_000, 0_u64..1 << 45];
        let step = prop_oneof![
            4 => (0_u32..40, span.clone(), any::<bool>()).prop_map(|(record, after, transient)| Step::Set(record, after, transient)),
            1 => (0_u32..40).prop_map(Step::Cancel),
            2 => (span, prop_oneof![0_usize..8, Just(usize::MAX)]).prop_map(|(by, budget)| Step::Advance(by, budget)),
        ];
        proptest::collection::vec(step, 1..150)
    }

    proptest! {
        /// The twin is a list of deadlines.
        #[test]
        fn ends_what_a_list_of_deadlines_ends(start in prop_oneof![0_u64..1000, Just(1_u64 << 52)], steps in steps()) {
            let mut timers = vec![Timer::new(0); 40];
            let mut wheel = Wheel::default();
            let mut twin = vec![None; 40];
            let mut now = start;
            prop_assert_eq!(due(&mut wheel, &mut timers, now), [0; 0]);
            for step in steps {
                match step {
                    Step::Set(record, after, transient) => {
                        wheel.set(&mut timers, record, now + after, transient);
                        twin[record as usize] = Some((now + after, transient));
                    }
                    Step::Cancel(record) => {
                        wheel.cancel(&mut timers, record);
                        twin[record as usize] = None;
                    }
                    Step::Advance(by, mut budget) => {
                        now += by;
                        while let Some((record, transient)) = wheel.next_due(&mut timers, now, &mut budget) {
                            let (deadline, class) = twin[record as usize].take().unwrap();
                            prop_assert!(deadline <= now, "ended early");
                            prop_assert_eq!(transient, class);
                        }
                        if budget > 0 {
                            prop_assert!(twin.iter().flatten().all(|(deadline, _)| deadline + TICK > now), "forgotten");
                        }
                    }
                }
                let set = timers.iter().map(Timer::is_set);
                prop_assert!(set.eq(twin.iter().map(Option::is_some)));
                let earliest = twin.iter().flatten().map(|(deadline, _)| deadline).min();
                prop_assert_eq!(wheel.next_deadline().is_some(), earliest.is_some());
                if let (Some(bound), Some(earliest)) = (wheel.next_deadline(), earliest) {
                    prop_assert!(bound < (*earliest).max(now) + TICK, "a lower bound, but for the tick");
                }
                for odd in [false, true] {
                    let wanted = |record: u32| (record % 2 == 1) == odd;
                    let tick = |record: u32| {
                        twin[record as usize].filter(|(_, transient)| *transient).map(|(deadline, _)| tick_of(deadline))
                    };
                    let found = wheel.earliest_transient(&timers, usize::MAX, wanted);
                    let expected = (0..40).filter(|record| wanted(*record)).filter_map(tick).min();
                    prop_assert!(found.is_none_or(wanted));
                    prop_assert_eq!(found.and_then(tick), expected);
                    let mut asked = 0;
                    let hasty = wheel.earliest_transient(&timers, 3, |record| {
                        asked += 1;
                        wanted(record)
                    });
                    prop_assert!(asked <= 3 && hasty.is_none_or(|record| wanted(record) && tick(record) >= expected));
                }
            }
        }
    }
}
