//! What the path costs in memory, on one core: packets of flows and first packets, prefix lookups beside the crates that
//! could be used instead, snapshots, memory, and a flood; and how throughput changes with routes, rules and flows.
//! `scripts/bench` runs it.
//!
//! Each round measures everything once, so that what else goes on in the machine hits all alike. Times are the
//! processor's time of this thread: what others do counts by what it does to caches alone. `target/bench/bench.json` gets
//! the medians, and `target/bench/*.svg` the plots. `SIDESTEP_BENCH_QUICK` measures without the largest sizes.
//!
//! The tags are those of Azure's weekly file, which `SIDESTEP_TAGS` names or `../shared/data` has, else the project's own,
//! said aloud.

#[path = "../../tests/behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
#[path = "../inputs/endpoints.rs"]
mod endpoints;
#[path = "../inputs/forwarding.rs"]
#[allow(dead_code, reason = "shared with other benchmarks, which use more of it")]
mod forwarding;
#[path = "../../tests/behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;
#[path = "../report/mod.rs"]
#[allow(dead_code, reason = "shared with another benchmark, which uses more of it")]
mod report;
#[path = "../../tests/support/namespaces.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod support;
#[path = "../inputs/tags.rs"]
#[allow(dead_code, reason = "shared with other benchmarks, which use more of it")]
mod tags;

mod batch;
mod decisions;
mod flood;
mod flows;
mod lookups;
mod making;
mod process;
mod snapshots;

use std::time::Instant;

use report::{Machine, Report};

/// Rounds over everything.
const ROUNDS: usize = 7;
/// Rounds where it may take longer.
const ROUNDS_LONG: usize = 21;

/// Something that is measured in every round.
trait Measure {
    /// Measures it once.
    fn round(&mut self, report: &mut Report);

    /// Draws what all rounds found.
    fn plot(&self, _report: &Report) {}
}

fn main() {
    let quick = std::env::var_os("SIDESTEP_BENCH_QUICK").is_some();
    let rounds = if quick { ROUNDS } else { ROUNDS_LONG };
    let start = Instant::now();
    let mut report = Report::default();
    // Before there is anything else in memory.
    let mut measures: Vec<Box<dyn Measure>> = vec![
        Box::new(flows::Flows::new(quick, &mut report)),
        Box::new(making::Making::new(&mut report)),
        Box::new(flood::Flood::new(&mut report)),
        Box::new(decisions::Rules::new(&mut report)),
        Box::new(decisions::Routes::new(quick, &mut report)),
        Box::new(lookups::Lookups::new(&mut report)),
        Box::new(snapshots::Snapshots::new(&mut report)),
    ];
    measures.extend(process::Process::new(&mut report).map(|process| Box::new(process) as Box<dyn Measure>));
    eprintln!("ready after {:.0} s", start.elapsed().as_secs_f64());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for measure in &mut measures {
            measure.round(&mut report);
        }
    }
    report.print();
    report.save();
    measures.iter().for_each(|measure| measure.plot(&report));
    println!("{rounds} rounds in {:.0} s, {}", start.elapsed().as_secs_f64(), Machine::here());
}
