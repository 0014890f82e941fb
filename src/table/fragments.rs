//! What one worker knows of packets that come in fragments. Only the first fragment has ports; the others learn them
//! here, and those that come before it are held until it comes (RFC 4787 REQ-14: fragments in any order). Packets are
//! not put together: each fragment goes on by itself once the ports are known.
//!
//! No byte of a packet passes twice. A fragment with nothing new is a duplicate and dropped; one with some new bytes and
//! some known ones, or one that contradicts where the packet ends, spoils the packet: nothing of it passes any more
//! until its time is up (RFC 5722, for IPv6, and as good for IPv4).
//!
//! Everything is bounded ([`Limits`]). Of every limit a port may use half, so that whoever sends fragments that never
//! become packets takes no more than that; where it has as many packets as it may, its own oldest makes room.
//!
//! # Invariants
//! - A packet is followed from its first fragment on until all its bytes were seen and nothing of it is held, or its
//!   deadline has passed; the deadline never moves.
//! - A packet with ports holds only what has not been fetched yet, a spoiled one holds nothing.

use std::collections::HashMap;

use super::slots::Slots;
use super::timer::{Timer, Timers, Wheel};

/// How long the fragments of a packet are waited for, in milliseconds: RFC 791 section 3.2 proposes at least 15 s, and
/// Linux waits 30 s for IPv4. The 60 s of RFC 8200 section 4.5 are the receiver's, which puts packets together; here
/// they would only let a sender of fragments that never become packets keep its places for twice as long.
pub const LIFETIME: u64 = 30_000;

/// Disjoint stretches of one packet that are kept track of. A packet of 65,535 bytes over an MTU of 1,280 has 54
/// fragments (of 1,232 bytes in IPv6); however they are mixed, they never make more than 27 stretches at once.
const STRETCHES: usize = 64;

/// Bytes of a buffer that is kept for later: 256 of them are as many as may be held, and Ethernet's 1,500 fit.
const BUFFER: usize = 2_048;

/// The end of a list of held fragments.
const NONE: u32 = u32::MAX;

/// How much one worker's table may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Packets that are followed.
    pub packets: u32,
    /// Fragments that are held.
    pub held: u32,
    /// Fragments that are held of one packet.
    pub held_per_packet: u32,
    /// Bytes that are held.
    pub bytes: usize,
}

impl Default for Limits {
    /// 1,024 packets of 368 bytes take 368 KiB. 256 fragments of 2 KiB are 512 KiB; a packet of 65,535 bytes over an MTU
    /// of 1,280 has 54 fragments, so it comes through in reverse order, and two such packets of one port at once.
    fn default() -> Self {
        Self { packets: 1_024, held: 256, held_per_packet: 64, bytes: 256 * BUFFER }
    }
}

/// What fragments of one packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address, of IPv4 as `::ffff:a.b.c.d`.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// The port of the node where the fragments enter.
    pub ingress: u16,
}

/// The part of the packet that a fragment carries: bytes behind the IP header (of IPv6: the fragment header).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its first byte.
    pub start: u16,
    /// The byte after its last one.
    pub end: u16,
    /// Whether no fragment follows it.
    pub last: bool,
}

/// What the first fragment tells the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Source port, or the identifier of an ICMP query.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// The identification that the packet gets where its addresses are translated. The caller's own.
    pub new_identification: u16,
}

/// What to do with a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// It may go on: these are its packet's ports. Where it is the first one, others may be waiting for it: see
    /// [`FragmentTable::next_held`].
    Ports(Ports),
    /// The first fragment has not come yet: [`FragmentTable::hold`] it, or drop it.
    Hold,
    /// Drop it: its packet is spoiled.
    Overlap {
        /// How many fragments that were held of the packet have been dropped just now.
        dropped: u32,
    },
    /// Drop it: it carries nothing new.
    Duplicate,
    /// Drop it: there is no room for another packet while other ports have all of it, or for another stretch of this one.
    Full,
}

/// Packets that are looked at for the oldest of a port.
const ROOM_BUDGET: usize = 64;

