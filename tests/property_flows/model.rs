//! A slow and obvious twin of a node's flows: a list of flows, each with its two sides written out, and for every packet
//! what has to become of it. Where a packet goes that begins a flow is asked of the stages (another test's subject); all
//! the rest is the model's own. What is left to chance, the translated port and which transient flow makes room, is
//! learned from the node and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sidestep::packet::icmp::embedded;
use sidestep::packet::parse::{Fragment, Parsed, TransportKind, parse, protocol};
use sidestep::path::flow::Phase;
use sidestep::path::forwarder::FlowSummary;
use sidestep::path::observer::Silent;
use sidestep::path::order::{self, Decision, Question, Standing};
use sidestep::path::policy::Named;
use sidestep::path::route::{self, Reached};
use sidestep::path::source::{Presented, paired};
use sidestep::path::subject::Subject;
use sidestep::path::{Answer, DropReason, Verdict, origin};
use sidestep::snapshot::{
    EndpointSource, Filtering, Lifetimes, Mapping, NextHopType, Pool, PoolId, PortId, PortKind, Snapshot, SourceAction,
};

use crate::conversation::Conversation;

/// How long what is left of a moved flow answers, and how long a stranger's SYN waits for its answer, in milliseconds.
const TRACE: u64 = 60_000;
const SILENCE: u64 = 6_000;
/// How long fragments are waited for.
const FRAGMENTS: u64 = 30_000;
/// Times are kept in units of 64 ms and timers end one such tick late at most.
pub(crate) const LATE: u64 = 192;
/// Rooms that are kept at most for workers that cannot make room themselves.
const KEPT: usize = 16;
/// Bytes of the longest SYN that is remembered.
const REMEMBERED: usize = 100;

type Socket = (IpAddr, u16);

/// What packets of one direction look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Side {
    pub(crate) port: PortId,
    pub(crate) source: Socket,
    pub(crate) destination: Socket,
    pub(crate) protocol: u8,
}

/// A flow.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) forward: Side,
    pub(crate) reverse: Side,
    phase: Phase,
    conversation: Conversation,
    pool: Option<PoolId>,
    owner: PortId,
    next_hop_type: NextHopType,
    generation: u64,
    maps_source: bool,
    maps_destination: bool,
    packets: [u64; 2],
    last: u64,
    /// The first packet came from the internet: the inside is the other end.
    from_internet: bool,
    /// Nobody saw who began it, and the receiver's own connections would go the same way.
    midway: bool,
}

impl Flow {
    fn is_translated(&self) -> bool {
        self.forward.source != self.reverse.destination || self.forward.destination != self.reverse.source
    }

    fn is_trace(&self) -> bool {
        matches!(self.phase, Phase::Reset | Phase::Moved)
    }

    /// Whether it may make room: it has ended, or only one side has been heard.
    fn is_transient(&self) -> bool {
        match self.phase {
            Phase::Established | Phase::Closing => false,
            Phase::Query | Phase::Datagram => self.packets.contains(&0),
            _ => true,
        }
    }

    /// The direction of what the inside of a translation sends.
    fn inside(&self) -> usize {
        usize::from(self.from_internet)
    }

    /// Whether the conversation goes on, so that its mapping lets others in.
    fn is_live(&self) -> bool {
        !self.is_trace() && !matches!(self.phase, Phase::Closed | Phase::Aborted | Phase::Resting)
    }

    fn begin(&mut self, parsed: &Parsed, now: u64) {
        self.phase = first_phase(parsed);
        self.conversation = Conversation::default();
        self.last = now;
    }

    /// The outside socket that is its source's alone, and that it came in by.
    fn outsides(&self) -> impl Iterator<Item = (Socket, u8)> {
        let source = self.maps_source.then_some((self.reverse.destination, self.forward.protocol));
        let destination = self.maps_destination.then_some((self.forward.destination, self.forward.protocol));
        source.into_iter().chain(destination)
    }
}

fn first_phase(parsed: &Parsed) -> Phase {
    match parsed.kind {
        TransportKind::Tcp { .. } => Phase::Opening,
        TransportKind::IcmpEcho { .. } => Phase::Query,
        _ => Phase::Datagram,
    }
}

/// What has to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sending {
    /// The packet, translated, whole or in fragments.
    Packet { side: Side, hop_limit: u8 },
    /// A TCP reset.
    Reset { side: Side, sequence: u32, acknowledgment: Option<u32> },
    /// An ICMP error made by the node.
    Error { port: PortId, to: IpAddr },
    /// An ICMP error that passes.
    PassedError { port: PortId, from: IpAddr, to: IpAddr },
}

/// What has to become of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) verdict: Verdict,
    pub(crate) sent: Vec<Sending>,
    /// Fragments of the packet may go now.
    pub(crate) releases: bool,
}

/// A packet, and what the node has made of it.
pub(crate) struct Arrival<'a> {
    pub(crate) now: u64,
    pub(crate) port: PortId,
    pub(crate) bytes: &'a [u8],
    pub(crate) verdict: Verdict,
    pub(crate) flows: &'a [FlowSummary],
}

/// A packet in fragments.
#[derive(Debug, Default)]
struct Pieces {
    deadline: u64,
    ports: Option<(u16, u16)>,
    seen: BTreeSet<u32>,
    end: Option<u32>,
    spoiled: bool,
    held: u32,
}

impl Pieces {
    /// Whether it has come whole and waits for nothing.
    fn is_over(&self) -> bool {
        let whole = self.end.is_some_and(|end| self.seen.len() as u32 == end);
        whole && self.held == 0 && self.ports.is_some() && !self.spoiled
    }
}

/// Port of entry, source, destination, protocol, identification.
type PiecesKey = (PortId, IpAddr, IpAddr, u8, u32);

/// What a change does to flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) kept: u64,
    pub(crate) reset: u64,
    pub(crate) moved: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept(NextHopType, Option<PoolId>),
    Reset,
    Ended,
    Moved,
}

/// The model.
pub(crate) struct Model {
    snapshot: Arc<Snapshot>,
    workers: u16,
    pub(crate) flows: Vec<Flow>,
    pieces: BTreeMap<PiecesKey, Pieces>,
    /// When strangers' SYNs are answered, with the side that they would have met.
    strangers: Vec<(u64, Side)>,
    pub(crate) counts: Counts,
    pub(crate) evicted: u64,
    /// Traces of moved flows that ended because their first packet came again.
    pub(crate) begun_anew: u64,
    pub(crate) expired: u64,
    /// Flows that a mapping let in.
    pub(crate) let_in: u64,
    /// Fragments that waited in vain or were spoiled while they were held.
    pub(crate) fragments_dropped: u64,
}

