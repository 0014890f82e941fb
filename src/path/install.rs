//! The last step of a first packet: both directions of its flow are installed, with a translated port where the source
//! address changes.

use super::core::Core;
use super::flow::{Family, FlowState};
use super::order::Decision;
use super::source::Presented;
use super::verdict::{DropReason, Verdict};
use crate::packet::parse::{Parsed, TransportKind};
use crate::table::flow::{FlowId, FlowKey, FlowTable, Refused};

/// Ports that are tried for a translation before the packet is dropped: a range that is nine tenths full fails one
/// packet in 10^11 (0.9^256), and a full one costs a packet some 10 µs.
const PORT_ATTEMPTS: u32 = 256;

/// Makes the flow that a decision asks for.
#[allow(clippy::too_many_arguments, reason = "as for `way`")]
pub(super) fn install<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    forward: FlowKey<A>,
    forward_hash: u64,
    parsed: &Parsed,
    decision: &Decision,
    now: u64,
    may_hand_over: bool,
) -> Result<FlowId, Verdict> {
    let dropped = |reason| Err(Verdict::Dropped(reason));
    let mut reverse = FlowKey::new(
        forward.destination,
        forward.source,
        forward.destination_port,
        forward.source_port,
        decision.egress.0,
        forward.protocol,
    );
    let translated = match decision.presented {
        Presented::Own => false,
        Presented::Public(_) if parsed.kind == TransportKind::Fragment => {
            return dropped(DropReason::FragmentNotTranslatable);
        }
        Presented::Public(address) => {
            let Some(address) = A::from_ip(address) else { return dropped(DropReason::NoOutboundAddress) };
            reverse.destination = address;
            if forward.source_port != 0 || forward.destination_port != 0 {
                let echo = matches!(parsed.kind, TransportKind::IcmpEcho { .. });
                let random = core.random.u64(..);
                let is_free = |port| {
                    let candidate = with_translated_port(reverse, port, echo);
                    let hash = flows.hash(&candidate);
                    flows.lookup_hashed(hash, &candidate).is_none() && core.owner(hash).is_none()
                };
                let Some(port) = core.settings.port_range.pick(random, PORT_ATTEMPTS, is_free) else {
                    return dropped(DropReason::NoFreePort);
                };
                reverse = with_translated_port(reverse, port, echo);
            }
            true
        }
    };
    let reverse_hash = flows.hash(&reverse);
    if let Some(directory) = &core.settings.directory {
        let me = core.settings.worker;
        if let Err(owner) = directory.claim(forward_hash, me) {
            // Another worker has made the flow in this moment.
            return if may_hand_over { Err(Verdict::HandOver(owner)) } else { dropped(DropReason::FlowConflict) };
        }
        if directory.claim(reverse_hash, me).is_err() {
            directory.release(forward_hash, me);
            return dropped(DropReason::FlowConflict);
        }
    }
    let state = FlowState::new(parsed, core.snapshot.generation, decision.next_hop_type, translated, now);
    let deadline = now + state.phase.lifetime();
    match flows.insert(forward, reverse, state, deadline) {
        Ok(id) => {
            core.counters.flows_created.add(1);
            core.counters.flows.add(1);
            Ok(id)
        }
        Err(refused) => {
            if let Some(directory) = &core.settings.directory {
                let me = core.settings.worker;
                directory.release(forward_hash, me);
                if !matches!(refused, Refused::ReverseInUse(_)) {
                    directory.release(reverse_hash, me);
                }
            }
            dropped(match refused {
                Refused::Full => DropReason::FlowTableFull,
                Refused::ForwardInUse(_) | Refused::ReverseInUse(_) => DropReason::FlowConflict,
            })
        }
    }
}

/// The key of replies with another translated port; an ICMP identifier is on both sides.
fn with_translated_port<A: Family>(mut reverse: FlowKey<A>, port: u16, echo: bool) -> FlowKey<A> {
    reverse.destination_port = port;
    if echo {
        reverse.source_port = port;
    }
    reverse
}
