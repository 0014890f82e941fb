//! The way of one packet: flow or stages, then replay.
//!
//! A flow between the address families (`identity6`) is in the IPv6 table, its IPv4 side under IPv4-mapped addresses: an
//! IPv4 packet that misses the IPv4 table looks there, too, where the snapshot has such endpoints.

use super::answer;
use super::core::Core;
use super::denial;
use super::egress::Egress;
use super::firewall;
use super::flow::{Family, FlowState, Phase};
use super::icmp_error;
use super::inspect;
use super::install::{NotMade, Replaces, install};
use super::log::Denied;
use super::observer::Silent;
use super::order::{self, Decision, Question, Standing};
use super::policy::{self, Named};
use super::redecide::{self, Outcome};
use super::room::make_room;
use super::route;
use super::source::{self, Presented, paired};
use super::stages::{self, Told};
use super::subject::Subject;
use super::verdict::{Answer, DropReason, Verdict};
use crate::packet::cross::{cross, is_translatable};
use crate::packet::fragment::fragment_v4;
use crate::packet::frame::{FragmentFacts, Frame};
use crate::packet::icmp::IcmpError;
use crate::packet::mptcp::strip_mptcp;
use crate::packet::mss::clamp_mss;
use crate::packet::parse::{self, Addresses, Fragment, Parsed, TransportKind, protocol};
use crate::packet::rewrite::{self, Translation};
use crate::packet::segment;
use crate::packet::tcp::sequence_span;
use crate::snapshot::{Denial, PortId, PortKind, SourceAction};
use crate::table::flow::{Direction, FlowId, FlowKey, FlowTable};
use crate::table::quota::Exceeded;

/// Bytes that an IPv6 header is longer than an IPv4 header (RFC 7915 section 4.1).
pub(super) const FAMILY_DIFFERENCE: usize = 20;

/// Bytes of an IPv6 fragment header (RFC 8200 section 4.5).
const FRAGMENT_HEADER: usize = 8;

/// The flow tables of a worker.
pub(super) struct Tables {
    pub(super) v4: FlowTable<u32, FlowState>,
    /// IPv6 flows, and those between the families.
    pub(super) v6: FlowTable<u128, FlowState>,
}

/// A packet on its way.
pub(super) struct Packet<'a> {
    pub(super) now: u64,
    pub(super) ingress: PortId,
    pub(super) frame: &'a mut Frame,
    pub(super) parsed: &'a mut Parsed,
    /// Whether it may be handed to another worker; not where another worker has handed it here.
    pub(super) may_hand_over: bool,
    /// The IPv4 identification that it gets where a pool translates it: the same for all fragments of a packet.
    pub(super) identification: Option<u16>,
}

impl Packet<'_> {
    /// Takes what is known of a fragment's packet.
    pub(super) fn know(&mut self, facts: FragmentFacts) {
        self.parsed.source_port = facts.source_port;
        self.parsed.destination_port = facts.destination_port;
        self.identification = Some(facts.identification);
    }
}

/// The way of one packet.
pub(super) fn way(core: &mut Core, tables: &mut Tables, packet: &mut Packet<'_>, egress: &mut impl Egress) -> Verdict {
    if packet.parsed.kind == TransportKind::IcmpError {
        return icmp_error::way(core, tables, packet, egress);
    }
    if packet.parsed.is_v4() {
        if let Some(verdict) = way_in(core, &mut tables.v4, packet, egress) {
            return verdict;
        }
        if core.crosses
            && let Some(verdict) = way_in(core, &mut tables.v6, packet, egress)
        {
            return verdict;
        }
    } else if let Some(verdict) = way_in(core, &mut tables.v6, packet, egress) {
        return verdict;
    }
    if packet.may_hand_over
        && let Some(owner) = owner(core, tables, packet)
    {
        return Verdict::HandOver(owner);
    }
    first(core, tables, packet, egress)
}

/// The other worker that owns the flow of a packet, if one does.
#[inline]
fn owner(core: &Core, tables: &Tables, packet: &Packet<'_>) -> Option<u16> {
    core.settings.shared.directory.as_ref()?;
    let of_v4 = || Some(tables.v4.hash(&key_of::<u32>(packet.ingress, packet.parsed)?));
    let of_v6 = || Some(tables.v6.hash(&key_of::<u128>(packet.ingress, packet.parsed)?));
    if !packet.parsed.is_v4() {
        return core.owner(of_v6()?);
    }
    let within = core.owner(of_v4()?);
    if core.crosses { within.or_else(|| core.owner(of_v6()?)) } else { within }
}

