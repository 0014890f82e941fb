//! ICMP errors from the network: they go back along the flow of the packet that they quote, or nowhere.

use super::core::Core;
use super::egress::Egress;
use super::flow::{Family, FlowState, Phase};
use super::origin;
use super::record::{About, Event};
use super::redecide::{self, Outcome};
use super::stages;
use super::subject::Subject;
use super::verdict::{DropReason, Verdict};
use super::way::{Packet, Tables};
use crate::packet::cross::cross_error;
use crate::packet::icmp;
use crate::packet::parse::{Parsed, TransportKind};
use crate::packet::rewrite::{self, Translation};
use crate::snapshot::PortId;
use crate::table::flow::{Direction, FlowKey, FlowTable};

/// The way of an ICMP error: back along the flow of the packet that it quotes. It neither refreshes nor changes the
/// flow (RFC 5508 REQ-6).
pub(super) fn way(core: &mut Core, tables: &mut Tables, packet: &mut Packet<'_>, egress: &mut impl Egress) -> Verdict {
    let Some(port) = core.snapshot.port(packet.ingress) else { return Verdict::Dropped(DropReason::UnknownPort) };
    if let Err(reason) = origin::source(port, packet.parsed.source()) {
        return Verdict::Dropped(reason);
    }
    let Some(inner) = icmp::embedded(packet.frame.bytes(), packet.parsed) else {
        return Verdict::Dropped(DropReason::IcmpErrorMalformed);
    };
    // An error goes to the sender of what it is about, nowhere else.
    if packet.parsed.destination() != inner.source() {
        return Verdict::Dropped(DropReason::IcmpErrorMalformed);
    }
    let without_flow = Verdict::Dropped(DropReason::IcmpErrorWithoutFlow);
    // Nobody may complain about an error (RFC 1122 section 3.2.2), which has no identifier: it is of no flow of queries.
    if inner.kind == TransportKind::IcmpError {
        return without_flow;
    }
    if !packet.parsed.is_v4() {
        return way_in(core, &mut tables.v6, packet, &inner, egress).unwrap_or(without_flow);
    }
    if let Some(verdict) = way_in(core, &mut tables.v4, packet, &inner, egress) {
        return verdict;
    }
    let crossing = if core.crosses { way_in(core, &mut tables.v6, packet, &inner, egress) } else { None };
    crossing.unwrap_or(without_flow)
}

/// The way of an error about a packet whose flow is in this table, of this worker or another.
fn way_in<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    packet: &mut Packet<'_>,
    inner: &Parsed,
    egress: &mut impl Egress,
) -> Option<Verdict> {
    // The quoted packet left through this port; its replies would have entered with this key.
    let (source, destination) = (A::from_ip(inner.destination())?, A::from_ip(inner.source())?);
    let port = packet.ingress.0;
    let key = FlowKey::new(source, destination, inner.destination_port, inner.source_port, port, inner.protocol);
    let hash = flows.hash(&key);
    let Some((id, direction)) = flows.lookup_hashed(hash, &key) else {
        return core.owner(hash).filter(|_| packet.may_hand_over).map(Verdict::HandOver);
    };
    egress.stage(|| stages::met(core, flows, id, direction, packet.now).with("the flow of the packet that it quotes"));
    if flows.state(id).is_none_or(|state| state.generation != core.snapshot.generation as u32)
        && redecide::flow(core, flows, id, packet.now, egress) != Outcome::Kept
    {
        return Some(Verdict::Dropped(DropReason::FlowMoved));
    }
    let (out, state) = (flows.key(id, direction.opposite()).copied()?, flows.state(id)?);
    match state.phase {
        Phase::Reset | Phase::Moved => return Some(Verdict::Dropped(DropReason::FlowMoved)),
        Phase::Resting => return Some(Verdict::Dropped(DropReason::PortResting)),
        _ => {}
    }
    // What it quotes is the client's choice, and the resource is not known yet.
    if direction == Direction::Forward && state.is_undecided() {
        return Some(Verdict::Dropped(DropReason::UndecidedMalformed));
    }
    let (translated, outwards) = (state.translated(), state.is_from_inside(direction));
    let Packet { now, ingress, frame, parsed, .. } = packet;
    // As it came: that is what counts as forwarded.
    let bytes = frame.len() as u64;
    if !rewrite::decrement_hop_limit(frame, parsed) {
        return Some(Verdict::Dropped(DropReason::HopLimitExceeded));
    }
    let mut crossed = None;
    if translated {
        let inner_to = Translation {
            source: out.source.to_ip(),
            destination: out.destination.to_ip(),
            source_port: out.source_port,
            destination_port: out.destination_port,
        };
        // Towards the outside every source becomes the public one (RFC 5508 REQ-5). Towards the inside an error of the
        // far end gets that end's address on this side, and a router on the way keeps its own.
        let crosses = inner_to.source.is_ipv4() != parsed.is_v4();
        let far_end = outwards || crosses || parsed.source() == inner.destination();
        let source = if far_end { inner_to.destination } else { parsed.source() };
        let outer = (source, inner_to.source);
        if crosses {
            let identification = core.next_identification();
            match cross_error(frame, parsed, inner, outer, &inner_to, identification) {
                Some(new) => crossed = Some(new),
                None => return Some(Verdict::Dropped(DropReason::Untranslatable)),
            }
        } else {
            rewrite::translate_embedded(frame, parsed, inner, outer, &inner_to);
        }
    }
    let port = PortId(out.port);
    let mtu = core.snapshot.port(port).map_or(usize::MAX, |port| usize::from(port.mtu));
    Some(match core.send(*now, port, frame, crossed.as_ref().unwrap_or(parsed), mtu, egress) {
        Ok(()) => {
            if core.is_logged() {
                let about = About::Packet(Subject::of(*ingress, parsed));
                core.log_packets(Event::Related, about, 1, bytes, *now);
            }
            Verdict::Forwarded(port)
        }
        Err(failure) => Verdict::Dropped(failure.into()),
    })
}
