//! What it costs to see what a node does: throughput of a node with everything on that shows it (flow logs, IPFIX, metrics,
//! trace, capture, live view and page, all of them read) beside the same node with all of it off.
//!
//! Each round measures every node once, in another order each time, in turns so short that a busy moment of the machine meets
//! all alike. What counts are ratios within a round to the node with all of it off: their median over all rounds. That node
//! is there twice: what the second one differs by says what a difference means. `SIDESTEP_BENCH_BEFORE` names an earlier
//! `sidestep`, run beside them with all of it off, for what is paid by those who look at nothing. `SIDESTEP_BENCH_WATCHED`
//! says what is on, if not everything (`watchers.rs`).
//!
//! Whoever looks (the collector, the page's reader, `sidestep flow-log --follow`) runs on the same machine and has its
//! processor time from the same processors; it looks only while its node has its turn.
//!
//! `target/bench/bench.json` gets the medians. `SIDESTEP_BENCH_QUICK` shortens what is measured. Needs root and `ip`.

#[path = "../forwarders/datagrams.rs"]
#[allow(dead_code, reason = "shared with a benchmark that uses more of it")]
mod datagrams;
#[path = "../forwarders/ending.rs"]
mod ending;
mod loads;
#[path = "../forwarders/processor.rs"]
#[allow(dead_code, reason = "shared with a benchmark that uses more of it")]
mod processor;
#[path = "../report/mod.rs"]
#[allow(dead_code, reason = "shared with a benchmark that uses more of it")]
mod report;
#[path = "../forwarders/sites.rs"]
#[allow(dead_code, reason = "shared with a benchmark that uses more of it")]
mod sites;
#[path = "../forwarders/stream.rs"]
#[allow(dead_code, reason = "shared with a benchmark that uses more of it")]
mod stream;
#[path = "../../tests/support/namespaces.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod support;
mod watchers;

use std::path::PathBuf;

use loads::{Load, Subject, Times};
use report::{Machine, Report, Wanted};
use sites::Node;
use support::privileged;
use watchers::Watchers;

/// What it may cost at most of throughput, in bits and in packets. How many connections can be opened in a second is not held
/// against it: each of them is told, in three records, by everything that is on.
const MOST: f64 = 0.03;

fn main() {
    if !privileged() {
        return;
    }
    let quick = std::env::var_os("SIDESTEP_BENCH_QUICK").is_some();
    let times = if quick { Times::QUICK } else { Times::FULL };
    let mut subjects = vec![subject("off", Node::default()), subject("again", Node::default())];
    if let Some(before) = std::env::var_os("SIDESTEP_BENCH_BEFORE") {
        subjects.push(subject("before", Node { program: PathBuf::from(before), ..Node::default() }));
    }
    let collector = watchers::collector();
    let node = Node { arguments: watchers::arguments(&collector), ..Node::default() };
    let mut on = subject("on", node);
    on.watchers = Some(Watchers::of(&on.site, collector));
    subjects.push(on);

    let mut report = Report::default();
    let names: Vec<&'static str> = subjects.iter().map(|subject| subject.site.name).collect();
    for load in Load::ALL {
        let off = key(load, "off");
        report.row(&off, &format!("all off, {}", load.title()), Wanted::Anything);
        for name in names.iter().copied().filter(|name| *name != "off") {
            let wanted = match (name, load) {
                (_, Load::Tcp(_) | Load::Udp) if name != "again" => Wanted::AtLeast(1.0 - MOST),
                _ => Wanted::Anything,
            };
            report.row(&key(load, name), &format!("{}, {}, to all off", described(name), load.title()), wanted);
        }
    }
    for round in 1..=times.rounds {
        eprintln!("round {round} of {}", times.rounds);
        for load in Load::ALL.into_iter().filter(|load| !load.is_cost()) {
            let found = load.measure(&mut subjects, &times);
            for (load, values) in found {
                let off = values.iter().find(|(name, _)| *name == "off").expect("a node with all of it off").1;
                for (name, value) in values {
                    report.note(&key(load, name), if name == "off" { value } else { value / off });
                }
            }
        }
        subjects.rotate_left(1);
    }
    report.print();
    report.save();
    for subject in &subjects {
        if let Some(watchers) = &subject.watchers {
            println!("{}", watchers.told(&subject.site));
        }
    }
    println!("{} rounds, {}", times.rounds, Machine::here());
}

fn subject(name: &'static str, node: Node) -> Subject {
    Subject::new(node.start(name))
}

fn key(load: Load, name: &str) -> String {
    format!("watched_{}_{name}", load.key())
}

fn described(name: &str) -> &str {
    match name {
        "again" => "all off once more",
        "before" => "before",
        _ => "all on",
    }
}
