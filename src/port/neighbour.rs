//! Which link-layer address a neighbour has: a bounded cache that says when to ask, in the manner of RFC 4861 section 7.3
//! and RFC 1122 section 2.3.2.1, for both families alike. Time is passed in; messages are made elsewhere
//! ([`super::resolution`]).
//!
//! - An address that is not known is asked for, three times a second apart. The first packet for it is held until then;
//!   others are refused, so a flood towards an address that nobody has costs one buffer.
//! - A known address is used for a minute; then it is asked for again while it stays in use, and given up after three
//!   questions without an answer.
//! - Answers that nobody asked for change nothing. A question that a neighbour asks us tells its address.
//! - When the cache is full, the entry whose last use is longest ago makes room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pnet::util::MacAddr;

use crate::packet::frame::Offload;

/// Neighbours known at most. With a held packet each, 64 MiB; in practice held packets are first packets and small.
const CAPACITY: usize = 1024;

/// How long an address is believed without asking again.
const CONFIRMED: Duration = Duration::from_secs(60);

/// Time between two questions (RFC 4861 section 10, RETRANS_TIMER).
const RETRY: Duration = Duration::from_secs(1);

/// Questions without an answer until a neighbour is given up (MAX_MULTICAST_SOLICIT).
const QUESTIONS: u32 = 3;

/// A packet that waits for its neighbour's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) offload: Offload,
}

#[derive(Debug)]
struct Entry {
    /// None until the first answer.
    mac: Option<MacAddr>,
    /// When the address was last told.
    confirmed: Instant,
    used: Instant,
    /// Questions asked since the last answer, and when the next one is due.
    asked: u32,
    next_question: Option<Instant>,
    held: Option<Held>,
}

/// What to do for a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Send it there; `ask` says to ask again beside it.
    Known {
        /// The neighbour's link-layer address.
        mac: MacAddr,
        /// Time for another question.
        ask: bool,
    },
    /// Hold it by [`Neighbours::hold`] and ask.
    Ask,
    /// A question is under way and another packet is held: drop it.
    Waiting,
}

/// What [`Neighbours::advance`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Neighbours to ask for, with the address that is believed so far.
    pub(super) ask: Vec<(IpAddr, Option<MacAddr>)>,
    /// Held packets that were dropped since nobody answered.
    pub(super) dropped: u64,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    entries: HashMap<IpAddr, Entry>,
}

impl Neighbours {
    /// Looks up where a packet for a neighbour goes, and notes its use. The second value counts a held packet that was
    /// dropped to make room.
    pub(super) fn lookup(&mut self, neighbour: IpAddr, now: Instant) -> (Lookup, u64) {
        if let Some(entry) = self.entries.get_mut(&neighbour) {
            entry.used = now;
            let Some(mac) = entry.mac else {
                return (if entry.held.is_some() { Lookup::Waiting } else { Lookup::Ask }, 0);
            };
            let ask = entry.next_question.is_none() && now.saturating_duration_since(entry.confirmed) >= CONFIRMED;
            if ask {
                entry.asked = 1;
                entry.next_question = Some(now + RETRY);
            }
            return (Lookup::Known { mac, ask }, 0);
        }
        let dropped = self.insert(neighbour, None, now);
        (Lookup::Ask, dropped)
    }

    /// Holds the packet that made [`Lookup::Ask`].
    pub(super) fn hold(&mut self, neighbour: IpAddr, held: Held) {
        if let Some(entry) = self.entries.get_mut(&neighbour) {
            entry.held = Some(held);
        }
    }

    /// Takes an answer. Unasked ones change nothing. Gives the packet that waited for it.
    pub(super) fn answered(&mut self, neighbour: IpAddr, mac: MacAddr, now: Instant) -> Option<Held> {
        let entry = self.entries.get_mut(&neighbour)?;
        entry.next_question?;
        entry.confirm(mac, now)
    }

    /// Takes the address of a neighbour that asked us something. Gives the packet that waited for it, and counts a held
    /// packet that was dropped to make room.
    pub(super) fn asked_by(&mut self, neighbour: IpAddr, mac: MacAddr, now: Instant) -> (Option<Held>, u64) {
        match self.entries.get_mut(&neighbour) {
            Some(entry) => (entry.confirm(mac, now), 0),
            None => (None, self.insert(neighbour, Some(mac), now)),
        }
    }

    /// When a question is due next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.next_question).min()
    }

    /// Does what is due: questions to repeat, neighbours to give up.
    pub(super) fn advance(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        self.entries.retain(|neighbour, entry| {
            if entry.next_question.is_none_or(|at| at > now) {
                return true;
            }
            if entry.asked >= QUESTIONS {
                due.dropped += u64::from(entry.held.is_some());
                return false;
            }
            entry.asked += 1;
            entry.next_question = Some(now + RETRY);
            due.ask.push((*neighbour, entry.mac));
            true
        });
        due
    }

    fn insert(&mut self, neighbour: IpAddr, mac: Option<MacAddr>, now: Instant) -> u64 {
        let mut dropped = 0;
        if self.entries.len() >= CAPACITY {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(neighbour, _)| *neighbour);
            if let Some(entry) = oldest.and_then(|oldest| self.entries.remove(&oldest)) {
                dropped += u64::from(entry.held.is_some());
            }
        }
        let (asked, next_question) = if mac.is_some() { (0, None) } else { (1, Some(now + RETRY)) };
        self.entries.insert(neighbour, Entry { mac, confirmed: now, used: now, asked, next_question, held: None });
        dropped
    }
}

