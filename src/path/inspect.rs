//! Connections whose resource only their client can tell: what passes before it has, and what becomes of them then.
//!
//! The TCP handshake passes, and so do the bytes in which the client tells what it wants, in their order and only once:
//! bytes beyond a gap are dropped, and come again; other bytes in the place of those that were read close the connection,
//! also after the name is known, until the server has acknowledged it. So the server reads the very bytes that were judged
//! here, and not one byte of the client's beyond them reaches a resource that is not allowed. What servers could read
//! otherwise is dropped: segments with a wrong checksum, with urgent data, with data in a SYN, fragments.
//!
//! A connection is that of the client's latest SYN and of the SYN-ACK that takes it. Before that one nothing of the client's
//! passes but its SYN and resets, and then only what acknowledges that SYN-ACK, or what the server has sent since. In the
//! same way only the server's own numbers tell what it has acknowledged, not what is late of a connection before. A SYN with
//! another number asks anew, also where all was decided, and so does a server that takes the same SYN once more; none goes
//! back to a number before the latest. And no connection begins here by anything but a SYN.
//!
//! A server that keeps nothing of a SYN (SYN cookies, RFC 4987 section 3.6) may begin without another one, once it has
//! forgotten a connection. So after a reset that either end may have accepted, and after both have finished, nothing of the
//! client's passes but a SYN; bytes that such a server could take for the start of another stream do not pass a second time;
//! and until it has acknowledged something, an empty segment is at the start of the stream.
//!
//! Multipath TCP, whose numbers are not the order in which bytes are read, is taken out of the handshake, and where it comes
//! all the same before the name is known, it is dropped.
//!
//! A connection that is denied is reset towards both ends at once. One that has not told in 30 seconds is
//! judged as one that tells nothing.
//!
//! Plain HTTP is one request for a connection: a second one could name another resource of the same front end, and so the
//! first byte behind the first request closes the connection; the application asks again in another. A request of which
//! servers may disagree where it ends (chunks, an upgrade) names nothing. Inside TLS nothing can be seen.

use super::answer;
use super::core::Core;
use super::denial::Denial;
use super::egress::Egress;
use super::firewall;
use super::flow::{Family, FlowState, Phase};
use super::log::Denied;
use super::order::{Question, Standing};
use super::policy::{self, Named};
use super::record::Ending;
use super::redecide::{self, Sides, sides};
use super::undecided::{Answered, Key, Read, key_of};
use super::verdict::{DropReason, Verdict};
use super::way::{Packet, Tables};
use crate::packet::checksum;
use crate::packet::frame::Checksum;
use crate::packet::mptcp::has_mptcp;
use crate::packet::parse::{Fragment, Parsed, TransportKind};
use crate::packet::server_name::Unnamed;
use crate::packet::tcp::sequence_span;
use crate::snapshot::{PortId, Snapshot};
use crate::table::flow::{Direction, FlowId, FlowTable};

/// TCP's urgent flag: its byte is not in the stream where it is sent (RFC 6093), so that reading it is a guess.
const URGENT: u8 = 0x20;