impl Model {
    pub(crate) fn new(snapshot: Arc<Snapshot>, workers: u16) -> Self {
        Self {
            snapshot,
            workers,
            flows: vec![],
            pieces: BTreeMap::new(),
            strangers: vec![],
            counts: Counts::default(),
            evicted: 0,
            begun_anew: 0,
            expired: 0,
            let_in: 0,
            fragments_dropped: 0,
        }
    }

    pub(crate) fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    // ------------------------------------------------------------------------------------------------- packets

    /// What has to become of a packet.
    pub(crate) fn packet(&mut self, arrival: &Arrival<'_>) -> Expected {
        let mut parsed = match parse(arrival.bytes) {
            Ok(parsed) => parsed,
            Err(error) => return dropped(error.into()),
        };
        if parsed.fragment == Fragment::None {
            return self.way(arrival, &parsed);
        }
        match self.piece(arrival, &parsed) {
            Ok(ports) => {
                (parsed.source_port, parsed.destination_port) = ports;
                let releases = parsed.fragment == Fragment::First;
                Expected { releases, ..self.way(arrival, &parsed) }
            }
            Err(verdict) => Expected { verdict, sent: vec![], releases: false },
        }
    }

    /// What has to become of a fragment that was held.
    pub(crate) fn released(&mut self, arrival: &Arrival<'_>) -> Result<Expected, String> {
        let mut parsed = parse(arrival.bytes).map_err(|error| error.to_string())?;
        let key = pieces_key(arrival.port, &parsed);
        let pieces = self.pieces.get_mut(&key).ok_or("a fragment of an unknown packet is let go")?;
        let ports = pieces.ports.filter(|_| pieces.held > 0 && !pieces.spoiled);
        (parsed.source_port, parsed.destination_port) = ports.ok_or("a fragment is let go that does not wait")?;
        pieces.held -= 1;
        if pieces.is_over() {
            self.pieces.remove(&key);
        }
        Ok(self.way(arrival, &parsed))
    }

    fn piece(&mut self, arrival: &Arrival<'_>, parsed: &Parsed) -> Result<(u16, u16), Verdict> {
        self.admit(arrival, parsed).map_err(Verdict::Dropped)?;
        let key = pieces_key(arrival.port, parsed);
        let fresh = || Pieces { deadline: arrival.now + FRAGMENTS, ..Pieces::default() };
        let pieces = self.pieces.entry(key).or_insert_with(fresh);
        if pieces.spoiled {
            return Err(Verdict::Dropped(DropReason::FragmentOverlap));
        }
        let start = u32::from(parsed.fragment_offset);
        let end = start + parsed.total - u32::from(parsed.transport - parsed.network);
        let last = !parsed.more_fragments;
        let reach = pieces.seen.last().map_or(0, |byte| byte + 1);
        let contradicts = match pieces.end {
            Some(known) => end > known || last && end != known,
            None => last && reach >= end,
        };
        let known = (start..end).filter(|byte| pieces.seen.contains(byte)).count();
        if !contradicts && known as u32 == end - start {
            return Err(Verdict::Dropped(DropReason::FragmentDuplicate));
        }
        if contradicts || known > 0 {
            pieces.spoiled = true;
            self.fragments_dropped += u64::from(std::mem::take(&mut pieces.held));
            return Err(Verdict::Dropped(DropReason::FragmentOverlap));
        }
        pieces.seen.extend(start..end);
        if last {
            pieces.end = Some(end);
        }
        if parsed.fragment == Fragment::First {
            pieces.ports = Some((parsed.source_port, parsed.destination_port));
        }
        let Some(ports) = pieces.ports else {
            pieces.held += 1;
            return Err(Verdict::Held);
        };
        if pieces.is_over() {
            self.pieces.remove(&key);
        }
        Ok(ports)
    }

    /// What a fragment has to be before anything is remembered of it.
    fn admit(&self, arrival: &Arrival<'_>, parsed: &Parsed) -> Result<(), DropReason> {
        let port = self.snapshot.port(arrival.port).ok_or(DropReason::UnknownPort)?;
        origin::check(port, &subject(&side_of(arrival.port, parsed)), &mut Silent)?;
        let to = parsed.destination();
        let known = self.snapshot.public_port(to).is_some()
            || self.snapshot.instance(to).is_some()
            || self.snapshot.pool_of(to).is_some();
        if port.kind == PortKind::Internet && !known { Err(DropReason::NoPublicAddress) } else { Ok(()) }
    }

    fn find(&self, side: &Side) -> Option<(usize, usize)> {
        let place = self.flows.iter().position(|flow| flow.forward == *side || flow.reverse == *side)?;
        Some((place, usize::from(self.flows[place].forward != *side)))
    }

    fn way(&mut self, arrival: &Arrival<'_>, parsed: &Parsed) -> Expected {
        if parsed.kind == TransportKind::IcmpError {
            return self.error(arrival, parsed);
        }
        let side = side_of(arrival.port, parsed);
        let Some((place, direction)) = self.find(&side) else { return self.first(arrival, parsed, None) };
        let mut sent = vec![];
        if self.flows[place].generation != self.snapshot.generation {
            sent = self.decide_again(place, arrival.now);
            if !sent.is_empty() {
                return Expected { verdict: Verdict::Answered(Answer::Reset), sent, releases: false };
            }
        }
        let flow = &self.flows[place];
        let restricted = flow.pool.and_then(|pool| self.snapshot.pool(pool)).is_some_and(|pool| pool.tcp_udp_only);
        let inside = flow.inside() == direction;
        let whole_only = restricted || flow.pool.is_some() && parsed.protocol == protocol::SCTP;
        if parsed.fragment != Fragment::None && whole_only {
            return dropped(DropReason::FragmentNotTranslatable);
        }
        let forward = direction == 0;
        let tcp = parsed.protocol == protocol::TCP;
        match flow.phase {
            Phase::Reset | Phase::Moved => self.trace(arrival, parsed, place, forward),
            Phase::Resting if !inside => {
                self.remember(arrival, parsed, DropReason::NoMapping);
                dropped(DropReason::PortResting)
            }
            Phase::Resting if tcp && !begins(parsed) => {
                self.reset_back(&side, parsed, Answer::FlowEnded, DropReason::TcpWithoutFlow)
            }
            Phase::Resting => {
                self.flows[place].begin(parsed, arrival.now);
                self.pass(arrival, parsed, place, direction)
            }
            Phase::Closed | Phase::Aborted if begins(parsed) && !inside && flow.pool.is_some() => {
                self.remember(arrival, parsed, DropReason::NoMapping);
                dropped(DropReason::NoMapping)
            }
            _ => self.pass(arrival, parsed, place, direction),
        }
    }

