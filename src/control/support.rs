//! What a node tells of itself for a support bundle, beside its status and counters.

use serde::{Deserialize, Serialize};

use crate::telemetry::recent::Line;

/// `GET /v1/support`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupportAnswer {
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// SHA-256 of the document in force, as `sha256sum` prints that of its file.
    pub document_sha256: String,
    /// SHA-256 of the catalogue's file; none where there is none, or it is not the one in force any more.
    pub catalogue_sha256: Option<String>,
    /// SHA-256 of all that the snapshot is compiled from: both, and the endpoints that were switched since. Nodes with the
    /// same forward alike.
    pub snapshot_sha256: String,
    /// How workers wait for packets: `sleep` or `adaptive`.
    pub poll: String,
    /// Queues of devices, as they are now.
    pub queues: Vec<QueueAnswer>,
    /// All metrics, as `GET /metrics` tells them.
    pub metrics: String,
    /// The newest lines of the log at WARN and above, the oldest of them first.
    pub log: Vec<Line>,
    /// Older ones that are not kept.
    pub log_lost: u64,
    /// Host names that may occur in all this, for whoever has to hide them.
    pub host_names: Vec<String>,
}

/// A queue of a port's device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueAnswer {
    /// The port's name.
    pub port: String,
    /// The worker that it is of.
    pub worker: u16,
    /// What the device is and has been granted, as it says now: `tun eth0, offload checksum tcp4`.
    pub device: String,
}
