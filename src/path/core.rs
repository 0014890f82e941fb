//! What every step of a worker's path works with, beside the flow tables: snapshot, counters, frames to build packets in,
//! and sending.

use std::sync::Arc;

use super::counters::Counters;
use super::egress::{Egress, SendFailure};
use super::flow::{Family, FlowState};
use super::log::Log;
use super::nsg::Direction;
use super::record::Ending;
use super::redecide::{self, Foreseen};
use super::shared::Shared;
use super::undecided::{Undecided, key_of};
use super::unsolicited::Unsolicited;
use super::verdict::DropReason;
use crate::packet::fragment;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, Parsed};
use crate::packet::segment;
use crate::snapshot::{EndpointSource, PortId, Snapshot};
use crate::table::flow::{FlowId, FlowTable};

/// ICMP errors that a worker sends in a second, and at once: RFC 4443 section 2.4 (f) asks for a limit; Linux allows
/// its hosts as many by default.
const ERRORS_PER_SECOND: u64 = 1_000;
const ERRORS_AT_ONCE: u64 = 100;
/// What each costs, in microseconds.
const ERROR_COST: u64 = 1_000_000 / ERRORS_PER_SECOND;

/// What a forwarder is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most flows of each address family that this worker's tables can ever take; the snapshot's limits may be lower.
    pub flow_limit: usize,
    /// Seed of the flow tables' hash and of port selection; the same for all workers of a node.
    pub seed: u64,
    /// This worker's number.
    pub worker: u16,
    /// What the workers share.
    pub shared: Arc<Shared>,
}

/// Everything but the flow tables.
pub(super) struct Core {
    pub(super) snapshot: Arc<Snapshot>,
    /// Whether there may be flows between the families: the snapshot has such endpoints, an earlier one had, or such a flow
    /// has been restored.
    pub(super) crosses: bool,
    pub(super) counters: Arc<Counters>,
    /// Where answers are built.
    pub(super) scratch: Frame,
    /// Where fragments are built.
    pub(super) pieces: Frame,
    /// When the last ICMP error that may be sent now is paid for, in microseconds: a token bucket as one number.
    errors_paid: u64,
    pub(super) random: fastrand::Rng,
    /// The next IPv4 identification of translated packets.
    identification: u16,
    /// What the last change did to flows.
    pub(super) changed: Foreseen,
    /// SYNs from outside that nobody asked for.
    pub(super) unsolicited: Unsolicited,
    /// Connections whose resource only their client can tell.
    pub(super) undecided: Undecided,
    /// What is told of flows, while somebody wants it.
    pub(super) log: Option<Box<Log>>,
    pub(super) settings: Settings,
}

impl Core {
    pub(super) fn new(snapshot: Arc<Snapshot>, counters: Arc<Counters>, settings: Settings) -> Self {
        settings.shared.reserve_pools(&snapshot);
        let mut random = fastrand::Rng::with_seed(settings.seed ^ (u64::from(settings.worker) + 1).rotate_right(16));
        Self {
            crosses: crosses(&snapshot),
            snapshot,
            counters,
            scratch: Frame::new(),
            pieces: Frame::new(),
            errors_paid: 0,
            identification: random.u16(..),
            random,
            changed: Foreseen::with_room(),
            unsolicited: Unsolicited::new(),
            undecided: Undecided::new(),
            log: None,
            settings,
        }
    }

