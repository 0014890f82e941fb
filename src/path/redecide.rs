//! A flow meets a newer generation: it is decided again.
//!
//! - The same answer: it lives on under the new generation.
//! - Another path or source address: a TCP connection is closed by resets to both ends, so that applications reconnect
//!   at once; what still comes of it is answered with resets for a while.
//! - No path any more, or policy denies it: the same; a new connection is dropped by the name of the reason.
//! - Of any other flow a trace stays for a while: the sender of its first packet begins anew with the next one, and what
//!   is still on its way along the old path ends here. Without the trace such a packet would begin a flow of its own, and
//!   draw the other side's packets back to the old path. The trace ends when another flow takes its place, not before.
//!
//! A flow is decided in the direction of its first packet. Where the node has lost a flow, that may be the other end's:
//! TCP that begins no connection comes to a NIC from the gateway or an appliance, and may be the NIC's own connection. If
//! the NIC's own packets would go where it came from, the flow is kept only as long as they would (`midway`). If not, the
//! two directions had different ways before and are left alone; but with the address of a service that the NIC has an
//! endpoint for nothing comes in at all (`route`). A NIC may begin anew on the trace of such a flow, as it would on the
//! trace of its own.

use std::net::IpAddr;

use super::answer::{self, Telling};
use super::core::Core;
use super::egress::Egress;
use super::firewall::Admission;
use super::flow::{Family, FlowState, Phase};
use super::forwarder::FlowSummary;
use super::observer::Silent;
use super::order::{self, Decision, Question, Standing};
use super::policy::Named;
use super::record::Ending;
use super::route;
use super::route::Reached;
use super::source::Presented;
use super::subject::Subject;
use super::undecided::key_of;
use super::verdict::DropReason;
use crate::packet::parse::protocol;
use crate::snapshot::{NextHopType, PoolId, PortId, Snapshot, SourceAction};
use crate::table::flow::{Direction, FlowId, FlowKey, FlowTable};

/// What became of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It lives on.
    Kept,
    /// It was a TCP connection; the ends that could be told have been reset just now.
    Reset,
    /// Its path changed, now or before: [`Phase::Reset`] or [`Phase::Moved`]. Nobody has been told now.
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
    let before = FlowSummary { sides: sides(&forward, &reverse), state };
    let named = named(core, &forward, &state);
    let mut fate = fate(&core.snapshot, &before.sides, &state, named);
    let keys = [(Direction::Forward, forward), (Direction::Reverse, reverse)];
    let mut told = Telling::Nobody;
    if fate == Fate::Reset {
        told = answer::reset_both(core, &keys, &state, now, egress);
    }
    if told == Telling::Refused {
        // Who has not been told is told when more comes from there.
        fate = Fate::Ended;
    }
    core.changed.count(fate, before);
    let phase = match fate {
        Fate::Kept { next_hop_type, pool, inspected } => {
            if state.is_inspected() && !inspected {
                core.undecided.end(&key_of(&forward));
                core.counters.undecided.set(core.undecided.len() as u64);
            }
            if let Some(state) = flows.state_mut(id) {
                if !inspected {
                    state.forget_name();
                }
                state.generation = generation;
                state.next_hop_type = next_hop_type;
                state.set_pool(pool);
                // The timer is set for the lifetime that was in force; a shorter one must not wait for it.
                let (deadline, transient) = (state.last_seen() + state.lifetime(&core.snapshot), state.is_transient());
                flows.set_deadline(id, deadline, transient);
            }
            if pool != before.state.pool() {
                core.settings.shared.give_back_of_pool(before.state.pool(), &forward);
                core.settings.shared.take_of_pool(pool, &forward);
            }
            core.counters.flows_kept.add(1);
            return Outcome::Kept;
        }
        Fate::Reset => {
            core.counters.flows_reset.add(1);
            Phase::Reset
        }
        Fate::Ended => {
            core.counters.flows_moved.add(1);
            Phase::Reset
        }
        Fate::Moved => {
            core.counters.flows_moved.add(1);
            Phase::Moved
        }
    };
    leave_trace(core, flows, id, (phase, named), Ending::Changed, now);
    if told == Telling::Told { Outcome::Reset } else { Outcome::Trace }
}