/// A packet of a connection whose resource is not known yet. None where it may pass.
#[cold]
pub(super) fn packet<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    packet: &Packet<'_>,
    egress: &mut impl Egress,
) -> Option<Verdict> {
    let forward = *flows.key(id, Direction::Forward)?;
    let key = key_of(&forward);
    let malformed = Some(Verdict::Dropped(DropReason::UndecidedMalformed));
    // What a later fragment carries would be put together with a first one that has passed for lack of data.
    if direction == Direction::Forward && packet.parsed.fragment != Fragment::None {
        return malformed;
    }
    let TransportKind::Tcp { flags, sequence, acknowledgment, .. } = packet.parsed.kind else { return None };
    if direction == Direction::Reverse {
        let answers = flags & (Parsed::SYN | Parsed::RST) == 0 && flags & Parsed::ACK != 0;
        let span = sequence_span(packet.parsed);
        if answers && core.undecided.acknowledged(&key, sequence, span, acknowledgment) {
            core.counters.undecided.set(core.undecided.len() as u64);
            flows.state_mut(id)?.decided(core.undecided.is_bounded(&key));
        }
        return None;
    }
    let data = packet.frame.bytes().get(packet.parsed.payload()..).unwrap_or_default();
    let unsound = packet.frame.offload.checksum == Checksum::Complete
        && checksum::verify(packet.frame.bytes(), packet.parsed) != Some(true);
    if unsound || flags & (Parsed::SYN | Parsed::RST) != 0 && !data.is_empty() {
        return malformed;
    }
    if flags & (Parsed::RST | Parsed::SYN) != 0 {
        return None;
    }
    if !core.undecided.waits(&key) {
        // It had to make room for another.
        return Some(Verdict::Dropped(DropReason::UndecidedFull));
    }
    // Until the server has answered, nobody knows what it would take; and then it takes what acknowledges that answer.
    if !core.undecided.is_answered(&key) {
        return Some(Verdict::Dropped(DropReason::UndecidedOutOfOrder));
    }
    let other = flags & Parsed::ACK == 0 || !core.undecided.is_served(&key, acknowledgment);
    if other || flags & URGENT != 0 || has_mptcp(packet.frame, packet.parsed) {
        return malformed;
    }
    if data.is_empty() {
        return if core.undecided.is_in_place(&key, sequence) { None } else { malformed };
    }
    let (name, unnamed) = match core.undecided.read(&key, sequence, data) {
        Read::Pass => return None,
        Read::Gap => return Some(Verdict::Dropped(DropReason::UndecidedOutOfOrder)),
        Read::Full => return Some(Verdict::Dropped(DropReason::UndecidedFull)),
        Read::Other => {
            let told = Told { named: Named::NotYet, name: None, unnamed: None };
            let reason = DropReason::UndecidedInconsistent;
            return Some(deny(core, flows, id, &told, reason, Some(acknowledgment), packet.now, egress));
        }
        Read::Beyond => return beyond(core, flows, id, &key, Some(acknowledgment), packet.now, egress),
        Read::Name(name) => (Some(name), None),
        Read::Unnamed(why) => (None, Some(why)),
    };
    let resource = name.as_deref().and_then(|name| core.snapshot.resources.named(name));
    let told = Told { named: resource.map_or(Named::Nothing, Named::Resource), name, unnamed };
    match judge(core, flows, id, told.named) {
        Ok(()) => {
            core.undecided.settle(&key, told.named);
            if let Some(name) = &told.name {
                core.log_name::<A>(id, name);
            }
            None
        }
        Err(reason) => Some(deny(core, flows, id, &told, reason, Some(acknowledgment), packet.now, egress)),
    }
}

/// A packet of the client of a connection that is decided, which may say no more, or not this. None where it may pass.
#[cold]
pub(super) fn decided<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    packet: &Packet<'_>,
    egress: &mut impl Egress,
) -> Option<Verdict> {
    let key = key_of(flows.key(id, Direction::Forward)?);
    let TransportKind::Tcp { flags, sequence, acknowledgment, .. } = packet.parsed.kind else { return None };
    let bounded = core.undecided.is_bounded(&key);
    if bounded && packet.parsed.fragment != Fragment::None {
        return Some(Verdict::Dropped(DropReason::UndecidedMalformed));
    }
    if flags & Parsed::RST != 0 {
        return None;
    }
    // A server that keeps nothing of a SYN (RFC 4987 section 3.6) begins by the next segment again, once it has forgotten
    // the connection. After the end nothing passes that it could take, and of the start nothing comes twice: what the
    // server has acknowledged it has.
    let has_data = packet.parsed.payload_len() > 0;
    let state = flows.state(id)?;
    let again = state.is_repeated(packet.parsed) && core.undecided.is_judged(&key, sequence);
    if core.undecided.is_ended(&key) || has_data && (again || state.phase == Phase::Closed) {
        return Some(Verdict::Dropped(DropReason::UndecidedMalformed));
    }
    if !core.undecided.is_beyond(&key, sequence, packet.parsed.payload_len()) {
        return None;
    }
    let seen = (flags & Parsed::ACK != 0).then_some(acknowledgment);
    beyond(core, flows, id, &key, seen, packet.now, egress)
}

/// One end resets an inspected connection, and the other may accept that: until the client has begun another one, nothing
/// more passes. Whether it has is not known here, but a reset by somebody who cannot see the connection is none.
#[cold]
pub(super) fn reset<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    packet: &Packet<'_>,
) {
    let Some(forward) = flows.key(id, Direction::Forward).copied() else { return };
    let TransportKind::Tcp { sequence, .. } = packet.parsed.kind else { return };
    let Some(state) = flows.state_mut(id).filter(|state| state.may_be_reset(direction, sequence)) else { return };
    if !state.is_undecided() {
        state.watch();
    }
    core.undecided.reset(&key_of(&forward));
}

/// Closes a connection that goes on behind the request that it was judged by.
fn beyond<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    key: &Key,
    acknowledgment: Option<u32>,
    now: u64,
    egress: &mut impl Egress,
) -> Option<Verdict> {
    let told = Told { named: core.undecided.named(key), name: None, unnamed: None };
    let reason = DropReason::SecondRequest;
    Some(deny(core, flows, id, &told, reason, acknowledgment, now, egress))
}

