//! A TCP server as RFC 9293 has it on the receiving side, with the challenge ACKs of RFC 5961, in the ways that real ones
//! differ.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use fastrand::Rng;

use crate::wire::{ACK, FIN, PSH, RST, SYN, Segment, URG};

/// What it offers to take unread.
const WINDOW: u32 = 65_535;

/// The client's end of a connection, as the server sees it, and the server's.
pub(crate) type Ends = ((IpAddr, u16), (IpAddr, u16));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    SynReceived,
    Established,
    /// The client has finished.
    CloseWait,
}

/// What it does with a SYN of another number before the handshake is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OtherSyn {
    /// Linux where it is outside the window, and whoever applies RFC 5961 to this state: an ACK.
    Challenge,
    /// RFC 9293 section 3.10.7.4: back to LISTEN, and it has to come again.
    Listen,
    /// Back to LISTEN and taken at once.
    Restart,
}

/// How servers differ.
#[derive(Debug, Clone, Copy)]
struct Habits {
    /// Keeps what comes early.
    reassembles: bool,
    /// Of two that come early for one place, the later counts.
    prefers_later: bool,
    other_syn: OtherSyn,
    /// Takes data whatever it acknowledges.
    is_lenient: bool,
    /// Takes data in a SYN.
    takes_syn_data: bool,
    /// Takes the urgent byte out of the stream.
    out_of_band: bool,
    /// Keeps nothing of a SYN, but takes what acknowledges its answer as the handshake's end (RFC 4987 section 3.6), also when
    /// it comes again after the connection has ended, and up to three bytes late, as Linux with its index of segment sizes.
    cookies: bool,
    /// Chance of each answer to be sent.
    answers: f64,
}

impl Habits {
    fn new(rng: &mut Rng) -> Self {
        Self {
            reassembles: rng.bool(),
            prefers_later: rng.bool(),
            other_syn: [OtherSyn::Challenge, OtherSyn::Listen, OtherSyn::Restart][rng.usize(..3)],
            is_lenient: rng.bool(),
            takes_syn_data: rng.bool(),
            out_of_band: rng.bool(),
            cookies: rng.u8(..3) == 0,
            answers: if rng.u8(..4) == 0 { 0.6 } else { 1.0 },
        }
    }

    /// Those of a server whose clients are honest.
    fn plain() -> Self {
        Self {
            reassembles: true,
            prefers_later: false,
            other_syn: OtherSyn::Challenge,
            is_lenient: false,
            takes_syn_data: false,
            out_of_band: false,
            cookies: false,
            answers: 1.0,
        }
    }
}

/// One connection.
pub(crate) struct Connection {
    /// No other one has it.
    pub(crate) serial: u64,
    habits: Habits,
    pub(crate) state: State,
    /// The client's first sequence number, its next, and the server's next.
    pub(crate) first: u32,
    pub(crate) next: u32,
    pub(crate) own_next: u32,
    /// What the application has.
    pub(crate) stream: Vec<u8>,
    early: BTreeMap<u32, u8>,
}

impl Connection {
    fn open(segment: &Segment, habits: Habits, rng: &mut Rng) -> Self {
        let mut connection = Self {
            serial: rng.u64(..),
            habits,
            state: State::SynReceived,
            first: segment.sequence,
            next: segment.sequence.wrapping_add(1),
            own_next: rng.u32(..).wrapping_add(1),
            stream: Vec::new(),
            early: BTreeMap::new(),
        };
        if habits.takes_syn_data {
            connection.take(&segment.payload, None);
        }
        connection
    }

    /// Bytes that come next.
    fn take(&mut self, bytes: &[u8], urgent: Option<usize>) {
        for (index, byte) in bytes.iter().enumerate() {
            if urgent != Some(index) {
                self.stream.push(*byte);
            }
        }
        self.next = self.next.wrapping_add(bytes.len() as u32);
    }

    /// The bytes of a segment that are in their place.
    fn data(&mut self, segment: &Segment) {
        let offset = segment.sequence.wrapping_add(u32::from(segment.has(SYN))).wrapping_sub(self.next) as i32;
        if offset <= 0 {
            let known = offset.unsigned_abs() as usize;
            let Some(new) = segment.payload.get(known..) else { return };
            let new = &new[..new.len().min(WINDOW as usize)];
            let urgent = (self.habits.out_of_band && segment.has(URG) && segment.urgent > 0)
                .then(|| usize::from(segment.urgent) - 1)
                .and_then(|place| place.checked_sub(known));
            self.take(new, urgent);
            let mut taken = false;
            while let Some(byte) = self.early.remove(&self.next) {
                self.take(&[byte], None);
                taken = true;
            }
            if taken || !self.early.is_empty() {
                let next = self.next;
                self.early.retain(|place, _| (place.wrapping_sub(next) as i32) >= 0);
            }
        } else if self.habits.reassembles {
            for (index, byte) in segment.payload.iter().enumerate() {
                let place = segment.sequence.wrapping_add(index as u32);
                if place.wrapping_sub(self.next) >= WINDOW {
                    break;
                }
                let known = self.early.entry(place).or_insert(*byte);
                if self.habits.prefers_later {
                    *known = *byte;
                }
            }
        }
    }
}

/// All connections of a server.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) connections: HashMap<Ends, Connection>,
    /// What it would know of SYNs that it has kept nothing of: the client's first number, and its own.
    cookies: HashMap<Ends, (Vec<(u32, u32)>, Habits)>,
    /// Connections that began by a cookie.
    pub(crate) by_cookie: u64,
}

