//! The path of one worker: its flow tables, and every packet through them to its verdict.

use std::net::IpAddr;
use std::sync::Arc;

use super::core::Core;
pub use super::core::Settings;
use super::counters::Counters;
use super::egress::Egress;
use super::flow::{Family, FlowState};
use super::redecide;
use super::verdict::{DropReason, Verdict};
use super::way::way;
use crate::packet::frame::Frame;
use crate::packet::parse;
use crate::snapshot::{PortId, Snapshot};
use crate::table::flow::{FlowKey, FlowTable};

/// The path of one worker.
pub struct Forwarder {
    core: Core,
    flows_v4: FlowTable<u32, FlowState>,
    flows_v6: FlowTable<u128, FlowState>,
    /// How far each table has been looked through after the last change.
    sweep: Option<(u32, u32)>,
}

impl Forwarder {
    /// Makes the path of one worker.
    pub fn new(snapshot: Arc<Snapshot>, counters: Arc<Counters>, settings: Settings) -> Self {
        Self {
            flows_v4: FlowTable::new(settings.flow_limit, settings.seed),
            flows_v6: FlowTable::new(settings.flow_limit, settings.seed.rotate_left(32)),
            core: Core::new(snapshot, counters, settings),
            sweep: None,
        }
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
        self.core.snapshot = snapshot;
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

    /// Takes a packet that another worker received and found to be of a flow of this one to its end.
    pub fn take_over(&mut self, now: u64, ingress: PortId, frame: &mut Frame, egress: &mut impl Egress) -> Verdict {
        self.core.counters.taken_over.add(1);
        self.process(now, ingress, frame, egress, false)
    }

    fn process(
        &mut self,
        now: u64,
        ingress: PortId,
        frame: &mut Frame,
        egress: &mut impl Egress,
        may_hand_over: bool,
    ) -> Verdict {
        let length = frame.len();
        let verdict = match parse::parse(frame.bytes()) {
            Ok(parsed) => {
                frame.set_len(parsed.total as usize);
                if parsed.is_v4() {
                    way(&mut self.core, &mut self.flows_v4, now, ingress, frame, &parsed, egress, may_hand_over)
                } else {
                    way(&mut self.core, &mut self.flows_v6, now, ingress, frame, &parsed, egress, may_hand_over)
                }
            }
            Err(error) => Verdict::Dropped(error.into()),
        };
        let counters = &self.core.counters;
        match verdict {
            Verdict::Forwarded(_) => {
                counters.forwarded.add(1);
                counters.forwarded_bytes.add(length as u64);
            }
            Verdict::Answered(answer) => counters.count_answer(answer),
            Verdict::Dropped(reason) => counters.count_drop(reason),
            // Counted by the worker once it is in the other's ring.
            Verdict::HandOver(_) => {}
        }
        verdict
    }

    /// Counts a packet that was to be handed over: it is in the other worker's ring, or ends here.
    pub fn count_hand_over(&self, delivered: bool) {
        if delivered {
            self.core.counters.handed_over.add(1);
        } else {
            self.core.counters.count_drop(DropReason::HandOverFull);
        }
    }

    /// Ends flows whose time is over, at most `budget` of each family.
    pub fn expire(&mut self, now: u64, budget: usize) {
        expire(&mut self.core, &mut self.flows_v4, now, budget);
        expire(&mut self.core, &mut self.flows_v6, now, budget);
    }

    /// When [`Forwarder::expire`] may have work, in milliseconds of the caller's clock.
    pub fn next_expiry(&self) -> Option<u64> {
        match (self.flows_v4.next_deadline(), self.flows_v6.next_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// After a change: decides flows again that no packet has met since, at most `budget` of each family. True when
    /// all are done.
    pub fn sweep(&mut self, now: u64, budget: usize, egress: &mut impl Egress) -> bool {
        let Some((v4, v6)) = self.sweep else { return true };
        let v4 = redecide::sweep(&mut self.core, &mut self.flows_v4, v4, now, budget, egress);
        let v6 = redecide::sweep(&mut self.core, &mut self.flows_v6, v6, now, budget, egress);
        self.sweep = match (v4, v6) {
            (None, None) => None,
            (v4, v6) => Some((v4.unwrap_or(u32::MAX), v6.unwrap_or(u32::MAX))),
        };
        self.sweep.is_none()
    }

    /// Visits the flows of both families, up to a number.
    pub fn visit_flows(&self, limit: usize, mut visit: impl FnMut(FlowSummary)) {
        let v4 = self.flows_v4.iter().map(|(_, forward, reverse, state)| summary(forward, reverse, state));
        let v6 = self.flows_v6.iter().map(|(_, forward, reverse, state)| summary(forward, reverse, state));
        for flow in v4.chain(v6).take(limit) {
            visit(flow);
        }
    }

    /// How many flows there are.
    pub fn flow_count(&self) -> usize {
        self.flows_v4.len() + self.flows_v6.len()
    }
}

/// A flow for people: both sides as the packets carry them.
#[derive(Debug, Clone, Copy)]
pub struct FlowSummary {
    /// IP protocol number.
    pub protocol: u8,
    /// Where the first packet entered, and its addresses and ports there.
    pub ingress: PortId,
    /// Source as it entered.
    pub source: (IpAddr, u16),
    /// Destination as it entered.
    pub destination: (IpAddr, u16),
    /// Where it left.
    pub egress: PortId,
    /// The source that the next network sees.
    pub presented: (IpAddr, u16),
    /// Its state.
    pub state: FlowState,
}

fn summary<A: Family>(forward: &FlowKey<A>, reverse: &FlowKey<A>, state: &FlowState) -> FlowSummary {
    FlowSummary {
        protocol: forward.protocol,
        ingress: PortId(forward.port),
        source: (forward.source.to_ip(), forward.source_port),
        destination: (forward.destination.to_ip(), forward.destination_port),
        egress: PortId(reverse.port),
        presented: (reverse.destination.to_ip(), reverse.destination_port),
        state: *state,
    }
}

fn expire<A: Family>(core: &mut Core, flows: &mut FlowTable<A, FlowState>, now: u64, budget: usize) {
    let (directory, worker) = (core.settings.directory.as_deref(), core.settings.worker);
    let verdict = |_, state: &FlowState| {
        let deadline = state.last_seen + state.phase.lifetime();
        (deadline > now).then_some(deadline)
    };
    let ended = flows.expire_with(now, budget, verdict, |flows, flow| {
        if let Some(directory) = directory {
            directory.release(flows.hash(&flow.forward), worker);
            directory.release(flows.hash(&flow.reverse), worker);
        }
    });
    core.counters.flows_expired.add(ended as u64);
    core.counters.flows.set(core.counters.flows.get().saturating_sub(ended as u64));
}