/// A SYN of the client of an inspected flow: what the connection named that used these ports says nothing about the one
/// that may begin now. Whether it does the server says. None where it may pass.
#[cold]
pub(super) fn syn<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    packet: &Packet<'_>,
) -> Option<Verdict> {
    let forward = *flows.key(id, Direction::Forward)?;
    let key = key_of(&forward);
    let TransportKind::Tcp { sequence, .. } = packet.parsed.kind else { return None };
    let start = sequence.wrapping_add(1);
    if core.undecided.is_earlier(&key, start) {
        return Some(Verdict::Dropped(DropReason::UndecidedMalformed));
    }
    if core.undecided.start(&key) == Some(start) {
        // Late in the network, or from one that wants the same numbers for another name: hosts take others for another
        // connection (RFC 6528). While nothing has been named it is the first one again.
        if !core.undecided.is_reading(&key) {
            return Some(Verdict::Dropped(DropReason::UndecidedMalformed));
        }
        core.undecided.asked_again(&key);
        return None;
    }
    ask_anew(core, flows, id, start, packet.now)
}

/// A SYN-ACK for the client of an inspected flow. What answers another SYN than the latest is late, or of a connection
/// that the client has given up. None where it may pass.
#[cold]
pub(super) fn syn_ack<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    packet: &Packet<'_>,
) -> Option<Verdict> {
    let key = key_of(flows.key(id, Direction::Forward)?);
    let TransportKind::Tcp { sequence, acknowledgment, .. } = packet.parsed.kind else { return None };
    let first = sequence.wrapping_add(1);
    match core.undecided.answered(&key, first, acknowledgment) {
        Answered::Taken => None,
        // The server may still be with that one, and its client has to know, to reset it.
        Answered::Other if core.undecided.waits(&key) && !core.undecided.is_answered(&key) => None,
        Answered::Other => Some(Verdict::Dropped(DropReason::UndecidedMalformed)),
        Answered::Anew => {
            let verdict = ask_anew(core, flows, id, acknowledgment, packet.now);
            core.undecided.answered(&key, first, acknowledgment);
            verdict
        }
    }
}

/// What the connection named says nothing any more. None where there is room to ask.
fn ask_anew<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    start: u32,
    now: u64,
) -> Option<Verdict> {
    let forward = *flows.key(id, Direction::Forward)?;
    let key = key_of(&forward);
    let application = policy::application(&redecide::subject(&forward))?;
    let state = flows.state_mut(id)?;
    // One that waits has its room.
    if !core.undecided.waits(&key) && !core.undecided.make_room(state.owner) {
        return Some(Verdict::Dropped(DropReason::UndecidedFull));
    }
    if core.is_logged() {
        // What the connection before named is told with its end.
        let before = *state;
        let named = redecide::named(core, &forward, &before);
        core.log_named_before::<A>(id, named);
    }
    core.undecided.begin(now, key, state.owner, application, start);
    core.counters.undecided.set(core.undecided.len() as u64);
    state.undecided();
    None
}

/// What a connection told.
struct Told {
    named: Named,
    name: Option<String>,
    unnamed: Option<Unnamed>,
}

/// Closes a connection by a packet, and says what becomes of that.
#[allow(clippy::too_many_arguments, reason = "what `close` takes")]
fn deny<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    told: &Told,
    reason: DropReason,
    acknowledgment: Option<u32>,
    now: u64,
    egress: &mut impl Egress,
) -> Verdict {
    if core.is_logged() {
        let presented = flows.key(id, Direction::Reverse).map(|key| (key.destination.to_ip(), key.destination_port));
        core.log_denied(Denied { named: told.named, name: told.name.as_deref().map(Box::from), presented });
    }
    close(core, flows, id, told, reason, acknowledgment, now, egress);
    reason.answer().map_or(Verdict::Dropped(reason), Verdict::Answered)
}

/// Whether a flow may have what it wants.
fn judge<A: Family>(core: &Core, flows: &FlowTable<A, FlowState>, id: FlowId, named: Named) -> Result<(), DropReason> {
    let (Some(forward), Some(reverse)) = (flows.key(id, Direction::Forward), flows.key(id, Direction::Reverse)) else {
        return Err(DropReason::UnknownPort);
    };
    let question = Question { standing: Standing::Established, named };
    redecide::judge(&core.snapshot, &sides(forward, reverse), question).map(|_| ())
}

