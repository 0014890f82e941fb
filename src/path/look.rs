//! Which flows are the fastest, and what each kind of path carries: a look at the flows of one worker, again and again.
//!
//! A flow has no rate, only counters. A look remembers those of a bounded number of flows ([`REMEMBERED`]), reads the same
//! flows the next time, and the differences are the rates. Each time it also walks a bounded part of the table
//! ([`WALKED`]) and remembers flows that it has not met. So a table with no more flows than that is seen whole, and a flow
//! that is not in the last look has begun since. Of a larger one, a look goes on where the last one stopped, and flows
//! that carry something take the places of those that do not: the answer is a sample until every flow has been met, and
//! says how large it is.
//!
//! It is done in steps between two batches of packets, as [`super::Forwarder::foresee`] is, and takes 20 ms or less in
//! all, however many flows there are. No packet does more because somebody looks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::flow::{Family, FlowState, Phase};
use super::forwarder::{FlowSummary, summary};
use super::kind::PathKind;
use super::words::Words;
use crate::snapshot::{NextHopType, PortId};
use crate::table::flow::{Direction, FlowId, FlowTable};

/// Flows that are remembered from one look to the next, of each family: 64 bytes each in the map, so 2 MiB. Reading twice as
/// many (and as many again that a look walks past) took 45 ms of a worker, of a busy machine and a table of a million flows.
pub const REMEMBERED: usize = 1 << 15;

/// Flows that a look walks past at most, of each family: as many as are remembered, so that it can see them all.
pub const WALKED: usize = REMEMBERED;

/// How many free places count as one flow: passing one reads a cache line and no more.
const PLACES: usize = 16;

/// Milliseconds within which a flow that had a packet is worth the place of one that carries nothing.
const ACTIVE: u64 = 2000;

/// Most flows that a look tells of.
pub const LISTED: usize = 2000;

/// Packets and bytes of flows, each there and back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets there and back.
    pub packets: [u64; 2],
    /// Bytes there and back.
    pub bytes: [u64; 2],
}

impl Counted {
    fn of(state: &FlowState) -> Self {
        Self { packets: state.packets, bytes: state.bytes }
    }

    fn since(self, before: Self) -> Self {
        let minus = |[there, back]: [u64; 2], [before_there, before_back]: [u64; 2]| {
            [there.saturating_sub(before_there), back.saturating_sub(before_back)]
        };
        Self { packets: minus(self.packets, before.packets), bytes: minus(self.bytes, before.bytes) }
    }

    /// Adds more of both.
    pub fn add(&mut self, more: Self) {
        let plus = |sum: &mut [u64; 2], more: [u64; 2]| {
            for (sum, more) in sum.iter_mut().zip(more) {
                *sum = sum.saturating_add(more);
            }
        };
        plus(&mut self.packets, more.packets);
        plus(&mut self.bytes, more.bytes);
    }

    fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// What flows of one kind of path have carried since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathCounted {
    /// Flows that are known, whether they carried something or not.
    pub flows: u64,
    /// What they carried.
    pub counted: Counted,
}

/// A flow and what it has carried since the last look.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// The flow.
    pub flow: FlowSummary,
    /// What it carried.
    pub counted: Counted,
}

/// What to order flows by, most first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// Bytes of both directions.
    #[default]
    Bytes,
    /// Packets of both directions.
    Packets,
    /// Bytes of both directions since the flow began.
    Total,
}

/// What is wanted of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Flows to tell of, [`LISTED`] at most.
    pub listed: usize,
    /// Of one kind of path only.
    pub path: Option<PathKind>,
    /// Those only that have these words somewhere.
    pub words: Arc<Words>,
    /// What they are ordered by.
    pub by: By,
    /// Whether sums by port, next hop and port are wanted, of every flow that is known.
    pub lines: bool,
}

/// Traffic by one way: the port that its first packets enter by, the type of the next hop, and the port that they leave by.
pub type Line = (PortId, NextHopType, PortId);

