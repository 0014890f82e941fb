//! How many flows there are on the whole node, and how many each owner has of them. All workers share the counts and
//! touch them only where a flow is made or ends, never for a packet of a flow that exists.
//!
//! The limits are passed with every request, so that a changed configuration counts from the next flow on. No lock: a
//! count goes up by comparing and exchanging, so nobody ever sees it above the limit that it was taken under. Nothing
//! else is published by means of the counts, therefore relaxed order is enough.
//!
//! # Invariants
//! - A count is never above the largest limit that it was asked with, and never below zero.
//! - A refused request leaves both counts as they were; while it is being refused, others may see its owner's count one
//!   higher for a moment, within the owner's limit.

use std::sync::atomic::{AtomicU32, Ordering};

/// Most owners: what their number can say. A slot is 4 bytes, so the counts of all take 256 KiB.
const OWNERS_MAX: usize = 1 << 16;

/// Why a flow may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// The owner has as many flows as it may have.
    #[error("the owner has as many flows as it may have")]
    Owner,
    /// The node has as many flows as it may have.
    #[error("the node has as many flows as it may have")]
    Total,
}

/// The counts of flows that all workers share.
#[derive(Debug)]
pub struct Quota {
    total: AtomicU32,
    owners: Box<[AtomicU32]>,
}

