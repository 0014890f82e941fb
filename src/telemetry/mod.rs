//! What the node tells about itself: counters, summed over workers, and metrics.

pub mod counters;
pub mod metrics;
