//! Records of flows, for flow logs: what began, goes on and ended, with what passed since the record before, and every packet
//! that did not leave.
//!
//! Workers make them while somebody wants them, into bounded queues, one for each worker; what finds no room is counted with
//! its packets and bytes. So at any time, for packets as for bytes:
//!
//! ```text
//! forwarded = flows told + flows not told yet + related - unsent + lost
//! ```
//!
//! and, for packets, answered and dropped are what records tell of packets that ended here, plus what was lost of those. While
//! nobody wants them there is none of it: no memory, and a comparison or two a packet.
//!
//! What a record does not tell itself follows from its snapshot, which it carries: rules, endpoint, names. Whoever reads it finds
//! them out, off the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;

use super::core::Core;
use super::flow::{Family, FlowState, Phase};
use super::policy::Named;
use super::redecide::{self, Sides, sides};
use super::subject::Subject;
use super::verdict::{Answer, DropReason};
use crate::snapshot::{NextHopType, PortId, Snapshot};
use crate::table::flow::{Direction, FlowId, FlowKey, FlowTable};

/// Records of one worker that wait to be taken: a thousand connections that begin, are answered and end in each of ten
/// milliseconds fit.
const WAITING: usize = 1 << 15;

/// How often a flow that goes on is told, in milliseconds (Azure, "Virtual network flow logs": every five minutes).
pub const CONTINUING: u64 = 300_000;

/// How often some of the flows are looked at, in milliseconds, and into how many parts the table is cut for it: a flow that goes
/// on is told ten seconds late at most.
const LOOK: u64 = 1_000;
const PARTS: u32 = 10;

/// What a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A flow was made.
    Begin,
    /// Its first answer: TCP is open, or another protocol had something back. Tells no packets.
    Reply,
    /// It goes on.
    Continue,
    /// It has ended.
    End(Ending),
    /// A packet was not forwarded, and somebody was told.
    Answered(Answer),
    /// A packet was dropped; a fragment that waited in vain has no addresses any more.
    Dropped(DropReason),
    /// An ICMP error about a flow went back along it. No flow counts it.
    Related,
    /// Packets that flows have counted could then not leave.
    Unsent(DropReason),
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It fell idle, or its connection was closed and nothing more came.
    Expired,
    /// Another one needed the room.
    Evicted,
    /// A change gave it another path, or none.
    Changed,
    /// What its client named, or did, is denied.
    Denied,
    /// Its addresses and ports are used for another connection.
    Reused,
    /// The node has ended.
    Stopped,
}

impl Ending {
    /// The stable name, as records carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Changed => "changed",
            Self::Denied => "denied",
            Self::Reused => "reused",
            Self::Stopped => "stopped",
        }
    }
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A flow.
    Flow(Sides),
    /// A packet as it entered.
    Packet(Subject),
    /// Packets of which nothing is known but the port: where they entered; none where that is not known either.
    Port(Option<PortId>),
}

/// One record.
#[derive(Debug, Clone)]
pub struct Record {
    /// What it tells.
    pub event: Event,
    /// When, in milliseconds of the workers' clock.
    pub at: u64,
    /// When the flow began, or began to be followed.
    pub began: u64,
    /// Whom it is about.
    pub about: About,
    /// Packets since the record before of the flow, in each direction.
    pub packets: [u64; 2],
    /// Their bytes.
    pub bytes: [u64; 2],
    /// Type of the next hop of a flow.
    pub next_hop_type: Option<NextHopType>,
    /// How far a flow is.
    pub phase: Option<Phase>,
    /// What the connection named.
    pub named: Named,
    /// The name itself.
    pub name: Option<Box<str>>,
    /// How long the first answer took, in microseconds: of TCP the handshake, of others the first packet back.
    pub round_trip: Option<u32>,
    /// The worker.
    pub worker: u16,
    /// What it was decided by.
    pub snapshot: Arc<Snapshot>,
}

/// Records of one worker that wait, and what found no room.
#[derive(Debug)]
pub struct Records {
    waiting: ArrayQueue<Record>,
    lost: AtomicU64,
    lost_packets: AtomicU64,
    lost_bytes: AtomicU64,
}

/// What found no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Records.
    pub records: u64,
    /// Packets in them.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            waiting: ArrayQueue::new(WAITING),
            lost: AtomicU64::new(0),
            lost_packets: AtomicU64::new(0),
            lost_bytes: AtomicU64::new(0),
        }
    }
}

impl Records {
    /// The oldest record.
    pub fn take(&self) -> Option<Record> {
        self.waiting.pop()
    }

    /// What found no room so far.
    pub fn lost(&self) -> Lost {
        Lost {
            records: self.lost.load(Relaxed),
            packets: self.lost_packets.load(Relaxed),
            bytes: self.lost_bytes.load(Relaxed),
        }
    }

    /// Adds a record; false where there is no room, and nothing is counted.
    fn has_taken(&self, record: Record) -> bool {
        self.waiting.push(record).is_ok()
    }

