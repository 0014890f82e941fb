//! Random packets, time and changes, driven at the model and at the node together.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sidestep::model::network::{
    EndpointSource, Filtering, FlowLifetimes, Mapping, NatProtocols, Network, ServiceEndpoint, Translation,
};
use sidestep::packet::frame::Frame;
use sidestep::packet::parse::{Fragment, Parsed, TransportKind, parse};
use sidestep::path::Verdict;
use sidestep::snapshot::{PortId, Snapshot};
use sidestep::tags::Catalogue;

use crate::model::{Arrival, Counts, Expected, LATE, Model, Sending, Side, side_of};
use crate::node::{Ended, Node, catalogue, compile, network};
use crate::packets::{Tcp, echo, fix_header, port_unreachable, protocol, udp_with_hops};
use crate::seeds::Run;

/// Conversations that go on at a time.
const CONVERSATIONS: usize = 48;

/// Sources by NIC or port, then whom they talk to.
const INSIDE: [(&str, &str); 16] = [
    ("twin", "10.1.1.4"),
    ("twin", "10.1.1.4"),
    ("twin", "fd00:1:0:1::4"),
    ("vm1", "10.1.1.4"),
    ("vm2", "10.1.2.4"),
    ("vm3", "10.1.1.5"),
    ("vm1", "10.1.1.4"),
    ("vm1", "fd00:1:0:1::4"),
    ("vm2", "10.1.2.4"),
    ("vm2", "fd00:1:0:2::4"),
    ("vm3", "10.1.1.5"),
    ("vm3", "fd00:1:0:1::5"),
    ("appliance", "10.0.100.4"),
    ("appliance", "10.9.9.9"),
    ("gateway", "192.168.0.9"),
    ("internet", "198.51.100.80"),
];
const OUTSIDE_V4: [&str; 20] = [
    "20.60.1.10",
    "20.60.1.10",
    "20.60.1.10",
    "20.60.1.10",
    "20.60.1.10",
    "198.51.100.80",
    "198.51.100.80",
    "20.60.1.10",
    "20.60.1.10",
    "198.51.100.80",
    "198.51.100.81",
    "192.0.2.7",
    "10.1.1.4",
    "10.1.1.5",
    "10.1.2.4",
    "192.168.0.9",
    "203.0.113.70",
    "203.0.113.200",
    "203.0.113.50",
    "224.0.0.9",
];
const OUTSIDE_V6: [&str; 5] =
    ["2603:1020:206:100::10", "2001:db8:80::80", "fd00:1:0:1::4", "fd00:c0a8::9", "2001:db8:ffff::200"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Echo,
    Tunnel,
}

/// A conversation as its first sender began it, and where its packets last left the node.
#[derive(Debug, Clone)]
struct Talk {
    kind: Kind,
    from: String,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    /// Port and side of the packet that left last, from which the other end answers.
    left: Option<(PortId, Side)>,
    /// What each end sends next.
    next: [u32; 2],
}

/// Model and node.
pub(crate) struct Drive {
    random: Rng,
    now: u64,
    network: Network,
    catalogue: Arc<Catalogue>,
    snapshot: Arc<Snapshot>,
    node: Node,
    workers: u16,
    model: Model,
    talks: Vec<Talk>,
    /// Fragments on their way: worker, port, packet.
    fragments: VecDeque<(usize, PortId, Vec<u8>)>,
    passed: VecDeque<(PortId, Vec<u8>)>,
    identification: u16,
    drops: u64,
    steps: u64,
    /// What happened, to see that enough did.
    pub(crate) verdicts: std::collections::BTreeMap<String, u64>,
}

impl Run for Drive {
    fn step(&mut self) {
        match self.random.u32(..100) {
            0..70 => self.talk(),
            70..73 => self.stranger(),
            73..76 => self.icmp_error(),
            76..82 => self.fragment(),
            82..83 => self.broken(),
            83..95 => self.wait(),
            _ => self.change(),
        }
        self.compare();
        self.steps += 1;
        // Every step would take most of the time.
        if self.steps.is_multiple_of(32) {
            self.node.check_records(self.now);
        }
    }

