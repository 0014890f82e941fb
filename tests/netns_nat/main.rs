//! Translation by a running `sidestep`, seen from outside: every source mode, NAT gateway, instance public addresses and
//! private subnets between real kernels, and what RFC 4787, 5382 and 5508 ask of a NAT. Each test has namespaces of its
//! own and checks at its end that every packet is accounted for and nothing is left.
//!
//! Needs root, and the tools that [`network::ready`] names; says aloud when it cannot run, and fails then if `CI` is
//! `true`.

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

mod chain;
mod discovery;
mod egress;
mod errors;
mod hairpin;
mod mtu;
mod network;
mod opening;
mod sockets;
mod sources;
mod twins;
