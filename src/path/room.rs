//! Making room for a new flow: the transient flow of this worker that would end first is ended for it.

use super::core::Core;
use super::flow::{Family, FlowState};
use super::way::{Packet, Tables, met};
use crate::snapshot::PortId;
use crate::table::flow::{FlowId, FlowTable};
use crate::table::quota::Exceeded;

/// Transient flows of each family that are looked at for one to end where there is no room.
const EVICTION_BUDGET: usize = 64;

/// Flows found there whose last packet is newer than their timer: each is set right, and the search begins anew.
const EVICTION_SEARCHES: usize = 16;

/// Ends the transient flow of this worker that would end first: of a port that has as many as it may have, or of any. Its
/// port does not rest. False where none of those looked at is the port's. What the packet itself met stays.
pub(super) fn make_room(
    core: &mut Core,
    tables: &mut Tables,
    packet: &Packet<'_>,
    owner: PortId,
    exceeded: Exceeded,
) -> bool {
    let may_go = |state: &FlowState| state.is_transient() && (exceeded == Exceeded::Total || state.owner == owner);
    let met = (met(&tables.v4, packet), met(&tables.v6, packet));
    let v4 = first_to_end(core, &mut tables.v4, |id, state| Some(id) != met.0 && may_go(state));
    let v6 = first_to_end(core, &mut tables.v6, |id, state| Some(id) != met.1 && may_go(state));
    match (v4, v6) {
        (Some((v4, due)), v6) if v6.is_none_or(|(_, later)| due <= later) => core.end(&mut tables.v4, v4, packet.now),
        (_, Some((v6, _))) => core.end(&mut tables.v6, v6, packet.now),
        _ => return false,
    }
    core.counters.flows_evicted.add(1);
    true
}

/// The transient flow of a table that would end first, and when. Timers are not moved by packets: the one of a flow that
/// goes on is moved here.
fn first_to_end<A: Family>(
    core: &Core,
    flows: &mut FlowTable<A, FlowState>,
    may_go: impl Fn(FlowId, &FlowState) -> bool,
) -> Option<(FlowId, u64)> {
    let mut last = None;
    for _ in 0..EVICTION_SEARCHES {
        let found = flows.oldest_transient(EVICTION_BUDGET, |id, _, _, state| may_go(id, state))?;
        let set = flows.deadline(found)?;
        let due = flows.state(found).map(|state| state.last_seen() + state.lifetime(&core.snapshot))?;
        if due <= set {
            return Some((found, set));
        }
        flows.set_deadline(found, due, true);
        last = Some((found, due));
    }
    last
}
