//! A client that wants a resource that its policy does not list, and knows every trick: sequence numbers of connections that
//! were, overlaps, other orders, resets that only one side believes, a second request. The server is a TCP of RFC 9293 that
//! forgets connections now and then, and reads requests as RFC 9112 has them.
//!
//! The same cases every time; with `PROPTEST_CASES`, so many new ones.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sidestep::packet::parse::{Fragment, Parsed, TransportKind, parse};

use crate::bench::Bench;
use crate::client::{ACCOUNT, APP, policy};
use crate::guarded::{Guarded, SHARED};
use crate::packets::{Tcp, make_fragment};

const WINDOW: usize = 4_096;
const LISTED: &[u8] = b"GET /first HTTP/1.1\r\nHost: first.blob.core.windows.net\r\n\r\n";
/// Of the same length, so that the bytes of one fit into the place of the other.
const DENIED: &[u8] = b"GET /third HTTP/1.1\r\nHost: third.blob.core.windows.net\r\n\r\n";
/// Its content looks like a request.
const WITH_CONTENT: &[u8] = b"PUT / HTTP/1.1\r\nHost: first.blob.core.windows.net\r\nContent-Length: 58\r\n\r\n";

/// What a client may say from the start of a stream on.
fn text(number: u8) -> Vec<u8> {
    assert_eq!((LISTED.len(), DENIED.len()), (58, 58));
    match number {
        0 => LISTED.to_vec(),
        1 => DENIED.to_vec(),
        2 => [LISTED, DENIED].concat(),
        3 => [WITH_CONTENT, DENIED, DENIED].concat(),
        _ => b"\r\n".repeat(40),
    }
}

/// The number that a segment counts from.
#[derive(Debug, Clone, Copy)]
enum Origin {
    /// The newest SYN of the client.
    Newest,
    /// The one before.
    Before,
    /// That which the server follows.
    Server,
}

#[derive(Debug, Clone)]
enum Step {
    Syn {
        number: u32,
        same: bool,
        text: Option<u8>,
    },
    Segment {
        origin: Origin,
        text: u8,
        from: usize,
        length: usize,
        shift: i32,
        fin: bool,
        fragment: bool,
        old: bool,
    },
    Reset {
        origin: Origin,
        offset: u32,
    },
    /// A packet reaches the server, not always the oldest.
    Deliver(usize),
    DeliverAll,
    LoseToServer(usize),
    /// An answer of the server goes out.
    Answer(usize),
    AnswerAll,
    LoseAnswers,
    /// The handshake, in order.
    Open {
        number: u32,
    },
    /// The server gives a connection up without a word.
    Forget,
    Wait(u64),
    /// A new snapshot that changes nothing.
    Publish,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let origin = || prop_oneof![4 => Just(Origin::Newest), 2 => Just(Origin::Before), 2 => Just(Origin::Server)];
    // Few numbers, so that they meet again; some lie within the window of others.
    let number = || prop::sample::select(vec![1_000_u32, 1_010, 1_058, 1_116, 900, 90_000, u32::MAX - 20]);
    let shift = prop_oneof![8 => Just(0), 1 => -60_i32..60, 1 => Just(-58), 1 => Just(58)];
    let place =
        prop_oneof![4 => Just((0, 58)), 2 => Just((0, 200)), 1 => Just((0, 57)), 4 => (0_usize..150, 1_usize..150)];
    let segment = (origin(), 0_u8..5, place, shift, 0_u8..20);
    prop::collection::vec(
        prop_oneof![
            3 => (number(), any::<bool>(), prop::option::weighted(0.1, 0_u8..5))
                .prop_map(|(number, same, text)| Step::Syn { number, same, text }),
            12 => segment.prop_map(|(origin, text, (from, length), shift, rare)| Step::Segment {
                origin, text, from, length, shift, fin: rare == 0, fragment: rare == 1, old: rare == 2,
            }),
            2 => (origin(), prop_oneof![Just(0_u32), Just(1), Just(59), 0_u32..300])
                .prop_map(|(origin, offset)| Step::Reset { origin, offset }),
            5 => (0_usize..4).prop_map(Step::Deliver),
            5 => Just(Step::DeliverAll),
            1 => (0_usize..4).prop_map(Step::LoseToServer),
            3 => (0_usize..3).prop_map(Step::Answer),
            3 => Just(Step::AnswerAll),
            1 => Just(Step::LoseAnswers),
            4 => number().prop_map(|number| Step::Open { number }),
            1 => Just(Step::Forget),
            1 => prop_oneof![Just(100_u64), Just(7_000), Just(31_000), Just(250_000)].prop_map(Step::Wait),
            1 => Just(Step::Publish),
        ],
        1..60,
    )
}

/// What the server has got of a connection.
#[derive(Debug)]
struct Stream {
    start: u32,
    own: u32,
    open: bool,
    /// How many bytes have come without a gap.
    taken: usize,
    /// Where bytes overlap that wait behind a gap, some stacks keep the first, others the last.
    first: Vec<Option<u8>>,
    last: Vec<Option<u8>>,
}