/// What a port uses.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    packets: u32,
    held: u32,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    /// The fragment of the same packet that came after it.
    next: u32,
}

#[derive(Debug)]
struct Packet {
    key: FragmentKey,
    timer: Timer,
    ports: Option<Ports>,
    seen: Stretches,
    /// Where the packet ends, once its last fragment has come.
    end: Option<u16>,
    spoiled: bool,
    held_first: u32,
    held_last: u32,
    held: u32,
}

/// What [`Limits::default`] reckons with.
const _: () = assert!(size_of::<Packet>() <= 368);

impl Packet {
    /// Whether there is nothing more to wait for.
    fn is_complete(&self) -> bool {
        self.held == 0 && self.ports.is_some() && !self.spoiled && self.end.is_some_and(|end| self.seen.are(end))
    }
}

impl Timers for Slots<Packet> {
    fn timer(&mut self, record: u32) -> Option<&mut Timer> {
        self.get_mut(record).map(|packet| &mut packet.timer)
    }

    fn peek(&self, record: u32) -> Option<&Timer> {
        self.get(record).map(|packet| &packet.timer)
    }
}

/// The packets in fragments of one worker.
#[derive(Debug)]
pub struct FragmentTable {
    lifetime: u64,
    limits: Limits,
    places: HashMap<FragmentKey, u32>,
    packets: Slots<Packet>,
    wheel: Wheel,
    shares: HashMap<u16, Share>,
    held: Slots<Held>,
    held_bytes: usize,
    /// Held fragments that were dropped to make room, and that nobody has been told of.
    dropped: u32,
    /// Buffers to use again, at most as many as may be held.
    buffers: Vec<Vec<u8>>,
}

impl FragmentTable {
    /// An empty table that waits `lifetime` milliseconds for the rest of a packet ([`LIFETIME`]).
    pub fn new(lifetime: u64) -> Self {
        Self::with_limits(lifetime, Limits::default())
    }

    /// The same with other limits.
    pub fn with_limits(lifetime: u64, limits: Limits) -> Self {
        Self {
            lifetime,
            limits,
            places: HashMap::new(),
            packets: Slots::new(),
            wheel: Wheel::default(),
            shares: HashMap::new(),
            held: Slots::new(),
            held_bytes: 0,
            dropped: 0,
            buffers: Vec::new(),
        }
    }

    /// A fragment has come at `now` (milliseconds); `first` has the ports where it is the first one.
    pub fn meet(&mut self, now: u64, key: &FragmentKey, range: Range, first: Option<Ports>) -> Met {
        if range.start >= range.end {
            return Met::Duplicate;
        }
        let known = self.places.get(key).copied();
        let Some(place) = known.or_else(|| self.follow(now, key)) else { return Met::Full };
        let Some(packet) = self.packets.get_mut(place) else { return Met::Full };
        if packet.spoiled {
            return Met::Overlap { dropped: 0 };
        }
        let contradicts = match packet.end {
            Some(end) => range.end > end || range.last && range.end != end,
            None => range.last && packet.seen.reach() >= range.end,
        };
        let added = if contradicts { Added::Overlap } else { packet.seen.add(range.start, range.end) };
        match added {
            Added::Known => return Met::Duplicate,
            Added::Full => return Met::Full,
            Added::Overlap => {
                packet.spoiled = true;
                return Met::Overlap { dropped: self.drop_held(place) };
            }
            Added::New => {}
        }
        if range.last {
            packet.end = Some(range.end);
        }
        packet.ports = packet.ports.or(first);
        let Some(ports) = packet.ports else { return Met::Hold };
        if packet.is_complete() {
            self.end(place);
        }
        Met::Ports(ports)
    }

