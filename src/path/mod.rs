//! The packet's way: one file per stage, and one file, [`order`], that is only their order.
//!
//! ```text
//!  parse -> flow? --hit--> replay -> send
//!             |miss
//!             v
//!  origin -> NSG out -> route -> endpoint policy -> source -> firewall, NSG in -> install flow -> replay -> send
//! ```
//!
//! A packet ends in exactly one [`Verdict`], so
//! packets received equal packets forwarded plus answered plus dropped, always, but for fragments that are held until
//! the first of their packet comes.
//!
//! [`forwarder::Forwarder`] is the path of one worker. [`explain()`] runs the same stages with an observer that writes
//! down each decision; so does a packet that is traced, whose [`Egress`] hears them. In forwarding nobody hears them, which
//! costs nothing.
//!
//! [`nat`] says how addresses are translated, and which requirements of the RFCs that keeps.
//!
//! # Invariants
//! - A hit takes no lock and allocates nothing, unless an endpoint-independent mapping falls idle or wakes up by it; it
//!   never reads policy.
//! - A flow is replayed only under the generation that it was decided under.
//! - Time is passed in, in milliseconds of the caller's monotonic clock.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod answer;
mod core;
pub mod counters;
pub mod denial;
mod egress;
pub mod explain;
pub mod firewall;
pub mod flow;
pub mod forwarder;
mod fragments;
mod icmp_error;
mod inspect;
mod install;
pub mod kind;
pub mod log;
pub mod look;
#[doc = include_str!("nat.md")]
pub mod nat {}
pub mod nsg;
pub mod observer;
pub mod order;
pub mod origin;
pub mod policy;
pub mod record;
pub mod redecide;
mod room;
pub mod route;
pub mod save;
pub mod shared;
pub mod source;
mod stages;
pub mod subject;
mod told;
mod undecided;
mod unsolicited;
pub mod verdict;
mod way;
pub mod words;

pub use egress::{Egress, SendFailure};
pub use explain::{Explanation, explain};
pub use forwarder::Forwarder;
pub use observer::StageRecord;
pub use verdict::{Answer, DropReason, Verdict};
