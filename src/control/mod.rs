//! The control side of a node: what holds the model, compiles it, hands the dataplane finished snapshots, and answers on
//! a Unix socket. Tokio lives here only, on threads of its own; no packet ever waits for it.
//!
//! A change is all or nothing: it is validated and compiled first, its ports are opened next, and only then is the
//! snapshot published. A refusal leaves everything as it was.
//!
//! One thread may open devices; all others of the control side ask it, and have no capabilities ([`privileges`]).

pub mod answers;
pub mod client;
mod connections;
pub mod dataplane;
mod denials;
mod device_thread;
mod devices;
pub(crate) mod difference;
pub mod document;
mod endpoints;
pub mod explain;
pub mod flow_log;
pub mod follow;
mod fullness;
pub mod monitor;
pub mod node;
mod notify;
pub mod page;
pub mod ports;
pub mod privileges;
pub mod refusal;
mod round_trips;
pub mod run;
mod server;
pub mod socket;
pub mod state;
pub mod stream;
mod streamed;
pub mod support;
pub mod top;
pub mod verify;
mod watch;

#[cfg(test)]
mod tests;