    /// Takes a new snapshot.
    pub(super) fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        // Flows between the families may be left from the snapshot before.
        self.crosses |= crosses(&snapshot);
        self.settings.shared.reserve_pools(&snapshot);
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        self.log_adopted(before);
        self.changed.clear();
    }

    /// An IPv4 identification for a translated packet: unlike those of other packets of the same public address, of which
    /// several inside hosts may send with the same one (RFC 6864 section 4.3).
    pub(super) fn next_identification(&mut self) -> u16 {
        self.identifications(1)
    }

    /// The first of as many identifications, one after the other, for the segments of a super-packet.
    pub(super) fn identifications(&mut self, count: usize) -> u16 {
        let first = self.identification;
        self.identification = first.wrapping_add(count as u16);
        first
    }

    /// Counts dropped packets that entered through a port. Which way they went is looked for only here.
    #[cold]
    pub(super) fn count_drops(&self, reason: DropReason, ingress: PortId, packets: u64) {
        self.counters.count_drops(reason, Direction::through(&self.snapshot, ingress), packets);
    }

    /// Whether an ICMP error may be sent now.
    pub(super) fn may_send_error(&self, now: u64) -> bool {
        let now = now.saturating_mul(1_000);
        self.errors_paid.max(now) + ERROR_COST <= now + ERROR_COST * ERRORS_AT_ONCE
    }

    /// Counts an ICMP error that is sent.
    pub(super) fn pay_error(&mut self, now: u64) {
        self.errors_paid = self.errors_paid.max(now.saturating_mul(1_000)) + ERROR_COST;
    }

    /// Whether there are other workers.
    pub(super) fn is_one_of_several(&self) -> bool {
        self.settings.shared.directory.is_some()
    }

    /// The other worker that owns a key, if one does.
    pub(super) fn owner(&self, hash: u64) -> Option<u16> {
        let owner = self.settings.shared.directory.as_ref()?.owner(hash)?;
        (owner != self.settings.worker).then_some(owner)
    }

    /// Ends a flow for another one.
    pub(super) fn end<A: Family>(&mut self, flows: &mut FlowTable<A, FlowState>, id: FlowId, now: u64) {
        let Some(removed) = flows.remove(id) else { return };
        if self.is_logged() {
            let keys = (&removed.forward, &removed.reverse);
            let named = redecide::named(self, &removed.forward, &removed.state);
            self.log_end(id, keys, (&removed.state, named), Ending::Evicted, now);
        }
        if removed.state.is_inspected() {
            self.undecided.end(&key_of(&removed.forward));
        }
        self.counters.flows.set(self.counters.flows.get().saturating_sub(1));
        let (forward, reverse) = (flows.hash(&removed.forward), flows.hash(&removed.reverse));
        let shared = &self.settings.shared;
        shared.release(self.settings.worker, (&removed.forward, forward), (&removed.reverse, reverse), &removed.state);
    }

    /// Sends a packet, in fragments where it is larger than the port's MTU and allowed to be fragmented.
    #[inline]
    pub(super) fn send(
        &mut self,
        now: u64,
        port: PortId,
        frame: &mut Frame,
        parsed: &Parsed,
        mtu: usize,
        egress: &mut impl Egress,
    ) -> Result<(), SendFailure> {
        if frame.len() <= mtu || segment::wire_size(frame, parsed) <= mtu {
            return egress.send(now, port, frame);
        }
        self.send_fragments(now, port, frame, parsed, mtu, egress)
    }

    /// Cuts a packet that may be fragmented: a super-packet into its segments first. The first failure is the
    /// packet's, the other pieces go all the same.
    #[cold]
    fn send_fragments(
        &mut self,
        now: u64,
        port: PortId,
        frame: &mut Frame,
        parsed: &Parsed,
        mtu: usize,
        egress: &mut impl Egress,
    ) -> Result<(), SendFailure> {
        let mut result = Ok(());
        let pieces = &mut self.pieces;
        let mut cut = |whole: &mut Frame, parsed: &Parsed| {
            let count = fragment::fragment_v4(whole, parsed, mtu, pieces, |piece| {
                result = result.and(egress.send(now, port, piece));
            });
            if count == 0 {
                result = result.and(Err(SendFailure::TooBig));
            }
        };
        if frame.offload.segmentation.is_some() {
            let count = segment::segment(frame, parsed, &mut self.scratch, |one| match parse::parse(one.bytes()) {
                Ok(parsed) => cut(one, &parsed),
                Err(_) => cut(one, parsed),
            });
            if count == 0 {
                return Err(SendFailure::TooBig);
            }
        } else {
            cut(frame, parsed);
        }
        result
    }
}

fn crosses(snapshot: &Snapshot) -> bool {
    let sources = snapshot.ports.iter().flat_map(|port| &port.endpoint_sources);
    sources.into_iter().any(|source| matches!(source, EndpointSource::Identity6(_)))
}