    /// After the last timer nothing is left.
    fn finish(&mut self) {
        self.sweep_all();
        for _ in 0..4 {
            self.now += 25 * 3_600_000;
            self.expire(usize::MAX);
            self.compare();
        }
        self.node.check_records(self.now);
        self.node.log_nothing();
        assert!(self.model.is_empty(), "something is left in the model");
        assert!(self.node.flows().is_empty(), "something is left in the node");
        assert_eq!((self.node.shared.flows(), self.node.shared.mappings()), (0, 0), "quota and mappings");
        assert!(self.node.shared.top_owners(1).is_empty(), "no NIC has flows");
        assert_eq!(self.node.next_expiry(), None, "no timer is set");
        let report = self.node.report();
        assert_eq!((report.flows, report.fragments_held), (0, 0));
        for (name, count) in [
            ("let in", self.model.let_in),
            ("kept", report.flows_kept),
            ("moved", report.flows_moved),
            ("evicted", report.flows_evicted),
            ("fragment_timeout", report.dropped.get("fragment_timeout").copied().unwrap_or_default()),
        ] {
            *self.verdicts.entry(name.to_owned()).or_default() += count;
        }
        assert_eq!(
            report.dropped.values().sum::<u64>(),
            self.drops + self.model.fragments_dropped,
            "every drop is known"
        );
        assert_eq!(report.flows_created, report.flows_expired + report.flows_evicted + self.model.begun_anew);
    }
}

impl Drive {
    pub(crate) fn new(seed: u64, workers: u16) -> Self {
        let (network, catalogue) = (network(), catalogue());
        let snapshot = compile(&network, &catalogue, None);
        Self {
            random: Rng::with_seed(seed),
            now: 1_000_000,
            node: Node::new(&snapshot, workers, seed),
            workers,
            model: Model::new(snapshot.clone(), workers),
            network,
            catalogue,
            snapshot,
            talks: vec![],
            fragments: VecDeque::new(),
            passed: VecDeque::new(),
            identification: 0,
            drops: 0,
            steps: 0,
            verdicts: std::collections::BTreeMap::new(),
        }
    }

    // ------------------------------------------------------------------------------------------------- packets

    fn talk(&mut self) {
        if self.talks.is_empty() || self.random.u32(..5) == 0 {
            self.begin_talk();
        }
        // The latest talk most, so that conversations come to their end.
        let count = self.talks.len();
        let place =
            if self.random.bool() { self.random.usize(..count) } else { count - 1 - self.random.usize(..count.min(4)) };
        let mut talk = self.talks[place].clone();
        let answers = talk.left.is_some() && self.random.u32(..100) < 45;
        let hop_limit = if self.random.u32(..60) == 0 { 1 } else { 64 };
        let large = self.random.u32(..40) == 0;
        let (port, source, destination) = match (answers, talk.left) {
            (true, Some((port, side))) => (port, side.destination, side.source),
            _ => (self.port(&talk.from), talk.source, talk.destination),
        };
        let texts = (source.0.to_string(), destination.0.to_string());
        let (from, to) = ((texts.0.as_str(), source.1), (texts.1.as_str(), destination.1));
        let payload = vec![7; if large { self.random.usize(1_300..1_500) } else { self.random.usize(..40) }];
        let mut bytes = match talk.kind {
            Kind::Tcp => self.segment(&mut talk, answers, from, to, &payload, hop_limit),
            Kind::Udp => udp_with_hops(from, to, &payload, hop_limit),
            Kind::Echo => echo(from.0, to.0, answers, if answers { destination.1 } else { source.1 }, hop_limit),
            Kind::Tunnel => protocol(from.0, to.0, 47, &payload),
        };
        if bytes[0] >> 4 == 4 && large && self.random.bool() {
            // May be fragmented.
            bytes[6] = 0;
            fix_header(&mut bytes);
        }
        let worker = self.random.usize(..usize::from(self.workers));
        let sent = self.packet(worker, port, &bytes);
        if let Some(left) = sent
            && !answers
        {
            talk.left = Some(left);
        }
        self.talks[place] = talk;
    }

