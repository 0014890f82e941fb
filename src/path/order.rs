//! The order of the stages that decide a new flow, and nothing else.

use super::firewall::{self, Admission, Caller};
use super::nsg::{self, Direction};
use super::observer::{Observer, StageRecord};
use super::origin;
use super::policy::{self, Named, Ruling};
use super::route::{self, Reached};
use super::source::{self, Presented};
use super::subject::Subject;
use super::verdict::DropReason;
use crate::packet::server_name::Application;
use crate::snapshot::{NextHopType, PortId, PortKind, Snapshot, SourceAction};

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
    /// The endpoint that it takes: the place in the subnet's list.
    pub endpoint: Option<u16>,
    /// Whether the receiver takes it, as far as that is known before the flow is made.
    pub arrival: Arrival,
    /// The protocol in which the client names the resource, where that is needed first.
    pub inspect: Option<Application>,
}

/// What the receiver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Whether a firewall admits the packet.
    pub admission: Admission,
    /// Whether a name is needed first.
    pub ruling: Ruling,
}

impl Default for Arrival {
    fn default() -> Self {
        Self { admission: Admission::Admitted, ruling: Ruling::Pass }
    }
}

/// Whether what is decided on is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The first packet of a flow.
    New,
    /// A flow that was there before a change.
    Established,
}

/// What is asked: whether the packet is new, and what is known of the resource that it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Whether it is new.
    pub standing: Standing,
    /// What the connection named.
    pub named: Named,
}

impl Question {
    /// About a first packet.
    pub const NEW: Self = Self { standing: Standing::New, named: Named::NotYet };
}

/// Runs the stages in their order.
///
/// # Errors
/// The first stage's reason to drop the packet.
pub fn decide(
    snapshot: &Snapshot,
    subject: &Subject,
    question: Question,
    observer: &mut impl Observer,
) -> Result<Decision, DropReason> {
    let port = snapshot.port(subject.ingress).ok_or(DropReason::UnknownPort)?;
    origin::check(port, subject, observer)?;
    nsg::check(snapshot, port, Direction::Outbound, subject, question.standing, observer)?;
    let chosen = route::choose(snapshot, port, subject, observer)?;
    let endpoint = match chosen.source {
        SourceAction::Endpoint(endpoint) => Some(endpoint),
        SourceAction::Keep | SourceAction::Outbound => None,
    };
    let ruling = policy::check(snapshot, port, endpoint, subject, question.named, observer)?;
    let presented = source::choose(snapshot, port, subject, chosen.source, chosen.egress, observer)?;
    let mut decision = Decision {
        egress: chosen.egress,
        reached: chosen.reached,
        presented,
        next_hop_type: chosen.next_hop_type,
        endpoint,
        arrival: Arrival::default(),
        inspect: None,
    };
    match arriving(subject, &decision) {
        Some(arriving) => {
            decision.arrival = admit(snapshot, subject, &decision, decision.egress, &arriving, question, observer)?;
        }
        None if matches!(decision.reached, Reached::Mapping(_)) => observer.stage(|| {
            StageRecord::new("nsg", "Inbound: when the flow is made").with("whom it leads to follows from the mapping")
        }),
        // Which address of a pool it is, and so what a firewall says to it, is known when the flow is made.
        None => {}
    }
    decision.inspect = inspected(ruling).or_else(|| inspected(decision.arrival.ruling));
    Ok(decision)
}

/// The protocol of a ruling that asks for a name.
pub(super) fn inspected(ruling: Ruling) -> Option<Application> {
    match ruling {
        Ruling::Pass => None,
        Ruling::Inspect(application) => Some(application),
    }
}

/// The last stages: whether the receiver takes a packet as it arrives, translated. `subject` is the packet as it entered.
///
/// # Errors
/// Its reason to drop the packet.
pub fn admit(
    snapshot: &Snapshot,
    subject: &Subject,
    decision: &Decision,
    egress: PortId,
    arriving: &Subject,
    question: Question,
    observer: &mut impl Observer,
) -> Result<Arrival, DropReason> {
    let Some(receiver) = snapshot.port(egress) else { return Ok(Arrival::default()) };
    let Some(port) = snapshot.port(subject.ingress) else { return Ok(Arrival::default()) };
    let caller = Caller { ingress: subject.ingress, port, endpoint: decision.endpoint, source: arriving.source };
    // An appliance or a tunnel on the way asks nobody.
    let (admission, ruling) = if matches!(receiver.kind, PortKind::Service | PortKind::Backbone) {
        firewall::check(snapshot, &caller, subject, question.named, observer)?
    } else {
        (Admission::Admitted, Ruling::Pass)
    };
    nsg::check(snapshot, receiver, Direction::Inbound, arriving, question.standing, observer)?;
    Ok(Arrival { admission, ruling })
}

/// A packet as it arrives, where that is known before the flow is made: mappings and pools give addresses and ports then.
fn arriving(subject: &Subject, decision: &Decision) -> Option<Subject> {
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
