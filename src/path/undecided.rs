//! Connections whose resource is not known yet, and what is known of those whose name was read.
//!
//! Bounded in number, memory and time, for each NIC and altogether: a client that never tells what it wants holds up
//! nobody else.

use std::collections::{BTreeMap, HashMap};

use super::flow::Family;
use super::policy::Named;
use super::shared::widened;
use crate::packet::server_name::{Application, NameReader, Reading, Unnamed};
use crate::snapshot::PortId;
use crate::table::flow::FlowKey;

/// Connections of a worker that wait for a name: 65,536 take some 16 MiB beside their bytes.
const CONNECTIONS: usize = 1 << 16;
/// Those of one NIC: a quarter, so that no NIC keeps all others out.
const CONNECTIONS_OF_NIC: usize = CONNECTIONS / 4;
/// Connections of a NIC that are looked at for one that has not said anything, where there is no room.
const SEARCHED: usize = 64;
/// Bytes of the streams of a worker that wait for a name.
const BYTES: usize = 64 << 20;
/// Those of one NIC.
const BYTES_OF_NIC: usize = BYTES / 4;
/// Bytes of one stream that are kept, to hold what comes again to: the largest hello that is read, and the headers of a
/// thousand records.
const ACCEPTED: usize = NameReader::LIMIT + 5 * 1024;
/// Bytes of a server's that may be missing where more of its connection come: what the largest super-packet has.
const AHEAD: u32 = 1 << 16;
/// How long a client may take to tell what it wants, from its SYN on, in milliseconds.
pub(super) const PATIENCE: u64 = 30_000;

/// The key of a flow's first packet, of either family.
pub(super) type Key = FlowKey<u128>;

/// The key of a flow of either family.
pub(super) fn key_of<A: Family>(forward: &FlowKey<A>) -> Key {
    FlowKey {
        source: widened(forward.source),
        destination: widened(forward.destination),
        source_port: forward.source_port,
        destination_port: forward.destination_port,
        port: forward.port,
        protocol: forward.protocol,
    }
}

/// One connection.
struct Connection {
    /// Place in the order of time.
    order: u64,
    deadline: u64,
    owner: u16,
    /// The sequence number of the first byte: the one behind the client's latest SYN.
    start: u32,
    /// Earlier ones, the latest first: no SYN goes back to one of them.
    earlier: Earlier,
    /// What the server numbers, once it has taken that SYN. Until then the client's word for where its stream starts is
    /// worth nothing: a server that does not take a SYN goes on with the connection that it has. Two, since one that keeps
    /// nothing of a SYN may answer the same one by different numbers, and its client takes either.
    served: [Option<Served>; 2],
    /// How far the client's bytes have passed.
    passed: u32,
    /// How far the server has acknowledged them; none until it has acknowledged anything but the SYN.
    acknowledged: Option<u32>,
    /// The bytes so far, which are the only ones that may be there.
    accepted: Vec<u8>,
    stage: Stage,
    /// How many bytes of the stream the name is for, if not all.
    end: Option<u32>,
    /// What it takes of the budget of bytes.
    held: usize,
}

/// Starts of connections on the same ports that are not forgotten.
type Earlier = [Option<u32>; 4];

impl Connection {
    /// Bytes of the client pass, up to this one.
    fn pass(&mut self, end: usize) {
        self.passed = self.passed.max(u32::try_from(end).unwrap_or(u32::MAX));
    }

    /// Whether a server that keeps nothing of a SYN may take a segment there for the start of the stream: with SYN cookies
    /// up to three bytes may be missing unnoticed. Once it has acknowledged them it has them.
    fn may_be_missed(&self, place: usize) -> bool {
        (1..=3).contains(&place) && self.acknowledged.is_none_or(|acknowledged| (acknowledged as usize) < place)
    }
}

/// The sequence numbers of a server's stream.
#[derive(Debug, Clone, Copy)]
struct Served {
    /// Of its first byte.
    first: u32,
    /// Behind the last byte that has passed.
    next: u32,
}

