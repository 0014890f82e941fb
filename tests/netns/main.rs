//! `sidestep run` between real kernels: ping, traceroute, iperf3 and curl through TUN devices and wires, and what happens
//! to traffic while the node changes. Each test has namespaces of its own and checks at its end that every packet is
//! accounted for and nothing is left.
//!
//! Needs root, `ip`, `nft`, `ping`, `traceroute`, `iperf3`, `tcpdump` and `curl`; says aloud when it cannot run, and fails then if
//! `CI` is `true`.

#[path = "../support/capture.rs"]
mod capture;
#[path = "../support/conversation.rs"]
mod conversation;
#[path = "../support/node.rs"]
mod node;
#[path = "../support/site.rs"]
mod site;
#[path = "../support/namespaces.rs"]
mod support;

mod appliance;
mod bursts;
mod changes;
mod ethernet;
mod leak;
mod operations;
mod paths;
mod starting;
mod switch;
mod untouched;
mod workers;
mod wrappers;
