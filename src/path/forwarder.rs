//! The path of one worker: its flow tables, and every packet through them to its verdict.

use std::ops::Range;
use std::sync::Arc;

use super::core::Core;
pub use super::core::Settings;
use super::counters::Counters;
use super::egress::{Egress, SendFailure};
use super::flow::{Family, FlowState};
use super::fragments::Fragments;
use super::inspect;
use super::log::Freed;
use super::look::Look;
use super::record::{About, Ending, Event, Record, Records};
use super::redecide::{self, Foreseen, Sides};
use super::stages;
use super::subject::Subject;
use super::undecided::key_of;
use super::unsolicited::answer_due;
use super::verdict::{DropReason, Verdict};
use super::way::{Packet, Tables, way};
use crate::packet::frame::Frame;
use crate::packet::glance::{Glance, glance};
use crate::packet::parse::{self, Addresses, Fragment};
use crate::packet::segment::segment_count;
use crate::snapshot::{PortId, Snapshot};
use crate::table::flow::{Direction, FlowId, FlowKey, FlowTable};

/// Flows from which on their memory is read ahead: 16 MiB of them. Reading ahead takes some 14 ns of a packet
/// (`benches/memory`), and with 64,512 flows, which a third-level cache holds, it gained no more than that.
const APPROACHED: usize = 1 << 17;

/// The path of one worker.
pub struct Forwarder {
    pub(super) core: Core,
    pub(super) tables: Tables,
    fragments: Fragments,
    /// How far each table has been looked through after the last change.
    pub(super) sweep: Option<(u32, u32)>,
    /// Flows whose ports begin to rest, while timers are looked at; kept for its memory.
    resting: Vec<FlowId>,
}

impl Forwarder {
    /// Makes the path of one worker.
    pub fn new(snapshot: Arc<Snapshot>, counters: Arc<Counters>, settings: Settings) -> Self {
        Self {
            tables: Tables {
                v4: FlowTable::new(settings.flow_limit, settings.seed),
                v6: FlowTable::new(settings.flow_limit, settings.seed.rotate_left(32)),
            },
            fragments: Fragments::new(),
            core: Core::new(snapshot, counters, settings),
            sweep: None,
            resting: Vec::new(),
        }
    }

    /// Reserves addresses for all flows that there may ever be and gives where they are: what is there is read in no order,
    /// and larger pages than usual spare the processor looking up where each page is.
    pub fn spread_out(&mut self) -> [Range<usize>; 2] {
        [self.tables.v4.spread_out(), self.tables.v6.spread_out()]
    }

    /// The generation that packets are forwarded under.
    pub fn generation(&self) -> u64 {
        self.core.snapshot.generation
    }

