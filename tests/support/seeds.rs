//! The seeds of tests at random, and how a run that fails tells its own.
//!
//! A test runs from seed 1 on, and once more with a seed that the clock gives. `SIDESTEP_SEED` chooses the first seed,
//! `SIDESTEP_SEEDS` how many runs there are from there, and `SIDESTEP_STEPS` how many steps each has.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Whether this is a run by hand: what usually happens need not happen in it.
pub(crate) fn is_chosen() -> bool {
    ["SIDESTEP_SEED", "SIDESTEP_STEPS"].iter().any(|name| std::env::var_os(name).is_some())
}

/// How many steps a run has.
pub(crate) fn steps(default: u64) -> u64 {
    setting("SIDESTEP_STEPS", default)
}

/// So many seeds: the chosen one and those after it, or those from 1 on with one that is new every time at the end.
fn seeds(count: u64) -> Vec<u64> {
    if std::env::var_os("SIDESTEP_SEED").is_some() {
        let first = setting("SIDESTEP_SEED", 1);
        return (first..first + setting("SIDESTEP_SEEDS", count)).collect();
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as u64);
    (1..count).chain([clock]).collect()
}

/// Something that runs at random, step by step.
pub(crate) trait Run {
    /// One random step.
    fn step(&mut self);
    /// After the last one.
    fn finish(&mut self) {}
    /// What a failure tells beside its seed.
    fn tell(&self) -> String {
        String::new()
    }
}

/// Runs with so many seeds, of so many steps; gives each to `after` when it has ended well.
pub(crate) fn runs<R: Run>(what: &str, count: u64, steps: u64, new: impl Fn(u64) -> R, mut after: impl FnMut(R)) {
    let seeds = seeds(count);
    println!("SIDESTEP_SEED={seeds:?} SIDESTEP_STEPS={steps}{what}");
    for seed in seeds {
        let mut run = new(seed);
        let mut done = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            while done < steps {
                run.step();
                done += 1;
            }
            run.finish();
        }));
        if let Err(panic) = result {
            eprintln!("failed with SIDESTEP_SEED={seed} SIDESTEP_STEPS={steps}{what} at step {done}: {}", run.tell());
            // What it holds checks itself when it is dropped, and would fail again.
            std::mem::forget(run);
            resume_unwind(panic);
        }
        after(run);
    }
}