    fn begin_talk(&mut self) {
        let (from, source) = INSIDE[self.random.usize(..INSIDE.len())];
        let v4 = !source.contains(':');
        let destination = if v4 {
            OUTSIDE_V4[self.random.usize(..OUTSIDE_V4.len())]
        } else {
            OUTSIDE_V6[self.random.usize(..OUTSIDE_V6.len())]
        };
        let kind = [Kind::Tcp, Kind::Tcp, Kind::Tcp, Kind::Udp, Kind::Udp, Kind::Echo, Kind::Tunnel];
        let kind = kind[self.random.usize(..kind.len())];
        let (source_port, destination_port) = match kind {
            Kind::Tcp | Kind::Udp => (self.random.u16(4_000..4_012), self.random.u16(440..442)),
            Kind::Echo => (self.random.u16(..6), 0),
            Kind::Tunnel => (0, 0),
        };
        let talk = Talk {
            kind,
            from: from.to_owned(),
            source: (source.parse().unwrap(), source_port),
            destination: (destination.parse().unwrap(), destination_port),
            left: None,
            next: [self.random.u32(..), self.random.u32(..)],
        };
        if self.talks.len() == CONVERSATIONS {
            self.talks.remove(0);
        }
        self.talks.push(talk);
    }

    /// The next segment, most of the time one that fits.
    fn segment(
        &mut self,
        talk: &mut Talk,
        answers: bool,
        from: (&str, u16),
        to: (&str, u16),
        payload: &[u8],
        hop_limit: u8,
    ) -> Vec<u8> {
        let me = usize::from(answers);
        let (sequence, acknowledgment) = (talk.next[me], talk.next[1 - me]);
        let packet = Tcp { from, to, sequence, acknowledgment, hop_limit, ..Tcp::default() };
        let new = talk.left.is_none();
        let (packet, span) = match self.random.u32(..100) {
            _ if new && !answers => (packet, 1),
            0..12 if !answers => (packet, 1),
            0..14 => (Tcp { flags: "SA", ..packet }, 1),
            14..60 => (Tcp { flags: "A", payload, ..packet }, payload.len() as u32),
            60..76 => (Tcp { flags: "A", ..packet }, 0),
            76..86 => (Tcp { flags: "FA", ..packet }, 1),
            86..90 => (Tcp { flags: "RA", ..packet }, 0),
            90..92 => (Tcp { flags: "R", ..packet }, 0),
            // Somebody who cannot see the connection.
            92..94 => (Tcp { flags: "R", sequence: self.random.u32(..), ..packet }, 0),
            94..96 => (Tcp { sequence: self.random.u32(..), ..packet }, 0),
            // A connection of the same ports, and a retransmission.
            96..97 => {
                talk.next[me] = self.random.u32(..);
                (Tcp { sequence: talk.next[me], ..packet }, 1)
            }
            97..99 => (Tcp { flags: "A", sequence: sequence.wrapping_sub(20), payload: &[7; 20], ..packet }, 0),
            _ => (Tcp { flags: "F", ..packet }, 1),
        };
        talk.next[me] = talk.next[me].wrapping_add(span);
        packet.bytes()
    }

    /// Somebody outside tries an address, often one that is in use.
    fn stranger(&mut self) {
        let flows = self.node.flows();
        let used = if flows.is_empty() { None } else { Some(flows[self.random.usize(..flows.len())].sides) };
        let name = if self.random.u32(..4) == 0 { "contosodata" } else { "internet" };
        let port = self.port(name);
        let target = used.map(|sides| sides.presented).filter(|(address, _)| address.is_ipv4());
        let (address, number) = target.unwrap_or(("203.0.113.200".parse().unwrap(), 2_000));
        let address = address.to_string();
        let sources = ["198.51.100.80", "198.51.100.99", "10.1.1.4"];
        let from = (sources[self.random.usize(..3)], self.random.u16(440..443));
        let bytes = match self.random.u32(..3) {
            0 => udp_with_hops(from, (&address, number), b"hello", 64),
            1 => Tcp { from, to: (&address, number), sequence: self.random.u32(..), ..Tcp::default() }.bytes(),
            _ => Tcp { from, to: (&address, number), flags: "A", ..Tcp::default() }.bytes(),
        };
        let worker = self.random.usize(..usize::from(self.workers));
        self.packet(worker, port, &bytes);
    }

