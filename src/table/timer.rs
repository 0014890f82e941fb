//! A hierarchical timer wheel whose links live in the records that it times.
//!
//! Time is cut into ticks of 64 ms. Eight levels of 64 slots each cover all ticks that 48 bits can say: level 0 holds
//! the next 64 ticks one by one, level 1 the next 64 × 64, and so on. A timer goes to the level of the highest bit in
//! which its tick differs from the present, so a slot of a higher level never mixes with the present one, and when time
//! reaches a slot its timers move down. Each moves at most seven times in its life, and a 300 s timer twice.
//!
//! Setting and cancelling are O(1), finding the next slot reads eight bitmaps, nothing ever scans the records, and the
//! work of one call is bounded by its budget, the moving down included.
//!
//! # Invariants
//! - A timer never ends before its deadline, and at most one tick late, counted from calls of [`Wheel::next_due`].
//! - Time only goes forward: a `now` before an earlier one does nothing.
//! - A linked timer's slot is in exactly one list; lists are doubly linked, and the first's `previous` names its list.

/// Milliseconds of one tick, as a power of two.
const TICK_SHIFT: u32 = 6;
/// Bits of a tick's number: 2^48 ticks of 64 ms are half a million years, later deadlines count as that.
const TICK_MAX: u64 = (1 << 48) - 1;
/// Bits of one level.
const LEVEL_BITS: u32 = 6;
/// Levels: 8 × 6 bits are a tick's 48.
const LEVELS: usize = 8;
const _: () = assert!(TICK_MAX.ilog2() + 1 == LEVEL_BITS * LEVELS as u32);
/// Neither a record nor a list.
const NONE: u32 = u32::MAX;
/// Marks a `previous` that names the list and not a record. Records are therefore below 2^31.
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

    fn set_tick(&mut self, tick: u64) {
        self.tick_low = tick as u32;
        self.tick_high = (tick >> 32) as u16;
    }
}

/// Where the timers are.
pub trait Timers {
    /// The timer of a record; none if there is no such record.
    fn timer(&mut self, record: u32) -> Option<&mut Timer>;
}

impl Timers for Vec<Timer> {
    fn timer(&mut self, record: u32) -> Option<&mut Timer> {
        self.get_mut(record as usize)
    }
}

/// The wheel: the heads of the lists.
#[derive(Debug, Clone)]
pub struct Wheel {
    /// The present tick: everything before it has been handed out.
    present: u64,
    /// For each level which slots have timers.
    occupied: [u64; LEVELS],
    heads: Box<[u32]>,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { present: 0, occupied: [0; LEVELS], heads: vec![NONE; LEVELS << LEVEL_BITS].into_boxed_slice() }
    }
}

impl Wheel {
    /// Sets a record's timer to a deadline in milliseconds, whether it was set before or not. A deadline in the past is
    /// due at the next call. Records from 2^31 on have no timers.
    pub fn set(&mut self, timers: &mut impl Timers, record: u32, deadline: u64) {
        self.set_tick(timers, record, tick_of(deadline).max(self.present));
    }

    /// Ends a timer without its being due; does nothing where it isn't set.
    pub fn cancel(&mut self, timers: &mut impl Timers, record: u32) {
        let Some(timer) = timers.timer(record).filter(|timer| timer.is_set()) else { return };
        let (next, previous) = (timer.next, timer.previous);
        timer.next = NONE;
        timer.previous = NONE;
        if let Some(next) = timers.timer(next) {
            next.previous = previous;
        }
        if previous & LIST == 0 {
            if let Some(previous) = timers.timer(previous) {
                previous.next = next;
            }
        } else {
            self.set_head(previous & !LIST, next);
        }
    }

    /// The next record whose deadline is not after `now` (milliseconds), its timer ended; none if there is none or the
    /// budget is used up. Each record handed out and each that moves down a level takes one from the budget.
    pub fn next_due(&mut self, timers: &mut impl Timers, now: u64, budget: &mut usize) -> Option<u32> {
        let now = (now >> TICK_SHIFT).min(TICK_MAX);
        loop {
            let Some((level, list, start)) = self.earliest().filter(|(_, _, start)| *start <= now) else {
                self.present = self.present.max(now);
                return None;
            };
            if *budget == 0 {
                return None;
            }
            *budget -= 1;
            // Time can't go past a slot before that is empty.
            self.present = start;
            let record = *self.heads.get(list as usize)?;
            self.cancel(timers, record);
            let tick = timers.timer(record)?.tick();
            if level == 0 || tick <= start {
                return Some(record);
            }
            self.set_tick(timers, record, tick);
        }
    }

    /// A time in milliseconds before which nothing is due; none if no timer is set. Exact to a tick for what is due
    /// within four seconds, a lower bound for the rest.
    pub fn next_deadline(&self) -> Option<u64> {
        self.earliest().map(|(_, _, start)| start << TICK_SHIFT)
    }

    /// The earliest deadline after `now` that falls into a later tick, so that a timer set to it isn't due at `now`.
    pub fn tick_after(now: u64) -> u64 {
        ((now >> TICK_SHIFT) + 1).saturating_mul(1 << TICK_SHIFT)
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        self.heads.len() * size_of::<u32>()
    }

