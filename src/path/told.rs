//! What has been told of each flow so far, by its place in the table.
//!
//! Memory is asked for once, for all flows that there may ever be, and taken page by page as it is used: nothing grows or
//! moves while packets pass. Zeros say that nothing is known of a flow yet.

/// One flow: as much as a line of the processor's cache has.
const WORDS: usize = 8;
type Words = [u64; WORDS];

/// Bits of the last word, beside the round trip.
const KNOWN: u64 = 1 << 32;
const TIMED: u64 = 1 << 33;

/// What has been told of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Packets in each direction.
    pub(super) packets: [u64; 2],
    /// Their bytes.
    pub(super) bytes: [u64; 2],
    /// When it began, in milliseconds.
    pub(super) began: u64,
    /// When it is to be told again if it goes on.
    pub(super) due: u64,
    /// When its first packet came, in microseconds; 0 where no answer is waited for.
    pub(super) asked: u64,
    /// How long the answer took, in microseconds.
    pub(super) round_trip: Option<u32>,
}

impl Told {
    fn from_words(words: &Words) -> Option<Self> {
        let [forward, reverse, forward_bytes, reverse_bytes, began, due, asked, rest] = *words;
        (rest & KNOWN != 0).then_some(Self {
            packets: [forward, reverse],
            bytes: [forward_bytes, reverse_bytes],
            began,
            due,
            asked,
            round_trip: (rest & TIMED != 0).then_some(rest as u32),
        })
    }

    fn words(&self) -> Words {
        let Self { packets: [forward, reverse], bytes: [forward_bytes, reverse_bytes], began, due, asked, .. } = *self;
        let rest = KNOWN | self.round_trip.map_or(0, |micros| TIMED | u64::from(micros));
        [forward, reverse, forward_bytes, reverse_bytes, began, due, asked, rest]
    }
}

/// That of all flows of a table.
#[derive(Debug)]
pub(super) struct ToldFlows {
    list: Vec<Words>,
}

impl ToldFlows {
    /// Room for the flows of a table that has no more than this. Where the system has no such room, it grows and moves, as
    /// the table itself does then.
    pub(super) fn new(limit: usize) -> Self {
        // What is refused here would end the process below.
        let there_is_room = Vec::<Words>::new().try_reserve_exact(limit).is_ok();
        Self { list: if there_is_room { vec![[0; WORDS]; limit] } else { Vec::new() } }
    }

    /// What has been told of the flow of a place, if it is known.
    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<Told> {
        Told::from_words(self.list.get(place as usize)?)
    }

    /// Keeps what has been told of the flow of a place, or that nothing is known of it.
    pub(super) fn set(&mut self, place: u32, told: Option<&Told>) {
        let words = told.map_or([0; WORDS], Told::words);
        let place = place as usize;
        if place >= self.list.len() {
            if told.is_none() {
                return;
            }
            self.list.resize((place + 1).next_power_of_two(), [0; WORDS]);
        }
        if let Some(kept) = self.list.get_mut(place) {
            *kept = words;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(began: u64, round_trip: Option<u32>) -> Told {
        Told { packets: [1, 2], bytes: [3, 4], began, due: 6, asked: 7, round_trip }
    }

    #[test]
    fn what_is_kept_is_read_back() {
        for limit in [0, 1, 4_096] {
            let mut flows = ToldFlows::new(limit);
            assert_eq!(flows.get(4_000), None);
            flows.set(4_000, None);
            for told in [Told::default(), told(5, None), told(u64::MAX, Some(0)), told(0, Some(u32::MAX))] {
                flows.set(4_000, Some(&told));
                assert_eq!(flows.get(4_000), Some(told));
                assert_eq!((flows.get(3_999), flows.get(4_001)), (None, None));
            }
            flows.set(4_000, None);
            assert_eq!(flows.get(4_000), None);
        }
    }
}
