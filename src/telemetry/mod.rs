//! What the node tells about itself: counters, summed over workers.

pub mod counters;