    /// The snapshot that packets are forwarded under.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.core.snapshot
    }

    /// Takes a new snapshot: from now on every packet is forwarded under it. [`Forwarder::sweep`] then decides the
    /// flows again that no packet meets.
    pub fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        self.core.adopt(snapshot);
        self.sweep = Some((0, 0));
    }

    /// Takes a received packet to its end and counts it.
    pub fn receive(&mut self, now: u64, ingress: PortId, frame: &mut Frame, egress: &mut impl Egress) -> Verdict {
        let counters = &self.core.counters;
        counters.received.add(1);
        counters.received_bytes.add(frame.len() as u64);
        if frame.offload.segmentation.is_some() {
            counters.received_super.add(1);
        }
        self.process(now, ingress, frame, egress, true)
    }

    /// Reads what the packets of a batch will look for in the flow tables, before the first of them looks: the reads of
    /// memory overlap then. Only where the tables are larger than the processor's caches. Nothing changes.
    pub fn approach(&self, ingress: PortId, batch: &[Frame]) {
        let Tables { v4, v6 } = &self.tables;
        if v4.len() + v6.len() < APPROACHED {
            return;
        }
        let seen = || batch.iter().filter_map(|frame| glance(frame.bytes()));
        if !v4.is_empty() {
            v4.approach(seen().filter_map(|seen| seen_key(ingress, &seen)));
        }
        if !v6.is_empty() {
            v6.approach(seen().filter_map(|seen| seen_key(ingress, &seen)));
        }
    }

    /// Takes a packet that another worker received and found to be of a flow of this one to its end.
    pub fn take_over(&mut self, now: u64, ingress: PortId, frame: &mut Frame, egress: &mut impl Egress) -> Verdict {
        self.core.counters.taken_over.add(1);
        self.process(now, ingress, frame, egress, false)
    }

    /// A fragment that waited for the first of its packet, which has come: the port that it entered through. It goes on
    /// by [`Forwarder::resume`]. To be asked after every packet until there is none.
    pub fn released(&mut self, frame: &mut Frame) -> Option<PortId> {
        let ingress = self.fragments.released(frame)?;
        self.core.counters.fragments_held.set(self.fragments.held() as u64);
        Some(ingress)
    }

    /// Takes a released fragment to its end and counts it.
    pub fn resume(&mut self, now: u64, ingress: PortId, frame: &mut Frame, egress: &mut impl Egress) -> Verdict {
        self.process(now, ingress, frame, egress, true)
    }

    #[inline]
    fn process(
        &mut self,
        now: u64,
        ingress: PortId,
        frame: &mut Frame,
        egress: &mut impl Egress,
        may_hand_over: bool,
    ) -> Verdict {
        let mut length = frame.len();
        let mut about = About::Port(Some(ingress));
        let verdict = match parse::parse(frame.bytes()) {
            Ok(parsed) if parsed.has_options => {
                egress.stage(|| stages::dropped("parse", DropReason::IpOptions));
                Verdict::Dropped(DropReason::IpOptions)
            }
            Ok(mut parsed) => {
                egress.stage(|| stages::parsed(&self.core.snapshot, ingress, &parsed));
                frame.set_len(parsed.total as usize);
                length = parsed.total as usize;
                // Who takes over was given a packet that has been counted.
                if may_hand_over && frame.offload.segmentation.is_some() {
                    self.core.counters.received_segments.add(segment_count(frame, &parsed) as u64);
                }
                if self.core.is_logged() {
                    about = About::Packet(Subject::of(ingress, &parsed));
                }
                let whole = parsed.fragment == Fragment::None;
                let mut packet =
                    Packet { now, ingress, frame, parsed: &mut parsed, may_hand_over, identification: None };
                if whole {
                    way(&mut self.core, &mut self.tables, &mut packet, egress)
                } else {
                    self.fragments.way(&mut self.core, &mut self.tables, &mut packet, egress)
                }
            }
            Err(error) => {
                egress.stage(|| stages::dropped("parse", error.into()));
                Verdict::Dropped(error.into())
            }
        };
        self.count(verdict, ingress, length);
        if self.core.is_logged() {
            let event = match verdict {
                Verdict::Answered(answer) => Event::Answered(answer),
                Verdict::Dropped(reason) => Event::Dropped(reason),
                Verdict::Forwarded(_) | Verdict::HandOver(_) | Verdict::Held => return verdict,
            };
            self.core.log_ended(event, about, length as u64, now);
        }
        verdict
    }

    fn count(&self, verdict: Verdict, ingress: PortId, length: usize) {
        let counters = &self.core.counters;
        match verdict {
            Verdict::Forwarded(_) => {
                counters.forwarded.add(1);
                counters.forwarded_bytes.add(length as u64);
            }
            Verdict::Answered(answer) => counters.count_answer(answer),
            Verdict::Dropped(reason) => self.core.count_drops(reason, ingress, 1),
            // Counted by the worker once it is in the other's ring.
            Verdict::HandOver(_) => {}
            Verdict::Held => counters.fragments_held.set(self.fragments.held() as u64),
        }
    }

    /// Counts a batch that was read from a port.
    pub fn count_batch(&self, packets: usize) {
        self.core.counters.count_batch(packets);
    }

    /// Counts how long a batch took that was timed.
    pub fn count_time(&self, nanoseconds: u64, packets: usize) {
        self.core.counters.batch_times.add(nanoseconds);
        self.core.counters.timed_packets.add(packets as u64);
    }

    /// Counts that the worker asks the kernel to wait for something to do.
    pub fn count_wait(&self) {
        self.core.counters.waits.add(1);
    }

    /// Packets so far that met no flow: what they cost is more than the others do.
    pub fn first_packets(&self) -> u64 {
        self.core.counters.flow_misses.get()
    }

    /// Counts a packet that was to be handed over: it is in the other worker's ring, or ends here.
    pub fn count_hand_over(&self, now: u64, ingress: PortId, bytes: usize, delivered: bool) {
        if delivered {
            self.core.counters.handed_over.add(1);
        } else {
            self.core.count_drops(DropReason::HandOverFull, ingress, 1);
            let event = Event::Dropped(DropReason::HandOverFull);
            self.core.log_packets(event, About::Port(Some(ingress)), 1, bytes as u64, now);
        }
    }

    /// Counts packets that were taken for sent, and then could not leave: the egress held them back to send them together. They
    /// are forwarded no more, but dropped; their flows have counted them. `ingress` is where they entered, `bytes` are as they were
    /// to leave.
    pub fn count_unsent(&self, now: u64, ingress: PortId, failure: SendFailure, packets: u64, bytes: u64) {
        let counters = &self.core.counters;
        counters.forwarded.set(counters.forwarded.get().saturating_sub(packets));
        counters.forwarded_bytes.set(counters.forwarded_bytes.get().saturating_sub(bytes));
        self.core.count_drops(failure.into(), ingress, packets);
        self.core.log_packets(Event::Unsent(failure.into()), About::Port(None), packets, bytes, now);
    }

    /// Ends flows whose time is over, at most `budget` of each family, and what else waits for its time: ports that rest,
    /// fragments, answers to strangers, records of flows that go on.
    pub fn expire(&mut self, now: u64, budget: usize, egress: &mut impl Egress) {
        expire(&mut self.core, &mut self.tables.v4, &mut self.resting, now, budget);
        expire(&mut self.core, &mut self.tables.v6, &mut self.resting, now, budget);
        self.fragments.expire(&self.core, now, budget);
        inspect::end_waiting(&mut self.core, &mut self.tables, now, budget, egress);
        answer_due(&mut self.core, &self.tables.v4, &self.tables.v6, now, budget, egress);
        self.core.log_step(&self.tables.v4, &self.tables.v6, now, budget);
    }

    /// Makes records of flows and packets from now on, or none any more. Of flows that are there, what comes is told, from
    /// when [`Forwarder::expire`] has come by them. Gives what was kept for records before.
    pub fn log_to(&mut self, records: Option<Arc<Records>>, now: u64) -> Freed {
        let Tables { v4, v6 } = &self.tables;
        self.core.log_to(records, [(v4.limit(), v4.places()), (v6.limit(), v6.places())], now)
    }

    /// Tells the time in microseconds, for how long answers take. Only records need it, and only as precisely as batches are
    /// apart.
    #[inline]
    pub fn tell_micros(&mut self, micros: impl FnOnce() -> u64) {
        if self.core.is_logged() {
            self.core.log_micros(micros());
        }
    }

    /// What is left to tell of every flow, when the node ends: flows that are saved go on, the others end. Nothing where no
    /// records are made.
    pub fn log_rest(&mut self, saved: bool, now: u64, mut visit: impl FnMut(Record)) {
        self.core.log_rest(&self.tables.v4, saved, now, &mut visit);
        self.core.log_rest(&self.tables.v6, saved, now, &mut visit);
    }

    /// When [`Forwarder::expire`] may have work, in milliseconds of the caller's clock.
    pub fn next_expiry(&self) -> Option<u64> {
        let times = [
            self.tables.v4.next_deadline(),
            self.tables.v6.next_deadline(),
            self.fragments.next_deadline(),
            self.core.unsolicited.next_due(),
            self.core.undecided.next_due(),
            self.core.next_log_step(),
        ];
        times.into_iter().flatten().min()
    }

    /// After a change: decides flows again that no packet has met since, at most `budget` of each family. True when
    /// all are done.
    pub fn sweep(&mut self, now: u64, budget: usize, egress: &mut impl Egress) -> bool {
        let Some((v4, v6)) = self.sweep else { return true };
        let v4 = redecide::sweep(&mut self.core, &mut self.tables.v4, v4, now, budget, egress);
        let v6 = redecide::sweep(&mut self.core, &mut self.tables.v6, v6, now, budget, egress);
        self.sweep = match (v4, v6) {
            (None, None) => None,
            (v4, v6) => Some((v4.unwrap_or(u32::MAX), v6.unwrap_or(u32::MAX))),
        };
        if self.sweep.is_none() {
            self.core.log_settled();
        }
        self.sweep.is_none()
    }

    /// Finds out what would become of flows under a snapshot, from a place on (at first 0, 0), at most `budget` of each
    /// family; adds it up in `foreseen`. Gives the place to go on from, none when all have been looked at.
    pub fn foresee(
        &self,
        snapshot: &Snapshot,
        (v4, v6): (u32, u32),
        budget: usize,
        foreseen: &mut Foreseen,
    ) -> Option<(u32, u32)> {
        let v4 = redecide::foresee(&self.tables.v4, (&self.core, snapshot), v4, budget, foreseen);
        let v6 = redecide::foresee(&self.tables.v6, (&self.core, snapshot), v6, budget, foreseen);
        match (v4, v6) {
            (None, None) => None,
            (v4, v6) => Some((v4.unwrap_or(u32::MAX), v6.unwrap_or(u32::MAX))),
        }
    }

    /// What the last change did to flows: complete once [`Forwarder::sweep`] is done.
    pub fn last_change(&self) -> &Foreseen {
        &self.core.changed
    }

    /// Visits the flows of both families, up to a number.
    pub fn visit_flows(&self, limit: usize, mut visit: impl FnMut(FlowSummary)) {
        let v4 = self.tables.v4.iter().map(|(_, forward, reverse, state)| summary(forward, reverse, state));
        let v6 = self.tables.v6.iter().map(|(_, forward, reverse, state)| summary(forward, reverse, state));
        for flow in v4.chain(v6).take(limit) {
            visit(flow);
        }
    }

    /// Looks at `budget` more flows of each family for a look that has begun; false when all is done.
    pub fn look(&self, look: &mut Look, now: u64, budget: usize) -> bool {
        look.step(&self.tables.v4, &self.tables.v6, now, budget)
    }

    /// How many flows there are.
    pub fn flow_count(&self) -> usize {
        self.tables.v4.len() + self.tables.v6.len()
    }
}

