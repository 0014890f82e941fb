//! What every step of a worker's path works with, beside the flow tables: snapshot, counters, frames to build packets in,
//! and sending.

use std::sync::Arc;

use super::counters::Counters;
use super::egress::{Egress, SendFailure};
use super::flow::{Family, FlowState};
use crate::packet::fragment;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, Parsed};
use crate::packet::segment;
use crate::snapshot::{PortId, Snapshot};
use crate::table::directory::Directory;
use crate::table::flow::{FlowId, FlowTable};
use crate::table::port_pool::PortRange;

/// ICMP errors that a worker sends in a second, and at once: RFC 4443 section 2.4 (f) asks for a limit; Linux allows
/// its hosts as many by default.
const ERRORS_PER_SECOND: u64 = 1_000;
const ERRORS_AT_ONCE: u64 = 100;

/// What a forwarder is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most flows of each address family.
    pub flow_limit: usize,
    /// Seed of the flow tables' hash and of port selection; the same for all workers that share a directory.
    pub seed: u64,
    /// This worker's number.
    pub worker: u16,
    /// Ports that translations of this worker use.
    pub port_range: PortRange,
    /// Who owns which flow, where there are several workers.
    pub directory: Option<Arc<Directory>>,
}

/// Everything but the flow tables.
pub(super) struct Core {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) counters: Arc<Counters>,
    /// Where answers are built.
    pub(super) scratch: Frame,
    /// Where fragments are built.
    pieces: Frame,
    /// When the last ICMP error that may be sent now is paid for, in microseconds: a token bucket as one number.
    errors_paid: u64,
    pub(super) random: fastrand::Rng,
    pub(super) settings: Settings,
}

impl Core {
    pub(super) fn new(snapshot: Arc<Snapshot>, counters: Arc<Counters>, settings: Settings) -> Self {
        let random = fastrand::Rng::with_seed(settings.seed ^ (u64::from(settings.worker) + 1).rotate_right(16));
        Self { snapshot, counters, scratch: Frame::new(), pieces: Frame::new(), errors_paid: 0, random, settings }
    }

    /// Whether an ICMP error may be sent now; then it counts.
    pub(super) fn may_send_error(&mut self, now: u64) -> bool {
        const COST: u64 = 1_000_000 / ERRORS_PER_SECOND;
        let now = now.saturating_mul(1_000);
        let paid = self.errors_paid.max(now) + COST;
        let allowed = paid <= now + COST * ERRORS_AT_ONCE;
        if allowed {
            self.errors_paid = paid;
        }
        allowed
    }

    /// The other worker that owns a key, if one does.
    pub(super) fn owner(&self, hash: u64) -> Option<u16> {
        let owner = self.settings.directory.as_ref()?.owner(hash)?;
        (owner != self.settings.worker).then_some(owner)
    }

    /// Ends a flow.
    pub(super) fn end<A: Family>(&self, flows: &mut FlowTable<A, FlowState>, id: FlowId) {
        let Some(removed) = flows.remove(id) else { return };
        self.counters.flows.set(self.counters.flows.get().saturating_sub(1));
        if let Some(directory) = &self.settings.directory {
            directory.release(flows.hash(&removed.forward), self.settings.worker);
            directory.release(flows.hash(&removed.reverse), self.settings.worker);
        }
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