/// A flow whose client has named this has ended, and a trace of it stays: nobody else comes in by what is left of it.
pub(super) fn leave_trace<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    id: FlowId,
    (phase, named): (Phase, Named),
    ending: Ending,
    now: u64,
) {
    let (Some(forward), Some(reverse), Some(state)) =
        (flows.key(id, Direction::Forward).copied(), flows.key(id, Direction::Reverse).copied(), flows.state_mut(id))
    else {
        return;
    };
    if core.is_logged() {
        core.log_end(id, (&forward, &reverse), (state, named), ending, now);
    }
    core.settings.shared.unmap(&forward, &reverse, state);
    if state.is_inspected() {
        core.undecided.end(&key_of(&forward));
        core.counters.undecided.set(core.undecided.len() as u64);
    }
    state.forget_name();
    state.forget_mappings();
    state.generation = core.snapshot.generation as u32;
    state.phase = phase;
    state.touch(now);
    let deadline = now + state.lifetime(&core.snapshot);
    flows.set_deadline(id, deadline, true);
}

/// What the client of a flow has named.
pub(super) fn named<A: Family>(core: &Core, forward: &FlowKey<A>, state: &FlowState) -> Named {
    if state.is_inspected() { core.undecided.named(&key_of(forward)) } else { Named::NotYet }
}

/// Both sides of a flow as its packets carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// IP protocol number.
    pub protocol: u8,
    /// Where the first packet entered.
    pub ingress: PortId,
    /// Its source there.
    pub source: (IpAddr, u16),
    /// Its destination there.
    pub destination: (IpAddr, u16),
    /// Where it left.
    pub egress: PortId,
    /// The source that the next network sees.
    pub presented: (IpAddr, u16),
    /// The destination that it leads to.
    pub reached: (IpAddr, u16),
}

impl Sides {
    /// The first packet as it entered.
    pub fn entering(&self) -> Subject {
        Subject {
            ingress: self.ingress,
            source: self.source.0,
            destination: self.destination.0,
            protocol: self.protocol,
            source_port: self.source.1,
            destination_port: self.destination.1,
        }
    }

    /// The first packet as it arrived at its receiver.
    pub fn arrival(&self) -> Subject {
        Subject {
            ingress: self.ingress,
            source: self.presented.0,
            destination: self.reached.0,
            protocol: self.protocol,
            source_port: self.presented.1,
            destination_port: self.reached.1,
        }
    }
}

/// Both sides of the flow of two keys.
pub(super) fn sides<A: Family>(forward: &FlowKey<A>, reverse: &FlowKey<A>) -> Sides {
    Sides {
        protocol: forward.protocol,
        ingress: PortId(forward.port),
        source: (forward.source.to_ip(), forward.source_port),
        destination: (forward.destination.to_ip(), forward.destination_port),
        egress: PortId(reverse.port),
        presented: (reverse.destination.to_ip(), reverse.destination_port),
        reached: (reverse.source.to_ip(), reverse.source_port),
    }
}

/// What becomes of a flow under a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It lives on.
    Kept {
        /// Type of its next hop now.
        next_hop_type: NextHopType,
        /// The pool that its source is of, now.
        pool: Option<PoolId>,
        /// Whether what its client names, or named, still matters.
        inspected: bool,
    },
    /// It is an open TCP connection, and both ends are reset.
    Reset,
    /// It is a TCP connection that was not open, or whose ends could not be told; what still comes of it is answered with resets.
    Ended,
    /// It is no TCP connection: its next packet begins anew.
    Moved,
}

/// What becomes of a flow under a snapshot: the one answer for forwarding and for asking what a change would do.
pub fn fate(snapshot: &Snapshot, sides: &Sides, state: &FlowState, named: Named) -> Fate {
    let admitted = judge(snapshot, sides, Question { standing: Standing::Established, named });
    // A connection that has begun cannot be asked for a name any more.
    let known = |decision: &Decision| decision.inspect.is_none() || state.is_inspected();
    if let Ok(decision) = admitted
        && known(&decision)
        && (!state.is_midway() || returns(snapshot, sides))
        && let Some(pool) = still_good(snapshot, sides, state, &decision)
    {
        let inspected = state.is_inspected() && (named != Named::NotYet || decision.inspect.is_some());
        return Fate::Kept { next_hop_type: decision.next_hop_type, pool, inspected };
    }
    if sides.protocol != protocol::TCP {
        return Fate::Moved;
    }
    // A SYN that nobody has answered needs no reset: its retransmission begins anew on the new path.
    let connected = match state.phase {
        Phase::Opening => state.answered(),
        phase => matches!(phase, Phase::Established | Phase::Closing),
    };
    if connected { Fate::Reset } else { Fate::Ended }
}