    /// A packet meets what is left of a flow that moved.
    fn trace(&mut self, arrival: &Arrival<'_>, parsed: &Parsed, place: usize, forward: bool) -> Expected {
        let (phase, side) = (self.flows[place].phase, self.flows[place].forward);
        let anew = !matches!(parsed.kind, TransportKind::Tcp { .. }) || begins(parsed);
        let may_be_others = || {
            let flow = &self.flows[place];
            let port = self.snapshot.port(flow.reverse.port);
            let own = port.map(|port| route::choose(&self.snapshot, port, &subject(&flow.reverse), &mut Silent));
            let by_endpoint = matches!(own, Some(Ok(own)) if matches!(own.source, SourceAction::Endpoint(_)));
            flow.midway || by_endpoint && is_passed_on(&self.snapshot, &flow.forward, flow.reverse.port)
        };
        if anew && (forward || may_be_others()) {
            // What begins no flow leaves the trace where it is.
            let trace = self.flows.remove(place);
            let expected = self.first(arrival, parsed, Some(&trace));
            if self.find(&side_of(arrival.port, parsed)).is_some() {
                self.begun_anew += 1;
            } else {
                self.flows.push(trace);
            }
            return expected;
        }
        if forward && let Err(reason) = order::decide(&self.snapshot, &subject(&side), Question::NEW, &mut Silent) {
            return if phase == Phase::Reset {
                self.reset_back(&side_of(arrival.port, parsed), parsed, Answer::Reset, reason)
            } else {
                dropped(reason)
            };
        }
        if anew || !forward && phase == Phase::Moved {
            return dropped(DropReason::FlowMoved);
        }
        self.reset_back(&side_of(arrival.port, parsed), parsed, Answer::Reset, DropReason::FlowMoved)
    }

    /// A reset for the sender of a packet; nobody is behind a port that is gone.
    fn reset_back(&self, side: &Side, parsed: &Parsed, answer: Answer, otherwise: DropReason) -> Expected {
        match parsed.kind {
            TransportKind::Tcp { flags, acknowledgment, .. }
                if flags & (Parsed::ACK | Parsed::RST) == Parsed::ACK && self.kind(side.port) != PortKind::Vacant =>
            {
                let sent = vec![Sending::Reset { side: back(side), sequence: acknowledgment, acknowledgment: None }];
                Expected { verdict: Verdict::Answered(answer), sent, releases: false }
            }
            _ => dropped(otherwise),
        }
    }

    /// A packet without a flow, or with the trace of one that moved, which has been taken out meanwhile.
    fn first(&mut self, arrival: &Arrival<'_>, parsed: &Parsed, trace: Option<&Flow>) -> Expected {
        if parsed.fragment == Fragment::Later {
            return dropped(DropReason::FragmentWithoutFlow);
        }
        let side = side_of(arrival.port, parsed);
        let decision = match order::decide(&self.snapshot, &subject(&side), Question::NEW, &mut Silent) {
            Ok(decision) => decision,
            Err(DropReason::EndpointBypassed) if self.kind(arrival.port) != PortKind::Internet => {
                return self.reset_back(&side, parsed, Answer::Reset, DropReason::EndpointBypassed);
            }
            Err(reason) => {
                self.remember(arrival, parsed, reason);
                return dropped(reason);
            }
        };
        if parsed.hop_limit <= 1 {
            return self.time_exceeded(arrival.port, parsed);
        }
        if matches!(decision.presented, Presented::Identity6 { .. }) && !has_other_form(parsed) {
            return dropped(DropReason::Untranslatable);
        }
        let translated_tcp = matches!(decision.presented, Presented::Pool(_)) && parsed.protocol == protocol::TCP;
        if translated_tcp && !begins(parsed) {
            return self.reset_back(&side, parsed, Answer::FlowEnded, DropReason::TcpWithoutFlow);
        }
        match self.make(arrival, parsed, side, &decision, trace) {
            Ok(place) => self.pass(arrival, parsed, place, 0),
            Err(reason) => {
                let mut sent = vec![];
                let told = [DropReason::NoFreePort, DropReason::FlowTableFull, DropReason::FlowLimitOfNic];
                if told.contains(&reason) && self.router(arrival.port, parsed).is_some() {
                    sent.push(Sending::Error { port: arrival.port, to: parsed.source() });
                }
                self.remember(arrival, parsed, reason);
                Expected { verdict: Verdict::Dropped(reason), sent, releases: false }
            }
        }
    }

    /// A flow lets a packet pass.
    fn pass(&mut self, arrival: &Arrival<'_>, parsed: &Parsed, place: usize, direction: usize) -> Expected {
        let flow = &self.flows[place];
        let (enters, leaves) = if direction == 0 { (flow.forward, flow.reverse) } else { (flow.reverse, flow.forward) };
        if parsed.hop_limit <= 1 {
            return self.time_exceeded(arrival.port, parsed);
        }
        let crosses = enters.source.0.is_ipv4() != leaves.source.0.is_ipv4();
        let mtu = self.snapshot.port(leaves.port).map_or(0, |port| u32::from(port.mtu));
        let room = match (crosses, parsed.is_v4()) {
            (false, _) => mtu,
            (true, true) if parsed.fragment != Fragment::None => mtu - 28,
            (true, true) => mtu - 20,
            (true, false) => mtu + 20,
        };
        if parsed.total > room && parsed.dont_fragment {
            if parsed.fragment == Fragment::Later {
                return dropped(DropReason::PacketTooBig);
            }
            let sent = vec![Sending::Error { port: arrival.port, to: parsed.source() }];
            return Expected { verdict: Verdict::Answered(Answer::PacketTooBig), sent, releases: false };
        }
        if crosses && !has_other_form(parsed) {
            return dropped(DropReason::Untranslatable);
        }
        let flow = &mut self.flows[place];
        // This time it is seen who begins.
        flow.midway &= direction != 0 || !flow.conversation.begins_another(flow.phase, direction, parsed);
        let (phase, alive) = flow.conversation.follow(flow.phase, direction, flow.inside(), parsed);
        flow.phase = phase;
        if alive {
            flow.last = arrival.now;
        }
        flow.packets[direction] += 1;
        let mut side = back(&leaves);
        if parsed.fragment == Fragment::Later {
            (side.source.1, side.destination.1) = (0, 0);
        }
        let sent = vec![Sending::Packet { side, hop_limit: parsed.hop_limit - 1 }];
        Expected { verdict: Verdict::Forwarded(leaves.port), sent, releases: false }
    }

