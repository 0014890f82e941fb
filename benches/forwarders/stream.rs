//! A stream of datagrams at a pace, and what arrives of it: the highest rate without loss, and how long datagrams are on
//! their way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::datagrams::{BURST, Inbox, Link, Outbox, clock};
use crate::ending::Ending;

/// What may be lost of a stream that counts as received: a thousandth.
const LOSS: f64 = 0.001;

/// Datagrams that a sender makes good for when it had no processor; what it is later than that, it leaves out.
const ARREARS: u64 = 128;

/// Two rates between which the highest without loss lies, in parts of what a flood brings through.
const LOWEST: f64 = 0.25;
const HIGHEST: f64 = 1.6;

/// When datagrams are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As fast as the sender can.
    Flood,
    /// So many in a second, each when it is due. The sender never sleeps; while it waits, it lets others have its processor.
    Even(f64),
    /// So many in a second, in bursts between which the sender sleeps.
    Bursts(f64),
}

/// What became of a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Those that came after one with a larger number.
    pub(crate) late: u64,
    /// Datagrams that arrived in a second, the beginning and the rest of a queue at the end left out.
    pub(crate) rate: f64,
    /// Nanoseconds that each was on its way, sorted.
    pub(crate) delays: Vec<u32>,
}

impl Outcome {
    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Whether nearly all arrived.
    fn is_complete(&self) -> bool {
        self.lost() as f64 <= self.sent as f64 * LOSS
    }

    /// Microseconds within which this part of the datagrams arrived.
    pub(crate) fn delay(&self, part: f64) -> f64 {
        let last = self.delays.len().saturating_sub(1);
        self.delays.get((last as f64 * part) as usize).map_or(f64::NAN, |delay| f64::from(*delay) / 1e3)
    }
}

/// Sends datagrams of one size as long as `going` says, asked with the time since the start.
pub(crate) fn stream(link: &Link, size: usize, pace: Pace, mut going: impl FnMut(Duration) -> bool) -> Outcome {
    let stream = fastrand::u32(..);
    let (arrived, ending) = (AtomicU64::new(0), Ending::default());
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut inbox = Inbox::new(&link.receiver, size, false);
            let mut outcome = Outcome::default();
            let mut next = 0;
            loop {
                // All of a call carry the time of its end: that is when a program has them.
                let mut count = 0;
                let heard = inbox.receive(|stamp| {
                    if stamp.stream == stream {
                        count += 1;
                        outcome.late += u64::from(stamp.number < next);
                        next = next.max(stamp.number + 1);
                        // The time is put in below.
                        outcome.delays.push(stamp.time as u32);
                    }
                });
                let now = clock() as u32;
                let from = outcome.delays.len() - count;
                outcome.delays[from..].iter_mut().for_each(|sent| *sent = now.wrapping_sub(*sent));
                outcome.received += count as u64;
                arrived.store(outcome.received, Ordering::Relaxed);
                if !heard && ending.has_come() {
                    return outcome;
                }
            }
        });

        let guard = ending.guard();
        let mut outbox = Outbox::new(&link.sender, size, stream);
        let start = Instant::now();
        let mut early = None;
        let mut left_out = 0;
        loop {
            let passed = start.elapsed();
            if !going(passed) {
                break;
            }
            // Warm after a while, however long it lasts.
            if early.is_none() && passed > WARM {
                early = Some((Instant::now(), arrived.load(Ordering::Relaxed)));
            }
            let (Pace::Even(rate) | Pace::Bursts(rate)) = pace else {
                outbox.send(BURST);
                continue;
            };
            let due = (passed.as_secs_f64() * rate) as u64;
            left_out = left_out.max(due.saturating_sub(outbox.sent + ARREARS));
            let waiting = due.saturating_sub(outbox.sent + left_out) as usize;
            match pace {
                Pace::Bursts(_) if waiting < BURST / 2 => thread::sleep(Duration::from_micros(50)),
                _ if waiting == 0 => thread::yield_now(),
                _ => outbox.send(waiting),
            }
        }
        let (since, before) = early.unwrap_or((start, 0));
        let rate = (arrived.load(Ordering::Relaxed) - before) as f64 / since.elapsed().as_secs_f64();
        let sent = outbox.sent;
        drop(guard);
        let mut outcome = receiver.join().expect("the receiver");
        outcome.delays.sort_unstable();
        Outcome { sent, rate, ..outcome }
    })
}

/// How long a stream runs until what arrives is counted for its rate.
const WARM: Duration = Duration::from_millis(20);

/// How long something is measured.
pub(crate) fn during(time: Duration) -> impl FnMut(Duration) -> bool {
    move |passed| passed < time
}

/// The highest rate of which nearly all arrives, found by halving the space between two rates, by their ratio.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    low: f64,
    high: f64,
    /// What arrived in a second of the highest rate so far that loses next to nothing; 0 where none has been found.
    pub(crate) best: f64,
}

impl Search {
    /// A search about what arrives of a flood.
    pub(crate) fn around(flood: f64) -> Self {
        Self { low: flood * LOWEST, high: flood * HIGHEST, best: 0.0 }
    }

    /// Halves the space. A rate that loses is tried once more, because on a machine with other things to do one interruption
    /// is enough to lose, and it says nothing about the forwarder.
    pub(crate) fn step(&mut self, link: &Link, size: usize, trial: Duration) {
        let rate = (self.low * self.high).sqrt();
        let passes = (0..2).find_map(|_| {
            let outcome = stream(link, size, Pace::Even(rate), during(trial));
            outcome.is_complete().then_some(outcome.rate)
        });
        match passes {
            Some(arrived) => {
                self.best = self.best.max(arrived);
                self.low = rate;
            }
            None => self.high = rate,
        }
    }
}
