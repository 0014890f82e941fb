//! How a worker waits for packets: asleep, or looking for them a while longer first.
//!
//! Whoever sleeps has to be woken, and on an idle processor that takes longer than everything else that happens to a
//! packet: tens of microseconds in a virtual machine. Looking again and again instead finds the packet at once and keeps a
//! processor busy meanwhile. So it is done only where it pays: as long as packets have lately come within [`MOST`] of each
//! other, and never where another thread wants the processor.

use std::time::{Duration, Instant};

/// How workers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Poll {
    /// Asleep: no packet, no processor time.
    #[default]
    Sleep,
    /// Looking for packets for a while that follows how they come, then asleep.
    Adaptive,
}

/// The longest that is looked for packets: traffic with longer gaps finds the worker asleep. A thread that turns up needs no
/// more than this long until the processor is its own.
const MOST: Duration = Duration::from_millis(4);

/// A pause by which a thread shows that wants the processor for longer: its time slice is some milliseconds. Interrupts, and
/// threads that only have a packet to take, are done before; they get the processor with every look.
const WANTED: Duration = Duration::from_micros(100);

/// How long the processor is left to others who wanted it, at first and at most: a try costs a packet the time slice of
/// another thread.
const LEFT_FIRST: Duration = Duration::from_millis(10);
const LEFT_MOST: Duration = Duration::from_secs(1);

/// How a worker has waited lately.
#[derive(Debug)]
pub(super) struct Waiting {
    mode: Poll,
    /// How long to look before sleeping.
    window: Duration,
    /// Until when the processor is left to others.
    left_until: Option<Instant>,
    left: Duration,
}

/// What comes of one look that found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Look again.
    Again,
    /// Sleep.
    Sleep,
}

impl Waiting {
    /// One who has not waited yet.
    pub(super) fn new(mode: Poll) -> Self {
        Self { mode, window: Duration::ZERO, left_until: None, left: LEFT_FIRST }
    }

    /// Whether it matters how packets come.
    pub(super) fn is_adaptive(&self) -> bool {
        self.mode == Poll::Adaptive
    }

    /// Whether to look before sleeping.
    pub(super) fn looks(&self, now: Instant) -> bool {
        self.mode == Poll::Adaptive && !self.window.is_zero() && self.left_until.is_none_or(|until| until <= now)
    }

    /// A look from `before` to `now` found nothing, and others had the chance to run in it. The wait began at `since`.
    pub(super) fn looked(&mut self, since: Instant, before: Instant, now: Instant) -> Look {
        if now.saturating_duration_since(before) > WANTED {
            self.left_until = Some(now + self.left);
            self.left = (self.left * 2).min(LEFT_MOST);
            return Look::Sleep;
        }
        if now.saturating_duration_since(since) < self.window {
            return Look::Again;
        }
        self.undisturbed();
        Look::Sleep
    }

    /// Nobody wanted the processor all the while.
    pub(super) fn undisturbed(&mut self) {
        self.left = LEFT_FIRST;
    }

    /// A packet has come, so long after the one before was done with.
    pub(super) fn ended(&mut self, waited: Duration) {
        self.window = if waited > MOST { Duration::ZERO } else { self.window.max((waited * 2).min(MOST)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(1);

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn who_sleeps_never_looks() {
        let mut waiting = Waiting::new(Poll::Sleep);
        waiting.ended(milliseconds(1));
        assert!(!waiting.looks(Instant::now()));
    }

    #[test]
    fn the_window_follows_how_packets_come() {
        let mut waiting = Waiting::new(Poll::Adaptive);
        let start = Instant::now();
        assert!(!waiting.looks(start), "nothing has come yet");
        waiting.ended(milliseconds(1));
        assert!(waiting.looks(start));
        let look = |waiting: &mut Waiting, after| waiting.looked(start, start + after - SOON, start + after);
        assert_eq!(look(&mut waiting, milliseconds(1)), Look::Again);
        assert_eq!(look(&mut waiting, milliseconds(2)), Look::Sleep);
        // A longer gap makes it longer, a shorter one leaves it, up to the most.
        waiting.ended(milliseconds(3));
        waiting.ended(SOON);
        assert_eq!(look(&mut waiting, milliseconds(3)), Look::Again);
        assert_eq!(look(&mut waiting, milliseconds(4)), Look::Sleep);
        // Nothing for long: asleep until packets come close to each other again.
        waiting.ended(milliseconds(5));
        assert!(!waiting.looks(start));
    }

    #[test]
    fn the_processor_is_left_to_others_for_longer_and_longer() {
        let mut waiting = Waiting::new(Poll::Adaptive);
        waiting.ended(milliseconds(1));
        let mut now = Instant::now();
        for left in [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000] {
            assert!(waiting.looks(now));
            assert_eq!(waiting.looked(now, now, now + 2 * WANTED), Look::Sleep);
            now += 2 * WANTED;
            assert!(!waiting.looks(now + milliseconds(left - 1)));
            now += milliseconds(left);
        }
        // Undisturbed once, it begins anew.
        assert_eq!(waiting.looked(now, now + milliseconds(2), now + milliseconds(2)), Look::Sleep);
        assert_eq!(waiting.looked(now, now, now + 2 * WANTED), Look::Sleep);
        assert!(waiting.looks(now + 2 * WANTED + milliseconds(10)));
    }
}