    /// A host or a router complains about a packet that passed.
    fn icmp_error(&mut self) {
        if self.passed.is_empty() {
            return;
        }
        let (port, quoted) = self.passed[self.random.usize(..self.passed.len())].clone();
        let parsed = parse(&quoted).unwrap();
        let router = if parsed.is_v4() { "192.0.2.33" } else { "2001:db8:33::33" };
        let from = if self.random.bool() { parsed.destination().to_string() } else { router.to_owned() };
        let bytes = port_unreachable(&from, &parsed.source().to_string(), &quoted[..quoted.len().min(1_200)]);
        let worker = self.random.usize(..usize::from(self.workers));
        self.packet(worker, port, &bytes);
    }

    /// A datagram in fragments that come in any order, some twice, some never; or the next of those on their way.
    fn fragment(&mut self) {
        if self.fragments.len() < 8 && self.random.bool() {
            self.cut_datagram();
        }
        for _ in 0..self.random.usize(..3) {
            let Some((worker, port, bytes)) = self.fragments.pop_front() else { return };
            self.packet(worker, port, &bytes);
        }
    }

    fn cut_datagram(&mut self) {
        let (from, source) = INSIDE[self.random.usize(3..6)];
        let to = OUTSIDE_V4[self.random.usize(..OUTSIDE_V4.len())];
        let ports = (self.random.u16(4_000..4_012), self.random.u16(440..442));
        let mut whole = udp_with_hops((source, ports.0), (to, ports.1), &[9; 88], 64);
        self.identification = self.identification.wrapping_add(1);
        whole[4..6].copy_from_slice(&self.identification.to_be_bytes());
        let mut ranges = vec![(0, 32, true), (32, 64, true), (64, 96, false)];
        if self.random.u32(..6) == 0 {
            ranges.push((24, 56, true));
        }
        self.random.shuffle(&mut ranges);
        if self.random.u32(..5) == 0 {
            ranges.push(ranges[0]);
        }
        if self.random.u32(..5) == 0 {
            ranges.pop();
        }
        let (worker, port) = (self.random.usize(..usize::from(self.workers)), self.port(from));
        for (start, end, more) in ranges {
            let mut piece = whole[..20].to_vec();
            piece.extend(&whole[20 + start..20 + end]);
            let length = piece.len() as u16;
            piece[2..4].copy_from_slice(&length.to_be_bytes());
            let field = (start as u16 / 8) | if more { 0x2000 } else { 0 };
            piece[6..8].copy_from_slice(&field.to_be_bytes());
            fix_header(&mut piece);
            self.fragments.push_back((worker, port, piece));
        }
    }

    /// A packet that lies about itself.
    fn broken(&mut self) {
        let mut bytes = udp_with_hops(("10.1.1.4", 1), ("198.51.100.80", 53), b"x", 64);
        match self.random.u32(..4) {
            0 => bytes[10] ^= 0x55,
            1 => bytes.truncate(self.random.usize(..28)),
            2 => bytes[12] = 11,
            _ => bytes[0] = 0x35,
        }
        if bytes.len() > 20 && bytes[12] == 11 {
            fix_header(&mut bytes);
        }
        let port = self.port("vm1");
        let worker = self.random.usize(..usize::from(self.workers));
        self.packet(worker, port, &bytes);
    }

    /// A packet to both; gives where it left, if it passed as one packet.
    fn packet(&mut self, worker: usize, port: PortId, bytes: &[u8]) -> Option<(PortId, Side)> {
        let ended = self.node.receive(worker, self.now, port, &mut Frame::from_packet(bytes));
        let flows = self.node.flows();
        let arrival = Arrival { now: self.now, port, bytes, verdict: ended.verdict, flows: &flows };
        let expected = self.model.packet(&arrival);
        self.check(port, bytes, &ended, &expected);
        if expected.releases {
            while let Some((port, bytes, ended)) = self.node.resume(self.now) {
                let flows = self.node.flows();
                let arrival = Arrival { now: self.now, port, bytes: &bytes, verdict: ended.verdict, flows: &flows };
                let expected = self.model.released(&arrival).unwrap();
                self.check(port, &bytes, &ended, &expected);
            }
        }
        let [(left, frame)] = ended.sent.as_slice() else { return None };
        if !matches!(ended.verdict, Verdict::Forwarded(_)) {
            return None;
        }
        let parsed = parse(frame.bytes()).unwrap();
        if self.passed.len() == 16 {
            self.passed.pop_front();
        }
        self.passed.push_back((*left, frame.bytes().to_vec()));
        Some((*left, side_of(*left, &parsed)))
    }

