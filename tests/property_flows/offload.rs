//! Super-packets and their segments come to the same: one node gets packets whole, another one the same packets cut, and
//! what leaves, the flows and their bytes agree.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fastrand::Rng;
use sidestep::model::network::{EndpointSource, Network, ServiceEndpoint};
use sidestep::packet::checksum::pseudo_header;
use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};
use sidestep::packet::parse::{Parsed, TransportKind, parse};
use sidestep::packet::segment::segment;
use sidestep::path::Verdict;
use sidestep::path::flow::{FlowState, ResetNumbers};
use sidestep::path::forwarder::FlowSummary;
use sidestep::snapshot::{PortId, Snapshot};
use sidestep::table::flow::Direction;
use sidestep::tags::Catalogue;

use crate::model::{Side, side_of, sides};
use crate::node::{Node, catalogue, compile, network};
use crate::packets::{Tcp, fix_header, udp};
use crate::seeds::Run;

/// Inside hosts, by the port that they are at, and services and hosts that they talk to.
const PAIRS: [(&str, &str, &str); 6] = [
    ("vm1", "10.1.1.4", "20.60.1.10"),
    ("vm1", "10.1.1.4", "198.51.100.80"),
    ("vm2", "10.1.2.4", "20.60.1.10"),
    ("vm3", "10.1.1.5", "198.51.100.80"),
    ("vm1", "fd00:1:0:1::4", "2603:1020:206:100::10"),
    ("vm3", "fd00:1:0:1::5", "fd00:1:0:2::4"),
];

struct Talk {
    tcp: bool,
    from: &'static str,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    left: Option<(PortId, Side)>,
    next: [u32; 2],
}

/// Both nodes.
pub(crate) struct Twins {
    random: Rng,
    network: Network,
    catalogue: Arc<Catalogue>,
    snapshot: Arc<Snapshot>,
    whole: Node,
    cut: Node,
    now: u64,
    talks: Vec<Talk>,
    /// Super-packets that there were.
    pub(crate) supers: u64,
}

impl Twins {
    pub(crate) fn new(seed: u64) -> Self {
        let (mut network, catalogue) = (network(), catalogue());
        // Both nodes choose the same ports as long as neither fails to find one.
        network.snat_pools[0].ports = 1_024..=65_535;
        let snapshot = compile(&network, &catalogue, None);
        let (whole, cut) = (Node::new(&snapshot, 1, seed), Node::new(&snapshot, 1, seed));
        let random = Rng::with_seed(seed);
        Self { random, network, catalogue, snapshot, whole, cut, now: 1_000_000, talks: Vec::new(), supers: 0 }
    }
}

impl Run for Twins {
    fn step(&mut self) {
        let Self { random, network, catalogue, snapshot, whole, cut, now, talks, supers } = self;
        *now += random.u64(..300);
        match random.u32(..40) {
            0 => {
                change(random, network);
                *snapshot = compile(network, catalogue, Some(snapshot));
                let at_once = random.bool();
                for node in [&mut *whole, cut] {
                    node.adopt(snapshot);
                    if at_once {
                        while !node.sweep(*now, 16).0 {}
                    }
                }
            }
            1 => {
                *now += random.u64(..100_000);
                whole.expire(*now, usize::MAX);
                cut.expire(*now, usize::MAX);
            }
            2..6 => talks.push(begin(random)),
            _ if talks.is_empty() => {}
            _ => {
                let place = talks.len() - 1 - random.usize(..talks.len().min(8));
                let talk = &mut talks[place];
                let (port, frame) = packet(random, talk, &snapshot.ports);
                *supers += u64::from(frame.offload.segmentation.is_some());
                let left = both(whole, cut, *now, port, &frame);
                if let Some(left) = left.filter(|(_, side)| side.destination.1 == talk.destination.1) {
                    talk.left = Some(left);
                }
            }
        }
        compare(whole, cut);
    }
}

fn begin(random: &mut Rng) -> Talk {
    let (from, source, destination) = PAIRS[random.usize(..PAIRS.len())];
    Talk {
        tcp: random.u32(..3) > 0,
        from,
        source: (source.parse().unwrap(), random.u16(4_000..5_000)),
        destination: (destination.parse().unwrap(), 443),
        left: None,
        next: [random.u32(..), random.u32(..)],
    }
}

