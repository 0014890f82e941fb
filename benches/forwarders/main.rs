//! A node beside the kernel's router and beside the loop that only reads and writes: TCP, UDP and ping between two hosts
//! on this machine. `scripts/bench` runs it.
//!
//! Each round measures every forwarder once, one after the other, in another order each time. What counts are the ratios
//! within a round: their median over all rounds, with the smallest and the largest. Processor time is that of the whole
//! machine, both ends included, by what was received.
//!
//! DPDK and Open vSwitch are measured beside them where they are installed, for what TCP and ping come to.
//!
//! `target/bench/bench.json` gets the medians. `SIDESTEP_BENCH_QUICK` shortens what is measured. Needs root, `ip`, `nft`,
//! `ping` and `iperf3`.

mod changes;
mod datagrams;
mod ending;
mod measures;
mod order;
mod others;
mod processor;
#[path = "../report/mod.rs"]
#[allow(dead_code, reason = "shared with a benchmark that uses more of it")]
mod report;
#[allow(dead_code, reason = "shared with a benchmark that uses more of it")]
mod sites;
mod stream;
#[path = "../../tests/support/namespaces.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod support;
mod table;
mod window;

use measures::{Extent, Times, measure, measure_alone};
use sites::{ADAPTIVE, Node, SNAT, kernel, null};
use support::privileged;
use table::Found;

fn main() {
    if !privileged() {
        return;
    }
    let quick = std::env::var_os("SIDESTEP_BENCH_QUICK").is_some();
    let times = if quick { Times::QUICK } else { Times::FULL };
    let mut sites = [
        (kernel(), Extent::All),
        (null("ceiling", "offload"), Extent::All),
        (null("ceiling, plain", "plain"), Extent::Rates),
        (Node::default().start("node"), Extent::All),
        (Node { source: SNAT, ..Node::default() }.start("node, SNAT"), Extent::Rates),
        (Node { settings: ADAPTIVE.to_owned(), ..Node::default() }.start("node, adaptive"), Extent::Waiting),
    ];
    let others = others::installed();
    let names: Vec<_> = sites.iter().map(|(site, _)| site.name).chain(others.iter().map(|other| other.name)).collect();
    let mut found = Found::default();
    for round in 1..=times.rounds {
        eprintln!("round {round} of {}", times.rounds);
        measure(&sites, &times, &mut found);
        others.iter().for_each(|other| measure_alone(&other.start().site, &times, &mut found));
        sites.rotate_left(2);
    }
    drop(sites);

    found.print(&names);
    let whole = if found.super_packets_whole { "whole" } else { "not all whole" };
    println!("super-packets of UDP pass the node {whole}");
    let mut results = found.medians();
    let changes = changes::under_load(times.changes, times.trial);
    println!(
        "{} changes of document and catalogue ({}) under {:.0} kpps, the slowest done after {} ms: {} of {} packets lost, {} \
         without changes; {} flows touched; TCP {}, no answer later than {:.1} ms",
        changes.changes,
        changes.catalogue.file_name().unwrap_or_default().display(),
        changes.rate / 1e3,
        changes.slowest.as_millis(),
        changes.lost,
        changes.sent,
        changes.lost_before,
        changes.flows_touched,
        if changes.tcp_alive { "goes on" } else { "broke" },
        changes.tcp_wait.as_secs_f64() * 1e3
    );
    results.insert("apply_lost_packets".to_owned(), changes.lost.into());
    let mut reordered = 0;
    for (name, source) in [("private", sites::PRIVATE), ("SNAT", SNAT)] {
        let report = order::two_workers(source, times.seconds);
        println!(
            "two workers, {name}: {} and {} datagrams out of order of {} there and {} back; TCP x8 {:.1} Gb/s, {} times out of \
             order; {} ({:.2} %) of {} packets handed over",
            report.late[0],
            report.late[1],
            report.received[0],
            report.received[1],
            report.tcp / 1e9,
            report.tcp_late,
            report.handed_over,
            report.handed_over as f64 * 100.0 / report.packets as f64,
            report.packets
        );
        reordered += report.late.iter().sum::<u64>();
    }
    results.insert("reordered_packets".to_owned(), reordered.into());
    report::save(results);
    println!("{} rounds, {}", times.rounds, report::Machine::here());
}