impl Server {
    /// A segment comes; gives what the server answers. `honest` says that the client is.
    pub(crate) fn receive(&mut self, segment: &Segment, honest: bool, rng: &mut Rng) -> Vec<Segment> {
        let ends = (segment.from, segment.to);
        let mut answers = Vec::new();
        let mut answer = |flags: u8, sequence: u32, acknowledgment: u32, payload: &[u8]| {
            let payload = payload.to_vec();
            let (from, to) = (segment.to, segment.from);
            answers.push(Segment { from, to, flags, sequence, acknowledgment, urgent: 0, payload });
        };
        let Some(connection) = self.connections.get_mut(&ends) else {
            if segment.has(RST) {
                return answers;
            }
            if segment.has(SYN) && !segment.has(ACK) {
                let habits = if honest { Habits::plain() } else { Habits::new(rng) };
                let mut connection = Connection::open(segment, habits, rng);
                if habits.cookies {
                    let (issued, _) = self.cookies.entry(ends).or_insert((Vec::new(), habits));
                    // In the same minute the answer to the same SYN is the same.
                    if let Some((_, own)) = issued.iter().find(|(first, _)| *first == segment.sequence) {
                        connection.own_next = *own;
                    }
                    issued.push((segment.sequence, connection.own_next));
                    answer(SYN | ACK, connection.own_next.wrapping_sub(1), segment.sequence.wrapping_add(1), b"");
                    return answers;
                }
                answer(SYN | ACK, connection.own_next.wrapping_sub(1), connection.next, b"");
                self.connections.insert(ends, connection);
                return answers;
            }
            let begun = self.cookies.get(&ends).and_then(|(issued, habits)| {
                let late = |first: u32| segment.sequence.wrapping_sub(first.wrapping_add(1));
                let fits = |(first, own): &&(u32, u32)| *own == segment.acknowledgment && late(*first) <= 3;
                issued.iter().find(fits).map(|(_, own)| (*own, *habits))
            });
            let Some((own, habits)) = begun.filter(|_| segment.has(ACK)) else {
                if segment.has(ACK) {
                    answer(RST, segment.acknowledgment, 0, b"");
                }
                return answers;
            };
            let first = Segment { sequence: segment.sequence.wrapping_sub(1), payload: Vec::new(), ..segment.clone() };
            let mut connection = Connection::open(&first, habits, rng);
            connection.own_next = own;
            connection.state = State::Established;
            connection.data(segment);
            if segment.span() > 0 {
                answer(ACK, connection.own_next, connection.next, b"");
            }
            self.by_cookie += 1;
            self.connections.insert(ends, connection);
            return answers;
        };
        let challenge = (ACK, connection.own_next, connection.next);
        let offset = segment.sequence.wrapping_sub(connection.next);
        // RFC 9293 section 3.10.7.4: some of it is in the window.
        let last = offset.wrapping_add(segment.span().saturating_sub(1));
        let in_window = offset < WINDOW || segment.span() > 0 && (last < WINDOW || last < offset);
        let answers_at_all = rng.f64() < connection.habits.answers;
        if segment.has(RST) {
            if offset == 0 {
                self.connections.remove(&ends);
            } else if in_window {
                answer(challenge.0, challenge.1, challenge.2, b"");
            }
            return answers;
        }
        if segment.has(SYN) {
            if connection.state != State::SynReceived || segment.has(ACK) {
                answer(challenge.0, challenge.1, challenge.2, b"");
            } else if segment.sequence == connection.first {
                answer(SYN | ACK, connection.own_next.wrapping_sub(1), connection.first.wrapping_add(1), b"");
            } else {
                match connection.habits.other_syn {
                    OtherSyn::Challenge => answer(challenge.0, challenge.1, challenge.2, b""),
                    OtherSyn::Listen => {
                        self.connections.remove(&ends);
                    }
                    OtherSyn::Restart => {
                        *connection = Connection::open(segment, connection.habits, rng);
                        answer(SYN | ACK, connection.own_next.wrapping_sub(1), connection.next, b"");
                    }
                }
            }
            return answers;
        }
        if !in_window {
            answer(challenge.0, challenge.1, challenge.2, b"");
            return if answers_at_all { answers } else { Vec::new() };
        }
        if !segment.has(ACK) {
            return answers;
        }
        if connection.state == State::SynReceived {
            if segment.acknowledgment != connection.own_next {
                answer(RST, segment.acknowledgment, 0, b"");
                return answers;
            }
            connection.state = State::Established;
        }
        let behind = connection.own_next.wrapping_sub(segment.acknowledgment);
        if behind > WINDOW && !connection.habits.is_lenient {
            answer(challenge.0, challenge.1, challenge.2, b"");
            return answers;
        }
        if connection.state == State::CloseWait {
            answer(challenge.0, challenge.1, challenge.2, b"");
            return answers;
        }
        let before = connection.next;
        connection.data(segment);
        let end = segment.sequence.wrapping_add(segment.payload.len() as u32);
        if segment.has(FIN) && end == connection.next {
            connection.next = connection.next.wrapping_add(1);
            connection.state = State::CloseWait;
            answer(ACK, connection.own_next, connection.next, b"");
            if rng.bool() {
                // It finishes, too, and does not wait for the client to say that it knows.
                answer(FIN | ACK, connection.own_next, connection.next, b"");
                self.connections.remove(&ends);
            }
            return answers;
        }
        if segment.span() > 0 {
            if connection.next != before && (honest || rng.u8(..3) == 0) {
                answer(PSH | ACK, connection.own_next, connection.next, b"echo");
                connection.own_next = connection.own_next.wrapping_add(4);
            } else {
                answer(ACK, connection.own_next, connection.next, b"");
            }
        }
        if answers_at_all { answers } else { Vec::new() }
    }
}
