//! SYNs from outside to a translated address that nobody inside asked for (RFC 5382 REQ-4). They are dropped, and for six
//! seconds nothing is said: the inside host may be opening the same connection at this moment. If it has not by then, an
//! ICMP port unreachable goes back.

use std::collections::VecDeque;

use super::answer;
use super::core::Core;
use super::egress::Egress;
use super::flow::{Family, FlowState};
use super::way::key_of;
use crate::packet::icmp::IcmpError;
use crate::packet::parse::{self, Parsed};
use crate::snapshot::PortId;
use crate::table::flow::FlowTable;

/// How long nothing is said, in milliseconds (RFC 5382 REQ-4: at least six seconds).
const SILENCE: u64 = 6_000;

/// SYNs remembered at a time: those of 170 a second, more than ICMP errors would be sent for to strangers who scan. Later
/// ones are never answered.
const REMEMBERED: usize = 1_024;

/// Bytes kept of each: an IPv6 header and the longest TCP header, all that an ICMP error has to quote.
const KEPT: usize = 40 + 60;

struct Unanswered {
    due: u64,
    ingress: PortId,
    packet: [u8; KEPT],
    length: usize,
}

/// The SYNs, oldest first.
pub(super) struct Unsolicited(VecDeque<Unanswered>);

impl Unsolicited {
    pub(super) fn new() -> Self {
        Self(VecDeque::with_capacity(REMEMBERED))
    }

    /// Remembers a SYN, if there is room.
    pub(super) fn remember(&mut self, now: u64, ingress: PortId, packet: &[u8]) {
        if self.0.len() >= REMEMBERED || packet.len() > KEPT {
            return;
        }
        let mut kept = [0; KEPT];
        if let Some(room) = kept.get_mut(..packet.len()) {
            room.copy_from_slice(packet);
        }
        self.0.push_back(Unanswered { due: now + SILENCE, ingress, packet: kept, length: packet.len() });
    }

    /// When [`answer_due`] may have something to do.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.0.front().map(|unanswered| unanswered.due)
    }

    fn take_due(&mut self, now: u64) -> Option<Unanswered> {
        if self.next_due()? > now { None } else { self.0.pop_front() }
    }
}

/// Answers SYNs whose time is over and that no flow met, at most `budget`.
pub(super) fn answer_due(
    core: &mut Core,
    flows_v4: &FlowTable<u32, FlowState>,
    flows_v6: &FlowTable<u128, FlowState>,
    now: u64,
    budget: usize,
    egress: &mut impl Egress,
) {
    for _ in 0..budget {
        let Some(syn) = core.unsolicited.take_due(now) else { return };
        let Some(packet) = syn.packet.get(..syn.length) else { continue };
        let Ok(parsed) = parse::parse(packet) else { continue };
        let met = if parsed.is_v4() {
            has_flow(core, flows_v4, syn.ingress, &parsed)
        } else {
            has_flow(core, flows_v6, syn.ingress, &parsed)
        };
        if !met {
            answer::icmp_error(core, IcmpError::PortUnreachable, syn.ingress, packet, &parsed, now, egress);
        }
    }
}

fn has_flow<A: Family>(core: &Core, flows: &FlowTable<A, FlowState>, ingress: PortId, parsed: &Parsed) -> bool {
    key_of::<A>(ingress, parsed).is_none_or(|key| {
        let hash = flows.hash(&key);
        let live = |(id, _)| flows.state(id).is_some_and(FlowState::is_live);
        flows.lookup_hashed(hash, &key).is_some_and(live) || core.owner(hash).is_some()
    })
}
