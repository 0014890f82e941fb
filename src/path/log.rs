//! How a worker makes records of flows, while somebody wants them.
//!
//! What has been told of each flow is kept beside the flow table, by place. Flows that go on are looked for in a walk over all
//! places, which goes on a little between two batches of packets; so are those that were there before.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::core::Core;
use super::flow::{Family, FlowState, NEVER, Phase};
use super::policy::Named;
use super::record::{About, Ending, Event, Record, Records};
use super::redecide::{self, Sides, sides};
use super::told::{Told, ToldFlows};
use crate::packet::parse::Parsed;
use crate::snapshot::Snapshot;
use crate::table::flow::{Direction, FlowId, FlowKey, FlowTable};

/// How often a flow that goes on is told, in milliseconds (Azure, "Virtual network flow logs": every five minutes).
pub const CONTINUING: u64 = 300_000;

/// How often the walk goes on, in milliseconds, and how many times it does for a whole round: a flow that goes on is told ten
/// seconds late at most, unless the records before it are not taken.
const LOOK: u64 = 1_000;
const LOOKS: u32 = 10;

/// When it goes on where records have to be taken first: as often as that may be.
const PAUSE: u64 = 10;

/// Places that are walked for each flow of a budget. What is told lies one behind the other, so that they are read at the
/// speed of memory: 1,024 for 256 flows are 64 KiB.
const PLACES: usize = 4;

/// Snapshots that are kept for flows that have not been decided again. Changes that come faster than that are told of
/// under the oldest of these.
const FORMER: usize = 4;

/// What is known of a packet that is denied, beside what it carries.
#[derive(Debug, Clone, Default)]
pub(super) struct Denied {
    /// What its connection named.
    pub(super) named: Named,
    /// The name itself.
    pub(super) name: Option<Box<str>>,
    /// The source that the service would see.
    pub(super) presented: Option<(IpAddr, u16)>,
}

/// What a worker keeps to make records.
#[derive(Debug)]
pub(super) struct Log {
    records: Arc<Records>,
    v4: Kept,
    v6: Kept,
    /// The time in microseconds, of the batch that is being worked on.
    micros: u64,
    /// When the walk goes on, and when more of it is due.
    next_step: u64,
    next_look: u64,
    /// Snapshots that flows may still be of, the oldest first: until all have been decided again.
    former: Vec<Arc<Snapshot>>,
    /// What is known of the packet that is being denied.
    denied: Denied,
    /// What a connection had named whose ports another one takes, by family and place.
    named_before: Option<(usize, u32, Named)>,
}

/// What is kept of the flows of one table.
#[derive(Debug)]
struct Kept {
    told: ToldFlows,
    /// Names that connections gave: few do.
    names: HashMap<u32, Box<str>>,
    walk: Walk,
}

/// How far a table has been walked.
#[derive(Debug)]
struct Walk {
    place: u32,
    /// Places that are to be looked at now.
    left: u32,
    /// Whether there may be flows that were there before.
    first: bool,
}

/// What a step of a walk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// There is more to look at.
    More,
    /// Records have to be taken first.
    Full,
    /// All is done for now.
    Done,
}

