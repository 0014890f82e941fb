//! What the node tells about itself: counters, summed over workers, metrics, and its newest warnings.

pub mod counters;
pub mod metrics;
pub mod recent;
