//! Sidestep: a userspace packet-forwarding dataplane for Linux with the semantics of Azure virtual network service
//! endpoints.
//!
//! Packets leave a simulated subnet through a TUN device. Sidestep finds the effective route: a service-tag prefix with
//! an endpoint on that subnet goes over the backbone, straight to the service; everything else follows the subnet's
//! other routes, the forced tunnel included.
//!
//! # The rooms, in the order a packet meets them
//!
//! | module | what it is for | may use |
//! |---|---|---|
//! | [`packet`] | views over packet bytes: parse once, rewrite with checksum, build ICMP errors and TCP resets | - |
//! | [`table`] | prefix table, flow table, port pool, timers; knows no Azure word | - |
//! | [`model`] | the declared network: types as written, and their validation | - |
//! | [`tags`] | the service-tag catalogue: load, look up, compare two weeks | - |
//! | [`snapshot`] | the compiled state; how it is published and read | `table` |
//! | [`plan`] | model, catalogue and learned routes to a snapshot | `model`, `tags`, `table`, `snapshot` |
//! | [`path`] | the packet's way: one file per stage, and one file that is only their order | `packet`, `table`, `snapshot` |
//! | [`port`] | devices behind one trait | `packet` |
//! | [`privileges`] | what a thread may still ask of the kernel | - |
//! | [`worker`] | the loop of one core: batches in, path, batches out | `path`, `port`'s trait, `packet`, `table`, `snapshot`, `privileges` |
//! | [`control`], [`telemetry`], [`lab`], [`cli`] | sit on top | anything below |
//!
//! The rule is held by the test `tests/layering.rs`.

pub mod cli;
pub mod control;
pub mod lab;
pub mod model;
pub mod packet;
pub mod path;
pub mod plan;
pub mod port;
pub mod privileges;
pub mod snapshot;
pub mod table;
pub mod tags;
pub mod telemetry;
pub mod worker;