/// The way of a packet whose flow is in this table; none where there is no such flow.
#[inline]
fn way_in<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    packet: &mut Packet<'_>,
    egress: &mut impl Egress,
) -> Option<Verdict> {
    let key = key_of::<A>(packet.ingress, packet.parsed)?;
    let hash = flows.hash(&key);
    let (id, direction) = flows.lookup_hashed(hash, &key)?;
    egress.stage(|| stages::met(core, flows, id, direction, packet.now));
    match hit(core, flows, id, direction, packet, egress) {
        Hit::Replay => {
            core.counters.flow_hits.add(1);
            Some(replay(core, flows, id, direction, packet, egress))
        }
        Hit::Verdict(verdict) => Some(verdict),
        Hit::Miss => None,
    }
}

/// The way of a packet without a flow, and how long it takes: known to the egress, which may have a clock.
#[cold]
fn first(core: &mut Core, tables: &mut Tables, packet: &mut Packet<'_>, egress: &mut impl Egress) -> Verdict {
    core.counters.flow_misses.add(1);
    egress.first_begins();
    let verdict = decide_first(core, tables, packet, egress);
    if let Some(nanoseconds) = egress.first_ended() {
        core.counters.first_packets.add(nanoseconds);
    }
    verdict
}

fn decide_first(core: &mut Core, tables: &mut Tables, packet: &mut Packet<'_>, egress: &mut impl Egress) -> Verdict {
    egress.stage(stages::missed);
    let parsed = &packet.parsed;
    // The ports of a later fragment are known, but only whole packets and first fragments begin anything.
    if parsed.fragment == Fragment::Later {
        return Verdict::Dropped(DropReason::FragmentWithoutFlow);
    }
    let subject = Subject::of(packet.ingress, parsed);
    let decision = match order::decide(&core.snapshot, &subject, Question::NEW, &mut Told(egress)) {
        Ok(decision) => decision,
        // Strangers are told nothing.
        Err(DropReason::EndpointBypassed)
            if core.snapshot.port(packet.ingress).is_some_and(|port| port.kind != PortKind::Internet) =>
        {
            return reset_sender(core, packet, DropReason::EndpointBypassed, Answer::Reset, egress);
        }
        Err(reason) => return refuse(core, packet, reason, egress),
    };
    if parsed.hop_limit <= 1 {
        return time_exceeded(core, packet, egress);
    }
    if matches!(decision.presented, Presented::Identity6 { .. }) && !is_translatable(packet.parsed) {
        return Verdict::Dropped(DropReason::Untranslatable);
    }
    if let Some(verdict) = refuse_midway(core, &decision, packet, egress) {
        return verdict;
    }
    if core.settings.shared.is_draining() && !goes_on(tables, packet) {
        return Verdict::Dropped(DropReason::Draining);
    }
    let mut begun = begin(core, tables, &decision, packet, false, egress);
    let mut made = 0;
    while let Err(NotMade::NoRoom(owner, exceeded)) = begun {
        let others = core.is_one_of_several() && exceeded == Exceeded::Total;
        let kept = if others { core.settings.shared.kept(&core.snapshot) } else { 0 };
        if made > kept {
            break;
        }
        if make_room(core, tables, packet, owner, exceeded) {
            made += 1;
            begun = begin(core, tables, &decision, packet, false, egress);
            continue;
        }
        if others {
            begun = begin(core, tables, &decision, packet, true, egress);
        }
        break;
    }
    let reason = match begun {
        Ok(verdict) => return verdict,
        Err(NotMade::NoRoom(_, Exceeded::Owner)) => DropReason::FlowLimitOfNic,
        Err(NotMade::NoRoom(_, Exceeded::Total)) => DropReason::FlowTableFull,
        Err(NotMade::Verdict(Verdict::Dropped(reason))) => reason,
        Err(NotMade::Verdict(verdict)) => return verdict,
    };
    egress.stage(|| stages::dropped("install", reason));
    // RFC 5508 REQ-8: whoever cannot get out is told.
    if matches!(reason, DropReason::NoFreePort | DropReason::FlowTableFull | DropReason::FlowLimitOfNic) {
        let Packet { now, ingress, frame, parsed, .. } = packet;
        let error = IcmpError::AdministrativelyProhibited;
        answer::icmp_error(core, error, *ingress, frame.bytes(), parsed, *now, egress);
    }
    refuse(core, packet, reason, egress)
}