impl Served {
    /// How much has passed.
    fn sent(&self) -> u32 {
        self.next.wrapping_sub(self.first)
    }

    /// Whether a number is of what the server has sent, or follows it.
    fn has(&self, number: u32) -> bool {
        number.wrapping_sub(self.first) <= self.sent()
    }
}

/// What a SYN-ACK comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// It is the answer to the client's latest SYN, for the first time or again.
    Taken,
    /// It answers that SYN with a number of a connection that is not the one that was decided.
    Anew,
    /// It answers another SYN.
    Other,
}

enum Stage {
    /// The name is being read.
    Reading(NameReader),
    /// It has been read, and the server has not acknowledged all of it: other bytes could still come in its place.
    Settling(Named),
}

/// What a segment of a client comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// It may pass.
    Pass,
    /// There is a gap before it.
    Gap,
    /// It has other bytes where there have been some.
    Other,
    /// There is no room for it.
    Full,
    /// It goes on behind the request that the name is of.
    Beyond,
    /// It tells the name.
    Name(String),
    /// It tells that there is no name.
    Unnamed(Unnamed),
}

/// The connections of a worker.
pub(super) struct Undecided {
    connections: HashMap<Key, Connection>,
    by_time: BTreeMap<u64, Key>,
    next: u64,
    bytes: usize,
    /// Those of each NIC.
    of_nic: HashMap<u16, OfNic>,
    /// What is known of connections that are decided.
    named: HashMap<Key, Decided>,
}

/// A connection that is decided.
#[derive(Debug, Clone, Copy)]
struct Decided {
    named: Named,
    /// Where its stream starts, and the server's first numbers; unknown after a restart.
    start: Option<u32>,
    firsts: [Option<u32>; 2],
    earlier: Earlier,
    /// How many bytes named it.
    judged: u32,
    /// One end has reset it: the client begins another one, or nothing.
    ended: bool,
    /// How many bytes of it were judged, where more may be for another resource: a plain HTTP request.
    end: Option<u32>,
}

/// The connections of one NIC.
#[derive(Default)]
struct OfNic {
    bytes: usize,
    by_time: BTreeMap<u64, Key>,
}