/// The decision about a flow, firewall and security groups of the receiver included: what arrives is known of a flow,
/// whatever gave it its addresses.
pub(super) fn judge(snapshot: &Snapshot, sides: &Sides, question: Question) -> Result<Decision, DropReason> {
    let subject = sides.entering();
    let mut decision = order::decide(snapshot, &subject, question, &mut Silent)?;
    let arrival = order::admit(snapshot, &subject, &decision, sides.egress, &sides.arrival(), question, &mut Silent)?;
    decision.inspect = decision.inspect.or(order::inspected(arrival.ruling));
    decision.arrival = arrival;
    Ok(decision)
}

/// Whether what the receiver of a flow sends by itself goes where the flow came from, as it is.
pub(super) fn returns(snapshot: &Snapshot, sides: &Sides) -> bool {
    let arrival = sides.arrival();
    let subject = Subject {
        ingress: sides.egress,
        source: arrival.destination,
        destination: arrival.source,
        protocol: sides.protocol,
        source_port: arrival.destination_port,
        destination_port: arrival.source_port,
    };
    let chosen = snapshot.port(sides.egress).map(|port| route::choose(snapshot, port, &subject, &mut Silent));
    let own = |chosen: &route::Chosen| chosen.egress == sides.ingress && chosen.source == SourceAction::Keep;
    matches!(chosen, Some(Ok(chosen)) if own(&chosen) && chosen.reached == Reached::Own)
}

/// The way that a flow takes, whether the receiver admits it or not.
pub fn way_of(snapshot: &Snapshot, sides: &Sides) -> Option<u16> {
    let subject = sides.entering();
    let port = snapshot.port(subject.ingress)?;
    match route::choose(snapshot, port, &subject, &mut Silent).ok()?.source {
        SourceAction::Endpoint(endpoint) => Some(endpoint),
        SourceAction::Keep | SourceAction::Outbound => None,
    }
}

/// What a change does, or would do, to flows. Traces that an earlier change left do not count.
#[derive(Debug, Clone, Default)]
pub struct Foreseen {
    /// TCP connections that are reset.
    pub reset: u64,
    /// Other flows that do not go on.
    pub moved: u64,
    /// Flows that go on.
    pub kept: u64,
    /// Those that are reset or do not go on, up to [`FORESEEN_LISTED`] of each worker.
    pub cut: Vec<FlowSummary>,
}

/// Flows that a worker lists of those that a change would cut: enough to see whose they are, few enough to show.
pub const FORESEEN_LISTED: usize = 100;

impl Foreseen {
    /// Nothing yet, with room for as many flows as are listed, so that the path need not ask for memory.
    pub(super) fn with_room() -> Self {
        Self { cut: Vec::with_capacity(FORESEEN_LISTED), ..Self::default() }
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        (self.reset, self.moved, self.kept) = (0, 0, 0);
        self.cut.clear();
    }

    /// Counts a flow, and lists it if it is cut.
    fn count(&mut self, fate: Fate, flow: FlowSummary) {
        match fate {
            Fate::Kept { .. } => self.kept += 1,
            Fate::Reset => self.reset += 1,
            Fate::Ended | Fate::Moved => self.moved += 1,
        }
        if !matches!(fate, Fate::Kept { .. }) && self.cut.len() < FORESEEN_LISTED {
            self.cut.push(flow);
        }
    }

    /// Adds what another worker foresees.
    pub fn add(&mut self, other: Self) {
        self.reset += other.reset;
        self.moved += other.moved;
        self.kept += other.kept;
        self.cut.extend(other.cut);
    }
}

/// Places that are looked at for each flow of a budget: a table that was large once has few flows in many places, and to
/// find that out must not hold packets up.
const PLACES: usize = 16;