/// Whether a packet that begins a flow is of a conversation that there was: one without connections, which a change moved.
fn goes_on(tables: &Tables, packet: &Packet<'_>) -> bool {
    packet.parsed.protocol != protocol::TCP && (met(&tables.v4, packet).is_some() || met(&tables.v6, packet).is_some())
}

/// A packet begins no flow. Whom policies and firewalls deny is told at once, and so are people.
fn refuse(core: &mut Core, packet: &Packet<'_>, reason: DropReason, egress: &mut impl Egress) -> Verdict {
    remember_unsolicited(core, packet, reason);
    let Some(answer) = reason.answer() else { return Verdict::Dropped(reason) };
    let Packet { now, ingress, frame, parsed, .. } = packet;
    let denial = denied(core, *ingress, parsed, reason);
    if core.is_logged() {
        // Which port a pool would have picked nobody knows.
        let port = |address| if core.snapshot.pool_of(address).is_some() { 0 } else { parsed.source_port };
        let presented = denial.presented.map(|address| (address, port(address)));
        core.log_denied(Denied { presented, ..Denied::default() });
    }
    core.settings.shared.denials.add(denial);
    let firewall =
        (reason == DropReason::FirewallDenied).then(|| firewall::of(&core.snapshot, parsed.destination())).flatten();
    let prohibited = firewall.is_some_and(|(_, firewall)| firewall.denial == Denial::Prohibited);
    let told = match parsed.kind {
        TransportKind::Tcp { flags, .. } if flags & Parsed::RST != 0 => false,
        TransportKind::Tcp { flags, sequence, acknowledgment, .. } if !prohibited => {
            let Some(key) = key_of::<u128>(*ingress, parsed) else { return Verdict::Dropped(reason) };
            // RFC 9293 section 3.10.7.1, as a host would that has no such port.
            let (number, acknowledged) = if flags & Parsed::ACK != 0 {
                (acknowledgment, None)
            } else {
                (0, Some(sequence.wrapping_add(sequence_span(parsed))))
            };
            answer::reset_sender(core, &key, number, acknowledged, *now, egress)
        }
        _ => {
            let error = IcmpError::AdministrativelyProhibited;
            answer::icmp_error(core, error, *ingress, frame.bytes(), parsed, *now, egress)
        }
    };
    if told { Verdict::Answered(answer) } else { Verdict::Dropped(reason) }
}

/// A record of a packet that begins no flow.
fn denied(core: &Core, ingress: PortId, parsed: &Parsed, reason: DropReason) -> denial::Denial {
    let snapshot = &core.snapshot;
    let subject = Subject::of(ingress, parsed);
    let port = snapshot.port(ingress);
    let chosen = port.and_then(|port| route::choose(snapshot, port, &subject, &mut Silent).ok());
    let endpoint = chosen.is_some_and(|chosen| matches!(chosen.source, SourceAction::Endpoint(_)));
    let presented = port.zip(chosen).and_then(|(port, chosen)| {
        let presented = source::choose(snapshot, port, &subject, chosen.source, chosen.egress, &mut Silent).ok()?;
        match presented {
            Presented::Own => Some(subject.source),
            Presented::OneToOne(address) => Some(address),
            Presented::Identity6 { source, .. } => Some(source.into()),
            Presented::Pool(pool) => paired(snapshot.pool(pool)?, subject.source, 0),
        }
    });
    denial::Denial {
        reason,
        protocol: parsed.protocol,
        ingress,
        source: (parsed.source(), parsed.source_port),
        presented,
        destination: (parsed.destination(), parsed.destination_port),
        endpoint,
        identity: port.and_then(|port| port.identity).filter(|_| endpoint),
        resource: policy::resource_of(snapshot, parsed.destination(), Named::NotYet),
        name: None,
        unnamed: None,
        answered_at: None,
        is_sql: inspect::is_sql(snapshot, parsed.destination()),
        generation: snapshot.generation,
    }
}