impl Undecided {
    pub(super) fn new() -> Self {
        Self {
            connections: HashMap::new(),
            by_time: BTreeMap::new(),
            next: 0,
            bytes: 0,
            of_nic: HashMap::new(),
            named: HashMap::new(),
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Makes room for one more that counts for a port, at the cost of one of the port's that has waited longest of those
    /// that have not said anything: a flood of them leaves room for who speaks. False where there is none.
    pub(super) fn make_room(&mut self, owner: PortId) -> bool {
        let own = self.of_nic.get(&owner.0).map_or(0, |own| own.by_time.len());
        if self.connections.len() < CONNECTIONS && own < CONNECTIONS_OF_NIC {
            return true;
        }
        let Some(own) = self.of_nic.get(&owner.0) else { return false };
        let silent = |key: &&Key| self.connections.get(key).is_some_and(|connection| connection.accepted.is_empty());
        let Some(silent) = own.by_time.values().take(SEARCHED).find(silent).copied() else { return false };
        self.end(&silent);
        true
    }

    /// A connection begins whose name is needed. There has to be room for it ([`Undecided::make_room`]).
    /// Its stream will start at `start`, behind the client's SYN.
    pub(super) fn begin(&mut self, now: u64, key: Key, owner: PortId, application: Application, start: u32) {
        let earlier = self.earlier(&key, start);
        self.end(&key);
        let order = self.next;
        self.next += 1;
        let connection = Connection {
            order,
            deadline: now + PATIENCE,
            owner: owner.0,
            start,
            earlier,
            served: [None; 2],
            passed: 0,
            acknowledged: None,
            accepted: Vec::new(),
            stage: Stage::Reading(NameReader::new(application)),
            end: None,
            held: 0,
        };
        self.connections.insert(key, connection);
        self.by_time.insert(order, key);
        self.of_nic.entry(owner.0).or_default().by_time.insert(order, key);
    }

    /// Where the stream of a connection starts, as far as that is known.
    pub(super) fn start(&self, key: &Key) -> Option<u32> {
        match self.connections.get(key) {
            Some(connection) => Some(connection.start),
            None => self.named.get(key).and_then(|decided| decided.start),
        }
    }

    /// The starts before another one.
    fn earlier(&self, key: &Key, start: u32) -> Earlier {
        let known = match self.connections.get(key) {
            Some(connection) => (Some(connection.start), connection.earlier),
            None => self.named.get(key).map_or((None, [None; 4]), |decided| (decided.start, decided.earlier)),
        };
        match known {
            (Some(last), [first, second, third, _]) if last != start => [Some(last), first, second, third],
            (_, earlier) => earlier,
        }
    }

    /// Whether a connection on these ports began there before the latest one.
    pub(super) fn is_earlier(&self, key: &Key, start: u32) -> bool {
        let earlier = match self.connections.get(key) {
            Some(connection) => Some(&connection.earlier),
            None => self.named.get(key).map(|decided| &decided.earlier),
        };
        earlier.is_some_and(|earlier| earlier.contains(&Some(start)))
    }

    /// The server takes a SYN: its own stream starts at `first`, the client's at `start`. One that takes the same SYN once
    /// more has forgotten what it knew, and what was read of the client's stream still has to be in it.
    pub(super) fn answered(&mut self, key: &Key, first: u32, start: u32) -> Answered {
        let Some(connection) = self.connections.get_mut(key) else {
            return match self.named.get(key) {
                Some(decided) if decided.start != Some(start) => Answered::Other,
                Some(decided) if !decided.firsts.contains(&Some(first)) => Answered::Anew,
                _ => Answered::Taken,
            };
        };
        if connection.start != start {
            return Answered::Other;
        }
        if !connection.served.iter().flatten().any(|served| served.first == first) {
            let [latest, _] = connection.served;
            connection.served = [Some(Served { first, next: first }), latest];
        }
        Answered::Taken
    }

    /// Whether a connection waits for its name, or for the server to acknowledge it.
    pub(super) fn waits(&self, key: &Key) -> bool {
        self.connections.contains_key(key)
    }

    /// Whether the server has taken the SYN of a connection that waits.
    pub(super) fn is_answered(&self, key: &Key) -> bool {
        self.connections.get(key).is_some_and(|connection| connection.served[0].is_some())
    }

    /// Whether a client acknowledges what the server of its connection has sent. A server that is with another connection
    /// takes that only where its numbers are near (RFC 9293 section 3.10.7.4 lets an old acknowledgment be).
    pub(super) fn is_served(&self, key: &Key, acknowledgment: u32) -> bool {
        let served = self.connections.get(key).map(|connection| connection.served);
        served.is_some_and(|served| served.iter().flatten().any(|served| served.has(acknowledgment)))
    }

    /// Whether an empty segment is where it may be: at the start until the server has shown by an acknowledgment that it
    /// has the connection, and then up to where the bytes are. One without a memory of its SYN would take a segment for the
    /// start of the stream that is not there, if it guesses a number right.
    pub(super) fn is_in_place(&self, key: &Key, sequence: u32) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let offset = sequence.wrapping_sub(connection.start) as i32;
        match (usize::try_from(offset), connection.acknowledged) {
            (Ok(0), _) => true,
            (Ok(place), Some(_)) => {
                !connection.may_be_missed(place) && place <= (connection.passed as usize).saturating_add(1)
            }
            // The probe of a peer that is idle.
            (Err(_), Some(_)) => offset == -1,
            (Ok(_) | Err(_), None) => false,
        }
    }

    /// The client sends its SYN once more: the server may begin again.
    pub(super) fn asked_again(&mut self, key: &Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.acknowledged = None;
        }
    }