/// What a look found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Milliseconds since the last look; none for the first one, which knows no rates.
    pub elapsed: Option<u64>,
    /// Flows that there are; where not all are known, with the traces of those that have ended.
    pub flows: u64,
    /// Flows that are known: rates and sums are those of these.
    pub known: u64,
    /// Sums, by [`PathKind::ALL`].
    pub paths: [PathCounted; 4],
    /// The flows that carried most, the most first.
    pub fastest: Vec<Carried>,
    /// Sums by line where they are wanted: flows that have not ended, or carried something. No more than flows are remembered.
    pub lines: HashMap<Line, PathCounted>,
}

impl Found {
    /// Takes in what another worker found.
    pub fn add(&mut self, other: Self, wanted: &Wanted) {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.flows += other.flows;
        self.known += other.known;
        for (sum, more) in self.paths.iter_mut().zip(other.paths) {
            sum.flows += more.flows;
            sum.counted.add(more.counted);
        }
        for (line, more) in other.lines {
            let sum = self.lines.entry(line).or_default();
            sum.flows += more.flows;
            sum.counted.add(more.counted);
        }
        self.fastest.extend(other.fastest);
        self.fastest.sort_by_key(|carried| Reverse(amount(carried, wanted.by)));
        self.fastest.truncate(wanted.listed);
    }
}

/// What is remembered of the flows of one worker.
#[derive(Debug, Default)]
pub struct Look {
    v4: Family4or6,
    v6: Family4or6,
    /// When the last look began.
    last: Option<u64>,
    now: u64,
    running: Option<Running>,
}

/// What is remembered of the flows of one family.
#[derive(Debug, Default)]
struct Family4or6 {
    remembered: HashMap<FlowId, Counted>,
    /// The place in the table that the next look goes on from.
    place: u32,
    /// Whether every flow of the table was known after the last look.
    whole: bool,
    /// Ids still to be read again in this look.
    again: Vec<FlowId>,
    /// Known flows that carried nothing: their places may be taken.
    idle: Vec<FlowId>,
    /// Flows still to be walked past in this look.
    left: usize,
    /// Where this look's walk began.
    begin: u32,
    /// Whether a flow had to be left out.
    left_out: bool,
    done: bool,
}

#[derive(Debug)]
struct Running {
    wanted: Wanted,
    found: Found,
    /// The amounts of the fastest, the smallest on top, each with its place in the list.
    heap: BinaryHeap<Reverse<(u64, usize)>>,
}

fn amount(carried: &Carried, by: By) -> u64 {
    let [there, back] = match by {
        By::Bytes => carried.counted.bytes,
        By::Packets => carried.counted.packets,
        By::Total => carried.flow.state.bytes,
    };
    there.saturating_add(back)
}

impl Look {
    /// Begins the next look.
    pub fn begin(&mut self, wanted: Wanted) {
        let wanted = Wanted { listed: wanted.listed.min(LISTED), ..wanted };
        self.running = Some(Running { wanted, found: Found::default(), heap: BinaryHeap::new() });
        for family in [&mut self.v4, &mut self.v6] {
            family.again = family.remembered.keys().copied().collect();
            family.idle.clear();
            (family.left, family.begin) = (WALKED, family.place);
            (family.left_out, family.done) = (false, false);
        }
        self.now = 0;
    }

    /// Ends the look: what it found.
    pub fn found(&mut self) -> Found {
        let Some(Running { mut found, wanted, .. }) = self.running.take() else { return Found::default() };
        found.elapsed = self.last.map(|last| self.now.saturating_sub(last)).filter(|elapsed| *elapsed > 0);
        found.fastest.sort_by_key(|carried| Reverse(amount(carried, wanted.by)));
        self.last = Some(self.now);
        found
    }

    /// Looks at `budget` more flows of each family; false when all is done.
    pub(super) fn step(
        &mut self,
        v4: &FlowTable<u32, FlowState>,
        v6: &FlowTable<u128, FlowState>,
        now: u64,
        budget: usize,
    ) -> bool {
        let Some(running) = &mut self.running else { return false };
        if self.now == 0 {
            self.now = now.max(1);
        }
        if !self.v4.done {
            self.v4.step(v4, running, now, budget);
        }
        if !self.v6.done {
            self.v6.step(v6, running, now, budget);
        }
        if !(self.v4.done && self.v6.done) {
            return true;
        }
        for (family, flows) in [(&self.v4, v4.len()), (&self.v6, v6.len())] {
            let known = family.remembered.len();
            // What else is in a table that was walked whole are traces of flows that have ended.
            running.found.flows += if family.whole { known } else { flows } as u64;
            running.found.known += known as u64;
        }
        false
    }
}

