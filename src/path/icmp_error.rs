//! ICMP errors from the network: they go back along the flow of the packet that they quote, or nowhere.

use super::core::Core;
use super::egress::Egress;
use super::flow::{Family, FlowState, Phase};
use super::origin;
use super::redecide::{self, Outcome};
use super::verdict::{DropReason, Verdict};
use crate::packet::frame::Frame;
use crate::packet::icmp;
use crate::packet::parse::Parsed;
use crate::packet::rewrite::{self, Translation};
use crate::snapshot::PortId;
use crate::table::flow::{Direction, FlowKey, FlowTable};

/// The way of an ICMP error: back along the flow of the packet that it quotes. It neither refreshes nor changes the
/// flow (RFC 5508 REQ-6).
#[allow(clippy::too_many_arguments, reason = "as for `way`")]
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
    let Some(port) = core.snapshot.port(ingress) else { return Verdict::Dropped(DropReason::UnknownPort) };
    if let Err(reason) = origin::source(port, parsed.source()) {
        return Verdict::Dropped(reason);
    }
    let Some(inner) = icmp::embedded(frame.bytes(), parsed) else {
        return Verdict::Dropped(DropReason::IcmpErrorMalformed);
    };
    // An error goes to the sender of what it is about, nowhere else.
    if parsed.destination() != inner.source() {
        return Verdict::Dropped(DropReason::IcmpErrorMalformed);
    }
    // The quoted packet left through this port; its replies would have entered with this key.
    let (Some(source), Some(destination)) = (A::from_ip(inner.destination()), A::from_ip(inner.source())) else {
        return Verdict::Dropped(DropReason::IcmpErrorMalformed);
    };
    let key = FlowKey::new(source, destination, inner.destination_port, inner.source_port, ingress.0, inner.protocol);
    let hash = flows.hash(&key);
    let Some((id, direction)) = flows.lookup_hashed(hash, &key) else {
        return match core.owner(hash) {
            Some(owner) if may_hand_over => Verdict::HandOver(owner),
            _ => Verdict::Dropped(DropReason::IcmpErrorWithoutFlow),
        };
    };
    if flows.state(id).is_none_or(|state| state.generation != core.snapshot.generation as u32)
        && redecide::flow(core, flows, id, now, egress) != Outcome::Kept
    {
        return Verdict::Dropped(DropReason::FlowMoved);
    }
    let (Some(out), Some(state)) = (flows.key(id, direction.opposite()).copied(), flows.state(id)) else {
        return Verdict::Dropped(DropReason::IcmpErrorWithoutFlow);
    };
    if matches!(state.phase, Phase::Reset | Phase::Moved) {
        return Verdict::Dropped(DropReason::FlowMoved);
    }
    let translated = state.translated;
    if !rewrite::decrement_hop_limit(frame, parsed) {
        return Verdict::Dropped(DropReason::HopLimitExceeded);
    }
    if translated {
        let inner_to = Translation {
            source: out.source.to_ip(),
            destination: out.destination.to_ip(),
            source_port: out.source_port,
            destination_port: out.destination_port,
        };
        // Towards the outside every source becomes the public one (RFC 5508 REQ-5). Towards the inside an error of the
        // far end gets that end's address on this side, and a router on the way keeps its own.
        let outwards = direction == Direction::Forward;
        let source =
            if outwards || parsed.source() == inner.destination() { inner_to.destination } else { parsed.source() };
        rewrite::translate_embedded(frame, parsed, &inner, (source, inner_to.source), &inner_to);
    }
    match egress.send(now, PortId(out.port), frame) {
        Ok(()) => Verdict::Forwarded(PortId(out.port)),
        Err(failure) => Verdict::Dropped(failure.into()),
    }
}