    /// The node did what it had to.
    fn check(&mut self, port: PortId, bytes: &[u8], ended: &Ended, expected: &Expected) {
        let name = match ended.verdict {
            Verdict::Forwarded(_) => "forwarded".to_owned(),
            Verdict::Answered(answer) => answer.name().to_owned(),
            Verdict::Dropped(reason) => reason.name().to_owned(),
            other => format!("{other:?}"),
        };
        *self.verdicts.entry(name).or_default() += 1;
        self.drops += u64::from(matches!(ended.verdict, Verdict::Dropped(_)));
        let about = || {
            let parsed = parse(bytes);
            let name = self.snapshot.port(port).map_or("?", |port| port.name.as_str());
            let start = &bytes[..bytes.len().min(100)];
            format!("at {} through {name}: {parsed:?} {start:02x?}, expected {expected:?}", self.now)
        };
        assert_eq!(ended.verdict, expected.verdict, "{}", about());
        let mut found = match ended.verdict {
            Verdict::Forwarded(_) => {
                if ended.sent.iter().any(|(_, frame)| frame.bytes()[0] != bytes[0]) {
                    *self.verdicts.entry("crossed".to_owned()).or_default() += 1;
                }
                passed(&ended.sent, bytes)
            }
            _ => made(&ended.sent),
        };
        let mut wanted = expected.sent.clone();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{}", about());
    }

    // ---------------------------------------------------------------------------------------------------- time

    fn wait(&mut self) {
        self.sweep_all();
        let step = match self.random.u32(..100) {
            0..20 => 0,
            20..55 => self.random.u64(1..200),
            55..80 => self.random.u64(200..5_000),
            80..95 => self.random.u64(5_000..70_000),
            95..99 => self.random.u64(70_000..400_000),
            _ => self.random.u64(400_000..9_000_000),
        };
        self.now += step;
        // Fragments end for sure or not at all: what happens between is the timers' own.
        while self.model.fragment_deadlines().any(|deadline| self.now >= deadline && self.now < deadline + LATE) {
            self.now += LATE;
        }
        let budget = if self.random.u32(..4) == 0 && self.model.only_flows_are_due(self.now) {
            self.random.usize(..4)
        } else {
            usize::MAX
        };
        self.expire(budget);
    }

