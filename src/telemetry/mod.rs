//! What the node tells about itself: counters, summed over workers, metrics, and its newest warnings.

pub mod counters;
pub mod flow_record;
pub mod ipfix;
pub mod metrics;
pub mod recent;
pub mod vnet_flow_log;
