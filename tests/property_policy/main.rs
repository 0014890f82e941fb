//! Clients that want what an endpoint policy does not list, by any means that TCP has, against a model of a real server.
//!
//! Whatever becomes of packets, the application of the server never has a byte that a reader of its stream would need more
//! than to know that the stream is for another account than the listed one. Honest clients get on meanwhile.
//!
//! The test runs from seed 1 on. `SIDESTEP_SEED`, `SIDESTEP_SEEDS` and `SIDESTEP_STEPS` choose the seed of the first run, how
//! many runs there are and how many steps each has. A failure tells the seed, the step and the last packets.

#[path = "../behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
mod drive;
#[path = "../behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;
mod server;
mod streams;
mod wire;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use drive::Drive;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// So many seeds: the chosen one and those after it, or those from 1 on.
fn seeds(count: u64) -> Vec<u64> {
    if std::env::var_os("SIDESTEP_SEED").is_some() {
        let first = setting("SIDESTEP_SEED", 1);
        return (first..first + setting("SIDESTEP_SEEDS", 1)).collect();
    }
    (1..=count).collect()
}

#[test]
fn no_server_reads_on_for_an_account_that_is_not_listed() {
    let (seeds, steps) = (seeds(40), setting("SIDESTEP_STEPS", 4_000));
    println!("SIDESTEP_SEED={seeds:?} SIDESTEP_STEPS={steps}");
    let (mut counts, mut packets) = (BTreeMap::<&str, u64>::new(), 0);
    for seed in seeds {
        let mut drive = Drive::new(seed);
        let mut done = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            while done < steps {
                drive.step();
                done += 1;
            }
            drive.finish();
        }));
        if let Err(panic) = result {
            eprintln!("failed with SIDESTEP_SEED={seed} SIDESTEP_STEPS={steps} at step {done}: {}", drive.tell());
            std::mem::forget(drive);
            resume_unwind(panic);
        }
        packets += drive.packets;
        for (name, count) in &drive.counts {
            *counts.entry(name).or_default() += count;
        }
    }
    println!("{packets} packets: {counts:#?}");
    if std::env::var_os("SIDESTEP_SEED").is_some() || std::env::var_os("SIDESTEP_STEPS").is_some() {
        return;
    }
    // The test would be worth little if what it is about did not happen.
    for name in ["honest", "checked", "undecided_malformed", "undecided_out_of_order", "answered"] {
        assert!(counts.get(name).is_some_and(|count| *count > 100), "{name} hardly happened: {counts:#?}");
    }
}
