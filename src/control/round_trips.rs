//! How long first answers take on each path, for who looks at the page: taken from the records of flows while somebody asks
//! again and again, in a bounded number of samples, and forgotten when nobody has asked for a while.
//!
//! A flow tells it once, with its first answer ([`Record::round_trip`]): a new ping, query or connection is a sample, an old one
//! that goes on is none. What is told is of flows that begin at a NIC, whose path it is then.

use std::time::{Duration, Instant};

use crate::path::kind::PathKind;
use crate::path::record::{About, Event, Record};
use crate::snapshot::PortKind;

/// Samples that are kept of each path between two questions; where there are more, any of them with the same chance.
const KEPT: usize = 256;

/// How long after the last question somebody still looks: longer than a page waits for its next one.
const LOOKING: Duration = Duration::from_secs(5);

/// How long first answers took on one path between two questions, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoundTrip {
    /// The path.
    pub(crate) path: PathKind,
    /// How many first answers there were.
    pub(crate) count: u64,
    /// The shortest.
    pub(crate) least: u32,
    /// The middle one of the samples.
    pub(crate) median: u32,
    /// Nine of ten samples took no longer.
    pub(crate) p90: u32,
}

/// Samples of all paths since the last question.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    asked: Option<Instant>,
    paths: [Samples; PathKind::ALL.len()],
}

#[derive(Debug, Default)]
struct Samples {
    count: u64,
    least: u32,
    kept: Vec<u32>,
}

impl RoundTrips {
    /// Whether somebody looks.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted_at(Instant::now())
    }

    fn is_wanted_at(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < LOOKING)
    }

    /// What there was since the last question, none of paths without any. From now on somebody looks.
    pub(crate) fn ask(&mut self) -> Vec<RoundTrip> {
        self.asked = Some(Instant::now());
        let paths = PathKind::ALL.into_iter().zip(&mut self.paths);
        paths.filter_map(|(path, samples)| std::mem::take(samples).told(path)).collect()
    }

    /// Takes a record in, if it tells how long a first answer took.
    pub(crate) fn add(&mut self, record: &Record) {
        let (Event::Reply, Some(took), Some(next_hop_type)) = (record.event, record.round_trip, record.next_hop_type)
        else {
            return;
        };
        let About::Flow(sides) = &record.about else { return };
        // Behind the gateway, and behind the internet, the way to a NIC is another one than the way from it.
        if record.snapshot.port(sides.ingress).is_some_and(|port| port.kind == PortKind::Nic) {
            self.paths[PathKind::of(next_hop_type).index()].add(took);
        }
    }
}

impl Samples {
    fn add(&mut self, took: u32) {
        self.least = if self.count == 0 { took } else { self.least.min(took) };
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push(took);
        } else if let Some(place) = usize::try_from(fastrand::u64(..self.count)).ok().filter(|place| *place < KEPT) {
            // Vitter's algorithm R: the newest one is kept with the chance that every one has.
            self.kept[place] = took;
        }
    }

    fn told(mut self, path: PathKind) -> Option<RoundTrip> {
        self.kept.sort_unstable();
        let part = |percent: usize| self.kept.get((self.kept.len() - 1) * percent / 100).copied();
        if self.kept.is_empty() {
            return None;
        }
        Some(RoundTrip { path, count: self.count, least: self.least, median: part(50)?, p90: part(90)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_told_once_and_bounded() {
        let mut trips = RoundTrips::default();
        assert!(!trips.is_wanted() && trips.ask().is_empty() && trips.is_wanted());
        for took in [900, 40_500, 41_000, 40_000, 39_000] {
            trips.paths[PathKind::Tunnel.index()].add(took);
        }
        trips.paths[PathKind::Endpoint.index()].add(700);
        let told = |path, count, least, median, p90| RoundTrip { path, count, least, median, p90 };
        let wanted = [told(PathKind::Endpoint, 1, 700, 700, 700), told(PathKind::Tunnel, 5, 900, 40_000, 40_500)];
        assert_eq!(trips.ask(), wanted);
        assert_eq!(trips.ask(), []);

        // Many fast ones after many slow ones: what is kept is a sample of all.
        let samples = &mut trips.paths[PathKind::Inside.index()];
        (0..10_000).for_each(|_| samples.add(5000));
        (0..30_000).for_each(|_| samples.add(100));
        assert_eq!(samples.kept.len(), KEPT);
        let slow = samples.kept.iter().filter(|took| **took == 5000).count();
        assert!((20..110).contains(&slow), "{slow} of {KEPT}, not about a quarter");
        assert_eq!(trips.ask(), [told(PathKind::Inside, 40_000, 100, 100, 5000)]);
    }

    #[test]
    fn who_has_not_asked_for_long_does_not_look() {
        let mut trips = RoundTrips::default();
        trips.ask();
        assert!(trips.is_wanted_at(Instant::now() + LOOKING - Duration::from_millis(500)));
        assert!(!trips.is_wanted_at(Instant::now() + LOOKING));
    }
}