/// Makes the flow of a first packet, in place of the trace that it met, if it met one, and sends the packet.
fn begin(
    core: &mut Core,
    tables: &mut Tables,
    decision: &Decision,
    packet: &mut Packet<'_>,
    kept_room: bool,
    egress: &mut impl Egress,
) -> Result<Verdict, NotMade> {
    let (v4, v6) = (met(&tables.v4, packet), met(&tables.v6, packet));
    let owner =
        v4.and_then(|id| tables.v4.state(id)).or(v6.and_then(|id| tables.v6.state(id))).map(|state| state.owner);
    let crosses = matches!(decision.presented, Presented::Identity6 { .. });
    // Nothing has become of the packet before its flow is there: until then the trace keeps others out.
    if packet.parsed.is_v4() && !crosses {
        let beyond = core.crosses.then_some(&tables.v6);
        let replaces = Replaces { id: v4, owner, beyond, kept_room };
        let id = install(core, &mut tables.v4, decision, packet, &replaces, &mut Told(egress))?;
        if let Some(trace) = v6 {
            core.end(&mut tables.v6, trace, packet.now);
        }
        return Ok(begun(core, &mut tables.v4, id, packet, egress));
    }
    let replaces = Replaces { id: v6, owner, beyond: None, kept_room };
    let id = install(core, &mut tables.v6, decision, packet, &replaces, &mut Told(egress))?;
    if let Some(trace) = v4 {
        core.end(&mut tables.v4, trace, packet.now);
    }
    Ok(begun(core, &mut tables.v6, id, packet, egress))
}

/// What a first packet met in a table: the trace of a flow that moved, or nothing.
pub(super) fn met<A: Family>(flows: &FlowTable<A, FlowState>, packet: &Packet<'_>) -> Option<FlowId> {
    flows.lookup(&key_of(packet.ingress, packet.parsed)?).map(|(id, _)| id)
}

fn begun<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    packet: &mut Packet<'_>,
    egress: &mut impl Egress,
) -> Verdict {
    egress.stage(|| stages::installed(core, flows, id));
    if flows.state(id).is_some_and(FlowState::is_undecided) {
        let verdict = inspect::packet(core, flows, id, Direction::Forward, packet, egress);
        egress.stage(|| stages::inspected(verdict.is_none()));
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    replay(core, flows, id, Direction::Forward, packet, egress)
}

/// A SYN from outside to a translated address may be answered later.
fn remember_unsolicited(core: &mut Core, packet: &Packet<'_>, reason: DropReason) {
    let flags = packet.parsed.tcp_flags();
    if reason == DropReason::NoMapping && flags & (Parsed::SYN | Parsed::ACK | Parsed::RST) == Parsed::SYN {
        core.unsolicited.remember(packet.now, packet.ingress, packet.frame.bytes());
    }
}

/// TCP that begins no connection gets no translated port: its mapping has ended, and the other end would not know the new
/// one. Nor can it be asked which resource it wants: what it has said so far nobody knows here. Its sender is told by a
/// reset, as Azure's NAT gateway does.
fn refuse_midway(
    core: &mut Core,
    decision: &Decision,
    packet: &Packet<'_>,
    egress: &mut impl Egress,
) -> Option<Verdict> {
    let asked = decision.inspect.is_some() || matches!(decision.presented, Presented::Pool(_));
    if !asked || packet.parsed.protocol != protocol::TCP {
        return None;
    }
    if begins_connection(packet.parsed) {
        return None;
    }
    Some(reset_sender(core, packet, DropReason::TcpWithoutFlow, Answer::FlowEnded, egress))
}

/// Resets the sender of a packet by what it acknowledges: exactly the sequence number that it expects.
fn reset_sender(
    core: &mut Core,
    packet: &Packet<'_>,
    otherwise: DropReason,
    answer: Answer,
    egress: &mut impl Egress,
) -> Verdict {
    let TransportKind::Tcp { flags, acknowledgment, .. } = packet.parsed.kind else {
        return Verdict::Dropped(otherwise);
    };
    if flags & Parsed::RST != 0 || flags & Parsed::ACK == 0 {
        return Verdict::Dropped(otherwise);
    }
    let Some(key) = key_of::<u128>(packet.ingress, packet.parsed) else { return Verdict::Dropped(otherwise) };
    if answer::reset_sender(core, &key, acknowledgment, None, packet.now, egress) {
        Verdict::Answered(answer)
    } else {
        Verdict::Dropped(otherwise)
    }
}

/// What to do with a packet that met a flow.
enum Hit {
    /// Replay the flow.
    Replay,
    /// The packet has ended.
    Verdict(Verdict),
    /// Treat the packet as the first of a new flow, which takes the place of what it met.
    Miss,
}

/// A packet has met a flow: is the flow still good?
#[inline]
fn hit<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    packet: &Packet<'_>,
    egress: &mut impl Egress,
) -> Hit {
    let Some(state) = flows.state(id) else { return Hit::Miss };
    let current = state.generation == core.snapshot.generation as u32;
    let asked = state.is_watched() || state.is_inspected() && is_telling(state, direction, packet.parsed);
    if current && state.is_live() && !asked && packet.parsed.fragment == Fragment::None {
        return Hit::Replay;
    }
    unusual(core, flows, id, direction, packet, egress)
}