impl Stream {
    fn read(bytes: &[Option<u8>]) -> Vec<u8> {
        bytes.iter().map_while(|byte| *byte).collect()
    }
}

#[derive(Debug, Default)]
struct Server {
    stream: Option<Stream>,
    next: u32,
    answers: Vec<Vec<u8>>,
    listed: bool,
    denied: bool,
}

impl Server {
    fn answer(&mut self, flags: &str, sequence: u32, acknowledgment: u32) {
        let (from, to) = ((SHARED, 80), ("10.1.1.4", 40_000));
        self.answers.push(Tcp { from, to, flags, sequence, acknowledgment, ..Tcp::default() }.bytes());
    }

    fn receive(&mut self, bytes: &[u8]) {
        let parsed = parse(bytes).unwrap();
        let TransportKind::Tcp { flags, sequence, acknowledgment, .. } = parsed.kind else { return };
        if parsed.fragment != Fragment::None {
            return;
        }
        let payload = &bytes[parsed.payload()..];
        let has = |flag| flags & flag != 0;
        let Some(stream) = &mut self.stream else {
            if has(Parsed::RST) {
            } else if has(Parsed::ACK) {
                self.answer("R", acknowledgment, 0);
            } else if has(Parsed::SYN) {
                self.next = self.next.wrapping_add(1_000_000);
                let own = self.next;
                // Data of the SYN waits for the handshake, or is thrown away.
                let mut first = vec![None; WINDOW];
                payload.iter().zip(&mut first).for_each(|(byte, place)| *place = Some(*byte));
                let (last, taken) = (vec![None; WINDOW], 0);
                self.stream = Some(Stream { start: sequence, own, open: false, taken, first, last });
                self.answer("SA", own, sequence.wrapping_add(1));
            }
            return;
        };
        let (own, expected) = (stream.own, stream.start.wrapping_add(1 + stream.taken as u32));
        if has(Parsed::RST) {
            if sequence == expected {
                self.stream = None;
            } else if (sequence.wrapping_sub(expected) as usize) < WINDOW && stream.open {
                self.answer("A", own.wrapping_add(1), expected);
            }
            return;
        }
        if has(Parsed::SYN) {
            let (open, start) = (stream.open, stream.start);
            match open || start != sequence {
                true => self.answer("A", own.wrapping_add(1), expected),
                false => self.answer("SA", own, expected),
            }
            return;
        }
        if !has(Parsed::ACK) {
            return;
        }
        if !stream.open {
            if acknowledgment != own.wrapping_add(1) {
                return self.answer("R", acknowledgment, 0);
            }
            stream.open = true;
        }
        if (own.wrapping_add(1).wrapping_sub(acknowledgment) as i32) < 0 {
            return self.answer("A", own.wrapping_add(1), expected);
        }
        let offset = sequence.wrapping_sub(stream.start.wrapping_add(1)) as i32;
        for (index, byte) in payload.iter().enumerate() {
            let Ok(place) = usize::try_from(offset + index as i32) else { continue };
            if (stream.taken..WINDOW).contains(&place) {
                stream.first[place].get_or_insert(*byte);
                stream.last[place] = Some(*byte);
            }
        }
        let streams = [Stream::read(&stream.first), Stream::read(&stream.last)];
        stream.taken = streams[1].len();
        let expected = stream.start.wrapping_add(1 + stream.taken as u32);
        let finished = has(Parsed::FIN) && sequence.wrapping_add(payload.len() as u32) == expected;
        for stream in streams {
            let hosts = hosts(&stream);
            self.listed |= hosts.iter().any(|host| host.starts_with("first."));
            self.denied |= hosts.iter().any(|host| host.starts_with("third."));
        }
        if finished {
            self.stream = None;
            self.answer("RA", own.wrapping_add(1), expected.wrapping_add(1));
        } else {
            self.answer("A", own.wrapping_add(1), expected);
        }
    }
}

/// Whom the whole requests of a stream are for.
fn hosts(mut stream: &[u8]) -> Vec<String> {
    let mut hosts = Vec::new();
    loop {
        while let Some(rest) = stream.strip_prefix(b"\r\n") {
            stream = rest;
        }
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = request.parse(stream) else { return hosts };
        let field = |name: &str| {
            let found = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            found.map(|field| String::from_utf8_lossy(field.value).into_owned())
        };
        hosts.extend(field("host"));
        let content = field("content-length").map_or(0, |length| length.parse().unwrap());
        stream = stream.get(length + content..).unwrap_or_default();
    }
}

struct Attack {
    bench: Bench,
    server: Server,
    to_server: Vec<Vec<u8>>,
    newest: u32,
    before: u32,
    /// The newest number of the server that the client has seen: it cannot guess others (RFC 6528).
    seen: u32,
}

impl Attack {
    fn new() -> Self {
        let more = policy("only-first", "Microsoft.Storage", ACCOUNT);
        let bench = Guarded { app: APP, more: &more, ..Guarded::default() }.bench();
        Self { bench, server: Server::default(), to_server: Vec::new(), newest: 1_000, before: 1_000, seen: 0 }
    }