    /// An ICMP error from the network goes back along the flow of the packet that it quotes.
    fn error(&mut self, arrival: &Arrival<'_>, parsed: &Parsed) -> Expected {
        let Some(port) = self.snapshot.port(arrival.port) else { return dropped(DropReason::UnknownPort) };
        if let Err(reason) = origin::source(port, parsed.source()) {
            return dropped(reason);
        }
        let inner = embedded(arrival.bytes, parsed).filter(|inner| inner.source() == parsed.destination());
        let Some(inner) = inner else { return dropped(DropReason::IcmpErrorMalformed) };
        // An error about an error is none (RFC 1122 section 3.2.2).
        if inner.kind == TransportKind::IcmpError {
            return dropped(DropReason::IcmpErrorWithoutFlow);
        }
        let quoted = side_of(arrival.port, &inner);
        let answers = Side { source: quoted.destination, destination: quoted.source, ..quoted };
        let Some((place, direction)) = self.find(&answers) else { return dropped(DropReason::IcmpErrorWithoutFlow) };
        if self.flows[place].generation != self.snapshot.generation {
            let sent = self.decide_again(place, arrival.now);
            if self.flows[place].is_trace() {
                return Expected { verdict: Verdict::Dropped(DropReason::FlowMoved), sent, releases: false };
            }
        }
        let flow = &self.flows[place];
        match flow.phase {
            Phase::Reset | Phase::Moved => return dropped(DropReason::FlowMoved),
            Phase::Resting => return dropped(DropReason::PortResting),
            _ => {}
        }
        if parsed.hop_limit <= 1 {
            return dropped(DropReason::HopLimitExceeded);
        }
        let out = if direction == 0 { flow.reverse } else { flow.forward };
        let crosses = out.source.0.is_ipv4() != parsed.is_v4();
        if crosses && !has_other_form(&inner) {
            return dropped(DropReason::Untranslatable);
        }
        // Towards the outside everything has the public address; towards the inside only the far end has another one.
        let hides =
            flow.is_translated() && (direction == flow.inside() || crosses || parsed.source() == inner.destination());
        let from = if hides { out.destination.0 } else { parsed.source() };
        let sent = vec![Sending::PassedError { port: out.port, from, to: out.source.0 }];
        Expected { verdict: Verdict::Forwarded(out.port), sent, releases: false }
    }

    fn time_exceeded(&self, port: PortId, parsed: &Parsed) -> Expected {
        if parsed.fragment == Fragment::Later || self.router(port, parsed).is_none() {
            return dropped(DropReason::HopLimitExceeded);
        }
        let sent = vec![Sending::Error { port, to: parsed.source() }];
        Expected { verdict: Verdict::Answered(Answer::TimeExceeded), sent, releases: false }
    }

    fn router(&self, port: PortId, parsed: &Parsed) -> Option<IpAddr> {
        let port = self.snapshot.port(port)?;
        if parsed.is_v4() { port.router_v4.map(IpAddr::V4) } else { port.router_v6.map(IpAddr::V6) }
    }

    /// A stranger's SYN is answered in six seconds, if nobody inside wants it by then.
    fn remember(&mut self, arrival: &Arrival<'_>, parsed: &Parsed, reason: DropReason) {
        if reason == DropReason::NoMapping && begins(parsed) && arrival.bytes.len() <= REMEMBERED {
            self.strangers.push((arrival.now + SILENCE, side_of(arrival.port, parsed)));
        }
    }

    // --------------------------------------------------------------------------------------------- making flows

    fn make(
        &mut self,
        arrival: &Arrival<'_>,
        parsed: &Parsed,
        forward: Side,
        decision: &Decision,
        trace: Option<&Flow>,
    ) -> Result<usize, DropReason> {
        let echo = matches!(parsed.kind, TransportKind::IcmpEcho { .. });
        let mut flow = Flow {
            forward,
            reverse: Side {
                port: decision.egress,
                source: forward.destination,
                destination: forward.source,
                protocol: forward.protocol,
            },
            phase: first_phase(parsed),
            conversation: Conversation::default(),
            pool: None,
            owner: forward.port,
            next_hop_type: decision.next_hop_type,
            generation: self.snapshot.generation,
            maps_source: false,
            maps_destination: false,
            packets: [0; 2],
            last: arrival.now,
            from_internet: self.kind(forward.port) == PortKind::Internet,
            midway: false,
        };
        match decision.reached {
            Reached::Own => {}
            Reached::Instance(private) => flow.reverse.source.0 = private,
            Reached::Mapping(pool) => {
                let whole_only = self.snapshot.pool(pool).is_some_and(|pool| pool.tcp_udp_only);
                let fragment = parsed.fragment != Fragment::None;
                if !echo && fragment && (whole_only || parsed.protocol == protocol::SCTP) {
                    return Err(DropReason::FragmentNotTranslatable);
                }
                let inside = self.inside_of(forward.destination, forward.protocol);
                let live = self.is_live(forward.destination, forward.protocol);
                let (port, socket) = inside.filter(|_| !echo && live).ok_or(DropReason::NoMapping)?;
                let filtering = self.snapshot.pool(pool).ok_or(DropReason::NoMapping)?.filtering;
                if filtering == Filtering::AddressAndPortDependent || !serves(&self.snapshot, pool, port, socket.0) {
                    return Err(DropReason::NoMapping);
                }
                if port == forward.port {
                    return Err(DropReason::Loop);
                }
                (flow.reverse.source, flow.reverse.port) = (socket, port);
            }
        }
        if self.kind(forward.port) != PortKind::Nic && self.kind(flow.reverse.port) == PortKind::Nic {
            flow.owner = flow.reverse.port;
        }
        let room = self.make_room(arrival, flow.owner, trace);
        // What made room may have been the last that the mapping let others in for.
        if let Reached::Mapping(_) = decision.reached
            && !self.is_live(forward.destination, forward.protocol)
        {
            return Err(DropReason::NoMapping);
        }
        room?;
        match decision.presented {
            Presented::Own => {}
            Presented::OneToOne(address) => flow.reverse.destination.0 = address,
            Presented::Identity6 { source, destination } => {
                flow.reverse.destination.0 = source.into();
                flow.reverse.source.0 = destination.into();
                flow.reverse.protocol = beyond(forward.protocol);
            }
            Presented::Pool(id) => {
                let snapshot = self.snapshot.clone();
                let pool = snapshot.pool(id).ok_or(DropReason::NoSourceAddress)?;
                flow.pool = Some(id);
                if parsed.fragment != Fragment::None && (pool.tcp_udp_only || parsed.protocol == protocol::SCTP) {
                    return Err(DropReason::FragmentNotTranslatable);
                }
                self.present(arrival, &mut flow, pool, echo)?;
            }
        }
        if let Reached::Mapping(pool) = decision.reached {
            let outside = (forward.destination, forward.protocol);
            // What made room may have been its last flow.
            let inside = self.inside_of(forward.destination, forward.protocol);
            let restricted = self.snapshot.pool(pool).is_some_and(|pool| pool.filtering == Filtering::AddressDependent);
            let remote = flow.reverse.destination.0;
            let let_in = inside.is_some() && self.is_live(forward.destination, forward.protocol);
            if !let_in || restricted && !self.knows(outside, remote) {
                return Err(DropReason::NoMapping);
            }
            flow.maps_destination = true;
            flow.pool = flow.pool.or(Some(pool));
        }
        if self.is_taken(&flow.reverse) {
            return Err(DropReason::FlowConflict);
        }
        flow.midway = parsed.protocol == protocol::TCP
            && !begins(parsed)
            && is_passed_on(&self.snapshot, &forward, flow.reverse.port)
            && returns(&self.snapshot, &flow);
        self.let_in += u64::from(flow.maps_destination);
        self.flows.push(flow);
        Ok(self.flows.len() - 1)
    }

