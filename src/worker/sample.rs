//! Which batches and first packets are timed. Only the worker reads a clock, and for one in [`ONE_IN`]: a reading takes some 25
//! ns, two of them are a third of a packet of a flow and a tenth of a first packet. Packets of flows are never timed one by one.

use std::time::Instant;

/// One of so many is timed, the first one included: a pair of readings is then 3 ns for a batch or a first packet.
const ONE_IN: u32 = 16;

/// Times one of [`ONE_IN`] of something.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// How many have begun, as far as it matters.
    count: u32,
    began: Option<Instant>,
}

impl Sample {
    /// One begins: takes the time if it is its turn.
    pub(super) fn begin(&mut self) {
        self.began = self.count.is_multiple_of(ONE_IN).then(Instant::now);
    }

    /// It has ended: how long it took in nanoseconds, if it was timed.
    pub(super) fn end(&mut self) -> Option<u64> {
        self.count = self.count.wrapping_add(1);
        let began = self.began.take()?;
        Some(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_timed_and_then_each_sixteenth() {
        let mut sample = Sample::default();
        let timed: Vec<usize> = (0..40)
            .filter(|_| {
                sample.begin();
                sample.end().is_some()
            })
            .collect();
        assert_eq!(timed, [0, 16, 32]);
    }

    /// A read that gave nothing was no batch: the turn is the next one's.
    #[test]
    fn what_begins_and_does_not_end_is_not_counted() {
        let mut sample = Sample::default();
        for _ in 0..5 {
            sample.begin();
        }
        assert!(sample.end().is_some() && sample.end().is_none());
    }
}
