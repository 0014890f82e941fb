//! Who was denied what: the workers' records, put into words, kept for a while, and said in the log.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use super::answers::{DenialAnswer, DenialsAnswer};
use super::difference::socket_text;
use crate::path::denial::Denial;
use crate::plan::explain::protocol_name;
use crate::snapshot::{Snapshot, SubnetKey};

/// Records that are kept: some hundred bytes each.
const KEPT: usize = 1_000;

/// Records that one look says in the log, so that a flood of them does not fill it.
const SAID: usize = 20;

/// Records that one look takes: as many as the workers' queue holds, so that it cannot go on for ever.
pub(crate) const TAKEN: usize = 4_096;

/// The target of the lines in the log, for filters: `SIDESTEP_LOG=denied=info`.
const TARGET: &str = "denied";

/// The newest records.
#[derive(Debug, Default)]
pub(crate) struct DenialLog {
    kept: VecDeque<DenialAnswer>,
    total: u64,
    lost: u64,
}

impl DenialLog {
    /// Takes records that the workers have made under a snapshot or one before it. `lost` is how many they could not keep,
    /// since they started.
    pub(crate) fn add(&mut self, denials: Vec<Denial>, lost: u64, snapshot: &Snapshot) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let unsaid = denials.len().saturating_sub(SAID);
        for (number, denial) in denials.into_iter().enumerate() {
            let answer = answer(&denial, snapshot, time);
            if number < SAID {
                say(&answer);
            }
            self.total += 1;
            if self.kept.len() == KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back(answer);
        }
        if unsaid > 0 {
            tracing::info!(target: TARGET, denials = unsaid, "more connections were denied at this moment");
        }
        if lost > self.lost {
            tracing::warn!(
                lost = lost - self.lost,
                "denials were counted and not recorded: there were too many at once"
            );
            self.lost = lost;
        }
    }

    /// The newest, at most so many, the oldest of them first.
    pub(crate) fn newest(&self, most: usize) -> DenialsAnswer {
        let skipped = self.kept.len().saturating_sub(most);
        let denials = self.kept.iter().skip(skipped).cloned().collect();
        DenialsAnswer { total: self.total, lost: self.lost, denials }
    }
}

fn say(denial: &DenialAnswer) {
    let DenialAnswer { reason, protocol, ingress, source, destination, .. } = denial;
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let error = denial.error.map(|error| error.to_string());
    let answered_at = denial.answered_at.map(|port| port.to_string());
    tracing::info!(
        target: TARGET, reason, protocol, ingress, source, destination,
        presented = text(&denial.presented), identity = text(&denial.identity), resource = text(&denial.resource),
        name = text(&denial.name), unnamed = text(&denial.unnamed), error = text(&error),
        answered_at = text(&answered_at), generation = denial.generation,
        "denied"
    );
}

fn answer(denial: &Denial, snapshot: &Snapshot, time: u64) -> DenialAnswer {
    let resource = denial.resource.and_then(|resource| snapshot.resources.get(resource));
    DenialAnswer {
        time,
        reason: denial.reason.name().to_owned(),
        text: denial.reason.text().to_owned(),
        protocol: protocol_name(denial.protocol),
        ingress: snapshot.port_name(denial.ingress),
        source: socket_text(denial.protocol, denial.source),
        presented: denial.presented.map(|address| address.to_string()),
        identity: denial.identity.map(|identity| subnet(snapshot, identity)),
        destination: socket_text(denial.protocol, denial.destination),
        resource: resource.map(|resource| resource.name.clone()),
        service: resource.map(|resource| resource.service.clone()),
        name: denial.name.clone(),
        unnamed: denial.unnamed.map(|why| why.name().to_owned()),
        error: denial.error(),
        answered_at: denial.answered_at,
        generation: denial.generation,
    }
}

/// The subnet that an identity is of: its name, or its tags where it is gone.
fn subnet(snapshot: &Snapshot, identity: SubnetKey) -> String {
    snapshot.identity(identity).map_or_else(
        || format!("{:06x}:{:04x}", identity.network_tag, identity.subnet_tag),
        |known| format!("{}/{}", known.network, known.subnet),
    )
}
