//! What observers are told of steps that are no stage: parsing, the flow that a packet met or made, and its replay.

use super::core::Core;
use super::flow::{Family, FlowState, index};
use super::observer::{Observer, Recorder, StageRecord};
use super::redecide::{self, Outcome, Sides};
use super::route;
use super::subject::Subject;
use super::verdict::DropReason;
use crate::packet::parse::{Parsed, protocol};
use crate::snapshot::{PortId, Snapshot};
use crate::table::flow::{Direction, FlowId, FlowKey, FlowTable};

/// A packet that was parsed.
pub(super) fn parsed(snapshot: &Snapshot, ingress: PortId, parsed: &Parsed) -> StageRecord {
    StageRecord::new("parse", format!("{} to {}", parsed.source(), parsed.destination()))
        .with(format!("IP protocol {}, hop limit {}", parsed.protocol, parsed.hop_limit))
        .with(format!("entered through {}", name(snapshot, ingress)))
}

/// A step that drops the packet.
pub(super) fn dropped(stage: &str, reason: DropReason) -> StageRecord {
    StageRecord::new(stage, format!("drop: {}", reason.name())).with(reason.text())
}

/// No flow was met.
pub(super) fn missed() -> StageRecord {
    StageRecord::new("flow", "miss").with("decided as the first packet of a new flow; later ones replay the outcome")
}

/// A flow was met. What it replays was decided before: the route that wins for its first packet now is told with it.
pub(super) fn met<A: Family>(
    core: &Core,
    flows: &FlowTable<A, FlowState>,
    id: FlowId,
    direction: Direction,
    now: u64,
) -> StageRecord {
    let (Some(forward), Some(reverse), Some(state)) =
        (flows.key(id, Direction::Forward), flows.key(id, Direction::Reverse), flows.state(id))
    else {
        return missed();
    };
    let snapshot = &core.snapshot;
    let which = match direction {
        Direction::Forward => "forward, as its first packet",
        Direction::Reverse => "reply",
    };
    let age = if state.generation == snapshot.generation as u32 { "the current one" } else { "an older one" };
    let idle = now.saturating_sub(state.last_seen()) as f64 / 1e3;
    let of = |counts: [u64; 2]| counts.get(index(direction)).copied().unwrap_or_default();
    let record = StageRecord::new("flow", format!("hit: {which}, {}", state.phase.name()))
        .with(format!("decided under generation {}, {age}", state.generation))
        .with(format!(
            "{} packets and {} bytes before in this direction, the last packet of either {idle:.1} s ago",
            of(state.packets),
            of(state.bytes)
        ));
    let sides = redecide::sides(forward, reverse);
    let record = record.with(path_of(snapshot, &sides, state));
    match route_of(snapshot, &redecide::subject(forward)) {
        Some(route) => record.with(format!("route of its first packet: {route}")),
        None => record,
    }
}

/// A flow was made.
pub(super) fn installed<A: Family>(core: &Core, flows: &FlowTable<A, FlowState>, id: FlowId) -> StageRecord {
    let (Some(forward), Some(reverse), Some(state)) =
        (flows.key(id, Direction::Forward), flows.key(id, Direction::Reverse), flows.state(id))
    else {
        return StageRecord::new("install", "no flow");
    };
    let sides = redecide::sides(forward, reverse);
    StageRecord::new("install", format!("flow made, {}, generation {}", state.phase.name(), state.generation))
        .with(path_of(&core.snapshot, &sides, state))
        .with(format!("counts for {}", name(&core.snapshot, state.owner)))
}

/// A flow of an older generation was decided again.
pub(super) fn decided_again(core: &Core, outcome: Outcome) -> StageRecord {
    let outcome = match outcome {
        Outcome::Kept => "the same way, it goes on",
        Outcome::Reset => "another way or none, both ends were reset",
        Outcome::Trace => "its way changed, what is left of it stays for a while",
        Outcome::Gone => "it is gone",
    };
    StageRecord::new("flow", format!("decided again under generation {}: {outcome}", core.snapshot.generation))
}

/// What the replay of a flow writes into a packet. `out` is the key of the other direction's packets where it leaves.
pub(super) fn rewritten<A: Family>(parsed: &Parsed, out: &FlowKey<A>, translated: bool) -> StageRecord {
    let ports =
        matches!(parsed.protocol, protocol::TCP | protocol::UDP | protocol::SCTP | protocol::DCCP | protocol::UDP_LITE);
    let shown = |address: std::net::IpAddr, port: u16| {
        if ports { std::net::SocketAddr::new(address, port).to_string() } else { address.to_string() }
    };
    let change = |what: &str, before: (std::net::IpAddr, u16), after: (std::net::IpAddr, u16)| {
        let (before, after) = (shown(before.0, before.1), shown(after.0, after.1));
        if before == after { format!("{what} {before} stays") } else { format!("{what} {before} becomes {after}") }
    };
    let record = StageRecord::new("rewrite", if translated { "translated" } else { "hop limit only" });
    if !translated {
        return record;
    }
    record
        .with(change("source", (parsed.source(), parsed.source_port), (out.destination.to_ip(), out.destination_port)))
        .with(change(
            "destination",
            (parsed.destination(), parsed.destination_port),
            (out.source.to_ip(), out.source_port),
        ))
}

/// `vm1 to contosodata, VirtualNetworkServiceEndpoint, seen as 10.1.1.4`.
fn path_of(snapshot: &Snapshot, sides: &Sides, state: &FlowState) -> String {
    let (ingress, egress) = (name(snapshot, sides.ingress), name(snapshot, sides.egress));
    let pool = state.pool().and_then(|pool| snapshot.pool(pool));
    let pool = pool.map(|pool| format!(" of {}", pool.name)).unwrap_or_default();
    format!("{ingress} to {egress}, {}, source seen as {}{pool}", state.next_hop_type.name(), sides.presented.0)
}

/// The route that wins for a subject: the same stage as for first packets.
fn route_of(snapshot: &Snapshot, subject: &Subject) -> Option<String> {
    let mut recorder = Recorder::default();
    let port = snapshot.port(subject.ingress)?;
    // What it decides is not asked here: what the flow replays is.
    let _ = route::choose(snapshot, port, subject, &mut recorder);
    recorder.records.into_iter().find(|record| record.stage == "route").map(|record| record.decision)
}

fn name(snapshot: &Snapshot, port: PortId) -> &str {
    snapshot.port(port).map_or("?", |port| port.name.as_str())
}

/// A fragment.
pub(super) fn fragment(decision: &str) -> StageRecord {
    StageRecord::new("fragment", decision)
}

/// What was read, or is still to be, of a connection whose resource only its client can tell.
pub(super) fn inspected(passes: bool) -> StageRecord {
    let decision = if passes { "passes" } else { "does not pass" };
    StageRecord::new("inspect", decision).with("the client's own words tell which resource it wants")
}

/// Tells an observer what is observed of an egress.
pub(super) struct Told<'a, E>(pub(super) &'a mut E);

impl<E: super::Egress> Observer for Told<'_, E> {
    #[inline(always)]
    fn stage(&mut self, record: impl FnOnce() -> StageRecord) {
        self.0.stage(record);
    }
}
