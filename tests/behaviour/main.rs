//! Behaviour of the packet path, without privileges: packets go in as data, what comes out is looked at, and the
//! accounting is checked when each test ends.

mod bench;
mod changes;
mod drops;
mod explaining;
mod forwarding;
mod icmp;
mod outbound;
mod packets;