    fn expire(&mut self, budget: usize) {
        let sent = self.node.expire(self.now, budget);
        let flows = self.node.flows();
        let all = budget == usize::MAX;
        let mut wanted = self.model.expire(self.now, all, &flows);
        if all {
            self.model.expire_fragments(self.now, self.node.report().fragments_held);
        }
        let mut found = made(&sent);
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "answers to strangers at {}", self.now);
    }

    // -------------------------------------------------------------------------------------------------- changes

    fn change(&mut self) {
        for _ in 0..self.random.usize(1..3) {
            self.change_network();
        }
        let next = compile(&self.network, &self.catalogue, Some(&self.snapshot));
        let budget = self.random.usize(1..40);
        let foreseen = self.node.foresee(&next, budget);
        let foreseen = Counts { kept: foreseen.kept, reset: foreseen.reset, moved: foreseen.moved };
        assert_eq!(foreseen, self.model.foresee(&next), "what the change would do");
        let before = self.counts();
        self.node.adopt(&next);
        self.model.adopt(next.clone());
        self.snapshot = next;
        if self.random.bool() {
            // No packet comes between.
            self.sweep_all();
            let after = self.counts();
            let happened = Counts {
                kept: after.kept - before.kept,
                reset: after.reset - before.reset,
                moved: after.moved - before.moved,
            };
            assert_eq!(happened, foreseen, "what was foreseen happens");
        } else {
            let budget = self.random.usize(..4);
            self.sweep(budget);
        }
    }

    fn counts(&self) -> Counts {
        let report = self.node.report();
        Counts { kept: report.flows_kept, reset: report.flows_reset, moved: report.flows_moved }
    }

    fn sweep(&mut self, budget: usize) -> bool {
        let (done, sent) = self.node.sweep(self.now, budget);
        let flows = self.node.flows();
        let mut wanted = self.model.sweep(self.now, &flows);
        let mut found = made(&sent);
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "resets of the sweep at {}", self.now);
        done
    }

    fn sweep_all(&mut self) {
        while !self.sweep(7) {}
    }

    fn change_network(&mut self) {
        let random = &mut self.random;
        let network = &mut self.network;
        match random.u32(..14) {
            0..4 => {
                let subnet = random.usize(..2);
                let sources = [
                    EndpointSource::Private,
                    EndpointSource::PrefixMap(vec![(
                        ["10.1.1.0/24", "10.1.2.0/24"][subnet].parse().unwrap(),
                        "100.64.8.0/24".parse().unwrap(),
                    )]),
                    EndpointSource::Identity6,
                    EndpointSource::Snat(0),
                    EndpointSource::Snat(0),
                ];
                let source = sources[random.usize(..5)].clone();
                let endpoint = ServiceEndpoint { service: "Microsoft.Storage".to_owned(), locations: vec![], source };
                let endpoints = &mut network.virtual_networks[0].subnets[subnet].service_endpoints;
                *endpoints = if random.u32(..4) == 0 { vec![] } else { vec![endpoint] };
            }
            4 => {
                let subnet = random.usize(..2);
                let nat = &mut network.virtual_networks[0].subnets[subnet].nat_gateway;
                *nat = if nat.is_some() { None } else { Some(0) };
            }
            5 => {
                let routes = &mut network.virtual_networks[0].subnets[1].route_table;
                *routes = if routes.is_some() { None } else { Some(0) };
            }
            6 => {
                let outbound = &mut network.virtual_networks[0].subnets[random.usize(..2)].default_outbound_access;
                *outbound = !*outbound || random.bool();
            }
            7 if !network.nics.is_empty() => {
                let place = random.usize(..network.nics.len());
                network.nics.remove(place);
            }
            8 => {
                let mapping = [Mapping::AddressAndPortDependent, Mapping::EndpointIndependent][random.usize(..2)];
                let filtering = match mapping {
                    Mapping::AddressAndPortDependent => Filtering::AddressAndPortDependent,
                    Mapping::EndpointIndependent => [
                        Filtering::AddressAndPortDependent,
                        Filtering::AddressDependent,
                        Filtering::EndpointIndependent,
                    ][random.usize(..3)],
                };
                let translation = Translation { mapping, filtering };
                match random.u32(..3) {
                    0 => network.snat_pools[0].translation = translation,
                    1 => network.nat_gateways[0].translation = translation,
                    _ => network.internet.as_mut().unwrap().translation = translation,
                }
            }
            9 => {
                let mut some =
                    |least: u64, most: u64| (random.bool()).then(|| Duration::from_secs(random.u64(least..most)));
                network.flows.lifetimes = FlowLifetimes {
                    icmp: some(1, 60),
                    udp: some(1, 240),
                    tcp_opening: some(1, 240),
                    tcp_established: some(10, 7_440),
                    tcp_closing: some(1, 240),
                    tcp_closed: some(1, 240),
                    tcp_reset: some(1, 240),
                    port_rest: some(1, 120),
                    port_rest_half_open: some(1, 120),
                };
            }
            10 => {
                network.flows.limit = [60, 60, 24, 12][random.usize(..4)];
                network.flows.limit_per_nic = [60, 60, 12, 5][random.usize(..4)];
            }
            11 => {
                let restricted = random.u32(..3) == 0;
                network.semantics.nat_protocols = if restricted { NatProtocols::TcpAndUdp } else { NatProtocols::Any };
            }
            _ => network.nics = crate::node::network().nics,
        }
    }

    // ------------------------------------------------------------------------------------------------- comparing

    fn compare(&mut self) {
        let flows = self.node.flows();
        self.model.compare(&flows, self.node.shared.mappings(), self.node.shared.flows());
        let report = self.node.report();
        assert_eq!(report.unaccounted(), 0, "in = out + answers + drops + held");
        assert_eq!(report.fragments_held, self.model.held(), "fragments held");
        assert_eq!(report.flows as usize, flows.len(), "the gauge of flows");
        let counts = Counts { kept: report.flows_kept, reset: report.flows_reset, moved: report.flows_moved };
        assert_eq!(counts, self.model.counts, "flows kept, reset and moved");
        assert_eq!((report.flows_evicted, report.flows_expired), (self.model.evicted, self.model.expired));
        assert_eq!(report.handed_over, report.taken_over);
    }

    fn port(&self, name: &str) -> PortId {
        let found = self.snapshot.ports.iter().position(|port| port.name == name);
        // A NIC that is gone sends through a number that nobody has.
        PortId(found.unwrap_or(self.snapshot.ports.len()) as u16)
    }
}

