//! Prefix table, rule classifier, flow table, timers, port selection, mappings of translated sockets, packets in fragments, who
//! owns which flow, how many flows there may be, and how much of pools is in use. Knows no Azure word, uses nothing else of the crate, and never panics on
//! any input.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod classifier;
pub mod directory;
pub mod flow;
pub mod fragments;
mod hash;
mod index;
pub mod mapping;
pub mod pool_use;
pub mod port_pool;
pub mod prefix;
pub mod quota;
mod slots;
pub mod timer;
