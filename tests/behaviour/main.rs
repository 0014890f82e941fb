//! Behaviour of the packet path, without privileges: packets go in as data, what comes out is looked at, and the
//! accounting is checked when each test ends.

mod abuse;
mod bench;
mod changes;
mod client;
mod draining;
mod drops;
mod errors;
mod explaining;
mod firewalls;
mod first_answers;
mod forwarding;
mod fragments;
mod guarded;
mod icmp;
mod lifetimes;
mod limits;
mod mappings;
mod nat;
mod nsg;
mod outbound;
mod packets;
mod path_mtu;
mod policies;
mod records;
mod restart;
mod site;
mod smuggling;
mod sources;
mod strangers;
mod streams;
mod supers;
