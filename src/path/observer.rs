//! What watches the stages. Where nobody watches it is [`Silent`], which compiles to nothing; explaining uses [`Recorder`]. Who
//! traces real packets hears the stages by [`Egress::stage`](super::Egress::stage).

use serde::{Deserialize, Serialize};

/// One stage's decision, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The stage: `parse`, `origin`, `route`, `source`, …
    pub stage: String,
    /// What it decided.
    pub decision: String,
    /// What led to it.
    #[serde(default)]
    pub details: Vec<String>,
}

impl StageRecord {
    /// A record without details.
    pub fn new(stage: &str, decision: impl Into<String>) -> Self {
        Self { stage: stage.to_owned(), decision: decision.into(), details: Vec::new() }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }
}

/// Watches the stages.
pub trait Observer {
    /// A stage has decided. The record is made only by observers that want it.
    fn stage(&mut self, record: impl FnOnce() -> StageRecord);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    #[inline(always)]
    fn stage(&mut self, _record: impl FnOnce() -> StageRecord) {}
}

/// Writes every record down.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    /// What was recorded, in order.
    pub records: Vec<StageRecord>,
}

impl Observer for Recorder {
    fn stage(&mut self, record: impl FnOnce() -> StageRecord) {
        self.records.push(record());
    }
}
