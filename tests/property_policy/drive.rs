//! Random clients, time and changes, with a real server behind the forwarder.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

use fastrand::Rng;
use sidestep::model::network::{EndpointSource, Firewall, ServiceEndpoint};
use sidestep::packet::frame::{Checksum, Frame};
use sidestep::packet::server_name::{Application, NameReader, Reading};
use sidestep::path::Verdict;

use crate::bench::Bench;
use crate::seeds::Run;
use crate::server::{Connection, Ends, Server, State};
use crate::streams::{FIRST, Streams};
use crate::wire::{ACK, FIN, PSH, RST, Receiver, SYN, Segment, URG};

/// Sources of what the shared address is reached with, and what the document needs for them.
pub(crate) const MODES: [&str; 4] = [
    r#""private""#,
    r#"{ prefix_map = ["100.64.8.0/24", "fd00:64:0:1::/64"] }"#,
    r#"{ snat = "pool" }"#,
    r#""identity6""#,
];

const IDENTITY6: usize = 3;

const CLIENTS: [&str; 2] = ["10.1.1.4", "fd00:1:0:1::4"];
const HONEST: [&str; 2] = ["10.1.1.5", "fd00:1:0:1::5"];
const SHARED: [&str; 2] = ["20.60.1.20", "2603:1020:206:100::20"];

/// Connections that are attacked at a time: few, so that one thing leads to another.
const ATTACKERS: usize = 10;

/// Steps that a failure shows: of all, and of the connection that it is about.
const SHOWN: usize = 30;

/// Steps that are kept to find those of one connection in.
const KEPT: usize = 4_000;

fn document(mode: usize) -> String {
    let source = MODES[mode];
    let account = |number, name| {
        format!("/subscriptions/s{number}/resourceGroups/r/providers/Microsoft.Storage/storageAccounts/{name}")
    };
    let (first, second) = (account(1, "first"), account(2, "second"));
    format!(
        r#"
location = "westeurope"
tags = "service-tags.json"

[[virtual_network]]
name = "blue"
address_space = ["10.1.0.0/16", "fd00:1::/48"]
  [[virtual_network.subnet]]
  name = "app"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
  service_endpoints = [{{ service = "Microsoft.Storage", source = {source} }}]
  service_endpoint_policies = ["only-first"]
  [[virtual_network.subnet]]
  name = "other"
  address_prefixes = ["10.1.2.0/24"]
  service_endpoints = [{{ service = "Microsoft.Storage" }}]

[[snat_pool]]
name = "pool"
addresses = ["100.64.9.1", "fd00:65::1"]

[[nic]]
name = "attacker"
subnet = "blue/app"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = {{ tun = "t1" }}

[[nic]]
name = "honest"
subnet = "blue/app"
private_addresses = ["10.1.1.5", "fd00:1:0:1::5"]
device = {{ tun = "t2" }}

[internet]
public_addresses = ["203.0.113.200", "2001:db8:ffff::200"]
device = {{ tun = "edge" }}

[[service]]
name = "front"
service = "Microsoft.Storage"
addresses = ["20.60.1.20", "2603:1020:206:100::20"]
device = {{ tun = "t-front" }}
  [[service.resource]]
  name = "first"
  id = "{first}"
  host_names = ["first.blob.core.windows.net"]
  firewall = {{ default_action = "Deny", virtual_network_rules = [{{ subnet = "blue/app" }}] }}
  [[service.resource]]
  name = "second"
  id = "{second}"
  host_names = ["second.blob.core.windows.net"]

[[service_endpoint_policy]]
name = "only-first"
definitions = [{{ name = "d", service = "Microsoft.Storage", service_resources = ["{first}"] }}]
"#
    )
}

/// A connection of the attacker, or what it would like to be one.
#[derive(Clone)]
struct Attacker {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    /// The numbers that it has said that its stream begins with.
    starts: [u32; 2],
    /// What it sends next, if it goes on where it was.
    next: u32,
    /// What the server has sent.
    server_next: u32,
    /// The stream that it is about to send, and where that begins.
    stream: usize,
    base: u32,
    /// How the server sees it.
    ends: Option<Ends>,
}