/// Whether a packet of a connection that has named what it wants may be of another one on its ports: a SYN or what follows a
/// reset, and bytes that its server has already.
#[inline]
fn is_telling(state: &FlowState, direction: Direction, parsed: &Parsed) -> bool {
    parsed.tcp_flags() & (Parsed::SYN | Parsed::RST) != 0
        || direction == Direction::Forward && state.is_repeated(parsed)
}

/// A packet has met a flow of an older generation or near its end, or is a fragment.
#[cold]
fn unusual<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    packet: &Packet<'_>,
    egress: &mut impl Egress,
) -> Hit {
    let Some(state) = flows.state(id) else { return Hit::Miss };
    if state.generation != core.snapshot.generation as u32 {
        if egress.observes() {
            tell_why(core, flows, id, egress);
        }
        let outcome = redecide::flow(core, flows, id, packet.now, egress);
        egress.stage(|| stages::decided_again(core, outcome));
        match outcome {
            Outcome::Kept | Outcome::Trace => {}
            Outcome::Reset => return Hit::Verdict(Verdict::Answered(Answer::Reset)),
            Outcome::Gone => return Hit::Miss,
        }
    }
    let Some(state) = flows.state_mut(id) else { return Hit::Miss };
    let pool = state.pool().and_then(|pool| core.snapshot.pool(pool));
    let refuses_fragments = packet.parsed.fragment != Fragment::None
        && pool.is_some_and(|pool| pool.tcp_udp_only || packet.parsed.protocol == protocol::SCTP);
    if refuses_fragments {
        return Hit::Verdict(Verdict::Dropped(DropReason::FragmentNotTranslatable));
    }
    let begins = begins_connection(packet.parsed);
    let trace_only = matches!(state.phase, Phase::Reset | Phase::Moved);
    if packet.parsed.tcp_flags() & Parsed::SYN != 0 && state.is_inspected() && !trace_only {
        let verdict = match direction {
            Direction::Forward if begins => inspect::packet(core, flows, id, direction, packet, egress)
                .or_else(|| inspect::syn(core, flows, id, packet)),
            Direction::Forward => Some(Verdict::Dropped(DropReason::UndecidedMalformed)),
            Direction::Reverse if begins => None,
            Direction::Reverse => inspect::syn_ack(core, flows, id, packet),
        };
        if let Some(verdict) = verdict {
            return Hit::Verdict(verdict);
        }
    }
    let Some(state) = flows.state_mut(id) else { return Hit::Miss };
    if packet.parsed.tcp_flags() & Parsed::RST != 0 && state.is_inspected() && !trace_only {
        inspect::reset(core, flows, id, direction, packet);
    }
    let Some(state) = flows.state_mut(id) else { return Hit::Miss };
    match state.phase {
        Phase::Reset | Phase::Moved => trace(core, flows, id, direction, packet, egress),
        // What has ended does not begin anew, neither where a port rests nor by the same ports.
        Phase::Closed | Phase::Aborted if begins && core.settings.shared.is_draining() => {
            Hit::Verdict(Verdict::Dropped(DropReason::Draining))
        }
        Phase::Resting
            if core.settings.shared.is_draining()
                && state.is_from_inside(direction)
                && (begins || packet.parsed.protocol != protocol::TCP) =>
        {
            Hit::Verdict(Verdict::Dropped(DropReason::Draining))
        }
        Phase::Resting if !state.is_from_inside(direction) => {
            remember_unsolicited(core, packet, DropReason::NoMapping);
            Hit::Verdict(Verdict::Dropped(DropReason::PortResting))
        }
        Phase::Resting if packet.parsed.protocol == protocol::TCP && !begins => {
            Hit::Verdict(reset_sender(core, packet, DropReason::TcpWithoutFlow, Answer::FlowEnded, egress))
        }
        Phase::Resting => {
            if core.is_logged() {
                core.log_anew(flows, id, FlowState::first_phase(packet.parsed), packet.now);
            }
            let Some(state) = flows.state_mut(id) else { return Hit::Miss };
            // Its port is still the inside host's.
            state.begin(packet.parsed, packet.now);
            changed(core, flows, id, packet.now, false);
            Hit::Replay
        }
        // After the end the outside opens nothing through a pool's port.
        Phase::Closed | Phase::Aborted if begins && !state.is_from_inside(direction) && state.pool().is_some() => {
            remember_unsolicited(core, packet, DropReason::NoMapping);
            Hit::Verdict(Verdict::Dropped(DropReason::NoMapping))
        }
        _ if state.is_undecided() => {
            let verdict = inspect::packet(core, flows, id, direction, packet, egress);
            egress.stage(|| stages::inspected(verdict.is_none()));
            verdict.map_or(Hit::Replay, Hit::Verdict)
        }
        _ if state.is_inspected() && direction == Direction::Forward && !begins => {
            let verdict = inspect::decided(core, flows, id, packet, egress);
            egress.stage(|| stages::inspected(verdict.is_none()));
            verdict.map_or(Hit::Replay, Hit::Verdict)
        }
        _ => Hit::Replay,
    }
}