/// What a worker had kept to make records: to be freed by somebody who has the time, a million flows take some milliseconds.
#[derive(Debug)]
pub struct Freed(#[allow(dead_code, reason = "only to be dropped")] Option<Box<Log>>);

impl Log {
    fn new(records: Arc<Records>, [v4, v6]: [(usize, u32); 2], now: u64) -> Self {
        let kept = |(limit, places)| Kept {
            told: ToldFlows::new(limit),
            names: HashMap::new(),
            walk: Walk { place: 0, left: places, first: true },
        };
        Self {
            records,
            v4: kept(v4),
            v6: kept(v6),
            micros: 1,
            next_step: now,
            next_look: now + LOOK,
            former: Vec::with_capacity(FORMER),
            denied: Denied::default(),
            named_before: None,
        }
    }

    fn kept<A: Family>(&mut self) -> &mut Kept {
        if size_of::<A>() == size_of::<u32>() { &mut self.v4 } else { &mut self.v6 }
    }

    /// The snapshot that a flow was decided under last. That of another process is not here: the current one stands for it.
    fn snapshot_of<'s>(&'s self, current: &'s Arc<Snapshot>, state: &FlowState) -> &'s Arc<Snapshot> {
        let of = |snapshot: &&Arc<Snapshot>| snapshot.generation as u32 == state.generation;
        if of(&current) || state.generation == NEVER {
            return current;
        }
        self.former.iter().find(of).or(self.former.first()).unwrap_or(current)
    }

    /// A record of a flow, with what passed since the one before.
    fn record<A: Family>(
        &self,
        told: &Told,
        seen: Seen<'_, A>,
        (event, now): (Event, u64),
        name: Option<Box<str>>,
        (worker, current): (u16, &Arc<Snapshot>),
    ) -> Record {
        let Seen { forward, reverse, state, named } = seen;
        let since = |count: [u64; 2], told: [u64; 2]| {
            let [(a, b), (c, d)] = [(count[0], told[0]), (count[1], told[1])];
            [a.saturating_sub(b), c.saturating_sub(d)]
        };
        Record {
            event,
            at: now,
            began: told.began,
            about: About::Flow(sides(forward, reverse)),
            packets: since(state.packets, told.packets),
            bytes: since(state.bytes, told.bytes),
            next_hop_type: Some(state.next_hop_type),
            phase: Some(state.phase),
            named,
            name,
            presented: None,
            round_trip: told.round_trip,
            worker,
            snapshot: self.snapshot_of(current, state).clone(),
        }
    }
}

/// A flow as records are made of it.
#[derive(Clone, Copy)]
struct Seen<'a, A> {
    forward: &'a FlowKey<A>,
    reverse: &'a FlowKey<A>,
    state: &'a FlowState,
    named: Named,
}

/// What is told of a flow from here on.
fn from_here(state: &FlowState, began: u64, due: u64) -> Told {
    Told { packets: state.packets, bytes: state.bytes, began, due, ..Told::default() }
}

/// How long a flow that was there before waits to be told first: not all of them at once.
fn spread(place: u32) -> u64 {
    // Neighbours are far from each other: multiples of the golden ratio.
    1 + ((u64::from(place.wrapping_mul(0x9e37_79b9)) * (CONTINUING - 1)) >> u32::BITS)
}

/// Whether nothing more is told of a flow: it has ended, and only its trace is there.
const fn is_trace(state: &FlowState) -> bool {
    matches!(state.phase, Phase::Reset | Phase::Moved)
}

impl Core {
    /// Whether somebody wants records.
    #[inline]
    pub(super) fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// Gives records to a queue from now on, or makes none any more. The limit of each table, and how many places it has now.
    pub(super) fn log_to(&mut self, records: Option<Arc<Records>>, tables: [(usize, u32); 2], now: u64) -> Freed {
        let log = records.map(|records| Box::new(Log::new(records, tables, now)));
        Freed(std::mem::replace(&mut self.log, log))
    }