/// A flow: both sides as its packets carry them, and its state.
#[derive(Debug, Clone, Copy)]
pub struct FlowSummary {
    /// Both sides.
    pub sides: Sides,
    /// Its state.
    pub state: FlowState,
}

pub(super) fn summary<A: Family>(forward: &FlowKey<A>, reverse: &FlowKey<A>, state: &FlowState) -> FlowSummary {
    FlowSummary { sides: redecide::sides(forward, reverse), state: *state }
}

/// The key of a packet that was glanced at; none where the table is of the other family.
#[inline]
fn seen_key<A: Family>(ingress: PortId, seen: &Glance) -> Option<FlowKey<A>> {
    let (source, destination) = match seen.addresses {
        Addresses::V4 { source, destination } => (source.into(), destination.into()),
        Addresses::V6 { source, destination } => (source.into(), destination.into()),
    };
    let (source, destination) = (A::from_ip(source)?, A::from_ip(destination)?);
    Some(FlowKey::new(source, destination, seen.source_port, seen.destination_port, ingress.0, seen.protocol))
}

fn expire<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    resting: &mut Vec<FlowId>,
    now: u64,
    budget: usize,
) {
    let snapshot = core.snapshot.clone();
    let verdict = |id, state: &FlowState| {
        if state.generation != snapshot.generation as u32 {
            // Its pool's lifetimes may be others now: it is decided again first.
            return Some(now + 1);
        }
        let deadline = state.last_seen() + state.lifetime(&snapshot);
        if deadline > now {
            return Some(deadline);
        }
        if !state.rests() {
            return None;
        }
        resting.push(id);
        Some(now + 1)
    };
    let ended = flows.expire_with(now, budget, verdict, |flows, flow| {
        if core.is_logged() {
            let named = redecide::named(core, &flow.forward, &flow.state);
            core.log_end(flow.id, (&flow.forward, &flow.reverse), (&flow.state, named), Ending::Expired, now);
        }
        let Core { settings, undecided, .. } = &mut *core;
        if flow.state.is_inspected() {
            undecided.end(&key_of(&flow.forward));
        }
        let (forward, reverse) = (flows.hash(&flow.forward), flows.hash(&flow.reverse));
        settings.shared.release(settings.worker, (&flow.forward, forward), (&flow.reverse, reverse), &flow.state);
    });
    core.counters.undecided.set(core.undecided.len() as u64);
    core.counters.flows_expired.add(ended as u64);
    core.counters.flows.set(core.counters.flows.get().saturating_sub(ended as u64));
    for id in resting.drain(..) {
        let (Some(forward), Some(reverse)) =
            (flows.key(id, Direction::Forward).copied(), flows.key(id, Direction::Reverse).copied())
        else {
            continue;
        };
        let Some(state) = flows.state_mut(id) else { continue };
        state.rest(now);
        core.settings.shared.set_live(&forward, &reverse, state);
        let deadline = now + state.lifetime(&core.snapshot);
        flows.set_deadline(id, deadline, true);
    }
}