/// Tells the stages by which a flow of an older generation is decided again, which [`redecide::flow`] runs silently for all
/// flows alike. Traces of flows are not decided again.
#[cold]
fn tell_why<A: Family>(core: &Core, flows: &FlowTable<A, FlowState>, id: FlowId, egress: &mut impl Egress) {
    let (Some(forward), Some(state)) = (flows.key(id, Direction::Forward), flows.state(id)) else { return };
    if matches!(state.phase, Phase::Reset | Phase::Moved) {
        return;
    }
    let question = Question { standing: Standing::Established, named: redecide::named(core, forward, state) };
    // What becomes of the flow is not decided here.
    let _ = order::decide(&core.snapshot, &redecide::subject(forward), question, &mut Told(egress));
}

/// A packet has met what is left of a flow whose path changed. It stays until another flow is in its place: what begins
/// none leaves the way closed to packets of the old path.
fn trace<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    packet: &Packet<'_>,
    egress: &mut impl Egress,
) -> Hit {
    let (Some(key), Some(state)) = (flows.key(id, direction).copied(), flows.state(id)) else { return Hit::Miss };
    let phase = state.phase;
    let begins = !matches!(packet.parsed.kind, TransportKind::Tcp { .. }) || begins_connection(packet.parsed);
    if begins && (direction == Direction::Forward || is_others(core, flows, id)) {
        return Hit::Miss;
    }
    if direction == Direction::Forward
        && let Err(reason) = order::decide(&core.snapshot, &redecide::subject(&key), Question::NEW, &mut Told(egress))
    {
        return Hit::Verdict(if phase == Phase::Reset {
            reset_sender(core, packet, reason, Answer::Reset, egress)
        } else {
            Verdict::Dropped(reason)
        });
    }
    let resets = direction == Direction::Forward || phase == Phase::Reset;
    if begins || !resets {
        return Hit::Verdict(Verdict::Dropped(DropReason::FlowMoved));
    }
    Hit::Verdict(reset_sender(core, packet, DropReason::FlowMoved, Answer::Reset, egress))
}

/// Whether a trace is of a flow that may have been the receiver's own: it begins anew as well as the first sender does.
fn is_others<A: Family>(core: &Core, flows: &FlowTable<A, FlowState>, id: FlowId) -> bool {
    let (Some(forward), Some(reverse), Some(state)) =
        (flows.key(id, Direction::Forward), flows.key(id, Direction::Reverse), flows.state(id))
    else {
        return false;
    };
    let (subject, egress) = (redecide::subject(forward), PortId(reverse.port));
    let port = core.snapshot.port(subject.ingress);
    state.is_midway() || port.is_some_and(|port| route::bypasses_endpoint(&core.snapshot, port, &subject, egress))
}

