//! The way of one packet: flow or stages, then replay.

use super::answer;
use super::core::Core;
use super::egress::Egress;
use super::flow::{Family, FlowState, Phase};
use super::icmp_error;
use super::install::install;
use super::observer::Silent;
use super::order;
use super::redecide::{self, Outcome};
use super::subject::Subject;
use super::verdict::{Answer, DropReason, Verdict};
use crate::packet::frame::Frame;
use crate::packet::icmp::IcmpError;
use crate::packet::parse::{Parsed, TransportKind};
use crate::packet::rewrite::{self, Translation};
use crate::packet::segment;
use crate::snapshot::PortId;
use crate::table::flow::{Direction, FlowId, FlowKey, FlowTable};

/// The way of one packet.
#[allow(clippy::too_many_arguments, reason = "the packet with its surroundings; a struct would only rename them")]
pub(super) fn way<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    now: u64,
    ingress: PortId,
    frame: &mut Frame,
    parsed: &Parsed,
    egress: &mut impl Egress,
    may_hand_over: bool,
) -> Verdict {
    if parsed.kind == TransportKind::IcmpError {
        return icmp_error::way(core, flows, now, ingress, frame, parsed, egress, may_hand_over);
    }
    let Some(key) = key_of::<A>(ingress, parsed) else { return Verdict::Dropped(DropReason::Version) };
    let hash = flows.hash(&key);
    if let Some((id, direction)) = flows.lookup_hashed(hash, &key) {
        match hit(core, flows, id, direction, now, parsed, egress) {
            Hit::Replay => {
                core.counters.flow_hits.add(1);
                return replay(core, flows, id, direction, now, ingress, frame, parsed, egress);
            }
            Hit::Verdict(verdict) => return verdict,
            Hit::Miss => {}
        }
    }
    core.counters.flow_misses.add(1);
    if may_hand_over && let Some(owner) = core.owner(hash) {
        return Verdict::HandOver(owner);
    }
    let subject = Subject::of(ingress, parsed);
    let decision = match order::decide(&core.snapshot, &subject, &mut Silent) {
        Ok(decision) => decision,
        Err(DropReason::Unsolicited) if parsed.kind == TransportKind::Fragment => {
            return Verdict::Dropped(DropReason::FragmentWithoutFlow);
        }
        Err(reason) => return Verdict::Dropped(reason),
    };
    if parsed.hop_limit <= 1 {
        return time_exceeded(core, ingress, frame, parsed, now, egress);
    }
    match install(core, flows, key, hash, parsed, &decision, now, may_hand_over) {
        Ok(id) => replay(core, flows, id, Direction::Forward, now, ingress, frame, parsed, egress),
        Err(verdict) => verdict,
    }
}

/// What to do with a packet that met a flow.
enum Hit {
    /// Replay the flow.
    Replay,
    /// The packet has ended.
    Verdict(Verdict),
    /// Treat the packet as the first of a new flow.
    Miss,
}

/// A packet has met a flow: is the flow still good?
#[inline]
fn hit<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    now: u64,
    parsed: &Parsed,
    egress: &mut impl Egress,
) -> Hit {
    let Some(state) = flows.state(id) else { return Hit::Miss };
    let current = state.generation == core.snapshot.generation as u32;
    if current && !matches!(state.phase, Phase::Reset | Phase::Moved) {
        return Hit::Replay;
    }
    if !current {
        match redecide::flow(core, flows, id, now, egress) {
            Outcome::Kept => return Hit::Replay,
            Outcome::Reset => return Hit::Verdict(Verdict::Answered(Answer::Reset)),
            Outcome::Gone => return Hit::Miss,
            Outcome::Trace => {}
        }
    }
    trace(core, flows, id, direction, now, parsed, egress)
}

