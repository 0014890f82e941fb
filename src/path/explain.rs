//! What would become of a packet: the stages of forwarding, run with an observer that writes down each decision.

use super::observer::{Observer, Recorder, StageRecord};
use super::order::{self, Decision, Question};
use super::route::Reached;
use super::source::{Presented, paired};
use super::stages;
use super::subject::Subject;
use super::verdict::DropReason;
use crate::packet::frame::Frame;
use crate::packet::parse;
use crate::snapshot::{PortId, Snapshot};

/// The way of a hypothetical packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Every stage that it met, in order.
    pub stages: Vec<StageRecord>,
    /// What the stages decided.
    pub result: Result<Decision, DropReason>,
}

/// Explains what becomes of a packet that enters through a port and meets no flow. Changes nothing.
pub fn explain(snapshot: &Snapshot, ingress: PortId, frame: &Frame) -> Explanation {
    let mut recorder = Recorder::default();
    let result = decide(snapshot, ingress, frame, &mut recorder);
    Explanation { stages: recorder.records, result }
}

fn decide(
    snapshot: &Snapshot,
    ingress: PortId,
    frame: &Frame,
    recorder: &mut Recorder,
) -> Result<Decision, DropReason> {
    let parsed = match parse::parse(frame.bytes()) {
        Ok(parsed) => parsed,
        Err(error) => {
            let reason = DropReason::from(error);
            recorder.stage(|| stages::dropped("parse", reason));
            return Err(reason);
        }
    };
    recorder.stage(|| stages::parsed(snapshot, ingress, &parsed));
    recorder.stage(stages::missed);
    let subject = Subject::of(ingress, &parsed);
    let decision = order::decide(snapshot, &subject, Question::NEW, recorder)?;
    arrive_from_pool(snapshot, &subject, &decision, recorder)?;
    if parsed.hop_limit <= 1 {
        let reason = DropReason::HopLimitExceeded;
        recorder.stage(|| StageRecord::new("hop limit", format!("ends here: {}", reason.name())).with(reason.text()));
        return Err(reason);
    }
    recorder.stage(|| {
        let egress = snapshot.port(decision.egress).map_or("?", |port| port.name.as_str());
        StageRecord::new("send", format!("out of {egress} under generation {}", snapshot.generation))
    });
    Ok(decision)
}

/// What the receiver says where a pool translates: to the address that the sender gets as long as it has a port left.
fn arrive_from_pool(
    snapshot: &Snapshot,
    subject: &Subject,
    decision: &Decision,
    recorder: &mut Recorder,
) -> Result<(), DropReason> {
    let (Presented::Pool(pool), Reached::Own) = (decision.presented, decision.reached) else { return Ok(()) };
    let Some(source) = snapshot.pool(pool).and_then(|pool| paired(pool, subject.source, 0)) else { return Ok(()) };
    let arriving = Subject { source, ..*subject };
    order::admit(snapshot, subject, decision, decision.egress, &arriving, Question::NEW, recorder).map(|_| ())
}
