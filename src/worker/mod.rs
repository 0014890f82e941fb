//! The loop of one core: batches in, path, batches out.
//!
//! A worker owns one queue of every port, its flow tables and its counters. It reads, decides and writes on one thread,
//! without locks, channels or allocation between read and write. A packet whose flow another worker owns goes to that
//! worker over a bounded ring. Between batches it looks at one atomic generation, and at its commands when woken.
//!
//! A worker has no capability and may make only the system calls of its loop ([`privileges`](crate::privileges)): all it
//! ever needs are descriptors that others opened.
//!
//! [`Handle`] is how the control side starts, asks and stops the workers, and watches packets.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod gather;
mod hand_over;
mod handle;
mod poll;
mod ports;
mod restore;
mod run;
mod sample;
mod shared;
mod turns;
mod watch;

pub use handle::{Handle, PortQueues, Settings, Stopped};
pub use poll::Poll;
pub use ports::{Operation, PortErrors, PortReport, Traffic};
pub use restore::{Meaning, OtherFlows, Paths, Restored, SavedBlock, Share};
pub use watch::{End, Filter, How, Image, MOST_WATCHES, Seen, Wanted, Watching, What};