/// A packet has met what is left of a flow whose path changed.
fn trace<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    now: u64,
    parsed: &Parsed,
    egress: &mut impl Egress,
) -> Hit {
    let (Some(key), Some(state)) = (flows.key(id, direction).copied(), flows.state_mut(id)) else { return Hit::Miss };
    state.last_seen = now;
    let phase = state.phase;
    let (flags, acknowledgment) = match parsed.kind {
        TransportKind::Tcp { flags, acknowledgment, .. } => (flags, acknowledgment),
        _ => (Parsed::SYN, 0),
    };
    let begins = flags & (Parsed::SYN | Parsed::ACK | Parsed::RST) == Parsed::SYN;
    if direction == Direction::Forward {
        if let Err(reason) = order::decide(&core.snapshot, &redecide::subject(&key), &mut Silent) {
            return Hit::Verdict(Verdict::Dropped(reason));
        }
        if begins {
            core.end(flows, id);
            return Hit::Miss;
        }
    }
    let resets = direction == Direction::Forward || phase == Phase::Reset;
    if begins || !resets || flags & Parsed::RST != 0 || flags & Parsed::ACK == 0 {
        return Hit::Verdict(Verdict::Dropped(DropReason::FlowMoved));
    }
    // What the sender acknowledges is exactly the sequence number that it expects: this reset it must accept.
    answer::reset_sender(core, &key, acknowledgment, None, now, egress);
    Hit::Verdict(Verdict::Answered(Answer::Reset))
}

/// Sends a packet as its flow says.
#[allow(clippy::too_many_arguments, reason = "as for `way`")]
#[inline]
fn replay<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    now: u64,
    ingress: PortId,
    frame: &mut Frame,
    parsed: &Parsed,
    egress: &mut impl Egress,
) -> Verdict {
    let Some(out) = flows.key(id, direction.opposite()).copied() else {
        return Verdict::Dropped(DropReason::UnknownPort);
    };
    let port = PortId(out.port);
    let Some(mtu) = core.snapshot.port(port).map(|port| usize::from(port.mtu)) else {
        return Verdict::Dropped(DropReason::UnknownPort);
    };
    if parsed.hop_limit <= 1 {
        return time_exceeded(core, ingress, frame, parsed, now, egress);
    }
    if frame.len() > mtu && segment::wire_size(frame, parsed) > mtu && parsed.dont_fragment {
        let error = IcmpError::PacketTooBig { mtu: mtu as u32 };
        // A service has no router of its own; the receiver's speaks for the network, unless its address is hidden.
        let translated = flows.state(id).is_none_or(|state| state.translated);
        let via = (ingress, if translated { ingress } else { port });
        return if answer::icmp_error(core, error, via, frame, parsed, now, egress) {
            Verdict::Answered(Answer::PacketTooBig)
        } else {
            Verdict::Dropped(DropReason::PacketTooBig)
        };
    }
    rewrite::decrement_hop_limit(frame, parsed);
    let Some(state) = flows.state_mut(id) else { return Verdict::Dropped(DropReason::UnknownPort) };
    if state.translated {
        let to = Translation {
            source: out.destination.to_ip(),
            destination: out.source.to_ip(),
            source_port: out.destination_port,
            destination_port: out.source_port,
        };
        rewrite::translate(frame, parsed, &to);
    }
    let phase_changed = state.follow(direction, parsed, now);
    let bytes = frame.len();
    let result = core.send(now, port, frame, parsed, mtu, egress);
    if result.is_ok() {
        state.count(direction, bytes);
    }
    if phase_changed {
        let deadline = now + state.phase.lifetime();
        flows.set_deadline(id, deadline);
    }
    match result {
        Ok(()) => Verdict::Forwarded(port),
        Err(failure) => Verdict::Dropped(failure.into()),
    }
}

fn time_exceeded(
    core: &mut Core,
    ingress: PortId,
    frame: &Frame,
    parsed: &Parsed,
    now: u64,
    egress: &mut impl Egress,
) -> Verdict {
    if answer::icmp_error(core, IcmpError::TimeExceeded, (ingress, ingress), frame, parsed, now, egress) {
        Verdict::Answered(Answer::TimeExceeded)
    } else {
        Verdict::Dropped(DropReason::HopLimitExceeded)
    }
}

/// The key of a packet that entered through a port.
fn key_of<A: Family>(ingress: PortId, parsed: &Parsed) -> Option<FlowKey<A>> {
    Some(FlowKey::new(
        A::from_ip(parsed.source())?,
        A::from_ip(parsed.destination())?,
        parsed.source_port,
        parsed.destination_port,
        ingress.0,
        parsed.protocol,
    ))
}
