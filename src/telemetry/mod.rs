//! What the node tells about itself: counters, summed over workers, metrics, traces and captures of packets.

pub mod capture;
pub mod counters;
pub mod metrics;
pub mod trace;
