//! The hosts around a network: namespaces with addresses, routes, names and web servers, for the demo, the tests and
//! whoever wants to look around with `ip netns exec`.
//!
//! `layout` says what a document's lab consists of, `build` makes it and removes it, [`serve`] is the
//! web server inside, [`demo`] measures through a lab, [`null`] is what a node is measured against. The devices of the network itself are made by `sidestep run`,
//! inside these namespaces.
//!
//! What a lab makes is written down before it is made (`/run/sidestep/lab/NAME.json`), so that it can be removed exactly,
//! whatever happened in between; what was there before is never touched.

mod build;
mod certificate;
mod command;
pub mod demo;
pub(crate) mod interrupt;
mod layout;
pub mod null;
mod process;
mod refusal;
pub mod serve;
mod state;

pub use build::{LabError, Status, StatusNamespace, StatusProcess, down, status, up};
pub use command::CommandError;
pub use interrupt::Interrupted;
pub use layout::LayoutError;
pub use state::StateError;