/// Sends a packet as its flow says.
#[inline]
fn replay<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    packet: &mut Packet<'_>,
    egress: &mut impl Egress,
) -> Verdict {
    let (Some(out), Some(state)) = (flows.key(id, direction.opposite()).copied(), flows.state(id)) else {
        return Verdict::Dropped(DropReason::UnknownPort);
    };
    let port = PortId(out.port);
    let Some(mtu) = core.snapshot.port(port).map(|port| usize::from(port.mtu)) else {
        return Verdict::Dropped(DropReason::UnknownPort);
    };
    if packet.parsed.hop_limit <= 1 {
        return time_exceeded(core, packet, egress);
    }
    let translated = state.translated();
    let crosses = translated && out.source.to_ip().is_ipv4() != packet.parsed.is_v4();
    let room = if !crosses {
        mtu
    } else if !packet.parsed.is_v4() {
        mtu.saturating_add(FAMILY_DIFFERENCE)
    } else if packet.parsed.fragment == Fragment::None {
        mtu.saturating_sub(FAMILY_DIFFERENCE)
    } else {
        mtu.saturating_sub(FAMILY_DIFFERENCE + FRAGMENT_HEADER)
    };
    let Packet { now, ingress, frame, parsed, .. } = packet;
    let (now, ingress) = (*now, *ingress);
    let too_big = frame.len() > room && segment::wire_size(frame, parsed) > room;
    if too_big && parsed.dont_fragment {
        let error = IcmpError::PacketTooBig { mtu: room as u32 };
        // A service has no router of its own; the receiver's speaks for the network. Where that is hidden behind another
        // address, the host speaks for itself, in the name that the sender calls it by.
        let receivers = || answer::router(core, port, parsed).filter(|_| !translated);
        let from = answer::router(core, ingress, parsed).or_else(receivers).unwrap_or_else(|| parsed.destination());
        return if answer::icmp_error_from(core, error, (from, ingress), frame.bytes(), parsed, now, egress) {
            Verdict::Answered(Answer::PacketTooBig)
        } else {
            Verdict::Dropped(DropReason::PacketTooBig)
        };
    }
    if parsed.tcp_flags() & Parsed::SYN != 0 {
        clamp(core, ingress, room, frame, parsed);
        if state.is_inspected() {
            strip_mptcp(frame, parsed);
        }
    }
    egress.stage(|| stages::rewritten(parsed, &out, translated));
    rewrite::decrement_hop_limit(frame, parsed);
    let bytes = frame.len();
    let mut crossed = None;
    if translated {
        let to = Translation {
            source: out.destination.to_ip(),
            destination: out.source.to_ip(),
            source_port: out.destination_port,
            destination_port: out.source_port,
        };
        if crosses && too_big {
            let identification = packet.identification.unwrap_or_else(|| core.next_identification());
            return cross_in_fragments(core, flows, id, direction, packet, (port, mtu), &to, identification, egress);
        } else if crosses {
            let identification = packet.identification.unwrap_or_else(|| core.next_identification());
            match cross(frame, parsed, &to, identification) {
                Some(new) => crossed = Some(new),
                None => return Verdict::Dropped(DropReason::Untranslatable),
            }
        } else {
            rewrite::translate(frame, parsed, &to);
            let by_pool = match direction {
                Direction::Forward => state.pool().is_some(),
                Direction::Reverse => state.maps_destination(),
            };
            let shared = by_pool && !parsed.dont_fragment;
            if shared && let Addresses::V4 { .. } = parsed.addresses {
                let count = segment::segment_count(frame, parsed);
                let identification = packet.identification.unwrap_or_else(|| core.identifications(count));
                rewrite::set_identification(frame, parsed, identification);
            }
        }
    }
    if core.is_logged() && begins_connection(parsed) {
        core.log_syn(flows, (id, direction), parsed, now);
    }
    let Some(state) = flows.state_mut(id) else { return Verdict::Dropped(DropReason::UnknownPort) };
    let (transient, live) = (state.is_transient(), state.is_live());
    let phase_changed = state.follow(direction, parsed, now);
    let result = core.send(now, port, frame, crossed.as_ref().unwrap_or(parsed), mtu, egress);
    if result.is_ok() {
        state.count(direction, bytes);
    }
    if phase_changed || transient != state.is_transient() {
        changed(core, flows, id, now, live);
    }
    match result {
        Ok(()) => Verdict::Forwarded(port),
        Err(failure) => Verdict::Dropped(failure.into()),
    }
}

/// The phase of a flow has changed: its timer does, and whether its mapping lets others in. `live` is how it was before.
#[cold]
fn changed<A: Family>(core: &mut Core, flows: &mut FlowTable<A, FlowState>, id: FlowId, now: u64, live: bool) {
    let (Some(forward), Some(reverse), Some(state)) =
        (flows.key(id, Direction::Forward), flows.key(id, Direction::Reverse), flows.state(id).copied())
    else {
        return;
    };
    if live != state.is_live() {
        core.settings.shared.set_live(forward, reverse, &state);
    }
    flows.set_deadline(id, now + state.lifetime(&core.snapshot), state.is_transient());
    if core.is_logged() {
        core.log_change(flows, id, now);
    }
}