/// A client that wants `first`, says so, and gets its echo.
struct Honest {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    next: u32,
    server_next: u32,
    /// What it has sent, and how many segments of data behind the hello.
    stage: Stage,
    echoes: usize,
    steps: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Syn,
    Acknowledge,
    Hello(usize),
    Data(usize),
    Done,
}

/// A reply of the server that is on its way.
struct Reply {
    port: &'static str,
    segment: Segment,
}

pub(crate) struct Drive {
    rng: Rng,
    mode: usize,
    bench: Bench,
    frame: Frame,
    streams: Rc<Streams>,
    receiver: Receiver,
    server: Server,
    late: VecDeque<Reply>,
    attackers: Vec<Attacker>,
    honest: Option<Honest>,
    honest_port: u16,
    firewall: Option<Firewall>,
    policy: bool,
    endpoint: bool,
    admits: bool,
    /// Of each connection its serial number, how much of its stream was looked at, and whether that is for `first`.
    checked: HashMap<Ends, (u64, usize, bool)>,
    touched: HashSet<Ends>,
    shown: VecDeque<String>,
    /// The connection that went wrong.
    offender: Option<Ends>,
    identification: u16,
    pub(crate) packets: u64,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Run for Drive {
    fn step(&mut self) {
        self.bench.now += self.rng.u64(..3);
        match self.rng.u32(..1_000) {
            0..=4 => self.change(),
            5..=12 => self.wait(),
            13..=200 => self.go_on_honestly(),
            201..=300 => self.deliver_late(),
            _ => self.attack(),
        }
    }

    /// The last steps, and how it is set up.
    fn tell(&self) -> String {
        let mut all: Vec<&str> = self.shown.iter().rev().take(SHOWN).map(String::as_str).collect();
        all.reverse();
        let inside = self.attackers.iter().find(|attacker| self.offender.is_some() && attacker.ends == self.offender);
        let mut own = vec![match inside {
            Some(attacker) => format!("{}:{} ", attacker.from.0, attacker.from.1),
            None => "pass".to_owned(),
        }];
        own.extend(self.offender.map(|((address, port), _)| format!("{address}:{port} ")));
        let is_own = |line: &&String| own.iter().any(|own| line.contains(own)) || !line.contains('>');
        let mut own: Vec<&str> = self.shown.iter().rev().filter(is_own).take(SHOWN).map(String::as_str).collect();
        own.reverse();
        format!("source {}\n{}\nof the connection:\n{}", MODES[self.mode], all.join("\n"), own.join("\n"))
    }

    /// All timers end, and nothing is left.
    fn finish(&mut self) {
        self.bench.sweep();
        for _ in 0..100 {
            self.bench.now += 10_000_000;
            self.bench.expire();
        }
        self.bench.sent.packets.clear();
        let report = self.bench.report();
        assert_eq!((report.undecided, self.bench.forwarder.flow_count()), (0, 0), "nothing is left");
        *self.counts.entry("by_cookie").or_default() += self.server.by_cookie;
    }
}

impl Drive {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mode = rng.usize(..MODES.len());
        let bench = Bench::with_room(&document(mode), 4_000);
        let firewall = bench.network.services[0].resources[0].firewall.clone();
        let mut drive = Self {
            rng,
            mode,
            bench,
            frame: Frame::new(),
            streams: Rc::new(Streams::new()),
            receiver: Receiver::default(),
            server: Server::default(),
            late: VecDeque::new(),
            attackers: Vec::new(),
            honest: None,
            honest_port: 10_000,
            firewall,
            policy: true,
            endpoint: true,
            admits: true,
            checked: HashMap::new(),
            touched: HashSet::new(),
            shown: VecDeque::new(),
            offender: None,
            identification: 0,
            packets: 0,
            counts: BTreeMap::new(),
        };
        for index in 0..ATTACKERS {
            let attacker = drive.attacker(index);
            drive.attackers.push(attacker);
        }
        drive
    }

    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    fn number(&mut self) -> u32 {
        match self.rng.u8(..3) {
            0 => u32::MAX.wrapping_sub(self.rng.u32(..700)),
            1 => self.rng.u32(..1_000),
            _ => self.rng.u32(..),
        }
    }