/// Finds out what would become of the flows of a table from a place on, at most `budget` of them. Gives the place to go
/// on from, none when all have been looked at.
pub(super) fn foresee<A: Family>(
    flows: &FlowTable<A, FlowState>,
    (core, snapshot): (&Core, &Snapshot),
    mut place: u32,
    budget: usize,
    foreseen: &mut Foreseen,
) -> Option<u32> {
    let mut left = budget.max(1);
    for _ in 0..budget.saturating_mul(PLACES) {
        if place >= flows.places() {
            return None;
        }
        let id = flows.at(place);
        place += 1;
        let Some(id) = id else { continue };
        if let (Some(forward), Some(reverse), Some(state)) =
            (flows.key(id, Direction::Forward), flows.key(id, Direction::Reverse), flows.state(id))
            && !matches!(state.phase, Phase::Reset | Phase::Moved)
        {
            let flow = FlowSummary { sides: sides(forward, reverse), state: *state };
            foreseen.count(fate(snapshot, &flow.sides, state, named(core, forward, state)), flow);
        }
        left -= 1;
        if left == 0 {
            break;
        }
    }
    Some(place)
}

/// Whether a decision leads a flow where it goes, with the source that it shows. Gives the pool that translates it.
fn still_good(snapshot: &Snapshot, sides: &Sides, state: &FlowState, decision: &Decision) -> Option<Option<PoolId>> {
    let (presented, reached) = (sides.presented.0, sides.reached.0);
    let destination = match (decision.reached, decision.presented) {
        (_, Presented::Identity6 { destination, .. }) => IpAddr::V6(destination),
        (Reached::Own, _) => sides.destination.0,
        (Reached::Instance(private), _) => private,
        (Reached::Mapping(_), _) => reached,
    };
    let egress = match decision.reached {
        // The mapping says which NIC: it still has the address, and the pool still translates for it.
        Reached::Mapping(pool) => snapshot.serves(pool, sides.egress, reached),
        Reached::Own | Reached::Instance(_) => decision.egress == sides.egress,
    };
    // The identifier of an ICMP query is on both sides: translated it is another one than the query came with.
    let query = matches!(sides.protocol, protocol::ICMP | protocol::ICMPV6);
    let port = match decision.arrival.admission {
        Admission::Answered(port) => port,
        Admission::Admitted if query => sides.reached.1,
        Admission::Admitted if matches!(decision.reached, Reached::Mapping(_)) => sides.reached.1,
        Admission::Admitted => sides.destination.1,
    };
    // Of ICMP queries both numbers are the identifier.
    let other_port = sides.protocol == protocol::TCP && port != sides.reached.1;
    if !egress || destination != reached || other_port {
        return None;
    }
    let inward = match decision.reached {
        Reached::Mapping(pool) => Some(pool),
        Reached::Own | Reached::Instance(_) => None,
    };
    let same = match decision.presented {
        Presented::Own => presented == sides.source.0,
        Presented::OneToOne(address) => presented == address,
        Presented::Identity6 { source, .. } => presented == IpAddr::V6(source),
        Presented::Pool(pool) => {
            if snapshot.pool(pool).is_some_and(|pool| pool.contains(presented)) {
                return Some(Some(pool));
            }
            false
        }
    };
    if same {
        return Some(inward);
    }
    // A NAT gateway, or a public address, that is added later takes over new connections; the open ones keep the source
    // that they have, as long as the node has it (Azure, "Source Network Address Translation with NAT gateway").
    let to_internet = decision.next_hop_type == NextHopType::Internet && state.next_hop_type == NextHopType::Internet;
    if !to_internet || presented == sides.source.0 {
        return None;
    }
    match snapshot.pool_of(presented) {
        Some(pool) => Some(Some(pool)),
        None => snapshot
            .instance(presented)
            .is_some_and(|(port, private)| port == sides.ingress && private == sides.source.0)
            .then_some(None),
    }
}

/// Decides flows of older generations again, from a place on, at most `budget` of them. Gives the place to go on from,
/// none when all are done.
pub(super) fn sweep<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    mut cursor: u32,
    now: u64,
    budget: usize,
    egress: &mut impl Egress,
) -> Option<u32> {
    let mut left = budget.max(1);
    for _ in 0..budget.saturating_mul(PLACES) {
        if cursor >= flows.places() {
            return None;
        }
        let id = flows.at(cursor);
        cursor += 1;
        let Some(id) = id else { continue };
        if flows.state(id).is_some_and(|state| state.generation != core.snapshot.generation as u32) {
            flow(core, flows, id, now, egress);
        }
        left -= 1;
        if left == 0 {
            break;
        }
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
