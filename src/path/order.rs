//! The order of the stages that decide a new flow, and nothing else.

use super::nsg::{self, Direction};
use super::observer::{Observer, StageRecord};
use super::origin;
use super::route::{self, Reached};
use super::source::{self, Presented};
use super::subject::Subject;
use super::verdict::DropReason;
use crate::snapshot::{NextHopType, PortId, Snapshot};

/// What the stages decided about a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Where it leaves; with [`Reached::Mapping`] where it entered, until the flow is made.
    pub egress: PortId,
    /// What its destination leads to.
    pub reached: Reached,
    /// Which source address the next network sees.
    pub presented: Presented,
    /// Type of the next hop.
    pub next_hop_type: NextHopType,
}

/// Whether what is decided on is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The first packet of a flow.
    New,
    /// A flow that was there before a change.
    Established,
}

/// Runs the stages in their order.
///
/// # Errors
/// The first stage's reason to drop the packet.
pub fn decide(
    snapshot: &Snapshot,
    subject: &Subject,
    standing: Standing,
    observer: &mut impl Observer,
) -> Result<Decision, DropReason> {
    let port = snapshot.port(subject.ingress).ok_or(DropReason::UnknownPort)?;
    origin::check(port, subject, observer)?;
    nsg::check(snapshot, port, Direction::Outbound, subject, standing, observer)?;
    let chosen = route::choose(snapshot, port, subject, observer)?;
    let presented = source::choose(snapshot, port, subject, chosen.source, chosen.egress, observer)?;
    let decision =
        Decision { egress: chosen.egress, reached: chosen.reached, presented, next_hop_type: chosen.next_hop_type };
    match arrival(subject, &decision) {
        Some(arrival) => admit(snapshot, decision.egress, &arrival, standing, observer)?,
        None if matches!(decision.reached, Reached::Mapping(_)) => observer.stage(|| {
            StageRecord::new("nsg", "Inbound: when the flow is made").with("whom it leads to follows from the mapping")
        }),
        // A pool's address arrives at services and the internet; at a NIC only behind a public address of it.
        None => {}
    }
    Ok(decision)
}

/// The last stage: whether the receiver takes a packet as it arrives, translated.
///
/// # Errors
/// Its reason to drop the packet.
pub fn admit(
    snapshot: &Snapshot,
    egress: PortId,
    arrival: &Subject,
    standing: Standing,
    observer: &mut impl Observer,
) -> Result<(), DropReason> {
    let Some(receiver) = snapshot.port(egress) else { return Ok(()) };
    nsg::check(snapshot, receiver, Direction::Inbound, arrival, standing, observer)
}

/// A packet as it arrives, where that is known before the flow is made: mappings and pools give addresses and ports then.
fn arrival(subject: &Subject, decision: &Decision) -> Option<Subject> {
    let source = match decision.presented {
        Presented::Own => subject.source,
        Presented::OneToOne(address) => address,
        Presented::Identity6 { source, .. } => source.into(),
        Presented::Pool(_) => return None,
    };
    let destination = match (decision.reached, decision.presented) {
        (_, Presented::Identity6 { destination, .. }) => destination.into(),
        (Reached::Own, _) => subject.destination,
        (Reached::Instance(private), _) => private,
        (Reached::Mapping(_), _) => return None,
    };
    Some(Subject { source, destination, ..*subject })
}
