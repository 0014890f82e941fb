//! A flow meets a newer generation: it is decided again.
//!
//! - The same answer: it lives on under the new generation.
//! - Another path or source address: a TCP connection is closed by resets to both ends, so that applications reconnect
//!   at once; what still comes of it is answered with resets for a while.
//! - Of any other flow, and where there is no path any more, a trace stays for a while: the sender of its first packet
//!   begins anew with the next one, and what is still on its way along the old path ends here. Without the trace such
//!   a packet would begin a flow of its own, and draw the other side's packets back to the old path.

use super::answer;
use super::core::Core;
use super::egress::Egress;
use super::flow::{Family, FlowState, Phase};
use super::observer::Silent;
use super::order;
use super::source::Presented;
use super::subject::Subject;
use crate::snapshot::PortId;
use crate::table::flow::{Direction, FlowId, FlowKey, FlowTable};

/// `IPPROTO_TCP`
const TCP: u8 = 6;

/// What became of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It lives on.
    Kept,
    /// It was a TCP connection; both ends have been reset just now.
    Reset,
    /// Its path changed, now or before: [`Phase::Reset`] or [`Phase::Moved`].
    Trace,
    /// There is no such flow.
    Gone,
}

/// Decides a flow again under the current snapshot.
pub(super) fn flow<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    now: u64,
    egress: &mut impl Egress,
) -> Outcome {
    let (Some(forward), Some(reverse), Some(state)) = (
        flows.key(id, Direction::Forward).copied(),
        flows.key(id, Direction::Reverse).copied(),
        flows.state(id).copied(),
    ) else {
        return Outcome::Gone;
    };
    let generation = core.snapshot.generation as u32;
    if matches!(state.phase, Phase::Reset | Phase::Moved) {
        if let Some(state) = flows.state_mut(id) {
            state.generation = generation;
        }
        return Outcome::Trace;
    }
    let decision = order::decide(&core.snapshot, &subject(&forward), &mut Silent);
    let moved = match decision {
        Ok(decision) => {
            let same = decision.egress.0 == reverse.port
                && match decision.presented {
                    Presented::Own => !state.translated,
                    Presented::Public(address) => state.translated && reverse.destination.to_ip() == address,
                };
            if same {
                if let Some(state) = flows.state_mut(id) {
                    state.generation = generation;
                    state.next_hop_type = decision.next_hop_type;
                }
                core.counters.flows_kept.add(1);
                return Outcome::Kept;
            }
            true
        }
        Err(_) => false,
    };
    // A SYN that nobody has answered needs no reset: its retransmission begins anew on the new path.
    let connected = match state.phase {
        Phase::Opening => state.answered(),
        phase => matches!(phase, Phase::Established | Phase::Closing),
    };
    let reset = moved && forward.protocol == TCP && connected;
    if reset {
        let keys = [(Direction::Forward, forward), (Direction::Reverse, reverse)];
        answer::reset_both(core, &keys, &state, now, egress);
        core.counters.flows_reset.add(1);
    } else {
        core.counters.flows_moved.add(1);
    }
    let phase = if moved && forward.protocol == TCP { Phase::Reset } else { Phase::Moved };
    if let Some(state) = flows.state_mut(id) {
        state.generation = generation;
        state.phase = phase;
        state.last_seen = now;
    }
    flows.set_deadline(id, now + phase.lifetime());
    if reset { Outcome::Reset } else { Outcome::Trace }
}

/// Decides flows of older generations again, from a slot on, at most `budget` slots that are in use. Gives the slot to
/// go on from, none when all are done.
pub(super) fn sweep<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    mut cursor: u32,
    now: u64,
    budget: usize,
    egress: &mut impl Egress,
) -> Option<u32> {
    for _ in 0..budget {
        let id = flows.occupied_from(cursor)?;
        if flows.state(id).is_some_and(|state| state.generation != core.snapshot.generation as u32) {
            flow(core, flows, id, now, egress);
        }
        cursor = id.index().checked_add(1)?;
    }
    Some(cursor)
}

/// The subject of a flow's first packet.
pub(super) fn subject<A: Family>(key: &FlowKey<A>) -> Subject {
    Subject {
        ingress: PortId(key.port),
        source: key.source.to_ip(),
        destination: key.destination.to_ip(),
        protocol: key.protocol,
        source_port: key.source_port,
        destination_port: key.destination_port,
    }
}
