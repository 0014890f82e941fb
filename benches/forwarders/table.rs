//! What was found, as the table and as medians by key.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::measures::Measure;
use crate::report::median;

/// The forwarders that others are compared with.
const CEILING: &str = "ceiling";
const KERNEL: &str = "kernel";

/// What every round found, in the order of the rounds.
#[derive(Debug)]
pub(crate) struct Found {
    values: BTreeMap<(Measure, &'static str), Vec<f64>>,
    /// Whether the nodes passed all super-packets of UDP on as they came.
    pub(crate) super_packets_whole: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self { values: BTreeMap::new(), super_packets_whole: true }
    }
}

impl Found {
    /// Takes a value in.
    pub(crate) fn note(&mut self, measure: Measure, name: &'static str, value: f64) {
        self.values.entry((measure, name)).or_default().push(value);
    }

    /// Within each round, a forwarder by another.
    fn ratios(&self, measure: Measure, name: &'static str, other: &'static str) -> Option<Vec<f64>> {
        let (own, other) = (self.values.get(&(measure, name))?, self.values.get(&(measure, other))?);
        let ratios: Vec<f64> = own.iter().zip(other).map(|(own, other)| own / other).collect();
        ratios.iter().all(|ratio| ratio.is_finite()).then_some(ratios)
    }

    /// Prints a row for each measure and forwarder.
    pub(crate) fn print(&self, names: &[&'static str]) {
        println!("{:<22} {:<16} {:<30} {:<24} {:<24}", "", "", "median", "to the ceiling", "to the kernel");
        for measure in Measure::all() {
            for name in names {
                let Some(own) = self.values.get(&(measure, *name)) else { continue };
                let shown = |other| match self.ratios(measure, name, other) {
                    Some(ratios) if *name != other => spread(&ratios, 2),
                    _ => String::new(),
                };
                let (value, ceiling, kernel) = (spread(own, 3), shown(CEILING), shown(KERNEL));
                println!("{:<22} {name:<16} {value:<30} {ceiling:<24} {kernel:<24}", measure.title());
            }
        }
    }

    /// The medians of the nodes: `tcp1_vs_ceiling`, `tcp1_snat_vs_kernel`, `ping_p50_adaptive_vs_kernel`.
    pub(crate) fn medians(&self) -> Map<String, Value> {
        let mut medians = Map::new();
        for ((measure, name), values) in &self.values {
            let key = match *name {
                "node" => measure.name(),
                _ => match name.strip_prefix("node, ") {
                    Some(variant) => format!("{}_{}", measure.name(), variant.to_lowercase()),
                    None => continue,
                },
            };
            if measure.stands_alone() {
                medians.insert(key.clone(), median(values).into());
            }
            for other in [CEILING, KERNEL] {
                if let Some(ratios) = self.ratios(*measure, name, other) {
                    medians.insert(format!("{key}_vs_{other}"), median(&ratios).into());
                }
            }
        }
        medians
    }
}

/// `0.98 (0.95 to 1.01)`.
fn spread(values: &[f64], digits: usize) -> String {
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({smallest:.digits$} to {largest:.digits$})", median(values))
}