    /// One end resets a connection: what its client says next is of another one, or nothing.
    pub(super) fn reset(&mut self, key: &Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.served = [None; 2];
            connection.acknowledged = None;
        } else if let Some(decided) = self.named.get_mut(key) {
            decided.ended = true;
        }
    }

    /// Whether a connection that is decided has been reset.
    pub(super) fn is_ended(&self, key: &Key) -> bool {
        self.named.get(key).is_some_and(|decided| decided.ended)
    }

    /// Whether bytes of a connection that is decided begin among those that were judged, or before.
    pub(super) fn is_judged(&self, key: &Key, sequence: u32) -> bool {
        let Some(Decided { start: Some(start), judged, .. }) = self.named.get(key) else { return false };
        (sequence.wrapping_sub(*start) as i32) < *judged as i32
    }

    fn let_go(&mut self, owner: u16, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(own) = self.of_nic.get_mut(&owner) {
            own.bytes = own.bytes.saturating_sub(bytes);
        }
    }

    /// The client has sent bytes, from a sequence number on.
    pub(super) fn read(&mut self, key: &Key, sequence: u32, payload: &[u8]) -> Read {
        // One that had to make room for another goes no further.
        let Some(connection) = self.connections.get_mut(key) else { return Read::Full };
        // Until the server has answered, nobody knows what it would take.
        if connection.served[0].is_none() {
            return Read::Gap;
        }
        let offset = sequence.wrapping_sub(connection.start) as i32;
        if offset == -1 && payload.len() == 1 && connection.acknowledged.is_some() {
            // The probe of a peer that is idle.
            return Read::Pass;
        }
        let Ok(place) = usize::try_from(offset) else { return Read::Gap };
        if connection.may_be_missed(place) {
            return Read::Gap;
        }
        if connection.end.is_some_and(|end| place + payload.len() > end as usize) {
            return Read::Beyond;
        }
        let known = connection.accepted.get(place..);
        let reading = matches!(connection.stage, Stage::Reading(_));
        let Some(known) = known else {
            if reading && !payload.is_empty() {
                return Read::Gap;
            }
            connection.pass(place + payload.len());
            return Read::Pass;
        };
        let common = known.len().min(payload.len());
        if known.get(..common) != payload.get(..common) {
            return Read::Other;
        }
        connection.pass(place + payload.len());
        let Stage::Reading(reader) = &mut connection.stage else { return Read::Pass };
        let new = payload.get(common..).unwrap_or_default();
        if new.is_empty() {
            return Read::Pass;
        }
        let kept = new.get(..ACCEPTED.saturating_sub(connection.accepted.len())).unwrap_or(new);
        let own = self.of_nic.entry(connection.owner).or_default();
        // Both the stream and the reader's copy of it may double their room.
        let most = 4 * kept.len();
        if self.bytes + most > BYTES || own.bytes + most > BYTES_OF_NIC {
            return Read::Full;
        }
        connection.accepted.extend_from_slice(kept);
        let reading = reader.push(kept);
        let held = connection.accepted.capacity() + reader.memory();
        self.bytes = (self.bytes + held).saturating_sub(connection.held);
        own.bytes = (own.bytes + held).saturating_sub(connection.held);
        connection.held = held;
        match reading {
            Reading::More if kept.len() < new.len() || connection.accepted.len() >= ACCEPTED => {
                Read::Unnamed(Unnamed::TooLong)
            }
            Reading::More => Read::Pass,
            Reading::Name(_) if reader.end().is_some_and(|end| place + payload.len() > end as usize) => Read::Beyond,
            Reading::Name(name) => {
                connection.end = reader.end();
                Read::Name(name)
            }
            Reading::Unnamed(why) => Read::Unnamed(why),
        }
    }

    /// What the connection wants is known, and it may have it. It is watched until the server has acknowledged what named
    /// it.
    pub(super) fn settle(&mut self, key: &Key, named: Named) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Stage::Reading(_) = connection.stage {
            connection.stage = Stage::Settling(named);
        }
    }

    /// The server has sent something of this span from a sequence number on, and acknowledges what comes before another
    /// one. True where that ends the watch. What is not of the stream of a server that answered says nothing, nor does an
    /// acknowledgment of more than has passed.
    pub(super) fn acknowledged(&mut self, key: &Key, sequence: u32, span: u32, acknowledgment: u32) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let of_stream =
            |served: &&mut Served| sequence.wrapping_sub(served.first) <= served.sent().saturating_add(AHEAD);
        let Some(served) = connection.served.iter_mut().flatten().find(of_stream) else { return false };
        let follows = served.has(sequence);
        // What is lost before it may come later.
        let end = sequence.wrapping_add(span);
        if span > 0 && !served.has(end) {
            served.next = end;
        }
        let behind = acknowledgment.wrapping_sub(connection.start) as i32;
        // A FIN has a number, too.
        let Some(behind) =
            u32::try_from(behind).ok().filter(|behind| follows && *behind <= connection.passed.saturating_add(1))
        else {
            return false;
        };
        connection.acknowledged = connection.acknowledged.max(Some(behind));
        let Stage::Settling(named) = connection.stage else { return false };
        if behind as usize >= connection.accepted.len() {
            self.finish(key, named);
            return true;
        }
        false
    }

    /// A connection is decided, and watched no more.
    pub(super) fn finish(&mut self, key: &Key, named: Named) {
        let decided = match self.connections.get(key) {
            Some(connection) => Decided {
                named,
                start: Some(connection.start),
                firsts: connection.served.map(|served| served.map(|served| served.first)),
                earlier: connection.earlier,
                judged: connection.accepted.len() as u32,
                ended: false,
                end: connection.end,
            },
            None => Decided {
                named,
                start: None,
                firsts: [None; 2],
                earlier: [None; 4],
                judged: 0,
                ended: false,
                end: None,
            },
        };
        self.end(key);
        self.named.insert(*key, decided);
    }

    /// Whether a connection that is decided may not say more than so much.
    pub(super) fn is_bounded(&self, key: &Key) -> bool {
        self.named.get(key).is_some_and(|decided| decided.end.is_some())
    }

    /// Whether bytes of a connection that is decided go on behind what was judged.
    pub(super) fn is_beyond(&self, key: &Key, sequence: u32, length: usize) -> bool {
        let Some(Decided { start: Some(start), end: Some(end), .. }) = self.named.get(key) else { return false };
        let behind = sequence.wrapping_add(length as u32).wrapping_sub(*start) as i32;
        length > 0 && behind > *end as i32
    }

    /// What a connection named, as far as that is known.
    pub(super) fn named(&self, key: &Key) -> Named {
        match self.connections.get(key).map(|connection| &connection.stage) {
            Some(Stage::Settling(named)) => *named,
            Some(Stage::Reading(_)) => Named::NotYet,
            None => self.named.get(key).map_or(Named::NotYet, |decided| decided.named),
        }
    }

    /// A connection has ended, or nobody needs its name any more.
    pub(super) fn end(&mut self, key: &Key) {
        self.named.remove(key);
        let Some(connection) = self.connections.remove(key) else { return };
        self.by_time.remove(&connection.order);
        self.let_go(connection.owner, connection.held);
        if let Some(own) = self.of_nic.get_mut(&connection.owner) {
            own.by_time.remove(&connection.order);
            if own.by_time.is_empty() {
                self.of_nic.remove(&connection.owner);
            }
        }
    }

    /// When [`Undecided::due`] may have something.
    pub(super) fn next_due(&self) -> Option<u64> {
        let (_, key) = self.by_time.first_key_value()?;
        self.connections.get(key).map(|connection| connection.deadline)
    }

    /// The connection that has waited longest, if its time is over. It gets another time, as long.
    pub(super) fn due(&mut self, now: u64) -> Option<Key> {
        if self.next_due()? > now {
            return None;
        }
        let (order, key) = self.by_time.pop_first()?;
        let connection = self.connections.get_mut(&key)?;
        connection.order = self.next;
        connection.deadline = now + PATIENCE;
        self.by_time.insert(self.next, key);
        if let Some(own) = self.of_nic.get_mut(&connection.owner) {
            own.by_time.remove(&order);
            own.by_time.insert(self.next, key);
        }
        self.next += 1;
        Some(key)
    }

    /// Whether a connection is still to be read: not whether the server has to acknowledge it.
    pub(super) fn is_reading(&self, key: &Key) -> bool {
        self.connections.get(key).is_some_and(|connection| matches!(connection.stage, Stage::Reading(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Key {
        FlowKey::new(1, 2, port, 80, 7, 6)
    }

    fn begun() -> Undecided {
        let mut undecided = Undecided::new();
        assert!(undecided.make_room(PortId(7)));
        undecided.begin(1_000, key(1), PortId(7), Application::Http, 100);
        assert_eq!(undecided.read(&key(1), 100, b"GET / HT"), Read::Gap, "the server has not answered");
        assert_eq!(undecided.answered(&key(1), 9_000, 100), Answered::Taken);
        undecided
    }

    #[test]
    fn a_stream_is_read_in_order_whatever_comes_twice_or_too_early() {
        let mut undecided = begun();
        assert_eq!(undecided.read(&key(1), 100, b"GET / HT"), Read::Pass);
        assert_eq!(undecided.read(&key(1), 110, b"/1.1\r\n"), Read::Gap);
        assert_eq!(undecided.read(&key(1), 104, b"/ HTTP/1.1\r\n"), Read::Pass);
        assert_eq!(undecided.read(&key(1), 100, b"GET / HT"), Read::Pass);
        assert_eq!(undecided.read(&key(1), 99, b"x"), Read::Gap, "nothing says that the server has the connection");
        assert!(!undecided.acknowledged(&key(1), 9_000, 0, 104));
        assert_eq!(undecided.read(&key(1), 99, b"x"), Read::Pass, "a probe of the byte before");
        assert_eq!(undecided.read(&key(1), 98, b"xx"), Read::Gap);
        assert_eq!(undecided.read(&key(1), 116, b"Host: a.example\r\n\r\n"), Read::Name("a.example".to_owned()));
    }

    #[test]
    fn other_bytes_in_the_place_of_those_before_are_found_until_the_server_has_them() {
        let mut undecided = begun();
        assert_eq!(undecided.read(&key(1), 100, b"GET / HTTP/1.1\r\nHost: a"), Read::Pass);
        assert_eq!(undecided.read(&key(1), 122, b"b"), Read::Other);
        assert_eq!(undecided.read(&key(1), 123, b".example\r\n\r\n"), Read::Name("a.example".to_owned()));
        undecided.settle(&key(1), Named::Nothing);
        assert_eq!(undecided.named(&key(1)), Named::Nothing);
        assert_eq!(undecided.read(&key(1), 122, b"b"), Read::Other);
        assert_eq!(undecided.read(&key(1), 135, b"G"), Read::Beyond, "another request may be for another name");
        assert!(!undecided.acknowledged(&key(1), 9_000, 0, 134));
        assert!(!undecided.acknowledged(&key(1), 8_999, 0, 135), "of a connection before");
        assert!(!undecided.acknowledged(&key(1), 9_001, 0, 135), "of one that began later");
        assert!(undecided.acknowledged(&key(1), 9_000, 0, 135));
        assert_eq!((undecided.len(), undecided.named(&key(1))), (0, Named::Nothing));
        assert!(undecided.is_bounded(&key(1)));
        assert!(!undecided.is_beyond(&key(1), 100, 35) && undecided.is_beyond(&key(1), 134, 2));
        assert!(
            !undecided.is_beyond(&key(1), 90, 45) && undecided.is_beyond(&key(1), 90, 46),
            "it begins before the stream"
        );
        assert_eq!(undecided.start(&key(1)), Some(100));
        undecided.end(&key(1));
        assert_eq!(undecided.named(&key(1)), Named::NotYet);
    }

    #[test]
    fn only_what_is_of_the_connection_that_the_server_took_counts() {
        let mut undecided = Undecided::new();
        undecided.begin(1_000, key(1), PortId(7), Application::Http, 100);
        assert_eq!(undecided.answered(&key(1), 8_000, 99), Answered::Other);
        assert!(!undecided.is_answered(&key(1)) && !undecided.is_served(&key(1), 8_000));
        assert_eq!(undecided.answered(&key(1), 9_000, 100), Answered::Taken);
        assert_eq!(undecided.answered(&key(1), 8_000, 99), Answered::Other);
        assert!(undecided.is_answered(&key(1)) && undecided.is_served(&key(1), 9_000));
        assert!(!undecided.is_served(&key(1), 8_999) && !undecided.is_served(&key(1), 9_001));
        // What it sends may be acknowledged, also where something before it was lost on its way here.
        assert!(!undecided.acknowledged(&key(1), 9_100, 50, 100));
        assert!(undecided.is_served(&key(1), 9_150) && !undecided.is_served(&key(1), 9_151));
        // It takes the same SYN once more: the bytes that were read have to be in the new stream, too. Which of the two it
        // keeps its client does not know.
        assert_eq!(undecided.read(&key(1), 100, b"GET / HTTP/1.1\r\nHost: a"), Read::Pass);
        assert_eq!(undecided.answered(&key(1), 20_000, 100), Answered::Taken);
        assert!(undecided.is_served(&key(1), 9_000) && undecided.is_served(&key(1), 20_000));
        assert_eq!(undecided.read(&key(1), 100, b"P"), Read::Other);
        assert_eq!(undecided.read(&key(1), 123, b"\r\n\r\n"), Read::Name("a".to_owned()));
        undecided.settle(&key(1), Named::Nothing);
        assert!(!undecided.acknowledged(&key(1), 20_000, 0, 129), "nothing of that has passed");
        assert!(!undecided.acknowledged(&key(1), 100_000, 0, 127), "another stream");
        assert!(undecided.acknowledged(&key(1), 20_000, 0, 127));
        // Decided: the same answers again are late, another is of another connection.
        assert_eq!(undecided.answered(&key(1), 9_000, 100), Answered::Taken);
        assert_eq!(undecided.answered(&key(1), 20_000, 100), Answered::Taken);
        assert_eq!(undecided.answered(&key(1), 20_001, 100), Answered::Anew);
        assert_eq!(undecided.answered(&key(1), 20_000, 101), Answered::Other);
    }

    #[test]
    fn an_empty_segment_is_at_the_start_until_the_server_has_the_connection() {
        let mut undecided = begun();
        let places = [99, 100, 101, 104, 105].map(|sequence| undecided.is_in_place(&key(1), sequence));
        assert_eq!(places, [false, true, false, false, false]);
        assert_eq!(undecided.read(&key(1), 100, b"GET /"), Read::Pass);
        assert!(!undecided.is_in_place(&key(1), 105));
        assert!(!undecided.acknowledged(&key(1), 9_000, 0, 102));
        let places = [98, 99, 100, 102, 103, 105, 106, 107].map(|sequence| undecided.is_in_place(&key(1), sequence));
        assert_eq!(places, [false, true, true, true, false, true, true, false]);
        // After a reset of either end it takes another answer of the server.
        undecided.reset(&key(1));
        assert!(!undecided.is_answered(&key(1)) && !undecided.is_served(&key(1), 9_000));
    }

    #[test]
    fn no_syn_goes_back_to_a_start_before_the_latest() {
        let mut undecided = Undecided::new();
        for start in [100, 200, 200, 300] {
            undecided.begin(1_000, key(1), PortId(7), Application::Http, start);
        }
        let earlier = |undecided: &Undecided| [100, 200, 300].map(|start| undecided.is_earlier(&key(1), start));
        assert_eq!(earlier(&undecided), [true, true, false]);
        undecided.finish(&key(1), Named::Nothing);
        assert_eq!(earlier(&undecided), [true, true, false]);
        for start in [400, 500, 600] {
            undecided.begin(1_000, key(1), PortId(7), Application::Http, start);
        }
        assert_eq!(earlier(&undecided), [false, true, true], "four are kept");
        undecided.end(&key(1));
        assert_eq!(earlier(&undecided), [false, false, false]);
    }

    #[test]
    fn another_syn_begins_anew() {
        let mut undecided = begun();
        assert_eq!(undecided.read(&key(1), 100, b"GET / HTTP/1.1\r\nHost: a"), Read::Pass);
        assert!(undecided.bytes > 0);
        undecided.begin(1_000, key(1), PortId(7), Application::Http, 500);
        assert_eq!((undecided.bytes, undecided.len(), undecided.is_answered(&key(1))), (0, 1, false));
        assert_eq!(undecided.answered(&key(1), 9_000, 500), Answered::Taken);
        assert_eq!(undecided.read(&key(1), 500, b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"), Read::Name("b".to_owned()));
    }

    #[test]
    fn a_stream_that_never_tells_ends_at_the_limit() {
        let mut undecided = begun();
        assert_eq!(undecided.read(&key(1), 100, b"GET / HTTP/1.1\r\nX: "), Read::Pass);
        let mut sequence = 119_u32;
        let last = loop {
            match undecided.read(&key(1), sequence, &[b'x'; 700]) {
                Read::Pass => sequence += 700,
                other => break other,
            }
        };
        assert_eq!(last, Read::Unnamed(Unnamed::TooLong));
        assert!(sequence < 100 + ACCEPTED as u32);
        assert!(undecided.bytes <= 4 * ACCEPTED, "{}", undecided.bytes);
        undecided.end(&key(1));
        assert_eq!((undecided.bytes, undecided.of_nic.len(), undecided.by_time.len()), (0, 0, 0));
    }

    #[test]
    fn a_nic_takes_a_quarter_of_the_room_and_its_silent_ones_make_room_for_others() {
        let mut undecided = Undecided::new();
        for port in 0..CONNECTIONS_OF_NIC {
            assert!(undecided.make_room(PortId(7)));
            undecided.begin(0, key(port as u16), PortId(7), Application::Http, 100);
        }
        assert!(undecided.make_room(PortId(8)), "another NIC has room of its own");
        // The first one has said something, the second has not.
        undecided.answered(&key(0), 1, 100);
        assert_eq!(undecided.read(&key(0), 100, b"G"), Read::Pass);
        assert!(undecided.make_room(PortId(7)));
        assert_eq!(undecided.len(), CONNECTIONS_OF_NIC - 1);
        assert_eq!(undecided.read(&key(0), 101, b"E"), Read::Gap, "the server may be without the first byte");
        assert!(!undecided.acknowledged(&key(0), 1, 0, 101));
        assert_eq!(undecided.read(&key(0), 101, b"E"), Read::Pass);
        assert_eq!(undecided.read(&key(1), 100, b"G"), Read::Full, "it had to go");
    }

    #[test]
    fn those_that_wait_longest_are_due_first_and_again_later() {
        let mut undecided = begun();
        undecided.begin(1_500, key(2), PortId(7), Application::Tls, 100);
        assert_eq!(undecided.next_due(), Some(1_000 + PATIENCE));
        assert_eq!(undecided.due(999 + PATIENCE), None);
        assert_eq!(undecided.due(1_000 + PATIENCE), Some(key(1)));
        assert_eq!(undecided.due(1_000 + PATIENCE), None);
        assert_eq!(undecided.due(1_500 + PATIENCE), Some(key(2)));
        assert_eq!(undecided.next_due(), Some(1_000 + 2 * PATIENCE));
    }
}
