//! Processor time, of the machine and of a process.

use std::fs;
use std::path::Path;

/// Processor time that the machine has spent on anything, in seconds.
pub(crate) fn busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let line = text.lines().next().expect("a line for all processors");
    let ticks: Vec<f64> = line.split_whitespace().skip(1).map(|value| value.parse().expect("a number")).collect();
    // User, nice, system, then two of idleness, then interrupts.
    (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / rustix::param::clock_ticks_per_second() as f64
}

/// Processor time that a process has spent, in seconds: of all its threads, to the nanosecond.
pub(crate) fn spent(process: u32) -> f64 {
    let threads = fs::read_dir(Path::new("/proc").join(process.to_string()).join("task")).expect("a process");
    let spent = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e9
}