    fn attacker(&mut self, index: usize) -> Attacker {
        let family = usize::from(index % 3 == 2);
        let application = if index % 4 == 3 { 80 } else { 443 };
        let first = self.number();
        Attacker {
            from: (CLIENTS[family].parse().unwrap(), 40_000 + index as u16),
            to: (SHARED[family].parse().unwrap(), application),
            starts: [first.wrapping_add(1), self.near(first)],
            next: first.wrapping_add(1),
            server_next: 0,
            stream: self.rng.usize(..self.streams.of(application).len()),
            base: first.wrapping_add(1),
            ends: None,
        }
    }

    /// A number that may be mixed up with another.
    fn near(&mut self, number: u32) -> u32 {
        match self.rng.u8(..6) {
            0 => number.wrapping_add(1),
            1 => number.wrapping_sub(1),
            2 => number.wrapping_add(self.rng.u32(..3_000)),
            3 => number.wrapping_sub(self.rng.u32(..3_000)),
            4 => number.wrapping_add(self.rng.u32(60_000..80_000)),
            _ => self.number(),
        }
    }

    /// Some time passes.
    fn wait(&mut self) {
        let span = [10, 1_000, 7_000, 31_000, 61_000, 300_000, 100_000_000][self.rng.usize(..7)];
        self.show(|| format!("{span} ms pass"));
        if span > 1_000 {
            self.honest = None;
        }
        self.bench.now += span;
        self.bench.expire();
        self.deliver();
    }

    /// Another snapshot.
    fn change(&mut self) {
        match self.rng.u8(..5) {
            0 | 1 => self.policy = !self.policy || self.rng.bool(),
            2 => self.endpoint = !self.endpoint || self.rng.bool(),
            3 => self.admits = !self.admits || self.rng.bool(),
            _ => (self.policy, self.endpoint, self.admits) = (true, true, true),
        }
        let (policy, endpoint, admits) = (self.policy, self.endpoint, self.admits);
        self.show(|| format!("policy {policy}, endpoint {endpoint}, firewall admits {admits}"));
        let mut firewall = self.firewall.clone();
        if !admits {
            firewall.as_mut().unwrap().virtual_network_rules.clear();
        }
        let source = match self.mode {
            0 => EndpointSource::Private,
            1 => {
                let pair = |from: &str, to: &str| (from.parse().unwrap(), to.parse().unwrap());
                EndpointSource::PrefixMap(vec![
                    pair("10.1.1.0/24", "100.64.8.0/24"),
                    pair("fd00:1:0:1::/64", "fd00:64:0:1::/64"),
                ])
            }
            2 => EndpointSource::Snat(0),
            _ => EndpointSource::Identity6,
        };
        self.bench.change(|network| {
            network.services[0].resources[0].firewall = firewall;
            let subnet = &mut network.virtual_networks[0].subnets[0];
            subnet.service_endpoint_policies = if policy { vec![0] } else { Vec::new() };
            subnet.service_endpoints = if endpoint {
                vec![ServiceEndpoint { service: "Microsoft.Storage".into(), locations: vec![], source }]
            } else {
                Vec::new()
            };
        });
        self.honest = None;
        if self.rng.bool() {
            self.bench.sweep();
            self.deliver();
        }
    }

    /// Whether the policy decides what passes.
    fn governs(&self) -> bool {
        self.policy && self.endpoint
    }

    fn go_on_honestly(&mut self) {
        if !(self.governs() && self.admits) {
            return;
        }
        let steps = if self.rng.bool() { 1 } else { 4 };
        for _ in 0..steps {
            self.honest_step();
        }
    }