impl Entry {
    fn confirm(&mut self, mac: MacAddr, now: Instant) -> Option<Held> {
        self.mac = Some(mac);
        self.confirmed = now;
        self.asked = 0;
        self.next_question = None;
        self.held.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const OTHER: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    fn held(byte: u8) -> Held {
        Held { bytes: vec![byte], offload: Offload::default() }
    }

    #[test]
    fn the_first_packet_waits_and_goes_with_the_answer() {
        let mut cache = Neighbours::default();
        let now = Instant::now();
        assert_eq!(cache.lookup(address(1), now).0, Lookup::Ask);
        cache.hold(address(1), held(7));
        assert_eq!(cache.lookup(address(1), now).0, Lookup::Waiting);
        assert_eq!(cache.answered(address(1), MAC, now), Some(held(7)));
        assert_eq!(cache.lookup(address(1), now).0, Lookup::Known { mac: MAC, ask: false });
        assert_eq!(cache.deadline(), None);
    }

    #[test]
    fn answers_that_nobody_asked_for_change_nothing() {
        let mut cache = Neighbours::default();
        let now = Instant::now();
        assert_eq!(cache.answered(address(1), MAC, now), None);
        assert_eq!(cache.lookup(address(1), now).0, Lookup::Ask);
        cache.answered(address(1), MAC, now);
        cache.answered(address(1), OTHER, now);
        assert_eq!(cache.lookup(address(1), now).0, Lookup::Known { mac: MAC, ask: false });
    }

    #[test]
    fn a_neighbour_that_asks_is_known() {
        let mut cache = Neighbours::default();
        let now = Instant::now();
        assert_eq!(cache.asked_by(address(1), MAC, now), (None, 0));
        assert_eq!(cache.lookup(address(1), now).0, Lookup::Known { mac: MAC, ask: false });
        cache.asked_by(address(1), OTHER, now);
        assert_eq!(cache.lookup(address(1), now).0, Lookup::Known { mac: OTHER, ask: false });
    }

    #[test]
    fn after_three_questions_a_neighbour_is_given_up() {
        let mut cache = Neighbours::default();
        let start = Instant::now();
        cache.lookup(address(1), start);
        cache.hold(address(1), held(1));
        for second in 1..=2 {
            let now = start + second * RETRY;
            assert_eq!(cache.deadline(), Some(now));
            assert_eq!(cache.advance(now), Due { ask: vec![(address(1), None)], dropped: 0 });
        }
        assert_eq!(cache.advance(start + 3 * RETRY), Due { ask: vec![], dropped: 1 });
        assert_eq!(cache.deadline(), None);
        assert_eq!(cache.lookup(address(1), start + 3 * RETRY).0, Lookup::Ask);
    }

    #[test]
    fn an_old_address_is_asked_for_again_while_it_is_used() {
        let mut cache = Neighbours::default();
        let start = Instant::now();
        cache.asked_by(address(1), MAC, start);
        assert_eq!(cache.lookup(address(1), start + CONFIRMED / 2).0, Lookup::Known { mac: MAC, ask: false });
        let late = start + CONFIRMED;
        assert_eq!(cache.lookup(address(1), late).0, Lookup::Known { mac: MAC, ask: true });
        assert_eq!(cache.lookup(address(1), late).0, Lookup::Known { mac: MAC, ask: false });
        assert_eq!(cache.advance(late + RETRY).ask, [(address(1), Some(MAC))]);
        cache.answered(address(1), OTHER, late + RETRY);
        assert_eq!(cache.lookup(address(1), late + RETRY).0, Lookup::Known { mac: OTHER, ask: false });
        assert_eq!(cache.deadline(), None);
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_the_longest_unused() {
        let mut cache = Neighbours::default();
        let start = Instant::now();
        cache.asked_by(address(0), MAC, start);
        for number in 1..=CAPACITY {
            let now = start + Duration::from_micros(number as u64);
            cache.lookup(address(0), now);
            cache.lookup(address(u32::try_from(number).expect("small")), now);
            assert!(cache.entries.len() <= CAPACITY);
        }
        let now = start + Duration::from_millis(900);
        assert_eq!(cache.lookup(address(0), now).0, Lookup::Known { mac: MAC, ask: false });
        cache.hold(address(2), held(2));
        assert!(!cache.entries.contains_key(&address(1)));
        assert_eq!(cache.lookup(address(5000), now), (Lookup::Ask, 1));
    }
}
