//! What a support bundle asks a node for.

use std::fmt::Write as _;
use std::fs;

use ring::digest::{Context, SHA256, digest};

use super::{Current, Node};
use crate::control::support::{QueueAnswer, SupportAnswer};
use crate::model::network::{PollMode, Service};
use crate::telemetry::{metrics, recent};

impl Node {
    /// What it tells for a support bundle.
    pub fn support(&self) -> SupportAnswer {
        let current = self.current();
        let seen = self.seen();
        let queues = seen.ports.iter().map(|port| QueueAnswer {
            port: port.port.clone(),
            worker: port.worker,
            device: port.device.clone(),
        });
        let queues = queues.collect();
        let (log, log_lost) = recent::lines();
        let mut host_names: Vec<String> =
            current.network.services.iter().flat_map(Service::host_names).cloned().collect();
        host_names.extend(self.denials(usize::MAX).denials.into_iter().filter_map(|denial| denial.name));
        host_names.sort_unstable();
        host_names.dedup();
        let catalogue = catalogue_hash(&current);
        SupportAnswer {
            generation: current.snapshot.generation,
            document_sha256: hex(digest(&SHA256, current.document.text.as_bytes()).as_ref()),
            snapshot_sha256: snapshot_hash(&current, catalogue.as_deref()),
            catalogue_sha256: catalogue.as_deref().map(hex),
            poll: match current.network.poll {
                PollMode::Sleep => "sleep".to_owned(),
                PollMode::Adaptive => "adaptive".to_owned(),
            },
            queues,
            metrics: metrics::text(seen).unwrap_or_default(),
            log,
            log_lost,
            host_names,
        }
    }
}

/// The hash of the catalogue's file where that is still the one in force: its bytes are not kept.
fn catalogue_hash(current: &Current) -> Option<Vec<u8>> {
    let path = current.catalogue.path.as_deref().filter(|_| current.catalogue.is_current())?;
    let bytes = fs::read(path).ok().filter(|_| current.catalogue.is_current())?;
    Some(digest(&SHA256, &bytes).as_ref().to_vec())
}

/// The hash of all that a snapshot follows from. A catalogue whose file is gone counts by its change number.
fn snapshot_hash(current: &Current, catalogue: Option<&[u8]>) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(current.document.text.as_bytes());
    match catalogue {
        Some(catalogue) => hash.update(catalogue),
        None => hash.update(&current.catalogue.catalogue.change_number.to_le_bytes()),
    }
    for ((subnet, service), enabled) in &current.switched {
        hash.update(format!("\0{subnet}\0{service}\0{enabled}").as_bytes());
    }
    hex(hash.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