    fn honest_step(&mut self) {
        let Some(honest) = self.honest.as_mut() else {
            self.honest_port = if self.honest_port > 30_000 { 10_000 } else { self.honest_port + 1 };
            let family = if self.mode == IDENTITY6 { 0 } else { self.rng.usize(..2) };
            let number = self.number();
            self.honest = Some(Honest {
                from: (HONEST[family].parse().unwrap(), self.honest_port),
                to: (SHARED[family].parse().unwrap(), 443),
                next: number,
                server_next: 0,
                stage: Stage::Syn,
                echoes: 0,
                steps: 0,
            });
            return;
        };
        honest.steps += 1;
        assert!(honest.steps < 60, "an honest connection does not get on: {:?}", honest.stage);
        let hello = &self.streams.of(443)[0];
        let data = |payload: &[u8]| (PSH | ACK, payload.to_vec());
        let (flags, payload) = match honest.stage {
            Stage::Syn => (SYN, Vec::new()),
            Stage::Acknowledge => (ACK, Vec::new()),
            Stage::Hello(at) => {
                let most = hello.len() - at;
                data(&hello[at..at + self.rng.usize(1..=most)])
            }
            Stage::Data(number) => data(format!("data {number}").as_bytes()),
            Stage::Done => (RST, Vec::new()),
        };
        let segment = Segment {
            from: honest.from,
            to: honest.to,
            flags,
            sequence: honest.next,
            acknowledgment: if flags & ACK != 0 { honest.server_next } else { 0 },
            urgent: 0,
            payload,
        };
        honest.next = honest.next.wrapping_add(segment.span());
        honest.stage = match honest.stage {
            Stage::Syn => Stage::Acknowledge,
            Stage::Acknowledge => Stage::Hello(0),
            Stage::Hello(at) if at + segment.payload.len() == hello.len() => Stage::Data(0),
            Stage::Hello(at) => Stage::Hello(at + segment.payload.len()),
            Stage::Data(4) => Stage::Done,
            Stage::Data(number) => Stage::Data(number + 1),
            Stage::Done => Stage::Done,
        };
        let before = honest.echoes;
        let is_data = segment.has(PSH);
        let ends = segment.has(RST);
        self.frame.set_packet(&segment.packet());
        let verdict = self.inject("honest", &segment.to_string());
        let honest = self.honest.as_ref().unwrap();
        assert!(matches!(verdict, Verdict::Forwarded(_)), "an honest packet: {verdict:?}");
        assert!(!is_data || honest.echoes == before + 1, "an honest client has no echo");
        if ends {
            self.count("honest");
            self.honest = None;
        }
    }

    /// A packet of the attacker.
    fn attack(&mut self) {
        let index = self.rng.usize(..ATTACKERS);
        if self.rng.u16(..400) == 0 {
            self.attackers[index] = self.attacker(index);
        }
        if self.rng.u8(..12) == 0 {
            let length = self.streams.of(self.attackers[index].to.1).len();
            let attacker = &mut self.attackers[index];
            attacker.stream = self.rng.usize(..length);
            attacker.base = match self.rng.u8(..4) {
                0 => attacker.starts[0],
                1 => attacker.starts[1],
                2 => attacker.next,
                _ => attacker.base,
            };
            if self.rng.bool()
                && let Some(connection) = attacker.ends.and_then(|ends| self.server.connections.get(&ends))
            {
                attacker.base = if self.rng.bool() { connection.next } else { connection.first.wrapping_add(1) };
            }
        }
        let segment = self.segment(index);
        let is_super = segment.payload.len() > 1_400;
        match self.rng.u8(..24) {
            0 => {
                let mut packet = segment.packet();
                let place = packet.len() - 1 - self.rng.usize(..20);
                packet[place] ^= 1 << self.rng.u8(..8);
                self.frame.set_packet(&packet);
                self.inject_of(&segment, "broken ");
            }
            1 => {
                let cut = self.rng.usize(..20 + segment.payload.len());
                self.identification = self.identification.wrapping_add(1);
                if let Some(mut pieces) = segment.fragments(cut, self.identification) {
                    if self.rng.bool() {
                        pieces.reverse();
                    }
                    for piece in pieces {
                        self.frame.set_packet(&piece);
                        self.inject_of(&segment, "fragment ");
                    }
                }
            }
            2..=5 => {
                let frame = segment.offloaded((is_super || self.rng.bool()).then_some(1_400));
                self.frame.copy_from(&frame);
                self.inject_of(&segment, "super ");
            }
            _ if is_super => {
                let frame = segment.offloaded(Some(1_400));
                self.frame.copy_from(&frame);
                self.inject_of(&segment, "super ");
            }
            _ => {
                self.frame.set_packet(&segment.packet());
                self.inject_of(&segment, "");
            }
        }
        let attacker = &mut self.attackers[index];
        if segment.has(SYN) {
            attacker.next = segment.sequence.wrapping_add(1);
        } else if self.rng.u8(..4) > 0 && segment.sequence == attacker.next {
            attacker.next = attacker.next.wrapping_add(segment.span());
        }
    }