/// A packet that passed, as the model says it. One that was cut into fragments is one again, if nothing of it is missing.
fn passed(sent: &[(PortId, Frame)], original: &[u8]) -> Vec<Sending> {
    let before = parse(original).unwrap();
    let after: Vec<(PortId, &[u8], Parsed)> =
        sent.iter().map(|(port, frame)| (*port, frame.bytes(), parse(frame.bytes()).unwrap())).collect();
    let Some((port, bytes, first)) = after.first() else { return vec![] };
    if first.kind == TransportKind::IcmpError {
        return vec![Sending::PassedError { port: *port, from: first.source(), to: first.destination() }];
    }
    if after.len() > 1 {
        let carried: u32 = after.iter().map(|(_, _, piece)| piece.total - u32::from(piece.transport)).sum();
        assert_eq!(carried, before.total - u32::from(before.transport), "nothing of a packet in fragments is lost");
        assert!(before.fragment == Fragment::None && first.fragment == Fragment::First && !before.dont_fragment);
    } else {
        assert!(is_same(bytes, first, original, &before), "the payload stays: {bytes:02x?}");
    }
    vec![Sending::Packet { side: side_of(*port, first), hop_limit: first.hop_limit }]
}

/// What the node itself made, as the model says it.
fn made(sent: &[(PortId, Frame)]) -> Vec<Sending> {
    let one = |(port, frame): &(PortId, Frame)| {
        let parsed = parse(frame.bytes()).unwrap();
        match parsed.kind {
            TransportKind::Tcp { flags, sequence, acknowledgment, .. } => {
                assert_ne!(flags & Parsed::RST, 0, "of TCP the node makes resets alone");
                let acknowledgment = (flags & Parsed::ACK != 0).then_some(acknowledgment);
                Sending::Reset { side: side_of(*port, &parsed), sequence, acknowledgment }
            }
            kind => {
                assert_eq!(kind, TransportKind::IcmpError, "what else the node makes are errors");
                Sending::Error { port: *port, to: parsed.destination() }
            }
        }
    };
    sent.iter().map(one).collect()
}

/// Whether a packet that left is the one that came, but for addresses, ports and checksums.
fn is_same(sent: &[u8], parsed: &Parsed, original: &[u8], before: &Parsed) -> bool {
    let payload = |bytes: &[u8], parsed: &Parsed| bytes[parsed.payload()..].to_vec();
    let numbers = |parsed: &Parsed| match parsed.kind {
        TransportKind::Tcp { flags, sequence, acknowledgment, .. } => (flags, sequence, acknowledgment),
        _ => (0, 0, 0),
    };
    let echo = matches!(parsed.kind, TransportKind::IcmpEcho { .. });
    let (mine, theirs) = (payload(sent, parsed), payload(original, before));
    // Type, checksum and identifier of an echo change.
    let skip = if echo { 6 } else { 0 };
    numbers(parsed) == numbers(before) && mine.get(skip..) == theirs.get(skip..)
}
