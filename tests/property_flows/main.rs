//! Random packets, time and configuration against a model of the flow table and the real one.
//!
//! Each test runs from seed 1 on, and once more with a seed that the clock gives. `SIDESTEP_SEED` and `SIDESTEP_STEPS` choose
//! the seed of the first run and how many steps each has. A failure tells the seed and the step.

mod conversation;
mod drive;
mod model;
mod node;
mod offload;
#[path = "../behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use drive::Drive;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// So many seeds: the chosen one and those after it, or those from 1 on with one that is new every time at the end.
fn seeds(count: u64) -> Vec<u64> {
    if std::env::var_os("SIDESTEP_SEED").is_some() {
        let first = setting("SIDESTEP_SEED", 1);
        return (first..first + count).collect();
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as u64);
    (1..count).chain([clock]).collect()
}

/// Runs of so many steps with so many seeds. Gives what became of packets.
fn runs(count: u64, workers: u16) -> BTreeMap<String, u64> {
    let (seeds, steps) = (seeds(count), setting("SIDESTEP_STEPS", 2_500));
    let mut verdicts = BTreeMap::new();
    println!("SIDESTEP_SEED={seeds:?} SIDESTEP_STEPS={steps}, {workers} workers");
    for seed in seeds {
        let mut drive = Drive::new(seed, workers);
        let mut done = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            while done < steps {
                drive.step();
                done += 1;
            }
            drive.finish();
        }));
        if let Err(panic) = result {
            eprintln!("failed with SIDESTEP_SEED={seed} SIDESTEP_STEPS={steps}, {workers} workers, at step {done}");
            resume_unwind(panic);
        }
        for (name, count) in drive.verdicts {
            *verdicts.entry(name).or_default() += count;
        }
    }
    verdicts
}

#[test]
fn a_node_does_what_the_model_says() {
    let verdicts = runs(7, 1);
    if std::env::var_os("SIDESTEP_SEED").is_some() || std::env::var_os("SIDESTEP_STEPS").is_some() {
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
    let (seeds, steps) = (seeds(4), setting("SIDESTEP_STEPS", 1_500));
    println!("SIDESTEP_SEED={seeds:?} SIDESTEP_STEPS={steps}");
    let mut supers = 0;
    for seed in seeds {
        match catch_unwind(|| offload::run(seed, steps)) {
            Ok(count) => supers += count,
            Err(panic) => {
                eprintln!("failed with SIDESTEP_SEED={seed} SIDESTEP_STEPS={steps}");
                resume_unwind(panic);
            }
        }
    }
    assert!(supers > 0, "there were super-packets");
}