    /// A flow has begun.
    #[cold]
    pub(super) fn log_begin<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, id: FlowId, now: u64) {
        if let (Some((forward, reverse)), Some(state)) = (keys(flows, id), flows.state(id)) {
            self.log_began(id, (forward, reverse), state, now);
        }
    }

    fn log_began<A: Family>(
        &mut self,
        id: FlowId,
        (forward, reverse): (&FlowKey<A>, &FlowKey<A>),
        state: &FlowState,
        now: u64,
    ) {
        let Self { log: Some(log), snapshot, settings, .. } = self else { return };
        let told = Told { asked: log.micros, ..from_here(state, now, now + CONTINUING) };
        let kept = log.kept::<A>();
        if !kept.names.is_empty() {
            kept.names.remove(&id.index());
        }
        kept.told.set(id.index(), Some(&told));
        if !log.records.want(Event::Begin) {
            return;
        }
        let seen = Seen { forward, reverse, state, named: Named::NotYet };
        log.records.add(log.record(&told, seen, (Event::Begin, now), None, (settings.worker, snapshot)));
    }

    /// A flow has ended, or is left as a trace only. Traces have been told of before. It is told under the snapshot that it
    /// was decided under: the one that ended it may know neither its port nor its endpoint. `named`: what its client has named.
    #[cold]
    pub(super) fn log_end<A: Family>(
        &mut self,
        id: FlowId,
        (forward, reverse): (&FlowKey<A>, &FlowKey<A>),
        (state, named): (&FlowState, Named),
        ending: Ending,
        now: u64,
    ) {
        if is_trace(state) {
            return;
        }
        let Self { log: Some(log), snapshot, settings, .. } = self else { return };
        let kept = log.kept::<A>();
        let told = kept.told.get(id.index()).unwrap_or_else(|| from_here(state, now, now));
        kept.told.set(id.index(), None);
        let name = if kept.names.is_empty() { None } else { kept.names.remove(&id.index()) };
        if !log.records.want(Event::End(ending)) {
            return;
        }
        let seen = Seen { forward, reverse, state, named };
        log.records.add(log.record(&told, seen, (Event::End(ending), now), name, (settings.worker, snapshot)));
    }

    /// A SYN goes by a flow. Where it is the first of another connection on the same ports, the one before has ended.
    #[cold]
    pub(super) fn log_syn<A: Family>(
        &mut self,
        flows: &FlowTable<A, FlowState>,
        (id, direction): (FlowId, Direction),
        parsed: &Parsed,
        now: u64,
    ) {
        if flows.state(id).is_some_and(|state| state.begins_anew(direction, parsed)) {
            self.log_anew(flows, id, Phase::Opening, now);
        }
    }

    /// Another conversation takes the place of one, and begins in this phase. How long the answer takes is only known of
    /// TCP: of others nobody notices.
    #[cold]
    pub(super) fn log_anew<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, id: FlowId, phase: Phase, now: u64) {
        let (Some((forward, reverse)), Some(state)) = (keys(flows, id), flows.state(id)) else { return };
        let before = self.log.as_mut().and_then(|log| log.named_before.take());
        let before = before.filter(|(family, place, _)| (*family, *place) == (size_of::<A>(), id.index()));
        let named = before.map_or_else(|| redecide::named(self, forward, state), |(.., named)| named);
        self.log_end(id, (forward, reverse), (state, named), Ending::Reused, now);
        let mut begun = *state;
        begun.phase = phase;
        self.log_began(id, (forward, reverse), &begun, now);
        if phase != Phase::Opening
            && let Some(log) = &mut self.log
        {
            let told = log.kept::<A>();
            let silent = told.told.get(id.index()).map(|told| Told { asked: 0, ..told });
            told.told.set(id.index(), silent.as_ref());
        }
    }

    /// The phase of a flow has changed, or it had its first answer.
    #[cold]
    pub(super) fn log_change<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, id: FlowId, now: u64) {
        let (Some((forward, reverse)), Some(state)) = (keys(flows, id), flows.state(id)) else { return };
        let Self { log: Some(log), snapshot, settings, .. } = self else { return };
        let micros = log.micros;
        let kept = log.kept::<A>();
        let Some(mut told) = kept.told.get(id.index()).filter(|told| told.asked != 0) else { return };
        let open = match state.phase {
            Phase::Established => true,
            Phase::Query | Phase::Datagram => !state.packets.contains(&0),
            _ => false,
        };
        let over = matches!(state.phase, Phase::Closed | Phase::Aborted);
        if !open && !over {
            return;
        }
        if open {
            told.round_trip = Some(micros.saturating_sub(told.asked).try_into().unwrap_or(u32::MAX));
        }
        told.asked = 0;
        kept.told.set(id.index(), Some(&told));
        if !open {
            return;
        }
        let name = if kept.names.is_empty() { None } else { kept.names.get(&id.index()).cloned() };
        let seen = Seen { forward, reverse, state, named: Named::NotYet };
        let mut record = log.record(&told, seen, (Event::Reply, now), name, (settings.worker, snapshot));
        // What has passed is told with what comes.
        (record.packets, record.bytes) = ([0; 2], [0; 2]);
        log.records.add(record);
    }

    /// A connection has said what it wants.
    #[cold]
    pub(super) fn log_name<A: Family>(&mut self, id: FlowId, name: &str) {
        if let Some(log) = &mut self.log {
            log.kept::<A>().names.insert(id.index(), name.into());
        }
    }

    /// What the connection has named whose ports a SYN takes that comes next.
    #[cold]
    pub(super) fn log_named_before<A: Family>(&mut self, id: FlowId, named: Named) {
        if let Some(log) = &mut self.log {
            log.named_before = Some((size_of::<A>(), id.index(), named));
        }
    }

    /// What is known of a packet whose verdict comes next.
    #[cold]
    pub(super) fn log_denied(&mut self, denied: Denied) {
        if let Some(log) = &mut self.log {
            log.denied = denied;
        }
    }

    /// A packet that ends here.
    #[cold]
    pub(super) fn log_ended(&mut self, event: Event, about: About, bytes: u64, now: u64) {
        let Some(log) = &mut self.log else { return };
        let denied = std::mem::take(&mut log.denied);
        self.log_known_packets(event, about, (1, bytes), denied, now);
    }

    /// Packets that end here, or that no flow counts.
    #[cold]
    pub(super) fn log_packets(&self, event: Event, about: About, packets: u64, bytes: u64, now: u64) {
        self.log_known_packets(event, about, (packets, bytes), Denied::default(), now);
    }

    fn log_known_packets(&self, event: Event, about: About, (packets, bytes): (u64, u64), denied: Denied, now: u64) {
        let Some(log) = self.log.as_ref().filter(|log| log.records.want(event)) else { return };
        let Denied { named, name, presented } = denied;
        log.records.add(Record {
            event,
            at: now,
            began: now,
            about,
            packets: [packets, 0],
            bytes: [bytes, 0],
            next_hop_type: None,
            phase: None,
            named,
            name,
            presented,
            round_trip: None,
            worker: self.settings.worker,
            snapshot: self.snapshot.clone(),
        });
    }

    /// The snapshot before is needed until every flow has been decided again.
    pub(super) fn log_adopted(&mut self, before: Arc<Snapshot>) {
        let Some(log) = &mut self.log else { return };
        if log.former.len() == FORMER {
            log.former.remove(0);
        }
        log.former.push(before);
    }

    /// Every flow is of the current snapshot.
    pub(super) fn log_settled(&mut self) {
        if let Some(log) = &mut self.log {
            log.former.clear();
        }
    }

    /// The time in microseconds.
    #[inline]
    pub(super) fn log_micros(&mut self, micros: u64) {
        if let Some(log) = &mut self.log {
            // 0 says that nothing is waited for.
            log.micros = micros.max(1);
        }
    }

    /// When [`Core::log_step`] may have something to do.
    pub(super) fn next_log_step(&self) -> Option<u64> {
        self.log.as_ref().map(|log| log.next_step)
    }

    /// Goes on with the walk over both tables, by at most `budget` flows of each.
    pub(super) fn log_step(
        &mut self,
        v4: &FlowTable<u32, FlowState>,
        v6: &FlowTable<u128, FlowState>,
        now: u64,
        budget: usize,
    ) {
        let Some(log) = self.log.as_mut().filter(|log| log.next_step <= now) else { return };
        if log.next_look <= now {
            log.next_look = now + LOOK;
            for (walk, places) in [(&mut log.v4.walk, v4.places()), (&mut log.v6.walk, v6.places())] {
                walk.left = walk.left.max(places.div_ceil(LOOKS));
            }
        }
        let step = self.walk(v4, now, budget).min(self.walk(v6, now, budget));
        if let Some(log) = &mut self.log {
            log.next_step = match step {
                Step::More => now,
                Step::Full => now + PAUSE,
                Step::Done => log.next_look,
            };
        }
    }

    /// Walks a table: flows that go on and have not been told for long are told, and those that were there before are told
    /// from here on.
    fn walk<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, now: u64, budget: usize) -> Step {
        let (mut flows_left, mut places_left) = (budget.max(1), budget.max(1).saturating_mul(PLACES));
        loop {
            let Some(log) = &mut self.log else { return Step::Done };
            let Kept { told, walk, .. } = log.kept::<A>();
            if walk.left == 0 || flows.places() == 0 {
                walk.left = 0;
                walk.first = false;
                return Step::Done;
            }
            if flows_left == 0 || places_left == 0 {
                return Step::More;
            }
            if walk.place >= flows.places() {
                walk.place = 0;
            }
            let place = walk.place;
            match told.get(place) {
                Some(told) if told.due <= now => {
                    if !log.records.is_half_empty() {
                        return Step::Full;
                    }
                    self.log_going_on(flows, place, &told, now);
                    flows_left -= 1;
                }
                None if walk.first => {
                    if let Some(state) = flows.at(place).and_then(|id| flows.state(id)).filter(|state| !is_trace(state))
                    {
                        told.set(place, Some(&from_here(state, now, now + spread(place))));
                        flows_left -= 1;
                    }
                }
                _ => {}
            }
            let Some(log) = &mut self.log else { return Step::Done };
            let walk = &mut log.kept::<A>().walk;
            walk.place += 1;
            walk.left -= 1;
            places_left -= 1;
        }
    }

    /// A flow goes on.
    fn log_going_on<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, place: u32, told: &Told, now: u64) {
        let Some(id) = flows.at(place) else { return };
        let (Some((forward, reverse)), Some(state)) = (keys(flows, id), flows.state(id)) else { return };
        let named = redecide::named(self, forward, state);
        let Self { log: Some(log), snapshot, settings, .. } = self else { return };
        let kept = log.kept::<A>();
        let name = if kept.names.is_empty() { None } else { kept.names.get(&place).cloned() };
        let next = Told { packets: state.packets, bytes: state.bytes, due: now + CONTINUING, ..*told };
        kept.told.set(place, Some(&next));
        if !log.records.want(Event::Continue) {
            return;
        }
        let seen = Seen { forward, reverse, state, named };
        log.records.add(log.record(told, seen, (Event::Continue, now), name, (settings.worker, snapshot)));
    }

    /// How long ago a flow began, in milliseconds, if that is known.
    pub(super) fn log_age<A: Family>(&self, id: FlowId, now: u64) -> Option<u64> {
        let log = self.log.as_ref()?;
        let kept = if size_of::<A>() == size_of::<u32>() { &log.v4 } else { &log.v6 };
        // What began before the clock did has wrapped around.
        kept.told.get(id.index()).map(|told| now.wrapping_sub(told.began))
    }

    /// A flow of another process goes on, which has told of it: what comes is told. `began`: how many milliseconds ago.
    pub(super) fn log_restored<A: Family>(&mut self, id: FlowId, state: &FlowState, began: Option<u64>, now: u64) {
        let Some(log) = &mut self.log else { return };
        let began = now.wrapping_sub(began.unwrap_or_default());
        let told = from_here(state, began, now + spread(id.index()));
        log.kept::<A>().told.set(id.index(), Some(&told));
    }

    /// A flow of another process does not go on. That process has told what passed.
    pub(super) fn log_left_out(
        &self,
        sides: Sides,
        (state, named): (&FlowState, Named),
        began: Option<u64>,
        ending: Ending,
        now: u64,
    ) {
        let event = Event::End(ending);
        let Some(log) = self.log.as_ref().filter(|log| !is_trace(state) && log.records.want(event)) else { return };
        log.records.add(Record {
            event,
            at: now,
            began: now.wrapping_sub(began.unwrap_or_default()),
            about: About::Flow(sides),
            packets: [0; 2],
            bytes: [0; 2],
            next_hop_type: Some(state.next_hop_type),
            phase: Some(state.phase),
            named,
            name: None,
            presented: None,
            round_trip: None,
            worker: self.settings.worker,
            snapshot: self.snapshot.clone(),
        });
    }

    /// What is left to tell of every flow when a node ends; `saved`: those that can be saved go on.
    pub(super) fn log_rest<A: Family>(
        &mut self,
        flows: &FlowTable<A, FlowState>,
        saved: bool,
        now: u64,
        visit: &mut impl FnMut(Record),
    ) {
        for (id, forward, reverse, state) in flows.iter().filter(|(.., state)| !is_trace(state)) {
            let named = redecide::named(self, forward, state);
            let Self { log: Some(log), snapshot, settings, .. } = &mut *self else { return };
            let kept = log.kept::<A>();
            let told = kept.told.get(id.index()).unwrap_or_else(|| from_here(state, now, now));
            let name = kept.names.get(&id.index()).cloned();
            // When it began is saved with it.
            kept.told.set(id.index(), Some(&from_here(state, told.began, told.due)));
            let goes_on = saved && !state.is_watched();
            let event = if goes_on { Event::Continue } else { Event::End(Ending::Stopped) };
            let seen = Seen { forward, reverse, state, named };
            visit(log.record(&told, seen, (event, now), name, (settings.worker, snapshot)));
        }
    }
}

fn keys<A: Family>(flows: &FlowTable<A, FlowState>, id: FlowId) -> Option<(&FlowKey<A>, &FlowKey<A>)> {
    flows.key(id, Direction::Forward).zip(flows.key(id, Direction::Reverse))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_that_were_there_are_told_in_turn() {
        let mut by_second = [0_u32; 300];
        for place in 0..300_000 {
            let due = spread(place);
            assert!((1..=CONTINUING).contains(&due));
            by_second[(due - 1) as usize / 1_000] += 1;
        }
        let (fewest, most) = (by_second.iter().min().unwrap(), by_second.iter().max().unwrap());
        assert!(*fewest > 990 && *most < 1_010, "1,000 a second: {fewest} to {most}");
    }
}