/// The next packet of a conversation, often a super-packet.
fn packet(random: &mut Rng, talk: &mut Talk, ports: &[sidestep::snapshot::PortEntry]) -> (PortId, Frame) {
    let answers = talk.left.is_some() && random.bool();
    let (port, source, destination) = match talk.left {
        Some((port, side)) if answers => (port, side.destination, side.source),
        _ => {
            let port = ports.iter().position(|port| port.name == talk.from).unwrap();
            (PortId(port as u16), talk.source, talk.destination)
        }
    };
    let (from, to) = (source.0.to_string(), destination.0.to_string());
    let (from, to) = ((from.as_str(), source.1), (to.as_str(), destination.1));
    let size = random.u16(100..1_500);
    // Segments that may be too large are all equally so.
    let tail = if size > 1_300 { 0 } else { random.usize(..100) };
    let payload = vec![random.u8(..); usize::from(size) * random.usize(1..6) + tail];
    let me = usize::from(answers);
    let bare = talk.left.is_none() || random.u32(..4) == 0;
    let mut bytes = if talk.tcp {
        let packet = Tcp { from, to, sequence: talk.next[me], acknowledgment: talk.next[1 - me], ..Tcp::default() };
        let (packet, span) = match (bare, random.u32(..12)) {
            (true, _) if talk.left.is_none() => (packet, 1),
            (true, 0..6) => (Tcp { flags: "SA", ..packet }, 1),
            (true, 6..8) => (Tcp { flags: "FA", ..packet }, 1),
            (true, 8) => (Tcp { flags: "RA", ..packet }, 0),
            (true, _) => (Tcp { flags: "A", ..packet }, 0),
            (false, 0) => (Tcp { flags: "FPA", payload: &payload, ..packet }, payload.len() as u32 + 1),
            (false, _) => (Tcp { flags: "A", payload: &payload, ..packet }, payload.len() as u32),
        };
        talk.next[me] = talk.next[me].wrapping_add(span);
        packet.bytes()
    } else {
        udp(from, to, &payload)
    };
    if bytes[0] >> 4 == 4 && random.u32(..4) == 0 {
        // May be fragmented.
        bytes[6] = 0;
        fix_header(&mut bytes);
    }
    let parsed = parse(&bytes).unwrap();
    let mut frame = Frame::from_packet(&bytes);
    if parsed.payload_len() > usize::from(size) {
        offload(&mut frame, &parsed, size);
    }
    (port, frame)
}

/// Leaves checksum and segmentation to the device, as a kernel does.
fn offload(frame: &mut Frame, parsed: &Parsed, size: u16) {
    let (kind, offset) = match parsed.kind {
        TransportKind::Tcp { .. } if parsed.is_v4() => (SegmentKind::TcpV4, 16),
        TransportKind::Tcp { .. } => (SegmentKind::TcpV6, 16),
        _ => (SegmentKind::Udp, 6),
    };
    let length = frame.len() as u32 - u32::from(parsed.transport);
    let sum = pseudo_header(frame.bytes(), parsed, length).unwrap();
    let place = usize::from(parsed.transport + offset);
    frame.bytes_mut()[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    frame.offload = Offload {
        checksum: Checksum::Partial { start: parsed.transport, offset },
        segmentation: Some(Segmentation { kind, size, ecn: false }),
    };
}

/// A packet to one node, and its segments to the other. Gives where it left.
fn both(whole: &mut Node, cut: &mut Node, now: u64, port: PortId, frame: &Frame) -> Option<(PortId, Side)> {
    let segments = segments(frame);
    let mut copy = Frame::new();
    copy.copy_from(frame);
    let of_whole = whole.receive(0, now, port, &mut copy);
    let mut of_cut = vec![];
    for (index, mut segment) in segments.into_iter().enumerate() {
        let ended = cut.receive(0, now, port, &mut segment);
        if index == 0 {
            assert_eq!(ended.verdict, of_whole.verdict, "the first segment of {frame:?}");
        }
        let forwarded = |verdict| matches!(verdict, Verdict::Forwarded(_));
        assert_eq!(forwarded(ended.verdict), forwarded(of_whole.verdict), "{:?}, {frame:?}", ended.verdict);
        of_cut.extend(ended.sent);
    }
    if !matches!(of_whole.verdict, Verdict::Forwarded(_)) {
        return None;
    }
    let of_whole: Vec<(PortId, Frame)> = of_whole
        .sent
        .into_iter()
        .flat_map(|(port, frame)| self::segments(&frame).into_iter().map(move |segment| (port, segment)))
        .collect();
    let v4 = frame.bytes()[0] >> 4 == 4;
    let comparable = |sent: &[(PortId, Frame)]| -> Vec<(PortId, Vec<u8>)> {
        sent.iter().map(|(port, frame)| (*port, without_identification(frame.bytes(), v4))).collect()
    };
    let pairs = comparable(&of_whole).into_iter().zip(comparable(&of_cut));
    for (index, (of_whole, of_cut)) in pairs.enumerate() {
        let same = of_whole == of_cut;
        assert!(same, "segment {index} of {frame:?}: {:02x?}, {:02x?}", &of_whole.1[..40], &of_cut.1[..40]);
    }
    assert_eq!(of_whole.len(), of_cut.len(), "as many packets leave of {frame:?}");
    let (port, first) = of_whole.first()?;
    Some((*port, side_of(*port, &parse(first.bytes()).unwrap())))
}

fn segments(frame: &Frame) -> Vec<Frame> {
    let parsed = parse(frame.bytes()).unwrap();
    let (mut scratch, mut all) = (Frame::new(), vec![]);
    segment(frame, &parsed, &mut scratch, |piece| {
        let mut copy = Frame::new();
        copy.copy_from(piece);
        all.push(copy);
    });
    all
}

/// A packet without what a translator numbers: it numbers packets, and a super-packet is one. One that was IPv6 may be
/// fragmented if it is small (RFC 7915 section 5.1), and the last segment may be so when it comes alone.
fn without_identification(packet: &[u8], was_v4: bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
        if !was_v4 {
            packet[6] &= !0x40;
        }
    }
    packet
}

