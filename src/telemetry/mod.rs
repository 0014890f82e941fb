//! What the node tells about itself: counters, summed over workers, metrics, and its newest warnings.
//! What the node tells about itself: counters, summed over workers, metrics, traces and captures of packets.

pub mod capture;
pub mod counters;
mod decimal;
pub(crate) mod flow_json;
pub mod flow_record;
pub mod ipfix;
pub mod metrics;
pub mod recent;
pub mod trace;
pub mod vnet_flow_log;
