//! Source ports (and ICMP identifiers, which are used alike) for address translation.
//!
//! Workers give out ports of the same ranges; that no two give out the same one towards a destination is for whoever is
//! asked whether a port is free. A port is looked for from a random place on (RFC 6056, section 3.3.1): an observer can't
//! guess the next one, and the search is short as long as the range isn't nearly full.

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

impl PortRange {
    /// A range; none if `last` is below `first`.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// How many ports it has; 0 if `last` is below `first`.
    pub const fn count(self) -> u32 {
        (self.last as u32 + 1).saturating_sub(self.first as u32)
    }

    /// Whether it has a port.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Picks a port: the first one that `is_free` accepts, from a place on that `random` decides, going round once. At
    /// most `attempts` ports are asked for, so that a full range costs a packet no more than that. The same number and
    /// the same answers give the same port.
    pub fn pick(self, random: u64, attempts: u32, mut is_free: impl FnMut(u16) -> bool) -> Option<u16> {
        let count = self.count();
        // The upper half of the product: every place is as likely as any other to one part in 2^48.
        let start = ((u128::from(random) * u128::from(count)) >> 64) as u32;
        (0..count.min(attempts))
            .map(|step| {
                let place = start + step;
                self.first + (if place < count { place } else { place - count }) as u16
            })
            .find(|port| is_free(*port))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const RANGE: PortRange = PortRange { first: 1024, last: 65535 };

    #[test]
    fn every_port_is_found_when_it_is_the_last_free_one() {
        let range = PortRange { first: 65530, last: 65535 };
        for free in range.first..=range.last {
            for random in [0, 1, u64::MAX, u64::MAX / 2, 0x5555_5555_5555_5555] {
                assert_eq!(range.pick(random, 6, |port| port == free), Some(free));
            }
        }
    }

    #[test]
    fn attempts_bound_the_search() {
        let mut asked = Vec::new();
        let none = RANGE.pick(u64::MAX, 3, |port| {
            asked.push(port);
            false
        });
        assert_eq!(none, None);
        assert_eq!(asked, [65535, 1024, 1025], "it goes round at the end");
    }

    #[test]
    fn the_random_number_decides() {
        assert_eq!(RANGE.pick(0, 1, |_| true), Some(1024));
        assert_eq!(RANGE.pick(1 << 63, 1, |_| true), Some(1024 + 32256));
        assert_eq!(RANGE.pick(u64::MAX, 1, |_| true), Some(65535));
    }

    #[test]
    fn a_reversed_range_is_empty() {
        assert_eq!(PortRange::new(2, 1), None);
        let reversed = PortRange { first: 2, last: 1 };
        assert_eq!(reversed.count(), 0);
        assert_eq!(reversed.pick(7, 9, |_| true), None);
    }
}