    fn inject_of(&mut self, segment: &Segment, how: &str) {
        let text = format!("{how}{segment}");
        self.inject("attacker", &text);
    }

    /// The number where a segment begins.
    fn place(&mut self, index: usize) -> u32 {
        let attacker = &self.attackers[index];
        let connection = attacker.ends.and_then(|ends| self.server.connections.get(&ends));
        let server = connection.map_or(attacker.next, |connection| connection.next);
        let small = self.rng.u32(..600);
        match self.rng.u8(..16) {
            0 => attacker.starts[0],
            1 => attacker.starts[1],
            2 => attacker.starts[0].wrapping_sub(1),
            3 => attacker.next.wrapping_add(1),
            4 => attacker.next.wrapping_sub(1),
            5 => server.wrapping_add(1),
            6 => server.wrapping_sub(1),
            7 => server.wrapping_sub(small),
            8 => server.wrapping_add(small),
            9 => self.number(),
            10 | 11 => attacker.next,
            _ => server,
        }
    }

    fn segment(&mut self, index: usize) -> Segment {
        let place = self.place(index);
        let attacker = self.attackers[index].clone();
        let connection = attacker.ends.and_then(|ends| self.server.connections.get(&ends));
        // It knows what has reached it: nobody guesses the number of a server.
        let own_next = attacker.server_next;
        let is_open = connection.is_some();
        let mut segment = Segment {
            from: attacker.from,
            to: attacker.to,
            flags: ACK,
            sequence: place,
            acknowledgment: match self.rng.u8(..20) {
                0 => own_next.wrapping_add(1),
                1 => own_next.wrapping_sub(self.rng.u32(..100)),
                2 => self.rng.u32(..),
                _ => own_next,
            },
            urgent: 0,
            payload: Vec::new(),
        };
        let streams = self.streams.clone();
        let stream = &streams.of(attacker.to.1)[attacker.stream];
        let opens = if is_open { 6 } else { 50 };
        match self.rng.u8(..100) {
            roll if roll < opens => {
                segment.flags = SYN;
                segment.sequence = match self.rng.u8(..8) {
                    0 => place,
                    1 => attacker.starts[1].wrapping_sub(1),
                    2 => self.near(attacker.starts[0]),
                    _ => attacker.starts[0].wrapping_sub(1),
                };
                segment.acknowledgment = 0;
                if self.rng.u8(..8) == 0 {
                    segment.payload = stream[..self.rng.usize(..=stream.len().min(1_300))].to_vec();
                }
                if self.rng.u8(..30) == 0 {
                    segment.flags |= [ACK, FIN, RST, URG][self.rng.usize(..4)];
                }
                if self.rng.bool() {
                    let attacker = &mut self.attackers[index];
                    let kept = usize::from(self.rng.u8(..4) > 0);
                    attacker.starts[kept] = segment.sequence.wrapping_add(1);
                    if self.rng.bool() {
                        attacker.base = segment.sequence.wrapping_add(1);
                    }
                }
            }
            roll if roll < opens + 4 => {
                segment.flags = if self.rng.bool() { RST } else { RST | ACK };
            }
            roll if roll < opens + 7 => segment.flags = FIN | ACK,
            roll if roll < opens + 12 => {}
            roll if roll < opens + 15 => {
                // A keep-alive.
                segment.sequence = place.wrapping_sub(1);
                segment.payload = vec![self.rng.u8(..)];
            }
            _ => {
                // A slice of the stream, mostly where it belongs.
                let offset = if self.rng.u8(..8) > 0 {
                    let offset = segment.sequence.wrapping_sub(attacker.base) as usize;
                    if offset < stream.len() {
                        offset
                    } else {
                        segment.sequence = attacker.base;
                        0
                    }
                } else {
                    self.rng.usize(..stream.len())
                };
                let left = stream.len() - offset;
                let length = match self.rng.u8(..8) {
                    0 => 1,
                    1 | 2 => self.rng.usize(1..=left),
                    3 => left.min(60),
                    _ => left,
                };
                segment.payload = stream[offset..offset + length].to_vec();
                if self.rng.u8(..20) == 0 {
                    segment.payload.extend(vec![b'x'; self.rng.usize(..3_000)]);
                }
                if self.rng.u8(..30) == 0 {
                    let at = self.rng.usize(..segment.payload.len());
                    segment.payload[at] ^= 1;
                }
                segment.flags = match self.rng.u8(..24) {
                    0 => PSH,
                    1 => FIN | ACK,
                    2 => URG | ACK,
                    3 => 0,
                    _ => PSH | ACK,
                };
                if segment.has(URG) {
                    segment.urgent = self.rng.u16(..=segment.payload.len() as u16);
                }
            }
        }
        segment
    }