/// Sends an IPv4 packet that may be fragmented as IPv6 fragments: routers of IPv6 do not fragment, a translator does (RFC
/// 7915 section 4.1). They keep its identification, as fragments of the same packet do that fit uncut.
#[cold]
#[allow(clippy::too_many_arguments, reason = "what `replay` knows; a struct would only rename it")]
fn cross_in_fragments<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    packet: &mut Packet<'_>,
    (port, mtu): (PortId, usize),
    to: &Translation,
    identification: u16,
    egress: &mut impl Egress,
) -> Verdict {
    let Packet { now, frame, parsed, .. } = packet;
    let bytes = frame.len();
    let mut result = Ok(());
    let Core { pieces, scratch, .. } = core;
    let mut send = |piece: &mut Frame| {
        let crossed = parse::parse(piece.bytes()).ok().and_then(|parsed| cross(piece, &parsed, to, identification));
        let sent = match crossed {
            Some(_) => egress.send(*now, port, piece).map_err(DropReason::from),
            None => Err(DropReason::Untranslatable),
        };
        result = result.and(sent);
    };
    // What fits whole needs no fragment header.
    let (whole, room) =
        (mtu.saturating_sub(FAMILY_DIFFERENCE), mtu.saturating_sub(FAMILY_DIFFERENCE + FRAGMENT_HEADER));
    let mut cut = |frame: &mut Frame, parsed: &Parsed| {
        if parsed.fragment == Fragment::None && frame.len() <= whole {
            send(frame);
            return 1;
        }
        fragment_v4(frame, parsed, room, pieces, &mut send)
    };
    let count = if frame.offload.segmentation.is_some() {
        let mut count = 0;
        segment::segment(frame, parsed, scratch, |one| {
            if let Ok(parsed) = parse::parse(one.bytes()) {
                count += cut(one, &parsed);
            }
        });
        count
    } else {
        cut(frame, parsed)
    };
    if count == 0 {
        return Verdict::Dropped(DropReason::PacketTooBig);
    }
    if let Some(state) = flows.state_mut(id) {
        let (transient, live) = (state.is_transient(), state.is_live());
        let phase_changed = state.follow(direction, parsed, *now);
        if result.is_ok() {
            state.count(direction, bytes);
        }
        if phase_changed || transient != state.is_transient() {
            changed(core, flows, id, *now, live);
        }
    }
    result.map_or_else(Verdict::Dropped, |()| Verdict::Forwarded(port))
}

/// Lowers the segment size that a SYN offers to what fits the narrower of the two ports, so that no packet of the
/// connection is too big here (RFC 4459 section 3.2).
#[cold]
fn clamp(core: &Core, ingress: PortId, room: usize, frame: &mut Frame, parsed: &Parsed) {
    const HEADERS_V4: usize = 20 + 20;
    const HEADERS_V6: usize = 40 + 20;
    let headers = if parsed.is_v4() { HEADERS_V4 } else { HEADERS_V6 };
    let narrow = core.snapshot.port(ingress).map_or(room, |port| room.min(usize::from(port.mtu)));
    clamp_mss(frame, parsed, u16::try_from(narrow.saturating_sub(headers)).unwrap_or(u16::MAX));
}

/// Whether a packet is TCP that begins a connection.
#[inline]
pub(super) fn begins_connection(parsed: &Parsed) -> bool {
    parsed.tcp_flags() & (Parsed::SYN | Parsed::ACK | Parsed::RST) == Parsed::SYN
}

#[cold]
pub(super) fn time_exceeded(core: &mut Core, packet: &Packet<'_>, egress: &mut impl Egress) -> Verdict {
    let Packet { now, ingress, frame, parsed, .. } = packet;
    if answer::icmp_error(core, IcmpError::TimeExceeded, *ingress, frame.bytes(), parsed, *now, egress) {
        Verdict::Answered(Answer::TimeExceeded)
    } else {
        Verdict::Dropped(DropReason::HopLimitExceeded)
    }
}

/// The key of a packet that entered through a port; none where the table is of the other family.
#[inline]
pub(super) fn key_of<A: Family>(ingress: PortId, parsed: &Parsed) -> Option<FlowKey<A>> {
    Some(FlowKey::new(
        A::from_ip(parsed.source())?,
        A::from_ip(parsed.destination())?,
        parsed.source_port,
        parsed.destination_port,
        ingress.0,
        parsed.protocol,
    ))
}