    fn kind(&self, port: PortId) -> PortKind {
        self.snapshot.port(port).map_or(PortKind::Vacant, |port| port.kind)
    }

    fn is_taken(&self, side: &Side) -> bool {
        self.find(side).is_some()
    }

    /// Where there are as many flows as there may be, a transient one goes. The room of a trace is that of what takes its
    /// place, if both are the same port's; otherwise the trace ends after.
    fn make_room(&mut self, arrival: &Arrival<'_>, owner: PortId, trace: Option<&Flow>) -> Result<(), DropReason> {
        if trace.is_some_and(|trace| trace.owner == owner) {
            return Ok(());
        }
        let is_nic = self.kind(owner) == PortKind::Nic;
        let others = usize::from(trace.is_some());
        let exceeded = |flows: &[Flow], snapshot: &Snapshot| {
            let own = flows.iter().filter(|flow| flow.owner == owner).count();
            if is_nic && own >= snapshot.flow_limit_per_nic as usize {
                Some(DropReason::FlowLimitOfNic)
            } else {
                (flows.len() + others >= snapshot.flow_limit as usize).then_some(DropReason::FlowTableFull)
            }
        };
        let reason = match exceeded(&self.flows, &self.snapshot) {
            Some(reason) => reason,
            // Of several workers one may make more room than it needs, for another that has asked.
            None if self.workers > 1 => DropReason::FlowTableFull,
            None => return Ok(()),
        };
        // Of several workers one that has made room for its NIC may find the node full as well, and go on there.
        let full = reason == DropReason::FlowTableFull
            || self.workers > 1 && self.flows.len() + others + KEPT > self.snapshot.flow_limit as usize;
        let may_go = |flow: &Flow| flow.is_transient() && (flow.owner == owner || full);
        let is_there = |flow: &Flow| arrival.flows.iter().any(|summary| sides(summary).0 == flow.forward);
        let gone: Vec<usize> = (0..self.flows.len())
            .filter(|place| may_go(&self.flows[*place]) && !is_there(&self.flows[*place]))
            .collect();
        let most = if self.workers > 1 && full { 1 + KEPT } else { 1 };
        assert!(gone.len() <= most, "one flow makes room for one: {gone:?}");
        match gone.first() {
            Some(_) => {
                gone.iter().rev().for_each(|place| _ = self.flows.remove(*place));
                self.evicted += gone.len() as u64;
            }
            // Of several workers each ends flows of its own alone.
            None => assert!(self.workers > 1 || !self.flows.iter().any(may_go), "{reason:?}, and nobody went"),
        }
        let refused = arrival.verdict == Verdict::Dropped(DropReason::FlowTableFull);
        let kept = self.flows.len() + others + KEPT >= self.snapshot.flow_limit as usize;
        if self.workers > 1 && refused && kept {
            return Err(DropReason::FlowTableFull);
        }
        exceeded(&self.flows, &self.snapshot).map_or(Ok(()), Err)
    }

    /// The source that a pool gives: learned, and checked.
    fn present(&self, arrival: &Arrival<'_>, flow: &mut Flow, pool: &Pool, echo: bool) -> Result<(), DropReason> {
        let forward = flow.forward;
        let addresses = if forward.source.0.is_ipv4() { pool.v4.len() } else { pool.v6.len() };
        let addresses: Vec<IpAddr> = (0..addresses).filter_map(|step| paired(pool, forward.source.0, step)).collect();
        let with = |(address, port): Socket| {
            let source = if echo { (flow.reverse.source.0, port) } else { flow.reverse.source };
            Side { source, destination: (address, port), ..flow.reverse }
        };
        if !echo && forward.source.1 == 0 && forward.destination.1 == 0 {
            let free = addresses.iter().map(|address| with((*address, 0))).find(|side| !self.is_taken(side));
            flow.reverse = free.ok_or(DropReason::FlowConflict)?;
            return Ok(());
        }
        let independent = pool.mapping == Mapping::EndpointIndependent;
        let mapped = self.outside_of(pool, forward.port, forward.source, forward.protocol).filter(|_| independent);
        let is_free = |socket: Socket| match independent {
            true => self.inside_of(socket, forward.protocol).is_none(),
            false => !self.is_taken(&with(socket)),
        };
        let range = pool.ports.first..=pool.ports.last;
        let is_trace = |summary: &FlowSummary| matches!(summary.state.phase, Phase::Reset | Phase::Moved);
        let mut made = arrival.flows.iter().filter(|summary| sides(summary).0 == forward && !is_trace(summary));
        let chosen = made.next().map(|summary| summary.sides.presented);
        let chosen = match (mapped, chosen) {
            (Some(mapped), _) => mapped,
            (None, Some(chosen)) => {
                let step = addresses.iter().position(|address| *address == chosen.0);
                let step = step.unwrap_or_else(|| panic!("{chosen:?} is not of {}", pool.name));
                assert!(range.contains(&chosen.1), "{chosen:?} is not of {}", pool.name);
                assert!(is_free(chosen), "{chosen:?} is another's towards there");
                // A host shows one address as long as that has a port left.
                let few = pool.ports.count() <= 256;
                let fuller =
                    addresses[..step].iter().all(|address| !range.clone().any(|port| is_free((*address, port))));
                assert!(!few || fuller, "{chosen:?}, and there is a free port before");
                chosen
            }
            (None, None) => {
                let mut candidates =
                    addresses.iter().flat_map(|address| range.clone().map(move |port| (*address, port)));
                let free = candidates.clone().find(|socket| is_free(*socket)).ok_or(DropReason::NoFreePort)?;
                if arrival.verdict == Verdict::Dropped(DropReason::FlowConflict) {
                    // A fresh mapping may meet the replies of a flow that was made before there were mappings.
                    let clash = candidates.find(|socket| is_free(*socket) && self.is_taken(&with(*socket)));
                    clash.expect("a conflict with a flow that is there")
                } else {
                    // There has to be a reason that has nothing to do with which port it is.
                    free
                }
            }
        };
        flow.reverse = with(chosen);
        flow.maps_source = independent;
        Ok(())
    }