    /// The frame enters, and all that comes of it.
    fn inject(&mut self, port: &'static str, text: &str) -> Verdict {
        self.packets += 1;
        let mut frame = std::mem::take(&mut self.frame);
        let verdict = self.bench.inject_frame(port, &mut frame);
        self.frame = frame;
        self.show(|| format!("{port}: {text}: {verdict:?}"));
        self.count(match verdict {
            Verdict::Forwarded(_) => "forwarded",
            Verdict::Dropped(reason) => reason.name(),
            Verdict::Answered(_) => "answered",
            _ => "other",
        });
        self.bench.release();
        self.deliver();
        verdict
    }

    /// What was sent reaches whom it is for, and so on.
    fn deliver(&mut self) {
        let mut soon = VecDeque::new();
        loop {
            for (port, bytes, frame) in std::mem::take(&mut self.bench.sent.packets) {
                let name = self.bench.forwarder.snapshot().port(port).unwrap().name.clone();
                match name.as_str() {
                    "front" => self.at_server("front", &bytes, frame.offload.checksum, &mut soon),
                    "internet" => self.at_server("internet", &bytes, frame.offload.checksum, &mut soon),
                    _ => self.at_client(&bytes),
                }
            }
            self.check();
            let Some(Reply { port, segment }) = soon.pop_front() else { return };
            self.packets += 1;
            self.frame.set_packet(&segment.packet());
            let mut frame = std::mem::take(&mut self.frame);
            let verdict = self.bench.inject_frame(port, &mut frame);
            self.frame = frame;
            self.show(|| format!("  {port}: {segment}: {verdict:?}"));
        }
    }

    fn deliver_late(&mut self) {
        let Some(reply) = self.late.pop_front() else { return };
        self.packets += 1;
        self.frame.set_packet(&reply.segment.packet());
        let mut frame = std::mem::take(&mut self.frame);
        let verdict = self.bench.inject_frame(reply.port, &mut frame);
        self.frame = frame;
        self.show(|| format!("  late {}: {}: {verdict:?}", reply.port, reply.segment));
        self.deliver();
    }