    /// Holds a copy of a fragment's packet bytes until the first fragment comes. False where there is no room for it, or
    /// nothing is waited for: drop it then.
    pub fn hold(&mut self, key: &FragmentKey, bytes: &[u8]) -> bool {
        let Some(&place) = self.places.get(key) else { return false };
        let Some(packet) = self.packets.get_mut(place) else { return false };
        let Some(share) = self.shares.get_mut(&key.ingress) else { return false };
        let waits = packet.ports.is_none() && !packet.spoiled && packet.held < self.limits.held_per_packet;
        let fair = share.held < self.limits.held / 2 && share.bytes + bytes.len() <= self.limits.bytes / 2;
        if !waits || !fair || self.held_bytes + bytes.len() > self.limits.bytes {
            return false;
        }
        if self.held.len() >= self.limits.held as usize {
            return false;
        }
        let mut buffer = self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(bytes.len().max(BUFFER)));
        buffer.clear();
        buffer.extend_from_slice(bytes);
        let Some(number) = self.held.add(Held { bytes: buffer, next: NONE }, self.limits.held) else { return false };
        match self.held.get_mut(packet.held_last) {
            Some(before) => before.next = number,
            None => packet.held_first = number,
        }
        packet.held_last = number;
        packet.held += 1;
        share.held += 1;
        share.bytes += bytes.len();
        self.held_bytes += bytes.len();
        true
    }

    /// Takes out the next held fragment of a packet whose first fragment has come, in the order in which they came. Hand
    /// the buffer back with [`Self::give_back`].
    pub fn next_held(&mut self, key: &FragmentKey) -> Option<Vec<u8>> {
        let place = *self.places.get(key)?;
        self.packets.get(place)?.ports?;
        let bytes = self.take_held(place)?;
        if self.packets.get(place)?.is_complete() {
            self.end(place);
        }
        Some(bytes)
    }

    /// Takes a buffer back to use it again.
    pub fn give_back(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() <= BUFFER && self.buffers.len() < self.limits.held as usize {
            self.buffers.push(buffer);
        }
    }

    /// How many held fragments were dropped to make room since this was asked last.
    pub fn take_dropped(&mut self) -> u32 {
        std::mem::take(&mut self.dropped)
    }

    /// Ends what has waited too long at `now`. Tells for every packet that held something how many fragments are dropped
    /// with it, and the port where they entered. `budget` bounds the work of the call as in [`Wheel::next_due`].
    pub fn expire(&mut self, now: u64, budget: usize, mut dropped: impl FnMut(u32, u16)) {
        let mut budget = budget;
        while let Some((place, _)) = self.wheel.next_due(&mut self.packets, now, &mut budget) {
            let Some(ingress) = self.packets.get(place).map(|packet| packet.key.ingress) else { continue };
            let count = self.drop_held(place);
            self.end(place);
            if count > 0 {
                dropped(count, ingress);
            }
        }
    }

    /// A time in milliseconds before which [`Self::expire`] has nothing to do; none while no packet is followed.
    pub fn next_deadline(&self) -> Option<u64> {
        self.wheel.next_deadline()
    }

    /// How many fragments are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many packets are followed.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether no packet is followed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins to follow a packet, if there is room for it.
    fn follow(&mut self, now: u64, key: &FragmentKey) -> Option<u32> {
        let used = self.shares.get(&key.ingress).map_or(0, |share| share.packets);
        if used >= self.limits.packets / 2 && !self.make_room(key.ingress) {
            return None;
        }
        let packet = Packet {
            key: *key,
            timer: Timer::new(0),
            ports: None,
            seen: Stretches::default(),
            end: None,
            spoiled: false,
            held_first: NONE,
            held_last: NONE,
            held: 0,
        };
        let place = self.packets.add(packet, self.limits.packets)?;
        self.places.insert(*key, place);
        self.shares.entry(key.ingress).or_default().packets += 1;
        self.wheel.set(&mut self.packets, place, now.saturating_add(self.lifetime), true);
        Some(place)
    }

    /// Ends the oldest packet of a port that waits for its first fragment, else its oldest one at all, so that what never
    /// ends does not shut out what comes. False where none of those looked at is the port's.
    fn make_room(&mut self, ingress: u16) -> bool {
        let packets = &self.packets;
        let of_port = |place| packets.get(place).filter(|packet| packet.key.ingress == ingress);
        let waits = |place| of_port(place).is_some_and(|packet| packet.ports.is_none());
        let oldest = self.wheel.earliest_transient(packets, ROOM_BUDGET, waits);
        let any = || self.wheel.earliest_transient(packets, ROOM_BUDGET, |place| of_port(place).is_some());
        let Some(oldest) = oldest.or_else(any) else { return false };
        self.dropped += self.drop_held(oldest);
        self.end(oldest);
        true
    }

    /// Ends a packet that holds nothing.
    fn end(&mut self, place: u32) {
        self.wheel.cancel(&mut self.packets, place);
        let Some(packet) = self.packets.remove(place) else { return };
        self.places.remove(&packet.key);
        if let Some(share) = self.shares.get_mut(&packet.key.ingress) {
            share.packets -= 1;
            if share.packets == 0 {
                self.shares.remove(&packet.key.ingress);
            }
        }
    }

    fn take_held(&mut self, place: u32) -> Option<Vec<u8>> {
        let packet = self.packets.get_mut(place)?;
        let held = self.held.remove(packet.held_first)?;
        packet.held_first = held.next;
        if held.next == NONE {
            packet.held_last = NONE;
        }
        packet.held -= 1;
        self.held_bytes -= held.bytes.len();
        if let Some(share) = self.shares.get_mut(&packet.key.ingress) {
            share.held -= 1;
            share.bytes -= held.bytes.len();
        }
        Some(held.bytes)
    }

    /// Drops what is held of a packet and says how many they were.
    fn drop_held(&mut self, place: u32) -> u32 {
        let mut count = 0;
        while let Some(buffer) = self.take_held(place) {
            self.give_back(buffer);
            count += 1;
        }
        count
    }
}