    /// The endpoint-independent mapping of an outside socket.
    fn inside_of(&self, outside: Socket, protocol: u8) -> Option<(PortId, Socket)> {
        self.flows.iter().filter(|flow| flow.forward.protocol == protocol).find_map(|flow| {
            let source = flow.maps_source && flow.reverse.destination == outside;
            let destination = flow.maps_destination && flow.forward.destination == outside;
            let inside = (flow.forward.port, flow.forward.source);
            source.then_some(inside).or(destination.then_some((flow.reverse.port, flow.reverse.source)))
        })
    }

    /// Whether a mapping lets others in: one of its flows goes on.
    fn is_live(&self, outside: Socket, protocol: u8) -> bool {
        self.flows.iter().any(|flow| flow.is_live() && flow.outsides().any(|known| known == (outside, protocol)))
    }

    /// The mapping of an inside socket in a pool.
    fn outside_of(&self, pool: &Pool, port: PortId, inside: Socket, protocol: u8) -> Option<Socket> {
        self.flows.iter().filter(|flow| flow.forward.protocol == protocol).find_map(|flow| {
            let source = flow.maps_source && (flow.forward.port, flow.forward.source) == (port, inside);
            let destination = flow.maps_destination && (flow.reverse.port, flow.reverse.source) == (port, inside);
            let outside = source.then_some(flow.reverse.destination).filter(|outside| pool.contains(outside.0));
            outside.or(destination.then_some(flow.forward.destination).filter(|outside| pool.contains(outside.0)))
        })
    }

    /// Whether a mapping has a flow towards an address.
    fn knows(&self, outside: (Socket, u8), remote: IpAddr) -> bool {
        self.flows.iter().filter(|flow| flow.is_live() && flow.forward.protocol == outside.1).any(|flow| {
            flow.maps_source && flow.reverse.destination == outside.0 && flow.reverse.source.0 == remote
                || flow.maps_destination
                    && flow.forward.destination == outside.0
                    && flow.reverse.destination.0 == remote
        })
    }

    // -------------------------------------------------------------------------------------------------- changes

    /// What a snapshot would do to the flows.
    pub(crate) fn foresee(&self, snapshot: &Snapshot) -> Counts {
        let mut counts = Counts::default();
        for flow in self.flows.iter().filter(|flow| !flow.is_trace()) {
            match fate(snapshot, flow) {
                Fate::Kept(..) => counts.kept += 1,
                Fate::Reset => counts.reset += 1,
                Fate::Ended | Fate::Moved => counts.moved += 1,
            }
        }
        counts
    }

    /// A flow is decided again; gives the resets that close it.
    fn decide_again(&mut self, place: usize, now: u64) -> Vec<Sending> {
        let generation = self.snapshot.generation;
        let snapshot = self.snapshot.clone();
        let flow = &mut self.flows[place];
        flow.generation = generation;
        if flow.is_trace() {
            return vec![];
        }
        match fate(&snapshot, flow) {
            Fate::Kept(next_hop_type, pool) => {
                (flow.next_hop_type, flow.pool) = (next_hop_type, pool);
                self.counts.kept += 1;
                return vec![];
            }
            Fate::Reset => {
                (flow.maps_source, flow.maps_destination) = (false, false);
                flow.phase = Phase::Reset;
                flow.last = now;
                self.counts.reset += 1;
            }
            fate => {
                (flow.maps_source, flow.maps_destination) = (false, false);
                flow.phase = if fate == Fate::Ended { Phase::Reset } else { Phase::Moved };
                flow.last = now;
                self.counts.moved += 1;
                return vec![];
            }
        }
        let mut resets = vec![];
        for (direction, side) in [flow.forward, flow.reverse].into_iter().enumerate() {
            // Nobody is behind a port that is gone.
            if snapshot.port(side.port).is_none_or(|port| port.kind == PortKind::Vacant) {
                continue;
            }
            for (sequence, acknowledgment) in flow.conversation.resets(direction) {
                resets.push(Sending::Reset { side: back(&side), sequence, acknowledgment });
            }
        }
        resets
    }

    /// Flows have been looked through: those that the node has decided again are decided again here.
    pub(crate) fn sweep(&mut self, now: u64, flows: &[FlowSummary]) -> Vec<Sending> {
        let generation = self.snapshot.generation;
        let mut sent = vec![];
        for place in 0..self.flows.len() {
            let forward = self.flows[place].forward;
            let found = flows.iter().find(|summary| sides(summary).0 == forward);
            let done = found.is_some_and(|summary| u64::from(summary.state.generation) == generation);
            if done && self.flows[place].generation != generation {
                sent.extend(self.decide_again(place, now));
            }
        }
        sent
    }

    // ----------------------------------------------------------------------------------------------------- time

    /// How long a flow lives without a packet.
    fn lifetime(&self, flow: &Flow) -> u64 {
        let lifetimes: &Lifetimes = flow
            .pool
            .and_then(|pool| self.snapshot.pool(pool))
            .map_or(&self.snapshot.lifetimes, |pool| &pool.lifetimes);
        let half_open = flow.conversation != Conversation::default() && !flow.conversation.is_confirmed();
        match flow.phase {
            Phase::Query => lifetimes.query,
            Phase::Datagram => lifetimes.datagram,
            Phase::Opening => lifetimes.opening,
            Phase::Established => lifetimes.established,
            Phase::Closing => lifetimes.closing,
            Phase::Closed => lifetimes.closed,
            Phase::Aborted => lifetimes.aborted,
            Phase::Reset | Phase::Moved => TRACE,
            Phase::Resting if half_open => lifetimes.rest_half_open,
            Phase::Resting => lifetimes.rest,
        }
    }

