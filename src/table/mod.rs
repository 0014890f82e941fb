//! Prefix table, flow table, timers, port selection, and who owns which flow. Knows no Azure word, uses nothing else of
//! the crate, and never panics on any input.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod directory;
pub mod flow;
mod hash;
mod index;
pub mod port_pool;
pub mod prefix;
pub mod timer;
