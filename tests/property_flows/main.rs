//! Random packets, time and configuration against a model of the flow table and the real one.
//!
//! [`seeds`] says how to choose what is run.

mod conversation;
mod drive;
mod model;
mod node;
mod offload;
#[path = "../behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;
#[path = "../support/seeds.rs"]
mod seeds;

use std::collections::BTreeMap;

use drive::Drive;
use offload::Twins;

/// Runs with so many seeds. Gives what became of packets.
fn runs(count: u64, workers: u16) -> BTreeMap<String, u64> {
    let mut verdicts = BTreeMap::new();
    let new = |seed| Drive::new(seed, workers);
    seeds::runs(&format!(", {workers} workers"), count, seeds::steps(2_500), new, |drive| {
        for (name, count) in drive.verdicts {
            *verdicts.entry(name).or_default() += count;
        }
    });
    verdicts
}

#[test]
fn a_node_does_what_the_model_says() {
    let verdicts = runs(7, 1);
    if seeds::is_chosen() {
        return;
    }
    // The test would be worth little if what it is about did not happen.
    for name in [
        "forwarded",
        "crossed",
        "let in",
        "kept",
        "moved",
        "evicted",
        "fragment_timeout",
        "reset",
        "flow_ended",
        "time_exceeded",
        "packet_too_big",
        "flow_moved",
        "no_free_port",
        "no_mapping",
        "port_resting",
        "flow_limit_of_nic",
        "flow_table_full",
        "fragment_overlap",
        "fragment_duplicate",
        "icmp_error_without_flow",
        "tcp_without_flow",
        "flow_conflict",
        "endpoint_bypassed",
    ] {
        let count = verdicts.get(name).copied().unwrap_or_default();
        assert!(count > 0, "{name} never happened: {verdicts:#?}");
    }
}

/// Packets enter at any worker, and the same has to become of them.
#[test]
fn several_workers_do_what_the_model_says() {
    runs(3, 2);
    runs(2, 3);
}

/// Whether a device hands over super-packets or their segments makes no difference.
#[test]
fn segments_and_super_packets_come_to_the_same() {
    let mut supers = 0;
    seeds::runs("", 4, seeds::steps(1_500), Twins::new, |run| supers += run.supers);
    assert!(supers > 0, "there were super-packets");
}