#[cfg(test)]
impl Look {
    /// Looks at flows that are in no worker's table, all at once.
    pub(crate) fn look_at(&mut self, flows: &[FlowSummary], now: u64) {
        let mut v4 = FlowTable::new(flows.len(), 1);
        for FlowSummary { sides, state } in flows {
            let number = |address| u32::from_ip(address).unwrap();
            let forward = |(source, sport), (destination, dport), port: PortId| {
                crate::table::flow::FlowKey::new(
                    number(source),
                    number(destination),
                    sport,
                    dport,
                    port.0,
                    sides.protocol,
                )
            };
            let keys = (
                forward(sides.source, sides.destination, sides.ingress),
                forward(sides.reached, sides.presented, sides.egress),
            );
            v4.insert(keys.0, keys.1, *state, 1 << 40, false).unwrap();
        }
        let v6 = FlowTable::new(1, 1);
        while self.step(&v4, &v6, now, 256) {}
    }
}

impl Family4or6 {
    fn step<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, running: &mut Running, now: u64, budget: usize) {
        let mut budget = budget.max(1);
        while budget > 0 {
            let Some(id) = self.again.pop() else { break };
            budget -= 1;
            match read(flows, id) {
                None => {
                    self.remembered.remove(&id);
                }
                Some(flow) => {
                    let counted = Counted::of(&flow.state);
                    let before = self.remembered.insert(id, counted).unwrap_or(counted);
                    let carried = counted.since(before);
                    if carried.is_nothing() {
                        self.idle.push(id);
                    }
                    running.count(flow, carried);
                }
            }
        }
        if budget > 0 && self.again.is_empty() {
            self.walk(flows, running, now, budget);
        }
    }

    fn walk<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, running: &mut Running, now: u64, budget: usize) {
        let places = flows.places();
        let mut budget = budget.min(self.left);
        for _ in 0..budget.saturating_mul(PLACES) {
            if budget == 0 {
                break;
            }
            if self.place >= places {
                if self.begin == 0 {
                    return self.end(true);
                }
                // From the first place on to where this look began.
                self.place = 0;
                (self.left, self.begin) = (self.left.min(self.begin as usize), 0);
                if self.left == 0 {
                    return self.end(false);
                }
                budget = budget.min(self.left);
                continue;
            }
            let id = flows.at(self.place);
            self.place += 1;
            let Some(id) = id else { continue };
            budget -= 1;
            self.left = self.left.saturating_sub(1);
            if self.remembered.contains_key(&id) {
                continue;
            }
            let Some(flow) = read(flows, id) else { continue };
            self.meet(id, flow, running, now);
        }
        if self.left == 0 {
            self.end(self.place >= places && self.begin == 0);
        }
    }

    /// A flow that was not known.
    fn meet(&mut self, id: FlowId, flow: FlowSummary, running: &mut Running, now: u64) {
        let counted = Counted::of(&flow.state);
        if self.remembered.len() >= REMEMBERED {
            let active = flow.state.last_seen() + ACTIVE >= now;
            let Some(idle) = self.idle.pop().filter(|_| active) else {
                self.left_out = true;
                return;
            };
            self.left_out = true;
            self.remembered.remove(&idle);
        }
        self.remembered.insert(id, counted);
        // Where every flow was known, this one has begun since, and all that it carried it carried since.
        let carried = if self.whole { counted } else { Counted::default() };
        running.count(flow, carried);
    }

    fn end(&mut self, to_the_end: bool) {
        self.whole = to_the_end && !self.left_out;
        self.done = true;
        if to_the_end {
            self.place = 0;
        }
    }
}