/// Closes a connection that is denied: both ends are reset, and what still comes of it is answered with resets.
/// `acknowledgment` is what the client has acknowledged last.
#[allow(clippy::too_many_arguments, reason = "what both callers know; a struct would only rename it")]
fn close<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    told: &Told,
    reason: DropReason,
    acknowledgment: Option<u32>,
    now: u64,
    egress: &mut impl Egress,
) {
    let (Some(forward), Some(reverse), Some(state)) = (
        flows.key(id, Direction::Forward).copied(),
        flows.key(id, Direction::Reverse).copied(),
        flows.state(id).copied(),
    ) else {
        return;
    };
    if let Some(acknowledgment) = acknowledgment {
        answer::reset_sender(core, &forward, acknowledgment, None, now, egress);
        answer::reset_end(core, Direction::Reverse, &reverse, &state, now, egress);
    } else {
        answer::reset_both(core, &[(Direction::Forward, forward), (Direction::Reverse, reverse)], &state, now, egress);
    }
    if let Some(name) = &told.name {
        core.log_name::<A>(id, name);
    }
    redecide::leave_trace(core, flows, id, (Phase::Reset, told.named), Ending::Denied(reason), now);
    core.undecided.end(&key_of(&forward));
    core.counters.undecided.set(core.undecided.len() as u64);
    let sides = sides(&forward, &reverse);
    let mut denial = of_sides(&core.snapshot, &sides, reason, told.named);
    denial.name.clone_from(&told.name);
    denial.unnamed = told.unnamed;
    core.settings.shared.denials.add(denial);
}

/// A record of a flow that was denied.
pub(super) fn of_sides(snapshot: &Snapshot, sides: &Sides, reason: DropReason, named: Named) -> Denial {
    let endpoint = redecide::way_of(snapshot, sides);
    Denial {
        reason,
        protocol: sides.protocol,
        ingress: sides.ingress,
        source: sides.source,
        presented: Some(sides.presented.0),
        destination: sides.destination,
        endpoint: endpoint.is_some(),
        identity: snapshot.port(sides.ingress).and_then(|port| port.identity).filter(|_| endpoint.is_some()),
        resource: policy::resource_of(snapshot, sides.destination.0, named),
        name: None,
        unnamed: None,
        answered_at: None,
        is_sql: is_sql(snapshot, sides.destination.0),
        generation: snapshot.generation,
    }
}

/// Whether a destination is a database server of Azure SQL.
pub(super) fn is_sql(snapshot: &Snapshot, destination: std::net::IpAddr) -> bool {
    let resource = firewall::of(snapshot, destination).and_then(|(resource, _)| snapshot.resources.get(resource));
    resource.is_some_and(|resource| resource.service == "Microsoft.Sql")
}

/// Judges connections whose time is over, at most `budget`.
pub(super) fn end_waiting(core: &mut Core, tables: &mut Tables, now: u64, budget: usize, egress: &mut impl Egress) {
    for _ in 0..budget {
        let Some(key) = core.undecided.due(now) else { return };
        let found = narrowed(&key).and_then(|key| tables.v4.lookup(&key));
        if let Some((id, Direction::Forward)) = found {
            end_one(core, &mut tables.v4, id, &key, now, egress);
        } else if let Some((id, Direction::Forward)) = tables.v6.lookup(&key) {
            end_one(core, &mut tables.v6, id, &key, now, egress);
        } else {
            core.undecided.end(&key);
        }
    }
}

fn end_one<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    key: &Key,
    now: u64,
    egress: &mut impl Egress,
) {
    // Both have finished, or one has reset it: nobody waits for a verdict.
    if flows.state(id).is_some_and(|state| matches!(state.phase, Phase::Closed | Phase::Aborted)) {
        core.undecided.end(key);
        core.counters.undecided.set(core.undecided.len() as u64);
        return;
    }
    // A server that has not acknowledged in all this time what named it is not there.
    let reading = core.undecided.is_reading(key);
    if reading && judge(core, flows, id, Named::Nothing).is_ok() {
        core.undecided.finish(key, Named::Nothing);
        if let Some(state) = flows.state_mut(id) {
            state.decided(core.undecided.is_bounded(key));
        }
        return;
    }
    let told = Told { named: Named::Nothing, name: None, unnamed: None };
    close(core, flows, id, &told, DropReason::UndecidedTimeout, None, now, egress);
    core.counters.undecided_timeouts.add(1);
}

/// The key of an IPv4 flow.
fn narrowed(key: &Key) -> Option<crate::table::flow::FlowKey<u32>> {
    let narrow = |address: u128| u32::from_ip(address.to_ip());
    Some(crate::table::flow::FlowKey {
        source: narrow(key.source)?,
        destination: narrow(key.destination)?,
        source_port: key.source_port,
        destination_port: key.destination_port,
        port: key.port,
        protocol: key.protocol,
    })
}

/// Makes room for one more connection of a port that waits for a name.
pub(super) fn make_room(core: &mut Core, owner: PortId) -> bool {
    core.undecided.make_room(owner)
}