/// What became of a stretch of bytes.
enum Added {
    /// All of it is new.
    New,
    /// All of it was seen.
    Known,
    /// Some of it was seen.
    Overlap,
    /// There is no room to note it.
    Full,
}

/// The bytes of a packet that were seen: stretches that neither overlap nor touch, in no order.
#[derive(Debug)]
struct Stretches {
    list: [(u16, u16); STRETCHES],
    used: usize,
}

impl Default for Stretches {
    fn default() -> Self {
        Self { list: [(0, 0); STRETCHES], used: 0 }
    }
}

impl Stretches {
    fn iter(&self) -> impl Iterator<Item = (u16, u16)> {
        self.list.iter().take(self.used).copied()
    }

    /// Adds the bytes from `start` to before `end`.
    fn add(&mut self, start: u16, end: u16) -> Added {
        if self.iter().any(|(from, to)| from <= start && end <= to) {
            return Added::Known;
        }
        if self.iter().any(|(from, to)| from < end && start < to) {
            return Added::Overlap;
        }
        let before = self.iter().position(|(_, to)| to == start);
        let after = self.iter().position(|(from, _)| from == end);
        let whole_end = after.and_then(|after| self.list.get(after)).map_or(end, |(_, to)| *to);
        match (before, after) {
            (Some(before), after) => {
                if let Some((_, to)) = self.list.get_mut(before) {
                    *to = whole_end;
                }
                if let Some(after) = after {
                    self.used -= 1;
                    self.list.swap(after, self.used);
                }
            }
            (None, Some(after)) => {
                if let Some((from, _)) = self.list.get_mut(after) {
                    *from = start;
                }
            }
            (None, None) => {
                let Some(free) = self.list.get_mut(self.used) else { return Added::Full };
                *free = (start, end);
                self.used += 1;
            }
        }
        Added::New
    }

    /// The byte after the last one that was seen.
    fn reach(&self) -> u16 {
        self.iter().map(|(_, to)| to).max().unwrap_or(0)
    }

    /// Whether exactly the bytes before `end` were seen.
    fn are(&self, end: u16) -> bool {
        self.iter().eq([(0, end)])
    }
}

#[cfg(test)]
mod tests;