fn change(random: &mut Rng, network: &mut Network) {
    let subnet = random.usize(..2);
    let map = (["10.1.1.0/24", "10.1.2.0/24"][subnet].parse().unwrap(), "100.64.8.0/24".parse().unwrap());
    let sources = [
        EndpointSource::Private,
        EndpointSource::PrefixMap(vec![map]),
        EndpointSource::Identity6,
        EndpointSource::Snat(0),
    ];
    let source = sources[random.usize(..4)].clone();
    let endpoint = ServiceEndpoint { service: "Microsoft.Storage".to_owned(), locations: vec![], source };
    let subnet = &mut network.virtual_networks[0].subnets[subnet];
    subnet.service_endpoints = if random.u32(..4) == 0 { vec![] } else { vec![endpoint] };
    subnet.nat_gateway = random.bool().then_some(0);
}

/// What both nodes remember of a flow: phase, lifetime's beginning, sequence numbers, bytes without headers.
fn compare(whole: &Node, cut: &Node) {
    let facts = |node: &Node| -> BTreeMap<Side, _> {
        let of = |flow: &FlowSummary| {
            let (forward, reverse) = sides(flow);
            let state = &flow.state;
            let facts = (reverse, state.phase, state.last_seen(), state.generation, numbers(state), payload(flow));
            (forward, facts)
        };
        node.flows().iter().map(of).collect()
    };
    let (mut of_whole, of_cut) = (facts(whole), facts(cut));
    for (side, facts) in &of_cut {
        assert_eq!(of_whole.remove(side).as_ref(), Some(facts), "the flow of whole packets, and of segments: {side:?}");
    }
    assert!(of_whole.is_empty(), "flows of whole packets alone: {:?}", of_whole.keys());
    for node in [whole, cut] {
        assert_eq!(node.report().unaccounted(), 0, "in = out + answers + drops");
    }
}

fn numbers(state: &FlowState) -> [ResetNumbers; 2] {
    [state.reset_numbers(Direction::Forward), state.reset_numbers(Direction::Reverse)]
}

/// Bytes of a flow without the headers of its packets: a super-packet has them once. Each direction's headers are those
/// of the family that its packets enter with.
fn payload(flow: &FlowSummary) -> [u64; 2] {
    let transport = if flow.sides.protocol == 6 { 20 } else { 8 };
    let headers = |address: IpAddr| transport + if address.is_ipv4() { 20 } else { 40 };
    let (forward, reverse) = (headers(flow.sides.source.0), headers(flow.sides.presented.0));
    let state = &flow.state;
    [state.bytes[0] - state.packets[0] * forward, state.bytes[1] - state.packets[1] * reverse]
}
