//! The order of the stages that decide a new flow, and nothing else.

use super::observer::Observer;
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

/// Runs the stages in their order.
///
/// # Errors
/// The first stage's reason to drop the packet.
pub fn decide(snapshot: &Snapshot, subject: &Subject, observer: &mut impl Observer) -> Result<Decision, DropReason> {
    let port = snapshot.port(subject.ingress).ok_or(DropReason::UnknownPort)?;
    origin::check(port, subject, observer)?;
    let chosen = route::choose(snapshot, port, subject, observer)?;
    let presented = source::choose(snapshot, port, subject, chosen.source, chosen.egress, observer)?;
    Ok(Decision { egress: chosen.egress, reached: chosen.reached, presented, next_hop_type: chosen.next_hop_type })
}