    /// Adds a record, or counts it as lost.
    pub(crate) fn add(&self, record: Record) {
        if let Err(record) = self.waiting.push(record) {
            self.lose(&record);
        }
    }

    /// Counts a record that is lost.
    fn lose(&self, record: &Record) {
        self.lost.fetch_add(1, Relaxed);
        self.lost_packets.fetch_add(record.packets.iter().sum(), Relaxed);
        self.lost_bytes.fetch_add(record.bytes.iter().sum(), Relaxed);
    }
}

/// What has been told of a flow so far.
#[derive(Debug, Clone, Default)]
struct Told {
    packets: [u64; 2],
    bytes: [u64; 2],
    /// When it began, in milliseconds.
    began: u64,
    /// When it was told last.
    last: u64,
    /// When its first packet came, in microseconds; 0 once it is answered.
    asked: u64,
    round_trip: Option<u32>,
    name: Option<Box<str>>,
}

/// What a worker keeps to make records. Flows are found by their place in the table.
#[derive(Debug)]
pub(super) struct Log {
    records: Arc<Records>,
    v4: Vec<Told>,
    v6: Vec<Told>,
    /// The time in microseconds, of the batch that is being worked on.
    micros: u64,
    /// When flows that go on are looked at next, and the part of the tables.
    next_look: u64,
    part: u32,
}

impl Log {
    fn told<A: Family>(&mut self, place: u32) -> &mut Told {
        let list = if size_of::<A>() == size_of::<u32>() { &mut self.v4 } else { &mut self.v6 };
        let place = place as usize;
        if place >= list.len() {
            list.resize_with(place + 1, Told::default);
        }
        // The element was made just now where it was missing.
        #[allow(clippy::indexing_slicing, reason = "made above")]
        &mut list[place]
    }

    /// Adds a record, or counts it as lost.
    fn add(&self, record: Record) {
        self.records.add(record);
    }
}

/// A flow as records are made of it.
#[derive(Clone, Copy)]
struct Seen<'a, A> {
    forward: &'a FlowKey<A>,
    reverse: &'a FlowKey<A>,
    state: &'a FlowState,
}

/// A record of a flow, with what passed since the one before.
fn of_flow<A: Family>(
    told: &Told,
    seen: Seen<'_, A>,
    named: Named,
    event: Event,
    now: u64,
    (worker, snapshot): (u16, &Arc<Snapshot>),
) -> Record {
    let Seen { forward, reverse, state } = seen;
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
        name: told.name.clone(),
        round_trip: told.round_trip,
        worker,
        snapshot: snapshot.clone(),
    }
}

