//! Views over packet bytes: parse once, rewrite with the checksum kept right, build ICMP errors and TCP resets, cut
//! packets that a device cannot take whole.
//!
//! | file | subject |
//! |---|---|
//! | [`frame`] | the buffer and the offload state beside it |
//! | [`parse`] | bytes to [`parse::Parsed`], once per packet; what later rooms trust |
//! | [`glance`] | whose conversation a packet seems to be of, before it is parsed |
//! | [`checksum`] | one's-complement sums, incremental updates, finishing a partial checksum |
//! | [`rewrite`] | hop limit, identification, addresses and ports, the packet quoted in an ICMP error |
//! | [`cross`] | from IPv4 to IPv6 and back |
//! | [`icmp`] | answers by ICMP, and reading what an ICMP error quotes |
//! | [`mss`] | the maximum segment size in a SYN, lowered |
//! | [`tcp`] | resets and sequence arithmetic |
//! | [`segment`] | super-packets to segments in software |
//! | [`merge`] | packets that follow each other to a super-packet |
//! | [`fragment`] | IPv4 fragmentation |
//! | [`server_name`] | the name that a TCP client asks for, from the first bytes of its stream |
//!
//! Uses nothing else of the crate. Nothing here panics on any input: every access to bytes is checked, and a
//! [`parse::Parsed`] that does not belong to the bytes at hand gives nonsense but no panic.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod checksum;
mod client_hello;
mod crc32c;
pub mod cross;
mod cross_error;
mod field;
pub mod fragment;
pub mod frame;
pub mod glance;
mod host_name;
pub mod icmp;
pub mod merge;
pub mod mptcp;
pub mod mss;
mod options;
pub mod parse;
mod parse_error;
mod request_head;
pub mod rewrite;
pub mod segment;
pub mod server_name;
pub mod tcp;
