//! Clients that want what an endpoint policy does not list, by any means that TCP has, against a model of a real server.
//!
//! Whatever becomes of packets, the application of the server never has a byte that a reader of its stream would need more
//! than to know that the stream is for another account than the listed one. Honest clients get on meanwhile.
//!
//! [`seeds`] says how to choose what is run. A failure tells the last packets, too.

#[path = "../behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
mod drive;
#[path = "../behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;
#[path = "../support/seeds.rs"]
mod seeds;
mod server;
mod streams;
mod wire;

use std::collections::BTreeMap;

use drive::Drive;

#[test]
fn no_server_reads_on_for_an_account_that_is_not_listed() {
    let (mut counts, mut packets) = (BTreeMap::<&str, u64>::new(), 0);
    seeds::runs("", 40, seeds::steps(4_000), Drive::new, |drive| {
        packets += drive.packets;
        for (name, count) in &drive.counts {
            *counts.entry(name).or_default() += count;
        }
    });
    println!("{packets} packets: {counts:#?}");
    if seeds::is_chosen() {
        return;
    }
    // The test would be worth little if what it is about did not happen.
    for name in ["honest", "checked", "undecided_malformed", "undecided_out_of_order", "answered", "by_cookie"] {
        assert!(counts.get(name).is_some_and(|count| *count > 100), "{name} hardly happened: {counts:#?}");
    }
}