impl Core {
    /// Whether somebody wants records.
    #[inline]
    pub(super) fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// A flow has begun.
    #[cold]
    pub(super) fn log_begin<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, id: FlowId, now: u64) {
        let (Some(log), Some((forward, reverse)), Some(state)) = (&mut self.log, keys(flows, id), flows.state(id))
        else {
            return;
        };
        let asked = log.micros;
        let told = log.told::<A>(id.index());
        *told = Told {
            packets: state.packets,
            bytes: state.bytes,
            began: now,
            last: now,
            asked,
            round_trip: None,
            name: None,
        };
        let seen = Seen { forward, reverse, state };
        let record = of_flow(told, seen, Named::NotYet, Event::Begin, now, (self.settings.worker, &self.snapshot));
        log.add(record);
    }

    /// A flow has ended, or is left as a trace only. Traces have been told of before.
    #[cold]
    pub(super) fn log_end<A: Family>(
        &mut self,
        id: FlowId,
        (forward, reverse): (&FlowKey<A>, &FlowKey<A>),
        state: &FlowState,
        ending: Ending,
        now: u64,
    ) {
        if matches!(state.phase, Phase::Reset | Phase::Moved) {
            return;
        }
        let named = redecide::named(self, forward, state);
        let Some(log) = &mut self.log else { return };
        let told = std::mem::take(log.told::<A>(id.index()));
        let seen = Seen { forward, reverse, state };
        let record = of_flow(&told, seen, named, Event::End(ending), now, (self.settings.worker, &self.snapshot));
        log.add(record);
    }

    /// The phase of a flow has changed, or it had its first answer.
    #[cold]
    pub(super) fn log_change<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, id: FlowId, now: u64) {
        let Some((forward, reverse)) = keys(flows, id) else { return };
        let Some(state) = flows.state(id).copied() else { return };
        let Some(log) = &mut self.log else { return };
        let micros = log.micros;
        let told = log.told::<A>(id.index());
        if state.phase == Phase::Opening && told.asked == 0 {
            // The ports are used for another connection.
            let (forward, reverse) = (*forward, *reverse);
            self.log_end(id, (&forward, &reverse), &state, Ending::Reused, now);
            return self.log_begin(flows, id, now);
        }
        if matches!(state.phase, Phase::Closed | Phase::Aborted) {
            told.asked = 0;
        }
        let open = match state.phase {
            Phase::Established => true,
            Phase::Query | Phase::Datagram => !state.packets.contains(&0),
            _ => false,
        };
        if !open || told.asked == 0 {
            return;
        }
        told.round_trip = Some(micros.saturating_sub(told.asked).try_into().unwrap_or(u32::MAX));
        told.asked = 0;
        let seen = Seen { forward, reverse, state: &state };
        let mut record = of_flow(told, seen, Named::NotYet, Event::Reply, now, (self.settings.worker, &self.snapshot));
        // What has passed is told with what comes.
        (record.packets, record.bytes) = ([0; 2], [0; 2]);
        log.add(record);
    }

    /// A connection has said what it wants.
    #[cold]
    pub(super) fn log_name<A: Family>(&mut self, id: FlowId, name: &str) {
        if let Some(log) = &mut self.log {
            log.told::<A>(id.index()).name = Some(name.into());
        }
    }

    /// Packets that end here, or that no flow counts.
    #[cold]
    pub(super) fn log_packets(&self, event: Event, about: About, packets: u64, bytes: u64, now: u64) {
        let Some(log) = &self.log else { return };
        log.add(Record {
            event,
            at: now,
            began: now,
            about,
            packets: [packets, 0],
            bytes: [bytes, 0],
            next_hop_type: None,
            phase: None,
            named: Named::NotYet,
            name: None,
            round_trip: None,
            worker: self.settings.worker,
            snapshot: self.snapshot.clone(),
        });
    }

    /// Gives records to a queue from now on, or makes none any more. Flows that are there are told from here on.
    pub(super) fn log_to(&mut self, records: Option<Arc<Records>>, now: u64) {
        self.log = records.map(|records| {
            let (v4, v6) = (Vec::new(), Vec::new());
            Log { records, v4, v6, micros: 1, next_look: now + LOOK, part: 0 }
        });
    }

    /// What there is of a flow is not told: it was before records were made.
    pub(super) fn log_known<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, now: u64) {
        let Some(log) = &mut self.log else { return };
        for (id, _, _, state) in flows.iter() {
            let known = Told { packets: state.packets, bytes: state.bytes, began: now, last: now, ..Told::default() };
            *log.told::<A>(id.index()) = known;
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

    /// When [`Core::log_going_on`] may have something to do.
    pub(super) fn next_look(&self) -> Option<u64> {
        self.log.as_ref().map(|log| log.next_look)
    }

    /// The part of the tables that is to be looked at now for flows that go on.
    pub(super) fn log_part(&mut self, now: u64) -> Option<u32> {
        let log = self.log.as_mut().filter(|log| log.next_look <= now)?;
        log.next_look = now + LOOK;
        log.part = (log.part + 1) % PARTS;
        Some(log.part)
    }

    /// Tells flows of a part of a table that go on and have not been told for long.
    pub(super) fn log_going_on<A: Family>(&mut self, flows: &FlowTable<A, FlowState>, part: u32, now: u64) {
        let size = flows.places().div_ceil(PARTS);
        for place in part.saturating_mul(size)..part.saturating_add(1).saturating_mul(size).min(flows.places()) {
            let Some(log) = &mut self.log else { return };
            // What is told lies closer together than the flows.
            if now.saturating_sub(log.told::<A>(place).last) < CONTINUING {
                continue;
            }
            let Some(id) = flows.at(place) else { continue };
            let (Some((forward, reverse)), Some(state)) = (keys(flows, id), flows.state(id)) else { continue };
            if matches!(state.phase, Phase::Reset | Phase::Moved) {
                continue;
            }
            let named = redecide::named(self, forward, state);
            let Some(log) = &mut self.log else { return };
            let seen = Seen { forward, reverse, state };
            let told = log.told::<A>(place);
            let record = of_flow(told, seen, named, Event::Continue, now, (self.settings.worker, &self.snapshot));
            // Where there is no room it is told the next time, with what comes until then.
            if log.records.has_taken(record) {
                let told = log.told::<A>(place);
                (told.packets, told.bytes, told.last) = (state.packets, state.bytes, now);
            }
        }
    }

    /// What is left to tell of every flow when a node ends.
    pub(super) fn log_rest<A: Family>(
        &mut self,
        flows: &FlowTable<A, FlowState>,
        event: Event,
        now: u64,
        visit: &mut impl FnMut(Record),
    ) {
        for (id, forward, reverse, state) in flows.iter() {
            if matches!(state.phase, Phase::Reset | Phase::Moved) {
                continue;
            }
            let named = redecide::named(self, forward, state);
            let Some(log) = &mut self.log else { return };
            let seen = Seen { forward, reverse, state };
            let told = std::mem::take(log.told::<A>(id.index()));
            visit(of_flow(&told, seen, named, event, now, (self.settings.worker, &self.snapshot)));
        }
    }
}

fn keys<A: Family>(flows: &FlowTable<A, FlowState>, id: FlowId) -> Option<(&FlowKey<A>, &FlowKey<A>)> {
    flows.key(id, Direction::Forward).zip(flows.key(id, Direction::Reverse))
}