    fn inject(&mut self, port: &str, packet: Vec<u8>) {
        self.bench.inject(port, packet);
        let (front, client) = (self.bench.port("front"), self.bench.port("blue1"));
        for (port, bytes, _) in std::mem::take(&mut self.bench.sent.packets) {
            let TransportKind::Tcp { flags, sequence, .. } = parse(&bytes).unwrap().kind else { continue };
            if port == front {
                self.to_server.push(bytes);
            } else if port == client && flags & Parsed::SYN != 0 {
                self.seen = sequence;
            }
        }
    }

    fn send(&mut self, flags: &str, sequence: u32, acknowledgment: u32, payload: &[u8], fragment: bool) {
        let to = (SHARED, 80);
        let mut packet = Tcp { to, flags, sequence, acknowledgment, payload, ..Tcp::default() }.bytes();
        if fragment {
            make_fragment(&mut packet);
        }
        self.inject("blue1", packet);
    }

    fn syn(&mut self, number: u32, payload: &[u8]) {
        if number != self.newest {
            self.before = std::mem::replace(&mut self.newest, number);
        }
        self.send("S", number, 0, payload, false);
    }

    fn origin(&self, origin: Origin) -> u32 {
        match origin {
            Origin::Newest => self.newest,
            Origin::Before => self.before,
            Origin::Server => self.server.stream.as_ref().map_or(self.newest, |stream| stream.start),
        }
    }

    fn deliver_all(&mut self) {
        for packet in std::mem::take(&mut self.to_server) {
            self.server.receive(&packet);
        }
    }

    fn answer_all(&mut self) {
        for packet in std::mem::take(&mut self.server.answers) {
            self.inject("front", packet);
        }
    }

    fn step(&mut self, step: &Step) {
        let acknowledged = self.seen.wrapping_add(1);
        match *step {
            Step::Syn { number, same, text: said } => {
                let number = if same { self.newest } else { number };
                self.syn(number, &said.map(text).unwrap_or_default());
            }
            Step::Segment { origin, text: number, from, length, shift, fin, fragment, old } => {
                let text = text(number);
                let from = from.min(text.len());
                let payload = &text[from..(from + length).min(text.len())];
                let sequence = self.origin(origin).wrapping_add(1 + from as u32).wrapping_add_signed(shift);
                let acknowledged = if old { acknowledged.wrapping_sub(1_000_000) } else { acknowledged };
                self.send(if fin { "FA" } else { "PA" }, sequence, acknowledged, payload, fragment);
            }
            Step::Reset { origin, offset } => {
                self.send("R", self.origin(origin).wrapping_add(offset), 0, b"", false);
            }
            Step::Deliver(which) if !self.to_server.is_empty() => {
                let packet = self.to_server.remove(which % self.to_server.len());
                self.server.receive(&packet);
            }
            Step::LoseToServer(which) if !self.to_server.is_empty() => {
                self.to_server.remove(which % self.to_server.len());
            }
            Step::Answer(which) if !self.server.answers.is_empty() => {
                let packet = self.server.answers.remove(which % self.server.answers.len());
                self.inject("front", packet);
            }
            Step::Deliver(_) | Step::LoseToServer(_) | Step::Answer(_) => {}
            Step::DeliverAll => self.deliver_all(),
            Step::AnswerAll => self.answer_all(),
            Step::LoseAnswers => self.server.answers.clear(),
            Step::Open { number } => {
                self.syn(number, b"");
                self.deliver_all();
                self.answer_all();
                self.send("A", number.wrapping_add(1), self.seen.wrapping_add(1), b"", false);
                self.deliver_all();
            }
            Step::Forget => self.server.stream = None,
            Step::Wait(milliseconds) => {
                self.bench.now += milliseconds;
                self.bench.expire();
                self.inject("blue1", Vec::new());
            }
            Step::Publish => {
                self.bench.change(|_| {});
                self.bench.sweep();
                self.inject("blue1", Vec::new());
            }
        }
    }
}

/// No request for a resource that is not listed reaches the server whole, whatever the client does.
#[test]
fn nothing_is_smuggled_past_an_endpoint_policy() {
    let listed = Cell::new(0);
    let chosen = std::env::var("PROPTEST_CASES").ok().map(|cases| cases.parse().unwrap());
    let cases = chosen.unwrap_or(1_000);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = match chosen {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let result = runner.run(&steps(), |steps| {
        let mut attack = Attack::new();
        for (number, step) in steps.iter().enumerate() {
            attack.step(step);
            if attack.server.denied {
                return Err(TestCaseError::fail(format!("step {number} brought it through")));
            }
        }
        attack.deliver_all();
        listed.set(listed.get() + u32::from(attack.server.listed));
        if attack.server.denied {
            return Err(TestCaseError::fail("brought through at the end"));
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(listed.get() > cases / 20, "the listed account is reached: {} of {cases}", listed.get());
}