    /// What is over ends: nothing before its time, and with `all` nothing late. Gives what is sent for it.
    pub(crate) fn expire(&mut self, now: u64, all: bool, flows: &[FlowSummary]) -> Vec<Sending> {
        for place in (0..self.flows.len()).rev() {
            let flow = &self.flows[place];
            if flow.generation != self.snapshot.generation {
                // It is decided again before it ends.
                continue;
            }
            let deadline = flow.last + self.lifetime(flow);
            let ends_by_resting = flow.pool.is_some()
                && !flow.is_trace()
                && !matches!(flow.phase, Phase::Closed | Phase::Aborted | Phase::Resting);
            let found = flows.iter().find(|summary| sides(summary).0 == flow.forward);
            let rests = found.is_some_and(|summary| summary.state.phase == Phase::Resting);
            match found {
                Some(_) if rests && flow.phase != Phase::Resting => {
                    assert!(now >= deadline && ends_by_resting, "rests at {now}, due at {deadline}: {flow:?}");
                    self.flows[place].phase = Phase::Resting;
                    self.flows[place].last = now;
                }
                Some(_) => assert!(!all || now < deadline + LATE, "lives at {now}, due at {deadline}: {flow:?}"),
                None => {
                    assert!(now >= deadline, "is gone at {now}, due at {deadline}: {flow:?}");
                    assert!(!ends_by_resting, "its port does not rest: {flow:?}");
                    self.flows.remove(place);
                    self.expired += 1;
                }
            }
        }
        let due: Vec<(u64, Side)> = self.strangers.iter().copied().filter(|(due, _)| *due <= now).collect();
        self.strangers.retain(|(due, _)| *due > now);
        let live = |side: &Side| self.find(side).is_some_and(|(place, _)| self.flows[place].is_live());
        let unmet = due.iter().filter(|(_, side)| !live(side));
        let told = unmet.filter(|(_, side)| {
            let port = self.snapshot.port(side.port);
            port.is_some_and(
                |port| if side.source.0.is_ipv4() { port.router_v4.is_some() } else { port.router_v6.is_some() },
            )
        });
        told.map(|(_, side)| Sending::Error { port: side.port, to: side.source.0 }).collect()
    }

    /// Fragments that waited too long: learned from how many the node still holds.
    pub(crate) fn expire_fragments(&mut self, now: u64, held: u64) {
        let over: Vec<PiecesKey> =
            self.pieces.iter().filter(|(_, pieces)| now >= pieces.deadline).map(|(key, _)| *key).collect();
        let waiting: u64 = self.pieces.values().map(|pieces| u64::from(pieces.held)).sum();
        for key in over {
            let pieces = self.pieces.remove(&key).unwrap_or_default();
            self.fragments_dropped += u64::from(pieces.held);
        }
        let left: u64 = self.pieces.values().map(|pieces| u64::from(pieces.held)).sum();
        assert_eq!(held, left, "fragments held of {waiting}");
    }

    /// When fragments are not waited for any longer. Nothing is asked near these times, where the node rounds.
    pub(crate) fn fragment_deadlines(&self) -> impl Iterator<Item = u64> {
        self.pieces.values().map(|pieces| pieces.deadline)
    }

    /// Whether nothing but flows is due at a time.
    pub(crate) fn only_flows_are_due(&self, now: u64) -> bool {
        self.fragment_deadlines().all(|deadline| deadline > now) && self.strangers.iter().all(|(due, _)| *due > now)
    }

    /// Fragments that wait for the first of their packet.
    pub(crate) fn held(&self) -> u64 {
        self.pieces.values().map(|pieces| u64::from(pieces.held)).sum()
    }

    /// Whether nothing is left of anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.pieces.is_empty() && self.strangers.is_empty()
    }

    // ------------------------------------------------------------------------------------------------- comparing

    /// The node's flows are the model's, in every respect.
    pub(crate) fn compare(&self, flows: &[FlowSummary], mappings: usize, quota: u32) {
        let of_node: BTreeMap<Side, &FlowSummary> = flows.iter().map(|summary| (sides(summary).0, summary)).collect();
        assert_eq!(of_node.len(), flows.len(), "one flow of one first packet");
        let of_model: BTreeMap<Side, &Flow> = self.flows.iter().map(|flow| (flow.forward, flow)).collect();
        let (node, model): (Vec<_>, Vec<_>) = (of_node.keys().collect(), of_model.keys().collect());
        assert_eq!(node, model, "the flows that there are");
        let mut replies = BTreeSet::new();
        for (side, summary) in &of_node {
            let (flow, state) = (of_model[side], &summary.state);
            assert!(replies.insert(sides(summary).1), "one flow of one translated tuple: {flow:?}");
            let lifetime = (flow.generation == self.snapshot.generation).then(|| self.lifetime(flow));
            let expected = (
                flow.reverse,
                flow.phase,
                flow.packets,
                flow.pool,
                flow.owner,
                flow.next_hop_type,
                flow.generation as u32,
                (flow.maps_source, flow.maps_destination, flow.is_translated(), flow.midway),
                lifetime,
                flow.last.div_ceil(64) * 64,
            );
            let found = (
                sides(summary).1,
                state.phase,
                state.packets,
                state.pool(),
                state.owner,
                state.next_hop_type,
                state.generation,
                (state.maps_source(), state.maps_destination(), state.translated(), state.is_midway()),
                lifetime.map(|_| state.lifetime(&self.snapshot)),
                state.last_seen(),
            );
            assert_eq!(found, expected, "state of {flow:?}");
        }
        let outsides: BTreeSet<(Socket, u8)> = self.flows.iter().flat_map(Flow::outsides).collect();
        assert_eq!(mappings, outsides.len(), "endpoint-independent mappings");
        assert_eq!(quota as usize, self.flows.len(), "flows counted for all workers");
    }
}