impl Quota {
    /// Counts for the owners below `owners` (65,536 at most), all zero.
    pub fn new(owners: usize) -> Self {
        Self { total: AtomicU32::new(0), owners: (0..owners.min(OWNERS_MAX)).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Counts one more flow of an owner.
    ///
    /// # Errors
    /// Where the owner has `limit_per_owner` flows already (an owner without a slot may have none), or the node has
    /// `limit`. Nothing has changed then.
    pub fn take(&self, owner: u16, limit_per_owner: u32, limit: u32) -> Result<(), Exceeded> {
        let own = self.owners.get(usize::from(owner)).ok_or(Exceeded::Owner)?;
        if !up(own, limit_per_owner) {
            return Err(Exceeded::Owner);
        }
        if !up(&self.total, limit) {
            down(own);
            return Err(Exceeded::Total);
        }
        Ok(())
    }

    /// Counts one flow of an owner less; does nothing where it has none.
    pub fn give_back(&self, owner: u16) {
        if self.owners.get(usize::from(owner)).is_some_and(down) {
            down(&self.total);
        }
    }

    /// Flows of the whole node.
    pub fn used(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes that the counts take: as many for one flow as for all.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.owners)
    }

    /// Flows of an owner.
    pub fn used_by(&self, owner: u16) -> u32 {
        self.owners.get(usize::from(owner)).map_or(0, |own| own.load(Ordering::Relaxed))
    }

    /// The owners with the most flows and how many each has, the largest first, of equals the lower number first; at
    /// most `count`, and none without a flow. Reads every slot: for people who ask, not for packets.
    pub fn top(&self, count: usize) -> Vec<(u16, u32)> {
        let used = self.owners.iter().map(|own| own.load(Ordering::Relaxed));
        let mut top: Vec<(u16, u32)> = (0..=u16::MAX).zip(used).filter(|(_, used)| *used > 0).collect();
        top.sort_unstable_by_key(|(owner, used)| (u32::MAX - used, *owner));
        top.truncate(count);
        top
    }
}

/// One more, if that is within the limit.
fn up(count: &AtomicU32, limit: u32) -> bool {
    let more = |used: u32| used.checked_add(1).filter(|used| *used <= limit);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// One less, if there is one.
fn down(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_sub(1)).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn an_owner_and_the_node_have_limits_of_their_own() {
        let quota = Quota::new(3);
        assert_eq!(quota.take(1, 2, 3), Ok(()));
        assert_eq!(quota.take(1, 2, 3), Ok(()));
        assert_eq!(quota.take(1, 2, 3), Err(Exceeded::Owner));
        assert_eq!(quota.take(2, 2, 3), Ok(()));
        assert_eq!(quota.take(2, 2, 3), Err(Exceeded::Total));
        assert_eq!((quota.used(), quota.used_by(1), quota.used_by(2)), (3, 2, 1), "refusals change nothing");
        assert_eq!(quota.take(2, 2, 4), Ok(()), "a limit that was raised counts at once");
        quota.give_back(1);
        assert_eq!((quota.used(), quota.used_by(1)), (3, 1));
        assert_eq!(quota.take(1, 1, 9), Err(Exceeded::Owner), "and so does one that was lowered");
    }

    #[test]
    fn what_was_not_taken_cannot_be_given_back() {
        let quota = Quota::new(2);
        assert_eq!(quota.take(0, 1, 1), Ok(()));
        quota.give_back(1);
        quota.give_back(7);
        assert_eq!((quota.used(), quota.used_by(0), quota.used_by(1), quota.used_by(7)), (1, 1, 0, 0));
        quota.give_back(0);
        quota.give_back(0);
        assert_eq!(quota.used(), 0);
        assert_eq!(quota.take(2, 1, 1), Err(Exceeded::Owner), "an owner without a slot");
    }

    #[test]
    fn the_largest_owners_come_first() {
        let quota = Quota::new(usize::MAX);
        for (owner, flows) in [(3, 2), (65_535, 4), (9, 2), (1, 1)] {
            for _ in 0..flows {
                assert_eq!(quota.take(owner, 10, 100), Ok(()));
            }
        }
        assert_eq!(quota.top(3), [(65_535, 4), (3, 2), (9, 2)]);
        assert_eq!(quota.top(9).len(), 4);
        assert_eq!(quota.top(0), []);
    }

    /// Four workers take and give back as fast as they can, at limits that are always near.
    #[test]
    fn workers_that_race_never_get_over_the_limits() {
        const WORKERS: usize = 4;
        const PER_OWNER: u32 = 3;
        const TOTAL: u32 = 5;
        let quota = Quota::new(2);
        let start = Barrier::new(WORKERS);
        let held: Vec<[u32; 2]> = thread::scope(|scope| {
            let work = |worker: usize| {
                let (quota, start) = (&quota, &start);
                move || {
                    let mut random = fastrand::Rng::with_seed(worker as u64);
                    let mut held = [0_u32; 2];
                    start.wait();
                    for _ in 0..20_000 {
                        let owner = random.u16(..2);
                        let mine = held.get_mut(usize::from(owner)).unwrap();
                        if *mine > 0 && random.bool() {
                            quota.give_back(owner);
                            *mine -= 1;
                        } else if quota.take(owner, PER_OWNER, TOTAL).is_ok() {
                            *mine += 1;
                        }
                        assert!(
                            quota.used() <= TOTAL && quota.used_by(0) <= PER_OWNER && quota.used_by(1) <= PER_OWNER
                        );
                    }
                    held
                }
            };
            let threads: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(work(worker))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sums = held.iter().fold([0, 0], |sums: [u32; 2], held| [sums[0] + held[0], sums[1] + held[1]]);
        assert_eq!([quota.used_by(0), quota.used_by(1)], sums);
        assert_eq!(quota.used(), sums[0] + sums[1]);
    }

    /// Where everybody only takes, exactly as many get one as there are.
    #[test]
    fn no_flow_is_lost_when_workers_race_for_the_last() {
        let quota = Quota::new(8);
        let taken: usize = thread::scope(|scope| {
            let take = |owner| {
                let quota = &quota;
                move || (0..1_000).filter(|_| quota.take(owner, 1_000, 2_500).is_ok()).count()
            };
            let threads: Vec<_> = (0..8).map(|owner| scope.spawn(take(owner))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 2_500);
        assert_eq!(quota.used(), 2_500);
        assert_eq!((0..8).map(|owner| quota.used_by(owner)).sum::<u32>(), 2_500);
    }
}