    /// The slot that comes first: its level, its list, its first tick. Of several that begin together the highest level
    /// comes first, because its timers may have to move into the others.
    fn earliest(&self) -> Option<(usize, u32, u64)> {
        let mut found: Option<(usize, u32, u64)> = None;
        for (level, occupied) in self.occupied.iter().enumerate() {
            if *occupied == 0 {
                continue;
            }
            let slot = occupied.trailing_zeros();
            let shift = LEVEL_BITS * level as u32;
            let above = self.present >> (shift + LEVEL_BITS) << (shift + LEVEL_BITS);
            let start = (above | u64::from(slot) << shift).max(self.present);
            if found.is_none_or(|(_, _, earliest)| start <= earliest) {
                found = Some((level, (level as u32) << LEVEL_BITS | slot, start));
            }
        }
        found
    }

    fn set_tick(&mut self, timers: &mut impl Timers, record: u32, tick: u64) {
        self.cancel(timers, record);
        let level = ((self.present ^ tick) | 1).ilog2() / LEVEL_BITS;
        let slot = (tick >> (level * LEVEL_BITS)) as u32 & ((1 << LEVEL_BITS) - 1);
        let list = level << LEVEL_BITS | slot;
        let Some(&head) = self.heads.get(list as usize) else { return };
        let Some(timer) = timers.timer(record).filter(|_| record & LIST == 0) else { return };
        timer.set_tick(tick);
        timer.next = head;
        timer.previous = LIST | list;
        if let Some(after) = timers.timer(head) {
            after.previous = record;
        }
        self.set_head(list, record);
    }

    fn set_head(&mut self, list: u32, head: u32) {
        if let Some(place) = self.heads.get_mut(list as usize) {
            *place = head;
        }
        if let Some(occupied) = self.occupied.get_mut((list >> LEVEL_BITS) as usize) {
            let bit = 1 << (list & ((1 << LEVEL_BITS) - 1));
            if head == NONE {
                *occupied &= !bit;
            } else {
                *occupied |= bit;
            }
        }
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
        let mut due: Vec<u32> = std::iter::from_fn(|| wheel.next_due(timers, now, &mut budget)).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn a_timer_ends_at_its_deadline_and_not_before() {
        for deadline in [0, 1, TICK, 63 * TICK, 64 * TICK, 300_000, 7_440_000, 1 << 40, 1 << 53] {
            let mut timers = vec![Timer::new(0)];
            let mut wheel = Wheel::default();
            wheel.set(&mut timers, 0, deadline);
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
        wheel.set(&mut timers, 0, u64::MAX);
        assert_eq!(due(&mut wheel, &mut timers, 1 << 53), [0; 0]);
        assert_eq!(due(&mut wheel, &mut timers, u64::MAX), [0]);
        wheel.set(&mut timers, 1, 5);
        assert_eq!(due(&mut wheel, &mut timers, 0), [0; 0], "time does not go back");
        assert_eq!(due(&mut wheel, &mut timers, u64::MAX), [1]);
    }

    #[test]
    fn a_budget_bounds_moving_down_and_loses_nothing() {
        let mut timers = vec![Timer::new(0); 1000];
        let mut wheel = Wheel::default();
        for record in 0..1000 {
            wheel.set(&mut timers, record, 300_000 + u64::from(record % 7));
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
                wheel.set(&mut timers, 999, 300_001);
            }
        }
        assert_eq!(found, 1000);
        assert!((200..=400).contains(&calls), "each timer moves at most twice and ends once: {calls} calls of 10");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(u32, u64),
        Cancel(u32),
        Advance(u64, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let span = prop_oneof![0_u64..300, 0_u64..10_000, 0_u64..10_000_000, 0_u64..1 << 45];
        let step = prop_oneof![
            4 => (0_u32..40, span.clone()).prop_map(|(record, after)| Step::Set(record, after)),
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
                    Step::Set(record, after) => {
                        wheel.set(&mut timers, record, now + after);
                        twin[record as usize] = Some(now + after);
                    }
                    Step::Cancel(record) => {
                        wheel.cancel(&mut timers, record);
                        twin[record as usize] = None;
                    }
                    Step::Advance(by, mut budget) => {
                        now += by;
                        while let Some(record) = wheel.next_due(&mut timers, now, &mut budget) {
                            let deadline = twin[record as usize].take().unwrap();
                            prop_assert!(deadline <= now, "ended early");
                        }
                        if budget > 0 {
                            prop_assert!(twin.iter().flatten().all(|deadline| deadline + TICK > now), "forgotten");
                        }
                    }
                }
                let set = timers.iter().map(Timer::is_set);
                prop_assert!(set.eq(twin.iter().map(Option::is_some)));
                let earliest = twin.iter().flatten().min();
                prop_assert_eq!(wheel.next_deadline().is_some(), earliest.is_some());
                if let (Some(bound), Some(earliest)) = (wheel.next_deadline(), earliest) {
                    prop_assert!(bound < (*earliest).max(now) + TICK, "a lower bound, but for the tick");
                }
            }
        }
    }
}