/// What becomes of a flow under a snapshot.
fn fate(snapshot: &Snapshot, flow: &Flow) -> Fate {
    let decided = order::decide(
        snapshot,
        &subject(&flow.forward),
        Question { standing: Standing::Established, named: Named::NotYet },
        &mut Silent,
    );
    let decided = decided.ok().filter(|_| !flow.midway || returns(snapshot, flow));
    match decided.and_then(|decision| Some((decision.next_hop_type, keeps(snapshot, flow, &decision)?))) {
        Some((next_hop_type, pool)) => Fate::Kept(next_hop_type, pool),
        None if flow.forward.protocol != protocol::TCP => Fate::Moved,
        None => match flow.phase {
            Phase::Opening if flow.conversation.ends[1].sent_up_to.is_some() => Fate::Reset,
            Phase::Established | Phase::Closing => Fate::Reset,
            _ => Fate::Ended,
        },
    }
}

/// Whether the gateway or an appliance has only passed on what reaches a NIC.
fn is_passed_on(snapshot: &Snapshot, side: &Side, egress: PortId) -> bool {
    let (Some(from), Some(to)) = (snapshot.port(side.port), snapshot.port(egress)) else { return false };
    let appliance = from.kind == PortKind::Nic && from.ip_forwarding && !from.addresses.contains(&side.source.0);
    let reaches = to.kind == PortKind::Nic && to.addresses.contains(&side.destination.0);
    reaches && (from.kind == PortKind::Gateway || appliance)
}

/// Whether the receiver's own packets go where a flow came from.
fn returns(snapshot: &Snapshot, flow: &Flow) -> bool {
    let Some(port) = snapshot.port(flow.reverse.port) else { return false };
    let chosen = route::choose(snapshot, port, &subject(&flow.reverse), &mut Silent);
    chosen.is_ok_and(|chosen| {
        (chosen.egress, chosen.source, chosen.reached) == (flow.forward.port, SourceAction::Keep, Reached::Own)
    })
}

/// The pool that a flow has on, where a decision leaves it as it is.
fn keeps(snapshot: &Snapshot, flow: &Flow, decision: &Decision) -> Option<Option<PoolId>> {
    let (shown, reached) = (flow.reverse.destination.0, flow.reverse.source.0);
    let (arrives, through) = match (decision.reached, decision.presented) {
        (_, Presented::Identity6 { destination, .. }) => (IpAddr::V6(destination) == reached, true),
        (Reached::Own, _) => (flow.forward.destination.0 == reached, true),
        (Reached::Instance(private), _) => (private == reached, true),
        (Reached::Mapping(pool), _) => (serves(snapshot, pool, flow.reverse.port, reached), false),
    };
    let same_way = arrives && (!through || decision.egress == flow.reverse.port);
    let mapping = match decision.reached {
        Reached::Mapping(pool) => Some(pool),
        _ => None,
    };
    let pool_has = |pool: PoolId| snapshot.pool(pool).is_some_and(|pool| pool.contains(shown));
    let keeps = match decision.presented {
        Presented::Own => (shown == flow.forward.source.0).then_some(mapping),
        Presented::OneToOne(address) => (shown == address).then_some(mapping),
        Presented::Identity6 { source, .. } => (shown == IpAddr::V6(source)).then_some(mapping),
        Presented::Pool(pool) => pool_has(pool).then_some(Some(pool)),
    };
    // Open connections to the internet keep the public source that they have while the node has it.
    let internet = decision.next_hop_type == NextHopType::Internet && flow.next_hop_type == NextHopType::Internet;
    let keeps = keeps.or_else(|| {
        if !internet || shown == flow.forward.source.0 {
            return None;
        }
        if let Some(pool) = (0..snapshot.pools.len()).map(|id| PoolId(id as u16)).find(|pool| pool_has(*pool)) {
            return Some(Some(pool));
        }
        let own = (shown, flow.forward.port, flow.forward.source.0);
        snapshot.instances.contains(&own).then_some(None)
    });
    keeps.filter(|_| same_way)
}

/// Whether a pool translates for a NIC's address now.
fn serves(snapshot: &Snapshot, pool: PoolId, port: PortId, address: IpAddr) -> bool {
    let Some(port) = snapshot.port(port) else { return false };
    let outbound = [port.outbound.nat_gateway, port.outbound.default].contains(&Some(pool));
    let endpoint = port.endpoint_sources.contains(&EndpointSource::Snat(pool));
    port.kind == PortKind::Nic && (outbound || endpoint) && (port.ip_forwarding || port.addresses.contains(&address))
}

/// Both sides of a flow of the node.
pub(crate) fn sides(summary: &FlowSummary) -> (Side, Side) {
    let sides = &summary.sides;
    let (protocol, source, destination) = (sides.protocol, sides.source, sides.destination);
    let forward = Side { port: sides.ingress, source, destination, protocol };
    let crosses = source.0.is_ipv4() != sides.reached.0.is_ipv4();
    let protocol = if crosses { beyond(protocol) } else { protocol };
    (forward, Side { port: sides.egress, source: sides.reached, destination: sides.presented, protocol })
}

/// What an IPv4 protocol is in IPv6.
fn beyond(protocol: u8) -> u8 {
    if protocol == protocol::ICMP { protocol::ICMPV6 } else { protocol }
}

pub(crate) fn side_of(port: PortId, parsed: &Parsed) -> Side {
    Side {
        port,
        source: (parsed.source(), parsed.source_port),
        destination: (parsed.destination(), parsed.destination_port),
        protocol: parsed.protocol,
    }
}

fn back(side: &Side) -> Side {
    Side { source: side.destination, destination: side.source, ..*side }
}

fn subject(side: &Side) -> Subject {
    Subject {
        ingress: side.port,
        source: side.source.0,
        destination: side.destination.0,
        protocol: side.protocol,
        source_port: side.source.1,
        destination_port: side.destination.1,
    }
}

fn pieces_key(port: PortId, parsed: &Parsed) -> PiecesKey {
    (port, parsed.source(), parsed.destination(), parsed.protocol, parsed.identification)
}

/// Whether a packet can be one of the other address family (RFC 7915).
fn has_other_form(parsed: &Parsed) -> bool {
    match parsed.protocol {
        protocol::TCP | protocol::UDP => true,
        protocol::ICMP | protocol::ICMPV6 => parsed.fragment == Fragment::None,
        _ => false,
    }
}

/// Whether a TCP segment begins a connection.
fn begins(parsed: &Parsed) -> bool {
    parsed.tcp_flags() & (Parsed::SYN | Parsed::ACK | Parsed::RST) == Parsed::SYN
}

fn dropped(reason: DropReason) -> Expected {
    Expected { verdict: Verdict::Dropped(reason), sent: vec![], releases: false }
}