impl Running {
    fn count(&mut self, flow: FlowSummary, counted: Counted) {
        let kind = PathKind::of(flow.state.next_hop_type);
        if let Some(path) = self.found.paths.get_mut(kind.index()) {
            path.flows += 1;
            path.counted.add(counted);
        }
        // What is left of a flow that has ended is no traffic.
        if self.wanted.lines && (!counted.is_nothing() || !has_ended(flow.state.phase)) {
            let line = (flow.sides.ingress, flow.state.next_hop_type, flow.sides.egress);
            let sum = self.found.lines.entry(line).or_default();
            sum.flows += 1;
            sum.counted.add(counted);
        }
        if self.wanted.path.is_some_and(|wanted| wanted != kind) || !self.wanted.words.are_in(&flow) {
            return;
        }
        let carried = Carried { flow, counted };
        let (amount, fastest) = (amount(&carried, self.wanted.by), &mut self.found.fastest);
        if fastest.len() < self.wanted.listed {
            self.heap.push(Reverse((amount, fastest.len())));
            fastest.push(carried);
        } else if let Some(&Reverse((least, place))) = self.heap.peek()
            && amount > least
            && let Some(slot) = fastest.get_mut(place)
        {
            *slot = carried;
            self.heap.pop();
            self.heap.push(Reverse((amount, place)));
        }
    }
}

const fn has_ended(phase: Phase) -> bool {
    matches!(phase, Phase::Closed | Phase::Reset | Phase::Moved | Phase::Aborted | Phase::Resting)
}

