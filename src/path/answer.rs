//! What is sent back: ICMP errors in the name of the router of the port that the packet came from, or of somebody else
//! whom its sender knows, and TCP resets in the name of the other end.

use std::net::IpAddr;

use super::core::Core;
use super::egress::Egress;
use super::flow::{Family, FlowState};
use crate::packet::icmp::{self, IcmpError};
use crate::packet::parse::Parsed;
use crate::packet::tcp::{self, Reset};
use crate::snapshot::{PortId, PortKind};
use crate::table::flow::{Direction, FlowKey};

/// Sends an ICMP error about a packet back to where it came from, in the name of the router there. False where the rules
/// allow none (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4), their rate is used up, or there is no router.
pub(super) fn icmp_error(
    core: &mut Core,
    error: IcmpError,
    ingress: PortId,
    packet: &[u8],
    parsed: &Parsed,
    now: u64,
    egress: &mut impl Egress,
) -> bool {
    let Some(from) = router(core, ingress, parsed) else { return false };
    icmp_error_from(core, error, (from, ingress), packet, parsed, now, egress)
}

/// The router of a port, in the family of a packet.
pub(super) fn router(core: &Core, port: PortId, parsed: &Parsed) -> Option<IpAddr> {
    let port = core.snapshot.port(port)?;
    if parsed.is_v4() { port.router_v4.map(IpAddr::V4) } else { port.router_v6.map(IpAddr::V6) }
}

/// The same in a name of the caller's choice: an address, and the port that the packet came from.
pub(super) fn icmp_error_from(
    core: &mut Core,
    error: IcmpError,
    (from, ingress): (IpAddr, PortId),
    packet: &[u8],
    parsed: &Parsed,
    now: u64,
    egress: &mut impl Egress,
) -> bool {
    if !core.may_send_error(now) || !icmp::build_error(error, packet, parsed, from, &mut core.scratch) {
        return false;
    }
    core.pay_error(now);
    let sent = egress.send(now, ingress, &mut core.scratch).is_ok();
    if sent {
        core.counters.generated.add(1);
    }
    sent
}

/// Whether ends of a connection have been told that it is over; of several, what counts for all is the last of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Telling {
    /// There was nobody to tell: the port is gone, or nothing has come from there yet.
    Nobody,
    /// Resets have been sent.
    Told,
    /// A device refused one.
    Refused,
}

impl From<bool> for Telling {
    fn from(sent: bool) -> Self {
        if sent { Self::Told } else { Self::Refused }
    }
}

/// Resets both ends of a TCP connection in each other's name.
pub(super) fn reset_both<A: Family>(
    core: &mut Core,
    keys: &[(Direction, FlowKey<A>); 2],
    state: &FlowState,
    now: u64,
    egress: &mut impl Egress,
) -> Telling {
    keys.iter()
        .fold(Telling::Nobody, |told, (direction, key)| told.max(reset_end(core, *direction, key, state, now, egress)))
}

/// Resets the end that sends in a direction, in the name of the other.
pub(super) fn reset_end<A: Family>(
    core: &mut Core,
    direction: Direction,
    key: &FlowKey<A>,
    state: &FlowState,
    now: u64,
    egress: &mut impl Egress,
) -> Telling {
    if is_vacant(core, key) {
        return Telling::Nobody;
    }
    let numbers = state.reset_numbers(direction);
    match (numbers.acknowledged, numbers.sent) {
        (Some(acknowledged), sent) => {
            let told = reset_sender(core, key, acknowledged, None, now, egress);
            let unacknowledged = sent.filter(|sent| *sent != acknowledged);
            Telling::from(unacknowledged.is_none_or(|sent| reset_sender(core, key, sent, None, now, egress)) && told)
        }
        // It has acknowledged nothing: it is in SYN-SENT, where only an acknowledgment of its SYN counts (RFC 9293
        // section 3.10.7.3).
        (None, sent) => numbers.unanswered.map_or(Telling::Nobody, |unanswered| {
            reset_sender(core, key, sent.unwrap_or(0), Some(unanswered), now, egress).into()
        }),
    }
}

/// Resets the end that sends in the direction of `key`, in the name of the end that it talks to. False where the reset
/// cannot be sent.
pub(super) fn reset_sender<A: Family>(
    core: &mut Core,
    key: &FlowKey<A>,
    sequence: u32,
    acknowledgment: Option<u32>,
    now: u64,
    egress: &mut impl Egress,
) -> bool {
    if is_vacant(core, key) {
        return false;
    }
    let reset = Reset {
        source: key.destination.to_ip(),
        destination: key.source.to_ip(),
        source_port: key.destination_port,
        destination_port: key.source_port,
        sequence,
        acknowledgment,
    };
    tcp::build_reset(&reset, &mut core.scratch);
    let sent = egress.send(now, PortId(key.port), &mut core.scratch).is_ok();
    if sent {
        core.counters.generated.add(1);
    }
    sent
}

/// A port that is gone has nobody behind it to be told.
fn is_vacant<A: Family>(core: &Core, key: &FlowKey<A>) -> bool {
    core.snapshot.port(PortId(key.port)).is_none_or(|port| port.kind == PortKind::Vacant)
}
