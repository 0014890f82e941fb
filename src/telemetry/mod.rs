//! What the node tells about itself: counters, summed over workers, and metrics.

pub mod counters;
pub mod flow_record;
pub mod ipfix;
pub mod metrics;
pub mod vnet_flow_log;