/// A flow that is there and has not ended in a trace.
fn read<A: Family>(flows: &FlowTable<A, FlowState>, id: FlowId) -> Option<FlowSummary> {
    let (forward, reverse, state) =
        (flows.key(id, Direction::Forward)?, flows.key(id, Direction::Reverse)?, flows.state(id)?);
    (!matches!(state.phase, Phase::Reset | Phase::Moved)).then(|| summary(forward, reverse, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::NextHopType;
    use crate::table::flow::FlowKey;

    fn wanted() -> Wanted {
        Wanted { listed: 3, path: None, words: Arc::default(), by: By::Bytes, lines: false }
    }

    struct Flows {
        v4: FlowTable<u32, FlowState>,
        v6: FlowTable<u128, FlowState>,
        ids: Vec<FlowId>,
    }

    impl Flows {
        fn new(limit: usize) -> Self {
            Self { v4: FlowTable::new(limit, 1), v6: FlowTable::new(16, 1), ids: Vec::new() }
        }

        fn add(&mut self, count: u32, next_hop_type: NextHopType) {
            for _ in 0..count {
                let number = self.ids.len() as u32;
                let forward = FlowKey::new(number, 1, 1, 80, 0, 6);
                let reverse = FlowKey::new(1, number, 80, 1, 1, 6);
                let state = FlowState::at(Phase::Established, next_hop_type, 1);
                self.ids.push(self.v4.insert(forward, reverse, state, 1 << 40, false).unwrap());
            }
        }

        fn carry(&mut self, flow: usize, bytes: u64) {
            let state = self.v4.state_mut(self.ids[flow]).unwrap();
            state.bytes[0] += bytes;
            state.packets[1] += 1;
        }

        /// One look, in steps.
        fn look(&self, look: &mut Look, now: u64, wanted: Wanted) -> Found {
            look.begin(wanted);
            let mut steps = 0;
            while look.step(&self.v4, &self.v6, now, 256) {
                steps += 1;
                assert!(steps < 10_000, "a look ends");
            }
            look.found()
        }
    }

    fn bytes(found: &Found) -> Vec<u64> {
        found.fastest.iter().map(|carried| carried.counted.bytes.iter().sum()).collect()
    }

    #[test]
    fn differences_between_two_looks_are_found_and_the_most_is_first() {
        let mut flows = Flows::new(100);
        flows.add(5, NextHopType::VirtualNetworkGateway);
        flows.carry(0, 1_000_000);
        let mut look = Look::default();
        let first = flows.look(&mut look, 1000, wanted());
        assert_eq!((first.elapsed, first.flows, first.known), (None, 5, 5));
        assert_eq!(first.paths[1].counted, Counted::default(), "what it carried before is no rate");

        for (flow, bytes) in [(1, 50), (3, 700), (4, 6), (2, 80)] {
            flows.carry(flow, bytes);
        }
        let second = flows.look(&mut look, 3000, wanted());
        assert_eq!((second.elapsed, bytes(&second)), (Some(2000), vec![700, 80, 50]));
        assert_eq!(second.paths[1].counted, Counted { packets: [0, 4], bytes: [836, 0] });
        assert_eq!(second.paths[0].flows, 0);
        assert_eq!(bytes(&flows.look(&mut look, 4000, wanted())), [0, 0, 0], "nothing since");
    }

    #[test]
    fn a_flow_that_began_since_carried_everything_since() {
        let mut flows = Flows::new(100);
        flows.add(2, NextHopType::VirtualNetworkGateway);
        let mut look = Look::default();
        flows.look(&mut look, 1000, wanted());
        flows.v4.remove(flows.ids[0]);
        flows.add(1, NextHopType::VirtualNetworkServiceEndpoint);
        flows.carry(2, 4000);
        let found = flows.look(&mut look, 2000, wanted());
        assert_eq!(bytes(&found), [4000, 0]);
        assert_eq!((found.flows, found.known), (2, 2), "the one that ended is forgotten");
        assert_eq!(PathKind::of(found.fastest[0].flow.state.next_hop_type), PathKind::Endpoint);
        assert_eq!((found.paths[0].counted.bytes, found.paths[1].flows), ([4000, 0], 1));
        // A trace is no flow.
        flows.v4.state_mut(flows.ids[1]).unwrap().phase = Phase::Moved;
        let found = flows.look(&mut look, 3000, wanted());
        assert_eq!((found.flows, found.known, found.paths[1].flows), (1, 1, 0));
    }

    #[test]
    fn one_kind_of_path_and_packets_can_be_asked_for() {
        let mut flows = Flows::new(100);
        flows.add(2, NextHopType::VirtualNetworkServiceEndpoint);
        flows.add(2, NextHopType::Internet);
        let mut look = Look::default();
        let internet = Wanted { path: Some(PathKind::Internet), by: By::Packets, ..wanted() };
        flows.look(&mut look, 1000, internet.clone());
        flows.carry(0, 9000);
        flows.carry(2, 9000);
        flows.carry(3, 1);
        flows.carry(3, 1);
        let found = flows.look(&mut look, 2000, internet);
        assert_eq!(bytes(&found), [2, 9000], "two packets before one");
        assert_eq!(found.paths[0].counted.bytes, [9000, 0], "sums are of all");
    }

    #[test]
    fn of_more_flows_than_are_remembered_the_fast_ones_are_found_after_some_looks() {
        let many = 3 * REMEMBERED as u32;
        let mut flows = Flows::new(many as usize);
        flows.add(many, NextHopType::Internet);
        let mut look = Look::default();
        // The last one in the table; it goes on, everybody else is silent.
        let fast = many as usize - 1;
        let mut found = Found::default();
        for second in 1..=5 {
            flows.carry(fast, 1000);
            let now = 1_000_000 * second;
            let state = flows.v4.state_mut(flows.ids[fast]).unwrap();
            state.touch(now);
            found = flows.look(&mut look, now, wanted());
            assert!(found.known <= REMEMBERED as u64 && found.flows == u64::from(many));
        }
        assert_eq!(bytes(&found)[0], 1000, "found, and with what it carried since the last look alone");
    }

    #[test]
    fn workers_are_added_up() {
        let carried = |bytes| {
            let mut flows = Flows::new(10);
            flows.add(1, NextHopType::VnetLocal);
            let mut look = Look::default();
            flows.look(&mut look, 1000, wanted());
            flows.carry(0, bytes);
            flows.look(&mut look, 2000, wanted())
        };
        let mut sum = Found::default();
        for bytes in [5, 70, 6, 8] {
            sum.add(carried(bytes), &wanted());
        }
        assert_eq!((bytes(&sum), sum.flows, sum.elapsed), (vec![70, 8, 6], 4, Some(1000)));
        assert_eq!(sum.paths[3].counted.bytes, [89, 0]);
    }
}