    fn at_server(&mut self, port: &'static str, bytes: &[u8], checksum: Checksum, soon: &mut VecDeque<Reply>) {
        let Some(segment) = self.receiver.read(bytes, checksum) else { return };
        let ends = (segment.from, segment.to);
        let honest = self.is_honest(&segment);
        if !honest {
            self.remember(&segment, ends);
        } else if segment.has(SYN) {
            // What an earlier client of a pool left behind has timed out.
            self.server.connections.remove(&ends);
        }
        let answers = self.server.receive(&segment, honest, &mut self.rng);
        self.touched.insert(ends);
        for segment in answers {
            let reply = Reply { port, segment };
            // In the order in which they were sent, but for those that never come.
            if honest {
                soon.push_back(reply);
            } else if self.late.iter().any(|late| late.segment.to == ends.0) || self.rng.u8(..8) == 0 {
                if self.rng.u8(..4) > 0 && self.late.len() < 50 {
                    self.late.push_back(reply);
                }
            } else {
                soon.push_back(reply);
            }
        }
    }

    /// The flow of what the server got, by its inside.
    fn inside(&self, segment: &Segment) -> Option<(IpAddr, u16)> {
        let mut found = None;
        self.bench.forwarder.visit_flows(usize::MAX, |flow| {
            if flow.sides.presented == segment.from {
                found = Some(flow.sides.source);
            }
        });
        found
    }

    fn is_honest(&self, segment: &Segment) -> bool {
        let Some(honest) = self.honest.as_ref() else { return false };
        self.inside(segment).is_some_and(|inside| inside == honest.from)
    }

    fn remember(&mut self, segment: &Segment, ends: Ends) {
        let Some(inside) = self.inside(segment) else { return };
        if let Some(attacker) = self.attackers.iter_mut().find(|attacker| attacker.from == inside) {
            attacker.ends = Some(ends);
        }
    }

    fn at_client(&mut self, bytes: &[u8]) {
        let Some(segment) = self.receiver.read(bytes, Checksum::Complete) else { return };
        if segment.has(RST) {
            if self.honest.as_ref().is_some_and(|honest| honest.from == segment.to && honest.stage != Stage::Done) {
                panic!("an honest client is reset: {segment}");
            }
            return;
        }
        let next = segment.sequence.wrapping_add(segment.span());
        if let Some(honest) = self.honest.as_mut().filter(|honest| honest.from == segment.to) {
            honest.server_next = next;
            honest.echoes += usize::from(!segment.payload.is_empty());
        }
        if let Some(attacker) = self.attackers.iter_mut().find(|attacker| attacker.from == segment.to) {
            attacker.server_next = next;
        }
    }

    /// What no server may have.
    fn check(&mut self) {
        for ends in std::mem::take(&mut self.touched) {
            let Some(connection) = self.server.connections.get(&ends) else {
                self.checked.remove(&ends);
                continue;
            };
            let Connection { serial, stream, .. } = connection;
            let checked = self.checked.entry(ends).or_default();
            if checked.0 != *serial {
                *checked = (*serial, 0, false);
            }
            if checked.1 == stream.len() {
                continue;
            }
            checked.1 = stream.len();
            if !(self.policy && self.endpoint) {
                checked.2 = false;
                continue;
            }
            if checked.2 {
                continue;
            }
            self.offender = Some(ends);
            let application = if ends.1.1 == 80 { Application::Http } else { Application::Tls };
            let mut reader = NameReader::new(application);
            match reader.push(stream) {
                Reading::More => {}
                Reading::Name(name) if name == FIRST => {
                    assert!(self.admits, "the firewall of {name} admits nobody");
                    // A plain connection is for one request.
                    let end = reader.end().map_or(stream.len(), |end| end as usize);
                    assert!(stream.len() <= end, "{} bytes behind the request for {name}", stream.len() - end);
                    checked.2 = application == Application::Tls;
                }
                other => panic!(
                    "the server at {}:{} has {} bytes of {}:{}, which say {other:?}: {}",
                    ends.1.0,
                    ends.1.1,
                    stream.len(),
                    ends.0.0,
                    ends.0.1,
                    stream[..stream.len().min(40)].escape_ascii()
                ),
            }
            self.offender = None;
            if connection.state == State::Established {
                *self.counts.entry("checked").or_default() += 1;
            }
        }
    }

    fn show(&mut self, text: impl FnOnce() -> String) {
        if self.shown.len() == KEPT {
            self.shown.pop_front();
        }
        self.shown.push_back(text());
    }
}
